//! Who may do what in a space: grants and revocations in the owner's log, and what they add up to.
//!
//! ```text
//! owner's log ──▶ Event::grant, Event::revocation ──▶ RosterState::fold ──▶ who reads, writes, provides
//! ```
//!
//! Invariant: the state is a function of the owner's log alone, in its order. Two nodes that hold
//! the same owner's log give the same answers; there is nothing to merge.

mod revoked;

use core::{fmt, ops::BitOr, str::FromStr};
use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use crate::{
    codec::{Decode, DecodeError, Encode, Put, Reader},
    event::{Event, EventDraft, kind},
    heads::AuthorHead,
    ids::{AuthorId, MemberKey},
};

pub use revoked::Revoked;

/// What somebody may do: any of reading, writing and providing.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Roles(u8);

/// Each role with its name.
const NAMES: [(Roles, &str); 3] = [
    (Roles::READ, "read"),
    (Roles::WRITE, "write"),
    (Roles::PROVIDE, "provide"),
];

/// Text names no roles.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected read, write or provide, joined by a plus, found {found:?}")]
pub struct ParseRolesError {
    /// What stood there instead, cut to 80 characters.
    pub found: String,
}

impl Roles {
    /// Nothing.
    pub const NONE: Self = Self(0);
    /// Bit 1: be served the space. Names a node's key.
    pub const READ: Self = Self(1);
    /// Bit 2: have one's log accepted. Names an author's key.
    pub const WRITE: Self = Self(2);
    /// Bit 4: be believed about what is complete. Names a node's key.
    pub const PROVIDE: Self = Self(4);
    /// Everything.
    pub const ALL: Self = Self(7);

    /// The bits.
    pub const fn bits(self) -> u8 {
        self.0
    }

    /// Roles from their bits; `None` if there are others among them.
    pub const fn from_bits(bits: u8) -> Option<Self> {
        if bits & !Self::ALL.0 == 0 {
            Some(Self(bits))
        } else {
            None
        }
    }

    /// Whether all of `other` are among these.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// These without `other`.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Those that are among both.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Whether there are none.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }
}

impl BitOr for Roles {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// The names, joined by a plus.
impl fmt::Display for Roles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str("nothing");
        }
        let held = NAMES.iter().filter(|(role, _)| self.contains(*role));
        for (at, (_, name)) in held.enumerate() {
            f.write_str(if at == 0 { "" } else { "+" })?;
            f.write_str(name)?;
        }
        Ok(())
    }
}

impl fmt::Debug for Roles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Roles({self})")
    }
}

/// Reads at least one name; several are joined by a plus.
impl FromStr for Roles {
    type Err = ParseRolesError;

    fn from_str(text: &str) -> Result<Self, ParseRolesError> {
        let mut roles = Self::NONE;
        for part in text.split('+') {
            let named = NAMES.iter().find(|(_, name)| *name == part);
            let (role, _) = named.ok_or_else(|| ParseRolesError {
                found: text.chars().take(80).collect(),
            })?;
            roles = roles | *role;
        }
        Ok(roles)
    }
}

impl serde::Serialize for Roles {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl Encode for Roles {
    fn encode(&self, out: &mut Vec<u8>) {
        out.put_u8(self.0);
    }
}

impl Decode for Roles {
    const MIN_BYTES: usize = 1;

    /// At least one: nobody is granted nothing.
    fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        let bits = reader.bounded("roles", 1, Self::ALL.0.into())?;
        Ok(Self(bits as u8))
    }
}

/// Whom a grant or a revocation is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Subject {
    /// Code 0: whoever is not named.
    Anyone,
    /// Code 1: whoever holds this key.
    Key(MemberKey),
}

impl Subject {
    fn key(self) -> Option<MemberKey> {
        match self {
            Self::Anyone => None,
            Self::Key(key) => Some(key),
        }
    }
}

impl From<MemberKey> for Subject {
    fn from(key: MemberKey) -> Self {
        Self::Key(key)
    }
}

impl From<AuthorId> for Subject {
    fn from(author: AuthorId) -> Self {
        Self::Key(author.into())
    }
}

impl From<AuthorId> for MemberKey {
    fn from(author: AuthorId) -> Self {
        Self::from_bytes(*author.as_bytes())
    }
}

impl Encode for Subject {
    fn encode(&self, out: &mut Vec<u8>) {
        out.put_option(self.key().as_ref());
    }
}

