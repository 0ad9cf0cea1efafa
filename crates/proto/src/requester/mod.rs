//! The requesting side of one pull.
//!
//! ```text
//! AwaitAnswer ──HeadsWanted──▶ AwaitPlan ──SyncPlan──▶ Segment ⟲ SyncPlan, SyncBatchV2
//!     │ equal                                             │ more: false
//!     └──────────────▶ AwaitCompletion ◀──────────────────┘
//!                           │ HistorySyncComplete
//!                           ▼
//!                     Draining (the store catches up) ──▶ Ended, or Live ──▶ Closing ──▶ Ended
//! ```
//!
//! Invariant: nothing is counted or reported as applied before the store said so, and a sync that
//! finishes has computed the same joined digest as the responder.

mod batches;
mod ending;
mod heads;
mod ledger;
mod output;
mod segment;

use core::time::Duration;
use std::collections::VecDeque;

use headwater_wire::{
    Clock, HistorySyncComplete, MemberKey, Message, RequestHash, RunError, SyncFilter, SyncPlan,
    SyncRequestV2, limits::MAX_FILTER_VALUES,
};

pub use output::{
    Fork, LiveEnd, LocalClock, RequesterConfig, RequesterOutput, SyncEnd, SyncProgress, Tally,
};

use crate::{
    AppliedRun, HeadRecord, HeadsPage, SessionError, Wait, deadline::Deadlines, error::reset_reason,
};
use batches::Backlog;
use heads::StatedHeads;
use ledger::Ledger;
pub(crate) use ledger::memory_of;
use segment::SegmentIntake;

#[derive(Debug)]
enum Phase {
    /// The digest is out.
    AwaitAnswer,
    /// Heads are on their way out, and no plan has come.
    AwaitPlan,
    /// Plans and batches are coming in.
    Segment(Box<SegmentIntake>),
    /// Too much of the history is not stored, so no more of it is taken; the store is not done.
    Cut,
    /// All runs of the history are in.
    AwaitCompletion(HistoryEnd),
    /// The completion is in; the store is not done. The live part may end meanwhile.
    Draining {
        equal: bool,
        complete: Box<HistorySyncComplete>,
        live_end: Option<LiveEnd>,
    },
    Live(Box<SyncEnd>),
    /// The live part is over; the store is not done.
    Closing(Box<SyncEnd>),
    Ended,
}

/// How the runs of a history ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum HistoryEnd {
    /// The digests were equal.
    Equal,
    /// Everything planned has come.
    Whole,
    /// The budget was used up.
    Budget,
}

impl Phase {
    fn name(&self) -> &'static str {
        match self {
            Self::AwaitAnswer => "awaiting the first answer",
            Self::AwaitPlan => "awaiting a plan",
            Self::Segment(_) => "receiving a segment",
            Self::AwaitCompletion(_) => "awaiting the completion",
            Self::Cut | Self::Draining { .. } | Self::Closing(_) => "applying what was received",
            Self::Live(_) => "live",
            Self::Ended => "over",
        }
    }
}

/// The requesting side of one pull: see the [crate's front page](crate) for how to drive it.
///
/// After an error the session is over. What the store applied before stays, and the next sync
/// goes on from there.
#[derive(Debug)]
pub struct Requester {
    config: RequesterConfig,
    clock: LocalClock,
    asked: SyncRequestV2,
    request: RequestHash,
    /// Whose receipt is taken.
    provider: Option<MemberKey>,
    phase: Phase,
    heads: StatedHeads,
    ledger: Ledger,
    /// The rest of a batch that has no room yet.
    backlog: Option<Backlog>,
    progress: SyncProgress,
    deadlines: Deadlines,
    asked_for_heads: bool,
    was_cut: bool,
    /// Fork notices received.
    notices: u64,
    segments: u64,
    outputs: VecDeque<RequesterOutput>,
}

