//! `export`: a space as JSON lines, the same bytes on every node that holds the same events.

use std::io::{self, Write};

use headwater::{Headwater, SpaceId};
use n0_future::StreamExt;

use super::{Context, wanted_space};
use crate::{
    error::CliError,
    node,
    output::{bulk, write_json},
    record::Record,
};

pub(super) async fn run(context: &Context, space: &str) -> Result<(), CliError> {
    let folder = context.folder()?;
    let space = wanted_space(&folder, space)?.id;
    let node = node::open_offline(&folder)?;
    let exported = write(&node, space, &mut bulk()).await;
    node.shutdown().await;
    exported.map(|_| ())
}

/// Writes every event, the owner's first, then by author, each by seq; answers how many. Memory
/// does not grow with the history.
///
/// # Errors
///
/// The space is not held, the store cannot be read, or the writer fails.
pub(crate) async fn write(
    node: &Headwater,
    space: SpaceId,
    out: &mut impl Write,
) -> Result<u64, CliError> {
    let space = node.space(space);
    if space.summary().await?.is_none() {
        return Err(CliError::NotHeld(space.id()));
    }
    let mut history = space.history();
    let mut events = 0;
    while let Some(event) = history.next().await {
        write_json(out, &Record::new(&event?)).map_err(CliError::Output)?;
        events += 1;
    }
    out.flush().map_err(CliError::Output)?;
    Ok(events)
}

/// A writer that hashes and forgets.
#[derive(Debug, Default)]
pub(crate) struct HashWriter {
    hasher: blake3::Hasher,
    pub(crate) bytes: u64,
}

impl HashWriter {
    /// The hash of everything written.
    pub(crate) fn hash(&self) -> blake3::Hash {
        self.hasher.finalize()
    }
}

impl Write for HashWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.hasher.update(bytes);
        self.bytes += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
