//! Who is pulled from, when, and what is learned from how it ended.

use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};

use headwater_wire::HeadsDigest;

use super::{
    Announcer, AnnouncerConfig, AnnouncerOutput, PeerId, PullEnded,
    digests::Standing,
    peers::Difference,
    wants::{Missing, Sought},
};

/// How often a neighbour that relayed an unknown digest is asked for what is behind it. Fewer than
/// for a head: mostly the digest's sender lacks something, and has pulled it since.
const RELAYED_DIGEST_TRIES: u32 = 2;

/// Within how many *Imin* the sender of an unknown digest is asked in the end, by everybody whose
/// neighbours did not help.
const SENDER_WITHIN: u32 = 8;

/// A pull that the driver was asked for.
#[derive(Debug)]
pub(super) struct UnderWay {
    /// The heads it can be expected to bring, and whether the peer had announced them itself.
    expected: Vec<(Sought, u64, bool)>,
    began: Duration,
    /// When it last moved; when it began, if it did not.
    moved: Duration,
    /// When it counts as slow.
    slow_at: Duration,
    /// Nobody waits for it any more.
    slow: bool,
    /// The driver was told to end it.
    given_up: bool,
}

impl UnderWay {
    pub(super) fn moved(&mut self, now: Duration) {
        self.moved = self.moved.max(now);
    }

    /// No more than through `seq` is stored here: it is not judged by what is above.
    pub(super) fn expect_through(&mut self, sought: Sought, seq: u64) {
        self.expected
            .retain(|(expected, at, _)| *expected != sought || *at <= seq);
    }

    fn has_moved(&self) -> bool {
        self.moved > self.began
    }

    /// From when on its place may be given to another, and it is looked at by its last move; later,
    /// whether it moves or not.
    fn may_go_at(&self, config: &AnnouncerConfig) -> Duration {
        let stalled = self.moved.saturating_add(config.slow_pull);
        stalled.min(self.began.saturating_add(config.long_pull))
    }
}

impl Announcer {
    /// Heads that were announced are missing: asks the neighbour that relayed them, or who announced
    /// them.
    pub(super) fn schedule_wanted(
        &mut self,
        from: Option<PeerId>,
        relay: Option<PeerId>,
        now: Duration,
    ) {
        let jitter = self.config.pull_jitter;
        let at = now.saturating_add(self.draws.up_to(jitter));
        // Who rests is asked once it has, if there is nobody else.
        let first = relay.filter(|relay| from.is_none() || !self.rests(*relay, now));
        match (first, from) {
            (Some(relay), _) if self.remember_peer(relay) => {
                let at = at.saturating_add(jitter / 2);
                match from {
                    Some(_) => self.schedule(relay, at),
                    None => self.schedule_for_runs(relay, at),
                }
            }
            (_, Some(from)) if self.remember_peer(from) => self.schedule(from, at),
            _ => {
                let asked = from.into_iter().chain(relay);
                asked.for_each(|peer| self.wants.forget(peer));
            }
        }
    }

    /// A digest was heard that is not ours and never was.
    pub(super) fn note_difference(
        &mut self,
        digest: HeadsDigest,
        sender: PeerId,
        relay: Option<PeerId>,
        now: Duration,
    ) {
        let jitter = self.config.pull_jitter;
        let settled = now.saturating_add(self.config.settle);
        let (asked, wait) = match relay {
            None => (sender, self.draws.up_to(jitter)),
            Some(relay) if self.rests(relay, now) => {
                let spread = self.config.trickle.i_min.saturating_mul(SENDER_WITHIN);
                (sender, self.draws.up_to(spread))
            }
            Some(relay) => (relay, jitter.saturating_add(self.draws.up_to(jitter))),
        };
        if !self.remember_peer(asked) {
            return;
        }
        let Some(peer) = self.peers.get_mut(asked) else {
            return;
        };
        if peer.difference.is_some() || now < peer.compared_until {
            return;
        }
        peer.difference = Some(Difference {
            digest,
            sender,
            judged: false,
            tries: 0,
        });
        self.schedule(asked, settled.saturating_add(wait));
    }

