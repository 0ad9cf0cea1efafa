//! Syncs between two honest sides: whatever they hold and however messages interleave, the
//! requester ends with everything, and both agree on what that is.

use headwater_proto::SessionLimits;
use headwater_wire::{Budget, EventDraft, HeadsSummary, SyncOutcome, Truncation, sign_runs};

use crate::{
    logs::{Logs, author},
    rng::{Rng, for_seeds},
    simulator::{Happening, Options, pull},
};

/// A space with up to `authors` authors besides the owner.
fn drawn(rng: &mut Rng, authors: u64, max_events: u64) -> Logs {
    let owner = rng.between(1, authors);
    let mut logs = Logs::create(owner);
    for n in 1..=authors {
        let events = rng.between(1, max_events);
        logs.write(&author(n), events, rng);
    }
    logs
}

/// A copy that lacks the ends of some logs, and some logs altogether.
fn older(rng: &mut Rng, full: &Logs) -> Logs {
    let mut copy = full.nothing_of();
    let owner = full.owner;
    let others = full.authors().into_iter().filter(|author| *author != owner);
    for author in std::iter::once(owner).chain(others) {
        let runs = full.runs(&author);
        let least = u64::from(author == owner);
        let kept = rng.between(least, runs.len() as u64) as usize;
        for run in &runs[..kept] {
            copy.append(run.clone()).expect("in order");
        }
    }
    copy
}

#[test]
fn a_cold_sync_brings_everything_in_one_round_trip() {
    for_seeds(60, |seed| {
        let mut rng = Rng::new(seed);
        let authors = rng.between(1, 12);
        let mut theirs = drawn(&mut rng, authors, 30);
        let mut ours = theirs.nothing_of();
        let options = Options::drawn(&mut rng);
        let report = pull(&mut ours, &mut theirs, &mut rng, options);
        assert_eq!(ours.events(), theirs.events());
        let end = &report.end;
        assert_eq!(end.outcome, SyncOutcome::Complete);
        assert_eq!(end.round_trips, 1);
        assert_eq!(end.events, theirs.events().len() as u64);
        assert_eq!(end.received.events, end.events);
        assert!(!end.first_digest_equal);
        let held = theirs.summary().expect("held");
        assert_eq!(end.joined_digest, held.digest);
        assert_eq!(end.stream_generation, held.generation);
        assert_eq!(end.payload_bytes, held.payload_bytes);
        assert_eq!(report.served.served.events, end.events);
        assert!(!report.served.requester_ahead);
    });
}

#[test]
fn equal_clocks_cost_one_round_trip_and_the_same_few_bytes_for_any_number_of_authors() {
    let mut sizes = Vec::new();
    for authors in [1, 3, 50, 1_500] {
        let mut rng = Rng::new(authors);
        let mut theirs = drawn(&mut rng, authors, 2);
        let mut ours = theirs.clone();
        let options = Options::drawn(&mut rng);
        let report = pull(&mut ours, &mut theirs, &mut rng, options);
        assert_eq!(report.end.outcome, SyncOutcome::Complete);
        assert_eq!((report.end.round_trips, report.end.events), (1, 0));
        assert!(report.end.first_digest_equal && report.served.first_digest_equal);
        assert_eq!((report.chunks, report.segments), (0, 0));
        sizes.push((report.request_bytes, report.answer_bytes));
    }
    for (request, answer) in &sizes {
        assert!(request.abs_diff(sizes[0].0) <= 4 && *request <= 32 + 64);
        assert!(answer.abs_diff(sizes[0].1) <= 4);
    }
}

#[test]
fn a_delta_brings_what_is_missing_and_nothing_else() {
    for_seeds(120, |seed| {
        let mut rng = Rng::new(seed);
        let authors = rng.between(1, 15);
        let mut theirs = drawn(&mut rng, authors, 30);
        let mut ours = older(&mut rng, &theirs);
        let missing = theirs.events().len() - ours.events().len();
        let options = Options::drawn(&mut rng);
        let report = pull(&mut ours, &mut theirs, &mut rng, options);
        assert_eq!(ours.events(), theirs.events());
        assert_eq!(report.end.outcome, SyncOutcome::Complete);
        assert_eq!(report.end.events, missing as u64);
        assert_eq!(report.end.received.events, missing as u64);
        assert_eq!(report.end.first_digest_equal, missing == 0);
        assert_eq!(report.end.round_trips > 1, missing > 0);
    });
}

