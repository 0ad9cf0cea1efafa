//! Bad input on the topic: ignored, counted, and without effect on others.

use bytes::Bytes;
use headwater::wire::{AuthorHead, EventId, Run, SignedHead, SpaceId, sign_runs};
use headwater_gossip::{BridgeMetrics, HeadAnnouncement, LiveSpace};
use iroh::address_lookup::MemoryLookup;
use n0_future::{StreamExt, future, time::timeout};

use super::members::{Crowd, LIMIT, Outsider, Voice, until, until_held};
use crate::nodes::{author, drafts, write};

/// Two honest nodes, and one who says what a test wants, next to both.
struct Stage {
    crowd: Crowd,
    outsider: Outsider,
    voice: Voice,
    held: u64,
}

impl Stage {
    async fn set() -> Self {
        Self::set_with(|builder| builder).await
    }

    async fn set_with(
        configure: impl Fn(headwater_gossip::Builder) -> headwater_gossip::Builder,
    ) -> Self {
        let lookup = MemoryLookup::new();
        let crowd = Crowd::build(&lookup, 2, |_, builder| configure(builder)).await;
        let outsider = Outsider::spawn(&lookup).await;
        let voice = outsider.join(crowd.space, crowd.ids()).await;
        Self {
            crowd,
            outsider,
            voice,
            held: 1,
        }
    }

    fn metrics(&self) -> &BridgeMetrics {
        self.crowd.members[0].metrics()
    }

    fn victim(&self) -> &LiveSpace {
        &self.crowd.live[0]
    }

    fn announcement(&self, n: u64) -> HeadAnnouncement {
        self.outsider.announcement(self.crowd.space, n)
    }

    /// Says something, and waits until the victim has counted it as this.
    async fn say(&self, message: Bytes, counter: impl Fn(&BridgeMetrics) -> u64) {
        let before = counter(self.metrics());
        self.voice.say(message).await;
        until("it is counted", || counter(self.metrics()) > before).await;
    }

    /// What the honest node writes still arrives, and nothing else has.
    async fn assert_unharmed(&mut self) {
        write(self.crowd.live[1].space(), 7, "honest", 1).await;
        self.held += 1;
        self.crowd.until_equal(self.held).await;
    }

    async fn end(self) {
        future::zip(self.outsider.shutdown(), self.crowd.shutdown()).await;
    }
}

/// One run of events of an author.
fn run(space: SpaceId, number: u32, base: Option<AuthorHead>, count: usize) -> Run {
    let drafts = drafts("outside", count);
    let mut runs = sign_runs(&space, &author(number), base, drafts).expect("fits");
    runs.remove(0).into_run()
}

fn head(run: &Run, space: SpaceId) -> AuthorHead {
    let seq = run.last_seq();
    let id = run.id_at(&space, seq).expect("in the run");
    AuthorHead { seq, id }
}

