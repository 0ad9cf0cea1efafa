//! Whose events are accepted, by whatever way they come, and where a revoked writer's log ends.

use headwater::{
    Acceptance, AppendError, AuthorId, EventDraft, Headwater, Roles, Space, Subject, SyncOptions,
    SyncOutcome, VerifiedRun, WriteError,
    wire::{Revocation, sign_runs},
};

use super::roster;
use crate::nodes::{Node, assert_equal, author, drafts, open, seq_of, write};

/// A space of a node that goes by the roster, which everybody may read.
async fn readable(node: &Node) -> Space {
    let space = node.headwater.create_space(&author(0)).await.unwrap();
    let anyone = Subject::Anyone;
    space.grant(&author(0), anyone, Roles::READ).await.unwrap();
    space
}

/// A node that asks nobody back, nor who writes, and has some of a stranger's events.
async fn careless(space: &Space, server: &Node, events: usize) -> (Node, Space) {
    let node = Node::build(open().ask_back(false)).await;
    let copy = node.space(space.id());
    copy.sync_with(server.addr()).await.unwrap();
    write(&copy, 9, "stranger", events).await;
    (node, copy)
}

fn stranger() -> AuthorId {
    author(9).id()
}

/// As [`readable`], with author 1 as a writer.
async fn readable_with_writer(server: &Node) -> Space {
    let space = readable(server).await;
    let granted = space.grant(&author(0), author(1).id(), Roles::WRITE).await;
    granted.unwrap();
    space
}

#[tokio::test]
async fn a_strangers_log_is_refused_in_a_sync_and_the_rest_of_it_is_taken() {
    let server = roster().await;
    let space = readable(&server).await;
    let (node, copy) = careless(&space, &server, 5).await;
    write(&copy, 0, "owner", 4).await;
    let report = space.sync_with(node.addr()).await.unwrap();
    assert_eq!((report.events, report.unaccepted_authors), (4, 1));
    assert_eq!(report.outcome, SyncOutcome::Complete);
    assert_eq!(seq_of(&space, author(0).id()).await, 6);
    assert_eq!(space.head(stranger()).await.unwrap(), None);
    assert_eq!(server.headwater.metrics().runs_refused.get(), 1);
}

#[tokio::test]
async fn a_strangers_events_are_refused_live_and_by_gossip() {
    let server = roster().await;
    let space = readable_with_writer(&server).await;
    let (node, copy) = careless(&space, &server, 1).await;
    let mut live = space.sync_with_options(node.addr(), SyncOptions::live());
    live.history().await.unwrap();
    let mut growth = space.growth();
    write(&copy, 9, "stranger, live", 1).await;
    write(&copy, 1, "writer, live", 1).await;
    growth.next().await;
    assert_eq!(seq_of(&space, author(1).id()).await, 1);
    assert_eq!(space.head(stranger()).await.unwrap(), None);
    live.stop();
    live.await.unwrap();

    let run = run_of(&space, 9, 2).into_run();
    let outcomes = space.apply(vec![run], node.addr().id).await.unwrap();
    let expected = AppendError::NotAccepted {
        author: stranger(),
        through: None,
    };
    assert_eq!(outcomes, [Err(expected)]);
}

#[tokio::test]
async fn a_stranger_is_not_accepted_either_when_the_node_asks_back() {
    let server = roster().await;
    let space = readable(&server).await;
    let (_node, copy) = careless(&space, &server, 3).await;
    write(&copy, 0, "owner", 2).await;
    copy.sync_with(server.addr()).await.unwrap();
    assert_eq!(seq_of(&space, author(0).id()).await, 4);
    assert_eq!(space.head(stranger()).await.unwrap(), None);
}

#[tokio::test]
async fn a_new_writers_log_comes_with_the_next_sync_after_the_grant() {
    let server = roster().await;
    let space = readable(&server).await;
    let (node, _copy) = careless(&space, &server, 5).await;
    let report = space.sync_with(node.addr()).await.unwrap();
    assert_eq!(report.events, 0);
    space
        .grant(&author(0), stranger(), Roles::WRITE)
        .await
        .unwrap();
    let report = space.sync_with(node.addr()).await.unwrap();
    assert_eq!(report.outcome, SyncOutcome::Complete);
    assert_eq!(seq_of(&space, stranger()).await, 5);
}

