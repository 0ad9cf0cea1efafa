//! Admits runs to their logs, within one transaction.
//!
//! ```text
//! VerifiedRun ──▶ admit(head) ──▶ cut off the overlap ──▶ side + bytes into the tables
//!                    │                                    head moves on, in memory
//!                    ▼ refused                            ▼ after the last run
//!                 outcome                     heads tree, heads, totals, generation
//! ```
//!
//! Invariant: whatever the order of runs in a call, a log never has a gap, and the tables are as
//! they would be if each run had come in a call of its own.

use std::collections::{BTreeMap, btree_map::Entry};

use headwater_proto::history::Appended;
use headwater_wire::{
    Admission, AppendError, AuthorHead, AuthorId, SpaceId, VerifiedRun, admit, tree,
};

use crate::{
    Commit, StoreError,
    heads_tree::{self, LeafChange, Subtree},
    merge, read,
    records::{HeadRow, LogKey, Side, SpaceRow},
    tables::{Tables, TablesMut},
};

/// Appends runs in order and says what became of each.
///
/// On an error the tables are in no state to be kept.
pub(crate) fn append(
    tables: &mut impl TablesMut,
    runs: &[VerifiedRun],
) -> Result<Commit, StoreError> {
    let mut spaces = BTreeMap::new();
    let mut outcomes = Vec::with_capacity(runs.len());
    for run in runs {
        outcomes.push(append_run(tables, &mut spaces, run)?);
    }
    let mut generations = Vec::new();
    for (id, open) in spaces {
        if let Some(generation) = open.close(tables, &id)? {
            generations.push((id, generation));
        }
    }
    Ok(Commit {
        outcomes,
        generations,
    })
}

/// A space some run of the call speaks of.
struct OpenSpace {
    row: SpaceRow,
    logs: BTreeMap<AuthorId, OpenLog>,
}

/// A log some run of the call speaks of.
struct OpenLog {
    before: Option<HeadRow>,
    now: Option<HeadRow>,
}

fn append_run(
    tables: &mut impl TablesMut,
    spaces: &mut BTreeMap<SpaceId, OpenSpace>,
    run: &VerifiedRun,
) -> Result<Result<Appended, AppendError>, StoreError> {
    let id = run.space();
    let author = run.author();
    let space = match spaces.entry(id) {
        Entry::Occupied(open) => open.into_mut(),
        Entry::Vacant(place) => {
            let row = match tables.space(&id)? {
                Some(row) => row,
                None if run.is_genesis() => SpaceRow::new(tables.new_space_no()?, author),
                None => return Ok(Err(AppendError::NoGenesis { space: id })),
            };
            let logs = BTreeMap::new();
            place.insert(OpenSpace { row, logs })
        }
    };
    let log = match space.logs.entry(author) {
        Entry::Occupied(open) => open.into_mut(),
        Entry::Vacant(place) => {
            let before = tables.head(&space.row.key(id), &author)?;
            let now = before;
            place.insert(OpenLog { before, now })
        }
    };
    let kept = match admitted(tables, &id, log.now.as_ref(), run)? {
        Ok(kept) => kept,
        Err(refused) => return Ok(Err(refused)),
    };
    let row = match log.now {
        Some(row) => row,
        None => HeadRow {
            log: tables.new_log_no()?,
            head: kept.head(),
            forked: false,
            payload_bytes: 0,
        },
    };
    log.now = Some(put(tables, &row, &kept)?);
    Ok(Ok(Appended {
        author,
        events: kept.run().event_count() as u64,
        payload_bytes: kept.run().payload_bytes(),
        head: kept.head(),
    }))
}

/// What of a run is to be stored above this head, or why nothing is.
fn admitted(
    tables: &impl Tables,
    space: &SpaceId,
    row: Option<&HeadRow>,
    run: &VerifiedRun,
) -> Result<Result<VerifiedRun, AppendError>, StoreError> {
    let head: Option<AuthorHead> = row.map(|row| row.head);
    let mut trouble = None;
    let id_at = |seq| {
        let key = row?.log_key(*space, run.author());
        read::id_at(tables, &key, seq)
            .map_err(|error| trouble = Some(error))
            .ok()
    };
    let admission = admit(head, run, id_at);
    if let Some(error) = trouble {
        return Err(error);
    }
    Ok(match admission {
        Ok(Admission::Whole) => Ok(run.clone()),
        Ok(Admission::Above(seq)) => run.above(seq).ok_or(AppendError::Stale {
            author: run.author(),
            head: seq,
        }),
        Err(refused) => Err(refused),
    })
}

/// Stores a run that follows a head, and returns the head after it.
fn put(
    tables: &mut impl TablesMut,
    row: &HeadRow,
    run: &VerifiedRun,
) -> Result<HeadRow, StoreError> {
    let key = LogKey {
        space: run.space(),
        author: run.author(),
        no: row.log,
    };
    let tier = merge::first_tier(run);
    let side = Side::of(run.run(), run.ids(), row.payload_bytes, tier);
    tables.put_run(&key, &side, run.run().as_bytes())?;
    merge::tail(tables, &key, &side)?;
    Ok(HeadRow {
        head: run.head(),
        payload_bytes: row.payload_bytes.saturating_add(side.payload_bytes),
        ..*row
    })
}

impl OpenSpace {
    /// Writes what changed in a space, and returns its new generation if anything did.
    fn close(
        mut self,
        tables: &mut impl TablesMut,
        id: &SpaceId,
    ) -> Result<Option<u64>, StoreError> {
        let key = self.row.key(*id);
        self.logs.retain(|_, log| log.now != log.before);
        if self.logs.is_empty() {
            return Ok(None);
        }
        let mut changes = Vec::with_capacity(self.logs.len());
        for (author, log) in &self.logs {
            let Some(now) = log.now else { continue };
            changes.push(LeafChange {
                author: *author,
                digest: tree::leaf(&now.entry(*author)),
                is_new: log.before.is_none(),
            });
        }
        let root = Subtree::root(self.row.authors, self.row.digest);
        self.row.digest = heads_tree::update(tables, &key, root, &changes)?;
        for (author, log) in &self.logs {
            let Some(now) = log.now else { continue };
            tables.put_head(&key, author, &now)?;
            let (events, payload_bytes) = if let Some(before) = &log.before {
                (before.head.seq, before.payload_bytes)
            } else {
                self.row.authors += 1;
                (0, 0)
            };
            let row = &mut self.row;
            row.events = row
                .events
                .saturating_add(now.head.seq.saturating_sub(events));
            let grown = now.payload_bytes.saturating_sub(payload_bytes);
            row.payload_bytes = row.payload_bytes.saturating_add(grown);
        }
        self.row.generation += 1;
        tables.put_space(id, &self.row)?;
        Ok(Some(self.row.generation))
    }
}
