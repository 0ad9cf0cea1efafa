//! What the tests share: nodes with a bridge, peers without one, and waiting for what happens.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use headwater::{ALPN, AccessPolicy, Headwater, Space, SpaceId, proto::SpaceSummary};
use headwater_gossip::{
    AnnouncementCounter, AnnouncerConfig, BridgeEvent, BridgeMetrics, Builder,
    DEFAULT_TOPIC_MESSAGE_BYTES, GossipBridge, HeadAnnouncement, LiveEvents, LiveSpace,
    RunsMessage, Scope, TopicSecret, TrickleConfig, max_announcement_bytes, topic_id,
};
use headwater_wire::{HeadsDigest, Run};
use iroh::{
    Endpoint, EndpointId, SecretKey, address_lookup::MemoryLookup, endpoint::presets,
    protocol::Router,
};
use iroh_gossip::{
    ALPN as GOSSIP_ALPN,
    api::{GossipReceiver, GossipSender},
    net::Gossip,
};
use n0_future::{StreamExt, boxed::BoxFuture, join_all, time::timeout};

/// How long anything may take before a test gives up on it.
pub(crate) const LIMIT: Duration = Duration::from_mins(1);

/// Largest announcement on the topics here.
pub(crate) const MAX_BYTES: usize = max_announcement_bytes(DEFAULT_TOPIC_MESSAGE_BYTES);

/// A node with a bridge.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) headwater: Headwater,
    pub(crate) bridge: GossipBridge,
    pub(crate) gossip: Gossip,
    router: Router,
}

/// A node that is on a topic without a bridge, and says there what a test wants.
#[derive(Debug)]
pub(crate) struct Outsider {
    pub(crate) headwater: Headwater,
    gossip: Gossip,
    router: Router,
}

/// An outsider's place on a topic.
#[derive(Debug)]
pub(crate) struct Voice {
    pub(crate) sender: GossipSender,
    /// Until a test reads it.
    pub(crate) receiver: Option<GossipReceiver>,
}

pub(crate) fn secret() -> TopicSecret {
    TopicSecret::from_bytes([7; 32])
}

/// Waits so short that a test need not wait for them.
pub(crate) fn hasty() -> AnnouncerConfig {
    AnnouncerConfig {
        trickle: TrickleConfig {
            i_min: Duration::from_millis(200),
            ..TrickleConfig::default()
        },
        pull_jitter: Duration::from_millis(20),
        settle: Duration::from_millis(200),
        check_within: Duration::from_millis(400),
        backoff_first: Duration::from_millis(100),
        ..AnnouncerConfig::default()
    }
}

async fn mounted(
    lookup: &MemoryLookup,
    key: SecretKey,
    node: headwater::Builder,
) -> (Headwater, Gossip, Router) {
    let endpoint = bound(lookup, key).await;
    let headwater = node.spawn(endpoint.clone());
    let gossip = Gossip::builder().spawn(endpoint.clone());
    let router = Router::builder(endpoint)
        .accept(ALPN, headwater.clone())
        .accept(GOSSIP_ALPN, gossip.clone())
        .spawn();
    (headwater, gossip, router)
}

/// An endpoint on loopback that the others find.
pub(crate) async fn bound(lookup: &MemoryLookup, key: SecretKey) -> Endpoint {
    let endpoint = Endpoint::builder(presets::Minimal)
        .secret_key(key)
        .address_lookup(lookup.clone())
        .clear_ip_transports()
        .bind_addr("127.0.0.1:0")
        .expect("loopback address")
        .bind()
        .await
        .expect("endpoint");
    lookup.add_endpoint_info(endpoint.addr());
    endpoint
}

/// Lets those read who were let in, says no to everybody else, and nothing about some.
#[derive(Debug, Clone, Default)]
pub(crate) struct Guests {
    admitted: Arc<Mutex<BTreeSet<EndpointId>>>,
    unanswered: Arc<Mutex<BTreeSet<EndpointId>>>,
}

impl Guests {
    pub(crate) fn admit(&self, peer: EndpointId) {
        self.admitted.lock().expect("sound").insert(peer);
    }

    pub(crate) fn refuse(&self, peer: EndpointId) {
        self.admitted.lock().expect("sound").remove(&peer);
    }

    pub(crate) fn never_answer_for(&self, peer: EndpointId) {
        self.unanswered.lock().expect("sound").insert(peer);
    }
}

impl AccessPolicy for Guests {
    fn may_read(&self, remote: EndpointId, _space: SpaceId) -> BoxFuture<bool> {
        if self.unanswered.lock().expect("sound").contains(&remote) {
            return Box::pin(std::future::pending());
        }
        let admitted = self.admitted.lock().expect("sound").contains(&remote);
        Box::pin(std::future::ready(admitted))
    }

