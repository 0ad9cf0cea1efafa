//! Signs, appends, and tells the watchers of it.
//!
//! Invariant: whoever appends holds the [`Committer`], so reading a head, signing and appending are
//! one step to everybody else, and commits are published in the order they were made.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Instant,
};

use headwater_proto::Appended;
use headwater_store::{Commit, LogStore, Quotas, StoreError, Stored};
use headwater_wire::{
    AppendError, AuthorHead, AuthorId, AuthorSecret, ClockEntry, EventDraft, SpaceId,
    VerifiedForkProof, VerifiedRun, sign_runs,
};
use iroh::EndpointId;
use tracing::{debug, error, warn};

use crate::{
    hub::{Cut, Hub, News},
    keeper::Keeper,
    metrics::Metrics,
    pace::Pace,
    room::Room,
    space::WriteError,
};

/// Outcomes of runs, in their order.
pub(crate) type Outcomes = Vec<Result<Appended, AppendError>>;

/// What became of the runs of one job.
#[derive(Debug, Clone, Default)]
pub(crate) struct StoreReply {
    /// Those of the first runs, which are durable: of all of them, unless the store failed.
    pub(crate) outcomes: Outcomes,
    /// Why the others have none. Nothing of them is stored.
    pub(crate) failed: Option<Arc<StoreError>>,
}

impl StoreReply {
    /// All outcomes, or why there are not all of them.
    pub(crate) fn whole(self) -> Result<Outcomes, Arc<StoreError>> {
        self.failed.map_or(Ok(self.outcomes), Err)
    }
}

impl From<Result<Outcomes, Arc<StoreError>>> for StoreReply {
    fn from(reply: Result<Outcomes, Arc<StoreError>>) -> Self {
        match reply {
            Ok(outcomes) => Self {
                outcomes,
                failed: None,
            },
            Err(store_error) => Self {
                outcomes: Vec::new(),
                failed: Some(store_error),
            },
        }
    }
}

/// Whether a proof was put into the store.
pub(crate) type CutReply = Result<(), Arc<StoreError>>;

/// What one call signs: for each author, the drafts in their order.
pub(crate) type Parts = Vec<(AuthorSecret, Vec<EventDraft>)>;

/// Where a run comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    /// It was made here.
    Local,
    /// This peer was asked for it.
    Asked(EndpointId),
    /// This peer sent it unasked: live, or by gossip. Authors have a rate there.
    Pushed(EndpointId),
}

impl Origin {
    /// The peer that sent it.
    pub(crate) fn peer(self) -> Option<EndpointId> {
        match self {
            Self::Local => None,
            Self::Asked(peer) | Self::Pushed(peer) => Some(peer),
        }
    }
}

/// What jobs will have stored once they are committed, at most.
#[derive(Debug, Default)]
pub(crate) struct Pending {
    spaces: HashMap<SpaceId, Stored>,
    logs: HashMap<(SpaceId, AuthorId), Stored>,
}

impl Pending {
    pub(crate) fn add(&mut self, run: &VerifiedRun) {
        let size = size(run);
        let space = self.spaces.entry(run.space()).or_default();
        *space = space.plus(size);
        let log = self.logs.entry((run.space(), run.author())).or_default();
        *log = log.plus(size);
    }

    fn of_space(&self, space: SpaceId) -> Stored {
        self.spaces.get(&space).copied().unwrap_or_default()
    }

    fn of_log(&self, log: (SpaceId, AuthorId)) -> Stored {
        self.logs.get(&log).copied().unwrap_or_default()
    }
}

fn size(run: &VerifiedRun) -> Stored {
    Stored {
        bytes: run.run().as_bytes().len() as u64,
        events: run.run().event_count() as u64,
    }
}

/// The heads that signing leaves.
pub(crate) type SignReply = Result<Vec<AuthorHead>, WriteError>;

/// The only way to write into the store.
#[derive(Debug)]
pub(crate) struct Committer {
    pub(crate) store: Arc<dyn LogStore>,
    pub(crate) keeper: Keeper,
    pub(crate) hub: Arc<Hub>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) quotas: Quotas,
    pub(crate) pace: Pace,
    pub(crate) room: Room,
    /// Logs that were cut by a fork since the start: their watchers know that they fork.
    pub(crate) forked: HashSet<(SpaceId, AuthorId)>,
}

/// What a job signed.
#[derive(Default)]
pub(crate) struct Signed {
    pub(crate) runs: Vec<VerifiedRun>,
    pub(crate) heads: Vec<AuthorHead>,
    pub(crate) staged: HashMap<(SpaceId, AuthorId), AuthorHead>,
}

