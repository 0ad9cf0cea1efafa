//! The file: who may open it, and what stands before the database.
//!
//! ```text
//! 0      magic (16) · format (u32) · store id (16) · BLAKE3 of these 36 bytes (32) · zeros
//! 4096   the redb database
//! ```
//!
//! The header is written once, when the file is made. It stands outside the database so that a
//! newer or a foreign file is recognised by reading 68 bytes, before anything could write to it.
//!
//! Invariant: magic and format keep their place in every format to come.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, ErrorKind},
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::Duration,
};

use redb::StorageBackend;

use crate::{Damage, StoreError, StoreId};

/// The format this version reads and writes. Format 1 kept a run in one row; format 2 knew no
/// forks, and one head for what is visible and what is stored; format 3 did not count the bytes of
/// runs.
pub(super) const FORMAT: u32 = 4;

const MAGIC: &[u8; 16] = b"headwater store\n";
const FACTS_BYTES: usize = 16 + 4 + 16;
const HEADER_BYTES: usize = FACTS_BYTES + 32;

/// Where the database begins: one page in, so that its pages stay aligned.
const DATABASE_AT: u64 = 4096;

/// An open, locked store file. The lock ends with the last clone.
#[derive(Debug, Clone)]
pub(super) struct StoreFile {
    pub(super) path: PathBuf,
    pub(super) id: StoreId,
    file: Arc<File>,
    #[cfg(test)]
    pub(super) faults: Arc<super::faults::Faults>,
}

/// How often a lock is tried for, and how long is waited between: together 50 ms.
const LOCK_TRIES: u32 = 10;
const LOCK_WAIT: Duration = Duration::from_millis(5);

/// Locks a file. A process that is being started holds copies of our descriptors, and with them a
/// lock we have given back, until it runs its own program: so a refusal counts only if it lasts.
fn lock(file: &File) -> Result<(), TryLockError> {
    let mut refused = file.try_lock();
    for _ in 1..LOCK_TRIES {
        if !matches!(refused, Err(TryLockError::WouldBlock)) {
            break;
        }
        thread::sleep(LOCK_WAIT);
        refused = file.try_lock();
    }
    refused
}

impl StoreFile {
    /// Opens and locks the file, and reads its header. Nothing is written.
    pub(super) fn open(path: &Path) -> Result<StoreFile, StoreError> {
        let opened = OpenOptions::new().read(true).write(true).open(path);
        let file = opened.map_err(|error| match error.kind() {
            ErrorKind::NotFound => StoreError::NotFound {
                path: path.to_owned(),
            },
            _ => StoreError::Io(error),
        })?;
        match lock(&file) {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(StoreError::AlreadyOpen {
                    path: path.to_owned(),
                });
            }
            Err(TryLockError::Error(error)) => return Err(error.into()),
        }
        let id = read_header(&file, path)?;
        Ok(StoreFile {
            path: path.to_owned(),
            id,
            file: Arc::new(file),
            #[cfg(test)]
            faults: Arc::default(),
        })
    }

    /// Makes a new store file with whatever `fill` puts into its database.
    ///
    /// It gets its name only when it is complete and on disk, so a crash leaves no file that
    /// does not open. A file that has the name already is left alone. Payloads lie in it as they
    /// are, so on Unix only its owner can read it.
    pub(super) fn create(
        path: &Path,
        fill: impl FnOnce(&StoreFile) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        if path.try_exists()? {
            return Err(StoreError::AlreadyExists {
                path: path.to_owned(),
            });
        }
        let id = StoreId::random()?;
        let unfinished = unfinished_name(path)?;
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let file = options.open(&unfinished)?;
        let made = write_header(&file, id)
            .map_err(StoreError::from)
            .and_then(|()| {
                let made = StoreFile {
                    path: unfinished.clone(),
                    id,
                    file: Arc::new(file),
                    #[cfg(test)]
                    faults: Arc::default(),
                };
                fill(&made)?;
                made.file.sync_all()?;
                Ok(())
            })
            .and_then(|()| give_name(&unfinished, path));
        if made.is_err() {
            // The name is ours alone. What could not be removed is a leftover and harms nobody.
            let _ = fs::remove_file(&unfinished);
        }
        made
    }

    /// Returns the part of the file the database lives in.
    pub(super) fn backend(&self) -> Backend {
        Backend(self.clone())
    }

    /// How many bytes the file system has left for whoever this process runs as; `None` where the
    /// system is not asked.
    #[cfg(unix)]
    pub(super) fn free_bytes(&self) -> Result<Option<u64>, StoreError> {
        let found = rustix::fs::fstatvfs(&self.file).map_err(io::Error::from)?;
        Ok(Some(found.f_bavail.saturating_mul(found.f_frsize)))
    }

    #[cfg(not(unix))]
    pub(super) fn free_bytes(&self) -> Result<Option<u64>, StoreError> {
        Ok(None)
    }

    /// Returns whether there is a database behind the header.
    pub(super) fn holds_database(&self) -> Result<bool, StoreError> {
        Ok(self.file.metadata()?.len() > DATABASE_AT)
    }
}

/// A name in the same folder that nobody else uses.
fn unfinished_name(path: &Path) -> Result<PathBuf, StoreError> {
    let name = path.file_name().ok_or_else(|| {
        io::Error::new(ErrorKind::InvalidInput, "the path of a store names a file")
    })?;
    let mut unfinished = std::ffi::OsString::from(".");
    unfinished.push(name);
    let unique = u128::from_be_bytes(StoreId::random()?.to_bytes());
    unfinished.push(format!(".{unique:032x}.unfinished"));
    Ok(path.with_file_name(unfinished))
}