    fn trusts(&self, remote: EndpointId, _space: SpaceId) -> bool {
        self.admitted.lock().expect("sound").contains(&remote)
    }
}

impl Member {
    /// With a policy that lets it in too.
    pub(crate) async fn guarded(
        lookup: &MemoryLookup,
        guests: &Guests,
        configure: impl FnOnce(Builder) -> Builder,
    ) -> Self {
        let node = Headwater::builder().policy(guests.clone());
        let member = Self::build_on(lookup, node, configure).await;
        guests.admit(member.id());
        member
    }

    pub(crate) async fn spawn(lookup: &MemoryLookup) -> Self {
        Self::build(lookup, |builder| builder).await
    }

    pub(crate) async fn build(
        lookup: &MemoryLookup,
        configure: impl FnOnce(Builder) -> Builder,
    ) -> Self {
        Self::build_on(lookup, crate::nodes::open(), configure).await
    }

    /// With a node of one's own making.
    pub(crate) async fn build_on(
        lookup: &MemoryLookup,
        node: headwater::Builder,
        configure: impl FnOnce(Builder) -> Builder,
    ) -> Self {
        let (headwater, gossip, router) = mounted(lookup, SecretKey::generate(), node).await;
        let builder = GossipBridge::builder(headwater.clone(), gossip.clone()).announcer(hasty());
        let bridge = configure(builder.boot(1)).spawn();
        Self {
            headwater,
            bridge,
            gossip,
            router,
        }
    }

    pub(crate) fn id(&self) -> EndpointId {
        self.router.endpoint().id()
    }

    pub(crate) fn metrics(&self) -> &BridgeMetrics {
        self.bridge.metrics()
    }

    pub(crate) async fn join(&self, space: SpaceId, peers: Vec<EndpointId>) -> LiveSpace {
        let joining = self.bridge.join(space, secret(), peers);
        joining.await.expect("joined")
    }

    async fn shutdown(self) {
        self.bridge.shutdown().await;
        self.router.shutdown().await.expect("router task");
    }
}

/// All at once: an endpoint whose peers are gone waits for seconds until it gives up on them.
pub(crate) async fn shut_down(members: impl IntoIterator<Item = Member>) {
    join_all(members.into_iter().map(Member::shutdown)).await;
}

impl Outsider {
    pub(crate) async fn spawn(lookup: &MemoryLookup) -> Self {
        Self::with_key(lookup, SecretKey::generate()).await
    }

    pub(crate) async fn with_key(lookup: &MemoryLookup, key: SecretKey) -> Self {
        let (headwater, gossip, router) = mounted(lookup, key, crate::nodes::open()).await;
        Self {
            headwater,
            gossip,
            router,
        }
    }

    pub(crate) fn id(&self) -> EndpointId {
        self.key().public()
    }

    pub(crate) fn key(&self) -> SecretKey {
        self.router.endpoint().secret_key().clone()
    }

    /// Comes onto the topic of a space, next to these peers.
    pub(crate) async fn join(&self, space: SpaceId, peers: Vec<EndpointId>) -> Voice {
        let topic = topic_id(&space, &secret());
        let joining = self.gossip.subscribe_and_join(topic, peers);
        let joined = timeout(LIMIT, joining).await.expect("in time");
        let (sender, receiver) = joined.expect("joined").split();
        Voice {
            sender,
            receiver: Some(receiver),
        }
    }

    /// An announcement with nothing to say, for a test to fill.
    pub(crate) fn announcement(&self, space: SpaceId, n: u64) -> HeadAnnouncement {
        HeadAnnouncement {
            space,
            sender: self.id(),
            counter: AnnouncementCounter { boot: 1, n },
            scope: Scope::Everything,
            digest: HeadsDigest::from_bytes([0xd1; 32]),
            changed: vec![],
            forked: vec![],
        }
    }

    pub(crate) fn sign(&self, announcement: &HeadAnnouncement) -> Bytes {
        announcement.sign(&self.key(), MAX_BYTES).expect("fits")
    }

    pub(crate) async fn shutdown(self) {
        self.router.shutdown().await.expect("router task");
    }
}

impl Voice {
    pub(crate) async fn say(&self, message: impl Into<Bytes>) {
        self.sender.broadcast(message.into()).await.expect("said");
    }
}

/// Runs as they are sent to everybody.
pub(crate) fn run_message(space: SpaceId, runs: Vec<Run>) -> Bytes {
    salted(space, runs, 0)
}

