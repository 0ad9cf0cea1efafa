//! Before a handshake: whose is begun at all.
//!
//! ```text
//! first packet ──▶ from an address of somebody known, or ──▶ its bucket ──▶ handshake ──▶ conduct
//!              │   over a relay as somebody known            └─▶ empty ─┐
//!              └─▶ from anywhere else ──▶ one bucket for all ◀──────────┘
//!                                         ├─▶ handshake
//!                                         └─▶ empty: refused, at a thirtieth of the cost
//! ```
//!
//! Nothing but an address is known then, and it may be forged: while strangers use up what they have,
//! every address has to show first, by a QUIC retry, that somebody hears there.

use std::sync::{Arc, Mutex, PoisonError};

use iroh::{
    endpoint::{Incoming, IncomingAddr},
    protocol::{IncomingFilter, IncomingFilterOutcome},
};
use n0_future::time::Instant;
use tracing::debug;

use crate::{
    conduct::{Bucket, CONNECTION},
    limits::Limits,
    node::{Headwater, Inner},
};

/// Handshakes of whoever comes from where nobody known is.
#[derive(Debug)]
pub(crate) struct Gate(Mutex<Bucket>);

impl Gate {
    pub(crate) fn new(limits: &Limits) -> Self {
        let (burst, rate) = (limits.strangers_burst, limits.strangers_rate);
        Self(Mutex::new(Bucket::new(burst, rate, Instant::now())))
    }

    fn is_low(&self) -> bool {
        let bucket = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        bucket.is_low(Instant::now())
    }

    fn take(&self) -> bool {
        // Each change is a single step.
        let mut bucket = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        bucket.take(CONNECTION, Instant::now()).is_ok()
    }
}

impl Headwater {
    /// Turns strangers away before a handshake is begun with them, while they come faster than
    /// [`Limits::strangers_rate`] allows. Put it on the router the node is mounted on, whose other
    /// protocols it guards as well:
    ///
    /// ```
    /// # use headwater::{ALPN, Headwater};
    /// # use iroh::{Endpoint, protocol::Router};
    /// # fn mount(endpoint: Endpoint) -> Router {
    /// let node = Headwater::builder().spawn(endpoint.clone());
    /// Router::builder(endpoint)
    ///     .incoming_filter(node.incoming_filter())
    ///     .accept(ALPN, node)
    ///     .spawn()
    /// # }
    /// ```
    ///
    /// A handshake is about a millisecond of a core, and is over before a protocol hears of it: without
    /// this, identities without number cost the node as many handshakes as they like. Who comes from
    /// an address where somebody known or named was lately is let through, up to a rate of its own;
    /// so is who comes over a relay as somebody known or named, each up to a rate of its own. While
    /// strangers use up what they have, an address has to be shown to be real: one round trip more. A
    /// stranger who is turned away sees a refused dial, and may try again in a second.
    #[must_use]
    pub fn incoming_filter(&self) -> IncomingFilter {
        let inner = Arc::clone(self.inner());
        Arc::new(move |incoming| inner.look_at(incoming))
    }
}

impl Inner {
    fn look_at(&self, incoming: &Incoming) -> IncomingFilterOutcome {
        let from = incoming.remote_addr();
        let known_at = match &from {
            // The relay has made sure who it is.
            IncomingAddr::Relay { endpoint_id, .. } => {
                if self.conduct.banned(*endpoint_id).is_some() {
                    self.metrics.refused_banned.inc();
                    return IncomingFilterOutcome::Reject;
                }
                let standing = self.standing(*endpoint_id);
                if self.known.take_relayed(*endpoint_id, standing) {
                    return IncomingFilterOutcome::Accept;
                }
                None
            }
            IncomingAddr::Ip(address) => Some(address.ip()).filter(|ip| self.known.knows(*ip)),
            _ => None,
        };
        if self.gate.is_low() && !incoming.remote_addr_validated() {
            return IncomingFilterOutcome::Retry;
        }
        if known_at.is_some_and(|ip| self.known.take_handshake(ip)) || self.gate.take() {
            return IncomingFilterOutcome::Accept;
        }
        debug!(?from, "too many strangers in a short time");
        self.metrics.handshakes_refused.inc();
        IncomingFilterOutcome::Reject
    }
}
