//! The data folder: what a node owns on disk.
//!
//! ```text
//! DIR/node.key       the endpoint's secret key, hex            0600
//! DIR/authors.json   label → author's secret key               0600
//! DIR/spaces.json    names, and the peers tickets told us of   0600
//! DIR/boot           how often a node was started here         0600
//! DIR/store.redb     the logs; one process at a time           0600
//! DIR/control.sock   reaches the process that has them open    0600
//! DIR/lock           held while one of the files above changes 0600
//! ```
//!
//! Invariant: a file is replaced whole (written aside, flushed, renamed, folder flushed) or not
//! at all, and only under the lock. A key is on disk before anything it signed is.

mod authors;
mod file;
mod spaces;

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use data_encoding::HEXLOWER_PERMISSIVE;
use headwater::{AuthorSecret, DiskStore};
use iroh::SecretKey;

#[cfg(unix)]
pub(crate) use self::file::ASIDE;
pub(crate) use self::{
    authors::AuthorKeys,
    spaces::{KnownSpace, KnownSpaces, OwnerLog, Wanted},
};
use self::{authors::FILE as AUTHORS, spaces::FILE as SPACES};
use crate::error::CliError;

const NODE_KEY: &str = "node.key";
const BOOT: &str = "boot";
const STORE: &str = "store.redb";
const LOCK: &str = "lock";

/// Bytes for a new secret.
///
/// # Errors
///
/// The system has none.
pub(crate) fn random_bytes() -> Result<[u8; 32], CliError> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(CliError::Random)?;
    Ok(bytes)
}

/// A data folder that exists.
#[derive(Debug, Clone)]
pub(crate) struct DataFolder {
    path: PathBuf,
}

impl DataFolder {
    /// The folder to use: the one named, else the user's own.
    ///
    /// # Errors
    ///
    /// [`CliError::NoHome`] if nothing names a folder.
    pub(crate) fn locate(named: Option<PathBuf>) -> Result<PathBuf, CliError> {
        if let Some(path) = named {
            return Ok(path);
        }
        let from = |name| std::env::var_os(name).filter(|value| !value.is_empty());
        from("XDG_DATA_HOME")
            .map(PathBuf::from)
            .or_else(|| from("HOME").map(|home| PathBuf::from(home).join(".local/share")))
            .map(|base| base.join("headwater"))
            .ok_or(CliError::NoHome)
    }

    /// Opens a folder that `init` made.
    ///
    /// # Errors
    ///
    /// [`CliError::NoFolder`] if there is none.
    pub(crate) fn open(path: PathBuf) -> Result<Self, CliError> {
        if path.join(NODE_KEY).is_file() {
            // A node that runs on it may stand elsewhere.
            let path = std::path::absolute(&path).unwrap_or(path);
            Ok(Self { path })
        } else {
            Err(CliError::NoFolder(path))
        }
    }

    /// Makes a folder, or completes one whose making was interrupted. Whatever is there already
    /// is kept. Answers whether the node key is new.
    ///
    /// # Errors
    ///
    /// What was made until then stays; calling it again goes on.
    pub(crate) fn init(path: PathBuf) -> Result<(Self, bool), CliError> {
        file::create_private_folder(&path)?;
        let folder = Self { path };
        let _lock = folder.lock()?;
        let key = folder.path.join(NODE_KEY);
        let fresh = !key.exists();
        if fresh {
            // The key comes last: a folder that has one is whole.
            folder.make_store()?;
            let secret = random_bytes()?;
            let hex = data_encoding::HEXLOWER.encode(&secret);
            file::replace(&key, format!("{hex}\n").as_bytes())?;
        }
        Ok((folder, fresh))
    }