/// The same runs again, in other bytes for each salt.
pub(crate) fn salted(space: SpaceId, mut runs: Vec<Run>, salt: u64) -> Bytes {
    runs.sort_by_key(Run::author);
    let salt = salt.to_be_bytes();
    RunsMessage { space, salt, runs }.encode()
}

/// The same with a bit of its signature changed.
pub(crate) fn tampered(message: &Bytes) -> Bytes {
    let mut bytes = message.to_vec();
    let at = bytes.len() - 1;
    bytes[at] ^= 1;
    bytes.into()
}

pub(crate) async fn summary(space: &Space) -> Option<SpaceSummary> {
    space.summary().await.expect("readable")
}

/// Waits until so many events of a space are held.
pub(crate) async fn until_held(space: &Space, events: u64) {
    let mut growth = space.growth();
    loop {
        let held = summary(space).await.map_or(0, |held| held.events);
        assert!(held <= events, "{held} held, {events} expected");
        if held == events {
            return;
        }
        let grown = timeout(LIMIT, growth.next()).await;
        assert!(grown.is_ok(), "{held} of {events} events came");
    }
}

/// Waits until something that nobody tells of has happened.
pub(crate) async fn until(what: &str, mut happened: impl FnMut() -> bool) {
    let waiting = async {
        while !happened() {
            n0_future::time::sleep(Duration::from_millis(2)).await;
        }
    };
    assert!(timeout(LIMIT, waiting).await.is_ok(), "{what}");
}

/// Waits for an event, and returns those before it.
pub(crate) async fn until_told(events: &mut LiveEvents, wanted: &BridgeEvent) -> Vec<BridgeEvent> {
    let mut before = Vec::new();
    loop {
        let event = timeout(LIMIT, events.next()).await.expect("told in time");
        let event = event.expect("the space is live");
        if event == *wanted {
            return before;
        }
        before.push(event);
    }
}

/// A number of nodes that are live on a space the first of them created, all with its genesis.
#[derive(Debug)]
pub(crate) struct Crowd {
    pub(crate) members: Vec<Member>,
    pub(crate) live: Vec<LiveSpace>,
    pub(crate) space: SpaceId,
}

impl Crowd {
    pub(crate) async fn gather(lookup: &MemoryLookup, size: usize) -> Self {
        Self::build(lookup, size, |_, builder| builder).await
    }

    pub(crate) async fn build(
        lookup: &MemoryLookup,
        size: usize,
        configure: impl Fn(usize, Builder) -> Builder,
    ) -> Self {
        let mut members = Vec::with_capacity(size);
        for number in 0..size {
            members.push(Member::build(lookup, |builder| configure(number, builder)).await);
        }
        let owner = crate::nodes::author(0);
        let created = members[0].headwater.create_space(&owner).await;
        let space = created.expect("created").id();
        let mut live = Vec::with_capacity(size);
        let first = members[0].id();
        for member in &members {
            live.push(member.join(space, vec![first]).await);
        }
        for live in &live {
            assert!(timeout(LIMIT, live.joined()).await.expect("in time"));
            until_held(live.space(), 1).await;
        }
        Self {
            members,
            live,
            space,
        }
    }

    pub(crate) fn ids(&self) -> Vec<EndpointId> {
        self.members.iter().map(Member::id).collect()
    }

    /// Waits until everybody holds so many events, and checks that they are the same.
    pub(crate) async fn until_equal(&self, events: u64) {
        for live in &self.live {
            until_held(live.space(), events).await;
        }
        let digests: Vec<_> = self.digests().await;
        assert!(digests.windows(2).all(|two| two[0] == two[1]));
    }

    async fn digests(&self) -> Vec<Option<HeadsDigest>> {
        let mut digests = Vec::new();
        for live in &self.live {
            digests.push(summary(live.space()).await.map(|held| held.digest));
        }
        digests
    }

    /// A counter of every bridge, added up.
    pub(crate) fn count(&self, counter: impl Fn(&BridgeMetrics) -> u64) -> u64 {
        let counted = self.members.iter().map(|member| counter(member.metrics()));
        counted.sum()
    }

    /// Waits until nobody pulls, and every neighbour is known to hold no more.
    pub(crate) async fn until_settled(&self) {
        until("everybody settles", || {
            self.live.iter().all(|live| {
                let status = live.status();
                status.pulling_from.is_empty()
                    && status.unsettled_neighbors == 0
                    && status.missing_heads == 0
                    && !status.neighbors.is_empty()
            })
        })
        .await;
    }

    pub(crate) async fn shutdown(self) {
        shut_down(self.members).await;
    }

    pub(crate) async fn shutdown_with(self, others: impl IntoIterator<Item = Member>) {
        shut_down(self.members.into_iter().chain(others)).await;
    }
}
