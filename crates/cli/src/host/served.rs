//! Which spaces peers may read here: those that are served for good, and those that are in use.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use headwater::SpaceId;

/// The spaces that peers may read. Clones are one list.
#[derive(Debug, Clone)]
pub(crate) struct Served(Arc<Mutex<Spaces>>);

#[derive(Debug)]
struct Spaces {
    /// As long as the node runs; every space if `None`.
    lasting: Option<BTreeSet<SpaceId>>,
    /// As long as some command uses them, and how many do.
    in_use: BTreeMap<SpaceId, usize>,
}

impl Served {
    /// Every space, for whoever knows its id.
    pub(crate) fn all() -> Self {
        Self::lasting(None)
    }

    /// These spaces alone.
    pub(crate) fn only(spaces: BTreeSet<SpaceId>) -> Self {
        Self::lasting(Some(spaces))
    }

    fn lasting(lasting: Option<BTreeSet<SpaceId>>) -> Self {
        Self(Arc::new(Mutex::new(Spaces {
            lasting,
            in_use: BTreeMap::new(),
        })))
    }

    /// Whether peers may read this space.
    pub(crate) fn contains(&self, space: SpaceId) -> bool {
        let spaces = self.lock();
        let lasting = spaces.lasting.as_ref();
        lasting.is_none_or(|lasting| lasting.contains(&space)) || spaces.in_use.contains_key(&space)
    }

    /// Lets peers read this space, too, until as many [`Self::end_use`]s.
    pub(super) fn begin_use(&self, space: SpaceId) {
        *self.lock().in_use.entry(space).or_default() += 1;
    }

    /// Takes one [`Self::begin_use`] back.
    pub(super) fn end_use(&self, space: SpaceId) {
        let mut spaces = self.lock();
        if let Some(users) = spaces.in_use.get_mut(&space) {
            *users -= 1;
            if *users == 0 {
                spaces.in_use.remove(&space);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Spaces> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_space_in_use_is_served_until_its_last_user_has_ended() {
        let [kept, used] = [1, 2].map(|byte| SpaceId::from_bytes([byte; 32]));
        let served = Served::only(BTreeSet::from([kept]));
        assert!(!served.contains(used));
        served.begin_use(used);
        served.begin_use(used);
        served.begin_use(kept);
        served.end_use(used);
        served.end_use(kept);
        assert!(served.contains(used) && served.contains(kept));
        served.end_use(used);
        assert!(!served.contains(used) && served.contains(kept));
    }
}
