//! Forks and bounds: how a log is cut, and what is told of what lies above the cut.
//!
//! ```text
//! run ──▶ contradiction / below_proof ──▶ proof ──▶ keep ──▶ row with a lower head
//! proof from elsewhere ──▶ cut ───────────────────────▲
//! through ──▶ restrict ──▶ row with another head
//! ```
//!
//! A cut moves a head and nothing else: runs stay where they are, and what is visible follows
//! from the row. So a bound that is lifted, or a run that is merged across the cut, loses nothing.

use headwater_proto::history::Appended;
use headwater_wire::{
    AppendError, AuthorHead, AuthorId, Run, SpaceId, VerifiedForkProof, VerifiedRun,
};

use crate::{
    Bounds, Commit, Damage, ForkRecord, StoreError,
    changes::{Changes, Written, log_row},
    folds::Folds,
    read::{self, damaged_run, side_at},
    records::{HeadRow, LogKey, Shelf, Side, SpaceKey, SpaceRow},
    tables::{Tables, TablesMut},
};

/// No run, no outcome.
const NO_OUTCOMES: Vec<Result<Appended, AppendError>> = Vec::new();

/// Keeps a proof, or the lower one it makes together with what is stored.
pub(crate) fn cut(
    tables: &mut impl TablesMut,
    folds: &Folds,
    proof: &VerifiedForkProof,
) -> Result<Written, StoreError> {
    let mut changes = Changes::new(folds);
    let author = proof.author();
    if let Some(space) = changes.space(tables, proof.space(), None)? {
        let key = space.key;
        let log = space.log(tables, &author)?;
        let held = log.now.and_then(|row| row.fork);
        // One as low as the one held may go on from another event than it does.
        if held.is_none_or(|held| proof.seq() <= held) {
            let lower = match &log.now {
                Some(row) => below_chain(tables, &row.log_key(key.id, author), row, proof)?,
                None => None,
            };
            let proof = lower.as_ref().unwrap_or(proof);
            if held.is_none_or(|held| proof.seq() < held) {
                let row = log.row_or_new(tables)?;
                log.now = Some(keep(tables, &key, row, proof)?);
            }
        }
    }
    changes.close(tables, NO_OUTCOMES)
}

/// Sets or lifts the last seq that is accepted of an author.
pub(crate) fn restrict(
    tables: &mut impl TablesMut,
    folds: &Folds,
    space: &SpaceId,
    author: &AuthorId,
    through: Option<u64>,
) -> Result<Written, StoreError> {
    let mut changes = Changes::new(folds);
    if let Some(open) = changes.space(tables, *space, None)? {
        let log = open.log(tables, author)?;
        if log.now.is_some() || through.is_some() {
            let row = HeadRow {
                through,
                ..log.row_or_new(tables)?
            };
            let row = with_head(tables, &row.log_key(*space, *author), row)?;
            log.now = Some(row).filter(|row| !row.is_vacant());
        }
    }
    changes.close(tables, NO_OUTCOMES)
}

/// Notes how the bounds of a space stand to what its owner's log says.
pub(crate) fn set_bounds(
    tables: &mut impl TablesMut,
    space: &SpaceId,
    bounds: Bounds,
) -> Result<Written, StoreError> {
    let row = tables.space(space)?.filter(|row| row.bounds != bounds);
    if let Some(row) = row {
        tables.put_space(space, &SpaceRow { bounds, ..row })?;
    }
    Ok(Written {
        commit: Commit::default(),
        changed: row.is_some(),
        folds: Vec::new(),
    })
}

/// Puts a proof in place of the one held, and returns the row of the log as it is cut now.
pub(crate) fn keep(
    tables: &mut impl TablesMut,
    space: &SpaceKey,
    row: HeadRow,
    proof: &VerifiedForkProof,
) -> Result<HeadRow, StoreError> {
    let author = proof.author();
    let halves = [proof.first().as_stubs(), proof.second().as_stubs()];
    let [first, second] = halves.each_ref().map(|half| half.run().as_bytes());
    tables.put_proof(space, &author, [first, second])?;
    let row = HeadRow {
        fork: Some(proof.seq()),
        ..row
    };
    with_head(tables, &row.log_key(space.id, author), row)
}

/// Sets the visible head to what the bounds of a row let be seen.
fn with_head(tables: &impl Tables, log: &LogKey, row: HeadRow) -> Result<HeadRow, StoreError> {
    let seq = row.limit().min(row.end.seq);
    let (head, payload_bytes) = if seq == row.end.seq {
        (row.end, row.end_payload_bytes)
    } else if seq == row.head.seq {
        (row.head, row.payload_bytes)
    } else if seq == 0 {
        (AuthorHead::NONE, 0)
    } else {
        let side = side_at(tables, log, seq)?;
        let id = read::id_in(tables, log, &side, seq)?;
        let in_run = if seq == side.last_seq {
            side.payload_bytes
        } else {
            read::decoded(tables, log, &side)?.payload_bytes_through(seq)
        };
        let payload_bytes = side.payload_before.saturating_add(in_run);
        (AuthorHead { seq, id }, payload_bytes)
    };
    Ok(HeadRow {
        head,
        payload_bytes,
        ..row
    })
}

