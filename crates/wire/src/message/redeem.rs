//! A holder of an invite asks a node of the owner for the roles in it.
//!
//! ```text
//! holder: Redeem ──▶ ◀── Redeemed, once the grants are durable
//! ```
//!
//! Every refusal is the same reset, whatever the reason.

use super::{Body, FrameWriter};
use crate::{
    codec::{Decode, DecodeError, Encode, Put, Reader},
    ids::{AuthorId, Signature},
    invite::{AuthorProof, Invite},
};

/// "This invite is mine: grant me what it says."
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redeem {
    /// Chosen by the holder.
    pub request_id: u64,
    /// The invite.
    pub invite: Invite,
    /// Who is to write, by their own word, if the invite says so.
    pub author: Option<AuthorProof>,
    /// The one-use key's signature over the asking node and the author; see
    /// [`Invitation::prove`](crate::Invitation::prove).
    pub proof: Signature,
}

impl Redeem {
    /// Who is to write, proven or not.
    pub fn author(&self) -> Option<&AuthorId> {
        self.author.as_ref().map(|proof| &proof.author)
    }
}

impl Body for Redeem {
    fn write(&self, frame: &mut FrameWriter) {
        let out = &mut frame.owned;
        self.invite.encode(out);
        out.put_option(self.author.as_ref());
        self.proof.encode(out);
    }

    fn read(request_id: u64, reader: &mut Reader) -> Result<Self, DecodeError> {
        Ok(Self {
            request_id,
            invite: Invite::decode(reader)?,
            author: reader.option("author", AuthorProof::decode)?,
            proof: Signature::decode(reader)?,
        })
    }
}

/// The grants are in the owner's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redeemed {
    /// The request.
    pub request_id: u64,
}

impl Body for Redeemed {
    fn write(&self, _frame: &mut FrameWriter) {}

    fn read(request_id: u64, _reader: &mut Reader) -> Result<Self, DecodeError> {
        Ok(Self { request_id })
    }
}
