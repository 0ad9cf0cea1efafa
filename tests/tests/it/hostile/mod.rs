//! Peers that break the rules, on raw streams: each ends its own sync with a named error and a
//! close code, changes nothing that is stored, and leaves the node serving others.

mod requesters;
mod responders;

use std::time::Duration;

use bytes::Bytes;
use headwater::{
    ALPN, AuthorHead, AuthorId, Blame, CloseCode, EventDraft, EventRef, Headwater, Limits,
    SessionError, Space, SpaceId, SyncError,
    wire::{
        Budget, Clock, ClockEntry, EventId, FrameDecoder, HeadsChunk, HeadsDigest, HeadsSummary,
        Message, PlanTotals, Run, Segment, SyncBatchV2, SyncFilter, SyncPlan, SyncRequestV2,
        VerifiedRun, sign_genesis, sign_runs,
    },
};
use iroh::{
    Endpoint,
    endpoint::{Connection, ConnectionError, ReadError, RecvStream, SendStream},
    protocol::{AcceptError, ProtocolHandler, Router},
};
use tokio::sync::mpsc;

use crate::nodes::{Node, assert_equal, author, contents, drafts, endpoint, endpoint_of, filled};

/// How a peer's stream ended for the one who broke the rules.
#[derive(Debug, PartialEq, Eq, Clone, Copy)]
enum Ending {
    /// In order.
    Finished,
    Reset(CloseCode),
    Closed(CloseCode),
}

fn code(code: u64) -> CloseCode {
    CloseCode::from_code(code).expect("a code of ours")
}

async fn ending(recv: &mut RecvStream) -> Ending {
    loop {
        match recv.read_chunk(usize::MAX).await {
            Ok(Some(_)) => {}
            Ok(None) => return Ending::Finished,
            Err(ReadError::Reset(reason)) => return Ending::Reset(code(reason.into_inner())),
            Err(ReadError::ConnectionLost(ConnectionError::ApplicationClosed(close))) => {
                return Ending::Closed(code(close.error_code.into_inner()));
            }
            Err(error) => panic!("neither reset nor closed: {error}"),
        }
    }
}

fn frames(messages: impl IntoIterator<Item = Message>) -> Vec<u8> {
    let mut bytes = Vec::new();
    for message in messages {
        for chunk in message.encode_frame().expect("fits") {
            bytes.extend_from_slice(&chunk);
        }
    }
    bytes
}

fn request(space: SpaceId, clock: Clock) -> Message {
    Message::SyncRequestV2(SyncRequestV2 {
        request_id: 7,
        space,
        clock,
        filter: SyncFilter::default(),
        budget: Budget::default(),
        live: false,
    })
}

fn chunk(request_id: u64, heads: Vec<ClockEntry>) -> Message {
    Message::HeadsChunk(HeadsChunk {
        request_id,
        heads,
        last: true,
    })
}

fn entry(author: AuthorId, seq: u64) -> ClockEntry {
    ClockEntry {
        author,
        head: AuthorHead {
            seq,
            id: EventId::from_bytes([4; 32]),
        },
        forked: false,
    }
}

/// Opens a stream, writes these bytes, ends or not, and says what came of it.
async fn attack(node: &Node, bytes: &[u8], finish: bool) -> Ending {
    let attacker = endpoint().await;
    let connection = attacker
        .connect(node.addr(), ALPN)
        .await
        .expect("connected");
    let (mut send, mut recv) = connection.open_bi().await.expect("stream");
    // A victim that has seen enough may stop the stream before all is written.
    send.write_all(bytes).await.ok();
    if finish {
        send.finish().ok();
    }
    let ending = ending(&mut recv).await;
    connection.close(0u32.into(), b"");
    attacker.close().await;
    ending
}

/// The node still holds what it held, and serves it.
async fn assert_unharmed(node: &Node, space: &Space) {
    let honest = Headwater::builder().spawn(endpoint().await);
    let pulled = honest.space(space.id());
    pulled.sync_with(node.addr()).await.expect("served");
    assert_equal(space, &pulled).await;
    honest.shutdown().await;
}
