//! The spaces this folder knows: a local name, and the peers that tickets told us of.

use std::path::Path;

use data_encoding::{HEXLOWER, HEXLOWER_PERMISSIVE};
use headwater::SpaceId;
use headwater_gossip::TopicSecret;
use iroh::{EndpointAddr, EndpointId};
use serde::{Deserialize, Serialize};

use super::file;
use crate::{error::CliError, ticket::SpaceTicket};

pub(super) const FILE: &str = "spaces.json";
const VERSION: u32 = 1;
const MAX_NAME_CHARS: usize = 128;
/// The most peers that are remembered as met: gossip keeps about five neighbours.
const MAX_MET: usize = 16;
/// The digits of an id that name a space nobody has named.
const DEFAULT_NAME_DIGITS: usize = 10;

/// One space, held or only joined.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct KnownSpace {
    pub(crate) id: SpaceId,
    pub(crate) name: String,
    /// The last told first.
    #[serde(default)]
    pub(crate) peers: Vec<EndpointAddr>,
    /// Those met on the gossip topic, the last met first: ways back in when the others are gone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) met: Vec<EndpointAddr>,
    /// The gossip topic's secret as a ticket told it; the one in the owner's log goes before it.
    #[serde(default, with = "hex_secret", skip_serializing_if = "Option::is_none")]
    pub(crate) topic_secret: Option<TopicSecret>,
    /// What the owner's log said of it when it was last looked through.
    #[serde(default)]
    pub(crate) owner_log: OwnerLog,
    /// An invitation that was not used yet, in hex.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    invitation: Option<String>,
    /// The nodes that gave it: they act for the owner.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) invited_by: Vec<EndpointId>,
}

impl KnownSpace {
    /// An invitation that was not used yet.
    pub(crate) fn invitation(&self) -> Option<Vec<u8>> {
        let hex = self.invitation.as_ref()?;
        HEXLOWER_PERMISSIVE.decode(hex.as_bytes()).ok()
    }
}

/// What is remembered of an owner's log, so that only what is new in it is read again.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct OwnerLog {
    /// The last event looked at.
    pub(crate) through: u64,
    /// The latest topic secret up to there.
    #[serde(default, with = "hex_secret", skip_serializing_if = "Option::is_none")]
    pub(crate) topic_secret: Option<TopicSecret>,
}

/// A secret as 64 hex digits.
mod hex_secret {
    use data_encoding::{HEXLOWER, HEXLOWER_PERMISSIVE};
    use headwater_gossip::TopicSecret;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    #[expect(clippy::ref_option, reason = "serde hands over the field as it is")]
    pub(super) fn serialize<S: Serializer>(
        secret: &Option<TopicSecret>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match secret {
            Some(secret) => serializer.serialize_some(&HEXLOWER.encode(&secret.to_bytes())),
            None => serializer.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<TopicSecret>, D::Error> {
        let Some(hex) = Option::<String>::deserialize(deserializer)? else {
            return Ok(None);
        };
        let bytes = HEXLOWER_PERMISSIVE.decode(hex.as_bytes());
        let bytes = bytes.ok().and_then(|bytes| bytes.try_into().ok());
        bytes
            .map(|bytes| Some(TopicSecret::from_bytes(bytes)))
            .ok_or_else(|| D::Error::custom("a topic secret is 32 bytes in hex"))
    }
}

/// All of them, in the order they came.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct KnownSpaces {
    version: u32,
    spaces: Vec<KnownSpace>,
}

impl Default for KnownSpaces {
    fn default() -> Self {
        Self {
            version: VERSION,
            spaces: Vec::new(),
        }
    }
}

impl KnownSpaces {
    pub(super) fn read(folder: &Path) -> Result<Self, CliError> {
        Ok(file::read_json(&folder.join(FILE), VERSION)?.unwrap_or_default())
    }

    pub(super) fn write(&self, folder: &Path) -> Result<(), CliError> {
        file::write_json(&folder.join(FILE), self)
    }

