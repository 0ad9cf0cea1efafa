//! What one session is willing to spend.
//!
//! These are a node's choices, with a reason each; what the *format* allows stands in
//! [`headwater_wire::limits`].

use core::time::Duration;

use headwater_wire::limits::{MAX_CHUNK_HEADS, MAX_PAYLOAD_BYTES, TARGET_BATCH_BYTES};

/// Most chunks of heads a requester sends beyond what the responder's plans have passed.
///
/// 16 full chunks are about 1.15 MB: just under one QUIC stream window, so a responder that does
/// not read while it serves never blocks the requester in mid chunk, and a clock of any length
/// lies in flight only in part.
pub const HEADS_WINDOW_CHUNKS: usize = 16;

/// Most forked authors a session lists by name. More are counted, not listed: a hostile clock may
/// contradict every log, and its list must not grow with it. 64: what is listed can be repaired
/// after the sync, and the next sync lists the next.
pub const MAX_LISTED_FORKS: usize = 64;

/// Most bytes of runs in one batch: what surely fits a frame, with all else the frame holds.
pub const MAX_BATCH_BYTES: usize = MAX_PAYLOAD_BYTES;

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
    /// Memory of received runs not yet applied at which a requester stops decoding and reading.
    /// Runs are charged for what they take decoded: their bytes, those that are no payload twice,
    /// 512 bytes a run and 96 an event. 3 MiB: with the one frame whose rest waits undecoded, a
    /// sync stays near 4 MiB.
    pub max_unapplied_bytes: usize,
    /// Bytes of runs that were not stored, because they are not accepted or above a quota, at which a
    /// requester ends its history. 1 MiB: the peer sends on in good faith what this node throws away,
    /// and the next sync says whom to leave out. A request has room for so many only, so the sync after
    /// one that was cut takes twice as much, or those who come last never arrive. What is on its way by then comes on top, about
    /// twice [`SessionLimits::max_unapplied_bytes`] at most.
    pub max_refused_bytes: u64,
    /// Most authors in one sync, of both sides together, and of the requester's side with those
    /// that begin in the live part. 65,536: whoever can make keys can make authors, and each costs
    /// both sides work.
    pub max_authors: u64,
    /// Bytes of runs a responder asks its store for at a time, from 1 to [`MAX_BATCH_BYTES`] (other
    /// values are clamped). 512 KiB: see [`TARGET_BATCH_BYTES`].
    pub batch_bytes: usize,
    /// Heads read from the store at a time, from 2 to 1,024 (other values are clamped).
    pub page_heads: usize,
}

impl Default for SessionLimits {
    fn default() -> Self {
        Self {
            first_message: Duration::from_secs(10),
            stall: Duration::from_secs(30),
            total: Duration::from_mins(10),
            max_unapplied_bytes: 3 * 1024 * 1024,
            max_refused_bytes: 1024 * 1024,
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

    /// [`SessionLimits::batch_bytes`] within its bounds.
    pub(crate) fn batch(&self) -> usize {
        self.batch_bytes.clamp(1, MAX_BATCH_BYTES)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use headwater_wire::limits::{MAX_BATCH_RUNS, MAX_FRAME_BYTES};

    #[test]
    fn a_batch_of_any_asked_for_size_fits_a_frame() {
        // Tag, request id, `more`, number of runs; and each run's length.
        let beside = 1 + 10 + 1 + 3 + 3 * MAX_BATCH_RUNS;
        assert!(MAX_BATCH_BYTES + beside <= MAX_FRAME_BYTES);
        let batch = |batch_bytes| {
            let limits = SessionLimits {
                batch_bytes,
                ..SessionLimits::default()
            };
            limits.batch()
        };
        assert_eq!(batch(0), 1);
        assert_eq!(batch(70_000), 70_000);
        assert_eq!(batch(usize::MAX), MAX_BATCH_BYTES);
    }
}
