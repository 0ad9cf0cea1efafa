//! Honest peers: what a sync brings, what it costs, and that it goes on where it stopped.

use std::{future::IntoFuture, time::Duration};

use headwater::{
    AccessPolicy, Blame, Budget, CloseCode, DiskStore, EventDraft, Headwater, Limits, MemoryStore,
    Nobody, SessionError, SpaceId, SyncError, SyncOptions, SyncOutcome, SyncReport, Truncation,
    WriteError,
};
use iroh::EndpointId;
use n0_future::{StreamExt, boxed::BoxFuture};

use crate::{
    gate::GatedStore,
    nodes::{Node, assert_equal, author, contents, drafts, endpoint, filled, open, seq_of, write},
};

#[tokio::test]
async fn two_nodes_sync_a_space() {
    let (source, puller) = (Node::spawn().await, Node::spawn().await);
    let space = filled(&source.headwater, 10, 50).await;
    let pulled = puller.space(space.id());

    let report = pulled.sync_with(source.addr()).await.expect("synced");

    assert_eq!(report.outcome, SyncOutcome::Complete);
    assert_eq!(report.events, 501);
    assert_eq!(report.round_trips, 1);
    assert!(!report.first_digest_equal);
    assert_equal(&space, &pulled).await;
    puller.shutdown().await;
    source.shutdown().await;
}

#[tokio::test]
async fn two_disk_stores_sync_and_hold_the_same_when_opened_again() {
    let folder = tempfile::tempdir().expect("folder");
    let paths = [folder.path().join("source"), folder.path().join("puller")];
    let open = |path: &std::path::Path| {
        crate::nodes::open().store(DiskStore::open_or_create(path).expect("store"))
    };
    let id = {
        let source = Node::build(open(&paths[0])).await;
        let puller = Node::build(open(&paths[1])).await;
        let space = filled(&source.headwater, 20, 500).await;
        let pulled = puller.space(space.id());
        let report = pulled.sync_with(source.addr()).await.expect("synced");
        assert_eq!(report.events, 10_001);
        puller.shutdown().await;
        source.shutdown().await;
        space.id()
    };
    let [source, puller] = paths.map(|path| open(&path).open());
    assert_equal(&source.space(id), &puller.space(id)).await;
}

#[tokio::test]
async fn a_node_that_only_dials_pulls_and_is_asked_back() {
    let source = Node::spawn().await;
    let space = filled(&source.headwater, 3, 10).await;
    let dialler = open().spawn(endpoint().await);
    let pulled = dialler.space(space.id());
    pulled.sync_with(source.addr()).await.expect("synced");

    write(&pulled, 50, "new", 5).await;
    let report = pulled.sync_with(source.addr()).await.expect("synced");

    // The peer has pulled by the time the report is there.
    assert_eq!(report.events, 0);
    assert_eq!(seq_of(&space, author(50).id()).await, 5);
    assert_equal(&pulled, &space).await;
    dialler.shutdown().await;
    source.shutdown().await;
}

#[tokio::test]
async fn nodes_with_disjoint_authors_pull_from_each_other_and_end_equal() {
    let quiet = || open().ask_back(false);
    let (left, right) = (Node::build(quiet()).await, Node::build(quiet()).await);
    let ours = filled(&left.headwater, 0, 0).await;
    let theirs = right.space(ours.id());
    theirs.sync_with(left.addr()).await.expect("genesis");
    for number in 1..=5 {
        write(&ours, number, "left", 100).await;
        write(&theirs, 100 + number, "right", 200).await;
    }

    let to_right = theirs.sync_with(left.addr()).await.expect("synced");
    let to_left = ours.sync_with(right.addr()).await.expect("synced");

    assert_eq!((to_right.events, to_left.events), (500, 1000));
    assert_equal(&ours, &theirs).await;
    left.shutdown().await;
    right.shutdown().await;
}

