//! A responder against requesters that break the rules, and against a store that does.

use core::time::Duration;

use headwater_proto::{
    HEADS_WINDOW_CHUNKS, HeadsPage, Responder, ResponderOutput, ServeEnd, SessionError,
    SessionLimits, TailWant, Wait,
};
use headwater_wire::{
    AuthorHead, AuthorId, Blame, Budget, Clock, ClockEntry, CloseCode, Cursor, EventId, HeadsChunk,
    HeadsDigest, HeadsWanted, LiveLagged, Message, PlanTotals, Segment, SyncFilter, SyncOutcome,
    SyncPlan, SyncRequestV2, Truncation, limits::MAX_SEQ,
};

use crate::{
    logs::{Logs, author, stored},
    rng::Rng,
};

const ID: u64 = 5;
const NOW: Duration = Duration::from_secs(100);

/// A responder whose store answers at once, and whose requester the test plays.
struct Puppet {
    responder: Responder,
    logs: Logs,
    sent: Vec<Message>,
    end: Option<ServeEnd>,
    awaits_live: bool,
}

impl Puppet {
    fn new(limits: SessionLimits) -> Self {
        Self {
            responder: Responder::new(limits, NOW),
            logs: space(),
            sent: Vec::new(),
            end: None,
            awaits_live: false,
        }
    }

    /// A responder that awaits heads.
    fn asking() -> Self {
        let mut puppet = Self::new(SessionLimits::default());
        puppet.hear(request(Clock::Heads)).expect("a request");
        puppet
    }

    fn hear(&mut self, message: impl Into<Message>) -> Result<(), SessionError> {
        self.responder.handle_message(message.into(), NOW)?;
        self.drain()
    }

    fn drain(&mut self) -> Result<(), SessionError> {
        while let Some(output) = self.responder.poll_output() {
            let responder = &mut self.responder;
            match output {
                ResponderOutput::Send(message) => self.sent.push(message),
                ResponderOutput::Open { space, .. } => {
                    let summary = self.logs.summary().filter(|held| held.space == space);
                    responder.handle_opened(summary, NOW)?;
                }
                ResponderOutput::ReadHead(author) => {
                    responder.handle_owner_head(self.logs.head(&author), NOW)?;
                }
                ResponderOutput::ReadHeads { after, limit } => {
                    responder.handle_heads(self.logs.heads(after, limit), NOW)?;
                }
                ResponderOutput::CheckTails(stated) => {
                    responder.handle_tails(self.logs.check_tails(&stated), NOW)?;
                }
                ResponderOutput::ReadRuns { wants, max_bytes } => {
                    responder.handle_runs(self.logs.read_runs(&wants, max_bytes), NOW)?;
                }
                ResponderOutput::AwaitLive => self.awaits_live = true,
                ResponderOutput::Finished(end) => self.end = Some(end),
                _ => {}
            }
        }
        Ok(())
    }
}

fn space() -> Logs {
    let mut rng = Rng::new(3);
    let mut logs = Logs::create(1);
    for n in 2..=5 {
        logs.write(&author(n), 10, &mut rng);
    }
    logs
}

