//! New events, from one node's append to the other's subscription.

use std::time::{Duration, Instant};

use headwater::{
    Headwater, SpaceId, SubscribeFrom, Subscription, SubscriptionItem, SyncOptions, now_ms,
};
use iroh::EndpointAddr;
use n0_future::StreamExt;
use serde_json::json;

use super::{Teller, note};
use crate::{args::DEFAULT_AUTHOR, error::CliError, folder::DataFolder};

const EVENTS: u32 = 5;
/// How long a live event may take before the demo gives up.
const PATIENCE: Duration = Duration::from_secs(10);

/// Appends at A and waits for each event at B.
pub(super) async fn show(
    teller: &Teller,
    folder_a: &DataFolder,
    a: &Headwater,
    b: &Headwater,
    space: SpaceId,
    peer: &EndpointAddr,
) -> Result<(), CliError> {
    let author = folder_a.author_key(DEFAULT_AUTHOR)?;
    let mut handle = b
        .space(space)
        .sync_with_options(peer.clone(), SyncOptions::live());
    handle
        .history()
        .await
        .map_err(|source| CliError::sync(peer, source))?;
    let mut items = b.space(space).subscribe(SubscribeFrom::Now);
    for number in 1..=EVENTS {
        let draft = note(format!("live event {number}"), now_ms())?;
        let started = Instant::now();
        let event = a.space(space).append(&author, draft).await?;
        let durable_at_a = started.elapsed();
        tokio::time::timeout(PATIENCE, until(&mut items, event.id))
            .await
            .map_err(|_| CliError::Truncated("a live event did not arrive".into()))??;
        let durable_at_b = started.elapsed();
        let text = format!(
            "event {number}: on A's disk after {}, on B's and delivered after {}",
            millis(durable_at_a),
            millis(durable_at_b)
        );
        let fact = json!({
            "event": event.id,
            "durable_at_a_ms": durable_at_a.as_secs_f64() * 1000.0,
            "delivered_at_b_ms": durable_at_b.as_secs_f64() * 1000.0,
        });
        teller.say("live", &fact, &text)?;
    }
    handle.stop();
    handle
        .await
        .map_err(|source| CliError::sync(peer, source))?;
    Ok(())
}

async fn until(items: &mut Subscription, id: headwater::EventId) -> Result<(), CliError> {
    while let Some(item) = items.next().await {
        match item? {
            SubscriptionItem::Event(event) if event.id == id => break,
            _ => {}
        }
    }
    Ok(())
}

fn millis(duration: Duration) -> String {
    format!("{:.1} ms", duration.as_secs_f64() * 1000.0)
}
