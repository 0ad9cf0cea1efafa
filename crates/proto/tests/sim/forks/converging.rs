//! Any number of nodes and branches, syncs and repairs in any order: all end with one clock.

use headwater_proto::SessionLimits;
use headwater_wire::VerifiedRun;

use super::{branch, branches, forker, holding, pulled, sides::repair};
use crate::{
    logs::Logs,
    rng::{Rng, for_seeds},
};

/// Pulls, and puts right what was noticed.
pub(super) fn sync_and_repair(ours: &mut Logs, theirs: &mut Logs, rng: &mut Rng) {
    let report = pulled(ours, theirs, rng);
    for fork in report.end.forks.iter().filter(|fork| fork.is_noticed()) {
        let limits = SessionLimits::default();
        repair(ours, theirs, fork.author, &limits).expect("both are honest");
    }
}

/// The lowest seq at which any two of these logs differ.
fn lowest_fork(logs: &[Vec<VerifiedRun>]) -> Option<u64> {
    let ids =
        |log: &[VerifiedRun]| -> Vec<_> { log.iter().flat_map(|run| run.ids().to_vec()).collect() };
    let mut lowest = None;
    for (at, one) in logs.iter().enumerate() {
        for other in &logs[at + 1..] {
            let (one, other) = (ids(one), ids(other));
            if let Some(same) = one.iter().zip(&other).position(|(one, other)| one != other) {
                let seq = same as u64 + 1;
                lowest = Some(lowest.map_or(seq, |lowest: u64| lowest.min(seq)));
            }
        }
    }
    lowest
}

#[test]
fn three_nodes_with_three_branches_end_with_one_clock_whatever_the_order() {
    for_seeds(150, |seed| {
        let mut rng = Rng::new(seed);
        let space = Logs::create(1);
        let forks = [rng.between(1, 25), rng.between(1, 25)];
        let first = rng.between(forks[0], 40);
        let second = rng.between(forks[0].max(forks[1]), 40);
        let lens = [first, second, rng.between(forks[1], 40)];
        let logs = branches(&space, &forks, &lens, &mut rng);
        let mut nodes: Vec<Logs> = logs.iter().map(|log| holding(&space, log)).collect();
        let lowest = lowest_fork(&logs).expect("they differ");
        for step in 0.. {
            let digest = |logs: &Logs| logs.summary().expect("held").digest;
            if nodes.iter().all(|node| digest(node) == digest(&nodes[0])) {
                break;
            }
            assert!(step < 200, "no end");
            let asks = rng.below(3) as usize;
            let mut asker = nodes.remove(asks);
            let answers = rng.below(2) as usize;
            sync_and_repair(&mut asker, &mut nodes[answers], &mut rng);
            nodes.insert(asks, asker);
        }
        for node in &nodes {
            assert_eq!(node.fork_at(&forker().id()), Some(lowest));
            assert_eq!(node.entries(), nodes[0].entries());
        }
    });
}

#[test]
fn what_an_author_signs_after_the_fork_changes_nothing() {
    for_seeds(40, |seed| {
        let mut rng = Rng::new(seed);
        let space = Logs::create(1);
        let fork = rng.between(1, 20);
        let lens = [fork + rng.below(9), fork + rng.below(9)];
        let logs = branches(&space, &[fork], &lens, &mut rng);
        let (mut ours, mut theirs) = (holding(&space, &logs[0]), holding(&space, &logs[1]));
        let forker = forker();
        repair(
            &mut ours,
            &mut theirs,
            forker.id(),
            &SessionLimits::default(),
        )
        .expect("honest");
        let before = ours.entries();
        let longer = branch(
            &space.space,
            &forker,
            &logs[0],
            lens[0],
            lens[0] + 5,
            &mut rng,
        );
        for run in longer {
            assert!(ours.append(run.clone()).is_err());
            assert!(theirs.append(run).is_err());
        }
        assert_eq!(ours.entries(), before);
        assert_eq!(theirs.entries(), before);
    });
}
