//! Pulls of bridges: who stalls is passed over, and two that pull from each other share what they
//! can.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use headwater::{
    ALPN, EventDraft, Limits,
    wire::{Message, PlanTotals, Segment, SyncBatchV2, SyncPlan, VerifiedRun, sign_genesis},
};
use headwater_gossip::{AnnouncerConfig, Builder};
use iroh::{
    SecretKey,
    address_lookup::MemoryLookup,
    endpoint::Connection,
    protocol::{AcceptError, ProtocolHandler, Router},
};
use iroh_gossip::{ALPN as GOSSIP_ALPN, net::Gossip};
use n0_future::{future, join_all, time::timeout};

use super::members::{LIMIT, Member, bound, hasty, secret, shut_down, until, until_held};
use crate::nodes::{author, write};

/// Serves the genesis of a space, says that more comes, and never goes on.
#[derive(Debug, Clone)]
struct Stalling {
    begun: Arc<Vec<u8>>,
}

impl Stalling {
    fn after(genesis: &VerifiedRun) -> Self {
        let plan = SyncPlan {
            request_id: 1,
            segment: Segment::Owner,
            totals: PlanTotals {
                authors: 1,
                events: 1,
                payload_bytes: 10_000,
            },
            rest: PlanTotals {
                authors: 1,
                events: 50,
                payload_bytes: 10_000,
            },
        };
        let batch = SyncBatchV2 {
            request_id: 1,
            more: true,
            runs: vec![genesis.run().as_bytes().clone()],
        };
        let mut begun = Vec::new();
        for message in [Message::SyncPlan(plan), Message::SyncBatchV2(batch)] {
            let frame: Vec<Bytes> = message.encode_frame().expect("fits");
            frame.iter().for_each(|part| begun.extend_from_slice(part));
        }
        Self {
            begun: Arc::new(begun),
        }
    }
}

impl ProtocolHandler for Stalling {
    async fn accept(&self, connection: Connection) -> Result<(), AcceptError> {
        let (mut send, _recv) = connection.accept_bi().await?;
        send.write_all(&self.begun).await.ok();
        connection.closed().await;
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_stalls_in_the_middle_of_a_pull_is_passed_over_for_another() {
    let lookup = MemoryLookup::new();
    let genesis = sign_genesis(&author(0), [5; 16], 1);
    let space = genesis.space();
    let endpoint = bound(&lookup, SecretKey::generate()).await;
    let gossip = Gossip::builder().spawn(endpoint.clone());
    let stalling = Router::builder(endpoint)
        .accept(ALPN, Stalling::after(&genesis))
        .accept(GOSSIP_ALPN, gossip.clone())
        .spawn();
    let stalls = stalling.endpoint().id();
    let topic = headwater_gossip::topic_id(&space, &secret());
    let _on_topic = gossip.subscribe(topic, vec![]).await.expect("joined");

    let hasty = AnnouncerConfig {
        slow_pull: Duration::from_millis(200),
        ..hasty()
    };
    let late = Member::build(&lookup, |builder| builder.announcer(hasty)).await;
    let live = late.join(space, vec![stalls]).await;
    // In the middle: what it began with is stored, and the pull goes on.
    until_held(live.space(), 1).await;
    assert_eq!(live.status().pulling_from, [stalls]);

    let provider = Member::spawn(&lookup).await;
    let held = provider.headwater.space(space);
    let stored = held.apply(vec![genesis.run().clone()], stalls).await;
    assert!(stored.expect("stored")[0].is_ok());
    write(&held, 1, "held by another", 50).await;
    let _provides = provider.join(space, vec![late.id()]).await;
    let metrics = late.metrics();
    until("another provider ends a pull", || {
        metrics.pulls_completed.get() > 0
    })
    .await;
    assert!(
        live.status().pulling_from.contains(&stalls),
        "still stalled"
    );
    until_held(live.space(), 51).await;
    assert!(live.status().history_complete);

    let members = shut_down([late, provider]);
    future::zip(members, stalling.shutdown())
        .await
        .1
        .expect("router task");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_that_pull_from_each_other_again_and_again_share_one_connection() {
    let lookup = MemoryLookup::new();
    let mut limits = Limits::default();
    limits.idle_connection = Duration::from_hours(1);
    let node = || crate::nodes::open().limits(limits.clone());
    let configure = |builder: Builder| builder;
    let members = [
        Member::build_on(&lookup, node(), configure).await,
        Member::build_on(&lookup, node(), configure).await,
    ];
    let created = members[0].headwater.create_space(&author(0)).await;
    let space = created.expect("created").id();
    // Dialled once. From here on both know a connection to the other.
    let other = members[1].headwater.space(space);
    let first = members[0].headwater.endpoint().expect("mounted");
    other.sync_with(first.addr()).await.expect("synced");
    let live = [
        members[0].join(space, vec![]).await,
        members[1].join(space, vec![members[0].id()]).await,
    ];
    for live in &live {
        assert!(timeout(LIMIT, live.joined()).await.expect("in time"));
    }

    for round in 1..=5 {
        // Both write what is too large to be sent to everybody, at the same time.
        let writing = live.iter().zip(1..).map(|(live, number)| async move {
            let draft = EventDraft::new(16, 0, vec![9; 20_000]);
            let appended = live.space().append(&author(number), draft).await;
            appended.expect("appended");
        });
        join_all(writing).await;
        for live in &live {
            until_held(live.space(), 1 + 2 * round).await;
        }
    }
    for member in &members {
        let pulls = member.metrics().pulls_started.get();
        assert!(pulls > 0, "both pull");
    }
    let dialled = members
        .iter()
        .map(|it| it.headwater.metrics().connections_dialled.get());
    assert_eq!(dialled.sum::<u64>(), 1);
    shut_down(members).await;
}
