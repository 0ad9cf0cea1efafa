//! The process that has a data folder open: its store, and a network if it is to have one.

mod live;

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use headwater::{ALPN, AccessPolicy, Damage, Headwater, Limits, SpaceId, SpaceSummary, StoreError};
use headwater_gossip::{LiveSpace, TopicSecret};
use iroh::{
    Endpoint, EndpointAddr, EndpointId, SecretKey, TransportAddr, address_lookup::MemoryLookup,
    endpoint::presets, protocol::Router,
};
use iroh_gossip::ALPN as GOSSIP_ALPN;
use n0_future::{StreamExt, boxed::BoxFuture};

use self::live::Live;
pub(crate) use self::live::alone;
use crate::{
    error::CliError,
    folder::{DataFolder, OwnerLog},
};

/// How long `serve` waits for a relay before it prints tickets without one.
const ONLINE_WAIT: Duration = Duration::from_secs(5);

/// How long a command that dials waits for its connections to close.
const CLOSE_WAIT: Duration = Duration::from_secs(1);

/// Where and how to be reached, and to reach others.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct NetOptions {
    /// Direct addresses only.
    pub(crate) no_relay: bool,
    /// The address to listen on; any if `None`.
    pub(crate) bind: Option<SocketAddr>,
    /// How long a dial may take; the node's own limit if `None`.
    pub(crate) dial_timeout: Option<Duration>,
}

/// What a folder is opened for.
#[derive(Debug, Clone)]
pub(crate) enum Role {
    /// The store alone.
    Offline,
    /// To dial for one space, and to answer for that space alone on the connections it dialled: a
    /// peer that lacks something of it may ask back.
    Dial { net: NetOptions, space: SpaceId },
    /// To stay, and to be dialled.
    Serve {
        net: NetOptions,
        served: Served,
        /// Whether spaces are to be live.
        gossip: bool,
    },
}

impl Role {
    /// The first option given that only a network of one's own can follow.
    pub(crate) fn dial_option(&self) -> Option<&'static str> {
        match self {
            Self::Offline => None,
            Self::Dial { net, .. } | Self::Serve { net, .. } => match net {
                NetOptions { bind: Some(_), .. } => Some("--bind"),
                NetOptions {
                    dial_timeout: Some(_),
                    ..
                } => Some("--dial-timeout"),
                _ => None,
            },
        }
    }
}

/// The spaces that peers may read. Clones are one list.
#[derive(Debug, Clone)]
pub(crate) struct Served(Arc<Mutex<Option<BTreeSet<SpaceId>>>>);

impl Served {
    /// Every space, for whoever knows its id.
    pub(crate) fn all() -> Self {
        Self(Arc::new(Mutex::new(None)))
    }

    /// These spaces alone.
    pub(crate) fn only(spaces: BTreeSet<SpaceId>) -> Self {
        Self(Arc::new(Mutex::new(Some(spaces))))
    }

    /// Whether peers may read this space.
    pub(crate) fn contains(&self, space: SpaceId) -> bool {
        let spaces = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        spaces.as_ref().is_none_or(|spaces| spaces.contains(&space))
    }

    /// Lets peers read this space, too.
    pub(crate) fn add(&self, space: SpaceId) {
        let mut spaces = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(spaces) = &mut *spaces {
            spaces.insert(space);
        }
    }
}

impl AccessPolicy for Served {
    fn may_read(&self, _remote: EndpointId, space: SpaceId) -> BoxFuture<bool> {
        Box::pin(std::future::ready(self.contains(space)))
    }
}

/// An open data folder. Clones are one host.
#[derive(Debug, Clone)]
pub(crate) struct Host(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    folder: DataFolder,
    node: Headwater,
    served: Served,
    network: Option<Network>,
}

#[derive(Debug)]
struct Network {
    endpoint: Endpoint,
    /// Where peers are that others name by id alone.
    addresses: MemoryLookup,
    live: Option<Live>,
    /// There is one if the node is dialled, too.
    router: Option<Router>,
    no_relay: bool,
}

