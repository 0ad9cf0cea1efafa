//! Live spaces: who writes is heard, and who is behind catches up, over iroh-gossip.
//!
//! ```text
//!  Headwater ◀──▶ GossipBridge ◀──▶ Gossip (iroh-gossip)
//!                      │ join(space, secret, bootstrap)
//!                      ▼
//!                  LiveSpace ── status(), events(), leave()
//!
//!  space + topic secret ──▶ topic_id ──▶ TopicId           one topic for each space
//!  grown, small ──▶ RunsMessage ──▶ topic ─ ─ ▶ gate ──▶ apply ──▶ stored, with no pull
//!  grown, large ──▶ HeadAnnouncement ──▶ topic ─ ─ ▶ gate ──▶ pull over QUIC from who announced it
//! ```
//!
//! New events are told of at once: small runs are sent to everybody as their author signed them, of what
//! is larger the head it ends in is announced. Whoever lacks more than that pulls. When all is
//! quiet a digest is announced now and then, and less often the longer it stays quiet. What to
//! announce and whom to pull from is decided by
//! [`Announcer`](headwater_proto::announcer::Announcer); here is the loop between it, the topic
//! and the space, and what a message has to pass before it is believed.
//!
//! # A live space
//!
//! ```
//! use headwater::{ALPN, EventDraft, Headwater, Open, generate_author, now_ms};
//! use headwater_gossip::{GossipBridge, TopicSecret};
//! use iroh::{Endpoint, address_lookup::MemoryLookup, endpoint::presets, protocol::Router};
//! use iroh_gossip::{ALPN as GOSSIP_ALPN, net::Gossip};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let lookup = MemoryLookup::new();
//! async fn node(
//!     lookup: &MemoryLookup,
//! ) -> Result<(Headwater, GossipBridge, Router), Box<dyn std::error::Error>> {
//!     // `Endpoint::bind(presets::N0)` would find peers anywhere; here all are on this machine.
//!     let builder = Endpoint::builder(presets::Minimal).address_lookup(lookup.clone());
//!     let builder = builder.clear_ip_transports().bind_addr("127.0.0.1:0")?;
//!     let endpoint = builder.bind().await?;
//!     lookup.add_endpoint_info(endpoint.addr());
//!     let node = Headwater::builder().policy(Open).spawn(endpoint.clone());
//!     let gossip = Gossip::builder().spawn(endpoint.clone());
//!     let router = Router::builder(endpoint)
//!         .accept(ALPN, node.clone())
//!         .accept(GOSSIP_ALPN, gossip.clone())
//!         .spawn();
//!     let bridge = GossipBridge::builder(node.clone(), gossip).spawn();
//!     Ok((node, bridge, router))
//! }
//!
//! let (writer, writers_bridge, writers_router) = node(&lookup).await?;
//! let (reader, readers_bridge, readers_router) = node(&lookup).await?;
//! let author = generate_author();
//! let space = writer.create_space(&author).await?;
//! let secret = TopicSecret::from_bytes([7; 32]); // from a good source of randomness
//!
//! let writing = writers_bridge.join(space.id(), secret.clone(), vec![]).await?;
//! let peers = vec![writers_router.endpoint().id()];
//! let reading = readers_bridge.join(space.id(), secret, peers).await?;
//! reading.joined().await;
//!
//! let mut grown = reader.space(space.id()).growth();
//! space.append(&author, EventDraft::new(16, now_ms(), "hello")).await?;
//! grown.next().await; // announced, checked and stored
//!
//! writing.leave().await;
//! reading.leave().await;
//! writers_bridge.shutdown().await;
//! readers_bridge.shutdown().await;
//! writers_router.shutdown().await?;
//! readers_router.shutdown().await?;
//! # Ok(())
//! # }
//! ```
//!
//! # What to know
//!
//! - Nothing is believed that is not signed: announcements by their sender, heads and runs by
//!   their author, whoever sends them. What is ignored is counted by reason in [`BridgeMetrics`].
//! - Gossip loses messages. What was lost is found again by digest, and pulled.
//! - A message is never larger than the topic carries: iroh-gossip would drop it in silence, and
//!   with it the link.
//! - Nodes of the older exchange are heard on the same topic; what they get is [`LegacyPolicy`].
//! - Whoever knows space and topic secret can listen. What is sent to everybody is not encrypted
//!   against other listeners: [`AccessPolicy`](headwater::AccessPolicy) decides who is *believed*,
//!   and who may pull, not who hears.
//!
//! # What it refuses to know
//!
//! How a store keeps events, how a pull works, and how peers' addresses are found.

mod announcement;
mod apply;
mod authors;
mod bridge;
mod bucket;
mod driver;
mod events;
mod fields;
mod fresh;
mod gate;
mod history;
mod legacy;
mod limits;
mod link;
mod live;
mod metrics;
mod runs;
mod senders;
mod topic;

pub use headwater_proto::announcer::{
    AnnouncerConfig, AnnouncerCounters, PeerCounters, TrickleConfig,
};

pub use announcement::{
    AnnouncementCounter, AnnouncementDecodeError, AnnouncementSignError, HeadAnnouncement, Scope,
    SignedAnnouncement, UnverifiedSender, tag,
};
pub use bridge::{Builder, GossipBridge, JoinError};
pub use events::{BridgeEvent, LiveEvents, LiveStatus, Standing};
pub use history::HistoryPolicy;
pub use legacy::LegacyPolicy;
pub use limits::{BridgeLimits, Rate};
pub use live::LiveSpace;
pub use metrics::BridgeMetrics;
pub use runs::{RunsDecodeError, RunsMessage};
pub use topic::{
    DEFAULT_TOPIC_MESSAGE_BYTES, ENVELOPE_BYTES, TopicSecret, max_announcement_bytes, topic_id,
};

/// Bytes from the system's randomness; zeros if it has none to give, which costs unpredictable
/// waits and nothing else.
fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).ok();
    bytes
}
