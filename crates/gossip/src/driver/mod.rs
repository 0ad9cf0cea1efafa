//! The loop between one topic, one announcer and one space.
//!
//! ```text
//!  topic ──▶ gate ──▶ waiting ──▶ apply ──▶ ┌───────────┐ ──▶ heads, runs ──▶ topic
//!  growth of the space ───────────────────▶ │ Announcer │ ──▶ pull ──▶ peer
//!  time, pulls that ended, commands ──────▶ └───────────┘ ──▶ events ──▶ application
//! ```
//!
//! One task for each space. Nothing is decided here: what to say and whom to ask is the
//! announcer's, what to believe the gate's.
//!
//! Invariant: runs are reported to the announcer before the growth they caused, and growth is reported
//! before the end of the pull that caused it.

mod asking;
mod moving;
mod old;
mod proving;
mod receive;
mod send;
mod taken;

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use headwater::{
    Growth, LogGrowth, Space, SyncError, SyncHandle, SyncOptions, SyncOutcome, SyncReport,
};
use headwater_proto::announcer::{Announcer, AnnouncerOutput, Grown, PeerId, PullEnded};
use headwater_wire::{AuthorId, HeadsDigest, Truncation};
use iroh::{EndpointAddr, EndpointId, SecretKey};
use iroh_gossip::TopicId;
use n0_future::{FuturesUnordered, StreamExt, boxed::BoxFuture, future::poll_once, time};
use tokio::sync::{mpsc, oneshot, watch};
use tracing::{debug, warn};

use crate::{
    announcement::AnnouncementCounter,
    apply::{Heard, Passed},
    bridge::Counter,
    events::{BridgeEvent, Shared, endpoint_id, peer_id},
    fresh::Fresh,
    gate::Gate,
    history::History,
    limits::BridgeLimits,
    link::{Link, LinkEvent},
    metrics::BridgeMetrics,
};
pub(crate) use asking::Asking;
pub(crate) use moving::Moving;
pub(crate) use old::Old;
pub(crate) use receive::Seldom;

/// How long growth waits to be counted into the digest. A burst then costs one look into the
/// store, and a single event is with everybody before the bridges do their accounts.
const REPORT_AFTER: Duration = Duration::from_millis(2);

/// How often the announcer hears that a pull moves: often against the ten seconds after which one
/// that does not counts as stalled.
const PROGRESS_EVERY: Duration = Duration::from_secs(1);

/// How long a sync that is given up may take to tell its peer. Its place is free meanwhile.
const GIVE_UP_WITHIN: Duration = Duration::from_secs(2);

/// What a handle asks of the loop.
#[derive(Debug)]
pub(crate) enum Command {
    /// Ask these peers to become neighbours.
    Ask(Vec<EndpointId>),
    /// Leave the topic.
    Leave,
}

/// Growth to be told of, by how it came.
#[derive(Debug, Default)]
struct News {
    /// Written here, all or in part.
    written: Vec<Grown>,
    /// Brought by peers.
    synced: Vec<Grown>,
}

impl News {
    fn is_empty(&self) -> bool {
        self.written.is_empty() && self.synced.is_empty()
    }
}

/// A pull that ended.
type PullEnd = (EndpointId, Pulled);

/// How a pull ended, if the policy let it begin.
type Pulled = Result<Result<SyncReport, SyncError>, NotAdmitted>;

/// The policy does not let a peer read, or did not say so in time: it is not pulled from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NotAdmitted(Option<bool>);

