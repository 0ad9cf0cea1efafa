//! A disk that stops taking writes, for tests.

use std::{
    io,
    sync::atomic::{AtomicBool, AtomicI64, Ordering::SeqCst},
};

/// How many more writes succeed; below zero, all do.
#[derive(Debug)]
pub(in crate::disk) struct Faults {
    left: AtomicI64,
    full: AtomicBool,
}

impl Default for Faults {
    fn default() -> Self {
        Faults {
            left: AtomicI64::new(-1),
            full: AtomicBool::new(false),
        }
    }
}

impl Faults {
    /// Lets so many writes succeed and no more.
    pub(in crate::disk) fn fail_after(&self, writes: i64) {
        self.left.store(writes, SeqCst);
    }

    /// Sets whether the file can grow no more.
    pub(in crate::disk) fn set_full(&self, full: bool) {
        self.full.store(full, SeqCst);
    }

    pub(in crate::disk) fn before_growth(&self) -> io::Result<()> {
        if self.full.load(SeqCst) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.before_write()
    }

    pub(in crate::disk) fn before_write(&self) -> io::Result<()> {
        match self.left.load(SeqCst) {
            0 => Err(io::ErrorKind::Other.into()),
            left if left < 0 => Ok(()),
            left => {
                self.left.store(left - 1, SeqCst);
                Ok(())
            }
        }
    }
}
