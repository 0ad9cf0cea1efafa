//! Reading events as streams: one log, a whole space, or a space as it grows.
//!
//! ```text
//! store ──▶ a batch of runs ──▶ events ──▶ (room for one batch) ──▶ Stream
//! hub ────▶ which logs grew ──┘
//! ```
//!
//! Invariant: nothing is queued beyond one batch. A reader that does not poll stops the reading,
//! and loses nothing: what it has not seen is still in the store.

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    fmt,
    ops::{Bound, RangeBounds},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use headwater_proto::{HeadRecord, StoredRun, TailWant};
use headwater_store::{Damage, LogStore, StoreError};
use headwater_wire::{AuthorId, Event, Run, SpaceId};
use n0_future::Stream;
use tokio::sync::mpsc;

use crate::{
    blocking::blocking,
    hub::{Grown, Watcher},
    node::Inner,
};

/// Logs whose heads are read, or whose growth is taken, at once.
const AUTHORS_AT_ONCE: usize = 1024;

/// Where a subscription starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SubscribeFrom {
    /// With everything held, then live.
    Start,
    /// With what is stored from now on.
    Now,
}

/// What a subscription yields.
#[expect(
    clippy::large_enum_variant,
    reason = "all items but one are events; a box for each would cost more"
)]
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum SubscriptionItem {
    /// An event, after all earlier ones of its log.
    Event(Event),
    /// Everything that was held when the subscription began has been yielded; what follows is
    /// live. Comes exactly once.
    CaughtUp,
    /// An author is proven to have signed two events at one seq. What was yielded of the log from
    /// there on is one of two branches: nobody shows it any more. Comes once for each fork that is
    /// lower than those known before, from the moment the subscription began on;
    /// [`Space::forks`](crate::Space::forks) lists those known already.
    Forked {
        /// Whose log.
        author: AuthorId,
        /// Where it forks.
        seq: u64,
    },
}

/// Events of a space as they are stored, whether appended here or pulled.
///
/// Every event from the chosen start on is yielded exactly once, in the order of its log; logs
/// interleave. However slow the reader, nothing is lost and nothing piles up. It never ends by
/// itself; after an error it does. What it reads, it reads as it is polled, within a tokio runtime.
#[derive(Debug)]
pub struct Subscription {
    items: Batches<SubscriptionItem>,
}

/// Events read from the store, in order. Ends after the last one or an error. Nothing is read before
/// it is polled, within a tokio runtime.
#[derive(Debug)]
pub struct EventStream {
    events: Batches<Event>,
}

impl EventStream {
    pub(crate) fn of_log(
        inner: &Arc<Inner>,
        space: SpaceId,
        author: AuthorId,
        range: &impl RangeBounds<u64>,
    ) -> Self {
        let above = match range.start_bound() {
            Bound::Included(first) => first.saturating_sub(1),
            Bound::Excluded(before) => *before,
            Bound::Unbounded => 0,
        };
        let through = match range.end_bound() {
            Bound::Included(last) => *last,
            Bound::Excluded(after) => after.saturating_sub(1),
            Bound::Unbounded => u64::MAX,
        };
        let events = Batches::new(inner, space, move |walk| async move {
            let Some(record) = walk.head(author).await? else {
                return Ok(());
            };
            let through = through.min(record.entry.head.seq);
            walk.deliver(vec![TailWant {
                author,
                above,
                through,
            }])
            .await
        });
        Self { events }
    }

    pub(crate) fn of_space(inner: &Arc<Inner>, space: SpaceId) -> Self {
        let events = Batches::new(inner, space, move |mut walk| async move {
            walk.deliver_history(|_, _| ()).await
        });
        Self { events }
    }
}

impl Subscription {
    pub(crate) fn start(inner: &Arc<Inner>, space: SpaceId, from: SubscribeFrom) -> Self {
        // Before anything is read, so that nothing falls between history and live.
        let watcher = inner.hub.watch(space);
        let items = Batches::new(inner, space, move |walk| follow(walk, watcher, from));
        Self { items }
    }
}

