//! Hosts over loopback, each on a folder of its own.

use headwater_gossip::TopicSecret;
use iroh::SecretKey;
use n0_future::StreamExt;

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_dials_for_a_space_answers_for_that_space_alone() {
    use headwater::{CloseCode, Open, Roles, SessionError, Subject, SyncError, SyncOptions};

    let net = loopback();
    let dir = tempfile::tempdir().unwrap();
    let (folder, _) = DataFolder::init(dir.path().to_owned()).unwrap();
    let key = folder.author_key("me").unwrap();
    let offline = Host::open(&folder, &Role::Offline).await.unwrap();
    let private = offline.node().create_space(&key).await.unwrap().id();
    offline.stop().await;
    drop(offline);

    let key_of_far = SecretKey::from_bytes(&[3; 32]);
    let endpoint = bind(key_of_far, net, MemoryLookup::new()).await.unwrap();
    let far = Headwater::builder().policy(Open).spawn(endpoint.clone());
    let router = Router::builder(endpoint.clone())
        .accept(ALPN, far.clone())
        .spawn();
    let shared = far.create_space(&key).await.unwrap();
    let anyone = Subject::Anyone;
    shared.grant(&key, anyone, Roles::READ).await.unwrap();
    let space = shared.id();
    let dialer = Host::open(&folder, &Role::Dial { net, space })
        .await
        .unwrap();
    let mut live = dialer
        .node()
        .space(shared.id())
        .sync_with_options(endpoint.addr(), SyncOptions::live());
    live.history().await.unwrap();

    // The other way on the same connection.
    let back = EndpointAddr::new(dialer.addr().await.unwrap().id);
    let asked = shared.sync_with(back.clone()).await.unwrap();
    assert!(asked.first_digest_equal);
    let refused = far.space(private).sync_with(back).await;
    assert!(
        matches!(
            refused,
            Err(SyncError::Session(SessionError::Reset(CloseCode::Refused)))
        ),
        "{refused:?}"
    );
    drop(live);
    dialer.stop().await;
    router.shutdown().await.unwrap();
}

/// This machine alone.
fn loopback() -> NetOptions {
    NetOptions {
        no_relay: true,
        bind: Some(([127, 0, 0, 1], 0).into()),
        dial_timeout: None,
    }
}

fn serving(gossip: bool) -> Role {
    Role::Serve {
        net: loopback(),
        served: Served::only(BTreeSet::new()),
        gossip,
    }
}

