//! Any sequence of appends, against a model that is a map of vectors.

use std::collections::BTreeMap;

use headwater_wire::{
    AppendError, AuthorHead, AuthorId, ClockEntry, EventId, SpaceId, VerifiedRun,
};

use super::world::{Log, World, root};
use crate::LogStore;

/// One append call, in small numbers that always mean something, and what comes before it.
#[derive(Debug, Clone, Default)]
pub struct Step {
    /// For each bound: which author, and the last seq accepted, if it is not lifted.
    pub bounds: Vec<(u8, Option<u8>)>,
    /// For each proof: which author, and how far below the log's end it forks.
    pub proofs: Vec<(u8, u8)>,
    /// For each run: which author, how many events, how far back it begins below the log's end,
    /// and whether it is another chain from there on.
    pub runs: Vec<(u8, u8, u8, bool)>,
}

/// What a store should hold of one log.
#[derive(Debug, Default)]
struct Chain {
    /// Stored, shown or not.
    ids: Vec<EventId>,
    /// The lowest fork proven, and the id its proof goes on from.
    fork: Option<(usize, Option<EventId>)>,
    bound: Option<usize>,
}

impl Chain {
    fn below_fork(&self) -> usize {
        self.fork.map_or(usize::MAX, |(seq, _)| seq - 1)
    }

    fn limit(&self) -> usize {
        self.below_fork().min(self.bound.unwrap_or(usize::MAX))
    }

    fn visible(&self) -> usize {
        self.ids.len().min(self.limit())
    }

    fn id(&self, seq: usize) -> Option<EventId> {
        self.ids.get(seq.checked_sub(1)?).copied()
    }

    fn beyond(&self) -> &'static str {
        match self.fork {
            Some(_) if self.below_fork() == self.limit() => "fork",
            _ => "not accepted",
        }
    }

    /// Does what a store should do with one run, and says how much more is shown.
    fn append(&mut self, run: &VerifiedRun) -> Result<u64, &'static str> {
        let first = usize::try_from(run.first_seq()).unwrap();
        let last = first + run.ids().len() - 1;
        let theirs = |seq: usize| match seq + 1 == first {
            true => run.run().first_prev(),
            false => run.id_at(seq as u64),
        };
        let before = self.fork;
        loop {
            let known = self.ids.len().min(self.below_fork());
            let refusal = if first > self.limit() {
                self.beyond()
            } else {
                let mut shared = first.max(2) - 1..=last.min(known);
                if let Some(seq) = shared.find(|seq| self.id(*seq) != theirs(*seq)) {
                    self.fork = Some((seq, self.id(seq - 1)));
                    continue;
                }
                let news = last > known && known < self.limit();
                let leads_to = self.fork.map(|(seq, base)| (seq - 1, base));
                if let Some((seq, base)) = leads_to.filter(|(seq, _)| news && *seq > known)
                    && run.id_at(seq as u64).is_some_and(|id| Some(id) != base)
                {
                    self.fork = Some((seq, theirs(seq - 1)));
                    continue;
                }
                if first > known + 1 {
                    "gap"
                } else if news {
                    let visible = self.visible();
                    let new = &run.ids()[known + 1 - first..];
                    self.ids.extend(new);
                    return Ok((self.visible() - visible) as u64);
                } else if last <= self.visible() {
                    "stale"
                } else {
                    self.beyond()
                }
            };
            return Err(if self.fork == before { refusal } else { "fork" });
        }
    }

    fn cut(&mut self, seq: usize, base: Option<EventId>) {
        let held = self.fork.map_or(usize::MAX, |(seq, _)| seq);
        let ours = seq.checked_sub(1).and_then(|seq| self.id(seq));
        let lower = ours.is_some() && ours != base && seq <= held;
        let (seq, base) = match lower {
            true => (seq - 1, self.id(seq.saturating_sub(2))),
            false => (seq, base),
        };
        if seq < held {
            self.fork = Some((seq, base));
        }
    }
}

/// The logs as they should be stored.
#[derive(Debug, Default)]
struct Model {
    logs: BTreeMap<AuthorId, Chain>,
    generation: u64,
}

impl Model {
    fn entries(&self) -> Vec<ClockEntry> {
        let shown = self
            .logs
            .iter()
            .filter(|(_, chain)| chain.bound != Some(0))
            .filter(|(_, chain)| chain.visible() > 0 || chain.fork.is_some());
        let entries = shown.map(|(author, chain)| ClockEntry {
            author: *author,
            head: match chain.visible() {
                0 => AuthorHead::NONE,
                seq => AuthorHead {
                    seq: seq as u64,
                    id: chain.ids[seq - 1],
                },
            },
            forked: chain.fork.is_some(),
            revoked: headwater_wire::RevokedDigest::NONE,
        });
        entries.collect()
    }

    /// Counts a call, and returns the generations a store should name after it.
    fn counted(&mut self, space: SpaceId, before: &[ClockEntry]) -> Vec<(SpaceId, u64)> {
        if self.entries() == before {
            return Vec::new();
        }
        self.generation += 1;
        vec![(space, self.generation)]
    }
}

