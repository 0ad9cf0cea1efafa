//! Bytes that are no frames, or frames that are no messages.

use std::time::Duration;

use bytes::Bytes;
use headwater::{
    CloseCode, SessionError,
    wire::{DecodeError, Message, Segment},
};

use super::{
    raw::{Ending, batch, frame, frames, plan, raw_batch, request, whole_request},
    stage::Stage,
};

const MALFORMED: Ending = Ending::Closed(CloseCode::Malformed);

/// Says this to a victim that serves, and expects to be closed out for it.
async fn asks_malformed(bytes: &[u8]) {
    let stage = Stage::new().await;
    let ending = stage.suffers(async |peer| peer.provokes(bytes).await).await;
    assert_eq!(ending, MALFORMED);
    stage.ends_unharmed(1).await;
}

/// Answers a victim's pull with this, and returns what the victim made of it.
async fn answers_malformed(bytes: &[u8]) -> DecodeError {
    let stage = Stage::new().await;
    let pulled = stage
        .pulls(&stage.space, async |peer, _| peer.provokes(bytes).await)
        .await;
    assert_eq!(pulled.told, MALFORMED);
    let error = match pulled.fault() {
        SessionError::Malformed(error) => error.clone(),
        other => panic!("{other}"),
    };
    stage.ends_unharmed(1).await;
    error
}

pub(super) async fn a_request_cut_off_in_mid_frame_is_reset_as_truncated() {
    let stage = Stage::new().await;
    let whole = whole_request(stage.space.id());
    for cut in [3, 20, whole.len() - 1] {
        let ending = stage.suffers(async |peer| {
            peer.say(&whole[..cut]).await;
            peer.finish();
            peer.ending().await
        });
        assert_eq!(ending.await, Ending::Reset(CloseCode::Truncated));
    }
    stage.ends_unharmed(0).await;
}

pub(super) async fn a_batch_cut_off_in_mid_frame_leaves_the_whole_ones_before_it() {
    let stage = Stage::new().await;
    let (first, second) = (stage.next_run(1, 3).await, stage.next_run(2, 3).await);
    let mut runs = [first.run(), second.run()];
    runs.sort_by_key(|run| run.author());
    let pulled = stage.pulls_more(async |peer, id| {
        let last = frames([batch(id, false, &[runs[1]])]);
        peer.tell([plan(id, Segment::Last, 2, 6), batch(id, true, &[runs[0]])])
            .await;
        peer.say(&last[..last.len() - 1]).await;
        peer.finish();
        peer.ending().await
    });
    let pulled = pulled.await;
    assert_eq!(pulled.told, Ending::Reset(CloseCode::Truncated));
    let cut = SessionError::StreamEnded {
        phase: "in mid frame",
    };
    assert_eq!(*pulled.session_error(), cut);
    // The first batch may have been on its way to the disk, or there already.
    let grown = stage.space.head(runs[0].author()).await.expect("readable");
    let grown = grown.expect("held").entry.head.seq - 5;
    assert!(grown == 0 || grown == 3, "{grown}");
    stage.ends_with(grown, 0).await;
}

pub(super) async fn a_frame_of_four_gibibytes_is_refused_by_its_length_alone() {
    asks_malformed(&[255; 4]).await;
}

pub(super) async fn a_frame_one_byte_above_the_limit_is_refused_by_its_length_alone() {
    asks_malformed(&[0, 0x11, 0, 1]).await;
}

pub(super) async fn an_answer_of_four_gibibytes_is_refused_by_its_length_alone() {
    let error = answers_malformed(&[255; 4]).await;
    assert!(matches!(
        error,
        DecodeError::FrameTooLarge {
            found: 4_294_967_295,
            ..
        }
    ));
}

pub(super) async fn a_run_that_claims_2_to_the_62_bytes_reserves_nothing() {
    // A batch for request 1: no more, one run, and its length; then something to read.
    let mut body = vec![
        5, 1, 0, 1, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x40,
    ];
    body.extend([1; 100]);
    let error = answers_malformed(&frame(&body)).await;
    assert!(
        matches!(
            error,
            DecodeError::OutOfRange {
                field: "run",
                found: 0x4000_0000_0000_0000,
                ..
            }
        ),
        "{error}"
    );
}

pub(super) async fn promised_bytes_that_never_come_end_with_a_timeout() {
    let stage = Stage::with(|limits| {
        limits.session.first_message = Duration::from_millis(500);
    })
    .await;
    // A mebibyte is promised, and one byte of it said.
    let ending = stage.suffers(async |peer| peer.provokes(&[0, 0x10, 0, 0, 1]).await);
    assert_eq!(ending.await, Ending::Reset(CloseCode::TimedOut));
    stage.ends_unharmed(0).await;
}

