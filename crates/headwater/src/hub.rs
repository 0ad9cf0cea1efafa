//! Tells watchers which logs grew, in the order of the commits.
//!
//! ```text
//! writer ──▶ publish(space, author, above..=through) ──▶ one pending range per log and watcher
//!                                                                 │
//!                                   watcher ◀── take() ───────────┘  then reads the store
//! ```
//!
//! Invariants:
//!
//! - A watcher holds ranges, never events. Two commits to one log widen one range, so memory is
//!   bounded by the number of authors and nothing is ever dropped: the store is the queue.
//! - What a watcher takes of a log goes on where the last take ended, but for what its own reader
//!   sent: a commit is shown whole, in its order, under one lock.

use std::{
    collections::{BTreeMap, HashMap, btree_map::Entry},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use headwater_proto::{Appended, TailWant};
use headwater_wire::{AuthorId, SpaceId};
use iroh::EndpointId;
use tokio::sync::Notify;

/// The watchers of every space.
#[derive(Debug, Default)]
pub(crate) struct Hub {
    watches: Mutex<HashMap<SpaceId, Vec<Weak<Watch>>>>,
}

#[derive(Debug, Default)]
struct Watch {
    /// Who reads here, if a peer does: what it sent itself is no news to it.
    reader: Option<EndpointId>,
    pending: Mutex<BTreeMap<AuthorId, Range>>,
    changed: Notify,
}

#[derive(Debug, Clone, Copy)]
struct Range {
    above: u64,
    through: u64,
}

/// One reader's place in the hub; leaves it when dropped.
#[derive(Debug)]
pub(crate) struct Watcher {
    watch: Arc<Watch>,
}

impl Hub {
    /// Watches a space from this moment on: whatever is published after this call is seen.
    pub(crate) fn watch(&self, space: SpaceId) -> Watcher {
        self.watch_as(space, None)
    }

    /// Watches a space for a peer: whatever others bring is seen, and not what it sends itself.
    pub(crate) fn watch_for(&self, space: SpaceId, reader: EndpointId) -> Watcher {
        self.watch_as(space, Some(reader))
    }

    fn watch_as(&self, space: SpaceId, reader: Option<EndpointId>) -> Watcher {
        let watch = Arc::new(Watch {
            reader,
            ..Watch::default()
        });
        lock(&self.watches)
            .entry(space)
            .or_default()
            .push(Arc::downgrade(&watch));
        Watcher { watch }
    }

    /// Tells the watchers of `space` what one commit appended, in the order of the commit: each
    /// item with the peer that sent it, if one did. A watcher sees all of a commit or nothing.
    pub(crate) fn publish<'a>(
        &self,
        space: SpaceId,
        appended: impl Iterator<Item = (Option<EndpointId>, &'a Appended)> + Clone,
    ) {
        let mut watches = lock(&self.watches);
        let Some(of_space) = watches.get_mut(&space) else {
            return;
        };
        of_space.retain(|watch| {
            let Some(watch) = watch.upgrade() else {
                return false;
            };
            watch.widen(appended.clone());
            true
        });
        if of_space.is_empty() {
            watches.remove(&space);
        }
    }
}

impl Watch {
    fn widen<'a>(&self, appended: impl Iterator<Item = (Option<EndpointId>, &'a Appended)>) {
        let mut pending = lock(&self.pending);
        for (origin, grown) in appended {
            let is_its_own = origin.is_some() && origin == self.reader;
            if is_its_own || grown.events == 0 {
                continue;
            }
            let through = grown.head.seq;
            let above = through.saturating_sub(grown.events);
            pending
                .entry(grown.author)
                .and_modify(|range| {
                    range.above = range.above.min(above);
                    range.through = range.through.max(through);
                })
                .or_insert(Range { above, through });
        }
        drop(pending);
        self.changed.notify_one();
    }
}

impl Watcher {
    /// Waits until something is pending. Safe to cancel.
    pub(crate) async fn changed(&self) {
        loop {
            if !lock(&self.watch.pending).is_empty() {
                return;
            }
            self.watch.changed.notified().await;
        }
    }

    /// Takes up to `max_authors` pending ranges, ascending by author.
    pub(crate) fn take(&self, max_authors: usize) -> Vec<TailWant> {
        let mut pending = lock(&self.watch.pending);
        let mut wants = Vec::with_capacity(pending.len().min(max_authors));
        while wants.len() < max_authors {
            let Some((author, range)) = pending.pop_first() else {
                break;
            };
            wants.push(TailWant {
                author,
                above: range.above,
                through: range.through,
            });
        }
        wants
    }

    /// Drops what is pending of these logs up to these seqs: the reader has it already.
    pub(crate) fn pass(&self, seen: &[(AuthorId, u64)]) {
        let mut pending = lock(&self.watch.pending);
        for (author, through) in seen {
            if let Entry::Occupied(mut entry) = pending.entry(*author) {
                let range = entry.get_mut();
                range.above = range.above.max(*through);
                if range.above >= range.through {
                    entry.remove();
                }
            }
        }
    }

    /// How many events are pending.
    pub(crate) fn backlog(&self) -> u64 {
        lock(&self.watch.pending)
            .values()
            .map(|range| range.through - range.above)
            .fold(0, u64::saturating_add)
    }
}

