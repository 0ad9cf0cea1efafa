//! Runs that came from somebody: what is missing below them, who is asked for it, and who is not blamed.

use super::*;

impl Driven {
    /// A neighbour delivers runs.
    fn hear_runs(&mut self, delivered_by: u64, claims: Vec<Claim>) {
        self.it
            .handle_runs(Some(peer(delivered_by)), claims, self.now);
    }
}

#[test]
fn what_is_missing_below_a_run_is_asked_of_who_delivered_it_and_nobody_is_blamed() {
    let mut driven = Driven::with_neighbors(2);
    driven.hear_runs(1, vec![claim(7, 9, 3)]);
    let began = driven.now;
    let mut asked = 0;
    while let Some(id) = driven
        .next_pull()
        .filter(|_| driven.since(began) < 30 * SECOND)
    {
        assert_eq!(id, peer(1));
        asked += 1;
        driven.complete(id);
    }
    let tries = AnnouncerConfig::default().relay_tries;
    assert_eq!(asked, tries);
    let status = driven.it.status();
    let counters = (
        status.missing_heads,
        status.counters.wants_dropped,
        status.counters.promises_broken,
    );
    assert_eq!(counters, (0, 1, 0));
    assert!(status.standings.iter().all(|it| it.demerits == 0));
}

#[test]
fn what_a_pull_brings_is_asked_for_once() {
    let mut driven = Driven::with_neighbors(1);
    driven.hear_runs(1, vec![claim(7, 9, 3)]);
    let id = driven.next_pull().unwrap();
    driven.it.handle_held(vec![(author(7), 9)]);
    driven.complete(id);
    assert_eq!(driven.next_pull(), None);
    assert_eq!(driven.it.status().missing_heads, 0);
}

#[test]
fn runs_above_what_nobody_holds_lead_to_pulls_in_ever_longer_pauses() {
    let mut driven = Driven::with_neighbors(1);
    let began = driven.now;
    let mut asked = 0;
    // Ten minutes of a run a second: ever higher ones, and of ever other authors.
    for n in 0..600 {
        driven.hear_runs(1, vec![claim(7, 1_000_000 + n, 3), claim(1_000 + n, 99, 0)]);
        let until = began + (n as u32 + 1) * SECOND;
        while let Some(due) = driven.it.next_timeout().filter(|due| *due <= until) {
            driven.now = driven.now.max(due);
            driven.it.handle_timeout(driven.now);
            for output in driven.outputs() {
                if let AnnouncerOutput::Pull { peer } = output {
                    asked += 1;
                    driven.complete(peer);
                }
            }
        }
        driven.now = until;
    }
    assert!((5..=16).contains(&asked), "{asked}");
    assert!(
        driven
            .it
            .status()
            .standings
            .iter()
            .all(|it| it.demerits == 0)
    );
    // What it announces itself is asked for at once all the same.
    for seq in 5..7 {
        let now = driven.now;
        driven.hear(1, vec![claim(8, seq, seq - 1)]);
        assert_eq!(driven.next_pull(), Some(peer(1)));
        assert!(driven.since(now) < SECOND, "{:?}", driven.since(now));
        driven.it.handle_held(vec![(author(8), seq)]);
        driven.complete(peer(1));
    }
}

#[test]
fn a_promise_is_not_raised_by_the_runs_that_its_maker_passes_on() {
    for runs_first in [false, true] {
        let mut driven = Driven::with_neighbors(1);
        if runs_first {
            driven.hear_runs(1, vec![claim(7, 100, 0)]);
        }
        driven.hear(1, vec![claim(7, 5, 0)]);
        if !runs_first {
            driven.hear_runs(1, vec![claim(7, 100, 0)]);
        }
        let id = driven.next_pull().unwrap();
        driven.it.handle_held(vec![(author(7), 5)]);
        driven.complete(id);
        let status = driven.it.status();
        assert_eq!(status.counters.promises_broken, 0);
        assert_eq!(status.standings[0].counters.promises_kept, 1);
    }
}

#[test]
fn a_promise_is_kept_once_and_a_failed_pull_is_one_try_whatever_runs_say_beside() {
    let mut driven = Driven::with_neighbors(1);
    driven.hear(1, vec![claim(7, 5, 0)]);
    driven.hear_runs(1, vec![claim(7, 100, 0)]);
    let attempts = AnnouncerConfig::default().max_attempts;
    for _ in 1..attempts {
        let id = driven.next_pull().unwrap();
        driven.fail(id);
        assert_eq!(driven.it.status().missing_heads, 1);
    }
    let id = driven.next_pull().unwrap();
    driven.it.handle_held(vec![(author(7), 5)]);
    driven.complete(id);
    while let Some(id) = driven.next_pull() {
        driven.complete(id);
    }
    let status = driven.it.status();
    assert_eq!(status.standings[0].counters.promises_kept, 1);
    assert_eq!(
        (status.missing_heads, status.counters.promises_broken),
        (0, 0)
    );
}

#[test]
fn runs_by_way_of_a_neighbor_that_is_not_asked_are_heard_all_the_same() {
    let mut driven = Driven::with_neighbors(1);
    driven
        .it
        .handle_runs(None, vec![claim(7, 5, 3)], driven.now);
    assert_eq!(driven.next_pull(), None);
    assert_eq!(driven.it.status().missing_heads, 0);
    driven.grow(vec![small(7, 5)]);
    assert_eq!(driven.outputs(), []);
}

#[test]
fn a_run_is_not_sent_above_what_only_its_head_tells_of() {
    let mut driven = Driven::with_neighbors(1);
    driven.grow(vec![small(7, 1)]);
    driven.outputs();
    driven.grow(vec![large(7, 2)]);
    driven.grow(vec![small(7, 3)]);
    let later: Vec<_> = driven.run_for(SECOND).into_iter().map(|o| o.1).collect();
    let head = AnnouncerOutput::Announce {
        changed: vec![author(7)],
        periodic: false,
    };
    assert_eq!(later, [head]);
}
