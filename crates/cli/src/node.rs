//! A node made from a data folder: with a network, or without.

use std::{collections::BTreeSet, net::SocketAddr, sync::Arc, time::Duration};

use headwater::{
    ALPN, AccessPolicy, Damage, Headwater, Limits, LogStore, Open, SpaceId, SpaceSummary,
    StoreError,
};
use iroh::{
    Endpoint, EndpointAddr, EndpointId, SecretKey, TransportAddr, endpoint::presets,
    protocol::Router,
};
use n0_future::boxed::BoxFuture;

use crate::{error::CliError, folder::DataFolder};

/// How long `serve` waits for a relay before it prints tickets without one.
const ONLINE_WAIT: Duration = Duration::from_secs(5);

/// How long a command that dials waits for its connections to close.
const CLOSE_WAIT: Duration = Duration::from_secs(1);

/// Where and how to be reached.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NetOptions {
    /// Direct addresses only.
    pub(crate) no_relay: bool,
    /// The address to listen on; any if `None`.
    pub(crate) bind: Option<SocketAddr>,
}

/// Opens the store without a network.
///
/// # Errors
///
/// The store cannot be opened; it is left as it is.
pub(crate) fn open_offline(folder: &DataFolder) -> Result<Headwater, CliError> {
    Ok(Headwater::builder().store(folder.store()?).open())
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

/// Serves these spaces alone.
#[derive(Debug)]
pub(crate) struct Only(pub(crate) BTreeSet<SpaceId>);

impl AccessPolicy for Only {
    fn may_read(&self, _remote: EndpointId, space: SpaceId) -> BoxFuture<bool> {
        Box::pin(std::future::ready(self.0.contains(&space)))
    }
}

/// A node that dials for one space, and answers for that space alone on the connections it
/// dialled: a peer that lacks something of it may ask back.
#[derive(Debug)]
pub(crate) struct Dialer {
    pub(crate) node: Headwater,
    endpoint: Endpoint,
}

impl Dialer {
    /// Opens the store, then the network, to sync this space.
    ///
    /// # Errors
    ///
    /// One of the two cannot be opened.
    pub(crate) async fn start(
        folder: &DataFolder,
        net: NetOptions,
        dial_timeout: Duration,
        space: SpaceId,
    ) -> Result<Self, CliError> {
        let store = folder.store()?;
        let endpoint = bind(folder.node_key()?, net).await?;
        let mut limits = Limits::default();
        limits.dial_timeout = dial_timeout;
        let node = Headwater::builder()
            .store(store)
            .limits(limits)
            .policy(Only(BTreeSet::from([space])))
            .spawn(endpoint.clone());
        Ok(Self { node, endpoint })
    }

    /// Ends everything; what was reported as stored is stored.
    pub(crate) async fn stop(self) {
        self.node.shutdown().await;
        // A dial that was given up would keep it longer; nobody is told anything by then.
        let closed = tokio::time::timeout(CLOSE_WAIT, self.endpoint.close()).await;
        if closed.is_err() {
            tracing::debug!("the endpoint was not closed in time");
        }
    }
}

/// A node that accepts.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) node: Headwater,
    router: Router,
    no_relay: bool,
}

impl Server {
    /// Opens the store, then the network, and accepts.
    ///
    /// # Errors
    ///
    /// One of the two cannot be opened.
    pub(crate) async fn start(
        folder: &DataFolder,
        net: NetOptions,
        policy: impl AccessPolicy,
    ) -> Result<Self, CliError> {
        let store: Arc<dyn LogStore> = Arc::new(folder.store()?);
        let endpoint = bind(folder.node_key()?, net).await?;
        let node = Headwater::builder()
            .shared_store(store)
            .policy(policy)
            .spawn(endpoint.clone());
        let router = Router::builder(endpoint).accept(ALPN, node.clone()).spawn();
        Ok(Self {
            node,
            router,
            no_relay: net.no_relay,
        })
    }

    /// Accepts from everybody who knows a space's id.
    ///
    /// # Errors
    ///
    /// As [`Self::start`].
    pub(crate) async fn start_open(folder: &DataFolder, net: NetOptions) -> Result<Self, CliError> {
        Self::start(folder, net, Open).await
    }

    /// The address for tickets. Waits a little for a relay, if there is to be one.
    pub(crate) async fn addr(&self) -> EndpointAddr {
        let endpoint = self.router.endpoint();
        if !self.no_relay
            && tokio::time::timeout(ONLINE_WAIT, endpoint.online())
                .await
                .is_err()
        {
            tracing::warn!("no relay answered; the tickets hold direct addresses alone");
        }
        let mut addr = endpoint.addr();
        if self.no_relay {
            addr.addrs.extend(loopback_addrs(&endpoint.bound_sockets()));
        }
        addr
    }

    /// Ends everything; what was reported as stored is stored.
    pub(crate) async fn stop(self) {
        if let Err(error) = self.router.shutdown().await {
            tracing::warn!(%error, "a task of the router had failed");
        }
        self.node.shutdown().await;
    }
}

/// A socket bound to every address is also reached on this machine, network or not.
fn loopback_addrs(sockets: &[SocketAddr]) -> impl Iterator<Item = TransportAddr> {
    use std::net::{Ipv4Addr, Ipv6Addr};
    sockets
        .iter()
        .filter(|socket| socket.ip().is_unspecified())
        .map(|socket| match socket {
            SocketAddr::V4(socket) => (Ipv4Addr::LOCALHOST, socket.port()).into(),
            SocketAddr::V6(socket) => (Ipv6Addr::LOCALHOST, socket.port()).into(),
        })
        .map(TransportAddr::Ip)
}

async fn bind(key: SecretKey, net: NetOptions) -> Result<Endpoint, CliError> {
    let refused = |error: &dyn std::error::Error| CliError::Network(crate::error::chain(error));
    let mut builder = if net.no_relay {
        Endpoint::builder(presets::Minimal)
    } else {
        Endpoint::builder(presets::N0)
    };
    builder = builder.secret_key(key);
    if let Some(address) = net.bind {
        builder = builder
            .clear_ip_transports()
            .bind_addr(address)
            .map_err(|error| refused(&error))?;
    }
    builder.bind().await.map_err(|error| refused(&error))
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
        };
        let dir = tempfile::tempdir().unwrap();
        let (folder, _) = DataFolder::init(dir.path().to_owned()).unwrap();
        let key = folder.author_key("me").unwrap();
        let offline = open_offline(&folder).unwrap();
        let private = offline.create_space(&key).await.unwrap().id();
        offline.shutdown().await;
        drop(offline);

        let endpoint = bind(SecretKey::from_bytes(&[3; 32]), net).await.unwrap();
        let far = Headwater::builder().spawn(endpoint.clone());
        let router = Router::builder(endpoint.clone())
            .accept(ALPN, far.clone())
            .spawn();
        let shared = far.create_space(&key).await.unwrap();
        let wait = Duration::from_secs(10);
        let dialer = Dialer::start(&folder, net, wait, shared.id())
            .await
            .unwrap();
        let mut live = dialer
            .node
            .space(shared.id())
            .sync_with_options(endpoint.addr(), SyncOptions::live());
        live.history().await.unwrap();

        // The other way on the same connection.
        let back = EndpointAddr::new(dialer.endpoint.id());
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
        let found: Vec<_> = loopback_addrs(&sockets).collect();
        let expected =
            ["127.0.0.1:5", "[::1]:7"].map(|text| TransportAddr::Ip(text.parse().unwrap()));
        assert_eq!(found, expected);
    }
}
