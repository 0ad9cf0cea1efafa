//! The history part of an answer: owner first, then segment by segment to the end.
//!
//! ```text
//! FirstChunk ─▶ OwnerHead ─▶ [Tails] ─▶ plan ─▶ Runs ⟲ ─┐
//!                               ▲                       ▼
//!                               └────────────────────  Join (needs a chunk, a page, or nothing)
//!                                                       │ Last segment served, or budget used up
//!                                                       ▼
//!                                                      Done
//! ```

use std::collections::VecDeque;

use headwater_wire::{
    AuthorHead, AuthorId, Clock, EventRef, HeadsChunk, HistorySyncComplete, Message, PlanTotals,
    ReceiptFacts, RequestHash, Segment, SyncBatchV2, SyncOutcome, SyncPlan, SyncRequestV2,
    Truncation,
};

use super::{
    ResponderOutput, ServeEnd,
    intake::{HeldHeads, StatedHeads},
    join::{Draft, Joined, Row},
    serve::Serving,
};
use crate::{
    HeadRecord, HeadsPage, MAX_LISTED_FORKS, SessionError, SessionLimits, SpaceSummary, StoredRun,
    TailCheck, joined::JoinedDigest, requester::Tally,
};

type Outputs = VecDeque<ResponderOutput>;

#[derive(Debug)]
enum Step {
    FirstChunk,
    OwnerHead,
    Tails(Segment, Draft),
    Runs(Serving),
    Join(Draft),
    Done,
}

/// A history being served.
#[derive(Debug)]
pub(super) struct Answer {
    request: SyncRequestV2,
    /// Of the request as it came.
    request_hash: RequestHash,
    summary: SpaceSummary,
    /// Authors the requester takes nothing of, ascending.
    except: Vec<AuthorId>,
    batch_bytes: usize,
    step: Step,
    stated: StatedHeads,
    held: HeldHeads,
    joined: JoinedDigest,
    /// The requester's clock, as far as the plans went.
    asked: JoinedDigest,
    passed: PlanTotals,
    served: Tally,
    stubs: u64,
    last_event: Option<EventRef>,
    /// Authors told to be forked: the first [`MAX_LISTED_FORKS`].
    forks: Vec<AuthorId>,
    forked_authors: u64,
    requester_ahead: bool,
}

impl Answer {
    pub(super) fn new(
        request: SyncRequestV2,
        summary: SpaceSummary,
        limits: &SessionLimits,
    ) -> Self {
        Self {
            stated: StatedHeads::new(summary.owner, limits.max_authors),
            held: HeldHeads::new(summary.owner, limits.page()),
            batch_bytes: limits.batch(),
            request_hash: RequestHash::of(&request),
            except: request.filter.excepted().unwrap_or_default().to_vec(),
            request,
            summary,
            step: Step::FirstChunk,
            joined: JoinedDigest::default(),
            asked: JoinedDigest::default(),
            passed: PlanTotals::default(),
            served: Tally::default(),
            stubs: 0,
            last_event: None,
            forks: Vec::new(),
            forked_authors: 0,
            requester_ahead: false,
        }
    }

    /// Whether the requester's heads have all come.
    pub(super) fn heads_done(&self) -> bool {
        self.stated.is_done()
    }

    /// Whether joining waits for the requester's next chunk.
    pub(super) fn needs_chunk(&self) -> bool {
        match &self.step {
            Step::FirstChunk => true,
            Step::Join(_) => self.stated.front() == super::intake::Front::Unknown,
            _ => false,
        }
    }

    /// Whether the requester stays for live events.
    pub(super) fn is_live(&self) -> bool {
        self.request.live
    }

    /// The requester will not stay for live events.
    pub(super) fn leave(&mut self) {
        self.request.live = false;
    }

    /// The forked authors, as far as they are listed.
    pub(super) fn take_forks(&mut self) -> Vec<AuthorId> {
        core::mem::take(&mut self.forks)
    }

    /// The authors the requester takes nothing of.
    pub(super) fn take_except(&mut self) -> Vec<AuthorId> {
        core::mem::take(&mut self.except)
    }

    pub(super) fn chunk(
        &mut self,
        chunk: HeadsChunk,
        outputs: &mut Outputs,
    ) -> Result<Option<ServeEnd>, SessionError> {
        self.stated.accept(chunk)?;
        if matches!(self.step, Step::FirstChunk) && self.stated.has_begun() {
            self.step = Step::OwnerHead;
            outputs.push_back(ResponderOutput::ReadHead(self.summary.owner));
            return Ok(None);
        }
        self.advance(outputs)
    }

