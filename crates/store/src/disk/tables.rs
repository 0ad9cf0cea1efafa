//! The tables as redb tables.

use std::ops::Bound::{Excluded, Included};

use bytes::Bytes;
use headwater_wire::{AuthorId, EventId, ForkProof, Run, SpaceId};
use redb::{
    ReadOnlyTable, ReadTransaction, ReadableTable, Table, TableDefinition, WriteTransaction,
};

use super::{
    pieces::pieces,
    rows::{self, Sealed},
};
use crate::{
    Damage, StoreError,
    heads_tree::{Node, Prefix},
    read::damaged_run,
    records::{HeadRow, LogKey, Shelf, Side, SpaceKey, SpaceRow},
    tables::{Tables, TablesMut},
};

type Bytestring = &'static [u8];
type Key<const N: usize> = &'static [u8; N];

const SPACES: TableDefinition<'_, Key<32>, Bytestring> = TableDefinition::new("spaces");
const HEADS: TableDefinition<'_, Key<36>, Bytestring> = TableDefinition::new("heads");
const HIDDEN: TableDefinition<'_, Key<36>, Bytestring> = TableDefinition::new("hidden");
const PROOFS: TableDefinition<'_, Key<36>, Bytestring> = TableDefinition::new("proofs");
const EVIDENCE: TableDefinition<'_, Key<36>, Bytestring> = TableDefinition::new("evidence");
const SIDES: TableDefinition<'_, Key<12>, Bytestring> = TableDefinition::new("sides");
const PIECES: TableDefinition<'_, Key<13>, Bytestring> = TableDefinition::new("pieces");
const NODES: TableDefinition<'_, Key<37>, Bytestring> = TableDefinition::new("nodes");
/// The next number of each kind.
const NUMBERS: TableDefinition<'_, u8, u32> = TableDefinition::new("numbers");

const SPACE_NO: u8 = 1;
const LOG_NO: u8 = 2;
/// Counts calls of `settle`, so that its commit changes something.
const SETTLED: u8 = 3;

/// How tables are held open: for reading or for writing.
pub(super) trait Access {
    type Of<K: redb::Key + 'static, V: redb::Value + 'static>: ReadableTable<K, V>;
}

pub(super) struct Reading;

impl Access for Reading {
    type Of<K: redb::Key + 'static, V: redb::Value + 'static> = ReadOnlyTable<K, V>;
}

pub(super) struct Writing<'t>(std::marker::PhantomData<&'t ()>);

impl<'t> Access for Writing<'t> {
    type Of<K: redb::Key + 'static, V: redb::Value + 'static> = Table<'t, K, V>;
}

pub(super) struct DiskTables<A: Access> {
    spaces: A::Of<Key<32>, Bytestring>,
    heads: A::Of<Key<36>, Bytestring>,
    hidden: A::Of<Key<36>, Bytestring>,
    proofs: A::Of<Key<36>, Bytestring>,
    evidence: A::Of<Key<36>, Bytestring>,
    sides: A::Of<Key<12>, Bytestring>,
    pieces: A::Of<Key<13>, Bytestring>,
    nodes: A::Of<Key<37>, Bytestring>,
    numbers: A::Of<u8, u32>,
}

impl DiskTables<Reading> {
    pub(super) fn read(transaction: &ReadTransaction) -> Result<Self, StoreError> {
        Ok(DiskTables {
            spaces: transaction.open_table(SPACES)?,
            heads: transaction.open_table(HEADS)?,
            hidden: transaction.open_table(HIDDEN)?,
            proofs: transaction.open_table(PROOFS)?,
            evidence: transaction.open_table(EVIDENCE)?,
            sides: transaction.open_table(SIDES)?,
            pieces: transaction.open_table(PIECES)?,
            nodes: transaction.open_table(NODES)?,
            numbers: transaction.open_table(NUMBERS)?,
        })
    }
}

