//! A store that is one file.
//!
//! ```text
//! append ──▶ redb transaction ──▶ commit in two phases ──▶ on disk ──▶ outcome
//! read   ──▶ redb snapshot ──▶ rows, each checked against its seal or hash
//! ```
//!
//! The database is redb: pure Rust, one file, copy-on-write pages, so that a commit is there as
//! a whole or not at all. Every commit uses two phases, because a peer chooses much of what is
//! written. A full pass over the file after a crash is spared by [`settle`](LogStore::settle). A run
//! is cut into rows that fill their pages, see `pieces`.
//!
//! redb trusts its file. A page that was altered may make it return an error or panic; both end
//! here, as [`StoreError::Damaged`], and what lies on other pages is still served.

mod errors;
mod file;
mod pieces;
mod rows;
mod tables;

#[cfg(test)]
mod faults;
#[cfg(test)]
mod tests;

use std::{
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::{
        PoisonError, RwLock, RwLockReadGuard,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
};

use headwater_proto::history::{
    HeadRecord, HeadsPage, SpaceSummary, StoredRun, TailCheck, TailWant,
};
use headwater_wire::{
    AuthorHead, AuthorId, Event, Revoked, Run, SpaceId, Subject, VerifiedForkProof, VerifiedRun,
};
use redb::{Database, ReadableDatabase, WriteTransaction};

use self::{
    file::StoreFile,
    tables::{DiskTables, Reading, Writing},
};
use crate::{
    Bounds, Commit, Damage, ForkRecord, LogStore, Quotas, StoreError, StoreId, Usage,
    VerifyProgress, VerifyReport, append, changes::Written, folds::Folds, forks, read, revoked,
    verify,
};

/// How a [`DiskStore`] is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct DiskStoreOptions {
    /// The most memory the database uses to cache pages, in bytes. A large append writes its
    /// pages out early rather than exceed it.
    pub cache_bytes: usize,
    /// Whether opening checks every page of the file, which reads all of it.
    ///
    /// Without it, damage shows when what is damaged is read.
    pub check_on_open: bool,
}

impl DiskStoreOptions {
    /// The default of [`cache_bytes`](Self::cache_bytes): 32 MiB, half of what a node may grow by
    /// in a sync of any length. A sync reads and writes in order, so more of it serves few reads.
    pub const DEFAULT_CACHE_BYTES: usize = 32 * 1024 * 1024;

    /// Sets [`cache_bytes`](Self::cache_bytes).
    #[must_use]
    pub fn cache_bytes(mut self, cache_bytes: usize) -> DiskStoreOptions {
        self.cache_bytes = cache_bytes;
        self
    }

    /// Sets [`check_on_open`](Self::check_on_open).
    #[must_use]
    pub fn check_on_open(mut self, check_on_open: bool) -> DiskStoreOptions {
        self.check_on_open = check_on_open;
        self
    }
}

impl Default for DiskStoreOptions {
    fn default() -> Self {
        DiskStoreOptions {
            cache_bytes: Self::DEFAULT_CACHE_BYTES,
            check_on_open: false,
        }
    }
}

/// Keeps everything in one file.
///
/// An append is on disk when it returns. One store at a time has the file open, in this process
/// or any other.
///
/// After an error of the disk the file is opened anew at the next call, so that a full disk
/// stops appends only while it is full.
pub struct DiskStore {
    file: StoreFile,
    options: DiskStoreOptions,
    /// `None` after an error, until the database could be opened anew.
    database: RwLock<Option<Database>>,
    /// Whether the database must be opened anew before it is used.
    failed: AtomicBool,
    /// Whether something was appended since the last settling.
    unsettled: AtomicBool,
    /// What owners who fork have revoked.
    folds: Folds,
}

impl DiskStore {
    /// Opens the store in this file.
    ///
    /// # Errors
    ///
    /// The file is unchanged on every error but [`StoreError::Io`] and [`StoreError::Damaged`],
    /// where redb may have repaired parts of it; no run that was sound is lost by that.
    ///
    /// - [`StoreError::NotFound`] if there is no file.
    /// - [`StoreError::AlreadyOpen`] if somebody has it open.
    /// - [`StoreError::ForeignFile`] if it is not a store, an empty file included.
    /// - [`StoreError::NewerFormat`] if a newer version wrote it.
    /// - [`StoreError::OlderFormat`] if a version wrote it whose format is no longer read.
    /// - [`StoreError::Damaged`] if it cannot be read as what it says it is.
    pub fn open(path: impl AsRef<Path>) -> Result<DiskStore, StoreError> {
        DiskStore::open_with(path, DiskStoreOptions::default())
    }

