//! Nodes that promise and do not deliver, or never answer: what they cost the others.

use core::time::Duration;

use crate::{
    network::{Network, Options, seconds},
    rng::for_seeds,
    spread::settled,
};

/// So many of the nodes, the first ones, do not keep what they promise.
const LIARS: usize = 8;

fn large(nodes: usize) -> Options {
    let mut options = Options::new(nodes);
    options.payload = 50_000;
    options
}

/// Pulls of honest nodes from one of `asked`: the mean of all, and the most of one pair.
fn pulls_from(network: &Network, asked: core::ops::Range<usize>) -> (f64, u64) {
    let honest = |(from, to): (usize, usize)| from >= LIARS && asked.contains(&to);
    let pulls = network.asked.iter().filter(|(pair, _)| honest(**pair));
    let (mut all, mut most) = (0, 0);
    for (_, count) in pulls {
        all += *count;
        most = most.max(*count);
    }
    (all as f64 / asked.len() as f64, most)
}

#[test]
fn peers_that_announce_what_they_keep_back_are_pulled_from_less_than_honest_ones() {
    for_seeds(3, |seed| {
        let mut network = settled(large(40), seed);
        network.withholding = (0..LIARS).collect();
        network.asked.clear();
        for round in 0..120 {
            let writer = LIARS + round % (40 - LIARS);
            network.write(writer, writer);
            // They are next to everybody by now, and say at once that they have it as well.
            let seq = network.written[writer];
            (0..LIARS).for_each(|liar| network.claim(liar, writer, seq));
            network.run_for(seconds(1));
        }
        network.run_for(seconds(600));
        // Each writes, and holds, what the others hold: nobody lost anything by the lies.
        let honest = &network.nodes[LIARS..];
        let behind = honest.iter().filter(|node| node.heads != network.written);
        let behind: Vec<_> = behind.map(|node| &node.neighbors).collect();
        assert!(behind.is_empty(), "{behind:?}");
        let withheld: u64 = honest
            .iter()
            .map(|node| node.announcer.status().counters.withheld)
            .sum();
        assert!(withheld > 0, "they are known to have had it");
        let (liars, _) = pulls_from(&network, 0..LIARS);
        let (others, _) = pulls_from(&network, LIARS..40);
        assert!(
            2.0 * liars < others,
            "{liars:.0} from a liar, {others:.0} from another"
        );
    });
}

#[test]
fn heads_that_their_authors_sign_and_nobody_holds_cost_a_pull_in_ever_longer_pauses() {
    for_seeds(2, |seed| {
        let mut network = settled(large(24), seed);
        network.withholding = (0..LIARS).collect();
        network.asked.clear();
        let mut seqs = network.written.clone();
        for _ in 0..1_200 {
            for (liar, seq) in seqs.iter_mut().enumerate().take(LIARS) {
                *seq += 1;
                network.claim(liar, liar, *seq);
            }
            network.run_for(Duration::from_millis(100));
        }
        // In two minutes: pauses of 2, 4, 8, 16, 32 and 64 s.
        let (_, most) = pulls_from(&network, 0..LIARS);
        let (_, relays) = pulls_from(&network, LIARS..24);
        assert!(relays <= 100, "{relays} pulls from one that relayed it");
        assert!(most <= 10, "{most} pulls from one liar in two minutes");
        // What honest nodes write meanwhile goes its way.
        network.written[..LIARS].copy_from_slice(&network.nodes[LIARS].heads[..LIARS]);
        network.write(20, 20);
        network.run_for(seconds(30));
        let holds = |node: &&crate::node::Node| node.heads[20] == network.written[20];
        let held = network.nodes[LIARS..].iter().filter(holds).count();
        assert_eq!(held, 24 - LIARS);
    });
}

#[test]
fn peers_that_never_answer_a_pull_keep_nobody_from_the_others() {
    for_seeds(5, |seed| {
        let mut network = settled(large(40), seed);
        network.stalling = (0..LIARS).collect();
        // All of them have something to say, at the same time.
        for liar in 0..LIARS {
            network.claim(liar, liar, 1_000);
        }
        network.run_for(seconds(2));
        network.write(20, 20);
        network.run_for(seconds(90));
        let holds = |node: &&crate::node::Node| node.heads[20] == network.written[20];
        let held = network.nodes[LIARS..].iter().filter(holds).count();
        assert_eq!(held, 40 - LIARS, "of the honest ones");
    });
}
