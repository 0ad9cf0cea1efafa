//! The older exchange on the same topic: see [`LegacyPolicy`].

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use headwater::{ApplyRunsError, LogGrowth, wire::AppendError};
use headwater_proto::announcer::{ANNOUNCEMENT_FIXED_BYTES, HEAD_BYTES};
use headwater_wire::{
    AuthorId, HeadsDigest, Run, legacy::LegacyMessage, limits::MAX_LEGACY_EVENTS,
};
use iroh::EndpointId;
use n0_future::time::{Instant, sleep_until};
use tracing::{debug, warn};

use super::Driver;
use crate::{
    gate::Ignored,
    legacy::{self, LegacyPolicy},
    limits::BridgeLimits,
    random,
};

/// Requests of ours wait up to this, so that one node asks and the others hear that it did.
const ASK_JITTER: Duration = Duration::from_secs(1);

/// Answers of ours wait up to this, so that one node answers and the others hear that it did.
const ANSWER_JITTER: Duration = Duration::from_secs(1);

/// Logs remembered whose growth came from a dump, and logs remembered that others served.
const MAX_HEARD: usize = 1024;

/// What is owed to old nodes.
#[derive(Debug)]
pub(crate) struct Old {
    policy: LegacyPolicy,
    answer_every: Duration,
    ask_every: Duration,
    answer_at: Option<Instant>,
    answered: Option<Instant>,
    ask_at: Option<Instant>,
    asked: Option<Instant>,
    requests: u64,
    /// Heads that came in dumps and were stored, which everybody on the topic heard.
    heard: BTreeMap<AuthorId, u64>,
    /// Heads proven in dumps since an answer is due: what others answered.
    served: BTreeMap<AuthorId, u64>,
}

/// What is due now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Due {
    Answer,
    Ask,
}

impl Old {
    pub(crate) fn new(policy: LegacyPolicy, limits: &BridgeLimits) -> Self {
        Self {
            policy,
            answer_every: limits.legacy_answer_every,
            ask_every: limits.legacy_ask_every,
            answer_at: None,
            answered: None,
            ask_at: None,
            asked: None,
            // Not the numbers of the last start again.
            requests: u64::from_be_bytes(random()),
            heard: BTreeMap::new(),
            served: BTreeMap::new(),
        }
    }

    /// An old node asked: an answer and a question of our own are due, each as soon as it may.
    fn was_asked(&mut self, now: Instant) {
        if self.policy == LegacyPolicy::Ignore {
            return;
        }
        let soonest = |last: Option<Instant>, every| last.map_or(now, |last| now.max(last + every));
        if self.answer_at.is_none() {
            let soonest = soonest(self.answered, self.answer_every);
            self.answer_at = Some(soonest + ANSWER_JITTER.mul_f64(fraction()));
            self.served.clear();
        }
        let ask_at = soonest(self.asked, self.ask_every) + ASK_JITTER.mul_f64(fraction());
        self.ask_at.get_or_insert(ask_at);
    }

    /// Another node asks the old ones: its answer comes here too.
    fn others_asked(&mut self, now: Instant) {
        self.ask_at = None;
        self.asked = Some(now);
    }

    /// Somebody announced. Where an announcement is the answer, one that says of the same digest
    /// is as good as ours.
    pub(super) fn others_announced(&mut self, digest: &HeadsDigest, ours: &HeadsDigest) {
        if self.policy == LegacyPolicy::AnnounceHeads && digest == ours {
            self.answer_at = None;
        }
    }

    /// A dump held this much of a log, as its author signed it.
    fn was_served(&mut self, author: AuthorId, seq: u64) {
        if self.answer_at.is_none() {
            return;
        }
        if self.served.len() >= MAX_HEARD {
            self.served.pop_first();
        }
        let served = self.served.entry(author).or_default();
        *served = seq.max(*served);
    }

    /// Whether others served all these heads since the answer was asked for.
    fn all_served(&self, mut heads: impl Iterator<Item = (AuthorId, u64)>) -> bool {
        heads.all(|(author, seq)| self.served.get(&author).is_some_and(|it| *it >= seq))
    }

    /// Waits until something is due. Safe to cancel.
    pub(super) async fn due(&mut self) -> Due {
        let (at, due) = match (self.answer_at, self.ask_at) {
            (Some(answer), Some(ask)) if ask < answer => (ask, Due::Ask),
            (Some(answer), _) => (answer, Due::Answer),
            (None, Some(ask)) => (ask, Due::Ask),
            (None, None) => return std::future::pending().await,
        };
        sleep_until(at).await;
        match due {
            Due::Answer => (self.answer_at, self.answered) = (None, Some(Instant::now())),
            Due::Ask => (self.ask_at, self.asked) = (None, Some(Instant::now())),
        }
        due
    }

