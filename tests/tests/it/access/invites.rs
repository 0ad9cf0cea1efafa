//! Invites: one use, in time, for the node and the author that ask.

use std::time::Duration;

use headwater::{
    ALPN, AuthorSecret, CloseCode, Headwater, Invitation, Limits, MemberKey, RedeemError, Roles,
    Roster, SessionError, SyncError, node_key,
    wire::{Busy, Message, Redeemed},
};

use iroh::SecretKey;

use super::{is_refusal, roster};
use crate::nodes::{Node, author, endpoint, endpoint_of, seq_of, write};

const HOUR: Duration = Duration::from_hours(1);

fn is_refused(answer: &Result<(), RedeemError>) -> bool {
    matches!(answer, Err(RedeemError::Refused))
}

#[tokio::test]
async fn an_invite_lets_a_node_in_that_reads_and_writes_at_once() {
    let (server, guest) = (roster().await, roster().await);
    let (owner, writer) = (author(0), author(1));
    let space = server.headwater.create_space(&owner).await.unwrap();
    server.headwater.act_for(&owner);
    let roles = Roles::READ | Roles::WRITE;
    let invitation = space.invite(&owner, roles, HOUR).await.unwrap();
    // As it comes out of a ticket.
    let invitation = Invitation::from_bytes(invitation.to_bytes().into()).unwrap();
    let redeem = guest
        .headwater
        .redeem(server.addr(), &invitation, Some(&writer));
    redeem.await.unwrap();

    let copy = guest.space(space.id());
    copy.sync_with(server.addr()).await.unwrap();
    write(&copy, 1, "guest", 2).await;
    space.sync_with(guest.addr()).await.unwrap_err();
    // The guest's node serves those alone whom the owner lets read.
    let key = node_key(server.addr().id);
    space.grant(&owner, key, Roles::READ).await.unwrap();
    // The first sync may bring that only after the server has asked back, and was refused.
    for _ in 0..2 {
        copy.sync_with(server.addr()).await.unwrap();
    }
    assert_eq!(seq_of(&space, writer.id()).await, 2, "asked back");
    let members = space.members().await.unwrap().unwrap();
    assert_eq!(members.roles(&node_key(guest.addr().id)), Roles::READ);
    assert_eq!(members.roles(&MemberKey::from(writer.id())), Roles::WRITE);
}

#[tokio::test]
async fn an_invite_serves_once_and_whoever_used_it_is_answered_alike_again() {
    let (server, guest, other) = (roster().await, roster().await, roster().await);
    let owner = author(0);
    let space = server.headwater.create_space(&owner).await.unwrap();
    server.headwater.act_for(&owner);
    let invitation = space.invite(&owner, Roles::READ, HOUR).await.unwrap();
    for _ in 0..2 {
        let again = guest.headwater.redeem(server.addr(), &invitation, None);
        again.await.unwrap();
    }
    assert_eq!(seq_of(&space, owner.id()).await, 2, "one grant");
    let second = other.headwater.redeem(server.addr(), &invitation, None);
    assert!(is_refused(&second.await));
    let refused = other.space(space.id()).sync_with(server.addr()).await;
    assert!(is_refusal(&refused.unwrap_err()));

    // Nor does it bring back what was revoked.
    let key = node_key(guest.addr().id);
    space.revoke(&owner, key, Roles::READ).await.unwrap();
    let again = guest.headwater.redeem(server.addr(), &invitation, None);
    assert!(is_refused(&again.await));
}

#[tokio::test]
async fn two_who_ask_at_once_with_one_invite_are_one_too_many() {
    let (server, one, two) = (roster().await, roster().await, roster().await);
    let owner = author(0);
    let space = server.headwater.create_space(&owner).await.unwrap();
    server.headwater.act_for(&owner);
    let invitation = space.invite(&owner, Roles::READ, HOUR).await.unwrap();
    let (first, second) = tokio::join!(
        one.headwater.redeem(server.addr(), &invitation, None),
        two.headwater.redeem(server.addr(), &invitation, None),
    );
    assert_eq!(
        [&first, &second]
            .map(Result::is_ok)
            .iter()
            .filter(|ok| **ok)
            .count(),
        1
    );
    assert!(is_refused(&first) || is_refused(&second));
    assert_eq!(seq_of(&space, owner.id()).await, 2);
}

