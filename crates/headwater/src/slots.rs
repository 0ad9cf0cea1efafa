//! Counted places: who may do how much at the same time.

use std::{
    collections::{BTreeMap, HashMap},
    hash::Hash,
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use iroh::EndpointId;
use n0_future::time::{Instant, timeout};
use tokio::sync::{Notify, Semaphore};

use crate::standing::Standing;

/// How long somebody known keeps a place that somebody known for longer wants.
const UNDISTURBED: Duration = Duration::from_secs(10);

/// Places per peer and in all. Whoever finds none in time is refused, unless somebody holds one who
/// stands lower: strangers may take every place there is, and give way.
#[derive(Debug)]
pub(crate) struct Slots {
    per_peer: usize,
    total: usize,
    taken: Mutex<Taken>,
    given_back: Notify,
}

#[derive(Debug, Default)]
struct Taken {
    by_peer: HashMap<EndpointId, usize>,
    /// In the order in which they were taken.
    held: BTreeMap<u64, Held>,
    next: u64,
}

#[derive(Debug)]
struct Held {
    peer: EndpointId,
    standing: Standing,
    since: Instant,
    lost: Arc<Notify>,
}

/// A taken place; given back when dropped.
#[derive(Debug)]
pub(crate) struct Slot {
    slots: Arc<Slots>,
    number: u64,
    lost: Arc<Notify>,
}

impl Slots {
    pub(crate) fn new(per_peer: usize, total: usize) -> Arc<Self> {
        Arc::new(Self {
            per_peer,
            total,
            taken: Mutex::default(),
            given_back: Notify::new(),
        })
    }

    /// Takes a place for `peer`, and waits that long for one.
    pub(crate) async fn take_within(
        self: &Arc<Self>,
        peer: EndpointId,
        standing: Standing,
        patience: Duration,
    ) -> Option<Slot> {
        let taking = async {
            loop {
                let mut given_back = pin!(self.given_back.notified());
                // Before looking, so that no place given back in between is missed.
                given_back.as_mut().enable();
                if let Some(slot) = self.try_take(peer, standing) {
                    return slot;
                }
                given_back.await;
            }
        };
        timeout(patience, taking).await.ok()
    }

    /// Takes a place for `peer`, at the cost of whoever stands lower if need be, or `None` if the
    /// peer has no more, or all are held by others of its standing.
    pub(crate) fn try_take(self: &Arc<Self>, peer: EndpointId, standing: Standing) -> Option<Slot> {
        self.try_take_at(peer, standing, Instant::now())
    }

    /// Has the places a peer holds count for what it is now.
    pub(crate) fn set_standing(&self, peer: EndpointId, standing: Standing) {
        let mut taken = lock(&self.taken);
        if !taken.by_peer.contains_key(&peer) {
            return;
        }
        for held in taken.held.values_mut().filter(|held| held.peer == peer) {
            held.standing = standing;
        }
        drop(taken);
        // Whoever waits may stand higher than the peer does now.
        self.given_back.notify_waiters();
    }

    fn try_take_at(
        self: &Arc<Self>,
        peer: EndpointId,
        standing: Standing,
        now: Instant,
    ) -> Option<Slot> {
        let mut taken = lock(&self.taken);
        let of_peer = taken.by_peer.get(&peer).copied().unwrap_or_default();
        if of_peer >= self.per_peer || self.total == 0 {
            return None;
        }
        if taken.held.len() >= self.total {
            taken.take_from_whoever_stands_below(standing, now)?;
        }
        *taken.by_peer.entry(peer).or_default() += 1;
        let number = taken.next;
        taken.next += 1;
        let lost = Arc::new(Notify::new());
        let held = Held {
            peer,
            standing,
            since: now,
            lost: Arc::clone(&lost),
        };
        taken.held.insert(number, held);
        Some(Slot {
            slots: Arc::clone(self),
            number,
            lost,
        })
    }
}

impl Taken {
    /// Of those who stand lowest, whoever holds a place for longest loses it: who has not finished
    /// by then is the likeliest not to mean to.
    fn take_from_whoever_stands_below(&mut self, standing: Standing, now: Instant) -> Option<()> {
        let held = self.held.iter().filter(|(_, held)| {
            let is_due = now.saturating_duration_since(held.since) >= UNDISTURBED;
            held.standing < standing && (held.standing == Standing::Stranger || is_due)
        });
        let (number, held) = held.min_by_key(|(number, held)| (held.standing, **number))?;
        held.lost.notify_one();
        let number = *number;
        self.give_back(number);
        Some(())
    }

    fn give_back(&mut self, number: u64) {
        let Some(held) = self.held.remove(&number) else {
            return;
        };
        if let Some(of_peer) = self.by_peer.get_mut(&held.peer) {
            *of_peer = of_peer.saturating_sub(1);
            if *of_peer == 0 {
                self.by_peer.remove(&held.peer);
            }
        }
    }
}

impl Slot {
    /// Resolves once the place went to somebody who stands higher. Safe to cancel.
    pub(crate) async fn lost(&self) {
        self.lost.notified().await;
    }

    /// Gives the place back before it is dropped.
    pub(crate) fn give_back(&self) {
        lock(&self.slots.taken).give_back(self.number);
        self.slots.given_back.notify_waiters();
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.give_back();
    }
}

/// One queue for each key: whoever finds no place waits.
#[derive(Debug)]
pub(crate) struct Keyed<K> {
    places: usize,
    queues: Mutex<HashMap<K, Weak<Semaphore>>>,
}

impl<K: Eq + Hash> Keyed<K> {
    pub(crate) fn new(places: usize) -> Self {
        Self {
            places: places.clamp(1, Semaphore::MAX_PERMITS),
            queues: Mutex::default(),
        }
    }

    /// The queue of `key`; forgotten when nobody holds or awaits a place in it.
    pub(crate) fn queue(&self, key: K) -> Arc<Semaphore> {
        let mut queues = lock(&self.queues);
        if let Some(queue) = queues.get(&key).and_then(Weak::upgrade) {
            return queue;
        }
        queues.retain(|_, queue| queue.strong_count() > 0);
        let queue = Arc::new(Semaphore::new(self.places));
        queues.insert(key, Arc::downgrade(&queue));
        queue
    }
}

/// A panic elsewhere leaves these maps whole: each change is a single step.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::cmp::Reverse;

    use iroh::SecretKey;

    use super::*;

    fn peer(seed: u8) -> EndpointId {
        SecretKey::from_bytes(&[seed; 32]).public()
    }

    #[test]
    fn refuses_the_third_of_a_peer_and_takes_it_once_one_is_given_back() {
        let slots = Slots::new(2, 64);
        let first = slots.try_take(peer(1), Standing::Stranger).expect("first");
        let _second = slots.try_take(peer(1), Standing::Stranger).expect("second");
        assert!(slots.try_take(peer(1), Standing::Stranger).is_none());
        assert!(slots.try_take(peer(2), Standing::Stranger).is_some());
        drop(first);
        assert!(slots.try_take(peer(1), Standing::Stranger).is_some());
    }

    #[tokio::test]
    async fn a_place_given_back_in_time_goes_to_who_waits() {
        let slots = Slots::new(1, 64);
        let only = slots.try_take(peer(1), Standing::Stranger).expect("free");
        let waiting = slots.take_within(peer(1), Standing::Stranger, Duration::MAX);
        let (taken, ()) = tokio::join!(waiting, async { drop(only) });
        assert!(taken.is_some());
        assert!(
            slots
                .take_within(peer(1), Standing::Stranger, Duration::ZERO)
                .await
                .is_none()
        );
    }

    #[test]
    fn refuses_everybody_at_the_total() {
        let slots = Slots::new(2, 1);
        let _only = slots.try_take(peer(1), Standing::Stranger).expect("only");
        assert!(slots.try_take(peer(2), Standing::Stranger).is_none());
    }

    #[tokio::test]
    async fn strangers_give_way_to_whoever_is_known_the_one_who_is_at_it_for_longest_first() {
        let slots = Slots::new(1, 2);
        let start = Instant::now();
        let first = slots.try_take(peer(1), Standing::Stranger).expect("free");
        let second = slots.try_take(peer(2), Standing::Stranger).expect("free");
        assert!(slots.try_take(peer(3), Standing::Stranger).is_none());
        let known = |ago| Standing::Known(Reverse(start - Duration::from_secs(ago)));
        let third = slots.try_take(peer(3), known(5)).expect("in its place");
        first.lost().await;
        drop(first);
        assert!(slots.try_take(peer(1), Standing::Stranger).is_none());
        let fourth = slots.try_take(peer(4), known(5)).expect("in its place");
        second.lost().await;
        // Of those who are known nobody is disturbed at once, and the elder never by the younger.
        let take = |standing, after| {
            let now = Instant::now() + Duration::from_secs(after);
            slots.try_take_at(peer(5), standing, now)
        };
        assert!(take(known(9), 5).is_none());
        assert!(take(Standing::Named, 5).is_none());
        assert!(take(known(1), 15).is_none());
        let elder = take(known(9), 15).expect("in its place");
        third.lost().await;
        drop((second, third, fourth, elder));
        assert!(lock(&slots.taken).held.is_empty());
        assert!(lock(&slots.taken).by_peer.is_empty());
    }

    #[tokio::test]
    async fn whoever_becomes_known_in_its_place_keeps_it_and_gives_way_once_it_broke_a_rule() {
        let slots = Slots::new(1, 2);
        let first = slots.try_take(peer(1), Standing::Stranger).expect("free");
        let second = slots.try_take(peer(2), Standing::Stranger).expect("free");
        slots.set_standing(peer(1), Standing::Known(Reverse(Instant::now())));
        let third = slots.try_take(peer(3), Standing::Named).expect("a place");
        second.lost().await;
        assert!(slots.try_take(peer(4), Standing::Named).is_none());
        let waiting = slots.take_within(peer(4), Standing::Named, Duration::MAX);
        let breaks_a_rule = async { slots.set_standing(peer(1), Standing::Stranger) };
        let (fourth, ()) = tokio::join!(waiting, breaks_a_rule);
        first.lost().await;
        drop((third, fourth));
    }

    #[test]
    fn a_queue_is_shared_while_it_is_used_and_forgotten_after() {
        let keyed = Keyed::new(1);
        let place = keyed.queue(1).try_acquire_owned().expect("free");
        assert!(keyed.queue(1).try_acquire_owned().is_err());
        assert!(keyed.queue(2).try_acquire_owned().is_ok());
        drop(place);
        assert!(keyed.queue(1).try_acquire_owned().is_ok());
        assert_eq!(lock(&keyed.queues).len(), 1);
    }
}
