//! Many pullers at once from one responder, each with an endpoint and a memory store of its own.
//!
//! All of them live in this process: what one puller leaves idle of two cores is little, so the
//! rates show fairness and what many sessions cost, not how far one responder scales.

use std::{sync::Arc, time::Instant};

use headwater::MemoryStore;

use super::cold::serve;
use crate::{Error, corpus::Shape, nodes::Puller, row::Row, sample::MIB};

/// The name of the family.
pub const FAMILY: &str = "pullers at once";

/// One row for each number of pullers; the first is what the others are compared with.
///
/// # Errors
///
/// If a sync fails or brings too little.
pub async fn measure(shape: Shape, counts: &[usize], reps: usize) -> Result<Vec<Row>, Error> {
    let (server, space) = serve(shape).await?;
    let payload = shape.payload_bytes() as f64 / MIB;
    let mut rounds: Vec<Vec<Round>> = vec![Vec::new(); counts.len()];
    for round in 0..=reps {
        for (count, rounds) in counts.iter().zip(&mut rounds) {
            let mut pullers = Vec::with_capacity(*count);
            for _ in 0..*count {
                pullers.push(Puller::start(Arc::new(MemoryStore::new()), space).await?);
            }
            let start = Instant::now();
            let mut pulls = tokio::task::JoinSet::new();
            for puller in pullers {
                let addr = server.addr.clone();
                pulls.spawn(async move {
                    puller.pull(&addr, shape.events + 1).await?;
                    Ok::<_, Error>((start.elapsed().as_secs_f64(), puller))
                });
            }
            let mut seconds = Vec::with_capacity(*count);
            let mut pullers = Vec::with_capacity(*count);
            while let Some(pulled) = pulls.join_next().await {
                let (took, puller) = pulled??;
                seconds.push(took);
                pullers.push(puller);
            }
            for puller in pullers {
                puller.stop().await;
            }
            let slowest = seconds.iter().copied().fold(0.0, f64::max);
            let mean = seconds.iter().map(|took| payload / took).sum::<f64>() / *count as f64;
            if round > 0 {
                rounds.push(Round {
                    together: *count as f64 * payload / slowest,
                    slowest_to_mean: payload / slowest / mean,
                });
            }
        }
    }
    server.stop().await?;
    let one = rounds.first().cloned().unwrap_or_default();
    Ok(counts
        .iter()
        .zip(&rounds)
        .map(|(count, rounds)| {
            let ratio = rounds
                .iter()
                .zip(&one)
                .map(|(a, b)| a.together / b.together);
            let work = format!("{shape}, each");
            Row::new(FAMILY, work, format!("{count} at once, memory"), reps)
                .figure(
                    "MiB/s until the last is done",
                    1,
                    rounds.iter().map(|round| round.together),
                )
                .figure("÷ one puller", 2, ratio)
                .figure(
                    "slowest ÷ mean",
                    2,
                    rounds.iter().map(|round| round.slowest_to_mean),
                )
        })
        .collect())
}

#[derive(Debug, Clone, Copy)]
struct Round {
    together: f64,
    slowest_to_mean: f64,
}
