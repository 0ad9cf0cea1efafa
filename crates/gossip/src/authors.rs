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

    /// Notes a run that proved itself, by its last seq. Returns whether none came by the topic that went
    /// as far: only then it counts against the author, as whoever likes can send again what it signed.
    pub(crate) fn note(&mut self, author: AuthorId, seq: u64, now: Duration) -> bool {
        if !self.authors.contains_key(&author) {
            make_room(&mut self.authors, self.most, |known| known.heard_at);
        }
        let rate = self.rate;
        let known = self.authors.entry(author).or_default();
        let is_news = seq > known.heard;
        if is_news {
            known.heard = seq;
            known.heard_at = now;
            known.bucket.take(rate, now);
        }
        is_news
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
    fn what_goes_no_further_is_no_news_and_counts_against_nobody() {
        let mut table = AuthorTable::new(RATE, 10);
        assert_eq!(table.look_up(&author(1), at(9)), AuthorStanding::New);
        assert!(table.note(author(1), 5, at(9)));
        for seq in [5, 4, 1, 5] {
            assert!(!table.note(author(1), seq, at(9)));
            assert_eq!(table.look_up(&author(1), at(9)), AuthorStanding::Known);
        }
        assert!(table.note(author(1), 6, at(9)));
        assert_eq!(table.look_up(&author(1), at(9)), AuthorStanding::TooOften);
        assert_eq!(table.look_up(&author(1), at(10)), AuthorStanding::Known);
    }

    #[test]
    fn the_table_is_bounded_and_who_had_no_news_for_longest_goes_first() {
        let mut table = AuthorTable::new(RATE, 2);
        table.note(author(1), 1, at(3));
        table.note(author(2), 1, at(2));
        table.note(author(3), 1, at(4));
        assert_eq!(table.look_up(&author(1), at(9)), AuthorStanding::Known);
        assert_eq!(table.look_up(&author(2), at(9)), AuthorStanding::New);
        assert_eq!(table.look_up(&author(3), at(9)), AuthorStanding::Known);
    }
}
