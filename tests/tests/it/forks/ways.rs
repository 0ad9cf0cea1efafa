//! The ways by which a fork comes to a node, other than a sync of its history.

use std::{fs, path::Path, sync::Arc};

use headwater::{
    AllowList, AppendError, Blame, CloseCode, DiskStore, Headwater, LiveEnding, LogStore,
    MemoryStore, SessionError, SyncError, SyncOptions, VerifiedRun, WriteError, wire::sign_runs,
};
use iroh::SecretKey;

use super::*;
use crate::{
    gate::GatedStore,
    nodes::{assert_equal, seq_of},
};

/// The forker's next run behind what a node shows, as another device of theirs would sign it.
async fn elsewhere(space: &Space, above: u64, tag: &str) -> VerifiedRun {
    let base = space.event(forker(), above).await.expect("readable");
    let base = base.map(|event| headwater::AuthorHead {
        seq: above,
        id: event.id,
    });
    let signed = sign_runs(&space.id(), &author(FORKER), base, more(tag));
    signed.expect("signed").remove(0)
}

#[tokio::test]
async fn a_fork_that_comes_outside_a_sync_cuts_and_is_told_to_everybody() {
    let (left, right, ours, theirs) = pair(10).await;
    let (mut told_here, mut growth) = (follow(&ours), ours.growth());
    let sender = SecretKey::from_bytes(&[3; 32]).public();
    let before = ours
        .summary()
        .await
        .expect("readable")
        .expect("held")
        .digest;

    let run = elsewhere(&ours, 7, "elsewhere").await.into_run();
    let outcomes = ours.apply(vec![run], sender).await.expect("applied");

    let forked = AppendError::Forked {
        author: forker(),
        seq: 8,
    };
    assert_eq!(outcomes, [Err(forked)]);
    assert_eq!(told(&mut told_here).await, (forker(), 8));
    let grown = growth.next().await;
    assert_eq!(grown.len(), 1);
    assert_eq!(
        (grown[0].author, grown[0].through, grown[0].forked),
        (forker(), 7, Some(8))
    );
    assert_eq!(ours.signed_head(forker()).await.expect("readable"), None);
    let after = ours
        .summary()
        .await
        .expect("readable")
        .expect("held")
        .digest;
    assert_ne!(before, after);
    // Whoever pulls learns of it.
    assert_repaired(&sync(&theirs, &left).await, 8);
    assert_equal(&ours, &theirs).await;
    left.shutdown().await;
    right.shutdown().await;
}

#[tokio::test]
async fn a_live_reader_that_is_sent_another_branch_cuts_tells_and_goes_on_with_the_others() {
    let (left, right, ours, theirs) = pair(10).await;
    let mut live = theirs.sync_with_options(left.addr(), SyncOptions::live());
    live.history().await.expect("complete");
    let (mut here, mut there) = (follow(&ours), follow(&theirs));
    write(&theirs, FORKER, "there", 1).await;

    write(&ours, FORKER, "here", 1).await;

    assert_eq!(told(&mut there).await, (forker(), 11));
    assert_eq!(told(&mut here).await, (forker(), 11));
    write(&ours, 3, "more", 1).await;
    let mut items = there;
    loop {
        match items.next().await.expect("goes on").expect("readable") {
            SubscriptionItem::Event(event) if event.header.author == author(3).id() => break,
            _ => {}
        }
    }
    assert_equal(&ours, &theirs).await;
    live.stop();
    let report = live.await.expect("ended in order");
    let forked: Vec<_> = report.forks.iter().map(|fork| fork.author).collect();
    assert_eq!(forked, [forker()]);
    left.shutdown().await;
    right.shutdown().await;
}

#[tokio::test]
async fn a_live_sync_that_begins_with_a_fork_puts_it_right_and_stays_live() {
    let (left, right, ours, theirs) = pair(10).await;
    branch(&ours, &theirs, 5, 3).await;
    let mut live = theirs.sync_with_options(left.addr(), SyncOptions::live());
    let history = live.history().await.expect("complete");
    assert_repaired(&history, 11);
    assert_equal(&ours, &theirs).await;
    let mut there = follow(&theirs);

    write(&ours, 3, "more", 1).await;

    loop {
        match there.next().await.expect("goes on").expect("readable") {
            SubscriptionItem::Event(event) if event.header.author == author(3).id() => break,
            _ => {}
        }
    }
    live.stop();
    assert_repaired(&live.await.expect("ended in order"), 11);
    left.shutdown().await;
    right.shutdown().await;
}

#[tokio::test]
async fn a_live_reader_learns_of_a_fork_its_provider_finds_by_syncing_again() {
    let (left, right, ours, theirs) = pair(10).await;
    let mut live = theirs.sync_with_options(left.addr(), SyncOptions::live());
    live.history().await.expect("complete");
    let sender = SecretKey::from_bytes(&[3; 32]).public();

    let run = elsewhere(&ours, 7, "elsewhere").await.into_run();
    let outcomes = ours.apply(vec![run], sender).await.expect("applied");
    assert!(outcomes[0].is_err());

    let report = live.await.expect("ended in order");
    assert_eq!(report.live_end, Some(LiveEnding::Closed));
    assert_repaired(&sync(&theirs, &left).await, 8);
    assert_equal(&ours, &theirs).await;
    left.shutdown().await;
    right.shutdown().await;
}

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("created");
    for entry in fs::read_dir(from).expect("listed") {
        let entry = entry.expect("listed");
        fs::copy(entry.path(), to.join(entry.file_name())).expect("copied");
    }
}

