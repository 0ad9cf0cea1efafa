//! The search for the lowest difference of two chains, as both sides follow it.
//!
//! ```text
//! 1 ───── low ─────────────── high ─────▶ seq
//!   same   │  not compared yet  │  differs, or is beyond the answerer's log
//! ```
//!
//! Invariant: an event commits to all before it, so chains that are the same at `low` are so below
//! it, and chains that differ at `high` do above it. Each answer narrows what lies between.

use headwater_wire::limits::MAX_LOCATOR_IDS;

use crate::SessionError;

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Search {
    low: u64,
    high: Option<u64>,
    /// Whether the chains differ at `high`; otherwise the answerer's ends below it.
    differs: bool,
}

/// The asker's first samples: its end, and end − 2^k.
pub(super) fn first_samples(end: u64) -> Vec<u64> {
    let mut seqs: Vec<u64> = (0..u64::BITS)
        .map_while(|k| end.checked_sub(1 << k))
        .filter(|seq| *seq > 0)
        .collect();
    seqs.reverse();
    seqs.extend((end > 0).then_some(end));
    seqs
}

impl Search {
    /// Whether the open range is empty.
    pub(super) fn is_settled(&self) -> bool {
        self.high.is_none_or(|high| high <= self.low + 1)
    }

    /// The lowest difference, once settled.
    pub(super) fn found(&self) -> Option<u64> {
        self.high.filter(|_| self.differs && self.is_settled())
    }

    /// The next samples: all of the open range, or as many as a locator holds, evenly spread.
    pub(super) fn samples(&self) -> Vec<u64> {
        let most = MAX_LOCATOR_IDS as u64;
        let Some(high) = self.high else {
            return Vec::new();
        };
        let open = high.saturating_sub(self.low).saturating_sub(1);
        if open <= most {
            return (self.low + 1..high).collect();
        }
        let step = |n: u64| u128::from(n) * u128::from(open + 1) / u128::from(most + 1);
        (1..=most).map(|n| self.low + step(n) as u64).collect()
    }

    /// Whether a locator of these seqs, ascending, asks about the open range and nothing else.
    /// The first may ask about anything.
    pub(super) fn may_ask(&self, seqs: &[u64]) -> Result<(), SessionError> {
        let Some(high) = self.high else {
            return Ok(());
        };
        let outside = |seq: &&u64| **seq <= self.low || **seq >= high;
        let found = match seqs {
            [] => Some(self.low),
            seqs => seqs.iter().find(outside).copied(),
        };
        match found {
            None => Ok(()),
            Some(seq) => Err(SessionError::LocatorOutOfRange {
                seq,
                low: self.low,
                high,
            }),
        }
    }

    /// Takes the answer to a locator of these seqs.
    pub(super) fn narrow(
        &mut self,
        seqs: &[u64],
        same: u64,
        differs: Option<u64>,
    ) -> Result<(), SessionError> {
        let unfounded = SessionError::UnfoundedForkAnswer { same, differs };
        let next = seqs.iter().copied().find(|seq| *seq > same);
        if same != 0 && !seqs.contains(&same) {
            return Err(unfounded);
        }
        match (next, differs) {
            (Some(next), Some(differs)) if next == differs => {
                self.high = Some(differs);
                self.differs = true;
            }
            // It holds another event further up, so it holds one here.
            (Some(_), None) if self.differs => return Err(unfounded),
            (Some(next), None) => self.high = Some(next),
            (None, None) => {}
            _ => return Err(unfounded),
        }
        self.low = self.low.max(same);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fork::MAX_FORK_ROUNDS;
    use headwater_wire::limits::MAX_SEQ;

    /// Searches as both sides do, the answerer's log ending at `theirs` and parting at `fork`.
    fn search(ours: u64, theirs: u64, fork: u64) -> (Option<u64>, u32) {
        let mut search = Search::default();
        let mut seqs = first_samples(ours);
        let mut rounds = 0;
        loop {
            rounds += 1;
            assert!(seqs.len() <= MAX_LOCATOR_IDS);
            assert!(seqs.windows(2).all(|two| two[0] < two[1]));
            assert_eq!(search.may_ask(&seqs), Ok(()));
            let same = |seq: &&u64| **seq < fork && **seq <= theirs;
            let same = seqs.iter().rfind(same).copied().unwrap_or(0);
            let differs = seqs.iter().find(|seq| **seq >= fork && **seq <= theirs);
            search.narrow(&seqs, same, differs.copied()).unwrap();
            if search.is_settled() {
                return (search.found(), rounds);
            }
            seqs = search.samples();
        }
    }

    #[test]
    fn every_difference_is_found_and_none_that_is_not_there() {
        for ours in 0..90 {
            for theirs in 0..90 {
                for fork in 1..=ours.min(theirs) {
                    assert_eq!(search(ours, theirs, fork).0, Some(fork));
                }
                assert_eq!(search(ours, theirs, 1_000).0, None);
            }
        }
    }

    #[test]
    fn the_longest_logs_take_fewer_rounds_than_allowed() {
        let mut most = 0;
        for fork in (0..53).flat_map(|k| [1 << k, (1 << k) + 1, MAX_SEQ - (1 << k)]) {
            for (ours, theirs) in [(MAX_SEQ, MAX_SEQ), (MAX_SEQ, fork), (fork, MAX_SEQ)] {
                let (found, rounds) = search(ours, theirs, fork.max(1));
                assert_eq!(found, Some(fork.max(1)));
                most = most.max(rounds);
            }
        }
        assert!(most < MAX_FORK_ROUNDS, "{most}");
    }

    #[test]
    fn refuses_answers_that_contradict_the_question_or_each_other() {
        let seqs = [2, 6, 8, 9, 10];
        let answer = |same, differs| Search::default().narrow(&seqs, same, differs);
        assert_eq!(answer(6, Some(8)), Ok(()));
        for (same, differs) in [
            (3, Some(6)),
            (11, None),
            (6, Some(9)),
            (6, Some(7)),
            (10, Some(11)),
        ] {
            assert_eq!(
                answer(same, differs),
                Err(SessionError::UnfoundedForkAnswer { same, differs })
            );
        }
        let mut search = Search::default();
        search.narrow(&[10, 20, 30], 10, Some(20)).unwrap();
        assert!(search.narrow(&[13, 15], 13, None).is_err());
        assert_eq!(search.narrow(&[13, 15], 15, None), Ok(()));
        assert_eq!((search.low, search.high), (15, Some(20)));
    }

    #[test]
    fn refuses_locators_that_leave_the_open_range() {
        let mut search = Search::default();
        assert_eq!(search.may_ask(&[]), Ok(()));
        search.narrow(&[10, 20, 30], 10, None).unwrap();
        assert_eq!(search.may_ask(&[11, 19]), Ok(()));
        for (seqs, seq) in [(&[10, 11][..], 10), (&[19, 20], 20), (&[1], 1), (&[], 10)] {
            assert_eq!(
                search.may_ask(seqs),
                Err(SessionError::LocatorOutOfRange {
                    seq,
                    low: 10,
                    high: 20
                })
            );
        }
    }
}
