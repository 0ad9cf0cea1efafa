//! What an announcer is willing to say, to remember and to wait, with a reason each.

use core::time::Duration;

/// Bytes of an announcement beside its heads, at most: tag, space, sender, two counters, scope, digest,
/// the two list lengths and the sender's signature.
pub const ANNOUNCEMENT_FIXED_BYTES: usize = 1 + 32 + 32 + 10 + 10 + 1 + 32 + 3 + 3 + 64;

/// Bytes of one signed head in an announcement, at most: author, seq, id, signature.
pub const HEAD_BYTES: usize = 32 + 8 + 32 + 64;

/// Bytes of a message of runs beside them, at most: tag, space, salt, the list length.
pub const RUNS_FIXED_BYTES: usize = 1 + 32 + 8 + 3;

/// Bytes a run takes there beside its own, at most: its length.
pub const RUN_PREFIX_BYTES: usize = 3;

/// The parameters of RFC 6206, by its names (section 4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TrickleConfig {
    /// *Imin*, the least interval. 4 s: an announcement crosses a network of a thousand nodes in
    /// a fraction of the second half of it, so most nodes hear one before they would speak. At
    /// least 1 ms; less counts as that.
    pub i_min: Duration,
    /// *Imax*, as the number of times *Imin* doubles. 5, which is 128 s: what nobody noticed to be
    /// lost is found within about two minutes, and a quiet network of any size costs each node a
    /// handful of messages of some 200 bytes in that time. At most 31; more counts as that.
    pub i_max_doublings: u32,
    /// *k*: a node that heard so many consistent announcements in an interval stays silent in it.
    /// 2: one may be from a node about to leave. 0 switches suppression off.
    pub k: u32,
}

impl Default for TrickleConfig {
    fn default() -> Self {
        Self {
            i_min: Duration::from_secs(4),
            i_max_doublings: 5,
            k: 2,
        }
    }
}

impl TrickleConfig {
    pub(super) fn least(&self) -> Duration {
        self.i_min.max(Duration::from_millis(1))
    }

    pub(super) fn most(&self) -> Duration {
        self.least()
            .saturating_mul(1 << self.i_max_doublings.min(31))
    }
}

