//! Forks between two nodes: drives a [`ForkAsker`] or a [`ForkAnswerer`] between a stream and the
//! store.
//!
//! ```text
//! pull ─▶ authors left out ─▶ Repairs ─▶ a stream each ─▶ asker ─▶ questions ─▶ store, writer
//!                                                                  ◀─ answers ─┘
//! a stream that begins with a locator ─▶ serve ─▶ answerer ─▶ the same
//! ```
//!
//! Invariant: every proof goes through the one writer, and is verified before.

mod questions;
mod repairs;

use std::{sync::Arc, time::Duration};

use headwater_proto::{
    SessionError,
    fork::{ForkAnswerer, ForkAsker, ForkEnd, ForkOutput},
};
use headwater_wire::Message;
use n0_future::time::Instant;

use crate::{
    blocking::Queries,
    exchange::{self, Broken, Moved, Transfer},
    frames::{FrameReader, FrameWriter},
    node::Inner,
    pull::at,
    sync::SyncError,
};
use questions::Answer;
pub(crate) use questions::Log;
pub(crate) use repairs::Repairs;

/// The two ends of a stream that speaks of one author.
#[derive(Debug)]
enum Session {
    Asker(Box<ForkAsker>),
    Answerer(Box<ForkAnswerer>),
}

/// Answers a peer whose first message is a locator. `moved_on` hears that there is somebody at work.
pub(crate) async fn answer(
    inner: &Arc<Inner>,
    log: Log,
    locator: Message,
    reader: &mut FrameReader,
    writer: &mut FrameWriter,
    moved_on: impl Fn() + Send,
) -> Result<ForkEnd, SyncError> {
    let mut session = ForkAnswerer::new(inner.limits.session.clone(), Duration::ZERO);
    session.handle_message(locator, Duration::ZERO)?;
    let session = Session::Answerer(Box::new(session));
    drive(inner, log, session, reader, writer, moved_on).await
}

/// Carries a session to its end, and sends all it had to say.
async fn drive(
    inner: &Arc<Inner>,
    log: Log,
    mut session: Session,
    reader: &mut FrameReader,
    writer: &mut FrameWriter,
    moved_on: impl Fn() + Send,
) -> Result<ForkEnd, SyncError> {
    let started = Instant::now();
    let limits = &inner.limits;
    let mut questions = Queries::new();
    let mut transfer = Transfer::default();
    let mut ended = false;
    loop {
        // No more is read from the store than a peer that reads slowly takes.
        while writer.queued() < limits.send_buffer_bytes
            && let Some(output) = session.poll_output()
        {
            match output {
                ForkOutput::Send(message) => writer.push(&message)?,
                ForkOutput::Finished(end) => {
                    // Before the stream ends, and within its time.
                    let over_at = started.checked_add(limits.session.total);
                    tokio::select! {
                        flushed = exchange::flush(reader, writer, limits) => {
                            flushed.map_err(|broken| session.broken(broken))?;
                        }
                        () = at(over_at) => return Err(session.timed_out(started)),
                        () = inner.closing() => return Err(SyncError::ShuttingDown),
                    }
                    writer.finish();
                    return Ok(end);
                }
                question => questions.ask_async(log.clone().ask(Arc::clone(inner), question)),
            }
        }
        if session.wants_message()
            && let Some(message) = reader.next_message().map_err(SessionError::from)?
        {
            session.handle_message(message, started.elapsed())?;
            continue;
        }
        let deadline = session.next_timeout();
        let deadline = deadline.and_then(|after| started.checked_add(after));
        let may_receive = session.wants_message() && !ended;
        tokio::select! {
            moved = exchange::step(reader, writer, limits, may_receive, true) => match moved {
                Ok(Moved::Bytes) => {}
                Ok(Moved::End) => {
                    ended = true;
                    session.handle_stream_end()?;
                }
                Err(broken) => return Err(session.broken(broken)),
            },
            answer = questions.next() => {
                let answer = answer.map_err(SyncError::from)??;
                session.take_answer(answer, started.elapsed())?;
            }
            () = at(deadline) => session.handle_timeout(started.elapsed())?,
            () = inner.closing() => return Err(SyncError::ShuttingDown),
        }
        if transfer.is_progress(reader, writer, limits) {
            session.handle_transfer(started.elapsed());
        }
        moved_on();
    }
}

