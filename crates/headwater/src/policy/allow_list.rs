//! Access by lists that the application keeps.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard},
};

use headwater_wire::{Acceptance, AuthorId, SpaceId};
use iroh::EndpointId;
use n0_future::boxed::BoxFuture;

use super::{AccessPolicy, ChangeSignal, Changes};

/// Whoever is listed, and nobody else. Lists may change while nodes run; clones share them.
///
/// What was stored of an author who is taken off the list stays: the list speaks of this node
/// alone. A revocation that all nodes follow alike is what [`Roster`](super::Roster) is for.
#[derive(Debug, Clone, Default)]
pub struct AllowList(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    spaces: RwLock<HashMap<SpaceId, Lists>>,
    signal: ChangeSignal,
}

#[derive(Debug, Default)]
struct Lists {
    readers: HashSet<EndpointId>,
    providers: HashSet<EndpointId>,
    writers: HashSet<AuthorId>,
    any_writer: bool,
}

impl AllowList {
    /// Empty lists: the owners' logs are accepted, and nothing is served.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Lets a node read a space, or no longer.
    pub fn set_reader(&self, space: SpaceId, node: EndpointId, allowed: bool) {
        self.change(space, |lists| set(&mut lists.readers, node, allowed));
    }

    /// Accepts an author's events in a space, or no more of them.
    pub fn set_writer(&self, space: SpaceId, author: AuthorId, allowed: bool) {
        self.change(space, |lists| set(&mut lists.writers, author, allowed));
    }

    /// Accepts the events of every author in a space, or of those listed alone.
    pub fn set_any_writer(&self, space: SpaceId, allowed: bool) {
        self.change(space, |lists| lists.any_writer = allowed);
    }

    /// Believes a node about what is complete in a space, or no longer.
    pub fn set_provider(&self, space: SpaceId, node: EndpointId, allowed: bool) {
        self.change(space, |lists| set(&mut lists.providers, node, allowed));
    }

    fn change(&self, space: SpaceId, change: impl FnOnce(&mut Lists)) {
        let spaces = self.0.spaces.write();
        let mut spaces = spaces.unwrap_or_else(PoisonError::into_inner);
        change(spaces.entry(space).or_default());
        drop(spaces);
        self.0.signal.notify();
    }

    fn spaces(&self) -> RwLockReadGuard<'_, HashMap<SpaceId, Lists>> {
        let spaces = self.0.spaces.read();
        // Each change is a single step.
        spaces.unwrap_or_else(PoisonError::into_inner)
    }
}

fn set<T: std::hash::Hash + Eq>(list: &mut HashSet<T>, entry: T, allowed: bool) {
    if allowed {
        list.insert(entry);
    } else {
        list.remove(&entry);
    }
}

impl AccessPolicy for AllowList {
    fn may_read(&self, remote: EndpointId, space: SpaceId) -> BoxFuture<bool> {
        let spaces = self.spaces();
        let lists = spaces.get(&space);
        let may_read = lists.is_some_and(|lists| lists.readers.contains(&remote));
        Box::pin(std::future::ready(may_read))
    }

    fn accepts(&self, space: SpaceId, author: AuthorId) -> Acceptance {
        let spaces = self.spaces();
        let accepts = |lists: &Lists| lists.any_writer || lists.writers.contains(&author);
        if spaces.get(&space).is_some_and(accepts) {
            Acceptance::All
        } else {
            Acceptance::Nothing
        }
    }

    fn trusts(&self, remote: EndpointId, space: SpaceId) -> bool {
        let spaces = self.spaces();
        let lists = spaces.get(&space);
        lists.is_some_and(|lists| lists.providers.contains(&remote))
    }

    fn names(&self, remote: EndpointId) -> bool {
        let is_listed =
            |lists: &Lists| lists.readers.contains(&remote) || lists.providers.contains(&remote);
        self.spaces().values().any(is_listed)
    }

    fn changes(&self) -> Changes {
        self.0.signal.changes()
    }
}
