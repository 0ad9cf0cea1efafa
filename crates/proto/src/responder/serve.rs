//! One planned segment while it is served: its wants in order, and what the store gave for them.
//!
//! Invariant: the totals planned hold exactly unless the budget ends the segment. A want ends
//! at the pinned head. Only if the store has merged the run that ended there with newer ones does
//! the served run end above it, and then the plan is revised before that run is sent.

use std::collections::VecDeque;

use bytes::Bytes;
use headwater_wire::{
    AuthorHead, Budget, EventRef, PlanTotals, Run, Segment, SpaceId, limits::MAX_BATCH_RUNS,
};

use super::join::{Draft, Row};
use crate::{SessionError, StoredRun, TailWant, requester::Tally};

#[derive(Debug)]
struct Want {
    row: usize,
    want: TailWant,
    payload_bytes: u64,
}

#[derive(Debug)]
pub(super) struct Serving {
    segment: Segment,
    rows: Vec<Row>,
    wants: VecDeque<Want>,
    planned: PlanTotals,
    sent: Tally,
    /// The last run of the front want, if it was served in part.
    partial: Option<Bytes>,
}

/// What one answer of the store comes to.
#[derive(Debug)]
pub(super) struct Portion {
    /// Whether the plan has to be sent again first.
    pub(super) revised: bool,
    /// Runs to send, in lists no longer than a batch may be.
    pub(super) batches: Vec<Vec<Bytes>>,
    pub(super) sent: Tally,
    pub(super) stubs: u64,
}

impl Serving {
    pub(super) fn new(segment: Segment, draft: Draft) -> Self {
        let wants: VecDeque<_> = draft
            .wants()
            .into_iter()
            .map(|(row, want, payload_bytes)| Want {
                row,
                want,
                payload_bytes,
            })
            .collect();
        let mut planned = PlanTotals {
            authors: wants.len() as u64,
            ..PlanTotals::default()
        };
        for want in &wants {
            let events = want.want.through.saturating_sub(want.want.above);
            planned.events = planned.events.saturating_add(events);
            planned.payload_bytes = planned.payload_bytes.saturating_add(want.payload_bytes);
        }
        Self {
            segment,
            rows: draft.into_rows(),
            wants,
            planned,
            sent: Tally::default(),
            partial: None,
        }
    }

    pub(super) fn segment(&self) -> Segment {
        self.segment
    }

    pub(super) fn planned(&self) -> PlanTotals {
        self.planned
    }

    pub(super) fn is_done(&self) -> bool {
        self.wants.is_empty()
    }

    /// The next wants: as many as can fill the next answer with some to spare.
    pub(super) fn next_wants(&self, max_bytes: usize) -> Vec<TailWant> {
        let enough = 2 * max_bytes as u64;
        let mut named = 0u64;
        self.wants
            .iter()
            .take_while(|want| {
                let more = named < enough;
                named = named.saturating_add(want.payload_bytes);
                more
            })
            .map(|want| want.want)
            .collect()
    }

    /// Checks the store's answer against the wants, and takes of it what the budget allows.
    /// `before` is what the history has sent so far.
    pub(super) fn take(
        &mut self,
        runs: Vec<StoredRun>,
        space: &SpaceId,
        budget: &Budget,
        before: Tally,
    ) -> Result<Portion, SessionError> {
        let unfit = SessionError::StoreAnswer {
            question: "ReadRuns",
        };
        if runs.is_empty() {
            return Err(self.cut());
        }
        let mut total = before;
        let mut portion = Portion {
            revised: false,
            batches: Vec::new(),
            sent: Tally::default(),
            stubs: 0,
        };
        let mut batch = Vec::new();
        for run in runs {
            if total.reaches(budget) {
                break;
            }
            let is_of = |want: &Want| want.want.author == run.author;
            if !self.wants.front().is_some_and(is_of) && self.wants.iter().any(is_of) {
                // A store passes over what it does not show.
                return Err(self.cut());
            }
            let want = self.wants.front_mut().ok_or(unfit.clone())?;
            check_run(&run, &want.want)?;
            let beyond = run.last_seq.saturating_sub(want.want.through);
            if beyond > 0 {
                self.planned.events = self.planned.events.saturating_add(beyond);
                self.planned.payload_bytes =
                    self.planned.payload_bytes.saturating_add(run.payload_bytes);
                portion.revised = true;
            }
            let events = run.events();
            total.add(events, run.payload_bytes);
            portion.sent.add(events, run.payload_bytes);
            self.sent.add(events, run.payload_bytes);
            portion.stubs = portion.stubs.saturating_add(run.stubs);
            if run.last_seq < want.want.through {
                want.want.above = run.last_seq;
                want.payload_bytes = want.payload_bytes.saturating_sub(run.payload_bytes);
                self.partial = Some(run.bytes.clone());
            } else {
                let row = self.rows.get_mut(want.row).ok_or(unfit.clone())?;
                row.served = match row.pinned() {
                    Some(head) if head.seq == run.last_seq => Some(head),
                    _ => Some(last_event(&run.bytes, space)?),
                };
                self.partial = None;
                self.wants.pop_front();
            }
            batch.push(run.bytes);
            if batch.len() == MAX_BATCH_RUNS {
                portion.batches.push(core::mem::take(&mut batch));
            }
        }
        if !batch.is_empty() {
            portion.batches.push(batch);
        }
        if self.sent.payload_bytes > self.planned.payload_bytes {
            return Err(SessionError::StoreAnswer {
                question: "CheckTails",
            });
        }
        Ok(portion)
    }

