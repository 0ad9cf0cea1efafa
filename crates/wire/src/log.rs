//! One log's rule of admission, the same for every store.
//!
//! ```text
//! head + VerifiedRun ──▶ admit ──▶ Whole | Above(seq) | Stale | Gap | Forked
//! ```
//!
//! Invariant: a log is a chain from seq 1 without gaps; a store only ever appends to it.

use crate::{
    heads::AuthorHead,
    ids::{AuthorId, EventId, SpaceId},
    run::VerifiedRun,
};

/// How much of a run goes into the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// All of it: it goes on from the head.
    Whole,
    /// The events above this seq; those up to it are in the log already, and equal.
    Above(u64),
}

/// A verified run does not go into the log. The log is unchanged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AppendError {
    /// Every event of the run is held already. Nothing to do.
    #[error("log of {author} ends at {head} and holds the run already")]
    Stale {
        /// The author.
        author: AuthorId,
        /// Seq of the log's head.
        head: u64,
    },
    /// Events between the head and this run are missing: ask for the range between.
    #[error("log of {author}: expected event {expected}, found {found}")]
    Gap {
        /// The author.
        author: AuthorId,
        /// Seq the log goes on at.
        expected: u64,
        /// Seq the run begins at.
        found: u64,
    },
    /// The author signed two different events at one seq. The sender is not to blame.
    ///
    /// From [`admit`] it means that log and run differ at `seq`, and perhaps below. From a store it
    /// means that the fork at `seq` is proven, be it by this run or before, and the log cut below
    /// it: nothing of the run can be shown.
    #[error("log of {author} forks at {seq}")]
    Forked {
        /// The author.
        author: AuthorId,
        /// A seq at which the author signed two events.
        seq: u64,
    },
    /// The run lies above what is accepted of its author here. The sender need not be to blame:
    /// who may write can be known to one of two nodes alone.
    #[error("{}", not_accepted(author, *through))]
    NotAccepted {
        /// The author.
        author: AuthorId,
        /// The last seq that is accepted; `None` if nothing of the author is.
        through: Option<u64>,
    },
    /// The run would take its log, or its space, above what may be stored of it here. The sender is
    /// not to blame; other authors go on.
    #[error("{}", over_quota(author, *quota, *limit))]
    OverQuota {
        /// The author.
        author: AuthorId,
        /// Which bound it would cross.
        quota: OverQuota,
        /// The bound.
        limit: u64,
    },
    /// More of the author's was pushed to this node lately than it takes unasked. Nothing is lost: it
    /// is there to be pulled.
    #[error("log of {author} grows faster than is taken unasked")]
    OverRate {
        /// The author.
        author: AuthorId,
    },
    /// Nothing of the space is held, and the run does not begin with its genesis event: the
    /// owner's log comes before all others.
    #[error("space {space} has no genesis here")]
    NoGenesis {
        /// The space.
        space: SpaceId,
    },
}

/// Which bound on what is stored a run would cross.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum OverQuota {
    /// Bytes of runs of one author in one space.
    AuthorBytes,
    /// Events of one author in one space.
    AuthorEvents,
    /// Bytes of runs in one space.
    SpaceBytes,
    /// Events in one space.
    SpaceEvents,
}

fn over_quota(author: &AuthorId, quota: OverQuota, limit: u64) -> String {
    let (of, unit) = match quota {
        OverQuota::AuthorBytes => ("the log", "bytes"),
        OverQuota::AuthorEvents => ("the log", "events"),
        OverQuota::SpaceBytes => ("the space", "bytes"),
        OverQuota::SpaceEvents => ("the space", "events"),
    };
    format!("log of {author}: {of} would hold more than {limit} {unit}")
}

fn not_accepted(author: &AuthorId, through: Option<u64>) -> String {
    match through {
        Some(seq) => format!("log of {author} is accepted up to event {seq} alone"),
        None => format!("nothing of {author} is accepted"),
    }
}

