//! Who announced, how often, and how far each has counted: replays end here.
//!
//! Invariant: only a signed announcement of a sender the policy admits changes anything here.

use std::{collections::HashMap, hash::Hash, time::Duration};

use iroh::EndpointId;

use crate::{announcement::AnnouncementCounter, bucket::Bucket, limits::Rate};

/// How far an announcement may come behind a later one of the same start. Messages overtake each
/// other where the ways through the network change; a replay is older, or was seen.
const WINDOW: u64 = 64;

/// A bounded table of senders.
#[derive(Debug)]
pub(crate) struct SenderTable {
    rate: Rate,
    most: usize,
    senders: HashMap<EndpointId, Sender>,
}

#[derive(Debug)]
struct Sender {
    newest: AnnouncementCounter,
    /// Bit i: number `newest.n - i` was seen.
    seen: u64,
    bucket: Bucket,
    heard_at: Duration,
}

/// What the table says of an announcement before its signature is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    /// The sender proved itself before, and this is news.
    Known,
    /// Nothing is known of the sender.
    New,
    /// It was seen, or is too old to tell.
    Replayed,
    /// The sender has used up its share.
    TooOften,
}

impl SenderTable {
    pub(crate) fn new(rate: Rate, most: usize) -> Self {
        Self {
            rate,
            most: most.max(1),
            senders: HashMap::new(),
        }
    }

    /// Looks an announcement up. Changes nothing: it is not proven yet.
    pub(crate) fn look_up(
        &self,
        sender: &EndpointId,
        counter: AnnouncementCounter,
        now: Duration,
    ) -> Standing {
        let Some(known) = self.senders.get(sender) else {
            return Standing::New;
        };
        if known.has_seen(counter) {
            Standing::Replayed
        } else if known.bucket.has_one(self.rate, now) {
            Standing::Known
        } else {
            Standing::TooOften
        }
    }

    /// Notes an announcement the sender did sign. Returns whether it is the sender's newest.
    pub(crate) fn note(
        &mut self,
        sender: EndpointId,
        counter: AnnouncementCounter,
        now: Duration,
    ) -> bool {
        if !self.senders.contains_key(&sender) {
            make_room(&mut self.senders, self.most, |known| known.heard_at);
        }
        let rate = self.rate;
        let known = self.senders.entry(sender).or_insert(Sender {
            newest: AnnouncementCounter { boot: 0, n: 0 },
            seen: 0,
            bucket: Bucket::default(),
            heard_at: now,
        });
        known.bucket.take(rate, now);
        known.heard_at = now;
        known.see(counter)
    }

    /// Takes a sender for one not heard of. What it said before could be said again: only for those
    /// the policy refuses, to whom it makes no difference.
    pub(crate) fn forget(&mut self, sender: &EndpointId) {
        self.senders.remove(sender);
    }
}

/// Makes room for another one in a table of at most so many: who was not heard for the longest time goes.
pub(crate) fn make_room<K: Copy + Eq + Hash, V>(
    table: &mut HashMap<K, V>,
    most: usize,
    heard_at: impl Fn(&V) -> Duration,
) {
    if table.len() < most {
        return;
    }
    let longest_silent = table
        .iter()
        .min_by_key(|(_, known)| heard_at(known))
        .map(|(id, _)| *id);
    if let Some(id) = longest_silent {
        table.remove(&id);
    }
}

impl Sender {
    fn has_seen(&self, counter: AnnouncementCounter) -> bool {
        if counter.boot != self.newest.boot {
            return counter.boot < self.newest.boot;
        }
        match self.newest.n.checked_sub(counter.n) {
            None => false,
            Some(behind) if behind < WINDOW => self.seen & (1 << behind) != 0,
            Some(_too_old) => true,
        }
    }

    /// Notes a counter that was not seen. Returns whether it is the newest.
    fn see(&mut self, counter: AnnouncementCounter) -> bool {
        if counter <= self.newest {
            let behind = self.newest.n.saturating_sub(counter.n);
            if counter.boot == self.newest.boot && behind < WINDOW {
                self.seen |= 1 << behind;
            }
            return false;
        }
        let ahead = counter.n.saturating_sub(self.newest.n);
        self.seen = if counter.boot > self.newest.boot || ahead >= WINDOW {
            1
        } else {
            (self.seen << ahead) | 1
        };
        self.newest = counter;
        true
    }
}

