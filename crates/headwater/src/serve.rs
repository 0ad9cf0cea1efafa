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
//!
//! Every history ends with a receipt under the endpoint's key, whatever the policy holds of this
//! node: a receipt binds who signs it and nobody else, and whom to believe is for its reader to say.
//! It tells no more than the node's announcements do, which are signed with the same key. What was
//! served while the space changed is not signed: a node that only grew would contradict itself.

use std::{sync::Arc, time::Duration};

use headwater_proto::{
    HeadRecord, HeadsPage, Responder, ResponderOutput, ServeEnd, SessionError, SpaceSummary,
    StoredRun, TailCheck, TailWant, Wait,
};
use headwater_store::{LogStore, StoreError};
use headwater_wire::{
    Blame, CloseCode, EncodeError, HeadsChunk, Message, Receipt, ReceiptFacts, Signature, SpaceId,
};
use iroh::{
    EndpointId,
    endpoint::{RecvStream, SendStream},
};
use n0_future::{task::AbortOnDropHandle, time::Instant};
use tracing::{Instrument, debug, info_span, warn};

use crate::{
    blocking::{Panicked, Queries, blocking},
    busy,
    clocks::Clock,
    conduct,
    connections::{InUse, close},
    exchange::{self, Broken, Moved, Transfer},
    fork,
    frames::{FrameReader, FrameWriter},
    hub::{Grown, Watcher},
    lag::Lag,
    metrics::Running,
    node::Inner,
    policy::Changes,
    pull::{self, at},
    redeem,
    settle::{SETTLED_BYTES, settle},
    slots::Slot,
    standing::Standing,
    sync::SyncError,
};

/// Logs whose growth is handed to a live session at once.
const LIVE_AUTHORS: usize = 1024;

/// Looked up in place of a space the peer may not read: nobody has one whose id is zero.
const NO_SPACE: SpaceId = SpaceId::from_bytes([0; SpaceId::LEN]);

/// Serves one request.
pub(crate) async fn stream(inner: Arc<Inner>, in_use: InUse, send: SendStream, recv: RecvStream) {
    let peer = in_use.link.connection.remote_id();
    let span = info_span!("serve", peer = %peer.fmt_short(), stream = %recv.id());
    // Before the policy is asked, so that no change falls between.
    let changes = inner.policy.changes();
    let changes_seen = changes.times();
    let serve = Serve {
        peer,
        standing: inner.standing(peer),
        clock: Clock::default(),
        session: Responder::new(inner.limits.session.clone(), Duration::ZERO).signing(),
        reader: FrameReader::new(recv, Arc::clone(&inner.metrics)),
        writer: FrameWriter::new(send, Arc::clone(&inner.metrics), &inner.limits),
        started: Instant::now(),
        slot: None,
        space: None,
        queries: Queries::new(),
        live: Live::Off,
        fresh: Vec::new(),
        lag: Lag::default(),
        transfer: Transfer::default(),
        ended: false,
        asking_back: None,
        changes,
        changes_seen,
        in_use,
        inner,
    };
    serve.run().instrument(span).await;
}

struct Serve {
    inner: Arc<Inner>,
    in_use: InUse,
    peer: EndpointId,
    /// Who the peer was when it asked.
    standing: Standing,
    clock: Clock,
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
    transfer: Transfer,
    /// Whether the peer has ended its stream.
    ended: bool,
    /// The pull in turn, while a live request goes on.
    asking_back: Option<AbortOnDropHandle<()>>,
    /// Whether access may have changed since the policy was last asked.
    changes: Changes,
    changes_seen: u64,
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
    Signed(Result<Option<Signature>, StoreError>),
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
    #[error("an invite that is not taken here")]
    NotRedeemed,
    #[error(transparent)]
    Fork(#[from] SyncError),
    #[error("the node is shutting down")]
    ShuttingDown,
}

impl ServeError {
    fn close_code(&self) -> CloseCode {
        match self {
            Self::Session(error) => error.close_code(),
            Self::Fork(error) => error.close_code(),
            Self::Store(_) | Self::Encode(_) | Self::Panicked => CloseCode::Internal,
            Self::Disconnected => CloseCode::Done,
            Self::WriteStalled { .. } => CloseCode::TimedOut,
            Self::Busy => CloseCode::Busy,
            Self::Revoked | Self::NotRedeemed => CloseCode::Refused,
            Self::ShuttingDown => CloseCode::ShuttingDown,
        }
    }

