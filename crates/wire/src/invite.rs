//! Invites: the owner's word that whoever holds a one-use key may ask for roles.
//!
//! ```text
//! owner ──▶ Invitation (invite + secret of its one-use key) ──ticket──▶ somebody
//! somebody ──▶ invite, proofs for their own keys ──▶ a node of the owner ──▶ Grant
//! ```
//!
//! The secret never travels to the owner's node: the proof is a signature by it over the node and
//! the author that ask, so nobody who sees one can use it for themselves. The author that is to
//! write signs, too: nobody is let in who did not ask for it.

use core::fmt;

use bytes::Bytes;

use crate::{
    codec::{Decode, DecodeError, Encode, Put, Reader},
    ids::{AuthorId, MemberKey, Signature, SpaceId},
    key::AuthorSecret,
    roster::Roles,
};

/// What the owner signs under:
/// `context ‖ space ‖ roles (1 byte) ‖ expires_ms (u64 BE) ‖ key`.
const INVITE_CONTEXT: &[u8; 19] = b"headwater invite v1";

/// What the one-use key signs under: `context ‖ space ‖ node ‖ 0`, or with an author
/// `context ‖ space ‖ node ‖ 1 ‖ author`.
const PROOF_CONTEXT: &[u8; 25] = b"headwater invite proof v1";

/// What the author who is to write signs under: `context ‖ space ‖ key of the invite ‖ node`.
const AUTHOR_CONTEXT: &[u8; 26] = b"headwater invite author v1";

/// The owner's word: whoever proves to hold `key`, once and in time, is granted `roles`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Invite {
    /// The space.
    pub space: SpaceId,
    /// What it grants: reading and providing to a node, writing to an author.
    pub roles: Roles,
    /// When it ends, in milliseconds since the Unix epoch, by the clock of the owner's node.
    pub expires_ms: u64,
    /// The public half of its one-use key.
    pub key: MemberKey,
    /// The owner's signature.
    pub signature: Signature,
}

/// An author's own word that it is to write by an invite, which a node asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AuthorProof {
    /// The author.
    pub author: AuthorId,
    /// Its signature over the invite and the node.
    pub signature: Signature,
}

/// An invite with the secret of its one-use key. Whoever sees it can use it.
#[derive(Clone)]
pub struct Invitation {
    invite: Invite,
    secret: AuthorSecret,
}

impl Invite {
    /// Whether `owner` signed it, by strict Ed25519 verification.
    pub fn is_signed_by(&self, owner: &AuthorId) -> bool {
        owner.verify(&self.signed_bytes(), &self.signature) == Ok(true)
    }

    /// Whether `proof` was made with the one-use key for this node and this author.
    pub fn is_proof(&self, proof: &Signature, node: &MemberKey, author: Option<&AuthorId>) -> bool {
        let message = proof_bytes(&self.space, node, author);
        let key = AuthorId::from_bytes(*self.key.as_bytes());
        key.verify(&message, proof) == Ok(true)
    }

    /// The proof that whoever asks at this node has the author's key.
    pub fn prove_author(&self, author: &AuthorSecret, node: &MemberKey) -> AuthorProof {
        AuthorProof {
            author: author.id(),
            signature: author.sign(&self.author_bytes(node)),
        }
    }

    /// Whether the author signed for this invite and this node, by strict Ed25519 verification.
    pub fn is_author_proof(&self, proof: &AuthorProof, node: &MemberKey) -> bool {
        let message = self.author_bytes(node);
        proof.author.verify(&message, &proof.signature) == Ok(true)
    }

    fn author_bytes(&self, node: &MemberKey) -> Vec<u8> {
        let mut message = AUTHOR_CONTEXT.to_vec();
        message.put(self.space.as_bytes());
        message.put(self.key.as_bytes());
        message.put(node.as_bytes());
        message
    }

    fn signed_bytes(&self) -> Vec<u8> {
        let mut message = INVITE_CONTEXT.to_vec();
        message.put(self.space.as_bytes());
        message.put_u8(self.roles.bits());
        message.put(&self.expires_ms.to_be_bytes());
        message.put(self.key.as_bytes());
        message
    }
}

