//! Tells watchers which logs grew or were cut, in the order of the commits.
//!
//! ```text
//! writer ──▶ publish(space, author, above..=through) ──▶ one pending range per log and watcher
//!                                                                 │
//!                                   watcher ◀── take() ───────────┘  then reads the store
//! ```
//!
//! A log that was cut below a fork is told of likewise, once for each lower fork.
//!
//! Invariants:
//!
//! - What a watcher owes its reader are ranges, not events. Two commits to one log widen one range,
//!   so memory is bounded by the number of authors and nothing is ever dropped: the store is the
//!   queue. Beside a range may lie the one small run that it is, to spare reading it: never more
//!   than [`FRESH_BYTES`] of them.
//! - What a watcher takes of a log goes on where the last take ended, but for what its own reader
//!   sent: a commit is shown whole, in its order, under one lock.

use std::{
    collections::{BTreeMap, HashMap, btree_map::Entry},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use headwater_proto::{Appended, TailWant};
use headwater_wire::{AuthorId, SpaceId, VerifiedRun};
use iroh::EndpointId;
use tokio::sync::Notify;

/// Largest run that lies beside its range, in bytes of memory. A reader that keeps up gets a
/// message or a reading without a look into the store; for larger runs the look hardly counts.
const FRESH_RUN_BYTES: usize = 4 * 1024;

/// Bytes of memory of such runs that one watcher holds at most: some 150 events of 200 bytes, a
/// burst, and little enough for a reader that is slow or has gone to sleep.
const FRESH_BYTES: usize = 64 * 1024;

/// What an event of a run takes beside its wire bytes: its id, and the facts of its header.
const EVENT_BYTES: usize = 80;

/// What a run takes in memory when it is detached from the frame it came in.
fn memory_of(run: &VerifiedRun) -> usize {
    run.run().as_bytes().len() + EVENT_BYTES * run.run().event_count()
}

/// The watchers of every space.
#[derive(Debug, Default)]
pub(crate) struct Hub {
    watches: Mutex<HashMap<SpaceId, Vec<Weak<Watch>>>>,
}

#[derive(Debug, Default)]
struct Watch {
    /// Who reads here, if a peer does: what it sent itself is no news to it.
    reader: Option<EndpointId>,
    pending: Mutex<Pending>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Pending {
    ranges: BTreeMap<AuthorId, Range>,
    /// Where logs were cut: the lowest fork of each.
    cuts: BTreeMap<AuthorId, Cut>,
    /// Bytes of the runs beside them.
    fresh_bytes: usize,
}

/// A log was cut below a fork.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cut {
    /// Whose log.
    pub(crate) author: AuthorId,
    /// Where it forks.
    pub(crate) seq: u64,
    /// The last event shown now.
    pub(crate) head: u64,
    /// Whether it was cut before, higher: who followed the log was told then that it forks.
    pub(crate) again: bool,
}

#[derive(Debug)]
struct Range {
    above: u64,
    through: u64,
    /// Whether all of it came from peers.
    from_peers: bool,
    /// The run of exactly these events.
    run: Option<VerifiedRun>,
}

/// What became of one run of a commit.
#[derive(Debug, Clone, Copy)]
pub(crate) struct News<'a> {
    /// The peer that sent it, if one did.
    pub(crate) origin: Option<EndpointId>,
    /// What of it was new.
    pub(crate) appended: &'a Appended,
    /// The run.
    pub(crate) run: &'a VerifiedRun,
}

/// What one log grew by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Grown {
    /// The events, to be read from the store.
    pub(crate) want: TailWant,
    /// Whether all of them came from peers.
    pub(crate) from_peers: bool,
    /// The run of exactly these events, where it is at hand.
    pub(crate) run: Option<VerifiedRun>,
}

/// One reader's place in the hub; leaves it when dropped.
#[derive(Debug)]
pub(crate) struct Watcher {
    watch: Arc<Watch>,
}

impl Hub {
    /// Watches a space from this moment on: whatever is published after this call is seen.
    pub(crate) fn watch(&self, space: SpaceId) -> Watcher {
        self.watch_as(space, None)
    }

