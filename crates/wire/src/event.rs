//! Events: the header's canonical form, and the id it has.
//!
//! ```text
//! payload ──▶ PayloadHash ─┐
//! prev, seq, deps, …  ─────┴▶ canonical header ──▶ LogKey ──▶ EventId
//! ```
//!
//! Invariant: an id is computed from a header that was encoded here, never from bytes as they
//! came in.

use core::fmt;

use bytes::Bytes;

use crate::{
    codec::{Decode, DecodeError, Encode, Put, Reader},
    heads::AuthorHead,
    ids::{AuthorId, EventId, PayloadHash, SpaceId},
    limits::{MAX_CHANNEL_BYTES, MAX_SEQ, TOPIC_SECRET_BYTES},
    roster::{Grant, Revocation},
};

/// The application's tag of an event; see [`kind`].
pub type Kind = u16;

/// The kinds the protocol keeps for itself.
pub mod kind {
    use super::Kind;

    /// The first event of a space.
    pub const GENESIS: Kind = 0;

    /// The secret a space's gossip topic is derived from, 32 bytes. Counts in the owner's log
    /// alone; the latest one holds.
    pub const TOPIC_SECRET: Kind = 1;

    /// Somebody may do more: a [`Grant`](crate::Grant). Counts in the owner's log alone.
    pub const GRANT: Kind = 2;

    /// Somebody may do less: a [`Revocation`](crate::Revocation). Counts in the owner's log alone.
    pub const REVOKE: Kind = 3;

    /// The first kind an application may use; those below are control events.
    pub const FIRST_APPLICATION: Kind = 16;
}

/// A channel's name: 1 to 64 bytes, in any encoding.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChannelId(Bytes);

/// A channel's name is empty or too long.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a channel name has 1 to {MAX_CHANNEL_BYTES} bytes, found {found}")]
pub struct ChannelIdError {
    /// How many bytes were given.
    pub found: usize,
}

impl ChannelId {
    /// A channel named by these bytes.
    ///
    /// # Errors
    ///
    /// If there are none, or more than [`MAX_CHANNEL_BYTES`].
    pub fn new(name: impl AsRef<[u8]>) -> Result<Self, ChannelIdError> {
        let name = name.as_ref();
        if name.is_empty() || name.len() > MAX_CHANNEL_BYTES {
            return Err(ChannelIdError { found: name.len() });
        }
        Ok(Self(Bytes::copy_from_slice(name)))
    }

    /// The same name in memory of its own.
    pub(crate) fn detached(&self) -> Self {
        Self(Bytes::copy_from_slice(&self.0))
    }

    /// The name's bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The name as text, if it is UTF-8.
    pub fn as_str(&self) -> Option<&str> {
        core::str::from_utf8(&self.0).ok()
    }
}

impl fmt::Display for ChannelId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.escape_ascii())
    }
}

impl fmt::Debug for ChannelId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ChannelId({self})")
    }
}

impl Encode for ChannelId {
    fn encode(&self, out: &mut Vec<u8>) {
        out.put_byte_string(&self.0);
    }
}

impl Decode for ChannelId {
    const MIN_BYTES: usize = 2;

    fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        reader
            .byte_string("channel", 1, MAX_CHANNEL_BYTES)
            .map(Self)
    }
}

/// Where an event stands: enough to look it up without an index by hash.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
pub struct EventRef {
    /// Whose log.
    pub author: AuthorId,
    /// Which event of it, from 1.
    pub seq: u64,
    /// Its id.
    pub id: EventId,
}

impl Encode for EventRef {
    fn encode(&self, out: &mut Vec<u8>) {
        self.author.encode(out);
        out.put_varint(self.seq);
        self.id.encode(out);
    }
}

impl Decode for EventRef {
    const MIN_BYTES: usize = 65;

    fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        Ok(Self {
            author: AuthorId::decode(reader)?,
            seq: reader.bounded("event reference", 1, MAX_SEQ)?,
            id: EventId::decode(reader)?,
        })
    }
}

/// What an author signs of an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// The space; for the space's own genesis event this is its own id.
    pub space: SpaceId,
    /// Who wrote it.
    pub author: AuthorId,
    /// Position in the author's log, from 1.
    pub seq: u64,
    /// The author's event before this one; `None` only at seq 1.
    pub prev: Option<EventId>,
    /// Events of other authors this one refers to; not checked on receipt.
    pub deps: Vec<EventRef>,
    /// Milliseconds since the Unix epoch by the author's clock. A hint for display: it never
    /// orders, deduplicates, bounds or ends anything.
    pub timestamp_ms: u64,
    /// The application's tag.
    pub kind: Kind,
    /// The channel; an event without one is structural and no channel filter leaves it out.
    pub channel: Option<ChannelId>,
    /// Length of the payload, in bytes.
    pub payload_len: u32,
    /// Hash of the payload.
    pub payload_hash: PayloadHash,
}

