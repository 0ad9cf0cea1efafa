//! The older exchange: ask with a state hash, get a dump of up to 500 events.
//!
//! ```text
//! heads ─▶ share (≤ 500 events) ─▶ runs ─▶ order (causes first) ─▶ pack (fits the topic) ─▶ SyncBatch…
//! ```
//!
//! Old nodes speak it on the topic that new ones announce on. What they send is verified like
//! everything else; what they are answered is [`LegacyPolicy`].

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use bytes::Bytes;
use headwater::{
    Space, StoreError,
    proto::history::TailWant,
    wire::{
        AuthorId, ClockEntry, Run, SpaceId, kind, legacy::LegacyMessage, limits::MAX_LEGACY_EVENTS,
    },
};

/// What a request of the older exchange gets. Dumps that arrive are applied under
/// each of these. Both count only from neighbours the node's policy lets read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LegacyPolicy {
    /// Nothing.
    Ignore,
    /// An announcement of our heads: new nodes learn from it, an old one skips it. Nobody is
    /// sent history on the topic.
    #[default]
    AnnounceHeads,
    /// A dump of up to 500 events, split to fit the topic, besides a request of our own for what
    /// the old node holds. It goes to everybody on the topic, as it always did.
    ServeDump,
}

/// How the state hash in our own requests begins. Old nodes find the hash unlike their own and
/// answer; new ones know it and do not.
const OUR_STATE_HASH: &[u8; 24] = b"headwater asks old nodes";

/// The state hash of our request with this number: each differs, as iroh-gossip drops bytes it
/// has seen in the last 90 s.
pub(crate) fn our_state_hash(number: u64) -> [u8; 32] {
    let mut hash = [0; 32];
    hash[..24].copy_from_slice(OUR_STATE_HASH);
    hash[24..].copy_from_slice(&number.to_be_bytes());
    hash
}

/// Whether a request was made by a node that is not old.
pub(crate) fn is_ours(state_hash: &[u8; 32]) -> bool {
    state_hash.starts_with(OUR_STATE_HASH)
}

/// Bytes of a dump beside its entries: code and count.
const BATCH_FIXED_BYTES: usize = 3;

/// Bytes of an entry's length, at most.
const ENTRY_PREFIX_BYTES: usize = 3;

/// Bytes of runs a dump is made of, at most: 500 events of 8 KiB each. The whole dump is held in
/// memory and goes to everybody on the topic. Of a space with larger events it holds fewer; a dump
/// never was all of a large space.
const MAX_DUMP_BYTES: usize = 4 * 1024 * 1024;

/// A dump, ready to be broadcast.
#[derive(Debug, Default)]
pub(crate) struct Dump {
    pub(crate) messages: Vec<Bytes>,
    /// Runs no message can hold.
    pub(crate) too_large: usize,
}

/// Makes a dump of what is held.
pub(crate) async fn dump(space: &Space, max_bytes: usize) -> Result<Dump, StoreError> {
    let Some(summary) = space.summary().await? else {
        return Ok(Dump::default());
    };
    let mut heads: Vec<_> = space
        .heads_page(None, MAX_LEGACY_EVENTS)
        .await?
        .heads
        .into_iter()
        .map(|record| record.entry)
        .filter(|entry| entry.author != summary.owner)
        .collect();
    if let Some(owner) = space.head(summary.owner).await? {
        heads.insert(0, owner.entry);
    }
    let wants = share(&heads, MAX_LEGACY_EVENTS as u64);
    let (store, id, owner) = (Arc::clone(space.node().store()), space.id(), summary.owner);
    let make = move || {
        let stored = store.read_runs(&id, &wants, MAX_DUMP_BYTES)?;
        let runs = stored
            .into_iter()
            .filter_map(|stored| Run::decode(stored.bytes).ok());
        let runs = cut(runs.filter(|run| run.author() != owner || !sets_topic_secret(run, &id)));
        Ok(pack(order(runs, &id), &id, max_bytes))
    };
    // Panicked or cancelled: there is no dump.
    let made = tokio::task::spawn_blocking(make).await;
    made.unwrap_or_else(|_| Ok(Dump::default()))
}

/// Whether a run sets the topic's secret. Everybody on the topic hears a dump, and a secret is set
/// because somebody is no longer to hear: an old node gets the owner's log up to there.
fn sets_topic_secret(run: &Run, space: &SpaceId) -> bool {
    run.events(space)
        .any(|event| event.header.kind == kind::TOPIC_SECRET)
}

