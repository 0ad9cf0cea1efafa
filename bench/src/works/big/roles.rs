//! What the processes of this family do.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Instant,
};

use clap::Subcommand;
use headwater::{
    DiskStore, LogStore, MemoryStore, SpaceId,
    wire::{VerifiedRun, sign_genesis},
};
use iroh::EndpointAddr;
use serde::{Deserialize, Serialize};

use super::limits;
use crate::{
    Error,
    child::{hear, say},
    corpus::{self, Corpus, Shape},
    nodes::{Puller, Server, wire_bytes},
    sample::{bytes_read, peak_kib},
};

/// A process that says in lines of JSON what it did.
#[derive(Debug, Subcommand)]
pub enum Role {
    /// Writes a space into a file, and a copy of the file without its last 1 %.
    Fill {
        /// The file.
        file: PathBuf,
        /// The copy.
        copy: PathBuf,
        /// Events, besides the genesis event.
        events: u64,
        /// Authors, each of the same number.
        authors: u64,
        /// Payload bytes of each event.
        payload: usize,
    },
    /// Opens a file, and closes it.
    Open {
        /// The file.
        file: PathBuf,
        /// The space that is asked for.
        space: SpaceId,
    },
    /// Opens a file, appends an event, and waits to be killed.
    Append {
        /// The file.
        file: PathBuf,
        /// Whether it settles before.
        #[arg(action = clap::ArgAction::Set)]
        settle: bool,
    },
    /// Serves a file until its input ends, and says on request what it has read.
    Serve {
        /// The file.
        file: PathBuf,
    },
    /// Pulls on request until its input ends.
    Pull {
        /// From where, as JSON.
        addr: String,
        /// The space.
        space: SpaceId,
        /// Where it is kept; in memory if there is no file.
        file: Option<PathBuf>,
    },
}

/// A file was opened.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Opened {
    pub(super) millis: f64,
    pub(super) bytes_read: u64,
    pub(super) events: u64,
}

/// A server can be reached.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Ready {
    pub(super) addr: EndpointAddr,
    pub(super) bytes_read: u64,
}

/// A server has served.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Served {
    pub(super) bytes_read: u64,
}

/// A pull has ended.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct Pulled {
    pub(super) events: u64,
    pub(super) millis: f64,
    pub(super) wire_bytes: u64,
    pub(super) peak_kib: u64,
}

impl Role {
    /// Does it.
    ///
    /// # Errors
    ///
    /// If a store or a node fails.
    pub async fn play(self) -> Result<(), Error> {
        match self {
            Self::Fill {
                file,
                copy,
                events,
                authors,
                payload,
            } => fill(
                &file,
                &copy,
                Shape {
                    events,
                    authors,
                    payload,
                },
            ),
            Self::Open { file, space } => open(&file, &space),
            Self::Append { file, settle } => append(&file, settle),
            Self::Serve { file } => serve(&file).await,
            Self::Pull { addr, space, file } => {
                pull(serde_json::from_str(&addr)?, space, file).await
            }
        }
    }
}

fn fill(file: &Path, copy: &Path, shape: Shape) -> Result<(), Error> {
    let tail = Shape {
        events: shape.events / 100,
        ..shape
    };
    let before = Shape {
        events: shape.events - tail.events,
        ..shape
    };
    let store = DiskStore::create(file)?;
    let mut corpus = Corpus::fill(&store, before)?;
    drop(store);
    std::fs::copy(file, copy)?;
    let store = DiskStore::open(file)?;
    corpus.extend(&store, tail)?;
    drop(store);
    say(&corpus.space())
}

fn open(file: &Path, space: &SpaceId) -> Result<(), Error> {
    let before = bytes_read()?;
    let start = Instant::now();
    let store = DiskStore::open(file)?;
    let summary = store.summary(space)?.ok_or("the space is gone")?;
    let millis = start.elapsed().as_secs_f64() * 1e3;
    let opened = Opened {
        millis,
        bytes_read: bytes_read()? - before,
        events: summary.events,
    };
    drop(store);
    say(&opened)
}

fn append(file: &Path, settle: bool) -> Result<(), Error> {
    let store = DiskStore::open(file)?;
    // A space nobody has, whose number is that of this process.
    let mut nonce = [0; 16];
    nonce[..4].copy_from_slice(&std::process::id().to_be_bytes());
    let genesis: VerifiedRun = sign_genesis(&corpus::author(0), nonce, 1_700_000_000_000);
    for outcome in store.append(&[genesis])?.outcomes {
        outcome?;
    }
    if settle {
        store.settle()?;
    }
    say(&())?;
    hear::<()>()?;
    Err("this process was to be killed".into())
}

async fn serve(file: &Path) -> Result<(), Error> {
    let store = DiskStore::open(file)?;
    let server = Server::start_with(Arc::new(store), limits()).await?;
    say(&Ready {
        addr: server.addr.clone(),
        bytes_read: bytes_read()?,
    })?;
    while tokio::task::spawn_blocking(hear::<()>).await??.is_some() {
        say(&Served {
            bytes_read: bytes_read()?,
        })?;
    }
    server.stop().await
}

async fn pull(addr: EndpointAddr, space: SpaceId, file: Option<PathBuf>) -> Result<(), Error> {
    let store: Arc<dyn LogStore> = match file {
        Some(file) => Arc::new(DiskStore::open_or_create(file)?),
        None => Arc::new(MemoryStore::new()),
    };
    let puller = Puller::start_with(store, space, limits()).await?;
    say(&())?;
    while let Some(events) = tokio::task::spawn_blocking(hear::<u64>).await?? {
        let report = puller.pull(&addr, events).await?;
        say(&Pulled {
            events: report.events,
            millis: report.duration.as_secs_f64() * 1e3,
            wire_bytes: wire_bytes(&report),
            peak_kib: peak_kib()?,
        })?;
    }
    puller.stop().await;
    Ok(())
}
