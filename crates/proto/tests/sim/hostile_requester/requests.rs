//! Requests, phases and what is answered.

use headwater_proto::{SessionError, SessionLimits, TailWant};
use headwater_wire::{
    Blame, Clock, CloseCode, Cursor, HeadsDigest, HeadsWanted, LiveLagged, Message, SyncOutcome,
    Truncation, limits::MAX_SEQ,
};

use super::{ID, NOW, Puppet, answers, chunk, entry, named, request, space};
use crate::logs::Logs;

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
    let nothing = TailWant {
        author: owner,
        above: 1,
        through: 1,
    };
    let report = vec![want(equal), nothing, want(owner)];
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
