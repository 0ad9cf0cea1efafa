//! Completions, waits and the live part.

use core::time::Duration;

use headwater_proto::{LiveEnd, LocalClock, RequesterConfig, SessionError, Wait};
use headwater_wire::{
    AppendError, Blame, Busy, CloseCode, EventDraft, EventRef, HeadsDigest, HeadsWanted,
    HistorySyncComplete, LiveBatch, LiveLagged, Message, Segment, SyncBatchV2, SyncOutcome,
    Truncation, sign_runs,
};

use super::{
    ID, NOW, Puppet, asked_for_heads, completion, empty, news, nothing_of, notice, others, plan,
    space, totals,
};
use crate::{
    logs::{Logs, author},
    rng::Rng,
};

/// A requester that has received three events of author 2 and waits for the completion, and the
/// completion that would be right.
fn almost_done() -> (Puppet, HistorySyncComplete) {
    let (mut puppet, right) = almost_done_with(|_| {});
    puppet.apply_all().expect("planned");
    puppet.applies_at_once = true;
    (puppet, right)
}

/// The same, with nothing applied yet.
fn almost_done_with(change: impl FnOnce(&mut RequesterConfig)) -> (Puppet, HistorySyncComplete) {
    let logs = space();
    let mut puppet = Puppet::new(&logs, change);
    puppet.applies_at_once = false;
    let puppet = puppet.after([
        HeadsWanted { request_id: ID }.into(),
        nothing_of(Segment::Owner),
        plan(Segment::Last, totals(1, 3)),
        news(&logs, 2, 3),
        empty(false),
    ]);
    let head = puppet.logs.head(&author(2).id()).expect("held").entry.head;
    let mut right = completion(puppet.logs.summary().expect("held").digest);
    right.events = 3;
    right.last_event = Some(EventRef {
        author: author(2).id(),
        seq: head.seq,
        id: head.id,
    });
    (puppet, right)
}

#[test]
fn refuses_a_completion_that_contradicts_what_came() {
    let (mut puppet, right) = almost_done();
    assert_eq!(puppet.hear(right.clone()), Ok(()));
    assert_eq!(puppet.end.expect("finished").events, 3);

    let refused = |change: fn(&mut HistorySyncComplete)| {
        let (mut puppet, mut lie) = almost_done();
        change(&mut lie);
        let error = puppet.hear(lie).expect_err("a lie");
        assert_eq!(error.blame(), Blame::Peer);
        assert!(puppet.end.is_none());
        error
    };
    assert!(matches!(
        refused(|lie| lie.events = 4),
        SessionError::CompletionMismatch { unit: "events", .. }
    ));
    assert!(matches!(
        refused(|lie| lie.stubs = 1),
        SessionError::CompletionMismatch { unit: "stubs", .. }
    ));
    assert_eq!(
        refused(|lie| lie.last_event = None),
        SessionError::LastEventMismatch
    );
    let digest = refused(|lie| lie.joined_digest = HeadsDigest::EMPTY);
    assert_eq!(
        digest,
        SessionError::DigestMismatch {
            stated: HeadsDigest::EMPTY,
            computed: right.joined_digest
        }
    );
    assert_eq!(digest.close_code(), CloseCode::DigestMismatch);
    for reason in [
        |lie: &mut HistorySyncComplete| lie.outcome = SyncOutcome::Truncated(Truncation::Budget),
        |lie: &mut HistorySyncComplete| lie.outcome = SyncOutcome::Truncated(Truncation::Stubbed),
        |lie: &mut HistorySyncComplete| {
            lie.outcome = SyncOutcome::Truncated(Truncation::Forked { authors: 0 });
        },
        |lie: &mut HistorySyncComplete| {
            lie.outcome = SyncOutcome::Truncated(Truncation::NotAccepted { authors: 0 });
        },
        |lie: &mut HistorySyncComplete| {
            lie.outcome = SyncOutcome::Truncated(Truncation::OverQuota { authors: 1 });
        },
    ] {
        assert!(matches!(
            refused(reason),
            SessionError::OutcomeContradicted { .. }
        ));
    }
}

#[test]
fn refuses_a_complete_history_after_a_fork_notice() {
    let logs = space();
    let mut puppet = asked_for_heads().after([
        nothing_of(Segment::Owner),
        nothing_of(Segment::Last),
        notice(&logs, others(&logs)[1]).into(),
        empty(false),
    ]);
    let digest = logs.summary().expect("held").digest;
    let error = puppet.hear(completion(digest)).expect_err("a fork was met");
    assert!(matches!(error, SessionError::OutcomeContradicted { .. }));
}

