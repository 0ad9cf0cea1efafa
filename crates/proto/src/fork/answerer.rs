//! The side that is asked.

use core::time::Duration;

use headwater_wire::{
    AuthorHead, ForkAnswer, ForkBranch, ForkLocator, ForkProof, ForkProofError, ForkWant, Message,
    Revoked, Run, RunError, SyncBatchV2, VerifiedForkProof, limits::MAX_BATCH_RUNS,
};

use super::{
    ForkLog, ForkOutput, MAX_FORK_ROUNDS,
    halves::{Halves, Told},
    revoked::{Receiving, Sending, Sent},
    search::Search,
    side::{Side, unfit},
};
use crate::{
    SessionError, SessionLimits, SpaceSummary, StoredRun, TailWant, Wait, deadline::Deadlines,
    error::reset_reason, responder::check_run,
};

#[derive(Debug)]
enum Phase {
    AwaitFirst,
    Opening(ForkLocator),
    ReadingLog(ForkLocator),
    ReadingChain(ForkLocator),
    AwaitLocator,
    /// The two chains part here.
    AwaitBranch(u64),
    ReadingBranch(u64, Box<Run>),
    Verifying(u64, Origin),
    Cutting(Origin),
    AwaitProof(Box<Halves>),
    /// Whether what lies below the cut was served: it is wanted once at most, and before.
    AwaitRevoked(bool),
    /// Behind what the asker holds.
    AwaitEvidence(Receiving, Revoked),
    /// Whether more of it follows.
    Absorbing(Receiving, Revoked, bool),
    SendingEvidence(Sending),
    AwaitWant,
    ReadingRuns(TailWant),
    Ended,
}

/// Where a proof comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Origin {
    /// The two runs from where the chains part.
    Branches,
    /// The peer, which held it.
    Peer,
}

impl Phase {
    fn name(&self) -> &'static str {
        match self {
            Self::AwaitFirst | Self::AwaitLocator => "awaiting a locator",
            Self::Opening(_) => "opening the space",
            Self::ReadingLog(_) | Self::ReadingChain(_) => "looking up its log",
            Self::AwaitBranch(_) => "awaiting a branch",
            Self::ReadingBranch(..) => "reading its branch",
            Self::Verifying(..) | Self::Cutting(_) => "taking in a proof",
            Self::AwaitProof(_) => "awaiting a proof",
            Self::AwaitRevoked(_) => "awaiting what is revoked",
            Self::AwaitEvidence(..) => "awaiting what shows it",
            Self::Absorbing(..) => "taking in what is revoked",
            Self::SendingEvidence(_) => "showing what is revoked",
            Self::AwaitWant => "awaiting what is wanted",
            Self::ReadingRuns(_) => "serving what lies below the cut",
            Self::Ended => "over",
        }
    }
}

/// Compares its log of one author with an asker's, proves a fork to both if there is one, and
/// serves what lies below it.
///
/// After an error it is over. What was cut before stays.
#[derive(Debug)]
pub struct ForkAnswerer {
    limits: SessionLimits,
    side: Option<Side>,
    search: Search,
    phase: Phase,
    /// The asker has ended its stream.
    peer_ended: bool,
    deadlines: Deadlines,
}

impl ForkAnswerer {
    /// Waits for the first locator on a stream a peer has opened.
    #[must_use]
    pub fn new(limits: SessionLimits, now: Duration) -> Self {
        Self {
            deadlines: Deadlines::new(&limits, Wait::Request, now),
            limits,
            side: None,
            search: Search::default(),
            phase: Phase::AwaitFirst,
            peer_ended: false,
        }
    }

    /// The next thing to do, if any. Drain it after every input.
    pub fn poll_output(&mut self) -> Option<ForkOutput> {
        self.side.as_mut()?.outputs.pop_front()
    }

    /// Whether to read the next message from the peer.
    #[must_use]
    pub fn wants_message(&self) -> bool {
        matches!(
            self.phase,
            Phase::AwaitFirst
                | Phase::AwaitLocator
                | Phase::AwaitBranch(_)
                | Phase::AwaitProof(_)
                | Phase::AwaitRevoked(_)
                | Phase::AwaitEvidence(..)
                | Phase::AwaitWant
        )
    }

    /// When to call [`ForkAnswerer::handle_timeout`], if nothing else happens before. It counts
    /// while a message waits to be sent, too.
    #[must_use]
    pub fn next_timeout(&self) -> Option<Duration> {
        match self.phase {
            Phase::Ended => None,
            _ => self.deadlines.next(true),
        }
    }

