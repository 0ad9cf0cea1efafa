//! Reads a run's one encoding, and refuses every other.

use bytes::Bytes;

use super::{Facts, Run};
use crate::{
    codec::{Decode, DecodeError, Reader, unzigzag},
    event::{ChannelId, EventRef, Kind},
    ids::{AuthorId, EventId, PayloadHash, Signature},
    limits::{MAX_DEPS, MAX_PAYLOAD_BYTES, MAX_RUN_BYTES, MAX_RUN_EVENTS, MAX_SEQ},
};

/// The fewest bytes an event takes in a run: five one-byte numbers and an empty payload.
const MIN_EVENT_BYTES: usize = 5;

/// Longest encoding of a timestamp: a varint of 64 bits.
pub(super) const MAX_STAMP_BYTES: usize = 10;

/// Longest encoding of what a run says but of its channels and events: author, first seq and
/// prev, two counts, signature.
pub(super) const MAX_FIXED_BYTES: usize = 32 + 8 + 32 + 2 + 2 + Signature::LEN;

/// Length of an event's body as a payload or as a stub, whichever is longer.
pub(super) fn longest_body(payload_len: u32) -> usize {
    match payload_len as usize {
        0 => 0,
        len => len.max(PayloadHash::LEN),
    }
}

/// Refuses a run that could not be cut, or turned to stubs, within the limit.
fn check_full_len(full_len: usize) -> Result<(), DecodeError> {
    if full_len > MAX_RUN_BYTES {
        return Err(DecodeError::OutOfRange {
            field: "full length of a run",
            found: full_len as u64,
            min: 1,
            max: MAX_RUN_BYTES as u64,
        });
    }
    Ok(())
}

impl Run {
    /// Decodes a run from exactly these bytes, which it keeps and shares.
    ///
    /// # Errors
    ///
    /// Names the field that is wrong. An encoding that is readable but not the one canonical
    /// form is refused as well.
    pub fn decode(bytes: Bytes) -> Result<Self, DecodeError> {
        check_full_len(bytes.len())?;
        let mut reader = Reader::new(bytes.clone());
        let reader = &mut reader;
        let author = AuthorId::decode(reader)?;
        let first_seq = reader.bounded("first seq", 1, MAX_SEQ)?;
        let first_prev = if first_seq > 1 {
            Some(EventId::decode(reader)?)
        } else {
            None
        };
        let count = reader.count("events of a run", MAX_RUN_EVENTS, MIN_EVENT_BYTES)?;
        let last_seq = first_seq + count as u64;
        if count == 0 || last_seq - 1 > MAX_SEQ {
            return Err(DecodeError::OutOfRange {
                field: "events of a run",
                found: count as u64,
                min: 1,
                max: (MAX_SEQ - first_seq).saturating_add(1),
            });
        }
        let before_channels = reader.offset();
        let channels = reader.list::<ChannelId>("channel table", count)?;
        check_distinct(&channels)?;
        let mut full_len = MAX_FIXED_BYTES + reader.offset() - before_channels;

        let mut deps = Vec::new();
        let mut facts = Vec::with_capacity(count);
        let mut timestamp_ms = 0u64;
        let mut used_channels = 0;
        for _ in 0..count {
            let stamp = reader.varint("timestamp")?;
            timestamp_ms = if facts.is_empty() {
                stamp
            } else {
                timestamp_ms.wrapping_add_signed(unzigzag(stamp))
            };
            let before_row = reader.offset();
            let row = decode_row(reader, &author, timestamp_ms, &mut deps)?;
            full_len += MAX_STAMP_BYTES + reader.offset() - before_row;
            full_len += longest_body(row.payload_len);
            let channel = usize::from(row.channel);
            if channel == used_channels + 1 {
                used_channels = channel;
            }
            if channel > used_channels || used_channels > channels.len() {
                return Err(DecodeError::NotCanonical { field: "channel" });
            }
            facts.push(row);
        }
        if used_channels != channels.len() {
            return Err(DecodeError::NotCanonical {
                field: "channel table",
            });
        }
        check_full_len(full_len)?;
        let (mut payload_bytes, mut stubs) = (0, 0);
        for row in &mut facts {
            row.body = reader.offset() as u32;
            if row.stub {
                reader.skip("payload hash", PayloadHash::LEN)?;
                stubs += 1;
            } else {
                reader.skip("payload", row.payload_len as usize)?;
                payload_bytes += u64::from(row.payload_len);
            }
        }
        let signature = Signature::decode(reader)?;
        match reader.remaining() {
            0 => Ok(Self {
                bytes,
                author,
                first_seq,
                first_prev,
                channels,
                deps,
                facts,
                signature,
                payload_bytes,
                stubs,
                full_len,
            }),
            left => Err(DecodeError::TrailingBytes { what: "run", left }),
        }
    }
}

fn decode_row(
    reader: &mut Reader,
    author: &AuthorId,
    timestamp_ms: u64,
    deps: &mut Vec<EventRef>,
) -> Result<Facts, DecodeError> {
    let kind = reader.bounded("kind", 0, Kind::MAX.into())? as Kind;
    let channel = reader.bounded("channel", 0, MAX_RUN_EVENTS as u64)? as u16;
    let dep_count = reader.count("deps", MAX_DEPS, EventRef::MIN_BYTES)?;
    let first_dep = deps.len() as u32;
    for _ in 0..dep_count {
        let dep = EventRef::decode(reader)?;
        if dep.author == *author {
            return Err(DecodeError::NotCanonical {
                field: "dep on the author's own log",
            });
        }
        deps.push(dep);
    }
    let payload = reader.bounded("payload length", 0, 2 * MAX_PAYLOAD_BYTES as u64 + 1)?;
    let (payload_len, stub) = ((payload >> 1) as u32, payload & 1 == 1);
    if stub && payload_len == 0 {
        // An empty payload takes no bytes to hold; leaving it out would be a second encoding.
        return Err(DecodeError::NotCanonical {
            field: "stub of an empty payload",
        });
    }
    Ok(Facts {
        timestamp_ms,
        payload_len,
        body: 0,
        first_dep,
        deps: dep_count as u8,
        stub,
        kind,
        channel,
    })
}

fn check_distinct(channels: &[ChannelId]) -> Result<(), DecodeError> {
    let mut sorted: Vec<_> = channels.iter().collect();
    sorted.sort_unstable();
    if sorted.windows(2).any(|two| two[0] == two[1]) {
        return Err(DecodeError::NotCanonical {
            field: "channel table",
        });
    }
    Ok(())
}
