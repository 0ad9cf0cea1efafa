//! Peers that are too slow, silent, or gone.

use std::time::Duration;

use headwater::{CloseCode, SessionError, SyncError, proto::Wait, wire::Segment};
use n0_future::time::sleep;

use super::{
    raw::{Ending, Peer, batch, frames, plan, whole_request},
    stage::{EVENTS, Pulled, Stage},
};
use crate::nodes::{assert_equal, endpoint_of, open};

const SOON: Duration = Duration::from_millis(500);

fn assert_timed_out(pulled: &Pulled<Ending>, waited_for: Wait) {
    match pulled.session_error() {
        SessionError::TimedOut { wait, after } => {
            assert_eq!(*wait, waited_for);
            assert!(*after >= SOON, "{after:?}");
        }
        other => panic!("{other}"),
    }
}

pub(super) async fn a_reader_that_trickles_is_left() {
    let stage = Stage::with(|limits| {
        limits.write_stall = SOON;
        // Far more than the peer takes, and far less than an honest one on this machine does.
        limits.least_rate = 64 * 1024;
    });
    let stage = stage.await.filled_up().await;
    let whole = whole_request(stage.space.id());
    let told = stage.suffers(async |peer| {
        peer.say(&whole).await;
        peer.trickle(16, Duration::from_millis(20)).await
    });
    assert_eq!(told.await, Ending::Reset(CloseCode::TimedOut));
    stage.ends_unharmed(1).await;
}

pub(super) async fn a_reader_that_stops_is_left() {
    let stage = Stage::with(|limits| limits.write_stall = SOON).await;
    let stage = stage.filled_up().await;
    let whole = whole_request(stage.space.id());
    let told = stage.suffers(async |peer| {
        peer.say(&whole).await;
        peer.stopped().await
    });
    assert_eq!(told.await, CloseCode::TimedOut);
    stage.ends_unharmed(1).await;
}

pub(super) async fn a_reader_that_takes_nothing_of_the_last_window_is_left_after_the_longest_time()
{
    let stage = Stage::with(|limits| {
        // Only the longest time of a sync is left to end this one.
        limits.write_stall = Duration::from_hours(1);
        limits.session.stall = Duration::from_hours(1);
        limits.session.total = Duration::from_secs(2);
    });
    let stage = stage.await.filled_up().await;
    let whole = whole_request(stage.space.id());
    let told = stage.suffers(async |peer| {
        peer.say(&whole).await;
        peer.stopped().await
    });
    assert_eq!(told.await, CloseCode::TimedOut);
    stage.ends_unharmed(0).await;
}

pub(super) async fn a_stream_on_which_nothing_is_asked_is_reset() {
    let stage = Stage::with(|limits| limits.session.first_message = SOON).await;
    let told = stage.suffers(async |peer| peer.provokes(&[0]).await);
    assert_eq!(told.await, Ending::Reset(CloseCode::TimedOut));
    stage.ends_unharmed(0).await;
}

pub(super) async fn a_request_whose_heads_never_come_is_reset() {
    let stage = Stage::with(|limits| limits.session.stall = SOON).await;
    let request = frames([super::raw::request(stage.space.id()).into()]);
    let told = stage.suffers(async |peer| peer.provokes(&request).await);
    assert_eq!(told.await, Ending::Reset(CloseCode::TimedOut));
    stage.ends_unharmed(0).await;
}

pub(super) async fn a_responder_that_never_answers_is_left() {
    let stage = Stage::with(|limits| limits.session.first_message = SOON).await;
    let pulled = stage.pulls(&stage.space, async |peer, _| peer.ending().await);
    let pulled = pulled.await;
    assert_eq!(pulled.told, Ending::Reset(CloseCode::TimedOut));
    assert_timed_out(&pulled, Wait::FirstAnswer);
    stage.ends_unharmed(0).await;
}

pub(super) async fn a_responder_that_falls_silent_is_left() {
    let stage = Stage::with(|limits| limits.session.stall = SOON).await;
    let pulled = stage.pulls_more(async |peer, id| {
        peer.tell([plan(id, Segment::Last, 1, 3)]).await;
        peer.ending().await
    });
    let pulled = pulled.await;
    assert_eq!(pulled.told, Ending::Reset(CloseCode::TimedOut));
    assert_timed_out(&pulled, Wait::Progress);
    stage.ends_unharmed(0).await;
}