    /// Compares with a peer by a pull, once in *Imin*: with a neighbour at once, with another after
    /// longer, as everybody who heard the same may.
    pub(super) fn compare_soon(&mut self, id: PeerId, now: Duration) {
        if !self.remember_peer(id) {
            return;
        }
        let (jitter, pause) = (self.config.pull_jitter, self.config.trickle.i_min);
        let (soon, late) = (self.draws.up_to(jitter), self.draws.up_to(pause));
        let Some(peer) = self.peers.get_mut(id) else {
            return;
        };
        if now < peer.contradicted_until {
            return;
        }
        let wait = if peer.neighbor { soon } else { late };
        let at = now.saturating_add(wait);
        (peer.settled, peer.standing.contradicts) = (false, true);
        peer.check = Some(peer.check.map_or(at, |check| check.min(at)));
        peer.contradicted_until = at.saturating_add(pause);
    }

    /// What contradicted is settled: only neighbours are still to be compared with.
    pub(super) fn forget_contradictions(&mut self) {
        for (_, peer) in self.peers.iter_mut() {
            peer.standing.proved();
            if !peer.neighbor {
                peer.check = None;
            }
        }
    }

    /// Whether asking the peer now would bring nothing: it failed lately, or answers slowly.
    fn rests(&self, id: PeerId, now: Duration) -> bool {
        let rests_until = self.peers.get(id).map(|peer| peer.rests_until);
        let slow = self.pulls.get(&id).is_some_and(|pull| pull.slow);
        slow || rests_until.is_some_and(|until| until > now)
    }

    /// Pulls under way that are not slow.
    pub(super) fn awaited_pulls(&self) -> usize {
        self.pulls.values().filter(|pull| !pull.slow).count()
    }

    /// When the next pull under way counts as slow.
    pub(super) fn next_slow(&self) -> Option<Duration> {
        let awaited = self.pulls.values().filter(|pull| !pull.slow);
        awaited.map(|pull| pull.slow_at).min()
    }

    /// Ceases to wait for pulls that take too long: what they were to bring is asked of others.
    pub(super) fn pass_over_slow_pulls(&mut self, now: Duration) {
        let mut slow = Vec::new();
        for (id, pull) in &mut self.pulls {
            if !pull.slow && pull.slow_at <= now {
                pull.slow = true;
                slow.push(*id);
            }
        }
        for id in slow {
            self.ask_others(id, now);
            self.wants.shifted = true;
        }
    }

    /// When another pull may begin; `None` until one that is awaited ends, or becomes slow.
    fn place_from(&self) -> Option<Duration> {
        if self.awaited_pulls() >= self.config.pulls_at_once.max(1) {
            return None;
        }
        let held = self.pulls.values().filter(|pull| !pull.given_up);
        if held.clone().count() < self.config.max_pulls() {
            return Some(Duration::ZERO);
        }
        held.map(|pull| pull.may_go_at(&self.config)).min()
    }

    /// Of pulls that hold every place, the one that has to make room: what has not moved for longest,
    /// or else what has gone on for longest.
    fn gives_way(&self, now: Duration) -> Option<PeerId> {
        let held = self.pulls.iter().filter(|(_, pull)| !pull.given_up);
        if held.clone().count() < self.config.max_pulls() {
            return None;
        }
        let may_go = held.filter(|(_, pull)| pull.may_go_at(&self.config) <= now);
        let stalls = |pull: &UnderWay| pull.moved.saturating_add(self.config.slow_pull) <= now;
        let first = may_go.min_by_key(|(_, pull)| match stalls(pull) {
            true => (0, pull.moved),
            false => (1, pull.began),
        });
        first.map(|(id, _)| *id)
    }

    fn give_up(&mut self, id: PeerId) {
        if let Some(pull) = self.pulls.get_mut(&id) {
            (pull.given_up, pull.slow) = (true, true);
            self.counters.pulls_given_up += 1;
            self.outputs.push_back(AnnouncerOutput::GiveUp { peer: id });
        }
    }

    /// A peer has nothing, any more, that we lack.
    pub(super) fn forget_differences(&mut self, sender: PeerId) {
        for (_, peer) in self.peers.iter_mut() {
            peer.difference.take_if(|found| found.sender == sender);
        }
    }

