//! From decoded runs to durable ones, in order, several batches at a time.
//!
//! ```text
//! Vec<Run> ─▶ verify (large ones on blocking threads) ─▶ in order ─▶ writer ─▶ in order ─▶ Vec<AppliedRun>
//! ```
//!
//! The queues here are bounded by the session: it hands over no further runs while too many bytes
//! of them are unanswered.

use std::sync::Arc;

use headwater_proto::AppliedRun;
use headwater_store::StoreError;
use headwater_wire::{AuthorHead, Run, RunError, SpaceId, VerifiedRun};
use iroh::EndpointId;
use n0_future::task::AbortOnDropHandle;
use tokio::sync::{mpsc, oneshot};

use crate::{
    blocking::blocking,
    commit::{Origin, StoreReply},
    node::Inner,
    writer::TryStore,
};

/// Events of a single run up to which it is verified where it arrives. One signature check and 64
/// hashes take about 80 µs, which is what handing them to another thread can cost.
const VERIFY_IN_PLACE_EVENTS: usize = 64;

/// Bytes of such a run, at most: hashing so many takes about 15 µs.
const VERIFY_IN_PLACE_BYTES: usize = 16 * 1024;

/// Whether a batch is verified where it arrives.
pub(crate) fn is_small(runs: &[Run]) -> bool {
    match runs {
        [run] => {
            run.event_count() <= VERIFY_IN_PLACE_EVENTS
                && run.as_bytes().len() <= VERIFY_IN_PLACE_BYTES
        }
        _ => false,
    }
}

pub(crate) type Verified = Result<Vec<VerifiedRun>, RunError>;

/// A batch being verified, or verified already.
#[derive(Debug)]
enum Verifying {
    Done(Verified),
    Elsewhere(AbortOnDropHandle<Verified>),
}

/// Applies the batches of one pull. Batches handed to the writer are committed even if this is
/// dropped.
#[derive(Debug)]
pub(crate) struct Applier {
    inner: Arc<Inner>,
    space: SpaceId,
    verifying: mpsc::UnboundedSender<(Verifying, Origin)>,
    storing: mpsc::UnboundedReceiver<Storing>,
    oldest: Option<Storing>,
    peer: EndpointId,
    /// Batches pushed whose outcome was not taken yet.
    unanswered: usize,
    _in_order: AbortOnDropHandle<()>,
}

/// A batch on its way to the disk, or the reason it is not.
#[derive(Debug)]
enum Storing {
    Queued {
        heads: Vec<AuthorHead>,
        reply: oneshot::Receiver<StoreReply>,
    },
    Answered {
        heads: Vec<AuthorHead>,
        reply: StoreReply,
    },
    Failed(ApplyError),
}

/// A batch was not applied; later ones are not either.
#[derive(Debug, Clone)]
pub(crate) enum ApplyError {
    /// A run of it does not verify.
    Invalid(RunError),
    /// The store failed.
    Store(Arc<StoreError>),
    /// The writer has stopped.
    Stopped,
    /// Verifying panicked.
    Panicked,
}

impl Applier {
    /// Applies what `peer` sends.
    pub(crate) fn spawn(inner: Arc<Inner>, space: SpaceId, peer: EndpointId) -> Self {
        let (verifying, verified) = mpsc::unbounded_channel();
        let (queued, storing) = mpsc::unbounded_channel();
        let in_order = n0_future::task::spawn(store_in_order(Arc::clone(&inner), verified, queued));
        Self {
            inner,
            space,
            verifying,
            storing,
            oldest: None,
            peer,
            unanswered: 0,
            _in_order: AbortOnDropHandle::new(in_order),
        }
    }

    /// Starts on a batch: of the history that was asked for, or of what the peer sends `live`.
    pub(crate) fn push(&mut self, runs: Vec<Run>, live: bool) {
        let origin = match live {
            true => Origin::Pushed(self.peer),
            false => Origin::Asked(self.peer),
        };
        let is_alone = self.unanswered == 0;
        self.unanswered += 1;
        let verifying = if is_small(&runs) {
            let verified = verify_all(runs, &self.space);
            match self.store_at_once(verified, is_alone, origin) {
                Ok(storing) => {
                    self.oldest = Some(storing);
                    return;
                }
                Err(verified) => Verifying::Done(verified),
            }
        } else {
            let verified = verify(Arc::clone(&self.inner), self.space, runs);
            let verified = n0_future::task::spawn(verified);
            Verifying::Elsewhere(AbortOnDropHandle::new(verified))
        };
        // A task that has ended answers through `next`.
        self.verifying.send((verifying, origin)).ok();
    }