#[tokio::test]
async fn a_restored_backup_that_was_written_to_is_found_out_and_writes_no_more() {
    let folder = tempfile::tempdir().expect("folder");
    let (path, backup) = (folder.path().join("store"), folder.path().join("backup"));
    let on_disk = |path: &Path| {
        let store = DiskStore::open_or_create(path).expect("store");
        open().ask_back(false).store(store)
    };
    let device = Node::build(on_disk(&path)).await;
    let space = crate::nodes::filled(&device.headwater, 3, 10).await.id();
    device.shutdown().await;
    if path.is_dir() {
        copy_folder(&path, &backup);
    } else {
        fs::copy(&path, &backup).expect("copied");
    }

    let device = Node::build(on_disk(&path)).await;
    let restored = Node::build(on_disk(&backup)).await;
    let (ours, theirs) = (device.space(space), restored.space(space));
    branch(&ours, &theirs, 5, 3).await;
    assert_repaired(&sync(&theirs, &device).await, 11);
    assert_equal(&ours, &theirs).await;
    for space in [&ours, &theirs] {
        let refused = space.append_batch(&author(FORKER), more("later")).await;
        assert!(matches!(refused, Err(WriteError::Forked { seq: 11, .. })));
    }
    device.shutdown().await;
    restored.shutdown().await;
    // It is known after a restart.
    drop((ours, theirs));
    let device = Node::build(on_disk(&path)).await;
    let ours = device.space(space);
    assert_eq!(forks(&ours).await, [(forker(), 11)]);
    assert_eq!(seq_of(&ours, forker()).await, 10);
    let known = ours
        .fork_of(forker())
        .await
        .expect("readable")
        .expect("known");
    assert_eq!(known.evidence_events, 5);
    let proof = known.proof.verify(&space).expect("proves itself");
    assert_eq!((proof.author(), proof.seq()), (forker(), 11));
    device.shutdown().await;
}

/// Gives a node a run of the forker's that contradicts event `seq` of the log it holds.
async fn contradict(space: &Space, seq: u64) {
    let run = elsewhere(space, seq - 1, "another branch").await;
    let runs = vec![run.into_run()];
    let from = SecretKey::from_bytes(&[77; 32]).public();
    space.apply(runs, from).await.expect("sound");
}

#[tokio::test]
async fn a_log_that_is_cut_lower_once_more_ends_no_live_stream() {
    let (left, right, ours, theirs) = pair(10).await;
    contradict(&ours, 9).await;
    let mut live = theirs.sync_with_options(left.addr(), SyncOptions::live());
    live.history().await.expect("complete");
    assert_eq!(forks(&theirs).await, [(forker(), 9)]);
    let mut items = follow(&theirs);
    let served = left.headwater.metrics().serves_completed.get();

    contradict(&ours, 5).await;
    assert_eq!(forks(&ours).await, [(forker(), 5)]);
    write(&ours, 3, "more", 1).await;

    loop {
        match items.next().await.expect("goes on").expect("readable") {
            SubscriptionItem::Event(event) if event.header.author == author(3).id() => break,
            _ => {}
        }
    }
    assert_eq!(left.headwater.metrics().serves_completed.get(), served);
    live.stop();
    live.await.expect("ended in order");
    // The digest says the rest.
    sync(&theirs, &left).await;
    assert_equal(&ours, &theirs).await;
    left.shutdown().await;
    right.shutdown().await;
}

#[tokio::test]
async fn nothing_is_compared_with_a_peer_that_may_not_read() {
    let left = super::quiet().await;
    let ours = crate::nodes::filled(&left.headwater, 3, 10).await;
    let lists = AllowList::new();
    let right = Node::build(Headwater::builder().policy(lists.clone()).ask_back(false)).await;
    lists.set_any_writer(ours.id(), true);
    let theirs = right.space(ours.id());
    sync(&theirs, &left).await;
    branch(&ours, &theirs, 1, 1).await;
    let report = sync(&theirs, &left).await;
    assert_eq!(report.forks.len(), 1);
    assert!(!report.forks[0].repaired, "{report:?}");
    assert_eq!(forks(&ours).await, [], "nothing was told");
    left.shutdown().await;
    right.shutdown().await;
}

#[tokio::test]
async fn a_log_cut_while_it_is_served_ends_the_sync_by_name_and_the_next_one_goes_on() {
    let (store, gate) = GatedStore::new(MemoryStore::new(), usize::MAX);
    let store: Arc<dyn LogStore> = Arc::new(store);
    let left = Node::build(open().ask_back(false).shared_store(Arc::clone(&store))).await;
    let ours = crate::nodes::filled(&left.headwater, 3, 10).await;
    // A run that ends above the cut is served whole; this one lies above.
    crate::nodes::write(&ours, FORKER, "later", 3).await;
    let other = elsewhere(&ours, 4, "elsewhere").await;
    let right = quiet().await;
    let theirs = right.space(ours.id());
    // Behind the owner's runs, when the plan of all others is made.
    let (cuts, then) = (Arc::clone(&store), gate.clone());
    gate.before_read(move || {
        then.before_read(move || {
            let commit = cuts.append(&[other]).expect("stored");
            assert_eq!(commit.forks.len(), 1);
        });
    });

    let ended = theirs.sync_with(left.addr()).await.expect_err("cut short");

    let cut = SyncError::Session(SessionError::Reset(CloseCode::LogCut));
    assert_eq!(ended.to_string(), cut.to_string());
    assert_ne!(ended.blame(), Blame::Peer);
    let report = sync(&theirs, &left).await;
    assert_repaired(&report, 5);
    assert_equal(&ours, &theirs).await;
    left.shutdown().await;
    right.shutdown().await;
}
