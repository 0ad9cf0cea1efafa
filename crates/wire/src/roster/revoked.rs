//! What still holds of an owner who forks: the revocations above the cut.
//!
//! ```text
//! roster below the cut ─┐
//! revocations above it ─┴▶ Revoked::hold ──▶ Revoked ──▶ RosterState::hold, digest in the clock
//! ```
//!
//! Grants above the place where the owner's log forks count no more: the owner may have signed
//! others in another branch. Revocations do, in whichever branch they stand: to have one too many is
//! the safe side. Only those of what is granted below the cut matter, so there are no more of them
//! than grants that show.
//!
//! Invariant: for one roster, a [`Revoked`] is a join-semilattice: whoever was shown the same
//! revocations, in whatever order and however often, has the same.

use std::collections::BTreeMap;

use super::{Member, Revocation, Roles, RosterState, Subject};
use crate::{
    codec::{Decode, DecodeError, Encode, Put, Reader},
    heads::AuthorHead,
    ids::RevokedDigest,
    limits::MAX_REVOKED_SUBJECTS,
};

/// Keeps this digest apart from other hashes.
const REVOKED_KEY: &[u8; 32] = b"headwater revoked digest v1\0\0\0\0\0";

impl RevokedDigest {
    /// Digest where nothing is revoked above a fork.
    pub const NONE: Self = Self::from_bytes([0; 32]);
}

/// What revocations in any branch above the cut take away from what is granted below it.
#[derive(Debug, Clone, Default)]
pub struct Revoked {
    /// One more than [`MAX_REVOKED_SUBJECTS`] of them stand for everybody.
    subjects: BTreeMap<Subject, Taken>,
}

/// What is taken of one subject.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Taken {
    roles: Roles,
    /// Of a writer: the last event that counts, the lowest that any branch names.
    last: Option<AuthorHead>,
}

/// The lower of two last events; none is lower than any.
fn lower(one: Option<AuthorHead>, other: Option<AuthorHead>) -> Option<AuthorHead> {
    let (one, other) = (one?, other?);
    let key = |head: &AuthorHead| (head.seq, head.id);
    Some(if key(&one) <= key(&other) { one } else { other })
}

impl Taken {
    fn of(revocation: &Revocation) -> Self {
        let is_writers = revocation.roles.contains(Roles::WRITE);
        Self {
            roles: revocation.roles,
            last: revocation.last.filter(|_| is_writers),
        }
    }

    fn and(self, other: Self) -> Self {
        let writes = |taken: &Self| taken.roles.contains(Roles::WRITE);
        let last = match (writes(&self), writes(&other)) {
            (true, true) => lower(self.last, other.last),
            (true, false) => self.last,
            (false, _) => other.last,
        };
        let roles = self.roles | other.roles;
        Self { roles, last }
    }
}

impl Revoked {
    /// Nothing is revoked.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// What of a revocation above the cut takes something that `shown`, the roster below it, grants:
    /// `None` if it takes nothing.
    #[must_use]
    pub fn relevant(shown: &RosterState, revocation: &Revocation) -> Option<Revocation> {
        let held = match revocation.subject {
            Subject::Anyone => shown.anyone(),
            Subject::Key(key) if key == shown.owner().into() => Roles::NONE,
            Subject::Key(key) => shown.roles(&key),
        };
        let roles = held.and(revocation.roles);
        let last = revocation.last.filter(|_| roles.contains(Roles::WRITE));
        (!roles.is_empty()).then_some(Revocation {
            roles,
            last,
            ..*revocation
        })
    }

    /// Takes in a revocation above the cut, as far as it takes something that `shown` grants.
    /// Returns whether anything is new in it.
    pub fn hold(&mut self, shown: &RosterState, revocation: &Revocation) -> bool {
        let relevant = Self::relevant(shown, revocation);
        relevant.is_some_and(|revocation| self.insert(&revocation))
    }

