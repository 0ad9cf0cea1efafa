//! The hostile side: frames by hand, identities without number.

use std::{
    net::Ipv4Addr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::Bytes;
use headwater::{
    ALPN, AuthorHead, AuthorId, AuthorSecret, SpaceId,
    wire::{
        Budget, Clock, ClockEntry, EventId, FrameDecoder, HeadsChunk, HeadsWanted, Message,
        PlanTotals, RevokedDigest, Segment, SyncBatchV2, SyncFilter, SyncPlan, SyncRequestV2,
        sign_runs,
    },
};
use iroh::{
    Endpoint, EndpointAddr, SecretKey,
    endpoint::{Connection, RecvStream, SendStream},
};
use serde::{Deserialize, Serialize};
use tokio::time::{sleep, timeout};

use super::{bind, roles::Flooding};
use crate::{
    Error,
    child::{hear, say},
    corpus,
    sample::MIB,
};

/// How a node is flooded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Flood {
    /// One connection after the other, of one identity.
    Connections,
    /// Connections of 50 identities, each with four at once where two are allowed.
    Crowd,
    /// Connections of 300 identities, which take every place there is.
    Everywhere,
    /// The same, and each asks for the space again and again. With the policy of the owner's roster
    /// they are strangers to it.
    Strangers,
    /// Streams of 8 identities, each with 90 at once, that begin a frame and stop.
    Streams,
    /// Clocks of a million heads, of 32 identities, each two at once.
    Clocks,
    /// Requests for all of the space by 32 identities, two at once, who read 64 KiB a second of it.
    Readers,
    /// The same with windows of 64 MiB; and once all are served, the process stops and acknowledges
    /// nothing.
    Frozen,
    /// Frames that declare 1 GiB; identities are given up when they are banned.
    Lengths,
    /// The node pulls from 8 responders, who promise 2^40 events and end no batch with the last.
    More,
    /// The node pulls from 64 responders, who send empty batches that promise more.
    Empty,
}

/// Heads in a clock.
const HEADS: u64 = 1_000_000;
/// What a frame declares.
const DECLARED: u32 = 1 << 30;
/// How long a flooder waits for what comes of it.
const PATIENCE: Duration = Duration::from_secs(3);

impl Flood {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::Connections,
        Self::Crowd,
        Self::Everywhere,
        Self::Strangers,
        Self::Streams,
        Self::Clocks,
        Self::Readers,
        Self::Frozen,
        Self::Lengths,
        Self::More,
        Self::Empty,
    ];

    /// In a few words.
    #[must_use]
    pub fn describe(self) -> &'static str {
        match self {
            Self::Connections => "connections in turn, 1 identity",
            Self::Crowd => "200 connections at once, 50 identities",
            Self::Everywhere => "600 connections at once, 300 identities",
            Self::Strangers => "requests by strangers, 600 at once, 300 identities",
            Self::Readers => "slow readers, 64 at once, 32 identities",
            Self::Frozen => "readers that acknowledge nothing, 64 at once, 32 identities",
            Self::Streams => "streams, 720 at once, 8 identities",
            Self::Clocks => "clocks of 1,000,000 heads, 64 at once",
            Self::Lengths => "frames of 1 GiB declared, 32 at once",
            Self::More => "pulls: `more` without end, 8 responders",
            Self::Empty => "pulls: empty batches, 64 responders",
        }
    }

    /// Identities, and tasks of each.
    fn width(self) -> (u64, usize) {
        match self {
            Self::Connections => (1, 1),
            Self::Crowd => (50, 4),
            Self::Everywhere | Self::Strangers => (300, 2),
            Self::Streams => (8, 90),
            Self::Clocks | Self::Readers | Self::Frozen => (32, 2),
            Self::Lengths => (32, 1),
            Self::More => (8, 1),
            Self::Empty => (64, 1),
        }
    }

    /// Whether it lasts by what is held and not by how often something is tried.
    pub(super) fn is_of_few(self) -> bool {
        !matches!(
            self,
            Self::Connections
                | Self::Crowd
                | Self::Everywhere
                | Self::Strangers
                | Self::Streams
                | Self::Lengths
        )
    }

    fn listens(self) -> bool {
        matches!(self, Self::More | Self::Empty)
    }
}

