//! What a node counts. Register it with an [`iroh_metrics::Registry`] or read the fields.

use iroh_metrics::{Counter, Gauge, MetricsGroup};

/// Counters of one node. They only grow, except the gauges, and start at zero with the process.
#[derive(Debug, Default, MetricsGroup)]
#[metrics(name = "headwater")]
#[non_exhaustive]
pub struct Metrics {
    /// Connections accepted from peers.
    pub connections_accepted: Counter,
    /// Connections this node dialled.
    pub connections_dialled: Counter,
    /// Dials that failed or timed out.
    pub dials_failed: Counter,
    /// Connections and streams refused because a limit was reached.
    pub refused_busy: Counter,
    /// Handshakes that were not begun, as too many strangers came:
    /// [`Headwater::incoming_filter`](crate::Headwater::incoming_filter).
    pub handshakes_refused: Counter,
    /// Connections and requests that gave way to a peer that is known, or known for longer.
    pub places_lost: Counter,
    /// Peers banned for breaking rules again and again.
    pub peers_banned: Counter,
    /// Connections refused because the peer is banned.
    pub refused_banned: Counter,
    /// Pulls started, whether by the user or by asking back.
    pub pulls_started: Counter,
    /// Pulls whose history ended complete.
    pub pulls_completed: Counter,
    /// Pulls whose history ended truncated.
    pub pulls_truncated: Counter,
    /// Pulls that failed.
    pub pulls_failed: Counter,
    /// Pulls started because a requester turned out to hold more than this node.
    pub pulls_asked_back: Counter,
    /// Peers caught by receipts that contradict each other.
    pub providers_caught: Counter,
    /// Pulls running now.
    pub pulls_running: Gauge,
    /// Requests whose history was served to its end.
    pub serves_completed: Counter,
    /// Requests that ended with an error, on either side.
    pub serves_failed: Counter,
    /// Requests for a space that is unknown here or that the policy does not grant.
    pub serves_refused: Counter,
    /// Requests being served now, live ones included.
    pub serves_running: Gauge,
    /// Sessions that ended because the peer broke the protocol.
    pub peer_faults: Counter,
    /// Bytes of frames sent on sync streams.
    pub wire_bytes_sent: Counter,
    /// Bytes of frames received on sync streams.
    pub wire_bytes_received: Counter,
    /// Events stored, local and pulled.
    pub events_stored: Counter,
    /// Payload bytes stored, local and pulled.
    pub payload_bytes_stored: Counter,
    /// Runs the store did not take: stale, with a gap, or forked.
    pub runs_refused: Counter,
    /// Forks found, each lower one of a log again: by a run that contradicts its log, or by a proof.
    pub forks_found: Counter,
    /// Authors put right with a peer after a pull that left them out.
    pub forks_repaired: Counter,
    /// Transactions committed.
    pub commits: Counter,
    /// Append jobs in those transactions: `jobs / commits` is the mean size of a group.
    pub commit_jobs: Counter,
    /// Transactions the store failed.
    pub commits_failed: Counter,
    /// Live readers cut off because they fell too far behind.
    pub live_lagged: Counter,
    /// Tasks that panicked. A bug here, never a peer's doing alone: please report it.
    pub panics: Counter,
}

/// Counts something as running until it ends, in whatever way.
#[derive(Debug)]
pub(crate) struct Running<'a>(&'a Gauge);

impl<'a> Running<'a> {
    pub(crate) fn count(gauge: &'a Gauge) -> Self {
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.dec();
    }
}
