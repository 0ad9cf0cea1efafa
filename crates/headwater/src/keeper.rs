//! The writer's side of access: whose runs go into the store, and what the owner's log changes.
//!
//! ```text
//! runs ──▶ refusal ──▶ store ──▶ appended ─┬▶ owner's log grew ──▶ roster ──▶ bounds in the store
//!                                          └▶ everybody else waits for that
//! ```
//!
//! Invariant: whether a run is accepted is decided after every run of the owner's before it is
//! stored and taken in, so one sync can bring a grant and the log it is about.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use headwater_proto::{Appended, TailWant};
use headwater_store::{Bounds, Damage, LogStore, StoreError};
use headwater_wire::{
    Acceptance, AppendError, AuthorId, Event, EventDraft, Kind, RosterState, Run, SpaceId, Subject,
    VerifiedRun, kind,
};
use tracing::{debug, error};

use crate::policy::{AccessPolicy, Roster};

/// Bytes of the owner's log read at once.
const READ_BYTES: usize = 256 * 1024;

/// Heads read at once.
const HEADS_PAGE: usize = 1024;

/// Decides, on the writer's thread.
#[derive(Debug)]
pub(crate) struct Keeper {
    store: Arc<dyn LogStore>,
    policy: Arc<dyn AccessPolicy>,
    /// Owners seen. A space's never changes.
    owners: HashMap<SpaceId, AuthorId>,
    /// Spaces whose bounds in the store were brought in line with the owner's log, or that began
    /// here: what is written from then on has only to be followed.
    in_line: HashSet<SpaceId>,
    /// Where bounds moved what the store shows since that was last asked.
    moved: Vec<Moved>,
}

/// A bound moved the last event of a log that shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Moved {
    pub(crate) space: SpaceId,
    pub(crate) author: AuthorId,
    pub(crate) from: u64,
    pub(crate) to: u64,
}

/// Whose bounds in the store may have changed.
#[derive(Debug, Default)]
struct Touched {
    authors: BTreeSet<AuthorId>,
    everybody: bool,
}

impl Touched {
    fn add(&mut self, subject: Subject) {
        match subject {
            Subject::Anyone => self.everybody = true,
            Subject::Key(key) => {
                self.authors.insert(AuthorId::from_bytes(*key.as_bytes()));
            }
        }
    }

    fn is_nobody(&self) -> bool {
        self.authors.is_empty() && !self.everybody
    }
}

impl Keeper {
    pub(crate) fn new(store: Arc<dyn LogStore>, policy: Arc<dyn AccessPolicy>) -> Self {
        Self {
            store,
            policy,
            owners: HashMap::new(),
            in_line: HashSet::new(),
            moved: Vec::new(),
        }
    }

    /// Reads the owners' logs, if the policy goes by them. If it does not, no bound holds that an
    /// earlier one left in the store.
    pub(crate) fn load(&mut self) {
        let policy = Arc::clone(&self.policy);
        let Some(roster) = policy.roster() else {
            if let Err(store_error) = self.lift_all() {
                error!(error = %store_error, "cannot show what an earlier policy hid");
            }
            return;
        };
        self.load_all(roster);
        roster.set_loaded();
        roster.notify();
    }

    fn load_all(&mut self, roster: &Roster) {
        match self.store.spaces() {
            Ok(spaces) => {
                roster.set_read(None);
                for space in spaces {
                    self.load_space(roster, space);
                }
            }
            Err(store_error) => {
                error!(error = %store_error, "cannot list spaces: nobody has access");
                roster.set_unread(None);
            }
        }
    }

    /// Tries again to read what could not be read, as far as it is time to.
    pub(crate) fn read_due(&mut self) {
        let policy = Arc::clone(&self.policy);
        let Some(roster) = policy.roster() else {
            return;
        };
        let due = roster.take_due();
        if due.is_empty() {
            return;
        }
        for unread in due {
            match unread {
                Some(space) => self.load_space(roster, space),
                None => self.load_all(roster),
            }
        }
        roster.notify();
    }