/// Carries a history out on an empty store and compares every outcome, every head and the root
/// with the model's.
pub fn check_history(store: &dyn LogStore, history: &[Step]) {
    let mut world = World::new(1);
    let space = world.space();
    let mut logs: Vec<Log> = (0..8).map(|number| world.author(number)).collect();
    let mut model = Model::default();
    let owner = model.logs.entry(world.owner.author()).or_default();
    owner.append(&world.genesis).unwrap();
    model.generation = 1;
    world.found(store);
    logs.push(world.owner.clone());
    for step in history {
        for (author, through) in &step.bounds {
            // The owner's own log is not bounded: the model has no room for a lost genesis.
            let log = &logs[usize::from(*author) % 8];
            let before = model.entries();
            let chain = model.logs.entry(log.author()).or_default();
            chain.bound = through.map(usize::from);
            let through = through.map(u64::from);
            let commit = store.restrict(&space, &log.author(), through).unwrap();
            assert_eq!(commit.generations, model.counted(space, &before));
        }
        for (author, back) in &step.proofs {
            let log = &logs[usize::from(*author) % 8];
            let end = log.head().map_or(0, |head| head.seq);
            let base = log.head_at(end.saturating_sub(u64::from(*back)));
            let proof = log.proof(base);
            let before = model.entries();
            let chain = model.logs.entry(log.author()).or_default();
            let seq = usize::try_from(proof.seq()).unwrap();
            chain.cut(seq, base.map(|base| base.id));
            let commit = store.cut(&proof).unwrap();
            assert_eq!(commit.generations, model.counted(space, &before));
        }
        let mut call = Vec::new();
        for (author, events, back, fork) in &step.runs {
            let at = usize::from(*author) % logs.len();
            let log = &mut logs[at];
            call.extend(next_run(log, usize::from(*events % 80) + 1, *back, *fork));
        }
        let before = model.entries();
        let append = |run: &VerifiedRun| model.logs.entry(run.author()).or_default().append(run);
        let expected: Vec<_> = call.iter().map(append).collect();
        let commit = store.append(&call).unwrap();
        let found: Vec<_> = commit.outcomes.iter().map(named).collect();
        assert_eq!(found, expected);
        assert_eq!(commit.generations, model.counted(space, &before));
        assert_agrees(store, &world, &model);
    }
    world.owner = logs.remove(8);
    world.assert_sound(store);
}

/// Signs a run that begins `back` events below the end of a log.
fn next_run(log: &mut Log, events: usize, back: u8, fork: bool) -> Option<VerifiedRun> {
    let end = log.head().map_or(0, |head| head.seq);
    let base = end.saturating_sub(u64::from(back % 8));
    if fork {
        return Some(log.fork(log.head_at(base)));
    }
    if back == 7 {
        // A gap: what is signed here never reaches the store on its own.
        log.sign(1, 3);
        return log.sign(events, 20).pop();
    }
    let last = log.sign(events, 20).pop()?;
    Some(log.joined_above(base).unwrap_or(last))
}

fn named(
    outcome: &Result<headwater_proto::history::Appended, AppendError>,
) -> Result<u64, &'static str> {
    match outcome {
        Ok(appended) => Ok(appended.events),
        Err(AppendError::Gap { .. }) => Err("gap"),
        Err(AppendError::Forked { .. }) => Err("fork"),
        Err(AppendError::Stale { .. }) => Err("stale"),
        Err(AppendError::NotAccepted { .. }) => Err("not accepted"),
        Err(_) => Err("other"),
    }
}

fn assert_agrees(store: &dyn LogStore, world: &World, model: &Model) {
    let found: Vec<_> = world
        .heads(store)
        .into_iter()
        .map(|head| head.entry)
        .collect();
    let expected = model.entries();
    assert_eq!(found, expected);
    let summary = store.summary(&world.space()).unwrap().unwrap();
    assert_eq!(summary.digest, root(expected.iter()));
    assert_eq!(summary.generation, model.generation);
    for (author, chain) in &model.logs {
        let fork = store.fork(&world.space(), author).unwrap();
        let known = fork.as_ref().map(|fork| fork.seq as usize);
        assert_eq!(known, chain.fork.map(|(seq, _)| seq));
        let end = store.stored_end(&world.space(), author).unwrap();
        let end = end.map(|end| (end.seq as usize, end.id));
        assert_eq!(end, chain.ids.last().map(|id| (chain.ids.len(), *id)));
        let bound = store.restriction(&world.space(), author).unwrap();
        assert_eq!(bound.map(|bound| bound as usize), chain.bound);
    }
}

/// Histories drawn from fixed seeds, so that a store fails the same way twice.
pub fn random_histories_agree_with_a_model(store: &dyn LogStore) {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut draw = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    let history: Vec<_> = (0..120)
        .map(|_| Step {
            bounds: (0..draw() % 5 / 4)
                .map(|_| (draw(), (draw() % 2 == 0).then(|| draw() % 200)))
                .collect(),
            proofs: (0..draw() % 9 / 8).map(|_| (draw(), draw())).collect(),
            runs: (0..draw() % 5)
                .map(|_| (draw(), draw(), draw() / 3, draw() % 9 == 0))
                .collect(),
        })
        .collect();
    check_history(store, &history);
}
