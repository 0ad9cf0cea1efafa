//! What a store keeps beside the runs' own bytes.

use headwater_proto::history::{HeadRecord, SpaceSummary};
use headwater_wire::{
    AuthorHead, AuthorId, ClockEntry, EventId, HeadsDigest, RevokedDigest, Run, SpaceId,
};

use crate::{log_store::Bounds, quotas::Stored};

/// How many events lie between two ids kept beside a run.
pub(crate) const ID_STRIDE: usize = 64;

/// Bytes of BLAKE3 a store keeps of a run.
pub(crate) const RUN_HASH_BYTES: usize = 16;

/// A space, by its id and by the number this store gave it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SpaceKey {
    pub(crate) id: SpaceId,
    pub(crate) no: u32,
}

/// A log, by its names and by the number this store gave it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LogKey {
    pub(crate) space: SpaceId,
    pub(crate) author: AuthorId,
    pub(crate) no: u32,
}

/// One space.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SpaceRow {
    pub(crate) no: u32,
    pub(crate) owner: AuthorId,
    pub(crate) generation: u64,
    pub(crate) digest: HeadsDigest,
    pub(crate) authors: u64,
    pub(crate) events: u64,
    pub(crate) payload_bytes: u64,
    /// How many logs have a row but no entry among the heads.
    pub(crate) hidden: u64,
    /// Of all logs, shown or not.
    pub(crate) stored: Stored,
    /// How the bounds of the logs stand to what the owner's says.
    pub(crate) bounds: Bounds,
}

impl SpaceRow {
    /// A space nothing has been appended to.
    pub(crate) fn new(no: u32, owner: AuthorId) -> SpaceRow {
        SpaceRow {
            no,
            owner,
            generation: 0,
            digest: HeadsDigest::EMPTY,
            authors: 0,
            events: 0,
            payload_bytes: 0,
            hidden: 0,
            stored: Stored::default(),
            bounds: Bounds::None,
        }
    }

    /// How many logs are on a shelf.
    pub(crate) fn count(&mut self, shelf: Shelf) -> &mut u64 {
        match shelf {
            Shelf::Shown => &mut self.authors,
            Shelf::Hidden => &mut self.hidden,
        }
    }

    pub(crate) fn key(&self, id: SpaceId) -> SpaceKey {
        SpaceKey { id, no: self.no }
    }

    pub(crate) fn summary(&self, space: SpaceId) -> SpaceSummary {
        SpaceSummary {
            space,
            owner: self.owner,
            generation: self.generation,
            digest: self.digest,
            authors: self.authors,
            events: self.events,
            payload_bytes: self.payload_bytes,
        }
    }
}

/// Which table a log's row is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Shelf {
    /// The log has an entry among the heads.
    Shown,
    /// The log has none: nothing of it is accepted, or nothing was stored yet.
    Hidden,
}

/// One log: what is visible of it, what is stored of it, and what bounds the one below the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct HeadRow {
    pub(crate) log: u32,
    /// The visible head; [`AuthorHead::NONE`] if nothing is visible.
    pub(crate) head: AuthorHead,
    /// Payload bytes up to the visible head.
    pub(crate) payload_bytes: u64,
    /// The last event stored; [`AuthorHead::NONE`] if nothing is.
    pub(crate) end: AuthorHead,
    /// Payload bytes up to the last event stored.
    pub(crate) end_payload_bytes: u64,
    /// Bytes of all runs stored.
    pub(crate) run_bytes: u64,
    /// The lowest seq a proof is kept for.
    pub(crate) fork: Option<u64>,
    /// The last seq that is accepted of the author.
    pub(crate) through: Option<u64>,
    /// Of an owner's log that forks: what revocations above the cut take away.
    pub(crate) revoked: RevokedDigest,
}

impl HeadRow {
    /// A log nothing has been stored of.
    pub(crate) fn new(log: u32) -> HeadRow {
        HeadRow {
            log,
            head: AuthorHead::NONE,
            payload_bytes: 0,
            end: AuthorHead::NONE,
            end_payload_bytes: 0,
            run_bytes: 0,
            fork: None,
            through: None,
            revoked: RevokedDigest::NONE,
        }
    }

    pub(crate) fn log_key(&self, space: SpaceId, author: AuthorId) -> LogKey {
        LogKey {
            space,
            author,
            no: self.log,
        }
    }

    /// All that is stored of the log.
    pub(crate) fn stored(&self) -> Stored {
        Stored {
            bytes: self.run_bytes,
            events: self.end.seq,
        }
    }

    /// The last seq that can be visible, whatever is stored.
    pub(crate) fn limit(&self) -> u64 {
        self.below_fork().min(self.through.unwrap_or(u64::MAX))
    }

