//! How much is stored of whom, how fast, and what is not asked for twice.

mod disk;
mod gossip;
mod logs;
mod rates;
mod strangers;

use headwater::{EventDraft, Limits};

/// Drafts with payloads of this size.
fn large(count: usize, bytes: usize) -> Vec<EventDraft> {
    (0..count)
        .map(|at| EventDraft::new(16, at as u64, vec![at as u8; bytes]))
        .collect()
}

fn limits(change: impl FnOnce(&mut Limits)) -> Limits {
    let mut limits = Limits::default();
    change(&mut limits);
    limits
}
