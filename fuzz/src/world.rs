//! Signed logs made once, and a cursor that reads a script from bytes.

use std::{
    collections::HashMap,
    sync::{Mutex, OnceLock, PoisonError},
};

use bytes::Bytes;
use headwater_proto::TailWant;
use headwater_store::{LogStore, MemoryStore};
use headwater_wire::{
    AuthorHead, AuthorId, AuthorSecret, ChannelId, ClockEntry, EventDraft, EventId, HeadsDigest,
    Run, RunError, SpaceId, VerifiedRun, sign_genesis, sign_runs, tree::RootBuilder,
};

/// A space whose owner and three authors wrote three runs each; one of them wrote another second run
/// as well.
#[derive(Debug)]
pub struct World {
    pub space: SpaceId,
    /// The owner, then the others, ascending.
    pub authors: Vec<AuthorId>,
    /// The genesis first. The last one forks.
    pub runs: Vec<VerifiedRun>,
    /// Of each run: it, its stubs, and what is left of it above its first and its second event.
    forms: Vec<[VerifiedRun; 4]>,
    /// What was verified before. A signature costs more than the rest of an execution.
    verified: Mutex<HashMap<Bytes, VerifiedRun>>,
}

/// Most runs that are remembered to verify.
const MOST_VERIFIED: usize = 1 << 14;

/// The world.
pub fn world() -> &'static World {
    static WORLD: OnceLock<World> = OnceLock::new();
    WORLD.get_or_init(World::new)
}

fn secret(number: u8) -> AuthorSecret {
    AuthorSecret::from_bytes([number; 32])
}

fn drafts(number: u8, batch: u8) -> Vec<EventDraft> {
    (0..3)
        .map(|at| {
            let draft = EventDraft::new(16 + u16::from(at), at.into(), vec![number, batch, at]);
            match at {
                1 => draft.in_channel(ChannelId::new("c").expect("short")),
                _ => draft,
            }
        })
        .collect()
}

impl World {
    fn new() -> Self {
        let genesis = sign_genesis(&secret(1), [5; 16], 1);
        let space = genesis.space();
        let mut secrets = vec![secret(1), secret(2), secret(3), secret(4)];
        secrets[1..].sort_by_key(AuthorSecret::id);
        let mut runs = vec![genesis];
        for (number, secret) in (0..).zip(&secrets) {
            let mut base = (number == 0).then(|| runs[0].head());
            for batch in 0..3 {
                let signed = sign_runs(&space, secret, base, drafts(number, batch));
                let signed = signed.expect("signed").remove(0);
                base = Some(signed.head());
                runs.push(signed);
            }
        }
        let first_of_second_author = runs[4].head();
        let fork = sign_runs(
            &space,
            &secrets[1],
            Some(first_of_second_author),
            drafts(9, 9),
        );
        runs.push(fork.expect("signed").remove(0));
        let forms: Vec<_> = runs
            .iter()
            .map(|run| {
                let above = |at| run.above(run.first_seq() + at).unwrap_or(run.clone());
                [run.clone(), run.as_stubs(), above(0), above(1)]
            })
            .collect();
        Self {
            space,
            authors: secrets.iter().map(AuthorSecret::id).collect(),
            verified: Mutex::new(
                forms
                    .iter()
                    .flatten()
                    .map(|run| (run.run().as_bytes().clone(), run.clone()))
                    .collect(),
            ),
            forms,
            runs,
        }
    }

    /// A store that holds so many of the runs, in their order.
    pub fn store(&self, runs: usize) -> MemoryStore {
        let store = MemoryStore::new();
        let held = &self.runs[..runs.min(self.runs.len() - 1)];
        let commit = store.append(held).expect("in memory");
        assert!(commit.outcomes.iter().all(Result::is_ok));
        store
    }

    /// Verifies a run, unless it was verified before.
    pub fn verify(&self, run: Run) -> Result<VerifiedRun, RunError> {
        let lock = || self.verified.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = lock().get(run.as_bytes()) {
            return Ok(known.clone());
        }
        let bytes = run.as_bytes().clone();
        let run = run.verify(&self.space)?;
        let mut verified = lock();
        if verified.len() < MOST_VERIFIED {
            verified.insert(bytes, run.clone());
        }
        Ok(run)
    }

