//! Figures that do not depend on how fast the machine is, held against `budget.json`.
//!
//! Bytes, round trips and allocations are the same on a laptop and on a busy CI machine. A figure
//! above its budget fails the run; lower the budget when a change makes one better.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use clap::Parser;
use headwater::{
    DiskStore, LogStore, MemoryStore,
    proto::history::TailWant,
    wire::{FrameDecoder, Message, Run, SyncBatchV2},
};
use headwater_bench::{
    Error,
    corpus::{self, Corpus, Shape, grouped},
    nodes::{Puller, Server, disk_bytes, wire_bytes},
};

#[global_allocator]
static ALLOCATOR: dhat::Alloc = dhat::Alloc;

/// Holds figures that do not depend on the machine's speed against a budget.
#[derive(Debug, Parser)]
struct Options {
    /// The budget: a JSON object of the largest value each figure may have.
    #[arg(long, default_value = "budget.json")]
    budget: PathBuf,
    /// Writes what was measured as the new budget, with one percent of room.
    #[arg(long)]
    write: bool,
}

impl Options {
    /// The budget these figures would have.
    fn write(&self, figures: &Figures) -> Result<(), Error> {
        let mut text = String::from("{\n");
        for (place, (name, value)) in figures.iter().enumerate() {
            // Round trips and the bytes of a few frames are exact, the rest has room for a varint.
            let room = if value.fract() == 0.0 { 1.0 } else { 1.01 };
            let limit = (value * room * 100.0).ceil() / 100.0;
            let comma = if place + 1 < figures.len() { "," } else { "" };
            text.push_str(&format!(
                "  {}: {limit}{comma}\n",
                serde_json::to_string(name)?
            ));
        }
        text.push_str("}\n");
        Ok(std::fs::write(&self.budget, text)?)
    }
}

/// What was measured, by name.
type Figures = BTreeMap<String, f64>;

#[tokio::main]
async fn main() -> Result<(), Error> {
    let options = Options::parse();
    let mut figures = Figures::new();
    for authors in [1, 100, 10_000] {
        syncs(authors, &mut figures).await?;
    }
    file_bytes(&mut figures)?;
    allocations(&mut figures)?;
    if options.write {
        options.write(&figures)?;
    }
    let budget: Figures = serde_json::from_slice(&std::fs::read(&options.budget)?)?;

    let mut worse = 0;
    println!("{:<58} {:>12} {:>12}", "figure", "measured", "budget");
    for (name, value) in &figures {
        let limit = budget.get(name);
        let verdict = match limit {
            None => "no budget",
            Some(limit) if value > limit => "WORSE",
            Some(limit) if *value < limit * 0.95 => "better: lower the budget",
            Some(_) => "",
        };
        worse += u32::from(limit.is_none_or(|limit| value > limit));
        let limit = limit.map_or_else(|| "—".to_owned(), |limit| format!("{limit:.2}"));
        println!("{name:<58} {value:>12.2} {limit:>12} {verdict}");
    }
    let unmeasured = budget.keys().filter(|name| !figures.contains_key(*name));
    for name in unmeasured {
        println!("{name:<58} {:>12}", "not measured");
        worse += 1;
    }
    if worse > 0 {
        return Err(format!("{worse} figures are worse than the budget or without one").into());
    }
    Ok(())
}

fn by(authors: u64) -> String {
    let plural = if authors == 1 { "" } else { "s" };
    format!("{} author{plural}", grouped(authors))
}

/// Wire bytes and round trips of a cold sync, of 1 % more, and of nothing new.
async fn syncs(authors: u64, figures: &mut Figures) -> Result<(), Error> {
    let shape = Shape {
        events: 100_000,
        authors,
        payload: 200,
    };
    let store: Arc<dyn LogStore> = Arc::new(MemoryStore::new());
    let mut corpus = Corpus::fill(&*store, shape)?;
    let server = Server::start(Arc::clone(&store)).await?;
    let puller = Puller::start(Arc::new(MemoryStore::new()), corpus.space()).await?;
    let by = by(authors);

    // The genesis event besides those asked for.
    let cold = puller.pull(&server.addr, shape.events + 1).await?;
    let per_event = wire_bytes(&cold) as f64 / cold.events as f64;
    figures.insert(format!("cold sync, {by}: wire bytes an event"), per_event);
    figures.insert(
        format!("cold sync, {by}: round trips"),
        f64::from(cold.round_trips),
    );

    let delta = Shape {
        events: shape.events / 100,
        ..shape
    };
    corpus.extend(&*store, delta)?;
    let more = puller.pull(&server.addr, delta.events).await?;
    let per_event = wire_bytes(&more) as f64 / more.events as f64;
    figures.insert(format!("1 % more, {by}: wire bytes an event"), per_event);
    figures.insert(
        format!("1 % more, {by}: round trips"),
        f64::from(more.round_trips),
    );

    let equal = puller.pull(&server.addr, 0).await?;
    figures.insert(
        format!("nothing new, {by}: wire bytes"),
        wire_bytes(&equal) as f64,
    );
    figures.insert(
        format!("nothing new, {by}: round trips"),
        f64::from(equal.round_trips),
    );
    puller.stop().await;
    server.stop().await
}

