//! What was received, what the store has answered, and the joined digest over both.
//!
//! ```text
//! received runs ──▶ unapplied ──store's answer──▶ heads ─┐
//! authors passed ─▶ line ────────────────────────────────┴▶ JoinedDigest
//! ```
//!
//! Invariant: runs are applied in the order they were received, so one queue of heads answers
//! one queue of authors, and both are bounded by the bytes not yet applied.

use std::collections::{BTreeSet, VecDeque};

use headwater_wire::{
    AppendError, AuthorHead, AuthorId, ClockEntry, HeadsDigest, RevokedDigest, Run,
};

use super::output::{Fork, Tally};
use crate::{AppliedRun, MAX_LISTED_FORKS, SessionError, joined::JoinedDigest};

/// Authors that may wait in line for one to be applied, before reading stops.
const MAX_LINE: usize = 8 * 1024;

/// What a decoded run is charged beside its bytes: for itself, and for its verified form.
const RUN_MEMORY: usize = 512;

/// What each of its events is charged: 32 bytes for the decoded row, for the id, and for the
/// name of a channel.
const EVENT_MEMORY: usize = 96;

/// What a run waiting for the store takes at most, near enough: its bytes; all of them that are
/// no payload once more, since causal references are kept decoded beside them; and the constants
/// above. Small events are mostly the latter.
pub(crate) fn memory_of(run: &Run) -> usize {
    let bytes = run.as_bytes().len();
    let payload = usize::try_from(run.payload_bytes()).unwrap_or(bytes);
    bytes + bytes.saturating_sub(payload) + RUN_MEMORY + EVENT_MEMORY * run.event_count()
}

/// Which part of a sync a list of runs belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    History,
    Live,
}

/// An author whose part in the joined digest is settled, or will be once applied.
#[derive(Debug)]
enum InLine {
    Known(ClockEntry),
    Received { author: AuthorId, last_seq: u64 },
}

/// One list of runs the store has not answered about.
#[derive(Debug)]
struct Unapplied {
    part: Part,
    memory: usize,
    /// The author and the bytes of each run.
    runs: Vec<(AuthorId, u64)>,
}

#[derive(Debug, Default)]
pub(super) struct Ledger {
    owner: Option<AuthorId>,
    unapplied: VecDeque<Unapplied>,
    unapplied_memory: usize,
    unapplied_history: usize,
    heads: VecDeque<(AuthorId, AuthorHead)>,
    line: VecDeque<InLine>,
    joined: JoinedDigest,
    /// The last event of the history applied so far.
    pub(super) last_event: Option<(AuthorId, AuthorHead)>,
    pub(super) applied: Tally,
    pub(super) received: Tally,
    pub(super) stubs: u64,
    pub(super) forks: Vec<Fork>,
    pub(super) forked_authors: u64,
    /// The last author counted as forked, and not listed, because the store refused a run.
    unlisted: Option<AuthorId>,
    /// Authors whose logs began here with a live run.
    pub(super) new_live_authors: u64,
    pub(super) unaccepted: Untaken,
    pub(super) over_quota: Untaken,
    pub(super) over_rate: Untaken,
    /// Bytes of the history's runs that were received and not stored for one of the first two reasons.
    pub(super) refused_bytes: u64,
}

/// Authors of whom a run was not taken for one reason: it is nobody's fault, and the others go on.
#[derive(Debug, Default)]
pub(super) struct Untaken {
    authors: BTreeSet<AuthorId>,
    is_full: bool,
}

impl Untaken {
    fn note(&mut self, author: AuthorId) {
        if self.authors.len() < MAX_LISTED_FORKS {
            self.authors.insert(author);
        } else {
            self.is_full = true;
        }
    }

    /// Whether the author is one of them, or may be: the list is bounded.
    fn may_hold(&self, author: &AuthorId) -> bool {
        self.is_full || self.authors.contains(author)
    }

    /// Those listed, ascending.
    pub(super) fn list(&self) -> Vec<AuthorId> {
        self.authors.iter().copied().collect()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.authors.is_empty()
    }

    /// How many there are; with a full list, a lower bound.
    pub(super) fn count(&self) -> u64 {
        self.authors.len() as u64
    }
}

impl Ledger {
    pub(super) fn set_owner(&mut self, owner: AuthorId) {
        self.owner = Some(owner);
    }

