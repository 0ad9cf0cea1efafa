//! What appending does.

use headwater_proto::history::Appended;
use headwater_wire::{AppendError, ClockEntry, HeadsDigest, VerifiedRun, tree};

use super::world::{World, accepted};
use crate::LogStore;

/// A space is there from its genesis on, with its owner as the only author.
pub fn a_space_begins_with_its_genesis(store: &dyn LogStore) {
    let world = World::new(1);
    let commit = store.append(std::slice::from_ref(&world.genesis)).unwrap();
    let head = world.genesis.head();
    let appended = Appended {
        author: world.owner.author(),
        events: 1,
        payload_bytes: 16,
        head,
    };
    assert_eq!(commit.outcomes, [Ok(appended)]);
    assert_eq!(commit.generations, [(world.space(), 1)]);
    let summary = store.summary(&world.space()).unwrap().unwrap();
    let entry = ClockEntry {
        author: world.owner.author(),
        head,
        forked: false,
        revoked: headwater_wire::RevokedDigest::NONE,
    };
    assert_eq!(summary.space, world.space());
    assert_eq!(summary.generation, 1);
    assert_eq!(summary.digest, tree::leaf(&entry));
    assert_eq!(store.spaces().unwrap(), [world.space()]);
    world.assert_sound(store);
}

/// The owner's log comes before all others.
pub fn refuses_a_run_of_a_space_whose_genesis_is_not_held(store: &dyn LogStore) {
    let mut world = World::new(1);
    let first = world.author(1).run(3);
    let second_of_owner = world.owner.run(1);
    let commit = store.append(&[first, second_of_owner]).unwrap();
    let refused = AppendError::NoGenesis {
        space: world.space(),
    };
    assert_eq!(commit.outcomes, [Err(refused.clone()), Err(refused)]);
    assert_eq!(commit.generations, []);
    assert_eq!(store.summary(&world.space()).unwrap(), None);
    assert_eq!(store.spaces().unwrap(), []);
}

/// The genesis must come first, but may come in the same call.
pub fn takes_a_genesis_and_other_logs_in_one_call(store: &dyn LogStore) {
    let world = World::new(1);
    let early = world.author(1).run(3);
    let late = world.author(2).run(3);
    let commit = store.append(&[early, world.genesis.clone(), late]).unwrap();
    let taken: Vec<_> = commit.outcomes.iter().map(Result::is_ok).collect();
    assert_eq!(taken, [false, true, true]);
    assert_eq!(commit.generations, [(world.space(), 1)]);
    world.assert_sound(store);
}

/// A run that starts above the log is refused.
pub fn refuses_a_gap_and_leaves_the_log_unchanged(store: &dyn LogStore) {
    let world = World::new(1);
    world.found(store);
    let mut log = world.author(1);
    let (first, _lost, third) = (log.run(3), log.run(2), log.run(1));
    let gap = |expected| {
        Err(AppendError::Gap {
            author: log.author(),
            expected,
            found: 6,
        })
    };
    assert_eq!(
        store.append(std::slice::from_ref(&third)).unwrap().outcomes,
        [gap(1)]
    );
    assert_eq!(store.head(&world.space(), &log.author()).unwrap(), None);
    accepted(&store.append(std::slice::from_ref(&first)).unwrap());
    let before = store.summary(&world.space()).unwrap();
    assert_eq!(store.append(&[third]).unwrap().outcomes, [gap(4)]);
    assert_eq!(store.summary(&world.space()).unwrap(), before);
    world.assert_sound(store);
}

/// The same run again has no effect.
pub fn answers_stale_to_a_run_it_holds_and_stays_unchanged(store: &dyn LogStore) {
    let world = World::new(1);
    world.found(store);
    let mut log = world.author(1);
    let (first, second) = (log.run(3), log.run(2));
    accepted(&store.append(&[first.clone(), second.clone()]).unwrap());
    let before = store.summary(&world.space()).unwrap();
    let commit = store.append(&[first, second]).unwrap();
    let stale = AppendError::Stale {
        author: log.author(),
        head: 5,
    };
    assert_eq!(commit.outcomes, [Err(stale.clone()), Err(stale)]);
    assert_eq!(commit.generations, []);
    assert_eq!(store.summary(&world.space()).unwrap(), before);
}

/// Of a run that starts inside the log and goes on above it, the part above is stored.
pub fn cuts_off_an_equal_overlap(store: &dyn LogStore) {
    let world = World::new(1);
    world.found(store);
    let mut log = world.author(1);
    let first = log.run(3);
    let _second = log.run(4);
    let whole = log.joined_above(0).unwrap();
    accepted(&store.append(&[first]).unwrap());
    let commit = store.append(std::slice::from_ref(&whole)).unwrap();
    let appended = Appended {
        author: log.author(),
        events: 4,
        payload_bytes: 160,
        head: whole.head(),
    };
    assert_eq!(commit.outcomes, [Ok(appended)]);
    let runs = store
        .read_runs(&world.space(), &[log.want(0, 7)], usize::MAX)
        .unwrap();
    assert_eq!(runs.len(), 2);
    log.assert_serves(&runs, 0, 7);
    world.assert_sound(store);
}

