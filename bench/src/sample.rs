//! Wall and CPU time, memory of this process, and the spread of repeated values.

use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

use crate::Error;

/// Bytes in a mebibyte.
pub const MIB: f64 = 1024.0 * 1024.0;

/// One transfer as it was measured.
#[derive(Debug, Clone, Copy, Default)]
pub struct Sample {
    /// Events moved.
    pub events: u64,
    /// Payload bytes moved.
    pub payload_bytes: u64,
    /// From before the dial to the end.
    pub wall: Duration,
    /// Of all threads of the process, both sides.
    pub cpu: Duration,
    /// Stream bytes in both directions; `None` where they were not counted.
    pub wire_bytes: Option<u64>,
    /// Bytes the puller's files take on the disk after they were closed.
    pub file_bytes: Option<u64>,
}

impl Sample {
    /// Events a second.
    #[must_use]
    pub fn events_per_second(&self) -> f64 {
        self.events as f64 / self.wall.as_secs_f64()
    }

    /// Payload in MiB a second.
    #[must_use]
    pub fn payload_rate(&self) -> f64 {
        self.payload_bytes as f64 / MIB / self.wall.as_secs_f64()
    }

    /// CPU seconds for a GiB of payload.
    #[must_use]
    pub fn cpu_seconds_per_gib(&self) -> f64 {
        self.cpu.as_secs_f64() / (self.payload_bytes as f64 / MIB / 1024.0)
    }
}

/// Runs between [`Meter::start`] and [`Meter::stop`].
#[derive(Debug)]
pub struct Meter {
    wall: Instant,
    cpu: Duration,
}

impl Meter {
    /// Starts now.
    #[must_use]
    pub fn start() -> Self {
        Self {
            cpu: process_cpu(),
            wall: Instant::now(),
        }
    }

    /// The wall and CPU time since the start.
    #[must_use]
    pub fn stop(&self) -> (Duration, Duration) {
        (self.wall.elapsed(), process_cpu() - self.cpu)
    }
}

/// User and system time of all threads of this process, also of those that ended.
#[must_use]
pub fn process_cpu() -> Duration {
    let now = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(
        now.tv_sec.unsigned_abs(),
        u32::try_from(now.tv_nsec).unwrap_or_default(),
    )
}

/// The median of a measure and the range it was seen in.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Spread {
    /// The middle value.
    pub median: f64,
    /// The smallest.
    pub least: f64,
    /// The largest.
    pub most: f64,
}

impl Spread {
    /// `None` without a value.
    #[must_use]
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
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
}

/// The value below which this share of all values lies; 0 without any.
fn percentile(values: &mut [f64], share: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let place = (values.len() as f64 * share) as usize;
    values
        .get(place.min(values.len().saturating_sub(1)))
        .copied()
        .unwrap_or_default()
}

/// Medians and tails of the latencies of each repetition, in the unit they are given in.
#[derive(Debug, Default)]
pub struct Percentiles {
    /// The median of each repetition.
    pub p50: Vec<f64>,
    /// The value that one in a hundred lies above, of each repetition.
    pub p99: Vec<f64>,
}

impl Percentiles {
    /// Adds a repetition.
    pub fn take(&mut self, values: &mut [f64]) {
        self.p50.push(percentile(values, 0.5));
        self.p99.push(percentile(values, 0.99));
    }
}

/// A duration in milliseconds.
#[must_use]
pub fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

/// Memory this process has now, in KiB.
///
/// # Errors
///
/// If the kernel does not say.
pub fn resident_kib() -> Result<u64, Error> {
    kernel_count("status", "VmRSS")
}

/// The most memory this process ever had, in KiB.
///
/// # Errors
///
/// If the kernel does not say.
pub fn peak_kib() -> Result<u64, Error> {
    kernel_count("status", "VmHWM")
}

/// Bytes this process has read from files, whether or not they lay in the page cache. What comes
/// from the network is not among them.
///
/// # Errors
///
/// If the kernel does not say.
pub fn bytes_read() -> Result<u64, Error> {
    kernel_count("io", "rchar")
}

/// A number of this process in a file of `/proc/self`.
fn kernel_count(file: &str, field: &str) -> Result<u64, Error> {
    let text = std::fs::read_to_string(format!("/proc/self/{file}"))?;
    let line = text.lines().find(|line| line.starts_with(field));
    let count = line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok());
    Ok(count.ok_or_else(|| format!("/proc/self/{file} has no {field}"))?)
}
