//! The floor of free space, and what a failing store leaves of a call.

use std::{fs, process::Command, sync::Arc};

use headwater::{
    ApplyRunsError, Blame, DiskStore, EventDraft, Headwater, MemoryStore, Roles, StoreError,
    SyncError, VerifiedRun, WriteError,
    wire::{Grant, sign_runs},
};

use super::{large, limits};
use crate::{
    gate::GatedStore,
    nodes::{Node, assert_equal, author, drafts, filled, open, seq_of, write},
};

const FLOOR: u64 = 1_000_000;

/// So little more than the floor that the next commit looks again.
const ENOUGH: u64 = FLOOR + 1_000;

fn is_low(error: &StoreError) -> bool {
    matches!(
        error,
        StoreError::LowSpace {
            free: 500,
            floor: FLOOR
        }
    )
}

#[tokio::test]
async fn a_node_whose_disk_is_nearly_full_stores_nothing_and_serves_on() {
    let (store, gate) = GatedStore::new(MemoryStore::new(), usize::MAX);
    gate.set_free_bytes(ENOUGH);
    let floor = limits(|limits| limits.free_disk_floor = Some(FLOOR));
    let node = Node::build(open().limits(floor).store(store)).await;
    let space = filled(&node.headwater, 2, 10).await;
    gate.set_free_bytes(500);
    let refused = space.append_batch(&author(1), drafts("too late", 20)).await;
    let error = refused.expect_err("no room");
    assert!(
        matches!(&error, WriteError::Store(error) if is_low(error)),
        "{error}"
    );
    assert_eq!(seq_of(&space, author(1).id()).await, 10);

    let reader = Node::spawn().await;
    let copy = reader.space(space.id());
    copy.sync_with(node.addr()).await.expect("served");
    assert_equal(&space, &copy).await;
    write(&copy, 3, "elsewhere", 5).await;
    let error = space.sync_with(reader.addr()).await.expect_err("no room");
    assert_eq!(error.blame(), Blame::Local);
    assert!(
        matches!(&error, SyncError::Store(error) if is_low(error)),
        "{error}"
    );

    gate.set_free_bytes(ENOUGH + 10_000_000);
    space.sync_with(reader.addr()).await.expect("taken");
    write(&space, 1, "again", 20).await;
    assert_eq!(seq_of(&space, author(1).id()).await, 30);
    assert_eq!(node.headwater.metrics().peer_faults.get(), 0);
}

#[tokio::test]
async fn a_store_on_a_small_disk_leaves_the_floor_free_and_goes_on_when_there_is_room() {
    let folder = tempfile::tempdir().expect("folder");
    let mounted = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=16m", "tmpfs"])
        .arg(folder.path())
        .output();
    if !mounted.is_ok_and(|mounted| mounted.status.success()) {
        println!("skipped: a small disk cannot be mounted here");
        return;
    }
    let filler = folder.path().join("filler");
    fs::write(&filler, vec![0; 6 * 1024 * 1024]).expect("room");
    let store = DiskStore::create(folder.path().join("store")).expect("created");
    let store = Arc::new(store);
    let floor = limits(|limits| limits.free_disk_floor = Some(2 * 1024 * 1024));
    let node = open().limits(floor).shared_store(store).open();
    let space = node.create_space(&author(0)).await.expect("created");
    let mut stored = 0;
    let error = loop {
        match space.append_batch(&author(1), large(1, 50_000)).await {
            Ok(head) => stored = head.seq,
            Err(error) => break error,
        }
        assert!(stored < 400, "the floor is not kept");
    };
    let WriteError::Store(error) = &error else {
        panic!("{error}");
    };
    assert!(matches!(&**error, StoreError::LowSpace { .. }), "{error}");
    assert!(stored > 5, "{stored}");
    assert_eq!(seq_of(&space, author(1).id()).await, stored);
    assert!(space.verify(|_| ()).await.expect("checked").is_sound());

    fs::remove_file(filler).expect("removed");
    let head = space.append_batch(&author(1), large(1, 50_000)).await;
    assert_eq!(head.expect("room again").seq, stored + 1);
    node.shutdown().await;
    drop((space, node));
    let unmounted = Command::new("umount").arg(folder.path()).status();
    assert!(unmounted.expect("ran").success());
}

#[tokio::test]
async fn whoever_applies_runs_is_told_what_was_stored_before_the_store_failed() {
    let (store, gate) = GatedStore::new(MemoryStore::new(), usize::MAX);
    let node = Headwater::builder().store(store).open();
    let space = node.create_space(&author(0)).await.expect("created");
    let head = space.head(author(0).id()).await.expect("readable");
    let head = head.expect("held").entry.head;
    let writer = author(1);
    let grant = EventDraft::grant(Grant::new(writer.id(), Roles::WRITE), 0);
    let mut runs = sign_runs(&space.id(), &author(0), Some(head), [grant]).expect("signed");
    runs.extend(sign_runs(&space.id(), &writer, None, drafts("new", 2)).expect("signed"));
    let runs: Vec<_> = runs.into_iter().map(VerifiedRun::into_run).collect();
    gate.damage(writer.id());
    let sender = Node::spawn().await.addr().id;
    let error = space.apply(runs, sender).await.expect_err("it fails");
    let ApplyRunsError::Store { outcomes, source } = &error else {
        panic!("{error}");
    };
    assert!(matches!(**source, StoreError::Damaged(_)));
    assert_eq!(outcomes.len(), 1);
    assert_eq!(outcomes[0].as_ref().expect("stored").head.seq, 2);
    assert_eq!(seq_of(&space, author(0).id()).await, 2);
    assert_eq!(seq_of(&space, writer.id()).await, 0);
}