/// An overlap is compared in its last event, wherever in a stored run that is.
pub fn cuts_off_an_overlap_that_ends_inside_a_stored_run(store: &dyn LogStore) {
    let world = World::new(1);
    world.found(store);
    let mut log = world.author(1);
    let long = log.run(700);
    accepted(&store.append(&[long]).unwrap());
    for seq in [1, 2, 63, 64, 65, 127, 128, 500, 699] {
        let part = world.author(1).run(seq);
        let stale = AppendError::Stale {
            author: log.author(),
            head: 700,
        };
        assert_eq!(store.append(&[part]).unwrap().outcomes, [Err(stale)]);
    }
    world.assert_sound(store);
}

/// What one run of a call appends, the next may build on.
pub fn runs_of_one_call_build_on_each_other(store: &dyn LogStore) {
    let world = World::new(1);
    let mut log = world.author(1);
    let runs = [log.run(3), log.run(1), log.run(70), log.run(2)];
    let mut call = vec![world.genesis.clone(), runs[1].clone()];
    call.extend(runs.iter().cloned());
    call.push(runs[0].clone());
    let commit = store.append(&call).unwrap();
    let taken: Vec<_> = commit.outcomes.iter().map(Result::is_ok).collect();
    assert_eq!(taken, [true, false, true, true, true, true, false]);
    let runs = store
        .read_runs(&world.space(), &[log.want(0, 76)], usize::MAX)
        .unwrap();
    log.assert_serves(&runs, 0, 76);
    world.assert_sound(store);
}

/// One transaction over everything.
pub fn one_call_spans_spaces_and_authors(store: &dyn LogStore) {
    let worlds = [World::new(1), World::new(2)];
    let mut call: Vec<VerifiedRun> = worlds.iter().map(|world| world.genesis.clone()).collect();
    for number in 0..5 {
        for world in &worlds {
            call.push(world.author(number).run(2));
        }
    }
    let commit = store.append(&call).unwrap();
    accepted(&commit);
    assert_eq!(commit.outcomes.len(), call.len());
    let mut generations: Vec<_> = worlds.iter().map(|world| (world.space(), 1)).collect();
    generations.sort_unstable();
    assert_eq!(commit.generations, generations);
    for world in &worlds {
        world.assert_sound(store);
    }
    let only = worlds[1].author(9).run(1);
    let commit = store.append(&[only]).unwrap();
    assert_eq!(commit.generations, [(worlds[1].space(), 2)]);
}

/// Outcomes are each run's own.
pub fn a_refused_run_does_not_hinder_the_others_of_its_call(store: &dyn LogStore) {
    let world = World::new(1);
    world.found(store);
    let (mut one, mut two) = (world.author(1), world.author(2));
    let _lost = one.run(1);
    let commit = store.append(&[one.run(1), two.run(2)]).unwrap();
    let taken: Vec<_> = commit.outcomes.iter().map(Result::is_ok).collect();
    assert_eq!(taken, [false, true]);
    assert_eq!(store.head(&world.space(), &one.author()).unwrap(), None);
    world.assert_sound(store);
}

/// No runs, no commit.
pub fn an_empty_append_changes_nothing(store: &dyn LogStore) {
    let world = World::new(1);
    world.found(store);
    let before = store.summary(&world.space()).unwrap();
    let commit = store.append(&[]).unwrap();
    assert_eq!(commit.outcomes, []);
    assert_eq!(commit.generations, []);
    assert_eq!(store.summary(&world.space()).unwrap(), before);
}

/// A call may hold far more than a batch does.
pub fn takes_many_runs_in_one_call(store: &dyn LogStore) {
    let world = World::new(1);
    let mut log = world.author(1);
    let mut call = vec![world.genesis.clone()];
    call.extend(log.sign(20_000, 200));
    accepted(&store.append(&call).unwrap());
    let summary = store.summary(&world.space()).unwrap().unwrap();
    assert_eq!(summary.events, 20_001);
    assert_eq!(summary.payload_bytes, 20_000 * 200 + 16);
    world.assert_sound(store);
}

/// A call may change every head of a space.
pub fn takes_many_authors_in_one_call(store: &dyn LogStore) {
    let world = World::new(1);
    let mut logs: Vec<_> = (0..1_024).map(|number| world.author(number)).collect();
    let mut call = vec![world.genesis.clone()];
    call.extend(logs.iter_mut().map(|log| log.run(1)));
    accepted(&store.append(&call).unwrap());
    let digest = store.summary(&world.space()).unwrap().unwrap().digest;
    let again: Vec<_> = logs.iter_mut().map(|log| log.run(1)).collect();
    accepted(&store.append(&again).unwrap());
    let summary = store.summary(&world.space()).unwrap().unwrap();
    assert_eq!((summary.authors, summary.events), (1_025, 2_049));
    assert!(summary.digest != digest && summary.digest != HeadsDigest::EMPTY);
    world.assert_sound(store);
}