async fn follow(
    mut walk: Walk<SubscriptionItem>,
    watcher: Watcher,
    from: SubscribeFrom,
) -> Result<(), Stop> {
    // How far each log was yielded: a commit may show in the history and in the watcher.
    let mut yielded: HashMap<AuthorId, u64> = HashMap::new();
    if from == SubscribeFrom::Start {
        walk.deliver_history(|author, through| {
            yielded.insert(author, through);
        })
        .await?;
    }
    walk.send(vec![SubscriptionItem::CaughtUp]).await?;
    loop {
        watcher.changed().await;
        // Taken after the growth, so that nothing of it lies above a cut that was told before.
        let taken = watcher.take(AUTHORS_AT_ONCE);
        let cuts = watcher.take_cuts();
        let grown = go_on(&mut yielded, from, taken);
        deliver_live(&walk, grown).await?;
        if !cuts.is_empty() {
            let told = cuts.into_iter().map(|cut| SubscriptionItem::Forked {
                author: cut.author,
                seq: cut.seq,
            });
            walk.send(told.collect()).await?;
        }
    }
}

/// Delivers what logs grew by, from memory if all of it is at hand.
async fn deliver_live(walk: &Walk<SubscriptionItem>, grown: Vec<Grown>) -> Result<(), Stop> {
    if !grown.is_empty() {
        let at_hand: Option<Vec<Vec<Event>>> = grown.iter().map(events_at_hand).collect();
        if let Some(events) = at_hand {
            let items = events.into_iter().flatten().map(SubscriptionItem::Event);
            walk.send(items.collect()).await?;
        } else {
            let wants = grown.into_iter().map(|grown| grown.want).collect();
            walk.deliver(wants).await?;
        }
    }
    Ok(())
}

/// What to yield of logs that grew, each from where the last event of it was: never twice, and
/// never over a hole, whatever the wants say.
fn go_on(
    yielded: &mut HashMap<AuthorId, u64>,
    from: SubscribeFrom,
    mut grown: Vec<Grown>,
) -> Vec<Grown> {
    grown.retain_mut(|Grown { want, .. }| {
        let first = match from {
            SubscribeFrom::Start => 0,
            SubscribeFrom::Now => want.above,
        };
        let seen = yielded.entry(want.author).or_insert(first);
        want.above = *seen;
        *seen = want.through.max(*seen);
        want.above < want.through
    });
    grown
}

/// The events a log grew by, if the run of them is at hand.
fn events_at_hand(grown: &Grown) -> Option<Vec<Event>> {
    let run = grown.run.as_ref()?;
    let wanted = grown.want.above + 1..=grown.want.through;
    let covers = run.first_seq() <= *wanted.start() && run.last_seq() >= *wanted.end();
    covers.then(|| {
        let events = run.events();
        events
            .filter(|event| wanted.contains(&event.header.seq))
            .collect()
    })
}

/// Why a walk ends early.
enum Stop {
    /// Nobody reads any more.
    Unread,
    Store(StoreError),
}

impl From<StoreError> for Stop {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// Reads a space in batches and hands them to a stream.
struct Walk<T> {
    store: Arc<dyn LogStore>,
    space: SpaceId,
    max_bytes: usize,
    batches: mpsc::Sender<Result<Vec<T>, StoreError>>,
}

impl<T: FromEvent> Walk<T> {
    /// Passes over what is wanted first and is not shown any more, because the log was cut or its
    /// author lost the right to write since it was wanted.
    ///
    /// What shows may change between two reads: a right that is given back shows again what did not
    /// show a moment ago. So it is missing only if it is at a time when nothing changes.
    async fn pass_cut(&self, wants: &mut VecDeque<TailWant>) -> Result<(), Stop> {
        let Some(want) = wants.front().copied() else {
            return Ok(());
        };
        let found = self
            .query(move |store, space| Found::look(store, space, want))
            .await?;
        match found {
            Found::Changing => {}
            Found::Cut => {
                wants.pop_front();
            }
            Found::Missing => return Err(self.missing(&want)),
        }
        Ok(())
    }

    async fn send(&self, batch: Vec<T>) -> Result<(), Stop> {
        self.batches
            .send(Ok(batch))
            .await
            .map_err(|_unread| Stop::Unread)
    }

    async fn query<R: Send + 'static>(
        &self,
        query: impl FnOnce(&dyn LogStore, &SpaceId) -> Result<R, StoreError> + Send + 'static,
    ) -> Result<R, Stop> {
        let store = Arc::clone(&self.store);
        let space = self.space;
        Ok(blocking(move || query(&*store, &space)).await?)
    }

    async fn head(&self, author: AuthorId) -> Result<Option<HeadRecord>, Stop> {
        self.query(move |store, space| store.head(space, &author))
            .await
    }

