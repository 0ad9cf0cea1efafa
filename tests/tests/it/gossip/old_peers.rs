//! Peers of the older exchange on the same topic: they ask by state hash, and get dumps.

use std::time::Duration;

use bytes::Bytes;
use headwater::{
    Headwater, Nobody, Space, SpaceId,
    proto::history::TailWant,
    wire::{AuthorHead, EventId, Run, legacy::LegacyMessage, sign_runs},
};
use headwater_gossip::{BridgeLimits, LegacyPolicy, TopicSecret, topic_id};
use iroh::{EndpointId, address_lookup::MemoryLookup};
use iroh_gossip::api::{Event, GossipSender};
use n0_future::{StreamExt, join_all, task::AbortOnDropHandle};

use super::{
    lines,
    members::{
        Crowd, LIMIT, MAX_BYTES, Member, Outsider, Voice, secret, shut_down, until, until_held,
    },
};
use crate::nodes::{assert_equal, author, drafts, write};

/// A peer that knows nothing but the old messages.
struct OldPeer {
    outsider: Outsider,
    /// Where it keeps its events: a node that is on no network.
    space: Space,
    sender: GossipSender,
    topic: [u8; 32],
    asked: u8,
    _answering: AbortOnDropHandle<()>,
}

impl OldPeer {
    async fn join(lookup: &MemoryLookup, space: SpaceId, peers: Vec<EndpointId>) -> Self {
        let secret: TopicSecret = secret();
        let topic = *topic_id(&space, &secret).as_bytes();
        let outsider = Outsider::spawn(lookup).await;
        let Voice { sender, receiver } = outsider.join(space, peers).await;
        let mut receiver = receiver.expect("not read yet");
        let space = crate::nodes::open().open().space(space);
        let (kept, answers) = (space.clone(), sender.clone());
        let from = outsider.id();
        let answering = async move {
            while let Some(Ok(event)) = receiver.next().await {
                let Event::Received(message) = event else {
                    continue;
                };
                match LegacyMessage::decode(message.content) {
                    Ok(Some(LegacyMessage::SyncRequest { state_hash, .. })) => {
                        if state_hash != state(&kept).await {
                            dump(&kept, &answers).await;
                        }
                    }
                    Ok(Some(LegacyMessage::SyncBatch { events })) => {
                        for event in events {
                            if let Ok(run) = Run::decode(event) {
                                kept.apply(vec![run], from).await.ok();
                            }
                        }
                    }
                    // Whatever is said since: it cannot read that, and goes on.
                    Ok(None) | Err(_) => {}
                }
            }
        };
        Self {
            outsider,
            space,
            sender,
            topic,
            asked: 0,
            _answering: AbortOnDropHandle::new(n0_future::task::spawn(answering)),
        }
    }

    /// Asks everybody.
    async fn ask(&mut self) {
        self.asked += 1;
        let mut state_hash = state(&self.space).await;
        // iroh-gossip would drop the same bytes said twice.
        state_hash[0] ^= self.asked;
        let request = LegacyMessage::SyncRequest {
            state_hash,
            topic: self.topic,
        };
        self.say(request).await;
    }

    async fn say(&self, message: LegacyMessage) {
        let said = self.sender.broadcast(message.encode().into()).await;
        said.expect("said");
    }
}

/// What an old node takes for its state.
async fn state(space: &Space) -> [u8; 32] {
    let summary = space.summary().await.expect("readable");
    summary.map_or([0; 32], |summary| *summary.digest.as_bytes())
}

/// All a node holds, a message for each run.
async fn dump(space: &Space, sender: &GossipSender) {
    for entry in space.heads().await.expect("readable") {
        let want = TailWant {
            author: entry.author,
            above: 0,
            through: entry.head.seq,
        };
        let store = space.node().store();
        let runs = store.read_runs(&space.id(), &[want], MAX_BYTES);
        for run in runs.expect("readable") {
            let events = vec![run.bytes];
            let message = LegacyMessage::SyncBatch { events }.encode();
            sender.broadcast(message.into()).await.expect("said");
        }
    }
}

/// Answers as fast as a test wants them.
fn eager() -> BridgeLimits {
    let mut limits = BridgeLimits::default();
    limits.legacy_answer_every = Duration::from_millis(1);
    limits.legacy_ask_every = Duration::from_millis(1);
    limits
}

