//! Peers that answer: each ends its own sync, and what was stored stays.

use super::*;

/// What a hostile responder does after it has read the request.
#[derive(Debug, Clone)]
enum Trick {
    /// Says this, and waits.
    Say(Vec<u8>),
    /// Says this, and ends its stream.
    SayAndEnd(Vec<u8>),
    /// Says this, and is gone.
    SayAndVanish(Vec<u8>),
}

/// A responder that answers every request with one trick, and reports how each ended for it.
#[derive(Debug)]
struct Hostile {
    trick: Trick,
    endings: mpsc::UnboundedSender<Ending>,
}

impl ProtocolHandler for Hostile {
    async fn accept(&self, connection: Connection) -> Result<(), AcceptError> {
        let (mut send, mut recv) = connection.accept_bi().await?;
        let said = read_request(&mut recv).await;
        assert!(matches!(said, Message::SyncRequestV2(_)));
        let ending = self.play(&connection, &mut send, &mut recv).await;
        self.endings.send(ending).ok();
        connection.closed().await;
        Ok(())
    }
}

impl Hostile {
    async fn play(
        &self,
        connection: &Connection,
        send: &mut SendStream,
        recv: &mut RecvStream,
    ) -> Ending {
        match &self.trick {
            Trick::Say(bytes) => {
                send.write_all(bytes).await.ok();
                ending(recv).await
            }
            Trick::SayAndEnd(bytes) => {
                send.write_all(bytes).await.ok();
                send.finish().ok();
                ending(recv).await
            }
            Trick::SayAndVanish(bytes) => {
                send.write_all(bytes).await.ok();
                connection.close(99u32.into(), b"");
                Ending::Finished
            }
        }
    }
}

async fn read_request(recv: &mut RecvStream) -> Message {
    let mut decoder = FrameDecoder::new();
    loop {
        let chunk = recv.read_chunk(usize::MAX).await.expect("readable");
        let mut chunk = chunk.expect("a request");
        if let Some(frame) = decoder.read(&mut chunk).expect("a frame") {
            return Message::decode_body(frame)
                .expect("a message")
                .expect("known");
        }
    }
}

/// A space as its owner signed it: genesis and some events, one run each.
struct Logs {
    space: SpaceId,
    genesis: Run,
    /// Runs of author 1, each going on from the one before.
    runs: Vec<Run>,
}

fn logs() -> Logs {
    let genesis = sign_genesis(&author(0), [5; 16], 1);
    let space = genesis.space();
    let mut runs = Vec::new();
    let mut base = None;
    for batch in 0..3 {
        let drafts = drafts(&format!("batch {batch}"), 4);
        let signed = sign_runs(&space, &author(1), base, drafts).expect("signed");
        base = signed.last().map(VerifiedRun::head);
        runs.extend(signed.into_iter().map(VerifiedRun::into_run));
    }
    Logs {
        space,
        genesis: genesis.into_run(),
        runs,
    }
}

fn plan(segment: Segment, authors: u64, events: u64) -> Message {
    Message::SyncPlan(SyncPlan {
        request_id: 1,
        segment,
        totals: PlanTotals {
            authors,
            events,
            payload_bytes: 10_000,
        },
        rest: PlanTotals::default(),
    })
}

fn batch(more: bool, runs: &[&Run]) -> Message {
    raw_batch(
        more,
        runs.iter().map(|run| run.as_bytes().clone()).collect(),
    )
}

fn raw_batch(more: bool, runs: Vec<Bytes>) -> Message {
    Message::SyncBatchV2(SyncBatchV2 {
        request_id: 1,
        more,
        runs,
    })
}

/// The genesis as an honest responder serves it, and then this.
fn after_genesis(logs: &Logs, messages: impl IntoIterator<Item = Message>) -> Vec<u8> {
    let honest = [plan(Segment::Owner, 1, 1), batch(true, &[&logs.genesis])];
    frames(honest.into_iter().chain(messages))
}

