//! The one interface every store has.
//!
//! ```text
//!   VerifiedRun… ──▶ append ──▶ Commit            one call, one transaction
//!   SpaceId      ──▶ summary / heads / check_tails ──▶ what a plan is made of
//!   TailWant…    ──▶ read_runs ──▶ StoredRun…      the bytes as they were received
//!   ForkProof    ──▶ cut ──▶ fork / chain / branch  what is known of a log that forks
//! ```
//!
//! A log is stored as one chain from its first event, and shown up to its *visible head*: the
//! last event stored, or the event below the lowest fork proven, or the last one accepted of its
//! author, whichever is lowest. What lies above is kept and not shown; above a fork it is
//! *evidence*. Everything here but [`fork`](LogStore::fork), [`forks`](LogStore::forks),
//! [`chain`](LogStore::chain), [`stored_end`](LogStore::stored_end) and
//! [`branch`](LogStore::branch) speaks of what is visible.
//!
//! Invariant: the head of a log, its runs, the totals of the space and the root of the heads
//! tree change in the same commit, so no reader ever sees one without the others.
//!
//! Invariant: a log that forks and of which nothing is visible has an entry all the same, with
//! [`AuthorHead::NONE`]. One that does not fork has no entry while nothing of it is visible.

use std::fmt;

use headwater_proto::history::{
    Appended, HeadRecord, HeadsPage, SpaceSummary, StoredRun, TailCheck, TailWant,
};
use headwater_wire::{
    AppendError, AuthorHead, AuthorId, Event, ForkProof, Revoked, Run, SpaceId, Subject,
    VerifiedForkProof, VerifiedRun,
};

use crate::{Damage, Quotas, StoreError, Usage};

