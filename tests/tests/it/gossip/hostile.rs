//! Bad input on the topic: ignored, counted, and without effect on others.

use bytes::Bytes;
use headwater::wire::{AuthorHead, EventId, Run, SignedHead, SpaceId, sign_runs};
use headwater_gossip::{BridgeLimits, BridgeMetrics, HeadAnnouncement, LiveSpace, Rate};
use iroh::{EndpointId, address_lookup::MemoryLookup};
use n0_future::{StreamExt, future, time::timeout};
use tokio::task::JoinHandle;

use super::{
    lines,
    members::{Crowd, LIMIT, Outsider, Voice, run_message, salted, tampered, until, until_held},
};
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
        lines::keep();
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

    /// Says something that is bad for this reason: it is counted, and each time there is one line
    /// in the trace that names who said it.
    async fn say_bad(&self, message: Bytes, counter: impl Fn(&BridgeMetrics) -> u64, why: &str) {
        let before = self.crowd.count(&counter);
        self.say(message, &counter).await;
        self.until_traced(counter, why).await;
        assert!(self.crowd.count(|it| it.messages_received.get()) > before);
    }

    /// The same of runs, whose sender is known to nobody but its neighbours: the line names who
    /// delivered them.
    async fn say_bad_runs(
        &self,
        message: Bytes,
        counter: impl Fn(&BridgeMetrics) -> u64,
        why: &str,
    ) {
        self.say(message, &counter).await;
        let mut neighbors = self.crowd.ids();
        neighbors.push(self.outsider.id());
        self.until_traced_of(&neighbors, counter, why).await;
        assert!(lines::naming(&[self.outsider.id()], why) > 0);
    }

    /// Waits until as many lines name the outsider and this reason as were counted, and some were.
    async fn until_traced(&self, counter: impl Fn(&BridgeMetrics) -> u64, why: &str) {
        self.until_traced_of(&[self.outsider.id()], counter, why)
            .await;
    }

    async fn until_traced_of(
        &self,
        senders: &[EndpointId],
        counter: impl Fn(&BridgeMetrics) -> u64,
        why: &str,
    ) {
        until("there is a line for each", || {
            let counted = self.crowd.count(&counter);
            counted > 0 && lines::naming(senders, why) == counted
        })
        .await;
    }

    /// Reads what comes back to the outsider, as every node does.
    fn read_along(&mut self) -> JoinHandle<()> {
        let mut receiver = self.voice.receiver.take().expect("not read yet");
        tokio::spawn(async move { while receiver.next().await.is_some() {} })
    }

    /// Twenty events that the honest node writes for an author arrive, one after the other.
    async fn assert_heard(&mut self, number: u32) {
        for _ in 0..20 {
            write(self.crowd.live[1].space(), number, "honest", 1).await;
            self.held += 1;
            self.crowd.until_equal(self.held).await;
        }
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

#[tokio::test(flavor = "multi_thread")]
async fn a_forged_announcement_is_ignored() {
    let mut stage = Stage::set().await;
    let mut said = stage.announcement(1);
    let outside = run(stage.crowd.space, 50, None, 3);
    said.changed = vec![SignedHead::sign(
        &author(50),
        stage.crowd.space,
        head(&outside, stage.crowd.space),
    )];
    let forged = tampered(&stage.outsider.sign(&said));
    let counter = |it: &BridgeMetrics| it.ignored_forged.get();
    stage
        .say_bad(forged, counter, "the sender did not sign it")
        .await;
    stage.assert_unharmed().await;
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_is_taken_from_whoever_sends_it_and_again_it_is_no_news() {
    let mut stage = Stage::set().await;
    let space = stage.crowd.space;
    let first = run(space, 50, None, 1);
    let next = run(space, 50, Some(head(&first, space)), 1);
    stage
        .voice
        .say(run_message(space, vec![first.clone()]))
        .await;
    stage.held += 1;
    stage.crowd.until_equal(stage.held).await;
    // Again, beside what is news.
    let held = |it: &BridgeMetrics| it.runs_held.get();
    let other = run(space, 51, None, 1);
    stage
        .say(run_message(space, vec![first, other]), held)
        .await;
    stage.voice.say(run_message(space, vec![next])).await;
    stage.held += 2;
    stage.crowd.until_equal(stage.held).await;
    stage.assert_unharmed().await;
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_announcement_of_another_space_is_ignored() {
    let mut stage = Stage::set().await;
    let mut said = stage.announcement(1);
    said.space = SpaceId::from_bytes([0x5b; 32]);
    let foreign = stage.outsider.sign(&said);
    let counter = |it: &BridgeMetrics| it.ignored_foreign_space.get();
    stage.say_bad(foreign, counter, "speaks of space").await;
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
    let sound = SignedHead::sign(&author(50), space, claimed);
    let mut claimed = sound;
    claimed.author = author(51).id();
    let mut said = stage.announcement(1);
    said.changed = vec![sound, claimed];
    said.changed.sort_by_key(|head| head.author);
    let message = stage.outsider.sign(&said);
    let counter = |it: &BridgeMetrics| it.ignored_forged_head.get();
    let why = "is not signed by its author";
    stage.say_bad(message, counter, why).await;
    assert_eq!(stage.victim().status().missing_heads, 0);
    stage.assert_unharmed().await;
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_its_author_did_not_sign_is_ignored_with_all_that_came_along() {
    let mut stage = Stage::set().await;
    let space = stage.crowd.space;
    let elsewhere = SpaceId::from_bytes([0x5b; 32]);
    let bad = run(elsewhere, 50, None, 1);
    let counter = |it: &BridgeMetrics| it.ignored_invalid_run.get();
    let why = "wrong signature";
    for runs in [vec![bad.clone()], vec![run(space, 51, None, 1), bad]] {
        let message = run_message(space, runs);
        stage.say_bad_runs(message, counter, why).await;
    }
    stage.assert_unharmed().await;
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_runs_among_many_good_ones_of_a_neighbor_are_ignored_and_the_good_ones_are_taken() {
    let mut stage = Stage::set().await;
    let space = stage.crowd.space;
    let elsewhere = SpaceId::from_bytes([0x5b; 32]);
    for number in 100..200 {
        let place = if number % 10 == 5 { elsewhere } else { space };
        let message = run_message(space, vec![run(place, number, None, 1)]);
        stage.voice.say(message).await;
    }
    stage.held += 90;
    stage.crowd.until_equal(stage.held).await;
    until("all bad ones are counted", || {
        stage.crowd.count(|it| it.ignored_invalid_run.get()) == 2 * 10
    })
    .await;
    stage.assert_unharmed().await;
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn runs_sent_again_and_again_do_not_keep_their_author_from_being_heard() {
    const FLOOD: u64 = 10_000;
    let mut stage = Stage::set().await;
    let space = stage.crowd.space;
    let first = run(space, 50, None, 1);
    stage
        .voice
        .say(run_message(space, vec![first.clone()]))
        .await;
    stage.held += 1;
    stage.crowd.until_equal(stage.held).await;

    let sender = stage.voice.sender.clone();
    let reading = stage.read_along();
    let started = std::time::Instant::now();
    let flooding = tokio::spawn(async move {
        for salt in 1..=FLOOD {
            let again = salted(space, vec![first.clone()], salt);
            sender.broadcast(again).await.expect("said");
        }
        sender
    });
    stage.assert_heard(50).await;
    let sender = timeout(LIMIT, flooding).await.expect("in time");
    let checked = stage.crowd.count(|it| it.runs_held.get());
    let dropped = stage.crowd.count(|it| it.ignored_neighbor_too_often.get());
    println!("{FLOOD} old runs: {checked} checked by two nodes, {dropped} dropped unread");
    // At each node: what the flooder may send in its own name, what the other one may pass on in the name of one author,
    // and honest ones that come late, after a pull.
    let limits = BridgeLimits::default();
    let seconds = started.elapsed().as_secs_f64();
    let share = |of: Rate| f64::from(of.burst) + f64::from(of.per_second) * seconds + 1.0;
    let most = 2.0 * (share(limits.neighbor) + share(limits.forged) + 20.0);
    assert!(checked as f64 <= most, "{checked} checked, {most} allowed");
    // What the author writes then comes by the topic, and no pull is waited for.
    let before = stage.metrics().runs_stored.get();
    stage.assert_heard(50).await;
    until("the author is heard", || {
        stage.metrics().runs_stored.get() > before
    })
    .await;
    assert_eq!(stage.crowd.count(|it| it.ignored_author_too_often.get()), 0);
    drop(sender);
    future::zip(stage.outsider.shutdown(), stage.crowd.shutdown()).await;
    reading.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_without_a_payload_is_ignored() {
    let mut stage = Stage::set().await;
    let space = stage.crowd.space;
    let stripped = run(space, 50, None, 2).with_stubs(|index| index == 0);
    let counter = |it: &BridgeMetrics| it.ignored_invalid_run.get();
    let why = "the payload of event 2 is left out";
    let message = run_message(space, vec![stripped]);
    stage.say_bad_runs(message, counter, why).await;
    stage.assert_unharmed().await;
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn runs_of_another_space_are_ignored() {
    let mut stage = Stage::set().await;
    let elsewhere = SpaceId::from_bytes([0x5b; 32]);
    let message = run_message(elsewhere, vec![run(elsewhere, 50, None, 1)]);
    let counter = |it: &BridgeMetrics| it.ignored_foreign_space.get();
    stage
        .say_bad_runs(message, counter, "speaks of space")
        .await;
    stage.assert_unharmed().await;
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_above_the_limit_is_ignored() {
    let mut stage = Stage::set_with(|builder| builder.topic_message_bytes(2048)).await;
    let space = stage.crowd.space;
    let far = AuthorHead {
        seq: 99,
        id: EventId::from_bytes([1; 32]),
    };
    let heads = (50..70).map(|number| SignedHead::sign(&author(number), space, far));
    let mut said = stage.announcement(1);
    said.changed = heads.collect();
    said.changed.sort_by_key(|head| head.author);
    let message = stage.outsider.sign(&said);
    let counter = |it: &BridgeMetrics| it.ignored_oversized.get();
    stage.say_bad(message, counter, "2000 allowed").await;
    let runs = (50..70).map(|number| run(space, number, None, 1)).collect();
    let message = run_message(space, runs);
    stage.say_bad_runs(message, counter, "2000 allowed").await;
    stage.assert_unharmed().await;
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_counter_that_goes_back_is_ignored() {
    let mut stage = Stage::set().await;
    let first = stage.outsider.sign(&stage.announcement(500));
    stage.say(first, |it| it.announcements_accepted.get()).await;
    let replayed = |it: &BridgeMetrics| it.ignored_replayed.get();
    let why = "was seen or went back";

    // Other bytes under the same counter, one far back, and one of an earlier start.
    let mut again = stage.announcement(500);
    again.digest = headwater::HeadsDigest::from_bytes([2; 32]);
    stage
        .say_bad(stage.outsider.sign(&again), replayed, why)
        .await;
    let back = stage.outsider.sign(&stage.announcement(400));
    stage.say_bad(back, replayed, why).await;
    let mut earlier = stage.announcement(501);
    earlier.counter.boot = 0;
    stage
        .say_bad(stage.outsider.sign(&earlier), replayed, why)
        .await;

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
        .say(vec![17, 1, 2].into(), |it| it.ignored_malformed.get())
        .await;
    stage
        .say(vec![1, 200].into(), |it| it.ignored_malformed.get())
        .await;
    stage.assert_unharmed().await;
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_with_a_gap_leads_to_a_pull_from_who_delivered_it() {
    let stage = Stage::set().await;
    let space = stage.crowd.space;
    // The outsider holds all of a log, and sends only the end of it.
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

    let counter = |it: &BridgeMetrics| it.runs_with_gap.get();
    let message = run_message(space, vec![end]);
    stage
        .say_bad_runs(message, counter, "begins above what is held")
        .await;
    for live in &stage.crowd.live {
        until_held(live.space(), 7).await;
    }
    // Counted when the pull is over, which is after its events show.
    until("the pull is counted", || {
        stage.crowd.count(|it| it.events_pulled.get()) >= 6
    })
    .await;
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
    /// Of the sender's share.
    const BURST: u64 = 40;
    const A_SECOND: u64 = 10;
    let mut limits = BridgeLimits::default();
    limits.sender = Rate {
        per_second: A_SECOND as u32,
        burst: BURST as u32,
    };
    let mut stage = Stage::set_with(|builder| builder.limits(limits.clone())).await;
    let flood: Vec<_> = (1..=FLOOD)
        .map(|n| stage.outsider.sign(&stage.announcement(n)))
        .collect();
    let sender = stage.voice.sender.clone();
    let reading = stage.read_along();
    let before = stage.metrics().messages_received.get();
    let started = std::time::Instant::now();
    let flooding = tokio::spawn(async move {
        for message in flood {
            sender.broadcast(message).await.expect("said");
        }
        (sender, started.elapsed())
    });

    stage.assert_heard(7).await;

    let metrics = stage.metrics();
    let (sender, took) = timeout(LIMIT, flooding)
        .await
        .expect("in time")
        .expect("ran");
    // All of it came, or iroh-gossip gave some up on its way, and said so.
    until("the flood is over", || {
        metrics.messages_received.get() - before >= FLOOD || metrics.lagged.get() > 0
    })
    .await;
    let received = metrics.messages_received.get() - before;
    let passed = metrics.announcements_accepted.get();
    let dropped = metrics.ignored_sender_too_often.get();
    let honest = stage.crowd.members[1].metrics().announcements_sent.get();
    let seconds = started.elapsed().as_secs_f64();
    println!(
        "{FLOOD} announcements in {took:?}: {received} received, {passed} passed, {honest} of them \
         honest, {dropped} dropped, {} lags; 20 honest events arrived meanwhile",
        metrics.lagged.get(),
    );
    // It came at far more than its share, and its share is all that passed.
    assert!(received as f64 > 10.0 * A_SECOND as f64 * seconds);
    let share = BURST as f64 + A_SECOND as f64 * seconds + 1.0;
    assert!(passed as f64 <= share + honest as f64, "{passed} > {share}");
    // The others were lost on the way, or overtaken by so many that they count as replayed.
    assert!(dropped > received / 2, "{dropped} of {received}");
    let too_often = |it: &BridgeMetrics| it.ignored_sender_too_often.get();
    stage
        .until_traced(too_often, "the sender announces too often")
        .await;
    drop(sender);
    future::zip(stage.outsider.shutdown(), stage.crowd.shutdown()).await;
    reading.abort();
}
