//! How much of an author and of a space is stored, and how much may be.
//!
//! What is counted is what is stored, shown or not: a log that is cut or bounded counts whole. The
//! proof of a fork stands beside the log and does not count: there is one for each log at most, and
//! it has to be kept.
//!
//! Invariant: the totals change in the commit that changes the runs, and are their exact sum.

use headwater_wire::{AppendError, AuthorId, OverQuota};

use crate::records::{HeadRow, SpaceRow};

/// How much may be stored of one log, or of one space; no number is no bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Quota {
    /// Bytes of encoded runs.
    pub bytes: Option<u64>,
    /// Events.
    pub events: Option<u64>,
}

impl Quota {
    /// No bound at all.
    pub const NONE: Quota = Quota {
        bytes: None,
        events: None,
    };

    /// At most so many bytes of encoded runs.
    #[must_use]
    pub const fn bytes(self, bytes: u64) -> Quota {
        Quota {
            bytes: Some(bytes),
            ..self
        }
    }

    /// At most so many events.
    #[must_use]
    pub const fn events(self, events: u64) -> Quota {
        Quota {
            events: Some(events),
            ..self
        }
    }
}

/// The quotas of one append: see [`LogStore::append_within`](crate::LogStore::append_within).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Quotas {
    /// Of each log.
    pub author: Quota,
    /// Of each space, all logs together. It does not bind the log of the space's owner, so that
    /// nobody else's events keep the owner from saying who may write.
    pub space: Quota,
}

impl Quotas {
    /// No bound at all.
    pub const NONE: Quotas = Quotas {
        author: Quota::NONE,
        space: Quota::NONE,
    };

    /// Sets the quota of each log.
    #[must_use]
    pub const fn author(self, author: Quota) -> Quotas {
        Quotas { author, ..self }
    }

    /// Sets the quota of each space.
    #[must_use]
    pub const fn space(self, space: Quota) -> Quotas {
        Quotas { space, ..self }
    }

    /// Whether `more` of an author may be stored beside what is.
    ///
    /// # Errors
    ///
    /// [`AppendError::OverQuota`] names the bound that would be crossed.
    pub fn check(&self, author: AuthorId, usage: &Usage, more: Stored) -> Result<(), AppendError> {
        let over = |quota, limit| AppendError::OverQuota {
            author,
            quota,
            limit,
        };
        let crossed = |held: u64, more: u64, limit: Option<u64>| {
            limit.filter(|limit| more > 0 && held.saturating_add(more) > *limit)
        };
        let (log, space) = (usage.log, usage.space);
        if let Some(limit) = crossed(log.bytes, more.bytes, self.author.bytes) {
            return Err(over(OverQuota::AuthorBytes, limit));
        }
        if let Some(limit) = crossed(log.events, more.events, self.author.events) {
            return Err(over(OverQuota::AuthorEvents, limit));
        }
        if usage.is_owner {
            return Ok(());
        }
        if let Some(limit) = crossed(space.bytes, more.bytes, self.space.bytes) {
            return Err(over(OverQuota::SpaceBytes, limit));
        }
        if let Some(limit) = crossed(space.events, more.events, self.space.events) {
            return Err(over(OverQuota::SpaceEvents, limit));
        }
        Ok(())
    }
}

/// So much is stored, shown or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stored {
    /// Bytes of encoded runs.
    pub bytes: u64,
    /// Events.
    pub events: u64,
}

impl Stored {
    /// Both together.
    #[must_use]
    pub fn plus(self, more: Stored) -> Stored {
        Stored {
            bytes: self.bytes.saturating_add(more.bytes),
            events: self.events.saturating_add(more.events),
        }
    }

    pub(crate) fn minus(self, less: Stored) -> Stored {
        Stored {
            bytes: self.bytes.saturating_sub(less.bytes),
            events: self.events.saturating_sub(less.events),
        }
    }
}

/// What is stored of a log and of its space.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Of the log.
    pub log: Stored,
    /// Of all logs of the space.
    pub space: Stored,
    /// Whether the log is that of the space's owner.
    pub is_owner: bool,
}

impl Usage {
    pub(crate) fn of(space: &SpaceRow, author: &AuthorId, log: Option<&HeadRow>) -> Usage {
        Usage {
            log: log.map(HeadRow::stored).unwrap_or_default(),
            space: space.stored,
            is_owner: space.owner == *author,
        }
    }
}
