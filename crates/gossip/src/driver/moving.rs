//! Following the topic secret: when the owner's log sets a new one, this node moves to its topic.
//!
//! ```text
//! owner's log grew ──▶ look for a secret ──▶ nobody on the old topic hears any more
//!                                              │ who may be asked over there? (policy)
//!                                              ▼
//!              new topic joined; the old one heard on for BridgeLimits::topic_grace, then left
//! ```
//!
//! A secret is replaced because somebody is no longer to hear. So the event that sets it never
//! is sent to everybody, only its head is announced: whoever may read pulls it. From the moment
//! this node knows of it nothing is said on the old topic. Peers that the policy refuses are not
//! asked to join the new one, as the question would name the topic.
//!
//! Who missed the change goes on speaking on the old topic, and is pulled from when it is heard:
//! a pull makes the other side ask back.

use std::time::Duration;

use headwater::{LogGrowth, Space, StoreError};
use headwater_wire::{AuthorId, kind};
use iroh::EndpointId;
use iroh_gossip::api::Event;
use n0_future::{
    StreamExt,
    boxed::BoxFuture,
    join_all,
    time::{Instant, sleep_until},
};
use tracing::{debug, info, warn};

use super::{Driver, receive::Seldom};
use crate::{
    events::BridgeEvent,
    limits::BridgeLimits,
    link::{Link, LinkEvent},
    topic::{TopicSecret, topic_id},
};

/// The secret a topic is derived from, and where to look for the next.
pub(crate) struct Moving {
    grace: Duration,
    /// Whose log sets the secret; `None` while nothing is held.
    owner: Option<AuthorId>,
    /// The owner's log as a whole was not looked through yet.
    look_at_all: bool,
    /// Events of it that came since: above, through.
    unread: Option<(u64, u64)>,
    looking: Option<BoxFuture<Option<TopicSecret>>>,
    /// The secret to move to, and who may be asked to come along.
    asking: Option<BoxFuture<(TopicSecret, Vec<EndpointId>)>>,
    /// The topic that was left for another, and when not to hear it any more.
    before: Option<(Link, Instant)>,
    /// When somebody who is still there is pulled from.
    stragglers: Seldom,
}

/// What is due.
pub(super) enum Moved {
    Looked(Option<TopicSecret>),
    Asked(TopicSecret, Vec<EndpointId>),
    Heard(LinkEvent),
    GraceEnded,
}

impl Moving {
    /// Begins with a look for a secret that was stored before.
    pub(crate) fn new(
        owner: Option<AuthorId>,
        limits: &BridgeLimits,
        stragglers_every: Duration,
    ) -> Self {
        Self {
            grace: limits.topic_grace,
            owner,
            look_at_all: owner.is_some(),
            unread: None,
            looking: None,
            asking: None,
            before: None,
            stragglers: Seldom::new(stragglers_every),
        }
    }

    /// Notes who the owner is. What was stored before that was known is looked through.
    pub(super) fn set_owner(&mut self, owner: AuthorId) {
        if self.owner.replace(owner).is_none() {
            self.look_at_all = true;
        }
    }

    /// Whether the topic is being left, and nobody on it is to hear this node any more.
    pub(super) fn is_leaving(&self) -> bool {
        self.asking.is_some()
    }

    /// Whether what grew sets a secret, as far as that is at hand: then it must not travel on the
    /// topic.
    pub(super) fn is_secret(&self, growth: &LogGrowth) -> bool {
        self.owner.is_none_or(|owner| owner == growth.author)
            && growth.run.as_ref().is_some_and(|run| {
                run.events()
                    .any(|event| event.header.kind == kind::TOPIC_SECRET)
            })
    }

    /// Notes that a log grew. Returns the secret that this sets, if it is at hand.
    pub(super) fn note(&mut self, growth: &LogGrowth) -> Option<TopicSecret> {
        if self.owner != Some(growth.author) {
            return None;
        }
        if let Some(run) = &growth.run {
            let set = run.events().filter_map(|event| event.topic_secret()).last();
            return set.map(TopicSecret::from_bytes);
        }
        let (above, through) = self.unread.unwrap_or((growth.above, growth.through));
        self.unread = Some((above.min(growth.above), through.max(growth.through)));
        None
    }

