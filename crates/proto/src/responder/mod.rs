//! The answering side of one pull.
//!
//! ```text
//! AwaitRequest ─▶ Opening ─▶ Answering (see `answer`) ─▶ Ended
//!                    │ equal        │ live: AwaitLive ⟲ LiveRuns ─▶ Ended
//!                    └──────────────┘
//! ```
//!
//! Invariant: what a responder holds is bounded by a page, a chunk and a batch, whatever either
//! side holds of the space.

mod answer;
mod intake;
mod join;
mod output;
mod serve;

use core::time::Duration;
use std::collections::VecDeque;

use headwater_wire::{
    AuthorId, Clock, HeadsWanted, HistorySyncComplete, LiveBatch, LiveLagged, Message, Signature,
    SyncOutcome, SyncRequestV2, Truncation, limits::MAX_BATCH_RUNS,
};

pub use output::{ResponderOutput, ServeEnd};

use crate::{
    HeadRecord, HeadsPage, SessionError, SessionLimits, SpaceSummary, StoredRun, TailCheck,
    TailWant, Wait, deadline::Deadlines, error::reset_reason,
};
use answer::Answer;
pub(crate) use serve::check_run;

#[derive(Debug)]
enum Phase {
    AwaitRequest,
    Opening(Box<SyncRequestV2>),
    Answering(Box<Answer>),
    /// The history is served; the completion waits for its receipt.
    Signing(Box<Answer>, Box<(HistorySyncComplete, ServeEnd)>),
    AwaitLive(Box<Live>),
    LiveRuns(Box<Live>),
    Ended,
}

/// The part after the history.
#[derive(Debug)]
struct Live {
    /// Authors the requester was told are forked, as far as they are listed.
    forks: Vec<AuthorId>,
    /// Authors the requester takes nothing of.
    except: Vec<AuthorId>,
    /// What is still to be sent of the last report.
    wants: VecDeque<TailWant>,
    end: ServeEnd,
}

impl Phase {
    fn name(&self) -> &'static str {
        match self {
            Self::AwaitRequest => "awaiting the request",
            Self::Opening(_) => "opening the space",
            Self::Answering(answer) if answer.heads_done() => "serving",
            Self::Answering(_) => "awaiting heads",
            Self::Signing(..) => "signing a receipt",
            Self::AwaitLive(_) | Self::LiveRuns(_) => "live",
            Self::Ended => "over",
        }
    }
}

/// The answering side of one pull: see the [crate's front page](crate) for how to drive it.
///
/// A responder changes nothing in its store. After an error the session is over.
#[derive(Debug)]
pub struct Responder {
    limits: SessionLimits,
    signs: bool,
    request_id: Option<u64>,
    phase: Phase,
    deadlines: Deadlines,
    outputs: VecDeque<ResponderOutput>,
}

impl Responder {
    /// Waits for the request on a stream a peer has opened.
    #[must_use]
    pub fn new(limits: SessionLimits, now: Duration) -> Self {
        Self {
            deadlines: Deadlines::new(&limits, Wait::Request, now),
            limits,
            signs: false,
            request_id: None,
            phase: Phase::AwaitRequest,
            outputs: VecDeque::new(),
        }
    }

    /// Gives receipts: the driver is asked to [sign](ResponderOutput::Sign) what was answered. Not
    /// if the heads stated, as far as they were looked at, are not those of the request's digest: a
    /// history cut by its budget before all of them were has no receipt then.
    #[must_use]
    pub fn signing(mut self) -> Self {
        self.signs = true;
        self
    }

    /// The next thing to do, if any. Drain it after every input.
    pub fn poll_output(&mut self) -> Option<ResponderOutput> {
        self.outputs.pop_front()
    }

    /// Whether to read the next message from the peer. False while there is enough to do: chunks
    /// of heads then wait in the transport. Reading them all the same is no error.
    #[must_use]
    pub fn wants_message(&self) -> bool {
        match &self.phase {
            Phase::AwaitRequest | Phase::AwaitLive(_) | Phase::LiveRuns(_) => true,
            Phase::Opening(_) | Phase::Signing(..) | Phase::Ended => false,
            Phase::Answering(answer) => answer.needs_chunk() || answer.heads_done(),
        }
    }

    /// Whether the requester stated what we do not know: events, or that an author forked. Known
    /// while the session is live, and
    /// at its end from [`ServeEnd::requester_ahead`].
    #[must_use]
    pub fn is_requester_ahead(&self) -> bool {
        match &self.phase {
            Phase::AwaitLive(live) | Phase::LiveRuns(live) => live.end.requester_ahead,
            _ => false,
        }
    }

