//! Who is whose neighbour: about five links a node, as iroh-gossip keeps them.

use core::time::Duration;

use crate::network::{Network, seconds};

impl Network {
    /// A ring with chords: connected, five links a node on average.
    pub(crate) fn link_all(&mut self) {
        let nodes = self.options.nodes;
        for node in 0..nodes {
            self.link(node, (node + 1) % nodes, seconds(2));
        }
        for _ in 0..nodes * 3 / 2 {
            let (node, peer) = (self.draw_up(), self.draw_up());
            self.link(node, peer, seconds(2));
        }
    }

    fn draw_up(&mut self) -> usize {
        loop {
            let node = self.rng.below(self.options.nodes as u64) as usize;
            if self.nodes[node].up {
                return node;
            }
        }
    }

    /// Both hear of each other within this time.
    pub(crate) fn link(&mut self, node: usize, peer: usize, within: Duration) {
        if node != peer && !self.nodes[node].neighbors.contains(&peer) {
            self.tell_neighbor(node, peer, true, within);
            self.tell_neighbor(peer, node, true, within);
        }
    }

    /// A node finds new neighbours on its side.
    pub(crate) fn link_anew(&mut self, node: usize, links: usize) {
        let side = self.nodes[node].side;
        let others: Vec<_> = (0..self.options.nodes)
            .filter(|peer| *peer != node && self.nodes[*peer].up && self.nodes[*peer].side == side)
            .collect();
        for _ in 0..links.min(others.len()) {
            let peer = *self.rng.pick(&others);
            self.link(node, peer, seconds(1));
        }
    }

    /// Cuts the network in two. Links across are noticed to be dead, and replaced.
    pub(crate) fn partition(&mut self) {
        let nodes = self.options.nodes;
        for node in 0..nodes {
            // Neither part is ever empty.
            let drawn = u8::from(self.rng.one_in(2));
            self.nodes[node].side = if node < 2 { node as u8 } else { drawn };
        }
        // Each part goes on as one.
        for side in 0..2 {
            let part: Vec<_> = (0..nodes).filter(|n| self.nodes[*n].side == side).collect();
            for (at, node) in part.iter().enumerate() {
                self.link(*node, part[(at + 1) % part.len()], seconds(5));
            }
        }
        for node in 0..nodes {
            for peer in self.nodes[node].neighbors.clone() {
                if self.nodes[peer].side != self.nodes[node].side {
                    self.tell_neighbor(node, peer, false, seconds(5));
                }
            }
        }
    }

    /// The parts find each other again, over a few links first.
    pub(crate) fn heal(&mut self) {
        let mut links = Vec::new();
        while links.len() <= self.options.nodes / 10 {
            let (node, peer) = (self.draw_up(), self.draw_up());
            if self.nodes[node].side != self.nodes[peer].side {
                links.push((node, peer));
            }
        }
        for node in &mut self.nodes {
            node.side = 0;
        }
        for (node, peer) in links {
            self.link(node, peer, seconds(5));
        }
    }

    /// A node stops without a word.
    pub(crate) fn stop(&mut self, node: usize) {
        self.nodes[node].up = false;
        self.nodes[node].life += 1;
        self.nodes[node].serving = 0;
        for peer in self.nodes[node].neighbors.clone() {
            self.tell_neighbor(peer, node, false, seconds(5));
            if self.nodes[peer].neighbors.len() < 4 {
                self.link_anew(peer, 1);
            }
        }
        self.count_behind();
    }

    /// And starts again.
    pub(crate) fn start(&mut self, node: usize) {
        let seed = self.rng.next();
        let config = self.options.announcer.clone();
        self.nodes[node].restart(&config, seed);
        self.link_anew(node, 4);
        self.count_behind();
    }
}
