//! How rows are spelled on disk.
//!
//! Numbers are big endian, so that keys sort as what they mean. Every value but a run's bytes is
//! sealed: it ends in eight bytes of BLAKE3 over table, key and value, so a row that was altered,
//! or stands under another key, is seen when it is read. A run's bytes are hashed in its side
//! record instead.
//!
//! Invariant: these layouts belong to [`FORMAT`](super::file::FORMAT). Whoever changes one
//! raises it.

use bytes::Bytes;
use headwater_wire::{AuthorHead, AuthorId, EventId, ForkProof, HeadsDigest, RevokedDigest, Run};

use super::pieces::Size;
use crate::{
    heads_tree::{Child, Node, Prefix},
    log_store::Bounds,
    quotas::Stored,
    records::{HeadRow, RUN_HASH_BYTES, Shelf, Side, SpaceRow},
};

const SEAL_BYTES: usize = 8;

/// Names a table in a seal.
#[derive(Debug, Clone, Copy)]
#[repr(u8)]
pub(super) enum Sealed {
    Space = 1,
    Head = 2,
    Side = 3,
    Node = 4,
    Hidden = 5,
    Proof = 6,
    Evidence = 7,
}

impl Sealed {
    pub(super) fn of(shelf: Shelf) -> Sealed {
        match shelf {
            Shelf::Shown => Sealed::Head,
            Shelf::Hidden => Sealed::Hidden,
        }
    }
}

fn seal_of(table: Sealed, key: &[u8], value: &[u8]) -> [u8; SEAL_BYTES] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&[table as u8]);
    hasher.update(key);
    hasher.update(value);
    let mut seal = [0; SEAL_BYTES];
    for (to, from) in seal.iter_mut().zip(hasher.finalize().as_bytes()) {
        *to = *from;
    }
    seal
}

/// Appends the seal to a value.
pub(super) fn seal(table: Sealed, key: &[u8], mut value: Vec<u8>) -> Vec<u8> {
    let seal = seal_of(table, key, &value);
    value.extend_from_slice(&seal);
    value
}

/// Returns the value under a seal, or `None` if it is not what was sealed.
pub(super) fn unseal<'a>(table: Sealed, key: &[u8], sealed: &'a [u8]) -> Option<&'a [u8]> {
    let (value, seal) = sealed.split_last_chunk::<SEAL_BYTES>()?;
    (*seal == seal_of(table, key, value)).then_some(value)
}

pub(super) fn run_hash(bytes: &[u8]) -> [u8; RUN_HASH_BYTES] {
    let mut hash = [0; RUN_HASH_BYTES];
    for (to, from) in hash.iter_mut().zip(blake3::hash(bytes).as_bytes()) {
        *to = *from;
    }
    hash
}

pub(super) fn head_key(space: u32, author: &AuthorId) -> [u8; 36] {
    let mut key = [0; 36];
    key[..4].copy_from_slice(&space.to_be_bytes());
    key[4..].copy_from_slice(author.as_bytes());
    key
}

pub(super) fn evidence_key(space: u32, first: &EventId) -> [u8; 36] {
    head_key(space, &AuthorId::from_bytes(*first.as_bytes()))
}

/// The first event of an evidence key.
pub(super) fn evidence_key_id(key: &[u8; 36]) -> EventId {
    EventId::from_bytes(*head_key_author(key).as_bytes())
}

/// The author of a head's key.
pub(super) fn head_key_author(key: &[u8; 36]) -> AuthorId {
    let mut author = [0; 32];
    author.copy_from_slice(&key[4..]);
    AuthorId::from_bytes(author)
}

pub(super) fn run_key(log: u32, last_seq: u64) -> [u8; 12] {
    let mut key = [0; 12];
    key[..4].copy_from_slice(&log.to_be_bytes());
    key[4..].copy_from_slice(&last_seq.to_be_bytes());
    key
}

/// The last seq of a run's key.
pub(super) fn run_key_seq(key: &[u8; 12]) -> u64 {
    let mut seq = [0; 8];
    seq.copy_from_slice(&key[4..]);
    u64::from_be_bytes(seq)
}

pub(super) fn piece_key(size: Size, log: u32, last_seq: u64) -> [u8; 13] {
    let mut key = [0; 13];
    key[0] = size.to_byte();
    key[1..].copy_from_slice(&run_key(log, last_seq));
    key
}

pub(super) fn node_key(space: u32, prefix: &Prefix) -> [u8; 37] {
    let mut key = [0; 37];
    key[..4].copy_from_slice(&space.to_be_bytes());
    key[4..].copy_from_slice(&prefix.to_bytes());
    key
}

