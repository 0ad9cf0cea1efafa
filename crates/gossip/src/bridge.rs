//! The bridge of a node: joins the topics of its spaces, one driver for each.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::SystemTime,
};

use headwater::{Headwater, StoreError};
use headwater_proto::announcer::{Announcer, AnnouncerConfig};
use headwater_wire::{HeadsDigest, SpaceId};
use iroh::EndpointId;
use iroh_gossip::{TopicId, api::ApiError, net::Gossip};
use n0_future::{
    FuturesUnordered,
    task::JoinHandle,
    time::{Instant, timeout},
};
use tokio::sync::{mpsc, watch};
use tracing::{Instrument, debug, error, info_span};

use crate::{
    announcement::AnnouncementCounter,
    driver::{Asking, Driver, Moving, Old, Seldom},
    events::Shared,
    fresh::Fresh,
    gate::Gate,
    history::{History, HistoryPolicy},
    legacy::LegacyPolicy,
    limits::BridgeLimits,
    link::Link,
    live::{Live, LiveSpace},
    metrics::BridgeMetrics,
    random,
    topic::{TopicSecret, max_announcement_bytes, topic_id},
};

/// Commands a driver may be behind with.
const COMMANDS: usize = 16;

/// Keeps the spaces of a node live over iroh-gossip. Cheap to clone; all clones are one bridge.
///
/// It ends when it is [shut down](Self::shutdown), or when the last clone and the last
/// [`LiveSpace`] are gone. Shut it down before the node and the gossip instance.
#[derive(Debug, Clone)]
pub struct GossipBridge {
    inner: Arc<Inner>,
}

/// Configures a bridge. Made by [`GossipBridge::builder`].
#[derive(Debug)]
pub struct Builder {
    node: Headwater,
    gossip: Gossip,
    boot: Option<u64>,
    topic_message_bytes: usize,
    announcer: AnnouncerConfig,
    legacy: LegacyPolicy,
    history: HistoryPolicy,
    limits: BridgeLimits,
}

#[derive(Debug)]
struct Inner {
    node: Headwater,
    gossip: Gossip,
    counter: Arc<Counter>,
    max_bytes: usize,
    announcer: AnnouncerConfig,
    legacy: LegacyPolicy,
    history: HistoryPolicy,
    limits: BridgeLimits,
    metrics: Arc<BridgeMetrics>,
    /// The spaces joined. Held while one is being joined.
    spaces: tokio::sync::Mutex<HashMap<SpaceId, Weak<Live>>>,
    closing: watch::Sender<bool>,
    drivers: Mutex<Vec<JoinHandle<()>>>,
}

