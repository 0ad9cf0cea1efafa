//! Checks a whole space again, from its bytes up.

use headwater_wire::{AuthorHead, AuthorId, Run, SpaceId, tree::RootBuilder};

use crate::{
    Damage, StoreError, VerifyProgress, VerifyReport,
    heads_tree::{self, Subtree},
    read::{damaged_run, side_at},
    records::{HeadRow, LogKey, Side, SpaceRow},
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
        payload_bytes: 0,
        events: 0,
        progress,
    };
    check.logs()?;
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
    /// Totals by the heads, to compare with those of the space.
    payload_bytes: u64,
    events: u64,
    progress: &'a mut dyn FnMut(VerifyProgress),
}

impl<T: Tables> Check<'_, T> {
    fn logs(&mut self) -> Result<(), StoreError> {
        let key = self.row.key(self.space);
        let mut after: Option<AuthorId> = None;
        loop {
            let page = self.tables.heads_after(&key, after.as_ref(), PAGE);
            // Where a page of heads cannot be read, those above it cannot be found either.
            let page = noted(&mut self.report, page)?.unwrap_or_default();
            let Some((last, _)) = page.last() else {
                return Ok(());
            };
            after = Some(*last);
            for (author, row) in page {
                match row {
                    Some(row) => self.log(author, &row)?,
                    None => self.report.note(Damage::Head {
                        space: self.space,
                        author,
                    }),
                }
                self.report.authors += 1;
                self.tell();
            }
        }
    }

    /// Checks one log from its first event to its head.
    fn log(&mut self, author: AuthorId, row: &HeadRow) -> Result<(), StoreError> {
        let key = row.log_key(self.space, author);
        self.root.push(&row.entry(author));
        self.events = self.events.saturating_add(row.head.seq);
        self.payload_bytes = self.payload_bytes.saturating_add(row.payload_bytes);
        let mut head: Option<AuthorHead> = None;
        let mut payload_bytes = 0;
        let mut next = 1;
        while next <= row.head.seq {
            let side = side_at(self.tables, &key, next);
            let Some(side) = noted(&mut self.report, side)? else {
                // A run that ends above may be there still.
                match self.tables.side_from(&key, next) {
                    Ok(Some(side)) if side.first_seq > next => next = side.first_seq,
                    _ => return Ok(()),
                }
                head = None;
                continue;
            };
            let checked = self.run(&key, &side, head, payload_bytes);
            if noted(&mut self.report, checked)?.is_some() {
                self.report.runs += 1;
                self.report.events += side.events();
                self.report.stubs += u64::from(side.stubs);
                self.report.payload_bytes += side.payload_bytes;
                self.report.run_bytes += u64::from(side.len);
            }
            payload_bytes = side.payload_before.saturating_add(side.payload_bytes);
            head = Some(AuthorHead {
                seq: side.last_seq,
                id: side.last_id,
            });
            next = side.last_seq.saturating_add(1);
            self.tell();
        }
        if head != Some(row.head) || payload_bytes != row.payload_bytes {
            self.report.note(Damage::Head {
                space: self.space,
                author,
            });
        }
        Ok(())
    }

    /// Checks one run: bytes, signature, hashes, its link to the run before, its side record.
    fn run(
        &self,
        log: &LogKey,
        side: &Side,
        base: Option<AuthorHead>,
        payload_before: u64,
    ) -> Result<(), StoreError> {
        let damage = || damaged_run(log, side);
        let bytes = self.tables.run_bytes(log, side)?;
        let run = Run::decode(bytes).map_err(|_| damage())?;
        let run = run.verify(&self.space).map_err(|_| damage())?;
        let mut expected = Side::of(run.run(), run.ids(), payload_before, side.tier);
        expected.hash = side.hash;
        let owner_starts = log.author == self.row.owner && side.first_seq == 1;
        let sound = run.author() == log.author
            && run.is_genesis() == owner_starts
            && run.base() == base
            && *side == expected;
        if sound { Ok(()) } else { Err(damage()) }
    }

    /// Checks what speaks of all logs together.
    fn close(mut self) -> Result<VerifyReport, StoreError> {
        let row = &self.row;
        let totals = (row.authors, row.events, row.payload_bytes);
        if totals != (self.report.authors, self.events, self.payload_bytes) {
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
