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

use std::collections::{BTreeMap, BTreeSet};

use headwater_wire::{
    AuthorId, EventId, Revocation, Revoked, RevokedDigest, Roles, RosterState, Run, SpaceId,
    Subject, VerifiedRun,
};

use crate::{
    StoreError,
    changes::{Changes, Written, log_row},
    read::{self, side_at},
    records::{HeadRow, LogKey, SpaceKey},
    tables::{Tables, TablesMut},
};

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
#[derive(Debug, Default)]
pub(crate) struct Found {
    revoked: Revoked,
    best: BTreeMap<(Subject, Roles), Best>,
    kept: BTreeSet<EventId>,
}

impl Found {
    /// Takes in a revocation above the cut. Of two that take the same, the first is the better one.
    fn offer(&mut self, shown: &RosterState, revocation: &Revocation, source: Source, seq: u64) {
        let Some(relevant) = Revoked::relevant(shown, revocation) else {
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

    /// Keeps the evidence that is needed and no other. Returns whether any row changed.
    pub(crate) fn keep(
        &self,
        tables: &mut impl TablesMut,
        space: &SpaceKey,
        new: &[VerifiedRun],
    ) -> Result<bool, StoreError> {
        let needed = self.needed(|_| true);
        let mut changed = false;
        for id in &self.kept {
            if !needed.contains_key(&Source::Kept(*id)) {
                tables.remove_evidence(space, id)?;
                changed = true;
            }
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
            }
        }
        Ok(changed)
    }
}

/// Finds out what is revoked above the cut of an owner's log.
pub(crate) fn fold(
    tables: &impl Tables,
    space: &SpaceKey,
    owner: &AuthorId,
    row: &HeadRow,
    new: &[VerifiedRun],
) -> Result<Found, StoreError> {
    let mut found = Found::default();
    let Some(fork) = row.fork else {
        return Ok(found);
    };
    let log = row.log_key(space.id, *owner);
    let shown = roster(tables, &log, row.head.seq)?;
    let mut seq = fork;
    while seq <= row.end.seq {
        let side = side_at(tables, &log, seq)?;
        let run = read::decoded(tables, &log, &side)?;
        for (at, revocation) in run.revocations().filter(|(at, _)| *at >= fork) {
            found.offer(&shown, &revocation, Source::Chain(side.last_seq), at);
        }
        seq = side.last_seq.saturating_add(1);
    }
    for (id, run) in tables.evidence(space)? {
        found.kept.insert(id);
        for (at, revocation) in run.revocations().filter(|(at, _)| *at >= fork) {
            found.offer(&shown, &revocation, Source::Kept(id), at);
        }
    }
    for (index, run) in new.iter().enumerate() {
        let revocations = run.run().revocations();
        for (at, revocation) in revocations.filter(|(at, _)| *at >= fork) {
            found.offer(&shown, &revocation, Source::New(index), at);
        }
    }
    Ok(found)
}

/// What the events that show grant.
fn roster(tables: &impl Tables, log: &LogKey, head: u64) -> Result<RosterState, StoreError> {
    let mut state = RosterState::new(log.author);
    let mut seq = 1;
    while seq <= head {
        let side = side_at(tables, log, seq)?;
        let run = read::decoded(tables, log, &side)?;
        for (_, change) in run.roster_changes().filter(|(at, _)| *at <= head) {
            state.change(&change);
        }
        seq = side.last_seq.saturating_add(1);
    }
    Ok(state)
}

/// Takes in runs that show what an owner who forks has revoked.
pub(crate) fn absorb(
    tables: &mut impl TablesMut,
    runs: &[VerifiedRun],
) -> Result<Written, StoreError> {
    let mut changes = Changes::default();
    for run in runs {
        if let Some(space) = changes.space(tables, run.space(), None)? {
            let _row = space.log(tables, &run.author())?;
            space.offer(run);
        }
    }
    changes.close(tables, Vec::new())
}

/// The owner's log of a space, as far as its row goes.
fn owners(
    tables: &impl Tables,
    space: &SpaceId,
) -> Result<Option<(SpaceKey, AuthorId, HeadRow)>, StoreError> {
    let Some(row) = tables.space(space)? else {
        return Ok(None);
    };
    let (key, owner) = (row.key(*space), row.owner);
    let log = log_row(tables, &row, &key, &owner)?;
    Ok(log.map(|log| (key, owner, log)))
}

pub(crate) fn revoked(tables: &impl Tables, space: &SpaceId) -> Result<Revoked, StoreError> {
    match owners(tables, space)? {
        Some((key, owner, row)) => Ok(fold(tables, &key, &owner, &row, &[])?.revoked),
        None => Ok(Revoked::new()),
    }
}

/// The runs that show what is revoked of these subjects.
pub(crate) fn evidence(
    tables: &impl Tables,
    space: &SpaceId,
    subjects: &[Subject],
) -> Result<Vec<Run>, StoreError> {
    let Some((key, owner, row)) = owners(tables, space)? else {
        return Ok(Vec::new());
    };
    let log = row.log_key(key.id, owner);
    let found = fold(tables, &key, &owner, &row, &[])?;
    let wanted: BTreeSet<_> = subjects.iter().collect();
    let mut kept: BTreeMap<_, _> = tables.evidence(&key)?.into_iter().collect();
    let mut runs = Vec::new();
    for (source, seq) in found.needed(|subject| wanted.contains(subject)) {
        match source {
            Source::Chain(last) => {
                let side = side_at(tables, &log, last)?;
                let run = read::decoded(tables, &log, &side)?;
                let run = match seq > run.first_seq() {
                    true => read::above(&log, &side, run, seq - 1)?,
                    false => run,
                };
                runs.push(run.as_evidence());
            }
            Source::Kept(id) => runs.extend(kept.remove(&id)),
            Source::New(_) => {}
        }
    }
    Ok(runs)
}
