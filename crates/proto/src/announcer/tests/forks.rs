//! Logs that are cut because they fork, and announcements that contradict ours.

use super::*;

const DIGEST: AnnouncerOutput = AnnouncerOutput::Announce {
    changed: Vec::new(),
    inline: Vec::new(),
    periodic: true,
};

fn cut(driven: &mut Driven, n: u64) -> HeadsDigest {
    let digest = driven.fresh_digest();
    driven.it.handle_cut(digest, &[author(n)], driven.now);
    digest
}

fn names(outputs: &[(Duration, AnnouncerOutput)]) -> Vec<AnnouncerOutput> {
    outputs.iter().map(|(_, output)| output.clone()).collect()
}

#[test]
fn a_cut_is_announced_by_the_digest_within_the_jitter_and_resets_trickle() {
    let mut driven = Driven::with_neighbors(2);
    driven.run_for(300 * SECOND);
    assert_eq!(driven.it.status().interval, Some(128 * SECOND));
    let digest = cut(&mut driven, 7);
    assert_eq!(driven.ours(), digest);
    assert_eq!(driven.it.status().interval, Some(4 * SECOND));
    let soon = AnnouncerConfig::default().pull_jitter;
    assert_eq!(names(&driven.run_for(soon)), [DIGEST]);
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
    assert_eq!(names(&driven.run_for(SECOND)), [DIGEST]);
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
