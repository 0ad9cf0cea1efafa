//! Logs and spaces above their quota.

use headwater::{
    AppendError, Headwater, Quota, Roles, SyncOutcome, Truncation, VerifiedRun, WriteError,
    wire::{OverQuota, sign_runs},
};

use super::{large, limits};
use crate::nodes::{Node, assert_equal, author, drafts, filled, open, seq_of, write};

const KIB: u64 = 1024;

#[tokio::test]
async fn a_log_above_its_quota_is_not_taken_and_all_others_are() {
    let source = Node::spawn().await;
    let space = filled(&source.headwater, 4, 10).await;
    let greedy = author(2);
    let appended = space.append_batch(&greedy, large(60, 8 * 1024)).await;
    appended.expect("appended");
    let bounded = limits(|limits| limits.author_quota = Quota::NONE.bytes(100 * KIB));
    let puller = Node::build(open().limits(bounded)).await;
    let pulled = puller.space(space.id());

    let report = pulled.sync_with(source.addr()).await.expect("synced");
    let over = Truncation::OverQuota { authors: 1 };
    assert_eq!(report.outcome, SyncOutcome::Truncated(over));
    assert_eq!(report.over_quota, [greedy.id()]);
    assert!(report.refused_bytes > 300 * KIB);
    let usage = pulled.usage(greedy.id()).await.expect("readable");
    assert!((10..=100 * KIB).contains(&usage.log.bytes), "{usage:?}");
    for number in [1, 3, 4] {
        assert_eq!(seq_of(&pulled, author(number).id()).await, 10);
    }

    // It is not asked for again at once, and what is new elsewhere comes.
    write(&space, 4, "new", 5).await;
    let again = pulled.sync_with(source.addr()).await.expect("synced");
    assert_eq!(again.outcome, SyncOutcome::Truncated(over));
    assert_eq!((again.events, again.refused_bytes), (5, 0));
    assert_eq!(again.over_quota, [greedy.id()]);
    assert!(again.wire_bytes_received < 2 * KIB, "{again:?}");
    assert_eq!(puller.headwater.metrics().peer_faults.get(), 0);
    assert!(pulled.verify(|_| ()).await.expect("checked").is_sound());
}

#[tokio::test]
async fn a_log_above_its_quota_that_forks_is_not_downloaded_at_every_sync() {
    let quiet = || open().ask_back(false);
    let (source, other) = (Node::build(quiet()).await, Node::build(quiet()).await);
    let space = filled(&source.headwater, 3, 10).await;
    let greedy = author(2);
    let appended = space.append_batch(&greedy, large(400, 8 * 1024)).await;
    appended.expect("appended");
    let copy = other.space(space.id());
    copy.sync_with(source.addr()).await.expect("synced");
    write(&space, 2, "here", 1).await;
    write(&copy, 2, "there", 1).await;
    let found = space.sync_with(other.addr()).await.expect("synced");
    assert_eq!(found.outcome, SyncOutcome::Complete, "{found:?}");
    let bounded = limits(|limits| limits.author_quota = Quota::NONE.bytes(100 * KIB));
    let puller = Node::build(quiet().limits(bounded)).await;
    let pulled = puller.space(space.id());
    let received = || puller.headwater.metrics().wire_bytes_received.get();

    let report = pulled.sync_with(source.addr()).await.expect("synced");

    let over = Truncation::OverQuota { authors: 1 };
    assert_eq!(report.outcome, SyncOutcome::Truncated(over), "{report:?}");
    assert_eq!(report.over_quota, [greedy.id()]);
    let first = received();
    assert!(first < 3_000 * KIB, "{first} bytes received");
    for number in [1, 3] {
        assert_eq!(seq_of(&pulled, author(number).id()).await, 10);
    }
    for _ in 0..2 {
        let again = pulled.sync_with(source.addr()).await.expect("synced");
        assert_eq!(again.outcome, SyncOutcome::Truncated(over), "{again:?}");
        assert_eq!(again.over_quota, [greedy.id()]);
    }
    let more = received() - first;
    assert!(more < 10 * KIB, "{more} bytes received");
    for node in [&source, &puller] {
        assert_eq!(node.headwater.metrics().peer_faults.get(), 0);
    }
}

