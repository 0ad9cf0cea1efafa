//! Whose logs were sent in vain, so that the next sync does not ask for them.
//!
//! ```text
//! a run is not accepted, or above a quota ─▶ noted ─▶ next request: everybody's but theirs
//!                                              └▶ forgotten when the policy's answer is another,
//!                                                 or after a while
//! ```
//!
//! A log of which nothing is stored would otherwise be downloaded at every sync, and whoever makes keys
//! that sort first would be served before everybody else, every time.
//!
//! Invariant: nobody is left out who would be accepted now: the policy is asked for each request.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use headwater_proto::AppliedRun;
use headwater_wire::{Acceptance, AppendError, AuthorId, SpaceId, limits::MAX_FILTER_VALUES};

use crate::policy::AccessPolicy;

/// Spaces of which this is known. A node follows few; of the others it is found out again.
const KNOWN_SPACES: usize = 256;

/// How long an author above a quota is left out before it is tried again: another peer may hold the
/// same events in smaller runs, of which some fit.
const OVER_QUOTA_FOR: Duration = Duration::from_mins(10);

/// Authors left out, by space.
#[derive(Debug, Default)]
pub(crate) struct LeftOut(Mutex<HashMap<SpaceId, BTreeMap<AuthorId, Noted>>>);

#[derive(Debug, Clone, Copy)]
struct Noted {
    why: Why,
    at: Instant,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Why {
    /// The last seq that is accepted, if any is.
    NotAccepted(Option<u64>),
    OverQuota,
}

/// Whom a request leaves out.
#[derive(Debug, Default)]
pub(crate) struct Except {
    pub(crate) authors: Vec<AuthorId>,
    /// Those of them who are above a quota.
    pub(crate) over_quota: Vec<AuthorId>,
}

impl LeftOut {
    /// Takes note of what was not stored of a history. There the runs of a log follow each other, so
    /// what is accepted of an author is stored by the time something is not.
    pub(crate) fn note(&self, space: SpaceId, applied: &[AppliedRun]) {
        let refused = applied.iter().filter_map(|applied| match applied.outcome {
            Err(AppendError::NotAccepted { author, through }) => {
                Some((author, Why::NotAccepted(through)))
            }
            Err(AppendError::OverQuota { author, .. }) => Some((author, Why::OverQuota)),
            _ => None,
        });
        for (author, why) in refused {
            self.note_one(space, author, why);
        }
    }

    fn note_one(&self, space: SpaceId, author: AuthorId, why: Why) {
        let mut spaces = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if spaces.len() >= KNOWN_SPACES
            && !spaces.contains_key(&space)
            && let Some(other) = spaces.keys().next().copied()
        {
            spaces.remove(&other);
        }
        let authors = spaces.entry(space).or_default();
        let at = Instant::now();
        if let Some(noted) = authors.get_mut(&author) {
            // Behind one that was too much nothing is known to be stored.
            if noted.why != Why::OverQuota {
                *noted = Noted { why, at };
            }
            return;
        }
        if authors.len() >= MAX_FILTER_VALUES {
            let oldest = authors.iter().min_by_key(|(_, noted)| noted.at);
            if let Some(oldest) = oldest.map(|(author, _)| *author) {
                authors.remove(&oldest);
            }
        }
        authors.insert(author, Noted { why, at });
    }

    /// Whom to leave out of a request now.
    pub(crate) fn of(&self, space: SpaceId, policy: &dyn AccessPolicy) -> Except {
        let mut spaces = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(authors) = spaces.get_mut(&space) else {
            return Except::default();
        };
        authors.retain(|author, noted| match noted.why {
            Why::OverQuota => noted.at.elapsed() < OVER_QUOTA_FOR,
            Why::NotAccepted(through) => match policy.accepts(space, *author) {
                Acceptance::All => false,
                Acceptance::Through(last) => through == Some(last.seq),
                Acceptance::Nothing => through.is_none(),
            },
        });
        let over_quota = authors.iter().filter(|(_, it)| it.why == Why::OverQuota);
        Except {
            over_quota: over_quota.map(|(author, _)| *author).collect(),
            authors: authors.keys().copied().collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::AllowList;

    const SPACE: SpaceId = SpaceId::from_bytes([1; 32]);

    fn numbered(n: u64) -> AuthorId {
        let mut key = [3; 32];
        key[..8].copy_from_slice(&n.to_be_bytes());
        AuthorId::from_bytes(key)
    }

    #[test]
    fn whoever_is_accepted_by_now_is_asked_for_again() {
        let (left_out, policy) = (LeftOut::default(), AllowList::new());
        let (stranger, large) = (numbered(1), numbered(2));
        left_out.note_one(SPACE, stranger, Why::NotAccepted(None));
        left_out.note_one(SPACE, large, Why::OverQuota);
        left_out.note_one(SPACE, large, Why::NotAccepted(None));
        let except = left_out.of(SPACE, &policy);
        assert_eq!(except.authors, [stranger, large]);
        assert_eq!(except.over_quota, [large]);
        let elsewhere = SpaceId::from_bytes([2; 32]);
        assert!(left_out.of(elsewhere, &policy).authors.is_empty());
        let except = left_out.of(SPACE, &crate::Open);
        assert_eq!(except.authors, [large]);
        assert_eq!(left_out.of(SPACE, &policy).authors, [large]);
    }

    #[test]
    fn no_more_are_known_than_fit_a_request_and_the_oldest_goes_first() {
        let (left_out, policy) = (LeftOut::default(), AllowList::new());
        for n in 0..=MAX_FILTER_VALUES as u64 {
            left_out.note_one(SPACE, numbered(n), Why::NotAccepted(None));
        }
        let except = left_out.of(SPACE, &policy);
        assert_eq!(except.authors.len(), MAX_FILTER_VALUES);
        assert_eq!(
            except.authors.last(),
            Some(&numbered(MAX_FILTER_VALUES as u64))
        );
    }
}
