//! Runs of an owner's log as evidence of what they revoke.
//!
//! Invariant: evidence is a run like any other, its signature and ids are those of the whole. It
//! begins with a revocation, and holds no payloads but those of revocations.

use super::{Run, VerifiedRun};
use crate::{
    event::kind,
    roster::{Grant, Revocation, RosterChange},
};

impl Run {
    /// The grants and revocations whose payload is held, with their seqs, ascending. Hashes nothing:
    /// this is for runs that were verified before they were stored.
    pub fn roster_changes(&self) -> impl Iterator<Item = (u64, RosterChange)> + '_ {
        let facts = self.facts.iter().enumerate();
        facts.filter_map(|(index, facts)| {
            if facts.channel != 0 || facts.deps != 0 {
                return None;
            }
            let change = match facts.kind {
                kind::GRANT => RosterChange::Grant(Grant::decode(self.payload(facts)?).ok()?),
                kind::REVOKE => {
                    RosterChange::Revocation(Revocation::decode(self.payload(facts)?).ok()?)
                }
                _ => return None,
            };
            Some((self.first_seq + index as u64, change))
        })
    }

    /// The revocations whose payload is held, with their seqs, ascending.
    pub fn revocations(&self) -> impl Iterator<Item = (u64, Revocation)> + '_ {
        self.roster_changes()
            .filter_map(|(seq, change)| match change {
                RosterChange::Revocation(revocation) => Some((seq, revocation)),
                RosterChange::Grant(_) => None,
            })
    }

    /// Whether it is as evidence is: it begins with a revocation.
    pub fn is_evidence(&self) -> bool {
        let first = self.revocations().next();
        first.is_some_and(|(seq, _)| seq == self.first_seq)
    }

    /// The same run with no payloads left but those of revocations.
    #[must_use]
    pub fn as_evidence(&self) -> Self {
        self.with_stubs(|index| {
            let facts = self.facts.get(index);
            facts.is_some_and(|facts| facts.kind == kind::REVOKE)
        })
    }
}

impl VerifiedRun {
    /// The part that begins at `seq`, as evidence of the revocation there; `None` outside the run.
    pub fn evidence_from(&self, seq: u64) -> Option<Self> {
        self.id_at(seq)?;
        let rest = self.above(seq - 1)?;
        let evidence = rest.run().as_evidence();
        Some(Self::trusted(evidence, rest.space(), rest.ids().to_vec()))
    }
}
