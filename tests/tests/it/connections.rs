//! Connections that are used again: by either end, and when the far end is not there any more.

use std::time::Duration;

use headwater::{
    ALPN, Limits, SpaceId,
    wire::{Budget, Clock, Message, SyncFilter, SyncRequestV2},
};
use iroh::{endpoint::ReadError, protocol::Router};

use crate::nodes::{Node, assert_equal, author, endpoint, filled, open, seq_of, write};

/// Keeps connections open for as long as a test takes.
fn patient() -> Limits {
    let mut limits = Limits::default();
    limits.idle_connection = Duration::from_hours(1);
    limits
}

#[tokio::test]
async fn whoever_is_asked_asks_back_whichever_end_dialled_the_connection() {
    let left = Node::build(open().limits(patient())).await;
    let right = Node::build(open().limits(patient())).await;
    let ours = filled(&left.headwater, 2, 10).await;
    let theirs = right.space(ours.id());
    theirs.sync_with(left.addr()).await.expect("synced");

    // Now the left one asks, on the connection that the right one dialled.
    write(&ours, 7, "new", 5).await;
    let report = ours.sync_with(right.addr()).await.expect("synced");

    assert_eq!(report.events, 0);
    assert_eq!(left.headwater.metrics().connections_dialled.get(), 0);
    assert_eq!(right.headwater.metrics().pulls_asked_back.get(), 1);
    assert_eq!(left.headwater.metrics().pulls_asked_back.get(), 0);
    assert_eq!(seq_of(&theirs, author(7).id()).await, 5);
    assert_equal(&ours, &theirs).await;
    left.shutdown().await;
    right.shutdown().await;
}

#[tokio::test]
async fn a_peer_that_asks_back_is_not_asked_back_even_if_it_holds_more() {
    let (left, right) = (Node::spawn().await, Node::spawn().await);
    let ours = filled(&left.headwater, 2, 10).await;
    let theirs = right.space(ours.id());
    theirs.sync_with(left.addr()).await.expect("synced");
    write(&ours, 7, "left", 5).await;
    write(&theirs, 8, "right", 200).await;
    // The left one takes some of what the right one has, so that both hold more.
    let mut some = headwater::SyncOptions::default();
    some.budget.events = Some(0);
    for _ in 0..3 {
        let cut = ours.sync_with_options(right.addr(), some.clone());
        cut.await.expect("synced");
    }
    assert_eq!(left.headwater.metrics().pulls_asked_back.get(), 0);
    assert_eq!(seq_of(&theirs, author(7).id()).await, 5);
    ours.sync_with(right.addr()).await.expect("synced");
    assert_equal(&ours, &theirs).await;
    left.shutdown().await;
    right.shutdown().await;
}

#[tokio::test]
async fn a_connection_on_which_nobody_answers_any_more_is_dialled_anew() {
    let mut limits = patient();
    limits.session.first_message = Duration::from_secs(2);
    let puller = Node::build(open().limits(limits)).await;
    let far = endpoint().await;
    let headwater = open().spawn(far.clone());
    let router = Router::builder(far.clone())
        .accept(ALPN, headwater.clone())
        .spawn();
    let space = filled(&headwater, 2, 10).await;
    // A connection of the same peer with nobody behind it: what is left of a killed process.
    let dead = far.connect(puller.addr(), ALPN).await.expect("connected");
    let (mut send, mut recv) = dead.open_bi().await.expect("stream");
    let unknown = Message::SyncRequestV2(SyncRequestV2 {
        request_id: 1,
        space: SpaceId::from_bytes([8; 32]),
        clock: Clock::Heads,
        filter: SyncFilter::default(),
        budget: Budget::default(),
        live: false,
    });
    for chunk in unknown.encode_frame().expect("fits") {
        send.write_all(&chunk).await.expect("written");
    }
    let refused = recv.read_chunk(1).await;
    assert!(matches!(refused, Err(ReadError::Reset(_))), "{refused:?}");

    let pulled = puller.space(space.id());
    let report = pulled.sync_with(far.addr()).await.expect("dialled anew");

    assert_eq!(report.events, 21);
    assert_eq!(puller.headwater.metrics().connections_dialled.get(), 1);
    assert_equal(&space, &pulled).await;
    puller.shutdown().await;
    router.shutdown().await.expect("router");
}