/// The loop's state.
pub(crate) struct Driver {
    pub(crate) space: Space,
    pub(crate) topic: TopicId,
    pub(crate) key: SecretKey,
    pub(crate) counter: Arc<Counter>,
    pub(crate) max_bytes: usize,
    pub(crate) limits: BridgeLimits,
    pub(crate) metrics: Arc<BridgeMetrics>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) link: Link,
    pub(crate) growth: Growth,
    pub(crate) gate: Gate,
    pub(crate) asking: Asking,
    pub(crate) moving: Moving,
    pub(crate) history: History,
    pub(crate) fresh: Fresh,
    pub(crate) old: Old,
    /// The digest last read from the store.
    pub(crate) digest: HeadsDigest,
    /// Messages that passed the gate.
    pub(crate) waiting: Vec<Passed>,
    /// Those being applied, the heads their runs end in, and what grew because of runs.
    pub(crate) applying: Option<BoxFuture<Vec<Heard>>>,
    pub(crate) in_flight: BTreeMap<AuthorId, u64>,
    pub(crate) deferred: Vec<LogGrowth>,
    /// When to tell of it, and of the digest.
    pub(crate) report_at: Option<time::Instant>,
    pub(crate) pulls: FuturesUnordered<BoxFuture<PullEnd>>,
    /// How to end those under way that the announcer asked for.
    pub(crate) may_give_up: HashMap<EndpointId, oneshot::Sender<()>>,
    /// When messages dropped unread are told of as lost.
    pub(crate) unread: Seldom,
}

/// Tells the handles, however the loop ends.
struct LeftAtTheEnd(Arc<Shared>);

impl Drop for LeftAtTheEnd {
    fn drop(&mut self) {
        self.0.left();
    }
}

/// What woke the loop.
enum Woken {
    Left,
    Command(Command),
    Link(LinkEvent),
    Grown(Vec<LogGrowth>),
    Applied(Vec<Heard>),
    Pulled(Box<PullEnd>),
    Answered(asking::Answer),
    AskAgain(EndpointId),
    PolicyChanged,
    Moved(moving::Moved),
    Old(old::Due),
    Settled,
    Time,
}

impl Driver {
    /// Runs until the last handle is gone or the bridge is shut down.
    pub(crate) async fn run(
        mut self,
        mut commands: mpsc::Receiver<Command>,
        mut closing: watch::Receiver<bool>,
    ) {
        let _left = LeftAtTheEnd(Arc::clone(&self.shared));
        loop {
            self.carry_out().await;
            match self.wake(&mut commands, &mut closing).await {
                Woken::Left | Woken::Command(Command::Leave) => break,
                Woken::Command(Command::Ask(peers)) => self.link.ask(peers).await,
                Woken::Link(event) => self.on_link(event).await,
                Woken::Grown(grown) => self.on_grown(grown).await,
                Woken::Applied(applied) => self.on_applied(applied).await,
                Woken::Pulled(ended) => self.on_pulled(ended.0, ended.1).await,
                Woken::Answered(answer) => self.on_answer(answer).await,
                Woken::AskAgain(peer) => self.ask_about(peer).await,
                Woken::PolicyChanged => self.ask_about_all().await,
                Woken::Moved(moved) => self.on_moved(moved).await,
                Woken::Old(due) => self.on_old_due(due).await,
                Woken::Settled => self.report_deferred().await,
                Woken::Time => self.shared.announcer(Announcer::handle_timeout),
            }
            self.apply_waiting();
            self.moving.look(&self.space);
        }
        debug!("left");
    }

    async fn wake(
        &mut self,
        commands: &mut mpsc::Receiver<Command>,
        closing: &mut watch::Receiver<bool>,
    ) -> Woken {
        let timeout = self
            .shared
            .announcer(|it, now| it.next_timeout().map(|at| at.saturating_sub(now)));
        let settled = self.applying.is_none();
        let reads = self.waiting.len() < self.limits.waiting.max(1);
        tokio::select! {
            command = commands.recv() => command.map_or(Woken::Left, Woken::Command),
            // The bridge is gone, or says so.
            _ = closing.wait_for(|closing| *closing) => Woken::Left,
            event = self.link.next(), if reads => Woken::Link(event),
            grown = self.growth.next() => Woken::Grown(grown),
            applied = running(&mut self.applying) => Woken::Applied(applied),
            Some(end) = self.pulls.next(), if !self.pulls.is_empty() => Woken::Pulled(Box::new(end)),
            due = self.asking.next() => due,
            moved = self.moving.next() => Woken::Moved(moved),
            due = self.old.due() => Woken::Old(due),
            () = until(self.report_at), if settled => Woken::Settled,
            () = after(timeout) => Woken::Time,
        }
    }