    /// Looks through what grew, if nothing else is being looked through.
    pub(super) fn look(&mut self, space: &Space) {
        let (None, Some(owner)) = (&self.looking, self.owner) else {
            return;
        };
        let space = space.clone();
        let looking: BoxFuture<_> = if std::mem::take(&mut self.look_at_all) {
            self.unread = None;
            Box::pin(async move { space.topic_secret().await })
        } else if let Some((above, through)) = self.unread.take() {
            let mut events = space.events(owner, above + 1..=through);
            Box::pin(async move {
                let mut latest = None;
                while let Some(event) = events.next().await {
                    latest = event?.topic_secret().or(latest);
                }
                Ok(latest)
            })
        } else {
            return;
        };
        self.looking = Some(Box::pin(async move {
            let failed = |error: StoreError| warn!(%error, "cannot look for the topic's secret");
            let secret = looking.await.map_err(failed).ok().flatten();
            secret.map(TopicSecret::from_bytes)
        }));
    }

    /// What happens next. Safe to cancel.
    pub(super) async fn next(&mut self) -> Moved {
        let Self {
            looking,
            asking,
            before,
            ..
        } = self;
        let before = async {
            match before {
                None => std::future::pending().await,
                Some((link, until)) => tokio::select! {
                    event = link.next() => Moved::Heard(event),
                    () = sleep_until(*until) => Moved::GraceEnded,
                },
            }
        };
        tokio::select! {
            secret = super::running(looking) => Moved::Looked(secret),
            (secret, peers) = super::running(asking) => Moved::Asked(secret, peers),
            moved = before => moved,
        }
    }
}

impl Driver {
    /// The owner's log sets this secret. If it is another than the topic's, nobody hears this node
    /// on the topic from now on, and it moves as soon as it knows who may be told of the new one.
    pub(super) async fn on_secret(&mut self, secret: TopicSecret, written_here: bool) {
        let space = self.space.id();
        if topic_id(&space, &secret) == self.topic && self.moving.asking.is_none() {
            return;
        }
        info!("the topic's secret changed: moving to the new topic");
        if let Some(owner) = self.moving.owner.filter(|_| written_here) {
            // The last word over there: that there is something to pull, not what.
            self.announce(vec![owner], false).await;
        }
        let mut peers = self.link.known();
        peers.extend(self.shared.neighbors());
        peers.sort_unstable();
        peers.dedup();
        self.on_all_unlinked();
        let asked: Vec<_> = peers
            .into_iter()
            .map(|peer| (peer, self.asking.may_read(peer)))
            .collect();
        let asking = async move {
            let asked = asked.into_iter().map(|(peer, answer)| async move {
                let may_read = answer.await;
                (may_read == Some(true)).then_some(peer)
            });
            let peers = join_all(asked).await.into_iter().flatten().collect();
            (secret, peers)
        };
        self.moving.asking = Some(Box::pin(asking));
    }

    pub(super) async fn on_moved(&mut self, moved: Moved) {
        match moved {
            Moved::Looked(Some(secret)) => self.on_secret(secret, false).await,
            Moved::Looked(None) => {}
            Moved::Asked(secret, peers) => self.move_to(secret, peers),
            Moved::Heard(event) => self.on_heard_before(event).await,
            Moved::GraceEnded => {
                debug!("left the topic of the secret before");
                self.moving.before = None;
            }
        }
    }

    fn move_to(&mut self, secret: TopicSecret, peers: Vec<EndpointId>) {
        self.on_all_unlinked();
        let topic = topic_id(&self.space.id(), &secret);
        let link = self.link.elsewhere(topic, peers);
        let mut before = std::mem::replace(&mut self.link, link);
        // Whoever is needed is over here.
        before.set_alone(false);
        self.moving.before = Some((before, Instant::now() + self.moving.grace));
        self.topic = topic;
        self.metrics.topic_moves.inc();
        self.shared.moved(topic);
        self.shared
            .tell(BridgeEvent::TopicSecretChanged { secret, topic });
    }

    /// Something happened on the topic of the secret before.
    async fn on_heard_before(&mut self, event: LinkEvent) {
        match event {
            LinkEvent::Gossip(Event::Received(message)) => {
                let neighbor = message.delivered_from;
                let says_its_own = message.scope.is_direct();
                self.on_message(message).await;
                if says_its_own && self.moving.stragglers.may(Instant::now()) {
                    debug!(peer = %neighbor.fmt_short(), "still on the topic of the secret before");
                    // Asked by nobody but this: the announcer takes no note of how it ends.
                    self.pull(neighbor);
                }
            }
            LinkEvent::Gossip(Event::Lagged) => {
                self.metrics.lagged.inc();
            }
            LinkEvent::Gossip(_) | LinkEvent::Rejoined | LinkEvent::Joined | LinkEvent::Asked => {}
            LinkEvent::Ended => self.moving.before = None,
        }
    }
}
