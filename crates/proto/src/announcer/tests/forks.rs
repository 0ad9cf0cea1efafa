//! Logs that are cut because they fork, and announcements that contradict ours.

use super::*;

const DIGEST: AnnouncerOutput = AnnouncerOutput::Announce {
    changed: Vec::new(),
    periodic: true,
};

/// Names one log, of which the driver finds that it is cut.
fn flag(n: u64) -> AnnouncerOutput {
    AnnouncerOutput::Announce {
        changed: vec![author(n)],
        periodic: false,
    }
}

/// Somebody says that a log forks.
fn hear_fork(driven: &mut Driven, from: u64, delivered_by: u64, n: u64, known: bool) {
    let heard = HeardAnnouncement {
        from: peer(from),
        delivered_by: peer(delivered_by),
        digest: driven.fresh_digest(),
        periodic: false,
        claims: Vec::new(),
        forks: vec![ForkClaim {
            author: author(n),
            known,
        }],
    };
    driven.it.handle_announcement(heard, driven.now);
}

fn cut(driven: &mut Driven, n: u64) -> HeadsDigest {
    let digest = driven.fresh_digest();
    driven.it.handle_cut(digest, &[author(n)], driven.now);
    digest
}

fn names(outputs: &[(Duration, AnnouncerOutput)]) -> Vec<AnnouncerOutput> {
    outputs.iter().map(|(_, output)| output.clone()).collect()
}

#[test]
fn a_cut_is_announced_by_its_flag_within_the_jitter_and_resets_trickle() {
    let mut driven = Driven::with_neighbors(2);
    driven.run_for(300 * SECOND);
    assert_eq!(driven.it.status().interval, Some(128 * SECOND));
    let digest = cut(&mut driven, 7);
    assert_eq!(driven.ours(), digest);
    assert_eq!(driven.it.status().interval, Some(4 * SECOND));
    let soon = AnnouncerConfig::default().pull_jitter;
    assert_eq!(names(&driven.run_for(soon)), [flag(7)]);
}

#[test]
fn a_flag_becomes_a_pull_from_the_relay_and_then_from_the_sender_until_the_proof_is_here() {
    let mut driven = Driven::with_neighbors(3);
    let began = driven.now;
    hear_fork(&mut driven, 50, 2, 7, false);
    assert_eq!(driven.it.status().missing_heads, 1);
    assert_eq!(driven.it.wanted(peer(50)), [author(7)]);
    assert_eq!(driven.next_pull(), Some(peer(2)));
    assert!(driven.since(began) < SECOND, "at once");
    driven.complete(peer(2));
    assert_eq!(driven.next_pull(), Some(peer(2)), "it may have it by now");
    cut(&mut driven, 7);
    driven.complete(peer(2));
    assert_eq!(driven.it.status().missing_heads, 0);
    assert_eq!(driven.it.status().counters.promises_broken, 0);
    // That it forks was said: what is left to say is the digest.
    let said = driven.run_for(SECOND);
    let said = names(&said).into_iter();
    let said: Vec<_> = said
        .filter(|it| matches!(it, AnnouncerOutput::Announce { .. }))
        .collect();
    assert_eq!(said, [DIGEST]);
}

#[test]
fn a_flag_without_a_proof_cuts_nothing_and_silences_nothing_and_costs_its_sender_its_standing() {
    let mut driven = Driven::with_neighbors(2);
    hear_fork(&mut driven, 1, 1, 7, false);
    assert_eq!(driven.next_pull(), Some(peer(1)));
    driven.complete(peer(1));
    let status = driven.it.status();
    assert_eq!(
        (status.missing_heads, status.counters.promises_broken),
        (0, 1)
    );
    assert_eq!(status.standings[0].demerits, 2);
    driven.outputs();
    driven.grow(vec![small(7, 9)]);
    let [(_, AnnouncerOutput::SendRuns { authors })] = &driven.run_for(SECOND)[..] else {
        panic!("the log is announced as before");
    };
    assert_eq!(authors, &[author(7)]);
}

