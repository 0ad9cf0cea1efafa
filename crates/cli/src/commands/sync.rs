//! `sync`: one pull from the first peer that can be reached.

use std::time::{Duration, Instant};

use headwater::{
    Headwater, SpaceId, SyncError, SyncHandle, SyncOutcome, SyncProgress, SyncReport, Truncation,
};
use iroh::EndpointAddr;
use n0_future::StreamExt;
use serde_json::json;

use super::{
    Context,
    busy::{self, Patience},
    go_live,
    members::use_invitation,
    name_of, wanted_space,
};
use crate::{
    args::SyncArgs,
    control::{self, Progress, Request, Teller},
    error::{CliError, INTERRUPTED},
    folder::{DataFolder, Wanted},
    host::{Host, Role},
    output::{bytes, count},
};

/// How often it says how far it is.
const PROGRESS_EVERY: Duration = Duration::from_millis(10);
/// Fewer events say nothing about speed.
const EVENTS_WORTH_A_RATE: u64 = 1000;

pub(super) async fn run(context: &Context, args: SyncArgs) -> Result<(), CliError> {
    let folder = context.folder()?;
    let wanted = wanted_space(&folder, &args.space)?;
    let peers = peers_of(&folder, &wanted)?;
    let space = wanted.id;
    if peers.is_empty() {
        return Err(CliError::NoPeer(space));
    }
    let net = context.dial(&args.dial);
    let (request, role) = (Request::Sync { space, peers }, Role::Dial { net, space });
    control::ask(context, &folder, request, role, INTERRUPTED).await
}

/// Pulls from the first peer that can be reached.
pub(super) async fn carry_out(
    host: &Host,
    space: SpaceId,
    peers: &[EndpointAddr],
    teller: &Teller,
) -> Result<(), CliError> {
    let name = name_of(host.folder(), space).await?;
    if let Some(warning) = use_invitation(host, space, peers).await? {
        teller.warn(warning).await?;
    }
    // The peer may lack something of it, too.
    let served = host.serve_meanwhile(space);
    let report = from_first_reachable(teller, host.node(), space, peers).await?;
    drop(served);
    teller.answer(&report, || sentence(&name, &report)).await?;
    go_live(host, space, teller).await?;
    match truncation(&report) {
        None => Ok(()),
        Some(reason) => Err(CliError::Truncated(reason)),
    }
}

/// The peers to try, in order: those of the ticket, else those that tickets told of before, else those
/// that were met by gossip. None if none is known.
///
/// # Errors
///
/// The folder cannot be read.
pub(super) fn peers_of(
    folder: &DataFolder,
    wanted: &Wanted,
) -> Result<Vec<EndpointAddr>, CliError> {
    let own = folder.node_key()?.public();
    let known = folder.spaces()?;
    let known = known.get(wanted.id);
    let ticket = wanted.ticket.as_ref();
    let of_ticket = ticket.map(|ticket| ticket.peers.clone());
    let ways = [
        of_ticket,
        known.map(|space| space.peers.clone()),
        known.map(|space| space.met.clone()),
    ];
    for mut peers in ways.into_iter().flatten() {
        peers.retain(|peer| peer.id != own);
        if !peers.is_empty() {
            return Ok(peers);
        }
    }
    Ok(Vec::new())
}

async fn from_first_reachable(
    teller: &Teller,
    node: &Headwater,
    space: SpaceId,
    peers: &[EndpointAddr],
) -> Result<SyncReport, CliError> {
    let mut patience = Patience::new();
    loop {
        let mut failed = CliError::NoPeer(space);
        let mut retry_after = None;
        for peer in peers {
            let handle = node.space(space).sync_with(peer.clone());
            match follow(teller, handle).await? {
                Ok(report) => return Ok(report),
                Err(source) => {
                    let soonest = retry_after.into_iter().chain(busy::retry_after(&source));
                    retry_after = soonest.min();
                    failed = CliError::sync(peer, source);
                    tracing::info!(error = %failed, "trying the next peer, if there is one");
                }
            }
        }
        match retry_after {
            Some(after) if patience.wait(after).await => {}
            _ => return Err(failed),
        }
    }
}

/// Tells progress until the sync ends.
async fn follow(
    teller: &Teller,
    mut handle: SyncHandle,
) -> Result<Result<SyncReport, SyncError>, CliError> {
    let mut said = None::<Instant>;
    while let Some(progress) = handle.next().await {
        if said.is_none_or(|said| said.elapsed() >= PROGRESS_EVERY) {
            said = Some(Instant::now());
            let json = json!({ "progress": progress_json(&progress) });
            let told = Progress {
                what: "sync".into(),
                events: progress.applied.events,
                total_events: progress.planned.events.saturating_add(progress.rest.events),
                payload_bytes: progress.applied.payload_bytes,
                json: Some(json.to_string()),
            };
            teller.progress(told).await?;
        }
    }
    Ok(handle.await)
}

fn progress_json(progress: &SyncProgress) -> serde_json::Value {
    let rest = progress.rest.events;
    json!({
        "planned_events": progress.planned.events,
        "planned_payload_bytes": progress.planned.payload_bytes,
        "rest_events_at_most": rest,
        "received_events": progress.received.events,
        "applied_events": progress.applied.events,
        "applied_payload_bytes": progress.applied.payload_bytes,
    })
}

/// The report in words.
pub(crate) fn sentence(name: &str, report: &SyncReport) -> String {
    let seconds = report.duration.as_secs_f64();
    let trips = count(report.round_trips.into(), "round trip");
    let wire = format!(
        "{} received, {} sent",
        bytes(report.wire_bytes_received),
        bytes(report.wire_bytes_sent)
    );
    if report.first_digest_equal {
        return format!(
            "{name}: nothing to do, {trips}, {wire}, {:.1} ms",
            seconds * 1000.0
        );
    }
    let rate = if report.events < EVENTS_WORTH_A_RATE {
        String::new()
    } else {
        format!("{:.0} events/s, ", report.events as f64 / seconds.max(1e-9))
    };
    format!(
        "{name}: {} ({} of payload) in {seconds:.2} s, {rate}{trips}, {wire}",
        count(report.events, "new event"),
        bytes(report.payload_bytes),
    )
}

/// Why something is still missing after the sync, if so.
pub(crate) fn truncation(report: &SyncReport) -> Option<String> {
    match report.outcome {
        SyncOutcome::Complete => None,
        SyncOutcome::Truncated(Truncation::Forked { authors }) => Some(format!(
            "{} signed two different histories; nothing of theirs was taken",
            count(authors, "author")
        )),
        SyncOutcome::Truncated(Truncation::Budget) => Some("the budget is used up".into()),
        SyncOutcome::Truncated(Truncation::Stubbed) => {
            Some("the peer had only stubs of some events".into())
        }
        SyncOutcome::Truncated(Truncation::NotAccepted { authors }) => Some(format!(
            "much of {} is not accepted here; the next sync leaves them out",
            count(authors, "author")
        )),
        SyncOutcome::Truncated(Truncation::OverQuota { authors }) => Some(format!(
            "{} would take more space here than they may",
            count(authors, "author")
        )),
    }
}
