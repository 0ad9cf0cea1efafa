//! More strangers than there is room for, and somebody the node knows among them.

use std::{net::Ipv4Addr, time::Duration};

use headwater::{
    ALPN, CloseCode, Limits, Metrics, Roles, SpaceId, SyncError, SyncReport, node_key,
    wire::{Busy, ClockEntry, ForkLocator, Message},
};
use iroh::{Endpoint, EndpointAddr, SecretKey, endpoint::presets, protocol::Router};
use n0_future::time::sleep;

use super::{
    raw::{Ending, Peer, REQUEST, closed, entry, frames, heads, request, whole_request},
    stage::Stage,
};
use crate::nodes::{Node, author, contents, endpoint, endpoint_of, filled, open};

fn metrics(stage: &Stage) -> &Metrics {
    stage.victim.headwater.metrics()
}

fn friend() -> SecretKey {
    SecretKey::from_bytes(&[42; 32])
}

/// Somebody who is always the same comes on a new connection, syncs into an empty store, and leaves.
async fn visits(
    victim: EndpointAddr,
    space: SpaceId,
    from: Endpoint,
) -> Result<SyncReport, SyncError> {
    let node = open().spawn(from.clone());
    let report = node.space(space).sync_with(victim).await;
    node.shutdown().await;
    from.close().await;
    report
}

async fn friend_visits(stage: &Stage) -> Result<SyncReport, SyncError> {
    let from = endpoint_of(friend()).await;
    visits(stage.victim.addr(), stage.space.id(), from).await
}

/// Waits until the victim is as far.
async fn until(is_so: impl Fn() -> bool) {
    while !is_so() {
        sleep(Duration::from_millis(2)).await;
    }
}

/// Strangers who connect, begin to say something, and stay.
async fn strangers(stage: &Stage, count: u64) -> Vec<Peer> {
    let metrics = metrics(stage);
    let heard = || metrics.connections_accepted.get() + metrics.refused_busy.get();
    let mut peers = Vec::new();
    for _ in 0..count {
        let before = heard();
        let mut peer = Peer::dial(stage.victim.addr()).await;
        peer.say(&[0]).await;
        until(|| heard() > before).await;
        peers.push(peer);
    }
    peers
}

pub(super) async fn strangers_on_every_connection_give_way_to_a_peer_that_synced_before() {
    let stage = Stage::with(|limits| limits.connections_total = 4).await;
    friend_visits(&stage).await.expect("a free place");
    let crowd = strangers(&stage, 6).await;
    // No stranger is shut out for another.
    assert_eq!(metrics(&stage).places_lost.get(), 0);
    assert!(metrics(&stage).refused_busy.get() >= 2);
    friend_visits(&stage).await.expect("in a stranger's place");
    assert_eq!(metrics(&stage).places_lost.get(), 1);
    // The one who was there for longest.
    let told = crowd[0].connection.closed().await;
    assert_eq!(closed(&told), CloseCode::TooManyConnections);
    assert!(crowd[1].connection.close_reason().is_none());
    for peer in crowd {
        peer.leave().await;
    }
    stage.ends_unharmed(0).await;
}

pub(super) async fn a_stranger_that_syncs_keeps_its_connection_when_strangers_give_way() {
    let stage = Stage::with(|limits| limits.connections_total = 3).await;
    friend_visits(&stage).await.expect("a free place");
    // It comes before all others and stays.
    let mut limits = Limits::default();
    limits.idle_connection = Duration::from_mins(1);
    let resident = open().limits(limits).spawn(endpoint().await);
    let mirror = resident.space(stage.space.id());
    let synced = mirror.sync_with(stage.victim.addr()).await;
    synced.expect("a free place");
    until(|| metrics(&stage).serves_running.get() == 0).await;
    let crowd = strangers(&stage, 4).await;
    friend_visits(&stage).await.expect("in a stranger's place");
    assert_eq!(metrics(&stage).places_lost.get(), 1);
    let told = crowd[0].connection.closed().await;
    assert_eq!(closed(&told), CloseCode::TooManyConnections);
    let synced = mirror.sync_with(stage.victim.addr()).await;
    synced.expect("where it was");
    assert_eq!(resident.metrics().connections_dialled.get(), 1);
    resident.shutdown().await;
    for peer in crowd {
        peer.leave().await;
    }
    stage.ends_unharmed(0).await;
}

