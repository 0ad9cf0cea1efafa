//! What our digest is, what it was, and what others said it is.
//!
//! A digest says nothing about who holds more. But one that was ours before is one of a peer that
//! lacks what came since; and one that becomes ours soon was only ahead of its events.

use core::time::Duration;
use std::collections::VecDeque;

use headwater_wire::HeadsDigest;

/// Most digests remembered that others announced together with heads, and that are not yet ours.
const MAX_AHEAD: usize = 16;

/// How a digest stands to ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// It is ours.
    Equal,
    /// It was ours until then: we hold all that it covers.
    Left(Duration),
    /// It covers something we never held alone.
    Unknown,
}

#[derive(Debug)]
pub(super) struct Digests {
    ours: HeadsDigest,
    /// Ours before, oldest first, each with when it ceased to be.
    left: VecDeque<(HeadsDigest, Duration)>,
    /// Announced by others while it was not ours, and whether alone.
    ahead: VecDeque<(HeadsDigest, bool)>,
    max: usize,
}

impl Digests {
    pub(super) fn new(ours: HeadsDigest, max: usize) -> Self {
        Self {
            ours,
            left: VecDeque::new(),
            ahead: VecDeque::new(),
            max,
        }
    }

    /// Ours is now this. If somebody announced it before, tells whether alone, so that everybody
    /// compared it.
    pub(super) fn change(&mut self, digest: HeadsDigest, now: Duration) -> Option<bool> {
        if digest == self.ours {
            return None;
        }
        self.left.push_back((self.ours, now));
        while self.left.len() > self.max {
            self.left.pop_front();
        }
        self.ours = digest;
        let at = self.ahead.iter().position(|(heard, _)| *heard == digest)?;
        self.ahead.remove(at).map(|(_, alone)| alone)
    }

    #[cfg(test)]
    pub(super) fn ours(&self) -> HeadsDigest {
        self.ours
    }

    pub(super) fn standing(&self, digest: &HeadsDigest) -> Standing {
        if *digest == self.ours {
            return Standing::Equal;
        }
        let left = self.left.iter().rev().find(|(left, _)| left == digest);
        left.map_or(Standing::Unknown, |(_, when)| Standing::Left(*when))
    }

    /// Somebody announced a digest that may become ours.
    pub(super) fn remember(&mut self, digest: HeadsDigest, alone: bool) {
        match self.ahead.iter_mut().find(|(heard, _)| *heard == digest) {
            Some((_, was_alone)) => *was_alone |= alone,
            None => self.ahead.push_back((digest, alone)),
        }
        if self.ahead.len() > MAX_AHEAD {
            self.ahead.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(n: u8) -> HeadsDigest {
        HeadsDigest::from_bytes([n; 32])
    }

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn tells_ours_from_what_was_ours_and_from_what_never_was() {
        let mut digests = Digests::new(digest(0), 2);
        digests.change(digest(1), at(1));
        digests.change(digest(1), at(2));
        digests.change(digest(2), at(3));
        assert_eq!(digests.standing(&digest(2)), Standing::Equal);
        assert_eq!(digests.standing(&digest(1)), Standing::Left(at(3)));
        assert_eq!(digests.standing(&digest(0)), Standing::Left(at(1)));
        assert_eq!(digests.standing(&digest(9)), Standing::Unknown);
        digests.change(digest(3), at(4));
        assert_eq!(digests.standing(&digest(0)), Standing::Unknown, "evicted");
    }

    #[test]
    fn notices_that_it_reached_what_was_announced() {
        let mut digests = Digests::new(digest(0), 4);
        digests.remember(digest(2), false);
        digests.remember(digest(3), false);
        digests.remember(digest(3), true);
        assert_eq!(digests.change(digest(1), at(1)), None);
        assert_eq!(digests.change(digest(2), at(2)), Some(false));
        assert_eq!(digests.change(digest(3), at(3)), Some(true));
        digests.change(digest(1), at(4));
        assert_eq!(digests.change(digest(2), at(5)), None, "once");
    }

    #[test]
    fn remembers_no_more_than_its_bound() {
        let mut digests = Digests::new(digest(0), 8);
        for n in 0..100_000_u32 {
            let mut bytes = [0; 32];
            bytes[..4].copy_from_slice(&n.to_le_bytes());
            digests.remember(HeadsDigest::from_bytes(bytes), true);
            digests.change(HeadsDigest::from_bytes(bytes), at(1));
        }
        assert_eq!(digests.left.len(), 8);
        assert!(digests.ahead.len() <= MAX_AHEAD);
    }
}