/// A panic elsewhere leaves these maps whole: each change is a single step.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use headwater_wire::{AuthorHead, EventId};

    use super::*;

    const SPACE: SpaceId = SpaceId::from_bytes([1; 32]);

    fn author(byte: u8) -> AuthorId {
        AuthorId::from_bytes([byte; 32])
    }

    fn appended(author: AuthorId, events: u64, seq: u64) -> Appended {
        Appended {
            author,
            events,
            payload_bytes: 0,
            head: AuthorHead {
                seq,
                id: EventId::from_bytes([0; 32]),
            },
        }
    }

    fn peer(seed: u8) -> EndpointId {
        iroh::SecretKey::from_bytes(&[seed; 32]).public()
    }

    /// Publishes a commit of which everything came from `origin`.
    fn publish(hub: &Hub, space: SpaceId, origin: Option<EndpointId>, appended: Appended) {
        hub.publish(space, [(origin, &appended)].into_iter());
    }

    fn want(author: AuthorId, above: u64, through: u64) -> TailWant {
        TailWant {
            author,
            above,
            through,
        }
    }

    #[test]
    fn commits_to_one_log_widen_one_range() {
        let hub = Hub::default();
        let watcher = hub.watch(SPACE);
        publish(&hub, SPACE, None, appended(author(2), 3, 10));
        publish(&hub, SPACE, None, appended(author(1), 1, 1));
        publish(&hub, SPACE, None, appended(author(2), 5, 15));
        assert_eq!(watcher.backlog(), 9);
        assert_eq!(
            watcher.take(10),
            [want(author(1), 0, 1), want(author(2), 7, 15)]
        );
        assert_eq!(watcher.backlog(), 0);
    }

    #[test]
    fn takes_no_more_authors_than_asked_for_and_keeps_the_rest() {
        let hub = Hub::default();
        let watcher = hub.watch(SPACE);
        for byte in 1..=3 {
            publish(&hub, SPACE, None, appended(author(byte), 1, 1));
        }
        assert_eq!(watcher.take(2).len(), 2);
        assert_eq!(watcher.take(2), [want(author(3), 0, 1)]);
    }

    #[test]
    fn tells_nobody_of_other_spaces_or_of_what_was_there_before() {
        let hub = Hub::default();
        publish(&hub, SPACE, None, appended(author(1), 1, 1));
        let watcher = hub.watch(SPACE);
        publish(
            &hub,
            SpaceId::from_bytes([2; 32]),
            None,
            appended(author(1), 1, 2),
        );
        publish(&hub, SPACE, None, appended(author(1), 0, 1));
        assert_eq!(watcher.take(10), []);
    }

    #[test]
    fn a_peer_is_not_told_of_what_it_sent() {
        let hub = Hub::default();
        let (sender, other) = (hub.watch_for(SPACE, peer(1)), hub.watch_for(SPACE, peer(2)));
        let local = hub.watch(SPACE);
        publish(&hub, SPACE, Some(peer(1)), appended(author(1), 1, 1));
        assert_eq!(sender.backlog(), 0);
        assert_eq!((other.backlog(), local.backlog()), (1, 1));
    }

    #[test]
    fn a_commit_of_two_peers_to_one_log_is_seen_as_one_growth_without_a_hole() {
        let hub = Hub::default();
        let local = hub.watch(SPACE);
        let (first, second) = (hub.watch_for(SPACE, peer(1)), hub.watch_for(SPACE, peer(2)));
        let sent = [
            (Some(peer(1)), appended(author(1), 5, 5)),
            (Some(peer(2)), appended(author(1), 5, 10)),
            (None, appended(author(1), 2, 12)),
        ];
        let commit = sent.iter().map(|(origin, grown)| (*origin, grown));
        hub.publish(SPACE, commit);
        assert_eq!(local.take(10), [want(author(1), 0, 12)]);
        assert_eq!(first.take(10), [want(author(1), 5, 12)]);
        assert_eq!(second.take(10), [want(author(1), 0, 12)]);
    }

    #[test]
    fn what_a_taker_on_another_thread_sees_of_a_log_always_goes_on_where_it_stopped() {
        const COMMITS: u64 = 10_000;
        let hub = Hub::default();
        let watcher = hub.watch(SPACE);
        let (one, other) = (Some(peer(1)), Some(peer(2)));
        std::thread::scope(|threads| {
            threads.spawn(|| {
                for commit in 0..COMMITS {
                    let grown = [
                        (one, appended(author(1), 1, 2 * commit + 1)),
                        (other, appended(author(1), 1, 2 * commit + 2)),
                    ];
                    hub.publish(SPACE, grown.iter().map(|(origin, grown)| (*origin, grown)));
                }
            });
            let mut seen = 0;
            while seen < 2 * COMMITS {
                for taken in watcher.take(10) {
                    assert_eq!(taken.above, seen);
                    assert_eq!(taken.through % 2, 0, "half a commit");
                    seen = taken.through;
                }
            }
        });
    }

    #[test]
    fn what_the_reader_has_already_is_passed_over() {
        let hub = Hub::default();
        let watcher = hub.watch(SPACE);
        publish(&hub, SPACE, None, appended(author(1), 5, 5));
        publish(&hub, SPACE, None, appended(author(2), 5, 9));
        watcher.pass(&[(author(1), 5), (author(2), 6), (author(3), 1)]);
        assert_eq!(watcher.backlog(), 3);
        assert_eq!(watcher.take(10), [want(author(2), 6, 9)]);
    }

    #[test]
    fn forgets_watchers_that_are_gone() {
        let hub = Hub::default();
        drop(hub.watch(SPACE));
        publish(&hub, SPACE, None, appended(author(1), 1, 1));
        assert!(lock(&hub.watches).is_empty());
    }
}
