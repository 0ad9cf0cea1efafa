//! A running sync as its caller sees it: progress, and exactly one end.

use std::{
    fmt,
    future::IntoFuture,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use headwater_proto::{LiveEnd, SessionError, SyncProgress};
use headwater_store::StoreError;
use headwater_wire::{
    AuthorId, Blame, Budget, CloseCode, EncodeError, HeadsDigest, Receipt, Refutation, SpaceId,
    SyncOutcome,
};
use iroh::{
    EndpointAddr, EndpointId,
    endpoint::{ConnectError, ConnectionError},
};
use n0_future::{Stream, boxed::BoxFuture, task::AbortOnDropHandle};
use serde::{Serialize, Serializer};
use tokio::sync::{mpsc, oneshot, watch};
use tracing::Instrument;

use crate::{node::Inner, pull};

/// How to sync.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct SyncOptions {
    /// Whether to go on after the history with what the peer stores from then on, until
    /// [`SyncHandle::stop`].
    pub live: bool,
    /// How much history to take at most. The report then says *truncated*, and the next sync goes
    /// on from there.
    pub budget: Budget,
}

impl SyncOptions {
    /// History, then live.
    #[must_use]
    pub fn live() -> Self {
        Self {
            live: true,
            ..Self::default()
        }
    }

    /// At most this much.
    #[must_use]
    pub fn with_budget(mut self, budget: Budget) -> Self {
        self.budget = budget;
        self
    }
}

/// A running pull.
///
/// Await it for its [`SyncReport`]; poll it as a stream for [`SyncProgress`] meanwhile (the newest
/// value each time, so a slow reader sees fewer). What is reported as applied is durable.
///
/// A sync without `live` ends when the history is complete *and* the peer has pulled in turn what
/// it found it lacks, if it asks back. A live one goes on until it fails or is stopped;
/// [`SyncHandle::history`] resolves in between.
///
/// Dropping the handle stops the sync. What was stored stays, and the next one goes on from it.
#[derive(Debug)]
pub struct SyncHandle {
    progress: watch::Receiver<Option<SyncProgress>>,
    next_progress: ProgressStream,
    history: History,
    stop: mpsc::Sender<()>,
    end: AbortOnDropHandle<Result<SyncReport, SyncError>>,
    ended: Option<Result<SyncReport, SyncError>>,
}

/// What is known of the history.
#[derive(Debug)]
enum History {
    Awaited(oneshot::Receiver<SyncReport>),
    Complete(Box<SyncReport>),
    /// The sync ended before, and says how.
    Missed,
}

struct ProgressStream(Pin<Box<dyn Stream<Item = SyncProgress> + Send + Sync>>);

impl fmt::Debug for ProgressStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ProgressStream")
    }
}

/// What the running pull tells its handle.
#[derive(Debug)]
pub(crate) struct Feedback {
    pub(crate) progress: watch::Sender<Option<SyncProgress>>,
    pub(crate) history: Option<oneshot::Sender<SyncReport>>,
    pub(crate) stop: mpsc::Receiver<()>,
}

impl SyncHandle {
    pub(crate) fn start(
        inner: Arc<Inner>,
        space: SpaceId,
        peer: EndpointAddr,
        options: SyncOptions,
    ) -> Self {
        let span = tracing::info_span!(
            "sync",
            peer = %peer.id.fmt_short(),
            space = %space.fmt_short(),
            live = options.live,
        );
        let (feedback, progress, history, stop) = Feedback::new();
        let pulling = async move {
            // In a task of its own, so that a panic ends this sync alone.
            let tasks = inner.tasks.enter();
            let pulling = pull::with_peer(Arc::clone(&inner), space, peer, options, feedback);
            let pulling = AbortOnDropHandle::new(n0_future::task::spawn(pulling.in_current_span()));
            let end = pulling.await.unwrap_or_else(|error| {
                tracing::error!(%error, "a sync panicked");
                inner.metrics.panics.inc();
                Err(SyncError::Panicked)
            });
            drop(tasks);
            end
        };
        Self {
            next_progress: ProgressStream::new(progress.clone()),
            progress,
            history: History::Awaited(history),
            stop,
            end: AbortOnDropHandle::new(n0_future::task::spawn(pulling.instrument(span))),
            ended: None,
        }
    }

    /// The newest progress, if any was made yet.
    #[must_use]
    pub fn progress(&self) -> Option<SyncProgress> {
        *self.progress.borrow()
    }

    /// Waits until the history is over and reports on it; answers the same ever after. A live sync
    /// goes on, and one that is not may still wait for the peer to ask back.
    ///
    /// # Errors
    ///
    /// If the sync failed before. What was stored stays.
    pub async fn history(&mut self) -> Result<SyncReport, SyncError> {
        if let History::Awaited(history) = &mut self.history {
            self.history = match history.await {
                Ok(report) => History::Complete(Box::new(report)),
                Err(_ended) => History::Missed,
            };
        }
        match &self.history {
            History::Complete(report) => Ok(report.as_ref().clone()),
            History::Awaited(_) | History::Missed => self.finished().await,
        }
    }

