//! What is done after a pull about the authors it left out: each gets a stream of its own.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    fmt,
    sync::Arc,
    time::Duration,
};

use headwater_proto::{
    Fork, SyncEnd,
    fork::{ForkAsker, ForkAskerConfig, ForkEnd, Unstored},
};
use headwater_wire::{Acceptance, AuthorId, Blame, CloseCode, SpaceId, SyncOutcome, Truncation};
use iroh::EndpointId;
use n0_future::{FuturesUnordered, StreamExt, boxed::BoxFuture, time::timeout};
use tokio::sync::OwnedSemaphorePermit;
use tracing::{Instrument, debug, info_span};

use super::{Log, Session, drive};
use crate::{
    connections::{InUse, Link},
    frames::{FrameReader, FrameWriter},
    node::Inner,
    sync::{ForkedAuthor, SyncError},
};

/// Authors put right after one pull. As many as a pull lists: more are left to the next one, so
/// that nobody who makes keys keeps two nodes busy with each other.
const AUTHORS_A_SYNC: usize = headwater_proto::MAX_LISTED_FORKS;

/// Authors put right at the same time: each is a few round trips of small messages, so that four
/// hide most of the waiting. The second and further ones each take a place of a pull from that
/// peer, which serves no more of them at a time either.
const AT_ONCE: usize = 4;

/// How one author came out.
type Repaired = (AuthorId, Result<ForkEnd, SyncError>);

type Repairing = BoxFuture<(Repaired, Option<OwnedSemaphorePermit>)>;

/// The authors one pull left out, and what became of them.
pub(crate) struct Repairs {
    inner: Arc<Inner>,
    in_use: InUse,
    space: SpaceId,
    waiting: VecDeque<AuthorId>,
    running: FuturesUnordered<Repairing>,
    /// All that were taken on, with what came of it.
    known: BTreeMap<AuthorId, Option<ForkEnd>>,
    /// Those among them of whom something is not accepted here. If nothing is, their forks do not
    /// matter.
    unaccepted: BTreeSet<AuthorId>,
    /// Those among them of whom something is missing because of a quota.
    over_quota: BTreeSet<AuthorId>,
}

impl Repairs {
    pub(crate) fn new(inner: &Arc<Inner>, link: &Link, space: SpaceId) -> Self {
        Self {
            inner: Arc::clone(inner),
            in_use: link.hold(),
            space,
            waiting: VecDeque::new(),
            running: FuturesUnordered::new(),
            known: BTreeMap::new(),
            unaccepted: BTreeSet::new(),
            over_quota: BTreeSet::new(),
        }
    }

    /// Takes an author on, once, unless there are too many.
    pub(crate) fn add(&mut self, author: AuthorId) {
        if self.known.len() < AUTHORS_A_SYNC && !self.known.contains_key(&author) {
            self.known.insert(author, None);
            self.waiting.push_back(author);
        }
    }

    /// Of how many something is not accepted.
    pub(crate) fn unaccepted(&self) -> u64 {
        self.unaccepted.len() as u64
    }

    /// Of whom something below the cut is missing because of a quota, ascending.
    pub(crate) fn over_quota(&self) -> impl Iterator<Item = &AuthorId> {
        self.over_quota.iter()
    }

    /// Whether all were seen to.
    pub(crate) fn are_over(&self) -> bool {
        self.waiting.is_empty() && self.running.is_empty()
    }

    /// Goes on until one more author is seen to; waits for ever if none is left. Safe to cancel.
    ///
    /// # Errors
    ///
    /// If the peer broke the protocol; all others that were under way end with it.
    pub(crate) async fn next(&mut self) -> Result<(), SyncError> {
        self.start();
        let Some(((author, result), _place)) = self.running.next().await else {
            return std::future::pending().await;
        };
        match result {
            Ok(end) => {
                debug!(
                    author = %author.fmt_short(),
                    fork = end.fork,
                    rounds = end.rounds,
                    events = end.events,
                    "compared a log that forks"
                );
                if end.fork.is_some() {
                    self.inner.metrics.forks_repaired.inc();
                } else if self.inner.policy.accepts(self.space, author) == Acceptance::Nothing {
                    self.unaccepted.insert(author);
                }
                match end.unstored {
                    Some(Unstored::NotAccepted) => {
                        self.unaccepted.insert(author);
                    }
                    Some(Unstored::OverQuota) => {
                        self.over_quota.insert(author);
                    }
                    None => {}
                }
                self.known.insert(author, Some(end));
                Ok(())
            }
            Err(error @ SyncError::Session(_)) if error.blame() == Blame::Peer => {
                self.waiting.clear();
                self.running = FuturesUnordered::new();
                Err(error)
            }
            Err(error) => {
                // The next sync tries again.
                debug!(author = %author.fmt_short(), %error, "could not compare a log that forks");
                Ok(())
            }
        }
    }

