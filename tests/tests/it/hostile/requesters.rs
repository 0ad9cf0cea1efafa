//! Peers that ask: each is told what it did, and others are served on.

use super::*;

#[tokio::test]
async fn hostile_requesters_are_told_why_and_others_are_served_on() {
    let node = Node::spawn().await;
    let space = filled(&node.headwater, 5, 5).await;
    let id = space.id();
    let mut authors: Vec<_> = (1..=3).map(|number| author(number).id()).collect();
    authors.sort();
    let [low, middle, high] = authors[..] else {
        unreachable!("three authors")
    };
    let owner = author(0).id();
    let whole = frames([request(id, Clock::Heads), chunk(7, Vec::new())]);
    let clock = |heads: Vec<ClockEntry>| frames([request(id, Clock::Heads), chunk(7, heads)]);
    let with = |more: &[u8]| [&frames([request(id, Clock::Heads)])[..], more].concat();

    let malformed = Ending::Closed(CloseCode::Malformed);
    let violation = Ending::Closed(CloseCode::ProtocolViolation);
    let cases: Vec<(&str, Vec<u8>, bool, Ending)> = vec![
        ("nothing", vec![], true, Ending::Reset(CloseCode::Truncated)),
        (
            "half a request",
            whole[..20].to_vec(),
            true,
            Ending::Reset(CloseCode::Truncated),
        ),
        (
            "a request cut in its second frame",
            whole[..whole.len() - 1].to_vec(),
            true,
            Ending::Reset(CloseCode::Truncated),
        ),
        ("a length of 2^32 - 1", vec![255; 4], false, malformed),
        (
            "a length just above the limit",
            vec![0, 0x11, 0, 1],
            false,
            malformed,
        ),
        ("an empty frame", vec![0; 4], false, malformed),
        (
            "an unknown message",
            vec![0, 0, 0, 1, 90],
            false,
            Ending::Reset(CloseCode::Unsupported),
        ),
        (
            "a byte too many in a frame",
            {
                let mut longer = frames([request(id, Clock::Heads)]);
                longer.push(0);
                longer[3] += 1;
                longer
            },
            false,
            malformed,
        ),
        (
            "heads before a request",
            frames([chunk(7, Vec::new())]),
            false,
            violation,
        ),
        (
            "two requests",
            with(&frames([request(id, Clock::Heads)])),
            false,
            violation,
        ),
        (
            "a responder's message",
            with(&frames([Message::SyncBatchV2(SyncBatchV2 {
                request_id: 7,
                more: false,
                runs: vec![],
            })])),
            false,
            violation,
        ),
        (
            "another request's heads",
            with(&frames([chunk(8, Vec::new())])),
            false,
            violation,
        ),
        (
            "unsorted heads",
            clock(vec![entry(owner, 1), entry(high, 1), entry(low, 1)]),
            false,
            violation,
        ),
        (
            "an author stated twice",
            clock(vec![
                entry(owner, 1),
                entry(low, 1),
                entry(middle, 1),
                entry(middle, 1),
            ]),
            false,
            violation,
        ),
        (
            "an unknown space",
            frames([
                request(SpaceId::from_bytes([8; 32]), Clock::Heads),
                chunk(7, Vec::new()),
            ]),
            false,
            Ending::Reset(CloseCode::Refused),
        ),
    ];
    for (what, bytes, finish, expected) in cases {
        assert_eq!(attack(&node, &bytes, finish).await, expected, "{what}");
    }
    assert_unharmed(&node, &space).await;
    assert!(node.headwater.metrics().peer_faults.get() > 8);
    assert_eq!(node.headwater.metrics().panics.get(), 0);
    node.shutdown().await;
}

#[tokio::test]
async fn random_bytes_end_a_stream_and_nothing_else() {
    let node = Node::spawn().await;
    let space = filled(&node.headwater, 2, 2).await;
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for round in 0..60 {
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
        let ending = attack(&node, &bytes, true).await;
        assert_ne!(ending, Ending::Finished, "round {round}");
    }
    assert_unharmed(&node, &space).await;
    assert_eq!(node.headwater.metrics().panics.get(), 0);
    node.shutdown().await;
}

#[tokio::test]
async fn a_peer_killed_in_mid_sync_again_and_again_is_served_when_it_comes_back() {
    let node = Node::spawn().await;
    let space = filled(&node.headwater, 0, 0).await;
    // More than a stream's window, so that serving it cannot end unread.
    for number in 1..=4 {
        let large = (0..1000).map(|at| EventDraft::new(16, at, vec![number as u8; 1000]));
        let appended = space.append_batch(&author(number), large.collect()).await;
        appended.expect("appended");
    }
    let key = iroh::SecretKey::from_bytes(&[42; 32]);
    let bytes = frames([request(space.id(), Clock::Heads), chunk(7, Vec::new())]);
    let mut killed = Vec::new();
    for _ in 0..5 {
        let peer = endpoint_of(key.clone()).await;
        let connection = peer.connect(node.addr(), ALPN).await.expect("connected");
        let (mut send, mut recv) = connection.open_bi().await.expect("stream");
        send.write_all(&bytes).await.expect("written");
        let begun = recv.read_chunk(1).await.expect("served");
        assert!(begun.is_some());
        // Neither closed nor read on: what a node looks like that was killed.
        killed.push((peer, connection, send, recv));
    }

    let again = Headwater::builder().spawn(endpoint_of(key).await);
    let pulled = again.space(space.id());
    pulled.sync_with(node.addr()).await.expect("served");
    assert_equal(&space, &pulled).await;
    again.shutdown().await;
    drop(killed);
    node.shutdown().await;
}

#[tokio::test]
async fn a_requester_that_reads_nothing_is_left_though_all_it_asked_for_is_on_its_way() {
    let mut limits = Limits::default();
    // Only the longest time of a sync is left to end this one.
    limits.write_stall = Duration::from_hours(1);
    limits.session.stall = Duration::from_hours(1);
    limits.session.total = Duration::from_secs(2);
    let node = Node::build(Headwater::builder().limits(limits)).await;
    let space = filled(&node.headwater, 0, 0).await;
    // Above a stream's window by less than is queued: the session is over, and waits for us.
    let large = (0..1400).map(|at| EventDraft::new(16, at, vec![1; 1000]));
    let appended = space.append_batch(&author(1), large.collect()).await;
    appended.expect("appended");
    let attacker = endpoint().await;
    let connection = attacker
        .connect(node.addr(), ALPN)
        .await
        .expect("connected");
    let (mut send, _unread) = connection.open_bi().await.expect("stream");

    let bytes = frames([request(space.id(), Clock::Heads), chunk(7, Vec::new())]);
    send.write_all(&bytes).await.expect("written");
    let told = send.stopped().await.expect("told").expect("with a code");

    assert_eq!(code(told.into_inner()), CloseCode::TimedOut);
    assert_eq!(node.headwater.metrics().serves_completed.get(), 1);
    node.shutdown().await;
}
