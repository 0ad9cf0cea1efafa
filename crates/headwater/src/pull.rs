//! The requesting side: drives a [`Requester`] between a stream and the store.
//!
//! ```text
//! frames ─▶ session ─▶ runs ─▶ verify (on blocking threads) ─▶ writer (group commit) ─▶ outcomes ─▶ session
//! ```
//!
//! Receiving, verifying and committing overlap. The session counts the bytes on that way and
//! stops wanting messages when there are too many; what is not read stays in QUIC's window, then
//! at the responder. No rule of the protocol stands here.

use std::{sync::Arc, time::Duration};

use headwater_proto::{
    HeadRecord, HeadsPage, LocalClock, Requester, RequesterConfig, RequesterOutput, SessionError,
    SyncEnd,
};
use headwater_store::StoreError;
use headwater_wire::{Blame, CloseCode, Message, SpaceId, SyncOutcome};
use iroh::{
    EndpointAddr,
    endpoint::{ReadError, WriteError},
};
use n0_future::time::{Instant, sleep_until, timeout};
use tracing::{debug, warn};

use crate::{
    apply::{Applier, ApplyError},
    blocking::{Panicked, Queries, blocking},
    connections::{InUse, close},
    frames::{Filled, FrameReader, FrameWriter},
    limits::Limits,
    metrics::Running,
    node::Inner,
    places::Places,
    sync::{Feedback, ForkedAuthor, SyncError, SyncOptions, SyncReport},
};

/// How long a peer may take to end its stream when a live sync is stopped.
const STOP_PATIENCE: Duration = Duration::from_secs(2);

/// Bytes read after the end of a history before the peer is told to stop: it has nothing to say.
const MAX_TAIL_BYTES: u64 = 64 * 1024;

/// Dials the peer, or uses a connection that stands, and pulls.
pub(crate) async fn with_peer(
    inner: Arc<Inner>,
    space: SpaceId,
    peer: EndpointAddr,
    options: SyncOptions,
    mut feedback: Feedback,
) -> Result<SyncReport, SyncError> {
    let id = peer.id;
    if inner.endpoint.is_none() {
        return Err(SyncError::Offline);
    }
    if inner.is_closing() {
        return Err(SyncError::ShuttingDown);
    }
    let mut places = tokio::select! {
        places = Places::take(&inner, space, id, options.live) => places?,
        () = inner.closing() => return Err(SyncError::ShuttingDown),
        Some(()) = feedback.stop.recv() => return Err(SyncError::Stopped),
    };
    loop {
        let (in_use, reused) = tokio::select! {
            connected = inner.connect(peer.clone()) => connected?,
            () = inner.closing() => return Err(SyncError::ShuttingDown),
            Some(()) = feedback.stop.recv() => return Err(SyncError::Stopped),
        };
        let pull = Pull {
            inner: &inner,
            in_use: &in_use,
            space,
            options: &options,
            feedback: &mut feedback,
            places: &mut places,
        };
        match pull.run().await {
            // The peer closed an idle connection just as it was taken up again.
            Err(SyncError::Closed {
                code: CloseCode::Done,
            }) if reused => {
                debug!("the connection was just closed: dialling anew");
                inner.connections.withdraw(&in_use.link);
            }
            end => return end,
        }
    }
}

/// Pulls on a connection the peer opened, because it showed that it holds more.
///
/// Never waits for its turn: a pull from this peer that is running already does the same, and two
/// peers that waited for each other's pulls to end would wait for ever.
pub(crate) async fn ask_back(inner: Arc<Inner>, in_use: &InUse, space: SpaceId) {
    let peer = in_use.link.connection.remote_id();
    let Some(mut places) = Places::try_take(&inner, space, peer) else {
        debug!("not asking back: a pull from this peer is running");
        return;
    };
    inner.metrics.pulls_asked_back.inc();
    let options = SyncOptions::default();
    let (mut feedback, _progress, _history, _stop) = Feedback::new();
    let pull = Pull {
        inner: &inner,
        in_use,
        space,
        options: &options,
        feedback: &mut feedback,
        places: &mut places,
    };
    // Its end is traced and counted like any other's.
    pull.run().await.ok();
}

struct Pull<'a> {
    inner: &'a Arc<Inner>,
    in_use: &'a InUse,
    space: SpaceId,
    options: &'a SyncOptions,
    feedback: &'a mut Feedback,
    places: &'a mut Places,
}

