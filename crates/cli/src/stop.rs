//! Ctrl-C and SIGTERM, as a future.

use std::time::Duration;

use crate::error::INTERRUPTED;

/// A clean end may wait for a peer or a disk, but not longer than this.
const LONGEST_END: Duration = Duration::from_secs(5);

/// Resolves when the user or the system asks us to end; heard from now on, awaited or not. A second
/// Ctrl-C ends the process at once, and waiting too long does, with the exit code the command would
/// have had: what was reported as stored is stored anyway.
pub(crate) fn requested(exit_code: u8) -> impl Future<Output = ()> {
    let signalled = signalled();
    async move {
        signalled.await;
        tokio::spawn(async move {
            let code = match tokio::time::timeout(LONGEST_END, tokio::signal::ctrl_c()).await {
                Ok(_) => INTERRUPTED,
                Err(_) => exit_code,
            };
            std::process::exit(i32::from(code));
        });
    }
}

#[cfg(unix)]
fn signalled() -> impl Future<Output = ()> {
    use tokio::signal::unix::{Signal, SignalKind, signal};

    async fn came(signal: Option<Signal>) {
        match signal {
            Some(mut signal) => {
                signal.recv().await;
            }
            None => std::future::pending().await,
        }
    }
    let [interrupt, terminate] =
        [SignalKind::interrupt(), SignalKind::terminate()].map(|kind| signal(kind).ok());
    async move {
        tokio::select! {
            () = came(interrupt) => {}
            () = came(terminate) => {}
        }
    }
}

#[cfg(not(unix))]
async fn signalled() {
    if tokio::signal::ctrl_c().await.is_err() {
        std::future::pending::<()>().await;
    }
}
