//! From the call of `append` on one of ten live nodes to the event on subscribers of the nine
//! others, beside as many bytes broadcast by the same gossip instances on a topic of their own.
//!
//! Each event is followed by one bare broadcast as large as the message that carried it, so
//! that noise meets both. Events are as far apart as announcements are: what comes sooner is
//! coalesced, and would be measured as waiting. Every repetition gathers anew, since each topic
//! grows a tree of its own, by chance.
//!
//! CPU time is that of the whole process from the call until the next one, of the nodes at both
//! ends and of those that relay, accounts that are done later included.

use std::time::{Duration, Instant};

use headwater::{
    ALPN, Event, EventDraft, Headwater, Open, Space, SpaceId, SubscribeFrom, SubscriptionItem,
};
use headwater_gossip::{AnnouncerConfig, GossipBridge, LiveSpace, TopicSecret};
use iroh::{
    Endpoint, EndpointId, address_lookup::MemoryLookup, endpoint::presets, protocol::Router,
};
use iroh_gossip::{ALPN as GOSSIP_ALPN, TopicId, api, api::GossipSender, net::Gossip};
use n0_future::{StreamExt as _, join_all, task::AbortOnDropHandle, time};
use tokio::sync::mpsc;

use crate::{
    Error, corpus,
    row::Row,
    sample::{Meter, Percentiles, millis},
};

/// The name of the family.
pub const FAMILY: &str = "gossip delivery";

const NODES: usize = 10;
const PAYLOAD: usize = 200;
const BARE_TOPIC: TopicId = TopicId::from_bytes([0xba; 32]);
/// How long anything may take.
const LIMIT: Duration = Duration::from_secs(30);

/// All nodes keep their events in memory.
///
/// # Errors
///
/// If nodes do not find each other, or an event does not come.
pub async fn measure(events: usize, reps: usize) -> Result<Vec<Row>, Error> {
    let (mut live, mut bare) = (Subject::default(), Subject::default());
    let (mut bytes, mut pulls) = (Vec::new(), Vec::new());
    for _ in 0..reps {
        let mut network = Network::gather().await?;
        // Trees settle with the first messages.
        network.round(events / 4 + 5).await?;
        let pulls_before = network.pulls();
        let (delivered, broadcast) = network.round(events).await?;
        live.take(delivered);
        bare.take(broadcast);
        bytes.push(network.message_bytes as f64);
        pulls.push((network.pulls() - pulls_before) as f64);
        network.stop().await;
    }
    let work = format!("{events} events of {PAYLOAD} B to all of {NODES} nodes, one by one");
    let row = |subject: &str, of: &Subject| {
        Row::new(FAMILY, work.clone(), subject, reps)
            .figure("p50 ms", 3, of.last.p50.iter().copied())
            .figure("p99 ms", 3, of.last.p99.iter().copied())
            .figure("p50 of each ms", 3, of.each.p50.iter().copied())
            .figure("CPU µs/delivery", 0, of.cpu.iter().copied())
            .figure("bytes", 0, bytes.iter().copied())
    };
    let ratio = |of: &[f64], to: &[f64]| -> Vec<f64> {
        of.iter().zip(to).map(|(of, to)| of / to).collect()
    };
    Ok(vec![
        row("bare iroh-gossip", &bare),
        row("Headwater, live", &live)
            .figure("p50 ÷ bare", 2, ratio(&live.last.p50, &bare.last.p50))
            .figure("p99 ÷ bare", 2, ratio(&live.last.p99, &bare.last.p99))
            .figure("pulls", 0, pulls),
    ])
}

/// What was measured of one subject: a value for each repetition.
#[derive(Default)]
struct Subject {
    /// To the last of the listeners.
    last: Percentiles,
    /// To each of them.
    each: Percentiles,
    /// Microseconds of CPU time for one listener.
    cpu: Vec<f64>,
}

/// What was measured of one subject in one round, in milliseconds.
#[derive(Default)]
struct Round {
    last: Vec<f64>,
    each: Vec<f64>,
    cpu: Duration,
}

impl Subject {
    fn take(&mut self, mut round: Round) {
        let deliveries = round.each.len().max(1) as f64;
        self.last.take(&mut round.last);
        self.each.take(&mut round.each);
        self.cpu.push(round.cpu.as_secs_f64() * 1e6 / deliveries);
    }
}

impl Round {
    /// Waits until all listeners had it, and for what follows.
    async fn take(
        &mut self,
        start: Instant,
        cpu: &Meter,
        had: &mut mpsc::UnboundedReceiver<Instant>,
        rest: Duration,
    ) -> Result<(), Error> {
        let mut last = start;
        for _ in 1..NODES {
            let at = time::timeout(LIMIT, had.recv()).await?;
            let at = at.ok_or("nobody listens")?;
            self.each.push(millis(at - start));
            last = last.max(at);
        }
        self.last.push(millis(last - start));
        time::sleep(rest).await;
        self.cpu += cpu.stop().1;
        Ok(())
    }
}

/// One node on both topics.
struct Node {
    router: Router,
    bridge: GossipBridge,
    headwater: Headwater,
    gossip: Gossip,
}

/// Live nodes, and who listens on them.
struct Network {
    nodes: Vec<Node>,
    spaces: Vec<LiveSpace>,
    bare: Vec<GossipSender>,
    /// When each listener had an event, and when a bare message.
    events: mpsc::UnboundedReceiver<Instant>,
    messages: mpsc::UnboundedReceiver<Instant>,
    serial: u64,
    /// Of the last message that carried an event.
    message_bytes: usize,
    _listening: Vec<AbortOnDropHandle<()>>,
}

