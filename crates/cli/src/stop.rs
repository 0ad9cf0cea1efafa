//! Ctrl-C and SIGTERM, as a future.

use std::time::Duration;

use crate::error::INTERRUPTED;

/// A clean end may wait for a peer or a disk, but not longer than this.
const LONGEST_END: Duration = Duration::from_secs(5);

/// Resolves when the user or the system asks us to end. A second Ctrl-C ends the process at once,
/// and waiting too long does, with the exit code the command would have had: what was reported as
/// stored is stored anyway.
pub(crate) async fn requested(exit_code: u8) {
    signalled().await;
    tokio::spawn(async move {
        let code = match tokio::time::timeout(LONGEST_END, tokio::signal::ctrl_c()).await {
            Ok(_) => INTERRUPTED,
            Err(_) => exit_code,
        };
        std::process::exit(i32::from(code));
    });
}

async fn signalled() {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        if let Ok(mut terminate) = signal(SignalKind::terminate()) {
            tokio::select! {
                _ = tokio::signal::ctrl_c() => {}
                _ = terminate.recv() => {}
            }
            return;
        }
    }
    if tokio::signal::ctrl_c().await.is_err() {
        std::future::pending::<()>().await;
    }
}
