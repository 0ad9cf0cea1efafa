//! The baseline: the same events, but each a run of its own under a signature of its own.
//!
//! Everything else is Headwater as it is: session, frames, batches, store. What a sync costs more
//! from such a store is what one signature a run buys.

use std::collections::HashMap;

use headwater::{
    AuthorHead, AuthorId, Event, HeadRecord, HeadsPage, LogStore, MemoryStore, SpaceId,
    SpaceSummary, StoreError, VerifyProgress, VerifyReport,
    proto::history::{StoredRun, TailCheck, TailWant},
    store::{Bounds, Commit, ForkRecord, Quotas, StoreId, Usage},
    wire::{Revoked, Run, Subject, VerifiedForkProof, VerifiedRun},
};

use crate::{
    Error,
    corpus::{Corpus, Shape},
};

/// A store that serves one-event runs. Only what it was filled with is served.
#[derive(Debug)]
pub struct SingleRuns {
    inner: MemoryStore,
    /// By author, from the seq given first.
    runs: HashMap<AuthorId, Vec<StoredRun>>,
}

impl SingleRuns {
    /// Signs every event of a space by itself.
    ///
    /// # Errors
    ///
    /// If the memory store refuses a run.
    pub fn fill(shape: Shape) -> Result<(Self, SpaceId), Error> {
        let inner = MemoryStore::new();
        let mut corpus = Corpus::found(&inner, shape)?;
        let space = corpus.space();
        let mut runs: HashMap<AuthorId, Vec<StoredRun>> = HashMap::new();
        // The genesis event.
        let owner = crate::corpus::author(0).id();
        let genesis = TailWant {
            author: owner,
            above: 0,
            through: 1,
        };
        runs.insert(owner, inner.read_runs(&space, &[genesis], usize::MAX)?);
        for index in 0..shape.authors {
            let share = shape.events / shape.authors;
            let mut signed: Vec<VerifiedRun> = Vec::new();
            for _ in 0..share {
                signed.extend(corpus.sign(index, 1)?);
            }
            for outcome in inner.append(&signed)?.outcomes {
                outcome?;
            }
            for run in signed {
                runs.entry(run.author()).or_default().push(StoredRun {
                    author: run.author(),
                    first_seq: run.first_seq(),
                    last_seq: run.last_seq(),
                    payload_bytes: run.run().payload_bytes(),
                    stubs: 0,
                    bytes: run.run().as_bytes().clone(),
                });
            }
        }
        Ok((Self { inner, runs }, space))
    }
}

impl LogStore for SingleRuns {
    fn read_runs(
        &self,
        _space: &SpaceId,
        wants: &[TailWant],
        max_bytes: usize,
    ) -> Result<Vec<StoredRun>, StoreError> {
        let mut out: Vec<StoredRun> = Vec::new();
        let mut bytes = 0;
        for want in wants {
            let log = self.runs.get(&want.author).map_or(&[][..], Vec::as_slice);
            let from = log.partition_point(|run| run.first_seq <= want.above);
            for run in log.iter().skip(from) {
                if run.last_seq > want.through {
                    break;
                }
                bytes += run.bytes.len();
                if bytes > max_bytes && !out.is_empty() {
                    return Ok(out);
                }
                out.push(run.clone());
            }
        }
        Ok(out)
    }

    fn id(&self) -> StoreId {
        self.inner.id()
    }

    fn append_within(&self, runs: &[VerifiedRun], quotas: &Quotas) -> Result<Commit, StoreError> {
        self.inner.append_within(runs, quotas)
    }

    fn usage(&self, space: &SpaceId, author: &AuthorId) -> Result<Usage, StoreError> {
        self.inner.usage(space, author)
    }

    fn spaces(&self) -> Result<Vec<SpaceId>, StoreError> {
        self.inner.spaces()
    }

    fn summary(&self, space: &SpaceId) -> Result<Option<SpaceSummary>, StoreError> {
        self.inner.summary(space)
    }

    fn head(&self, space: &SpaceId, author: &AuthorId) -> Result<Option<HeadRecord>, StoreError> {
        self.inner.head(space, author)
    }

    fn heads(
        &self,
        space: &SpaceId,
        after: Option<AuthorId>,
        limit: usize,
    ) -> Result<HeadsPage, StoreError> {
        self.inner.heads(space, after, limit)
    }

    fn check_tails(
        &self,
        space: &SpaceId,
        stated: &[(AuthorId, AuthorHead)],
    ) -> Result<Vec<TailCheck>, StoreError> {
        self.inner.check_tails(space, stated)
    }

    fn event(
        &self,
        space: &SpaceId,
        author: &AuthorId,
        seq: u64,
    ) -> Result<Option<Event>, StoreError> {
        self.inner.event(space, author, seq)
    }

    fn bounds(&self, space: &SpaceId) -> Result<Option<Bounds>, StoreError> {
        self.inner.bounds(space)
    }

    fn set_bounds(&self, space: &SpaceId, bounds: Bounds) -> Result<(), StoreError> {
        self.inner.set_bounds(space, bounds)
    }

    fn absorb(&self, runs: &[VerifiedRun]) -> Result<Commit, StoreError> {
        self.inner.absorb(runs)
    }

    fn revoked(&self, space: &SpaceId) -> Result<Revoked, StoreError> {
        self.inner.revoked(space)
    }

    fn evidence(&self, space: &SpaceId, subjects: &[Subject]) -> Result<Vec<Run>, StoreError> {
        self.inner.evidence(space, subjects)
    }

    fn verify(
        &self,
        space: &SpaceId,
        progress: &mut dyn FnMut(VerifyProgress),
    ) -> Result<VerifyReport, StoreError> {
        self.inner.verify(space, progress)
    }

    fn cut(&self, proof: &VerifiedForkProof) -> Result<Commit, StoreError> {
        self.inner.cut(proof)
    }

    fn fork(&self, space: &SpaceId, author: &AuthorId) -> Result<Option<ForkRecord>, StoreError> {
        self.inner.fork(space, author)
    }

    fn forks(
        &self,
        space: &SpaceId,
        after: Option<AuthorId>,
        limit: usize,
    ) -> Result<Vec<ForkRecord>, StoreError> {
        self.inner.forks(space, after, limit)
    }

    fn chain(
        &self,
        space: &SpaceId,
        author: &AuthorId,
        seqs: &[u64],
    ) -> Result<Vec<Option<AuthorHead>>, StoreError> {
        self.inner.chain(space, author, seqs)
    }

    fn stored_end(
        &self,
        space: &SpaceId,
        author: &AuthorId,
    ) -> Result<Option<AuthorHead>, StoreError> {
        self.inner.stored_end(space, author)
    }

    fn branch(
        &self,
        space: &SpaceId,
        author: &AuthorId,
        seq: u64,
    ) -> Result<Option<Run>, StoreError> {
        self.inner.branch(space, author, seq)
    }

    fn restrict(
        &self,
        space: &SpaceId,
        author: &AuthorId,
        through: Option<u64>,
    ) -> Result<Commit, StoreError> {
        self.inner.restrict(space, author, through)
    }

    fn restriction(&self, space: &SpaceId, author: &AuthorId) -> Result<Option<u64>, StoreError> {
        self.inner.restriction(space, author)
    }

    fn restricted(
        &self,
        space: &SpaceId,
        after: Option<AuthorId>,
        limit: usize,
    ) -> Result<Vec<AuthorId>, StoreError> {
        self.inner.restricted(space, after, limit)
    }
}
