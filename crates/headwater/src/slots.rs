//! Counted places: who may do how much at the same time.

use std::{
    collections::HashMap,
    hash::Hash,
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use iroh::EndpointId;
use n0_future::time::timeout;
use tokio::sync::{Notify, Semaphore};

/// Places per peer and in all. Whoever finds none in time is refused.
#[derive(Debug)]
pub(crate) struct Slots {
    per_peer: usize,
    total: usize,
    taken: Mutex<Taken>,
    given_back: Notify,
}

#[derive(Debug, Default)]
struct Taken {
    total: usize,
    by_peer: HashMap<EndpointId, usize>,
}

/// A taken place; given back when dropped.
#[derive(Debug)]
pub(crate) struct Slot {
    slots: Arc<Slots>,
    peer: EndpointId,
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
        patience: Duration,
    ) -> Option<Slot> {
        let taking = async {
            loop {
                let mut given_back = pin!(self.given_back.notified());
                // Before looking, so that no place given back in between is missed.
                given_back.as_mut().enable();
                if let Some(slot) = self.try_take(peer) {
                    return slot;
                }
                given_back.await;
            }
        };
        timeout(patience, taking).await.ok()
    }

    /// Takes a place for `peer`, or `None` if the peer or the node has no more.
    pub(crate) fn try_take(self: &Arc<Self>, peer: EndpointId) -> Option<Slot> {
        let mut taken = lock(&self.taken);
        let of_peer = taken.by_peer.get(&peer).copied().unwrap_or_default();
        if of_peer >= self.per_peer || taken.total >= self.total {
            return None;
        }
        taken.by_peer.insert(peer, of_peer + 1);
        taken.total += 1;
        Some(Slot {
            slots: Arc::clone(self),
            peer,
        })
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut taken = lock(&self.slots.taken);
        taken.total = taken.total.saturating_sub(1);
        if let Some(of_peer) = taken.by_peer.get_mut(&self.peer) {
            *of_peer = of_peer.saturating_sub(1);
            if *of_peer == 0 {
                taken.by_peer.remove(&self.peer);
            }
        }
        drop(taken);
        self.slots.given_back.notify_waiters();
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
    use iroh::SecretKey;

    use super::*;

    fn peer(seed: u8) -> EndpointId {
        SecretKey::from_bytes(&[seed; 32]).public()
    }

    #[test]
    fn refuses_the_third_of_a_peer_and_takes_it_once_one_is_given_back() {
        let slots = Slots::new(2, 64);
        let first = slots.try_take(peer(1)).expect("first");
        let _second = slots.try_take(peer(1)).expect("second");
        assert!(slots.try_take(peer(1)).is_none());
        assert!(slots.try_take(peer(2)).is_some());
        drop(first);
        assert!(slots.try_take(peer(1)).is_some());
    }

    #[tokio::test]
    async fn a_place_given_back_in_time_goes_to_who_waits() {
        let slots = Slots::new(1, 64);
        let only = slots.try_take(peer(1)).expect("free");
        let waiting = slots.take_within(peer(1), Duration::MAX);
        let (taken, ()) = tokio::join!(waiting, async { drop(only) });
        assert!(taken.is_some());
        assert!(slots.take_within(peer(1), Duration::ZERO).await.is_none());
    }

    #[test]
    fn refuses_everybody_at_the_total() {
        let slots = Slots::new(2, 1);
        let _only = slots.try_take(peer(1)).expect("only");
        assert!(slots.try_take(peer(2)).is_none());
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