/// Sizes, waits and bounds of one [`Announcer`](super::Announcer).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AnnouncerConfig {
    /// The periodic part.
    pub trickle: TrickleConfig,
    /// Least time between two announcements of changes. 50 ms: a single event goes out at once,
    /// and a writer of thousands a second makes 20 announcements of them.
    pub announce_interval: Duration,
    /// Waits before a pull are drawn from up to this. 200 ms: those who hear of the same thing at
    /// the same time do not all ask at the same time; and it is not yet felt as a delay.
    pub pull_jitter: Duration,
    /// How long a digest that differs from ours may be on its way to being ours, or to not being
    /// ours any more, before it counts as a difference; and how long what came by a sync waits for
    /// a sign that others have it. 500 ms: the events behind a digest travel the same links as it
    /// does, and while somebody writes all digests differ for a moment.
    pub settle: Duration,
    /// How often a pull for a head goes to the neighbour that relayed the announcement before it
    /// goes to its sender. 6: with every hop the neighbour needs longer until it has pulled itself,
    /// and a thousand nodes are six hops across; asking too early costs a round trip of two equal
    /// digests. 0 asks the sender after the first.
    pub relay_tries: u32,
    /// Within which time a new neighbour is compared with, by a pull, if nothing it says shows
    /// before that it holds what we hold. 2 s: a link is compared once in its life, and there is
    /// no hurry, since what is new is announced.
    pub check_within: Duration,
    /// First back-off of a peer whose pull failed. 1 s.
    pub backoff_first: Duration,
    /// Longest back-off. 5 min: a peer that came back is asked again before anybody wonders.
    pub backoff_cap: Duration,
    /// Most failed pulls from one provider for one want, or in a row for one difference. 4: with
    /// the back-off between them it had some seconds to come back; what was dropped is found again
    /// by its digest.
    pub max_attempts: u32,
    /// Pulls under way at a time. 1: a pull brings all a peer has, so a second one would mostly
    /// bring the same again. At least 1.
    pub pulls_at_once: usize,
    /// How long a pull may take until it no longer counts against
    /// [`pulls_at_once`](Self::pulls_at_once) and others are asked for what it was to bring. 10 s:
    /// what was announced is there after a few round trips, and a peer that cannot be reached has
    /// failed by then. Longer is either much to bring, and then a second pull costs at worst that
    /// much again, or a peer that stalls, and nobody is to wait for it until the sync gives it up.
    ///
    /// Of slow and other pulls together there are at most four times
    /// [`pulls_at_once`](Self::pulls_at_once). If somebody else is to be asked then, the one is given
    /// up that has not moved for longest, if that is as long as this.
    pub slow_pull: Duration,
    /// After which time a pull that moves is given up as well, if it holds the last place and
    /// somebody else is to be asked. 1 min: the sync goes on where it was once its peer is asked
    /// again, so this costs a round trip; and peers that trickle hold a place no longer than that.
    pub long_pull: Duration,
    /// How long a peer is left alone after a pull that ended well without what the peer had announced.
    /// 2 s, twice as long with each more: whoever announces what does not exist, hand in hand with
    /// its author, causes no more pulls than that. A pull that brought what it was begun for is followed
    /// by the next at any time: it is what a live space is there for, and one is under way at a time.
    pub pull_pause: Duration,
    /// Most heads and proofs remembered that a peer announced and did not bring, to notice it when
    /// another brings them. 1,024; the oldest is forgotten first.
    pub max_owed: usize,
    /// Largest message, in bytes: what the topic carries. 4,048: iroh-gossip's default of 4,096 less
    /// its own fields.
    pub max_content_bytes: usize,
    /// Largest run that is sent to everybody, in bytes. 1,024: a message of a chat is, a document is not,
    /// and one message holds three.
    pub max_run_bytes: usize,
    /// Most messages one change is split into, those of runs and those of heads together. 4, of 28 heads
    /// each: above that the digest alone is announced, and a pull finds the rest for less than the heads
    /// would cost everybody.
    pub max_split: usize,
    /// Most authors whose announced heads are missing here. 4,096, some 0.5 MB: signed heads cost
    /// whoever makes them a signature, but nothing stops a stranger from making millions. One
    /// peer's claims hold at most a quarter of them.
    pub max_wants: usize,
    /// Most peers remembered as having announced one missing head. 4: the first ones are as
    /// good as the last.
    pub max_providers: usize,
    /// Most peers remembered, as neighbours or for what they announced. 512: far above what one
    /// node asks in a back-off's length. A neighbour always has a place, above it if need be: a topic
    /// has few.
    pub max_peers: usize,
    /// Most heads remembered as heard and not yet reported as grown. 4,096: evicting one costs
    /// one needless announcement.
    pub max_heard: usize,
    /// Most digests remembered that were ours before. 128: a busy space changes its digest some 20
    /// times a second, and an announcement crosses the network in less than a few seconds.
    pub max_digests: usize,
}

impl Default for AnnouncerConfig {
    fn default() -> Self {
        Self {
            trickle: TrickleConfig::default(),
            announce_interval: Duration::from_millis(50),
            pull_jitter: Duration::from_millis(200),
            settle: Duration::from_millis(500),
            relay_tries: 6,
            check_within: Duration::from_secs(2),
            backoff_first: Duration::from_secs(1),
            backoff_cap: Duration::from_mins(5),
            max_attempts: 4,
            pulls_at_once: 1,
            slow_pull: Duration::from_secs(10),
            long_pull: Duration::from_mins(1),
            pull_pause: Duration::from_secs(2),
            max_owed: 1_024,
            max_content_bytes: 4_048,
            max_run_bytes: 1_024,
            max_split: 4,
            max_wants: 4_096,
            max_providers: 4,
            max_peers: 512,
            max_heard: 4_096,
            max_digests: 128,
        }
    }
}

impl AnnouncerConfig {
    /// Most pulls under way, slow ones included: some that stall leave place for another.
    pub(super) fn max_pulls(&self) -> usize {
        self.pulls_at_once.max(1).saturating_mul(4)
    }

    /// Bytes of an announcement that are left for heads.
    pub(super) fn room_for_heads(&self) -> usize {
        self.max_content_bytes
            .saturating_sub(ANNOUNCEMENT_FIXED_BYTES)
    }

    /// Bytes of a message of runs that are left for them.
    pub(super) fn room_for_runs(&self) -> usize {
        self.max_content_bytes.saturating_sub(RUNS_FIXED_BYTES)
    }

    /// Most heads one change may name, in all its announcements together.
    pub(super) fn max_changed(&self) -> usize {
        (self.room_for_heads() / HEAD_BYTES).saturating_mul(self.max_split)
    }
}
