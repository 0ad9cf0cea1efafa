//! What a responder says: plans, runs, and how the history ended.

use bytes::Bytes;

use super::{Body, Cursor, FrameWriter, read_runs};
use crate::{
    codec::{Decode, DecodeError, Encode, Put, Reader},
    event::EventRef,
    heads::ClockEntry,
    ids::{AuthorId, HeadsDigest, Signature},
};

/// "Your digest differs from mine: send your heads." From the responder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeadsWanted {
    /// The request.
    pub request_id: u64,
}

impl Body for HeadsWanted {
    fn write(&self, _: &mut FrameWriter) {}

    fn read(request_id: u64, _: &mut Reader) -> Result<Self, DecodeError> {
        Ok(Self { request_id })
    }
}

/// Which authors a plan speaks of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Segment {
    /// Code 0: the owner alone. Comes first: the owner's log says what the space is.
    Owner,
    /// Code 1: the others after the segment before, up to and including this one.
    Through(AuthorId),
    /// Code 2: all the rest.
    Last,
}

/// How much of something: authors, their events, and the payload bytes of these.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PlanTotals {
    /// Logs.
    pub authors: u64,
    /// Events.
    pub events: u64,
    /// Bytes of payload.
    pub payload_bytes: u64,
}

impl Encode for PlanTotals {
    fn encode(&self, out: &mut Vec<u8>) {
        out.put_varint(self.authors);
        out.put_varint(self.events);
        out.put_varint(self.payload_bytes);
    }
}

impl Decode for PlanTotals {
    const MIN_BYTES: usize = 3;

    fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        Ok(Self {
            authors: reader.varint("planned authors")?,
            events: reader.varint("planned events")?,
            payload_bytes: reader.varint("planned payload bytes")?,
        })
    }
}

/// What the responder is about to send for one segment of authors. It binds: the segment ends
/// when as many events have come, and more is an error. A responder whose store has merged the
/// run a plan was to end with repeats the plan with higher totals first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SyncPlan {
    /// The request.
    pub request_id: u64,
    /// The authors it speaks of.
    pub segment: Segment,
    /// What will come for them; the payload bytes are an upper bound.
    pub totals: PlanTotals,
    /// An upper bound of what later segments hold.
    pub rest: PlanTotals,
}

impl Body for SyncPlan {
    fn write(&self, frame: &mut FrameWriter) {
        let out = &mut frame.owned;
        match &self.segment {
            Segment::Owner => out.put_u8(0),
            Segment::Through(author) => {
                out.put_u8(1);
                author.encode(out);
            }
            Segment::Last => out.put_u8(2),
        }
        self.totals.encode(out);
        self.rest.encode(out);
    }

    fn read(request_id: u64, reader: &mut Reader) -> Result<Self, DecodeError> {
        Ok(Self {
            request_id,
            segment: match reader.bounded("segment", 0, 2)? {
                0 => Segment::Owner,
                1 => Segment::Through(AuthorId::decode(reader)?),
                _ => Segment::Last,
            },
            totals: PlanTotals::decode(reader)?,
            rest: PlanTotals::decode(reader)?,
        })
    }
}

/// Runs of the segment planned last, in the order of their authors and seqs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SyncBatchV2 {
    /// The request.
    pub request_id: u64,
    /// Whether more batches follow; `false` ends the history.
    pub more: bool,
    /// Encoded runs. None only where `more` is false.
    pub runs: Vec<Bytes>,
}

impl Body for SyncBatchV2 {
    fn write(&self, frame: &mut FrameWriter) {
        frame.owned.put_bool(self.more);
        frame.put_runs(&self.runs);
    }

    fn read(request_id: u64, reader: &mut Reader) -> Result<Self, DecodeError> {
        Ok(Self {
            request_id,
            more: reader.bool("more")?,
            runs: read_runs(reader)?,
        })
    }
}

/// How a history ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SyncOutcome {
    /// Code 0: the requester holds all the responder held.
    Complete,
    /// Code 1: something is left; what, and how to go on.
    Truncated(Truncation),
}

/// Why a history is not complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Truncation {
    /// Code 0: the budget was used up. Sync again to go on.
    Budget,
    /// Code 1: these many authors forked and were left out. Others are complete.
    Forked {
        /// How many.
        authors: u64,
    },
    /// Code 2: stubs were sent where the filter wanted payloads. Ask for the payloads, here or
    /// elsewhere.
    Stubbed,
    /// Code 3: these many authors brought what is not accepted here, so much of it that the sync
    /// was ended before its end. A requester finds this out by itself; no responder says it. The
    /// next sync leaves them out and goes on.
    NotAccepted {
        /// How many.
        authors: u64,
    },
    /// Code 4: the logs of these many authors, or the space, would have grown above what may be
    /// stored here. Others are complete, unless that was so much that the sync was ended before
    /// its end. A requester finds this out by itself; no responder says it.
    OverQuota {
        /// How many.
        authors: u64,
    },
}

impl Encode for SyncOutcome {
    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Complete => out.put_u8(0),
            Self::Truncated(Truncation::Budget) => out.put(&[1, 0]),
            Self::Truncated(Truncation::Forked { authors }) => {
                out.put(&[1, 1]);
                out.put_varint(*authors);
            }
            Self::Truncated(Truncation::Stubbed) => out.put(&[1, 2]),
            Self::Truncated(Truncation::NotAccepted { authors }) => {
                out.put(&[1, 3]);
                out.put_varint(*authors);
            }
            Self::Truncated(Truncation::OverQuota { authors }) => {
                out.put(&[1, 4]);
                out.put_varint(*authors);
            }
        }
    }
}