    /// Every space.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &KnownSpace> {
        self.spaces.iter()
    }

    /// The space with this id.
    pub(crate) fn get(&self, id: SpaceId) -> Option<&KnownSpace> {
        self.spaces.iter().find(|space| space.id == id)
    }

    /// Remembers a peer met on a space's topic, if the space is known.
    pub(crate) fn meet(&mut self, id: SpaceId, peer: &EndpointAddr) {
        if let Some(space) = self.spaces.iter_mut().find(|space| space.id == id)
            && !space.met.contains(peer)
        {
            space.met.retain(|met| met.id != peer.id);
            space.met.insert(0, peer.clone());
            space.met.truncate(MAX_MET);
        }
    }

    /// Forgets an invitation that was taken, or never will be; a newer one stays.
    pub(crate) fn forget_invitation(&mut self, id: SpaceId, invitation: &[u8]) {
        if let Some(space) = self.spaces.iter_mut().find(|space| space.id == id)
            && space.invitation().is_some_and(|kept| kept == invitation)
        {
            space.invitation = None;
            space.invited_by.clear();
        }
    }

    /// Remembers what an owner's log says, if the space is known.
    pub(crate) fn saw_owner_log(&mut self, id: SpaceId, seen: &OwnerLog) {
        if let Some(space) = self.spaces.iter_mut().find(|space| space.id == id)
            && seen.through > space.owner_log.through
        {
            space.owner_log = seen.clone();
        }
    }

    /// What a user meant by a ticket, an id, a name, or the first digits of an id.
    ///
    /// # Errors
    ///
    /// Nothing or several things could be meant. A full id or a ticket is always understood.
    pub(crate) fn resolve(&self, text: &str) -> Result<Wanted, CliError> {
        let text = text.trim();
        if let Some(space) = self.spaces.iter().find(|space| space.name == text) {
            return Ok(Wanted::id(space.id));
        }
        if let Ok(id) = text.parse::<SpaceId>() {
            return Ok(Wanted::id(id));
        }
        if looks_like_a_ticket(text) {
            let ticket = text.parse::<SpaceTicket>().map_err(CliError::BadTicket)?;
            return Ok(Wanted {
                id: ticket.space,
                ticket: Some(ticket),
            });
        }
        let digits = text.to_ascii_lowercase();
        let mut matches = self
            .spaces
            .iter()
            .filter(|space| digits.len() >= 4 && space.id.to_string().starts_with(&digits));
        match (matches.next(), matches.next()) {
            (Some(space), None) => Ok(Wanted::id(space.id)),
            (Some(_), Some(_)) => Err(CliError::AmbiguousSpace(text.into())),
            _ => Err(CliError::UnknownSpace(text.into())),
        }
    }

    /// Refuses a name that is taken or could be mistaken for an id or a ticket.
    ///
    /// # Errors
    ///
    /// Says which of the two.
    pub(crate) fn check_name(&self, name: &str) -> Result<(), CliError> {
        let bad = name.is_empty()
            || name.trim() != name
            || name.chars().count() > MAX_NAME_CHARS
            || name.chars().any(char::is_control)
            || name.parse::<SpaceId>().is_ok()
            || looks_like_a_ticket(name);
        if bad {
            return Err(CliError::BadName(name.into()));
        }
        if self.spaces.iter().any(|space| space.name == name) {
            return Err(CliError::NameTaken(name.into()));
        }
        Ok(())
    }

    /// Adds a space under a name.
    ///
    /// # Errors
    ///
    /// The name is refused; nothing has changed.
    pub(crate) fn add(&mut self, id: SpaceId, name: &str) -> Result<&KnownSpace, CliError> {
        self.check_name(name)?;
        self.spaces.push(KnownSpace {
            id,
            name: name.into(),
            peers: Vec::new(),
            met: Vec::new(),
            topic_secret: None,
            owner_log: OwnerLog::default(),
            invitation: None,
            invited_by: Vec::new(),
        });
        let index = self.spaces.len() - 1;
        Ok(&self.spaces[index])
    }

