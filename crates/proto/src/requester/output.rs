//! What a requester is made from, and what it asks of its driver.

use headwater_wire::{
    AuthorId, Budget, ClockEntry, ForkNotice, HeadsDigest, Message, PlanTotals, Receipt, Run,
    SpaceId, SyncOutcome,
};

use crate::SessionLimits;

/// What this side holds of the space when the sync begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LocalClock {
    /// Nothing, not even the genesis.
    Empty,
    /// Something: see [`crate::SpaceSummary`].
    Held {
        /// The owner.
        owner: AuthorId,
        /// The root of the heads tree.
        digest: HeadsDigest,
        /// How many authors it has.
        authors: u64,
    },
}

/// One pull, as the caller wants it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequesterConfig {
    /// Names the request in every message of the stream.
    pub request_id: u64,
    /// The space to pull.
    pub space: SpaceId,
    /// What to stop at. A budget is met at the end of the first run that reaches it, so that
    /// every sync with a budget above zero makes progress.
    pub budget: Budget,
    /// Authors of whom nothing is taken: their logs are not sent. At most 1,024, the others are let
    /// be; and nobody, as long as nothing of the space is held.
    pub except: Vec<AuthorId>,
    /// Whether to stay and receive what is new once the history is complete.
    pub live: bool,
    /// Waits and buffers.
    pub limits: SessionLimits,
}

/// What a [`crate::Requester`] wants done. Outputs come in order and are to be done in order.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum RequesterOutput {
    /// Send this message.
    Send(Message),
    /// Read this author's head; answer with [`crate::Requester::handle_owner_head`].
    ReadHead(AuthorId),
    /// Read heads in ascending order of author; answer with [`crate::Requester::handle_heads`].
    ReadHeads {
        /// Start strictly after this author.
        after: Option<AuthorId>,
        /// Read at most this many.
        limit: usize,
    },
    /// Verify these runs in this order, append them durably, and answer with one
    /// [`crate::Requester::handle_applied`] for the whole list, or with
    /// [`crate::Requester::handle_invalid_run`]. Several lists may be unanswered at a time.
    Apply(Vec<Run>),
    /// How far the sync is. Only the latest is kept if the driver is slow to poll.
    Progress(SyncProgress),
    /// The history is complete and applied; the session goes on live.
    HistoryComplete(SyncEnd),
    /// The session is over and everything it received is applied.
    Finished(SyncEnd),
}

/// Events and their payload bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tally {
    /// Number of events.
    pub events: u64,
    /// Bytes of payload in them.
    pub payload_bytes: u64,
}

impl Tally {
    /// Adds without overflow: a peer's figures are not worth a panic.
    pub(crate) fn add(&mut self, events: u64, payload_bytes: u64) {
        self.events = self.events.saturating_add(events);
        self.payload_bytes = self.payload_bytes.saturating_add(payload_bytes);
    }

    /// Whether a budget is used up.
    pub(crate) fn reaches(&self, budget: &Budget) -> bool {
        budget.events.is_some_and(|most| self.events >= most)
            || budget
                .payload_bytes
                .is_some_and(|most| self.payload_bytes >= most)
    }
}

/// How far a sync is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SyncProgress {
    /// Sum of all plans so far. Its events are exact, its payload bytes an upper bound.
    pub planned: PlanTotals,
    /// The responder's estimate, from above, of what later plans will hold.
    pub rest: PlanTotals,
    /// Received, live events included.
    pub received: Tally,
    /// Durable here and new, live events included.
    pub applied: Tally,
}

/// An author who forked, by what was met in this sync: the responder sees the log differently and
/// served nothing of it, or our store refused a run of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fork {
    /// Whose log.
    pub author: AuthorId,
    /// A seq in dispute, the lowest that shows in the two entries or that our store has named. The
    /// lowest there is may be lower.
    pub seq: u64,
    /// What we stated when the sync began; `None` if nothing, or if our store found the fork.
    pub stated: Option<ClockEntry>,
    /// The responder's entry; `None` if our store found the fork, whose proof it then has.
    pub held: Option<ClockEntry>,
}

impl Fork {
    /// What a responder's notice comes to.
    pub(crate) fn of(notice: &ForkNotice) -> Self {
        let known = |entry: &ClockEntry| match entry.forked {
            true => entry.head.seq + 1,
            false => entry.head.seq,
        };
        let held = known(&notice.held);
        Self {
            author: notice.author,
            seq: notice.stated.as_ref().map_or(held, known).min(held),
            stated: notice.stated,
            held: Some(notice.held),
        }
    }

    /// A run of the author was refused by our store.
    pub(crate) fn met(author: AuthorId, seq: u64) -> Self {
        Self {
            author,
            seq,
            stated: None,
            held: None,
        }
    }

    /// Whether the responder reported it: what it knows is worth asking for, on a stream of its
    /// own; see [`crate::fork`].
    #[must_use]
    pub fn is_noticed(&self) -> bool {
        self.held.is_some()
    }
}

/// How the live part of a session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LiveEnd {
    /// The responder ended its stream.
    Closed,
    /// We read too slowly, and this many events were not sent: sync again from the head.
    Lagged {
        /// How many.
        missed: u64,
    },
}

/// What a sync achieved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SyncEnd {
    /// Whether the history is complete now, and if not, why.
    pub outcome: SyncOutcome,
    /// Events that are new here, live ones included.
    pub events: u64,
    /// Their payload bytes.
    pub payload_bytes: u64,
    /// Events received, new or not.
    pub received: Tally,
    /// How many events of the history came as stubs.
    pub stubs: u64,
    /// Forks met: the first [`crate::MAX_LISTED_FORKS`], each author once.
    pub forks: Vec<Fork>,
    /// How many authors are forked, listed or not. Once the list is full, those whose fork shows
    /// only in the live part are not told apart: then this is a lower bound.
    pub forked_authors: u64,
    /// How many authors brought something that is not accepted here, and was not stored; a lower
    /// bound above [`crate::MAX_LISTED_FORKS`].
    pub unaccepted_authors: u64,
    /// Authors of whom something was not stored because of a quota here: the first
    /// [`crate::MAX_LISTED_FORKS`] by key.
    pub over_quota: Vec<AuthorId>,
    /// How many those are; a lower bound above [`crate::MAX_LISTED_FORKS`].
    pub over_quota_authors: u64,
    /// Bytes of the history's runs that were sent in vain: not accepted, or above a quota.
    pub refused_bytes: u64,
    /// How often we had to hear from the peer before we could go on: 1 if the first answer was
    /// enough, 2 if the heads had to be sent, 1 more for every further full window of heads.
    pub round_trips: u32,
    /// Whether both sides held the same already.
    pub first_digest_equal: bool,
    /// The digest of what both sides hold together, as far as plans went; that of nothing if this
    /// side ended the history before its end.
    pub joined_digest: HeadsDigest,
    /// The space's generation in the responder's store.
    pub stream_generation: u64,
    /// The responder's signature over what it answered, checked; `None` if it gave none, or if
    /// [`crate::Requester::with_provider`] did not say who it is.
    pub receipt: Option<Receipt>,
    /// How the live part ended; `None` while it goes on or if there was none.
    pub live: Option<LiveEnd>,
}