    /// Asks a sync to end now. A live sync then ends with the report of what it received; one
    /// still in its history with [`SyncError::Stopped`].
    pub fn stop(&self) {
        // Full or closed both mean that it is stopping already.
        self.stop.try_send(()).ok();
    }

    async fn finished(&mut self) -> Result<SyncReport, SyncError> {
        if let Some(ended) = &self.ended {
            return ended.clone();
        }
        let end = (&mut self.end).await.unwrap_or(Err(SyncError::Panicked));
        self.ended = Some(end.clone());
        end
    }
}

impl Feedback {
    pub(crate) fn new() -> (
        Self,
        watch::Receiver<Option<SyncProgress>>,
        oneshot::Receiver<SyncReport>,
        mpsc::Sender<()>,
    ) {
        let (progress, progress_seen) = watch::channel(None);
        let (history, history_seen) = oneshot::channel();
        let (stop_wanted, stop) = mpsc::channel(1);
        let feedback = Self {
            progress,
            history: Some(history),
            stop,
        };
        (feedback, progress_seen, history_seen, stop_wanted)
    }
}

impl ProgressStream {
    fn new(progress: watch::Receiver<Option<SyncProgress>>) -> Self {
        Self(Box::pin(n0_future::stream::unfold(
            progress,
            |mut progress| async move {
                loop {
                    progress.changed().await.ok()?;
                    let newest = *progress.borrow_and_update();
                    if let Some(newest) = newest {
                        return Some((newest, progress));
                    }
                }
            },
        )))
    }
}

impl Stream for SyncHandle {
    type Item = SyncProgress;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.next_progress.0.as_mut().poll_next(cx)
    }
}

impl IntoFuture for SyncHandle {
    type Output = Result<SyncReport, SyncError>;
    type IntoFuture = BoxFuture<Self::Output>;

    fn into_future(mut self) -> Self::IntoFuture {
        Box::pin(async move { self.finished().await })
    }
}

/// How a sync ended, and what it cost.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct SyncReport {
    /// Who was pulled from.
    pub peer: EndpointId,
    /// Which space.
    pub space: SpaceId,
    /// Whether this node's policy believes the peer about what is complete: see
    /// [`AccessPolicy::trusts`](crate::AccessPolicy::trusts).
    pub from_provider: bool,
    /// Complete, or cut short and why. A log that forks does not stand in the way once it was put
    /// right.
    pub outcome: SyncOutcome,
    /// Events stored.
    pub events: u64,
    /// Payload bytes of those events.
    pub payload_bytes: u64,
    /// Events among them whose payload was left out.
    pub stubs: u64,
    /// Bytes of frames sent on the stream.
    pub wire_bytes_sent: u64,
    /// Bytes of frames received on the stream.
    pub wire_bytes_received: u64,
    /// Round trips until the history was complete, connecting not counted.
    pub round_trips: u32,
    /// Time from the request until the history was complete, connecting not counted.
    #[serde(rename = "duration_ms", serialize_with = "milliseconds")]
    pub duration: Duration,
    /// Whether the first digest showed that there was nothing to do.
    pub first_digest_equal: bool,
    /// Digest over the higher of both sides' heads, author by author: what a node holds that had
    /// what both of these have.
    pub joined_digest: HeadsDigest,
    /// What the peer answered, under its node key; the signature is checked. `None` if it gave none,
    /// as a node does whose store changed while it served. Keep it: against another it may show that
    /// something was held back, see [`Receipt::contradicts`].
    pub receipt: Option<Receipt>,
    /// Proof that the peer lied, now or before: its receipt contradicts an earlier one. It is not
    /// believed any more: see [`Headwater::is_caught`](crate::Headwater::is_caught).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refutation: Option<Box<Refutation>>,
    /// Authors who forked, as far as the two sides did not know the same of it. The history left
    /// them out; what was done about each after it stands here.
    pub forks: Vec<ForkedAuthor>,
    /// How many such authors there are; `forks` lists the first of them.
    pub forked_authors: u64,
    /// How many authors brought something this node does not accept, and that was not stored: see
    /// [`AccessPolicy::accepts`](crate::AccessPolicy::accepts). The others are not affected, and
    /// neither is the outcome, unless it was so much that the sync ended there; the next one leaves
    /// them out.
    pub unaccepted_authors: u64,
    /// Authors of whom something is not stored because of a quota here, by this sync or because
    /// earlier ones found out: see [`Limits::author_quota`](crate::Limits::author_quota). At most 64
    /// of them, ascending.
    pub over_quota: Vec<AuthorId>,
    /// How many such authors there are.
    pub over_quota_authors: u64,
    /// Bytes of runs of the history that were received in vain, because they are not accepted or above
    /// a quota. The next sync leaves their authors out.
    pub refused_bytes: u64,
    /// Whether these were so many that this node ended the history before its end: of others
    /// something may be missing as well.
    pub ended_early: bool,
    /// How the live part ended; `None` if there was none, or it was still going on.
    pub live_end: Option<LiveEnding>,
}