/// Moves a finished file to its name, unless that is taken, and makes the name durable.
fn give_name(unfinished: &Path, path: &Path) -> Result<(), StoreError> {
    // A link, unlike a rename, never replaces a file somebody made meanwhile.
    match fs::hard_link(unfinished, path) {
        Ok(()) => fs::remove_file(unfinished)?,
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            return Err(StoreError::AlreadyExists {
                path: path.to_owned(),
            });
        }
        // A file system without links.
        Err(_) if !path.try_exists()? => fs::rename(unfinished, path)?,
        Err(error) => return Err(error.into()),
    }
    sync_folder(path)?;
    Ok(())
}

#[cfg(unix)]
fn sync_folder(path: &Path) -> io::Result<()> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    File::open(folder)?.sync_all()
}

#[cfg(not(unix))]
fn sync_folder(_path: &Path) -> io::Result<()> {
    // Folders cannot be opened for syncing here; the file system journals names.
    Ok(())
}

fn write_header(file: &File, id: StoreId) -> io::Result<()> {
    let mut facts = [0; FACTS_BYTES];
    facts[..16].copy_from_slice(MAGIC);
    facts[16..20].copy_from_slice(&FORMAT.to_be_bytes());
    facts[20..].copy_from_slice(&id.to_bytes());
    let mut header = vec![0; DATABASE_AT as usize];
    header[..FACTS_BYTES].copy_from_slice(&facts);
    header[FACTS_BYTES..HEADER_BYTES].copy_from_slice(blake3::hash(&facts).as_bytes());
    write_at(file, 0, &header)
}

fn read_header(file: &File, path: &Path) -> Result<StoreId, StoreError> {
    let foreign = || StoreError::ForeignFile {
        path: path.to_owned(),
    };
    let damaged = |reason: &str| {
        StoreError::Damaged(Damage::File {
            reason: reason.to_owned(),
        })
    };
    let len = file.metadata()?.len();
    let mut magic = [0; 20];
    if len < magic.len() as u64 {
        return Err(foreign());
    }
    read_at(file, 0, &mut magic)?;
    let Some((magic, [a, b, c, d])) = magic.split_last_chunk::<4>() else {
        return Err(foreign());
    };
    if magic != MAGIC {
        return Err(foreign());
    }
    let found = u32::from_be_bytes([*a, *b, *c, *d]);
    if found > FORMAT {
        return Err(StoreError::NewerFormat {
            path: path.to_owned(),
            found,
            supported: FORMAT,
        });
    }
    if found < FORMAT {
        return Err(StoreError::OlderFormat {
            path: path.to_owned(),
            found,
            supported: FORMAT,
        });
    }
    if len <= DATABASE_AT {
        return Err(damaged("the file ends before its database"));
    }
    let mut header = [0; HEADER_BYTES];
    read_at(file, 0, &mut header)?;
    let (facts, hash) = header.split_at(FACTS_BYTES);
    if hash != blake3::hash(facts).as_bytes() {
        return Err(damaged("the header is not what was written"));
    }
    let mut id = [0; 16];
    for (to, from) in id.iter_mut().zip(facts.iter().skip(20)) {
        *to = *from;
    }
    Ok(StoreId::from_bytes(id))
}

/// The database's view of the file. The lock is the store's, not the database's, so that a
/// database can be opened anew without anybody slipping in.
#[derive(Debug)]
pub(super) struct Backend(StoreFile);

impl StorageBackend for Backend {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.file.metadata()?.len().saturating_sub(DATABASE_AT))
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        read_at(&self.0.file, in_file(offset)?, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        #[cfg(test)]
        self.0.faults.before_growth()?;
        self.0.file.set_len(in_file(len)?)
    }

    fn sync_data(&self) -> io::Result<()> {
        #[cfg(test)]
        self.0.faults.before_write()?;
        self.0.file.sync_data()
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        #[cfg(test)]
        self.0.faults.before_write()?;
        write_at(&self.0.file, in_file(offset)?, bytes)
    }
}

/// Where an offset of the database lies in the file. A damaged page may name any offset.
fn in_file(offset: u64) -> io::Result<u64> {
    DATABASE_AT
        .checked_add(offset)
        .ok_or_else(|| ErrorKind::InvalidData.into())
}

#[cfg(unix)]
fn read_at(file: &File, offset: u64, out: &mut [u8]) -> io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, out, offset)
}

#[cfg(unix)]
fn write_at(file: &File, offset: u64, bytes: &[u8]) -> io::Result<()> {
    std::os::unix::fs::FileExt::write_all_at(file, bytes, offset)
}

#[cfg(windows)]
fn read_at(file: &File, mut offset: u64, mut out: &mut [u8]) -> io::Result<()> {
    while !out.is_empty() {
        match std::os::windows::fs::FileExt::seek_read(file, out, offset)? {
            0 => return Err(ErrorKind::UnexpectedEof.into()),
            read => {
                out = out.get_mut(read..).unwrap_or_default();
                offset += read as u64;
            }
        }
    }
    Ok(())
}

#[cfg(windows)]
fn write_at(file: &File, mut offset: u64, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match std::os::windows::fs::FileExt::seek_write(file, bytes, offset)? {
            0 => return Err(ErrorKind::WriteZero.into()),
            written => {
                bytes = bytes.get(written..).unwrap_or_default();
                offset += written as u64;
            }
        }
    }
    Ok(())
}
