//! The one thread that appends.
//!
//! ```text
//! append, import ──▶ sign ─┐
//!                          ├─▶ queue (bounded in bytes) ─▶ group ─▶ one transaction ─▶ replies ─▶ hub
//! pulled, verified runs ───┘
//! ```
//!
//! While one group commits, the next gathers. Local events are signed here, so that reading the
//! head, signing and appending are one step to every other writer.
//!
//! Invariant: a reply is sent after its transaction is durable, and commits are published in the
//! order they were made. A caller that stops waiting loses the reply, never the commit.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, mpsc},
    thread,
    time::Duration,
};

use headwater_proto::Appended;
use headwater_store::{LogStore, StoreError};
use headwater_wire::{
    AppendError, AuthorHead, AuthorId, AuthorSecret, EventDraft, SpaceId, VerifiedRun, sign_runs,
};
use iroh::EndpointId;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError, oneshot, watch};
use tracing::{debug, error, error_span, warn};

use crate::{
    hub::{Hub, News},
    limits::Limits,
    metrics::Metrics,
    space::WriteError,
};

/// How long no job may come before the store is told to tidy up.
const SETTLE_AFTER: Duration = Duration::from_millis(500);

/// What a job is charged beside its payload, so that the queue is bounded in jobs as well.
const JOB_OVERHEAD_BYTES: usize = 256;

/// What an event is charged beside its payload before it is encoded.
const EVENT_OVERHEAD_BYTES: usize = 128;

/// Outcomes of the runs of one job, in their order.
pub(crate) type StoreReply = Result<Vec<Result<Appended, AppendError>>, Arc<StoreError>>;

/// What one call signs: for each author, the drafts in their order.
pub(crate) type Parts = Vec<(AuthorSecret, Vec<EventDraft>)>;

/// The peer that sent a run; `None` for those made here.
type Origin = Option<EndpointId>;

type SignReply = Result<Vec<AuthorHead>, WriteError>;

/// A handle to the writer thread.
#[derive(Debug)]
pub(crate) struct Writer {
    jobs: mpsc::Sender<Job>,
    bytes: Arc<Semaphore>,
    max_bytes: usize,
    /// Closes when the thread is done.
    running: watch::Receiver<()>,
}

/// The writer thread has stopped; nothing was stored.
#[derive(Debug)]
pub(crate) struct Stopped;

struct Job {
    work: Work,
    bytes: usize,
    /// Gives the bytes back once the job is committed or refused.
    charge: Option<OwnedSemaphorePermit>,
}

enum Work {
    Sign {
        space: SpaceId,
        parts: Parts,
        reply: oneshot::Sender<SignReply>,
    },
    Store {
        runs: Vec<VerifiedRun>,
        origin: Origin,
        reply: oneshot::Sender<StoreReply>,
    },
    Stop,
}

impl Writer {
    pub(crate) fn spawn(
        store: Arc<dyn LogStore>,
        hub: Arc<Hub>,
        metrics: Arc<Metrics>,
        limits: &Limits,
    ) -> std::io::Result<Self> {
        let (jobs, queue) = mpsc::channel();
        let (alive, running) = watch::channel(());
        let max_bytes = limits.write_queue_bytes.clamp(1, u32::MAX as usize >> 1);
        let thread = WriterThread {
            store,
            hub,
            metrics,
            queue,
            commit_bytes: limits.commit_bytes,
        };
        thread::Builder::new()
            .name("headwater-writer".to_owned())
            .spawn(move || {
                let _span = error_span!("writer").entered();
                thread.run();
                drop(alive);
            })?;
        Ok(Self {
            jobs,
            bytes: Arc::new(Semaphore::new(max_bytes)),
            max_bytes,
            running,
        })
    }

    /// Signs and appends drafts in one transaction: all of them or none.
    pub(crate) async fn sign(&self, space: SpaceId, parts: Parts) -> SignReply {
        let bytes = parts
            .iter()
            .flat_map(|(_, drafts)| drafts)
            .map(|draft| draft.payload.len().saturating_add(EVENT_OVERHEAD_BYTES))
            .fold(0, usize::saturating_add);
        let (reply, outcome) = oneshot::channel();
        let work = Work::Sign {
            space,
            parts,
            reply,
        };
        let charge = self.charge(bytes).await;
        charge
            .and_then(|charge| self.send(work, bytes, charge))
            .map_err(|Stopped| WriteError::ShuttingDown)?;
        outcome.await.unwrap_or(Err(WriteError::ShuttingDown))
    }

    /// Queues verified runs, sent by `origin`; waits for room. The receiver answers once they are durable, or not
    /// at all if the writer stopped before their turn.
    pub(crate) async fn store(
        &self,
        runs: Vec<VerifiedRun>,
        origin: Origin,
    ) -> Result<oneshot::Receiver<StoreReply>, Stopped> {
        let bytes = runs
            .iter()
            .map(|run| run.run().as_bytes().len())
            .fold(0, usize::saturating_add);
        let charge = self.charge(bytes).await?;
        self.queue_runs(runs, origin, bytes, charge)
    }