#[test]
fn two_sides_with_different_authors_pull_from_each_other_and_end_equal() {
    for_seeds(60, |seed| {
        let mut rng = Rng::new(seed);
        let base = Logs::create(1);
        let (mut ours, mut theirs) = (base.clone(), base);
        for n in 1..=rng.between(2, 14) {
            let side = if rng.one_in(2) {
                &mut ours
            } else {
                &mut theirs
            };
            let events = rng.between(1, 20);
            side.write(&author(n), events, &mut rng);
        }
        let lacks = theirs
            .events()
            .iter()
            .any(|event| !ours.events().contains(event));
        let ahead = ours
            .events()
            .iter()
            .any(|event| !theirs.events().contains(event));
        let options = Options::drawn(&mut rng);
        let report = pull(&mut ours, &mut theirs, &mut rng, options);
        assert_eq!(report.end.outcome, SyncOutcome::Complete);
        assert_eq!(report.served.requester_ahead, ahead);
        assert_eq!(report.end.events > 0, lacks);
        let union = HeadsSummary::from_entries(ours.entries()).expect("sorted");
        assert_eq!(report.end.joined_digest, union.digest());
        let options = Options::drawn(&mut rng);
        pull(&mut theirs, &mut ours, &mut rng, options);
        assert_eq!(ours.events(), theirs.events());
    });
}

#[test]
fn a_fork_stops_its_author_only_and_both_sides_report_it() {
    for_seeds(120, |seed| {
        let mut rng = Rng::new(seed);
        let authors = rng.between(2, 10);
        let base = drawn(&mut rng, authors, 6);
        let (mut ours, mut theirs) = (base.clone(), base);
        let mut forked = Vec::new();
        for n in 1..=authors {
            let secret = author(n);
            let (left, right) = (rng.between(0, 4), rng.between(0, 4));
            if rng.one_in(3) {
                // Both sides sign for one author: different events from here on.
                ours.write(&secret, left, &mut rng);
                theirs.write(&secret, right, &mut rng);
                if left > 0 && right > 0 && left <= right {
                    forked.push(secret.id());
                }
            } else if rng.one_in(2) {
                theirs.write(&secret, right, &mut rng);
            }
        }
        forked.sort();
        let expected: Vec<_> = theirs
            .events()
            .into_iter()
            .filter(|(author, ..)| !forked.contains(author))
            .collect();
        let options = Options::drawn(&mut rng);
        let report = pull(&mut ours, &mut theirs, &mut rng, options);
        let mut reported: Vec<_> = report.end.forks.iter().map(|fork| fork.author).collect();
        reported.sort();
        assert_eq!(reported, forked);
        assert_eq!(report.served.forked_authors, forked.len() as u64);
        let outcome = match forked.len() as u64 {
            0 => SyncOutcome::Complete,
            authors => SyncOutcome::Truncated(Truncation::Forked { authors }),
        };
        assert_eq!(report.end.outcome, outcome);
        let held = ours.events();
        for event in expected {
            // Of an author who is longer here than there, both hold other events: that fork
            // shows only when the other side pulls.
            let ours_is_longer = ours.head(&event.0).is_some_and(|ours| {
                theirs
                    .head(&event.0)
                    .is_some_and(|theirs| ours.entry.head.seq > theirs.entry.head.seq)
            });
            assert!(ours_is_longer || held.contains(&event));
        }
    });
}

