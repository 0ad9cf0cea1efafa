//! A puller that comes back: with 1 % to fetch, and with nothing.

use std::sync::Arc;

use headwater::{LogStore, MemoryStore, SyncReport};

use super::Kept;
use crate::{
    Error,
    corpus::{Corpus, Shape},
    nodes::{Puller, Server, wire_bytes},
    row::Row,
};

/// The name of the family.
pub const FAMILY: &str = "coming back";

/// Pulls all, then again and again: 1 % more, nothing more.
///
/// Times are from the request to the end of the history, on a connection that is open.
///
/// # Errors
///
/// If a sync fails or brings too little.
pub async fn measure(shape: Shape, reps: usize, kept: Kept) -> Result<Vec<Row>, Error> {
    let store: Arc<dyn LogStore> = Arc::new(MemoryStore::new());
    let mut corpus = Corpus::fill(&*store, shape)?;
    let server = Server::start(Arc::clone(&store)).await?;
    let folder = tempfile::tempdir()?;
    let puller = Puller::start(kept.store(folder.path())?, corpus.space()).await?;
    puller.pull(&server.addr, shape.events + 1).await?;

    let more = Shape {
        events: (shape.events / 100).max(1),
        ..shape
    };
    let mut delta = Vec::new();
    let mut equal = Vec::new();
    // The first round is not counted.
    for round in 0..=reps {
        corpus.extend(&*store, more)?;
        let brought = puller.pull(&server.addr, more.events).await?;
        let nothing = puller.pull(&server.addr, 0).await?;
        if round > 0 {
            delta.push(brought);
            equal.push(nothing);
        }
    }
    puller.stop().await;
    server.stop().await?;

    let row = |what: &str, reports: &[SyncReport]| {
        let subject = format!("Headwater, {}", kept.name());
        Row::new(FAMILY, format!("{shape}: {what}"), subject, reps)
            .figure(
                "ms",
                2,
                reports
                    .iter()
                    .map(|report| report.duration.as_secs_f64() * 1e3),
            )
            .figure(
                "round trips",
                0,
                reports.iter().map(|report| f64::from(report.round_trips)),
            )
            .figure(
                "wire bytes",
                0,
                reports.iter().map(|report| wire_bytes(report) as f64),
            )
    };
    Ok(vec![row("1 % more", &delta), row("nothing new", &equal)])
}
