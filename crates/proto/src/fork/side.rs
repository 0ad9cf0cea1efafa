//! What an asker and an answerer have in common: whose log it is, how it stands here, and proofs.

use std::collections::VecDeque;

use headwater_wire::{
    AuthorId, ForkBranch, ForkProof, ForkProofError, ForkRevoked, Message, Revoked, Run, SpaceId,
    VerifiedForkProof,
};

use super::{ForkEnd, ForkLog, ForkOutput, KnownFork, Unstored, halves::read_branch_at};
use crate::{SessionError, requester::Tally};

#[derive(Debug)]
pub(super) struct Side {
    pub(super) request_id: u64,
    pub(super) space: SpaceId,
    pub(super) author: AuthorId,
    pub(super) log: ForkLog,
    /// The fork known when it began.
    before: Option<u64>,
    /// Whether the peer has said that it holds a proof.
    pub(super) peer_forked: bool,
    pub(super) parted_at: Option<u64>,
    pub(super) rounds: u32,
    pub(super) moved: Tally,
    /// Why something below the cut is not stored here, if so.
    pub(super) unstored: Option<Unstored>,
    pub(super) outputs: VecDeque<ForkOutput>,
}

pub(super) fn unfit(question: &'static str) -> SessionError {
    SessionError::StoreAnswer { question }
}

impl Side {
    pub(super) fn new(request_id: u64, space: SpaceId, author: AuthorId) -> Self {
        Self {
            request_id,
            space,
            author,
            log: ForkLog::default(),
            before: None,
            peer_forked: false,
            parted_at: None,
            rounds: 0,
            moved: Tally::default(),
            unstored: None,
            outputs: VecDeque::new(),
        }
    }

    /// Takes the log as it stands at the beginning.
    pub(super) fn begin(&mut self, log: ForkLog) {
        self.before = log.fork.as_ref().map(|fork| fork.seq);
        self.log = log;
    }

    pub(super) fn push(&mut self, output: ForkOutput) {
        self.outputs.push_back(output);
    }

    pub(super) fn send(&mut self, message: impl Into<Message>) {
        self.push(ForkOutput::Send(message.into()));
    }

    pub(super) fn check_request(&self, message: &Message) -> Result<(), SessionError> {
        let (expected, found) = (self.request_id, message.request_id());
        if found != expected {
            return Err(SessionError::WrongRequest { expected, found });
        }
        Ok(())
    }

    fn send_branch(&mut self, run: Option<Run>) {
        self.send(ForkBranch {
            request_id: self.request_id,
            run: run.map(|run| run.as_bytes().clone()),
        });
    }

    /// Sends our lowest proof, if we have one, and that no more follows.
    pub(super) fn send_proof(&mut self) {
        if let Some(fork) = self.log.fork.clone() {
            let (first, second) = fork.proof.into_runs();
            self.send_branch(Some(first));
            self.send_branch(Some(second));
        }
        self.send_branch(None);
    }

    /// Checks our own run from the difference, and sends what the peer needs of it.
    pub(super) fn send_own(&mut self, run: Option<Run>, seq: u64) -> Result<Run, SessionError> {
        let fits = |run: &Run| run.author() == self.author && run.first_seq() == seq;
        let run = run.filter(fits).ok_or(unfit("ReadBranch"))?;
        let run = run.with_stubs(|_| false);
        self.send_branch(Some(run.clone()));
        Ok(run)
    }

    /// The peer's run from the difference.
    pub(super) fn read_theirs(&self, branch: ForkBranch, seq: u64) -> Result<Run, SessionError> {
        let author = self.author;
        let bytes = branch.run;
        let bytes = bytes.ok_or(SessionError::ForkProofMissing { author })?;
        read_branch_at(bytes, author, seq)
    }

    /// Has a proof verified. Returns where it says the log forks.
    pub(super) fn verify(&mut self, seq: u64, proof: ForkProof) -> u64 {
        self.push(ForkOutput::Verify(proof));
        seq
    }

    /// Whether a peer's proof is lower than ours.
    pub(super) fn is_news(&self, told: &KnownFork) -> bool {
        let ours = self.log.fork.as_ref();
        ours.is_none_or(|ours| told.seq < ours.seq)
    }

    /// Has the store cut the log by a proof that was verified, and should fork at `seq`.
    pub(super) fn cut(
        &mut self,
        seq: u64,
        verified: Result<VerifiedForkProof, ForkProofError>,
    ) -> Result<(), SessionError> {
        let proof = verified.map_err(SessionError::InvalidForkProof)?;
        if (proof.space(), proof.author(), proof.seq()) != (self.space, self.author, seq) {
            return Err(unfit("Verify"));
        }
        self.push(ForkOutput::Cut(proof));
        Ok(())
    }

    /// Sends what we know to be revoked above the cut.
    pub(super) fn send_revoked(&mut self) {
        let held = self.log.revoked.iter().flat_map(Revoked::entries).collect();
        let request_id = self.request_id;
        self.send(ForkRevoked { request_id, held });
    }

    pub(super) fn finish(&mut self) {
        let fork = self.log.fork.as_ref().map(|fork| fork.seq);
        let end = ForkEnd {
            author: self.author,
            fork,
            is_lower: fork.is_some_and(|now| self.before.is_none_or(|before| now < before)),
            parted_at: self.parted_at,
            rounds: self.rounds,
            events: self.moved.events,
            payload_bytes: self.moved.payload_bytes,
            unstored: self.unstored,
        };
        self.push(ForkOutput::Finished(end));
    }
}
