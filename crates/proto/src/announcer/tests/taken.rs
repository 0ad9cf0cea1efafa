//! What nobody can bring, because it is not stored here, and who must not suffer for it; and whose
//! turn it is beside those who promise without end.

use super::*;

/// The pull brought `events`, and left the author out who is above a quota.
fn taken(driven: &mut Driven, id: PeerId, full: u64, events: u64) {
    let digest = driven.fresh_digest();
    driven.it.handle_not_taken(&[(author(full), None)]);
    let ended = PullEnded::Taken { digest, events };
    driven.it.handle_pull_ended(id, ended, driven.now);
}

fn penalties(driven: &Driven, n: u64) -> (u32, u64) {
    let peer = driven.it.peers.get(peer(n)).unwrap();
    (peer.demerits(), peer.standing.counters.promises_broken)
}

#[test]
fn an_author_above_its_quota_delays_nobody_elses_events() {
    let mut driven = Driven::with_neighbors(1);
    for round in 1..=30 {
        driven.hear(1, vec![claim(66, round, 0), claim(7, round, round - 1)]);
        let began = driven.now;
        assert_eq!(driven.next_pull(), Some(peer(1)));
        assert!(driven.since(began) < SECOND, "round {round}");
        driven.it.handle_held(vec![(author(7), round)]);
        taken(&mut driven, peer(1), 66, 1);
        let synced = driven.outputs();
        let synced = synced.iter().filter(|output| {
            matches!(output, AnnouncerOutput::HistorySynced { provider, .. } if *provider == peer(1))
        });
        assert_eq!(synced.count(), 1);
        assert_eq!(driven.it.status().missing_heads, 0);
        driven.run_for(SECOND);
    }
    assert_eq!(penalties(&driven, 1), (0, 0));
}

#[test]
fn what_a_quota_left_out_is_no_promise_kept_either() {
    let mut driven = Driven::with_neighbors(1);
    let kept = |driven: &Driven| {
        let peer = driven.it.peers.get(peer(1)).unwrap();
        peer.standing.counters.promises_kept
    };
    driven.hear(1, vec![claim(66, 5, 0)]);
    driven.next_pull().unwrap();
    taken(&mut driven, peer(1), 66, 0);
    assert_eq!(kept(&driven), 0);
}

#[test]
fn digests_that_differ_for_what_is_not_stored_are_compared_ever_less_often() {
    let mut driven = Driven::with_neighbors(1);
    let mut pulls = 0;
    for round in 0..600 {
        driven.hear_digest(1, 1, digest(5_000 + round));
        for (_, output) in driven.run_for(SECOND) {
            if let AnnouncerOutput::Pull { peer } = output {
                pulls += 1;
                let ended = PullEnded::Taken {
                    digest: driven.ours(),
                    events: 0,
                };
                driven.it.handle_pull_ended(peer, ended, driven.now);
            }
        }
    }
    assert!((3..=10).contains(&pulls), "{pulls} in ten minutes");
    // A head is asked for as soon as ever.
    let began = driven.now;
    driven.hear(1, vec![claim(7, 1, 0)]);
    assert_eq!(driven.next_pull(), Some(peer(1)));
    assert!(driven.since(began) < SECOND);
}

#[test]
fn a_pull_that_was_ended_early_and_brought_nothing_wanted_backs_off() {
    let mut driven = Driven::with_neighbors(1);
    let mut pauses = Vec::new();
    for brings in [false, false, false, false, true] {
        driven.hear(1, vec![claim(7, 5, 0)]);
        driven.next_pull().unwrap();
        if brings {
            driven.it.handle_held(vec![(author(7), 5)]);
        }
        let truncated = PullEnded::Truncated;
        driven.it.handle_pull_ended(peer(1), truncated, driven.now);
        let rests_until = driven.it.peers.get(peer(1)).unwrap().rests_until;
        pauses.push(rests_until.saturating_sub(driven.now));
    }
    assert!(pauses[3] >= 4 * SECOND, "{pauses:?}");
    assert!(pauses[4] <= SECOND, "{pauses:?}");
}