    /// Takes the peer's next message. To be called only while [`ForkAnswerer::wants_message`].
    ///
    /// # Errors
    ///
    /// Every break of the protocol is an error of its own, and ends it all.
    pub fn handle_message(&mut self, message: Message, now: Duration) -> Result<(), SessionError> {
        let result = self.take_message(message, now);
        self.end_on_error(result)
    }

    /// Takes the answer to [`ForkOutput::Open`]: `None` if the space is unknown or the peer may not
    /// read it, which are answered alike.
    ///
    /// # Errors
    ///
    /// [`SessionError::NotServed`] for `None`: reset the stream with its code.
    pub fn handle_opened(
        &mut self,
        summary: Option<SpaceSummary>,
        now: Duration,
    ) -> Result<(), SessionError> {
        let result = self.step("Open", now, |phase, side, _| {
            let Phase::Opening(locator) = phase else {
                return Err(unfit("Open"));
            };
            let summary = summary.ok_or(SessionError::NotServed)?;
            if summary.space != locator.space {
                return Err(unfit("Open"));
            }
            side.push(ForkOutput::ReadLog(side.author));
            Ok(Phase::ReadingLog(locator))
        });
        self.end_on_error(result)
    }

    /// Takes how the log stands, as asked for by [`ForkOutput::ReadLog`].
    ///
    /// # Errors
    ///
    /// [`SessionError::StoreAnswer`] if it was not asked for.
    pub fn handle_log(&mut self, log: ForkLog, now: Duration) -> Result<(), SessionError> {
        let result = self.step("ReadLog", now, |phase, side, search| {
            let Phase::ReadingLog(locator) = phase else {
                return Err(unfit("ReadLog"));
            };
            side.begin(log);
            compare(locator, side, search)
        });
        self.end_on_error(result)
    }

    /// Takes ids of the stored chain, as asked for by [`ForkOutput::ReadChain`].
    ///
    /// # Errors
    ///
    /// [`SessionError::StoreAnswer`] if they do not answer the question.
    pub fn handle_chain(
        &mut self,
        chain: &[Option<AuthorHead>],
        now: Duration,
    ) -> Result<(), SessionError> {
        let result = self.step("ReadChain", now, |phase, side, search| {
            let Phase::ReadingChain(locator) = phase else {
                return Err(unfit("ReadChain"));
            };
            answer(&locator.entries, chain, side, search)
        });
        self.end_on_error(result)
    }

    /// Takes our run, as asked for by [`ForkOutput::ReadBranch`].
    ///
    /// # Errors
    ///
    /// [`SessionError::StoreAnswer`] if it does not answer the question.
    pub fn handle_branch(&mut self, run: Option<Run>, now: Duration) -> Result<(), SessionError> {
        let result = self.step("ReadBranch", now, |phase, side, _| {
            let Phase::ReadingBranch(seq, theirs) = phase else {
                return Err(unfit("ReadBranch"));
            };
            let own = side.send_own(run, seq)?;
            let seq = side.verify(seq, ForkProof::new(own, *theirs));
            Ok(Phase::Verifying(seq, Origin::Branches))
        });
        self.end_on_error(result)
    }

    /// Takes the result of [`ForkOutput::Verify`].
    ///
    /// # Errors
    ///
    /// [`SessionError::InvalidForkProof`] if the peer sent what proves nothing.
    pub fn handle_verified(
        &mut self,
        verified: Result<VerifiedForkProof, ForkProofError>,
        now: Duration,
    ) -> Result<(), SessionError> {
        let result = self.step("Verify", now, |phase, side, _| {
            let Phase::Verifying(seq, origin) = phase else {
                return Err(unfit("Verify"));
            };
            side.cut(seq, verified)?;
            Ok(Phase::Cutting(origin))
        });
        self.end_on_error(result)
    }

    /// Takes the log as it stands after [`ForkOutput::Cut`].
    ///
    /// # Errors
    ///
    /// [`SessionError::StoreAnswer`] if it was not asked for.
    pub fn handle_cut(&mut self, log: ForkLog, now: Duration) -> Result<(), SessionError> {
        let result = self.step("Cut", now, |phase, side, _| {
            let Phase::Cutting(origin) = phase else {
                return Err(unfit("Cut"));
            };
            side.log = log;
            match origin {
                Origin::Branches => Ok(Phase::AwaitProof(Box::default())),
                Origin::Peer => Ok(tell(side)),
            }
        });
        let result = result.and_then(|()| self.after_peer_end());
        self.end_on_error(result)
    }

