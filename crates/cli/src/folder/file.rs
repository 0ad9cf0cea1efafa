//! Small files that are replaced whole, and the lock that orders their writers.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::Path,
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::error::CliError;

/// What the names of files and folders begin with that are not in their place yet.
pub(crate) const ASIDE: &str = ".new-";

/// Held while a file of the folder is read, changed and written. Dropping it lets go.
#[derive(Debug)]
pub(super) struct Lock {
    _file: File,
}

impl Lock {
    /// Waits for the lock; its holders need it for milliseconds.
    pub(super) fn take(path: &Path) -> Result<Self, CliError> {
        let take = || {
            let mut options = File::options();
            options.create(true).append(true);
            #[cfg(unix)]
            std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
            let file = options.open(path)?;
            file.lock()?;
            Ok(file)
        };
        let file = take().map_err(at(path))?;
        Ok(Self { _file: file })
    }
}

/// Makes a folder, and those above it, that only its owner can look into.
pub(super) fn create_private_folder(path: &Path) -> Result<(), CliError> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path).map_err(at(path))
}

/// Whether others than its owner may do anything with a file or folder. A missing one is private.
#[cfg(unix)]
pub(super) fn is_open_to_others(path: &Path) -> Result<bool, CliError> {
    use std::os::unix::fs::PermissionsExt;

    match fs::metadata(path) {
        Ok(facts) => Ok(facts.permissions().mode() & 0o077 != 0),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(source) => Err(at(path)(source)),
    }
}

/// Takes a file away from everybody but its owner.
#[cfg(unix)]
pub(super) fn make_private(path: &Path) -> Result<(), CliError> {
    use std::os::unix::fs::PermissionsExt;

    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).map_err(at(path))
}

#[cfg(not(unix))]
pub(super) fn is_open_to_others(_path: &Path) -> Result<bool, CliError> {
    // Files have no such mode here; a folder in the user's profile is the user's.
    Ok(false)
}

#[cfg(not(unix))]
pub(super) fn make_private(_path: &Path) -> Result<(), CliError> {
    Ok(())
}

/// Replaces a file whole: after a crash it holds the old bytes or the new ones. Only its owner
/// can read it: temporary files are made with mode 0600.
pub(super) fn replace(path: &Path, bytes: &[u8]) -> Result<(), CliError> {
    let replace = || {
        let folder = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
        let mut aside = tempfile::Builder::new().prefix(ASIDE).tempfile_in(folder)?;
        aside.write_all(bytes)?;
        aside.as_file().sync_all()?;
        aside.persist(path).map_err(|error| error.error)?;
        #[cfg(unix)]
        File::open(folder)?.sync_all()?;
        Ok(())
    };
    replace().map_err(at(path))
}

/// Removes what lies aside in a folder. Nothing else may be making any.
pub(super) fn clear_leftovers(folder: &Path) {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    for entry in entries {
        if !entry.file_name().to_string_lossy().starts_with(ASIDE) {
            continue;
        }
        let removed = match entry.file_type() {
            Ok(kind) if kind.is_dir() => fs::remove_dir_all(entry.path()),
            _ => fs::remove_file(entry.path()),
        };
        if let Err(error) = removed {
            tracing::debug!(path = %entry.path().display(), %error, "a leftover stays");
        }
    }
}

/// What every JSON file here says first.
#[derive(Deserialize)]
struct Version {
    version: u32,
}

/// Reads a versioned JSON file; `None` if there is none.
pub(super) fn read_json<T: DeserializeOwned>(
    path: &Path,
    supported: u32,
) -> Result<Option<T>, CliError> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(at(path)(source)),
    };
    let damaged = |error: serde_json::Error| CliError::Damaged {
        path: path.to_owned(),
        reason: error.to_string(),
    };
    let Version { version } = serde_json::from_slice(&bytes).map_err(damaged)?;
    if version != supported {
        return Err(CliError::NewerFile {
            path: path.to_owned(),
            found: version,
            supported,
        });
    }
    serde_json::from_slice(&bytes).map(Some).map_err(damaged)
}

/// Replaces a JSON file whole.
pub(super) fn write_json(path: &Path, value: &impl Serialize) -> Result<(), CliError> {
    let mut bytes = serde_json::to_vec_pretty(value).map_err(|error| at(path)(error.into()))?;
    bytes.push(b'\n');
    replace(path, &bytes)
}

fn at(path: &Path) -> impl Fn(io::Error) -> CliError {
    let path = path.to_owned();
    move |source| CliError::File {
        path: path.clone(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_newer_file_is_refused_and_left_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.json");
        fs::write(&path, r#"{"version":2,"more":true}"#).unwrap();
        let error = read_json::<serde_json::Value>(&path, 1).unwrap_err();
        assert!(matches!(
            error,
            CliError::NewerFile {
                found: 2,
                supported: 1,
                ..
            }
        ));
        fs::write(&path, "{").unwrap();
        let error = read_json::<serde_json::Value>(&path, 1).unwrap_err();
        assert!(matches!(error, CliError::Damaged { .. }));
        assert_eq!(fs::read(&path).unwrap(), b"{");
    }

    #[test]
    fn replacing_a_file_leaves_nothing_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        replace(&path, b"one").unwrap();
        replace(&path, b"two").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