impl Decode for Subject {
    const MIN_BYTES: usize = 1;

    fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        let key = reader.option("subject", MemberKey::decode)?;
        Ok(key.map_or(Self::Anyone, Self::Key))
    }
}

/// Somebody may do more. Counts in the owner's log alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grant {
    /// Whom it is about.
    pub subject: Subject,
    /// What they may do from now on, beside what they may already.
    pub roles: Roles,
    /// The key of the invite it was asked for with, which thereby is used up. Only with a subject
    /// that is a key.
    pub invite: Option<MemberKey>,
}

impl Grant {
    /// A grant that no invite asked for.
    pub fn new(subject: impl Into<Subject>, roles: Roles) -> Self {
        Self {
            subject: subject.into(),
            roles,
            invite: None,
        }
    }

    /// The key it is about; `None` for anyone.
    pub fn key(&self) -> Option<MemberKey> {
        self.subject.key()
    }

    fn to_payload(self) -> Vec<u8> {
        let mut out = Vec::new();
        self.subject.encode(&mut out);
        self.roles.encode(&mut out);
        out.put_option(self.invite.as_ref());
        out
    }

    /// Reads the payload of a grant.
    ///
    /// # Errors
    ///
    /// Names the field that is wrong.
    pub fn decode(payload: Bytes) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(payload);
        let subject = Subject::decode(&mut reader)?;
        let roles = Roles::decode(&mut reader)?;
        let invite = reader.option("invite", MemberKey::decode)?;
        reader.finish("grant")?;
        if invite.is_some() && subject == Subject::Anyone {
            return Err(DecodeError::NotCanonical { field: "invite" });
        }
        Ok(Self {
            subject,
            roles,
            invite,
        })
    }
}

/// Somebody may do less. Counts in the owner's log alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Revocation {
    /// Whom it is about. A key stays without the roles, even those that anyone has, until it is
    /// granted them by name.
    pub subject: Subject,
    /// What they may do no longer.
    pub roles: Roles,
    /// The last event that is accepted of a writer; without it none is. Only with [`Roles::WRITE`]
    /// and a subject that is a key. Everything above is cut off, alike everywhere.
    pub last: Option<AuthorHead>,
}

impl Revocation {
    fn to_payload(self) -> Vec<u8> {
        let mut out = Vec::new();
        self.encode(&mut out);
        out
    }

    /// Reads the payload of a revocation.
    ///
    /// # Errors
    ///
    /// Names the field that is wrong.
    pub fn decode(payload: Bytes) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(payload);
        let revocation = <Self as Decode>::decode(&mut reader)?;
        reader.finish("revocation")?;
        Ok(revocation)
    }
}

/// What an event of the owner's log says about who may do what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RosterChange {
    /// Somebody may do more.
    Grant(Grant),
    /// Somebody may do less.
    Revocation(Revocation),
}

impl Event {
    /// The grant it is, if it is one. Ask events of the owner's log only.
    pub fn grant(&self) -> Option<Grant> {
        Grant::decode(self.control(kind::GRANT)?).ok()
    }

    /// The revocation it is, if it is one. Ask events of the owner's log only.
    pub fn revocation(&self) -> Option<Revocation> {
        Revocation::decode(self.control(kind::REVOKE)?).ok()
    }
}

impl EventDraft {
    /// The control event that lets somebody do more; it counts in the owner's log alone.
    pub fn grant(grant: Grant, timestamp_ms: u64) -> Self {
        Self::new(kind::GRANT, timestamp_ms, grant.to_payload())
    }

    /// The control event that lets somebody do less; it counts in the owner's log alone.
    pub fn revoke(revocation: Revocation, timestamp_ms: u64) -> Self {
        Self::new(kind::REVOKE, timestamp_ms, revocation.to_payload())
    }
}

/// How much of an author's log counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Acceptance {
    /// None of it.
    Nothing,
    /// The events up to this one.
    Through(AuthorHead),
    /// All of it.
    All,
}

/// What the owner's log says about one key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Member {
    /// What it was granted by name.
    pub granted: Roles,
    /// What was taken from it by name: it has no part in what anyone may do.
    pub revoked: Roles,
    /// Of a writer whose role was revoked: the last event that counts.
    pub last: Option<AuthorHead>,
}

/// What the grants and revocations of a space add up to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RosterState {
    owner: AuthorId,
    head: Option<AuthorHead>,
    anyone: Roles,
    members: BTreeMap<MemberKey, Member>,
    redeemed: BTreeMap<MemberKey, BTreeSet<MemberKey>>,
}

