//! What an owner who forks has revoked above the cut, and what shows it.
//!
//! ```text
//! what shows of the owner's log ──▶ roster ─┐
//! stored chain above the cut ───────────────┼▶ fold ──▶ Found ─┬▶ digest ──▶ the log's row
//! evidence kept, and what comes new ────────┘                  └▶ evidence that is needed, kept
//! ```
//!
//! The owner signed each of these runs: that is enough for what they revoke, whether they go on from
//! anything that is stored or not. Only what takes away something the roster below the cut grants is
//! kept, one run for each of it at most, so evidence is bounded by what is granted there.
//!
//! Invariant: the digest in a row follows from the row, the chain and the evidence alone. What is
//! offered and changes nothing leaves every row as it is.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use headwater_wire::{
    AuthorId, EventId, Revocation, Revoked, RevokedDigest, Roles, RosterState, Run, SpaceId,
    Subject, VerifiedRun,
};

use crate::{
    Damage, StoreError,
    changes::{Changes, Written, log_row},
    folds::{Fold, Folds},
    read::{self, side_at},
    records::{HeadRow, LogKey, SpaceKey},
    tables::{Tables, TablesMut},
};

/// Members of a roster that is held in memory between two calls: about 2 MiB of them at most.
const MAX_HELD_MEMBERS: usize = 16_384;

/// A run that shows a revocation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Source {
    /// One of the stored chain; it ends at this seq.
    Chain(u64),
    /// One that was kept: it begins with this event.
    Kept(EventId),
    /// One of those offered.
    New(usize),
}

/// The best that is known of one role of one subject.
#[derive(Debug, Clone, Copy)]
struct Best {
    source: Source,
    /// Where in it the revocation stands.
    seq: u64,
}

/// What is revoked, and by what it shows.
#[derive(Debug, Clone)]
pub(crate) struct Found {
    /// `None` if the log does not fork, and then nothing is revoked.
    fork: Option<u64>,
    /// What the events that show grant.
    shown: RosterState,
    revoked: Revoked,
    best: BTreeMap<(Subject, Roles), Best>,
    kept: BTreeSet<EventId>,
}

impl Found {
    fn new(fork: Option<u64>, shown: RosterState) -> Found {
        Found {
            fork,
            shown,
            revoked: Revoked::new(),
            best: BTreeMap::new(),
            kept: BTreeSet::new(),
        }
    }

    /// Takes in runs that are neither of the stored chain nor kept.
    pub(crate) fn take_in(&mut self, new: &[VerifiedRun]) {
        for (index, run) in new.iter().enumerate() {
            self.offer_run(run.run(), Source::New(index));
        }
    }

    /// Takes in the revocations of a run that are above the cut.
    fn offer_run(&mut self, run: &Run, source: Source) {
        let Some(fork) = self.fork else {
            return;
        };
        for (seq, revocation) in run.revocations().filter(|(seq, _)| *seq >= fork) {
            self.offer(&revocation, source, seq);
        }
    }

    /// Takes in a revocation above the cut. Of two that take the same, the first is the better one.
    fn offer(&mut self, revocation: &Revocation, source: Source, seq: u64) {
        let Some(relevant) = Revoked::relevant(&self.shown, revocation) else {
            return;
        };
        for role in [Roles::READ, Roles::WRITE, Roles::PROVIDE] {
            if !relevant.roles.contains(role) {
                continue;
            }
            let last = relevant.last.filter(|_| role == Roles::WRITE);
            let part = Revocation {
                subject: relevant.subject,
                roles: role,
                last,
            };
            if self.revoked.insert(&part) {
                let best = Best { source, seq };
                self.best.insert((part.subject, role), best);
            }
        }
    }

    pub(crate) fn digest(&self) -> RevokedDigest {
        self.revoked.digest()
    }

    /// The first of the revocations that matter in each of the runs that are needed.
    fn needed(&self, is_wanted: impl Fn(&Subject) -> bool) -> BTreeMap<Source, u64> {
        let mut needed = BTreeMap::new();
        for ((subject, _), best) in &self.best {
            if is_wanted(subject) {
                let seq = needed.entry(best.source).or_insert(best.seq);
                *seq = best.seq.min(*seq);
            }
        }
        needed
    }