fn request(clock: Clock) -> SyncRequestV2 {
    SyncRequestV2 {
        request_id: ID,
        space: space().space,
        clock,
        filter: SyncFilter::default(),
        budget: Budget::default(),
        live: false,
    }
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

fn named(byte: u8) -> AuthorId {
    AuthorId::from_bytes([byte; 32])
}

fn chunk(heads: Vec<ClockEntry>, last: bool) -> HeadsChunk {
    HeadsChunk {
        request_id: ID,
        heads,
        last,
    }
}

/// Every message that only a responder sends.
fn answers() -> Vec<Message> {
    vec![
        HeadsWanted { request_id: ID }.into(),
        SyncPlan {
            request_id: ID,
            segment: Segment::Owner,
            totals: PlanTotals::default(),
            rest: PlanTotals::default(),
        }
        .into(),
        LiveLagged {
            request_id: ID,
            missed: 1,
        }
        .into(),
    ]
}

#[test]
fn refuses_a_wrong_first_message_a_second_request_and_the_wrong_role() {
    let mut messages = answers();
    messages.push(chunk(Vec::new(), true).into());
    for message in messages {
        let mut puppet = Puppet::new(SessionLimits::default());
        let error = puppet.hear(message).expect_err("no request");
        assert!(matches!(error, SessionError::OutOfPhase { .. }), "{error}");
        assert_eq!(error.close_code(), CloseCode::ProtocolViolation);
    }
    let mut messages = answers();
    messages.push(request(Clock::Heads).into());
    for message in messages {
        let error = Puppet::asking().hear(message).expect_err("out of place");
        assert!(matches!(error, SessionError::OutOfPhase { .. }), "{error}");
        assert_eq!(error.blame(), Blame::Peer);
    }
}

#[test]
fn refuses_heads_for_another_request_and_heads_after_the_last() {
    let mut other = chunk(Vec::new(), true);
    other.request_id = 6;
    assert_eq!(
        Puppet::asking().hear(other),
        Err(SessionError::WrongRequest {
            expected: ID,
            found: 6
        })
    );
    let mut puppet = Puppet::asking();
    puppet.hear(chunk(Vec::new(), true)).expect("all heads");
    let error = puppet.hear(chunk(Vec::new(), true));
    assert!(matches!(error, Err(SessionError::OutOfPhase { .. })));
}

#[test]
fn refuses_unsorted_and_duplicate_heads_wherever_the_chunks_divide() {
    let owner = space().owner;
    let cases: [&[&[AuthorId]]; 7] = [
        &[&[named(2), named(1)]],
        &[&[named(2), named(2)]],
        &[&[named(2)], &[named(1)]],
        &[&[named(2)], &[named(2)]],
        &[&[owner, owner]],
        // The owner may stand first in the first chunk, and nowhere else.
        &[&[owner], &[owner]],
        &[&[named(0), owner]],
    ];
    for chunks in cases {
        let mut puppet = Puppet::asking();
        let mut result = Ok(());
        for heads in chunks {
            assert_eq!(result, Ok(()));
            let heads = heads.iter().map(|author| entry(*author, 1)).collect();
            result = puppet.hear(chunk(heads, false));
        }
        let error = result.expect_err("out of order");
        assert!(
            matches!(error, SessionError::UnsortedHeads { .. }),
            "{error}"
        );
        assert_eq!(error.close_code(), CloseCode::ProtocolViolation);
    }
}

#[test]
fn refuses_a_head_at_seq_0_and_above_the_highest_seq() {
    for seq in [0, MAX_SEQ + 1, u64::MAX] {
        let author = named(3);
        let result = Puppet::asking().hear(chunk(vec![entry(author, seq)], false));
        assert_eq!(result, Err(SessionError::HeadSeqOutOfRange { author, seq }));
    }
    let highest = chunk(vec![entry(named(3), MAX_SEQ)], true);
    assert_eq!(Puppet::asking().hear(highest), Ok(()));
}

#[test]
fn refuses_chunks_that_are_empty_too_long_or_too_many() {
    let empty = Puppet::asking().hear(chunk(Vec::new(), false));
    let size = |found| SessionError::HeadsChunkSize { found, max: 1_024 };
    assert_eq!(empty, Err(size(0)));

    let mut heads = Vec::new();
    for n in 0..1_025u32 {
        let mut key = [1; 32];
        key[..4].copy_from_slice(&n.to_be_bytes());
        heads.push(entry(AuthorId::from_bytes(key), 1));
    }
    let long = Puppet::asking().hear(chunk(heads.clone(), false));
    assert_eq!(long, Err(size(1_025)));

    let limits = SessionLimits {
        max_authors: 10,
        ..SessionLimits::default()
    };
    let mut puppet = Puppet::new(limits);
    puppet.hear(request(Clock::Heads)).expect("a request");
    puppet
        .hear(chunk(heads[..10].to_vec(), false))
        .expect("ten");
    let error = puppet.hear(chunk(heads[10..11].to_vec(), false));
    let error = error.expect_err("an eleventh");
    assert_eq!(error, SessionError::TooManyAuthors { limit: 10 });
    assert!(!error.close_code().is_connection_wide());

    // A requester that runs ahead of the plans: this responder's store does not answer.
    let mut responder = Responder::new(SessionLimits::default(), NOW);
    let mut hear = |message: Message| responder.handle_message(message, NOW);
    hear(request(Clock::Heads).into()).expect("a request");
    responder
        .handle_opened(space().summary(), NOW)
        .expect("held");
    let mut heads = heads.into_iter();
    let mut next = || chunk(heads.by_ref().take(1).collect(), false).into();
    for _ in 0..HEADS_WINDOW_CHUNKS {
        let taken = responder.handle_message(next(), NOW);
        taken.expect("within the window");
    }
    assert!(!responder.wants_message());
    assert_eq!(
        responder.handle_message(next(), NOW),
        Err(SessionError::HeadsWindowExceeded {
            window: HEADS_WINDOW_CHUNKS
        })
    );
}

#[test]
fn an_unknown_space_and_a_refused_one_are_answered_alike() {
    let mut unknown = request(Clock::Heads);
    unknown.space = Logs::create(9).space;
    let mut puppet = Puppet::new(SessionLimits::default());
    let error = puppet.hear(unknown).expect_err("not held");
    assert_eq!(error, SessionError::NotServed);
    assert_eq!(error.close_code(), CloseCode::Refused);
    assert!(puppet.sent.is_empty());
}

#[test]
fn filters_are_refused_by_name_and_a_cursor_falls_back_to_heads() {
    let mut filtered = request(Clock::Heads);
    filtered.filter.kinds = Some(vec![16]);
    let mut puppet = Puppet::new(SessionLimits::default());
    let error = puppet.hear(filtered).expect_err("not built yet");
    assert_eq!(error, SessionError::Unsupported { feature: "filter" });
    assert_eq!(error.close_code(), CloseCode::Unsupported);

    let cursor = Cursor {
        store: [1; 16],
        generation: 4,
        digest: HeadsDigest::EMPTY,
    };
    let mut puppet = Puppet::new(SessionLimits::default());
    let clock = Clock::Cursor {
        cursor,
        changed: Vec::new(),
    };
    puppet.hear(request(clock)).expect("a request");
    assert_eq!(puppet.sent, [HeadsWanted { request_id: ID }.into()]);
}

#[test]
fn claims_of_unheld_authors_and_of_higher_seqs_are_hints_and_no_errors() {
    let logs = space();
    let mut heads = vec![entry(named(0), 7), entry(named(255), MAX_SEQ)];
    for author in logs.authors() {
        if author != logs.owner {
            heads.push(entry(author, 4_000));
        }
    }
    heads.sort_by_key(|entry| entry.author);
    let mut puppet = Puppet::asking();
    puppet.hear(chunk(heads, true)).expect("claims");
    let end = puppet.end.expect("finished");
    assert!(end.requester_ahead);
    assert_eq!(end.outcome, SyncOutcome::Complete);
    // The owner alone was not stated.
    assert_eq!(end.served.events, 1);
}

#[test]
fn forks_are_told_before_anything_is_served_and_not_served_live() {
    let logs = space();
    let owner = logs.owner;
    let mut heads: Vec<_> = logs.authors().into_iter().map(|a| entry(a, 10)).collect();
    heads.retain(|entry| entry.author != owner);
    heads[1].head.seq = 4;
    let (equal, lower) = (heads[0].author, heads[1].author);
    let mut live = request(Clock::Heads);
    live.live = true;
    let mut puppet = Puppet::new(SessionLimits::default());
    puppet.hear(live).expect("a request");
    puppet.hear(chunk(heads, true)).expect("forks");
    let named: Vec<_> = puppet
        .sent
        .iter()
        .filter_map(|message| match message {
            Message::ForkNotice(notice) => Some(notice.author),
            _ => None,
        })
        .collect();
    assert_eq!(named.len(), 4);
    assert!(named.contains(&equal) && named.contains(&lower));
    assert!(puppet.awaits_live);

    let news = puppet.sent.len();
    let want = |author| TailWant {
        author,
        above: 0,
        through: 1,
    };
    let report = vec![want(equal), want(owner)];
    puppet.responder.handle_live(report, 0, NOW).expect("live");
    puppet.drain().expect("live");
    match &puppet.sent[news..] {
        [Message::LiveBatch(batch)] => assert_eq!(batch.runs.len(), 1),
        other => panic!("{other:?}"),
    }
    // A reader that is too slow is told, and the session ends.
    puppet
        .responder
        .handle_live(Vec::new(), 12, NOW)
        .expect("live");
    puppet.drain().expect("the end");
    let lagged = LiveLagged {
        request_id: ID,
        missed: 12,
    };
    assert_eq!(puppet.sent.last(), Some(&lagged.into()));
    let end = puppet.end.expect("finished");
    assert_eq!(
        end.outcome,
        SyncOutcome::Truncated(Truncation::Forked { authors: 4 })
    );
    assert_eq!(end.live.events, 1);
}

#[test]
fn an_early_end_of_the_stream_is_an_error_and_one_after_the_heads_is_not() {
    let mut puppet = Puppet::asking();
    let error = puppet.responder.handle_stream_end().expect_err("too early");
    assert!(matches!(error, SessionError::StreamEnded { .. }));
    assert_eq!(error.blame(), Blame::Transport);

    let mut responder = Responder::new(SessionLimits::default(), NOW);
    let mut hear = |message: Message| responder.handle_message(message, NOW);
    hear(request(Clock::Heads).into()).expect("a request");
    responder
        .handle_opened(space().summary(), NOW)
        .expect("held");
    let all = chunk(Vec::new(), true).into();
    responder.handle_message(all, NOW).expect("all heads");
    assert_eq!(responder.handle_stream_end(), Ok(()));
    let owner = space().head(&space().owner);
    assert_eq!(responder.handle_owner_head(owner, NOW), Ok(()));
}

#[test]
fn a_silent_requester_and_one_that_stops_reading_time_out() {
    let mut responder = Responder::new(SessionLimits::default(), NOW);
    let first = NOW + Duration::from_secs(10);
    assert_eq!(responder.next_timeout(), Some(first));
    let error = responder.handle_timeout(first).expect_err("silent");
    assert!(matches!(
        error,
        SessionError::TimedOut {
            wait: Wait::Request,
            ..
        }
    ));
    let mut puppet = Puppet::asking();
    let stall = NOW + Duration::from_secs(30);
    assert_eq!(puppet.responder.next_timeout(), Some(stall));
    assert!(puppet.responder.handle_timeout(stall).is_err());
    assert_eq!(puppet.responder.poll_output(), None);
}

/// A responder that waits for the runs of its first non-owner segment.
fn reading() -> (Responder, Logs, Vec<TailWant>) {
    let logs = space();
    let mut responder = Responder::new(SessionLimits::default(), NOW);
    let mut hear = |message: Message| responder.handle_message(message, NOW);
    hear(request(Clock::Heads).into()).expect("a request");
    responder.handle_opened(logs.summary(), NOW).expect("held");
    let all = chunk(Vec::new(), true).into();
    responder.handle_message(all, NOW).expect("all heads");
    let owner = logs.head(&logs.owner);
    responder.handle_owner_head(owner, NOW).expect("held");
    loop {
        match responder.poll_output() {
            Some(ResponderOutput::ReadRuns { wants, .. }) if wants.len() == 1 => {
                let runs = logs.read_runs(&wants, 10_000);
                responder.handle_runs(runs, NOW).expect("the owner");
            }
            Some(ResponderOutput::ReadHeads { after, limit }) => {
                let page = logs.heads(after, limit);
                responder.handle_heads(page, NOW).expect("a page");
            }
            Some(ResponderOutput::ReadRuns { wants, .. }) => return (responder, logs, wants),
            Some(_) => {}
            None => panic!("nothing to read"),
        }
    }
}

#[test]
fn a_store_that_answers_something_else_is_our_own_fault_and_ends_the_session() {
    let unfit = |result: Result<(), SessionError>| {
        let error = result.expect_err("unfit");
        assert!(matches!(error, SessionError::StoreAnswer { .. }), "{error}");
        assert_eq!(error.blame(), Blame::Local);
    };
    let (mut responder, ..) = reading();
    unfit(responder.handle_runs(Vec::new(), NOW));
    let (mut responder, logs, wants) = reading();
    unfit(responder.handle_runs(logs.read_runs(&wants[1..], 10), NOW));
    let (mut responder, logs, wants) = reading();
    let mut gap = stored(&logs.runs(&wants[0].author)[0]);
    gap.first_seq += 1;
    unfit(responder.handle_runs(vec![gap], NOW));
    let (mut responder, ..) = reading();
    unfit(responder.handle_tails(Vec::new(), NOW));
    let (mut responder, logs, _) = reading();
    unfit(responder.handle_heads(logs.heads(None, 5), NOW));
    let (mut responder, logs, _) = reading();
    unfit(responder.handle_opened(logs.summary(), NOW));
    let (mut responder, ..) = reading();
    unfit(responder.handle_live(Vec::new(), 0, NOW));

    // Heads out of order, and a page that neither holds any nor is the last.
    let mut backwards = logs.heads(None, 5);
    backwards.heads.reverse();
    let stuck = HeadsPage {
        heads: Vec::new(),
        last: false,
    };
    for page in [backwards, stuck] {
        let mut puppet = Puppet::asking();
        let responder = &mut puppet.responder;
        let all = chunk(Vec::new(), true).into();
        responder.handle_message(all, NOW).expect("all heads");
        let owner = logs.head(&logs.owner);
        responder.handle_owner_head(owner, NOW).expect("held");
        let owners = logs.runs(&logs.owner).iter().map(stored).collect();
        responder.handle_runs(owners, NOW).expect("the owner");
        unfit(responder.handle_heads(page, NOW));
    }
}
