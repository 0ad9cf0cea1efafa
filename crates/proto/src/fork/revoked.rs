//! What an owner who forks has revoked above the cut: each side shows the other what it lacks.
//!
//! ```text
//! lists of both sides ──▶ Sending ──▶ the store's evidence, some subjects at a time ──▶ batches
//! batches ──▶ Receiving ──▶ runs to absorb
//! ```
//!
//! Invariant: a side sends evidence of what the other's list lacks and of nothing else, so two that
//! hold the same send none.

use std::collections::VecDeque;

use bytes::Bytes;
use headwater_wire::{
    AuthorId, Revoked, Run, Subject, SyncBatchV2,
    limits::{MAX_BATCH_RUNS, MAX_EVIDENCE_RUNS},
};

use super::{ForkOutput, halves::read_branch, side::Side};
use crate::{SessionError, requester::memory_of};

/// Subjects whose evidence is read at once: three runs each, of a megabyte if their author makes them
/// as large as may be, and mostly of a few hundred bytes.
const SUBJECTS_AT_ONCE: usize = 16;

/// Evidence the peer lacks.
#[derive(Debug)]
pub(super) struct Sending {
    lacking: VecDeque<Subject>,
    sent: usize,
}

/// What comes next of it.
pub(super) enum Sent {
    /// Evidence is being read.
    Reading,
    /// All was sent, and that it is all.
    All,
}

impl Sending {
    /// What a peer lacks that holds so much.
    pub(super) fn to(theirs: &Revoked, side: &Side) -> Self {
        let ours = side.log.revoked.iter().flat_map(Revoked::entries);
        let lacking = ours.filter(|entry| theirs.lacks(entry));
        Self {
            lacking: lacking.map(|entry| entry.subject).collect(),
            sent: 0,
        }
    }

    /// Asks for more evidence, or ends.
    pub(super) fn go_on(&mut self, side: &mut Side) -> Sent {
        let room = MAX_EVIDENCE_RUNS.saturating_sub(self.sent);
        let count = self.lacking.len().min(SUBJECTS_AT_ONCE);
        if room > 0 && count > 0 {
            let subjects = self.lacking.drain(..count).collect();
            side.push(ForkOutput::ReadEvidence(subjects));
            return Sent::Reading;
        }
        side.send(SyncBatchV2 {
            request_id: side.request_id,
            runs: Vec::new(),
            more: false,
        });
        Sent::All
    }

    /// Sends what was read. What there is no room for comes with another exchange.
    pub(super) fn send(&mut self, runs: Vec<Run>, batch_bytes: usize, side: &mut Side) {
        let room = MAX_EVIDENCE_RUNS.saturating_sub(self.sent);
        let runs = runs.into_iter().take(room);
        let mut batch = Vec::new();
        let mut bytes = 0;
        let mut all = runs.map(|run| run.as_bytes().clone()).peekable();
        while let Some(run) = all.next() {
            self.sent += 1;
            bytes += run.len();
            batch.push(run);
            let next = all.peek().map_or(0, Bytes::len);
            let is_full = batch.len() >= MAX_BATCH_RUNS || bytes + next > batch_bytes;
            if is_full || all.peek().is_none() {
                bytes = 0;
                side.send(SyncBatchV2 {
                    request_id: side.request_id,
                    runs: core::mem::take(&mut batch),
                    more: true,
                });
            }
        }
    }
}

/// Evidence a peer sends.
#[derive(Debug, Default)]
pub(super) struct Receiving {
    count: usize,
    /// Not taken in yet: to take in anything reads the whole log, so it is done as seldom as may be.
    waiting: Vec<Run>,
    memory: usize,
}

impl Receiving {
    /// Takes a batch, and returns what is to be taken in now: nothing unless it is much or the last.
    pub(super) fn take(
        &mut self,
        batch: SyncBatchV2,
        author: AuthorId,
        max_bytes: usize,
    ) -> Result<Vec<Run>, SessionError> {
        let is_last = !batch.more;
        for run in self.read(batch, author)? {
            self.memory = self.memory.saturating_add(memory_of(&run));
            self.waiting.push(run);
        }
        if !is_last && self.memory < max_bytes {
            return Ok(Vec::new());
        }
        self.memory = 0;
        Ok(core::mem::take(&mut self.waiting))
    }

    /// Checks what a batch holds, as far as it shows without hashing.
    fn read(&mut self, batch: SyncBatchV2, author: AuthorId) -> Result<Vec<Run>, SessionError> {
        if batch.runs.is_empty() && batch.more {
            return Err(SessionError::EmptyBatch);
        }
        self.count = self.count.saturating_add(batch.runs.len());
        if self.count > MAX_EVIDENCE_RUNS {
            let max = MAX_EVIDENCE_RUNS;
            return Err(SessionError::TooMuchEvidence { author, max });
        }
        let read = |bytes| {
            let run = read_branch(bytes, author)?;
            if run.is_evidence() {
                return Ok(run);
            }
            let first = run.first_seq();
            Err(SessionError::StrayEvidence { author, first })
        };
        batch.runs.into_iter().map(read).collect()
    }
}
