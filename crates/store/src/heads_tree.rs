//! Keeps the heads tree of a space while its heads change.
//!
//! ```text
//! changed leaves, ascending ──▶ update ──▶ new root
//!                                 │ reads and writes the inner nodes on their paths only
//!                                 ▼
//!                               nodes table
//! ```
//!
//! Inner nodes are rows; leaves are not stored, because a leaf is the hash of a head. A node
//! keeps the digests of its children and says which of them are inner nodes. A leaf goes when its
//! author has no entry any more, and the nodes that only parted it from another go with it.
//!
//! Invariant: an inner node exists for a prefix exactly if two authors or more share it. Cost is
//! the changed authors times the depth, and a node that several of them share is hashed once.

use headwater_wire::{
    AuthorId, HeadsDigest,
    tree::{self, MAX_DEPTH},
};

use crate::{
    Damage, StoreError,
    records::SpaceKey,
    tables::{Tables, TablesMut},
};

/// The first nibbles of an author's key; the place of a node in the tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Prefix {
    depth: u8,
    /// The nibbles, the rest zero.
    nibbles: [u8; 32],
}

impl Prefix {
    pub(crate) const ROOT: Prefix = Prefix {
        depth: 0,
        nibbles: [0; 32],
    };

    pub(crate) fn depth(&self) -> usize {
        usize::from(self.depth)
    }

    /// The place of a child, or `None` below the last nibble of a key.
    fn child(&self, nibble: u8) -> Option<Prefix> {
        let mut child = *self;
        let byte = child.nibbles.get_mut(self.depth() / 2)?;
        *byte |= if self.depth().is_multiple_of(2) {
            nibble << 4
        } else {
            nibble & 15
        };
        child.depth += 1;
        Some(child)
    }

    /// The lowest key with this prefix.
    fn lowest(&self) -> AuthorId {
        AuthorId::from_bytes(self.nibbles)
    }

    fn covers(&self, author: &AuthorId) -> bool {
        tree::shared_nibbles(&self.lowest(), author) >= self.depth()
    }

    /// The bytes of the prefix as part of a row's key.
    pub(crate) fn to_bytes(self) -> [u8; 33] {
        let mut bytes = [0; 33];
        bytes[0] = self.depth;
        bytes[1..].copy_from_slice(&self.nibbles);
        bytes
    }
}

/// An inner node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Node {
    /// Ascending by nibble.
    pub(crate) children: Vec<Child>,
}

/// A child of an inner node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Child {
    pub(crate) nibble: u8,
    pub(crate) digest: HeadsDigest,
    /// Whether it is an inner node; otherwise it is one author's leaf.
    pub(crate) inner: bool,
}

impl Node {
    pub(crate) fn digest(&self) -> HeadsDigest {
        let children: Vec<_> = self
            .children
            .iter()
            .map(|child| (child.nibble, child.digest))
            .collect();
        tree::inner(&children)
    }

    fn subtree(&self, nibble: u8) -> Subtree {
        match self.children.iter().find(|child| child.nibble == nibble) {
            None => Subtree::Empty,
            Some(child) if child.inner => Subtree::Inner(child.digest),
            Some(child) => Subtree::Leaf(child.digest),
        }
    }

    fn set(&mut self, nibble: u8, subtree: Subtree) {
        let (digest, inner) = match subtree {
            Subtree::Empty => {
                self.children.retain(|child| child.nibble != nibble);
                return;
            }
            Subtree::Leaf(digest) => (digest, false),
            Subtree::Inner(digest) => (digest, true),
        };
        let child = Child {
            nibble,
            digest,
            inner,
        };
        match self
            .children
            .binary_search_by_key(&nibble, |child| child.nibble)
        {
            Ok(at) => self.children[at] = child,
            Err(at) => self.children.insert(at, child),
        }
    }

    /// What stands where no inner node has to: nothing, or the one leaf.
    fn collapsed(&self) -> Option<Subtree> {
        match self.children.as_slice() {
            [] => Some(Subtree::Empty),
            [only] if !only.inner => Some(Subtree::Leaf(only.digest)),
            _ => None,
        }
    }
}

/// What stands at a place of the tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Subtree {
    /// No author.
    Empty,
    /// One author.
    Leaf(HeadsDigest),
    /// Several authors.
    Inner(HeadsDigest),
}