impl Header {
    /// The event's id. A genesis event's is computed with a zero space, and *is* its space.
    pub fn id(&self) -> EventId {
        let space = if self.kind == kind::GENESIS {
            &SpaceId::ZERO
        } else {
            &self.space
        };
        let mut scratch = Vec::with_capacity(128);
        LogKey::new(space, &self.author).event_id(
            &mut scratch,
            self.seq,
            self.prev.as_ref(),
            &HeaderFacts {
                deps: &self.deps,
                timestamp_ms: self.timestamp_ms,
                kind: self.kind,
                channel: self.channel.as_ref(),
                payload_len: self.payload_len,
                payload_hash: &self.payload_hash,
            },
        )
    }
}

/// The fields of a header that neither the log nor the chain implies.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HeaderFacts<'a> {
    pub(crate) deps: &'a [EventRef],
    pub(crate) timestamp_ms: u64,
    pub(crate) kind: Kind,
    pub(crate) channel: Option<&'a ChannelId>,
    pub(crate) payload_len: u32,
    pub(crate) payload_hash: &'a PayloadHash,
}

/// Context string of the log key, in the form `blake3::derive_key` asks for.
const LOG_KEY_CONTEXT: &str = "headwater 2026-11-22 event id, keyed by log v1";

/// The key under which one log's event ids are hashed, so that an id belongs to one log.
#[derive(Clone)]
pub struct LogKey([u8; 32]);

impl LogKey {
    /// Derives the key of one author's log in one space.
    pub fn new(space: &SpaceId, author: &AuthorId) -> Self {
        let mut material = [0; 64];
        material[..32].copy_from_slice(space.as_bytes());
        material[32..].copy_from_slice(author.as_bytes());
        Self(blake3::derive_key(LOG_KEY_CONTEXT, &material))
    }

    /// Hashes the canonical header less `space` and `author`, which the key stands for.
    /// `scratch` is only a buffer to reuse.
    #[inline]
    pub(crate) fn event_id(
        &self,
        scratch: &mut Vec<u8>,
        seq: u64,
        prev: Option<&EventId>,
        facts: &HeaderFacts<'_>,
    ) -> EventId {
        scratch.clear();
        scratch.put_varint(seq);
        scratch.put_option(prev);
        scratch.put_list(facts.deps);
        scratch.put_varint(facts.timestamp_ms);
        scratch.put_varint(facts.kind.into());
        scratch.put_option(facts.channel);
        scratch.put_varint(facts.payload_len.into());
        scratch.put(facts.payload_hash.as_bytes());
        EventId::from_bytes(*blake3::keyed_hash(&self.0, scratch).as_bytes())
    }
}

impl fmt::Debug for LogKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LogKey")
    }
}

/// An event of a verified run, with its id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Its id.
    pub id: EventId,
    /// What the author signed.
    pub header: Header,
    /// The payload; `None` for a stub, whose payload was left out.
    pub payload: Option<Bytes>,
}

impl Event {
    /// The topic secret it sets, if it is such an event. Ask events of the owner's log only.
    pub fn topic_secret(&self) -> Option<[u8; TOPIC_SECRET_BYTES]> {
        let payload = self.control(kind::TOPIC_SECRET)?;
        payload.as_ref().try_into().ok()
    }

    /// The payload of a control event of this kind.
    pub(crate) fn control(&self, kind: Kind) -> Option<Bytes> {
        let header = &self.header;
        if header.kind != kind || header.channel.is_some() || !header.deps.is_empty() {
            return None;
        }
        self.payload.clone()
    }

    /// The event as a head.
    pub fn head(&self) -> AuthorHead {
        AuthorHead {
            seq: self.header.seq,
            id: self.id,
        }
    }

    /// The event as a reference.
    pub fn to_ref(&self) -> EventRef {
        EventRef {
            author: self.header.author,
            seq: self.header.seq,
            id: self.id,
        }
    }
}