#[test]
fn refuses_an_equal_answer_with_another_digest() {
    let mut puppet = Puppet::new(&space(), |_| {}).after([empty(false)]);
    let error = puppet.hear(completion(HeadsDigest::EMPTY));
    assert!(matches!(error, Err(SessionError::DigestMismatch { .. })));
}

#[test]
fn refuses_runs_beyond_the_budget() {
    let mut puppet = Puppet::new(&space(), |config| config.budget.events = Some(2)).after([
        HeadsWanted { request_id: ID }.into(),
        plan(Segment::Owner, totals(1, 100)),
        news(&space(), 1, 1),
    ]);
    let before = puppet.logs.events().len();
    let error = loop {
        let batch = news(&puppet.logs, 1, 1);
        if let Err(error) = puppet.hear(batch) {
            break error;
        }
    };
    assert_eq!(error, SessionError::BudgetExceeded);
    assert_eq!(puppet.logs.events().len(), before + 1);
}

#[test]
fn a_requester_without_anything_asks_for_the_owner_first() {
    let logs = space();
    let nothing = logs.nothing_of();
    let begin = || Puppet::new(&nothing, |_| {});
    // Nothing of the owner at all.
    let mut puppet = begin().after([nothing_of(Segment::Owner)]);
    let error = puppet.hear(nothing_of(Segment::Last));
    assert_eq!(error, Err(SessionError::OwnerMissing));
    // Somebody else's log in the owner's place.
    let mut puppet = begin().after([plan(Segment::Owner, totals(1, 3))]);
    let error = puppet.hear(news(&Logs::create(1), 2, 3));
    assert!(matches!(
        error,
        Err(SessionError::RunRefused {
            error: AppendError::NoGenesis { .. },
            ..
        })
    ));
    assert!(puppet.logs.events().is_empty());
}

#[test]
fn stops_at_more_authors_than_the_limit() {
    let mut puppet = Puppet::new(&space(), |config| config.limits.max_authors = 5).after([
        HeadsWanted { request_id: ID }.into(),
        nothing_of(Segment::Owner),
        plan(Segment::Last, totals(9, 90)),
    ]);
    let error = puppet
        .hear(news(&space(), 8, 1))
        .expect_err("a sixth author");
    assert_eq!(error, SessionError::TooManyAuthors { limit: 5 });
    assert_eq!(error.close_code(), CloseCode::TooManyAuthors);
}

#[test]
fn an_early_end_a_reset_and_a_busy_peer_have_their_own_errors() {
    let mut puppet = asked_for_heads();
    let error = puppet.requester.handle_stream_end().expect_err("too early");
    assert!(matches!(error, SessionError::StreamEnded { .. }));
    assert_eq!(error.blame(), Blame::Transport);
    let reset = |code| asked_for_heads().requester.handle_reset(code);
    assert_eq!(reset(1), SessionError::Reset(CloseCode::Refused));
    assert_eq!(reset(4_000), SessionError::ResetUnknown { code: 4_000 });
    let busy = Busy {
        request_id: ID,
        retry_after_ms: 250,
    };
    let retry_after = Duration::from_millis(250);
    let error = Puppet::new(&space(), |_| {}).hear(busy);
    assert_eq!(error, Err(SessionError::Busy { retry_after }));
}

#[test]
fn stops_reading_while_too_much_waits_for_the_store() {
    let mut puppet =
        Puppet::new(&space(), |config| config.limits.max_unapplied_bytes = 100).after([
            HeadsWanted { request_id: ID }.into(),
            plan(Segment::Owner, totals(1, 100)),
        ]);
    puppet.applies_at_once = false;
    let batch = news(&puppet.logs, 1, 2);
    assert!(puppet.requester.wants_message());
    puppet.hear(batch).expect("planned");
    assert!(!puppet.requester.wants_message());
    assert_eq!(puppet.hear(empty(true)), Err(SessionError::NotReady));

    let mut puppet =
        Puppet::new(&space(), |config| config.limits.max_unapplied_bytes = 100).after([
            HeadsWanted { request_id: ID }.into(),
            plan(Segment::Owner, totals(1, 100)),
        ]);
    puppet.applies_at_once = false;
    puppet.hear(news(&puppet.logs, 1, 2)).expect("planned");
    // Our own store is slow: the peer has not stalled.
    let later = NOW + Duration::from_mins(1);
    assert_eq!(puppet.requester.handle_timeout(later), Ok(()));
    for applied in std::mem::take(&mut puppet.unapplied) {
        puppet
            .requester
            .handle_applied(applied, later)
            .expect("fits");
    }
    assert!(puppet.requester.wants_message());
    assert_eq!(
        puppet.requester.next_timeout(),
        Some(later + Duration::from_secs(30))
    );
}

