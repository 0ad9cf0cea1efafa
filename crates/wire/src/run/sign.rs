//! From drafts to signed runs: one signature a run.

use super::{
    Run, VerifiedRun,
    encode::{Body, Encoder, Row},
};
use crate::{
    event::{EventDraft, EventRef, Kind, kind},
    heads::{AuthorHead, SignedHead},
    ids::{AuthorId, EventId, Signature, SpaceId},
    key::AuthorSecret,
    limits::{
        GENESIS_NONCE_BYTES, MAX_DEPS, MAX_PAYLOAD_BYTES, MAX_RUN_EVENTS, MAX_SEQ, TARGET_RUN_BYTES,
    },
};

/// A draft cannot become an event. Nothing of the batch was signed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DraftError {
    /// The payload is too large; a larger body belongs into an iroh-blobs blob.
    #[error("draft {index}: payload of {found} bytes, {MAX_PAYLOAD_BYTES} allowed")]
    PayloadTooLarge {
        /// Which draft of the batch, from 0.
        index: usize,
        /// Its payload's length.
        found: usize,
    },
    /// Too many references.
    #[error("draft {index}: {found} references, {MAX_DEPS} allowed")]
    TooManyDeps {
        /// Which draft of the batch, from 0.
        index: usize,
        /// How many it has.
        found: usize,
    },
    /// A reference to the author's own log, or to no possible seq.
    #[error("draft {index}: {author} at {seq} cannot be referred to")]
    BadDep {
        /// Which draft of the batch, from 0.
        index: usize,
        /// Whose event.
        author: AuthorId,
        /// Which one.
        seq: u64,
    },
    /// The kind belongs to the protocol.
    #[error(
        "draft {index}: kind {found} is reserved, applications use {} and above",
        kind::FIRST_APPLICATION
    )]
    ReservedKind {
        /// Which draft of the batch, from 0.
        index: usize,
        /// The kind.
        found: Kind,
    },
    /// The log has reached the highest seq.
    #[error("draft {index}: the log is full")]
    LogFull {
        /// Which draft of the batch, from 0.
        index: usize,
    },
}

/// Signs drafts as the events after `base` (`None`: the log is empty), as few runs as the
/// limits of a run allow.
///
/// # Errors
///
/// The first draft that cannot be an event; nothing is signed then.
pub fn sign_runs(
    space: &SpaceId,
    secret: &AuthorSecret,
    base: Option<AuthorHead>,
    drafts: impl IntoIterator<Item = EventDraft>,
) -> Result<Vec<VerifiedRun>, DraftError> {
    let author = secret.id();
    let mut unsigned = Vec::new();
    let mut encoder = Encoder::new(author);
    for (index, draft) in drafts.into_iter().enumerate() {
        check(&author, index, &draft)?;
        let seq = base.map_or(0, |base| base.seq) + index as u64 + 1;
        if seq > MAX_SEQ {
            return Err(DraftError::LogFull { index });
        }
        let row = Row {
            deps: &draft.deps,
            timestamp_ms: draft.timestamp_ms,
            kind: draft.kind,
            channel: draft.channel.as_ref(),
            body: Body::Held(&draft.payload),
        };
        let mark = encoder.mark();
        encoder.push(&row);
        let full = encoder.event_count() > MAX_RUN_EVENTS || encoder.size() > TARGET_RUN_BYTES;
        if full && encoder.event_count() > 1 {
            encoder.rewind(&mark);
            unsigned.push(std::mem::replace(&mut encoder, Encoder::new(author)));
            encoder.push(&row);
        }
    }
    if encoder.event_count() > 0 {
        unsigned.push(encoder);
    }
    let mut head = base;
    let mut runs = Vec::with_capacity(unsigned.len());
    for encoder in unsigned {
        let unsigned = encoder
            .based_on(head)
            .finish(Signature::from_bytes([0; Signature::LEN]));
        let ids = unsigned.event_ids(space);
        let run = seal(*space, secret, unsigned, ids);
        head = Some(run.head());
        runs.push(run);
    }
    Ok(runs)
}

/// Signs the first event of a new space; [`VerifiedRun::space`] of the result is its id.
///
/// `nonce` must be random: it is what makes the space's id unique.
pub fn sign_genesis(
    secret: &AuthorSecret,
    nonce: [u8; GENESIS_NONCE_BYTES],
    timestamp_ms: u64,
) -> VerifiedRun {
    let mut encoder = Encoder::new(secret.id());
    encoder.push(&Row {
        deps: &[],
        timestamp_ms,
        kind: kind::GENESIS,
        channel: None,
        body: Body::Held(&nonce),
    });
    let unsigned = encoder.finish(Signature::from_bytes([0; Signature::LEN]));
    let ids = unsigned.event_ids(&SpaceId::ZERO);
    let id = ids.first().map_or([0; SpaceId::LEN], |id| *id.as_bytes());
    seal(SpaceId::from_bytes(id), secret, unsigned, ids)
}

/// Puts the signature over the last id into its place at the end of the run.
fn seal(space: SpaceId, secret: &AuthorSecret, unsigned: Run, ids: Vec<EventId>) -> VerifiedRun {
    let unsigned = VerifiedRun::trusted(unsigned, space, ids);
    let signature = SignedHead::sign(secret, space, unsigned.head()).signature;
    unsigned.signed(signature)
}

fn check(author: &AuthorId, index: usize, draft: &EventDraft) -> Result<(), DraftError> {
    if draft.kind < kind::FIRST_APPLICATION && !draft.is_known_control() {
        let found = draft.kind;
        return Err(DraftError::ReservedKind { index, found });
    }
    if draft.payload.len() > MAX_PAYLOAD_BYTES {
        let found = draft.payload.len();
        return Err(DraftError::PayloadTooLarge { index, found });
    }
    if draft.deps.len() > MAX_DEPS {
        let found = draft.deps.len();
        return Err(DraftError::TooManyDeps { index, found });
    }
    let impossible = |dep: &&EventRef| dep.author == *author || !(1..=MAX_SEQ).contains(&dep.seq);
    match draft.deps.iter().find(impossible) {
        Some(dep) => Err(DraftError::BadDep {
            index,
            author: dep.author,
            seq: dep.seq,
        }),
        None => Ok(()),
    }
}
