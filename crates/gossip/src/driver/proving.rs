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
    gate::{Ignored, Unproven, UnprovenRuns},
};

impl Driver {
    pub(super) async fn on_runs(&mut self, message: UnprovenRuns) {
        let neighbor = message.neighbor;
        for author in &message.left_out {
            let too_often = Ignored::AuthorTooOften { author: *author };
            self.ignore(&too_often, None, neighbor);
        }
        let is_free = self.applying.is_none() && self.waiting.is_empty();
        if is_free
            && let Some(applied) =
                apply::apply_one_at_once(&self.space, &message, &self.metrics).await
        {
            match applied {
                Ok(heard) => self.on_heard_runs(heard),
                Err(ignored) => self.ignore(&ignored, None, neighbor),
            }
            return;
        }
        self.waiting.push(Passed::Runs(message));
    }

    /// What runs claim counts from now on.
    pub(super) fn on_heard_runs(&mut self, HeardRuns { neighbor, runs }: HeardRuns) {
        let now = self.shared.now();
        let mut claims = Vec::with_capacity(runs.len());
        for run in runs {
            if let Some(fate) = run.fate {
                let said = (run.author, run.seq, fate);
                self.gate.proven_run(neighbor, run.share, said, now);
            }
            claims.extend(run.claim);
        }
        for claim in &claims {
            self.fresh.heard(claim.author, claim.seq);
        }
        let is_asked = self.shared.is_neighbor(&neighbor);
        let relay = is_asked.then(|| peer_id(neighbor));
        self.shared
            .announcer(|it, now| it.handle_runs(relay, claims, now));
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
