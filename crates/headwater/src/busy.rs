//! Saying no to a request without serving it, and when to come again.

use std::time::Duration;

use headwater_wire::{Busy, CloseCode, Message};
use iroh::EndpointId;
use n0_future::time::{sleep, timeout};

use crate::{
    conduct,
    frames::{Filled, FrameReader, FrameWriter},
    node::Inner,
    slots::Slot,
    standing::Standing,
};

/// Bytes of a request that are read to learn its id. Whoever says more before is told by a reset.
const MOST_READ: u64 = 4096;

/// How long a peer may take to say so much: a stream is not seen before its first bytes.
const HEARING: Duration = Duration::from_millis(250);

/// When a peer may come again for which there is no place, at the earliest.
const LEAST_RETRY: Duration = Duration::from_secs(1);

/// Waits for the right to be served, and not for long.
///
/// # Errors
///
/// There is none in time: when the peer may come again.
pub(crate) async fn admit(
    inner: &Inner,
    peer: EndpointId,
    standing: Standing,
) -> Result<Slot, Duration> {
    let patience = inner.limits.busy_after;
    if let Some(wait) = inner.conduct.held(peer) {
        return Err(wait);
    }
    while let Err(wait) = inner.conduct.take(peer, conduct::REQUEST) {
        if wait > patience {
            return Err(wait);
        }
        sleep(wait).await;
    }
    let slot = inner.serves.take_within(peer, standing, patience).await;
    slot.ok_or(LEAST_RETRY.max(2 * patience))
}

/// Tells a peer that it is not served now, and when it may come again. What it asked is read no
/// further than its request's id; a peer that does not say that at once is told by a reset alone.
pub(crate) async fn refuse(
    inner: &Inner,
    reader: &mut FrameReader,
    writer: &mut FrameWriter,
    retry_after: Duration,
) {
    let saying = async {
        let request_id = request_id(reader).await?;
        let retry_after_ms = u64::try_from(retry_after.as_millis()).unwrap_or(u64::MAX);
        let busy = Message::Busy(Busy {
            request_id,
            retry_after_ms: retry_after_ms.max(1),
        });
        writer.push(&busy).ok()?;
        while writer.queued() > 0 {
            writer.send_some().await.ok()?;
        }
        writer.finish();
        Some(())
    };
    let said = tokio::select! {
        said = timeout(HEARING, saying) => said.ok().flatten(),
        () = inner.closing() => None,
    };
    if said.is_none() {
        writer.reset(CloseCode::Busy);
    }
}

async fn request_id(reader: &mut FrameReader) -> Option<u64> {
    while reader.received() <= MOST_READ {
        if let Some(message) = reader.next_message().ok()? {
            return Some(message.request_id());
        }
        if reader.fill().await.ok()? != Filled::Bytes {
            return None;
        }
    }
    None
}