    /// Reads one owner's log from its start. Nobody has access to a space it cannot be read of.
    fn load_space(&mut self, roster: &Roster, space: SpaceId) {
        let everybody = Touched {
            everybody: true,
            ..Touched::default()
        };
        let loaded = self.owner(space).and_then(|owner| {
            let Some(owner) = owner else {
                return Ok(());
            };
            let mut state = RosterState::new(owner);
            self.read_on(&mut state, space)?;
            state.hold(&self.store.revoked(&space)?);
            // As they are, unless this node ended between the owner's commit and the bounds of it, or
            // went by another policy meanwhile.
            if self.store.bounds(&space)? != Some(Bounds::Kept) {
                self.bound(&state, space, &everybody)?;
                self.store.set_bounds(&space, Bounds::Kept)?;
            }
            self.in_line.insert(space);
            roster.set(space, state);
            Ok(())
        });
        match loaded {
            Ok(()) => roster.set_read(Some(space)),
            Err(store_error) => {
                error!(error = %store_error, space = %space.fmt_short(), "cannot read who has access");
                self.in_line.remove(&space);
                roster.forget(space);
                roster.set_unread(Some(space));
            }
        }
    }

    /// Takes in what the store shows of the owner's log beyond what is known.
    fn read_on(&self, state: &mut RosterState, space: SpaceId) -> Result<Touched, StoreError> {
        let mut touched = Touched::default();
        let author = state.owner();
        let Some(record) = self.store.head(&space, &author)? else {
            return Ok(touched);
        };
        let through = record.entry.head.seq;
        loop {
            let above = state.head().map_or(0, |head| head.seq);
            if above >= through {
                return Ok(touched);
            }
            let seq = above + 1;
            let damaged = || Damage::Run { space, author, seq };
            let want = TailWant {
                author,
                above,
                through,
            };
            let runs = self.store.read_runs(&space, &[want], READ_BYTES)?;
            if runs.is_empty() {
                return Err(damaged().into());
            }
            for stored in runs {
                let run = Run::decode(stored.bytes).map_err(|_| damaged())?;
                take_in(state, run.events(&space), through, &mut touched);
            }
        }
    }

    fn owner(&mut self, space: SpaceId) -> Result<Option<AuthorId>, StoreError> {
        if let Some(owner) = self.owners.get(&space) {
            return Ok(Some(*owner));
        }
        let owner = self.store.summary(&space)?.map(|held| held.owner);
        if let Some(owner) = owner {
            self.owners.insert(space, owner);
        }
        Ok(owner)
    }

    /// Whether other authors' runs have to wait until this one is stored and taken in.
    pub(crate) fn decides_others(&mut self, run: &VerifiedRun) -> bool {
        if self.policy.roster().is_none() {
            return false;
        }
        if run.is_genesis() {
            return true;
        }
        let is_owners = self.owner(run.space()).ok().flatten() == Some(run.author());
        is_owners && run.events().any(|event| is_control(event.header.kind))
    }

    /// Whether these drafts may change who has access.
    pub(crate) fn drafts_decide(&self, drafts: &[EventDraft]) -> bool {
        self.policy.roster().is_some() && drafts.iter().any(|draft| is_control(draft.kind))
    }

    /// Why a run does not go into the store, if it does not.
    pub(crate) fn refusal(&mut self, run: &VerifiedRun) -> Option<AppendError> {
        let (space, author) = (run.space(), run.author());
        if run.is_genesis() {
            // It proves itself whose space it is, stored or not.
            self.owners.insert(space, author);
            return None;
        }
        self.read_due();
        self.author_refusal(space, author, run.first_seq())
    }

    /// Why an event of an author does not, if it does not.
    pub(crate) fn author_refusal(
        &mut self,
        space: SpaceId,
        author: AuthorId,
        seq: u64,
    ) -> Option<AppendError> {
        let through = match self.policy.accepts(space, author) {
            Acceptance::All => return None,
            Acceptance::Through(last) if seq <= last.seq => return None,
            Acceptance::Through(last) => Some(last.seq),
            Acceptance::Nothing => None,
        };
        match self.owner(space) {
            // Not held, or not readable: the store says so.
            Err(_) | Ok(None) => None,
            Ok(Some(owner)) if owner == author => None,
            Ok(Some(_)) => Some(AppendError::NotAccepted { author, through }),
        }
    }