/// The first runs, as many as a dump may hold: by their events, and by their bytes.
fn cut(runs: impl Iterator<Item = Run>) -> Vec<Run> {
    let (mut events, mut bytes) = (MAX_LEGACY_EVENTS, MAX_DUMP_BYTES);
    let fitting = runs.map_while(|run| {
        events = events.checked_sub(run.event_count())?;
        bytes = bytes.checked_sub(run.as_bytes().len())?;
        Some(run)
    });
    fitting.collect()
}

/// The last events of each log, `total` in all: short logs whole, long ones as much as is left.
/// The first log, the owner's, is never left out.
fn share(heads: &[ClockEntry], total: u64) -> Vec<TailWant> {
    let most = usize::try_from(total).unwrap_or(usize::MAX);
    let heads = heads.get(..heads.len().min(most)).unwrap_or_default();
    let mut by_length: Vec<_> = heads
        .iter()
        .map(|entry| entry.head.seq)
        .enumerate()
        .collect();
    by_length.sort_by_key(|(_, length)| *length);
    let mut shares = vec![0; heads.len()];
    let (mut left, mut logs) = (total, heads.len() as u64);
    for (index, length) in by_length {
        let fair = left / logs.max(1);
        let taken = length.min(fair);
        if let Some(share) = shares.get_mut(index) {
            *share = taken;
        }
        left -= taken;
        logs -= 1;
    }
    heads
        .iter()
        .zip(shares)
        .map(|(entry, share)| TailWant {
            author: entry.author,
            above: entry.head.seq.saturating_sub(share),
            through: entry.head.seq,
        })
        .collect()
}

/// Puts runs into an order in which each comes after what it refers to, as far as that is among
/// them: the run before it in its log, and the runs its events depend on. Where runs depend on
/// each other in a circle, the first of them in the given order comes first.
fn order(runs: Vec<Run>, space: &SpaceId) -> Vec<Run> {
    let mut of_author: BTreeMap<AuthorId, Vec<usize>> = BTreeMap::new();
    for (index, run) in runs.iter().enumerate() {
        of_author.entry(run.author()).or_default().push(index);
    }
    let holding = |author: &AuthorId, seq: u64| {
        let of_author = of_author.get(author)?;
        let found = of_author.iter().find(|index| {
            runs.get(**index)
                .is_some_and(|run| (run.first_seq()..=run.last_seq()).contains(&seq))
        });
        found.copied()
    };
    let mut before: Vec<BTreeSet<usize>> = Vec::with_capacity(runs.len());
    for (index, run) in runs.iter().enumerate() {
        let mut causes = BTreeSet::new();
        causes.extend(holding(&run.author(), run.first_seq() - 1));
        for event in run.events(space) {
            for dep in &event.header.deps {
                causes.extend(holding(&dep.author, dep.seq));
            }
        }
        causes.remove(&index);
        before.push(causes);
    }
    let mut waiting: BTreeSet<usize> = (0..runs.len()).collect();
    let mut ordered = Vec::with_capacity(runs.len());
    while let Some(first) = waiting.first().copied() {
        let is_ready = |index: &&usize| {
            before
                .get(**index)
                .is_none_or(|causes| causes.is_disjoint(&waiting))
        };
        let next = waiting.iter().find(is_ready).copied().unwrap_or(first);
        waiting.remove(&next);
        ordered.extend(runs.get(next).cloned());
    }
    ordered
}

/// Fills messages with runs, in their order. Of a run that is too large for one go the last
/// events that are not.
fn pack(runs: Vec<Run>, space: &SpaceId, max_bytes: usize) -> Dump {
    let mut dump = Dump::default();
    let mut events: Vec<Bytes> = Vec::new();
    let mut len = BATCH_FIXED_BYTES;
    let room = max_bytes.saturating_sub(BATCH_FIXED_BYTES + ENTRY_PREFIX_BYTES);
    for run in runs {
        let Some(run) = end_that_fits(run, space, room) else {
            dump.too_large += 1;
            continue;
        };
        let bytes = run.as_bytes().clone();
        let entry = bytes.len() + ENTRY_PREFIX_BYTES;
        if len + entry > max_bytes {
            dump.messages.push(message(&mut events));
            len = BATCH_FIXED_BYTES;
        }
        len += entry;
        events.push(bytes);
    }
    if !events.is_empty() {
        dump.messages.push(message(&mut events));
    }
    dump
}

