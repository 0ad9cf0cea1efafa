//! What a peer's word was worth: promises against what came of them.
//!
//! ```text
//! announced ──▶ pulled ─┬▶ came                        kept: one demerit less
//!                       └▶ did not, though all came    broken: two more, and a pause
//!                             └▶ another brings it     withheld: four more
//! two receipts that contradict each other              caught: behind everybody, for good
//! ```
//!
//! Invariant: demerits decide who is asked first and how often, never whether something is asked for
//! that nobody else has. What only a liar has is asked of the liar, after its pause.

use core::time::Duration;
use std::collections::{BTreeMap, VecDeque};

use super::{AnnouncerConfig, PeerId, wants::Sought};

/// Demerits for a pull that ended well without something its peer had announced.
const FOR_BROKEN: u32 = 2;

/// Demerits beside, once another peer brings it: then it is known to exist.
const FOR_WITHHELD: u32 = 4;

/// Most demerits for promises: so many kept ones until all is forgotten. With a pause of 2 s it is a
/// pull in 64 s that a liar can cause.
const MAX_PENALTY: u32 = 12;

/// Demerits of a peer that was caught: behind whoever merely failed.
const FOR_CAUGHT: u32 = 1_000;

/// Demerits that delay a pull, each by the jitter; more only rank.
const MAX_DELAYING: u32 = 16;

/// Contradictions in a row without a proof that are nobody's fault: what contradicts a cut log is said
/// by whoever has not heard of the cut.
const INNOCENT_CONTRADICTIONS: u32 = 1;

/// What is counted of one peer since it is remembered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PeerCounters {
    /// Pulls begun from it.
    pub pulls: u64,
    /// Pulls that failed, or were given up without a sign of life.
    pub pulls_failed: u64,
    /// Heads and proofs it announced that were here after a pull from it.
    pub promises_kept: u64,
    /// Those that were not, though the pull ended complete.
    pub promises_broken: u64,
    /// Those among the broken ones that another peer brought later.
    pub withheld: u64,
    /// Pulls because of something that contradicts a log held here, without a proof of it.
    pub unproven: u64,
}

/// How one peer stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerStanding {
    /// Who.
    pub peer: PeerId,
    /// How far behind others it ranks when there is a choice; 0 for a peer of good standing.
    pub demerits: u32,
    /// Whether its receipts were told to contradict each other.
    pub caught: bool,
    /// What was counted.
    pub counters: PeerCounters,
}

/// What is remembered of a peer's word.
#[derive(Debug, Default)]
pub(super) struct Standing {
    /// For promises broken lately.
    penalty: u32,
    /// Pulls that failed in a row.
    pub(super) failures: u32,
    /// Pulls in a row that did not bring all, and did not fail either.
    pub(super) cut_short: u32,
    /// Pulls in a row that brought nothing, as what the peer has beside is not stored here.
    pub(super) in_vain: u32,
    /// Pulls in a row for what only runs spoke of, that brought nothing of it.
    pub(super) for_nothing: u32,
    /// Contradictions in a row of which no proof came.
    unproven: u32,
    /// It said something that contradicts us, and a pull is to show what.
    pub(super) contradicts: bool,
    pub(super) caught: bool,
    pub(super) counters: PeerCounters,
}

impl Standing {
    /// Whether a pull from it came to an end before.
    pub(super) fn has_answered(&self) -> bool {
        self.counters.pulls > self.counters.pulls_failed
    }

    /// How far behind others it ranks.
    pub(super) fn demerits(&self) -> u32 {
        let caught = if self.caught { FOR_CAUGHT } else { 0 };
        (self.penalty.saturating_add(self.failures)).saturating_add(caught)
    }

    /// Whether it broke promises, and did not make up for it.
    pub(super) fn is_doubted(&self) -> bool {
        self.penalty > 0 || self.caught
    }

    /// How many times the jitter it is asked later than others.
    pub(super) fn delays(&self) -> u32 {
        self.demerits().min(MAX_DELAYING)
    }

