//! What is large in one dimension: a million authors, and a store of ten million events.
//!
//! ```text
//! authors   server here ──▶ puller, a process of its own: cold, nothing new, ten authors changed
//! store     fill 99 % ──▶ copy ──▶ fill the rest
//!           open, closed in order or killed ──▶ serve the 1 % to the copy
//! ```
//!
//! Memory and what is read of a file are counted by process, which is why there are several.

mod roles;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use headwater::{Limits, LogStore, MemoryStore, SpaceId};
use iroh::EndpointAddr;
use serde::de::DeserializeOwned;

pub use self::roles::Role;
use self::roles::{Opened, Pulled, Ready, Served};
use super::Kept;
use crate::{
    Error,
    child::{Process, child},
    corpus::{Corpus, Shape, grouped},
    nodes::{Server, disk_bytes},
    row::{K_EVENTS, Row, WIRE_BYTES},
    sample::MIB,
};

/// The name of the family.
pub const FAMILY: &str = "big";

const MILLIS: &str = "ms";
const SENT: &str = "wire bytes";
const PEAK: &str = "puller's peak MiB";

/// Authors that append one event each while a puller is away.
const CHANGED: u64 = 10;

/// The limits of a node, but for that of authors.
fn limits() -> Limits {
    let mut limits = Limits::default();
    limits.session.max_authors = u64::MAX;
    limits
}

/// A space of as many authors as events: a cold sync, a sync that finds nothing new, and one that
/// finds ten authors changed, the last two on the connection of the first.
///
/// # Errors
///
/// If a sync fails or brings too little.
pub async fn authors(shape: Shape, reps: usize, kept: Kept) -> Result<Vec<Row>, Error> {
    let folder = tempfile::tempdir()?;
    let store: Arc<dyn LogStore> = Arc::new(MemoryStore::new());
    let mut corpus = Corpus::fill(&*store, shape)?;
    let server = Server::start_with(Arc::clone(&store), limits()).await?;
    let file = match kept {
        Kept::Memory => None,
        Kept::Disk => Some(folder.path().join("pulled.redb")),
    };

    let pulls = tokio::task::block_in_place(|| {
        let mut puller = Puller::start(file, &server.addr, corpus.space())?;
        // The genesis event besides those asked for.
        let cold = puller.pull(shape.events + 1)?;
        let mut nothing = Vec::with_capacity(reps);
        let mut changed = Vec::with_capacity(reps);
        for round in 0..=reps {
            for index in 0..CHANGED {
                // Spread over all keys, which are in no order.
                let index = (index * shape.authors / CHANGED + round as u64) % shape.authors;
                for outcome in store.append(&corpus.sign(index, 1)?)?.outcomes {
                    outcome?;
                }
            }
            let more = puller.pull(CHANGED)?;
            let equal = puller.pull(0)?;
            // The first round is not counted.
            if round > 0 {
                changed.push(more);
                nothing.push(equal);
            }
        }
        puller.process.end()?;
        Ok::<_, Error>((cold, nothing, changed))
    });
    let (cold, nothing, changed) = pulls?;
    server.stop().await?;

    let row = |what: String, pulls: &[Pulled]| {
        let subject = format!("Headwater, {}", kept.name());
        let (millis, bytes) = (
            pulls.iter().map(|pull| pull.millis),
            pulls.iter().map(|pull| pull.wire_bytes as f64),
        );
        Row::new(FAMILY, format!("{shape}: {what}"), subject, pulls.len())
            .figure(MILLIS, 2, millis)
            .figure(SENT, 0, bytes)
    };
    let events = cold.events as f64;
    Ok(vec![
        row("cold".into(), &[cold])
            .figure(K_EVENTS, 1, [events / cold.millis])
            .figure(WIRE_BYTES, 1, [cold.wire_bytes as f64 / events])
            .figure(PEAK, 1, [cold.peak_kib as f64 / 1024.0]),
        row("nothing new".into(), &nothing),
        row(format!("{CHANGED} authors changed"), &changed),
    ])
}

/// A file of this many events: how long it takes to open, and what serving the last 1 % takes.
///
/// # Errors
///
/// If a process fails or a sync brings too little.
pub async fn store(shape: Shape, reps: usize) -> Result<Vec<Row>, Error> {
    tokio::task::block_in_place(|| {
        let folder = tempfile::tempdir()?;
        let file = folder.path().join("served.redb");
        let copy = folder.path().join("pulled.redb");
        let tail = shape.events / 100;
        let space: SpaceId = once(
            "fill",
            &[
                path(&file),
                path(&copy),
                shape.events.to_string(),
                shape.authors.to_string(),
                shape.payload.to_string(),
            ],
        )?;
        let mut rows = opening(shape, reps, &file, space)?;
        rows.push(serving(shape, reps, &file, &copy, space, tail)?);
        Ok(rows)
    })
}

