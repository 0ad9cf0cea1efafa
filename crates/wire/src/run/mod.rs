//! Runs: consecutive events of one author, closed by one signature.
//!
//! ```text
//! drafts ──▶ sign_runs ──▶ VerifiedRun ──▶ store, wire
//! bytes ──▶ Run::decode ──▶ Run ──▶ Run::verify(space) ──▶ VerifiedRun
//! ```
//!
//! Every header commits to the one before through `prev`, so a valid signature on the last
//! event authenticates every event of the run: N events cost N hashes and one signature check.
//! Interior signatures are neither sent, stored nor checked. The run is the unit of signing,
//! of the wire, of storage and of verification.
//!
//! Layout (varints are postcard's; `docs/protocol.md` draws it):
//!
//! ```text
//! author · first_seq · first_prev (if first_seq > 1) · event count
//! channel table: count, then names in order of first use
//! one row an event: timestamp (the first absolute, then zigzag deltas) · kind ·
//!     channel (0 none, else index + 1) · deps · payload length × 2 + stub bit
//! one body an event: the payload, or a stub's payload hash
//! signature
//! ```
//!
//! Invariant: whatever is cut off a run, or turned to stubs in it, decodes again. So what counts
//! against [`MAX_RUN_BYTES`] is the *full length*: every timestamp at its longest, every body as
//! payload or hash, whichever is longer, and the fixed part at its longest.
//!
//! Invariant: a run has exactly one encoding. [`Run::decode`] refuses any other, so a flipped
//! bit fails the decoding, the hash chain or the signature.

mod decode;
mod encode;
mod evidence;
mod lookup;
mod sign;
mod verify;

pub use sign::{DraftError, sign_genesis, sign_runs};
pub use verify::{RunError, VerifiedRun};

use bytes::Bytes;

use crate::{
    event::{ChannelId, Event, EventRef, Header, HeaderFacts, Kind, LogKey, kind},
    heads::AuthorHead,
    ids::{AuthorId, EventId, PayloadHash, Signature, SpaceId},
    limits::{MAX_RUN_BYTES, MAX_RUN_EVENTS},
};
use encode::{Body, Encoder, Row};

/// A decoded run nobody has verified: its events are claims.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    bytes: Bytes,
    author: AuthorId,
    first_seq: u64,
    first_prev: Option<EventId>,
    channels: Vec<ChannelId>,
    deps: Vec<EventRef>,
    facts: Vec<Facts>,
    signature: Signature,
    payload_bytes: u64,
    stubs: usize,
    full_len: usize,
}

/// One event's row, decoded. Offsets fit, because a run is at most [`MAX_RUN_BYTES`] long.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Facts {
    timestamp_ms: u64,
    payload_len: u32,
    /// Offset of the body in the run's bytes.
    body: u32,
    first_dep: u32,
    deps: u8,
    stub: bool,
    kind: Kind,
    /// 0 for none, else index + 1 into the channel table.
    channel: u16,
}

impl Run {
    /// The run's encoding.
    pub fn as_bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// Whose log it is said to belong to.
    pub fn author(&self) -> AuthorId {
        self.author
    }

    /// Seq of the first event.
    pub fn first_seq(&self) -> u64 {
        self.first_seq
    }

    /// Seq of the last event, the one that is signed.
    pub fn last_seq(&self) -> u64 {
        self.first_seq + self.facts.len() as u64 - 1
    }

    /// Id of the event before the first; `None` exactly if the first is the log's first.
    pub fn first_prev(&self) -> Option<EventId> {
        self.first_prev
    }

    /// Where the run goes on from: the event before its first.
    pub fn base(&self) -> Option<AuthorHead> {
        let seq = self.first_seq - 1;
        self.first_prev.map(|id| AuthorHead { seq, id })
    }

    /// How many events it holds, 1 to 1,024.
    pub fn event_count(&self) -> usize {
        self.facts.len()
    }

