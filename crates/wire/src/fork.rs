//! Forks: two different events of one author at one seq, and the proof of it.
//!
//! ```text
//! two runs ──▶ ForkProof ──▶ verify(space) ──▶ VerifiedForkProof ──▶ seq(): the log is cut below
//!                two VerifiedRuns ──▶ VerifiedForkProof::of ──┘
//! ```
//!
//! A proof is a pair of validly signed runs of one log that cannot both be right:
//!
//! * both begin at f with the same `prev`, and their ids at f differ; or
//! * one begins at f, the other at f + 1 with a `prev` that is not the first one's id at f.
//!
//! Either way the author signed two events at f. Only the author can make such a pair, so it
//! convinces everybody, whoever brings it. All honest nodes cut the log to below the lowest f
//! they have seen proven, in whatever order proofs come.

use crate::{
    heads::AuthorHead,
    ids::{AuthorId, SpaceId},
    run::{Run, RunError, VerifiedRun},
};

/// Two runs somebody claims to prove a fork. Neither is verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForkProof {
    first: Run,
    second: Run,
}

/// Two runs do not prove a fork. Whoever sent them as a proof is at fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ForkProofError {
    /// One of the runs does not prove itself.
    #[error(transparent)]
    Run(#[from] RunError),
    /// The runs belong to logs of two authors.
    #[error("runs of {first} and {second} prove nothing of each other")]
    TwoAuthors {
        /// The first run's author.
        first: AuthorId,
        /// The second's.
        second: AuthorId,
    },
    /// The runs do not contradict each other where a proof's do.
    #[error("runs of {author} from {first} and {second} do not contradict each other there")]
    NoContradiction {
        /// The author of both.
        author: AuthorId,
        /// Where the first run begins.
        first: u64,
        /// Where the second begins.
        second: u64,
    },
}

impl ForkProof {
    /// Takes two runs for a proof.
    pub fn new(first: Run, second: Run) -> Self {
        Self { first, second }
    }

    /// The two runs.
    pub fn into_runs(self) -> (Run, Run) {
        (self.first, self.second)
    }

    /// Verifies both runs and what they prove of each other: two signature checks.
    ///
    /// # Errors
    ///
    /// If a run is not valid, or the two do not contradict each other as a proof's do.
    pub fn verify(self, space: &SpaceId) -> Result<VerifiedForkProof, ForkProofError> {
        let (author, other) = (self.first.author(), self.second.author());
        if author != other {
            return Err(ForkProofError::TwoAuthors {
                first: author,
                second: other,
            });
        }
        let (first, second) = (self.first.first_seq(), self.second.first_seq());
        let first_run = self.first.verify(space)?;
        let second_run = self.second.verify(space)?;
        VerifiedForkProof::exactly(first_run, second_run).ok_or(ForkProofError::NoContradiction {
            author,
            first,
            second,
        })
    }
}

/// Proof that an author signed two different events at one seq.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedForkProof {
    /// Begins at the forked seq.
    first: VerifiedRun,
    /// Begins there as well, or right behind.
    second: VerifiedRun,
}

impl VerifiedForkProof {
    /// The lowest fork that two runs prove between them, if they prove one. The halves are cut to
    /// begin at the fork and hold stubs alone.
    pub fn of(one: &VerifiedRun, other: &VerifiedRun) -> Option<Self> {
        if (one.author(), one.space()) != (other.author(), other.space()) {
            return None;
        }
        let (early, late) = match one.first_seq() <= other.first_seq() {
            true => (one, other),
            false => (other, one),
        };
        let start = late.first_seq();
        let proof = if early.first_seq() == start {
            Self::within(early, late, start)
        } else if early.last_seq() < start - 1 {
            None
        } else if early.id_at(start - 1) == late.run().first_prev() {
            Self::within(&early.above(start - 1)?, late, start)
        } else {
            // `start` is at least 2: `early` begins below it.
            Some(Self {
                first: early.above(start - 2)?,
                second: late.clone(),
            })
        }?;
        Some(Self {
            first: proof.first.as_stubs(),
            second: proof.second.as_stubs(),
        })
    }