    /// A pull brought all it had, and `kept` and `broken` of what it had announced. Tells how long it
    /// is left alone.
    pub(super) fn judge(&mut self, kept: u64, broken: u64, config: &AnnouncerConfig) -> Duration {
        self.counters.promises_kept += kept;
        self.counters.promises_broken += broken;
        (self.failures, self.cut_short) = (0, 0);
        if broken > 0 {
            return self.broke(config);
        }
        if kept > 0 {
            self.penalty = self.penalty.saturating_sub(1);
        }
        self.least_pause(config)
    }

    /// A pull showed nothing of what it had said against a log. Tells how long it is left alone, and
    /// how long its contradictions are no reason to ask.
    pub(super) fn proved_nothing(&mut self, config: &AnnouncerConfig) -> (Duration, Duration) {
        self.contradicts = false;
        self.counters.unproven += 1;
        self.unproven = self.unproven.saturating_add(1);
        let deaf = doubled(config.trickle.least(), self.unproven).min(config.backoff_cap);
        if self.unproven <= INNOCENT_CONTRADICTIONS {
            return (self.least_pause(config), deaf);
        }
        self.counters.promises_broken += 1;
        (self.broke(config), deaf)
    }

    /// A log was cut: what was said against it was right.
    pub(super) fn proved(&mut self) {
        (self.contradicts, self.unproven) = (false, 0);
    }

    pub(super) fn withheld(&mut self) {
        self.counters.withheld += 1;
        self.penalty = (self.penalty + FOR_WITHHELD).min(MAX_PENALTY);
    }

    fn broke(&mut self, config: &AnnouncerConfig) -> Duration {
        self.penalty = (self.penalty + FOR_BROKEN).min(MAX_PENALTY);
        let pause = doubled(
            config.pull_pause,
            (self.penalty / FOR_BROKEN).saturating_sub(1),
        );
        pause.min(config.backoff_cap).max(self.least_pause(config))
    }

    /// Who was caught is pulled from seldom, whatever it brings.
    fn least_pause(&self, config: &AnnouncerConfig) -> Duration {
        match self.caught {
            true => config.trickle.most(),
            false => Duration::ZERO,
        }
    }
}

/// `times` times twice as long.
pub(super) fn doubled(first: Duration, times: u32) -> Duration {
    first.saturating_mul(1 << times.min(31))
}

/// What peers announced and did not bring when they gave all they had. The oldest makes place.
#[derive(Debug, Default)]
pub(super) struct Owed {
    seqs: BTreeMap<(Sought, PeerId), u64>,
    order: VecDeque<(Sought, PeerId)>,
}

impl Owed {
    pub(super) fn note(&mut self, sought: Sought, seq: u64, peer: PeerId, max: usize) {
        let known = self.seqs.entry((sought, peer)).or_insert_with(|| {
            self.order.push_back((sought, peer));
            seq
        });
        *known = seq.min(*known);
        while self.seqs.len() > max || self.order.len() > max.saturating_mul(2) {
            let Some(oldest) = self.order.pop_front() else {
                return;
            };
            self.seqs.remove(&oldest);
        }
    }

    /// It is here now. Returns who had owed it.
    pub(super) fn came(&mut self, sought: Sought, seq: u64) -> Vec<PeerId> {
        if self.seqs.is_empty() {
            return Vec::new();
        }
        let (first, last) = (
            PeerId::from_bytes([0; 32]),
            PeerId::from_bytes([u8::MAX; 32]),
        );
        let all = self.seqs.range((sought, first)..=(sought, last));
        let came = all
            .filter(|(_, owed)| **owed <= seq)
            .map(|((_, peer), _)| *peer);
        let came: Vec<_> = came.collect();
        for peer in &came {
            self.seqs.remove(&(sought, *peer));
        }
        came
    }

    /// What is above `seq` nobody could bring.
    pub(super) fn cap(&mut self, sought: Sought, seq: u64) {
        self.seqs
            .retain(|(owed, _), at| *owed != sought || *at <= seq);
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.seqs.len().max(self.order.len() / 2)
    }
}
