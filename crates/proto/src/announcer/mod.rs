//! When to announce, what not to repeat, whom to pull from: the gossip of one space.
//!
//! ```text
//!  our store grew ──▶ ┌───────────┐ ──▶ SendRuns   what is small, to everybody
//!  announcements  ──▶ │ Announcer │ ──▶ Announce   heads, or the digest alone
//!  runs           ──▶ │           │ ──▶ Pull       from one peer, mostly one at a time
//!  neighbours     ──▶ │           │ ──▶ HistorySynced
//!  pulls that end ──▶ └───────────┘
//! ```
//!
//! One [`Announcer`] for each space on a topic, driven like a session: a call for everything that
//! happens, `poll_output` until it is empty after **every** call, and `handle_timeout` at
//! `next_timeout`. `now` is the time since any moment the driver chose.
//!
//! # Announcing
//!
//! What grows is announced at once, and then at most every
//! [`announce_interval`](AnnouncerConfig::announce_interval): a small run is sent as it is, of what is
//! larger the head is announced. A head heard on the topic is not announced again: everybody heard it.
//! For that to be seen, a driver reports runs that came **before** the growth they caused.
//!
//! More heads than [`max_split`](AnnouncerConfig::max_split) announcements hold are replaced by
//! the digest. What came by a sync is mostly news here and nowhere else: it is announced only if
//! within [`settle`](AnnouncerConfig::settle) nobody announces it, or a digest that is ours now; and
//! not at all if the sync was to catch up after an isolation. Nothing is announced while there is
//! no neighbour; what grew meanwhile is announced when there is one.
//!
//! The digest is announced periodically by the Trickle algorithm (RFC 6206), except while a pull
//! is under way that is not slow. Trickle rests while there is no neighbour.
//!
//! # Comparing
//!
//! Runs have no digest beside them. An announcement that names heads asserts these heads; its digest
//! counts only if it is ours, or becomes ours. One that names none (`periodic`) has its digest compared:
//!
//! - it is ours: consistent, and one reason less to speak;
//! - it was ours before: its sender lacks what came since. If that is longer ago than
//!   [`settle`](AnnouncerConfig::settle), Trickle is reset, so that the sender hears of it, and
//!   the *sender* pulls, once, instead of everybody from the sender;
//! - it is unknown: if it still is after `settle`, Trickle is reset, and we pull. A pull heals both
//!   sides.
//!
//! A log that is cut, because it forks, has no head to be announced: the new digest is, unless
//! somebody was faster. An announcement that contradicts a log held here leads to a pull from its
//! sender, not from the neighbour that delivered it, which may hold neither branch.
//!
//! The wait is what keeps a busy network quiet: while somebody writes, digests differ everywhere
//! for as long as an announcement travels.
//!
//! # Pulling
//!
//! One pull at a time, after a random wait, from whoever has the fewest broken promises and failed
//! pulls, then the most of what is wanted, then by chance. Every second one is from whoever has waited
//! longest, neighbours and those that answered before first: an endless supply of newcomers that
//! promise more takes half of the turns, never all.
//!
//! What somebody far away announced is first asked of the neighbour that delivered it. On the way
//! an announcement took, everybody is so served by the one before, and nobody is asked by all:
//! 999 nodes that pull from one sender are what gossip is there to avoid. Only when the neighbour
//! did not bring it, [`relay_tries`](AnnouncerConfig::relay_tries) times, the sender is asked. Runs have no
//! sender: what is missing below them is asked of the neighbour alone, and in the end found by digest.
//!
//! What is above a quota of ours, or not accepted, no peer can bring: the driver
//! [says so](Announcer::handle_not_taken), it is wanted no more, and a pull without it is as good as
//! complete. Otherwise one author above its quota would make every peer look as if it held back.
//!
//! A pull that failed makes its peer rest, twice as long each time, and the next provider is asked
//! at once. Both that and the standing below are forgotten as pulls succeed: claims are hints, and no
//! hint is worth a ban.
//!
//! # Standing
//!
//! What a peer announced and did not bring, though it brought all it had, is a promise broken. Its
//! peer ranks behind others, rests for [`pull_pause`](AnnouncerConfig::pull_pause) and twice as long
//! each time, and its neighbours are not asked any more for what it announces. If another peer then
//! brings it, the first one kept it back, which counts more. Each promise kept makes up for one demerit.
//!
//! Whom the driver [caught](Announcer::handle_caught) by two receipts that contradict each other ranks
//! behind everybody for good, is asked seldom, and no [`HistorySynced`](AnnouncerOutput::HistorySynced)
//! is told of it.
//!
//! # Stalled pulls
//!
//! A pull that takes longer than [`slow_pull`](AnnouncerConfig::slow_pull) goes on, but nobody waits
//! for it: what it was to bring is asked of the next provider, its place is free for another pull,
//! and Trickle speaks again. Of slow and other pulls together there are at most four times
//! [`pulls_at_once`](AnnouncerConfig::pulls_at_once); when another is to begin then, the one that has
//! not moved for longest is given up, or one that moves after
//! [`long_pull`](AnnouncerConfig::long_pull).
//!
//! The first neighbour after a start or an isolation is pulled from at once, to catch up. Every
//! later one is compared with once, by a pull, unless something it announces shows before that we
//! hold what it holds: two equal digests cost a round trip between two nodes, an announcement costs
//! one everywhere.
//!
//! # Bounds
//!
//! Every table has one in [`AnnouncerConfig`], and a rule for who leaves: of missing heads, those
//! of the peer that has most (a peer's share is a quarter); of peers, the one touched longest ago
//! that is neither a neighbour nor to be asked, those of good standing first, else one that failed, and
//! for a neighbour any other; of heads heard and of digests, the oldest. What is forgotten is found again by the digest.
//!
//! # What it refuses to know
//!
//! Signatures, the announcement's bytes, the topic, the store, and who may read: whoever drives it
//! checked an announcement before.
//!
//! # Example
//!
//! ```
//! use core::time::Duration;
//! use headwater_proto::announcer::{Announcer, AnnouncerConfig, AnnouncerOutput, Grown, PeerId};
//! use headwater_wire::{AuthorId, HeadsDigest};
//!
//! let now = Duration::ZERO;
//! let author = AuthorId::from_bytes([7; 32]);
//! let mut announcer = Announcer::new(AnnouncerConfig::default(), 42, HeadsDigest::EMPTY);
//! announcer.handle_neighbor_up(PeerId::from_bytes([1; 32]), now);
//!
//! let grown = Grown { author, head_seq: 1, size: Some(300) };
//! announcer.handle_grown(HeadsDigest::from_bytes([9; 32]), vec![grown], now);
//! let Some(AnnouncerOutput::SendRuns { authors }) = announcer.poll_output() else {
//!     panic!("a small event travels as it is");
//! };
//! assert_eq!(authors, [author]);
//! assert!(announcer.next_timeout().is_some(), "the neighbour will be caught up with");
//! ```

