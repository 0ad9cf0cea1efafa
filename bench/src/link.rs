//! A network of endpoints in one process whose packets are on their way for a while.
//!
//! ```text
//! endpoint ──▶ poll_send ──▶ on the way, in order ──(a thread, when it is time)──▶ inbox ──▶ endpoint
//! ```
//!
//! On loopback the way to another node costs nothing, and all that is seen is the work of nodes that
//! share the machine's cores. Where nodes are apart, a message travels meanwhile.
//!
//! No loss, no limit of bandwidth, and nothing overtakes.

use std::{
    collections::{HashMap, VecDeque},
    fmt, io,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    thread,
    time::{Duration, Instant},
};

use bytes::Bytes;
use iroh::endpoint::transports::{
    CustomEndpoint, CustomSender, CustomTransport, RecvInfo, Transmit,
};
use iroh_base::{CustomAddr, TransportAddr};
use n0_watcher::{Direct, Watchable};
use noq_udp::RecvMeta;
use tokio::sync::mpsc;

/// Which transport an address is of: any number that iroh gives to none of its own.
const TRANSPORT: u64 = 0x6865_6164;

/// A network in which every packet takes as long.
#[derive(Debug, Clone)]
pub struct SlowNetwork(Arc<Shared>);

/// A packet.
struct Packet {
    from: CustomAddr,
    contents: Bytes,
}

struct Shared {
    delay: Duration,
    sent: Condvar,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// By when they are due, as all take as long.
    on_the_way: VecDeque<(Instant, CustomAddr, Packet)>,
    inboxes: HashMap<CustomAddr, mpsc::UnboundedSender<Packet>>,
    places: u64,
    closed: bool,
}

/// A place in the network for one endpoint: see [`SlowNetwork::place`].
struct Place {
    addr: CustomAddr,
    network: Arc<Shared>,
}

struct End {
    addr: CustomAddr,
    addrs: Watchable<Vec<CustomAddr>>,
    network: Arc<Shared>,
    inbox: mpsc::UnboundedReceiver<Packet>,
}

struct Sender {
    addr: CustomAddr,
    network: Arc<Shared>,
}

impl SlowNetwork {
    /// A network whose packets take `delay` one way.
    ///
    /// # Errors
    ///
    /// If there can be no thread that hands them over.
    pub fn new(delay: Duration) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            delay,
            sent: Condvar::new(),
            state: Mutex::default(),
        });
        let carried = Arc::clone(&shared);
        thread::Builder::new()
            .name("slow-network".to_owned())
            .spawn(move || carried.carry())?;
        Ok(Self(shared))
    }

    /// A place for another endpoint, and where the others find it: `Endpoint::addr` does not name it.
    #[must_use]
    pub fn place(&self) -> (Arc<dyn CustomTransport>, TransportAddr) {
        let mut state = self.0.lock();
        state.places += 1;
        let addr = CustomAddr::from_parts(TRANSPORT, &state.places.to_be_bytes());
        let network = Arc::clone(&self.0);
        let found_at = TransportAddr::Custom(addr.clone());
        (Arc::new(Place { addr, network }), found_at)
    }

    /// Loses what is on its way, and carries nothing more.
    pub fn close(&self) {
        self.0.lock().closed = true;
        self.0.sent.notify_one();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic elsewhere leaves queues as good as they were.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands packets over when they are due, until the network is closed.
    fn carry(&self) {
        let mut state = self.lock();
        while !state.closed {
            let Some((due, ..)) = state.on_the_way.front() else {
                let woken = self.sent.wait(state);
                state = woken.unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            let wait = due.saturating_duration_since(Instant::now());
            if !wait.is_zero() {
                let woken = self.sent.wait_timeout(state, wait);
                state = woken.unwrap_or_else(PoisonError::into_inner).0;
                continue;
            }
            if let Some((_, to, packet)) = state.on_the_way.pop_front()
                && let Some(inbox) = state.inboxes.get(&to)
            {
                // An endpoint that is gone hears nothing.
                inbox.send(packet).ok();
            }
        }
        state.inboxes.clear();
    }
}

impl CustomTransport for Place {
    fn bind(&self) -> io::Result<Box<dyn CustomEndpoint>> {
        let (sender, inbox) = mpsc::unbounded_channel();
        self.network
            .lock()
            .inboxes
            .insert(self.addr.clone(), sender);
        Ok(Box::new(End {
            addr: self.addr.clone(),
            addrs: Watchable::new(vec![self.addr.clone()]),
            network: Arc::clone(&self.network),
            inbox,
        }))
    }
}

impl CustomEndpoint for End {
    fn watch_local_addrs(&self) -> Direct<Vec<CustomAddr>> {
        self.addrs.watch()
    }

    fn create_sender(&self) -> Arc<dyn CustomSender> {
        Arc::new(Sender {
            addr: self.addr.clone(),
            network: Arc::clone(&self.network),
        })
    }

    fn poll_recv(
        &mut self,
        cx: &mut Context<'_>,
        bufs: &mut [io::IoSliceMut<'_>],
        metas: &mut [RecvMeta],
        infos: &mut [RecvInfo],
    ) -> Poll<io::Result<usize>> {
        let most = bufs.len().min(metas.len()).min(infos.len());
        let mut packets = Vec::with_capacity(most);
        match self.inbox.poll_recv_many(cx, &mut packets, most) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(0) => return Poll::Ready(Err(io::Error::other("the network is closed"))),
            Poll::Ready(_) => {}
        }
        let mut received = 0;
        for packet in packets {
            let len = packet.contents.len();
            // As of a socket whose buffer is too small for a datagram: it is lost.
            let Some(buf) = bufs[received].get_mut(..len) else {
                continue;
            };
            buf.copy_from_slice(&packet.contents);
            metas[received].len = len;
            metas[received].stride = len;
            infos[received] = RecvInfo::new(packet.from, Some(self.addr.clone()));
            received += 1;
        }
        Poll::Ready(Ok(received))
    }
}

impl CustomSender for Sender {
    fn is_valid_send_addr(&self, addr: &CustomAddr) -> bool {
        addr.id() == TRANSPORT
    }

    fn poll_send(
        &self,
        _: &mut Context<'_>,
        to: &CustomAddr,
        _: Option<&CustomAddr>,
        transmit: &Transmit<'_>,
    ) -> Poll<io::Result<()>> {
        let due = Instant::now() + self.network.delay;
        let segment = transmit.segment_size.unwrap_or(transmit.contents.len());
        let mut state = self.network.lock();
        let was_empty = state.on_the_way.is_empty();
        for contents in transmit.contents.chunks(segment.max(1)) {
            let packet = Packet {
                from: self.addr.clone(),
                contents: Bytes::copy_from_slice(contents),
            };
            state.on_the_way.push_back((due, to.clone(), packet));
        }
        drop(state);
        if was_empty {
            self.network.sent.notify_one();
        }
        Poll::Ready(Ok(()))
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("delay", &self.delay)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Place").field(&self.addr).finish()
    }
}

impl fmt::Debug for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("End").field(&self.addr).finish()
    }
}

impl fmt::Debug for Sender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Sender").field(&self.addr).finish()
    }
}
