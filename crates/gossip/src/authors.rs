//! Whose runs came by the topic, how far, and how often they were news.
//!
//! Invariant: only runs that proved themselves, of authors who may write, change anything here.

use std::{collections::HashMap, time::Duration};

use headwater_wire::AuthorId;

use crate::{bucket::Bucket, limits::Rate, senders::make_room};

/// A bounded table of authors.
#[derive(Debug)]
pub(crate) struct AuthorTable {
    rate: Rate,
    most: usize,
    authors: HashMap<AuthorId, Author>,
}

#[derive(Debug, Default)]
struct Author {
    /// The highest last seq of a run.
    heard: u64,
    bucket: Bucket,
    heard_at: Duration,
}

/// What became of a run that proved itself, of an author who may write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It brought events.
    Stored,
    /// All of it is held.
    Held,
    /// It begins above what is held, is above a quota or a rate, or forks.
    NotStored,
}

/// What the table says of a run before its signature is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AuthorStanding {
    /// Runs of the author proved themselves before.
    Known,
    /// Nothing is known of the author.
    New,
    /// The author has used up its share.
    TooOften,
}

impl AuthorTable {
    pub(crate) fn new(rate: Rate, most: usize) -> Self {
        Self {
            rate,
            most: most.max(1),
            authors: HashMap::new(),
        }
    }

    /// Looks an author up. Changes nothing: its run is not proven yet.
    pub(crate) fn look_up(&self, author: &AuthorId, now: Duration) -> AuthorStanding {
        match self.authors.get(author) {
            None => AuthorStanding::New,
            Some(known) if known.bucket.has_one(self.rate, now) => AuthorStanding::Known,
            Some(_) => AuthorStanding::TooOften,
        }
    }

    /// Notes a run that proved itself, by its last seq. Returns whether it was worth passing on.
    ///
    /// What was stored counts against the author, and so does what cannot be stored yet but goes further
    /// than any run before. What is held already does not, as whoever likes can send again what an
    /// author signed: it is worth nothing the second time.
    pub(crate) fn note(&mut self, author: AuthorId, seq: u64, fate: Fate, now: Duration) -> bool {
        if !self.authors.contains_key(&author) {
            make_room(&mut self.authors, self.most, |known| known.heard_at);
        }
        let rate = self.rate;
        let known = self.authors.entry(author).or_default();
        let goes_further = seq > known.heard;
        known.heard = seq.max(known.heard);
        let counts = match fate {
            Fate::Stored => true,
            Fate::Held => false,
            Fate::NotStored => goes_further,
        };
        if counts || goes_further {
            known.heard_at = now;
        }
        if counts {
            known.bucket.take(rate, now);
        }
        counts || goes_further
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: Rate = Rate {
        per_second: 1,
        burst: 2,
    };

    fn author(number: u8) -> AuthorId {
        AuthorId::from_bytes([number; 32])
    }

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn what_is_held_counts_against_nobody_and_is_worth_something_once() {
        let mut table = AuthorTable::new(RATE, 10);
        assert_eq!(table.look_up(&author(1), at(9)), AuthorStanding::New);
        // All of a log that is held, from its start, sent again and again.
        for _ in 0..3 {
            for seq in 1..1000 {
                let first = table
                    .authors
                    .get(&author(1))
                    .is_none_or(|it| it.heard < seq);
                assert_eq!(table.note(author(1), seq, Fate::Held, at(9)), first);
                assert_eq!(table.look_up(&author(1), at(9)), AuthorStanding::Known);
            }
        }
    }

    #[test]
    fn what_is_stored_counts_also_out_of_order_and_what_is_not_if_it_goes_further() {
        let mut table = AuthorTable::new(RATE, 10);
        assert!(table.note(author(1), 6, Fate::NotStored, at(9)));
        assert!(!table.note(author(1), 6, Fate::NotStored, at(9)));
        assert_eq!(table.look_up(&author(1), at(9)), AuthorStanding::Known);
        assert!(table.note(author(1), 5, Fate::Stored, at(9)));
        assert_eq!(table.look_up(&author(1), at(9)), AuthorStanding::TooOften);
        assert_eq!(table.look_up(&author(1), at(10)), AuthorStanding::Known);
    }

    #[test]
    fn the_table_is_bounded_and_who_had_no_news_for_longest_goes_first() {
        let mut table = AuthorTable::new(RATE, 2);
        table.note(author(1), 1, Fate::Stored, at(3));
        table.note(author(2), 1, Fate::Stored, at(2));
        table.note(author(3), 1, Fate::Stored, at(4));
        assert_eq!(table.look_up(&author(1), at(9)), AuthorStanding::Known);
        assert_eq!(table.look_up(&author(2), at(9)), AuthorStanding::New);
        assert_eq!(table.look_up(&author(3), at(9)), AuthorStanding::Known);
    }
}
