//! Spaces, authors and runs to test with.

use bytes::Bytes;
use headwater_proto::history::{HeadRecord, StoredRun, TailWant};
use headwater_wire::{
    AuthorHead, AuthorId, AuthorSecret, ClockEntry, Event, EventDraft, HeadsDigest, Run, Signature,
    SignedHead, SpaceId, VerifiedForkProof, VerifiedRun, limits::MAX_PAYLOAD_BYTES, merge_runs,
    sign_genesis, sign_runs, tree::RootBuilder,
};

use crate::{Commit, LogStore};

/// One space: its genesis and the logs of its authors, as their authors hold them.
#[derive(Debug)]
pub struct World {
    /// The genesis run.
    pub genesis: VerifiedRun,
    /// The owner's log; it begins with the genesis.
    pub owner: Log,
}

impl World {
    /// A space of its own for each number.
    #[must_use]
    pub fn new(number: u8) -> World {
        let secret = AuthorSecret::from_bytes([number.wrapping_add(100); 32]);
        let genesis = sign_genesis(&secret, [number; 16], 1_700_000_000_000);
        let mut owner = Log::new(genesis.space(), secret);
        owner.runs.push(genesis.clone());
        World { genesis, owner }
    }

    /// The space's id.
    #[must_use]
    pub fn space(&self) -> SpaceId {
        self.genesis.space()
    }

    /// The empty log of an author of its own for each number.
    #[must_use]
    pub fn author(&self, number: u32) -> Log {
        let mut seed = [7; 32];
        seed[..4].copy_from_slice(&number.to_be_bytes());
        Log::new(self.space(), AuthorSecret::from_bytes(seed))
    }

    /// Puts the genesis into a store.
    pub fn found(&self, store: &dyn LogStore) {
        accepted(&store.append(std::slice::from_ref(&self.genesis)).unwrap());
    }

    /// All heads of the space, read page by page.
    #[must_use]
    pub fn heads(&self, store: &dyn LogStore) -> Vec<HeadRecord> {
        let mut heads = Vec::new();
        let mut after = None;
        loop {
            let page = store.heads(&self.space(), after, 100).unwrap();
            heads.extend(page.heads);
            if page.last {
                return heads;
            }
            after = heads.last().map(|head: &HeadRecord| head.entry.author);
        }
    }

    /// Checks that summary, heads and root say the same, and that everything verifies.
    pub fn assert_sound(&self, store: &dyn LogStore) {
        let summary = store.summary(&self.space()).unwrap().unwrap();
        let heads = self.heads(store);
        assert_eq!(summary.owner, self.owner.author());
        assert_eq!(summary.digest, root(heads.iter().map(|head| &head.entry)));
        assert_eq!(summary.authors, heads.len() as u64);
        let events: u64 = heads.iter().map(|head| head.entry.head.seq).sum();
        assert_eq!(summary.events, events);
        let payload_bytes: u64 = heads.iter().map(|head| head.payload_bytes).sum();
        assert_eq!(summary.payload_bytes, payload_bytes);
        let report = store.verify(&self.space(), &mut |_| {}).unwrap();
        assert_eq!(report.faults, []);
        assert_eq!((report.authors, report.events), (summary.authors, events));
        assert_eq!(report.payload_bytes, payload_bytes);
    }
}

/// One author's log, as the author holds it.
#[derive(Debug, Clone)]
pub struct Log {
    space: SpaceId,
    secret: AuthorSecret,
    /// Every run signed so far.
    pub runs: Vec<VerifiedRun>,
}

impl Log {
    fn new(space: SpaceId, secret: AuthorSecret) -> Log {
        Log {
            space,
            secret,
            runs: Vec::new(),
        }
    }

    /// The author.
    #[must_use]
    pub fn author(&self) -> AuthorId {
        self.secret.id()
    }

    /// The space the log belongs to.
    #[must_use]
    pub fn space(&self) -> SpaceId {
        self.space
    }

