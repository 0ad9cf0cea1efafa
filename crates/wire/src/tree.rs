//! The heads tree: a 16-ary Merkle radix tree over the heads of a space.
//!
//! ```text
//! root ── nibble 0 of the author key ── nibble 1 ── … ── leaf (one author)
//! ```
//!
//! A node stands for all authors whose keys begin with its nibbles. Over no author its digest
//! is zero; over one it is that author's leaf; over more it is the hash of its children. So
//! the tree has one shape for one set of heads, whatever order they came in, an update costs
//! the depth, and two roots are equal exactly when the heads are.
//!
//! One structure serves the digest, its check while streaming ([`RootBuilder`]), and the
//! descent to the authors that differ.

use crate::{
    codec::{Encode, Put},
    heads::ClockEntry,
    ids::{AuthorId, HeadsDigest},
};

/// Children of an inner node: one for each value of a nibble.
pub const FANOUT: usize = 16;

/// Most levels below the root: the nibbles of an author key.
pub const MAX_DEPTH: usize = 2 * AuthorId::LEN;

/// Hash keys that keep leaves, inner nodes and other hashes apart.
const LEAF_KEY: &[u8; 32] = b"headwater heads tree leaf v1\0\0\0\0";
const INNER_KEY: &[u8; 32] = b"headwater heads tree inner v1\0\0\0";

/// Digest of a node over one author.
pub fn leaf(entry: &ClockEntry) -> HeadsDigest {
    let mut bytes = Vec::with_capacity(ENTRY_BYTES);
    entry.encode(&mut bytes);
    HeadsDigest::from_bytes(*blake3::keyed_hash(LEAF_KEY, &bytes).as_bytes())
}

/// Longest encoded clock entry: key, a seq of at most 2^53, id, flag, what is revoked above a cut.
const ENTRY_BYTES: usize = 32 + 8 + 32 + 1 + 32;

/// Digest of a node over several authors, from its children: nibble and digest, ascending.
/// Hashed is a bitmap of the nibbles (u16, big endian), then the digests.
pub fn inner(children: &[(u8, HeadsDigest)]) -> HeadsDigest {
    let mut bytes = Vec::with_capacity(2 + 32 * children.len());
    let bitmap = children
        .iter()
        .fold(0u16, |bits, (nibble, _)| bits | 1 << (nibble & 15));
    bytes.put(&bitmap.to_be_bytes());
    for (_, digest) in children {
        bytes.put(digest.as_bytes());
    }
    HeadsDigest::from_bytes(*blake3::keyed_hash(INNER_KEY, &bytes).as_bytes())
}

/// The nibble of an author key that picks the child at `depth` (0 at the root); high nibble
/// first. Past the end of the key it is zero.
pub fn nibble(author: &AuthorId, depth: usize) -> u8 {
    match author.as_bytes().get(depth / 2) {
        Some(byte) if depth.is_multiple_of(2) => byte >> 4,
        Some(byte) => byte & 15,
        None => 0,
    }
}

/// How many nibbles two keys share from the front.
pub fn shared_nibbles(one: &AuthorId, other: &AuthorId) -> usize {
    (0..MAX_DEPTH)
        .find(|depth| nibble(one, *depth) != nibble(other, *depth))
        .unwrap_or(MAX_DEPTH)
}

/// Computes a root from heads in ascending order of author, in memory that does not grow with
/// their number.
#[derive(Debug, Default)]
pub struct RootBuilder {
    /// Open inner nodes from the root down; the last author's path runs through all of them.
    open: Vec<Vec<(u8, HeadsDigest)>>,
    last: Option<ClockEntry>,
}

impl RootBuilder {
    /// A builder that has seen no head.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the next head. Authors must strictly ascend: the caller has checked it, and a head
    /// out of order gives a root no other peer will compute.
    pub fn push(&mut self, entry: &ClockEntry) {
        if let Some(last) = self.last.replace(*entry) {
            // The node that holds both is an inner one, and so are all above it.
            let branch = shared_nibbles(&last.author, &entry.author);
            while self.open.len() <= branch {
                self.open.push(Vec::new());
            }
            self.close_into(&last, branch);
        }
    }

    /// The root over all heads pushed.
    pub fn finish(mut self) -> HeadsDigest {
        let Some(last) = self.last.take() else {
            return HeadsDigest::EMPTY;
        };
        if self.open.is_empty() {
            return leaf(&last);
        }
        self.close_into(&last, 0);
        inner(&self.open[0])
    }

    /// Puts the last author's leaf into the lowest open node, then closes the nodes below
    /// `depth`, each into its parent.
    fn close_into(&mut self, last: &ClockEntry, depth: usize) {
        let mut digest = leaf(last);
        while let Some(mut node) = self.open.pop() {
            let at = self.open.len();
            node.push((nibble(&last.author, at), digest));
            if at == depth {
                self.open.push(node);
                return;
            }
            digest = inner(&node);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{heads::AuthorHead, ids::EventId};
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    /// The definition at the top of this file, word for word.
    fn by_definition(entries: &[ClockEntry], depth: usize) -> HeadsDigest {
        match entries {
            [] => HeadsDigest::EMPTY,
            [one] => leaf(one),
            many => {
                let mut groups = BTreeMap::<u8, Vec<ClockEntry>>::new();
                for entry in many {
                    groups
                        .entry(nibble(&entry.author, depth))
                        .or_default()
                        .push(*entry);
                }
                let children: Vec<_> = groups
                    .iter()
                    .map(|(nibble, group)| (*nibble, by_definition(group, depth + 1)))
                    .collect();
                inner(&children)
            }
        }
    }

    fn entries() -> impl Strategy<Value = Vec<ClockEntry>> {
        // Few distinct leading bytes, so that long shared prefixes are common.
        let key = (prop::collection::vec(0u8..3, 4), any::<[u8; 28]>(), 0u8..4);
        prop::collection::btree_map(key, 1u64..1000, 0..60).prop_map(|map| {
            let mut entries: Vec<_> = map
                .into_iter()
                .map(|((front, back, same), seq)| {
                    let mut author = [0; 32];
                    author[..4].copy_from_slice(&front);
                    if same > 0 {
                        author[4..].copy_from_slice(&back);
                    }
                    ClockEntry {
                        author: AuthorId::from_bytes(author),
                        head: AuthorHead {
                            seq,
                            id: EventId::from_bytes([seq as u8; 32]),
                        },
                        forked: seq % 7 == 0,
                        revoked: crate::RevokedDigest::NONE,
                    }
                })
                .collect();
            entries.sort_by_key(|entry| entry.author);
            entries.dedup_by_key(|entry| entry.author);
            entries
        })
    }

    proptest! {
        #[test]
        fn the_streamed_root_is_the_one_of_the_definition(entries in entries()) {
            let mut root = RootBuilder::new();
            for entry in &entries {
                root.push(entry);
            }
            prop_assert_eq!(root.finish(), by_definition(&entries, 0));
        }
    }

    #[test]
    fn the_flag_the_seq_and_the_id_are_all_in_the_digest() {
        let entry = ClockEntry {
            author: AuthorId::from_bytes([1; 32]),
            head: AuthorHead {
                seq: 1,
                id: EventId::from_bytes([2; 32]),
            },
            forked: false,
            revoked: crate::RevokedDigest::NONE,
        };
        let mut forked = entry;
        forked.forked = true;
        let mut longer = entry;
        longer.head.seq = 2;
        let mut other = entry;
        other.head.id = EventId::from_bytes([3; 32]);
        for changed in [forked, longer, other] {
            assert_ne!(leaf(&entry), leaf(&changed));
        }
    }
}
