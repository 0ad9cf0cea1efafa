//! How much is stored, and how much may be.

use headwater_wire::{AppendError, OverQuota};

use super::world::{Log, World, accepted};
use crate::{LogStore, Quota, Quotas, Stored, Usage};

fn usage(store: &dyn LogStore, log: &Log) -> Usage {
    store.usage(&log.space(), &log.author()).unwrap()
}

fn run_bytes(store: &dyn LogStore, log: &Log) -> u64 {
    let wants = [log.want(0, log.head().map_or(0, |head| head.seq))];
    let runs = store.read_runs(&log.space(), &wants, usize::MAX).unwrap();
    runs.iter().map(|run| run.bytes.len() as u64).sum()
}

fn over(log: &Log, quota: OverQuota, limit: u64) -> AppendError {
    AppendError::OverQuota {
        author: log.author(),
        quota,
        limit,
    }
}

/// Merging makes runs shorter; cutting and hiding leave them where they are.
pub fn counts_the_bytes_it_stores_shown_or_not(store: &dyn LogStore) {
    let world = World::new(1);
    let mut log = world.author(1);
    assert_eq!(usage(store, &log), Usage::default());
    world.found(store);
    let genesis = usage(store, &world.owner);
    assert!(genesis.is_owner && genesis.log == genesis.space);
    assert_eq!(genesis.log.bytes, run_bytes(store, &world.owner));
    for n in 1..=1_111 {
        let run = log.run(1);
        accepted(&store.append(&[run]).unwrap());
        if n % 101 == 0 {
            let used = usage(store, &log);
            let stored = Stored {
                bytes: run_bytes(store, &log),
                events: n,
            };
            assert_eq!(used.log, stored);
            assert_eq!(used.space, stored.plus(genesis.log));
            assert!(!used.is_owner);
        }
    }
    let before = usage(store, &log);
    let _ = store
        .restrict(&world.space(), &log.author(), Some(0))
        .unwrap();
    assert_eq!(usage(store, &log), before);
    let _ = store.restrict(&world.space(), &log.author(), None).unwrap();
    let fork = log.fork(log.head_at(700));
    let commit = store.append(&[fork]).unwrap();
    assert_eq!(commit.forks.len(), 1);
    assert_eq!(usage(store, &log), before);
    world.assert_sound(store);
}

/// Others are not affected, and what is held already is stale as ever.
pub fn a_run_above_its_authors_quota_is_refused_and_others_go_on(store: &dyn LogStore) {
    let world = World::new(1);
    world.found(store);
    let (mut log, mut other) = (world.author(1), world.author(2));
    let first = log.run(3);
    let bytes = first.run().as_bytes().len() as u64;
    let quotas = Quotas::NONE.author(Quota::NONE.bytes(bytes + 150));
    accepted(
        &store
            .append_within(std::slice::from_ref(&first), &quotas)
            .unwrap(),
    );
    let (large, more) = (log.run(9), other.run(2));
    let commit = store.append_within(&[large, more, first], &quotas).unwrap();
    let author = log.author();
    assert_eq!(
        commit.outcomes[0],
        Err(over(&log, OverQuota::AuthorBytes, bytes + 150))
    );
    assert!(commit.outcomes[1].is_ok());
    let stale = AppendError::Stale { author, head: 3 };
    assert_eq!(commit.outcomes[2], Err(stale));
    assert_eq!(usage(store, &log).log, Stored { bytes, events: 3 });
    world.assert_sound(store);
    // Lifted, it goes on.
    let joined = log.joined_above(0).unwrap();
    accepted(&store.append(&[joined]).unwrap());
    assert_eq!(usage(store, &log).log.events, 12);
}

/// What an earlier run of the call takes, a later one has not.
pub fn runs_of_one_call_count_towards_a_quota_together(store: &dyn LogStore) {
    let world = World::new(1);
    world.found(store);
    let mut log = world.author(1);
    let runs = [log.run(4), log.run(4), log.run(4)];
    let quotas = Quotas::NONE.author(Quota::NONE.events(9));
    let commit = store.append_within(&runs, &quotas).unwrap();
    assert!(commit.outcomes[0].is_ok() && commit.outcomes[1].is_ok());
    let refused = over(&log, OverQuota::AuthorEvents, 9);
    assert_eq!(commit.outcomes[2], Err(refused));
    // Of an overlap only what is new counts.
    let world = World::new(2);
    world.found(store);
    let mut log = world.author(1);
    let first = log.run(4);
    let (_, joined) = (log.run(4), log.joined_above(0).unwrap());
    let quotas = Quotas::NONE.author(Quota::NONE.events(8));
    accepted(&store.append_within(&[first, joined], &quotas).unwrap());
    assert_eq!(usage(store, &log).log.events, 8);
}

/// Whoever fills a space does not keep its owner from saying so.
pub fn a_space_quota_binds_everybody_but_the_owner(store: &dyn LogStore) {
    let mut world = World::new(1);
    world.found(store);
    let (mut log, mut other) = (world.author(1), world.author(2));
    let space = Quota::NONE.events(10);
    let quotas = Quotas::NONE.space(space);
    let runs = [log.run(8), other.run(2), world.owner.run(5), other.run(1)];
    let commit = store.append_within(&runs, &quotas).unwrap();
    let refused = over(&other, OverQuota::SpaceEvents, 10);
    assert!(commit.outcomes[0].is_ok() && commit.outcomes[2].is_ok());
    assert_eq!(commit.outcomes[1], Err(refused));
    assert_eq!(usage(store, &log).space.events, 14);
    // The owner has a quota all the same.
    let run = world.owner.run(1);
    let quotas = quotas.author(Quota::NONE.events(6));
    let commit = store.append_within(&[run], &quotas).unwrap();
    let refused = over(&world.owner, OverQuota::AuthorEvents, 6);
    assert_eq!(commit.outcomes, [Err(refused)]);
    // Another space has room of its own.
    let elsewhere = World::new(2);
    let genesis = std::slice::from_ref(&elsewhere.genesis);
    accepted(&store.append_within(genesis, &quotas).unwrap());
    world.assert_sound(store);
}

/// An author has no quota for contradictions.
pub fn a_fork_is_found_above_the_quota(store: &dyn LogStore) {
    let world = World::new(1);
    world.found(store);
    let mut log = world.author(1);
    let run = log.run(4);
    accepted(&store.append(std::slice::from_ref(&run)).unwrap());
    let before = usage(store, &log).log;
    let quotas = Quotas::NONE.author(Quota::NONE.bytes(1).events(1));
    let branch = log.branch(log.head_at(2), "xyz");
    let commit = store.append_within(&[branch], &quotas).unwrap();
    assert_eq!(commit.forks.len(), 1);
    assert_eq!(
        (commit.forks[0].author, commit.forks[0].seq),
        (log.author(), 3)
    );
    assert_eq!(usage(store, &log).log, before);
    world.assert_sound(store);
}