#[derive(Debug, Default)]
struct Counts {
    attempts: AtomicU64,
    failed_dials: AtomicU64,
    bytes: AtomicU64,
}

#[derive(Debug, Clone)]
struct Flooder {
    flood: Flood,
    node: EndpointAddr,
    space: SpaceId,
    counts: Arc<Counts>,
    /// What is said on a stream.
    words: Bytes,
}

/// Floods until this process is killed, and says on request how far it is.
pub(super) async fn run(flood: Flood, node: EndpointAddr, space: SpaceId) -> Result<(), Error> {
    let words = match flood {
        Flood::Clocks => clock(space)?,
        Flood::Lengths => {
            let mut frame = DECLARED.to_be_bytes().to_vec();
            frame.resize(64 * 1024, 1);
            frame.into()
        }
        Flood::Strangers | Flood::Readers | Flood::Frozen => whole(space)?,
        _ => Bytes::from_static(&[0]),
    };
    let flooder = Flooder {
        flood,
        node,
        space,
        counts: Arc::default(),
        words,
    };
    let (identities, tasks) = flood.width();
    let mut listening = Vec::new();
    for number in 0..identities {
        let window = (flood == Flood::Frozen).then_some(64 << 20);
        let endpoint = bind(
            SecretKey::generate(),
            flood.listens(),
            place(number),
            window,
        )
        .await?;
        if flood.listens() {
            listening.push(endpoint.addr());
        }
        tokio::spawn(flooder.clone().identity(number, endpoint, tasks));
    }
    say(&listening)?;
    while tokio::task::spawn_blocking(hear::<()>).await??.is_some() {
        say(&Flooding {
            attempts: flooder.counts.attempts.load(Relaxed),
            failed_dials: flooder.counts.failed_dials.load(Relaxed),
            mib_sent: flooder.counts.bytes.load(Relaxed) as f64 / MIB,
        })?;
    }
    Ok(())
}

impl Flooder {
    async fn identity(self, number: u64, endpoint: Endpoint, tasks: usize) {
        match self.flood {
            Flood::More | Flood::Empty => self.listen(number, endpoint).await,
            Flood::Streams | Flood::Clocks | Flood::Readers | Flood::Frozen => {
                self.on_one_connection(endpoint, tasks).await
            }
            Flood::Lengths => self.until_banned(number, endpoint).await,
            Flood::Connections | Flood::Crowd | Flood::Everywhere | Flood::Strangers => {
                for _ in 0..tasks {
                    let (flooder, endpoint) = (self.clone(), endpoint.clone());
                    tokio::spawn(async move {
                        loop {
                            flooder.connection(&endpoint).await;
                        }
                    });
                }
            }
        }
    }

    async fn dial(&self, endpoint: &Endpoint) -> Option<Connection> {
        let connection = endpoint.connect(self.node.clone(), ALPN).await.ok();
        if connection.is_none() {
            self.counts.failed_dials.fetch_add(1, Relaxed);
            sleep(Duration::from_millis(20)).await;
        }
        connection
    }

    /// A connection with the beginning of a stream; in a crowd it is held for a second.
    async fn connection(&self, endpoint: &Endpoint) {
        let connection = self.dial(endpoint).await;
        self.counts.attempts.fetch_add(1, Relaxed);
        let Some(connection) = connection else { return };
        if let Ok((mut send, _recv)) = connection.open_bi().await {
            send.write_all(&self.words).await.ok();
            if self.flood != Flood::Connections {
                timeout(Duration::from_secs(1), connection.closed())
                    .await
                    .ok();
            }
        }
        connection.close(0u32.into(), b"");
    }

