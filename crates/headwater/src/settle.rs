//! What a stranger's sync leaves behind in QUIC counts as that sync until QUIC keeps it no more.
//!
//! A place is worth the memory it bounds: whoever takes much, acknowledges nothing and leaves, again
//! and again, would otherwise have QUIC keep any amount. Those who are known are not waited for: they
//! come again at once, and are few.

use std::time::Duration;

use iroh::endpoint::Connection;
use n0_future::time::{sleep, timeout};

use crate::{frames::FrameWriter, node::Inner, slots::Slot};

/// So little sent is not waited for.
pub(crate) const SETTLED_BYTES: u64 = 64 * 1024;

/// How long QUIC may remember a connection that is gone, at most: it does for three of its timeouts.
const LONGEST_DRAIN: Duration = Duration::from_secs(5);

/// Keeps a place until QUIC keeps nothing of what was sent on a stream that has ended, or somebody
/// else has the place.
pub(crate) async fn settle(
    inner: &Inner,
    connection: &Connection,
    writer: &FrameWriter,
    slot: Slot,
) {
    let settled = async {
        if !writer.acknowledged().await {
            sleep(forgotten_after(connection)).await;
        }
    };
    tokio::select! {
        _ = timeout(inner.limits.write_stall, settled) => {}
        () = slot.lost() => {}
        () = inner.closing() => {}
    }
}

/// When QUIC has forgotten what is still unacknowledged of a connection that ends now.
fn forgotten_after(connection: &Connection) -> Duration {
    let paths = connection.paths();
    let slowest = paths.iter().map(|path| path.rtt()).max();
    // What QUIC assumes before it has measured anything.
    let round_trip = slowest.unwrap_or(Duration::from_millis(333));
    let timeout = 5 * round_trip + Duration::from_millis(25);
    (3 * timeout).min(LONGEST_DRAIN)
}