/// The last byte before the signature changed.
fn tampered(message: &Bytes) -> Bytes {
    let mut bytes = message.to_vec();
    let at = bytes.len() - 1;
    bytes[at] ^= 1;
    bytes.into()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forged_announcement_is_ignored() {
    let mut stage = Stage::set().await;
    let mut said = stage.announcement(1);
    said.inline = vec![run(stage.crowd.space, 50, None, 1).as_bytes().clone()];
    let forged = tampered(&stage.outsider.sign(&said));
    stage.say(forged, |it| it.ignored_forged.get()).await;
    stage.assert_unharmed().await;
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_announcement_of_another_space_is_ignored() {
    let mut stage = Stage::set().await;
    let mut said = stage.announcement(1);
    said.space = SpaceId::from_bytes([0x5b; 32]);
    let foreign = stage.outsider.sign(&said);
    stage
        .say(foreign, |it| it.ignored_foreign_space.get())
        .await;
    stage.assert_unharmed().await;
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_that_its_author_did_not_sign_is_ignored_with_all_that_came_along() {
    let mut stage = Stage::set().await;
    let space = stage.crowd.space;
    let claimed = AuthorHead {
        seq: 99,
        id: EventId::from_bytes([1; 32]),
    };
    let mut claimed = SignedHead::sign(&author(50), space, claimed);
    claimed.author = author(51).id();
    let mut said = stage.announcement(1);
    said.changed = vec![claimed];
    said.inline = vec![run(space, 50, None, 1).as_bytes().clone()];
    let message = stage.outsider.sign(&said);
    stage.say(message, |it| it.ignored_forged_head.get()).await;
    assert_eq!(stage.victim().status().missing_heads, 0);
    stage.assert_unharmed().await;
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_inline_run_that_its_author_did_not_sign_is_ignored() {
    let mut stage = Stage::set().await;
    let elsewhere = SpaceId::from_bytes([0x5b; 32]);
    let mut said = stage.announcement(1);
    said.inline = vec![run(elsewhere, 50, None, 1).as_bytes().clone()];
    let message = stage.outsider.sign(&said);
    stage.say(message, |it| it.ignored_invalid_run.get()).await;
    stage.assert_unharmed().await;
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_announcement_above_the_limit_is_ignored() {
    let mut stage = Stage::set_with(|builder| builder.topic_message_bytes(2048)).await;
    let mut said = stage.announcement(1);
    said.inline = vec![vec![0; 3000].into()];
    let message = stage.outsider.sign(&said);
    stage.say(message, |it| it.ignored_oversized.get()).await;
    stage.assert_unharmed().await;
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_counter_that_goes_back_is_ignored() {
    let mut stage = Stage::set().await;
    let first = stage.outsider.sign(&stage.announcement(500));
    stage.say(first, |it| it.announcements_accepted.get()).await;
    let replayed = |it: &BridgeMetrics| it.ignored_replayed.get();

    // Other bytes under the same counter, one far back, and one of an earlier start.
    let mut again = stage.announcement(500);
    again.digest = headwater::HeadsDigest::from_bytes([2; 32]);
    stage.say(stage.outsider.sign(&again), replayed).await;
    let back = stage.outsider.sign(&stage.announcement(400));
    stage.say(back, replayed).await;
    let mut earlier = stage.announcement(501);
    earlier.counter.boot = 0;
    stage.say(stage.outsider.sign(&earlier), replayed).await;

    stage.assert_unharmed().await;
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_of_an_unknown_kind_and_nonsense_are_skipped() {
    let mut stage = Stage::set().await;
    stage
        .say(vec![77, 1, 2].into(), |it| it.ignored_unknown.get())
        .await;
    stage
        .say(vec![16, 1, 2].into(), |it| it.ignored_malformed.get())
        .await;
    stage
        .say(vec![1, 200].into(), |it| it.ignored_malformed.get())
        .await;
    stage.assert_unharmed().await;
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_inline_run_with_a_gap_leads_to_a_pull() {
    let stage = Stage::set().await;
    let space = stage.crowd.space;
    // The outsider holds all of a log, and announces only the end of it.
    let held = stage.outsider.headwater.space(space);
    held.sync_with(
        stage.crowd.members[0]
            .headwater
            .endpoint()
            .expect("mounted")
            .addr(),
    )
    .await
    .expect("synced");
    let start = run(space, 50, None, 5);
    let end = run(space, 50, Some(head(&start, space)), 1);
    let runs = vec![start, end.clone()];
    let stored = held.apply(runs, stage.outsider.id()).await.expect("stored");
    assert!(stored.iter().all(Result::is_ok));

    let mut said = stage.announcement(1);
    said.inline = vec![end.as_bytes().clone()];
    let message = stage.outsider.sign(&said);
    stage.say(message, |it| it.runs_with_gap.get()).await;
    for live in &stage.crowd.live {
        until_held(live.space(), 7).await;
    }
    assert!(stage.crowd.count(|it| it.events_pulled.get()) >= 6);
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn heads_that_are_never_delivered_are_given_up() {
    let mut stage = Stage::set().await;
    let space = stage.crowd.space;
    let promised = AuthorHead {
        seq: 99,
        id: EventId::from_bytes([1; 32]),
    };
    let mut said = stage.announcement(1);
    said.changed = vec![SignedHead::sign(&author(50), space, promised)];
    stage.voice.say(stage.outsider.sign(&said)).await;
    until("the promise is broken often enough", || {
        let status = stage.victim().status();
        status.counters.wants_dropped > 0 && status.missing_heads == 0
    })
    .await;
    stage.assert_unharmed().await;
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_peer_that_floods_does_not_keep_others_from_being_heard() {
    const FLOOD: u64 = 10_000;
    let mut stage = Stage::set().await;
    let flood: Vec<_> = (1..=FLOOD)
        .map(|n| stage.outsider.sign(&stage.announcement(n)))
        .collect();
    let sender = stage.voice.sender.clone();
    // Reads what comes back, as every node does.
    let mut receiver = stage.voice.receiver;
    let reading = tokio::spawn(async move { while receiver.next().await.is_some() {} });
    let before = stage.crowd.members[0].metrics().messages_received.get();
    let started = std::time::Instant::now();
    let flooding = tokio::spawn(async move {
        for message in flood {
            sender.broadcast(message).await.expect("said");
        }
        (sender, started.elapsed())
    });

    for _ in 0..20 {
        write(stage.crowd.live[1].space(), 7, "honest", 1).await;
        stage.held += 1;
        stage.crowd.until_equal(stage.held).await;
    }

    let (sender, took) = timeout(LIMIT, flooding)
        .await
        .expect("in time")
        .expect("ran");
    let metrics = stage.crowd.members[0].metrics();
    println!(
        "{FLOOD} announcements in {took:?}: {} received, {} passed, {} dropped unread, {} lags; \
         20 honest events arrived meanwhile",
        metrics.messages_received.get() - before,
        metrics.announcements_accepted.get(),
        metrics.ignored_sender_too_often.get(),
        metrics.lagged.get(),
    );
    assert!(metrics.ignored_sender_too_often.get() > 0);
    drop(sender);
    future::zip(stage.outsider.shutdown(), stage.crowd.shutdown()).await;
    reading.abort();
}
