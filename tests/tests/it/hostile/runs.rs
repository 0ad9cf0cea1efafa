//! Runs that prove nothing, or belong elsewhere.

use bytes::Bytes;
use headwater::{
    AuthorHead, AuthorId, CloseCode, EventDraft, MemberKey, Roles, Run, RunError, SessionError,
    SpaceId, VerifiedRun,
    wire::{
        AuthorKeyError, DecodeError, EventId, Revocation, Segment, Signature, sign_genesis,
        sign_runs,
    },
};

use super::{
    raw::{Ending, batch, plan, raw_batch},
    stage::{EVENTS, Pulled, Stage},
};
use crate::nodes::{author, drafts, seq_of, write};

const INVALID: Ending = Ending::Closed(CloseCode::InvalidRun);

/// The victim's pull is answered with these bytes as the one run it lacks.
async fn is_sent_bytes(stage: &Stage, bytes: Vec<u8>) -> Pulled<Ending> {
    let bytes = Bytes::from(bytes);
    stage
        .pulls_more(async |peer, id| {
            let batch = raw_batch(id, false, vec![bytes]);
            peer.tell([plan(id, Segment::Last, 1, 1), batch]).await;
            peer.ending().await
        })
        .await
}

/// Expects the one run to be refused as proving nothing.
async fn refuses_as_invalid(change: impl FnOnce(&mut Vec<u8>)) -> RunError {
    let stage = Stage::new().await;
    let mut bytes = stage.next_run(1, 1).await.run().as_bytes().to_vec();
    change(&mut bytes);
    let pulled = is_sent_bytes(&stage, bytes).await;
    assert_eq!(pulled.told, INVALID);
    let error = match pulled.fault() {
        SessionError::InvalidRun(error) => error.clone(),
        other => panic!("{other}"),
    };
    stage.ends_unharmed(1).await;
    error
}

fn wrong_signature() -> RunError {
    RunError::WrongSignature {
        author: author(1).id(),
        last_seq: EVENTS as u64 + 1,
    }
}

/// A new author's first run, so that nothing about places in a log can be wrong with it.
async fn refuses_key(key: AuthorId) -> RunError {
    let stage = Stage::new().await;
    let signed = sign_runs(&stage.space.id(), &author(7), None, drafts("new", 1));
    let signed = signed.expect("signed").remove(0);
    let mut bytes = signed.run().as_bytes().to_vec();
    bytes[..32].copy_from_slice(key.as_bytes());
    let pulled = is_sent_bytes(&stage, bytes).await;
    assert_eq!(pulled.told, INVALID);
    let error = match pulled.fault() {
        SessionError::InvalidRun(error) => error.clone(),
        other => panic!("{other}"),
    };
    stage.ends_unharmed(1).await;
    error
}

pub(super) async fn a_run_of_another_space_is_refused() {
    let stage = Stage::new().await;
    let base = stage.space.head(author(1).id()).await.expect("readable");
    let base = base.map(|record| record.entry.head);
    let elsewhere = SpaceId::from_bytes([6; 32]);
    let foreign = sign_runs(&elsewhere, &author(1), base, drafts("elsewhere", 1));
    let foreign = foreign.expect("signed").remove(0);
    let pulled = stage.is_sent(&[foreign.run()]).await;
    assert_eq!(pulled.told, INVALID);
    let expected = SessionError::InvalidRun(wrong_signature());
    assert_eq!(*pulled.fault(), expected);
    stage.ends_unharmed(1).await;
}

pub(super) async fn the_genesis_of_another_space_is_refused() {
    let stage = Stage::new().await;
    let foreign = sign_genesis(&author(8), [1; 16], 1);
    let pulled = stage.is_sent(&[foreign.run()]).await;
    assert_eq!(pulled.told, INVALID);
    let expected = SessionError::InvalidRun(RunError::ForeignGenesis {
        expected: stage.space.id(),
        found: foreign.space(),
    });
    assert_eq!(*pulled.fault(), expected);
    stage.ends_unharmed(1).await;
}

pub(super) async fn a_run_of_an_author_outside_the_planned_segment_is_refused() {
    let stage = Stage::new().await;
    let run = stage.next_run(1, 1).await;
    let pulled = stage.pulls(&stage.space, async |peer, id| {
        peer.tell([super::raw::heads_wanted(id)]).await;
        peer.hear().await;
        // The owner is planned, and another one comes.
        peer.tell([
            plan(id, Segment::Owner, 1, 1),
            batch(id, true, &[run.run()]),
        ])
        .await;
        peer.ending().await
    });
    let pulled = pulled.await;
    assert_eq!(pulled.told, INVALID);
    let expected = SessionError::RunOutsideSegment {
        author: author(1).id(),
    };
    assert_eq!(*pulled.fault(), expected);
    stage.ends_unharmed(1).await;
}

