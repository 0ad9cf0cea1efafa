//! Two peers find where an author forked, and tell each other.
//!
//! ```text
//! asker: ForkLocator ──▶ ◀── ForkAnswer   until the first difference is known
//!        ForkBranch  ──▶ ◀── ForkBranch   each side's run from there: together, the proof
//!        ForkBranch… ──▶ ◀── ForkBranch…  the lowest proof each side knows, then nothing
//!                        ◀── ForkRevoked  of an owner's log: what the answerer knows to be
//!        ForkRevoked ──▶                  revoked above the cut, and the asker; behind that of the
//!        SyncBatchV2 ──▶ ◀── SyncBatchV2… other, each side's evidence of what the other lacks
//!        ForkWant    ──▶ ◀── SyncBatchV2… what the asker lacks below the cut
//! ```
//!
//! One stream speaks of one author.

use bytes::Bytes;

use super::{Body, FrameWriter, read_run};
use crate::{
    codec::{Decode, DecodeError, Encode, Put, Reader, check_ascending},
    heads::AuthorHead,
    ids::{AuthorId, SpaceId},
    limits::{MAX_LOCATOR_IDS, MAX_REVOKED_SUBJECTS, MAX_SEQ},
    roster::Revocation,
};

/// Ids of a log the two sides see differently. The first locator samples the whole log, at the
/// head and at head − 2^k; those that follow sample the range the last answer left open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForkLocator {
    /// Chosen by the asker; the same in all messages of the stream.
    pub request_id: u64,
    /// The space.
    pub space: SpaceId,
    /// Whose log.
    pub author: AuthorId,
    /// Whether the asker holds a proof that the author forked.
    pub forked: bool,
    /// At most 64, by ascending seq, of all the asker stored, shown or not.
    pub entries: Vec<AuthorHead>,
}

impl Body for ForkLocator {
    fn write(&self, frame: &mut FrameWriter) {
        let out = &mut frame.owned;
        self.space.encode(out);
        self.author.encode(out);
        out.put_bool(self.forked);
        out.put_list(&self.entries);
    }

    fn read(request_id: u64, reader: &mut Reader) -> Result<Self, DecodeError> {
        let space = SpaceId::decode(reader)?;
        let author = AuthorId::decode(reader)?;
        let forked = reader.bool("forked")?;
        let entries = reader.list::<AuthorHead>("locator", MAX_LOCATOR_IDS)?;
        check_ascending("locator", &entries, |entry| entry.seq)?;
        Ok(Self {
            request_id,
            space,
            author,
            forked,
            entries,
        })
    }
}

/// How a locator compares with what the answerer stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForkAnswer {
    /// The request.
    pub request_id: u64,
    /// Whether the answerer holds a proof that the author forked.
    pub forked: bool,
    /// Seq of the highest entry that is the answerer's as well; 0 if none is.
    pub same: u64,
    /// Seq of the lowest entry that is not, above `same`; `None` if the answerer's log ends below
    /// all that is left.
    pub differs: Option<u64>,
}

impl Body for ForkAnswer {
    fn write(&self, frame: &mut FrameWriter) {
        let out = &mut frame.owned;
        out.put_bool(self.forked);
        out.put_varint(self.same);
        out.put_bool(self.differs.is_some());
        if let Some(differs) = self.differs {
            out.put_varint(differs);
        }
    }

    fn read(request_id: u64, reader: &mut Reader) -> Result<Self, DecodeError> {
        let forked = reader.bool("forked")?;
        let same = reader.bounded("same", 0, MAX_SEQ - 1)?;
        let differs = reader.option("differs", |reader| {
            reader.bounded("differs", same + 1, MAX_SEQ)
        })?;
        Ok(Self {
            request_id,
            forked,
            same,
            differs,
        })
    }
}

/// A half of a proof, as stubs; or that none follows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForkBranch {
    /// The request.
    pub request_id: u64,
    /// An encoded run.
    pub run: Option<Bytes>,
}

impl Body for ForkBranch {
    fn write(&self, frame: &mut FrameWriter) {
        frame.owned.put_bool(self.run.is_some());
        if let Some(run) = &self.run {
            frame.put_run(run);
        }
    }

    fn read(request_id: u64, reader: &mut Reader) -> Result<Self, DecodeError> {
        Ok(Self {
            request_id,
            run: reader.option("branch", read_run)?,
        })
    }
}

/// What revocations above the cut of an owner's log take away, as far as the sender knows. Evidence
/// of what the receiver lacks of it follows, once the sender knows what that is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForkRevoked {
    /// The request.
    pub request_id: u64,
    /// One entry a subject, ascending. One more than [`MAX_REVOKED_SUBJECTS`] stand for everybody.
    pub held: Vec<Revocation>,
}

impl Body for ForkRevoked {
    fn write(&self, frame: &mut FrameWriter) {
        frame.owned.put_list(&self.held);
    }

    fn read(request_id: u64, reader: &mut Reader) -> Result<Self, DecodeError> {
        let held = reader.list::<Revocation>("revoked", MAX_REVOKED_SUBJECTS + 1)?;
        check_ascending("revoked", &held, |entry| entry.subject)?;
        Ok(Self { request_id, held })
    }
}

/// "Send me the events of this log that I lack below the cut."
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForkWant {
    /// The request.
    pub request_id: u64,
    /// Events above this seq.
    pub above: u64,
    /// Up to and including this one, above the former.
    pub through: u64,
}

impl Body for ForkWant {
    fn write(&self, frame: &mut FrameWriter) {
        frame.owned.put_varint(self.above);
        frame.owned.put_varint(self.through);
    }

    fn read(request_id: u64, reader: &mut Reader) -> Result<Self, DecodeError> {
        let above = reader.bounded("above", 0, MAX_SEQ - 1)?;
        Ok(Self {
            request_id,
            above,
            through: reader.bounded("through", above + 1, MAX_SEQ)?,
        })
    }
}
