//! What a session about one author asks, answered by the store, the policy and the writer.

use std::sync::Arc;

use headwater_proto::{
    AppliedRun, SessionError, SpaceSummary, StoredRun,
    fork::{ForkLog, ForkOutput, KnownFork},
};
use headwater_store::{LogStore, StoreError};
use headwater_wire::{
    AuthorHead, AuthorId, ForkProof, ForkProofError, Run, RunError, SpaceId, VerifiedForkProof,
    VerifiedRun,
};
use iroh::EndpointId;

use crate::{
    apply, blocking::blocking, commit::Origin, conduct, node::Inner, serve, sync::SyncError,
};

/// One log, and the peer it is spoken of with.
#[derive(Debug, Clone)]
pub(crate) struct Log {
    pub(crate) peer: EndpointId,
    pub(crate) space: SpaceId,
    pub(crate) author: AuthorId,
    /// Whether it is the peer who asks.
    pub(crate) is_asked: bool,
}

/// The answer to a question.
pub(super) enum Answer {
    Opened(Option<SpaceSummary>),
    Log(ForkLog),
    Chain(Vec<Option<AuthorHead>>),
    Branch(Option<Run>),
    Verified(Box<Result<VerifiedForkProof, ForkProofError>>),
    Cut(ForkLog),
    Evidence(Vec<Run>),
    Absorbed,
    Applied(Vec<AppliedRun>),
    InvalidRun(RunError),
    Runs(Vec<StoredRun>),
}

impl Log {
    /// Finds the answer to one question.
    pub(super) async fn ask(
        self,
        inner: Arc<Inner>,
        question: ForkOutput,
    ) -> Result<Answer, SyncError> {
        let author = self.author;
        match question {
            ForkOutput::Open(space) => {
                let opened = serve::open_space(&inner, self.peer, space).await;
                Ok(Answer::Opened(opened.map_err(SyncError::store)?))
            }
            ForkOutput::ReadLog(author) => {
                let log = self.read(&inner, move |store, space| log(store, space, &author));
                Ok(Answer::Log(log.await?))
            }
            ForkOutput::ReadChain { author, seqs } => {
                self.charge(&inner, seqs.len());
                let chain =
                    move |store: &dyn LogStore, space: &SpaceId| store.chain(space, &author, &seqs);
                Ok(Answer::Chain(self.read(&inner, chain).await?))
            }
            ForkOutput::ReadBranch { author, seq } => {
                let branch =
                    move |store: &dyn LogStore, space: &SpaceId| store.branch(space, &author, seq);
                Ok(Answer::Branch(self.read(&inner, branch).await?))
            }
            ForkOutput::Verify(proof) => {
                let verified = self.verify(&inner, proof).await;
                Ok(Answer::Verified(Box::new(verified)))
            }
            ForkOutput::Cut(proof) => {
                let cut = inner.writer.cut(proof, self.peer).await;
                cut.map_err(|_stopped| SyncError::ShuttingDown)?
                    .map_err(SyncError::Store)?;
                let log = self.read(&inner, move |store, space| log(store, space, &author));
                Ok(Answer::Cut(log.await?))
            }
            ForkOutput::ReadEvidence(subjects) => {
                self.charge(&inner, subjects.len());
                let evidence =
                    move |store: &dyn LogStore, space: &SpaceId| store.evidence(space, &subjects);
                Ok(Answer::Evidence(self.read(&inner, evidence).await?))
            }
            ForkOutput::Absorb(runs) => self.absorb(inner, runs).await,
            ForkOutput::Apply(runs) => self.apply(inner, runs).await,
            ForkOutput::ReadRuns { wants, max_bytes } => {
                let runs = move |store: &dyn LogStore, space: &SpaceId| {
                    store.read_runs(space, &wants, max_bytes)
                };
                Ok(Answer::Runs(self.read(&inner, runs).await?))
            }
            _ => Err(SessionError::Unsupported {
                feature: "a question about forks",
            }
            .into()),
        }
    }

    async fn read<T: Send + 'static>(
        &self,
        inner: &Inner,
        query: impl FnOnce(&dyn LogStore, &SpaceId) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, SyncError> {
        let (store, space) = (Arc::clone(&inner.store), self.space);
        let answer = blocking(move || query(&*store, &space)).await;
        answer.map_err(SyncError::store)
    }

    /// Checks two signatures, no more of them at a time than there are cores.
    async fn verify(
        &self,
        inner: &Inner,
        proof: ForkProof,
    ) -> Result<VerifiedForkProof, ForkProofError> {
        // Never closed.
        let _core = inner.verifying.acquire().await.ok();
        let space = self.space;
        blocking(move || proof.verify(&space)).await
    }

    /// What a peer that asks has made us look up, or check the signatures of.
    fn charge(&self, inner: &Inner, count: usize) {
        if self.is_asked {
            let cost = (count as u64).div_ceil(conduct::COMPARED);
            inner.conduct.charge(self.peer, cost);
        }
    }

    /// Takes in what an owner has revoked. Such runs lack payloads, so they go nowhere else.
    async fn absorb(self, inner: Arc<Inner>, runs: Vec<Run>) -> Result<Answer, SyncError> {
        self.charge(
            &inner,
            runs.len().saturating_mul(conduct::COMPARED as usize),
        );
        let verified = match apply::verify_evidence(&inner, self.space, runs).await {
            Ok(verified) => verified,
            Err(invalid) => return Ok(Answer::InvalidRun(invalid)),
        };
        let absorbed = inner.writer.absorb(verified, self.peer).await;
        absorbed
            .map_err(|_stopped| SyncError::ShuttingDown)?
            .map_err(SyncError::Store)?;
        Ok(Answer::Absorbed)
    }

    async fn apply(self, inner: Arc<Inner>, runs: Vec<Run>) -> Result<Answer, SyncError> {
        let sizes = runs.iter().map(|run| run.as_bytes().len() as u64);
        let sizes: Vec<_> = sizes.collect();
        let verified = match apply::verify(Arc::clone(&inner), self.space, runs).await {
            Ok(verified) => verified,
            Err(invalid) => return Ok(Answer::InvalidRun(invalid)),
        };
        let heads: Vec<_> = verified.iter().map(VerifiedRun::head).collect();
        let queued = inner.writer.store(verified, Origin::Asked(self.peer)).await;
        let reply = queued.map_err(|_stopped| SyncError::ShuttingDown)?.await;
        let outcomes = reply
            .map_err(|_stopped| SyncError::ShuttingDown)?
            .whole()
            .map_err(SyncError::Store)?;
        let applied = heads.into_iter().zip(outcomes);
        let applied = applied.map(|(head, outcome)| AppliedRun { head, outcome });
        let applied: Vec<_> = applied.collect();
        // What is not stored now is not asked for by the next sync.
        inner.left_out.note(self.space, &applied, &sizes);
        Ok(Answer::Applied(applied))
    }
}

/// How a log stands in the store.
fn log(store: &dyn LogStore, space: &SpaceId, author: &AuthorId) -> Result<ForkLog, StoreError> {
    let fork = store.fork(space, author)?;
    let head = store.head(space, author)?.map(|record| record.entry.head);
    let owner = store.summary(space)?.map(|held| held.owner);
    let revoked = match owner == Some(*author) {
        true => Some(store.revoked(space)?),
        false => None,
    };
    Ok(ForkLog {
        revoked,
        end: store.stored_end(space, author)?,
        head: head.filter(|head| *head != AuthorHead::NONE),
        fork: fork.map(|fork| KnownFork {
            seq: fork.seq,
            proof: fork.proof,
        }),
    })
}
