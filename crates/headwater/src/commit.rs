//! Signs, appends, and tells the watchers of it.
//!
//! Invariant: whoever appends holds the [`Committer`], so reading a head, signing and appending are
//! one step to everybody else, and commits are published in the order they were made.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use headwater_proto::Appended;
use headwater_store::{Commit, LogStore, StoreError};
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
    space::WriteError,
};

/// Outcomes of the runs of one job, in their order.
pub(crate) type StoreReply = Result<Vec<Result<Appended, AppendError>>, Arc<StoreError>>;

/// Whether a proof was put into the store.
pub(crate) type CutReply = Result<(), Arc<StoreError>>;

/// What one call signs: for each author, the drafts in their order.
pub(crate) type Parts = Vec<(AuthorSecret, Vec<EventDraft>)>;

/// The peer that sent a run; `None` for those made here.
pub(crate) type Origin = Option<EndpointId>;

/// The heads that signing leaves.
pub(crate) type SignReply = Result<Vec<AuthorHead>, WriteError>;

/// The only way to write into the store.
#[derive(Debug)]
pub(crate) struct Committer {
    pub(crate) store: Arc<dyn LogStore>,
    pub(crate) keeper: Keeper,
    pub(crate) hub: Arc<Hub>,
    pub(crate) metrics: Arc<Metrics>,
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
    /// will leave.
    pub(crate) fn sign_parts(
        &mut self,
        earlier: &HashMap<(SpaceId, AuthorId), AuthorHead>,
        space: SpaceId,
        parts: Parts,
    ) -> Result<Signed, WriteError> {
        let held = self.store.summary(&space).map_err(WriteError::store)?;
        if held.is_none() {
            return Err(WriteError::UnknownSpace { space });
        }
        let mut signed = Signed::default();
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
            signed.staged.insert(log, head);
            signed.heads.push(head);
            signed.runs.extend(runs);
        }
        Ok(signed)
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
            Ok(true) => self.store.cut(proof),
            Ok(false) => {
                let author = proof.author();
                debug!(author = %author.fmt_short(), "a proof about nobody who may write");
                return Ok(());
            }
            Err(store_error) => Err(store_error),
        };
        match committed {
            Ok(commit) => {
                self.metrics.commits.inc();
                self.keeper.cut(&commit.forks);
                self.publish(&[], &[], &commit, Some(knows));
                self.tell_moved();
                Ok(())
            }
            Err(store_error) => {
                error!(error = %store_error, "a fork proof was not kept");
                self.metrics.commits_failed.inc();
                Err(Arc::new(store_error))
            }
        }
    }

    /// Whether the store would append now without waiting.
    pub(crate) fn waits_for_nothing(&self) -> bool {
        matches!(self.store.append_at_once(&[]), Some(Ok(_)))
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
        let signed = match self.sign_parts(&HashMap::new(), space, parts) {
            Ok(signed) => signed,
            Err(error) => return Some(Err(error)),
        };
        let outcomes = self.append_at_once(&signed.runs, None)?;
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
            !self.keeper.decides_others(run) && self.keeper.refusal(run).is_none()
        };
        if !runs.iter().all(is_plain) {
            return None;
        }
        let committed = self.store.append_at_once(runs)?;
        self.metrics.commit_jobs.inc();
        Some(self.committed(runs, &vec![origin; runs.len()], committed))
    }

    /// Appends in one transaction, and tells the watchers. Where runs of the owner's may change who
    /// has access, they are a transaction of their own before those of others: the job they came
    /// in is alone then.
    pub(crate) fn append(&mut self, runs: &[VerifiedRun], origins: &[Origin]) -> StoreReply {
        let mut outcomes = Vec::with_capacity(runs.len());
        while outcomes.len() < runs.len() {
            let (rest, origins) = (&runs[outcomes.len()..], &origins[outcomes.len()..]);
            let count = self.decided_at_once(rest);
            outcomes.extend(self.append_accepted(&rest[..count], &origins[..count])?);
        }
        Ok(outcomes)
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
    fn append_accepted(&mut self, runs: &[VerifiedRun], origins: &[Origin]) -> StoreReply {
        let refusals: Vec<_> = runs.iter().map(|run| self.keeper.refusal(run)).collect();
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
                debug!(%refused, "not accepted");
                Some(Err(refused))
            }
            None => stored.next(),
        });
        Ok(outcomes.collect())
    }

    fn append_in_one(&mut self, runs: &[VerifiedRun], origins: &[Origin]) -> StoreReply {
        if runs.is_empty() {
            return Ok(Vec::new());
        }
        let committed = self.store.append(runs);
        self.committed(runs, origins, committed)
    }

    fn committed(
        &mut self,
        runs: &[VerifiedRun],
        origins: &[Origin],
        committed: Result<Commit, StoreError>,
    ) -> StoreReply {
        match committed {
            Ok(commit) => {
                self.count(&commit.outcomes);
                // Before anybody hears of it: who lost access to this is not told.
                self.keeper.appended(runs, &commit.outcomes);
                self.keeper.cut(&commit.forks);
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
                Err(refused @ (AppendError::Gap { .. } | AppendError::NoGenesis { .. })) => {
                    debug!(%refused, "a run came too early");
                    self.metrics.runs_refused.inc();
                }
                Err(refused) => {
                    warn!(%refused, "the store did not take a run");
                    self.metrics.runs_refused.inc();
                }
            }
        }
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
                    origin: *origin,
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
        for (space, (news, cuts)) in by_space {
            self.hub.publish(space, &news, &cuts, knows);
        }
    }
}

/// What the caller that signed is told.
pub(crate) fn signed_reply(heads: Vec<AuthorHead>, outcomes: StoreReply) -> SignReply {
    let mut outcomes = outcomes.map_err(WriteError::Store)?.into_iter();
    outcomes
        .find_map(Result::err)
        .map_or(Ok(heads), |refused| Err(WriteError::refused(refused)))
}
