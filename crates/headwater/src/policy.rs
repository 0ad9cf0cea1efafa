//! Who may do what: the one place a node asks.
//!
//! ```text
//! request ──▶ may_read ──▶ served, or refused like a space that is not held
//! run     ──▶ accepts  ──▶ stored, or not accepted          (on the writer's thread)
//! report  ──▶ trusts   ──▶ whether a provider said that it is complete
//! changes ──▶ every running serve asks again
//! ```

mod allow_list;
mod roster;

use std::fmt;

use headwater_wire::{Acceptance, AuthorId, SpaceId};
use iroh::EndpointId;
use n0_future::boxed::BoxFuture;
use tokio::sync::watch;

pub use allow_list::AllowList;
pub use roster::{Roster, node_key};

/// Decides who may read a space, whose events are accepted, and who is believed.
///
/// The identity of a peer is the one QUIC authenticated, never one a message claims. Built in are
/// [`Roster`], which is what the space's owner says and the default, [`AllowList`], [`Open`] and
/// [`Nobody`]. An own policy has to answer [`may_read`](Self::may_read); all else has a default.
pub trait AccessPolicy: fmt::Debug + Send + Sync + 'static {
    /// Whether `remote` may read the history and the live events of `space`.
    ///
    /// Asked for every request before the store is looked into, and again whenever
    /// [`changes`](Self::changes) tells and whenever a live stream has news. A refusal looks to the
    /// peer exactly like a space this node does not hold.
    fn may_read(&self, remote: EndpointId, space: SpaceId) -> BoxFuture<bool>;

    /// Whether what `remote` announces of `space` outside a sync is heeded, and it is pulled from.
    ///
    /// By default those are heard who may read. A [`Roster`] hears everybody about a space that is
    /// not held here yet, as nothing says whose it is before its owner's log is pulled.
    fn may_announce(&self, remote: EndpointId, space: SpaceId) -> BoxFuture<bool> {
        self.may_read(remote, space)
    }

    /// How much of `author`'s log is accepted, wherever it comes from: syncs, gossip, live streams,
    /// and appends made here. The owner's log always is, whatever the answer.
    ///
    /// Asked on the writer's thread for every run, so answer from memory. The default accepts all.
    fn accepts(&self, space: SpaceId, author: AuthorId) -> Acceptance {
        let _ = (space, author);
        Acceptance::All
    }

    /// Whether what `remote` says about being complete is to be believed: whether it is a provider
    /// of the space. Shows in reports, nowhere else. The default believes nobody.
    ///
    /// Asked when a report is made, so answer from memory.
    fn trusts(&self, remote: EndpointId, space: SpaceId) -> bool {
        let _ = (remote, space);
        false
    }

    /// Whether `remote` is named here, so that no crowd of strangers shuts it out: whoever is named
    /// comes first where not all find a place. The default names whom the [`roster`](Self::roster)
    /// does, and without one nobody; who finished a sync lately comes before strangers all the same.
    ///
    /// Asked for every connection and every request, so answer from memory.
    fn names(&self, remote: EndpointId) -> bool {
        self.roster().is_some_and(|roster| roster.names(remote))
    }

    /// Tells when answers may have changed: what runs for somebody who lost access then ends. By
    /// default never; a live stream asks again all the same before it says anything.
    fn changes(&self) -> Changes {
        Changes::never()
    }

    /// The roster it decides by, which the node then keeps up to date. A policy built upon a
    /// [`Roster`] returns it here. By default none.
    fn roster(&self) -> Option<&Roster> {
        None
    }
}

/// Serves every space to whoever knows its id, and accepts every author.
///
/// The id is then the secret: 32 bytes that cannot be guessed, but whoever has seen them once can
/// read, and write, for ever.
#[derive(Debug, Clone, Copy, Default)]
pub struct Open;

impl AccessPolicy for Open {
    fn may_read(&self, _remote: EndpointId, _space: SpaceId) -> BoxFuture<bool> {
        Box::pin(std::future::ready(true))
    }

    fn trusts(&self, _remote: EndpointId, _space: SpaceId) -> bool {
        true
    }
}

/// Serves nothing to anybody, and accepts every author: a node that only pulls.
#[derive(Debug, Clone, Copy, Default)]
pub struct Nobody;

impl AccessPolicy for Nobody {
    fn may_read(&self, _remote: EndpointId, _space: SpaceId) -> BoxFuture<bool> {
        Box::pin(std::future::ready(false))
    }
}

/// Tells that a policy's answers may have changed; kept by the policy.
#[derive(Debug, Clone)]
pub struct ChangeSignal(watch::Sender<u64>);

/// Hears of changes of a policy.
#[derive(Debug, Clone)]
pub struct Changes(Option<watch::Receiver<u64>>);

impl ChangeSignal {
    /// A signal nobody hears yet.
    #[must_use]
    pub fn new() -> Self {
        Self(watch::Sender::new(0))
    }

    /// Makes everything that runs ask again.
    pub fn notify(&self) {
        self.0.send_modify(|times| *times += 1);
    }

    /// What [`AccessPolicy::changes`] returns.
    #[must_use]
    pub fn changes(&self) -> Changes {
        Changes(Some(self.0.subscribe()))
    }
}

impl Default for ChangeSignal {
    fn default() -> Self {
        Self::new()
    }
}

impl Changes {
    /// There are none.
    #[must_use]
    pub fn never() -> Self {
        Self(None)
    }

    /// How many there were.
    #[must_use]
    pub fn times(&self) -> u64 {
        self.0.as_ref().map_or(0, |times| *times.borrow())
    }

    /// Waits until there were others than so many, and tells how many. Safe to cancel.
    pub async fn other_than(&self, seen: u64) -> u64 {
        if let Some(times) = &self.0 {
            let mut times = times.clone();
            if let Ok(now) = times.wait_for(|times| *times != seen).await {
                return *now;
            }
        }
        // Nobody is left to tell.
        std::future::pending().await
    }
}