fn proof_bytes(space: &SpaceId, node: &MemberKey, author: Option<&AuthorId>) -> Vec<u8> {
    let mut message = PROOF_CONTEXT.to_vec();
    message.put(space.as_bytes());
    message.put(node.as_bytes());
    message.put_option(author);
    message
}

impl Encode for Invite {
    fn encode(&self, out: &mut Vec<u8>) {
        self.space.encode(out);
        self.roles.encode(out);
        out.put_varint(self.expires_ms);
        self.key.encode(out);
        self.signature.encode(out);
    }
}

impl Decode for Invite {
    const MIN_BYTES: usize = 32 + 1 + 1 + 32 + 64;

    fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        Ok(Self {
            space: SpaceId::decode(reader)?,
            roles: Roles::decode(reader)?,
            expires_ms: reader.varint("expires")?,
            key: MemberKey::decode(reader)?,
            signature: Signature::decode(reader)?,
        })
    }
}

impl Encode for AuthorProof {
    fn encode(&self, out: &mut Vec<u8>) {
        self.author.encode(out);
        self.signature.encode(out);
    }
}

impl Decode for AuthorProof {
    const MIN_BYTES: usize = 32 + 64;

    fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        Ok(Self {
            author: AuthorId::decode(reader)?,
            signature: Signature::decode(reader)?,
        })
    }
}

impl Invitation {
    /// Signs an invite to a space of `owner`'s. `one_use` must be new and random.
    pub fn sign(
        owner: &AuthorSecret,
        space: SpaceId,
        roles: Roles,
        expires_ms: u64,
        one_use: AuthorSecret,
    ) -> Self {
        let mut invite = Invite {
            space,
            roles,
            expires_ms,
            key: one_use.id().into(),
            signature: Signature::from_bytes([0; Signature::LEN]),
        };
        invite.signature = owner.sign(&invite.signed_bytes());
        Self {
            invite,
            secret: one_use,
        }
    }

    /// What may be shown to anybody.
    pub fn invite(&self) -> &Invite {
        &self.invite
    }

    /// The proof that this node, for this author, holds the one-use key.
    pub fn prove(&self, node: &MemberKey, author: Option<&AuthorId>) -> Signature {
        self.secret
            .sign(&proof_bytes(&self.invite.space, node, author))
    }

    /// The bytes that go into a ticket: the invite, then the 32-byte seed of the one-use key.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(Invite::MIN_BYTES + 40);
        self.invite.encode(&mut out);
        out.put(&self.secret.to_bytes());
        out
    }

    /// Reads them back.
    ///
    /// # Errors
    ///
    /// Names the field that is wrong; the seed is, if it is not that of the invite's key.
    pub fn from_bytes(bytes: Bytes) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        let invite = Invite::decode(&mut reader)?;
        let secret = AuthorSecret::from_bytes(reader.array("one-use key")?);
        reader.finish("invitation")?;
        if MemberKey::from(secret.id()) != invite.key {
            let field = "one-use key";
            return Err(DecodeError::NotCanonical { field });
        }
        Ok(Self { invite, secret })
    }
}

