//! What becomes of logs that grow event by event.

use std::collections::BTreeMap;

use super::world::{World, accepted};
use crate::LogStore;

/// A log appended event by event does not stay one run an event.
pub fn merges_runs_appended_one_by_one(store: &dyn LogStore) {
    let world = World::new(1);
    world.found(store);
    let mut log = world.author(1);
    for _ in 0..1_100 {
        accepted(&store.append(&[log.run(1)]).unwrap());
    }
    let found = store
        .read_runs(&world.space(), &[log.want(0, 1_100)], usize::MAX)
        .unwrap();
    log.assert_serves(&found, 0, 1_100);
    assert!(found.len() <= 40, "{} runs", found.len());
    world.assert_sound(store);
}

/// Merging takes no event away, wherever a range begins.
pub fn a_merged_log_serves_every_tail(store: &dyn LogStore) {
    let world = World::new(1);
    world.found(store);
    let mut log = world.author(1);
    for events in (1..=150).map(|turn| turn % 4 + 1) {
        accepted(&store.append(&[log.run(events)]).unwrap());
    }
    let end = log.head().unwrap().seq;
    for above in 0..end {
        let found = store
            .read_runs(&world.space(), &[log.want(above, end)], usize::MAX)
            .unwrap();
        log.assert_serves(&found, above, end);
        let id = log.head_at(above + 1).map(|head| head.id);
        let event = store.event(&world.space(), &log.author(), above + 1);
        assert_eq!(event.unwrap().map(|event| event.id), id);
    }
    world.assert_sound(store);
}

/// An event is written when it is appended and at most three times more.
pub fn merging_rewrites_no_event_more_than_three_times(store: &dyn LogStore) {
    let world = World::new(1);
    world.found(store);
    let mut log = world.author(1);
    // In which run, by its first and last seq, an event was last seen, and how often that changed.
    let mut seen: BTreeMap<u64, ((u64, u64), u32)> = BTreeMap::new();
    for turn in 1..=700u64 {
        let payload_bytes = if turn % 50 == 0 { 9_000 } else { 150 };
        accepted(&store.append(&log.sign(1, payload_bytes)).unwrap());
        let found = store
            .read_runs(&world.space(), &[log.want(0, turn)], usize::MAX)
            .unwrap();
        for run in found {
            let place = (run.first_seq, run.last_seq);
            for seq in run.first_seq..=run.last_seq {
                let (was, moves) = seen.entry(seq).or_insert((place, 0));
                if *was != place {
                    *was = place;
                    *moves += 1;
                    assert!(*moves <= 3, "event {seq} moved {moves} times");
                }
            }
        }
    }
}
