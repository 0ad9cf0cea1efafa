//! The network: copies of announcements on their way, pulls, and the clock.

use core::{cmp::Reverse, time::Duration};
use std::{
    collections::{BTreeMap, BinaryHeap, HashSet},
    rc::Rc,
};

use headwater_proto::announcer::{
    AnnouncerConfig, AnnouncerOutput, Claim, Grown, HeardAnnouncement, PullEnded,
};

use crate::{
    node::{Message, Node, Said, Tally, author_id, node_of, peer_id},
    rng::Rng,
};

pub(crate) fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

pub(crate) struct Options {
    pub(crate) announcer: AnnouncerConfig,
    pub(crate) nodes: usize,
    pub(crate) authors: usize,
    /// Bytes of an event's payload.
    pub(crate) payload: u64,
    /// A copy takes so many milliseconds, at least and at most.
    pub(crate) delay_ms: (u64, u64),
    /// So many of 1,000 copies are lost.
    pub(crate) lost_copies: u64,
    /// So many of 1,000 announcements a node hears are lost before they are read.
    pub(crate) unread: u64,
    /// Whether that is noticed.
    pub(crate) notices_unread: bool,
}

impl Options {
    pub(crate) fn new(nodes: usize) -> Self {
        Self {
            announcer: AnnouncerConfig::default(),
            nodes,
            authors: nodes,
            payload: 200,
            delay_ms: (5, 60),
            lost_copies: 0,
            unread: 0,
            notices_unread: false,
        }
    }
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Happening {
    Copy {
        to: usize,
        via: usize,
        id: usize,
    },
    Wake {
        node: usize,
    },
    PullEnds {
        node: usize,
        peer: usize,
        lives: (u64, u64),
    },
    Neighbor {
        node: usize,
        peer: usize,
        up: bool,
    },
}

pub(crate) struct Network {
    pub(crate) options: Options,
    pub(crate) nodes: Vec<Node>,
    pub(crate) rng: Rng,
    pub(crate) now: Duration,
    queue: BinaryHeap<Reverse<(Duration, u64, Happening)>>,
    order: u64,
    messages: Vec<Rc<Message>>,
    known: HashSet<(usize, usize)>,
    /// The last seq written, by author.
    pub(crate) written: Vec<u64>,
    /// Nodes up that lack something.
    behind: usize,
    /// Nodes that no pull from succeeds.
    pub(crate) refusing: HashSet<usize>,
    /// Nodes that never answer a pull, and never end it.
    pub(crate) stalling: HashSet<usize>,
    /// Nodes that say at the end of a pull that it was all, and gave nothing.
    pub(crate) withholding: HashSet<usize>,
    /// Pulls begun, by who asks whom.
    pub(crate) asked: BTreeMap<(usize, usize), u64>,
}

impl Network {
    /// Nodes that hold nothing and know nobody.
    pub(crate) fn new(options: Options, seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let nodes = (0..options.nodes)
            .map(|_| Node::new(&options.announcer, options.authors, rng.next()))
            .collect();
        Self {
            nodes,
            rng,
            now: seconds(1),
            queue: BinaryHeap::new(),
            order: 0,
            messages: Vec::new(),
            known: HashSet::new(),
            written: vec![0; options.authors],
            behind: 0,
            refusing: HashSet::new(),
            stalling: HashSet::new(),
            withholding: HashSet::new(),
            asked: BTreeMap::new(),
            options,
        }
    }

    fn at(&mut self, when: Duration, what: Happening) {
        self.order += 1;
        self.queue.push(Reverse((when, self.order, what)));
    }

    fn delay(&mut self) -> Duration {
        let (least, most) = self.options.delay_ms;
        Duration::from_micros(self.rng.between(least * 1_000, most * 1_000))
    }

