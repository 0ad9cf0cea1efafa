//! From the call of `append` on one node to the event on a subscriber of another, beside a round
//! trip of as many bytes on a stream between the same two endpoints.
//!
//! The round trips go over a second connection of these endpoints: a connection speaks one
//! protocol. Each append is followed by one round trip, so that noise meets both.

use std::time::Instant;

use headwater::{SubscribeFrom, SubscriptionItem, SyncOptions};
use n0_future::StreamExt as _;

use super::Kept;
use crate::{
    Error, corpus,
    nodes::{ECHO_ALPN, Puller, Server},
    row::Row,
    sample::{Percentiles, millis},
};

/// The name of the family.
pub const FAMILY: &str = "live delivery";

const PAYLOAD: usize = 200;

/// Both nodes keep their events the same way.
///
/// # Errors
///
/// If the live sync ends or an event does not come.
pub async fn measure(events: usize, reps: usize, kept: Kept) -> Result<Vec<Row>, Error> {
    let server_folder = tempfile::tempdir()?;
    let puller_folder = tempfile::tempdir()?;
    let server = Server::start(kept.store(server_folder.path())?).await?;
    let author = corpus::author(0);
    let space = server.node.create_space(&author).await?;
    let puller = Puller::start(kept.store(puller_folder.path())?, space.id()).await?;
    let mut syncing = puller
        .space
        .sync_with_options(server.addr.clone(), SyncOptions::live());
    syncing.history().await?;
    let mut subscription = puller.space.subscribe(SubscribeFrom::Now);
    while !matches!(
        subscription.next().await,
        Some(Ok(SubscriptionItem::CaughtUp))
    ) {}

    let connection = puller
        .endpoint()
        .connect(server.addr.clone(), ECHO_ALPN)
        .await?;
    let (mut send, mut recv) = connection.open_bi().await?;
    let mut reply = [0; PAYLOAD];

    let mut delivery = Percentiles::default();
    let mut echo = Percentiles::default();
    let mut serial = 0;
    for round in 0..=reps {
        let mut delivered = Vec::with_capacity(events);
        let mut echoed = Vec::with_capacity(events);
        for _ in 0..events {
            let draft = corpus::draft(serial, PAYLOAD);
            let payload = draft.payload.clone();
            serial += 1;

            let start = Instant::now();
            // Delivery may be earlier than the reply to the appender: both run.
            let (appended, (item, took)) = tokio::join!(space.append(&author, draft), async {
                (subscription.next().await, start.elapsed())
            });
            appended?;
            match item.ok_or("the subscription ended")?? {
                SubscriptionItem::Event(event) if event.payload.as_ref() == Some(&payload) => {}
                other => return Err(format!("another item: {other:?}").into()),
            }
            delivered.push(millis(took));

            let start = Instant::now();
            send.write_all(&payload).await?;
            recv.read_exact(&mut reply).await?;
            echoed.push(millis(start.elapsed()));
        }
        if round > 0 {
            delivery.take(&mut delivered);
            echo.take(&mut echoed);
        }
    }
    connection.close(0u32.into(), b"done");
    syncing.stop();
    syncing.await?;
    puller.stop().await;
    server.stop().await?;

    let ratio = delivery
        .p50
        .iter()
        .zip(&echo.p50)
        .map(|(delivery, echo)| delivery / echo)
        .collect::<Vec<_>>();
    let work = format!("{events} events of {PAYLOAD} B, one by one");
    let row = |subject: String, percentiles: &Percentiles| {
        Row::new(FAMILY, work.clone(), subject, reps)
            .figure("p50 ms", 3, percentiles.p50.iter().copied())
            .figure("p99 ms", 3, percentiles.p99.iter().copied())
    };
    let name = kept.name();
    Ok(vec![
        row(format!("bare round trip, beside {name}"), &echo),
        row(format!("Headwater, {name} on both sides"), &delivery).figure("p50 ÷ bare", 2, ratio),
    ])
}
