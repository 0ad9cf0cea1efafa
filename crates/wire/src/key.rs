//! Author keys: signing, and strict verification.
//!
//! Verification is ed25519-dalek's `verify_strict`: it refuses small-order keys and points,
//! non-canonical encodings and S ≥ L (the checks of RFC 8032 and those of
//! <https://eprint.iacr.org/2020/1244>), so two honest peers never disagree about a signature.

use core::fmt;

use ed25519_dalek::{Signer, SigningKey, VerifyingKey};

use crate::ids::{AuthorId, Signature};

/// An author id is not a key a signature may be checked against.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AuthorKeyError {
    /// The bytes are no point of the curve, or not its canonical form.
    #[error("author {author} is not an Ed25519 public key")]
    NotAPoint {
        /// The author.
        author: AuthorId,
    },
    /// The point has small order: signatures under it prove nothing.
    #[error("author {author} is a weak key")]
    Weak {
        /// The author.
        author: AuthorId,
    },
}

impl AuthorId {
    /// The public key behind the id.
    ///
    /// # Errors
    ///
    /// If the bytes are no canonical curve point, or one of small order.
    pub fn verifying_key(&self) -> Result<VerifyingKey, AuthorKeyError> {
        let key = Some(self)
            .filter(|author| author.is_canonical())
            .and_then(|author| VerifyingKey::from_bytes(author.as_bytes()).ok())
            .ok_or(AuthorKeyError::NotAPoint { author: *self })?;
        if key.is_weak() {
            return Err(AuthorKeyError::Weak { author: *self });
        }
        Ok(key)
    }

    /// Whether the y coordinate is below 2^255 − 19: a point whose y is below 19 has a second
    /// encoding, which decompression takes as well. (x = 0 with its sign set, the only other double
    /// encoding, is a point of small order.)
    fn is_canonical(&self) -> bool {
        let [lowest, middle @ .., highest] = self.as_bytes();
        *lowest < 0xed || highest & 0x7f != 0x7f || middle.iter().any(|byte| *byte != 0xff)
    }

    /// Whether `signature` is this author's over `message`.
    ///
    /// # Errors
    ///
    /// As [`AuthorId::verifying_key`]; a wrong signature is `Ok(false)`.
    pub fn verify(&self, message: &[u8], signature: &Signature) -> Result<bool, AuthorKeyError> {
        let signature = ed25519_dalek::Signature::from_bytes(signature.as_bytes());
        Ok(self
            .verifying_key()?
            .verify_strict(message, &signature)
            .is_ok())
    }
}

/// The secret half of an author key. Erased from memory when dropped.
#[derive(Clone)]
pub struct AuthorSecret(SigningKey);

impl AuthorSecret {
    /// The key from its 32-byte seed (RFC 8032, section 5.1.5). Take the seed from a
    /// cryptographic random source, and keep it on one device only.
    pub fn from_bytes(seed: [u8; 32]) -> Self {
        Self(SigningKey::from_bytes(&seed))
    }

    /// The seed.
    pub fn to_bytes(&self) -> [u8; 32] {
        self.0.to_bytes()
    }

    /// The public half.
    pub fn id(&self) -> AuthorId {
        AuthorId::from_bytes(self.0.verifying_key().to_bytes())
    }

    pub(crate) fn sign(&self, message: &[u8]) -> Signature {
        Signature::from_bytes(self.0.sign(message).to_bytes())
    }
}

impl fmt::Debug for AuthorSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AuthorSecret(of {})", self.id().fmt_short())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_order_keys_and_bytes_off_the_curve_are_refused() {
        // The identity, a point of order two, and one of order eight.
        for point in [
            "0100000000000000000000000000000000000000000000000000000000000000",
            "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
            "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
        ] {
            let author: AuthorId = point.parse().unwrap();
            assert_eq!(author.verifying_key(), Err(AuthorKeyError::Weak { author }));
        }
        let author = AuthorId::from_bytes([2; 32]);
        assert_eq!(
            author.verifying_key(),
            Err(AuthorKeyError::NotAPoint { author })
        );
    }

    #[test]
    fn a_second_encoding_of_a_point_is_refused() {
        let mut usable = 0;
        for y in 0..19u8 {
            for sign in [0, 0x80] {
                let mut bytes = [0; 32];
                bytes[0] = y;
                bytes[31] = sign;
                usable += usize::from(AuthorId::from_bytes(bytes).verifying_key().is_ok());
                // The same point by y + p.
                let mut bytes = [0xff; 32];
                bytes[0] = 0xed + y;
                bytes[31] = 0x7f | sign;
                let author = AuthorId::from_bytes(bytes);
                assert_eq!(
                    author.verifying_key(),
                    Err(AuthorKeyError::NotAPoint { author })
                );
            }
        }
        assert!(
            usable > 0,
            "none of them was refused for being written twice alone"
        );
    }

    #[test]
    fn a_signature_with_s_not_below_the_group_order_is_refused() {
        let secret = AuthorSecret::from_bytes([7; 32]);
        let good = secret.sign(b"message");
        assert_eq!(secret.id().verify(b"message", &good), Ok(true));
        assert_eq!(secret.id().verify(b"massage", &good), Ok(false));
        // S + L is the same number modulo L.
        let order: [u8; 32] = [
            0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9,
            0xde, 0x14, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
        ];
        let mut bytes = *good.as_bytes();
        let mut carry = 0u16;
        for (s, l) in bytes[32..].iter_mut().zip(order) {
            carry += u16::from(*s) + u16::from(l);
            *s = carry as u8;
            carry >>= 8;
        }
        let malleated = Signature::from_bytes(bytes);
        assert_eq!(secret.id().verify(b"message", &malleated), Ok(false));
    }
}
