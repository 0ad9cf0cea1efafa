//! What becomes of a log whose author signed two events at one seq.

use headwater_proto::history::Appended;
use headwater_wire::{AppendError, AuthorHead, ClockEntry, ForkProof, VerifiedRun};

use super::world::{Log, World, accepted};
use crate::{Commit, ForkFound, ForkSummary, LogStore};

/// A space with a log of runs of 3 and 4 events.
fn seven_events(store: &dyn LogStore) -> (World, Log) {
    let world = World::new(1);
    world.found(store);
    let mut log = world.author(1);
    let runs = [log.run(3), log.run(4)];
    accepted(&store.append(&runs).unwrap());
    (world, log)
}

fn append_one(store: &dyn LogStore, run: &VerifiedRun) -> Commit {
    store.append(std::slice::from_ref(run)).unwrap()
}

/// The outcome of a run that nothing can be shown of, because its log forks at `seq`.
fn forked(log: &Log, seq: u64) -> Result<Appended, AppendError> {
    let author = log.author();
    Err(AppendError::Forked { author, seq })
}

fn found(world: &World, log: &Log, seq: u64) -> ForkFound {
    ForkFound {
        space: world.space(),
        author: log.author(),
        seq,
    }
}

/// Checks where a log is cut, that nothing above is shown, and that all of it convinces others.
#[track_caller]
fn assert_cut(store: &dyn LogStore, world: &World, log: &Log, seq: u64, head: u64, evidence: u64) {
    let (space, author) = (world.space(), log.author());
    let head = log.head_at(head);
    let record = store.head(&space, &author).unwrap().unwrap();
    let entry = ClockEntry {
        author,
        head: head.unwrap_or(AuthorHead::NONE),
        forked: true,
        revoked: headwater_wire::RevokedDigest::NONE,
    };
    assert_eq!(record.entry, entry);
    let visible = entry.head.seq;
    let fork = store.fork(&space, &author).unwrap().unwrap();
    assert_eq!((fork.author, fork.seq), (author, seq));
    assert_eq!((fork.head, fork.evidence_events), (head, evidence));
    let (one, other) = fork.proof.into_runs();
    assert_eq!(one.payload_bytes() + other.payload_bytes(), 0);
    let proof = ForkProof::new(one, other).verify(&space).unwrap();
    assert_eq!((proof.author(), proof.seq()), (author, seq));
    assert_eq!(store.event(&space, &author, visible + 1).unwrap(), None);
    let above = [log.want(visible, u64::MAX)];
    assert_eq!(store.read_runs(&space, &above, usize::MAX).unwrap(), []);
    let runs = store.read_runs(&space, &[log.want(0, u64::MAX)], usize::MAX);
    for run in runs.unwrap() {
        assert!(run.first_seq <= visible);
    }
    world.assert_sound(store);
}

/// The fork is news, the heads change, and evidence can be asked for by whoever asks for it.
pub fn a_fork_cuts_the_log_below_it_and_what_lies_above_is_kept(store: &dyn LogStore) {
    let (world, log) = seven_events(store);
    let (space, author) = (world.space(), log.author());
    let before = store.summary(&space).unwrap().unwrap();
    let other = log.branch(log.head_at(4), "xy");
    let commit = append_one(store, &other);
    assert_eq!(commit.outcomes, [forked(&log, 5)]);
    assert_eq!(commit.forks, [found(&world, &log, 5)]);
    assert_eq!(commit.generations, [(space, before.generation + 1)]);
    assert_cut(store, &world, &log, 5, 4, 3);
    let after = store.summary(&space).unwrap().unwrap();
    assert_eq!((after.authors, after.events), (2, 5));
    assert_eq!(after.payload_bytes, before.payload_bytes - 3 * 40);
    assert_ne!(after.digest, before.digest);
    // What lies above is there for whoever asks for it by name.
    assert_eq!(store.stored_end(&space, &author).unwrap(), log.head());
    let chain = store.chain(&space, &author, &[0, 1, 4, 5, 7, 8]).unwrap();
    let expected = [0, 1, 4, 5, 7, 8].map(|seq| log.head_at(seq));
    assert_eq!(chain, expected);
    for seq in 1..=7 {
        let run = store.branch(&space, &author, seq).unwrap().unwrap();
        assert_eq!((run.first_seq(), run.payload_bytes()), (seq, 0));
        let run = run.verify(&space).unwrap();
        assert_eq!(run.base(), log.head_at(seq - 1));
        assert_eq!(Some(run.head()), log.head_at(run.last_seq()));
    }
    assert_eq!(store.branch(&space, &author, 8).unwrap(), None);
    assert_eq!(store.branch(&space, &author, 0).unwrap(), None);
    // Others are as they were.
    let owner = world.owner.author();
    assert_eq!(store.fork(&space, &owner).unwrap(), None);
    let stranger = world.author(9).author();
    assert_eq!(store.chain(&space, &stranger, &[1]).unwrap(), [None]);
    assert_eq!(store.stored_end(&space, &stranger).unwrap(), None);
    assert_eq!(store.branch(&space, &stranger, 1).unwrap(), None);
}

