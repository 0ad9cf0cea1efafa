//! Receipts: what a provider says, under its own key, that it answered to a sync request.
//!
//! ```text
//! request ─▶ RequestHash ─┐
//! what was answered ──────┴▶ ReceiptFacts ──signature of the provider's node key──▶ Receipt
//! ```
//!
//! Invariant: a receipt says what was *answered*, never that it was all there is. One alone proves
//! nothing about what the provider held; two can show that something was kept back, see
//! [`Receipt::contradicts`] and [`Answered::refutes`].

use data_encoding::HEXLOWER;
use serde::ser::SerializeStruct;

use crate::{
    codec::{Encode, Put},
    ids::{AuthorId, HeadsDigest, MemberKey, RequestHash, Signature},
    key::{AuthorKeyError, AuthorSecret},
    message::{HistorySyncComplete, Message, SyncOutcome, SyncRequestV2},
};

/// What a signature stands under; the facts follow.
const CONTEXT: &[u8] = b"headwater sync receipt v1";

/// Key of the hash of a request.
const REQUEST_KEY: &[u8; 32] = b"headwater sync request hash v1\0\0";

impl RequestHash {
    /// The hash of a request's body as it is framed: id, space, clock, filter and budget.
    pub fn of(request: &SyncRequestV2) -> Self {
        let mut hasher = blake3::Hasher::new_keyed(REQUEST_KEY);
        for piece in Message::from(request.clone()).body() {
            hasher.update(&piece);
        }
        Self::from_bytes(*hasher.finalize().as_bytes())
    }
}

/// What one sync came to, as both sides see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct ReceiptFacts {
    /// The request: what was asked for, with its filter.
    pub request: RequestHash,
    /// The requester's clock: the digest in the request, or that of the heads it stated without
    /// one, as far as the plans went. A provider signs only what is the digest of the heads it was
    /// told.
    pub stated: HeadsDigest,
    /// Complete, or truncated and why.
    pub outcome: SyncOutcome,
    /// Events sent.
    pub events: u64,
    /// How many of them were stubs.
    pub stubs: u64,
    /// The digest of what both sides hold together.
    pub joined_digest: HeadsDigest,
    /// The provider's generation of the space. It signs only what came out of this one: if its
    /// store has changed while it served, there is no receipt.
    pub generation: u64,
}

impl ReceiptFacts {
    /// The facts in a completion.
    pub fn of(request: RequestHash, stated: HeadsDigest, complete: &HistorySyncComplete) -> Self {
        Self {
            request,
            stated,
            outcome: complete.outcome,
            events: complete.events,
            stubs: complete.stubs,
            joined_digest: complete.joined_digest,
            generation: complete.stream_generation,
        }
    }

    /// The bytes a provider signs with its node's Ed25519 key: the context, then the facts in
    /// their one encoding.
    pub fn signed_bytes(&self) -> Vec<u8> {
        let mut out = CONTEXT.to_vec();
        self.request.encode(&mut out);
        self.stated.encode(&mut out);
        self.outcome.encode(&mut out);
        out.put_varint(self.events);
        out.put_varint(self.stubs);
        self.joined_digest.encode(&mut out);
        out.put_varint(self.generation);
        out
    }
}

/// Facts and a provider's signature over them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct Receipt {
    /// The provider's node key.
    pub provider: MemberKey,
    /// What it says.
    pub facts: ReceiptFacts,
    /// Its signature; see [`Receipt::verify`].
    pub signature: Signature,
}

/// What two receipts show together; see [`Receipt::contradicts`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Contradiction {
    /// One provider gave two answers to one request out of one state of its store. It lied in one of
    /// them, and anybody can check it; unless its store was replaced in between, so that the new one
    /// counts the same generations anew.
    OneProvider,
    /// Two providers say that they answered one request completely, and not the same came of it.
    /// One of them kept back what the other sent, or did not hold it: this is a reason to ask
    /// elsewhere, and no proof against either.
    TwoProviders,
}

