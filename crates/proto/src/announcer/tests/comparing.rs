//! Digests: the periodic part, and what a difference leads to.

use super::*;

/// Far enough for Trickle's longest interval.
fn quiet(driven: &mut Driven) {
    driven.run_for(300 * SECOND);
    assert_eq!(driven.it.status().interval, Some(128 * SECOND));
}

fn says_digest(outputs: &[(Duration, AnnouncerOutput)]) -> usize {
    announced(outputs)
        .iter()
        .filter(|part| **part == (0, 0))
        .count()
}

#[test]
fn in_a_steady_state_at_most_one_small_announcement_is_made_an_interval() {
    let mut driven = Driven::with_neighbors(3);
    quiet(&mut driven);
    let outputs = driven.run_for(1_280 * SECOND);
    assert_eq!(outputs.len(), 10);
    assert_eq!(says_digest(&outputs), 10);
}

#[test]
fn equal_digests_of_others_silence_ours() {
    let mut driven = Driven::with_neighbors(3);
    quiet(&mut driven);
    let mut outputs = Vec::new();
    for _ in 0..256 {
        driven.hear_digest(9, 1, driven.ours());
        outputs.extend(driven.run_for(10 * SECOND));
    }
    assert_eq!(outputs, []);
    assert!(driven.it.status().counters.suppressed >= 19);
}

#[test]
fn an_announcement_of_heads_counts_as_consistent_once_its_digest_is_ours() {
    let mut driven = Driven::with_neighbors(1);
    quiet(&mut driven);
    for round in 0..100 {
        let digest = digest(500 + round);
        driven.it.handle_announcement(
            HeardAnnouncement {
                from: peer(1),
                delivered_by: peer(1),
                digest,
                periodic: false,
                claims: vec![claim(3, 1 + round, 1 + round)],
                forks: Vec::new(),
            },
            driven.now,
        );
        let grown = vec![small(3, 1 + round)];
        driven.it.handle_grown(digest, grown, driven.now);
        assert_eq!(driven.run_for(15 * SECOND), []);
    }
}

#[test]
fn an_unknown_digest_resets_trickle_and_leads_to_a_pull_from_its_sender() {
    for seed in 0..20 {
        let mut driven = Driven::settled(AnnouncerConfig::default(), seed, 3);
        quiet(&mut driven);
        let began = driven.now;
        driven.hear_digest(2, 2, digest(99));
        assert_eq!(driven.it.status().interval, Some(128 * SECOND), "not yet");
        assert_eq!(driven.next_pull(), Some(peer(2)));
        let waited = driven.since(began);
        assert!((500 * MS..700 * MS).contains(&waited), "{waited:?}");
        assert_eq!(driven.it.status().interval, Some(4 * SECOND));
        assert_eq!(driven.it.status().counters.differences, 1);
    }
}

#[test]
fn a_digest_that_becomes_ours_meanwhile_was_only_ahead() {
    let mut driven = Driven::with_neighbors(3);
    quiet(&mut driven);
    driven.hear_digest(2, 2, digest(99));
    driven.hear(3, vec![claim(5, 1, 1)]);
    driven
        .it
        .handle_grown(digest(99), vec![small(5, 1)], driven.now);
    assert_eq!(driven.run_for(2 * SECOND), []);
    assert_eq!(driven.it.status().interval, Some(128 * SECOND));
    assert_eq!(driven.it.status().counters.differences, 0);
}

#[test]
fn a_new_neighbor_whose_digest_becomes_ours_is_settled_and_not_compared_with() {
    let config = AnnouncerConfig {
        check_within: 1_000_000 * SECOND,
        ..AnnouncerConfig::default()
    };
    for seed in 0..20 {
        let mut driven = Driven::alone(config.clone(), seed);
        for neighbor in 1..=3 {
            driven.it.handle_neighbor_up(peer(neighbor), driven.now);
        }
        // All say what they have before the first of them is pulled from, which brings it.
        for neighbor in 1..=3 {
            driven.hear_digest(neighbor, neighbor, digest(99));
        }
        let first = driven.next_pull().unwrap();
        driven
            .it
            .handle_synced(digest(99), vec![large(5, 100)], driven.now);
        driven.complete(first);
        assert_eq!(driven.pulls(|driven, _| driven.nothing_new()), []);
        assert_eq!(driven.it.status().unsettled_neighbors, 0);
    }
}

#[test]
fn our_digest_beside_a_head_we_lack_is_no_reason_to_be_silent() {
    let mut driven = Driven::with_neighbors(1);
    quiet(&mut driven);
    let ours = driven.ours();
    for seq in 1..=9 {
        driven.it.handle_announcement(
            HeardAnnouncement {
                from: peer(1),
                delivered_by: peer(1),
                digest: ours,
                periodic: false,
                claims: vec![claim(5, seq, 0)],
                forks: Vec::new(),
            },
            driven.now,
        );
    }
    let outputs = driven.run_for(128 * SECOND);
    assert_eq!(driven.it.status().counters.suppressed, 0, "{outputs:?}");
}

#[test]
fn one_who_lags_behind_is_told_and_not_pulled_from() {
    let mut driven = Driven::with_neighbors(3);
    quiet(&mut driven);
    let before = driven.ours();
    driven.hear(3, vec![claim(5, 1, 1)]);
    driven.grow(vec![small(5, 1)]);

    driven.hear_digest(2, 2, before);
    assert_eq!(
        driven.it.status().interval,
        Some(128 * SECOND),
        "on its way"
    );
    driven.run_for(SECOND);
    driven.hear_digest(2, 2, before);
    assert_eq!(driven.it.status().interval, Some(4 * SECOND));
    let outputs = driven.run_for(4 * SECOND);
    assert_eq!(says_digest(&outputs), 1);
    assert_eq!(outputs.len(), 1, "no pull: {outputs:?}");
}

