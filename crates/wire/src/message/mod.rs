//! Every message of `headwater/sync/2`, its tag and its bytes.
//!
//! ```text
//! 4-byte length ‖ tag ‖ fields in postcard's encoding
//! ```
//!
//! Tags are written down below and never reused. A tag of 128 or above is *additive*: a
//! receiver that does not know it skips the frame. Any other unknown tag ends the stream.

mod answer;
mod deferred;
mod fork;
mod redeem;
mod request;

pub use answer::{
    Busy, ForkNotice, HeadsWanted, HistorySyncComplete, LiveBatch, LiveLagged, PlanTotals, Segment,
    SyncBatchV2, SyncOutcome, SyncPlan, Truncation,
};
pub use deferred::{
    PayloadAnswer, PayloadBatch, PayloadRequest, PayloadWant, TreeChild, TreeNode, TreeNodes,
    TreePrefix, TreePrefixError, TreeRequest,
};
pub use fork::{ForkAnswer, ForkBranch, ForkLocator, ForkRevoked, ForkWant};
pub use redeem::{Redeem, Redeemed};
pub use request::{AuthorFilter, Budget, Clock, Cursor, HeadsChunk, SyncFilter, SyncRequestV2};

use bytes::Bytes;

use crate::{
    codec::{DecodeError, Put, Reader},
    frame::PREFIX_BYTES,
    limits::{MAX_BATCH_RUNS, MAX_FRAME_BYTES, MAX_RUN_BYTES},
};

/// First of the tags a receiver that does not know them skips.
pub const FIRST_ADDITIVE_TAG: u8 = 128;

/// A message is too large for a frame: a list in it is longer than the protocol allows.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message} of {found} bytes, a frame holds {max}")]
pub struct EncodeError {
    /// The message's name.
    pub message: &'static str,
    /// Its length.
    pub found: usize,
    /// The limit.
    pub max: usize,
}

/// A frame being written: owned bytes, with shared runs between them.
#[derive(Debug, Default)]
struct FrameWriter {
    chunks: Vec<Bytes>,
    owned: Vec<u8>,
}

/// Runs shorter than this are copied into the frame: a chunk of its own costs more.
const SHARE_FROM_BYTES: usize = 1024;

impl FrameWriter {
    fn put_runs(&mut self, runs: &[Bytes]) {
        self.owned.put_varint(runs.len() as u64);
        for run in runs {
            self.put_run(run);
        }
    }

    fn put_run(&mut self, run: &Bytes) {
        self.owned.put_varint(run.len() as u64);
        if run.len() < SHARE_FROM_BYTES {
            self.owned.put(run);
        } else {
            self.flush();
            self.chunks.push(run.clone());
        }
    }

    fn flush(&mut self) {
        if !self.owned.is_empty() {
            self.chunks.push(std::mem::take(&mut self.owned).into());
        }
    }
}

/// A message's fields behind its request id, which every message begins with.
trait Body: Sized {
    fn write(&self, frame: &mut FrameWriter);
    fn read(request_id: u64, reader: &mut Reader) -> Result<Self, DecodeError>;
}

fn read_runs(reader: &mut Reader) -> Result<Vec<Bytes>, DecodeError> {
    // A run takes a byte for its length, then more than a signature.
    let count = reader.count("runs", MAX_BATCH_RUNS, 1 + crate::Signature::LEN)?;
    (0..count).map(|_| read_run(reader)).collect()
}

fn read_run(reader: &mut Reader) -> Result<Bytes, DecodeError> {
    reader.byte_string("run", 1, MAX_RUN_BYTES)
}