#[test]
fn a_silent_peer_times_out_first_soon_and_then_later() {
    let mut puppet = Puppet::new(&space(), |_| {});
    let first = NOW + Duration::from_secs(10);
    assert_eq!(puppet.requester.next_timeout(), Some(first));
    let error = puppet.requester.handle_timeout(first).expect_err("silent");
    assert!(matches!(
        error,
        SessionError::TimedOut {
            wait: Wait::FirstAnswer,
            ..
        }
    ));
    assert_eq!(error.close_code(), CloseCode::TimedOut);
    assert_eq!(puppet.requester.next_timeout(), None);

    let mut puppet = asked_for_heads();
    let stall = NOW + Duration::from_secs(30);
    assert_eq!(puppet.requester.next_timeout(), Some(stall));
    let error = puppet.requester.handle_timeout(stall);
    assert!(matches!(
        error,
        Err(SessionError::TimedOut {
            wait: Wait::Progress,
            ..
        })
    ));
}

/// A live requester whose history is complete.
fn live() -> Puppet {
    let digest = space().summary().expect("held").digest;
    let puppet = Puppet::new(&space(), |config| config.live = true);
    puppet.after([empty(false), completion(digest).into()])
}

fn as_live(batch: Message) -> Message {
    let Message::SyncBatchV2(batch) = batch else {
        unreachable!()
    };
    LiveBatch {
        request_id: ID,
        runs: batch.runs,
    }
    .into()
}

#[test]
fn live_events_are_applied_and_equal_ones_ignored() {
    let mut puppet = live();
    assert!(puppet.end.is_none());
    assert_eq!(puppet.requester.next_timeout(), None);
    let fresh = as_live(news(&puppet.logs, 3, 2));
    puppet.hear(fresh.clone()).expect("live");
    puppet.hear(fresh).expect("the same again");
    puppet.requester.handle_stream_end().expect("a normal end");
    puppet.drain().expect("done");
    let end = puppet.end.expect("finished");
    assert_eq!((end.events, end.received.events), (2, 4));
    assert_eq!(end.live, Some(LiveEnd::Closed));
}

#[test]
fn a_live_gap_an_empty_live_batch_and_a_fork_are_told_apart() {
    let empty_batch = LiveBatch {
        request_id: ID,
        runs: Vec::new(),
    };
    assert_eq!(live().hear(empty_batch), Err(SessionError::EmptyBatch));

    let mut longer = space();
    longer.write(&author(2), 2, &mut Rng::new(1));
    let error = live()
        .hear(as_live(news(&longer, 2, 1)))
        .expect_err("a gap");
    assert!(matches!(
        error,
        SessionError::RunRefused {
            error: AppendError::Gap { .. },
            ..
        }
    ));

    let mut puppet = live();
    puppet.logs.write(&author(2), 2, &mut Rng::new(1));
    let forked = news(&space(), 2, 1);
    puppet.hear(as_live(forked)).expect("nobody's fault");
    // What follows on the other branch cannot fit, and is nobody's fault either.
    let mut branch = space();
    branch.write(&author(2), 20, &mut Rng::new(8));
    let further = as_live(news(&branch, 2, 1));
    puppet.hear(further).expect("nobody's fault");
    let lagged = LiveLagged {
        request_id: ID,
        missed: 40,
    };
    puppet.hear(lagged).expect("a normal end");
    let end = puppet.end.expect("finished");
    assert_eq!(end.live, Some(LiveEnd::Lagged { missed: 40 }));
    assert_eq!(end.forks[0].author, author(2).id());
    assert_eq!(
        end.outcome,
        SyncOutcome::Truncated(Truncation::Forked { authors: 1 })
    );
}

