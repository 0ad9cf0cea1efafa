//! The node: what every space, sync and connection of it shares.

use std::{
    collections::HashSet,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, SystemTime},
};

use headwater_proto::SpaceSummary;
use headwater_store::{LogStore, MemoryStore, Quotas, StoreError};
use headwater_wire::{AuthorSecret, CloseCode, SpaceId, sign_genesis};
use iroh::{Endpoint, EndpointAddr, EndpointId, endpoint::Connection};
use n0_future::time::timeout;
use tokio::sync::{Semaphore, watch};
use tracing::{Instrument, debug, info_span, warn};

use crate::{
    ALPN,
    blocking::blocking,
    commit::{Committer, Origin},
    conduct::Conduct,
    connections::{Accepted, Connections, InUse, Link, close},
    gate::Gate,
    handler,
    hub::Hub,
    keeper::Keeper,
    left_out::LeftOut,
    limits::Limits,
    metrics::Metrics,
    pace::Pace,
    policy::{AccessPolicy, Roster},
    receipts::Receipts,
    redeem::Owners,
    room::Room,
    slots::{Keyed, Slot, Slots},
    space::{Space, WriteError},
    standing::{Acquaintances, Standing},
    sync::SyncError,
    writer::Writer,
};

/// A node: a store, a writer, and the protocol over an iroh endpoint.
///
/// Cheap to clone; all clones are one node. Mount it on a [`Router`](iroh::protocol::Router) under
/// [`ALPN`] to serve, or only dial with it: a node that is not mounted still serves the peers it
/// dialled, on the connections it dialled.
#[derive(Clone)]
pub struct Headwater {
    inner: Arc<Inner>,
}

/// Configures a node. Made by [`Headwater::builder`].
#[derive(Debug)]
pub struct Builder {
    store: Arc<dyn LogStore>,
    policy: Arc<dyn AccessPolicy>,
    limits: Limits,
    ask_back: bool,
}

pub(crate) struct Inner {
    pub(crate) store: Arc<dyn LogStore>,
    pub(crate) policy: Arc<dyn AccessPolicy>,
    /// In whose name invites are taken.
    pub(crate) owners: Owners,
    pub(crate) limits: Limits,
    pub(crate) ask_back: bool,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) hub: Arc<Hub>,
    /// Authors whose logs would be sent in vain.
    pub(crate) left_out: LeftOut,
    pub(crate) writer: Writer,
    pub(crate) endpoint: Option<Endpoint>,
    /// The endpoint's key, under which receipts are given.
    pub(crate) receipt_key: Option<AuthorSecret>,
    /// What providers answered.
    pub(crate) receipts: Receipts,
    pub(crate) connections: Connections,
    pub(crate) accepted: Arc<Accepted>,
    pub(crate) conduct: Conduct,
    /// Peers that finished a sync lately.
    pub(crate) known: Acquaintances,
    pub(crate) gate: Gate,
    /// Requests being served.
    pub(crate) serves: Arc<Slots>,
    /// Clocks of more than a chunk that are coming in.
    pub(crate) clocks: Arc<Slots>,
    /// Whose chunk is next, among strangers and among those known.
    pub(crate) clock_turns: [tokio::sync::Mutex<()>; 2],
    /// Requests whose history is served and that are live now.
    pub(crate) live_serves: Arc<Slots>,
    /// One pull of a space from a peer at a time.
    pub(crate) flights: Keyed<(EndpointId, SpaceId)>,
    /// One live pull of a space from a peer.
    pub(crate) live_flights: Keyed<(EndpointId, SpaceId)>,
    /// How many pulls from one peer run at a time.
    pub(crate) pulls: Keyed<EndpointId>,
    /// Batches verified at the same time, over all pulls.
    pub(crate) verifying: Arc<Semaphore>,
    /// Syncs, serves and connections that are running.
    pub(crate) tasks: Tasks,
    closing: watch::Sender<bool>,
    stopped: AtomicBool,
    next_request: AtomicU64,
}

/// Counts what has to end before a shutdown is complete.
#[derive(Debug, Clone)]
pub(crate) struct Tasks(Arc<watch::Sender<usize>>);

/// One running task.
#[derive(Debug)]
pub(crate) struct Task(Tasks);