    /// Takes note of runs handed to the store.
    pub(super) fn hand_over(&mut self, part: Part, runs: &[Run]) {
        let memory = runs.iter().map(memory_of).sum();
        self.unapplied_memory += memory;
        self.unapplied_history += usize::from(part == Part::History);
        self.unapplied.push_back(Unapplied {
            part,
            memory,
            runs: runs
                .iter()
                .map(|run| (run.author(), run.as_bytes().len() as u64))
                .collect(),
        });
    }

    /// The author brought nothing; what was stated of it counts.
    pub(super) fn pass(&mut self, stated: ClockEntry) {
        self.line.push_back(InLine::Known(stated));
    }

    /// All runs of the author have come.
    pub(super) fn close_log(&mut self, author: AuthorId, last_seq: u64) {
        self.line.push_back(InLine::Received { author, last_seq });
    }

    /// Whether too much waits for the store to receive more, with `further` memory of runs that
    /// will be handed over.
    pub(super) fn is_full(&self, max_unapplied_bytes: usize, further: usize) -> bool {
        self.unapplied_memory.saturating_add(further) >= max_unapplied_bytes
            || self.line.len() >= MAX_LINE
    }

    /// Whether the store has answered about every run of the history.
    pub(super) fn history_applied(&self) -> bool {
        self.unapplied_history == 0
    }

    /// Whether the store has answered about every run.
    pub(super) fn all_applied(&self) -> bool {
        self.unapplied.is_empty()
    }

    /// Takes the store's answers about the oldest list of runs.
    pub(super) fn applied(&mut self, answers: &[AppliedRun]) -> Result<(), SessionError> {
        let unfit = SessionError::StoreAnswer { question: "Apply" };
        let list = self.unapplied.pop_front().ok_or(unfit.clone())?;
        if list.runs.len() != answers.len() {
            return Err(unfit);
        }
        self.unapplied_memory = self.unapplied_memory.saturating_sub(list.memory);
        for ((author, bytes), answer) in list.runs.iter().zip(answers) {
            self.count(list.part, *author, answer)?;
            if list.part == Part::History && self.is_untaken(author, answer) {
                self.refused_bytes = self.refused_bytes.saturating_add(*bytes);
            }
            if list.part == Part::History {
                self.last_event = Some((*author, answer.head));
                match self.heads.back_mut() {
                    Some((last, head)) if last == author => *head = answer.head,
                    _ => self.heads.push_back((*author, answer.head)),
                }
            }
        }
        self.unapplied_history -= usize::from(list.part == Part::History);
        self.settle();
        Ok(())
    }

    fn count(
        &mut self,
        part: Part,
        author: AuthorId,
        answer: &AppliedRun,
    ) -> Result<(), SessionError> {
        match &answer.outcome {
            Ok(appended) => {
                self.applied.add(appended.events, appended.payload_bytes);
                // All events up to the run's last are new: the log was not held before.
                if part == Part::Live && appended.events == answer.head.seq {
                    self.new_live_authors = self.new_live_authors.saturating_add(1);
                }
            }
            // Somebody else delivered it meanwhile.
            Err(AppendError::Stale { .. }) => {}
            Err(AppendError::Forked { seq, .. }) => {
                self.refused(part, &Fork::met(author, *seq));
            }
            Err(AppendError::NotAccepted { .. }) => self.unaccepted.note(author),
            Err(AppendError::OverQuota { .. }) => self.over_quota.note(author),
            Err(AppendError::OverRate { .. }) => self.over_rate.note(author),
            // What follows a fork, or what was not accepted, cannot fit either.
            Err(_) if self.is_forked(&author) => {}
            Err(AppendError::Gap { .. }) if self.is_cut_short(&author) => {}
            // Its genesis was too much.
            Err(AppendError::NoGenesis { .. }) if !self.over_quota.is_empty() => {}
            Err(error) => {
                return Err(SessionError::RunRefused {
                    author,
                    error: error.clone(),
                });
            }
        }
        Ok(())
    }

    /// Whether runs of the author were not taken, or may have been, so that later ones do not fit.
    fn is_cut_short(&self, author: &AuthorId) -> bool {
        let reasons = [&self.unaccepted, &self.over_quota, &self.over_rate];
        reasons.iter().any(|untaken| untaken.may_hold(author))
    }

    /// Whether a run was sent in vain.
    fn is_untaken(&self, author: &AuthorId, answer: &AppliedRun) -> bool {
        match &answer.outcome {
            Err(AppendError::NotAccepted { .. } | AppendError::OverQuota { .. }) => true,
            Err(AppendError::Gap { .. }) => self.is_cut_short(author),
            _ => false,
        }
    }