impl Requester {
    /// Begins a pull. The request stands in the outputs.
    #[must_use]
    pub fn new(mut config: RequesterConfig, clock: LocalClock, now: Duration) -> Self {
        match clock {
            LocalClock::Empty => config.except.clear(),
            LocalClock::Held { .. } => config.except.truncate(MAX_FILTER_VALUES),
        }
        config.except.sort_unstable();
        let (owner, wire_clock) = match clock {
            LocalClock::Empty => (None, Clock::Heads),
            LocalClock::Held { owner, digest, .. } => (Some(owner), Clock::Digest(digest)),
        };
        let mut outputs = VecDeque::new();
        let request = SyncRequestV2 {
            request_id: config.request_id,
            space: config.space,
            clock: wire_clock,
            filter: SyncFilter::except(config.except.clone()),
            budget: config.budget,
            live: config.live,
        };
        let request_hash = RequestHash::of(&request);
        let asked = request.clone();
        outputs.push_back(RequesterOutput::Send(Message::SyncRequestV2(request)));
        // One head less than a chunk holds: the first chunk has the owner's beside.
        let page = config.limits.page() - 1;
        let mut heads = StatedHeads::new(config.request_id, page, owner);
        let phase = match clock {
            LocalClock::Empty => {
                heads.state_nothing(&mut outputs);
                Phase::AwaitPlan
            }
            LocalClock::Held { .. } => Phase::AwaitAnswer,
        };
        Self {
            deadlines: Deadlines::new(&config.limits, Wait::FirstAnswer, now),
            config,
            clock,
            asked,
            request: request_hash,
            provider: None,
            phase,
            heads,
            ledger: Ledger::default(),
            backlog: None,
            progress: SyncProgress::default(),
            asked_for_heads: false,
            was_cut: false,
            notices: 0,
            segments: 0,
            outputs,
        }
    }

    /// Says whose node key the peer has. A receipt is checked then, and handed out in the
    /// [`SyncEnd`]; without, it is not looked at.
    #[must_use]
    pub fn with_provider(mut self, provider: MemberKey) -> Self {
        self.provider = Some(provider);
        self
    }

    /// What was asked: with the receipt it makes an [`Answered`](headwater_wire::Answered).
    #[must_use]
    pub fn request(&self) -> &SyncRequestV2 {
        &self.asked
    }

    /// The next thing to do, if any. Drain it after every input.
    pub fn poll_output(&mut self) -> Option<RequesterOutput> {
        self.outputs.pop_front()
    }

    /// Whether to read the next message from the peer. False while too much waits for the store:
    /// this is the back-pressure from disk to network.
    #[must_use]
    pub fn wants_message(&self) -> bool {
        match self.phase {
            Phase::Cut | Phase::Draining { .. } | Phase::Closing(_) | Phase::Ended => false,
            _ => self.has_room(),
        }
    }

    /// When to call [`Requester::handle_timeout`], if nothing else happens before.
    #[must_use]
    pub fn next_timeout(&self) -> Option<Duration> {
        match self.phase {
            Phase::Live(_) | Phase::Closing(_) | Phase::Ended => None,
            _ => self.deadlines.next(self.wants_message()),
        }
    }

    /// Takes the peer's next message. To be called only while [`Requester::wants_message`].
    ///
    /// # Errors
    ///
    /// Every break of the protocol is an error of its own, and ends the session.
    pub fn handle_message(&mut self, message: Message, now: Duration) -> Result<(), SessionError> {
        let result = self.take_message(message, now);
        self.end_on_error(result)
    }

    /// Takes the owner's head, as asked for by [`RequesterOutput::ReadHead`].
    ///
    /// # Errors
    ///
    /// [`SessionError::StoreAnswer`] if it was not asked for, or is another author's.
    pub fn handle_owner_head(&mut self, head: Option<HeadRecord>) -> Result<(), SessionError> {
        let result = self.heads.owner_read(head, &mut self.outputs);
        self.end_on_error(result)
    }