/// Opens the file in process after process: each after one that closed it, and each after one
/// that was killed while it had it open.
fn opening(shape: Shape, reps: usize, file: &Path, space: SpaceId) -> Result<Vec<Row>, Error> {
    let open = || once::<Opened>("open", &[path(file), space.to_string()]);
    // Leaves one more commit behind, of a space of its own, and is killed.
    let kill = |settle: bool| {
        let mut process = role("append", &[path(file), settle.to_string()])?;
        let (): () = process.line()?;
        process.kill()
    };
    let mut closed = Vec::new();
    let mut settled = Vec::new();
    for _ in 0..reps {
        closed.push(open()?);
        kill(true)?;
        settled.push(open()?);
    }
    kill(false)?;
    let unsettled = [open()?];

    let row = |what: &str, opened: &[Opened]| {
        if let Some(other) = opened.iter().find(|open| open.events != shape.events + 1) {
            return Err(format!("{} events are left", other.events));
        }
        Ok(Row::new(
            FAMILY,
            format!("{shape}: {what}"),
            "Headwater, disk",
            opened.len(),
        )
        .figure(MILLIS, 2, opened.iter().map(|open| open.millis))
        .figure(READ, 2, opened.iter().map(|open| mib(open.bytes_read))))
    };
    Ok(vec![
        row("open, closed before", &closed)?,
        row("open, killed when settled", &settled)?,
        row("open, killed before it settled", &unsettled)?,
    ])
}

/// Serves the last part to pullers that hold the rest, each from a file newly opened.
fn serving(
    shape: Shape,
    reps: usize,
    file: &Path,
    copy: &Path,
    space: SpaceId,
    tail: u64,
) -> Result<Row, Error> {
    let mut pulls: Vec<Pulled> = Vec::with_capacity(reps);
    let mut read = Vec::with_capacity(reps);
    for rep in 0..reps {
        let own = copy.with_file_name(format!("puller-{rep}.redb"));
        std::fs::copy(copy, &own)?;
        let mut server = role("serve", &[path(file)])?;
        let ready: Ready = server.line()?;
        let mut puller = Puller::start(Some(own.clone()), &ready.addr, space)?;
        pulls.push(puller.pull(tail)?);
        let served: Served = server.ask(&())?;
        read.push(mib(served.bytes_read - ready.bytes_read));
        puller.process.end()?;
        server.end()?;
        std::fs::remove_file(own)?;
    }
    let work = format!("{shape}: the last {} served", grouped(tail));
    Ok(Row::new(FAMILY, work, "Headwater, disk", reps)
        .figure(MILLIS, 2, pulls.iter().map(|pull| pull.millis))
        .figure(SENT, 0, pulls.iter().map(|pull| pull.wire_bytes as f64))
        .figure(READ, 2, read)
        .figure("MiB in the file", 1, [mib(disk_bytes(file)?)]))
}

const READ: &str = "MiB read of the file";

/// A process that pulls whenever it is told to.
struct Puller {
    process: Process,
}

impl Puller {
    fn start(file: Option<PathBuf>, addr: &EndpointAddr, space: SpaceId) -> Result<Self, Error> {
        let mut args = vec![serde_json::to_string(addr)?, space.to_string()];
        args.extend(file.as_deref().map(path));
        let mut process = role("pull", &args)?;
        let (): () = process.line()?;
        Ok(Self { process })
    }

    fn pull(&mut self, events: u64) -> Result<Pulled, Error> {
        self.process.ask(&events)
    }
}

/// A process of one of the [roles](Role).
fn role(name: &str, args: &[String]) -> Result<Process, Error> {
    let mut all = vec!["child-big".to_owned(), name.to_owned()];
    all.extend_from_slice(args);
    child(&all)
}

/// What a process says that says one thing.
fn once<T: DeserializeOwned>(name: &str, args: &[String]) -> Result<T, Error> {
    let mut process = role(name, args)?;
    let said = process.line()?;
    process.end()?;
    Ok(said)
}

fn path(path: &Path) -> String {
    path.display().to_string()
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / MIB
}
