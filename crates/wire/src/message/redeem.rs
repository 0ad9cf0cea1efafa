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
    invite::Invite,
};

/// "This invite is mine: grant me what it says."
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redeem {
    /// Chosen by the holder.
    pub request_id: u64,
    /// The invite.
    pub invite: Invite,
    /// Who is to write, if the invite says so.
    pub author: Option<AuthorId>,
    /// The one-use key's signature over the asking node and the author; see
    /// [`Invitation::prove`](crate::Invitation::prove).
    pub proof: Signature,
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
            author: reader.option("author", AuthorId::decode)?,
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
