//! What the fuzz targets share: a small world of signed logs, and drivers that turn bytes into what
//! a peer says, when it says it, and how fast the store answers.
//!
//! A target panics on what must never happen: a panic of the code under test, a second encoding of
//! one value, an output after the end, or something stored that does not verify.

pub mod decoders;
pub mod requester;
pub mod responder;
pub mod store;
/// The command's own: it is no library.
#[cfg(feature = "gossip")]
#[path = "../../crates/cli/src/ticket.rs"]
mod ticket;
mod world;

pub use world::{Script, World, lot, world};