impl Receipt {
    /// Signs facts with a node's key, which is of the same kind as an author's.
    pub fn sign(node: &AuthorSecret, facts: ReceiptFacts) -> Self {
        Self {
            provider: MemberKey::from_bytes(*node.id().as_bytes()),
            facts,
            signature: node.sign(&facts.signed_bytes()),
        }
    }

    /// Whether the provider signed these facts, by strict Ed25519 verification.
    ///
    /// # Errors
    ///
    /// If the provider's key is no usable key.
    pub fn verify(&self) -> Result<bool, AuthorKeyError> {
        // One kind of key: a node's and an author's are checked alike.
        let key = AuthorId::from_bytes(*self.provider.as_bytes());
        key.verify(&self.facts.signed_bytes(), &self.signature)
    }

    /// Whether two receipts for the same request cannot both be the whole truth, and what that
    /// shows. Both signatures have to be verified before.
    ///
    /// The same request, byte for byte, with the same clock behind it, has one right answer out of
    /// one state of a store, and an honest provider signs nothing else. For different generations it
    /// may have learned something in between, which is no contradiction.
    ///
    /// What it does not show: that a provider keeps something back from everybody, or that one
    /// which always gives the same short answer does; that what was answered is true (the runs prove
    /// themselves); and, of two providers, which of them is short. The one with fewer events need
    /// not be at fault: it may not have been synced yet.
    pub fn contradicts(&self, other: &Self) -> Option<Contradiction> {
        let (ours, theirs) = (&self.facts, &other.facts);
        if (ours.request, ours.stated) != (theirs.request, theirs.stated) {
            return None;
        }
        if self.provider == other.provider {
            let differ = ours.generation == theirs.generation && ours != theirs;
            return differ.then_some(Contradiction::OneProvider);
        }
        let whole = [ours, theirs].map(|facts| facts.outcome) == [SyncOutcome::Complete; 2];
        let differ = whole && ours.joined_digest != theirs.joined_digest;
        differ.then_some(Contradiction::TwoProviders)
    }
}

/// A request and the receipt for it: with two of them anybody can check a [`Refutation`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answered {
    /// What was asked.
    pub request: SyncRequestV2,
    /// What the provider says it answered.
    pub receipt: Receipt,
}

impl Answered {
    /// Whether the receipt is for this request, by the provider it names.
    ///
    /// # Errors
    ///
    /// If the provider's key is no usable key.
    pub fn verify(&self) -> Result<bool, AuthorKeyError> {
        let is_for_it = self.receipt.facts.request == RequestHash::of(&self.request);
        Ok(is_for_it && self.receipt.verify()?)
    }

    /// Whether one provider cannot have given both answers out of one state of its store, though
    /// they answer different requests. Both have to be verified before.
    ///
    /// Each says of a space, whole or without the same authors: "you state this; with all I hold it comes to that". Out of one
    /// state
    ///
    /// - to the same statement there is one answer;
    /// - whoever states what an earlier answer came to holds all that the provider held, and nothing
    ///   can be added to it.
    ///
    /// What it shows, and what not, is as for [`Contradiction::OneProvider`]: the provider lied in one
    /// of them, unless its store was replaced in between.
    pub fn refutes(&self, other: &Self) -> bool {
        let (ours, theirs) = (&self.receipt, &other.receipt);
        let of_one_state = ours.provider == theirs.provider
            && ours.facts.generation == theirs.facts.generation
            && self.request.space == other.request.space
            && self.request.filter == other.request.filter;
        let whole = [self, other].iter().all(|it| {
            let leaves_out = it.request.filter.excepted();
            it.receipt.facts.outcome == SyncOutcome::Complete && leaves_out.is_some()
        });
        if !of_one_state || !whole {
            return false;
        }
        let (ours, theirs) = (&ours.facts, &theirs.facts);
        let adds_to = |before: &ReceiptFacts, after: &ReceiptFacts| {
            after.stated == before.joined_digest && after.joined_digest != after.stated
        };
        let differ = ours.stated == theirs.stated && ours.joined_digest != theirs.joined_digest;
        differ || adds_to(ours, theirs) || adds_to(theirs, ours)
    }
}