/// What an application says of an event; its place in the log comes with signing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventDraft {
    /// The application's tag, [`kind::FIRST_APPLICATION`] or above.
    pub kind: Kind,
    /// The channel, if any.
    pub channel: Option<ChannelId>,
    /// At most 64 events of other authors.
    pub deps: Vec<EventRef>,
    /// Milliseconds since the Unix epoch.
    pub timestamp_ms: u64,
    /// At most 1 MiB.
    pub payload: Bytes,
}

impl EventDraft {
    /// A draft without channel and references.
    pub fn new(kind: Kind, timestamp_ms: u64, payload: impl Into<Bytes>) -> Self {
        Self {
            kind,
            channel: None,
            deps: Vec::new(),
            timestamp_ms,
            payload: payload.into(),
        }
    }

    /// The control event that sets a space's topic secret; it counts in the owner's log alone.
    pub fn topic_secret(secret: [u8; TOPIC_SECRET_BYTES], timestamp_ms: u64) -> Self {
        Self::new(kind::TOPIC_SECRET, timestamp_ms, secret.to_vec())
    }

    /// Whether it is a control event of a form this version knows how to write.
    pub(crate) fn is_known_control(&self) -> bool {
        let payload = || self.payload.clone();
        let is_of_its_form = match self.kind {
            kind::TOPIC_SECRET => self.payload.len() == TOPIC_SECRET_BYTES,
            kind::GRANT => Grant::decode(payload()).is_ok(),
            kind::REVOKE => Revocation::decode(payload()).is_ok(),
            _ => false,
        };
        is_of_its_form && self.channel.is_none() && self.deps.is_empty()
    }

    /// Puts the event into a channel.
    #[must_use]
    pub fn in_channel(mut self, channel: ChannelId) -> Self {
        self.channel = Some(channel);
        self
    }

    /// Adds references to other authors' events.
    #[must_use]
    pub fn after(mut self, deps: impl IntoIterator<Item = EventRef>) -> Self {
        self.deps.extend(deps);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hashed_header_is_postcards_encoding_of_its_fields() {
        #[derive(serde::Serialize)]
        struct Canonical<'a> {
            seq: u64,
            prev: Option<EventId>,
            deps: &'a [EventRef],
            timestamp_ms: u64,
            kind: u16,
            channel: Option<&'a [u8]>,
            payload_len: u32,
            payload_hash: PayloadHash,
        }
        let (space, author) = (SpaceId::from_bytes([1; 32]), AuthorId::from_bytes([2; 32]));
        let dep = EventRef {
            author: AuthorId::from_bytes([3; 32]),
            seq: 500,
            id: EventId::from_bytes([4; 32]),
        };
        let header = Header {
            space,
            author,
            seq: 1 << 40,
            prev: Some(EventId::from_bytes([5; 32])),
            deps: vec![dep],
            timestamp_ms: 1_700_000_000_000,
            kind: 300,
            channel: Some(ChannelId::new("general").unwrap()),
            payload_len: 7,
            payload_hash: PayloadHash::of(b"payload"),
        };
        let canonical = postcard::to_allocvec(&Canonical {
            seq: header.seq,
            prev: header.prev,
            deps: &header.deps,
            timestamp_ms: header.timestamp_ms,
            kind: header.kind,
            channel: header.channel.as_ref().map(ChannelId::as_bytes),
            payload_len: header.payload_len,
            payload_hash: header.payload_hash,
        })
        .unwrap();
        let key = blake3::derive_key(LOG_KEY_CONTEXT, &[[1; 32], [2; 32]].concat());
        let expected = blake3::keyed_hash(&key, &canonical);
        assert_eq!(header.id().as_bytes(), expected.as_bytes());
    }

    #[test]
    fn an_id_belongs_to_one_space_and_one_author() {
        let id = |space: u8, author: u8| {
            Header {
                space: SpaceId::from_bytes([space; 32]),
                author: AuthorId::from_bytes([author; 32]),
                seq: 1,
                prev: None,
                deps: vec![],
                timestamp_ms: 0,
                kind: 16,
                channel: None,
                payload_len: 0,
                payload_hash: PayloadHash::of(b""),
            }
            .id()
        };
        assert_ne!(id(1, 1), id(2, 1));
        assert_ne!(id(1, 1), id(1, 2));
        assert_ne!(id(1, 2), id(2, 1));
    }

    #[test]
    fn a_channel_name_has_1_to_64_bytes() {
        assert_eq!(ChannelId::new(""), Err(ChannelIdError { found: 0 }));
        assert_eq!(ChannelId::new([1; 65]), Err(ChannelIdError { found: 65 }));
        assert_eq!(ChannelId::new([1; 64]).unwrap().as_bytes(), [1; 64]);
    }
}