pub(super) async fn strangers_in_every_sync_give_way_to_a_peer_that_synced_before() {
    let stage = Stage::with(|limits| limits.syncs_total = 2).await;
    friend_visits(&stage).await.expect("a free place");
    let mut crowd = strangers(&stage, 2).await;
    until(|| metrics(&stage).serves_running.get() == 2).await;
    friend_visits(&stage).await.expect("in a stranger's place");
    assert_eq!(crowd[0].ending().await, Ending::Reset(CloseCode::Busy));
    assert_eq!(metrics(&stage).places_lost.get(), 1);
    for peer in crowd {
        peer.leave().await;
    }
    // As well where they compare a log.
    let locator = Message::ForkLocator(ForkLocator {
        request_id: 1,
        space: stage.space.id(),
        author: author(9).id(),
        entries: Vec::new(),
        forked: true,
    });
    let mut crowd = Vec::new();
    for _ in 0..2 {
        let mut peer = Peer::dial(stage.victim.addr()).await;
        peer.tell([locator.clone()]).await;
        assert!(matches!(peer.hear().await, Message::ForkAnswer(_)));
        crowd.push(peer);
    }
    friend_visits(&stage).await.expect("in a stranger's place");
    assert_eq!(crowd[0].ending().await, Ending::Reset(CloseCode::Busy));
    assert_eq!(metrics(&stage).places_lost.get(), 2);
    for peer in crowd {
        peer.leave().await;
    }
    stage.ends_unharmed(0).await;
}

pub(super) async fn strangers_in_every_place_give_way_to_a_member_who_never_came_before() {
    let node = Node::build(headwater::Headwater::builder().limits({
        let mut limits = headwater::Limits::default();
        limits.connections_total = 1;
        limits
    }))
    .await;
    let space = filled_by_members(&node).await;
    let member = endpoint_of(friend()).await;
    let reader = node_key(member.id());
    let granted = space.grant(&author(0), reader, Roles::READ).await;
    granted.expect("the owner's");
    let mut stranger = Peer::dial(node.addr()).await;
    // It asks, and is told what a space that is not there tells.
    let asked = whole_request(space.id());
    let told = stranger.provokes(&asked).await;
    assert_eq!(told, Ending::Reset(CloseCode::Refused));
    let report = visits(node.addr(), space.id(), member).await;
    let held = contents(&space).await.len() as u64;
    assert_eq!(report.expect("in the stranger's place").events, held);
    let told = stranger.connection.closed().await;
    assert_eq!(closed(&told), CloseCode::TooManyConnections);
    stranger.leave().await;
    node.shutdown().await;
}

/// A closed space: its owner's policy holds, and three of its members have written.
async fn filled_by_members(node: &Node) -> headwater::Space {
    let owner = author(0);
    let space = node.headwater.create_space(&owner).await.expect("created");
    for number in 1..4 {
        let writer = author(number);
        let granted = space.grant(&owner, writer.id(), Roles::WRITE).await;
        granted.expect("the owner's");
        let draft = headwater::EventDraft::new(16, 0, "from a member");
        space.append(&writer, draft).await.expect("granted");
    }
    space
}

pub(super) async fn strangers_connect_no_faster_than_they_may_together() {
    // Five connections' worth, and nothing comes on top while the test runs: the friend's first, the
    // stage's two, and two.
    let stage = Stage::with(|limits| {
        limits.strangers_burst = 80;
        limits.strangers_rate = 1;
    })
    .await;
    friend_visits(&stage).await.expect("among the first");
    stage.suffers(async |_| ()).await;
    let crowd = strangers(&stage, 5).await;
    for peer in &crowd[2..] {
        let told = peer.connection.closed().await;
        assert_eq!(closed(&told), CloseCode::TooManyConnections);
    }
    for peer in &crowd[..2] {
        assert!(peer.connection.close_reason().is_none());
    }
    friend_visits(&stage).await.expect("no stranger");
    for peer in crowd {
        peer.leave().await;
    }
    stage.victim.shutdown().await;
}

/// An endpoint of an address of its own.
async fn at(place: [u8; 4], key: SecretKey) -> Endpoint {
    let builder = Endpoint::builder(presets::Minimal).secret_key(key);
    let builder = builder.clear_ip_transports();
    let bound = builder.bind_addr((Ipv4Addr::from(place), 0));
    bound.expect("loopback").bind().await.expect("endpoint")
}

pub(super) async fn strangers_are_turned_away_before_a_handshake_and_a_known_address_is_not() {
    let mut limits = headwater::Limits::default();
    limits.strangers_burst = 48;
    limits.strangers_rate = 1;
    let endpoint = at([127, 0, 0, 1], SecretKey::generate()).await;
    let node = open().limits(limits).spawn(endpoint.clone());
    let space = filled(&node, 3, 5).await;
    let router = Router::builder(endpoint)
        .incoming_filter(node.incoming_filter())
        .accept(ALPN, node.clone())
        .spawn();
    let victim = router.endpoint().addr();
    let visit = async || {
        let from = at([127, 0, 0, 2], friend()).await;
        visits(victim.clone(), space.id(), from).await
    };
    visit().await.expect("the first of three");
    let mut refused = 0;
    for number in 0..6 {
        let stranger = at([127, 0, 1, number + 1], SecretKey::generate()).await;
        // An address has to show that somebody hears there, once half of the three are used up.
        match stranger.connect(victim.clone(), ALPN).await {
            Ok(connection) => connection.close(0u32.into(), b""),
            Err(_refused) => refused += 1,
        }
        stranger.close().await;
    }
    assert_eq!(refused, 4);
    assert_eq!(node.metrics().handshakes_refused.get(), 4);
    visit().await.expect("from a known address");
    router.shutdown().await.expect("router task");
}

