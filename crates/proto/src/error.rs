//! Why a session ended early, whose fault it was, and the code the peer is told.

use core::time::Duration;

use headwater_wire::{
    AppendError, AuthorId, Blame, CloseCode, DecodeError, ForkProofError, HeadsDigest, RunError,
    Segment, SyncOutcome,
};

/// What a session was waiting for when its time ran out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// The request, on a stream the peer opened.
    Request,
    /// The first answer to our request.
    FirstAnswer,
    /// Any progress at all, for as long as [`crate::SessionLimits::stall`] allows.
    Progress,
    /// The end of the history.
    Completion,
}

impl core::fmt::Display for Wait {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::Request => "the request",
            Self::FirstAnswer => "the first answer",
            Self::Progress => "progress",
            Self::Completion => "the end of the history",
        })
    }
}

/// Why a sync failed. The session is over; what was applied before stays applied, and the next
/// sync goes on from it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SessionError {
    /// A message came that its sender may not send now, or not at all in its role.
    #[error("{message} is out of place while {phase}")]
    OutOfPhase {
        /// The message's name.
        message: &'static str,
        /// What the session was doing.
        phase: &'static str,
    },
    /// A message speaks of another request.
    #[error("message for request {found}, this is {expected}")]
    WrongRequest {
        /// The id of this session's request.
        expected: u64,
        /// The id in the message.
        found: u64,
    },
    /// Stated heads do not strictly ascend by author (the owner, if stated, stands first).
    #[error("stated author {} does not come after {}", found.fmt_short(), previous.fmt_short())]
    UnsortedHeads {
        /// The author before.
        previous: AuthorId,
        /// The author out of order, or stated twice.
        found: AuthorId,
    },
    /// A stated head has a seq that no event can have.
    #[error("stated head of {} has seq {seq}", author.fmt_short())]
    HeadSeqOutOfRange {
        /// Whose head.
        author: AuthorId,
        /// The seq stated.
        seq: u64,
    },
    /// A chunk of heads is empty and not the last, or holds more than a chunk may.
    #[error("chunk of {found} heads, 1 to {max} allowed")]
    HeadsChunkSize {
        /// How many it holds.
        found: usize,
        /// The most it may hold.
        max: usize,
    },
    /// More chunks of heads were sent than the plans so far allow.
    #[error("more than {window} chunks of heads ahead of the plans")]
    HeadsWindowExceeded {
        /// The window.
        window: usize,
    },
    /// More authors take part than this node's limit allows.
    #[error("more than {limit} authors")]
    TooManyAuthors {
        /// The limit.
        limit: u64,
    },
    /// A plan speaks of authors whose heads were not stated yet.
    #[error("plan for {found:?} is ahead of the stated heads")]
    PlanAheadOfHeads {
        /// The plan that came.
        found: Segment,
    },
    /// A plan does not follow the one before it.
    #[error("plan for {found:?} cannot follow {previous:?}")]
    PlanOutOfOrder {
        /// The plan before, if any.
        previous: Option<Segment>,
        /// The plan that came.
        found: Segment,
    },
    /// A plan names more authors than a segment may hold, or as many fork notices came for it.
    #[error("plan for {found} authors, {max} allowed")]
    PlanTooWide {
        /// Authors in the plan.
        found: u64,
        /// The most a segment may hold.
        max: u64,
    },
    /// A revised plan does not promise more than the one it revises, or there are too many.
    #[error("revised plan of {found} events after one of {previous}")]
    PlanRevision {
        /// Events promised before.
        previous: u64,
        /// Events promised now.
        found: u64,
    },
    /// A segment ended before all that was promised had come.
    #[error("plan promised {planned} events, {received} came")]
    PlanNotMet {
        /// Events promised.
        planned: u64,
        /// Events received.
        received: u64,
    },
    /// More came than was promised.
    #[error("plan promised {planned} {unit}, {received} came")]
    PlanExceeded {
        /// What was counted.
        unit: &'static str,
        /// How much was promised.
        planned: u64,
        /// How much came.
        received: u64,
    },
    /// More came although the budget of the request was used up.
    #[error("a run came after the budget was used up")]
    BudgetExceeded,
    /// A batch that says more follows holds no runs.
    #[error("empty batch")]
    EmptyBatch,
    /// Bytes in a batch are not a run.
    #[error("run does not decode: {0}")]
    RunDecode(#[source] DecodeError),
    /// A run's signature, chain or space is wrong.
    #[error("run is invalid: {0}")]
    InvalidRun(#[from] RunError),
    /// A run's author does not belong to the segment, or comes after a higher author.
    #[error("run of {} does not belong here", author.fmt_short())]
    RunOutsideSegment {
        /// The run's author.
        author: AuthorId,
    },
    /// A run of an author the responder has reported as forked.
    #[error("run of {} after a fork notice", author.fmt_short())]
    RunOfForkedAuthor {
        /// The run's author.
        author: AuthorId,
    },
    /// A run of an author of whom this side said it takes nothing.
    #[error("run of {}, who was left out of the request", author.fmt_short())]
    RunOfExceptedAuthor {
        /// The run's author.
        author: AuthorId,
    },
    /// A run does not start where the one before it, or the stated head, ends.
    #[error("run of {} starts at {found}, expected {expected}", author.fmt_short())]
    NotContiguous {
        /// The run's author.
        author: AuthorId,
        /// The seq it had to start at.
        expected: u64,
        /// The seq it starts at.
        found: u64,
    },
    /// A fork notice speaks of an entry we did not state, or of none that contradicts it.
    #[error("fork notice about {} contradicts nothing that was stated", author.fmt_short())]
    UnfoundedForkNotice {
        /// The author it names.
        author: AuthorId,
    },
    /// The responder served nothing of the owner to a requester that holds nothing.
    #[error("the owner's log was not served")]
    OwnerMissing,
    /// The stated outcome contradicts what came before it.
    #[error("outcome {outcome:?} contradicts what was served")]
    OutcomeContradicted {
        /// The outcome stated.
        outcome: SyncOutcome,
    },
    /// A figure in the completion is not what was received.
    #[error("completion states {stated} {unit}, {received} came")]
    CompletionMismatch {
        /// What was counted.
        unit: &'static str,
        /// The figure stated.
        stated: u64,
        /// What was received.
        received: u64,
    },
    /// The last event stated in the completion is not the last one received.
    #[error("completion states another last event than the one received")]
    LastEventMismatch,
    /// The two sides do not hold the same together: something was left out or added.
    #[error("joined digest is {stated} for the responder, {computed} here")]
    DigestMismatch {
        /// The responder's.
        stated: HeadsDigest,
        /// Ours, from what we stated and received.
        computed: HeadsDigest,
    },
    /// The completion's receipt is not signed by the peer's node key, or for other facts.
    #[error("receipt is not the peer's, or not for this answer")]
    WrongReceipt,
    /// The store refused a run for a reason that is no fork.
    #[error("run of {} refused: {error}", author.fmt_short())]
    RunRefused {
        /// The run's author.
        author: AuthorId,
        /// Why.
        error: AppendError,
    },
    /// The request uses a part of the protocol that is not built yet.
    #[error("{feature} is not supported yet")]
    Unsupported {
        /// Which part.
        feature: &'static str,
    },
    /// A locator names an event outside the range the last answer has left open.
    #[error("locator names event {seq}, only those between {low} and {high} are open")]
    LocatorOutOfRange {
        /// Seq of the event; of the range's lower end if the locator is empty.
        seq: u64,
        /// The same on both sides.
        low: u64,
        /// Different on the two sides, or beyond ours.
        high: u64,
    },
    /// A locator speaks of another log than the first one of its stream.
    #[error("locator of {}, this is about {}", found.fmt_short(), expected.fmt_short())]
    LocatorOfAnotherLog {
        /// Whose log it was about.
        expected: AuthorId,
        /// The author in the locator; the same if the space is another one.
        found: AuthorId,
    },
    /// More locators came than the longest log can need.
    #[error("more than {max} locators")]
    TooManyForkRounds {
        /// The most there may be.
        max: u32,
    },
    /// The answer to a locator names what the locator does not, or contradicts an earlier one.
    #[error("answer {same} and {differs:?} does not fit the locators")]
    UnfoundedForkAnswer {
        /// The highest seq it says is the same.
        same: u64,
        /// The lowest it says differs.
        differs: Option<u64>,
    },
    /// A branch belongs to another author.
    #[error("branch of {}, this is about {}", found.fmt_short(), expected.fmt_short())]
    ForeignBranch {
        /// Whose log it is about.
        expected: AuthorId,
        /// The author of the branch.
        found: AuthorId,
    },
    /// A branch does not begin where the two chains part.
    #[error("branch of {} begins at {found}, expected {expected}", author.fmt_short())]
    BranchStart {
        /// The author.
        author: AuthorId,
        /// Where the chains part.
        expected: u64,
        /// Where the branch begins.
        found: u64,
    },
    /// A run that is to show what the owner revoked does not begin with a revocation.
    #[error("run of {} from {first} shows no revocation there", author.fmt_short())]
    StrayEvidence {
        /// The author.
        author: AuthorId,
        /// Where the run begins.
        first: u64,
    },
    /// More runs came that are to show what the owner revoked than one exchange may have.
    #[error("more than {max} runs to show what {} revoked", author.fmt_short())]
    TooMuchEvidence {
        /// The author.
        author: AuthorId,
        /// Most runs allowed.
        max: usize,
    },
    /// The peer said that it holds another branch, or a proof, and did not send it, or only half.
    #[error("no proof came of the fork of {}", author.fmt_short())]
    ForkProofMissing {
        /// The author.
        author: AuthorId,
    },
    /// What the peer sent as a proof of a fork is none.
    #[error("proof is invalid: {0}")]
    InvalidForkProof(#[source] ForkProofError),
    /// A run begins above all that was wanted.
    #[error("run of {} begins at {found}, wanted through {through}", author.fmt_short())]
    RunBeyondWant {
        /// The author.
        author: AuthorId,
        /// The last seq wanted.
        through: u64,
        /// Where the run begins.
        found: u64,
    },
    /// The space is unknown here or the peer may not read it; the two are not told apart.
    #[error("the space is not served")]
    NotServed,
    /// Nothing came for too long.
    #[error("timed out after {after:?} waiting for {wait}")]
    TimedOut {
        /// What was missing.
        wait: Wait,
        /// How long the session had waited.
        after: Duration,
    },
    /// The peer ended its stream before the sync was done.
    #[error("stream ended while {phase}")]
    StreamEnded {
        /// What the session was doing.
        phase: &'static str,
    },
    /// The peer is overloaded and serves nothing now.
    #[error("the peer is busy, try again in {} ms", retry_after.as_millis())]
    Busy {
        /// When it asks us to come back.
        retry_after: Duration,
    },
    /// The peer reset its stream, with this code.
    #[error("peer gave up: {0:?}")]
    Reset(CloseCode),
    /// The peer reset its stream with a code we do not know.
    #[error("peer gave up with unknown code {code}")]
    ResetUnknown {
        /// The code.
        code: u64,
    },
    /// Bytes on the stream are no frame or no message.
    #[error("malformed frame: {0}")]
    Malformed(#[from] DecodeError),
    /// A log that was being served is shown less far than it was planned: it was cut meanwhile, by a
    /// fork or a revocation. Another sync serves what is left.
    #[error("the log of {} was cut while it was served", author.fmt_short())]
    LogCut {
        /// Whose log.
        author: AuthorId,
    },
    /// The caller answered a question the session did not ask, or not as the contract says.
    #[error("the store's answer to {question} does not fit")]
    StoreAnswer {
        /// The question.
        question: &'static str,
    },
    /// The caller handed over a message while the session did not want one.
    #[error("the session was not ready for a message")]
    NotReady,
}

impl SessionError {
    /// Who is at fault.
    #[must_use]
    pub fn blame(&self) -> Blame {
        match self {
            Self::StoreAnswer { .. } | Self::NotReady | Self::NotServed => Blame::Local,
            Self::LogCut { .. } => Blame::Local,
            Self::TooManyAuthors { .. } | Self::Unsupported { .. } => Blame::Local,
            Self::TimedOut { .. } | Self::StreamEnded { .. } | Self::Busy { .. } => {
                Blame::Transport
            }
            Self::Reset(code) => match code {
                // The peer says that we broke a rule; it is not us to tell whether that is so.
                CloseCode::Malformed
                | CloseCode::ProtocolViolation
                | CloseCode::InvalidRun
                | CloseCode::PlanExceeded => Blame::Local,
                _ => Blame::Transport,
            },
            Self::ResetUnknown { .. } => Blame::Transport,
            _ => Blame::Peer,
        }
    }

    /// What the peer is told: reset the stream with it, or close the connection if it is
    /// [connection-wide](CloseCode::is_connection_wide).
    #[must_use]
    pub fn close_code(&self) -> CloseCode {
        match self {
            Self::OutOfPhase { .. }
            | Self::WrongRequest { .. }
            | Self::UnsortedHeads { .. }
            | Self::HeadSeqOutOfRange { .. }
            | Self::HeadsChunkSize { .. }
            | Self::HeadsWindowExceeded { .. }
            | Self::PlanAheadOfHeads { .. }
            | Self::PlanOutOfOrder { .. }
            | Self::PlanTooWide { .. }
            | Self::PlanRevision { .. }
            | Self::PlanNotMet { .. }
            | Self::EmptyBatch
            | Self::UnfoundedForkNotice { .. }
            | Self::OwnerMissing
            | Self::OutcomeContradicted { .. }
            | Self::CompletionMismatch { .. }
            | Self::LastEventMismatch
            | Self::WrongReceipt
            | Self::LocatorOutOfRange { .. }
            | Self::LocatorOfAnotherLog { .. }
            | Self::TooManyForkRounds { .. }
            | Self::UnfoundedForkAnswer { .. }
            | Self::TooMuchEvidence { .. }
            | Self::ForkProofMissing { .. } => CloseCode::ProtocolViolation,
            Self::PlanExceeded { .. } | Self::BudgetExceeded | Self::RunBeyondWant { .. } => {
                CloseCode::PlanExceeded
            }
            Self::InvalidRun(_)
            | Self::ForeignBranch { .. }
            | Self::BranchStart { .. }
            | Self::StrayEvidence { .. }
            | Self::InvalidForkProof(_)
            | Self::RunOutsideSegment { .. }
            | Self::RunOfExceptedAuthor { .. }
            | Self::RunOfForkedAuthor { .. }
            | Self::NotContiguous { .. }
            | Self::RunRefused { .. } => CloseCode::InvalidRun,
            Self::Malformed(DecodeError::UnknownTag { .. }) => CloseCode::Unsupported,
            Self::RunDecode(_) | Self::Malformed(_) => CloseCode::Malformed,
            Self::TooManyAuthors { .. } => CloseCode::TooManyAuthors,
            Self::DigestMismatch { .. } => CloseCode::DigestMismatch,
            Self::Unsupported { .. } => CloseCode::Unsupported,
            Self::NotServed => CloseCode::Refused,
            Self::LogCut { .. } => CloseCode::LogCut,
            Self::TimedOut { .. } => CloseCode::TimedOut,
            Self::StreamEnded { .. } => CloseCode::Truncated,
            Self::Busy { .. } | Self::Reset(_) | Self::ResetUnknown { .. } => CloseCode::Cancelled,
            Self::StoreAnswer { .. } | Self::NotReady => CloseCode::Internal,
        }
    }
}

/// Names the reason behind the code of a peer's reset.
pub(crate) fn reset_reason(code: u64) -> SessionError {
    match CloseCode::from_code(code) {
        Some(code) => SessionError::Reset(code),
        None => SessionError::ResetUnknown { code },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_peers_break_of_the_rules_closes_its_connection() {
        let ours = [
            SessionError::NotServed,
            SessionError::TooManyAuthors { limit: 3 },
            SessionError::Unsupported { feature: "filter" },
            SessionError::StoreAnswer { question: "Apply" },
            SessionError::StreamEnded { phase: "serving" },
            reset_reason(CloseCode::Busy.code()),
        ];
        for error in ours {
            assert_ne!(error.blame(), Blame::Peer, "{error}");
            assert!(!error.close_code().is_connection_wide(), "{error}");
        }
        let theirs = [
            SessionError::EmptyBatch,
            SessionError::BudgetExceeded,
            SessionError::OwnerMissing,
            SessionError::Malformed(DecodeError::EmptyFrame),
        ];
        for error in theirs {
            assert_eq!(error.blame(), Blame::Peer, "{error}");
            assert!(error.close_code().is_connection_wide(), "{error}");
        }
    }
}