pub(super) async fn authors_of_a_segment_out_of_order_are_refused() {
    let stage = Stage::new().await;
    let (one, other) = (stage.next_run(1, 1).await, stage.next_run(2, 1).await);
    let mut runs = [one.run(), other.run()];
    runs.sort_by_key(|run| std::cmp::Reverse(run.author()));
    let pulled = stage.is_sent(&runs).await;
    assert_eq!(pulled.told, INVALID);
    let expected = SessionError::RunOutsideSegment {
        author: runs[1].author(),
    };
    assert_eq!(*pulled.fault(), expected);
    stage.ends_unharmed(1).await;
}

/// What a run that starts elsewhere than where the victim's log ends is refused with.
async fn refuses_place(stage: Stage, run: &VerifiedRun) {
    let pulled = stage.is_sent(&[run.run()]).await;
    assert_eq!(pulled.told, INVALID);
    let expected = SessionError::NotContiguous {
        author: author(1).id(),
        expected: EVENTS as u64 + 1,
        found: run.first_seq(),
    };
    assert_eq!(*pulled.fault(), expected);
    stage.ends_unharmed(1).await;
}

pub(super) async fn a_run_below_the_stated_head_is_refused() {
    let stage = Stage::new().await;
    // What the victim stated it has, once more.
    let again = sign_runs(&stage.space.id(), &author(1), None, drafts("author 1", 1));
    let again = again.expect("signed").remove(0);
    refuses_place(stage, &again).await;
}

pub(super) async fn a_run_with_a_gap_before_it_is_refused() {
    let stage = Stage::new().await;
    let next = stage.next_run(1, 3).await;
    let later = next.above(next.first_seq()).expect("two left");
    refuses_place(stage, &later).await;
}

pub(super) async fn runs_in_the_wrong_order_are_refused() {
    let stage = Stage::new().await;
    let first = stage.next_run(1, 2).await;
    let base = Some(first.head());
    let second = sign_runs(&stage.space.id(), &author(1), base, drafts("second", 2));
    let second = second.expect("signed").remove(0);
    let pulled = stage.is_sent(&[second.run(), first.run()]).await;
    assert_eq!(pulled.told, INVALID);
    assert!(matches!(
        pulled.fault(),
        SessionError::NotContiguous { found: 8, .. }
    ));
    stage.ends_unharmed(1).await;
}

pub(super) async fn the_same_run_twice_in_a_history_is_refused() {
    let stage = Stage::new().await;
    let run = stage.next_run(1, 2).await;
    let pulled = stage.is_sent(&[run.run(), run.run()]).await;
    assert_eq!(pulled.told, INVALID);
    let expected = SessionError::NotContiguous {
        author: author(1).id(),
        expected: run.last_seq() + 1,
        found: run.first_seq(),
    };
    assert_eq!(*pulled.fault(), expected);
    stage.ends_unharmed(1).await;
}

pub(super) async fn a_signed_run_on_another_chain_is_its_authors_fault_and_not_taken() {
    let stage = Stage::new().await;
    // One author more, for what the stage began with is not to change.
    write(&stage.space, 9, "ours", EVENTS).await;
    let false_base = AuthorHead {
        seq: EVENTS as u64,
        id: EventId::from_bytes([3; 32]),
    };
    let space = stage.space.id();
    let other = sign_runs(&space, &author(9), Some(false_base), drafts("other", 1));
    let other = other.expect("signed").remove(0);
    let pulled = stage.pulls_more(async |peer, id| {
        let batch = batch(id, false, &[other.run()]);
        peer.tell([plan(id, Segment::Last, 1, 1), batch]).await;
        peer.finish();
        peer.ending().await
    });
    // The peer is told of nothing but its stream's early end.
    assert_eq!(pulled.await.told, Ending::Reset(CloseCode::Truncated));
    assert!(seq_of(&stage.space, author(9).id()).await <= EVENTS as u64);
    // The others' logs are served on.
    stage.suffers(async |_| ()).await;
    assert_eq!(stage.victim.headwater.metrics().peer_faults.get(), 0);
    stage.victim.shutdown().await;
}

pub(super) async fn a_wrong_signature_is_refused() {
    let error = refuses_as_invalid(|bytes| *bytes.last_mut().expect("signature") ^= 1).await;
    assert_eq!(error, wrong_signature());
}