#[tokio::test]
async fn a_revoked_writers_log_ends_alike_everywhere_and_a_new_grant_shows_it_again() {
    let (server, reader) = (roster().await, roster().await);
    let (owner, writer) = (author(0), author(1).id());
    let space = readable(&server).await;
    space.grant(&owner, writer, Roles::WRITE).await.unwrap();
    write(&space, 1, "counts", 5).await;
    let copy = reader.space(space.id());
    copy.sync_with(server.addr()).await.unwrap();
    // The writer goes on where the revocation is not known yet.
    write(&copy, 1, "late", 4).await;
    assert_eq!(seq_of(&copy, writer).await, 9);

    space.revoke(&owner, writer, Roles::WRITE).await.unwrap();
    space.sync_with(reader.addr()).await.unwrap();
    assert_eq!(seq_of(&space, writer).await, 5);
    copy.sync_with(server.addr()).await.unwrap();
    assert_eq!(seq_of(&copy, writer).await, 5);
    assert_equal(&space, &copy).await;
    let report = copy.sync_with(server.addr()).await.unwrap();
    assert!(report.first_digest_equal);

    space.grant(&owner, writer, Roles::WRITE).await.unwrap();
    copy.sync_with(server.addr()).await.unwrap();
    assert_eq!(seq_of(&copy, writer).await, 9);
    space.sync_with(reader.addr()).await.unwrap();
    assert_eq!(seq_of(&space, writer).await, 9);
    assert_equal(&space, &copy).await;
}

#[tokio::test]
async fn closing_a_space_that_anyone_could_write_keeps_those_who_were_named() {
    let server = roster().await;
    let owner = author(0);
    let space = readable(&server).await;
    let anyone = Subject::Anyone;
    space.grant(&owner, anyone, Roles::WRITE).await.unwrap();
    write(&space, 1, "named", 2).await;
    write(&space, 9, "stranger", 2).await;
    space
        .grant(&owner, author(1).id(), Roles::WRITE)
        .await
        .unwrap();
    space.revoke(&owner, anyone, Roles::WRITE).await.unwrap();
    assert_eq!(seq_of(&space, author(1).id()).await, 2);
    assert_eq!(seq_of(&space, stranger()).await, 0);
    space.grant(&owner, anyone, Roles::WRITE).await.unwrap();
    assert_eq!(seq_of(&space, stranger()).await, 2);
}

#[tokio::test]
async fn a_node_that_begins_to_go_by_the_roster_shows_what_the_roster_accepts() {
    let folder = tempfile::tempdir().unwrap();
    let store = || headwater::DiskStore::open_or_create(folder.path().join("store")).unwrap();
    let node = open().store(store()).open();
    let space = node.create_space(&author(0)).await.unwrap();
    let id = space.id();
    write(&space, 9, "stranger", 3).await;
    node.shutdown().await;
    drop((node, space));

    let node = Headwater::builder().store(store()).open();
    let space = node.space(id);
    // Answered once the owners' logs are read.
    space.members().await.unwrap();
    assert_eq!(seq_of(&space, stranger()).await, 0);
    node.shutdown().await;
}

#[tokio::test]
async fn a_node_that_stops_going_by_the_roster_shows_what_it_has() {
    let folder = tempfile::tempdir().unwrap();
    let store = || headwater::DiskStore::open_or_create(folder.path().join("store")).unwrap();
    let (owner, writer) = (author(0), author(1).id());
    let node = Headwater::builder().store(store()).open();
    let space = node.create_space(&owner).await.unwrap();
    let id = space.id();
    for subject in [writer.into(), Subject::Anyone] {
        space.grant(&owner, subject, Roles::WRITE).await.unwrap();
    }
    write(&space, 1, "counts", 3).await;
    write(&space, 9, "stranger", 3).await;
    for subject in [writer.into(), Subject::Anyone] {
        space.revoke(&owner, subject, Roles::WRITE).await.unwrap();
    }
    assert_eq!(seq_of(&space, stranger()).await, 0);
    let refused = space.append_batch(&author(9), drafts("late", 1)).await;
    assert!(matches!(
        refused,
        Err(WriteError::Append(AppendError::NotAccepted { .. }))
    ));
    node.shutdown().await;
    drop((node, space));

    let node = open().store(store()).open();
    let space = node.space(id);
    write(&space, 9, "goes on", 1).await;
    write(&space, 1, "goes on", 1).await;
    assert_eq!(seq_of(&space, stranger()).await, 4);
    assert_eq!(seq_of(&space, writer).await, 4);
    node.shutdown().await;
}