    /// Watches a space for a peer: whatever others bring is seen, and not what it sends itself.
    pub(crate) fn watch_for(&self, space: SpaceId, reader: EndpointId) -> Watcher {
        self.watch_as(space, Some(reader))
    }

    fn watch_as(&self, space: SpaceId, reader: Option<EndpointId>) -> Watcher {
        let watch = Arc::new(Watch {
            reader,
            ..Watch::default()
        });
        lock(&self.watches)
            .entry(space)
            .or_default()
            .push(Arc::downgrade(&watch));
        Watcher { watch }
    }

    /// Tells the watchers of `space` what one commit appended, in the order of the commit, and which
    /// logs it cut. A watcher sees all of a commit or nothing. The peer that has worked out the
    /// cuts together with this node knows of them.
    pub(crate) fn publish(
        &self,
        space: SpaceId,
        news: &[News<'_>],
        cuts: &[Cut],
        knows: Option<EndpointId>,
    ) {
        let mut watches = lock(&self.watches);
        let Some(of_space) = watches.get_mut(&space) else {
            return;
        };
        // Once for all watchers, and out of the frame that brought it.
        let news: Vec<(News<'_>, Option<VerifiedRun>)> =
            news.iter().map(|news| (*news, news.fresh_run())).collect();
        of_space.retain(|watch| {
            let Some(watch) = watch.upgrade() else {
                return false;
            };
            watch.widen(&news, cuts, knows);
            true
        });
        if of_space.is_empty() {
            watches.remove(&space);
        }
    }
}

impl Hub {
    /// Tells the watchers of `space` that events which were stored before show from now on.
    pub(crate) fn publish_shown(&self, space: SpaceId, author: AuthorId, above: u64, through: u64) {
        let watches = lock(&self.watches);
        let of_space = watches.get(&space).into_iter().flatten();
        for watch in of_space.filter_map(Weak::upgrade) {
            lock(&watch.pending).widen_to(author, (above, through), true, None);
            watch.changed.notify_one();
        }
    }

    /// Takes back from the watchers of `space` what they were told above an event: it no longer
    /// shows.
    pub(crate) fn publish_hidden(&self, space: SpaceId, author: AuthorId, through: u64) {
        let watches = lock(&self.watches);
        let of_space = watches.get(&space).into_iter().flatten();
        for watch in of_space.filter_map(Weak::upgrade) {
            lock(&watch.pending).trim(author, through);
        }
    }
}

impl Watch {
    fn widen(
        &self,
        news: &[(News<'_>, Option<VerifiedRun>)],
        cuts: &[Cut],
        knows: Option<EndpointId>,
    ) {
        let mut pending = lock(&self.pending);
        for (news, fresh) in news {
            let is_its_own = news.origin.is_some() && news.origin == self.reader;
            if !is_its_own && news.appended.events > 0 {
                pending.widen(news, fresh.as_ref());
            }
        }
        for cut in cuts {
            pending.cut(*cut, knows.is_none() || knows != self.reader);
        }
        drop(pending);
        self.changed.notify_one();
    }
}

impl News<'_> {
    /// The events that were stored, by seq: above the first, through the second.
    fn range(&self) -> (u64, u64) {
        let through = self.appended.head.seq;
        (through.saturating_sub(self.appended.events), through)
    }

    /// The run in memory of its own, if it was new as a whole and is small.
    fn fresh_run(&self) -> Option<VerifiedRun> {
        let (above, through) = self.range();
        let is_whole = self.run.first_seq() == above + 1 && self.run.last_seq() == through;
        (is_whole && memory_of(self.run) <= FRESH_RUN_BYTES).then(|| self.run.detached())
    }
}

impl Pending {
    fn widen(&mut self, news: &News<'_>, fresh: Option<&VerifiedRun>) {
        let from_peers = news.origin.is_some();
        self.widen_to(news.appended.author, news.range(), from_peers, fresh);
    }

    fn widen_to(
        &mut self,
        author: AuthorId,
        (above, through): (u64, u64),
        from_peers: bool,
        fresh: Option<&VerifiedRun>,
    ) {
        match self.ranges.entry(author) {
            Entry::Vacant(place) => {
                let room = FRESH_BYTES.saturating_sub(self.fresh_bytes);
                let run = fresh.filter(|run| memory_of(run) <= room).cloned();
                self.fresh_bytes += run.as_ref().map_or(0, memory_of);
                place.insert(Range {
                    above,
                    through,
                    from_peers,
                    run,
                });
            }
            Entry::Occupied(mut entry) => {
                let range = entry.get_mut();
                range.above = range.above.min(above);
                range.through = range.through.max(through);
                range.from_peers &= from_peers;
                let run = range.run.take();
                self.forget(run.as_ref());
            }
        }
    }

    /// What lies above the last event that shows can no longer be read.
    fn trim(&mut self, author: AuthorId, last: u64) {
        if let Entry::Occupied(mut entry) = self.ranges.entry(author) {
            let range = entry.get_mut();
            if range.through > last {
                range.through = last;
                let run = range.run.take();
                if range.above >= range.through {
                    entry.remove();
                }
                self.forget(run.as_ref());
            }
        }
    }

    fn cut(&mut self, cut: Cut, is_news: bool) {
        self.trim(cut.author, cut.seq.saturating_sub(1));
        if is_news {
            // The lowest is the latest: a store never goes back to a higher one.
            let pending = self.cuts.get(&cut.author);
            let again = cut.again && pending.is_none_or(|pending| pending.again);
            self.cuts.insert(cut.author, Cut { again, ..cut });
        }
    }

    /// Gives back the room of a run that no longer lies here.
    fn forget(&mut self, run: Option<&VerifiedRun>) {
        let len = run.map_or(0, memory_of);
        self.fresh_bytes = self.fresh_bytes.saturating_sub(len);
    }
}

impl Watcher {
    /// Waits until something is pending. Safe to cancel.
    pub(crate) async fn changed(&self) {
        loop {
            if self.is_pending() {
                return;
            }
            self.watch.changed.notified().await;
        }
    }

    fn is_pending(&self) -> bool {
        let pending = lock(&self.watch.pending);
        !pending.ranges.is_empty() || !pending.cuts.is_empty()
    }

    /// Takes up to `max_authors` pending ranges, ascending by author.
    pub(crate) fn take(&self, max_authors: usize) -> Vec<Grown> {
        let mut pending = lock(&self.watch.pending);
        let mut grown = Vec::with_capacity(pending.ranges.len().min(max_authors));
        while grown.len() < max_authors {
            let Some((author, range)) = pending.ranges.pop_first() else {
                break;
            };
            pending.forget(range.run.as_ref());
            grown.push(Grown {
                want: TailWant {
                    author,
                    above: range.above,
                    through: range.through,
                },
                from_peers: range.from_peers,
                run: range.run,
            });
        }
        grown
    }

    /// Takes the cuts that are pending, ascending by author.
    pub(crate) fn take_cuts(&self) -> Vec<Cut> {
        let cuts = std::mem::take(&mut lock(&self.watch.pending).cuts);
        cuts.into_values().collect()
    }

    /// Drops what is pending of these logs up to these seqs: the reader has it already.
    pub(crate) fn pass(&self, seen: &[(AuthorId, u64)]) {
        let mut pending = lock(&self.watch.pending);
        for (author, through) in seen {
            let Entry::Occupied(mut entry) = pending.ranges.entry(*author) else {
                continue;
            };
            let range = entry.get_mut();
            if *through <= range.above {
                continue;
            }
            range.above = *through;
            let run = range.run.take();
            if range.above >= range.through {
                entry.remove();
            }
            pending.forget(run.as_ref());
        }
    }

    /// How many events are pending.
    pub(crate) fn backlog(&self) -> u64 {
        lock(&self.watch.pending)
            .ranges
            .values()
            .map(|range| range.through - range.above)
            .fold(0, u64::saturating_add)
    }
}

/// A panic elsewhere leaves these maps whole: each change is a single step.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use headwater_wire::{AuthorHead, AuthorSecret, EventDraft, EventId, sign_runs};

    use super::*;

    const SPACE: SpaceId = SpaceId::from_bytes([1; 32]);

    /// Three authors, ascending by key.
    fn secret(number: usize) -> AuthorSecret {
        let mut secrets: Vec<_> = (1..=3u8)
            .map(|seed| AuthorSecret::from_bytes([seed; 32]))
            .collect();
        secrets.sort_by_key(AuthorSecret::id);
        secrets.swap_remove(number - 1)
    }

    fn author(number: usize) -> AuthorId {
        secret(number).id()
    }

    /// A run of so many events up to `seq`, and what storing it whole gives.
    struct Stored {
        origin: Option<EndpointId>,
        appended: Appended,
        run: VerifiedRun,
    }

    fn stored(origin: Option<EndpointId>, number: usize, events: u64, seq: u64) -> Stored {
        let base = seq.checked_sub(events).filter(|seq| *seq > 0);
        let base = base.map(|seq| AuthorHead {
            seq,
            id: EventId::from_bytes([0; 32]),
        });
        let drafts = (0..events).map(|_| EventDraft::new(16, 0, "text"));
        let mut runs = sign_runs(&SPACE, &secret(number), base, drafts).unwrap();
        let run = runs.remove(0);
        Stored {
            origin,
            appended: Appended {
                author: run.author(),
                events,
                payload_bytes: run.run().payload_bytes(),
                head: run.head(),
            },
            run,
        }
    }

    /// Publishes one commit.
    fn publish(hub: &Hub, space: SpaceId, commit: &[Stored]) {
        let news: Vec<News<'_>> = commit
            .iter()
            .map(|stored| News {
                origin: stored.origin,
                appended: &stored.appended,
                run: &stored.run,
            })
            .collect();
        hub.publish(space, &news, &[], None);
    }

    fn wants(watcher: &Watcher, max_authors: usize) -> Vec<TailWant> {
        let grown = watcher.take(max_authors);
        grown.into_iter().map(|grown| grown.want).collect()
    }

    fn peer(seed: u8) -> EndpointId {
        iroh::SecretKey::from_bytes(&[seed; 32]).public()
    }

    fn want(number: usize, above: u64, through: u64) -> TailWant {
        TailWant {
            author: author(number),
            above,
            through,
        }
    }

    #[test]
    fn what_no_longer_shows_is_not_pending() {
        let hub = Hub::default();
        let watcher = hub.watch(SPACE);
        publish(&hub, SPACE, &[stored(None, 1, 5, 5), stored(None, 2, 2, 2)]);
        hub.publish_hidden(SPACE, author(1), 3);
        hub.publish_hidden(SPACE, author(2), 0);
        hub.publish_hidden(SPACE, author(3), 0);
        assert_eq!(watcher.backlog(), 3);
        let grown = watcher.take(9);
        assert_eq!(grown.len(), 1);
        assert_eq!((grown[0].want.above, grown[0].want.through), (0, 3));
        assert_eq!((grown[0].want.author, &grown[0].run), (author(1), &None));
    }

    #[test]
    fn commits_to_one_log_widen_one_range() {
        let hub = Hub::default();
        let watcher = hub.watch(SPACE);
        publish(&hub, SPACE, &[stored(None, 2, 3, 10)]);
        publish(&hub, SPACE, &[stored(None, 1, 1, 1)]);
        publish(&hub, SPACE, &[stored(None, 2, 5, 15)]);
        assert_eq!(watcher.backlog(), 9);
        assert_eq!(wants(&watcher, 10), [want(1, 0, 1), want(2, 7, 15)]);
        assert_eq!(watcher.backlog(), 0);
    }

    #[test]
    fn takes_no_more_authors_than_asked_for_and_keeps_the_rest() {
        let hub = Hub::default();
        let watcher = hub.watch(SPACE);
        for byte in 1..=3 {
            publish(&hub, SPACE, &[stored(None, byte, 1, 1)]);
        }
        assert_eq!(wants(&watcher, 2).len(), 2);
        assert_eq!(wants(&watcher, 2), [want(3, 0, 1)]);
    }

    #[test]
    fn tells_nobody_of_other_spaces_or_of_what_was_there_before() {
        let hub = Hub::default();
        publish(&hub, SPACE, &[stored(None, 1, 1, 1)]);
        let watcher = hub.watch(SPACE);
        let other = SpaceId::from_bytes([2; 32]);
        publish(&hub, other, &[stored(None, 1, 1, 2)]);
        let mut nothing_new = stored(None, 1, 1, 1);
        nothing_new.appended.events = 0;
        publish(&hub, SPACE, &[nothing_new]);
        assert_eq!(wants(&watcher, 10), []);
    }

    #[test]
    fn a_peer_is_not_told_of_what_it_sent() {
        let hub = Hub::default();
        let (sender, other) = (hub.watch_for(SPACE, peer(1)), hub.watch_for(SPACE, peer(2)));
        let local = hub.watch(SPACE);
        publish(&hub, SPACE, &[stored(Some(peer(1)), 1, 1, 1)]);
        assert_eq!(sender.backlog(), 0);
        assert_eq!((other.backlog(), local.backlog()), (1, 1));
    }

    #[test]
    fn a_commit_of_two_peers_to_one_log_is_seen_as_one_growth_without_a_hole() {
        let hub = Hub::default();
        let local = hub.watch(SPACE);
        let (first, second) = (hub.watch_for(SPACE, peer(1)), hub.watch_for(SPACE, peer(2)));
        let commit = [
            stored(Some(peer(1)), 1, 5, 5),
            stored(Some(peer(2)), 1, 5, 10),
            stored(None, 1, 2, 12),
        ];
        publish(&hub, SPACE, &commit);
        assert_eq!(wants(&local, 10), [want(1, 0, 12)]);
        assert_eq!(wants(&first, 10), [want(1, 5, 12)]);
        assert_eq!(wants(&second, 10), [want(1, 0, 12)]);
    }

    #[test]
    fn what_a_taker_on_another_thread_sees_of_a_log_always_goes_on_where_it_stopped() {
        const COMMITS: u64 = 1_000;
        let hub = Hub::default();
        let watcher = hub.watch(SPACE);
        let (one, other) = (Some(peer(1)), Some(peer(2)));
        std::thread::scope(|threads| {
            threads.spawn(|| {
                for commit in 0..COMMITS {
                    let mut grown = [stored(one, 1, 1, 1), stored(other, 1, 1, 1)];
                    grown[0].appended.head.seq = 2 * commit + 1;
                    grown[1].appended.head.seq = 2 * commit + 2;
                    publish(&hub, SPACE, &grown);
                }
            });
            let mut seen = 0;
            while seen < 2 * COMMITS {
                for taken in wants(&watcher, 10) {
                    assert_eq!(taken.above, seen);
                    assert_eq!(taken.through % 2, 0, "half a commit");
                    seen = taken.through;
                }
            }
        });
    }

    #[test]
    fn what_the_reader_has_already_is_passed_over() {
        let hub = Hub::default();
        let watcher = hub.watch(SPACE);
        publish(&hub, SPACE, &[stored(None, 1, 5, 5)]);
        publish(&hub, SPACE, &[stored(None, 2, 5, 9)]);
        watcher.pass(&[(author(1), 5), (author(2), 6), (author(3), 1)]);
        assert_eq!(watcher.backlog(), 3);
        assert_eq!(wants(&watcher, 10), [want(2, 6, 9)]);
    }

    #[test]
    fn a_small_run_that_is_all_a_log_grew_by_lies_beside_its_range() {
        let hub = Hub::default();
        let watcher = hub.watch(SPACE);
        let commit = [stored(None, 1, 1, 4), stored(None, 2, 2, 2)];
        publish(&hub, SPACE, &commit);
        publish(&hub, SPACE, &[stored(None, 2, 1, 3)]);
        let large = {
            let drafts = [EventDraft::new(16, 0, vec![0; FRESH_RUN_BYTES])];
            let run = sign_runs(&SPACE, &secret(3), None, drafts)
                .unwrap()
                .remove(0);
            Stored {
                run,
                ..stored(None, 3, 1, 1)
            }
        };
        publish(&hub, SPACE, &[large]);
        let grown = watcher.take(10);
        assert_eq!(grown[0].run.as_ref(), Some(&commit[0].run));
        assert_eq!((&grown[1].run, &grown[2].run), (&None, &None));
        assert_eq!(lock(&watcher.watch.pending).fresh_bytes, 0);
    }

    #[test]
    fn a_range_is_from_peers_as_long_as_nothing_in_it_was_made_here() {
        let hub = Hub::default();
        let watcher = hub.watch(SPACE);
        publish(
            &hub,
            SPACE,
            &[stored(Some(peer(1)), 1, 1, 1), stored(None, 2, 1, 1)],
        );
        let from_peers = |grown: Vec<Grown>| grown.iter().map(|g| g.from_peers).collect::<Vec<_>>();
        assert_eq!(from_peers(watcher.take(10)), [true, false]);
        publish(
            &hub,
            SPACE,
            &[stored(Some(peer(1)), 1, 1, 2), stored(None, 1, 1, 3)],
        );
        assert_eq!(from_peers(watcher.take(10)), [false]);
    }

    #[test]
    fn a_run_beside_its_range_does_not_keep_the_frame_it_came_in() {
        let hub = Hub::default();
        let watcher = hub.watch(SPACE);
        let mut sent = stored(Some(peer(1)), 1, 1, 1);
        let mut frame = vec![0; 1 << 20];
        let at = frame.len();
        frame.extend_from_slice(sent.run.run().as_bytes());
        let frame = bytes::Bytes::from(frame);
        let run = headwater_wire::Run::decode(frame.slice(at..)).unwrap();
        sent.run = run.verify(&SPACE).unwrap();
        publish(&hub, SPACE, &[sent]);
        assert!(frame.is_unique());
        assert!(watcher.take(1)[0].run.is_some());
    }

    #[test]
    fn runs_beside_ranges_take_no_more_room_than_allowed_and_the_rest_is_read() {
        let hub = Hub::default();
        let watcher = hub.watch(SPACE);
        let drafts = || [EventDraft::new(16, 0, vec![0; FRESH_RUN_BYTES / 2])];
        let many = 2 * FRESH_BYTES / (FRESH_RUN_BYTES / 2);
        for seed in 0..many {
            let secret = AuthorSecret::from_bytes([seed as u8 + 10; 32]);
            let run = sign_runs(&SPACE, &secret, None, drafts())
                .unwrap()
                .remove(0);
            let appended = Appended {
                author: run.author(),
                events: 1,
                payload_bytes: 0,
                head: run.head(),
            };
            let origin = None;
            publish(
                &hub,
                SPACE,
                &[Stored {
                    origin,
                    appended,
                    run,
                }],
            );
        }
        assert!(lock(&watcher.watch.pending).fresh_bytes <= FRESH_BYTES);
        let grown = watcher.take(many);
        assert_eq!(grown.len(), many);
        let at_hand = grown.iter().filter(|grown| grown.run.is_some()).count();
        assert!(at_hand > 0 && at_hand < many);
    }

    #[test]
    fn a_cut_is_told_once_and_takes_what_was_pending_above_it() {
        let hub = Hub::default();
        let (local, knowing) = (hub.watch(SPACE), hub.watch_for(SPACE, peer(1)));
        publish(&hub, SPACE, &[stored(None, 1, 5, 5), stored(None, 2, 5, 5)]);
        let cut = |seq| Cut {
            author: author(1),
            seq,
            head: seq - 1,
            again: false,
        };
        hub.publish(SPACE, &[], &[cut(4)], Some(peer(1)));
        hub.publish(SPACE, &[], &[cut(3)], Some(peer(1)));
        for watcher in [&local, &knowing] {
            assert_eq!(wants(watcher, 10), [want(1, 0, 2), want(2, 0, 5)]);
        }
        assert_eq!(local.take_cuts(), [cut(3)]);
        assert_eq!(local.take_cuts(), []);
        assert_eq!(knowing.take_cuts(), []);
        hub.publish(SPACE, &[], &[cut(1)], None);
        assert_eq!(knowing.take_cuts(), [cut(1)]);
    }

    #[test]
    fn forgets_watchers_that_are_gone() {
        let hub = Hub::default();
        drop(hub.watch(SPACE));
        publish(&hub, SPACE, &[stored(None, 1, 1, 1)]);
        assert!(lock(&hub.watches).is_empty());
    }
}