    /// Takes the news that an [`ForkOutput::Absorb`] is done.
    ///
    /// # Errors
    ///
    /// [`SessionError::StoreAnswer`] if it was not asked for.
    pub fn handle_absorbed(&mut self, now: Duration) -> Result<(), SessionError> {
        let result = self.step("Absorb", now, |phase, side, _| match phase {
            Phase::Absorbing(receiving, theirs, true) => {
                Ok(Phase::AwaitEvidence(receiving, theirs))
            }
            Phase::Absorbing(_, theirs, false) => {
                Ok(send_evidence(Sending::to(&theirs, side), side))
            }
            _ => Err(unfit("Absorb")),
        });
        self.end_on_error(result)
    }

    /// Takes evidence, as asked for by [`ForkOutput::ReadEvidence`].
    ///
    /// # Errors
    ///
    /// [`SessionError::StoreAnswer`] if it was not asked for.
    pub fn handle_evidence(&mut self, runs: Vec<Run>, now: Duration) -> Result<(), SessionError> {
        let batch_bytes = self.limits.batch();
        let result = self.step("ReadEvidence", now, |phase, side, _| {
            let Phase::SendingEvidence(mut sending) = phase else {
                return Err(unfit("ReadEvidence"));
            };
            sending.send(runs, batch_bytes, side);
            Ok(send_evidence(sending, side))
        });
        self.end_on_error(result)
    }

    /// Takes the news that a run of an [`ForkOutput::Absorb`] is invalid. It is over.
    pub fn handle_invalid_run(&mut self, error: RunError) -> SessionError {
        self.end();
        SessionError::InvalidRun(error)
    }

    /// Takes stored runs, as asked for by [`ForkOutput::ReadRuns`].
    ///
    /// # Errors
    ///
    /// [`SessionError::StoreAnswer`] if they do not answer the want.
    pub fn handle_runs(&mut self, runs: Vec<StoredRun>, now: Duration) -> Result<(), SessionError> {
        let batch_bytes = self.limits.batch();
        let result = self.step("ReadRuns", now, |phase, side, _| {
            let Phase::ReadingRuns(want) = phase else {
                return Err(unfit("ReadRuns"));
            };
            serve(want, runs, batch_bytes, side)
        });
        let result = result.and_then(|()| self.after_peer_end());
        self.end_on_error(result)
    }

    /// Takes the news that the stream has moved enough bytes to count as progress.
    pub fn handle_transfer(&mut self, now: Duration) {
        self.deadlines.transfer(now);
    }

    /// Takes the news that time has passed.
    ///
    /// # Errors
    ///
    /// [`SessionError::TimedOut`] if a wait is over.
    pub fn handle_timeout(&mut self, now: Duration) -> Result<(), SessionError> {
        if self.next_timeout().is_none() {
            return Ok(());
        }
        let result = self.deadlines.check(true, now);
        self.end_on_error(result)
    }

    /// Takes the end of the peer's stream: a normal end once proofs are exchanged.
    ///
    /// # Errors
    ///
    /// [`SessionError::StreamEnded`] if the peer had more to say.
    pub fn handle_stream_end(&mut self) -> Result<(), SessionError> {
        self.peer_ended = true;
        let result = self.after_peer_end();
        self.end_on_error(result)
    }

    /// Takes the peer's reset of its stream, or its refusal to read, and names the reason.
    pub fn handle_reset(&mut self, code: u64) -> SessionError {
        self.end();
        reset_reason(code)
    }

    fn end(&mut self) {
        self.phase = Phase::Ended;
        if let Some(side) = &mut self.side {
            side.outputs.clear();
        }
    }

    fn end_on_error(&mut self, result: Result<(), SessionError>) -> Result<(), SessionError> {
        if result.is_err() {
            self.end();
        }
        result
    }

    /// What the end of the peer's stream means in this phase.
    fn after_peer_end(&mut self) -> Result<(), SessionError> {
        if !self.peer_ended {
            return Ok(());
        }
        match (&self.phase, &mut self.side) {
            (Phase::AwaitWant, Some(side)) => {
                side.finish();
                self.phase = Phase::Ended;
                Ok(())
            }
            // It has said all it had to, and need not wait for an answer.
            (
                Phase::Verifying(_, Origin::Peer)
                | Phase::Cutting(Origin::Peer)
                | Phase::ReadingRuns(_)
                | Phase::Ended,
                _,
            ) => Ok(()),
            (early, _) => Err(SessionError::StreamEnded {
                phase: early.name(),
            }),
        }
    }

