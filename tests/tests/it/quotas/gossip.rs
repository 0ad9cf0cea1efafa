//! Live spaces whose members store unlike much.

use headwater::Quota;
use headwater_gossip::{BridgeEvent, HistoryPolicy};
use iroh::address_lookup::MemoryLookup;

use super::{large, limits};
use crate::{
    gossip::members::{Member, shut_down, until_held, until_told},
    nodes::{author, open, seq_of, write},
};

#[tokio::test(flavor = "multi_thread")]
async fn a_member_with_a_smaller_quota_follows_the_rest_and_is_not_sent_the_same_again() {
    let lookup = MemoryLookup::new();
    let source = Member::spawn(&lookup).await;
    let created = source.headwater.create_space(&author(0)).await;
    let space = created.expect("created");
    write(&space, 1, "too much", 200).await;
    let at_source = source.join(space.id(), vec![]).await;

    let bounded = limits(|limits| limits.author_quota = Quota::NONE.events(100));
    let node = open().limits(bounded);
    let member = Member::build_on(&lookup, node, |builder| builder).await;
    let live = member.join(space.id(), vec![source.id()]).await;
    let metrics = member.headwater.metrics();
    let mut refused = 0;
    for at in 1..=20 {
        write(&space, 2, "honest", 1).await;
        until_held(live.space(), 1 + at).await;
        if at == 10 {
            refused = metrics.runs_refused.get();
        }
    }
    assert_eq!(seq_of(live.space(), author(1).id()).await, 0);
    assert!(refused > 0);
    assert_eq!(metrics.runs_refused.get(), refused);
    assert_eq!(metrics.peer_faults.get(), 0);
    drop((at_source, live));
    shut_down([source, member]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_author_above_its_quota_neither_holds_up_the_history_nor_makes_neighbors_rest() {
    let lookup = MemoryLookup::new();
    let source = Member::spawn(&lookup).await;
    let created = source.headwater.create_space(&author(0)).await;
    let space = created.expect("created");
    write(&space, 1, "too much", 200).await;
    let at_source = source.join(space.id(), vec![]).await;

    let bounded = limits(|limits| limits.author_quota = Quota::NONE.events(100));
    let configure = |builder: headwater_gossip::Builder| builder.history(HistoryPolicy::First);
    let member = Member::build_on(&lookup, open().limits(bounded), configure).await;
    let live = member.join(space.id(), vec![source.id()]).await;
    let mut events = live.events();
    for at in 1..=16 {
        // Too large for an announcement: it has to be pulled.
        let events = large(1, 20_000);
        let written = space.append_batch(&author(2), events).await;
        written.expect("appended");
        write(&space, 1, "more", 1).await;
        until_held(live.space(), 1 + at).await;
    }
    until_told(&mut events, &BridgeEvent::HistoryComplete).await;
    let metrics = member.metrics();
    assert_eq!(metrics.promises_broken.get(), 0);
    assert_eq!(metrics.withheld.get(), 0);
    assert_eq!(seq_of(live.space(), author(1).id()).await, 0);
    drop((at_source, live));
    shut_down([source, member]).await;
}