    /// Does what the announcer wants done.
    async fn carry_out(&mut self) {
        while let Some(output) = self.shared.announcer(|it, _| it.poll_output()) {
            match output {
                AnnouncerOutput::Announce { changed, periodic } => {
                    self.announce(changed, periodic).await;
                }
                AnnouncerOutput::SendRuns { authors } => self.send_runs(authors).await,
                AnnouncerOutput::Pull { peer } => match endpoint_id(&peer) {
                    Some(id) => self.pull(id),
                    None => self.shared.announcer(|it, now| {
                        it.handle_pull_ended(peer, PullEnded::Failed, now);
                    }),
                },
                AnnouncerOutput::GiveUp { peer } => self.give_up(&peer),
                AnnouncerOutput::HistorySynced {
                    provider,
                    still_pending,
                } => {
                    if let Some(provider) = endpoint_id(&provider) {
                        self.on_synced(provider, still_pending);
                    }
                }
            }
        }
    }

    fn on_synced(&mut self, provider: EndpointId, still_pending: u64) {
        debug!(provider = %provider.fmt_short(), still_pending, "synced");
        self.shared.tell(BridgeEvent::HistorySynced {
            provider,
            still_pending,
        });
        // Two that hold nothing agree, and say nothing about the history.
        if self.digest == HeadsDigest::EMPTY {
            return;
        }
        let node = self.space.node();
        if node.is_caught(provider) {
            // Whatever it says of what is complete.
            return;
        }
        let trusted = node.trusts(provider, self.space.id());
        let neighbors = self.shared.neighbors();
        if self.history.vouched(provider, trusted, &neighbors) {
            debug!("history complete");
            self.shared.tell(BridgeEvent::HistoryComplete);
        }
    }

    /// What was written here is announced before anything is read: under the digest of a moment ago,
    /// which everybody can place as well. The digest after it is read a moment later.
    async fn on_grown(&mut self, grown: Vec<LogGrowth>) {
        for growth in &grown {
            if let Some(secret) = self.moving.note(growth) {
                self.on_secret(secret, !growth.from_peers).await;
            }
        }
        let mut news = News::default();
        let mut cut = Vec::new();
        for growth in grown {
            if growth.forked.is_some() {
                self.fresh.forget(&growth.author);
                self.deferred.retain(|grew| grew.author != growth.author);
                cut.push(growth.author);
                continue;
            }
            let in_flight = self.in_flight.get(&growth.author);
            // What is in flight is not verified: it says nothing of what is written here.
            let in_flight =
                growth.from_peers && in_flight.is_some_and(|seq| growth.through <= *seq);
            if self.old.explains(&growth) {
                // Everybody heard the dump.
            } else if in_flight || self.fresh.was_heard(&growth) {
                self.deferred.push(growth);
            } else {
                self.take_news(&mut news, &growth);
            }
        }
        if !news.is_empty() {
            self.report_grown(news, self.digest);
            self.carry_out().await;
        }
        if !cut.is_empty() {
            let digest = self.read_digest().await;
            self.shared
                .announcer(|it, now| it.handle_cut(digest, &cut, now));
        }
        self.report_at
            .get_or_insert_with(|| time::Instant::now() + REPORT_AFTER);
    }

    /// Tells of the growth that was put off because everybody heard of it, and of the digest after
    /// all that grew.
    pub(crate) async fn report_deferred(&mut self) {
        self.report_at = None;
        let deferred = std::mem::take(&mut self.deferred);
        let mut news = News::default();
        for growth in &deferred {
            self.take_news(&mut news, growth);
        }
        self.read_digest().await;
        self.report_grown(news, self.digest);
    }

    fn take_news(&mut self, news: &mut News, growth: &LogGrowth) {
        let list = match growth.from_peers {
            true => &mut news.synced,
            false => &mut news.written,
        };
        let size = if self.moving.is_secret(growth) {
            let mut head_alone = growth.clone();
            head_alone.run = None;
            self.fresh.note(&head_alone)
        } else {
            self.fresh.note(growth)
        };
        list.push(Grown {
            author: growth.author,
            head_seq: growth.through,
            size,
        });
    }

