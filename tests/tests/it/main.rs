//! Whole nodes over real QUIC on loopback, in one process.

mod access;
mod connections;
mod following;
mod forks;
mod gate;
mod gossip;
mod hostile;
mod nodes;
mod quotas;
mod receipts;
mod syncing;
