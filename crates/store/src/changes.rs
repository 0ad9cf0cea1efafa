//! What one call changes, held in memory until all of it is known.
//!
//! ```text
//! space(id) ──▶ log(author) ──▶ its row, before and now ──▶ close ──▶ heads tree, rows, totals,
//!                                                                     generation, forks found
//! ```
//!
//! Runs and proofs go into the tables at once; what speaks of a whole log or a whole space is
//! written when the call is over, once for all its runs.
//!
//! Invariant: a log's row is on the one shelf or the other, never on both, and a space has a leaf
//! for exactly the rows that are shown.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    sync::Arc,
};

use headwater_proto::history::Appended;
use headwater_wire::{AppendError, AuthorId, Roles, RosterChange, SpaceId, VerifiedRun, tree};

use crate::{
    Commit, ForkFound, StoreError,
    folds::{Fold, Folds},
    heads_tree::{self, LeafChange, Subtree},
    log_store::Bounds,
    quotas::{Stored, Usage},
    records::{HeadRow, Shelf, SpaceKey, SpaceRow},
    tables::{Tables, TablesMut},
};

/// What a call did, and whether there is anything to commit.
#[derive(Debug)]
pub(crate) struct Written {
    pub(crate) commit: Commit,
    pub(crate) changed: bool,
    /// What was found out of owners who fork.
    pub(crate) folds: Vec<Fold>,
}

impl Written {
    /// Holds what was found out, now that it is committed.
    pub(crate) fn committed(self, folds: &Folds) -> Commit {
        for fold in self.folds {
            folds.put(fold);
        }
        self.commit
    }
}

/// The spaces a call speaks of.
pub(crate) struct Changes<'f> {
    spaces: BTreeMap<SpaceId, OpenSpace>,
    /// What was found out by calls before.
    folds: &'f Folds,
}

/// A space a call speaks of.
pub(crate) struct OpenSpace {
    pub(crate) key: SpaceKey,
    row: SpaceRow,
    /// Of all logs, with what the call has stored so far.
    stored: Stored,
    logs: BTreeMap<AuthorId, OpenLog>,
    /// Runs of the owner's that may show what is revoked above a cut.
    evidence: Vec<VerifiedRun>,
    /// Whether something was stored of the owner's log that grants or revokes.
    has_decided: bool,
}

/// A log a call speaks of.
pub(crate) struct OpenLog {
    before: Option<HeadRow>,
    pub(crate) now: Option<HeadRow>,
}

impl OpenLog {
    /// The row as it is now, or that of a new log.
    pub(crate) fn row_or_new(&self, tables: &mut impl TablesMut) -> Result<HeadRow, StoreError> {
        match self.now {
            Some(row) => Ok(row),
            None => Ok(HeadRow::new(tables.new_log_no()?)),
        }
    }
}

impl<'f> Changes<'f> {
    pub(crate) fn new(folds: &'f Folds) -> Changes<'f> {
        Changes {
            spaces: BTreeMap::new(),
            folds,
        }
    }

    /// Opens a space that is held, or that `founder` founds now.
    pub(crate) fn space(
        &mut self,
        tables: &mut impl TablesMut,
        id: SpaceId,
        founder: Option<AuthorId>,
    ) -> Result<Option<&mut OpenSpace>, StoreError> {
        let place = match self.spaces.entry(id) {
            Entry::Occupied(open) => return Ok(Some(open.into_mut())),
            Entry::Vacant(place) => place,
        };
        let row = match (tables.space(&id)?, founder) {
            (Some(row), _) => row,
            (None, Some(owner)) => SpaceRow::new(tables.new_space_no()?, owner),
            (None, None) => return Ok(None),
        };
        Ok(Some(place.insert(OpenSpace {
            key: row.key(id),
            row,
            stored: row.stored,
            logs: BTreeMap::new(),
            evidence: Vec::new(),
            has_decided: false,
        })))
    }

    /// Writes what changed, and says so.
    pub(crate) fn close(
        self,
        tables: &mut impl TablesMut,
        outcomes: Vec<Result<Appended, AppendError>>,
    ) -> Result<Written, StoreError> {
        let mut written = Written {
            commit: Commit {
                outcomes,
                ..Commit::default()
            },
            changed: false,
            folds: Vec::new(),
        };
        for open in self.spaces.into_values() {
            open.close(tables, self.folds, &mut written)?;
        }
        Ok(written)
    }
}

impl OpenSpace {
    /// What is stored of a log and of the space, as the call has left it so far.
    pub(crate) fn usage(
        &mut self,
        tables: &impl Tables,
        author: &AuthorId,
    ) -> Result<Usage, StoreError> {
        let now = self.log(tables, author)?.now;
        Ok(Usage {
            space: self.stored,
            ..Usage::of(&self.row, author, now.as_ref())
        })
    }