/// At the head, below it, in the middle of a long overlap, at the first event, and behind an event
/// of another branch that is not here.
pub fn a_fork_is_found_wherever_it_shows(store: &dyn LogStore) {
    let world = World::new(1);
    world.found(store);
    let long: String = "l".repeat(600);
    let places = [1, 2, 3, 63, 64, 65, 299, 300, 301, 302, 350, 399, 400];
    for (number, seq) in (1..).zip(places) {
        let mut log = world.author(number);
        let runs = [log.run(300), log.run(2), log.run(98)];
        accepted(&store.append(&runs).unwrap());
        let base = log.head_at(seq - 1);
        let run = match number % 3 {
            // A run that begins there.
            0 => log.branch(base, "x"),
            // One that begins below, ends far above, and is equal up to there.
            1 => {
                let mut equal = world.author(number);
                let above = seq / 2;
                equal.run(usize::try_from(seq - 1).unwrap().max(1));
                if seq == 1 {
                    log.branch(None, &long)
                } else {
                    let tail = log.branch(base, &long);
                    equal.runs.push(tail);
                    equal.joined_above(above).unwrap()
                }
            }
            // One that goes on from an event this store does not have.
            _ => log.branch(Some(log.branch(base, "x").head()), "yz"),
        };
        let commit = append_one(store, &run);
        assert_eq!(commit.outcomes, [forked(&log, seq)], "{number}");
        assert_eq!(commit.forks, [found(&world, &log, seq)]);
        assert_cut(store, &world, &log, seq, seq - 1, 401 - seq);
    }
}

/// The author stays in the clock, without a head.
pub fn a_fork_at_the_first_event_leaves_an_entry_without_a_head(store: &dyn LogStore) {
    let (world, log) = seven_events(store);
    let commit = append_one(store, &log.branch(None, "x"));
    assert_eq!(commit.outcomes, [forked(&log, 1)]);
    assert_cut(store, &world, &log, 1, 0, 7);
    let summary = store.summary(&world.space()).unwrap().unwrap();
    assert_eq!((summary.authors, summary.events), (2, 1));
    assert_eq!(summary.payload_bytes, 16);
    let stated = [(log.author(), log.head_at(3).unwrap())];
    assert_eq!(store.check_tails(&world.space(), &stated).unwrap(), []);
    // Nothing of the author is taken any more, from either branch.
    for run in [log.runs[0].clone(), log.branch(None, "x")] {
        let commit = append_one(store, &run);
        assert_eq!(commit.outcomes, [forked(&log, 1)]);
        assert_eq!((commit.forks, commit.generations), (vec![], vec![]));
    }
}

/// Nothing is stored and nothing changes.
pub fn a_run_of_a_log_that_is_cut_is_stale_or_forked(store: &dyn LogStore) {
    let (world, mut log) = seven_events(store);
    let other = log.branch(log.head_at(4), "xyz");
    let _ = append_one(store, &other);
    let before = store.summary(&world.space()).unwrap();
    let author = log.author();
    let stale = || Err(AppendError::Stale { author, head: 4 });
    let runs = [
        (log.runs[0].clone(), stale()),
        (world.author(1).run(4), stale()),
        (log.runs[1].clone(), forked(&log, 5)),
        (other.clone(), forked(&log, 5)),
        (log.branch(log.head_at(4), "third"), forked(&log, 5)),
        (log.branch(log.head_at(6), "w"), forked(&log, 5)),
        (log.branch(Some(other.head()), "w"), forked(&log, 5)),
        (log.run(2), forked(&log, 5)),
    ];
    for (run, outcome) in runs {
        let commit = append_one(store, &run);
        assert_eq!(commit.outcomes, [outcome]);
        assert_eq!((commit.forks, commit.generations), (vec![], vec![]));
    }
    assert_eq!(store.summary(&world.space()).unwrap(), before);
    assert_cut(store, &world, &log, 5, 4, 3);
}

