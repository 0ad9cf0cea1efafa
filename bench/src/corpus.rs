//! The spaces that are synced: keys, payloads and logs that are the same in every run.

use headwater::{
    AuthorHead, AuthorSecret, EventDraft, LogStore, SpaceId,
    wire::{VerifiedRun, sign_genesis, sign_runs},
};

use crate::Error;

/// Bytes of payload that are signed and appended in one go while a store is filled.
const FILL_BYTES: u64 = 4 * 1024 * 1024;

/// How large a space is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// Events, besides the genesis event.
    pub events: u64,
    /// Authors that wrote them, each the same number.
    pub authors: u64,
    /// Payload bytes of each event.
    pub payload: usize,
}

impl Shape {
    /// Bytes of payload in all.
    #[must_use]
    pub fn payload_bytes(self) -> u64 {
        self.events * self.payload as u64
    }

    /// Events of the author at this place.
    fn share(self, index: u64) -> u64 {
        self.events / self.authors + u64::from(index < self.events % self.authors)
    }
}

impl std::fmt::Display for Shape {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let payload = match self.payload {
            bytes if bytes % 1024 == 0 => format!("{} KiB", bytes / 1024),
            bytes => format!("{bytes} B"),
        };
        write!(
            f,
            "{} × {payload} by {}",
            grouped(self.events),
            grouped(self.authors)
        )
    }
}

/// 1234567 as `1,234,567`.
#[must_use]
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() * 4 / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A space while it is written into a store.
#[derive(Debug)]
pub struct Corpus {
    space: SpaceId,
    payload: usize,
    heads: Vec<Option<AuthorHead>>,
    serial: u64,
}

impl Corpus {
    /// Founds the space and writes all of it.
    ///
    /// # Errors
    ///
    /// If the store fails or refuses a run.
    pub fn fill(store: &dyn LogStore, shape: Shape) -> Result<Self, Error> {
        let mut corpus = Self::found(store, shape)?;
        corpus.extend(store, shape)?;
        store.settle()?;
        Ok(corpus)
    }

    /// Founds the space.
    ///
    /// # Errors
    ///
    /// If the store fails.
    pub fn found(store: &dyn LogStore, shape: Shape) -> Result<Self, Error> {
        let genesis = sign_genesis(&author(0), [7; 16], 1_700_000_000_000);
        let mut heads = vec![None; usize::try_from(shape.authors)?];
        if let Some(owner) = heads.first_mut() {
            *owner = Some(genesis.head());
        }
        let space = genesis.space();
        append(store, &[genesis])?;
        Ok(Self {
            space,
            payload: shape.payload,
            heads,
            serial: 0,
        })
    }

    /// The space.
    #[must_use]
    pub fn space(&self) -> SpaceId {
        self.space
    }

    /// Extends every author's log by its share.
    ///
    /// # Errors
    ///
    /// If the store fails or refuses a run.
    pub fn extend(&mut self, store: &dyn LogStore, shape: Shape) -> Result<(), Error> {
        let mut runs = Vec::new();
        let mut bytes = 0;
        for index in 0..shape.authors {
            let mut left = shape.share(index);
            while left > 0 {
                let take = left.min(FILL_BYTES / self.payload.max(1) as u64).max(1);
                left -= take;
                runs.extend(self.sign(index, take)?);
                bytes += take * self.payload as u64;
                if bytes >= FILL_BYTES {
                    append(store, &runs)?;
                    runs.clear();
                    bytes = 0;
                }
            }
        }
        append(store, &runs)
    }

    /// The next `count` events of one author, as few runs as possible.
    ///
    /// # Errors
    ///
    /// If they cannot be signed.
    pub fn sign(&mut self, index: u64, count: u64) -> Result<Vec<VerifiedRun>, Error> {
        let drafts: Vec<EventDraft> = (self.serial..self.serial + count)
            .map(|serial| draft(serial, self.payload))
            .collect();
        self.serial += count;
        let head = self
            .heads
            .get_mut(usize::try_from(index)?)
            .ok_or("no such author")?;
        let runs = sign_runs(&self.space, &author(index), *head, drafts)?;
        if let Some(last) = runs.last() {
            *head = Some(last.head());
        }
        Ok(runs)
    }
}

fn append(store: &dyn LogStore, runs: &[VerifiedRun]) -> Result<(), Error> {
    for outcome in store.append(runs)?.outcomes {
        outcome?;
    }
    Ok(())
}

/// A key of no value: the same in every run.
#[must_use]
pub fn author(index: u64) -> AuthorSecret {
    let mut seed = [0x42; 32];
    seed[..8].copy_from_slice(&index.to_le_bytes());
    AuthorSecret::from_bytes(seed)
}

/// The event of this number.
#[must_use]
pub fn draft(serial: u64, payload_bytes: usize) -> EventDraft {
    EventDraft::new(
        16,
        1_700_000_000_000 + serial,
        payload(serial, payload_bytes),
    )
}

/// Bytes that differ from event to event and do not compress.
#[must_use]
pub fn payload(serial: u64, len: usize) -> Vec<u8> {
    let mut state = serial ^ 0x9e37_79b9_7f4a_7c15;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        // xorshift64*, never zero.
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        bytes.extend_from_slice(&state.wrapping_mul(0x2545_f491_4f6c_dd1d).to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}
