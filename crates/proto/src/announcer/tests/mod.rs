//! One announcer against a driver made of test code.

mod announcing;
mod bounds;
mod comparing;
mod forks;
mod pulling;
mod runs;
mod standing;
mod taken;

use super::*;

pub(super) const MS: Duration = Duration::from_millis(1);
pub(super) const SECOND: Duration = Duration::from_secs(1);

pub(super) fn peer(n: u64) -> PeerId {
    PeerId::from_bytes(key(n))
}

pub(super) fn author(n: u64) -> AuthorId {
    AuthorId::from_bytes(key(n))
}

pub(super) fn digest(n: u64) -> HeadsDigest {
    HeadsDigest::from_bytes(key(n))
}

fn key(n: u64) -> [u8; 32] {
    let mut key = [0; 32];
    key[..8].copy_from_slice(&n.to_be_bytes());
    key
}

/// A log grew to `head_seq`, and its run takes 300 bytes.
pub(super) fn small(n: u64, head_seq: u64) -> Grown {
    Grown {
        author: author(n),
        head_seq,
        size: Some(300),
    }
}

pub(super) fn large(n: u64, head_seq: u64) -> Grown {
    Grown {
        author: author(n),
        head_seq,
        size: None,
    }
}

/// `seq` is announced of an author of whom `held` is held.
pub(super) fn claim(n: u64, seq: u64, held: u64) -> Claim {
    Claim {
        author: author(n),
        seq,
        held,
    }
}

/// An announcer with a clock.
pub(super) struct Driven {
    pub(super) it: Announcer,
    pub(super) now: Duration,
    digests: u64,
}

impl Driven {
    /// Holds `digest(0)`, knows nobody.
    pub(super) fn alone(config: AnnouncerConfig, seed: u64) -> Self {
        Self {
            it: Announcer::new(config, seed, digest(0)),
            now: SECOND,
            digests: 0,
        }
    }

    /// Has neighbours 1 to `neighbors`, and has been compared with all of them.
    pub(super) fn settled(config: AnnouncerConfig, seed: u64, neighbors: u64) -> Self {
        let mut driven = Self::alone(config, seed);
        for neighbor in 1..=neighbors {
            driven.it.handle_neighbor_up(peer(neighbor), driven.now);
        }
        for _ in 0..neighbors {
            let id = driven.next_pull().expect("each is compared with");
            driven.complete(id);
        }
        assert_eq!(driven.it.status().unsettled_neighbors, 0);
        driven.run_for(4 * SECOND);
        driven
    }

    pub(super) fn with_neighbors(neighbors: u64) -> Self {
        Self::settled(AnnouncerConfig::default(), 1, neighbors)
    }

    pub(super) fn outputs(&mut self) -> Vec<AnnouncerOutput> {
        core::iter::from_fn(|| self.it.poll_output()).collect()
    }

    /// Lets time pass, and tells what was asked for, and when.
    pub(super) fn run_for(&mut self, time: Duration) -> Vec<(Duration, AnnouncerOutput)> {
        let until = self.now + time;
        let mut timed: Vec<_> = self.outputs().into_iter().map(|o| (self.now, o)).collect();
        while let Some(due) = self.it.next_timeout().filter(|due| *due <= until) {
            self.now = self.now.max(due);
            self.it.handle_timeout(self.now);
            timed.extend(self.outputs().into_iter().map(|o| (self.now, o)));
        }
        self.now = until;
        timed
    }

    /// Lets time pass until a pull is asked for, a minute at most.
    pub(super) fn next_pull(&mut self) -> Option<PeerId> {
        let until = self.now + 60 * SECOND;
        loop {
            for output in self.outputs() {
                if let AnnouncerOutput::Pull { peer } = output {
                    return Some(peer);
                }
            }
            let due = self.it.next_timeout().filter(|due| *due <= until)?;
            self.now = self.now.max(due);
            self.it.handle_timeout(self.now);
        }
    }

    /// The pulls of the next minute, each answered by `answer`.
    pub(super) fn pulls(
        &mut self,
        mut answer: impl FnMut(&mut Self, PeerId) -> PullEnded,
    ) -> Vec<PeerId> {
        let until = self.now + 60 * SECOND;
        let mut asked = Vec::new();
        while self.now < until
            && let Some(id) = self.next_pull()
        {
            asked.push(id);
            let ended = answer(self, id);
            self.it.handle_pull_ended(id, ended, self.now);
        }
        asked
    }

    pub(super) fn since(&self, began: Duration) -> Duration {
        self.now.saturating_sub(began)
    }

    /// A digest nobody had before.
    pub(super) fn fresh_digest(&mut self) -> HeadsDigest {
        self.digests += 1;
        digest(1_000_000 + self.digests)
    }

    pub(super) fn grow(&mut self, grown: Vec<Grown>) {
        let digest = self.fresh_digest();
        self.it.handle_grown(digest, grown, self.now);
    }

    /// The pull brought nothing.
    pub(super) fn complete(&mut self, id: PeerId) {
        let ended = self.nothing_new();
        self.it.handle_pull_ended(id, ended, self.now);
    }

    pub(super) fn nothing_new(&self) -> PullEnded {
        PullEnded::Complete {
            digest: self.it.digests.ours(),
            events: 0,
        }
    }

    pub(super) fn fail(&mut self, id: PeerId) {
        let failed = PullEnded::Failed;
        self.it.handle_pull_ended(id, failed, self.now);
    }

    /// A neighbour announces heads of its own, or of others.
    pub(super) fn hear(&mut self, from: u64, claims: Vec<Claim>) {
        self.hear_by(from, from, claims);
    }

    /// Somebody's heads come by way of a neighbour.
    pub(super) fn hear_by(&mut self, from: u64, delivered_by: u64, claims: Vec<Claim>) {
        let heard = HeardAnnouncement {
            from: peer(from),
            delivered_by: peer(delivered_by),
            digest: self.fresh_digest(),
            periodic: false,
            claims,
            forks: Vec::new(),
        };
        self.it.handle_announcement(heard, self.now);
    }

    pub(super) fn hear_digest(&mut self, from: u64, delivered_by: u64, digest: HeadsDigest) {
        let heard = HeardAnnouncement {
            from: peer(from),
            delivered_by: peer(delivered_by),
            digest,
            periodic: true,
            claims: Vec::new(),
            forks: Vec::new(),
        };
        self.it.handle_announcement(heard, self.now);
    }

    pub(super) fn ours(&self) -> HeadsDigest {
        self.it.digests.ours()
    }
}

/// How many heads are announced and how many runs sent, by message.
pub(super) fn announced(outputs: &[(Duration, AnnouncerOutput)]) -> Vec<(usize, usize)> {
    outputs
        .iter()
        .filter_map(|(_, output)| match output {
            AnnouncerOutput::Announce { changed, .. } => Some((changed.len(), 0)),
            AnnouncerOutput::SendRuns { authors } => Some((0, authors.len())),
            _ => None,
        })
        .collect()
}
