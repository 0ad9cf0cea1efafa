//! What is written anywhere comes to be held everywhere.

use std::time::Instant;

use headwater::EventDraft;
use headwater_gossip::{AnnouncerConfig, BridgeEvent, Builder};
use iroh::address_lookup::MemoryLookup;

use super::members::{Crowd, LIMIT, Member, hasty, shut_down, until, until_held, until_told};
use crate::nodes::{assert_equal, author, drafts, write};

fn draft(size: usize) -> EventDraft {
    EventDraft::new(16, 0, vec![9; size])
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_nodes_that_each_append_end_equal() {
    const NODES: u32 = 10;
    const EVENTS: u64 = 20;
    let lookup = MemoryLookup::new();
    let crowd = Crowd::gather(&lookup, NODES as usize).await;
    let sent_before = crowd.count(|it| it.announcements_sent.get());
    let bytes_before = crowd.count(|it| it.announcement_bytes_sent.get());

    let mut writing = Vec::new();
    for (number, live) in (1..=NODES).zip(&crowd.live) {
        let space = live.space().clone();
        writing.push(tokio::spawn(async move {
            for _ in 0..EVENTS {
                let appended = space.append(&author(number), draft(200)).await;
                appended.expect("appended");
            }
        }));
    }
    for writing in writing {
        writing.await.expect("wrote");
    }
    let written = Instant::now();
    crowd.until_equal(1 + u64::from(NODES) * EVENTS).await;
    let took = written.elapsed();

    let sent = crowd.count(|it| it.announcements_sent.get()) - sent_before;
    let bytes = crowd.count(|it| it.announcement_bytes_sent.get()) - bytes_before;
    let copies: u64 = crowd
        .members
        .iter()
        .map(|member| member.gossip.metrics().msgs_data_sent.get())
        .sum();
    println!(
        "{NODES} nodes, {EVENTS} events of 200 bytes each: equal {took:?} after the last append; \
         {sent} announcements of {bytes} bytes, {copies} copies between neighbours since the \
         start, {} pulls",
        crowd.count(|it| it.pulls_started.get()),
    );
    assert_equal(crowd.live[0].space(), crowd.live[9].space()).await;
    crowd.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_live_event_reaches_all_without_a_pull() {
    let lookup = MemoryLookup::new();
    let crowd = Crowd::gather(&lookup, 5).await;
    crowd.until_settled().await;
    let pulls_before = crowd.count(|it| it.pulls_started.get());
    let asked_before = pulls_of(&crowd);
    let sent_before = crowd.count(|it| it.events_stored.get());

    for held in 2..12 {
        write(crowd.live[2].space(), 7, "live", 1).await;
        crowd.until_equal(held).await;
    }

    assert_eq!(crowd.count(|it| it.pulls_started.get()), pulls_before);
    assert_eq!(pulls_of(&crowd), asked_before);
    until("every event came as it is", || {
        crowd.count(|it| it.events_stored.get()) == sent_before + 4 * 10
    })
    .await;
    crowd.shutdown().await;
}

/// Pulls of the nodes, whoever started them.
fn pulls_of(crowd: &Crowd) -> u64 {
    let pulls = |member: &Member| member.headwater.metrics().pulls_started.get();
    crowd.members.iter().map(pulls).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn events_that_are_too_large_to_be_sent_to_everybody_are_pulled() {
    let lookup = MemoryLookup::new();
    let crowd = Crowd::gather(&lookup, 3).await;
    for held in 2..5 {
        let appended = crowd.live[1]
            .space()
            .append(&author(7), draft(20_000))
            .await;
        appended.expect("appended");
        crowd.until_equal(held).await;
    }
    assert_eq!(crowd.count(|it| it.announcements_cut.get()), 0);
    crowd.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_cut_off_for_1000_events_backfills_exactly_these_from_one_pull() {
    let lookup = MemoryLookup::new();
    // Nobody pulls from the one that comes back before it has pulled itself: asked by one that
    // lacks nothing, it would ask back, and count that as no pull of the bridge. Nor does it pull
    // from its other neighbours only because they are new: their digests show that it has all.
    let patient = AnnouncerConfig {
        check_within: 10_000 * LIMIT,
        ..hasty()
    };
    let patient = |_, builder: Builder| builder.announcer(patient.clone());
    let crowd = Crowd::build(&lookup, 4, patient).await;
    // Nobody is about to pull from the one that leaves: it would ask back while it is away.
    until("all have caught up", || {
        crowd.live.iter().all(|live| {
            let status = live.status();
            status.history_complete && status.pulling_from.is_empty()
        })
    })
    .await;
    let away = &crowd.members[3];
    crowd.live[3].leave().await;
    let stored_before = away.headwater.metrics().events_stored.get();
    let pulled_before = away.metrics().events_pulled.get();
    let pulls_before = away.metrics().pulls_completed.get();
    let with_events_before = away.metrics().pulls_with_events.get();
    let sent_before = away.metrics().events_stored.get();

    for round in 0..10 {
        write(
            crowd.live[round % 3].space(),
            7 + round as u32,
            "missed",
            100,
        )
        .await;
    }
    for live in &crowd.live[..3] {
        until_held(live.space(), 1001).await;
    }

    let back = away.join(crowd.space, crowd.ids()[..3].to_vec()).await;
    let mut events = back.events();
    until_told(&mut events, &BridgeEvent::HistoryComplete).await;
    until_held(back.space(), 1001).await;

    let metrics = away.metrics();
    // A pull ends a moment after what it brought is stored.
    until("the pull ends", || {
        metrics.pulls_completed.get() > pulls_before && back.status().pulling_from.is_empty()
    })
    .await;
    assert_eq!(metrics.events_pulled.get() - pulled_before, 1000);
    assert_eq!(metrics.pulls_with_events.get() - with_events_before, 1);
    assert_eq!(metrics.events_stored.get(), sent_before);
    assert_eq!(
        away.headwater.metrics().events_stored.get() - stored_before,
        1000
    );
    assert_equal(crowd.live[0].space(), back.space()).await;
    crowd.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_third_node_that_knows_only_one_other_gets_everything() {
    let lookup = MemoryLookup::new();
    let crowd = Crowd::gather(&lookup, 2).await;
    write(crowd.live[0].space(), 1, "before", 30).await;
    crowd.until_equal(31).await;

    let third = Member::spawn(&lookup).await;
    let live = third.join(crowd.space, vec![crowd.members[1].id()]).await;
    until_held(live.space(), 31).await;
    write(crowd.live[0].space(), 1, "after", 1).await;
    until_held(live.space(), 32).await;
    write(live.space(), 3, "from the third", 1).await;
    crowd.until_equal(33).await;
    assert_equal(crowd.live[0].space(), live.space()).await;

    crowd.shutdown_with([third]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn more_heads_than_an_announcement_holds_reach_everybody() {
    let lookup = MemoryLookup::new();
    let crowd = Crowd::gather(&lookup, 3).await;
    let batches = (1..=300)
        .map(|number| (author(number), drafts("one of many", 2)))
        .collect();
    let space = crowd.live[0].space();
    space.import(batches).await.expect("imported");
    crowd.until_equal(601).await;
    assert_eq!(crowd.count(|it| it.announcements_cut.get()), 0);
    crowd.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_without_neighbors_finds_them_when_they_come() {
    let lookup = MemoryLookup::new();
    let (one, other) = (Member::spawn(&lookup).await, Member::spawn(&lookup).await);
    let space = one
        .headwater
        .create_space(&author(0))
        .await
        .expect("created");
    let early = one.join(space.id(), vec![other.id()]).await;
    write(&space, 1, "alone", 3).await;
    assert!(early.status().neighbors.is_empty());

    // The one that came first knows the other, and asks it again until it is there.
    let late = other.join(space.id(), vec![]).await;
    until_held(late.space(), 4).await;
    until("a neighbour is known", || {
        late.status().neighbors == [one.id()]
    })
    .await;

    shut_down([one, other]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_space_can_be_left_and_joined_again() {
    let lookup = MemoryLookup::new();
    let crowd = Crowd::gather(&lookup, 2).await;
    let again = crowd.members[1].join(crowd.space, vec![]).await;
    assert_eq!(again.status().neighbors, [crowd.members[0].id()]);
    crowd.live[1].leave().await;
    assert!(!again.joined().await);
    let back = crowd.members[1].join(crowd.space, crowd.ids()).await;
    assert!(back.joined().await);
    write(crowd.live[0].space(), 1, "after", 1).await;
    until_held(back.space(), 2).await;
    crowd.shutdown().await;
}
