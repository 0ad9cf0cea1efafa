//! How new events reach everybody.

use crate::{
    network::{Network, Options, seconds},
    rng::for_seeds,
};

/// A network at rest, whose nodes have found each other.
pub(crate) fn settled(options: Options, seed: u64) -> Network {
    let mut network = Network::new(options, seed);
    network.link_all();
    network.run_for(seconds(400));
    network.take_tally();
    network.take_most_serving();
    network
}

#[test]
fn a_small_event_reaches_everybody_in_one_announcement_and_without_a_pull() {
    for_seeds(3, |seed| {
        let mut network = settled(Options::new(60), seed);
        for event in 0..20 {
            network.write(event, event);
            let took = network.run_until_equal(seconds(1));
            assert!(took.as_millis() < 500, "{took:?}");
            network.run_for(seconds(1));
        }
        let tally = network.take_tally();
        assert_eq!(tally.pulls, 0);
        assert_eq!(tally.announced, 20);
        assert!(tally.periodic <= 20, "{tally:?}");
    });
}

#[test]
fn a_large_event_is_passed_on_from_node_to_node_and_nobody_is_asked_by_all() {
    for_seeds(3, |seed| {
        let mut options = Options::new(120);
        options.payload = 100_000;
        let mut network = settled(options, seed);
        network.write(7, 7);
        let took = network.run_until_equal(seconds(20));
        assert!(took < seconds(5), "{took:?}");
        network.run_for(seconds(10));
        assert!(network.take_most_serving() <= 12);
        let tally = network.take_tally();
        assert_eq!(tally.announced, 1, "{tally:?}");
        assert!(tally.pulls < 120 * 4, "{tally:?}");
    });
}

#[test]
fn a_writer_faster_than_the_announcements_is_coalesced() {
    for_seeds(3, |seed| {
        let mut network = settled(Options::new(30), seed);
        for _ in 0..500 {
            network.write(3, 3);
            network.run_for(core::time::Duration::from_millis(2));
        }
        network.run_until_equal(seconds(5));
        let tally = network.take_tally();
        // The writer's twenty, and a few by those that pulled more than they had heard of.
        assert!((10..=30).contains(&tally.announced), "{tally:?}");
    });
}

#[test]
fn more_heads_than_fit_reach_everybody_by_their_digest() {
    for_seeds(2, |seed| {
        let mut options = Options::new(30);
        options.authors = 600;
        let mut network = settled(options, seed);
        for author in 0..600 {
            network.write(5, author);
        }
        network.run_until_equal(seconds(120));
        let tally = network.take_tally();
        assert!(tally.announced <= 10, "{tally:?}");
    });
}

#[test]
fn everybody_writing_at_once_ends_in_equality() {
    for_seeds(3, |seed| {
        let mut network = settled(Options::new(60), seed);
        for round in 0..200 {
            let node = (round * 7) % 60;
            network.write(node, node);
            network.run_for(core::time::Duration::from_millis(20));
        }
        let took = network.run_until_equal(seconds(5));
        assert!(took < seconds(1), "{took:?}");
        let tally = network.take_tally();
        assert_eq!(tally.announced, 200, "{tally:?}");
        assert!(
            tally.pulls <= 60,
            "digests on their way are no reason: {tally:?}"
        );
    });
}
