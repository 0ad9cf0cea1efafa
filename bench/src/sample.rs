//! One measured transfer: wall time, CPU time of the whole process, and what was moved.

use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

/// Bytes in a mebibyte.
pub(crate) const MIB: f64 = 1024.0 * 1024.0;

/// One transfer as it was measured.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Sample {
    pub(crate) events: u64,
    pub(crate) payload_bytes: u64,
    pub(crate) wall: Duration,
    pub(crate) cpu: Duration,
    /// Stream bytes in both directions.
    pub(crate) wire_bytes: u64,
    /// Bytes of the puller's files afterwards; `None` where nothing is stored on disk.
    pub(crate) file_bytes: Option<u64>,
}

impl Sample {
    pub(crate) fn events_per_second(&self) -> f64 {
        self.events as f64 / self.wall.as_secs_f64()
    }

    pub(crate) fn payload_rate(&self) -> f64 {
        self.payload_bytes as f64 / MIB / self.wall.as_secs_f64()
    }

    pub(crate) fn cpu_seconds_per_gib(&self) -> f64 {
        self.cpu.as_secs_f64() / (self.payload_bytes as f64 / MIB / 1024.0)
    }
}

/// Runs between [`Meter::start`] and [`Meter::stop`].
#[derive(Debug)]
pub(crate) struct Meter {
    wall: Instant,
    cpu: Duration,
}

impl Meter {
    pub(crate) fn start() -> Self {
        Self {
            cpu: process_cpu(),
            wall: Instant::now(),
        }
    }

    /// The wall and CPU time since the start.
    pub(crate) fn stop(&self) -> (Duration, Duration) {
        (self.wall.elapsed(), process_cpu() - self.cpu)
    }
}

/// User and system time of all threads of this process, also of those that ended.
fn process_cpu() -> Duration {
    let now = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(
        now.tv_sec.unsigned_abs(),
        u32::try_from(now.tv_nsec).unwrap_or_default(),
    )
}
