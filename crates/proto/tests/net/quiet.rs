//! What a network says when there is nothing to say.

use crate::{
    network::{Options, seconds},
    rng::for_seeds,
    spread::settled,
};

#[test]
fn in_a_quiet_network_nearly_everybody_is_silent_and_nobody_pulls() {
    for_seeds(3, |seed| {
        let options = Options::new(100);
        let most = options.announcer.trickle.i_min * 32;
        let mut network = settled(options, seed);
        let intervals = 20;
        network.run_for(most * intervals);
        let periodic: Vec<_> = network.nodes.iter().map(|n| n.tally.periodic).collect();
        let tally = network.take_tally();
        assert_eq!((tally.announced, tally.pulls), (0, 0));
        // At most one for each node and interval; in all, a few for each interval (k is 2).
        assert!(periodic.iter().all(|made| *made <= u64::from(intervals)));
        assert!(tally.periodic <= u64::from(intervals) * 8, "{tally:?}");
        assert!(tally.periodic >= u64::from(intervals), "{tally:?}");
    });
}

#[test]
fn a_node_alone_says_nothing_and_is_never_woken() {
    let mut options = Options::new(1);
    options.authors = 3;
    let mut network = settled(options, 1);
    network.write(0, 2);
    network.run_for(seconds(100));
    assert_eq!(network.nodes[0].announcer.next_timeout(), None);
    assert_eq!(network.take_tally().announced, 0);
}
