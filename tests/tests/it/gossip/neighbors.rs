//! Who is a neighbour on the topic, and whom the policy lets be one.

use std::time::Duration;

use headwater::{AllowList, EventDraft, Headwater};
use headwater_gossip::{BridgeEvent, BridgeLimits, Builder};
use iroh::address_lookup::MemoryLookup;
use n0_future::{StreamExt, future};

use super::members::{Guests, Member, Outsider, shut_down, until, until_held, until_told};
use crate::nodes::{author, write};

/// The policy is asked as often as a test wants, and has as long as it wants.
fn limits(timeout: Duration) -> BridgeLimits {
    let mut limits = BridgeLimits::default();
    limits.policy_timeout = timeout;
    limits.policy_again = Duration::from_millis(20);
    limits
}

const FOR_EVER: Duration = Duration::from_hours(24);

#[tokio::test(flavor = "multi_thread")]
async fn a_neighbor_the_policy_refuses_is_not_pulled_from_and_its_word_does_not_count() {
    let lookup = MemoryLookup::new();
    let guests = Guests::default();
    let outer = Member::build_on(&lookup, crate::nodes::open(), |builder| builder).await;
    let created = outer.headwater.create_space(&author(0)).await;
    let space = created.expect("created").id();
    let stranger = outer.join(space, vec![]).await;
    write(stranger.space(), 1, "before", 5).await;

    let configure = |builder: Builder| builder.limits(limits(FOR_EVER));
    let late = Member::guarded(&lookup, &guests, configure).await;
    let live = late.join(space, vec![outer.id()]).await;
    let metrics = late.metrics();
    // Asked about again and again, it stays refused; what it announces is not believed.
    until("it is refused", || metrics.neighbors_refused.get() >= 3).await;
    write(stranger.space(), 1, "announced", 1).await;
    until("its word is refused", || metrics.ignored_refused.get() > 0).await;
    assert_eq!(live.status().neighbors, []);
    assert_eq!(live.status().counters.pulls, 0);
    assert_eq!(metrics.pulls_started.get(), 0);
    assert_eq!(metrics.neighbors_up.get(), 0);
    assert!(!live.status().history_complete);
    assert!(live.space().summary().await.expect("readable").is_none());

    // One that is admitted brings the history, and is the only one that is said to have it.
    let its_guests = Guests::default();
    let friend = Member::guarded(&lookup, &its_guests, |builder| builder).await;
    guests.admit(friend.id());
    its_guests.admit(late.id());
    let held = friend.headwater.space(space);
    held.sync_with(outer.headwater.endpoint().expect("mounted").addr())
        .await
        .expect("synced");
    let mut events = live.events();
    let friends = friend.join(space, vec![late.id()]).await;
    let before = until_told(&mut events, &BridgeEvent::HistoryComplete).await;
    until_held(live.space(), 7).await;
    write(friends.space(), 2, "after", 1).await;
    until_held(live.space(), 8).await;
    late.bridge.shutdown().await;
    let after: Vec<_> = events.collect().await;
    for event in before.iter().chain(&after) {
        assert!(
            !format!("{event:?}").contains(&format!("{:?}", outer.id())),
            "{event:?}"
        );
    }
    shut_down([outer, late, friend]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_neighbor_that_is_let_in_later_becomes_one_and_one_that_is_shut_out_ceases_to_be() {
    let lookup = MemoryLookup::new();
    let guests = Guests::default();
    let configure = |builder: Builder| builder.limits(limits(FOR_EVER));
    let outer = Member::build(&lookup, |builder| builder).await;
    let inner = Member::guarded(&lookup, &guests, configure).await;
    let created = inner.headwater.create_space(&author(0)).await;
    let space = created.expect("created").id();
    let live = inner.join(space, vec![]).await;
    let outside = outer.join(space, vec![inner.id()]).await;
    until("it is refused", || {
        inner.metrics().neighbors_refused.get() > 0
    })
    .await;

    guests.admit(outer.id());
    until("it is let in", || live.status().neighbors == [outer.id()]).await;
    until_held(outside.space(), 1).await;
    guests.refuse(outer.id());
    // Asked before it is pulled from, or believed: what is too large to travel would be pulled.
    let draft = EventDraft::new(16, 0, vec![9; 20_000]);
    let appended = outside.space().append(&author(3), draft).await;
    appended.expect("appended");
    until("it is shut out", || live.status().neighbors.is_empty()).await;
    shut_down([outer, inner]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_the_policy_lets_a_neighbor_in_and_shuts_it_out_at_once() {
    let lookup = MemoryLookup::new();
    let lists = AllowList::new();
    // Nobody is asked about again but for a change, and nothing is said that would be a reason.
    let configure = |builder: Builder| {
        let mut limits = limits(FOR_EVER);
        limits.policy_again = FOR_EVER;
        builder.limits(limits)
    };
    let outer = Member::spawn(&lookup).await;
    let guarded = Headwater::builder().policy(lists.clone());
    let inner = Member::build_on(&lookup, guarded, configure).await;
    let created = inner.headwater.create_space(&author(0)).await;
    let space = created.expect("created").id();
    let live = inner.join(space, vec![]).await;
    let _outside = outer.join(space, vec![inner.id()]).await;
    until("it is refused", || {
        inner.metrics().neighbors_refused.get() > 0
    })
    .await;
    for _ in 0..2 {
        lists.set_reader(space, outer.id(), true);
        until("it is let in", || live.status().neighbors == [outer.id()]).await;
        lists.set_reader(space, outer.id(), false);
        until("it is shut out", || live.status().neighbors.is_empty()).await;
    }
    shut_down([outer, inner]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_that_never_answers_for_somebody_holds_up_nobody_else() {
    let lookup = MemoryLookup::new();
    let guests = Guests::default();
    let stranger = Outsider::spawn(&lookup).await;
    guests.never_answer_for(stranger.id());
    let configure = |builder: Builder| builder.limits(limits(FOR_EVER));
    let one = Member::guarded(&lookup, &guests, configure).await;
    let other = Member::guarded(&lookup, &guests, configure).await;
    let created = one.headwater.create_space(&author(0)).await;
    let space = created.expect("created").id();
    let live = one.join(space, vec![]).await;
    let also = other.join(space, vec![one.id()]).await;
    until_held(also.space(), 1).await;

    let voice = stranger.join(space, vec![one.id(), other.id()]).await;
    // Some wait for the answer that never comes, and the others are dropped.
    for n in 1..=20 {
        voice
            .say(stranger.sign(&stranger.announcement(space, n)))
            .await;
    }
    for member in [&one, &other] {
        let metrics = member.metrics();
        until("too much waits", || metrics.ignored_unanswered.get() == 16).await;
    }
    for held in 2..10 {
        // As it is, and by a pull.
        let size = if held % 2 == 0 { 100 } else { 20_000 };
        let draft = EventDraft::new(16, 0, vec![9; size]);
        live.space()
            .append(&author(1), draft)
            .await
            .expect("appended");
        until_held(also.space(), held).await;
    }
    assert_eq!(one.metrics().policy_unanswered.get(), 0);
    assert_eq!(live.status().neighbors, [other.id()]);
    assert_eq!(also.status().neighbors, [one.id()]);
    future::zip(shut_down([one, other]), stranger.shutdown()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whom_the_policy_does_not_answer_for_in_time_is_not_believed() {
    let lookup = MemoryLookup::new();
    let guests = Guests::default();
    let stranger = Outsider::spawn(&lookup).await;
    guests.never_answer_for(stranger.id());
    let soon = |builder: Builder| builder.limits(limits(Duration::from_millis(10)));
    let one = Member::guarded(&lookup, &guests, soon).await;
    let created = one.headwater.create_space(&author(0)).await;
    let space = created.expect("created").id();
    let live = one.join(space, vec![]).await;
    let voice = stranger.join(space, vec![one.id()]).await;
    voice
        .say(stranger.sign(&stranger.announcement(space, 1)))
        .await;
    let metrics = one.metrics();
    until("it is ignored", || metrics.ignored_unanswered.get() == 1).await;
    until("it is asked about again", || {
        metrics.policy_unanswered.get() >= 3
    })
    .await;
    assert_eq!(metrics.announcements_accepted.get(), 0);
    assert_eq!(live.status().neighbors, []);
    future::zip(shut_down([one]), stranger.shutdown()).await;
}
