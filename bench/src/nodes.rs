//! Two nodes on loopback: one that serves, one that pulls.

use std::{os::unix::fs::MetadataExt as _, path::Path, sync::Arc};

use headwater::{ALPN, Headwater, Limits, LogStore, Open, Space, SpaceId, SyncOutcome, SyncReport};
use iroh::{
    Endpoint, EndpointAddr,
    endpoint::{Connection, presets},
    protocol::{AcceptError, ProtocolHandler, Router},
};

use crate::Error;

/// Where the server answers every message with an equal one, for round trips without Headwater.
pub const ECHO_ALPN: &[u8] = b"headwater/bench/echo";

/// An endpoint that speaks on loopback alone.
///
/// # Errors
///
/// If it cannot be bound.
pub async fn loopback_endpoint(alpns: Vec<Vec<u8>>) -> Result<Endpoint, Error> {
    Ok(Endpoint::builder(presets::Minimal)
        .alpns(alpns)
        .clear_ip_transports()
        .bind_addr("127.0.0.1:0")?
        .bind()
        .await?)
}

/// A node that answers.
#[derive(Debug)]
pub struct Server {
    router: Router,
    /// The node itself.
    pub node: Headwater,
    /// Where it is reached.
    pub addr: EndpointAddr,
}

impl Server {
    /// Mounts a node on a router.
    ///
    /// # Errors
    ///
    /// If no endpoint can be bound.
    pub async fn start(store: Arc<dyn LogStore>) -> Result<Self, Error> {
        Self::start_with(store, Limits::default()).await
    }

    /// Mounts a node with other limits on a router.
    ///
    /// # Errors
    ///
    /// If no endpoint can be bound.
    pub async fn start_with(store: Arc<dyn LogStore>, limits: Limits) -> Result<Self, Error> {
        let endpoint = loopback_endpoint(vec![]).await?;
        let node = Headwater::builder()
            .policy(Open)
            .shared_store(store)
            .limits(limits)
            .spawn(endpoint.clone());
        let addr = endpoint.addr();
        let router = Router::builder(endpoint)
            .accept(ALPN, node.clone())
            .accept(ECHO_ALPN, Echo)
            .spawn();
        Ok(Self { router, node, addr })
    }

    /// Stops it. The store is free afterwards.
    ///
    /// # Errors
    ///
    /// If the router cannot be shut down.
    pub async fn stop(self) -> Result<(), Error> {
        Ok(self.router.shutdown().await?)
    }
}

/// A node that dials.
#[derive(Debug)]
pub struct Puller {
    endpoint: Endpoint,
    node: Headwater,
    /// The space it pulls.
    pub space: Space,
}

impl Puller {
    /// Makes a node of its own endpoint.
    ///
    /// # Errors
    ///
    /// If no endpoint can be bound.
    pub async fn start(store: Arc<dyn LogStore>, space: SpaceId) -> Result<Self, Error> {
        Self::start_with(store, space, Limits::default()).await
    }

    /// Makes a node with other limits of its own endpoint.
    ///
    /// # Errors
    ///
    /// If no endpoint can be bound.
    pub async fn start_with(
        store: Arc<dyn LogStore>,
        space: SpaceId,
        limits: Limits,
    ) -> Result<Self, Error> {
        let endpoint = loopback_endpoint(vec![]).await?;
        let node = Headwater::builder()
            .policy(Open)
            .shared_store(store)
            .limits(limits)
            .spawn(endpoint.clone());
        let space = node.space(space);
        Ok(Self {
            endpoint,
            node,
            space,
        })
    }

    /// Pulls once, to the end.
    ///
    /// # Errors
    ///
    /// If the sync fails, is cut short, or brings another number of events than expected.
    pub async fn pull(&self, server: &EndpointAddr, events: u64) -> Result<SyncReport, Error> {
        let report = self.space.sync_with(server.clone()).await?;
        if report.outcome != SyncOutcome::Complete || report.events != events {
            return Err(format!(
                "received {} of {events} events: {:?}",
                report.events, report.outcome
            )
            .into());
        }
        Ok(report)
    }

    /// Its endpoint, to open another connection to the same server.
    #[must_use]
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Stops it. The store is free afterwards.
    pub async fn stop(self) {
        self.node.shutdown().await;
        self.endpoint.close().await;
    }
}

/// Bytes of all stream frames of a sync, both directions.
#[must_use]
pub fn wire_bytes(report: &SyncReport) -> u64 {
    report.wire_bytes_sent + report.wire_bytes_received
}

/// What a file takes on the disk, in bytes: its blocks.
///
/// Not its length: the database doubles its file when it grows, and what it has not written to
/// yet takes no blocks. Of a store it is the same from one run to the next once it is closed.
///
/// # Errors
///
/// If it cannot be read.
pub fn disk_bytes(file: &Path) -> Result<u64, Error> {
    // The unit of `st_blocks`, whatever the blocks of the file system are.
    const BLOCK_BYTES: u64 = 512;
    Ok(std::fs::metadata(file)?.blocks() * BLOCK_BYTES)
}

/// What the files in a folder take on the disk, in bytes; see [`disk_bytes`].
///
/// # Errors
///
/// If it cannot be read.
pub fn folder_bytes(folder: &Path) -> Result<u64, Error> {
    let mut total = 0;
    for entry in std::fs::read_dir(folder)? {
        total += disk_bytes(&entry?.path())?;
    }
    Ok(total)
}

/// Sends every chunk back as it comes.
#[derive(Debug, Clone, Copy)]
struct Echo;

impl ProtocolHandler for Echo {
    async fn accept(&self, connection: Connection) -> Result<(), AcceptError> {
        let (mut send, mut recv) = connection.accept_bi().await?;
        while let Ok(Some(chunk)) = recv.read_chunk(64 * 1024).await {
            if send.write_chunk(chunk).await.is_err() {
                break;
            }
        }
        connection.closed().await;
        Ok(())
    }
}
