//! Connections: accepting them, and the streams on them.

use std::sync::Arc;

use headwater_wire::CloseCode;
use iroh::{
    endpoint::{Connection, VarInt},
    protocol::{AcceptError, ProtocolHandler},
};
use n0_future::task::{AbortOnDropHandle, JoinError, JoinSet};
use tracing::{Instrument, debug, error, info_span};

use crate::{
    conduct,
    connections::{Link, close},
    node::{Headwater, Inner},
    serve,
};

impl ProtocolHandler for Headwater {
    async fn accept(&self, connection: Connection) -> Result<(), AcceptError> {
        let inner = Arc::clone(self.inner());
        let peer = connection.remote_id();
        if inner.conduct.banned(peer).is_some() {
            debug!(peer = %peer.fmt_short(), "banned");
            inner.metrics.refused_banned.inc();
            close(&connection, CloseCode::Banned);
            return Ok(());
        }
        if inner.conduct.take(peer, conduct::CONNECTION).is_err() {
            debug!(peer = %peer.fmt_short(), "too many connections in a short time");
            inner.metrics.refused_busy.inc();
            close(&connection, CloseCode::TooManyConnections);
            return Ok(());
        }
        let standing = inner.standing(peer);
        let paid = inner.conduct.take_shared(standing, conduct::CONNECTION);
        if paid.is_err() {
            debug!(peer = %peer.fmt_short(), "too many strangers in a short time");
            inner.metrics.refused_busy.inc();
            close(&connection, CloseCode::TooManyConnections);
            return Ok(());
        }
        let Some(place) = inner.accepted.admit(&connection, standing) else {
            debug!(peer = %peer.fmt_short(), "too many connections");
            inner.metrics.refused_busy.inc();
            close(&connection, CloseCode::TooManyConnections);
            return Ok(());
        };
        if inner.is_closing() {
            close(&connection, CloseCode::ShuttingDown);
            return Ok(());
        }
        inner.metrics.connections_accepted.inc();
        inner.known.note_address(&connection, standing);
        let span = info_span!("connection", peer = %peer.fmt_short(), dialled = false);
        let task = inner.tasks.enter();
        let metrics = Arc::clone(&inner.metrics);
        // In a task of its own: a panic in a handler would take the router down with it.
        let running = n0_future::task::spawn(
            async move {
                let lost = async {
                    place.lost().await;
                    inner.metrics.places_lost.inc();
                    close(&connection, CloseCode::TooManyConnections);
                    // What runs on it sees that, and ends.
                    std::future::pending::<()>().await;
                };
                tokio::select! {
                    () = run_connection(Arc::clone(&inner), Link::new(connection.clone(), false)) => {}
                    () = lost => {}
                }
                drop((place, task));
            }
            .instrument(span),
        );
        if let Err(panicked) = AbortOnDropHandle::new(running).await {
            error!(error = %panicked, "a connection panicked");
            metrics.panics.inc();
        }
        Ok(())
    }

    async fn shutdown(&self) {
        Headwater::shutdown(self).await;
    }
}

/// Serves the streams the peer opens, until the connection ends, is idle, or the node closes.
pub(crate) async fn run_connection(inner: Arc<Inner>, link: Link) {
    let connection = &link.connection;
    connection.set_max_concurrent_uni_streams(VarInt::from_u32(0));
    inner.connections.offer(&link);
    let mut serves = JoinSet::new();
    let end = loop {
        tokio::select! {
            stream = connection.accept_bi() => match stream {
                Ok((send, recv)) => {
                    let served = serve::stream(Arc::clone(&inner), link.hold(), send, recv);
                    serves.spawn(served.in_current_span());
                }
                Err(reason) => {
                    debug!(%reason, "connection ended");
                    break None;
                }
            },
            Some(served) = serves.join_next() => {
                if let Err(error) = served {
                    note_panic(&inner, &error);
                    break Some(CloseCode::Internal);
                }
            }
            () = link.idle(&inner.limits) => {
                if inner.connections.close_if_unused(&link) {
                    debug!("closed as idle");
                    break None;
                }
            }
            () = inner.closing() => break Some(CloseCode::ShuttingDown),
        }
    };
    inner.connections.withdraw(&link);
    // Each has seen the connection end, or the node close, and ends by itself.
    if end == Some(CloseCode::Internal) {
        close(connection, CloseCode::Internal);
    }
    while let Some(served) = serves.join_next().await {
        if let Err(error) = served {
            note_panic(&inner, &error);
        }
    }
    if let Some(code) = end {
        close(connection, code);
    }
}

fn note_panic(inner: &Inner, panicked: &JoinError) {
    error!(error = %panicked, "serving a request panicked");
    inner.metrics.panics.inc();
}
