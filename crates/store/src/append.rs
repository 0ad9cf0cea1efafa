//! Admits runs to their logs, within one transaction.
//!
//! ```text
//! VerifiedRun ──▶ judge ──▶ Store: cut off the overlap ──▶ side + bytes into the tables
//!                   │ ▲                                    head moves on, in memory
//!                   │ └── Fork: keep the proof, cut the log, judge again
//!                   ▼ Refuse
//!                outcome
//! ```
//!
//! Invariant: whatever the order of runs in a call, a log never has a gap, and the tables are as
//! they would be if each run had come in a call of its own.
//!
//! Invariant: where the chain stored reaches the event below a fork, that event is the one the
//! proof goes on from. Two that differ there prove a lower fork, and that one is kept.

use headwater_proto::history::Appended;
use headwater_wire::{
    Admission, AppendError, AuthorHead, AuthorId, SpaceId, VerifiedForkProof, VerifiedRun, admit,
};

use crate::{
    Damage, StoreError,
    changes::{Changes, Written, log_row},
    folds::Folds,
    forks, merge,
    quotas::{Quotas, Stored, Usage},
    read,
    records::{HeadRow, LogKey, Side, SpaceKey},
    tables::{Tables, TablesMut},
};

/// Appends runs in order and says what became of each.
///
/// On an error the tables are in no state to be kept.
pub(crate) fn append(
    tables: &mut impl TablesMut,
    folds: &Folds,
    runs: &[VerifiedRun],
    quotas: &Quotas,
) -> Result<Written, StoreError> {
    let mut changes = Changes::new(folds);
    let mut outcomes = Vec::with_capacity(runs.len());
    for run in runs {
        outcomes.push(append_run(tables, &mut changes, run, quotas)?);
    }
    changes.close(tables, outcomes)
}

fn append_run(
    tables: &mut impl TablesMut,
    changes: &mut Changes<'_>,
    run: &VerifiedRun,
    quotas: &Quotas,
) -> Result<Result<Appended, AppendError>, StoreError> {
    let author = run.author();
    let founder = run.is_genesis().then_some(author);
    let Some(space) = changes.space(tables, run.space(), founder)? else {
        return Ok(Err(AppendError::NoGenesis { space: run.space() }));
    };
    let key = space.key;
    let mut found = None;
    loop {
        let log = space.log(tables, &author)?;
        let verdict = match judge(tables, &key, log.now.as_ref(), run)? {
            Verdict::Store(kept) => {
                let usage = space.usage(tables, &author)?;
                match quotas.check(author, &usage, size(&kept)) {
                    Ok(()) => Verdict::Store(kept),
                    Err(over) => Verdict::Refuse(over),
                }
            }
            verdict => verdict,
        };
        let log = space.log(tables, &author)?;
        match verdict {
            Verdict::Store(kept) => {
                let row = log.row_or_new(tables)?;
                let now = put(tables, &row, &kept)?;
                space.grown(author, &row, now);
                space.decided(&kept);
                return Ok(Ok(Appended {
                    author,
                    events: now.head.seq.saturating_sub(row.head.seq),
                    payload_bytes: now.payload_bytes.saturating_sub(row.payload_bytes),
                    head: now.head,
                }));
            }
            Verdict::Refuse(refused) => {
                // What it revokes counts, whatever branch it is of.
                space.offer(tables, run)?;
                let forked = found.map(|seq| AppendError::Forked { author, seq });
                return Ok(Err(forked.unwrap_or(refused)));
            }
            Verdict::Fork(proof) => {
                let row = log.row_or_new(tables)?;
                // Each is lower than the one before, so this comes to an end.
                if row.fork.is_some_and(|held| held <= proof.seq()) {
                    let space = key.id;
                    return Err(Damage::Proof { space, author }.into());
                }
                found = Some(proof.seq());
                log.now = Some(forks::keep(tables, &key, row, &proof)?);
            }
        }
    }
}

/// What storing a run adds at most: merged with its neighbours it takes less.
fn size(run: &VerifiedRun) -> Stored {
    Stored {
        bytes: run.run().as_bytes().len() as u64,
        events: run.run().event_count() as u64,
    }
}

/// What is stored of a log and of its space.
pub(crate) fn usage(
    tables: &impl Tables,
    space: &SpaceId,
    author: &AuthorId,
) -> Result<Usage, StoreError> {
    let Some(row) = tables.space(space)? else {
        return Ok(Usage::default());
    };
    let log = log_row(tables, &row, &row.key(*space), author)?;
    Ok(Usage::of(&row, author, log.as_ref()))
}