    /// Whether it is little enough to be held in memory.
    pub(crate) fn is_small(&self) -> bool {
        self.shown.members().take(MAX_HELD_MEMBERS + 1).count() <= MAX_HELD_MEMBERS
    }

    /// Keeps the evidence that is needed and no other. Returns whether any row changed.
    pub(crate) fn keep(
        &mut self,
        tables: &mut impl TablesMut,
        space: &SpaceKey,
        new: &[VerifiedRun],
    ) -> Result<bool, StoreError> {
        let needed = self.needed(|_| true);
        let mut changed = false;
        let is_needed = |id: &EventId| needed.contains_key(&Source::Kept(*id));
        let (kept, removed) = std::mem::take(&mut self.kept)
            .into_iter()
            .partition(is_needed);
        self.kept = kept;
        let removed: BTreeSet<EventId> = removed;
        for id in &removed {
            tables.remove_evidence(space, id)?;
            changed = true;
        }
        for (source, seq) in needed {
            let Source::New(at) = source else {
                continue;
            };
            let evidence = new.get(at).and_then(|run| run.evidence_from(seq));
            let first = evidence.as_ref().and_then(|run| run.id_at(seq));
            if let (Some(evidence), Some(id)) = (evidence, first) {
                tables.put_evidence(space, &id, evidence.run().as_bytes())?;
                changed = true;
                self.kept.insert(id);
                for best in self.best.values_mut().filter(|best| best.source == source) {
                    best.source = Source::Kept(id);
                }
            }
        }
        Ok(changed)
    }

    /// The runs that show what is revoked of these subjects; `None` if one is no longer kept.
    fn runs(
        &self,
        tables: &impl Tables,
        space: &SpaceKey,
        log: &LogKey,
        wanted: &BTreeSet<&Subject>,
    ) -> Result<Option<Vec<Run>>, StoreError> {
        let mut runs = Vec::new();
        for (source, seq) in self.needed(|subject| wanted.contains(subject)) {
            match source {
                Source::Chain(last) => {
                    let side = side_at(tables, log, last)?;
                    let run = read::decoded(tables, log, &side)?;
                    let run = match seq > run.first_seq() {
                        true => read::above(log, &side, run, seq - 1)?,
                        false => run,
                    };
                    runs.push(run.as_evidence());
                }
                Source::Kept(id) => match tables.evidence_at(space, &id)? {
                    Some(run) => runs.push(run),
                    None => return Ok(None),
                },
                Source::New(_) => {}
            }
        }
        Ok(Some(runs))
    }
}

/// Finds out what is revoked above the cut of an owner's log.
///
/// What was `found` for another row of the log spares reading its roster again.
pub(crate) fn fold(
    tables: &impl Tables,
    space: &SpaceKey,
    owner: &AuthorId,
    row: &HeadRow,
    found: Option<(&HeadRow, &Found)>,
) -> Result<Found, StoreError> {
    let Some(fork) = row.fork else {
        return Ok(Found::new(None, RosterState::new(*owner)));
    };
    let log = row.log_key(space.id, *owner);
    // Whatever the log shows, it shows the same events from the first one on.
    let start = match found {
        Some((before, found))
            if found.fork.is_some() && before.log == row.log && before.head.seq <= row.head.seq =>
        {
            (found.shown.clone(), before.head.seq)
        }
        _ => (RosterState::new(*owner), 0),
    };
    let shown = roster(tables, &log, start, row.head.seq)?;
    let mut found = Found::new(Some(fork), shown);
    let mut seq = fork;
    while seq <= row.end.seq {
        let side = side_at(tables, &log, seq)?;
        let run = read::decoded(tables, &log, &side)?;
        found.offer_run(&run, Source::Chain(side.last_seq));
        seq = side.last_seq.saturating_add(1);
    }
    let mut after = None;
    while let Some((id, run)) = tables.evidence_after(space, after.as_ref())? {
        found.kept.insert(id);
        found.offer_run(&run, Source::Kept(id));
        after = Some(id);
    }
    Ok(found)
}