    /// Stream after stream, so many at once; and a new connection where the old one is closed.
    async fn on_one_connection(self, endpoint: Endpoint, tasks: usize) {
        loop {
            let Some(connection) = self.dial(&endpoint).await else {
                continue;
            };
            let mut running = Vec::new();
            for _ in 0..tasks {
                let (flooder, connection) = (self.clone(), connection.clone());
                running.push(tokio::spawn(async move {
                    while flooder.stream(&connection).await {}
                }));
            }
            for task in running {
                task.await.ok();
            }
        }
    }

    /// Says what is to be said on a stream and waits for the end; false once the connection ends.
    async fn stream(&self, connection: &Connection) -> bool {
        let Ok((mut send, mut recv)) = connection.open_bi().await else {
            return false;
        };
        self.counts.attempts.fetch_add(1, Relaxed);
        for piece in self.words.chunks(64 * 1024) {
            if send.write_all(piece).await.is_err() {
                break;
            }
            self.counts.bytes.fetch_add(piece.len() as u64, Relaxed);
        }
        match self.flood {
            Flood::Readers => {
                while let Ok(Some(_)) = recv.read_chunk(16 * 1024).await {
                    sleep(Duration::from_millis(250)).await;
                }
            }
            Flood::Frozen => to_end(&mut recv).await,
            _ => drop(timeout(PATIENCE, to_end(&mut recv)).await),
        }
        connection.close_reason().is_none()
    }

    /// A connection and a frame too large, again and again; every third time as somebody else.
    async fn until_banned(self, number: u64, mut endpoint: Endpoint) {
        loop {
            for _ in 0..3 {
                if let Some(connection) = self.dial(&endpoint).await {
                    self.stream(&connection).await;
                    connection.close(0u32.into(), b"");
                }
            }
            endpoint.close().await;
            loop {
                match bind(SecretKey::generate(), false, place(number), None).await {
                    Ok(next) => break endpoint = next,
                    Err(_busy) => sleep(Duration::from_millis(20)).await,
                }
            }
        }
    }

    /// Answers whoever asks, in its own way.
    async fn listen(self, number: u64, endpoint: Endpoint) {
        let mut key = [0x66; 32];
        key[..8].copy_from_slice(&number.to_le_bytes());
        let key = AuthorSecret::from_bytes(key);
        while let Some(incoming) = endpoint.accept().await {
            let Ok(accepting) = incoming.accept() else {
                continue;
            };
            let Ok(connection) = accepting.await else {
                continue;
            };
            let (flooder, key) = (self.clone(), key.clone());
            tokio::spawn(async move {
                while let Ok((send, recv)) = connection.accept_bi().await {
                    flooder.counts.attempts.fetch_add(1, Relaxed);
                    flooder.clone().answer(&key, send, recv).await;
                }
            });
        }
    }

    async fn answer(self, key: &AuthorSecret, mut send: SendStream, mut recv: RecvStream) {
        let Some(request_id) = asked(&mut recv).await else {
            return;
        };
        // A plan that comes before the heads would be a fault of its own.
        if !self
            .tell(&mut send, [HeadsWanted { request_id }.into()])
            .await
            || recv.read_chunk(usize::MAX).await.is_err()
        {
            return;
        }
        sleep(Duration::from_millis(100)).await;
        let reading = tokio::spawn(async move { to_end(&mut recv).await });
        let opening = [
            plan(request_id, Segment::Owner, 0),
            plan(request_id, Segment::Last, 1 << 40),
        ];
        if !self.tell(&mut send, opening).await {
            return;
        }
        let batch = |runs| {
            Message::SyncBatchV2(SyncBatchV2 {
                request_id,
                more: true,
                runs,
            })
        };
        let mut head: Option<AuthorHead> = None;
        let mut serial = 0;
        loop {
            let message = if self.flood == Flood::Empty {
                batch(Vec::new())
            } else {
                let draft = corpus::draft(serial, 200);
                serial += 1;
                let Ok(runs) = sign_runs(&self.space, key, head, [draft]) else {
                    break;
                };
                head = runs.last().map(|run| run.head());
                sleep(Duration::from_millis(5)).await;
                batch(
                    runs.iter()
                        .map(|run| run.run().as_bytes().clone())
                        .collect(),
                )
            };
            if !self.tell(&mut send, [message]).await {
                break;
            }
        }
        reading.abort();
    }

