//! Whose turn it is to pull.

use headwater_wire::SpaceId;
use iroh::EndpointId;
use n0_future::time::timeout;
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
            // One that was dropped just now may still be on its way out.
            let only = inner.live_flights.queue((peer, space)).acquire_owned();
            let only = timeout(inner.limits.busy_after, only).await;
            let only = only.ok().and_then(Result::ok);
            Some(only.ok_or(SyncError::AlreadyLive)?)
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

    /// Takes a place to ask back, if no pull of the space from the peer is running: that one
    /// brings what asking back would, and two that asked each other back would never end.
    pub(crate) fn try_take(inner: &Inner, space: SpaceId, peer: EndpointId) -> Option<Self> {
        let live = inner.live_flights.queue((peer, space));
        if live.available_permits() == 0 {
            return None;
        }
        let flight = inner.flights.queue((peer, space)).try_acquire_owned();
        let place = inner.pulls.queue(peer).try_acquire_owned();
        Some(Self {
            history: Some([flight.ok()?, place.ok()?]),
            _live: None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Headwater;

    const SPACE: SpaceId = SpaceId::from_bytes([1; 32]);

    fn peer() -> EndpointId {
        iroh::SecretKey::from_bytes(&[1; 32]).public()
    }

    #[tokio::test(start_paused = true)]
    async fn a_live_pull_waits_for_one_that_is_on_its_way_out_and_not_for_one_that_stays() {
        let node = Headwater::builder().open();
        let live = || Places::take(node.inner(), SPACE, peer(), true);
        let mut first = live().await.expect("free");
        first.history_done();
        let refused = live().await;
        assert!(matches!(refused, Err(SyncError::AlreadyLive)));
        let (second, ()) = tokio::join!(live(), async { drop(first) });
        second.expect("given back in time");
        node.shutdown().await;
    }

    #[tokio::test]
    async fn nobody_is_asked_back_while_a_pull_of_the_same_space_runs_live_or_not() {
        let node = Headwater::builder().open();
        for live in [false, true] {
            let mut running = Places::take(node.inner(), SPACE, peer(), live)
                .await
                .expect("free");
            assert!(Places::try_take(node.inner(), SPACE, peer()).is_none());
            if live {
                running.history_done();
                assert!(Places::try_take(node.inner(), SPACE, peer()).is_none());
            }
            let other = SpaceId::from_bytes([2; 32]);
            assert!(Places::try_take(node.inner(), other, peer()).is_some());
            drop(running);
            assert!(Places::try_take(node.inner(), SPACE, peer()).is_some());
        }
        node.shutdown().await;
    }
}
