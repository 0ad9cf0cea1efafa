//! How fast authors' logs grow by what is pushed to this node.
//!
//! ```text
//! live streams, gossip ──▶ within the author's rate? ─┬▶ store
//!                                                     └▶ not taken: a pull brings it
//! pulls ─────────────────────────────────────────────▶ store
//! ```
//!
//! A pull is asked for, comes in large batches, and ends; it is bounded by the quotas. What is pushed
//! comes whenever its author likes, one signature check and one commit at a time: that is what has
//! a rate.
//!
//! Each author has one date: when what was taken from it will be paid off at its rate. Whoever's date
//! lies further ahead than the burst has to wait.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use headwater_wire::{AuthorId, SpaceId, VerifiedRun};

use crate::limits::Limits;

/// Authors whose rate is known at a time. The one who is paid off first makes place: it loses the
/// least.
const KNOWN_AUTHORS: usize = 4096;

type Log = (SpaceId, AuthorId);

/// What was taken from whom lately.
#[derive(Debug)]
pub(crate) struct Pace {
    events_per_second: u32,
    bytes_per_second: u32,
    burst: Duration,
    paid_off: HashMap<Log, Instant>,
}

impl Pace {
    pub(crate) fn new(limits: &Limits) -> Self {
        Self {
            events_per_second: limits.pushed_events_rate.max(1),
            bytes_per_second: limits.pushed_bytes_rate.max(1),
            burst: limits.pushed_burst,
            paid_off: HashMap::new(),
        }
    }

    /// Whether more may be taken from an author now.
    pub(crate) fn allows(&self, log: &Log, now: Instant) -> bool {
        let owed = self.paid_off.get(log);
        owed.is_none_or(|paid_off| paid_off.saturating_duration_since(now) < self.burst)
    }

    /// Takes note of a run that was stored.
    pub(crate) fn took(&mut self, run: &VerifiedRun, now: Instant) {
        let log = (run.space(), run.author());
        if !self.paid_off.contains_key(&log) {
            self.make_place(now);
        }
        let per = |amount: usize, rate: u32| {
            let nanos = (amount as u64).saturating_mul(1_000_000_000) / u64::from(rate);
            Duration::from_nanos(nanos)
        };
        let events = per(run.run().event_count(), self.events_per_second);
        let bytes = per(run.run().as_bytes().len(), self.bytes_per_second);
        let paid_off = self.paid_off.entry(log).or_insert(now);
        *paid_off = (*paid_off).max(now) + events.max(bytes);
    }

    fn make_place(&mut self, now: Instant) {
        if self.paid_off.len() < KNOWN_AUTHORS {
            return;
        }
        self.paid_off.retain(|_, paid_off| *paid_off > now);
        if self.paid_off.len() >= KNOWN_AUTHORS {
            let first = self.paid_off.iter().min_by_key(|(_, paid_off)| **paid_off);
            if let Some(log) = first.map(|(log, _)| *log) {
                self.paid_off.remove(&log);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use headwater_wire::{AuthorSecret, EventDraft, sign_genesis, sign_runs};

    use super::*;

    fn run(author: u64, events: usize, payload: usize) -> VerifiedRun {
        let space = sign_genesis(&AuthorSecret::from_bytes([1; 32]), [0; 16], 0).space();
        let mut secret = [2; 32];
        secret[..8].copy_from_slice(&author.to_be_bytes());
        let drafts = (0..events).map(|_| EventDraft::new(16, 0, vec![0; payload]));
        let runs = sign_runs(&space, &AuthorSecret::from_bytes(secret), None, drafts);
        runs.unwrap().remove(0)
    }

    fn pace() -> Pace {
        Pace::new(&Limits {
            pushed_events_rate: 10,
            pushed_bytes_rate: 10_000,
            pushed_burst: Duration::from_secs(5),
            ..Limits::default()
        })
    }

    #[test]
    fn an_author_waits_once_its_burst_is_used_up_and_others_do_not() {
        let (mut pace, start) = (pace(), Instant::now());
        let (run, other) = (run(1, 10, 1), run(2, 1, 1));
        let log = (run.space(), run.author());
        for _ in 0..5 {
            assert!(pace.allows(&log, start));
            pace.took(&run, start);
        }
        assert!(!pace.allows(&log, start));
        assert!(pace.allows(&(other.space(), other.author()), start));
        assert!(!pace.allows(&log, start));
        assert!(pace.allows(&log, start + Duration::from_millis(1)));
        let later = start + Duration::from_mins(1);
        pace.took(&run, later);
        assert!(pace.allows(&log, later));
    }

    #[test]
    fn bytes_count_as_events_do() {
        let (mut pace, start) = (pace(), Instant::now());
        let run = run(1, 1, 60_000);
        pace.took(&run, start);
        let log = (run.space(), run.author());
        assert!(!pace.allows(&log, start));
        assert!(pace.allows(&log, start + Duration::from_secs(2)));
    }

    #[test]
    fn no_more_authors_are_known_than_there_are_places() {
        let (mut pace, start) = (pace(), Instant::now());
        let busy = run(0, 60, 1);
        pace.took(&busy, start);
        let one = run(1, 1, 1);
        for n in 0..KNOWN_AUTHORS as u64 + 10 {
            let mut author = [0; 32];
            author[..8].copy_from_slice(&n.to_be_bytes());
            pace.make_place(start);
            let log = (one.space(), AuthorId::from_bytes(author));
            pace.paid_off.insert(log, start + Duration::from_millis(n));
        }
        assert_eq!(pace.paid_off.len(), KNOWN_AUTHORS);
        assert!(!pace.allows(&(busy.space(), busy.author()), start));
    }
}