    /// Tells a node of a neighbour, in a while.
    pub(crate) fn tell_neighbor(&mut self, node: usize, peer: usize, up: bool, within: Duration) {
        let wait = self.rng.below(within.as_micros() as u64 + 1);
        let when = self.now + Duration::from_micros(wait);
        self.at(when, Happening::Neighbor { node, peer, up });
    }

    /// The node appends an event to a log.
    pub(crate) fn write(&mut self, node: usize, author: usize) {
        let seq = self.nodes[node].heads[author] + 1;
        assert!(seq > self.written[author], "one writer a log");
        self.written[author] = seq;
        let grown = self.nodes[node].raise(author, seq, self.options.payload);
        self.grew(node, vec![grown]);
        self.count_behind();
    }

    pub(crate) fn count_behind(&mut self) {
        let behind = |node: &&Node| node.up && node.heads != self.written;
        self.behind = self.nodes.iter().filter(behind).count();
    }

    fn grew(&mut self, node: usize, grown: Vec<Grown>) {
        let (digest, now) = (self.nodes[node].digest(), self.now);
        self.nodes[node].announcer.handle_grown(digest, grown, now);
        self.drain(node);
    }

    /// Runs until `until`.
    pub(crate) fn run_until(&mut self, until: Duration) {
        while self.step(until) {}
        self.now = until;
    }

    pub(crate) fn run_for(&mut self, time: Duration) {
        self.run_until(self.now + time);
    }

    /// Runs until all nodes hold everything, and tells how long that took.
    pub(crate) fn run_until_equal(&mut self, within: Duration) -> Duration {
        let began = self.now;
        while self.behind > 0 {
            let steps = self.step(began + within);
            assert!(steps, "{} nodes are behind after {within:?}", self.behind);
        }
        self.now.saturating_sub(began)
    }

    fn step(&mut self, until: Duration) -> bool {
        let Some(Reverse((when, ..))) = self.queue.peek() else {
            return false;
        };
        if *when > until {
            return false;
        }
        let Some(Reverse((when, _, what))) = self.queue.pop() else {
            return false;
        };
        self.now = when;
        match what {
            Happening::Copy { to, via, id } => self.deliver(to, via, id),
            Happening::Wake { node } => self.wake(node),
            Happening::PullEnds { node, peer, lives } => self.end_pull(node, peer, lives),
            Happening::Neighbor { node, peer, up } => self.neighbor(node, peer, up),
        }
        true
    }

    fn wake(&mut self, node: usize) {
        let now = self.now;
        let at = &mut self.nodes[node];
        if !at.up || at.wake.is_none_or(|wake| wake > now) {
            return;
        }
        at.wake = None;
        if at.announcer.next_timeout().is_some_and(|due| due <= now) {
            at.announcer.handle_timeout(now);
        }
        self.drain(node);
    }

    fn neighbor(&mut self, node: usize, peer: usize, up: bool) {
        let now = self.now;
        let at = &mut self.nodes[node];
        if !at.up {
            return;
        }
        if up {
            at.neighbors.insert(peer);
            at.announcer.handle_neighbor_up(peer_id(peer), now);
        } else {
            at.neighbors.remove(&peer);
            at.announcer.handle_neighbor_down(peer_id(peer), now);
        }
        self.drain(node);
    }

    /// Does what the node's announcer asks for.
    fn drain(&mut self, node: usize) {
        while let Some(output) = self.nodes[node].announcer.poll_output() {
            match output {
                AnnouncerOutput::Announce { changed, periodic } => {
                    let message = self.nodes[node].announcement(node, &changed, periodic);
                    self.say(node, message);
                }
                AnnouncerOutput::SendRuns { authors } => {
                    let message = self.nodes[node].runs(&authors, self.options.payload);
                    self.say(node, message);
                }
                AnnouncerOutput::Pull { peer } => self.begin_pull(node, node_of(&peer)),
                AnnouncerOutput::GiveUp { peer } => {
                    let failed = PullEnded::Failed;
                    let (now, announcer) = (self.now, &mut self.nodes[node].announcer);
                    announcer.handle_pull_ended(peer, failed, now);
                }
                AnnouncerOutput::HistorySynced { .. } => {}
            }
        }
        let due = self.nodes[node].announcer.next_timeout();
        let Some(due) = due.map(|due| due.max(self.now)) else {
            self.nodes[node].wake = None;
            return;
        };
        if self.nodes[node].wake != Some(due) {
            self.nodes[node].wake = Some(due);
            self.at(due, Happening::Wake { node });
        }
    }

