//! Answers questions from the tables of one commit.

use headwater_proto::history::{
    HeadRecord, HeadsPage, SpaceSummary, StoredRun, TailCheck, TailState, TailWant,
};
use headwater_wire::{AuthorHead, AuthorId, Event, EventId, Run, SpaceId};

use crate::{
    Damage, StoreError,
    records::{HeadRow, LogKey, Shelf, Side},
    tables::Tables,
};

pub(crate) fn summary(
    tables: &impl Tables,
    space: &SpaceId,
) -> Result<Option<SpaceSummary>, StoreError> {
    Ok(tables.space(space)?.map(|row| row.summary(*space)))
}

pub(crate) fn head(
    tables: &impl Tables,
    space: &SpaceId,
    author: &AuthorId,
) -> Result<Option<HeadRecord>, StoreError> {
    Ok(head_row(tables, space, author)?.map(|row| row.record(*author)))
}

fn head_row(
    tables: &impl Tables,
    space: &SpaceId,
    author: &AuthorId,
) -> Result<Option<HeadRow>, StoreError> {
    match tables.space(space)? {
        Some(row) => tables.head(Shelf::Shown, &row.key(*space), author),
        None => Ok(None),
    }
}

pub(crate) fn heads(
    tables: &impl Tables,
    space: &SpaceId,
    after: Option<AuthorId>,
    limit: usize,
) -> Result<HeadsPage, StoreError> {
    let mut page = HeadsPage {
        heads: Vec::new(),
        last: true,
    };
    let Some(row) = tables.space(space)? else {
        return Ok(page);
    };
    // One more than asked for says whether any follows.
    let limit = limit.max(1);
    let key = row.key(*space);
    let limit_and_one = limit.saturating_add(1);
    let rows = tables.heads_after(Shelf::Shown, &key, after.as_ref(), limit_and_one)?;
    page.last = rows.len() <= limit;
    for (author, row) in rows.into_iter().take(limit) {
        let row = row.ok_or(Damage::Head {
            space: *space,
            author,
        })?;
        page.heads.push(row.record(author));
    }
    Ok(page)
}

pub(crate) fn check_tails(
    tables: &impl Tables,
    space: &SpaceId,
    stated: &[(AuthorId, AuthorHead)],
) -> Result<Vec<TailCheck>, StoreError> {
    let mut checks = Vec::with_capacity(stated.len());
    let Some(row) = tables.space(space)? else {
        return Ok(checks);
    };
    let key = row.key(*space);
    for (author, stated) in stated {
        let Some(row) = tables.head(Shelf::Shown, &key, author)? else {
            continue;
        };
        if stated.seq == 0 || stated.seq > row.head.seq {
            continue;
        }
        let log = row.log_key(*space, *author);
        checks.push(TailCheck {
            author: *author,
            state: check_tail(tables, &log, &row, stated)?,
        });
    }
    Ok(checks)
}

/// Compares a stated head with the log at its seq, which the log reaches.
fn check_tail(
    tables: &impl Tables,
    log: &LogKey,
    row: &HeadRow,
    stated: &AuthorHead,
) -> Result<TailState, StoreError> {
    let (held, payload_up_to) = if stated.seq == row.head.seq {
        (row.head.id, row.payload_bytes)
    } else {
        let side = side_at(tables, log, stated.seq)?;
        let whole = side.last_seq == stated.seq;
        let in_run = if whole { side.payload_bytes } else { 0 };
        (
            id_in(tables, log, &side, stated.seq)?,
            side.payload_before.saturating_add(in_run),
        )
    };
    if held == stated.id {
        let payload_bytes = row.payload_bytes.saturating_sub(payload_up_to);
        Ok(TailState::Same { payload_bytes })
    } else {
        Ok(TailState::Forked { held })
    }
}

pub(crate) fn read_runs(
    tables: &impl Tables,
    space: &SpaceId,
    wants: &[TailWant],
    max_bytes: usize,
) -> Result<Vec<StoredRun>, StoreError> {
    let mut answer = Answer {
        runs: Vec::new(),
        room: max_bytes,
    };
    let Some(row) = tables.space(space)? else {
        return Ok(answer.runs);
    };
    let key = row.key(*space);
    for want in wants {
        let more = match tables.head(Shelf::Shown, &key, &want.author) {
            Ok(Some(row)) => {
                answer.read_want(tables, &row.log_key(*space, want.author), &row, want)
            }
            Ok(None) => Ok(true),
            Err(error) => Err(error),
        };
        match more {
            Ok(true) => {}
            Ok(false) => break,
            // What is sound goes out; the damage is met again as the first thing asked for.
            Err(StoreError::Damaged(_)) if !answer.runs.is_empty() => break,
            Err(error) => return Err(error),
        }
    }
    Ok(answer.runs)
}

/// Runs read so far, and how many bytes more may be read.
struct Answer {
    runs: Vec<StoredRun>,
    room: usize,
}

