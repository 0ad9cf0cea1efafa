//! Each role, and what it may do: the whole table over real connections.

use std::time::Duration;

use headwater::{AuthorSecret, Headwater, Roles, Space, SyncOptions, WriteError, node_key};
use iroh::SecretKey;

use super::{is_refusal, roster};
use crate::nodes::{Node, author, drafts, endpoint_of, open, seq_of, write};

/// Who somebody is to the space.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Somebody {
    Stranger,
    Reader,
    Writer,
    RevokedWriter,
    RevokedReader,
    Provider,
    Owner,
}

/// What came of trying, each in its place: being served the history, being told of news, having new
/// events accepted, a pull from them counting as a provider's, letting others do more, and turning an
/// invite into a grant.
type May = [bool; 6];

#[rustfmt::skip]
const TABLE: [(Somebody, May); 7] = [
    //                          read   listen write  believed grant  invites
    (Somebody::Stranger,       [false, false, false, false,   false, false]),
    (Somebody::Reader,         [true,  true,  false, false,   false, false]),
    (Somebody::Writer,         [true,  true,  true,  false,   false, false]),
    (Somebody::RevokedWriter,  [true,  true,  false, false,   false, false]),
    (Somebody::RevokedReader,  [false, false, true,  false,   false, false]),
    (Somebody::Provider,       [true,  true,  false, true,    false, false]),
    (Somebody::Owner,          [true,  true,  true,  true,    true,  true]),
];

#[tokio::test(flavor = "multi_thread")]
async fn everybody_may_do_what_their_role_says_and_nothing_else() {
    for (somebody, expected) in TABLE {
        let scene = Scene::of(somebody).await;
        assert_eq!(scene.tried().await, expected, "{somebody:?}");
    }
}

/// A space on a node that goes by the roster, and somebody who got a copy of it by another way.
struct Scene {
    server: Node,
    space: Space,
    owner: AuthorSecret,
    theirs: Node,
    copy: Space,
    secret: AuthorSecret,
}

impl Scene {
    async fn of(somebody: Somebody) -> Self {
        let owner = author(0);
        let secret = if somebody == Somebody::Owner {
            owner.clone()
        } else {
            author(1)
        };
        let server = roster().await;
        let space = server.headwater.create_space(&owner).await.unwrap();
        // One key, for the node and the author.
        let theirs = node_of(&secret).await;
        let granted = match somebody {
            Somebody::Stranger | Somebody::Owner => Roles::NONE,
            Somebody::Reader => Roles::READ,
            Somebody::Provider => Roles::READ | Roles::PROVIDE,
            Somebody::Writer | Somebody::RevokedWriter | Somebody::RevokedReader => {
                Roles::READ | Roles::WRITE
            }
        };
        let copy = theirs.space(space.id());
        let leak = Node::build(open()).await;
        let key = node_key(leak.addr().id);
        space.grant(&owner, key, Roles::READ).await.unwrap();
        if !granted.is_empty() {
            space.grant(&owner, secret.id(), granted).await.unwrap();
        }
        if granted.contains(Roles::WRITE) {
            write(&space, 1, "while a writer", 2).await;
        }
        let revoked = match somebody {
            Somebody::RevokedWriter => Roles::WRITE,
            Somebody::RevokedReader => Roles::READ,
            _ => Roles::NONE,
        };
        if !revoked.is_empty() {
            space.revoke(&owner, secret.id(), revoked).await.unwrap();
        }
        let leaked = leak.space(space.id());
        leaked.sync_with(server.addr()).await.unwrap();
        copy.sync_with(leak.addr()).await.unwrap();
        Self {
            server,
            space,
            owner,
            theirs,
            copy,
            secret,
        }
    }

    async fn tried(self) -> May {
        let may = [
            self.reads().await,
            self.listens().await,
            self.writes().await,
            self.is_believed().await,
            self.grants().await,
            self.takes_invites().await,
        ];
        self.theirs.shutdown().await;
        self.server.shutdown().await;
        may
    }

    async fn reads(&self) -> bool {
        match self.copy.sync_with(self.server.addr()).await {
            Ok(_report) => true,
            Err(error) => {
                assert!(is_refusal(&error), "{error:?}");
                false
            }
        }
    }

    async fn listens(&self) -> bool {
        let options = SyncOptions::live();
        let mut live = self.copy.sync_with_options(self.server.addr(), options);
        if live.history().await.is_err() {
            return false;
        }
        let mut growth = self.copy.growth();
        write(&self.space, 0, "news", 1).await;
        growth.next().await;
        live.stop();
        live.await.unwrap();
        true
    }

    async fn writes(&self) -> bool {
        let author = self.secret.id();
        let before = seq_of(&self.space, author).await;
        let new = drafts("theirs", 3);
        self.copy.append_batch(&self.secret, new).await.unwrap();
        self.space.sync_with(self.theirs.addr()).await.unwrap();
        let stored = seq_of(&self.space, author).await - before;
        assert!([0, 3].contains(&stored), "{stored}");
        stored == 3
    }

    async fn is_believed(&self) -> bool {
        let report = self.space.sync_with(self.theirs.addr()).await.unwrap();
        report.from_provider
    }

    async fn grants(&self) -> bool {
        let granted = self.copy.grant(&self.secret, author(7).id(), Roles::READ);
        match granted.await {
            Ok(_event) => true,
            Err(WriteError::NotOwner { .. }) => false,
            Err(error) => panic!("{error}"),
        }
    }

    async fn takes_invites(&self) -> bool {
        self.theirs.headwater.act_for(&self.secret);
        let hour = Duration::from_hours(1);
        let invitation = self.space.invite(&self.owner, Roles::READ, hour);
        let invitation = invitation.await.unwrap();
        let guest = Headwater::builder().spawn(crate::nodes::endpoint().await);
        let answer = guest.redeem(self.theirs.addr(), &invitation, None).await;
        guest.shutdown().await;
        answer.is_ok()
    }
}

/// A node with an author's key as its own, that serves everybody and accepts every author.
async fn node_of(secret: &AuthorSecret) -> Node {
    let endpoint = endpoint_of(SecretKey::from_bytes(&secret.to_bytes())).await;
    Node::on(open(), endpoint)
}
