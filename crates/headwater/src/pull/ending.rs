//! Waiting for a peer that may still be busy, and not for ever.

use std::{pin::pin, time::Duration};

use n0_future::time::{Instant, sleep};

/// Waits for `ended` while `signs` goes on changing: `patience` without a change ends it, and
/// `most` ends it whatever changes.
pub(super) async fn wait_while_active<T>(
    ended: impl Future<Output = T>,
    signs: impl Fn() -> u64,
    patience: Duration,
    most: Duration,
) -> Option<T> {
    let mut ended = pin!(ended);
    let started = Instant::now();
    loop {
        let before = signs();
        let left = most.saturating_sub(started.elapsed());
        tokio::select! {
            ended = &mut ended => return Some(ended),
            () = sleep(patience.min(left)) => {
                if signs() == before || started.elapsed() >= most {
                    return None;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        cell::Cell,
        future::{pending, ready},
    };

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);
    const MOST: Duration = Duration::from_mins(10);

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_is_always_busy_and_never_ends_is_left_after_the_longest_time() {
        let started = Instant::now();
        let signs = Cell::new(0);
        let busy = || {
            signs.set(signs.get() + 1);
            signs.get()
        };
        let ended = wait_while_active(pending::<()>(), busy, PATIENCE, MOST).await;
        assert_eq!(ended, None);
        assert_eq!(started.elapsed(), MOST);
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_gives_no_sign_is_left_after_our_patience() {
        let started = Instant::now();
        let ended = wait_while_active(pending::<()>(), || 7, PATIENCE, MOST).await;
        assert_eq!(ended, None);
        assert_eq!(started.elapsed(), PATIENCE);
    }

    #[tokio::test(start_paused = true)]
    async fn the_end_is_taken_as_soon_as_it_is_there() {
        let started = Instant::now();
        let ended = wait_while_active(ready("over"), || 0, PATIENCE, MOST).await;
        assert_eq!(ended, Some("over"));
        assert_eq!(started.elapsed(), Duration::ZERO);
    }
}
