//! Who may read, write and be believed, over real connections.

mod granting;
mod invites;
mod lists;
mod matrix;
mod owner_forks;
mod refusals;
mod starts;
mod writers;

use headwater::{CloseCode, Headwater, SessionError, SyncError};

use crate::nodes::Node;

/// A node that goes by the owners' rosters, as nodes do by default.
async fn roster() -> Node {
    Node::build(Headwater::builder()).await
}

/// Whether a sync failed as one with a stranger does.
fn is_refusal(error: &SyncError) -> bool {
    matches!(
        error,
        SyncError::Session(SessionError::Reset(CloseCode::Refused))
    )
}