impl Subtree {
    /// The root over so many authors.
    pub(crate) fn root(authors: u64, digest: HeadsDigest) -> Subtree {
        match authors {
            0 => Subtree::Empty,
            1 => Subtree::Leaf(digest),
            _ => Subtree::Inner(digest),
        }
    }

    fn digest(self) -> HeadsDigest {
        match self {
            Subtree::Empty => HeadsDigest::EMPTY,
            Subtree::Leaf(digest) | Subtree::Inner(digest) => digest,
        }
    }
}

/// An entry that changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LeafChange {
    pub(crate) author: AuthorId,
    /// The leaf now; `None` if the author has no entry any more.
    pub(crate) digest: Option<HeadsDigest>,
    /// Whether the author had no entry before.
    pub(crate) is_new: bool,
}

impl LeafChange {
    /// What stands at a place where this is the only author.
    fn subtree(&self) -> Subtree {
        self.digest.map_or(Subtree::Empty, Subtree::Leaf)
    }
}

/// Puts changed leaves, ascending by author, into the tree and returns its new root.
///
/// The heads table must still hold the heads as they were: a leaf that has to move down a level
/// is found there.
pub(crate) fn update(
    tables: &mut impl TablesMut,
    space: &SpaceKey,
    root: Subtree,
    changes: &[LeafChange],
) -> Result<HeadsDigest, StoreError> {
    grow(tables, space, Prefix::ROOT, root, changes).map(Subtree::digest)
}

fn grow(
    tables: &mut impl TablesMut,
    space: &SpaceKey,
    place: Prefix,
    before: Subtree,
    changes: &[LeafChange],
) -> Result<Subtree, StoreError> {
    let mut node = match (before, changes) {
        (before, []) => return Ok(before),
        (Subtree::Empty, [only]) => return Ok(only.subtree()),
        (Subtree::Leaf(_), [only]) if !only.is_new => return Ok(only.subtree()),
        (Subtree::Empty, _) => Node::default(),
        (Subtree::Leaf(digest), _) => {
            let mut changes = changes.to_vec();
            if changes.iter().all(|change| change.is_new) {
                let author = only_author(tables, space, &place)?;
                let at = changes.partition_point(|change| change.author < author);
                changes.insert(
                    at,
                    LeafChange {
                        author,
                        digest: Some(digest),
                        is_new: true,
                    },
                );
            }
            changes.retain(|change| change.digest.is_some());
            return grow(tables, space, place, Subtree::Empty, &changes);
        }
        (Subtree::Inner(digest), _) => read(tables, space, &place, &digest)?,
    };
    for group in changes.chunk_by(|a, b| {
        tree::nibble(&a.author, place.depth()) == tree::nibble(&b.author, place.depth())
    }) {
        let Some(first) = group.first() else { continue };
        let nibble = tree::nibble(&first.author, place.depth());
        let child = place
            .child(nibble)
            .ok_or(Damage::Tree { space: space.id })?;
        let grown = grow(tables, space, child, node.subtree(nibble), group)?;
        node.set(nibble, grown);
    }
    if let Some(subtree) = node.collapsed() {
        tables.remove_node(space, &place)?;
        return Ok(subtree);
    }
    tables.put_node(space, &place, &node)?;
    Ok(Subtree::Inner(node.digest()))
}

/// The one author whose leaf stands at a place.
fn only_author(
    tables: &impl Tables,
    space: &SpaceKey,
    place: &Prefix,
) -> Result<AuthorId, StoreError> {
    tables
        .author_from(space, &place.lowest())?
        .filter(|author| place.covers(author))
        .ok_or(StoreError::Damaged(Damage::Tree { space: space.id }))
}

/// Reads an inner node and checks that it is the one its parent speaks of.
fn read(
    tables: &impl Tables,
    space: &SpaceKey,
    place: &Prefix,
    digest: &HeadsDigest,
) -> Result<Node, StoreError> {
    tables
        .node(space, place)?
        .filter(|node| node.digest() == *digest)
        .ok_or(StoreError::Damaged(Damage::Tree { space: space.id }))
}

