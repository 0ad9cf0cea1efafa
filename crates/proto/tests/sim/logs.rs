//! Logs in memory, signed for real: the least a store can be.

use std::collections::BTreeMap;

use headwater_proto::fork::{ForkLog, KnownFork};
use headwater_proto::{
    Appended, HeadRecord, HeadsPage, LocalClock, SpaceSummary, StoredRun, TailCheck, TailState,
    TailWant,
};
use headwater_wire::{
    Admission, AppendError, AuthorHead, AuthorId, AuthorSecret, ClockEntry, EventDraft, EventId,
    HeadsSummary, OverQuota, Revocation, Revoked, RevokedDigest, RosterState, Run, SpaceId,
    Subject, VerifiedForkProof, VerifiedRun, admit, merge_runs, sign_genesis, sign_runs,
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
    /// All that is stored, evidence included.
    logs: BTreeMap<AuthorId, Vec<VerifiedRun>>,
    /// The lowest proof of each author who forked.
    proofs: BTreeMap<AuthorId, VerifiedForkProof>,
    /// Runs of the owner's that are not stored and took something when they came.
    evidence: Vec<VerifiedRun>,
    /// Most events stored of an author.
    pub(crate) quota: Option<u64>,
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
            proofs: BTreeMap::new(),
            evidence: Vec::new(),
            quota: None,
            generation: 0,
        };
        logs.append(genesis).expect("a genesis starts a space");
        logs
    }

    /// The same space, held nothing of.
    pub(crate) fn nothing_of(&self) -> Self {
        Self {
            logs: BTreeMap::new(),
            proofs: BTreeMap::new(),
            evidence: Vec::new(),
            generation: 0,
            ..self.clone()
        }
    }

    /// The same, with an author kept back.
    pub(crate) fn without(&self, author: &AuthorId) -> Self {
        let mut logs = self.clone();
        logs.logs.remove(author);
        logs
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
            let base = self.end(&secret.id());
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
        let admission = match admit(self.end(&author), &run, |seq| self.id_at(&author, seq)) {
            Err(AppendError::Forked { .. }) => {
                let proofs = self.runs(&author).iter();
                let proofs = proofs.filter_map(|stored| VerifiedForkProof::of(stored, &run));
                let lowest = proofs.min_by_key(VerifiedForkProof::seq);
                self.cut(lowest.expect("what does not fit proves a fork"));
                self.absorb(&run);
                return Err(self.refusal(author));
            }
            admission => admission?,
        };
        let end = self.end(&author).map_or(0, |end| end.seq);
        if self.fork_at(&author).is_some_and(|fork| end + 1 >= fork) {
            return Err(self.refusal(author));
        }
        let new = match admission {
            Admission::Whole => run,
            Admission::Above(seq) => run.above(seq).expect("something is left"),
        };
        if let Some(limit) = self.quota.filter(|limit| new.last_seq() > *limit) {
            return Err(AppendError::OverQuota {
                author,
                quota: OverQuota::AuthorEvents,
                limit,
            });
        }
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

    fn refusal(&self, author: AuthorId) -> AppendError {
        let seq = self.fork_at(&author).expect("it is cut");
        AppendError::Forked { author, seq }
    }

    /// Keeps a proof if it is lower than the one held.
    pub(crate) fn cut(&mut self, proof: VerifiedForkProof) {
        let author = proof.author();
        if self.fork_at(&author).is_none_or(|held| proof.seq() < held) {
            self.generation += 1;
            self.proofs.insert(author, proof);
        }
    }

    pub(crate) fn fork_at(&self, author: &AuthorId) -> Option<u64> {
        self.proofs.get(author).map(VerifiedForkProof::seq)
    }

    /// The last event stored, shown or not.
    pub(crate) fn end(&self, author: &AuthorId) -> Option<AuthorHead> {
        Some(self.runs(author).last()?.head())
    }

    pub(crate) fn fork_log(&self, author: &AuthorId) -> ForkLog {
        let head = self.head(author).map(|record| record.entry.head);
        ForkLog {
            revoked: (*author == self.owner).then(|| self.revoked()),
            end: self.end(author),
            head: head.filter(|head| *head != AuthorHead::NONE),
            fork: self.proofs.get(author).map(|proof| KnownFork {
                seq: proof.seq(),
                proof: proof.clone().into_proof(),
            }),
        }
    }

    /// Takes in a run for what it revokes above a cut, and keeps it if that changes anything now.
    pub(crate) fn absorb(&mut self, run: &VerifiedRun) {
        if run.author() == self.owner {
            let before = self.revoked();
            self.evidence.push(run.clone());
            if self.revoked() == before {
                self.evidence.pop();
            }
        }
    }

    /// What shows of the owner's log grants so much.
    pub(crate) fn roster(&self) -> RosterState {
        let mut state = RosterState::new(self.owner);
        let shown = self.shown(&self.owner);
        let shown = shown.map_or(0, |record| record.entry.head.seq);
        let events = self.runs(&self.owner).iter().flat_map(VerifiedRun::events);
        for event in events.filter(|event| event.header.seq <= shown) {
            state.fold(&event);
        }
        state
    }

    /// Runs of the owner's, and where in them a revocation stands that counts above the cut.
    fn revocations(&self) -> Vec<(&VerifiedRun, u64, Revocation)> {
        let Some(fork) = self.fork_at(&self.owner) else {
            return Vec::new();
        };
        let shown = self.roster();
        let runs = self.runs(&self.owner).iter().chain(&self.evidence);
        let all = runs.flat_map(|run| run.run().revocations().map(move |(seq, it)| (run, seq, it)));
        let above = all.filter(|(_, seq, _)| *seq >= fork);
        above
            .filter_map(|(run, seq, it)| Some((run, seq, Revoked::relevant(&shown, &it)?)))
            .collect()
    }

    /// What is revoked above the cut of the owner's log.
    pub(crate) fn revoked(&self) -> Revoked {
        let revocations = self.revocations().into_iter();
        revocations.map(|(_, _, revocation)| revocation).collect()
    }

    /// The runs that show what is revoked of these subjects.
    pub(crate) fn evidence(&self, subjects: &[Subject]) -> Vec<Run> {
        let revocations = self.revocations().into_iter();
        let wanted = revocations.filter(|(_, _, it)| subjects.contains(&it.subject));
        let runs = wanted.filter_map(|(run, seq, _)| run.evidence_from(seq));
        runs.map(VerifiedRun::into_run).collect()
    }

    pub(crate) fn chain(&self, author: &AuthorId, seqs: &[u64]) -> Vec<Option<AuthorHead>> {
        let at = |seq: &u64| {
            let (seq, id) = (*seq, self.id_at(author, *seq)?);
            Some(AuthorHead { seq, id })
        };
        seqs.iter().map(at).collect()
    }

    /// The stored run that holds `seq`, cut to begin there.
    pub(crate) fn branch(&self, author: &AuthorId, seq: u64) -> Option<Run> {
        let mut runs = self.runs(author).iter();
        let run = runs.find(|run| run.id_at(seq).is_some())?;
        Some(run.above(seq - 1)?.into_run())
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
        self.names().copied().collect()
    }

    fn names(&self) -> impl Iterator<Item = &AuthorId> {
        let without_events = self.proofs.keys();
        let without_events = without_events.filter(|author| !self.logs.contains_key(author));
        let mut names: Vec<_> = self.logs.keys().chain(without_events).collect();
        names.sort();
        names.into_iter()
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
        let records = self.names().filter_map(|author| self.head(author));
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
        let records = || self.names().filter_map(|author| self.head(author));
        Some(SpaceSummary {
            space: self.space,
            owner: self.owner,
            generation: self.generation,
            digest: HeadsSummary::from_entries(self.entries())
                .expect("a map is sorted")
                .digest(),
            authors: records().count() as u64,
            events: records().map(|record| record.entry.head.seq).sum(),
            payload_bytes: records().map(|record| record.payload_bytes).sum(),
        })
    }

    pub(crate) fn head(&self, author: &AuthorId) -> Option<HeadRecord> {
        let mut record = self.shown(author)?;
        if *author == self.owner {
            record.entry.revoked = self.revoked().digest();
        }
        Some(record)
    }

    /// How far a log shows; of the owner's, without what is revoked.
    fn shown(&self, author: &AuthorId) -> Option<HeadRecord> {
        let fork = self.fork_at(author);
        let end = self.end(author);
        let head = match (end, fork) {
            (Some(end), Some(fork)) if end.seq >= fork => {
                let below = self.chain(author, &[fork - 1])[0];
                below.unwrap_or(AuthorHead::NONE)
            }
            (Some(end), _) => end,
            (None, Some(_)) => AuthorHead::NONE,
            (None, None) => return None,
        };
        let runs = self.runs(author).iter();
        Some(HeadRecord {
            entry: ClockEntry {
                author: *author,
                head,
                forked: fork.is_some(),
                revoked: RevokedDigest::NONE,
            },
            payload_bytes: runs
                .filter(|run| run.first_seq() <= head.seq)
                .map(|run| run.run().payload_bytes())
                .sum(),
        })
    }

    pub(crate) fn heads(&self, after: Option<AuthorId>, limit: usize) -> HeadsPage {
        let mut rest = self
            .names()
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
                if run.first_seq() > want.through {
                    break;
                }
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
