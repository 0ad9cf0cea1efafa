//! The one thread that appends, and the way around it.
//!
//! ```text
//! append, import ──▶ sign ─┐
//!                          ├─▶ queue (bounded in bytes) ─▶ group ─▶ one transaction ─▶ replies ─▶ hub
//! pulled, verified runs ───┘
//! a single small one ──▶ nothing queued, and a store that waits for nothing? ─▶ the same, at once
//! ```
//!
//! While one group commits, the next gathers. Local events are signed by whoever commits, so that
//! reading the head, signing and appending are one step to every other writer.
//!
//! A thread is there because a store waits for its disk. Where it waits for nothing, handing a
//! single event over costs more than to append it, so the caller does it itself.
//!
//! Invariant: a reply is sent after its transaction is durable, and commits are published in the
//! order they were made. A caller that stops waiting loses the reply, never the commit. What is
//! queued is committed before whatever its caller hands over later, by either way.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use headwater_store::{LogStore, StoreError};
use headwater_wire::{AuthorHead, AuthorId, SpaceId, VerifiedForkProof, VerifiedRun};
use iroh::EndpointId;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError, oneshot, watch};
use tracing::{debug, error, error_span, warn};

use crate::{
    commit::{Committer, CutReply, Origin, Parts, Pending, SignReply, StoreReply, signed_reply},
    limits::Limits,
    space::WriteError,
};

/// How long no job may come before the store is told to tidy up.
const SETTLE_AFTER: Duration = Duration::from_millis(500);

/// What a job is charged beside its payload, so that the queue is bounded in jobs as well.
const JOB_OVERHEAD_BYTES: usize = 256;

/// What an event is charged beside its payload before it is encoded.
const EVENT_OVERHEAD_BYTES: usize = 128;

/// Payload of a single event up to which its caller appends it: hashing so much takes about 15 µs.
const AT_ONCE_BYTES: usize = 16 * 1024;

/// A handle to the writer thread.
#[derive(Debug)]
pub(crate) struct Writer {
    jobs: mpsc::Sender<Job>,
    committer: Arc<Mutex<Committer>>,
    /// Jobs sent that nobody holding the committer has taken.
    queued: Arc<AtomicUsize>,
    bytes: Arc<Semaphore>,
    max_bytes: usize,
    /// Closes when the thread is done.
    running: watch::Receiver<()>,
}

/// The writer thread has stopped; nothing was stored.
#[derive(Debug)]
pub(crate) struct Stopped;

/// What became of a run handed over without waiting.
#[derive(Debug)]
pub(crate) enum TryStore {
    /// It is committed, or refused.
    Answered(StoreReply),
    /// It is queued. See [`Writer::store`].
    Queued(oneshot::Receiver<StoreReply>),
    /// There is no room in the queue.
    Full(VerifiedRun),
    /// Nothing was stored: the writer has stopped.
    Stopped,
}

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
    Cut {
        proof: Box<VerifiedForkProof>,
        knows: EndpointId,
        reply: oneshot::Sender<CutReply>,
    },
    Absorb {
        runs: Vec<VerifiedRun>,
        knows: EndpointId,
        reply: oneshot::Sender<CutReply>,
    },
    /// Try again to read who has access.
    Read {
        reply: oneshot::Sender<()>,
    },
    Stop,
}