pub(super) async fn a_changed_payload_is_refused() {
    let error = refuses_as_invalid(|bytes| {
        let last_of_payload = bytes.len() - Signature::LEN - 1;
        bytes[last_of_payload] ^= 1;
    });
    assert_eq!(error.await, wrong_signature());
}

pub(super) async fn a_run_without_its_payloads_is_refused() {
    // All of them, the first alone, the last ones.
    for (kept, first) in [(usize::MAX, 1), (1, 1), (0, 2)] {
        let expected = RunError::Stripped {
            author: author(1).id(),
            seq: EVENTS as u64 + first,
        };
        let stage = Stage::new().await;
        let run = stage.next_run(1, 3).await;
        let stripped = run.run().with_stubs(|index| index == kept);
        let pulled = stage.is_sent(&[&stripped]).await;
        assert_eq!(pulled.told, INVALID);
        let error = SessionError::InvalidRun(expected);
        assert_eq!(*pulled.fault(), error);
        stage.ends_unharmed(1).await;
    }
}

pub(super) async fn a_revocation_left_out_of_the_owners_run_is_refused() {
    let stage = Stage::new().await;
    let head = stage.space.head(author(0).id()).await.expect("readable");
    let base = head.map(|record| record.entry.head);
    let revocation = Revocation {
        subject: MemberKey::from(author(1).id()).into(),
        roles: Roles::WRITE,
        last: None,
    };
    let mut news = drafts("the owner", 1);
    news.push(EventDraft::revoke(revocation, 1));
    let run = sign_runs(&stage.space.id(), &author(0), base, news);
    let run = run.expect("signed").remove(0);
    let stripped = run.run().with_stubs(|index| index == 0);
    let pulled = stage.pulls(&stage.space, async |peer, id| {
        peer.tell([super::raw::heads_wanted(id)]).await;
        peer.hear().await;
        peer.tell([
            plan(id, Segment::Owner, 1, 2),
            batch(id, true, &[&stripped]),
        ])
        .await;
        peer.ending().await
    });
    let pulled = pulled.await;
    assert_eq!(pulled.told, INVALID);
    let expected = SessionError::InvalidRun(RunError::Stripped {
        author: author(0).id(),
        seq: run.last_seq(),
    });
    assert_eq!(*pulled.fault(), expected);
    stage.ends_unharmed(1).await;
}

pub(super) async fn another_authors_signature_is_refused() {
    let key = author(5).id();
    let expected = RunError::WrongSignature {
        author: key,
        last_seq: 1,
    };
    assert_eq!(refuses_key(key).await, expected);
}

pub(super) async fn a_key_of_small_order_is_refused() {
    let identity = "0100000000000000000000000000000000000000000000000000000000000000";
    let key: AuthorId = identity.parse().expect("hex");
    let weak = RunError::AuthorKey(AuthorKeyError::Weak { author: key });
    assert_eq!(refuses_key(key).await, weak);
}

/// The order of the group, little endian.
const ORDER: [u8; 32] = [
    0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
];

pub(super) async fn a_signature_with_s_above_the_group_order_is_refused() {
    let error = refuses_as_invalid(|bytes| {
        let s = bytes.len() - 32;
        let mut carry = 0u16;
        for (s, l) in bytes[s..].iter_mut().zip(ORDER) {
            carry += u16::from(*s) + u16::from(l);
            *s = carry as u8;
            carry >>= 8;
        }
    });
    assert_eq!(error.await, wrong_signature());
}

pub(super) async fn a_key_off_the_curve_is_refused() {
    let key = AuthorId::from_bytes([2; 32]);
    let off = RunError::AuthorKey(AuthorKeyError::NotAPoint { author: key });
    assert_eq!(refuses_key(key).await, off);
}

pub(super) async fn a_key_in_its_second_encoding_is_refused() {
    // y = 3, written as 3 + p.
    let mut bytes = [0xff; 32];
    bytes[0] = 0xed + 3;
    bytes[31] = 0x7f;
    let key = AuthorId::from_bytes(bytes);
    let off = RunError::AuthorKey(AuthorKeyError::NotAPoint { author: key });
    assert_eq!(refuses_key(key).await, off);
}

pub(super) async fn a_signature_whose_point_is_not_canonical_is_refused() {
    let error = refuses_as_invalid(|bytes| {
        let r = bytes.len() - Signature::LEN;
        bytes[r..r + 32].fill(0xff);
        bytes[r] = 0xee;
        bytes[r + 31] = 0x7f;
    });
    assert_eq!(error.await, wrong_signature());
}