impl Committer {
    /// Signs drafts on top of what is held, or of the heads that `earlier` jobs of the same commit
    /// will leave. What the quotas do not allow is refused here, all of it: `pending` is what those
    /// jobs will store.
    pub(crate) fn sign_parts(
        &mut self,
        earlier: &HashMap<(SpaceId, AuthorId), AuthorHead>,
        pending: &Pending,
        space: SpaceId,
        parts: Parts,
    ) -> Result<Signed, WriteError> {
        let held = self.store.summary(&space).map_err(WriteError::store)?;
        if held.is_none() {
            return Err(WriteError::UnknownSpace { space });
        }
        let mut signed = Signed::default();
        let mut here = Pending::default();
        for (secret, drafts) in parts {
            let log = (space, secret.id());
            let base = match signed.staged.get(&log).or_else(|| earlier.get(&log)) {
                Some(head) => Some(*head),
                None => self.base(space, log.1)?,
            };
            let next = base.map_or(0, |base| base.seq) + 1;
            if let Some(refused) = self.keeper.author_refusal(space, log.1, next) {
                return Err(WriteError::Append(refused));
            }
            let runs = sign_runs(&space, &secret, base, drafts).map_err(WriteError::Draft)?;
            let head = match runs.last() {
                Some(run) => run.head(),
                None => return Err(WriteError::Empty),
            };
            self.check_quotas(&runs, pending, &mut here)?;
            signed.staged.insert(log, head);
            signed.heads.push(head);
            signed.runs.extend(runs);
        }
        Ok(signed)
    }

    /// Whether the quotas allow the runs of one log, with what is pending elsewhere and `here`; adds
    /// them to the latter.
    fn check_quotas(
        &self,
        runs: &[VerifiedRun],
        pending: &Pending,
        here: &mut Pending,
    ) -> Result<(), WriteError> {
        let Some(first) = runs.first().filter(|_| self.quotas != Quotas::NONE) else {
            return Ok(());
        };
        let (space, author) = (first.space(), first.author());
        let usage = self.store.usage(&space, &author);
        let mut usage = usage.map_err(WriteError::store)?;
        for pending in [pending, &*here] {
            usage.log = usage.log.plus(pending.of_log((space, author)));
            usage.space = usage.space.plus(pending.of_space(space));
        }
        let more = runs.iter().map(size).fold(Stored::default(), Stored::plus);
        let checked = self.quotas.check(author, &usage, more);
        checked.map_err(WriteError::Append)?;
        runs.iter().for_each(|run| here.add(run));
        Ok(())
    }

    /// The event that a log goes on from: the last one stored. Where that does not show, signing on
    /// top of what shows would fork the log.
    fn base(&mut self, space: SpaceId, author: AuthorId) -> Result<Option<AuthorHead>, WriteError> {
        let end = self.store.stored_end(&space, &author);
        let stored = end.map_err(WriteError::store)?.map_or(0, |end| end.seq);
        let mut shown = self.shown(space, author)?;
        if shown.is_none_or(|entry| entry.head.seq < stored) {
            self.keeper.lift(space, author).map_err(WriteError::store)?;
            self.tell_moved();
            shown = self.shown(space, author)?;
        }
        let head = shown.map(|entry| entry.head);
        let shown_seq = head.map_or(0, |head| head.seq);
        if shown.is_none_or(|entry| entry.forked) {
            let fork = self.store.fork(&space, &author);
            if let Some(fork) = fork.map_err(WriteError::store)? {
                let seq = fork.seq;
                return Err(WriteError::Forked { author, seq });
            }
        }
        if shown_seq == stored {
            return Ok(head);
        }
        let refused = self.keeper.author_refusal(space, author, stored + 1);
        Err(refused.map_or(
            WriteError::Hidden {
                author,
                shown: shown_seq,
                stored,
            },
            WriteError::Append,
        ))
    }

    fn shown(&self, space: SpaceId, author: AuthorId) -> Result<Option<ClockEntry>, WriteError> {
        let record = self.store.head(&space, &author);
        let record = record.map_err(WriteError::store)?;
        Ok(record.map(|record| record.entry))
    }

    /// Reads who has access, and puts it into the store.
    pub(crate) fn load(&mut self) {
        self.keeper.load();
        self.tell_moved();
    }

