//! What a live stream does not bring, and a pull beside it does.
//!
//! ```text
//! an author was too fast ──────────────┐
//! more of an author is accepted than   ├─▶ a pull, after a while ─▶ the stream goes on from there
//! when it was left out or refused ─────┘
//! ```
//!
//! Invariant: of whoever was refused the lowest acceptance is kept that something was refused under,
//! until a pull that began under a higher one has ended.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use headwater_proto::{AppliedRun, MAX_LISTED_FORKS};
use headwater_wire::{
    Acceptance, AppendError, AuthorId, HeadsDigest, SpaceId, limits::MAX_FILTER_VALUES,
};
use n0_future::time::Instant;

use super::at;
use crate::{
    policy::{AccessPolicy, Changes},
    sync::SyncHandle,
};

/// The authors a live stream is behind with.
pub(super) struct Behind {
    space: SpaceId,
    policy: Arc<dyn AccessPolicy>,
    changes: Seen,
    after: Duration,
    /// Whose runs came too fast: what does not fit is missing for that.
    fast: BTreeSet<AuthorId>,
    /// Of whom nothing, or nothing more, was accepted.
    unaccepted: BTreeMap<AuthorId, Refused>,
    pull_at: Option<Instant>,
    pull: Option<SyncHandle>,
    /// How much was accepted of those who regained something when the pull began. Whoever is refused
    /// meanwhile is taken out.
    pulling: BTreeMap<AuthorId, Bound>,
}

/// The changes of a policy, and how many there were when it was asked last.
pub(super) struct Seen {
    changes: Changes,
    times: u64,
}

/// How much of a log is accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Bound {
    Nothing,
    Through(u64),
    All,
}

#[derive(Debug, Clone, Copy)]
struct Refused {
    under: Bound,
    /// Whether the peer was told to leave the author out. Then the stream never brings what it writes: once
    /// all of it is accepted it is pulled as long as the stream lives.
    left_out: bool,
}

/// What to do next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Begin a pull.
    Pull,
    /// Nothing.
    Wait,
}

impl Seen {
    /// To be called before the policy is asked.
    pub(super) fn now(changes: Changes) -> Self {
        let times = changes.times();
        Self { changes, times }
    }
}

impl Bound {
    fn through(last: Option<u64>) -> Self {
        last.map_or(Self::Nothing, Self::Through)
    }
}

impl From<Acceptance> for Bound {
    fn from(acceptance: Acceptance) -> Self {
        match acceptance {
            Acceptance::All => Self::All,
            Acceptance::Through(last) => Self::Through(last.seq),
            Acceptance::Nothing => Self::Nothing,
        }
    }
}

impl Behind {
    /// For a stream whose request leaves out `left_out`, each of whom is accepted to that seq.
    pub(super) fn new(
        space: SpaceId,
        policy: Arc<dyn AccessPolicy>,
        changes: Seen,
        left_out: impl IntoIterator<Item = (AuthorId, Option<u64>)>,
        after: Duration,
    ) -> Self {
        let refused = |(author, last)| {
            let under = Bound::through(last);
            let left_out = true;
            (author, Refused { under, left_out })
        };
        Self {
            space,
            policy,
            changes,
            after,
            fast: BTreeSet::new(),
            unaccepted: left_out.into_iter().map(refused).collect(),
            pull_at: None,
            pull: None,
            pulling: BTreeMap::new(),
        }
    }

    /// Takes note of what became of runs, of the history or live.
    pub(super) fn note(&mut self, applied: &[AppliedRun]) {
        let mut is_behind = false;
        for applied in applied {
            match applied.outcome {
                Err(AppendError::OverRate { author }) => {
                    if self.fast.len() < MAX_LISTED_FORKS {
                        self.fast.insert(author);
                    }
                    is_behind = true;
                }
                Err(AppendError::Gap { author, .. }) => is_behind |= self.may_lack(&author),
                Err(AppendError::NotAccepted { author, through }) => {
                    is_behind |= self.refused(author, Bound::through(through));
                }
                _ => {}
            }
        }
        if is_behind {
            self.pull_later();
        }
    }