#[test]
fn a_flag_does_not_take_the_place_of_those_who_announced_a_head_of_the_log() {
    let mut driven = Driven::with_neighbors(6);
    driven.hear(1, vec![claim(7, 5, 0)]);
    for liar in 2..=6 {
        hear_fork(&mut driven, liar, liar, 7, false);
    }
    assert_eq!(driven.it.wanted(peer(1)), [author(7)]);
    let asked = driven.pulls(|driven, id| {
        if id == peer(1) {
            driven.it.handle_held(vec![(author(7), 5)]);
        }
        driven.nothing_new()
    });
    assert!(asked.contains(&peer(1)));
    assert_eq!(driven.it.status().missing_heads, 0);
}

#[test]
fn a_fork_that_is_known_here_is_no_reason_to_pull_and_is_not_said_twice() {
    let mut driven = Driven::with_neighbors(2);
    cut(&mut driven, 7);
    hear_fork(&mut driven, 1, 1, 7, true);
    assert_eq!(driven.run_for(SECOND), []);
}

#[test]
fn contradictions_that_no_proof_follows_are_looked_into_ever_less_often() {
    let mut driven = Driven::with_neighbors(2);
    let mut pulls = 0;
    for _ in 0..600 {
        driven.it.handle_contradiction(peer(1), driven.now);
        for (_, output) in driven.run_for(SECOND) {
            if let AnnouncerOutput::Pull { peer } = output {
                pulls += 1;
                driven.complete(peer);
            }
        }
    }
    // One in Imin would be 150.
    assert!((5..=12).contains(&pulls), "{pulls}");
    let standing = driven.it.status().standings[0];
    assert_eq!(standing.counters.unproven, pulls);
    assert!(standing.demerits > 0);
    // A cut is a proof: from then on the peer is heard as before.
    cut(&mut driven, 7);
    driven.run_for(300 * SECOND);
    driven.it.handle_contradiction(peer(1), driven.now);
    let began = driven.now;
    assert_eq!(driven.next_pull(), Some(peer(1)));
    assert!(driven.since(began) < 10 * SECOND);
}

#[test]
fn a_cut_that_somebody_announced_before_is_not_announced_again() {
    for heard_before in [true, false] {
        let mut driven = Driven::with_neighbors(2);
        driven.run_for(300 * SECOND);
        let digest = digest(5_000);
        if heard_before {
            driven.hear_digest(1, 1, digest);
        }
        driven.it.handle_cut(digest, &[author(7)], driven.now);
        if !heard_before {
            driven.hear_digest(1, 1, digest);
        }
        assert_eq!(driven.run_for(SECOND), []);
    }
}

#[test]
fn nothing_of_a_log_that_is_cut_is_announced_or_asked_for() {
    let mut driven = Driven::with_neighbors(1);
    driven.grow(vec![small(8, 1)]);
    driven.outputs();
    // Waits for the next announcement; and what is above it was announced by another.
    driven.grow(vec![small(7, 2)]);
    driven.hear(1, vec![claim(7, 5, 2)]);
    assert_eq!(driven.it.status().missing_heads, 1);
    cut(&mut driven, 7);
    assert_eq!(driven.it.status().missing_heads, 0);
    assert_eq!(names(&driven.run_for(SECOND)), [flag(7)]);
}

#[test]
fn whoever_contradicts_is_pulled_from_soon_and_once_in_the_least_interval() {
    for from in [1, 9] {
        let mut driven = Driven::with_neighbors(1);
        let began = driven.now;
        driven.hear_by(from, 1, vec![]);
        driven.it.handle_contradiction(peer(from), driven.now);
        assert_eq!(driven.next_pull(), Some(peer(from)));
        assert!(driven.since(began) <= 4 * SECOND);
        driven.complete(peer(from));
        driven.it.handle_contradiction(peer(from), driven.now);
        assert!(
            driven
                .run_for(3 * SECOND)
                .iter()
                .all(|(_, output)| !matches!(output, AnnouncerOutput::Pull { .. })),
            "not again at once"
        );
        driven.run_for(5 * SECOND);
        driven.it.handle_contradiction(peer(from), driven.now);
        assert_eq!(driven.next_pull(), Some(peer(from)));
    }
}

#[test]
fn a_stranger_that_contradicted_is_not_asked_once_the_log_is_cut() {
    let mut driven = Driven::with_neighbors(1);
    driven.it.handle_contradiction(peer(9), driven.now);
    cut(&mut driven, 7);
    driven.run_for(SECOND);
    assert_eq!(driven.next_pull(), None);
}
