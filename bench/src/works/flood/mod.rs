//! A node at its default limits serves an honest peer while hostile ones flood it.
//!
//! ```text
//! node, a process of its own ◀── honest peer, here: quiet first, then again and again in the flood
//!          ▲ │
//!          │ ▼ (a node pulls from hostile responders too)
//! flooder, a process of its own
//! ```
//!
//! What is asked is what the flood costs the *node*, and not what the flooder's own work takes of the
//! machine. So the node and the honest peer have one core, and the flooder has the other; with
//! `--shared` all three share what there is. Either way there is a control: honest syncs beside a
//! process that has the flooder's core, or as many threads as it, and does nothing but burn it.
//!
//! The honest peer has synced before, and is at an address of its own: it is *known*. So is every
//! flooder at an address of its own, which is the worse for the node.

mod flooder;
mod roles;

use std::{
    net::Ipv4Addr,
    sync::Arc,
    time::{Duration, Instant},
};

use headwater::{Headwater, MemoryStore, Open};
use iroh::{
    Endpoint, SecretKey,
    endpoint::{QuicTransportConfig, presets},
};
use tokio::time::sleep;

use self::roles::{Asked, Flooding, Said};
pub use self::{flooder::Flood, roles::Role};
use crate::{
    Error,
    child::{Process, child, child_on, stay_on},
    corpus::{Shape, grouped},
    row::Row,
};

/// The name of the family.
pub const FAMILY: &str = "flood";

/// The most syncs in one row: more would use up what the honest peer itself may ask for.
const MOST_SYNCS: usize = 20;
const LEAST_SYNCS: usize = 5;

/// What a flood may add: 64 syncs of 4 MiB.
const MOST_MIB: f64 = 256.0;

/// The core of the node and the honest peer, and the flooder's.
const CORES: [usize; 2] = [0, 1];

/// Where the honest peer is.
const HONEST: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

/// The key of the honest peer's node, the same in every run: a roster can name it.
fn honest_key() -> SecretKey {
    SecretKey::from_bytes(&[42; 32])
}

/// Every flood in turn, or only these and `roster`, each on a node of its own, until so many attempts
/// were made or so long a time has passed.
///
/// # Errors
///
/// If a process fails, the honest peer is not served before the flood, or the node takes more memory
/// than it may.
pub async fn measure(
    shape: Shape,
    only: &[String],
    attempts: u64,
    lasting: Duration,
    shared: bool,
) -> Result<Vec<Row>, Error> {
    if !shared {
        stay_on(CORES[0])?;
    }
    let wanted =
        |name: &str| only.is_empty() || only.iter().any(|word| word.eq_ignore_ascii_case(name));
    let mut rows = Vec::new();
    for flood in Flood::ALL {
        if wanted(&format!("{flood:?}")) {
            rows.push(one(shape, flood, false, attempts, lasting, shared).await?);
        }
    }
    if wanted("roster") {
        rows.push(one(shape, Flood::Strangers, true, attempts, lasting, shared).await?);
    }
    Ok(rows)
}