impl Host {
    /// Opens the store, then the network that the role asks for.
    ///
    /// # Errors
    ///
    /// One of the two cannot be opened; the store is left as it is.
    pub(crate) async fn open(folder: &DataFolder, role: &Role) -> Result<Self, CliError> {
        let store = folder.store()?;
        let builder = Headwater::builder().store(store);
        let (net, served) = match role {
            Role::Offline => {
                return Ok(Self(Arc::new(Inner {
                    folder: folder.clone(),
                    node: builder.open(),
                    served: Served::only(BTreeSet::new()),
                    network: None,
                })));
            }
            Role::Dial { net, space } => (net, Served::only(BTreeSet::from([*space]))),
            Role::Serve { net, served, .. } => (net, served.clone()),
        };
        let addresses = MemoryLookup::new();
        let endpoint = bind(folder.node_key()?, *net, addresses.clone()).await?;
        let mut limits = Limits::default();
        if let Some(timeout) = net.dial_timeout {
            limits.dial_timeout = timeout;
        }
        let node = builder
            .limits(limits)
            .policy(served.clone())
            .spawn(endpoint.clone());
        let live = match role {
            Role::Serve { gossip: true, .. } => Some(Live::start(folder, &node, &endpoint)?),
            _ => None,
        };
        let router = matches!(role, Role::Serve { .. }).then(|| {
            let router = Router::builder(endpoint.clone()).accept(ALPN, node.clone());
            match &live {
                Some(live) => router.accept(GOSSIP_ALPN, live.gossip().clone()),
                None => router,
            }
            .spawn()
        });
        let network = Some(Network {
            endpoint,
            addresses,
            live,
            router,
            no_relay: net.no_relay,
        });
        Ok(Self(Arc::new(Inner {
            folder: folder.clone(),
            node,
            served,
            network,
        })))
    }

    /// The folder.
    pub(crate) fn folder(&self) -> &DataFolder {
        &self.0.folder
    }

    /// The node on its store.
    pub(crate) fn node(&self) -> &Headwater {
        &self.0.node
    }

    /// The spaces that peers may read here.
    pub(crate) fn served(&self) -> &Served {
        &self.0.served
    }

    /// The secret of a space's gossip topic: the latest in the owner's log, else what a ticket said.
    /// Damage to that log hides what is behind it.
    ///
    /// # Errors
    ///
    /// The store or the list of spaces cannot be read or written.
    pub(crate) async fn topic_secret(
        &self,
        space: SpaceId,
    ) -> Result<Option<TopicSecret>, CliError> {
        let known = self.folder().spaces()?;
        let known = known.get(space);
        let seen = known.map(|known| known.owner_log.clone());
        let seen = self.look_through_owner_log(space, seen.unwrap_or_default());
        let seen = seen.await?;
        if known.is_some_and(|known| known.owner_log != seen) {
            self.folder().change_spaces(|spaces| {
                spaces.saw_owner_log(space, &seen);
                Ok(())
            })?;
        }
        let told = known.and_then(|known| known.topic_secret.clone());
        Ok(seen.topic_secret.or(told))
    }

    async fn look_through_owner_log(
        &self,
        space: SpaceId,
        mut seen: OwnerLog,
    ) -> Result<OwnerLog, StoreError> {
        let space = self.node().space(space);
        let owner = match space.summary().await {
            Ok(Some(summary)) => summary.owner,
            Ok(None) | Err(StoreError::Damaged(_)) => return Ok(seen),
            Err(error) => return Err(error),
        };
        let mut events = space.events(owner, seen.through + 1..);
        while let Some(event) = events.next().await {
            let event = match event {
                Ok(event) => event,
                Err(StoreError::Damaged(_)) => break,
                Err(error) => return Err(error),
            };
            seen.through = event.header.seq;
            if let Some(secret) = event.topic_secret() {
                seen.topic_secret = Some(TopicSecret::from_bytes(secret));
            }
        }
        Ok(seen)
    }

