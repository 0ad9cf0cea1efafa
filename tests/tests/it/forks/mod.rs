//! Authors who sign two events at one place, over whole nodes.

mod branches;
mod gossip;
mod liars;
mod ways;

use headwater::{
    AuthorId, Space, SubscribeFrom, Subscription, SubscriptionItem, SyncOutcome, SyncReport,
};
use n0_future::StreamExt;

use crate::nodes::{Node, author, drafts, open, write};

/// The number of the author who forks.
const FORKER: u32 = 2;

fn forker() -> AuthorId {
    author(FORKER).id()
}

/// Two nodes with the same space of three authors, `shared` events of each.
async fn pair(shared: usize) -> (Node, Node, Space, Space) {
    let (left, right) = (quiet().await, quiet().await);
    let ours = crate::nodes::filled(&left.headwater, 3, shared).await;
    let theirs = right.space(ours.id());
    sync(&theirs, &left).await;
    (left, right, ours, theirs)
}

/// A node that asks nobody back, so that a test sees who tells whom.
async fn quiet() -> Node {
    Node::build(open().ask_back(false)).await
}

/// Two branches of the forker, `here` events on one node and `there` on the other.
async fn branch(ours: &Space, theirs: &Space, here: usize, there: usize) {
    write(ours, FORKER, "here", here).await;
    write(theirs, FORKER, "there", there).await;
}

async fn sync(space: &Space, from: &Node) -> SyncReport {
    space.sync_with(from.addr()).await.expect("synced")
}

/// The forks a node knows of in a space: whose log, and where.
async fn forks(space: &Space) -> Vec<(AuthorId, u64)> {
    let known = space.forks(None, 10).await.expect("readable");
    known.iter().map(|fork| (fork.author, fork.seq)).collect()
}

/// Asserts that a sync put right the one fork there is.
fn assert_repaired(report: &SyncReport, seq: u64) {
    assert_eq!(report.outcome, SyncOutcome::Complete, "{report:?}");
    let forks: Vec<_> = report.forks.iter().collect();
    let [fork] = forks[..] else {
        panic!("one author forked: {report:?}");
    };
    assert_eq!(
        (fork.author, fork.seq, fork.repaired),
        (forker(), seq, true)
    );
}

/// Waits until an application is told of a fork.
async fn told(subscription: &mut Subscription) -> (AuthorId, u64) {
    loop {
        let item = subscription.next().await.expect("goes on");
        if let SubscriptionItem::Forked { author, seq } = item.expect("readable") {
            return (author, seq);
        }
    }
}

fn follow(space: &Space) -> Subscription {
    space.subscribe(SubscribeFrom::Now)
}

fn more(tag: &str) -> Vec<headwater::EventDraft> {
    drafts(tag, 3)
}