    /// Takes in what was appended to owners' logs, but for those that have to be
    /// [read again](Self::reread).
    pub(crate) fn appended(
        &mut self,
        runs: &[VerifiedRun],
        outcomes: &[Result<Appended, AppendError>],
        rosters: &[SpaceId],
    ) {
        let policy = Arc::clone(&self.policy);
        let Some(roster) = policy.roster() else {
            return;
        };
        let mut changed = false;
        for (run, outcome) in runs.iter().zip(outcomes) {
            let space = run.space();
            if rosters.contains(&space) {
                continue;
            }
            match outcome {
                Ok(appended) if appended.events > 0 && self.is_owner(space, run.author()) => {
                    if appended.head.seq == appended.events {
                        self.in_line.insert(space);
                    }
                    changed |= self.owner_wrote(roster, run, appended);
                }
                _ => {}
            }
        }
        if changed {
            roster.notify();
        }
    }

    /// Whether a proof that an author forked goes into the store: not if nothing is held of them and
    /// nothing accepted, as whoever makes keys can make proofs.
    pub(crate) fn wants_proof(
        &mut self,
        space: SpaceId,
        author: AuthorId,
    ) -> Result<bool, StoreError> {
        if self.author_refusal(space, author, 1).is_none() {
            return Ok(true);
        }
        self.is_known(space, author)
    }

    /// Reads the logs of owners who fork again: what they granted above the cut counts no more, and
    /// what they revoked there does, in whichever branch.
    pub(crate) fn reread(&mut self, rosters: &[SpaceId]) {
        let policy = Arc::clone(&self.policy);
        let Some(roster) = policy.roster() else {
            return;
        };
        for space in rosters {
            self.load_space(roster, *space);
            roster.notify();
        }
    }

    fn is_owner(&mut self, space: SpaceId, author: AuthorId) -> bool {
        matches!(self.owner(space), Ok(Some(owner)) if owner == author)
    }

    /// Returns whether anybody's access may have changed.
    fn owner_wrote(&mut self, roster: &Roster, run: &VerifiedRun, appended: &Appended) -> bool {
        let (space, through) = (run.space(), appended.head.seq);
        let mut touched = Touched::default();
        let taken_in = roster.change(space, run.author(), |state| {
            let known = state.head().map_or(0, |head| head.seq);
            let goes_on = run.first_seq() <= known + 1;
            if goes_on {
                take_in(state, run.events(), through, &mut touched);
            } else {
                touched = self.read_on(state, space)?;
            }
            Ok((!touched.is_nobody()).then(|| state.clone()))
        });
        let bounded = taken_in.and_then(|changed| {
            let Some(state) = changed else {
                return Ok(false);
            };
            self.bound(&state, space, &touched)?;
            if self.in_line.contains(&space) {
                self.store.set_bounds(&space, Bounds::Kept)?;
            }
            Ok(true)
        });
        bounded.unwrap_or_else(|store_error: StoreError| {
            error!(error = %store_error, space = %space.fmt_short(), "cannot follow who has access");
            self.in_line.remove(&space);
            roster.forget(space);
            roster.set_unread(Some(space));
            true
        })
    }

    /// Puts the bounds of acceptance into the store, for whomever they may have changed.
    fn bound(
        &mut self,
        state: &RosterState,
        space: SpaceId,
        touched: &Touched,
    ) -> Result<(), StoreError> {
        let mut authors = touched.authors.clone();
        if touched.everybody {
            authors.extend(
                state
                    .members()
                    .map(|(key, _)| AuthorId::from_bytes(*key.as_bytes())),
            );
            authors.extend(self.restricted(space)?);
            let mut after = None;
            loop {
                let page = self.store.heads(&space, after, HEADS_PAGE)?;
                authors.extend(page.heads.iter().map(|record| record.entry.author));
                after = page.heads.last().map(|record| record.entry.author);
                if page.last || after.is_none() {
                    break;
                }
            }
        }
        authors.remove(&state.owner());
        for author in authors {
            self.bound_author(state, space, author)?;
        }
        Ok(())
    }