    /// As [`Writer::store`], if there is room for the run at once; gives it back otherwise.
    pub(crate) fn try_store(
        &self,
        run: VerifiedRun,
        origin: Origin,
    ) -> Result<Result<oneshot::Receiver<StoreReply>, Stopped>, VerifiedRun> {
        let bytes = run.run().as_bytes().len();
        let room = Arc::clone(&self.bytes).try_acquire_many_owned(self.charged(bytes));
        match room {
            Ok(charge) => Ok(self.queue_runs(vec![run], origin, bytes, charge)),
            Err(TryAcquireError::NoPermits) => Err(run),
            Err(TryAcquireError::Closed) => Ok(Err(Stopped)),
        }
    }

    fn queue_runs(
        &self,
        runs: Vec<VerifiedRun>,
        origin: Origin,
        bytes: usize,
        charge: OwnedSemaphorePermit,
    ) -> Result<oneshot::Receiver<StoreReply>, Stopped> {
        let (reply, outcome) = oneshot::channel();
        let work = Work::Store {
            runs,
            origin,
            reply,
        };
        self.send(work, bytes, charge)?;
        Ok(outcome)
    }

    /// Commits what is queued, refuses what comes later, and returns when the thread is done.
    pub(crate) async fn stop(&self) {
        let stop = Job {
            work: Work::Stop,
            bytes: 0,
            charge: None,
        };
        self.jobs.send(stop).ok();
        // Nothing is ever sent here: it resolves when the thread drops its end.
        self.running.clone().changed().await.ok();
    }

    /// Waits for room in the queue.
    async fn charge(&self, bytes: usize) -> Result<OwnedSemaphorePermit, Stopped> {
        Arc::clone(&self.bytes)
            .acquire_many_owned(self.charged(bytes))
            .await
            .map_err(|_closed| Stopped)
    }

    /// What a job is charged. One larger than the whole queue waits until it is alone.
    fn charged(&self, bytes: usize) -> u32 {
        let bytes = bytes.saturating_add(JOB_OVERHEAD_BYTES);
        u32::try_from(bytes.min(self.max_bytes)).unwrap_or(u32::MAX >> 1)
    }

    fn send(&self, work: Work, bytes: usize, charge: OwnedSemaphorePermit) -> Result<(), Stopped> {
        let job = Job {
            work,
            bytes: bytes.saturating_add(JOB_OVERHEAD_BYTES),
            charge: Some(charge),
        };
        self.jobs.send(job).map_err(|_closed| Stopped)
    }
}

struct WriterThread {
    store: Arc<dyn LogStore>,
    hub: Arc<Hub>,
    metrics: Arc<Metrics>,
    queue: mpsc::Receiver<Job>,
    commit_bytes: usize,
}

/// The jobs of one transaction, prepared.
#[derive(Default)]
struct Group {
    jobs: u64,
    bytes: usize,
    runs: Vec<VerifiedRun>,
    /// Who sent which run, and who waits for which; both add up to `runs.len()`.
    origins: Vec<Origin>,
    waiting: Vec<(usize, Waiting)>,
    /// Heads that local jobs of this group will leave.
    signed: HashMap<(SpaceId, AuthorId), AuthorHead>,
    /// Logs that pulled runs of this group may move.
    pulled: HashSet<(SpaceId, AuthorId)>,
    charges: Vec<OwnedSemaphorePermit>,
}

enum Waiting {
    Sign(Vec<AuthorHead>, oneshot::Sender<SignReply>),
    Store(oneshot::Sender<StoreReply>),
}

impl WriterThread {
    fn run(self) {
        let mut unsettled = false;
        while let Some(job) = self.next_job(unsettled) {
            unsettled = true;
            let mut next = Some(job);
            let mut group = Group::default();
            while let Some(job) = next.take() {
                if matches!(job.work, Work::Stop) {
                    // Jobs behind this one were never promised anything.
                    self.commit(group);
                    self.settle();
                    debug!("writer stopped");
                    return;
                }
                if group.conflicts_with(&job) {
                    self.commit(std::mem::take(&mut group));
                }
                self.admit(&mut group, job);
                if group.bytes < self.commit_bytes {
                    next = self.queue.try_recv().ok();
                }
            }
            self.commit(group);
        }
    }

    /// Waits for a job, and lets the store tidy up if none comes; `None` when nobody is left to
    /// send one.
    fn next_job(&self, unsettled: bool) -> Option<Job> {
        if !unsettled {
            return self.queue.recv().ok();
        }
        match self.queue.recv_timeout(SETTLE_AFTER) {
            Ok(job) => Some(job),
            Err(mpsc::RecvTimeoutError::Disconnected) => None,
            Err(mpsc::RecvTimeoutError::Timeout) => {
                self.settle();
                self.queue.recv().ok()
            }
        }
    }

