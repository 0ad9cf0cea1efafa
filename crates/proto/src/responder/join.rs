//! One segment before it is planned: authors of either side, each with what is to be done. How two
//! heads compare is [`compare_chains`]'s to say.
//!
//! ```text
//! stated head vs. held head   only held ........... serve from seq 1
//!                             held is higher ...... ask the store whether the stated id is ours
//!                             same seq, same id ... nothing
//!                             same seq, other id .. forked
//!                             stated is higher .... nothing; the requester is ahead
//!                             only stated ......... nothing; the requester is ahead
//! ```

use headwater_wire::{
    AuthorHead, AuthorId, ChainOrder, ClockEntry, EventId, ForkNotice, PlanTotals, Segment,
    compare_chains, limits::MAX_SEGMENT_AUTHORS,
};

use super::intake::{Front, HeldHeads, StatedHeads};
use crate::{HeadRecord, SessionError, TailCheck, TailState, TailWant, joined::joined_entry};

/// What is to be done about an author.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Nothing,
    /// The store has to say first what our id at the stated seq is.
    Check,
    Serve {
        above: u64,
        payload_bytes: u64,
    },
    /// Told to the requester: our id at the stated seq.
    Forked(EventId),
    /// One side knows the author as forked and the other does not: left out, until proofs of
    /// forks are exchanged.
    Flagged,
}

/// One author of the segment.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) author: AuthorId,
    stated: Option<ClockEntry>,
    held: Option<HeadRecord>,
    fate: Fate,
    /// The last event served.
    pub(super) served: Option<AuthorHead>,
}

impl Row {
    pub(super) fn new(
        author: AuthorId,
        stated: Option<ClockEntry>,
        held: Option<HeadRecord>,
    ) -> Self {
        let order = order(stated, held, None);
        let flags = (
            stated.is_some_and(|stated| stated.forked),
            held.is_some_and(|held| held.entry.forked),
        );
        let fate = match (order, held, flags) {
            (Some(ChainOrder::Equal), _, (true, true)) | (_, None, _) => Fate::Nothing,
            (_, Some(_), (true, _) | (_, true)) => Fate::Flagged,
            (None, ..) => Fate::Check,
            (Some(ChainOrder::Ahead { .. }), Some(held), _) => Fate::Serve {
                above: 0,
                payload_bytes: held.payload_bytes,
            },
            (Some(ChainOrder::Forked { .. }), Some(held), _) => Fate::Forked(held.entry.head.id),
            (Some(ChainOrder::Equal | ChainOrder::Behind { .. }), ..) => Fate::Nothing,
        };
        Self {
            author,
            stated,
            held,
            fate,
            served: None,
        }
    }

    /// Whether the requester stated events we do not hold.
    fn is_ahead(&self) -> bool {
        matches!(
            order(self.stated, self.held, None),
            Some(ChainOrder::Behind { .. })
        )
    }

    /// The head that was pinned.
    pub(super) fn pinned(&self) -> Option<AuthorHead> {
        self.held.map(|held| held.entry.head)
    }

    pub(super) fn joined(&self) -> Option<ClockEntry> {
        joined_entry(self.author, self.stated.as_ref(), self.served)
    }
}

/// How our log stands to the stated head, if `ours_there`, our id at the stated seq, is known or
/// not needed. `None`: the store has to be asked for it.
fn order(
    stated: Option<ClockEntry>,
    held: Option<HeadRecord>,
    ours_there: Option<EventId>,
) -> Option<ChainOrder> {
    let mut unknown = false;
    let (ours, theirs) = (held.map(|held| held.entry.head), stated.map(|it| it.head));
    let order = compare_chains(ours.as_ref(), theirs.as_ref(), |_| {
        unknown = ours_there.is_none();
        ours_there
    });
    (!unknown).then_some(order)
}

/// Facts about a segment that outlive it.
#[derive(Debug, Default)]
pub(super) struct Tidings {
    /// Authors, events and payload bytes we hold in it.
    pub(super) held: PlanTotals,
    /// Authors told to be forked.
    pub(super) forked: Vec<AuthorId>,
    /// Authors left out because of a flag.
    pub(super) flagged: u64,
    /// Whether the requester stated events we do not hold.
    pub(super) requester_ahead: bool,
}

/// A segment being put together.
#[derive(Debug, Default)]
pub(super) struct Draft {
    rows: Vec<Row>,
}

/// What joining further needs.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Joined {
    /// The segment is whole.
    Segment(Segment),
    /// The requester's next chunk has to come first.
    NeedsChunk,
    /// A page of our heads has to be read first.
    NeedsPage,
}

impl Draft {
    pub(super) fn of_owner(row: Row) -> Self {
        Self { rows: vec![row] }
    }

