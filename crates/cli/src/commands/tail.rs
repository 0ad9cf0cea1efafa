//! `tail`: events as they arrive, pulled live from a known peer.

use std::{collections::BTreeSet, time::Duration};

use headwater::{SpaceId, SubscribeFrom, Subscription, SubscriptionItem, SyncError, SyncOptions};
use iroh::EndpointAddr;
use n0_future::StreamExt;

use super::{Context, go_live, members::use_invitation, sync::peers_of, wanted_space};
use crate::{
    args::TailArgs,
    control::{self, Request, Teller},
    error::CliError,
    host::{Host, Role, Served, alone},
    record::Record,
};

/// How long to wait before a peer is dialled again: doubled after each failure, up to the last.
const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(30);

pub(super) async fn run(context: &Context, args: TailArgs) -> Result<(), CliError> {
    let folder = context.folder()?;
    let wanted = wanted_space(&folder, &args.space)?;
    let peers = peers_of(&folder, &wanted)?;
    let role = Role::Serve {
        net: context.dial(&args.dial),
        served: Served::only(BTreeSet::from([wanted.id])),
        gossip: !args.no_gossip,
    };
    let request = Request::Tail {
        space: wanted.id,
        from_start: args.from_start,
        peers,
    };
    control::ask(context, &folder, request, role, 0).await
}

/// Keeps pulling, and tells what is new.
pub(super) async fn carry_out(
    host: &Host,
    space: SpaceId,
    from_start: bool,
    peers: &[EndpointAddr],
    teller: &Teller,
) -> Result<(), CliError> {
    let from = if from_start {
        SubscribeFrom::Start
    } else {
        SubscribeFrom::Now
    };
    if peers.is_empty() && host.node().space(space).summary().await?.is_none() {
        return Err(CliError::NoPeer(space));
    }
    if let Some(warning) = use_invitation(host, space, peers).await? {
        teller.warn(warning).await?;
    }
    // Before anything is pulled, so that nothing is missed.
    let items = host.node().space(space).subscribe(from);
    // The last tail of a space takes it along when it ends.
    let _served = host.serve_meanwhile(space);
    if !go_live(host, space, teller).await? && peers.is_empty() && host.has_gossip() {
        let text =
            "this space has no gossip topic and no known peer; events appended here are shown";
        teller.warn(text.into()).await?;
    }
    tokio::select! {
        told = tell(teller, items) => told,
        () = follow_peers(host, space, peers) => Ok(()),
    }
}

async fn tell(teller: &Teller, mut items: Subscription) -> Result<(), CliError> {
    while let Some(item) = items.next().await {
        if let SubscriptionItem::Event(event) = item? {
            let record = Record::new(&event);
            teller.answer(&record, || record.sentence()).await?;
        }
    }
    Ok(())
}

/// Pulls live from one peer after the other, for ever. While the space has neighbours on its gossip
/// topic nothing needs to be pulled here: what is new is announced, and what is missing fetched.
async fn follow_peers(host: &Host, space: SpaceId, peers: &[EndpointAddr]) {
    if peers.is_empty() {
        std::future::pending::<()>().await;
    }
    let mut wait = FIRST_WAIT;
    for peer in peers.iter().cycle() {
        if let Some(live) = host.live(space) {
            alone(&live).await;
        }
        let name = peer.id.fmt_short();
        let mut handle = host
            .node()
            .space(space)
            .sync_with_options(peer.clone(), SyncOptions::live());
        match handle.history().await {
            Ok(report) => {
                wait = FIRST_WAIT;
                tracing::info!(peer = %name, events = report.events, "history is here, going on live");
                // The owner's log may have told the topic.
                if let Err(error) = host.go_live(space).await {
                    tracing::warn!(%error, "no gossip");
                }
                tokio::select! {
                    ended = handle => if let Err(error) = ended {
                        tracing::warn!(peer = %name, %error, "the live stream ended");
                    },
                    () = accompanied(host, space) => continue,
                }
            }
            // Another call on this node does the same.
            Err(SyncError::AlreadyLive) => tracing::debug!(peer = %name, "followed already"),
            Err(error) => tracing::warn!(peer = %name, %error, "no sync"),
        }
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(LONGEST_WAIT);
    }
}

/// Waits until a space has a neighbour on its topic; for ever if it is not live.
async fn accompanied(host: &Host, space: SpaceId) {
    if let Some(live) = host.live(space)
        && live.joined().await
    {
        return;
    }
    std::future::pending::<()>().await;
}
