//! iroh-docs' set reconciliation of one document over iroh on loopback, both ends in this process.
//!
//! Entries only: an entry states its author, key, hash and length under two signatures; the
//! payload itself, an iroh-blobs blob, is not moved. Memory stores, its own network code
//! (`net::connect_and_sync`, `net::handle_connection`), no gossip. Prints one JSON object.
//!
//! With iroh 1.4 both functions report an error while they close the stream, after a session that
//! is complete; whether it was is told from the entries in the store.

use std::time::{Duration, Instant};

use clap::Parser;
use iroh::{Endpoint, endpoint::presets};
use iroh_blobs::Hash;
use iroh_docs::{
    ALPN, Author, Capability, NamespaceId, NamespaceSecret,
    actor::{OpenOpts, SyncHandle},
    net::{AcceptError, AcceptOutcome, ConnectError, connect_and_sync, handle_connection},
    store::{Query, Store},
};
use rustix::time::{ClockId, clock_gettime};

type Error = Box<dyn std::error::Error + Send + Sync>;

/// Measures one cold sync, one of 1 % more, one of nothing.
#[derive(Debug, Parser)]
struct Options {
    #[arg(long)]
    events: u64,
    #[arg(long)]
    authors: u64,
    #[arg(long)]
    payload: u64,
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    let options = Options::parse();
    let secret = NamespaceSecret::from_bytes(&[7; 32]);
    let provider = replica(Capability::Write(secret.clone())).await?;
    let mut receiver = replica(Capability::Write(secret.clone())).await?;
    let mut authors = Vec::new();
    for index in 0..options.authors {
        let mut seed = [0x42; 32];
        seed[..8].copy_from_slice(&index.to_le_bytes());
        authors.push(provider.import_author(Author::from_bytes(&seed)).await?);
    }
    let mut serial = 0u64;
    let mut fill = async |count: u64| {
        for _ in 0..count {
            let author = authors[usize::try_from(serial % options.authors)?];
            let key = serial.to_be_bytes();
            provider
                .insert_local(
                    secret.id(),
                    author,
                    key.to_vec().into(),
                    Hash::new(key),
                    options.payload,
                )
                .await?;
            serial += 1;
        }
        Ok::<_, Error>(())
    };

    fill(options.events).await?;
    let cold = sync(&provider, &receiver, secret.id()).await?;
    receiver = counted(receiver, &secret, options.events).await?;
    let more = (options.events / 100).max(1);
    fill(more).await?;
    let delta = sync(&provider, &receiver, secret.id()).await?;
    receiver = counted(receiver, &secret, options.events + more).await?;
    let equal = sync(&provider, &receiver, secret.id()).await?;
    counted(receiver, &secret, options.events + more).await?;

    let report = serde_json::json!({
        "events": options.events,
        // The entries speak of payloads; none of them is moved.
        "payload_bytes": 0,
        "seconds": cold.0.as_secs_f64(),
        "cpu_seconds": cold.1.as_secs_f64(),
        "wire_bytes": null,
        "delta_seconds": delta.0.as_secs_f64(),
        "equal_seconds": equal.0.as_secs_f64(),
    });
    println!("{report}");
    Ok(())
}

async fn replica(capability: Capability) -> Result<SyncHandle, Error> {
    opened(Store::memory(), capability).await
}

async fn opened(store: Store, capability: Capability) -> Result<SyncHandle, Error> {
    let handle = SyncHandle::spawn(store, None, "bench".to_owned());
    let namespace = handle.import_namespace(capability).await?;
    handle.open(namespace, OpenOpts::default().sync()).await?;
    Ok(handle)
}

/// Checks that the store holds so many entries, and goes on with it.
async fn counted(
    handle: SyncHandle,
    secret: &NamespaceSecret,
    expected: u64,
) -> Result<SyncHandle, Error> {
    let mut store = handle.shutdown().await?;
    let held = store.get_many(secret.id(), Query::all())?.count() as u64;
    if held != expected {
        return Err(format!("{held} of {expected} entries are held").into());
    }
    opened(store, Capability::Write(secret.clone())).await
}

/// Wall and CPU time from the dial to the end of the session.
async fn sync(
    provider: &SyncHandle,
    receiver: &SyncHandle,
    namespace: NamespaceId,
) -> Result<(Duration, Duration), Error> {
    let accepting = endpoint(vec![ALPN.to_vec()]).await?;
    let dialling = endpoint(vec![]).await?;
    let addr = accepting.addr();
    let serving = tokio::spawn({
        let accepting = accepting.clone();
        let provider = provider.clone();
        async move {
            let incoming = accepting.accept().await.ok_or("the endpoint was closed")?;
            let connection = incoming.await?;
            let allow = |_, _| std::future::ready(AcceptOutcome::Allow);
            match handle_connection(provider, connection, allow, None).await {
                Ok(_) | Err(AcceptError::Close { .. }) => Ok::<_, Error>(()),
                Err(error) => Err(error.into()),
            }
        }
    });

    let cpu = process_cpu();
    let start = Instant::now();
    match connect_and_sync(&dialling, receiver, namespace, addr, None).await {
        Ok(_) | Err(ConnectError::Close { .. }) => {}
        Err(error) => return Err(error.into()),
    }
    let measured = (start.elapsed(), process_cpu() - cpu);

    serving.await??;
    dialling.close().await;
    accepting.close().await;
    Ok(measured)
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
