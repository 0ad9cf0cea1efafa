//! What the processes of this family do.

use std::{net::Ipv4Addr, sync::Arc, time::Duration};

use clap::Subcommand;
use headwater::{ALPN, DiskStore, Headwater, LogStore, Open, Roles, SpaceId, Subject, node_key};
use iroh::{EndpointAddr, SecretKey, protocol::Router};
use serde::{Deserialize, Serialize};
use tokio::time::sleep;

use super::{bind, flooder, honest_key};
use crate::{
    Error,
    child::{hear, say},
    corpus::{self, Corpus, Shape},
    sample::{peak_kib, process_cpu},
};

/// A process that says in lines of JSON what it did.
#[derive(Debug, Subcommand)]
pub enum Role {
    /// Serves a space from a file, and pulls it from whomever it is told to.
    Serve {
        /// Events, besides the genesis event.
        events: u64,
        /// Authors, each of the same number.
        authors: u64,
        /// Payload bytes of each event.
        payload: usize,
        /// Whether the default policy holds, and lets the honest peer alone read.
        #[arg(action = clap::ArgAction::Set)]
        roster: bool,
    },
    /// Burns as many cores as it is given until it is killed.
    Burn,
    /// Floods a node until it is killed.
    Flood {
        /// How, as JSON.
        flood: String,
        /// The node, as JSON.
        addr: String,
        /// What it serves.
        space: SpaceId,
    },
}

/// A node can be reached.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Ready {
    pub(super) addr: EndpointAddr,
    pub(super) space: SpaceId,
}

/// What a node is asked.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Asked {
    /// To say how it is, and to forget its peak.
    Reset,
    /// To pull from these from now on.
    Pull(Vec<EndpointAddr>),
    /// To say how it is.
    Tell,
}

/// How a node is.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Said {
    pub(super) peak_kib: u64,
    pub(super) accepted: u64,
    pub(super) busy: u64,
    pub(super) banned: u64,
    pub(super) faults: u64,
    pub(super) pulls_failed: u64,
    pub(super) serves_failed: u64,
    pub(super) serves_refused: u64,
    pub(super) events_stored: u64,
    pub(super) panics: u64,
    pub(super) serving: i64,
    pub(super) handshakes_refused: u64,
    pub(super) places_lost: u64,
    pub(super) cpu_seconds: f64,
}

/// How far a flood is.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Flooding {
    pub(super) attempts: u64,
    pub(super) failed_dials: u64,
    pub(super) mib_sent: f64,
}

impl Role {
    /// Does it.
    ///
    /// # Errors
    ///
    /// If a store or an endpoint fails.
    pub async fn play(self) -> Result<(), Error> {
        match self {
            Self::Serve {
                events,
                authors,
                payload,
                roster,
            } => {
                let shape = Shape {
                    events,
                    authors,
                    payload,
                };
                serve(shape, roster).await
            }
            Self::Burn => {
                for _ in 0..std::thread::available_parallelism()?.get() {
                    std::thread::spawn(|| {
                        let mut number = 0_u64;
                        loop {
                            number = std::hint::black_box(number.wrapping_mul(31) + 1);
                        }
                    });
                }
                say(&())?;
                tokio::task::spawn_blocking(hear::<()>).await??;
                Ok(())
            }
            Self::Flood { flood, addr, space } => {
                let flood = serde_json::from_str(&flood)?;
                flooder::run(flood, serde_json::from_str(&addr)?, space).await
            }
        }
    }
}

async fn serve(shape: Shape, roster: bool) -> Result<(), Error> {
    let folder = tempfile::tempdir()?;
    let store: Arc<dyn LogStore> = Arc::new(DiskStore::create(folder.path().join("logs.redb"))?);
    let space = Corpus::fill(&*store, shape)?.space();
    let endpoint = bind(SecretKey::generate(), true, Ipv4Addr::LOCALHOST, None).await?;
    let mut builder = Headwater::builder().shared_store(store);
    if !roster {
        builder = builder.policy(Open);
    }
    let node = builder.spawn(endpoint.clone());
    if roster {
        let owner = corpus::author(0);
        let space = node.space(space);
        space.grant(&owner, Subject::Anyone, Roles::WRITE).await?;
        let reader = node_key(honest_key().public());
        space.grant(&owner, reader, Roles::READ).await?;
    }
    let addr = endpoint.addr();
    let router = Router::builder(endpoint)
        .incoming_filter(node.incoming_filter())
        .accept(ALPN, node.clone())
        .spawn();
    // What filling the store took is not the node's.
    forget_peak()?;
    say(&Ready { addr, space })?;
    while let Some(asked) = tokio::task::spawn_blocking(hear::<Asked>).await?? {
        let metrics = node.metrics();
        let said = Said {
            peak_kib: peak_kib()?,
            accepted: metrics.connections_accepted.get(),
            busy: metrics.refused_busy.get(),
            banned: metrics.peers_banned.get(),
            faults: metrics.peer_faults.get(),
            pulls_failed: metrics.pulls_failed.get(),
            serves_failed: metrics.serves_failed.get(),
            serves_refused: metrics.serves_refused.get(),
            events_stored: metrics.events_stored.get(),
            panics: metrics.panics.get(),
            serving: metrics.serves_running.get(),
            handshakes_refused: metrics.handshakes_refused.get(),
            places_lost: metrics.places_lost.get(),
            cpu_seconds: process_cpu().as_secs_f64(),
        };
        match asked {
            Asked::Reset => forget_peak()?,
            Asked::Tell => {}
            Asked::Pull(peers) => {
                for (number, peer) in peers.into_iter().enumerate() {
                    let space = node.space(space);
                    tokio::spawn(async move {
                        // How often pulls fail is counted by the node; how the first does is shown.
                        if let Err(error) = space.sync_with(peer.clone()).await
                            && number == 0
                        {
                            eprintln!("a pull ended: {error}");
                        }
                        loop {
                            space.sync_with(peer.clone()).await.ok();
                            sleep(Duration::from_millis(50)).await;
                        }
                    });
                }
            }
        }
        say(&said)?;
    }
    Ok(router.shutdown().await?)
}

/// Lets the kernel count the peak of this process anew.
fn forget_peak() -> Result<(), Error> {
    Ok(std::fs::write("/proc/self/clear_refs", "5")?)
}