/// A stream with a session on it.
struct Session {
    session: Requester,
    reader: FrameReader,
    writer: FrameWriter,
    applier: Applier,
    started: Instant,
    queries: Queries<Answer>,
    /// Bytes moved when that last counted as progress.
    noted: u64,
    /// The report on the history, once it is complete.
    history: Option<SyncReport>,
}

enum Answer {
    Head(Result<Option<HeadRecord>, StoreError>),
    Heads(Result<HeadsPage, StoreError>),
}

/// Why the loop ends before the session does.
enum Interrupt {
    Error(SyncError),
    /// The peer will read no more: its own words on the other stream say why.
    Deaf,
}

impl Pull<'_> {
    async fn run(mut self) -> Result<SyncReport, SyncError> {
        let metrics = &self.inner.metrics;
        metrics.pulls_started.inc();
        let running = Running::count(&metrics.pulls_running);
        let end = self.run_to_end().await;
        drop(running);
        match &end {
            Ok(report) if report.outcome == SyncOutcome::Complete => {
                metrics.pulls_completed.inc();
                debug!(
                    events = report.events,
                    round_trips = report.round_trips,
                    "complete"
                );
            }
            Ok(report) => {
                metrics.pulls_truncated.inc();
                debug!(events = report.events, outcome = ?report.outcome, "truncated");
            }
            Err(error) => {
                metrics.pulls_failed.inc();
                if error.blame() == Blame::Peer {
                    metrics.peer_faults.inc();
                    warn!(%error, "failed");
                } else {
                    debug!(%error, "failed");
                }
            }
        }
        end
    }

    async fn run_to_end(&mut self) -> Result<SyncReport, SyncError> {
        let mut running = self.open().await?;
        let end = self.drive(&mut running).await;
        let report = match end {
            Ok(end) => Ok(self.report(&end, &mut running)),
            Err(error) => {
                self.abandon(&mut running, &error);
                Err(error)
            }
        };
        if report.is_ok() && !self.options.live {
            // The peer ends its stream when it has pulled in turn, if it asks back.
            self.await_end_of_stream(&mut running).await;
        }
        report
    }

    async fn open(&self) -> Result<Session, SyncError> {
        let inner = self.inner;
        let after = inner.limits.dial_timeout;
        let opening = timeout(after, self.in_use.link.connection.open_bi());
        let (send, recv) = tokio::select! {
            opened = opening => opened
                .map_err(|_elapsed| SyncError::DialTimeout { after })?
                .map_err(SyncError::from)?,
            () = inner.closing() => return Err(SyncError::ShuttingDown),
        };
        let space = self.space;
        let peer = self.in_use.link.connection.remote_id();
        let store = Arc::clone(&inner.store);
        let held = blocking(move || store.summary(&space))
            .await
            .map_err(|error| SyncError::Store(Arc::new(error)))?;
        let clock = held.map_or(LocalClock::Empty, |held| LocalClock::Held {
            owner: held.owner,
            digest: held.digest,
        });
        let config = RequesterConfig {
            request_id: inner.next_request_id(),
            space,
            budget: self.options.budget,
            live: self.options.live,
            limits: inner.limits.session.clone(),
        };
        Ok(Session {
            session: Requester::new(config, clock, Duration::ZERO),
            reader: FrameReader::new(recv, Arc::clone(&inner.metrics)),
            writer: FrameWriter::new(send, Arc::clone(&inner.metrics)),
            applier: Applier::spawn(Arc::clone(inner), space, peer),
            started: Instant::now(),
            queries: Queries::new(),
            noted: 0,
            history: None,
        })
    }

    async fn drive(&mut self, running: &mut Session) -> Result<SyncEnd, SyncError> {
        let mut deaf = false;
        let mut stopping = None;
        loop {
            if let Some(end) = self.take_outputs(running) {
                running.writer.finish();
                return Ok(end);
            }
            if running.session.wants_message()
                && let Some(message) = running.reader.next_message().map_err(SessionError::from)?
            {
                running.session.handle_message(message, running.now())?;
                continue;
            }
            let happened = tokio::select! {
                happened = self.wait(running, deaf) => happened,
                () = at(stopping) => return self.cut_live(running).await,
            };
            match happened {
                Ok(()) => running.note_transfer(&self.inner.limits),
                Err(Interrupt::Deaf) => deaf = true,
                Err(Interrupt::Error(SyncError::Stopped)) if running.history.is_some() => {
                    // The peer answers with the end of its stream, after what is on its way.
                    running.writer.finish();
                    stopping.get_or_insert(Instant::now() + STOP_PATIENCE);
                }
                Err(Interrupt::Error(error)) => return Err(error),
            }
        }
    }

    /// Does what the session asks for; answers come through [`Pull::wait`].
    fn take_outputs(&mut self, running: &mut Session) -> Option<SyncEnd> {
        while let Some(output) = running.session.poll_output() {
            match output {
                RequesterOutput::Send(message) => running.push(&message),
                RequesterOutput::ReadHead(author) => {
                    let (store, space) = (Arc::clone(&self.inner.store), self.space);
                    let read = move || Answer::Head(store.head(&space, &author));
                    running.queries.ask(read);
                }
                RequesterOutput::ReadHeads { after, limit } => {
                    let (store, space) = (Arc::clone(&self.inner.store), self.space);
                    let read = move || Answer::Heads(store.heads(&space, after, limit));
                    running.queries.ask(read);
                }
                RequesterOutput::Apply(runs) => running.applier.push(runs),
                RequesterOutput::Progress(progress) => {
                    self.feedback.progress.send_replace(Some(progress));
                }
                RequesterOutput::HistoryComplete(end) => {
                    self.places.history_done();
                    let report = self.report(&end, running);
                    debug!(events = report.events, "history complete, live now");
                    if let Some(history) = self.feedback.history.take() {
                        history.send(report.clone()).ok();
                    }
                    running.history = Some(report);
                }
                RequesterOutput::Finished(end) => return Some(end),
                _ => debug!("the session asked for something unknown"),
            }
        }
        None
    }

    /// Waits for the next thing to happen, and tells the session.
    async fn wait(&mut self, running: &mut Session, deaf: bool) -> Result<(), Interrupt> {
        let deadline = running.deadline();
        let stalls_at = running.writer.stalls_at(self.inner.limits.write_stall);
        let wants = running.session.wants_message();
        let started = running.started;
        let Session {
            session,
            reader,
            writer,
            applier,
            queries,
            ..
        } = running;
        tokio::select! {
            filled = reader.fill(), if wants => match filled {
                Ok(Filled::Bytes) => {}
                Ok(Filled::End) => session.handle_stream_end()?,
                Ok(Filled::Cut) => {
                    return Err(SessionError::StreamEnded { phase: "in mid frame" }.into());
                }
                Err(ReadError::Reset(code)) => {
                    return Err(session.handle_reset(code.into_inner()).into());
                }
                Err(ReadError::ConnectionLost(error)) => return Err(SyncError::from(error).into()),
                Err(_closed) => return Err(SessionError::StreamEnded { phase: "reading" }.into()),
            },
            sent = writer.send_some(), if !deaf => match sent {
                Ok(()) => {}
                Err(WriteError::ConnectionLost(error)) => return Err(SyncError::from(error).into()),
                Err(_stopped) => return Err(Interrupt::Deaf),
            },
            applied = applier.next() => match applied {
                Ok(applied) => session.handle_applied(applied, started.elapsed())?,
                Err(error) => return Err(not_applied(session, error).into()),
            },
            answer = queries.next() => match answer.map_err(SyncError::from)? {
                Answer::Head(head) => session.handle_owner_head(head.map_err(SyncError::store)?)?,
                Answer::Heads(page) => session.handle_heads(page.map_err(SyncError::store)?)?,
            },
            () = at(deadline) => session.handle_timeout(started.elapsed())?,
            () = at(stalls_at), if !deaf => {
                let after = self.inner.limits.write_stall;
                return Err(SyncError::WriteStalled { after }.into());
            }
            Some(()) = self.feedback.stop.recv() => return Err(SyncError::Stopped.into()),
            () = self.inner.closing() => return Err(SyncError::ShuttingDown.into()),
        }
        Ok(())
    }

    /// Ends a live sync without the peer: what was received is stored, and counted.
    async fn cut_live(&self, running: &mut Session) -> Result<SyncEnd, SyncError> {
        running.reader.stop(CloseCode::Done);
        running.session.handle_stream_end()?;
        loop {
            while let Some(output) = running.session.poll_output() {
                if let RequesterOutput::Finished(end) = output {
                    return Ok(end);
                }
            }
            let applied = running.applier.next().await;
            let applied = applied.map_err(|error| not_applied(&mut running.session, error))?;
            running.session.handle_applied(applied, running.now())?;
        }
    }

    /// Tells the peer why, and ends what the code says is to end.
    fn abandon(&self, running: &mut Session, error: &SyncError) {
        let code = match error {
            SyncError::Session(error) => error.close_code(),
            SyncError::Store(_) | SyncError::Panicked => CloseCode::Internal,
            SyncError::WriteStalled { .. } => CloseCode::TimedOut,
            SyncError::Stopped => CloseCode::Cancelled,
            SyncError::ShuttingDown => CloseCode::ShuttingDown,
            _ => CloseCode::Done,
        };
        running.reader.stop(code);
        running.writer.reset(code);
        if code == CloseCode::TimedOut {
            // The next sync had better dial anew.
            self.inner.connections.withdraw(&self.in_use.link);
        }
        if matches!(error, SyncError::Session(_)) && code.is_connection_wide() {
            self.inner.connections.withdraw(&self.in_use.link);
            close(&self.in_use.link.connection, code);
        }
    }

    async fn await_end_of_stream(&mut self, running: &mut Session) {
        let most = running.reader.received() + MAX_TAIL_BYTES;
        while running.reader.received() < most {
            let patience = self.inner.limits.ask_back_wait;
            let before = self.in_use.link.activity();
            tokio::select! {
                filled = running.reader.fill() => if !matches!(filled, Ok(Filled::Bytes)) {
                    return;
                },
                () = n0_future::time::sleep(patience) => {
                    if self.in_use.link.activity() == before {
                        debug!("the peer leaves its stream open, and asks nothing back");
                        break;
                    }
                }
                Some(()) = self.feedback.stop.recv() => break,
                () = self.inner.closing() => break,
            }
        }
        running.reader.stop(CloseCode::Done);
    }

    fn report(&self, end: &SyncEnd, running: &mut Session) -> SyncReport {
        let history = running.history.take();
        let duration = history.map_or(running.now(), |history| history.duration);
        SyncReport {
            peer: self.in_use.link.connection.remote_id(),
            space: self.space,
            outcome: end.outcome,
            events: end.events,
            payload_bytes: end.payload_bytes,
            stubs: end.stubs,
            wire_bytes_sent: running.writer.sent(),
            wire_bytes_received: running.reader.received(),
            round_trips: end.round_trips,
            duration,
            first_digest_equal: end.first_digest_equal,
            joined_digest: end.joined_digest,
            forks: end.forks.iter().map(ForkedAuthor::from).collect(),
            forked_authors: end.forked_authors,
            live_end: end.live.map(Into::into),
        }
    }
}