    fn report_grown(&self, news: News, digest: HeadsDigest) {
        self.shared.announcer(|it, now| {
            it.handle_grown(digest, news.written, now);
            if !news.synced.is_empty() {
                it.handle_synced(digest, news.synced, now);
            }
        });
    }

    /// The digest as it is now; the one read before if the store fails.
    pub(super) async fn read_digest(&mut self) -> HeadsDigest {
        match self.space.summary().await {
            Ok(summary) => {
                if let Some(summary) = &summary {
                    self.moving.set_owner(summary.owner);
                }
                self.digest = summary.map_or(HeadsDigest::EMPTY, |summary| summary.digest);
            }
            Err(error) => warn!(%error, "cannot read the digest"),
        }
        self.digest
    }

    fn pull(&mut self, peer: EndpointId) {
        self.metrics.pulls_started.inc();
        debug!(peer = %peer.fmt_short(), "pulling");
        let (space, may_read) = (self.space.clone(), self.asking.may_read(peer));
        let shared = Arc::clone(&self.shared);
        let (give_up, given_up) = oneshot::channel();
        self.may_give_up.retain(|_, ended| !ended.is_closed());
        self.may_give_up.insert(peer, give_up);
        let pull = async move {
            let may_read = may_read.await;
            if may_read != Some(true) {
                return (peer, Err(NotAdmitted(may_read)));
            }
            let addr = EndpointAddr::from(peer);
            let sync = space.sync_with_options(addr, SyncOptions::default());
            (peer, Ok(watched(sync, given_up, &shared, peer).await))
        };
        self.pulls.push(Box::pin(pull));
    }

    fn give_up(&mut self, peer: &PeerId) {
        let id = endpoint_id(peer);
        let pull = id.and_then(|id| self.may_give_up.remove(&id));
        if pull.is_some_and(|pull| pull.send(()).is_ok()) {
            debug!(?peer, "giving a pull up: others need its place");
            self.metrics.pulls_given_up.inc();
        }
    }

    /// Looks whether a peer is known to have lied, by whatever sync.
    pub(super) fn heed_caught(&self, peer: EndpointId) {
        if !self.space.node().is_caught(peer) {
            return;
        }
        let id = peer_id(peer);
        if self.shared.announcer(|it, now| it.handle_caught(id, now)) {
            warn!(peer = %peer.fmt_short(), "its receipts contradict each other: it vouches for nothing");
            self.metrics.providers_caught.inc();
            self.shared.tell(BridgeEvent::ProviderCaught(peer));
        }
    }

    async fn on_pulled(&mut self, peer: EndpointId, end: Pulled) {
        self.heed_caught(peer);
        while let Some(grown) = poll_once(self.growth.next()).await {
            self.on_grown(grown).await;
        }
        if self.report_at.is_some() && self.applying.is_none() {
            self.report_deferred().await;
        }
        let wanted = self.shared.announcer(|it, _| it.wanted(peer_id(peer)));
        let mut held = Vec::with_capacity(wanted.len());
        for author in wanted {
            if let Ok(Some(record)) = self.space.head(author).await {
                held.push((author, record.entry.head.seq));
            }
        }
        let wanted = self.shared.announcer(|it, _| it.wanted(peer_id(peer)));
        let report = end.as_ref().ok().and_then(|end| end.as_ref().ok());
        let not_taken = taken::not_taken(&self.space, wanted, report).await;
        let digest = self.read_digest().await;
        let ended = match end {
            Ok(end) => self.judge(peer, end, digest),
            Err(NotAdmitted(may_read)) => {
                debug!(peer = %peer.fmt_short(), "not pulled from: the policy does not let it read");
                self.metrics.pulls_refused.inc();
                self.heed(peer, may_read);
                PullEnded::Failed
            }
        };
        let count = |it: &Announcer| {
            let counters = it.counters();
            [counters.promises_broken, counters.withheld]
        };
        let grew = self.shared.announcer(|it, now| {
            let before = count(it);
            it.handle_held(held);
            it.handle_not_taken(&not_taken);
            it.handle_pull_ended(peer_id(peer), ended, now);
            let after = count(it);
            [after[0] - before[0], after[1] - before[1]]
        });
        self.metrics.promises_broken.inc_by(grew[0]);
        self.metrics.withheld.inc_by(grew[1]);
    }

