//! What is said when there is nothing to say.

use std::time::{Duration, Instant};

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
    // Nodes that hold nothing agree as well.
    crowd.until_equal(1).await;
    crowd.until_settled().await;
    let longest = steady().trickle.i_min * 4;
    // Counted before looking whether all is quiet: what comes between the two counts as new.
    let mut counts = (0, 0);
    until("the intervals have their longest length", || {
        let backed_off = |live: &headwater_gossip::LiveSpace| live.status().backed_off.len() as u64;
        // A pull that failed, as from a peer that had nothing yet, is to be tried again.
        let again: u64 = crowd.live.iter().map(backed_off).sum();
        counts = (
            crowd.count(|it| it.neighbors_up.get()),
            crowd.count(|it| it.pulls_started.get()) + again,
        );
        let interval = |it: &headwater_gossip::LiveSpace| it.status().interval;
        crowd.live.iter().all(|live| {
            let status = live.status();
            // A neighbour that came last is still to be compared with.
            let settled = status.unsettled_neighbors == 0 && status.pulling_from.is_empty();
            // What came by a pull is announced a moment later, if nobody else was heard to have it.
            let told = status.unannounced == 0;
            settled && told && interval(live) == Some(longest)
        })
    })
    .await;
    let (came_before, pulls_before) = counts;

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
    // Of each node: digests said, and not said.
    let each = |crowd: &Crowd| -> Vec<(u64, u64)> {
        let counters = crowd.live.iter().map(|live| live.status().counters);
        counters
            .map(|it| (it.announced_periodic, it.suppressed))
            .collect()
    };
    let differences = |crowd: &Crowd| -> u64 {
        let counters = crowd.live.iter().map(|live| live.status().counters);
        counters.map(|it| it.differences).sum()
    };
    let before = counted(&crowd);
    let each_before = each(&crowd);
    let bytes_before = crowd.count(|it| it.announcement_bytes_sent.get());
    let sent_before = crowd.count(|it| it.announcements_sent.get());
    let pulled_before = crowd.count(|it| it.events_pulled.get());
    let differences_before = differences(&crowd);
    let started = Instant::now();
    // Ten intervals of every node, each one that ends in a word or in silence.
    until("intervals pass", || {
        each(&crowd)
            .iter()
            .zip(&each_before)
            .all(|(now, before)| now.0 + now.1 >= before.0 + before.1 + 10)
    })
    .await;
    // In each interval a node says one thing, or nothing. A difference heard meanwhile, or a new
    // neighbour after a time without any, begins a shorter one.
    let elapsed = started.elapsed();
    let now = each(&crowd);
    if differences(&crowd) == differences_before {
        for (node, (now, before)) in now.iter().zip(&each_before).enumerate() {
            let (words, turns) = (now.0 - before.0, now.0 + now.1 - before.0 - before.1);
            // The first and the last need not be whole.
            let intervals = elapsed.as_secs_f64() / longest.as_secs_f64() + 2.0;
            assert!(
                turns as f64 <= intervals,
                "node {node}: {turns} in {intervals}"
            );
            assert!(words <= turns, "node {node}");
        }
    }
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
    let pulls = crowd
        .count(|it| it.pulls_started.get())
        .saturating_sub(pulls_before);
    let came = crowd.count(|it| it.neighbors_up.get()) - came_before;
    let differences = differences(&crowd) - differences_before;
    assert!(
        pulls <= came + differences,
        "{pulls} pulls, {came} new neighbours, {differences} differences"
    );
    assert_eq!(crowd.count(|it| it.events_pulled.get()), pulled_before);
    assert!(silent > spoken, "{spoken} spoken, {silent} suppressed");
    assert!(bytes <= 200 * sent, "{bytes} bytes in {sent}");
    crowd.shutdown().await;
}
