//! What a responder asks of its driver, and how it ends.

use headwater_wire::{
    AuthorHead, AuthorId, HeadsDigest, Message, ReceiptFacts, SpaceId, SyncOutcome,
};

use crate::{TailWant, requester::Tally};

/// What a [`crate::Responder`] wants done. Outputs come in order and are to be done in order.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum ResponderOutput {
    /// Ask the policy and the store about the space; answer with
    /// [`crate::Responder::handle_opened`]. With `live`, subscribe to the space *before* reading
    /// its summary, so that nothing falls between history and live.
    Open {
        /// The space.
        space: SpaceId,
        /// Whether live events are wanted after the history.
        live: bool,
    },
    /// Read this author's head; answer with [`crate::Responder::handle_owner_head`].
    ReadHead(AuthorId),
    /// Read heads in ascending order of author; answer with [`crate::Responder::handle_heads`].
    ReadHeads {
        /// Start strictly after this author.
        after: Option<AuthorId>,
        /// Read at most this many.
        limit: usize,
    },
    /// Compare stated heads with our events at their seqs, all below our heads; answer with
    /// [`crate::Responder::handle_tails`], in this order.
    CheckTails(Vec<(AuthorId, AuthorHead)>),
    /// Read as many whole runs as fit, at least one, from the front of these wants; answer with
    /// [`crate::Responder::handle_runs`]. What the answer leaves out is asked for again.
    ReadRuns {
        /// Ranges, in the order they are to be served.
        wants: Vec<TailWant>,
        /// Most bytes of runs; a single run may be larger.
        max_bytes: usize,
    },
    /// Send this message. Poll no further until it is queued: this is the back-pressure from the
    /// network to the store.
    Send(Message),
    /// Sign these facts with the node's key; answer with [`crate::Responder::handle_signed`]. To be
    /// asked only after [`crate::Responder::signing`].
    Sign(ReceiptFacts),
    /// With live: these heads are covered by the history now. A pending live entry of such an
    /// author up to the seq may be dropped. To ignore this is correct and sends events twice.
    Pinned(Vec<(AuthorId, u64)>),
    /// Report with [`crate::Responder::handle_live`] what changed since the space was opened, or
    /// since the last report, as soon as anything has.
    AwaitLive,
    /// The session is over.
    Finished(ServeEnd),
}

/// What was served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServeEnd {
    /// As told to the requester.
    pub outcome: SyncOutcome,
    /// Events and payload bytes of the history sent.
    pub served: Tally,
    /// How many of the events were stubs.
    pub stubs: u64,
    /// Events and payload bytes sent live.
    pub live: Tally,
    /// Authors the requester sees differently: left out, and told.
    pub forked_authors: u64,
    /// Whether the requester stated what we do not know: events, or that an author forked. It is
    /// worth asking back, the latter even if the digests do not tell.
    pub requester_ahead: bool,
    /// Whether both sides held the same already.
    pub first_digest_equal: bool,
    /// The digest of what both sides hold together, as far as plans went.
    pub joined_digest: HeadsDigest,
}
