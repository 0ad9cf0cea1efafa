//! Whole nodes over real QUIC on loopback, in one process.

mod connections;
mod following;
mod gate;
mod gossip;
mod hostile;
mod nodes;
mod syncing;
