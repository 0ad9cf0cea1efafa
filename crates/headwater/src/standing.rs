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
//! Invariant: the tables are bounded, and who comes later displaces nobody from them. What one peer
//! puts there goes at the cost of what it put there itself, and goes with it.

use std::{
    cmp::Reverse,
    collections::{HashMap, VecDeque, hash_map::Entry},
    net::{IpAddr, Ipv6Addr},
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

/// The same over relays as one peer that is known: as much, since one that was killed and comes back
/// needs no more.
const OVER_RELAYS: (u32, u32) = AT_ONE_ADDRESS;

/// Addresses of a peer that are remembered: at home, at work, on the road, by IPv4 and by IPv6.
const ADDRESSES_OF_A_PEER: usize = 4;

/// Bits of an IPv6 address that are the host's own choice. A household, or one machine, has all of
/// them: each would otherwise be as many addresses as it likes, and one that changes its address
/// every day, as most do, a stranger.
const HOST_BITS: u32 = 64;

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
    /// Whom the policy names: room of their own, which nobody else can fill.
    named: HashMap<EndpointId, Home>,
    /// Those of all homes.
    networks: HashMap<Network, Site>,
}

#[derive(Debug)]
struct Acquaintance {
    since: Instant,
    last: Instant,
    home: Home,
}

/// Where a peer comes from.
#[derive(Debug)]
struct Home {
    seen: Instant,
    /// The one it was at last comes last.
    networks: VecDeque<Network>,
    /// Handshakes over relays.
    relayed: Bucket,
}

/// An address without [`HOST_BITS`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Network(IpAddr);

/// A network somebody known comes from.
#[derive(Debug)]
struct Site {
    bucket: Bucket,
    seen: Instant,
    /// How many.
    homes: usize,
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

    /// Notes where a peer is, unless it is a stranger.
    pub(crate) fn note_address(&self, connection: &Connection, standing: Standing) {
        let paths = connection.paths();
        let address = paths.iter().find_map(|path| match path.remote_addr() {
            TransportAddr::Ip(address) if path.is_selected() => Some(address.ip()),
            _ => None,
        });
        if let Some(address) = address {
            let peer = connection.remote_id();
            self.note_address_at(peer, standing, address, Instant::now());
        }
    }

    /// A peer that broke a rule is a stranger again.
    pub(crate) fn forget(&self, peer: EndpointId) {
        let known = &mut *lock(&self.known);
        let home = known.peers.remove(&peer).map(|known| known.home);
        for home in home.into_iter().chain(known.named.remove(&peer)) {
            home.leave(&mut known.networks);
        }
    }

    /// Takes the right to a handshake at an address somebody known was at; false if nobody was, or
    /// too many were made there.
    pub(crate) fn take_handshake(&self, address: IpAddr) -> bool {
        let now = Instant::now();
        let mut known = lock(&self.known);
        let site = known.networks.get_mut(&Network::of(address));
        site.is_some_and(|site| is_fresh(site.seen, now) && site.bucket.take(1, now).is_ok())
    }

    /// Takes the right to a handshake over a relay; false if the peer is a stranger, or has made too
    /// many.
    pub(crate) fn take_relayed(&self, peer: EndpointId, standing: Standing) -> bool {
        let now = Instant::now();
        let known = &mut *lock(&self.known);
        let home = known.home(peer, standing, self.most, now);
        home.is_some_and(|(home, _)| home.relayed.take(1, now).is_ok())
    }

    /// Whether somebody known was at an address.
    pub(crate) fn knows(&self, address: IpAddr) -> bool {
        let known = lock(&self.known);
        let site = known.networks.get(&Network::of(address));
        site.is_some_and(|site| is_fresh(site.seen, Instant::now()))
    }

    fn standing_at(&self, peer: EndpointId, now: Instant) -> Standing {
        match lock(&self.known).peers.get(&peer) {
            Some(known) if known.is_fresh(now) => Standing::Known(Reverse(known.since)),
            _ => Standing::Stranger,
        }
    }

    fn note_sync_at(&self, peer: EndpointId, now: Instant) {
        let known = &mut *lock(&self.known);
        if let Some(known) = known.peers.get_mut(&peer) {
            if !known.is_fresh(now) {
                known.since = now;
            }
            known.last = now;
            return;
        }
        if known.peers.len() >= self.most {
            let gone = known.peers.extract_if(|_, known| !known.is_fresh(now));
            for (_, gone) in gone {
                gone.home.leave(&mut known.networks);
            }
        }
        if known.peers.len() < self.most {
            let (since, last, home) = (now, now, Home::new(now));
            known.peers.insert(peer, Acquaintance { since, last, home });
        }
    }

