//! Access as the owner of each space says.

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard},
};

use headwater_wire::{Acceptance, AuthorId, MemberKey, Roles, RosterState, SpaceId};
use iroh::EndpointId;
use n0_future::boxed::BoxFuture;
use tokio::sync::watch;

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

#[derive(Debug, Default)]
struct Shared {
    spaces: RwLock<HashMap<SpaceId, RosterState>>,
    /// Whether the node has read what it holds.
    loaded: watch::Sender<bool>,
    signal: ChangeSignal,
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
            let roles = roster.roles(space, &node_key(remote));
            roles.contains(Roles::READ)
        })
    }

    fn may_announce(&self, remote: EndpointId, space: SpaceId) -> BoxFuture<bool> {
        let roster = self.clone();
        Box::pin(async move {
            roster.loaded().await;
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

    fn changes(&self) -> Changes {
        self.0.signal.changes()
    }

    fn roster(&self) -> Option<&Roster> {
        Some(self)
    }
}
