//! The old gossip exchange, kept decodable for one release: ask with a state hash, get a dump.
//!
//! Old nodes broadcast these on a space's topic. They are read so that a network of old and new
//! nodes can be moved over step by step; what a new node answers is its policy.

use bytes::Bytes;

use crate::{
    codec::{DecodeError, Put, Reader},
    ids::Signature,
    limits::{MAX_LEGACY_EVENTS, MAX_RUN_BYTES},
};

/// A message of the old protocol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LegacyMessage {
    /// Code 0: "this is the hash of all I hold; send me what I miss".
    SyncRequest {
        /// The asking node's hash over its state; opaque here.
        state_hash: [u8; 32],
        /// The topic the answer goes to.
        topic: [u8; 32],
    },
    /// Code 1: the last events the answering node holds, at most 500.
    SyncBatch {
        /// Each a run of one event, with that event's own signature; verified like any run.
        events: Vec<Bytes>,
    },
}

impl LegacyMessage {
    /// The message's bytes: a code, then the fields in postcard's encoding.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        match self {
            Self::SyncRequest { state_hash, topic } => {
                out.put_u8(0);
                out.put(state_hash);
                out.put(topic);
            }
            Self::SyncBatch { events } => {
                out.put_u8(1);
                out.put_varint(events.len() as u64);
                for event in events {
                    out.put_byte_string(event);
                }
            }
        }
        out
    }

    /// Reads a message; `None` for a code this version does not know, which is skipped without
    /// failing the rest of the traffic.
    ///
    /// # Errors
    ///
    /// Names the field that is wrong.
    pub fn decode(bytes: Bytes) -> Result<Option<Self>, DecodeError> {
        let mut reader = Reader::new(bytes);
        let message = match reader.varint("legacy message")? {
            0 => Self::SyncRequest {
                state_hash: reader.array("state hash")?,
                topic: reader.array("topic")?,
            },
            1 => {
                let least = 1 + Signature::LEN;
                let count = reader.count("legacy events", MAX_LEGACY_EVENTS, least)?;
                let events = (0..count)
                    .map(|_| reader.byte_string("legacy event", 1, MAX_RUN_BYTES))
                    .collect::<Result<_, _>>()?;
                Self::SyncBatch { events }
            }
            _ => return Ok(None),
        };
        reader.finish("legacy message")?;
        Ok(Some(message))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn legacy_messages_round_trip_and_unknown_ones_are_skipped() {
        for message in [
            LegacyMessage::SyncRequest {
                state_hash: [1; 32],
                topic: [2; 32],
            },
            LegacyMessage::SyncBatch {
                events: vec![Bytes::from(vec![7; 80]), Bytes::from(vec![8; 90])],
            },
        ] {
            let bytes = Bytes::from(message.encode());
            assert_eq!(LegacyMessage::decode(bytes), Ok(Some(message)));
        }
        assert_eq!(LegacyMessage::decode(Bytes::from_static(&[9, 9])), Ok(None));
    }

    #[test]
    fn more_than_500_events_and_trailing_bytes_are_refused() {
        let many = LegacyMessage::SyncBatch {
            events: vec![Bytes::from(vec![7; 65]); MAX_LEGACY_EVENTS + 1],
        };
        assert!(matches!(
            LegacyMessage::decode(many.encode().into()),
            Err(DecodeError::OutOfRange { found: 501, .. })
        ));
        let mut long = LegacyMessage::SyncRequest {
            state_hash: [1; 32],
            topic: [2; 32],
        }
        .encode();
        long.push(0);
        assert!(matches!(
            LegacyMessage::decode(long.into()),
            Err(DecodeError::TrailingBytes { left: 1, .. })
        ));
    }
}
