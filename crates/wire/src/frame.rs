//! Frames: a length prefix (u32, big endian), a tag, a message.

use bytes::{Buf, Bytes};

use crate::{codec::DecodeError, limits::MAX_FRAME_BYTES};

/// Bytes of a frame's length prefix; the length does not count itself.
pub(crate) const PREFIX_BYTES: usize = 4;

/// How many times the bytes of a frame that have arrived its buffer may hold, on a stream that has
/// not delivered more before.
const GROWTH: u64 = 4;

/// Cuts a byte stream into frames. Holds at most one frame.
///
/// A frame's buffer is never larger than the frame, and never larger than four times what has
/// arrived of it or what the stream has delivered in all, whichever is more: a stream that has
/// delivered a batch gets room for the next one at once, and one that only claims gets none.
#[derive(Debug, Default)]
pub struct FrameDecoder {
    prefix: [u8; PREFIX_BYTES],
    prefix_len: usize,
    body: Vec<u8>,
    delivered: u64,
}

impl FrameDecoder {
    /// A decoder at the start of a stream.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes what is missing of the current frame off the front of `input`, and returns the frame,
    /// tag and message without its prefix, once it is whole. What lies behind it stays in `input`;
    /// `None` leaves nothing there.
    ///
    /// # Errors
    ///
    /// [`DecodeError::EmptyFrame`] or [`DecodeError::FrameTooLarge`], as soon as the prefix is
    /// there. The stream cannot be read on.
    pub fn read(&mut self, input: &mut impl Buf) -> Result<Option<Bytes>, DecodeError> {
        while self.prefix_len < PREFIX_BYTES {
            if !input.has_remaining() {
                return Ok(None);
            }
            self.prefix[self.prefix_len] = input.get_u8();
            self.prefix_len += 1;
            self.delivered += 1;
        }
        let len = self.claimed()?;
        while self.body.len() < len {
            if !input.has_remaining() {
                return Ok(None);
            }
            let piece = input.chunk();
            let piece = &piece[..piece.len().min(len - self.body.len())];
            let arrived = self.body.len() + piece.len();
            self.delivered += piece.len() as u64;
            if arrived > self.body.capacity() {
                let earned = self.delivered.max(GROWTH * arrived as u64);
                let room = usize::try_from(earned).map_or(len, |earned| earned.min(len));
                self.body.reserve_exact(room - self.body.len());
            }
            self.body.extend_from_slice(piece);
            let taken = piece.len();
            input.advance(taken);
        }
        self.prefix_len = 0;
        Ok(Some(std::mem::take(&mut self.body).into()))
    }

    /// Length of the current frame, whose prefix is there.
    fn claimed(&self) -> Result<usize, DecodeError> {
        let len = u32::from_be_bytes(self.prefix);
        match usize::try_from(len) {
            Ok(0) => Err(DecodeError::EmptyFrame),
            Ok(len) if len <= MAX_FRAME_BYTES => Ok(len),
            _ => Err(DecodeError::FrameTooLarge {
                found: len.into(),
                max: MAX_FRAME_BYTES,
            }),
        }
    }

    /// Whether the stream stands between two frames. If it ends elsewhere, it was cut.
    pub fn is_at_boundary(&self) -> bool {
        self.prefix_len == 0
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
            for mut piece in stream.chunks(size) {
                while let Some(frame) = decoder.read(&mut piece).unwrap() {
                    frames.push(frame.to_vec());
                }
                assert!(piece.is_empty());
            }
            assert_eq!(frames, [vec![7, 8], vec![9]]);
            assert!(decoder.is_at_boundary());
        }
    }

    #[test]
    fn empty_and_oversized_frames_are_refused_by_their_prefix_alone() {
        let mut decoder = FrameDecoder::new();
        let read = decoder.read(&mut &[0, 0, 0, 0][..]);
        assert_eq!(read, Err(DecodeError::EmptyFrame));
        let mut decoder = FrameDecoder::new();
        assert_eq!(
            decoder.read(&mut &u32::MAX.to_be_bytes()[..]),
            Err(DecodeError::FrameTooLarge {
                found: u32::MAX.into(),
                max: MAX_FRAME_BYTES
            })
        );
    }

    #[test]
    fn a_stream_cut_in_mid_frame_is_not_at_a_boundary() {
        for cut in [&[0][..], &[0, 0, 0, 2], &[0, 0, 0, 2, 7]] {
            let mut decoder = FrameDecoder::new();
            assert_eq!(decoder.read(&mut &cut[..]), Ok(None));
            assert!(!decoder.is_at_boundary());
        }
    }

    #[test]
    fn a_buffer_grows_with_what_arrives_and_not_with_what_is_claimed() {
        let len = 1_000_000u32;
        let mut decoder = FrameDecoder::new();
        assert_eq!(decoder.read(&mut &len.to_be_bytes()[..]), Ok(None));
        assert_eq!(decoder.body.capacity(), 0);
        let mut arrived = 0;
        while arrived < len as usize - 1_000 {
            assert_eq!(decoder.read(&mut &[1; 1_000][..]), Ok(None));
            arrived += 1_000;
            assert!(decoder.body.capacity() <= 4 * arrived);
        }
        let frame = decoder.read(&mut &[1; 1_000][..]).unwrap().unwrap();
        assert_eq!(frame.len(), len as usize);
        // The stream has earned a whole frame's room, and no more than the frame's.
        let mut next = &[&len.to_be_bytes()[..], &[1]].concat()[..];
        assert_eq!(decoder.read(&mut next), Ok(None));
        assert_eq!(decoder.body.capacity(), len as usize);
    }
}
