//! Messages at the wrong time, in the wrong role, and questions nobody may ask.

use std::time::{Duration, Instant};

use headwater::{
    AccessPolicy, CloseCode, Headwater, SessionError, SpaceId,
    wire::{HeadsDigest, Message, PayloadRequest, PayloadWant, SyncFilter},
};
use iroh::EndpointId;
use n0_future::boxed::BoxFuture;

use super::{
    raw::{
        Ending, REQUEST, batch, complete, frames, heads, heads_wanted, plan, request, whole_request,
    },
    stage::Stage,
};
use crate::nodes::{author, endpoint_of};

const VIOLATION: Ending = Ending::Closed(CloseCode::ProtocolViolation);

/// Says these to a victim that serves, and expects to be closed out for it.
async fn asks_out_of_phase(messages: impl FnOnce(SpaceId) -> Vec<Message>) {
    let stage = Stage::new().await;
    let bytes = frames(messages(stage.space.id()));
    let ending = stage.suffers(async |peer| peer.provokes(&bytes).await);
    assert_eq!(ending.await, VIOLATION);
    stage.ends_unharmed(1).await;
}

pub(super) async fn heads_before_a_request_close_the_connection() {
    asks_out_of_phase(|_| vec![heads(Vec::new(), true)]).await;
}

pub(super) async fn a_second_request_on_a_stream_closes_the_connection() {
    asks_out_of_phase(|space| vec![request(space).into(), request(space).into()]).await;
}

pub(super) async fn a_responders_message_from_a_requester_closes_the_connection() {
    asks_out_of_phase(|space| vec![request(space).into(), batch(REQUEST, false, &[])]).await;
}

pub(super) async fn heads_for_another_request_close_the_connection() {
    asks_out_of_phase(|space| {
        let mut foreign = heads(Vec::new(), true);
        if let Message::HeadsChunk(chunk) = &mut foreign {
            chunk.request_id += 1;
        }
        vec![request(space).into(), foreign]
    })
    .await;
}

pub(super) async fn heads_after_the_last_close_the_connection() {
    asks_out_of_phase(|space| {
        let last = || heads(Vec::new(), true);
        vec![request(space).into(), last(), last()]
    })
    .await;
}

pub(super) async fn a_requesters_message_from_a_responder_closes_the_connection() {
    let stage = Stage::new().await;
    let pulled = stage.pulls(&stage.space, async |peer, id| {
        let mut back = request(SpaceId::from_bytes([1; 32]));
        back.request_id = id;
        peer.tell([back.into()]).await;
        peer.ending().await
    });
    let pulled = pulled.await;
    assert_eq!(pulled.told, VIOLATION);
    let expected = SessionError::OutOfPhase {
        message: "SyncRequestV2",
        phase: "awaiting the first answer",
    };
    assert_eq!(*pulled.fault(), expected);
    stage.ends_unharmed(1).await;
}

pub(super) async fn a_batch_before_a_plan_closes_the_connection() {
    let stage = Stage::new().await;
    let run = stage.next_run(1, 1).await;
    let pulled = stage.pulls(&stage.space, async |peer, id| {
        peer.tell([batch(id, true, &[run.run()])]).await;
        peer.ending().await
    });
    let pulled = pulled.await;
    assert_eq!(pulled.told, VIOLATION);
    let expected = SessionError::OutOfPhase {
        message: "SyncBatchV2",
        phase: "awaiting the first answer",
    };
    assert_eq!(*pulled.fault(), expected);
    stage.ends_unharmed(1).await;
}

pub(super) async fn an_end_before_a_plan_closes_the_connection() {
    let stage = Stage::new().await;
    let pulled = stage.pulls(&stage.space, async |peer, id| {
        peer.tell([complete(id, HeadsDigest::EMPTY, None)]).await;
        peer.ending().await
    });
    let pulled = pulled.await;
    assert_eq!(pulled.told, VIOLATION);
    assert!(matches!(pulled.fault(), SessionError::OutOfPhase { .. }));
    stage.ends_unharmed(1).await;
}

