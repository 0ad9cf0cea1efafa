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
//! Of more such logs than fit a request some come each time, and a sync that brought too much of them is cut.
//! The next one with that peer may bring twice as much, so that one gets to the end, whoever stands in front.
//!
//! Invariant: nobody is left out who would be accepted now: the policy is asked for each request.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use headwater_proto::{AppliedRun, SyncEnd};
use headwater_wire::{
    Acceptance, AppendError, AuthorId, SpaceId, SyncOutcome, Truncation, limits::MAX_FILTER_VALUES,
};
use iroh::EndpointId;

use crate::policy::AccessPolicy;

/// Spaces of which this is known. A node follows few; of the others it is found out again.
const KNOWN_SPACES: usize = 256;

/// How long an author above a quota is left out before it is tried again: another peer may hold the
/// same events in smaller runs, of which some fit.
const OVER_QUOTA_FOR: Duration = Duration::from_mins(10);

/// Spaces and peers whose last syncs were cut. The one cut least often goes first, and begins again.
const KNOWN_CUTS: usize = 1_024;

/// Authors left out, by space, and how often syncs were cut because of others.
#[derive(Debug, Default)]
pub(crate) struct LeftOut {
    spaces: Mutex<HashMap<SpaceId, BTreeMap<AuthorId, Noted>>>,
    /// How many syncs in a row were cut.
    cuts: Mutex<HashMap<(SpaceId, EndpointId), u32>>,
}

#[derive(Debug, Clone, Copy)]
struct Noted {
    why: Why,
    at: Instant,
    /// Bytes of the author's runs that came in vain.
    bytes: u64,
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
    /// The others, each with the last seq that is accepted, if any is.
    pub(crate) unaccepted: Vec<(AuthorId, Option<u64>)>,
}

impl LeftOut {
    /// Takes note of what was not stored of a history, with the bytes of each run. There the runs of a log follow
    /// each other, so what is accepted of an author is stored by the time something is not.
    pub(crate) fn note(&self, space: SpaceId, applied: &[AppliedRun], bytes: &[u64]) {
        for (applied, bytes) in applied.iter().zip(bytes) {
            match applied.outcome {
                Err(AppendError::NotAccepted { author, through }) => {
                    self.note_one(space, author, Why::NotAccepted(through), *bytes);
                }
                Err(AppendError::OverQuota { author, .. }) => {
                    self.note_one(space, author, Why::OverQuota, *bytes);
                }
                // It stands behind what was not stored.
                Err(AppendError::Gap { author, .. }) => self.add_bytes(space, author, *bytes),
                _ => {}
            }
        }
    }

    fn spaces(&self) -> MutexGuard<'_, HashMap<SpaceId, BTreeMap<AuthorId, Noted>>> {
        self.spaces.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add_bytes(&self, space: SpaceId, author: AuthorId, bytes: u64) {
        let mut spaces = self.spaces();
        let noted = spaces.get_mut(&space).and_then(|it| it.get_mut(&author));
        if let Some(noted) = noted {
            noted.bytes = noted.bytes.saturating_add(bytes);
        }
    }

    fn note_one(&self, space: SpaceId, author: AuthorId, why: Why, bytes: u64) {
        let mut spaces = self.spaces();
        if spaces.len() >= KNOWN_SPACES
            && !spaces.contains_key(&space)
            && let Some(other) = spaces.keys().next().copied()
        {
            spaces.remove(&other);
        }
        let authors = spaces.entry(space).or_default();
        let at = Instant::now();
        if let Some(noted) = authors.get_mut(&author) {
            noted.bytes = noted.bytes.saturating_add(bytes);
            // Behind one that was too much, or came when nothing was accepted, nothing is known to be
            // stored, whatever is accepted by now.
            let nothing = [Why::OverQuota, Why::NotAccepted(None)];
            if !nothing.contains(&noted.why) {
                (noted.why, noted.at) = (why, at);
            }
            return;
        }
        if authors.len() >= MAX_FILTER_VALUES {
            // Whose log costs least when it comes again. Never the new one: the rest of it is yet to come.
            let least = authors.iter().min_by_key(|(_, it)| (it.bytes, it.at));
            if let Some(least) = least.map(|(author, _)| *author) {
                authors.remove(&least);
            }
        }
        authors.insert(author, Noted { why, at, bytes });
    }

