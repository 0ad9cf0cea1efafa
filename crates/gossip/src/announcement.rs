//! The announcement of heads: its fields, its bytes, its signature.
//!
//! ```text
//! tag ‖ space sender boot n scope digest changed forked ‖ signature
//!       └─────── postcard, shortest forms only ────────┘  64 bytes, by the sender, over
//!                                                         context ‖ tag ‖ fields
//! ```
//!
//! Invariant: what decodes, encodes to the very bytes it came from.

use bytes::Bytes;
use headwater_wire::{
    AuthorHead, AuthorId, ClockEntry, EventId, HeadsDigest, RevokedDigest, Signature, SignedHead,
    SpaceId, limits::MAX_SEQ,
};
use iroh::{EndpointId, SecretKey};
use serde::{Deserialize, Serialize};

use crate::fields::{Malformed, first_not_rising, put, take};

/// Separates these signatures from every other use of an endpoint's key. Part of the format.
const SIGNATURE_CONTEXT: &[u8] = b"headwater 2026-11 head announcement";

/// The first byte of every message on a topic. Written down, never taken from an enum's order.
///
/// Codes below 16 are those of the older exchange ([`headwater_wire::legacy`]), so that both can
/// be told apart on one topic.
pub mod tag {
    /// The first code that is ours.
    pub const FIRST: u8 = 16;
    /// [`HeadAnnouncement`](crate::HeadAnnouncement).
    pub const HEAD_ANNOUNCEMENT: u8 = 16;
    /// [`RunsMessage`](crate::RunsMessage).
    pub const RUNS: u8 = 17;
}

/// Which announcement of a sender this is.
///
/// Compared field by field: a restarted sender counts on under a higher `boot`, which it must
/// have stored before it announces, so that a restart is not taken for a replay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct AnnouncementCounter {
    /// How often the sender was started.
    pub boot: u64,
    /// How many announcements it made since, this one included. Also makes two announcements of
    /// the same heads differ, since iroh-gossip drops bytes it has seen in the last 90 s.
    pub n: u64,
}

/// What the digest of an announcement speaks of. Digests of different scopes are not compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Scope {
    /// Every author of the space.
    Everything,
}

impl Scope {
    const EVERYTHING: u8 = 0;

    fn code(self) -> u8 {
        match self {
            Self::Everything => Self::EVERYTHING,
        }
    }

    fn from_code(code: u8) -> Option<Self> {
        (code == Self::EVERYTHING).then_some(Self::Everything)
    }
}

/// "These heads changed here; all of mine have this digest."
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeadAnnouncement {
    /// The space it speaks of.
    pub space: SpaceId,
    /// The endpoint that announces, and that can be asked for what it announces. The neighbour
    /// that delivered the message is another one.
    pub sender: EndpointId,
    /// Which announcement of that sender this is.
    pub counter: AnnouncementCounter,
    /// What `digest` covers.
    pub scope: Scope,
    /// Digest over the sender's heads.
    pub digest: HeadsDigest,
    /// Heads that are new at the sender, by strictly ascending author, all of `space`. Each proves
    /// itself; none is checked by decoding or by [`SignedAnnouncement::verify`].
    pub changed: Vec<SignedHead>,
    /// Logs that are cut at the sender because they fork, by strictly ascending author: what shows of
    /// each, and that it is `forked`. The sender's word alone, since where a log is cut its author need
    /// not have signed. It cuts nothing at a receiver: who does not know of the fork asks for the proof.
    pub forked: Vec<ClockEntry>,
}