    /// Takes a page of heads, as asked for by [`RequesterOutput::ReadHeads`].
    ///
    /// # Errors
    ///
    /// [`SessionError::StoreAnswer`] if it was not asked for, or breaks the page's contract.
    pub fn handle_heads(&mut self, page: HeadsPage) -> Result<(), SessionError> {
        let result = self.heads.page_read(&page, &mut self.outputs);
        self.end_on_error(result)
    }

    /// Takes the store's answers about the oldest unanswered [`RequesterOutput::Apply`]: one for
    /// each of its runs, in its order. The runs are durable now.
    ///
    /// # Errors
    ///
    /// - [`SessionError::RunRefused`] if the store refused a run for a reason that is no fork.
    /// - [`SessionError::DigestMismatch`] and others, if this was the last list of the history.
    pub fn handle_applied(
        &mut self,
        answers: Vec<AppliedRun>,
        now: Duration,
    ) -> Result<(), SessionError> {
        let result = self.take_applied(&answers, now);
        self.end_on_error(result)
    }

    /// Takes the news that a run of an [`RequesterOutput::Apply`] is invalid. The session is over;
    /// nothing of that list may be stored from the invalid run on.
    pub fn handle_invalid_run(&mut self, error: RunError) -> SessionError {
        self.end();
        SessionError::InvalidRun(error)
    }

    /// Takes the news that the stream has moved enough bytes to count as progress, though no
    /// message may be whole yet. How much is enough is the driver's to say: a large frame may
    /// take a slow link longer than [`crate::SessionLimits::stall`].
    pub fn handle_transfer(&mut self, now: Duration) {
        self.deadlines.transfer(now);
    }

    /// Takes the news that time has passed.
    ///
    /// # Errors
    ///
    /// [`SessionError::TimedOut`] if a wait is over.
    pub fn handle_timeout(&mut self, now: Duration) -> Result<(), SessionError> {
        if self.next_timeout().is_none() {
            return Ok(());
        }
        let result = self.deadlines.check(self.wants_message(), now);
        self.end_on_error(result)
    }

    /// Takes the end of the peer's stream.
    ///
    /// # Errors
    ///
    /// [`SessionError::StreamEnded`] if the history was not complete.
    pub fn handle_stream_end(&mut self) -> Result<(), SessionError> {
        if let Phase::Draining { live_end, .. } = &mut self.phase {
            *live_end = Some(LiveEnd::Closed);
            return Ok(());
        }
        match core::mem::replace(&mut self.phase, Phase::Ended) {
            Phase::Live(end) => {
                self.close(end, LiveEnd::Closed);
                Ok(())
            }
            ended @ (Phase::Cut | Phase::Closing(_) | Phase::Ended) => {
                self.phase = ended;
                Ok(())
            }
            early => {
                let phase = early.name();
                self.end_on_error(Err(SessionError::StreamEnded { phase }))
            }
        }
    }

    /// Takes the peer's reset of its stream, and names the reason.
    pub fn handle_reset(&mut self, code: u64) -> SessionError {
        self.end();
        reset_reason(code)
    }

    fn end(&mut self) {
        self.phase = Phase::Ended;
        self.backlog = None;
        self.heads.stop();
        self.outputs.clear();
    }

    fn end_on_error(&mut self, result: Result<(), SessionError>) -> Result<(), SessionError> {
        if result.is_err() {
            self.end();
        }
        result
    }

