//! What a peer's word is worth: promises that are not kept, forks that are none, and receipts that
//! contradict each other.

use headwater::{AuthorHead, ClockEntry, EventDraft, EventId, Space};
use headwater_gossip::{BridgeEvent, LiveSpace, Standing};
use headwater_wire::RevokedDigest;
use iroh::{EndpointId, SecretKey, address_lookup::MemoryLookup};

use n0_future::{StreamExt, future::poll_once};

use super::members::{Crowd, Outsider, until, until_held, until_told};
use crate::nodes::{Node, author, open, seq_of, write};

fn standing(live: &LiveSpace, peer: EndpointId) -> Option<Standing> {
    let standings = live.status().standings;
    standings.into_iter().find(|it| it.peer == peer)
}

async fn write_large(space: &Space, number: u32) {
    let draft = EventDraft::new(16, 0, vec![1; 20_000]);
    let appended = space.append(&author(number), draft).await;
    appended.expect("appended");
}

/// A peer next to a member that holds what is there now, and no more.
async fn beside(lookup: &MemoryLookup, crowd: &Crowd) -> (Outsider, super::members::Voice) {
    let liar = Outsider::spawn(lookup).await;
    let copy = liar.headwater.space(crowd.space);
    let endpoint = crowd.members[0].headwater.endpoint().expect("mounted");
    copy.sync_with(endpoint.addr()).await.expect("synced");
    let voice = liar.join(crowd.space, vec![crowd.members[0].id()]).await;
    (liar, voice)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_announces_what_another_then_brings_is_known_to_have_kept_it_back() {
    let lookup = MemoryLookup::new();
    let crowd = Crowd::gather(&lookup, 2).await;
    let (liar, voice) = beside(&lookup, &crowd).await;
    // Somebody who is not on the topic has the author's log.
    let source = Node::spawn().await;
    let theirs = source.space(crowd.space);
    let endpoint = crowd.members[0].headwater.endpoint().expect("mounted");
    theirs.sync_with(endpoint.addr()).await.expect("synced");
    write_large(&theirs, 5).await;

    let mut said = liar.announcement(crowd.space, 1);
    let head = theirs.signed_head(author(5).id()).await.expect("readable");
    said.changed = head.into_iter().collect();
    voice.say(liar.sign(&said)).await;
    let live = &crowd.live[0];
    until("a promise is broken", || {
        standing(live, liar.id()).is_some_and(|it| it.counters.promises_broken == 1)
    })
    .await;
    until("nobody is left to ask", || live.status().missing_heads == 0).await;

    live.space().sync_with(source.addr()).await.expect("synced");
    until("it is known to exist", || {
        standing(live, liar.id()).is_some_and(|it| it.counters.withheld == 1)
    })
    .await;
    let found = standing(live, liar.id()).expect("known");
    assert!(found.demerits > 2 && !found.caught, "{found:?}");
    assert_eq!(live.status().counters.withheld, 1);
    assert!(crowd.members[0].metrics().promises_broken.get() >= 1);
    // Nobody is worse off for it.
    write_large(crowd.live[1].space(), 6).await;
    until_held(live.space(), 3).await;
    liar.shutdown().await;
    source.shutdown().await;
    crowd.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_is_said_to_fork_and_does_not_stays_whole_and_goes_on() {
    let lookup = MemoryLookup::new();
    let crowd = Crowd::gather(&lookup, 2).await;
    write(crowd.live[1].space(), 5, "honest", 3).await;
    crowd.until_equal(4).await;
    let (liar, voice) = beside(&lookup, &crowd).await;

    let mut said = liar.announcement(crowd.space, 1);
    said.forked = vec![ClockEntry {
        author: author(5).id(),
        head: AuthorHead {
            seq: 2,
            id: EventId::from_bytes([9; 32]),
        },
        forked: true,
        revoked: RevokedDigest::NONE,
    }];
    voice.say(liar.sign(&said)).await;
    for live in &crowd.live {
        until("the proof was asked for, and is none", || {
            standing(live, liar.id()).is_some_and(|it| it.counters.promises_broken == 1)
        })
        .await;
        let forks = live.space().forks(None, 10).await;
        assert!(forks.expect("readable").is_empty());
        assert_eq!(seq_of(live.space(), author(5).id()).await, 3);
    }
    write(crowd.live[1].space(), 5, "goes on", 1).await;
    crowd.until_equal(5).await;
    liar.shutdown().await;
    crowd.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_neighbor_that_was_caught_is_told_of_and_vouches_for_nothing() {
    let lookup = MemoryLookup::new();
    let crowd = Crowd::gather(&lookup, 2).await;
    let (member, live) = (&crowd.members[0], &crowd.live[0]);
    let endpoint = member.headwater.endpoint().expect("mounted");
    // Somebody who never has more than what was there first.
    let source = Node::build(open().ask_back(false)).await;
    let theirs = source.space(crowd.space);
    theirs.sync_with(endpoint.addr()).await.expect("synced");
    // One key, two stores of as many commits.
    let key = SecretKey::generate();
    let mut face = Outsider::with_key(&lookup, key.clone()).await;
    let mut events = live.events();
    for number in [21, 22] {
        let copy = face.headwater.space(crowd.space);
        copy.sync_with(source.addr()).await.expect("synced");
        write(&copy, number, "for some", 5).await;
        let addr = face.headwater.endpoint().expect("mounted").addr();
        let synced = live.space().sync_with(addr).await;
        synced.expect("synced");
        if number == 21 {
            face.shutdown().await;
            face = Outsider::with_key(&lookup, key.clone()).await;
        }
    }
    assert!(member.headwater.is_caught(key.public()));

    let voice = face.join(crowd.space, vec![member.id()]).await;
    let caught = BridgeEvent::ProviderCaught(key.public());
    let before = until_told(&mut events, &caught).await;
    assert!(before.contains(&BridgeEvent::NeighborUp(key.public())));
    let found = standing(live, key.public()).expect("known");
    assert!(found.caught);
    assert_eq!(member.metrics().providers_caught.get(), 1);

    // It is compared with like any neighbour, and says what is here.
    let digest = live
        .space()
        .summary()
        .await
        .expect("readable")
        .expect("held");
    let mut said = face.announcement(crowd.space, 1);
    said.digest = digest.digest;
    voice.say(face.sign(&said)).await;
    until("it was heard", || {
        member.metrics().announcements_accepted.get() >= 1
    })
    .await;
    until("it was pulled from", || {
        standing(live, key.public()).is_some_and(|it| it.counters.pulls > 0)
            || live.status().unsettled_neighbors == 0
    })
    .await;
    let mut told = before;
    while let Some(Some(event)) = poll_once(events.next()).await {
        told.push(event);
    }
    let vouched = |event: &BridgeEvent| matches!(event, BridgeEvent::HistorySynced { provider, .. } if *provider == key.public());
    assert!(!told.iter().any(vouched), "{told:?}");
    face.shutdown().await;
    source.shutdown().await;
    crowd.shutdown().await;
}
