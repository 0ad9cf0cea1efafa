//! Whole nodes that are live over real iroh-gossip on loopback.

mod converging;
mod history;
mod hostile;
mod members;
mod old_peers;
mod quiet;