/// Holds the logs of any number of spaces.
///
/// All methods block. Those that read see the state after some whole [`append`](Self::append),
/// never half of one; two calls may see two different states. A store may be shared between
/// threads; appends wait for each other, reads wait for nobody.
pub trait LogStore: Send + Sync + fmt::Debug + 'static {
    /// Returns the random number that was given to this store when it was created.
    ///
    /// A cursor names it, so that a peer whose store was replaced is not taken for the old one.
    fn id(&self) -> StoreId;

    /// Appends runs in order, in one transaction over any spaces and authors.
    ///
    /// Each run is admitted or refused on its own: `outcomes` has one entry for each run, in the
    /// same order. Runs of one log build on each other within the call. An overlap that equals
    /// what is stored is cut off. A space comes into being with its genesis.
    ///
    /// A run that contradicts its log proves a fork: the proof is kept, the log is cut below the
    /// fork, [`Commit::forks`] names it, and the run's outcome is [`AppendError::Forked`], unless
    /// something of it is still to be shown below the cut. A run for a log that is cut is admitted
    /// as far as it brings something below the cut, and whole then.
    ///
    /// A run that lies wholly above what is [accepted](Self::restrict) of its author is refused
    /// with [`AppendError::NotAccepted`]; one that spans the bound is stored whole.
    ///
    /// On return the commit is durable, as far as the store is: on disk for the disk store, in
    /// this process for the memory store.
    ///
    /// # Errors
    ///
    /// Nothing of the call is stored on any error, and nothing may be acknowledged.
    /// [`StoreError::Damaged`] names the space or the log that stands in the way; the others of
    /// the call can be appended without it.
    fn append(&self, runs: &[VerifiedRun]) -> Result<Commit, StoreError> {
        self.append_within(runs, &Quotas::NONE)
    }

    /// As [`append`](Self::append), and stores no more than the quotas allow.
    ///
    /// A run is refused with [`AppendError::OverQuota`] if its log or its space, with what the call
    /// has stored before, would hold more with it; nothing of it is stored, and the other runs go
    /// on. A fork it proves is found all the same, as a proof does not count.
    ///
    /// # Errors
    ///
    /// See [`append`](Self::append).
    fn append_within(&self, runs: &[VerifiedRun], quotas: &Quotas) -> Result<Commit, StoreError>;

    /// As [`append_within`](Self::append_within), if it waits for nothing: neither for a disk nor for another
    /// call. `None` if it would, and then nothing was done; a call without runs only asks. The
    /// default, for stores that write to a disk, is `None` always.
    ///
    /// What is appended so needs no [`settle`](Self::settle).
    ///
    /// # Errors
    ///
    /// See [`append`](Self::append).
    fn append_at_once(
        &self,
        runs: &[VerifiedRun],
        quotas: &Quotas,
    ) -> Option<Result<Commit, StoreError>> {
        let _ = (runs, quotas);
        None
    }

    /// Returns how much is stored of one log and of its space, shown or not; nothing if they are
    /// not held.
    ///
    /// # Errors
    ///
    /// The store is unchanged on every error.
    fn usage(&self, space: &SpaceId, author: &AuthorId) -> Result<Usage, StoreError>;

    /// Returns how many bytes can still be written to where this store keeps its logs; `None` if
    /// that is not bounded, or not known. The default is `None`.
    ///
    /// # Errors
    ///
    /// If the system cannot say.
    fn free_bytes(&self) -> Result<Option<u64>, StoreError> {
        Ok(None)
    }

    /// Lists the spaces held, ascending.
    ///
    /// Says nothing about their state: a space whose record is damaged is listed, and asking for
    /// its [`summary`](Self::summary) says so.
    ///
    /// # Errors
    ///
    /// The store is unchanged on every error.
    fn spaces(&self) -> Result<Vec<SpaceId>, StoreError>;

    /// Returns owner, generation, digest and totals of a space, or `None` if it is not held.
    ///
    /// Costs one look-up, whatever the number of authors.
    ///
    /// # Errors
    ///
    /// The store is unchanged on every error.
    fn summary(&self, space: &SpaceId) -> Result<Option<SpaceSummary>, StoreError>;

    /// Returns the head of one log, or `None` if nothing of it is held.
    ///
    /// # Errors
    ///
    /// The store is unchanged on every error.
    fn head(&self, space: &SpaceId, author: &AuthorId) -> Result<Option<HeadRecord>, StoreError>;

    /// Returns up to `limit` heads whose author is above `after`, ascending by author.
    ///
    /// A space that is not held answers an empty last page.
    ///
    /// # Errors
    ///
    /// The store is unchanged on every error.
    fn heads(
        &self,
        space: &SpaceId,
        after: Option<AuthorId>,
        limit: usize,
    ) -> Result<HeadsPage, StoreError>;

    /// Compares heads stated by a peer with the logs held, and answers in the same order.
    ///
    /// Only logs that reach the stated seq can be compared: an author who is not held, or whose
    /// log here ends below the stated seq, has no entry in the answer.
    ///
    /// # Errors
    ///
    /// The store is unchanged on every error. [`StoreError::Damaged`] names the log that could
    /// not be compared; ask again without it.
    fn check_tails(
        &self,
        space: &SpaceId,
        stated: &[(AuthorId, AuthorHead)],
    ) -> Result<Vec<TailCheck>, StoreError>;

    /// Returns stored runs for the ranges wanted, in the order of `wants`, ascending within one.
    ///
    /// Stops before the run that would exceed `max_bytes`, but returns at least one run if any
    /// is wanted and held; the caller goes on from the last one returned. Every run's bytes are
    /// checked against their hash before they are returned.
    ///
    /// Runs come as they were received, with two exceptions. The first run of a range is cut to
    /// begin above `above`. And a range may end in the middle of a stored run, because small runs
    /// were merged since `through` was a head, or because the visible head lies there: no signature
    /// stands there, so the whole run is returned and its `last_seq` is above `through`.
    ///
    /// # Errors
    ///
    /// The store is unchanged on every error. [`StoreError::Damaged`] names the run that cannot
    /// be served, and is returned only if that run is the first of the answer: what comes before
    /// a damaged run is returned, and other authors can be asked for without it.
    fn read_runs(
        &self,
        space: &SpaceId,
        wants: &[TailWant],
        max_bytes: usize,
    ) -> Result<Vec<StoredRun>, StoreError>;

    /// Returns one event, or `None` if it is not held.
    ///
    /// # Errors
    ///
    /// The store is unchanged on every error.
    fn event(
        &self,
        space: &SpaceId,
        author: &AuthorId,
        seq: u64,
    ) -> Result<Option<Event>, StoreError>;

    /// Checks a whole space again: every run's bytes, signature and hashes, every link of every
    /// chain, every head, the totals and the heads tree.
    ///
    /// What is wrong with what is stored is in the report, not an error. A space that is not
    /// held answers an empty report. `progress` is called after each run or so.
    ///
    /// # Errors
    ///
    /// The store is unchanged on every error; errors here mean that the check itself could not
    /// go on.
    fn verify(
        &self,
        space: &SpaceId,
        progress: &mut dyn FnMut(VerifyProgress),
    ) -> Result<VerifyReport, StoreError>;

    /// Keeps a fork proof and cuts the log below the fork, unless a fork as low or lower is proven
    /// already.
    ///
    /// If the event stored below the fork is not the one the proof goes on from, the two of them
    /// prove a lower fork, and that one is kept instead. [`Commit::forks`] names the fork if it is
    /// news here; the space has a new generation if its heads changed. Nothing need be held of the
    /// author. Nothing is kept for a space that is not held.
    ///
    /// # Errors
    ///
    /// Nothing is changed on any error. [`StoreError::Damaged`] names the log that could not be
    /// cut.
    fn cut(&self, proof: &VerifiedForkProof) -> Result<Commit, StoreError>;

    /// Returns the lowest fork known of a log, with its proof; `None` if none is known.
    ///
    /// # Errors
    ///
    /// The store is unchanged on every error.
    fn fork(&self, space: &SpaceId, author: &AuthorId) -> Result<Option<ForkRecord>, StoreError>;

    /// Returns up to `limit` forks whose author is above `after`, ascending by author. Fewer than
    /// `limit` are the last; `limit` is at least 1.
    ///
    /// # Errors
    ///
    /// The store is unchanged on every error.
    fn forks(
        &self,
        space: &SpaceId,
        after: Option<AuthorId>,
        limit: usize,
    ) -> Result<Vec<ForkRecord>, StoreError>;

    /// Returns the stored events at these seqs, what is not visible included; one entry for each
    /// seq, `None` where nothing is stored.
    ///
    /// # Errors
    ///
    /// The store is unchanged on every error.
    fn chain(
        &self,
        space: &SpaceId,
        author: &AuthorId,
        seqs: &[u64],
    ) -> Result<Vec<Option<AuthorHead>>, StoreError>;

    /// Returns the last event stored of a log, visible or not.
    ///
    /// # Errors
    ///
    /// The store is unchanged on every error.
    fn stored_end(
        &self,
        space: &SpaceId,
        author: &AuthorId,
    ) -> Result<Option<AuthorHead>, StoreError>;

    /// Returns the stored run that holds the event at `seq`, visible or not, cut to begin there,
    /// and with every payload left out: it is there to prove, not to be read. `None` if the event
    /// is not stored.
    ///
    /// # Errors
    ///
    /// The store is unchanged on every error.
    fn branch(
        &self,
        space: &SpaceId,
        author: &AuthorId,
        seq: u64,
    ) -> Result<Option<Run>, StoreError>;

    /// Sets the last seq that is accepted of an author, 0 for nothing at all; `None` lifts it.
    ///
    /// What is stored above stays and is not shown; lifting the bound shows it again. A log nothing
    /// is accepted of has no entry among the heads, not even if it forks. The space has a new
    /// generation if its heads changed. Nothing need be held of the author. Nothing is kept for a
    /// space that is not held.
    ///
    /// # Errors
    ///
    /// Nothing is changed on any error. [`StoreError::Damaged`] names the log whose head could not
    /// be set.
    fn restrict(
        &self,
        space: &SpaceId,
        author: &AuthorId,
        through: Option<u64>,
    ) -> Result<Commit, StoreError>;

    /// Returns the last seq that is accepted of an author; `None` if there is no such bound.
    ///
    /// # Errors
    ///
    /// The store is unchanged on every error.
    fn restriction(&self, space: &SpaceId, author: &AuthorId) -> Result<Option<u64>, StoreError>;

    /// Returns up to `limit` authors above `after` for whom there is such a bound, ascending,
    /// whether their logs have an entry among the heads or not. Fewer than `limit` are the last;
    /// `limit` is at least 1.
    ///
    /// # Errors
    ///
    /// The store is unchanged on every error.
    fn restricted(
        &self,
        space: &SpaceId,
        after: Option<AuthorId>,
        limit: usize,
    ) -> Result<Vec<AuthorId>, StoreError>;

    /// Returns how the bounds of a space stand to what its owner's log says; `None` if the space is
    /// not held.
    ///
    /// # Errors
    ///
    /// The store is unchanged on every error.
    fn bounds(&self, space: &SpaceId) -> Result<Option<Bounds>, StoreError>;

    /// Notes how they stand. Nothing is kept for a space that is not held.
    ///
    /// A store changes it by itself in one case: what stands at [`Bounds::Kept`] is [`Bounds::Due`]
    /// in the transaction that changes what the owner's log says about who may write.
    ///
    /// # Errors
    ///
    /// Nothing is changed on any error.
    fn set_bounds(&self, space: &SpaceId, bounds: Bounds) -> Result<(), StoreError>;

    /// Takes in runs of owners for what they revoke above the place where the owner's log forks.
    ///
    /// Whether they go on from what is stored does not matter: the owner signed them. Kept is what
    /// takes away something that the visible log grants and nothing known takes already, without
    /// the payloads of other events; all else changes nothing, as does a run of a log that does not
    /// fork. A run that [`append`](Self::append) refuses is taken in likewise.
    /// [`Commit::rosters`] names the spaces where something changed. Reads the owner's log, unless
    /// what was read last still holds.
    ///
    /// # Errors
    ///
    /// Nothing is changed on any error.
    fn absorb(&self, runs: &[VerifiedRun]) -> Result<Commit, StoreError>;

    /// Returns what revocations above the place where the owner's log forks take away; nothing if it
    /// does not fork. The entry of that log has the digest of it.
    ///
    /// Reads the owner's log where something is revoked, unless what was read last still holds.
    ///
    /// # Errors
    ///
    /// The store is unchanged on every error.
    fn revoked(&self, space: &SpaceId) -> Result<Revoked, StoreError>;

    /// Returns runs that show what [`revoked`](Self::revoked) says of these subjects: each begins
    /// with a revocation, and holds no payloads but those of revocations.
    ///
    /// # Errors
    ///
    /// The store is unchanged on every error.
    fn evidence(&self, space: &SpaceId, subjects: &[Subject]) -> Result<Vec<Run>, StoreError>;

    /// Tells the store that no append is expected soon, so that it may tidy up.
    ///
    /// Nothing depends on this for safety. The disk store saves what makes the next start after
    /// a kill fast; call it when appends pause.
    ///
    /// # Errors
    ///
    /// What was acknowledged stays acknowledged on every error.
    fn settle(&self) -> Result<(), StoreError> {
        Ok(())
    }
}