pub(super) async fn a_responder_that_trickles_is_left() {
    let stage = Stage::with(|limits| limits.session.stall = SOON).await;
    let run = stage.next_run(1, 100).await;
    let pulled = stage.pulls_more(async |peer, id| {
        let bytes = frames([
            plan(id, Segment::Last, 1, 100),
            batch(id, false, &[run.run()]),
        ]);
        for byte in &bytes {
            if peer.send.write_all(&[*byte]).await.is_err() {
                break;
            }
            sleep(Duration::from_millis(20)).await;
        }
        peer.ending().await
    });
    let pulled = pulled.await;
    assert_eq!(pulled.told, Ending::Reset(CloseCode::TimedOut));
    assert_timed_out(&pulled, Wait::Progress);
    stage.ends_unharmed(0).await;
}

pub(super) async fn a_stream_reset_in_mid_frame_loses_that_frame_and_nothing_else() {
    let stage = Stage::new().await;
    let run = stage.next_run(1, 3).await;
    let pulled = stage.pulls_more(async |peer, id| {
        let bytes = frames([batch(id, false, &[run.run()])]);
        peer.tell([plan(id, Segment::Last, 1, 3)]).await;
        peer.say(&bytes[..bytes.len() / 2]).await;
        peer.send.reset(7u32.into()).expect("open");
        peer.ending().await
    });
    let pulled = pulled.await;
    let expected = SessionError::Reset(CloseCode::Internal);
    assert_eq!(*pulled.session_error(), expected);
    assert_eq!(pulled.told, Ending::Reset(CloseCode::Cancelled));
    stage.ends_unharmed(0).await;
}

pub(super) async fn a_connection_lost_in_mid_batch_leaves_what_came_and_the_next_sync_goes_on() {
    let stage = Stage::new().await;
    let (first, whole) = (stage.next_run(1, 3).await, stage.next_run(2, 3).await);
    let mut runs = [first.run(), whole.run()];
    runs.sort_by_key(|run| run.author());
    let pulled = stage.pulls_more(async |peer, id| {
        peer.tell([plan(id, Segment::Last, 2, 6), batch(id, true, &[runs[0]])])
            .await;
        // Once the first batch is stored.
        let mut grown = 0;
        while grown == 0 {
            let head = stage.space.head(runs[0].author()).await.expect("readable");
            grown = head.expect("held").entry.head.seq - EVENTS as u64;
            sleep(Duration::from_millis(1)).await;
        }
        let last = frames([batch(id, false, &[runs[1]])]);
        peer.say(&last[..last.len() / 2]).await;
        peer.connection.close(99u32.into(), b"");
    });
    let pulled = pulled.await;
    assert!(
        matches!(pulled.result, Err(SyncError::ConnectionLost(_))),
        "{:?}",
        pulled.result
    );
    // Another one has the rest, and the victim goes on where it was.
    let rest = if runs[1].author() == whole.author() {
        &whole
    } else {
        &first
    };
    let digest = stage.digest_with(rest).await;
    let rest = stage.is_sent_whole(rest, digest, &[]).await;
    assert_eq!(rest.result.expect("complete").events, 3);
    stage.ends_with(6, 0).await;
}

pub(super) async fn a_peer_killed_in_mid_sync_again_and_again_is_served_when_it_comes_back() {
    let stage = Stage::new().await.filled_up().await;
    let key = iroh::SecretKey::from_bytes(&[42; 32]);
    let whole = whole_request(stage.space.id());
    let mut killed = Vec::new();
    for _ in 0..5 {
        let far = endpoint_of(key.clone()).await;
        let mut peer = Peer::dial_from(far, stage.victim.addr()).await;
        peer.say(&whole).await;
        assert!(peer.recv.read_chunk(1).await.expect("served").is_some());
        // Neither closed nor read on: what a node looks like that was killed.
        killed.push(peer);
    }
    let again = open().spawn(endpoint_of(key).await);
    let copy = again.space(stage.space.id());
    copy.sync_with(stage.victim.addr()).await.expect("served");
    assert_equal(&stage.space, &copy).await;
    again.shutdown().await;
    drop(killed);
    stage.ends_unharmed(0).await;
}