/// The lowest fork proven counts, in whatever order they come.
pub fn a_lower_fork_cuts_again_and_a_higher_one_changes_nothing(store: &dyn LogStore) {
    let (world, log) = seven_events(store);
    for (seq, cut_at) in [(7, 7), (4, 4), (6, 4), (3, 3), (4, 3), (1, 1), (2, 1)] {
        let before = store.fork(&world.space(), &log.author()).unwrap();
        let news = before.is_none_or(|before| before.seq > seq);
        let other = log.branch(log.head_at(seq - 1), "x");
        let commit = append_one(store, &other);
        assert_eq!(commit.outcomes, [forked(&log, cut_at)]);
        assert_eq!(commit.forks.len(), usize::from(news));
        assert_eq!(commit.generations.len(), usize::from(news));
        let again = store.cut(&log.proof(log.head_at(seq - 1))).unwrap();
        assert_eq!(again, Commit::default());
        assert_cut(store, &world, &log, cut_at, cut_at - 1, 8 - cut_at);
    }
}

/// Outcomes are each run's own, and a fork is named once.
pub fn a_fork_does_not_hinder_the_other_runs_of_its_call(store: &dyn LogStore) {
    let (world, log) = seven_events(store);
    let (mut one, mut two) = (world.author(2), world.author(3));
    let call = [
        one.run(2),
        log.branch(log.head_at(5), "x"),
        log.branch(log.head_at(2), "x"),
        two.run(1),
        one.run(3),
    ];
    let commit = store.append(&call).unwrap();
    let taken: Vec<_> = commit.outcomes.iter().map(Result::is_ok).collect();
    assert_eq!(taken, [true, false, false, true, true]);
    assert_eq!(commit.outcomes[1..3], [forked(&log, 6), forked(&log, 3)]);
    assert_eq!(commit.forks, [found(&world, &log, 3)]);
    assert_eq!(commit.generations.len(), 1);
    assert_cut(store, &world, &log, 3, 2, 5);
}

/// Whoever brings it, and whatever is held of the author.
pub fn a_proof_from_elsewhere_cuts_the_log(store: &dyn LogStore) {
    let (world, log) = seven_events(store);
    let space = world.space();
    let commit = store.cut(&log.proof(log.head_at(3))).unwrap();
    assert_eq!(commit.outcomes, []);
    assert_eq!(commit.forks, [found(&world, &log, 4)]);
    assert_eq!(commit.generations.len(), 1);
    assert_cut(store, &world, &log, 4, 3, 4);
    assert_eq!(
        store.cut(&log.proof(log.head_at(3))).unwrap(),
        Commit::default()
    );
    // Of this author nothing is held.
    let mut absent = world.author(2);
    absent.run(9);
    let commit = store.cut(&absent.proof(absent.head_at(5))).unwrap();
    assert_eq!(commit.forks, [found(&world, &absent, 6)]);
    assert_cut(store, &world, &absent, 6, 0, 0);
    let summary = store.summary(&space).unwrap().unwrap();
    assert_eq!((summary.authors, summary.events), (3, 4));
    // Payloads a proof brings are not kept.
    let (one, other) = (log.branch(None, "y"), log.branch(None, "z"));
    let proof = ForkProof::new(one.into_run(), other.into_run());
    let commit = store.cut(&proof.verify(&space).unwrap()).unwrap();
    assert_eq!(commit.forks, [found(&world, &log, 1)]);
    assert_cut(store, &world, &log, 1, 0, 7);
}

/// The owner's log comes before all others, proofs among them.
pub fn a_proof_of_a_space_that_is_not_held_is_not_kept(store: &dyn LogStore) {
    let world = World::new(1);
    let log = world.author(1);
    assert_eq!(store.cut(&log.proof(None)).unwrap(), Commit::default());
    assert_eq!(store.spaces().unwrap(), []);
    assert_eq!(store.fork(&world.space(), &log.author()).unwrap(), None);
    assert_eq!(store.forks(&world.space(), None, 9).unwrap(), []);
    world.found(store);
    assert_eq!(store.fork(&world.space(), &log.author()).unwrap(), None);
    world.assert_sound(store);
}