/// An announcement cannot be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AnnouncementSignError {
    /// The key is not the sender's.
    #[error("the key is that of {found}, the sender is {sender}")]
    ForeignKey {
        /// The sender that the announcement names.
        sender: EndpointId,
        /// The endpoint the key belongs to.
        found: EndpointId,
    },
    /// The heads are not in strictly ascending order of their authors.
    #[error("head {index} does not ascend")]
    HeadsNotAscending {
        /// The first head out of order.
        index: usize,
    },
    /// A log among those that fork does not ascend, or is not marked as forked.
    #[error("fork {index} does not ascend, or is none")]
    NoForks {
        /// The first such log.
        index: usize,
    },
    /// A head belongs to another space than the announcement.
    #[error("head {index} is of space {found}")]
    ForeignHead {
        /// Which head.
        index: usize,
        /// The space it belongs to.
        found: SpaceId,
    },
    /// The announcement would not fit the topic. Announce fewer heads.
    #[error("{len} bytes, {max} fit")]
    TooLarge {
        /// Its size in bytes.
        len: usize,
        /// The limit in bytes.
        max: usize,
    },
}

/// Bytes are not an announcement.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AnnouncementDecodeError {
    /// More bytes than a message on this topic can have.
    #[error("{len} bytes, {max} allowed")]
    TooLarge {
        /// The size found.
        len: usize,
        /// The limit.
        max: usize,
    },
    /// The bytes end inside a field, or a field holds what it cannot.
    #[error("not a value of field {field}")]
    Malformed {
        /// The field being read.
        field: &'static str,
    },
    /// The heads are not in strictly ascending order of their authors.
    #[error("head {index} does not ascend")]
    HeadsNotAscending {
        /// The first head out of order.
        index: usize,
    },
    /// The logs that fork are not in strictly ascending order of their authors.
    #[error("fork {index} does not ascend")]
    ForksNotAscending {
        /// The first log out of order.
        index: usize,
    },
    /// The fields have a shorter encoding, or bytes follow them.
    #[error("not the canonical encoding")]
    NotCanonical,
}

impl From<Malformed> for AnnouncementDecodeError {
    fn from(Malformed { field }: Malformed) -> Self {
        Self::Malformed { field }
    }
}

/// The signature is not the named sender's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the signature is not that of {sender}")]
pub struct UnverifiedSender {
    /// The endpoint the announcement names.
    pub sender: EndpointId,
}

#[derive(Serialize, Deserialize)]
struct FixedFields {
    space: SpaceId,
    sender: [u8; 32],
    counter: AnnouncementCounter,
    scope: u8,
    digest: HeadsDigest,
}

/// A head without the space, which the announcement states once.
#[derive(Serialize, Deserialize)]
struct HeadFields {
    author: AuthorId,
    seq: u64,
    id: EventId,
    signature: Signature,
}

/// What shows of a log that is cut: seq 0 and an id of zeros if nothing does.
#[derive(Serialize, Deserialize)]
struct ForkFields {
    author: AuthorId,
    seq: u64,
    id: EventId,
    /// Of an owner's log: the digest of what is revoked above the cut, if anything is.
    revoked: Option<RevokedDigest>,
}

impl HeadAnnouncement {
    /// Whether it names no log: then its digest is what it has to say.
    pub fn is_periodic(&self) -> bool {
        self.changed.is_empty() && self.forked.is_empty()
    }

    /// Encodes and signs, ready to be broadcast.
    ///
    /// `max_bytes` comes from [`max_announcement_bytes`](crate::max_announcement_bytes).
    ///
    /// # Errors
    ///
    /// Nothing was made: see [`AnnouncementSignError`].
    pub fn sign(&self, key: &SecretKey, max_bytes: usize) -> Result<Bytes, AnnouncementSignError> {
        if key.public() != self.sender {
            return Err(AnnouncementSignError::ForeignKey {
                sender: self.sender,
                found: key.public(),
            });
        }
        if let Some(index) = first_not_ascending(&self.changed) {
            return Err(AnnouncementSignError::HeadsNotAscending { index });
        }
        if let Some(index) = self
            .changed
            .iter()
            .position(|head| head.space != self.space)
        {
            return Err(AnnouncementSignError::ForeignHead {
                index,
                found: self.changed[index].space,
            });
        }
        let forks = self.forked.iter().map(|log| log.author);
        let unmarked = self.forked.iter().position(|log| !log.forked);
        if let Some(index) = first_not_rising(forks).or(unmarked) {
            return Err(AnnouncementSignError::NoForks { index });
        }
        let mut bytes = self.encode_unsigned();
        let len = bytes.len() + Signature::LEN;
        if len > max_bytes {
            return Err(AnnouncementSignError::TooLarge {
                len,
                max: max_bytes,
            });
        }
        let signature = key.sign(&signed_bytes(&bytes));
        bytes.extend_from_slice(&signature.to_bytes());
        Ok(bytes.into())
    }