/// A run whose payloads were left out is stored as it is.
pub fn stubs_are_kept_as_stubs(store: &dyn LogStore) {
    let world = World::new(1);
    world.found(store);
    let mut log = world.author(1);
    let full = log.run(6);
    let stubbed = full.run().with_stubs(|index| index % 3 == 0);
    let stubbed = stubbed.verify(&world.space()).unwrap();
    let commit = store.append(std::slice::from_ref(&stubbed)).unwrap();
    let appended = Appended {
        author: log.author(),
        events: 6,
        payload_bytes: 80,
        head: full.head(),
    };
    assert_eq!(commit.outcomes, [Ok(appended)]);
    let runs = store
        .read_runs(&world.space(), &[log.want(0, 6)], usize::MAX)
        .unwrap();
    assert_eq!((runs[0].stubs, runs[0].payload_bytes), (4, 80));
    assert_eq!(runs[0].bytes, *stubbed.run().as_bytes());
    let cut = store
        .read_runs(&world.space(), &[log.want(3, 6)], usize::MAX)
        .unwrap();
    assert_eq!((cut[0].stubs, cut[0].payload_bytes), (2, 40));
    let event = |seq| {
        store
            .event(&world.space(), &log.author(), seq)
            .unwrap()
            .unwrap()
    };
    assert!(event(1).payload.is_some());
    assert!(event(2).payload.is_none());
    assert_eq!(event(2).id, full.ids()[1]);
    let report = store.verify(&world.space(), &mut |_| {}).unwrap();
    assert_eq!((report.stubs, report.fault_count), (4, 0));
}

/// A run may be as long as one largest event.
pub fn takes_the_largest_payload(store: &dyn LogStore) {
    let world = World::new(1);
    world.found(store);
    let mut log = world.author(1);
    let runs = log.sign(3, headwater_wire::limits::MAX_PAYLOAD_BYTES);
    assert_eq!(runs.len(), 3);
    accepted(&store.append(&runs).unwrap());
    let served = store
        .read_runs(&world.space(), &[log.want(0, 3)], usize::MAX)
        .unwrap();
    log.assert_serves(&served, 0, 3);
    world.assert_sound(store);
}

/// A run of the largest length a peer may send is cut above what is held, stored, returned, cut
/// again, and decodes each time.
pub fn stores_and_cuts_the_largest_run(store: &dyn LogStore) {
    let world = World::new(1);
    world.found(store);
    let (mut held, mut whole) = (world.author(1), world.author(2));
    let largest = held.largest_run();
    let appended = Appended {
        author: held.author(),
        events: 2,
        payload_bytes: largest.run().payload_bytes() - 1,
        head: largest.head(),
    };
    let prefix = world.author(1).largest_prefix();
    assert_eq!(Some(prefix.head()), held.head_at(1));
    accepted(&store.append(&[prefix]).unwrap());
    let commit = store.append(&[largest, whole.largest_run()]).unwrap();
    assert_eq!(commit.outcomes[0], Ok(appended));
    accepted(&commit);
    for log in [&held, &whole] {
        for above in 0..3 {
            let wants = [log.want(above, 3)];
            let runs = store.read_runs(&world.space(), &wants, usize::MAX).unwrap();
            log.assert_serves(&runs, above, 3);
        }
        for event in log.events() {
            let found = store
                .event(&world.space(), &log.author(), event.header.seq)
                .unwrap();
            assert_eq!(found, Some(event));
        }
    }
    world.assert_sound(store);
}

/// Appends of several threads all arrive, and a reader sees whole commits.
pub fn threads_append_and_read_at_once(store: &dyn LogStore) {
    let world = World::new(1);
    world.found(store);
    let writing = std::sync::atomic::AtomicUsize::new(4);
    std::thread::scope(|scope| {
        for number in 0..4 {
            let (world, writing) = (&world, &writing);
            scope.spawn(move || {
                let mut log = world.author(number);
                for _ in 0..20 {
                    accepted(&store.append(&[log.run(2), log.run(1)]).unwrap());
                }
                writing.fetch_sub(1, std::sync::atomic::Ordering::SeqCst);
            });
        }
        while writing.load(std::sync::atomic::Ordering::SeqCst) > 0 {
            let page = store.heads(&world.space(), None, 100).unwrap();
            for head in page.heads {
                // Both runs of a call, or none.
                let seq = head.entry.head.seq;
                assert!(seq == 1 || seq % 3 == 0, "{seq}");
            }
        }
    });
    let summary = store.summary(&world.space()).unwrap().unwrap();
    assert_eq!((summary.events, summary.generation), (241, 81));
    world.assert_sound(store);
}