impl Writer {
    pub(crate) fn spawn(committer: Committer, limits: &Limits) -> std::io::Result<Self> {
        let (jobs, queue) = mpsc::channel();
        let (alive, running) = watch::channel(());
        let max_bytes = limits.write_queue_bytes.clamp(1, u32::MAX as usize >> 1);
        let store = Arc::clone(&committer.store);
        let committer = Arc::new(Mutex::new(committer));
        // The first is that the thread has read who has access.
        let queued = Arc::new(AtomicUsize::new(1));
        let thread = WriterThread {
            store,
            committer: Arc::clone(&committer),
            queue,
            queued: Arc::clone(&queued),
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
            committer,
            queued,
            bytes: Arc::new(Semaphore::new(max_bytes)),
            max_bytes,
            running,
        })
    }

    /// Signs and appends drafts in one transaction: all of them or none.
    pub(crate) async fn sign(&self, space: SpaceId, parts: Parts) -> SignReply {
        if let Some(reply) = self.sign_at_once(space, &parts) {
            return reply;
        }
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

    /// As [`Writer::store`], without waiting.
    pub(crate) fn try_store(&self, run: VerifiedRun, origin: Origin) -> TryStore {
        let run = match self.store_at_once(run, origin) {
            Ok(reply) => return TryStore::Answered(reply),
            Err(run) => run,
        };
        let bytes = run.run().as_bytes().len();
        let room = Arc::clone(&self.bytes).try_acquire_many_owned(self.charged(bytes));
        match room {
            Ok(charge) => match self.queue_runs(vec![run], origin, bytes, charge) {
                Ok(reply) => TryStore::Queued(reply),
                Err(Stopped) => TryStore::Stopped,
            },
            Err(TryAcquireError::NoPermits) => TryStore::Full(run),
            Err(TryAcquireError::Closed) => TryStore::Stopped,
        }
    }

    /// Appends a run here and now, if nothing is queued and the store waits for nothing; gives it
    /// back otherwise.
    pub(crate) fn store_at_once(
        &self,
        run: VerifiedRun,
        origin: Origin,
    ) -> Result<StoreReply, VerifiedRun> {
        let run = [run];
        let reply = self
            .idle()
            .and_then(|mut committer| committer.append_at_once(&run, origin));
        let [run] = run;
        reply.ok_or(run)
    }

    /// Whether [`Writer::store_at_once`] would append now.
    pub(crate) fn is_free(&self) -> bool {
        self.idle()
            .is_some_and(|committer| committer.waits_for_nothing())
    }

    fn sign_at_once(&self, space: SpaceId, parts: &Parts) -> Option<SignReply> {
        let [(secret, drafts)] = parts.as_slice() else {
            return None;
        };
        match drafts.as_slice() {
            [draft] if draft.payload.len() <= AT_ONCE_BYTES => {
                self.idle()?.sign_at_once(space, secret, draft)
            }
            _ => None,
        }
    }

    /// The committer, if nobody has it and nothing is queued.
    fn idle(&self) -> Option<MutexGuard<'_, Committer>> {
        let committer = self.committer.try_lock().ok()?;
        // A job that was taken is committed before the lock is given back.
        (self.queued.load(Ordering::SeqCst) == 0).then_some(committer)
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

    /// Gives a proof to the store, which cuts the log if it is lower than the one it holds. `knows`
    /// is the peer that has it as well. On return the cut is durable, unless the writer has
    /// stopped.
    pub(crate) async fn cut(
        &self,
        proof: VerifiedForkProof,
        knows: EndpointId,
    ) -> Result<CutReply, Stopped> {
        let halves = [proof.first(), proof.second()];
        let bytes = halves.map(|run| run.run().as_bytes().len()).iter().sum();
        let (reply, outcome) = oneshot::channel();
        let charge = self.charge(bytes).await?;
        let proof = Box::new(proof);
        let work = Work::Cut {
            proof,
            knows,
            reply,
        };
        self.send(work, bytes, charge)?;
        outcome.await.map_err(|_stopped| Stopped)
    }

    /// Has the store take in what runs of an owner who forks show to be revoked; else as
    /// [`Writer::cut`].
    pub(crate) async fn absorb(
        &self,
        runs: Vec<VerifiedRun>,
        knows: EndpointId,
    ) -> Result<CutReply, Stopped> {
        let bytes = runs.iter().map(|run| run.run().as_bytes().len()).sum();
        let (reply, outcome) = oneshot::channel();
        let charge = self.charge(bytes).await?;
        let work = Work::Absorb { runs, knows, reply };
        self.send(work, bytes, charge)?;
        outcome.await.map_err(|_stopped| Stopped)
    }

    /// Has the logs read again that say who has access, where that failed and it is time to. The
    /// receiver answers once that was tried; `None` if the writer has stopped.
    pub(crate) fn read_due(&self) -> Option<oneshot::Receiver<()>> {
        let (reply, tried) = oneshot::channel();
        let job = Job {
            work: Work::Read { reply },
            bytes: 0,
            charge: None,
        };
        self.queued.fetch_add(1, Ordering::SeqCst);
        self.jobs.send(job).ok()?;
        Some(tried)
    }

    /// Commits what is queued, refuses what comes later, and returns when the thread is done.
    pub(crate) async fn stop(&self) {
        let stop = Job {
            work: Work::Stop,
            bytes: 0,
            charge: None,
        };
        // Never taken off: nothing goes around the thread any more.
        self.queued.fetch_add(1, Ordering::SeqCst);
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
        self.queued.fetch_add(1, Ordering::SeqCst);
        self.jobs.send(job).map_err(|_closed| Stopped)
    }
}

struct WriterThread {
    store: Arc<dyn LogStore>,
    committer: Arc<Mutex<Committer>>,
    queue: mpsc::Receiver<Job>,
    queued: Arc<AtomicUsize>,
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
    /// What all runs of this group come to.
    pending: Pending,
    charges: Vec<OwnedSemaphorePermit>,
}

enum Waiting {
    Sign(Vec<AuthorHead>, oneshot::Sender<SignReply>),
    Store(oneshot::Sender<StoreReply>),
}

