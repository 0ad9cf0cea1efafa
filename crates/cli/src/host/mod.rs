//! The process that has a data folder open: its store, and a network if it is to have one.

mod live;
mod role;
mod served;

use std::{collections::BTreeSet, net::SocketAddr, sync::Arc, time::Duration};

use headwater::{
    ALPN, Acceptance, AccessPolicy, AuthorId, Changes, Damage, Headwater, Limits, Roster, SpaceId,
    SpaceSummary, StoreError,
};
use headwater_gossip::{LiveSpace, TopicSecret};
use iroh::{
    Endpoint, EndpointAddr, EndpointId, SecretKey, TransportAddr, address_lookup::MemoryLookup,
    endpoint::presets, protocol::Router,
};
use iroh_gossip::ALPN as GOSSIP_ALPN;
use n0_future::{StreamExt, boxed::BoxFuture};
use tokio::runtime::Handle;

use self::live::Live;
pub(crate) use self::{
    live::alone,
    role::{NetOption, NetOptions, Role},
    served::Served,
};
use crate::{
    error::CliError,
    folder::{DataFolder, OwnerLog},
};

/// How long `serve` waits for a relay before it prints tickets without one.
const ONLINE_WAIT: Duration = Duration::from_secs(5);

/// How long a command that dials waits for its connections to close.
const CLOSE_WAIT: Duration = Duration::from_secs(1);

/// Peers may read what is served, as far as the space's owner lets them; who writes and who is
/// believed is for the owner to say.
#[derive(Debug)]
struct ServedToMembers {
    served: Served,
    roster: Roster,
}

impl AccessPolicy for ServedToMembers {
    fn may_read(&self, remote: EndpointId, space: SpaceId) -> BoxFuture<bool> {
        if self.served.contains(space) {
            self.roster.may_read(remote, space)
        } else {
            Box::pin(std::future::ready(false))
        }
    }

    fn may_announce(&self, remote: EndpointId, space: SpaceId) -> BoxFuture<bool> {
        if self.served.contains(space) {
            self.roster.may_announce(remote, space)
        } else {
            Box::pin(std::future::ready(false))
        }
    }

    fn accepts(&self, space: SpaceId, author: AuthorId) -> Acceptance {
        self.roster.accepts(space, author)
    }

    fn trusts(&self, remote: EndpointId, space: SpaceId) -> bool {
        self.roster.trusts(remote, space)
    }

    fn changes(&self) -> Changes {
        self.roster.changes()
    }

