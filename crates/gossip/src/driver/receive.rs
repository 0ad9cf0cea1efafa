//! What comes in over the topic.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use headwater_proto::announcer::{Announcer, HeardAnnouncement};
use iroh::EndpointId;
use iroh_gossip::api::{Event, Message};
use n0_future::time::Instant;
use tracing::debug;

use super::Driver;
use crate::{
    apply::{self, Heard},
    events::{BridgeEvent, peer_id},
    gate::{Ignored, Read, Unproven},
    link::LinkEvent,
};

/// Something done at most once in a while.
#[derive(Debug)]
pub(crate) struct Seldom {
    every: Duration,
    again_at: Option<Instant>,
}

impl Seldom {
    pub(crate) fn new(every: Duration) -> Self {
        Self {
            every,
            again_at: None,
        }
    }

    /// Whether it may be done now; then it is taken for done.
    fn may(&mut self, now: Instant) -> bool {
        let may = self.again_at.is_none_or(|at| at <= now);
        if may {
            self.again_at = Some(now + self.every);
        }
        may
    }
}

impl Driver {
    pub(super) async fn on_link(&mut self, event: LinkEvent) {
        match event {
            LinkEvent::Gossip(Event::Received(message)) => self.on_message(message).await,
            LinkEvent::Gossip(Event::NeighborUp(peer)) => self.on_neighbor_up(peer),
            LinkEvent::Gossip(Event::NeighborDown(peer)) => self.on_neighbor_down(peer),
            LinkEvent::Gossip(Event::Lagged) => {
                debug!("iroh-gossip dropped messages");
                self.metrics.lagged.inc();
                self.shared.tell(BridgeEvent::Lagged);
                self.shared.announcer(Announcer::handle_overflow);
            }
            LinkEvent::Ended => {
                for peer in self.shared.neighbors() {
                    self.on_neighbor_down(peer);
                }
            }
            LinkEvent::Rejoined => {
                debug!("joined the topic anew");
                self.metrics.rejoined.inc();
            }
            LinkEvent::Asked => {
                self.metrics.bootstrap_retried.inc();
            }
        }
    }

    fn on_neighbor_up(&mut self, peer: EndpointId) {
        if !self.shared.neighbor_up(peer) {
            return;
        }
        debug!(peer = %peer.fmt_short(), "neighbour up");
        self.metrics.neighbors_up.inc();
        self.link.remember([peer]);
        self.link.set_alone(false);
        self.shared
            .announcer(|it, now| it.handle_neighbor_up(peer_id(peer), now));
    }

    fn on_neighbor_down(&mut self, peer: EndpointId) {
        if !self.shared.neighbor_down(peer) {
            return;
        }
        debug!(peer = %peer.fmt_short(), "neighbour down");
        self.metrics.neighbors_down.inc();
        self.link.set_alone(self.shared.is_alone());
        self.shared
            .announcer(|it, now| it.handle_neighbor_down(peer_id(peer), now));
    }

    async fn on_message(&mut self, message: Message) {
        let Message {
            content,
            delivered_from: neighbor,
            ..
        } = message;
        self.metrics.messages_received.inc();
        self.metrics
            .message_bytes_received
            .inc_by(content.len() as u64);
        match self.read(content, neighbor) {
            Some(Read::Announcement(unproven)) => self.on_unproven(unproven, neighbor).await,
            Some(Read::Legacy(message)) => self.on_old_message(message, neighbor).await,
            None => {}
        }
    }

    fn read(&mut self, content: Bytes, neighbor: EndpointId) -> Option<Read> {
        let now = self.shared.now();
        match self.gate.read(content, neighbor, now) {
            Ok(read) => Some(read),
            Err((ignored, sender)) => {
                self.ignore(&ignored, sender, neighbor);
                if ignored == Ignored::NeighborTooOften {
                    self.on_unread();
                }
                None
            }
        }
    }

    /// A message was dropped unread: it may have been news. Told of once in a while, as whoever
    /// floods the topic would have this node pull all the time.
    fn on_unread(&mut self) {
        if self.unread.may(Instant::now()) {
            self.shared.announcer(Announcer::handle_overflow);
        }
    }

    async fn on_unproven(&mut self, unproven: Unproven, neighbor: EndpointId) {
        let sender = unproven.sender();
        let policy = Arc::clone(self.space.node().policy());
        if !policy.may_read(sender, self.space.id()).await {
            self.ignore(&Ignored::Refused, Some(sender), neighbor);
            return;
        }
        let now = self.shared.now();
        match self.gate.prove(unproven, now) {
            Ok(proven) => {
                let said = &proven.announcement;
                // Overtaken by a later one, and with nothing to say but what that said better.
                let outdated = !proven.newest && said.changed.is_empty() && said.inline.is_empty();
                if !outdated {
                    self.waiting.push(proven);
                }
            }
            Err(ignored) => self.ignore(&ignored, Some(sender), neighbor),
        }
    }

    /// At debug, though it is a peer's fault: whoever floods the topic would fill the log.
    pub(super) fn ignore(
        &self,
        ignored: &Ignored,
        sender: Option<EndpointId>,
        neighbor: EndpointId,
    ) {
        self.metrics.count(ignored);
        let sender = sender.map(|sender| sender.fmt_short().to_string());
        debug!(?sender, neighbor = %neighbor.fmt_short(), %ignored, "ignored a message");
    }

    /// Starts on what waits, if nothing is being applied.
    pub(super) fn apply_waiting(&mut self) {
        if self.applying.is_some() || self.waiting.is_empty() {
            return;
        }
        let waiting = std::mem::take(&mut self.waiting);
        for run in waiting.iter().flat_map(|proven| &proven.runs) {
            let through = self.in_flight.entry(run.author()).or_default();
            *through = run.last_seq().max(*through);
        }
        let metrics = Arc::clone(&self.metrics);
        let applying = apply::apply(self.space.clone(), waiting, metrics);
        self.applying = Some(Box::pin(applying));
    }

    pub(super) async fn on_applied(&mut self, applied: Vec<Heard>) {
        self.in_flight.clear();
        for heard in applied {
            self.old.others_announced(&heard.digest, &self.digest);
            for claim in &heard.claims {
                self.fresh.heard(claim.author, claim.seq);
            }
            let heard = HeardAnnouncement {
                from: peer_id(heard.sender),
                delivered_by: peer_id(heard.neighbor),
                digest: heard.digest,
                periodic: heard.periodic,
                claims: heard.claims,
            };
            self.shared
                .announcer(|it, now| it.handle_announcement(heard, now));
        }
        // While one batch follows the other the loop never finds a moment without one.
        if self.report_at.is_some_and(|at| at <= Instant::now()) {
            self.report_deferred().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_seldom_is_done_at_once_and_then_once_in_each_while() {
        let every = Duration::from_secs(4);
        let (mut seldom, start) = (Seldom::new(every), Instant::now());
        assert!(seldom.may(start));
        assert!(!seldom.may(start));
        assert!(!seldom.may(start + every / 2));
        assert!(seldom.may(start + every));
        assert!(!seldom.may(start + every));
    }
}
