//! Delivered first, believed later.
//!
//! ```text
//! read, admitted ──▶ one small run? ──▶ its author's signature ──▶ stored, subscribers woken
//!                        │ no                                          │ a moment later
//!                        ▼                                             ▼
//!                    the sender's signature ◀── several at once ── delivered
//!                        └──▶ counter, digest, heads: believed of the sender
//! ```
//!
//! A run proves itself by its author's signature, whoever brings it. The announcement's signature
//! is needed for what is believed of the *sender*: its counter, its digest, what it can be asked
//! for. So a live event does not wait for that check: with several nodes on few cores it is the
//! checks of all of them that the last one waits for.
//!
//! A forged announcement around a good run does no harm: the run is stored as coming from the
//! neighbour that delivered it, as if that neighbour had announced it, and nothing is believed of
//! the sender named. One around a bad run goes the ordinary way, on which only a sender that signed
//! it is to blame. Neither is free: the message has passed size, space, counter and shares before,
//! out of which one token pays for both checks, and it comes back only with a good signature of
//! the sender. One token, one run: what brings several, or heads beside, goes the ordinary way.
//!
//! Invariant: announcements are proven in the order they came, and what grew by a run delivered
//! first is reported after its announcement was.

use std::time::Duration;

use headwater::wire::AppendError;
use headwater_proto::announcer::Claim;
use iroh::EndpointId;
use n0_future::time::Instant;

use super::Driver;
use crate::gate::Unproven;

/// How long a sender's signature waits once its run is delivered: longer than an event takes to
/// reach everybody, and too short for anybody to miss a claim.
const PROVE_AFTER: Duration = Duration::from_millis(2);

/// How many may wait so. Fewer than one sender's announcements may be that one neighbour relays
/// unproven.
const MOST_DELIVERED: usize = 8;

/// Announcements whose run is stored and whose sender is a claim.
#[derive(Debug, Default)]
pub(crate) struct Delivered {
    unproven: Vec<(Unproven, Claim)>,
    prove_at: Option<Instant>,
}

impl Delivered {
    pub(super) fn is_empty(&self) -> bool {
        self.unproven.is_empty()
    }

    /// When to prove them.
    pub(super) fn prove_at(&self) -> Option<Instant> {
        self.prove_at
    }
}

impl Driver {
    /// Its sender may be believed, if it was said by its sender.
    pub(super) fn on_admitted(&mut self, unproven: Unproven, neighbor: EndpointId) {
        if let Some(claim) = self.deliver(&unproven, neighbor) {
            let place = self.in_flight.entry(claim.author).or_default();
            *place = claim.seq.max(*place);
            let delivered = &mut self.delivered;
            delivered.unproven.push((unproven, claim));
            delivered
                .prove_at
                .get_or_insert_with(|| Instant::now() + PROVE_AFTER);
            if delivered.unproven.len() >= MOST_DELIVERED {
                self.prove_delivered();
            }
        } else {
            self.prove_delivered();
            self.prove(unproven, None);
        }
    }

    /// Stores what came along, if it is a single small run that follows on what is held, or is held,
    /// and the store waits for nothing. Otherwise nothing is done.
    fn deliver(&self, unproven: &Unproven, neighbor: EndpointId) -> Option<Claim> {
        if self.applying.is_some() || !self.waiting.is_empty() {
            // The run before it may be among those.
            return None;
        }
        let run = unproven.single_run()?;
        let held = match self.space.apply_at_once(&run, neighbor)?.ok()? {
            Ok(appended) => {
                self.metrics.runs_stored.inc();
                self.metrics.events_stored.inc_by(appended.events);
                appended.head.seq
            }
            Err(AppendError::Stale { head, .. }) => {
                self.metrics.runs_held.inc();
                head
            }
            Err(_) => return None,
        };
        Some(Claim {
            author: run.author(),
            seq: run.last_seq(),
            held,
        })
    }

    /// Checks whether the senders said what was delivered.
    pub(super) fn prove_delivered(&mut self) {
        self.delivered.prove_at = None;
        for (unproven, claim) in std::mem::take(&mut self.delivered.unproven) {
            self.prove(unproven, Some(claim));
        }
        if self.waiting.is_empty() && self.applying.is_none() {
            self.in_flight.clear();
        }
    }

    /// What is being applied now is all that is in flight, beside what is delivered.
    pub(super) fn note_landed(&mut self) {
        self.in_flight.clear();
        for (_, claim) in &self.delivered.unproven {
            let place = self.in_flight.entry(claim.author).or_default();
            *place = claim.seq.max(*place);
        }
    }

    /// `delivered`: what its run claims, if that was applied already.
    fn prove(&mut self, unproven: Unproven, delivered: Option<Claim>) {
        let (sender, neighbor) = (unproven.sender(), unproven.neighbor());
        let now = self.shared.now();
        match self.gate.prove(unproven, now) {
            Ok(mut proven) => {
                if let Some(claim) = delivered {
                    proven.runs.clear();
                    proven.claims.push(claim);
                }
                let said = &proven.announcement;
                // Overtaken by a later one, and with nothing to say but what that said better.
                let outdated = !proven.newest && said.is_periodic();
                if !outdated {
                    self.waiting.push(proven);
                }
            }
            Err(ignored) => self.ignore(&ignored, Some(sender), neighbor),
        }
    }
}