    /// The tag and the fields.
    fn encode_unsigned(&self) -> Vec<u8> {
        let fixed = FixedFields {
            space: self.space,
            sender: *self.sender.as_bytes(),
            counter: self.counter,
            scope: self.scope.code(),
            digest: self.digest,
        };
        let changed: Vec<HeadFields> = self
            .changed
            .iter()
            .map(|head| HeadFields {
                author: head.author,
                seq: head.head.seq,
                id: head.head.id,
                signature: head.signature,
            })
            .collect();
        let forked: Vec<ForkFields> = self
            .forked
            .iter()
            .map(|log| ForkFields {
                author: log.author,
                seq: log.head.seq,
                id: log.head.id,
                revoked: Some(log.revoked).filter(|it| *it != RevokedDigest::NONE),
            })
            .collect();
        let mut bytes = vec![tag::HEAD_ANNOUNCEMENT];
        put(&mut bytes, &fixed);
        put(&mut bytes, &changed);
        put(&mut bytes, &forked);
        bytes
    }
}

/// A decoded announcement whose signature has not been checked.
///
/// Whoever receives it decides first, by sender and counter, whether it is worth a signature
/// check at all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedAnnouncement {
    announcement: HeadAnnouncement,
    /// The bytes that it is, without the signature.
    unsigned: Bytes,
    signature: iroh::Signature,
}

impl SignedAnnouncement {
    /// Reads a message of a topic. `None` if it is of a kind unknown here: skip it.
    ///
    /// # Errors
    ///
    /// The bytes are no announcement: see [`AnnouncementDecodeError`].
    pub fn decode(
        message: &Bytes,
        max_bytes: usize,
    ) -> Result<Option<Self>, AnnouncementDecodeError> {
        if message.len() > max_bytes {
            return Err(AnnouncementDecodeError::TooLarge {
                len: message.len(),
                max: max_bytes,
            });
        }
        match message.first() {
            Some(&tag::HEAD_ANNOUNCEMENT) => {}
            Some(_) => return Ok(None),
            None => return Err(AnnouncementDecodeError::Malformed { field: "tag" }),
        }
        let malformed = |field| AnnouncementDecodeError::Malformed { field };
        let (unsigned, signature) = message
            .split_last_chunk::<{ Signature::LEN }>()
            .ok_or(malformed("signature"))?;
        let mut rest = unsigned.get(1..).ok_or(malformed("tag"))?;

        let fixed: FixedFields = take(&mut rest, "fixed fields")?;
        let sender = EndpointId::from_bytes(&fixed.sender).map_err(|_| malformed("sender"))?;
        // Counts are claims: the lists grow as entries are read, and end with the bytes.
        let mut changed: Vec<SignedHead> = Vec::new();
        for _ in 0..take::<u64>(&mut rest, "changed")? {
            let fields: HeadFields = take(&mut rest, "changed")?;
            if !(1..=MAX_SEQ).contains(&fields.seq) {
                return Err(malformed("seq"));
            }
            changed.push(SignedHead {
                author: fields.author,
                space: fixed.space,
                head: AuthorHead {
                    seq: fields.seq,
                    id: fields.id,
                },
                signature: fields.signature,
            });
        }
        let mut forked: Vec<ClockEntry> = Vec::new();
        for _ in 0..take::<u64>(&mut rest, "forked")? {
            let fields: ForkFields = take(&mut rest, "forked")?;
            let shows_nothing = fields.id == EventId::from_bytes([0; 32]);
            if fields.seq > MAX_SEQ || (fields.seq == 0) != shows_nothing {
                return Err(malformed("seq"));
            }
            if fields.revoked == Some(RevokedDigest::NONE) {
                return Err(malformed("revoked"));
            }
            forked.push(ClockEntry {
                author: fields.author,
                head: AuthorHead {
                    seq: fields.seq,
                    id: fields.id,
                },
                forked: true,
                revoked: fields.revoked.unwrap_or(RevokedDigest::NONE),
            });
        }

        if let Some(index) = first_not_ascending(&changed) {
            return Err(AnnouncementDecodeError::HeadsNotAscending { index });
        }
        if let Some(index) = first_not_rising(forked.iter().map(|log| log.author)) {
            return Err(AnnouncementDecodeError::ForksNotAscending { index });
        }
        let announcement = HeadAnnouncement {
            space: fixed.space,
            sender,
            counter: fixed.counter,
            scope: Scope::from_code(fixed.scope).ok_or(malformed("scope"))?,
            digest: fixed.digest,
            changed,
            forked,
        };
        if announcement.encode_unsigned() != unsigned {
            return Err(AnnouncementDecodeError::NotCanonical);
        }
        Ok(Some(Self {
            announcement,
            unsigned: message.slice_ref(unsigned),
            signature: iroh::Signature::from_bytes(signature),
        }))
    }

