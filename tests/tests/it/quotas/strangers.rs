//! Logs that are not accepted: they are not sent again and again, and stand in nobody's way.

use std::time::Duration;

use headwater::{
    AuthorId, Headwater, Limits, Roles, Space, Subject, SyncOptions, SyncOutcome, Truncation,
};

use super::{large, limits};
use crate::nodes::{Node, author, open, seq_of, write};

const MIB: u64 = 1024 * 1024;

/// Numbers of a stranger and of a writer, in the order in which they are served.
fn stranger_before_writer() -> (u32, u32) {
    let mut numbers = [1, 2];
    numbers.sort_by_key(|number| author(*number).id());
    (numbers[0], numbers[1])
}

/// A space of a node that goes by the roster, with one writer; and the copy of a node that asks
/// nobody who writes.
async fn scene(writer: AuthorId) -> ((Node, Space), (Node, Space)) {
    scene_within(writer, |limits| {
        limits.catch_up_after = Duration::from_millis(20);
    })
    .await
}

async fn scene_within(
    writer: AuthorId,
    change: impl FnOnce(&mut Limits),
) -> ((Node, Space), (Node, Space)) {
    let soon = limits(change);
    let server = Node::build(Headwater::builder().limits(soon)).await;
    let space = server.headwater.create_space(&author(0)).await.unwrap();
    let anyone = Subject::Anyone;
    space.grant(&author(0), anyone, Roles::READ).await.unwrap();
    space.grant(&author(0), writer, Roles::WRITE).await.unwrap();
    let careless = Node::build(open().ask_back(false)).await;
    let copy = careless.space(space.id());
    copy.sync_with(server.addr()).await.unwrap();
    ((server, space), (careless, copy))
}

#[tokio::test]
async fn a_strangers_hundred_megabytes_are_not_sent_and_do_not_starve_those_after_it() {
    let (stranger, writer) = stranger_before_writer();
    let ((_server, space), (careless, copy)) = scene(author(writer).id()).await;
    let log = large(100, MIB as usize);
    copy.append_batch(&author(stranger), log).await.unwrap();
    write(&copy, writer, "honest", 20).await;

    let first = space.sync_with(careless.addr()).await.unwrap();
    let refused = Truncation::NotAccepted { authors: 1 };
    assert_eq!(first.outcome, SyncOutcome::Truncated(refused));
    assert!(first.refused_bytes > MIB);
    assert!(first.wire_bytes_received < 12 * MIB, "{first:?}");

    let second = space.sync_with(careless.addr()).await.unwrap();
    assert_eq!((second.events, second.refused_bytes), (20, 0));
    assert_eq!(second.outcome, SyncOutcome::Complete);
    assert!(second.wire_bytes_received < 10_000, "{second:?}");

    write(&copy, stranger, "more", 1).await;
    let third = space.sync_with(careless.addr()).await.unwrap();
    assert_eq!((third.events, third.refused_bytes), (0, 0));
    assert!(third.wire_bytes_received < 1_000, "{third:?}");
    assert_eq!(space.head(author(stranger).id()).await.unwrap(), None);

    // Whoever is granted writing is asked for again.
    space
        .grant(&author(0), author(stranger).id(), Roles::WRITE)
        .await
        .unwrap();
    let all = space.sync_with(careless.addr()).await.unwrap();
    assert_eq!((all.events, all.outcome), (101, SyncOutcome::Complete));
}

#[tokio::test]
async fn more_strangers_than_a_sync_puts_up_with_are_passed_one_sync_after_the_other() {
    let (_, writer) = stranger_before_writer();
    let ((_server, space), (careless, copy)) = scene(author(writer).id()).await;
    let strangers = 10..18;
    for stranger in strangers.clone() {
        let log = large(2, 600 * 1024);
        copy.append_batch(&author(stranger), log).await.unwrap();
    }
    write(&copy, writer, "honest", 20).await;
    let mut syncs = 0;
    loop {
        let report = space.sync_with(careless.addr()).await.unwrap();
        syncs += 1;
        assert!(report.wire_bytes_received < 12 * MIB);
        if report.outcome == SyncOutcome::Complete {
            break;
        }
        assert!(report.refused_bytes > 0 && syncs <= strangers.len());
    }
    assert_eq!(seq_of(&space, author(writer).id()).await, 20);
    let quiet = space.sync_with(careless.addr()).await.unwrap();
    assert_eq!(quiet.refused_bytes, 0);
}

#[tokio::test]
async fn more_strangers_than_a_request_leaves_out_starve_nobody_who_comes_after_them() {
    // A request leaves out 1,024, and what a sync puts up with at first is 50 of them, or what is on its way.
    const STRANGERS: usize = 1_500;
    let mut numbers: Vec<u32> = (1..=STRANGERS as u32 + 1).collect();
    numbers.sort_by_key(|number| author(*number).id());
    let (writer, strangers) = numbers.split_last().unwrap();
    let ((_server, space), (careless, copy)) = scene_within(author(*writer).id(), |limits| {
        limits.session.max_refused_bytes = 16 * 1024;
        limits.session.max_unapplied_bytes = 32 * 1024;
    })
    .await;
    for stranger in strangers {
        let log = large(1, 200);
        copy.append_batch(&author(*stranger), log).await.unwrap();
    }
    write(&copy, *writer, "honest", 20).await;
    let (mut reports, mut syncs) = (Vec::new(), 0);
    while seq_of(&space, author(*writer).id()).await < 20 {
        reports.push(space.sync_with(careless.addr()).await.unwrap());
        syncs += 1;
        assert!(syncs <= 6, "{syncs} syncs");
    }
    assert!(syncs > 2, "the first ones are cut");
    let wasted: u64 = reports.iter().map(|report| report.refused_bytes).sum();
    let lies_there = STRANGERS as u64 * 400;
    assert!(wasted < 2 * lies_there, "{wasted} bytes");
    assert_eq!(reports.last().unwrap().outcome, SyncOutcome::Complete);
    // Now it begins again with what is usual.
    let next = space.sync_with(careless.addr()).await.unwrap();
    assert!(matches!(
        next.outcome,
        SyncOutcome::Truncated(Truncation::NotAccepted { .. })
    ));
}

#[tokio::test]
async fn a_live_sync_does_not_send_what_was_left_out() {
    let (stranger, writer) = stranger_before_writer();
    let ((server, space), (careless, copy)) = scene(author(writer).id()).await;
    write(&copy, stranger, "stranger", 3).await;
    space.sync_with(careless.addr()).await.unwrap();
    let options = SyncOptions::live();
    let mut live = space.sync_with_options(careless.addr(), options);
    live.history().await.unwrap();
    let refused = server.headwater.metrics().runs_refused.get();
    let mut growth = space.growth();
    write(&copy, stranger, "stranger, live", 3).await;
    write(&copy, writer, "honest, live", 3).await;
    growth.next().await;
    assert_eq!(server.headwater.metrics().runs_refused.get(), refused);
    assert_eq!(seq_of(&space, author(writer).id()).await, 3);

    // Whoever is granted writing meanwhile is pulled, and what it writes from then on.
    space
        .grant(&author(0), author(stranger).id(), Roles::WRITE)
        .await
        .unwrap();
    for events in [6, 8] {
        while seq_of(&space, author(stranger).id()).await < events {
            growth.next().await;
        }
        write(&copy, stranger, "writer, live", 2).await;
    }
    live.stop();
    live.await.unwrap();
}