    /// Remembers what a ticket says; a space already known keeps its name unless a new one is
    /// given, and its other peers.
    ///
    /// # Errors
    ///
    /// The name is refused; nothing has changed.
    pub(crate) fn join(
        &mut self,
        ticket: &SpaceTicket,
        name: Option<&str>,
    ) -> Result<&KnownSpace, CliError> {
        let index = if let Some(index) = self
            .spaces
            .iter()
            .position(|space| space.id == ticket.space)
        {
            if let Some(name) = name.filter(|name| self.spaces[index].name != *name) {
                self.check_name(name)?;
                self.spaces[index].name = name.into();
            }
            index
        } else {
            let mut digits = ticket.space.to_string();
            digits.truncate(DEFAULT_NAME_DIGITS);
            self.add(ticket.space, name.unwrap_or(&digits))?;
            self.spaces.len() - 1
        };
        let space = &mut self.spaces[index];
        space
            .peers
            .retain(|peer| ticket.peers.iter().all(|told| told.id != peer.id));
        space.peers.splice(0..0, ticket.peers.iter().cloned());
        if let Some(invitation) = &ticket.invitation {
            space.invitation = Some(HEXLOWER.encode(invitation));
            space.invited_by = ticket.peers.iter().map(|peer| peer.id).collect();
        }
        if ticket.topic_secret.is_some() {
            space.topic_secret.clone_from(&ticket.topic_secret);
        }
        Ok(&self.spaces[index])
    }
}

/// What a SPACE argument means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) id: SpaceId,
    /// The ticket, if it was given as one.
    pub(crate) ticket: Option<SpaceTicket>,
}

impl Wanted {
    fn id(id: SpaceId) -> Self {
        Self { id, ticket: None }
    }
}