    fn came_in_a_dump(&mut self, author: AuthorId, seq: u64) {
        if self.heard.len() >= MAX_HEARD {
            self.heard.pop_first();
        }
        self.heard.insert(author, seq);
    }

    /// Whether a log grew by a dump alone, so that it need not be announced.
    pub(super) fn explains(&mut self, growth: &LogGrowth) -> bool {
        let Some(seq) = self.heard.get(&growth.author).copied() else {
            return false;
        };
        if growth.through >= seq {
            self.heard.remove(&growth.author);
        }
        growth.from_peers && growth.through <= seq
    }
}

fn fraction() -> f64 {
    f64::from(u32::from_be_bytes(random())) / f64::from(u32::MAX)
}

impl Driver {
    /// Nobody signs these messages: the neighbour that delivers one has to answer for it, and the
    /// policy lets it read.
    pub(super) async fn on_old_admitted(&mut self, message: LegacyMessage, neighbor: EndpointId) {
        match message {
            LegacyMessage::SyncRequest { topic, .. } if topic != *self.topic.as_bytes() => {
                self.ignore(&Ignored::ForeignTopic, None, neighbor);
            }
            LegacyMessage::SyncRequest { state_hash, .. } if legacy::is_ours(&state_hash) => {
                self.old.others_asked(Instant::now());
            }
            LegacyMessage::SyncRequest { .. } => {
                debug!(neighbor = %neighbor.fmt_short(), "an old node asks");
                self.metrics.legacy_requests_received.inc();
                self.old.was_asked(Instant::now());
            }
            LegacyMessage::SyncBatch { events } => self.on_dump(events, neighbor).await,
        }
    }

    pub(super) async fn on_old_due(&mut self, due: Due) {
        match (due, self.old.policy) {
            (Due::Ask, _) => self.ask_old().await,
            (Due::Answer, LegacyPolicy::AnnounceHeads) => self.announce_heads().await,
            (Due::Answer, LegacyPolicy::ServeDump) => self.serve_dump().await,
            (Due::Answer, LegacyPolicy::Ignore) => {}
        }
    }

    async fn ask_old(&mut self) {
        self.old.requests = self.old.requests.wrapping_add(1);
        let request = LegacyMessage::SyncRequest {
            state_hash: legacy::our_state_hash(self.old.requests),
            topic: *self.topic.as_bytes(),
        };
        if self.broadcast_old(request.encode().into()).await {
            self.metrics.legacy_requests_sent.inc();
        }
    }

    /// All heads if they fit one announcement, or else the digest.
    async fn announce_heads(&mut self) {
        let fit = self.max_bytes.saturating_sub(ANNOUNCEMENT_FIXED_BYTES) / HEAD_BYTES;
        let heads = match self.space.heads_page(None, fit + 1).await {
            Ok(page) if page.heads.len() <= fit => page.heads,
            Ok(_) => Vec::new(),
            Err(error) => {
                warn!(%error, "cannot read the heads");
                return;
            }
        };
        let changed: Vec<_> = heads.iter().map(|record| record.entry.author).collect();
        let periodic = changed.is_empty();
        self.metrics.legacy_requests_answered.inc();
        self.announce(changed, periodic).await;
    }

    async fn serve_dump(&mut self) {
        match self.space.heads_page(None, MAX_LEGACY_EVENTS).await {
            Ok(page) => {
                let heads = page.heads.iter().map(|record| record.entry);
                if self
                    .old
                    .all_served(heads.map(|it| (it.author, it.head.seq)))
                {
                    debug!("others answered");
                    return;
                }
            }
            Err(error) => warn!(%error, "cannot read the heads"),
        }
        let dump = match legacy::dump(&self.space, self.max_bytes).await {
            Ok(dump) => dump,
            Err(error) => {
                warn!(%error, "cannot make a dump");
                return;
            }
        };
        let too_large = dump.too_large as u64;
        self.metrics.legacy_runs_too_large.inc_by(too_large);
        if dump.messages.is_empty() {
            return;
        }
        for message in dump.messages {
            if !self.broadcast_old(message).await {
                return;
            }
        }
        self.metrics.legacy_requests_answered.inc();
        self.metrics.legacy_batches_sent.inc();
    }

    async fn broadcast_old(&mut self, message: Bytes) -> bool {
        if message.len() > self.max_bytes || self.shared.is_alone() {
            return false;
        }
        let taken = self.link.broadcast(message).await.is_ok();
        if !taken {
            self.metrics.broadcasts_failed.inc();
        }
        taken
    }

