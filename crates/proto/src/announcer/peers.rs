//! What is remembered of each peer: neighbours, and those with something to be asked for.

use core::time::Duration;
use std::collections::BTreeMap;

use headwater_wire::HeadsDigest;

use super::{
    AnnouncerConfig, PeerId, PeerStanding,
    rng::Draws,
    standing::{Standing, doubled},
};

#[derive(Debug, Default)]
pub(super) struct Peer {
    pub(super) neighbor: bool,
    /// We are known to hold all it held at some time since it became a neighbour.
    pub(super) settled: bool,
    /// When it is to be compared with, as a new neighbour or as what it announced contradicts us,
    /// if nothing settles it before. Kept apart
    /// from `due`: what is asked of it earlier for another reason is no reason to compare earlier.
    pub(super) check: Option<Duration>,
    /// When to look whether there is a reason to pull from it.
    pub(super) due: Option<Duration>,
    /// A digest it announced, or relayed, that is not ours.
    pub(super) difference: Option<Difference>,
    /// Its digests are not compared until then.
    pub(super) compared_until: Duration,
    /// What it announces is no reason to compare at once until then.
    pub(super) contradicted_until: Duration,
    /// Not to be asked until then.
    pub(super) rests_until: Duration,
    /// What only runs spoke of is no reason to ask it before.
    pub(super) runs_again_at: Duration,
    /// What its word was worth.
    pub(super) standing: Standing,
    touched: u64,
}

/// A digest that was not ours when it was heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Difference {
    pub(super) digest: HeadsDigest,
    /// Whose digest it is.
    pub(super) sender: PeerId,
    /// Whether it was counted as lasting.
    pub(super) judged: bool,
    /// Pulls that did not settle it.
    pub(super) tries: u32,
}

impl Peer {
    /// When it can be asked, if it is to be.
    pub(super) fn ready_at(&self) -> Option<Duration> {
        let check = self.check.filter(|_| !self.settled);
        let due = [self.due, check].into_iter().flatten().min();
        due.map(|due| due.max(self.rests_until))
    }

    pub(super) fn schedule(&mut self, at: Duration) {
        self.due = Some(self.due.map_or(at, |due| due.min(at)));
    }

    /// How far behind others it ranks.
    pub(super) fn demerits(&self) -> u32 {
        self.standing.demerits()
    }

    pub(super) fn standing(&self, peer: PeerId) -> PeerStanding {
        PeerStanding {
            peer,
            demerits: self.demerits(),
            caught: self.standing.caught,
            counters: self.standing.counters,
        }
    }

    /// Is not asked until then, or until it would not be anyway.
    pub(super) fn rest(&mut self, until: Duration) {
        self.rests_until = self.rests_until.max(until);
    }

    pub(super) fn failed(&mut self, now: Duration, config: &AnnouncerConfig, draws: &mut Draws) {
        self.standing.counters.pulls_failed += 1;
        self.standing.failures = self.standing.failures.saturating_add(1);
        self.back_off(self.standing.failures, now, config, draws);
    }

    /// A pull brought something, and not all.
    pub(super) fn cut_short(&mut self, now: Duration, config: &AnnouncerConfig, draws: &mut Draws) {
        self.standing.cut_short = self.standing.cut_short.saturating_add(1);
        self.back_off(self.standing.cut_short, now, config, draws);
    }

    /// A pull brought nothing, as what differs is not stored here. It goes on to differ: its digests
    /// are compared ever less often, and what it announces is asked for as before.
    pub(super) fn differs_for_good(&mut self, now: Duration, config: &AnnouncerConfig) {
        self.standing.in_vain = self.standing.in_vain.saturating_add(1);
        let pause = doubled(config.trickle.i_min, self.standing.in_vain);
        let until = now.saturating_add(pause.min(config.backoff_cap));
        self.compared_until = self.compared_until.max(until);
    }

    /// A pull brought nothing, and what it was begun for nobody had announced: runs alone spoke of it, and
    /// this peer passed them on. It is not to blame, and whoever writes such runs is not to cause one pull
    /// after the other: it is asked because of runs again after a pause, twice as long each time in a
    /// row. For whatever else it is asked at any time.
    pub(super) fn asked_for_nothing(
        &mut self,
        again: bool,
        now: Duration,
        config: &AnnouncerConfig,
    ) {
        if !again {
            self.standing.for_nothing = 0;
            return;
        }
        let pause = doubled(config.pull_jitter, self.standing.for_nothing);
        self.standing.for_nothing = self.standing.for_nothing.saturating_add(1);
        self.runs_again_at = now.saturating_add(pause.min(config.trickle.most()));
    }

