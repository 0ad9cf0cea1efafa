//! What becomes of a log of which not everything is accepted.

use headwater_proto::history::Appended;
use headwater_wire::{AppendError, AuthorHead, EventDraft, Grant, HeadsDigest, MemberKey, Roles};

use super::world::{Log, World, accepted};
use crate::{Bounds, Commit, LogStore};

/// Only what the owner says of writers makes them lag, and only where somebody keeps them.
pub fn bounds_lag_behind_the_owner_until_somebody_says_they_are_kept(store: &dyn LogStore) {
    let mut world = World::new(1);
    let space = world.space();
    assert_eq!(store.bounds(&space).unwrap(), None);
    store.set_bounds(&space, Bounds::Kept).unwrap();
    assert_eq!(store.bounds(&space).unwrap(), None);
    world.found(store);
    let grant = |roles| {
        let subject = MemberKey::from_bytes([5; 32]);
        EventDraft::grant(Grant::new(subject, roles), 0)
    };
    let mut says = |draft: EventDraft| {
        let run = world.owner.signed(world.owner.head(), vec![draft]);
        world.owner.runs.push(run.clone());
        let _ = store.append(&[run]).unwrap();
        store.bounds(&space).unwrap()
    };
    assert_eq!(says(grant(Roles::WRITE)), Some(Bounds::None));
    store.set_bounds(&space, Bounds::Kept).unwrap();
    assert_eq!(says(grant(Roles::READ)), Some(Bounds::Kept));
    assert_eq!(says(EventDraft::new(16, 0, "else")), Some(Bounds::Kept));
    assert_eq!(says(grant(Roles::ALL)), Some(Bounds::Due));
    store.set_bounds(&space, Bounds::Kept).unwrap();
    let fork = world.owner.fork(world.owner.head_at(2));
    let _ = store.append(&[fork]).unwrap();
    assert_eq!(store.bounds(&space).unwrap(), Some(Bounds::Due));
    world.assert_sound(store);
}

/// A space with a log of runs of 3 and 4 events.
fn seven_events(store: &dyn LogStore) -> (World, Log) {
    let world = World::new(1);
    world.found(store);
    let mut log = world.author(1);
    let runs = [log.run(3), log.run(4)];
    accepted(&store.append(&runs).unwrap());
    (world, log)
}

fn restrict(store: &dyn LogStore, world: &World, log: &Log, through: Option<u64>) -> Commit {
    let commit = store
        .restrict(&world.space(), &log.author(), through)
        .unwrap();
    let kept = store.restriction(&world.space(), &log.author()).unwrap();
    assert_eq!(kept, through);
    assert_eq!(
        (&commit.outcomes[..], &commit.forks[..]),
        (&[][..], &[][..])
    );
    commit
}

/// The visible head of a log and whether it is known to fork; `None` without an entry.
fn entry(store: &dyn LogStore, world: &World, log: &Log) -> Option<(AuthorHead, bool)> {
    let record = store.head(&world.space(), &log.author()).unwrap();
    let entry = record.map(|record| (record.entry.head, record.entry.forked));
    let listed = world.heads(store);
    let listed = listed
        .iter()
        .find(|head| head.entry.author == log.author())
        .map(|head| (head.entry.head, head.entry.forked));
    assert_eq!(entry, listed);
    world.assert_sound(store);
    entry
}

fn digest(store: &dyn LogStore, world: &World) -> HeadsDigest {
    store.summary(&world.space()).unwrap().unwrap().digest
}

fn not_accepted(log: &Log, through: Option<u64>) -> Result<Appended, AppendError> {
    let author = log.author();
    Err(AppendError::NotAccepted { author, through })
}