    async fn on_dump(&mut self, events: Vec<Bytes>, neighbor: EndpointId) {
        self.metrics.legacy_batches_received.inc();
        let mut runs = Vec::with_capacity(events.len());
        for event in events {
            match Run::decode(event) {
                Ok(run) => runs.push(run),
                Err(error) => {
                    debug!(neighbor = %neighbor.fmt_short(), %error, "an old run was ignored");
                    self.metrics.legacy_runs_invalid.inc();
                }
            }
        }
        if self.apply_dump(runs.clone(), neighbor).await.is_err() {
            // One bad run refuses all of a call: take the others one by one.
            for run in runs {
                if let Err(error) = self.apply_dump(vec![run], neighbor).await {
                    debug!(neighbor = %neighbor.fmt_short(), %error, "an old run was ignored");
                    self.metrics.legacy_runs_invalid.inc();
                }
            }
        }
    }

    /// # Errors
    ///
    /// A run does not verify; nothing is stored.
    async fn apply_dump(&mut self, runs: Vec<Run>, neighbor: EndpointId) -> Result<(), Ignored> {
        if runs.is_empty() {
            return Ok(());
        }
        let said: Vec<_> = runs
            .iter()
            .map(|run| (run.author(), run.last_seq()))
            .collect();
        match self.space.apply(runs, neighbor).await {
            Ok(outcomes) => {
                for ((author, seq), outcome) in said.into_iter().zip(outcomes) {
                    match outcome {
                        Ok(appended) => {
                            self.metrics.legacy_runs_stored.inc();
                            self.old.came_in_a_dump(author, appended.head.seq);
                            self.old.was_served(author, seq);
                        }
                        Err(error) => {
                            self.metrics.legacy_runs_refused.inc();
                            if matches!(error, AppendError::Stale { .. }) {
                                self.old.was_served(author, seq);
                            }
                        }
                    }
                }
                Ok(())
            }
            Err(ApplyRunsError::Invalid(invalid)) => Err(Ignored::InvalidRun(invalid)),
            Err(error) => {
                warn!(%error, "cannot store a dump");
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use headwater::{EventDraft, Headwater, Open, generate_author};

    use super::*;

    fn old(policy: LegacyPolicy) -> Old {
        Old::new(policy, &BridgeLimits::default())
    }

    fn author(number: u8) -> AuthorId {
        AuthorId::from_bytes([number; 32])
    }

    #[tokio::test]
    async fn a_request_is_answered_after_a_wait_that_is_bounded() {
        let now = Instant::now();
        let mut old = old(LegacyPolicy::AnnounceHeads);
        old.was_asked(now);
        let due = old.answer_at.unwrap();
        assert!((now..=now + ANSWER_JITTER).contains(&due));
        old.was_asked(now + ANSWER_JITTER);
        assert_eq!(old.answer_at, Some(due));
    }

    #[tokio::test]
    async fn an_announcement_of_the_same_digest_is_the_answer() {
        let [ours, other] = [1, 2].map(|byte| HeadsDigest::from_bytes([byte; 32]));
        let mut announcing = old(LegacyPolicy::AnnounceHeads);
        announcing.was_asked(Instant::now());
        announcing.others_announced(&other, &ours);
        assert!(announcing.answer_at.is_some());
        announcing.others_announced(&ours, &ours);
        assert_eq!(announcing.answer_at, None);

        let mut serving = old(LegacyPolicy::ServeDump);
        serving.was_asked(Instant::now());
        serving.others_announced(&ours, &ours);
        assert!(serving.answer_at.is_some());
    }

    #[tokio::test]
    async fn dumps_that_hold_all_of_ours_are_the_answer_if_they_came_after_the_question() {
        let mut old = old(LegacyPolicy::ServeDump);
        let heads = || [(author(1), 5), (author(2), 3)].into_iter();
        old.was_served(author(1), 5);
        old.was_asked(Instant::now());
        old.was_served(author(2), 3);
        assert!(!old.all_served(heads()));
        old.was_served(author(1), 4);
        assert!(!old.all_served(heads()));
        old.was_served(author(1), 6);
        old.was_served(author(1), 2);
        assert!(old.all_served(heads()));
    }

    #[tokio::test]
    async fn a_dump_explains_what_it_brought_and_nothing_written_here() {
        let writing = generate_author();
        let node = Headwater::builder().policy(Open).open();
        let space = node.create_space(&writing).await.unwrap();
        let mut growth = space.growth();
        let draft = EventDraft::new(16, 0, vec![5; 100]);
        space.append(&writing, draft).await.unwrap();
        let mut grown = growth.next().await.remove(0);
        assert!(!grown.from_peers);
        let mut old = old(LegacyPolicy::default());
        old.came_in_a_dump(writing.id(), 3);
        assert!(!old.explains(&grown));
        grown.from_peers = true;
        assert!(old.explains(&grown));
        grown.through = 4;
        assert!(!old.explains(&grown));
    }
}