    /// The first difference of two runs that begin at the same seq.
    fn within(one: &VerifiedRun, other: &VerifiedRun, start: u64) -> Option<Self> {
        if one.run().first_prev() != other.run().first_prev() {
            return None;
        }
        let mut pairs = one.ids().iter().zip(other.ids());
        let same = pairs.position(|(one, other)| one != other)? as u64;
        Some(Self {
            first: one.above(start + same - 1)?,
            second: other.above(start + same - 1)?,
        })
    }

    /// These very runs, if they are a proof as they stand.
    fn exactly(one: VerifiedRun, other: VerifiedRun) -> Option<Self> {
        let (first, second) = match one.first_seq() <= other.first_seq() {
            true => (one, other),
            false => (other, one),
        };
        let seq = first.first_seq();
        let first_id = first.id_at(seq);
        let proves = match second.first_seq() - seq {
            0 => {
                first.run().first_prev() == second.run().first_prev()
                    && first_id != second.id_at(seq)
            }
            1 => first_id != second.run().first_prev(),
            _ => false,
        };
        proves.then_some(Self { first, second })
    }

    /// The space.
    pub fn space(&self) -> SpaceId {
        self.first.space()
    }

    /// Whose log forks.
    pub fn author(&self) -> AuthorId {
        self.first.author()
    }

    /// The seq at which the author signed two events. The log is cut to below it.
    pub fn seq(&self) -> u64 {
        self.first.first_seq()
    }

    /// The event before the fork, as far as the first half commits to it; `None` exactly if the
    /// log forks at its first event.
    pub fn base(&self) -> Option<AuthorHead> {
        self.first.base()
    }

    /// The half that begins at the fork.
    pub fn first(&self) -> &VerifiedRun {
        &self.first
    }

    /// The half that contradicts it.
    pub fn second(&self) -> &VerifiedRun {
        &self.second
    }

