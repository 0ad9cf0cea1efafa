//! Tells watchers which logs grew, in the order of the commits.
//!
//! ```text
//! writer ──▶ publish(space, author, above..=through) ──▶ one pending range per log and watcher
//!                                                                 │
//!                                   watcher ◀── take() ───────────┘  then reads the store
//! ```
//!
//! Invariant: a watcher holds ranges, never events. Two commits to one log widen one range, so
//! memory is bounded by the number of authors and nothing is ever dropped: the store is the queue.

use std::{
    collections::{BTreeMap, HashMap},
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

    /// Tells the watchers of `space` what was committed, and `origin` nothing: the peer that sent
    /// it, if one did.
    pub(crate) fn publish<'a>(
        &self,
        space: SpaceId,
        origin: Option<EndpointId>,
        appended: impl Iterator<Item = &'a Appended> + Clone,
    ) {
        let mut watches = lock(&self.watches);
        let Some(of_space) = watches.get_mut(&space) else {
            return;
        };
        of_space.retain(|watch| {
            let Some(watch) = watch.upgrade() else {
                return false;
            };
            if origin.is_none() || watch.reader != origin {
                watch.widen(appended.clone());
            }
            true
        });
        if of_space.is_empty() {
            watches.remove(&space);
        }
    }
}

impl Watch {
    fn widen<'a>(&self, appended: impl Iterator<Item = &'a Appended>) {
        let mut pending = lock(&self.pending);
        for grown in appended.filter(|grown| grown.events > 0) {
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
        hub.publish(SPACE, None, [appended(author(2), 3, 10)].iter());
        hub.publish(SPACE, None, [appended(author(1), 1, 1)].iter());
        hub.publish(SPACE, None, [appended(author(2), 5, 15)].iter());
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
            hub.publish(SPACE, None, [appended(author(byte), 1, 1)].iter());
        }
        assert_eq!(watcher.take(2).len(), 2);
        assert_eq!(watcher.take(2), [want(author(3), 0, 1)]);
    }

    #[test]
    fn tells_nobody_of_other_spaces_or_of_what_was_there_before() {
        let hub = Hub::default();
        hub.publish(SPACE, None, [appended(author(1), 1, 1)].iter());
        let watcher = hub.watch(SPACE);
        hub.publish(
            SpaceId::from_bytes([2; 32]),
            None,
            [appended(author(1), 1, 2)].iter(),
        );
        hub.publish(SPACE, None, [appended(author(1), 0, 1)].iter());
        assert_eq!(watcher.take(10), []);
    }

    #[test]
    fn a_peer_is_not_told_of_what_it_sent() {
        let peer = |seed| iroh::SecretKey::from_bytes(&[seed; 32]).public();
        let hub = Hub::default();
        let (sender, other) = (hub.watch_for(SPACE, peer(1)), hub.watch_for(SPACE, peer(2)));
        let local = hub.watch(SPACE);
        hub.publish(SPACE, Some(peer(1)), [appended(author(1), 1, 1)].iter());
        assert_eq!(sender.backlog(), 0);
        assert_eq!((other.backlog(), local.backlog()), (1, 1));
    }

    #[test]
    fn forgets_watchers_that_are_gone() {
        let hub = Hub::default();
        drop(hub.watch(SPACE));
        hub.publish(SPACE, None, [appended(author(1), 1, 1)].iter());
        assert!(lock(&hub.watches).is_empty());
    }
}
