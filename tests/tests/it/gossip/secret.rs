//! The owner replaces the topic's secret: those who may read meet again, and nobody else hears.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use headwater::SpaceId;
use headwater_gossip::{BridgeEvent, BridgeLimits, Builder, LiveSpace, TopicSecret, topic_id};
use iroh::address_lookup::MemoryLookup;
use iroh_gossip::api::Event;
use n0_future::{StreamExt, future, task::AbortOnDropHandle, time::timeout};

use super::members::{
    Guests, LIMIT, Member, Outsider, hasty, shut_down, until, until_held, until_told,
};
use crate::nodes::{author, write};

const NEW: [u8; 32] = [0xc5; 32];

fn configure(builder: Builder) -> Builder {
    let mut limits = BridgeLimits::default();
    limits.rejoin = (Duration::from_millis(20), Duration::from_millis(200));
    builder.limits(limits)
}

fn moved(space: SpaceId) -> BridgeEvent {
    let secret = TopicSecret::from_bytes(NEW);
    BridgeEvent::TopicSecretChanged {
        topic: topic_id(&space, &secret),
        secret,
    }
}

/// Three members of a space on the topic of the secret before.
struct Three {
    members: Vec<Member>,
    live: Vec<LiveSpace>,
    space: SpaceId,
}

impl Three {
    async fn gather(lookup: &MemoryLookup, guests: &Guests) -> Self {
        let mut members = Vec::new();
        for _ in 0..3 {
            members.push(Member::guarded(lookup, guests, configure).await);
        }
        let created = members[0].headwater.create_space(&author(0)).await;
        let space = created.expect("created").id();
        let mut live = Vec::new();
        for member in &members {
            live.push(member.join(space, vec![members[0].id()]).await);
        }
        let three = Self {
            members,
            live,
            space,
        };
        three.until_held(1).await;
        three
    }

    async fn until_held(&self, events: u64) {
        for live in &self.live {
            until_held(live.space(), events).await;
        }
    }

    /// The owner sets the new secret, and all move.
    async fn set_secret(&self) {
        let mut events: Vec<_> = self.live.iter().map(LiveSpace::events).collect();
        let owner = author(0);
        let set = self.live[0].space().set_topic_secret(&owner, NEW);
        set.await.expect("set");
        for events in &mut events {
            until_told(events, &moved(self.space)).await;
        }
        let topic = topic_id(&self.space, &TopicSecret::from_bytes(NEW));
        for live in &self.live {
            assert_eq!(live.topic(), topic);
            assert!(timeout(LIMIT, live.joined()).await.expect("in time"));
        }
    }
}

/// All that an outsider hears on the topic of the secret before.
struct Listener {
    heard: Arc<Mutex<Vec<Bytes>>>,
    _listening: AbortOnDropHandle<()>,
}

impl Listener {
    async fn join(outsider: &Outsider, three: &Three) -> Self {
        let peers = three.members.iter().map(Member::id).collect();
        let mut voice = outsider.join(three.space, peers).await;
        let heard = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&heard);
        let listening = async move {
            let mut receiver = voice.receiver.take().expect("not read yet");
            while let Some(Ok(event)) = receiver.next().await {
                if let Event::Received(message) = event {
                    kept.lock().expect("sound").push(message.content);
                }
            }
        };
        Self {
            heard,
            _listening: AbortOnDropHandle::new(n0_future::task::spawn(listening)),
        }
    }

    fn has_heard(&self, bytes: &[u8]) -> bool {
        let heard = self.heard.lock().expect("sound");
        let holds = |message: &Bytes| message.windows(bytes.len()).any(|part| part == bytes);
        heard.iter().any(holds)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn all_who_may_read_meet_on_the_topic_of_a_new_secret_and_a_revoked_reader_hears_nothing() {
    let lookup = MemoryLookup::new();
    let guests = Guests::default();
    let three = Three::gather(&lookup, &guests).await;
    let revoked = Outsider::spawn(&lookup).await;
    guests.admit(revoked.id());
    let listener = Listener::join(&revoked, &three).await;
    write(three.live[1].space(), 1, "heard by all", 1).await;
    three.until_held(2).await;
    until("a reader hears", || listener.has_heard(b"heard by all")).await;

    guests.refuse(revoked.id());
    three.set_secret().await;
    three.until_held(3).await;
    // Everybody writes, and everybody hears it.
    for (number, live) in (10..).zip(&three.live) {
        write(live.space(), number, "not for everybody", 1).await;
        three.until_held(u64::from(number) - 6).await;
    }
    write(three.live[0].space(), 0, "the owner too", 1).await;
    three.until_held(7).await;

    // What it hears last on the old topic comes after all that was said there before.
    let space = &three.space;
    let last = revoked.sign(&revoked.announcement(*space, 1));
    let again = Outsider::spawn(&lookup).await;
    let voice = again.join(*space, vec![revoked.id()]).await;
    voice.say(last.clone()).await;
    until("the topic still carries", || listener.has_heard(&last)).await;
    assert!(!listener.has_heard(&NEW), "the secret itself");
    assert!(!listener.has_heard(b"not for everybody"));
    assert!(!listener.has_heard(b"the owner too"));
    for number in 10..13 {
        assert!(
            !listener.has_heard(author(number).id().as_bytes()),
            "a head"
        );
    }
    let asked = revoked.headwater.space(*space);
    let owner = three.members[0].headwater.endpoint().expect("mounted");
    assert!(asked.sync_with(owner.addr()).await.is_err());

    let outsiders = future::zip(revoked.shutdown(), again.shutdown());
    future::zip(outsiders, shut_down(three.members)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_was_away_when_the_secret_changed_follows_from_the_old_topic_or_from_its_own_log() {
    let lookup = MemoryLookup::new();
    let guests = Guests::default();
    let three = Three::gather(&lookup, &guests).await;
    let away = Member::guarded(&lookup, &guests, |builder| {
        configure(builder).announcer(hasty())
    })
    .await;
    three.set_secret().await;
    three.until_held(2).await;
    let ids: Vec<_> = three.members.iter().map(Member::id).collect();

    // It knows the secret before, and joins where the others still listen.
    let live = away.join(three.space, ids.clone()).await;
    let mut events = live.events();
    until_told(&mut events, &moved(three.space)).await;
    assert!(timeout(LIMIT, live.joined()).await.expect("in time"));
    write(three.live[2].space(), 1, "for all four", 1).await;
    until_held(live.space(), 3).await;

    // Joining by the secret before is joining the same space.
    let again = away.join(three.space, vec![]).await;
    assert_eq!(again.topic(), live.topic());

    // One that synced meanwhile finds the new secret in what it holds.
    let synced = Member::guarded(&lookup, &guests, configure).await;
    let owner = three.members[0].headwater.endpoint().expect("mounted");
    let held = synced.headwater.space(three.space);
    held.sync_with(owner.addr()).await.expect("synced");
    let late = synced.join(three.space, ids).await;
    let mut events = late.events();
    until_told(&mut events, &moved(three.space)).await;
    assert!(timeout(LIMIT, late.joined()).await.expect("in time"));
    write(three.live[1].space(), 1, "for all five", 1).await;
    until_held(late.space(), 4).await;
    shut_down(three.members.into_iter().chain([away, synced])).await;
}