#[test]
fn thousands_of_authors_pass_in_chunks_and_segments() {
    for_seeds(2, |seed| {
        let mut rng = Rng::new(seed);
        let mut theirs = drawn(&mut rng, 3_000, 2);
        let mut ours = theirs.nothing_of();
        let mut options = Options::drawn(&mut rng);
        options.limits = SessionLimits::default();
        let report = pull(&mut ours, &mut theirs, &mut rng, options);
        assert_eq!(ours.events(), theirs.events());
        assert!(report.segments >= 4 && report.segments < 10);

        // Now a delta between two long clocks, which takes several chunks as well.
        for n in 1..=3_100 {
            if rng.one_in(10) {
                theirs.write(&author(n), 1, &mut rng);
            }
        }
        for n in 3_200..3_250 {
            ours.write(&author(n), 1, &mut rng);
        }
        let mut options = Options::drawn(&mut rng);
        options.limits = SessionLimits::default();
        let report = pull(&mut ours, &mut theirs, &mut rng, options);
        assert_eq!(report.end.outcome, SyncOutcome::Complete);
        assert_eq!((report.chunks, report.end.round_trips), (3, 2));
        assert!(report.segments < 12);
        assert!(report.served.requester_ahead);
        let held = ours.events();
        assert_eq!(held.len(), theirs.events().len() + 50);
    });
}

#[test]
fn more_chunks_than_the_window_holds_still_pass() {
    for_seeds(6, |seed| {
        let mut rng = Rng::new(seed);
        let mut theirs = drawn(&mut rng, 150, 2);
        let mut ours = theirs.clone();
        theirs.write(&author(75), 3, &mut rng);
        let mut options = Options::drawn(&mut rng);
        options.limits.page_heads = rng.between(2, 4) as usize;
        let report = pull(&mut ours, &mut theirs, &mut rng, options);
        assert!(report.chunks > 32);
        assert!(report.end.round_trips > 3);
        assert_eq!(ours.events(), theirs.events());
    });
}