mod config;
mod digests;
mod outbox;
mod output;
mod peers;
mod pulls;
mod rng;
mod standing;
mod trickle;
mod wants;

#[cfg(test)]
mod tests;

use core::time::Duration;
use std::collections::{BTreeMap, VecDeque};

use headwater_wire::{AuthorId, HeadsDigest};

pub use config::{
    ANNOUNCEMENT_FIXED_BYTES, AnnouncerConfig, HEAD_BYTES, RUN_PREFIX_BYTES, RUNS_FIXED_BYTES,
    TrickleConfig,
};
pub use output::{
    AnnouncerCounters, AnnouncerOutput, AnnouncerStatus, Claim, ForkClaim, Grown,
    HeardAnnouncement, PeerId, PullEnded,
};
pub use standing::{PeerCounters, PeerStanding};

use digests::{Digests, Standing};
use outbox::Outbox;
use peers::{Peers, Place};
use pulls::UnderWay;
use rng::Draws;
use standing::Owed;
use trickle::{Trickle, Turn};
use wants::{PROOF, Sought, Wants};

/// Who can be asked for what is missing: who announced it and so promised it, and the neighbour that
/// relayed that.
type Asked = (Option<PeerId>, Option<PeerId>);

/// The gossip of one space: see the [module's page](self) for how to drive it.
#[derive(Debug)]
pub struct Announcer {
    config: AnnouncerConfig,
    draws: Draws,
    trickle: Trickle,
    digests: Digests,
    outbox: Outbox,
    wants: Wants,
    owed: Owed,
    peers: Peers,
    pulls: BTreeMap<PeerId, UnderWay>,
    /// Something was missed, nobody knows what: pull from any neighbour, from then on.
    catch_up: Option<Duration>,
    /// Whether the next pull is from whoever waits longest, and not from whom most is wanted.
    longest_waits: bool,
    counters: AnnouncerCounters,
    outputs: VecDeque<AnnouncerOutput>,
}