    /// Moves from one phase to the next by an answer of the store.
    fn step(
        &mut self,
        question: &'static str,
        now: Duration,
        step: impl FnOnce(Phase, &mut Side, &mut Search) -> Result<Phase, SessionError>,
    ) -> Result<(), SessionError> {
        self.deadlines.progress(now);
        let side = self.side.as_mut().ok_or(unfit(question))?;
        let phase = core::mem::replace(&mut self.phase, Phase::Ended);
        self.phase = step(phase, side, &mut self.search)?;
        Ok(())
    }

    fn take_message(&mut self, message: Message, now: Duration) -> Result<(), SessionError> {
        if !self.wants_message() {
            return Err(SessionError::NotReady);
        }
        if let Some(side) = &self.side {
            side.check_request(&message)?;
        }
        let phase = core::mem::replace(&mut self.phase, Phase::Ended);
        let batch_bytes = self.limits.batch();
        self.deadlines.progress(now);
        self.phase = match (phase, message, &mut self.side) {
            (Phase::AwaitFirst, Message::ForkLocator(locator), side) => {
                let mut new = Side::new(locator.request_id, locator.space, locator.author);
                new.push(ForkOutput::Open(locator.space));
                *side = Some(new);
                Phase::Opening(locator)
            }
            (Phase::AwaitLocator, Message::ForkLocator(locator), Some(side)) => {
                compare(locator, side, &self.search)?
            }
            (Phase::AwaitBranch(seq), Message::ForkBranch(branch), Some(side)) => {
                take_branch(seq, branch, side)?
            }
            (Phase::AwaitProof(mut halves), Message::ForkBranch(branch), Some(side)) => {
                let told = halves.take(branch.run, side.author, side.peer_forked)?;
                match told {
                    Told::More => Phase::AwaitProof(halves),
                    Told::Proof(told) if side.is_news(&told) => {
                        Phase::Verifying(side.verify(told.seq, told.proof), Origin::Peer)
                    }
                    Told::Nothing | Told::Proof(_) => tell(side),
                }
            }
            (Phase::AwaitRevoked(_), Message::ForkRevoked(theirs), Some(_)) => {
                let theirs = theirs.held.into_iter().collect();
                Phase::AwaitEvidence(Receiving::default(), theirs)
            }
            (Phase::AwaitEvidence(receiving, theirs), Message::SyncBatchV2(batch), Some(side)) => {
                let max_bytes = self.limits.max_unapplied_bytes;
                take_evidence(receiving, theirs, batch, max_bytes, side)?
            }
            (
                Phase::AwaitWant | Phase::AwaitRevoked(false),
                Message::ForkWant(want),
                Some(side),
            ) => begin_serving(&want, batch_bytes, side),
            (phase, message, _) => {
                return Err(SessionError::OutOfPhase {
                    message: message.name(),
                    phase: phase.name(),
                });
            }
        };
        Ok(())
    }
}

/// Asks what our chain is where a locator names the asker's.
fn compare(locator: ForkLocator, side: &mut Side, search: &Search) -> Result<Phase, SessionError> {
    if (locator.space, locator.author) != (side.space, side.author) {
        return Err(SessionError::LocatorOfAnotherLog {
            expected: side.author,
            found: locator.author,
        });
    }
    if side.rounds >= MAX_FORK_ROUNDS {
        return Err(SessionError::TooManyForkRounds {
            max: MAX_FORK_ROUNDS,
        });
    }
    let seqs: Vec<u64> = locator.entries.iter().map(|entry| entry.seq).collect();
    if side.rounds > 0 {
        search.may_ask(&seqs)?;
    }
    side.rounds += 1;
    side.peer_forked |= locator.forked;
    side.push(ForkOutput::ReadChain {
        author: side.author,
        seqs,
    });
    Ok(Phase::ReadingChain(locator))
}

