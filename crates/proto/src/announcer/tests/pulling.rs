//! Who is pulled from, and what follows from how it ended.

use super::*;

fn synced(provider: u64, still_pending: u64) -> AnnouncerOutput {
    AnnouncerOutput::HistorySynced {
        provider: peer(provider),
        still_pending,
    }
}

/// Pulls bring what `seqs` says, as (author, seq).
fn brings(seqs: &[(u64, u64)]) -> impl FnMut(&mut Driven, PeerId) -> PullEnded {
    let held: Vec<_> = seqs.iter().map(|(n, seq)| (author(*n), *seq)).collect();
    move |driven, _| {
        driven.it.handle_held(held.clone());
        driven.nothing_new()
    }
}

fn pulled(outputs: &[(Duration, AnnouncerOutput)]) -> Vec<PeerId> {
    let pulls = outputs.iter().filter_map(|(_, output)| match output {
        AnnouncerOutput::Pull { peer } => Some(*peer),
        _ => None,
    });
    pulls.collect()
}

#[test]
fn the_first_neighbor_is_caught_up_with_and_the_others_are_compared_with() {
    let mut driven = Driven::alone(AnnouncerConfig::default(), 1);
    for neighbor in 1..=3 {
        driven.it.handle_neighbor_up(peer(neighbor), driven.now);
    }
    let began = driven.now;
    let first = driven.next_pull().unwrap();
    assert!(driven.since(began) < 200 * MS);
    driven.complete(first);
    let AnnouncerOutput::HistorySynced { still_pending, .. } = driven.outputs()[0] else {
        panic!("the history of the first is here");
    };
    assert_eq!(still_pending, 2);
    let others = driven.pulls(|driven, _| driven.nothing_new());
    assert_eq!(others.len(), 2);
    assert!(!others.contains(&first));
    assert_eq!(driven.it.status().unsettled_neighbors, 0);
}

#[test]
fn a_neighbor_whose_digest_is_ours_or_was_needs_no_pull() {
    let mut driven = Driven::with_neighbors(1);
    let before = driven.ours();
    driven.grow(vec![small(7, 1)]);
    driven.outputs();
    driven.it.handle_neighbor_up(peer(2), driven.now);
    driven.it.handle_neighbor_up(peer(3), driven.now);
    driven.hear_digest(2, 2, driven.ours());
    assert_eq!(driven.outputs(), [synced(2, 1)]);
    driven.hear_digest(3, 3, before);
    driven.hear_digest(3, 3, before);
    assert_eq!(driven.outputs(), [synced(3, 0)], "once");
    assert_eq!(driven.pulls(|driven, _| driven.nothing_new()), []);
}

#[test]
fn a_neighbor_that_comes_back_is_compared_with_again_and_isolation_ends_in_a_catch_up() {
    let mut driven = Driven::with_neighbors(2);
    driven.it.handle_neighbor_down(peer(2), driven.now);
    driven.it.handle_neighbor_down(peer(2), driven.now);
    driven.it.handle_neighbor_up(peer(2), driven.now);
    driven.it.handle_neighbor_up(peer(2), driven.now);
    let again = driven.pulls(|driven, _| driven.nothing_new());
    assert_eq!(again, [peer(2)]);

    driven.it.handle_neighbor_down(peer(1), driven.now);
    driven.it.handle_neighbor_down(peer(2), driven.now);
    assert_eq!(driven.it.status().interval, None);
    assert_eq!(driven.it.next_timeout(), None);
    driven.it.handle_neighbor_up(peer(5), driven.now);
    let began = driven.now;
    assert_eq!(driven.next_pull(), Some(peer(5)));
    assert!(driven.since(began) < 200 * MS);
}

#[test]
fn a_catch_up_that_fails_goes_on_with_the_next_neighbor_at_once() {
    let mut driven = Driven::alone(AnnouncerConfig::default(), 3);
    for neighbor in 1..=3 {
        driven.it.handle_neighbor_up(peer(neighbor), driven.now);
    }
    let first = driven.next_pull().unwrap();
    let began = driven.now;
    driven.fail(first);
    let second = driven.next_pull().unwrap();
    assert_ne!(first, second);
    assert_eq!(driven.now, began);
    driven.complete(second);
    assert!(matches!(
        driven.outputs()[..],
        [AnnouncerOutput::HistorySynced { provider, .. }] if provider == second
    ));
}