    /// The last event signed.
    #[must_use]
    pub fn head(&self) -> Option<AuthorHead> {
        self.runs.last().map(VerifiedRun::head)
    }

    /// Signs the next events, as few runs as may be.
    pub fn sign(&mut self, events: usize, payload_bytes: usize) -> Vec<VerifiedRun> {
        let first = self.head().map_or(1, |head| head.seq + 1);
        let drafts = (first..).take(events).map(|seq| {
            let mut payload = vec![0; payload_bytes];
            for (to, from) in payload.iter_mut().zip(seq.to_be_bytes().iter().cycle()) {
                *to = *from;
            }
            EventDraft::new(16, 1_700_000_000_000 + seq, payload)
        });
        let runs = sign_runs(&self.space, &self.secret, self.head(), drafts).unwrap();
        self.runs.extend(runs.iter().cloned());
        runs
    }

    /// Signs the next events as one run.
    pub fn run(&mut self, events: usize) -> VerifiedRun {
        let mut runs = self.sign(events, 40);
        assert_eq!(runs.len(), 1);
        runs.remove(0)
    }

    /// Signs the first three events of this log as one run of the largest length allowed, far
    /// longer than a signer here makes them: a tiny event, one of the largest, and the rest.
    pub fn largest_run(&mut self) -> VerifiedRun {
        // The longest last payload with which the run still decodes, by halves.
        let (mut fits, mut too_long) = (0, 2 * 64 * 1024);
        while too_long - fits > 1 {
            let middle = usize::midpoint(fits, too_long);
            match Run::decode(self.three_events(middle)) {
                Ok(_) => fits = middle,
                Err(_) => too_long = middle,
            }
        }
        let unsigned = self.three_events(fits);
        let ids = Run::decode(unsigned.clone())
            .unwrap()
            .event_ids(&self.space);
        let head = AuthorHead { seq: 3, id: ids[2] };
        let signature = SignedHead::sign(&self.secret, self.space, head).signature;
        let mut bytes = unsigned.to_vec();
        let end = bytes.len() - Signature::LEN;
        bytes[end..].copy_from_slice(signature.as_bytes());
        let run = Run::decode(bytes.into()).unwrap();
        let run = run.verify(&self.space).unwrap();
        self.runs.push(run.clone());
        run
    }

    /// Signs the first event of the [largest run](Self::largest_run) as a run of its own.
    pub fn largest_prefix(&mut self) -> VerifiedRun {
        let draft = EventDraft::new(16, LARGEST_STAMP, vec![1]);
        let runs = sign_runs(&self.space, &self.secret, None, [draft]).unwrap();
        self.runs.extend(runs.iter().cloned());
        runs.into_iter().next().unwrap()
    }

    /// The bytes of a run of the first three events, with an empty signature.
    fn three_events(&self, last_payload_bytes: usize) -> Bytes {
        let payloads = [
            vec![1],
            vec![2; MAX_PAYLOAD_BYTES],
            vec![3; last_payload_bytes],
        ];
        let mut bytes = self.author().as_bytes().to_vec();
        // First seq, events, channels.
        bytes.extend([1, 3, 0]);
        for (index, payload) in payloads.iter().enumerate() {
            // The first timestamp is absolute, the others say that it is the same.
            put_varint(&mut bytes, if index == 0 { LARGEST_STAMP } else { 0 });
            // Kind, no channel, no deps.
            bytes.extend([16, 0, 0]);
            put_varint(&mut bytes, payload.len() as u64 * 2);
        }
        bytes.extend(payloads.concat());
        bytes.extend([0; Signature::LEN]);
        bytes.into()
    }

    /// All events above `seq` as one run, if they fit one.
    #[must_use]
    pub fn joined_above(&self, seq: u64) -> Option<VerifiedRun> {
        let runs = self.runs.iter().filter(|run| run.last_seq() > seq);
        let runs: Vec<_> = runs.map(|run| run.run().clone()).collect();
        let joined = merge_runs(&runs)?.verify(&self.space).unwrap();
        joined.above(seq)
    }

