//! Access as the owner of each space says.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard},
    time::{Duration, Instant},
};

use headwater_wire::{Acceptance, AuthorId, MemberKey, Roles, RosterState, SpaceId};
use iroh::EndpointId;
use n0_future::boxed::BoxFuture;
use tokio::sync::{oneshot, watch};

use super::{AccessPolicy, ChangeSignal, Changes};

/// What grants and revocations in the owner's log of each space say: [`Space::grant`],
/// [`Space::revoke`], [`Space::invite`]. The owner may do everything; nobody else may do anything
/// that was not granted.
///
/// The node keeps it up to date: it reads the owners' logs when it starts, and takes in what is
/// appended to them before anything that comes later is decided. Use one with one node. Clones share
/// what they know.
///
/// [`Space::grant`]: crate::Space::grant
/// [`Space::revoke`]: crate::Space::revoke
/// [`Space::invite`]: crate::Space::invite
#[derive(Debug, Clone, Default)]
pub struct Roster(Arc<Shared>);

/// First pause before an owner's log that could not be read is read again, after a first time without
/// one; doubles each time.
const READ_AGAIN_AFTER: Duration = Duration::from_secs(1);

/// Longest such pause: what asks meanwhile is refused, as nobody can say who has access.
const READ_AGAIN_WITHIN: Duration = Duration::from_mins(1);

#[derive(Debug, Default)]
struct Shared {
    spaces: RwLock<HashMap<SpaceId, RosterState>>,
    /// Whether the node has read what it holds.
    loaded: watch::Sender<bool>,
    /// Spaces whose owner's log could not be read; `None` if they could not be listed.
    unread: Mutex<HashMap<Option<SpaceId>, Retry>>,
    /// Has the node read them, as far as it is time to.
    reader: RwLock<Option<Reader>>,
    signal: ChangeSignal,
}

/// When to read again what could not be read.
#[derive(Debug)]
struct Retry {
    at: Instant,
    pause: Duration,
}

type ReadAgain = dyn Fn() -> Option<oneshot::Receiver<()>> + Send + Sync;

struct Reader(Box<ReadAgain>);

impl fmt::Debug for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Reader")
    }
}

/// A node's key as rosters and invites name it.
#[must_use]
pub fn node_key(node: EndpointId) -> MemberKey {
    MemberKey::from_bytes(*node.as_bytes())
}

impl Roster {
    /// A roster that knows nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// What the holder of a key may do in a space, as far as the owner's log is held here.
    #[must_use]
    pub fn roles(&self, space: SpaceId, key: &MemberKey) -> Roles {
        let spaces = self.spaces();
        spaces
            .get(&space)
            .map_or(Roles::NONE, |state| state.roles(key))
    }

    /// Makes everything that runs ask again: for a policy built upon this one whose own answers
    /// changed.
    pub fn notify(&self) {
        self.0.signal.notify();
    }

    /// Resolves once the node has read the owners' logs it holds.
    pub(crate) async fn loaded(&self) {
        // The sender lives in `self`, so waiting cannot fail.
        let mut loaded = self.0.loaded.subscribe();
        loaded.wait_for(|loaded| *loaded).await.ok();
    }

    pub(crate) fn set_loaded(&self) {
        self.0.loaded.send_replace(true);
    }

    /// Says how the node is asked to read again what it could not. The answer comes once it has tried.
    pub(crate) fn set_reader(
        &self,
        reader: impl Fn() -> Option<oneshot::Receiver<()>> + Send + Sync + 'static,
    ) {
        let mut place = self
            .0
            .reader
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        *place = Some(Reader(Box::new(reader)));
    }

    /// An owner's log, or with `None` the list of spaces, could not be read. It is again when somebody
    /// asks: the first time at once, then after longer and longer pauses.
    pub(crate) fn set_unread(&self, space: Option<SpaceId>) {
        let now = Instant::now();
        let retry = Retry {
            at: now,
            pause: Duration::ZERO,
        };
        self.unread().entry(space).or_insert(retry);
    }

    pub(crate) fn set_read(&self, space: Option<SpaceId>) {
        self.unread().remove(&space);
    }