pub(super) async fn an_answer_to_another_request_closes_the_connection() {
    let stage = Stage::new().await;
    let pulled = stage.pulls(&stage.space, async |peer, id| {
        peer.tell([heads_wanted(id + 1)]).await;
        (id, peer.ending().await)
    });
    let pulled = pulled.await;
    let (id, ending) = pulled.told;
    assert_eq!(ending, VIOLATION);
    let expected = SessionError::WrongRequest {
        expected: id,
        found: id + 1,
    };
    assert_eq!(*pulled.fault(), expected);
    stage.ends_unharmed(1).await;
}

pub(super) async fn a_second_answer_to_a_request_closes_the_connection() {
    let stage = Stage::new().await;
    let pulled = stage.pulls(&stage.space, async |peer, id| {
        peer.tell([heads_wanted(id), heads_wanted(id)]).await;
        peer.ending().await
    });
    let pulled = pulled.await;
    assert_eq!(pulled.told, VIOLATION);
    let expected = SessionError::OutOfPhase {
        message: "HeadsWanted",
        phase: "awaiting a plan",
    };
    assert_eq!(*pulled.fault(), expected);
    stage.ends_unharmed(1).await;
}

pub(super) async fn a_plan_of_the_same_segment_twice_closes_the_connection() {
    let stage = Stage::new().await;
    let pulled = stage.pulls_more(async |peer, id| {
        let owner = || plan(id, headwater::wire::Segment::Owner, 0, 0);
        peer.tell([owner(), owner()]).await;
        peer.ending().await
    });
    let pulled = pulled.await;
    assert_eq!(pulled.told, VIOLATION);
    assert_eq!(pulled.fault().close_code(), CloseCode::ProtocolViolation);
    stage.ends_unharmed(1).await;
}

pub(super) async fn a_range_whose_end_lies_before_its_start_closes_the_connection() {
    let stage = Stage::new().await;
    let inverted = Message::PayloadRequest(PayloadRequest {
        request_id: REQUEST,
        space: stage.space.id(),
        wants: vec![PayloadWant {
            author: author(1).id(),
            first: 5,
            last: 2,
        }],
        filter: SyncFilter::default(),
    });
    let ending = stage.suffers(async |peer| peer.provokes(&frames([inverted])).await);
    assert_eq!(ending.await, Ending::Closed(CloseCode::Malformed));
    stage.ends_unharmed(1).await;
}

/// Serves everything to everybody but one.
#[derive(Debug)]
struct AllBut(EndpointId);

impl AccessPolicy for AllBut {
    fn may_read(&self, remote: EndpointId, _: SpaceId) -> BoxFuture<bool> {
        Box::pin(std::future::ready(remote != self.0))
    }
}

pub(super) async fn an_unknown_space_and_a_refused_one_look_and_take_alike() {
    let key = iroh::SecretKey::from_bytes(&[42; 32]);
    let policy = AllBut(key.public());
    let stage = Stage::build(Headwater::builder().policy(policy)).await;
    let spaces = [stage.space.id(), SpaceId::from_bytes([9; 32])];
    let far = endpoint_of(key).await;
    let connection = far
        .connect(stage.victim.addr(), headwater::ALPN)
        .await
        .expect("connected");
    let mut took = [Vec::new(), Vec::new()];
    for at in 0..60 {
        let (mut send, mut recv) = connection.open_bi().await.expect("stream");
        let asked = Instant::now();
        let bytes = whole_request(spaces[at % 2]);
        send.write_all(&bytes).await.ok();
        let told = recv.read_chunk(1).await;
        took[at % 2].push(asked.elapsed());
        // The same code, and not a byte before it.
        let reset = iroh::endpoint::ReadError::Reset(1u32.into());
        assert_eq!(told, Err(reset));
    }
    let [known, unknown] = took.map(|mut took| {
        took.sort();
        took[took.len() / 2]
    });
    let apart = known.abs_diff(unknown);
    assert!(apart < Duration::from_millis(5), "{known:?}, {unknown:?}");
    assert_eq!(stage.victim.headwater.metrics().serves_refused.get(), 60);
    connection.close(0u32.into(), b"");
    far.close().await;
    stage.ends_unharmed(0).await;
}