impl<'t> DiskTables<Writing<'t>> {
    /// Opens the tables, and makes those that are not there.
    pub(super) fn write(transaction: &'t WriteTransaction) -> Result<Self, StoreError> {
        Ok(DiskTables {
            spaces: transaction.open_table(SPACES)?,
            heads: transaction.open_table(HEADS)?,
            hidden: transaction.open_table(HIDDEN)?,
            proofs: transaction.open_table(PROOFS)?,
            evidence: transaction.open_table(EVIDENCE)?,
            sides: transaction.open_table(SIDES)?,
            pieces: transaction.open_table(PIECES)?,
            nodes: transaction.open_table(NODES)?,
            numbers: transaction.open_table(NUMBERS)?,
        })
    }

    pub(super) fn count_settled(&mut self) -> Result<(), StoreError> {
        let count = self.number(SETTLED)?;
        self.numbers.insert(SETTLED, count.wrapping_add(1))?;
        Ok(())
    }

    fn take_number(&mut self, kind: u8, what: &'static str) -> Result<u32, StoreError> {
        let taken = self.number(kind)?;
        let next = taken.checked_add(1).ok_or(StoreError::Full { what })?;
        self.numbers.insert(kind, next)?;
        Ok(taken)
    }
}

impl<A: Access> DiskTables<A> {
    fn shelf(&self, shelf: Shelf) -> &A::Of<Key<36>, Bytestring> {
        match shelf {
            Shelf::Shown => &self.heads,
            Shelf::Hidden => &self.hidden,
        }
    }

    fn number(&self, kind: u8) -> Result<u32, StoreError> {
        Ok(self.numbers.get(kind)?.map_or(0, |number| number.value()))
    }

    fn side_under(&self, log: &LogKey, key: &[u8; 12], sealed: &[u8]) -> Result<Side, StoreError> {
        let last_seq = rows::run_key_seq(key);
        rows::unseal(Sealed::Side, key, sealed)
            .and_then(|value| rows::read_side(last_seq, value))
            .ok_or_else(|| damaged_at(log, last_seq))
    }
}

fn damaged_at(log: &LogKey, seq: u64) -> StoreError {
    StoreError::Damaged(Damage::Run {
        space: log.space,
        author: log.author,
        seq,
    })
}

/// Puts a page redb finds corrupt down to the log that was looked at.
fn in_log(log: &LogKey, seq: u64) -> impl Fn(redb::StorageError) -> StoreError {
    let log = *log;
    move |error| match error {
        redb::StorageError::Corrupted(_) => damaged_at(&log, seq),
        other => other.into(),
    }
}

/// A damaged page may name another one in its place, or itself: redb follows, and never comes to an
/// end of it.
fn out_of_order() -> redb::StorageError {
    redb::StorageError::Corrupted("rows out of order".to_owned())
}

fn read_evidence(space: &SpaceKey, key: &[u8; 36], sealed: &[u8]) -> Result<Run, StoreError> {
    rows::unseal(Sealed::Evidence, key, sealed)
        .and_then(|bytes| Run::decode(Bytes::copy_from_slice(bytes)).ok())
        .ok_or(StoreError::Damaged(Damage::Evidence { space: space.id }))
}

/// Up to `limit` rows of one space above an author.
fn rows_after<T>(
    table: &impl ReadableTable<Key<36>, Bytestring>,
    space: &SpaceKey,
    after: Option<&AuthorId>,
    limit: usize,
    read: impl Fn(&[u8; 36], &[u8]) -> T,
) -> Result<Vec<(AuthorId, T)>, StoreError> {
    let lowest = rows::head_key(space.no, after.unwrap_or(&AuthorId::from_bytes([0; 32])));
    let highest = rows::head_key(space.no, &AuthorId::from_bytes([0xff; 32]));
    let mut found = Vec::new();
    for row in table.range::<&[u8; 36]>(&lowest..=&highest)? {
        let (key, sealed) = row?;
        let author = rows::head_key_author(key.value());
        if after == Some(&author) {
            continue;
        }
        if found.len() == limit {
            break;
        }
        // Whoever reads page after page comes to an end only if every one goes further.
        let last = found.last().map(|(author, _)| author).or(after);
        if last.is_some_and(|last| author <= *last) {
            return Err(out_of_order().into());
        }
        found.push((author, read(key.value(), sealed.value())));
    }
    Ok(found)
}

