//! Too many of something: streams, connections, requests, faults.

use std::time::Duration;

use headwater::{
    CloseCode, SessionError, SpaceId, SyncError,
    wire::{Busy, Message},
};
use iroh::endpoint::{ConnectionError, ReadError, RecvStream, SendStream};

use super::{
    raw::{Ending, Peer, REQUEST, closed, entry, frame, frames, heads, request, whole_request},
    stage::Stage,
};
use crate::nodes::{author, endpoint, endpoint_of, open};

const MALFORMED: Ending = Ending::Closed(CloseCode::Malformed);

/// Waits until the connection is closed, and says with what.
async fn close_of(connection: &iroh::endpoint::Connection) -> CloseCode {
    closed(&connection.closed().await)
}

/// Opens a stream on which one byte is said.
async fn begun(peer: &Peer) -> (SendStream, RecvStream) {
    let (mut send, recv) = peer.connection.open_bi().await.expect("stream");
    send.write_all(&[0]).await.expect("written");
    (send, recv)
}

pub(super) async fn ten_thousand_streams_of_one_peer_take_two_places() {
    let stage = Stage::with(|limits| {
        limits.session.first_message = Duration::from_hours(1);
        limits.busy_after = Duration::from_millis(10);
    })
    .await;
    let told = stage.suffers(async |peer| {
        // Two take the places, and say nothing more.
        peer.say(&[0]).await;
        let _second = begun(peer).await;
        for _ in 0..125 {
            let mut streams = Vec::new();
            for _ in 0..80 {
                let (mut send, recv) = begun(peer).await;
                send.finish().expect("open");
                streams.push(recv);
            }
            for mut recv in streams {
                let told = recv.read_chunk(1).await;
                assert_eq!(told, Err(ReadError::Reset(2u32.into())));
            }
        }
    });
    told.await;
    let busy = stage.victim.headwater.metrics().refused_busy.get();
    assert_eq!(busy, 10_000);
    stage.ends_unharmed(0).await;
}

pub(super) async fn a_peer_without_a_place_is_told_when_to_come_again() {
    let stage = Stage::with(|limits| limits.busy_after = Duration::from_millis(100)).await;
    let whole = whole_request(stage.space.id());
    let told = stage.suffers(async |peer| {
        peer.say(&[0]).await;
        let _second = begun(peer).await;
        let (mut send, mut recv) = peer.connection.open_bi().await.expect("stream");
        send.write_all(&whole).await.expect("written");
        let frame = recv.read_to_end(100).await.expect("in order");
        Message::decode_body(frame[4..].to_vec().into())
    });
    let told = told.await.expect("a message").expect("known");
    let expected = Busy {
        request_id: REQUEST,
        retry_after_ms: 1_000,
    };
    assert_eq!(told, expected.into());
    assert_eq!(stage.victim.headwater.metrics().refused_busy.get(), 1);
    stage.ends_unharmed(0).await;
}

pub(super) async fn a_busy_node_makes_an_honest_sync_fail_with_the_time_to_wait() {
    let stage = Stage::with(|limits| limits.busy_after = Duration::from_millis(100)).await;
    let key = iroh::SecretKey::from_bytes(&[42; 32]);
    let far = endpoint_of(key).await;
    let honest = open().spawn(far.clone());
    let mut peer = Peer::dial_from(far, stage.victim.addr()).await;
    peer.say(&[0]).await;
    let _second = begun(&peer).await;
    let refused = honest
        .space(stage.space.id())
        .sync_with(stage.victim.addr());
    let refused = refused.await.expect_err("busy");
    match &refused {
        SyncError::Session(SessionError::Busy { retry_after }) => {
            assert!(*retry_after >= Duration::from_secs(1));
        }
        other => panic!("{other}"),
    }
    honest.shutdown().await;
    peer.leave().await;
    stage.ends_unharmed(0).await;
}

pub(super) async fn a_third_connection_of_a_peer_closes_its_first() {
    let stage = Stage::new().await;
    let key = iroh::SecretKey::from_bytes(&[42; 32]);
    let mut peers = Vec::new();
    for _ in 0..3 {
        let far = endpoint_of(key.clone()).await;
        let mut peer = Peer::dial_from(far, stage.victim.addr()).await;
        peer.say(&[0]).await;
        peers.push(peer);
    }
    let code = close_of(&peers[0].connection).await;
    assert_eq!(code, CloseCode::TooManyConnections);
    assert!(peers[2].connection.close_reason().is_none());
    for peer in peers {
        peer.leave().await;
    }
    stage.ends_unharmed(0).await;
}

pub(super) async fn connections_above_the_total_are_closed_and_those_that_stand_are_served() {
    // Eight stand; two places are left for the stage's hostile peer and its honest one.
    let stage = Stage::with(|limits| limits.connections_total = 10).await;
    let mut peers = Vec::new();
    for _ in 0..8 {
        let mut peer = Peer::dial(stage.victim.addr()).await;
        peer.say(&[0]).await;
        peers.push(peer);
    }
    let told = stage.suffers(async |_| ());
    told.await;
    let mut more = Vec::new();
    let mut refused = 0;
    for _ in 0..20 {
        let far = endpoint().await;
        let connection = far
            .connect(stage.victim.addr(), headwater::ALPN)
            .await
            .expect("connected");
        more.push((far, connection));
    }
    for (_, connection) in &more {
        let closing = n0_future::time::timeout(Duration::from_millis(300), connection.closed());
        match closing.await {
            Ok(ConnectionError::ApplicationClosed(close)) => {
                assert_eq!(close.error_code, 21u32.into());
                refused += 1;
            }
            Ok(other) => panic!("{other}"),
            Err(_stands) => {}
        }
    }
    assert!(refused >= 18, "{refused}");
    for (far, connection) in more {
        connection.close(0u32.into(), b"");
        far.close().await;
    }
    for peer in peers {
        assert!(peer.connection.close_reason().is_none());
        peer.leave().await;
    }
    stage.ends_unharmed(0).await;
}

