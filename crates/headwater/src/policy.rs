//! Who may read what: the one place a node asks.

use std::fmt;

use headwater_wire::SpaceId;
use iroh::EndpointId;
use n0_future::boxed::BoxFuture;

/// Decides whether a peer may read a space.
///
/// A node asks once for every request it serves, before it looks into its store. The identity is
/// the one QUIC authenticated, never one a message claims. A refusal looks to the peer exactly
/// like a space this node does not hold.
pub trait AccessPolicy: fmt::Debug + Send + Sync + 'static {
    /// Whether `remote` may read the history and the live events of `space`.
    fn may_read(&self, remote: EndpointId, space: SpaceId) -> BoxFuture<bool>;
}

/// Serves every space to whoever knows its id.
///
/// The id is then the secret: 32 bytes that cannot be guessed, but whoever has seen them once can
/// read for ever.
#[derive(Debug, Clone, Copy, Default)]
pub struct Open;

impl AccessPolicy for Open {
    fn may_read(&self, _remote: EndpointId, _space: SpaceId) -> BoxFuture<bool> {
        Box::pin(std::future::ready(true))
    }
}

/// Serves nothing to anybody: a node that only pulls.
#[derive(Debug, Clone, Copy, Default)]
pub struct Nobody;

impl AccessPolicy for Nobody {
    fn may_read(&self, _remote: EndpointId, _space: SpaceId) -> BoxFuture<bool> {
        Box::pin(std::future::ready(false))
    }
}