impl Node {
    async fn start(lookup: &MemoryLookup) -> Result<Self, Error> {
        let endpoint = Endpoint::builder(presets::Minimal)
            .address_lookup(lookup.clone())
            .clear_ip_transports()
            .bind_addr("127.0.0.1:0")?
            .bind()
            .await?;
        lookup.add_endpoint_info(endpoint.addr());
        let headwater = Headwater::builder().policy(Open).spawn(endpoint.clone());
        let gossip = Gossip::builder().spawn(endpoint.clone());
        let router = Router::builder(endpoint)
            .accept(ALPN, headwater.clone())
            .accept(GOSSIP_ALPN, gossip.clone())
            .spawn();
        let bridge = GossipBridge::builder(headwater.clone(), gossip.clone()).spawn();
        Ok(Self {
            router,
            bridge,
            headwater,
            gossip,
        })
    }

    fn id(&self) -> EndpointId {
        self.router.endpoint().id()
    }

    async fn stop(self) {
        self.bridge.shutdown().await;
        // Whatever is wrong with it, it is not used any more.
        self.router.shutdown().await.ok();
    }
}

impl Network {
    async fn gather() -> Result<Self, Error> {
        let lookup = MemoryLookup::new();
        let mut nodes = Vec::with_capacity(NODES);
        for _ in 0..NODES {
            nodes.push(Node::start(&lookup).await?);
        }
        let first = nodes[0].id();
        let space = nodes[0].headwater.create_space(&corpus::author(0)).await?;
        let (had_event, events) = mpsc::unbounded_channel();
        let (had_message, messages) = mpsc::unbounded_channel();
        let (mut spaces, mut bare, mut listening) = (Vec::new(), Vec::new(), Vec::new());
        for (at, node) in nodes.iter().enumerate() {
            let others = if at == 0 { vec![] } else { vec![first] };
            let live = join(&node.bridge, space.id(), others.clone()).await?;
            let topic = node.gossip.subscribe(BARE_TOPIC, others).await?;
            let (sender, mut receiver) = topic.split();
            bare.push(sender);
            if at > 0 {
                time::timeout(LIMIT, live.joined()).await?;
                time::timeout(LIMIT, receiver.joined()).await??;
                listening.push(listen(live.space(), had_event.clone()).await?);
                let had_message = had_message.clone();
                listening.push(AbortOnDropHandle::new(tokio::spawn(async move {
                    while let Some(Ok(event)) = receiver.next().await {
                        if matches!(event, api::Event::Received(_)) {
                            had_message.send(Instant::now()).ok();
                        }
                    }
                })));
            } else {
                listening.push(AbortOnDropHandle::new(tokio::spawn(async move {
                    while receiver.next().await.is_some() {}
                })));
            }
            spaces.push(live);
        }
        Ok(Self {
            nodes,
            spaces,
            bare,
            events,
            messages,
            serial: 0,
            message_bytes: PAYLOAD,
            _listening: listening,
        })
    }

    /// What was measured of a number of events, and of the bare message after each.
    async fn round(&mut self, events: usize) -> Result<(Round, Round), Error> {
        let rest = AnnouncerConfig::default().announce_interval / 2;
        let author = corpus::author(1);
        let (mut delivered, mut broadcast) = (Round::default(), Round::default());
        for _ in 0..events {
            self.serial += 1;
            let draft: EventDraft = corpus::draft(self.serial, PAYLOAD);
            let before = self.sent();
            let cpu = Meter::start();
            let start = Instant::now();
            self.spaces[0].space().append(&author, draft).await?;
            delivered.take(start, &cpu, &mut self.events, rest).await?;

            let after = self.sent();
            if after.0 == before.0 + 1 {
                self.message_bytes = usize::try_from(after.1 - before.1)?;
            }

            let mut message = self.serial.to_be_bytes().to_vec();
            message.resize(self.message_bytes, 0xba);
            let cpu = Meter::start();
            let start = Instant::now();
            self.bare[0].broadcast(message.into()).await?;
            broadcast
                .take(start, &cpu, &mut self.messages, rest)
                .await?;
        }
        Ok((delivered, broadcast))
    }

    /// The runs that the first node sent to all: in how many messages, and in how many bytes.
    fn sent(&self) -> (u64, u64) {
        let metrics = self.nodes[0].bridge.metrics();
        (
            metrics.run_messages_sent.get(),
            metrics.run_bytes_sent.get(),
        )
    }

    fn pulls(&self) -> u64 {
        let pulls = |node: &Node| node.bridge.metrics().events_pulled.get();
        self.nodes.iter().map(pulls).sum()
    }

    async fn stop(self) {
        drop(self._listening);
        join_all(self.nodes.into_iter().map(Node::stop)).await;
    }
}

async fn join(
    bridge: &GossipBridge,
    space: SpaceId,
    others: Vec<EndpointId>,
) -> Result<LiveSpace, Error> {
    let secret = TopicSecret::from_bytes([7; 32]);
    Ok(bridge.join(space, secret, others).await?)
}

/// Tells when an application event is there, as soon as the space is.
async fn listen(
    space: &Space,
    had_event: mpsc::UnboundedSender<Instant>,
) -> Result<AbortOnDropHandle<()>, Error> {
    let mut growth = space.growth();
    while space.summary().await?.is_none() {
        time::timeout(LIMIT, growth.next()).await?;
    }
    let mut subscription = space.subscribe(SubscribeFrom::Now);
    Ok(AbortOnDropHandle::new(tokio::spawn(async move {
        while let Some(Ok(item)) = subscription.next().await {
            if matches!(item, SubscriptionItem::Event(Event { .. })) {
                had_event.send(Instant::now()).ok();
            }
        }
    })))
}