    /// The endpoint that a message which cannot be decoded says it comes from, to name it by.
    pub(crate) fn claimed_sender(message: &Bytes) -> Option<EndpointId> {
        let mut rest = message.strip_prefix(&[tag::HEAD_ANNOUNCEMENT])?;
        let (_, sender): (SpaceId, [u8; 32]) = take(&mut rest, "sender").ok()?;
        EndpointId::from_bytes(&sender).ok()
    }

    /// The space it claims to speak of.
    pub fn space(&self) -> SpaceId {
        self.announcement.space
    }

    /// The endpoint it claims to come from.
    pub fn sender(&self) -> EndpointId {
        self.announcement.sender
    }

    /// Which announcement of that sender it claims to be.
    pub fn counter(&self) -> AnnouncementCounter {
        self.announcement.counter
    }

    /// Checks that the sender signed it. Heads inside still have to prove themselves.
    ///
    /// # Errors
    ///
    /// The signature is not the sender's, so nothing in the message can be held against anybody.
    pub fn verify(self) -> Result<HeadAnnouncement, UnverifiedSender> {
        let sender = self.announcement.sender;
        sender
            .verify(&signed_bytes(&self.unsigned), &self.signature)
            .map_err(|_| UnverifiedSender { sender })?;
        Ok(self.announcement)
    }
}

fn signed_bytes(unsigned: &[u8]) -> Vec<u8> {
    [SIGNATURE_CONTEXT, unsigned].concat()
}

fn first_not_ascending(heads: &[SignedHead]) -> Option<usize> {
    first_not_rising(heads.iter().map(|head| head.author))
}

#[cfg(test)]
mod tests {
    use data_encoding::HEXLOWER;
    use headwater_wire::AuthorSecret;
    use proptest::prelude::*;

    use super::*;

    const LIMIT: usize = crate::max_announcement_bytes(crate::DEFAULT_TOPIC_MESSAGE_BYTES);

    fn key() -> SecretKey {
        SecretKey::from_bytes(&[7; 32])
    }

    fn head(space: SpaceId, author_seed: u8, seq: u64) -> SignedHead {
        let head = AuthorHead {
            seq,
            id: EventId::from_bytes([author_seed; 32]),
        };
        SignedHead::sign(&AuthorSecret::from_bytes([author_seed; 32]), space, head)
    }

    fn announcement(authors: u8) -> HeadAnnouncement {
        let space = SpaceId::from_bytes([1; 32]);
        let mut changed: Vec<_> = (1..=authors)
            .map(|seed| head(space, seed, 300 * u64::from(seed)))
            .collect();
        changed.sort_by_key(|head| head.author);
        HeadAnnouncement {
            space,
            sender: key().public(),
            counter: AnnouncementCounter { boot: 3, n: 200 },
            scope: Scope::Everything,
            digest: HeadsDigest::from_bytes([9; 32]),
            changed,
            forked: Vec::new(),
        }
    }

