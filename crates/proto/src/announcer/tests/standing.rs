//! What a peer's word is worth, and what follows from it: who is asked, how often, and who gives way.

use super::*;

fn standing(driven: &Driven, n: u64) -> PeerStanding {
    let standings = driven.it.status().standings;
    let found = standings.into_iter().find(|it| it.peer == peer(n));
    found.expect("it was put to the test")
}

#[test]
fn what_a_peer_kept_back_and_another_brought_is_counted_against_the_one_that_had_announced_it() {
    let mut driven = Driven::with_neighbors(2);
    driven.hear(1, vec![claim(7, 5, 0)]);
    let asked = driven.pulls(|driven, _| driven.nothing_new());
    assert_eq!(asked, [peer(1)]);
    assert_eq!(
        standing(&driven, 1).counters.withheld,
        0,
        "it may not exist"
    );
    driven.hear(2, vec![claim(7, 5, 0)]);
    driven.next_pull();
    driven.it.handle_held(vec![(author(7), 5)]);
    driven.complete(peer(2));
    let (liar, honest) = (standing(&driven, 1), standing(&driven, 2));
    assert_eq!(
        (liar.counters.promises_broken, liar.counters.withheld),
        (1, 1)
    );
    assert_eq!((honest.counters.promises_kept, honest.demerits), (1, 0));
    assert!(liar.demerits > 2);
    assert_eq!(driven.it.status().counters.withheld, 1);
    // It is counted once.
    driven.it.handle_held(vec![(author(7), 6)]);
    assert_eq!(standing(&driven, 1).counters.withheld, 1);
}

#[test]
fn what_comes_late_from_the_peer_itself_was_not_kept_back() {
    for by_a_pull in [true, false] {
        let mut driven = Driven::with_neighbors(1);
        driven.hear(1, vec![claim(7, 5, 0)]);
        driven.pulls(|driven, _| driven.nothing_new());
        if by_a_pull {
            driven.hear(1, vec![claim(7, 6, 0)]);
            driven.next_pull();
            driven.it.handle_held(vec![(author(7), 6)]);
            driven.complete(peer(1));
        } else {
            driven.hear(1, vec![claim(7, 6, 6)]);
            driven.grow(vec![small(7, 6)]);
        }
        assert_eq!(standing(&driven, 1).counters.withheld, 0);
    }
}

#[test]
fn an_author_and_a_peer_hand_in_hand_cause_ever_fewer_pulls() {
    let mut driven = Driven::with_neighbors(2);
    let (mut pulls, mut before) = (0, None);
    for round in 1..=6_000 {
        // Every 100 ms another head that is signed, and that nobody has.
        driven.hear(1, vec![claim(7, round, 0)]);
        for (at, output) in driven.run_for(100 * MS) {
            if let AnnouncerOutput::Pull { peer } = output {
                let since = before.replace(at).map(|before| at.saturating_sub(before));
                assert!(since.is_none_or(|since| since >= 2 * SECOND), "{since:?}");
                pulls += 1;
                driven.complete(peer);
            }
        }
    }
    // Pauses of 2, 4, 8, 16, 32 and then 64 s in ten minutes.
    assert!((10..=16).contains(&pulls), "{pulls}");
    let standing = standing(&driven, 1);
    assert_eq!(standing.counters.pulls, pulls + 1, "one when they met");
    assert_eq!(standing.counters.promises_broken, pulls);
}

#[test]
fn a_peer_that_delivers_is_pulled_from_as_often_as_it_has_news() {
    let mut driven = Driven::with_neighbors(1);
    for seq in 1..=20 {
        let began = driven.now;
        driven.hear(1, vec![claim(7, seq, seq - 1)]);
        assert_eq!(driven.next_pull(), Some(peer(1)));
        assert!(driven.since(began) < SECOND);
        driven.it.handle_held(vec![(author(7), seq)]);
        driven.complete(peer(1));
    }
}

#[test]
fn a_peer_that_was_caught_is_asked_last_and_seldom_and_vouches_for_nothing() {
    for seed in 0..20 {
        let mut driven = Driven::settled(AnnouncerConfig::default(), seed, 2);
        driven.it.handle_caught(peer(1), driven.now);
        driven.it.handle_caught(peer(1), driven.now);
        assert_eq!(driven.it.status().counters.caught, 1);
        driven.hear(1, vec![claim(7, 5, 0), claim(8, 5, 0)]);
        driven.hear(2, vec![claim(7, 5, 0)]);
        assert_eq!(
            driven.next_pull(),
            Some(peer(2)),
            "though less is wanted from it"
        );
        driven.it.handle_held(vec![(author(7), 5)]);
        driven.complete(peer(2));
        driven.outputs();
        // What it alone has is asked of it all the same.
        assert_eq!(driven.next_pull(), Some(peer(1)));
        driven.it.handle_held(vec![(author(8), 5)]);
        driven.complete(peer(1));
        let told = driven.outputs();
        assert!(
            !told
                .iter()
                .any(|it| matches!(it, AnnouncerOutput::HistorySynced { .. })),
            "{told:?}"
        );
        driven.hear(1, vec![claim(8, 6, 5)]);
        let began = driven.now;
        driven.run_for(100 * SECOND);
        assert!(driven.it.status().pulls.is_empty());
        assert_eq!(driven.next_pull(), Some(peer(1)));
        assert!(driven.since(began) >= 128 * SECOND);
    }
}