/// So many authors nobody has heard of.
fn authors(count: u32) -> Vec<ClockEntry> {
    let keys = (0..count).map(|number| {
        let mut key = [0; 32];
        key[..4].copy_from_slice(&number.to_be_bytes());
        headwater::AuthorId::from_bytes(key)
    });
    keys.map(|author| entry(author, 1)).collect()
}

/// A clock of these authors, so many at a time.
fn clock(space: SpaceId, count: u32, at_a_time: usize) -> Vec<u8> {
    let authors = authors(count);
    let chunks = authors.chunks(at_a_time);
    let last = chunks.len() - 1;
    let chunks = chunks.enumerate();
    let chunks = chunks.map(|(at, chunk)| heads(chunk.to_vec(), at == last));
    frames([request(space).into()].into_iter().chain(chunks))
}

pub(super) async fn clocks_of_too_many_authors_are_answered_with_ever_longer_waits() {
    let stage = Stage::with(|limits| limits.session.max_authors = 10).await;
    let too_long = clock(stage.space.id(), 11, 20);
    let told = stage.suffers(async |peer| {
        let first = peer.provokes(&too_long).await;
        let (mut send, mut recv) = peer.connection.open_bi().await.expect("stream");
        send.write_all(&too_long).await.ok();
        let frame = recv.read_to_end(100).await.expect("in order");
        let second = Message::decode_body(frame[4..].to_vec().into());
        (first, second)
    });
    let (first, second) = told.await;
    assert_eq!(first, Ending::Reset(CloseCode::TooManyAuthors));
    match second.expect("a message") {
        Some(Message::Busy(Busy {
            request_id: REQUEST,
            retry_after_ms: 1..=2_000,
        })) => {}
        other => panic!("{other:?}"),
    }
    // Nothing to blame anybody for: a large space has such clocks.
    stage.ends_unharmed(0).await;
}

/// A victim that asks nobody back: who states a clock like these would never answer.
async fn stage_that_asks_nobody_back(change: impl FnOnce(&mut Limits)) -> Stage {
    let mut limits = Limits::default();
    change(&mut limits);
    Stage::build(open().limits(limits).ask_back(false)).await
}

pub(super) async fn a_long_clock_without_a_place_is_told_busy_and_a_short_one_is_served() {
    let stage = stage_that_asks_nobody_back(|limits| {
        limits.clocks_total = 0;
        limits.busy_after = Duration::from_millis(50);
    })
    .await;
    let space = stage.space.id();
    let told = stage.suffers(async |peer| {
        let long = peer.provokes(&clock(space, 20, 10)).await;
        let (mut send, mut recv) = peer.connection.open_bi().await.expect("stream");
        let short = clock(space, 20, 20);
        send.write_all(&short).await.expect("written");
        send.finish().expect("open");
        (long, recv.read_to_end(1_000_000).await.is_ok())
    });
    assert_eq!(told.await, (Ending::Reset(CloseCode::Busy), true));
    stage.ends_unharmed(0).await;
}

pub(super) async fn heads_of_strangers_are_taken_no_faster_than_they_may_state_them_together() {
    // Neither in large chunks nor in small ones.
    for chunk in [1024, 63] {
        heads_are_taken_no_faster_in_chunks_of(chunk).await;
    }
}

async fn heads_are_taken_no_faster_in_chunks_of(chunk: usize) {
    // The friend's connection, a stranger's, and two times 1,024 heads.
    let stage = stage_that_asks_nobody_back(|limits| {
        limits.strangers_burst = 64;
        limits.strangers_rate = 1;
        limits.busy_after = Duration::from_millis(50);
    })
    .await;
    friend_visits(&stage).await.expect("among the first");
    let three = clock(stage.space.id(), 3 * 1024, chunk);
    let mut stranger = Peer::dial(stage.victim.addr()).await;
    let told = stranger.provokes(&three).await;
    assert_eq!(told, Ending::Reset(CloseCode::Busy));
    // What strangers have used up is not missed by whoever is known.
    let from = endpoint_of(friend()).await;
    let mut known = Peer::dial_from(from, stage.victim.addr()).await;
    known.say(&three).await;
    known.finish();
    assert_eq!(known.ending().await, Ending::Finished);
    stranger.leave().await;
    known.leave().await;
    stage.victim.shutdown().await;
}
