//! Heads that were announced and are missing here, and who can be asked for them.
//!
//! Invariant: a want has a provider, and its seq is above what is held here.

use std::collections::{BTreeMap, BTreeSet};

use headwater_wire::AuthorId;

use super::{AnnouncerConfig, PeerId};

/// Somebody to ask for a missing head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Provider {
    pub(super) peer: PeerId,
    /// The seq it stands for.
    pub(super) seq: u64,
    /// Whether it announced the head. Else it only relayed the announcement, and owes nothing.
    pub(super) promised: bool,
    /// Pulls from it that did not bring the head.
    pub(super) tries: u32,
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
    wants: BTreeMap<AuthorId, Want>,
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

    /// A peer announced a head above what is held. False if there is no place for it.
    pub(super) fn claim(
        &mut self,
        author: AuthorId,
        seq: u64,
        from: PeerId,
        relay: Option<PeerId>,
        config: &AnnouncerConfig,
    ) -> bool {
        if !self.wants.contains_key(&author) {
            if !self.make_place(from, config) {
                self.refused += 1;
                return false;
            }
            self.charges.add(from);
            let want = Want {
                seq,
                providers: Vec::new(),
                charged: from,
            };
            self.wants.insert(author, want);
        }
        let Some(want) = self.wants.get_mut(&author) else {
            return false;
        };
        want.seq = want.seq.max(seq);
        let max = config.max_providers.max(1);
        let asked = [Some((from, true)), relay.map(|relay| (relay, false))];
        for (peer, promised) in asked.into_iter().flatten() {
            match want.add(peer, seq, promised, max) {
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
            .map(|(author, _)| *author);
        evicted.is_some_and(|author| {
            self.refused += 1;
            self.remove(author)
        })
    }

    /// What is held now. Providers that stand for no more than that have done their part.
    pub(super) fn held(&mut self, author: AuthorId, seq: u64) {
        let Some(want) = self.wants.get_mut(&author) else {
            return;
        };
        let mut lost = false;
        want.providers.retain(|provider| {
            let stays = provider.seq > seq;
            if !stays {
                self.provided.remove(provider.peer);
                lost = true;
            }
            stays
        });
        if seq >= want.seq || !want.lower_to_providers() {
            self.remove(author);
        } else {
            self.shifted |= lost;
        }
    }

    /// Whether the peer still stands for this head, and for none above it.
    pub(super) fn lacks(&self, author: AuthorId, seq: u64, peer: PeerId) -> bool {
        self.wants.get(&author).is_some_and(|want| {
            let stands = |provider: &Provider| provider.peer == peer && provider.seq == seq;
            want.providers.iter().any(stands)
        })
    }

    /// A pull from `peer` did not bring this head. After `max_tries` of them it is asked no more.
    pub(super) fn missed(&mut self, author: AuthorId, peer: PeerId, max_tries: u32) {
        let Some(want) = self.wants.get_mut(&author) else {
            return;
        };
        want.providers.retain_mut(|provider| {
            if provider.peer == peer {
                provider.tries += 1;
            }
            let stays = provider.peer != peer || provider.tries < max_tries;
            if !stays {
                self.provided.remove(peer);
            }
            stays
        });
        self.shifted = true;
        if !want.lower_to_providers() {
            self.dropped += 1;
            self.remove(author);
        }
    }

    /// The peer is no longer remembered.
    pub(super) fn forget(&mut self, peer: PeerId) {
        if self.count(peer) == 0 {
            return;
        }
        for (author, _) in self.of(peer) {
            self.missed(author, peer, 0);
        }
    }

    /// What a peer can be asked for, by ascending author.
    pub(super) fn of(&self, peer: PeerId) -> Vec<(AuthorId, Provider)> {
        let provider = |want: &Want| want.providers.iter().find(|p| p.peer == peer).copied();
        self.wants
            .iter()
            .filter_map(|(author, want)| Some((*author, provider(want)?)))
            .collect()
    }

    /// How much a peer can be asked for.
    pub(super) fn count(&self, peer: PeerId) -> usize {
        self.provided.of(peer)
    }

    /// Who can be asked for each of them.
    pub(super) fn providers(&self) -> impl Iterator<Item = (AuthorId, &[Provider])> {
        self.wants
            .iter()
            .map(|(author, want)| (*author, want.providers.as_slice()))
    }

    fn remove(&mut self, author: AuthorId) -> bool {
        let Some(want) = self.wants.remove(&author) else {
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
    /// In a full list the newcomer takes the place of whoever stands for least, if that is less.
    fn add(&mut self, peer: PeerId, seq: u64, promised: bool, max: usize) -> Added {
        if let Some(known) = self.providers.iter_mut().find(|known| known.peer == peer) {
            if seq > known.seq {
                (known.seq, known.tries) = (seq, 0);
            }
            known.promised |= promised;
            return Added::Known;
        }
        let newcomer = Provider {
            peer,
            seq,
            promised,
            tries: 0,
        };
        if self.providers.len() < max {
            self.providers.push(newcomer);
            return Added::New;
        }
        let least = self.providers.iter_mut().min_by_key(|p| p.seq);
        match least.filter(|least| least.seq < seq) {
            Some(least) => Added::InPlaceOf(core::mem::replace(least, newcomer).peer),
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
