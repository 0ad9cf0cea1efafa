//! A cold Headwater sync of one space between two nodes on loopback, dialing included.

use std::{fs, path::Path};

use headwater::{
    ALPN, AuthorSecret, DiskStore, EventDraft, Headwater, LogStore, MemoryStore, SpaceId,
    SyncOutcome,
};
use iroh::{EndpointAddr, protocol::Router};

use crate::{
    Error, Options,
    bare::loopback_endpoint,
    sample::{Meter, Sample},
};

/// Where the puller keeps what it receives.
#[derive(Debug, Clone, Copy)]
pub(crate) enum PullerStore {
    Memory,
    /// A new file in a temporary folder, every commit flushed to it.
    Disk,
}

/// A node that holds the space, in memory.
#[derive(Debug)]
pub(crate) struct Source {
    router: Router,
    addr: EndpointAddr,
    space: SpaceId,
    events: u64,
}

impl Source {
    /// Writes the space that every repetition pulls.
    pub(crate) async fn fill(options: &Options) -> Result<Self, Error> {
        let endpoint = loopback_endpoint(vec![]).await?;
        let node = Headwater::builder()
            .store(MemoryStore::new())
            .spawn(endpoint.clone());
        let owner = author(0);
        let space = node.create_space(&owner).await?;
        let mut serial = 0u64;
        for index in 0..options.authors {
            let share = (options.events - serial).div_ceil(options.authors - index);
            let drafts: Vec<EventDraft> = (serial..serial + share)
                .map(|serial| {
                    EventDraft::new(
                        16,
                        1_700_000_000_000 + serial,
                        payload(serial, options.payload),
                    )
                })
                .collect();
            serial += share;
            if !drafts.is_empty() {
                space.append_batch(&author(index), drafts).await?;
            }
        }
        let addr = endpoint.addr();
        let id = space.id();
        let router = Router::builder(endpoint).accept(ALPN, node).spawn();
        Ok(Self {
            router,
            addr,
            space: id,
            // The genesis event besides those asked for.
            events: options.events + 1,
        })
    }

    /// Pulls all of it into a new store.
    pub(crate) async fn measure(
        &self,
        store: PullerStore,
        payload: usize,
    ) -> Result<Sample, Error> {
        let folder = tempfile::tempdir()?;
        match store {
            PullerStore::Memory => self.pull(MemoryStore::new(), payload, None).await,
            PullerStore::Disk => {
                let path = folder.path().join("logs.redb");
                self.pull(DiskStore::create(&path)?, payload, Some(folder.path()))
                    .await
            }
        }
    }

    async fn pull(
        &self,
        store: impl LogStore,
        payload: usize,
        folder: Option<&Path>,
    ) -> Result<Sample, Error> {
        let endpoint = loopback_endpoint(vec![]).await?;
        let node = Headwater::builder().store(store).spawn(endpoint.clone());
        let space = node.space(self.space);

        let meter = Meter::start();
        let report = space.sync_with(self.addr.clone()).await?;
        let (wall, cpu) = meter.stop();

        if report.outcome != SyncOutcome::Complete || report.events != self.events {
            return Err(format!(
                "received {} of {} events: {:?}",
                report.events, self.events, report.outcome
            )
            .into());
        }
        node.shutdown().await;
        endpoint.close().await;
        Ok(Sample {
            events: report.events,
            payload_bytes: (report.events - 1) * payload as u64,
            wall,
            cpu,
            wire_bytes: report.wire_bytes_sent + report.wire_bytes_received,
            file_bytes: folder.map(folder_bytes).transpose()?,
        })
    }

    pub(crate) async fn shutdown(self) -> Result<(), Error> {
        Ok(self.router.shutdown().await?)
    }
}

/// A key of no value: the same in every run.
fn author(index: u64) -> AuthorSecret {
    let mut seed = [0x42; 32];
    seed[..8].copy_from_slice(&index.to_le_bytes());
    AuthorSecret::from_bytes(seed)
}

/// Bytes that differ from event to event and do not compress.
fn payload(serial: u64, len: usize) -> Vec<u8> {
    let mut state = serial ^ 0x9e37_79b9_7f4a_7c15;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        // xorshift64*, never zero.
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        bytes.extend_from_slice(&state.wrapping_mul(0x2545_f491_4f6c_dd1d).to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

/// What lies in a folder, in bytes.
fn folder_bytes(folder: &Path) -> Result<u64, Error> {
    let mut total = 0;
    for entry in fs::read_dir(folder)? {
        total += entry?.metadata()?.len();
    }
    Ok(total)
}
