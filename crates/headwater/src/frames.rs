//! Messages over a QUIC stream, one direction each. Knows no rule of the protocol.

use std::{collections::VecDeque, future, sync::Arc, time::Duration};

use bytes::Bytes;
use headwater_wire::{CloseCode, DecodeError, EncodeError, FrameDecoder, Message};
use iroh::endpoint::{ReadError, RecvStream, SendStream, WriteError};
use n0_future::time::Instant;

use crate::{connections::varint, limits::Limits, metrics::Metrics};

/// Pieces of a stream taken at once; one is about a packet.
const CHUNKS_AT_ONCE: usize = 32;

/// Reads messages as the driver asks for them, and not before: what is not asked for waits in
/// QUIC's window, and then at the peer.
#[derive(Debug)]
pub(crate) struct FrameReader {
    metrics: Arc<Metrics>,
    stream: RecvStream,
    /// Received, and not looked at yet.
    pieces: VecDeque<Bytes>,
    decoder: FrameDecoder,
    received: u64,
}

/// What waiting for bytes gave.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Filled {
    /// There are more.
    Bytes,
    /// The peer ended its stream after a whole frame.
    End,
    /// The peer ended its stream in mid frame.
    Cut,
}

impl FrameReader {
    pub(crate) fn new(stream: RecvStream, metrics: Arc<Metrics>) -> Self {
        Self {
            metrics,
            stream,
            pieces: VecDeque::with_capacity(CHUNKS_AT_ONCE),
            decoder: FrameDecoder::new(),
            received: 0,
        }
    }

    /// The next message among the bytes received; `None` if it takes more of them.
    pub(crate) fn next_message(&mut self) -> Result<Option<Message>, DecodeError> {
        while let Some(piece) = self.pieces.front_mut() {
            match self.decoder.read(piece)? {
                Some(frame) => {
                    if let Some(message) = Message::decode_body(frame)? {
                        return Ok(Some(message));
                    }
                }
                None => drop(self.pieces.pop_front()),
            }
        }
        Ok(None)
    }

    /// Waits for bytes. Safe to cancel.
    pub(crate) async fn fill(&mut self) -> Result<Filled, ReadError> {
        let mut chunks = [const { Bytes::new() }; CHUNKS_AT_ONCE];
        match self.stream.read_many_chunks(&mut chunks).await? {
            Some(count) => {
                let before = self.received;
                for chunk in chunks.into_iter().take(count) {
                    self.received += chunk.len() as u64;
                    self.pieces.push_back(chunk);
                }
                let received = &self.metrics.wire_bytes_received;
                received.inc_by(self.received - before);
                Ok(Filled::Bytes)
            }
            None if self.is_taken() => Ok(Filled::End),
            None => Ok(Filled::Cut),
        }
    }

    /// Whether every byte received is part of a message that was taken.
    pub(crate) fn is_taken(&self) -> bool {
        self.decoder.is_at_boundary() && self.pieces.iter().all(Bytes::is_empty)
    }

    /// Bytes received so far.
    pub(crate) fn received(&self) -> u64 {
        self.received
    }

    /// Tells the peer that no more will be read.
    pub(crate) fn stop(&mut self, code: CloseCode) {
        // Closed already is as good.
        self.stream.stop(varint(code)).ok();
    }
}

/// Queues messages and sends them as the peer takes them.
#[derive(Debug)]
pub(crate) struct FrameWriter {
    metrics: Arc<Metrics>,
    stream: SendStream,
    queue: VecDeque<Bytes>,
    queued: usize,
    sent: u64,
    pace: Pace,
}

/// How fast a peer has to take what is queued for it.
///
/// A peer that takes a byte now and then holds what it is served from as surely as one that takes
/// none: what counts is either an emptied queue or enough bytes.
#[derive(Debug, Clone, Copy)]
struct Pace {
    /// Bytes that count as enough.
    enough: u64,
    /// When enough was last taken, or when something was queued for the peer to take.
    since: Instant,
    /// What had been sent by then.
    sent: u64,
}

impl Pace {
    fn restart(&mut self, sent: u64, now: Instant) {
        self.since = now;
        self.sent = sent;
    }

    /// Notes how much has been sent in all.
    fn note(&mut self, sent: u64, now: Instant) {
        if sent.saturating_sub(self.sent) >= self.enough {
            self.restart(sent, now);
        }
    }
}

impl FrameWriter {
    pub(crate) fn new(stream: SendStream, metrics: Arc<Metrics>, limits: &Limits) -> Self {
        Self {
            metrics,
            stream,
            queue: VecDeque::new(),
            queued: 0,
            sent: 0,
            pace: Pace {
                enough: limits.least_bytes(limits.write_stall),
                since: Instant::now(),
                sent: 0,
            },
        }
    }

    /// Queues a message whole, or nothing of it.
    pub(crate) fn push(&mut self, message: &Message) -> Result<(), EncodeError> {
        if self.queue.is_empty() {
            self.pace.restart(self.sent, Instant::now());
        }
        for chunk in message.encode_frame()? {
            self.queued += chunk.len();
            self.queue.push_back(chunk);
        }
        Ok(())
    }

    /// Sends some of what is queued; waits for ever if nothing is. Safe to cancel.
    pub(crate) async fn send_some(&mut self) -> Result<(), WriteError> {
        if self.queue.is_empty() {
            return future::pending().await;
        }
        let chunks = self.queue.make_contiguous();
        let before = chunks.len();
        let mut unsent = &mut chunks[..];
        let taken = self.stream.write_many_chunks(&mut unsent).await?;
        let left = unsent.len();
        self.queue.drain(..before - left);
        self.queued = self.queued.saturating_sub(taken);
        self.sent += taken as u64;
        self.metrics.wire_bytes_sent.inc_by(taken as u64);
        self.pace.note(self.sent, Instant::now());
        Ok(())
    }

    /// Bytes waiting to be sent.
    pub(crate) fn queued(&self) -> usize {
        self.queued
    }

    /// Bytes sent so far.
    pub(crate) fn sent(&self) -> u64 {
        self.sent
    }

    /// When a peer that takes no more than now counts as stalled; `None` while nothing waits for
    /// it.
    pub(crate) fn stalls_at(&self, after: Duration) -> Option<Instant> {
        let since = self.pace.since;
        (!self.queue.is_empty())
            .then(|| since.checked_add(after))
            .flatten()
    }

    /// Ends the stream in order.
    pub(crate) fn finish(&mut self) {
        // Closed already is as good.
        self.stream.finish().ok();
    }

    /// Waits until the peer has acknowledged all of a stream that was ended; false if it will not.
    pub(crate) async fn acknowledged(&self) -> bool {
        matches!(self.stream.stopped().await, Ok(None))
    }

    /// Ends the stream early and drops what is queued.
    pub(crate) fn reset(&mut self, code: CloseCode) {
        self.queue.clear();
        self.queued = 0;
        self.stream.reset(varint(code)).ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trickle_is_no_progress_and_enough_bytes_are() {
        let start = Instant::now();
        let later = |seconds| start + Duration::from_secs(seconds);
        let mut pace = Pace {
            enough: 100,
            since: start,
            sent: 0,
        };
        pace.note(1, later(10));
        pace.note(99, later(20));
        assert_eq!(pace.since, start);
        pace.note(100, later(25));
        assert_eq!(pace.since, later(25));
        pace.note(199, later(30));
        assert_eq!(pace.since, later(25));
        pace.restart(199, later(40));
        pace.note(250, later(50));
        assert_eq!(pace.since, later(40));
    }
}