#[test]
fn the_digest_beside_heads_is_not_compared() {
    let mut driven = Driven::with_neighbors(1);
    quiet(&mut driven);
    driven.hear(1, vec![claim(5, 1, 1)]);
    assert_eq!(driven.run_for(2 * SECOND), []);
    assert_eq!(driven.it.status().interval, Some(128 * SECOND));
}

#[test]
fn a_digest_from_far_away_is_looked_for_at_the_neighbor_first_and_in_the_end_at_its_sender() {
    let mut driven = Driven::with_neighbors(3);
    quiet(&mut driven);
    driven.hear_digest(50, 2, digest(99));
    let asked = driven.pulls(|driven, _| driven.nothing_new());
    assert_eq!(asked, [peer(2), peer(2), peer(50)]);
}

#[test]
fn nobody_is_compared_with_again_and_again_by_lying_about_its_digest() {
    let mut driven = Driven::with_neighbors(1);
    quiet(&mut driven);
    let mut pulls = 0;
    for lie in 0..1_000 {
        driven.hear_digest(1, 1, digest(10_000 + lie));
        for (_, output) in driven.run_for(100 * MS) {
            if let AnnouncerOutput::Pull { peer } = output {
                pulls += 1;
                driven.complete(peer);
            }
        }
    }
    assert!((15..=26).contains(&pulls), "{pulls} in 100 s");
}

#[test]
fn a_reader_that_fell_behind_resets_trickle_and_pulls_from_a_neighbor() {
    let mut driven = Driven::with_neighbors(3);
    quiet(&mut driven);
    let before = driven.it.status().counters.pulls;
    driven.it.handle_overflow(driven.now);
    driven.it.handle_overflow(driven.now);
    assert_eq!(driven.it.status().interval, Some(4 * SECOND));
    let asked = driven.pulls(|driven, _| driven.nothing_new());
    assert_eq!(asked.len(), 1);
    assert_eq!(driven.it.status().counters.pulls, before + 1);
}

#[test]
fn no_digest_is_announced_while_a_pull_changes_it() {
    let config = AnnouncerConfig {
        slow_pull: 300 * SECOND,
        ..AnnouncerConfig::default()
    };
    let mut driven = Driven::settled(config, 1, 1);
    driven.hear(1, vec![claim(5, 9, 0)]);
    driven.next_pull().unwrap();
    assert_eq!(driven.run_for(200 * SECOND), []);
    driven.complete(peer(1));
    assert_eq!(says_digest(&driven.run_for(260 * SECOND)), 2);
}

#[test]
fn a_pull_that_stalls_silences_the_digest_no_longer_than_it_counts_as_under_way() {
    let mut driven = Driven::with_neighbors(1);
    driven.hear(1, vec![claim(5, 9, 0)]);
    assert_eq!(driven.next_pull(), Some(peer(1)));
    let began = driven.now;
    let outputs = driven.run_for(600 * SECOND);
    assert_eq!(outputs.len(), says_digest(&outputs), "{outputs:?}");
    assert!((4..=8).contains(&outputs.len()), "{outputs:?}");
    assert!(outputs[0].0 >= began + 10 * SECOND);
    driven.complete(peer(1));
    assert_eq!(driven.outputs().len(), 1, "the pull itself ended well");
}

#[test]
fn whoever_announces_a_missing_head_beside_our_digest_is_not_taken_for_equal() {
    // In the second the table refuses the head.
    for max_wants in [4_096, 0] {
        let config = AnnouncerConfig {
            max_wants,
            ..AnnouncerConfig::default()
        };
        let mut driven = Driven::settled(config, 1, 1);
        let before = driven.ours();
        driven.hear(1, vec![claim(5, 1, 1)]);
        driven.grow(vec![small(5, 1)]);
        driven.it.handle_neighbor_up(peer(2), driven.now);
        for digest in [before, driven.ours()] {
            driven.hear_digest(2, 2, digest_of_nobody());
            let heard = |held| HeardAnnouncement {
                from: peer(2),
                delivered_by: peer(2),
                digest,
                periodic: false,
                claims: vec![claim(7, 5, held)],
                forks: Vec::new(),
            };
            driven.it.handle_announcement(heard(4), driven.now);
            assert_eq!(driven.outputs(), []);
            assert_eq!(driven.it.status().unsettled_neighbors, 1);
            let found = |driven: &Driven| driven.it.peers.get(peer(2)).unwrap().difference;
            assert!(found(&driven).is_some());

            let mut holds_it = Driven::settled(AnnouncerConfig::default(), 1, 1);
            holds_it.it.handle_neighbor_up(peer(2), holds_it.now);
            holds_it.hear_digest(2, 2, digest_of_nobody());
            let ours = holds_it.ours();
            let heard = HeardAnnouncement {
                digest: ours,
                ..heard(5)
            };
            holds_it.it.handle_announcement(heard, holds_it.now);
            assert_eq!(holds_it.it.status().unsettled_neighbors, 0);
            assert_eq!(found(&holds_it), None);
        }
        assert_eq!(driven.next_pull(), Some(peer(2)));
    }
}

fn digest_of_nobody() -> HeadsDigest {
    digest(u64::MAX)
}