    /// The proof, without its having been verified.
    pub fn into_proof(self) -> ForkProof {
        ForkProof::new(self.first.into_run(), self.second.into_run())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{EventDraft, key::AuthorSecret, run::sign_genesis, run::sign_runs};

    fn secret() -> AuthorSecret {
        AuthorSecret::from_bytes([2; 32])
    }

    fn space() -> SpaceId {
        sign_genesis(&AuthorSecret::from_bytes([1; 32]), [0; 16], 0).space()
    }

    /// A run of one event for each letter, behind `base`.
    fn run(base: Option<&VerifiedRun>, letters: &str) -> VerifiedRun {
        run_of(&secret(), base, letters)
    }

    fn run_of(secret: &AuthorSecret, base: Option<&VerifiedRun>, letters: &str) -> VerifiedRun {
        let drafts = letters
            .bytes()
            .map(|letter| EventDraft::new(16, 0, vec![letter]));
        sign_runs(&space(), secret, base.map(VerifiedRun::head), drafts)
            .unwrap()
            .remove(0)
    }

    fn proven(one: &VerifiedRun, other: &VerifiedRun) -> Option<u64> {
        let proof = VerifiedForkProof::of(one, other);
        assert_eq!(
            proof.as_ref().map(VerifiedForkProof::seq),
            VerifiedForkProof::of(other, one).map(|proof| proof.seq())
        );
        let proof = proof?;
        assert_eq!(proof.first().run().payload_bytes(), 0);
        let seq = proof.seq();
        // What is made here convinces others.
        let sent = ForkProof::new(
            Run::decode(proof.first().run().as_bytes().clone()).unwrap(),
            Run::decode(proof.second().run().as_bytes().clone()).unwrap(),
        );
        assert_eq!(sent.verify(&space()).unwrap(), proof);
        Some(seq)
    }

    #[test]
    fn runs_that_begin_alike_fork_at_their_first_difference() {
        assert_eq!(proven(&run(None, "abc"), &run(None, "xbc")), Some(1));
        assert_eq!(proven(&run(None, "abc"), &run(None, "abx")), Some(3));
        let base = run(None, "ab");
        let (one, other) = (run(Some(&base), "cde"), run(Some(&base), "cdx"));
        assert_eq!(proven(&one, &other), Some(5));
    }

    #[test]
    fn an_overlap_is_compared_where_both_stand() {
        let base = run(None, "ab");
        assert_eq!(proven(&run(None, "abcd"), &run(Some(&base), "cx")), Some(4));
        let other = run(None, "ax");
        assert_eq!(
            proven(&run(None, "abcd"), &run(Some(&other), "cd")),
            Some(2)
        );
        // Right behind each other.
        assert_eq!(proven(&run(None, "ab"), &run(Some(&other), "cd")), Some(2));
    }

    #[test]
    fn runs_that_agree_or_do_not_meet_prove_nothing() {
        let base = run(None, "ab");
        let next = run(Some(&base), "cd");
        let last = run(Some(&next), "ef");
        assert_eq!(proven(&base, &next), None);
        assert_eq!(proven(&base, &last), None);
        assert_eq!(proven(&run(None, "abc"), &run(None, "ab")), None);
        assert_eq!(proven(&run(None, "abc"), &next), None);
        let other = run(Some(&run(None, "xy")), "zz");
        // Both begin at 3, on chains that parted before: nothing here says where.
        assert_eq!(proven(&next, &other), None);
        let stranger = AuthorSecret::from_bytes([3; 32]);
        assert_eq!(proven(&base, &run_of(&stranger, None, "xy")), None);
    }

    #[test]
    fn what_is_sent_as_a_proof_is_checked_as_it_stands() {
        let (one, other) = (run(None, "abc"), run(None, "abx"));
        let proof = |one: &VerifiedRun, other: &VerifiedRun| {
            ForkProof::new(one.run().clone(), other.run().clone()).verify(&space())
        };
        // They fork, but not where they begin: whoever proves cuts.
        let author = secret().id();
        let nothing = |first, second| ForkProofError::NoContradiction {
            author,
            first,
            second,
        };
        assert_eq!(proof(&one, &other), Err(nothing(1, 1)));
        assert_eq!(proof(&one, &one), Err(nothing(1, 1)));
        let next = run(Some(&one), "d");
        assert_eq!(proof(&one, &next), Err(nothing(1, 4)));
        let stranger = AuthorSecret::from_bytes([3; 32]);
        assert_eq!(
            proof(&one, &run_of(&stranger, None, "x")),
            Err(ForkProofError::TwoAuthors {
                first: author,
                second: stranger.id()
            })
        );
        let mut forged = other.above(2).unwrap().run().as_bytes().to_vec();
        *forged.last_mut().unwrap() ^= 1;
        let forged = Run::decode(forged.into()).unwrap();
        let forged = ForkProof::new(one.above(2).unwrap().into_run(), forged);
        assert_eq!(
            forged.verify(&space()),
            Err(ForkProofError::Run(RunError::WrongSignature {
                author,
                last_seq: 3
            }))
        );
    }

    proptest! {
        /// Two branches of one log, each cut into runs anywhere: any two runs that meet around the
        /// first difference prove it, and no two prove one that is not there.
        #[test]
        fn two_branches_prove_their_first_difference_and_nothing_below(
            shared in 0usize..6,
            ours in 1usize..6,
            theirs in 1usize..6,
            our_cut in 0usize..11,
            their_cut in 0usize..11,
        ) {
            let branch = |letter: char, own: usize, cut: usize| {
                let letters: String = "s".repeat(shared) + &letter.to_string().repeat(own);
                let whole = run(None, &letters);
                let cut = cut.min(letters.len() - 1);
                if cut == 0 {
                    return vec![whole];
                }
                let first = run(None, &letters[..cut]);
                let second = run(Some(&first), &letters[cut..]);
                vec![first, second]
            };
            let fork = shared as u64 + 1;
            let mut lowest = None;
            for one in branch('a', ours, our_cut) {
                for other in branch('b', theirs, their_cut) {
                    if let Some(seq) = proven(&one, &other) {
                        prop_assert!(seq >= fork);
                        lowest = Some(lowest.map_or(seq, |lowest: u64| lowest.min(seq)));
                    }
                }
            }
            prop_assert_eq!(lowest, Some(fork));
        }
    }
}
