//! A peer's end of a stream, without any rule, and the messages it says on it.

use std::{collections::VecDeque, time::Duration};

use bytes::Bytes;
use headwater::{
    ALPN, AuthorHead, AuthorId, AuthorSecret, CloseCode, EventRef, HeadsDigest, SpaceId,
    SyncOutcome,
    wire::{
        Budget, Clock, ClockEntry, EventId, FrameDecoder, HeadsChunk, HeadsWanted,
        HistorySyncComplete, Message, PlanTotals, Run, Segment, SyncBatchV2, SyncFilter, SyncPlan,
        SyncRequestV2, VerifiedRun,
    },
};
use iroh::{
    Endpoint, EndpointAddr,
    endpoint::{Connection, ConnectionError, ReadError, RecvStream, SendStream},
};
use n0_future::time::sleep;

use crate::nodes::endpoint;

/// How a stream ended for the one who broke the rules.
#[derive(Debug, PartialEq, Eq, Clone, Copy)]
pub(super) enum Ending {
    /// In order.
    Finished,
    Reset(CloseCode),
    Closed(CloseCode),
}

/// A stream to the victim, whoever opened it.
#[derive(Debug)]
pub(super) struct Peer {
    endpoint: Endpoint,
    pub(super) connection: Connection,
    pub(super) send: SendStream,
    pub(super) recv: RecvStream,
    decoder: FrameDecoder,
    heard: VecDeque<Bytes>,
}

impl Peer {
    /// Dials, and opens a stream on which nothing is said yet.
    pub(super) async fn dial(victim: EndpointAddr) -> Self {
        Self::dial_from(endpoint().await, victim).await
    }

    pub(super) async fn dial_from(endpoint: Endpoint, victim: EndpointAddr) -> Self {
        let connection = endpoint.connect(victim, ALPN).await.expect("connected");
        let streams = connection.open_bi().await.expect("stream");
        Self::new(endpoint, connection, streams)
    }

    /// Waits to be dialled, and for the first stream.
    pub(super) async fn accept(endpoint: Endpoint) -> Self {
        let incoming = endpoint.accept().await.expect("open").accept();
        let connection = incoming.expect("accepted").await.expect("connected");
        let streams = connection.accept_bi().await.expect("stream");
        Self::new(endpoint, connection, streams)
    }

    fn new(
        endpoint: Endpoint,
        connection: Connection,
        (send, recv): (SendStream, RecvStream),
    ) -> Self {
        Self {
            endpoint,
            connection,
            send,
            recv,
            decoder: FrameDecoder::new(),
            heard: VecDeque::new(),
        }
    }

    /// Its node's key.
    pub(super) fn key(&self) -> AuthorSecret {
        AuthorSecret::from_bytes(self.endpoint.secret_key().to_bytes())
    }

    /// Sends these bytes. A victim that has seen enough may stop the stream before all are sent.
    pub(super) async fn say(&mut self, bytes: &[u8]) {
        self.send.write_all(bytes).await.ok();
    }

    pub(super) async fn tell(&mut self, messages: impl IntoIterator<Item = Message>) {
        self.say(&frames(messages)).await;
    }

    /// Ends its half of the stream in order.
    pub(super) fn finish(&mut self) {
        self.send.finish().ok();
    }

    /// The next message.
    pub(super) async fn hear(&mut self) -> Message {
        loop {
            while let Some(piece) = self.heard.front_mut() {
                match self.decoder.read(piece).expect("a frame") {
                    Some(frame) => {
                        let message = Message::decode_body(frame).expect("a message");
                        return message.expect("known");
                    }
                    None => drop(self.heard.pop_front()),
                }
            }
            let chunk = self.recv.read_chunk(usize::MAX).await.expect("readable");
            self.heard.push_back(chunk.expect("a message"));
        }
    }

    /// Reads on, whatever comes, until the victim ends the stream or the connection.
    pub(super) async fn ending(&mut self) -> Ending {
        self.trickle(usize::MAX, Duration::ZERO).await
    }

    /// Reads on, so many bytes at a time.
    pub(super) async fn trickle(&mut self, bytes: usize, every: Duration) -> Ending {
        loop {
            match self.recv.read_chunk(bytes).await {
                Ok(Some(_)) if every.is_zero() => {}
                Ok(Some(_)) => sleep(every).await,
                Ok(None) => return Ending::Finished,
                Err(ReadError::Reset(reason)) => return Ending::Reset(code(reason.into_inner())),
                Err(ReadError::ConnectionLost(error)) => return Ending::Closed(closed(&error)),
                Err(error) => panic!("neither reset nor closed: {error}"),
            }
        }
    }