impl Announcer {
    /// Begins without neighbours. `seed` comes from the driver's randomness; `digest` is over the
    /// heads held now.
    #[must_use]
    pub fn new(config: AnnouncerConfig, seed: u64, digest: HeadsDigest) -> Self {
        Self {
            draws: Draws::new(seed),
            trickle: Trickle::new(config.trickle),
            digests: Digests::new(digest, config.max_digests),
            outbox: Outbox::default(),
            wants: Wants::default(),
            owed: Owed::default(),
            peers: Peers::default(),
            pulls: BTreeMap::new(),
            catch_up: None,
            longest_waits: false,
            counters: AnnouncerCounters::default(),
            outputs: VecDeque::new(),
            config,
        }
    }

    /// The next thing to do, if any. Drain it after every call.
    pub fn poll_output(&mut self) -> Option<AnnouncerOutput> {
        self.outputs.pop_front()
    }

    /// When to call [`Announcer::handle_timeout`], if nothing else happens before. May lie in the
    /// past: then at once.
    #[must_use]
    pub fn next_timeout(&self) -> Option<Duration> {
        if self.wants.shifted {
            return Some(Duration::ZERO);
        }
        let announce = self.outbox.next_timeout().filter(|_| self.speaks());
        let trickle = self.trickle.next_timeout();
        [trickle, announce, self.next_pull(), self.next_slow()]
            .into_iter()
            .flatten()
            .min()
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Duration) {
        self.go_on(now);
    }

    /// Logs of ours grew; `digest` is the digest afterwards. What was announced to us is
    /// recognised by its head, so the announcement is to be reported first.
    ///
    /// For what is written here, and for what came by an announcement: it is announced, unless it
    /// was heard. What came by a sync is for [`Announcer::handle_synced`].
    pub fn handle_grown(&mut self, digest: HeadsDigest, grown: Vec<Grown>, now: Duration) {
        for log in grown {
            self.came(Sought::Head(log.author), log.head_seq, None);
            let (author, seq, size) = (log.author, log.head_seq, log.size);
            self.outbox.add(author, seq, size, now, &self.config);
        }
        self.change_digest(digest, now);
        self.go_on(now);
    }

    /// Logs of ours grew by a sync, whoever asked for it; `digest` is the digest afterwards.
    ///
    /// Most of the time that is news here and nowhere else. So it is announced only after
    /// [`settle`](AnnouncerConfig::settle), and not if somebody announced it, or has our digest,
    /// by then.
    pub fn handle_synced(&mut self, digest: HeadsDigest, grown: Vec<Grown>, now: Duration) {
        self.hold(grown, now);
        self.change_digest(digest, now);
        self.go_on(now);
    }

    fn hold(&mut self, grown: Vec<Grown>, now: Duration) {
        let jitter = self.draws.up_to(self.config.pull_jitter);
        let until = now
            .saturating_add(self.config.settle)
            .saturating_add(jitter);
        let catches_up = self.catch_up.is_some() || !self.speaks();
        for log in grown {
            self.came(Sought::Head(log.author), log.head_seq, None);
            if !catches_up {
                let (author, seq) = (log.author, log.head_seq);
                self.outbox.hold(author, seq, until, now, &self.config);
            }
        }
    }

    /// Logs of ours were cut, because they are proven to fork; `digest` is the digest afterwards.
    ///
    /// Nobody can name such a log by a signed head, and nothing above the cut comes any more. So that
    /// it forks is announced, once, and soon, unless somebody did: whoever hears of it pulls, and is
    /// brought the proof.
    pub fn handle_cut(&mut self, digest: HeadsDigest, authors: &[AuthorId], now: Duration) {
        for author in authors {
            self.came(Sought::Head(*author), u64::MAX, None);
            self.came(Sought::Cut(*author), PROOF, None);
            self.outbox.forget(author);
        }
        self.forget_contradictions();
        if self.change_digest(digest, now).is_none() {
            let until = now.saturating_add(self.draws.up_to(self.config.pull_jitter));
            let mut says = false;
            for author in authors {
                says |= self.outbox.hold_cut(*author, until, &self.config);
            }
            if !says {
                self.outbox.hold_digest(until);
            }
            self.trickle.inconsistent(now, &mut self.draws);
        }
        self.go_on(now);
    }

