//! Files that are not what was written.

use std::fs;

use super::{Scene, flip, quiet_redb};
use crate::{Damage, DiskStore, DiskStoreOptions, LogStore, StoreError, conformance::World};

#[test]
fn a_damaged_header_is_refused_and_left_alone() {
    let scene = Scene::filled();
    for at in 0..68 {
        flip(&scene.path, at, 1);
        let content = fs::read(&scene.path).unwrap();
        match DiskStore::open(&scene.path) {
            Err(StoreError::ForeignFile { .. }) => assert!(at < 16),
            Err(StoreError::NewerFormat { .. }) => assert!((16..20).contains(&at)),
            Err(StoreError::Damaged(Damage::File { .. })) => assert!(at > 19),
            other => panic!("{other:?}"),
        }
        assert!(fs::read(&scene.path).unwrap() == content);
        flip(&scene.path, at, 1);
    }
    scene.world.assert_sound(&scene.open());
}

#[test]
fn a_file_cut_short_is_reported() {
    let scene = Scene::filled();
    let whole = fs::read(&scene.path).unwrap();
    let cuts = (0..whole.len()).step_by(whole.len() / 60);
    quiet_redb();
    for len in cuts.chain([19, 20, 67, 68, 4_095, 4_096, 4_097, whole.len() - 1]) {
        fs::write(&scene.path, &whole[..len]).unwrap();
        let opened = DiskStore::open(&scene.path);
        if len <= 4_096 {
            assert!(opened.is_err(), "{len}");
            assert!(fs::read(&scene.path).unwrap() == whole[..len]);
        }
        if let Ok(store) = opened {
            scene.serves_whole_or_reports(&store);
        }
    }
}

#[test]
fn a_flipped_byte_anywhere_is_never_served() {
    quiet_redb();
    let scene = Scene::filled();
    let content = fs::read(&scene.path).unwrap();
    let (mut flips, mut seen) = (0, 0);
    for at in (4_096..content.len()).step_by(193) {
        if content[at..].iter().take(64).all(|byte| *byte == 0) {
            continue;
        }
        flips += 1;
        let mut damaged = content.clone();
        damaged[at] ^= 1 << (at % 8);
        fs::write(&scene.path, &damaged).unwrap();
        let Ok(store) = DiskStore::open(&scene.path) else {
            seen += 1;
            continue;
        };
        let whole = scene.serves_whole_or_reports(&store);
        let report = store.verify(&scene.world.space(), &mut |_| {});
        let sound = report.is_ok_and(|report| report.is_sound() && report.events == 376);
        assert!(whole || !sound, "at {at} verify saw nothing");
        seen += u32::from(!sound);
    }
    assert!(flips > 100 && seen > 50, "{seen} of {flips}");
}

#[test]
fn a_check_on_open_reports_a_flipped_byte_anywhere_in_a_run() {
    let scene = Scene::filled();
    let content = fs::read(&scene.path).unwrap();
    let run = scene.logs[3].runs[1].run().as_bytes().clone();
    let at = content.windows(run.len()).position(|bytes| *bytes == run);
    flip(&scene.path, at.unwrap() + 1_000, 4);
    let options = DiskStoreOptions::default().check_on_open(true);
    let opened = DiskStore::open_with(&scene.path, options);
    assert!(matches!(opened, Err(StoreError::Damaged(_))), "{opened:?}");
}

#[test]
fn a_damaged_record_of_a_space_is_in_its_report_and_other_spaces_are_sound() {
    let mut scene = Scene::filled();
    let other = World::new(2);
    let space = scene.world.space();
    let digest = {
        let store = scene.open();
        other.found(&store);
        let run = scene.logs[0].run(1);
        let _ = store.append(&[run]).unwrap();
        store.summary(&space).unwrap().unwrap().digest
    };
    let mut content = fs::read(&scene.path).unwrap();
    let places = content.windows(32).enumerate();
    let places: Vec<_> = places
        .filter_map(|(at, found)| (found == digest.as_bytes()).then_some(at))
        .collect();
    assert!(!places.is_empty());
    for at in places {
        content[at] ^= 1;
    }
    fs::write(&scene.path, content).unwrap();
    let store = scene.open();
    let mut spaces = [space, other.space()];
    spaces.sort_unstable();
    assert_eq!(store.spaces().unwrap(), spaces);
    let damage = Damage::Space { space };
    match store.summary(&space) {
        Err(StoreError::Damaged(found)) => assert_eq!(found, damage),
        found => panic!("{found:?}"),
    }
    let report = store.verify(&space, &mut |_| {}).unwrap();
    assert_eq!((report.fault_count, report.faults), (1, vec![damage]));
    other.assert_sound(&store);
}