macro_rules! messages {
    ($($tag:literal $name:ident,)*) => {
        /// A message of the sync protocol.
        #[derive(Debug, Clone, PartialEq, Eq)]
        #[non_exhaustive]
        pub enum Message {
            $(#[doc = concat!("Tag ", $tag, ".")] $name($name),)*
        }

        $(impl From<$name> for Message {
            fn from(message: $name) -> Self {
                Self::$name(message)
            }
        })*

        impl Message {
            /// Tag and name of every message.
            pub const TAGS: &[(u8, &'static str)] = &[$(($tag, stringify!($name))),*];

            /// The tag.
            pub fn tag(&self) -> u8 {
                match self {
                    $(Self::$name(_) => $tag,)*
                }
            }

            /// The name, for errors and traces.
            pub fn name(&self) -> &'static str {
                match self {
                    $(Self::$name(_) => stringify!($name),)*
                }
            }

            /// The request it belongs to.
            pub fn request_id(&self) -> u64 {
                match self {
                    $(Self::$name(message) => message.request_id,)*
                }
            }

            fn write(&self, frame: &mut FrameWriter) {
                match self {
                    $(Self::$name(message) => message.write(frame),)*
                }
            }

            fn read(tag: u8, reader: &mut Reader) -> Result<Option<Self>, DecodeError> {
                let fields: fn(u64, &mut Reader) -> Result<Self, DecodeError> = match tag {
                    $($tag => |request_id, reader| {
                        $name::read(request_id, reader).map(Self::$name)
                    },)*
                    FIRST_ADDITIVE_TAG.. => return Ok(None),
                    _ => return Err(DecodeError::UnknownTag { tag }),
                };
                fields(reader.varint("request id")?, reader).map(Some)
            }
        }
    };
}

messages! {
    1 SyncRequestV2,
    2 HeadsChunk,
    3 HeadsWanted,
    4 SyncPlan,
    5 SyncBatchV2,
    6 HistorySyncComplete,
    7 LiveBatch,
    8 LiveLagged,
    9 ForkNotice,
    10 Busy,
    16 TreeRequest,
    17 TreeNodes,
    18 PayloadRequest,
    19 PayloadBatch,
    20 ForkLocator,
    21 ForkAnswer,
    22 ForkBranch,
    23 ForkWant,
    24 Redeem,
    25 Redeemed,
    26 ForkRevoked,
}

impl Message {
    /// The frame to send, in pieces: the length prefix, the tag and the fields. Runs of a
    /// kilobyte or more are shared, not copied.
    ///
    /// # Errors
    ///
    /// If it would be longer than [`MAX_FRAME_BYTES`].
    pub fn encode_frame(&self) -> Result<Vec<Bytes>, EncodeError> {
        let mut frame = FrameWriter::default();
        frame.owned.put(&[0; PREFIX_BYTES]);
        frame.owned.put_u8(self.tag());
        frame.owned.put_varint(self.request_id());
        self.write(&mut frame);
        let shared: usize = frame.chunks.iter().map(Bytes::len).sum();
        let len = shared + frame.owned.len() - PREFIX_BYTES;
        if len > MAX_FRAME_BYTES {
            return Err(EncodeError {
                message: self.name(),
                found: len,
                max: MAX_FRAME_BYTES,
            });
        }
        frame.flush();
        if let Some(first) = frame.chunks.first_mut() {
            let mut start = Vec::from(std::mem::take(first));
            start[..PREFIX_BYTES].copy_from_slice(&(len as u32).to_be_bytes());
            *first = start.into();
        }
        Ok(frame.chunks)
    }

    /// The frame without its prefix, in pieces, however long it is.
    pub(crate) fn body(&self) -> Vec<Bytes> {
        let mut frame = FrameWriter::default();
        frame.owned.put_u8(self.tag());
        frame.owned.put_varint(self.request_id());
        self.write(&mut frame);
        frame.flush();
        frame.chunks
    }

    /// Reads a frame without its prefix, as [`crate::FrameDecoder::read`] gives it. Runs
    /// in it share the frame's bytes and are not decoded yet. `None` for an additive message
    /// this version does not know.
    ///
    /// # Errors
    ///
    /// Names the field that is wrong.
    pub fn decode_body(frame: Bytes) -> Result<Option<Self>, DecodeError> {
        let mut reader = Reader::new(frame);
        let tag = reader.u8("tag").map_err(|_| DecodeError::EmptyFrame)?;
        let message = Self::read(tag, &mut reader)?;
        if let Some(message) = &message {
            reader.finish(message.name())?;
        }
        Ok(message)
    }
}

#[cfg(test)]
mod tests;