    /// What a peer announced contradicts a log held here, or it does not know that the log is cut.
    /// No head says which: it is compared with by a pull, soon, and by no more than one in *Imin*,
    /// less often the more of these pulls show nothing.
    ///
    /// To be reported after the announcement.
    pub fn handle_contradiction(&mut self, from: PeerId, now: Duration) {
        self.compare_soon(from, now);
        self.go_on(now);
    }

    /// Two receipts of this peer contradict each other: it lied in one of them. It is asked after
    /// everybody else from now on, and seldom, and that it brought all it had is told no more.
    ///
    /// True if that was not known.
    pub fn handle_caught(&mut self, id: PeerId, now: Duration) -> bool {
        let found = self.remember_peer(id);
        let found = self.peers.get_mut(id).filter(|_| found);
        let is_news =
            found.is_some_and(|peer| !core::mem::replace(&mut peer.standing.caught, true));
        self.counters.caught += u64::from(is_news);
        self.go_on(now);
        is_news
    }

    /// A pull under way moved: something came, or was stored. To be reported now and then; once a
    /// second is enough.
    pub fn handle_pull_progress(&mut self, peer: PeerId, now: Duration) {
        if let Some(pull) = self.pulls.get_mut(&peer) {
            pull.moved(now);
        }
    }

    /// What we hold of wanted authors. To be reported before the end of a pull, so that the pull
    /// is judged by what it brought; [`Announcer::wanted`] names whom to look up.
    pub fn handle_held(&mut self, heads: Vec<(AuthorId, u64)>) {
        for (author, seq) in heads {
            self.came(Sought::Head(author), seq, None);
        }
    }

    /// Of these authors nothing above a seq is stored here, whoever brings it; without one, nothing
    /// at all, and no proof either. It is wanted no more, and nobody owes it. To be reported before
    /// the end of a pull, after [`Announcer::handle_held`].
    pub fn handle_not_taken(&mut self, authors: &[(AuthorId, Option<u64>)]) {
        for &(author, through) in authors {
            let head = Sought::Head(author);
            self.take_through(head, through.unwrap_or(0));
            if through.is_none() {
                self.take_through(Sought::Cut(author), 0);
            }
        }
    }

    fn take_through(&mut self, sought: Sought, seq: u64) {
        self.wants.cap(sought, seq);
        self.owed.cap(sought, seq);
        for pull in self.pulls.values_mut() {
            pull.expect_through(sought, seq);
        }
    }

    /// Takes a checked announcement of somebody else.
    pub fn handle_announcement(&mut self, heard: HeardAnnouncement, now: Duration) {
        let (from, relay) = (heard.from, heard.delivered_by);
        let relay = Some(relay).filter(|relay| *relay != from);
        // Whoever broke promises answers for its words alone: nobody else is asked because of them.
        let doubted = |peer: &peers::Peer| peer.standing.is_doubted();
        let is_doubted = self.peers.get(from).is_some_and(doubted);
        let asked = (Some(from), relay.filter(|_| !is_doubted));
        // A head may be announced beside the digest before it. Whoever lacks it has not all that
        // the sender has, whatever the digest says, and whether or not the head could be noted.
        let (mut lacks, mut wanted) = (false, false);
        for claim in heard.claims {
            lacks |= claim.seq > claim.held;
            wanted |= self.take_claim(claim, asked, Some(from));
        }
        for fork in heard.forks {
            self.outbox.heard_cut(fork.author, self.config.max_heard);
            if !fork.known {
                lacks = true;
                wanted |= self.want(Sought::Cut(fork.author), PROOF, asked);
            }
        }
        if wanted {
            self.schedule_wanted(asked.0, asked.1, now);
        }
        let standing = self.digests.standing(&heard.digest);
        if standing != Standing::Unknown && !lacks {
            self.settle(from);
            self.forget_differences(from);
        }
        match standing {
            // Beside a head that is missing here an equal digest is one of a moment ago: RFC 6206
            // leaves it to its user what is consistent, and these two do not agree. It is no reason
            // to reset either: the head is asked for already.
            Standing::Equal if lacks => {}
            Standing::Equal => {
                self.trickle.consistent();
                if heard.periodic {
                    self.outbox.drop_held();
                }
            }
            Standing::Left(when) => {
                if heard.periodic && now.saturating_sub(when) > self.config.settle {
                    self.count_difference(now);
                }
            }
            Standing::Unknown => {
                self.digests.remember(heard.digest, heard.periodic);
                if heard.periodic {
                    self.note_difference(heard.digest, from, relay, now);
                }
            }
        }
        self.go_on(now);
    }