/// The run, or as much of its end as `room` holds: no signature stands at another place. `None`
/// if not even the last event fits.
fn end_that_fits(run: Run, space: &SpaceId, room: usize) -> Option<Run> {
    if run.as_bytes().len() <= room {
        return Some(run);
    }
    let (mut too_many, mut fitting) = (run.first_seq() - 1, None);
    let mut none = run.last_seq();
    while none - too_many > 1 {
        let above = too_many + (none - too_many) / 2;
        match run.above(space, above) {
            Some(end) if end.as_bytes().len() <= room => {
                none = above;
                fitting = Some(end);
            }
            _ => too_many = above,
        }
    }
    fitting
}

fn message(events: &mut Vec<Bytes>) -> Bytes {
    let events = std::mem::take(events);
    LegacyMessage::SyncBatch { events }.encode().into()
}

#[cfg(test)]
mod tests {
    use headwater::{EventDraft, EventRef, Headwater, Open};
    use headwater_wire::{AuthorHead, AuthorSecret, EventId, sign_runs};

    use super::*;

    fn author(number: u8) -> AuthorSecret {
        AuthorSecret::from_bytes([number; 32])
    }

    fn space() -> SpaceId {
        SpaceId::from_bytes([1; 32])
    }

    fn heads(lengths: &[u64]) -> Vec<ClockEntry> {
        let entry = |(at, seq): (usize, &u64)| ClockEntry {
            author: AuthorId::from_bytes([u8::try_from(at).unwrap(); 32]),
            head: AuthorHead {
                seq: *seq,
                id: EventId::from_bytes([0; 32]),
            },
            forked: false,
            revoked: headwater_wire::RevokedDigest::NONE,
        };
        lengths.iter().enumerate().map(entry).collect()
    }

    fn shares(lengths: &[u64], total: u64) -> Vec<u64> {
        share(&heads(lengths), total)
            .iter()
            .map(|want| want.through - want.above)
            .collect()
    }

    #[test]
    fn short_logs_go_whole_and_long_ones_share_what_is_left() {
        assert_eq!(shares(&[3, 1000, 5, 2000], 100), [3, 46, 5, 46]);
        assert_eq!(shares(&[3, 4], 100), [3, 4]);
        assert_eq!(shares(&[9; 200], 100).iter().sum::<u64>(), 100);
        assert_eq!(shares(&[], 100), [0; 0]);
    }

    /// One run of `author` with one event that depends on those.
    fn run(number: u8, base: Option<AuthorHead>, deps: Vec<EventRef>) -> Run {
        let mut draft = EventDraft::new(16, 0, vec![number; 50]);
        draft.deps = deps;
        let mut runs = sign_runs(&space(), &author(number), base, [draft]).unwrap();
        runs.remove(0).into_run()
    }

    fn end(run: &Run) -> EventRef {
        EventRef {
            author: run.author(),
            seq: run.last_seq(),
            id: run.id_at(&space(), run.last_seq()).unwrap(),
        }
    }

    fn head(run: &Run) -> AuthorHead {
        let EventRef { seq, id, .. } = end(run);
        AuthorHead { seq, id }
    }

    #[test]
    fn causes_come_before_what_depends_on_them() {
        let question = run(1, None, vec![]);
        let answer = run(2, None, vec![end(&question)]);
        let thanks = run(1, Some(head(&question)), vec![end(&answer)]);
        let elsewhere = EventRef {
            author: author(9).id(),
            ..end(&question)
        };
        let unrelated = run(3, None, vec![elsewhere]);
        let runs = vec![
            thanks.clone(),
            answer.clone(),
            unrelated.clone(),
            question.clone(),
        ];
        assert_eq!(order(runs, &space()), [unrelated, question, answer, thanks]);
    }

    #[test]
    fn runs_that_depend_on_each_other_in_a_circle_all_come() {
        let first = run(1, None, vec![]);
        let mut about_second = end(&first);
        about_second.author = author(2).id();
        let circle_one = run(1, None, vec![about_second]);
        let circle_two = run(2, None, vec![end(&circle_one)]);
        let runs = vec![circle_two.clone(), circle_one.clone()];
        assert_eq!(order(runs, &space()), [circle_two, circle_one]);
    }

