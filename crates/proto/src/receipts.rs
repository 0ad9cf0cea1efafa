//! Receipts kept side by side, so that a provider that answers one and the same state of its store in two
//! ways is found out.
//!
//! ```text
//! a pull ends ──▶ Answered ──▶ ReceiptBook ──▶ nothing, or a Refutation: the provider is caught
//! ```
//!
//! Invariant: a refutation holds two signatures of the provider it accuses, both checked by the
//! requester before they came here. So nobody can have another one caught.
//!
//! Both tables are bounded, in entries and in bytes: an answer holds whom its request left out, up to 1,024 authors.
//! What is forgotten can no longer be contradicted; who was caught is
//! forgotten last.

use std::collections::{BTreeMap, VecDeque};

use headwater_wire::{
    Answered, AuthorFilter, Clock, MemberKey, Refutation, SpaceId, SyncOutcome, SyncRequestV2,
};

/// Answers kept of one provider about one space. 16: a liar contradicts what it said lately, and an
/// honest one whose store grows makes the older ones worthless.
const ANSWERS: usize = 16;

/// Providers and spaces of which answers are kept. The one not heard of for longest goes first.
const PROVIDERS: usize = 512;

/// Bytes of all answers kept. 4 MiB: some 8,000 answers to requests that leave out nobody, and 120 to those
/// that leave out as many as they can. The oldest of whoever was not heard of for longest goes first.
const ANSWER_BYTES: usize = 4 * 1024 * 1024;

/// Providers remembered as caught, with the proof. Each costs whoever makes them up two whole syncs; the
/// first caught goes first.
const CAUGHT: usize = 1_024;

/// Bytes of all proofs kept. 16 MiB: all of them if few authors are left out, and 240 of the largest.
const CAUGHT_BYTES: usize = 16 * 1024 * 1024;

/// What providers answered, and who was caught.
#[derive(Debug, Default)]
pub struct ReceiptBook {
    answers: BTreeMap<(MemberKey, SpaceId), VecDeque<Answered>>,
    /// What they take.
    answer_bytes: usize,
    /// The one not heard of for longest first.
    order: VecDeque<(MemberKey, SpaceId)>,
    caught: VecDeque<Refutation>,
    /// What they take.
    caught_bytes: usize,
}

impl ReceiptBook {
    /// Nothing is known of anybody.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes an answer whose signature is checked. Returns the proof if it contradicts an earlier one
    /// of the same provider.
    pub fn note(&mut self, answered: Answered) -> Option<Refutation> {
        let (provider, facts) = (answered.receipt.provider, answered.receipt.facts);
        if facts.outcome != SyncOutcome::Complete {
            return None;
        }
        let key = (provider, answered.request.space);
        self.order.retain(|other| *other != key);
        self.order.push_back(key);
        while self.order.len() > PROVIDERS {
            if let Some(oldest) = self.order.pop_front() {
                let forgotten = self.answers.remove(&oldest);
                self.answer_bytes -= forgotten.iter().flatten().map(memory_of).sum::<usize>();
            }
        }
        let answers = self.answers.entry(key).or_default();
        // A store that counts anew is another one: it is not to be held against its provider.
        let newest = answers.back().map(|last| last.receipt.facts.generation);
        if newest.is_some_and(|newest| facts.generation < newest) {
            self.answer_bytes -= answers.drain(..).map(|it| memory_of(&it)).sum::<usize>();
        }
        let refutes = |earlier: &&Answered| answered.refutes(earlier);
        let refutation = answers.iter().find(refutes).map(|earlier| Refutation {
            earlier: earlier.clone(),
            later: answered.clone(),
        });
        let said = |it: &Answered| {
            let facts = &it.receipt.facts;
            (facts.generation, facts.stated, facts.joined_digest)
        };
        if !answers
            .iter()
            .any(|earlier| said(earlier) == said(&answered))
        {
            self.answer_bytes += memory_of(&answered);
            answers.push_back(answered);
            if answers.len() > ANSWERS {
                let oldest = answers.pop_front();
                self.answer_bytes -= oldest.iter().map(memory_of).sum::<usize>();
            }
        }
        self.forget_answers();
        let refutation = refutation?;
        if !self.is_caught(&provider) {
            self.caught_bytes += memory_of_proof(&refutation);
            self.caught.push_back(refutation.clone());
            while self.caught.len() > CAUGHT || self.caught_bytes > CAUGHT_BYTES {
                let Some(first) = self.caught.pop_front() else {
                    break;
                };
                self.caught_bytes -= memory_of_proof(&first);
            }
        }
        Some(refutation)
    }

