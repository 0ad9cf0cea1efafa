//! The connections of a node, dialled and accepted: at most one per peer is offered for reuse.
//!
//! Both ends of a connection may open streams. Only the end that dialled closes an idle one
//! early, so that the two never race to close a connection the other is about to use.

use std::{
    collections::{HashMap, VecDeque, hash_map::Entry},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use headwater_wire::{CloseCode, SpaceId};
use iroh::{
    EndpointId,
    endpoint::{Connection, VarInt},
};
use tokio::sync::{Semaphore, watch};

use crate::{
    limits::Limits,
    slots::{Keyed, Slot, Slots},
    standing::Standing,
};

/// Open connections by peer.
#[derive(Debug)]
pub(crate) struct Connections {
    open: Mutex<HashMap<EndpointId, Link>>,
    dialling: Keyed<EndpointId>,
}

/// One connection, and how many streams of ours use it.
#[derive(Debug, Clone)]
pub(crate) struct Link {
    pub(crate) connection: Connection,
    pub(crate) dialled: bool,
    users: Arc<watch::Sender<usize>>,
    /// How often requests for the spaces somebody here listens for have moved on.
    asked_back: Arc<Mutex<HashMap<SpaceId, Heard>>>,
}

#[derive(Debug, Default)]
struct Heard {
    listeners: usize,
    times: u64,
}

/// Hears the peer's requests for one space on one connection move on.
#[derive(Debug)]
pub(crate) struct Listener {
    space: SpaceId,
    asked_back: Arc<Mutex<HashMap<SpaceId, Heard>>>,
}

/// Keeps a connection from being closed as idle.
#[derive(Debug)]
pub(crate) struct InUse {
    pub(crate) link: Link,
}

/// Accepted connections: few per peer, and a bounded number in all.
///
/// A peer's newest connections win. It may have been killed, and its old ones stand until QUIC
/// gives them up; the identity is the same, so nobody else is shut out by it. Where there is no
/// place left, whoever stands lower gives way.
#[derive(Debug)]
pub(crate) struct Accepted {
    per_peer: usize,
    places: Arc<Slots>,
    open: Mutex<HashMap<EndpointId, VecDeque<Stands>>>,
}

/// A connection, and the place it has.
type Stands = (Connection, Arc<Slot>);

/// An accepted connection's place; given back when dropped.
#[derive(Debug)]
pub(crate) struct Place {
    accepted: Arc<Accepted>,
    connection: Connection,
    slot: Arc<Slot>,
}

impl Accepted {
    pub(crate) fn new(per_peer: usize, total: usize) -> Arc<Self> {
        Arc::new(Self {
            per_peer,
            places: Slots::new(per_peer, total),
            open: Mutex::default(),
        })
    }

    /// Takes a connection in, at the cost of the peer's oldest if it has too many, or of a peer that
    /// stands lower; `None` if the node has too many.
    pub(crate) fn admit(
        self: &Arc<Self>,
        connection: &Connection,
        standing: Standing,
    ) -> Option<Place> {
        let mut open = lock(&self.open);
        let peer = connection.remote_id();
        if let Some(of_peer) = open.get_mut(&peer) {
            while !of_peer.is_empty() && of_peer.len() >= self.per_peer {
                if let Some((oldest, slot)) = of_peer.pop_front() {
                    close(&oldest, CloseCode::TooManyConnections);
                    slot.give_back();
                }
            }
        }
        let slot = Arc::new(self.places.try_take(peer, standing)?);
        let of_peer = open.entry(peer).or_default();
        of_peer.push_back((connection.clone(), Arc::clone(&slot)));
        Some(Place {
            accepted: Arc::clone(self),
            connection: connection.clone(),
            slot,
        })
    }

    /// Has the places of `peer` count for what it is now.
    pub(crate) fn set_standing(&self, peer: EndpointId, standing: Standing) {
        self.places.set_standing(peer, standing);
    }

    /// Closes every connection accepted from `peer`.
    pub(crate) fn close_all(&self, peer: EndpointId, code: CloseCode) {
        for (connection, _) in lock(&self.open).get(&peer).into_iter().flatten() {
            close(connection, code);
        }
    }
}

impl Place {
    /// Resolves once the place went to a peer that stands higher. Safe to cancel.
    pub(crate) async fn lost(&self) {
        self.slot.lost().await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = lock(&self.accepted.open);
        let peer = self.connection.remote_id();
        let id = self.connection.stable_id();
        if let Some(of_peer) = open.get_mut(&peer) {
            of_peer.retain(|(connection, _)| connection.stable_id() != id);
            if of_peer.is_empty() {
                open.remove(&peer);
            }
        }
    }
}

impl Connections {
    pub(crate) fn new() -> Self {
        Self {
            open: Mutex::default(),
            dialling: Keyed::new(1),
        }
    }

    /// Where dials to one peer wait for each other.
    pub(crate) fn dialling(&self, peer: EndpointId) -> Arc<Semaphore> {
        self.dialling.queue(peer)
    }

    /// The open connection to `peer`, kept open while the answer lives.
    pub(crate) fn reuse(&self, peer: EndpointId) -> Option<InUse> {
        let open = self.lock();
        let link = open.get(&peer)?;
        link.connection
            .close_reason()
            .is_none()
            .then(|| link.hold())
    }

    /// Offers a new connection for reuse.
    pub(crate) fn offer(&self, link: &Link) {
        self.lock()
            .insert(link.connection.remote_id(), link.clone());
    }

    /// Withdraws a connection; another one to the same peer stays.
    pub(crate) fn withdraw(&self, link: &Link) {
        let mut open = self.lock();
        let peer = link.connection.remote_id();
        if open.get(&peer).is_some_and(|known| known.is(link)) {
            open.remove(&peer);
        }
    }

    /// Withdraws and closes a connection, unless somebody has just begun to use it.
    pub(crate) fn close_if_unused(&self, link: &Link) -> bool {
        let mut open = self.lock();
        if *link.users.borrow() > 0 {
            return false;
        }
        let peer = link.connection.remote_id();
        if open.get(&peer).is_some_and(|known| known.is(link)) {
            open.remove(&peer);
        }
        close(&link.connection, CloseCode::Done);
        true
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<EndpointId, Link>> {
        lock(&self.open)
    }
}

impl Link {
    pub(crate) fn new(connection: Connection, dialled: bool) -> Self {
        Self {
            connection,
            dialled,
            users: Arc::new(watch::Sender::new(0)),
            asked_back: Arc::default(),
        }
    }

    /// Keeps the connection open while the answer lives.
    pub(crate) fn hold(&self) -> InUse {
        self.users.send_modify(|users| *users += 1);
        InUse { link: self.clone() }
    }

    /// Resolves when no stream has used the connection for its idle time.
    pub(crate) async fn idle(&self, limits: &Limits) {
        let after = if self.dialled {
            limits.idle_connection
        } else {
            limits.idle_accepted
        };
        let mut users = self.users.subscribe();
        loop {
            // The sender lives in `self`, so neither wait can fail.
            users.wait_for(|users| *users == 0).await.ok();
            let used_again = users.wait_for(|users| *users > 0);
            if n0_future::time::timeout(after, used_again).await.is_err() {
                return;
            }
        }
    }

    /// Listens for the peer's requests for a space, until the answer is dropped.
    pub(crate) fn listen(&self, space: SpaceId) -> Listener {
        lock(&self.asked_back).entry(space).or_default().listeners += 1;
        Listener {
            space,
            asked_back: Arc::clone(&self.asked_back),
        }
    }

    /// Notes that a request of the peer for a space moved on.
    pub(crate) fn moved_on(&self, space: SpaceId) {
        if let Some(heard) = lock(&self.asked_back).get_mut(&space) {
            heard.times += 1;
        }
    }

    fn is(&self, other: &Self) -> bool {
        self.connection.stable_id() == other.connection.stable_id()
    }
}

impl Listener {
    /// Changes whenever a request for the space moves on.
    pub(crate) fn times(&self) -> u64 {
        lock(&self.asked_back)
            .get(&self.space)
            .map_or(0, |heard| heard.times)
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Entry::Occupied(mut heard) = lock(&self.asked_back).entry(self.space) {
            heard.get_mut().listeners -= 1;
            if heard.get().listeners == 0 {
                heard.remove();
            }
        }
    }
}

impl Drop for InUse {
    fn drop(&mut self) {
        self.link
            .users
            .send_modify(|users| *users = users.saturating_sub(1));
    }
}

/// A panic elsewhere leaves these maps whole: each change is a single step.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Closes a connection with one of our codes.
pub(crate) fn close(connection: &Connection, code: CloseCode) {
    connection.close(varint(code), format!("{code:?}").as_bytes());
}

/// A close code as QUIC carries it.
pub(crate) fn varint(code: CloseCode) -> VarInt {
    VarInt::from_u64(code.code()).unwrap_or(VarInt::MAX)
}