    /// Stores a single run, or hands it to the writer, without a detour, if no other batch is on its
    /// way and the queue has room. Whatever else it is given, it gives back: more runs, or an error.
    fn store_at_once(
        &self,
        verified: Verified,
        is_alone: bool,
        origin: Origin,
    ) -> Result<Storing, Verified> {
        let [run] = match verified {
            Ok(runs) if is_alone => <[_; 1]>::try_from(runs).map_err(Ok)?,
            other => return Err(other),
        };
        let heads = vec![run.head()];
        match self.inner.writer.try_store(run, origin) {
            TryStore::Answered(reply) => Ok(Storing::Answered { heads, reply }),
            TryStore::Queued(reply) => Ok(Storing::Queued { heads, reply }),
            TryStore::Stopped => Ok(Storing::Failed(ApplyError::Stopped)),
            TryStore::Full(run) => Err(Ok(vec![run])),
        }
    }

    /// The outcome of the oldest batch without one; waits for ever if there is none. Safe to
    /// cancel.
    pub(crate) async fn next(&mut self) -> Result<Vec<AppliedRun>, ApplyError> {
        if self.oldest.is_none() {
            self.oldest = self.storing.recv().await;
        }
        let (heads, reply) = match &mut self.oldest {
            Some(Storing::Queued { heads, reply }) => (heads, reply.await),
            Some(Storing::Answered { heads, reply }) => (heads, Ok(reply.clone())),
            Some(Storing::Failed(error)) => return Err(error.clone()),
            None => return Err(ApplyError::Stopped),
        };
        let heads = std::mem::take(heads);
        self.oldest = None;
        self.unanswered = self.unanswered.saturating_sub(1);
        let outcomes = reply
            .map_err(|_stopped| ApplyError::Stopped)?
            .whole()
            .map_err(ApplyError::Store)?;
        Ok(heads
            .into_iter()
            .zip(outcomes)
            .map(|(head, outcome)| AppliedRun { head, outcome })
            .collect())
    }
}

fn verify_all(runs: Vec<Run>, space: &SpaceId) -> Verified {
    runs.into_iter().map(|run| verify_one(run, space)).collect()
}

/// Ids and signature hold without the payloads, so whoever passes a run on could leave them out. No
/// node does: what lies above a cut goes whole, for the signature needs it. Only proofs of forks and
/// evidence of what was revoked hold stubs, and they do not come this way.
pub(crate) fn verify_one(run: Run, space: &SpaceId) -> Result<VerifiedRun, RunError> {
    let author = run.author();
    match run.first_stub() {
        Some(seq) => Err(RunError::Stripped { author, seq }),
        None => run.verify(space),
    }
}

/// Verifies runs on a blocking thread, no more of them at a time than there are cores; a run that
/// costs less than that, in place.
pub(crate) async fn verify(inner: Arc<Inner>, space: SpaceId, runs: Vec<Run>) -> Verified {
    if is_small(&runs) {
        return verify_all(runs, &space);
    }
    // Never closed; more threads than cores would only take turns.
    let _core = inner.verifying.acquire().await.ok();
    blocking(move || verify_all(runs, &space)).await
}

/// Verifies runs that show what an owner revoked, on a blocking thread. They hold no other payloads.
pub(crate) async fn verify_evidence(inner: &Inner, space: SpaceId, runs: Vec<Run>) -> Verified {
    // As above.
    let _core = inner.verifying.acquire().await.ok();
    blocking(move || runs.into_iter().map(|run| run.verify(&space)).collect()).await
}

async fn store_in_order(
    inner: Arc<Inner>,
    mut verified: mpsc::UnboundedReceiver<(Verifying, Origin)>,
    queued: mpsc::UnboundedSender<Storing>,
) {
    while let Some((batch, origin)) = verified.recv().await {
        let verified = match batch {
            Verifying::Done(verified) => Ok(verified),
            Verifying::Elsewhere(task) => task.await,
        };
        let storing = match verified {
            Ok(Ok(runs)) => {
                let heads = runs.iter().map(VerifiedRun::head).collect();
                match inner.writer.store(runs, origin).await {
                    Ok(reply) => Storing::Queued { heads, reply },
                    Err(_stopped) => Storing::Failed(ApplyError::Stopped),
                }
            }
            Ok(Err(invalid)) => Storing::Failed(ApplyError::Invalid(invalid)),
            Err(_panicked) => Storing::Failed(ApplyError::Panicked),
        };
        let failed = matches!(storing, Storing::Failed(_));
        if queued.send(storing).is_err() || failed {
            return;
        }
    }
}
