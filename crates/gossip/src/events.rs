//! What a live space tells the application, and where it stands.

use std::{
    collections::{BTreeSet, VecDeque},
    pin::Pin,
    sync::{Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use headwater_proto::announcer::{Announcer, AnnouncerCounters, PeerCounters, PeerId};
use iroh::EndpointId;
use iroh_gossip::TopicId;
use n0_future::{Stream, stream};
use tokio::sync::broadcast;

use crate::topic::TopicSecret;

/// Events kept for a listener that is slow to take them.
const KEPT_EVENTS: usize = 1024;

/// Topics remembered that a space has moved away from, the present one included: whoever joins it
/// by an older secret means the same space.
const KEPT_TOPICS: usize = 8;

/// Something happened to a live space.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum BridgeEvent {
    /// A peer became a direct neighbour on the topic, and the node's policy lets it read. Others
    /// are no neighbours: they are never pulled from, and their word does not count.
    NeighborUp(EndpointId),
    /// A peer is no direct neighbour any more, or the policy no longer lets it read.
    NeighborDown(EndpointId),
    /// A pull from this peer ended, and all it held when the pull began is stored here, as far as
    /// this node takes it: authors above a quota here, or not accepted, do not hold it up.
    HistorySynced {
        /// The peer.
        provider: EndpointId,
        /// How many neighbours there are of which it is not known whether they hold more.
        still_pending: u64,
    },
    /// The history is complete by the [`HistoryPolicy`](crate::HistoryPolicy). Told once.
    ///
    /// What was missing is stored *before* this is told. So a
    /// [`Space::subscribe`](headwater::Space::subscribe) from the start that is begun now yields
    /// all of it before it says that it has caught up, and what it yields then is live.
    HistoryComplete,
    /// Two receipts of this peer contradict each other, so that it lied in one of them:
    /// [`Headwater::refutations`](headwater::Headwater::refutations) has the proof. It is pulled from
    /// after everybody else from now on, and vouches for nothing.
    ProviderCaught(EndpointId),
    /// The owner's log set another topic secret, and the space moved to its topic. Tickets made
    /// from now on should hold it.
    TopicSecretChanged {
        /// The secret.
        secret: TopicSecret,
        /// The topic derived from it.
        topic: TopicId,
    },
    /// iroh-gossip dropped messages because this node was too slow. What was missed is found
    /// again by digest, and pulled.
    Lagged,
    /// This listener was too slow, and was not told that many events.
    Missed(u64),
}

/// Where a live space stands.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct LiveStatus {
    /// Direct neighbours on the topic that the policy lets read, ascending.
    pub neighbors: Vec<EndpointId>,
    /// Neighbours of which it is not known whether they hold more than this node.
    pub unsettled_neighbors: usize,
    /// Authors of whom a head was announced that is not held here yet.
    pub missing_heads: usize,
    /// Logs that grew here and are not announced yet.
    pub unannounced: usize,
    /// Peers being pulled from, ascending.
    pub pulling_from: Vec<EndpointId>,
    /// Peers left alone for now because pulls from them failed, and for how long still.
    pub backed_off: Vec<(EndpointId, Duration)>,
    /// What the word of each peer was worth that was pulled from, ascending.
    pub standings: Vec<Standing>,
    /// How long the present interval between periodic announcements is; none without a neighbour.
    pub interval: Option<Duration>,
    /// Whether [`BridgeEvent::HistoryComplete`] was told.
    pub history_complete: bool,
    /// What was counted since the space was joined.
    pub counters: AnnouncerCounters,
}

/// What a peer's word was worth so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Standing {
    /// Who.
    pub peer: EndpointId,
    /// How far behind others it ranks where there is a choice whom to pull from; 0 is best.
    pub demerits: u32,
    /// Whether its receipts contradict each other.
    pub caught: bool,
    /// What was counted.
    pub counters: PeerCounters,
}

/// What the driver of a space and its handles share.
#[derive(Debug)]
pub(crate) struct Shared {
    /// Never held across a wait.
    announcer: Mutex<Announcer>,
    seen: Mutex<Seen>,
    origin: n0_future::time::Instant,
}

#[derive(Debug)]
struct Seen {
    neighbors: BTreeSet<EndpointId>,
    /// The topic, and those it moved away from, the last first.
    topics: VecDeque<TopicId>,
    history_complete: bool,
    /// `None` once the space was left.
    events: Option<broadcast::Sender<BridgeEvent>>,
}

impl Shared {
    pub(crate) fn new(
        announcer: Announcer,
        origin: n0_future::time::Instant,
        topic: TopicId,
    ) -> Self {
        Self {
            announcer: Mutex::new(announcer),
            seen: Mutex::new(Seen {
                neighbors: BTreeSet::new(),
                topics: VecDeque::from([topic]),
                history_complete: false,
                events: Some(broadcast::Sender::new(KEPT_EVENTS)),
            }),
            origin,
        }
    }

    /// The topic. Of another secret, once the owner has set one.
    pub(crate) fn topic(&self) -> Option<TopicId> {
        lock(&self.seen).topics.front().copied()
    }

    /// Whether the space is live on a topic, or was until the owner set another secret.
    pub(crate) fn was_joined_as(&self, topic: &TopicId) -> bool {
        lock(&self.seen).topics.contains(topic)
    }