/// The request as the hex of its body, which is what the receipt's hash is of.
impl serde::Serialize for Answered {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let body = Message::from(self.request.clone()).body().concat();
        let mut fields = serializer.serialize_struct("Answered", 2)?;
        fields.serialize_field("request", &HEXLOWER.encode(&body))?;
        fields.serialize_field("receipt", &self.receipt)?;
        fields.end()
    }
}

/// Proof that a provider lied: two answers that cannot both be true, each under its own signature.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Refutation {
    /// What it answered first.
    pub earlier: Answered,
    /// What it answered then.
    pub later: Answered,
}

impl Refutation {
    /// Who lied.
    pub fn provider(&self) -> MemberKey {
        self.later.receipt.provider
    }

    /// Whether it proves that: both signatures, both requests, and that they contradict.
    ///
    /// # Errors
    ///
    /// If the provider's key is no usable key.
    pub fn verify(&self) -> Result<bool, AuthorKeyError> {
        let signed = self.earlier.verify()? && self.later.verify()?;
        Ok(signed && self.later.refutes(&self.earlier))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        ids::{AuthorId, SpaceId},
        message::{Budget, Clock, SyncFilter, Truncation},
    };

    fn request(request_id: u64) -> SyncRequestV2 {
        SyncRequestV2 {
            request_id,
            space: SpaceId::from_bytes([7; 32]),
            clock: Clock::Digest(HeadsDigest::from_bytes([5; 32])),
            filter: SyncFilter::default(),
            budget: Budget::default(),
            live: false,
        }
    }

    fn facts() -> ReceiptFacts {
        ReceiptFacts {
            request: RequestHash::of(&request(3)),
            stated: HeadsDigest::from_bytes([5; 32]),
            outcome: SyncOutcome::Complete,
            events: 300,
            stubs: 2,
            joined_digest: HeadsDigest::from_bytes([6; 32]),
            generation: 9,
        }
    }

    fn receipt(provider: u8, facts: ReceiptFacts) -> Receipt {
        Receipt::sign(&AuthorSecret::from_bytes([provider; 32]), facts)
    }

    type Change = fn(&mut ReceiptFacts);

    const CHANGES: [Change; 7] = [
        |facts| facts.request = RequestHash::of(&request(4)),
        |facts| facts.stated = HeadsDigest::EMPTY,
        |facts| facts.outcome = SyncOutcome::Truncated(Truncation::Budget),
        |facts| facts.events += 1,
        |facts| facts.stubs = 0,
        |facts| facts.joined_digest = HeadsDigest::EMPTY,
        |facts| facts.generation += 1,
    ];

    #[test]
    fn a_receipt_proves_its_facts_and_its_provider_and_nothing_else() {
        let good = receipt(1, facts());
        assert_eq!(good.verify(), Ok(true));
        for change in CHANGES {
            let mut other = good;
            change(&mut other.facts);
            assert_eq!(other.verify(), Ok(false));
        }
        let mut other = good;
        other.provider = receipt(2, facts()).provider;
        assert_eq!(other.verify(), Ok(false));
        other.provider = MemberKey::from_bytes([2; 32]);
        assert!(other.verify().is_err());
    }

    #[test]
    fn the_signed_bytes_are_these() {
        let bytes = facts().signed_bytes();
        let (context, rest) = bytes.split_at(25);
        assert_eq!(context, b"headwater sync receipt v1");
        assert_eq!(rest[..32], *RequestHash::of(&request(3)).as_bytes());
        assert_eq!(rest[32..64], [5; 32]);
        // Complete; 300 and 2 as varints.
        assert_eq!(rest[64..68], [0, 0xac, 0x02, 2]);
        assert_eq!(rest[68..100], [6; 32]);
        assert_eq!(rest[100..], [9]);
    }

    #[test]
    fn the_request_hash_covers_all_of_the_request() {
        let hash = RequestHash::of(&request(3));
        let mut others = vec![request(4)];
        let changes: [fn(&mut SyncRequestV2); 4] = [
            |request| request.space = SpaceId::from_bytes([8; 32]),
            |request| request.filter.since_ms = Some(1),
            |request| request.budget.events = Some(1),
            |request| request.live = true,
        ];
        for change in changes {
            let mut other = request(3);
            change(&mut other);
            others.push(other);
        }
        for other in others {
            assert_ne!(RequestHash::of(&other), hash, "{other:?}");
        }
    }