/// Nothing is lost by a bound.
pub fn a_bound_hides_what_lies_above_it_and_lifting_it_shows_it_again(store: &dyn LogStore) {
    let (world, log) = seven_events(store);
    let whole = digest(store, &world);
    let mut changes = 0;
    for through in [9, 7, 6, 3, 1, 5, 4] {
        let before = digest(store, &world);
        let commit = restrict(store, &world, &log, Some(through));
        let head = log.head_at(through.min(7)).unwrap();
        assert_eq!(entry(store, &world, &log), Some((head, false)));
        let event = store.event(&world.space(), &log.author(), through + 1);
        assert_eq!(event.unwrap(), None);
        let changed = digest(store, &world) != before;
        assert_eq!(commit.generations.len(), usize::from(changed));
        changes += u32::from(changed);
        let end = store.stored_end(&world.space(), &log.author()).unwrap();
        assert_eq!(end, log.head());
    }
    assert_eq!(changes, 5);
    let runs = store.read_runs(&world.space(), &[log.want(0, 7)], usize::MAX);
    let runs = runs.unwrap();
    log.assert_serves(&runs, 0, 7);
    assert_eq!((runs[1].stubs, runs[1].payload_bytes), (0, 4 * 40));
    let commit = restrict(store, &world, &log, None);
    assert_eq!(commit.generations.len(), 1);
    assert_eq!(digest(store, &world), whole);
    let runs = store.read_runs(&world.space(), &[log.want(0, 7)], usize::MAX);
    assert_eq!(runs.unwrap()[1].stubs, 0);
    assert_eq!(restrict(store, &world, &log, None), Commit::default());
}

/// A run has one signature, at its end.
pub fn a_run_above_a_bound_is_refused_and_one_that_spans_it_is_stored_whole(store: &dyn LogStore) {
    let (world, mut log) = seven_events(store);
    let (spans, above) = (log.run(4), log.run(2));
    let _ = restrict(store, &world, &log, Some(9));
    let refused = store.append(std::slice::from_ref(&above)).unwrap();
    assert_eq!(refused.outcomes, [not_accepted(&log, Some(9))]);
    let commit = store.append(std::slice::from_ref(&spans)).unwrap();
    let appended = Appended {
        author: log.author(),
        events: 2,
        payload_bytes: 80,
        head: log.head_at(9).unwrap(),
    };
    assert_eq!(commit.outcomes, [Ok(appended)]);
    let head = |seq| Some((log.head_at(seq).unwrap(), false));
    assert_eq!(entry(store, &world, &log), head(9));
    let end = store.stored_end(&world.space(), &log.author()).unwrap();
    assert_eq!(end, log.head_at(11));
    let stale = AppendError::Stale {
        author: log.author(),
        head: 9,
    };
    let outcomes = [
        (log.runs[1].clone(), Err(stale)),
        (spans, not_accepted(&log, Some(9))),
        (above.clone(), not_accepted(&log, Some(9))),
        (log.joined_above(2).unwrap(), not_accepted(&log, Some(9))),
    ];
    for (run, outcome) in outcomes {
        let commit = store.append(&[run]).unwrap();
        assert_eq!(commit.outcomes, [outcome]);
        assert_eq!(commit.generations, []);
    }
    let _ = restrict(store, &world, &log, None);
    assert_eq!(entry(store, &world, &log), head(11));
    accepted(&store.append(&[above]).unwrap());
    assert_eq!(entry(store, &world, &log), head(13));
}

/// As if nothing had ever been held of the author.
pub fn a_bound_of_nothing_takes_the_entry_away(store: &dyn LogStore) {
    let world = World::new(1);
    world.found(store);
    let mut logs: Vec<_> = (0..40).map(|number| world.author(number)).collect();
    let mut digests = vec![digest(store, &world)];
    for log in &mut logs {
        accepted(&store.append(&[log.run(2)]).unwrap());
        digests.push(digest(store, &world));
    }
    for (log, before) in logs.iter_mut().zip(&digests).rev() {
        let _ = restrict(store, &world, log, Some(0));
        assert_eq!(entry(store, &world, log), None);
        assert_eq!(digest(store, &world), *before);
        let more = log.run(1);
        let refused = store.append(&[log.runs[0].clone(), more]).unwrap();
        let outcome = not_accepted(log, None);
        assert_eq!(refused.outcomes, [outcome.clone(), outcome]);
        let stored = store.stored_end(&world.space(), &log.author()).unwrap();
        assert_eq!(stored, log.head_at(2));
    }
    let summary = store.summary(&world.space()).unwrap().unwrap();
    assert_eq!((summary.authors, summary.events), (1, 1));
    for (log, after) in logs.iter().zip(&digests[1..]) {
        let _ = restrict(store, &world, log, None);
        assert_eq!(digest(store, &world), *after);
        assert_eq!(
            entry(store, &world, log),
            log.head_at(2).map(|head| (head, false))
        );
    }
}

