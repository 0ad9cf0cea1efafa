//! The Headwater sync session: one pull of one space, as two state machines. Two more put right
//! what a pull left out because an author forked: [`fork`]. A last one decides when to pull, and
//! from whom, by what is heard on a space's gossip topic: [`announcer`].
//!
//! ```text
//!              messages, store answers, now                 messages, store answers, now
//!                          │                                              │
//!                          ▼                                              ▼
//!   store ◀── outputs ── Requester ── SyncRequestV2, HeadsChunk … ──▶ Responder ── outputs ──▶ store
//!                                  ◀── SyncPlan, SyncBatchV2 … ─────
//! ```
//!
//! A [`Requester`] asks for what it lacks, a [`Responder`] serves it: the owner's log first, then
//! all others in segments of at most 1,024 authors, each a merge-join of two ascending streams of
//! heads. Both keep one page, one chunk and one batch, whatever the number of authors and events.
//! At the end both have computed the digest of what they hold together, and it must be the same.
//!
//! # Driving a session
//!
//! A driver owns the stream, the store and the clock. After **every** call it drains
//! `poll_output`, and does what it is asked, in order; each question about the store has one
//! `handle_*` that takes its answer. It reads a message only while `wants_message`, and calls
//! `handle_timeout` at `next_timeout`, also while it waits to send. `now` is the time since any
//! moment the driver chose, by a clock that never goes back. Once it has reported the end of the
//! peer's stream it reads no more. An `Err` from any call ends the session: tell the peer its
//! [`SessionError::close_code`]. A session ends in `Finished` or in an `Err`, never in silence.
//!
//! ```
//! use core::time::Duration;
//! use headwater_proto::{LocalClock, Requester, RequesterConfig, RequesterOutput, SessionLimits};
//! use headwater_wire::{Budget, Message, SpaceId};
//!
//! let config = RequesterConfig {
//!     request_id: 1,
//!     space: SpaceId::from_bytes([7; 32]),
//!     budget: Budget::default(),
//!     except: Vec::new(),
//!     live: false,
//!     limits: SessionLimits::default(),
//! };
//! let mut requester = Requester::new(config, LocalClock::Empty, Duration::ZERO);
//! // A side that holds nothing says so at once: its request and an empty clock.
//! let Some(RequesterOutput::Send(Message::SyncRequestV2(_))) = requester.poll_output() else {
//!     panic!("the request comes first");
//! };
//! let Some(RequesterOutput::Send(Message::HeadsChunk(chunk))) = requester.poll_output() else {
//!     panic!("the clock follows");
//! };
//! assert!(chunk.heads.is_empty() && chunk.last);
//! assert_eq!(requester.next_timeout(), Some(Duration::from_secs(10)));
//! ```
//!
//! # What it refuses to know
//!
//! I/O, clocks, randomness and async; how a store keeps logs, and who may read them. Signatures
//! are checked by the driver ([`headwater_wire::Run::verify`]) where it has threads to spare; the
//! session sees their result.

pub mod announcer;
mod deadline;
mod error;
pub mod fork;
pub mod history;
mod joined;
mod limits;
mod receipts;
mod requester;
mod responder;

pub use error::{SessionError, Wait};
pub use history::{
    Appended, AppliedRun, HeadRecord, HeadsPage, SpaceSummary, StoredRun, TailCheck, TailState,
    TailWant,
};
pub use limits::{HEADS_WINDOW_CHUNKS, MAX_BATCH_BYTES, MAX_LISTED_FORKS, SessionLimits};
pub use receipts::ReceiptBook;
pub use requester::{
    Fork, LiveEnd, LocalClock, Requester, RequesterConfig, RequesterOutput, SyncEnd, SyncProgress,
    Tally,
};
pub use responder::{Responder, ResponderOutput, ServeEnd};