    fn take_message(&mut self, message: Message, now: Duration) -> Result<(), SessionError> {
        let live_early = self.config.live && matches!(self.phase, Phase::Draining { .. });
        if !self.has_room() || live_early {
            return Err(SessionError::NotReady);
        }
        if message.request_id() != self.config.request_id {
            return Err(SessionError::WrongRequest {
                expected: self.config.request_id,
                found: message.request_id(),
            });
        }
        self.deadlines.progress(now);
        match (&mut self.phase, message) {
            (Phase::AwaitAnswer, Message::HeadsWanted(_)) => {
                let LocalClock::Held { owner, .. } = self.clock else {
                    return Ok(());
                };
                self.asked_for_heads = true;
                self.phase = Phase::AwaitPlan;
                self.heads.begin(owner, &mut self.outputs);
                Ok(())
            }
            (Phase::AwaitAnswer, Message::SyncBatchV2(batch))
                if batch.runs.is_empty() && !batch.more =>
            {
                self.phase = Phase::AwaitCompletion(HistoryEnd::Equal);
                Ok(())
            }
            (Phase::AwaitPlan | Phase::Segment(_), Message::SyncPlan(plan)) => {
                self.take_plan(&plan)
            }
            (Phase::Segment(segment), Message::ForkNotice(notice)) => {
                self.notices += 1;
                let limit = self.config.limits.max_authors;
                segment.notice(&notice, &mut self.heads, &mut self.ledger, limit)
            }
            (Phase::Segment(_), Message::SyncBatchV2(batch)) => self.take_batch(batch),
            (Phase::AwaitCompletion(end), Message::HistorySyncComplete(complete)) => {
                let end = *end;
                self.take_completion(end, complete)
            }
            (Phase::Live(_), Message::LiveBatch(batch)) => self.take_live_batch(batch),
            (Phase::Live(_), Message::LiveLagged(lagged)) => {
                if let Phase::Live(end) = core::mem::replace(&mut self.phase, Phase::Ended) {
                    self.close(
                        end,
                        LiveEnd::Lagged {
                            missed: lagged.missed,
                        },
                    );
                }
                Ok(())
            }
            (Phase::AwaitAnswer | Phase::AwaitPlan, Message::Busy(busy)) => {
                Err(SessionError::Busy {
                    retry_after: Duration::from_millis(busy.retry_after_ms),
                })
            }
            (phase, message) => Err(SessionError::OutOfPhase {
                message: message.name(),
                phase: phase.name(),
            }),
        }
    }

    fn take_plan(&mut self, plan: &SyncPlan) -> Result<(), SessionError> {
        let planned = &mut self.progress.planned;
        let mut previous = None;
        if let Phase::Segment(segment) = &mut self.phase {
            if segment.is_revised_by(plan) {
                let more = segment.revise(plan)?;
                planned.events = planned.events.saturating_add(more.events);
                planned.payload_bytes = planned.payload_bytes.saturating_add(more.payload_bytes);
                self.report_progress();
                return Ok(());
            }
            if !segment.close(&mut self.heads, &mut self.ledger)? {
                return Err(segment.not_met());
            }
            previous = Some(&**segment);
        }
        // Each segment speaks of at least one author: a responder cannot plan for ever.
        let limit = self.config.limits.max_authors;
        self.segments += 1;
        if self.segments > limit.saturating_add(2) {
            return Err(SessionError::TooManyAuthors { limit });
        }
        let segment = SegmentIntake::new(plan, previous)?;
        if !self.heads.covers(&plan.segment) {
            return Err(SessionError::PlanAheadOfHeads {
                found: plan.segment,
            });
        }
        self.heads.planned(&plan.segment, &mut self.outputs);
        planned.authors = planned.authors.saturating_add(plan.totals.authors);
        planned.events = planned.events.saturating_add(plan.totals.events);
        planned.payload_bytes = planned
            .payload_bytes
            .saturating_add(plan.totals.payload_bytes);
        self.progress.rest = plan.rest;
        self.phase = Phase::Segment(Box::new(segment));
        self.report_progress();
        Ok(())
    }

    fn take_applied(&mut self, answers: &[AppliedRun], now: Duration) -> Result<(), SessionError> {
        if matches!(self.phase, Phase::Ended) {
            return Ok(());
        }
        self.ledger.applied(answers)?;
        self.deadlines.progress(now);
        self.progress.applied = self.ledger.applied;
        self.report_progress();
        self.check_live_authors()?;
        self.check_refused();
        self.take_backlog()?;
        self.finish_drained()
    }

    fn report_progress(&mut self) {
        let progress = RequesterOutput::Progress(self.progress);
        match self.outputs.back_mut() {
            Some(last @ RequesterOutput::Progress(_)) => *last = progress,
            _ => self.outputs.push_back(progress),
        }
    }
}
