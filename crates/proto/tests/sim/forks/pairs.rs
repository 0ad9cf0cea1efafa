//! Two nodes with two branches of one log: both end in the same cut, the lowest there is.

use std::collections::VecDeque;

use headwater_proto::SessionLimits;
use headwater_proto::fork::{
    ForkAnswerer, ForkAsker, ForkAskerConfig, ForkLog, MAX_FORK_ROUNDS, Unstored,
};
use headwater_proto::{SessionError, Wait};
use headwater_wire::{CloseCode, SyncOutcome, Truncation};

use super::{
    branches, forker, holding, pulled,
    sides::{Answering, Asking, ID, NOW, repair},
};
use crate::{
    logs::{Logs, author},
    rng::{Rng, for_seeds},
    simulator::Options,
};

#[test]
fn two_nodes_find_the_lowest_fork_of_logs_of_any_length() {
    for_seeds(150, |seed| {
        let mut rng = Rng::new(seed);
        let space = Logs::create(1);
        let most = *rng.pick(&[3, 12, 70, 700]);
        let fork = rng.between(1, most);
        let lens = [rng.between(fork, most), rng.between(fork, most)];
        let logs = branches(&space, &[fork], &lens, &mut rng);
        let (mut ours, mut theirs) = (holding(&space, &logs[0]), holding(&space, &logs[1]));
        let author = forker().id();
        if rng.one_in(2) {
            ours.merge(&author);
        }
        let limits = Options::drawn(&mut rng).limits;
        let (end, served) = repair(&mut ours, &mut theirs, author, &limits).expect("honest");
        assert_eq!((end.fork, served.fork), (Some(fork), Some(fork)));
        assert_eq!((end.parted_at, served.parted_at), (Some(fork), Some(fork)));
        assert!(end.is_lower && served.is_lower && end.rounds < MAX_FORK_ROUNDS);
        assert_eq!(ours.entries(), theirs.entries());
        let shown = ours.head(&author).expect("known").entry.head.seq;
        assert_eq!(shown, fork - 1);
        // And nothing is left to tell.
        let report = pulled(&mut ours, &mut theirs, &mut rng);
        assert!(report.end.first_digest_equal);
    });
}

#[test]
fn what_is_above_a_quota_below_the_cut_is_not_read_to_its_end() {
    let mut rng = Rng::new(1);
    let space = Logs::create(1);
    let logs = branches(&space, &[600], &[605, 602], &mut rng);
    let author = forker().id();
    let mut theirs = holding(&space, &logs[0]);
    let limits = SessionLimits {
        batch_bytes: 1_024,
        ..SessionLimits::default()
    };
    let mut third = holding(&space, &logs[1]);
    repair(&mut third, &mut theirs, author, &limits).expect("honest");
    let mut ours = space.clone();
    ours.quota = Some(50);
    let mut asking = Asking::new(&mut ours, author, limits.clone());
    let mut answering = Answering::new(limits.clone());
    let mut down = VecDeque::new();
    while asking.end.is_none() {
        for message in asking.sent.split_off(0) {
            answering.hear(&mut theirs, message).expect("honest");
        }
        down.extend(answering.sent.drain(..));
        let message = down.pop_front().expect("it waits for nothing else");
        asking.hear(&mut ours, message).expect("honest");
    }
    let end = asking.end.expect("over");
    assert_eq!(
        (end.fork, end.unstored),
        (Some(600), Some(Unstored::OverQuota))
    );
    let stored = ours.end(&author).expect("some").seq;
    assert!(stored <= 50 && end.events == stored, "{end:?}");
    assert!(down.len() > 10, "{} batches unread", down.len());
}

#[test]
fn a_log_that_is_only_longer_is_no_fork_and_both_end_quietly() {
    for_seeds(40, |seed| {
        let mut rng = Rng::new(seed);
        let space = Logs::create(1);
        let len = rng.between(1, 90);
        let log = branches(&space, &[], &[len], &mut rng).remove(0);
        let parts = [0, 1].map(|_| rng.below(log.len() as u64 + 1) as usize);
        let [mut ours, mut theirs] = parts.map(|part| holding(&space, &log[..part]));
        let before = (ours.entries(), theirs.entries());
        let author = forker().id();
        let limits = SessionLimits::default();
        let (end, served) = repair(&mut ours, &mut theirs, author, &limits).expect("honest");
        assert_eq!((end.fork, served.fork), (None, None));
        assert_eq!((end.parted_at, end.is_lower, end.events), (None, false, 0));
        assert_eq!(before, (ours.entries(), theirs.entries()));
    });
}