    /// Delivers all logs, the owner's first. `pinned` hears of each log how far it will go.
    async fn deliver_history(
        &mut self,
        mut pinned: impl FnMut(AuthorId, u64) + Send,
    ) -> Result<(), Stop> {
        let Some(summary) = self.query(headwater_store::LogStore::summary).await? else {
            return Ok(());
        };
        let owner = summary.owner;
        let first = self.head(owner).await?;
        self.deliver(wants_of(first, &mut pinned)).await?;
        let mut after = None;
        loop {
            let page = self
                .query(move |store, space| store.heads(space, after, AUTHORS_AT_ONCE))
                .await?;
            let Some(end) = page.heads.last() else {
                return Ok(());
            };
            after = Some(end.entry.author);
            let others = page
                .heads
                .into_iter()
                .filter(|record| record.entry.author != owner);
            self.deliver(wants_of(others, &mut pinned)).await?;
            if page.last {
                return Ok(());
            }
        }
    }

    /// Delivers the events of `wants`, in that order.
    async fn deliver(&self, wants: Vec<TailWant>) -> Result<(), Stop> {
        let mut wants = VecDeque::from(wants);
        wants.retain(|want| want.above < want.through);
        while !wants.is_empty() {
            let asked: Vec<TailWant> = wants.iter().copied().collect();
            let max_bytes = self.max_bytes;
            let events = self
                .query(move |store, space| {
                    let runs = store.read_runs(space, &asked, max_bytes)?;
                    let mut events = events_of(space, &asked, runs)?;
                    drop_cut(store, space, &mut events)?;
                    Ok(events)
                })
                .await?;
            let Some(last) = events.last() else {
                self.pass_cut(&mut wants).await?;
                continue;
            };
            let (author, seq) = (last.header.author, last.header.seq);
            // Wants before this log's are done: an answer goes on in their order.
            while let Some(want) = wants.front_mut() {
                if want.author == author && seq < want.through {
                    want.above = seq;
                    break;
                }
                let reached = want.author == author;
                wants.pop_front();
                if reached {
                    break;
                }
            }
            self.send(events.into_iter().map(T::from_event).collect())
                .await?;
        }
        Ok(())
    }
}

impl<T> Walk<T> {
    /// A head says these events are here, and they are not.
    fn missing(&self, want: &TailWant) -> Stop {
        Stop::Store(
            Damage::Missing {
                space: self.space,
                author: want.author,
                seq: want.above + 1,
            }
            .into(),
        )
    }
}

fn wants_of(
    records: impl IntoIterator<Item = HeadRecord>,
    pinned: &mut impl FnMut(AuthorId, u64),
) -> Vec<TailWant> {
    records
        .into_iter()
        .map(|record| {
            let (author, through) = (record.entry.author, record.entry.head.seq);
            pinned(author, through);
            TailWant {
                author,
                above: 0,
                through,
            }
        })
        .collect()
}

/// The wanted events of stored runs: a run may go on beyond what was wanted.
fn events_of(
    space: &SpaceId,
    wants: &[TailWant],
    runs: Vec<StoredRun>,
) -> Result<Vec<Event>, StoreError> {
    let mut wants = wants.iter();
    let mut want = wants.next();
    let mut events = Vec::new();
    for stored in runs {
        while want.is_some_and(|want| want.author != stored.author) {
            want = wants.next();
        }
        let Some(want) = want else {
            break;
        };
        let run = Run::decode(stored.bytes).map_err(|_| Damage::Run {
            space: *space,
            author: stored.author,
            seq: stored.first_seq,
        })?;
        events.extend(
            run.events(space)
                .filter(|event| (want.above + 1..=want.through).contains(&event.header.seq)),
        );
    }
    Ok(events)
}

/// Drops events that were shown when they were wanted, and are not any more: a run that spans a cut
/// or a bound comes whole.
fn drop_cut(
    store: &dyn LogStore,
    space: &SpaceId,
    events: &mut Vec<Event>,
) -> Result<(), StoreError> {
    let authors: BTreeSet<_> = events.iter().map(|event| event.header.author).collect();
    for author in authors {
        let head = store.head(space, &author)?;
        let shown = head.map_or(0, |record| record.entry.head.seq);
        events.retain(|event| event.header.author != author || event.header.seq <= shown);
    }
    Ok(())
}

/// What became of wanted events that were not read.
enum Found {
    /// They do not show any more.
    Cut,
    /// They show, and are not there.
    Missing,
    /// They are there now, or what shows changes just now: read again.
    Changing,
}

impl Found {
    fn look(store: &dyn LogStore, space: &SpaceId, want: TailWant) -> Result<Self, StoreError> {
        let generation = || Ok(store.summary(space)?.map(|summary| summary.generation));
        let before: Result<_, StoreError> = generation();
        let before = before?;
        let head = store.head(space, &want.author)?;
        let is_shown = head.is_some_and(|record| record.entry.head.seq > want.above);
        if !is_shown {
            return Ok(Self::Cut);
        }
        let runs = store.read_runs(space, &[want], 1)?;
        let events = events_of(space, &[want], runs)?;
        if !events.is_empty() || generation()? != before {
            return Ok(Self::Changing);
        }
        Ok(Self::Missing)
    }
}