    /// How much a sync with a peer may bring in vain before it is cut: what is usual, twice for every sync
    /// that was cut since one was not. So the wasted bytes stay within a few times what lies there.
    pub(crate) fn allowance(&self, space: SpaceId, peer: EndpointId, usual: u64) -> u64 {
        let cuts = self.cuts.lock().unwrap_or_else(PoisonError::into_inner);
        let cuts = cuts.get(&(space, peer)).copied().unwrap_or(0);
        let times = 1_u64.checked_shl(cuts).unwrap_or(u64::MAX);
        usual.max(1).saturating_mul(times)
    }

    /// Takes note of how a history ended.
    pub(crate) fn note_end(&self, space: SpaceId, peer: EndpointId, was_cut: bool, end: &SyncEnd) {
        let mut cuts = self.cuts.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (space, peer);
        if !was_cut {
            // A budget may have ended it at the same authors as before.
            if end.outcome != SyncOutcome::Truncated(Truncation::Budget) {
                cuts.remove(&key);
            }
            return;
        }
        if cuts.len() >= KNOWN_CUTS && !cuts.contains_key(&key) {
            let least = cuts.iter().min_by_key(|(_, times)| **times);
            if let Some(least) = least.map(|(key, _)| *key) {
                cuts.remove(&least);
            }
        }
        let times = cuts.entry(key).or_default();
        *times = times.saturating_add(1);
    }

    /// Whom to leave out of a request now.
    pub(crate) fn of(&self, space: SpaceId, policy: &dyn AccessPolicy) -> Except {
        let mut spaces = self.spaces();
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
        let mut except = Except::default();
        for (author, noted) in authors {
            except.authors.push(*author);
            match noted.why {
                Why::OverQuota => except.over_quota.push(*author),
                Why::NotAccepted(through) => except.unaccepted.push((*author, through)),
            }
        }
        except
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
        left_out.note_one(SPACE, stranger, Why::NotAccepted(None), 100);
        left_out.note_one(SPACE, large, Why::OverQuota, 100);
        left_out.note_one(SPACE, large, Why::NotAccepted(None), 100);
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
    fn no_more_are_known_than_fit_a_request_and_whose_log_is_smallest_goes_first() {
        let (left_out, policy) = (LeftOut::default(), AllowList::new());
        let last = 2 * MAX_FILTER_VALUES as u64;
        for n in 0..=last {
            left_out.note_one(SPACE, numbered(n), Why::NotAccepted(None), 100);
            if n == 3 {
                left_out.note_one(SPACE, numbered(n), Why::NotAccepted(None), 1);
                left_out.add_bytes(SPACE, numbered(n), 1);
            }
        }
        let except = left_out.of(SPACE, &policy);
        assert_eq!(except.authors.len(), MAX_FILTER_VALUES);
        assert_eq!(except.authors.first(), Some(&numbered(3)));
        assert_eq!(except.authors.last(), Some(&numbered(last)));
    }

    #[test]
    fn whoever_was_refused_whole_is_asked_for_again_though_a_later_run_met_a_bound() {
        let left_out = LeftOut::default();
        let author = numbered(1);
        left_out.note_one(SPACE, author, Why::NotAccepted(None), 100);
        left_out.note_one(SPACE, author, Why::NotAccepted(Some(5)), 100);
        let policy = Bounded(5);
        assert!(left_out.of(SPACE, &policy).authors.is_empty());
        // Now the first five are stored, and the rest is not accepted.
        left_out.note_one(SPACE, author, Why::NotAccepted(Some(5)), 100);
        let except = left_out.of(SPACE, &policy);
        assert_eq!(except.unaccepted, [(author, Some(5))]);
        assert!(left_out.of(SPACE, &Bounded(6)).authors.is_empty());
    }

    /// Accepts so many events of everybody.
    #[derive(Debug)]
    struct Bounded(u64);

    impl AccessPolicy for Bounded {
        fn may_read(&self, _: EndpointId, _: SpaceId) -> n0_future::boxed::BoxFuture<bool> {
            Box::pin(std::future::ready(true))
        }

        fn accepts(&self, _: SpaceId, _: AuthorId) -> Acceptance {
            Acceptance::Through(headwater_wire::AuthorHead {
                seq: self.0,
                id: headwater_wire::EventId::from_bytes([0; 32]),
            })
        }
    }
}
