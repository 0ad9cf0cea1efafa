//! What a bridge to another network needs of a space: which logs grow, heads that prove themselves,
//! and a way in for runs that came by another road than a sync.
//!
//! ```text
//! hub ──▶ Growth ──▶ bridge ──▶ announcements            announcements ──▶ bridge ──▶ apply ──▶ writer
//! ```
//!
//! Nothing here decides what is announced, or to whom.

use std::sync::Arc;

use headwater_proto::{Appended, TailWant};
use headwater_store::{Damage, StoreError};
use headwater_wire::{
    AppendError, AuthorId, AuthorSecret, Blame, EventDraft, EventRef, Run, RunError, SignedHead,
    VerifiedRun, limits::TOPIC_SECRET_BYTES,
};
use iroh::EndpointId;

use crate::{
    apply::{is_small, verify, verify_one},
    commit::{Origin, StoreReply},
    hub::{Cut, Grown, Watcher},
    node::now_ms,
    space::{Space, WriteError},
};

/// Logs whose growth is told of at once.
const AUTHORS_AT_ONCE: usize = 1024;

/// Events of the owner's log looked through at once for the topic's secret.
const SECRET_WINDOW: u64 = 1024;

/// Tells which logs of a space grow, from when it was made on.
///
/// Two commits to one log between two calls are one growth, so memory is bounded by the number
/// of authors and nothing is ever lost: the store is the queue.
#[derive(Debug)]
pub struct Growth {
    watcher: Watcher,
}

/// How far one log grew, or that it was cut.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct LogGrowth {
    /// Whose log.
    pub author: AuthorId,
    /// The last event before.
    pub above: u64,
    /// The last event now.
    pub through: u64,
    /// Whether all of these events came from peers, by a sync or by [`Space::apply`].
    pub from_peers: bool,
    /// The run of exactly these events, if it is small and came alone; otherwise read it.
    pub run: Option<VerifiedRun>,
    /// The log did not grow: it was cut, because it is proven to fork at this seq. `above` and
    /// `through` are both the last event shown now. Nothing but the new digest is to be told of it.
    pub forked: Option<u64>,
}

/// Runs that came from a peer were not applied. Nothing of the call is stored, unless the error
/// says so, or that the node is shutting down: then all of it may be.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum ApplyRunsError {
    /// A run does not verify, or lacks a payload: the author, or the sender, made it up.
    #[error(transparent)]
    Invalid(#[from] RunError),
    /// This node's store failed. Nothing is stored of the runs that have no outcome.
    #[error("store failed: {source}")]
    Store {
        /// Outcomes of the first runs of the call, which were a transaction of their own because
        /// they may change who has access; mostly there are none.
        outcomes: Vec<Result<Appended, AppendError>>,
        /// What failed.
        source: Arc<StoreError>,
    },
    /// The node is shutting down.
    #[error("the node is shutting down")]
    ShuttingDown,
}

impl From<StoreReply> for Result<Vec<Result<Appended, AppendError>>, ApplyRunsError> {
    fn from(StoreReply { outcomes, failed }: StoreReply) -> Self {
        match failed {
            None => Ok(outcomes),
            Some(source) => Err(ApplyRunsError::Store { outcomes, source }),
        }
    }
}

impl ApplyRunsError {
    /// Whose fault it was.
    #[must_use]
    pub fn blame(&self) -> Blame {
        match self {
            Self::Invalid(_) => Blame::Peer,
            Self::Store { .. } | Self::ShuttingDown => Blame::Local,
        }
    }
}

impl Growth {
    /// Waits until logs have grown or were cut, and tells of up to 1,024 that grew, ascending by
    /// author, and then of those that were cut. Safe to cancel.
    pub async fn next(&mut self) -> Vec<LogGrowth> {
        self.watcher.changed().await;
        let grown = self.watcher.take(AUTHORS_AT_ONCE);
        let cuts = self.watcher.take_cuts();
        let grown = grown.into_iter().map(LogGrowth::from);
        grown.chain(cuts.into_iter().map(LogGrowth::from)).collect()
    }
}