    #[test]
    fn one_provider_contradicts_itself_only_out_of_one_state() {
        let good = receipt(1, facts());
        assert_eq!(good.contradicts(&good), None);
        for (at, change) in CHANGES.iter().enumerate() {
            let mut other = facts();
            change(&mut other);
            let other = receipt(1, other);
            // Another request, another clock, another state: another answer.
            let expected = match at {
                0 | 1 | 6 => None,
                _ => Some(Contradiction::OneProvider),
            };
            assert_eq!(good.contradicts(&other), expected);
            assert_eq!(other.contradicts(&good), expected);
        }
    }

    /// An answer of provider 1: `stated` came to `joined`.
    fn answered(request_id: u64, stated: u8, joined: u8) -> Answered {
        let stated = HeadsDigest::from_bytes([stated; 32]);
        let request = SyncRequestV2 {
            clock: Clock::Digest(stated),
            ..request(request_id)
        };
        let facts = ReceiptFacts {
            request: RequestHash::of(&request),
            stated,
            joined_digest: HeadsDigest::from_bytes([joined; 32]),
            ..facts()
        };
        let receipt = receipt(1, facts);
        Answered { request, receipt }
    }

    fn signed_anew(mut it: Answered, provider: u8, change: impl FnOnce(&mut Answered)) -> Answered {
        change(&mut it);
        it.receipt.facts.request = RequestHash::of(&it.request);
        it.receipt = receipt(provider, it.receipt.facts);
        it
    }

    #[test]
    fn two_requests_are_refuted_by_what_cannot_come_out_of_one_state() {
        let earlier = answered(1, 5, 6);
        let later = answered(2, 6, 7);
        let refutation = |later: &Answered| Refutation {
            earlier: earlier.clone(),
            later: later.clone(),
        };
        // More came of all it had; another came of the same; and in either order.
        for later in [later.clone(), answered(2, 5, 7), answered(2, 4, 5)] {
            assert!(later.refutes(&earlier), "{later:?}");
            assert!(earlier.refutes(&later));
            assert_eq!(refutation(&later).verify(), Ok(true));
        }
        // Nothing was added, or to something else.
        for later in [answered(2, 6, 6), answered(2, 5, 6), answered(2, 8, 9)] {
            assert!(!later.refutes(&earlier), "{later:?}");
            assert_eq!(refutation(&later).verify(), Ok(false));
        }
        let changes: [fn(&mut Answered); 4] = [
            |it| it.receipt.facts.generation += 1,
            |it| it.receipt.facts.outcome = SyncOutcome::Truncated(Truncation::Budget),
            |it| it.request.space = SpaceId::from_bytes([8; 32]),
            |it| it.request.filter = SyncFilter::except(vec![AuthorId::from_bytes([3; 32])]),
        ];
        for change in changes {
            let other = signed_anew(later.clone(), 1, change);
            assert!(!other.refutes(&earlier), "{other:?}");
        }
        assert!(!signed_anew(later.clone(), 2, |_| ()).refutes(&earlier));

        // The request belongs to its receipt, and the receipt to its provider.
        let mut other = later.clone();
        other.request.request_id += 1;
        assert_eq!(other.verify(), Ok(false));
        assert_eq!(refutation(&other).verify(), Ok(false));
        let mut other = later;
        other.receipt.facts.events += 1;
        assert_eq!(refutation(&other).verify(), Ok(false));
    }

    #[test]
    fn two_providers_contradict_each_other_only_if_both_say_that_was_all() {
        let good = receipt(1, facts());
        let mut short = facts();
        short.joined_digest = HeadsDigest::EMPTY;
        short.generation = 100;
        let shown = good.contradicts(&receipt(2, short));
        assert_eq!(shown, Some(Contradiction::TwoProviders));
        short.outcome = SyncOutcome::Truncated(Truncation::Budget);
        assert_eq!(good.contradicts(&receipt(2, short)), None);
        let mut same = facts();
        same.events = 1;
        assert_eq!(good.contradicts(&receipt(2, same)), None);
    }
}
