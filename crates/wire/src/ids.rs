//! Fixed-size names: authors, spaces, events, hashes, signatures.
//!
//! Plain bytes. Whether an [`AuthorId`] is a usable key is decided where a signature is checked
//! ([`crate::AuthorId::verifying_key`]): a decompressed key costs microseconds, and a clock may
//! carry 100,000 of them.

use core::{fmt, str::FromStr};

use data_encoding::HEXLOWER_PERMISSIVE;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Text is not the hexadecimal form of an id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected {expected} hexadecimal digits, found {found:?}")]
pub struct ParseIdError {
    /// How many digits the id has.
    pub expected: usize,
    /// What stood there instead, cut to 80 characters.
    pub found: String,
}

fn parse_hex<const N: usize>(text: &str) -> Result<[u8; N], ParseIdError> {
    let mut bytes = [0; N];
    let parsed = text.len() == 2 * N
        && HEXLOWER_PERMISSIVE
            .decode_mut(text.as_bytes(), &mut bytes)
            .is_ok();
    parsed.then_some(bytes).ok_or_else(|| ParseIdError {
        expected: 2 * N,
        found: text.chars().take(80).collect(),
    })
}

struct BytesVisitor<const N: usize>;

impl<'de, const N: usize> de::Visitor<'de> for BytesVisitor<N> {
    type Value = [u8; N];

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{N} bytes")
    }

    fn visit_seq<A: de::SeqAccess<'de>>(self, mut seq: A) -> Result<[u8; N], A::Error> {
        let mut bytes = [0; N];
        for (at, byte) in bytes.iter_mut().enumerate() {
            *byte = seq
                .next_element()?
                .ok_or_else(|| de::Error::invalid_length(at, &self))?;
        }
        Ok(bytes)
    }
}

macro_rules! fixed_bytes {
    ($(#[$doc:meta])* $name:ident, $len:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; $len]);

        impl $name {
            /// Length in bytes.
            pub const LEN: usize = $len;

            /// Wraps the bytes as they are.
            pub const fn from_bytes(bytes: [u8; $len]) -> Self {
                Self(bytes)
            }

            /// The bytes.
            pub const fn as_bytes(&self) -> &[u8; $len] {
                &self.0
            }

            /// The first five bytes in hexadecimal, for log lines.
            pub fn fmt_short(&self) -> String {
                HEXLOWER_PERMISSIVE.encode(&self.0[..5])
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&HEXLOWER_PERMISSIVE.encode(&self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.fmt_short())
            }
        }

        /// Reads hexadecimal digits of either case.
        impl FromStr for $name {
            type Err = ParseIdError;

            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                parse_hex(text).map(Self)
            }
        }

        impl From<[u8; $len]> for $name {
            fn from(bytes: [u8; $len]) -> Self {
                Self(bytes)
            }
        }

        impl From<$name> for [u8; $len] {
            fn from(id: $name) -> Self {
                id.0
            }
        }

        /// Hexadecimal in formats for people, raw bytes in the others.
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                if serializer.is_human_readable() {
                    serializer.collect_str(self)
                } else {
                    use serde::ser::SerializeTuple;
                    let mut tuple = serializer.serialize_tuple($len)?;
                    for byte in &self.0 {
                        tuple.serialize_element(byte)?;
                    }
                    tuple.end()
                }
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                if deserializer.is_human_readable() {
                    String::deserialize(deserializer)?
                        .parse()
                        .map_err(de::Error::custom)
                } else {
                    deserializer
                        .deserialize_tuple($len, BytesVisitor::<$len>)
                        .map(Self)
                }
            }
        }
    };
}

fixed_bytes!(
    /// An Ed25519 public key that signs a log.
    ///
    /// A node's key may be an author; it need not be. One device, one author key: a person is
    /// several authors.
    AuthorId,
    32
);
fixed_bytes!(
    /// An Ed25519 public key that a roster or an invite names: a node's, an author's (one key may
    /// be both), or one made for a single use.
    MemberKey,
    32
);
fixed_bytes!(
    /// The hash of a sync request; see [`RequestHash::of`].
    RequestHash,
    32
);
fixed_bytes!(
    /// The set of logs under one genesis event: the id of that event.
    SpaceId,
    32
);
fixed_bytes!(
    /// Keyed BLAKE3 of an event's canonical header; see [`crate::LogKey`].
    EventId,
    32
);
fixed_bytes!(
    /// BLAKE3 of an event's payload.
    PayloadHash,
    32
);
fixed_bytes!(
    /// Root, or inner node, of the heads tree; see [`crate::tree`].
    HeadsDigest,
    32
);
fixed_bytes!(
    /// What revocations above the place where an owner's log forks take away; see
    /// [`crate::Revoked::digest`].
    RevokedDigest,
    32
);
fixed_bytes!(
    /// An Ed25519 signature (RFC 8032).
    Signature,
    64
);

impl HeadsDigest {
    /// Digest of a space nobody has written to: no authors.
    pub const EMPTY: Self = Self([0; 32]);
}

impl SpaceId {
    /// The zero space under which the id of a genesis event is computed.
    pub(crate) const ZERO: Self = Self([0; 32]);
}

impl PayloadHash {
    /// Hashes a payload.
    pub fn of(payload: &[u8]) -> Self {
        Self(*blake3::hash(payload).as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_reads_back_from_its_text_and_from_json() {
        let id = AuthorId::from_bytes([0xa7; 32]);
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!(id.to_string().to_uppercase().parse(), Ok(id));
        let json = serde_json::to_string(&id).unwrap();
        assert_eq!(serde_json::from_str::<AuthorId>(&json).unwrap(), id);
    }

    #[test]
    fn text_of_another_length_or_alphabet_is_refused_with_the_text() {
        let error = "abc".parse::<EventId>().unwrap_err();
        assert_eq!((error.expected, error.found.as_str()), (64, "abc"));
        assert!("g".repeat(64).parse::<EventId>().is_err());
        assert!("é".repeat(32).parse::<EventId>().is_err());
    }

    #[test]
    fn postcard_writes_the_bare_bytes() {
        let id = EventId::from_bytes([9; 32]);
        let bytes = postcard::to_allocvec(&id).unwrap();
        assert_eq!(bytes, [9; 32]);
        assert_eq!(postcard::from_bytes::<EventId>(&bytes).unwrap(), id);
    }
}
