//! Appends through a node, each durable when it returns.

use std::{sync::Arc, time::Instant};

use headwater::{Headwater, LogStore, Open};

use super::Kept;
use crate::{
    Error, corpus,
    row::Row,
    sample::{Percentiles, millis},
};

/// The name of the family.
pub const FAMILY: &str = "append";

const PAYLOAD: usize = 200;

/// One by one, by eight authors at once, and in batches.
///
/// # Errors
///
/// If an append fails.
pub async fn measure(appends: usize, reps: usize, kept: Kept) -> Result<Vec<Row>, Error> {
    let mut rows = Vec::new();
    for (writers, batch) in [(1, 1), (8, 1), (1, 100), (1, 1_000)] {
        let mut rates = Vec::new();
        let mut calls = Percentiles::default();
        for _ in 0..reps {
            let folder = tempfile::tempdir()?;
            let store: Arc<dyn LogStore> = kept.store(folder.path())?;
            let node = Headwater::builder().policy(Open).shared_store(store).open();
            let space = node.create_space(&corpus::author(0)).await?;
            let each = (appends / writers / if batch > 1 { 10 } else { 1 }).max(1);
            let start = Instant::now();
            let mut tasks = tokio::task::JoinSet::new();
            for writer in 0..writers {
                let space = space.clone();
                tasks.spawn(async move {
                    let author = corpus::author(writer as u64);
                    let mut took = Vec::with_capacity(each);
                    for turn in 0..each {
                        let first = ((writer * each + turn) * batch) as u64;
                        let drafts = (first..first + batch as u64)
                            .map(|serial| corpus::draft(serial, PAYLOAD))
                            .collect();
                        let start = Instant::now();
                        space.append_batch(&author, drafts).await?;
                        took.push(millis(start.elapsed()));
                    }
                    Ok::<_, Error>(took)
                });
            }
            let mut took = Vec::new();
            while let Some(writer) = tasks.join_next().await {
                took.extend(writer??);
            }
            rates.push((took.len() * batch) as f64 / start.elapsed().as_secs_f64() / 1e3);
            calls.take(&mut took);
            node.shutdown().await;
        }
        let work = match (writers, batch) {
            (1, 1) => "one by one".to_owned(),
            (writers, 1) => format!("one by one, {writers} authors at once"),
            (_, batch) => format!("batches of {}", corpus::grouped(batch as u64)),
        };
        rows.push(
            Row::new(FAMILY, work, format!("Headwater, {}", kept.name()), reps)
                .figure("k events/s", 2, rates)
                .figure("p50 ms a call", 3, calls.p50)
                .figure("p99 ms a call", 3, calls.p99),
        );
    }
    Ok(rows)
}
