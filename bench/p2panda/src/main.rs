//! p2panda's log sync over one bidirectional iroh stream on loopback, both ends in this process.
//!
//! Its own session (`p2panda-sync`), its own ingestion (`p2panda-stream`), its own SQLite store in
//! memory, its wire form: postcard behind a length of four bytes, as `p2panda-net` writes it.
//! Two things are changed, or it would not complete or take minutes: the broadcast channel
//! between session and ingestion is as long as the history (as shipped it has 1,028 places and
//! drops what does not fit), and the store has an index on the columns it asks for.
//!
//! A sync ends when every operation is ingested. Prints one JSON object.

use std::{
    collections::BTreeMap,
    marker::PhantomData,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use clap::Parser;
use iroh::{Endpoint, endpoint::presets};
use p2panda_core::{Body, Hash, Header, Operation, SigningKey, VerifyingKey};
use p2panda_store::{
    SqliteStore, Transaction as _, operations::OperationStore as _, sqlite::SqliteStoreBuilder,
};
use p2panda_stream::ingest::ingest_operation;
use p2panda_sync::{
    protocols::{LogSync, LogSyncEvent, LogSyncMessage, Logs},
    traits::Protocol as _,
};
use rustix::time::{ClockId, clock_gettime};
use serde::{Serialize, de::DeserializeOwned};
use tokio::sync::broadcast;
use tokio_util::{
    bytes::{Buf as _, BufMut as _, BytesMut},
    codec::{Decoder, Encoder, FramedRead, FramedWrite},
};

type Error = Box<dyn std::error::Error + Send + Sync>;
type LogId = u64;
type Event = LogSyncEvent<()>;
type Session = LogSync<LogId, (), SqliteStore, Event>;

const ALPN: &[u8] = b"headwater/bench/p2panda";
const LOG: LogId = 1;
const TOPIC: [u8; 32] = [9; 32];

/// Measures one cold sync, one of 1 % more, one of nothing.
#[derive(Debug, Parser)]
struct Options {
    #[arg(long)]
    events: u64,
    #[arg(long)]
    authors: u64,
    #[arg(long)]
    payload: usize,
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    let options = Options::parse();
    let provider = store().await?;
    let receiver = store().await?;
    let mut logs: Vec<Log> = (0..options.authors).map(Log::new).collect();
    let mut serial = 0;
    fill(
        &provider,
        &mut logs,
        &mut serial,
        options.events,
        options.payload,
    )
    .await?;

    let cold = sync(&provider, &receiver, &logs, options.events).await?;
    let more = (options.events / 100).max(1);
    fill(&provider, &mut logs, &mut serial, more, options.payload).await?;
    let delta = sync(&provider, &receiver, &logs, more).await?;
    let equal = sync(&provider, &receiver, &logs, 0).await?;

    let report = serde_json::json!({
        "events": options.events,
        "payload_bytes": options.events * options.payload as u64,
        "seconds": cold.wall.as_secs_f64(),
        "cpu_seconds": cold.cpu.as_secs_f64(),
        "wire_bytes": cold.wire_bytes,
        "delta_seconds": delta.wall.as_secs_f64(),
        "equal_seconds": equal.wall.as_secs_f64(),
    });
    println!("{report}");
    Ok(())
}

/// An author's log while it is written.
struct Log {
    secret: SigningKey,
    head: Option<(u32, Hash)>,
}

impl Log {
    fn new(index: u64) -> Self {
        let mut seed = [0x42; 32];
        seed[..8].copy_from_slice(&index.to_le_bytes());
        Self {
            secret: SigningKey::from_bytes(&seed),
            head: None,
        }
    }

    fn sign(&mut self, body: Vec<u8>) -> Operation<()> {
        let body = Body::from(body);
        let mut header = Header::<()>::builder().body(&body);
        let seq = match self.head {
            Some((seq, hash)) => {
                header = header.chain(seq + 1, hash);
                seq + 1
            }
            None => 0,
        };
        let header = header.build(&self.secret, ());
        let hash = header.hash();
        self.head = Some((seq, hash));
        Operation {
            hash,
            header,
            body: Some(body),
        }
    }
}

async fn store() -> Result<SqliteStore, Error> {
    let store = SqliteStoreBuilder::memory().build().await?;
    sqlx::query("CREATE INDEX by_log ON operations_v1 (verifying_key, log_id, seq_num)")
        .execute(store.pool())
        .await?;
    Ok(store)
}

/// Extends the logs by so many operations in all, in one transaction.
async fn fill(
    store: &SqliteStore,
    logs: &mut [Log],
    serial: &mut u64,
    events: u64,
    payload: usize,
) -> Result<(), Error> {
    let permit = store.begin().await?;
    let authors = logs.len() as u64;
    for (index, log) in (0..).zip(logs.iter_mut()) {
        let share = events / authors + u64::from(index < events % authors);
        for _ in 0..share {
            let operation = log.sign(body(*serial, payload));
            *serial += 1;
            store
                .insert_operation(&operation.hash, &operation, &LOG)
                .await?;
        }
    }
    Ok(store.commit(permit).await?)
}

/// Bytes that differ from event to event and do not compress.
fn body(serial: u64, len: usize) -> Vec<u8> {
    let mut state = serial ^ 0x9e37_79b9_7f4a_7c15;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        bytes.extend_from_slice(&state.wrapping_mul(0x2545_f491_4f6c_dd1d).to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

struct Measured {
    wall: Duration,
    cpu: Duration,
    wire_bytes: u64,
}

/// One session, from the dial to the last operation ingested.
async fn sync(
    provider: &SqliteStore,
    receiver: &SqliteStore,
    logs: &[Log],
    expected: u64,
) -> Result<Measured, Error> {
    let wanted: Logs<LogId> = logs
        .iter()
        .map(|log| (log.secret.verifying_key(), vec![LOG]))
        .collect::<BTreeMap<VerifyingKey, Vec<LogId>>>();
    let accepting = endpoint(vec![ALPN.to_vec()]).await?;
    let dialling = endpoint(vec![]).await?;
    let addr = accepting.addr();
    let wire = Arc::new(AtomicU64::new(0));
    let places = usize::try_from(expected)? + 1_024;

    let serving = {
        let (events, _unread) = broadcast::channel::<Event>(places);
        let session = Session::new(provider.clone(), wanted.clone(), events);
        let wire = Arc::clone(&wire);
        let accepting = accepting.clone();
        tokio::spawn(async move {
            let incoming = accepting.accept().await.ok_or("the endpoint was closed")?;
            let connection = incoming.await?;
            let (send, recv) = connection.accept_bi().await?;
            let mut sink = FramedWrite::new(send, Codec::new(&wire));
            let mut stream = FramedRead::new(recv, Codec::new(&wire));
            session.run(&mut sink, &mut stream).await?;
            connection.closed().await;
            drop(_unread);
            Ok::<_, Error>(())
        })
    };

    let (events, mut arriving) = broadcast::channel::<Event>(places);
    let session = Session::new(receiver.clone(), wanted, events);
    let cpu = process_cpu();
    let start = Instant::now();

    let ingesting = {
        let receiver = receiver.clone();
        tokio::spawn(async move {
            let mut stored = 0;
            loop {
                match arriving.recv().await {
                    Ok(LogSyncEvent::OperationReceived { operation, .. }) => {
                        let new =
                            ingest_operation(&receiver, &*operation, &LOG, &TOPIC, false).await?;
                        stored += u64::from(new);
                    }
                    Ok(_) => {}
                    Err(broadcast::error::RecvError::Closed) => return Ok::<_, Error>(stored),
                    Err(error) => return Err(error.into()),
                }
            }
        })
    };

    let connection = dialling.connect(addr, ALPN).await?;
    let (send, recv) = connection.open_bi().await?;
    let mut sink = FramedWrite::new(send, Codec::new(&wire));
    let mut stream = FramedRead::new(recv, Codec::new(&wire));
    session.run(&mut sink, &mut stream).await?;
    let stored = ingesting.await??;
    let wall = start.elapsed();
    let cpu = process_cpu() - cpu;

    connection.close(0u32.into(), b"done");
    serving.await??;
    dialling.close().await;
    accepting.close().await;
    if stored != expected {
        return Err(format!("stored {stored} of {expected} operations").into());
    }
    Ok(Measured {
        wall,
        cpu,
        wire_bytes: wire.load(Relaxed),
    })
}

async fn endpoint(alpns: Vec<Vec<u8>>) -> Result<Endpoint, Error> {
    Ok(Endpoint::builder(presets::Minimal)
        .alpns(alpns)
        .clear_ip_transports()
        .bind_addr("127.0.0.1:0")?
        .bind()
        .await?)
}

/// User and system time of all threads of this process.
fn process_cpu() -> Duration {
    let now = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(
        now.tv_sec.unsigned_abs(),
        u32::try_from(now.tv_nsec).unwrap_or_default(),
    )
}

/// A message in postcard behind its length; counts what it writes.
struct Codec<M> {
    written: Arc<AtomicU64>,
    message: PhantomData<M>,
}

impl Codec<LogSyncMessage<LogId>> {
    fn new(written: &Arc<AtomicU64>) -> Self {
        Self {
            written: Arc::clone(written),
            message: PhantomData,
        }
    }
}

impl<M: Serialize> Encoder<M> for Codec<M> {
    type Error = Error;

    fn encode(&mut self, message: M, out: &mut BytesMut) -> Result<(), Error> {
        let body = postcard::to_stdvec(&message)?;
        out.put_u32(u32::try_from(body.len())?);
        out.extend_from_slice(&body);
        self.written.fetch_add(body.len() as u64 + 4, Relaxed);
        Ok(())
    }
}

impl<M: DeserializeOwned> Decoder for Codec<M> {
    type Item = M;
    type Error = Error;

    fn decode(&mut self, bytes: &mut BytesMut) -> Result<Option<M>, Error> {
        let Some(length) = bytes.first_chunk::<4>() else {
            return Ok(None);
        };
        let length = usize::try_from(u32::from_be_bytes(*length))?;
        if bytes.len() < 4 + length {
            return Ok(None);
        }
        bytes.advance(4);
        let body = bytes.split_to(length);
        Ok(Some(postcard::from_bytes(&body)?))
    }
}