    /// Reads again who has access, where that failed and it is time to.
    pub(crate) fn read_due(&mut self) {
        self.keeper.read_due();
        self.tell_moved();
    }

    /// Tells the watchers where bounds moved what shows.
    fn tell_moved(&mut self) {
        for moved in self.keeper.take_moved() {
            let (space, author) = (moved.space, moved.author);
            if moved.from < moved.to {
                self.hub.publish_shown(space, author, moved.from, moved.to);
            } else {
                self.hub.publish_hidden(space, author, moved.to);
            }
        }
    }

    /// Keeps a proof, in a transaction of its own, and tells the watchers.
    pub(crate) fn cut(&mut self, proof: &VerifiedForkProof, knows: EndpointId) -> CutReply {
        let committed = match self.keeper.wants_proof(proof.space(), proof.author()) {
            Ok(true) => {
                let halves = [proof.first().clone(), proof.second().clone()];
                self.take_room(&halves)?;
                self.store.cut(proof)
            }
            Ok(false) => {
                let author = proof.author();
                debug!(author = %author.fmt_short(), "a proof about nobody who may write");
                return Ok(());
            }
            Err(store_error) => Err(store_error),
        };
        self.tell_kept(committed, knows)
    }

    /// Takes in what an owner who forks has revoked, in a transaction of its own, and tells the
    /// watchers.
    pub(crate) fn absorb(&mut self, runs: &[VerifiedRun], knows: EndpointId) -> CutReply {
        self.take_room(runs)?;
        let committed = self.store.absorb(runs);
        self.tell_kept(committed, knows)
    }

    /// Tells the watchers what a proof, or what an owner revoked, has changed.
    fn tell_kept(&mut self, kept: Result<Commit, StoreError>, knows: EndpointId) -> CutReply {
        match kept {
            Ok(commit) => {
                self.metrics.commits.inc();
                self.keeper.reread(&commit.rosters);
                self.publish(&[], &[], &commit, Some(knows));
                self.tell_moved();
                Ok(())
            }
            Err(store_error) => {
                error!(error = %store_error, "what is known of a fork was not kept");
                self.metrics.commits_failed.inc();
                Err(Arc::new(store_error))
            }
        }
    }

    /// Whether the store would append now without waiting.
    pub(crate) fn waits_for_nothing(&self) -> bool {
        let asked = self.store.append_at_once(&[], &Quotas::NONE);
        matches!(asked, Some(Ok(_)))
    }

    /// Signs and appends one draft, if the store takes it without waiting; `None` otherwise, and
    /// nothing is done.
    pub(crate) fn sign_at_once(
        &mut self,
        space: SpaceId,
        secret: &AuthorSecret,
        draft: &EventDraft,
    ) -> Option<SignReply> {
        let drafts = std::slice::from_ref(draft);
        if !self.waits_for_nothing() || self.keeper.drafts_decide(drafts) {
            return None;
        }
        let parts = vec![(secret.clone(), drafts.to_vec())];
        let signed = match self.sign_parts(&HashMap::new(), &Pending::default(), space, parts) {
            Ok(signed) => signed,
            Err(error) => return Some(Err(error)),
        };
        let outcomes = self.append_at_once(&signed.runs, Origin::Local)?;
        Some(signed_reply(signed.heads, outcomes))
    }

    /// Appends the runs of one origin, if the store takes them without waiting and they change
    /// nobody's access; `None` otherwise, and nothing is done.
    pub(crate) fn append_at_once(
        &mut self,
        runs: &[VerifiedRun],
        origin: Origin,
    ) -> Option<StoreReply> {
        let is_plain = |run: &VerifiedRun| {
            !self.keeper.decides_others(run) && self.refusal(run, origin).is_none()
        };
        if !runs.iter().all(is_plain) {
            return None;
        }
        if let Err(store_error) = self.take_room(runs) {
            return Some(Err(store_error).into());
        }
        let committed = self.store.append_at_once(runs, &self.quotas)?;
        self.metrics.commit_jobs.inc();
        let committed = self.committed(runs, &vec![origin; runs.len()], committed);
        Some(committed.into())
    }

