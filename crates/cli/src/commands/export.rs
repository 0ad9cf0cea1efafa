//! `export`: a space as JSON lines, the same bytes on every node that holds the same events.

use bytes::Bytes;
use headwater::{EventStream, Headwater, SpaceId};
use n0_future::{Stream, StreamExt};

use super::{Context, wanted_space};
use crate::{
    control::{Request, Teller},
    error::CliError,
    host::Host,
    output::write_json,
    record::Record,
};

/// Lines are handed on when this many bytes of them are there.
const CHUNK_BYTES: usize = 64 * 1024;

pub(super) async fn run(context: &Context, space: &str) -> Result<(), CliError> {
    let folder = context.folder()?;
    let space = wanted_space(&folder, space)?.id;
    context.ask(&folder, Request::Export { space }).await
}

/// Tells every event.
pub(super) async fn carry_out(
    host: &Host,
    space: SpaceId,
    teller: &Teller,
) -> Result<(), CliError> {
    let mut chunks = std::pin::pin!(chunks(host.node(), space).await?);
    while let Some(chunk) = chunks.next().await {
        teller.lines(chunk?.bytes).await?;
    }
    Ok(())
}

/// Some lines of an export.
#[derive(Debug)]
pub(crate) struct Chunk {
    pub(crate) bytes: Bytes,
    pub(crate) lines: u64,
}

/// Every event as a line, the owner's first, then by author, each by seq. Memory does not grow with
/// the history.
///
/// # Errors
///
/// The space is not held. The stream ends with an error if the store cannot be read on.
pub(crate) async fn chunks(
    node: &Headwater,
    space: SpaceId,
) -> Result<impl Stream<Item = Result<Chunk, CliError>> + use<>, CliError> {
    let space = node.space(space);
    if space.summary().await?.is_none() {
        return Err(CliError::NotHeld(space.id()));
    }
    let history = Some(space.history());
    Ok(n0_future::stream::unfold(
        (history, None),
        |(history, failed)| async move {
            if let Some(error) = failed {
                return Some((Err(error), (None, None)));
            }
            let mut history = history?;
            let (chunk, failed) = next_chunk(&mut history).await;
            if chunk.lines > 0 {
                return Some((Ok(chunk), (Some(history), failed)));
            }
            failed.map(|error| (Err(error), (None, None)))
        },
    ))
}

/// As many lines as make a chunk, and why there will be no more, if that is a fault.
async fn next_chunk(history: &mut EventStream) -> (Chunk, Option<CliError>) {
    let mut bytes = Vec::with_capacity(CHUNK_BYTES);
    let mut lines = 0;
    let mut failed = None;
    while bytes.len() < CHUNK_BYTES
        && let Some(event) = history.next().await
    {
        let written = event.map_err(CliError::from).and_then(|event| {
            write_json(&mut bytes, &Record::new(&event)).map_err(CliError::Output)
        });
        if let Err(error) = written {
            failed = Some(error);
            break;
        }
        lines += 1;
    }
    let bytes = Bytes::from(bytes);
    (Chunk { bytes, lines }, failed)
}