    pub(super) fn owner_head(
        &mut self,
        record: Option<HeadRecord>,
        outputs: &mut Outputs,
    ) -> Result<Option<ServeEnd>, SessionError> {
        let owner = self.summary.owner;
        match (&self.step, record) {
            // Without its genesis a space is none.
            (Step::OwnerHead, Some(record)) if record.entry.head == AuthorHead::NONE => {
                Err(SessionError::NotServed)
            }
            (Step::OwnerHead, Some(record)) if record.entry.author == owner => {
                let mut row = Row::of_owner(self.stated.take_owner(), record);
                if self.except.binary_search(&owner).is_ok() {
                    row.leave_out();
                }
                self.close(Segment::Owner, Draft::of_owner(row), outputs)
            }
            _ => Err(SessionError::StoreAnswer {
                question: "ReadHead",
            }),
        }
    }

    pub(super) fn page(
        &mut self,
        page: HeadsPage,
        outputs: &mut Outputs,
    ) -> Result<Option<ServeEnd>, SessionError> {
        self.held.accept(page)?;
        self.advance(outputs)
    }

    pub(super) fn tails(
        &mut self,
        checks: &[TailCheck],
        outputs: &mut Outputs,
    ) -> Result<Option<ServeEnd>, SessionError> {
        match core::mem::replace(&mut self.step, Step::Done) {
            Step::Tails(segment, mut draft) => {
                draft.checked(checks)?;
                self.plan(segment, draft, outputs)
            }
            _ => Err(SessionError::StoreAnswer {
                question: "CheckTails",
            }),
        }
    }

    pub(super) fn runs(
        &mut self,
        runs: Vec<StoredRun>,
        outputs: &mut Outputs,
    ) -> Result<Option<ServeEnd>, SessionError> {
        let Step::Runs(serving) = &mut self.step else {
            return Err(SessionError::StoreAnswer {
                question: "ReadRuns",
            });
        };
        let space = &self.summary.space;
        let portion = serving.take(runs, space, &self.request.budget, self.served)?;
        let plan = portion
            .revised
            .then(|| (serving.segment(), serving.planned()));
        self.served
            .add(portion.sent.events, portion.sent.payload_bytes);
        self.stubs = self.stubs.saturating_add(portion.stubs);
        if let Some((segment, totals)) = plan {
            self.send_plan(segment, totals, outputs);
        }
        for runs in portion.batches {
            self.send_batch(runs, true, outputs);
        }
        self.serve_on(outputs)
    }

    /// Joins further if that is the step, as far as the streams allow.
    fn advance(&mut self, outputs: &mut Outputs) -> Result<Option<ServeEnd>, SessionError> {
        let Step::Join(draft) = &mut self.step else {
            return Ok(None);
        };
        match draft.join(&mut self.stated, &mut self.held, &self.except) {
            Joined::Segment(segment) => {
                let draft = core::mem::take(draft);
                self.close(segment, draft, outputs)
            }
            Joined::NeedsChunk => Ok(None),
            Joined::NeedsPage => {
                self.held.read(outputs);
                Ok(None)
            }
        }
    }

    /// The segment's authors are known; the store may have to compare heads.
    fn close(
        &mut self,
        segment: Segment,
        draft: Draft,
        outputs: &mut Outputs,
    ) -> Result<Option<ServeEnd>, SessionError> {
        let checks = draft.checks();
        if checks.is_empty() {
            return self.plan(segment, draft, outputs);
        }
        self.step = Step::Tails(segment, draft);
        outputs.push_back(ResponderOutput::CheckTails(checks));
        Ok(None)
    }

    fn plan(
        &mut self,
        segment: Segment,
        draft: Draft,
        outputs: &mut Outputs,
    ) -> Result<Option<ServeEnd>, SessionError> {
        let tidings = draft.tidings();
        let passed = &mut self.passed;
        passed.authors += tidings.held.authors;
        passed.events = passed.events.saturating_add(tidings.held.events);
        passed.payload_bytes = passed
            .payload_bytes
            .saturating_add(tidings.held.payload_bytes);
        self.requester_ahead |= tidings.requester_ahead;
        self.forked_authors += tidings.forked.len() as u64;
        let room = MAX_LISTED_FORKS.saturating_sub(self.forks.len());
        self.forks.extend(tidings.forked.into_iter().take(room));

        if self.request.live {
            outputs.push_back(ResponderOutput::Pinned(draft.pins()));
        }
        let notices = draft.notices(self.request.request_id);
        let serving = Serving::new(segment, draft);
        self.stated.planned(segment);
        self.send_plan(segment, serving.planned(), outputs);
        for notice in notices {
            outputs.push_back(ResponderOutput::Send(Message::ForkNotice(notice)));
        }
        self.step = Step::Runs(serving);
        self.serve_on(outputs)
    }

