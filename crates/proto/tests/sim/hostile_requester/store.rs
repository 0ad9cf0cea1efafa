//! Waits, ends of streams, and a store that does not answer as it should.

use core::time::Duration;

use headwater_proto::{
    HeadsPage, Responder, ResponderOutput, SessionError, SessionLimits, TailWant, Wait,
};
use headwater_wire::{
    AuthorHead, AuthorId, Blame, Clock, ClockEntry, CloseCode, Message, RevokedDigest,
};

use super::{NOW, Puppet, chunk, request, space};
use crate::logs::{Logs, stored};

fn entry_at(author: AuthorId, head: AuthorHead) -> ClockEntry {
    ClockEntry {
        author,
        head,
        forked: false,
        revoked: RevokedDigest::NONE,
    }
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

#[test]
fn a_requester_that_ends_its_stream_early_is_served_the_history_but_not_kept_live() {
    let mut live = request(Clock::Heads);
    live.live = true;
    let mut responder = Responder::new(SessionLimits::default(), NOW);
    responder.handle_message(live.into(), NOW).expect("first");
    let logs = space();
    responder.handle_opened(logs.summary(), NOW).expect("held");
    let all = chunk(Vec::new(), true).into();
    responder.handle_message(all, NOW).expect("all heads");
    responder.handle_stream_end().expect("nothing more to say");
    let mut puppet = Puppet {
        responder,
        logs,
        sent: Vec::new(),
        end: None,
        awaits_live: false,
    };
    // The store is asked about everything but the space, which was opened above.
    while let Some(output) = puppet.responder.poll_output() {
        if let ResponderOutput::ReadHead(author) = output {
            let head = puppet.logs.head(&author);
            puppet.responder.handle_owner_head(head, NOW).expect("held");
            break;
        }
    }
    puppet.drain().expect("served");
    assert!(!puppet.awaits_live);
    let end = puppet.end.expect("finished");
    assert_eq!(end.served.events, puppet.logs.events().len() as u64);
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
fn a_log_cut_while_it_is_served_ends_the_session_and_says_so() {
    let cut = |result: Result<(), SessionError>, of: AuthorId| {
        let error = result.expect_err("less than was planned");
        assert_eq!(error, SessionError::LogCut { author: of });
        assert_eq!(error.blame(), Blame::Local);
        assert_eq!(error.close_code(), CloseCode::LogCut);
    };
    // Nothing is left of the only log wanted, and others go on.
    let (mut responder, _, wants) = reading();
    cut(responder.handle_runs(Vec::new(), NOW), wants[0].author);
    let (mut responder, logs, wants) = reading();
    let others = logs.read_runs(&wants[1..], 10);
    cut(responder.handle_runs(others, NOW), wants[0].author);

    // It is cut between the reading of its head and the comparison with the one stated.
    let logs = space();
    let mut stated = Vec::new();
    for author in logs.authors() {
        let first = logs.chain(&author, &[1])[0].expect("held");
        stated.push(entry_at(author, first));
    }
    let at = stated.iter().position(|entry| entry.author == logs.owner);
    let owner = stated.remove(at.expect("the owner"));
    stated.insert(0, owner);
    let mut responder = Responder::new(SessionLimits::default(), NOW);
    let mut hear = |message: Message| responder.handle_message(message, NOW);
    hear(request(Clock::Heads).into()).expect("a request");
    responder.handle_opened(logs.summary(), NOW).expect("held");
    let all = chunk(stated, true).into();
    responder.handle_message(all, NOW).expect("all heads");
    let owner = logs.head(&logs.owner);
    responder.handle_owner_head(owner, NOW).expect("held");
    loop {
        match responder.poll_output().expect("it compares") {
            ResponderOutput::ReadHeads { after, limit } => {
                let page = logs.heads(after, limit);
                responder.handle_heads(page, NOW).expect("a page");
            }
            ResponderOutput::ReadRuns { wants, .. } => {
                let runs = logs.read_runs(&wants, 10_000);
                responder.handle_runs(runs, NOW).expect("the owner");
            }
            ResponderOutput::CheckTails(checks) if checks.len() == 1 => {
                let answers = logs.check_tails(&checks);
                responder.handle_tails(answers, NOW).expect("the owner");
            }
            ResponderOutput::CheckTails(checks) => {
                let answers = logs.check_tails(&checks[1..]);
                cut(responder.handle_tails(answers, NOW), checks[0].0);
                return;
            }
            _ => {}
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
