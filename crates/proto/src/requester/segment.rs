//! One segment as it arrives: a merge-join of the heads we stated with the runs that come,
//! checked run by run.
//!
//! ```text
//! window of stated heads (ascending) ─┐
//!                                     ├─▶ each author: stated head, or runs right above it
//! runs of the segment (ascending) ────┘
//! ```
//!
//! Invariant: an author's runs start at its stated head, follow each other without gap, and stand
//! between those of lower and of higher authors.

use headwater_wire::{
    AuthorId, ForkNotice, PlanTotals, Run, Segment, SyncPlan, limits::MAX_SEGMENT_AUTHORS,
};

use super::{
    heads::StatedHeads,
    ledger::Ledger,
    output::{Fork, Tally},
};
use crate::SessionError;

/// The log whose runs are arriving.
#[derive(Debug, Clone, Copy)]
struct OpenLog {
    author: AuthorId,
    last_seq: u64,
}

#[derive(Debug)]
pub(super) struct SegmentIntake {
    segment: Segment,
    /// Authors up to here belong to earlier segments.
    lower: Option<AuthorId>,
    planned: PlanTotals,
    revisions: u64,
    authors: u64,
    received: Tally,
    log: Option<OpenLog>,
    last_notice: Option<AuthorId>,
    /// Notices received.
    notices: u64,
    /// Authors reported as forked that we had not stated, ascending.
    refused: Vec<AuthorId>,
}

impl SegmentIntake {
    /// The segment of a plan that follows `previous` (`None`: the first plan).
    pub(super) fn new(
        plan: &SyncPlan,
        previous: Option<&SegmentIntake>,
    ) -> Result<Self, SessionError> {
        let lower = previous.and_then(SegmentIntake::upper);
        let follows = match (previous.map(|segment| &segment.segment), &plan.segment) {
            (None, Segment::Owner) => true,
            (Some(Segment::Owner), Segment::Through(_) | Segment::Last)
            | (Some(Segment::Through(_)), Segment::Last) => true,
            (Some(Segment::Through(before)), Segment::Through(now)) => now > before,
            _ => false,
        };
        if !follows {
            return Err(SessionError::PlanOutOfOrder {
                previous: previous.map(|segment| segment.segment),
                found: plan.segment,
            });
        }
        let max = most_authors(&plan.segment);
        if plan.totals.authors > max {
            return Err(SessionError::PlanTooWide {
                found: plan.totals.authors,
                max,
            });
        }
        Ok(Self {
            segment: plan.segment,
            lower,
            planned: plan.totals,
            revisions: 0,
            authors: 0,
            received: Tally::default(),
            log: None,
            last_notice: None,
            notices: 0,
            refused: Vec::new(),
        })
    }

    /// The highest author it covers; `None` for the owner alone and for all the rest.
    fn upper(&self) -> Option<AuthorId> {
        match &self.segment {
            Segment::Through(author) => Some(*author),
            Segment::Owner | Segment::Last => None,
        }
    }

    pub(super) fn is_last(&self) -> bool {
        self.segment == Segment::Last
    }

    /// Whether a plan speaks of this very segment again.
    pub(super) fn is_revised_by(&self, plan: &SyncPlan) -> bool {
        self.segment == plan.segment
    }

    /// Raises the totals: the store merged runs since they were planned, and the merged one holds
    /// newer events too. Returns what the plan grew by.
    pub(super) fn revise(&mut self, plan: &SyncPlan) -> Result<PlanTotals, SessionError> {
        let (before, now) = (self.planned, plan.totals);
        self.revisions += 1;
        // Each author's last run can be merged once while it waits, and the merged one follows the
        // revised plan: all earlier revisions have had an author of their own.
        if now.authors != before.authors
            || now.events <= before.events
            || now.payload_bytes < before.payload_bytes
            || self.received.events >= before.events
            || self.revisions > before.authors
            || self.revisions > self.authors.saturating_add(1)
        {
            return Err(SessionError::PlanRevision {
                previous: before.events,
                found: now.events,
            });
        }
        self.planned = now;
        Ok(PlanTotals {
            authors: 0,
            events: now.events - before.events,
            payload_bytes: now.payload_bytes - before.payload_bytes,
        })
    }

    /// A fork notice: allowed before the first run of the segment, ascending, about what we stated
    /// and what contradicts it.
    pub(super) fn notice(
        &mut self,
        notice: &ForkNotice,
        heads: &mut StatedHeads,
        ledger: &mut Ledger,
        max_authors: u64,
    ) -> Result<(), SessionError> {
        let author = notice.author;
        let unfounded = SessionError::UnfoundedForkNotice { author };
        let ascends = self.last_notice.is_none_or(|last| last < author);
        if !ascends || self.log.is_some() || !self.may_hold(author, heads.owner()) {
            return Err(unfounded);
        }
        let stated = heads.find(&author).map(|stated| stated.entry);
        if stated != notice.stated || !contradicts(notice) {
            return Err(unfounded);
        }
        self.notices += 1;
        within_segment(self.notices, &self.segment)?;
        match heads.find(&author) {
            Some(stated) => stated.refused = true,
            // An owner we hold nothing of is served to its cut all the same.
            None if self.segment == Segment::Owner => heads.set_owner(author),
            None => {
                if heads.count_new_author() > max_authors {
                    return Err(SessionError::TooManyAuthors { limit: max_authors });
                }
                self.refused.push(author);
            }
        }
        self.last_notice = Some(author);
        ledger.fork(&Fork::of(notice));
        Ok(())
    }

