//! This node's place on one topic of iroh-gossip: kept, and taken again when it is lost.
//!
//! ```text
//! joined ── ended, or stuck ──▶ away ── back-off ──▶ joined
//!   └── no neighbour ── back-off ──▶ bootstrap and remembered peers are asked again
//! ```

use std::{collections::VecDeque, time::Duration};

use bytes::Bytes;
use iroh::EndpointId;
use iroh_gossip::{
    TopicId,
    api::{ApiError, Event, GossipReceiver, GossipSender, JoinOptions},
    net::Gossip,
};
use n0_future::{
    StreamExt,
    time::{Instant, sleep_until, timeout},
};
use tracing::{debug, warn};

use crate::limits::BridgeLimits;

/// What happened on the topic.
#[derive(Debug)]
pub(crate) enum LinkEvent {
    /// iroh-gossip says this.
    Gossip(Event),
    /// The topic was lost; every neighbour with it.
    Ended,
    /// The topic was joined anew.
    Rejoined,
    /// Peers known were asked again, as there was no neighbour.
    Asked,
}

/// A broadcast was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("iroh-gossip took no message")]
pub(crate) struct NotTaken;

/// One topic.
#[derive(Debug)]
pub(crate) struct Link {
    gossip: Gossip,
    topic: TopicId,
    limits: BridgeLimits,
    joined: Option<(GossipSender, GossipReceiver)>,
    /// The topic was lost, and nobody was told yet.
    ended: bool,
    alone: bool,
    retry_at: Instant,
    pause: Duration,
    /// Peers to ask when there is no neighbour, the longest known first.
    known: VecDeque<EndpointId>,
}

impl Link {
    /// Joins a topic. Does not wait for a neighbour.
    pub(crate) async fn join(
        gossip: Gossip,
        topic: TopicId,
        bootstrap: Vec<EndpointId>,
        limits: BridgeLimits,
    ) -> Result<Self, ApiError> {
        let mut link = Self {
            gossip,
            topic,
            joined: None,
            ended: false,
            alone: true,
            retry_at: Instant::now() + limits.rejoin.0,
            pause: limits.rejoin.0,
            known: VecDeque::new(),
            limits,
        };
        link.remember(bootstrap);
        link.joined = Some(link.subscribe().await?);
        Ok(link)
    }

    async fn subscribe(&self) -> Result<(GossipSender, GossipReceiver), ApiError> {
        let options = JoinOptions {
            bootstrap: self.known.iter().copied().collect(),
            subscription_capacity: self.limits.topic_queue.max(1),
        };
        let topic = self.gossip.subscribe_with_opts(self.topic, options).await?;
        Ok(topic.split())
    }

    /// Peers to ask again when every neighbour is gone.
    pub(crate) fn remember(&mut self, peers: impl IntoIterator<Item = EndpointId>) {
        for peer in peers {
            if self.known.contains(&peer) {
                continue;
            }
            if self.known.len() >= self.limits.remembered_peers.max(1) {
                self.known.pop_front();
            }
            self.known.push_back(peer);
        }
    }

    /// Asks peers to become neighbours.
    pub(crate) async fn ask(&mut self, peers: Vec<EndpointId>) {
        self.remember(peers.iter().copied());
        if let Some((sender, _)) = &self.joined
            && !peers.is_empty()
        {
            let asked = timeout(self.limits.broadcast_timeout, sender.join_peers(peers)).await;
            if !matches!(asked, Ok(Ok(()))) {
                self.lose();
            }
        }
    }

    /// Whether there is no neighbour: then known peers are asked from time to time.
    pub(crate) fn set_alone(&mut self, alone: bool) {
        if self.alone != alone {
            self.alone = alone;
            self.pause = self.limits.rejoin.0;
            self.retry_at = Instant::now() + self.pause;
        }
    }

    /// Hands a message to iroh-gossip, which is known to fit.
    pub(crate) async fn broadcast(&mut self, message: Bytes) -> Result<(), NotTaken> {
        let Some((sender, _)) = &self.joined else {
            return Err(NotTaken);
        };
        match timeout(self.limits.broadcast_timeout, sender.broadcast(message)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => {
                debug!(%error, "the topic is closed");
                self.lose();
                Err(NotTaken)
            }
            Err(_elapsed) => {
                warn!("iroh-gossip takes no message: joining the topic anew");
                self.lose();
                Err(NotTaken)
            }
        }
    }

    /// What happens next. Safe to cancel.
    pub(crate) async fn next(&mut self) -> LinkEvent {
        if std::mem::take(&mut self.ended) {
            return LinkEvent::Ended;
        }
        let retry = sleep_until(self.retry_at);
        let Some((_, receiver)) = &mut self.joined else {
            retry.await;
            return self.rejoin().await;
        };
        let asks = self.alone && !self.known.is_empty();
        let event = tokio::select! {
            event = receiver.next() => Some(event),
            () = retry, if asks => None,
        };
        match event {
            Some(Some(Ok(event))) => LinkEvent::Gossip(event),
            Some(ended) => {
                debug!(?ended, "the topic ended");
                self.lose();
                self.ended = false;
                LinkEvent::Ended
            }
            None => {
                self.back_off();
                self.ask(self.known.iter().copied().collect()).await;
                LinkEvent::Asked
            }
        }
    }

    async fn rejoin(&mut self) -> LinkEvent {
        self.back_off();
        match timeout(self.limits.broadcast_timeout, self.subscribe()).await {
            Ok(Ok(joined)) => {
                self.joined = Some(joined);
                LinkEvent::Rejoined
            }
            Ok(Err(error)) => {
                debug!(%error, "cannot join the topic");
                LinkEvent::Ended
            }
            Err(_elapsed) => LinkEvent::Ended,
        }
    }

    fn back_off(&mut self) {
        self.retry_at = Instant::now() + self.pause;
        self.pause = (self.pause * 2).min(self.limits.rejoin.1.max(self.limits.rejoin.0));
    }

    fn lose(&mut self) {
        if self.joined.take().is_some() {
            self.ended = true;
            self.alone = true;
            self.back_off();
        }
    }
}
