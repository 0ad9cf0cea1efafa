//! What reading returns.

use headwater_proto::history::{HeadsPage, TailCheck, TailState};
use headwater_wire::{AuthorHead, EventId, VerifiedRun};

use super::world::{Log, World, accepted};
use crate::LogStore;

/// A space that is not held is no error.
pub fn knows_nothing_of_a_space_it_does_not_hold(store: &dyn LogStore) {
    let world = World::new(1);
    let (space, log) = (world.space(), world.author(1));
    let head = world.genesis.head();
    assert_eq!(store.spaces().unwrap(), []);
    assert_eq!(store.summary(&space).unwrap(), None);
    assert_eq!(store.head(&space, &log.author()).unwrap(), None);
    let page = HeadsPage {
        heads: Vec::new(),
        last: true,
    };
    assert_eq!(store.heads(&space, None, 10).unwrap(), page);
    let stated = [(log.author(), head)];
    assert_eq!(store.check_tails(&space, &stated).unwrap(), []);
    let runs = store.read_runs(&space, &[log.want(0, 9)], 1_000).unwrap();
    assert_eq!(runs, []);
    assert_eq!(store.event(&space, &log.author(), 1).unwrap(), None);
    let report = store.verify(&space, &mut |_| {}).unwrap();
    assert!(report.is_sound() && report.events == 0);
}

/// Spaces have an order.
pub fn lists_spaces_ascending(store: &dyn LogStore) {
    let mut expected = Vec::new();
    for number in 0..20 {
        let world = World::new(number);
        world.found(store);
        expected.push(world.space());
    }
    expected.sort_unstable();
    assert_eq!(store.spaces().unwrap(), expected);
}

/// Heads of one space only, by author, page by page.
pub fn heads_come_in_ascending_pages(store: &dyn LogStore) {
    let (world, other) = (World::new(1), World::new(2));
    let mut call = vec![other.genesis.clone(), world.genesis.clone()];
    let mut expected = vec![(world.owner.author(), world.genesis.head())];
    for number in 0..30 {
        let mut log = world.author(number);
        call.push(log.run(number as usize % 3 + 1));
        call.push(other.author(number).run(1));
        expected.extend(log.head().map(|head| (log.author(), head)));
    }
    accepted(&store.append(&call).unwrap());
    expected.sort_unstable_by_key(|(author, _)| *author);
    for limit in [1, 7, 30, 31, 32, 1_000] {
        let mut found = Vec::new();
        let mut after = None;
        loop {
            let page = store.heads(&world.space(), after, limit).unwrap();
            assert!(page.heads.len() <= limit);
            assert!(page.last || !page.heads.is_empty());
            for head in &page.heads {
                found.push((head.entry.author, head.entry.head));
                let one = store.head(&world.space(), &head.entry.author).unwrap();
                assert_eq!(one, Some(*head));
            }
            if page.last {
                break;
            }
            after = found.last().map(|(author, _)| *author);
        }
        assert_eq!(found, expected, "pages of {limit}");
    }
    // A page that is not the last is never empty.
    let page = store.heads(&world.space(), None, 0).unwrap();
    assert!(page.heads.len() == 1 && !page.last);
}