async fn one(
    shape: Shape,
    flood: Flood,
    roster: bool,
    attempts: u64,
    lasting: Duration,
    shared: bool,
) -> Result<Row, Error> {
    let mut node = role(
        None,
        &[
            "serve".into(),
            shape.events.to_string(),
            shape.authors.to_string(),
            shape.payload.to_string(),
            roster.to_string(),
        ],
    )?;
    let ready: roles::Ready = node.line()?;
    let core = (!shared).then_some(CORES[1]);
    let mut quiet = Vec::new();
    // The first warms caches and the allocator and is not counted.
    pull(&ready, shape.events).await?;
    several(&ready, shape.events, &mut quiet).await?;

    let mut burner = role(core, &["burn".into()])?;
    let () = burner.line()?;
    let mut control = Vec::new();
    several(&ready, shape.events, &mut control).await?;
    burner.kill()?;
    let before: Said = node.ask(&Asked::Reset)?;

    let mut flooder = role(
        core,
        &[
            "flood".into(),
            serde_json::to_string(&flood)?,
            serde_json::to_string(&ready.addr)?,
            ready.space.to_string(),
        ],
    )?;
    let listening: Vec<iroh::EndpointAddr> = flooder.line()?;
    if !listening.is_empty() {
        let _: Said = node.ask(&Asked::Pull(listening))?;
    }
    let start = Instant::now();
    sleep(Duration::from_secs(1)).await;
    let mut serving = 0;
    if flood == Flood::Frozen {
        flooder.signal("STOP")?;
    }
    let mut honest = Honest::default();
    let mut flooding = Flooding::default();
    loop {
        let said: Said = node.ask(&Asked::Tell)?;
        serving = said.serving.max(serving);
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
        if flood != Flood::Frozen {
            flooding = flooder.ask(&())?;
        }
        let enough = flooding.attempts >= attempts || flood.is_of_few();
        if (enough && honest.tries >= MOST_SYNCS) || start.elapsed() > lasting {
            break;
        }
    }
    let seconds = start.elapsed().as_secs_f64();
    let after: Said = node.ask(&Asked::Tell)?;
    flooder.kill()?;
    sleep(Duration::from_secs(1)).await;
    several(&ready, shape.events, &mut quiet).await?;
    node.kill()?;

    eprintln!("{flood:?}: {flooding:?} in {seconds:.1} s, node: {after:?}");
    let median = |values: &[f64]| crate::sample::Spread::of(values.iter().copied());
    let quiet_median = median(&quiet).ok_or("no quiet sync")?.median;
    let control_median = median(&control).ok_or("no control")?.median;
    let to = |median: f64| honest.seconds.iter().map(move |seconds| seconds / median);
    let mib = |kib: u64| kib as f64 / 1024.0;
    let added = mib(after.peak_kib) - mib(before.peak_kib);
    if added > MOST_MIB {
        return Err(format!("{flood:?}: the node took {added:.0} MiB more").into());
    }
    let subject = if roster { "default roster" } else { "Open" };
    let work = format!("{shape}: {}", flood.describe());
    Ok(Row::new(FAMILY, work, subject, honest.tries)
        .figure("quiet ms", 0, quiet.iter().map(|seconds| seconds * 1e3))
        .figure("control ms", 0, control.iter().map(|seconds| seconds * 1e3))
        .figure("flooded ms", 0, honest.seconds.iter().map(|s| s * 1e3))
        .figure("flooded ÷ quiet", 2, to(quiet_median))
        .figure("flooded ÷ control", 2, to(control_median))
        .figure("honest syncs failed", 0, [honest.failed as f64])
        .figure("attempts", 0, [flooding.attempts as f64])
        .figure("flood seconds", 1, [seconds])
        .figure(
            "node's share of a core",
            2,
            [(after.cpu_seconds - before.cpu_seconds) / seconds],
        )
        .figure("most served at once", 0, [serving as f64])
        .figure("MiB at the quiet peak", 1, [mib(before.peak_kib)])
        .figure("MiB at the flooded peak", 1, [mib(after.peak_kib)])
        .figure("MiB added", 1, [added])
        .figure("handshakes refused", 0, [after.handshakes_refused as f64])
        .figure("busy", 0, [after.busy as f64])
        .figure("places lost", 0, [after.places_lost as f64])
        .figure("banned", 0, [after.banned as f64])
        .figure("panics", 0, [after.panics as f64]))
}

/// A few honest syncs in a row.
async fn several(ready: &roles::Ready, events: u64, seconds: &mut Vec<f64>) -> Result<(), Error> {
    for _ in 0..LEAST_SYNCS {
        seconds.push(pull(ready, events).await?);
    }
    Ok(())
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
    let endpoint = bind(honest_key(), false, HONEST, None).await?;
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

/// An endpoint on loopback with this identity, and with windows of its own if need be.
async fn bind(
    key: SecretKey,
    listens: bool,
    place: Ipv4Addr,
    window: Option<u32>,
) -> Result<Endpoint, Error> {
    let alpns = if listens {
        vec![headwater::ALPN.to_vec()]
    } else {
        Vec::new()
    };
    let transport = window.map_or_else(headwater::transport_config, |window| {
        QuicTransportConfig::builder()
            .stream_receive_window(window.into())
            .receive_window((2 * window).into())
            .build()
    });
    Ok(Endpoint::builder(presets::Minimal)
        .secret_key(key)
        .alpns(alpns)
        .transport_config(transport)
        .clear_ip_transports()
        .bind_addr((place, 0))?
        .bind()
        .await?)
}

/// A process of one of the [roles](Role), on a core of its own if need be.
fn role(core: Option<usize>, args: &[String]) -> Result<Process, Error> {
    let mut all = vec!["child-flood".to_owned()];
    all.extend_from_slice(args);
    match core {
        Some(core) => child_on(core, &all),
        None => child(&all),
    }
}
