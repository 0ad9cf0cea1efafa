//! Frames: a length prefix (u32, big endian), a tag, a message.

use bytes::{Buf, Bytes, BytesMut};

use crate::{codec::DecodeError, limits::MAX_FRAME_BYTES};

/// Bytes of a frame's length prefix; the length does not count itself.
pub(crate) const PREFIX_BYTES: usize = 4;

/// How many times the bytes that have arrived a buffer may hold. Four: a batch of 256 KiB is moved
/// three or four times while it arrives in pieces of a packet, not eight.
const GROWTH: usize = 4;

/// Cuts a byte stream into frames. Fed with what arrived; holds at most one frame and what
/// came behind it in the same piece.
#[derive(Debug, Default)]
pub struct FrameDecoder {
    buffer: BytesMut,
}

impl FrameDecoder {
    /// A decoder at the start of a stream.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next piece of the stream. The buffer grows with the bytes that arrive, to four
    /// times as many and never beyond the frame's end; never by what a prefix claims alone.
    pub fn push(&mut self, bytes: &[u8]) {
        let arrived = self.buffer.len() + bytes.len();
        if arrived > self.buffer.capacity() {
            let claimed = match self.buffer.first_chunk::<PREFIX_BYTES>() {
                Some(prefix) => PREFIX_BYTES + u32::from_be_bytes(*prefix) as usize,
                None => arrived,
            };
            let capacity = claimed.min(GROWTH * arrived).max(arrived);
            self.buffer.reserve(capacity - self.buffer.len());
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole frame, tag and message, without its prefix; `None` until more arrives.
    ///
    /// # Errors
    ///
    /// [`DecodeError::EmptyFrame`] or [`DecodeError::FrameTooLarge`], as soon as the prefix is
    /// there. The stream cannot be read on.
    pub fn next_frame(&mut self) -> Result<Option<Bytes>, DecodeError> {
        let Some(prefix) = self.buffer.first_chunk::<PREFIX_BYTES>() else {
            return Ok(None);
        };
        let len = u32::from_be_bytes(*prefix);
        match usize::try_from(len) {
            Ok(0) => Err(DecodeError::EmptyFrame),
            Ok(len) if len <= MAX_FRAME_BYTES => {
                if self.buffer.len() < PREFIX_BYTES + len {
                    return Ok(None);
                }
                self.buffer.advance(PREFIX_BYTES);
                Ok(Some(self.buffer.split_to(len).freeze()))
            }
            _ => Err(DecodeError::FrameTooLarge {
                found: len.into(),
                max: MAX_FRAME_BYTES,
            }),
        }
    }

    /// Whether the stream stands between two frames. If it ends elsewhere, it was cut.
    pub fn is_at_boundary(&self) -> bool {
        self.buffer.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_out_whole_however_the_stream_is_cut() {
        let stream = [&[0, 0, 0, 2, 7, 8][..], &[0, 0, 0, 1, 9]].concat();
        for size in 1..=stream.len() {
            let mut decoder = FrameDecoder::new();
            let mut frames = Vec::new();
            for piece in stream.chunks(size) {
                decoder.push(piece);
                while let Some(frame) = decoder.next_frame().unwrap() {
                    frames.push(frame.to_vec());
                }
            }
            assert_eq!(frames, [vec![7, 8], vec![9]]);
            assert!(decoder.is_at_boundary());
        }
    }

    #[test]
    fn empty_and_oversized_frames_are_refused_by_their_prefix_alone() {
        let mut decoder = FrameDecoder::new();
        decoder.push(&[0, 0, 0, 0]);
        assert_eq!(decoder.next_frame(), Err(DecodeError::EmptyFrame));
        let mut decoder = FrameDecoder::new();
        decoder.push(&u32::MAX.to_be_bytes());
        assert_eq!(
            decoder.next_frame(),
            Err(DecodeError::FrameTooLarge {
                found: u32::MAX.into(),
                max: MAX_FRAME_BYTES
            })
        );
    }

    #[test]
    fn a_stream_cut_in_mid_frame_is_not_at_a_boundary() {
        let mut decoder = FrameDecoder::new();
        decoder.push(&[0, 0, 0, 2, 7]);
        assert_eq!(decoder.next_frame(), Ok(None));
        assert!(!decoder.is_at_boundary());
    }
}
