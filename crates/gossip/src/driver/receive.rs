//! What comes in over the topic.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use headwater_proto::announcer::{Announcer, HeardAnnouncement};
use iroh::EndpointId;
use iroh_gossip::api::{Event, Message};
use n0_future::time::Instant;
use tracing::debug;

use super::{Driver, asking::Asked};
use crate::{
    apply::{self, Heard, HeardHeads, Passed},
    events::{BridgeEvent, peer_id},
    gate::{Ignored, Read},
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
    pub(super) fn may(&mut self, now: Instant) -> bool {
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
            LinkEvent::Gossip(Event::NeighborUp(peer)) => self.on_linked(peer).await,
            LinkEvent::Gossip(Event::NeighborDown(peer)) => self.on_unlinked(peer),
            LinkEvent::Gossip(Event::Lagged) => {
                debug!("iroh-gossip dropped messages");
                self.metrics.lagged.inc();
                self.shared.tell(BridgeEvent::Lagged);
                self.shared.announcer(Announcer::handle_overflow);
            }
            LinkEvent::Ended => self.on_all_unlinked(),
            LinkEvent::Joined => debug!("joined the topic"),
            LinkEvent::Rejoined => {
                debug!("joined the topic anew");
                self.metrics.rejoined.inc();
            }
            LinkEvent::Asked => {
                self.metrics.bootstrap_retried.inc();
            }
        }
    }

    pub(super) async fn on_message(&mut self, message: Message) {
        let Message {
            content,
            delivered_from: neighbor,
            scope,
        } = message;
        self.metrics.messages_received.inc();
        self.metrics
            .message_bytes_received
            .inc_by(content.len() as u64);
        match self.read(content, neighbor, scope.is_direct()) {
            Some(Read::Announcement(unproven)) => {
                let sender = unproven.sender();
                let asked = Asked::Announcement(Box::new(unproven));
                self.ask(sender, asked).await;
            }
            Some(Read::Runs(unproven)) => self.on_runs(unproven).await,
            Some(Read::Legacy(message)) => self.ask(neighbor, Asked::Old(message)).await,
            None => {}
        }
    }

    fn read(&mut self, content: Bytes, neighbor: EndpointId, direct: bool) -> Option<Read> {
        let now = self.shared.now();
        match self.gate.read(content, neighbor, direct, now) {
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
        let runs = waiting.iter().flat_map(|passed| match passed {
            Passed::Runs(unproven) => unproven.runs.as_slice(),
            Passed::Announcement(_) => &[],
        });
        for run in runs {
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
            match heard {
                Heard::Announcement(heard) => self.on_heard_heads(heard),
                Heard::Runs(heard) => self.on_heard_runs(heard),
            }
        }
        // While one batch follows the other the loop never finds a moment without one.
        if self.report_at.is_some_and(|at| at <= Instant::now()) {
            self.report_deferred().await;
        }
    }

    fn on_heard_heads(&mut self, heard: HeardHeads) {
        self.old.others_announced(&heard.digest, &self.digest);
        for claim in &heard.claims {
            self.fresh.heard(claim.author, claim.seq);
        }
        // A neighbour that is not to be asked is none on the way here.
        let is_asked = self.shared.is_neighbor(&heard.neighbor);
        let relay = if is_asked {
            heard.neighbor
        } else {
            heard.sender
        };
        let contradicted = heard.contradicts.then(|| peer_id(heard.sender));
        let heard = HeardAnnouncement {
            from: peer_id(heard.sender),
            delivered_by: peer_id(relay),
            digest: heard.digest,
            periodic: heard.periodic,
            claims: heard.claims,
            forks: heard.forks,
        };
        self.shared.announcer(|it, now| {
            it.handle_announcement(heard, now);
            if let Some(sender) = contradicted {
                it.handle_contradiction(sender, now);
            }
        });
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
