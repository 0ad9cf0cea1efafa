//! Whose turn it is to pull.

use headwater_wire::SpaceId;
use iroh::EndpointId;
use tokio::sync::OwnedSemaphorePermit;

use crate::{node::Inner, sync::SyncError};

/// The right to pull: one pull of a space from a peer at a time, and few from one peer.
#[derive(Debug)]
pub(crate) struct Places {
    history: Option<[OwnedSemaphorePermit; 2]>,
    _live: Option<OwnedSemaphorePermit>,
}

impl Places {
    /// Waits for a place.
    pub(crate) async fn take(
        inner: &Inner,
        space: SpaceId,
        peer: EndpointId,
        live: bool,
    ) -> Result<Self, SyncError> {
        let live = if live {
            let only = inner.live_flights.queue((peer, space)).try_acquire_owned();
            Some(only.map_err(|_taken| SyncError::AlreadyLive)?)
        } else {
            None
        };
        // Neither queue is ever closed.
        let flight = inner.flights.queue((peer, space)).acquire_owned().await;
        let place = inner.pulls.queue(peer).acquire_owned().await;
        Ok(Self {
            history: flight
                .ok()
                .zip(place.ok())
                .map(|(flight, place)| [flight, place]),
            _live: live,
        })
    }

    /// The history is pulled: the next one may begin.
    pub(crate) fn history_done(&mut self) {
        self.history = None;
    }

    /// Takes a place for a history, if one is free now.
    pub(crate) fn try_take(inner: &Inner, space: SpaceId, peer: EndpointId) -> Option<Self> {
        let flight = inner.flights.queue((peer, space)).try_acquire_owned();
        let place = inner.pulls.queue(peer).try_acquire_owned();
        Some(Self {
            history: Some([flight.ok()?, place.ok()?]),
            _live: None,
        })
    }
}
