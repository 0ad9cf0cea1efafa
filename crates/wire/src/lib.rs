//! The Headwater formats: what a log is made of, and what two peers say about it.
//!
//! ```text
//! bytes ──▶ frame ──▶ message ─┬▶ clock: who holds what     (heads, clock, tree)
//!                              └▶ runs ──▶ verify ──▶ events (run, event)
//! ```
//!
//! One author's log is a chain of signed events; a [`Run`] of them is authenticated by one
//! signature. A clock ([`HeadsSummary`]) says how far each log is held, and its digest is the
//! root of the [`tree`]. The messages carry clocks one way and the missing runs the other.
//!
//! This crate refuses to know I/O, clocks, randomness and async: everything in it is a pure
//! function of its input. Whatever a peer or a disk may hand it, it answers with a value or an
//! error, never a panic, and allocates in proportion to the bytes it was given, never to what
//! they claim.

mod clock;
mod close;
mod codec;
mod event;
mod fork;
mod frame;
mod heads;
mod ids;
mod invite;
mod key;
pub mod legacy;
pub mod limits;
mod log;
mod message;
mod receipt;
mod roster;
mod run;
pub mod tree;

pub use clock::HeadsSummary;
pub use close::{Blame, CloseCode};
pub use codec::DecodeError;
pub use event::{
    ChannelId, ChannelIdError, Event, EventDraft, EventRef, Header, Kind, LogKey, kind,
};
pub use fork::{ForkProof, ForkProofError, VerifiedForkProof};
pub use frame::FrameDecoder;
pub use heads::{AuthorHead, ChainOrder, ClockEntry, SignedHead, compare_chains};
pub use ids::{
    AuthorId, EventId, HeadsDigest, MemberKey, ParseIdError, PayloadHash, RequestHash,
    RevokedDigest, Signature, SpaceId,
};
pub use invite::{AuthorProof, Invitation, Invite};
pub use key::{AuthorKeyError, AuthorSecret};
pub use log::{Admission, AppendError, OverQuota, admit};
pub use message::*;
pub use receipt::{Answered, Contradiction, Receipt, ReceiptFacts, Refutation};
pub use roster::{
    Acceptance, Grant, Member, ParseRolesError, Revocation, Revoked, Roles, RosterChange,
    RosterState, Subject,
};
pub use run::{DraftError, Run, RunError, VerifiedRun, merge_runs, sign_genesis, sign_runs};