/// Says how our chain compares with the locator's entries.
fn answer(
    entries: &[AuthorHead],
    chain: &[Option<AuthorHead>],
    side: &mut Side,
    search: &mut Search,
) -> Result<Phase, SessionError> {
    let pairs = || entries.iter().zip(chain);
    let fits = pairs().all(|(entry, ours)| ours.is_none_or(|ours| ours.seq == entry.seq));
    if chain.len() != entries.len() || !fits {
        return Err(unfit("ReadChain"));
    }
    let same = pairs().rfind(|(entry, ours)| Some(**entry) == **ours);
    let same = same.map_or(0, |(entry, _)| entry.seq);
    let differs = pairs().find(|(entry, ours)| entry.seq > same && ours.is_some());
    let differs = differs.map(|(entry, _)| entry.seq);
    let seqs: Vec<u64> = entries.iter().map(|entry| entry.seq).collect();
    let narrowed = search.narrow(&seqs, same, differs);
    // Only a store that forgets, or links what does not belong together, answers like this.
    narrowed.map_err(|_| unfit("ReadChain"))?;
    side.send(ForkAnswer {
        request_id: side.request_id,
        forked: side.log.fork.is_some(),
        same,
        differs,
    });
    if !search.is_settled() {
        return Ok(Phase::AwaitLocator);
    }
    side.parted_at = search.found();
    Ok(match side.parted_at {
        Some(seq) => Phase::AwaitBranch(seq),
        None => Phase::AwaitProof(Box::default()),
    })
}

fn take_branch(seq: u64, branch: ForkBranch, side: &mut Side) -> Result<Phase, SessionError> {
    let theirs = side.read_theirs(branch, seq)?;
    side.push(ForkOutput::ReadBranch {
        author: side.author,
        seq,
    });
    Ok(Phase::ReadingBranch(seq, Box::new(theirs)))
}

/// Tells what we know now, after the asker has.
fn tell(side: &mut Side) -> Phase {
    side.send_proof();
    if side.log.revoked.is_none() {
        return Phase::AwaitWant;
    }
    side.send_revoked();
    Phase::AwaitRevoked(false)
}

fn take_evidence(
    mut receiving: Receiving,
    theirs: Revoked,
    batch: SyncBatchV2,
    max_bytes: usize,
    side: &mut Side,
) -> Result<Phase, SessionError> {
    let more = batch.more;
    let runs = receiving.take(batch, side.author, max_bytes)?;
    Ok(match (runs.is_empty(), more) {
        (true, true) => Phase::AwaitEvidence(receiving, theirs),
        (true, false) => send_evidence(Sending::to(&theirs, side), side),
        (false, more) => {
            side.push(ForkOutput::Absorb(runs));
            Phase::Absorbing(receiving, theirs, more)
        }
    })
}

/// Shows what the asker lacks, after it has shown what it holds.
fn send_evidence(mut sending: Sending, side: &mut Side) -> Phase {
    match sending.go_on(side) {
        Sent::Reading => Phase::SendingEvidence(sending),
        Sent::All => {
            side.finish();
            Phase::Ended
        }
    }
}

/// What is wanted may go beyond what is shown here: it is served as far as it goes.
fn begin_serving(want: &ForkWant, batch_bytes: usize, side: &mut Side) -> Phase {
    let shown = side.log.head.map_or(0, |head| head.seq);
    let want = TailWant {
        author: side.author,
        above: want.above,
        through: want.through.min(shown),
    };
    serve_on(want, batch_bytes, side)
}

fn serve_on(want: TailWant, batch_bytes: usize, side: &mut Side) -> Phase {
    if want.above < want.through {
        side.push(ForkOutput::ReadRuns {
            wants: vec![want],
            max_bytes: batch_bytes,
        });
        return Phase::ReadingRuns(want);
    }
    side.send(SyncBatchV2 {
        request_id: side.request_id,
        more: false,
        runs: Vec::new(),
    });
    if side.log.revoked.is_some() {
        return Phase::AwaitRevoked(true);
    }
    side.finish();
    Phase::Ended
}

fn serve(
    mut want: TailWant,
    runs: Vec<StoredRun>,
    batch_bytes: usize,
    side: &mut Side,
) -> Result<Phase, SessionError> {
    if runs.is_empty() {
        // Cut lower meanwhile.
        return Err(SessionError::LogCut {
            author: side.author,
        });
    }
    let mut bytes = Vec::with_capacity(runs.len());
    for run in runs {
        if want.above >= want.through {
            return Err(unfit("ReadRuns"));
        }
        check_run(&run, &want)?;
        want.above = run.last_seq;
        side.moved.add(run.events(), run.payload_bytes);
        bytes.push(run.bytes);
    }
    for runs in bytes.chunks(MAX_BATCH_RUNS) {
        side.send(SyncBatchV2 {
            request_id: side.request_id,
            more: true,
            runs: runs.to_vec(),
        });
    }
    Ok(serve_on(want, batch_bytes, side))
}