#[test]
fn a_revocation_on_its_way_breaks_nobodys_promise() {
    let mut driven = Driven::with_neighbors(2);
    driven.hear(1, vec![claim(7, 10, 0)]);
    assert_eq!(driven.next_pull(), Some(peer(1)));
    // The pull brings the log through 5, and that no more of it is accepted.
    driven.it.handle_held(vec![(author(7), 5)]);
    driven.it.handle_not_taken(&[(author(7), Some(5))]);
    driven.complete(peer(1));
    assert_eq!(penalties(&driven, 1), (0, 0));
    assert_eq!(driven.it.status().missing_heads, 0);
    // Were it accepted again, it would not have been kept back.
    driven.it.handle_held(vec![(author(7), 10)]);
    assert_eq!(driven.it.counters().withheld, 0);
}

#[test]
fn what_is_still_accepted_of_a_revoked_author_is_asked_for_further() {
    let mut driven = Driven::with_neighbors(1);
    driven.hear(1, vec![claim(7, 10, 0)]);
    driven.next_pull().unwrap();
    driven.it.handle_held(vec![(author(7), 3)]);
    driven.it.handle_not_taken(&[(author(7), Some(5))]);
    driven.fail(peer(1));
    assert_eq!(driven.next_pull(), Some(peer(1)));
    driven.it.handle_held(vec![(author(7), 5)]);
    driven.complete(peer(1));
    assert_eq!(driven.it.status().missing_heads, 0);
    assert_eq!(penalties(&driven, 1).1, 0);
}

#[test]
fn what_was_owed_before_a_revocation_is_owed_no_more() {
    let mut driven = Driven::with_neighbors(1);
    driven.hear(1, vec![claim(7, 10, 0)]);
    driven.pulls(|driven, _| driven.nothing_new());
    assert_eq!(driven.it.owed.len(), 1);
    driven.it.handle_not_taken(&[(author(7), Some(5))]);
    driven.it.handle_held(vec![(author(7), 10)]);
    assert_eq!(driven.it.counters().withheld, 0);
}

#[test]
fn an_endless_supply_of_peers_that_promise_much_takes_half_of_the_turns_at_most() {
    for seed in 0..10 {
        let mut driven = Driven::settled(AnnouncerConfig::default(), seed, 2);
        let mut waits: Option<Duration> = None;
        let (mut longest, mut served) = (Duration::ZERO, 0);
        let mut under_way: Vec<(PeerId, Duration)> = Vec::new();
        for second in 0..600 {
            if second % 2 == 0 {
                // Neighbour 2 relays somebody new, who promises much and cannot be reached.
                let claims = (0..28).map(|n| claim(10_000 + 28 * second + n, 1, 0));
                driven.hear(1_000 + second, claims.collect());
            }
            if waits.is_none() {
                driven.hear(1, vec![claim(7, 1 + second, 0)]);
                waits = Some(driven.now);
            }
            for (at, output) in driven.run_for(SECOND) {
                match output {
                    AnnouncerOutput::Pull { peer: id } if id == peer(1) => {
                        let waited = at.saturating_sub(waits.take().unwrap_or(at));
                        longest = longest.max(waited);
                        served += 1;
                        driven.it.handle_held(vec![(author(7), 1 + second)]);
                        driven.complete(id);
                    }
                    AnnouncerOutput::Pull { peer } => under_way.push((peer, at)),
                    _ => {}
                }
            }
            let now = driven.now;
            let (over, rest) = under_way
                .into_iter()
                .partition(|(_, at)| now.saturating_sub(*at) >= 5 * SECOND);
            under_way = rest;
            over.into_iter()
                .for_each(|(id, _): (PeerId, Duration)| driven.fail(id));
        }
        assert!(longest <= 15 * SECOND, "waited {longest:?}, seed {seed}");
        assert!(served > 30, "{served} pulls, seed {seed}");
    }
}
