//! Clocks as they come in: chunk by chunk, each in its turn.
//!
//! A head takes about a microsecond, and a clock may have 65,536 of them: those of many peers at
//! once would leave nothing for anybody else. So each chunk is paid for first, out of what all peers
//! of that standing have together, and between two chunks others get their turn. A clock of one
//! chunk takes no place; of those that are longer there are few at a time.

use headwater_wire::HeadsChunk;
use iroh::EndpointId;
use n0_future::time::{sleep, timeout};

use crate::{conduct::HEADS, node::Inner, slots::Slot, standing::Standing};

/// A clock that is coming in.
#[derive(Debug, Default)]
pub(crate) struct Clock {
    has_begun: bool,
    slot: Option<Slot>,
}

impl Clock {
    /// Waits until a chunk may be looked at; false if that takes too long.
    pub(crate) async fn admit(
        &mut self,
        inner: &Inner,
        peer: EndpointId,
        standing: Standing,
        chunk: &HeadsChunk,
    ) -> bool {
        let patience = inner.limits.busy_after;
        if self.has_begun && self.slot.is_none() {
            self.slot = inner.clocks.take_within(peer, standing, patience).await;
            if self.slot.is_none() {
                return false;
            }
        }
        self.has_begun = true;
        let cost = u32::try_from(chunk.heads.len() / HEADS).unwrap_or(u32::MAX);
        if cost > 0 {
            inner.conduct.charge(peer, cost.into());
            let paid = timeout(patience, pay(inner, standing, cost)).await;
            if paid.is_err() {
                return false;
            }
            tokio::task::yield_now().await;
        }
        if chunk.last {
            self.slot = None;
        }
        true
    }
}

/// Waits until so much is there for all of this standing, behind whoever waits already.
async fn pay(inner: &Inner, standing: Standing, cost: u32) {
    // Whom nobody shares with does not wait behind those who wait.
    let _turn = match standing {
        Standing::Stranger => Some(inner.clock_turns[0].lock().await),
        Standing::Known(_) => Some(inner.clock_turns[1].lock().await),
        Standing::Named => None,
    };
    while let Err(wait) = inner.conduct.take_shared(standing, cost) {
        sleep(wait).await;
    }
}
