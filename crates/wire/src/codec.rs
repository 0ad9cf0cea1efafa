//! Postcard's bytes, read strictly.
//!
//! ```text
//! value ──▶ Encode ──▶ bytes ──▶ Reader ──▶ Decode ──▶ value, or where it went wrong
//! ```
//!
//! The bytes are those of the postcard 1.0 wire format (<https://postcard.jamesmunns.com/>).
//! The reader is ours for four reasons: it refuses every encoding but the shortest, it never
//! reserves memory by a claimed count, it hands out slices of the input instead of copies, and
//! its errors name the field and the offset.
//!
//! Invariant: what decodes, encodes to the very bytes it came from.

use bytes::Bytes;

use crate::ids::{
    AuthorId, EventId, HeadsDigest, MemberKey, PayloadHash, RequestHash, RevokedDigest, Signature,
    SpaceId,
};

/// Bytes are not a message, a run, or a frame.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// The input ends inside a field.
    #[error("{field}: {needed} more bytes needed at offset {offset}")]
    Truncated {
        /// The field being read.
        field: &'static str,
        /// Where in the input it begins.
        offset: usize,
        /// How many bytes were missing at least.
        needed: usize,
    },
    /// A varint is longer than needed, or overflows its type.
    #[error("{field}: varint at offset {offset} is overlong or too large")]
    Varint {
        /// The field being read.
        field: &'static str,
        /// Where in the input it begins.
        offset: usize,
    },
    /// A number is outside what the field allows.
    #[error("{field}: {found} is outside {min}..={max}")]
    OutOfRange {
        /// The field being read.
        field: &'static str,
        /// What was read.
        found: u64,
        /// Least value allowed.
        min: u64,
        /// Greatest value allowed.
        max: u64,
    },
    /// A list is not in strictly ascending order, or names something twice.
    #[error("{field}: entry {index} does not ascend")]
    NotAscending {
        /// The list being read.
        field: &'static str,
        /// The first entry out of order.
        index: usize,
    },
    /// A value has several encodings and this is not the one allowed.
    #[error("{field}: not the canonical encoding")]
    NotCanonical {
        /// The field being read.
        field: &'static str,
    },
    /// Bytes are left over.
    #[error("{left} bytes after the end of {what}")]
    TrailingBytes {
        /// What was read.
        what: &'static str,
        /// How many bytes follow it.
        left: usize,
    },
    /// The length prefix of a frame is zero.
    #[error("empty frame")]
    EmptyFrame,
    /// The length prefix of a frame is above the limit.
    #[error("frame of {found} bytes, {max} allowed")]
    FrameTooLarge {
        /// The length stated.
        found: u64,
        /// The limit.
        max: usize,
    },
    /// A message's tag is unknown and not additive, so it cannot be skipped.
    #[error("unknown message tag {tag}")]
    UnknownTag {
        /// The tag.
        tag: u8,
    },
}

/// Reads fields off the front of a slice of shared bytes.
#[derive(Debug)]
pub(crate) struct Reader {
    input: Bytes,
    offset: usize,
}

impl Reader {
    pub(crate) fn new(input: Bytes) -> Self {
        Self { input, offset: 0 }
    }

    pub(crate) fn offset(&self) -> usize {
        self.offset
    }

    fn rest(&self) -> &[u8] {
        self.input.get(self.offset..).unwrap_or_default()
    }

    pub(crate) fn remaining(&self) -> usize {
        self.rest().len()
    }

    fn take(&mut self, field: &'static str, len: usize) -> Result<&[u8], DecodeError> {
        let (offset, have) = (self.offset, self.remaining());
        if have < len {
            return Err(DecodeError::Truncated {
                field,
                offset,
                needed: len - have,
            });
        }
        self.offset += len;
        Ok(&self.input[offset..offset + len])
    }

    pub(crate) fn u8(&mut self, field: &'static str) -> Result<u8, DecodeError> {
        Ok(self.take(field, 1)?[0])
    }

    /// A LEB128 varint of at most 64 bits, shortest form only.
    #[inline]
    pub(crate) fn varint(&mut self, field: &'static str) -> Result<u64, DecodeError> {
        let offset = self.offset;
        let mut value = 0u64;
        for (at, &byte) in self.rest().iter().take(10).enumerate() {
            let bits = u64::from(byte & 0x7f);
            if at == 9 && bits > 1 {
                return Err(DecodeError::Varint { field, offset });
            }
            value |= bits << (7 * at);
            if byte & 0x80 == 0 {
                if byte == 0 && at > 0 {
                    return Err(DecodeError::Varint { field, offset });
                }
                self.offset += at + 1;
                return Ok(value);
            }
        }
        if self.remaining() >= 10 {
            Err(DecodeError::Varint { field, offset })
        } else {
            Err(DecodeError::Truncated {
                field,
                offset,
                needed: 1,
            })
        }
    }