    /// Whether runs of the author were not taken, or may have been: the lists are bounded.
    fn may_lack(&self, author: &AuthorId) -> bool {
        self.fast.len() >= MAX_LISTED_FORKS
            || self.fast.contains(author)
            || self.unaccepted.len() >= MAX_FILTER_VALUES
            || self.unaccepted.contains_key(author)
    }

    /// Returns whether more is accepted by now: the change may have been told before.
    fn refused(&mut self, author: AuthorId, under: Bound) -> bool {
        self.pulling.remove(&author);
        let is_full = self.unaccepted.len() >= MAX_FILTER_VALUES;
        if is_full && !self.unaccepted.contains_key(&author) {
            return false;
        }
        let left_out = false;
        let refused = self.unaccepted.entry(author);
        let refused = refused.or_insert(Refused { under, left_out });
        refused.under = refused.under.min(under);
        let refused = *refused;
        refused.under < self.accepted(author)
    }

    fn accepted(&self, author: AuthorId) -> Bound {
        self.policy.accepts(self.space, author).into()
    }

    /// Of whom a pull would bring something, and how much is accepted.
    fn regained(&self) -> BTreeMap<AuthorId, Bound> {
        let accepted = self.unaccepted.iter().filter_map(|(author, refused)| {
            let now = self.accepted(*author);
            let is_pulled = refused.left_out && now == Bound::All;
            (is_pulled || now > refused.under).then_some((*author, now))
        });
        accepted.collect()
    }

    fn pull_later(&mut self) {
        let after = self.after;
        self.pull_at.get_or_insert_with(|| Instant::now() + after);
    }

    /// Waits until there is something to do. Safe to cancel.
    pub(super) async fn next(&mut self) -> Next {
        tokio::select! {
            () = at(self.pull_at), if self.pull.is_none() => {
                self.pull_at = None;
                self.pulling = self.regained();
                Next::Pull
            }
            is_whole = history(&mut self.pull) => {
                self.pull = None;
                self.pulled(is_whole);
                Next::Wait
            }
            times = self.changes.changes.other_than(self.changes.times) => {
                self.changes.times = times;
                if !self.regained().is_empty() {
                    self.pull_at = Some(Instant::now());
                }
                Next::Wait
            }
        }
    }

    /// The pull that was begun. It stops when this is dropped.
    pub(super) fn began(&mut self, pull: SyncHandle) {
        self.pull = Some(pull);
    }

    /// The pull has ended.
    fn pulled(&mut self, is_whole: bool) {
        for (author, under) in std::mem::take(&mut self.pulling) {
            if is_whole && let Some(refused) = self.unaccepted.get_mut(&author) {
                refused.under = under;
            }
        }
        if !self.regained().is_empty() {
            self.pull_later();
        }
    }
}