    /// Notes an author the responder reported as forked. It reports each once.
    pub(super) fn fork(&mut self, fork: &Fork) {
        if !self.is_listed(&fork.author) {
            self.count_fork(fork);
        }
    }

    /// Notes the author of a run the store refused as a fork, once for all its runs. Nobody
    /// reported as forked is served, so no author is noted both ways.
    ///
    /// With a full list, the author before is all that is remembered. That is enough in the
    /// history, where runs come author by author. Live they come in any order, so there only one
    /// more author is counted than listed.
    fn refused(&mut self, part: Part, fork: &Fork) {
        let author = fork.author;
        if self.is_listed(&author) || self.unlisted == Some(author) {
            return;
        }
        let beyond_the_list = self.forked_authors > self.forks.len() as u64;
        if part == Part::Live && beyond_the_list {
            return;
        }
        if !self.count_fork(fork) {
            self.unlisted = Some(author);
        }
    }

    /// Returns whether there was room on the list.
    fn count_fork(&mut self, fork: &Fork) -> bool {
        self.forked_authors = self.forked_authors.saturating_add(1);
        let room = self.forks.len() < MAX_LISTED_FORKS;
        if room {
            self.forks.push(*fork);
        }
        room
    }

    fn is_listed(&self, author: &AuthorId) -> bool {
        self.forks.iter().any(|known| known.author == *author)
    }

    /// Whether the author is forked, or may be: the list is bounded.
    fn is_forked(&self, author: &AuthorId) -> bool {
        self.forked_authors > self.forks.len() as u64 || self.is_listed(author)
    }

    /// Moves everybody whose head is known from the line into the digest.
    pub(super) fn settle(&mut self) {
        while let Some(next) = self.line.front() {
            let entry = match next {
                InLine::Known(entry) => *entry,
                InLine::Received { author, last_seq } => {
                    let reached = self
                        .heads
                        .pop_front_if(|(of, head)| of == author && head.seq == *last_seq);
                    let Some((author, head)) = reached else {
                        return;
                    };
                    ClockEntry {
                        author,
                        head,
                        forked: false,
                        revoked: RevokedDigest::NONE,
                    }
                }
            };
            self.line.pop_front();
            if self.owner == Some(entry.author) {
                self.joined.set_owner(entry);
            } else {
                self.joined.push(&entry);
            }
        }
    }