    /// Joins one that is relevant. Returns whether anything is new in it.
    pub fn insert(&mut self, revocation: &Revocation) -> bool {
        if !self.lacks(revocation) {
            return false;
        }
        let taken = Taken::of(revocation);
        let held = self.subjects.entry(revocation.subject).or_insert(taken);
        *held = held.and(taken);
        true
    }

    /// Joins all that another holds.
    pub fn join(&mut self, other: &Self) {
        for revocation in other.entries() {
            self.insert(&revocation);
        }
    }

    /// Whether a revocation takes more than what is held.
    #[must_use]
    pub fn lacks(&self, revocation: &Revocation) -> bool {
        if self.is_everybody() {
            return false;
        }
        let held = self.subjects.get(&revocation.subject);
        held.is_none_or(|held| held.and(Taken::of(revocation)) != *held)
    }

    /// What is taken, one revocation a subject, ascending by subject.
    pub fn entries(&self) -> impl Iterator<Item = Revocation> + '_ {
        let entries = self.subjects.iter();
        entries.map(|(subject, taken)| Revocation {
            subject: *subject,
            roles: taken.roles,
            last: taken.last,
        })
    }

    /// How many subjects lose something.
    #[must_use]
    pub fn len(&self) -> usize {
        self.subjects.len()
    }

    /// Whether nothing is taken of anybody.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.subjects.is_empty()
    }

    /// Whether there are too many to be told apart: then everything is taken of everybody but the
    /// owner.
    #[must_use]
    pub fn is_everybody(&self) -> bool {
        self.subjects.len() > MAX_REVOKED_SUBJECTS
    }

    /// Equal exactly where the same is taken; [`RevokedDigest::NONE`] where nothing is.
    #[must_use]
    pub fn digest(&self) -> RevokedDigest {
        if self.is_empty() {
            return RevokedDigest::NONE;
        }
        let mut bytes = Vec::new();
        if !self.is_everybody() {
            for entry in self.entries() {
                entry.encode(&mut bytes);
            }
        }
        RevokedDigest::from_bytes(*blake3::keyed_hash(REVOKED_KEY, &bytes).as_bytes())
    }
}

/// The same is taken.
impl PartialEq for Revoked {
    fn eq(&self, other: &Self) -> bool {
        match (self.is_everybody(), other.is_everybody()) {
            (false, false) => self.subjects == other.subjects,
            (one, other) => one == other,
        }
    }
}

impl Eq for Revoked {}

impl FromIterator<Revocation> for Revoked {
    fn from_iter<T: IntoIterator<Item = Revocation>>(entries: T) -> Self {
        let mut revoked = Self::new();
        for entry in entries {
            revoked.insert(&entry);
        }
        revoked
    }
}

impl RosterState {
    /// Takes away what revocations above the place where the owner's log forks take. Call it on the
    /// state of all that shows, and fold nothing afterwards.
    pub fn hold(&mut self, revoked: &Revoked) {
        if revoked.is_everybody() {
            self.anyone = Roles::NONE;
            for member in self.members.values_mut() {
                let gone = member.granted | member.revoked;
                *member = Member {
                    granted: Roles::NONE,
                    revoked: gone,
                    last: member.last,
                };
            }
            return;
        }
        for revocation in revoked.entries() {
            self.revoke(&revocation);
        }
    }
}

impl Encode for Revocation {
    fn encode(&self, out: &mut Vec<u8>) {
        self.subject.encode(out);
        self.roles.encode(out);
        out.put_option(self.last.as_ref());
    }
}

impl Decode for Revocation {
    const MIN_BYTES: usize = Subject::MIN_BYTES + Roles::MIN_BYTES + 1;

    fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        let subject = Subject::decode(reader)?;
        let roles = Roles::decode(reader)?;
        let last = reader.option("last event", AuthorHead::decode)?;
        if last.is_some() && (subject == Subject::Anyone || !roles.contains(Roles::WRITE)) {
            let field = "last event";
            return Err(DecodeError::NotCanonical { field });
        }
        Ok(Self {
            subject,
            roles,
            last,
        })
    }
}

#[cfg(test)]
mod tests;
