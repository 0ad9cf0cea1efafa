//! Where every test takes place: a victim that holds a space, a hostile peer, and an honest one.

use headwater::{
    ALPN, Blame, Builder, Event, EventDraft, HeadsDigest, Limits, SessionError, Space,
    SpaceSummary, SyncError, SyncOptions, SyncReport,
    wire::{ClockEntry, HeadsChunk, HeadsSummary, Message, Run, Segment, VerifiedRun, sign_runs},
};

use super::raw::{Ending, Peer, batch, complete, heads_wanted, plan};
use crate::nodes::{Node, assert_equal, author, contents, drafts, endpoint, filled, open};

/// Authors beside the owner, and what each of them wrote.
pub(super) const AUTHORS: u32 = 3;
pub(super) const EVENTS: usize = 5;

#[derive(Debug)]
pub(super) struct Stage {
    pub(super) victim: Node,
    pub(super) space: Space,
    summary: SpaceSummary,
    events: Vec<Event>,
}

/// What came of a pull from a hostile peer.
#[derive(Debug)]
pub(super) struct Pulled<T> {
    pub(super) result: Result<SyncReport, SyncError>,
    pub(super) told: T,
}

impl Stage {
    pub(super) async fn new() -> Self {
        Self::with(|_| ()).await
    }

    /// A victim with other limits than usual.
    pub(super) async fn with(change: impl FnOnce(&mut Limits)) -> Self {
        let mut limits = Limits::default();
        change(&mut limits);
        Self::build(open().limits(limits)).await
    }

    pub(super) async fn build(builder: Builder) -> Self {
        let victim = Node::build(builder).await;
        let space = filled(&victim.headwater, AUTHORS, EVENTS).await;
        Self {
            summary: summary(&space).await,
            events: contents(&space).await,
            victim,
            space,
        }
    }

    /// More of what the victim holds than a stream's window, so that it is not served unread.
    pub(super) async fn filled_up(mut self) -> Self {
        let large = (0..2_000).map(|at| EventDraft::new(16, at, vec![1; 1_000]));
        let appended = self.space.append_batch(&author(9), large.collect()).await;
        appended.expect("appended");
        self.summary = summary(&self.space).await;
        self.events = contents(&self.space).await;
        self
    }

    /// A hostile peer dials the victim and opens a stream, while an honest one pulls.
    pub(super) async fn suffers<T>(&self, hostile: impl AsyncFnOnce(&mut Peer) -> T) -> T {
        let mut peer = Peer::dial(self.victim.addr()).await;
        let (told, ()) = tokio::join!(hostile(&mut peer), self.serves_an_honest_peer());
        peer.leave().await;
        told
    }

    /// The victim pulls from a hostile peer, while an honest one pulls from the victim. The
    /// hostile peer is handed the id of the request it has read.
    pub(super) async fn pulls<T>(
        &self,
        space: &Space,
        hostile: impl AsyncFnOnce(&mut Peer, u64) -> T,
    ) -> Pulled<T> {
        self.pulls_with(space, SyncOptions::default(), hostile)
            .await
    }

    pub(super) async fn pulls_with<T>(
        &self,
        space: &Space,
        options: SyncOptions,
        hostile: impl AsyncFnOnce(&mut Peer, u64) -> T,
    ) -> Pulled<T> {
        let far = endpoint().await;
        far.set_alpns(vec![ALPN.to_vec()]);
        let pull = space.sync_with_options(far.addr(), options).into_future();
        let answer = async {
            let mut peer = Peer::accept(far).await;
            let request = peer.hear().await;
            assert!(matches!(request, Message::SyncRequestV2(_)));
            let told = hostile(&mut peer, request.request_id()).await;
            (peer, told)
        };
        let (result, (peer, told), ()) = tokio::join!(pull, answer, self.serves_an_honest_peer());
        peer.leave().await;
        Pulled { result, told }
    }

    /// The victim pulls the space it holds. The hostile peer has asked for its heads, has planned
    /// nothing of the owner, and goes on from there.
    pub(super) async fn pulls_more<T>(
        &self,
        hostile: impl AsyncFnOnce(&mut Peer, u64) -> T,
    ) -> Pulled<T> {
        self.pulls(&self.space, async |peer, id| {
            peer.tell([heads_wanted(id)]).await;
            let heads = peer.hear().await;
            assert!(matches!(heads, Message::HeadsChunk(HeadsChunk { .. })));
            peer.tell([plan(id, Segment::Owner, 0, 0)]).await;
            hostile(peer, id).await
        })
        .await
    }

