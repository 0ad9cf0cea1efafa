//! From claims to facts: N hashes and one signature check.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use super::Run;
use crate::{
    event::{ChannelId, Event, kind},
    heads::{AuthorHead, SignedHead},
    ids::{AuthorId, EventId, Signature, SpaceId},
    key::AuthorKeyError,
    limits::GENESIS_NONCE_BYTES,
};

/// A run does not prove itself. The sender is at fault; nothing of the run may be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// The author is no usable key.
    #[error(transparent)]
    AuthorKey(#[from] AuthorKeyError),
    /// The signature is not the author's over the last event's id in this space.
    #[error("run of {author} up to {last_seq}: wrong signature")]
    WrongSignature {
        /// The author.
        author: AuthorId,
        /// Seq of the signed event.
        last_seq: u64,
    },
    /// A genesis event stands elsewhere than first in a log, or is not of a genesis' form.
    #[error("event {seq} of {author} is of kind 0 and no genesis")]
    StrayGenesis {
        /// The author.
        author: AuthorId,
        /// Where it stands.
        seq: u64,
    },
    /// A payload is left out where none may be: anywhere but in what proves a fork, or what an owner
    /// who forks has revoked.
    #[error("run of {author}: the payload of event {seq} is left out")]
    Stripped {
        /// The author.
        author: AuthorId,
        /// Seq of the first event without its payload.
        seq: u64,
    },
    /// A genesis event of another space.
    #[error("genesis of space {found} in space {expected}")]
    ForeignGenesis {
        /// The space the run was verified for.
        expected: SpaceId,
        /// The space the genesis founds.
        found: SpaceId,
    },
}

/// A run whose every event is authenticated by the author's signature, and belongs to a space.
/// Clones are cheap: they share the run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedRun(Arc<Verified>);

#[derive(Debug, PartialEq, Eq)]
struct Verified {
    run: Run,
    space: SpaceId,
    ids: Vec<EventId>,
}

impl Run {
    /// Hashes the chain from the stated `first_prev` and checks the one signature.
    ///
    /// Whether the run goes on from a head somebody holds is not asked here: a valid signature
    /// over another chain is a fork, not a bad peer.
    ///
    /// # Errors
    ///
    /// If the signature or a genesis event in the run is not what it claims.
    pub fn verify(self, space: &SpaceId) -> Result<VerifiedRun, RunError> {
        self.check_genesis()?;
        let ids = self.event_ids(space);
        let verified = VerifiedRun::trusted(self, *space, ids);
        let run = verified.run();
        if verified.starts_with_kind_zero() && !verified.is_genesis() {
            return Err(RunError::ForeignGenesis {
                expected: *space,
                found: SpaceId::from_bytes(*verified.first_id().as_bytes()),
            });
        }
        if !verified.signed_head().verify()? {
            return Err(RunError::WrongSignature {
                author: run.author,
                last_seq: run.last_seq(),
            });
        }
        Ok(verified)
    }

    /// Kind 0 stands at seq 1 only, without deps or channel, with a nonce as payload.
    fn check_genesis(&self) -> Result<(), RunError> {
        for (at, facts) in self.facts.iter().enumerate() {
            let seq = self.first_seq + at as u64;
            let formed = seq == 1
                && facts.deps == 0
                && facts.channel == 0
                && facts.payload_len as usize == GENESIS_NONCE_BYTES;
            if facts.kind == kind::GENESIS && !formed {
                return Err(RunError::StrayGenesis {
                    author: self.author,
                    seq,
                });
            }
        }
        Ok(())
    }
}

impl VerifiedRun {
    /// For runs signed here, and parts of verified runs.
    pub(super) fn trusted(run: Run, space: SpaceId, ids: Vec<EventId>) -> Self {
        Self(Arc::new(Verified { run, space, ids }))
    }

    /// The same run under a signature made for it.
    pub(super) fn signed(self, signature: Signature) -> Self {
        let space = self.0.space;
        let ids = self.0.ids.clone();
        let mut run = self.into_run();
        let mut bytes = BytesMut::from(run.bytes);
        let at = bytes.len().saturating_sub(Signature::LEN);
        bytes.truncate(at);
        bytes.extend_from_slice(signature.as_bytes());
        run.bytes = bytes.freeze();
        run.signature = signature;
        Self::trusted(run, space, ids)
    }