    /// Opens the store in this file, with options.
    ///
    /// # Errors
    ///
    /// Those of [`open`](Self::open).
    pub fn open_with(
        path: impl AsRef<Path>,
        options: DiskStoreOptions,
    ) -> Result<DiskStore, StoreError> {
        DiskStore::on(StoreFile::open(path.as_ref())?, options)
    }

    /// Makes a new, empty store in a file that does not exist yet, and opens it.
    ///
    /// The folder must exist. The file gets its name when it is complete and on disk. On Unix it
    /// is readable by its owner alone, whatever the folder allows.
    ///
    /// # Errors
    ///
    /// [`StoreError::AlreadyExists`] if there is a file, which is then left alone. No file has
    /// the name after any other error, except those of [`open`](Self::open) at the very end.
    pub fn create(path: impl AsRef<Path>) -> Result<DiskStore, StoreError> {
        DiskStore::create_with(path, DiskStoreOptions::default())
    }

    /// Makes a new, empty store and opens it, with options.
    ///
    /// # Errors
    ///
    /// Those of [`create`](Self::create).
    pub fn create_with(
        path: impl AsRef<Path>,
        options: DiskStoreOptions,
    ) -> Result<DiskStore, StoreError> {
        let path = path.as_ref();
        StoreFile::create(path, |file| {
            let database = open_database(file, &options)?;
            let mut transaction = begin_write(&database)?;
            transaction.set_quick_repair(true);
            DiskTables::write(&transaction)?;
            transaction.commit()?;
            Ok(())
        })?;
        DiskStore::open_with(path, options)
    }

    /// Opens the store in this file, or makes a new one if there is no file.
    ///
    /// # Errors
    ///
    /// Those of [`open`](Self::open) and [`create`](Self::create).
    pub fn open_or_create(path: impl AsRef<Path>) -> Result<DiskStore, StoreError> {
        DiskStore::open_or_create_with(path, DiskStoreOptions::default())
    }

    /// Opens or makes a store, with options.
    ///
    /// # Errors
    ///
    /// Those of [`open`](Self::open) and [`create`](Self::create).
    pub fn open_or_create_with(
        path: impl AsRef<Path>,
        options: DiskStoreOptions,
    ) -> Result<DiskStore, StoreError> {
        let path = path.as_ref();
        let made = match DiskStore::open_with(path, options) {
            Err(StoreError::NotFound { .. }) => DiskStore::create_with(path, options),
            opened => return opened,
        };
        match made {
            // Somebody was faster.
            Err(StoreError::AlreadyExists { .. }) => DiskStore::open_with(path, options),
            made => made,
        }
    }

    /// Returns the file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.file.path
    }

    fn on(file: StoreFile, options: DiskStoreOptions) -> Result<DiskStore, StoreError> {
        if !file.holds_database()? {
            return Err(Damage::File {
                reason: "the file ends before its database".to_owned(),
            }
            .into());
        }
        let database = caught(|| {
            let database = open_database(&file, &options)?;
            // Whether the tables are there shows now rather than at the first question.
            DiskTables::read(&database.begin_read()?)?;
            Ok(database)
        })?;
        Ok(DiskStore {
            file,
            options,
            database: RwLock::new(Some(database)),
            failed: AtomicBool::new(false),
            unsettled: AtomicBool::new(false),
            folds: Folds::default(),
        })
    }

    /// Answers a question from one snapshot.
    fn ask<T>(
        &self,
        question: impl FnOnce(&DiskTables<Reading>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        self.with_database(|database| question(&DiskTables::read(&database.begin_read()?)?))
    }

    /// Changes the tables in one transaction.
    fn write(
        &self,
        work: impl FnOnce(&mut DiskTables<Writing<'_>>) -> Result<Written, StoreError>,
    ) -> Result<Commit, StoreError> {
        let written = self.with_database(|database| {
            let transaction = begin_write(database)?;
            let written = work(&mut DiskTables::write(&transaction)?)?;
            if written.changed {
                self.unsettled.store(true, SeqCst);
                transaction.commit()?;
            } else {
                transaction.abort()?;
            }
            Ok(written.committed(&self.folds))
        });
        if matches!(written, Err(StoreError::Damaged(Damage::File { .. }))) {
            // redb may have given up half-way through.
            self.failed.store(true, SeqCst);
        }
        written
    }

    fn with_database<T>(
        &self,
        work: impl FnOnce(&Database) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let open = self.opened()?;
        let outcome = caught(|| match open.as_ref() {
            Some(database) => work(database),
            None => Err(StoreError::Io(std::io::ErrorKind::NotConnected.into())),
        });
        if matches!(outcome, Err(StoreError::Io(_) | StoreError::Database(_))) {
            self.failed.store(true, SeqCst);
        }
        outcome
    }

    /// Returns the open database, opened anew if it has failed.
    fn opened(&self) -> Result<RwLockReadGuard<'_, Option<Database>>, StoreError> {
        if self.failed.load(SeqCst) {
            let mut slot = self
                .database
                .write()
                .unwrap_or_else(PoisonError::into_inner);
            // Another thread may have been here meanwhile.
            if self.failed.load(SeqCst) {
                close(slot.take());
                *slot = Some(caught(|| open_database(&self.file, &self.options))?);
                self.failed.store(false, SeqCst);
            }
        }
        Ok(self.database.read().unwrap_or_else(PoisonError::into_inner))
    }
}

