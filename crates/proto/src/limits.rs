//! What one session is willing to spend.
//!
//! These are a node's choices, with a reason each; what the *format* allows stands in
//! [`headwater_wire::limits`].

use core::time::Duration;

use headwater_wire::limits::{MAX_CHUNK_HEADS, TARGET_BATCH_BYTES};

/// Most chunks of heads a requester sends beyond what the responder's plans have passed.
///
/// 16 full chunks are about 1.15 MB: just under one QUIC stream window, so a responder that does
/// not read while it serves never blocks the requester in mid chunk, and a clock of any length
/// lies in flight only in part.
pub const HEADS_WINDOW_CHUNKS: usize = 16;

/// Most forked authors a session lists by name. More are counted, not listed: a hostile clock may
/// contradict every log, and its list must not grow with it.
pub const MAX_LISTED_FORKS: usize = 1024;

/// Waits, buffers and counts of one session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionLimits {
    /// Longest wait for a peer's first message: the request on one side, its answer on the
    /// other. 10 s: several round trips of the slowest link, and a stranger who opens a stream
    /// and says nothing holds it no longer.
    pub first_message: Duration,
    /// Longest time without any progress afterwards. 30 s: iroh's keep-alives hide a silent peer
    /// for ever, so this is the only check that it is still at work.
    pub stall: Duration,
    /// Longest time for the whole history. 10 min; the next sync goes on where this one stopped.
    pub total: Duration,
    /// Bytes of received runs not yet applied at which a requester stops reading. 3 MiB: with the
    /// one frame that may follow, a sync stays near 4 MiB.
    pub max_unapplied_bytes: usize,
    /// Most authors in one sync, of both sides together. 65,536: whoever can make keys can make
    /// authors, and each costs both sides work.
    pub max_authors: u64,
    /// Bytes of runs a responder asks its store for at a time. 256 KiB: one commit's worth.
    pub batch_bytes: usize,
    /// Heads read from the store at a time, from 2 to 1,024 (other values are clamped).
    pub page_heads: usize,
}

impl Default for SessionLimits {
    fn default() -> Self {
        Self {
            first_message: Duration::from_secs(10),
            stall: Duration::from_secs(30),
            total: Duration::from_secs(600),
            max_unapplied_bytes: 3 * 1024 * 1024,
            max_authors: 65_536,
            batch_bytes: TARGET_BATCH_BYTES,
            page_heads: MAX_CHUNK_HEADS,
        }
    }
}

impl SessionLimits {
    /// [`SessionLimits::page_heads`] within its bounds.
    pub(crate) fn page(&self) -> usize {
        self.page_heads.clamp(2, MAX_CHUNK_HEADS)
    }
}