#[test]
fn who_lacks_the_log_or_the_proof_is_brought_both() {
    for_seeds(60, |seed| {
        let mut rng = Rng::new(seed);
        let space = Logs::create(1);
        let fork = rng.between(1, 60);
        let lens = [rng.between(fork, 70), rng.between(fork, 70)];
        let logs = branches(&space, &[fork], &lens, &mut rng);
        let mut knows = holding(&space, &logs[0]);
        for run in &logs[1] {
            drop(knows.append(run.clone()));
        }
        let author = forker().id();
        assert_eq!(knows.fork_at(&author), Some(fork));
        let held = rng.below(logs[0].len() as u64 + 1) as usize;
        let mut lacks = holding(&space, &logs[0][..held]);
        let limits = Options::drawn(&mut rng).limits;
        if rng.one_in(2) {
            // Asked by the one who knows, the other learns of the fork, and asks back for the log.
            repair(&mut knows, &mut lacks, author, &limits).expect("honest");
            assert_eq!(lacks.fork_at(&author), Some(fork));
        }
        let (end, _) = repair(&mut lacks, &mut knows, author, &limits).expect("honest");
        assert_eq!((end.fork, end.parted_at), (Some(fork), None));
        assert_eq!(lacks.entries(), knows.entries());
    });
}

#[test]
fn a_sync_leaves_a_forked_author_out_and_the_repair_completes_it() {
    for_seeds(80, |seed| {
        let mut rng = Rng::new(seed);
        let mut space = Logs::create(1);
        for n in 2..rng.between(2, 6) {
            space.write(&author(n), 3, &mut rng);
        }
        let fork = rng.between(1, 20);
        let lens = [rng.between(fork, 30), rng.between(fork, 30)];
        let logs = branches(&space, &[fork], &lens, &mut rng);
        let (mut ours, mut theirs) = (holding(&space, &logs[0]), holding(&space, &logs[1]));
        let forker = forker().id();
        let report = pulled(&mut ours, &mut theirs, &mut rng);
        let noticed = lens[0] <= lens[1];
        assert_eq!(report.served.requester_ahead, !noticed);
        if noticed {
            let outcome = SyncOutcome::Truncated(Truncation::Forked { authors: 1 });
            assert_eq!(report.end.outcome, outcome);
            assert_eq!(report.end.forks[0].author, forker);
            assert!(report.end.forks[0].is_noticed() && report.end.forks[0].seq >= fork);
        } else {
            let report = pulled(&mut theirs, &mut ours, &mut rng);
            assert_eq!(report.end.forked_authors, 1);
        }
        let limits = SessionLimits::default();
        repair(&mut ours, &mut theirs, forker, &limits).expect("honest");
        let report = pulled(&mut ours, &mut theirs, &mut rng);
        assert!(report.end.first_digest_equal);
        // Somebody new learns it the same way.
        let mut new = space.nothing_of();
        let report = pulled(&mut new, &mut theirs, &mut rng);
        assert_eq!(report.end.forks.len(), 1);
        assert_eq!(report.end.forks[0].stated, None);
        assert!(!report.served.requester_ahead);
        repair(&mut new, &mut theirs, forker, &limits).expect("honest");
        assert_eq!(new.entries(), theirs.entries());
        // Who states a fork is asked back by whoever does not know of it.
        let mut late = holding(&space, &logs[0]);
        let report = pulled(&mut theirs, &mut late, &mut rng);
        assert!(report.served.requester_ahead);
    });
}

#[test]
fn an_owner_who_forked_is_served_to_the_cut_to_whoever_holds_nothing() {
    for_seeds(40, |seed| {
        let mut rng = Rng::new(seed);
        let space = Logs::create(1);
        let (mut theirs, mut other) = (space.clone(), space.clone());
        let shared = rng.below(5);
        theirs.write(&author(1), shared, &mut rng);
        for run in theirs.runs(&theirs.owner).to_vec() {
            drop(other.append(run));
        }
        theirs.write(&author(1), rng.between(1, 9), &mut rng);
        other.write(&author(1), rng.between(1, 9), &mut rng);
        theirs.write(&author(2), 4, &mut rng);
        if rng.one_in(2) {
            theirs.merge(&space.owner);
        }
        for run in other.runs(&space.owner) {
            drop(theirs.append(run.clone()));
        }
        assert_eq!(theirs.fork_at(&space.owner), Some(shared + 2));
        let mut new = space.nothing_of();
        let report = pulled(&mut new, &mut theirs, &mut rng);
        let outcome = SyncOutcome::Truncated(Truncation::Forked { authors: 1 });
        assert_eq!(report.end.outcome, outcome);
        assert_eq!(report.end.forks[0].author, space.owner);
        let limits = SessionLimits::default();
        repair(&mut new, &mut theirs, space.owner, &limits).expect("honest");
        assert_eq!(new.entries(), theirs.entries());
    });
}