trait FromEvent: Send + Sync + 'static {
    fn from_event(event: Event) -> Self;
}

impl FromEvent for Event {
    fn from_event(event: Event) -> Self {
        event
    }
}

impl FromEvent for SubscriptionItem {
    fn from_event(event: Event) -> Self {
        Self::Event(event)
    }
}

/// The reading end: a walk, one batch of room, and the batch being yielded.
///
/// The walk goes on only as this is polled, in the reader's own task: what was just stored reaches
/// the reader without a detour through another one. It is polled once more as soon as a batch is
/// taken, so that the next one is read while the reader is busy with this.
struct Batches<T> {
    current: std::vec::IntoIter<T>,
    batches: mpsc::Receiver<Result<Vec<T>, StoreError>>,
    walk: Option<BoxedWalk>,
}

type BoxedWalk = Pin<Box<dyn Future<Output = ()> + Send + Sync>>;

impl<T> fmt::Debug for Batches<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batches")
            .field("read_ahead", &self.current.len())
            .field("ended", &self.walk.is_none())
            .finish_non_exhaustive()
    }
}

impl<T: FromEvent> Batches<T> {
    fn new<F>(
        inner: &Arc<Inner>,
        space: SpaceId,
        walk: impl FnOnce(Walk<T>) -> F + Send + 'static,
    ) -> Self
    where
        F: Future<Output = Result<(), Stop>> + Send + Sync + 'static,
    {
        let (sender, batches) = mpsc::channel(1);
        let errors = sender.clone();
        let walking = walk(Walk {
            store: Arc::clone(&inner.store),
            space,
            max_bytes: inner.limits.read_ahead_bytes,
            batches: sender,
        });
        let walk = async move {
            if let Err(Stop::Store(error)) = walking.await {
                errors.send(Err(error)).await.ok();
            }
        };
        Self {
            current: Vec::new().into_iter(),
            batches,
            walk: Some(Box::pin(walk)),
        }
    }
}

impl<T> Batches<T> {
    fn poll_item(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<T, StoreError>>> {
        loop {
            if let Some(item) = self.current.next() {
                return Poll::Ready(Some(Ok(item)));
            }
            self.poll_walk(cx);
            match ready!(self.batches.poll_recv(cx)) {
                Some(Ok(batch)) => {
                    self.current = batch.into_iter();
                    self.poll_walk(cx);
                }
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => return Poll::Ready(None),
            }
        }
    }

    fn poll_walk(&mut self, cx: &mut Context<'_>) {
        // Taken out, so that a walk that panics is not polled again.
        if let Some(mut walk) = self.walk.take()
            && walk.as_mut().poll(cx).is_pending()
        {
            self.walk = Some(walk);
        }
    }
}

impl Stream for EventStream {
    type Item = Result<Event, StoreError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.events.poll_item(cx)
    }
}

impl Stream for Subscription {
    type Item = Result<SubscriptionItem, StoreError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.items.poll_item(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AUTHOR: AuthorId = AuthorId::from_bytes([1; 32]);

    fn grown(above: u64, through: u64) -> Grown {
        Grown {
            want: TailWant {
                author: AUTHOR,
                above,
                through,
            },
            from_peers: false,
            run: None,
        }
    }

    #[test]
    fn a_subscription_goes_on_where_it_stopped_never_twice_and_never_over_a_hole() {
        let mut yielded = HashMap::from([(AUTHOR, 3)]);
        let mut after = |wanted| go_on(&mut yielded, SubscribeFrom::Start, vec![wanted]);
        assert_eq!(after(grown(1, 5)), [grown(3, 5)]);
        assert_eq!(after(grown(2, 5)), []);
        assert_eq!(after(grown(7, 9)), [grown(5, 9)]);
    }

    #[test]
    fn a_subscription_to_everything_reads_a_log_it_has_not_seen_from_its_first_event() {
        let everything = go_on(&mut HashMap::new(), SubscribeFrom::Start, vec![grown(4, 6)]);
        assert_eq!(everything, [grown(0, 6)]);
        let news = go_on(&mut HashMap::new(), SubscribeFrom::Now, vec![grown(4, 6)]);
        assert_eq!(news, [grown(4, 6)]);
    }
}
