//! Token buckets: one, and a bounded table of them.
//!
//! A bucket is the time at which it will be full again. Nothing has to be refilled, and a bucket
//! that is full by now is as good as one that is not there.

use std::{collections::HashMap, hash::Hash, time::Duration};

use crate::limits::Rate;

/// How many tokens somebody has taken, as the time at which none will be missing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Bucket {
    full_at: Duration,
}

impl Bucket {
    /// Whether a token is there.
    pub(crate) fn has_one(self, rate: Rate, now: Duration) -> bool {
        let depth = token(rate).saturating_mul(rate.burst.max(1));
        self.full_at.saturating_sub(now) + token(rate) <= depth
    }

    /// Takes a token, there or not.
    pub(crate) fn take(&mut self, rate: Rate, now: Duration) {
        self.full_at = self.full_at.max(now) + token(rate);
    }

    /// Takes a token if one is there.
    pub(crate) fn try_take(&mut self, rate: Rate, now: Duration) -> bool {
        let has_one = self.has_one(rate, now);
        if has_one {
            self.take(rate, now);
        }
        has_one
    }

    /// Puts a token back.
    pub(crate) fn give_back(&mut self, rate: Rate) {
        self.full_at = self.full_at.saturating_sub(token(rate));
    }

    fn is_full(self, now: Duration) -> bool {
        self.full_at <= now
    }
}

/// How long one token takes to come back.
fn token(rate: Rate) -> Duration {
    Duration::from_secs(1) / rate.per_second.max(1)
}

/// A bucket for each of a bounded number of peers.
#[derive(Debug)]
pub(crate) struct Buckets<K> {
    rate: Rate,
    most: usize,
    buckets: HashMap<K, Bucket>,
    look_again_at: Duration,
}

impl<K: Copy + Eq + Hash> Buckets<K> {
    pub(crate) fn new(rate: Rate, most: usize) -> Self {
        Self {
            rate,
            most: most.max(1),
            buckets: HashMap::new(),
            look_again_at: Duration::ZERO,
        }
    }

    /// Takes one of `key`'s tokens, if one is there and there is room to remember it.
    pub(crate) fn try_take(&mut self, key: K, now: Duration) -> bool {
        if !self.buckets.contains_key(&key) && self.buckets.len() >= self.most {
            self.make_room(now);
            if self.buckets.len() >= self.most {
                return false;
            }
        }
        self.buckets
            .entry(key)
            .or_default()
            .try_take(self.rate, now)
    }

    /// Forgets the full ones. A table of buckets that are not is looked through once in a token's
    /// time, not at every call.
    fn make_room(&mut self, now: Duration) {
        if now >= self.look_again_at {
            self.buckets.retain(|_, bucket| !bucket.is_full(now));
            if self.buckets.len() >= self.most {
                self.look_again_at = now + token(self.rate);
            }
        }
    }

    /// Puts one of `key`'s tokens back.
    pub(crate) fn give_back(&mut self, key: &K) {
        if let Some(bucket) = self.buckets.get_mut(key) {
            bucket.give_back(self.rate);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: Rate = Rate {
        per_second: 10,
        burst: 3,
    };

    fn at(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn taken(buckets: &mut Buckets<u8>, key: u8, now: Duration) -> usize {
        (0..100).take_while(|_| buckets.try_take(key, now)).count()
    }

    #[test]
    fn a_burst_is_allowed_and_then_the_rate() {
        let mut buckets = Buckets::new(RATE, 4);
        assert_eq!(taken(&mut buckets, 1, at(0)), 3);
        assert_eq!(taken(&mut buckets, 1, at(99)), 0);
        assert_eq!(taken(&mut buckets, 1, at(100)), 1);
        assert_eq!(taken(&mut buckets, 1, at(10_000)), 3);
    }

    #[test]
    fn one_that_takes_too_much_leaves_the_others_their_share() {
        let mut buckets = Buckets::new(RATE, 4);
        assert_eq!(taken(&mut buckets, 1, at(0)), 3);
        assert_eq!(taken(&mut buckets, 2, at(0)), 3);
    }

    #[test]
    fn a_token_given_back_can_be_taken_again() {
        let mut buckets = Buckets::new(RATE, 4);
        assert_eq!(taken(&mut buckets, 1, at(0)), 3);
        buckets.give_back(&1);
        assert_eq!(taken(&mut buckets, 1, at(0)), 1);
    }

    #[test]
    fn the_table_is_bounded_and_forgets_only_full_buckets() {
        let mut buckets = Buckets::new(RATE, 2);
        assert_eq!(taken(&mut buckets, 1, at(0)), 3);
        assert!(buckets.try_take(2, at(0)));
        assert_eq!(taken(&mut buckets, 3, at(0)), 0);
        assert_eq!(taken(&mut buckets, 3, at(100)), 3);
        assert_eq!(taken(&mut buckets, 1, at(100)), 1);
    }

    #[test]
    fn zero_is_taken_for_one() {
        let never = Rate {
            per_second: 0,
            burst: 0,
        };
        let mut buckets = Buckets::new(never, 0);
        assert_eq!(taken(&mut buckets, 1, at(0)), 1);
        assert_eq!(taken(&mut buckets, 1, at(1000)), 1);
    }
}
