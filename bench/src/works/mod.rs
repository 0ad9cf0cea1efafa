//! What is measured, one module a family of figures.

pub mod append;
pub mod big;
pub mod cold;
pub mod flood;
pub mod gossip;
pub mod live;
pub mod memory;
pub mod open;
pub mod pullers;
pub mod resync;

use std::{path::Path, sync::Arc};

use headwater::{DiskStore, LogStore, MemoryStore, StoreError};

/// Where a node keeps its events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    /// In a memory store.
    Memory,
    /// In a file, every commit flushed to it.
    Disk,
}

impl Kept {
    /// A new store; a file lies in the folder.
    pub(crate) fn store(self, folder: &Path) -> Result<Arc<dyn LogStore>, StoreError> {
        Ok(match self {
            Self::Memory => Arc::new(MemoryStore::new()),
            Self::Disk => Arc::new(DiskStore::create(folder.join("logs.redb"))?),
        })
    }

    fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Disk => "disk",
        }
    }
}
