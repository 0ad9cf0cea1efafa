//! The waits of one session, by the caller's clock.

use core::time::Duration;

use crate::{SessionError, SessionLimits, Wait};

#[derive(Debug)]
pub(crate) struct Deadlines {
    started: Duration,
    /// When the last thing happened; `None` before the first.
    last_progress: Option<Duration>,
    first: Wait,
    first_message: Duration,
    stall: Duration,
    total: Duration,
}

impl Deadlines {
    /// Starts at `now`; `first` names what is waited for first.
    pub(crate) fn new(limits: &SessionLimits, first: Wait, now: Duration) -> Self {
        Self {
            started: now,
            last_progress: None,
            first,
            first_message: limits.first_message,
            stall: limits.stall,
            total: limits.total,
        }
    }

    /// Something came from the peer, or the store went on.
    pub(crate) fn progress(&mut self, now: Duration) {
        self.last_progress = Some(now);
    }

    /// Bytes moved, though no message is whole yet. Before the first message nothing counts but
    /// that message.
    pub(crate) fn transfer(&mut self, now: Duration) {
        if self.last_progress.is_some() {
            self.last_progress = Some(now);
        }
    }

    /// The earliest deadline. The one for a lack of progress counts only while the peer is the
    /// one to move.
    pub(crate) fn next(&self, peer_moves: bool) -> Option<Duration> {
        let total = self.started.checked_add(self.total);
        if !peer_moves {
            return total;
        }
        let (since, _, longest) = self.wait();
        match (since.checked_add(longest), total) {
            (Some(stall), Some(total)) => Some(stall.min(total)),
            (stall, total) => stall.or(total),
        }
    }

    /// Whether a wait is over.
    pub(crate) fn check(&self, peer_moves: bool, now: Duration) -> Result<(), SessionError> {
        let (since, wait, longest) = self.wait();
        let waited = now.saturating_sub(since);
        if peer_moves && waited >= longest {
            return Err(SessionError::TimedOut {
                wait,
                after: waited,
            });
        }
        let after = now.saturating_sub(self.started);
        if after >= self.total {
            return Err(SessionError::TimedOut {
                wait: Wait::Completion,
                after,
            });
        }
        Ok(())
    }

    fn wait(&self) -> (Duration, Wait, Duration) {
        match self.last_progress {
            None => (self.started, self.first, self.first_message),
            Some(since) => (since, Wait::Progress, self.stall),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn deadlines() -> Deadlines {
        Deadlines::new(&SessionLimits::default(), Wait::FirstAnswer, 5 * SECOND)
    }

    #[test]
    fn the_first_answer_has_a_deadline_of_its_own() {
        let deadlines = deadlines();
        assert_eq!(deadlines.next(true), Some(15 * SECOND));
        assert_eq!(deadlines.check(true, 14 * SECOND), Ok(()));
        assert_eq!(
            deadlines.check(true, 15 * SECOND),
            Err(SessionError::TimedOut {
                wait: Wait::FirstAnswer,
                after: 10 * SECOND
            })
        );
    }

    #[test]
    fn a_slow_store_of_ours_is_not_the_peers_stall() {
        let mut deadlines = deadlines();
        deadlines.progress(20 * SECOND);
        assert_eq!(deadlines.next(true), Some(50 * SECOND));
        assert_eq!(deadlines.next(false), Some(605 * SECOND));
        assert_eq!(deadlines.check(false, 100 * SECOND), Ok(()));
        assert!(deadlines.check(true, 50 * SECOND).is_err());
    }

    #[test]
    fn bytes_on_their_way_are_progress_once_a_first_message_came() {
        let mut deadlines = deadlines();
        deadlines.transfer(14 * SECOND);
        assert_eq!(deadlines.next(true), Some(15 * SECOND));
        deadlines.progress(14 * SECOND);
        deadlines.transfer(40 * SECOND);
        assert_eq!(deadlines.next(true), Some(70 * SECOND));
    }

    #[test]
    fn steady_progress_still_ends_at_the_total() {
        let mut deadlines = deadlines();
        deadlines.progress(604 * SECOND);
        assert_eq!(
            deadlines.check(true, 605 * SECOND),
            Err(SessionError::TimedOut {
                wait: Wait::Completion,
                after: 600 * SECOND
            })
        );
    }
}
