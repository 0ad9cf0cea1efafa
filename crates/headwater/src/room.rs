//! Leaves some of the disk free.
//!
//! Invariant: no commit begins while the store's file system is known to have less free than the
//! floor. Between two looks at it at most a share of what was free above the floor is written.

use std::time::{Duration, Instant};

use headwater_store::StoreError;
use tracing::debug;

/// Bytes of runs written between two looks, at most: more than a commit or two, so that a look is
/// no part of every commit.
const MOST_UNSEEN_BYTES: u64 = 16 * 1024 * 1024;

/// The share of what is free above the floor that may be taken up before the next look: a store
/// writes a multiple of what it is given.
const UNSEEN_SHARE: u64 = 8;

/// How long a look counts: others write to the disk too.
const LOOK_AGAIN_AFTER: Duration = Duration::from_secs(1);

/// What is known of the free space.
#[derive(Debug)]
pub(crate) struct Room {
    /// `None`: nobody wants to know.
    floor: Option<u64>,
    seen: Option<Seen>,
    /// Whether there was no room the last time.
    is_low: bool,
}

#[derive(Debug)]
struct Seen {
    at: Instant,
    /// Bytes that may be written before the next look.
    unseen: u64,
}

impl Room {
    pub(crate) fn new(floor: Option<u64>) -> Self {
        Self {
            floor,
            seen: None,
            is_low: false,
        }
    }

    /// Whether there was no room the last time.
    pub(crate) fn is_low(&self) -> bool {
        self.is_low
    }

    /// Takes note that so many bytes are about to be written. `free` says how many the store has left.
    ///
    /// # Errors
    ///
    /// [`StoreError::LowSpace`]. A store that cannot say how much is free is taken to have room.
    pub(crate) fn take(
        &mut self,
        bytes: u64,
        free: impl FnOnce() -> Result<Option<u64>, StoreError>,
    ) -> Result<(), StoreError> {
        let Some(floor) = self.floor else {
            return Ok(());
        };
        let now = Instant::now();
        if let Some(seen) = &mut self.seen
            && now.saturating_duration_since(seen.at) < LOOK_AGAIN_AFTER
            && let Some(left) = seen.unseen.checked_sub(bytes)
        {
            seen.unseen = left;
            return Ok(());
        }
        self.seen = None;
        let free = match free() {
            Ok(Some(free)) => free,
            Ok(None) => {
                // A store without bounds will not have any later.
                self.floor = None;
                return Ok(());
            }
            Err(store_error) => {
                debug!(error = %store_error, "cannot ask how much is free");
                return Ok(());
            }
        };
        self.is_low = free < floor.saturating_add(bytes);
        if self.is_low {
            return Err(StoreError::LowSpace { free, floor });
        }
        let unseen = ((free - floor) / UNSEEN_SHARE).min(MOST_UNSEEN_BYTES);
        self.seen = Some(Seen { at: now, unseen });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    const MIB: u64 = 1024 * 1024;

    #[test]
    fn looks_once_for_many_small_commits_and_before_every_large_one() {
        let mut room = Room::new(Some(100 * MIB));
        let looks = Cell::new(0);
        let mut take = |bytes| {
            room.take(bytes, || {
                looks.set(looks.get() + 1);
                Ok(Some(900 * MIB))
            })
        };
        for _ in 0..50 {
            take(1_000).unwrap();
        }
        assert_eq!(looks.get(), 1);
        take(MOST_UNSEEN_BYTES).unwrap();
        assert_eq!(looks.get(), 2);
    }

    #[test]
    fn looks_the_more_often_the_nearer_the_floor_is_and_goes_on_once_there_is_room() {
        let mut room = Room::new(Some(MIB));
        room.take(100, || Ok(Some(MIB + 800))).unwrap();
        // An eighth of what was free, and no more.
        room.take(100, || panic!("not yet")).unwrap();
        let low = room.take(1, || Ok(Some(MIB)));
        let expected = (MIB, MIB);
        assert!(
            matches!(low, Err(StoreError::LowSpace { free, floor }) if (free, floor) == expected)
        );
        assert!(room.is_low());
        room.take(1, || Ok(Some(2 * MIB))).unwrap();
        assert!(!room.is_low());
    }

    #[test]
    fn a_store_without_bounds_is_asked_once_and_none_if_nobody_wants_to_know() {
        let mut room = Room::new(Some(MIB));
        room.take(1, || Ok(None)).unwrap();
        room.take(u64::MAX, || panic!("asked again")).unwrap();
        let mut room = Room::new(Some(MIB));
        let unknown = || Err(std::io::Error::other("it is gone").into());
        room.take(1, unknown).unwrap();
        let mut room = Room::new(None);
        room.take(1, || panic!("asked")).unwrap();
    }
}