impl WriterThread {
    fn run(self) {
        if let Ok(mut committer) = self.committer.lock() {
            committer.load();
        }
        self.queued.fetch_sub(1, Ordering::SeqCst);
        let mut unsettled = false;
        while let Some(job) = self.next_job(unsettled) {
            unsettled = true;
            let Ok(mut committer) = self.committer.lock() else {
                error!("the writer stops: a commit panicked");
                return;
            };
            let committer = &mut *committer;
            let mut next = Some(job);
            let mut group = Group::default();
            while let Some(job) = next.take() {
                if matches!(job.work, Work::Stop) {
                    // Jobs behind this one were never promised anything.
                    commit(committer, group);
                    self.settle();
                    debug!("writer stopped");
                    return;
                }
                self.queued.fetch_sub(1, Ordering::SeqCst);
                if let Work::Cut {
                    proof,
                    knows,
                    reply,
                } = job.work
                {
                    commit(committer, std::mem::take(&mut group));
                    reply.send(committer.cut(&proof, knows)).ok();
                    break;
                }
                if let Work::Absorb { runs, knows, reply } = job.work {
                    commit(committer, std::mem::take(&mut group));
                    reply.send(committer.absorb(&runs, knows)).ok();
                    break;
                }
                if let Work::Read { reply } = job.work {
                    commit(committer, std::mem::take(&mut group));
                    committer.read_due();
                    reply.send(()).ok();
                    break;
                }
                let decides_others = decides_others(committer, &job);
                if decides_others || group.conflicts_with(&job) {
                    commit(committer, std::mem::take(&mut group));
                }
                admit(committer, &mut group, job);
                if !decides_others && group.bytes < self.commit_bytes {
                    next = self.queue.try_recv().ok();
                }
            }
            commit(committer, group);
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
}

/// Whether a job may change who has access: it is committed on its own, before later ones are
/// decided.
fn decides_others(committer: &mut Committer, job: &Job) -> bool {
    let keeper = &mut committer.keeper;
    match &job.work {
        Work::Sign { parts, .. } => {
            let mut drafts = parts.iter().map(|(_, drafts)| drafts);
            drafts.any(|drafts| keeper.drafts_decide(drafts))
        }
        Work::Store { runs, .. } => runs.iter().any(|run| keeper.decides_others(run)),
        Work::Cut { .. } | Work::Absorb { .. } | Work::Read { .. } | Work::Stop => false,
    }
}

fn admit(committer: &mut Committer, group: &mut Group, job: Job) {
    match job.work {
        Work::Sign {
            space,
            parts,
            reply,
        } => match committer.sign_parts(&group.signed, &group.pending, space, parts) {
            Ok(signed) => {
                group.signed.extend(signed.staged);
                group
                    .waiting
                    .push((signed.runs.len(), Waiting::Sign(signed.heads, reply)));
                group.take_runs(signed.runs, Origin::Local);
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
        Work::Cut { .. } | Work::Absorb { .. } | Work::Read { .. } | Work::Stop => return,
    }
    group.jobs += 1;
    group.bytes = group.bytes.saturating_add(job.bytes);
    group.charges.extend(job.charge);
}

fn commit(committer: &mut Committer, group: Group) {
    committer.metrics.commit_jobs.inc_by(group.jobs);
    let jobs = group.waiting.len();
    let StoreReply { outcomes, failed } = committer.append(&group.runs, &group.origins);
    // It stands in the way of what touches it, and of nothing else.
    let is_damage = matches!(failed.as_deref(), Some(StoreError::Damaged(_)));
    if is_damage && jobs > 1 && outcomes.is_empty() {
        commit_one_by_one(committer, group);
        return;
    }
    let mut outcomes = outcomes.into_iter();
    for (runs, waiting) in group.waiting {
        let outcomes: Vec<_> = outcomes.by_ref().take(runs).collect();
        let failed = failed.clone().filter(|_| outcomes.len() < runs);
        waiting.answer(StoreReply { outcomes, failed });
    }
}

/// Commits each job of a group on its own. A local job that goes on from one that failed
/// fails with it.
fn commit_one_by_one(committer: &mut Committer, group: Group) {
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
            (Waiting::Sign(..), Some(store_error)) => Err(Arc::clone(store_error)).into(),
            _ => committer.append(of_job, sent_by),
        };
        if let (Waiting::Sign(..), Some(store_error)) = (&waiting, &outcomes.failed) {
            let logs = of_job.iter().map(|run| (run.space(), run.author()));
            failed.extend(logs.map(|log| (log, Arc::clone(store_error))));
        }
        waiting.answer(outcomes);
    }
}

impl Group {
    fn take_runs(&mut self, runs: Vec<VerifiedRun>, origin: Origin) {
        runs.iter().for_each(|run| self.pending.add(run));
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
            Work::Store { .. }
            | Work::Cut { .. }
            | Work::Absorb { .. }
            | Work::Read { .. }
            | Work::Stop => false,
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
                reply.send(signed_reply(heads, outcome)).ok();
            }
        }
    }
}
