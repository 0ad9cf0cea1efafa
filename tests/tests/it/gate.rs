//! A store whose commits wait to be let through, or fail, so that a test decides what happens
//! between.

use std::{
    fmt, io,
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use headwater::{
    AuthorHead, AuthorId, Damage, Event, HeadRecord, HeadsPage, LogStore, SpaceId, SpaceSummary,
    StoreError, VerifyProgress, VerifyReport,
    proto::{StoredRun, TailCheck, TailWant},
    store::{Bounds, Commit, ForkRecord, Quotas, StoreId, Usage},
    wire::{Revoked, Run, Subject, VerifiedForkProof, VerifiedRun},
};
use tokio::sync::watch;

/// Wraps a store; each commit takes a pass, and waits for one.
#[derive(Debug)]
pub(crate) struct GatedStore<S> {
    inner: S,
    gate: Gate,
}

/// The other side of the gate.
#[derive(Debug, Clone)]
pub(crate) struct Gate {
    broken: Arc<AtomicBool>,
    /// What the store says is free; [`u64::MAX`] lets it speak for itself.
    free_bytes: Arc<AtomicU64>,
    damaged: Arc<Mutex<Option<AuthorId>>>,
    passes: Arc<(Mutex<usize>, Condvar)>,
    waiting: Arc<watch::Sender<usize>>,
    looked_up: Arc<Mutex<Vec<bool>>>,
    walks: Arc<AtomicU64>,
    before_read: Arc<Mutex<Option<Hook>>>,
    before_head: Arc<Mutex<Option<Hook>>>,
    unreadable: Arc<AtomicBool>,
}

/// What a test does in the middle of a read.
struct Hook(Box<dyn FnOnce() + Send>);

impl fmt::Debug for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hook")
    }
}

impl<S: LogStore> GatedStore<S> {
    /// A store that lets `passes` commits through by itself.
    pub(crate) fn new(inner: S, passes: usize) -> (Self, Gate) {
        let gate = Gate {
            broken: Arc::default(),
            free_bytes: Arc::new(AtomicU64::new(u64::MAX)),
            damaged: Arc::default(),
            passes: Arc::new((Mutex::new(passes), Condvar::new())),
            waiting: Arc::new(watch::Sender::new(0)),
            looked_up: Arc::default(),
            walks: Arc::default(),
            before_read: Arc::default(),
            before_head: Arc::default(),
            unreadable: Arc::default(),
        };
        let store = Self {
            inner,
            gate: gate.clone(),
        };
        (store, gate)
    }
}

impl Gate {
    /// Waits until a commit stands before the gate.
    pub(crate) async fn reached(&self) {
        let mut waiting = self.waiting.subscribe();
        waiting
            .wait_for(|waiting| *waiting > 0)
            .await
            .expect("gate");
    }

    /// Lets everything through from now on.
    pub(crate) fn open(&self) {
        *self.passes.0.lock().expect("lock") = usize::MAX;
        self.passes.1.notify_all();
    }

    /// Makes every later commit fail, as a full disk does.
    pub(crate) fn break_store(&self) {
        self.broken.store(true, Ordering::SeqCst);
    }

    /// Sets how many bytes the disk is said to have left.
    pub(crate) fn set_free_bytes(&self, bytes: u64) {
        self.free_bytes.store(bytes, Ordering::SeqCst);
    }

    /// Makes every later commit that touches this log fail, as a damaged run does.
    pub(crate) fn damage(&self, author: AuthorId) {
        *self.damaged.lock().expect("lock") = Some(author);
    }

    /// The look-ups of spaces since the last call: whether each found one.
    pub(crate) fn take_look_ups(&self) -> Vec<bool> {
        std::mem::take(&mut *self.looked_up.lock().expect("lock"))
    }

    /// How often a page of all logs, or of all bounds, was read since the last call.
    pub(crate) fn take_walks(&self) -> u64 {
        self.walks.swap(0, Ordering::SeqCst)
    }

    /// Does this before runs are read the next time, on the thread that reads them.
    pub(crate) fn before_read(&self, hook: impl FnOnce() + Send + 'static) {
        *self.before_read.lock().expect("lock") = Some(Hook(Box::new(hook)));
    }

    /// Does this before a head is looked up the next time, on the thread that does.
    pub(crate) fn before_head(&self, hook: impl FnOnce() + Send + 'static) {
        *self.before_head.lock().expect("lock") = Some(Hook(Box::new(hook)));
    }

    /// Whether runs cannot be read.
    pub(crate) fn set_unreadable(&self, unreadable: bool) {
        self.unreadable.store(unreadable, Ordering::SeqCst);
    }

    fn pass(&self) {
        let (passes, changed) = &*self.passes;
        let mut left = passes.lock().expect("lock");
        if *left == 0 {
            self.waiting.send_modify(|waiting| *waiting += 1);
            left = changed.wait_while(left, |left| *left == 0).expect("lock");
            self.waiting.send_modify(|waiting| *waiting -= 1);
        }
        if *left != usize::MAX {
            *left -= 1;
        }
    }
}

impl<S: LogStore> LogStore for GatedStore<S> {
    fn id(&self) -> StoreId {
        self.inner.id()
    }

    fn append_within(&self, runs: &[VerifiedRun], quotas: &Quotas) -> Result<Commit, StoreError> {
        self.gate.pass();
        if self.gate.broken.load(Ordering::SeqCst) {
            return Err(io::Error::from(io::ErrorKind::StorageFull).into());
        }
        let damaged = *self.gate.damaged.lock().expect("lock");
        if let Some(run) = runs.iter().find(|run| Some(run.author()) == damaged) {
            return Err(StoreError::Damaged(Damage::Run {
                space: run.space(),
                author: run.author(),
                seq: 1,
            }));
        }
        self.inner.append_within(runs, quotas)
    }