    async fn tell(
        &self,
        send: &mut SendStream,
        messages: impl IntoIterator<Item = Message>,
    ) -> bool {
        let Ok(bytes) = frames(messages) else {
            return false;
        };
        self.counts.bytes.fetch_add(bytes.len() as u64, Relaxed);
        send.write_all(&bytes).await.is_ok()
    }
}

async fn to_end(recv: &mut RecvStream) {
    while let Ok(Some(_)) = recv.read_chunk(usize::MAX).await {}
}

/// The id of the request that begins a stream.
async fn asked(recv: &mut RecvStream) -> Option<u64> {
    let mut decoder = FrameDecoder::new();
    loop {
        let mut piece = recv.read_chunk(usize::MAX).await.ok()??;
        while let Some(frame) = decoder.read(&mut piece).ok()? {
            if let Some(Message::SyncRequestV2(request)) = Message::decode_body(frame).ok()? {
                return Some(request.request_id);
            }
        }
    }
}

fn plan(request_id: u64, segment: Segment, events: u64) -> Message {
    Message::SyncPlan(SyncPlan {
        request_id,
        segment,
        totals: PlanTotals {
            authors: u64::from(events > 0),
            events,
            payload_bytes: events.saturating_mul(200),
        },
        rest: PlanTotals::default(),
    })
}

fn frames(messages: impl IntoIterator<Item = Message>) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    for message in messages {
        for chunk in message.encode_frame()? {
            bytes.extend_from_slice(&chunk);
        }
    }
    Ok(bytes)
}

/// Where an identity is: each elsewhere, so that nothing is known of any by its address.
fn place(number: u64) -> Ipv4Addr {
    let [high, low] = u16::try_from(number).unwrap_or_default().to_be_bytes();
    Ipv4Addr::new(127, 1, high, low.wrapping_add(1))
}

/// A request of somebody who holds nothing.
fn whole(space: SpaceId) -> Result<Bytes, Error> {
    const REQUEST: u64 = 7;
    let request = SyncRequestV2 {
        request_id: REQUEST,
        space,
        clock: Clock::Heads,
        filter: SyncFilter::default(),
        budget: Budget::default(),
        live: false,
    };
    let none = HeadsChunk {
        request_id: REQUEST,
        heads: Vec::new(),
        last: true,
    };
    Ok(frames([request.into(), Message::HeadsChunk(none)])?.into())
}

/// A request with the heads of a million authors nobody has seen.
fn clock(space: SpaceId) -> Result<Bytes, Error> {
    const REQUEST: u64 = 7;
    let request = SyncRequestV2 {
        request_id: REQUEST,
        space,
        clock: Clock::Heads,
        filter: SyncFilter::default(),
        budget: Budget::default(),
        live: false,
    };
    let mut bytes = frames([request.into()])?;
    for first in (0..HEADS).step_by(1_000) {
        let heads = (first..first + 1_000).map(|number| {
            let mut author = [9; 32];
            author[..8].copy_from_slice(&(number << 40).to_be_bytes());
            ClockEntry {
                author: AuthorId::from_bytes(author),
                head: AuthorHead {
                    seq: 1,
                    id: EventId::from_bytes([4; 32]),
                },
                forked: false,
                revoked: RevokedDigest::NONE,
            }
        });
        let chunk = HeadsChunk {
            request_id: REQUEST,
            heads: heads.collect(),
            last: first + 1_000 == HEADS,
        };
        bytes.extend(frames([Message::HeadsChunk(chunk)])?);
    }
    Ok(bytes.into())
}