    /// Puts a log's row in place of another, now that more of it is stored.
    pub(crate) fn grown(&mut self, author: AuthorId, before: &HeadRow, now: HeadRow) {
        self.stored = self.stored.minus(before.stored()).plus(now.stored());
        if let Some(log) = self.logs.get_mut(&author) {
            log.now = Some(now);
        }
    }

    pub(crate) fn log(
        &mut self,
        tables: &impl Tables,
        author: &AuthorId,
    ) -> Result<&mut OpenLog, StoreError> {
        match self.logs.entry(*author) {
            Entry::Occupied(open) => Ok(open.into_mut()),
            Entry::Vacant(place) => {
                let before = log_row(tables, &self.row, &self.key, author)?;
                let now = before;
                Ok(place.insert(OpenLog { before, now }))
            }
        }
    }

    /// Takes a run of the owner's for what it revokes above the cut, if the log is cut by a fork.
    pub(crate) fn offer(
        &mut self,
        tables: &impl Tables,
        run: &VerifiedRun,
    ) -> Result<(), StoreError> {
        if run.author() != self.row.owner {
            return Ok(());
        }
        let now = self.log(tables, &run.author())?.now;
        let Some(fork) = now.and_then(|row| row.fork) else {
            return Ok(());
        };
        let is_above = run.last_seq() >= fork;
        if is_above && run.run().revocations().any(|(seq, _)| seq >= fork) {
            self.evidence.push(run.clone());
        }
        Ok(())
    }

    /// Takes note of what was stored of a log, if it is the owner's and speaks of writers: bounds that
    /// were as it said lag behind it now.
    pub(crate) fn decided(&mut self, run: &VerifiedRun) {
        let is_of_writers = |(_, change): (u64, RosterChange)| {
            let roles = match change {
                RosterChange::Grant(grant) => grant.roles,
                RosterChange::Revocation(revocation) => revocation.roles,
            };
            roles.contains(Roles::WRITE)
        };
        if run.author() != self.row.owner {
            return;
        }
        self.has_decided |= run.run().roster_changes().next().is_some();
        if run.run().roster_changes().any(is_of_writers) {
            self.bounds_lag();
        }
    }

    fn bounds_lag(&mut self) {
        if self.row.bounds == Bounds::Kept {
            self.row.bounds = Bounds::Due;
        }
    }

    /// Finds out again what is revoked above the cut of the owner's log, where that may have changed.
    fn fold_revoked(
        &mut self,
        tables: &mut impl TablesMut,
        folds: &Folds,
        written: &mut Written,
    ) -> Result<(), StoreError> {
        let owner = self.row.owner;
        let key = self.key;
        let Some(log) = self.logs.get_mut(&owner) else {
            return Ok(());
        };
        let Some(row) = log.now.filter(|row| row.fork.is_some()) else {
            return Ok(());
        };
        if log.now == log.before && self.evidence.is_empty() {
            return Ok(());
        }
        // Events that grant and revoke nothing change nothing, as long as the bounds are what they were.
        let bounds = |row: &HeadRow| (row.fork, row.through);
        let before = log.before.filter(|before| {
            !self.has_decided && bounds(before) == bounds(&row) && before.end.seq <= row.end.seq
        });
        let held = before.and_then(|before| folds.get(&key, &before));
        if before.is_some() && self.evidence.is_empty() {
            written.folds.extend(held.map(|found| Fold {
                space: key,
                row,
                found,
            }));
            return Ok(());
        }
        let mut found = match held {
            Some(found) => Arc::unwrap_or_clone(found),
            None => folds.fold(tables, &key, &owner, &row)?,
        };
        found.take_in(&self.evidence);
        written.changed |= found.keep(tables, &key, &self.evidence)?;
        let row = HeadRow {
            revoked: found.digest(),
            ..row
        };
        log.now = Some(row);
        if log.now != log.before {
            written.commit.rosters.push(key.id);
            self.bounds_lag();
        }
        written.folds.push(Fold {
            space: key,
            row,
            found: Arc::new(found),
        });
        Ok(())
    }