    /// Takes checked runs that were sent to everybody, as what they claim once they were applied.
    ///
    /// They prove themselves, and nobody signs that it sent them. So what is missing below them is asked
    /// of the neighbour that delivered them, if it is to be asked at all; it promised nothing and is not
    /// blamed, but left alone for ever longer pauses while that leads nowhere. Digests find the rest.
    pub fn handle_runs(&mut self, relay: Option<PeerId>, claims: Vec<Claim>, now: Duration) {
        let asked = (None, relay);
        let mut wanted = false;
        for claim in claims {
            wanted |= self.take_claim(claim, asked, relay);
        }
        if wanted {
            self.schedule_wanted(asked.0, asked.1, now);
        }
        self.go_on(now);
    }

    /// A head is held by whoever said so. True if it is missing here and will be asked for.
    fn take_claim(&mut self, claim: Claim, asked: Asked, said_by: Option<PeerId>) -> bool {
        self.outbox
            .heard(claim.author, claim.seq, self.config.max_heard);
        let sought = Sought::Head(claim.author);
        self.came(sought, claim.held, said_by);
        claim.seq > claim.held && self.want(sought, claim.seq, asked)
    }

    fn want(&mut self, sought: Sought, seq: u64, (from, relay): Asked) -> bool {
        let demerits = |id| self.peers.get(id).map_or(0, peers::Peer::demerits);
        let claim = (sought, seq, from, relay);
        self.wants.claim(claim, demerits, &self.config)
    }

    /// A neighbour appeared on the topic. It always gets a place among the peers.
    pub fn handle_neighbor_up(&mut self, peer: PeerId, now: Duration) {
        let alone = !self.speaks();
        let busy = |id| self.pulls.contains_key(&id);
        let place = self.peers.place_neighbor(peer, self.config.max_peers, busy);
        let check = now.saturating_add(self.draws.up_to(self.config.check_within));
        if !self.took(place) || !self.peers.join(peer, check) {
            return;
        }
        if alone {
            self.trickle.start(now, &mut self.draws);
            self.catch_up = Some(now.saturating_add(self.draws.up_to(self.config.pull_jitter)));
        }
        self.go_on(now);
    }

    /// A neighbour left the topic.
    pub fn handle_neighbor_down(&mut self, peer: PeerId, now: Duration) {
        if self.peers.leave(peer) && !self.speaks() {
            self.trickle.stop();
            self.catch_up = None;
        }
        self.go_on(now);
    }

    /// Announcements were lost before they were read. Trickle is reset, and a neighbour is pulled
    /// from.
    pub fn handle_overflow(&mut self, now: Duration) {
        self.trickle.inconsistent(now, &mut self.draws);
        if self.speaks() && self.catch_up.is_none() {
            self.catch_up = Some(now.saturating_add(self.draws.up_to(self.config.pull_jitter)));
        }
        self.go_on(now);
    }

    /// A pull ended. What it brought has to be reported before, by [`Announcer::handle_synced`] or
    /// [`Announcer::handle_held`]. One that was not asked for is ignored.
    pub fn handle_pull_ended(&mut self, peer: PeerId, ended: PullEnded, now: Duration) {
        if let Some(pull) = self.pulls.remove(&peer) {
            self.end_pull(peer, pull, ended, now);
        }
        self.go_on(now);
    }

    /// Authors of which this peer can be asked for missing events, ascending.
    #[must_use]
    pub fn wanted(&self, peer: PeerId) -> Vec<AuthorId> {
        let wants = self.wants.of(peer).into_iter();
        let mut authors: Vec<_> = wants.map(|(sought, _)| sought.author()).collect();
        authors.sort_unstable();
        authors.dedup();
        authors
    }

    /// Where it stands.
    #[must_use]
    pub fn status(&self) -> AnnouncerStatus {
        let neighbors = self.peers.iter().filter(|(_, peer)| peer.neighbor);
        let backed_off = self.peers.iter();
        let backed_off = backed_off.filter(|(_, peer)| peer.standing.failures > 0);
        let standings = self.peers.iter().map(|(id, peer)| peer.standing(id));
        let standings = standings.filter(|it| it.caught || it.counters != PeerCounters::default());
        AnnouncerStatus {
            neighbors: neighbors.map(|(id, _)| id).collect(),
            unsettled_neighbors: self.peers.unsettled(),
            missing_heads: self.wants.len(),
            pulls: self.pulls.keys().copied().collect(),
            backed_off: backed_off
                .map(|(id, peer)| (id, peer.rests_until))
                .collect(),
            standings: standings.collect(),
            unannounced: self.outbox.len(),
            interval: self.trickle.length(),
            counters: self.counters(),
        }
    }

