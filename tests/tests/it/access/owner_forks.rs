//! An owner who forks: what any branch revokes holds everywhere, what it grants nowhere.

use std::sync::Arc;

use headwater::{
    Acceptance, AuthorHead, AuthorId, EventDraft, Headwater, Roles, Space, Subject, SyncOptions,
    SyncOutcome, WriteError, node_key, wire::Revocation,
};

use super::{is_refusal, roster};
use crate::nodes::{Node, assert_equal, author, seq_of, write};

/// The owner's two devices, a member who takes part in neither branch, and a reader.
struct Scene {
    one: Node,
    other: Node,
    member: Node,
    reader: Node,
    /// Granted reading, and came never.
    newcomer: Node,
    /// As the first device holds it.
    space: Space,
}

fn writer() -> AuthorId {
    author(1).id()
}

async fn quiet() -> Node {
    Node::build(Headwater::builder().ask_back(false)).await
}

impl Scene {
    /// Everybody has read what the owner granted, and five events of a writer.
    async fn set() -> Self {
        let [one, other, member, reader, newcomer] = [
            quiet().await,
            quiet().await,
            quiet().await,
            roster().await,
            quiet().await,
        ];
        let owner = author(0);
        let space = one.headwater.create_space(&owner).await.unwrap();
        for node in [&one, &other, &member, &reader, &newcomer] {
            let key = node_key(node.addr().id);
            space.grant(&owner, key, Roles::READ).await.unwrap();
        }
        space.grant(&owner, writer(), Roles::WRITE).await.unwrap();
        write(&space, 1, "written", 5).await;
        for node in [&other, &member, &reader] {
            node.space(space.id()).sync_with(one.addr()).await.unwrap();
        }
        Self {
            one,
            other,
            member,
            reader,
            newcomer,
            space,
        }
    }

    fn of(&self, node: &Node) -> Space {
        node.space(self.space.id())
    }

    /// The device that revokes: the writer after the third event, and the reader. Then it grants
    /// both again.
    async fn branch(&self) {
        let (owner, space) = (author(0), self.of(&self.other));
        let last = space.event(writer(), 3).await.unwrap().unwrap();
        let last = AuthorHead {
            seq: 3,
            id: last.id,
        };
        revoke(&space, writer().into(), Roles::WRITE, Some(last)).await;
        revoke(&space, self.reader_key(), Roles::READ, None).await;
        space.grant(&owner, writer(), Roles::WRITE).await.unwrap();
        let reader = self.reader_key();
        space.grant(&owner, reader, Roles::READ).await.unwrap();
        assert_eq!(seq_of(&space, writer()).await, 5);
        // The first one does something else meanwhile.
        write(&self.space, 0, "elsewhere", 2).await;
    }

    fn reader_key(&self) -> Subject {
        Subject::Key(node_key(self.reader.addr().id))
    }

    /// Asserts that both lost on a node what was revoked.
    async fn assert_holds(&self, node: &Node) {
        let space = self.of(node);
        let members = space.members().await.unwrap().unwrap();
        let Subject::Key(reader) = self.reader_key() else {
            panic!("a key");
        };
        assert_eq!(members.roles(&reader), Roles::NONE);
        let Acceptance::Through(last) = members.acceptance(&writer()) else {
            panic!("{:?}", members.acceptance(&writer()));
        };
        assert_eq!(last.seq, 3);
        assert_eq!(seq_of(&space, writer()).await, 3);
        let refused = self.of(&self.reader).sync_with(node.addr()).await;
        assert!(is_refusal(&refused.unwrap_err()));
    }

    async fn shutdown(self) {
        let with_history = [self.one, self.other, self.member, self.reader];
        for node in with_history.into_iter().chain([self.newcomer]) {
            node.shutdown().await;
        }
    }
}

async fn revoke(space: &Space, subject: Subject, roles: Roles, last: Option<AuthorHead>) {
    let revocation = Revocation {
        subject,
        roles,
        last,
    };
    let draft = EventDraft::revoke(revocation, 0);
    space.append(&author(0), draft).await.unwrap();
}

