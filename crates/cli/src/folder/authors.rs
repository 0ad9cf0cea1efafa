//! Author keys: a label on this machine, a key everywhere else.

use std::{collections::BTreeMap, fmt, path::Path};

use data_encoding::{HEXLOWER, HEXLOWER_PERMISSIVE};
use headwater::{AuthorId, AuthorSecret};
use serde::{Deserialize, Serialize};

use super::file;
use crate::error::CliError;

pub(super) const FILE: &str = "authors.json";
const VERSION: u32 = 1;

/// The keys of this data folder. One label has one key: a device of its own makes its own.
#[derive(Default)]
pub(crate) struct AuthorKeys {
    secrets: BTreeMap<String, AuthorSecret>,
    changed: bool,
}

#[derive(Serialize, Deserialize)]
struct AuthorsFile {
    version: u32,
    /// Label → secret key in hex.
    secret_keys: BTreeMap<String, String>,
}

impl AuthorKeys {
    pub(super) fn read(folder: &Path) -> Result<Self, CliError> {
        let path = folder.join(FILE);
        let Some(file) = file::read_json::<AuthorsFile>(&path, VERSION)? else {
            return Ok(Self::default());
        };
        let mut secrets = BTreeMap::new();
        for (label, hex) in file.secret_keys {
            let bytes = HEXLOWER_PERMISSIVE
                .decode(hex.as_bytes())
                .ok()
                .and_then(|bytes| <[u8; 32]>::try_from(bytes).ok())
                .ok_or_else(|| CliError::Damaged {
                    path: path.clone(),
                    reason: format!("the key of {label:?} is not 32 bytes in hex"),
                })?;
            secrets.insert(label, AuthorSecret::from_bytes(bytes));
        }
        Ok(Self {
            secrets,
            changed: false,
        })
    }

    pub(super) fn get_or_make(&mut self, label: &str) -> Result<AuthorSecret, CliError> {
        if let Some(secret) = self.secrets.get(label) {
            return Ok(secret.clone());
        }
        let secret = AuthorSecret::from_bytes(super::random_bytes()?);
        self.secrets.insert(label.to_owned(), secret.clone());
        self.changed = true;
        Ok(secret)
    }

    pub(super) fn write_if_changed(&self, folder: &Path) -> Result<(), CliError> {
        if !self.changed {
            return Ok(());
        }
        let secret_keys = self
            .secrets
            .iter()
            .map(|(label, secret)| (label.clone(), HEXLOWER.encode(&secret.to_bytes())))
            .collect();
        file::write_json(
            &folder.join(FILE),
            &AuthorsFile {
                version: VERSION,
                secret_keys,
            },
        )
    }

    /// Every key.
    pub(crate) fn secrets(&self) -> impl Iterator<Item = &AuthorSecret> {
        self.secrets.values()
    }

    /// Every label and the author it stands for, by label.
    pub(crate) fn ids(&self) -> impl Iterator<Item = (&str, AuthorId)> {
        self.secrets
            .iter()
            .map(|(label, secret)| (label.as_str(), secret.id()))
    }
}

impl fmt::Debug for AuthorKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.ids()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_keeps_its_key_and_any_text_is_a_label() {
        let dir = tempfile::tempdir().unwrap();
        let labels = ["a@b.example", "../../etc", "名前", "line\nfeed"];
        let mut keys = AuthorKeys::default();
        for label in labels {
            keys.get_or_make(label).unwrap();
        }
        keys.write_if_changed(dir.path()).unwrap();
        let mut again = AuthorKeys::read(dir.path()).unwrap();
        assert!(keys.ids().eq(again.ids()));
        for label in labels {
            again.get_or_make(label).unwrap();
        }
        assert!(!again.changed);
    }

    #[test]
    fn a_printed_key_ring_shows_no_secret() {
        let mut keys = AuthorKeys::default();
        let secret = keys.get_or_make("me").unwrap();
        let hex = HEXLOWER.encode(&secret.to_bytes());
        assert!(!format!("{keys:?}").contains(&hex));
    }
}