    /// Joins the two streams until the segment is full, or one of them has run dry.
    pub(super) fn join(&mut self, stated: &mut StatedHeads, held: &mut HeldHeads) -> Joined {
        loop {
            let (theirs, ours) = (stated.front(), held.front());
            let lowest = match (theirs, ours) {
                (Front::End, Front::End) => return Joined::Segment(Segment::Last),
                (Front::Unknown, _) => return self.stop(Joined::NeedsChunk),
                (_, Front::Unknown) => return self.stop(Joined::NeedsPage),
                (Front::Author(theirs), Front::Author(ours)) => theirs.min(ours),
                (Front::Author(author), Front::End) | (Front::End, Front::Author(author)) => author,
            };
            if self.rows.len() >= MAX_SEGMENT_AUTHORS {
                return self.stop(Joined::NeedsChunk);
            }
            let row = Row::new(lowest, stated.take(lowest), held.take(lowest));
            self.rows.push(row);
        }
    }

    /// Ends the segment at its last author, or waits if it has none.
    fn stop(&self, otherwise: Joined) -> Joined {
        match self.rows.last() {
            Some(row) => Joined::Segment(Segment::Through(row.author)),
            None => otherwise,
        }
    }

    /// The stated heads the store has to compare.
    pub(super) fn checks(&self) -> Vec<(AuthorId, AuthorHead)> {
        self.rows
            .iter()
            .filter(|row| row.fate == Fate::Check)
            .filter_map(|row| Some((row.author, row.stated?.head)))
            .collect()
    }

    /// Takes the store's comparisons.
    pub(super) fn checked(&mut self, checks: &[TailCheck]) -> Result<(), SessionError> {
        let unfit = SessionError::StoreAnswer {
            question: "CheckTails",
        };
        let mut checks = checks.iter();
        for row in self.rows.iter_mut().filter(|row| row.fate == Fate::Check) {
            let check = checks.next().ok_or(unfit.clone())?;
            let (Some(stated), true) = (row.stated, check.author == row.author) else {
                return Err(unfit);
            };
            let ours = match check.state {
                TailState::Same { .. } => stated.head.id,
                TailState::Forked { held } => held,
            };
            let order = order(row.stated, row.held, Some(ours));
            row.fate = match (order, check.state) {
                (Some(ChainOrder::Ahead { .. }), TailState::Same { payload_bytes }) => {
                    Fate::Serve {
                        above: stated.head.seq,
                        payload_bytes,
                    }
                }
                (Some(ChainOrder::Forked { .. }), TailState::Forked { held }) => Fate::Forked(held),
                _ => return Err(unfit),
            };
        }
        match checks.next() {
            None => Ok(()),
            Some(_) => Err(unfit),
        }
    }

    /// What is to be served, and how many payload bytes at most, by index of row.
    pub(super) fn wants(&self) -> Vec<(usize, TailWant, u64)> {
        let wants = self.rows.iter().enumerate();
        wants
            .filter_map(|(index, row)| match row.fate {
                Fate::Serve {
                    above,
                    payload_bytes,
                } => {
                    let want = TailWant {
                        author: row.author,
                        above,
                        through: row.pinned()?.seq,
                    };
                    Some((index, want, payload_bytes))
                }
                _ => None,
            })
            .collect()
    }

    /// Notices about the authors that are forked.
    pub(super) fn notices(&self, request_id: u64) -> Vec<ForkNotice> {
        let rows = self.rows.iter();
        rows.filter_map(|row| match row.fate {
            Fate::Forked(held) => Some(ForkNotice {
                request_id,
                author: row.author,
                stated: row.stated?.head,
                held,
            }),
            _ => None,
        })
        .collect()
    }

    /// What outlives the segment.
    pub(super) fn tidings(&self) -> Tidings {
        let mut tidings = Tidings::default();
        for row in &self.rows {
            if let Some(held) = &row.held {
                let sum = &mut tidings.held;
                sum.authors += 1;
                sum.events = sum.events.saturating_add(held.entry.head.seq);
                sum.payload_bytes = sum.payload_bytes.saturating_add(held.payload_bytes);
            }
            tidings.requester_ahead |= row.is_ahead();
            match row.fate {
                Fate::Forked(_) => tidings.forked.push(row.author),
                Fate::Flagged => tidings.flagged += 1,
                Fate::Nothing | Fate::Check | Fate::Serve { .. } => {}
            }
        }
        tidings
    }

    /// Heads that were pinned.
    pub(super) fn pins(&self) -> Vec<(AuthorId, u64)> {
        let rows = self.rows.iter();
        rows.filter_map(|row| Some((row.author, row.pinned()?.seq)))
            .collect()
    }

