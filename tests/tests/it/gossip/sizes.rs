//! How large a message on a real topic may be: iroh-gossip drops what is larger in silence, and the link
//! with it.

use bytes::Bytes;
use headwater_gossip::{TopicSecret, max_announcement_bytes, topic_id};
use headwater_wire::SpaceId;
use iroh::{SecretKey, address_lookup::MemoryLookup, protocol::Router};
use iroh_gossip::{
    ALPN,
    api::{Event, GossipReceiver, GossipSender},
    net::Gossip,
};
use n0_future::{StreamExt, time::timeout};

use super::members::{Crowd, LIMIT, bound, until_held};
use crate::nodes::write;

/// Peers on one topic, each of which joined by way of the one before.
async fn chain(message_bytes: usize) -> Vec<(Router, GossipSender, GossipReceiver)> {
    let lookup = MemoryLookup::new();
    let space = SpaceId::from_bytes([1; 32]);
    let topic = topic_id(&space, &TopicSecret::from_bytes([2; 32]));
    let mut peers: Vec<(Router, GossipSender, GossipReceiver)> = Vec::new();
    for _ in 0..3 {
        let endpoint = bound(&lookup, SecretKey::generate()).await;
        let gossip = Gossip::builder().max_message_size(message_bytes);
        let gossip = gossip.spawn(endpoint.clone());
        let router = Router::builder(endpoint)
            .accept(ALPN, gossip.clone())
            .spawn();
        let before = peers.last().map(|(router, ..)| router.endpoint().id());
        let joined = match before {
            Some(before) => gossip.subscribe_and_join(topic, vec![before]).await,
            None => gossip.subscribe(topic, vec![]).await,
        };
        let (sender, receiver) = joined.expect("joined").split();
        peers.push((router, sender, receiver));
    }
    peers
}

async fn heard(receiver: &mut GossipReceiver) -> Bytes {
    let hearing = async {
        loop {
            match receiver.next().await.expect("open").expect("open") {
                Event::Received(message) => return message.content,
                _ => continue,
            }
        }
    };
    timeout(LIMIT, hearing).await.expect("in time")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_largest_announcement_reaches_everybody_on_a_real_topic_and_so_does_what_follows() {
    for message_bytes in [4_096, 1_024, 100_000] {
        let mut peers = chain(message_bytes).await;
        let largest = max_announcement_bytes(message_bytes);
        for (round, bytes) in [largest, 10, largest].into_iter().enumerate() {
            let message = Bytes::from(vec![round as u8; bytes]);
            let (_, sender, _) = &peers[0];
            sender.broadcast(message.clone()).await.expect("taken");
            for (_, _, receiver) in &mut peers[1..] {
                assert_eq!(heard(receiver).await, message);
            }
        }
        for (router, ..) in peers {
            router.shutdown().await.expect("router task");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_topic_that_takes_no_head_the_digest_has_to_do() {
    let lookup = MemoryLookup::new();
    let crowd = Crowd::build(&lookup, 3, |_, builder| builder.topic_message_bytes(240)).await;
    for (number, live) in (1..).zip(&crowd.live) {
        write(
            live.space(),
            number,
            "small, and larger than the topic takes",
            2,
        )
        .await;
    }
    for live in &crowd.live {
        until_held(live.space(), 7).await;
    }
    assert_eq!(crowd.count(|it| it.runs_sent.get()), 0);
    assert_eq!(crowd.count(|it| it.announcements_cut.get()), 0);
    let sent = crowd.count(|it| it.announcements_sent.get());
    let periodic = crowd.count(|it| it.announcements_periodic_sent.get());
    assert!(sent > 0 && sent == periodic, "{periodic} of {sent}");
    crowd.shutdown().await;
}