/// The lowest fork between a log and a run that differs from it at or below `through`.
pub(crate) fn contradiction(
    tables: &impl Tables,
    log: &LogKey,
    run: &VerifiedRun,
    through: u64,
) -> Result<VerifiedForkProof, StoreError> {
    let base = run.first_seq() - 1;
    let last = run.last_seq().min(through);
    let mut seq = base.max(1);
    loop {
        let side = side_at(tables, log, seq)?;
        let last_here = side.last_seq.min(last);
        let theirs = match last_here == base {
            true => run.run().first_prev(),
            false => run.id_at(last_here),
        };
        if theirs != Some(read::id_in(tables, log, &side, last_here)?) {
            let ours = verified(tables, log, &side)?;
            let proof = VerifiedForkProof::of(&ours, run);
            return proof.ok_or_else(|| damaged_run(log, &side));
        }
        // They are equal up to here, so they differ above, unless a row is not what it was.
        if last_here >= last {
            return Err(damaged_run(log, &side));
        }
        seq = last_here.saturating_add(1);
    }
}

/// The fork below the one held, if a run that brings the event before it brings another one than
/// the proof goes on from.
pub(crate) fn below_proof(
    tables: &impl Tables,
    space: &SpaceKey,
    row: &HeadRow,
    run: &VerifiedRun,
) -> Result<Option<VerifiedForkProof>, StoreError> {
    let Some(fork) = row.fork.filter(|_| row.end.seq < row.below_fork()) else {
        return Ok(None);
    };
    let Some(id) = run.id_at(row.below_fork()) else {
        return Ok(None);
    };
    let proof = held_proof(tables, space, &run.author(), fork)?;
    if proof.base().is_none_or(|base| base.id == id) {
        return Ok(None);
    }
    Ok(VerifiedForkProof::of(run, proof.first()))
}

/// The fork below one that is proven, if the event stored before it is another one than the proof
/// goes on from.
fn below_chain(
    tables: &impl Tables,
    log: &LogKey,
    row: &HeadRow,
    proof: &VerifiedForkProof,
) -> Result<Option<VerifiedForkProof>, StoreError> {
    let Some(base) = proof.base().filter(|base| base.seq <= row.end.seq) else {
        return Ok(None);
    };
    let side = side_at(tables, log, base.seq)?;
    if read::id_in(tables, log, &side, base.seq)? == base.id {
        return Ok(None);
    }
    let ours = verified(tables, log, &side)?;
    Ok(VerifiedForkProof::of(&ours, proof.first()))
}

/// A stored run with its signature checked again.
pub(crate) fn verified(
    tables: &impl Tables,
    log: &LogKey,
    side: &Side,
) -> Result<VerifiedRun, StoreError> {
    let run = read::decoded(tables, log, side)?;
    run.verify(&log.space).map_err(|_| damaged_run(log, side))
}

/// The proof of a log that forks here, verified again.
pub(crate) fn held_proof(
    tables: &impl Tables,
    space: &SpaceKey,
    author: &AuthorId,
    seq: u64,
) -> Result<VerifiedForkProof, StoreError> {
    let damaged = || Damage::Proof {
        space: space.id,
        author: *author,
    };
    let proof = tables.proof(space, author)?.ok_or_else(damaged)?;
    let proof = proof.verify(&space.id).map_err(|_| damaged())?;
    if (proof.author(), proof.seq()) == (*author, seq) {
        Ok(proof)
    } else {
        Err(damaged().into())
    }
}

pub(crate) fn fork(
    tables: &impl Tables,
    space: &SpaceId,
    author: &AuthorId,
) -> Result<Option<ForkRecord>, StoreError> {
    match tables.space(space)? {
        Some(row) => record(tables, &row, &row.key(*space), author),
        None => Ok(None),
    }
}

pub(crate) fn forks(
    tables: &impl Tables,
    space: &SpaceId,
    after: Option<AuthorId>,
    limit: usize,
) -> Result<Vec<ForkRecord>, StoreError> {
    let mut records = Vec::new();
    if let Some(row) = tables.space(space)? {
        let key = row.key(*space);
        for author in tables.proven_after(&key, after.as_ref(), limit.max(1))? {
            records.extend(record(tables, &row, &key, &author)?);
        }
    }
    Ok(records)
}

