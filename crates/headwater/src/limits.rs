//! Every bound of a node, with its default and its reason.

use std::time::Duration;

use headwater_proto::SessionLimits;

/// What a node allows, to its peers and to itself.
///
/// Start from [`Limits::default`] and change fields; all are enforced before the memory in
/// question is allocated.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Limits {
    /// Requests served to one peer at the same time, and pulls from one peer. The third request
    /// is refused as busy after [`Limits::busy_after`]; the third pull waits. Default 2: one may
    /// be stalled by the network.
    pub syncs_per_peer: usize,
    /// Requests served at the same time to all peers. Default 64.
    pub syncs_total: usize,
    /// How long a request waits for its place before it is refused as busy. Default 1 s: the
    /// time in which the remains of a peer's killed sync are cleared away when it comes again.
    pub busy_after: Duration,
    /// Live streams to one peer; a request moves here once its history is served. Default 16,
    /// as a peer may follow several spaces.
    pub live_per_peer: usize,
    /// Live streams to all peers. Default 256.
    pub live_total: usize,
    /// Connections accepted from one peer; one more closes its oldest. Default 2.
    pub connections_per_peer: usize,
    /// Connections accepted from all peers. Default 256.
    pub connections_total: usize,
    /// How long a dial may take. Default 10 s; iroh itself gives a dead address 30 s.
    pub dial_timeout: Duration,
    /// How long a dialled connection is kept without a stream, so that the next sync with the
    /// same peer spares the handshake. Default 5 s.
    pub idle_connection: Duration,
    /// How long an accepted connection is kept without a stream. Default 2 min: the dialling end
    /// gives up long before, this is for those that never do.
    pub idle_accepted: Duration,
    /// Broken rules of the protocol within [`Limits::fault_window`] after which a peer is banned.
    /// Default 3: each has closed the connection already, and honest peers make none.
    pub faults_before_ban: usize,
    /// How long a broken rule counts. Default 10 min.
    pub fault_window: Duration,
    /// How long a banned peer is neither accepted nor pulled from. Default 10 min.
    pub ban: Duration,
    /// Peers whose conduct is remembered. Default 4,096; an identity costs nothing, so the table
    /// must be bounded.
    pub known_peers: usize,
    /// What a peer may ask for at once, before [`Limits::request_rate`] holds it. Default 16,384.
    /// A request costs 1, and 1 more for every 64 KiB it makes this node send; a request for a
    /// space that is not here, or not for the peer, costs 64 more, and a connection 16.
    pub request_burst: u32,
    /// What a peer may ask for in a second in the long run. Default 256: as many requests, or 16
    /// MiB. Who asks for more waits up to [`Limits::busy_after`], and is then told that the node
    /// is busy and when to come again.
    pub request_rate: u32,
    /// How long a peer may take fewer bytes than [`Limits::least_rate`] asks for in that time while
    /// we have some for it, whether history or live. Default 30 s. QUIC's own idle timeout does
    /// not catch such a peer, as keep-alives go on.
    pub write_stall: Duration,
    /// Bytes a second, both directions of a stream together, above which a sync counts as going
    /// on while no message is whole yet; and those a peer has to take while we have some for it.
    /// Default 1 KiB/s: the slowest links, not trickles.
    pub least_rate: u32,
    /// How long a finished pull waits for the peer that asks back, counted from the last sign of
    /// the pull in turn; never longer than [`SessionLimits::total`] in all. Default 10 s.
    pub ask_back_wait: Duration,
    /// Bytes queued for one stream before the store is read further. Default 1 MiB: two
    /// batches, so that reading and sending overlap.
    pub send_buffer_bytes: usize,
    /// Bytes of runs waiting for the writer, over all pulls and local appends. Default 16 MiB;
    /// whoever brings more waits.
    pub write_queue_bytes: usize,
    /// Bytes of runs one transaction takes up at most of those that wait. Default 4 MiB: all of
    /// what one pull may have on its way, as a flush costs the same for little and for much.
    pub commit_bytes: usize,
    /// Events that may wait to be sent on a live stream without being counted as lag. Default
    /// 65,536. More of them are no lag yet, as one commit can bring any number: see
    /// [`Limits::live_lag_after`].
    pub live_backlog_events: u64,
    /// How long more than [`Limits::live_backlog_events`] may wait without getting fewer before
    /// the reader is told it lagged. Default 60 s: a reader that keeps up with the mean is never
    /// cut, one that falls ever further behind is, and had better ask for the history again.
    pub live_lag_after: Duration,
    /// Bytes of events read ahead for a subscription or an event stream. Default 256 KiB.
    pub read_ahead_bytes: usize,
    /// Bounds of a single session: timeouts, buffers, counts.
    pub session: SessionLimits,
}

impl Limits {
    /// Bytes that have to move within a stall's time to count as progress.
    pub(crate) fn progress_bytes(&self) -> u64 {
        self.least_bytes(self.session.stall)
    }

    /// Bytes that have to move within that time.
    pub(crate) fn least_bytes(&self, within: Duration) -> u64 {
        within
            .as_secs()
            .max(1)
            .saturating_mul(u64::from(self.least_rate))
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            syncs_per_peer: 2,
            syncs_total: 64,
            busy_after: Duration::from_secs(1),
            live_per_peer: 16,
            live_total: 256,
            connections_per_peer: 2,
            connections_total: 256,
            dial_timeout: Duration::from_secs(10),
            idle_connection: Duration::from_secs(5),
            idle_accepted: Duration::from_mins(2),
            faults_before_ban: 3,
            fault_window: Duration::from_mins(10),
            ban: Duration::from_mins(10),
            known_peers: 4096,
            request_burst: 16_384,
            request_rate: 256,
            write_stall: Duration::from_secs(30),
            least_rate: 1024,
            ask_back_wait: Duration::from_secs(10),
            send_buffer_bytes: 1024 * 1024,
            write_queue_bytes: 16 * 1024 * 1024,
            commit_bytes: 4 * 1024 * 1024,
            live_backlog_events: 65_536,
            live_lag_after: Duration::from_mins(1),
            read_ahead_bytes: 256 * 1024,
            session: SessionLimits::default(),
        }
    }
}
