//! What the node's policy is asked, beside the loop.
//!
//! ```text
//! neighbour up, message read ──▶ ask ──▶ answered at once: goes on in its order
//!                                 └────▶ waits, with what came of the same peer ──▶ answer, or none
//! ```
//!
//! The policy is the application's: it may take its time, or never answer. So the loop never waits
//! for it. Who was not answered for in [`BridgeLimits::policy_timeout`] is neither believed nor
//! pulled from, and a neighbour is asked about again.
//!
//! When the policy tells that its answers may have changed, it is asked about every neighbour anew:
//! who lost access is none any more, and who gained it becomes one.
//!
//! Invariant: one question about a peer at a time, and what waits for answers is bounded.

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use headwater::{AccessPolicy, Changes, Space};
use headwater_proto::announcer::Announcer;
use headwater_wire::{SpaceId, legacy::LegacyMessage};
use iroh::EndpointId;
use n0_future::{
    FuturesUnordered, StreamExt,
    boxed::BoxFuture,
    future::poll_once,
    time::{Instant, sleep_until, timeout},
};
use tracing::debug;

use super::{Driver, Woken};
use crate::{
    events::peer_id,
    gate::{Ignored, Unproven},
    limits::BridgeLimits,
};

/// Messages that wait for the answer about one peer. An honest one says as much at once only
/// when it has changes for several announcements, and what is dropped is healed.
const MESSAGES_OF_A_PEER: usize = 4;

/// A message that has an effect only if the policy lets its peer read.
#[derive(Debug)]
pub(super) enum Asked {
    /// Asked about its sender.
    Announcement(Box<Unproven>),
    /// Nobody signs it: asked about the neighbour that delivered it.
    Old(LegacyMessage),
}

/// What the policy said of a peer.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) peer: EndpointId,
    /// `None` if it said nothing in time.
    may_read: Option<bool>,
    /// What waited for it.
    asked: Vec<Asked>,
}

/// More waits for the policy than may.
#[derive(Debug)]
pub(super) struct TooMany(Asked);

/// Questions under way, and who is next to this node on the topic.
pub(crate) struct Asking {
    policy: Arc<dyn AccessPolicy>,
    changes: Changes,
    /// How many changes there were when all were asked about last.
    changes_seen: u64,
    space: SpaceId,
    answer_within: Duration,
    again_after: Duration,
    most: usize,
    answers: FuturesUnordered<BoxFuture<(EndpointId, Option<bool>)>>,
    waiting: HashMap<EndpointId, Vec<Asked>>,
    /// Whoever iroh-gossip says is a neighbour. Those the policy admits are
    /// [`Shared::neighbors`](crate::events::Shared::neighbors).
    linked: BTreeSet<EndpointId>,
    /// Linked peers to ask about again, and when, in that order.
    again: VecDeque<(Instant, EndpointId)>,
}

impl Asking {
    pub(crate) fn new(space: &Space, limits: &BridgeLimits) -> Self {
        let policy = Arc::clone(space.node().policy());
        let changes = policy.changes();
        Self {
            changes_seen: changes.times(),
            changes,
            policy,
            space: space.id(),
            answer_within: limits.policy_timeout,
            again_after: limits.policy_again,
            most: limits.policy_asks.max(1),
            answers: FuturesUnordered::new(),
            waiting: HashMap::new(),
            linked: BTreeSet::new(),
            again: VecDeque::new(),
        }
    }

    /// What the policy says of a peer; `None` if it does not say in time.
    pub(super) fn may_read(&self, peer: EndpointId) -> BoxFuture<Option<bool>> {
        let asked = self.policy.may_announce(peer, self.space);
        let answered = timeout(self.answer_within, asked);
        Box::pin(async move { answered.await.ok() })
    }

    /// Asks about the peer of a message. `None`: the answer comes later, with the message.
    async fn ask(&mut self, peer: EndpointId, asked: Asked) -> Result<Option<Answer>, TooMany> {
        if let Some(waiting) = self.waiting.get_mut(&peer) {
            if waiting.len() >= MESSAGES_OF_A_PEER {
                return Err(TooMany(asked));
            }
            waiting.push(asked);
            return Ok(None);
        }
        let has_room = self.waiting.len() < self.most;
        let mut answer = self.may_read(peer);
        match poll_once(&mut answer).await {
            Some(may_read) => Ok(Some(Answer {
                peer,
                may_read,
                asked: vec![asked],
            })),
            None if has_room => {
                self.await_answer(peer, answer, vec![asked]);
                Ok(None)
            }
            None => Err(TooMany(asked)),
        }
    }

    /// Asks about a neighbour, of whom there are few: there is always room.
    async fn ask_about(&mut self, peer: EndpointId) -> Option<Answer> {
        if self.waiting.contains_key(&peer) {
            return None;
        }
        let mut answer = self.may_read(peer);
        let Some(may_read) = poll_once(&mut answer).await else {
            self.await_answer(peer, answer, Vec::new());
            return None;
        };
        Some(Answer {
            peer,
            may_read,
            asked: Vec::new(),
        })
    }

    fn await_answer(
        &mut self,
        peer: EndpointId,
        answer: BoxFuture<Option<bool>>,
        asked: Vec<Asked>,
    ) {
        self.waiting.insert(peer, asked);
        let answer = async move { (peer, answer.await) };
        self.answers.push(Box::pin(answer));
    }

