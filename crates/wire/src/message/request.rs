//! What a requester says: what it holds, and what it wants.

use super::{Body, FrameWriter};
use crate::{
    codec::{Decode, DecodeError, Encode, Put, Reader, check_ascending},
    event::{ChannelId, Kind},
    heads::ClockEntry,
    ids::{AuthorId, HeadsDigest, SpaceId},
    limits::{MAX_CHUNK_HEADS, MAX_CURSOR_HEADS, MAX_FILTER_VALUES},
};

/// "Send me what I miss": the first message on a stream, from the requester.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SyncRequestV2 {
    /// Chosen by the requester; every message that belongs to the request repeats it.
    pub request_id: u64,
    /// The space.
    pub space: SpaceId,
    /// What the requester holds, or how it will say so.
    pub clock: Clock,
    /// What the requester wants of it.
    pub filter: SyncFilter,
    /// How much the requester takes at most.
    pub budget: Budget,
    /// Whether the stream stays open for new events after the history.
    pub live: bool,
}

/// How a requester states its clock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Clock {
    /// Code 0: chunks of heads follow at once.
    Heads,
    /// Code 1: the root of the heads tree; heads follow if the responder wants them.
    Digest(HeadsDigest),
    /// Code 2: the end of the last complete sync with this responder, and the heads that have
    /// changed here since.
    Cursor {
        /// As the responder sent it.
        cursor: Cursor,
        /// At most 1,024, ascending.
        changed: Vec<ClockEntry>,
    },
}

/// A state of a responder's store. A responder that does not hold exactly this pair of store
/// and generation falls back to asking for heads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cursor {
    /// The store's id.
    pub store: [u8; 16],
    /// The space's generation in it: counts commits.
    pub generation: u64,
    /// The heads digest at that generation.
    pub digest: HeadsDigest,
}

impl Encode for Cursor {
    fn encode(&self, out: &mut Vec<u8>) {
        out.put(&self.store);
        out.put_varint(self.generation);
        self.digest.encode(out);
    }
}

impl Decode for Cursor {
    const MIN_BYTES: usize = 16 + 1 + 32;

    fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        Ok(Self {
            store: reader.array("store id")?,
            generation: reader.varint("generation")?,
            digest: HeadsDigest::decode(reader)?,
        })
    }
}

/// Whose logs a requester wants. The lists hold at most 1,024 authors, ascending.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum AuthorFilter {
    /// Code 0: everybody's.
    #[default]
    All,
    /// Code 1: theirs alone.
    Only(Vec<AuthorId>),
    /// Code 2: everybody's but theirs: the requester takes nothing more of them, so it need not be
    /// sent. Of such an author nothing is served, and nothing said unless the requester states a
    /// head. The clock and the digests are those of everybody all the same.
    Except(Vec<AuthorId>),
}

/// Which events a requester wants whole. `authors` leaves out whole logs; the other axes turn
/// events into stubs, so that chains stay verifiable. No value on an axis means no bound there.
///
/// A filter is not confidentiality: a stub shows time, kind, channel, length and hash.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SyncFilter {
    /// Whose logs.
    pub authors: AuthorFilter,
    /// At most 1,024, ascending. Events without a channel always pass.
    pub channels: Option<Vec<ChannelId>>,
    /// At most 1,024, ascending.
    pub kinds: Option<Vec<Kind>>,
    /// Milliseconds since the Unix epoch; advisory, because timestamps are.
    pub since_ms: Option<u64>,
}

impl SyncFilter {
    /// Whether it leaves nothing out.
    pub fn is_everything(&self) -> bool {
        *self == Self::default()
    }

    /// The filter that leaves out whole logs alone: of these authors, who are put in order.
    #[must_use]
    pub fn except(mut authors: Vec<AuthorId>) -> Self {
        authors.sort_unstable();
        authors.dedup();
        let authors = match authors.is_empty() {
            true => AuthorFilter::All,
            false => AuthorFilter::Except(authors),
        };
        Self {
            authors,
            ..Self::default()
        }
    }