#[test]
fn a_store_that_answers_something_else_is_our_own_fault() {
    let mut space = Logs::create(1);
    let author = forker().id();
    let limits = SessionLimits::default;
    let config = || ForkAskerConfig {
        request_id: ID,
        space: space.space,
        author,
        unwanted: None,
        limits: limits(),
    };
    let unfit = |question| Err(SessionError::StoreAnswer { question });
    let asker = || ForkAsker::new(config(), NOW);
    assert_eq!(asker().handle_chain(&[]), unfit("ReadChain"));
    assert_eq!(asker().handle_branch(None), unfit("ReadBranch"));
    assert_eq!(asker().handle_cut(ForkLog::default(), NOW), unfit("Cut"));
    assert_eq!(asker().handle_applied(&[], NOW), unfit("Apply"));
    let head = space.head(&space.owner).map(|record| record.entry.head);
    let mut stored = asker();
    let log = ForkLog {
        revoked: None,
        end: head,
        head,
        fork: None,
    };
    stored.handle_log(log.clone()).expect("asked for");
    assert_eq!(stored.handle_chain(&[None]), unfit("ReadChain"));
    let mut twice = asker();
    twice.handle_log(log.clone()).expect("asked for");
    assert_eq!(twice.handle_log(log), unfit("ReadLog"));

    let mut answerer = ForkAnswerer::new(limits(), NOW);
    assert_eq!(answerer.handle_opened(None, NOW), unfit("Open"));
    let mut answering = Answering::new(limits());
    let locator = Asking::new(&mut space, author, limits()).sent.remove(0);
    answering.hear(&mut space, locator).expect("a locator");
    assert_eq!(
        answering.machine.handle_runs(Vec::new(), NOW),
        unfit("ReadRuns")
    );
}

#[test]
fn both_wait_as_long_as_a_session_does_and_no_longer() {
    let mut logs = Logs::create(1);
    let limits = SessionLimits::default();
    let config = ForkAskerConfig {
        request_id: ID,
        space: logs.space,
        author: forker().id(),
        unwanted: None,
        limits: limits.clone(),
    };
    let mut asker = ForkAsker::new(config, NOW);
    // Our own store is slow: no fault of the peer's.
    assert_eq!(asker.next_timeout(), Some(NOW + limits.total));
    let mut asking = Asking::new(&mut logs, forker().id(), limits.clone());
    assert_eq!(
        asking.machine.next_timeout(),
        Some(NOW + limits.first_message)
    );
    assert!(matches!(
        asking.machine.handle_timeout(NOW + limits.first_message),
        Err(SessionError::TimedOut {
            wait: Wait::FirstAnswer,
            ..
        })
    ));
    assert!(asker.handle_timeout(NOW + limits.stall).is_ok());
    assert!(asker.handle_timeout(NOW + limits.total).is_err());

    let mut answerer = ForkAnswerer::new(limits.clone(), NOW);
    assert!(matches!(
        answerer.handle_timeout(NOW + limits.first_message),
        Err(SessionError::TimedOut {
            wait: Wait::Request,
            ..
        })
    ));
    let mut answering = Answering::new(limits.clone());
    let mut asking = Asking::new(&mut logs, forker().id(), limits.clone());
    answering
        .hear(&mut logs, asking.sent.remove(0))
        .expect("a locator");
    assert!(matches!(
        answering.machine.handle_timeout(NOW + limits.stall),
        Err(SessionError::TimedOut {
            wait: Wait::Progress,
            ..
        })
    ));
    let gone = asking.machine.handle_reset(CloseCode::Refused.code());
    assert_eq!(gone, SessionError::Reset(CloseCode::Refused));
    assert_eq!(asking.machine.next_timeout(), None);
}
