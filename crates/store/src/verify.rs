//! Checks a whole space again, from its bytes up.

use std::collections::BTreeSet;

use headwater_wire::{AuthorHead, AuthorId, EventId, Run, SpaceId, VerifiedRun, tree::RootBuilder};

use crate::{
    Damage, ForkSummary, StoreError, VerifyProgress, VerifyReport, forks,
    heads_tree::{self, Subtree},
    quotas::Stored,
    read::{self, damaged_run, side_at},
    records::{HeadRow, LogKey, Shelf, Side, SpaceRow},
    revoked,
    tables::Tables,
};

/// Heads read at a time.
const PAGE: usize = 256;

pub(crate) fn verify(
    tables: &impl Tables,
    space: &SpaceId,
    progress: &mut dyn FnMut(VerifyProgress),
) -> Result<VerifyReport, StoreError> {
    let mut report = VerifyReport::default();
    let Some(Some(row)) = noted(&mut report, tables.space(space))? else {
        return Ok(report);
    };
    let mut check = Check {
        tables,
        space: *space,
        row,
        report,
        root: RootBuilder::new(),
        totals: Totals::default(),
        forked: BTreeSet::new(),
        progress,
    };
    check.shelf(Shelf::Shown)?;
    check.shelf(Shelf::Hidden)?;
    check.proofs()?;
    check.close()
}