/// Checks that every inner node below the root is there and has the digest its parent states.
pub(crate) fn check(
    tables: &impl Tables,
    space: &SpaceKey,
    root: Subtree,
) -> Result<(), StoreError> {
    let mut open = vec![(Prefix::ROOT, root)];
    while let Some((place, subtree)) = open.pop() {
        let Subtree::Inner(digest) = subtree else {
            continue;
        };
        if place.depth() >= MAX_DEPTH {
            return Err(Damage::Tree { space: space.id }.into());
        }
        let node = read(tables, space, &place, &digest)?;
        for child in &node.children {
            if let Some(below) = place.child(child.nibble) {
                open.push((below, node.subtree(child.nibble)));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use headwater_wire::{AuthorHead, ClockEntry, EventId, SpaceId, tree::RootBuilder};
    use proptest::prelude::*;

    use super::*;
    use crate::{
        memory::MemoryTables,
        records::{HeadRow, Shelf},
    };

    /// Keys with few distinct front bytes and sometimes one tail, so that long shared prefixes,
    /// up to all nibbles but the last, are common. Signed logs hardly ever have them.
    fn authors() -> impl Strategy<Value = AuthorId> {
        (prop::collection::vec(0u8..3, 3), any::<u8>(), 0u8..3).prop_map(|(front, last, tail)| {
            let mut key = [tail / 2; 32];
            key[..3].copy_from_slice(&front);
            key[31] = last % 40;
            AuthorId::from_bytes(key)
        })
    }

    fn entry(author: AuthorId, seq: u64) -> ClockEntry {
        ClockEntry {
            author,
            head: AuthorHead {
                seq,
                id: EventId::from_bytes([seq as u8; 32]),
            },
            forked: false,
            revoked: headwater_wire::RevokedDigest::NONE,
        }
    }

    proptest! {
        #[test]
        fn the_kept_tree_is_the_one_over_the_heads_after_any_commits(
            commits in prop::collection::vec(
                prop::collection::btree_map(authors(), prop::bool::weighted(0.3), 1..20),
                1..20,
            )
        ) {
            let space = SpaceKey { id: SpaceId::from_bytes([1; 32]), no: 3 };
            let mut tables = MemoryTables::default();
            let mut heads = BTreeMap::new();
            let mut digest = HeadsDigest::EMPTY;
            for (seq, commit) in (1..).zip(commits) {
                let changes: Vec<_> = commit
                    .iter()
                    .filter(|(author, goes)| !**goes || heads.contains_key(*author))
                    .map(|(author, goes)| LeafChange {
                        author: *author,
                        digest: (!goes).then(|| tree::leaf(&entry(*author, seq))),
                        is_new: !heads.contains_key(author),
                    })
                    .collect();
                let before = Subtree::root(heads.len() as u64, digest);
                digest = update(&mut tables, &space, before, &changes).unwrap();
                for change in changes {
                    let author = change.author;
                    if change.digest.is_none() {
                        heads.remove(&author);
                        tables.remove_head(Shelf::Shown, &space, &author).unwrap();
                        continue;
                    }
                    let entry = entry(author, seq);
                    heads.insert(author, entry);
                    let row = HeadRow {
                        head: entry.head,
                        ..HeadRow::new(0)
                    };
                    tables.put_head(Shelf::Shown, &space, &author, &row).unwrap();
                }
                let mut root = RootBuilder::new();
                heads.values().for_each(|entry| root.push(entry));
                prop_assert_eq!(digest, root.finish());
                let root = Subtree::root(heads.len() as u64, digest);
                check(&tables, &space, root).unwrap();
                prop_assert_eq!(tables.node_count(), inner_nodes(&tables, &space, root));
            }
        }
    }

    /// How many inner nodes can be reached from the root.
    fn inner_nodes(tables: &MemoryTables, space: &SpaceKey, root: Subtree) -> usize {
        let mut open = vec![(Prefix::ROOT, root)];
        let mut count = 0;
        while let Some((place, subtree)) = open.pop() {
            if let Subtree::Inner(digest) = subtree {
                count += 1;
                let node = read(tables, space, &place, &digest).unwrap();
                for child in &node.children {
                    let below = place.child(child.nibble).unwrap();
                    open.push((below, node.subtree(child.nibble)));
                }
            }
        }
        count
    }
}