/// A ticket is long; a name may begin with the same word.
fn looks_like_a_ticket(text: &str) -> bool {
    use iroh_tickets::Ticket;
    text.len() > 80 && text.starts_with(SpaceTicket::KIND)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ticket(space: u8, peer: u8) -> SpaceTicket {
        SpaceTicket {
            space: SpaceId::from_bytes([space; 32]),
            topic_secret: None,
            peers: vec![EndpointAddr::new(
                iroh::SecretKey::from_bytes(&[peer; 32]).public(),
            )],
            invitation: None,
        }
    }

    #[test]
    fn a_space_is_found_by_name_id_digits_and_ticket() {
        let mut spaces = KnownSpaces::default();
        let id = SpaceId::from_bytes([0xab; 32]);
        spaces.add(id, "headwater notes").unwrap();
        let ticket = ticket(0xab, 1);
        for text in [
            "headwater notes",
            &id.to_string(),
            "abab",
            "ABABAB",
            &ticket.to_string(),
        ] {
            assert_eq!(spaces.resolve(text).unwrap().id, id, "{text}");
        }
        assert_eq!(
            spaces.resolve(&ticket.to_string()).unwrap().ticket,
            Some(ticket)
        );
        assert!(matches!(
            spaces.resolve("nope"),
            Err(CliError::UnknownSpace(_))
        ));
        assert!(matches!(
            spaces.resolve("aba"),
            Err(CliError::UnknownSpace(_))
        ));
        spaces
            .add(
                SpaceId::from_bytes(
                    [0xab, 0xab, 1]
                        .into_iter()
                        .chain([0; 29])
                        .collect::<Vec<_>>()
                        .try_into()
                        .unwrap(),
                ),
                "x",
            )
            .unwrap();
        assert!(matches!(
            spaces.resolve("abab"),
            Err(CliError::AmbiguousSpace(_))
        ));
    }

    #[test]
    fn names_are_unique_and_never_look_like_ids_or_tickets() {
        let mut spaces = KnownSpaces::default();
        let id = SpaceId::from_bytes([1; 32]);
        spaces.add(id, "a").unwrap();
        assert!(matches!(spaces.add(id, "a"), Err(CliError::NameTaken(_))));
        for bad in ["", " a", "a\n", &id.to_string(), &ticket(1, 1).to_string()] {
            assert!(
                matches!(spaces.add(id, bad), Err(CliError::BadName(_))),
                "{bad:?}"
            );
        }
    }

    #[test]
    fn a_topic_secret_survives_the_file_and_a_ticket_without_one() {
        let mut spaces = KnownSpaces::default();
        let secret = Some(TopicSecret::from_bytes([0xcd; 32]));
        let mut told = ticket(1, 1);
        told.topic_secret.clone_from(&secret);
        spaces.join(&told, None).unwrap();
        spaces.join(&ticket(1, 2), None).unwrap();
        spaces.join(&ticket(2, 2), None).unwrap();
        let text = serde_json::to_string(&spaces).unwrap();
        assert!(text.contains(&"cd".repeat(32)));
        let again: KnownSpaces = serde_json::from_str(&text).unwrap();
        assert_eq!(again, spaces);
        assert_eq!(again.spaces[0].topic_secret, secret);
        assert_eq!(again.spaces[1].topic_secret, None);
        assert!(!format!("{again:?}").contains("205"));
    }

    #[test]
    fn an_invitation_is_forgotten_alone_and_not_one_that_came_meanwhile() {
        let mut spaces = KnownSpaces::default();
        let id = SpaceId::from_bytes([1; 32]);
        let mut invited = ticket(1, 1);
        for invitation in [[1], [2]] {
            invited.invitation = Some(invitation.into());
            spaces.join(&invited, None).unwrap();
        }
        // A ticket without one brings peers that gave none.
        spaces.join(&ticket(1, 2), None).unwrap();
        let text = serde_json::to_string(&spaces).unwrap();
        let mut spaces: KnownSpaces = serde_json::from_str(&text).unwrap();
        spaces.forget_invitation(id, &[1]);
        let known = spaces.get(id).unwrap();
        assert_eq!(known.invitation(), Some(vec![2]));
        assert_eq!(known.invited_by, [invited.peers[0].id]);
        spaces.forget_invitation(id, &[2]);
        assert_eq!(spaces.get(id).unwrap().invitation(), None);
    }

    #[test]
    fn peers_that_were_met_are_remembered_the_last_first_and_not_without_end() {
        let peer =
            |number: u8| EndpointAddr::new(iroh::SecretKey::from_bytes(&[number; 32]).public());
        let mut spaces = KnownSpaces::default();
        let id = SpaceId::from_bytes([1; 32]);
        spaces.meet(id, &peer(1));
        spaces.add(id, "n").unwrap();
        for number in 1..=20 {
            spaces.meet(id, &peer(number));
        }
        let moved = peer(20).with_ip_addr("127.0.0.1:1".parse().unwrap());
        spaces.meet(id, &moved);
        let met = &spaces.get(id).unwrap().met;
        assert_eq!(met.len(), MAX_MET);
        assert_eq!(met[..2], [moved, peer(19)]);
    }

    #[test]
    fn joining_again_keeps_the_name_and_puts_the_newest_address_first() {
        let mut spaces = KnownSpaces::default();
        spaces.join(&ticket(1, 1), Some("n")).unwrap();
        spaces.join(&ticket(1, 2), None).unwrap();
        let mut moved = ticket(1, 1);
        let peer = moved.peers.remove(0);
        moved
            .peers
            .push(peer.with_ip_addr("127.0.0.1:1".parse().unwrap()));
        let space = spaces.join(&moved, None).unwrap();
        assert_eq!(space.name, "n");
        assert_eq!(space.peers, [moved.peers, ticket(1, 2).peers].concat());
        assert_eq!(spaces.join(&ticket(2, 1), None).unwrap().name, "0202020202");
    }
}