    fn settle(&self) {
        if let Err(store_error) = self.store.settle() {
            warn!(error = %store_error, "the store could not settle");
        }
    }

    fn admit(&self, group: &mut Group, job: Job) {
        match job.work {
            Work::Sign {
                space,
                parts,
                reply,
            } => match self.sign_parts(&group.signed, space, parts) {
                Ok(signed) => {
                    group.signed.extend(signed.staged);
                    group
                        .waiting
                        .push((signed.runs.len(), Waiting::Sign(signed.heads, reply)));
                    group.take_runs(signed.runs, None);
                }
                Err(error) => {
                    reply.send(Err(error)).ok();
                    return;
                }
            },
            Work::Store {
                runs,
                origin,
                reply,
            } => {
                group
                    .pulled
                    .extend(runs.iter().map(|run| (run.space(), run.author())));
                group.waiting.push((runs.len(), Waiting::Store(reply)));
                group.take_runs(runs, origin);
            }
            Work::Stop => return,
        }
        group.jobs += 1;
        group.bytes = group.bytes.saturating_add(job.bytes);
        group.charges.extend(job.charge);
    }

    fn sign_parts(
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

    fn commit(&self, group: Group) {
        self.metrics.commit_jobs.inc_by(group.jobs);
        let jobs = group.waiting.len();
        match self.append(&group.runs, &group.origins) {
            Ok(outcomes) => {
                let mut outcomes = outcomes.into_iter();
                for (runs, waiting) in group.waiting {
                    waiting.answer(Ok(outcomes.by_ref().take(runs).collect()));
                }
            }
            // It stands in the way of what touches it, and of nothing else.
            Err(store_error) if jobs > 1 && matches!(*store_error, StoreError::Damaged(_)) => {
                self.commit_one_by_one(group);
            }
            Err(store_error) => {
                for (_, waiting) in group.waiting {
                    waiting.answer(Err(Arc::clone(&store_error)));
                }
            }
        }
    }

    /// Commits each job of a group on its own. A local job that goes on from one that failed
    /// fails with it.
    fn commit_one_by_one(&self, group: Group) {
        let (mut runs, mut origins) = (group.runs.as_slice(), group.origins.as_slice());
        let mut failed: HashMap<(SpaceId, AuthorId), Arc<StoreError>> = HashMap::new();
        for (count, waiting) in group.waiting {
            let (of_job, later) = runs.split_at(count.min(runs.len()));
            let (sent_by, later_origins) = origins.split_at(count.min(origins.len()));
            (runs, origins) = (later, later_origins);
            let stands_on = of_job
                .iter()
                .find_map(|run| failed.get(&(run.space(), run.author())));
            let outcomes = match (&waiting, stands_on) {
                (Waiting::Sign(..), Some(store_error)) => Err(Arc::clone(store_error)),
                _ => self.append(of_job, sent_by),
            };
            if let (Waiting::Sign(..), Err(store_error)) = (&waiting, &outcomes) {
                let logs = of_job.iter().map(|run| (run.space(), run.author()));
                failed.extend(logs.map(|log| (log, Arc::clone(store_error))));
            }
            waiting.answer(outcomes);
        }
    }

    /// Appends in one transaction, and tells the watchers.
    fn append(&self, runs: &[VerifiedRun], origins: &[Origin]) -> StoreReply {
        if runs.is_empty() {
            return Ok(Vec::new());
        }
        match self.store.append(runs) {
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

#[derive(Default)]
struct Signed {
    runs: Vec<VerifiedRun>,
    heads: Vec<AuthorHead>,
    staged: HashMap<(SpaceId, AuthorId), AuthorHead>,
}

impl Group {
    fn take_runs(&mut self, runs: Vec<VerifiedRun>, origin: Origin) {
        self.runs.extend(runs);
        self.origins.resize(self.runs.len(), origin);
    }

    /// Whether a local job writes a log that a pulled run of this group may move: its head is
    /// only known once the group is committed.
    fn conflicts_with(&self, job: &Job) -> bool {
        match &job.work {
            Work::Sign { space, parts, .. } => parts
                .iter()
                .any(|(secret, _)| self.pulled.contains(&(*space, secret.id()))),
            Work::Store { .. } | Work::Stop => false,
        }
    }
}

impl Waiting {
    /// A waiter that has gone loses the answer; the commit stands.
    fn answer(self, outcome: StoreReply) {
        match self {
            Self::Store(reply) => {
                reply.send(outcome).ok();
            }
            Self::Sign(heads, reply) => {
                let refused = outcome.map_err(WriteError::Store).and_then(|outcomes| {
                    outcomes
                        .into_iter()
                        .find_map(Result::err)
                        .map_or(Ok(heads), |refused| Err(WriteError::Append(refused)))
                });
                reply.send(refused).ok();
            }
        }
    }
}
