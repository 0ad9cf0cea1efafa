//! What goes into an announcer and what comes out of it.

use core::{fmt, time::Duration};

use headwater_wire::{AuthorId, HeadsDigest};

use super::PeerStanding;

/// A peer, by the key of its endpoint.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerId([u8; 32]);

impl PeerId {
    /// Wraps the bytes as they are.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PeerId(")?;
        for byte in &self.0[..5] {
            write!(f, "{byte:02x}")?;
        }
        write!(f, ")")
    }
}

/// A log of ours that grew, by whatever way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grown {
    /// Whose log.
    pub author: AuthorId,
    /// Its last seq now.
    pub head_seq: u64,
    /// Bytes of the run that holds all of this author since an announcement named it last, if it
    /// is at hand and small. `None`: announce the head alone, as is done with what came by a sync.
    pub size: Option<usize>,
}

/// What an announcement, or a run that was sent to everybody, says of one author.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claim {
    /// The author.
    pub author: AuthorId,
    /// The last seq the sender says it holds, proven by the author's signature; the last one of a run,
    /// whether or not it could be applied.
    pub seq: u64,
    /// The last seq held here, after the run was applied. 0: none.
    pub held: u64,
}

/// A log that an announcement says forks. Its sender's word alone: nothing is cut because of it, the
/// sender is asked for the proof.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ForkClaim {
    /// Whose log.
    pub author: AuthorId,
    /// Whether the log is cut here just so, and there is nothing to ask for.
    pub known: bool,
}

/// A checked announcement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeardAnnouncement {
    /// Who signed it.
    pub from: PeerId,
    /// The neighbour that delivered it: the sender itself, or one that heard it before us.
    pub delivered_by: PeerId,
    /// The digest over the sender's heads.
    pub digest: HeadsDigest,
    /// Whether it names no log: then its digest is what it has to say.
    pub periodic: bool,
    /// What it says, one claim for each head.
    pub claims: Vec<Claim>,
    /// Logs it says fork.
    pub forks: Vec<ForkClaim>,
}

/// How a pull ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PullEnded {
    /// We hold all the peer held when the pull began.
    Complete {
        /// The digest over our heads afterwards.
        digest: HeadsDigest,
        /// How many events were stored.
        events: u64,
    },
    /// We hold all the peer held when the pull began, but for authors of whom nothing more is stored
    /// here, whatever peer brings it: see [`handle_not_taken`](super::Announcer::handle_not_taken).
    Taken {
        /// The digest over our heads afterwards.
        digest: HeadsDigest,
        /// How many events were stored.
        events: u64,
    },
    /// It ended well, but not all came: a budget, a fork or stubs were in the way, or it was ended
    /// for too much that is not stored here.
    Truncated,
    /// It broke off, or never began.
    Failed,
}

/// What the driver is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AnnouncerOutput {
    /// Broadcast one announcement: the digest and the heads as they are now.
    Announce {
        /// Authors whose signed heads it names, ascending; of a log that is cut, the last event that
        /// shows, and that it forks.
        changed: Vec<AuthorId>,
        /// Whether it names nothing, so that its digest is to be compared.
        periodic: bool,
    },
    /// Broadcast runs, in one message.
    SendRuns {
        /// Their authors, ascending; at least one. The runs together fit as long as they have the sizes
        /// stated in [`Grown::size`]. If one is larger by now, or gone, announce its head.
        authors: Vec<AuthorId>,
    },
    /// Pull from this peer, beside what is under way. Exactly one
    /// [`handle_pull_ended`](super::Announcer::handle_pull_ended) answers it.
    Pull {
        /// The provider.
        peer: PeerId,
    },
    /// End a pull under way at once: its place is needed. It is answered like any other that ends,
    /// by one [`handle_pull_ended`](super::Announcer::handle_pull_ended).
    GiveUp {
        /// The provider.
        peer: PeerId,
    },
    /// We hold all that this peer held a moment ago, as far as it is stored here: what is above a
    /// quota of ours, or not accepted, is not waited for.
    HistorySynced {
        /// Who.
        provider: PeerId,
        /// How many neighbours there are of which this is not known.
        still_pending: u64,
    },
}

/// Where an announcer stands.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AnnouncerStatus {
    /// Neighbours on the topic, ascending.
    pub neighbors: Vec<PeerId>,
    /// Neighbours of which it is not known whether they hold more than we do.
    pub unsettled_neighbors: usize,
    /// Announced heads, and proofs of announced forks, that are missing here.
    pub missing_heads: usize,
    /// Pulls under way, slow ones included, by peer, ascending.
    pub pulls: Vec<PeerId>,
    /// Peers that are left alone for now because pulls from them failed, and until when.
    pub backed_off: Vec<(PeerId, Duration)>,
    /// Peers whose word was put to the test, ascending: those pulled from or caught.
    pub standings: Vec<PeerStanding>,
    /// Logs that grew and were not yet announced.
    pub unannounced: usize,
    /// RFC 6206's *I*, while there is a neighbour to speak to.
    pub interval: Option<Duration>,
    /// What was counted since the start.
    pub counters: AnnouncerCounters,
}

/// Counts since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct AnnouncerCounters {
    /// Announcements that named heads, and messages of runs.
    pub announced: u64,
    /// Announcements of the digest alone.
    pub announced_periodic: u64,
    /// Periodic announcements not made because others had said the same.
    pub suppressed: u64,
    /// Logs that grew and were not announced because their heads had been heard.
    pub not_repeated: u64,
    /// Digests heard that differ from ours for good.
    pub differences: u64,
    /// Pulls begun.
    pub pulls: u64,
    /// Pulls that failed.
    pub pulls_failed: u64,
    /// Pulls that ended well without something their peer had announced.
    pub promises_broken: u64,
    /// Broken promises whose subject another peer brought: their peers had kept it back.
    pub withheld: u64,
    /// Pulls because of something that contradicts a log held here, without a proof of it.
    pub unproven: u64,
    /// Pulls given up because their place was needed.
    pub pulls_given_up: u64,
    /// Peers whose receipts were told to contradict each other.
    pub caught: u64,
    /// Missing heads given up: nobody who announced them could be brought to deliver.
    pub wants_dropped: u64,
    /// Missing heads not remembered: the table, or the sender's share of it, was full.
    pub wants_refused: u64,
}