#[tokio::test]
async fn an_author_nobody_named_goes_on_where_the_log_ended_whatever_was_hidden_meanwhile() {
    let folder = tempfile::tempdir().unwrap();
    let store = || headwater::DiskStore::open_or_create(folder.path().join("store")).unwrap();
    let (owner, anyone) = (author(0), Subject::Anyone);
    let node = Headwater::builder().store(store()).open();
    let space = node.create_space(&owner).await.unwrap();
    let id = space.id();
    space.grant(&owner, anyone, Roles::WRITE).await.unwrap();
    write(&space, 9, "before", 3).await;
    space.revoke(&owner, anyone, Roles::WRITE).await.unwrap();
    assert_eq!(seq_of(&space, stranger()).await, 0);
    node.shutdown().await;
    drop((node, space));

    let node = Headwater::builder().store(store()).open();
    let space = node.space(id);
    space.grant(&owner, anyone, Roles::WRITE).await.unwrap();
    write(&space, 9, "after", 2).await;
    assert_eq!(seq_of(&space, stranger()).await, 5);
    let forks = node.store().forks(&id, None, 1).unwrap();
    assert!(forks.is_empty(), "{forks:?}");
    node.shutdown().await;
}

#[tokio::test]
async fn nothing_is_signed_on_top_of_a_log_that_does_not_show_its_end() {
    let node = Headwater::builder().open();
    let owner = author(0);
    let space = node.create_space(&owner).await.unwrap();
    let anyone = Subject::Anyone;
    space.grant(&owner, anyone, Roles::WRITE).await.unwrap();
    write(&space, 1, "before", 3).await;
    // A bound nobody knows of is lifted, as the author may write.
    let bound = |author: AuthorId| node.store().restrict(&space.id(), &author, Some(1));
    let _ = bound(author(1).id()).unwrap();
    write(&space, 1, "after", 1).await;
    assert_eq!(seq_of(&space, author(1).id()).await, 4);
    // Where the policy knows of none, it is not the node's to lift.
    let _ = bound(owner.id()).unwrap();
    let stored = node.store().stored_end(&space.id(), &owner.id()).unwrap();
    assert_eq!(stored.map(|end| end.seq), Some(2));
    write(&space, 0, "after", 1).await;
    assert_eq!(seq_of(&space, owner.id()).await, 3);
    let forks = node.store().forks(&space.id(), None, 1).unwrap();
    assert!(forks.is_empty(), "{forks:?}");
}

#[tokio::test]
async fn a_bound_takes_back_what_a_live_reader_was_not_shown_yet() {
    let (server, reader) = (roster().await, roster().await);
    let (owner, writer) = (author(0), author(1).id());
    let space = readable(&server).await;
    space.grant(&owner, writer, Roles::WRITE).await.unwrap();
    let copy = reader.space(space.id());
    let mut live = copy.sync_with_options(server.addr(), SyncOptions::live());
    live.history().await.unwrap();
    let mut growth = copy.growth();
    let nothing = Revocation {
        subject: writer.into(),
        roles: Roles::WRITE,
        last: None,
    };
    for _ in 0..20 {
        write(&space, 1, "soon hidden", 1).await;
        let draft = EventDraft::revoke(nothing, 0);
        space.append(&owner, draft).await.unwrap();
        space.grant(&owner, writer, Roles::WRITE).await.unwrap();
    }
    let last = seq_of(&space, owner.id()).await;
    let mut ending = live.into_future();
    while seq_of(&copy, owner.id()).await < last {
        tokio::select! {
            _ = growth.next() => {}
            ended = &mut ending => panic!("{ended:?}"),
        }
    }
}

#[tokio::test]
async fn nodes_agree_about_a_log_that_forks_and_that_nobody_accepts() {
    let (server, late) = (roster().await, roster().await);
    let owner = author(0);
    let space = readable(&server).await;
    let anyone = Subject::Anyone;
    space.grant(&owner, anyone, Roles::WRITE).await.unwrap();
    let (node, copy) = careless(&space, &server, 4).await;
    write(&space, 9, "elsewhere", 3).await;
    space.sync_with(node.addr()).await.unwrap();
    let forked = space.head(stranger()).await.unwrap();
    assert!(forked.is_some_and(|record| record.entry.forked));
    space.revoke(&owner, anyone, Roles::WRITE).await.unwrap();
    assert_eq!(space.head(stranger()).await.unwrap(), None);
    let joined = late.space(space.id());
    joined.sync_with(server.addr()).await.unwrap();
    assert_equal(&space, &joined).await;
    let report = joined.sync_with(server.addr()).await.unwrap();
    assert!(report.first_digest_equal);
    space.grant(&owner, anyone, Roles::WRITE).await.unwrap();
    joined.sync_with(server.addr()).await.unwrap();
    assert_equal(&space, &joined).await;
    drop(copy);
}