    /// What happens next. Safe to cancel.
    pub(super) async fn next(&mut self) -> Woken {
        let Self {
            answers,
            again,
            waiting,
            changes,
            changes_seen,
            ..
        } = self;
        let first = again.front().copied();
        tokio::select! {
            Some((peer, may_read)) = answers.next(), if !answers.is_empty() => {
                let asked = waiting.remove(&peer).unwrap_or_default();
                Woken::Answered(Answer { peer, may_read, asked })
            }
            peer = due(first) => {
                again.pop_front();
                Woken::AskAgain(peer)
            }
            times = changes.other_than(*changes_seen) => {
                *changes_seen = times;
                Woken::PolicyChanged
            }
        }
    }

    fn ask_later(&mut self, peer: EndpointId) {
        let waits = |(_, waiting): &(Instant, EndpointId)| *waiting == peer;
        if self.linked.contains(&peer) && !self.again.iter().any(waits) {
            let at = Instant::now() + self.again_after;
            self.again.push_back((at, peer));
        }
    }
}

async fn due(first: Option<(Instant, EndpointId)>) -> EndpointId {
    let Some((at, peer)) = first else {
        return std::future::pending().await;
    };
    sleep_until(at).await;
    peer
}

impl Driver {
    /// A peer is next to this node. It counts as a neighbour once the policy lets it read.
    pub(super) async fn on_linked(&mut self, peer: EndpointId) {
        if !self.moving.is_leaving() && self.asking.linked.insert(peer) {
            self.ask_about(peer).await;
        }
    }

    pub(super) fn on_unlinked(&mut self, peer: EndpointId) {
        self.asking.linked.remove(&peer);
        self.asking.again.retain(|(_, waiting)| *waiting != peer);
        self.dismiss(peer);
    }

    pub(super) fn on_all_unlinked(&mut self) {
        for peer in self.asking.linked.clone() {
            self.on_unlinked(peer);
        }
    }

    /// Asks about every neighbour, admitted or not.
    pub(super) async fn ask_about_all(&mut self) {
        for peer in self.asking.linked.clone() {
            if self.asking.waiting.contains_key(&peer) {
                // That answer may be from before the change.
                self.asking.ask_later(peer);
            } else {
                self.ask_about(peer).await;
            }
        }
    }

    /// Asks about a neighbour.
    pub(super) async fn ask_about(&mut self, peer: EndpointId) {
        if !self.asking.linked.contains(&peer) {
            return;
        }
        if let Some(answer) = self.asking.ask_about(peer).await {
            self.on_answer(answer).await;
        }
    }

    /// Asks whether what a peer said may have an effect.
    pub(super) async fn ask(&mut self, peer: EndpointId, asked: Asked) {
        match self.asking.ask(peer, asked).await {
            Ok(Some(answer)) => self.on_answer(answer).await,
            Ok(None) => {}
            Err(TooMany(asked)) => self.ignore_asked(&Ignored::Unanswered, peer, &asked),
        }
    }

    pub(super) async fn on_answer(&mut self, answer: Answer) {
        let Answer {
            peer,
            may_read,
            asked,
        } = answer;
        self.heed(peer, may_read);
        if may_read == Some(false) {
            self.gate.forget(&peer);
        }
        for asked in asked {
            match (may_read, asked) {
                (Some(true), Asked::Announcement(unproven)) => self.on_admitted(*unproven),
                (Some(true), Asked::Old(message)) => self.on_old_admitted(message, peer).await,
                (Some(false), asked) => self.ignore_asked(&Ignored::Refused, peer, &asked),
                (None, asked) => self.ignore_asked(&Ignored::Unanswered, peer, &asked),
            }
        }
    }

    /// What the policy says of a neighbour counts from now on, whatever it was asked for.
    pub(super) fn heed(&mut self, peer: EndpointId, may_read: Option<bool>) {
        match may_read {
            Some(true) => {
                if self.asking.linked.contains(&peer) {
                    self.admit(peer);
                }
                return;
            }
            Some(false) => self.dismiss(peer),
            None => {
                debug!(peer = %peer.fmt_short(), "the policy does not answer");
                self.metrics.policy_unanswered.inc();
            }
        }
        if self.asking.linked.contains(&peer) && !self.shared.is_neighbor(&peer) {
            debug!(neighbor = %peer.fmt_short(), "a neighbour may not read, and is not asked");
            self.metrics.neighbors_refused.inc();
            self.asking.ask_later(peer);
        }
    }

    fn admit(&mut self, peer: EndpointId) {
        if !self.shared.neighbor_up(peer) {
            return;
        }
        debug!(peer = %peer.fmt_short(), "neighbour up");
        self.metrics.neighbors_up.inc();
        self.link.remember([peer]);
        self.link.set_alone(false);
        self.shared
            .announcer(|it, now| it.handle_neighbor_up(peer_id(peer), now));
        self.heed_caught(peer);
    }

    fn dismiss(&mut self, peer: EndpointId) {
        if !self.shared.neighbor_down(peer) {
            return;
        }
        debug!(peer = %peer.fmt_short(), "neighbour down");
        self.metrics.neighbors_down.inc();
        self.link.set_alone(self.shared.is_alone());
        self.shared
            .announcer(|it, now| it.handle_neighbor_down(peer_id(peer), now));
    }

    fn ignore_asked(&mut self, ignored: &Ignored, peer: EndpointId, asked: &Asked) {
        match asked {
            Asked::Announcement(unproven) => {
                self.ignore(ignored, Some(peer), unproven.neighbor());
            }
            Asked::Old(_) => self.ignore(ignored, None, peer),
        }
        if *ignored == Ignored::Unanswered {
            // Dropped without a judgement: it may have been news.
            self.on_unread();
        }
    }

    /// A message was dropped unread: it may have been news. Told of once in a while, as whoever
    /// floods the topic would have this node pull all the time.
    pub(super) fn on_unread(&mut self) {
        if self.unread.may(Instant::now()) {
            self.shared.announcer(Announcer::handle_overflow);
        }
    }
}