/// Bytes a closed store's file takes on the disk for each event in it.
fn file_bytes(figures: &mut Figures) -> Result<(), Error> {
    let folder = tempfile::tempdir()?;
    for authors in [1, 100, 10_000] {
        let shape = Shape {
            events: 100_000,
            authors,
            payload: 200,
        };
        let path = folder.path().join(format!("{authors}.redb"));
        let store = DiskStore::create(&path)?;
        Corpus::fill(&store, shape)?;
        drop(store);
        let bytes = disk_bytes(&path)? as f64;
        figures.insert(
            format!("file bytes an event, {}", by(authors)),
            bytes / shape.events as f64,
        );
    }

    let path = folder.path().join("one-by-one.redb");
    let store = DiskStore::create(&path)?;
    let shape = Shape {
        events: 5_000,
        authors: 1,
        payload: 200,
    };
    let mut corpus = Corpus::found(&store, shape)?;
    for _ in 0..shape.events {
        for outcome in store.append(&corpus.sign(0, 1)?)?.outcomes {
            outcome?;
        }
    }
    drop(store);
    figures.insert(
        "file bytes an event, appended one by one".to_owned(),
        disk_bytes(&path)? as f64 / shape.events as f64,
    );
    Ok(())
}

/// About what a packet carries of a stream.
const PIECE_BYTES: usize = 1200;

/// Allocations from the bytes of a frame to the event in a memory store: decoding, verifying and
/// appending, batch by batch, without the network.
fn allocations(figures: &mut Figures) -> Result<(), Error> {
    for authors in [1, 100, 10_000] {
        let shape = Shape {
            events: 100_000,
            authors,
            payload: 200,
        };
        let (space, frames) = frames(shape)?;
        let store = MemoryStore::new();
        let mut decoder = FrameDecoder::new();
        let mut events = 0;

        let profiler = dhat::Profiler::builder().testing().build();
        // In pieces of a packet, as a stream delivers them.
        for mut piece in frames.iter().flat_map(|frame| frame.chunks(PIECE_BYTES)) {
            while let Some(body) = decoder.read(&mut piece)? {
                let Some(Message::SyncBatchV2(batch)) = Message::decode_body(body)? else {
                    return Err("not a batch".into());
                };
                let mut verified = Vec::with_capacity(batch.runs.len());
                for run in batch.runs {
                    verified.push(Run::decode(run)?.verify(&space)?);
                }
                for outcome in store.append(&verified)?.outcomes {
                    events += outcome?.events;
                }
            }
        }
        let stats = dhat::HeapStats::get();
        drop(profiler);

        if events != shape.events + 1 {
            return Err(format!("received {events} events").into());
        }
        let by = by(authors);
        figures.insert(
            format!("allocations of 1,000 events on receive, {by}"),
            stats.total_blocks as f64 * 1e3 / events as f64,
        );
        figures.insert(
            format!("allocated bytes an event on receive, {by}"),
            stats.total_bytes as f64 / events as f64,
        );
    }
    Ok(())
}

/// All of a space as the batches of one sync, the owner's log first.
fn frames(shape: Shape) -> Result<(headwater::SpaceId, Vec<Vec<u8>>), Error> {
    let store = MemoryStore::new();
    let space = Corpus::fill(&store, shape)?.space();
    let owner = corpus::author(0).id();
    let mut heads = store.heads(&space, None, usize::MAX)?.heads;
    heads.sort_by_key(|head| (head.entry.author != owner, head.entry.author));
    let mut wants: Vec<TailWant> = heads
        .iter()
        .map(|head| TailWant {
            author: head.entry.author,
            above: 0,
            through: head.entry.head.seq,
        })
        .collect();
    let mut frames = Vec::new();
    while !wants.is_empty() {
        let runs = store.read_runs(&space, &wants, headwater::wire::limits::TARGET_BATCH_BYTES)?;
        let Some(last) = runs.last() else {
            return Err("the store served nothing".into());
        };
        let done = wants
            .iter()
            .position(|want| want.author == last.author)
            .ok_or("a run of an author not asked for")?;
        wants.drain(..done);
        if let Some(first) = wants.first_mut() {
            first.above = last.last_seq;
            if first.above >= first.through {
                wants.remove(0);
            }
        }
        let batch = Message::SyncBatchV2(SyncBatchV2 {
            request_id: 1,
            more: !wants.is_empty(),
            runs: runs.into_iter().map(|run| run.bytes).collect(),
        });
        let mut frame = Vec::new();
        for chunk in batch.encode_frame()? {
            frame.extend_from_slice(&chunk);
        }
        frames.push(frame);
    }
    Ok((space, frames))
}