#[test]
fn an_announced_head_that_is_missing_becomes_a_pull_after_a_random_wait() {
    let mut waits = Vec::new();
    for seed in 0..50 {
        let mut driven = Driven::settled(AnnouncerConfig::default(), seed, 3);
        let began = driven.now;
        driven.hear(2, vec![claim(7, 5, 4), claim(8, 3, 3), claim(9, 1, 2)]);
        assert_eq!(driven.it.status().missing_heads, 1);
        assert_eq!(driven.it.wanted(peer(2)), [author(7)]);
        assert_eq!(driven.next_pull(), Some(peer(2)));
        waits.push(driven.since(began));
        driven.it.handle_held(vec![(author(7), 5)]);
        driven.complete(peer(2));
        assert_eq!(driven.outputs(), [synced(2, 0)]);
        assert_eq!(driven.it.status().missing_heads, 0);
    }
    assert!(waits.iter().all(|wait| *wait < 200 * MS));
    assert!(waits.iter().any(|wait| *wait < 50 * MS));
    assert!(waits.iter().any(|wait| *wait > 150 * MS));
}

#[test]
fn what_arrives_before_the_wait_is_over_is_not_pulled() {
    let mut driven = Driven::with_neighbors(3);
    driven.hear(2, vec![claim(7, 5, 0)]);
    driven.hear(3, vec![claim(7, 5, 5)]);
    driven.grow(vec![small(7, 5)]);
    assert_eq!(driven.run_for(SECOND), []);
}

#[test]
fn one_pull_at_a_time_serves_all_that_was_announced() {
    let mut driven = Driven::with_neighbors(3);
    for neighbor in 1..=3 {
        driven.hear(neighbor, vec![claim(7, 5, 0), claim(8, 2, 0)]);
    }
    driven.next_pull().unwrap();
    assert_eq!(driven.it.status().pulls.len(), 1);
    assert_eq!(pulled(&driven.run_for(9 * SECOND)), [], "until it ends");
    let under_way = driven.it.status().pulls[0];
    driven.it.handle_held(vec![(author(7), 5), (author(8), 2)]);
    driven.complete(under_way);
    assert_eq!(driven.pulls(brings(&[])), [], "nothing is left to ask for");
}

#[test]
fn a_head_from_far_away_is_asked_of_the_neighbor_that_relayed_it_until_it_has_it() {
    let mut driven = Driven::with_neighbors(3);
    driven.hear_by(50, 2, vec![claim(7, 5, 0)]);
    let mut left = 3;
    let asked = driven.pulls(|driven, _| {
        left -= 1;
        if left == 0 {
            driven.it.handle_held(vec![(author(7), 5)]);
        }
        driven.nothing_new()
    });
    assert_eq!(asked, [peer(2); 3]);
    assert_eq!(driven.it.status().counters.promises_broken, 0);
}

#[test]
fn a_relay_that_never_has_it_is_passed_over_for_the_sender() {
    let mut driven = Driven::with_neighbors(3);
    driven.hear_by(50, 2, vec![claim(7, 5, 0)]);
    let asked = driven.pulls(|driven, id| {
        if id == peer(50) {
            driven.it.handle_held(vec![(author(7), 5)]);
        }
        driven.nothing_new()
    });
    assert_eq!(asked[..6], [peer(2); 6]);
    assert_eq!(asked[6..], [peer(50)]);
    assert_eq!(driven.it.status().missing_heads, 0);
}

#[test]
fn a_failed_pull_backs_off_twice_as_long_each_time_and_never_longer_than_the_cap() {
    let config = AnnouncerConfig {
        max_attempts: u32::MAX,
        backoff_cap: 20 * SECOND,
        ..AnnouncerConfig::default()
    };
    let mut driven = Driven::settled(config, 5, 1);
    driven.hear(1, vec![claim(7, 5, 0)]);
    driven.next_pull().unwrap();
    for longest in [1, 2, 4, 8, 16, 20, 20].map(|seconds| seconds * SECOND) {
        driven.fail(peer(1));
        let rests = driven.it.status().backed_off[0]
            .1
            .saturating_sub(driven.now);
        assert!((longest / 2..longest).contains(&rests), "{rests:?}");
        let began = driven.now;
        assert_eq!(driven.next_pull(), Some(peer(1)));
        assert!(driven.since(began) >= rests);
    }
    driven.it.handle_held(vec![(author(7), 5)]);
    driven.complete(peer(1));
    assert_eq!(driven.it.status().backed_off, []);
}

#[test]
fn a_failed_pull_fails_over_to_the_next_provider_at_once() {
    let mut driven = Driven::with_neighbors(2);
    driven.hear(1, vec![claim(7, 5, 0)]);
    driven.hear(2, vec![claim(7, 5, 0)]);
    let first = driven.next_pull().unwrap();
    driven.run_for(SECOND);
    let began = driven.now;
    driven.fail(first);
    let second = driven.next_pull().unwrap();
    assert_ne!(first, second);
    assert_eq!(driven.now, began);
}