    pub(super) fn into_rows(self) -> Vec<Row> {
        self.rows
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::HeadsPage;
    use headwater_wire::HeadsChunk;
    use std::collections::VecDeque;

    fn entry(seq: u64, id: u8) -> ClockEntry {
        ClockEntry {
            author: AuthorId::from_bytes([1; 32]),
            head: AuthorHead {
                seq,
                id: EventId::from_bytes([id; 32]),
            },
            forked: false,
        }
    }

    fn fate(stated: Option<ClockEntry>, held: Option<ClockEntry>) -> (Fate, bool) {
        let held = held.map(|entry| HeadRecord {
            entry,
            payload_bytes: 70,
        });
        let row = Row::new(AuthorId::from_bytes([1; 32]), stated, held);
        (row.fate, row.is_ahead())
    }

    #[test]
    fn every_pair_of_heads_has_its_fate() {
        let whole = Fate::Serve {
            above: 0,
            payload_bytes: 70,
        };
        assert_eq!(fate(None, Some(entry(5, 1))), (whole, false));
        assert_eq!(fate(Some(entry(5, 1)), None), (Fate::Nothing, true));
        let both = |stated, held| fate(Some(stated), Some(held));
        assert_eq!(both(entry(3, 1), entry(5, 2)), (Fate::Check, false));
        assert_eq!(both(entry(5, 1), entry(5, 1)), (Fate::Nothing, false));
        let held = EventId::from_bytes([2; 32]);
        assert_eq!(both(entry(5, 1), entry(5, 2)), (Fate::Forked(held), false));
        assert_eq!(both(entry(6, 1), entry(5, 2)), (Fate::Nothing, true));
    }

    #[test]
    fn our_id_at_the_stated_seq_decides_what_is_served() {
        let checked = |state| {
            let held = HeadRecord {
                entry: entry(5, 2),
                payload_bytes: 70,
            };
            let author = held.entry.author;
            let mut draft = Draft::of_owner(Row::new(author, Some(entry(3, 1)), Some(held)));
            draft.checked(&[TailCheck { author, state }])?;
            Ok::<_, SessionError>(draft.rows[0].fate)
        };
        let id = |n| EventId::from_bytes([n; 32]);
        let payload_bytes = 20;
        assert_eq!(
            checked(TailState::Same { payload_bytes }),
            Ok(Fate::Serve {
                above: 3,
                payload_bytes
            })
        );
        let held = id(9);
        assert_eq!(checked(TailState::Forked { held }), Ok(Fate::Forked(held)));
        // The stated id itself is no fork.
        assert!(checked(TailState::Forked { held: id(1) }).is_err());
    }

    #[test]
    fn a_segment_ends_at_its_bound_and_where_a_stream_runs_dry() {
        let owner = AuthorId::from_bytes([0; 32]);
        let numbered = |n: u64| {
            let mut key = [0; 32];
            key[..8].copy_from_slice(&(n + 1).to_be_bytes());
            AuthorId::from_bytes(key)
        };
        let mut stated = StatedHeads::new(owner, 10_000);
        for chunk in 0..2 {
            let heads = (chunk * 800..(chunk + 1) * 800).map(|n| ClockEntry {
                author: numbered(n),
                ..entry(1, 1)
            });
            let chunk = HeadsChunk {
                request_id: 1,
                heads: heads.collect(),
                last: false,
            };
            stated.accept(chunk).unwrap();
        }
        let mut held = HeldHeads::new(owner, 10);
        let mut draft = Draft::default();
        assert_eq!(draft.join(&mut stated, &mut held), Joined::NeedsPage);
        held.read(&mut VecDeque::new());
        let last = HeadsPage {
            heads: Vec::new(),
            last: true,
        };
        held.accept(last).unwrap();
        let mut next = || {
            let mut draft = Draft::default();
            draft.join(&mut stated, &mut held)
        };
        let through = |n| Joined::Segment(Segment::Through(numbered(n)));
        assert_eq!(next(), through(MAX_SEGMENT_AUTHORS as u64 - 1));
        assert_eq!(next(), through(1_599));
        assert_eq!(next(), Joined::NeedsChunk);
    }

    #[test]
    fn a_flag_that_only_one_side_knows_leaves_the_author_out() {
        let flagged = ClockEntry {
            forked: true,
            ..entry(3, 1)
        };
        assert_eq!(fate(None, Some(flagged)), (Fate::Flagged, false));
        let one_side = fate(Some(entry(3, 1)), Some(flagged));
        assert_eq!(one_side, (Fate::Flagged, false));
        assert_eq!(fate(Some(flagged), Some(flagged)), (Fate::Nothing, false));
    }
}