#[test]
fn authors_that_begin_live_count_against_the_limit() {
    // Five held; a sixth fits, however often its first run comes.
    let equal = |limit| {
        let digest = space().summary().expect("held").digest;
        Puppet::new(&space(), |config| {
            config.live = true;
            config.limits.max_authors = limit;
        })
        .after([empty(false), completion(digest).into()])
    };
    // The same after a history in which heads were stated.
    let stated = |limit| {
        let (puppet, right) = almost_done_with(|config| {
            config.live = true;
            config.limits.max_authors = limit;
        });
        let mut puppet = puppet.after([right.into()]);
        puppet.applies_at_once = true;
        puppet.apply_all().expect("planned");
        puppet
    };
    for begin in [&equal as &dyn Fn(u64) -> Puppet, &stated] {
        let mut puppet = begin(6);
        let sixth = as_live(news(&space(), 8, 2));
        puppet.hear(sixth.clone()).expect("it fits");
        puppet.hear(sixth).expect("nobody new");
        let further = as_live(news(&puppet.logs, 8, 2));
        puppet.hear(further).expect("nobody new");
        let error = puppet.hear(as_live(news(&space(), 9, 1)));
        assert_eq!(error, Err(SessionError::TooManyAuthors { limit: 6 }));
        assert!(!puppet.requester.wants_message());
    }
}

/// One batch of six runs of a hundred events each, above what `space()` holds of author 2.
fn long_batch() -> Message {
    let mut runs = Vec::new();
    let mut logs = space();
    for _ in 0..6 {
        let base = logs.head(&author(2).id()).map(|record| record.entry.head);
        let drafts = (0..100).map(|n| EventDraft::new(16, n, &b""[..]));
        let signed = sign_runs(&logs.space, &author(2), base, drafts).expect("good drafts");
        for run in signed {
            runs.push(run.run().as_bytes().clone());
            logs.append(run).expect("it goes on");
        }
    }
    assert_eq!(runs.len(), 6);
    SyncBatchV2 {
        request_id: ID,
        runs,
        more: false,
    }
    .into()
}

/// Memory for two of these runs and a bit: the third is the last to be decoded.
const ROOM: usize = 25_000;

#[test]
fn decodes_no_more_of_a_batch_than_has_room_and_goes_on_with_the_stores_answers() {
    let mut puppet = Puppet::new(&space(), |config| config.limits.max_unapplied_bytes = ROOM);
    puppet.applies_at_once = false;
    let mut puppet = puppet.after([
        HeadsWanted { request_id: ID }.into(),
        nothing_of(Segment::Owner),
        plan(Segment::Last, totals(1, 600)),
        long_batch(),
    ]);
    for _ in 0..2 {
        assert_eq!(puppet.unapplied.len(), 1);
        assert_eq!(puppet.unapplied[0].len(), 3);
        assert!(!puppet.requester.wants_message());
        puppet.apply_all().expect("planned");
    }
    assert!(puppet.requester.wants_message());
    assert_eq!(
        puppet
            .logs
            .head(&author(2).id())
            .expect("held")
            .entry
            .head
            .seq,
        610
    );
}

#[test]
fn a_live_batch_cut_by_us_is_stored_to_its_end() {
    let mut puppet = Puppet::new(&space(), |config| {
        config.live = true;
        config.limits.max_unapplied_bytes = ROOM;
    });
    puppet.applies_at_once = false;
    let digest = space().summary().expect("held").digest;
    let mut puppet = puppet.after([
        empty(false),
        completion(digest).into(),
        as_live(long_batch()),
    ]);
    assert!(puppet.unapplied[0].len() <= 3);
    puppet.requester.handle_stream_end().expect("a normal end");
    puppet.apply_all().expect("live");
    assert!(puppet.end.is_none());
    puppet.apply_all().expect("live");
    let end = puppet.end.expect("finished");
    assert_eq!((end.events, end.received.events), (600, 600));
}

#[test]
fn refuses_store_answers_nobody_asked_for() {
    let mut puppet = Puppet::new(&space(), |_| {});
    let error = puppet.requester.handle_heads(puppet.logs.heads(None, 10));
    let error = error.expect_err("unasked");
    assert_eq!(error.blame(), Blame::Local);
    assert_eq!(error.close_code(), CloseCode::Internal);
    let mut puppet = Puppet::new(&space(), |_| {});
    assert!(puppet.requester.handle_applied(Vec::new(), NOW).is_err());
    assert!(matches!(puppet.logs.clock(), LocalClock::Held { .. }));
}

#[test]
fn live_messages_wait_until_the_history_is_applied() {
    let (mut puppet, right) = almost_done_with(|config| config.live = true);
    puppet.hear(right).expect("right");
    assert!(!puppet.requester.wants_message());
    let early = as_live(news(&puppet.logs, 3, 1));
    assert_eq!(puppet.hear(early), Err(SessionError::NotReady));
}
