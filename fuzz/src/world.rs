//! Signed logs made once, and a cursor that reads a script from bytes.

use std::{collections::HashMap, sync::OnceLock};

use bytes::Bytes;
use headwater_store::{LogStore, MemoryStore};
use headwater_wire::{
    AuthorHead, AuthorId, AuthorSecret, ChannelId, ClockEntry, EventDraft, EventId, HeadsDigest,
    SpaceId, VerifiedRun, sign_genesis, sign_runs,
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
    by_bytes: HashMap<Bytes, VerifiedRun>,
}

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
        Self {
            space,
            authors: secrets.iter().map(AuthorSecret::id).collect(),
            by_bytes: runs
                .iter()
                .map(|run| (run.run().as_bytes().clone(), run.clone()))
                .collect(),
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

    /// The run with these bytes, verified already if it is one of the world's.
    pub fn known(&self, bytes: &Bytes) -> Option<VerifiedRun> {
        self.by_bytes.get(bytes).cloned()
    }
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
                    let known = &world().runs;
                    let run = &known[usize::from(run) % known.len()];
                    match self.byte() {
                        0..200 => run.run().as_bytes().clone(),
                        200..230 => run.as_stubs().run().as_bytes().clone(),
                        cut => {
                            let above = run.first_seq() + u64::from(cut % 3);
                            let rest = run.above(above).unwrap_or(run.clone());
                            rest.run().as_bytes().clone()
                        }
                    }
                }
            });
        }
        runs
    }
}
