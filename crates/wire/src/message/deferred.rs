//! Messages whose tags and bytes are fixed while no session sends them yet: the descent of the
//! heads tree, and payloads asked for by themselves.
//!
//! They are here so that their place in the format is taken. A session that receives one today
//! answers with [`crate::CloseCode::Unsupported`].

use bytes::Bytes;

use super::{Body, FrameWriter, SyncFilter};
use crate::{
    codec::{Decode, DecodeError, Encode, Put, Reader, check_ascending},
    heads::ClockEntry,
    ids::{AuthorId, HeadsDigest, SpaceId},
    limits::{MAX_PAYLOAD_BYTES, MAX_PAYLOAD_WANTS, MAX_RUN_EVENTS, MAX_SEQ, MAX_TREE_PREFIXES},
    tree::{FANOUT, MAX_DEPTH, nibble},
};

/// A place in the heads tree: the first `depth` nibbles of an author key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TreePrefix {
    key: AuthorId,
    depth: u8,
}

/// A prefix is deeper than an author key is long.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a prefix has at most {MAX_DEPTH} nibbles, found {found}")]
pub struct TreePrefixError {
    /// The depth asked for.
    pub found: usize,
}

impl TreePrefix {
    /// The root.
    pub const ROOT: Self = Self {
        key: AuthorId::from_bytes([0; AuthorId::LEN]),
        depth: 0,
    };

    /// The node at `depth` on an author's path.
    ///
    /// # Errors
    ///
    /// If `depth` is above 64.
    pub fn of(author: &AuthorId, depth: usize) -> Result<Self, TreePrefixError> {
        let Some(depth) = u8::try_from(depth)
            .ok()
            .filter(|d| usize::from(*d) <= MAX_DEPTH)
        else {
            return Err(TreePrefixError { found: depth });
        };
        let mut key = *author.as_bytes();
        let whole = usize::from(depth) / 2;
        for (at, byte) in key.iter_mut().enumerate().skip(whole) {
            *byte = if at == whole && depth % 2 == 1 {
                *byte & 0xf0
            } else {
                0
            };
        }
        Ok(Self {
            key: AuthorId::from_bytes(key),
            depth,
        })
    }

    /// How many nibbles it has.
    pub fn depth(&self) -> usize {
        self.depth.into()
    }

    /// Whether an author is below it.
    pub fn contains(&self, author: &AuthorId) -> bool {
        (0..self.depth()).all(|depth| nibble(author, depth) == nibble(&self.key, depth))
    }
}

impl Encode for TreePrefix {
    fn encode(&self, out: &mut Vec<u8>) {
        out.put_varint(self.depth.into());
        out.put(&self.key.as_bytes()[..self.depth().div_ceil(2)]);
    }
}

impl Decode for TreePrefix {
    const MIN_BYTES: usize = 1;

    fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        let depth = reader.bounded("tree depth", 0, MAX_DEPTH as u64)? as u8;
        let bytes = reader.bytes("tree prefix", usize::from(depth).div_ceil(2))?;
        let mut key = [0; AuthorId::LEN];
        for (to, from) in key.iter_mut().zip(&bytes) {
            *to = *from;
        }
        let key = AuthorId::from_bytes(key);
        if nibble(&key, depth.into()) != 0 {
            let field = "tree prefix";
            return Err(DecodeError::NotCanonical { field });
        }
        Ok(Self { key, depth })
    }
}

/// What is at a nibble below a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TreeChild {
    /// Code 0: several authors.
    Inner(HeadsDigest),
    /// Code 1: one author.
    Leaf(ClockEntry),
}

/// An inner node: its children that are not empty, by nibble.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TreeNode {
    /// Which node.
    pub prefix: TreePrefix,
    /// At most 16, by ascending nibble.
    pub children: Vec<(u8, TreeChild)>,
}

impl Encode for TreeNode {
    fn encode(&self, out: &mut Vec<u8>) {
        self.prefix.encode(out);
        out.put_varint(self.children.len() as u64);
        for (nibble, child) in &self.children {
            out.put_u8(*nibble);
            match child {
                TreeChild::Inner(digest) => {
                    out.put_u8(0);
                    digest.encode(out);
                }
                TreeChild::Leaf(entry) => {
                    out.put_u8(1);
                    entry.encode(out);
                }
            }
        }
    }
}

impl Decode for TreeNode {
    const MIN_BYTES: usize = 2;

    fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        let prefix = TreePrefix::decode(reader)?;
        let count = reader.count("tree children", FANOUT, 34)?;
        let mut children = Vec::with_capacity(count);
        for _ in 0..count {
            let nibble = reader.bounded("nibble", 0, FANOUT as u64 - 1)? as u8;
            let child = match reader.bounded("tree child", 0, 1)? {
                0 => TreeChild::Inner(HeadsDigest::decode(reader)?),
                _ => TreeChild::Leaf(ClockEntry::decode(reader)?),
            };
            children.push((nibble, child));
        }
        check_ascending("tree children", &children, |(nibble, _)| *nibble)?;
        Ok(Self { prefix, children })
    }
}

