//! The questions a session asks of a store, and the answers.
//!
//! ```text
//! session ──▶ ReadHead / ReadHeads / CheckTails / ReadRuns ──▶ store
//!         ◀── HeadRecord / HeadsPage / TailCheck / StoredRun ◀──
//! ```
//!
//! Invariant: every list here is bounded by the question that asked for it, so a session and the
//! store behind it hold one page at a time, whatever the number of authors.

use bytes::Bytes;
use headwater_wire::{
    AppendError, AuthorHead, AuthorId, ClockEntry, EventId, HeadsDigest, Run, SpaceId, VerifiedRun,
};

/// One space as a store holds it at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpaceSummary {
    /// The space.
    pub space: SpaceId,
    /// The author of its genesis.
    pub owner: AuthorId,
    /// Counts the commits that changed the space in this store.
    pub generation: u64,
    /// Root of the heads tree.
    pub digest: HeadsDigest,
    /// Number of logs.
    pub authors: u64,
    /// Number of events in all logs.
    pub events: u64,
    /// Bytes of payload held in all logs.
    pub payload_bytes: u64,
}

/// The head of one log, and how much lies below it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeadRecord {
    /// Author, head and fork flag.
    pub entry: ClockEntry,
    /// Payload bytes of the whole log, from its first event up to the head.
    pub payload_bytes: u64,
}

/// Heads in ascending order of author, strictly after the author that was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HeadsPage {
    /// The heads.
    pub heads: Vec<HeadRecord>,
    /// Whether no author follows. A page that is not the last holds at least one head.
    pub last: bool,
}

/// A range of one log: the events with `above < seq <= through`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TailWant {
    /// Whose log.
    pub author: AuthorId,
    /// The last seq *not* wanted; 0 for the whole log.
    pub above: u64,
    /// The last seq wanted.
    pub through: u64,
}

/// Whether a stated head lies on our log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TailState {
    /// Our event at that seq has the stated id.
    Same {
        /// Upper bound of the payload bytes above it.
        payload_bytes: u64,
    },
    /// Our event at that seq is another one.
    Forked {
        /// Its id.
        held: EventId,
    },
}

/// The answer about one stated head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TailCheck {
    /// Whose log.
    pub author: AuthorId,
    /// What was found.
    pub state: TailState,
}

/// A run as it lies in a store, ready to be sent.
///
/// The first run of a want starts at `above + 1`. The last one normally ends at `through`, which
/// was a run's end when the head was read. If the store has merged that run with newer ones since,
/// there is no signature left at `through`, and the run ends **above** it; a run never ends above
/// `through` for another reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredRun {
    /// Whose log.
    pub author: AuthorId,
    /// Seq of its first event.
    pub first_seq: u64,
    /// Seq of its last event.
    pub last_seq: u64,
    /// Bytes of payload in it.
    pub payload_bytes: u64,
    /// How many of its events are stubs.
    pub stubs: u64,
    /// Its wire bytes.
    pub bytes: Bytes,
}

impl StoredRun {
    /// A run that was stored as it is.
    #[must_use]
    pub fn of(run: &Run) -> Self {
        Self {
            author: run.author(),
            first_seq: run.first_seq(),
            last_seq: run.last_seq(),
            payload_bytes: run.payload_bytes(),
            stubs: run.stub_count() as u64,
            bytes: run.as_bytes().clone(),
        }
    }

    /// How many events it holds; 0 if the seqs are inverted, which no store should return.
    #[must_use]
    pub fn events(&self) -> u64 {
        match self.last_seq.checked_sub(self.first_seq) {
            Some(span) => span.saturating_add(1),
            None => 0,
        }
    }
}

/// What appending one run changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appended {
    /// Whose log.
    pub author: AuthorId,
    /// Events that are new in the store; an equal overlap is not counted.
    pub events: u64,
    /// Payload bytes of these events.
    pub payload_bytes: u64,
    /// The log's head now.
    pub head: AuthorHead,
}

/// The store's answer about one verified run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppliedRun {
    /// The run's own last event, known since it was verified.
    pub head: AuthorHead,
    /// What the store did with it.
    pub outcome: Result<Appended, AppendError>,
}

impl AppliedRun {
    /// Pairs a verified run with the store's answer.
    #[must_use]
    pub fn new(run: &VerifiedRun, outcome: Result<Appended, AppendError>) -> Self {
        Self {
            head: run.head(),
            outcome,
        }
    }
}
