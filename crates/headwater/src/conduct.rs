//! How peers behave: what they may still ask for, and who is kept out for a while.
//!
//! ```text
//! broken rules ──▶ 3 in 10 min ──▶ banned for 10 min: no connection, no stream, no pull
//! requests     ──▶ bucket of cost ──▶ served, or "busy, come back in …"
//! handshakes and clocks ──▶ one bucket for all strangers, one for all who are known
//! clocks too long ──▶ "busy" for 2 s, 4 s, 8 s, …
//! ```
//!
//! Invariant: the table is bounded. A peer that falls out of it is a stranger again; who is banned
//! falls out last. An identity costs nothing, so the table bounds each of them and not their number:
//! that is what the buckets they share are for, and the limits on all peers together.

use std::{
    collections::{HashMap, VecDeque, hash_map::Entry},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use iroh::EndpointId;
use n0_future::time::Instant;

use crate::{limits::Limits, standing::Standing};

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

/// Heads of a clock that cost as much as a request: each is decoded, hashed twice and looked for.
pub(crate) const HEADS: usize = 64;

/// How much more than strangers all those may have together who finished a sync lately.
const KNOWN_SHARE: u32 = 4;

/// How far below nothing a bucket goes, in seconds of refilling: what a peer has to wait at most
/// for what it was served before.
const DEBT_SECONDS: u32 = 4;

/// What is known of peers.
#[derive(Debug)]
pub(crate) struct Conduct {
    faults_before_ban: usize,
    fault_window: Duration,
    ban: Duration,
    oversized_wait: Duration,
    burst: u32,
    rate: u32,
    most: usize,
    peers: Mutex<HashMap<EndpointId, Record>>,
    /// What strangers share, and what those share who are known.
    shared: Mutex<[Bucket; 2]>,
}

#[derive(Debug)]
struct Record {
    /// When it broke a rule, as long as that counts.
    faults: VecDeque<Instant>,
    banned_until: Option<Instant>,
    /// Clocks of too many authors since a sync ended in order.
    oversized: u32,
    held_until: Option<Instant>,
    /// What it may still ask for.
    bucket: Bucket,
}

/// So much at once, and so much a second.
#[derive(Debug, Clone)]
pub(crate) struct Bucket {
    burst: f64,
    rate: f64,
    /// Below zero: what was taken on credit.
    tokens: f64,
    seen: Instant,
}

impl Bucket {
    pub(crate) fn new(burst: u32, rate: u32, now: Instant) -> Self {
        Self {
            burst: burst.into(),
            rate: rate.max(1).into(),
            tokens: burst.into(),
            seen: now,
        }
    }

    /// Takes so much, or tells when there will be as much.
    pub(crate) fn take(&mut self, cost: u32, now: Instant) -> Result<(), Duration> {
        self.touch(now);
        // More than it ever holds is had when it is full.
        let cost = f64::from(cost).min(self.burst);
        if self.tokens >= cost {
            self.tokens -= cost;
            return Ok(());
        }
        Err(Duration::from_secs_f64((cost - self.tokens) / self.rate))
    }

    /// Takes so much on credit.
    fn charge(&mut self, cost: u64, now: Instant) {
        self.touch(now);
        let deepest = -self.rate * f64::from(DEBT_SECONDS);
        self.tokens = (self.tokens - cost as f64).max(deepest);
    }

    /// Brings it up to now.
    pub(crate) fn touch(&mut self, now: Instant) {
        self.tokens = self.level(now).min(self.burst);
        self.seen = now;
    }

    /// For how long nothing was taken.
    pub(crate) fn idle_at(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.seen)
    }

    /// Whether less than half of it is left.
    pub(crate) fn is_low(&self, now: Instant) -> bool {
        self.level(now) < self.burst / 2.0
    }

    fn level(&self, now: Instant) -> f64 {
        self.tokens + self.idle_at(now).as_secs_f64() * self.rate
    }
}

