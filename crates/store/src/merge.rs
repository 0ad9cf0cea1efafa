//! Merges small runs at the end of a log, so that a log appended event by event does not stay one
//! row an event.
//!
//! ```text
//! oldest ─────────────────────────────────────────── newest
//! [3: about 1,000 events or 128 KiB] … [2: 100] [1: 10] [1: 10] [0: 1] [0: 1] [0: 1]
//! ```
//!
//! A run enters at tier 0. As soon as ten runs of one tier stand side by side, or the next one
//! would make them too long for one run, they become one run of the next tier, under the last
//! signature of them. There is no tier above three.
//!
//! Invariant: an event is rewritten at most three times, however its log grows. The end of a log
//! is always the end of a run.

use headwater_wire::{
    Run, VerifiedRun,
    limits::{MAX_RUN_EVENTS, TARGET_RUN_BYTES},
    merge_runs,
};

use crate::{
    Damage, StoreError,
    read::{damaged_run, side_at},
    records::{LogKey, Side},
    tables::{Tables, TablesMut},
};

/// How many runs become one.
const FAN_IN: usize = 10;

/// The highest tier, and so the number of times an event may be rewritten.
const LAST_TIER: u8 = 3;

/// The tier a run enters the store at: one that is long already stays as it is.
pub(crate) fn first_tier(run: &VerifiedRun) -> u8 {
    let run = run.run();
    if run.as_bytes().len() > TARGET_RUN_BYTES / 2 || run.event_count() > MAX_RUN_EVENTS / 2 {
        LAST_TIER
    } else {
        0
    }
}

/// What merging did to the bytes of a log's runs.
#[derive(Debug, Default)]
pub(crate) struct Rewritten {
    pub(crate) removed: u64,
    pub(crate) added: u64,
}

/// Merges what can be merged at the end of a log, whose last run was just stored, and returns
/// how many bytes of runs that took away, and how many it put in their place.
///
/// A damaged run is not merged and does not hinder the append.
pub(crate) fn tail(
    tables: &mut impl TablesMut,
    log: &LogKey,
    last: &Side,
) -> Result<Rewritten, StoreError> {
    let mut last = last.clone();
    let mut rewritten = Rewritten::default();
    while last.tier < LAST_TIER {
        let group = group(tables, log, &last)?;
        if group.len() < 2 {
            break;
        }
        last = match joined(tables, log, &group) {
            Ok((side, run)) => {
                for part in &group {
                    tables.remove_run(log, part)?;
                }
                tables.put_run(log, &side, run.as_bytes())?;
                rewritten.removed += group.iter().map(|part| u64::from(part.len)).sum::<u64>();
                rewritten.added += u64::from(side.len);
                side
            }
            Err(StoreError::Damaged(damage)) => {
                tracing::warn!(%damage, "small runs are left unmerged");
                break;
            }
            Err(error) => return Err(error),
        };
    }
    Ok(rewritten)
}

/// The runs to merge now, in order; none if it is too early.
fn group(tables: &impl Tables, log: &LogKey, newest: &Side) -> Result<Vec<Side>, StoreError> {
    let mut size = Size::default();
    let mut group = Vec::new();
    let mut above = newest.first_seq;
    while group.len() < FAN_IN - 1 {
        let before = tables.side_below(log, above)?;
        match before.filter(|before| before.tier == newest.tier && size.add(before)) {
            Some(before) => {
                above = before.first_seq;
                group.push(before);
            }
            None => break,
        }
    }
    group.reverse();
    if size.add(newest) {
        // They all fit one run still: wait until there are enough of them.
        if group.len() + 1 < FAN_IN {
            return Ok(Vec::new());
        }
        // As it is stored, with what the store added to it.
        group.push(side_at(tables, log, newest.last_seq)?);
    }
    Ok(group)
}

/// How long a run made of several would be at most.
#[derive(Debug, Default)]
struct Size {
    events: u64,
    bytes: u64,
}

impl Size {
    /// Adds a run, unless that would make them too long for one.
    fn add(&mut self, side: &Side) -> bool {
        let events = self.events.saturating_add(side.events());
        let bytes = self.bytes.saturating_add(u64::from(side.len));
        let fits = events <= MAX_RUN_EVENTS as u64 && bytes <= TARGET_RUN_BYTES as u64;
        if fits {
            *self = Size { events, bytes };
        }
        fits
    }
}

/// Reads runs that stand side by side and joins them into one of the next tier.
fn joined(tables: &impl Tables, log: &LogKey, group: &[Side]) -> Result<(Side, Run), StoreError> {
    let mut runs = Vec::with_capacity(group.len());
    for side in group {
        let run = Run::decode(tables.run_bytes(log, side)?);
        runs.push(run.map_err(|_| damaged_run(log, side))?);
    }
    let missing = Damage::Missing {
        space: log.space,
        author: log.author,
        seq: group.first().map_or(1, |side| side.first_seq),
    };
    let (Some(first), Some(last)) = (group.first(), group.last()) else {
        return Err(missing.into());
    };
    // Runs that do not stand side by side cannot be merged.
    let run = merge_runs(&runs).ok_or(missing)?;
    let ids = run.event_ids(&log.space);
    if ids.last() != Some(&last.last_id) {
        return Err(damaged_run(log, last));
    }
    let tier = last.tier.saturating_add(1);
    let side = Side::of(&run, &ids, first.payload_before, tier);
    Ok((side, run))
}
