//! Peers that lie about forks, and strangers that ask about them.

use headwater::{
    ALPN, AuthorHead, Blame, CloseCode, SessionError, SpaceId, SyncError,
    wire::{
        ClockEntry, EventId, ForkAnswer, ForkBranch, ForkLocator, ForkNotice, FrameDecoder,
        HeadsWanted, HistorySyncComplete, Message, PlanTotals, Run, Segment, SyncBatchV2, SyncPlan,
        Truncation, VerifiedRun, sign_runs,
    },
};
use iroh::{
    Endpoint, EndpointAddr,
    endpoint::{Connection, ConnectionError, ReadError, RecvStream, SendStream},
};

use super::*;
use crate::nodes::{assert_equal, endpoint};

/// One stream, without any rule.
#[derive(Debug)]
struct Raw {
    send: SendStream,
    recv: RecvStream,
    decoder: FrameDecoder,
    heard: bytes::Bytes,
}

impl Raw {
    fn new((send, recv): (SendStream, RecvStream)) -> Self {
        Self {
            send,
            recv,
            decoder: FrameDecoder::new(),
            heard: bytes::Bytes::new(),
        }
    }

    async fn tell(&mut self, messages: impl IntoIterator<Item = Message>) {
        for message in messages {
            for chunk in message.encode_frame().expect("fits") {
                self.send.write_all(&chunk).await.ok();
            }
        }
    }

    async fn hear(&mut self) -> Message {
        loop {
            if let Some(frame) = self.decoder.read(&mut self.heard).expect("a frame") {
                let message = Message::decode_body(frame).expect("a message");
                return message.expect("known");
            }
            let chunk = self.recv.read_chunk(usize::MAX).await.expect("readable");
            self.heard = chunk.expect("a message");
        }
    }

    /// The code of the reset that ends it.
    async fn reset(&mut self) -> CloseCode {
        match self.recv.read_chunk(usize::MAX).await {
            Err(ReadError::Reset(code)) => code_of(code.into_inner()),
            other => panic!("not reset: {other:?}"),
        }
    }
}

fn code_of(code: u64) -> CloseCode {
    CloseCode::from_code(code).expect("a code of ours")
}

async fn close_code(connection: &Connection) -> CloseCode {
    match connection.closed().await {
        ConnectionError::ApplicationClosed(close) => code_of(close.error_code.into_inner()),
        other => panic!("not closed by the peer: {other}"),
    }
}

fn locator(space: SpaceId, entries: Vec<AuthorHead>, forked: bool) -> Message {
    Message::ForkLocator(ForkLocator {
        request_id: 7,
        space,
        author: forker(),
        forked,
        entries,
    })
}

fn half(request_id: u64, run: Option<&Run>) -> Message {
    Message::ForkBranch(ForkBranch {
        request_id,
        run: run.map(|run| run.as_bytes().clone()),
    })
}

/// A run of the forker behind this event.
fn run_behind(space: &Space, base: Option<AuthorHead>, tag: &str) -> VerifiedRun {
    let signed = sign_runs(&space.id(), &author(FORKER), base, more(tag));
    signed.expect("signed").remove(0)
}

/// A run with a signature that is none.
fn forged(run: &VerifiedRun) -> Run {
    let mut bytes = run.run().as_bytes().to_vec();
    *bytes.last_mut().expect("a signature") ^= 1;
    Run::decode(bytes.into()).expect("a run")
}

async fn head_of(space: &Space) -> AuthorHead {
    let record = space.head(forker()).await.expect("readable");
    record.expect("held").entry.head
}

async fn base_at(space: &Space, seq: u64) -> AuthorHead {
    let event = space.event(forker(), seq).await.expect("readable");
    AuthorHead {
        seq,
        id: event.expect("held").id,
    }
}