    /// Twice as long each time, up to the cap, less up to a half by chance.
    fn back_off(&mut self, times: u32, now: Duration, config: &AnnouncerConfig, draws: &mut Draws) {
        let longest = config
            .backoff_first
            .saturating_mul(1 << (times - 1).min(31))
            .min(config.backoff_cap);
        self.rests_until = now.saturating_add(draws.between(longest / 2, longest));
    }
}

/// The table.
#[derive(Debug, Default)]
pub(super) struct Peers {
    peers: BTreeMap<PeerId, Peer>,
    neighbors: usize,
    clock: u64,
}

/// Whether a peer stands in the table now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Taken,
    /// And this one had to leave for it.
    TakenFrom(PeerId),
    None,
}

impl Peers {
    pub(super) fn get(&self, id: PeerId) -> Option<&Peer> {
        self.peers.get(&id)
    }

    pub(super) fn get_mut(&mut self, id: PeerId) -> Option<&mut Peer> {
        self.peers.get_mut(&id)
    }

    /// Finds a peer, or makes place for it.
    ///
    /// In a full table the one touched longest ago leaves: of those not to be asked for anything and
    /// of good standing first, then of any not to be asked, else of those that failed or broke
    /// promises. Neighbours and the `busy` stay.
    pub(super) fn place(&mut self, id: PeerId, max: usize, busy: impl Fn(PeerId) -> bool) -> Place {
        self.place_by(id, max, busy, false)
    }

    /// The same for a neighbour: any other peer leaves for it, and if all are neighbours or `busy`,
    /// the table grows.
    pub(super) fn place_neighbor(
        &mut self,
        id: PeerId,
        max: usize,
        busy: impl Fn(PeerId) -> bool,
    ) -> Place {
        self.place_by(id, max, busy, true)
    }

    fn place_by(
        &mut self,
        id: PeerId,
        max: usize,
        busy: impl Fn(PeerId) -> bool,
        neighbor: bool,
    ) -> Place {
        self.clock += 1;
        let mut place = Place::Taken;
        if !self.peers.contains_key(&id) && self.peers.len() >= max {
            let oldest = |may_leave: fn(&Peer) -> bool| {
                self.peers
                    .iter()
                    .filter(|(id, peer)| !peer.neighbor && may_leave(peer) && !busy(**id))
                    .min_by_key(|(_, peer)| peer.touched)
                    .map(|(id, _)| *id)
            };
            let idle = |peer: &Peer| peer.due.is_none() && peer.check.is_none();
            let leaves =
                oldest(|peer| peer.due.is_none() && peer.check.is_none() && peer.demerits() == 0)
                    .or_else(|| oldest(idle))
                    .or_else(|| oldest(|peer| peer.demerits() > 0))
                    .or_else(|| oldest(|_| true).filter(|_| neighbor));
            match leaves {
                Some(leaves) => {
                    self.peers.remove(&leaves);
                    place = Place::TakenFrom(leaves);
                }
                None if neighbor => {}
                None => return Place::None,
            }
        }
        self.peers.entry(id).or_default().touched = self.clock;
        place
    }

    /// Marks a peer of the table as a neighbour, to be compared with then. False if it was one.
    pub(super) fn join(&mut self, id: PeerId, check: Duration) -> bool {
        let Some(peer) = self.peers.get_mut(&id).filter(|peer| !peer.neighbor) else {
            return false;
        };
        (peer.neighbor, peer.settled, peer.check) = (true, false, Some(check));
        self.neighbors += 1;
        true
    }

    /// False if it was no neighbour.
    pub(super) fn leave(&mut self, id: PeerId) -> bool {
        let Some(peer) = self.peers.get_mut(&id).filter(|peer| peer.neighbor) else {
            return false;
        };
        (peer.neighbor, peer.settled, peer.check) = (false, false, None);
        self.neighbors -= 1;
        true
    }

    pub(super) fn neighbors(&self) -> usize {
        self.neighbors
    }

    pub(super) fn unsettled(&self) -> usize {
        let unsettled = |peer: &&Peer| peer.neighbor && !peer.settled;
        self.peers.values().filter(unsettled).count()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (PeerId, &Peer)> {
        self.peers.iter().map(|(id, peer)| (*id, peer))
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (PeerId, &mut Peer)> {
        self.peers.iter_mut().map(|(id, peer)| (*id, peer))
    }
}
