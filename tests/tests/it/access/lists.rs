//! Policies that an application keeps: lists, and one of its own.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use headwater::{
    AccessPolicy, AllowList, AppendError, ChangeSignal, Changes, Headwater, SpaceId, SyncOptions,
    WriteError,
};
use iroh::EndpointId;
use n0_future::boxed::BoxFuture;

use super::is_refusal;
use crate::nodes::{Node, author, drafts, open, seq_of, write};

#[tokio::test]
async fn a_list_says_who_reads_and_writes_and_is_believed_and_may_change() {
    let list = AllowList::new();
    let server = Node::build(Headwater::builder().policy(list.clone())).await;
    let reader = Node::build(open()).await;
    let space = server.headwater.create_space(&author(0)).await.unwrap();
    let (id, node) = (space.id(), reader.addr().id);
    let copy = reader.space(id);
    let refused = copy.sync_with(server.addr()).await.unwrap_err();
    assert!(is_refusal(&refused), "{refused:?}");

    list.set_reader(id, node, true);
    list.set_writer(id, author(1).id(), true);
    write(&space, 1, "listed", 2).await;
    copy.sync_with(server.addr()).await.unwrap();
    write(&copy, 2, "not listed", 1).await;
    write(&copy, 1, "listed", 1).await;
    let report = space.sync_with(reader.addr()).await.unwrap();
    assert_eq!((report.events, report.from_provider), (1, false));
    assert_eq!(space.head(author(2).id()).await.unwrap(), None);

    list.set_provider(id, node, true);
    list.set_any_writer(id, true);
    let report = space.sync_with(reader.addr()).await.unwrap();
    assert_eq!((report.events, report.from_provider), (1, true));

    list.set_any_writer(id, false);
    list.set_writer(id, author(1).id(), false);
    let refused = space.append_batch(&author(1), drafts("late", 1)).await;
    assert!(matches!(
        refused,
        Err(WriteError::Append(AppendError::NotAccepted { .. }))
    ));
    assert_eq!(seq_of(&space, author(1).id()).await, 3);
    let mut live = copy.sync_with_options(server.addr(), SyncOptions::live());
    live.history().await.unwrap();
    list.set_reader(id, node, false);
    let refused = live.await.unwrap_err();
    assert!(is_refusal(&refused), "{refused:?}");
}

/// A policy of an application's own: a switch.
#[derive(Debug, Clone, Default)]
struct Switch {
    on: Arc<AtomicBool>,
    signal: ChangeSignal,
}

impl AccessPolicy for Switch {
    fn may_read(&self, _remote: EndpointId, _space: SpaceId) -> BoxFuture<bool> {
        let on = self.on.load(Ordering::SeqCst);
        Box::pin(std::future::ready(on))
    }

    fn changes(&self) -> Changes {
        self.signal.changes()
    }
}

#[tokio::test]
async fn a_policy_of_its_own_ends_what_runs_by_saying_that_it_changed() {
    let switch = Switch::default();
    switch.on.store(true, Ordering::SeqCst);
    let server = Node::build(Headwater::builder().policy(switch.clone())).await;
    let reader = Node::build(open()).await;
    let space = server.headwater.create_space(&author(0)).await.unwrap();
    write(&space, 1, "anybody writes", 1).await;
    let copy = reader.space(space.id());
    let mut live = copy.sync_with_options(server.addr(), SyncOptions::live());
    live.history().await.unwrap();
    // Asked again, and still of the same mind.
    switch.signal.notify();
    let mut growth = copy.growth();
    write(&space, 1, "live", 1).await;
    growth.next().await;
    switch.on.store(false, Ordering::SeqCst);
    switch.signal.notify();
    let refused = live.await.unwrap_err();
    assert!(is_refusal(&refused), "{refused:?}");
}
