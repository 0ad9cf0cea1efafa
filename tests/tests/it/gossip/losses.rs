//! What is dropped unread may have been news, and is found again.

use headwater::wire::sign_runs;
use headwater_gossip::{AnnouncerConfig, BridgeLimits, Builder, Rate};
use iroh::address_lookup::MemoryLookup;
use n0_future::future;

use super::members::{LIMIT, Member, Outsider, hasty, shut_down, tampered, until, until_held};
use crate::nodes::{author, drafts};

#[tokio::test(flavor = "multi_thread")]
async fn what_a_neighbor_with_no_share_left_had_to_say_is_pulled() {
    let lookup = MemoryLookup::new();
    let mut limits = BridgeLimits::default();
    limits.neighbor = Rate {
        per_second: 1,
        burst: 2,
    };
    // Nothing else leads to a pull: who is a neighbour is caught up with at once, and then left
    // alone for as long as the test takes.
    let patient = AnnouncerConfig {
        check_within: LIMIT,
        ..hasty()
    };
    let configure = |builder: Builder| builder.limits(limits).announcer(patient);
    let one = Member::build(&lookup, configure).await;
    let created = one.headwater.create_space(&author(0)).await;
    let space = created.expect("created").id();
    let live = one.join(space, vec![]).await;

    let outsider = Outsider::spawn(&lookup).await;
    let held = outsider.headwater.space(space);
    held.sync_with(one.headwater.endpoint().expect("mounted").addr())
        .await
        .expect("synced");
    let voice = outsider.join(space, vec![one.id()]).await;
    let metrics = one.metrics();
    until("it is caught up with", || {
        metrics.pulls_completed.get() == 1
    })
    .await;

    // It holds something new, and nobody hears of it: all that it says is forged, and then more
    // than its share of that.
    let run = sign_runs(&space, &author(50), None, drafts("unheard", 3)).expect("fits");
    let stored = held.apply(vec![run[0].run().clone()], outsider.id()).await;
    assert!(stored.expect("stored")[0].is_ok());
    assert_eq!(metrics.ignored_neighbor_too_often.get(), 0);
    let mut n = 0;
    while metrics.ignored_neighbor_too_often.get() == 0 {
        n += 1;
        let said = outsider.sign(&outsider.announcement(space, n));
        voice.say(tampered(&said)).await;
        until("it is counted", || {
            metrics.ignored_forged.get() + metrics.ignored_neighbor_too_often.get() == n
        })
        .await;
    }
    until_held(live.space(), 4).await;
    until("the pull ends", || metrics.pulls_completed.get() == 2).await;
    assert_eq!(metrics.events_pulled.get(), 3);
    assert_eq!(metrics.announcements_accepted.get(), 0);
    future::zip(shut_down([one]), outsider.shutdown()).await;
}