    fn say(&mut self, node: usize, message: Message) {
        assert!(message.bytes <= self.options.announcer.max_content_bytes);
        let id = self.messages.len();
        self.messages.push(Rc::new(message));
        self.known.insert((node, id));
        self.forward(node, None, id);
    }

    /// A node announces a head that it need not hold, and signs it with its author.
    pub(crate) fn claim(&mut self, node: usize, author: usize, seq: u64) {
        let said = Said::Announcement {
            from: node,
            digest: self.nodes[node].digest(),
            periodic: false,
            heads: vec![(author, seq)],
        };
        self.say(node, Message { said, bytes: 0 });
    }

    fn reach(&self, node: usize, peer: usize) -> bool {
        let (ours, theirs) = (&self.nodes[node], &self.nodes[peer]);
        ours.up && theirs.up && ours.side == theirs.side
    }

    fn forward(&mut self, node: usize, from: Option<usize>, id: usize) {
        let neighbors: Vec<_> = self.nodes[node].neighbors.iter().copied().collect();
        for to in neighbors {
            if from == Some(to) || self.rng.below(1_000) < self.options.lost_copies {
                continue;
            }
            let when = self.now + self.delay();
            let via = node;
            self.at(when, Happening::Copy { to, via, id });
        }
    }

    fn deliver(&mut self, to: usize, via: usize, id: usize) {
        if !self.reach(to, via) {
            return;
        }
        self.nodes[to].tally.copies += 1;
        if !self.known.insert((to, id)) {
            return;
        }
        self.forward(to, Some(via), id);
        if self.rng.below(1_000) < self.options.unread {
            if self.options.notices_unread {
                self.nodes[to].announcer.handle_overflow(self.now);
                self.drain(to);
            }
            return;
        }
        self.hear(to, via, id);
    }

    fn hear(&mut self, to: usize, via: usize, id: usize) {
        let message = self.messages[id].clone();
        let payload = self.options.payload;
        let node = &mut self.nodes[to];
        node.tally.heard += 1;
        node.tally.heard_bytes += message.bytes as u64;
        let mut grown = Vec::new();
        let claim = |node: &mut Node, author, seq| {
            node.told(author, seq);
            Claim {
                author: author_id(author),
                seq,
                held: node.heads[author],
            }
        };
        match &message.said {
            Said::Announcement {
                from,
                digest,
                periodic,
                heads,
            } => {
                let claims = heads.iter().map(|&(author, seq)| claim(node, author, seq));
                let heard = HeardAnnouncement {
                    from: peer_id(*from),
                    delivered_by: peer_id(via),
                    digest: *digest,
                    periodic: *periodic,
                    claims: claims.collect(),
                    forks: Vec::new(),
                };
                node.announcer.handle_announcement(heard, self.now);
            }
            Said::Runs(runs) => {
                let mut claims = Vec::new();
                for &(author, above, through) in runs {
                    let held = node.heads[author];
                    if (above..through).contains(&held) {
                        grown.push(node.raise(author, through, payload));
                    }
                    claims.push(claim(node, author, through));
                }
                node.announcer
                    .handle_runs(Some(peer_id(via)), claims, self.now);
            }
        }
        if !grown.is_empty() {
            self.caught_up(to);
            self.grew(to, grown);
        }
        self.drain(to);
    }

