//! One node: an announcer, the heads it holds, and what was counted.

use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};

use headwater_proto::announcer::{
    ANNOUNCEMENT_FIXED_BYTES, Announcer, AnnouncerConfig, Grown, HEAD_BYTES, PeerId,
    RUN_PREFIX_BYTES, RUNS_FIXED_BYTES,
};
use headwater_wire::{AuthorId, HeadsDigest};

use crate::rng::Rng;

/// Bytes of a run beside its events: versions, author, seqs, a signature.
const RUN_BYTES: u64 = 180;
/// Bytes of an event beside its payload.
const EVENT_BYTES: u64 = 50;

/// What the network carries.
#[derive(Debug)]
pub(crate) struct Message {
    pub(crate) said: Said,
    pub(crate) bytes: usize,
}

#[derive(Debug)]
pub(crate) enum Said {
    Announcement {
        from: usize,
        digest: HeadsDigest,
        periodic: bool,
        heads: Vec<(usize, u64)>,
    },
    /// Author, and the events above one seq through another.
    Runs(Vec<(usize, u64, u64)>),
}

#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Tally {
    /// Announcements made, and messages of runs.
    pub(crate) announced: u64,
    pub(crate) periodic: u64,
    /// Messages heard, each once, and their bytes.
    pub(crate) heard: u64,
    pub(crate) heard_bytes: u64,
    /// Copies received, those of known messages included.
    pub(crate) copies: u64,
    /// Pulls begun.
    pub(crate) pulls: u64,
    /// Pulls that brought or gave nothing.
    pub(crate) idle_pulls: u64,
    pub(crate) served: u64,
}

pub(crate) struct Node {
    pub(crate) announcer: Announcer,
    pub(crate) heads: Vec<u64>,
    lanes: [u64; 4],
    pub(crate) up: bool,
    /// Which part of the network it is in.
    pub(crate) side: u8,
    pub(crate) neighbors: BTreeSet<usize>,
    /// Events not yet named by an announcement of ours: author, above, through.
    unsent: BTreeMap<usize, (u64, u64)>,
    /// When it is to be woken.
    pub(crate) wake: Option<Duration>,
    /// Grows with every restart, so that a pull begun before is not answered after.
    pub(crate) life: u64,
    pub(crate) serving: usize,
    pub(crate) most_serving: usize,
    pub(crate) tally: Tally,
}

impl Node {
    pub(crate) fn new(config: &AnnouncerConfig, authors: usize, seed: u64) -> Self {
        Self {
            announcer: Announcer::new(config.clone(), seed, HeadsDigest::EMPTY),
            heads: vec![0; authors],
            lanes: [0; 4],
            up: true,
            side: 0,
            neighbors: BTreeSet::new(),
            unsent: BTreeMap::new(),
            wake: None,
            life: 0,
            serving: 0,
            most_serving: 0,
            tally: Tally::default(),
        }
    }

    /// Starts again with what it holds.
    pub(crate) fn restart(&mut self, config: &AnnouncerConfig, seed: u64) {
        self.announcer = Announcer::new(config.clone(), seed, self.digest());
        (self.up, self.wake) = (true, None);
        (self.serving, self.life) = (0, self.life + 1);
        self.unsent.clear();
        self.neighbors.clear();
    }

    pub(crate) fn digest(&self) -> HeadsDigest {
        let mut bytes = [0; 32];
        for (to, lane) in bytes.chunks_exact_mut(8).zip(self.lanes) {
            to.copy_from_slice(&lane.to_le_bytes());
        }
        HeadsDigest::from_bytes(bytes)
    }

    /// Holds the author's events through `seq` from now on.
    pub(crate) fn raise(&mut self, author: usize, seq: u64, payload: u64) -> Grown {
        let held = self.heads[author];
        assert!(held < seq);
        for (at, lane) in self.lanes.iter_mut().enumerate() {
            for head in [held, seq] {
                if head > 0 {
                    let seed = (author as u64) << 40 ^ head << 8 ^ at as u64;
                    *lane ^= Rng::new(seed).next();
                }
            }
        }
        self.heads[author] = seq;
        let unsent = self.unsent.entry(author).or_insert((held, seq));
        unsent.1 = seq;
        let size = run_bytes(unsent.1 - unsent.0, payload);
        Grown {
            author: author_id(author),
            head_seq: seq,
            size: (size <= 4_096).then_some(size as usize),
        }
    }

    /// Somebody else told everybody of these.
    pub(crate) fn told(&mut self, author: usize, seq: u64) {
        if self.unsent.get(&author).is_some_and(|(_, own)| *own <= seq) {
            self.unsent.remove(&author);
        }
    }

    /// Fills in what the announcer decided to say.
    pub(crate) fn announcement(
        &mut self,
        own: usize,
        changed: &[AuthorId],
        periodic: bool,
    ) -> Message {
        let mut heads = Vec::new();
        for author in changed.iter().map(author_of) {
            self.unsent.remove(&author);
            heads.push((author, self.heads[author]));
        }
        self.tally.announced += u64::from(!periodic);
        self.tally.periodic += u64::from(periodic);
        Message {
            bytes: ANNOUNCEMENT_FIXED_BYTES + heads.len() * HEAD_BYTES,
            said: Said::Announcement {
                from: own,
                digest: self.digest(),
                periodic,
                heads,
            },
        }
    }

    /// The runs that the announcer decided to send.
    pub(crate) fn runs(&mut self, authors: &[AuthorId], payload: u64) -> Message {
        let mut bytes = RUNS_FIXED_BYTES;
        let mut runs = Vec::new();
        for author in authors.iter().map(author_of) {
            let (above, through) = self.unsent.remove(&author).expect("it grew");
            bytes += RUN_PREFIX_BYTES + run_bytes(through - above, payload) as usize;
            runs.push((author, above, through));
        }
        self.tally.announced += 1;
        Message {
            said: Said::Runs(runs),
            bytes,
        }
    }
}

fn run_bytes(events: u64, payload: u64) -> u64 {
    RUN_BYTES + events * (EVENT_BYTES + payload)
}

pub(crate) fn peer_id(node: usize) -> PeerId {
    PeerId::from_bytes(key(node))
}

pub(crate) fn node_of(peer: &PeerId) -> usize {
    index(peer.as_bytes())
}

pub(crate) fn author_id(author: usize) -> AuthorId {
    AuthorId::from_bytes(key(author))
}

fn author_of(author: &AuthorId) -> usize {
    index(author.as_bytes())
}

fn key(index: usize) -> [u8; 32] {
    let mut key = [0; 32];
    key[..8].copy_from_slice(&(index as u64).to_be_bytes());
    key
}

fn index(key: &[u8; 32]) -> usize {
    u64::from_be_bytes(*key.first_chunk().expect("32 bytes hold 8")) as usize
}
