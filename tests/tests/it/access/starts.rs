//! What a node that goes by the roster does when it starts.

use std::sync::Arc;

use headwater::{EventDraft, wire::sign_runs};
use headwater::{
    Headwater, LogStore, MemoryStore, Roles, SpaceId, node_key, store::Bounds, wire::Revocation,
};

use crate::{
    gate::{Gate, GatedStore},
    nodes::{Node, author, open, seq_of, write},
};

fn store() -> (Arc<dyn LogStore>, Gate) {
    let (store, gate) = GatedStore::new(MemoryStore::new(), usize::MAX);
    (Arc::new(store), gate)
}

async fn start(store: &Arc<dyn LogStore>) -> Node {
    Node::build(Headwater::builder().shared_store(Arc::clone(store))).await
}

#[tokio::test]
async fn a_start_looks_at_every_log_only_where_bounds_may_lag_behind_the_owner() {
    let (store, gate) = store();
    let node = start(&store).await;
    let (owner, writer) = (author(0), author(1).id());
    let space = node.headwater.create_space(&owner).await.unwrap();
    space.grant(&owner, writer, Roles::WRITE).await.unwrap();
    write(&space, 1, "counts", 4).await;
    space.revoke(&owner, writer, Roles::WRITE).await.unwrap();
    let id = space.id();
    node.shutdown().await;
    let walks = async |node: Node| {
        let held = node.space(id).members().await.unwrap();
        assert!(held.is_some());
        node.shutdown().await;
        gate.take_walks()
    };
    gate.take_walks();
    assert_eq!(walks(start(&store).await).await, 0);
    // A node that lets everybody write lifts the bounds, and does not look again.
    for expected in [true, false] {
        let all = Node::build(open().shared_store(Arc::clone(&store))).await;
        assert_eq!(seq_of(&all.space(id), writer).await, 4);
        assert_eq!(walks(all).await > 0, expected);
    }
    // What was written meanwhile is looked at once.
    assert!(walks(start(&store).await).await > 0);
    assert_eq!(walks(start(&store).await).await, 0);
    assert_eq!(store.restriction(&id, &writer).unwrap(), Some(4));
}

#[tokio::test]
async fn a_kill_between_a_revocation_and_its_bounds_is_made_good_by_the_next_start() {
    let (store, gate) = store();
    let node = start(&store).await;
    let (owner, writer) = (author(0), author(1).id());
    let space = node.headwater.create_space(&owner).await.unwrap();
    space.grant(&owner, writer, Roles::WRITE).await.unwrap();
    write(&space, 1, "counts not", 4).await;
    let id = space.id();
    node.shutdown().await;
    assert_eq!(store.bounds(&id).unwrap(), Some(Bounds::Kept));
    // The owner's transaction, and nothing after it.
    let revocation = Revocation {
        subject: writer.into(),
        roles: Roles::WRITE,
        last: None,
    };
    let base = store.stored_end(&id, &owner.id()).unwrap();
    let runs = sign_runs(&id, &owner, base, [EventDraft::revoke(revocation, 0)]).unwrap();
    let commit = store.append(&runs).unwrap();
    assert!(commit.outcomes[0].is_ok());
    assert_eq!(store.bounds(&id).unwrap(), Some(Bounds::Due));
    gate.take_walks();

    let node = start(&store).await;

    node.space(id).members().await.unwrap();
    assert_eq!(seq_of(&node.space(id), writer).await, 0);
    assert!(gate.take_walks() > 0);
    assert_eq!(store.bounds(&id).unwrap(), Some(Bounds::Kept));
    node.shutdown().await;
}

#[tokio::test]
async fn an_owners_log_that_could_not_be_read_is_read_when_somebody_asks() {
    let (store, gate) = store();
    let node = start(&store).await;
    let owner = author(0);
    let space = node.headwater.create_space(&owner).await.unwrap();
    let reader = Node::spawn().await;
    let granted = space.grant(&owner, node_key(reader.addr().id), Roles::READ);
    granted.await.unwrap();
    let id = space.id();
    node.shutdown().await;

    gate.set_unreadable(true);
    let node = start(&store).await;
    let copy = reader.space(id);
    // Answered once the node has tried to read what it holds.
    let elsewhere = SpaceId::from_bytes([9; 32]);
    let policy = node.headwater.policy();
    assert!(!policy.may_read(reader.addr().id, elsewhere).await);
    assert!(node.space(id).members().await.is_err());
    // The owner writes nothing meanwhile, and nobody else does.
    gate.set_unreadable(false);
    let report = copy.sync_with(node.addr()).await.unwrap();
    assert_eq!(report.events, 2);
    assert!(node.space(id).members().await.unwrap().is_some());
    reader.shutdown().await;
    node.shutdown().await;
}