impl fmt::Debug for Invitation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Invitation")
            .field("invite", &self.invite)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPACE: SpaceId = SpaceId::from_bytes([3; 32]);
    const NODE: MemberKey = MemberKey::from_bytes([4; 32]);

    fn owner() -> AuthorSecret {
        AuthorSecret::from_bytes([1; 32])
    }

    fn invitation() -> Invitation {
        let one_use = AuthorSecret::from_bytes([2; 32]);
        let roles = Roles::READ | Roles::WRITE;
        Invitation::sign(&owner(), SPACE, roles, 1_700_000_000_000, one_use)
    }

    #[test]
    fn every_field_is_under_the_owners_signature() {
        let invite = *invitation().invite();
        assert!(invite.is_signed_by(&owner().id()));
        let somebody = AuthorSecret::from_bytes([9; 32]).id();
        assert!(!invite.is_signed_by(&somebody));
        for changed in [
            Invite {
                space: SpaceId::from_bytes([4; 32]),
                ..invite
            },
            Invite {
                roles: Roles::ALL,
                ..invite
            },
            Invite {
                expires_ms: u64::MAX,
                ..invite
            },
            Invite {
                key: somebody.into(),
                ..invite
            },
        ] {
            assert!(!changed.is_signed_by(&owner().id()), "{changed:?}");
        }
    }

    #[test]
    fn a_proof_serves_the_node_and_the_author_it_was_made_for() {
        let invitation = invitation();
        let invite = invitation.invite();
        let (author, other) = (owner().id(), AuthorId::from_bytes([5; 32]));
        for stated in [None, Some(&author)] {
            let proof = invitation.prove(&NODE, stated);
            for tried in [None, Some(&author), Some(&other)] {
                assert_eq!(invite.is_proof(&proof, &NODE, tried), tried == stated);
            }
            let elsewhere = MemberKey::from_bytes([6; 32]);
            assert!(!invite.is_proof(&proof, &elsewhere, stated));
        }
    }

    #[test]
    fn an_authors_proof_serves_the_author_the_invite_and_the_node_it_was_made_for() {
        let invite = *invitation().invite();
        let author = AuthorSecret::from_bytes([7; 32]);
        let proof = invite.prove_author(&author, &NODE);
        assert!(invite.is_author_proof(&proof, &NODE));
        assert!(!invite.is_author_proof(&proof, &MemberKey::from_bytes([6; 32])));
        let of_another = AuthorProof {
            author: owner().id(),
            ..proof
        };
        assert!(!invite.is_author_proof(&of_another, &NODE));
        for other in [
            Invite {
                space: SpaceId::from_bytes([4; 32]),
                ..invite
            },
            Invite {
                key: owner().id().into(),
                ..invite
            },
        ] {
            assert!(!other.is_author_proof(&proof, &NODE), "{other:?}");
        }
    }

    #[test]
    fn no_signature_of_an_invite_passes_for_another_one_by_the_same_key() {
        // One key in every part: the owner's, the one-use key, the author and the node.
        let key = owner();
        let node = MemberKey::from(key.id());
        let invitation = Invitation::sign(&key, SPACE, Roles::ALL, 7, key.clone());
        let invite = invitation.invite();
        let by_author = invite.prove_author(&key, &node);
        let proofs = [
            invite.signature,
            invitation.prove(&node, None),
            invitation.prove(&node, Some(&key.id())),
            by_author.signature,
        ];
        for (at, signature) in proofs.into_iter().enumerate() {
            let forged = AuthorProof {
                signature,
                ..by_author
            };
            let renewed = Invite {
                signature,
                ..*invite
            };
            let taken_for = [
                renewed.is_signed_by(&key.id()),
                invite.is_proof(&signature, &node, None),
                invite.is_proof(&signature, &node, Some(&key.id())),
                invite.is_author_proof(&forged, &node),
            ];
            let expected: [bool; 4] = core::array::from_fn(|other| other == at);
            assert_eq!(taken_for, expected);
        }
    }

    #[test]
    fn a_weak_key_proves_nothing() {
        // The identity: with R the identity and S zero, the plain equation holds for every message.
        let mut weak = [0; 32];
        weak[0] = 1;
        let mut signature = [0; Signature::LEN];
        signature[0] = 1;
        let proof = AuthorProof {
            author: AuthorId::from_bytes(weak),
            signature: Signature::from_bytes(signature),
        };
        assert!(!invitation().invite().is_author_proof(&proof, &NODE));
    }

    #[test]
    fn an_invitation_reads_back_and_hides_its_secret() {
        let invitation = invitation();
        let bytes = invitation.to_bytes();
        let read = Invitation::from_bytes(bytes.clone().into()).unwrap();
        assert_eq!(read.invite(), invitation.invite());
        assert_eq!(read.to_bytes(), bytes);
        assert!(!format!("{invitation:?}").contains("secret"));
        for at in 0..bytes.len() {
            assert!(Invitation::from_bytes(bytes[..at].to_vec().into()).is_err());
        }
        let mut another = bytes;
        if let Some(last) = another.last_mut() {
            *last ^= 1;
        }
        assert!(Invitation::from_bytes(another.into()).is_err());
    }
}