    fn roster(&self) -> Option<&Roster> {
        Some(&self.roster)
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
        let opening = folder.blocking(|folder| {
            let store = folder.store()?;
            // Whoever has the store is alone with what others left half made.
            folder.clear_leftovers()?;
            Ok((store, folder.node_key()?))
        });
        let (store, key) = opening.await?;
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
            .policy(ServedToMembers {
                served: served.clone(),
                roster: Roster::new(),
            })
            .spawn(endpoint.clone());
        if matches!(role, Role::Serve { .. }) {
            // So that it takes the invites of those whose keys lie here.
            for owner in folder.authors()?.secrets() {
                node.act_for(owner);
            }
        }
        let live = match role {
            Role::Serve { gossip: true, .. } => Some(Live::start(folder, &node, &endpoint).await?),
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
        let secret = self.find_topic_secret(space).await?;
        Ok(secret.map(|(secret, _by_owner)| secret))
    }

    /// The secret, and whether it is the owner's log that says so.
    async fn find_topic_secret(
        &self,
        space: SpaceId,
    ) -> Result<Option<(TopicSecret, bool)>, CliError> {
        let known = self.folder().blocking(DataFolder::spaces).await?;
        let known = known.get(space);
        let seen = known.map(|known| known.owner_log.clone());
        let seen = self.look_through_owner_log(space, seen.unwrap_or_default());
        let seen = seen.await?;
        if known.is_some_and(|known| known.owner_log != seen) {
            let seen = seen.clone();
            let remembering = self.folder().blocking(move |folder| {
                folder.change_spaces(|spaces| {
                    spaces.saw_owner_log(space, &seen);
                    Ok(())
                })
            });
            remembering.await?;
        }
        let told = known.and_then(|known| known.topic_secret.clone());
        let set = seen.topic_secret.map(|secret| (secret, true));
        Ok(set.or(told.map(|secret| (secret, false))))
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
        // Nobody takes the space away between this question and the join.
        let _changing = live.changing().await;
        if !self.served().contains(space) {
            return Ok(false);
        }
        let Some((secret, by_owner)) = self.find_topic_secret(space).await? else {
            return Ok(false);
        };
        let known = self.folder().blocking(DataFolder::spaces).await?;
        let mut peers = Vec::new();
        if let Some(known) = known.get(space) {
            peers.extend_from_slice(&known.peers);
            peers.extend_from_slice(&known.met);
        }
        live::introduce(&network.addresses, &peers);
        live.join(space, secret, by_owner, &peers).await?;
        Ok(true)
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
        use headwater::{CloseCode, Open, Roles, SessionError, Subject, SyncError, SyncOptions};

        let net = loopback();
        let dir = tempfile::tempdir().unwrap();
        let (folder, _) = DataFolder::init(dir.path().to_owned()).unwrap();
        let key = folder.author_key("me").unwrap();
        let offline = Host::open(&folder, &Role::Offline).await.unwrap();
        let private = offline.node().create_space(&key).await.unwrap().id();
        offline.stop().await;
        drop(offline);

        let key_of_far = SecretKey::from_bytes(&[3; 32]);
        let endpoint = bind(key_of_far, net, MemoryLookup::new()).await.unwrap();
        let far = Headwater::builder().policy(Open).spawn(endpoint.clone());
        let router = Router::builder(endpoint.clone())
            .accept(ALPN, far.clone())
            .spawn();
        let shared = far.create_space(&key).await.unwrap();
        let anyone = Subject::Anyone;
        shared.grant(&key, anyone, Roles::READ).await.unwrap();
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

    /// This machine alone.
    fn loopback() -> NetOptions {
        NetOptions {
            no_relay: true,
            bind: Some(([127, 0, 0, 1], 0).into()),
            dial_timeout: None,
        }
    }

    fn serving(gossip: bool) -> Role {
        Role::Serve {
            net: loopback(),
            served: Served::only(BTreeSet::new()),
            gossip,
        }
    }

    /// A folder, and a space in it whose topic has this secret.
    async fn folder_with_space(dir: &tempfile::TempDir, secret: [u8; 32]) -> (DataFolder, SpaceId) {
        let (folder, _) = DataFolder::init(dir.path().to_owned()).unwrap();
        let key = folder.author_key("me").unwrap();
        let host = Host::open(&folder, &Role::Offline).await.unwrap();
        let space = host.node().create_space(&key).await.unwrap();
        space.set_topic_secret(&key, secret).await.unwrap();
        let anyone = headwater::Subject::Anyone;
        let reading = space.grant(&key, anyone, headwater::Roles::READ);
        reading.await.unwrap();
        let id = space.id();
        let naming = folder.change_spaces(|spaces| spaces.add(id, "notes").map(|_| ()));
        naming.unwrap();
        host.stop().await;
        (folder, id)
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn the_topics_secret_is_the_latest_that_the_owner_set_whatever_was_remembered() {
        let dir = tempfile::tempdir().unwrap();
        let (folder, space) = folder_with_space(&dir, [1; 32]).await;
        let key = folder.author_key("me").unwrap();
        for next in 2..5 {
            let host = Host::open(&folder, &Role::Offline).await.unwrap();
            let secret = |byte| Some(TopicSecret::from_bytes([byte; 32]));
            assert_eq!(host.topic_secret(space).await.unwrap(), secret(next - 1));
            let setting = host.node().space(space);
            setting.set_topic_secret(&key, [next; 32]).await.unwrap();
            assert_eq!(host.topic_secret(space).await.unwrap(), secret(next));
            let known = folder.spaces().unwrap();
            assert_eq!(
                known.get(space).unwrap().owner_log.topic_secret,
                secret(next)
            );
            host.stop().await;
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_space_in_use_is_live_until_its_last_user_has_ended() {
        let dir = tempfile::tempdir().unwrap();
        let (folder, space) = folder_with_space(&dir, [1; 32]).await;
        let host = Host::open(&folder, &serving(true)).await.unwrap();
        assert!(!host.go_live(space).await.unwrap(), "nobody may read it");
        for _ in 0..3 {
            let (one, other) = (host.serve_meanwhile(space), host.serve_meanwhile(space));
            assert!(host.go_live(space).await.unwrap());
            let live = host.live(space).unwrap();
            drop(one);
            assert!(host.live(space).is_some() && host.served().contains(space));
            drop(other);
            assert!(!host.served().contains(space));
            // The events of a space end when it is left.
            let mut events = live.events();
            while events.next().await.is_some() {}
            assert!(host.live(space).is_none());
        }
        host.stop().await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_live_space_follows_a_new_secret_whether_the_log_or_a_ticket_tells_it() {
        let dir = tempfile::tempdir().unwrap();
        let (folder, space) = folder_with_space(&dir, [1; 32]).await;
        let key = folder.author_key("me").unwrap();
        let host = Host::open(&folder, &serving(true)).await.unwrap();
        let _served = host.serve_meanwhile(space);
        assert!(host.go_live(space).await.unwrap());
        let live = host.live(space).unwrap();

        let topic = |byte| headwater_gossip::topic_id(&space, &TopicSecret::from_bytes([byte; 32]));
        let setting = host.node().space(space);
        setting.set_topic_secret(&key, [2; 32]).await.unwrap();
        assert!(host.go_live(space).await.unwrap());
        assert_eq!(host.live(space).unwrap().topic(), topic(2));
        assert_eq!(live.topic(), topic(2), "it was not left");

        let network = host.0.network.as_ref().unwrap();
        let joining = network.live.as_ref().unwrap();
        let told = TopicSecret::from_bytes([3; 32]);
        joining.join(space, told, false, &[]).await.unwrap();
        assert_eq!(host.live(space).unwrap().topic(), topic(3));
        host.stop().await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_sync_that_is_done_is_reported_though_the_gossip_failed_afterwards() {
        use crate::control::{self, Call, Request, Said};

        let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let (far_folder, space) = folder_with_space(&dirs[0], [1; 32]).await;
        let far = Host::open(&far_folder, &serving(false)).await.unwrap();
        let _served = far.serve_meanwhile(space);

        let (folder, _) = DataFolder::init(dirs[1].path().to_owned()).unwrap();
        let role = Role::Serve {
            net: loopback(),
            served: Served::all(),
            gossip: true,
        };
        let host = Host::open(&folder, &role).await.unwrap();
        let network = host.0.network.as_ref().unwrap();
        network.live.as_ref().unwrap().stop().await;
        let (said, mut replies) = remoc::rch::mpsc::channel();
        let peers = vec![far.addr().await.unwrap()];
        let request = Request::Sync { space, peers };
        let options = Vec::new();
        let call = Call {
            request,
            options,
            said,
        };
        let hearing = async {
            let mut heard = String::new();
            while let Ok(Some(said)) = replies.recv().await {
                match said {
                    Said::Answer { json, .. } => {
                        heard += if json.contains("complete") { "A" } else { "?" }
                    }
                    Said::Warning(text) => heard += if text.contains("gossip") { "W" } else { "?" },
                    Said::End(Ok(())) => heard += "E",
                    Said::End(Err(failure)) => heard += &failure.text,
                    _ => {}
                }
            }
            heard
        };
        let (heard, ()) = tokio::join!(hearing, control::carry_out(&host, call));
        assert_eq!(heard, "AWE");
        host.stop().await;
        far.stop().await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_node_tells_the_options_apart_that_it_follows_anyway() {
        let all = [
            NetOption::NoRelay,
            NetOption::NoGossip,
            NetOption::Bind,
            NetOption::DialTimeout,
        ];
        for gossip in [true, false] {
            let dir = tempfile::tempdir().unwrap();
            let (folder, _) = DataFolder::init(dir.path().to_owned()).unwrap();
            let host = Host::open(&folder, &serving(gossip)).await.unwrap();
            let text = host.without_effect(&all).unwrap();
            assert!(!text.contains("--no-relay"), "{text}");
            assert_eq!(text.contains("--no-gossip"), gossip, "{text}");
            assert!(text.ends_with("--bind, --dial-timeout"), "{text}");
            assert_eq!(host.without_effect(&[NetOption::NoRelay]), None);
            assert_eq!(host.without_effect(&[]), None);
            host.stop().await;
        }
    }

    #[test]
    fn a_socket_on_every_address_is_reached_on_loopback_too() {
        let sockets = ["0.0.0.0:5", "192.0.2.1:6", "[::]:7"].map(|text| text.parse().unwrap());
        let found: Vec<_> = loopback_sockets(&sockets).collect();
        let expected = ["127.0.0.1:5", "[::1]:7"].map(|text| text.parse::<SocketAddr>().unwrap());
        assert_eq!(found, expected);
    }
}
