//! A cold sync of one space beside a bare stream that moves as many payload bytes.

use std::sync::Arc;

use headwater::{LogStore, MemoryStore, SpaceId};
use iroh::EndpointAddr;

use super::Kept;
use crate::{
    Error, bare,
    corpus::{Corpus, Shape},
    nodes::{Puller, Server, folder_bytes, wire_bytes},
    row::Row,
    sample::{Meter, Sample},
    singles::SingleRuns,
};

/// The name of the family.
pub const FAMILY: &str = "cold sync";

/// The bare stream, a memory store and a disk store, and, where asked for, a sync that checks a
/// signature an event.
///
/// # Errors
///
/// If a sync fails or brings too little.
pub async fn measure(shape: Shape, reps: usize, singles: bool) -> Result<Vec<Row>, Error> {
    let (server, space) = serve(shape).await?;
    let baseline = if singles {
        let (store, space) = SingleRuns::fill(shape)?;
        Some((Server::start(Arc::new(store)).await?, space))
    } else {
        None
    };

    let mut rounds: [Vec<Sample>; 4] = Default::default();
    // The first round warms caches and the allocator and is not counted.
    for round in 0..=reps {
        let mut samples = vec![
            bare::measure(shape.payload_bytes()).await?,
            pull(&server.addr, space, shape, Kept::Memory).await?,
            pull(&server.addr, space, shape, Kept::Disk).await?,
        ];
        if let Some((server, space)) = &baseline {
            samples.push(pull(&server.addr, *space, shape, Kept::Memory).await?);
        }
        if round > 0 {
            for (subject, sample) in rounds.iter_mut().zip(samples) {
                subject.push(sample);
            }
        }
    }
    server.stop().await?;
    if let Some((server, _)) = baseline {
        server.stop().await?;
    }

    let [bare, memory, disk, single] = &rounds;
    let row = |subject: &str, samples: &[Sample]| {
        Row::new(FAMILY, shape.to_string(), subject, reps).transfer(samples, bare)
    };
    let mut rows = vec![
        row("bare iroh stream", bare),
        row("Headwater, memory", memory),
        row("Headwater, disk", disk),
    ];
    if singles {
        let gain = memory
            .iter()
            .zip(single)
            .map(|(runs, single)| runs.events_per_second() / single.events_per_second());
        rows.push(row("a signature an event, memory", single).figure("runs ÷ this", 1, gain));
    }
    Ok(rows)
}

/// A node that holds such a space in memory.
pub(crate) async fn serve(shape: Shape) -> Result<(Server, SpaceId), Error> {
    let store: Arc<dyn LogStore> = Arc::new(MemoryStore::new());
    let space = Corpus::fill(&*store, shape)?.space();
    Ok((Server::start(store).await?, space))
}

/// Pulls all of it into a new store.
pub(crate) async fn pull(
    server: &EndpointAddr,
    space: SpaceId,
    shape: Shape,
    kept: Kept,
) -> Result<Sample, Error> {
    let folder = tempfile::tempdir()?;
    let puller = Puller::start(kept.store(folder.path())?, space).await?;
    let meter = Meter::start();
    // The genesis event besides those asked for.
    let report = puller.pull(server, shape.events + 1).await?;
    let (wall, cpu) = meter.stop();
    puller.stop().await;
    let file_bytes = match kept {
        Kept::Memory => None,
        Kept::Disk => Some(folder_bytes(folder.path())?),
    };
    Ok(Sample {
        events: report.events,
        payload_bytes: shape.payload_bytes(),
        wall,
        cpu,
        wire_bytes: Some(wire_bytes(&report)),
        file_bytes,
    })
}