    fn blame(&self) -> Blame {
        match self {
            Self::Session(error) => error.blame(),
            Self::Fork(error) => error.blame(),
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
        match busy::admit(&inner, self.peer, self.standing).await {
            Ok(slot) => self.slot = Some(slot),
            Err(retry_after) => {
                metrics.refused_busy.inc();
                debug!(?retry_after, "busy");
                busy::refuse(&inner, &mut self.reader, &mut self.writer, retry_after).await;
                self.reader.stop(CloseCode::Busy);
                return;
            }
        }
        let running = Running::count(&metrics.serves_running);
        let end = self.drive().await;
        drop(running);
        let cost = self.writer.sent() / conduct::BYTES;
        inner.conduct.charge(self.peer, cost);
        match end {
            Ok(None) => self.writer.finish(),
            Ok(Some(end)) => {
                debug!(events = end.served.events, outcome = ?end.outcome, "served");
                // Before the stream ends: the peer takes that for leave to ask again.
                let unsettled = self.unsettled();
                if self.asks_back(end.requester_ahead) {
                    // The requester waits for the end of the stream, and so for this.
                    self.ask_back().await;
                }
                self.writer.finish();
                self.settle(unsettled).await;
            }
            Err(error) => {
                let unsettled = self.unsettled();
                self.abandon(&error);
                self.settle(unsettled).await;
            }
        }
    }

    /// Gives the place back, unless a stranger may have left QUIC with much that was sent.
    fn unsettled(&mut self) -> Option<Slot> {
        let is_much = self.writer.sent() > SETTLED_BYTES;
        let slot = self.slot.take();
        slot.filter(|_| is_much && self.standing == Standing::Stranger)
    }

    async fn settle(&mut self, unsettled: Option<Slot>) {
        if let Some(slot) = unsettled {
            let connection = &self.in_use.link.connection;
            settle(&self.inner, connection, &self.writer, slot).await;
        }
    }

    /// Serves the request to its end; `None` if it was for something else than a sync.
    async fn drive(&mut self) -> Result<Option<ServeEnd>, ServeError> {
        loop {
            if let Some(end) = self.take_outputs()? {
                let is_history = matches!(self.live, Live::Off | Live::History(_));
                if is_history {
                    self.inner.metrics.serves_completed.inc();
                }
                self.flush().await?;
                if is_history {
                    self.inner.note_sync(&self.in_use.link.connection);
                }
                return Ok(Some(end));
            }
            if self.session.wants_message()
                && let Some(message) = self.reader.next_message().map_err(SessionError::from)?
            {
                if let (Message::Redeem(redeem), None) = (&message, self.space) {
                    let redeemed = redeem::answer(&self.inner, self.peer, redeem).await;
                    let redeemed = redeemed.ok_or(ServeError::NotRedeemed)?;
                    self.writer.push(&redeemed.into())?;
                    self.flush().await?;
                    return Ok(None);
                }
                if let (Message::ForkLocator(locator), None) = (&message, self.space) {
                    let log = fork::Log {
                        peer: self.peer,
                        space: locator.space,
                        author: locator.author,
                        is_asked: true,
                    };
                    self.answer_fork(log, message).await?;
                    return Ok(None);
                }
                if let Message::HeadsChunk(chunk) = &message {
                    self.admit_chunk(chunk).await?;
                }
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

    /// Waits until a chunk of the clock may be looked at, and not for long.
    async fn admit_chunk(&mut self, chunk: &HeadsChunk) -> Result<(), ServeError> {
        let (inner, peer, standing) = (&self.inner, self.peer, self.standing);
        tokio::select! {
            admitted = self.clock.admit(inner, peer, standing, chunk) => {
                admitted.then_some(()).ok_or(ServeError::Busy)
            }
            () = inner.lost(self.slot.as_ref()) => Err(ServeError::Busy),
            () = inner.closing() => Err(ServeError::ShuttingDown),
        }
    }

    /// Compares one log with the peer's, for as long as it may read the space.
    async fn answer_fork(&mut self, log: fork::Log, locator: Message) -> Result<(), ServeError> {
        let space = log.space;
        self.space = Some(space);
        let (changes, mut seen) = (self.changes.clone(), self.changes_seen);
        let (inner, peer, link) = (&self.inner, self.peer, &self.in_use.link);
        let lost_access = async {
            loop {
                let inner = Arc::clone(inner);
                let asked = access_change(changes.clone(), seen, inner, peer, Some(space));
                match asked.await {
                    (times, true) => seen = times,
                    (_, false) => return,
                }
            }
        };
        let (reader, writer) = (&mut self.reader, &mut self.writer);
        let moved_on = || link.moved_on(space);
        let answered = fork::answer(inner, log, locator, reader, writer, moved_on);
        let end = tokio::select! {
            end = answered => end?,
            () = lost_access => return Err(ServeError::Revoked),
            () = inner.lost(self.slot.as_ref()) => return Err(ServeError::Busy),
        };
        debug!(
            fork = end.fork,
            rounds = end.rounds,
            "compared a log that forks"
        );
        Ok(())
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
                ResponderOutput::Sign(facts) => self.sign(facts),
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
        let (reader, writer) = (&self.reader, &self.writer);
        if self
            .transfer
            .is_progress(reader, writer, &self.inner.limits)
        {
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
        let wants = self.session.wants_message() && !self.ended;
        let has_room = self.has_room();
        let changed = self.access_change();
        let (reader, writer) = (&mut self.reader, &mut self.writer);
        let moved = exchange::step(reader, writer, &self.inner.limits, wants, true);
        tokio::select! {
            moved = moved => match moved {
                Ok(Moved::Bytes) => {}
                Ok(Moved::End) => {
                    self.ended = true;
                    self.session.handle_stream_end()?;
                }
                Err(broken) => return Err(self.broken(broken)),
            },
            answer = self.queries.next() => self.take_answer(answer?)?,
            may_read = live_change(&self.live, &self.inner, self.peer, self.space), if has_room => {
                if !may_read {
                    return Err(ServeError::Revoked);
                }
                self.take_live()?;
            }
            changed = changed => self.take_access(changed)?,
            () = at(deadline) => self.session.handle_timeout(self.started.elapsed())?,
            () = self.inner.lost(self.slot.as_ref()) => return Err(ServeError::Busy),
            () = self.inner.closing() => return Err(ServeError::ShuttingDown),
        }
        Ok(())
    }

    fn broken(&mut self, broken: Broken) -> ServeError {
        match broken {
            Broken::Reset(code) | Broken::Deaf(code) => self.session.handle_reset(code).into(),
            Broken::Cut => SessionError::StreamEnded {
                phase: "in mid frame",
            }
            .into(),
            Broken::Lost(_) | Broken::Closed => ServeError::Disconnected,
            Broken::Stalled { after } => ServeError::WriteStalled { after },
        }
    }

    fn take_answer(&mut self, answer: Answer) -> Result<(), ServeError> {
        let now = self.started.elapsed();
        match answer {
            Answer::Opened(summary) => {
                self.session.handle_opened(summary?, now)?;
            }
            Answer::Head(head) => self.session.handle_owner_head(head?, now)?,
            Answer::Heads(page) => self.session.handle_heads(page?, now)?,
            Answer::Tails(checks) => self.session.handle_tails(checks?, now)?,
            Answer::Runs(runs) => self.session.handle_runs(runs?, now)?,
            Answer::Signed(signature) => self.session.handle_signed(signature?, now)?,
        }
        Ok(())
    }

    /// Waits until access may have changed, and asks whether the peer still has it. Safe to
    /// cancel.
    fn access_change(&self) -> impl Future<Output = (u64, bool)> + use<> {
        let (changes, seen) = (self.changes.clone(), self.changes_seen);
        access_change(
            changes,
            seen,
            Arc::clone(&self.inner),
            self.peer,
            self.space,
        )
    }

    fn take_access(&mut self, (times, may_read): (u64, bool)) -> Result<(), ServeError> {
        self.changes_seen = times;
        if may_read {
            Ok(())
        } else {
            Err(ServeError::Revoked)
        }
    }

    fn open(&mut self, space: SpaceId, live: bool) {
        self.space = Some(space);
        if live {
            // Before the summary is read, so that nothing falls between history and live.
            self.live = Live::History(self.inner.hub.watch_for(space, self.peer));
        }
        let inner = Arc::clone(&self.inner);
        let peer = self.peer;
        let opening = async move { Answer::Opened(open_space(&inner, peer, space).await) };
        self.queries.ask_async(opening);
    }

    fn ask(&mut self, query: impl FnOnce(&dyn LogStore, &SpaceId) -> Answer + Send + 'static) {
        let Some(space) = self.space else {
            return;
        };
        let store = Arc::clone(&self.inner.store);
        self.queries.ask(move || query(&*store, &space));
    }

    /// Signs what was answered, if the space is still as it was when the request came.
    fn sign(&mut self, facts: ReceiptFacts) {
        let key = self.inner.receipt_key.clone();
        self.ask(move |store, space| {
            let signed = store.summary(space).map(|now| {
                let unmoved = now.is_some_and(|now| now.generation == facts.generation);
                let key = key.filter(|_| unmoved)?;
                Some(Receipt::sign(&key, facts).signature)
            });
            Answer::Signed(signed)
        });
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
                self.inner.note_sync(&self.in_use.link.connection);
                let standing = self.inner.standing(self.peer);
                let slot = self.inner.live_serves.try_take(self.peer, standing);
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
        // A log that is cut lower once more is left out from here on: that it forks is known, and the
        // digest says the rest. Else its author could end every stream for each event they signed.
        if watcher.take_cuts().iter().any(|cut| !cut.again) {
            // A live part cannot say it. The reader syncs again, and that sync does.
            debug!("an author forked: the live part ends");
            self.live = Live::Reading(watcher);
            return Ok(self.session.handle_stream_end()?);
        }
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
        let total = self.inner.limits.session.total;
        let since = match self.live {
            Live::Off | Live::History(_) => self.started,
            Live::Awaited(_) | Live::Reading(_) => Instant::now(),
        };
        let over_at = since.checked_add(total);
        while self.writer.queued() > 0 {
            let changed = self.access_change();
            let (reader, writer) = (&mut self.reader, &mut self.writer);
            let moved = exchange::step(reader, writer, &self.inner.limits, false, true);
            tokio::select! {
                moved = moved => {
                    moved.map_err(|broken| self.broken(broken))?;
                }
                changed = changed => self.take_access(changed)?,
                () = at(over_at) => {
                    let wait = Wait::Completion;
                    return Err(SessionError::TimedOut { wait, after: total }.into());
                }
                () = self.inner.lost(self.slot.as_ref()) => return Err(ServeError::Busy),
                () = self.inner.closing() => return Err(ServeError::ShuttingDown),
            }
        }
        Ok(())
    }

    /// Whoever is asked by somebody that holds more asks back, whichever end dialled.
    fn asks_back(&self, requester_ahead: bool) -> bool {
        self.inner.ask_back && requester_ahead && self.asking_back.is_none()
    }

    /// Pulls from a requester that holds more. What is held here shows in the request, so not from
    /// one who may not read it any more.
    fn ask_back(&self) -> impl Future<Output = ()> + Send + use<> {
        let (inner, in_use, space) = (Arc::clone(&self.inner), self.in_use.link.hold(), self.space);
        let peer = self.peer;
        async move {
            if let Some(space) = space
                && inner.policy.may_read(peer, space).await
            {
                let span = info_span!("ask_back", space = %space.fmt_short());
                pull::ask_back(inner, &in_use, space).instrument(span).await;
            }
        }
    }

    /// Tells the peer why, and ends what the code says is to end.
    fn abandon(&mut self, error: &ServeError) {
        self.inner.metrics.serves_failed.inc();
        let is_peers = error.blame() == Blame::Peer;
        if is_peers {
            warn!(%error, "not served");
        } else {
            debug!(%error, "not served");
        }
        let code = error.close_code();
        self.end_streams(code);
        if let ServeError::Session(SessionError::TooManyAuthors { .. }) = error {
            self.inner.conduct.note_oversized(self.peer);
        }
        let broke_protocol = matches!(
            error,
            ServeError::Session(_) | ServeError::Fork(SyncError::Session(_))
        );
        if broke_protocol && code.is_connection_wide() {
            self.inner.connections.withdraw(&self.in_use.link);
            close(&self.in_use.link.connection, code);
            self.inner.note_fault(self.peer);
        } else if is_peers {
            self.inner.metrics.peer_faults.inc();
        }
    }

    fn end_streams(&mut self, code: CloseCode) {
        self.reader.stop(code);
        self.writer.reset(code);
    }
}

/// Waits until there were other changes than so many, and asks about the peer. Safe to cancel.
async fn access_change(
    changes: Changes,
    seen: u64,
    inner: Arc<Inner>,
    peer: EndpointId,
    space: Option<SpaceId>,
) -> (u64, bool) {
    let Some(space) = space else {
        return std::future::pending().await;
    };
    let times = changes.other_than(seen).await;
    (times, inner.policy.may_read(peer, space).await)
}

/// Asks the policy, then the store. An unknown space and a refused one take the same way, down to a
/// look-up of a space that is not held.
pub(crate) async fn open_space(
    inner: &Inner,
    peer: EndpointId,
    space: SpaceId,
) -> Result<Option<SpaceSummary>, StoreError> {
    let may_read = inner.policy.may_read(peer, space).await;
    let store = Arc::clone(&inner.store);
    let asked = if may_read { space } else { NO_SPACE };
    let summary = blocking(move || store.summary(&asked)).await;
    if let Ok(None) = &summary {
        inner.metrics.serves_refused.inc();
        inner.conduct.charge(peer, conduct::REFUSAL.into());
    }
    summary
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
