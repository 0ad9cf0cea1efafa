//! Every bound of a node, with its default and its reason.

use std::time::Duration;

use headwater_proto::SessionLimits;
use headwater_store::Quota;

const GIB: u64 = 1024 * 1024 * 1024;

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
    /// Requests served at the same time to all peers. Default 64: up to 2 MiB each here, and up to 4
    /// with what QUIC keeps if the endpoint has [`transport_config`](crate::transport_config).
    /// Strangers may take every place, and give way to whoever is known.
    pub syncs_total: usize,
    /// How long a request waits for its place before it is refused as busy. Default 1 s: the
    /// time in which the remains of a peer's killed sync are cleared away when it comes again.
    pub busy_after: Duration,
    /// Requests served at the same time whose clocks are longer than one chunk. Default 32; within
    /// it no peer has more than [`Limits::syncs_per_peer`], and the longer clocks of everybody move
    /// on chunk by chunk in turn.
    pub clocks_total: usize,
    /// Live streams to one peer; a request moves here once its history is served. Default 16,
    /// as a peer may follow several spaces.
    pub live_per_peer: usize,
    /// Live streams to all peers. Default 256.
    pub live_total: usize,
    /// Connections accepted from one peer; one more closes its oldest. Default 2.
    pub connections_per_peer: usize,
    /// Connections accepted from all peers. Default 256. Strangers may take every place, and give
    /// way to whoever is known.
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
    /// Peers remembered as having finished a sync, and as many whom the policy names, with up to four
    /// addresses each. Default 1,024. Where not all find a place they come before strangers, and
    /// among them whoever is known for longer; who comes when the table is full stays a stranger.
    pub acquaintances: usize,
    /// What all strangers together may make this node do at once before [`Limits::strangers_rate`]
    /// holds them. Default 4,096: 256 handshakes, of 16 each, or 262,144 heads of clocks, 64 for 1.
    /// Those who finished a sync lately have four times as much for all of them together; whom the
    /// [policy names](crate::AccessPolicy::names) is held by [`Limits::request_rate`] alone.
    pub strangers_burst: u32,
    /// What all strangers together may make this node do in a second in the long run. Default 1,024:
    /// 64 handshakes or 65,536 heads, each of which takes about a fifteenth of a core.
    pub strangers_rate: u32,
    /// How long a peer is not served at all after a clock of too many authors. Default 2 s; it
    /// doubles with each that follows, up to [`Limits::ban`]. Not a fault: a large space has such
    /// clocks. A sync that ends in order makes it short again.
    pub oversized_wait: Duration,
    /// What a peer may ask for at once, before [`Limits::request_rate`] holds it. Default 16,384.
    /// A request costs 1, and 1 more for every 64 KiB it makes this node send and every 64 heads of
    /// its clock; a request for a space that is not here, or not for the peer, costs 64 more, and a
    /// connection 16.
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
    /// How much is stored of one author in one space, be it signed here or brought by peers, shown
    /// or not. Default 1 GiB of runs and 67,108,864 events, 16 bytes of it each: whoever may write
    /// could otherwise fill the disk. What goes beyond is refused, and nothing else; nothing is ever
    /// deleted for it. Counted are the bytes of encoded runs, of what is hidden too; on disk they take
    /// up to twice that where events are tiny and come one by one.
    pub author_quota: Quota,
    /// How much is stored of one space, all authors together. Default 10 GiB and 671,088,640
    /// events. The owner's log counts but is bounded by [`Limits::author_quota`] alone, so that
    /// nobody keeps the owner from saying who may write.
    pub space_quota: Quota,
    /// Bytes of the store's file system that are left free; `None` lets it fill up. Default 512
    /// MiB. With less free nothing is appended, here or by peers; reading and serving go on, and
    /// appending does once there is room again. Asked for on Unix alone.
    pub free_disk_floor: Option<u64>,
    /// Events a second of one author that are taken from peers unasked, live and by gossip, in the
    /// long run. Default 4,096. What comes faster is left to the next pull, which has no such rate:
    /// it is asked for, and brings in one commit what was pushed in a thousand.
    pub pushed_events_rate: u32,
    /// Bytes a second of the same. Default 4 MiB.
    pub pushed_bytes_rate: u32,
    /// How long an author may go on at any rate: what it brings in that time beyond its rate is
    /// made good in rest. Default 16 s, so 65,536 events or 64 MiB at once.
    pub pushed_burst: Duration,
    /// How long after something pushed was left to a pull that pull begins, on a live stream.
    /// Default 10 s.
    pub catch_up_after: Duration,
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
            clocks_total: 32,
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
            acquaintances: 1024,
            strangers_burst: 4096,
            strangers_rate: 1024,
            oversized_wait: Duration::from_secs(2),
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
            author_quota: Quota::NONE.bytes(GIB).events(GIB / 16),
            space_quota: Quota::NONE.bytes(10 * GIB).events(10 * GIB / 16),
            free_disk_floor: Some(GIB / 2),
            pushed_events_rate: 4096,
            pushed_bytes_rate: 4 * 1024 * 1024,
            pushed_burst: Duration::from_secs(16),
            catch_up_after: Duration::from_secs(10),
            session: SessionLimits::default(),
        }
    }
}