    /// What could not be read, and is to be read now. It is not named again before its next pause is
    /// over.
    pub(crate) fn take_due(&self) -> Vec<Option<SpaceId>> {
        let now = Instant::now();
        let mut unread = self.unread();
        let due = unread.iter_mut().filter(|(_, retry)| retry.at <= now);
        due.map(|(space, retry)| {
            let doubled = retry.pause.saturating_mul(2);
            retry.pause = doubled.clamp(READ_AGAIN_AFTER, READ_AGAIN_WITHIN);
            retry.at = now + retry.pause;
            *space
        })
        .collect()
    }

    /// Waits until what could not be read of a space was tried again, if it is time to.
    async fn read_again(&self, space: SpaceId) {
        let is_due = {
            let (now, unread) = (Instant::now(), self.unread());
            let is_due = |key| unread.get(&key).is_some_and(|retry| retry.at <= now);
            is_due(Some(space)) || is_due(None)
        };
        if !is_due {
            return;
        }
        let reading = {
            let reader = self.0.reader.read().unwrap_or_else(PoisonError::into_inner);
            reader.as_ref().and_then(|reader| (reader.0)())
        };
        if let Some(reading) = reading {
            // A node that stops answers nothing more.
            reading.await.ok();
        }
    }

    fn unread(&self) -> MutexGuard<'_, HashMap<Option<SpaceId>, Retry>> {
        // Each entry is changed as a whole.
        self.0.unread.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn state(&self, space: SpaceId) -> Option<RosterState> {
        self.spaces().get(&space).cloned()
    }

    /// Looks at a space's state, if there is one.
    pub(crate) fn with<T>(
        &self,
        space: SpaceId,
        look: impl FnOnce(&RosterState) -> T,
    ) -> Option<T> {
        self.spaces().get(&space).map(look)
    }

    /// Changes a space's state, which is that of an empty log if there was none.
    pub(crate) fn change<T>(
        &self,
        space: SpaceId,
        owner: AuthorId,
        change: impl FnOnce(&mut RosterState) -> T,
    ) -> T {
        let spaces = self.0.spaces.write();
        let mut spaces = spaces.unwrap_or_else(PoisonError::into_inner);
        let state = spaces.entry(space);
        change(state.or_insert_with(|| RosterState::new(owner)))
    }

    pub(crate) fn set(&self, space: SpaceId, state: RosterState) {
        let spaces = self.0.spaces.write();
        let mut spaces = spaces.unwrap_or_else(PoisonError::into_inner);
        spaces.insert(space, state);
    }

    /// Forgets a space: nobody may do anything in it.
    pub(crate) fn forget(&self, space: SpaceId) {
        let spaces = self.0.spaces.write();
        let mut spaces = spaces.unwrap_or_else(PoisonError::into_inner);
        spaces.remove(&space);
    }

    fn spaces(&self) -> RwLockReadGuard<'_, HashMap<SpaceId, RosterState>> {
        // A state is changed event by event: one left in the middle is an earlier one.
        let spaces = self.0.spaces.read();
        spaces.unwrap_or_else(PoisonError::into_inner)
    }
}

impl AccessPolicy for Roster {
    fn may_read(&self, remote: EndpointId, space: SpaceId) -> BoxFuture<bool> {
        let roster = self.clone();
        Box::pin(async move {
            roster.loaded().await;
            roster.read_again(space).await;
            let roles = roster.roles(space, &node_key(remote));
            roles.contains(Roles::READ)
        })
    }

    fn may_announce(&self, remote: EndpointId, space: SpaceId) -> BoxFuture<bool> {
        let roster = self.clone();
        Box::pin(async move {
            roster.loaded().await;
            roster.read_again(space).await;
            let key = node_key(remote);
            let may_read = |state: &RosterState| state.roles(&key).contains(Roles::READ);
            roster.with(space, may_read).unwrap_or(true)
        })
    }

    fn accepts(&self, space: SpaceId, author: AuthorId) -> Acceptance {
        let acceptance = self.with(space, |state| state.acceptance(&author));
        acceptance.unwrap_or(Acceptance::Nothing)
    }

    fn trusts(&self, remote: EndpointId, space: SpaceId) -> bool {
        let roles = self.roles(space, &node_key(remote));
        roles.contains(Roles::PROVIDE)
    }

    fn names(&self, remote: EndpointId) -> bool {
        let key = node_key(remote);
        self.spaces().values().any(|state| state.is_granted(&key))
    }

    fn changes(&self) -> Changes {
        self.0.signal.changes()
    }

    fn roster(&self) -> Option<&Roster> {
        Some(self)
    }
}
