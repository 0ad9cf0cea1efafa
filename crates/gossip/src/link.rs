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
    boxed::BoxFuture,
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
    /// The topic was joined for the first time.
    Joined,
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
pub(crate) struct Link {
    gossip: Gossip,
    topic: TopicId,
    limits: BridgeLimits,
    joined: Option<(GossipSender, GossipReceiver)>,
    /// The topic is being joined. Kept, so that waiting for it can be cancelled.
    joining: Option<BoxFuture<Option<(GossipSender, GossipReceiver)>>>,
    was_joined: bool,
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
        let mut link = Self::away(gossip, topic, bootstrap, limits);
        link.joined = Some(link.subscribe().await?);
        link.was_joined = true;
        link.retry_at = Instant::now() + link.pause;
        Ok(link)
    }

    /// A topic that is joined as soon as this is asked what happens next.
    fn away(
        gossip: Gossip,
        topic: TopicId,
        bootstrap: Vec<EndpointId>,
        limits: BridgeLimits,
    ) -> Self {
        let mut link = Self {
            gossip,
            topic,
            joined: None,
            joining: None,
            was_joined: false,
            ended: false,
            alone: true,
            retry_at: Instant::now(),
            pause: limits.rejoin.0,
            known: VecDeque::new(),
            limits,
        };
        link.remember(bootstrap);
        link
    }

    /// A place on another topic, joined as soon as it is asked what happens next.
    pub(crate) fn elsewhere(&self, topic: TopicId, bootstrap: Vec<EndpointId>) -> Self {
        Self::away(self.gossip.clone(), topic, bootstrap, self.limits.clone())
    }

    /// Peers to ask when there is no neighbour.
    pub(crate) fn known(&self) -> Vec<EndpointId> {
        self.known.iter().copied().collect()
    }

    fn subscribe(
        &self,
    ) -> impl Future<Output = Result<(GossipSender, GossipReceiver), ApiError>> + use<> {
        let options = JoinOptions {
            bootstrap: self.known.iter().copied().collect(),
            subscription_capacity: self.limits.topic_queue.max(1),
        };
        let (gossip, topic) = (self.gossip.clone(), self.topic);
        async move {
            let topic = gossip.subscribe_with_opts(topic, options).await?;
            Ok(topic.split())
        }
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
            if self.joining.is_none() {
                retry.await;
            }
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
        if self.joining.is_none() {
            self.back_off();
            let joining = timeout(self.limits.broadcast_timeout, self.subscribe());
            self.joining = Some(Box::pin(async move {
                let failed = |error| debug!(%error, "cannot join the topic");
                joining.await.ok()?.map_err(failed).ok()
            }));
        }
        let Some(joining) = &mut self.joining else {
            return LinkEvent::Ended;
        };
        let joined = joining.await;
        self.joining = None;
        self.joined = joined;
        if self.joined.is_none() {
            return LinkEvent::Ended;
        }
        match std::mem::replace(&mut self.was_joined, true) {
            true => LinkEvent::Rejoined,
            false => LinkEvent::Joined,
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
