//! One request on a stream, to the end of its session.

use std::{sync::Arc, time::Duration};

use headwater_proto::{
    HeadRecord, HeadsPage, LocalClock, Requester, RequesterConfig, RequesterOutput, SessionError,
    SyncEnd,
};
use headwater_store::StoreError;
use headwater_wire::CloseCode;
use iroh::endpoint::{ReadError, WriteError};
use n0_future::time::{Instant, timeout};
use tracing::debug;

use super::{Pull, at};
use crate::{
    apply::{Applier, ApplyError},
    blocking::{Panicked, Queries, blocking},
    connections::close,
    frames::{Filled, FrameReader, FrameWriter},
    limits::Limits,
    sync::{SyncError, SyncReport},
};

/// How long a peer may take to end its stream when a live sync is stopped.
const STOP_PATIENCE: Duration = Duration::from_secs(2);

/// A stream with a session on it.
pub(super) struct Session {
    session: Requester,
    pub(super) reader: FrameReader,
    pub(super) writer: FrameWriter,
    applier: Applier,
    started: Instant,
    queries: Queries<Answer>,
    /// Bytes moved when that last counted as progress.
    noted: u64,
    /// The report on the history, once it is complete.
    pub(super) history: Option<SyncReport>,
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
    pub(super) async fn open(&self) -> Result<Session, SyncError> {
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
            authors: held.authors,
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
            writer: FrameWriter::new(send, Arc::clone(&inner.metrics), &inner.limits),
            applier: Applier::spawn(Arc::clone(inner), space, peer),
            started: Instant::now(),
            queries: Queries::new(),
            noted: 0,
            history: None,
        })
    }

    pub(super) async fn drive(&mut self, running: &mut Session) -> Result<SyncEnd, SyncError> {
        let mut deaf = false;
        let mut stopping = None;
        loop {
            if let Some(end) = self.take_outputs(running)? {
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
    fn take_outputs(&mut self, running: &mut Session) -> Result<Option<SyncEnd>, SyncError> {
        while let Some(output) = running.session.poll_output() {
            match output {
                RequesterOutput::Send(message) => running.writer.push(&message)?,
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
                RequesterOutput::Finished(end) => return Ok(Some(end)),
                _ => debug!("the session asked for something unknown"),
            }
        }
        Ok(None)
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
                match output {
                    // The rest of a batch that had no room yet.
                    RequesterOutput::Apply(runs) => running.applier.push(runs),
                    RequesterOutput::Finished(end) => return Ok(end),
                    _ => {}
                }
            }
            let applied = running.applier.next().await;
            let applied = applied.map_err(|error| not_applied(&mut running.session, error))?;
            running.session.handle_applied(applied, running.now())?;
        }
    }

    /// Tells the peer why, and ends what the code says is to end.
    pub(super) fn abandon(&self, running: &mut Session, error: &SyncError) {
        let code = match error {
            SyncError::Session(error) => error.close_code(),
            SyncError::Store(_) | SyncError::Encode(_) | SyncError::Panicked => CloseCode::Internal,
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
}

impl Session {
    pub(super) fn now(&self) -> Duration {
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
