//! One line of a table: a subject, doing a work, and its figures.

use serde::{Deserialize, Serialize};

use crate::sample::{Sample, Spread};

/// What was measured of one subject.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Row {
    /// Which table it belongs to.
    pub family: String,
    /// What was done.
    pub work: String,
    /// Who did it.
    pub subject: String,
    /// Repetitions.
    pub reps: usize,
    /// The day, as `2026-01-31`.
    pub date: String,
    /// In the order of the table's columns.
    pub figures: Vec<Figure>,
}

/// A named figure with its spread.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Figure {
    /// With its unit.
    pub name: String,
    /// Digits after the point that are worth printing.
    pub digits: usize,
    /// Over the repetitions.
    #[serde(flatten)]
    pub spread: Spread,
}

impl Row {
    /// A row without figures yet.
    #[must_use]
    pub fn new(
        family: &str,
        work: impl Into<String>,
        subject: impl Into<String>,
        reps: usize,
    ) -> Self {
        Self {
            family: family.to_owned(),
            work: work.into(),
            subject: subject.into(),
            reps,
            date: crate::machine::today(),
            figures: Vec::new(),
        }
    }

    /// Adds a figure, unless there are no values.
    #[must_use]
    pub fn figure(
        mut self,
        name: &str,
        digits: usize,
        values: impl IntoIterator<Item = f64>,
    ) -> Self {
        if let Some(spread) = Spread::of(values) {
            self.figures.push(Figure {
                name: name.to_owned(),
                digits,
                spread,
            });
        }
        self
    }

    /// The figure of this name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Figure> {
        self.figures.iter().find(|figure| figure.name == name)
    }

    /// The figures of a transfer. `bare` holds the bare stream's sample of the same round at each
    /// place: ratios are taken round by round, so that a slow moment counts on both sides.
    #[must_use]
    pub fn transfer(self, samples: &[Sample], bare: &[Sample]) -> Self {
        let per_event = |bytes: fn(&Sample) -> Option<u64>| {
            samples
                .iter()
                .filter(|sample| sample.events > 0)
                .filter_map(move |sample| Some(bytes(sample)? as f64 / sample.events as f64))
                .collect::<Vec<_>>()
        };
        let pairs = || samples.iter().zip(bare);
        let events = samples.iter().filter(|sample| sample.events > 0);
        self.figure(K_EVENTS, 1, events.map(|s| s.events_per_second() / 1e3))
            .figure(PAYLOAD_RATE, 1, samples.iter().map(Sample::payload_rate))
            .figure(
                RATE_TO_BARE,
                2,
                pairs().map(|(a, b)| a.payload_rate() / b.payload_rate()),
            )
            .figure(
                CPU_TO_BARE,
                2,
                pairs().map(|(a, b)| a.cpu_seconds_per_gib() / b.cpu_seconds_per_gib()),
            )
            .figure(WIRE_BYTES, 1, per_event(|sample| sample.wire_bytes))
            .figure(FILE_BYTES, 1, per_event(|sample| sample.file_bytes))
    }
}

/// Events a second, in thousands.
pub const K_EVENTS: &str = "k events/s";
/// Payload a second.
pub const PAYLOAD_RATE: &str = "payload MiB/s";
/// Payload rate as a share of the bare stream's.
pub const RATE_TO_BARE: &str = "rate ÷ bare";
/// CPU time a payload byte, in multiples of the bare stream's.
pub const CPU_TO_BARE: &str = "CPU ÷ bare";
/// Stream bytes an event, both directions.
pub const WIRE_BYTES: &str = "wire B/event";
/// Bytes the file takes on the disk, an event, after closing.
pub const FILE_BYTES: &str = "file B/event";
