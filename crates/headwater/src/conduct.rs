//! How peers behave: what they may still ask for, and who is kept out for a while.
//!
//! ```text
//! broken rules ──▶ 3 in 10 min ──▶ banned for 10 min: no connection, no stream, no pull
//! requests     ──▶ bucket of cost ──▶ served, or "busy, come back in …"
//! ```
//!
//! Invariant: the table is bounded. A peer that falls out of it is a stranger again; who is banned
//! falls out last. An identity costs nothing, so this bounds each of them and not their number:
//! that is what the limits on all peers together are for.

use std::{
    collections::{HashMap, VecDeque, hash_map::Entry},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use iroh::EndpointId;
use n0_future::time::Instant;

use crate::limits::Limits;

/// What a request costs, before anything is read for it.
pub(crate) const REQUEST: u32 = 1;

/// Bytes sent to a peer that cost as much as a request.
pub(crate) const BYTES: u64 = 64 * 1024;

/// Events of a log that cost as much as a request if a peer asks whether they are the same here: they
/// may lie in as many runs.
pub(crate) const COMPARED: u64 = 16;

/// What it costs to ask for a space that is not here, or not for the one who asks: whoever looks
/// for spaces asks often.
pub(crate) const REFUSAL: u32 = 64;

/// What a connection costs: a handshake is a millisecond of both sides.
pub(crate) const CONNECTION: u32 = 16;

/// How far below nothing a bucket goes, in seconds of refilling: what a peer has to wait at most
/// for what it was served before.
const DEBT_SECONDS: u32 = 4;

/// What is known of peers.
#[derive(Debug)]
pub(crate) struct Conduct {
    faults_before_ban: usize,
    fault_window: Duration,
    ban: Duration,
    burst: f64,
    rate: f64,
    most: usize,
    peers: Mutex<HashMap<EndpointId, Record>>,
}

#[derive(Debug)]
struct Record {
    /// When it broke a rule, as long as that counts.
    faults: VecDeque<Instant>,
    banned_until: Option<Instant>,
    /// What it may still ask for; below zero, what it was served on credit.
    tokens: f64,
    seen: Instant,
}

impl Conduct {
    pub(crate) fn new(limits: &Limits) -> Self {
        Self {
            faults_before_ban: limits.faults_before_ban.max(1),
            fault_window: limits.fault_window,
            ban: limits.ban,
            burst: f64::from(limits.request_burst.max(REFUSAL)),
            rate: f64::from(limits.request_rate.max(1)),
            most: limits.known_peers.max(1),
            peers: Mutex::default(),
        }
    }

    /// How much longer a peer is banned; `None` if it is not.
    pub(crate) fn banned(&self, peer: EndpointId) -> Option<Duration> {
        self.banned_at(peer, Instant::now())
    }

    /// Notes that a peer broke a rule, and says whether it is banned now.
    pub(crate) fn note_fault(&self, peer: EndpointId) -> bool {
        self.fault_at(peer, Instant::now())
    }

    /// Takes what something costs.
    ///
    /// # Errors
    ///
    /// If the peer has not that much left: when it will have.
    pub(crate) fn take(&self, peer: EndpointId, cost: u32) -> Result<(), Duration> {
        self.take_at(peer, cost, Instant::now())
    }

    /// Takes what something has cost, on credit if need be.
    pub(crate) fn charge(&self, peer: EndpointId, cost: u64) {
        self.charge_at(peer, cost, Instant::now());
    }

    fn banned_at(&self, peer: EndpointId, now: Instant) -> Option<Duration> {
        let peers = lock(&self.peers);
        let until = peers.get(&peer)?.banned_until?;
        let left = until.saturating_duration_since(now);
        (!left.is_zero()).then_some(left)
    }

    fn fault_at(&self, peer: EndpointId, now: Instant) -> bool {
        self.with(peer, now, |record| {
            let counts_since = now.checked_sub(self.fault_window);
            while record
                .faults
                .pop_front_if(|fault| counts_since.is_some_and(|since| *fault < since))
                .is_some()
            {}
            record.faults.push_back(now);
            if record.faults.len() < self.faults_before_ban {
                return false;
            }
            record.faults.clear();
            record.banned_until = now.checked_add(self.ban);
            true
        })
    }

    fn take_at(&self, peer: EndpointId, cost: u32, now: Instant) -> Result<(), Duration> {
        let cost = f64::from(cost);
        self.with(peer, now, |record| {
            if record.tokens >= cost {
                record.tokens -= cost;
                return Ok(());
            }
            Err(Duration::from_secs_f64((cost - record.tokens) / self.rate))
        })
    }

    fn charge_at(&self, peer: EndpointId, cost: u64, now: Instant) {
        let deepest = -self.rate * f64::from(DEBT_SECONDS);
        self.with(peer, now, |record| {
            record.tokens = (record.tokens - cost as f64).max(deepest);
        });
    }

    /// Does something with what is known of a peer, brought up to now.
    fn with<T>(&self, peer: EndpointId, now: Instant, act: impl FnOnce(&mut Record) -> T) -> T {
        let mut peers = lock(&self.peers);
        if peers.len() >= self.most && !peers.contains_key(&peer) {
            self.make_room(&mut peers, now);
        }
        let record = match peers.entry(peer) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => new.insert(Record {
                faults: VecDeque::new(),
                banned_until: None,
                tokens: self.burst,
                seen: now,
            }),
        };
        self.refill(record, now);
        act(record)
    }

    fn refill(&self, record: &mut Record, now: Instant) {
        let since = now.saturating_duration_since(record.seen);
        record.tokens = (record.tokens + since.as_secs_f64() * self.rate).min(self.burst);
        record.seen = now;
    }

    /// Forgets whoever owes nothing, or else the one that was silent for longest.
    fn make_room(&self, peers: &mut HashMap<EndpointId, Record>, now: Instant) {
        let counts_since = now.checked_sub(self.fault_window);
        peers.retain(|_, record| {
            self.refill_without_notice(record, now) < self.burst
                || record.banned_until.is_some_and(|until| until > now)
                || record
                    .faults
                    .iter()
                    .any(|fault| counts_since.is_none_or(|since| *fault >= since))
        });
        if peers.len() < self.most {
            return;
        }
        let longest = peers
            .iter()
            .min_by_key(|(_, record)| {
                let is_banned = record.banned_until.is_some_and(|until| until > now);
                (is_banned, record.seen)
            })
            .map(|(peer, _)| *peer);
        if let Some(peer) = longest {
            peers.remove(&peer);
        }
    }

    fn refill_without_notice(&self, record: &Record, now: Instant) -> f64 {
        let since = now.saturating_duration_since(record.seen);
        record.tokens + since.as_secs_f64() * self.rate
    }
}

