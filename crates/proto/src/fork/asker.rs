//! The side that noticed that it and a peer see an author differently, and wants it put right.

use core::time::Duration;
use std::collections::VecDeque;

use bytes::Bytes;
use headwater_wire::{
    AppendError, AuthorHead, AuthorId, ForkAnswer, ForkBranch, ForkLocator, ForkProof,
    ForkProofError, ForkWant, Message, Revoked, Run, RunError, SpaceId, SyncBatchV2,
    VerifiedForkProof,
};

use super::{
    ForkLog, ForkOutput, MAX_FORK_ROUNDS, Unstored,
    halves::{Halves, Told},
    revoked::{Receiving, Sending, Sent},
    search::{Search, first_samples},
    side::{Side, unfit},
};
use crate::{
    AppliedRun, SessionError, SessionLimits, Wait, deadline::Deadlines, error::reset_reason,
    requester::memory_of,
};

/// One author to be put right with one peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForkAskerConfig {
    /// Names the request in every message of the stream.
    pub request_id: u64,
    /// The space, which is held here.
    pub space: SpaceId,
    /// Whose log.
    pub author: AuthorId,
    /// Why nothing more of it would be stored here, if that is known: it is compared and proven, and
    /// what lies below the cut is not asked for.
    pub unwanted: Option<Unstored>,
    /// Waits and buffers.
    pub limits: SessionLimits,
}

#[derive(Debug)]
enum Phase {
    ReadingLog,
    ReadingChain(Vec<u64>),
    /// A locator of these seqs is out.
    AwaitAnswer(Vec<u64>),
    /// The two chains part here.
    ReadingBranch(u64),
    AwaitBranch(u64, Box<Run>),
    Verifying(u64, Origin),
    Cutting(Origin),
    AwaitProof(Box<Halves>),
    AwaitRevoked,
    AwaitRuns(Runs),
    /// What shows now, behind what was fetched: it decides which revocations take something.
    ReadingShown,
    SendingEvidence(Sending),
    AwaitEvidence(Receiving),
    /// Whether more of it follows.
    Absorbing(Receiving, bool),
    Ended,
}

/// Where a proof comes from.
#[derive(Debug, Clone, Copy)]
enum Origin {
    /// The two runs from where the chains part.
    Branches,
    /// The peer, which held it.
    Peer,
}

/// What arrives from below the cut.
#[derive(Debug)]
struct Runs {
    /// The seq to go on at.
    next: u64,
    through: u64,
    backlog: VecDeque<Bytes>,
    is_applying: bool,
    more: bool,
    /// Our store takes no more of it: the author forked below.
    refused: bool,
}

impl Phase {
    fn name(&self) -> &'static str {
        match self {
            Self::ReadingLog | Self::ReadingChain(_) | Self::ReadingShown => "looking up its log",
            Self::AwaitAnswer(_) => "awaiting the answer to a locator",
            Self::ReadingBranch(_) => "reading its branch",
            Self::AwaitBranch(..) => "awaiting a branch",
            Self::Verifying(..) | Self::Cutting(_) => "taking in a proof",
            Self::AwaitProof(_) => "awaiting a proof",
            Self::AwaitRevoked => "awaiting what is revoked",
            Self::SendingEvidence(_) => "showing what is revoked",
            Self::AwaitEvidence(_) => "awaiting what shows it",
            Self::Absorbing(..) => "taking in what is revoked",
            Self::AwaitRuns(_) => "awaiting what lies below the cut",
            Self::Ended => "over",
        }
    }
}

/// Finds out with a peer where an author forked, proves it to both, and fetches what lies below.
///
/// After an error it is over. What was cut and applied before stays.
#[derive(Debug)]
pub struct ForkAsker {
    limits: SessionLimits,
    side: Side,
    search: Search,
    phase: Phase,
    /// What the peer holds to be revoked above the cut, until it is shown what it lacks.
    theirs: Option<Revoked>,
    unwanted: Option<Unstored>,
    deadlines: Deadlines,
}

impl ForkAsker {
    /// Begins.
    #[must_use]
    pub fn new(config: ForkAskerConfig, now: Duration) -> Self {
        let mut side = Side::new(config.request_id, config.space, config.author);
        side.push(ForkOutput::ReadLog(config.author));
        Self {
            deadlines: Deadlines::new(&config.limits, Wait::FirstAnswer, now),
            limits: config.limits,
            side,
            search: Search::default(),
            phase: Phase::ReadingLog,
            theirs: None,
            unwanted: config.unwanted,
        }
    }