impl Answer {
    /// Reads the runs of one range, and returns whether there is room for the next range.
    fn read_want(
        &mut self,
        tables: &impl Tables,
        log: &LogKey,
        row: &HeadRow,
        want: &TailWant,
    ) -> Result<bool, StoreError> {
        let through = want.through.min(row.head.seq);
        let mut above = want.above;
        while above < through {
            let side = side_at(tables, log, above + 1)?;
            let whole = side.first_seq > above;
            // A run that goes out whole is as long as its record says. How long another one is
            // shows only once it is cut: it may be a little longer than the whole.
            if !self.runs.is_empty() && whole && side.len as usize > self.room {
                return Ok(false);
            }
            let run = stored_run(tables, log, &side, above)?;
            if !self.runs.is_empty() && run.bytes.len() > self.room {
                return Ok(false);
            }
            self.room = self.room.saturating_sub(run.bytes.len());
            above = run.last_seq;
            self.runs.push(run);
        }
        Ok(true)
    }
}

/// Reads one run, without its events up to and including `above`. The visible head may lie within
/// it: what is above comes as well, as no signature stands there, and whoever knows of the same
/// bound or fork does not show it either.
fn stored_run(
    tables: &impl Tables,
    log: &LogKey,
    side: &Side,
    above: u64,
) -> Result<StoredRun, StoreError> {
    if side.first_seq > above {
        return Ok(StoredRun {
            author: log.author,
            first_seq: side.first_seq,
            last_seq: side.last_seq,
            payload_bytes: side.payload_bytes,
            stubs: u64::from(side.stubs),
            bytes: tables.run_bytes(log, side)?,
        });
    }
    let run = decoded(tables, log, side)?;
    Ok(StoredRun::of(&self::above(log, side, run, above)?))
}

/// A stored run, decoded.
pub(crate) fn decoded(tables: &impl Tables, log: &LogKey, side: &Side) -> Result<Run, StoreError> {
    Run::decode(tables.run_bytes(log, side)?).map_err(|_| damaged_run(log, side))
}

/// What is left of a stored run above one of its events.
pub(crate) fn above(log: &LogKey, side: &Side, run: Run, seq: u64) -> Result<Run, StoreError> {
    let known = side.kept_id(seq).map(|id| AuthorHead { seq, id });
    let known = known.or_else(|| side.known_below(seq));
    run.above_known(&log.space, seq, known)
        .ok_or_else(|| damaged_run(log, side))
}

pub(crate) fn event(
    tables: &impl Tables,
    space: &SpaceId,
    author: &AuthorId,
    seq: u64,
) -> Result<Option<Event>, StoreError> {
    let Some(row) = head_row(tables, space, author)? else {
        return Ok(None);
    };
    if seq == 0 || seq > row.head.seq {
        return Ok(None);
    }
    let log = row.log_key(*space, *author);
    let side = side_at(tables, &log, seq)?;
    event_in(tables, &log, &side, seq).map(Some)
}

/// The id of an event the log reaches.
pub(crate) fn id_at(tables: &impl Tables, log: &LogKey, seq: u64) -> Result<EventId, StoreError> {
    let side = side_at(tables, log, seq)?;
    id_in(tables, log, &side, seq)
}

/// The side record of the run that holds an event the log reaches.
pub(crate) fn side_at(tables: &impl Tables, log: &LogKey, seq: u64) -> Result<Side, StoreError> {
    let missing = Damage::Missing {
        space: log.space,
        author: log.author,
        seq,
    };
    tables
        .side_from(log, seq)?
        .filter(|side| side.holds(seq))
        .ok_or(StoreError::Damaged(missing))
}

pub(crate) fn id_in(
    tables: &impl Tables,
    log: &LogKey,
    side: &Side,
    seq: u64,
) -> Result<EventId, StoreError> {
    match side.kept_id(seq) {
        Some(id) => Ok(id),
        None => event_in(tables, log, side, seq).map(|event| event.id),
    }
}

/// Takes an event out of its run, hashing on from the nearest id that is kept.
fn event_in(
    tables: &impl Tables,
    log: &LogKey,
    side: &Side,
    seq: u64,
) -> Result<Event, StoreError> {
    let run = decoded(tables, log, side)?;
    let known = side.known_below(seq);
    run.event_at(&log.space, seq, known)
        .ok_or_else(|| damaged_run(log, side))
}

/// The id of an event of a run that was decoded.
pub(crate) fn id_of(log: &LogKey, side: &Side, run: &Run, seq: u64) -> Result<EventId, StoreError> {
    let event = run.event_at(&log.space, seq, side.known_below(seq));
    let event = event.ok_or_else(|| damaged_run(log, side))?;
    Ok(event.id)
}

pub(crate) fn damaged_run(log: &LogKey, side: &Side) -> StoreError {
    StoreError::Damaged(Damage::Run {
        space: log.space,
        author: log.author,
        seq: side.first_seq,
    })
}