/// A panic elsewhere leaves the map whole: each change is a single step.
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

    fn conduct(change: impl FnOnce(&mut Limits)) -> (Conduct, Instant) {
        let mut limits = Limits {
            request_burst: 100,
            request_rate: 10,
            ..Limits::default()
        };
        change(&mut limits);
        (Conduct::new(&limits), Instant::now())
    }

    const MINUTE: Duration = Duration::from_mins(1);

    #[test]
    fn three_faults_in_ten_minutes_ban_for_ten_minutes_and_only_the_one_who_made_them() {
        let (conduct, start) = conduct(|_| ());
        assert!(!conduct.fault_at(peer(1), start));
        assert!(!conduct.fault_at(peer(2), start));
        assert!(!conduct.fault_at(peer(1), start + MINUTE));
        assert_eq!(conduct.banned_at(peer(1), start + MINUTE), None);
        let third = start + 9 * MINUTE;
        assert!(conduct.fault_at(peer(1), third));
        assert_eq!(conduct.banned_at(peer(1), third), Some(10 * MINUTE));
        assert_eq!(conduct.banned_at(peer(2), third), None);
        let over = third + 10 * MINUTE;
        assert_eq!(conduct.banned_at(peer(1), over), None);
        assert!(!conduct.fault_at(peer(1), over));
    }

    #[test]
    fn faults_far_apart_ban_nobody() {
        let (conduct, start) = conduct(|_| ());
        for at in 0..20 {
            assert!(!conduct.fault_at(peer(1), start + at * 6 * MINUTE));
        }
    }

    #[test]
    fn a_burst_is_served_and_then_the_rate() {
        let (conduct, start) = conduct(|_| ());
        for _ in 0..100 {
            assert_eq!(conduct.take_at(peer(1), 1, start), Ok(()));
        }
        let wait = Duration::from_millis(100);
        assert_eq!(conduct.take_at(peer(1), 1, start), Err(wait));
        assert_eq!(conduct.take_at(peer(2), 1, start), Ok(()));
        assert_eq!(conduct.take_at(peer(1), 1, start + wait), Ok(()));
    }

    #[test]
    fn what_was_served_is_charged_and_the_debt_is_bounded() {
        let (conduct, start) = conduct(|_| ());
        conduct.charge_at(peer(1), u64::MAX, start);
        let wait = conduct.take_at(peer(1), 1, start).expect_err("in debt");
        assert_eq!(wait.as_millis(), 4_100);
    }

    #[test]
    fn the_table_is_bounded_and_forgets_who_is_banned_last() {
        let (conduct, start) = conduct(|limits| limits.known_peers = 3);
        for _ in 0..3 {
            conduct.fault_at(peer(1), start);
        }
        for other in 2..50 {
            let now = start + Duration::from_millis(other.into());
            conduct.charge_at(peer(other), 50, now);
            assert!(lock(&conduct.peers).len() <= 3);
        }
        assert!(conduct.banned_at(peer(1), start + MINUTE).is_some());
    }
}
