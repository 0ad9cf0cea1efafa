//! What is done about an author whose log two nodes see differently: one stream, two state
//! machines, one author.
//!
//! ```text
//! ForkAsker                                          ForkAnswerer
//!   ForkLocator, again with a narrower range ──▶
//!                                            ◀── ForkAnswer
//!   ForkBranch: our run from the difference  ──▶                    only if there is one
//!                                            ◀── ForkBranch: theirs
//!   ForkBranch ×2: the lowest proof, none    ──▶
//!                                            ◀── ForkBranch ×2, none
//!                                            ◀── ForkRevoked       of the space's owner alone
//!   ForkWant: what we lack below the cut     ──▶                    only if we lack any; else the end
//!                                            ◀── SyncBatchV2 …      of the stream, but for the owner:
//!   ForkRevoked, then the evidence           ──▶                    what is revoked above the cut,
//!   the other's list lacks                   ◀── and the answerer's and what shows it
//! ```
//!
//! Both are driven as the sessions of a sync are, see the [crate's front page](crate): after every
//! call the driver drains `poll_output` and does what it is asked, in order; each output but
//! [`ForkOutput::Send`] and [`ForkOutput::Finished`] has one `handle_*` that takes its answer, and
//! only one of them is unanswered at a time. Both sides of a proof end in the same cut, so it does
//! not matter who asks.
//!
//! Invariant: what either side holds is bounded by a locator, four runs, a batch and, for the owner's
//! log, two lists of what is revoked and as much evidence as may wait for the store; and an asker narrows
//! its range with every locator, so that no answer keeps it going. What lies below the cut is stored
//! before evidence is, which is kept only if it takes what is granted there.

mod answerer;
mod asker;
mod halves;
mod revoked;
mod search;
mod side;

use headwater_wire::{
    AuthorHead, AuthorId, ForkProof, Message, Revoked, Run, SpaceId, Subject, VerifiedForkProof,
};

pub use answerer::ForkAnswerer;
pub use asker::{ForkAsker, ForkAskerConfig};

use crate::TailWant;

/// Most locators of one author. 64 entries cut the open range to a 65th: ten are enough for the
/// longest log there can be, so whoever sends more does not search.
pub const MAX_FORK_ROUNDS: u32 = 12;

/// One log as the store holds it: what is shown, what is kept as evidence, and the lowest proof.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ForkLog {
    /// The last event stored, shown or not; `None` if there is none.
    pub end: Option<AuthorHead>,
    /// The last event shown.
    pub head: Option<AuthorHead>,
    /// The lowest fork proven, if any is.
    pub fork: Option<KnownFork>,
    /// What revocations above the cut take away, if it is the log of the space's owner; `None` for
    /// every other.
    pub revoked: Option<Revoked>,
}

/// The lowest fork a store holds a proof of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownFork {
    /// Where the author signed two events.
    pub seq: u64,
    /// The proof, as it was stored.
    pub proof: ForkProof,
}

/// What a [`ForkAsker`] or a [`ForkAnswerer`] wants done.
#[expect(clippy::large_enum_variant, reason = "most are messages, and few wait")]
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum ForkOutput {
    /// Send this message. Poll no further until it is queued.
    Send(Message),
    /// Answerer: ask the policy and the store about the space; answer with
    /// [`ForkAnswerer::handle_opened`].
    Open(SpaceId),
    /// Read how the log stands; answer with `handle_log`.
    ReadLog(AuthorId),
    /// Read the ids of the stored chain at these seqs, ascending, evidence included; answer with
    /// `handle_chain`, in this order, `None` where nothing is stored.
    ReadChain {
        /// Whose log.
        author: AuthorId,
        /// The seqs.
        seqs: Vec<u64>,
    },
    /// Read the stored run that holds this seq, cut to begin there, evidence included; answer with
    /// `handle_branch`.
    ReadBranch {
        /// Whose log.
        author: AuthorId,
        /// Where to begin.
        seq: u64,
    },
    /// Verify this proof, which costs two signatures; answer with `handle_verified`.
    Verify(ForkProof),
    /// Give this proof to the store, which cuts the log if it is lower than the one it holds;
    /// answer with `handle_cut` and the log as it stands then. It is durable by then.
    Cut(VerifiedForkProof),
    /// Read the runs that show what is revoked of these subjects; answer with `handle_evidence`.
    ReadEvidence(Vec<Subject>),
    /// Verify these runs and have the store take in what they show to be revoked; answer with
    /// `handle_absorbed`, or with `handle_invalid_run`. It is durable by then.
    Absorb(Vec<Run>),
    /// Asker: verify these runs, append them durably, and answer with
    /// [`ForkAsker::handle_applied`], or with [`ForkAsker::handle_invalid_run`].
    Apply(Vec<Run>),
    /// Answerer: read as many whole runs as fit, at least one, from the front of these wants;
    /// answer with [`ForkAnswerer::handle_runs`].
    ReadRuns {
        /// One range of what is shown.
        wants: Vec<TailWant>,
        /// Most bytes of runs; a single run may be larger.
        max_bytes: usize,
    },
    /// It is over. An asker ends its stream now, and an answerer its own.
    Finished(ForkEnd),
}

/// What came of it, on either side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ForkEnd {
    /// Whose log.
    pub author: AuthorId,
    /// The lowest fork proven here now. `None`: nobody had a proof, and the stored chains do not
    /// differ; what was noticed is over, or was never so.
    pub fork: Option<u64>,
    /// Whether our log was cut by it: nothing was proven here before, or only something higher.
    pub is_lower: bool,
    /// Where the two stored chains part, if they do.
    pub parted_at: Option<u64>,
    /// Locators sent or answered.
    pub rounds: u32,
    /// Events below the cut that are new here, or that were served.
    pub events: u64,
    /// Their payload bytes.
    pub payload_bytes: u64,
    /// Why something that lies below the cut is not stored here. The peer may be at sending it: tell it
    /// to stop.
    pub unstored: Option<Unstored>,
}

/// Why what lies below a cut is not stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unstored {
    /// The roster accepts no more of the author.
    NotAccepted,
    /// It would be more than a quota allows.
    OverQuota,
}