impl<A: Access> Tables for DiskTables<A> {
    fn spaces(&self) -> Result<Vec<SpaceId>, StoreError> {
        let mut spaces = Vec::new();
        for row in self.spaces.iter()? {
            let (key, _) = row?;
            let space = SpaceId::from_bytes(*key.value());
            if spaces.last().is_some_and(|last| space <= *last) {
                return Err(out_of_order().into());
            }
            spaces.push(space);
        }
        Ok(spaces)
    }

    fn space(&self, space: &SpaceId) -> Result<Option<SpaceRow>, StoreError> {
        let key = space.as_bytes();
        let Some(sealed) = self.spaces.get(key)? else {
            return Ok(None);
        };
        rows::unseal(Sealed::Space, key, sealed.value())
            .and_then(rows::read_space)
            .map(Some)
            .ok_or(StoreError::Damaged(Damage::Space { space: *space }))
    }

    fn head(
        &self,
        shelf: Shelf,
        space: &SpaceKey,
        author: &AuthorId,
    ) -> Result<Option<HeadRow>, StoreError> {
        let key = rows::head_key(space.no, author);
        let Some(sealed) = self.shelf(shelf).get(&key)? else {
            return Ok(None);
        };
        rows::unseal(Sealed::of(shelf), &key, sealed.value())
            .and_then(rows::read_head)
            .map(Some)
            .ok_or(StoreError::Damaged(Damage::Head {
                space: space.id,
                author: *author,
            }))
    }

    fn heads_after(
        &self,
        shelf: Shelf,
        space: &SpaceKey,
        after: Option<&AuthorId>,
        limit: usize,
    ) -> Result<Vec<(AuthorId, Option<HeadRow>)>, StoreError> {
        rows_after(self.shelf(shelf), space, after, limit, |key, sealed| {
            rows::unseal(Sealed::of(shelf), key, sealed).and_then(rows::read_head)
        })
    }

    fn author_from(
        &self,
        space: &SpaceKey,
        from: &AuthorId,
    ) -> Result<Option<AuthorId>, StoreError> {
        let lowest = rows::head_key(space.no, from);
        let highest = rows::head_key(space.no, &AuthorId::from_bytes([0xff; 32]));
        match self.heads.range::<&[u8; 36]>(&lowest..=&highest)?.next() {
            Some(row) => Ok(Some(rows::head_key_author(row?.0.value()))),
            None => Ok(None),
        }
    }

    fn side_from(&self, log: &LogKey, seq: u64) -> Result<Option<Side>, StoreError> {
        let lowest = rows::run_key(log.no, seq);
        let highest = rows::run_key(log.no, u64::MAX);
        let mut range = self
            .sides
            .range::<&[u8; 12]>(&lowest..=&highest)
            .map_err(in_log(log, seq))?;
        match range.next().transpose().map_err(in_log(log, seq))? {
            Some((key, sealed)) => self.side_under(log, key.value(), sealed.value()).map(Some),
            None => Ok(None),
        }
    }

    fn side_below(&self, log: &LogKey, seq: u64) -> Result<Option<Side>, StoreError> {
        let lowest = rows::run_key(log.no, 0);
        let highest = rows::run_key(log.no, seq);
        let mut range = self
            .sides
            .range::<&[u8; 12]>(&lowest..&highest)
            .map_err(in_log(log, seq))?;
        match range.next_back().transpose().map_err(in_log(log, seq))? {
            Some((key, sealed)) => self.side_under(log, key.value(), sealed.value()).map(Some),
            None => Ok(None),
        }
    }