    /// Looks again at digests that had the time to become ours.
    pub(super) fn judge_differences(&mut self, now: Duration) {
        let mut lasting = false;
        let mut reached = Vec::new();
        for (_, peer) in self.peers.iter_mut() {
            let due = peer.due.is_some_and(|due| due <= now);
            let Some(difference) = peer.difference.as_mut().filter(|_| due) else {
                continue;
            };
            if self.digests.standing(&difference.digest) != Standing::Unknown {
                reached.push(difference.sender);
                peer.difference = None;
            } else if !difference.judged {
                difference.judged = true;
                lasting = true;
            }
        }
        // What they had is here by now, on whatever way it came.
        for sender in reached {
            self.settle(sender);
        }
        if lasting {
            self.count_difference(now);
        }
    }

    /// When a pull may begin, unless something changes before.
    pub(super) fn next_pull(&self) -> Option<Duration> {
        let place = self.place_from()?;
        let idle = |(id, _): &(PeerId, _)| !self.pulls.contains_key(id);
        let asked = self.peers.iter().filter(idle);
        let asked = asked.filter_map(|(_, peer)| peer.ready_at()).min();
        let rested = self.catch_up.filter(|_| self.awaited_pulls() == 0);
        let rested = rested.and_then(|at| {
            let neighbors = self.peers.iter().filter(idle);
            let neighbors = neighbors.filter(|(_, peer)| peer.neighbor);
            let first = neighbors.map(|(_, peer)| peer.rests_until).min()?;
            Some(first.max(at))
        });
        let first = [asked, rested].into_iter().flatten().min();
        first.map(|first| first.max(place))
    }

    /// Begins the pulls that are due and have a reason.
    pub(super) fn begin_pulls(&mut self, now: Duration) {
        while self.place_from().is_some_and(|from| from <= now) {
            let Some(id) = self.choose(now) else {
                return;
            };
            if let Some(longest) = self.gives_way(now) {
                self.give_up(longest);
            }
            let mut expected = Vec::new();
            for (sought, provider) in self.wants.of(id) {
                expected.extend(provider.promised.map(|seq| (sought, seq, true)));
                if provider.promised.is_none_or(|seq| seq < provider.seq) {
                    expected.push((sought, provider.seq, false));
                }
            }
            if let Some(peer) = self.peers.get_mut(id) {
                peer.due = None;
                peer.standing.counters.pulls += 1;
            }
            let pull = UnderWay {
                expected,
                began: now,
                moved: now,
                slow_at: now.saturating_add(self.config.slow_pull),
                slow: false,
                given_up: false,
            };
            self.pulls.insert(id, pull);
            self.counters.pulls += 1;
            self.outputs.push_back(AnnouncerOutput::Pull { peer: id });
        }
    }

    /// Of all who may be asked now: fewest demerits, then most wanted from, then by chance. Every other
    /// time, of neighbours and those that answered before, else of the others, who is due longest: how
    /// much is wanted of somebody is what others say.
    fn choose(&mut self, now: Duration) -> Option<PeerId> {
        let catches_up = self.awaited_pulls() == 0 && self.catch_up.is_some_and(|at| at <= now);
        let (mut best, mut had_choice) = (None, false);
        for (id, peer) in self.peers.iter_mut() {
            if self.pulls.contains_key(&id) || peer.rests_until > now {
                continue;
            }
            let due = peer.due.is_some_and(|due| due <= now);
            let checks = !peer.settled && peer.check.is_some_and(|check| check <= now);
            let any = checks || (catches_up && peer.neighbor);
            if !due && !any {
                continue;
            }
            let wanted = self.wants.count(id);
            if !any && peer.difference.is_none() && wanted == 0 {
                peer.due = None;
                continue;
            }
            let rank = if self.longest_waits {
                let known = peer.neighbor || peer.standing.has_answered();
                let first = known && !peer.standing.caught;
                let since = [peer.due, peer.check].into_iter().flatten().min();
                let waits = since.map_or(u128::MAX, |since| since.as_nanos());
                (u32::from(!first), waits, self.draws.next())
            } else {
                let most = u128::MAX - wanted as u128;
                (peer.demerits(), most, self.draws.next())
            };
            had_choice |= best.is_some();
            if best.as_ref().is_none_or(|(least, _)| rank < *least) {
                best = Some((rank, id));
            }
        }
        // Who was alone had no turn to give.
        self.longest_waits ^= had_choice;
        best.map(|(_, id)| id)
    }