    /// Checks that all that is stored verifies, and that the digest is that of the heads.
    pub fn check(&self, store: &dyn LogStore) {
        let summary = store.summary(&self.space).expect("in memory");
        let page = store.heads(&self.space, None, self.authors.len() + 1);
        let heads = page.expect("in memory").heads;
        let mut root = RootBuilder::new();
        for record in &heads {
            root.push(&record.entry);
            let want = TailWant {
                author: record.entry.author,
                above: 0,
                through: record.entry.head.seq,
            };
            let runs = store.read_runs(&self.space, &[want], 1 << 20);
            let mut next = 1;
            for stored in runs.expect("in memory") {
                let run = Run::decode(stored.bytes).expect("what is stored is a run");
                let run = self.verify(run).expect("what is stored verifies");
                assert_eq!(run.first_seq(), next, "a hole");
                next = run.last_seq() + 1;
                if run.last_seq() == record.entry.head.seq {
                    assert_eq!(run.head(), record.entry.head);
                }
            }
            // Where a log is cut, the run that the cut goes through comes whole.
            let reached = next - 1;
            let head = record.entry.head.seq;
            assert!(reached == head || record.entry.forked && reached > head);
        }
        let digest = summary.map_or(HeadsDigest::EMPTY, |summary| summary.digest);
        assert_eq!(digest, root.finish());
    }
}

/// A number that the same bytes always give: for what is done in some of the executions only.
pub fn lot(data: &[u8]) -> u32 {
    let step = |hash: u32, byte: &u8| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193);
    let hash = data.iter().fold(0x811c_9dc5, step);
    hash ^ hash >> 15
}

/// Reads what to do from bytes. At their end, everything is zero.
#[derive(Debug)]
pub struct Script<'a>(pub &'a [u8]);

impl<'a> Script<'a> {
    pub fn is_over(&self) -> bool {
        self.0.is_empty()
    }

    pub fn byte(&mut self) -> u8 {
        match self.0.split_first() {
            Some((first, rest)) => {
                self.0 = rest;
                *first
            }
            None => 0,
        }
    }

    pub fn flag(&mut self) -> bool {
        self.byte() & 1 == 1
    }

    /// A number that is small, or on an edge.
    pub fn number(&mut self) -> u64 {
        match self.byte() {
            small @ 0..240 => small.into(),
            240 => u64::MAX,
            241 => 1 << 53,
            242 => (1 << 53) + 1,
            243 => u64::from(u32::MAX),
            shift => 1 << (shift - 240),
        }
    }

    pub fn bytes(&mut self) -> &'a [u8] {
        let len = usize::from(self.byte()) << 8 | usize::from(self.byte());
        let (taken, rest) = self.0.split_at(len.min(self.0.len()));
        self.0 = rest;
        taken
    }

    pub fn pick<T>(&mut self, from: &'static [T]) -> &'static T {
        &from[usize::from(self.byte()) % from.len()]
    }

    pub fn author(&mut self) -> AuthorId {
        match self.byte() {
            known @ 0..200 => world().authors[usize::from(known) % world().authors.len()],
            other => AuthorId::from_bytes([other; 32]),
        }
    }

    pub fn head(&mut self) -> AuthorHead {
        let run = self.pick(&world().runs);
        match self.byte() {
            0..128 => run.head(),
            128..200 => AuthorHead {
                seq: self.number(),
                id: run.head().id,
            },
            _ => AuthorHead {
                seq: self.number(),
                id: EventId::from_bytes([self.byte(); 32]),
            },
        }
    }

    pub fn entry(&mut self) -> ClockEntry {
        ClockEntry {
            author: self.author(),
            head: self.head(),
            forked: self.byte() > 200,
            revoked: headwater_wire::RevokedDigest::NONE,
        }
    }

    pub fn digest(&mut self, of: &dyn LogStore) -> HeadsDigest {
        match self.byte() {
            0..200 => {
                let held = of.summary(&world().space).expect("in memory");
                held.map_or(HeadsDigest::EMPTY, |held| held.digest)
            }
            other => HeadsDigest::from_bytes([other; 32]),
        }
    }

    /// Some runs, and perhaps something that is none.
    pub fn runs(&mut self) -> Vec<Bytes> {
        let count = usize::from(self.byte() % 8);
        let mut runs = Vec::with_capacity(count);
        for _ in 0..count {
            runs.push(match self.byte() {
                255 => Bytes::copy_from_slice(self.bytes()),
                run => {
                    let known = &world().forms;
                    let [run, stubs, shorter, shortest] = &known[usize::from(run) % known.len()];
                    let form = match self.byte() {
                        0..200 => run,
                        200..230 => stubs,
                        cut => [shorter, shortest, run][usize::from(cut % 3)],
                    };
                    form.run().as_bytes().clone()
                }
            });
        }
        runs
    }
}