/// "Show me these nodes of your heads tree."
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TreeRequest {
    /// The request.
    pub request_id: u64,
    /// At most 256, ascending.
    pub prefixes: Vec<TreePrefix>,
}

/// Nodes of the heads tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TreeNodes {
    /// The request.
    pub request_id: u64,
    /// At most 256, by ascending prefix.
    pub nodes: Vec<TreeNode>,
}

/// A range of one author's events whose payloads are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PayloadWant {
    /// The author.
    pub author: AuthorId,
    /// First seq.
    pub first: u64,
    /// Last seq, not below the first.
    pub last: u64,
}

impl Encode for PayloadWant {
    fn encode(&self, out: &mut Vec<u8>) {
        self.author.encode(out);
        out.put_varint(self.first);
        out.put_varint(self.last);
    }
}

impl Decode for PayloadWant {
    const MIN_BYTES: usize = AuthorId::LEN + 2;

    fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        let author = AuthorId::decode(reader)?;
        let first = reader.bounded("first seq", 1, MAX_SEQ)?;
        let last = reader.bounded("last seq", first, MAX_SEQ)?;
        Ok(Self {
            author,
            first,
            last,
        })
    }
}

/// "Send me these payloads": the second part of a sync that left stubs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PayloadRequest {
    /// Chosen by the requester.
    pub request_id: u64,
    /// The space.
    pub space: SpaceId,
    /// At most 1,024.
    pub wants: Vec<PayloadWant>,
    /// Which of them.
    pub filter: SyncFilter,
}

/// One payload, or that it is not held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PayloadAnswer {
    /// The author.
    pub author: AuthorId,
    /// The event.
    pub seq: u64,
    /// Its payload; `None`: not held.
    pub payload: Option<Bytes>,
}

impl Encode for PayloadAnswer {
    fn encode(&self, out: &mut Vec<u8>) {
        self.author.encode(out);
        out.put_varint(self.seq);
        out.put_bool(self.payload.is_some());
        if let Some(payload) = &self.payload {
            out.put_byte_string(payload);
        }
    }
}

impl Decode for PayloadAnswer {
    const MIN_BYTES: usize = AuthorId::LEN + 2;

    fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        Ok(Self {
            author: AuthorId::decode(reader)?,
            seq: reader.bounded("seq", 1, MAX_SEQ)?,
            payload: reader.option("payload", |reader| {
                reader.byte_string("payload", 0, MAX_PAYLOAD_BYTES)
            })?,
        })
    }
}

/// Payloads, in the order asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PayloadBatch {
    /// The request.
    pub request_id: u64,
    /// Whether more follow.
    pub more: bool,
    /// At most as many as were asked for.
    pub payloads: Vec<PayloadAnswer>,
}

impl Body for TreeRequest {
    fn write(&self, frame: &mut FrameWriter) {
        frame.owned.put_list(&self.prefixes);
    }

    fn read(request_id: u64, reader: &mut Reader) -> Result<Self, DecodeError> {
        let prefixes = reader.list::<TreePrefix>("tree prefixes", MAX_TREE_PREFIXES)?;
        check_ascending("tree prefixes", &prefixes, |prefix| *prefix)?;
        Ok(Self {
            request_id,
            prefixes,
        })
    }
}

impl Body for TreeNodes {
    fn write(&self, frame: &mut FrameWriter) {
        frame.owned.put_list(&self.nodes);
    }

    fn read(request_id: u64, reader: &mut Reader) -> Result<Self, DecodeError> {
        let nodes = reader.list::<TreeNode>("tree nodes", MAX_TREE_PREFIXES)?;
        check_ascending("tree nodes", &nodes, |node| node.prefix)?;
        Ok(Self { request_id, nodes })
    }
}

impl Body for PayloadRequest {
    fn write(&self, frame: &mut FrameWriter) {
        self.space.encode(&mut frame.owned);
        frame.owned.put_list(&self.wants);
        self.filter.encode(&mut frame.owned);
    }

    fn read(request_id: u64, reader: &mut Reader) -> Result<Self, DecodeError> {
        Ok(Self {
            request_id,
            space: SpaceId::decode(reader)?,
            wants: reader.list("payload wants", MAX_PAYLOAD_WANTS)?,
            filter: SyncFilter::decode(reader)?,
        })
    }
}

impl Body for PayloadBatch {
    fn write(&self, frame: &mut FrameWriter) {
        frame.owned.put_bool(self.more);
        frame.owned.put_list(&self.payloads);
    }

    fn read(request_id: u64, reader: &mut Reader) -> Result<Self, DecodeError> {
        Ok(Self {
            request_id,
            more: reader.bool("more")?,
            payloads: reader.list("payloads", MAX_RUN_EVENTS)?,
        })
    }
}