    /// The log that is served now does not go as far as was planned.
    fn cut(&self) -> SessionError {
        match self.wants.front() {
            Some(want) => SessionError::LogCut {
                author: want.want.author,
            },
            None => SessionError::StoreAnswer {
                question: "ReadRuns",
            },
        }
    }

    /// Ends the segment, whole or not: its rows, and the last event served if any was.
    pub(super) fn finish(
        mut self,
        space: &SpaceId,
    ) -> Result<(Vec<Row>, Option<EventRef>), SessionError> {
        if let (Some(bytes), Some(want)) = (&self.partial, self.wants.front()) {
            let head = last_event(bytes, space)?;
            if let Some(row) = self.rows.get_mut(want.row) {
                row.served = Some(head);
            }
        }
        let last = self.rows.iter().rev().find_map(|row| {
            row.served.map(|head| EventRef {
                author: row.author,
                seq: head.seq,
                id: head.id,
            })
        });
        Ok((self.rows, last))
    }
}

/// Whether a stored run answers the front of a want.
pub(crate) fn check_run(run: &StoredRun, want: &TailWant) -> Result<(), SessionError> {
    let fits = run.author == want.author
        && run.first_seq.checked_sub(1) == Some(want.above)
        && run.last_seq >= run.first_seq;
    if fits {
        Ok(())
    } else {
        Err(SessionError::StoreAnswer {
            question: "ReadRuns",
        })
    }
}

/// The head a stored run ends in: hashes the run, so only for runs that end where no pinned head
/// says it.
fn last_event(bytes: &Bytes, space: &SpaceId) -> Result<AuthorHead, SessionError> {
    let unfit = SessionError::StoreAnswer {
        question: "ReadRuns",
    };
    let run = Run::decode(bytes.clone()).map_err(|_| unfit.clone())?;
    let id = run.event_ids(space).last().copied().ok_or(unfit)?;
    Ok(AuthorHead {
        seq: run.last_seq(),
        id,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::HeadRecord;
    use headwater_wire::{
        AuthorSecret, ClockEntry, EventDraft, VerifiedRun, merge_runs, sign_genesis, sign_runs,
    };

    /// A log of runs of four events, of four payload bytes each, in one space.
    fn log(author: u8, runs: usize) -> Vec<VerifiedRun> {
        let space = sign_genesis(&AuthorSecret::from_bytes([1; 32]), [0; 16], 0).space();
        let secret = AuthorSecret::from_bytes([author; 32]);
        let mut log: Vec<VerifiedRun> = Vec::new();
        for _ in 0..runs {
            let base = log.last().map(VerifiedRun::head);
            let drafts = (0..4).map(|n| EventDraft::new(16, n, &b"four"[..]));
            log.extend(sign_runs(&space, &secret, base, drafts).unwrap());
        }
        log
    }

    fn row(log: &[VerifiedRun], held: usize) -> Row {
        let author = log[0].author();
        let record = HeadRecord {
            entry: ClockEntry {
                author,
                head: log[held - 1].head(),
                forked: false,
                revoked: headwater_wire::RevokedDigest::NONE,
            },
            payload_bytes: 16 * held as u64,
        };
        Row::new(author, None, Some(record))
    }

    fn take(serving: &mut Serving, runs: Vec<StoredRun>, budget: Budget) -> Portion {
        let space = log(2, 1)[0].space();
        let before = Tally::default();
        serving.take(runs, &space, &budget, before).unwrap()
    }

    #[test]
    fn a_merged_run_raises_the_plan_and_is_the_head_served() {
        let log = log(2, 3);
        let mut serving = Serving::new(Segment::Last, Draft::of_owner(row(&log, 2)));
        assert_eq!(serving.planned().events, 8);
        let parts: Vec<Run> = log.iter().map(|run| run.run().clone()).collect();
        let merged = merge_runs(&parts).unwrap();
        let portion = take(
            &mut serving,
            vec![StoredRun::of(&merged)],
            Budget::default(),
        );
        assert!(portion.revised && serving.is_done());
        assert_eq!(serving.planned().events, 12);
        assert_eq!(portion.sent.events, 12);
        let (rows, last) = serving.finish(&log[0].space()).unwrap();
        assert_eq!(rows[0].served, Some(log[2].head()));
        assert_eq!(last.map(|event| event.id), Some(log[2].head().id));
    }

    #[test]
    fn a_budget_ends_within_a_log_at_the_run_that_reaches_it() {
        let log = log(2, 3);
        let mut serving = Serving::new(Segment::Last, Draft::of_owner(row(&log, 3)));
        let runs = log.iter().map(|run| StoredRun::of(run.run())).collect();
        let budget = Budget {
            events: Some(5),
            payload_bytes: None,
        };
        let portion = take(&mut serving, runs, budget);
        assert_eq!(portion.sent.events, 8);
        assert!(!serving.is_done());
        let (rows, last) = serving.finish(&log[0].space()).unwrap();
        assert_eq!(rows[0].served, Some(log[1].head()));
        assert_eq!(last.map(|event| event.seq), Some(8));
    }

    #[test]
    fn no_more_wants_are_named_than_can_fill_the_answer_twice() {
        let logs: Vec<_> = (2..30).map(|author| log(author, 1)).collect();
        let wants = logs.iter().enumerate().map(|(at, log)| Want {
            row: at,
            want: TailWant {
                author: log[0].author(),
                above: 0,
                through: 4,
            },
            payload_bytes: 16,
        });
        let mut serving = Serving::new(Segment::Last, Draft::default());
        serving.wants = wants.collect();
        assert_eq!(serving.next_wants(1).len(), 1);
        assert_eq!(serving.next_wants(40).len(), 5);
        assert_eq!(serving.next_wants(usize::MAX / 4).len(), 28);
    }
}
