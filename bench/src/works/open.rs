//! Opening a store that was closed properly, until it can say what it holds.

use std::time::Instant;

use headwater::{DiskStore, LogStore as _};

use crate::{
    Error,
    corpus::{Corpus, Shape},
    nodes::disk_bytes,
    row::Row,
};

/// The name of the family.
pub const FAMILY: &str = "open";

/// The file lies in the page cache: what is measured is the store, not the disk.
///
/// # Errors
///
/// If the store fails.
pub fn measure(shape: Shape, reps: usize) -> Result<Vec<Row>, Error> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("logs.redb");
    let store = DiskStore::create(&path)?;
    let space = Corpus::fill(&store, shape)?.space();
    drop(store);
    let bytes = disk_bytes(&path)? as f64;

    let mut millis = Vec::with_capacity(reps);
    for round in 0..=reps {
        let start = Instant::now();
        let store = DiskStore::open(&path)?;
        let summary = store.summary(&space)?.ok_or("the space is gone")?;
        let took = start.elapsed().as_secs_f64() * 1e3;
        if summary.events != shape.events + 1 {
            return Err(format!("{} events are left", summary.events).into());
        }
        drop(store);
        if round > 0 {
            millis.push(took);
        }
    }
    Ok(vec![
        Row::new(FAMILY, shape.to_string(), "Headwater, disk", reps)
            .figure("ms", 2, millis)
            .figure("file B/event", 1, [bytes / shape.events as f64]),
    ])
}