    /// A varint between two bounds, both inclusive.
    pub(crate) fn bounded(
        &mut self,
        field: &'static str,
        min: u64,
        max: u64,
    ) -> Result<u64, DecodeError> {
        let found = self.varint(field)?;
        if (min..=max).contains(&found) {
            Ok(found)
        } else {
            Err(DecodeError::OutOfRange {
                field,
                found,
                min,
                max,
            })
        }
    }

    /// The count of a list: at most `max`, and no more than the bytes left could hold.
    pub(crate) fn count(
        &mut self,
        field: &'static str,
        max: usize,
        min_entry_bytes: usize,
    ) -> Result<usize, DecodeError> {
        let count = self.bounded(field, 0, max as u64)? as usize;
        let needed = count.saturating_mul(min_entry_bytes);
        let have = self.remaining();
        if needed > have {
            return Err(DecodeError::Truncated {
                field,
                offset: self.offset,
                needed: needed - have,
            });
        }
        Ok(count)
    }

    /// A slice of the input, not copied.
    pub(crate) fn bytes(&mut self, field: &'static str, len: usize) -> Result<Bytes, DecodeError> {
        let offset = self.offset;
        self.take(field, len)?;
        Ok(self.input.slice(offset..offset + len))
    }

    /// Passes over bytes that are read later, by their offset.
    pub(crate) fn skip(&mut self, field: &'static str, len: usize) -> Result<(), DecodeError> {
        self.take(field, len).map(|_| ())
    }

    /// A length and that many bytes, not copied.
    pub(crate) fn byte_string(
        &mut self,
        field: &'static str,
        min: usize,
        max: usize,
    ) -> Result<Bytes, DecodeError> {
        let len = self.bounded(field, min as u64, max as u64)? as usize;
        self.bytes(field, len)
    }

    pub(crate) fn array<const N: usize>(
        &mut self,
        field: &'static str,
    ) -> Result<[u8; N], DecodeError> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(field, N)?);
        Ok(array)
    }

    /// Zero or one, nothing else.
    pub(crate) fn bool(&mut self, field: &'static str) -> Result<bool, DecodeError> {
        match self.u8(field)? {
            0 => Ok(false),
            1 => Ok(true),
            found => Err(DecodeError::OutOfRange {
                field,
                found: found.into(),
                min: 0,
                max: 1,
            }),
        }
    }

    /// An option: a byte, then the value if the byte is one.
    pub(crate) fn option<T>(
        &mut self,
        field: &'static str,
        read: impl FnOnce(&mut Self) -> Result<T, DecodeError>,
    ) -> Result<Option<T>, DecodeError> {
        Ok(if self.bool(field)? {
            Some(read(self)?)
        } else {
            None
        })
    }

    /// A list of at most `max` values.
    pub(crate) fn list<T: Decode>(
        &mut self,
        field: &'static str,
        max: usize,
    ) -> Result<Vec<T>, DecodeError> {
        let count = self.count(field, max, T::MIN_BYTES)?;
        (0..count).map(|_| T::decode(self)).collect()
    }

    pub(crate) fn finish(self, what: &'static str) -> Result<(), DecodeError> {
        match self.remaining() {
            0 => Ok(()),
            left => Err(DecodeError::TrailingBytes { what, left }),
        }
    }
}

/// Refuses a list whose keys do not strictly ascend.
pub(crate) fn check_ascending<T, K: Ord>(
    field: &'static str,
    list: &[T],
    key: impl Fn(&T) -> K,
) -> Result<(), DecodeError> {
    match list.windows(2).position(|two| key(&two[0]) >= key(&two[1])) {
        None => Ok(()),
        Some(at) => Err(DecodeError::NotAscending {
            field,
            index: at + 1,
        }),
    }
}

/// Appends fields to a buffer in postcard's encoding.
pub(crate) trait Put {
    fn put(&mut self, bytes: &[u8]);
    fn put_option<T: Encode>(&mut self, value: Option<&T>);
    fn put_list<T: Encode>(&mut self, list: &[T]);

    fn put_u8(&mut self, value: u8) {
        self.put(&[value]);
    }