    /// Starts as many as may run.
    fn start(&mut self) {
        while self.running.len() < AT_ONCE && !self.waiting.is_empty() {
            let place = if self.running.is_empty() {
                None
            } else {
                let peer = self.in_use.link.connection.remote_id();
                match self.inner.pulls.queue(peer).try_acquire_owned() {
                    Ok(place) => Some(place),
                    Err(_none_free) => return,
                }
            };
            let Some(author) = self.waiting.pop_front() else {
                return;
            };
            let repair = repair(
                Arc::clone(&self.inner),
                self.in_use.link.hold(),
                self.space,
                author,
            );
            let span = info_span!("fork", author = %author.fmt_short());
            let repairing = async move { ((author, repair.await), place) };
            self.running.push(Box::pin(repairing.instrument(span)));
        }
    }

    /// What a pull's report says of the authors it left out, and its outcome with those counted
    /// that were put right.
    pub(crate) fn report(&self, end: &SyncEnd) -> (Vec<ForkedAuthor>, SyncOutcome) {
        let forks: Vec<_> = end
            .forks
            .iter()
            .map(|fork| self.forked_author(fork))
            .collect();
        let is_settled =
            |fork: &&ForkedAuthor| fork.repaired || self.unaccepted.contains(&fork.author);
        let settled = forks.iter().filter(is_settled).count() as u64;
        let outcome = match (end.outcome, end.forked_authors.saturating_sub(settled)) {
            (SyncOutcome::Truncated(Truncation::Forked { .. }), 0) => SyncOutcome::Complete,
            (SyncOutcome::Truncated(Truncation::Forked { .. }), authors) => {
                SyncOutcome::Truncated(Truncation::Forked { authors })
            }
            (other, _) => other,
        };
        (forks, outcome)
    }

    fn forked_author(&self, fork: &Fork) -> ForkedAuthor {
        let end = self.known.get(&fork.author).copied().flatten();
        let proven = end.and_then(|end| end.fork);
        ForkedAuthor {
            author: fork.author,
            seq: proven.unwrap_or(fork.seq),
            repaired: proven.is_some(),
            rounds: end.map_or(0, |end| end.rounds),
        }
    }
}

impl fmt::Debug for Repairs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Repairs")
            .field("known", &self.known)
            .finish_non_exhaustive()
    }
}

/// Asks the peer about one author, if it may read the space.
async fn repair(
    inner: Arc<Inner>,
    in_use: InUse,
    space: SpaceId,
    author: AuthorId,
) -> Result<ForkEnd, SyncError> {
    let peer: EndpointId = in_use.link.connection.remote_id();
    if !inner.policy.may_read(peer, space).await {
        // Both sides of a comparison show what they hold.
        let code = CloseCode::Refused;
        return Err(SyncError::Closed { code });
    }
    let after = inner.limits.dial_timeout;
    let opened = timeout(after, in_use.link.connection.open_bi()).await;
    let (send, recv) = opened.map_err(|_elapsed| SyncError::DialTimeout { after })??;
    let mut reader = FrameReader::new(recv, Arc::clone(&inner.metrics));
    let mut writer = FrameWriter::new(send, Arc::clone(&inner.metrics), &inner.limits);
    let config = ForkAskerConfig {
        request_id: inner.next_request_id(),
        space,
        author,
        unwanted: unwanted(&inner, space, author),
        limits: inner.limits.session.clone(),
    };
    let session = Session::Asker(Box::new(ForkAsker::new(config, Duration::ZERO)));
    let log = Log {
        peer,
        space,
        author,
        is_asked: false,
    };
    let end = drive(&inner, log, session, &mut reader, &mut writer, || ()).await;
    match &end {
        // The peer may be at sending what is not stored.
        Ok(end) if end.unstored.is_some() => reader.stop(CloseCode::Cancelled),
        Ok(_) => {}
        Err(error) => {
            let code: CloseCode = error.close_code();
            reader.stop(code);
            writer.reset(code);
        }
    }
    end
}

/// Why nothing more of an author would be stored, if an earlier sync found out that it is so.
fn unwanted(inner: &Inner, space: SpaceId, author: AuthorId) -> Option<Unstored> {
    let except = inner.left_out.of(space, &*inner.policy);
    if except.over_quota.contains(&author) {
        return Some(Unstored::OverQuota);
    }
    let is_left_out = except.authors.contains(&author);
    is_left_out.then_some(Unstored::NotAccepted)
}