/// Each stated head is equal, forked or not comparable.
pub fn compares_stated_heads_with_the_logs_it_holds(store: &dyn LogStore) {
    let world = World::new(1);
    world.found(store);
    let mut log = world.author(1);
    let (first, second) = (log.run(300), log.run(200));
    accepted(&store.append(&[first.clone(), second]).unwrap());
    let author = log.author();
    let check = |stated: AuthorHead| {
        let checks = store
            .check_tails(&world.space(), &[(author, stated)])
            .unwrap();
        checks.first().copied()
    };
    for seq in [1, 63, 64, 65, 128, 299, 300, 301, 450, 500] {
        let held = log.head_at(seq).unwrap();
        match check(held).unwrap().state {
            TailState::Same { payload_bytes } => {
                let above = (500 - seq) * 40;
                assert!(payload_bytes >= above, "{payload_bytes} at {seq}");
                if [300, 500].contains(&seq) {
                    assert_eq!(payload_bytes, above, "at the end of a run");
                }
            }
            other => panic!("{other:?} at {seq}"),
        }
        let stated = AuthorHead {
            seq,
            id: EventId::from_bytes([9; 32]),
        };
        let state = TailState::Forked { held: held.id };
        assert_eq!(check(stated), Some(TailCheck { author, state }));
    }
    for seq in [0, 501, u64::MAX] {
        let id = EventId::from_bytes([9; 32]);
        assert_eq!(check(AuthorHead { seq, id }), None);
    }
    // Those that can be compared keep their order.
    let stranger = world.author(2).author();
    let owner = (world.owner.author(), world.genesis.head());
    let stated = [(author, first.head()), (stranger, first.head()), owner];
    let checks = store.check_tails(&world.space(), &stated).unwrap();
    let authors: Vec<_> = checks.iter().map(|check| check.author).collect();
    assert_eq!(authors, [author, owner.0]);
}

/// Founds a space and appends three runs of 300, 2 and 100 events by one author.
fn three_runs(store: &dyn LogStore) -> (World, Log, [VerifiedRun; 3]) {
    let world = World::new(1);
    world.found(store);
    let mut log = world.author(1);
    let runs = [log.run(300), log.run(2), log.run(100)];
    for run in &runs {
        accepted(&store.append(std::slice::from_ref(run)).unwrap());
    }
    (world, log, runs)
}

/// Not a byte differs from what was appended.
pub fn returns_runs_as_they_came(store: &dyn LogStore) {
    let (world, log, runs) = three_runs(store);
    let found = store
        .read_runs(&world.space(), &[log.want(0, 402)], usize::MAX)
        .unwrap();
    assert_eq!(found.len(), 3);
    for (found, run) in found.iter().zip(&runs) {
        assert_eq!(found.bytes, *run.run().as_bytes());
        assert_eq!(found.first_seq, run.first_seq());
        assert_eq!(found.last_seq, run.last_seq());
        assert_eq!(found.payload_bytes, run.run().payload_bytes());
    }
    log.assert_serves(&found, 0, 402);
}

/// A range may begin anywhere.
pub fn cuts_only_the_first_run_of_a_range(store: &dyn LogStore) {
    let (world, log, runs) = three_runs(store);
    for above in [1, 62, 63, 64, 65, 200, 299, 300, 301, 302, 303, 401] {
        let found = store
            .read_runs(&world.space(), &[log.want(above, 402)], usize::MAX)
            .unwrap();
        log.assert_serves(&found, above, 402);
        let last = found.last().unwrap();
        assert!(found.len() == 1 || last.bytes == *runs[2].run().as_bytes());
    }
    for (above, through) in [(402, 402), (402, 500), (500, 600), (7, 3)] {
        let want = log.want(above, through);
        let found = store.read_runs(&world.space(), &[want], usize::MAX);
        assert_eq!(found.unwrap(), []);
    }
}

/// A signature stands only at a run's end.
pub fn returns_a_whole_run_where_a_range_ends_inside_it(store: &dyn LogStore) {
    let (world, log, _) = three_runs(store);
    for (through, end) in [(1, 300), (300, 300), (301, 302), (350, 402), (9_999, 402)] {
        let found = store
            .read_runs(&world.space(), &[log.want(0, through)], usize::MAX)
            .unwrap();
        log.assert_serves(&found, 0, end);
    }
}

