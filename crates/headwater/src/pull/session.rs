//! One request on a stream, to the end of its session.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use headwater_proto::{
    AppliedRun, HeadRecord, HeadsPage, LocalClock, Requester, RequesterConfig, RequesterOutput,
    SessionError, SyncEnd,
};
use headwater_store::StoreError;
use headwater_wire::{Answered, AppendError, AuthorId, CloseCode, Refutation};
use n0_future::time::{Instant, timeout};
use tracing::debug;

use super::{
    Pull, at,
    behind::{Behind, Next, Seen},
};
use crate::{
    apply::{Applier, ApplyError},
    blocking::{Panicked, Queries, blocking},
    connections::close,
    exchange::{self, Broken, Moved, Transfer},
    fork::Repairs,
    frames::{FrameReader, FrameWriter},
    limits::Limits,
    node::Inner,
    policy::node_key,
    sync::{SyncError, SyncHandle, SyncOptions, SyncReport},
};

/// How long a peer may take to end its stream when a live sync is stopped.
const STOP_PATIENCE: Duration = Duration::from_secs(2);

/// A stream with a session on it.
pub(super) struct Session {
    session: Requester,
    pub(super) reader: FrameReader,
    pub(super) writer: FrameWriter,
    applier: Applier,
    /// The bytes of each run, of the lists the applier has not answered about.
    sizes: VecDeque<Vec<u64>>,
    started: Instant,
    queries: Queries<Answer>,
    transfer: Transfer,
    /// The authors left out because they forked.
    pub(super) repairs: Repairs,
    /// Authors above a quota, whom the request leaves out.
    pub(super) over_quota: Vec<AuthorId>,
    behind: Behind,
    /// The history of a live sync, complete but for these authors.
    unreported: Option<Box<SyncEnd>>,
    /// What the receipt proves beside an earlier one.
    pub(super) refutation: Option<Box<Refutation>>,
    /// When the history was complete.
    pub(super) complete_at: Option<Duration>,
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
        // Before the policy is asked: a change in between is seen later.
        let changes = Seen::now(inner.policy.changes());
        let except = inner.left_out.of(space, &*inner.policy);
        let (policy, after) = (Arc::clone(&inner.policy), inner.limits.catch_up_after);
        let behind = Behind::new(space, policy, changes, except.unaccepted, after);
        let mut limits = inner.limits.session.clone();
        let usual = limits.max_refused_bytes;
        limits.max_refused_bytes = inner.left_out.allowance(space, peer, usual);
        let config = RequesterConfig {
            request_id: inner.next_request_id(),
            space,
            budget: self.options.budget,
            except: except.authors,
            live: self.options.live,
            limits,
        };
        Ok(Session {
            session: Requester::new(config, clock, Duration::ZERO).with_provider(node_key(peer)),
            reader: FrameReader::new(recv, Arc::clone(&inner.metrics)),
            writer: FrameWriter::new(send, Arc::clone(&inner.metrics), &inner.limits),
            applier: Applier::spawn(Arc::clone(inner), space, peer),
            sizes: VecDeque::new(),
            started: Instant::now(),
            queries: Queries::new(),
            transfer: Transfer::default(),
            repairs: Repairs::new(inner, &self.in_use.link, space),
            over_quota: except.over_quota,
            behind,
            unreported: None,
            refutation: None,
            complete_at: None,
            history: None,
        })
    }

    pub(super) async fn drive(&mut self, running: &mut Session) -> Result<SyncEnd, SyncError> {
        let mut deaf = false;
        let mut stopping = None;
        loop {
            if let Some(end) = self.take_outputs(running)? {
                if running.session.is_cut() {
                    running.reader.stop(CloseCode::Cancelled);
                    running.writer.reset(CloseCode::Cancelled);
                }
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
                Err(Interrupt::Error(SyncError::Stopped)) if running.is_live() => {
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
                RequesterOutput::Apply(runs) => {
                    let live = running.is_live();
                    let sizes = runs.iter().map(|run| run.as_bytes().len() as u64);
                    running.sizes.push_back(sizes.collect());
                    running.applier.push(runs, live);
                }
                RequesterOutput::Progress(progress) => {
                    self.feedback.progress.send_replace(Some(progress));
                }
                RequesterOutput::HistoryComplete(end) => {
                    running.complete_at = Some(running.now());
                    self.note_end(running, &end);
                    running.add_repairs(&end);
                    running.unreported = Some(Box::new(end));
                    self.report_history(running);
                }
                RequesterOutput::Finished(end) => {
                    let now = running.now();
                    if running.complete_at.is_none() {
                        running.complete_at = Some(now);
                        self.note_end(running, &end);
                    }
                    return Ok(Some(end));
                }
                _ => debug!("the session asked for something unknown"),
            }
        }
        Ok(None)
    }

    /// Takes note of how the history ended.
    fn note_end(&self, running: &mut Session, end: &SyncEnd) {
        let peer = self.in_use.link.connection.remote_id();
        let was_cut = running.session.is_cut();
        let left_out = &self.inner.left_out;
        left_out.note_end(self.space, peer, was_cut, end);
        running.note_answer(self.inner, end);
    }

    /// Waits for the next thing to happen, and tells the session.
    async fn wait(&mut self, running: &mut Session, deaf: bool) -> Result<(), Interrupt> {
        let deadline = running.deadline();
        let is_live = running.is_live();
        let repairing = !running.repairs.are_over();
        let wants = running.session.wants_message();
        let started = running.started;
        let Session {
            session,
            reader,
            writer,
            applier,
            sizes,
            queries,
            repairs,
            behind,
            ..
        } = running;
        tokio::select! {
            moved = exchange::step(reader, writer, &self.inner.limits, wants, !deaf) => match moved {
                Ok(Moved::Bytes) => {}
                Ok(Moved::End) => session.handle_stream_end()?,
                Err(Broken::Cut) => {
                    return Err(SessionError::StreamEnded { phase: "in mid frame" }.into());
                }
                Err(Broken::Closed) => {
                    return Err(SessionError::StreamEnded { phase: "reading" }.into());
                }
                Err(Broken::Reset(code)) => return Err(session.handle_reset(code).into()),
                Err(Broken::Deaf(_)) => return Err(Interrupt::Deaf),
                Err(Broken::Lost(error)) => return Err(SyncError::from(error).into()),
                Err(Broken::Stalled { after }) => {
                    return Err(SyncError::WriteStalled { after }.into());
                }
            },
            applied = applier.next() => match applied {
                Ok(applied) => {
                    behind.note(&applied);
                    let sizes = sizes.pop_front().unwrap_or_default();
                    if !is_live {
                        self.inner.left_out.note(self.space, &applied, &sizes);
                    }
                    if is_live {
                        // It is cut here: the peer had better know as well.
                        forked(&applied).for_each(|author| repairs.add(author));
                    }
                    session.handle_applied(applied, started.elapsed())?;
                }
                Err(error) => return Err(not_applied(session, error).into()),
            },
            repaired = repairs.next(), if repairing => {
                repaired?;
                self.report_history(running);
            }
            answer = queries.next() => match answer.map_err(SyncError::from)? {
                Answer::Head(head) => session.handle_owner_head(head.map_err(SyncError::store)?)?,
                Answer::Heads(page) => session.handle_heads(page.map_err(SyncError::store)?)?,
            },
            next = behind.next(), if is_live => match next {
                Next::Pull => {
                    debug!("pulling what does not come live");
                    let (inner, options) = (Arc::clone(self.inner), SyncOptions::default());
                    let peer = self.in_use.link.connection.remote_id();
                    behind.began(SyncHandle::start(inner, self.space, peer.into(), options));
                }
                Next::Wait => {}
            },
            () = at(deadline) => session.handle_timeout(started.elapsed())?,
            Some(()) = self.feedback.stop.recv() => return Err(SyncError::Stopped.into()),
            () = self.inner.closing() => return Err(SyncError::ShuttingDown.into()),
        }
        Ok(())
    }

    /// Reports on the history of a live sync, once the authors it left out were seen to.
    fn report_history(&mut self, running: &mut Session) {
        if !running.repairs.are_over() {
            return;
        }
        let Some(end) = running.unreported.take() else {
            return;
        };
        self.places.history_done();
        let report = self.report(&end, running);
        debug!(events = report.events, "history complete, live now");
        if let Some(history) = self.feedback.history.take() {
            history.send(report.clone()).ok();
        }
        running.history = Some(report);
    }

    /// Sees to the authors that the history left out, and to those the live part has met.
    pub(super) async fn repair(
        &mut self,
        running: &mut Session,
        end: &SyncEnd,
    ) -> Result<(), SyncError> {
        running.add_repairs(end);
        while !running.repairs.are_over() {
            tokio::select! {
                repaired = running.repairs.next() => repaired?,
                // The history is complete: what is left is for the next sync.
                Some(()) = self.feedback.stop.recv() => return Ok(()),
                () = self.inner.closing() => return Err(SyncError::ShuttingDown),
            }
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
                    RequesterOutput::Apply(runs) => running.applier.push(runs, true),
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
        let code = error.close_code();
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

    /// Whether the history is behind it, and the live part goes on.
    fn is_live(&self) -> bool {
        self.history.is_some() || self.unreported.is_some()
    }

    /// Whether the history was ended from here, for all that is not stored of it.
    pub(super) fn ended_early(&self) -> bool {
        self.session.is_cut()
    }

    /// Lays the answer beside those before it.
    fn note_answer(&mut self, inner: &Inner, end: &SyncEnd) {
        self.refutation = end.receipt.and_then(|receipt| {
            let request = self.session.request().clone();
            inner
                .note_answer(Answered { request, receipt })
                .map(Box::new)
        });
    }

    fn add_repairs(&mut self, end: &SyncEnd) {
        for fork in &end.forks {
            self.repairs.add(fork.author);
        }
    }

    fn note_transfer(&mut self, limits: &Limits) {
        let (reader, writer) = (&self.reader, &self.writer);
        if self.transfer.is_progress(reader, writer, limits) {
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

/// The authors whose runs were refused because they fork.
fn forked(applied: &[AppliedRun]) -> impl Iterator<Item = AuthorId> {
    applied.iter().filter_map(|applied| match &applied.outcome {
        Err(AppendError::Forked { author, .. }) => Some(*author),
        _ => None,
    })
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
