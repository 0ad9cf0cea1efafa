//! An event to be, on its way to the host.

use std::mem;

use bytes::Bytes;
use headwater::EventDraft;
use serde::{Deserialize, Serialize};

use crate::input::{self, LineError};

/// Payload bytes and events of one message of an import.
const BATCH_BYTES: usize = 256 * 1024;
const BATCH_EVENTS: usize = 1024;

/// An event that nobody has signed yet. The host checks it like any other input.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Draft {
    /// A label of the data folder.
    pub(crate) author: String,
    kind: u16,
    channel: Option<Bytes>,
    timestamp_ms: u64,
    payload: Bytes,
}

impl Draft {
    /// The draft of this author.
    pub(crate) fn new(author: &str, draft: EventDraft) -> Self {
        let channel = draft.channel.as_ref();
        Self {
            author: author.to_owned(),
            kind: draft.kind,
            channel: channel.map(|channel| Bytes::copy_from_slice(channel.as_bytes())),
            timestamp_ms: draft.timestamp_ms,
            payload: draft.payload,
        }
    }

    /// The author's label, and what is to be signed.
    ///
    /// # Errors
    ///
    /// A label, kind, channel or payload is refused.
    pub(crate) fn check(self) -> Result<(String, EventDraft), LineError> {
        input::check_label(&self.author)?;
        let draft = input::draft(
            self.payload,
            self.channel,
            Some(self.kind),
            self.timestamp_ms,
        )?;
        Ok((self.author, draft))
    }
}

/// Cuts drafts into messages.
pub(crate) fn batches(drafts: impl Iterator<Item = Draft>) -> impl Iterator<Item = Vec<Draft>> {
    let mut drafts = drafts.fuse();
    std::iter::from_fn(move || {
        let mut batch = Vec::new();
        let mut bytes = 0;
        while bytes < BATCH_BYTES
            && batch.len() < BATCH_EVENTS
            && let Some(draft) = drafts.next()
        {
            bytes += draft.payload.len() + mem::size_of::<Draft>();
            batch.push(draft);
        }
        (!batch.is_empty()).then_some(batch)
    })
}