#[tokio::test]
async fn a_revocation_in_one_branch_holds_for_those_who_held_neither() {
    let scene = Scene::set().await;
    scene.branch().await;
    let report = scene.space.sync_with(scene.other.addr()).await.unwrap();
    assert_eq!(report.outcome, SyncOutcome::Complete, "{report:?}");
    // From one that never stored the branch itself.
    let copy = scene.of(&scene.member);
    copy.sync_with(scene.one.addr()).await.unwrap();
    // And one that holds nothing, from that one.
    let fresh = scene.of(&scene.newcomer);
    fresh.sync_with(scene.member.addr()).await.unwrap();
    for node in [&scene.one, &scene.other, &scene.member, &scene.newcomer] {
        scene.assert_holds(node).await;
        assert_equal(&scene.space, &scene.of(node)).await;
    }
    // There is nothing left to tell.
    for (node, from) in [(&scene.one, &scene.member), (&scene.member, &scene.other)] {
        let report = scene.of(node).sync_with(from.addr()).await.unwrap();
        assert!(report.first_digest_equal, "{report:?}");
    }
    // Nor can the owner take it back, in a log that ends there.
    let again = scene.space.grant(&author(0), writer(), Roles::WRITE).await;
    assert!(matches!(again, Err(WriteError::Forked { .. })), "{again:?}");
    scene.shutdown().await;
}

#[tokio::test]
async fn whoever_is_behind_the_cut_learns_of_a_revocation_above_it_in_one_sync() {
    let [one, other, late] = [quiet().await, quiet().await, quiet().await];
    let owner = author(0);
    let space = one.headwater.create_space(&owner).await.unwrap();
    for node in [&one, &other, &late] {
        let key = node_key(node.addr().id);
        space.grant(&owner, key, Roles::READ).await.unwrap();
    }
    let behind = late.space(space.id());
    behind.sync_with(one.addr()).await.unwrap();
    // All this happens while it is away.
    write(&space, 0, "meanwhile", 40).await;
    space.grant(&owner, writer(), Roles::WRITE).await.unwrap();
    write(&space, 0, "meanwhile", 40).await;
    let branch = other.space(space.id());
    branch.sync_with(one.addr()).await.unwrap();
    revoke(&branch, writer().into(), Roles::WRITE, None).await;
    write(&branch, 0, "there", 3).await;
    write(&space, 0, "elsewhere", 2).await;
    space.sync_with(other.addr()).await.unwrap();

    let report = behind.sync_with(one.addr()).await.unwrap();

    assert_eq!(report.outcome, SyncOutcome::Complete, "{report:?}");
    for held in [&space, &behind] {
        let members = held.members().await.unwrap().unwrap();
        assert_eq!(members.acceptance(&writer()), Acceptance::Nothing);
    }
    assert_equal(&space, &behind).await;
    let again = behind.sync_with(one.addr()).await.unwrap();
    assert!(again.first_digest_equal, "{again:?}");
    for node in [one, other, late] {
        node.shutdown().await;
    }
}

#[tokio::test]
async fn a_revocation_learnt_after_the_fork_ends_what_runs_for_the_reader() {
    let scene = Scene::set().await;
    scene.branch().await;
    // The fork is found with a device that revoked nothing.
    let third = scene.of(&scene.member);
    write(&third, 0, "there", 3).await;
    scene.space.sync_with(scene.member.addr()).await.unwrap();
    let forks = scene.space.forks(None, 10).await.unwrap();
    assert_eq!(forks.len(), 1);
    assert_eq!(seq_of(&scene.space, writer()).await, 5);
    let reading = scene.of(&scene.reader);
    let mut live = reading.sync_with_options(scene.one.addr(), SyncOptions::live());
    live.history().await.unwrap();
    let mut following = third.sync_with_options(scene.one.addr(), SyncOptions::live());
    following.history().await.unwrap();

    let report = scene.space.sync_with(scene.other.addr()).await.unwrap();

    assert_eq!(report.outcome, SyncOutcome::Complete, "{report:?}");
    // Who follows is sent to sync again: a live part cannot tell.
    following.await.unwrap();
    let refused = live.await.unwrap_err();
    assert!(is_refusal(&refused), "{refused:?}");
    for node in [&scene.one, &scene.other] {
        scene.assert_holds(node).await;
    }
    // What knew of the fork alone learns the rest as well.
    let before = third.summary().await.unwrap().unwrap().digest;
    third.sync_with(scene.one.addr()).await.unwrap();
    assert_ne!(third.summary().await.unwrap().unwrap().digest, before);
    scene.assert_holds(&scene.member).await;
    assert_equal(&scene.space, &third).await;
    scene.shutdown().await;
}

#[tokio::test]
async fn a_revocation_above_the_cut_is_still_held_after_a_restart() {
    let scene = Scene::set().await;
    scene.branch().await;
    scene.space.sync_with(scene.other.addr()).await.unwrap();
    let before = scene.space.members().await.unwrap();
    let store = Arc::clone(scene.one.headwater.store());
    let Scene { one, .. } = &scene;
    one.headwater.shutdown().await;
    let again = Node::build(Headwater::builder().shared_store(store)).await;
    let members = again.space(scene.space.id()).members().await.unwrap();
    assert_eq!(members, before);
    scene.assert_holds(&again).await;
    again.shutdown().await;
    scene.shutdown().await;
}
