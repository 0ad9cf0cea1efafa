//! Disks that fail and processes that are killed.

use std::{
    fs,
    io::{BufRead, BufReader},
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::SeqCst},
    },
};

use super::Scene;
use crate::{DiskStore, LogStore, StoreError, conformance::World, disk::file::StoreFile};

#[test]
fn a_commit_cut_off_at_any_write_is_there_as_a_whole_or_not_at_all() {
    let scene = Scene::filled();
    let content = fs::read(&scene.path).unwrap();
    let mut acknowledged = false;
    let mut writes = 0;
    while !acknowledged {
        fs::write(&scene.path, &content).unwrap();
        let mut more = scene.logs.clone();
        let runs: Vec<_> = more.iter_mut().map(|log| log.run(9)).collect();
        let store = scene.open();
        store.file.faults.fail_after(writes);
        let commit = store.append(&runs);
        acknowledged = commit.is_ok();
        // Dropped as by a kill: nothing more reaches the file.
        store.file.faults.fail_after(0);
        drop(store);
        let store = scene.open();
        let summary = store.summary(&scene.world.space()).unwrap().unwrap();
        if summary.events == 376 {
            assert!(!acknowledged, "an acknowledged commit is gone");
            assert!(scene.serves_whole_or_reports(&store));
        } else {
            assert_eq!(summary.events, 376 + 45);
            let logs = Scene {
                logs: more,
                ..Scene::new()
            };
            assert!(logs.serves_whole_or_reports(&store));
        }
        scene.world.assert_sound(&store);
        writes += 1;
    }
    assert!(writes > 10, "{writes}");
}

#[test]
fn a_full_disk_refuses_appends_and_goes_on_serving() {
    let mut scene = Scene::filled();
    let store = scene.open();
    store.file.faults.set_full(true);
    let mut log = scene.logs[0].clone();
    let large: Vec<_> = (0..8).flat_map(|_| log.sign(4, 1_000_000)).collect();
    let refused = store.append(&large);
    assert!(matches!(refused, Err(StoreError::Io(_))), "{refused:?}");
    assert!(scene.serves_whole_or_reports(&store));
    scene.world.assert_sound(&store);
    store.file.faults.set_full(false);
    assert!(store.append(&large).unwrap().outcomes[0].is_ok());
    scene.logs[0] = log;
    assert!(scene.serves_whole_or_reports(&store));
    drop(store);
    scene.world.assert_sound(&scene.open());
}

#[test]
fn a_disk_that_fails_is_an_error_until_it_works_again() {
    let mut scene = Scene::filled();
    let store = scene.open();
    store.file.faults.fail_after(0);
    let run = scene.logs[0].run(2);
    for _ in 0..3 {
        assert!(store.append(std::slice::from_ref(&run)).is_err());
    }
    store.file.faults.fail_after(-1);
    assert!(store.append(&[run]).unwrap().outcomes[0].is_ok());
    assert!(scene.serves_whole_or_reports(&store));
    scene.world.assert_sound(&store);
}

#[test]
fn a_settled_store_needs_no_repair_after_a_kill() {
    let mut scene = Scene::filled();
    let store = scene.open();
    let mut repairs = Vec::new();
    for settled in [false, true] {
        let run = scene.logs[0].run(1);
        assert!(store.append(&[run]).unwrap().outcomes[0].is_ok());
        if settled {
            store.settle().unwrap();
        }
        // The file as a kill would leave it.
        let killed = scene.folder.path().join("killed");
        fs::copy(&scene.path, &killed).unwrap();
        let file = StoreFile::open(&killed).unwrap();
        let count = Arc::new(AtomicU32::new(0));
        let counted = Arc::clone(&count);
        let database = redb::Database::builder()
            .set_repair_callback(move |_| {
                counted.fetch_add(1, SeqCst);
            })
            .create_with_backend(file.backend())
            .unwrap();
        drop((database, file));
        repairs.push(count.load(SeqCst) > 0);
        let store = DiskStore::open(&killed).unwrap();
        assert!(scene.serves_whole_or_reports(&store));
    }
    assert_eq!(repairs, [true, false]);
}

/// Names the store the child of the next test appends to.
const CHILD_PATH: &str = "HEADWATER_STORE_TEST_CHILD";

/// Appends for ever and prints each head once it is acknowledged. No test of its own: the next
/// one starts it in a process and kills that.
#[test]
fn child_of_the_kill_test() {
    let Some(path) = std::env::var_os(CHILD_PATH) else {
        return;
    };
    let store = DiskStore::open(path).unwrap();
    let world = World::new(1);
    let mut log = world.author(1);
    let held = store.head(&world.space(), &log.author()).unwrap();
    let held = held.map_or(0, |head| head.entry.head.seq);
    // The same events again, so that the log goes on from where it was killed.
    log.sign(usize::try_from(held).unwrap(), 300);
    for turn in 0u64.. {
        let runs = log.sign(if turn % 5 == 0 { 400 } else { 1 }, 300);
        assert!(store.append(&runs).unwrap().outcomes[0].is_ok());
        if turn % 7 == 0 {
            store.settle().unwrap();
        }
        println!("\nacknowledged {}", log.head().unwrap().seq);
    }
}

#[test]
fn a_killed_process_loses_nothing_it_acknowledged() {
    let scene = Scene::new();
    {
        let store = DiskStore::create(&scene.path).unwrap();
        scene.world.found(&store);
    }
    for round in 1..=10 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "disk::tests::crashes::child_of_the_kill_test",
                "--nocapture",
            ])
            .env(CHILD_PATH, &scene.path)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut acknowledged = lines.filter_map(|line| {
            let line = line.unwrap();
            line.strip_prefix("acknowledged ")?.parse::<u64>().ok()
        });
        let before = acknowledged.nth(3 * round).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        // What it printed between the kill and its end was acknowledged too.
        let last = acknowledged.last().unwrap_or(before);
        let store = scene.open();
        let author = scene.world.author(1).author();
        let head = store.head(&scene.world.space(), &author).unwrap().unwrap();
        assert!(head.entry.head.seq >= last, "{last} was acknowledged");
        scene.world.assert_sound(&store);
    }
}