    /// Appends in one transaction, and tells the watchers. Where runs of the owner's may change who
    /// has access, they are a transaction of their own before those of others: the job they came
    /// in is alone then. What was made here is one transaction in any case, as it was decided on
    /// when it was signed.
    pub(crate) fn append(&mut self, runs: &[VerifiedRun], origins: &[Origin]) -> StoreReply {
        let is_local = origins.iter().all(|origin| *origin == Origin::Local);
        let mut outcomes = Vec::with_capacity(runs.len());
        while outcomes.len() < runs.len() {
            let (rest, origins) = (&runs[outcomes.len()..], &origins[outcomes.len()..]);
            let count = match is_local {
                true => rest.len(),
                false => self.decided_at_once(rest),
            };
            match self.append_accepted(&rest[..count], &origins[..count]) {
                Ok(more) => outcomes.extend(more),
                Err(store_error) => {
                    return StoreReply {
                        outcomes,
                        failed: Some(store_error),
                    };
                }
            }
        }
        Ok(outcomes).into()
    }

    /// How many runs can be decided before any of them is stored.
    fn decided_at_once(&mut self, runs: &[VerifiedRun]) -> usize {
        let decides = |run: &VerifiedRun| self.keeper.decides_others(run).then(|| run.author());
        let Some((at, owner)) = runs
            .iter()
            .map(decides)
            .enumerate()
            .find_map(|(at, owner)| Some((at, owner?)))
        else {
            return runs.len();
        };
        let later = runs[at..].iter().position(|run| run.author() != owner);
        later.map_or(runs.len(), |later| at + later)
    }

    /// Appends the runs that are accepted; one outcome for each run.
    fn append_accepted(
        &mut self,
        runs: &[VerifiedRun],
        origins: &[Origin],
    ) -> Result<Outcomes, Arc<StoreError>> {
        let refusals = runs.iter().zip(origins);
        let refusals = refusals.map(|(run, origin)| self.refusal(run, *origin));
        let refusals: Vec<_> = refusals.collect();
        if refusals.iter().all(Option::is_none) {
            return self.append_in_one(runs, origins);
        }
        let accepted = || refusals.iter().map(Option::is_none);
        let kept: Vec<_> = runs
            .iter()
            .zip(accepted())
            .filter(|(_, kept)| *kept)
            .collect();
        let kept: Vec<_> = kept.into_iter().map(|(run, _)| run.clone()).collect();
        let of_kept: Vec<_> = origins
            .iter()
            .zip(accepted())
            .filter(|(_, kept)| *kept)
            .collect();
        let of_kept: Vec<_> = of_kept.into_iter().map(|(origin, _)| *origin).collect();
        let mut stored = self.append_in_one(&kept, &of_kept)?.into_iter();
        let outcomes = refusals.into_iter().filter_map(|refusal| match refusal {
            Some(refused) => {
                self.metrics.runs_refused.inc();
                debug!(%refused, "not taken");
                Some(Err(refused))
            }
            None => stored.next(),
        });
        Ok(outcomes.collect())
    }

    /// Why a run is not given to the store, if it is not.
    fn refusal(&mut self, run: &VerifiedRun, origin: Origin) -> Option<AppendError> {
        if let Some(refused) = self.keeper.refusal(run) {
            return Some(refused);
        }
        let author = run.author();
        let is_over = matches!(origin, Origin::Pushed(_))
            && !self.pace.allows(&(run.space(), author), Instant::now());
        is_over.then_some(AppendError::OverRate { author })
    }

    /// Takes note of what is about to be written, unless the disk has no room for it.
    fn take_room(&mut self, runs: &[VerifiedRun]) -> Result<(), Arc<StoreError>> {
        let bytes = runs.iter().map(|run| size(run).bytes).sum();
        let was_low = self.room.is_low();
        let free = || self.store.free_bytes();
        self.room.take(bytes, free).map_err(|store_error| {
            // Told once, as everybody goes on trying.
            if !was_low {
                error!(error = %store_error, "nothing is stored for now");
            }
            self.metrics.commits_failed.inc();
            Arc::new(store_error)
        })
    }

    fn append_in_one(
        &mut self,
        runs: &[VerifiedRun],
        origins: &[Origin],
    ) -> Result<Outcomes, Arc<StoreError>> {
        if runs.is_empty() {
            return Ok(Vec::new());
        }
        self.take_room(runs)?;
        let committed = self.store.append_within(runs, &self.quotas);
        self.committed(runs, origins, committed)
    }

