//! Batches as they arrive: decoded run by run, and no further than the store has room for.
//!
//! ```text
//! SyncBatchV2, LiveBatch ──▶ backlog ──room?──▶ decode, check, count ──▶ Apply
//!                               ▲                                          │
//!                               └────────────── store's answer ────────────┘
//! ```
//!
//! Invariant: while a backlog is left, something is unapplied, so an answer of the store will
//! come and take it further.

use bytes::Bytes;
use headwater_wire::{LiveBatch, Run, SyncBatchV2};

use super::{
    HistoryEnd, LocalClock, Phase, Requester, RequesterOutput,
    ledger::{Part, memory_of},
};
use crate::SessionError;

/// The undecoded rest of one batch.
#[derive(Debug)]
pub(super) struct Backlog {
    part: Part,
    runs: std::vec::IntoIter<Bytes>,
    more: bool,
}

impl Requester {
    /// Whether the next message has room.
    pub(super) fn has_room(&self) -> bool {
        let most = self.config.limits.max_unapplied_bytes;
        self.backlog.is_none() && !self.ledger.is_full(most, 0)
    }

    pub(super) fn take_batch(&mut self, batch: SyncBatchV2) -> Result<(), SessionError> {
        if batch.more && batch.runs.is_empty() {
            return Err(SessionError::EmptyBatch);
        }
        self.backlog = Some(Backlog {
            part: Part::History,
            runs: batch.runs.into_iter(),
            more: batch.more,
        });
        self.take_backlog()
    }

    pub(super) fn take_live_batch(&mut self, batch: LiveBatch) -> Result<(), SessionError> {
        if batch.runs.is_empty() {
            return Err(SessionError::EmptyBatch);
        }
        self.backlog = Some(Backlog {
            part: Part::Live,
            runs: batch.runs.into_iter(),
            more: true,
        });
        self.take_backlog()
    }

    /// Decodes and checks as much of the batch as has room.
    pub(super) fn take_backlog(&mut self) -> Result<(), SessionError> {
        let most = self.config.limits.max_unapplied_bytes;
        let Some(mut backlog) = self.backlog.take() else {
            return Ok(());
        };
        let (mut runs, mut memory) = (Vec::new(), 0);
        while !self.ledger.is_full(most, memory) {
            let Some(bytes) = backlog.runs.next() else {
                break;
            };
            let run = Run::decode(bytes).map_err(SessionError::RunDecode)?;
            self.count(backlog.part, &run)?;
            memory += memory_of(&run);
            runs.push(run);
        }
        if !runs.is_empty() {
            self.ledger.hand_over(backlog.part, &runs);
            self.outputs.push_back(RequesterOutput::Apply(runs));
            self.report_progress();
        }
        if !backlog.runs.as_slice().is_empty() {
            self.backlog = Some(backlog);
        } else if !backlog.more {
            self.end_history()?;
        }
        Ok(())
    }

    fn count(&mut self, part: Part, run: &Run) -> Result<(), SessionError> {
        let (events, payload) = (run.event_count() as u64, run.payload_bytes());
        if let (Part::History, Phase::Segment(segment)) = (part, &mut self.phase) {
            if self.ledger.received.reaches(&self.config.budget) {
                return Err(SessionError::BudgetExceeded);
            }
            let author = run.author();
            let is_excepted = self.config.except.binary_search(&author).is_ok();
            if is_excepted {
                return Err(SessionError::RunOfExceptedAuthor { author });
            }
            let limit = self.config.limits.max_authors;
            segment.admit(run, &mut self.heads, &mut self.ledger, limit)?;
            self.ledger.received.add(events, payload);
            self.ledger.stubs += run.stub_count() as u64;
        }
        self.progress.received.add(events, payload);
        Ok(())
    }

    /// All runs of the history are in.
    fn end_history(&mut self) -> Result<(), SessionError> {
        let Phase::Segment(segment) = &mut self.phase else {
            return Ok(());
        };
        let whole = segment.close(&mut self.heads, &mut self.ledger)?;
        let end = if whole && segment.is_last() {
            HistoryEnd::Whole
        } else if !whole && self.ledger.received.reaches(&self.config.budget) {
            HistoryEnd::Budget
        } else {
            return Err(segment.not_met());
        };
        self.heads.stop();
        self.phase = Phase::AwaitCompletion(end);
        Ok(())
    }

    /// Holds the live part to the limit of authors, by what the store says is new. What waits
    /// for the store's answer may go beyond it, and no more.
    pub(super) fn check_live_authors(&self) -> Result<(), SessionError> {
        let new = self.ledger.new_live_authors;
        if new == 0 {
            return Ok(());
        }
        let before = match self.clock {
            LocalClock::Held { authors, .. } if !self.asked_for_heads => authors,
            _ => self.heads.authors(),
        };
        let limit = self.config.limits.max_authors;
        if before.saturating_add(new) > limit {
            return Err(SessionError::TooManyAuthors { limit });
        }
        Ok(())
    }
}