    /// Says this and waits for what comes of it.
    pub(super) async fn provokes(&mut self, bytes: &[u8]) -> Ending {
        self.say(bytes).await;
        self.ending().await
    }

    /// Reads nothing, and waits until the victim says that it will not either.
    pub(super) async fn stopped(&mut self) -> CloseCode {
        let told = self.send.stopped().await.expect("told");
        code(told.expect("with a code").into_inner())
    }

    pub(super) async fn leave(self) {
        self.connection.close(0u32.into(), b"");
        self.endpoint.close().await;
    }
}

/// Our code in the close of a connection.
pub(super) fn closed(error: &ConnectionError) -> CloseCode {
    match error {
        ConnectionError::ApplicationClosed(close) => code(close.error_code.into_inner()),
        other => panic!("not closed by the victim: {other}"),
    }
}

fn code(code: u64) -> CloseCode {
    CloseCode::from_code(code).expect("a code of ours")
}

pub(super) fn frames(messages: impl IntoIterator<Item = Message>) -> Vec<u8> {
    let mut bytes = Vec::new();
    for message in messages {
        for chunk in message.encode_frame().expect("fits") {
            bytes.extend_from_slice(&chunk);
        }
    }
    bytes
}

/// A frame with this body, whatever it is.
pub(super) fn frame(body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).expect("short");
    [&length.to_be_bytes()[..], body].concat()
}

/// The id of every request made here.
pub(super) const REQUEST: u64 = 7;

pub(super) fn request(space: SpaceId) -> SyncRequestV2 {
    SyncRequestV2 {
        request_id: REQUEST,
        space,
        clock: Clock::Heads,
        filter: SyncFilter::default(),
        budget: Budget::default(),
        live: false,
    }
}

pub(super) fn heads(heads: Vec<ClockEntry>, last: bool) -> Message {
    Message::HeadsChunk(HeadsChunk {
        request_id: REQUEST,
        heads,
        last,
    })
}

/// What a peer asks that holds nothing.
pub(super) fn whole_request(space: SpaceId) -> Vec<u8> {
    frames([request(space).into(), heads(Vec::new(), true)])
}

/// An entry of a clock about an event nobody has seen.
pub(super) fn entry(author: AuthorId, seq: u64) -> ClockEntry {
    ClockEntry {
        author,
        head: AuthorHead {
            seq,
            id: EventId::from_bytes([4; 32]),
        },
        forked: false,
        revoked: headwater_wire::RevokedDigest::NONE,
    }
}

pub(super) fn heads_wanted(request_id: u64) -> Message {
    Message::HeadsWanted(HeadsWanted { request_id })
}

pub(super) fn plan(request_id: u64, segment: Segment, authors: u64, events: u64) -> Message {
    Message::SyncPlan(SyncPlan {
        request_id,
        segment,
        totals: PlanTotals {
            authors,
            events,
            payload_bytes: 1_000_000,
        },
        rest: PlanTotals::default(),
    })
}

pub(super) fn batch(request_id: u64, more: bool, runs: &[&Run]) -> Message {
    let bytes = runs.iter().map(|run| run.as_bytes().clone());
    raw_batch(request_id, more, bytes.collect())
}

pub(super) fn raw_batch(request_id: u64, more: bool, runs: Vec<Bytes>) -> Message {
    Message::SyncBatchV2(SyncBatchV2 {
        request_id,
        more,
        runs,
    })
}

/// A complete history of at most one run.
pub(super) fn complete(
    request_id: u64,
    joined_digest: HeadsDigest,
    run: Option<&VerifiedRun>,
) -> Message {
    Message::HistorySyncComplete(HistorySyncComplete {
        request_id,
        outcome: SyncOutcome::Complete,
        last_event: run.map(|run| EventRef {
            author: run.author(),
            seq: run.last_seq(),
            id: run.head().id,
        }),
        events: run.map_or(0, |run| run.run().event_count() as u64),
        stubs: 0,
        joined_digest,
        stream_generation: 1,
        cursor: None,
        receipt: None,
    })
}