pub(super) async fn a_varint_longer_than_needed_is_malformed() {
    let stage = Stage::new().await;
    let mut body = frames([request(stage.space.id()).into()]).split_off(4);
    // The request id, 7, in two bytes.
    body.splice(1..2, [0x87, 0]);
    let ending = stage.suffers(async |peer| peer.provokes(&frame(&body)).await);
    assert_eq!(ending.await, MALFORMED);
    stage.ends_unharmed(1).await;
}

pub(super) async fn a_varint_above_64_bits_is_malformed() {
    let error =
        answers_malformed(&frame(&[3, 255, 255, 255, 255, 255, 255, 255, 255, 255, 2])).await;
    assert!(
        matches!(
            error,
            DecodeError::Varint {
                field: "request id",
                ..
            }
        ),
        "{error}"
    );
}

pub(super) async fn an_unknown_tag_resets_the_stream_and_leaves_the_connection() {
    let stage = Stage::new().await;
    let again = stage.suffers(async |peer| {
        let ending = peer.provokes(&frame(&[90, 1, 2, 3])).await;
        assert_eq!(ending, Ending::Reset(CloseCode::Unsupported));
        // The same connection goes on.
        let (mut send, mut recv) = peer.connection.open_bi().await.expect("stream");
        let whole = whole_request(stage.space.id());
        send.write_all(&whole).await.expect("written");
        recv.read_to_end(1_000_000).await.expect("served").len()
    });
    assert!(again.await > 500);
    stage.ends_unharmed(1).await;
}

pub(super) async fn an_unknown_additive_message_is_skipped() {
    let stage = Stage::new().await;
    let mut bytes = frame(&[200, 1, 2, 3]);
    bytes.extend(whole_request(stage.space.id()));
    let ending = stage.suffers(async |peer| {
        peer.say(&bytes).await;
        peer.finish();
        peer.ending().await
    });
    assert_eq!(ending.await, Ending::Finished);
    stage.ends_unharmed(0).await;
}

pub(super) async fn a_byte_too_many_in_a_frame_is_malformed() {
    let stage = Stage::new().await;
    let mut body = frames([request(stage.space.id()).into()]).split_off(4);
    body.push(0);
    let ending = stage.suffers(async |peer| peer.provokes(&frame(&body)).await);
    assert_eq!(ending.await, MALFORMED);
    stage.ends_unharmed(1).await;
}

pub(super) async fn empty_frames_for_ever_end_with_the_first() {
    let stage = Stage::new().await;
    let ending = stage.suffers(async |peer| {
        while peer.send.write_all(&[0; 4_000]).await.is_ok() {}
        peer.ending().await
    });
    assert_eq!(ending.await, MALFORMED);
    stage.ends_unharmed(1).await;
}

pub(super) async fn a_count_above_what_the_frame_can_hold_reserves_nothing() {
    // Four thousand runs, in nineteen bytes.
    let mut body = vec![5, 1, 0, 0x80, 0x20];
    body.extend([1; 14]);
    let error = answers_malformed(&frame(&body)).await;
    assert!(
        matches!(error, DecodeError::Truncated { field: "runs", .. }),
        "{error}"
    );
}

pub(super) async fn the_same_byte_a_million_times_is_refused_whatever_the_tag_says() {
    let stage = Stage::new().await;
    let mut closed = 0;
    for (tag, _) in Message::TAGS {
        let mut body = vec![1; 1_000_000];
        body[0] = *tag;
        let bytes = frame(&body);
        let ending = stage.suffers(async |peer| peer.provokes(&bytes).await);
        assert_eq!(ending.await, MALFORMED, "tag {tag}");
        closed += 1;
    }
    stage.ends_unharmed(closed).await;
}

pub(super) async fn a_run_that_is_none_is_malformed() {
    let stage = Stage::new().await;
    let pulled = stage.pulls_more(async |peer, id| {
        let none = Bytes::from(vec![1; 100]);
        let batch = raw_batch(id, false, vec![none]);
        peer.tell([plan(id, Segment::Last, 1, 1), batch]).await;
        peer.ending().await
    });
    let pulled = pulled.await;
    assert_eq!(pulled.told, MALFORMED);
    assert!(matches!(pulled.fault(), SessionError::RunDecode(_)));
    stage.ends_unharmed(1).await;
}

pub(super) async fn random_bytes_end_a_stream_and_nothing_else() {
    let stage = Stage::new().await;
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut faults = 0;
    for round in 0..40 {
        let mut bytes: Vec<u8> = (0..200)
            .map(|_| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                state as u8
            })
            .collect();
        if round % 2 == 0 {
            // A plausible length and a known tag.
            bytes[..4].copy_from_slice(&100u32.to_be_bytes());
            bytes[4] = 1 + round % 16;
        }
        let ending = stage.suffers(async |peer| {
            peer.say(&bytes).await;
            peer.finish();
            peer.ending().await
        });
        match ending.await {
            Ending::Finished => panic!("round {round}"),
            Ending::Closed(_) | Ending::Reset(CloseCode::Unsupported) => faults += 1,
            Ending::Reset(_) => {}
        }
    }
    stage.ends_unharmed(faults).await;
}