#[tokio::test]
async fn an_invite_that_is_forged_too_old_or_for_somebody_else_to_take_is_refused_alike() {
    let (server, guest) = (roster().await, roster().await);
    let owner = author(0);
    let space = server.headwater.create_space(&owner).await.unwrap();
    let id = space.id();
    let one_use = || AuthorSecret::from_bytes([9; 32]);
    let sign = |by: &AuthorSecret, space, expires_ms| {
        Invitation::sign(by, space, Roles::READ, expires_ms, one_use())
    };
    let good = sign(&owner, id, u64::MAX);
    let redeem = |invitation| {
        let (node, addr) = (guest.headwater.clone(), server.addr());
        async move { node.redeem(addr, &invitation, None).await }
    };
    // Nobody acts for the owner there yet.
    assert!(is_refused(&redeem(good.clone()).await));
    server.headwater.act_for(&owner);
    for bad in [
        sign(&author(1), id, u64::MAX),
        sign(&owner, id, 1),
        sign(&owner, [7; 32].into(), u64::MAX),
    ] {
        assert!(is_refused(&redeem(bad).await));
    }
    assert_eq!(seq_of(&space, owner.id()).await, 1, "nothing granted");
    redeem(good).await.unwrap();
}

#[tokio::test]
async fn an_invite_for_a_writer_asks_for_the_author_and_one_key_may_be_both() {
    let both = author(3);
    let endpoint = endpoint_of(SecretKey::from_bytes(&both.to_bytes())).await;
    let (server, guest) = (roster().await, Node::on(Headwater::builder(), endpoint));
    let owner = author(0);
    let space = server.headwater.create_space(&owner).await.unwrap();
    server.headwater.act_for(&owner);
    let invitation = space.invite(&owner, Roles::ALL, HOUR).await.unwrap();
    let redeem = |author| guest.headwater.redeem(server.addr(), &invitation, author);
    assert!(matches!(redeem(None).await, Err(RedeemError::AuthorNeeded)));
    let node = node_key(guest.addr().id);
    redeem(Some(&both)).await.unwrap();
    let members = space.members().await.unwrap().unwrap();
    assert_eq!(members.roles(&node), Roles::ALL);
    assert_eq!(seq_of(&space, owner.id()).await, 2);
}

#[tokio::test]
async fn whoever_was_revoked_lets_nobody_in_again_with_another_invite() {
    let (server, guest, other) = (roster().await, roster().await, roster().await);
    let (owner, writer) = (author(0), author(1));
    let space = server.headwater.create_space(&owner).await.unwrap();
    server.headwater.act_for(&owner);
    let reading = space.invite(&owner, Roles::READ, HOUR).await.unwrap();
    let both = Roles::READ | Roles::WRITE;
    let writing = space.invite(&owner, both, HOUR).await.unwrap();
    let key = node_key(guest.addr().id);
    space.grant(&owner, key, Roles::READ).await.unwrap();
    space.revoke(&owner, key, Roles::READ).await.unwrap();
    let again = guest.headwater.redeem(server.addr(), &reading, None);
    assert!(is_refused(&again.await), "their node was revoked");
    let key_of_writer = MemberKey::from(writer.id());
    space
        .revoke(&owner, key_of_writer, Roles::WRITE)
        .await
        .unwrap();
    let again = other
        .headwater
        .redeem(server.addr(), &writing, Some(&writer));
    assert!(is_refused(&again.await), "the author was revoked");
    // The invites are unused, and serve others; what the owner grants by name holds again.
    let first = other.headwater.redeem(server.addr(), &reading, None);
    first.await.unwrap();
    space.grant(&owner, key, Roles::READ).await.unwrap();
    let newcomer = author(5);
    let now = guest
        .headwater
        .redeem(server.addr(), &writing, Some(&newcomer));
    now.await.unwrap();
}