/// Two new nodes of that policy with some events of their own, and an old one.
async fn mixed(lookup: &MemoryLookup, policy: LegacyPolicy) -> (Crowd, OldPeer) {
    let configure = |_, builder: headwater_gossip::Builder| builder.legacy(policy).limits(eager());
    let crowd = Crowd::build(lookup, 2, configure).await;
    write(crowd.live[0].space(), 1, "new", 5).await;
    crowd.until_equal(6).await;
    let old = OldPeer::join(lookup, crowd.space, crowd.ids()).await;
    (crowd, old)
}

async fn end(crowd: Crowd, old: Vec<OldPeer>) {
    let outsiders = join_all(old.into_iter().map(|old| old.outsider.shutdown()));
    n0_future::future::zip(crowd.shutdown(), outsiders).await;
}

/// Two runs of an author, as old nodes send them.
fn entries(space: SpaceId, number: u32) -> Vec<Bytes> {
    let first = sign_runs(&space, &author(number), None, drafts("old", 1)).expect("fits");
    let base = Some(first[0].head());
    let second = sign_runs(&space, &author(number), base, drafts("older", 1)).expect("fits");
    [&first[0], &second[0]]
        .map(|run| run.run().as_bytes().clone())
        .to_vec()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_old_peer_sends_is_taken_under_every_policy_and_its_request_may_get_nothing() {
    for policy in [LegacyPolicy::Ignore, LegacyPolicy::AnnounceHeads] {
        let lookup = MemoryLookup::new();
        let (crowd, mut old) = mixed(&lookup, policy).await;
        let events = entries(crowd.space, 60);
        old.say(LegacyMessage::SyncBatch { events }).await;
        crowd.until_equal(8).await;

        old.ask().await;
        until("the request is heard", || {
            crowd.count(|it| it.legacy_requests_received.get()) == 2
        })
        .await;
        let answered = || crowd.count(|it| it.legacy_requests_answered.get());
        if policy == LegacyPolicy::AnnounceHeads {
            // Whoever hears the other announce as much leaves it at that; old nodes ask again.
            let asking = async {
                while answered() == 0 {
                    old.ask().await;
                    n0_future::time::sleep(Duration::from_millis(50)).await;
                }
            };
            let asked = n0_future::time::timeout(LIMIT, asking).await;
            asked.expect("an announcement answers it");
        } else {
            // An answer would be there after the longest wait there is for one: that of a node
            // that does answer, and was asked later.
            let answers = Member::build(&lookup, |builder| builder.limits(eager())).await;
            let answering = answers.join(crowd.space, crowd.ids()).await;
            until_held(answering.space(), 8).await;
            for _ in 0..3 {
                let before = answers.metrics().legacy_requests_answered.get();
                let asking = async {
                    while answers.metrics().legacy_requests_answered.get() == before {
                        old.ask().await;
                        n0_future::time::sleep(Duration::from_millis(50)).await;
                    }
                };
                let asked = n0_future::time::timeout(LIMIT, asking).await;
                asked.expect("the other one answers");
            }
            assert!(crowd.count(|it| it.legacy_requests_received.get()) > 2);
            assert_eq!(answered(), 0);
            shut_down([answers]).await;
        }
        assert_eq!(crowd.count(|it| it.legacy_batches_sent.get()), 0);
        assert!(old.space.summary().await.expect("readable").is_none());
        end(crowd, vec![old]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_peer_gets_a_dump_and_is_asked_for_its_own_where_that_is_the_policy() {
    let lookup = MemoryLookup::new();
    let (crowd, mut old) = mixed(&lookup, LegacyPolicy::ServeDump).await;
    old.ask().await;
    until_held(&old.space, 6).await;
    // It writes; nobody of the old ones is there to ask it, so a new one does.
    write(&old.space, 60, "old", 3).await;
    old.ask().await;
    crowd.until_equal(9).await;
    assert_equal(crowd.live[0].space(), &old.space).await;
    end(crowd, vec![old]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mixed_network_of_old_and_new_nodes_converges() {
    let lookup = MemoryLookup::new();
    // One of the new nodes serves dumps; the others leave that to it.
    let configure = |number, builder: headwater_gossip::Builder| {
        let policy = match number {
            0 => LegacyPolicy::ServeDump,
            _ => LegacyPolicy::AnnounceHeads,
        };
        builder.legacy(policy).limits(eager())
    };
    let crowd = Crowd::build(&lookup, 3, configure).await;
    let mut old = Vec::new();
    for _ in 0..2 {
        old.push(OldPeer::join(&lookup, crowd.space, crowd.ids()).await);
    }
    for old in &mut old {
        old.ask().await;
        until_held(&old.space, 1).await;
    }
    for (number, live) in (1..).zip(&crowd.live) {
        write(live.space(), number, "new", 4).await;
    }
    for (number, old) in (60..).zip(&old) {
        write(&old.space, number, "old", 4).await;
    }
    let all = 1 + 5 * 4;
    let converging = async {
        // Old nodes ask again and again for as long as they live.
        loop {
            for old in &mut old {
                old.ask().await;
            }
            n0_future::time::sleep(Duration::from_millis(100)).await;
            let mut equal = true;
            for space in old.iter().map(|old| &old.space) {
                let held = space.summary().await.expect("readable");
                equal &= held.is_some_and(|held| held.events == all);
            }
            if equal {
                return;
            }
        }
    };
    let converged = n0_future::time::timeout(LIMIT, converging).await;
    converged.expect("the old nodes have everything");
    crowd.until_equal(all).await;
    for old in &old {
        assert_equal(crowd.live[0].space(), &old.space).await;
    }
    end(crowd, old).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn invalid_events_in_a_dump_are_counted_and_the_others_taken() {
    let lookup = MemoryLookup::new();
    lines::keep();
    let (crowd, old) = mixed(&lookup, LegacyPolicy::default()).await;
    let mut events = entries(crowd.space, 60);
    // One for another space, and one that is no run at all.
    events.insert(1, entries(SpaceId::from_bytes([9; 32]), 61).remove(0));
    events.push(vec![3; 80].into());
    old.say(LegacyMessage::SyncBatch { events }).await;
    crowd.until_equal(8).await;
    for member in &crowd.members {
        let metrics = member.metrics();
        until("both are counted", || {
            metrics.legacy_runs_invalid.get() == 2
        })
        .await;
    }
    // Nobody signs a dump: a line names the neighbour that delivered it.
    until("there is a line for each", || {
        let mut delivered = crowd.ids();
        delivered.push(old.outsider.id());
        let lines = delivered
            .iter()
            .map(|peer| lines::naming(&[*peer], "an old run was ignored"));
        lines.sum::<u64>() == crowd.count(|it| it.legacy_runs_invalid.get())
    })
    .await;
    write(crowd.live[1].space(), 7, "honest", 1).await;
    crowd.until_equal(9).await;
    end(crowd, vec![old]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forged_dump_does_not_keep_what_its_author_writes_here_from_being_announced() {
    let lookup = MemoryLookup::new();
    let (crowd, old) = mixed(&lookup, LegacyPolicy::default()).await;
    // Far ahead in the log of an author, and signed for another space.
    let base = AuthorHead {
        seq: 1_000_000_000,
        id: EventId::from_bytes([1; 32]),
    };
    let elsewhere = SpaceId::from_bytes([9; 32]);
    let forged = sign_runs(&elsewhere, &author(7), Some(base), drafts("forged", 1)).expect("fits");
    let events = vec![forged[0].run().as_bytes().clone()];
    old.say(LegacyMessage::SyncBatch { events }).await;
    let writing = crowd.members[0].metrics();
    until("the forged run is refused", || {
        writing.legacy_runs_invalid.get() == 1
    })
    .await;
    let before = writing.runs_sent.get();
    write(crowd.live[0].space(), 7, "honest", 1).await;
    until("the event goes out with its announcement", || {
        writing.runs_sent.get() > before
    })
    .await;
    crowd.until_equal(7).await;
    end(crowd, vec![old]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_neighbor_that_may_not_read_is_not_answered_and_its_dumps_are_not_taken() {
    let lookup = MemoryLookup::new();
    let configure = |builder: headwater_gossip::Builder| {
        builder.legacy(LegacyPolicy::ServeDump).limits(eager())
    };
    let builder = Headwater::builder().policy(Nobody);
    let guarded = Member::build_on(&lookup, builder, configure).await;
    let created = guarded.headwater.create_space(&author(0)).await;
    let space = created.expect("created").id();
    let live = guarded.join(space, vec![]).await;
    let mut old = OldPeer::join(&lookup, space, vec![guarded.id()]).await;
    let metrics = guarded.metrics();

    let events = entries(space, 60);
    old.say(LegacyMessage::SyncBatch { events }).await;
    until("the dump is refused", || metrics.ignored_refused.get() == 1).await;
    old.ask().await;
    until("the request is refused", || {
        metrics.ignored_refused.get() == 2
    })
    .await;
    assert_eq!(metrics.legacy_batches_received.get(), 0);
    assert_eq!(metrics.legacy_requests_received.get(), 0);
    let held = live.space().summary().await.expect("readable");
    assert_eq!(held.expect("held").events, 1);
    drop(live);
    n0_future::future::zip(shut_down([guarded]), old.outsider.shutdown()).await;
}