impl From<Grown> for LogGrowth {
    fn from(grown: Grown) -> Self {
        Self {
            author: grown.want.author,
            above: grown.want.above,
            through: grown.want.through,
            from_peers: grown.from_peers,
            run: grown.run,
            forked: None,
        }
    }
}

impl From<Cut> for LogGrowth {
    fn from(cut: Cut) -> Self {
        Self {
            author: cut.author,
            above: cut.head,
            through: cut.head,
            // News for everybody, whoever brought it.
            from_peers: false,
            run: None,
            forked: Some(cut.seq),
        }
    }
}

impl Space {
    /// Follows which logs of the space grow, by whatever way, from this call on.
    #[must_use]
    pub fn growth(&self) -> Growth {
        Growth {
            watcher: self.node().inner().hub.watch(self.id()),
        }
    }

    /// Verifies runs that `from` sent outside a sync, all with their payloads, and stores them, in order and in one
    /// transaction, unless some of them may change who has access: those are stored before the others. On return
    /// they are durable.
    ///
    /// Each run that verifies is admitted or refused on its own, as by a sync: the outcomes are in
    /// the order of the call. `from` is not told of them on a live stream it reads here.
    ///
    /// # Errors
    ///
    /// See [`ApplyRunsError`].
    pub async fn apply(
        &self,
        runs: Vec<Run>,
        from: EndpointId,
    ) -> Result<Vec<Result<Appended, AppendError>>, ApplyRunsError> {
        let inner = self.node().inner();
        let mut verified = verify(Arc::clone(inner), self.id(), runs).await?;
        if let [_] = verified.as_slice()
            && let Some(run) = verified.pop()
        {
            match inner.writer.store_at_once(run, Origin::Pushed(from)) {
                Ok(reply) => return reply.into(),
                Err(run) => verified.push(run),
            }
        }
        let reply = inner.writer.store(verified, Origin::Pushed(from)).await;
        let reply = reply.map_err(|_stopped| ApplyRunsError::ShuttingDown)?;
        let reply = reply.await;
        reply
            .map_err(|_stopped| ApplyRunsError::ShuttingDown)?
            .into()
    }

    /// As [`Space::apply`] with a single run, here and now: `None` if that would wait for
    /// something, and then nothing was done.
    ///
    /// So it is for runs of up to 64 events and 16 KiB, and for stores that append without waiting,
    /// such as the memory store, while nothing else is written. The caller's thread checks the
    /// signature and tells who follows the space.
    ///
    /// # Errors
    ///
    /// See [`ApplyRunsError`].
    pub fn apply_at_once(
        &self,
        run: &Run,
        from: EndpointId,
    ) -> Option<Result<Result<Appended, AppendError>, ApplyRunsError>> {
        let writer = &self.node().inner().writer;
        if !is_small(std::slice::from_ref(run)) || !writer.is_free() {
            return None;
        }
        let verified = match verify_one(run.clone(), &self.id()) {
            Ok(verified) => verified,
            Err(invalid) => return Some(Err(ApplyRunsError::Invalid(invalid))),
        };
        let reply = writer.store_at_once(verified, Origin::Pushed(from)).ok()?;
        match reply.into() {
            Ok(outcomes) => outcomes.into_iter().next().map(Ok),
            Err(error) => Some(Err(error)),
        }
    }

