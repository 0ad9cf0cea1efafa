//! The ordered tables every store is made of.
//!
//! ```text
//! spaces   space id              ──▶ SpaceRow
//! heads    space no, author      ──▶ HeadRow     in author order
//! hidden   space no, author      ──▶ HeadRow     of logs without an entry among the heads
//! proofs   space no, author      ──▶ two runs    of the lowest fork known
//! evidence space no, event id    ──▶ run         of an owner who forks: begins with that event
//! sides    log no, last seq      ──▶ Side        "runs from seq" is one range
//! runs     log no, last seq      ──▶ wire bytes  on disk in pieces that fill their pages
//! nodes    space no, key prefix  ──▶ Node        inner nodes of the heads tree
//! ```
//!
//! What a store *does* is written once, over these traits; a store itself only says how a row
//! is kept. Side records are apart from the runs so that comparing heads and making plans never
//! reads a run.

use bytes::Bytes;
use headwater_wire::{AuthorId, EventId, ForkProof, Run, SpaceId};

use crate::{
    StoreError,
    heads_tree::{Node, Prefix},
    records::{HeadRow, LogKey, Shelf, Side, SpaceKey, SpaceRow},
};

/// Reads rows as one commit left them.
///
/// A row that is not what was written is an error that names it.
pub(crate) trait Tables {
    /// All spaces, ascending.
    fn spaces(&self) -> Result<Vec<SpaceId>, StoreError>;

    fn space(&self, space: &SpaceId) -> Result<Option<SpaceRow>, StoreError>;

    fn head(
        &self,
        shelf: Shelf,
        space: &SpaceKey,
        author: &AuthorId,
    ) -> Result<Option<HeadRow>, StoreError>;

    /// Up to `limit` rows above `after`, ascending; `None` stands for a damaged row.
    fn heads_after(
        &self,
        shelf: Shelf,
        space: &SpaceKey,
        after: Option<&AuthorId>,
        limit: usize,
    ) -> Result<Vec<(AuthorId, Option<HeadRow>)>, StoreError>;

    /// The first author at or above this one who has an entry among the heads.
    fn author_from(
        &self,
        space: &SpaceKey,
        from: &AuthorId,
    ) -> Result<Option<AuthorId>, StoreError>;

    /// The first run that ends at or above `seq`.
    fn side_from(&self, log: &LogKey, seq: u64) -> Result<Option<Side>, StoreError>;

    /// The last run that ends below `seq`.
    fn side_below(&self, log: &LogKey, seq: u64) -> Result<Option<Side>, StoreError>;

    /// The bytes of a run, checked against what its side record says of them.
    fn run_bytes(&self, log: &LogKey, side: &Side) -> Result<Bytes, StoreError>;

    /// The proof of the lowest fork of a log. Nothing of it is verified.
    fn proof(&self, space: &SpaceKey, author: &AuthorId) -> Result<Option<ForkProof>, StoreError>;

    /// Up to `limit` authors above `after` who have a proof, ascending.
    fn proven_after(
        &self,
        space: &SpaceKey,
        after: Option<&AuthorId>,
        limit: usize,
    ) -> Result<Vec<AuthorId>, StoreError>;

    /// The first above `after` of the runs that show what an owner who forks has revoked, which go by
    /// the ids of their first events. One at a time: each may be as long as a run gets.
    fn evidence_after(
        &self,
        space: &SpaceKey,
        after: Option<&EventId>,
    ) -> Result<Option<(EventId, Run)>, StoreError>;

    /// The run kept as evidence that begins with this event.
    fn evidence_at(&self, space: &SpaceKey, first: &EventId) -> Result<Option<Run>, StoreError>;

    fn node(&self, space: &SpaceKey, prefix: &Prefix) -> Result<Option<Node>, StoreError>;
}

/// Writes rows, all of which become visible together or not at all.
pub(crate) trait TablesMut: Tables {
    /// A number no space had before.
    fn new_space_no(&mut self) -> Result<u32, StoreError>;

    /// A number no log had before.
    fn new_log_no(&mut self) -> Result<u32, StoreError>;

    fn put_space(&mut self, space: &SpaceId, row: &SpaceRow) -> Result<(), StoreError>;

    fn put_head(
        &mut self,
        shelf: Shelf,
        space: &SpaceKey,
        author: &AuthorId,
        row: &HeadRow,
    ) -> Result<(), StoreError>;

    fn remove_head(
        &mut self,
        shelf: Shelf,
        space: &SpaceKey,
        author: &AuthorId,
    ) -> Result<(), StoreError>;

    /// Keeps the two halves of a proof, in place of those kept before.
    fn put_proof(
        &mut self,
        space: &SpaceKey,
        author: &AuthorId,
        halves: [&Bytes; 2],
    ) -> Result<(), StoreError>;

    fn put_evidence(
        &mut self,
        space: &SpaceKey,
        first: &EventId,
        run: &Bytes,
    ) -> Result<(), StoreError>;

    fn remove_evidence(&mut self, space: &SpaceKey, first: &EventId) -> Result<(), StoreError>;

    fn put_run(&mut self, log: &LogKey, side: &Side, bytes: &Bytes) -> Result<(), StoreError>;

    fn remove_run(&mut self, log: &LogKey, side: &Side) -> Result<(), StoreError>;

    fn put_node(
        &mut self,
        space: &SpaceKey,
        prefix: &Prefix,
        node: &Node,
    ) -> Result<(), StoreError>;

    fn remove_node(&mut self, space: &SpaceKey, prefix: &Prefix) -> Result<(), StoreError>;
}
