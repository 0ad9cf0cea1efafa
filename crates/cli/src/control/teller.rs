//! The host's end of a call: what it says.

use bytes::Bytes;
use remoc::rch::mpsc;
use serde::Serialize;

use super::{Failure, Progress, Said};
use crate::error::CliError;

/// Tells a caller what comes of a call. It waits for a slow one.
#[derive(Debug, Clone)]
pub(crate) struct Teller(mpsc::Sender<Said>);

impl Teller {
    pub(super) fn new(said: mpsc::Sender<Said>) -> Self {
        Self(said)
    }

    /// A line of the answer.
    ///
    /// # Errors
    ///
    /// [`CliError::CallerGone`]: nobody listens any more.
    pub(crate) async fn answer(
        &self,
        value: &impl Serialize,
        text: impl FnOnce() -> String,
    ) -> Result<(), CliError> {
        let json = to_json(value)?;
        let text = text();
        self.say(Said::Answer { json, text }).await
    }

    /// A line for people; nothing for scripts.
    ///
    /// # Errors
    ///
    /// As [`Self::answer`].
    pub(crate) async fn note(&self, text: impl Into<String>) -> Result<(), CliError> {
        self.say(Said::Note(text.into())).await
    }

    /// A line for people on standard error, where the answer must stand alone; nothing for scripts.
    ///
    /// # Errors
    ///
    /// As [`Self::answer`].
    pub(crate) async fn aside(&self, text: String) -> Result<(), CliError> {
        self.say(Said::Aside(text)).await
    }

    /// Whole lines of an export.
    ///
    /// # Errors
    ///
    /// As [`Self::answer`].
    pub(crate) async fn lines(&self, lines: Bytes) -> Result<(), CliError> {
        self.say(Said::Lines(lines)).await
    }

    /// How far it is.
    ///
    /// # Errors
    ///
    /// As [`Self::answer`].
    pub(crate) async fn progress(&self, progress: Progress) -> Result<(), CliError> {
        self.say(Said::Progress(progress)).await
    }

    /// What did not end the call.
    ///
    /// # Errors
    ///
    /// As [`Self::answer`].
    pub(crate) async fn warn(&self, text: String) -> Result<(), CliError> {
        self.say(Said::Warning(text)).await
    }

    /// Resolves when nobody listens any more.
    pub(super) async fn gone(&self) {
        self.0.closed().await;
    }

    /// The last word. On return it is on its way, or nobody listens.
    pub(super) async fn end(self, end: Result<(), Failure>) {
        if let Ok(sending) = self.0.send(Said::End(end)).await
            && let Err(error) = sending.await
        {
            tracing::debug!(%error, "a caller left before it was answered");
        }
    }

    async fn say(&self, said: Said) -> Result<(), CliError> {
        // Awaiting the transfer itself would make every line a round trip.
        let sent = self.0.send(said).await;
        sent.map(drop).map_err(|_closed| CliError::CallerGone)
    }
}

/// One JSON object in a line.
fn to_json(value: &impl Serialize) -> Result<String, CliError> {
    serde_json::to_string(value).map_err(|error| CliError::Output(error.into()))
}