/// A space cannot be made live. Nothing was joined.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JoinError {
    /// The node was opened without an endpoint: nobody could pull from it.
    #[error("the node has no network")]
    Offline,
    /// The space is live on the topic of another secret. Leave it first.
    #[error("space {} is live on another topic", space.fmt_short())]
    OtherTopic {
        /// The space.
        space: SpaceId,
    },
    /// The store failed.
    #[error("store failed: {0}")]
    Store(#[source] StoreError),
    /// iroh-gossip refused the topic, most likely because it was shut down.
    #[error("cannot join the topic: {0}")]
    Topic(#[source] ApiError),
    /// iroh-gossip did not answer.
    #[error("iroh-gossip does not answer")]
    Stuck,
    /// The bridge was shut down.
    #[error("the bridge is shut down")]
    ShuttingDown,
}

/// Numbers the announcements of a node.
#[derive(Debug)]
pub(crate) struct Counter {
    boot: u64,
    n: AtomicU64,
}

impl Counter {
    pub(crate) fn next(&self) -> AnnouncementCounter {
        let n = self.n.fetch_add(1, Ordering::Relaxed) + 1;
        AnnouncementCounter { boot: self.boot, n }
    }
}

impl Builder {
    /// A number that is higher with every start of the node, and was stored before this call.
    /// Peers take whatever is announced under a lower one for a replay. Default: the microseconds
    /// of the system's clock since 1970, so that starts right after each other differ. It is not
    /// stored: a clock that is set back silences the node until it has caught up.
    #[must_use]
    pub fn boot(mut self, boot: u64) -> Self {
        self.boot = Some(boot);
        self
    }

    /// A limit for the size of one message, in bytes, below the one the gossip instance was built
    /// with: for a network in which other nodes take less. The smaller of the two holds.
    #[must_use]
    pub fn topic_message_bytes(mut self, bytes: usize) -> Self {
        self.topic_message_bytes = self.topic_message_bytes.min(bytes);
        self
    }

    /// When to announce and to pull. Its sizes are cut to what fits a message.
    #[must_use]
    pub fn announcer(mut self, config: AnnouncerConfig) -> Self {
        self.announcer = config;
        self
    }

    /// What requests of the older exchange get.
    #[must_use]
    pub fn legacy(mut self, policy: LegacyPolicy) -> Self {
        self.legacy = policy;
        self
    }

    /// When the history of a space counts as complete.
    #[must_use]
    pub fn history(mut self, policy: HistoryPolicy) -> Self {
        self.history = policy;
        self
    }

    /// Bounds on what peers may do.
    #[must_use]
    pub fn limits(mut self, limits: BridgeLimits) -> Self {
        self.limits = limits;
        self
    }

    /// Makes the bridge. It joins nothing yet.
    #[must_use]
    pub fn spawn(self) -> GossipBridge {
        let max_bytes = max_announcement_bytes(self.topic_message_bytes);
        let mut announcer = self.announcer;
        announcer.max_content_bytes = announcer.max_content_bytes.min(max_bytes);
        let boot = self.boot.unwrap_or_else(micros_since_1970);
        GossipBridge {
            inner: Arc::new(Inner {
                node: self.node,
                gossip: self.gossip,
                counter: Arc::new(Counter {
                    boot,
                    n: AtomicU64::new(0),
                }),
                max_bytes,
                announcer,
                legacy: self.legacy,
                history: self.history,
                limits: self.limits,
                metrics: Arc::default(),
                spaces: tokio::sync::Mutex::default(),
                closing: watch::Sender::new(false),
                drivers: Mutex::default(),
            }),
        }
    }
}

impl GossipBridge {
    /// Configures a bridge between a node and a gossip instance on the same endpoint, both mounted
    /// on its router.
    #[must_use]
    pub fn builder(node: Headwater, gossip: Gossip) -> Builder {
        Builder {
            topic_message_bytes: gossip.max_message_size(),
            node,
            gossip,
            boot: None,
            announcer: AnnouncerConfig::default(),
            legacy: LegacyPolicy::default(),
            history: HistoryPolicy::default(),
            limits: BridgeLimits::default(),
        }
    }

    /// Makes a space live: joins its topic, announces what grows, pulls what is missing. The space
    /// need not be held yet.
    ///
    /// Does not wait for a neighbour; [`LiveSpace::joined`] does. Whose addresses the endpoint can
    /// look up need only be named by id. A space that is live already gets the bootstrap peers.
    ///
    /// # Errors
    ///
    /// See [`JoinError`].
    pub async fn join(
        &self,
        space: SpaceId,
        secret: TopicSecret,
        bootstrap: Vec<EndpointId>,
    ) -> Result<LiveSpace, JoinError> {
        let inner = &self.inner;
        let topic = topic_id(&space, &secret);
        let mut spaces = inner.spaces.lock().await;
        if *inner.closing.borrow() {
            return Err(JoinError::ShuttingDown);
        }
        if let Some(live) = spaces.get(&space).and_then(Weak::upgrade)
            && !live.has_left()
        {
            if !live.was_joined_as(&topic) {
                return Err(JoinError::OtherTopic { space });
            }
            let live = LiveSpace::new(live);
            live.ask(bootstrap).await;
            return Ok(live);
        }
        let live = Arc::new(self.start(space, topic, bootstrap).await?);
        spaces.retain(|_, live| live.strong_count() > 0);
        spaces.insert(space, Arc::downgrade(&live));
        Ok(LiveSpace::new(live))
    }

    async fn start(
        &self,
        space: SpaceId,
        topic: TopicId,
        mut bootstrap: Vec<EndpointId>,
    ) -> Result<Live, JoinError> {
        let inner = &self.inner;
        let endpoint = inner.node.endpoint().ok_or(JoinError::Offline)?;
        let (me, key) = (endpoint.id(), endpoint.secret_key().clone());
        bootstrap.retain(|peer| *peer != me);
        let space = inner.node.space(space);
        // Whatever is stored from here on is seen to grow; the digest is of what was before.
        let growth = space.growth();
        let summary = space.summary().await.map_err(JoinError::Store)?;
        let owner = summary.as_ref().map(|summary| summary.owner);
        let digest = summary.map_or(HeadsDigest::EMPTY, |summary| summary.digest);
        let limits = inner.limits.clone();
        let joining = Link::join(inner.gossip.clone(), topic, bootstrap, limits.clone());
        let link = timeout(limits.broadcast_timeout, joining)
            .await
            .map_err(|_elapsed| JoinError::Stuck)?
            .map_err(JoinError::Topic)?;
        let origin = Instant::now();
        let seed = u64::from_be_bytes(random());
        let announcer = Announcer::new(inner.announcer.clone(), seed, digest);
        let shared = Arc::new(Shared::new(announcer, origin, topic));
        let driver = Driver {
            space: space.clone(),
            topic,
            key,
            counter: Arc::clone(&inner.counter),
            max_bytes: inner.max_bytes,
            metrics: Arc::clone(&inner.metrics),
            shared: Arc::clone(&shared),
            link,
            growth,
            asking: Asking::new(&space, &limits),
            moving: Moving::new(owner, &limits, inner.announcer.trickle.i_min),
            gate: Gate::new(space.id(), me, inner.max_bytes, &limits),
            history: History::new(inner.history.clone()),
            fresh: Fresh::new(inner.announcer.max_run_bytes),
            old: Old::new(inner.legacy, &limits),
            limits,
            digest,
            waiting: Vec::new(),
            applying: None,
            in_flight: std::collections::BTreeMap::new(),
            deferred: Vec::new(),
            report_at: None,
            pulls: FuturesUnordered::new(),
            may_give_up: HashMap::new(),
            unread: Seldom::new(inner.announcer.trickle.i_min),
        };
        let (commands, taken) = mpsc::channel(COMMANDS);
        let closing = inner.closing.subscribe();
        let span = info_span!("live", space = %space.id().fmt_short());
        let driving = driver.run(taken, closing).instrument(span);
        let mut drivers = inner.drivers.lock().unwrap_or_else(PoisonError::into_inner);
        drivers.retain(|driver| !driver.is_finished());
        drivers.push(n0_future::task::spawn(driving));
        Ok(Live::new(self.clone(), space, topic, shared, commands))
    }

    /// What the bridge counts.
    #[must_use]
    pub fn metrics(&self) -> &Arc<BridgeMetrics> {
        &self.inner.metrics
    }

    /// The node.
    #[must_use]
    pub fn node(&self) -> &Headwater {
        &self.inner.node
    }

    /// Leaves every topic. Streams of events end; what is stored stays. Safe to call twice.
    pub async fn shutdown(&self) {
        self.inner.closing.send_replace(true);
        // Whoever is joining a space now has it joined, and left, before this goes on.
        drop(self.inner.spaces.lock().await);
        let drivers = {
            let drivers = self.inner.drivers.lock();
            std::mem::take(&mut *drivers.unwrap_or_else(PoisonError::into_inner))
        };
        for driver in drivers {
            if let Err(error) = driver.await {
                error!(%error, "a live space ended badly");
            }
        }
        debug!("bridge shut down");
    }
}

fn micros_since_1970() -> u64 {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| since.as_micros() as u64)
}
