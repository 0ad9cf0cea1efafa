//! Two nodes on this machine keep a space in sync: history first, then live.
//!
//! ```text
//! cargo run -p headwater-examples --example two_nodes
//! ```

use std::error::Error;

use headwater::{
    ALPN, EventDraft, Headwater, Open, SubscribeFrom, SubscriptionItem, SyncOptions,
    generate_author, now_ms,
};
use iroh::{Endpoint, endpoint::presets, protocol::Router};
use n0_future::StreamExt;

/// The kind of our events; 0 to 15 belong to the protocol.
const NOTE: u16 = 16;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    // The server is mounted on a router; its owner writes a little history.
    let endpoint = on_loopback().await?;
    let server = Headwater::builder().policy(Open).spawn(endpoint.clone());
    let router = Router::builder(endpoint)
        .accept(ALPN, server.clone())
        .spawn();
    let owner = generate_author();
    let space = server.create_space(&owner).await?;
    let notes = ["first", "second", "third"].map(note).to_vec();
    space.append_batch(&owner, notes).await?;

    // The reader only dials. It follows the space and stays in sync.
    let reader = Headwater::builder()
        .policy(Open)
        .spawn(on_loopback().await?);
    let copy = reader.space(space.id());
    let mut events = copy.subscribe(SubscribeFrom::Start);
    let mut sync = copy.sync_with_options(router.endpoint().addr(), SyncOptions::live());
    let report = sync.history().await?;
    println!(
        "history: {} events in {} round trip(s), {} bytes",
        report.events, report.round_trips, report.wire_bytes_received
    );

    // From here on, what the server stores arrives by itself.
    space.append(&owner, note("live")).await?;
    while let Some(item) = events.next().await {
        if let SubscriptionItem::Event(event) = item?
            && event.header.kind == NOTE
        {
            let text = event.payload.unwrap_or_default();
            println!("event {}: {}", event.header.seq, text.escape_ascii());
            if text == "live" {
                break;
            }
        }
    }

    sync.stop();
    let report = sync.await?;
    println!("ended in order after {} events", report.events);
    reader.shutdown().await;
    router.shutdown().await?;
    Ok(())
}

fn note(text: &'static str) -> EventDraft {
    EventDraft::new(NOTE, now_ms(), text)
}

/// An endpoint that reaches this machine only. `Endpoint::bind(presets::N0)` reaches the internet.
async fn on_loopback() -> Result<Endpoint, Box<dyn Error>> {
    let builder = Endpoint::builder(presets::Minimal).clear_ip_transports();
    Ok(builder.bind_addr("127.0.0.1:0")?.bind().await?)
}