#[test]
fn a_damaged_run_is_named_and_others_are_served() {
    let scene = Scene::filled();
    let content = fs::read(&scene.path).unwrap();
    let log = &scene.logs[3];
    let run = log.runs[1].run().as_bytes();
    let at = content
        .windows(run.len())
        .position(|bytes| bytes == &run[..])
        .unwrap();
    flip(&scene.path, at + 1_000, 4);
    let store = scene.open();
    let space = scene.world.space();
    let damage = Damage::Run {
        space,
        author: log.author(),
        seq: 4,
    };
    let named = |error: StoreError| match error {
        StoreError::Damaged(found) => assert_eq!(found, damage),
        other => panic!("{other:?}"),
    };
    let wants = [scene.logs[1].want(0, 75), log.want(0, 75)];
    let before = store.read_runs(&space, &wants, usize::MAX).unwrap();
    assert_eq!(
        before.len(),
        4,
        "all of one log and what precedes the damage"
    );
    named(
        store
            .read_runs(&space, &[log.want(3, 75)], usize::MAX)
            .unwrap_err(),
    );
    named(store.event(&space, &log.author(), 30).unwrap_err());
    let after = store.read_runs(&space, &[log.want(73, 75)], usize::MAX);
    log.assert_serves(&after.unwrap(), 73, 75);
    let report = store.verify(&space, &mut |_| {}).unwrap();
    assert_eq!((report.fault_count, report.faults), (1, vec![damage]));
    assert_eq!(report.events, 376 - 70);
}

#[test]
fn a_damaged_proof_is_named_and_the_log_stays_cut() {
    let scene = Scene::filled();
    let space = scene.world.space();
    let log = &scene.logs[2];
    let proof = log.proof(log.head_at(9));
    {
        let store = scene.open();
        let _ = store.cut(&proof).unwrap();
    }
    let half = proof.second().run().as_bytes();
    let content = fs::read(&scene.path).unwrap();
    let at = content
        .windows(half.len())
        .position(|bytes| bytes == &half[..])
        .unwrap();
    flip(&scene.path, at + half.len() - 1, 4);
    let store = scene.open();
    let damage = Damage::Proof {
        space,
        author: log.author(),
    };
    match store.fork(&space, &log.author()) {
        Err(StoreError::Damaged(found)) => assert_eq!(found, damage),
        found => panic!("{found:?}"),
    }
    let head = store.head(&space, &log.author()).unwrap().unwrap();
    assert_eq!(
        (Some(head.entry.head), head.entry.forked),
        (log.head_at(9), true)
    );
    let report = store.verify(&space, &mut |_| {}).unwrap();
    assert_eq!((report.fault_count, report.faults), (1, vec![damage]));
    // A lower proof takes its place.
    let lower = store.cut(&log.proof(log.head_at(8))).unwrap();
    assert_eq!(lower.forks.len(), 1);
    scene.world.assert_sound(&store);
}

#[test]
fn a_flipped_byte_in_any_piece_of_a_run_is_seen() {
    let scene = Scene::filled();
    let space = scene.world.space();
    let mut log = scene.logs[3].clone();
    let run = {
        let store = scene.open();
        let run = log.sign(40, 300).remove(0);
        let _ = store.append(std::slice::from_ref(&run)).unwrap();
        run
    };
    let want = log.want(75, run.last_seq());
    let bytes = run.run().as_bytes().clone();
    let content = fs::read(&scene.path).unwrap();
    let mut places = 0;
    for part in bytes.chunks_exact(1_000) {
        let part = &part[..64];
        let mut damaged = content.clone();
        // Each part lies in one piece or across two, and an earlier page may hold it too.
        let found = (0..content.len() - 64).filter(|at| content[*at..*at + 64] == *part);
        for at in found {
            places += 1;
            damaged[at + 32] ^= 4;
        }
        if damaged == content {
            continue;
        }
        fs::write(&scene.path, damaged).unwrap();
        let store = scene.open();
        let served = store.read_runs(&space, std::slice::from_ref(&want), usize::MAX);
        assert!(
            matches!(served, Err(StoreError::Damaged(Damage::Run { .. }))),
            "{served:?}"
        );
    }
    assert!(places > 8, "{places}");
    fs::write(&scene.path, content).unwrap();
    let store = scene.open();
    let served = store.read_runs(&space, &[want], usize::MAX).unwrap();
    assert_eq!(served[0].bytes, bytes);
}