    /// The last seq below the fork.
    pub(crate) fn below_fork(&self) -> u64 {
        self.fork.map_or(u64::MAX, |seq| seq.saturating_sub(1))
    }

    /// Events stored at the fork and above it.
    pub(crate) fn evidence_events(&self) -> u64 {
        self.end.seq.saturating_sub(self.below_fork())
    }

    pub(crate) fn shelf(&self) -> Shelf {
        let is_accepted = self.through != Some(0);
        if is_accepted && (self.head.seq > 0 || self.fork.is_some()) {
            Shelf::Shown
        } else {
            Shelf::Hidden
        }
    }

    /// Whether there is nothing to keep the row for.
    pub(crate) fn is_vacant(&self) -> bool {
        (self.end.seq, self.fork, self.through) == (0, None, None)
    }

    /// The entry among the heads, if the log has one.
    pub(crate) fn shown(&self, author: AuthorId) -> Option<ClockEntry> {
        (self.shelf() == Shelf::Shown).then(|| self.entry(author))
    }

    /// The entry of a log that is shown.
    pub(crate) fn entry(&self, author: AuthorId) -> ClockEntry {
        ClockEntry {
            author,
            head: self.head,
            forked: self.fork.is_some(),
            revoked: self.revoked,
        }
    }

    pub(crate) fn record(&self, author: AuthorId) -> HeadRecord {
        HeadRecord {
            entry: self.entry(author),
            payload_bytes: self.payload_bytes,
        }
    }
}

/// What is known of a stored run without reading it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Side {
    pub(crate) first_seq: u64,
    pub(crate) last_seq: u64,
    /// Payload bytes in the run.
    pub(crate) payload_bytes: u64,
    /// Payload bytes in all runs of the log before this one.
    pub(crate) payload_before: u64,
    pub(crate) stubs: u32,
    /// Length of the run's bytes.
    pub(crate) len: u32,
    /// How often the events of this run were rewritten by merging.
    pub(crate) tier: u8,
    /// What the run's bytes hash to, if the store hashes them; filled in by the store.
    pub(crate) hash: [u8; RUN_HASH_BYTES],
    /// The id of the last event.
    pub(crate) last_id: EventId,
    /// The id of every [`ID_STRIDE`]th event, but not of the last one.
    pub(crate) ids: Vec<EventId>,
}

impl Side {
    /// The record of a run whose ids are known.
    pub(crate) fn of(run: &Run, ids: &[EventId], payload_before: u64, tier: u8) -> Side {
        Side {
            first_seq: run.first_seq(),
            last_seq: run.last_seq(),
            payload_bytes: run.payload_bytes(),
            payload_before,
            stubs: u32::try_from(run.stub_count()).unwrap_or(u32::MAX),
            len: u32::try_from(run.as_bytes().len()).unwrap_or(u32::MAX),
            tier,
            hash: [0; RUN_HASH_BYTES],
            last_id: ids.last().copied().unwrap_or(EventId::from_bytes([0; 32])),
            ids: Side::every_stride(ids),
        }
    }

    /// Picks the ids that are kept out of those of all events of a run.
    fn every_stride(ids: &[EventId]) -> Vec<EventId> {
        let inner = ids.len().saturating_sub(1);
        ids.iter()
            .take(inner)
            .skip(ID_STRIDE - 1)
            .step_by(ID_STRIDE)
            .copied()
            .collect()
    }

    /// Events in the run.
    pub(crate) fn events(&self) -> u64 {
        self.last_seq
            .saturating_sub(self.first_seq)
            .saturating_add(1)
    }

    pub(crate) fn holds(&self, seq: u64) -> bool {
        self.first_seq <= seq && seq <= self.last_seq
    }

    /// The id of an event of the run, if it is one that is kept.
    pub(crate) fn kept_id(&self, seq: u64) -> Option<EventId> {
        if seq == self.last_seq {
            return Some(self.last_id);
        }
        let nth = usize::try_from(seq.checked_sub(self.first_seq)?)
            .ok()?
            .checked_add(1)?;
        if !nth.is_multiple_of(ID_STRIDE) {
            return None;
        }
        self.ids.get((nth / ID_STRIDE).checked_sub(1)?).copied()
    }
    /// The last event below `seq` whose id is kept, if it is one of the run.
    pub(crate) fn known_below(&self, seq: u64) -> Option<AuthorHead> {
        let below = usize::try_from(seq.checked_sub(self.first_seq)?).ok()?;
        let at = (below / ID_STRIDE).min(self.ids.len()).checked_sub(1)?;
        Some(AuthorHead {
            seq: self.first_seq + ((at + 1) * ID_STRIDE) as u64 - 1,
            id: *self.ids.get(at)?,
        })
    }
}