/// What a provider says who claims that the forker forked, up to the repair's stream.
async fn notice(raw: &mut Raw, space: &Space, stated: ClockEntry) {
    let request = raw.hear().await;
    let request_id = request.request_id();
    raw.tell([Message::HeadsWanted(HeadsWanted { request_id })])
        .await;
    assert!(matches!(raw.hear().await, Message::HeadsChunk(_)));
    let plan = |segment| {
        Message::SyncPlan(SyncPlan {
            request_id,
            segment,
            totals: PlanTotals::default(),
            rest: PlanTotals::default(),
        })
    };
    let head = AuthorHead {
        seq: stated.head.seq,
        id: EventId::from_bytes([9; 32]),
    };
    let digest = space
        .summary()
        .await
        .expect("readable")
        .expect("held")
        .digest;
    raw.tell([
        plan(Segment::Owner),
        plan(Segment::Last),
        Message::ForkNotice(ForkNotice {
            request_id,
            author: stated.author,
            stated: Some(stated),
            held: ClockEntry { head, ..stated },
        }),
        Message::SyncBatchV2(SyncBatchV2 {
            request_id,
            more: false,
            runs: Vec::new(),
        }),
        Message::HistorySyncComplete(HistorySyncComplete {
            request_id,
            outcome: SyncOutcome::Truncated(Truncation::Forked { authors: 1 }),
            last_event: None,
            events: 0,
            stubs: 0,
            joined_digest: digest,
            stream_generation: 1,
            cursor: None,
            receipt: None,
        }),
    ])
    .await;
    raw.send.finish().ok();
}

/// A node pulls from a liar, who answers its locators truthfully and sends these as the proof.
async fn pulls_from_a_liar(
    first: &VerifiedRun,
    second: &Run,
    victim: &Node,
    space: &Space,
) -> CloseCode {
    let far = endpoint().await;
    far.set_alpns(vec![ALPN.to_vec()]);
    let stated = ClockEntry {
        author: forker(),
        head: head_of(space).await,
        forked: false,
        revoked: headwater_wire::RevokedDigest::NONE,
    };
    let pull = space.sync_with(far.addr()).into_future();
    let lie = async {
        let connection = accept(&far).await;
        let streams = connection.accept_bi().await.expect("stream");
        notice(&mut Raw::new(streams), space, stated).await;
        let streams = connection.accept_bi().await.expect("stream of the repair");
        let mut raw = Raw::new(streams);
        let Message::ForkLocator(asked) = raw.hear().await else {
            panic!("a locator first");
        };
        // It has what was stated, and a proof besides.
        raw.tell([Message::ForkAnswer(ForkAnswer {
            request_id: asked.request_id,
            forked: true,
            same: stated.head.seq,
            differs: None,
        })])
        .await;
        assert!(matches!(
            raw.hear().await,
            Message::ForkBranch(ForkBranch { run: None, .. })
        ));
        let id = asked.request_id;
        raw.tell([
            half(id, Some(first.run())),
            half(id, Some(second)),
            half(id, None),
        ])
        .await;
        close_code(&connection).await
    };
    let (result, code) = tokio::join!(pull, lie);
    let error = result.expect_err("a liar");
    assert_eq!(error.blame(), Blame::Peer, "{error}");
    assert!(
        matches!(
            &error,
            SyncError::Session(SessionError::InvalidForkProof(_))
        ),
        "{error}"
    );
    assert!(victim.headwater.metrics().peer_faults.get() > 0);
    far.close().await;
    code
}

async fn accept(far: &Endpoint) -> Connection {
    let incoming = far.accept().await.expect("open").accept();
    incoming.expect("accepted").await.expect("connected")
}

async fn dial(to: EndpointAddr) -> (Endpoint, Connection, Raw) {
    let endpoint = endpoint().await;
    let connection = endpoint.connect(to, ALPN).await.expect("connected");
    let raw = Raw::new(connection.open_bi().await.expect("stream"));
    (endpoint, connection, raw)
}

#[tokio::test]
async fn a_bogus_proof_is_the_senders_fault_and_changes_nothing() {
    let (left, right, ours, _) = pair(10).await;
    let before = ours.summary().await.expect("readable");
    let base = base_at(&ours, 4).await;
    let one = run_behind(&ours, Some(base), "one");
    let other = run_behind(&ours, Some(base), "other");
    let behind = run_behind(&ours, Some(one.head()), "behind");

    for second in [forged(&other), behind.run().clone(), one.run().clone()] {
        let code = pulls_from_a_liar(&one, &second, &left, &ours).await;
        assert_eq!(code, CloseCode::InvalidRun);
        assert_eq!(ours.summary().await.expect("readable"), before);
        assert_eq!(forks(&ours).await, []);
    }
    left.shutdown().await;
    right.shutdown().await;
}