/// What is below the cut is welcome still; a run that spans it is stored whole.
pub fn a_log_cut_above_its_end_goes_on_up_to_the_cut(store: &dyn LogStore) {
    let (world, mut log) = seven_events(store);
    let (next, last) = (log.run(2), log.run(6));
    let commit = store.cut(&log.proof(log.head_at(11))).unwrap();
    assert_eq!(commit.forks, [found(&world, &log, 12)]);
    assert_cut(store, &world, &log, 12, 7, 0);
    let gap = AppendError::Gap {
        author: log.author(),
        expected: 8,
        found: 10,
    };
    assert_eq!(append_one(store, &last).outcomes, [Err(gap)]);
    assert_eq!(
        append_one(store, &log.branch(log.head_at(11), "x")).outcomes,
        [forked(&log, 12)]
    );
    let appended = |events, head| {
        Ok(Appended {
            author: log.author(),
            events,
            payload_bytes: events * 40,
            head: log.head_at(head).unwrap(),
        })
    };
    assert_eq!(append_one(store, &next).outcomes, [appended(2, 9)]);
    assert_cut(store, &world, &log, 12, 9, 0);
    let commit = append_one(store, &log.joined_above(4).unwrap());
    assert_eq!(commit.outcomes, [appended(2, 11)]);
    assert_eq!(commit.forks, []);
    assert_cut(store, &world, &log, 12, 11, 4);
    assert_eq!(append_one(store, &last).outcomes, [forked(&log, 12)]);
    // A log of which nothing is held begins like any other.
    let mut absent = world.author(2);
    let first = absent.run(3);
    let _ = store.cut(&absent.proof(absent.head_at(2))).unwrap();
    let commit = append_one(store, &first);
    let appended = Appended {
        author: absent.author(),
        events: 2,
        payload_bytes: 80,
        head: absent.head_at(2).unwrap(),
    };
    assert_eq!(commit.outcomes, [Ok(appended)]);
    assert_cut(store, &world, &absent, 3, 2, 1);
}

/// Two events before a fork are a fork.
pub fn a_proof_that_goes_on_from_another_event_proves_a_lower_fork(store: &dyn LogStore) {
    let (world, log) = seven_events(store);
    let other = log.branch(log.head_at(2), "xyz");
    let proof = log.proof(other.id_at(5).map(|id| AuthorHead { seq: 5, id }));
    assert_eq!(proof.seq(), 6);
    let commit = store.cut(&proof).unwrap();
    assert_eq!(commit.forks, [found(&world, &log, 5)]);
    assert_cut(store, &world, &log, 5, 4, 3);
    // One at the same seq as one that is held goes on from another event than it does.
    let proof = log.proof(other.id_at(4).map(|id| AuthorHead { seq: 4, id }));
    assert_eq!(proof.seq(), 5);
    let commit = store.cut(&proof).unwrap();
    assert_eq!(commit.forks, [found(&world, &log, 4)]);
    assert_cut(store, &world, &log, 4, 3, 4);
}

/// The proof came first, and speaks of another branch than the runs that come after it.
pub fn a_run_that_does_not_lead_to_the_proof_proves_a_lower_fork(store: &dyn LogStore) {
    let (world, mut log) = seven_events(store);
    let next = log.run(5);
    let far = log.branch(log.head_at(7), "vwxyz");
    let proof = log.proof(Some(far.head()));
    assert_eq!(proof.seq(), 13);
    let _ = store.cut(&proof).unwrap();
    assert_cut(store, &world, &log, 13, 7, 0);
    // What comes goes up to 12 and ends in another event: that much is shown, as far as it goes.
    let commit = append_one(store, &next);
    let appended = Appended {
        author: log.author(),
        events: 4,
        payload_bytes: 160,
        head: log.head_at(11).unwrap(),
    };
    assert_eq!(commit.outcomes, [Ok(appended)]);
    assert_eq!(commit.forks, [found(&world, &log, 12)]);
    assert_cut(store, &world, &log, 12, 11, 1);
    // A run above a gap tells as well.
    let mut absent = world.author(2);
    absent.run(9);
    let _ = store.cut(&absent.proof(absent.head_at(9))).unwrap();
    let run = absent.branch(absent.head_at(7), "xx");
    let commit = append_one(store, &run);
    let gap = AppendError::Gap {
        author: absent.author(),
        expected: 1,
        found: 8,
    };
    let outcome = commit.outcomes[0].clone();
    assert!(outcome == forked(&absent, 9) || outcome == Err(gap));
    assert_eq!(commit.forks, [found(&world, &absent, 9)]);
    assert_cut(store, &world, &absent, 9, 0, 0);
}

