//! What authors push faster than their rate.

use std::time::Duration;

use headwater::{
    AppendError, Limits, Run, SubscribeFrom, Subscription, SubscriptionItem, SyncOptions,
    SyncOutcome, VerifiedRun, wire::sign_runs,
};
use n0_future::StreamExt;

use super::limits;
use crate::nodes::{Node, assert_equal, author, drafts, filled, open, write};

/// A byte a second: whoever has pushed a run will not push another for minutes.
fn slow() -> Limits {
    limits(|limits| {
        limits.pushed_bytes_rate = 1;
        limits.pushed_burst = Duration::from_secs(2);
        limits.catch_up_after = Duration::from_millis(20);
    })
}

async fn arrives(events: &mut Subscription) {
    loop {
        let item = events.next().await.expect("goes on").expect("readable");
        if matches!(item, SubscriptionItem::Event(_)) {
            return;
        }
    }
}

#[tokio::test]
async fn what_comes_live_above_the_rate_is_pulled_and_nothing_is_lost() {
    let (source, reader) = (
        Node::spawn().await,
        Node::build(open().limits(slow())).await,
    );
    let space = filled(&source.headwater, 2, 3).await;
    let copy = reader.space(space.id());
    let mut live = copy.sync_with_options(source.addr(), SyncOptions::live());
    live.history().await.expect("history");
    let mut events = copy.subscribe(SubscribeFrom::Now);
    for at in 0..6 {
        write(&space, 1, &format!("fast {at}"), 1).await;
        arrives(&mut events).await;
    }
    write(&space, 2, "another", 1).await;
    arrives(&mut events).await;
    assert_equal(&space, &copy).await;
    assert!(reader.headwater.metrics().pulls_started.get() > 2);
    assert_eq!(reader.headwater.metrics().peer_faults.get(), 0);
    live.stop();
    live.await.expect("ended in order");
}

#[tokio::test]
async fn a_history_of_any_length_has_no_rate() {
    let (source, reader) = (
        Node::spawn().await,
        Node::build(open().limits(slow())).await,
    );
    let space = filled(&source.headwater, 1, 3_000).await;
    let copy = reader.space(space.id());
    let report = copy.sync_with(source.addr()).await.expect("synced");
    assert_eq!(report.outcome, SyncOutcome::Complete);
    assert_equal(&space, &copy).await;
}

#[tokio::test]
async fn one_author_above_the_rate_by_gossip_is_told_so_and_another_is_taken() {
    let node = open().limits(slow()).open();
    let space = node.create_space(&author(0)).await.expect("created");
    let sender = Node::spawn().await.addr().id;
    let run_of = |number| -> Vec<Run> {
        let runs = sign_runs(&space.id(), &author(number), None, drafts("run", 5));
        let runs = runs.expect("signed").into_iter();
        runs.map(VerifiedRun::into_run).collect()
    };
    let first = space.apply(run_of(1), sender).await.expect("applied");
    assert!(first[0].is_ok());
    let head = space.head(author(1).id()).await.expect("readable");
    let head = head.expect("held").entry.head;
    let next = sign_runs(&space.id(), &author(1), Some(head), drafts("next", 1));
    let next = next.expect("signed").remove(0).into_run();
    let second = space.apply(vec![next], sender).await.expect("applied");
    let refused = AppendError::OverRate {
        author: author(1).id(),
    };
    assert_eq!(second, [Err(refused)]);
    let other = space.apply(run_of(2), sender).await.expect("applied");
    assert!(other[0].is_ok());
}
