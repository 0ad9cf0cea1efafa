//! When an application hears that it has the history.

use headwater::{AllowList, Headwater, SubscribeFrom, SubscriptionItem};
use headwater_gossip::{BridgeEvent, HistoryPolicy};
use iroh::address_lookup::MemoryLookup;
use n0_future::{StreamExt, time::timeout};

use super::members::{Crowd, LIMIT, Member, shut_down, summary, until, until_told};
use crate::nodes::{author, write};

fn completions(events: &[BridgeEvent]) -> usize {
    let complete = |event: &&BridgeEvent| **event == BridgeEvent::HistoryComplete;
    events.iter().filter(complete).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_joins_late_hears_once_that_the_history_is_complete_and_then_has_it() {
    let lookup = MemoryLookup::new();
    let crowd = Crowd::gather(&lookup, 3).await;
    write(crowd.live[0].space(), 1, "before", 500).await;
    crowd.until_equal(501).await;

    let late = Member::spawn(&lookup).await;
    let live = late.join(crowd.space, crowd.ids()).await;
    let mut events = live.events();
    let before = until_told(&mut events, &BridgeEvent::HistoryComplete).await;
    // Stored before it was told.
    assert_eq!(summary(live.space()).await.expect("held").events, 501);
    let synced = before
        .iter()
        .find_map(|event| match event {
            BridgeEvent::HistorySynced { provider, .. } => Some(*provider),
            _ => None,
        })
        .expect("a provider comes before the end");
    assert!(crowd.ids().contains(&synced));

    // From the start: the history, the marker of the subscription, and then what is live.
    let mut subscription = live.space().subscribe(SubscribeFrom::Start);
    let mut history = 0;
    loop {
        let item = timeout(LIMIT, subscription.next()).await.expect("in time");
        match item.expect("goes on").expect("readable") {
            SubscriptionItem::CaughtUp => break,
            _ => history += 1,
        }
    }
    assert_eq!(history, 501);
    write(crowd.live[2].space(), 2, "after", 1).await;
    let item = timeout(LIMIT, subscription.next()).await.expect("in time");
    let SubscriptionItem::Event(event) = item.expect("goes on").expect("readable") else {
        panic!("an event");
    };
    assert_eq!(event.header.author, author(2).id());

    // Once, however many others turn out to have nothing more; and again for a new listener.
    until("everybody is compared with", || {
        live.status().unsettled_neighbors == 0
    })
    .await;
    assert!(live.status().history_complete);
    let mut listener = live.events();
    late.bridge.shutdown().await;
    let rest: Vec<_> = events.collect().await;
    assert_eq!(completions(&rest), 0, "{rest:?}");
    let mut heard = Vec::new();
    while let Some(event) = listener.next().await {
        heard.push(event);
    }
    assert_eq!(completions(&heard), 1, "{heard:?}");

    crowd.shutdown_with([late]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobodys_word_completes_the_history_but_that_of_a_trusted_peer() {
    let lookup = MemoryLookup::new();
    let crowd = Crowd::gather(&lookup, 2).await;
    write(crowd.live[0].space(), 1, "before", 5).await;
    crowd.until_equal(6).await;
    let (stranger, trusted) = (crowd.members[0].id(), crowd.members[1].id());
    crowd.live[1].leave().await;

    let policy = HistoryPolicy::FirstTrusted(Some(vec![trusted]));
    let late = Member::build(&lookup, |builder| builder.history(policy)).await;
    let live = late.join(crowd.space, vec![stranger]).await;
    let mut events = live.events();
    let synced = BridgeEvent::HistorySynced {
        provider: stranger,
        still_pending: 0,
    };
    until_told(&mut events, &synced).await;
    assert!(!live.status().history_complete);

    let back = crowd.members[1].join(crowd.space, vec![late.id()]).await;
    until_told(&mut events, &BridgeEvent::HistoryComplete).await;
    assert!(back.joined().await);
    crowd.shutdown_with([late]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn by_default_the_first_provider_that_the_policy_trusts_completes_the_history() {
    let lookup = MemoryLookup::new();
    let crowd = Crowd::gather(&lookup, 2).await;
    write(crowd.live[0].space(), 1, "before", 5).await;
    crowd.until_equal(6).await;
    let (reader, provider) = (crowd.members[0].id(), crowd.members[1].id());
    crowd.live[1].leave().await;

    let lists = AllowList::new();
    lists.set_any_writer(crowd.space, true);
    for node in crowd.ids() {
        lists.set_reader(crowd.space, node, true);
    }
    lists.set_provider(crowd.space, provider, true);
    let node = Headwater::builder().policy(lists);
    let late = Member::build_on(&lookup, node, |builder| builder).await;
    let live = late.join(crowd.space, vec![reader]).await;
    let mut events = live.events();
    let synced = BridgeEvent::HistorySynced {
        provider: reader,
        still_pending: 0,
    };
    until_told(&mut events, &synced).await;
    assert_eq!(summary(live.space()).await.expect("held").events, 6);
    assert!(!live.status().history_complete);

    let back = crowd.members[1].join(crowd.space, vec![late.id()]).await;
    until_told(&mut events, &BridgeEvent::HistoryComplete).await;
    assert!(back.joined().await);
    crowd.shutdown_with([late]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_majority_of_the_neighbors_completes_the_history() {
    let lookup = MemoryLookup::new();
    let crowd = Crowd::gather(&lookup, 3).await;
    write(crowd.live[0].space(), 1, "before", 5).await;
    crowd.until_equal(6).await;
    let late = Member::build(&lookup, |builder| builder.history(HistoryPolicy::Majority)).await;
    let live = late.join(crowd.space, crowd.ids()).await;
    let mut events = live.events();
    let before = until_told(&mut events, &BridgeEvent::HistoryComplete).await;
    let synced = |event: &&BridgeEvent| matches!(event, BridgeEvent::HistorySynced { .. });
    assert!(before.iter().any(|event| synced(&event)), "{before:?}");
    assert_eq!(summary(live.space()).await.expect("held").events, 6);
    crowd.shutdown_with([late]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_nodes_that_hold_nothing_do_not_complete_each_others_history() {
    let lookup = MemoryLookup::new();
    let provider = Member::spawn(&lookup).await;
    let space = provider
        .headwater
        .create_space(&author(0))
        .await
        .expect("created");
    let (one, other) = (Member::spawn(&lookup).await, Member::spawn(&lookup).await);
    let live = one.join(space.id(), vec![]).await;
    let empty = other.join(space.id(), vec![one.id()]).await;
    let mut events = live.events();
    until("they are compared", || {
        live.status().unsettled_neighbors == 0 && !live.status().neighbors.is_empty()
    })
    .await;
    assert!(!live.status().history_complete && !empty.status().history_complete);

    let _providing = provider.join(space.id(), vec![one.id()]).await;
    until_told(&mut events, &BridgeEvent::HistoryComplete).await;
    assert_eq!(summary(live.space()).await.expect("held").events, 1);
    shut_down([provider, one, other]).await;
}
