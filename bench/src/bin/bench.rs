//! The harness: `bench all`, `bench sync`, `bench peers`, `bench page`. `just bench` calls it.

use std::{fs::OpenOptions, io::Write as _, path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand};
use headwater::{SpaceId, store::DiskStoreOptions};
use headwater_bench::{
    Error,
    corpus::Shape,
    machine, page,
    peers::{self, Peer},
    row::Row,
    table,
    works::{Kept, append, big, cold, flood, gossip, live, memory, open, pullers, resync},
};

/// Measures Headwater.
#[derive(Debug, Parser)]
struct Options {
    #[command(subcommand)]
    command: Command,
    /// Appends one JSON object a row to this file.
    #[arg(long, global = true, value_name = "FILE")]
    json_lines: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// A cold sync of one space beside a bare iroh stream.
    Sync {
        #[command(flatten)]
        size: Size,
        /// Also a sync of the same events that checks a signature an event.
        #[arg(long)]
        signatures: bool,
    },
    /// Every work that needs no peer, family by family.
    All {
        /// Only these families, by the first word of their name.
        #[arg(long, value_name = "FAMILY")]
        only: Vec<String>,
        /// A tenth of every size and two repetitions: to see that all of it works.
        #[arg(long)]
        small: bool,
    },
    /// Headwater beside its peers.
    Peers {
        #[command(flatten)]
        size: Size,
        /// The program of `bench/iroh-docs`.
        #[arg(long, value_name = "PROGRAM")]
        iroh_docs: Option<PathBuf>,
        /// The program of `bench/p2panda`.
        #[arg(long, value_name = "PROGRAM")]
        p2panda: Option<PathBuf>,
    },
    /// A node that is flooded while an honest peer syncs from it.
    Flood {
        /// Events in the space.
        #[arg(long, default_value_t = 100_000)]
        events: u64,
        /// Authors that wrote them, each the same number.
        #[arg(long, default_value_t = 100)]
        authors: u64,
        /// Only these, by name: `connections`, `clocks`, …, and `roster`.
        #[arg(long, value_name = "FLOOD")]
        only: Vec<String>,
        /// Connections, streams, clocks, frames or pulls after which a flood ends.
        #[arg(long, default_value_t = 10_000)]
        attempts: u64,
        /// Seconds after which it ends in any case.
        #[arg(long, default_value_t = 60)]
        seconds: u64,
        /// Lets node, honest peer and flooder share all cores. Otherwise the flooder has one of its
        /// own, and the two others share another.
        #[arg(long)]
        shared: bool,
    },
    /// Writes tables and plots into a page.
    Page {
        /// The page; plots go into a folder of its name.
        page: PathBuf,
    },
    #[command(hide = true)]
    ChildFill {
        path: PathBuf,
        events: u64,
        authors: u64,
        payload: usize,
    },
    #[command(hide = true)]
    ChildServe { path: PathBuf, cache_mib: usize },
    #[command(hide = true)]
    ChildPull {
        path: PathBuf,
        addr: String,
        space: SpaceId,
        events: u64,
        cache_mib: usize,
    },
    #[command(hide = true, subcommand)]
    ChildBig(big::Role),
    #[command(hide = true, subcommand)]
    ChildFlood(flood::Role),
}

#[derive(Debug, Args)]
struct Size {
    /// Events in the space.
    #[arg(long, default_value_t = 200_000)]
    events: u64,
    /// Authors that wrote them, each the same number.
    #[arg(long, default_value_t = 100)]
    authors: u64,
    /// Payload bytes of each event.
    #[arg(long, default_value_t = 200)]
    payload: usize,
    /// Repetitions of every subject.
    #[arg(long, default_value_t = 5)]
    reps: usize,
}

impl Size {
    fn shape(&self) -> Result<Shape, Error> {
        if self.events == 0 || self.authors == 0 || self.payload == 0 || self.reps == 0 {
            return Err("--events, --authors, --payload and --reps must be at least 1".into());
        }
        Ok(Shape {
            events: self.events,
            authors: self.authors,
            payload: self.payload,
        })
    }
}

/// Where rows go as soon as a work is done.
struct Sink(Option<PathBuf>);