    fn committed(
        &mut self,
        runs: &[VerifiedRun],
        origins: &[Origin],
        committed: Result<Commit, StoreError>,
    ) -> Result<Outcomes, Arc<StoreError>> {
        match committed {
            Ok(commit) => {
                self.note_pace(runs, origins, &commit.outcomes);
                self.count(&commit.outcomes);
                // Before anybody hears of it: who lost access to this is not told.
                self.keeper
                    .appended(runs, &commit.outcomes, &commit.rosters);
                self.keeper.reread(&commit.rosters);
                self.publish(runs, origins, &commit, None);
                self.tell_moved();
                Ok(commit.outcomes)
            }
            Err(store_error) => {
                error!(error = %store_error, runs = runs.len(), "commit failed, nothing stored");
                self.metrics.commits_failed.inc();
                Err(Arc::new(store_error))
            }
        }
    }

    fn note_pace(&mut self, runs: &[VerifiedRun], origins: &[Origin], outcomes: &Outcomes) {
        for ((run, origin), outcome) in runs.iter().zip(origins).zip(outcomes) {
            if matches!(origin, Origin::Pushed(_)) && outcome.is_ok() {
                self.pace.took(run, Instant::now());
            }
        }
    }

    fn count(&self, outcomes: &[Result<Appended, AppendError>]) {
        self.metrics.commits.inc();
        for outcome in outcomes {
            match outcome {
                Ok(appended) => {
                    self.metrics.events_stored.inc_by(appended.events);
                    self.metrics
                        .payload_bytes_stored
                        .inc_by(appended.payload_bytes);
                }
                // Somebody else brought the same events first.
                Err(AppendError::Stale { .. }) => {}
                // By gossip the newest may come first; what is below it is pulled.
                Err(
                    refused @ (AppendError::Gap { .. }
                    | AppendError::NoGenesis { .. }
                    | AppendError::OverQuota { .. }),
                ) => {
                    debug!(%refused, "a run came too early, or is too much");
                    self.metrics.runs_refused.inc();
                }
                Err(refused) => {
                    warn!(%refused, "the store did not take a run");
                    self.metrics.runs_refused.inc();
                }
            }
        }
    }

    /// What is told where more is revoked above the cut of an owner's log: that it is cut, as if for the first
    /// time, so that live readers sync again and hear of it. No more often than there are roles to take.
    fn owners_cut(&self, space: SpaceId) -> Option<Cut> {
        let author = self.store.summary(&space).ok()??.owner;
        let fork = self.store.fork(&space, &author).ok()??;
        Some(Cut {
            author,
            seq: fork.seq,
            head: fork.head.map_or(0, |head| head.seq),
            again: false,
        })
    }

    fn publish(
        &mut self,
        runs: &[VerifiedRun],
        origins: &[Origin],
        commit: &Commit,
        knows: Option<EndpointId>,
    ) {
        let mut by_space: HashMap<SpaceId, (Vec<News<'_>>, Vec<Cut>)> = HashMap::new();
        for ((run, origin), outcome) in runs.iter().zip(origins).zip(&commit.outcomes) {
            if let Ok(appended) = outcome {
                let of_space = by_space.entry(run.space()).or_default();
                of_space.0.push(News {
                    origin: origin.peer(),
                    appended,
                    run,
                });
            }
        }
        for fork in &commit.forks {
            let (author, seq) = (fork.author, fork.seq);
            warn!(
                space = %fork.space.fmt_short(),
                author = %author.fmt_short(),
                seq,
                "an author forked: the log is cut"
            );
            self.metrics.forks_found.inc();
            let head = match self.store.head(&fork.space, &author) {
                Ok(Some(record)) => record.entry.head.seq,
                // Nothing is accepted of them, so nothing of the log shows, nor that it forks.
                Ok(None) => continue,
                Err(_) => 0,
            };
            let of_space = by_space.entry(fork.space).or_default();
            let again = !self.forked.insert((fork.space, author));
            of_space.1.push(Cut {
                author,
                seq,
                head,
                again,
            });
        }
        for space in &commit.rosters {
            let cuts = &mut by_space.entry(*space).or_default().1;
            let cut = self.owners_cut(*space);
            let is_untold = |cut: &Cut| !cuts.iter().any(|told| told.author == cut.author);
            if let Some(cut) = cut.filter(is_untold) {
                cuts.push(cut);
            }
        }
        for (space, (news, cuts)) in by_space {
            self.hub.publish(space, &news, &cuts, knows);
        }
    }
}

/// What the caller that signed is told.
pub(crate) fn signed_reply(heads: Vec<AuthorHead>, outcomes: StoreReply) -> SignReply {
    let mut outcomes = outcomes.whole().map_err(WriteError::Store)?.into_iter();
    outcomes
        .find_map(Result::err)
        .map_or(Ok(heads), |refused| Err(WriteError::refused(refused)))
}
