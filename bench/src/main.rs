//! Headwater beside a bare iroh stream that moves as many payload bytes, in one run.
//!
//! Every repetition measures every subject once, one after the other, so that noise on the machine
//! meets all of them; what is printed are medians over the repetitions, with the range. Both
//! endpoints live in this process on loopback: CPU time is that of both sides together.

use std::{fs::OpenOptions, io::Write as _, path::PathBuf};

use clap::Parser;

mod bare;
mod pull;
mod report;
mod sample;

use pull::{PullerStore, Source};
use report::Row;
use sample::Sample;

/// Measures a cold sync of one space beside a bare iroh stream.
#[derive(Debug, Clone, Parser)]
struct Options {
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
    /// Appends one JSON object a subject to this file.
    #[arg(long, value_name = "FILE")]
    json_lines: Option<PathBuf>,
}

impl Options {
    fn payload_bytes(&self) -> u64 {
        self.events * self.payload as u64
    }
}

type Error = Box<dyn std::error::Error + Send + Sync>;

#[tokio::main]
async fn main() -> Result<(), Error> {
    let options = Options::parse();
    if options.events == 0 || options.authors == 0 || options.payload == 0 || options.reps == 0 {
        return Err("--events, --authors, --payload and --reps must be at least 1".into());
    }
    println!(
        "{} events of {} bytes by {} authors: {:.1} MiB of payload; {} repetitions",
        options.events,
        options.payload,
        options.authors,
        options.payload_bytes() as f64 / sample::MIB,
        options.reps,
    );

    let source = Source::fill(&options).await?;
    let mut bare: Vec<Sample> = Vec::with_capacity(options.reps);
    let mut memory = bare.clone();
    let mut disk = bare.clone();
    // The first round warms caches and the allocator and is not counted.
    for round in 0..=options.reps {
        let samples = [
            bare::measure(options.payload_bytes()).await?,
            source.measure(PullerStore::Memory, options.payload).await?,
            source.measure(PullerStore::Disk, options.payload).await?,
        ];
        if round > 0 {
            bare.push(samples[0]);
            memory.push(samples[1]);
            disk.push(samples[2]);
        }
    }
    source.shutdown().await?;

    let rows = [
        Row::new("bare iroh stream", &bare, &bare),
        Row::new("memory stores", &memory, &bare),
        Row::new("disk store, puller", &disk, &bare),
    ];
    report::print_table(&rows);
    if let Some(path) = &options.json_lines {
        let mut file = OpenOptions::new().create(true).append(true).open(path)?;
        for row in &rows {
            writeln!(file, "{}", row.to_json(&options))?;
        }
    }
    Ok(())
}
