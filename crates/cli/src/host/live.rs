//! The spaces of a host that are live: on their gossip topics, with peers that need not be known
//! beforehand.
//!
//! Invariant: only spaces that peers may read here are live. Whoever announces what nobody may
//! pull would waste everybody's time.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use headwater::{Headwater, SpaceId};
use headwater_gossip::{BridgeEvent, GossipBridge, JoinError, LiveEvents, LiveSpace, TopicSecret};
use iroh::{Endpoint, EndpointAddr, address_lookup::MemoryLookup, endpoint::TransportAddrInfo};
use iroh_gossip::net::Gossip;
use n0_future::StreamExt;

use crate::{
    error::{CliError, chain},
    folder::DataFolder,
};

/// A host's part in gossip.
#[derive(Debug)]
pub(super) struct Live {
    folder: DataFolder,
    endpoint: Endpoint,
    gossip: Gossip,
    bridge: GossipBridge,
    spaces: Mutex<BTreeMap<SpaceId, LiveSpace>>,
}

impl Live {
    /// Takes part, in no space yet.
    ///
    /// # Errors
    ///
    /// The start cannot be counted.
    pub(super) fn start(
        folder: &DataFolder,
        node: &Headwater,
        endpoint: &Endpoint,
    ) -> Result<Self, CliError> {
        let boot = folder.next_boot()?;
        let gossip = Gossip::builder().spawn(endpoint.clone());
        let bridge = GossipBridge::builder(node.clone(), gossip.clone());
        Ok(Self {
            folder: folder.clone(),
            endpoint: endpoint.clone(),
            gossip,
            bridge: bridge.boot(boot).spawn(),
            spaces: Mutex::default(),
        })
    }

    /// To be mounted on the router.
    pub(super) fn gossip(&self) -> &Gossip {
        &self.gossip
    }

    /// Joins a space's topic through these peers, or lets them be asked if it is live already.
    ///
    /// # Errors
    ///
    /// The topic cannot be joined.
    pub(super) async fn join(
        &self,
        space: SpaceId,
        secret: TopicSecret,
        peers: &[EndpointAddr],
    ) -> Result<(), CliError> {
        let ids: Vec<_> = peers.iter().map(|peer| peer.id).collect();
        let joined = match self.bridge.join(space, secret.clone(), ids.clone()).await {
            Err(JoinError::OtherTopic { .. }) => {
                // The owner has changed the secret.
                if let Some(live) = self.space(space) {
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

    /// Leaves every topic.
    pub(super) async fn stop(&self) {
        self.bridge.shutdown().await;
    }
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
        let remembered = folder.change_spaces(|spaces| {
            spaces.meet(space, &peer);
            Ok(())
        });
        if let Err(error) = remembered {
            tracing::warn!(%error, "a peer that was met is not remembered");
        }
    }
}

/// Waits until a live space has no neighbour.
pub(crate) async fn alone(live: &LiveSpace) {
    let mut events = live.events();
    while !live.status().neighbors.is_empty() && events.next().await.is_some() {}
}