impl Session {
    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    fn note_transfer(&mut self, limits: &Limits) {
        let moved = self.reader.received() + self.writer.sent();
        if moved - self.noted >= limits.progress_bytes() {
            self.noted = moved;
            self.session.handle_transfer(self.now());
        }
    }

    fn deadline(&self) -> Option<Instant> {
        let after = self.session.next_timeout()?;
        self.started.checked_add(after)
    }

    fn push(&mut self, message: &Message) {
        // A session makes no message above the protocol's own bounds.
        if let Err(error) = self.writer.push(message) {
            warn!(%error, "a message does not fit a frame");
        }
    }
}

impl From<SyncError> for Interrupt {
    fn from(error: SyncError) -> Self {
        Self::Error(error)
    }
}

impl From<SessionError> for Interrupt {
    fn from(error: SessionError) -> Self {
        Self::Error(error.into())
    }
}

fn not_applied(session: &mut Requester, error: ApplyError) -> SyncError {
    match error {
        ApplyError::Invalid(error) => session.handle_invalid_run(error).into(),
        ApplyError::Store(error) => SyncError::Store(error),
        ApplyError::Stopped => SyncError::ShuttingDown,
        ApplyError::Panicked => SyncError::Panicked,
    }
}

impl From<Panicked> for SyncError {
    fn from(_: Panicked) -> Self {
        Self::Panicked
    }
}

/// Waits until then; for ever if there is no such time.
pub(crate) async fn at(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}
