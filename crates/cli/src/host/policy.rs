//! Who may do what at a host: what is served, and what the owners of the spaces say.

use headwater::{Acceptance, AccessPolicy, AuthorId, Changes, Roster, SpaceId};
use iroh::EndpointId;
use n0_future::boxed::BoxFuture;

use super::Served;

/// Peers may read what is served, as far as the space's owner lets them; who writes and who is
/// believed is for the owner to say.
#[derive(Debug)]
pub(super) struct ServedToMembers {
    served: Served,
    roster: Roster,
}

impl ServedToMembers {
    /// Of these spaces, for those whom their owners let in.
    pub(super) fn new(served: Served) -> Self {
        Self {
            served,
            roster: Roster::new(),
        }
    }
}

impl AccessPolicy for ServedToMembers {
    fn may_read(&self, remote: EndpointId, space: SpaceId) -> BoxFuture<bool> {
        if self.served.contains(space) {
            self.roster.may_read(remote, space)
        } else {
            Box::pin(std::future::ready(false))
        }
    }

    fn may_announce(&self, remote: EndpointId, space: SpaceId) -> BoxFuture<bool> {
        if self.served.contains(space) {
            self.roster.may_announce(remote, space)
        } else {
            Box::pin(std::future::ready(false))
        }
    }

    fn accepts(&self, space: SpaceId, author: AuthorId) -> Acceptance {
        self.roster.accepts(space, author)
    }

    fn trusts(&self, remote: EndpointId, space: SpaceId) -> bool {
        self.roster.trusts(remote, space)
    }

    fn names(&self, remote: EndpointId) -> bool {
        self.roster.names(remote)
    }

    fn changes(&self) -> Changes {
        self.roster.changes()
    }

    fn roster(&self) -> Option<&Roster> {
        Some(&self.roster)
    }
}
