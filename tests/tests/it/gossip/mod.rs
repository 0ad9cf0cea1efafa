//! Whole nodes that are live over real iroh-gossip on loopback.

mod converging;
mod forks;
mod history;
mod hostile;
mod lines;
mod losses;
pub(crate) mod members;
mod neighbors;
mod old_peers;
mod pulls;
mod quiet;
mod secret;
mod sizes;
mod standing;
