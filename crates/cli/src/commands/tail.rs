//! `tail`: events as they arrive, pulled live from a known peer.

use std::time::Duration;

use headwater::{Headwater, SpaceId, SubscribeFrom, Subscription, SubscriptionItem, SyncOptions};
use iroh::EndpointAddr;
use n0_future::StreamExt;

use super::{Context, sync::peers_of, wanted_space};
use crate::{args::TailArgs, error::CliError, node::Dialer, output::Output, record::Record, stop};

/// How long to wait before a peer is dialled again: doubled after each failure, up to the last.
const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(30);

pub(super) async fn run(context: &Context, args: TailArgs) -> Result<(), CliError> {
    let folder = context.folder()?;
    let wanted = wanted_space(&folder, &args.space)?;
    let peers = peers_of(&folder, &wanted)?;
    let dial_timeout = Duration::from_secs(args.dial.dial_timeout);
    let net = context.net(args.dial.bind);
    let dialer = Dialer::start(&folder, net, dial_timeout, wanted.id).await?;
    let from = if args.from_start {
        SubscribeFrom::Start
    } else {
        SubscribeFrom::Now
    };
    // Before anything is pulled, so that nothing is missed.
    let items = dialer.node.space(wanted.id).subscribe(from);
    let ended = tokio::select! {
        printed = print(context.output, items) => printed,
        () = follow_peers(&dialer.node, wanted.id, &peers) => Ok(()),
        () = stop::requested(0) => Ok(()),
    };
    dialer.stop().await;
    ended
}

async fn print(output: Output, mut items: Subscription) -> Result<(), CliError> {
    while let Some(item) = items.next().await {
        if let SubscriptionItem::Event(event) = item? {
            let record = Record::new(&event);
            output.answer(&record, || record.sentence())?;
        }
    }
    Ok(())
}

/// Pulls live from one peer after the other, for ever.
async fn follow_peers(node: &Headwater, space: SpaceId, peers: &[EndpointAddr]) {
    let mut wait = FIRST_WAIT;
    for peer in peers.iter().cycle() {
        let name = peer.id.fmt_short();
        let mut handle = node
            .space(space)
            .sync_with_options(peer.clone(), SyncOptions::live());
        match handle.history().await {
            Ok(report) => {
                wait = FIRST_WAIT;
                tracing::info!(peer = %name, events = report.events, "history is here, going on live");
                if let Err(error) = handle.await {
                    tracing::warn!(peer = %name, %error, "the live stream ended");
                }
            }
            Err(error) => tracing::warn!(peer = %name, %error, "no sync"),
        }
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(LONGEST_WAIT);
    }
}