/// How the [bounds](LogStore::restrict) in a store stand to what the owner's log says. Whoever sets
/// bounds by it need not look at every log again when they start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Bounds {
    /// Nobody sets any by it.
    #[default]
    None,
    /// They may lag behind it.
    Due,
    /// They are as it says.
    Kept,
}

/// The random number a store was given when it was created.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct StoreId([u8; 16]);

impl StoreId {
    /// Makes a store id of these bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> StoreId {
        StoreId(bytes)
    }

    /// Returns the bytes of this id.
    #[must_use]
    pub const fn to_bytes(self) -> [u8; 16] {
        self.0
    }

    /// Draws a new id from the system's randomness.
    pub(crate) fn random() -> Result<StoreId, StoreError> {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes).map_err(|error| StoreError::Randomness {
            reason: error.to_string(),
        })?;
        Ok(StoreId(bytes))
    }
}

impl fmt::Debug for StoreId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StoreId({:032x})", u128::from_be_bytes(self.0))
    }
}

/// What one [`append`](LogStore::append), [`cut`](LogStore::cut) or
/// [`restrict`](LogStore::restrict) did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[must_use = "a run may have been refused"]
pub struct Commit {
    /// One outcome for each run, in the order of the call.
    pub outcomes: Vec<Result<Appended, AppendError>>,
    /// The new generation of each space whose heads changed, ascending by space.
    pub generations: Vec<(SpaceId, u64)>,
    /// The forks that were not known before, or not as low, ascending; each log once.
    pub forks: Vec<ForkFound>,
    /// The spaces, ascending, whose owner's log forks and is cut or bounded elsewhere, shows more that
    /// grants or revokes, or has other revocations above the cut now: who may do what has to be read
    /// anew.
    pub rosters: Vec<SpaceId>,
}

