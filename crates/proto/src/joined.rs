//! The joined digest: the heads tree's root over what both sides hold together, in constant
//! memory.
//!
//! ```text
//! owner's entry ─────────┐ (known first, inserted at its place)
//! other entries, ascending ─▶ RootBuilder ─▶ HeadsDigest
//! ```

use headwater_wire::{
    AuthorHead, AuthorId, ClockEntry, HeadsDigest, RevokedDigest, tree::RootBuilder,
};

/// Takes the owner's entry first and all others ascending, as a sync meets them.
#[derive(Debug, Default)]
pub(crate) struct JoinedDigest {
    owner: Option<ClockEntry>,
    root: RootBuilder,
}

impl JoinedDigest {
    /// Holds the owner's entry until its place in the order comes.
    pub(crate) fn set_owner(&mut self, entry: ClockEntry) {
        self.owner = Some(entry);
    }

    /// Adds the next author's entry.
    pub(crate) fn push(&mut self, entry: &ClockEntry) {
        if let Some(owner) = self.owner.take_if(|owner| owner.author < entry.author) {
            self.root.push(&owner);
        }
        self.root.push(entry);
    }

    /// Adds an entry, the owner's or the next author's.
    pub(crate) fn add(&mut self, entry: ClockEntry, is_owner: bool) {
        if is_owner {
            self.set_owner(entry);
        } else {
            self.push(&entry);
        }
    }

    /// The root over all entries.
    pub(crate) fn finish(mut self) -> HeadsDigest {
        if let Some(owner) = self.owner.take() {
            self.root.push(&owner);
        }
        self.root.finish()
    }
}

/// An author's entry in the joined digest: what was served, else what was stated. Runs are only
/// ever served above the stated head, so what was served is the higher one.
pub(crate) fn joined_entry(
    author: AuthorId,
    stated: Option<&ClockEntry>,
    served: Option<AuthorHead>,
) -> Option<ClockEntry> {
    match (stated, served) {
        (_, Some(head)) => Some(ClockEntry {
            author,
            head,
            forked: false,
            revoked: RevokedDigest::NONE,
        }),
        (Some(entry), None) => Some(*entry),
        (None, None) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use headwater_wire::{EventId, HeadsSummary};

    fn entry(author: u8) -> ClockEntry {
        ClockEntry {
            author: AuthorId::from_bytes([author; 32]),
            head: AuthorHead {
                seq: u64::from(author) + 1,
                id: EventId::from_bytes([author; 32]),
            },
            forked: false,
            revoked: RevokedDigest::NONE,
        }
    }

    #[test]
    fn the_owner_finds_its_place_wherever_it_sorts() {
        let all: Vec<_> = [3, 5, 9].map(entry).to_vec();
        let expected = HeadsSummary::from_entries(all.clone()).unwrap().digest();
        for owner in 0..all.len() {
            let mut joined = JoinedDigest::default();
            joined.set_owner(all[owner]);
            for (index, other) in all.iter().enumerate() {
                if index != owner {
                    joined.push(other);
                }
            }
            assert_eq!(joined.finish(), expected);
        }
    }

    #[test]
    fn nothing_has_the_empty_digest() {
        assert_eq!(JoinedDigest::default().finish(), HeadsDigest::EMPTY);
    }
}