    /// Whether peers can dial it: such a host stays until it is told to stop.
    pub(crate) fn is_serving(&self) -> bool {
        let network = self.0.network.as_ref();
        network.is_some_and(|network| network.router.is_some())
    }

    /// The address for tickets; `None` without a network. Waits a little for a relay, if there is
    /// to be one.
    pub(crate) async fn addr(&self) -> Option<EndpointAddr> {
        let network = self.0.network.as_ref()?;
        let endpoint = &network.endpoint;
        if !network.no_relay
            && tokio::time::timeout(ONLINE_WAIT, endpoint.online())
                .await
                .is_err()
        {
            tracing::warn!("no relay answered; the tickets hold direct addresses alone");
        }
        let mut addr = endpoint.addr();
        if network.no_relay {
            let sockets = endpoint.bound_sockets();
            addr.addrs
                .extend(loopback_sockets(&sockets).map(TransportAddr::Ip));
        }
        Some(addr)
    }

    /// Whether spaces can be live here.
    pub(crate) fn has_gossip(&self) -> bool {
        let network = self.0.network.as_ref();
        network.is_some_and(|network| network.live.is_some())
    }

    /// Makes a space live, if spaces are to be live here, peers may read this one, and its topic is
    /// known. Answers whether it is. Doing it again tells new peers of it.
    ///
    /// # Errors
    ///
    /// The topic cannot be joined, or the folder cannot be read.
    pub(crate) async fn go_live(&self, space: SpaceId) -> Result<bool, CliError> {
        let Some(network) = &self.0.network else {
            return Ok(false);
        };
        let Some(live) = &network.live else {
            return Ok(false);
        };
        if !self.served().contains(space) {
            return Ok(false);
        }
        let Some(secret) = self.topic_secret(space).await? else {
            return Ok(false);
        };
        let known = self.folder().spaces()?;
        let mut peers = Vec::new();
        if let Some(known) = known.get(space) {
            peers.extend_from_slice(&known.peers);
            peers.extend_from_slice(&known.met);
        }
        live::introduce(&network.addresses, &peers);
        live.join(space, secret, &peers).await?;
        Ok(true)
    }

    /// A space that is live.
    pub(crate) fn live(&self, space: SpaceId) -> Option<LiveSpace> {
        self.0.network.as_ref()?.live.as_ref()?.space(space)
    }

    /// Ends everything; what was reported as stored is stored.
    pub(crate) async fn stop(&self) {
        let Inner { node, network, .. } = &*self.0;
        if let Some(live) = network.as_ref().and_then(|network| network.live.as_ref()) {
            live.stop().await;
        }
        let router = network.as_ref().and_then(|network| network.router.as_ref());
        if let Some(router) = router
            && let Err(error) = router.shutdown().await
        {
            tracing::warn!(%error, "a task of the router had failed");
        }
        node.shutdown().await;
        if let Some(network) = network {
            // A dial that was given up would keep it longer; nobody is told anything by then.
            let closed = tokio::time::timeout(CLOSE_WAIT, network.endpoint.close()).await;
            if closed.is_err() {
                tracing::debug!("the endpoint was not closed in time");
            }
        }
    }
}

/// A space that is held: what its record says of it, or what is wrong with the record.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) id: SpaceId,
    pub(crate) summary: Result<SpaceSummary, Damage>,
}

/// The ids of the spaces held, ascending, whatever state they are in.
///
/// # Errors
///
/// The store cannot list them.
pub(crate) fn space_ids(node: &Headwater) -> Result<Vec<SpaceId>, StoreError> {
    tokio::task::block_in_place(|| node.store().spaces())
}

/// The spaces held, ascending by id. A damaged one does not hide the others.
///
/// # Errors
///
/// The store fails in another way than by damage to single spaces.
pub(crate) async fn held_spaces(node: &Headwater) -> Result<Vec<Held>, StoreError> {
    let mut held = Vec::new();
    for id in space_ids(node)? {
        let summary = match node.space(id).summary().await {
            Ok(Some(summary)) => Ok(summary),
            Ok(None) => continue,
            Err(StoreError::Damaged(damage)) => Err(damage),
            Err(error) => return Err(error),
        };
        held.push(Held { id, summary });
    }
    Ok(held)
}

