//! A store that lives as long as its process.

use std::{
    collections::BTreeMap,
    fmt,
    ops::Bound::{Excluded, Included, Unbounded},
    sync::{RwLock, RwLockReadGuard, TryLockError},
};

use bytes::Bytes;
use headwater_proto::history::{
    HeadRecord, HeadsPage, SpaceSummary, StoredRun, TailCheck, TailWant,
};
use headwater_wire::{AuthorHead, AuthorId, Event, SpaceId, VerifiedRun};

use crate::{
    Commit, Damage, LogStore, StoreError, StoreId, VerifyProgress, VerifyReport, append,
    heads_tree::{Node, Prefix},
    read,
    records::{HeadRow, LogKey, Side, SpaceKey, SpaceRow},
    tables::{Tables, TablesMut},
    verify,
};

/// Keeps everything in memory; for tests, and for nodes that need not outlive a restart.
///
/// "Durable" here means: visible to every later call on this store.
pub struct MemoryStore {
    id: StoreId,
    tables: RwLock<MemoryTables>,
}

impl MemoryStore {
    /// Makes an empty store.
    ///
    /// # Panics
    ///
    /// If the system has no randomness to name the store by.
    #[must_use]
    pub fn new() -> MemoryStore {
        match StoreId::random() {
            Ok(id) => MemoryStore {
                id,
                tables: RwLock::default(),
            },
            Err(error) => panic!("{error}"),
        }
    }

    /// A panic in the middle of an append leaves tables nobody may read.
    fn tables(&self) -> Result<RwLockReadGuard<'_, MemoryTables>, StoreError> {
        self.tables.read().map_err(|_| torn())
    }
}

fn torn() -> StoreError {
    StoreError::Damaged(Damage::File {
        reason: "an append to the memory store did not end".to_owned(),
    })
}

impl Default for MemoryStore {
    fn default() -> Self {
        MemoryStore::new()
    }
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryStore")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

impl LogStore for MemoryStore {
    fn id(&self) -> StoreId {
        self.id
    }

    fn append(&self, runs: &[VerifiedRun]) -> Result<Commit, StoreError> {
        let mut tables = self.tables.write().map_err(|_| torn())?;
        tables.append(runs)
    }

    fn append_at_once(&self, runs: &[VerifiedRun]) -> Option<Result<Commit, StoreError>> {
        match self.tables.try_write() {
            Ok(mut tables) => Some(tables.append(runs)),
            Err(TryLockError::WouldBlock) => None,
            Err(TryLockError::Poisoned(_)) => Some(Err(torn())),
        }
    }

    fn spaces(&self) -> Result<Vec<SpaceId>, StoreError> {
        self.tables()?.spaces()
    }

    fn summary(&self, space: &SpaceId) -> Result<Option<SpaceSummary>, StoreError> {
        read::summary(&*self.tables()?, space)
    }

    fn head(&self, space: &SpaceId, author: &AuthorId) -> Result<Option<HeadRecord>, StoreError> {
        read::head(&*self.tables()?, space, author)
    }

    fn heads(
        &self,
        space: &SpaceId,
        after: Option<AuthorId>,
        limit: usize,
    ) -> Result<HeadsPage, StoreError> {
        read::heads(&*self.tables()?, space, after, limit)
    }

    fn check_tails(
        &self,
        space: &SpaceId,
        stated: &[(AuthorId, AuthorHead)],
    ) -> Result<Vec<TailCheck>, StoreError> {
        read::check_tails(&*self.tables()?, space, stated)
    }

    fn read_runs(
        &self,
        space: &SpaceId,
        wants: &[TailWant],
        max_bytes: usize,
    ) -> Result<Vec<StoredRun>, StoreError> {
        read::read_runs(&*self.tables()?, space, wants, max_bytes)
    }

    fn event(
        &self,
        space: &SpaceId,
        author: &AuthorId,
        seq: u64,
    ) -> Result<Option<Event>, StoreError> {
        read::event(&*self.tables()?, space, author, seq)
    }