#[test]
fn a_budget_ends_each_sync_at_a_run_and_the_next_goes_on() {
    for_seeds(60, |seed| {
        let mut rng = Rng::new(seed);
        let authors = rng.between(1, 8);
        let mut theirs = drawn(&mut rng, authors, 25);
        let mut ours = older(&mut rng, &theirs);
        let budget = match rng.one_in(2) {
            true => Budget {
                events: Some(rng.between(1, 20)),
                payload_bytes: None,
            },
            false => Budget {
                events: None,
                payload_bytes: Some(rng.between(1, 400)),
            },
        };
        for round in 0.. {
            assert!(round < 1_000, "no progress");
            let before = ours.events().len();
            let mut options = Options::drawn(&mut rng);
            options.budget = budget;
            options.live = rng.one_in(2);
            let report = pull(&mut ours, &mut theirs, &mut rng, options);
            match report.end.outcome {
                SyncOutcome::Complete => break,
                SyncOutcome::Truncated(Truncation::Budget) => {
                    assert!(ours.events().len() > before);
                }
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(ours.events(), theirs.events());
    });
}

#[test]
fn a_budget_of_nothing_brings_nothing_and_says_so() {
    let mut rng = Rng::new(1);
    let mut theirs = drawn(&mut rng, 3, 5);
    let mut ours = theirs.nothing_of();
    let mut options = Options::drawn(&mut rng);
    options.budget.events = Some(0);
    let report = pull(&mut ours, &mut theirs, &mut rng, options);
    assert_eq!(
        report.end.outcome,
        SyncOutcome::Truncated(Truncation::Budget)
    );
    assert_eq!(report.end.received.events, 0);
}

#[test]
fn events_that_arrive_while_history_is_served_come_live_or_with_it_and_never_twice() {
    for_seeds(150, |seed| {
        let mut rng = Rng::new(seed);
        let authors = rng.between(1, 8);
        let mut theirs = drawn(&mut rng, authors, 20);
        let mut ours = older(&mut rng, &theirs);
        let mut options = Options::drawn(&mut rng);
        options.live = true;
        let (mut at, mut merges) = (0, false);
        for _ in 0..rng.between(1, 12) {
            at += rng.below(20);
            // Authors the space has not seen before may begin at any time, too.
            let writer = author(rng.between(1, authors + 4));
            let happening = if seed % 2 == 0 && rng.one_in(4) {
                merges = true;
                Happening::Merged(writer.id())
            } else {
                Happening::Written(writer, rng.between(1, 4))
            };
            options.happenings.push_back((at, happening));
        }
        let report = pull(&mut ours, &mut theirs, &mut rng, options);
        assert_eq!(ours.events(), theirs.events());
        assert!(report.end.live.is_some());
        // A merged run may bring events early, which then come live once more.
        assert!(merges || report.end.received.events == report.end.events);
        assert_eq!(report.end.outcome, SyncOutcome::Complete);
    });
}

#[test]
fn runs_merged_while_they_are_served_raise_the_plan_and_the_sync_holds() {
    for_seeds(150, |seed| {
        let mut rng = Rng::new(seed);
        let authors = rng.between(1, 5);
        let mut theirs = drawn(&mut rng, authors, 20);
        let mut ours = older(&mut rng, &theirs);
        let mut options = Options::drawn(&mut rng);
        let mut at = 0;
        for _ in 0..rng.between(1, 8) {
            at += rng.below(12);
            let writer = author(rng.between(1, authors));
            let merged = Happening::Merged(writer.id());
            let events = rng.between(1, 4);
            options
                .happenings
                .push_back((at, Happening::Written(writer, events)));
            options.happenings.push_back((at, merged));
        }
        pull(&mut ours, &mut theirs, &mut rng, options);
        let options = Options::drawn(&mut rng);
        pull(&mut ours, &mut theirs, &mut rng, options);
        assert_eq!(ours.events(), theirs.events());
    });
}

#[test]
fn batches_of_any_configured_size_fit_their_frames() {
    for batch_bytes in [0, 1, usize::MAX] {
        let mut rng = Rng::new(1);
        let mut theirs = Logs::create(1);
        for n in 1..=4 {
            for _ in 0..3 {
                let base = theirs.head(&author(n).id());
                let base = base.map(|record| record.entry.head);
                let draft = EventDraft::new(16, 0, vec![7; 400_000]);
                let runs = sign_runs(&theirs.space, &author(n), base, [draft]);
                for run in runs.expect("a good draft") {
                    theirs.append(run).expect("it goes on");
                }
            }
        }
        let mut ours = theirs.nothing_of();
        let mut options = Options::drawn(&mut rng);
        options.limits.batch_bytes = batch_bytes;
        pull(&mut ours, &mut theirs, &mut rng, options);
        assert_eq!(ours.events(), theirs.events());
    }
}

#[test]
fn stubs_are_stored_counted_and_keep_the_sync_from_being_complete() {
    for_seeds(20, |seed| {
        let mut rng = Rng::new(seed);
        let full = drawn(&mut rng, 4, 12);
        let mut theirs = full.nothing_of();
        let owner = full.owner;
        let others = full.authors().into_iter().filter(|author| *author != owner);
        let mut stubs = 0;
        for author in std::iter::once(owner).chain(others) {
            for run in full.runs(&author) {
                let pruned = run
                    .run()
                    .with_stubs(|index| run.is_genesis() || index % 2 == 0);
                stubs += pruned.stub_count() as u64;
                let pruned = pruned.verify(&full.space).expect("stubs keep the ids");
                theirs.append(pruned).expect("in order");
            }
        }
        let mut ours = full.nothing_of();
        let options = Options::drawn(&mut rng);
        let report = pull(&mut ours, &mut theirs, &mut rng, options);
        assert_eq!(ours.events(), full.events());
        assert_eq!(report.end.stubs, stubs);
        let outcome = match stubs {
            0 => SyncOutcome::Complete,
            _ => SyncOutcome::Truncated(Truncation::Stubbed),
        };
        assert_eq!(report.end.outcome, outcome);
        // The heads are equal now, and that is all a first part speaks of.
        let options = Options::drawn(&mut rng);
        let again = pull(&mut ours, &mut theirs, &mut rng, options);
        assert!(again.end.first_digest_equal);
    });
}