/// The caller says how much memory an answer may take.
pub fn returns_as_many_runs_as_fit_but_at_least_one(store: &dyn LogStore) {
    let (world, log, runs) = three_runs(store);
    let lens = runs.each_ref().map(|run| run.run().as_bytes().len());
    let read = |above, max_bytes| {
        let wants = [log.want(above, 402)];
        store.read_runs(&world.space(), &wants, max_bytes).unwrap()
    };
    assert_eq!(read(0, 0).len(), 1);
    assert_eq!(read(0, lens[0] + lens[1] - 1).len(), 1);
    assert_eq!(read(0, lens[0] + lens[1]).len(), 2);
    assert_eq!(read(0, lens.iter().sum()).len(), 3);
    // Whatever the room, going on from what was returned returns everything.
    for max_bytes in [0, 100, lens[2], lens[0] + 1, usize::MAX] {
        let mut found = Vec::new();
        let mut above = 0;
        while above < 402 {
            found.extend(read(above, max_bytes));
            above = found.last().map_or(0, |run| run.last_seq);
        }
        log.assert_serves(&found, 0, 402);
    }
}

/// The caller says in which order logs are served.
pub fn returns_runs_in_the_order_of_the_ranges(store: &dyn LogStore) {
    let world = World::new(1);
    world.found(store);
    let mut logs: Vec<_> = (0..5).map(|number| world.author(number)).collect();
    for log in &mut logs {
        accepted(&store.append(&[log.run(3), log.run(2)]).unwrap());
    }
    let order = [3, 0, 4, 1];
    let mut wants: Vec<_> = order.iter().map(|at| logs[*at].want(1, 5)).collect();
    wants.insert(2, world.author(77).want(0, 5));
    let found = store.read_runs(&world.space(), &wants, usize::MAX).unwrap();
    assert_eq!(found.len(), 8);
    for (runs, at) in found.chunks(2).zip(order) {
        logs[at].assert_serves(runs, 1, 5);
    }
}

/// An event has its id, its payload and all of its header.
pub fn returns_every_event_by_its_seq(store: &dyn LogStore) {
    let (world, log, _) = three_runs(store);
    for expected in log.events() {
        let seq = expected.header.seq;
        let found = store.event(&world.space(), &log.author(), seq).unwrap();
        assert_eq!(found, Some(expected));
    }
    for seq in [0, 403, u64::MAX] {
        let found = store.event(&world.space(), &log.author(), seq).unwrap();
        assert_eq!(found, None);
    }
    let genesis = store
        .event(&world.space(), &world.owner.author(), 1)
        .unwrap()
        .unwrap();
    assert_eq!(genesis.id.as_bytes(), world.space().as_bytes());
    let stranger = world.author(9).author();
    assert_eq!(store.event(&world.space(), &stranger, 1).unwrap(), None);
}

/// A check reads everything and says how far it is.
pub fn verifies_what_it_holds(store: &dyn LogStore) {
    let (world, log, runs) = three_runs(store);
    let mut last = None;
    let report = store
        .verify(&world.space(), &mut |progress| last = Some(progress))
        .unwrap();
    assert!(report.is_sound());
    assert_eq!((report.authors, report.runs, report.events), (2, 4, 403));
    assert_eq!(report.payload_bytes, 402 * 40 + 16);
    let mut run_bytes = world.genesis.run().as_bytes().len();
    run_bytes += runs
        .iter()
        .map(|run| run.run().as_bytes().len())
        .sum::<usize>();
    assert_eq!(report.run_bytes, run_bytes as u64);
    let last = last.unwrap();
    assert_eq!((last.events, last.total_events), (403, 403));
    assert_eq!((last.authors, last.total_authors), (2, 2));
    assert!(log.head().is_some());
}

/// Settling is for speed alone.
pub fn settling_changes_nothing(store: &dyn LogStore) {
    store.settle().unwrap();
    let (world, log, _) = three_runs(store);
    let before = store.summary(&world.space()).unwrap();
    store.settle().unwrap();
    store.settle().unwrap();
    assert_eq!(store.summary(&world.space()).unwrap(), before);
    let found = store
        .read_runs(&world.space(), &[log.want(0, 402)], usize::MAX)
        .unwrap();
    log.assert_serves(&found, 0, 402);
}

/// A store is one store as long as it lives.
pub fn keeps_its_id(store: &dyn LogStore) {
    let id = store.id();
    World::new(1).found(store);
    assert_eq!(store.id(), id);
    assert_ne!(id.to_bytes(), [0; 16]);
}