fn last_segment(runs: &[&Run]) -> [Message; 2] {
    let events = runs.iter().map(|run| run.event_count() as u64).sum();
    [plan(Segment::Last, 1, events), batch(false, runs)]
}

struct Outcome {
    error: SyncError,
    ending: Ending,
    stored: usize,
}

/// Lets a fresh node pull from a hostile one, then from an honest one.
async fn pull_from(space: SpaceId, trick: Trick) -> Outcome {
    let (endings, mut ended) = mpsc::unbounded_channel();
    let hostile: Endpoint = endpoint().await;
    let router = Router::builder(hostile)
        .accept(ALPN, Hostile { trick, endings })
        .spawn();
    let victim = Node::spawn().await;
    let pulled = victim.space(space);

    let result = pulled.sync_with(router.endpoint().addr()).await;
    let error = result.expect_err("refused");
    let ending = ended.recv().await.expect("ended");
    let stored = contents(&pulled).await.len();
    if stored > 0 {
        assert!(pulled.verify(|_| ()).await.expect("checked").is_sound());
    }

    // The victim goes on working with others.
    let honest = Node::spawn().await;
    let other = filled(&honest.headwater, 2, 2).await;
    let also = victim.space(other.id());
    also.sync_with(honest.addr()).await.expect("synced");
    assert_equal(&other, &also).await;
    assert_eq!(victim.headwater.metrics().panics.get(), 0);
    honest.shutdown().await;
    victim.shutdown().await;
    router.shutdown().await.expect("router");
    Outcome {
        error,
        ending,
        stored,
    }
}

fn session_error(outcome: &Outcome) -> &SessionError {
    match &outcome.error {
        SyncError::Session(error) => error,
        other => panic!("not a session's error: {other}"),
    }
}

/// Expects an error of this kind, told with this code, and only the genesis stored at most.
async fn expect_refused(
    what: &str,
    logs: &Logs,
    bytes: Vec<u8>,
    expected: Ending,
    is_expected: impl Fn(&SessionError) -> bool,
) {
    let outcome = pull_from(logs.space, Trick::Say(bytes)).await;
    let error = session_error(&outcome);
    assert!(is_expected(error), "{what}: {error:?}");
    assert_eq!(outcome.ending, expected, "{what}: {error}");
    assert_eq!(outcome.error.blame(), Blame::Peer, "{what}");
    assert!(
        outcome.stored <= 1,
        "{what}: {} events stored",
        outcome.stored
    );
}

#[tokio::test]
async fn a_wrong_signature_is_refused_before_anything_is_stored() {
    let logs = logs();
    let mut bytes = logs.runs[0].as_bytes().to_vec();
    *bytes.last_mut().expect("a signature") ^= 1;
    let forged = [
        plan(Segment::Last, 1, 4),
        raw_batch(false, vec![bytes.into()]),
    ];
    expect_refused(
        "wrong signature",
        &logs,
        after_genesis(&logs, forged),
        Ending::Closed(CloseCode::InvalidRun),
        |error| matches!(error, SessionError::InvalidRun(_)),
    )
    .await;
}

#[tokio::test]
async fn runs_of_another_space_author_or_place_are_refused() {
    let logs = logs();
    let elsewhere = sign_runs(
        &SpaceId::from_bytes([6; 32]),
        &author(1),
        None,
        drafts("elsewhere", 4),
    )
    .expect("signed")
    .remove(0)
    .into_run();
    let invalid = Ending::Closed(CloseCode::InvalidRun);

    expect_refused(
        "another space's run",
        &logs,
        after_genesis(&logs, last_segment(&[&elsewhere])),
        invalid,
        |error| matches!(error, SessionError::InvalidRun(_)),
    )
    .await;
    expect_refused(
        "a run with a gap before it",
        &logs,
        after_genesis(&logs, last_segment(&[&logs.runs[1]])),
        invalid,
        |error| {
            matches!(
                error,
                SessionError::NotContiguous {
                    expected: 1,
                    found: 5,
                    ..
                }
            )
        },
    )
    .await;
    expect_refused(
        "a run with a gap inside",
        &logs,
        after_genesis(&logs, last_segment(&[&logs.runs[0], &logs.runs[2]])),
        invalid,
        |error| {
            matches!(
                error,
                SessionError::NotContiguous {
                    expected: 5,
                    found: 9,
                    ..
                }
            )
        },
    )
    .await;
    expect_refused(
        "another author's run in the owner's segment",
        &logs,
        frames([plan(Segment::Owner, 1, 4), batch(true, &[&logs.runs[0]])]),
        invalid,
        |error| matches!(error, SessionError::RunRefused { .. }),
    )
    .await;
}