    pub(super) fn end_pull(&mut self, id: PeerId, pull: UnderWay, ended: PullEnded, now: Duration) {
        let ended = match ended {
            // It did not break off: its place was needed, and it was on its way.
            PullEnded::Failed if pull.given_up && pull.has_moved() => PullEnded::Truncated,
            ended => ended,
        };
        match ended {
            PullEnded::Complete { digest, events } | PullEnded::Taken { digest, events } => {
                self.change_digest(digest, now);
                self.catch_up = None;
                self.judge_promises(id, &pull, events, now);
                self.retry_difference(id, now);
                if let Some(peer) = self.peers.get_mut(id) {
                    peer.check = None;
                    peer.settled = peer.neighbor;
                    match ended {
                        PullEnded::Taken { events: 0, .. } => {
                            peer.differs_for_good(now, &self.config);
                        }
                        _ => peer.standing.in_vain = 0,
                    }
                }
                self.report_synced(id);
            }
            PullEnded::Truncated => {
                self.catch_up = None;
                let lacks = |&(sought, seq, _): &_| self.wants.lacks(sought, seq, id).is_some();
                let helped = !pull.expected.iter().all(lacks);
                self.count_tries(id, &pull, now);
                if let Some(peer) = self.peers.get_mut(id) {
                    (peer.difference, peer.check) = (None, None);
                    if helped {
                        peer.standing.cut_short = 0;
                    }
                    peer.cut_short(now, &self.config, &mut self.draws);
                }
            }
            PullEnded::Failed => {
                self.counters.pulls_failed += 1;
                if let Some(peer) = self.peers.get_mut(id) {
                    peer.failed(now, &self.config, &mut self.draws);
                    if peer.standing.failures >= self.config.max_attempts {
                        (peer.difference, peer.check) = (None, None);
                    }
                    if peer.difference.is_some() {
                        peer.schedule(now);
                    }
                    peer.check = peer.check.map(|check| check.min(now));
                }
                self.count_tries(id, &pull, now);
            }
        }
        self.wants.shifted = true;
    }

    /// The peer gave all it had. What it announced and did not bring, it is not asked for again, and
    /// neither is it at once for anything else.
    fn judge_promises(&mut self, id: PeerId, pull: &UnderWay, events: u64, now: Duration) {
        let (mut kept, mut broken) = (0, 0);
        let by_runs = |&(sought, seq, _): &(Sought, u64, bool)| {
            !self.wants.is_promised(sought) && self.wants.lacks(sought, seq, id).is_some()
        };
        let began_by_runs = !pull.expected.is_empty() && pull.expected.iter().all(by_runs);
        let for_nothing = began_by_runs && events == 0;
        for &(sought, seq, promised) in &pull.expected {
            match (self.wants.lacks(sought, seq, id), promised) {
                (None, true) => kept += 1,
                (None, false) => {}
                (Some(missing), true) => {
                    broken += 1;
                    self.owed.note(sought, seq, id, self.config.max_owed);
                    // What it announced since it may still bring.
                    if missing == Missing::All {
                        self.wants.missed(sought, id, 0);
                    }
                }
                (Some(_), false) => self.wants.missed(sought, id, self.config.relay_tries),
            }
        }
        self.counters.promises_broken += broken;
        let Some(peer) = self.peers.get_mut(id) else {
            return;
        };
        let pause = peer.standing.judge(kept, broken, &self.config);
        peer.rest(now.saturating_add(pause));
        peer.asked_for_nothing(for_nothing, now, &self.config);
        if peer.standing.contradicts {
            self.counters.unproven += 1;
            let (pause, deaf) = peer.standing.proved_nothing(&self.config);
            peer.rest(now.saturating_add(pause));
            peer.contradicted_until = peer.contradicted_until.max(now.saturating_add(deaf));
        }
    }

