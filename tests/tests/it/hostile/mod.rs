//! Peers that break the rules, over real QUIC.
//!
//! ```text
//! catalogue ──▶ tests of a theme ──▶ stage: victim ◀── hostile peer (raw frames)
//!     │                                        ◀── honest peer, during and after
//!     └──▶ docs/hostile-peers.md
//! ```
//!
//! A test says what the hostile peer does, as a closure over its stream, and what both sides are
//! told. The [stage](stage) sees to the rest: what is stored is what was stored, and an honest peer
//! is served while the hostile one is at it, and after. Every test stands in the
//! [catalogue](catalogue) under the number of the rule it breaks; one that does not is dead code,
//! which the lints refuse.

mod answers;
mod catalogue;
mod clocks;
mod crowds;
mod documents;
mod frames;
mod pace;
mod raw;
mod requests;
mod runs;
mod stage;
mod strangers;