    /// The next thing to do, if any. Drain it after every input.
    pub fn poll_output(&mut self) -> Option<ForkOutput> {
        self.side.outputs.pop_front()
    }

    /// Whether to read the next message from the peer.
    #[must_use]
    pub fn wants_message(&self) -> bool {
        match &self.phase {
            Phase::AwaitAnswer(_)
            | Phase::AwaitBranch(..)
            | Phase::AwaitProof(_)
            | Phase::AwaitRevoked
            | Phase::AwaitEvidence(_) => true,
            Phase::AwaitRuns(runs) => !runs.is_applying && runs.more,
            _ => false,
        }
    }

    /// When to call [`ForkAsker::handle_timeout`], if nothing else happens before.
    #[must_use]
    pub fn next_timeout(&self) -> Option<Duration> {
        match self.phase {
            Phase::Ended => None,
            _ => self.deadlines.next(self.wants_message()),
        }
    }

    /// Takes the peer's next message. To be called only while [`ForkAsker::wants_message`].
    ///
    /// # Errors
    ///
    /// Every break of the protocol is an error of its own, and ends it all.
    pub fn handle_message(&mut self, message: Message, now: Duration) -> Result<(), SessionError> {
        let result = self.take_message(message, now);
        self.end_on_error(result)
    }

    /// Takes how the log stands, as asked for by [`ForkOutput::ReadLog`].
    ///
    /// # Errors
    ///
    /// [`SessionError::StoreAnswer`] if it was not asked for.
    pub fn handle_log(&mut self, log: ForkLog) -> Result<(), SessionError> {
        match self.phase {
            Phase::ReadingLog => {
                let seqs = first_samples(log.end.map_or(0, |end| end.seq));
                self.side.begin(log);
                self.sample(seqs);
            }
            Phase::ReadingShown => {
                self.side.log = log;
                self.show_revoked();
            }
            _ => return self.end_on_error(Err(unfit("ReadLog"))),
        }
        Ok(())
    }

    /// Takes ids of the stored chain, as asked for by [`ForkOutput::ReadChain`].
    ///
    /// # Errors
    ///
    /// [`SessionError::StoreAnswer`] if they do not answer the question: all of them are stored.
    pub fn handle_chain(&mut self, chain: &[Option<AuthorHead>]) -> Result<(), SessionError> {
        let result = self.take_chain(chain);
        self.end_on_error(result)
    }

    /// Takes our run, as asked for by [`ForkOutput::ReadBranch`].
    ///
    /// # Errors
    ///
    /// [`SessionError::StoreAnswer`] if it does not answer the question.
    pub fn handle_branch(&mut self, run: Option<Run>) -> Result<(), SessionError> {
        let result = match self.phase {
            Phase::ReadingBranch(seq) => self.side.send_own(run, seq).map(|run| {
                self.phase = Phase::AwaitBranch(seq, Box::new(run));
            }),
            _ => Err(unfit("ReadBranch")),
        };
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
        self.deadlines.progress(now);
        let result = match self.phase {
            Phase::Verifying(seq, origin) => self.side.cut(seq, verified).map(|()| {
                self.phase = Phase::Cutting(origin);
            }),
            _ => Err(unfit("Verify")),
        };
        self.end_on_error(result)
    }

    /// Takes the log as it stands after [`ForkOutput::Cut`].
    ///
    /// # Errors
    ///
    /// [`SessionError::StoreAnswer`] if it was not asked for.
    pub fn handle_cut(&mut self, log: ForkLog, now: Duration) -> Result<(), SessionError> {
        self.deadlines.progress(now);
        let Phase::Cutting(origin) = self.phase else {
            return self.end_on_error(Err(unfit("Cut")));
        };
        self.side.log = log;
        match origin {
            Origin::Branches => self.exchange(),
            Origin::Peer => self.after_proofs(),
        }
        Ok(())
    }

    /// Takes evidence, as asked for by [`ForkOutput::ReadEvidence`].
    ///
    /// # Errors
    ///
    /// [`SessionError::StoreAnswer`] if it was not asked for.
    pub fn handle_evidence(&mut self, runs: Vec<Run>, now: Duration) -> Result<(), SessionError> {
        self.deadlines.progress(now);
        let Phase::SendingEvidence(sending) = &mut self.phase else {
            return self.end_on_error(Err(unfit("ReadEvidence")));
        };
        sending.send(runs, self.limits.batch(), &mut self.side);
        self.send_evidence();
        Ok(())
    }