    fn fork(author: u8, seq: u64) -> ClockEntry {
        let id = EventId::from_bytes([if seq == 0 { 0 } else { author }; 32]);
        ClockEntry {
            author: AuthorId::from_bytes([author; 32]),
            head: AuthorHead { seq, id },
            forked: true,
            revoked: RevokedDigest::NONE,
        }
    }

    fn read(bytes: &Bytes) -> HeadAnnouncement {
        SignedAnnouncement::decode(bytes, LIMIT)
            .unwrap()
            .unwrap()
            .verify()
            .unwrap()
    }

    /// Tag; space; sender; boot 3, n 200; scope; digest; one head: author, seq 300, id, signature;
    /// two logs that fork: author, seq 6, id, a digest of what is revoked, and author, 0, zeros, none; the sender's
    /// signature over all before it.
    #[test]
    fn an_announcement_has_the_bytes_written_down() {
        let mut said = announcement(0);
        said.changed = vec![SignedHead {
            author: AuthorId::from_bytes([0xa1; 32]),
            space: said.space,
            head: AuthorHead {
                seq: 300,
                id: EventId::from_bytes([0xe1; 32]),
            },
            signature: Signature::from_bytes([0x51; 64]),
        }];
        said.forked = vec![fork(0xb1, 6), fork(0xb2, 0)];
        said.forked[0].revoked = RevokedDigest::from_bytes([0xd1; 32]);
        let fields = [
            "10",
            &"01".repeat(32),
            "ea4a6c63e29c520abef5507b132ec5f9954776aebebe7b92421eea691446d22c",
            "03c801",
            "00",
            &"09".repeat(32),
            "01",
            &"a1".repeat(32),
            "ac02",
            &"e1".repeat(32),
            &"51".repeat(64),
            "02",
            &"b1".repeat(32),
            "06",
            &"b1".repeat(32),
            "01",
            &"d1".repeat(32),
            &"b2".repeat(32),
            "00",
            &"00".repeat(32),
            "00",
            "c94841fc53671222af778d6d03ff1022c015cad17df478c0b5ca729b746079d8\
             9b887e52290b56e4926a66513ed41f78c2b56c9350aad370f9bf4e8182d0b60f",
        ];
        let bytes = said.sign(&key(), LIMIT).unwrap();
        assert_eq!(HEXLOWER.encode(&bytes), fields.concat());
        assert_eq!(read(&bytes), said);
    }

    #[test]
    fn an_announcement_comes_back_as_it_was_signed_and_its_heads_prove_themselves() {
        for authors in [0, 1, 15] {
            let mut said = announcement(authors);
            said.forked = (0..authors).map(|n| fork(n, u64::from(n))).collect();
            let heard = read(&said.sign(&key(), LIMIT).unwrap());
            assert_eq!(heard, said);
            for head in heard.changed {
                assert_eq!(head.verify(), Ok(true));
            }
        }
    }

    #[test]
    fn refuses_to_make_what_a_topic_would_swallow() {
        let said = announcement((LIMIT / 130) as u8);
        let error = said.sign(&key(), LIMIT).unwrap_err();
        assert!(matches!(
            error,
            AnnouncementSignError::TooLarge { len, max: LIMIT } if len > LIMIT
        ));
    }

    #[test]
    fn refuses_a_foreign_key_a_foreign_head_and_heads_out_of_order() {
        let said = announcement(2);
        let other = SecretKey::from_bytes(&[8; 32]);
        assert_eq!(
            said.sign(&other, LIMIT),
            Err(AnnouncementSignError::ForeignKey {
                sender: key().public(),
                found: other.public()
            })
        );

        let mut unsorted = said.clone();
        unsorted.changed.reverse();
        assert_eq!(
            unsorted.sign(&key(), LIMIT),
            Err(AnnouncementSignError::HeadsNotAscending { index: 1 })
        );

        let mut foreign = said.clone();
        let elsewhere = SpaceId::from_bytes([2; 32]);
        foreign.changed = vec![head(elsewhere, 1, 1)];
        assert_eq!(
            foreign.sign(&key(), LIMIT),
            Err(AnnouncementSignError::ForeignHead {
                index: 0,
                found: elsewhere
            })
        );
    }