/// Pulls and what was given up, as they were asked for.
fn asked(outputs: &[(Duration, AnnouncerOutput)]) -> (Vec<PeerId>, Vec<PeerId>) {
    let (mut pulls, mut given_up) = (Vec::new(), Vec::new());
    for (_, output) in outputs {
        match output {
            AnnouncerOutput::Pull { peer } => pulls.push(*peer),
            AnnouncerOutput::GiveUp { peer } => given_up.push(*peer),
            _ => {}
        }
    }
    (pulls, given_up)
}

#[test]
fn four_peers_that_stall_give_their_places_up_to_others() {
    for seed in 0..20 {
        let mut driven = Driven::settled(AnnouncerConfig::default(), seed, 9);
        for neighbor in 1..=9 {
            driven.hear(neighbor, vec![claim(neighbor, 5, 0)]);
        }
        let (first, none) = asked(&driven.run_for(39 * SECOND));
        assert_eq!((first.len(), none.len()), (4, 0));
        let (second, given_up) = asked(&driven.run_for(11 * SECOND));
        assert_eq!(second.len(), 1);
        assert_eq!(given_up, [first[0]], "who stalls for longest");
        driven.fail(first[0]);
        // Whoever is up to something rests longer each time; all are asked in turn.
        let mut served = std::collections::BTreeSet::new();
        served.extend(first.into_iter().chain(second));
        for _ in 0..20 {
            let (pulls, given_up) = asked(&driven.run_for(10 * SECOND));
            served.extend(pulls);
            given_up.into_iter().for_each(|id| driven.fail(id));
            assert!(driven.it.status().pulls.len() <= 4);
        }
        assert_eq!(served.len(), 9, "nobody waits for ever");
    }
}

#[test]
fn of_slow_pulls_the_one_that_moves_is_given_up_last_and_is_no_failure() {
    let config = AnnouncerConfig::default();
    let mut driven = Driven::settled(config, 1, 6);
    for neighbor in 1..=4 {
        driven.hear(neighbor, vec![claim(neighbor, 5, 0)]);
    }
    let mut pulls = Vec::new();
    for _ in 0..45 {
        pulls.extend(asked(&driven.run_for(SECOND)).0);
        for id in pulls.clone() {
            driven.it.handle_pull_progress(id, driven.now);
        }
    }
    assert_eq!(pulls.len(), 4);
    driven.hear(5, vec![claim(5, 5, 0)]);
    let began = driven.now;
    let mut given_up = Vec::new();
    while given_up.is_empty() {
        given_up = asked(&driven.run_for(SECOND)).1;
        for id in &pulls {
            driven.it.handle_pull_progress(*id, driven.now);
        }
        assert!(driven.since(began) < 60 * SECOND);
    }
    assert_eq!(given_up, [pulls[0]], "which has gone on for a minute");
    driven.fail(pulls[0]);
    let status = driven.it.status();
    assert_eq!(
        (status.counters.pulls_failed, status.counters.pulls_given_up),
        (0, 1)
    );
    assert_eq!(status.backed_off, []);
}

#[test]
fn a_pull_that_stalls_keeps_its_place_while_nobody_needs_it() {
    let mut driven = Driven::with_neighbors(4);
    for neighbor in 1..=4 {
        driven.hear(neighbor, vec![claim(neighbor, 5, 0)]);
    }
    let (pulls, given_up) = asked(&driven.run_for(600 * SECOND));
    assert_eq!((pulls.len(), given_up.len()), (4, 0));
}

#[test]
fn what_is_owed_is_bounded() {
    let config = AnnouncerConfig {
        max_owed: 10,
        pull_pause: Duration::ZERO,
        ..AnnouncerConfig::default()
    };
    let mut driven = Driven::settled(config, 1, 1);
    for round in 0..200 {
        driven.hear(
            1,
            (0..5).map(|n| claim(100 + 5 * round + n, 1, 0)).collect(),
        );
        driven.pulls(|driven, _| driven.nothing_new());
        assert!(driven.it.owed.len() <= 10);
    }
}
