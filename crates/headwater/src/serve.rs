//! The responding side: drives a [`Responder`] between a stream and the store.
//!
//! ```text
//! frames ─▶ session ─▶ queries ─▶ store (on a blocking thread) ─▶ answers ─▶ session ─▶ frames
//!                         ▲
//! hub ─▶ which logs grew ─┘ (live)
//! ```
//!
//! The store is read only as fast as the peer takes what was read: the session is not asked for
//! more while enough is queued. No rule of the protocol stands here.

use std::{sync::Arc, time::Duration};

use headwater_proto::{
    HeadRecord, HeadsPage, Responder, ResponderOutput, ServeEnd, SessionError, SpaceSummary,
    StoredRun, TailCheck, TailWant, Wait,
};
use headwater_store::{LogStore, StoreError};
use headwater_wire::{Blame, CloseCode, EncodeError, SpaceId};
use iroh::{
    EndpointId,
    endpoint::{ReadError, RecvStream, SendStream, WriteError},
};
use n0_future::{task::AbortOnDropHandle, time::Instant};
use tracing::{Instrument, debug, info_span, warn};

use crate::{
    blocking::{Panicked, Queries, blocking},
    connections::{InUse, close},
    frames::{Filled, FrameReader, FrameWriter},
    hub::{Grown, Watcher},
    lag::Lag,
    metrics::Running,
    node::Inner,
    pull::{self, at},
    slots::Slot,
};

/// Logs whose growth is handed to a live session at once.
const LIVE_AUTHORS: usize = 1024;

/// Serves one request.
pub(crate) async fn stream(inner: Arc<Inner>, in_use: InUse, send: SendStream, recv: RecvStream) {
    let peer = in_use.link.connection.remote_id();
    let span = info_span!("serve", peer = %peer.fmt_short(), stream = %recv.id());
    let serve = Serve {
        peer,
        session: Responder::new(inner.limits.session.clone(), Duration::ZERO),
        reader: FrameReader::new(recv, Arc::clone(&inner.metrics)),
        writer: FrameWriter::new(send, Arc::clone(&inner.metrics), &inner.limits),
        started: Instant::now(),
        slot: None,
        space: None,
        queries: Queries::new(),
        live: Live::Off,
        fresh: Vec::new(),
        lag: Lag::default(),
        noted: 0,
        ended: false,
        asking_back: None,
        in_use,
        inner,
    };
    serve.run().instrument(span).await;
}

struct Serve {
    inner: Arc<Inner>,
    in_use: InUse,
    peer: EndpointId,
    session: Responder,
    reader: FrameReader,
    writer: FrameWriter,
    started: Instant,
    /// The right to be served: a history's, then a live stream's.
    slot: Option<Slot>,
    space: Option<SpaceId>,
    queries: Queries<Answer>,
    live: Live,
    /// What the session was last told of, with the runs at hand.
    fresh: Vec<Grown>,
    lag: Lag,
    /// Bytes moved when that last counted as progress.
    noted: u64,
    /// Whether the peer has ended its stream.
    ended: bool,
    /// The pull in turn, while a live request goes on.
    asking_back: Option<AbortOnDropHandle<()>>,
}

/// Where a live request stands.
#[derive(Debug)]
enum Live {
    Off,
    /// The history is being served; what is committed meanwhile gathers here.
    History(Watcher),
    /// The session asked to hear of the next change.
    Awaited(Watcher),
    /// The session is reading what changed.
    Reading(Watcher),
}

enum Answer {
    Opened(Result<Option<SpaceSummary>, StoreError>),
    Head(Result<Option<HeadRecord>, StoreError>),
    Heads(Result<HeadsPage, StoreError>),
    Tails(Result<Vec<TailCheck>, StoreError>),
    Runs(Result<Vec<StoredRun>, StoreError>),
}