    /// Takes the news that an [`ForkOutput::Absorb`] is done.
    ///
    /// # Errors
    ///
    /// [`SessionError::StoreAnswer`] if it was not asked for.
    pub fn handle_absorbed(&mut self, now: Duration) -> Result<(), SessionError> {
        self.deadlines.progress(now);
        match core::mem::replace(&mut self.phase, Phase::Ended) {
            Phase::Absorbing(receiving, true) => self.phase = Phase::AwaitEvidence(receiving),
            Phase::Absorbing(_, false) => self.finish(),
            _ => return self.end_on_error(Err(unfit("Absorb"))),
        }
        Ok(())
    }

    /// Takes the store's answers about the last [`ForkOutput::Apply`]: one for each of its runs.
    ///
    /// # Errors
    ///
    /// [`SessionError::RunRefused`] if the store refused a run for a reason that is no fork.
    pub fn handle_applied(
        &mut self,
        answers: &[AppliedRun],
        now: Duration,
    ) -> Result<(), SessionError> {
        self.deadlines.progress(now);
        let result = self.take_applied(answers);
        self.end_on_error(result)
    }

    /// Takes the news that a run of an [`ForkOutput::Apply`] or an [`ForkOutput::Absorb`] is invalid.
    /// It is over.
    pub fn handle_invalid_run(&mut self, error: RunError) -> SessionError {
        self.end();
        SessionError::InvalidRun(error)
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
        let result = self.deadlines.check(self.wants_message(), now);
        self.end_on_error(result)
    }

    /// Takes the end of the peer's stream.
    ///
    /// # Errors
    ///
    /// [`SessionError::StreamEnded`] if it was not over.
    pub fn handle_stream_end(&mut self) -> Result<(), SessionError> {
        match &self.phase {
            Phase::Ended | Phase::Absorbing(_, false) => Ok(()),
            Phase::AwaitRuns(runs) if !runs.more && self.theirs.is_none() => Ok(()),
            early => {
                let phase = early.name();
                self.end_on_error(Err(SessionError::StreamEnded { phase }))
            }
        }
    }

    /// Takes the peer's reset of its stream, and names the reason.
    pub fn handle_reset(&mut self, code: u64) -> SessionError {
        self.end();
        reset_reason(code)
    }

    fn end(&mut self) {
        self.phase = Phase::Ended;
        self.side.outputs.clear();
    }

    fn end_on_error(&mut self, result: Result<(), SessionError>) -> Result<(), SessionError> {
        if result.is_err() {
            self.end();
        }
        result
    }

    fn take_message(&mut self, message: Message, now: Duration) -> Result<(), SessionError> {
        if !self.wants_message() {
            return Err(SessionError::NotReady);
        }
        self.side.check_request(&message)?;
        self.deadlines.progress(now);
        match (&mut self.phase, message) {
            (Phase::AwaitAnswer(seqs), Message::ForkAnswer(answer)) => {
                let seqs = core::mem::take(seqs);
                self.take_answer(&seqs, &answer)
            }
            (Phase::AwaitBranch(..), Message::ForkBranch(branch)) => self.take_branch(branch),
            (Phase::AwaitProof(halves), Message::ForkBranch(branch)) => {
                let claimed = self.side.peer_forked;
                let told = halves.take(branch.run, self.side.author, claimed)?;
                self.take_told(told);
                Ok(())
            }
            (Phase::AwaitRevoked, Message::ForkRevoked(theirs)) => {
                // What lies below the cut comes first: only what takes something from it counts.
                self.theirs = Some(theirs.held.into_iter().collect());
                self.want();
                Ok(())
            }
            (Phase::AwaitEvidence(_), Message::SyncBatchV2(batch)) => self.take_evidence(batch),
            (Phase::AwaitRuns(_), Message::SyncBatchV2(batch)) => self.take_batch(batch),
            (Phase::AwaitAnswer(_), Message::Busy(busy)) => Err(SessionError::Busy {
                retry_after: Duration::from_millis(busy.retry_after_ms),
            }),
            (phase, message) => Err(SessionError::OutOfPhase {
                message: message.name(),
                phase: phase.name(),
            }),
        }
    }

    /// Asks about our chain at these seqs.
    fn sample(&mut self, seqs: Vec<u64>) {
        if seqs.is_empty() {
            self.locate(seqs, Vec::new());
            return;
        }
        self.side.push(ForkOutput::ReadChain {
            author: self.side.author,
            seqs: seqs.clone(),
        });
        self.phase = Phase::ReadingChain(seqs);
    }