    fn note_address_at(&self, peer: EndpointId, standing: Standing, address: IpAddr, now: Instant) {
        let known = &mut *lock(&self.known);
        if let Some((home, networks)) = known.home(peer, standing, self.most, now) {
            home.come_from(Network::of(address), networks, now);
        }
    }
}

impl Known {
    /// Where a peer comes from, and where all do; `None` of strangers and where there is no room.
    fn home(
        &mut self,
        peer: EndpointId,
        standing: Standing,
        most: usize,
        now: Instant,
    ) -> Option<(&mut Home, &mut HashMap<Network, Site>)> {
        let home = match standing {
            Standing::Stranger => return None,
            Standing::Known(_) => &mut self.peers.get_mut(&peer)?.home,
            Standing::Named => {
                if self.named.len() >= most && !self.named.contains_key(&peer) {
                    let gone = self.named.extract_if(|_, home| !is_fresh(home.seen, now));
                    for (_, gone) in gone {
                        gone.leave(&mut self.networks);
                    }
                    if self.named.len() >= most {
                        return None;
                    }
                }
                self.named.entry(peer).or_insert_with(|| Home::new(now))
            }
        };
        home.seen = now;
        Some((home, &mut self.networks))
    }
}

impl Acquaintance {
    fn is_fresh(&self, now: Instant) -> bool {
        is_fresh(self.last, now)
    }
}

impl Home {
    fn new(now: Instant) -> Self {
        let (burst, rate) = OVER_RELAYS;
        Self {
            seen: now,
            networks: VecDeque::new(),
            relayed: Bucket::new(burst, rate, now),
        }
    }

    /// One network more takes the place of the one the peer was at longest ago, and has what is left
    /// of its handshakes: who moves around gets no more of them.
    fn come_from(&mut self, network: Network, networks: &mut HashMap<Network, Site>, now: Instant) {
        let known = self.networks.iter().position(|known| *known == network);
        let (mut bucket, mut homes) = (None, 1);
        if let Some(position) = known {
            self.networks.remove(position);
            homes = 0;
        } else if self.networks.len() >= ADDRESSES_OF_A_PEER
            && let Some(oldest) = self.networks.pop_front()
        {
            bucket = networks.get(&oldest).map(|site| site.bucket.clone());
            oldest.leave(networks);
        }
        self.networks.push_back(network);
        let site = networks.entry(network).or_insert_with(|| Site {
            bucket: bucket.unwrap_or_else(|| {
                let (burst, rate) = AT_ONE_ADDRESS;
                Bucket::new(burst, rate, now)
            }),
            seen: now,
            homes: 0,
        });
        site.homes += homes;
        site.seen = now;
    }

    fn leave(self, networks: &mut HashMap<Network, Site>) {
        for network in self.networks {
            network.leave(networks);
        }
    }
}

impl Network {
    fn of(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            IpAddr::V6(address) => {
                let network = address.to_bits() >> HOST_BITS << HOST_BITS;
                Ipv6Addr::from_bits(network).into()
            }
            address @ IpAddr::V4(_) => address,
        })
    }

    /// One who came from there does no more.
    fn leave(self, networks: &mut HashMap<Self, Site>) {
        if let Entry::Occupied(mut site) = networks.entry(self) {
            site.get_mut().homes -= 1;
            if site.get().homes == 0 {
                site.remove();
            }
        }
    }
}

