//! A space that is not held, one that is not for the peer, and one this node serves to nobody: the
//! same answer, byte by byte, by the same steps.

use std::sync::{Arc, Mutex};

use headwater::{
    ALPN, Acceptance, AccessPolicy, AuthorId, AuthorSecret, Changes, Headwater, Invitation,
    MemberKey, MemoryStore, Nobody, Roles, Roster, SpaceId,
    wire::{AuthorProof, Budget, Clock, HeadsChunk, Message, Redeem, SyncFilter, SyncRequestV2},
};
use iroh::{
    Endpoint, EndpointAddr, EndpointId,
    endpoint::{ReadError, VarInt},
};
use n0_future::boxed::BoxFuture;

use crate::{
    gate::{Gate, GatedStore},
    nodes::{Node, author, endpoint, seq_of, write},
};

/// All that a peer sees of an answer.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    frames: Vec<u8>,
    reset: u64,
    /// The code our half was stopped with.
    stopped: Option<u64>,
    /// Whether the connection stands.
    stands: bool,
}

async fn ask(endpoint: &Endpoint, peer: EndpointAddr, messages: &[Message]) -> Seen {
    let connection = endpoint.connect(peer, ALPN).await.unwrap();
    let (mut send, mut recv) = connection.open_bi().await.unwrap();
    for message in messages {
        for chunk in message.encode_frame().unwrap() {
            send.write_chunk(chunk).await.unwrap();
        }
    }
    let mut frames = Vec::new();
    let reset = loop {
        match recv.read_chunk(usize::MAX).await {
            Ok(Some(bytes)) => frames.extend_from_slice(&bytes),
            Err(ReadError::Reset(code)) => break code.into_inner(),
            other => panic!("not reset: {other:?}"),
        }
    };
    let stopped = send.stopped().await.unwrap();
    let seen = Seen {
        frames,
        reset,
        stopped: stopped.map(VarInt::into_inner),
        stands: connection.close_reason().is_none(),
    };
    connection.close(0u32.into(), b"");
    seen
}

fn request(space: SpaceId, live: bool) -> Vec<Message> {
    let request = SyncRequestV2 {
        request_id: 7,
        space,
        clock: Clock::Heads,
        filter: SyncFilter::default(),
        budget: Budget::default(),
        live,
    };
    let heads = HeadsChunk {
        request_id: 7,
        heads: Vec::new(),
        last: true,
    };
    vec![request.into(), heads.into()]
}

/// A roster that notes when it is asked.
#[derive(Debug, Clone)]
struct Noting {
    roster: Roster,
    asked: Arc<Mutex<usize>>,
}

impl AccessPolicy for Noting {
    fn may_read(&self, remote: EndpointId, space: SpaceId) -> BoxFuture<bool> {
        *self.asked.lock().unwrap() += 1;
        self.roster.may_read(remote, space)
    }

    fn accepts(&self, space: SpaceId, author: AuthorId) -> Acceptance {
        self.roster.accepts(space, author)
    }

    fn changes(&self) -> Changes {
        self.roster.changes()
    }

    fn roster(&self) -> Option<&Roster> {
        Some(&self.roster)
    }
}

struct Refusing {
    node: Node,
    held: SpaceId,
    asked: Arc<Mutex<usize>>,
    gate: Gate,
}

impl Refusing {
    async fn start() -> Self {
        let asked = Arc::new(Mutex::new(0));
        let policy = Noting {
            roster: Roster::new(),
            asked: Arc::clone(&asked),
        };
        let (store, gate) = GatedStore::new(MemoryStore::new(), usize::MAX);
        let node = Node::build(Headwater::builder().store(store).policy(policy)).await;
        let space = node.headwater.create_space(&author(0)).await.unwrap();
        write(&space, 0, "secret", 50).await;
        node.headwater.act_for(&author(0));
        Self {
            held: space.id(),
            node,
            asked,
            gate,
        }
    }

    /// What a request shows outside, and the steps it took inside: how often the policy was
    /// asked, and of each look-up whether it found something.
    async fn refuses(&self, stranger: &Endpoint, messages: &[Message]) -> (Seen, usize, Vec<bool>) {
        *self.asked.lock().unwrap() = 0;
        self.gate.take_look_ups();
        let seen = ask(stranger, self.node.addr(), messages).await;
        let asked = std::mem::take(&mut *self.asked.lock().unwrap());
        (seen, asked, self.gate.take_look_ups())
    }
}