fn open_database(file: &StoreFile, options: &DiskStoreOptions) -> Result<Database, StoreError> {
    let database = Database::builder()
        .set_cache_size(options.cache_bytes)
        .set_check_integrity_on_open(options.check_on_open)
        .create_with_backend(file.backend())?;
    Ok(database)
}

fn begin_write(database: &Database) -> Result<WriteTransaction, StoreError> {
    let mut transaction = database.begin_write()?;
    transaction.set_two_phase_commit(true);
    Ok(transaction)
}

/// Closes a database, which writes what makes its next opening fast.
fn close(database: Option<Database>) {
    let closed = caught(|| {
        drop(database);
        Ok(())
    });
    if let Err(error) = closed {
        tracing::warn!(%error, "the store was not closed in order");
    }
}

/// Turns a panic of the database, which trusts its file, into an error that says so.
fn caught<T>(work: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let said = panic
            .downcast_ref::<String>()
            .map(String::as_str)
            .or_else(|| panic.downcast_ref::<&str>().copied());
        Err(Damage::File {
            reason: said.unwrap_or("the database gave up").to_owned(),
        }
        .into())
    })
}

impl Drop for DiskStore {
    fn drop(&mut self) {
        let slot = self
            .database
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner);
        close(slot.take());
    }
}

impl fmt::Debug for DiskStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DiskStore")
            .field("id", &self.file.id)
            .field("path", &self.file.path)
            .finish_non_exhaustive()
    }
}

impl LogStore for DiskStore {
    fn id(&self) -> StoreId {
        self.file.id
    }

    fn append_within(&self, runs: &[VerifiedRun], quotas: &Quotas) -> Result<Commit, StoreError> {
        self.write(|tables| append::append(tables, &self.folds, runs, quotas))
    }

    fn usage(&self, space: &SpaceId, author: &AuthorId) -> Result<Usage, StoreError> {
        self.ask(|tables| append::usage(tables, space, author))
    }

    fn free_bytes(&self) -> Result<Option<u64>, StoreError> {
        self.file.free_bytes()
    }

    fn spaces(&self) -> Result<Vec<SpaceId>, StoreError> {
        self.ask(crate::tables::Tables::spaces)
    }

    fn summary(&self, space: &SpaceId) -> Result<Option<SpaceSummary>, StoreError> {
        self.ask(|tables| read::summary(tables, space))
    }

    fn head(&self, space: &SpaceId, author: &AuthorId) -> Result<Option<HeadRecord>, StoreError> {
        self.ask(|tables| read::head(tables, space, author))
    }

    fn heads(
        &self,
        space: &SpaceId,
        after: Option<AuthorId>,
        limit: usize,
    ) -> Result<HeadsPage, StoreError> {
        self.ask(|tables| read::heads(tables, space, after, limit))
    }

    fn check_tails(
        &self,
        space: &SpaceId,
        stated: &[(AuthorId, AuthorHead)],
    ) -> Result<Vec<TailCheck>, StoreError> {
        self.ask(|tables| read::check_tails(tables, space, stated))
    }