    /// Whether the author lies in the segment's range.
    fn may_hold(&self, author: AuthorId, owner: Option<AuthorId>) -> bool {
        match &self.segment {
            Segment::Owner => owner.is_none_or(|owner| owner == author),
            Segment::Through(_) | Segment::Last => {
                self.lower.is_none_or(|lower| lower < author)
                    && self.upper().is_none_or(|upper| author <= upper)
                    && owner != Some(author)
            }
        }
    }

    /// Checks one run and counts it.
    pub(super) fn admit(
        &mut self,
        run: &Run,
        heads: &mut StatedHeads,
        ledger: &mut Ledger,
        max_authors: u64,
    ) -> Result<(), SessionError> {
        let author = run.author();
        let expected = match self.log {
            Some(log) if log.author == author => log.last_seq.saturating_add(1),
            _ => self.open_log(author, heads, ledger, max_authors)?,
        };
        if run.first_seq() != expected {
            return Err(SessionError::NotContiguous {
                author,
                expected,
                found: run.first_seq(),
            });
        }
        self.log = Some(OpenLog {
            author,
            last_seq: run.last_seq(),
        });
        self.received
            .add(run.event_count() as u64, run.payload_bytes());
        within("authors", self.planned.authors, self.authors)?;
        within("events", self.planned.events, self.received.events)?;
        within(
            "payload bytes",
            self.planned.payload_bytes,
            self.received.payload_bytes,
        )
    }

    /// Turns to the next author, and returns the seq its log must go on at.
    fn open_log(
        &mut self,
        author: AuthorId,
        heads: &mut StatedHeads,
        ledger: &mut Ledger,
        max_authors: u64,
    ) -> Result<u64, SessionError> {
        let ascends = self.log.is_none_or(|log| log.author < author);
        let second_owner = self.segment == Segment::Owner && self.log.is_some();
        if !ascends || second_owner || !self.may_hold(author, heads.owner()) {
            return Err(SessionError::RunOutsideSegment { author });
        }
        self.close_log(ledger);
        let mut stated = None;
        if self.segment == Segment::Owner {
            heads.set_owner(author);
            ledger.set_owner(author);
            stated = heads.take_owner();
        } else {
            while let Some(next) = heads.take_through(Some(author)) {
                if next.entry.author == author {
                    stated = Some(next);
                } else {
                    ledger.pass(next.entry);
                }
            }
        }
        self.authors += 1;
        match stated {
            Some(stated) if stated.refused => Err(SessionError::RunOfForkedAuthor { author }),
            Some(stated) => Ok(stated.entry.head.seq.saturating_add(1)),
            None if self.refused.binary_search(&author).is_ok() => {
                Err(SessionError::RunOfForkedAuthor { author })
            }
            None if heads.count_new_author() > max_authors => {
                Err(SessionError::TooManyAuthors { limit: max_authors })
            }
            None => Ok(1),
        }
    }

    fn close_log(&mut self, ledger: &mut Ledger) {
        if let Some(log) = self.log {
            ledger.close_log(log.author, log.last_seq);
        }
    }

    /// Ends the segment: everybody stated in its range and not served is passed. Returns whether
    /// all that was planned has come.
    pub(super) fn close(
        &mut self,
        heads: &mut StatedHeads,
        ledger: &mut Ledger,
    ) -> Result<bool, SessionError> {
        self.close_log(ledger);
        if self.segment == Segment::Owner {
            if let Some(owner) = heads.owner() {
                ledger.set_owner(owner);
            }
            match heads.take_owner() {
                Some(stated) => ledger.pass(stated.entry),
                None if self.log.is_none() && self.planned.events == 0 => {
                    return Err(SessionError::OwnerMissing);
                }
                None => {}
            }
        } else {
            while let Some(stated) = heads.take_through(self.upper()) {
                ledger.pass(stated.entry);
            }
        }
        self.log = None;
        ledger.settle();
        Ok(self.received.events == self.planned.events)
    }

    /// The error of a segment that ended early.
    pub(super) fn not_met(&self) -> SessionError {
        SessionError::PlanNotMet {
            planned: self.planned.events,
            received: self.received.events,
        }
    }
}

/// Most authors a segment may speak of.
fn most_authors(segment: &Segment) -> u64 {
    match segment {
        Segment::Owner => 1,
        Segment::Through(_) | Segment::Last => MAX_SEGMENT_AUTHORS as u64,
    }
}

fn within_segment(notices: u64, segment: &Segment) -> Result<(), SessionError> {
    let max = most_authors(segment);
    if notices > max {
        return Err(SessionError::PlanTooWide {
            found: notices,
            max,
        });
    }
    Ok(())
}

/// Whether the two entries of a notice can both be true, and leave the two sides apart.
fn contradicts(notice: &ForkNotice) -> bool {
    let held = &notice.held;
    match &notice.stated {
        None => held.forked,
        Some(stated) if stated == held => false,
        Some(stated) => stated.forked || held.forked || stated.head.seq <= held.head.seq,
    }
}

fn within(unit: &'static str, planned: u64, received: u64) -> Result<(), SessionError> {
    if received > planned {
        return Err(SessionError::PlanExceeded {
            unit,
            planned,
            received,
        });
    }
    Ok(())
}
