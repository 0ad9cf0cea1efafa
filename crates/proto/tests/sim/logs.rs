//! Logs in memory, signed for real: the least a store can be.

use std::collections::BTreeMap;

use headwater_proto::{
    Appended, HeadRecord, HeadsPage, LocalClock, SpaceSummary, StoredRun, TailCheck, TailState,
    TailWant,
};
use headwater_wire::{
    Admission, AppendError, AuthorHead, AuthorId, AuthorSecret, ClockEntry, EventDraft, EventId,
    HeadsSummary, Run, SpaceId, VerifiedRun, admit, merge_runs, sign_genesis, sign_runs,
};

use crate::rng::Rng;

/// The `n`-th author's key.
pub(crate) fn author(n: u64) -> AuthorSecret {
    let mut seed = [7; 32];
    seed[..8].copy_from_slice(&n.to_be_bytes());
    AuthorSecret::from_bytes(seed)
}

/// A space's logs as one side holds them.
#[derive(Clone)]
pub(crate) struct Logs {
    pub(crate) space: SpaceId,
    pub(crate) owner: AuthorId,
    logs: BTreeMap<AuthorId, Vec<VerifiedRun>>,
    generation: u64,
}

impl Logs {
    /// A space with nothing but its genesis. Its owner is `author(owner)`.
    pub(crate) fn create(owner: u64) -> Self {
        let genesis = sign_genesis(&author(owner), [9; 16], 1_000);
        let mut logs = Self {
            space: genesis.space(),
            owner: genesis.author(),
            logs: BTreeMap::new(),
            generation: 0,
        };
        logs.append(genesis).expect("a genesis starts a space");
        logs
    }

    /// The same space, held nothing of.
    pub(crate) fn nothing_of(&self) -> Self {
        Self {
            logs: BTreeMap::new(),
            generation: 0,
            ..self.clone()
        }
    }

    /// Signs `events` new events of an author, cut into several runs at random.
    pub(crate) fn write(&mut self, secret: &AuthorSecret, events: u64, rng: &mut Rng) {
        let mut left = events;
        while left > 0 {
            let count = rng.between(1, left);
            left -= count;
            let drafts: Vec<_> = (0..count)
                .map(|_| {
                    let payload = vec![rng.next() as u8; rng.below(40) as usize];
                    EventDraft::new(16, rng.below(1 << 40), payload)
                })
                .collect();
            let base = self.head(&secret.id()).map(|record| record.entry.head);
            for run in sign_runs(&self.space, secret, base, drafts).expect("good drafts") {
                self.append(run).expect("it goes on from the head");
            }
        }
    }

    pub(crate) fn append(&mut self, run: VerifiedRun) -> Result<Appended, AppendError> {
        let author = run.author();
        if self.logs.is_empty() && !run.is_genesis() {
            return Err(AppendError::NoGenesis { space: self.space });
        }
        let head = self.head(&author).map(|record| record.entry.head);
        let admission = admit(head, &run, |seq| self.id_at(&author, seq))?;
        let new = match admission {
            Admission::Whole => run,
            Admission::Above(seq) => run.above(seq).expect("something is left"),
        };
        self.generation += 1;
        let appended = Appended {
            author,
            events: new.run().event_count() as u64,
            payload_bytes: new.run().payload_bytes(),
            head: new.head(),
        };
        self.logs.entry(author).or_default().push(new);
        Ok(appended)
    }

    /// Merges all runs of an author into one, as a store may at any time.
    pub(crate) fn merge(&mut self, author: &AuthorId) {
        let Some(runs) = self.logs.get_mut(author) else {
            return;
        };
        let parts: Vec<Run> = runs.iter().map(|run| run.run().clone()).collect();
        let merged = merge_runs(&parts).expect("short runs of one log");
        *runs = vec![merged.verify(&self.space).expect("valid runs stay valid")];
    }

    pub(crate) fn authors(&self) -> Vec<AuthorId> {
        self.logs.keys().copied().collect()
    }