    #[test]
    fn of_a_run_that_is_too_large_go_the_last_events_that_are_not() {
        let drafts = (0..50).map(|at| EventDraft::new(16, at, vec![3; 60]));
        let whole = sign_runs(&space(), &author(7), None, drafts).unwrap();
        let end = end_that_fits(whole[0].run().clone(), &space(), 1000).unwrap();
        assert!((900..=1000).contains(&end.as_bytes().len()));
        assert_eq!(end.last_seq(), 50);
        end.verify(&space()).unwrap();
    }

    #[test]
    fn a_dump_is_split_to_fit_and_what_never_fits_is_counted() {
        let mut draft = EventDraft::new(16, 0, vec![0; 2000]);
        draft.deps = vec![];
        let large = sign_runs(&space(), &author(7), None, [draft]).unwrap();
        let mut runs: Vec<_> = (1..=20).map(|number| run(number, None, vec![])).collect();
        runs.insert(3, large[0].run().clone());
        let small = runs.iter().filter(|run| run.as_bytes().len() < 1000);
        let small: Vec<_> = small.map(|run| run.as_bytes().clone()).collect();
        let dump = pack(runs, &space(), 1000);
        assert_eq!(dump.too_large, 1);
        let mut read = Vec::new();
        for message in dump.messages {
            assert!(message.len() <= 1000);
            match LegacyMessage::decode(message).unwrap().unwrap() {
                LegacyMessage::SyncBatch { events } => read.extend(events),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(read, small);
    }

    #[tokio::test]
    async fn a_dump_of_a_small_space_is_all_of_it_and_can_be_applied_in_its_order() {
        let node = Headwater::builder().policy(Open).open();
        let owner = author(1);
        let held = node.create_space(&owner).await.unwrap();
        for number in 2..6 {
            for _ in 0..10 {
                let draft = EventDraft::new(16, 0, vec![number; 60]);
                held.append(&author(number), draft).await.unwrap();
            }
        }
        let dump = dump(&held, 4000).await.unwrap();
        assert_eq!(dump.too_large, 0);
        let other = Headwater::builder().policy(Open).open();
        let copy = other.space(held.id());
        let from = iroh::SecretKey::from_bytes(&[1; 32]).public();
        for message in dump.messages {
            let Ok(Some(LegacyMessage::SyncBatch { events })) = LegacyMessage::decode(message)
            else {
                panic!("a batch");
            };
            for event in events {
                let run = Run::decode(event).unwrap();
                let outcome = copy.apply(vec![run], from).await.unwrap().remove(0);
                outcome.expect("goes on from what is held");
            }
        }
        let (one, two) = (held.summary().await.unwrap(), copy.summary().await.unwrap());
        assert_eq!(one.unwrap().digest, two.unwrap().digest);
    }

    #[test]
    fn a_dump_holds_no_more_bytes_than_it_may() {
        let draft = EventDraft::new(16, 0, vec![0; 60_000]);
        let large = sign_runs(&space(), &author(7), None, [draft]).unwrap();
        let run = large[0].run().clone();
        let runs = cut(std::iter::repeat_n(run.clone(), 400));
        let bytes: usize = runs.iter().map(|run| run.as_bytes().len()).sum();
        assert!(bytes <= MAX_DUMP_BYTES && bytes + run.as_bytes().len() > MAX_DUMP_BYTES);
    }

    #[tokio::test]
    async fn a_dump_of_a_large_space_has_at_most_500_events() {
        let node = Headwater::builder().policy(Open).open();
        let held = node.create_space(&author(1)).await.unwrap();
        for number in 2..6 {
            for _ in 0..30 {
                let drafts = (0..10).map(|at| EventDraft::new(16, at, vec![number; 60]));
                held.append_batch(&author(number), drafts.collect())
                    .await
                    .unwrap();
            }
        }
        let dump = dump(&held, 4000).await.unwrap();
        let mut events = 0;
        for message in dump.messages {
            if let Ok(Some(LegacyMessage::SyncBatch { events: entries })) =
                LegacyMessage::decode(message)
            {
                for entry in entries {
                    events += Run::decode(entry).unwrap().event_count();
                }
            }
        }
        assert!((300..=500).contains(&events), "{events}");
    }
}
