//! From what passed the gate to what is believed.
//!
//! ```text
//! runs ──▶ one small run? ──▶ its author's signature ──▶ stored, subscribers woken ──▶ announcer
//!              │ no
//!              ▼
//!           waiting ──▶ applied, several messages at once ─────────────────────────▶ announcer
//!              ▲
//! announcement ┴ its sender's signature, once the policy admits the sender
//! ```
//!
//! A live event mostly meets a node with nothing else to do and a store that waits for nothing. Then it
//! goes all the way here and now: with several nodes on few cores it is the detours of all of them that
//! the last one waits for.
//!
//! Invariant: what grew by a run is reported after the run was.

use super::Driver;
use crate::{
    apply::{self, HeardRuns, Passed},
    events::peer_id,
    gate::{Unproven, UnprovenRuns},
};

impl Driver {
    pub(super) async fn on_runs(&mut self, unproven: UnprovenRuns) {
        let UnprovenRuns { runs, passage } = &unproven;
        let is_free = self.applying.is_none() && self.waiting.is_empty();
        if let [run] = runs.as_slice()
            && is_free
            && let Some(applied) =
                apply::apply_one_at_once(&self.space, run, *passage, &self.metrics).await
        {
            match applied {
                Ok(heard) => self.on_heard_runs(heard),
                Err(ignored) => self.ignore(&ignored, None, passage.neighbor),
            }
            return;
        }
        self.waiting.push(Passed::Runs(unproven));
    }

    /// What runs claim counts from now on.
    pub(super) fn on_heard_runs(&mut self, heard: HeardRuns) {
        let HeardRuns {
            passage,
            mut claims,
            news,
            contradicts,
        } = heard;
        self.gate.proven_runs(&passage, &news, self.shared.now());
        for claim in &claims {
            self.fresh.heard(claim.author, claim.seq);
        }
        let is_asked = self.shared.is_neighbor(&passage.neighbor);
        if !is_asked {
            // What is missing is found by digest.
            claims.retain(|claim| claim.seq <= claim.held);
        }
        let neighbor = peer_id(passage.neighbor);
        self.shared.announcer(|it, now| {
            it.handle_runs(neighbor, claims, now);
            if contradicts && is_asked {
                it.handle_contradiction(neighbor, now);
            }
        });
    }

    /// Its sender may be believed, if it was said by its sender.
    pub(super) fn on_admitted(&mut self, unproven: Unproven) {
        let (sender, neighbor) = (unproven.sender(), unproven.neighbor());
        match self.gate.prove(unproven, self.shared.now()) {
            Ok(proven) => {
                // Overtaken by a later one, and with nothing to say but what that said better.
                let outdated = !proven.newest && proven.announcement.is_periodic();
                if !outdated {
                    self.waiting.push(Passed::Announcement(proven));
                }
            }
            Err(ignored) => self.ignore(&ignored, Some(sender), neighbor),
        }
    }
}