    fn verify(
        &self,
        space: &SpaceId,
        progress: &mut dyn FnMut(VerifyProgress),
    ) -> Result<VerifyReport, StoreError> {
        verify::verify(&*self.tables()?, space, progress)
    }
}

/// The tables as ordered maps. Runs carry no hash of their own: memory is trusted.
#[derive(Debug, Default)]
pub(crate) struct MemoryTables {
    spaces: BTreeMap<SpaceId, SpaceRow>,
    heads: BTreeMap<(u32, AuthorId), HeadRow>,
    runs: BTreeMap<(u32, u64), (Side, Bytes)>,
    nodes: BTreeMap<(u32, Prefix), Node>,
    next_space: u32,
    next_log: u32,
    /// What the append that runs now has replaced, oldest first.
    undo: Vec<Replaced>,
}

/// A row as it was before it was written; `None` if there was none.
#[derive(Debug)]
enum Replaced {
    Space(SpaceId, Option<SpaceRow>),
    Head((u32, AuthorId), Option<HeadRow>),
    Run((u32, u64), Option<(Side, Bytes)>),
    Node((u32, Prefix), Option<Node>),
}

impl MemoryTables {
    /// All of it, or nothing.
    fn append(&mut self, runs: &[VerifiedRun]) -> Result<Commit, StoreError> {
        let appended = append::append(self, runs);
        match appended {
            Ok(_) => self.undo.clear(),
            Err(_) => self.take_back(),
        }
        appended
    }

    /// Puts back every row an append has written, the last one first. Numbers it has taken stay
    /// taken: they only have to differ.
    fn take_back(&mut self) {
        while let Some(replaced) = self.undo.pop() {
            match replaced {
                Replaced::Space(key, row) => put_back(&mut self.spaces, key, row),
                Replaced::Head(key, row) => put_back(&mut self.heads, key, row),
                Replaced::Run(key, row) => put_back(&mut self.runs, key, row),
                Replaced::Node(key, row) => put_back(&mut self.nodes, key, row),
            }
        }
    }
}

fn put_back<K: Ord, V>(table: &mut BTreeMap<K, V>, key: K, row: Option<V>) {
    match row {
        Some(row) => table.insert(key, row),
        None => table.remove(&key),
    };
}

impl Tables for MemoryTables {
    fn spaces(&self) -> Result<Vec<SpaceId>, StoreError> {
        Ok(self.spaces.keys().copied().collect())
    }

    fn space(&self, space: &SpaceId) -> Result<Option<SpaceRow>, StoreError> {
        Ok(self.spaces.get(space).copied())
    }

    fn head(&self, space: &SpaceKey, author: &AuthorId) -> Result<Option<HeadRow>, StoreError> {
        Ok(self.heads.get(&(space.no, *author)).copied())
    }

    fn heads_after(
        &self,
        space: &SpaceKey,
        after: Option<&AuthorId>,
        limit: usize,
    ) -> Result<Vec<(AuthorId, Option<HeadRow>)>, StoreError> {
        let from = match after {
            Some(author) => Excluded((space.no, *author)),
            None => Included((space.no, AuthorId::from_bytes([0; 32]))),
        };
        Ok(self
            .heads
            .range((from, Unbounded))
            .take_while(|((no, _), _)| *no == space.no)
            .take(limit)
            .map(|((_, author), row)| (*author, Some(*row)))
            .collect())
    }

    fn author_from(
        &self,
        space: &SpaceKey,
        from: &AuthorId,
    ) -> Result<Option<AuthorId>, StoreError> {
        let next = self.heads.range((space.no, *from)..).next();
        Ok(next
            .map(|((no, author), _)| (*no, *author))
            .filter(|(no, _)| *no == space.no)
            .map(|(_, author)| author))
    }

    fn side_from(&self, log: &LogKey, seq: u64) -> Result<Option<Side>, StoreError> {
        let mut runs = self.runs.range((log.no, seq)..=(log.no, u64::MAX));
        Ok(runs.next().map(|(_, (side, _))| side.clone()))
    }

    fn side_below(&self, log: &LogKey, seq: u64) -> Result<Option<Side>, StoreError> {
        let mut runs = self.runs.range((log.no, 0)..(log.no, seq));
        Ok(runs.next_back().map(|(_, (side, _))| side.clone()))
    }

    fn run_bytes(&self, log: &LogKey, side: &Side) -> Result<Bytes, StoreError> {
        match self.runs.get(&(log.no, side.last_seq)) {
            Some((_, bytes)) => Ok(bytes.clone()),
            None => Err(read::damaged_run(log, side)),
        }
    }

    fn node(&self, space: &SpaceKey, prefix: &Prefix) -> Result<Option<Node>, StoreError> {
        Ok(self.nodes.get(&(space.no, *prefix)).cloned())
    }
}

impl TablesMut for MemoryTables {
    fn new_space_no(&mut self) -> Result<u32, StoreError> {
        next(&mut self.next_space, "spaces")
    }

