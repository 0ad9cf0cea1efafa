//! What owners who fork have revoked, as it was found out last.
//!
//! ```text
//! row of the owner's log ──▶ held for that row? ─┬ yes ──▶ Found
//!                                                └ no ───▶ revoked::fold ──▶ Found, held from now on
//! ```
//!
//! To find it out reads the owner's log and all evidence, and whoever reads a space may ask for it.
//!
//! Invariant: what is held was found out from rows that were committed.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use headwater_wire::AuthorId;

use crate::{
    StoreError,
    records::{HeadRow, SpaceKey},
    revoked::{self, Found},
    tables::Tables,
};

/// Spaces something is held of: few owners fork, and few of their spaces are read at a time.
const MAX_FOLDS: usize = 4;

/// What was found out of one owner's log.
#[derive(Debug, Clone)]
pub(crate) struct Fold {
    pub(crate) space: SpaceKey,
    /// The row of the log: another one may revoke something else.
    pub(crate) row: HeadRow,
    pub(crate) found: Arc<Found>,
}

/// What was found out last, the latest first.
#[derive(Debug, Default)]
pub(crate) struct Folds {
    held: Mutex<VecDeque<Fold>>,
    #[cfg(test)]
    pub(crate) made: std::sync::atomic::AtomicUsize,
}

impl Folds {
    /// What is held of a space, whatever the row was.
    pub(crate) fn last(&self, space: &SpaceKey) -> Option<Fold> {
        let held = self.held();
        held.iter().find(|fold| fold.space == *space).cloned()
    }

    /// What is held of a space for this row.
    pub(crate) fn get(&self, space: &SpaceKey, row: &HeadRow) -> Option<Arc<Found>> {
        let last = self.last(space).filter(|fold| fold.row == *row);
        last.map(|fold| fold.found)
    }

    /// Holds what was found out of rows that are committed.
    pub(crate) fn put(&self, fold: Fold) {
        let mut held = self.held();
        held.retain(|other| other.space != fold.space);
        if fold.found.is_small() {
            held.push_front(fold);
            held.truncate(MAX_FOLDS);
        }
    }

    /// Finds it out from the tables.
    pub(crate) fn fold(
        &self,
        tables: &impl Tables,
        space: &SpaceKey,
        owner: &AuthorId,
        row: &HeadRow,
    ) -> Result<Found, StoreError> {
        #[cfg(test)]
        self.made.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        let last = self.last(space);
        let roster = last.map(|fold| (fold.row, fold.found));
        let roster = roster.as_ref().map(|(row, found)| (row, &**found));
        revoked::fold(tables, space, owner, row, roster)
    }

    /// No panic leaves it half-changed in a way that matters: each entry is whole.
    fn held(&self) -> MutexGuard<'_, VecDeque<Fold>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
