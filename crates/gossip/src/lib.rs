//! What Headwater says on an iroh-gossip topic: which topic, and which bytes.
//!
//! ```text
//!  space + topic secret ──▶ topic_id ──▶ TopicId
//!
//!  HeadAnnouncement ──▶ sign(key, limit) ──▶ bytes ─ ─ gossip ─ ─▶ decode ──▶ SignedAnnouncement
//!                                                                                  │ verify
//!                                                                                  ▼
//!                                                                          HeadAnnouncement
//! ```
//!
//! One topic per space. Who holds new events announces the heads, each with its author's
//! signature, and small runs travel inside the announcement; who is behind pulls over QUIC.
//!
//! # Not here yet
//!
//! This crate neither joins a topic nor sends or receives anything. The bridge that does (which
//! announcements to send and when, who is worth pulling from, replay and rate limits, topic
//! secrets in the owner's log, answers to the older exchange by state hash) does not exist. What
//! is here is complete: the derivation of the topic and the one message, with fixed vectors.
//!
//! # What it refuses to know
//!
//! Stores, and how a pull works.

mod announcement;
mod topic;

pub use announcement::{
    AnnouncementCounter, AnnouncementDecodeError, AnnouncementSignError, HeadAnnouncement, Scope,
    SignedAnnouncement, UnverifiedSender, tag,
};
pub use topic::{
    DEFAULT_TOPIC_MESSAGE_BYTES, ENVELOPE_BYTES, TopicSecret, max_announcement_bytes, topic_id,
};