    /// When to call [`Responder::handle_timeout`], if nothing else happens before. It counts while
    /// a message waits to be sent, too: that is how a peer that stops reading is noticed.
    #[must_use]
    pub fn next_timeout(&self) -> Option<Duration> {
        match self.phase {
            Phase::AwaitLive(_) | Phase::LiveRuns(_) | Phase::Ended => None,
            _ => self.deadlines.next(true),
        }
    }

    /// Takes the peer's next message.
    ///
    /// # Errors
    ///
    /// Every break of the protocol is an error of its own, and ends the session.
    pub fn handle_message(&mut self, message: Message, now: Duration) -> Result<(), SessionError> {
        self.deadlines.progress(now);
        let result = self.take_message(message);
        self.end_on_error(result)
    }

    /// Takes the answer to [`ResponderOutput::Open`]: `None` if the space is unknown or the peer
    /// may not read it, which are answered alike.
    ///
    /// # Errors
    ///
    /// [`SessionError::NotServed`] for `None`: reset the stream with its code.
    pub fn handle_opened(
        &mut self,
        summary: Option<SpaceSummary>,
        now: Duration,
    ) -> Result<(), SessionError> {
        self.deadlines.progress(now);
        let result = self.open(summary);
        self.end_on_error(result)
    }

    /// Takes the owner's head, as asked for by [`ResponderOutput::ReadHead`].
    ///
    /// # Errors
    ///
    /// [`SessionError::StoreAnswer`] if it was not asked for, or there is none.
    pub fn handle_owner_head(
        &mut self,
        head: Option<HeadRecord>,
        now: Duration,
    ) -> Result<(), SessionError> {
        self.answering("ReadHead", now, |answer, outputs| {
            answer.owner_head(head, outputs)
        })
    }

    /// Takes a page of our heads, as asked for by [`ResponderOutput::ReadHeads`].
    ///
    /// # Errors
    ///
    /// [`SessionError::StoreAnswer`] if it was not asked for, or breaks the page's contract.
    pub fn handle_heads(&mut self, page: HeadsPage, now: Duration) -> Result<(), SessionError> {
        self.answering("ReadHeads", now, |answer, outputs| {
            answer.page(page, outputs)
        })
    }

    /// Takes the store's comparisons, as asked for by [`ResponderOutput::CheckTails`].
    ///
    /// # Errors
    ///
    /// [`SessionError::StoreAnswer`] if they do not answer the question.
    pub fn handle_tails(
        &mut self,
        checks: Vec<TailCheck>,
        now: Duration,
    ) -> Result<(), SessionError> {
        self.answering("CheckTails", now, |answer, outputs| {
            answer.tails(&checks, outputs)
        })
    }

    /// Takes stored runs, as asked for by [`ResponderOutput::ReadRuns`].
    ///
    /// # Errors
    ///
    /// [`SessionError::StoreAnswer`] if they do not answer the front of the wants.
    pub fn handle_runs(&mut self, runs: Vec<StoredRun>, now: Duration) -> Result<(), SessionError> {
        if matches!(self.phase, Phase::LiveRuns(_)) {
            let result = self.take_live_runs(runs);
            return self.end_on_error(result);
        }
        self.answering("ReadRuns", now, |answer, outputs| {
            answer.runs(runs, outputs)
        })
    }

    /// Takes the signature over [`headwater_wire::ReceiptFacts::signed_bytes`], as asked for by
    /// [`ResponderOutput::Sign`]. `None` if the space's generation is not the one in the facts any
    /// more: then what was served may not have come out of it, and is not signed.
    ///
    /// # Errors
    ///
    /// [`SessionError::StoreAnswer`] if it was not asked for.
    pub fn handle_signed(
        &mut self,
        signature: Option<Signature>,
        now: Duration,
    ) -> Result<(), SessionError> {
        self.deadlines.progress(now);
        let Phase::Signing(answer, pending) = core::mem::replace(&mut self.phase, Phase::Ended)
        else {
            return self.end_on_error(Err(SessionError::StoreAnswer { question: "Sign" }));
        };
        let (mut complete, end) = *pending;
        complete.receipt = signature;
        self.outputs
            .push_back(ResponderOutput::Send(Message::HistorySyncComplete(
                complete,
            )));
        self.after_history(answer, end);
        Ok(())
    }

    /// Takes what changed since the last report, as asked for by [`ResponderOutput::AwaitLive`].
    /// If events were `missed` because too much was pending, the requester is told and the
    /// session ends.
    ///
    /// # Errors
    ///
    /// [`SessionError::StoreAnswer`] if it was not asked for.
    pub fn handle_live(
        &mut self,
        changed: Vec<TailWant>,
        missed: u64,
        now: Duration,
    ) -> Result<(), SessionError> {
        self.deadlines.progress(now);
        let result = self.take_live(changed, missed);
        self.end_on_error(result)
    }