    /// The head of one log with its author's signature, or `None` if nothing of it is held. Also
    /// `None` if the log is shown in part only, because it forks or its author lost the right to
    /// write: then nobody has signed where it ends.
    ///
    /// # Errors
    ///
    /// If the store fails, or the end of the log is damaged.
    pub async fn signed_head(&self, author: AuthorId) -> Result<Option<SignedHead>, StoreError> {
        self.read(move |store, space| {
            let Some(record) = store.head(space, &author)? else {
                return Ok(None);
            };
            if record.entry.forked {
                return Ok(None);
            }
            let through = record.entry.head.seq;
            let want = TailWant {
                author,
                above: through.saturating_sub(1),
                through,
            };
            let damaged = || Damage::Run {
                space: *space,
                author,
                seq: through,
            };
            // One run, cut to the events from the head on: the log may have grown meanwhile.
            let stored = store.read_runs(space, &[want], 1)?;
            let stored = stored.into_iter().next().ok_or_else(damaged)?;
            let run = Run::decode(stored.bytes).map_err(|_| damaged())?;
            let run = run.verify(space).map_err(|_| damaged())?;
            let shown = store.head(space, &author)?.map(|record| record.entry);
            let is_shown = shown.is_some_and(|shown| shown.head.seq >= run.last_seq());
            Ok(is_shown.then(|| run.signed_head()))
        })
        .await
    }

    /// Sets the secret that the space's gossip topic is derived from: a control event in the
    /// owner's log, which only those see who may read the space. On return it is durable.
    ///
    /// # Errors
    ///
    /// The log is unchanged on every error; [`WriteError::NotOwner`] if the key is another's.
    pub async fn set_topic_secret(
        &self,
        owner: &AuthorSecret,
        secret: [u8; TOPIC_SECRET_BYTES],
    ) -> Result<EventRef, WriteError> {
        self.check_owner(owner).await?;
        self.append(owner, EventDraft::topic_secret(secret, now_ms()))
            .await
    }