impl RosterState {
    /// The state of a space whose owner's log is empty: the owner may do everything, others
    /// nothing.
    pub fn new(owner: AuthorId) -> Self {
        Self {
            owner,
            head: None,
            anyone: Roles::NONE,
            members: BTreeMap::new(),
            redeemed: BTreeMap::new(),
        }
    }

    /// Takes in the next event of the owner's log, and tells whom it is about if it is a grant or
    /// a revocation. Events of others, and those taken in before, change nothing.
    pub fn fold(&mut self, event: &Event) -> Option<Subject> {
        let is_next = self.head.is_none_or(|head| event.header.seq > head.seq);
        if event.header.author != self.owner || !is_next {
            return None;
        }
        self.head = Some(event.head());
        if let Some(grant) = event.grant() {
            self.grant(&grant);
            Some(grant.subject)
        } else {
            let revocation = event.revocation()?;
            self.revoke(&revocation);
            Some(revocation.subject)
        }
    }

    /// Takes in the next grant or revocation of the owner's log, for whoever has no use for
    /// [`head`](Self::head).
    pub fn change(&mut self, change: &RosterChange) {
        match change {
            RosterChange::Grant(grant) => self.grant(grant),
            RosterChange::Revocation(revocation) => self.revoke(revocation),
        }
    }

    fn grant(&mut self, grant: &Grant) {
        let Subject::Key(key) = grant.subject else {
            self.anyone = self.anyone | grant.roles;
            return;
        };
        let member = self.members.entry(key).or_default();
        member.granted = member.granted | grant.roles;
        member.revoked = member.revoked.without(grant.roles);
        if grant.roles.contains(Roles::WRITE) {
            member.last = None;
        }
        if let Some(invite) = grant.invite {
            self.redeemed.entry(invite).or_default().insert(key);
        }
    }

    fn revoke(&mut self, revocation: &Revocation) {
        let Subject::Key(key) = revocation.subject else {
            self.anyone = self.anyone.without(revocation.roles);
            return;
        };
        let member = self.members.entry(key).or_default();
        member.granted = member.granted.without(revocation.roles);
        member.revoked = member.revoked | revocation.roles;
        if revocation.roles.contains(Roles::WRITE) {
            member.last = revocation.last;
        }
    }

    /// Whose space it is.
    pub fn owner(&self) -> AuthorId {
        self.owner
    }

    /// The last event of the owner's log that was taken in.
    pub fn head(&self) -> Option<AuthorHead> {
        self.head
    }

    /// What whoever is not named may do.
    pub fn anyone(&self) -> Roles {
        self.anyone
    }

    /// What the holder of a key may do.
    pub fn roles(&self, key: &MemberKey) -> Roles {
        if *key == MemberKey::from(self.owner) {
            return Roles::ALL;
        }
        let member = self.members.get(key).copied().unwrap_or_default();
        member.granted | self.anyone.without(member.revoked)
    }

    /// How much of an author's log counts.
    pub fn acceptance(&self, author: &AuthorId) -> Acceptance {
        let key = MemberKey::from(*author);
        if self.roles(&key).contains(Roles::WRITE) {
            return Acceptance::All;
        }
        let last = self.members.get(&key).and_then(|member| member.last);
        last.map_or(Acceptance::Nothing, Acceptance::Through)
    }

    /// Whether anything was taken from a key by name, and not granted to it by name since.
    pub fn is_revoked(&self, key: &MemberKey) -> bool {
        let member = self.members.get(key);
        member.is_some_and(|member| !member.revoked.is_empty())
    }

    /// Whether something is granted to a key by name, or it is the owner's.
    pub fn is_granted(&self, key: &MemberKey) -> bool {
        let member = self.members.get(key);
        *key == MemberKey::from(self.owner)
            || member.is_some_and(|member| !member.granted.is_empty())
    }

    /// Whoever was named, ascending by key; those from whom all was taken, too.
    pub fn members(&self) -> impl Iterator<Item = (&MemberKey, &Member)> {
        self.members.iter()
    }

    /// Who was granted something for an invite with this key; `None` while it is unused.
    pub fn redeemed(&self, invite: &MemberKey) -> Option<&BTreeSet<MemberKey>> {
        self.redeemed.get(invite)
    }
}

#[cfg(test)]
mod tests;