    /// The authors it leaves out, if it leaves out nothing else; `None` if it does.
    pub fn excepted(&self) -> Option<&[AuthorId]> {
        let others = Self {
            authors: AuthorFilter::All,
            ..self.clone()
        };
        match &self.authors {
            _ if !others.is_everything() => None,
            AuthorFilter::All => Some(&[]),
            AuthorFilter::Only(_) => None,
            AuthorFilter::Except(authors) => Some(authors),
        }
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        fn axis<T: Encode>(out: &mut Vec<u8>, values: Option<&Vec<T>>) {
            out.put_bool(values.is_some());
            if let Some(values) = values {
                out.put_list(values);
            }
        }
        match &self.authors {
            AuthorFilter::All => out.put_u8(0),
            AuthorFilter::Only(authors) => {
                out.put_u8(1);
                out.put_list(authors);
            }
            AuthorFilter::Except(authors) => {
                out.put_u8(2);
                out.put_list(authors);
            }
        }
        axis(out, self.channels.as_ref());
        axis(out, self.kinds.as_ref());
        out.put_option(self.since_ms.as_ref());
    }

    pub(super) fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        fn values<T: Decode + Ord>(
            field: &'static str,
            reader: &mut Reader,
        ) -> Result<Vec<T>, DecodeError> {
            let values = reader.list::<T>(field, MAX_FILTER_VALUES)?;
            match values.windows(2).position(|two| two[0] >= two[1]) {
                None => Ok(values),
                Some(at) => Err(DecodeError::NotAscending {
                    field,
                    index: at + 1,
                }),
            }
        }
        fn axis<T: Decode + Ord>(
            field: &'static str,
            reader: &mut Reader,
        ) -> Result<Option<Vec<T>>, DecodeError> {
            reader.option(field, |reader| values(field, reader))
        }
        const AUTHORS: &str = "filter authors";
        Ok(Self {
            authors: match reader.bounded(AUTHORS, 0, 2)? {
                0 => AuthorFilter::All,
                1 => AuthorFilter::Only(values(AUTHORS, reader)?),
                _ => AuthorFilter::Except(values(AUTHORS, reader)?),
            },
            channels: axis("filter channels", reader)?,
            kinds: axis("filter kinds", reader)?,
            since_ms: reader.option("filter since", u64::decode)?,
        })
    }
}

/// The most a requester takes in one sync; it goes on with the next.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Budget {
    /// Events.
    pub events: Option<u64>,
    /// Bytes of payload. The run that crosses it still comes whole.
    pub payload_bytes: Option<u64>,
}

impl Body for SyncRequestV2 {
    fn write(&self, frame: &mut FrameWriter) {
        let out = &mut frame.owned;
        self.space.encode(out);
        match &self.clock {
            Clock::Heads => out.put_u8(0),
            Clock::Digest(digest) => {
                out.put_u8(1);
                digest.encode(out);
            }
            Clock::Cursor { cursor, changed } => {
                out.put_u8(2);
                cursor.encode(out);
                out.put_list(changed);
            }
        }
        self.filter.encode(out);
        out.put_option(self.budget.events.as_ref());
        out.put_option(self.budget.payload_bytes.as_ref());
        out.put_bool(self.live);
    }

    fn read(request_id: u64, reader: &mut Reader) -> Result<Self, DecodeError> {
        Ok(Self {
            request_id,
            space: SpaceId::decode(reader)?,
            clock: match reader.bounded("clock", 0, 2)? {
                0 => Clock::Heads,
                1 => Clock::Digest(HeadsDigest::decode(reader)?),
                _ => {
                    let cursor = Cursor::decode(reader)?;
                    let changed = reader.list::<ClockEntry>("changed heads", MAX_CURSOR_HEADS)?;
                    check_ascending("changed heads", &changed, |entry| entry.author)?;
                    Clock::Cursor { cursor, changed }
                }
            },
            filter: SyncFilter::decode(reader)?,
            budget: Budget {
                events: reader.option("event budget", u64::decode)?,
                payload_bytes: reader.option("payload budget", u64::decode)?,
            },
            live: reader.bool("live")?,
        })
    }
}

/// Part of the requester's clock.
///
/// The order over all chunks: the owner of the space first, if the requester holds the space;
/// then every other author, ascending. The session checks it, for it spans chunks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeadsChunk {
    /// The request.
    pub request_id: u64,
    /// At most 1,024.
    pub heads: Vec<ClockEntry>,
    /// Whether this chunk ends the clock.
    pub last: bool,
}

impl Body for HeadsChunk {
    fn write(&self, frame: &mut FrameWriter) {
        let out = &mut frame.owned;
        out.put_list(&self.heads);
        out.put_bool(self.last);
    }

    fn read(request_id: u64, reader: &mut Reader) -> Result<Self, DecodeError> {
        Ok(Self {
            request_id,
            heads: reader.list("heads", MAX_CHUNK_HEADS)?,
            last: reader.bool("last")?,
        })
    }
}
