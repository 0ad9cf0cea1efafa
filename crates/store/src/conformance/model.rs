//! Any sequence of appends, against a model that is a map of vectors.

use std::collections::BTreeMap;

use headwater_wire::{AppendError, AuthorId, ClockEntry, EventId, VerifiedRun};

use super::world::{Log, World, root};
use crate::LogStore;

/// One append call, in small numbers that always mean something.
#[derive(Debug, Clone)]
pub struct Step {
    /// For each run: which author, how many events, how far back it begins below the log's end,
    /// and whether it is another chain from there on.
    pub runs: Vec<(u8, u8, u8, bool)>,
}

/// The ids of each log, as they should be stored.
#[derive(Debug, Default)]
struct Model {
    logs: BTreeMap<AuthorId, Vec<EventId>>,
    generation: u64,
}

impl Model {
    /// Does what a store should do with one run, and says whether it is taken.
    fn append(&mut self, run: &VerifiedRun) -> Result<u64, &'static str> {
        let held = self.logs.get(&run.author()).map_or(&[][..], Vec::as_slice);
        let base = usize::try_from(run.first_seq() - 1).unwrap();
        if base > held.len() {
            return Err("gap");
        }
        let expected = base.checked_sub(1).map(|at| held[at]);
        if run.run().first_prev() != expected {
            return Err("fork");
        }
        let overlap = &held[base..];
        if run.ids().len() <= overlap.len() {
            let equal = overlap.starts_with(run.ids());
            return Err(if equal { "stale" } else { "fork" });
        }
        if !run.ids().starts_with(overlap) {
            return Err("fork");
        }
        let new = &run.ids()[overlap.len()..];
        self.logs.entry(run.author()).or_default().extend(new);
        Ok(new.len() as u64)
    }
}

/// Appends a history to an empty store and compares every outcome, every head and the root with
/// the model's.
pub fn check_history(store: &dyn LogStore, history: &[Step]) {
    let mut world = World::new(1);
    let mut logs: Vec<Log> = (0..8).map(|number| world.author(number)).collect();
    let mut model = Model::default();
    model.append(&world.genesis).unwrap();
    model.generation = 1;
    world.found(store);
    logs.push(world.owner.clone());
    for step in history {
        let mut call = Vec::new();
        for (author, events, back, fork) in &step.runs {
            let at = usize::from(*author) % logs.len();
            let log = &mut logs[at];
            call.extend(next_run(log, usize::from(*events % 80) + 1, *back, *fork));
        }
        let expected: Vec<_> = call.iter().map(|run| model.append(run)).collect();
        let commit = store.append(&call).unwrap();
        let found: Vec<_> = commit.outcomes.iter().map(named).collect();
        assert_eq!(found, expected);
        if expected.iter().any(Result::is_ok) {
            model.generation += 1;
            assert_eq!(commit.generations, [(world.space(), model.generation)]);
        } else {
            assert_eq!(commit.generations, []);
        }
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
        Err(_) => Err("other"),
    }
}

fn assert_agrees(store: &dyn LogStore, world: &World, model: &Model) {
    let found: Vec<_> = world
        .heads(store)
        .into_iter()
        .map(|head| head.entry)
        .collect();
    let expected: Vec<_> = model
        .logs
        .iter()
        .map(|(author, ids)| ClockEntry {
            author: *author,
            head: headwater_wire::AuthorHead {
                seq: ids.len() as u64,
                id: *ids.last().unwrap(),
            },
            forked: false,
        })
        .collect();
    assert_eq!(found, expected);
    let summary = store.summary(&world.space()).unwrap().unwrap();
    assert_eq!(summary.digest, root(expected.iter()));
    assert_eq!(summary.generation, model.generation);
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
            runs: (0..draw() % 5)
                .map(|_| (draw(), draw(), draw() / 3, draw() % 9 == 0))
                .collect(),
        })
        .collect();
    check_history(store, &history);
}
