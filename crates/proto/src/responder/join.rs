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
//! either side's is forked     same entry .......... nothing
//!                             only stated ......... nothing; the requester is ahead
//!                             else ................ left out, and told
//!                             only held, by owner . told, and served up to the cut
//! ```
//!
//! A requester that states nothing of the owner's log holds nothing of the space, and can take
//! nothing in without its genesis: so it is served what the cut has left.

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
    /// Left out, and told to the requester: the two logs differ, or one side knows of a fork and
    /// the other knows of none or of another.
    Forked,
    /// The owner's, cut: told to the requester, and served to the cut.
    ServeForked {
        payload_bytes: u64,
    },
}

/// One author of the segment.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) author: AuthorId,
    stated: Option<ClockEntry>,
    held: Option<HeadRecord>,
    fate: Fate,
    /// Whether the requester takes nothing of it.
    left_out: bool,
    /// The last event served.
    pub(super) served: Option<AuthorHead>,
}

impl Row {
    pub(super) fn new(
        author: AuthorId,
        stated: Option<ClockEntry>,
        held: Option<HeadRecord>,
    ) -> Self {
        let entry = held.map(|held| held.entry);
        let flagged = [stated, entry].iter().flatten().any(|entry| entry.forked);
        let fate = match (order(stated, held, None), held) {
            (_, None) => Fate::Nothing,
            _ if stated == entry => Fate::Nothing,
            _ if flagged => Fate::Forked,
            (None, _) => Fate::Check,
            (Some(ChainOrder::Ahead { .. }), Some(held)) => Fate::Serve {
                above: 0,
                payload_bytes: held.payload_bytes,
            },
            (Some(ChainOrder::Forked { .. }), _) => Fate::Forked,
            (Some(ChainOrder::Equal | ChainOrder::Behind { .. }), _) => Fate::Nothing,
        };
        Self {
            author,
            stated,
            held,
            fate,
            left_out: false,
            served: None,
        }
    }

    /// Serves nothing of an author of whom the requester takes nothing. Whoever states nothing of a log
    /// cannot do without it if it is the owner's.
    pub(super) fn leave_out(&mut self) {
        self.left_out = self.stated.is_some();
    }

    /// The owner's row. Stated or not, something of it is served.
    pub(super) fn of_owner(stated: Option<ClockEntry>, held: HeadRecord) -> Self {
        let mut row = Self::new(held.entry.author, stated, Some(held));
        if stated.is_none() && row.fate == Fate::Forked {
            row.fate = Fate::ServeForked {
                payload_bytes: held.payload_bytes,
            };
        }
        row
    }

    /// Whether the requester stated what we do not know: events, or that the author forked there.
    ///
    /// If both know of a fork and the requester shows less, it is the one to ask: it may lack
    /// events, and if it knows of a lower fork it says so when it asks. Were we to ask back as well,
    /// two nodes that accept the author to different seqs would never be done.
    fn is_ahead(&self) -> bool {
        let Some(stated) = self.stated else {
            return false;
        };
        let behind = matches!(
            order(self.stated, self.held, None),
            Some(ChainOrder::Behind { .. })
        );
        let knows_more = match self.held.map(|held| held.entry) {
            Some(held) if held.forked => held != stated && stated.head.seq >= held.head.seq,
            _ => true,
        };
        behind || (stated.forked && knows_more)
    }

