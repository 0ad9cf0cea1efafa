//! Heads: who stands where, and how two chains compare.

use crate::{
    codec::{Decode, DecodeError, Encode, Put, Reader},
    ids::{AuthorId, EventId, RevokedDigest, Signature, SpaceId},
    key::{AuthorKeyError, AuthorSecret},
    limits::MAX_SEQ,
};

/// The last event of one log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub struct AuthorHead {
    /// Its position, from 1.
    pub seq: u64,
    /// Its id.
    pub id: EventId,
}

impl AuthorHead {
    /// The head of a log that shows no event: one that forked at its first. Stands in a
    /// [`ClockEntry`] that is `forked`, and nowhere else.
    pub const NONE: Self = Self {
        seq: 0,
        id: EventId::from_bytes([0; EventId::LEN]),
    };
}

impl Encode for AuthorHead {
    fn encode(&self, out: &mut Vec<u8>) {
        out.put_varint(self.seq);
        self.id.encode(out);
    }
}

impl Decode for AuthorHead {
    const MIN_BYTES: usize = 33;

    fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        Ok(Self {
            seq: reader.bounded("head seq", 1, MAX_SEQ)?,
            id: EventId::decode(reader)?,
        })
    }
}

/// One author's place in a clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ClockEntry {
    /// The author.
    pub author: AuthorId,
    /// The last event held and shown; [`AuthorHead::NONE`] only if `forked`.
    pub head: AuthorHead,
    /// Whether the author is known to have forked, so that the log is cut here.
    pub forked: bool,
    /// Of an owner's log that is `forked`: what revocations above the cut take away.
    /// [`RevokedDigest::NONE`] if they take nothing, and of every other log.
    pub revoked: RevokedDigest,
}

/// How an entry spells whether its log is cut.
mod cut {
    /// It is not.
    pub(super) const NONE: u8 = 0;
    /// It is, and nothing is revoked above.
    pub(super) const FORKED: u8 = 1;
    /// It is, and the digest of what is revoked above follows.
    pub(super) const REVOKED: u8 = 2;
}

impl ClockEntry {
    /// Everything but the author.
    pub(crate) fn encode_place(&self, out: &mut Vec<u8>) {
        self.head.encode(out);
        match (self.forked, self.revoked) {
            (false, _) => out.put_u8(cut::NONE),
            (true, RevokedDigest::NONE) => out.put_u8(cut::FORKED),
            (true, revoked) => {
                out.put_u8(cut::REVOKED);
                revoked.encode(out);
            }
        }
    }

    /// The rest of an author's entry.
    pub(crate) fn decode_place(author: AuthorId, reader: &mut Reader) -> Result<Self, DecodeError> {
        let head = AuthorHead {
            seq: reader.bounded("head seq", 0, MAX_SEQ)?,
            id: EventId::decode(reader)?,
        };
        let cut = reader.u8("forked")?;
        let forked = cut != cut::NONE;
        let revoked = match cut {
            cut::NONE | cut::FORKED => RevokedDigest::NONE,
            cut::REVOKED => RevokedDigest::decode(reader)?,
            found => {
                return Err(DecodeError::OutOfRange {
                    field: "forked",
                    found: found.into(),
                    min: cut::NONE.into(),
                    max: cut::REVOKED.into(),
                });
            }
        };
        if cut == cut::REVOKED && revoked == RevokedDigest::NONE {
            return Err(DecodeError::NotCanonical { field: "revoked" });
        }
        if head.seq == 0 && !(forked && head == AuthorHead::NONE) {
            return Err(DecodeError::NotCanonical { field: "head seq" });
        }
        Ok(Self {
            author,
            head,
            forked,
            revoked,
        })
    }
}

impl Encode for ClockEntry {
    fn encode(&self, out: &mut Vec<u8>) {
        self.author.encode(out);
        self.encode_place(out);
    }
}

impl Decode for ClockEntry {
    const MIN_BYTES: usize = AuthorId::MIN_BYTES + AuthorHead::MIN_BYTES + 1;

    fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        let author = AuthorId::decode(reader)?;
        Self::decode_place(author, reader)
    }
}

/// How our copy of a log relates to a head somebody else states.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChainOrder {
    /// Same head.
    Equal,
    /// We hold more, on the same chain.
    Ahead {
        /// How many events more.
        by: u64,
    },
    /// They hold more. Whether their chain goes on from ours shows when it arrives.
    Behind {
        /// How many events fewer.
        by: u64,
    },
    /// Our event at their seq is another one.
    Forked {
        /// A seq at which the two chains differ; the first such may be lower.
        seq: u64,
    },
}

/// Compares two copies of one log by their heads.
///
/// `our_id_at` looks up our event's id at the seq of their head; it is asked only if we hold
/// more than they do. If it knows none, the chains count as forked there: a log has no gaps.
pub fn compare_chains(
    ours: Option<&AuthorHead>,
    theirs: Option<&AuthorHead>,
    our_id_at: impl FnOnce(u64) -> Option<EventId>,
) -> ChainOrder {
    match (ours, theirs) {
        (None, None) => ChainOrder::Equal,
        (Some(ours), None) => ChainOrder::Ahead { by: ours.seq },
        (None, Some(theirs)) => ChainOrder::Behind { by: theirs.seq },
        (Some(ours), Some(theirs)) => {
            let seq = theirs.seq;
            if ours.seq < seq {
                return ChainOrder::Behind { by: seq - ours.seq };
            }
            let ours_there = if ours.seq == seq {
                Some(ours.id)
            } else {
                our_id_at(seq)
            };
            match (ours_there == Some(theirs.id), ours.seq - seq) {
                (false, _) => ChainOrder::Forked { seq },
                (true, 0) => ChainOrder::Equal,
                (true, by) => ChainOrder::Ahead { by },
            }
        }
    }
}