    /// How many of its events are stubs.
    pub fn stub_count(&self) -> usize {
        self.stubs
    }

    /// Bytes of payload held, stubs not counted.
    pub fn payload_bytes(&self) -> u64 {
        self.payload_bytes
    }

    /// The author's signature over the last event.
    pub fn signature(&self) -> &Signature {
        &self.signature
    }

    /// Hashes the chain and returns every event's id, in order. Checks no signature: this is
    /// for runs that were verified before they were stored.
    pub fn event_ids(&self, space: &SpaceId) -> Vec<EventId> {
        self.ids_up_to(space, self.facts.len())
    }

    fn ids_up_to(&self, space: &SpaceId, count: usize) -> Vec<EventId> {
        self.ids_between(space, 0, self.first_prev, count)
    }

    /// Ids of the events with `from <= index < to`, hashing on from the id before the first.
    fn ids_between(
        &self,
        space: &SpaceId,
        from: usize,
        mut prev: Option<EventId>,
        to: usize,
    ) -> Vec<EventId> {
        let key = LogKey::new(space, &self.author);
        let mut scratch = Vec::with_capacity(256);
        let mut ids = Vec::with_capacity(to.saturating_sub(from));
        for (at, facts) in self.facts.iter().enumerate().take(to).skip(from) {
            let seq = self.first_seq + at as u64;
            let hash = self.payload_hash(facts);
            let header = self.header_facts(facts, &hash);
            let id = if facts.kind == kind::GENESIS {
                LogKey::new(&SpaceId::ZERO, &self.author).event_id(
                    &mut scratch,
                    seq,
                    prev.as_ref(),
                    &header,
                )
            } else {
                key.event_id(&mut scratch, seq, prev.as_ref(), &header)
            };
            ids.push(id);
            prev = Some(id);
        }
        ids
    }

    /// Id of the run's event at `seq`, by hashing the chain up to it; `None` outside the run.
    pub fn id_at(&self, space: &SpaceId, seq: u64) -> Option<EventId> {
        let index = self.index_of(seq)?;
        self.ids_up_to(space, index + 1).pop()
    }

    /// The same run without the events up to and including `seq`, under the same signature.
    /// `None` if nothing would be left; the run itself if it begins above `seq`.
    pub fn above(&self, space: &SpaceId, seq: u64) -> Option<Self> {
        self.above_known(space, seq, None)
    }

    /// The same run with the payloads left out of all events but those `keep` names by index.
    /// Ids and signature stay what they are. Events with an empty payload, and those that are
    /// stubs already, stay as they are.
    #[must_use]
    pub fn with_stubs(&self, keep: impl Fn(usize) -> bool) -> Self {
        self.recut(0, self.first_prev, keep)
    }

    /// The event at `index`, given its id.
    fn event(
        &self,
        space: &SpaceId,
        index: usize,
        prev: Option<EventId>,
        id: EventId,
    ) -> Option<Event> {
        let facts = self.facts.get(index)?;
        let payload = self.payload(facts);
        Some(Event {
            id,
            header: Header {
                space: *space,
                author: self.author,
                seq: self.first_seq + index as u64,
                prev,
                deps: self.deps_of(facts).to_vec(),
                timestamp_ms: facts.timestamp_ms,
                kind: facts.kind,
                channel: self.channel(facts).cloned(),
                payload_len: facts.payload_len,
                payload_hash: self.payload_hash(facts),
            },
            payload,
        })
    }