#[tokio::test]
async fn a_run_whose_prev_is_not_what_came_before_is_refused() {
    let logs = logs();
    let false_base = AuthorHead {
        seq: 4,
        id: EventId::from_bytes([3; 32]),
    };
    let other = sign_runs(
        &logs.space,
        &author(1),
        Some(false_base),
        drafts("other", 4),
    )
    .expect("signed")
    .remove(0)
    .into_run();
    let bytes = after_genesis(&logs, last_segment(&[&logs.runs[0], &other]));
    let outcome = pull_from(logs.space, Trick::SayAndEnd(bytes)).await;
    // Signed by its author, so the author forked: that is no fault of the peer, and the log
    // stays what it was. The peer's own account of the sync then never comes.
    assert!(outcome.stored <= 5, "{} stored", outcome.stored);
}

#[tokio::test]
async fn broken_promises_and_foreign_answers_are_refused() {
    let logs = logs();
    let violation = Ending::Closed(CloseCode::ProtocolViolation);
    let foreign = Message::SyncPlan(SyncPlan {
        request_id: 2,
        segment: Segment::Owner,
        totals: PlanTotals::default(),
        rest: PlanTotals::default(),
    });
    expect_refused(
        "a plan for another request",
        &logs,
        frames([foreign]),
        violation,
        |error| {
            matches!(
                error,
                SessionError::WrongRequest {
                    expected: 1,
                    found: 2
                }
            )
        },
    )
    .await;
    expect_refused(
        "a batch without a plan",
        &logs,
        frames([batch(true, &[&logs.genesis])]),
        violation,
        |error| matches!(error, SessionError::OutOfPhase { .. }),
    )
    .await;
    expect_refused(
        "an empty batch that promises more",
        &logs,
        frames([plan(Segment::Owner, 1, 1), batch(true, &[])]),
        violation,
        |error| matches!(error, SessionError::EmptyBatch),
    )
    .await;
    expect_refused(
        "more events than planned",
        &logs,
        after_genesis(
            &logs,
            [plan(Segment::Last, 1, 3), batch(false, &[&logs.runs[0]])],
        ),
        Ending::Closed(CloseCode::PlanExceeded),
        |error| matches!(error, SessionError::PlanExceeded { .. }),
    )
    .await;
    expect_refused(
        "fewer events than planned",
        &logs,
        after_genesis(
            &logs,
            [plan(Segment::Last, 1, 9), batch(false, &[&logs.runs[0]])],
        ),
        violation,
        |error| matches!(error, SessionError::PlanNotMet { .. }),
    )
    .await;
    expect_refused(
        "equal, to a node that holds nothing",
        &logs,
        frames([batch(false, &[])]),
        violation,
        |error| matches!(error, SessionError::OutOfPhase { .. }),
    )
    .await;
    expect_refused(
        "a frame that is no message",
        &logs,
        vec![0, 0, 0, 3, 1, 255, 255],
        Ending::Closed(CloseCode::Malformed),
        |error| {
            matches!(
                error,
                SessionError::Malformed(_) | SessionError::RunDecode(_)
            )
        },
    )
    .await;
    expect_refused(
        "a run that is none",
        &logs,
        frames([
            plan(Segment::Owner, 1, 1),
            raw_batch(true, vec![Bytes::from(vec![1; 100])]),
        ]),
        Ending::Closed(CloseCode::Malformed),
        |error| {
            matches!(
                error,
                SessionError::Malformed(_) | SessionError::RunDecode(_)
            )
        },
    )
    .await;
}

