//! The spaces of a host that are live: on their gossip topics, with peers that need not be known
//! beforehand.
//!
//! Invariant: only spaces that peers may read here are live. Whoever announces what nobody may
//! pull would waste everybody's time.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use headwater::{Headwater, SpaceId};
use headwater_gossip::{
    BridgeEvent, GossipBridge, JoinError, LiveEvents, LiveSpace, TopicSecret, topic_id,
};
use iroh::{Endpoint, EndpointAddr, address_lookup::MemoryLookup, endpoint::TransportAddrInfo};
use iroh_gossip::{TopicId, net::Gossip};
use n0_future::StreamExt;

use crate::{
    error::{CliError, chain},
    folder::DataFolder,
};

/// How long a live space may take to follow the owner to another topic.
const MOVE_WAIT: Duration = Duration::from_secs(10);

/// A host's part in gossip.
#[derive(Debug)]
pub(super) struct Live {
    folder: DataFolder,
    endpoint: Endpoint,
    gossip: Gossip,
    bridge: GossipBridge,
    spaces: Mutex<BTreeMap<SpaceId, LiveSpace>>,
    /// Held while a space is joined or left.
    changing: tokio::sync::Mutex<()>,
}

impl Live {
    /// Takes part, in no space yet.
    ///
    /// # Errors
    ///
    /// The start cannot be counted.
    pub(super) async fn start(
        folder: &DataFolder,
        node: &Headwater,
        endpoint: &Endpoint,
    ) -> Result<Self, CliError> {
        let boot = folder.blocking(DataFolder::next_boot).await?;
        let gossip = Gossip::builder().spawn(endpoint.clone());
        let bridge = GossipBridge::builder(node.clone(), gossip.clone());
        Ok(Self {
            folder: folder.clone(),
            endpoint: endpoint.clone(),
            gossip,
            bridge: bridge.boot(boot).spawn(),
            spaces: Mutex::default(),
            changing: tokio::sync::Mutex::default(),
        })
    }

    /// To be mounted on the router.
    pub(super) fn gossip(&self) -> &Gossip {
        &self.gossip
    }

    /// Waits until no space is being joined or left. None is while the answer lives.
    pub(super) async fn changing(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.changing.lock().await
    }

    /// Joins a space's topic through these peers, or lets them be asked if it is live already.
    /// `by_owner` says whether the owner's log, as it is here, sets the secret: a live space moves to
    /// its topic by itself then, and takes the others along.
    ///
    /// # Errors
    ///
    /// The topic cannot be joined.
    pub(super) async fn join(
        &self,
        space: SpaceId,
        secret: TopicSecret,
        by_owner: bool,
        peers: &[EndpointAddr],
    ) -> Result<(), CliError> {
        let ids: Vec<_> = peers.iter().map(|peer| peer.id).collect();
        let joined = match self.bridge.join(space, secret.clone(), ids.clone()).await {
            Err(JoinError::OtherTopic { .. }) => {
                if let Some(live) = self.space(space)
                    && !(by_owner && moves_to(&live, topic_id(&space, &secret)).await)
                {
                    live.leave().await;
                }
                self.bridge.join(space, secret, ids).await
            }
            joined => joined,
        };
        let live = joined.map_err(|error| CliError::Network(chain(&error)))?;
        let events = live.events();
        let mut spaces = self.spaces.lock().unwrap_or_else(PoisonError::into_inner);
        let before = spaces.insert(space, live.clone());
        if before.is_none_or(|before| before.topic() != live.topic()) {
            let (folder, endpoint) = (self.folder.clone(), self.endpoint.clone());
            n0_future::task::spawn(remember_neighbors(space, events, folder, endpoint));
        }
        Ok(())
    }

    /// A live space.
    pub(super) fn space(&self, space: SpaceId) -> Option<LiveSpace> {
        let spaces = self.spaces.lock().unwrap_or_else(PoisonError::into_inner);
        spaces.get(&space).cloned()
    }

    /// Leaves a space's topic; nothing if it is not live.
    pub(super) async fn leave(&self, space: SpaceId) {
        let left = {
            let mut spaces = self.spaces.lock().unwrap_or_else(PoisonError::into_inner);
            spaces.remove(&space)
        };
        if let Some(live) = left {
            live.leave().await;
        }
    }

    /// Leaves every topic.
    pub(super) async fn stop(&self) {
        self.bridge.shutdown().await;
    }
}

/// Waits until a live space is on a topic; false if it takes too long, or was left.
async fn moves_to(live: &LiveSpace, topic: TopicId) -> bool {
    let mut events = live.events();
    let moving = async { while live.topic() != topic && events.next().await.is_some() {} };
    tokio::time::timeout(MOVE_WAIT, moving).await.is_ok() && live.topic() == topic
}

/// Tells an endpoint where peers can be reached, as others name them by id.
pub(super) fn introduce(addresses: &MemoryLookup, peers: &[EndpointAddr]) {
    for peer in peers.iter().filter(|peer| !peer.addrs.is_empty()) {
        addresses.add_endpoint_info(peer.clone());
    }
}

/// Writes down whom a live space meets, until it is left.
async fn remember_neighbors(
    space: SpaceId,
    mut events: LiveEvents,
    folder: DataFolder,
    endpoint: Endpoint,
) {
    while let Some(event) = events.next().await {
        let BridgeEvent::NeighborUp(peer) = event else {
            continue;
        };
        let Some(info) = endpoint.remote_info(peer).await else {
            continue;
        };
        let addresses = info.into_addrs().map(TransportAddrInfo::into_addr);
        let peer = EndpointAddr::from_parts(peer, addresses);
        let remembering = folder.blocking(move |folder| {
            folder.change_spaces(|spaces| {
                spaces.meet(space, &peer);
                Ok(())
            })
        });
        if let Err(error) = remembering.await {
            tracing::warn!(%error, "a peer that was met is not remembered");
        }
    }
}

/// Waits until a live space has no neighbour.
pub(crate) async fn alone(live: &LiveSpace) {
    let mut events = live.events();
    while !live.status().neighbors.is_empty() && events.next().await.is_some() {}
}