/// How the live part of a sync ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum LiveEnding {
    /// It was stopped here, or the peer ended it.
    Closed,
    /// This node took the events too slowly and was told so; sync again to go on.
    Lagged {
        /// How many events were not sent.
        missed: u64,
    },
}

impl From<LiveEnd> for LiveEnding {
    fn from(end: LiveEnd) -> Self {
        match end {
            LiveEnd::Closed => Self::Closed,
            LiveEnd::Lagged { missed } => Self::Lagged { missed },
        }
    }
}

/// An author who signed two different events for one place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ForkedAuthor {
    /// The author.
    pub author: AuthorId,
    /// Where the log forks, if it was put right; otherwise a seq in dispute, and the fork may be
    /// lower.
    pub seq: u64,
    /// Whether it was put right after the history: both sides hold a proof, show the log up to below
    /// the fork, and this one holds all of that. [`Space::fork_of`](crate::Space::fork_of) has the
    /// proof.
    pub repaired: bool,
    /// Round trips it took to find the fork; 0 if the peer was not asked, or did not answer.
    pub rounds: u32,
}

fn milliseconds<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64((duration.as_secs_f64() * 1e6).round() / 1e3)
}

/// Why a sync failed. What was reported as applied is stored; a new sync goes on from it.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum SyncError {
    /// This node was opened without an endpoint.
    #[error("this node has no network")]
    Offline,
    /// The peer did not answer the dial in time.
    #[error("no connection after {after:?}")]
    DialTimeout {
        /// The limit: [`Limits::dial_timeout`](crate::Limits::dial_timeout).
        after: Duration,
    },
    /// The peer could not be dialled.
    #[error("cannot connect: {0}")]
    Dial(#[source] Arc<ConnectError>),
    /// The connection was lost or closed; a close code we know is [`SyncError::Closed`].
    #[error("connection lost: {0}")]
    ConnectionLost(#[source] ConnectionError),
    /// The peer closed the connection with this code.
    #[error("the peer closed the connection: {code:?}")]
    Closed {
        /// Its code.
        code: CloseCode,
    },
    /// The session failed: see [`SessionError::blame`] for whose fault it was. A peer that
    /// refuses, or is busy, shows here as [`SessionError::Reset`].
    #[error(transparent)]
    Session(#[from] SessionError),
    /// This node's store failed.
    #[error("store failed: {0}")]
    Store(#[source] Arc<StoreError>),
    /// This node made a message that does not fit a frame: a bug here.
    #[error(transparent)]
    Encode(#[from] EncodeError),
    /// The peer took no byte for too long.
    #[error("the peer took nothing for {after:?}")]
    WriteStalled {
        /// The limit: [`Limits::write_stall`](crate::Limits::write_stall).
        after: Duration,
    },
    /// The peer broke rules of the protocol again and again, and is left alone for a while: see
    /// [`Limits::ban`](crate::Limits::ban).
    #[error("the peer is banned for another {left:?}")]
    Banned {
        /// For how much longer.
        left: Duration,
    },
    /// A live sync of this space with this peer is running already.
    #[error("a live sync with this peer is running")]
    AlreadyLive,
    /// [`SyncHandle::stop`] was called before the history was complete.
    #[error("stopped")]
    Stopped,
    /// The node is shutting down.
    #[error("the node is shutting down")]
    ShuttingDown,
    /// The sync panicked: a bug here.
    #[error("the sync panicked")]
    Panicked,
}

impl From<ConnectionError> for SyncError {
    fn from(error: ConnectionError) -> Self {
        if let ConnectionError::ApplicationClosed(close) = &error
            && let Some(code) = CloseCode::from_code(close.error_code.into_inner())
        {
            return Self::Closed { code };
        }
        Self::ConnectionLost(error)
    }
}

impl SyncError {
    pub(crate) fn store(error: StoreError) -> Self {
        Self::Store(Arc::new(error))
    }

    /// What the peer is told.
    pub(crate) fn close_code(&self) -> CloseCode {
        match self {
            Self::Session(error) => error.close_code(),
            Self::Store(_) | Self::Encode(_) | Self::Panicked => CloseCode::Internal,
            Self::WriteStalled { .. } => CloseCode::TimedOut,
            Self::Stopped => CloseCode::Cancelled,
            Self::ShuttingDown => CloseCode::ShuttingDown,
            _ => CloseCode::Done,
        }
    }

    /// Whose fault it was.
    #[must_use]
    pub fn blame(&self) -> Blame {
        match self {
            Self::Session(error) => error.blame(),
            Self::Closed { code } => match code {
                CloseCode::Malformed
                | CloseCode::ProtocolViolation
                | CloseCode::InvalidRun
                | CloseCode::PlanExceeded => Blame::Local,
                _ => Blame::Transport,
            },
            Self::WriteStalled { .. } | Self::Banned { .. } => Blame::Peer,
            Self::DialTimeout { .. } | Self::Dial(_) | Self::ConnectionLost(_) => Blame::Transport,
            Self::Offline
            | Self::Store(_)
            | Self::Encode(_)
            | Self::AlreadyLive
            | Self::Stopped
            | Self::ShuttingDown
            | Self::Panicked => Blame::Local,
        }
    }
}