    /// The secret of the space's gossip topic, if the owner's log sets one: the latest that is held.
    ///
    /// Looks through the owner's log from its end, so it costs as much as was written there since.
    ///
    /// # Errors
    ///
    /// If the store fails, or what it holds is damaged.
    pub async fn topic_secret(&self) -> Result<Option<[u8; TOPIC_SECRET_BYTES]>, StoreError> {
        let Some(held) = self.summary().await? else {
            return Ok(None);
        };
        let Some(record) = self.head(held.owner).await? else {
            return Ok(None);
        };
        let mut through = record.entry.head.seq;
        while through > 0 {
            let above = through.saturating_sub(SECRET_WINDOW);
            let mut latest = None;
            let mut events = self.events(held.owner, above + 1..=through);
            while let Some(event) = n0_future::StreamExt::next(&mut events).await {
                latest = event?.topic_secret().or(latest);
            }
            if latest.is_some() {
                return Ok(latest);
            }
            through = above;
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use headwater_wire::{SpaceId, sign_runs};

    use super::*;
    use crate::{Headwater, Open, generate_author};

    fn draft(text: &'static str) -> EventDraft {
        EventDraft::new(16, 0, text)
    }

    fn sender() -> EndpointId {
        iroh::SecretKey::from_bytes(&[1; 32]).public()
    }

    async fn space_of(owner: &AuthorSecret) -> Space {
        let node = Headwater::builder().policy(Open).open();
        node.create_space(owner).await.unwrap()
    }

    /// A run of one event that nobody holds yet.
    fn foreign_run(space: SpaceId, author: &AuthorSecret) -> VerifiedRun {
        let mut runs = sign_runs(&space, author, None, [draft("foreign")]).unwrap();
        runs.remove(0)
    }

    #[tokio::test]
    async fn growth_tells_of_appends_and_of_applied_runs_alike() {
        let (owner, other) = (generate_author(), generate_author());
        let space = space_of(&owner).await;
        let mut growth = space.growth();
        space.append(&owner, draft("own")).await.unwrap();
        let grown = growth.next().await;
        assert_eq!(grown.len(), 1);
        assert_eq!(
            (grown[0].author, grown[0].above, grown[0].through),
            (owner.id(), 1, 2)
        );
        let run = grown[0].run.as_ref().expect("small and fresh");
        assert_eq!(
            run.head(),
            space.head(owner.id()).await.unwrap().unwrap().entry.head
        );

        let run = foreign_run(space.id(), &other).into_run();
        let outcomes = space.apply(vec![run.clone()], sender()).await.unwrap();
        assert_eq!(outcomes[0].as_ref().unwrap().events, 1);
        assert!(!grown[0].from_peers);
        let grown = growth.next().await;
        assert_eq!((grown[0].author, grown[0].from_peers), (other.id(), true));
        let again = space.apply(vec![run], sender()).await.unwrap();
        assert!(matches!(again[0], Err(AppendError::Stale { .. })));
    }

    #[tokio::test]
    async fn a_single_run_is_applied_at_once_where_nothing_has_to_be_waited_for() {
        let (owner, other) = (generate_author(), generate_author());
        let space = space_of(&owner).await;
        // The writer's thread answers before it gives the store back.
        while !space.node().inner().writer.is_free() {
            tokio::task::yield_now().await;
        }
        let mut growth = space.growth();
        let run = foreign_run(space.id(), &other).into_run();
        let applied = space.apply_at_once(&run, sender()).unwrap().unwrap();
        assert_eq!(applied.unwrap().events, 1);
        assert!(growth.next().await[0].from_peers);
        let again = space.apply_at_once(&run, sender()).unwrap().unwrap();
        assert!(matches!(again, Err(AppendError::Stale { .. })));
        let elsewhere = foreign_run(SpaceId::from_bytes([9; 32]), &other).into_run();
        let invalid = space.apply_at_once(&elsewhere, sender()).unwrap();
        assert!(matches!(invalid, Err(ApplyRunsError::Invalid(_))));

        space.node().shutdown().await;
        assert!(space.apply_at_once(&run, sender()).is_none());
    }

    #[tokio::test]
    async fn runs_that_do_not_verify_are_the_senders_fault_and_nothing_of_the_call_is_stored() {
        let owner = generate_author();
        let space = space_of(&owner).await;
        let (good, bad) = (generate_author(), generate_author());
        let elsewhere = SpaceId::from_bytes([9; 32]);
        let runs = vec![
            foreign_run(space.id(), &good).into_run(),
            foreign_run(elsewhere, &bad).into_run(),
        ];
        let error = space.apply(runs, sender()).await.unwrap_err();
        assert!(matches!(
            error,
            ApplyRunsError::Invalid(RunError::WrongSignature { .. })
        ));
        assert_eq!(error.blame(), Blame::Peer);
        assert_eq!(space.head(good.id()).await.unwrap(), None);
    }

    #[tokio::test]
    async fn a_signed_head_is_that_of_the_last_event_and_proves_itself() {
        let owner = generate_author();
        let space = space_of(&owner).await;
        for _ in 0..30 {
            space.append(&owner, draft("one of many")).await.unwrap();
        }
        let head = space.signed_head(owner.id()).await.unwrap().unwrap();
        assert_eq!((head.author, head.head.seq), (owner.id(), 31));
        assert_eq!(head.verify(), Ok(true));
        let nobody = generate_author().id();
        assert_eq!(space.signed_head(nobody).await.unwrap(), None);
    }

    #[tokio::test]
    async fn the_latest_secret_in_the_owners_log_holds_and_only_the_owner_sets_it() {
        let (owner, other) = (generate_author(), generate_author());
        let space = space_of(&owner).await;
        assert_eq!(space.topic_secret().await.unwrap(), None);
        space.set_topic_secret(&owner, [1; 32]).await.unwrap();
        space.set_topic_secret(&owner, [2; 32]).await.unwrap();
        let drafts = (0..2 * SECRET_WINDOW).map(|_| draft("later")).collect();
        space.append_batch(&owner, drafts).await.unwrap();
        assert_eq!(space.topic_secret().await.unwrap(), Some([2; 32]));

        let refused = space.set_topic_secret(&other, [3; 32]).await.unwrap_err();
        assert!(matches!(refused, WriteError::NotOwner { author } if author == other.id()));
        space
            .append(&other, EventDraft::topic_secret([4; 32], 0))
            .await
            .unwrap();
        assert_eq!(space.topic_secret().await.unwrap(), Some([2; 32]));
    }
}