impl Tasks {
    fn new() -> Self {
        Self(Arc::new(watch::Sender::new(0)))
    }

    pub(crate) fn enter(&self) -> Task {
        self.0.send_modify(|running| *running += 1);
        Task(self.clone())
    }

    async fn all_ended(&self) {
        // The sender lives in `self`, so waiting cannot fail.
        self.0
            .subscribe()
            .wait_for(|running| *running == 0)
            .await
            .ok();
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.0
            .0
            .send_modify(|running| *running = running.saturating_sub(1));
    }
}

impl Builder {
    /// Where events are kept. Default: a [`MemoryStore`].
    #[must_use]
    pub fn store(self, store: impl LogStore) -> Self {
        self.shared_store(Arc::new(store))
    }

    /// A store that others read too. Only one node may append to it.
    #[must_use]
    pub fn shared_store(mut self, store: Arc<dyn LogStore>) -> Self {
        self.store = store;
        self
    }

    /// Who may read, whose events are accepted, who is believed. Default: a [`Roster`], so
    /// nobody but those whom a space's owner granted it. [`Open`](crate::Open) lets everybody who
    /// knows a space's id.
    #[must_use]
    pub fn policy(mut self, policy: impl AccessPolicy) -> Self {
        self.policy = Arc::new(policy);
        self
    }

    /// Bounds on time, memory and company.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Whether a peer that asks this node for a space and turns out to hold more of it is asked
    /// in turn, on the same connection. Default: yes, for the spaces held here.
    #[must_use]
    pub fn ask_back(mut self, ask_back: bool) -> Self {
        self.ask_back = ask_back;
        self
    }

    /// Starts a node on an endpoint. The endpoint stays the caller's, to close after
    /// [`Headwater::shutdown`].
    ///
    /// # Panics
    ///
    /// If the system cannot start a thread.
    #[must_use]
    pub fn spawn(self, endpoint: Endpoint) -> Headwater {
        self.start(Some(endpoint))
    }

    /// Starts a node without a network: everything but syncing.
    ///
    /// # Panics
    ///
    /// If the system cannot start a thread.
    #[must_use]
    pub fn open(self) -> Headwater {
        self.start(None)
    }

    fn start(self, endpoint: Option<Endpoint>) -> Headwater {
        let metrics = Arc::new(Metrics::default());
        let hub = Arc::new(Hub::default());
        let limits = self.limits;
        let committer = Committer {
            store: Arc::clone(&self.store),
            keeper: Keeper::new(Arc::clone(&self.store), Arc::clone(&self.policy)),
            hub: Arc::clone(&hub),
            metrics: Arc::clone(&metrics),
            quotas: Quotas::NONE
                .author(limits.author_quota)
                .space(limits.space_quota),
            pace: Pace::new(&limits),
            room: Room::new(limits.free_disk_floor),
            forked: HashSet::new(),
        };
        let writer = Writer::spawn(committer, &limits).expect("the system starts a thread");
        // Keys of one kind: what a node signs is checked as what an author signs.
        let receipt_key = endpoint
            .as_ref()
            .map(|endpoint| AuthorSecret::from_bytes(endpoint.secret_key().to_bytes()));
        let cores = thread::available_parallelism().map_or(1, usize::from);
        let inner = Inner {
            store: self.store,
            policy: self.policy,
            owners: Owners::default(),
            ask_back: self.ask_back,
            metrics,
            hub,
            left_out: LeftOut::default(),
            writer,
            endpoint,
            receipt_key,
            receipts: Receipts::default(),
            connections: Connections::new(),
            conduct: Conduct::new(&limits),
            known: Acquaintances::new(&limits),
            gate: Gate::new(&limits),
            accepted: Accepted::new(limits.connections_per_peer, limits.connections_total),
            serves: Slots::new(limits.syncs_per_peer, limits.syncs_total),
            clocks: Slots::new(limits.syncs_per_peer, limits.clocks_total),
            clock_turns: Default::default(),
            live_serves: Slots::new(limits.live_per_peer, limits.live_total),
            flights: Keyed::new(1),
            live_flights: Keyed::new(1),
            pulls: Keyed::new(limits.syncs_per_peer),
            verifying: Arc::new(Semaphore::new(cores)),
            tasks: Tasks::new(),
            closing: watch::Sender::new(false),
            stopped: AtomicBool::new(false),
            next_request: AtomicU64::new(1),
            limits,
        };
        let inner = Arc::new(inner);
        if let Some(roster) = inner.policy.roster() {
            // The policy may outlive the node.
            let node = Arc::downgrade(&inner);
            roster.set_reader(move || node.upgrade()?.writer.read_due());
        }
        Headwater { inner }
    }
}

