//! The requesting side: drives a [`Requester`] between a stream and the store.
//!
//! ```text
//! frames ─▶ session ─▶ runs ─▶ verify (on blocking threads) ─▶ writer (group commit) ─▶ outcomes ─▶ session
//! ```
//!
//! Receiving, verifying and committing overlap. The session counts the bytes on that way and
//! stops wanting messages when there are too many; what is not read stays in QUIC's window, then
//! at the responder. No rule of the protocol stands here.
//!
//! After the history come the authors it left out because they forked: see [`crate::fork`].

mod behind;
mod ending;
mod session;

use std::sync::Arc;

use headwater_proto::{MAX_LISTED_FORKS, SessionError, SyncEnd, Wait};
use headwater_wire::{Blame, CloseCode, SpaceId, SyncOutcome, Truncation};
use iroh::EndpointAddr;
use n0_future::time::{Instant, sleep_until};
use tracing::{debug, warn};

use crate::{
    connections::InUse,
    frames::{Filled, FrameReader},
    metrics::Running,
    node::Inner,
    places::Places,
    sync::{Feedback, SyncError, SyncOptions, SyncReport},
};
use session::Session;

/// Dials the peer, or uses a connection that stands, and pulls.
pub(crate) async fn with_peer(
    inner: Arc<Inner>,
    space: SpaceId,
    peer: EndpointAddr,
    options: SyncOptions,
    mut feedback: Feedback,
) -> Result<SyncReport, SyncError> {
    let id = peer.id;
    if inner.endpoint.is_none() {
        return Err(SyncError::Offline);
    }
    if inner.is_closing() {
        return Err(SyncError::ShuttingDown);
    }
    if let Some(left) = inner.conduct.banned(id) {
        return Err(SyncError::Banned { left });
    }
    let mut places = tokio::select! {
        places = Places::take(&inner, space, id, options.live) => places?,
        () = inner.closing() => return Err(SyncError::ShuttingDown),
        Some(()) = feedback.stop.recv() => return Err(SyncError::Stopped),
    };
    let mut may_reuse = true;
    loop {
        let (in_use, reused) = tokio::select! {
            connected = inner.connect(peer.clone(), may_reuse) => connected?,
            () = inner.closing() => return Err(SyncError::ShuttingDown),
            Some(()) = feedback.stop.recv() => return Err(SyncError::Stopped),
        };
        let pull = Pull {
            inner: &inner,
            in_use: &in_use,
            space,
            options: &options,
            feedback: &mut feedback,
            places: &mut places,
        };
        match pull.run().await {
            Err(error) if reused && was_gone(&error) => {
                debug!(%error, "the connection that stood is gone: dialling anew");
                inner.connections.withdraw(&in_use.link);
                may_reuse = false;
            }
            end => return end,
        }
    }
}

/// Whether a pull on a connection that stood failed because of the connection: the peer closed it
/// as idle just as it was taken up again, or was killed and is not there to answer on it.
fn was_gone(error: &SyncError) -> bool {
    matches!(
        error,
        SyncError::Closed {
            code: CloseCode::Done
        } | SyncError::Session(SessionError::TimedOut {
            wait: Wait::FirstAnswer,
            ..
        })
    )
}

/// Pulls from a peer whose request showed that it holds more, on its connection.
///
/// Never waits for its turn, and does nothing while a pull of the space from this peer runs: that
/// one brings the same, and two peers that waited for each other's pulls to end would wait for
/// ever. It is also why nobody asks back a peer that asks back: the pull it answers still runs.
pub(crate) async fn ask_back(inner: Arc<Inner>, in_use: &InUse, space: SpaceId) {
    let peer = in_use.link.connection.remote_id();
    let Some(mut places) = Places::try_take(&inner, space, peer) else {
        debug!("not asking back: a pull from this peer is running");
        return;
    };
    inner.metrics.pulls_asked_back.inc();
    let options = SyncOptions::default();
    let (mut feedback, _progress, _history, _stop) = Feedback::new();
    let pull = Pull {
        inner: &inner,
        in_use,
        space,
        options: &options,
        feedback: &mut feedback,
        places: &mut places,
    };
    // Its end is traced and counted like any other's.
    pull.run().await.ok();
}

struct Pull<'a> {
    inner: &'a Arc<Inner>,
    in_use: &'a InUse,
    space: SpaceId,
    options: &'a SyncOptions,
    feedback: &'a mut Feedback,
    places: &'a mut Places,
}

