//! A store whose commits wait to be let through, or fail, so that a test decides what happens
//! between.

use std::{
    io,
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use headwater::{
    AuthorHead, AuthorId, Damage, Event, HeadRecord, HeadsPage, LogStore, SpaceId, SpaceSummary,
    StoreError, VerifyProgress, VerifyReport,
    proto::{StoredRun, TailCheck, TailWant},
    store::{Commit, StoreId},
    wire::VerifiedRun,
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
    damaged: Arc<Mutex<Option<AuthorId>>>,
    passes: Arc<(Mutex<usize>, Condvar)>,
    waiting: Arc<watch::Sender<usize>>,
}

impl<S: LogStore> GatedStore<S> {
    /// A store that lets `passes` commits through by itself.
    pub(crate) fn new(inner: S, passes: usize) -> (Self, Gate) {
        let gate = Gate {
            broken: Arc::default(),
            damaged: Arc::default(),
            passes: Arc::new((Mutex::new(passes), Condvar::new())),
            waiting: Arc::new(watch::Sender::new(0)),
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

    /// Makes every later commit that touches this log fail, as a damaged run does.
    pub(crate) fn damage(&self, author: AuthorId) {
        *self.damaged.lock().expect("lock") = Some(author);
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

    fn append(&self, runs: &[VerifiedRun]) -> Result<Commit, StoreError> {
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
        self.inner.append(runs)
    }

    fn spaces(&self) -> Result<Vec<SpaceId>, StoreError> {
        self.inner.spaces()
    }

    fn summary(&self, space: &SpaceId) -> Result<Option<SpaceSummary>, StoreError> {
        self.inner.summary(space)
    }

    fn head(&self, space: &SpaceId, author: &AuthorId) -> Result<Option<HeadRecord>, StoreError> {
        self.inner.head(space, author)
    }

    fn heads(
        &self,
        space: &SpaceId,
        after: Option<AuthorId>,
        limit: usize,
    ) -> Result<HeadsPage, StoreError> {
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

    fn settle(&self) -> Result<(), StoreError> {
        self.inner.settle()
    }
}