/// No signature stands at the cut, so the run goes out whole, as it was signed.
pub fn serves_the_run_a_cut_lies_in_whole(store: &dyn LogStore) {
    let (world, log) = seven_events(store);
    let space = world.space();
    let _ = append_one(store, &log.branch(log.head_at(5), "x"));
    for above in 0..5 {
        let runs = store
            .read_runs(&space, &[log.want(above, 5)], usize::MAX)
            .unwrap();
        log.assert_serves(&runs, above, 7);
        let last = runs.last().unwrap();
        assert_eq!(last.stubs, 0);
        assert_eq!(last.payload_bytes, 40 * (8 - last.first_seq));
    }
    // Each stated head below the cut is compared with what is visible.
    let stated = [4, 5, 6].map(|seq| (log.author(), log.head_at(seq).unwrap()));
    let checks = store.check_tails(&space, &stated).unwrap();
    assert_eq!(checks.len(), 2);
}

/// Merging neither moves a cut nor is hindered by one.
pub fn a_cut_anywhere_in_a_log_of_small_runs_leaves_what_is_below_it(store: &dyn LogStore) {
    let world = World::new(1);
    world.found(store);
    for (number, seq) in (1..).zip([1, 2, 9, 10, 11, 20, 57, 99, 100, 101, 120]) {
        let mut log = world.author(number);
        for _ in 0..60 {
            accepted(&append_one(store, &log.run(1)));
        }
        let rest: Vec<_> = (0..60).map(|_| log.run(1)).collect();
        let _ = store.cut(&log.proof(log.head_at(seq - 1))).unwrap();
        // All of them in one call, so that it is merged below and, at last, across the cut.
        let outcomes = store.append(&rest).unwrap().outcomes;
        let taken = outcomes.iter().filter(|outcome| outcome.is_ok()).count() as u64;
        assert_eq!(taken, (seq - 1).saturating_sub(60));
        let evidence = (seq - 1).max(60) + 1 - seq;
        assert_cut(store, &world, &log, seq, seq - 1, evidence);
        let runs = store.read_runs(&world.space(), &[log.want(0, seq - 1)], usize::MAX);
        let runs = runs.unwrap();
        let end = runs.last().map_or(0, |run| run.last_seq);
        assert!(end >= seq - 1);
        log.assert_serves(&runs, 0, end);
        for seq in 1..seq {
            let event = store.event(&world.space(), &log.author(), seq).unwrap();
            assert_eq!(
                event.map(|event| event.id),
                log.head_at(seq).map(|head| head.id)
            );
        }
    }
}

/// Forks of one space only, by author, page by page.
pub fn forks_come_in_ascending_pages(store: &dyn LogStore) {
    let (world, elsewhere) = (World::new(1), World::new(2));
    world.found(store);
    elsewhere.found(store);
    let mut expected = Vec::new();
    for number in 0..20 {
        let mut log = world.author(number);
        accepted(&append_one(store, &log.run(3)));
        let _ = store.cut(&elsewhere.author(number).proof(None)).unwrap();
        if number % 3 > 0 {
            let seq = u64::from(number % 3) + 1;
            let _ = store.cut(&log.proof(log.head_at(seq - 1))).unwrap();
            expected.push((log.author(), seq));
        }
    }
    expected.sort_unstable();
    for limit in [1, 5, expected.len(), 100] {
        let mut found = Vec::new();
        let mut after = None;
        loop {
            let page = store.forks(&world.space(), after, limit).unwrap();
            assert!(page.len() <= limit);
            for fork in &page {
                let one = store.fork(&world.space(), &fork.author).unwrap();
                assert_eq!(one.as_ref(), Some(fork));
                found.push((fork.author, fork.seq));
            }
            if page.len() < limit {
                break;
            }
            after = found.last().map(|(author, _)| *author);
        }
        assert_eq!(found, expected, "pages of {limit}");
    }
}

/// A fork is no fault of the store.
pub fn a_check_lists_the_forks_and_counts_what_is_visible(store: &dyn LogStore) {
    let (world, log) = seven_events(store);
    let mut other = world.author(2);
    accepted(&append_one(store, &other.run(5)));
    let forks = [
        (log.author(), log.proof(log.head_at(5)), 6, 2),
        (other.author(), other.proof(None), 1, 5),
    ];
    let mut expected = Vec::new();
    for (author, proof, seq, evidence_events) in forks {
        let _ = store.cut(&proof).unwrap();
        expected.push(ForkSummary {
            author,
            seq,
            evidence_events,
        });
    }
    expected.sort_unstable_by_key(|fork| fork.author);
    let report = store.verify(&world.space(), &mut |_| {}).unwrap();
    assert!(report.is_sound());
    assert_eq!(report.forks, expected);
    assert_eq!(report.fork_count, 2);
    assert_eq!((report.authors, report.runs, report.events), (3, 4, 6));
    assert_eq!((report.payload_bytes, report.stubs), (5 * 40 + 16, 0));
}