/// What a signature stands under: `context ‖ space ‖ author ‖ seq (u64 BE) ‖ id`.
const HEAD_CONTEXT: &[u8; 24] = b"headwater signed head v1";
const SIGNED_BYTES: usize = HEAD_CONTEXT.len() + 32 + 32 + 8 + 32;

/// A head with its author's signature: it proves itself, without the event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SignedHead {
    /// The author.
    pub author: AuthorId,
    /// The space.
    pub space: SpaceId,
    /// The event.
    pub head: AuthorHead,
    /// The author's signature; see [`SignedHead::verify`].
    pub signature: Signature,
}

impl SignedHead {
    /// Signs a head.
    pub fn sign(secret: &AuthorSecret, space: SpaceId, head: AuthorHead) -> Self {
        let author = secret.id();
        let signature = secret.sign(&signed_bytes(&space, &author, &head));
        Self {
            author,
            space,
            head,
            signature,
        }
    }

    /// Whether the author signed this head, by strict Ed25519 verification.
    ///
    /// # Errors
    ///
    /// If the author is no usable key.
    pub fn verify(&self) -> Result<bool, AuthorKeyError> {
        let message = signed_bytes(&self.space, &self.author, &self.head);
        self.author.verify(&message, &self.signature)
    }
}

fn signed_bytes(space: &SpaceId, author: &AuthorId, head: &AuthorHead) -> [u8; SIGNED_BYTES] {
    let mut message = [0; SIGNED_BYTES];
    let (context, rest) = message.split_at_mut(HEAD_CONTEXT.len());
    context.copy_from_slice(HEAD_CONTEXT);
    rest[..32].copy_from_slice(space.as_bytes());
    rest[32..64].copy_from_slice(author.as_bytes());
    rest[64..72].copy_from_slice(&head.seq.to_be_bytes());
    rest[72..].copy_from_slice(head.id.as_bytes());
    message
}

impl Encode for SignedHead {
    fn encode(&self, out: &mut Vec<u8>) {
        self.author.encode(out);
        self.space.encode(out);
        self.head.encode(out);
        self.signature.encode(out);
    }
}

impl Decode for SignedHead {
    const MIN_BYTES: usize = 32 + 32 + AuthorHead::MIN_BYTES + 64;

    fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        Ok(Self {
            author: AuthorId::decode(reader)?,
            space: SpaceId::decode(reader)?,
            head: AuthorHead::decode(reader)?,
            signature: Signature::decode(reader)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(seq: u64, id: u8) -> AuthorHead {
        AuthorHead {
            seq,
            id: EventId::from_bytes([id; 32]),
        }
    }

    #[test]
    fn chains_compare_as_equal_ahead_behind_or_forked() {
        let never = |_| panic!("asked for an id it did not need");
        let at_five = |id: u8| {
            move |seq| {
                assert_eq!(seq, 5);
                Some(EventId::from_bytes([id; 32]))
            }
        };
        assert_eq!(compare_chains(None, None, never), ChainOrder::Equal);
        assert_eq!(
            compare_chains(Some(&head(5, 1)), Some(&head(5, 1)), never),
            ChainOrder::Equal
        );
        assert_eq!(
            compare_chains(Some(&head(5, 1)), Some(&head(5, 2)), never),
            ChainOrder::Forked { seq: 5 }
        );
        assert_eq!(
            compare_chains(Some(&head(4, 1)), Some(&head(9, 2)), never),
            ChainOrder::Behind { by: 5 }
        );
        assert_eq!(
            compare_chains(Some(&head(9, 1)), Some(&head(5, 2)), at_five(2)),
            ChainOrder::Ahead { by: 4 }
        );
        assert_eq!(
            compare_chains(Some(&head(9, 1)), Some(&head(5, 2)), at_five(3)),
            ChainOrder::Forked { seq: 5 }
        );
        assert_eq!(
            compare_chains(None, Some(&head(5, 2)), never),
            ChainOrder::Behind { by: 5 }
        );
        assert_eq!(
            compare_chains(Some(&head(5, 2)), None, never),
            ChainOrder::Ahead { by: 5 }
        );
    }

    #[test]
    fn a_signed_head_proves_itself_and_nothing_else() {
        let secret = AuthorSecret::from_bytes([3; 32]);
        let signed = SignedHead::sign(&secret, SpaceId::from_bytes([1; 32]), head(8, 4));
        assert_eq!(signed.verify(), Ok(true));
        let mut other = signed;
        other.space = SpaceId::from_bytes([2; 32]);
        assert_eq!(other.verify(), Ok(false));
        let mut other = signed;
        other.head.seq = 9;
        assert_eq!(other.verify(), Ok(false));
        let mut other = signed;
        other.author = AuthorSecret::from_bytes([4; 32]).id();
        assert_eq!(other.verify(), Ok(false));
    }
}
