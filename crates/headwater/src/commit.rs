//! Signs, appends, and tells the watchers of it.
//!
//! Invariant: whoever appends holds the [`Committer`], so reading a head, signing and appending are
//! one step to everybody else, and commits are published in the order they were made.

use std::{collections::HashMap, sync::Arc};

use headwater_proto::Appended;
use headwater_store::{Commit, LogStore, StoreError};
use headwater_wire::{
    AppendError, AuthorHead, AuthorId, AuthorSecret, EventDraft, SpaceId, VerifiedRun, sign_runs,
};
use iroh::EndpointId;
use tracing::{debug, error, warn};

use crate::{
    hub::{Hub, News},
    metrics::Metrics,
    space::WriteError,
};

/// Outcomes of the runs of one job, in their order.
pub(crate) type StoreReply = Result<Vec<Result<Appended, AppendError>>, Arc<StoreError>>;

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
    pub(crate) hub: Arc<Hub>,
    pub(crate) metrics: Arc<Metrics>,
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
        &self,
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
                None => self
                    .store
                    .head(&space, &log.1)
                    .map_err(WriteError::store)?
                    .map(|record| record.entry.head),
            };
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

    /// Whether the store would append now without waiting.
    pub(crate) fn waits_for_nothing(&self) -> bool {
        matches!(self.store.append_at_once(&[]), Some(Ok(_)))
    }

    /// Signs and appends one draft, if the store takes it without waiting; `None` otherwise, and
    /// nothing is done.
    pub(crate) fn sign_at_once(
        &self,
        space: SpaceId,
        secret: &AuthorSecret,
        draft: &EventDraft,
    ) -> Option<SignReply> {
        if !self.waits_for_nothing() {
            return None;
        }
        let parts = vec![(secret.clone(), vec![draft.clone()])];
        let signed = match self.sign_parts(&HashMap::new(), space, parts) {
            Ok(signed) => signed,
            Err(error) => return Some(Err(error)),
        };
        let outcomes = self.append_at_once(&signed.runs, None)?;
        Some(signed_reply(signed.heads, outcomes))
    }

    /// Appends the runs of one origin, if the store takes them without waiting; `None` otherwise,
    /// and nothing is done.
    pub(crate) fn append_at_once(
        &self,
        runs: &[VerifiedRun],
        origin: Origin,
    ) -> Option<StoreReply> {
        let committed = self.store.append_at_once(runs)?;
        self.metrics.commit_jobs.inc();
        Some(self.committed(runs, &vec![origin; runs.len()], committed))
    }

    /// Appends in one transaction, and tells the watchers.
    pub(crate) fn append(&self, runs: &[VerifiedRun], origins: &[Origin]) -> StoreReply {
        if runs.is_empty() {
            return Ok(Vec::new());
        }
        self.committed(runs, origins, self.store.append(runs))
    }

    fn committed(
        &self,
        runs: &[VerifiedRun],
        origins: &[Origin],
        committed: Result<Commit, StoreError>,
    ) -> StoreReply {
        match committed {
            Ok(commit) => {
                self.count(&commit.outcomes);
                self.publish(runs, origins, &commit.outcomes);
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
        &self,
        runs: &[VerifiedRun],
        origins: &[Origin],
        outcomes: &[Result<Appended, AppendError>],
    ) {
        let mut by_space: HashMap<SpaceId, Vec<News<'_>>> = HashMap::new();
        for ((run, origin), outcome) in runs.iter().zip(origins).zip(outcomes) {
            if let Ok(appended) = outcome {
                let of_space = by_space.entry(run.space()).or_default();
                of_space.push(News {
                    origin: *origin,
                    appended,
                    run,
                });
            }
        }
        for (space, news) in by_space {
            self.hub.publish(space, &news);
        }
    }
}

/// What the caller that signed is told.
pub(crate) fn signed_reply(heads: Vec<AuthorHead>, outcomes: StoreReply) -> SignReply {
    let mut outcomes = outcomes.map_err(WriteError::Store)?.into_iter();
    outcomes
        .find_map(Result::err)
        .map_or(Ok(heads), |refused| Err(WriteError::Append(refused)))
}