    fn new_log_no(&mut self) -> Result<u32, StoreError> {
        next(&mut self.next_log, "logs")
    }

    fn put_space(&mut self, space: &SpaceId, row: &SpaceRow) -> Result<(), StoreError> {
        let before = self.spaces.insert(*space, *row);
        self.undo.push(Replaced::Space(*space, before));
        Ok(())
    }

    fn put_head(
        &mut self,
        space: &SpaceKey,
        author: &AuthorId,
        row: &HeadRow,
    ) -> Result<(), StoreError> {
        let key = (space.no, *author);
        let before = self.heads.insert(key, *row);
        self.undo.push(Replaced::Head(key, before));
        Ok(())
    }

    fn put_run(&mut self, log: &LogKey, side: &Side, bytes: &Bytes) -> Result<(), StoreError> {
        let key = (log.no, side.last_seq);
        let before = self.runs.insert(key, (side.clone(), bytes.clone()));
        self.undo.push(Replaced::Run(key, before));
        Ok(())
    }

    fn remove_run(&mut self, log: &LogKey, side: &Side) -> Result<(), StoreError> {
        let key = (log.no, side.last_seq);
        let before = self.runs.remove(&key);
        self.undo.push(Replaced::Run(key, before));
        Ok(())
    }

    fn put_node(
        &mut self,
        space: &SpaceKey,
        prefix: &Prefix,
        node: &Node,
    ) -> Result<(), StoreError> {
        let key = (space.no, *prefix);
        let before = self.nodes.insert(key, node.clone());
        self.undo.push(Replaced::Node(key, before));
        Ok(())
    }
}

/// Takes the next of the numbers that are given out once.
fn next(number: &mut u32, what: &'static str) -> Result<u32, StoreError> {
    let taken = *number;
    *number = taken.checked_add(1).ok_or(StoreError::Full { what })?;
    Ok(taken)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::World;

    #[test]
    fn an_append_at_once_waits_for_no_reader() {
        let world = World::new(1);
        let store = MemoryStore::new();
        world.found(&store);
        let mut author = world.author(1);
        let run = author.run(3);
        let reading = store.tables().unwrap();
        assert!(store.append_at_once(&[]).is_none());
        assert!(store.append_at_once(std::slice::from_ref(&run)).is_none());
        drop(reading);
        let commit = store.append_at_once(&[run]).unwrap().unwrap();
        assert!(matches!(&commit.outcomes[..], [Ok(appended)] if appended.events == 3));
    }

    #[test]
    fn an_append_that_meets_damage_leaves_nothing_of_itself() {
        let (world, other) = (World::new(1), World::new(2));
        let store = MemoryStore::new();
        world.found(&store);
        let (mut grows, mut damaged) = (world.author(1), world.author(2));
        let first = grows.run(3);
        let _ = store.append(&[first]).unwrap();
        // The run that is about to go missing, and is looked for when it comes again.
        let overlap = damaged.run(4);
        let _ = store.append(std::slice::from_ref(&overlap)).unwrap();
        let _ = store.append(&[damaged.run(2)]).unwrap();
        let lost = {
            let mut tables = store.tables.write().unwrap();
            let key = (tables.next_log - 1, 4);
            tables.runs.remove(&key).map(|row| (key, row)).unwrap()
        };
        let rows = || {
            let tables = store.tables.read().unwrap();
            assert!(tables.undo.is_empty());
            format!(
                "{:?} {:?} {:?} {:?}",
                tables.spaces, tables.heads, tables.runs, tables.nodes
            )
        };
        let before = rows();
        let mut call = vec![other.genesis.clone()];
        // Enough of them that stored runs are merged, and so removed, on the way.
        call.extend((0..30).map(|_| grows.run(1)));
        call.push(world.author(3).run(1));
        call.push(overlap);
        let met = store.append(&call);
        assert!(
            matches!(met, Err(StoreError::Damaged(Damage::Missing { .. }))),
            "{met:?}"
        );
        assert_eq!(rows(), before);

        let (key, row) = lost;
        store.tables.write().unwrap().runs.insert(key, row);
        let stored = store.append(&call).unwrap();
        assert_eq!(stored.outcomes.iter().filter(|run| run.is_ok()).count(), 32);
        world.assert_sound(&store);
        other.assert_sound(&store);
    }
}
