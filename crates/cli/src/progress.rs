//! Progress on standard error: a bar on a terminal, nothing elsewhere.

use std::{borrow::Cow, fmt};

use headwater::SyncProgress;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};

use crate::{
    control::Progress,
    output::{Output, bytes},
};

const REDRAWS_PER_SECOND: u8 = 10;

/// A bar that counts events. Clones draw the same bar.
#[derive(Debug, Clone)]
pub(crate) struct Bar {
    bar: ProgressBar,
}

impl Bar {
    /// A bar with nothing on it yet; none at all with `--json`.
    pub(crate) fn new(output: Output, what: impl Into<Cow<'static, str>>) -> Self {
        let bar = if output.is_json() {
            ProgressBar::hidden()
        } else {
            let target = ProgressDrawTarget::stderr_with_hz(REDRAWS_PER_SECOND);
            ProgressBar::with_draw_target(Some(0), target)
        };
        let style = "{prefix} [{bar:32}] {human_pos}/{human_len} events  {rate}  {msg}";
        if let Ok(style) = ProgressStyle::with_template(style) {
            let rate = |state: &ProgressState, out: &mut dyn fmt::Write| {
                // A bar that cannot be drawn is no reason to stop.
                write!(out, "{:.0}/s", state.per_sec()).ok();
            };
            bar.set_style(style.with_key("rate", rate).progress_chars("=> "));
        }
        bar.set_prefix(what);
        Self { bar }
    }

    /// How far it is.
    pub(crate) fn set(&self, events: u64, total: u64) {
        self.bar.set_length(total);
        self.bar.set_position(events);
    }

    /// How far a call is.
    pub(crate) fn set_progress(&self, progress: &Progress) {
        self.set(progress.events, progress.total_events);
        self.bar.set_message(bytes(progress.payload_bytes));
    }

    /// How far a sync is: what is durable, against the plans so far and the estimate of the rest.
    pub(crate) fn set_sync(&self, progress: &SyncProgress) {
        let total = progress.planned.events.saturating_add(progress.rest.events);
        self.set(progress.applied.events, total);
        self.bar.set_message(bytes(progress.applied.payload_bytes));
    }

    /// Whether there is a terminal to draw on.
    pub(crate) fn is_hidden(&self) -> bool {
        self.bar.is_hidden()
    }

    /// Prints while the bar is out of the way.
    pub(crate) fn aside<T>(&self, print: impl FnOnce() -> T) -> T {
        self.bar.suspend(print)
    }

    /// Takes the bar away.
    pub(crate) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}
