//! Signed, append-only, per-author event logs that sync peer to peer over iroh.
//!
//! A **space** is a set of logs under one genesis event. Every author extends one log in it, and
//! signs what they append; peers that meet say how far they hold each log and send what the other
//! lacks, in one round trip.
//!
//! ```text
//!          your application
//!   append │     ▲ subscribe, events      sync_with(peer) ──▶ progress … report
//!          ▼     │                               │
//!   ┌─ Headwater ┴───────────────────────────────┴───────────────────┐
//!   │  writer ──▶ store ──▶ hub            pull ◀──▶ frames ◀──▶ QUIC │──▶ peer
//!   │  (one thread, group commits)         serve ◀──▶ frames ◀──▶    │◀── peer
//!   └─────────────────────────────────────────────────────────────────┘
//! ```
//!
//! # Two nodes
//!
//! ```
//! use headwater::{ALPN, EventDraft, Headwater, Roles, generate_author, node_key, now_ms};
//! use iroh::{Endpoint, endpoint::presets, protocol::Router};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! async fn on_loopback() -> Result<Endpoint, Box<dyn std::error::Error>> {
//!     let builder = Endpoint::builder(presets::Minimal).clear_ip_transports();
//!     Ok(builder.bind_addr("127.0.0.1:0")?.bind().await?)
//! }
//!
//! // One node serves: it is mounted on a router. `Endpoint::bind(presets::N0)` would reach the
//! // internet; here both ends are on this machine.
//! let endpoint = on_loopback().await?;
//! let server = Headwater::builder().spawn(endpoint.clone());
//! let router = Router::builder(endpoint).accept(ALPN, server.clone()).spawn();
//!
//! // It creates a space and appends to it.
//! let author = generate_author();
//! let space = server.create_space(&author).await?;
//! space.append(&author, EventDraft::new(16, now_ms(), "hello")).await?;
//!
//! // Another node only dials. Nobody reads a space but whom its owner lets.
//! let endpoint = on_loopback().await?;
//! space.grant(&author, node_key(endpoint.id()), Roles::READ).await?;
//! let reader = Headwater::builder().spawn(endpoint);
//! let copy = reader.space(space.id());
//! let report = copy.sync_with(router.endpoint().addr()).await?;
//! assert_eq!(report.events, 3); // the genesis event, ours, and the grant
//! let event = copy.event(author.id(), 2).await?.expect("synced");
//! assert_eq!(event.payload.as_deref(), Some(&b"hello"[..]));
//!
//! reader.shutdown().await;
//! router.shutdown().await?;
//! # Ok(())
//! # }
//! ```
//!
//! # What to know
//!
//! - An append or an applied batch that was reported is **durable**, as far as the store is:
//!   [`DiskStore`] survives a power cut, [`MemoryStore`] does not survive the process.
//! - Every sync ends in exactly one of *complete*, *truncated* with a reason, or *failed* with an
//!   error that says whose fault it was. A failed or dropped one goes on from what was stored.
//! - [`Subscription`]s and event streams read the store as fast as they are polled. Nothing is
//!   queued for a slow reader, and nothing is lost to one.
//! - Damage to one log never stops an append to another. It ends with
//!   [`StoreError::Damaged`], which names the log, what comes to the damaged place: reading it, a
//!   subscription to its space, and a pull that brings more of it. A peer that pulls the space
//!   from here gets what comes before that log and is then told [`CloseCode::Internal`], so that
//!   authors behind it do not reach that peer from this node. Damage to a space's own record
//!   stops that space and [`Headwater::spaces`]. [`Space::verify`] lists what is damaged.
//! - The [`AccessPolicy`] is asked for every request and every run. The default, a [`Roster`], goes
//!   by what the owner of each space grants and revokes in their log; [`Space::invite`] lets others
//!   come in by themselves. [`Open`] serves a space to whoever knows its id. What runs for a peer
//!   that loses access ends at once.
//! - A node asks back: if a peer that pulls from it turns out to hold more, it pulls in turn on
//!   the same connection. [`Builder::ask_back`] turns that off.
//! - An author who signs two events for one place has *forked* their log. Whichever node sees both
//!   keeps the proof, shows the log up to below the fork and nothing above, and tells so:
//!   [`SubscriptionItem::Forked`]. A sync that finds two nodes of different minds about an author
//!   puts that right on streams of its own, and all other authors go on.
//!   [`Space::forks`] lists the proofs; [`WriteError::Forked`] is what is left to the author here.
//! - [`Limits`] bound time, memory and company. The endpoint is yours, with its own limits. Where
//!   strangers reach it, give it [`transport_config`], without which a peer that acknowledges
//!   nothing keeps 10 MB a connection, and the router [`Headwater::incoming_filter`], without which
//!   strangers cost a handshake each however many they are. Leave all other QUIC windows alone.
//!
//! # What this crate refuses to know
//!
//! The rules of the protocol live in [`proto`], bytes in [`wire`], disks in [`store`]: here is
//! the loop between a stream, a session and a store, and nothing that decides what a message
//! means. It knows no gossip and no discovery: who to sync with, and when, is the caller's.

mod apply;
mod blocking;
mod bridge;
mod busy;
mod clocks;
mod commit;
mod conduct;
mod connections;
mod exchange;
mod fork;
mod frames;
mod gate;
mod handler;
mod hub;
mod keeper;
mod lag;
mod left_out;
mod limits;
mod members;
mod metrics;
mod node;
mod pace;
mod places;
mod policy;
mod pull;
mod reading;
mod receipts;
mod redeem;
mod room;
mod serve;
mod settle;
mod slots;
mod space;
mod standing;
mod sync;
mod transport;
mod writer;

/// The protocol's name on a connection: mount a [`Headwater`] on a router under it.
pub const ALPN: &[u8] = b"headwater/sync/2";

pub use headwater_proto as proto;
pub use headwater_store as store;
pub use headwater_wire as wire;

pub use headwater_proto::{
    Appended, HeadRecord, HeadsPage, SessionError, SessionLimits, SpaceSummary, SyncProgress, Tally,
};
pub use headwater_store::{
    Damage, DiskStore, ForkRecord, LogStore, MemoryStore, Quota, StoreError, Usage, VerifyProgress,
    VerifyReport,
};
pub use headwater_wire::{
    Acceptance, Answered, AppendError, AuthorHead, AuthorId, AuthorSecret, Blame, Budget,
    ChannelId, ClockEntry, CloseCode, Contradiction, DraftError, Event, EventDraft, EventId,
    EventRef, Header, HeadsDigest, Invitation, Invite, Kind, Member, MemberKey, OverQuota,
    PlanTotals, Receipt, ReceiptFacts, Refutation, Roles, RosterState, Run, RunError, SignedHead,
    SpaceId, Subject, SyncOutcome, Truncation, VerifiedRun, kind,
};

pub use crate::{
    bridge::{ApplyRunsError, Growth, LogGrowth},
    limits::Limits,
    metrics::Metrics,
    node::{Builder, Headwater, generate_author, now_ms},
    policy::{AccessPolicy, AllowList, ChangeSignal, Changes, Nobody, Open, Roster, node_key},
    reading::{EventStream, SubscribeFrom, Subscription, SubscriptionItem},
    redeem::RedeemError,
    space::{Space, WriteError},
    sync::{ForkedAuthor, LiveEnding, SyncError, SyncHandle, SyncOptions, SyncReport},
    transport::transport_config,
};

/// Compiles the example of the README.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
struct Readme;
