//! Stores that were given any runs and proofs of a log with many branches, in any order, and then
//! exchange what they hold: they end up alike.
//!
//! ```text
//! plan ──▶ branches of one log ──▶ deliveries to each store ──▶ exchange until nothing differs
//! ```
//!
//! The exchange asks of a store what a peer may ask, and tells it what a peer may tell.

use headwater_proto::history::TailWant;
use headwater_wire::{ClockEntry, ForkProof, Run, VerifiedForkProof, VerifiedRun};

use super::world::{Log, World};
use crate::{LogStore, MemoryStore};

/// A log that forks, and who is told what of it, in small numbers that always mean something.
#[derive(Debug, Clone)]
pub struct ForkPlan {
    /// For each branch: which earlier one it parts from, after how many events of that, how many
    /// more it has, and how many events its runs have.
    pub branches: Vec<(u8, u8, u8, u8)>,
    /// What the stores are told, in this order, before each gets whole branches.
    pub deliveries: Vec<Delivery>,
    /// What all stores accept of the author in the end; `None` if nobody knows of a bound.
    pub bound: Option<u8>,
}

/// What a store is told.
#[derive(Debug, Clone, Copy)]
pub enum Delivery {
    /// The next run of a branch.
    Next {
        /// Which store.
        to: u8,
        /// Which branch.
        branch: u8,
    },
    /// Any run of a branch.
    Run {
        /// Which store.
        to: u8,
        /// Which branch.
        branch: u8,
        /// Which of its runs.
        run: u8,
    },
    /// What two runs of two branches prove, if they prove anything.
    Proof {
        /// Which store.
        to: u8,
        /// Which two branches.
        branches: (u8, u8),
        /// Which of their runs.
        runs: (u8, u8),
    },
    /// A bound, if the plan has one in the end.
    Bound {
        /// Which store.
        to: u8,
        /// The last seq accepted, or none if it is lifted.
        through: Option<u8>,
    },
}

/// One branch: a letter for each event, and all its runs from the first event.
struct Branch {
    letters: String,
    runs: Vec<VerifiedRun>,
}

impl Branch {
    fn run(&self, which: u8) -> Option<&VerifiedRun> {
        self.runs.get(usize::from(which) % self.runs.len().max(1))
    }
}

fn branches(log: &Log, plan: &ForkPlan) -> Vec<Branch> {
    let mut branches: Vec<Branch> = Vec::new();
    for ((from, after, events, length), letter) in plan.branches.iter().zip('a'..='z') {
        let parent = branches.get(usize::from(*from) % branches.len().max(1));
        let parent = parent.map_or("", |parent| parent.letters.as_str());
        let shared = usize::from(*after) % (parent.len() + 1);
        let own = usize::from(*events % 12) + 1;
        let letters = format!("{}{}", &parent[..shared], letter.to_string().repeat(own));
        let mut runs: Vec<VerifiedRun> = Vec::new();
        let length = usize::from(*length % 6) + 1;
        for at in (0..letters.len()).step_by(length) {
            let base = runs.last().map(VerifiedRun::head);
            let end = letters.len().min(at + length);
            runs.push(log.branch(base, &letters[at..end]));
        }
        branches.push(Branch { letters, runs });
    }
    branches
}

/// The first seq at which two of the branches differ.
fn parting(branches: &[Branch]) -> Option<u64> {
    let mut lowest = None;
    for one in branches {
        for other in branches {
            let mut pairs = one.letters.bytes().zip(other.letters.bytes());
            let differs = pairs.position(|(one, other)| one != other);
            let differs = differs.map(|index| index as u64 + 1);
            lowest = lowest.into_iter().chain(differs).min();
        }
    }
    lowest
}

/// Tells the stores what the plan says, then each branch as a whole to one of them, lets them
/// exchange, and checks that they agree, and on what.
///
/// The space is one of its own for each number; the stores must not hold it yet.
pub fn check_exchange(stores: &[&dyn LogStore], number: u8, plan: &ForkPlan) {
    let world = World::new(number);
    let log = world.author(1);
    for store in stores {
        world.found(*store);
    }
    let branches = branches(&log, plan);
    if branches.is_empty() {
        return;
    }
    let at = |to: u8| stores[usize::from(to) % stores.len()];
    let branch = |which: u8| &branches[usize::from(which) % branches.len()];
    let mut next = vec![vec![0; branches.len()]; stores.len()];
    for delivery in &plan.deliveries {
        match delivery {
            Delivery::Next { to, branch: which } => {
                let runs = &branch(*which).runs;
                let place = usize::from(*to) % stores.len();
                let next = &mut next[place][usize::from(*which) % branches.len()];
                if let Some(run) = runs.get(*next) {
                    *next += 1;
                    append(at(*to), run);
                }
            }
            Delivery::Run {
                to,
                branch: which,
                run,
            } => {
                if let Some(run) = branch(*which).run(*run) {
                    append(at(*to), run);
                }
            }
            Delivery::Proof {
                to,
                branches: (one, other),
                runs,
            } => {
                let (one, other) = (branch(*one).run(runs.0), branch(*other).run(runs.1));
                let proof = one.zip(other);
                if let Some(proof) = proof.and_then(|two| VerifiedForkProof::of(two.0, two.1)) {
                    cut(at(*to), &proof);
                }
            }
            Delivery::Bound { to, through } => {
                if plan.bound.is_some() {
                    bound(at(*to), &log, *through);
                }
            }
        }
    }
    for (which, branch) in branches.iter().enumerate() {
        for run in &branch.runs {
            append(stores[which % stores.len()], run);
        }
    }
    if let Some(through) = plan.bound {
        stores
            .iter()
            .for_each(|store| bound(*store, &log, Some(through)));
        let agreed = agree(stores, &world, &log);
        let head = agreed.map_or(0, |agreed| agreed.head.seq);
        assert!(head <= u64::from(through), "{head} above {through}");
        assert!(through > 0 || agreed.is_none(), "a fork of nobody shows");
        stores.iter().for_each(|store| bound(*store, &log, None));
    }
    let agreed = agree(stores, &world, &log);
    // A bound may have kept a fork from being seen.
    if plan.bound.is_none() {
        let agreed = agreed.unwrap();
        let longest = branches.iter().map(|branch| branch.letters.len() as u64);
        let fork = parting(&branches);
        let head = fork.map_or(longest.max().unwrap(), |fork| fork - 1);
        assert_eq!((agreed.head.seq, agreed.forked), (head, fork.is_some()));
        for store in stores {
            let known = store.fork(&world.space(), &log.author()).unwrap();
            let known = known.map(|known| known.seq);
            // One that holds nothing between the head and a higher fork shows the same, so nobody
            // has told it of the lower one yet.
            assert_eq!(known.is_some(), fork.is_some());
            assert!(known >= fork, "{known:?} is proven, the lowest is {fork:?}");
        }
    }
}

