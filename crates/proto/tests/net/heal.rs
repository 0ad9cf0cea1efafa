//! Loss, partition and churn: in the end everybody holds everything.

use core::time::Duration;

use crate::{
    network::{Network, Options, seconds},
    rng::for_seeds,
    spread::settled,
};

/// Random nodes write, one event every `pause`.
pub(crate) fn write_some(network: &mut Network, events: usize, pause: Duration) {
    for _ in 0..events {
        let node = network.rng.below(network.options.authors as u64) as usize;
        if network.nodes[node].up {
            network.write(node, node);
        }
        network.run_for(pause);
    }
}

#[test]
fn parts_of_a_network_that_wrote_apart_become_equal_when_they_meet() {
    for_seeds(5, |seed| {
        let mut network = settled(Options::new(50), seed);
        network.partition();
        network.run_for(seconds(10));
        write_some(&mut network, 60, Duration::from_millis(300));
        network.run_for(seconds(60));
        network.heal();
        let took = network.run_until_equal(seconds(60));
        assert!(took < seconds(20), "{took:?}");
    });
}

#[test]
fn announcements_lost_unnoticed_are_healed_by_the_next_or_by_a_digest() {
    for_seeds(5, |seed| {
        let mut options = Options::new(50);
        (options.lost_copies, options.unread) = (200, 50);
        let mut network = settled(options, seed);
        write_some(&mut network, 60, Duration::from_millis(500));
        let took = network.run_until_equal(seconds(600));
        assert!(took < seconds(300), "{took:?}");
    });
}

#[test]
fn a_loss_that_was_noticed_is_healed_at_once() {
    for_seeds(5, |seed| {
        let mut options = Options::new(50);
        (options.unread, options.notices_unread) = (100, true);
        let mut network = settled(options, seed);
        write_some(&mut network, 60, Duration::from_millis(500));
        let took = network.run_until_equal(seconds(60));
        assert!(took < seconds(5), "{took:?}");
    });
}

#[test]
fn nodes_that_come_and_go_end_up_with_everything() {
    for_seeds(5, |seed| {
        let mut network = settled(Options::new(50), seed);
        let mut away = Vec::new();
        for _ in 0..40 {
            if let Some(node) = away.pop().filter(|_| network.rng.one_in(2)) {
                network.start(node);
            } else {
                let node = network.rng.below(50) as usize;
                if network.nodes[node].up {
                    network.stop(node);
                    away.push(node);
                }
            }
            write_some(&mut network, 3, Duration::from_millis(700));
        }
        for node in 0..50 {
            if !network.nodes[node].up {
                network.start(node);
            }
        }
        let took = network.run_until_equal(seconds(120));
        assert!(took < seconds(60), "{took:?}");
    });
}

#[test]
fn a_node_that_was_away_catches_up_with_one_pull_and_troubles_nobody_else() {
    for_seeds(5, |seed| {
        let mut options = Options::new(50);
        options.payload = 500;
        let mut network = settled(options, seed);
        network.stop(9);
        network.run_for(seconds(10));
        for round in 0..100 {
            network.write(10 + round % 5, 10 + round % 5);
            network.run_for(Duration::from_millis(100));
        }
        network.run_for(seconds(60));
        network.take_tally();
        network.start(9);
        let took = network.run_until_equal(seconds(10));
        assert!(took < seconds(3), "{took:?}");
        network.run_for(seconds(60));
        let tally = network.take_tally();
        assert_eq!(
            tally.announced, 0,
            "what it caught up with is no news: {tally:?}"
        );
        // Each new link is compared once from each side, and one of these pulls brought it all.
        assert_eq!(tally.pulls - tally.idle_pulls, 1, "{tally:?}");
        assert!(tally.pulls <= 12, "{tally:?}");
    });
}

#[test]
fn peers_that_refuse_every_pull_delay_nobody_for_long() {
    for_seeds(5, |seed| {
        let mut options = Options::new(40);
        options.payload = 50_000;
        let mut network = settled(options, seed);
        network.refusing = (0..10).collect();
        for node in 10..40 {
            if network.rng.one_in(3) {
                network.write(node, node);
            }
        }
        network.run_until_equal(seconds(120));
    });
}