/// A writer may be refused before the first of its events is seen.
pub fn a_bound_is_kept_for_an_author_nothing_is_held_of(store: &dyn LogStore) {
    let world = World::new(1);
    world.found(store);
    let before = store.summary(&world.space()).unwrap();
    let mut log = world.author(1);
    let (first, second) = (log.run(3), log.run(2));
    let mut mute = world.author(2);
    let silent = mute.run(1);
    assert_eq!(restrict(store, &world, &mute, Some(0)), Commit::default());
    assert_eq!(restrict(store, &world, &log, Some(2)), Commit::default());
    assert_eq!(store.summary(&world.space()).unwrap(), before);
    let commit = store.append(&[silent.clone(), first, second]).unwrap();
    let appended = Appended {
        author: log.author(),
        events: 2,
        payload_bytes: 80,
        head: log.head_at(2).unwrap(),
    };
    let expected = [
        not_accepted(&mute, None),
        Ok(appended),
        not_accepted(&log, Some(2)),
    ];
    assert_eq!(commit.outcomes, expected);
    assert_eq!(entry(store, &world, &mute), None);
    let head = log.head_at(2).unwrap();
    assert_eq!(entry(store, &world, &log), Some((head, false)));
    // Lifted, it leaves nothing.
    let _ = restrict(store, &world, &mute, None);
    accepted(&store.append(&[silent]).unwrap());
    let head = mute.head().unwrap();
    assert_eq!(entry(store, &world, &mute), Some((head, false)));
}

/// A bound is about logs of a space.
pub fn a_bound_of_a_space_that_is_not_held_is_not_kept(store: &dyn LogStore) {
    let world = World::new(1);
    let (space, author) = (world.space(), world.author(1).author());
    let commit = store.restrict(&space, &author, Some(0)).unwrap();
    assert_eq!(commit, Commit::default());
    assert_eq!(store.restriction(&space, &author).unwrap(), None);
    assert_eq!(store.spaces().unwrap(), []);
    world.found(store);
    assert_eq!(store.restriction(&space, &author).unwrap(), None);
}

/// Each holds while the other comes and goes.
pub fn a_fork_and_a_bound_cut_at_the_lower_of_the_two(store: &dyn LogStore) {
    let (world, log) = seven_events(store);
    let head = |seq| log.head_at(seq).unwrap_or(AuthorHead::NONE);
    let _ = restrict(store, &world, &log, Some(3));
    let commit = store.cut(&log.proof(log.head_at(5))).unwrap();
    assert_eq!((commit.forks.len(), commit.generations.len()), (1, 1));
    assert_eq!(entry(store, &world, &log), Some((head(3), true)));
    let outcome = |run| store.append(&[run]).unwrap().outcomes.remove(0);
    let above = log.branch(log.head_at(3), "x");
    assert_eq!(outcome(above.clone()), not_accepted(&log, Some(3)));
    let _ = restrict(store, &world, &log, None);
    assert_eq!(entry(store, &world, &log), Some((head(5), true)));
    let _ = restrict(store, &world, &log, Some(5));
    // Both end there; the fork is proven, so it is named.
    let forked = |seq| {
        let author = log.author();
        Err(AppendError::Forked { author, seq })
    };
    assert_eq!(outcome(log.branch(log.head_at(5), "x")), forked(6));
    let _ = restrict(store, &world, &log, Some(0));
    assert_eq!(entry(store, &world, &log), None);
    let evidence = |store: &dyn LogStore| {
        let fork = store.fork(&world.space(), &log.author()).unwrap().unwrap();
        (fork.seq, fork.head, fork.evidence_events)
    };
    assert_eq!(evidence(store), (6, None, 2));
    let _ = restrict(store, &world, &log, Some(6));
    assert_eq!(outcome(above), forked(4));
    assert_eq!(entry(store, &world, &log), Some((head(3), true)));
    assert_eq!(evidence(store), (4, log.head_at(3), 4));
    let commit = restrict(store, &world, &log, None);
    assert_eq!(commit.generations, []);
    assert_eq!(entry(store, &world, &log), Some((head(3), true)));
}