impl Sink {
    fn take(&self, rows: Vec<Row>) -> Result<(), Error> {
        for family in table::families(&rows) {
            println!("{family}\n{}", table::of_family(family, &rows));
        }
        if let Some(path) = &self.0 {
            let mut file = OpenOptions::new().create(true).append(true).open(path)?;
            for row in &rows {
                writeln!(file, "{}", serde_json::to_string(row)?)?;
            }
        }
        Ok(())
    }
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    let options = Options::parse();
    let sink = Sink(options.json_lines.clone());
    match options.command {
        Command::Sync { size, signatures } => {
            println!("{}", machine::describe());
            sink.take(cold::measure(size.shape()?, size.reps, signatures).await?)
        }
        Command::All { only, small } => all(&sink, &only, small).await,
        Command::Peers {
            size,
            iroh_docs,
            p2panda,
        } => {
            println!("{}", machine::describe());
            let named = [
                ("iroh-docs, memory (entries only)", iroh_docs),
                ("p2panda, SQLite in memory + index", p2panda),
            ];
            let peers: Vec<Peer> = named
                .into_iter()
                .filter_map(|(name, program)| {
                    Some(Peer {
                        name,
                        program: program?,
                    })
                })
                .collect();
            sink.take(peers::measure(size.shape()?, size.reps, &peers).await?)
        }
        Command::Flood {
            events,
            authors,
            only,
            attempts,
            seconds,
            shared,
        } => {
            println!("{}", machine::describe());
            let shape = Shape {
                events,
                authors,
                payload: 200,
            };
            let lasting = Duration::from_secs(seconds);
            sink.take(flood::measure(shape, &only, attempts, lasting, shared).await?)
        }
        Command::Page { page } => {
            let rows = options.json_lines.ok_or("--json-lines says what to draw")?;
            page::fill(&page, &page::read(&rows)?)
        }
        Command::ChildFill {
            path,
            events,
            authors,
            payload,
        } => memory::fill(
            &path,
            Shape {
                events,
                authors,
                payload,
            },
        ),
        Command::ChildServe { path, cache_mib } => memory::serve(path, cache_mib).await,
        Command::ChildPull {
            path,
            addr,
            space,
            events,
            cache_mib,
        } => memory::pull(path, serde_json::from_str(&addr)?, space, events, cache_mib).await,
        Command::ChildBig(role) => role.play().await,
        Command::ChildFlood(role) => role.play().await,
    }
}

/// Every work at its full size takes about eight minutes on two cores.
async fn all(sink: &Sink, only: &[String], small: bool) -> Result<(), Error> {
    println!("{}", machine::describe());
    let wanted = |family: &str| {
        only.is_empty()
            || only
                .iter()
                .any(|word| family.split(' ').next() == Some(word))
    };
    let scale = if small { 10 } else { 1 };
    let reps = |full: usize| if small { 2 } else { full };
    let shape = |events: u64, authors: u64, payload: usize| Shape {
        events: events / scale,
        authors,
        payload,
    };

    if wanted(cold::FAMILY) {
        for events in [10_000, 100_000, 1_000_000] {
            for authors in [1, 100, 10_000] {
                // What a signature an event costs does not depend on the size of the space.
                let signatures = (events, authors) == (100_000, 100);
                let full = if events == 1_000_000 { 3 } else { 5 };
                let shape = shape(events, authors, 200);
                sink.take(cold::measure(shape, reps(full), signatures).await?)?;
            }
        }
        sink.take(cold::measure(shape(20_000, 100, 10 * 1024), reps(5), false).await?)?;
    }
    if wanted(resync::FAMILY) {
        for authors in [100, 10_000] {
            for kept in [Kept::Memory, Kept::Disk] {
                let shape = shape(1_000_000, authors, 200);
                sink.take(resync::measure(shape, reps(5), kept).await?)?;
            }
        }
    }
    if wanted(live::FAMILY) {
        for kept in [Kept::Memory, Kept::Disk] {
            sink.take(live::measure(1_000 / scale as usize, reps(5), kept).await?)?;
        }
    }
    if wanted(gossip::FAMILY) {
        for delay in gossip::DELAYS {
            sink.take(gossip::measure(200 / scale as usize, reps(5), delay).await?)?;
        }
    }
    if wanted(pullers::FAMILY) {
        let shape = shape(100_000, 100, 200);
        sink.take(pullers::measure(shape, &[1, 8, 64], reps(3)).await?)?;
    }
    if wanted(append::FAMILY) {
        for kept in [Kept::Memory, Kept::Disk] {
            sink.take(append::measure(2_000 / scale as usize, reps(3), kept).await?)?;
        }
    }
    if wanted(open::FAMILY) {
        sink.take(open::measure(shape(1_000_000, 100, 200), reps(5))?)?;
    }
    if wanted(memory::FAMILY) {
        let default = DiskStoreOptions::DEFAULT_CACHE_BYTES / (1024 * 1024);
        for (events, cache_mib) in [(1_000_000, default), (10_000_000, default), (10_000_000, 8)] {
            sink.take(memory::measure(shape(events, 100, 200), cache_mib)?)?;
        }
    }
    if wanted(big::FAMILY) {
        for authors in [100_000, 1_000_000] {
            for kept in [Kept::Memory, Kept::Disk] {
                // As many authors as events, also where both are a tenth.
                let events = authors / scale;
                let shape = Shape {
                    events,
                    authors: events,
                    payload: 200,
                };
                sink.take(big::authors(shape, reps(5), kept).await?)?;
            }
        }
        sink.take(big::store(shape(10_000_000, 100, 200), reps(3)).await?)?;
    }
    Ok(())
}