#[test]
fn a_pull_that_stalls_fails_over_to_the_next_provider_and_may_still_end_well() {
    for seed in 0..20 {
        let mut driven = Driven::settled(AnnouncerConfig::default(), seed, 3);
        driven.hear(1, vec![claim(7, 5, 0)]);
        driven.hear(2, vec![claim(7, 5, 0)]);
        let first = driven.next_pull().unwrap();
        let began = driven.now;
        let second = driven.next_pull().unwrap();
        assert_ne!(first, second);
        assert_eq!(driven.since(began), 10 * SECOND);
        assert_eq!(driven.it.status().pulls, [peer(1), peer(2)]);

        driven.it.handle_held(vec![(author(7), 5)]);
        driven.complete(first);
        driven.complete(second);
        let status = driven.it.status();
        assert_eq!((status.missing_heads, status.pulls), (0, vec![]));
        assert_eq!(status.counters.promises_broken, 0);
        assert_eq!(status.counters.pulls_failed, 0);
    }
}

#[test]
fn a_relay_that_stalls_is_passed_over_for_the_sender_also_for_what_it_relays_later() {
    let mut driven = Driven::with_neighbors(1);
    driven.hear_by(50, 1, vec![claim(7, 5, 0)]);
    assert_eq!(driven.next_pull(), Some(peer(1)));
    let began = driven.now;
    assert_eq!(driven.next_pull(), Some(peer(50)));
    assert_eq!(driven.since(began), 10 * SECOND);
    driven.hear_by(60, 1, vec![claim(8, 5, 0)]);
    driven.it.handle_held(vec![(author(7), 5)]);
    driven.complete(peer(50));
    let began = driven.now;
    assert_eq!(driven.next_pull(), Some(peer(60)));
    assert!(driven.since(began) < SECOND);
}

#[test]
fn what_only_a_stalled_peer_has_is_asked_of_it_again_when_its_pull_has_ended() {
    let mut driven = Driven::with_neighbors(2);
    driven.hear(1, vec![claim(7, 5, 0)]);
    assert_eq!(driven.next_pull(), Some(peer(1)));
    assert_eq!(pulled(&driven.run_for(600 * SECOND)), []);
    driven.fail(peer(1));
    assert_eq!(driven.pulls(brings(&[(7, 5)])), [peer(1)]);
}

#[test]
fn a_catch_up_that_stalls_goes_on_with_the_next_neighbor() {
    let mut driven = Driven::alone(AnnouncerConfig::default(), 3);
    driven.it.handle_neighbor_up(peer(1), driven.now);
    assert_eq!(driven.next_pull(), Some(peer(1)));
    assert_eq!(
        pulled(&driven.run_for(60 * SECOND)),
        [],
        "there is no other"
    );
    driven.it.handle_neighbor_up(peer(2), driven.now);
    assert_eq!(driven.next_pull(), Some(peer(2)));
}

#[test]
fn what_nobody_delivers_is_dropped_after_so_many_attempts_and_counted() {
    let mut driven = Driven::with_neighbors(2);
    driven.hear(1, vec![claim(7, 5, 0)]);
    driven.hear(2, vec![claim(7, 5, 0)]);
    let asked = driven.pulls(|_, _| PullEnded::Failed);
    assert_eq!(asked.len(), 8, "four times each: {asked:?}");
    let status = driven.it.status();
    assert_eq!(status.missing_heads, 0);
    assert_eq!(status.counters.wants_dropped, 1);
    assert_eq!(status.counters.pulls_failed, 8);
}

#[test]
fn a_broken_promise_lowers_a_peer_behind_those_that_keep_theirs() {
    for seed in 0..30 {
        let mut driven = Driven::settled(AnnouncerConfig::default(), seed, 2);
        driven.hear(1, vec![claim(7, 5, 0)]);
        assert_eq!(driven.pulls(brings(&[])), [peer(1)], "asked once");
        let status = driven.it.status();
        assert_eq!(status.counters.promises_broken, 1);
        assert_eq!(status.missing_heads, 0);

        for seq in 6..8 {
            driven.hear(1, vec![claim(7, seq, 0), claim(8, seq, 0)]);
            driven.hear(2, vec![claim(7, seq, 0)]);
            let first = driven.next_pull();
            assert_eq!(first, Some(peer(2)), "though less is wanted from it");
            driven.it.handle_held(vec![(author(7), seq)]);
            driven.it.handle_held(vec![(author(8), seq)]);
            driven.complete(peer(2));
        }
        // And is heard again once it delivers: two for the promise, four as another kept it.
        for seq in 9..15 {
            assert_ne!(driven.it.peers.get(peer(1)).unwrap().demerits(), 0);
            driven.hear(1, vec![claim(7, seq, 0)]);
            assert_eq!(driven.pulls(brings(&[(7, seq)])), [peer(1)]);
        }
        assert_eq!(driven.it.peers.get(peer(1)).unwrap().demerits(), 0);
    }
}

