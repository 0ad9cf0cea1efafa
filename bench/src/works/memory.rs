//! The most memory either side of a sync ever has, each in a process of its own, disk stores on
//! both sides.
//!
//! A side reports its resident memory when it is ready and idle, and the peak the kernel saw
//! (`VmHWM`) after the sync. What the database caches of its file counts as added; how much it may
//! cache is an option of the store.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use headwater::{DiskStore, SpaceId, store::DiskStoreOptions};
use iroh::EndpointAddr;
use serde::{Deserialize, Serialize};

use crate::{
    Error,
    child::{child, hear, say},
    corpus::{Corpus, Shape},
    nodes::{Puller, Server},
    row::Row,
    sample::{peak_kib, resident_kib},
};

/// The name of the family.
pub const FAMILY: &str = "memory";

/// What a serving process says when it is ready.
#[derive(Debug, Serialize, Deserialize)]
struct Ready {
    addr: EndpointAddr,
    idle_kib: u64,
}

/// What a process says at its end.
#[derive(Debug, Serialize, Deserialize)]
struct Peak {
    idle_kib: u64,
    peak_kib: u64,
    events: u64,
    seconds: f64,
}

/// Fills a store in a process of its own, then lets two others sync it.
///
/// # Errors
///
/// If a process fails.
pub fn measure(shape: Shape, cache_mib: usize) -> Result<Vec<Row>, Error> {
    let folder = tempfile::tempdir()?;
    let served = folder.path().join("served.redb");
    let pulled = folder.path().join("pulled.redb");
    let filled: SpaceId = {
        let mut child = child(&[
            "child-fill".into(),
            served.display().to_string(),
            shape.events.to_string(),
            shape.authors.to_string(),
            shape.payload.to_string(),
        ])?;
        let space = child.line()?;
        child.end()?;
        space
    };

    let mut server = child(&[
        "child-serve".into(),
        served.display().to_string(),
        cache_mib.to_string(),
    ])?;
    let ready: Ready = server.line()?;
    let mut puller = child(&[
        "child-pull".into(),
        pulled.display().to_string(),
        serde_json::to_string(&ready.addr)?,
        filled.to_string(),
        (shape.events + 1).to_string(),
        cache_mib.to_string(),
    ])?;
    let pulling: Peak = puller.line()?;
    puller.end()?;
    let serving: Peak = server.ask(&())?;
    server.end()?;

    let mib = |kib: u64| [kib as f64 / 1024.0];
    let row = |side: &str, idle: u64, peak: u64| {
        let side = format!("{side}, disk, {cache_mib} MiB of cache");
        Row::new(FAMILY, shape.to_string(), side, 1)
            .figure("MiB idle", 1, mib(idle))
            .figure("MiB at the peak", 1, mib(peak))
            .figure("MiB added", 1, mib(peak.saturating_sub(idle)))
    };
    Ok(vec![
        row("responder", ready.idle_kib, serving.peak_kib),
        row("requester", pulling.idle_kib, pulling.peak_kib).figure(
            "k events/s",
            1,
            [pulling.events as f64 / pulling.seconds / 1e3],
        ),
    ])
}

/// The process that writes the store.
///
/// # Errors
///
/// If the store fails.
pub fn fill(path: &Path, shape: Shape) -> Result<(), Error> {
    let store = DiskStore::create(path)?;
    say(&Corpus::fill(&store, shape)?.space())
}

/// The process that serves it, until its input ends.
///
/// # Errors
///
/// If the node fails.
pub async fn serve(path: PathBuf, cache_mib: usize) -> Result<(), Error> {
    let store = DiskStore::open_with(path, cache(cache_mib))?;
    let server = Server::start(Arc::new(store)).await?;
    tokio::time::sleep(Duration::from_millis(200)).await;
    let idle_kib = resident_kib()?;
    say(&Ready {
        addr: server.addr.clone(),
        idle_kib,
    })?;
    tokio::task::spawn_blocking(hear::<()>).await??;
    say(&Peak {
        idle_kib,
        peak_kib: peak_kib()?,
        events: 0,
        seconds: 0.0,
    })?;
    server.stop().await
}

/// The process that pulls it.
///
/// # Errors
///
/// If the sync fails.
pub async fn pull(
    path: PathBuf,
    addr: EndpointAddr,
    space: SpaceId,
    events: u64,
    cache_mib: usize,
) -> Result<(), Error> {
    let store = DiskStore::create_with(path, cache(cache_mib))?;
    let puller = Puller::start(Arc::new(store), space).await?;
    tokio::time::sleep(Duration::from_millis(200)).await;
    let idle_kib = resident_kib()?;
    let start = Instant::now();
    let report = puller.pull(&addr, events).await?;
    let seconds = start.elapsed().as_secs_f64();
    say(&Peak {
        idle_kib,
        peak_kib: peak_kib()?,
        events: report.events,
        seconds,
    })?;
    puller.stop().await;
    Ok(())
}

fn cache(mib: usize) -> DiskStoreOptions {
    DiskStoreOptions::default().cache_bytes(mib * 1024 * 1024)
}