pub(super) fn space_value(row: &SpaceRow) -> Vec<u8> {
    let mut out = Vec::with_capacity(4 + 32 + 8 + 32 + 6 * 8 + 1 + SEAL_BYTES);
    out.extend_from_slice(&row.no.to_be_bytes());
    out.extend_from_slice(row.owner.as_bytes());
    out.extend_from_slice(&row.generation.to_be_bytes());
    out.extend_from_slice(row.digest.as_bytes());
    out.extend_from_slice(&row.authors.to_be_bytes());
    out.extend_from_slice(&row.events.to_be_bytes());
    out.extend_from_slice(&row.payload_bytes.to_be_bytes());
    out.extend_from_slice(&row.hidden.to_be_bytes());
    out.extend_from_slice(&row.stored.bytes.to_be_bytes());
    out.extend_from_slice(&row.stored.events.to_be_bytes());
    out.push(match row.bounds {
        Bounds::None => 0,
        Bounds::Due => 1,
        Bounds::Kept => 2,
    });
    out
}

pub(super) fn read_space(value: &[u8]) -> Option<SpaceRow> {
    let mut fields = Fields(value);
    let row = SpaceRow {
        no: fields.u32()?,
        owner: AuthorId::from_bytes(fields.array()?),
        generation: fields.u64()?,
        digest: HeadsDigest::from_bytes(fields.array()?),
        authors: fields.u64()?,
        events: fields.u64()?,
        payload_bytes: fields.u64()?,
        hidden: fields.u64()?,
        stored: Stored {
            bytes: fields.u64()?,
            events: fields.u64()?,
        },
        bounds: match fields.u8()? {
            0 => Bounds::None,
            1 => Bounds::Due,
            2 => Bounds::Kept,
            _ => return None,
        },
    };
    fields.end(row)
}

/// What a log's row holds beside its head.
mod extra {
    /// The end of what is stored is not the visible head.
    pub(super) const END: u8 = 1;
    /// A fork is proven.
    pub(super) const FORK: u8 = 2;
    /// There is a last seq that is accepted.
    pub(super) const THROUGH: u8 = 4;
    /// Something is revoked above the cut.
    pub(super) const REVOKED: u8 = 8;
}

/// A log's row. That of a log that is shown whole and bounded by nothing holds its head alone.
pub(super) fn head_value(row: &HeadRow) -> Vec<u8> {
    let mut out = Vec::with_capacity(4 + 8 + 48 + 1 + 48 + 16 + SEAL_BYTES);
    out.extend_from_slice(&row.log.to_be_bytes());
    out.extend_from_slice(&row.run_bytes.to_be_bytes());
    put_place(&mut out, &row.head, row.payload_bytes);
    let flags = out.len();
    out.push(0);
    let mut held = 0;
    if (row.end, row.end_payload_bytes) != (row.head, row.payload_bytes) {
        held |= extra::END;
        put_place(&mut out, &row.end, row.end_payload_bytes);
    }
    if let Some(seq) = row.fork {
        held |= extra::FORK;
        out.extend_from_slice(&seq.to_be_bytes());
    }
    if let Some(seq) = row.through {
        held |= extra::THROUGH;
        out.extend_from_slice(&seq.to_be_bytes());
    }
    if row.revoked != RevokedDigest::NONE {
        held |= extra::REVOKED;
        out.extend_from_slice(row.revoked.as_bytes());
    }
    if let Some(flags) = out.get_mut(flags) {
        *flags = held;
    }
    out
}

pub(super) fn read_head(value: &[u8]) -> Option<HeadRow> {
    let mut fields = Fields(value);
    let log = fields.u32()?;
    let run_bytes = fields.u64()?;
    let (head, payload_bytes) = read_place(&mut fields)?;
    let held = fields.u8()?;
    let (end, end_payload_bytes) = match held & extra::END {
        0 => (head, payload_bytes),
        _ => read_place(&mut fields)?,
    };
    let seq_if = |fields: &mut Fields<'_>, flag| match held & flag {
        0 => Some(None),
        _ => fields.u64().map(Some),
    };
    let row = HeadRow {
        log,
        head,
        payload_bytes,
        end,
        end_payload_bytes,
        run_bytes,
        fork: seq_if(&mut fields, extra::FORK)?,
        through: seq_if(&mut fields, extra::THROUGH)?,
        revoked: match held & extra::REVOKED {
            0 => RevokedDigest::NONE,
            _ => RevokedDigest::from_bytes(fields.array()?),
        },
    };
    fields.end(row)
}