    /// What was counted since the start.
    #[must_use]
    pub fn counters(&self) -> AnnouncerCounters {
        AnnouncerCounters {
            not_repeated: self.outbox.not_repeated,
            wants_dropped: self.wants.dropped,
            wants_refused: self.wants.refused,
            ..self.counters
        }
    }

    /// Whether anybody would hear us.
    fn speaks(&self) -> bool {
        self.peers.neighbors() > 0
    }

    fn go_on(&mut self, now: Duration) {
        self.pass_over_slow_pulls(now);
        match self.trickle.poll(now, &mut self.draws) {
            // A digest in motion helps nobody.
            Some(Turn::Speak) if self.awaited_pulls() == 0 => {
                self.announce(AnnouncerOutput::Announce {
                    changed: Vec::new(),
                    periodic: true,
                });
            }
            Some(Turn::Suppressed) => self.counters.suppressed += 1,
            Some(Turn::Speak) | None => {}
        }
        if self.speaks() {
            for output in self.outbox.take(now, &self.config) {
                self.announce(output);
            }
        }
        self.rearm(now);
        self.judge_differences(now);
        self.begin_pulls(now);
    }

    fn announce(&mut self, output: AnnouncerOutput) {
        match &output {
            AnnouncerOutput::Announce { periodic: true, .. } => {
                self.counters.announced_periodic += 1;
            }
            AnnouncerOutput::Announce { .. } | AnnouncerOutput::SendRuns { .. } => {
                self.counters.announced += 1;
            }
            _ => {}
        }
        self.outputs.push_back(output);
    }

    /// Tells whether somebody announced this digest before, and whether alone.
    fn change_digest(&mut self, digest: HeadsDigest, now: Duration) -> Option<bool> {
        let alone = self.digests.change(digest, now)?;
        self.trickle.consistent();
        // Somebody had all this before us. If its digest came beside heads, not everybody compared
        // it: then the digest will be announced for it.
        if self.outbox.drop_held() && !alone {
            self.trickle.inconsistent(now, &mut self.draws);
        }
        Some(alone)
    }

    fn count_difference(&mut self, now: Duration) {
        self.counters.differences += 1;
        self.trickle.inconsistent(now, &mut self.draws);
    }

    /// A neighbour is now known to hold nothing that we lack.
    fn settle(&mut self, id: PeerId) {
        let Some(peer) = self.peers.get_mut(id) else {
            return;
        };
        if peer.neighbor && !peer.settled {
            peer.settled = true;
            self.report_synced(id);
        }
    }

    fn report_synced(&mut self, provider: PeerId) {
        let caught = |peer: &peers::Peer| peer.standing.caught;
        if self.peers.get(provider).is_some_and(caught) {
            return;
        }
        let still_pending = self.peers.unsettled() as u64;
        self.outputs.push_back(AnnouncerOutput::HistorySynced {
            provider,
            still_pending,
        });
    }

    /// Something is held now, or proven. Whoever had announced it, and gave all it had without it, kept
    /// it back: unless it came from there, by what it says just now or by a pull that goes on.
    fn came(&mut self, sought: Sought, seq: u64, said_by: Option<PeerId>) {
        self.wants.held(sought, seq);
        for owing in self.owed.came(sought, seq) {
            if said_by == Some(owing) || self.pulls.contains_key(&owing) {
                continue;
            }
            self.counters.withheld += 1;
            if let Some(peer) = self.peers.get_mut(owing) {
                peer.standing.withheld();
            }
        }
    }

    /// Makes sure a peer stands in the table. False if there is no place.
    fn remember_peer(&mut self, id: PeerId) -> bool {
        let busy = |id| self.pulls.contains_key(&id);
        let place = self.peers.place(id, self.config.max_peers, busy);
        self.took(place)
    }

    fn took(&mut self, place: Place) -> bool {
        match place {
            Place::Taken => true,
            Place::TakenFrom(evicted) => {
                self.wants.forget(evicted);
                true
            }
            Place::None => false,
        }
    }
}
