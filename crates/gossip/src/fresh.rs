//! Runs and heads of logs that grew, kept until they are sent or announced, so that to tell of
//! something just written needs no look into the store.
//!
//! Invariant: a run here holds all of its author since the last announcement that named it.

use std::collections::BTreeMap;

use headwater::LogGrowth;
use headwater_wire::{AuthorId, Run, SignedHead, merge_runs};

/// Authors remembered at most. Beyond that the head is read from the store when it is announced.
const MAX_AUTHORS: usize = 1024;

/// What is known of logs that grew.
#[derive(Debug)]
pub(crate) struct Fresh {
    /// Longest run kept, in bytes.
    max_bytes: usize,
    logs: BTreeMap<AuthorId, FreshLog>,
    /// Heads others announced, of logs that were not seen to grow that far yet.
    heard: BTreeMap<AuthorId, u64>,
}

/// What is known of one log that grew.
#[derive(Debug)]
pub(crate) struct FreshLog {
    /// Its head.
    pub(crate) head: SignedHead,
    /// All since it was announced, if that is small and was at hand.
    pub(crate) run: Option<Run>,
}

impl Fresh {
    pub(crate) fn new(max_bytes: usize) -> Self {
        Self {
            max_bytes,
            logs: BTreeMap::new(),
            heard: BTreeMap::new(),
        }
    }

    /// Notes that a log grew. Returns the length of the run that says all that is new of it.
    pub(crate) fn note(&mut self, growth: &LogGrowth) -> Option<usize> {
        let before = self.logs.remove(&growth.author);
        let heard = self.heard.remove(&growth.author);
        if heard.is_some_and(|heard| growth.through <= heard) {
            return None;
        }
        let run = growth.run.as_ref()?;
        let head = run.signed_head();
        let run = match before {
            None => Some(run.run().clone()),
            Some(before) if before.head.head.seq != growth.above => None,
            Some(before) => before
                .run
                .and_then(|before| merge_runs(&[before, run.run().clone()])),
        };
        let run = run.filter(|run| run.as_bytes().len() <= self.max_bytes);
        let len = run.as_ref().map(|run| run.as_bytes().len());
        if self.logs.len() >= MAX_AUTHORS {
            self.logs.pop_first();
        }
        self.logs.insert(growth.author, FreshLog { head, run });
        len
    }

    /// Whether others announced that growth, so that nobody waits to hear of it from here.
    pub(crate) fn was_heard(&self, growth: &LogGrowth) -> bool {
        self.heard
            .get(&growth.author)
            .is_some_and(|heard| growth.through <= *heard)
    }

    /// Takes all that is new of a log, because it is sent now, if that is at hand; else nothing is taken.
    pub(crate) fn take_run(&mut self, author: &AuthorId) -> Option<Run> {
        let run = self.logs.get(author)?.run.clone()?;
        self.logs.remove(author);
        Some(run)
    }

    /// Takes what is known of a log, because it is announced now.
    pub(crate) fn take(&mut self, author: &AuthorId) -> Option<FreshLog> {
        self.logs.remove(author)
    }

    /// A log was cut: what is known of it is not to be said.
    pub(crate) fn forget(&mut self, author: &AuthorId) {
        self.logs.remove(author);
        self.heard.remove(author);
    }

    /// Somebody else announced as much of a log: what is known of it need not be said again.
    pub(crate) fn heard(&mut self, author: AuthorId, seq: u64) {
        match self.logs.get(&author) {
            Some(log) if log.head.head.seq <= seq => {
                self.logs.remove(&author);
            }
            Some(_) => {}
            None => {
                if self.heard.len() >= MAX_AUTHORS && !self.heard.contains_key(&author) {
                    self.heard.pop_first();
                }
                let heard = self.heard.entry(author).or_default();
                *heard = seq.max(*heard);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use headwater::{EventDraft, Growth, Headwater, Open, Space, generate_author};
    use headwater_wire::AuthorSecret;

    use super::*;

    async fn growing() -> (Space, AuthorSecret, Growth) {
        let author = generate_author();
        let node = Headwater::builder().policy(Open).open();
        let space = node.create_space(&author).await.unwrap();
        let growth = space.growth();
        (space, author, growth)
    }

    async fn grow(space: &Space, author: &AuthorSecret, growth: &mut Growth) -> LogGrowth {
        let draft = EventDraft::new(16, 0, vec![5; 100]);
        space.append(author, draft).await.unwrap();
        growth.next().await.remove(0)
    }

    #[tokio::test]
    async fn what_follows_on_each_other_becomes_one_run() {
        let (space, author, mut growth) = growing().await;
        let mut fresh = Fresh::new(1000);
        let first = grow(&space, &author, &mut growth).await;
        let second = grow(&space, &author, &mut growth).await;
        let one = fresh.note(&first).unwrap();
        let two = fresh.note(&second).unwrap();
        assert!(two > one + 100 && two < 2 * one, "{one} {two}");
        let log = fresh.take(&author.id()).unwrap();
        let run = log.run.unwrap().verify(&space.id()).unwrap();
        assert_eq!((run.first_seq(), run.last_seq()), (2, 3));
        assert_eq!(run.signed_head(), log.head);
        assert!(fresh.take(&author.id()).is_none());
    }

    #[tokio::test]
    async fn what_gets_too_large_is_a_head_until_it_was_announced() {
        let (space, author, mut growth) = growing().await;
        let mut fresh = Fresh::new(400);
        assert!(
            fresh
                .note(&grow(&space, &author, &mut growth).await)
                .is_some()
        );
        assert!(
            fresh
                .note(&grow(&space, &author, &mut growth).await)
                .is_some()
        );
        assert_eq!(fresh.note(&grow(&space, &author, &mut growth).await), None);
        assert_eq!(fresh.note(&grow(&space, &author, &mut growth).await), None);
        let log = fresh.take(&author.id()).unwrap();
        assert_eq!(log.head.head.seq, 5);
        assert!(log.run.is_none());
        assert!(
            fresh
                .note(&grow(&space, &author, &mut growth).await)
                .is_some()
        );
    }

    #[tokio::test]
    async fn a_run_never_stands_for_more_than_it_holds() {
        let (space, author, mut growth) = growing().await;
        let mut fresh = Fresh::new(1000);
        fresh.note(&grow(&space, &author, &mut growth).await);
        let mut unread = grow(&space, &author, &mut growth).await;
        unread.run = None;
        assert_eq!(fresh.note(&unread), None);
        assert!(fresh.take(&author.id()).is_none());
    }

    #[tokio::test]
    async fn what_others_announced_is_forgotten() {
        let (space, author, mut growth) = growing().await;
        let mut fresh = Fresh::new(1000);
        fresh.note(&grow(&space, &author, &mut growth).await);
        fresh.heard(author.id(), 1);
        assert!(fresh.logs.contains_key(&author.id()));
        fresh.heard(author.id(), 2);
        assert!(fresh.take(&author.id()).is_none());

        fresh.heard(author.id(), 3);
        fresh.heard(author.id(), 1);
        let heard = grow(&space, &author, &mut growth).await;
        assert_eq!(fresh.note(&heard), None);
        let own = grow(&space, &author, &mut growth).await;
        fresh.note(&own);
        let run = fresh.take(&author.id()).unwrap().run.unwrap();
        assert_eq!((run.first_seq(), run.last_seq()), (4, 4));
    }
}