    /// Signs another event than the log has after `base`.
    #[must_use]
    pub fn fork(&self, base: Option<AuthorHead>) -> VerifiedRun {
        let draft = EventDraft::new(17, 5, &b"another"[..]);
        sign_runs(&self.space, &self.secret, base, [draft])
            .unwrap()
            .remove(0)
    }

    /// Signs events that are this author's, but not this log's: one for each letter, after `base`.
    #[must_use]
    pub fn branch(&self, base: Option<AuthorHead>, letters: &str) -> VerifiedRun {
        let first = base.map_or(1, |base| base.seq + 1);
        let drafts = letters
            .bytes()
            .zip(first..)
            .map(|(letter, seq)| EventDraft::new(17, 1_700_000_000_000 + seq, vec![letter; 20]));
        sign_runs(&self.space, &self.secret, base, drafts)
            .unwrap()
            .remove(0)
    }

    /// Signs drafts after `base`, as one run that is not this log's.
    #[must_use]
    pub fn signed(&self, base: Option<AuthorHead>, drafts: Vec<EventDraft>) -> VerifiedRun {
        let mut runs = sign_runs(&self.space, &self.secret, base, drafts).unwrap();
        assert_eq!(runs.len(), 1);
        runs.remove(0)
    }

    /// Proof that this author forks after `base`, made of two events nobody has seen.
    #[must_use]
    pub fn proof(&self, base: Option<AuthorHead>) -> VerifiedForkProof {
        let (one, other) = (self.branch(base, "y"), self.branch(base, "z"));
        VerifiedForkProof::of(&one, &other).unwrap()
    }

    /// Every event signed so far.
    #[must_use]
    pub fn events(&self) -> Vec<Event> {
        self.runs
            .iter()
            .flat_map(|run| run.events().collect::<Vec<_>>())
            .collect()
    }

    /// The head at a seq.
    #[must_use]
    pub fn head_at(&self, seq: u64) -> Option<AuthorHead> {
        let id = self.runs.iter().find_map(|run| run.id_at(seq))?;
        Some(AuthorHead { seq, id })
    }

    /// A range of this log.
    #[must_use]
    pub fn want(&self, above: u64, through: u64) -> TailWant {
        TailWant {
            author: self.author(),
            above,
            through,
        }
    }

    /// Checks that runs a store returned hold exactly the events `above < seq <= through`.
    pub fn assert_serves(&self, runs: &[StoredRun], above: u64, through: u64) {
        let mut head = self.head_at(above);
        let mut seq = above;
        for stored in runs {
            assert_eq!(stored.author, self.author());
            assert_eq!(stored.first_seq, seq + 1);
            let run = headwater_wire::Run::decode(stored.bytes.clone()).unwrap();
            let run = run.verify(&self.space).unwrap();
            assert_eq!(run.base(), head);
            assert_eq!(run.first_seq(), stored.first_seq);
            assert_eq!(run.last_seq(), stored.last_seq);
            assert_eq!(run.run().payload_bytes(), stored.payload_bytes);
            assert_eq!(run.run().stub_count() as u64, stored.stubs);
            assert_eq!(Some(run.head()), self.head_at(stored.last_seq));
            head = Some(run.head());
            seq = stored.last_seq;
        }
        assert_eq!(seq, through);
    }
}

/// A timestamp of the greatest length on the wire.
const LARGEST_STAMP: u64 = u64::MAX;

fn put_varint(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

/// The root over heads in ascending order.
pub(super) fn root<'a>(heads: impl Iterator<Item = &'a ClockEntry>) -> HeadsDigest {
    let mut root = RootBuilder::new();
    for entry in heads {
        root.push(entry);
    }
    root.finish()
}

/// Checks that no run was refused.
#[track_caller]
pub(super) fn accepted(commit: &Commit) {
    for outcome in &commit.outcomes {
        assert!(outcome.is_ok(), "{outcome:?}");
    }
}