#[tokio::test]
async fn revoking_the_key_of_an_invite_cancels_it() {
    let (server, guest) = (roster().await, roster().await);
    let owner = author(0);
    let space = server.headwater.create_space(&owner).await.unwrap();
    server.headwater.act_for(&owner);
    let invitation = space.invite(&owner, Roles::READ, HOUR).await.unwrap();
    let key = invitation.invite().key;
    space.revoke(&owner, key, Roles::ALL).await.unwrap();
    let refused = guest.headwater.redeem(server.addr(), &invitation, None);
    assert!(is_refused(&refused.await));
}

#[tokio::test]
async fn refused_invites_cost_as_much_as_refused_spaces() {
    let mut limits = Limits::default();
    (limits.request_burst, limits.request_rate) = (300, 1);
    let server = Node::build(Headwater::builder().policy(Roster::new()).limits(limits)).await;
    let guest = roster().await;
    let nowhere = [7; 32].into();
    let one_use = AuthorSecret::from_bytes([9; 32]);
    let invitation = Invitation::sign(&author(0), nowhere, Roles::READ, u64::MAX, one_use);
    let mut refused = 0;
    while is_refused(
        &guest
            .headwater
            .redeem(server.addr(), &invitation, None)
            .await,
    ) {
        refused += 1;
        assert!(refused < 8, "it is busy by then");
    }
    assert!(refused > 0);
}

#[tokio::test]
async fn a_busy_node_tells_the_holder_of_an_invite_when_to_come_again() {
    let (far, guest) = (endpoint().await, roster().await);
    far.set_alpns(vec![ALPN.to_vec()]);
    let owner = author(0);
    let one_use = AuthorSecret::from_bytes([9; 32]);
    let invitation = Invitation::sign(&owner, [7; 32].into(), Roles::READ, u64::MAX, one_use);
    let asked = || guest.headwater.redeem(far.addr(), &invitation, None);

    let says_busy = async {
        let incoming = far.accept().await.unwrap().accept().unwrap();
        let connection = incoming.await.unwrap();
        let (mut send, mut recv) = connection.accept_bi().await.unwrap();
        let redeem = recv.read_to_end(4096).await.unwrap();
        let redeem = Message::decode_body(redeem[4..].to_vec().into());
        let request_id = redeem.unwrap().unwrap().request_id();
        let other = Redeemed {
            request_id: request_id + 1,
        };
        let busy = Busy {
            request_id,
            retry_after_ms: 1500,
        };
        // Both at once, the answer to something else first.
        let frames = [Message::from(other), busy.into()].map(|said| said.encode_frame().unwrap());
        let bytes: Vec<u8> = frames.into_iter().flatten().flatten().collect();
        send.write_all(&bytes).await.unwrap();
        connection.closed().await;
    };
    let told = tokio::select! {
        told = asked() => told,
        () = says_busy => panic!("it waits for an answer that it has"),
    };
    match told {
        Err(RedeemError::Peer(SyncError::Session(SessionError::Busy { retry_after }))) => {
            assert_eq!(retry_after, Duration::from_millis(1500));
        }
        other => panic!("{other:?}"),
    }

    let resets = async {
        let incoming = far.accept().await.unwrap().accept().unwrap();
        let connection = incoming.await.unwrap();
        let (mut send, _recv) = connection.accept_bi().await.unwrap();
        let code = u32::try_from(CloseCode::Busy.code()).unwrap();
        send.reset(code.into()).unwrap();
        connection.closed().await;
    };
    let told = tokio::select! {
        told = asked() => told,
        () = resets => panic!("it says nothing of the reset"),
    };
    let reset = SessionError::Reset(CloseCode::Busy);
    assert!(
        matches!(&told, Err(RedeemError::Peer(SyncError::Session(error))) if *error == reset),
        "{told:?}"
    );
}