    #[test]
    fn decoding_refuses_heads_named_twice() {
        let mut said = announcement(1);
        said.changed.push(said.changed[0]);
        let mut bytes = said.encode_unsigned();
        bytes.extend_from_slice(&[0; Signature::LEN]);
        assert_eq!(
            SignedAnnouncement::decode(&bytes.into(), LIMIT),
            Err(AnnouncementDecodeError::HeadsNotAscending { index: 1 })
        );
    }

    #[test]
    fn refuses_forks_out_of_order_and_logs_that_are_none() {
        let mut said = announcement(0);
        said.forked = vec![fork(2, 1), fork(1, 1)];
        let refused = Err(AnnouncementSignError::NoForks { index: 1 });
        assert_eq!(said.sign(&key(), LIMIT), refused);
        let decoded = |said: &HeadAnnouncement| {
            let mut bytes = said.encode_unsigned();
            bytes.extend_from_slice(&[0; Signature::LEN]);
            SignedAnnouncement::decode(&bytes.into(), LIMIT)
        };
        let unsorted = Err(AnnouncementDecodeError::ForksNotAscending { index: 1 });
        assert_eq!(decoded(&said), unsorted);
        said.forked = vec![fork(1, 1), fork(2, 1)];
        said.forked[1].forked = false;
        assert_eq!(said.sign(&key(), LIMIT), refused);
        // Nothing shows, and yet an event is named; or the other way about.
        for (seq, id) in [(0, 1), (1, 0), (MAX_SEQ + 1, 1)] {
            let mut log = fork(1, 1);
            log.head = AuthorHead {
                seq,
                id: EventId::from_bytes([id; 32]),
            };
            said.forked = vec![log];
            let malformed = Err(AnnouncementDecodeError::Malformed { field: "seq" });
            assert_eq!(decoded(&said), malformed);
        }
    }

    #[test]
    fn a_message_of_an_unknown_kind_is_skipped() {
        assert_eq!(
            SignedAnnouncement::decode(&Bytes::from_static(&[77, 1, 2]), LIMIT),
            Ok(None)
        );
    }

    #[test]
    fn a_claimed_count_reserves_nothing() {
        let mut bytes = announcement(0).encode_unsigned();
        bytes.truncate(bytes.len() - 2);
        put(&mut bytes, &u64::MAX);
        bytes.extend_from_slice(&[0; Signature::LEN]);
        assert_eq!(
            SignedAnnouncement::decode(&bytes.into(), LIMIT),
            Err(AnnouncementDecodeError::Malformed { field: "changed" })
        );
    }

    #[test]
    fn a_restarted_sender_counts_on_above_everything_it_said_before() {
        let before = AnnouncementCounter { boot: 1, n: 900 };
        let after = AnnouncementCounter { boot: 2, n: 1 };
        assert!(after > before);
    }

    #[test]
    fn one_flipped_bit_is_always_seen() {
        let bytes = announcement(2).sign(&key(), LIMIT).unwrap();
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.to_vec();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let seen = match SignedAnnouncement::decode(&flipped.into(), LIMIT) {
                Ok(Some(read)) => read.verify().is_err(),
                Ok(None) | Err(_) => true,
            };
            assert!(seen, "bit {bit}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(mut bytes: Vec<u8>) {
            if let Some(first) = bytes.first_mut() {
                *first = tag::HEAD_ANNOUNCEMENT;
            }
            let _ = SignedAnnouncement::decode(&bytes.into(), LIMIT);
        }

        #[test]
        fn a_cut_or_lengthened_message_is_refused(len in 0usize..500) {
            let whole = announcement(2).sign(&key(), LIMIT).unwrap();
            let mut other = whole.to_vec();
            other.resize(len, 0);
            if other != whole {
                let read = SignedAnnouncement::decode(&other.into(), LIMIT);
                let refused = match read {
                    Ok(Some(read)) => read.verify().is_err(),
                    Ok(None) => false,
                    Err(_) => true,
                };
                prop_assert!(refused);
            }
        }
    }
}