pub(super) async fn a_signature_made_for_another_protocol_is_refused() {
    let stage = Stage::new().await;
    let run = stage.next_run(1, 1).await;
    // All that is signed here, under a context that is not ours.
    let message = [
        &b"somebody else's protocol"[..],
        stage.space.id().as_bytes(),
        run.author().as_bytes(),
        &run.last_seq().to_be_bytes(),
        run.head().id.as_bytes(),
    ]
    .concat();
    let key = iroh::SecretKey::from_bytes(&author(1).to_bytes());
    let mut bytes = run.run().as_bytes().to_vec();
    let at = bytes.len() - Signature::LEN;
    bytes[at..].copy_from_slice(&key.sign(&message).to_bytes());
    let pulled = is_sent_bytes(&stage, bytes).await;
    assert_eq!(pulled.told, INVALID);
    assert_eq!(*pulled.fault(), SessionError::InvalidRun(wrong_signature()));
    stage.ends_unharmed(1).await;
}

fn varint(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value > 0x7f {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

/// A run of author 7 that begins there, has so many events and one payload, in bytes as they are.
fn raw_run(first_seq: u64, events: u64, payload: usize) -> Vec<u8> {
    let mut bytes = author(7).id().as_bytes().to_vec();
    bytes.extend(varint(first_seq));
    if first_seq > 1 {
        bytes.extend([3; 32]);
    }
    bytes.extend(varint(events));
    // No channels.
    bytes.push(0);
    for event in 0..events {
        let len = if event == 0 { payload as u64 } else { 0 };
        // Time, kind, no channel, no causes.
        bytes.extend([0, 16, 0, 0]);
        bytes.extend(varint(len * 2));
    }
    bytes.extend(vec![0; payload + Signature::LEN]);
    bytes
}

async fn refuses_to_decode(bytes: Vec<u8>) -> DecodeError {
    let stage = Stage::new().await;
    let pulled = is_sent_bytes(&stage, bytes).await;
    assert_eq!(pulled.told, Ending::Closed(CloseCode::Malformed));
    let error = match pulled.fault() {
        SessionError::RunDecode(error) => error.clone(),
        other => panic!("{other}"),
    };
    stage.ends_unharmed(1).await;
    error
}

pub(super) async fn a_payload_above_the_limit_is_refused_before_it_is_hashed() {
    assert!(Run::decode(raw_run(1, 1, 1 << 20).into()).is_ok());
    let error = refuses_to_decode(raw_run(1, 1, (1 << 20) + 1)).await;
    assert!(matches!(error, DecodeError::OutOfRange { .. }), "{error}");
}

pub(super) async fn a_run_of_more_events_than_one_signature_may_cost_is_refused() {
    assert!(Run::decode(raw_run(1, 1024, 0).into()).is_ok());
    let error = refuses_to_decode(raw_run(1, 1025, 0)).await;
    assert!(
        matches!(error, DecodeError::OutOfRange { found: 1025, .. }),
        "{error}"
    );
}

pub(super) async fn a_run_past_the_highest_seq_is_refused() {
    assert!(Run::decode(raw_run(1 << 53, 1, 0).into()).is_ok());
    let error = refuses_to_decode(raw_run(1 << 53, 2, 0)).await;
    assert!(matches!(error, DecodeError::OutOfRange { .. }), "{error}");
}

pub(super) async fn timestamps_decide_nothing() {
    let stage = Stage::new().await;
    let times = [u64::MAX, 0, 7, u64::MAX / 2];
    let drafts = times.map(|time| EventDraft::new(16, time, format!("at {time}").into_bytes()));
    let head = stage.space.head(author(1).id()).await.expect("readable");
    let base = head.map(|record| record.entry.head);
    let run = sign_runs(&stage.space.id(), &author(1), base, drafts);
    let run = run.expect("signed").remove(0);
    let digest = stage.digest_with(&run).await;
    let pulled = stage.is_sent_whole(&run, digest, &[]).await;
    assert_eq!(pulled.result.expect("complete").events, 4);
    // Whenever they claim to be from, they stand where they were signed.
    for (at, time) in times.into_iter().enumerate() {
        let seq = (EVENTS + 1 + at) as u64;
        let event = stage.space.event(author(1).id(), seq).await;
        let event = event.expect("readable").expect("stored");
        assert_eq!(event.header.timestamp_ms, time);
    }
    stage.ends_with(4, 0).await;
}
