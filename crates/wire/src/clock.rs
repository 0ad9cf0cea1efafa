//! A whole clock: every author's head, and the digest over them.

use crate::{
    codec::{DecodeError, check_ascending},
    heads::ClockEntry,
    ids::{AuthorId, HeadsDigest},
    tree::RootBuilder,
};

/// A vector clock with hashes: every author's head, sorted by author, each author once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HeadsSummary(Vec<ClockEntry>);

impl HeadsSummary {
    /// A clock from entries in ascending order of author.
    ///
    /// # Errors
    ///
    /// [`DecodeError::NotAscending`] names the first entry out of order.
    pub fn from_entries(entries: Vec<ClockEntry>) -> Result<Self, DecodeError> {
        check_ascending("heads", &entries, |entry| entry.author)?;
        Ok(Self(entries))
    }

    /// The entries, ascending.
    pub fn entries(&self) -> &[ClockEntry] {
        &self.0
    }

    /// An author's entry.
    pub fn get(&self, author: &AuthorId) -> Option<&ClockEntry> {
        let at = self.0.binary_search_by_key(author, |entry| entry.author);
        at.ok().and_then(|at| self.0.get(at))
    }

    /// The root of the heads tree over the entries.
    pub fn digest(&self) -> HeadsDigest {
        let mut root = RootBuilder::new();
        for entry in &self.0 {
            root.push(entry);
        }
        root.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{heads::AuthorHead, ids::EventId};

    #[test]
    fn unsorted_and_duplicate_authors_are_refused_by_position() {
        let entry = |author: u8| ClockEntry {
            author: AuthorId::from_bytes([author; 32]),
            head: AuthorHead {
                seq: 1,
                id: EventId::from_bytes([1; 32]),
            },
            forked: false,
            revoked: crate::RevokedDigest::NONE,
        };
        let refused = |authors: &[u8]| {
            HeadsSummary::from_entries(authors.iter().map(|a| entry(*a)).collect()).unwrap_err()
        };
        let at = |index| DecodeError::NotAscending {
            field: "heads",
            index,
        };
        assert_eq!(refused(&[1, 3, 2]), at(2));
        assert_eq!(refused(&[1, 1]), at(1));
    }
}
