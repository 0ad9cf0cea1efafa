//! Stores for Headwater logs.
//!
//! ```text
//!              LogStore
//!       append · heads · runs · verify
//!                 │ written once, over ordered tables
//!        ┌────────┴────────┐
//!   MemoryStore        DiskStore
//!   BTreeMaps          one redb file
//! ```
//!
//! A store takes verified runs and nothing else, keeps their bytes as they came, and knows for
//! every space its heads and the root of the tree over them. Everything that belongs together
//! changes in one commit.
//!
//! It refuses to know: who may read or write (ask before you append), what a session is doing,
//! clocks, and the network. It starts no thread; every call blocks until it is done.

mod append;
mod changes;
mod disk;
mod error;
mod folds;
mod forks;
mod heads_tree;
mod log_store;
mod memory;
mod merge;
mod quotas;
mod read;
mod records;
mod revoked;
mod tables;
mod verify;

pub use self::{
    disk::{DiskStore, DiskStoreOptions},
    error::{Damage, StoreError},
    log_store::{
        Bounds, Commit, ForkFound, ForkRecord, ForkSummary, LogStore, StoreId, VerifyProgress,
        VerifyReport,
    },
    memory::MemoryStore,
    quotas::{Quota, Quotas, Stored, Usage},
};

#[cfg(any(test, feature = "test-utils"))]
pub mod conformance;

#[cfg(test)]
mod tests;