/// Waits for the history of a pull, and tells whether it came to its end; for ever if there is none. Its end
/// is traced and counted like any other's.
async fn history(pull: &mut Option<SyncHandle>) -> bool {
    match pull {
        Some(pull) => match pull.history().await {
            // A history that was cut was compared with nothing.
            Ok(report) => report.joined_digest != HeadsDigest::EMPTY,
            Err(_) => false,
        },
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use headwater_wire::{AuthorHead, EventId};
    use iroh::EndpointId;
    use n0_future::boxed::BoxFuture;

    use super::*;
    use crate::policy::ChangeSignal;

    const SPACE: SpaceId = SpaceId::from_bytes([1; 32]);
    const AUTHOR: AuthorId = AuthorId::from_bytes([2; 32]);

    /// Answers the same of everybody.
    #[derive(Debug)]
    struct Answers(Mutex<Acceptance>, ChangeSignal);

    impl Answers {
        fn with(acceptance: Acceptance) -> Arc<Self> {
            Arc::new(Self(Mutex::new(acceptance), ChangeSignal::new()))
        }

        fn set(&self, acceptance: Acceptance) {
            *self.0.lock().unwrap() = acceptance;
            self.1.notify();
        }
    }

    impl AccessPolicy for Answers {
        fn may_read(&self, _: EndpointId, _: SpaceId) -> BoxFuture<bool> {
            Box::pin(std::future::ready(true))
        }

        fn accepts(&self, _: SpaceId, _: AuthorId) -> Acceptance {
            *self.0.lock().unwrap()
        }

        fn changes(&self) -> Changes {
            self.1.changes()
        }
    }

    const fn head(seq: u64) -> AuthorHead {
        AuthorHead {
            seq,
            id: EventId::from_bytes([0; 32]),
        }
    }

    fn behind(policy: &Arc<Answers>, left_out: &[(AuthorId, Option<u64>)]) -> Behind {
        let changes = Seen::now(policy.changes());
        let left_out = left_out.iter().copied();
        let policy: Arc<dyn AccessPolicy> = Arc::<Answers>::clone(policy);
        Behind::new(SPACE, policy, changes, left_out, Duration::ZERO)
    }

    fn refused(error: AppendError) -> [AppliedRun; 1] {
        let outcome = Err(error);
        [AppliedRun {
            head: head(9),
            outcome,
        }]
    }

    fn unaccepted(through: Option<u64>) -> [AppliedRun; 1] {
        let author = AUTHOR;
        refused(AppendError::NotAccepted { author, through })
    }

    #[tokio::test]
    async fn a_higher_bound_is_pulled_once_and_a_lower_one_is_not() {
        let policy = Answers::with(Acceptance::Through(head(7)));
        let mut behind = behind(&policy, &[(AUTHOR, Some(7))]);
        policy.set(Acceptance::Through(head(5)));
        assert_eq!(behind.next().await, Next::Wait);
        assert!(behind.pull_at.is_none());
        policy.set(Acceptance::Through(head(9)));
        assert_eq!(behind.next().await, Next::Wait);
        assert_eq!(behind.next().await, Next::Pull);
        behind.pulled(false);
        assert_eq!(behind.next().await, Next::Pull, "it failed");
        behind.pulled(true);
        assert!(behind.pull_at.is_none());
        // Who was left out and may write again is pulled as long as the stream lives.
        policy.set(Acceptance::All);
        assert_eq!(behind.next().await, Next::Wait);
        for _ in 0..3 {
            assert_eq!(behind.next().await, Next::Pull);
            behind.pulled(true);
        }
    }

    #[tokio::test]
    async fn a_refusal_noted_after_the_change_is_pulled_all_the_same() {
        let policy = Answers::with(Acceptance::Nothing);
        let mut behind = behind(&policy, &[]);
        policy.set(Acceptance::All);
        assert_eq!(behind.next().await, Next::Wait);
        assert!(behind.pull_at.is_none());
        behind.note(&unaccepted(None));
        assert_eq!(behind.next().await, Next::Pull);
        // One that is refused while the pull runs waits for the next.
        behind.note(&unaccepted(Some(3)));
        behind.pulled(true);
        assert_eq!(behind.next().await, Next::Pull);
        behind.pulled(true);
        assert!(behind.pull_at.is_none(), "the stream brings the rest");
    }

    #[tokio::test]
    async fn what_does_not_fit_behind_a_refusal_is_pulled() {
        let policy = Answers::with(Acceptance::Nothing);
        let mut behind = behind(&policy, &[]);
        let gap = refused(AppendError::Gap {
            author: AUTHOR,
            expected: 1,
            found: 9,
        });
        behind.note(&gap);
        assert!(behind.pull_at.is_none(), "it is not known to be missing");
        behind.note(&unaccepted(None));
        assert!(behind.pull_at.is_none());
        behind.note(&gap);
        assert_eq!(behind.next().await, Next::Pull);
    }
}