impl Pull<'_> {
    async fn run(mut self) -> Result<SyncReport, SyncError> {
        let metrics = &self.inner.metrics;
        metrics.pulls_started.inc();
        let running = Running::count(&metrics.pulls_running);
        let end = self.run_to_end().await;
        drop(running);
        match &end {
            Ok(report) if report.outcome == SyncOutcome::Complete => {
                metrics.pulls_completed.inc();
                debug!(
                    events = report.events,
                    round_trips = report.round_trips,
                    "complete"
                );
            }
            Ok(report) => {
                metrics.pulls_truncated.inc();
                debug!(events = report.events, outcome = ?report.outcome, "truncated");
            }
            Err(error) => {
                metrics.pulls_failed.inc();
                if error.blame() == Blame::Peer {
                    match error {
                        SyncError::Session(broken) if broken.close_code().is_connection_wide() => {
                            let peer = self.in_use.link.connection.remote_id();
                            self.inner.note_fault(peer);
                        }
                        _ => {
                            metrics.peer_faults.inc();
                        }
                    }
                    warn!(%error, "failed");
                } else {
                    debug!(%error, "failed");
                }
            }
        }
        end
    }

    async fn run_to_end(&mut self) -> Result<SyncReport, SyncError> {
        let mut running = self.open().await?;
        let mut end = self.drive(&mut running).await;
        if let Ok(history) = &end
            && let Err(error) = self.repair(&mut running, history).await
        {
            end = Err(error);
        }
        let report = match end {
            Ok(end) => {
                self.inner.note_sync(&self.in_use.link.connection);
                Ok(self.report(&end, &running))
            }
            Err(error) => {
                self.abandon(&mut running, &error);
                Err(error)
            }
        };
        if let Ok(report) = &report
            && !self.options.live
        {
            if let Some(history) = self.feedback.history.take() {
                history.send(report.clone()).ok();
            }
            // The peer ends its stream when it has pulled in turn, if it asks back.
            self.await_end_of_stream(&mut running.reader).await;
        }
        report
    }

    /// Waits for the pull in turn, as long as there are signs of it and not longer than a sync may
    /// take. The peer has nothing more to say: whatever it says ends the waiting.
    async fn await_end_of_stream(&mut self, reader: &mut FrameReader) {
        let limits = &self.inner.limits;
        let asked_back = self.in_use.link.listen(self.space);
        let ended = async {
            if !reader.is_taken() {
                return Ok(Filled::Bytes);
            }
            reader.fill().await
        };
        let ended = ending::wait_while_active(
            ended,
            || asked_back.times(),
            limits.ask_back_wait,
            limits.session.total,
        );
        let ended = tokio::select! {
            ended = ended => ended,
            Some(()) = self.feedback.stop.recv() => None,
            () = self.inner.closing() => None,
        };
        match ended {
            Some(Ok(Filled::Bytes)) => debug!("the peer goes on after the end"),
            Some(_) => return,
            None => debug!("the peer leaves its stream open, and asks nothing back"),
        }
        reader.stop(CloseCode::Done);
    }

    fn report(&self, end: &SyncEnd, running: &Session) -> SyncReport {
        let duration = running.complete_at.unwrap_or_else(|| running.now());
        let (forks, mut outcome) = running.repairs.report(end);
        // Those left out were not asked for, which does not make it complete.
        let left_out = running.over_quota.iter();
        let met = end.over_quota.iter().chain(running.repairs.over_quota());
        let mut over_quota: Vec<_> = left_out.chain(met).copied().collect();
        over_quota.sort_unstable();
        over_quota.dedup();
        let over_quota_authors = end.over_quota_authors.max(over_quota.len() as u64);
        over_quota.truncate(MAX_LISTED_FORKS);
        if outcome == SyncOutcome::Complete && over_quota_authors > 0 {
            outcome = SyncOutcome::Truncated(Truncation::OverQuota {
                authors: over_quota_authors,
            });
        }
        let peer = self.in_use.link.connection.remote_id();
        SyncReport {
            peer,
            space: self.space,
            from_provider: self.inner.trusts(peer, self.space),
            outcome,
            events: end.events,
            payload_bytes: end.payload_bytes,
            stubs: end.stubs,
            wire_bytes_sent: running.writer.sent(),
            wire_bytes_received: running.reader.received(),
            round_trips: end.round_trips,
            duration,
            first_digest_equal: end.first_digest_equal,
            joined_digest: end.joined_digest,
            receipt: end.receipt,
            refutation: running.refutation.clone(),
            forks,
            forked_authors: end.forked_authors,
            unaccepted_authors: end.unaccepted_authors + running.repairs.unaccepted(),
            over_quota,
            over_quota_authors,
            refused_bytes: end.refused_bytes,
            ended_early: running.ended_early(),
            live_end: end.live.map(Into::into),
        }
    }
}

/// Waits until then; for ever if there is no such time.
pub(crate) async fn at(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}