fn append(store: &dyn LogStore, run: &VerifiedRun) {
    let _ = store.append(std::slice::from_ref(run)).unwrap();
}

fn cut(store: &dyn LogStore, proof: &VerifiedForkProof) {
    let commit = store.cut(proof).unwrap();
    for fork in commit.forks {
        assert!(fork.seq <= proof.seq());
    }
}

fn bound(store: &dyn LogStore, log: &Log, through: Option<u8>) {
    let through = through.map(u64::from);
    let _ = store
        .restrict(&log.space(), &log.author(), through)
        .unwrap();
}

/// Lets every two stores exchange what they hold until no two differ; returns the entry they
/// agree on.
fn agree(stores: &[&dyn LogStore], world: &World, log: &Log) -> Option<ClockEntry> {
    let entry = |store: &dyn LogStore| {
        let record = store.head(&world.space(), &log.author()).unwrap();
        record.map(|record| record.entry)
    };
    for _ in 0..10 {
        let mut differed = false;
        for (index, one) in stores.iter().enumerate() {
            for other in &stores[index + 1..] {
                if entry(*one) != entry(*other) {
                    differed = true;
                    exchange(*one, *other, log);
                }
            }
        }
        if !differed {
            let digest = |store: &dyn LogStore| {
                world.assert_sound(store);
                store.summary(&world.space()).unwrap().unwrap().digest
            };
            let agreed = stores.first().map(|store| (entry(*store), digest(*store)));
            for store in stores {
                assert_eq!(Some((entry(*store), digest(*store))), agreed);
            }
            return agreed.and_then(|(entry, _)| entry);
        }
    }
    panic!("they still differ");
}

/// What two peers do about a log of which they show different things.
fn exchange(one: &dyn LogStore, other: &dyn LogStore, log: &Log) {
    let (space, author) = (log.space(), log.author());
    let end = |store: &dyn LogStore| {
        let end = store.stored_end(&space, &author).unwrap();
        end.map_or(0, |end| end.seq)
    };
    let common: Vec<u64> = (1..=end(one).min(end(other))).collect();
    let chain = |store: &dyn LogStore| store.chain(&space, &author, &common).unwrap();
    let mut differs = common.iter().zip(chain(one).into_iter().zip(chain(other)));
    if let Some((seq, _)) = differs.find(|(_, (ours, theirs))| ours != theirs) {
        let branch = |store: &dyn LogStore| store.branch(&space, &author, *seq).unwrap().unwrap();
        let proof = ForkProof::new(branch(one), branch(other));
        let proof = proof.verify(&space).unwrap();
        assert_eq!(proof.seq(), *seq);
        cut(one, &proof);
        cut(other, &proof);
    }
    for (from, to) in [(one, other), (other, one)] {
        if let Some(fork) = from.fork(&space, &author).unwrap() {
            cut(to, &fork.proof.verify(&space).unwrap());
        }
    }
    for (from, to) in [(one, other), (other, one)] {
        let head = from.head(&space, &author).unwrap();
        let want = TailWant {
            author,
            above: end(to),
            through: head.map_or(0, |head| head.entry.head.seq),
        };
        for stored in from.read_runs(&space, &[want], usize::MAX).unwrap() {
            assert!(stored.first_seq <= want.through);
            let run = Run::decode(stored.bytes).unwrap();
            assert_eq!(run.stub_count(), 0);
            append(to, &run.verify(&space).unwrap());
        }
    }
}

/// Plans drawn from fixed seeds, so that a store fails the same way twice.
pub fn stores_that_exchanged_proofs_and_branches_agree(store: &dyn LogStore) {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut draw = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    let others = [MemoryStore::new(), MemoryStore::new()];
    for number in 0..60 {
        let branches = (0..draw() % 4 + 2).map(|_| (draw(), draw(), draw(), draw()));
        let branches = branches.collect();
        let deliveries = (0..draw() % 40).map(|_| match draw() % 8 {
            0 => Delivery::Run {
                to: draw(),
                branch: draw(),
                run: draw(),
            },
            1 => Delivery::Proof {
                to: draw(),
                branches: (draw(), draw()),
                runs: (draw(), draw()),
            },
            2 => Delivery::Bound {
                to: draw(),
                through: (draw() % 3 > 0).then(|| draw() % 16),
            },
            _ => Delivery::Next {
                to: draw(),
                branch: draw(),
            },
        });
        let deliveries = deliveries.collect();
        let plan = ForkPlan {
            branches,
            deliveries,
            bound: (draw() % 3 == 0).then(|| draw() % 16),
        };
        check_exchange(&[store, &others[0], &others[1]], number, &plan);
    }
}
