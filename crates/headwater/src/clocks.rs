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
    /// Heads that came and are not paid for: fewer than are counted together.
    unpaid: usize,
    slot: Option<Slot>,
}

impl Clock {
    /// Waits until a chunk may be looked at; false if that takes too long, or the place was lost.
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
        self.unpaid = self.unpaid.saturating_add(chunk.heads.len());
        let cost = u32::try_from(self.unpaid / HEADS).unwrap_or(u32::MAX);
        self.unpaid %= HEADS;
        let admitted = async {
            if cost == 0 {
                return true;
            }
            inner.conduct.charge(peer, cost.into());
            let paid = timeout(patience, pay(inner, standing, cost)).await;
            tokio::task::yield_now().await;
            paid.is_ok()
        };
        let is_admitted = tokio::select! {
            biased;
            () = inner.lost(self.slot.as_ref()) => false,
            is_admitted = admitted => is_admitted,
        };
        if !is_admitted {
            return false;
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