    /// The joined digest, once the whole history is applied.
    ///
    /// # Errors
    ///
    /// If the store's heads do not end where the runs did.
    pub(super) fn joined_digest(&mut self) -> Result<HeadsDigest, SessionError> {
        self.settle();
        if !self.line.is_empty() {
            return Err(SessionError::StoreAnswer { question: "Apply" });
        }
        Ok(core::mem::take(&mut self.joined).finish())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use headwater_wire::{
        AuthorSecret, EventDraft, EventId, HeadsSummary, VerifiedRun, sign_genesis, sign_runs,
    };

    fn run(author: u8) -> VerifiedRun {
        let space = sign_genesis(&AuthorSecret::from_bytes([1; 32]), [0; 16], 0).space();
        let secret = AuthorSecret::from_bytes([author; 32]);
        let draft = EventDraft::new(16, 0, &b"one"[..]);
        sign_runs(&space, &secret, None, [draft]).unwrap().remove(0)
    }

    fn entry(author: AuthorId, head: AuthorHead) -> ClockEntry {
        ClockEntry {
            author,
            head,
            forked: false,
            revoked: RevokedDigest::NONE,
        }
    }

    #[test]
    fn an_author_behind_one_that_is_not_applied_waits_in_line() {
        let run = run(2);
        let mut higher = *run.author().as_bytes();
        higher[0] = higher[0].checked_add(1).unwrap();
        let stated = entry(AuthorId::from_bytes(higher), run.head());
        let mut ledger = Ledger::default();
        ledger.hand_over(Part::History, &[run.run().clone()]);
        ledger.close_log(run.author(), 1);
        ledger.pass(stated);
        ledger.settle();
        assert_eq!(ledger.line.len(), 2);
        assert!(!ledger.history_applied() && ledger.is_full(1, 0));

        let stale = AppendError::Stale {
            author: run.author(),
            head: 1,
        };
        ledger
            .applied(&[AppliedRun::new(&run, Err(stale))])
            .unwrap();
        assert!(ledger.history_applied() && !ledger.is_full(1, 0));
        let expected = HeadsSummary::from_entries(vec![entry(run.author(), run.head()), stated]);
        assert_eq!(ledger.joined_digest(), Ok(expected.unwrap().digest()));
        assert_eq!(ledger.applied, Tally::default());
    }

    #[test]
    fn a_long_line_stops_the_reading_too() {
        let run = run(2);
        let mut ledger = Ledger::default();
        ledger.hand_over(Part::History, &[run.run().clone()]);
        ledger.close_log(run.author(), 1);
        for _ in 1..MAX_LINE {
            assert!(!ledger.is_full(usize::MAX, 0));
            ledger.pass(entry(run.author(), run.head()));
        }
        assert!(ledger.is_full(usize::MAX, 0));
    }

    #[test]
    fn forks_beyond_the_list_are_counted() {
        let mut ledger = Ledger::default();
        for n in 0..MAX_LISTED_FORKS as u64 + 5 {
            let mut key = [3; 32];
            key[..8].copy_from_slice(&n.to_be_bytes());
            let author = AuthorId::from_bytes(key);
            ledger.fork(&Fork::met(author, 1));
            if n < MAX_LISTED_FORKS as u64 {
                ledger.fork(&Fork::met(author, 2));
            }
        }
        assert_eq!(ledger.forks.len(), MAX_LISTED_FORKS);
        assert_eq!(ledger.forked_authors, MAX_LISTED_FORKS as u64 + 5);
        assert!(ledger.is_forked(&run(9).author()));
    }

    fn numbered(n: u64) -> AuthorId {
        let mut key = [3; 32];
        key[..8].copy_from_slice(&n.to_be_bytes());
        AuthorId::from_bytes(key)
    }

    fn fork_of(n: u64) -> Fork {
        Fork::met(numbered(n), 1)
    }

    #[test]
    fn an_author_whose_runs_are_all_refused_is_counted_once_with_a_full_list_too() {
        const LISTED: u64 = MAX_LISTED_FORKS as u64;
        let mut ledger = Ledger::default();
        for n in 0..LISTED + 3 {
            for _ in 0..3 {
                ledger.refused(Part::History, &fork_of(n));
                // Notices come in between, each once.
                if n < LISTED {
                    ledger.fork(&fork_of(n));
                }
            }
        }
        assert_eq!(ledger.forked_authors, LISTED + 3);
        ledger.fork(&fork_of(LISTED + 10));
        ledger.refused(Part::History, &fork_of(LISTED + 2));
        assert_eq!(ledger.forked_authors, LISTED + 4);
    }

    #[test]
    fn live_forks_beyond_the_list_count_as_one() {
        const LISTED: u64 = MAX_LISTED_FORKS as u64;
        let mut ledger = Ledger::default();
        for n in 0..LISTED {
            ledger.refused(Part::Live, &fork_of(n));
        }
        assert!(!ledger.is_forked(&numbered(LISTED)));
        for n in [LISTED, LISTED + 1, LISTED, LISTED + 1, 0] {
            ledger.refused(Part::Live, &fork_of(n));
        }
        assert_eq!(ledger.forked_authors, LISTED + 1);
        assert!(ledger.is_forked(&numbered(LISTED + 1)));
    }

    #[test]
    fn a_run_of_tiny_events_is_charged_for_what_it_is_decoded_to() {
        let space = sign_genesis(&AuthorSecret::from_bytes([1; 32]), [0; 16], 0).space();
        let secret = AuthorSecret::from_bytes([2; 32]);
        let tiny = (0..1_000).map(|n| EventDraft::new(16, n, &b""[..]));
        let run = sign_runs(&space, &secret, None, tiny).unwrap().remove(0);
        let bytes = run.run().as_bytes().len();
        assert!(bytes < 6_000);
        assert!(memory_of(run.run()) > bytes + 96_000);
        let large = [EventDraft::new(16, 0, vec![0; 60_000])];
        let run = sign_runs(&space, &secret, None, large).unwrap().remove(0);
        assert!(memory_of(run.run()) < 61_000);
    }

    #[test]
    fn answers_about_no_list_or_another_number_of_runs_do_not_fit() {
        let run = run(2);
        let head = AuthorHead {
            seq: 1,
            id: EventId::from_bytes([0; 32]),
        };
        let answer = AppliedRun {
            head,
            outcome: Err(AppendError::Stale {
                author: run.author(),
                head: 1,
            }),
        };
        let mut ledger = Ledger::default();
        assert!(ledger.applied(&[]).is_err());
        ledger.hand_over(Part::Live, &[run.run().clone()]);
        assert!(ledger.applied(&[answer.clone(), answer]).is_err());
    }
}
