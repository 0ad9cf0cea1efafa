//! What the tests share: nodes on loopback and content for them.

use headwater::{
    ALPN, AuthorHead, AuthorId, AuthorSecret, Builder, Event, EventDraft, Headwater, Open, Space,
    SpaceId,
};
use iroh::{Endpoint, EndpointAddr, SecretKey, endpoint::presets, protocol::Router};
use n0_future::StreamExt;

/// A node that accepts connections.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) headwater: Headwater,
    router: Router,
}

impl Node {
    pub(crate) async fn spawn() -> Self {
        Self::build(open()).await
    }

    pub(crate) async fn build(builder: Builder) -> Self {
        Self::on(builder, endpoint().await)
    }

    /// On an endpoint of the caller's.
    pub(crate) fn on(builder: Builder, endpoint: Endpoint) -> Self {
        let headwater = builder.spawn(endpoint.clone());
        let router = Router::builder(endpoint)
            .accept(ALPN, headwater.clone())
            .spawn();
        Self { headwater, router }
    }

    pub(crate) fn addr(&self) -> EndpointAddr {
        self.router.endpoint().addr()
    }

    pub(crate) fn space(&self, id: SpaceId) -> Space {
        self.headwater.space(id)
    }

    pub(crate) async fn shutdown(self) {
        self.router.shutdown().await.expect("router task");
    }
}

/// A node that lets everybody read and write who knows a space's id: for tests of other things
/// than access.
pub(crate) fn open() -> Builder {
    Headwater::builder().policy(Open)
}

pub(crate) async fn endpoint() -> Endpoint {
    endpoint_of(SecretKey::generate()).await
}

/// An endpoint on loopback with this identity.
pub(crate) async fn endpoint_of(key: SecretKey) -> Endpoint {
    Endpoint::builder(presets::Minimal)
        .secret_key(key)
        .clear_ip_transports()
        .bind_addr("127.0.0.1:0")
        .expect("loopback address")
        .bind()
        .await
        .expect("endpoint")
}

/// An author's key, the same for the same number.
pub(crate) fn author(number: u32) -> AuthorSecret {
    let mut seed = [7; 32];
    seed[..4].copy_from_slice(&number.to_be_bytes());
    AuthorSecret::from_bytes(seed)
}

/// Drafts that differ from each other.
pub(crate) fn drafts(tag: &str, count: usize) -> Vec<EventDraft> {
    (0..count)
        .map(|at| EventDraft::new(16, at as u64, format!("{tag} {at}").into_bytes()))
        .collect()
}

/// A space of `owner` with `authors` further authors who wrote `events` each.
pub(crate) async fn filled(node: &Headwater, authors: u32, events: usize) -> Space {
    let space = node.create_space(&author(0)).await.expect("created");
    let batches = (1..=authors)
        .map(|number| (author(number), drafts(&format!("author {number}"), events)))
        .collect();
    space.import(batches).await.expect("imported");
    space
}

/// Everything a node holds of a space, in its stable order.
pub(crate) async fn contents(space: &Space) -> Vec<Event> {
    let mut events = space.history();
    let mut all = Vec::new();
    while let Some(event) = events.next().await {
        all.push(event.expect("readable"));
    }
    all
}

/// Asserts that two nodes hold the same, by digest and event by event, and that it verifies.
pub(crate) async fn assert_equal(one: &Space, other: &Space) {
    let (left, right) = (
        one.summary().await.expect("summary").expect("held"),
        other.summary().await.expect("summary").expect("held"),
    );
    assert_eq!(left.digest, right.digest);
    assert_eq!(left.events, right.events);
    assert!(contents(one).await == contents(other).await, "same events");
    let report = other.verify(|_| ()).await.expect("checked");
    assert!(report.is_sound(), "{report:?}");
    assert_eq!(report.events, left.events);
}

/// How many events of a log are held.
pub(crate) async fn seq_of(space: &Space, author: AuthorId) -> u64 {
    let record = space.head(author).await.expect("readable");
    record.map_or(0, |record| record.entry.head.seq)
}

/// Appends a batch of one author.
pub(crate) async fn write(space: &Space, number: u32, tag: &str, count: usize) -> AuthorHead {
    space
        .append_batch(&author(number), drafts(tag, count))
        .await
        .expect("appended")
}