    fn usage(&self, space: &SpaceId, author: &AuthorId) -> Result<Usage, StoreError> {
        self.inner.usage(space, author)
    }

    fn free_bytes(&self) -> Result<Option<u64>, StoreError> {
        match self.gate.free_bytes.load(Ordering::SeqCst) {
            u64::MAX => self.inner.free_bytes(),
            free => Ok(Some(free)),
        }
    }

    fn spaces(&self) -> Result<Vec<SpaceId>, StoreError> {
        self.inner.spaces()
    }

    fn summary(&self, space: &SpaceId) -> Result<Option<SpaceSummary>, StoreError> {
        let summary = self.inner.summary(space);
        let found = matches!(summary, Ok(Some(_)));
        self.gate.looked_up.lock().expect("lock").push(found);
        summary
    }

    fn head(&self, space: &SpaceId, author: &AuthorId) -> Result<Option<HeadRecord>, StoreError> {
        let hook = self.gate.before_head.lock().expect("lock").take();
        if let Some(Hook(hook)) = hook {
            hook();
        }
        self.inner.head(space, author)
    }

    fn heads(
        &self,
        space: &SpaceId,
        after: Option<AuthorId>,
        limit: usize,
    ) -> Result<HeadsPage, StoreError> {
        self.gate.walks.fetch_add(1, Ordering::SeqCst);
        self.inner.heads(space, after, limit)
    }

    fn check_tails(
        &self,
        space: &SpaceId,
        stated: &[(AuthorId, AuthorHead)],
    ) -> Result<Vec<TailCheck>, StoreError> {
        self.inner.check_tails(space, stated)
    }

    fn read_runs(
        &self,
        space: &SpaceId,
        wants: &[TailWant],
        max_bytes: usize,
    ) -> Result<Vec<StoredRun>, StoreError> {
        let hook = self.gate.before_read.lock().expect("lock").take();
        if let Some(Hook(hook)) = hook {
            hook();
        }
        if self.gate.unreadable.load(Ordering::SeqCst) {
            return Err(io::Error::from(io::ErrorKind::TimedOut).into());
        }
        self.inner.read_runs(space, wants, max_bytes)
    }

    fn event(
        &self,
        space: &SpaceId,
        author: &AuthorId,
        seq: u64,
    ) -> Result<Option<Event>, StoreError> {
        self.inner.event(space, author, seq)
    }

    fn verify(
        &self,
        space: &SpaceId,
        progress: &mut dyn FnMut(VerifyProgress),
    ) -> Result<VerifyReport, StoreError> {
        self.inner.verify(space, progress)
    }

    fn cut(&self, proof: &VerifiedForkProof) -> Result<Commit, StoreError> {
        self.inner.cut(proof)
    }

    fn fork(&self, space: &SpaceId, author: &AuthorId) -> Result<Option<ForkRecord>, StoreError> {
        self.inner.fork(space, author)
    }

    fn forks(
        &self,
        space: &SpaceId,
        after: Option<AuthorId>,
        limit: usize,
    ) -> Result<Vec<ForkRecord>, StoreError> {
        self.inner.forks(space, after, limit)
    }

    fn chain(
        &self,
        space: &SpaceId,
        author: &AuthorId,
        seqs: &[u64],
    ) -> Result<Vec<Option<AuthorHead>>, StoreError> {
        self.inner.chain(space, author, seqs)
    }

    fn stored_end(
        &self,
        space: &SpaceId,
        author: &AuthorId,
    ) -> Result<Option<AuthorHead>, StoreError> {
        self.inner.stored_end(space, author)
    }

    fn branch(
        &self,
        space: &SpaceId,
        author: &AuthorId,
        seq: u64,
    ) -> Result<Option<Run>, StoreError> {
        self.inner.branch(space, author, seq)
    }

    fn bounds(&self, space: &SpaceId) -> Result<Option<Bounds>, StoreError> {
        self.inner.bounds(space)
    }

    fn set_bounds(&self, space: &SpaceId, bounds: Bounds) -> Result<(), StoreError> {
        self.inner.set_bounds(space, bounds)
    }

    fn absorb(&self, runs: &[VerifiedRun]) -> Result<Commit, StoreError> {
        self.inner.absorb(runs)
    }

    fn revoked(&self, space: &SpaceId) -> Result<Revoked, StoreError> {
        self.inner.revoked(space)
    }

    fn evidence(&self, space: &SpaceId, subjects: &[Subject]) -> Result<Vec<Run>, StoreError> {
        self.inner.evidence(space, subjects)
    }

    fn restrict(
        &self,
        space: &SpaceId,
        author: &AuthorId,
        through: Option<u64>,
    ) -> Result<Commit, StoreError> {
        self.inner.restrict(space, author, through)
    }

    fn restriction(&self, space: &SpaceId, author: &AuthorId) -> Result<Option<u64>, StoreError> {
        self.inner.restriction(space, author)
    }

    fn restricted(
        &self,
        space: &SpaceId,
        after: Option<AuthorId>,
        limit: usize,
    ) -> Result<Vec<AuthorId>, StoreError> {
        self.gate.walks.fetch_add(1, Ordering::SeqCst);
        self.inner.restricted(space, after, limit)
    }

    fn settle(&self) -> Result<(), StoreError> {
        self.inner.settle()
    }
}