    fn take_chain(&mut self, chain: &[Option<AuthorHead>]) -> Result<(), SessionError> {
        let Phase::ReadingChain(seqs) = &mut self.phase else {
            return Err(unfit("ReadChain"));
        };
        let seqs = core::mem::take(seqs);
        let entries: Vec<_> = chain.iter().copied().flatten().collect();
        if chain.len() != seqs.len() || !entries.iter().map(|entry| entry.seq).eq(seqs.clone()) {
            return Err(unfit("ReadChain"));
        }
        self.locate(seqs, entries);
        Ok(())
    }

    fn locate(&mut self, seqs: Vec<u64>, entries: Vec<AuthorHead>) {
        self.side.rounds += 1;
        self.side.send(ForkLocator {
            request_id: self.side.request_id,
            space: self.side.space,
            author: self.side.author,
            forked: self.side.log.fork.is_some(),
            entries,
        });
        self.phase = Phase::AwaitAnswer(seqs);
    }

    fn take_answer(&mut self, seqs: &[u64], answer: &ForkAnswer) -> Result<(), SessionError> {
        self.search.narrow(seqs, answer.same, answer.differs)?;
        self.side.peer_forked |= answer.forked;
        if !self.search.is_settled() {
            // Each round leaves a 65th of the range, so this many are never needed.
            if self.side.rounds >= MAX_FORK_ROUNDS {
                return Err(SessionError::TooManyForkRounds {
                    max: MAX_FORK_ROUNDS,
                });
            }
            self.sample(self.search.samples());
            return Ok(());
        }
        self.side.parted_at = self.search.found();
        match self.side.parted_at {
            Some(seq) => {
                self.side.push(ForkOutput::ReadBranch {
                    author: self.side.author,
                    seq,
                });
                self.phase = Phase::ReadingBranch(seq);
            }
            None => self.exchange(),
        }
        Ok(())
    }

    fn take_branch(&mut self, branch: ForkBranch) -> Result<(), SessionError> {
        let Phase::AwaitBranch(seq, own) = core::mem::replace(&mut self.phase, Phase::Ended) else {
            return Err(SessionError::NotReady);
        };
        let theirs = self.side.read_theirs(branch, seq)?;
        let seq = self.side.verify(seq, ForkProof::new(*own, theirs));
        self.phase = Phase::Verifying(seq, Origin::Branches);
        Ok(())
    }

    /// Tells what we know now, and waits to be told.
    fn exchange(&mut self) {
        self.side.send_proof();
        self.phase = Phase::AwaitProof(Box::default());
    }

    fn take_told(&mut self, told: Told) {
        match told {
            Told::More => {}
            Told::Proof(told) if self.side.is_news(&told) => {
                let seq = self.side.verify(told.seq, told.proof);
                self.phase = Phase::Verifying(seq, Origin::Peer);
            }
            Told::Nothing | Told::Proof(_) => self.after_proofs(),
        }
    }

    /// Goes on to what is revoked above the cut, if it is the owner's log.
    fn after_proofs(&mut self) {
        match self.side.log.revoked {
            Some(_) => self.phase = Phase::AwaitRevoked,
            None => self.want(),
        }
    }

    fn send_evidence(&mut self) {
        if let Phase::SendingEvidence(sending) = &mut self.phase
            && let Sent::All = sending.go_on(&mut self.side)
        {
            self.phase = Phase::AwaitEvidence(Receiving::default());
        }
    }

    fn take_evidence(&mut self, batch: SyncBatchV2) -> Result<(), SessionError> {
        let phase = core::mem::replace(&mut self.phase, Phase::Ended);
        let Phase::AwaitEvidence(mut receiving) = phase else {
            return Err(SessionError::NotReady);
        };
        let more = batch.more;
        let max_bytes = self.limits.max_unapplied_bytes;
        let runs = receiving.take(batch, self.side.author, max_bytes)?;
        match (runs.is_empty(), more) {
            (true, true) => self.phase = Phase::AwaitEvidence(receiving),
            (true, false) => self.finish(),
            (false, more) => {
                self.side.push(ForkOutput::Absorb(runs));
                self.phase = Phase::Absorbing(receiving, more);
            }
        }
        Ok(())
    }

