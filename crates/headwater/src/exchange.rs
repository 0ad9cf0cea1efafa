//! What every driver of a stream does alike: receive, send, and give up on a peer that takes
//! nothing. Knows no rule of the protocol.

use std::time::Duration;

use headwater_wire::CloseCode;
use iroh::endpoint::{ConnectionError, ReadError, WriteError};

use crate::{
    frames::{Filled, FrameReader, FrameWriter},
    limits::Limits,
    pull::at,
};

/// What a stream did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Moved {
    /// Bytes came or went.
    Bytes,
    /// The peer ended its stream, after a whole frame.
    End,
}

/// A stream no longer works as it should.
#[derive(Debug)]
pub(crate) enum Broken {
    /// The peer ended its stream in mid frame.
    Cut,
    /// The peer took its stream back, with this code.
    Reset(u64),
    /// The peer will read no more, with this code.
    Deaf(u64),
    /// The connection is gone.
    Lost(ConnectionError),
    /// Reading was stopped here.
    Closed,
    /// The peer took too little for so long.
    Stalled { after: Duration },
}

/// Waits until a stream does something: receives if `may_receive`, sends what is queued if
/// `may_send`. Safe to cancel.
pub(crate) async fn step(
    reader: &mut FrameReader,
    writer: &mut FrameWriter,
    limits: &Limits,
    may_receive: bool,
    may_send: bool,
) -> Result<Moved, Broken> {
    let after = limits.write_stall;
    let stalls_at = writer.stalls_at(after);
    tokio::select! {
        filled = reader.fill(), if may_receive => match filled {
            Ok(Filled::Bytes) => Ok(Moved::Bytes),
            Ok(Filled::End) => Ok(Moved::End),
            Ok(Filled::Cut) => Err(Broken::Cut),
            Err(ReadError::Reset(code)) => Err(Broken::Reset(code.into_inner())),
            Err(ReadError::ConnectionLost(error)) => Err(Broken::Lost(error)),
            Err(_closed) => Err(Broken::Closed),
        },
        sent = writer.send_some(), if may_send => match sent {
            Ok(()) => Ok(Moved::Bytes),
            Err(WriteError::Stopped(code)) => Err(Broken::Deaf(code.into_inner())),
            Err(WriteError::ConnectionLost(error)) => Err(Broken::Lost(error)),
            // Ended here already: nobody waits for what is queued.
            Err(_closed) => Err(Broken::Deaf(CloseCode::Done.code())),
        },
        () = at(stalls_at), if may_send => Err(Broken::Stalled { after }),
        else => std::future::pending().await,
    }
}

/// Sends all that is queued. Safe to cancel.
pub(crate) async fn flush(
    reader: &mut FrameReader,
    writer: &mut FrameWriter,
    limits: &Limits,
) -> Result<(), Broken> {
    while writer.queued() > 0 {
        step(reader, writer, limits, false, true).await?;
    }
    Ok(())
}

/// Tells when a stream has moved so much that it counts as progress.
#[derive(Debug, Default)]
pub(crate) struct Transfer {
    noted: u64,
}

impl Transfer {
    /// Whether it has since the last time it did.
    pub(crate) fn is_progress(
        &mut self,
        reader: &FrameReader,
        writer: &FrameWriter,
        limits: &Limits,
    ) -> bool {
        let moved = reader.received() + writer.sent();
        let is_enough = moved - self.noted >= limits.progress_bytes();
        if is_enough {
            self.noted = moved;
        }
        is_enough
    }
}