/// Decides what of `run` goes onto a log that ends in `head`.
///
/// `id_at` looks up the log's id at a seq not above the head; it is asked only if the run
/// overlaps the log.
///
/// # Errors
///
/// [`AppendError::Stale`], [`AppendError::Gap`] or [`AppendError::Forked`].
pub fn admit(
    head: Option<AuthorHead>,
    run: &VerifiedRun,
    id_at: impl FnOnce(u64) -> Option<EventId>,
) -> Result<Admission, AppendError> {
    let author = run.author();
    let Some(head) = head else {
        return match run.first_seq() {
            1 => Ok(Admission::Whole),
            found => Err(AppendError::Gap {
                author,
                expected: 1,
                found,
            }),
        };
    };
    let base = run.first_seq() - 1;
    if base > head.seq {
        return Err(AppendError::Gap {
            author,
            expected: head.seq + 1,
            found: run.first_seq(),
        });
    }
    if base == head.seq {
        return if run.base() == Some(head) {
            Ok(Admission::Whole)
        } else {
            Err(AppendError::Forked {
                author,
                seq: head.seq,
            })
        };
    }
    // The overlap is equal as a whole if it is equal in its last event: each event commits to
    // all before it.
    let seq = run.last_seq().min(head.seq);
    let held = if seq == head.seq {
        Some(head.id)
    } else {
        id_at(seq)
    };
    match (held == run.id_at(seq), seq == run.last_seq()) {
        (false, _) => Err(AppendError::Forked { author, seq }),
        (true, true) => Err(AppendError::Stale {
            author,
            head: head.seq,
        }),
        (true, false) => Ok(Admission::Above(seq)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        event::EventDraft,
        key::AuthorSecret,
        run::{sign_genesis, sign_runs},
    };

    struct Log {
        space: SpaceId,
        secret: AuthorSecret,
    }

    impl Log {
        fn new() -> Self {
            let owner = AuthorSecret::from_bytes([1; 32]);
            Self {
                space: sign_genesis(&owner, [0; 16], 0).space(),
                secret: AuthorSecret::from_bytes([2; 32]),
            }
        }

        fn run(&self, base: Option<AuthorHead>, payloads: &[&'static str]) -> VerifiedRun {
            let drafts = payloads.iter().map(|text| EventDraft::new(16, 0, *text));
            sign_runs(&self.space, &self.secret, base, drafts)
                .unwrap()
                .remove(0)
        }
    }

    #[test]
    fn a_run_that_goes_on_from_the_head_is_admitted_whole() {
        let log = Log::new();
        let first = log.run(None, &["a", "b"]);
        assert_eq!(admit(None, &first, |_| None), Ok(Admission::Whole));
        let next = log.run(Some(first.head()), &["c"]);
        assert_eq!(
            admit(Some(first.head()), &next, |_| None),
            Ok(Admission::Whole)
        );
    }

    #[test]
    fn an_equal_overlap_is_trimmed_and_a_run_already_held_is_stale() {
        let log = Log::new();
        let all = log.run(None, &["a", "b", "c"]);
        let two = log.run(None, &["a", "b"]);
        let id_at = |seq| all.id_at(seq);
        assert_eq!(
            admit(Some(two.head()), &all, id_at),
            Ok(Admission::Above(2))
        );
        let author = log.secret.id();
        assert_eq!(
            admit(Some(all.head()), &all, id_at),
            Err(AppendError::Stale { author, head: 3 })
        );
        assert_eq!(
            admit(Some(all.head()), &two, id_at),
            Err(AppendError::Stale { author, head: 3 })
        );
    }

    #[test]
    fn a_gap_names_what_is_missing() {
        let log = Log::new();
        let first = log.run(None, &["a", "b"]);
        let next = log.run(Some(first.head()), &["c"]);
        let author = log.secret.id();
        let gap = |expected| AppendError::Gap {
            author,
            expected,
            found: 3,
        };
        assert_eq!(admit(None, &next, |_| None), Err(gap(1)));
        let one = log.run(None, &["a"]);
        assert_eq!(admit(Some(one.head()), &next, |_| None), Err(gap(2)));
    }

    #[test]
    fn another_event_at_a_seq_is_a_fork_wherever_it_shows() {
        let log = Log::new();
        let author = log.secret.id();
        let forked = |seq| Err(AppendError::Forked { author, seq });
        let ours = log.run(None, &["a", "b", "c"]);
        let id_at = |seq| ours.id_at(seq);
        // In the overlap, at the head, and right behind it.
        let short = log.run(None, &["a", "x"]);
        assert_eq!(admit(Some(ours.head()), &short, id_at), forked(2));
        let long = log.run(None, &["a", "x", "c", "d"]);
        assert_eq!(admit(Some(ours.head()), &long, id_at), forked(3));
        let other = log.run(None, &["a", "b", "x"]);
        let behind = log.run(Some(other.head()), &["d"]);
        assert_eq!(admit(Some(ours.head()), &behind, id_at), forked(3));
    }
}
