//! Who a peer is to this node before it has said anything: where not all find a place, those it knows
//! come first.
//!
//! ```text
//! stranger  <  known: finished a sync, the longer ago the first one was the higher  <  named by the policy
//! ```
//!
//! An identity costs nothing, so no number of new ones may shut out whom the node already deals
//! with. Under [`Open`](crate::Open) everybody may become known; but never as long as whoever was
//! known before.
//!
//! Invariant: the tables are bounded, and who comes later displaces nobody from them.

use std::{
    cmp::Reverse,
    collections::HashMap,
    net::IpAddr,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use iroh::{EndpointId, TransportAddr, endpoint::Connection};
use n0_future::time::Instant;

use crate::{conduct::Bucket, limits::Limits};

/// How long a peer is known after its last sync.
const KNOWN_FOR: Duration = Duration::from_hours(24);

/// Handshakes from the address of somebody known that are let through at once, and each second: a
/// household's or an office's. More count as those of strangers.
const AT_ONE_ADDRESS: (u32, u32) = (64, 8);

/// Who a peer is. The higher comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Standing {
    /// Nobody this node has dealt with.
    Stranger,
    /// A sync with it ended in order, the first one then.
    Known(Reverse<Instant>),
    /// The policy names it.
    Named,
}

/// Peers that finished a sync, and where they were.
#[derive(Debug)]
pub(crate) struct Acquaintances {
    most: usize,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    peers: HashMap<EndpointId, Acquaintance>,
    addresses: HashMap<IpAddr, Bucket>,
}

#[derive(Debug, Clone, Copy)]
struct Acquaintance {
    since: Instant,
    last: Instant,
}

impl Acquaintances {
    pub(crate) fn new(limits: &Limits) -> Self {
        Self {
            most: limits.acquaintances,
            known: Mutex::default(),
        }
    }

    /// How a peer stands that the policy does not name.
    pub(crate) fn standing(&self, peer: EndpointId) -> Standing {
        self.standing_at(peer, Instant::now())
    }

    /// Notes that a sync with a peer ended in order.
    pub(crate) fn note_sync(&self, peer: EndpointId) {
        self.note_sync_at(peer, Instant::now());
    }

    /// Notes where somebody known, or named, is.
    pub(crate) fn note_address(&self, connection: &Connection) {
        let paths = connection.paths();
        let address = paths.iter().find_map(|path| match path.remote_addr() {
            TransportAddr::Ip(address) if path.is_selected() => Some(address.ip()),
            _ => None,
        });
        if let Some(address) = address {
            self.note_address_at(address.to_canonical(), Instant::now());
        }
    }

    /// A peer that broke a rule is a stranger again.
    pub(crate) fn forget(&self, peer: EndpointId) {
        lock(&self.known).peers.remove(&peer);
    }

    /// Takes the right to a handshake at an address somebody known was at; false if nobody was, or
    /// too many were made there.
    pub(crate) fn take_handshake(&self, address: IpAddr) -> bool {
        let mut known = lock(&self.known);
        let bucket = known.addresses.get_mut(&address.to_canonical());
        bucket.is_some_and(|bucket| bucket.take(1, Instant::now()).is_ok())
    }

    /// Whether somebody known was at an address.
    pub(crate) fn knows(&self, address: IpAddr) -> bool {
        let known = lock(&self.known);
        known.addresses.contains_key(&address.to_canonical())
    }

    fn standing_at(&self, peer: EndpointId, now: Instant) -> Standing {
        match lock(&self.known).peers.get(&peer) {
            Some(known) if known.is_fresh(now) => Standing::Known(Reverse(known.since)),
            _ => Standing::Stranger,
        }
    }

    fn note_sync_at(&self, peer: EndpointId, now: Instant) {
        let peers = &mut lock(&self.known).peers;
        if let Some(known) = peers.get_mut(&peer)
            && known.is_fresh(now)
        {
            known.last = now;
            return;
        }
        if peers.len() >= self.most {
            peers.retain(|_, known| known.is_fresh(now));
        }
        if peers.len() < self.most {
            let (since, last) = (now, now);
            peers.insert(peer, Acquaintance { since, last });
        }
    }

    fn note_address_at(&self, address: IpAddr, now: Instant) {
        let addresses = &mut lock(&self.known).addresses;
        if addresses.len() >= self.most {
            addresses.retain(|_, bucket| bucket.idle_at(now) < KNOWN_FOR);
        }
        if let Some(bucket) = addresses.get_mut(&address) {
            bucket.touch(now);
        } else if addresses.len() < self.most {
            let (burst, rate) = AT_ONE_ADDRESS;
            addresses.insert(address, Bucket::new(burst, rate, now));
        }
    }
}

impl Acquaintance {
    fn is_fresh(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.last) < KNOWN_FOR
    }
}

/// A panic elsewhere leaves the tables whole: each change is a single step.
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

    fn acquaintances(most: usize) -> (Acquaintances, Instant) {
        let limits = Limits {
            acquaintances: most,
            ..Limits::default()
        };
        (Acquaintances::new(&limits), Instant::now())
    }

    const HOUR: Duration = Duration::from_hours(1);

    #[test]
    fn whoever_is_known_for_longer_stands_higher_and_the_policys_word_highest() {
        let (known, start) = acquaintances(10);
        known.note_sync_at(peer(1), start);
        known.note_sync_at(peer(2), start + HOUR);
        known.note_sync_at(peer(1), start + 2 * HOUR);
        let at = |peer| known.standing_at(peer, start + 2 * HOUR);
        assert_eq!(at(peer(3)), Standing::Stranger);
        assert!(at(peer(2)) > at(peer(3)));
        assert!(at(peer(1)) > at(peer(2)));
        assert!(Standing::Named > at(peer(1)));
    }

    #[test]
    fn who_was_not_seen_for_a_day_or_broke_a_rule_is_a_stranger() {
        let (known, start) = acquaintances(10);
        known.note_sync_at(peer(1), start);
        known.note_sync_at(peer(2), start);
        known.forget(peer(2));
        let is_stranger = |peer, now| known.standing_at(peer, now) == Standing::Stranger;
        assert!(!is_stranger(peer(1), start + 23 * HOUR));
        assert!(is_stranger(peer(2), start));
        assert!(is_stranger(peer(1), start + 24 * HOUR));
    }

    #[test]
    fn a_crowd_that_syncs_displaces_nobody_who_was_known_before() {
        let (known, start) = acquaintances(3);
        for seed in 1..100 {
            known.note_sync_at(peer(seed), start);
            known.note_address_at(IpAddr::from([127, 0, 0, seed]), start);
        }
        assert_eq!(lock(&known.known).peers.len(), 3);
        assert_eq!(lock(&known.known).addresses.len(), 3);
        assert!(known.standing_at(peer(1), start) > Standing::Stranger);
        // Until those are forgotten.
        let later = start + 24 * HOUR;
        known.note_sync_at(peer(100), later);
        assert!(known.standing_at(peer(100), later) > Standing::Stranger);
    }

    #[test]
    fn an_address_lets_through_no_more_than_a_few_people_need() {
        let (known, start) = acquaintances(3);
        let address = IpAddr::from([127, 0, 0, 1]);
        assert!(!known.take_handshake(address));
        known.note_address_at(address, start);
        let taken = (0..1_000).filter(|_| known.take_handshake(address));
        assert!((64..100).contains(&taken.count()));
    }
}