    /// Every event with its id, by hashing the chain. Checks no signature: this is for runs
    /// that were verified before they were stored.
    pub fn events(&self, space: &SpaceId) -> impl Iterator<Item = Event> + use<'_> {
        let space = *space;
        let ids = self.event_ids(&space);
        (0..ids.len()).filter_map(move |index| {
            let prev = match index {
                0 => self.first_prev,
                _ => ids.get(index - 1).copied(),
            };
            self.event(&space, index, prev, *ids.get(index)?)
        })
    }

    fn index_of(&self, seq: u64) -> Option<usize> {
        let index = usize::try_from(seq.checked_sub(self.first_seq)?).ok()?;
        (index < self.facts.len()).then_some(index)
    }

    fn body(&self, facts: &Facts) -> &[u8] {
        let len = if facts.stub {
            PayloadHash::LEN
        } else {
            facts.payload_len as usize
        };
        let start = facts.body as usize;
        self.bytes.get(start..start + len).unwrap_or_default()
    }

    fn payload(&self, facts: &Facts) -> Option<Bytes> {
        (!facts.stub).then(|| self.bytes.slice_ref(self.body(facts)))
    }

    #[inline]
    fn payload_hash(&self, facts: &Facts) -> PayloadHash {
        let body = self.body(facts);
        match <[u8; PayloadHash::LEN]>::try_from(body) {
            Ok(hash) if facts.stub => PayloadHash::from_bytes(hash),
            _ => PayloadHash::of(body),
        }
    }

    fn deps_of(&self, facts: &Facts) -> &[EventRef] {
        let first = facts.first_dep as usize;
        self.deps
            .get(first..first + usize::from(facts.deps))
            .unwrap_or_default()
    }

    fn channel(&self, facts: &Facts) -> Option<&ChannelId> {
        self.channels
            .get(usize::from(facts.channel).checked_sub(1)?)
    }

    fn header_facts<'a>(&'a self, facts: &Facts, hash: &'a PayloadHash) -> HeaderFacts<'a> {
        HeaderFacts {
            deps: self.deps_of(facts),
            timestamp_ms: facts.timestamp_ms,
            kind: facts.kind,
            channel: self.channel(facts),
            payload_len: facts.payload_len,
            payload_hash: hash,
        }
    }

    fn row<'a>(&'a self, facts: &Facts, keep: bool) -> Row<'a> {
        let body = if facts.stub || (!keep && facts.payload_len > 0) {
            Body::Stub {
                len: facts.payload_len,
                hash: self.payload_hash(facts),
            }
        } else {
            Body::Held(self.body(facts))
        };
        Row {
            deps: self.deps_of(facts),
            timestamp_ms: facts.timestamp_ms,
            kind: facts.kind,
            channel: self.channel(facts),
            body,
        }
    }

    fn recut(
        &self,
        from: usize,
        first_prev: Option<EventId>,
        keep: impl Fn(usize) -> bool,
    ) -> Self {
        let base = first_prev.map(|id| AuthorHead {
            seq: self.first_seq + from as u64 - 1,
            id,
        });
        let mut encoder = Encoder::new(self.author).based_on(base);
        for (index, facts) in self.facts.iter().enumerate().skip(from) {
            encoder.push(&self.row(facts, keep(index)));
        }
        encoder.finish(self.signature)
    }
}

/// Joins consecutive runs of one author into one under the last signature. No event changes;
/// the signatures between are no longer needed.
///
/// `None` if they are not consecutive, are of several authors, or do not fit one run. Whether
/// each goes on from the *id* its predecessor ends in is not looked at: the store that holds
/// them has checked it.
pub fn merge_runs(runs: &[Run]) -> Option<Run> {
    let (first, last) = (runs.first()?, runs.last()?);
    let consecutive = runs
        .windows(2)
        .all(|two| two[0].author == two[1].author && two[0].last_seq() + 1 == two[1].first_seq);
    let events: usize = runs.iter().map(Run::event_count).sum();
    let full_len: usize = runs.iter().map(|run| run.full_len).sum();
    if !consecutive || events > MAX_RUN_EVENTS || full_len > MAX_RUN_BYTES {
        return None;
    }
    let mut encoder = Encoder::new(first.author).based_on(first.base());
    for run in runs {
        for facts in &run.facts {
            encoder.push(&run.row(facts, true));
        }
    }
    Some(encoder.finish(last.signature))
}

#[cfg(test)]
mod tests;