/// Notes damage in the report; any other error ends the check.
fn noted<T>(
    report: &mut VerifyReport,
    found: Result<T, StoreError>,
) -> Result<Option<T>, StoreError> {
    match found {
        Ok(found) => Ok(Some(found)),
        Err(StoreError::Damaged(damage)) => {
            report.note(damage);
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

struct Check<'a, T> {
    tables: &'a T,
    space: SpaceId,
    row: SpaceRow,
    report: VerifyReport,
    root: RootBuilder,
    /// Totals by the rows, to compare with those of the space.
    totals: Totals,
    /// Logs whose row says that they fork.
    forked: BTreeSet<AuthorId>,
    progress: &'a mut dyn FnMut(VerifyProgress),
}

/// Of the logs of a space together.
#[derive(Debug, Default, PartialEq, Eq)]
struct Totals {
    authors: u64,
    hidden: u64,
    events: u64,
    payload_bytes: u64,
    stored: Stored,
}

/// What a log has stored at its visible head, and at its end.
#[derive(Debug, Default, Clone, Copy)]
struct Found {
    end: Option<AuthorHead>,
    payload_bytes: u64,
    run_bytes: u64,
    visible: Option<(AuthorHead, u64)>,
    /// Whether a run is missing or damaged, so that nothing more can be said of the row.
    broken: bool,
}

impl<T: Tables> Check<'_, T> {
    fn shelf(&mut self, shelf: Shelf) -> Result<(), StoreError> {
        let key = self.row.key(self.space);
        let mut after: Option<AuthorId> = None;
        loop {
            let page = self.tables.heads_after(shelf, &key, after.as_ref(), PAGE);
            // Where a page of rows cannot be read, those above it cannot be found either.
            let page = noted(&mut self.report, page)?.unwrap_or_default();
            let Some((last, _)) = page.last() else {
                return Ok(());
            };
            after = Some(*last);
            for (author, row) in page {
                match row {
                    Some(row) => self.log(shelf, author, &row)?,
                    None => self.head_fault(author),
                }
                match shelf {
                    Shelf::Shown => {
                        self.report.authors += 1;
                        self.totals.authors += 1;
                    }
                    Shelf::Hidden => self.totals.hidden += 1,
                }
                self.tell();
            }
        }
    }

    fn head_fault(&mut self, author: AuthorId) {
        let space = self.space;
        self.report.note(Damage::Head { space, author });
    }

    /// Checks one log from its first event to the last one stored.
    fn log(&mut self, shelf: Shelf, author: AuthorId, row: &HeadRow) -> Result<(), StoreError> {
        let key = row.log_key(self.space, author);
        if let Some(entry) = row.shown(author) {
            self.root.push(&entry);
        }
        let totals = &mut self.totals;
        totals.events = totals.events.saturating_add(row.head.seq);
        totals.payload_bytes = totals.payload_bytes.saturating_add(row.payload_bytes);
        totals.stored = totals.stored.plus(row.stored());
        let found = self.runs(&key, row)?;
        let visible_seq = row.limit().min(row.end.seq);
        let visible = match visible_seq {
            0 => Some((AuthorHead::NONE, 0)),
            _ => found.visible,
        };
        let sound = row.shelf() == shelf
            && !row.is_vacant()
            && row.head.seq == visible_seq
            && (found.broken
                || found.end.unwrap_or(AuthorHead::NONE) == row.end
                    && found.payload_bytes == row.end_payload_bytes
                    && found.run_bytes == row.run_bytes
                    && visible == Some((row.head, row.payload_bytes)));
        if !sound {
            self.head_fault(author);
        }
        self.fork(&key, row)
    }

    fn runs(&mut self, key: &LogKey, row: &HeadRow) -> Result<Found, StoreError> {
        let mut found = Found::default();
        let mut next = 1;
        while next <= row.end.seq {
            let side = side_at(self.tables, key, next);
            let Some(side) = noted(&mut self.report, side)? else {
                found.broken = true;
                // A run that ends above may be there still.
                match self.tables.side_from(key, next) {
                    Ok(Some(side)) if side.first_seq > next => next = side.first_seq,
                    _ => return Ok(found),
                }
                found.end = None;
                continue;
            };
            let checked = self.run(key, &side, found.end, found.payload_bytes);
            match noted(&mut self.report, checked)? {
                Some(run) => {
                    let seq = row.head.seq;
                    let payload_bytes = run.run().payload_bytes_through(seq);
                    if let Some(id) = run.id_at(seq) {
                        let payload_bytes = found.payload_bytes.saturating_add(payload_bytes);
                        found.visible = Some((AuthorHead { seq, id }, payload_bytes));
                    }
                    let visible = seq.min(side.last_seq).saturating_add(1);
                    self.report.runs += 1;
                    self.report.events += visible.saturating_sub(side.first_seq);
                    self.report.stubs += run.run().stub_count_through(seq) as u64;
                    self.report.payload_bytes += payload_bytes;
                    self.report.run_bytes += u64::from(side.len);
                }
                None => found.broken = true,
            }
            found.run_bytes = found.run_bytes.saturating_add(u64::from(side.len));
            found.payload_bytes = side.payload_before.saturating_add(side.payload_bytes);
            found.end = Some(AuthorHead {
                seq: side.last_seq,
                id: side.last_id,
            });
            next = side.last_seq.saturating_add(1);
            self.tell();
        }
        Ok(found)
    }

    /// Checks one run: bytes, signature, hashes, its link to the run before, its side record.
    fn run(
        &self,
        log: &LogKey,
        side: &Side,
        base: Option<AuthorHead>,
        payload_before: u64,
    ) -> Result<VerifiedRun, StoreError> {
        let run = forks::verified(self.tables, log, side)?;
        let mut expected = Side::of(run.run(), run.ids(), payload_before, side.tier);
        expected.hash = side.hash;
        let owner_starts = log.author == self.row.owner && side.first_seq == 1;
        let sound = run.author() == log.author
            && run.is_genesis() == owner_starts
            && run.base() == base
            && *side == expected;
        if sound {
            Ok(run)
        } else {
            Err(damaged_run(log, side))
        }
    }

    /// Checks the proof of a log that is cut, and that it goes on from what is stored below it.
    fn fork(&mut self, log: &LogKey, row: &HeadRow) -> Result<(), StoreError> {
        let Some(seq) = row.fork else {
            return Ok(());
        };
        let author = log.author;
        self.forked.insert(author);
        self.report.fork(ForkSummary {
            author,
            seq,
            evidence_events: row.evidence_events(),
        });
        let key = self.row.key(self.space);
        let proof = forks::held_proof(self.tables, &key, &author, seq);
        let Some(proof) = noted(&mut self.report, proof)? else {
            return Ok(());
        };
        if author == self.row.owner {
            self.revoked(log, row)?;
        }
        if let Some(base) = proof.base().filter(|base| base.seq <= row.end.seq) {
            // What cannot be read is in the report already.
            if read::id_at(self.tables, log, base.seq).is_ok_and(|id| id != base.id) {
                let space = self.space;
                self.report.note(Damage::Proof { space, author });
            }
        }
        Ok(())
    }

    /// Checks what is revoked above the cut of the owner's log, and the signatures that show it.
    fn revoked(&mut self, log: &LogKey, row: &HeadRow) -> Result<(), StoreError> {
        let (space, key) = (self.space, self.row.key(self.space));
        let is_sound = |(first, run): (EventId, Run)| {
            let is_evidence = run.is_evidence() && run.author() == log.author;
            let verified = run.verify(&space).ok().filter(|_| is_evidence);
            verified.is_some_and(|run| run.ids().first() == Some(&first))
        };
        let mut kept_is_sound = true;
        let mut after = None;
        loop {
            let kept = self.tables.evidence_after(&key, after.as_ref());
            let Some(kept) = noted(&mut self.report, kept)?.flatten() else {
                break;
            };
            after = Some(kept.0);
            kept_is_sound &= is_sound(kept);
        }
        let found = revoked::fold(self.tables, &key, &log.author, row, None);
        let found = noted(&mut self.report, found)?;
        let is_told = found.is_none_or(|found| found.digest() == row.revoked);
        if !kept_is_sound || !is_told {
            self.report.note(Damage::Evidence { space });
        }
        Ok(())
    }

    /// Checks that there is no proof of a log that is not cut.
    fn proofs(&mut self) -> Result<(), StoreError> {
        let key = self.row.key(self.space);
        let mut after: Option<AuthorId> = None;
        loop {
            let page = self.tables.proven_after(&key, after.as_ref(), PAGE);
            let page = noted(&mut self.report, page)?.unwrap_or_default();
            let Some(last) = page.last() else {
                return Ok(());
            };
            after = Some(*last);
            for author in page {
                if !self.forked.contains(&author) {
                    let space = self.space;
                    self.report.note(Damage::Proof { space, author });
                }
            }
        }
    }

    /// Checks what speaks of all logs together.
    fn close(mut self) -> Result<VerifyReport, StoreError> {
        let row = &self.row;
        let totals = Totals {
            authors: row.authors,
            hidden: row.hidden,
            events: row.events,
            payload_bytes: row.payload_bytes,
            stored: row.stored,
        };
        if totals != self.totals {
            self.report.note(Damage::Space { space: self.space });
        }
        let root = Subtree::root(row.authors, row.digest);
        if self.root.finish() == row.digest {
            let tree = heads_tree::check(self.tables, &row.key(self.space), root);
            noted(&mut self.report, tree)?;
        } else {
            self.report.note(Damage::Tree { space: self.space });
        }
        Ok(self.report)
    }

    fn tell(&mut self) {
        (self.progress)(VerifyProgress {
            events: self.report.events,
            total_events: self.row.events,
            authors: self.report.authors,
            total_authors: self.row.authors,
        });
    }
}