    #[inline]
    fn put_varint(&mut self, mut value: u64) {
        let mut buffer = [0; 10];
        let mut len = 0;
        while value >= 0x80 {
            buffer[len] = value as u8 | 0x80;
            value >>= 7;
            len += 1;
        }
        buffer[len] = value as u8;
        self.put(&buffer[..=len]);
    }

    fn put_bool(&mut self, value: bool) {
        self.put_u8(value.into());
    }

    fn put_byte_string(&mut self, bytes: &[u8]) {
        self.put_varint(bytes.len() as u64);
        self.put(bytes);
    }
}

impl Put for Vec<u8> {
    #[inline]
    fn put(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }

    fn put_option<T: Encode>(&mut self, value: Option<&T>) {
        self.put_bool(value.is_some());
        if let Some(value) = value {
            value.encode(self);
        }
    }

    fn put_list<T: Encode>(&mut self, list: &[T]) {
        self.put_varint(list.len() as u64);
        for value in list {
            value.encode(self);
        }
    }
}

/// A value with one encoding.
pub(crate) trait Encode {
    fn encode(&self, out: &mut Vec<u8>);
}

/// A value read back, strictly.
pub(crate) trait Decode: Sized {
    /// The fewest bytes an encoded value takes; bounds what a claimed count can reserve.
    const MIN_BYTES: usize;

    fn decode(reader: &mut Reader) -> Result<Self, DecodeError>;
}

macro_rules! fixed_codec {
    ($($name:ident),*) => {$(
        impl Encode for $name {
            fn encode(&self, out: &mut Vec<u8>) {
                out.put(self.as_bytes());
            }
        }

        impl Decode for $name {
            const MIN_BYTES: usize = $name::LEN;

            fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
                reader.array(stringify!($name)).map(Self::from_bytes)
            }
        }
    )*};
}

fixed_codec!(
    AuthorId,
    MemberKey,
    RequestHash,
    SpaceId,
    EventId,
    PayloadHash,
    HeadsDigest,
    RevokedDigest,
    Signature
);

impl Encode for u64 {
    fn encode(&self, out: &mut Vec<u8>) {
        out.put_varint(*self);
    }
}

impl Decode for u64 {
    const MIN_BYTES: usize = 1;

    fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        reader.varint("number")
    }
}

impl Encode for u16 {
    fn encode(&self, out: &mut Vec<u8>) {
        out.put_varint((*self).into());
    }
}

impl Decode for u16 {
    const MIN_BYTES: usize = 1;

    fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        let found = reader.bounded("number", 0, u16::MAX.into())?;
        Ok(found as u16)
    }
}

/// Maps a signed difference to an unsigned number, small ones first (postcard's zigzag).
pub(crate) fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)).cast_unsigned()
}

/// Inverse of [`zigzag`].
pub(crate) fn unzigzag(value: u64) -> i64 {
    (value >> 1).cast_signed() ^ -(value & 1).cast_signed()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(bytes: &[u8]) -> Result<u64, DecodeError> {
        let mut reader = Reader::new(Bytes::copy_from_slice(bytes));
        let value = reader.varint("n")?;
        reader.finish("n")?;
        Ok(value)
    }

    #[test]
    fn overlong_and_overflowing_varints_are_refused() {
        for bad in [
            &[0x80, 0x00][..],
            &[0xff, 0x80, 0x00],
            &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02],
            &[0x80; 11],
        ] {
            assert!(
                matches!(read(bad), Err(DecodeError::Varint { .. })),
                "{bad:?}"
            );
        }
        assert!(matches!(read(&[0x80]), Err(DecodeError::Truncated { .. })));
        assert_eq!(
            read(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01]),
            Ok(u64::MAX)
        );
    }

    #[test]
    fn a_count_the_bytes_cannot_hold_is_refused_before_anything_is_reserved() {
        let mut reader = Reader::new(Bytes::from_static(&[0xff, 0x07, 1, 2, 3]));
        assert!(matches!(
            reader.list::<AuthorId>("authors", 1024),
            Err(DecodeError::Truncated { .. })
        ));
    }

    proptest! {
        #[test]
        fn varints_are_postcards_and_round_trip(value: u64) {
            let mut ours = Vec::new();
            ours.put_varint(value);
            prop_assert_eq!(&ours, &postcard::to_allocvec(&value).unwrap());
            prop_assert_eq!(read(&ours), Ok(value));
        }

        #[test]
        fn zigzag_is_postcards_and_round_trips(value: i64) {
            let mut ours = Vec::new();
            ours.put_varint(zigzag(value));
            prop_assert_eq!(ours, postcard::to_allocvec(&value).unwrap());
            prop_assert_eq!(unzigzag(zigzag(value)), value);
        }
    }
}
