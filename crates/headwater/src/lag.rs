//! When a live reader is so far behind that it had better begin again.

use std::time::Duration;

use crate::limits::Limits;

/// What a live reader has been behind by.
///
/// The store is the queue, so that a backlog costs no memory, and its size says little: one
/// commit may bring any number of events, and they are on their way in no time. A reader lags when
/// its backlog stays too large and gets no smaller for a while.
#[derive(Debug, Default)]
pub(crate) struct Lag {
    /// Since when the backlog has been too large and got no smaller, and how large it was then.
    since: Option<(Duration, u64)>,
}

impl Lag {
    /// Looks at the events pending, by any clock that goes on.
    pub(crate) fn is_too_much(&mut self, backlog: u64, now: Duration, limits: &Limits) -> bool {
        if backlog <= limits.live_backlog_events {
            self.since = None;
            return false;
        }
        match self.since {
            Some((since, before)) if backlog >= before => {
                now.saturating_sub(since) >= limits.live_lag_after
            }
            // A first look says nothing yet of how fast the reader is; a smaller backlog does.
            _ => {
                self.since = Some((now, backlog));
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits() -> Limits {
        Limits {
            live_backlog_events: 100,
            live_lag_after: Duration::from_mins(1),
            ..Limits::default()
        }
    }

    fn looks(looks: &[(u64, u64)]) -> Vec<bool> {
        let mut lag = Lag::default();
        let look = |(backlog, seconds): &(u64, u64)| {
            lag.is_too_much(*backlog, Duration::from_secs(*seconds), &limits())
        };
        looks.iter().map(look).collect()
    }

    #[test]
    fn one_large_commit_is_no_lag_however_long_it_takes_to_send() {
        assert_eq!(looks(&[(1_000_000, 0), (90, 300)]), [false, false]);
    }

    #[test]
    fn a_backlog_that_gets_smaller_is_no_lag() {
        let shrinking = [(1000, 0), (900, 70), (800, 140), (700, 210)];
        assert_eq!(looks(&shrinking), [false; 4]);
    }

    #[test]
    fn a_backlog_that_stays_too_large_and_grows_for_the_whole_time_is_lag() {
        let growing = [(1000, 0), (1000, 59), (1200, 60)];
        assert_eq!(looks(&growing), [false, false, true]);
    }

    #[test]
    fn a_reader_that_caught_up_in_between_starts_afresh() {
        let twice = [(1000, 0), (100, 30), (1000, 61), (1000, 120), (1000, 121)];
        assert_eq!(looks(&twice), [false, false, false, false, true]);
    }
}