    /// Takes the files here away from everybody but their owner, and answers which of them others
    /// could use until now.
    ///
    /// # Errors
    ///
    /// A file is not ours to change; those before it are done.
    pub(crate) fn make_files_private(&self) -> Result<Vec<&'static str>, CliError> {
        let mut open = Vec::new();
        for name in [NODE_KEY, AUTHORS, SPACES, BOOT, STORE, LOCK] {
            let path = self.path.join(name);
            if file::is_open_to_others(&path)? {
                file::make_private(&path)?;
                open.push(name);
            }
        }
        Ok(open)
    }

    /// Whether others than its owner may look into the folder. Its files are private all the
    /// same; a folder that was there before `init` is not ours to close.
    ///
    /// # Errors
    ///
    /// The folder cannot be looked at.
    pub(crate) fn is_open_to_others(&self) -> Result<bool, CliError> {
        file::is_open_to_others(&self.path)
    }

    /// Where the folder lies.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Does something with the files here on a thread that may wait for the lock and the disk.
    ///
    /// # Errors
    ///
    /// As what is done. Who no longer waits for it does not keep it from being done.
    pub(crate) async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Self) -> Result<T, CliError> + Send + 'static,
    ) -> Result<T, CliError> {
        let folder = self.clone();
        match tokio::task::spawn_blocking(move || work(&folder)).await {
            Ok(done) => done,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_ending) => Err(CliError::NodeStopped),
            },
        }
    }

    /// Removes what processes that were killed had half made. Only for whoever has the store open:
    /// sockets are made by nobody else, and files only under the lock.
    ///
    /// # Errors
    ///
    /// The lock cannot be taken. What cannot be removed stays.
    pub(crate) fn clear_leftovers(&self) -> Result<(), CliError> {
        let _lock = self.lock()?;
        file::clear_leftovers(&self.path);
        Ok(())
    }

    /// The endpoint's key.
    ///
    /// # Errors
    ///
    /// The file cannot be read, or does not hold a key.
    pub(crate) fn node_key(&self) -> Result<SecretKey, CliError> {
        let path = self.path.join(NODE_KEY);
        let text = fs::read_to_string(&path).map_err(|source| CliError::File {
            path: path.clone(),
            source,
        })?;
        HEXLOWER_PERMISSIVE
            .decode(text.trim().as_bytes())
            .ok()
            .and_then(|bytes| <[u8; 32]>::try_from(bytes).ok())
            .map(|bytes| SecretKey::from_bytes(&bytes))
            .ok_or_else(|| CliError::Damaged {
                path,
                reason: "32 bytes in hex are expected".into(),
            })
    }

    /// Counts a start of the node. A start's number is above those of all starts before: peers take
    /// announcements of a lower one for old ones. It is never below the clock's seconds, so that a
    /// lost file does not silence the node.
    ///
    /// # Errors
    ///
    /// The file cannot be read or written, or is damaged; it is left as it is.
    pub(crate) fn next_boot(&self) -> Result<u64, CliError> {
        let _lock = self.lock()?;
        let path = self.path.join(BOOT);
        let last: u64 = match fs::read_to_string(&path) {
            Ok(text) => text.trim().parse().map_err(|_| CliError::Damaged {
                path: path.clone(),
                reason: "a number is expected".into(),
            })?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
            Err(source) => return Err(CliError::File { path, source }),
        };
        let boot = last.saturating_add(1).max(headwater::now_ms() / 1000);
        file::replace(&path, format!("{boot}\n").as_bytes())?;
        Ok(boot)
    }

    /// Opens the store that `init` made.
    ///
    /// # Errors
    ///
    /// It is missing, another process has it open, or it is damaged, foreign or newer. It is left
    /// as it is. A missing store is not made anew: its authors would begin their logs again, and
    /// fork them.
    pub(crate) fn store(&self) -> Result<DiskStore, CliError> {
        Ok(DiskStore::open(self.path.join(STORE))?)
    }

    fn make_store(&self) -> Result<(), CliError> {
        DiskStore::open_or_create(self.path.join(STORE))?;
        Ok(())
    }

    /// The author keys.
    ///
    /// # Errors
    ///
    /// The file cannot be read or understood; it is left as it is.
    pub(crate) fn authors(&self) -> Result<AuthorKeys, CliError> {
        AuthorKeys::read(&self.path)
    }

    /// The keys of these labels, in their order; missing ones are made and written first.
    ///
    /// # Errors
    ///
    /// No key was made if the file could not be written.
    pub(crate) fn author_keys<'a>(
        &self,
        labels: impl IntoIterator<Item = &'a str>,
    ) -> Result<Vec<AuthorSecret>, CliError> {
        let _lock = self.lock()?;
        let mut keys = AuthorKeys::read(&self.path)?;
        let secrets = labels
            .into_iter()
            .map(|label| keys.get_or_make(label))
            .collect::<Result<Vec<_>, _>>()?;
        keys.write_if_changed(&self.path)?;
        Ok(secrets)
    }

    /// The key of one label, made if missing.
    ///
    /// # Errors
    ///
    /// As [`Self::author_keys`].
    pub(crate) fn author_key(&self, label: &str) -> Result<AuthorSecret, CliError> {
        crate::input::check_label(label)?;
        let mut keys = self.author_keys([label])?;
        Ok(keys.remove(0))
    }

    /// The names and peers of spaces.
    ///
    /// # Errors
    ///
    /// The file cannot be read or understood; it is left as it is.
    pub(crate) fn spaces(&self) -> Result<KnownSpaces, CliError> {
        KnownSpaces::read(&self.path)
    }

    /// Changes the names and peers of spaces.
    ///
    /// # Errors
    ///
    /// Nothing has changed.
    pub(crate) fn change_spaces<T>(
        &self,
        change: impl FnOnce(&mut KnownSpaces) -> Result<T, CliError>,
    ) -> Result<T, CliError> {
        let _lock = self.lock()?;
        let mut spaces = KnownSpaces::read(&self.path)?;
        let before = spaces.clone();
        let answer = change(&mut spaces)?;
        if spaces != before {
            spaces.write(&self.path)?;
        }
        Ok(answer)
    }

    fn lock(&self) -> Result<file::Lock, CliError> {
        file::Lock::take(&self.path.join(LOCK))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn init_twice_keeps_the_first_keys() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("deep/er");
        assert!(matches!(
            DataFolder::open(path.clone()),
            Err(CliError::NoFolder(_))
        ));
        let (folder, fresh) = DataFolder::init(path.clone()).unwrap();
        assert!(fresh);
        let node = folder.node_key().unwrap().public();
        let author = folder.author_key("me").unwrap().id();
        let (folder, fresh) = DataFolder::init(path).unwrap();
        assert!(!fresh);
        assert_eq!(folder.node_key().unwrap().public(), node);
        assert_eq!(folder.author_key("me").unwrap().id(), author);
    }

    #[cfg(unix)]
    #[test]
    fn secrets_are_readable_by_their_owner_alone() {
        use std::os::unix::fs::PermissionsExt;

        let dir = tempfile::tempdir().unwrap();
        let (folder, _) = DataFolder::init(dir.path().join("d")).unwrap();
        folder.author_key("me").unwrap();
        folder
            .change_spaces(|spaces| {
                spaces
                    .add(headwater::SpaceId::from_bytes([1; 32]), "n")
                    .map(|_| ())
            })
            .unwrap();
        for name in ["", NODE_KEY, AUTHORS, SPACES, STORE, LOCK] {
            let mode = fs::metadata(folder.path().join(name))
                .unwrap()
                .permissions()
                .mode();
            assert_eq!(mode & 0o077, 0, "{name}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn in_a_folder_others_can_enter_the_files_are_private_all_the_same() {
        use std::os::unix::fs::PermissionsExt;

        let dir = tempfile::tempdir().unwrap();
        let mode = |path: &Path, mode| {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        };
        mode(dir.path(), 0o755);
        let (folder, _) = DataFolder::init(dir.path().to_owned()).unwrap();
        assert!(folder.is_open_to_others().unwrap());
        assert_eq!(folder.make_files_private().unwrap(), [""; 0]);
        for name in [STORE, LOCK] {
            mode(&folder.path().join(name), 0o644);
        }
        assert_eq!(folder.make_files_private().unwrap(), [STORE, LOCK]);
        assert_eq!(folder.make_files_private().unwrap(), [""; 0]);
        folder.store().unwrap();
    }

    #[test]
    fn a_start_has_a_higher_number_than_those_before_even_if_the_file_was_lost() {
        let dir = tempfile::tempdir().unwrap();
        let (folder, _) = DataFolder::init(dir.path().to_owned()).unwrap();
        let first = folder.next_boot().unwrap();
        let second = folder.next_boot().unwrap();
        assert!(second > first);
        fs::write(dir.path().join(BOOT), (u64::MAX / 2).to_string()).unwrap();
        assert_eq!(folder.next_boot().unwrap(), u64::MAX / 2 + 1);
        fs::remove_file(dir.path().join(BOOT)).unwrap();
        assert!(folder.next_boot().unwrap() >= first);
        fs::write(dir.path().join(BOOT), "many").unwrap();
        assert!(matches!(folder.next_boot(), Err(CliError::Damaged { .. })));
    }

    #[test]
    fn what_was_left_half_made_is_removed_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let (folder, _) = DataFolder::init(dir.path().to_owned()).unwrap();
        let names = || {
            let entries = fs::read_dir(folder.path()).unwrap();
            let names = entries.map(|entry| entry.unwrap().file_name());
            names.collect::<std::collections::BTreeSet<_>>()
        };
        fs::write(folder.path().join("new-notes"), "kept").unwrap();
        let before = names();
        fs::write(folder.path().join(".new-abc"), "half").unwrap();
        fs::create_dir(folder.path().join(".new-def")).unwrap();
        fs::write(folder.path().join(".new-def/s"), "").unwrap();
        folder.clear_leftovers().unwrap();
        assert_eq!(names(), before);
    }

    #[test]
    fn a_damaged_node_key_is_named_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let (folder, _) = DataFolder::init(dir.path().to_owned()).unwrap();
        fs::write(folder.path().join("node.key"), "abc").unwrap();
        assert!(matches!(folder.node_key(), Err(CliError::Damaged { .. })));
        DataFolder::init(dir.path().to_owned()).unwrap();
        assert_eq!(fs::read(folder.path().join("node.key")).unwrap(), b"abc");
    }
}