impl Headwater {
    /// Configures a node: by default it keeps events in memory, and the owner of each space says
    /// who may read and write it.
    #[must_use]
    pub fn builder() -> Builder {
        Builder {
            store: Arc::new(MemoryStore::new()),
            policy: Arc::new(Roster::new()),
            limits: Limits::default(),
            ask_back: true,
        }
    }

    /// The endpoint, unless the node was [opened](Builder::open) without one.
    #[must_use]
    pub fn endpoint(&self) -> Option<&Endpoint> {
        self.inner.endpoint.as_ref()
    }

    /// The store. Read it as you like; append through [`Space`] only.
    #[must_use]
    pub fn store(&self) -> &Arc<dyn LogStore> {
        &self.inner.store
    }

    /// Who may read what.
    #[must_use]
    pub fn policy(&self) -> &Arc<dyn AccessPolicy> {
        &self.inner.policy
    }

    /// The node's counters.
    #[must_use]
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.inner.metrics
    }

    /// The node's bounds.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.inner.limits
    }

    /// Creates a space: signs its genesis event, of which `owner` is the author. On return it is
    /// durable.
    ///
    /// # Errors
    ///
    /// Nothing is stored on any error.
    pub async fn create_space(&self, owner: &AuthorSecret) -> Result<Space, WriteError> {
        let genesis = sign_genesis(owner, random(), now_ms());
        let id = genesis.space();
        let stored = self
            .inner
            .writer
            .store(vec![genesis], Origin::Local)
            .await
            .map_err(|_stopped| WriteError::ShuttingDown)?
            .await
            .map_err(|_stopped| WriteError::ShuttingDown)?
            .whole()
            .map_err(WriteError::Store)?;
        for outcome in stored {
            outcome.map_err(WriteError::Append)?;
        }
        Ok(self.space(id))
    }

    /// A handle to a space, whether it is held or not.
    #[must_use]
    pub fn space(&self, id: SpaceId) -> Space {
        Space::new(self.clone(), id)
    }

    /// The spaces held, ascending by id.
    ///
    /// # Errors
    ///
    /// If the store fails.
    pub async fn spaces(&self) -> Result<Vec<SpaceSummary>, StoreError> {
        let store = Arc::clone(&self.inner.store);
        blocking(move || {
            let mut summaries = Vec::new();
            for space in store.spaces()? {
                summaries.extend(store.summary(&space)?);
            }
            Ok(summaries)
        })
        .await
    }

    /// Ends syncs and connections, commits what is queued, and stops the writer.
    ///
    /// Every append and every batch reported as stored is durable already. Peers are told the
    /// node is shutting down. Calls made later answer so too; reads go on working. Safe to call
    /// more than once, and called by [`Router::shutdown`](iroh::protocol::Router::shutdown).
    pub async fn shutdown(&self) {
        let inner = &self.inner;
        inner.closing.send_replace(true);
        inner.tasks.all_ended().await;
        inner.writer.stop().await;
        if !inner.stopped.swap(true, Ordering::AcqRel) {
            debug!("node stopped");
        }
    }

    pub(crate) fn from_inner(inner: &Arc<Inner>) -> Self {
        Self {
            inner: Arc::clone(inner),
        }
    }

    pub(crate) fn inner(&self) -> &Arc<Inner> {
        &self.inner
    }
}

impl Inner {
    /// Resolves when the node begins to shut down.
    pub(crate) async fn closing(&self) {
        // The sender lives in `self`, so waiting cannot fail.
        self.closing
            .subscribe()
            .wait_for(|closing| *closing)
            .await
            .ok();
    }

    /// Resolves once somebody who stands higher has the place; never without one. Safe to cancel.
    pub(crate) async fn lost(&self, slot: Option<&Slot>) {
        match slot {
            Some(slot) => slot.lost().await,
            None => std::future::pending().await,
        }
        self.metrics.places_lost.inc();
    }

