//! Peers that are busy: when to ask them again, and how often.

use std::time::{Duration, Instant};

use headwater::{CloseCode, SessionError, SyncError};

/// How long busy peers are asked again.
const PATIENCE: Duration = Duration::from_mins(1);

/// The first wait; each is twice as long as the one before.
const FIRST_WAIT: Duration = Duration::from_millis(500);

/// When a peer that only asks to come back later may be asked again; `None` if it said something else.
/// It also takes a connection whose other end was killed for a living one, until it times out.
pub(super) fn retry_after(error: &SyncError) -> Option<Duration> {
    match error {
        SyncError::Session(SessionError::Busy { retry_after }) => Some(*retry_after),
        SyncError::Session(SessionError::Reset(CloseCode::Busy))
        | SyncError::Closed {
            code: CloseCode::TooManyConnections,
        } => Some(Duration::ZERO),
        _ => None,
    }
}

/// How much longer busy peers are asked again.
#[derive(Debug)]
pub(super) struct Patience {
    until: Instant,
    wait: Duration,
}

impl Patience {
    pub(super) fn new() -> Self {
        Self {
            until: Instant::now() + PATIENCE,
            wait: FIRST_WAIT,
        }
    }

    /// Waits until the peers may be asked again, of whom the first may be after so long; false at once
    /// if that is too long.
    pub(super) async fn wait(&mut self, retry_after: Duration) -> bool {
        let Some(wait) = self.next_wait(Instant::now(), retry_after) else {
            return false;
        };
        tracing::warn!("the peer is busy, trying again in {wait:?}");
        tokio::time::sleep(wait).await;
        true
    }

    fn next_wait(&mut self, now: Instant, retry_after: Duration) -> Option<Duration> {
        let wait = self.wait.max(retry_after);
        now.checked_add(wait).filter(|at| *at <= self.until)?;
        self.wait *= 2;
        Some(wait)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_busy_peer_is_asked_again_when_it_says_and_never_sooner_than_after_twice_the_last_wait() {
        let begun = Instant::now();
        let mut patience = Patience {
            until: begun + PATIENCE,
            wait: FIRST_WAIT,
        };
        let millis = Duration::from_millis;
        for (asked, waited) in [(0, 500), (20_000, 20_000), (3_000, 3_000), (0, 4_000)] {
            let wait = patience.next_wait(begun, millis(asked));
            assert_eq!(wait, Some(millis(waited)), "{asked}");
        }
        assert_eq!(patience.next_wait(begun, PATIENCE + millis(1)), None);
        assert_eq!(patience.next_wait(begun, Duration::MAX), None);
        assert_eq!(patience.next_wait(begun + PATIENCE, Duration::ZERO), None);
    }
}