pub(super) async fn a_connection_on_which_nothing_happens_is_closed() {
    let stage = Stage::with(|limits| limits.idle_accepted = Duration::from_millis(300)).await;
    let far = endpoint().await;
    let connection = far
        .connect(stage.victim.addr(), headwater::ALPN)
        .await
        .expect("connected");
    assert_eq!(close_of(&connection).await, CloseCode::Done);
    far.close().await;
    stage.ends_unharmed(0).await;
}

pub(super) async fn a_peer_that_connects_again_and_again_is_turned_away_until_it_slows_down() {
    // Five connections' worth with a request each, and half of a sixth.
    let stage = Stage::with(|limits| {
        limits.request_burst = 93;
        limits.request_rate = 1;
    })
    .await;
    let far = endpoint().await;
    let again = async || {
        let connection = far.connect(stage.victim.addr(), headwater::ALPN).await;
        connection.expect("connected")
    };
    for _ in 0..5 {
        let connection = again().await;
        // A node that served it would answer.
        let (mut send, mut recv) = connection.open_bi().await.expect("stream");
        let whole = frame(&[90]);
        send.write_all(&whole).await.expect("written");
        let told = recv.read_chunk(1).await;
        assert_eq!(told, Err(ReadError::Reset(5u32.into())));
        connection.close(0u32.into(), b"");
    }
    let turned_away = close_of(&again().await).await;
    assert_eq!(turned_away, CloseCode::TooManyConnections);
    far.close().await;
    // An unknown kind of message is the peer's fault, each time.
    stage.ends_unharmed(5).await;
}

pub(super) async fn a_peer_that_looks_for_spaces_is_soon_told_to_wait() {
    let stage = Stage::with(|limits| {
        limits.request_burst = 100;
        limits.request_rate = 1;
        limits.busy_after = Duration::from_millis(100);
    })
    .await;
    let told = stage.suffers(async |peer| {
        let mut told = Vec::new();
        for number in 0..4 {
            let (mut send, mut recv) = peer.connection.open_bi().await.expect("stream");
            let guess = SpaceId::from_bytes([number; 32]);
            send.write_all(&whole_request(guess)).await.ok();
            told.push(match recv.read_to_end(100).await {
                // Tag 10, and no space is named.
                Ok(busy) => busy.get(4).copied(),
                Err(_reset) => None,
            });
        }
        told
    });
    // A connection, and two looks: what is left is below nothing.
    assert_eq!(told.await, [None, None, Some(10), Some(10)]);
    assert_eq!(stage.victim.headwater.metrics().serves_refused.get(), 2);
    stage.ends_unharmed(0).await;
}

pub(super) async fn a_peer_that_breaks_rules_three_times_is_banned_and_nobody_else_is() {
    let stage = Stage::new().await;
    let key = iroh::SecretKey::from_bytes(&[42; 32]);
    for _ in 0..3 {
        let far = endpoint_of(key.clone()).await;
        let mut peer = Peer::dial_from(far, stage.victim.addr()).await;
        assert_eq!(peer.provokes(&frame(&[])).await, MALFORMED);
        peer.leave().await;
    }
    let metrics = stage.victim.headwater.metrics();
    assert_eq!(metrics.peers_banned.get(), 1);
    // It is not heard again, nor pulled from; everybody else is.
    let far = endpoint_of(key).await;
    far.set_alpns(vec![headwater::ALPN.to_vec()]);
    let connection = far
        .connect(stage.victim.addr(), headwater::ALPN)
        .await
        .expect("connected");
    assert_eq!(close_of(&connection).await, CloseCode::Banned);
    assert_eq!(metrics.refused_banned.get(), 1);
    let error = stage.space.sync_with(far.addr()).await.expect_err("banned");
    match error {
        SyncError::Banned { left } => assert!(left > Duration::from_mins(9)),
        other => panic!("{other}"),
    }
    far.close().await;
    stage.ends_unharmed(3).await;
}

pub(super) async fn invalid_answers_count_towards_the_ban_as_well() {
    let stage = Stage::with(|limits| limits.faults_before_ban = 1).await;
    let pulled = stage.pulls(&stage.space, async |peer, _| {
        peer.provokes(&frame(&[])).await
    });
    assert_eq!(pulled.await.told, MALFORMED);
    assert_eq!(stage.victim.headwater.metrics().peers_banned.get(), 1);
    stage.ends_unharmed(1).await;
}

pub(super) async fn a_head_that_is_claimed_and_never_served_costs_one_pull_that_times_out() {
    let stage = Stage::with(|limits| {
        limits.session.first_message = Duration::from_millis(300);
    })
    .await;
    let claim = heads(vec![entry(author(0).id(), 1_000)], true);
    let bytes = frames([request(stage.space.id()).into(), claim]);
    let told = stage.suffers(async |peer| {
        peer.say(&bytes).await;
        peer.finish();
        // The victim asks for what was claimed, and hears nothing.
        let (_send, mut recv) = peer.connection.accept_bi().await.expect("asked back");
        let asked = recv.read_chunk(5).await.expect("readable");
        assert_eq!(asked.expect("a request")[4], 1);
        peer.ending().await
    });
    // Its own request was served all the same.
    assert_eq!(told.await, Ending::Finished);
    let metrics = stage.victim.headwater.metrics();
    assert_eq!(metrics.pulls_asked_back.get(), 1);
    assert_eq!(metrics.pulls_failed.get(), 1);
    stage.ends_unharmed(0).await;
}
