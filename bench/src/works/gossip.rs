//! From the call of `append` on one of ten live nodes to the event on subscribers of the nine
//! others, beside as many bytes broadcast by the same gossip instances on a topic of their own.
//!
//! Two bare broadcasts follow each event, as large as the message that carried it, so that noise
//! meets all three. The second is *signed and checked*: a run that its author signs when the clock
//! runs, and each receiver verifies before it counts as delivered. That is the least that any
//! protocol does which delivers nothing unproven, and so the floor on the machine at hand.
//! Events are as far apart as announcements are: what comes sooner is
//! coalesced, and would be measured as waiting. Every repetition gathers anew, since each topic
//! grows a tree of its own, by chance.
//!
//! CPU time is that of the whole process from the call until the next one, of the nodes at both
//! ends and of those that relay, accounts that are done later included.

use std::time::{Duration, Instant};

use bytes::Bytes;
use headwater::{
    ALPN, Event, EventDraft, Headwater, Open, Space, SpaceId, SubscribeFrom, SubscriptionItem,
    wire::{Run, sign_runs},
};
use headwater_gossip::{AnnouncerConfig, GossipBridge, LiveSpace, TopicSecret};
use iroh::{
    Endpoint, EndpointAddr, EndpointId, address_lookup::MemoryLookup, endpoint::presets,
    protocol::Router,
};
use iroh_gossip::{ALPN as GOSSIP_ALPN, TopicId, api, api::GossipSender, net::Gossip};
use n0_future::{StreamExt as _, join_all, task::AbortOnDropHandle, time};
use tokio::sync::mpsc;

use crate::{
    Error, corpus,
    link::SlowNetwork,
    row::Row,
    sample::{Meter, Percentiles, millis},
};

/// The name of the family.
pub const FAMILY: &str = "gossip delivery";

const NODES: usize = 10;
const PAYLOAD: usize = 200;
/// What signed messages are signed for.
const SIGNED_SPACE: SpaceId = SpaceId::from_bytes([0x5e; 32]);
const BARE_TOPIC: TopicId = TopicId::from_bytes([0xba; 32]);
/// The first byte of a bare message that is a run, and of one that is not.
const SIGNED: u8 = 0xf1;
const PLAIN: u8 = 0xba;
/// One way between two nodes; `None` is UDP over loopback.
pub const DELAYS: [Option<Duration>; 3] = [
    None,
    Some(Duration::from_millis(1)),
    Some(Duration::from_millis(5)),
];
/// How long anything may take.
const LIMIT: Duration = Duration::from_secs(30);

/// All nodes keep their events in memory.
///
/// # Errors
///
/// If nodes do not find each other, or an event does not come.
pub async fn measure(
    events: usize,
    reps: usize,
    delay: Option<Duration>,
) -> Result<Vec<Row>, Error> {
    let [mut live, mut bare, mut checked] = [(); 3].map(|()| Subject::default());
    let (mut bytes, mut pulls) = (Vec::new(), Vec::new());
    for _ in 0..reps {
        let mut network = Network::gather(delay).await?;
        // Trees settle with the first messages.
        network.round(events / 4 + 5).await?;
        let pulls_before = network.pulls();
        let [delivered, broadcast, proven] = network.round(events).await?;
        live.take(delivered);
        bare.take(broadcast);
        checked.take(proven);
        bytes.push(network.message_bytes as f64);
        pulls.push((network.pulls() - pulls_before) as f64);
        network.stop().await;
    }
    let apart = delay.map_or(String::new(), |delay| {
        format!(", {} ms apart", delay.as_millis())
    });
    let work = format!("{events} events of {PAYLOAD} B to all of {NODES} nodes{apart}");
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
        row("bare, signed and checked", &checked)
            .figure("p50 ÷ bare", 2, ratio(&checked.last.p50, &bare.last.p50))
            .figure("p99 ÷ bare", 2, ratio(&checked.last.p99, &bare.last.p99)),
        row("Headwater, live", &live)
            .figure("p50 ÷ bare", 2, ratio(&live.last.p50, &bare.last.p50))
            .figure("p99 ÷ bare", 2, ratio(&live.last.p99, &bare.last.p99))
            .figure("p50 ÷ checked", 2, ratio(&live.last.p50, &checked.last.p50))
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
    slow: Option<SlowNetwork>,
    _listening: Vec<AbortOnDropHandle<()>>,
}