/// An event of a log, and the payload bytes up to it.
fn put_place(out: &mut Vec<u8>, head: &AuthorHead, payload_bytes: u64) {
    out.extend_from_slice(&head.seq.to_be_bytes());
    out.extend_from_slice(head.id.as_bytes());
    out.extend_from_slice(&payload_bytes.to_be_bytes());
}

fn read_place(fields: &mut Fields<'_>) -> Option<(AuthorHead, u64)> {
    let head = AuthorHead {
        seq: fields.u64()?,
        id: EventId::from_bytes(fields.array()?),
    };
    Some((head, fields.u64()?))
}

/// The halves of a fork proof: the length of the first, then both.
pub(super) fn proof_value([first, second]: [&Bytes; 2]) -> Vec<u8> {
    let len = u32::try_from(first.len()).unwrap_or(u32::MAX);
    let mut out = Vec::with_capacity(4 + first.len() + second.len() + SEAL_BYTES);
    out.extend_from_slice(&len.to_be_bytes());
    out.extend_from_slice(first);
    out.extend_from_slice(second);
    out
}

pub(super) fn read_proof(value: &[u8]) -> Option<ForkProof> {
    let mut fields = Fields(value);
    let len = usize::try_from(fields.u32()?).ok()?;
    let (first, second) = fields.0.split_at_checked(len)?;
    let first = Run::decode(Bytes::copy_from_slice(first)).ok()?;
    let second = Run::decode(Bytes::copy_from_slice(second)).ok()?;
    Some(ForkProof::new(first, second))
}

/// A side record; its last seq is in the key.
pub(super) fn side_value(side: &Side, hash: &[u8; RUN_HASH_BYTES]) -> Vec<u8> {
    let mut out = Vec::with_capacity(85 + 32 * side.ids.len() + SEAL_BYTES);
    out.extend_from_slice(&side.first_seq.to_be_bytes());
    out.extend_from_slice(&side.payload_bytes.to_be_bytes());
    out.extend_from_slice(&side.payload_before.to_be_bytes());
    out.extend_from_slice(&side.stubs.to_be_bytes());
    out.extend_from_slice(&side.len.to_be_bytes());
    out.push(side.tier);
    out.extend_from_slice(hash);
    out.extend_from_slice(side.last_id.as_bytes());
    for id in &side.ids {
        out.extend_from_slice(id.as_bytes());
    }
    out
}

pub(super) fn read_side(last_seq: u64, value: &[u8]) -> Option<Side> {
    let mut fields = Fields(value);
    let mut side = Side {
        first_seq: fields.u64()?,
        last_seq,
        payload_bytes: fields.u64()?,
        payload_before: fields.u64()?,
        stubs: fields.u32()?,
        len: fields.u32()?,
        tier: fields.u8()?,
        hash: fields.array()?,
        last_id: EventId::from_bytes(fields.array()?),
        ids: Vec::new(),
    };
    side.ids.reserve_exact(fields.0.len() / 32);
    while !fields.0.is_empty() {
        side.ids.push(EventId::from_bytes(fields.array()?));
    }
    Some(side)
}

/// A node: which children there are, which of them are inner nodes, then their digests.
pub(super) fn node_value(node: &Node) -> Vec<u8> {
    let bits = |child: &Child| 1u16 << (child.nibble & 15);
    let mut present = 0u16;
    let mut inner = 0u16;
    for child in &node.children {
        present |= bits(child);
        if child.inner {
            inner |= bits(child);
        }
    }
    let mut out = Vec::with_capacity(4 + 32 * node.children.len() + SEAL_BYTES);
    out.extend_from_slice(&present.to_be_bytes());
    out.extend_from_slice(&inner.to_be_bytes());
    for child in &node.children {
        out.extend_from_slice(child.digest.as_bytes());
    }
    out
}

pub(super) fn read_node(value: &[u8]) -> Option<Node> {
    let mut fields = Fields(value);
    let present = u16::from_be_bytes(fields.array()?);
    let inner = u16::from_be_bytes(fields.array()?);
    let mut node = Node::default();
    for nibble in 0..16u8 {
        if present >> nibble & 1 == 1 {
            node.children.push(Child {
                nibble,
                digest: HeadsDigest::from_bytes(fields.array()?),
                inner: inner >> nibble & 1 == 1,
            });
        }
    }
    fields.end(node)
}

/// Reads fields off the front of a value.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (field, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*field)
    }

    fn u8(&mut self) -> Option<u8> {
        self.array().map(|[byte]| byte)
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_be_bytes)
    }

    /// Returns what was read if nothing is left over.
    fn end<T>(&self, read: T) -> Option<T> {
        self.0.is_empty().then_some(read)
    }
}
