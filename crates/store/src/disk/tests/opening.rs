//! Who gets a store and who gets an error.

use std::fs;

use super::{Scene, flip};
use crate::{DiskStore, DiskStoreOptions, LogStore, StoreError};

#[test]
fn a_reopened_store_holds_everything() {
    let mut scene = Scene::filled();
    let id = {
        let store = scene.open();
        scene.world.assert_sound(&store);
        assert!(scene.serves_whole_or_reports(&store));
        store.id()
    };
    let store = scene.open();
    assert_eq!(store.id(), id);
    let more = scene.logs[2].run(4);
    assert!(store.append(&[more]).unwrap().outcomes[0].is_ok());
    drop(store);
    let store = DiskStore::open_or_create(&scene.path).unwrap();
    assert!(scene.serves_whole_or_reports(&store));
    scene.world.assert_sound(&store);
}

#[test]
fn two_stores_never_have_one_file_open() {
    let scene = Scene::filled();
    let store = scene.open();
    for again in [
        DiskStore::open(&scene.path),
        DiskStore::open_or_create(&scene.path),
    ] {
        assert!(matches!(again, Err(StoreError::AlreadyOpen { .. })));
    }
    assert!(scene.serves_whole_or_reports(&store));
    drop(store);
    scene.world.assert_sound(&scene.open());
}

#[test]
fn opening_makes_no_file_and_creating_replaces_none() {
    let scene = Scene::new();
    let opened = DiskStore::open(&scene.path);
    assert!(matches!(opened, Err(StoreError::NotFound { .. })));
    assert_eq!(fs::read_dir(scene.folder.path()).unwrap().count(), 0);
    fs::write(&scene.path, "a letter").unwrap();
    let created = DiskStore::create(&scene.path);
    assert!(matches!(created, Err(StoreError::AlreadyExists { .. })));
    assert_eq!(fs::read(&scene.path).unwrap(), b"a letter");
    assert_eq!(fs::read_dir(scene.folder.path()).unwrap().count(), 1);
}

#[test]
fn creation_leaves_the_finished_file_alone_in_its_folder() {
    let scene = Scene::new();
    drop(DiskStore::create(&scene.path).unwrap());
    let names: Vec<_> = fs::read_dir(scene.folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(names, ["store"]);
    let nowhere = scene.folder.path().join("no folder").join("store");
    let created = DiskStore::create(&nowhere);
    assert!(matches!(created, Err(StoreError::Io(_))));
}

#[cfg(unix)]
#[test]
fn a_new_file_is_readable_by_its_owner_alone() {
    use std::os::unix::fs::PermissionsExt;

    let scene = Scene::new();
    drop(DiskStore::create(&scene.path).unwrap());
    let mode = fs::metadata(&scene.path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn a_foreign_file_is_refused_and_left_alone() {
    let scene = Scene::new();
    let database = scene.folder.path().join("another");
    drop(redb::Database::create(&database).unwrap());
    let foreign = [
        Vec::new(),
        b"head".to_vec(),
        b"SQLite format 3\0 and more of it".to_vec(),
        vec![0; 100_000],
        fs::read(&database).unwrap(),
    ];
    for content in foreign {
        fs::write(&scene.path, &content).unwrap();
        for opened in [
            DiskStore::open(&scene.path),
            DiskStore::open_or_create(&scene.path),
        ] {
            let refused = matches!(opened, Err(StoreError::ForeignFile { .. }));
            assert!(refused, "{opened:?}");
        }
        assert!(fs::read(&scene.path).unwrap() == content);
    }
}

#[test]
fn forks_and_bounds_outlive_the_store_that_found_them() {
    let scene = Scene::filled();
    let space = scene.world.space();
    let [fork, bound, gone, absent] = [0, 1, 2, 9].map(|number| scene.world.author(number));
    let told = |store: &DiskStore| {
        let logs = [&fork, &bound, &gone, &absent].map(|log| {
            let author = log.author();
            (
                store.head(&space, &author).unwrap(),
                store.fork(&space, &author).unwrap(),
                store.stored_end(&space, &author).unwrap(),
                store.restriction(&space, &author).unwrap(),
            )
        });
        scene.world.assert_sound(store);
        (store.summary(&space).unwrap(), logs)
    };
    let before = {
        let store = scene.open();
        let _ = store.cut(&fork.proof(scene.logs[0].head_at(8))).unwrap();
        let bounds = [(&bound, 5), (&gone, 0), (&absent, 0)];
        for (log, through) in bounds {
            let _ = store
                .restrict(&space, &log.author(), Some(through))
                .unwrap();
        }
        told(&store)
    };
    let seqs = before
        .1
        .each_ref()
        .map(|log| log.0.map(|head| head.entry.head.seq));
    assert_eq!(seqs, [Some(8), Some(5), None, None]);
    assert_eq!(told(&scene.open()), before);
}

#[test]
fn another_format_is_refused_and_left_alone() {
    let scene = Scene::filled();
    for (mask, written) in [(1, 5), (7, 3), (6, 2), (5, 1)] {
        flip(&scene.path, 19, mask);
        let content = fs::read(&scene.path).unwrap();
        match DiskStore::open(&scene.path) {
            Err(StoreError::NewerFormat {
                found, supported, ..
            }) => assert_eq!((found, supported, written), (5, 4, 5)),
            Err(StoreError::OlderFormat {
                found, supported, ..
            }) => assert_eq!((found, supported, found < 4), (written, 4, true)),
            other => panic!("{other:?}"),
        }
        assert!(fs::read(&scene.path).unwrap() == content);
        flip(&scene.path, 19, mask);
    }
    scene.world.assert_sound(&scene.open());
}

#[test]
fn a_small_cache_is_enough_for_a_large_append() {
    let scene = Scene::new();
    let options = DiskStoreOptions::default().cache_bytes(256 * 1024);
    let store = DiskStore::create_with(&scene.path, options).unwrap();
    let mut log = scene.world.author(9);
    let mut call = vec![scene.world.genesis.clone()];
    call.extend(log.sign(50_000, 200));
    assert!(
        store
            .append(&call)
            .unwrap()
            .outcomes
            .iter()
            .all(Result::is_ok)
    );
    scene.world.assert_sound(&store);
}