    pub(crate) fn moved(&self, topic: TopicId) {
        let mut seen = lock(&self.seen);
        seen.topics.push_front(topic);
        seen.topics.truncate(KEPT_TOPICS);
    }

    pub(crate) fn now(&self) -> Duration {
        self.origin.elapsed()
    }

    /// Calls the announcer.
    pub(crate) fn announcer<T>(&self, call: impl FnOnce(&mut Announcer, Duration) -> T) -> T {
        let now = self.now();
        call(&mut lock(&self.announcer), now)
    }

    pub(crate) fn neighbors(&self) -> BTreeSet<EndpointId> {
        lock(&self.seen).neighbors.clone()
    }

    pub(crate) fn is_alone(&self) -> bool {
        lock(&self.seen).neighbors.is_empty()
    }

    pub(crate) fn is_neighbor(&self, peer: &EndpointId) -> bool {
        lock(&self.seen).neighbors.contains(peer)
    }

    /// Notes a neighbour; false if it was one already.
    pub(crate) fn neighbor_up(&self, peer: EndpointId) -> bool {
        let mut seen = lock(&self.seen);
        let is_new = seen.neighbors.insert(peer);
        if is_new {
            seen.tell(BridgeEvent::NeighborUp(peer));
        }
        is_new
    }

    /// Notes that a neighbour went; false if it was none.
    pub(crate) fn neighbor_down(&self, peer: EndpointId) -> bool {
        let mut seen = lock(&self.seen);
        let was_one = seen.neighbors.remove(&peer);
        if was_one {
            seen.tell(BridgeEvent::NeighborDown(peer));
        }
        was_one
    }

    pub(crate) fn tell(&self, event: BridgeEvent) {
        let mut seen = lock(&self.seen);
        if event == BridgeEvent::HistoryComplete {
            seen.history_complete = true;
        }
        seen.tell(event);
    }

    /// The space was left: ends every stream of events.
    pub(crate) fn left(&self) {
        let mut seen = lock(&self.seen);
        seen.neighbors.clear();
        seen.events = None;
    }

    pub(crate) fn has_left(&self) -> bool {
        lock(&self.seen).events.is_none()
    }

    pub(crate) fn listen(&self) -> LiveEvents {
        let seen = lock(&self.seen);
        let mut now: Vec<_> = seen
            .neighbors
            .iter()
            .map(|peer| BridgeEvent::NeighborUp(*peer))
            .collect();
        if seen.history_complete {
            now.push(BridgeEvent::HistoryComplete);
        }
        let later = seen.events.as_ref().map(broadcast::Sender::subscribe);
        LiveEvents::new(now, later)
    }

    pub(crate) fn status(&self) -> LiveStatus {
        let (status, now) = self.announcer(|announcer, now| (announcer.status(), now));
        let seen = lock(&self.seen);
        LiveStatus {
            neighbors: seen.neighbors.iter().copied().collect(),
            unsettled_neighbors: status.unsettled_neighbors,
            missing_heads: status.missing_heads,
            unannounced: status.unannounced,
            pulling_from: status.pulls.iter().filter_map(endpoint_id).collect(),
            backed_off: status
                .backed_off
                .iter()
                .filter_map(|(peer, until)| Some((endpoint_id(peer)?, until.saturating_sub(now))))
                .collect(),
            standings: status
                .standings
                .iter()
                .filter_map(|it| {
                    Some(Standing {
                        peer: endpoint_id(&it.peer)?,
                        demerits: it.demerits,
                        caught: it.caught,
                        counters: it.counters,
                    })
                })
                .collect(),
            interval: status.interval,
            history_complete: seen.history_complete,
            counters: status.counters,
        }
    }
}

impl Seen {
    fn tell(&self, event: BridgeEvent) {
        if let Some(events) = &self.events {
            // Nobody listening is fine.
            events.send(event).ok();
        }
    }
}

/// What happens to a live space, as a stream. See
/// [`LiveSpace::events`](crate::LiveSpace::events).
pub struct LiveEvents(Pin<Box<dyn Stream<Item = BridgeEvent> + Send + Sync>>);

impl LiveEvents {
    fn new(now: Vec<BridgeEvent>, later: Option<broadcast::Receiver<BridgeEvent>>) -> Self {
        let later = stream::unfold(later, |later| async move {
            let mut events = later?;
            match events.recv().await {
                Ok(event) => Some((event, Some(events))),
                Err(broadcast::error::RecvError::Lagged(missed)) => {
                    Some((BridgeEvent::Missed(missed), Some(events)))
                }
                Err(broadcast::error::RecvError::Closed) => None,
            }
        });
        Self(Box::pin(stream::StreamExt::chain(stream::iter(now), later)))
    }
}

impl std::fmt::Debug for LiveEvents {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("LiveEvents")
    }
}

impl Stream for LiveEvents {
    type Item = BridgeEvent;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.as_mut().poll_next(cx)
    }
}

pub(crate) fn peer_id(id: EndpointId) -> PeerId {
    PeerId::from_bytes(*id.as_bytes())
}

/// `None` for bytes that are no key: every peer an announcer knows was an [`EndpointId`] before.
pub(crate) fn endpoint_id(peer: &PeerId) -> Option<EndpointId> {
    EndpointId::from_bytes(peer.as_bytes()).ok()
}

/// A panic while a lock was held leaves plain values behind: go on with them.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