/// What is stored is stored, shown or not.
pub fn a_fork_above_a_bound_is_found_where_it_is_stored(store: &dyn LogStore) {
    let (world, log) = seven_events(store);
    let _ = restrict(store, &world, &log, Some(3));
    let mut same = world.author(1);
    same.run(5);
    same.runs.push(log.branch(log.head_at(5), "x"));
    let commit = store.append(&[same.joined_above(1).unwrap()]).unwrap();
    let author = log.author();
    let forked = AppendError::Forked { author, seq: 6 };
    assert_eq!(commit.outcomes, [Err(forked)]);
    assert_eq!(commit.forks.len(), 1);
    let head = log.head_at(3).unwrap();
    assert_eq!(entry(store, &world, &log), Some((head, true)));
}

/// Whoever never heard of the author and whoever knows of the fork show the same.
pub fn a_forked_log_nothing_is_accepted_of_is_hidden_until_the_bound_is_lifted(
    store: &dyn LogStore,
) {
    let world = World::new(1);
    world.found(store);
    let unheard_of = digest(store, &world);
    let mut log = world.author(1);
    accepted(&store.append(&[log.run(3)]).unwrap());
    let _ = store.cut(&log.proof(log.head_at(2))).unwrap();
    let forked = digest(store, &world);
    let commit = restrict(store, &world, &log, Some(0));
    assert_eq!(commit.generations.len(), 1);
    assert_eq!(entry(store, &world, &log), None);
    assert_eq!(digest(store, &world), unheard_of);
    // A lower one is kept, and shows as little.
    let lower = store.cut(&log.proof(log.head_at(1))).unwrap();
    assert_eq!((lower.forks.len(), lower.generations.len()), (1, 0));
    let fork = store.fork(&world.space(), &log.author()).unwrap().unwrap();
    assert_eq!((fork.seq, fork.head), (2, None));
    let listed = store.forks(&world.space(), None, 9).unwrap();
    assert_eq!(listed, [fork]);
    let _ = restrict(store, &world, &log, None);
    let head = log.head_at(1).unwrap();
    assert_eq!(entry(store, &world, &log), Some((head, true)));
    let _ = restrict(store, &world, &log, Some(2));
    assert_eq!(entry(store, &world, &log), Some((head, true)));
    assert!(![unheard_of, forked].contains(&digest(store, &world)));
}

/// Those that show something and those that do not, in one order.
pub fn bounds_come_in_ascending_pages(store: &dyn LogStore) {
    let world = World::new(1);
    assert_eq!(store.restricted(&world.space(), None, 9).unwrap(), []);
    world.found(store);
    let mut bounded = Vec::new();
    for number in 0..30 {
        let mut log = world.author(number);
        if number % 5 > 0 {
            accepted(&store.append(&[log.run(3)]).unwrap());
        }
        let through = u64::from(number % 3);
        if number % 2 > 0 {
            let _ = restrict(store, &world, &log, Some(through));
            bounded.push(log.author());
        }
    }
    bounded.sort_unstable();
    for limit in [0, 1, 4, 15, 16] {
        let mut listed = Vec::new();
        loop {
            let after = listed.last().copied();
            let page = store.restricted(&world.space(), after, limit).unwrap();
            assert!(page.len() <= limit.max(1));
            let is_last = page.len() < limit.max(1);
            listed.extend(page);
            if is_last {
                break;
            }
        }
        assert_eq!(listed, bounded);
    }
}

/// A bound that rises lets the log go on, whatever became of the runs around it.
pub fn small_runs_are_merged_across_a_bound(store: &dyn LogStore) {
    let world = World::new(1);
    world.found(store);
    let mut log = world.author(1);
    for turn in 0..40 {
        let runs = [log.run(1), log.run(2)];
        let through = turn * 3 + 2;
        let _ = restrict(store, &world, &log, Some(through));
        accepted(&store.append(&runs).unwrap());
        let head = log.head_at(through).unwrap();
        assert_eq!(entry(store, &world, &log), Some((head, false)));
        let wants = [log.want(0, through)];
        let runs = store.read_runs(&world.space(), &wants, usize::MAX).unwrap();
        log.assert_serves(&runs, 0, through + 1);
        assert_eq!(runs.last().unwrap().stubs, 0);
    }
    let runs = store
        .read_runs(&world.space(), &[log.want(0, 120)], usize::MAX)
        .unwrap();
    assert!(runs.len() < 30, "{} runs", runs.len());
    let _ = restrict(store, &world, &log, None);
    assert_eq!(
        entry(store, &world, &log),
        log.head().map(|head| (head, false))
    );
}