    /// The victim pulls more of the space it holds, and is sent these runs as all there is.
    pub(super) async fn is_sent(&self, runs: &[&Run]) -> Pulled<Ending> {
        let events = runs.iter().map(|run| run.event_count() as u64).sum();
        let authors = runs.len() as u64;
        self.pulls_more(async |peer, id| {
            peer.tell([
                plan(id, Segment::Last, authors, events),
                batch(id, false, runs),
            ])
            .await;
            peer.ending().await
        })
        .await
    }

    /// The victim pulls one run more, and an account of it with this digest; and then this.
    pub(super) async fn is_sent_whole(
        &self,
        run: &VerifiedRun,
        digest: HeadsDigest,
        then: &[u8],
    ) -> Pulled<Ending> {
        self.pulls_more(async |peer, id| {
            peer.tell([
                plan(id, Segment::Last, 1, run.run().event_count() as u64),
                batch(id, false, &[run.run()]),
                complete(id, digest, Some(run)),
            ])
            .await;
            peer.say(then).await;
            if then.is_empty() {
                peer.finish();
            }
            peer.ending().await
        })
        .await
    }

    /// The digest of what the victim holds, and of this run on top.
    pub(super) async fn digest_with(&self, run: &VerifiedRun) -> HeadsDigest {
        let heads = self.space.heads().await.expect("readable");
        let heads = heads.into_iter().map(|entry| ClockEntry {
            head: if entry.author == run.author() {
                run.head()
            } else {
                entry.head
            },
            ..entry
        });
        let heads = HeadsSummary::from_entries(heads.collect());
        heads.expect("sorted").digest()
    }

    /// A run that goes on from what the victim holds of this author.
    pub(super) async fn next_run(&self, number: u32, count: usize) -> VerifiedRun {
        let head = self
            .space
            .head(author(number).id())
            .await
            .expect("readable");
        let base = head.map(|record| record.entry.head);
        let drafts = drafts(&format!("news of {number}"), count);
        let signed = sign_runs(&self.space.id(), &author(number), base, drafts);
        signed.expect("signed").remove(0)
    }

    /// An honest peer pulls all there was.
    async fn serves_an_honest_peer(&self) {
        let honest = open().spawn(endpoint().await);
        let copy = honest.space(self.space.id());
        let report = copy.sync_with(self.victim.addr()).await;
        assert!(report.is_ok(), "an honest peer: {report:?}");
        self.assert_holds_all_there_was(&copy).await;
        honest.shutdown().await;
    }

    async fn assert_holds_all_there_was(&self, space: &Space) {
        let held = contents(space).await;
        assert!(self.events.iter().all(|event| held.contains(event)));
        let report = space.verify(|_| ()).await.expect("checked");
        assert!(report.is_sound(), "{report:?}");
    }

    /// Nothing changed, an honest peer is served, and so many breaks of the protocol were counted.
    pub(super) async fn ends_unharmed(self, faults: u64) {
        self.ends_with(0, faults).await;
    }

    /// The same, but so many sound events have come.
    pub(super) async fn ends_with(self, added: u64, faults: u64) {
        let now = summary(&self.space).await;
        assert_eq!(now.events, self.summary.events + added);
        if added == 0 {
            assert_eq!(now.digest, self.summary.digest);
        }
        self.assert_holds_all_there_was(&self.space).await;
        let honest = open().spawn(endpoint().await);
        let copy = honest.space(self.space.id());
        copy.sync_with(self.victim.addr()).await.expect("served");
        assert_equal(&self.space, &copy).await;
        honest.shutdown().await;
        let metrics = self.victim.headwater.metrics();
        assert_eq!(metrics.peer_faults.get(), faults, "faults counted");
        assert_eq!(metrics.panics.get(), 0);
        self.victim.shutdown().await;
    }
}

impl<T> Pulled<T> {
    /// Why the session failed, which is the peer's fault.
    pub(super) fn fault(&self) -> &SessionError {
        let error = self.session_error();
        assert_eq!(error.blame(), Blame::Peer, "{error}");
        error
    }

    /// Why the session failed.
    pub(super) fn session_error(&self) -> &SessionError {
        match &self.result {
            Err(SyncError::Session(error)) => error,
            other => panic!("not a session's error: {other:?}"),
        }
    }
}

async fn summary(space: &Space) -> SpaceSummary {
    space.summary().await.expect("readable").expect("held")
}