#[tokio::test]
async fn an_asker_with_a_bogus_proof_is_closed_and_changes_nothing() {
    let (left, right, ours, theirs) = pair(10).await;
    let head = head_of(&ours).await;
    let one = run_behind(&ours, Some(base_at(&ours, 4).await), "one");
    let (far, connection, mut raw) = dial(left.addr()).await;

    raw.tell([locator(ours.id(), vec![head], true)]).await;
    let Message::ForkAnswer(answer) = raw.hear().await else {
        panic!("an answer");
    };
    assert_eq!(
        (answer.same, answer.differs, answer.forked),
        (10, None, false)
    );
    raw.tell([
        half(7, Some(one.run())),
        half(7, Some(&forged(&one))),
        half(7, None),
    ])
    .await;

    assert_eq!(close_code(&connection).await, CloseCode::InvalidRun);
    assert_eq!(forks(&ours).await, []);
    assert_equal(&ours, &theirs).await;
    far.close().await;
    left.shutdown().await;
    right.shutdown().await;
}

#[tokio::test]
async fn a_stranger_who_asks_about_forks_gets_what_an_unknown_space_gets() {
    let node = Node::build(headwater::Headwater::builder().policy(headwater::Nobody)).await;
    let held = crate::nodes::filled(&node.headwater, 3, 5).await;
    let head = head_of(&held).await;
    for space in [held.id(), SpaceId::from_bytes([9; 32])] {
        let (far, _connection, mut raw) = dial(node.addr()).await;
        raw.tell([locator(space, vec![head], false)]).await;
        assert_eq!(raw.reset().await, CloseCode::Refused);
        far.close().await;
    }
    let metrics = node.headwater.metrics();
    assert_eq!(metrics.serves_refused.get(), 2);
    assert_eq!(metrics.peer_faults.get(), 0);
    node.shutdown().await;
}

#[tokio::test]
async fn a_fork_is_compared_in_a_place_of_its_own_like_any_request() {
    let node = quiet().await;
    let held = crate::nodes::filled(&node.headwater, 3, 5).await;
    let head = head_of(&held).await;
    let (far, connection, mut first) = dial(node.addr()).await;
    let mut second = Raw::new(connection.open_bi().await.expect("stream"));
    for raw in [&mut first, &mut second] {
        raw.tell([locator(held.id(), vec![head], false)]).await;
        assert!(matches!(raw.hear().await, Message::ForkAnswer(_)));
    }
    let mut third = Raw::new(connection.open_bi().await.expect("stream"));
    third.tell([locator(held.id(), vec![head], false)]).await;
    assert!(matches!(third.hear().await, Message::Busy(_)));
    far.close().await;
    node.shutdown().await;
}

#[tokio::test]
async fn a_proof_about_somebody_who_may_not_write_and_wrote_nothing_is_not_kept() {
    let readers = headwater::AllowList::new();
    let node = Node::build(headwater::Headwater::builder().policy(readers.clone())).await;
    let space = node
        .headwater
        .create_space(&author(0))
        .await
        .expect("created");
    let (far, _connection, mut raw) = dial(node.addr()).await;
    readers.set_reader(space.id(), far.id(), true);
    let one = run_behind(&space, None, "one");
    let other = run_behind(&space, None, "other");
    let before = space.summary().await.expect("readable");

    raw.tell([locator(space.id(), Vec::new(), true)]).await;
    assert!(matches!(raw.hear().await, Message::ForkAnswer(_)));
    raw.tell([
        half(7, Some(one.run())),
        half(7, Some(other.run())),
        half(7, None),
    ])
    .await;

    assert!(matches!(
        raw.hear().await,
        Message::ForkBranch(ForkBranch { run: None, .. })
    ));
    assert_eq!(forks(&space).await, []);
    assert_eq!(space.summary().await.expect("readable"), before);
    assert_eq!(node.headwater.metrics().peer_faults.get(), 0);
    far.close().await;
    node.shutdown().await;
}