impl Decode for SyncOutcome {
    const MIN_BYTES: usize = 1;

    fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        Ok(match reader.bounded("outcome", 0, 1)? {
            0 => Self::Complete,
            _ => Self::Truncated(match reader.bounded("truncation", 0, 4)? {
                0 => Truncation::Budget,
                1 => Truncation::Forked {
                    authors: reader.varint("forked authors")?,
                },
                2 => Truncation::Stubbed,
                3 => Truncation::NotAccepted {
                    authors: reader.varint("authors not accepted")?,
                },
                _ => Truncation::OverQuota {
                    authors: reader.varint("authors over quota")?,
                },
            }),
        })
    }
}

/// The end of the history, and what it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistorySyncComplete {
    /// The request.
    pub request_id: u64,
    /// Complete, or truncated and why.
    pub outcome: SyncOutcome,
    /// The last event sent, if any was.
    pub last_event: Option<EventRef>,
    /// Events sent.
    pub events: u64,
    /// How many of them were stubs.
    pub stubs: u64,
    /// Heads digest over every author of the scope, at the higher of the head the requester
    /// stated and the head served. The requester computes the same from what it stated and
    /// received. It detects faults, not a lying responder.
    pub joined_digest: HeadsDigest,
    /// The responder's generation of the space from which live events follow.
    pub stream_generation: u64,
    /// What the requester may state next time instead of its clock.
    pub cursor: Option<Cursor>,
    /// The provider's signature over the request and this answer.
    pub receipt: Option<Signature>,
}

impl Body for HistorySyncComplete {
    fn write(&self, frame: &mut FrameWriter) {
        let out = &mut frame.owned;
        self.outcome.encode(out);
        out.put_option(self.last_event.as_ref());
        out.put_varint(self.events);
        out.put_varint(self.stubs);
        self.joined_digest.encode(out);
        out.put_varint(self.stream_generation);
        out.put_option(self.cursor.as_ref());
        out.put_option(self.receipt.as_ref());
    }

    fn read(request_id: u64, reader: &mut Reader) -> Result<Self, DecodeError> {
        Ok(Self {
            request_id,
            outcome: SyncOutcome::decode(reader)?,
            last_event: reader.option("last event", EventRef::decode)?,
            events: reader.varint("events")?,
            stubs: reader.varint("stubs")?,
            joined_digest: HeadsDigest::decode(reader)?,
            stream_generation: reader.varint("stream generation")?,
            cursor: reader.option("cursor", Cursor::decode)?,
            receipt: reader.option("receipt", Signature::decode)?,
        })
    }
}

/// New runs, after the history, on a stream that asked for them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LiveBatch {
    /// The request.
    pub request_id: u64,
    /// Encoded runs. They may overlap what the history held.
    pub runs: Vec<Bytes>,
}

impl Body for LiveBatch {
    fn write(&self, frame: &mut FrameWriter) {
        frame.put_runs(&self.runs);
    }

    fn read(request_id: u64, reader: &mut Reader) -> Result<Self, DecodeError> {
        Ok(Self {
            request_id,
            runs: read_runs(reader)?,
        })
    }
}

/// The reader is too slow for the live stream, which ends here: sync again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LiveLagged {
    /// The request.
    pub request_id: u64,
    /// Events not sent.
    pub missed: u64,
}

impl Body for LiveLagged {
    fn write(&self, frame: &mut FrameWriter) {
        frame.owned.put_varint(self.missed);
    }

    fn read(request_id: u64, reader: &mut Reader) -> Result<Self, DecodeError> {
        Ok(Self {
            request_id,
            missed: reader.varint("missed events")?,
        })
    }
}

/// The two sides see an author's log differently, so that nothing of it is sent; all others go
/// on. What the author did is found out, and proven, on a stream of its own; see [`ForkLocator`].
///
/// [`ForkLocator`]: super::ForkLocator
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForkNotice {
    /// The request.
    pub request_id: u64,
    /// The author.
    pub author: AuthorId,
    /// The head the requester stated, if it stated one.
    pub stated: Option<ClockEntry>,
    /// The responder's.
    pub held: ClockEntry,
}

impl Body for ForkNotice {
    fn write(&self, frame: &mut FrameWriter) {
        let out = &mut frame.owned;
        self.held.encode(out);
        out.put_bool(self.stated.is_some());
        if let Some(stated) = &self.stated {
            stated.encode_place(out);
        }
    }

    fn read(request_id: u64, reader: &mut Reader) -> Result<Self, DecodeError> {
        let held = ClockEntry::decode(reader)?;
        Ok(Self {
            request_id,
            author: held.author,
            stated: reader.option("stated", |reader| {
                ClockEntry::decode_place(held.author, reader)
            })?,
            held,
        })
    }
}

/// The responder is overloaded and serves nothing now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Busy {
    /// The request.
    pub request_id: u64,
    /// When to try again, in milliseconds from now.
    pub retry_after_ms: u64,
}

impl Body for Busy {
    fn write(&self, frame: &mut FrameWriter) {
        frame.owned.put_varint(self.retry_after_ms);
    }

    fn read(request_id: u64, reader: &mut Reader) -> Result<Self, DecodeError> {
        Ok(Self {
            request_id,
            retry_after_ms: reader.varint("retry after")?,
        })
    }
}