#[test]
fn of_equals_the_one_with_most_that_is_wanted_is_asked() {
    for seed in 0..30 {
        let config = AnnouncerConfig {
            pull_jitter: Duration::ZERO,
            ..AnnouncerConfig::default()
        };
        let mut driven = Driven::settled(config, seed, 4);
        // A pull is under way while the claims come in.
        driven.hear(4, vec![claim(1, 1, 0)]);
        let under_way = driven.next_pull().unwrap();
        driven.hear(1, vec![claim(7, 5, 0)]);
        driven.hear(2, vec![claim(7, 5, 0), claim(8, 5, 0)]);
        driven.hear(3, vec![claim(8, 5, 0)]);
        driven.it.handle_held(vec![(author(1), 1)]);
        driven.it.longest_waits = false;
        driven.complete(under_way);
        assert_eq!(driven.next_pull(), Some(peer(2)));
    }
}

#[test]
fn a_promise_made_while_the_pull_was_under_way_is_not_broken_by_it() {
    let mut driven = Driven::with_neighbors(1);
    driven.hear(1, vec![claim(7, 5, 0)]);
    driven.next_pull().unwrap();
    driven.hear(1, vec![claim(7, 6, 0), claim(8, 1, 0)]);
    driven.it.handle_held(vec![(author(7), 5)]);
    driven.complete(peer(1));
    assert_eq!(driven.it.status().counters.promises_broken, 0);
    assert_eq!(driven.it.status().missing_heads, 2);
    assert_eq!(driven.pulls(brings(&[(7, 6), (8, 1)])), [peer(1)]);
}

#[test]
fn what_came_another_way_still_leaves_somebody_to_be_asked_for_the_rest() {
    let mut driven = Driven::with_neighbors(2);
    driven.hear(1, vec![claim(7, 9, 0)]);
    driven.next_pull().unwrap();
    driven.hear_by(50, 2, vec![claim(7, 5, 0)]);
    driven.it.handle_held(vec![(author(7), 6)]);
    driven.fail(peer(1));
    assert_eq!(driven.pulls(brings(&[(7, 9)])), [peer(1)]);
}

#[test]
fn a_provider_that_takes_the_place_of_another_is_asked() {
    let config = AnnouncerConfig {
        max_providers: 1,
        ..AnnouncerConfig::default()
    };
    let mut driven = Driven::settled(config, 1, 2);
    driven.hear(1, vec![claim(7, 5, 0)]);
    driven.hear_by(50, 2, vec![claim(7, 9, 0)]);
    assert_eq!(driven.it.wanted(peer(1)), []);
    assert_eq!(driven.pulls(brings(&[(7, 9)])), [peer(50)]);
}

#[test]
fn held_heads_reported_alone_do_not_leave_the_rest_unasked_for() {
    let mut driven = Driven::with_neighbors(3);
    driven.hear_by(50, 2, vec![claim(7, 5, 0)]);
    driven.hear_by(50, 3, vec![claim(8, 5, 0)]);
    driven.hear_by(50, 2, vec![claim(7, 4, 0)]);
    driven.it.handle_held(vec![(author(7), 4), (author(8), 5)]);
    assert_eq!(driven.pulls(brings(&[(7, 5)])), [peer(2)]);
}

#[test]
fn a_truncated_pull_is_neither_success_nor_failure() {
    let mut driven = Driven::with_neighbors(2);
    driven.hear(1, vec![claim(7, 5, 0)]);
    driven.next_pull().unwrap();
    let truncated = PullEnded::Truncated;
    driven.it.handle_pull_ended(peer(1), truncated, driven.now);
    assert_eq!(driven.outputs(), [], "no history was synced");
    let status = driven.it.status();
    assert_eq!(status.counters.promises_broken, 0);
    assert_eq!(status.backed_off, []);
    assert_eq!(driven.pulls(brings(&[(7, 5)])), [peer(1)]);
}

#[test]
fn an_end_of_a_pull_nobody_asked_for_is_ignored() {
    let mut driven = Driven::with_neighbors(1);
    driven.fail(peer(1));
    driven.complete(peer(9));
    assert_eq!(driven.outputs(), []);
    assert_eq!(driven.it.status().counters.pulls_failed, 0);
}