/// A folder, and a space in it whose topic has this secret.
async fn folder_with_space(dir: &tempfile::TempDir, secret: [u8; 32]) -> (DataFolder, SpaceId) {
    let (folder, _) = DataFolder::init(dir.path().to_owned()).unwrap();
    let key = folder.author_key("me").unwrap();
    let host = Host::open(&folder, &Role::Offline).await.unwrap();
    let space = host.node().create_space(&key).await.unwrap();
    space.set_topic_secret(&key, secret).await.unwrap();
    let anyone = headwater::Subject::Anyone;
    let reading = space.grant(&key, anyone, headwater::Roles::READ);
    reading.await.unwrap();
    let id = space.id();
    let naming = folder.change_spaces(|spaces| spaces.add(id, "notes").map(|_| ()));
    naming.unwrap();
    host.stop().await;
    (folder, id)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_topics_secret_is_the_latest_that_the_owner_set_whatever_was_remembered() {
    let dir = tempfile::tempdir().unwrap();
    let (folder, space) = folder_with_space(&dir, [1; 32]).await;
    let key = folder.author_key("me").unwrap();
    for next in 2..5 {
        let host = Host::open(&folder, &Role::Offline).await.unwrap();
        let secret = |byte| Some(TopicSecret::from_bytes([byte; 32]));
        assert_eq!(host.topic_secret(space).await.unwrap(), secret(next - 1));
        let setting = host.node().space(space);
        setting.set_topic_secret(&key, [next; 32]).await.unwrap();
        assert_eq!(host.topic_secret(space).await.unwrap(), secret(next));
        let known = folder.spaces().unwrap();
        assert_eq!(
            known.get(space).unwrap().owner_log.topic_secret,
            secret(next)
        );
        host.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_space_in_use_is_live_until_its_last_user_has_ended() {
    let dir = tempfile::tempdir().unwrap();
    let (folder, space) = folder_with_space(&dir, [1; 32]).await;
    let host = Host::open(&folder, &serving(true)).await.unwrap();
    assert!(!host.go_live(space).await.unwrap(), "nobody may read it");
    for _ in 0..3 {
        let (one, other) = (host.serve_meanwhile(space), host.serve_meanwhile(space));
        assert!(host.go_live(space).await.unwrap());
        let live = host.live(space).unwrap();
        drop(one);
        assert!(host.live(space).is_some() && host.served().contains(space));
        drop(other);
        assert!(!host.served().contains(space));
        // The events of a space end when it is left.
        let mut events = live.events();
        while events.next().await.is_some() {}
        assert!(host.live(space).is_none());
    }
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_live_space_follows_a_new_secret_whether_the_log_or_a_ticket_tells_it() {
    let dir = tempfile::tempdir().unwrap();
    let (folder, space) = folder_with_space(&dir, [1; 32]).await;
    let key = folder.author_key("me").unwrap();
    let host = Host::open(&folder, &serving(true)).await.unwrap();
    let _served = host.serve_meanwhile(space);
    assert!(host.go_live(space).await.unwrap());
    let live = host.live(space).unwrap();

    let topic = |byte| headwater_gossip::topic_id(&space, &TopicSecret::from_bytes([byte; 32]));
    let setting = host.node().space(space);
    setting.set_topic_secret(&key, [2; 32]).await.unwrap();
    assert!(host.go_live(space).await.unwrap());
    assert_eq!(host.live(space).unwrap().topic(), topic(2));
    assert_eq!(live.topic(), topic(2), "it was not left");

    let network = host.0.network.as_ref().unwrap();
    let joining = network.live.as_ref().unwrap();
    let told = TopicSecret::from_bytes([3; 32]);
    joining.join(space, told, false, &[]).await.unwrap();
    assert_eq!(host.live(space).unwrap().topic(), topic(3));
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sync_that_is_done_is_reported_though_the_gossip_failed_afterwards() {
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let (far_folder, space) = folder_with_space(&dirs[0], [1; 32]).await;
    let far = Host::open(&far_folder, &serving(false)).await.unwrap();
    let _served = far.serve_meanwhile(space);

    let (folder, _) = DataFolder::init(dirs[1].path().to_owned()).unwrap();
    let role = Role::Serve {
        net: loopback(),
        served: Served::all(),
        gossip: true,
    };
    let host = Host::open(&folder, &role).await.unwrap();
    let network = host.0.network.as_ref().unwrap();
    network.live.as_ref().unwrap().stop().await;
    let peers = vec![far.addr().await.unwrap()];
    let heard = told_by_sync(&host, space, peers, "gossip").await;
    assert_eq!(heard, "AWE");
    host.stop().await;
    far.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_tells_the_options_apart_that_it_follows_anyway() {
    let all = [
        NetOption::NoRelay,
        NetOption::NoGossip,
        NetOption::Bind,
        NetOption::DialTimeout,
    ];
    for gossip in [true, false] {
        let dir = tempfile::tempdir().unwrap();
        let (folder, _) = DataFolder::init(dir.path().to_owned()).unwrap();
        let host = Host::open(&folder, &serving(gossip)).await.unwrap();
        let text = host.without_effect(&all).unwrap();
        assert!(!text.contains("--no-relay"), "{text}");
        assert_eq!(text.contains("--no-gossip"), gossip, "{text}");
        assert!(text.ends_with("--bind, --dial-timeout"), "{text}");
        assert_eq!(host.without_effect(&[NetOption::NoRelay]), None);
        assert_eq!(host.without_effect(&[]), None);
        host.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_granted_member_is_named_after_a_restart_and_finds_a_place_among_strangers() {
    use headwater::{Roles, node_key};

    let dir = tempfile::tempdir().unwrap();
    let (folder, space) = folder_with_space(&dir, [1; 32]).await;
    let key = folder.author_key("me").unwrap();
    let endpoint = |seed| {
        bind(
            SecretKey::from_bytes(&[seed; 32]),
            loopback(),
            MemoryLookup::new(),
        )
    };
    let member = endpoint(4).await.unwrap();
    let offline = Host::open(&folder, &Role::Offline).await.unwrap();
    let granting = offline.node().space(space);
    let reader = node_key(member.id());
    granting.grant(&key, reader, Roles::READ).await.unwrap();
    offline.stop().await;
    drop((offline, granting));

    let mut limits = Limits::default();
    limits.connections_total = 1;
    let own = endpoint(3).await.unwrap();
    let node = Headwater::builder()
        .store(folder.store().unwrap())
        .limits(limits)
        .policy(ServedToMembers::new(Served::all()))
        .spawn(own.clone());
    let router = Router::builder(own.clone()).accept(ALPN, node).spawn();
    let stranger = endpoint(5).await.unwrap();
    // It keeps its connection, which has the only place.
    let crowd = Headwater::builder().spawn(stranger);
    let refused = crowd.space(SpaceId::from_bytes([9; 32]));
    refused.sync_with(own.addr()).await.unwrap_err();

    let guest = Headwater::builder().spawn(member);
    let report = guest.space(space).sync_with(own.addr()).await.unwrap();
    assert!(report.events > 0);
    for node in [guest, crowd] {
        node.shutdown().await;
    }
    router.shutdown().await.unwrap();
}

/// A node that turns its first caller away.
#[derive(Debug)]
struct BusyAtFirst {
    node: Headwater,
    calls: std::sync::atomic::AtomicUsize,
}

impl iroh::protocol::ProtocolHandler for BusyAtFirst {
    async fn accept(
        &self,
        connection: iroh::endpoint::Connection,
    ) -> Result<(), iroh::protocol::AcceptError> {
        use std::sync::atomic::Ordering;

        if self.calls.fetch_add(1, Ordering::Relaxed) == 0 {
            let code = headwater::CloseCode::TooManyConnections.code();
            connection.close(u32::try_from(code).unwrap().into(), b"");
            return Ok(());
        }
        self.node.accept(connection).await
    }
}

/// What a sync of `space` tells, a letter each: an answer, a warning in which the word stands, the end.
async fn told_by_sync(host: &Host, space: SpaceId, peers: Vec<EndpointAddr>, word: &str) -> String {
    use crate::control::{self, Call, Request, Said};

    let (said, mut replies) = remoc::rch::mpsc::channel();
    let call = Call {
        request: Request::Sync { space, peers },
        options: Vec::new(),
        said,
    };
    let hearing = async {
        let mut heard = String::new();
        while let Ok(Some(said)) = replies.recv().await {
            match said {
                Said::Answer { json, .. } => {
                    heard += if json.contains("complete") { "A" } else { "?" }
                }
                Said::Warning(text) if text.contains(word) => heard += "W",
                Said::Warning(text) => heard += &text,
                Said::End(Ok(())) => heard += "E",
                Said::End(Err(failure)) => heard += &failure.text,
                _ => {}
            }
        }
        heard
    };
    let (heard, ()) = tokio::join!(hearing, control::carry_out(host, call));
    heard
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invite_is_asked_for_again_while_the_peer_is_busy() {
    use headwater::{AuthorSecret, Roles};

    let key = SecretKey::from_bytes(&[3; 32]);
    let endpoint = bind(key, loopback(), MemoryLookup::new()).await.unwrap();
    let far = Headwater::builder().spawn(endpoint.clone());
    let busy = BusyAtFirst {
        node: far.clone(),
        calls: 0.into(),
    };
    let router = Router::builder(endpoint.clone()).accept(ALPN, busy).spawn();
    let owner = AuthorSecret::from_bytes([7; 32]);
    let space = far.create_space(&owner).await.unwrap();
    far.act_for(&owner);
    let invitation = space.invite(&owner, Roles::READ, Duration::from_hours(1));
    let invitation = invitation.await.unwrap().to_bytes();

    let dir = tempfile::tempdir().unwrap();
    let (host, peers) = joined(&dir, space.id(), &endpoint, invitation).await;
    let told = told_by_sync(&host, space.id(), peers, "busy").await;
    assert_eq!(told, "AE");
    let known = host.folder().spaces().unwrap();
    assert_eq!(known.get(space.id()).unwrap().invitation(), None);
    host.stop().await;
    router.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invite_is_kept_until_it_expires_or_the_node_that_gave_it_refuses_it() {
    use headwater::{AuthorSecret, Invitation, Open, Roles, now_ms};

    let bound = |seed| {
        bind(
            SecretKey::from_bytes(&[seed; 32]),
            loopback(),
            MemoryLookup::new(),
        )
    };
    let (endpoint, inviter) = (bound(3).await.unwrap(), bound(4).await.unwrap());
    let far = Headwater::builder().policy(Open).spawn(endpoint.clone());
    let router = Router::builder(endpoint.clone())
        .accept(ALPN, far.clone())
        .spawn();
    let owner = AuthorSecret::from_bytes([7; 32]);
    let space = far.create_space(&owner).await.unwrap().id();
    let sign = |expires_ms| {
        let one_use = AuthorSecret::from_bytes([9; 32]);
        Invitation::sign(&owner, space, Roles::WRITE, expires_ms, one_use).to_bytes()
    };
    let later = now_ms() + 3_600_000;
    // Who gave it, until when, what is told by two syncs with a node that does not act for the owner.
    for (by, expires_ms, word, told) in [
        (&inviter, later, "is kept", ["WAE", "WAE"]),
        (&inviter, 1, "has expired and is forgotten", ["WAE", "AE"]),
        (&endpoint, later, "refused and is forgotten", ["WAE", "AE"]),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let (host, _) = joined(&dir, space, by, sign(expires_ms)).await;
        for expected in told {
            let peers = vec![endpoint.addr()];
            assert_eq!(told_by_sync(&host, space, peers, word).await, expected);
        }
        host.stop().await;
    }
    router.shutdown().await.unwrap();
    inviter.close().await;
}

/// A host on a new folder that knows of an invitation from `by`, and how that one is reached.
async fn joined(
    dir: &tempfile::TempDir,
    space: SpaceId,
    by: &Endpoint,
    invitation: Vec<u8>,
) -> (Host, Vec<EndpointAddr>) {
    let (folder, _) = DataFolder::init(dir.path().to_owned()).unwrap();
    let peers = vec![by.addr()];
    let ticket = crate::ticket::SpaceTicket {
        space,
        topic_secret: None,
        peers: peers.clone(),
        invitation: Some(invitation),
    };
    let joining = folder.change_spaces(|spaces| spaces.join(&ticket, Some("notes")).map(|_| ()));
    joining.unwrap();
    let net = loopback();
    let host = Host::open(&folder, &Role::Dial { net, space }).await;
    (host.unwrap(), peers)
}
