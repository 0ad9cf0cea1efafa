//! What can go wrong with a store, apart from a run it refuses.

use std::{io, path::PathBuf};

use headwater_wire::{AuthorId, SpaceId};

/// A store could not do what was asked.
///
/// A run that does not fit its log is no error of the store: see
/// [`AppendError`](headwater_wire::AppendError).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// Another process, or another part of this one, has the file open. Nothing was touched.
    #[error("{} is already open in another process or elsewhere in this one", path.display())]
    AlreadyOpen {
        /// The file.
        path: PathBuf,
    },
    /// There is no file to open.
    #[error("{} does not exist", path.display())]
    NotFound {
        /// The file.
        path: PathBuf,
    },
    /// There is a file already where a new one was asked for. Nothing was touched.
    #[error("{} exists already", path.display())]
    AlreadyExists {
        /// The file.
        path: PathBuf,
    },
    /// The file was written by a newer version of this library. Nothing was touched.
    #[error("{} has store format {found}, this version reads {supported}", path.display())]
    NewerFormat {
        /// The file.
        path: PathBuf,
        /// The format the file states.
        found: u32,
        /// The format this version reads.
        supported: u32,
    },
    /// The file was written by an older version, whose format this one no longer reads. Nothing
    /// was touched; what it holds can be synced from a node of that version.
    #[error("{} has store format {found}, this version reads {supported} alone: sync it from a node of the older version", path.display())]
    OlderFormat {
        /// The file.
        path: PathBuf,
        /// The format the file states.
        found: u32,
        /// The format this version reads.
        supported: u32,
    },
    /// The file is not a Headwater store. Nothing was touched.
    #[error("{} is not a Headwater store", path.display())]
    ForeignFile {
        /// The file.
        path: PathBuf,
    },
    /// Something stored is not what was written. Everything else can still be read.
    #[error("damaged: {0}")]
    Damaged(#[from] Damage),
    /// Reading or writing the file failed. What was being written is not acknowledged; the store
    /// opens its file anew at the next call.
    #[error("i/o error")]
    Io(#[from] io::Error),
    /// The database refused for a reason of its own, which it states.
    #[error("database error")]
    Database(#[source] Box<redb::Error>),
    /// The system has no randomness to give.
    #[error("no randomness: {reason}")]
    Randomness {
        /// What the system said.
        reason: String,
    },
    /// The file system has less free space than is to be left free. Nothing was written; what is
    /// stored is read and served as ever, and appends go on once there is room again.
    #[error("{free} bytes are free on the disk, {floor} are to stay so")]
    LowSpace {
        /// Bytes free.
        free: u64,
        /// Bytes to be left free.
        floor: u64,
    },
    /// A number that is given out once for each space or log has run out.
    #[error("the store cannot hold more {what}")]
    Full {
        /// What there is no number for.
        what: &'static str,
    },
}

/// What is damaged, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Damage {
    /// The run that holds this event is not what was written, or does not verify.
    #[error("run of {author} in {space} at event {seq}")]
    Run {
        /// The space.
        space: SpaceId,
        /// The author.
        author: AuthorId,
        /// An event of the run.
        seq: u64,
    },
    /// No run holds this event, though the head says it is here.
    #[error("event {seq} of {author} in {space} is missing")]
    Missing {
        /// The space.
        space: SpaceId,
        /// The author.
        author: AuthorId,
        /// The first event that is missing.
        seq: u64,
    },
    /// The head of a log is not what was written, or is not the head of its runs.
    #[error("head of {author} in {space}")]
    Head {
        /// The space.
        space: SpaceId,
        /// The author.
        author: AuthorId,
    },
    /// The proof of a fork is missing, is not what was written, or does not prove the fork the
    /// log is cut for.
    #[error("fork proof of {author} in {space}")]
    Proof {
        /// The space.
        space: SpaceId,
        /// The author.
        author: AuthorId,
    },
    /// What shows the revocations of an owner who forks is not what was written, or they are not
    /// those the head tells of.
    #[error("revocations above the fork of the owner of {space}")]
    Evidence {
        /// The space.
        space: SpaceId,
    },
    /// The record of a space is not what was written, or its totals are not those of its logs.
    #[error("record of {space}")]
    Space {
        /// The space.
        space: SpaceId,
    },
    /// The heads tree of a space is not the tree of its heads.
    #[error("heads tree of {space}")]
    Tree {
        /// The space.
        space: SpaceId,
    },
    /// The file is damaged in a way that cannot be put down to one log.
    #[error("store file: {reason}")]
    File {
        /// What was found.
        reason: String,
    },
}

impl Damage {
    /// Returns the author whose log is damaged, if it is one log.
    #[must_use]
    pub fn author(&self) -> Option<AuthorId> {
        match self {
            Damage::Run { author, .. }
            | Damage::Missing { author, .. }
            | Damage::Head { author, .. }
            | Damage::Proof { author, .. } => Some(*author),
            Damage::Evidence { .. }
            | Damage::Space { .. }
            | Damage::Tree { .. }
            | Damage::File { .. } => None,
        }
    }
}