    /// Asks for the next runs of the segment, or ends it.
    fn serve_on(&mut self, outputs: &mut Outputs) -> Result<Option<ServeEnd>, SessionError> {
        let Step::Runs(serving) = &self.step else {
            return Ok(None);
        };
        let over_budget = self.served.reaches(&self.request.budget);
        if !serving.is_done() && !over_budget {
            outputs.push_back(ResponderOutput::ReadRuns {
                wants: serving.next_wants(self.batch_bytes),
                max_bytes: self.batch_bytes,
            });
            return Ok(None);
        }
        let Step::Runs(serving) = core::mem::replace(&mut self.step, Step::Done) else {
            return Ok(None);
        };
        let (segment, is_whole) = (serving.segment(), serving.is_done());
        let (rows, last_event) = serving.finish(&self.summary.space)?;
        self.last_event = last_event.or(self.last_event);
        let is_owner = segment == Segment::Owner;
        for row in &rows {
            if let Some(entry) = row.joined() {
                self.joined.add(entry, is_owner);
            }
            if let Some(stated) = row.stated() {
                self.asked.add(stated, is_owner);
            }
        }
        if !is_whole {
            let outcome = SyncOutcome::Truncated(Truncation::Budget);
            return Ok(Some(self.complete(outcome, outputs)));
        }
        if segment == Segment::Last {
            let outcome = if self.forked_authors > 0 {
                SyncOutcome::Truncated(Truncation::Forked {
                    authors: self.forked_authors,
                })
            } else if self.stubs > 0 {
                SyncOutcome::Truncated(Truncation::Stubbed)
            } else {
                SyncOutcome::Complete
            };
            return Ok(Some(self.complete(outcome, outputs)));
        }
        self.step = Step::Join(Draft::default());
        self.advance(outputs)
    }

    fn complete(&mut self, outcome: SyncOutcome, outputs: &mut Outputs) -> ServeEnd {
        self.step = Step::Done;
        let joined_digest = core::mem::take(&mut self.joined).finish();
        self.send_batch(Vec::new(), false, outputs);
        outputs.push_back(ResponderOutput::Send(Message::HistorySyncComplete(
            HistorySyncComplete {
                request_id: self.request.request_id,
                outcome,
                last_event: self.last_event,
                events: self.served.events,
                stubs: self.stubs,
                joined_digest,
                stream_generation: self.summary.generation,
                cursor: None,
                receipt: None,
            },
        )));
        ServeEnd {
            outcome,
            served: self.served,
            stubs: self.stubs,
            live: Tally::default(),
            forked_authors: self.forked_authors,
            requester_ahead: self.requester_ahead,
            first_digest_equal: false,
            joined_digest,
        }
    }

    /// Answers a digest that is ours: nothing to serve.
    pub(super) fn complete_equal(&mut self, outputs: &mut Outputs) -> ServeEnd {
        let mut end = self.complete(SyncOutcome::Complete, outputs);
        let digest = self.summary.digest;
        if let Some(ResponderOutput::Send(Message::HistorySyncComplete(complete))) =
            outputs.back_mut()
        {
            complete.joined_digest = digest;
        }
        end.joined_digest = digest;
        end.first_digest_equal = true;
        end
    }

    /// What a receipt for this completion says; `None` if the heads stated, as far as the plans
    /// went, are not those whose digest is in the request. A requester that states other heads each
    /// time would otherwise be answered otherwise each time, and have a contradiction signed.
    pub(super) fn facts(&mut self, complete: &HistorySyncComplete) -> Option<ReceiptFacts> {
        let planned = core::mem::take(&mut self.asked).finish();
        let stated = match &self.request.clock {
            Clock::Digest(digest) if *digest == self.summary.digest => *digest,
            Clock::Digest(digest) => Some(*digest).filter(|digest| *digest == planned)?,
            _ => planned,
        };
        Some(ReceiptFacts::of(self.request_hash, stated, complete))
    }

    fn send_plan(&self, segment: Segment, totals: PlanTotals, outputs: &mut Outputs) {
        let rest = PlanTotals {
            authors: self.summary.authors.saturating_sub(self.passed.authors),
            events: self.summary.events.saturating_sub(self.passed.events),
            payload_bytes: self
                .summary
                .payload_bytes
                .saturating_sub(self.passed.payload_bytes),
        };
        outputs.push_back(ResponderOutput::Send(Message::SyncPlan(SyncPlan {
            request_id: self.request.request_id,
            segment,
            totals,
            rest,
        })));
    }

    fn send_batch(&self, runs: Vec<bytes::Bytes>, more: bool, outputs: &mut Outputs) {
        outputs.push_back(ResponderOutput::Send(Message::SyncBatchV2(SyncBatchV2 {
            request_id: self.request.request_id,
            runs,
            more,
        })));
    }
}