impl Conduct {
    pub(crate) fn new(limits: &Limits) -> Self {
        let (burst, rate) = (limits.strangers_burst, limits.strangers_rate);
        let now = Instant::now();
        Self {
            faults_before_ban: limits.faults_before_ban.max(1),
            fault_window: limits.fault_window,
            ban: limits.ban,
            oversized_wait: limits.oversized_wait,
            burst: limits.request_burst.max(REFUSAL),
            rate: limits.request_rate.max(1),
            most: limits.known_peers.max(1),
            peers: Mutex::default(),
            shared: Mutex::new([1, KNOWN_SHARE].map(|share| {
                let (burst, rate) = (burst.saturating_mul(share), rate.saturating_mul(share));
                Bucket::new(burst, rate, now)
            })),
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

    /// Takes what something costs from what all peers of this standing have together.
    ///
    /// # Errors
    ///
    /// If there is not so much left: when there will be.
    pub(crate) fn take_shared(&self, standing: Standing, cost: u32) -> Result<(), Duration> {
        self.take_shared_at(standing, cost, Instant::now())
    }

    /// Notes that a peer's clock was too long, and says for how long the peer is not served.
    pub(crate) fn note_oversized(&self, peer: EndpointId) -> Duration {
        self.oversized_at(peer, Instant::now())
    }

    /// How much longer a peer is not served after its last clock that was too long; `None` if it is.
    pub(crate) fn held(&self, peer: EndpointId) -> Option<Duration> {
        self.held_at(peer, Instant::now())
    }

    /// Notes that a sync with a peer ended in order.
    pub(crate) fn note_sync(&self, peer: EndpointId) {
        if let Some(record) = lock(&self.peers).get_mut(&peer) {
            record.oversized = 0;
        }
    }

    fn take_shared_at(&self, standing: Standing, cost: u32, now: Instant) -> Result<(), Duration> {
        let [strangers, known] = &mut *lock(&self.shared);
        match standing {
            Standing::Stranger => strangers.take(cost, now),
            Standing::Known(_) => known.take(cost, now),
            Standing::Named => Ok(()),
        }
    }

    fn held_at(&self, peer: EndpointId, now: Instant) -> Option<Duration> {
        let peers = lock(&self.peers);
        let until = peers.get(&peer)?.held_until?;
        let left = until.saturating_duration_since(now);
        (!left.is_zero()).then_some(left)
    }

    fn oversized_at(&self, peer: EndpointId, now: Instant) -> Duration {
        let (shortest, longest) = (self.oversized_wait, self.ban);
        self.with(peer, now, |record| {
            let doubled = 1_u32.checked_shl(record.oversized).unwrap_or(u32::MAX);
            record.oversized = record.oversized.saturating_add(1);
            let wait = shortest.saturating_mul(doubled).min(longest);
            record.held_until = now.checked_add(wait);
            wait
        })
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
        self.with(peer, now, |record| record.bucket.take(cost, now))
    }

    fn charge_at(&self, peer: EndpointId, cost: u64, now: Instant) {
        self.with(peer, now, |record| record.bucket.charge(cost, now));
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
                oversized: 0,
                held_until: None,
                bucket: Bucket::new(self.burst, self.rate, now),
            }),
        };
        record.bucket.touch(now);
        act(record)
    }

    /// Forgets whoever owes nothing, or else the one that was silent for longest.
    fn make_room(&self, peers: &mut HashMap<EndpointId, Record>, now: Instant) {
        let counts_since = now.checked_sub(self.fault_window);
        peers.retain(|_, record| {
            record.bucket.level(now) < record.bucket.burst
                || record.is_kept_out(now)
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
            .min_by_key(|(_, record)| (record.is_kept_out(now), record.bucket.seen))
            .map(|(peer, _)| *peer);
        if let Some(peer) = longest {
            peers.remove(&peer);
        }
    }
}

impl Record {
    fn is_kept_out(&self, now: Instant) -> bool {
        let until = [self.banned_until, self.held_until];
        until.into_iter().flatten().any(|until| until > now)
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
    fn clocks_too_long_are_waited_for_ever_longer_until_a_sync_ends_in_order() {
        let (conduct, start) = conduct(|limits| limits.ban = Duration::from_secs(10));
        let seconds = [2, 4, 8, 10, 10];
        for wait in seconds.map(Duration::from_secs) {
            assert_eq!(conduct.oversized_at(peer(1), start), wait);
            assert_eq!(conduct.held_at(peer(1), start), Some(wait));
            assert_eq!(conduct.held_at(peer(1), start + wait), None);
        }
        assert_eq!(conduct.held_at(peer(2), start), None);
        conduct.note_sync(peer(1));
        let first = Duration::from_secs(2);
        assert_eq!(conduct.oversized_at(peer(1), start), first);
        assert_eq!(conduct.banned_at(peer(1), start), None);
    }

    #[test]
    fn strangers_share_what_whoever_is_known_and_whoever_is_named_do_not_wait_for() {
        let (conduct, start) = conduct(|limits| {
            limits.strangers_burst = 32;
            limits.strangers_rate = 16;
        });
        let take = |standing| conduct.take_shared_at(standing, CONNECTION, start);
        let known = Standing::Known(std::cmp::Reverse(start));
        let taken = |standing| (0..1_000).filter(|_| take(standing).is_ok()).count();
        assert_eq!(taken(Standing::Stranger), 2);
        assert_eq!(take(Standing::Stranger), Err(Duration::from_secs(1)));
        assert_eq!(taken(known), 8);
        assert_eq!(taken(Standing::Named), 1_000);
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
