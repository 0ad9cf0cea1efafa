//! Whole nodes over real QUIC on loopback, in one process.

mod following;
mod gate;
mod hostile;
mod nodes;
mod syncing;
