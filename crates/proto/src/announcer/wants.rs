//! Heads that were announced and are missing here, proofs of forks as well, and who can be asked for
//! them.
//!
//! Invariant: a want has a provider, and its seq is above what is held here.

use core::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use headwater_wire::AuthorId;

use super::{AnnouncerConfig, PeerId};

/// What is missing here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Sought {
    /// Events of a log, up to the head with the highest seq that was announced.
    Head(AuthorId),
    /// The proof that a log forks, of which announcements only say that it does. Kept apart from the
    /// heads: those their authors signed, and this nobody did.
    Cut(AuthorId),
}

impl Sought {
    pub(super) fn author(self) -> AuthorId {
        match self {
            Self::Head(author) | Self::Cut(author) => author,
        }
    }
}

/// Most relays remembered of one want that had nothing of it: as many as a node has neighbours, about.
const MAX_PASSED_OVER: usize = 16;

/// What stands for a proof where a head has its seq.
pub(super) const PROOF: u64 = 1;

/// Somebody to ask for a missing head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Provider {
    pub(super) peer: PeerId,
    /// The highest seq it announced, or relayed.
    pub(super) seq: u64,
    /// The highest seq it announced. What it only relayed it does not owe.
    pub(super) promised: Option<u64>,
    /// Pulls from it that did not bring the head, nor anything else of the log. Of one that promised
    /// nothing: whatever seqs were wanted, or whoever announces ever higher ones could have it asked for
    /// ever.
    pub(super) tries: u32,
}

/// What a pull did not bring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Missing {
    All,
    /// The peer announced more of it while it was asked.
    AndMorePromised,
}

/// What became of a newcomer among the providers of a want.
enum Added {
    Known,
    New,
    InPlaceOf(PeerId),
    Full,
}

#[derive(Debug)]
struct Want {
    seq: u64,
    /// The highest seq known to be held since it is wanted.
    held: u64,
    /// Who relayed it, was asked, and did not bring anything of it.
    passed_over: Vec<PeerId>,
    providers: Vec<Provider>,
    /// Whose share of the table it takes.
    charged: PeerId,
}

/// How many wants each peer has to do with, and who has most.
#[derive(Debug, Default)]
struct Counts {
    counts: BTreeMap<PeerId, usize>,
    by_count: BTreeSet<(usize, PeerId)>,
}

impl Counts {
    fn of(&self, peer: PeerId) -> usize {
        self.counts.get(&peer).copied().unwrap_or(0)
    }

    fn add(&mut self, peer: PeerId) {
        self.set(peer, self.of(peer) + 1);
    }

    fn remove(&mut self, peer: PeerId) {
        self.set(peer, self.of(peer).saturating_sub(1));
    }