    /// Forgets answers until the others fit.
    fn forget_answers(&mut self) {
        while self.answer_bytes > ANSWER_BYTES
            && let Some(longest) = self.order.front().copied()
        {
            let answers = self.answers.get_mut(&longest);
            if let Some(oldest) = answers.and_then(VecDeque::pop_front) {
                self.answer_bytes -= memory_of(&oldest);
            } else {
                self.answers.remove(&longest);
                self.order.pop_front();
            }
        }
    }

    /// Whether a provider is known to have lied.
    #[must_use]
    pub fn is_caught(&self, provider: &MemberKey) -> bool {
        self.caught
            .iter()
            .any(|proof| proof.provider() == *provider)
    }

    /// The first proof against everybody who was caught, the latest last.
    pub fn caught(&self) -> impl Iterator<Item = &Refutation> {
        self.caught.iter()
    }

    /// Forgets what was held against a provider, and what it answered. False if it was nothing.
    pub fn forgive(&mut self, provider: &MemberKey) -> bool {
        let before = self.caught.len();
        self.caught.retain(|proof| proof.provider() != *provider);
        self.answers.retain(|(of, _), _| of != provider);
        self.order.retain(|(of, _)| of != provider);
        self.caught_bytes = self.caught.iter().map(memory_of_proof).sum();
        self.answer_bytes = self.answers.values().flatten().map(memory_of).sum();
        self.caught.len() < before
    }
}

/// What an answer takes: itself, and the lists of its request.
fn memory_of(answered: &Answered) -> usize {
    let SyncRequestV2 { clock, filter, .. } = &answered.request;
    let heads = match clock {
        Clock::Heads | Clock::Digest(_) => 0,
        Clock::Cursor { changed, .. } => size_of_val(changed.as_slice()),
    };
    let authors = match &filter.authors {
        AuthorFilter::All => 0,
        AuthorFilter::Only(authors) | AuthorFilter::Except(authors) => {
            size_of_val(authors.as_slice())
        }
    };
    let channels = filter.channels.as_deref().map_or(0, size_of_val);
    let kinds = filter.kinds.as_deref().map_or(0, size_of_val);
    size_of::<Answered>() + heads + authors + channels + kinds
}

fn memory_of_proof(proof: &Refutation) -> usize {
    memory_of(&proof.earlier) + memory_of(&proof.later)
}

#[cfg(test)]
mod tests {
    use headwater_wire::{
        AuthorSecret, Budget, Clock, HeadsDigest, Receipt, ReceiptFacts, RequestHash, SyncFilter,
        SyncRequestV2, Truncation,
    };

    use super::*;

    fn answered(provider: u16, generation: u64, stated: u64, joined: u64) -> Answered {
        let digest = |n: u64| {
            let mut bytes = [0; 32];
            bytes[..8].copy_from_slice(&n.to_be_bytes());
            HeadsDigest::from_bytes(bytes)
        };
        let request = SyncRequestV2 {
            request_id: 1000 * stated + joined,
            space: SpaceId::from_bytes([7; 32]),
            clock: Clock::Digest(digest(stated)),
            filter: SyncFilter::default(),
            budget: Budget::default(),
            live: false,
        };
        let facts = ReceiptFacts {
            request: RequestHash::of(&request),
            stated: digest(stated),
            outcome: SyncOutcome::Complete,
            events: 1,
            stubs: 0,
            joined_digest: digest(joined),
            generation,
        };
        let mut key = [1; 32];
        key[..2].copy_from_slice(&provider.to_be_bytes());
        let receipt = Receipt::sign(&AuthorSecret::from_bytes(key), facts);
        Answered { request, receipt }
    }

    #[test]
    fn a_provider_that_adds_to_all_it_held_is_caught_with_a_proof_anybody_can_check() {
        let mut book = ReceiptBook::new();
        // It kept something back, then gave it out of the same state.
        assert_eq!(book.note(answered(1, 9, 5, 6)), None);
        assert_eq!(book.note(answered(1, 9, 6, 6)), None);
        let proof = book.note(answered(1, 9, 6, 7)).expect("it lied");
        assert_eq!(proof.verify(), Ok(true));
        assert!(book.is_caught(&proof.provider()));
        assert!(!book.is_caught(&answered(2, 9, 6, 7).receipt.provider));
        assert_eq!(book.caught().collect::<Vec<_>>(), [&proof]);
        // Another lie is told of, and the first proof is kept.
        assert!(book.note(answered(1, 9, 5, 8)).is_some());
        assert_eq!(book.caught().collect::<Vec<_>>(), [&proof]);
        assert!(book.forgive(&proof.provider()));
        assert!(!book.is_caught(&proof.provider()));
        assert!(!book.forgive(&proof.provider()));
        assert_eq!(
            book.note(answered(1, 9, 6, 7)),
            None,
            "what it said before is gone"
        );
    }

