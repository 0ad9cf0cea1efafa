//! The figures of `docs/gossip-scale.md`.

use core::time::Duration;

use crate::{
    heal::write_some,
    network::{Network, Options, seconds},
    node::Tally,
    spread::settled,
};

/// One line of the table.
struct Line {
    work: &'static str,
    nodes: usize,
    /// What the figures are divided by, beside the nodes.
    per: f64,
    took: Vec<Duration>,
    tally: Tally,
    most_serving: usize,
}

impl Line {
    fn print(&self) {
        let mut took = self.took.clone();
        took.sort();
        let seconds = |at: usize| {
            took.get(at)
                .map_or("—".into(), |t| format!("{:.1}", t.as_secs_f64()))
        };
        let share = |count: u64| count as f64 / self.nodes as f64 / self.per;
        let tally = &self.tally;
        println!(
            "| {} | {} | {} / {} | {} + {} | {:.2} | {:.0} | {:.2} | {:.2} | {:.2} | {} |",
            self.work,
            self.nodes,
            seconds(took.len().saturating_sub(1) / 2),
            seconds(took.len().saturating_sub(1)),
            tally.announced,
            tally.periodic,
            share(tally.heard),
            share(tally.heard_bytes),
            share(tally.copies),
            share(tally.pulls - tally.idle_pulls),
            share(tally.idle_pulls),
            self.most_serving,
        );
    }
}

/// Writes `events` one by one, waiting for each, and `pause` after it.
fn each(work: &'static str, mut network: Network, events: usize, pause: Duration) -> Line {
    let nodes = network.options.nodes;
    let mut took = Vec::new();
    for event in 0..events {
        let writer = event * 7 % nodes;
        network.write(writer, writer);
        took.push(network.run_until_equal(seconds(600)));
        network.run_for(pause);
    }
    line(work, &mut network, events as f64, took)
}

fn line(work: &'static str, network: &mut Network, per: f64, took: Vec<Duration>) -> Line {
    Line {
        work,
        nodes: network.options.nodes,
        per,
        took,
        tally: network.take_tally(),
        most_serving: network.take_most_serving(),
    }
}

fn quiet(nodes: usize, seed: u64) -> Line {
    let mut network = settled(Options::new(nodes), seed);
    let interval = seconds(128);
    network.run_for(interval * 20);
    line(
        "nothing, a Trickle interval of 128 s",
        &mut network,
        20.0,
        Vec::new(),
    )
}

fn start(nodes: usize, seed: u64) -> Line {
    let mut network = Network::new(Options::new(nodes), seed);
    network.link_all();
    network.run_for(seconds(252));
    line(
        "all start at once, the first four minutes",
        &mut network,
        1.0,
        Vec::new(),
    )
}

fn small(nodes: usize, seed: u64) -> Line {
    let network = settled(Options::new(nodes), seed);
    each(
        "an event of 200 bytes, once a second",
        network,
        50,
        seconds(1),
    )
}

fn large(nodes: usize, seed: u64) -> Line {
    let mut options = Options::new(nodes);
    options.payload = 100_000;
    let network = settled(options, seed);
    each(
        "an event of 100 kB, every ten seconds",
        network,
        20,
        seconds(10),
    )
}

fn busy(nodes: usize, seed: u64) -> Line {
    let mut network = settled(Options::new(nodes), seed);
    for round in 0..1_000 {
        let writer = round * 7 % nodes;
        network.write(writer, writer);
        network.run_for(Duration::from_millis(50));
    }
    let took = network.run_until_equal(seconds(600));
    line(
        "20 events of 200 bytes a second",
        &mut network,
        1_000.0,
        vec![took],
    )
}

fn fast(nodes: usize, seed: u64) -> Line {
    let mut network = settled(Options::new(nodes), seed);
    for _ in 0..1_000 {
        network.write(3, 3);
        network.run_for(Duration::from_millis(10));
    }
    let took = network.run_until_equal(seconds(600));
    line(
        "100 events of 200 bytes a second, one log",
        &mut network,
        1_000.0,
        vec![took],
    )
}

fn lossy(nodes: usize, seed: u64) -> Line {
    let mut options = Options::new(nodes);
    (options.lost_copies, options.unread) = (100, 10);
    let mut network = settled(options, seed);
    network.run_for(seconds(1));
    write_some(&mut network, 100, seconds(1));
    let took = network.run_until_equal(seconds(900));
    line(
        "an event a second, 1 % of what arrives is lost unnoticed",
        &mut network,
        100.0,
        vec![took],
    )
}

fn partitioned(nodes: usize, seed: u64) -> Line {
    let mut network = settled(Options::new(nodes), seed);
    network.partition();
    network.run_for(seconds(10));
    write_some(&mut network, 100, seconds(1));
    network.run_for(seconds(200));
    network.take_tally();
    network.take_most_serving();
    network.heal();
    let took = network.run_until_equal(seconds(900));
    network.run_for(seconds(30));
    line(
        "two halves meet after 100 events apart",
        &mut network,
        100.0,
        vec![took],
    )
}

fn churning(nodes: usize, seed: u64) -> Line {
    let mut network = settled(Options::new(nodes), seed);
    for _ in 0..100 {
        let node = network.rng.below(nodes as u64) as usize;
        if network.nodes[node].up {
            network.stop(node);
        } else {
            network.start(node);
        }
        write_some(&mut network, 1, seconds(1));
    }
    for node in 0..nodes {
        if !network.nodes[node].up {
            network.start(node);
        }
    }
    let took = network.run_until_equal(seconds(900));
    // Whoever is down writes nothing.
    let events: u64 = network.written.iter().sum();
    line(
        "an event a second, with each a node stops or starts",
        &mut network,
        events as f64,
        vec![took],
    )
}

#[test]
#[ignore = "prints the table for the docs; in a release build, a minute"]
fn prints_what_a_growing_network_costs() {
    let sizes = std::env::var("HEADWATER_NET_NODES").unwrap_or_else(|_| "10,100,1000".into());
    let seed = std::env::var("HEADWATER_SEED").unwrap_or_else(|_| "1".into());
    let seed = seed.parse().expect("a seed is a number");
    let works = [
        small,
        large,
        busy,
        fast,
        quiet,
        start,
        lossy,
        partitioned,
        churning,
    ];
    for work in works {
        for nodes in sizes.split(',') {
            let nodes = nodes.trim().parse().expect("a number of nodes");
            work(nodes, seed).print();
        }
    }
}
