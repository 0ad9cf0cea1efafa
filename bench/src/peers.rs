//! Headwater beside its peers, in one run: each round measures everybody once.
//!
//! A peer is a program of its own (`bench/iroh-docs`, `bench/p2panda`): it fills a store, syncs it
//! into an empty one over iroh on loopback, both ends in its process, and prints a [`Report`].

use std::{path::PathBuf, process::Command, sync::Arc};

use headwater::{LogStore, MemoryStore};
use serde::Deserialize;

use crate::{
    Error, bare,
    corpus::{Corpus, Shape},
    nodes::{Puller, Server, wire_bytes},
    row::{K_EVENTS, PAYLOAD_RATE, Row, WIRE_BYTES},
    sample::{Meter, Sample},
    works::Kept,
};

/// The name of the family.
pub const FAMILY: &str = "peers";

/// A program that measures a peer.
#[derive(Debug, Clone)]
pub struct Peer {
    /// Its name in the table.
    pub name: &'static str,
    /// The program.
    pub program: PathBuf,
}

/// What such a program prints: one cold sync, then one of 1 % more, then one of nothing.
#[derive(Debug, Deserialize)]
struct Report {
    events: u64,
    payload_bytes: u64,
    seconds: f64,
    cpu_seconds: f64,
    wire_bytes: Option<u64>,
    delta_seconds: Option<f64>,
    equal_seconds: Option<f64>,
}

#[derive(Debug, Clone, Copy)]
struct Measured {
    sample: Sample,
    delta_seconds: Option<f64>,
    equal_seconds: Option<f64>,
}

/// A bare stream, Headwater in memory and on disk, and each of the peers.
///
/// # Errors
///
/// If one of them fails or moves another number of events.
pub async fn measure(shape: Shape, reps: usize, peers: &[Peer]) -> Result<Vec<Row>, Error> {
    let mut names = vec![
        "bare iroh stream".to_owned(),
        "Headwater, memory".to_owned(),
        "Headwater, disk".to_owned(),
    ];
    names.extend(peers.iter().map(|peer| peer.name.to_owned()));
    let mut rounds: Vec<Vec<Measured>> = vec![Vec::new(); names.len()];
    // Every program is new in each round; the first round is not counted all the same.
    for round in 0..=reps {
        let mut measured = vec![
            Measured {
                sample: bare::measure(shape.payload_bytes()).await?,
                delta_seconds: None,
                equal_seconds: None,
            },
            headwater(shape, Kept::Memory).await?,
            headwater(shape, Kept::Disk).await?,
        ];
        for peer in peers {
            let peer = peer.clone();
            measured.push(tokio::task::spawn_blocking(move || run(&peer, shape)).await??);
        }
        if round > 0 {
            for (subject, measured) in rounds.iter_mut().zip(measured) {
                subject.push(measured);
            }
        }
    }

    let reference = rounds.get(1).cloned().unwrap_or_default();
    Ok(names
        .into_iter()
        .zip(&rounds)
        .map(|(name, rounds)| {
            let samples = || rounds.iter().map(|measured| measured.sample);
            let events = || samples().filter(|sample| sample.events > 0);
            let ratio = reference
                .iter()
                .zip(rounds)
                .filter(|(_, other)| other.sample.events > 0)
                .map(|(own, other)| {
                    own.sample.events_per_second() / other.sample.events_per_second()
                });
            Row::new(FAMILY, shape.to_string(), name, reps)
                .figure(K_EVENTS, 2, events().map(|s| s.events_per_second() / 1e3))
                .figure(
                    PAYLOAD_RATE,
                    2,
                    samples()
                        .filter(|sample| sample.payload_bytes > 0)
                        .map(|sample| sample.payload_rate()),
                )
                .figure(
                    "CPU µs/event",
                    2,
                    events().map(|s| s.cpu.as_secs_f64() * 1e6 / s.events as f64),
                )
                .figure(
                    WIRE_BYTES,
                    1,
                    events().filter_map(|s| Some(s.wire_bytes? as f64 / s.events as f64)),
                )
                .figure("Headwater, memory ÷ this", 1, ratio)
                .figure(
                    "1 % more, ms",
                    1,
                    rounds.iter().filter_map(|m| Some(m.delta_seconds? * 1e3)),
                )
                .figure(
                    "nothing new, ms",
                    1,
                    rounds.iter().filter_map(|m| Some(m.equal_seconds? * 1e3)),
                )
        })
        .collect())
}

/// What the peers' programs do, done by Headwater: every sync with endpoints that are new to each
/// other, dialing included.
async fn headwater(shape: Shape, kept: Kept) -> Result<Measured, Error> {
    let folder = tempfile::tempdir()?;
    let served: Arc<dyn LogStore> = Arc::new(MemoryStore::new());
    let pulled = kept.store(folder.path())?;
    let mut corpus = Corpus::fill(&*served, shape)?;
    let more = Shape {
        events: (shape.events / 100).max(1),
        ..shape
    };

    let mut samples = Vec::new();
    for (step, events) in [shape.events + 1, more.events, 0].into_iter().enumerate() {
        if step == 1 {
            corpus.extend(&*served, more)?;
        }
        let server = Server::start(Arc::clone(&served)).await?;
        let puller = Puller::start(Arc::clone(&pulled), corpus.space()).await?;
        let meter = Meter::start();
        let report = puller.pull(&server.addr, events).await?;
        let (wall, cpu) = meter.stop();
        puller.stop().await;
        server.stop().await?;
        samples.push(Sample {
            events: report.events,
            payload_bytes: report.payload_bytes,
            wall,
            cpu,
            wire_bytes: Some(wire_bytes(&report)),
            file_bytes: None,
        });
    }
    let [sample, delta, equal] = samples[..] else {
        return Err("three syncs were measured".into());
    };
    Ok(Measured {
        sample,
        delta_seconds: Some(delta.wall.as_secs_f64()),
        equal_seconds: Some(equal.wall.as_secs_f64()),
    })
}

fn run(peer: &Peer, shape: Shape) -> Result<Measured, Error> {
    let output = Command::new(&peer.program)
        .args(["--events", &shape.events.to_string()])
        .args(["--authors", &shape.authors.to_string()])
        .args(["--payload", &shape.payload.to_string()])
        .output()
        .map_err(|error| format!("{}: {error}", peer.program.display()))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(format!("{} ended with {}: {said}", peer.name, output.status).into());
    }
    let report: Report = serde_json::from_slice(&output.stdout)?;
    if report.events != shape.events {
        return Err(format!("{} moved {} events", peer.name, report.events).into());
    }
    Ok(Measured {
        sample: Sample {
            events: report.events,
            payload_bytes: report.payload_bytes,
            wall: std::time::Duration::from_secs_f64(report.seconds),
            cpu: std::time::Duration::from_secs_f64(report.cpu_seconds),
            wire_bytes: report.wire_bytes,
            file_bytes: None,
        },
        delta_seconds: report.delta_seconds,
        equal_seconds: report.equal_seconds,
    })
}