/// A fork this store did not know of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ForkFound {
    /// The space.
    pub space: SpaceId,
    /// Whose log forks.
    pub author: AuthorId,
    /// Where: the log is cut below it.
    pub seq: u64,
}

/// What is known of a log that forks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForkRecord {
    /// Whose log.
    pub author: AuthorId,
    /// The lowest seq at which the author is known to have signed two events.
    pub seq: u64,
    /// The proof of it.
    pub proof: ForkProof,
    /// The visible head, below the fork; `None` if nothing is visible.
    pub head: Option<AuthorHead>,
    /// How many events are stored at the fork and above it.
    pub evidence_events: u64,
}

/// How far [`verify`](LogStore::verify) has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VerifyProgress {
    /// Events checked so far.
    pub events: u64,
    /// Events the space says it holds.
    pub total_events: u64,
    /// Authors checked so far.
    pub authors: u64,
    /// Authors the space says it holds.
    pub total_authors: u64,
}

/// What [`verify`](LogStore::verify) found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VerifyReport {
    /// Authors whose log was checked.
    pub authors: u64,
    /// Runs that are sound, one signature each.
    pub runs: u64,
    /// Visible events in those runs.
    pub events: u64,
    /// Events among them whose payload is not held.
    pub stubs: u64,
    /// Bytes of payload in the visible events.
    pub payload_bytes: u64,
    /// Bytes of those runs as they are stored and sent.
    pub run_bytes: u64,
    /// The forks known, ascending by author, at most [`VerifyReport::MAX_FORKS`] of them. A fork is
    /// the author's fault, none of the store's.
    pub forks: Vec<ForkSummary>,
    /// How many forks are known, counting those `forks` had no room for.
    pub fork_count: u64,
    /// Everything that is wrong, at most [`VerifyReport::MAX_FAULTS`] of it.
    pub faults: Vec<Damage>,
    /// How much is wrong, counting what `faults` had no room for.
    pub fault_count: u64,
}

/// A fork in a [`VerifyReport`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ForkSummary {
    /// Whose log.
    pub author: AuthorId,
    /// The lowest seq at which the author is known to have signed two events.
    pub seq: u64,
    /// How many events are stored at the fork and above it.
    pub evidence_events: u64,
}

impl VerifyReport {
    /// The most forks a report lists.
    pub const MAX_FORKS: usize = 1_000;

    /// The most faults a report lists.
    pub const MAX_FAULTS: usize = 1_000;

    /// Returns whether everything held is sound.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.fault_count == 0
    }

    pub(crate) fn fork(&mut self, fork: ForkSummary) {
        self.fork_count += 1;
        if self.forks.len() < Self::MAX_FORKS {
            self.forks.push(fork);
        }
    }

    pub(crate) fn note(&mut self, fault: Damage) {
        self.fault_count += 1;
        if self.faults.len() < Self::MAX_FAULTS {
            self.faults.push(fault);
        }
    }
}
