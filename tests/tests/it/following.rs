//! Live syncs, subscriptions, and shutting down.

use std::{collections::HashMap, sync::Arc, time::Duration};

use headwater::{
    AuthorId, DiskStore, Event, LiveEnding, LogStore, MemoryStore, SubscribeFrom, Subscription,
    SubscriptionItem, SyncOptions, WriteError,
};
use n0_future::StreamExt;

use crate::{
    gate::GatedStore,
    nodes::{Node, assert_equal, author, drafts, filled, open, seq_of, write},
};

async fn next_event(subscription: &mut Subscription) -> Event {
    loop {
        match subscription
            .next()
            .await
            .expect("goes on")
            .expect("readable")
        {
            SubscriptionItem::Event(event) => return event,
            _ => continue,
        }
    }
}

/// Checks that events come in the order of their logs, none twice, none left out.
#[derive(Debug, Default)]
struct Order(HashMap<AuthorId, u64>);

impl Order {
    fn follows(&mut self, event: &Event) {
        let seq = self.0.entry(event.header.author).or_default();
        assert_eq!(event.header.seq, *seq + 1, "one after the other");
        *seq += 1;
    }
}

#[tokio::test]
async fn events_appended_after_the_history_reach_a_live_sync() {
    let (source, puller) = (Node::spawn().await, Node::spawn().await);
    let space = filled(&source.headwater, 3, 20).await;
    let pulled = puller.space(space.id());

    let mut sync = pulled.sync_with_options(source.addr(), SyncOptions::live());
    let history = sync.history().await.expect("history");
    assert_eq!(history.events, 61);
    let mut live = pulled.subscribe(SubscribeFrom::Now);
    for number in 0..50 {
        let secret = author(1 + number % 7);
        let appended = space
            .append(&secret, drafts("live", 1).remove(0))
            .await
            .expect("appended");
        let event = next_event(&mut live).await;
        assert_eq!(event.to_ref(), appended);
    }

    sync.stop();
    let report = sync.await.expect("ended in order");
    assert_eq!(report.events, 61 + 50);
    assert_eq!(report.live_end, Some(LiveEnding::Closed));
    assert_equal(&space, &pulled).await;
    puller.shutdown().await;
    source.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_falls_between_history_and_live() {
    let (source, puller) = (Node::spawn().await, Node::spawn().await);
    let space = filled(&source.headwater, 5, 2000).await;
    let pulled = puller.space(space.id());

    let writing = {
        let space = space.clone();
        tokio::spawn(async move {
            for _ in 0..200 {
                write(&space, 3, "meanwhile", 1).await;
            }
        })
    };
    let mut everything = pulled.subscribe(SubscribeFrom::Start);
    let sync = pulled.sync_with_options(source.addr(), SyncOptions::live());
    let mut order = Order::default();
    for _ in 0..10_001 + 200 {
        order.follows(&next_event(&mut everything).await);
    }

    writing.await.expect("wrote");
    sync.stop();
    sync.await.expect("ended in order");
    assert_equal(&space, &pulled).await;
    puller.shutdown().await;
    source.shutdown().await;
}

#[tokio::test]
async fn two_live_nodes_send_each_other_only_what_is_news() {
    let (left, right) = (Node::spawn().await, Node::spawn().await);
    let ours = filled(&left.headwater, 1, 1).await;
    let theirs = right.space(ours.id());
    theirs.sync_with(left.addr()).await.expect("synced");
    let mut to_left = ours.sync_with_options(right.addr(), SyncOptions::live());
    let mut to_right = theirs.sync_with_options(left.addr(), SyncOptions::live());
    let before = to_left.history().await.expect("history");
    to_right.history().await.expect("history");

    let mut arriving = theirs.subscribe(SubscribeFrom::Now);
    for _ in 0..20 {
        write(&ours, 1, "from the left", 1).await;
        next_event(&mut arriving).await;
    }
    let mut returning = ours.subscribe(SubscribeFrom::Now);
    write(&theirs, 2, "from the right", 1).await;
    next_event(&mut returning).await;

    to_left.stop();
    let after = to_left.await.expect("ended in order");
    assert_eq!(after.events, 1);
    let live_bytes = after.wire_bytes_received - before.wire_bytes_received;
    assert!(live_bytes < 400, "{live_bytes} bytes for one event");
    to_right.stop();
    to_right.await.expect("ended in order");
    assert_equal(&ours, &theirs).await;
    left.shutdown().await;
    right.shutdown().await;
}

#[tokio::test]
async fn a_live_sync_is_asked_back_for_what_the_peer_lacks() {
    let (source, puller) = (Node::spawn().await, Node::spawn().await);
    let space = filled(&source.headwater, 2, 10).await;
    let pulled = puller.space(space.id());
    pulled.sync_with(source.addr()).await.expect("synced");
    write(&pulled, 9, "only here", 30).await;
    let mut arriving = space.subscribe(SubscribeFrom::Now);

    let sync = pulled.sync_with_options(source.addr(), SyncOptions::live());
    let mut order = Order::default();
    for _ in 0..30 {
        order.follows(&next_event(&mut arriving).await);
    }

    sync.stop();
    // Stopped before or after the history was over: both are fine here.
    sync.await.ok();
    assert_equal(&pulled, &space).await;
    puller.shutdown().await;
    source.shutdown().await;
}

#[tokio::test]
async fn a_live_reader_that_falls_ever_further_behind_is_told_how_much_it_missed() {
    let mut limits = headwater::Limits::default();
    // Two commits waiting to be sent, one after the other, are too much already.
    limits.live_backlog_events = 100;
    limits.live_lag_after = Duration::ZERO;
    let source = Node::build(open().limits(limits)).await;
    let puller = Node::spawn().await;
    let space = filled(&source.headwater, 1, 1).await;
    let pulled = puller.space(space.id());
    let mut sync = pulled.sync_with_options(source.addr(), SyncOptions::live());
    sync.history().await.expect("history");
    let mut arriving = pulled.subscribe(SubscribeFrom::Now);

    write(&space, 1, "a flood", 101).await;
    for _ in 0..101 {
        next_event(&mut arriving).await;
    }
    write(&space, 1, "no smaller", 102).await;

    let report = sync.await.expect("an end that is no failure");
    assert_eq!(report.live_end, Some(LiveEnding::Lagged { missed: 102 }));
    pulled.sync_with(source.addr()).await.expect("goes on");
    assert_equal(&space, &pulled).await;
    puller.shutdown().await;
    source.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_commit_of_100_000_events_does_not_cut_a_fast_live_reader() {
    const EVENTS: usize = 100_000;
    let (source, puller) = (Node::spawn().await, Node::spawn().await);
    let space = filled(&source.headwater, 1, 1).await;
    let pulled = puller.space(space.id());
    let mut sync = pulled.sync_with_options(source.addr(), SyncOptions::live());
    sync.history().await.expect("history");
    let mut arriving = pulled.subscribe(SubscribeFrom::Now);

    write(&space, 1, "import", EVENTS).await;
    write(&space, 2, "after", 1).await;

    for _ in 0..=EVENTS {
        next_event(&mut arriving).await;
    }
    sync.stop();
    let report = sync.await.expect("ended in order");
    assert_eq!(report.live_end, Some(LiveEnding::Closed));
    assert_equal(&space, &pulled).await;
    puller.shutdown().await;
    source.shutdown().await;
}

#[tokio::test]
async fn the_history_of_a_live_sync_is_reported_as_often_as_it_is_asked_for() {
    let (source, puller) = (Node::spawn().await, Node::spawn().await);
    let space = filled(&source.headwater, 1, 5).await;
    let pulled = puller.space(space.id());
    let mut sync = pulled.sync_with_options(source.addr(), SyncOptions::live());
    let first = sync.history().await.expect("history");
    let second = sync.history().await.expect("history again");
    assert_eq!(first, second);
    sync.stop();
    sync.await.expect("ended in order");
    puller.shutdown().await;
    source.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_live_sync_may_begin_as_soon_as_another_is_dropped() {
    let (source, puller) = (Node::spawn().await, Node::spawn().await);
    let space = filled(&source.headwater, 1, 1).await;
    let pulled = puller.space(space.id());
    let live = || pulled.sync_with_options(source.addr(), SyncOptions::live());

    let mut first = live();
    first.history().await.expect("history");
    for _ in 0..20 {
        drop(first);
        first = live();
        first.history().await.expect("begins");
    }

    first.stop();
    first.await.expect("ended in order");
    puller.shutdown().await;
    source.shutdown().await;
}

#[tokio::test]
async fn a_subscription_yields_history_then_caught_up_then_live() {
    let node = open().open();
    let space = filled(&node, 3, 4).await;
    let mut subscription = space.subscribe(SubscribeFrom::Start);
    let mut order = Order::default();
    for _ in 0..13 {
        order.follows(&next_event(&mut subscription).await);
    }
    let next = subscription.next().await.expect("goes on");
    assert_eq!(next.expect("readable"), SubscriptionItem::CaughtUp);

    write(&space, 2, "live", 2).await;
    for _ in 0..2 {
        order.follows(&next_event(&mut subscription).await);
    }
    node.shutdown().await;
}

#[tokio::test]
async fn a_slow_subscriber_loses_nothing() {
    let mut limits = headwater::Limits::default();
    limits.read_ahead_bytes = 1024;
    let node = open().limits(limits).open();
    let space = filled(&node, 0, 0).await;
    let mut subscription = space.subscribe(SubscribeFrom::Now);

    for round in 0..100 {
        for number in 1..=5 {
            write(&space, number, "much", 10 + round % 3).await;
        }
    }
    let total = space
        .summary()
        .await
        .expect("summary")
        .expect("held")
        .events
        - 1;
    let mut order = Order::default();
    for _ in 0..total {
        order.follows(&next_event(&mut subscription).await);
    }
    assert_eq!(order.0.values().sum::<u64>(), total);
    node.shutdown().await;
}

#[tokio::test]
async fn a_batch_is_stored_whole_or_not_at_all() {
    let node = open().open();
    let space = filled(&node, 1, 1).await;
    let too_large = vec![0; 2 * 1024 * 1024];
    let mut bad = drafts("fine", 3);
    bad.push(headwater::EventDraft::new(16, 0, too_large));

    let refused = space
        .import(vec![(author(1), drafts("fine", 3)), (author(2), bad)])
        .await;

    assert!(matches!(refused, Err(WriteError::Draft(_))), "{refused:?}");
    assert_eq!(seq_of(&space, author(1).id()).await, 1);
    assert_eq!(seq_of(&space, author(2).id()).await, 0);
    let unknown = node.space(headwater::SpaceId::from_bytes([3; 32]));
    let refused = unknown.append_batch(&author(1), drafts("x", 1)).await;
    assert!(matches!(refused, Err(WriteError::UnknownSpace { .. })));
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn appends_made_at_once_share_commits() {
    let (store, gate) = GatedStore::new(MemoryStore::new(), 1);
    let node = open().store(store).open();
    let space = node.create_space(&author(0)).await.expect("created");
    let appends: Vec<_> = (0..100)
        .map(|number| {
            let space = space.clone();
            tokio::spawn(async move {
                let secret = author(number % 10);
                space.append(&secret, drafts("at once", 1).remove(0)).await
            })
        })
        .collect();
    gate.reached().await;
    gate.open();
    for append in appends {
        append.await.expect("ran").expect("appended");
    }
    let metrics = node.metrics();
    assert_eq!(metrics.events_stored.get(), 101);
    assert!(
        metrics.commits.get() < 50,
        "{} commits",
        metrics.commits.get()
    );
    assert!(space.verify(|_| ()).await.expect("checked").is_sound());
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_log_fails_what_touches_it_and_not_what_shares_its_commit() {
    let (store, gate) = GatedStore::new(MemoryStore::new(), 2);
    let node = open().store(store).open();
    let space = filled(&node, 0, 0).await;
    write(&space, 9, "second", 1).await;
    gate.damage(author(1).id());

    // The first commit waits, and the others gather behind it in one group, in this order.
    let first = tokio::spawn({
        let space = space.clone();
        async move { write(&space, 9, "first", 1).await }
    });
    gate.reached().await;
    let both = vec![
        (author(1), drafts("both", 1)),
        (author(2), drafts("both", 1)),
    ];
    let on_it = vec![
        (author(2), drafts("more", 1)),
        (author(3), drafts("more", 1)),
    ];
    let unrelated = vec![(author(4), drafts("unrelated", 3))];
    let opened = async { gate.open() };
    let (both, on_it, unrelated, ()) = tokio::join!(
        biased;
        space.import(both),
        space.import(on_it),
        space.import(unrelated),
        opened
    );

    assert!(matches!(both, Err(WriteError::Store(_))), "{both:?}");
    // Signed to go on from what failed: all or nothing, and so nothing.
    assert!(matches!(on_it, Err(WriteError::Store(_))), "{on_it:?}");
    unrelated.expect("stored");
    first.await.expect("stored");
    for (number, seq) in [(1, 0), (2, 0), (3, 0), (4, 3), (9, 2)] {
        assert_eq!(seq_of(&space, author(number).id()).await, seq);
    }
    write(&space, 2, "again", 1).await;
    assert!(space.verify(|_| ()).await.expect("checked").is_sound());
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn shutting_down_loses_nothing_that_was_reported_as_stored() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("store");
    let (store, gate) = GatedStore::new(DiskStore::create(&path).expect("store"), 1);
    let node = Node::build(open().store(store)).await;
    let space = node.headwater.create_space(&author(0)).await;
    let space = space.expect("created");
    let id = space.id();
    let appends: Vec<_> = (0..200)
        .map(|number| {
            let space = space.clone();
            tokio::spawn(async move {
                let secret = author(number % 20);
                space.append(&secret, drafts("late", 1).remove(0)).await
            })
        })
        .collect();
    drop(space);

    gate.reached().await;
    let shutdown = tokio::spawn(node.shutdown());
    gate.open();
    let mut stored = Vec::new();
    for append in appends {
        match append.await.expect("ran") {
            Ok(event) => stored.push(event),
            Err(error) => assert!(matches!(error, WriteError::ShuttingDown), "{error}"),
        }
    }
    shutdown.await.expect("shut down");

    let again = open()
        .store(DiskStore::open(&path).expect("opens again"))
        .open();
    let space = again.space(id);
    for event in stored {
        let held = space
            .event(event.author, event.seq)
            .await
            .expect("readable");
        assert_eq!(held.map(|event| event.to_ref()), Some(event));
    }
    assert!(space.verify(|_| ()).await.expect("checked").is_sound());
}

#[tokio::test]
async fn a_node_that_shuts_down_ends_its_syncs_and_says_why() {
    let source = Node::spawn().await;
    let puller = Node::spawn().await;
    let space = filled(&source.headwater, 2, 5).await;
    let pulled = puller.space(space.id());
    let mut sync = pulled.sync_with_options(source.addr(), SyncOptions::live());
    sync.history().await.expect("history");

    source.shutdown().await;

    let ended = sync.await;
    let text = format!("{ended:?}");
    assert!(text.contains("ShuttingDown"), "{text}");
    assert_equal(&space, &pulled).await;
    puller.shutdown().await;
    let late = pulled
        .sync_with(iroh::SecretKey::from_bytes(&[1; 32]).public())
        .await;
    assert!(late.is_err());
    let late = pulled.append(&author(1), drafts("late", 1).remove(0)).await;
    assert!(matches!(late, Err(WriteError::ShuttingDown)));
}

#[tokio::test]
async fn a_right_that_is_given_back_while_a_subscription_reads_is_no_damage() {
    let (store, gate) = GatedStore::new(MemoryStore::new(), usize::MAX);
    let store: Arc<dyn LogStore> = Arc::new(store);
    let node = Node::build(open().shared_store(Arc::clone(&store))).await;
    let space = filled(&node.headwater, 1, 5).await;
    let (id, writer) = (space.id(), author(1).id());
    let bound = move |store: &Arc<dyn LogStore>, through| {
        let bounded = store.restrict(&id, &writer, through);
        let _heads_changed = bounded.expect("bounded");
    };
    // Taken before the log is read, and given back before anybody looks why nothing came.
    let (reads, looks, heads) = (Arc::clone(&store), Arc::clone(&store), gate.clone());
    gate.before_read(move || {
        bound(&reads, Some(0));
        heads.before_head(move || bound(&looks, None));
    });
    let mut events = space.events(writer, ..);
    let mut seqs = Vec::new();
    while let Some(event) = events.next().await {
        seqs.push(event.expect("no damage").header.seq);
    }
    assert_eq!(seqs, [1, 2, 3, 4, 5]);
    node.shutdown().await;
}
