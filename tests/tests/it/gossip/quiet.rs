//! What is said when there is nothing to say.

use std::time::Duration;

use headwater_gossip::TrickleConfig;
use iroh::address_lookup::MemoryLookup;

use super::members::{Crowd, hasty, until};

/// Intervals that do not grow, so that each that ends is either a word or a silence.
fn steady() -> headwater_gossip::AnnouncerConfig {
    let mut config = hasty();
    config.trickle = TrickleConfig {
        i_min: Duration::from_millis(100),
        i_max_doublings: 2,
        k: 2,
    };
    config
}

#[tokio::test(flavor = "multi_thread")]
async fn in_steady_state_there_are_few_small_announcements_and_most_are_suppressed() {
    const NODES: usize = 10;
    let lookup = MemoryLookup::new();
    let crowd = Crowd::build(&lookup, NODES, |_, builder| builder.announcer(steady())).await;
    crowd.until_settled().await;
    let longest = steady().trickle.i_min * 4;
    until("the intervals have their longest length", || {
        let interval = |it: &headwater_gossip::LiveSpace| it.status().interval;
        crowd
            .live
            .iter()
            .all(|live| interval(live) == Some(longest))
    })
    .await;

    let counted = |crowd: &Crowd| {
        let counters = crowd.live.iter().map(|live| live.status().counters);
        counters.fold((0, 0, 0), |(named, spoken, silent), it| {
            (
                named + it.announced,
                spoken + it.announced_periodic,
                silent + it.suppressed,
            )
        })
    };
    let before = counted(&crowd);
    let bytes_before = crowd.count(|it| it.announcement_bytes_sent.get());
    let sent_before = crowd.count(|it| it.announcements_sent.get());
    let came_before = crowd.count(|it| it.neighbors_up.get());
    let pulled_before = crowd.count(|it| it.events_pulled.get());
    let pulls_before = crowd.count(|it| it.pulls_started.get());
    // Ten intervals of every node, each one that ends in a word or in silence.
    until("intervals pass", || {
        let now = counted(&crowd);
        (now.1 - before.1) + (now.2 - before.2) >= 10 * NODES as u64
    })
    .await;
    let after = counted(&crowd);
    let (spoken, silent) = (after.1 - before.1, after.2 - before.2);
    let sent = crowd.count(|it| it.announcements_sent.get()) - sent_before;
    let bytes = crowd.count(|it| it.announcement_bytes_sent.get()) - bytes_before;
    println!(
        "{NODES} nodes, {} intervals: {spoken} announcements of {} bytes each, {silent} suppressed",
        spoken + silent,
        bytes / sent.max(1),
    );
    assert_eq!(after.0, before.0, "no head is announced");
    // iroh-gossip still rearranges who is next to whom, and each new neighbour is compared with once.
    let pulls = crowd.count(|it| it.pulls_started.get()) - pulls_before;
    let came = crowd.count(|it| it.neighbors_up.get()) - came_before;
    assert!(pulls <= came, "{pulls} pulls, {came} new neighbours");
    assert_eq!(crowd.count(|it| it.events_pulled.get()), pulled_before);
    assert!(silent > spoken, "{spoken} spoken, {silent} suppressed");
    assert!(bytes <= 200 * sent, "{bytes} bytes in {sent}");
    crowd.shutdown().await;
}