/// A socket bound to every address is also reached on this machine, network or not.
fn loopback_sockets(sockets: &[SocketAddr]) -> impl Iterator<Item = SocketAddr> {
    use std::net::{Ipv4Addr, Ipv6Addr};
    sockets
        .iter()
        .filter(|socket| socket.ip().is_unspecified())
        .map(|socket| match socket {
            SocketAddr::V4(socket) => (Ipv4Addr::LOCALHOST, socket.port()).into(),
            SocketAddr::V6(socket) => (Ipv6Addr::LOCALHOST, socket.port()).into(),
        })
}

async fn bind(
    key: SecretKey,
    net: NetOptions,
    addresses: MemoryLookup,
) -> Result<Endpoint, CliError> {
    let refused = |error: &dyn std::error::Error| CliError::Network(crate::error::chain(error));
    let mut builder = if net.no_relay {
        Endpoint::builder(presets::Minimal)
    } else {
        Endpoint::builder(presets::N0)
    };
    builder = builder.secret_key(key).address_lookup(addresses);
    if let Some(address) = net.bind {
        builder = builder
            .clear_ip_transports()
            .bind_addr(address)
            .map_err(|error| refused(&error))?;
    }
    let endpoint = builder.bind().await.map_err(|error| refused(&error))?;
    if net.no_relay {
        // Those who hear of us by gossip may be on this machine, and it may have no network.
        for socket in loopback_sockets(&endpoint.bound_sockets()) {
            endpoint.add_external_addr(socket).await;
        }
    }
    Ok(endpoint)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn a_node_that_dials_for_a_space_answers_for_that_space_alone() {
        use headwater::{CloseCode, SessionError, SyncError, SyncOptions};

        let net = NetOptions {
            no_relay: true,
            bind: Some(([127, 0, 0, 1], 0).into()),
            dial_timeout: None,
        };
        let dir = tempfile::tempdir().unwrap();
        let (folder, _) = DataFolder::init(dir.path().to_owned()).unwrap();
        let key = folder.author_key("me").unwrap();
        let offline = Host::open(&folder, &Role::Offline).await.unwrap();
        let private = offline.node().create_space(&key).await.unwrap().id();
        offline.stop().await;
        drop(offline);

        let key_of_far = SecretKey::from_bytes(&[3; 32]);
        let endpoint = bind(key_of_far, net, MemoryLookup::new()).await.unwrap();
        let far = Headwater::builder().spawn(endpoint.clone());
        let router = Router::builder(endpoint.clone())
            .accept(ALPN, far.clone())
            .spawn();
        let shared = far.create_space(&key).await.unwrap();
        let space = shared.id();
        let dialer = Host::open(&folder, &Role::Dial { net, space })
            .await
            .unwrap();
        let mut live = dialer
            .node()
            .space(shared.id())
            .sync_with_options(endpoint.addr(), SyncOptions::live());
        live.history().await.unwrap();

        // The other way on the same connection.
        let back = EndpointAddr::new(dialer.addr().await.unwrap().id);
        let asked = shared.sync_with(back.clone()).await.unwrap();
        assert!(asked.first_digest_equal);
        let refused = far.space(private).sync_with(back).await;
        assert!(
            matches!(
                refused,
                Err(SyncError::Session(SessionError::Reset(CloseCode::Refused)))
            ),
            "{refused:?}"
        );
        drop(live);
        dialer.stop().await;
        router.shutdown().await.unwrap();
    }

    #[test]
    fn a_socket_on_every_address_is_reached_on_loopback_too() {
        let sockets = ["0.0.0.0:5", "192.0.2.1:6", "[::]:7"].map(|text| text.parse().unwrap());
        let found: Vec<_> = loopback_sockets(&sockets).collect();
        let expected = ["127.0.0.1:5", "[::1]:7"].map(|text| text.parse::<SocketAddr>().unwrap());
        assert_eq!(found, expected);
    }
}