    fn run_bytes(&self, log: &LogKey, side: &Side) -> Result<Bytes, StoreError> {
        let damaged = || damaged_run(log, side);
        let len = side.len as usize;
        let mut bytes = Vec::with_capacity(len);
        for (size, _) in pieces(len) {
            let key = rows::piece_key(size, log.no, side.last_seq);
            let row = self.pieces.get(&key).map_err(in_log(log, side.first_seq))?;
            bytes.extend_from_slice(row.ok_or_else(damaged)?.value());
        }
        if bytes.len() == side.len as usize && rows::run_hash(&bytes) == side.hash {
            Ok(bytes.into())
        } else {
            Err(damaged())
        }
    }

    fn proof(&self, space: &SpaceKey, author: &AuthorId) -> Result<Option<ForkProof>, StoreError> {
        let key = rows::head_key(space.no, author);
        let Some(sealed) = self.proofs.get(&key)? else {
            return Ok(None);
        };
        rows::unseal(Sealed::Proof, &key, sealed.value())
            .and_then(rows::read_proof)
            .map(Some)
            .ok_or(StoreError::Damaged(Damage::Proof {
                space: space.id,
                author: *author,
            }))
    }

    fn proven_after(
        &self,
        space: &SpaceKey,
        after: Option<&AuthorId>,
        limit: usize,
    ) -> Result<Vec<AuthorId>, StoreError> {
        let rows = rows_after(&self.proofs, space, after, limit, |_, _| ())?;
        Ok(rows.into_iter().map(|(author, ())| author).collect())
    }

    fn evidence_after(
        &self,
        space: &SpaceKey,
        after: Option<&EventId>,
    ) -> Result<Option<(EventId, Run)>, StoreError> {
        let after = after.map(|after| rows::evidence_key(space.no, after));
        let lowest = match &after {
            Some(after) => Excluded(after),
            None => Included(&rows::evidence_key(space.no, &EventId::from_bytes([0; 32]))),
        };
        let highest = rows::evidence_key(space.no, &EventId::from_bytes([0xff; 32]));
        let range = (lowest, Included(&highest));
        let Some(row) = self.evidence.range::<&[u8; 36]>(range)?.next() else {
            return Ok(None);
        };
        let (key, sealed) = row?;
        if after.is_some_and(|after| *key.value() <= after) {
            return Err(out_of_order().into());
        }
        let first = rows::evidence_key_id(key.value());
        let run = read_evidence(space, key.value(), sealed.value())?;
        Ok(Some((first, run)))
    }

    fn evidence_at(&self, space: &SpaceKey, first: &EventId) -> Result<Option<Run>, StoreError> {
        let key = rows::evidence_key(space.no, first);
        match self.evidence.get(&key)? {
            Some(sealed) => read_evidence(space, &key, sealed.value()).map(Some),
            None => Ok(None),
        }
    }

    fn node(&self, space: &SpaceKey, prefix: &Prefix) -> Result<Option<Node>, StoreError> {
        let key = rows::node_key(space.no, prefix);
        let Some(sealed) = self.nodes.get(&key)? else {
            return Ok(None);
        };
        rows::unseal(Sealed::Node, &key, sealed.value())
            .and_then(rows::read_node)
            .map(Some)
            .ok_or(StoreError::Damaged(Damage::Tree { space: space.id }))
    }
}

impl<'t> DiskTables<Writing<'t>> {
    fn shelf_mut(&mut self, shelf: Shelf) -> &mut Table<'t, Key<36>, Bytestring> {
        match shelf {
            Shelf::Shown => &mut self.heads,
            Shelf::Hidden => &mut self.hidden,
        }
    }
}

