//! The process that has a data folder open: its store, and a network if it is to have one.

mod held;
mod live;
mod net;
mod policy;
mod role;
mod served;
mod topic;

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use headwater::{ALPN, Headwater, Limits, SpaceId};
use headwater_gossip::LiveSpace;
use iroh::{Endpoint, EndpointAddr, TransportAddr, address_lookup::MemoryLookup, protocol::Router};
use iroh_gossip::ALPN as GOSSIP_ALPN;
use tokio::runtime::Handle;

pub(crate) use self::{
    held::{Held, held_spaces, space_ids},
    live::alone,
    role::{NetOption, NetOptions, Role},
    served::Served,
};
use self::{
    live::Live,
    net::{bind, loopback_sockets},
    policy::ServedToMembers,
};
use crate::{
    error::CliError,
    folder::{AuthorKeys, DataFolder},
};

/// How long `serve` waits for a relay before it prints tickets without one.
const ONLINE_WAIT: Duration = Duration::from_secs(5);

/// How long a command that dials waits for its connections to close.
const CLOSE_WAIT: Duration = Duration::from_secs(1);

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
        let serves = matches!(role, Role::Serve { .. });
        let opening = folder.blocking(move |folder| {
            let store = folder.store()?;
            // Whoever has the store is alone with what others left half made.
            folder.clear_leftovers()?;
            let authors = serves.then(|| folder.authors()).transpose()?;
            Ok((store, folder.node_key()?, authors))
        });
        let (store, key, authors) = opening.await?;
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
        let endpoint = bind(key, *net, addresses.clone()).await?;
        let mut limits = Limits::default();
        if let Some(timeout) = net.dial_timeout {
            limits.dial_timeout = timeout;
        }
        let node = builder
            .limits(limits)
            .policy(ServedToMembers::new(served.clone()))
            .spawn(endpoint.clone());
        // A node that serves takes the invites of those whose keys lie here.
        for owner in authors.iter().flat_map(AuthorKeys::secrets) {
            node.act_for(owner);
        }
        let live = match role {
            Role::Serve { gossip: true, .. } => Some(Live::start(folder, &node, &endpoint).await?),
            _ => None,
        };
        let router = serves.then(|| {
            let router = Router::builder(endpoint.clone())
                .incoming_filter(node.incoming_filter())
                .accept(ALPN, node.clone());
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

    /// Lets peers read a space until the answer is dropped. Unless it is served anyway, its topic is
    /// left then, too.
    pub(crate) fn serve_meanwhile(&self, space: SpaceId) -> ServedMeanwhile {
        self.served().begin_use(space);
        let host = self.clone();
        ServedMeanwhile { host, space }
    }

    /// Which of these options of a command that is carried out here have no effect, in words.
    pub(crate) fn without_effect(&self, options: &[NetOption]) -> Option<String> {
        let words: Vec<_> = options
            .iter()
            .filter(|option| !self.is_as(**option))
            .map(|option| option.word())
            .collect();
        (!words.is_empty()).then(|| {
            format!(
                "the running node carries this out, and its network stays as it was started; \
                 without effect: {}",
                words.join(", ")
            )
        })
    }

    /// Whether the network is as this option would have it.
    fn is_as(&self, option: NetOption) -> bool {
        match option {
            NetOption::NoRelay => {
                let network = self.0.network.as_ref();
                network.is_none_or(|network| network.no_relay)
            }
            NetOption::NoGossip => !self.has_gossip(),
            NetOption::Bind | NetOption::DialTimeout => false,
        }
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

    /// Leaves a space's topic, unless peers may read the space.
    async fn leave_unless_served(&self, space: SpaceId) {
        let network = self.0.network.as_ref();
        if let Some(live) = network.and_then(|network| network.live.as_ref()) {
            let _changing = live.changing().await;
            if !self.served().contains(space) {
                live.leave(space).await;
            }
        }
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

/// Peers may read a space while this lives. Made by [`Host::serve_meanwhile`].
#[derive(Debug)]
pub(crate) struct ServedMeanwhile {
    host: Host,
    space: SpaceId,
}

impl Drop for ServedMeanwhile {
    fn drop(&mut self) {
        let (host, space) = (self.host.clone(), self.space);
        host.served().end_use(space);
        // Without a runtime the process is about to end, and every topic is left.
        if host.live(space).is_some()
            && let Ok(runtime) = Handle::try_current()
        {
            runtime.spawn(async move { host.leave_unless_served(space).await });
        }
    }
}

#[cfg(test)]
mod tests;