    pub(crate) fn is_closing(&self) -> bool {
        *self.closing.borrow()
    }

    /// Notes that a peer broke a rule of the protocol, and bans one that does so again and again.
    pub(crate) fn note_fault(&self, peer: EndpointId) {
        self.metrics.peer_faults.inc();
        self.known.forget(peer);
        self.set_standing(peer, self.standing(peer));
        if self.conduct.note_fault(peer) {
            self.metrics.peers_banned.inc();
            warn!(peer = %peer.fmt_short(), "banned");
            self.accepted.close_all(peer, CloseCode::Banned);
        }
    }

    /// Who a peer is where not all find a place.
    pub(crate) fn standing(&self, peer: EndpointId) -> Standing {
        if self.policy.names(peer) {
            Standing::Named
        } else {
            self.known.standing(peer)
        }
    }

    /// Notes that a sync with the peer at the other end of a connection ended in order.
    pub(crate) fn note_sync(&self, connection: &Connection) {
        let peer = connection.remote_id();
        self.conduct.note_sync(peer);
        self.known.note_sync(peer);
        let standing = self.standing(peer);
        self.known.note_address(connection, standing);
        self.set_standing(peer, standing);
    }

    /// Has the places a peer holds count for what it is now.
    fn set_standing(&self, peer: EndpointId, standing: Standing) {
        self.accepted.set_standing(peer, standing);
        for slots in [&self.serves, &self.clocks, &self.live_serves] {
            slots.set_standing(peer, standing);
        }
    }

    pub(crate) fn next_request_id(&self) -> u64 {
        self.next_request.fetch_add(1, Ordering::Relaxed)
    }

    /// A connection to the peer, in use while the answer lives, and whether it stood already,
    /// which is so at most if it may be reused.
    pub(crate) async fn connect(
        self: &Arc<Self>,
        peer: EndpointAddr,
        may_reuse: bool,
    ) -> Result<(InUse, bool), SyncError> {
        let endpoint = self.endpoint.as_ref().ok_or(SyncError::Offline)?;
        let id = peer.id;
        // The queue is never closed.
        let _dialling = self.connections.dialling(id).acquire_owned().await.ok();
        if may_reuse && let Some(in_use) = self.connections.reuse(id) {
            return Ok((in_use, true));
        }
        let after = self.limits.dial_timeout;
        let dialled = timeout(after, endpoint.connect(peer, ALPN)).await;
        let connection = dialled
            .map_err(|_elapsed| SyncError::DialTimeout { after })
            .and_then(|dialled| dialled.map_err(|error| SyncError::Dial(Arc::new(error))))
            .inspect_err(|_| {
                self.metrics.dials_failed.inc();
            })?;
        self.metrics.connections_dialled.inc();
        let link = Link::new(connection, true);
        let in_use = link.hold();
        if self.is_closing() {
            close(&link.connection, CloseCode::ShuttingDown);
            return Err(SyncError::ShuttingDown);
        }
        self.connections.offer(&link);
        let task = self.tasks.enter();
        let span = info_span!("connection", peer = %id.fmt_short(), dialled = true);
        let accepting = handler::run_connection(Arc::clone(self), link);
        n0_future::task::spawn(
            async move {
                accepting.await;
                drop(task);
            }
            .instrument(span),
        );
        Ok((in_use, false))
    }
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inner").finish_non_exhaustive()
    }
}

impl fmt::Debug for Headwater {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Headwater")
            .field("endpoint", &self.endpoint().map(Endpoint::id))
            .field("store", &self.inner.store)
            .finish_non_exhaustive()
    }
}

/// Milliseconds since the Unix epoch by this machine's clock, for [`EventDraft`] timestamps; 0
/// before it.
///
/// [`EventDraft`]: crate::EventDraft
#[must_use]
pub fn now_ms() -> u64 {
    let since = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or(Duration::ZERO);
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// A new author key from the system's randomness. Keep it on one device only.
///
/// # Panics
///
/// If the system has no randomness to give.
#[must_use]
pub fn generate_author() -> AuthorSecret {
    AuthorSecret::from_bytes(random())
}

pub(crate) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the system gives randomness");
    bytes
}
