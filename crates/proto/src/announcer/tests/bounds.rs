//! What strangers can make an announcer remember.

use super::*;

#[test]
fn a_million_claims_leave_every_table_within_its_bound() {
    let mut driven = Driven::with_neighbors(4);
    let config = driven.it.config.clone();
    for batch in 0..10_000_u64 {
        let from = 100 + batch % 1_000;
        let claims = (0..100)
            .map(|n| claim(batch * 100 + n, 1 + batch, batch % 2))
            .collect();
        driven.hear_by(from, 1 + batch % 4, claims);
        if batch % 8 == 0 {
            driven.hear_digest(from, from, digest(batch << 20));
        }
        for output in driven.outputs() {
            if let AnnouncerOutput::Pull { peer } = output {
                driven.fail(peer);
            }
        }
        driven.now += MS;
    }
    let status = driven.it.status();
    assert!(status.missing_heads <= config.max_wants);
    assert!(status.counters.wants_refused > 900_000);
    assert!(driven.it.peers.iter().count() <= config.max_peers);
    assert_eq!(status.neighbors.len(), 4);
    assert!(driven.it.outbox.heard_len() <= config.max_heard);
}

#[test]
fn a_flood_from_one_peer_leaves_room_for_the_others() {
    let mut driven = Driven::with_neighbors(2);
    for n in 0..100_000 {
        driven.hear(1, vec![claim(n, 1, 0)]);
    }
    assert_eq!(driven.it.wanted(peer(1)).len(), 1_024);
    driven.hear(2, vec![claim(1_000_000, 1, 0)]);
    assert_eq!(driven.it.wanted(peer(2)), [author(1_000_000)]);
}

#[test]
fn in_a_full_table_whoever_has_most_makes_place() {
    let config = AnnouncerConfig {
        max_wants: 16,
        ..AnnouncerConfig::default()
    };
    let mut driven = Driven::settled(config, 1, 6);
    for from in 1..=4 {
        let claims = (0..10).map(|n| claim(from * 100 + n, 1, 0)).collect();
        driven.hear(from, claims);
    }
    assert_eq!(driven.it.status().missing_heads, 16);
    for from in 5..=6 {
        let claims = (0..10).map(|n| claim(from * 100 + n, 1, 0)).collect();
        driven.hear(from, claims);
    }
    let shares: Vec<_> = (1..=6).map(|n| driven.it.wanted(peer(n)).len()).collect();
    assert_eq!(shares.iter().sum::<usize>(), 16);
    assert!(
        shares.iter().all(|share| (2..=4).contains(share)),
        "{shares:?}"
    );
}

#[test]
fn a_table_of_peers_full_of_failures_has_place_for_a_newcomer_and_neighbors_stay() {
    let config = AnnouncerConfig {
        max_peers: 8,
        pull_jitter: Duration::ZERO,
        ..AnnouncerConfig::default()
    };
    let mut driven = Driven::settled(config, 1, 3);
    for stranger in 100..105 {
        driven.hear(stranger, vec![claim(stranger, 1, 0)]);
    }
    for _ in 0..5 {
        let id = driven.next_pull().unwrap();
        driven.fail(id);
    }
    driven.hear(200, vec![claim(200, 1, 0)]);
    assert_eq!(driven.next_pull(), Some(peer(200)));
    assert_eq!(driven.it.status().neighbors.len(), 3);
    assert_eq!(
        driven.it.status().missing_heads,
        5,
        "the evicted one's is gone"
    );
}

#[test]
fn claims_of_peers_without_a_place_are_not_kept() {
    let config = AnnouncerConfig {
        max_peers: 2,
        ..AnnouncerConfig::default()
    };
    let mut driven = Driven::settled(config, 1, 2);
    driven.hear(50, vec![claim(7, 1, 0)]);
    assert_eq!(driven.it.status().missing_heads, 0);
    assert_eq!(driven.it.status().neighbors.len(), 2);
    driven.hear_by(50, 1, vec![claim(7, 1, 0)]);
    assert_eq!(driven.next_pull(), Some(peer(1)), "its relay has one");
}

#[test]
fn a_neighbor_finds_a_place_in_a_table_full_of_peers_to_be_asked() {
    let config = AnnouncerConfig {
        max_peers: 4,
        ..AnnouncerConfig::default()
    };
    let mut driven = Driven::settled(config, 1, 1);
    for stranger in 100..103 {
        driven.hear(stranger, vec![claim(stranger, 1, 0)]);
    }
    let busy = driven.next_pull().unwrap();
    driven.hear(200, vec![claim(200, 1, 0)]);
    assert_eq!(driven.it.wanted(peer(200)), [], "a stranger has none");

    driven.it.handle_neighbor_up(peer(2), driven.now);
    driven.it.handle_neighbor_up(peer(3), driven.now);
    let status = driven.it.status();
    assert_eq!(status.neighbors, [peer(1), peer(2), peer(3)]);
    assert_eq!(driven.it.peers.iter().count(), 4);
    assert_eq!(status.missing_heads, 1, "what is under way");
    assert_eq!(driven.it.wanted(busy).len(), 1);

    // Nobody is left to leave.
    driven.it.handle_neighbor_up(peer(4), driven.now);
    assert_eq!(driven.it.status().neighbors.len(), 4);
    driven.it.handle_neighbor_down(peer(4), driven.now);
    driven.it.handle_neighbor_up(peer(5), driven.now);
    assert_eq!(driven.it.status().neighbors.len(), 4);
    assert_eq!(driven.it.peers.iter().count(), 5);
}

#[test]
fn durations_at_their_ends_do_no_harm() {
    for extreme in [Duration::ZERO, Duration::MAX] {
        let config = AnnouncerConfig {
            trickle: TrickleConfig {
                i_min: extreme,
                i_max_doublings: 40,
                k: 1,
            },
            announce_interval: extreme,
            pull_jitter: extreme,
            settle: extreme,
            check_within: extreme,
            backoff_first: extreme,
            backoff_cap: extreme,
            slow_pull: extreme,
            ..AnnouncerConfig::default()
        };
        let mut driven = Driven::alone(config, 1);
        driven.it.handle_neighbor_up(peer(1), driven.now);
        for seq in 1..5 {
            driven.grow(vec![small(1, seq), large(2, seq)]);
            driven.hear_by(2, 1, vec![claim(3, seq, 0)]);
            driven.hear_digest(2, 1, digest(70 + seq));
            driven
                .it
                .handle_synced(digest(80 + seq), vec![large(5, seq)], driven.now);
            driven.it.handle_overflow(driven.now);
            for output in driven.outputs() {
                if let AnnouncerOutput::Pull { peer } = output {
                    driven.fail(peer);
                }
            }
            driven.now += SECOND;
            driven.it.handle_timeout(driven.now);
        }
    }
}