    /// What the requester stated.
    pub(super) fn stated(&self) -> Option<ClockEntry> {
        self.stated
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
    /// Whether the requester stated what we do not know.
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

    /// Joins the two streams until the segment is full, or one of them has run dry. The authors of
    /// `except`, ascending, are left out.
    pub(super) fn join(
        &mut self,
        stated: &mut StatedHeads,
        held: &mut HeldHeads,
        except: &[AuthorId],
    ) -> Joined {
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
            let mut row = Row::new(lowest, stated.take(lowest), held.take(lowest));
            if except.binary_search(&lowest).is_ok() {
                if row.stated.is_none() {
                    continue;
                }
                row.leave_out();
            }
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
        let mut checks = checks.iter().peekable();
        for row in self.rows.iter_mut().filter(|row| row.fate == Fate::Check) {
            // One that no longer reaches the head stated has no answer.
            let author = row.author;
            let check = checks.next_if(|check| check.author == author);
            let check = check.ok_or(SessionError::LogCut { author })?;
            let Some(stated) = row.stated else {
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
                (Some(ChainOrder::Forked { .. }), TailState::Forked { .. }) => Fate::Forked,
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
            .filter(|(_, row)| !row.left_out)
            .filter_map(|(index, row)| {
                let (above, payload_bytes) = match row.fate {
                    Fate::Serve {
                        above,
                        payload_bytes,
                    } => (above, payload_bytes),
                    Fate::ServeForked { payload_bytes } => (0, payload_bytes),
                    Fate::Nothing | Fate::Check | Fate::Forked => return None,
                };
                let want = TailWant {
                    author: row.author,
                    above,
                    through: row.pinned()?.seq,
                };
                Some((index, want, payload_bytes))
            })
            .collect()
    }

    /// Notices about the authors that are forked.
    pub(super) fn notices(&self, request_id: u64) -> Vec<ForkNotice> {
        let rows = self.rows.iter();
        rows.filter_map(|row| match row.fate {
            Fate::Forked | Fate::ServeForked { .. } => Some(ForkNotice {
                request_id,
                author: row.author,
                stated: row.stated,
                held: row.held?.entry,
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
                Fate::Forked | Fate::ServeForked { .. } => tidings.forked.push(row.author),
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
            revoked: headwater_wire::RevokedDigest::NONE,
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
        assert_eq!(both(entry(5, 1), entry(5, 2)), (Fate::Forked, false));
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
        assert_eq!(checked(TailState::Forked { held }), Ok(Fate::Forked));
        // The stated id itself is no fork.
        assert!(checked(TailState::Forked { held: id(1) }).is_err());
    }

    #[test]
    fn an_author_left_out_is_not_served_and_unless_it_is_stated_not_spoken_of() {
        let owner = AuthorId::from_bytes([0; 32]);
        let of = |author: u8, seq| ClockEntry {
            author: AuthorId::from_bytes([author; 32]),
            ..entry(seq, 1)
        };
        let mut stated = StatedHeads::new(owner, 10);
        let chunk = HeadsChunk {
            request_id: 1,
            heads: vec![of(2, 5)],
            last: true,
        };
        stated.accept(chunk).unwrap();
        let mut held = HeldHeads::new(owner, 10);
        held.read(&mut VecDeque::new());
        let heads = [of(1, 9), of(2, 9), of(3, 9)].map(|entry| HeadRecord {
            entry,
            payload_bytes: 90,
        });
        let page = HeadsPage {
            heads: heads.to_vec(),
            last: true,
        };
        held.accept(page).unwrap();
        let except = [1, 2].map(|author| AuthorId::from_bytes([author; 32]));
        let mut draft = Draft::default();
        let joined = draft.join(&mut stated, &mut held, &except);
        assert_eq!(joined, Joined::Segment(Segment::Last));
        let rows: Vec<_> = draft.rows.iter().map(|row| row.author).collect();
        assert_eq!(rows, [of(2, 5).author, of(3, 9).author]);
        let wants: Vec<_> = draft.wants().iter().map(|want| want.1.author).collect();
        assert_eq!(wants, [of(3, 9).author]);
        assert_eq!(draft.rows[0].joined(), Some(of(2, 5)));
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
        assert_eq!(draft.join(&mut stated, &mut held, &[]), Joined::NeedsPage);
        held.read(&mut VecDeque::new());
        let last = HeadsPage {
            heads: Vec::new(),
            last: true,
        };
        held.accept(last).unwrap();
        let mut next = || {
            let mut draft = Draft::default();
            draft.join(&mut stated, &mut held, &[])
        };
        let through = |n| Joined::Segment(Segment::Through(numbered(n)));
        assert_eq!(next(), through(MAX_SEGMENT_AUTHORS as u64 - 1));
        assert_eq!(next(), through(1_599));
        assert_eq!(next(), Joined::NeedsChunk);
    }

    fn flagged(seq: u64, id: u8) -> ClockEntry {
        ClockEntry {
            forked: true,
            ..entry(seq, id)
        }
    }

    #[test]
    fn a_flag_that_only_one_side_knows_leaves_the_author_out() {
        assert_eq!(fate(None, Some(flagged(3, 1))), (Fate::Forked, false));
        let both = |stated, held| fate(Some(stated), Some(held));
        assert_eq!(both(entry(3, 1), flagged(3, 1)), (Fate::Forked, false));
        assert_eq!(both(entry(9, 1), flagged(3, 1)), (Fate::Forked, true));
        assert_eq!(both(flagged(3, 1), flagged(3, 1)), (Fate::Nothing, false));
    }

    #[test]
    fn a_responder_asks_back_about_every_stated_fork_it_does_not_share() {
        let both = |stated, held| fate(Some(stated), Some(held));
        assert_eq!(both(flagged(3, 1), entry(3, 1)), (Fate::Forked, true));
        assert_eq!(both(flagged(3, 1), entry(9, 1)), (Fate::Forked, true));
        assert_eq!(both(flagged(3, 1), flagged(2, 1)), (Fate::Forked, true));
        assert_eq!(both(flagged(3, 1), flagged(3, 2)), (Fate::Forked, true));
        let none = ClockEntry {
            head: AuthorHead::NONE,
            ..flagged(0, 0)
        };
        assert_eq!(fate(Some(none), None), (Fate::Nothing, true));
        // Who shows less is the one to ask.
        assert_eq!(both(none, flagged(2, 1)), (Fate::Forked, false));
    }

    #[test]
    fn an_owner_nothing_was_stated_of_is_served_to_its_cut() {
        let owner = |stated, entry| {
            let held = HeadRecord {
                entry,
                payload_bytes: 70,
            };
            let draft = Draft::of_owner(Row::of_owner(stated, held));
            (draft.notices(1).len(), draft.wants().len())
        };
        assert_eq!(owner(None, flagged(3, 1)), (1, 1));
        assert_eq!(owner(Some(entry(2, 1)), flagged(3, 1)), (1, 0));
        assert_eq!(owner(None, entry(3, 1)), (0, 1));
    }
}
