//! One space of a node: append, read, follow, sync.

use std::{ops::RangeBounds, sync::Arc};

use headwater_proto::{HeadRecord, HeadsPage, SpaceSummary};
use headwater_store::{ForkRecord, LogStore, StoreError, Usage, VerifyProgress, VerifyReport};
use headwater_wire::{
    AppendError, AuthorHead, AuthorId, AuthorSecret, Blame, ClockEntry, DraftError, Event,
    EventDraft, EventRef, SpaceId,
};
use iroh::EndpointAddr;

use crate::{
    blocking::blocking,
    node::Headwater,
    reading::{EventStream, SubscribeFrom, Subscription},
    sync::{SyncHandle, SyncOptions},
};

/// Heads read from the store at once.
const HEADS_PAGE: usize = 1024;

/// A handle to one space of a node.
///
/// Cheap to clone and to make; the space need not be held yet. Reads answer from the store as it
/// is at that moment.
#[derive(Debug, Clone)]
pub struct Space {
    node: Headwater,
    id: SpaceId,
}

/// A local append failed. Nothing of the call is stored.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// This node does not hold the space: create it, or sync it first.
    #[error("space {} is not held here", space.fmt_short())]
    UnknownSpace {
        /// The space.
        space: SpaceId,
    },
    /// An author was named without any draft.
    #[error("nothing to append")]
    Empty,
    /// Only the space's owner may write this.
    #[error("{} does not own the space", author.fmt_short())]
    NotOwner {
        /// Who tried.
        author: AuthorId,
    },
    /// A draft cannot become an event.
    #[error("draft refused: {0}")]
    Draft(#[source] DraftError),
    /// The author is proven to have signed two events at one place. Nobody takes what comes above,
    /// so nothing was written: go on with a new key.
    #[error("the log of {} forks at event {seq}", author.fmt_short())]
    Forked {
        /// Whose log.
        author: AuthorId,
        /// Where it forks.
        seq: u64,
    },
    /// More of the author's log is stored than shows. Going on from what shows would fork it, so
    /// nothing was written: what hides the rest has to be lifted first.
    #[error("the log of {} shows up to event {shown} but is stored up to {stored}", author.fmt_short())]
    Hidden {
        /// Whose log.
        author: AuthorId,
        /// The last event that shows; 0 if none does.
        shown: u64,
        /// The last event stored.
        stored: u64,
    },
    /// The log does not accept the event.
    #[error("append refused: {0}")]
    Append(#[source] AppendError),
    /// The store failed.
    #[error("store failed: {0}")]
    Store(#[source] Arc<StoreError>),
    /// The node is shutting down, or has.
    #[error("the node is shutting down")]
    ShuttingDown,
}

impl WriteError {
    pub(crate) fn store(error: StoreError) -> Self {
        Self::Store(Arc::new(error))
    }

    pub(crate) fn refused(error: AppendError) -> Self {
        match error {
            AppendError::Forked { author, seq } => Self::Forked { author, seq },
            error => Self::Append(error),
        }
    }

    /// Whose fault it is: always this side's.
    #[must_use]
    pub fn blame(&self) -> Blame {
        Blame::Local
    }
}

impl Space {
    pub(crate) fn new(node: Headwater, id: SpaceId) -> Self {
        Self { node, id }
    }

    /// The space's id: the id of its genesis event.
    #[must_use]
    pub fn id(&self) -> SpaceId {
        self.id
    }

    /// The node this space belongs to.
    #[must_use]
    pub fn node(&self) -> &Headwater {
        &self.node
    }

    /// Owner, digest and totals; `None` if the space is not held.
    ///
    /// # Errors
    ///
    /// If the store fails.
    pub async fn summary(&self) -> Result<Option<SpaceSummary>, StoreError> {
        self.read(headwater_store::LogStore::summary).await
    }

    /// Signs one event and appends it. On return it is durable.
    ///
    /// # Errors
    ///
    /// The log is unchanged on every error.
    pub async fn append(
        &self,
        secret: &AuthorSecret,
        draft: EventDraft,
    ) -> Result<EventRef, WriteError> {
        let head = self.append_batch(secret, vec![draft]).await?;
        Ok(EventRef {
            author: secret.id(),
            seq: head.seq,
            id: head.id,
        })
    }

    /// Signs a batch once and appends it, all or nothing. On return it is durable.
    ///
    /// A batch above 1,024 events or 128 KiB becomes several runs with a signature each; it is one
    /// transaction all the same. Returns the new head.
    ///
    /// # Errors
    ///
    /// The log is unchanged on every error.
    pub async fn append_batch(
        &self,
        secret: &AuthorSecret,
        drafts: Vec<EventDraft>,
    ) -> Result<AuthorHead, WriteError> {
        let heads = self.import(vec![(secret.clone(), drafts)]).await?;
        heads.first().copied().ok_or(WriteError::Empty)
    }

    /// Signs and appends batches of several authors in one transaction, all or nothing. Returns
    /// the new heads in the order of the call.
    ///
    /// # Errors
    ///
    /// All logs are unchanged on every error.
    pub async fn import(
        &self,
        batches: Vec<(AuthorSecret, Vec<EventDraft>)>,
    ) -> Result<Vec<AuthorHead>, WriteError> {
        self.node.inner().writer.sign(self.id, batches).await
    }

    /// The head of one log, or `None` if nothing of it is held.
    ///
    /// # Errors
    ///
    /// If the store fails.
    pub async fn head(&self, author: AuthorId) -> Result<Option<HeadRecord>, StoreError> {
        self.read(move |store, space| store.head(space, &author))
            .await
    }

    /// How much is stored of one log and of the space, shown or not: what the quotas count.
    ///
    /// # Errors
    ///
    /// If the store fails.
    pub async fn usage(&self, author: AuthorId) -> Result<Usage, StoreError> {
        self.read(move |store, space| store.usage(space, &author))
            .await
    }

    /// All heads, ascending by author: the space's vector clock.
    ///
    /// Reads page by page; an append in between may show in later pages.
    ///
    /// # Errors
    ///
    /// If the store fails.
    pub async fn heads(&self) -> Result<Vec<ClockEntry>, StoreError> {
        let mut heads = Vec::new();
        loop {
            let after = heads.last().map(|entry: &ClockEntry| entry.author);
            let page = self.heads_page(after, HEADS_PAGE).await?;
            let last = page.last || page.heads.is_empty();
            heads.extend(page.heads.iter().map(|record| record.entry));
            if last {
                return Ok(heads);
            }
        }
    }

    /// Up to `limit` heads of authors above `after`, ascending.
    ///
    /// # Errors
    ///
    /// If the store fails.
    pub async fn heads_page(
        &self,
        after: Option<AuthorId>,
        limit: usize,
    ) -> Result<HeadsPage, StoreError> {
        self.read(move |store, space| store.heads(space, after, limit))
            .await
    }

    /// One event, or `None` if it is not held.
    ///
    /// # Errors
    ///
    /// If the store fails, or what it holds is damaged.
    pub async fn event(&self, author: AuthorId, seq: u64) -> Result<Option<Event>, StoreError> {
        self.read(move |store, space| store.event(space, &author, seq))
            .await
    }

    /// The events of one log with a seq in `range`, ascending, up to the head at the time of the
    /// first poll. Holds [`Limits::read_ahead_bytes`](crate::Limits::read_ahead_bytes) at a time.
    #[must_use]
    pub fn events(&self, author: AuthorId, range: impl RangeBounds<u64>) -> EventStream {
        EventStream::of_log(self.node.inner(), self.id, author, &range)
    }

    /// Every event of the space: the owner's log first, then the others by ascending author, each
    /// by ascending seq. Ends with what is held when it gets there.
    ///
    /// The order depends on what is held alone, so two nodes with equal digests give the same
    /// sequence.
    #[must_use]
    pub fn history(&self) -> EventStream {
        EventStream::of_space(self.node.inner(), self.id)
    }

    /// Follows the space: history, then [`SubscriptionItem::CaughtUp`], then live events.
    ///
    /// [`SubscriptionItem::CaughtUp`]: crate::SubscriptionItem::CaughtUp
    #[must_use]
    pub fn subscribe(&self, from: SubscribeFrom) -> Subscription {
        Subscription::start(self.node.inner(), self.id, from)
    }

    /// Up to `limit` logs known to fork whose author is above `after`, ascending by author, with the
    /// proof of each. Fewer than `limit` are the last.
    ///
    /// # Errors
    ///
    /// If the store fails.
    pub async fn forks(
        &self,
        after: Option<AuthorId>,
        limit: usize,
    ) -> Result<Vec<ForkRecord>, StoreError> {
        self.read(move |store, space| store.forks(space, after, limit.max(1)))
            .await
    }

    /// The lowest fork known of one log; `None` if none is.
    ///
    /// # Errors
    ///
    /// If the store fails.
    pub async fn fork_of(&self, author: AuthorId) -> Result<Option<ForkRecord>, StoreError> {
        self.read(move |store, space| store.fork(space, &author))
            .await
    }

    /// Checks everything stored again: every signature, hash, chain link and head, and the tree.
    ///
    /// # Errors
    ///
    /// If the check itself cannot go on; faults it finds are in the report.
    pub async fn verify(
        &self,
        mut on_progress: impl FnMut(VerifyProgress) + Send + 'static,
    ) -> Result<VerifyReport, StoreError> {
        self.read(move |store, space| store.verify(space, &mut on_progress))
            .await
    }

    /// Pulls from `peer` what this node lacks. See [`SyncHandle`].
    pub fn sync_with(&self, peer: impl Into<EndpointAddr>) -> SyncHandle {
        self.sync_with_options(peer, SyncOptions::default())
    }

    /// Pulls from `peer`, with a budget, or going on live after the history.
    pub fn sync_with_options(
        &self,
        peer: impl Into<EndpointAddr>,
        options: SyncOptions,
    ) -> SyncHandle {
        SyncHandle::start(Arc::clone(self.node.inner()), self.id, peer.into(), options)
    }

    pub(crate) async fn read<T: Send + 'static>(
        &self,
        query: impl FnOnce(&dyn LogStore, &SpaceId) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let store = Arc::clone(&self.node.inner().store);
        let space = self.id;
        blocking(move || query(&*store, &space)).await
    }
}
