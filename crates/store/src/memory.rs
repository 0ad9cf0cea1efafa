//! A store that lives as long as its process.

use std::{
    collections::BTreeMap,
    fmt,
    ops::Bound::{Excluded, Included},
    sync::{RwLock, RwLockReadGuard, TryLockError},
};

use bytes::Bytes;
use headwater_proto::history::{
    HeadRecord, HeadsPage, SpaceSummary, StoredRun, TailCheck, TailWant,
};
use headwater_wire::{
    AuthorHead, AuthorId, Event, EventId, ForkProof, Revoked, Run, SpaceId, Subject,
    VerifiedForkProof, VerifiedRun,
};

use crate::{
    Bounds, Commit, Damage, ForkRecord, LogStore, StoreError, StoreId, VerifyProgress,
    VerifyReport, append,
    changes::Written,
    folds::Folds,
    forks,
    heads_tree::{Node, Prefix},
    quotas::{Quotas, Usage},
    read,
    records::{HeadRow, LogKey, Shelf, Side, SpaceKey, SpaceRow},
    revoked,
    tables::{Tables, TablesMut},
    verify,
};

/// Keeps everything in memory; for tests, and for nodes that need not outlive a restart.
///
/// "Durable" here means: visible to every later call on this store.
pub struct MemoryStore {
    id: StoreId,
    tables: RwLock<MemoryTables>,
    folds: Folds,
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
                folds: Folds::default(),
            },
            Err(error) => panic!("{error}"),
        }
    }

    /// A panic in the middle of an append leaves tables nobody may read.
    fn tables(&self) -> Result<RwLockReadGuard<'_, MemoryTables>, StoreError> {
        self.tables.read().map_err(|_| torn())
    }

    /// Changes the tables, or leaves them as they were.
    fn write(
        &self,
        work: impl FnOnce(&mut MemoryTables) -> Result<Written, StoreError>,
    ) -> Result<Commit, StoreError> {
        let mut tables = self.tables.write().map_err(|_| torn())?;
        Ok(tables.write(work)?.committed(&self.folds))
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

    fn append_within(&self, runs: &[VerifiedRun], quotas: &Quotas) -> Result<Commit, StoreError> {
        self.write(|tables| append::append(tables, &self.folds, runs, quotas))
    }

    fn append_at_once(
        &self,
        runs: &[VerifiedRun],
        quotas: &Quotas,
    ) -> Option<Result<Commit, StoreError>> {
        match self.tables.try_write() {
            Ok(mut tables) => {
                let written =
                    tables.write(|tables| append::append(tables, &self.folds, runs, quotas));
                Some(written.map(|written| written.committed(&self.folds)))
            }
            Err(TryLockError::WouldBlock) => None,
            Err(TryLockError::Poisoned(_)) => Some(Err(torn())),
        }
    }

    fn usage(&self, space: &SpaceId, author: &AuthorId) -> Result<Usage, StoreError> {
        append::usage(&*self.tables()?, space, author)
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

    fn cut(&self, proof: &VerifiedForkProof) -> Result<Commit, StoreError> {
        self.write(|tables| forks::cut(tables, &self.folds, proof))
    }

    fn fork(&self, space: &SpaceId, author: &AuthorId) -> Result<Option<ForkRecord>, StoreError> {
        forks::fork(&*self.tables()?, space, author)
    }

    fn forks(
        &self,
        space: &SpaceId,
        after: Option<AuthorId>,
        limit: usize,
    ) -> Result<Vec<ForkRecord>, StoreError> {
        forks::forks(&*self.tables()?, space, after, limit)
    }

    fn chain(
        &self,
        space: &SpaceId,
        author: &AuthorId,
        seqs: &[u64],
    ) -> Result<Vec<Option<AuthorHead>>, StoreError> {
        forks::chain(&*self.tables()?, space, author, seqs)
    }

    fn stored_end(
        &self,
        space: &SpaceId,
        author: &AuthorId,
    ) -> Result<Option<AuthorHead>, StoreError> {
        forks::stored_end(&*self.tables()?, space, author)
    }

    fn branch(
        &self,
        space: &SpaceId,
        author: &AuthorId,
        seq: u64,
    ) -> Result<Option<Run>, StoreError> {
        forks::branch(&*self.tables()?, space, author, seq)
    }

    fn restrict(
        &self,
        space: &SpaceId,
        author: &AuthorId,
        through: Option<u64>,
    ) -> Result<Commit, StoreError> {
        self.write(|tables| forks::restrict(tables, &self.folds, space, author, through))
    }

    fn restriction(&self, space: &SpaceId, author: &AuthorId) -> Result<Option<u64>, StoreError> {
        forks::restriction(&*self.tables()?, space, author)
    }

    fn restricted(
        &self,
        space: &SpaceId,
        after: Option<AuthorId>,
        limit: usize,
    ) -> Result<Vec<AuthorId>, StoreError> {
        forks::restricted(&*self.tables()?, space, after, limit)
    }

    fn bounds(&self, space: &SpaceId) -> Result<Option<Bounds>, StoreError> {
        Ok(self.tables()?.space(space)?.map(|row| row.bounds))
    }

    fn set_bounds(&self, space: &SpaceId, bounds: Bounds) -> Result<(), StoreError> {
        let written = self.write(|tables| forks::set_bounds(tables, space, bounds));
        written.map(drop)
    }

    fn absorb(&self, runs: &[VerifiedRun]) -> Result<Commit, StoreError> {
        self.write(|tables| revoked::absorb(tables, &self.folds, runs))
    }

    fn revoked(&self, space: &SpaceId) -> Result<Revoked, StoreError> {
        revoked::revoked(&*self.tables()?, &self.folds, space)
    }

    fn evidence(&self, space: &SpaceId, subjects: &[Subject]) -> Result<Vec<Run>, StoreError> {
        revoked::evidence(&*self.tables()?, &self.folds, space, subjects)
    }

    fn verify(
        &self,
        space: &SpaceId,
        progress: &mut dyn FnMut(VerifyProgress),
    ) -> Result<VerifyReport, StoreError> {
        verify::verify(&*self.tables()?, space, progress)
    }
}

/// A log, by the number of its space and its author.
type HeadKey = (u32, AuthorId);

/// The two halves of a fork proof.
type Halves = [Bytes; 2];

/// The tables as ordered maps. Runs carry no hash of their own: memory is trusted.
#[derive(Debug, Default)]
pub(crate) struct MemoryTables {
    spaces: BTreeMap<SpaceId, SpaceRow>,
    heads: BTreeMap<HeadKey, HeadRow>,
    hidden: BTreeMap<HeadKey, HeadRow>,
    proofs: BTreeMap<HeadKey, Halves>,
    evidence: BTreeMap<(u32, EventId), Bytes>,
    runs: BTreeMap<(u32, u64), (Side, Bytes)>,
    nodes: BTreeMap<(u32, Prefix), Node>,
    next_space: u32,
    next_log: u32,
    /// What the call that runs now has replaced, oldest first.
    undo: Vec<Replaced>,
}

/// A row as it was before it was written; `None` if there was none.
#[derive(Debug)]
enum Replaced {
    Space(SpaceId, Option<SpaceRow>),
    Head(Shelf, HeadKey, Option<HeadRow>),
    Proof(HeadKey, Option<Halves>),
    Evidence((u32, EventId), Option<Bytes>),
    Run((u32, u64), Option<(Side, Bytes)>),
    Node((u32, Prefix), Option<Node>),
}

impl MemoryTables {
    /// All of it, or nothing.
    fn write(
        &mut self,
        work: impl FnOnce(&mut Self) -> Result<Written, StoreError>,
    ) -> Result<Written, StoreError> {
        let written = work(self);
        match written {
            Ok(_) => self.undo.clear(),
            Err(_) => self.take_back(),
        }
        written
    }

    fn shelf(&self, shelf: Shelf) -> &BTreeMap<HeadKey, HeadRow> {
        match shelf {
            Shelf::Shown => &self.heads,
            Shelf::Hidden => &self.hidden,
        }
    }

    fn shelf_mut(&mut self, shelf: Shelf) -> &mut BTreeMap<HeadKey, HeadRow> {
        match shelf {
            Shelf::Shown => &mut self.heads,
            Shelf::Hidden => &mut self.hidden,
        }
    }

    #[cfg(test)]
    pub(crate) fn node_count(&self) -> usize {
        self.nodes.len()
    }

    /// Puts back every row a call has written, the last one first. Numbers it has taken stay
    /// taken: they only have to differ.
    fn take_back(&mut self) {
        while let Some(replaced) = self.undo.pop() {
            match replaced {
                Replaced::Space(key, row) => put_back(&mut self.spaces, key, row),
                Replaced::Head(shelf, key, row) => put_back(self.shelf_mut(shelf), key, row),
                Replaced::Proof(key, row) => put_back(&mut self.proofs, key, row),
                Replaced::Evidence(key, row) => put_back(&mut self.evidence, key, row),
                Replaced::Run(key, row) => put_back(&mut self.runs, key, row),
                Replaced::Node(key, row) => put_back(&mut self.nodes, key, row),
            }
        }
    }
}

/// The rows of one space above an author.
fn above<'a, V>(
    table: &'a BTreeMap<HeadKey, V>,
    space: &SpaceKey,
    after: Option<&AuthorId>,
) -> impl Iterator<Item = (AuthorId, &'a V)> + use<'a, V> {
    let from = match after {
        Some(author) => Excluded((space.no, *author)),
        None => Included((space.no, AuthorId::from_bytes([0; 32]))),
    };
    let highest = (space.no, AuthorId::from_bytes([0xff; 32]));
    let rows = table.range((from, Included(highest)));
    rows.map(|((_, author), row)| (*author, row))
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

    fn head(
        &self,
        shelf: Shelf,
        space: &SpaceKey,
        author: &AuthorId,
    ) -> Result<Option<HeadRow>, StoreError> {
        Ok(self.shelf(shelf).get(&(space.no, *author)).copied())
    }

    fn heads_after(
        &self,
        shelf: Shelf,
        space: &SpaceKey,
        after: Option<&AuthorId>,
        limit: usize,
    ) -> Result<Vec<(AuthorId, Option<HeadRow>)>, StoreError> {
        Ok(above(self.shelf(shelf), space, after)
            .take(limit)
            .map(|(author, row)| (author, Some(*row)))
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

    fn proof(&self, space: &SpaceKey, author: &AuthorId) -> Result<Option<ForkProof>, StoreError> {
        let Some([first, second]) = self.proofs.get(&(space.no, *author)) else {
            return Ok(None);
        };
        match (Run::decode(first.clone()), Run::decode(second.clone())) {
            (Ok(first), Ok(second)) => Ok(Some(ForkProof::new(first, second))),
            _ => Err(Damage::Proof {
                space: space.id,
                author: *author,
            }
            .into()),
        }
    }

    fn proven_after(
        &self,
        space: &SpaceKey,
        after: Option<&AuthorId>,
        limit: usize,
    ) -> Result<Vec<AuthorId>, StoreError> {
        let proven = above(&self.proofs, space, after).take(limit);
        Ok(proven.map(|(author, _)| author).collect())
    }

    fn evidence_after(
        &self,
        space: &SpaceKey,
        after: Option<&EventId>,
    ) -> Result<Option<(EventId, Run)>, StoreError> {
        let lowest = match after {
            Some(after) => Excluded((space.no, *after)),
            None => Included((space.no, EventId::from_bytes([0; 32]))),
        };
        let highest = Included((space.no, EventId::from_bytes([0xff; 32])));
        let mut rows = self.evidence.range((lowest, highest));
        let space = space.id;
        let read = |((_, first), bytes): (&(u32, EventId), &Bytes)| {
            let run = Run::decode(bytes.clone());
            Ok((*first, run.map_err(|_| Damage::Evidence { space })?))
        };
        rows.next().map(read).transpose()
    }

    fn evidence_at(&self, space: &SpaceKey, first: &EventId) -> Result<Option<Run>, StoreError> {
        let damaged = |_| Damage::Evidence { space: space.id }.into();
        let bytes = self.evidence.get(&(space.no, *first)).cloned();
        bytes
            .map(|bytes| Run::decode(bytes).map_err(damaged))
            .transpose()
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
        shelf: Shelf,
        space: &SpaceKey,
        author: &AuthorId,
        row: &HeadRow,
    ) -> Result<(), StoreError> {
        let key = (space.no, *author);
        let before = self.shelf_mut(shelf).insert(key, *row);
        self.undo.push(Replaced::Head(shelf, key, before));
        Ok(())
    }

    fn remove_head(
        &mut self,
        shelf: Shelf,
        space: &SpaceKey,
        author: &AuthorId,
    ) -> Result<(), StoreError> {
        let key = (space.no, *author);
        let before = self.shelf_mut(shelf).remove(&key);
        self.undo.push(Replaced::Head(shelf, key, before));
        Ok(())
    }

    fn put_proof(
        &mut self,
        space: &SpaceKey,
        author: &AuthorId,
        halves: [&Bytes; 2],
    ) -> Result<(), StoreError> {
        let key = (space.no, *author);
        // In memory of their own: they may share a long frame.
        let halves = halves.map(|half| Bytes::copy_from_slice(half));
        let before = self.proofs.insert(key, halves);
        self.undo.push(Replaced::Proof(key, before));
        Ok(())
    }

    fn put_evidence(
        &mut self,
        space: &SpaceKey,
        first: &EventId,
        run: &Bytes,
    ) -> Result<(), StoreError> {
        let key = (space.no, *first);
        let before = self.evidence.insert(key, Bytes::copy_from_slice(run));
        self.undo.push(Replaced::Evidence(key, before));
        Ok(())
    }

    fn remove_evidence(&mut self, space: &SpaceKey, first: &EventId) -> Result<(), StoreError> {
        let key = (space.no, *first);
        let before = self.evidence.remove(&key);
        self.undo.push(Replaced::Evidence(key, before));
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

    fn remove_node(&mut self, space: &SpaceKey, prefix: &Prefix) -> Result<(), StoreError> {
        let key = (space.no, *prefix);
        let before = self.nodes.remove(&key);
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
    use crate::conformance::{Log, World};
    use headwater_wire::{EventDraft, Grant, MemberKey, Revocation, RevokedDigest, Roles};

    #[test]
    fn an_append_at_once_waits_for_no_reader() {
        let world = World::new(1);
        let store = MemoryStore::new();
        world.found(&store);
        let mut author = world.author(1);
        let run = author.run(3);
        let reading = store.tables().unwrap();
        let none = &Quotas::NONE;
        assert!(store.append_at_once(&[], none).is_none());
        assert!(
            store
                .append_at_once(std::slice::from_ref(&run), none)
                .is_none()
        );
        drop(reading);
        let commit = store.append_at_once(&[run], none).unwrap().unwrap();
        assert!(matches!(&commit.outcomes[..], [Ok(appended)] if appended.events == 3));
    }

    #[test]
    fn what_an_owner_who_forks_revoked_is_found_out_only_where_it_may_have_changed() {
        let mut world = World::new(1);
        let store = MemoryStore::new();
        world.found(&store);
        let key = |number| MemberKey::from_bytes([number; 32]);
        let grant = |number| EventDraft::grant(Grant::new(key(number), Roles::ALL), 0);
        let granted = world.owner.signed(world.owner.head(), vec![grant(1)]);
        let _ = store.append(std::slice::from_ref(&granted)).unwrap();
        world.owner.runs.push(granted);
        let below = (0..20).map(|_| world.owner.run(3)).collect::<Vec<_>>();
        let grants = world.owner.signed(world.owner.head(), vec![grant(2)]);
        world.owner.runs.push(grants.clone());
        let base = world.owner.head();
        let proves = world.owner.branch(base, "y");
        let _ = store.cut(&world.owner.proof(base)).unwrap();
        let revoke = |number| {
            let revocation = Revocation {
                subject: key(number).into(),
                roles: Roles::READ,
                last: None,
            };
            let drafts = vec![EventDraft::revoke(revocation, 0)];
            world.owner.signed(Some(proves.head()), drafts)
        };
        let space = world.space();
        let made = || store.folds.made.load(std::sync::atomic::Ordering::SeqCst);
        let _ = store.append(&[revoke(1)]).unwrap();
        let after_one = made();
        // What it is asked, what grants and revokes nothing, and what comes again.
        for run in &below {
            let commit = store.append(std::slice::from_ref(run)).unwrap();
            assert!(commit.outcomes[0].is_ok());
            assert!(commit.rosters.is_empty());
            let again = store.append(&[revoke(1)]).unwrap();
            assert!(again.outcomes[0].is_err());
            assert!(again.generations.is_empty());
            assert_eq!(store.revoked(&space).unwrap().entries().count(), 1);
            let shown = store.evidence(&space, &[key(1).into()]).unwrap();
            assert_eq!(shown.len(), 1);
        }
        assert_eq!(made(), after_one);
        let commit = store.append(&[grants]).unwrap();
        assert_eq!(commit.rosters, [space]);
        assert_eq!(made(), after_one + 1);
        let commit = store.absorb(&[revoke(2)]).unwrap();
        assert_eq!(commit.rosters, [space]);
        assert_eq!(store.revoked(&space).unwrap().entries().count(), 2);
        assert_eq!(made(), after_one + 1);
        world.assert_sound(&store);
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
            let key = (2, 4);
            tables.runs.remove(&key).map(|row| (key, row)).unwrap()
        };
        let rows = || {
            let tables = store.tables.read().unwrap();
            assert!(tables.undo.is_empty());
            format!(
                "{:?} {:?} {:?} {:?} {:?} {:?}",
                tables.spaces,
                tables.heads,
                tables.hidden,
                tables.proofs,
                tables.runs,
                tables.nodes
            )
        };
        let mut forks = world.author(4);
        let _ = store.append(&[forks.run(3)]).unwrap();
        let before = rows();
        let mut call = vec![other.genesis.clone()];
        call.push(forks.fork(forks.head_at(1)));
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

    #[test]
    fn a_check_sees_evidence_that_shows_nothing_and_a_head_that_tells_of_something_else() {
        let mut world = World::new(1);
        let store = MemoryStore::new();
        world.found(&store);
        let key = MemberKey::from_bytes([5; 32]);
        let grant = EventDraft::grant(Grant::new(key, Roles::READ), 0);
        let granted = world.owner.signed(world.owner.head(), vec![grant]);
        let _ = store.append(std::slice::from_ref(&granted)).unwrap();
        world.owner.runs.push(granted.clone());
        let base = world.owner.head();
        let _ = store.cut(&world.owner.proof(base)).unwrap();
        let revocation = Revocation {
            subject: key.into(),
            roles: Roles::READ,
            last: None,
        };
        let revokes = EventDraft::revoke(revocation, 0);
        let revokes = world.owner.signed(base, vec![revokes]);
        let _ = store.absorb(std::slice::from_ref(&revokes)).unwrap();
        world.assert_sound(&store);
        let fault = Damage::Evidence {
            space: world.space(),
        };
        let changes: [&dyn Fn(&mut MemoryTables); 3] = [
            &|tables| tables.evidence.clear(),
            &|tables| {
                let bytes = granted.run().as_bytes();
                let rows = tables.evidence.values_mut();
                rows.for_each(|row| *row = bytes.clone());
            },
            &|tables| {
                let rows = tables.heads.values_mut();
                rows.for_each(|row| row.revoked = RevokedDigest::NONE);
            },
        ];
        for change in changes {
            let saved = {
                let mut tables = store.tables.write().unwrap();
                let saved = (tables.evidence.clone(), tables.heads.clone());
                change(&mut tables);
                saved
            };
            let report = store.verify(&world.space(), &mut |_| {}).unwrap();
            assert!(report.faults.contains(&fault), "{:?}", report.faults);
            let mut tables = store.tables.write().unwrap();
            (tables.evidence, tables.heads) = saved;
        }
        world.assert_sound(&store);
    }

    #[test]
    fn a_check_sees_rows_that_do_not_fit_each_other() {
        let world = World::new(1);
        let store = MemoryStore::new();
        world.found(&store);
        let [mut forks, mut bound, mut other] = [1, 2, 3].map(|number| world.author(number));
        let runs = [forks.run(7), bound.run(7), other.run(7)];
        let _ = store.append(&runs).unwrap();
        let _ = store.cut(&forks.proof(forks.head_at(4))).unwrap();
        let hide = store.restrict(&world.space(), &bound.author(), Some(0));
        let _ = hide.unwrap();
        world.assert_sound(&store);
        let key = |log: &Log| (0, log.author());
        let (forked, hidden, sound) = (key(&forks), key(&bound), key(&other));
        let proof = |log: &Log| Damage::Proof {
            space: world.space(),
            author: log.author(),
        };
        let head = |log: &Log| Damage::Head {
            space: world.space(),
            author: log.author(),
        };
        let check = |change: &dyn Fn(&mut MemoryTables), expected: Damage| {
            let saved = {
                let mut tables = store.tables.write().unwrap();
                let saved = (
                    tables.heads.clone(),
                    tables.hidden.clone(),
                    tables.proofs.clone(),
                );
                change(&mut tables);
                saved
            };
            let report = store.verify(&world.space(), &mut |_| {}).unwrap();
            assert!(report.faults.contains(&expected), "{:?}", report.faults);
            let mut tables = store.tables.write().unwrap();
            (tables.heads, tables.hidden, tables.proofs) = saved;
        };
        let row = |tables: &mut MemoryTables, key, change: fn(&mut HeadRow)| {
            tables.heads.entry(key).and_modify(change);
            tables.hidden.entry(key).and_modify(change);
        };
        // A proof that is gone, one that is another log's, one that is nobody's.
        check(
            &|tables| assert!(tables.proofs.remove(&forked).is_some()),
            proof(&forks),
        );
        check(
            &|tables| {
                let halves = tables.proofs[&forked].clone();
                tables.proofs.insert(sound, halves);
            },
            proof(&other),
        );
        check(
            &|tables| row(tables, forked, |row| row.fork = Some(4)),
            proof(&forks),
        );
        // A proof of the same seq that goes on from another event than the log has.
        let elsewhere = forks.branch(forks.head_at(2), "xx").head();
        let astray = forks.proof(Some(elsewhere));
        check(
            &|tables| {
                let halves = [astray.first(), astray.second()];
                let halves = halves.map(|half| half.run().as_bytes().clone());
                tables.proofs.insert(forked, halves);
            },
            proof(&forks),
        );
        // A head that is not where its bounds put it, and a row on the wrong shelf.
        let ends = |row: &mut HeadRow| (row.head, row.payload_bytes) = (row.end, 7 * 40);
        check(&|tables| row(tables, forked, ends), head(&forks));
        check(&|tables| row(tables, hidden, ends), head(&bound));
        check(
            &|tables| row(tables, hidden, |row| row.through = None),
            head(&bound),
        );
        check(
            &|tables| row(tables, sound, |row| row.payload_bytes -= 1),
            head(&other),
        );
        let space = world.space();
        check(
            &|tables| assert!(tables.hidden.remove(&hidden).is_some()),
            Damage::Space { space },
        );
        world.assert_sound(&store);
    }
}