#[tokio::test]
async fn a_third_node_pulls_from_one_then_the_other_and_holds_both() {
    let quiet = || open().ask_back(false);
    let (a, b, c) = (
        Node::build(quiet()).await,
        Node::build(quiet()).await,
        Node::build(quiet()).await,
    );
    let space = filled(&a.headwater, 4, 30).await;
    let at_b = b.space(space.id());
    at_b.sync_with(a.addr()).await.expect("synced");
    write(&space, 1, "only a", 7).await;
    write(&at_b, 2, "only b", 9).await;

    let at_c = c.space(space.id());
    let first = at_c.sync_with(a.addr()).await.expect("synced");
    let second = at_c.sync_with(b.addr()).await.expect("synced");

    assert_eq!((first.events, second.events), (128, 9));
    assert_eq!(seq_of(&at_c, author(1).id()).await, 37);
    assert_eq!(seq_of(&at_c, author(2).id()).await, 39);
    // Now each of the others lacks only what C can give.
    space.sync_with(c.addr()).await.expect("synced");
    at_b.sync_with(c.addr()).await.expect("synced");
    assert_equal(&space, &at_c).await;
    assert_equal(&space, &at_b).await;
    for node in [a, b, c] {
        node.shutdown().await;
    }
}

async fn equal_resync(authors: u32) -> SyncReport {
    let (source, puller) = (Node::spawn().await, Node::spawn().await);
    let space = filled(&source.headwater, authors - 1, 1).await;
    let pulled = puller.space(space.id());
    pulled.sync_with(source.addr()).await.expect("synced");
    let report = pulled.sync_with(source.addr()).await.expect("synced");
    assert_equal(&space, &pulled).await;
    puller.shutdown().await;
    source.shutdown().await;
    report
}