    /// Asks for what is not stored below the cut, or goes on without.
    fn want(&mut self) {
        let stored = self.side.log.end.map_or(0, |end| end.seq);
        let fork = self.side.log.fork.as_ref();
        let through = fork.map_or(0, |fork| fork.seq.saturating_sub(1));
        if stored >= through {
            return self.show_revoked();
        }
        if self.unwanted.is_some() {
            self.side.unstored = self.unwanted;
            return self.show_revoked();
        }
        self.side.send(ForkWant {
            request_id: self.side.request_id,
            above: stored,
            through,
        });
        self.phase = Phase::AwaitRuns(Runs {
            next: stored + 1,
            through,
            backlog: VecDeque::new(),
            is_applying: false,
            more: true,
            refused: false,
        });
    }

    /// Goes on behind what was fetched.
    fn after_runs(&mut self) {
        if self.theirs.is_none() {
            return self.finish();
        }
        self.side.push(ForkOutput::ReadLog(self.side.author));
        self.phase = Phase::ReadingShown;
    }

    /// Shows what the peer lacks of what is revoked above the cut, if it is the owner's log, or ends.
    fn show_revoked(&mut self) {
        let Some(theirs) = self.theirs.take() else {
            return self.finish();
        };
        self.side.send_revoked();
        self.phase = Phase::SendingEvidence(Sending::to(&theirs, &self.side));
        self.send_evidence();
    }

    fn finish(&mut self) {
        self.phase = Phase::Ended;
        self.side.finish();
    }

    fn take_batch(&mut self, batch: SyncBatchV2) -> Result<(), SessionError> {
        if let Phase::AwaitRuns(runs) = &mut self.phase {
            if batch.runs.is_empty() && batch.more {
                return Err(SessionError::EmptyBatch);
            }
            runs.backlog.extend(batch.runs);
            runs.more = batch.more;
        }
        self.apply_on()
    }

    /// Has the store take as much of the backlog as may wait for it, or ends.
    fn apply_on(&mut self) -> Result<(), SessionError> {
        let Phase::AwaitRuns(runs) = &mut self.phase else {
            return Ok(());
        };
        let author = self.side.author;
        let (mut list, mut memory) = (Vec::new(), 0);
        while list.is_empty() || memory < self.limits.max_unapplied_bytes {
            let Some(bytes) = runs.backlog.pop_front() else {
                break;
            };
            let run = Run::decode(bytes).map_err(SessionError::RunDecode)?;
            runs.admit(&run, author)?;
            memory += memory_of(&run);
            list.push(run);
        }
        if !list.is_empty() {
            runs.is_applying = true;
            self.side.push(ForkOutput::Apply(list));
        } else if !runs.more {
            self.after_runs();
        }
        Ok(())
    }

    fn take_applied(&mut self, answers: &[AppliedRun]) -> Result<(), SessionError> {
        let runs = match &mut self.phase {
            Phase::AwaitRuns(runs) if runs.is_applying => runs,
            Phase::Ended => return Ok(()),
            _ => return Err(unfit("Apply")),
        };
        runs.is_applying = false;
        for answer in answers {
            match &answer.outcome {
                Ok(appended) => self.side.moved.add(appended.events, appended.payload_bytes),
                Err(AppendError::Stale { .. }) => {}
                Err(AppendError::Forked { .. }) => runs.refused = true,
                // Nothing that follows is stored either, so the peer need not send it.
                Err(AppendError::NotAccepted { .. }) => {
                    self.side.unstored = Some(Unstored::NotAccepted);
                }
                Err(AppendError::OverQuota { .. }) => {
                    self.side.unstored = Some(Unstored::OverQuota);
                }
                // What follows cannot fit either.
                Err(_) if runs.refused || self.side.unstored.is_some() => {}
                Err(error) => {
                    return Err(SessionError::RunRefused {
                        author: self.side.author,
                        error: error.clone(),
                    });
                }
            }
        }
        if self.side.unstored.is_some() {
            self.finish();
            return Ok(());
        }
        self.apply_on()
    }
}

impl Runs {
    /// Checks that a run goes on from the one before it, and is wanted.
    fn admit(&mut self, run: &Run, author: AuthorId) -> Result<(), SessionError> {
        if run.author() != author {
            return Err(SessionError::RunOutsideSegment {
                author: run.author(),
            });
        }
        if run.first_seq() != self.next {
            return Err(SessionError::NotContiguous {
                author,
                expected: self.next,
                found: run.first_seq(),
            });
        }
        if self.next > self.through {
            return Err(SessionError::RunBeyondWant {
                author,
                through: self.through,
                found: run.first_seq(),
            });
        }
        self.next = run.last_seq().saturating_add(1);
        Ok(())
    }
}