    #[test]
    fn an_honest_provider_whose_store_grows_or_is_replaced_is_never_caught() {
        let mut book = ReceiptBook::new();
        for generation in 1..50 {
            assert_eq!(
                book.note(answered(1, generation, generation, generation + 1)),
                None
            );
            assert_eq!(
                book.note(answered(1, generation, generation + 1, generation + 1)),
                None
            );
        }
        // A store that begins anew counts from one.
        for generation in 1..50 {
            assert_eq!(
                book.note(answered(1, generation, generation + 1, generation + 2)),
                None
            );
        }
        assert_eq!(book.caught().count(), 0);
    }

    #[test]
    fn what_was_cut_short_proves_nothing() {
        let mut book = ReceiptBook::new();
        let mut short = answered(1, 9, 5, 6);
        short.receipt.facts.outcome = SyncOutcome::Truncated(Truncation::Budget);
        assert_eq!(book.note(short), None);
        assert_eq!(book.note(answered(1, 9, 6, 7)), None);
    }

    fn without_many(mut answered: Answered) -> Answered {
        let author = |n: u64| {
            let mut key = [3; 32];
            key[..8].copy_from_slice(&n.to_be_bytes());
            headwater_wire::AuthorId::from_bytes(key)
        };
        answered.request.filter = SyncFilter::except((0..1_024).map(author).collect());
        answered
    }

    #[test]
    fn answers_to_long_requests_are_kept_within_a_bound_of_bytes_and_the_oldest_go() {
        let mut book = ReceiptBook::new();
        for n in 0..PROVIDERS as u16 {
            for stated in 0..4_u64 {
                let joined = stated + 100;
                book.note(without_many(answered(n, 9, 10 * stated, 10 * joined)));
                let kept = book
                    .answers
                    .values()
                    .flatten()
                    .map(memory_of)
                    .sum::<usize>();
                assert_eq!(book.answer_bytes, kept);
                assert!(kept <= ANSWER_BYTES);
            }
        }
        assert!(book.answer_bytes > ANSWER_BYTES / 2);
        assert!(8_000 * memory_of(&answered(1, 9, 5, 6)) < ANSWER_BYTES);
        assert_eq!(book.order.len(), book.answers.len());
        let lie = |n| without_many(answered(n, 9, 0, 7));
        assert_eq!(book.note(lie(0)), None, "what it said first is gone");
        let last = PROVIDERS as u16 - 1;
        let proof = book.note(lie(last)).expect("remembered");
        assert_eq!(book.caught_bytes, memory_of_proof(&proof));
        for n in 1_000..1_600 {
            book.note(without_many(answered(n, 10, 5, 6)));
            book.note(without_many(answered(n, 10, 5, 7)));
            assert!(book.caught_bytes <= CAUGHT_BYTES);
        }
        assert!(book.caught_bytes > CAUGHT_BYTES / 2 && !book.is_caught(&proof.provider()));
        let caught: Vec<_> = book.caught().map(Refutation::provider).collect();
        for provider in caught {
            book.forgive(&provider);
        }
        let kept = book
            .answers
            .values()
            .flatten()
            .map(memory_of)
            .sum::<usize>();
        assert_eq!((book.answer_bytes, book.caught_bytes), (kept, 0));
    }

    #[test]
    fn both_tables_are_bounded() {
        let mut book = ReceiptBook::new();
        for n in 0..1_500_u16 {
            for joined in 0..3_u64 {
                book.note(answered(n, 9, 5, joined + 6));
            }
        }
        assert_eq!((book.caught.len(), book.order.len()), (CAUGHT, PROVIDERS));
        assert_eq!(book.answers.len(), PROVIDERS);
        for stated in 0..100 {
            book.note(answered(1, 9, 100 + 2 * stated, 101 + 2 * stated));
        }
        assert!(
            book.answers
                .values()
                .all(|answers| answers.len() <= ANSWERS)
        );
    }
}
