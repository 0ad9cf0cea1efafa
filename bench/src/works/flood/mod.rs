//! A node at its default limits serves an honest peer while hostile ones flood it.
//!
//! ```text
//! node, a process of its own ◀── honest peer, here: quiet first, then again and again in the flood
//!          ▲ │
//!          │ ▼ (a node pulls from hostile responders too)
//! flooder, a process of its own
//! ```
//!
//! All three share the processors of one machine: the time of a flooded sync is what the flood
//! takes of them as a whole, the flooder's own work included, and not the node's part alone.

mod flooder;
mod roles;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use headwater::{Headwater, MemoryStore, Open};
use iroh::{Endpoint, SecretKey, endpoint::presets};
use tokio::time::sleep;

use self::roles::{Asked, Flooding, Said};
pub use self::{flooder::Flood, roles::Role};
use crate::{
    Error,
    child::{Process, child},
    corpus::{Shape, grouped},
    row::Row,
};

/// The name of the family.
pub const FAMILY: &str = "flood";

/// The most syncs in one row: more would use up what the honest peer itself may ask for.
const MOST_SYNCS: usize = 20;
const LEAST_SYNCS: usize = 5;

/// The key of the honest peer's node, the same in every run: a roster can name it.
fn honest_key() -> SecretKey {
    SecretKey::from_bytes(&[42; 32])
}

/// Every flood in turn, or only these and `roster`, each on a node of its own, until so many attempts
/// were made or so long a time has passed.
///
/// # Errors
///
/// If a process fails, or the honest peer is not served before the flood.
pub async fn measure(
    shape: Shape,
    only: &[String],
    attempts: u64,
    lasting: Duration,
) -> Result<Vec<Row>, Error> {
    let wanted =
        |name: &str| only.is_empty() || only.iter().any(|word| word.eq_ignore_ascii_case(name));
    let mut rows = Vec::new();
    for flood in Flood::ALL {
        if wanted(&format!("{flood:?}")) {
            rows.push(one(shape, flood, false, attempts, lasting).await?);
        }
    }
    if wanted("roster") {
        rows.push(one(shape, Flood::Crowd, true, attempts, lasting).await?);
    }
    Ok(rows)
}

async fn one(
    shape: Shape,
    flood: Flood,
    roster: bool,
    attempts: u64,
    lasting: Duration,
) -> Result<Row, Error> {
    let mut node = role(&[
        "serve".into(),
        shape.events.to_string(),
        shape.authors.to_string(),
        shape.payload.to_string(),
        roster.to_string(),
    ])?;
    let ready: roles::Ready = node.line()?;
    let mut honest = Honest::default();
    let mut quiet = Vec::new();
    // The first warms caches and the allocator and is not counted.
    for round in 0..=LEAST_SYNCS {
        let seconds = pull(&ready, shape.events).await?;
        if round > 0 {
            quiet.push(seconds);
        }
    }
    let before: Said = node.ask(&Asked::Reset)?;

    let mut flooder = role(&[
        "flood".into(),
        serde_json::to_string(&flood)?,
        serde_json::to_string(&ready.addr)?,
        ready.space.to_string(),
    ])?;
    let listening: Vec<iroh::EndpointAddr> = flooder.line()?;
    if !listening.is_empty() {
        let _: Said = node.ask(&Asked::Pull(listening))?;
    }
    let start = Instant::now();
    sleep(Duration::from_secs(1)).await;
    let flooding = loop {
        if honest.tries < MOST_SYNCS {
            honest.tries += 1;
            match tokio::time::timeout(lasting, pull(&ready, shape.events)).await {
                Ok(Ok(seconds)) => honest.seconds.push(seconds),
                Ok(Err(error)) => {
                    eprintln!("{flood:?}: an honest sync failed: {error}");
                    honest.failed += 1;
                }
                Err(_) => {
                    eprintln!("{flood:?}: an honest sync took longer than {lasting:?}");
                    honest.failed += 1;
                }
            }
        }
        sleep(Duration::from_millis(200)).await;
        let flooding: Flooding = flooder.ask(&())?;
        let enough = flooding.attempts >= attempts && honest.tries >= LEAST_SYNCS;
        if enough || start.elapsed() > lasting {
            break flooding;
        }
    };
    let seconds = start.elapsed().as_secs_f64();
    let after: Said = node.ask(&Asked::Tell)?;
    flooder.kill()?;
    node.kill()?;

    eprintln!("{flood:?}: {flooding:?} in {seconds:.1} s, node: {after:?}");
    let median = |values: &[f64]| crate::sample::Spread::of(values.iter().copied());
    let mean = median(&quiet).ok_or("no quiet sync")?.median;
    let ratios = honest.seconds.iter().map(|seconds| seconds / mean);
    let mib = |kib: u64| kib as f64 / 1024.0;
    let subject = if roster { "default roster" } else { "Open" };
    let work = format!("{shape}: {}", flood.describe());
    Ok(Row::new(FAMILY, work, subject, honest.tries)
        .figure("quiet ms", 0, quiet.iter().map(|seconds| seconds * 1e3))
        .figure("flooded ms", 0, honest.seconds.iter().map(|s| s * 1e3))
        .figure("flooded ÷ quiet", 2, ratios)
        .figure("honest syncs failed", 0, [honest.failed as f64])
        .figure("attempts", 0, [flooding.attempts as f64])
        .figure("flood seconds", 1, [seconds])
        .figure("MiB at the quiet peak", 1, [mib(before.peak_kib)])
        .figure("MiB at the flooded peak", 1, [mib(after.peak_kib)])
        .figure("MiB added", 1, [mib(after.peak_kib) - mib(before.peak_kib)])
        .figure("busy", 0, [after.busy as f64])
        .figure("banned", 0, [after.banned as f64])
        .figure("panics", 0, [after.panics as f64]))
}

/// What became of the honest peer's syncs in the flood.
#[derive(Debug, Default)]
struct Honest {
    tries: usize,
    failed: usize,
    seconds: Vec<f64>,
}

/// A cold sync into memory; how long it took, dial and handshake included.
async fn pull(ready: &roles::Ready, events: u64) -> Result<f64, Error> {
    let endpoint = bind(honest_key(), false).await?;
    let node = Headwater::builder()
        .policy(Open)
        .shared_store(Arc::new(MemoryStore::new()))
        .spawn(endpoint.clone());
    let start = Instant::now();
    let report = node.space(ready.space).sync_with(ready.addr.clone()).await;
    let seconds = start.elapsed().as_secs_f64();
    node.shutdown().await;
    endpoint.close().await;
    let report = report?;
    // A hostile author's events may have come on top.
    if report.events <= events {
        let got = grouped(report.events);
        return Err(format!("{got} events came: {:?}", report.outcome).into());
    }
    Ok(seconds)
}

/// An endpoint on loopback with this identity.
async fn bind(key: SecretKey, listens: bool) -> Result<Endpoint, Error> {
    let alpns = if listens {
        vec![headwater::ALPN.to_vec()]
    } else {
        Vec::new()
    };
    Ok(Endpoint::builder(presets::Minimal)
        .secret_key(key)
        .alpns(alpns)
        .clear_ip_transports()
        .bind_addr("127.0.0.1:0")?
        .bind()
        .await?)
}

/// A process of one of the [roles](Role).
fn role(args: &[String]) -> Result<Process, Error> {
    let mut all = vec!["child-flood".to_owned()];
    all.extend_from_slice(args);
    child(&all)
}