    pub(crate) fn runs(&self, author: &AuthorId) -> &[VerifiedRun] {
        self.logs.get(author).map_or(&[], Vec::as_slice)
    }

    fn id_at(&self, author: &AuthorId, seq: u64) -> Option<EventId> {
        self.runs(author).iter().find_map(|run| run.id_at(seq))
    }

    /// Author, seq and id of every event, in order.
    pub(crate) fn events(&self) -> Vec<(AuthorId, u64, EventId)> {
        let runs = self.logs.values().flatten();
        runs.flat_map(|run| {
            let seqs = run.first_seq()..=run.last_seq();
            seqs.zip(run.ids())
                .map(|(seq, id)| (run.author(), seq, *id))
        })
        .collect()
    }

    pub(crate) fn entries(&self) -> Vec<ClockEntry> {
        let records = self.logs.keys().filter_map(|author| self.head(author));
        records.map(|record| record.entry).collect()
    }

    pub(crate) fn clock(&self) -> LocalClock {
        match self.summary() {
            Some(summary) => LocalClock::Held {
                owner: summary.owner,
                digest: summary.digest,
                authors: summary.authors,
            },
            None => LocalClock::Empty,
        }
    }

    pub(crate) fn summary(&self) -> Option<SpaceSummary> {
        if self.logs.is_empty() {
            return None;
        }
        let records = || self.logs.keys().filter_map(|author| self.head(author));
        Some(SpaceSummary {
            space: self.space,
            owner: self.owner,
            generation: self.generation,
            digest: HeadsSummary::from_entries(self.entries())
                .expect("a map is sorted")
                .digest(),
            authors: self.logs.len() as u64,
            events: records().map(|record| record.entry.head.seq).sum(),
            payload_bytes: records().map(|record| record.payload_bytes).sum(),
        })
    }

    pub(crate) fn head(&self, author: &AuthorId) -> Option<HeadRecord> {
        let runs = self.runs(author);
        let head = runs.last()?.head();
        Some(HeadRecord {
            entry: ClockEntry {
                author: *author,
                head,
                forked: false,
            },
            payload_bytes: runs.iter().map(|run| run.run().payload_bytes()).sum(),
        })
    }

    pub(crate) fn heads(&self, after: Option<AuthorId>, limit: usize) -> HeadsPage {
        let mut rest = self
            .logs
            .keys()
            .filter(|author| after.is_none_or(|after| **author > after));
        let heads = rest
            .by_ref()
            .take(limit)
            .filter_map(|author| self.head(author))
            .collect();
        HeadsPage {
            heads,
            last: rest.next().is_none(),
        }
    }

    pub(crate) fn check_tails(&self, stated: &[(AuthorId, AuthorHead)]) -> Vec<TailCheck> {
        let check = |(author, head): &(AuthorId, AuthorHead)| {
            let held = self.id_at(author, head.seq).expect("below our head");
            let above = self.runs(author).iter();
            TailCheck {
                author: *author,
                state: if held == head.id {
                    TailState::Same {
                        payload_bytes: above
                            .filter(|run| run.last_seq() > head.seq)
                            .map(|run| run.run().payload_bytes())
                            .sum(),
                    }
                } else {
                    TailState::Forked { held }
                },
            }
        };
        stated.iter().map(check).collect()
    }

    pub(crate) fn read_runs(&self, wants: &[TailWant], max_bytes: usize) -> Vec<StoredRun> {
        let mut found: Vec<StoredRun> = Vec::new();
        let mut bytes = 0;
        for want in wants {
            let mut above = want.above;
            for run in self.runs(&want.author) {
                if above >= want.through {
                    break;
                }
                let Some(run) = run.above(above) else {
                    continue;
                };
                bytes += run.run().as_bytes().len();
                if bytes > max_bytes && !found.is_empty() {
                    return found;
                }
                above = run.last_seq();
                found.push(stored(&run));
            }
        }
        found
    }
}

/// A run as a store hands it out.
pub(crate) fn stored(run: &VerifiedRun) -> StoredRun {
    StoredRun::of(run.run())
}