    fn close(
        mut self,
        tables: &mut impl TablesMut,
        folds: &Folds,
        written: &mut Written,
    ) -> Result<(), StoreError> {
        self.fold_revoked(tables, folds, written)?;
        self.logs.retain(|_, log| log.now != log.before);
        if self.logs.is_empty() {
            return Ok(());
        }
        written.changed = true;
        let mut leaves = Vec::with_capacity(self.logs.len());
        for (author, log) in &self.logs {
            let before = log.before.and_then(|row| row.shown(*author));
            let now = log.now.and_then(|row| row.shown(*author));
            if before != now {
                leaves.push(LeafChange {
                    author: *author,
                    digest: now.as_ref().map(tree::leaf),
                    is_new: before.is_none(),
                });
            }
            let fork = log.now.and_then(|row| row.fork);
            if let Some(seq) = fork.filter(|_| log.before.and_then(|row| row.fork) != fork) {
                written.commit.forks.push(ForkFound {
                    space: self.key.id,
                    author: *author,
                    seq,
                });
            }
        }
        let root = Subtree::root(self.row.authors, self.row.digest);
        self.row.digest = heads_tree::update(tables, &self.key, root, &leaves)?;
        for (author, log) in std::mem::take(&mut self.logs) {
            self.put(tables, &author, &log)?;
        }
        if !leaves.is_empty() {
            self.row.generation += 1;
            let generation = (self.key.id, self.row.generation);
            written.commit.generations.push(generation);
        }
        tables.put_space(&self.key.id, &self.row)
    }

    /// Puts a log's row where it belongs now, and counts it in the totals.
    fn put(
        &mut self,
        tables: &mut impl TablesMut,
        author: &AuthorId,
        log: &OpenLog,
    ) -> Result<(), StoreError> {
        let shelf = log.now.map(|row| row.shelf());
        if let Some(row) = &log.before {
            if shelf != Some(row.shelf()) {
                tables.remove_head(row.shelf(), &self.key, author)?;
            }
            let count = self.row.count(row.shelf());
            *count = count.saturating_sub(1);
            self.row.events = self.row.events.saturating_sub(row.head.seq);
            self.row.payload_bytes = self.row.payload_bytes.saturating_sub(row.payload_bytes);
            self.row.stored = self.row.stored.minus(row.stored());
        }
        if let Some(row) = &log.now {
            tables.put_head(row.shelf(), &self.key, author, row)?;
            let count = self.row.count(row.shelf());
            *count = count.saturating_add(1);
            self.row.events = self.row.events.saturating_add(row.head.seq);
            self.row.payload_bytes = self.row.payload_bytes.saturating_add(row.payload_bytes);
            self.row.stored = self.row.stored.plus(row.stored());
        }
        Ok(())
    }
}

/// The row of a log, whichever shelf it is on. The shelf of hidden rows is looked at only in a
/// space that has some.
pub(crate) fn log_row(
    tables: &impl Tables,
    space: &SpaceRow,
    key: &SpaceKey,
    author: &AuthorId,
) -> Result<Option<HeadRow>, StoreError> {
    match tables.head(Shelf::Shown, key, author)? {
        None if space.hidden > 0 => tables.head(Shelf::Hidden, key, author),
        row => Ok(row),
    }
}