#[tokio::test]
async fn a_log_that_ends_inside_a_run_is_synced_whole_and_shown_up_to_there() {
    let (server, reader) = (roster().await, roster().await);
    let (owner, writer) = (author(0), author(1).id());
    let space = readable(&server).await;
    space.grant(&owner, writer, Roles::WRITE).await.unwrap();
    write(&space, 1, "one run", 6).await;
    let end = space.event(writer, 4).await.unwrap().unwrap();
    let revocation = Revocation {
        subject: writer.into(),
        roles: Roles::WRITE,
        last: Some(headwater::AuthorHead { seq: 4, id: end.id }),
    };
    let draft = EventDraft::revoke(revocation, 0);
    space.append(&owner, draft).await.unwrap();
    assert_eq!(seq_of(&space, writer).await, 4);
    let copy = reader.space(space.id());
    let report = copy.sync_with(server.addr()).await.unwrap();
    assert_eq!(report.outcome, SyncOutcome::Complete);
    assert_eq!(seq_of(&copy, writer).await, 4);
    assert_equal(&space, &copy).await;
    // Nothing is missing once it counts again.
    space.grant(&owner, writer, Roles::WRITE).await.unwrap();
    let report = copy.sync_with(server.addr()).await.unwrap();
    assert_eq!(report.outcome, SyncOutcome::Complete);
    assert_eq!(seq_of(&copy, writer).await, 6);
    let last = copy.event(writer, 6).await.unwrap().unwrap();
    assert!(last.payload.is_some());
    assert_equal(&space, &copy).await;
}

#[tokio::test]
async fn a_writer_granted_while_a_stream_is_live_fits_from_the_next_sync_on() {
    let server = roster().await;
    let space = readable_with_writer(&server).await;
    let (node, copy) = careless(&space, &server, 3).await;
    let mut live = space.sync_with_options(node.addr(), SyncOptions::live());
    live.history().await.unwrap();
    space
        .grant(&author(0), stranger(), Roles::WRITE)
        .await
        .unwrap();
    let mut growth = space.growth();
    // What goes before it was refused, so it does not fit; the stream goes on all the same.
    write(&copy, 9, "no longer a stranger", 1).await;
    write(&copy, 1, "writer", 1).await;
    growth.next().await;
    live.stop();
    let report = live.await.unwrap();
    assert_eq!(report.unaccepted_authors, 1);
    space.sync_with(node.addr()).await.unwrap();
    assert_eq!(seq_of(&space, stranger()).await, 4);
}

#[tokio::test]
async fn a_grant_above_the_place_where_the_owners_log_forks_does_not_hold() {
    let server = roster().await;
    let space = readable(&server).await;
    let (node, copy) = careless(&space, &server, 3).await;
    space
        .grant(&author(0), stranger(), Roles::WRITE)
        .await
        .unwrap();
    space.sync_with(node.addr()).await.unwrap();
    assert_eq!(seq_of(&space, stranger()).await, 3);
    // The same owner, on another device.
    write(&copy, 0, "elsewhere", 1).await;
    space.sync_with(node.addr()).await.unwrap();
    assert_eq!(seq_of(&space, author(0).id()).await, 2);
    let members = space.members().await.unwrap().unwrap();
    assert_eq!(members.acceptance(&stranger()), Acceptance::Nothing);
    assert_eq!(seq_of(&space, stranger()).await, 0);
}

#[tokio::test]
async fn what_shows_again_is_told_to_whoever_follows_the_space() {
    let server = roster().await;
    let (owner, writer) = (author(0), author(1).id());
    let space = readable(&server).await;
    space.grant(&owner, writer, Roles::WRITE).await.unwrap();
    write(&space, 1, "counts", 2).await;
    let other = Revocation {
        subject: writer.into(),
        roles: Roles::WRITE,
        last: None,
    };
    let draft = EventDraft::revoke(other, 0);
    space.append(&owner, draft).await.unwrap();
    assert_eq!(seq_of(&space, writer).await, 0);
    let mut growth = space.growth();
    space.grant(&owner, writer, Roles::WRITE).await.unwrap();
    let mut grown = growth.next().await;
    while !grown.iter().any(|log| log.author == writer) {
        grown.extend(growth.next().await);
    }
    let of_writer = grown.iter().find(|log| log.author == writer).unwrap();
    assert_eq!((of_writer.above, of_writer.through), (0, 2));
}

/// A run of an author that nobody holds.
fn run_of(space: &Space, number: u32, events: usize) -> VerifiedRun {
    let drafts = drafts("unheard of", events);
    let mut runs = sign_runs(&space.id(), &author(number), None, drafts).unwrap();
    runs.remove(0)
}
