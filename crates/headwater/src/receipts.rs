//! Providers caught lying by their own receipts.
//!
//! Every pull that ends with a receipt is laid beside those before it ([`ReceiptBook`]). A provider that
//! is caught is believed no more about what is complete, whatever the policy says of it; it may still be
//! synced with, as what it sends proves itself.

use std::sync::{Mutex, MutexGuard, PoisonError};

use headwater_proto::ReceiptBook;
use headwater_wire::{Answered, MemberKey, Refutation, SpaceId};
use iroh::EndpointId;
use tracing::warn;

use crate::{
    node::{Headwater, Inner},
    policy::node_key,
};

/// What providers answered.
#[derive(Debug, Default)]
pub(crate) struct Receipts(Mutex<ReceiptBook>);

impl Receipts {
    fn book(&self) -> MutexGuard<'_, ReceiptBook> {
        // Nothing in there can be left half done that matters.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_caught(&self, provider: &MemberKey) -> bool {
        self.book().is_caught(provider)
    }
}

impl Inner {
    /// Lays an answer beside the earlier ones of its provider.
    pub(crate) fn note_answer(&self, answered: Answered) -> Option<Refutation> {
        let mut book = self.receipts.book();
        let known = book.is_caught(&answered.receipt.provider);
        let refutation = book.note(answered)?;
        drop(book);
        if !known {
            self.metrics.providers_caught.inc();
        }
        warn!("the receipts of this provider contradict each other");
        Some(refutation)
    }

    /// Whether a peer is believed about what is complete.
    pub(crate) fn trusts(&self, peer: EndpointId, space: SpaceId) -> bool {
        self.policy.trusts(peer, space) && !self.receipts.is_caught(&node_key(peer))
    }
}

impl Headwater {
    /// Whether `peer` is believed about what is complete in a space: if the policy
    /// [trusts](crate::AccessPolicy::trusts) it, and it was not caught.
    #[must_use]
    pub fn trusts(&self, peer: EndpointId, space: SpaceId) -> bool {
        self.inner().trusts(peer, space)
    }

    /// Whether two receipts of this peer contradict each other.
    #[must_use]
    pub fn is_caught(&self, peer: EndpointId) -> bool {
        self.inner().receipts.is_caught(&node_key(peer))
    }

    /// The proof against everybody who was caught since the node started, the latest last. Anybody can
    /// [check](Refutation::verify) one; keep them if they are to outlive the process.
    #[must_use]
    pub fn refutations(&self) -> Vec<Refutation> {
        self.inner().receipts.book().caught().cloned().collect()
    }

    /// Believes a peer again that was caught, as the policy says: for one whose store was replaced. False
    /// if it was not caught.
    pub fn forgive(&self, peer: EndpointId) -> bool {
        self.inner().receipts.book().forgive(&node_key(peer))
    }
}