/// What to do with a run.
enum Verdict {
    /// Store it, or what is left of it.
    Store(VerifiedRun),
    /// Nothing of it can be shown.
    Refuse(AppendError),
    /// Cut the log below the fork it proves, and judge it again.
    Fork(VerifiedForkProof),
}

fn judge(
    tables: &impl Tables,
    space: &SpaceKey,
    row: Option<&HeadRow>,
    run: &VerifiedRun,
) -> Result<Verdict, StoreError> {
    let Some(row) = row else {
        return Ok(match admit(None, run, |_| None) {
            Ok(_) => Verdict::Store(run.clone()),
            Err(refused) => Verdict::Refuse(refused),
        });
    };
    let author = run.author();
    let limit = row.limit();
    if run.first_seq() > limit {
        return Ok(Verdict::Refuse(beyond(row, run)));
    }
    let log = row.log_key(space.id, author);
    let common = common_end(tables, &log, row)?;
    let mut trouble = None;
    let id_at = |seq| {
        read::id_at(tables, &log, seq)
            .map_err(|error| trouble = Some(error))
            .ok()
    };
    let admission = admit(common, run, id_at);
    if let Some(error) = trouble {
        return Err(error);
    }
    let reached = common.map_or(0, |common| common.seq);
    match admission {
        Err(AppendError::Forked { .. }) => {
            forks::contradiction(tables, &log, run, reached).map(Verdict::Fork)
        }
        Err(AppendError::Stale { .. }) if run.last_seq() <= row.head.seq => {
            let head = row.head.seq;
            Ok(Verdict::Refuse(AppendError::Stale { author, head }))
        }
        Err(AppendError::Stale { .. }) => Ok(Verdict::Refuse(beyond(row, run))),
        Ok(_) if reached >= limit => Ok(Verdict::Refuse(beyond(row, run))),
        admission => {
            if let Some(proof) = forks::below_proof(tables, space, row, run)? {
                return Ok(Verdict::Fork(proof));
            }
            Ok(match admission {
                Ok(Admission::Whole) => Verdict::Store(run.clone()),
                Ok(Admission::Above(seq)) => match run.above(seq) {
                    Some(rest) => Verdict::Store(rest),
                    None => Verdict::Refuse(AppendError::Stale { author, head: seq }),
                },
                Err(refused) => Verdict::Refuse(refused),
            })
        }
    }
}

/// The last stored event that a run can contradict: above the fork two branches are known already.
fn common_end(
    tables: &impl Tables,
    log: &LogKey,
    row: &HeadRow,
) -> Result<Option<AuthorHead>, StoreError> {
    let seq = row.end.seq.min(row.below_fork());
    Ok(match seq {
        0 => None,
        seq if seq == row.end.seq => Some(row.end),
        seq if seq == row.head.seq => Some(row.head),
        seq => Some(AuthorHead {
            seq,
            id: read::id_at(tables, log, seq)?,
        }),
    })
}

/// Why nothing above the limit of a log is shown.
fn beyond(row: &HeadRow, run: &VerifiedRun) -> AppendError {
    let author = run.author();
    match row.fork {
        Some(seq) if row.below_fork() <= row.limit() => AppendError::Forked { author, seq },
        _ => AppendError::NotAccepted {
            author,
            through: row.through.filter(|seq| *seq > 0),
        },
    }
}

/// Stores a run that goes on from the end of a log, and returns the row after it.
fn put(
    tables: &mut impl TablesMut,
    row: &HeadRow,
    run: &VerifiedRun,
) -> Result<HeadRow, StoreError> {
    let key = row.log_key(run.space(), run.author());
    let tier = merge::first_tier(run);
    let side = Side::of(run.run(), run.ids(), row.end_payload_bytes, tier);
    tables.put_run(&key, &side, run.run().as_bytes())?;
    let rewritten = merge::tail(tables, &key, &side)?;
    let grown = HeadRow {
        end: run.head(),
        end_payload_bytes: row.end_payload_bytes.saturating_add(side.payload_bytes),
        run_bytes: row
            .run_bytes
            .saturating_add(u64::from(side.len))
            .saturating_add(rewritten.added)
            .saturating_sub(rewritten.removed),
        ..*row
    };
    let limit = row.limit();
    Ok(match run.id_at(limit) {
        Some(id) => HeadRow {
            head: AuthorHead { seq: limit, id },
            payload_bytes: row
                .end_payload_bytes
                .saturating_add(run.run().payload_bytes_through(limit)),
            ..grown
        },
        None => HeadRow {
            head: grown.end,
            payload_bytes: grown.end_payload_bytes,
            ..grown
        },
    })
}