#[cfg(test)]
mod tests {
    use iroh::SecretKey;

    use super::*;

    const RATE: Rate = Rate {
        per_second: 1,
        burst: 1000,
    };

    fn sender(number: u8) -> EndpointId {
        SecretKey::from_bytes(&[number; 32]).public()
    }

    fn counter(boot: u64, n: u64) -> AnnouncementCounter {
        AnnouncementCounter { boot, n }
    }

    fn look_up(table: &SenderTable, number: u8, boot: u64, n: u64) -> Standing {
        table.look_up(&sender(number), counter(boot, n), Duration::ZERO)
    }

    fn note(table: &mut SenderTable, number: u8, boot: u64, n: u64) -> bool {
        table.note(sender(number), counter(boot, n), Duration::ZERO)
    }

    #[test]
    fn an_announcement_counts_once() {
        let mut table = SenderTable::new(RATE, 10);
        assert_eq!(look_up(&table, 1, 1, 5), Standing::New);
        assert!(note(&mut table, 1, 1, 5));
        assert_eq!(look_up(&table, 1, 1, 5), Standing::Replayed);
        assert_eq!(look_up(&table, 1, 1, 6), Standing::Known);
        assert_eq!(look_up(&table, 2, 1, 5), Standing::New);
    }

    #[test]
    fn one_that_was_overtaken_is_heard_once_and_is_not_the_newest() {
        let mut table = SenderTable::new(RATE, 10);
        note(&mut table, 1, 1, 7);
        assert_eq!(look_up(&table, 1, 1, 5), Standing::Known);
        assert!(!note(&mut table, 1, 1, 5));
        assert_eq!(look_up(&table, 1, 1, 5), Standing::Replayed);
        assert_eq!(look_up(&table, 1, 1, 6), Standing::Known);
        assert!(note(&mut table, 1, 1, 9));
        assert_eq!(look_up(&table, 1, 1, 7), Standing::Replayed);
        assert_eq!(look_up(&table, 1, 1, 5), Standing::Replayed);
        assert_eq!(look_up(&table, 1, 1, 8), Standing::Known);
    }

    #[test]
    fn one_that_is_too_far_behind_is_a_replay() {
        let mut table = SenderTable::new(RATE, 10);
        note(&mut table, 1, 1, 1000);
        assert_eq!(look_up(&table, 1, 1, 1000 - WINDOW), Standing::Replayed);
        assert_eq!(look_up(&table, 1, 1, 1001 - WINDOW), Standing::Known);
        note(&mut table, 1, 1, 5000);
        assert_eq!(look_up(&table, 1, 1, 1001), Standing::Replayed);
    }

    #[test]
    fn a_restart_counts_on_and_what_came_before_it_is_a_replay() {
        let mut table = SenderTable::new(RATE, 10);
        note(&mut table, 1, 1, 1000);
        assert_eq!(look_up(&table, 1, 2, 1), Standing::Known);
        assert!(note(&mut table, 1, 2, 1));
        assert_eq!(look_up(&table, 1, 1, 1001), Standing::Replayed);
        assert_eq!(look_up(&table, 1, 2, 2), Standing::Known);
    }

    #[test]
    fn whoever_says_too_much_has_to_wait() {
        let rate = Rate {
            per_second: 10,
            burst: 2,
        };
        let mut table = SenderTable::new(rate, 10);
        note(&mut table, 1, 1, 1);
        note(&mut table, 1, 1, 2);
        assert_eq!(look_up(&table, 1, 1, 3), Standing::TooOften);
        let later = Duration::from_millis(100);
        let standing = table.look_up(&sender(1), counter(1, 3), later);
        assert_eq!(standing, Standing::Known);
    }

    #[test]
    fn the_table_is_bounded_and_the_longest_silent_goes_first() {
        let mut table = SenderTable::new(RATE, 2);
        table.note(sender(1), counter(1, 1), Duration::from_secs(3));
        table.note(sender(2), counter(1, 1), Duration::from_secs(2));
        table.note(sender(3), counter(1, 1), Duration::from_secs(4));
        assert_eq!(look_up(&table, 1, 1, 1), Standing::Replayed);
        assert_eq!(look_up(&table, 2, 1, 1), Standing::New);
        assert_eq!(look_up(&table, 3, 1, 1), Standing::Replayed);
    }
}