    /// The same run in memory of its own. A decoded run shares the frame it came in, and so keeps
    /// all of it alive: whoever keeps a small run for long keeps a detached one.
    #[must_use]
    pub fn detached(&self) -> Self {
        let Verified { run, space, ids } = &*self.0;
        let run = Run {
            bytes: Bytes::copy_from_slice(&run.bytes),
            channels: run.channels.iter().map(ChannelId::detached).collect(),
            ..run.clone()
        };
        Self::trusted(run, *space, ids.clone())
    }

    /// The run.
    pub fn run(&self) -> &Run {
        &self.0.run
    }

    /// The run, without the proof of having been verified.
    pub fn into_run(self) -> Run {
        Arc::try_unwrap(self.0).map_or_else(|shared| shared.run.clone(), |only| only.run)
    }

    /// The space it was verified for.
    pub fn space(&self) -> SpaceId {
        self.0.space
    }

    /// Whose log it belongs to.
    pub fn author(&self) -> AuthorId {
        self.0.run.author
    }

    /// Seq of the first event.
    pub fn first_seq(&self) -> u64 {
        self.0.run.first_seq
    }

    /// Seq of the last event.
    pub fn last_seq(&self) -> u64 {
        self.0.run.last_seq()
    }

    /// The event before the first; `None` exactly if the first is the log's first.
    pub fn base(&self) -> Option<AuthorHead> {
        self.0.run.base()
    }

    /// The last event: the head of a log that ends in this run.
    pub fn head(&self) -> AuthorHead {
        AuthorHead {
            seq: self.last_seq(),
            id: self.0.ids.last().copied().unwrap_or(self.first_id()),
        }
    }

    /// The last event with its signature.
    pub fn signed_head(&self) -> SignedHead {
        SignedHead {
            author: self.author(),
            space: self.0.space,
            head: self.head(),
            signature: self.0.run.signature,
        }
    }

    /// Every event's id, in order.
    pub fn ids(&self) -> &[EventId] {
        &self.0.ids
    }

    /// Id of the event at `seq`; `None` outside the run.
    pub fn id_at(&self, seq: u64) -> Option<EventId> {
        self.0.ids.get(self.0.run.index_of(seq)?).copied()
    }

    /// Every event, in order.
    pub fn events(&self) -> impl Iterator<Item = Event> + use<'_> {
        let Verified { run, space, ids } = &*self.0;
        ids.iter().enumerate().filter_map(move |(index, id)| {
            let prev = match index {
                0 => run.first_prev,
                _ => ids.get(index - 1).copied(),
            };
            run.event(space, index, prev, *id)
        })
    }

    /// Whether the run begins with the space's genesis event, so that its author is the owner.
    pub fn is_genesis(&self) -> bool {
        self.starts_with_kind_zero() && self.first_id().as_bytes() == self.0.space.as_bytes()
    }

    /// The events above `seq` as a run of their own under the same signature. `None` if
    /// nothing would be left; the run itself if it begins above `seq`.
    pub fn above(&self, seq: u64) -> Option<Self> {
        let Verified { run, space, ids } = &*self.0;
        if seq >= run.last_seq() {
            return None;
        }
        let Some(index) = run.index_of(seq) else {
            return Some(self.clone());
        };
        let from = index + 1;
        let rest = run.recut(from, ids.get(index).copied(), |_| true);
        let ids = ids.get(from..).unwrap_or_default().to_vec();
        Some(Self::trusted(rest, *space, ids))
    }

    /// The same run with every payload left out; see [`Run::with_stubs`].
    #[must_use]
    pub fn as_stubs(&self) -> Self {
        let Verified { run, space, ids } = &*self.0;
        Self::trusted(run.with_stubs(|_| false), *space, ids.clone())
    }

    fn first_id(&self) -> EventId {
        // A run holds at least one event, so it has at least one id.
        self.0
            .ids
            .first()
            .copied()
            .unwrap_or(EventId::from_bytes([0; 32]))
    }

    fn starts_with_kind_zero(&self) -> bool {
        let first = self.0.run.facts.first();
        first.is_some_and(|first| first.kind == kind::GENESIS)
    }
}