impl TablesMut for DiskTables<Writing<'_>> {
    fn new_space_no(&mut self) -> Result<u32, StoreError> {
        self.take_number(SPACE_NO, "spaces")
    }

    fn new_log_no(&mut self) -> Result<u32, StoreError> {
        self.take_number(LOG_NO, "logs")
    }

    fn put_space(&mut self, space: &SpaceId, row: &SpaceRow) -> Result<(), StoreError> {
        let key = space.as_bytes();
        let value = rows::seal(Sealed::Space, key, rows::space_value(row));
        self.spaces.insert(key, value.as_slice())?;
        Ok(())
    }

    fn put_head(
        &mut self,
        shelf: Shelf,
        space: &SpaceKey,
        author: &AuthorId,
        row: &HeadRow,
    ) -> Result<(), StoreError> {
        let key = rows::head_key(space.no, author);
        let value = rows::seal(Sealed::of(shelf), &key, rows::head_value(row));
        self.shelf_mut(shelf).insert(&key, value.as_slice())?;
        Ok(())
    }

    fn remove_head(
        &mut self,
        shelf: Shelf,
        space: &SpaceKey,
        author: &AuthorId,
    ) -> Result<(), StoreError> {
        let key = rows::head_key(space.no, author);
        self.shelf_mut(shelf).remove(&key)?;
        Ok(())
    }

    fn put_proof(
        &mut self,
        space: &SpaceKey,
        author: &AuthorId,
        halves: [&Bytes; 2],
    ) -> Result<(), StoreError> {
        let key = rows::head_key(space.no, author);
        let value = rows::seal(Sealed::Proof, &key, rows::proof_value(halves));
        self.proofs.insert(&key, value.as_slice())?;
        Ok(())
    }

    fn put_evidence(
        &mut self,
        space: &SpaceKey,
        first: &EventId,
        run: &Bytes,
    ) -> Result<(), StoreError> {
        let key = rows::evidence_key(space.no, first);
        let value = rows::seal(Sealed::Evidence, &key, run.to_vec());
        self.evidence.insert(&key, value.as_slice())?;
        Ok(())
    }

    fn remove_evidence(&mut self, space: &SpaceKey, first: &EventId) -> Result<(), StoreError> {
        let key = rows::evidence_key(space.no, first);
        self.evidence.remove(&key)?;
        Ok(())
    }

    fn put_run(&mut self, log: &LogKey, side: &Side, bytes: &Bytes) -> Result<(), StoreError> {
        let key = rows::run_key(log.no, side.last_seq);
        let value = rows::side_value(side, &rows::run_hash(bytes));
        let value = rows::seal(Sealed::Side, &key, value);
        self.sides.insert(&key, value.as_slice())?;
        for (size, range) in pieces(bytes.len()) {
            let key = rows::piece_key(size, log.no, side.last_seq);
            let piece = bytes.get(range).unwrap_or_default();
            self.pieces.insert(&key, piece)?;
        }
        Ok(())
    }

    fn remove_run(&mut self, log: &LogKey, side: &Side) -> Result<(), StoreError> {
        self.sides.remove(&rows::run_key(log.no, side.last_seq))?;
        for (size, _) in pieces(side.len as usize) {
            let key = rows::piece_key(size, log.no, side.last_seq);
            self.pieces.remove(&key)?;
        }
        Ok(())
    }

    fn put_node(
        &mut self,
        space: &SpaceKey,
        prefix: &Prefix,
        node: &Node,
    ) -> Result<(), StoreError> {
        let key = rows::node_key(space.no, prefix);
        let value = rows::seal(Sealed::Node, &key, rows::node_value(node));
        self.nodes.insert(&key, value.as_slice())?;
        Ok(())
    }

    fn remove_node(&mut self, space: &SpaceKey, prefix: &Prefix) -> Result<(), StoreError> {
        self.nodes.remove(&rows::node_key(space.no, prefix))?;
        Ok(())
    }
}