    /// A digest that the peer itself announced is dealt with: we hold all it has. One it relayed is
    /// asked for again, and in the end of its sender.
    fn retry_difference(&mut self, id: PeerId, now: Duration) {
        let jitter = self.config.pull_jitter;
        let again = now.saturating_add(self.draws.between(jitter, jitter.saturating_mul(2)));
        let pause = self.config.trickle.i_min;
        let late = self.draws.up_to(pause.saturating_mul(SENDER_WITHIN));
        let late = now.saturating_add(late);
        let Some(peer) = self.peers.get_mut(id) else {
            return;
        };
        let Some(mut difference) = peer.difference.take() else {
            return;
        };
        if difference.sender == id {
            peer.compared_until = now.saturating_add(pause);
            return;
        }
        if self.digests.standing(&difference.digest) != Standing::Unknown {
            return;
        }
        difference.tries += 1;
        if difference.tries < RELAYED_DIGEST_TRIES {
            peer.difference = Some(difference);
            peer.schedule(again);
            return;
        }
        peer.compared_until = now.saturating_add(pause);
        let sender = difference.sender;
        if self.remember_peer(sender)
            && let Some(peer) = self.peers.get_mut(sender)
            && peer.difference.is_none()
            && now >= peer.compared_until
        {
            peer.difference = Some(difference);
            peer.schedule(late);
        }
    }

    /// A pull ended without bringing all: the next providers are asked at once.
    fn count_tries(&mut self, id: PeerId, pull: &UnderWay, now: Duration) {
        let mut counted = None;
        for &(sought, seq, _) in &pull.expected {
            // What a peer announced of a log and what it relayed of it are one try.
            if counted != Some(sought) && self.wants.lacks(sought, seq, id).is_some() {
                self.wants.missed(sought, id, self.config.max_attempts);
                counted = Some(sought);
            }
        }
        self.ask_others(id, now);
    }

    /// Asks those at once who announced what `id` can be asked for too.
    fn ask_others(&mut self, id: PeerId, now: Duration) {
        let mut others = BTreeSet::new();
        for (_, providers) in self.wants.providers() {
            if providers.iter().any(|provider| provider.peer == id) {
                let next = providers
                    .iter()
                    .filter(|p| p.peer != id && p.promised.is_some());
                others.extend(next.map(|provider| provider.peer));
            }
        }
        for other in others {
            if self.remember_peer(other) {
                self.schedule(other, now);
            }
        }
    }

    /// Sees to it that somebody will be asked for everything that is missing: the neighbour that
    /// relayed it as long as it has tries left, else who announced it and has rested longest. Who
    /// is slow to answer is not asked again meanwhile.
    pub(super) fn rearm(&mut self, now: Duration) {
        if !core::mem::take(&mut self.wants.shifted) {
            return;
        }
        // Each, and whether only runs speak of what it is asked for.
        let mut asked: BTreeMap<PeerId, bool> = BTreeMap::new();
        for (_, providers) in self.wants.providers() {
            let waits = |id: PeerId| {
                if let Some(pull) = self.pulls.get(&id) {
                    return !pull.slow;
                }
                let peer = self.peers.get(id);
                peer.is_some_and(|peer| peer.due.is_some()) || asked.contains_key(&id)
            };
            if providers.iter().any(|provider| waits(provider.peer)) {
                continue;
            }
            let idle = providers
                .iter()
                .filter(|provider| !self.pulls.contains_key(&provider.peer));
            let next = idle.min_by_key(|provider| {
                let peer = self.peers.get(provider.peer);
                let rests = peer.map_or(Duration::ZERO, |peer| peer.rests_until);
                (rests.max(now), provider.promised.is_some())
            });
            let by_runs = providers.iter().all(|provider| provider.promised.is_none());
            asked.extend(next.map(|provider| (provider.peer, by_runs)));
        }
        for (id, by_runs) in asked {
            let jitter = self.config.pull_jitter;
            let wait = self.draws.between(jitter / 2, jitter.saturating_mul(3) / 2);
            let at = now.saturating_add(wait);
            match (self.remember_peer(id), by_runs) {
                (true, false) => self.schedule(id, at),
                (true, true) => self.schedule_for_runs(id, at),
                (false, _) => self.wants.forget(id),
            }
        }
    }

    /// The same, for what only runs spoke of.
    fn schedule_for_runs(&mut self, id: PeerId, at: Duration) {
        let again_at = self.peers.get(id).map_or(at, |peer| peer.runs_again_at);
        self.schedule(id, at.max(again_at));
    }

    /// Later for a peer that broke promises, so that others come first.
    fn schedule(&mut self, id: PeerId, at: Duration) {
        if let Some(peer) = self.peers.get_mut(id) {
            let later = self
                .config
                .pull_jitter
                .saturating_mul(peer.standing.delays());
            peer.schedule(at.saturating_add(later));
        }
    }
}