    fn caught_up(&mut self, node: usize) {
        if self.nodes[node].heads == self.written {
            self.behind -= 1;
        }
    }

    /// Reports growth that came by a pull, to either side.
    fn synced(&mut self, node: usize, grown: Vec<Grown>) {
        if grown.is_empty() {
            return;
        }
        self.caught_up(node);
        let (digest, now) = (self.nodes[node].digest(), self.now);
        let announcer = &mut self.nodes[node].announcer;
        announcer.handle_synced(digest, grown, now);
        self.drain(node);
    }

    fn begin_pull(&mut self, node: usize, peer: usize) {
        self.nodes[node].tally.pulls += 1;
        *self.asked.entry((node, peer)).or_default() += 1;
        if self.stalling.contains(&peer) {
            return;
        }
        let reaches = self.reach(node, peer) && !self.refusing.contains(&peer);
        let takes = if reaches {
            let at = &mut self.nodes[peer];
            at.tally.served += 1;
            at.serving += 1;
            at.most_serving = at.most_serving.max(at.serving);
            // A connection, a question, an answer.
            self.delay() * 5
        } else {
            seconds(3)
        };
        let lives = (self.nodes[node].life, self.nodes[peer].life);
        let lives = if reaches { lives } else { (lives.0, u64::MAX) };
        let when = self.now + takes;
        self.at(when, Happening::PullEnds { node, peer, lives });
    }

    fn end_pull(&mut self, node: usize, peer: usize, lives: (u64, u64)) {
        if self.nodes[peer].life == lives.1 {
            self.nodes[peer].serving -= 1;
        }
        if !self.nodes[node].up || self.nodes[node].life != lives.0 {
            return;
        }
        let now = self.now;
        if self.nodes[peer].life != lives.1 || !self.reach(node, peer) {
            let failed = PullEnded::Failed;
            let announcer = &mut self.nodes[node].announcer;
            announcer.handle_pull_ended(peer_id(peer), failed, now);
            self.drain(node);
            return;
        }
        let (mut ours, mut theirs, mut events) = (Vec::new(), Vec::new(), 0);
        let withholds = self.withholding.contains(&peer);
        for author in 0..self.written.len() {
            let (held, other) = (
                self.nodes[node].heads[author],
                self.nodes[peer].heads[author],
            );
            if held < other && !withholds {
                events += other - held;
                ours.push(self.nodes[node].raise(author, other, self.options.payload));
            } else if other < held {
                theirs.push(self.nodes[peer].raise(author, held, self.options.payload));
            }
        }
        let idle = ours.is_empty() && theirs.is_empty();
        self.nodes[node].tally.idle_pulls += u64::from(idle);
        self.synced(peer, theirs);
        self.synced(node, ours);
        let digest = self.nodes[node].digest();
        let ended = PullEnded::Complete { digest, events };
        let announcer = &mut self.nodes[node].announcer;
        announcer.handle_pull_ended(peer_id(peer), ended, now);
        self.drain(node);
    }

    /// The sum over all nodes since the last call.
    pub(crate) fn take_tally(&mut self) -> Tally {
        let mut sum = Tally::default();
        for node in &mut self.nodes {
            let tally = core::mem::take(&mut node.tally);
            sum.announced += tally.announced;
            sum.periodic += tally.periodic;
            sum.heard += tally.heard;
            sum.heard_bytes += tally.heard_bytes;
            sum.copies += tally.copies;
            sum.pulls += tally.pulls;
            sum.idle_pulls += tally.idle_pulls;
            sum.served += tally.served;
        }
        sum
    }

    /// Most pulls one node served at a time since the last call.
    pub(crate) fn take_most_serving(&mut self) -> usize {
        let nodes = self.nodes.iter_mut();
        nodes
            .map(|node| core::mem::replace(&mut node.most_serving, node.serving))
            .max()
            .unwrap_or(0)
    }
}
