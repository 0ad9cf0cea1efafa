//! Grants and revocations in the owner's log, as nodes follow them.

use headwater::{
    AppendError, DiskStore, Headwater, Roles, Subject, SyncOptions, SyncOutcome, WriteError,
    node_key,
};

use super::{is_refusal, roster};
use crate::nodes::{Node, author, drafts, endpoint, seq_of, write};

#[tokio::test]
async fn a_node_reads_once_the_owner_says_so_and_no_longer_once_it_is_revoked() {
    let (server, reader) = (roster().await, roster().await);
    let space = server.headwater.create_space(&author(0)).await.unwrap();
    let copy = reader.space(space.id());
    let refused = copy.sync_with(server.addr()).await.unwrap_err();
    assert!(is_refusal(&refused), "{refused:?}");

    let key = node_key(reader.addr().id);
    space.grant(&author(0), key, Roles::READ).await.unwrap();
    let report = copy.sync_with(server.addr()).await.unwrap();
    assert_eq!((report.events, report.outcome), (2, SyncOutcome::Complete));

    space.revoke(&author(0), key, Roles::READ).await.unwrap();
    let refused = copy.sync_with(server.addr()).await.unwrap_err();
    assert!(is_refusal(&refused), "{refused:?}");
    assert_eq!(seq_of(&copy, author(0).id()).await, 2);
}

#[tokio::test]
async fn one_sync_brings_the_grants_and_the_logs_they_are_about() {
    let (server, reader) = (roster().await, roster().await);
    let (owner, writer) = (author(0), author(1));
    let space = server.headwater.create_space(&owner).await.unwrap();
    let early = space.append_batch(&writer, drafts("early", 1)).await;
    assert!(matches!(
        early,
        Err(WriteError::Append(AppendError::NotAccepted {
            through: None,
            ..
        }))
    ));
    space
        .grant(&owner, writer.id(), Roles::WRITE)
        .await
        .unwrap();
    write(&space, 1, "writer", 10).await;
    let anyone = Subject::Anyone;
    space.grant(&owner, anyone, Roles::READ).await.unwrap();
    let copy = reader.space(space.id());
    let report = copy.sync_with(server.addr()).await.unwrap();
    assert_eq!(report.outcome, SyncOutcome::Complete);
    assert_eq!(seq_of(&copy, writer.id()).await, 10);
    let members = copy.members().await.unwrap().unwrap();
    assert_eq!(Some(members), space.members().await.unwrap());
}

#[tokio::test]
async fn a_live_reader_that_is_revoked_hears_the_end_and_nothing_more() {
    let (server, reader, other) = (roster().await, roster().await, roster().await);
    let owner = author(0);
    let space = server.headwater.create_space(&owner).await.unwrap();
    let [revoked, kept] = [&reader, &other].map(|node| node_key(node.addr().id));
    for key in [revoked, kept] {
        space.grant(&owner, key, Roles::READ).await.unwrap();
    }
    let (copy, others) = (reader.space(space.id()), other.space(space.id()));
    let mut live = copy.sync_with_options(server.addr(), SyncOptions::live());
    let mut going_on = others.sync_with_options(server.addr(), SyncOptions::live());
    live.history().await.unwrap();
    going_on.history().await.unwrap();

    let mut growth = others.growth();
    space.revoke(&owner, revoked, Roles::READ).await.unwrap();
    write(&space, 0, "after", 1).await;
    let refused = live.await.unwrap_err();
    assert!(is_refusal(&refused), "{refused:?}");
    assert_eq!(seq_of(&copy, owner.id()).await, 3);
    while seq_of(&others, owner.id()).await < 5 {
        growth.next().await;
    }
    going_on.stop();
    going_on.await.unwrap();
}

#[tokio::test]
async fn what_the_owner_said_holds_when_a_node_is_started_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    let (endpoint, writer) = (endpoint().await, author(1));
    let reader = Headwater::builder().spawn(endpoint);
    let start = || async {
        let store = DiskStore::open_or_create(&path).unwrap();
        Node::build(Headwater::builder().store(store)).await
    };
    let server = start().await;
    let space = server.headwater.create_space(&author(0)).await.unwrap();
    let id = space.id();
    let key = node_key(reader.endpoint().unwrap().id());
    space.grant(&author(0), key, Roles::READ).await.unwrap();
    space
        .grant(&author(0), writer.id(), Roles::WRITE)
        .await
        .unwrap();
    write(&space, 1, "kept", 3).await;
    space
        .revoke(&author(0), writer.id(), Roles::WRITE)
        .await
        .unwrap();
    let said = space.members().await.unwrap();
    server.shutdown().await;
    drop(space);

    let server = start().await;
    let space = server.space(id);
    assert_eq!(space.members().await.unwrap(), said);
    let refused = space.append_batch(&writer, drafts("late", 1)).await;
    assert!(matches!(
        refused,
        Err(WriteError::Append(AppendError::NotAccepted {
            through: Some(3),
            ..
        }))
    ));
    let report = reader.space(id).sync_with(server.addr()).await.unwrap();
    assert_eq!(report.events, 7);
    server.shutdown().await;
    reader.shutdown().await;
}

#[tokio::test]
async fn nobody_but_the_owner_grants_revokes_or_invites() {
    let node = Headwater::builder().open();
    let space = node.create_space(&author(0)).await.unwrap();
    let (other, roles) = (author(1), Roles::READ);
    let hour = std::time::Duration::from_hours(1);
    let refused = [
        space.grant(&other, other.id(), roles).await.unwrap_err(),
        space.revoke(&other, other.id(), roles).await.unwrap_err(),
        space.invite(&other, roles, hour).await.unwrap_err(),
    ];
    for error in refused {
        assert!(matches!(error, WriteError::NotOwner { author } if author == other.id()));
    }
}

#[tokio::test]
async fn revoking_a_reader_gives_the_topic_a_new_secret() {
    let node = Headwater::builder().open();
    let (owner, reader) = (author(0), author(1).id());
    let space = node.create_space(&owner).await.unwrap();
    space.revoke(&owner, reader, Roles::READ).await.unwrap();
    assert_eq!(space.topic_secret().await.unwrap(), None);
    space.set_topic_secret(&owner, [1; 32]).await.unwrap();
    space.revoke(&owner, reader, Roles::WRITE).await.unwrap();
    assert_eq!(space.topic_secret().await.unwrap(), Some([1; 32]));
    space.revoke(&owner, reader, Roles::READ).await.unwrap();
    let renewed = space.topic_secret().await.unwrap();
    assert!(renewed.is_some() && renewed != Some([1; 32]));
}