    fn read_runs(
        &self,
        space: &SpaceId,
        wants: &[TailWant],
        max_bytes: usize,
    ) -> Result<Vec<StoredRun>, StoreError> {
        self.ask(|tables| read::read_runs(tables, space, wants, max_bytes))
    }

    fn event(
        &self,
        space: &SpaceId,
        author: &AuthorId,
        seq: u64,
    ) -> Result<Option<Event>, StoreError> {
        self.ask(|tables| read::event(tables, space, author, seq))
    }

    fn cut(&self, proof: &VerifiedForkProof) -> Result<Commit, StoreError> {
        self.write(|tables| forks::cut(tables, &self.folds, proof))
    }

    fn fork(&self, space: &SpaceId, author: &AuthorId) -> Result<Option<ForkRecord>, StoreError> {
        self.ask(|tables| forks::fork(tables, space, author))
    }

    fn forks(
        &self,
        space: &SpaceId,
        after: Option<AuthorId>,
        limit: usize,
    ) -> Result<Vec<ForkRecord>, StoreError> {
        self.ask(|tables| forks::forks(tables, space, after, limit))
    }

    fn chain(
        &self,
        space: &SpaceId,
        author: &AuthorId,
        seqs: &[u64],
    ) -> Result<Vec<Option<AuthorHead>>, StoreError> {
        self.ask(|tables| forks::chain(tables, space, author, seqs))
    }

    fn stored_end(
        &self,
        space: &SpaceId,
        author: &AuthorId,
    ) -> Result<Option<AuthorHead>, StoreError> {
        self.ask(|tables| forks::stored_end(tables, space, author))
    }

    fn branch(
        &self,
        space: &SpaceId,
        author: &AuthorId,
        seq: u64,
    ) -> Result<Option<Run>, StoreError> {
        self.ask(|tables| forks::branch(tables, space, author, seq))
    }

    fn restrict(
        &self,
        space: &SpaceId,
        author: &AuthorId,
        through: Option<u64>,
    ) -> Result<Commit, StoreError> {
        self.write(|tables| forks::restrict(tables, &self.folds, space, author, through))
    }

    fn restriction(&self, space: &SpaceId, author: &AuthorId) -> Result<Option<u64>, StoreError> {
        self.ask(|tables| forks::restriction(tables, space, author))
    }

    fn restricted(
        &self,
        space: &SpaceId,
        after: Option<AuthorId>,
        limit: usize,
    ) -> Result<Vec<AuthorId>, StoreError> {
        self.ask(|tables| forks::restricted(tables, space, after, limit))
    }

    fn bounds(&self, space: &SpaceId) -> Result<Option<Bounds>, StoreError> {
        self.ask(|tables| Ok(crate::tables::Tables::space(tables, space)?.map(|row| row.bounds)))
    }

    fn set_bounds(&self, space: &SpaceId, bounds: Bounds) -> Result<(), StoreError> {
        let written = self.write(|tables| forks::set_bounds(tables, space, bounds));
        written.map(drop)
    }

    fn absorb(&self, runs: &[VerifiedRun]) -> Result<Commit, StoreError> {
        self.write(|tables| revoked::absorb(tables, &self.folds, runs))
    }

    fn revoked(&self, space: &SpaceId) -> Result<Revoked, StoreError> {
        self.ask(|tables| revoked::revoked(tables, &self.folds, space))
    }

    fn evidence(&self, space: &SpaceId, subjects: &[Subject]) -> Result<Vec<Run>, StoreError> {
        self.ask(|tables| revoked::evidence(tables, &self.folds, space, subjects))
    }

    fn verify(
        &self,
        space: &SpaceId,
        progress: &mut dyn FnMut(VerifyProgress),
    ) -> Result<VerifyReport, StoreError> {
        self.ask(|tables| verify::verify(tables, space, progress))
    }

    fn settle(&self) -> Result<(), StoreError> {
        if !self.unsettled.swap(false, SeqCst) {
            return Ok(());
        }
        let settled = self.with_database(|database| {
            let mut transaction = begin_write(database)?;
            transaction.set_quick_repair(true);
            DiskTables::write(&transaction)?.count_settled()?;
            transaction.commit()?;
            Ok(())
        });
        if settled.is_err() {
            self.unsettled.store(true, SeqCst);
        }
        settled
    }
}