#[tokio::test]
async fn unknown_refused_and_unserved_spaces_give_the_same_bytes_by_the_same_steps() {
    let refusing = Refusing::start().await;
    let closed = Node::build(Headwater::builder().policy(Nobody)).await;
    let unserved = closed.headwater.create_space(&author(0)).await.unwrap();
    let stranger = endpoint().await;
    let unknown = SpaceId::from_bytes([9; 32]);
    for live in [false, true] {
        let (seen, asked, look_ups) = refusing.refuses(&stranger, &request(unknown, live)).await;
        assert_eq!((seen.frames.len(), seen.reset), (0, 1));
        assert_eq!((asked, &look_ups[..]), (1, &[false][..]));
        let of_held = refusing
            .refuses(&stranger, &request(refusing.held, live))
            .await;
        assert_eq!(of_held, (seen, asked, look_ups));
        let of_unserved = ask(&stranger, closed.addr(), &request(unserved.id(), live)).await;
        assert_eq!(of_unserved, of_held.0);
    }
    stranger.close().await;
}

#[tokio::test]
async fn an_invite_of_no_owner_looks_the_same_whether_the_space_is_held_or_not() {
    let refusing = Refusing::start().await;
    let stranger = endpoint().await;
    let key = MemberKey::from_bytes(*stranger.id().as_bytes());
    let made_up = |space, roles, writer: Option<AuthorSecret>| {
        let one_use = AuthorSecret::from_bytes([3; 32]);
        let invitation = Invitation::sign(&author(9), space, roles, u64::MAX, one_use);
        let invite = *invitation.invite();
        let named = writer.as_ref().map(AuthorSecret::id);
        vec![Message::from(Redeem {
            request_id: 7,
            invite,
            author: writer.map(|writer| invite.prove_author(&writer, &key)),
            proof: invitation.prove(&key, named.as_ref()),
        })]
    };
    let unknown = SpaceId::from_bytes([9; 32]);
    for (roles, writer) in [(Roles::READ, None), (Roles::WRITE, Some(author(8)))] {
        let request_of = |space| made_up(space, roles, writer.clone());
        let (of_unknown, _, _) = refusing.refuses(&stranger, &request_of(unknown)).await;
        let of_held = refusing
            .refuses(&stranger, &request_of(refusing.held))
            .await
            .0;
        assert_eq!(of_unknown, of_held);
        assert_eq!((of_held.frames.len(), of_held.reset), (0, 1));
        let sync = refusing.refuses(&stranger, &request(unknown, false)).await;
        assert_eq!(sync.0, of_held, "and like any other refusal");
    }
    stranger.close().await;
}

#[tokio::test]
async fn an_invite_is_refused_for_an_author_who_did_not_sign_for_it_like_a_bad_one() {
    let refusing = Refusing::start().await;
    let (owner, victim) = (author(0), author(1));
    let stranger = endpoint().await;
    let [node, other_node] =
        [stranger.id(), refusing.node.addr().id].map(|id| MemberKey::from_bytes(*id.as_bytes()));
    let invitation = |seed| {
        let one_use = AuthorSecret::from_bytes([seed; 32]);
        Invitation::sign(&owner, refusing.held, Roles::WRITE, u64::MAX, one_use)
    };
    let (invited, another) = (invitation(3), invitation(4));
    let invite = *invited.invite();
    let redeem = |named: AuthorProof| {
        vec![Message::from(Redeem {
            request_id: 7,
            invite,
            author: Some(named),
            proof: invited.prove(&node, Some(&named.author)),
        })]
    };
    let by_itself = invite.prove_author(&victim, &node);
    let forged = AuthorProof {
        author: victim.id(),
        ..invite.prove_author(&author(2), &node)
    };
    let for_another_node = invite.prove_author(&victim, &other_node);
    let for_another_invite = another.invite().prove_author(&victim, &node);
    let the_one_of_the_invite = AuthorProof {
        signature: invited.prove(&node, Some(&victim.id())),
        ..by_itself
    };
    let unknown = request(SpaceId::from_bytes([9; 32]), false);
    let (refused, _, _) = refusing.refuses(&stranger, &unknown).await;
    for bad in [
        forged,
        for_another_node,
        for_another_invite,
        the_one_of_the_invite,
    ] {
        let (seen, _, _) = refusing.refuses(&stranger, &redeem(bad)).await;
        assert_eq!(seen, refused);
    }
    let space = refusing.node.space(refusing.held);
    let before = seq_of(&space, owner.id()).await;
    // None of them has used the invite up.
    let connection = stranger.connect(refusing.node.addr(), ALPN).await.unwrap();
    let (mut send, mut recv) = connection.open_bi().await.unwrap();
    for chunk in redeem(by_itself).remove(0).encode_frame().unwrap() {
        send.write_chunk(chunk).await.unwrap();
    }
    send.finish().unwrap();
    assert!(!recv.read_to_end(64).await.unwrap().is_empty());
    assert_eq!(seq_of(&space, owner.id()).await, before + 1);
    connection.close(0u32.into(), b"");
    stranger.close().await;
}