    fn judge(
        &self,
        peer: EndpointId,
        end: Result<SyncReport, SyncError>,
        digest: HeadsDigest,
    ) -> PullEnded {
        let peer = peer.fmt_short();
        match end {
            Ok(report) => {
                self.metrics.events_pulled.inc_by(report.events);
                if report.events > 0 {
                    self.metrics.pulls_with_events.inc();
                }
                let refused = report.over_quota_authors > 0 || report.unaccepted_authors > 0;
                let of_others = match report.outcome {
                    SyncOutcome::Complete => refused,
                    SyncOutcome::Truncated(Truncation::OverQuota { .. }) => true,
                    SyncOutcome::Truncated(_) => false,
                };
                if of_others && !report.ended_early {
                    self.metrics.pulls_truncated.inc();
                    debug!(%peer, outcome = ?report.outcome, "pulled, but for what is not stored");
                    return PullEnded::Taken {
                        digest,
                        events: report.events,
                    };
                }
                if report.events == 0 && report.refused_bytes > 0 {
                    self.metrics.pulls_truncated.inc();
                    debug!(%peer, outcome = ?report.outcome, "a pull brought what is not stored");
                    // Nobody's fault, and not to be done again at once.
                    return PullEnded::Truncated;
                }
                if report.outcome == SyncOutcome::Complete {
                    self.metrics.pulls_completed.inc();
                    debug!(%peer, events = report.events, "pulled");
                    PullEnded::Complete {
                        digest,
                        events: report.events,
                    }
                } else {
                    self.metrics.pulls_truncated.inc();
                    debug!(%peer, outcome = ?report.outcome, "a pull was cut short");
                    PullEnded::Truncated
                }
            }
            Err(error) => {
                self.metrics.pulls_failed.inc();
                debug!(%peer, %error, "a pull failed");
                PullEnded::Failed
            }
        }
    }

    pub(crate) fn next_counter(&self) -> AnnouncementCounter {
        self.counter.next()
    }
}

impl std::fmt::Debug for Driver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Driver")
            .field("space", &self.space.id())
            .finish_non_exhaustive()
    }
}

/// Tells the announcer that a sync moves, until it ends or is given up.
async fn watched(
    mut sync: SyncHandle,
    mut given_up: oneshot::Receiver<()>,
    shared: &Shared,
    peer: EndpointId,
) -> Result<SyncReport, SyncError> {
    let mut told: Option<time::Instant> = None;
    loop {
        tokio::select! {
            progress = sync.next() => {
                if progress.is_none() {
                    return sync.await;
                }
                let now = time::Instant::now();
                if told.is_none_or(|told| now.duration_since(told) >= PROGRESS_EVERY) {
                    told = Some(now);
                    shared.announcer(|it, now| it.handle_pull_progress(peer_id(peer), now));
                }
            }
            Ok(()) = &mut given_up => {
                // What was stored stays; the peer is told as it can be.
                sync.stop();
                let ended = time::timeout(GIVE_UP_WITHIN, sync).await;
                return ended.unwrap_or(Err(SyncError::Stopped));
            }
        }
    }
}

/// The answer of what is running, which then runs no more; waits for ever if nothing does.
async fn running<T>(running: &mut Option<BoxFuture<T>>) -> T {
    let Some(future) = running else {
        return std::future::pending().await;
    };
    let answer = future.await;
    *running = None;
    answer
}

async fn until(at: Option<time::Instant>) {
    match at {
        Some(at) => time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

async fn after(wait: Option<Duration>) {
    match wait {
        Some(wait) => time::sleep(wait).await,
        None => std::future::pending().await,
    }
}