impl Session {
    fn poll_output(&mut self) -> Option<ForkOutput> {
        match self {
            Self::Asker(asker) => asker.poll_output(),
            Self::Answerer(answerer) => answerer.poll_output(),
        }
    }

    fn wants_message(&self) -> bool {
        match self {
            Self::Asker(asker) => asker.wants_message(),
            Self::Answerer(answerer) => answerer.wants_message(),
        }
    }

    fn next_timeout(&self) -> Option<Duration> {
        match self {
            Self::Asker(asker) => asker.next_timeout(),
            Self::Answerer(answerer) => answerer.next_timeout(),
        }
    }

    fn handle_message(&mut self, message: Message, now: Duration) -> Result<(), SessionError> {
        match self {
            Self::Asker(asker) => asker.handle_message(message, now),
            Self::Answerer(answerer) => answerer.handle_message(message, now),
        }
    }

    fn handle_timeout(&mut self, now: Duration) -> Result<(), SessionError> {
        match self {
            Self::Asker(asker) => asker.handle_timeout(now),
            Self::Answerer(answerer) => answerer.handle_timeout(now),
        }
    }

    fn handle_transfer(&mut self, now: Duration) {
        match self {
            Self::Asker(asker) => asker.handle_transfer(now),
            Self::Answerer(answerer) => answerer.handle_transfer(now),
        }
    }

    fn handle_stream_end(&mut self) -> Result<(), SessionError> {
        match self {
            Self::Asker(asker) => asker.handle_stream_end(),
            Self::Answerer(answerer) => answerer.handle_stream_end(),
        }
    }

    fn handle_reset(&mut self, code: u64) -> SessionError {
        match self {
            Self::Asker(asker) => asker.handle_reset(code),
            Self::Answerer(answerer) => answerer.handle_reset(code),
        }
    }

    fn broken(&mut self, broken: Broken) -> SyncError {
        match broken {
            Broken::Reset(code) | Broken::Deaf(code) => self.handle_reset(code).into(),
            Broken::Cut => cut_short("in mid frame"),
            Broken::Closed => cut_short("closed"),
            Broken::Lost(error) => error.into(),
            Broken::Stalled { after } => SyncError::WriteStalled { after },
        }
    }

    fn timed_out(&mut self, started: Instant) -> SyncError {
        let after = started.elapsed();
        let wait = headwater_proto::Wait::Completion;
        SessionError::TimedOut { wait, after }.into()
    }

    /// Takes the answer to the one question that is open.
    fn take_answer(&mut self, answer: Answer, now: Duration) -> Result<(), SessionError> {
        match self {
            Self::Asker(asker) => match answer {
                Answer::Log(log) => asker.handle_log(log),
                Answer::Chain(chain) => asker.handle_chain(&chain),
                Answer::Branch(run) => asker.handle_branch(run),
                Answer::Verified(verified) => asker.handle_verified(*verified, now),
                Answer::Cut(log) => asker.handle_cut(log, now),
                Answer::Evidence(runs) => asker.handle_evidence(runs, now),
                Answer::Absorbed => asker.handle_absorbed(now),
                Answer::Applied(applied) => asker.handle_applied(&applied, now),
                Answer::InvalidRun(error) => Err(asker.handle_invalid_run(error)),
                Answer::Opened(_) => Err(unasked("Open")),
                Answer::Runs(_) => Err(unasked("ReadRuns")),
            },
            Self::Answerer(answerer) => match answer {
                Answer::Opened(summary) => answerer.handle_opened(summary, now),
                Answer::Log(log) => answerer.handle_log(log, now),
                Answer::Chain(chain) => answerer.handle_chain(&chain, now),
                Answer::Branch(run) => answerer.handle_branch(run, now),
                Answer::Verified(verified) => answerer.handle_verified(*verified, now),
                Answer::Cut(log) => answerer.handle_cut(log, now),
                Answer::Evidence(runs) => answerer.handle_evidence(runs, now),
                Answer::Absorbed => answerer.handle_absorbed(now),
                Answer::InvalidRun(error) => Err(answerer.handle_invalid_run(error)),
                Answer::Runs(runs) => answerer.handle_runs(runs, now),
                Answer::Applied(_) => Err(unasked("Apply")),
            },
        }
    }
}

fn cut_short(phase: &'static str) -> SyncError {
    SessionError::StreamEnded { phase }.into()
}

fn unasked(question: &'static str) -> SessionError {
    SessionError::StoreAnswer { question }
}