/// Why a request is not served to its end.
#[derive(Debug, thiserror::Error)]
enum ServeError {
    #[error(transparent)]
    Session(#[from] SessionError),
    #[error("store failed: {0}")]
    Store(#[from] StoreError),
    #[error(transparent)]
    Encode(#[from] EncodeError),
    #[error("reading the store panicked")]
    Panicked,
    #[error("the connection is gone")]
    Disconnected,
    #[error("the peer took nothing for {after:?}")]
    WriteStalled { after: Duration },
    #[error("too many requests at a time")]
    Busy,
    #[error("access was revoked")]
    Revoked,
    #[error("the node is shutting down")]
    ShuttingDown,
}

impl ServeError {
    fn close_code(&self) -> CloseCode {
        match self {
            Self::Session(error) => error.close_code(),
            Self::Store(_) | Self::Encode(_) | Self::Panicked => CloseCode::Internal,
            Self::Disconnected => CloseCode::Done,
            Self::WriteStalled { .. } => CloseCode::TimedOut,
            Self::Busy => CloseCode::Busy,
            Self::Revoked => CloseCode::Refused,
            Self::ShuttingDown => CloseCode::ShuttingDown,
        }
    }

    fn blame(&self) -> Blame {
        match self {
            Self::Session(error) => error.blame(),
            Self::WriteStalled { .. } => Blame::Peer,
            Self::Disconnected => Blame::Transport,
            _ => Blame::Local,
        }
    }
}

impl Serve {
    async fn run(mut self) {
        let inner = Arc::clone(&self.inner);
        let metrics = &inner.metrics;
        let patience = inner.limits.busy_after;
        let Some(slot) = inner.serves.take_within(self.peer, patience).await else {
            metrics.refused_busy.inc();
            debug!("busy");
            self.end_streams(CloseCode::Busy);
            return;
        };
        self.slot = Some(slot);
        let running = Running::count(&metrics.serves_running);
        let end = self.drive().await;
        drop(running);
        match end {
            Ok(end) => {
                debug!(events = end.served.events, outcome = ?end.outcome, "served");
                // Before the stream ends: the peer takes that for leave to ask again.
                self.slot = None;
                if self.asks_back(end.requester_ahead) {
                    // The requester waits for the end of the stream, and so for this.
                    self.ask_back().await;
                }
                self.writer.finish();
            }
            Err(error) => self.abandon(&error),
        }
    }

    async fn drive(&mut self) -> Result<ServeEnd, ServeError> {
        loop {
            if let Some(end) = self.take_outputs()? {
                if matches!(self.live, Live::Off | Live::History(_)) {
                    self.inner.metrics.serves_completed.inc();
                }
                self.flush().await?;
                return Ok(end);
            }
            if self.session.wants_message()
                && let Some(message) = self.reader.next_message().map_err(SessionError::from)?
            {
                self.session
                    .handle_message(message, self.started.elapsed())?;
                continue;
            }
            self.wait().await?;
            self.note_transfer();
            if let (Some(space), Live::Off | Live::History(_)) = (self.space, &self.live) {
                self.in_use.link.moved_on(space);
            }
        }
    }

    /// Does what the session asks for, until enough is queued for the peer.
    fn take_outputs(&mut self) -> Result<Option<ServeEnd>, ServeError> {
        while self.has_room()
            && let Some(output) = self.session.poll_output()
        {
            match output {
                ResponderOutput::Open { space, live } => self.open(space, live),
                ResponderOutput::ReadHead(author) => {
                    self.ask(move |store, space| Answer::Head(store.head(space, &author)));
                }
                ResponderOutput::ReadHeads { after, limit } => {
                    self.ask(move |store, space| Answer::Heads(store.heads(space, after, limit)));
                }
                ResponderOutput::CheckTails(stated) => {
                    self.ask(move |store, space| Answer::Tails(store.check_tails(space, &stated)));
                }
                ResponderOutput::ReadRuns { wants, max_bytes } => {
                    self.read_runs(wants, max_bytes)?;
                }
                ResponderOutput::Send(message) => self.writer.push(&message)?,
                ResponderOutput::Pinned(heads) => {
                    if let Live::History(watcher) = &self.live {
                        watcher.pass(&heads);
                    }
                }
                ResponderOutput::AwaitLive => self.await_live()?,
                ResponderOutput::Finished(end) => return Ok(Some(end)),
                _ => debug!("the session asked for something unknown"),
            }
        }
        Ok(None)
    }

    fn note_transfer(&mut self) {
        let moved = self.reader.received() + self.writer.sent();
        if moved - self.noted >= self.inner.limits.progress_bytes() {
            self.noted = moved;
            self.session.handle_transfer(self.started.elapsed());
        }
    }

    fn has_room(&self) -> bool {
        self.writer.queued() < self.inner.limits.send_buffer_bytes
    }

    /// Waits for the next thing to happen, and tells the session.
    async fn wait(&mut self) -> Result<(), ServeError> {
        let deadline = self
            .session
            .next_timeout()
            .and_then(|after| self.started.checked_add(after));
        let write_stall = self.inner.limits.write_stall;
        let stalls_at = self.writer.stalls_at(write_stall);
        let wants = self.session.wants_message() && !self.ended;
        let has_room = self.has_room();
        tokio::select! {
            filled = self.reader.fill(), if wants => match filled {
                Ok(Filled::Bytes) => {}
                Ok(Filled::End) => {
                    self.ended = true;
                    self.session.handle_stream_end()?;
                }
                Ok(Filled::Cut) => {
                    return Err(SessionError::StreamEnded { phase: "in mid frame" }.into());
                }
                Err(ReadError::Reset(code)) => {
                    return Err(self.session.handle_reset(code.into_inner()).into());
                }
                Err(_lost) => return Err(ServeError::Disconnected),
            },
            sent = self.writer.send_some() => match sent {
                Ok(()) => {}
                Err(WriteError::Stopped(code)) => {
                    return Err(self.session.handle_reset(code.into_inner()).into());
                }
                Err(_lost) => return Err(ServeError::Disconnected),
            },
            answer = self.queries.next() => self.take_answer(answer?)?,
            may_read = live_change(&self.live, &self.inner, self.peer, self.space), if has_room => {
                if !may_read {
                    return Err(ServeError::Revoked);
                }
                self.take_live()?;
            }
            () = at(deadline) => self.session.handle_timeout(self.started.elapsed())?,
            () = at(stalls_at) => return Err(ServeError::WriteStalled { after: write_stall }),
            () = self.inner.closing() => return Err(ServeError::ShuttingDown),
        }
        Ok(())
    }

    fn take_answer(&mut self, answer: Answer) -> Result<(), ServeError> {
        let now = self.started.elapsed();
        match answer {
            Answer::Opened(summary) => {
                let summary = summary?;
                if summary.is_none() {
                    self.inner.metrics.serves_refused.inc();
                }
                self.session.handle_opened(summary, now)?;
            }
            Answer::Head(head) => self.session.handle_owner_head(head?, now)?,
            Answer::Heads(page) => self.session.handle_heads(page?, now)?,
            Answer::Tails(checks) => self.session.handle_tails(checks?, now)?,
            Answer::Runs(runs) => self.session.handle_runs(runs?, now)?,
        }
        Ok(())
    }

    /// Asks the policy, then the store. An unknown space and a refused one take the same way.
    fn open(&mut self, space: SpaceId, live: bool) {
        self.space = Some(space);
        if live {
            // Before the summary is read, so that nothing falls between history and live.
            self.live = Live::History(self.inner.hub.watch_for(space, self.peer));
        }
        let inner = Arc::clone(&self.inner);
        let peer = self.peer;
        let opening = async move {
            let may_read = inner.policy.may_read(peer, space).await;
            let store = Arc::clone(&inner.store);
            let summary = blocking(move || store.summary(&space)).await;
            Answer::Opened(summary.map(|summary| summary.filter(|_| may_read)))
        };
        self.queries.ask_async(opening);
    }

    fn ask(&mut self, query: impl FnOnce(&dyn LogStore, &SpaceId) -> Answer + Send + 'static) {
        let Some(space) = self.space else {
            return;
        };
        let store = Arc::clone(&self.inner.store);
        self.queries.ask(move || query(&*store, &space));
    }

    /// Reads what a session wants to send, from the store unless it is at hand.
    fn read_runs(&mut self, wants: Vec<TailWant>, max_bytes: usize) -> Result<(), ServeError> {
        let fresh = std::mem::take(&mut self.fresh);
        if fresh.iter().map(|grown| &grown.want).eq(&wants)
            && let Some(runs) = fresh.iter().map(stored_run).collect()
        {
            let now = self.started.elapsed();
            return Ok(self.session.handle_runs(runs, now)?);
        }
        self.ask(move |store, space| Answer::Runs(store.read_runs(space, &wants, max_bytes)));
        Ok(())
    }

    fn await_live(&mut self) -> Result<(), ServeError> {
        self.live = match std::mem::replace(&mut self.live, Live::Off) {
            Live::History(watcher) => {
                self.inner.metrics.serves_completed.inc();
                let slot = self.inner.live_serves.try_take(self.peer);
                self.slot = Some(slot.ok_or(ServeError::Busy)?);
                if self.asks_back(self.session.is_requester_ahead()) {
                    let asking = n0_future::task::spawn(self.ask_back());
                    self.asking_back = Some(AbortOnDropHandle::new(asking));
                }
                Live::Awaited(watcher)
            }
            Live::Reading(watcher) => Live::Awaited(watcher),
            other => other,
        };
        Ok(())
    }

    fn take_live(&mut self) -> Result<(), ServeError> {
        let Live::Awaited(watcher) = std::mem::replace(&mut self.live, Live::Off) else {
            return Ok(());
        };
        let now = self.started.elapsed();
        let backlog = watcher.backlog();
        if self.lag.is_too_much(backlog, now, &self.inner.limits) {
            self.inner.metrics.live_lagged.inc();
            self.session.handle_live(Vec::new(), backlog, now)?;
        } else {
            self.fresh = watcher.take(LIVE_AUTHORS);
            let wants = self.fresh.iter().map(|grown| grown.want).collect();
            self.session.handle_live(wants, 0, now)?;
        }
        self.live = Live::Reading(watcher);
        Ok(())
    }

    /// Sends what is still queued, within the time the session had.
    async fn flush(&mut self) -> Result<(), ServeError> {
        let write_stall = self.inner.limits.write_stall;
        let total = self.inner.limits.session.total;
        let since = match self.live {
            Live::Off | Live::History(_) => self.started,
            Live::Awaited(_) | Live::Reading(_) => Instant::now(),
        };
        let over_at = since.checked_add(total);
        while let Some(stalls_at) = self.writer.stalls_at(write_stall) {
            tokio::select! {
                sent = self.writer.send_some() => match sent {
                    Ok(()) => {}
                    Err(WriteError::Stopped(code)) => {
                        return Err(self.session.handle_reset(code.into_inner()).into());
                    }
                    Err(_lost) => return Err(ServeError::Disconnected),
                },
                () = at(Some(stalls_at)) => {
                    return Err(ServeError::WriteStalled { after: write_stall });
                }
                () = at(over_at) => {
                    let wait = Wait::Completion;
                    return Err(SessionError::TimedOut { wait, after: total }.into());
                }
                () = self.inner.closing() => return Err(ServeError::ShuttingDown),
            }
        }
        Ok(())
    }

    /// Whoever is asked by somebody that holds more asks back, whichever end dialled.
    fn asks_back(&self, requester_ahead: bool) -> bool {
        self.inner.ask_back && requester_ahead && self.asking_back.is_none()
    }

    /// Pulls from a requester that holds more.
    fn ask_back(&self) -> impl Future<Output = ()> + Send + use<> {
        let (inner, in_use, space) = (Arc::clone(&self.inner), self.in_use.link.hold(), self.space);
        async move {
            if let Some(space) = space {
                let span = info_span!("ask_back", space = %space.fmt_short());
                pull::ask_back(inner, &in_use, space).instrument(span).await;
            }
        }
    }

    /// Tells the peer why, and ends what the code says is to end.
    fn abandon(&mut self, error: &ServeError) {
        let metrics = &self.inner.metrics;
        metrics.serves_failed.inc();
        if error.blame() == Blame::Peer {
            metrics.peer_faults.inc();
            warn!(%error, "not served");
        } else {
            debug!(%error, "not served");
        }
        let code = error.close_code();
        self.end_streams(code);
        if matches!(error, ServeError::Session(_)) && code.is_connection_wide() {
            self.inner.connections.withdraw(&self.in_use.link);
            close(&self.in_use.link.connection, code);
        }
    }

    fn end_streams(&mut self, code: CloseCode) {
        self.reader.stop(code);
        self.writer.reset(code);
    }
}

/// The run a log grew by, if it is at hand.
fn stored_run(grown: &Grown) -> Option<StoredRun> {
    Some(StoredRun::of(grown.run.as_ref()?.run()))
}

/// Waits until a live session has something to hear of, and asks whether it still may.
async fn live_change(live: &Live, inner: &Inner, peer: EndpointId, space: Option<SpaceId>) -> bool {
    let (Live::Awaited(watcher), Some(space)) = (live, space) else {
        return std::future::pending().await;
    };
    watcher.changed().await;
    inner.policy.may_read(peer, space).await
}

impl From<Panicked> for ServeError {
    fn from(_: Panicked) -> Self {
        Self::Panicked
    }
}