impl Node {
    async fn start(lookup: &MemoryLookup, slow: Option<&SlowNetwork>) -> Result<Self, Error> {
        let builder = Endpoint::builder(presets::Minimal)
            .address_lookup(lookup.clone())
            .clear_ip_transports();
        let endpoint = if let Some(slow) = slow {
            let (transport, found_at) = slow.place();
            let endpoint = builder.add_custom_transport(transport).bind().await?;
            lookup.add_endpoint_info(EndpointAddr::from_parts(endpoint.id(), [found_at]));
            endpoint
        } else {
            let endpoint = builder.bind_addr("127.0.0.1:0")?.bind().await?;
            lookup.add_endpoint_info(endpoint.addr());
            endpoint
        };
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
    async fn gather(delay: Option<Duration>) -> Result<Self, Error> {
        let slow = delay.map(SlowNetwork::new).transpose()?;
        let lookup = MemoryLookup::new();
        let mut nodes = Vec::with_capacity(NODES);
        for _ in 0..NODES {
            nodes.push(Node::start(&lookup, slow.as_ref()).await?);
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
                        if let api::Event::Received(message) = event
                            && is_proven(message.content)
                        {
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
            slow,
            _listening: listening,
        })
    }

    /// What was measured of a number of events, and of the bare and the signed message after each.
    async fn round(&mut self, events: usize) -> Result<[Round; 3], Error> {
        let rest = AnnouncerConfig::default().announce_interval / 2;
        let author = corpus::author(1);
        let [mut delivered, mut broadcast, mut proven] = [(); 3].map(|()| Round::default());
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

            let cpu = Meter::start();
            let start = Instant::now();
            let message = self.bare_message(PLAIN, &[]);
            self.bare[0].broadcast(message).await?;
            broadcast
                .take(start, &cpu, &mut self.messages, rest)
                .await?;

            let draft: EventDraft = corpus::draft(self.serial, PAYLOAD);
            let cpu = Meter::start();
            let start = Instant::now();
            let run = sign_runs(&SIGNED_SPACE, &author, None, [draft])?.remove(0);
            let message = self.bare_message(SIGNED, run.run().as_bytes());
            self.bare[0].broadcast(message).await?;
            proven.take(start, &cpu, &mut self.messages, rest).await?;
        }
        Ok([delivered, broadcast, proven])
    }

    /// As long as the message that carried the event, whatever it holds.
    fn bare_message(&self, first: u8, contents: &[u8]) -> Bytes {
        let mut message = vec![first];
        message.extend((contents.len() as u64).to_be_bytes());
        message.extend_from_slice(contents);
        message.extend(self.serial.to_be_bytes());
        let len = self.message_bytes.max(message.len());
        message.resize(len, first);
        message.into()
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
        self.slow.inspect(SlowNetwork::close);
    }
}

/// Whether a bare message counts as delivered: one that is signed only if it proves itself.
fn is_proven(message: Bytes) -> bool {
    if message.first() != Some(&SIGNED) {
        return true;
    }
    let contents = message.get(1..9).and_then(|len| {
        let len = u64::from_be_bytes(len.try_into().ok()?);
        let end = usize::try_from(len).ok()?.checked_add(9)?;
        (end <= message.len()).then(|| message.slice(9..end))
    });
    let run = contents.and_then(|contents| Run::decode(contents).ok());
    run.is_some_and(|run| run.verify(&SIGNED_SPACE).is_ok())
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
