//! One space on its topic, as the application holds it.

use std::sync::Arc;

use headwater::Space;
use iroh::EndpointId;
use iroh_gossip::TopicId;
use n0_future::StreamExt;
use tokio::sync::mpsc;

use crate::{
    bridge::GossipBridge,
    driver::Command,
    events::{BridgeEvent, LiveEvents, LiveStatus, Shared},
};

/// A space that hears of what others write, and lets them hear. Made by [`GossipBridge::join`].
///
/// Cheap to clone; when the last clone is gone the topic is left.
///
/// # The history and what follows it
///
/// Events reach the application by [`Space::subscribe`], whatever way they came; a live space
/// only makes them come. [`BridgeEvent::HistoryComplete`] says when the history is there:
///
/// - what was missing is **stored before** the marker is told;
/// - so a subscription from the start that is begun after the marker yields all of the history,
///   then [`CaughtUp`](headwater::SubscriptionItem::CaughtUp), and what follows is live;
/// - a subscription that was begun before the marker may still be on its way through the history
///   when the marker is told: it reads the store at the reader's pace.
#[derive(Debug, Clone)]
pub struct LiveSpace {
    live: Arc<Live>,
}

/// What all clones of a live space share. The driver ends when it is dropped.
#[derive(Debug)]
pub(crate) struct Live {
    /// Keeps the bridge going.
    _bridge: GossipBridge,
    space: Space,
    /// The topic that was joined at first.
    topic: TopicId,
    shared: Arc<Shared>,
    commands: mpsc::Sender<Command>,
}

impl Live {
    pub(crate) fn new(
        bridge: GossipBridge,
        space: Space,
        topic: TopicId,
        shared: Arc<Shared>,
        commands: mpsc::Sender<Command>,
    ) -> Self {
        Self {
            _bridge: bridge,
            space,
            topic,
            shared,
            commands,
        }
    }

    /// Whether it is live on that topic, or was before the owner set another secret.
    pub(crate) fn was_joined_as(&self, topic: &TopicId) -> bool {
        self.shared.was_joined_as(topic)
    }

    pub(crate) fn has_left(&self) -> bool {
        self.shared.has_left()
    }
}

impl LiveSpace {
    pub(crate) fn new(live: Arc<Live>) -> Self {
        Self { live }
    }

    /// The space.
    #[must_use]
    pub fn space(&self) -> &Space {
        &self.live.space
    }

    /// The topic it is on now: another one after
    /// [`TopicSecretChanged`](BridgeEvent::TopicSecretChanged).
    #[must_use]
    pub fn topic(&self) -> TopicId {
        self.live.shared.topic().unwrap_or(self.live.topic)
    }

    /// Where it stands now.
    #[must_use]
    pub fn status(&self) -> LiveStatus {
        self.live.shared.status()
    }

    /// What happens from now on, after what is the case already: a
    /// [`NeighborUp`](BridgeEvent::NeighborUp) for each neighbour, and
    /// [`HistoryComplete`](BridgeEvent::HistoryComplete) if it was told. Ends when the space is
    /// left.
    #[must_use]
    pub fn events(&self) -> LiveEvents {
        self.live.shared.listen()
    }

    /// Waits for a neighbour; at once if there is one. False if the space was left instead.
    pub async fn joined(&self) -> bool {
        let mut events = self.events();
        while let Some(event) = events.next().await {
            if matches!(event, BridgeEvent::NeighborUp(_)) {
                return true;
            }
        }
        false
    }

    /// Asks peers to become neighbours, besides those known.
    pub async fn ask(&self, peers: Vec<EndpointId>) {
        if !peers.is_empty() {
            // A driver that ended has no more use for it.
            self.live.commands.send(Command::Ask(peers)).await.ok();
        }
    }

    /// Leaves the topic, for every clone, and waits until it is left. The space can be joined
    /// again.
    pub async fn leave(&self) {
        self.live.commands.send(Command::Leave).await.ok();
        self.live.commands.closed().await;
    }
}