    /// Takes the news that the stream has moved enough bytes to count as progress, though no
    /// message may be whole yet. How much is enough is the driver's to say: a large frame may
    /// take a slow link longer than [`SessionLimits::stall`].
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
        let result = self.deadlines.check(true, now);
        self.end_on_error(result)
    }

    /// Takes the end of the peer's stream: a normal end of a live session.
    ///
    /// # Errors
    ///
    /// [`SessionError::StreamEnded`] if the peer had more to say.
    pub fn handle_stream_end(&mut self) -> Result<(), SessionError> {
        match core::mem::replace(&mut self.phase, Phase::Ended) {
            Phase::AwaitLive(live) | Phase::LiveRuns(live) => {
                self.outputs.clear();
                self.outputs.push_back(ResponderOutput::Finished(live.end));
                Ok(())
            }
            // It may still be reading what we serve, but will not stay for more.
            Phase::Answering(mut answer) if answer.heads_done() => {
                answer.leave();
                self.phase = Phase::Answering(answer);
                Ok(())
            }
            Phase::Signing(mut answer, pending) => {
                answer.leave();
                self.phase = Phase::Signing(answer, pending);
                Ok(())
            }
            Phase::Ended => Ok(()),
            early => {
                let phase = early.name();
                self.end_on_error(Err(SessionError::StreamEnded { phase }))
            }
        }
    }

    /// Takes the peer's reset of its stream, or its refusal to read, and names the reason.
    pub fn handle_reset(&mut self, code: u64) -> SessionError {
        self.end();
        reset_reason(code)
    }

    fn end(&mut self) {
        self.phase = Phase::Ended;
        self.outputs.clear();
    }

    fn end_on_error(&mut self, result: Result<(), SessionError>) -> Result<(), SessionError> {
        if result.is_err() {
            self.end();
        }
        result
    }

    fn take_message(&mut self, message: Message) -> Result<(), SessionError> {
        if let Some(expected) = self.request_id
            && expected != message.request_id()
        {
            return Err(SessionError::WrongRequest {
                expected,
                found: message.request_id(),
            });
        }
        match (&mut self.phase, message) {
            (Phase::AwaitRequest, Message::SyncRequestV2(request)) => {
                if request.filter.excepted().is_none() {
                    return Err(SessionError::Unsupported { feature: "filter" });
                }
                self.request_id = Some(request.request_id);
                self.outputs.push_back(ResponderOutput::Open {
                    space: request.space,
                    live: request.live,
                });
                self.phase = Phase::Opening(Box::new(request));
                Ok(())
            }
            (Phase::Answering(answer), Message::HeadsChunk(chunk)) if !answer.heads_done() => {
                let end = answer.chunk(chunk, &mut self.outputs)?;
                self.after_answer(end);
                Ok(())
            }
            // The budget ended the history before all heads were out.
            (Phase::Signing(answer, _), Message::HeadsChunk(chunk)) if !answer.heads_done() => {
                answer.chunk(chunk, &mut self.outputs)?;
                Ok(())
            }
            (phase, message) => Err(SessionError::OutOfPhase {
                message: message.name(),
                phase: phase.name(),
            }),
        }
    }

    fn open(&mut self, summary: Option<SpaceSummary>) -> Result<(), SessionError> {
        let Phase::Opening(request) = core::mem::replace(&mut self.phase, Phase::Ended) else {
            return Err(SessionError::StoreAnswer { question: "Open" });
        };
        let summary = summary.ok_or(SessionError::NotServed)?;
        if summary.space != request.space {
            return Err(SessionError::StoreAnswer { question: "Open" });
        }
        let request_id = request.request_id;
        let clock = request.clock.clone();
        let mut answer = Answer::new(*request, summary, &self.limits);
        let mut end = None;
        match clock {
            Clock::Digest(digest) if digest == summary.digest => {
                end = Some(answer.complete_equal(&mut self.outputs));
            }
            // Cursors are not kept yet: a full clock does the same.
            Clock::Digest(_) | Clock::Cursor { .. } => {
                self.outputs
                    .push_back(ResponderOutput::Send(Message::HeadsWanted(HeadsWanted {
                        request_id,
                    })));
            }
            Clock::Heads => {}
        }
        self.phase = Phase::Answering(Box::new(answer));
        self.after_answer(end);
        Ok(())
    }

    /// Runs one step of the history.
    fn answering(
        &mut self,
        question: &'static str,
        now: Duration,
        step: impl FnOnce(
            &mut Answer,
            &mut VecDeque<ResponderOutput>,
        ) -> Result<Option<ServeEnd>, SessionError>,
    ) -> Result<(), SessionError> {
        self.deadlines.progress(now);
        let result = match &mut self.phase {
            Phase::Answering(answer) => step(answer, &mut self.outputs),
            _ => Err(SessionError::StoreAnswer { question }),
        };
        let result = result.map(|end| self.after_answer(end));
        self.end_on_error(result)
    }

    /// Moves on if the history is over.
    fn after_answer(&mut self, end: Option<ServeEnd>) {
        let Some(end) = end else { return };
        let Phase::Answering(mut answer) = core::mem::replace(&mut self.phase, Phase::Ended) else {
            return;
        };
        if self.signs
            && let Some(ResponderOutput::Send(Message::HistorySyncComplete(complete))) =
                self.outputs.back()
            && let Some(facts) = answer.facts(complete)
        {
            let complete = complete.clone();
            self.outputs.pop_back();
            self.outputs.push_back(ResponderOutput::Sign(facts));
            self.phase = Phase::Signing(answer, Box::new((complete, end)));
            return;
        }
        self.after_history(answer, end);
    }

    /// The completion is out.
    fn after_history(&mut self, mut answer: Box<Answer>, end: ServeEnd) {
        // A history cut short by the budget has no end that live events could follow.
        if answer.is_live() && end.outcome != SyncOutcome::Truncated(Truncation::Budget) {
            self.outputs.push_back(ResponderOutput::AwaitLive);
            self.phase = Phase::AwaitLive(Box::new(Live {
                forks: answer.take_forks(),
                except: answer.take_except(),
                wants: VecDeque::new(),
                end,
            }));
        } else {
            self.outputs.push_back(ResponderOutput::Finished(end));
        }
    }

    fn take_live(&mut self, changed: Vec<TailWant>, missed: u64) -> Result<(), SessionError> {
        let unasked = SessionError::StoreAnswer {
            question: "AwaitLive",
        };
        let request_id = self.request_id.ok_or(unasked.clone())?;
        let Phase::AwaitLive(mut live) = core::mem::replace(&mut self.phase, Phase::Ended) else {
            return Err(unasked);
        };
        if missed > 0 {
            let lagged = Message::LiveLagged(LiveLagged { request_id, missed });
            self.outputs.push_back(ResponderOutput::Send(lagged));
            self.outputs.push_back(ResponderOutput::Finished(live.end));
            return Ok(());
        }
        let wants = changed
            .into_iter()
            .filter(|want| want.above < want.through && !live.forks.contains(&want.author))
            .filter(|want| live.except.binary_search(&want.author).is_err());
        live.wants = wants.collect();
        self.live_on(live);
        Ok(())
    }

    fn take_live_runs(&mut self, runs: Vec<StoredRun>) -> Result<(), SessionError> {
        let unfit = SessionError::StoreAnswer {
            question: "ReadRuns",
        };
        let request_id = self.request_id.ok_or(unfit.clone())?;
        let Phase::LiveRuns(mut live) = core::mem::replace(&mut self.phase, Phase::Ended) else {
            return Err(unfit);
        };
        if runs.is_empty() {
            // All of it was hidden since it was reported.
            live.wants.clear();
        }
        let mut bytes = Vec::with_capacity(runs.len());
        for run in runs {
            // As was what the store passed over.
            while live
                .wants
                .front()
                .is_some_and(|want| want.author != run.author)
            {
                live.wants.pop_front();
            }
            let want = live.wants.front_mut().ok_or(unfit.clone())?;
            serve::check_run(&run, want)?;
            want.above = run.last_seq;
            if want.above >= want.through {
                live.wants.pop_front();
            }
            live.end.live.add(run.events(), run.payload_bytes);
            bytes.push(run.bytes);
        }
        for runs in bytes.chunks(MAX_BATCH_RUNS) {
            let batch = Message::LiveBatch(LiveBatch {
                request_id,
                runs: runs.to_vec(),
            });
            self.outputs.push_back(ResponderOutput::Send(batch));
        }
        self.live_on(live);
        Ok(())
    }

    /// Asks for the runs still wanted, or for the next report.
    fn live_on(&mut self, live: Box<Live>) {
        if live.wants.is_empty() {
            self.outputs.push_back(ResponderOutput::AwaitLive);
            self.phase = Phase::AwaitLive(live);
        } else {
            self.outputs.push_back(ResponderOutput::ReadRuns {
                wants: live.wants.iter().copied().collect(),
                max_bytes: self.limits.batch(),
            });
            self.phase = Phase::LiveRuns(live);
        }
    }
}