/// The last event of a run, and the head its author then has.
fn last_of(logs: &Logs, run: &Run) -> (EventRef, ClockEntry) {
    let ids = run.event_ids(&logs.space);
    let id = *ids.last().expect("an event");
    let (author, seq) = (run.author(), run.last_seq());
    let head = AuthorHead { seq, id };
    let entry = ClockEntry {
        author,
        head,
        forked: false,
    };
    (EventRef { author, seq, id }, entry)
}

/// The genesis, one run, and an account of both with this digest.
fn whole_history(logs: &Logs, joined_digest: HeadsDigest) -> Vec<u8> {
    let run = &logs.runs[0];
    let complete = Message::HistorySyncComplete(headwater::wire::HistorySyncComplete {
        request_id: 1,
        outcome: headwater::SyncOutcome::Complete,
        last_event: Some(last_of(logs, run).0),
        events: 5,
        stubs: 0,
        joined_digest,
        stream_generation: 1,
        cursor: None,
        receipt: None,
    });
    let served = last_segment(&[run]);
    after_genesis(logs, served.into_iter().chain([complete]))
}

#[tokio::test]
async fn a_history_that_was_cut_short_is_seen_by_its_digest() {
    let logs = logs();
    // Everything else is as an honest responder says it that holds a log more.
    let bytes = whole_history(&logs, HeadsDigest::EMPTY);
    let outcome = pull_from(logs.space, Trick::Say(bytes)).await;
    let error = session_error(&outcome);
    assert!(
        matches!(error, SessionError::DigestMismatch { .. }),
        "{error}"
    );
    // What came was signed by its authors, and stays.
    assert_eq!(outcome.stored, 5);
}

#[tokio::test]
async fn a_peer_that_goes_on_after_the_end_does_not_keep_the_sync_from_ending() {
    let logs = logs();
    let mut heads = vec![
        last_of(&logs, &logs.genesis).1,
        last_of(&logs, &logs.runs[0]).1,
    ];
    heads.sort_by_key(|entry| entry.author);
    let digest = HeadsSummary::from_entries(heads).expect("sorted").digest();
    let mut bytes = whole_history(&logs, digest);
    // One byte of another frame, and never an end.
    bytes.push(0);
    let (endings, mut ended) = mpsc::unbounded_channel();
    let trick = Trick::Say(bytes);
    let router = Router::builder(endpoint().await)
        .accept(ALPN, Hostile { trick, endings })
        .spawn();
    let mut limits = Limits::default();
    limits.ask_back_wait = Duration::from_hours(1);
    let victim = Node::build(Headwater::builder().limits(limits)).await;
    let pulled = victim.space(logs.space);

    let report = pulled.sync_with(router.endpoint().addr()).await;

    let report = report.expect("the history was whole");
    assert_eq!(report.outcome, headwater::SyncOutcome::Complete);
    assert_eq!(contents(&pulled).await.len(), 5);
    assert_eq!(ended.recv().await, Some(Ending::Finished));
    victim.shutdown().await;
    router.shutdown().await.expect("router");
}

#[tokio::test]
async fn a_responder_that_stops_in_mid_frame_ends_the_sync_and_leaves_what_was_stored() {
    let logs = logs();
    let whole = after_genesis(&logs, last_segment(&[&logs.runs[0]]));
    let cut = whole[..whole.len() - 30].to_vec();

    let ended = pull_from(logs.space, Trick::SayAndEnd(cut.clone())).await;
    assert!(
        matches!(session_error(&ended), SessionError::StreamEnded { .. }),
        "{}",
        ended.error
    );
    assert_eq!(ended.ending, Ending::Reset(CloseCode::Truncated));
    assert!(ended.stored <= 1);

    let gone = pull_from(logs.space, Trick::SayAndVanish(cut)).await;
    assert!(
        matches!(gone.error, SyncError::ConnectionLost(_)),
        "{}",
        gone.error
    );
    assert_eq!(gone.error.blame(), Blame::Transport);
    assert!(gone.stored <= 1);
}