/// What the events that show grant, from what those up to a seq do.
fn roster(
    tables: &impl Tables,
    log: &LogKey,
    start: (RosterState, u64),
    head: u64,
) -> Result<RosterState, StoreError> {
    let (mut state, known) = start;
    let mut seq = known.saturating_add(1);
    while seq <= head {
        let side = side_at(tables, log, seq)?;
        let run = read::decoded(tables, log, &side)?;
        let is_new = |at: u64| known < at && at <= head;
        for (_, change) in run.roster_changes().filter(|(at, _)| is_new(*at)) {
            state.change(&change);
        }
        seq = side.last_seq.saturating_add(1);
    }
    Ok(state)
}

/// Takes in runs that show what an owner who forks has revoked.
pub(crate) fn absorb(
    tables: &mut impl TablesMut,
    folds: &Folds,
    runs: &[VerifiedRun],
) -> Result<Written, StoreError> {
    let mut changes = Changes::new(folds);
    for run in runs {
        if let Some(space) = changes.space(tables, run.space(), None)? {
            space.offer(tables, run)?;
        }
    }
    changes.close(tables, Vec::new())
}

/// The owner's log of a space, as far as its row goes, if anything is revoked above its cut.
fn owners(
    tables: &impl Tables,
    space: &SpaceId,
) -> Result<Option<(SpaceKey, AuthorId, HeadRow)>, StoreError> {
    let Some(row) = tables.space(space)? else {
        return Ok(None);
    };
    let (key, owner) = (row.key(*space), row.owner);
    let log = log_row(tables, &row, &key, &owner)?;
    let log = log.filter(|log| log.revoked != RevokedDigest::NONE);
    Ok(log.map(|log| (key, owner, log)))
}

/// What is held for the row, or found out now.
fn found(
    tables: &impl Tables,
    folds: &Folds,
    space: &SpaceKey,
    owner: &AuthorId,
    row: &HeadRow,
) -> Result<Arc<Found>, StoreError> {
    match folds.get(space, row) {
        Some(found) => Ok(found),
        None => found_anew(tables, folds, space, owner, row),
    }
}

/// Finds it out, whatever is held.
fn found_anew(
    tables: &impl Tables,
    folds: &Folds,
    space: &SpaceKey,
    owner: &AuthorId,
    row: &HeadRow,
) -> Result<Arc<Found>, StoreError> {
    let found = Arc::new(folds.fold(tables, space, owner, row)?);
    folds.put(Fold {
        space: *space,
        row: *row,
        found: Arc::clone(&found),
    });
    Ok(found)
}

pub(crate) fn revoked(
    tables: &impl Tables,
    folds: &Folds,
    space: &SpaceId,
) -> Result<Revoked, StoreError> {
    match owners(tables, space)? {
        Some((key, owner, row)) => Ok(found(tables, folds, &key, &owner, &row)?.revoked.clone()),
        None => Ok(Revoked::new()),
    }
}

/// The runs that show what is revoked of these subjects.
pub(crate) fn evidence(
    tables: &impl Tables,
    folds: &Folds,
    space: &SpaceId,
    subjects: &[Subject],
) -> Result<Vec<Run>, StoreError> {
    let Some((key, owner, row)) = owners(tables, space)? else {
        return Ok(Vec::new());
    };
    let log = row.log_key(key.id, owner);
    let wanted: BTreeSet<_> = subjects.iter().collect();
    let shown = found(tables, folds, &key, &owner, &row)?;
    if let Some(runs) = shown.runs(tables, &key, &log, &wanted)? {
        return Ok(runs);
    }
    // Other evidence of the same is kept by now.
    let shown = found_anew(tables, folds, &key, &owner, &row)?;
    let runs = shown.runs(tables, &key, &log, &wanted)?;
    runs.ok_or(Damage::Evidence { space: *space }.into())
}