#[tokio::test]
async fn an_equal_resync_costs_one_round_trip_and_the_same_bytes_for_any_number_of_authors() {
    let one = equal_resync(1).await;
    let many = equal_resync(10_000).await;

    for report in [&one, &many] {
        assert!(report.first_digest_equal);
        assert_eq!(report.round_trips, 1);
        assert_eq!(report.events, 0);
    }
    assert!(one.wire_bytes_sent.abs_diff(many.wire_bytes_sent) <= 16);
    assert!(one.wire_bytes_received.abs_diff(many.wire_bytes_received) <= 16);
    println!(
        "equal re-sync: {} bytes out, {} in",
        many.wire_bytes_sent, many.wire_bytes_received
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pull_dropped_in_the_middle_goes_on_from_what_was_stored() {
    let source = Node::spawn().await;
    // More than may be on its way at a time.
    let space = filled(&source.headwater, 0, 0).await;
    for number in 1..=20 {
        let large = (0..500).map(|at| EventDraft::new(16, at, vec![number as u8; 1000]));
        let appended = space.append_batch(&author(number), large.collect()).await;
        appended.expect("appended");
    }
    let (store, gate) = GatedStore::new(MemoryStore::new(), 2);
    let mut limits = Limits::default();
    limits.commit_bytes = 1;
    let puller = Node::build(open().store(store).limits(limits)).await;
    let pulled = puller.space(space.id());

    let handle = pulled.sync_with(source.addr());
    gate.reached().await;
    drop(handle);
    gate.open();
    // Commits are in order: this one comes after those that waited.
    write(&pulled, 99, "mine", 1).await;
    let before = pulled
        .summary()
        .await
        .expect("summary")
        .expect("held")
        .events
        - 1;
    assert!(
        before > 0 && before < 10_001,
        "{before} events in the middle"
    );

    let report = pulled.sync_with(source.addr()).await.expect("synced");

    // A batch that was on its way to the writer may have been stored since.
    assert!(report.events > 0 && report.events <= 10_001 - before);
    assert_eq!(report.outcome, SyncOutcome::Complete);
    assert_equal(&space, &pulled).await;
    puller.shutdown().await;
    source.shutdown().await;
}

#[tokio::test]
async fn a_budget_cuts_the_history_and_the_next_sync_goes_on() {
    let (source, puller) = (Node::spawn().await, Node::spawn().await);
    let space = filled(&source.headwater, 10, 100).await;
    let pulled = puller.space(space.id());
    let budget = Budget {
        events: Some(300),
        payload_bytes: None,
    };
    let options = SyncOptions::default().with_budget(budget);

    let cut = pulled.sync_with_options(source.addr(), options);
    let cut = cut.await.expect("synced");
    let rest = pulled.sync_with(source.addr()).await.expect("synced");

    assert_eq!(cut.outcome, SyncOutcome::Truncated(Truncation::Budget));
    assert!(cut.events >= 300 && cut.events < 500, "{}", cut.events);
    assert_eq!(cut.events + rest.events, 1001);
    assert_equal(&space, &pulled).await;
    puller.shutdown().await;
    source.shutdown().await;
}

#[tokio::test]
async fn progress_states_the_plan_first_and_ends_with_everything_applied() {
    let (source, puller) = (Node::spawn().await, Node::spawn().await);
    let space = filled(&source.headwater, 10, 1000).await;
    let pulled = puller.space(space.id());

    let mut handle = pulled.sync_with(source.addr());
    let mut seen = Vec::new();
    while let Some(progress) = handle.next().await {
        seen.push(progress);
    }
    let report = handle.await.expect("synced");

    let last = seen.last().expect("progress was made");
    assert_eq!(last.applied.events, report.events);
    assert_eq!(last.planned.events, report.events);
    let events = seen.iter().map(|progress| progress.applied.events);
    assert!(events.is_sorted(), "applied never goes back");
    puller.shutdown().await;
    source.shutdown().await;
}

#[tokio::test]
async fn a_forked_author_is_cut_and_the_others_go_on() {
    let quiet = || open().ask_back(false);
    let (left, right) = (Node::build(quiet()).await, Node::build(quiet()).await);
    let ours = filled(&left.headwater, 3, 10).await;
    let theirs = right.space(ours.id());
    theirs.sync_with(left.addr()).await.expect("synced");
    // One key on two devices.
    let forked = author(2);
    write(&ours, 2, "here", 3).await;
    write(&theirs, 2, "there", 3).await;
    write(&ours, 3, "more", 4).await;

    let report = theirs.sync_with(left.addr()).await.expect("synced");

    let forks: Vec<_> = report.forks.iter().map(|fork| fork.author).collect();
    assert_eq!(forks, [forked.id()]);
    assert_eq!(report.outcome, SyncOutcome::Complete);
    assert_eq!(report.events, 4);
    let above = theirs.event(forked.id(), 11).await.expect("readable");
    assert_eq!(above, None, "neither branch is shown");
    left.shutdown().await;
    right.shutdown().await;
}

async fn refusal(node: &Node, space: SpaceId) -> SyncError {
    let stranger = open().spawn(endpoint().await);
    let refused = stranger.space(space).sync_with(node.addr()).await;
    stranger.shutdown().await;
    refused.expect_err("not served")
}

#[tokio::test]
async fn a_refused_space_and_an_unknown_one_are_answered_alike() {
    fn closed(policy: impl AccessPolicy) -> headwater::Builder {
        Headwater::builder().policy(policy)
    }
    let node = Node::build(closed(Nobody)).await;
    let held = filled(&node.headwater, 1, 1).await;
    let unknown = SpaceId::from_bytes([9; 32]);

    for space in [held.id(), unknown] {
        let error = refusal(&node, space).await;
        let reset = SessionError::Reset(CloseCode::Refused);
        assert!(
            matches!(&error, SyncError::Session(error) if *error == reset),
            "{error}"
        );
    }
    assert_eq!(contents(&held).await.len(), 2);
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn syncs_of_one_space_with_one_peer_take_turns() {
    let (source, puller) = (Node::spawn().await, Node::spawn().await);
    let space = filled(&source.headwater, 5, 200).await;
    let pulled = puller.space(space.id());

    let syncs: Vec<_> = (0..8).map(|_| pulled.sync_with(source.addr())).collect();
    let mut events = 0;
    for sync in syncs {
        events += sync.await.expect("synced").events;
    }

    assert_eq!(events, 1001, "nothing was pulled twice");
    assert_eq!(source.headwater.metrics().connections_accepted.get(), 1);
    puller.shutdown().await;
    source.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_nodes_that_sync_with_each_other_at_once_both_end_and_hold_the_same() {
    let (left, right) = (Node::spawn().await, Node::spawn().await);
    let ours = filled(&left.headwater, 2, 50).await;
    let theirs = right.space(ours.id());
    theirs.sync_with(left.addr()).await.expect("synced");
    for round in 0..10 {
        write(&ours, 10 + round, "left", 20).await;
        write(&theirs, 30 + round, "right", 20).await;
        let (one, other) = tokio::join!(
            ours.sync_with(right.addr()).into_future(),
            theirs.sync_with(left.addr()).into_future(),
        );
        one.expect("synced");
        other.expect("synced");
        assert_equal(&ours, &theirs).await;
    }
    left.shutdown().await;
    right.shutdown().await;
}

#[tokio::test]
async fn a_peer_beyond_the_limit_is_told_the_node_is_busy() {
    let mut limits = Limits::default();
    limits.syncs_total = 0;
    limits.busy_after = Duration::ZERO;
    let busy = Node::build(open().limits(limits)).await;
    let space = filled(&busy.headwater, 1, 1).await;

    let error = refusal(&busy, space.id()).await;
    let retry_after = Duration::from_secs(1);
    let told = SessionError::Busy { retry_after };
    assert!(
        matches!(&error, SyncError::Session(error) if *error == told),
        "{error}"
    );

    let mut limits = Limits::default();
    limits.connections_total = 0;
    let full = Node::build(open().limits(limits)).await;
    let error = refusal(&full, space.id()).await;
    let code = CloseCode::TooManyConnections;
    assert!(
        matches!(&error, SyncError::Closed { code: found } if *found == code),
        "{error}"
    );
    busy.shutdown().await;
    full.shutdown().await;
}

/// Breaks when it is asked.
#[derive(Debug)]
struct Broken;

impl AccessPolicy for Broken {
    fn may_read(&self, _: EndpointId, _: SpaceId) -> BoxFuture<bool> {
        panic!("a policy that panics")
    }
}

#[tokio::test]
async fn a_panic_while_serving_ends_that_request_and_not_the_node() {
    let node = Node::build(Headwater::builder().policy(Broken)).await;
    let space = filled(&node.headwater, 1, 1).await;
    for _ in 0..3 {
        let error = refusal(&node, space.id()).await;
        let reset = SessionError::Reset(CloseCode::Internal);
        assert!(
            matches!(&error, SyncError::Session(error) if *error == reset),
            "{error}"
        );
    }
    write(&space, 1, "still here", 1).await;
    node.shutdown().await;
}

#[tokio::test]
async fn a_full_disk_fails_the_sync_acknowledges_nothing_and_leaves_reading_and_serving() {
    let source = Node::spawn().await;
    let space = filled(&source.headwater, 5, 50).await;
    let (store, gate) = GatedStore::new(MemoryStore::new(), usize::MAX);
    let full = Node::build(open().store(store)).await;
    let pulled = full.space(space.id());
    pulled.sync_with(source.addr()).await.expect("synced");
    write(&space, 2, "more", 5).await;
    gate.break_store();

    let error = pulled.sync_with(source.addr()).await.expect_err("failed");
    assert!(matches!(error, SyncError::Store(_)), "{error}");
    assert_eq!(error.blame(), Blame::Local);
    let refused = pulled.append_batch(&author(2), drafts("mine", 1)).await;
    assert!(matches!(refused, Err(WriteError::Store(_))), "{refused:?}");

    assert_eq!(seq_of(&pulled, author(2).id()).await, 50);
    let third = Node::spawn().await;
    let copy = third.space(space.id());
    copy.sync_with(full.addr()).await.expect("served");
    assert_equal(&pulled, &copy).await;
    for node in [source, full, third] {
        node.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_closed_as_idle_are_dialled_anew() {
    let mut limits = Limits::default();
    limits.idle_connection = Duration::ZERO;
    let source = Node::spawn().await;
    let puller = Node::build(open().limits(limits)).await;
    let space = filled(&source.headwater, 1, 1).await;
    let pulled = puller.space(space.id());

    for round in 0..30 {
        write(&space, 1, "one more", 1).await;
        let report = pulled.sync_with(source.addr()).await.expect("synced");
        assert_eq!(report.events, if round == 0 { 3 } else { 1 });
    }

    assert_equal(&space, &pulled).await;
    puller.shutdown().await;
    source.shutdown().await;
}

#[tokio::test]
async fn a_dead_address_and_a_missing_network_are_named() {
    let nowhere = endpoint().await;
    let addr = nowhere.addr();
    nowhere.close().await;
    let mut limits = Limits::default();
    limits.dial_timeout = Duration::from_millis(50);
    let dialler = open().limits(limits).spawn(endpoint().await);
    let space = SpaceId::from_bytes([1; 32]);

    let error = dialler.space(space).sync_with(addr.clone()).await;
    assert!(
        matches!(error, Err(SyncError::DialTimeout { .. })),
        "{error:?}"
    );

    let offline = open().open();
    let error = offline.space(space).sync_with(addr).await;
    assert!(matches!(error, Err(SyncError::Offline)), "{error:?}");
    dialler.shutdown().await;
}