fn record(
    tables: &impl Tables,
    of_space: &SpaceRow,
    space: &SpaceKey,
    author: &AuthorId,
) -> Result<Option<ForkRecord>, StoreError> {
    let Some(row) = log_row(tables, of_space, space, author)? else {
        return Ok(None);
    };
    let Some(seq) = row.fork else {
        return Ok(None);
    };
    let proof = tables.proof(space, author)?.ok_or(Damage::Proof {
        space: space.id,
        author: *author,
    })?;
    Ok(Some(ForkRecord {
        author: *author,
        seq,
        proof,
        head: Some(row.head).filter(|head| head.seq > 0),
        evidence_events: row.evidence_events(),
    }))
}

/// The row of a log and its key, visible or not.
fn stored(
    tables: &impl Tables,
    space: &SpaceId,
    author: &AuthorId,
) -> Result<Option<(LogKey, HeadRow)>, StoreError> {
    let Some(row) = tables.space(space)? else {
        return Ok(None);
    };
    let row = log_row(tables, &row, &row.key(*space), author)?;
    Ok(row.map(|row| (row.log_key(*space, *author), row)))
}

pub(crate) fn chain(
    tables: &impl Tables,
    space: &SpaceId,
    author: &AuthorId,
    seqs: &[u64],
) -> Result<Vec<Option<AuthorHead>>, StoreError> {
    let Some((log, row)) = stored(tables, space, author)? else {
        return Ok(vec![None; seqs.len()]);
    };
    // Several events of one run stand next to each other, in whichever order they are asked for.
    let mut last: Option<(Side, Run)> = None;
    let at = |seq: &u64| match *seq {
        seq if seq == 0 || seq > row.end.seq => Ok(None),
        seq if seq == row.end.seq => Ok(Some(row.end)),
        seq => {
            let (side, run) = match last.take().filter(|(side, _)| side.holds(seq)) {
                Some((side, run)) => (side, Some(run)),
                None => (side_at(tables, &log, seq)?, None),
            };
            if let Some(id) = side.kept_id(seq) {
                last = run.map(|run| (side, run));
                return Ok(Some(AuthorHead { seq, id }));
            }
            let run = run.map_or_else(|| read::decoded(tables, &log, &side), Ok)?;
            let id = read::id_of(&log, &side, &run, seq)?;
            last = Some((side, run));
            Ok(Some(AuthorHead { seq, id }))
        }
    };
    seqs.iter().map(at).collect()
}

pub(crate) fn stored_end(
    tables: &impl Tables,
    space: &SpaceId,
    author: &AuthorId,
) -> Result<Option<AuthorHead>, StoreError> {
    let stored = stored(tables, space, author)?;
    Ok(stored
        .map(|(_, row)| row.end)
        .filter(|end| *end != AuthorHead::NONE))
}

pub(crate) fn branch(
    tables: &impl Tables,
    space: &SpaceId,
    author: &AuthorId,
    seq: u64,
) -> Result<Option<Run>, StoreError> {
    let Some((log, row)) = stored(tables, space, author)? else {
        return Ok(None);
    };
    if seq == 0 || seq > row.end.seq {
        return Ok(None);
    }
    let side = side_at(tables, &log, seq)?;
    let run = read::decoded(tables, &log, &side)?;
    let run = read::above(&log, &side, run, seq - 1)?;
    Ok(Some(run.with_stubs(|_| false)))
}

/// Rows read at once where those with a bound are looked for.
const PAGE: usize = 1024;

pub(crate) fn restricted(
    tables: &impl Tables,
    space: &SpaceId,
    after: Option<AuthorId>,
    limit: usize,
) -> Result<Vec<AuthorId>, StoreError> {
    let Some(row) = tables.space(space)? else {
        return Ok(Vec::new());
    };
    let (key, limit) = (row.key(*space), limit.max(1));
    // The first so many of each shelf hold the first so many of both.
    let mut authors = bounded_on(tables, Shelf::Shown, &key, after, limit)?;
    if row.hidden > 0 {
        authors.extend(bounded_on(tables, Shelf::Hidden, &key, after, limit)?);
        authors.sort_unstable();
        authors.truncate(limit);
    }
    Ok(authors)
}

fn bounded_on(
    tables: &impl Tables,
    shelf: Shelf,
    space: &SpaceKey,
    mut after: Option<AuthorId>,
    limit: usize,
) -> Result<Vec<AuthorId>, StoreError> {
    let mut bounded = Vec::new();
    loop {
        let page = tables.heads_after(shelf, space, after.as_ref(), PAGE)?;
        let is_last = page.len() < PAGE;
        for (author, row) in page {
            let row = row.ok_or(Damage::Head {
                space: space.id,
                author,
            })?;
            after = Some(author);
            if row.through.is_some() {
                bounded.push(author);
            }
            if bounded.len() == limit {
                return Ok(bounded);
            }
        }
        if is_last {
            return Ok(bounded);
        }
    }
}

pub(crate) fn restriction(
    tables: &impl Tables,
    space: &SpaceId,
    author: &AuthorId,
) -> Result<Option<u64>, StoreError> {
    Ok(stored(tables, space, author)?.and_then(|(_, row)| row.through))
}