#[tokio::test]
async fn a_node_that_lifts_the_quota_takes_the_rest() {
    let source = Node::spawn().await;
    let space = filled(&source.headwater, 2, 10).await;
    let appended = space.append_batch(&author(1), large(40, 8 * 1024)).await;
    appended.expect("appended");
    let store = std::sync::Arc::new(headwater::MemoryStore::new());
    let bounded = limits(|limits| limits.author_quota = Quota::NONE.bytes(100 * KIB));
    let puller = Node::build(open().limits(bounded).shared_store(store.clone())).await;
    let pulled = puller.space(space.id());
    pulled.sync_with(source.addr()).await.expect("synced");
    puller.shutdown().await;
    let unbounded = limits(|limits| {
        limits.author_quota = Quota::NONE;
        limits.space_quota = Quota::NONE;
    });
    let puller = Node::build(open().limits(unbounded).shared_store(store)).await;
    let pulled = puller.space(space.id());
    let report = pulled.sync_with(source.addr()).await.expect("synced");
    assert_eq!(report.outcome, SyncOutcome::Complete);
    assert_equal(&space, &pulled).await;
}

#[tokio::test]
async fn a_local_append_above_the_quota_is_refused_whole_and_a_smaller_one_goes_on() {
    let bounded = limits(|limits| limits.author_quota = Quota::NONE.bytes(50 * KIB));
    let node = open().limits(bounded).open();
    let space = node.create_space(&author(0)).await.expect("created");
    write(&space, 1, "before", 3).await;
    let refused = space.append_batch(&author(1), large(60, 8 * 1024)).await;
    let expected = AppendError::OverQuota {
        author: author(1).id(),
        quota: OverQuota::AuthorBytes,
        limit: 50 * KIB,
    };
    let error = refused.expect_err("too much");
    assert!(
        matches!(&error, WriteError::Append(refused) if *refused == expected),
        "{error}"
    );
    assert_eq!(seq_of(&space, author(1).id()).await, 3);

    // Of an import nothing is stored if one log would be too large.
    let batches = vec![
        (author(2), drafts("fits", 2)),
        (author(1), large(60, 8 * 1024)),
    ];
    space.import(batches).await.expect_err("too much");
    assert_eq!(seq_of(&space, author(2).id()).await, 0);
    assert_eq!(write(&space, 1, "after", 2).await.seq, 5);
}

#[tokio::test]
async fn local_appends_at_once_do_not_together_cross_a_quota() {
    let bounded = limits(|limits| limits.author_quota = Quota::NONE.events(20));
    let node = open().limits(bounded).open();
    let space = node.create_space(&author(0)).await.expect("created");
    let secret = author(1);
    let appends = (0..50).map(|at| {
        let mut drafts = large(1, 10);
        drafts[0].timestamp_ms = at;
        space.append_batch(&secret, drafts)
    });
    let outcomes = n0_future::join_all(appends).await;
    let stored = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
    assert_eq!(stored, 20);
    assert_eq!(seq_of(&space, author(1).id()).await, 20);
    for refused in outcomes.into_iter().filter_map(Result::err) {
        let is_over = matches!(&refused, WriteError::Append(AppendError::OverQuota { .. }));
        assert!(is_over, "{refused}");
    }
}

#[tokio::test]
async fn whoever_fills_a_space_does_not_keep_its_owner_from_revoking() {
    let bounded = limits(|limits| limits.space_quota = Quota::NONE.bytes(20 * KIB));
    let node = Headwater::builder().limits(bounded).open();
    let space = node.create_space(&author(0)).await.expect("created");
    let writer = author(1);
    let granted = space.grant(&author(0), writer.id(), Roles::WRITE).await;
    granted.expect("granted");
    let refused = loop {
        let appended = space.append_batch(&writer, large(1, 2048)).await;
        if let Err(refused) = appended {
            break refused;
        }
    };
    let is_full = |error: &WriteError| {
        let WriteError::Append(AppendError::OverQuota { quota, .. }) = error else {
            return false;
        };
        *quota == OverQuota::SpaceBytes
    };
    assert!(is_full(&refused), "{refused}");
    let revoked = space.revoke(&author(0), writer.id(), Roles::WRITE).await;
    revoked.expect("revoked");
    let granted = space.grant(&author(0), author(2).id(), Roles::WRITE).await;
    granted.expect("granted");
    let refused = space.append_batch(&author(2), large(1, 2048)).await;
    assert!(is_full(&refused.expect_err("full")));
}

#[tokio::test]
async fn a_run_by_gossip_above_the_quota_is_refused_and_says_so() {
    let bounded = limits(|limits| limits.author_quota = Quota::NONE.events(5));
    let node = open().limits(bounded).open();
    let space = node.create_space(&author(0)).await.expect("created");
    let sender = Node::spawn().await.addr().id;
    let runs = sign_runs(&space.id(), &author(1), None, drafts("run", 6)).expect("signed");
    let runs = runs.into_iter().map(VerifiedRun::into_run).collect();
    let outcomes = space.apply(runs, sender).await.expect("applied");
    let refused = AppendError::OverQuota {
        author: author(1).id(),
        quota: OverQuota::AuthorEvents,
        limit: 5,
    };
    assert_eq!(outcomes, [Err(refused)]);
}
