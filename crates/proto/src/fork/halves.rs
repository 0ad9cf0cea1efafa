//! The two halves of a proof as they arrive, one branch a message, and then none.

use bytes::Bytes;
use headwater_wire::{AuthorId, ForkProof, Run};

use super::KnownFork;
use crate::SessionError;

/// A peer's lowest proof, as far as it has come.
#[derive(Debug, Default)]
pub(super) struct Halves {
    first: Option<Run>,
    second: Option<Run>,
}

/// What one more branch comes to.
#[derive(Debug)]
pub(super) enum Told {
    /// More will follow.
    More,
    /// The peer has no proof, and has not claimed to have one.
    Nothing,
    /// Its lowest. It is not verified.
    Proof(Box<KnownFork>),
}

impl Halves {
    /// Takes the next half, or that none follows. `claimed` is whether the peer has said that it
    /// holds a proof.
    pub(super) fn take(
        &mut self,
        branch: Option<Bytes>,
        author: AuthorId,
        claimed: bool,
    ) -> Result<Told, SessionError> {
        let missing = SessionError::ForkProofMissing { author };
        match (branch, self.first.take(), self.second.take()) {
            (None, None, _) if claimed => Err(missing),
            (None, None, _) => Ok(Told::Nothing),
            (None, Some(_), None) => Err(missing),
            (None, Some(first), Some(second)) => Ok(Told::Proof(Box::new(KnownFork {
                seq: first.first_seq().min(second.first_seq()),
                proof: ForkProof::new(first, second),
            }))),
            (Some(_), _, Some(_)) => Err(SessionError::OutOfPhase {
                message: "ForkBranch",
                phase: "awaiting the end of a proof",
            }),
            (Some(bytes), first, None) => {
                let run = Some(read_branch(bytes, author)?);
                match first {
                    None => self.first = run,
                    first => (self.first, self.second) = (first, run),
                }
                Ok(Told::More)
            }
        }
    }
}

/// Decodes a run of this author.
pub(super) fn read_branch(bytes: Bytes, author: AuthorId) -> Result<Run, SessionError> {
    let run = Run::decode(bytes).map_err(SessionError::RunDecode)?;
    let found = run.author();
    if found != author {
        return Err(SessionError::ForeignBranch {
            expected: author,
            found,
        });
    }
    Ok(run)
}

/// Decodes a run of this author that begins at this seq.
pub(super) fn read_branch_at(
    bytes: Bytes,
    author: AuthorId,
    seq: u64,
) -> Result<Run, SessionError> {
    let run = read_branch(bytes, author)?;
    let found = run.first_seq();
    if found != seq {
        return Err(SessionError::BranchStart {
            author,
            expected: seq,
            found,
        });
    }
    Ok(run)
}
