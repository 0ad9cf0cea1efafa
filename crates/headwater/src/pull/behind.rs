//! What a live stream does not bring, and a pull beside it does.
//!
//! ```text
//! an author was too fast ──────────────────┐
//! an author who was left out may write now ┴─▶ a pull, after a while ─▶ the stream goes on from there
//! ```

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use headwater_proto::{AppliedRun, MAX_LISTED_FORKS};
use headwater_wire::{Acceptance, AppendError, AuthorId, SpaceId, limits::MAX_FILTER_VALUES};
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
    changes: Changes,
    /// How many changes of the policy there were when it was asked last.
    changes_seen: u64,
    after: Duration,
    /// Whose runs came too fast: what does not fit is missing for that.
    fast: BTreeSet<AuthorId>,
    /// Of whom nothing, or nothing more, was accepted when the stream began.
    unaccepted: BTreeSet<AuthorId>,
    /// Whether one of them is accepted now. The peer was told to leave them out, so the stream never
    /// brings what they write: it is pulled as long as the stream lives.
    regained: bool,
    pull_at: Option<Instant>,
    pull: Option<SyncHandle>,
}

/// What to do next.
pub(super) enum Next {
    /// Begin a pull.
    Pull,
    /// Nothing.
    Wait,
}

impl Behind {
    pub(super) fn new(
        space: SpaceId,
        policy: Arc<dyn AccessPolicy>,
        unaccepted: impl IntoIterator<Item = AuthorId>,
        after: Duration,
    ) -> Self {
        let changes = policy.changes();
        Self {
            space,
            changes_seen: changes.times(),
            changes,
            policy,
            after,
            fast: BTreeSet::new(),
            unaccepted: unaccepted.into_iter().collect(),
            regained: false,
            pull_at: None,
            pull: None,
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
                Err(AppendError::Gap { author, .. }) => {
                    let is_full = self.fast.len() >= MAX_LISTED_FORKS;
                    is_behind |= is_full || self.fast.contains(&author);
                }
                Err(AppendError::NotAccepted { author, .. })
                    if self.unaccepted.len() < MAX_FILTER_VALUES =>
                {
                    self.unaccepted.insert(author);
                }
                _ => {}
            }
        }
        if is_behind {
            self.pull_later();
        }
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
                Next::Pull
            }
            () = history(&mut self.pull) => {
                self.pull = None;
                if self.regained {
                    self.pull_later();
                }
                Next::Wait
            }
            times = self.changes.other_than(self.changes_seen) => {
                self.changes_seen = times;
                let (policy, space) = (&self.policy, self.space);
                let is_accepted = |author| policy.accepts(space, author) == Acceptance::All;
                self.regained = self.unaccepted.iter().copied().any(is_accepted);
                if self.regained {
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
}

/// Waits for the history of a pull; for ever if there is none. Its end is traced and counted like any
/// other's.
async fn history(pull: &mut Option<SyncHandle>) {
    match pull {
        Some(pull) => drop(pull.history().await),
        None => std::future::pending().await,
    }
}