    fn set(&mut self, peer: PeerId, count: usize) {
        let before = self.counts.insert(peer, count).unwrap_or(0);
        self.by_count.remove(&(before, peer));
        if count == 0 {
            self.counts.remove(&peer);
        } else {
            self.by_count.insert((count, peer));
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Wants {
    wants: BTreeMap<Sought, Want>,
    /// By the peer a want is charged to.
    charges: Counts,
    /// By the peers that can be asked.
    provided: Counts,
    /// A want lost a provider and has others: perhaps none of them is about to be asked.
    pub(super) shifted: bool,
    /// Given up.
    pub(super) dropped: u64,
    /// Not taken in.
    pub(super) refused: u64,
}

impl Wants {
    pub(super) fn len(&self) -> usize {
        self.wants.len()
    }

    /// A head above what is held was announced: by a peer, or by nobody who could be asked, and perhaps by
    /// way of another. False if there is nobody to ask, or no place for it.
    pub(super) fn claim(
        &mut self,
        (sought, seq, from, relay): (Sought, u64, Option<PeerId>, Option<PeerId>),
        demerits: impl Fn(PeerId) -> u32,
        config: &AnnouncerConfig,
    ) -> bool {
        let Some(charged) = from.or(relay) else {
            return false;
        };
        if !self.wants.contains_key(&sought) {
            if !self.make_place(charged, config) {
                self.refused += 1;
                return false;
            }
            self.charges.add(charged);
            let want = Want {
                seq,
                held: 0,
                passed_over: Vec::new(),
                providers: Vec::new(),
                charged,
            };
            self.wants.insert(sought, want);
        }
        let Some(want) = self.wants.get_mut(&sought) else {
            return false;
        };
        want.seq = want.seq.max(seq);
        let max = config.max_providers.max(1);
        let asked = [
            from.map(|from| (from, true)),
            relay.map(|relay| (relay, false)),
        ];
        for (peer, promised) in asked.into_iter().flatten() {
            match want.add(peer, seq, promised, max, &demerits) {
                Added::Known | Added::Full => continue,
                Added::New => {}
                Added::InPlaceOf(other) => {
                    self.provided.remove(other);
                    self.shifted = true;
                }
            }
            self.provided.add(peer);
        }
        true
    }

    /// A quarter of the table is one peer's share. In a full table the newcomer takes the place of
    /// a want of whoever has most, if that is more than the newcomer's peer would then have.
    fn make_place(&mut self, from: PeerId, config: &AnnouncerConfig) -> bool {
        let own = self.charges.of(from);
        if own >= (config.max_wants / 4).max(1) {
            return false;
        }
        if self.wants.len() < config.max_wants {
            return true;
        }
        let Some(&(count, heaviest)) = self.charges.by_count.last() else {
            return false;
        };
        if count <= own + 1 {
            return false;
        }
        let evicted = self
            .wants
            .iter()
            .rfind(|(_, want)| want.charged == heaviest)
            .map(|(sought, _)| *sought);
        evicted.is_some_and(|sought| {
            self.refused += 1;
            self.remove(sought)
        })
    }

    /// What is held now. Providers that stand for no more than that have done their part.
    pub(super) fn held(&mut self, sought: Sought, seq: u64) {
        let Some(want) = self.wants.get_mut(&sought) else {
            return;
        };
        let mut lost = false;
        let moves = seq > want.held;
        want.held = want.held.max(seq);
        if moves {
            want.passed_over.clear();
        }
        want.providers.retain_mut(|provider| {
            let stays = provider.seq > seq;
            if moves {
                provider.tries = 0;
            }
            provider.promised = provider.promised.filter(|promised| *promised > seq);
            if !stays {
                self.provided.remove(provider.peer);
                lost = true;
            }
            stays
        });
        if seq >= want.seq || !want.lower_to_providers() {
            self.remove(sought);
        } else {
            self.shifted |= lost;
        }
    }

    /// No more than through `seq` is stored here, whoever brings it.
    pub(super) fn cap(&mut self, sought: Sought, seq: u64) {
        let Some(want) = self.wants.get_mut(&sought) else {
            return;
        };
        if want.held >= seq {
            self.remove(sought);
            return;
        }
        want.seq = want.seq.min(seq);
        for provider in &mut want.providers {
            provider.seq = provider.seq.min(seq);
            provider.promised = provider.promised.map(|promised| promised.min(seq));
        }
    }

    /// Whether what a pull was to bring is still missing after it; and then whether the peer stands for
    /// more by now, by what it announced meanwhile.
    pub(super) fn lacks(&self, sought: Sought, seq: u64, peer: PeerId) -> Option<Missing> {
        let want = self.wants.get(&sought)?;
        if want.held >= seq {
            return None;
        }
        let of_peer = want.providers.iter().find(|known| known.peer == peer);
        Some(match of_peer {
            Some(known) if known.promised > Some(seq) => Missing::AndMorePromised,
            _ => Missing::All,
        })
    }

    /// Whether anybody announced it. Else it is known from runs alone, which nobody signs to have sent.
    pub(super) fn is_promised(&self, sought: Sought) -> bool {
        let want = self.wants.get(&sought);
        want.is_some_and(|want| want.providers.iter().any(|it| it.promised.is_some()))
    }

    /// A pull from `peer` did not bring this head. After `max_tries` of them it is asked no more.
    pub(super) fn missed(&mut self, sought: Sought, peer: PeerId, max_tries: u32) {
        let Some(want) = self.wants.get_mut(&sought) else {
            return;
        };
        want.providers.retain_mut(|provider| {
            if provider.peer == peer {
                provider.tries += 1;
            }
            let stays = provider.peer != peer || provider.tries < max_tries;
            if !stays {
                self.provided.remove(peer);
                if provider.promised.is_none() && want.passed_over.len() < MAX_PASSED_OVER {
                    want.passed_over.push(peer);
                }
            }
            stays
        });
        self.shifted = true;
        if !want.lower_to_providers() {
            self.dropped += 1;
            self.remove(sought);
        }
    }

    /// The peer is no longer remembered.
    pub(super) fn forget(&mut self, peer: PeerId) {
        if self.count(peer) == 0 {
            return;
        }
        for (sought, _) in self.of(peer) {
            self.missed(sought, peer, 0);
        }
    }

    /// What a peer can be asked for, in ascending order.
    pub(super) fn of(&self, peer: PeerId) -> Vec<(Sought, Provider)> {
        let provider = |want: &Want| want.providers.iter().find(|p| p.peer == peer).copied();
        self.wants
            .iter()
            .filter_map(|(sought, want)| Some((*sought, provider(want)?)))
            .collect()
    }

    /// How much a peer can be asked for.
    pub(super) fn count(&self, peer: PeerId) -> usize {
        self.provided.of(peer)
    }

    /// Who can be asked for each of them.
    pub(super) fn providers(&self) -> impl Iterator<Item = (Sought, &[Provider])> {
        self.wants
            .iter()
            .map(|(sought, want)| (*sought, want.providers.as_slice()))
    }

    fn remove(&mut self, sought: Sought) -> bool {
        let Some(want) = self.wants.remove(&sought) else {
            return false;
        };
        self.charges.remove(want.charged);
        for provider in want.providers {
            self.provided.remove(provider.peer);
        }
        true
    }
}

impl Want {
    /// In a full list the newcomer takes the place of whoever has most demerits, and of those stands for
    /// least, if it has fewer, or stands for more: so no crowd that promises keeps out who delivers.
    fn add(
        &mut self,
        peer: PeerId,
        seq: u64,
        promised: bool,
        max: usize,
        demerits: impl Fn(PeerId) -> u32,
    ) -> Added {
        if !promised && self.passed_over.contains(&peer) {
            return Added::Known;
        }
        if let Some(known) = self.providers.iter_mut().find(|known| known.peer == peer) {
            if seq > known.seq {
                known.seq = seq;
                if promised {
                    known.tries = 0;
                }
            }
            known.promised = known.promised.max(promised.then_some(seq));
            return Added::Known;
        }
        let newcomer = Provider {
            peer,
            seq,
            promised: promised.then_some(seq),
            tries: 0,
        };
        if self.providers.len() < max {
            self.providers.push(newcomer);
            return Added::New;
        }
        let worth = |provider: &Provider| (demerits(provider.peer), Reverse(provider.seq));
        let worst = self.providers.iter_mut().max_by_key(|known| worth(known));
        match worst.filter(|worst| worth(worst) > worth(&newcomer)) {
            Some(worst) => Added::InPlaceOf(core::mem::replace(worst, newcomer).peer),
            None => Added::Full,
        }
    }

    /// A seq nobody stands for any more is not wanted. False if nobody is left.
    fn lower_to_providers(&mut self) -> bool {
        let most = self.providers.iter().map(|provider| provider.seq).max();
        self.seq = most.unwrap_or(self.seq);
        most.is_some()
    }
}
