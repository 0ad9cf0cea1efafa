//! Medians with their range, as a table and as JSON.

use serde_json::{Value, json};

use crate::{Options, sample::Sample};

/// The median of a measure and the range it was seen in.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Spread {
    median: f64,
    least: f64,
    most: f64,
}

impl Spread {
    /// `None` without a value.
    fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut sorted: Vec<f64> = values.into_iter().collect();
        sorted.sort_by(f64::total_cmp);
        let middle = sorted.len() / 2;
        let median = if sorted.len() % 2 == 1 {
            *sorted.get(middle)?
        } else {
            (sorted.get(middle.checked_sub(1)?)? + sorted.get(middle)?) / 2.0
        };
        Some(Self {
            median,
            least: *sorted.first()?,
            most: *sorted.last()?,
        })
    }

    fn to_json(self) -> Value {
        json!({ "median": self.median, "least": self.least, "most": self.most })
    }
}

/// One subject of the comparison.
#[derive(Debug)]
pub(crate) struct Row {
    subject: &'static str,
    events_per_second: Option<Spread>,
    payload_rate: Option<Spread>,
    ratio_to_bare: Option<Spread>,
    cpu_seconds_per_gib: Option<Spread>,
    cpu_ratio_to_bare: Option<Spread>,
    wire_bytes_per_event: Option<f64>,
    file_bytes_per_event: Option<f64>,
}

impl Row {
    /// `bare` holds the bare stream's sample of the same round at each place: ratios are taken
    /// round by round, so that a slow moment of the machine counts on both sides.
    pub(crate) fn new(subject: &'static str, samples: &[Sample], bare: &[Sample]) -> Self {
        let pairs = || samples.iter().zip(bare);
        let events = samples.first().map_or(0, |sample| sample.events);
        let per_event = |bytes: Option<u64>| match (bytes, events) {
            (Some(bytes), 1..) => Some(bytes as f64 / events as f64),
            _ => None,
        };
        Self {
            subject,
            events_per_second: if events == 0 {
                None
            } else {
                Spread::of(samples.iter().map(Sample::events_per_second))
            },
            payload_rate: Spread::of(samples.iter().map(Sample::payload_rate)),
            ratio_to_bare: Spread::of(pairs().map(|(a, b)| a.payload_rate() / b.payload_rate())),
            cpu_seconds_per_gib: Spread::of(samples.iter().map(Sample::cpu_seconds_per_gib)),
            cpu_ratio_to_bare: Spread::of(
                pairs().map(|(a, b)| a.cpu_seconds_per_gib() / b.cpu_seconds_per_gib()),
            ),
            wire_bytes_per_event: per_event(samples.first().map(|sample| sample.wire_bytes)),
            file_bytes_per_event: per_event(samples.first().and_then(|sample| sample.file_bytes)),
        }
    }

    pub(crate) fn to_json(&self, options: &Options) -> Value {
        json!({
            "subject": self.subject,
            "events": options.events,
            "authors": options.authors,
            "payload": options.payload,
            "reps": options.reps,
            "events_per_second": self.events_per_second.map(Spread::to_json),
            "payload_mib_per_second": self.payload_rate.map(Spread::to_json),
            "ratio_to_bare": self.ratio_to_bare.map(Spread::to_json),
            "cpu_seconds_per_gib": self.cpu_seconds_per_gib.map(Spread::to_json),
            "cpu_ratio_to_bare": self.cpu_ratio_to_bare.map(Spread::to_json),
            "wire_bytes_per_event": self.wire_bytes_per_event,
            "file_bytes_per_event": self.file_bytes_per_event,
        })
    }
}

/// Prints one line a row: `median [least–most]`.
pub(crate) fn print_table(rows: &[Row]) {
    println!(
        "{:<22} {:>26} {:>20} {:>18} {:>18} {:>10} {:>10}",
        "", "k events/s", "payload MiB/s", "rate ÷ bare", "CPU s/GiB", "wire B/ev", "file B/ev"
    );
    for row in rows {
        println!(
            "{:<22} {:>26} {:>20} {:>18} {:>18} {:>10} {:>10}",
            row.subject,
            spread(row.events_per_second, 1e-3, 0),
            spread(row.payload_rate, 1.0, 0),
            spread(row.ratio_to_bare, 1.0, 2),
            spread(row.cpu_seconds_per_gib, 1.0, 1),
            number(row.wire_bytes_per_event),
            number(row.file_bytes_per_event),
        );
    }
}

fn spread(value: Option<Spread>, scale: f64, digits: usize) -> String {
    value.map_or_else(
        || "—".to_owned(),
        |spread| {
            format!(
                "{:.digits$} [{:.digits$}–{:.digits$}]",
                spread.median * scale,
                spread.least * scale,
                spread.most * scale,
            )
        },
    )
}

fn number(value: Option<f64>) -> String {
    value.map_or_else(|| "—".to_owned(), |number| format!("{number:.1}"))
}