    fn bound_author(
        &mut self,
        state: &RosterState,
        space: SpaceId,
        author: AuthorId,
    ) -> Result<(), StoreError> {
        let through = match state.acceptance(&author) {
            Acceptance::All => None,
            Acceptance::Through(last) => Some(last.seq),
            Acceptance::Nothing => {
                if !self.is_known(space, author)? {
                    // A reader's key, say: there is nothing to hide.
                    return Ok(());
                }
                Some(0)
            }
        };
        if self.store.restriction(&space, &author)? != through {
            debug!(author = %author.fmt_short(), ?through, "what is accepted changes");
            self.restrict(space, author, through)?;
        }
        Ok(())
    }

    fn restrict(
        &mut self,
        space: SpaceId,
        author: AuthorId,
        through: Option<u64>,
    ) -> Result<(), StoreError> {
        let from = self.shown_of(space, author)?;
        let _heads_changed = self.store.restrict(&space, &author, through)?;
        let to = self.shown_of(space, author)?;
        if from != to {
            self.moved.push(Moved {
                space,
                author,
                from,
                to,
            });
        }
        Ok(())
    }

    /// Whoever has a bound in the store.
    fn restricted(&self, space: SpaceId) -> Result<BTreeSet<AuthorId>, StoreError> {
        let mut authors = BTreeSet::new();
        loop {
            let after = authors.last().copied();
            let page = self.store.restricted(&space, after, HEADS_PAGE)?;
            let is_last = page.len() < HEADS_PAGE;
            authors.extend(page);
            if is_last {
                return Ok(authors);
            }
        }
    }

    fn lift_all(&mut self) -> Result<(), StoreError> {
        for space in self.store.spaces()? {
            if self.store.bounds(&space)?.unwrap_or_default() == Bounds::None {
                continue;
            }
            for author in self.restricted(space)? {
                self.restrict(space, author, None)?;
            }
            self.store.set_bounds(&space, Bounds::None)?;
        }
        Ok(())
    }

    /// Whether anything is stored about an author.
    fn is_known(&self, space: SpaceId, author: AuthorId) -> Result<bool, StoreError> {
        let is_held = self.store.stored_end(&space, &author)?.is_some();
        Ok(is_held || self.store.fork(&space, &author)?.is_some())
    }

    /// The last event of a log that shows; 0 if none does.
    fn shown_of(&self, space: SpaceId, author: AuthorId) -> Result<u64, StoreError> {
        let record = self.store.head(&space, &author)?;
        Ok(record.map_or(0, |record| record.entry.head.seq))
    }

    /// Where bounds moved what shows since the last call, in their order.
    pub(crate) fn take_moved(&mut self) -> Vec<Moved> {
        std::mem::take(&mut self.moved)
    }

    /// Lifts whatever bound the store still has for an author who may write by now.
    pub(crate) fn lift(&mut self, space: SpaceId, author: AuthorId) -> Result<(), StoreError> {
        let is_bounded = self.store.restriction(&space, &author)?.is_some();
        if is_bounded && self.policy.accepts(space, author) == Acceptance::All {
            self.restrict(space, author, None)?;
        }
        Ok(())
    }
}

/// Folds the events that show into a state.
fn take_in(
    state: &mut RosterState,
    events: impl Iterator<Item = Event>,
    through: u64,
    touched: &mut Touched,
) {
    for event in events.filter(|event| event.header.seq <= through) {
        if let Some(subject) = state.fold(&event) {
            touched.add(subject);
        }
    }
}

fn is_control(kind: Kind) -> bool {
    matches!(kind, kind::GRANT | kind::REVOKE)
}