fn is_fresh(last: Instant, now: Instant) -> bool {
    now.saturating_duration_since(last) < KNOWN_FOR
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

    fn came_from(
        known: &Acquaintances,
        peer: EndpointId,
        address: impl Into<IpAddr>,
        now: Instant,
    ) {
        let standing = known.standing_at(peer, now);
        known.note_address_at(peer, standing, address.into(), now);
    }

    #[test]
    fn a_crowd_that_syncs_displaces_nobody_who_was_known_before() {
        let (known, start) = acquaintances(3);
        for seed in 1..100 {
            known.note_sync_at(peer(seed), start);
            came_from(&known, peer(seed), [127, 0, 0, seed], start);
        }
        assert_eq!(lock(&known.known).peers.len(), 3);
        assert_eq!(lock(&known.known).networks.len(), 3);
        assert!(known.standing_at(peer(1), start) > Standing::Stranger);
        // Until those are forgotten, and where they were.
        let later = start + 24 * HOUR;
        known.note_sync_at(peer(100), later);
        assert!(known.standing_at(peer(100), later) > Standing::Stranger);
        assert!(lock(&known.known).networks.is_empty());
    }

    #[test]
    fn a_peer_at_a_thousand_addresses_leaves_room_for_where_others_are() {
        let (known, start) = acquaintances(3);
        known.note_sync_at(peer(1), start);
        for number in 0..1_000_u16 {
            let address = [10, 0, number.to_be_bytes()[0], number.to_be_bytes()[1]];
            came_from(&known, peer(1), address, start);
            let network = Ipv6Addr::new(0x2001, 0xdb8, 0, number, 0, 0, 0, 1);
            came_from(&known, peer(1), network, start);
        }
        assert_eq!(lock(&known.known).networks.len(), ADDRESSES_OF_A_PEER);
        assert!(known.knows([10, 0, 3, 231].into()) && known.knows([10, 0, 3, 230].into()));
        assert!(!known.knows([10, 0, 3, 229].into()));
        known.note_sync_at(peer(2), start);
        came_from(&known, peer(2), [10, 1, 0, 1], start);
        assert!(known.knows([10, 1, 0, 1].into()));
        known.forget(peer(1));
        assert_eq!(lock(&known.known).networks.len(), 1);
    }

    #[test]
    fn whom_the_policy_names_is_remembered_where_the_known_have_filled_every_place() {
        let (known, start) = acquaintances(2);
        for seed in 1..3 {
            known.note_sync_at(peer(seed), start);
            came_from(&known, peer(seed), [127, 0, 0, seed], start);
        }
        let address = IpAddr::from([127, 0, 0, 9]);
        known.note_address_at(peer(9), Standing::Stranger, address, start);
        assert!(!known.knows(address));
        known.note_address_at(peer(9), Standing::Named, address, start);
        assert!(known.take_handshake(address));
        known.forget(peer(9));
        assert!(!known.knows(address));
    }

    #[test]
    fn an_address_two_peers_share_is_known_until_both_are_gone() {
        let (known, start) = acquaintances(3);
        let address = IpAddr::from([127, 0, 0, 1]);
        for seed in 1..3 {
            known.note_sync_at(peer(seed), start);
            for _ in 0..3 {
                came_from(&known, peer(seed), address, start);
            }
        }
        known.forget(peer(1));
        assert!(known.knows(address));
        known.forget(peer(2));
        assert!(!known.knows(address));
    }

    #[test]
    fn all_of_an_ipv6_network_is_one_address() {
        let (known, start) = acquaintances(3);
        known.note_sync_at(peer(1), start);
        let at = |network, host| Ipv6Addr::new(0x2001, 0xdb8, 0, network, 0, 0, 0, host);
        came_from(&known, peer(1), at(1, 1), start);
        assert!(known.knows(at(1, 2).into()));
        assert!(!known.knows(at(2, 1).into()));
        let taken = (0..1_000).filter(|host| known.take_handshake(at(1, *host).into()));
        assert!((64..100).contains(&taken.count()));
    }

    #[test]
    fn an_address_lets_through_no_more_than_a_few_people_need() {
        let (known, start) = acquaintances(3);
        let address = IpAddr::from([127, 0, 0, 1]);
        assert!(!known.take_handshake(address));
        known.note_address_at(peer(1), Standing::Named, address, start);
        let taken = (0..1_000).filter(|_| known.take_handshake(address));
        assert!((64..100).contains(&taken.count()));
    }

    #[test]
    fn a_peer_that_moves_around_gets_no_more_handshakes_than_four_addresses_let_through() {
        let (known, start) = acquaintances(3);
        let mut taken = 0;
        for host in 0..100 {
            let address = IpAddr::from([127, 0, 0, host]);
            known.note_address_at(peer(1), Standing::Named, address, start);
            taken += (0..100).filter(|_| known.take_handshake(address)).count();
        }
        assert!((4 * 64..4 * 100).contains(&taken));
    }

    #[test]
    fn over_relays_somebody_known_gets_as_much_as_at_an_address_and_a_stranger_nothing() {
        let (known, start) = acquaintances(3);
        known.note_sync_at(peer(1), start);
        let taken = |peer, standing| {
            let taken = (0..1_000).filter(|_| known.take_relayed(peer, standing));
            taken.count()
        };
        let since = known.standing_at(peer(1), start);
        assert!((64..100).contains(&taken(peer(1), since)));
        assert!((64..100).contains(&taken(peer(2), Standing::Named)));
        assert_eq!(taken(peer(3), Standing::Stranger), 0);
    }
}
