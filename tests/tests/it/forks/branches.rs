//! Branches of one log on several nodes: all end equal.

use headwater::{Truncation, WriteError};

use super::*;
use crate::nodes::{assert_equal, seq_of};

#[tokio::test]
async fn two_nodes_with_a_branch_each_end_equal_and_both_applications_are_told() {
    let (left, right, ours, theirs) = pair(10).await;
    branch(&ours, &theirs, 5, 3).await;
    write(&ours, 3, "more", 4).await;
    let (mut here, mut there) = (follow(&ours), follow(&theirs));

    let report = sync(&theirs, &left).await;

    assert_repaired(&report, 11);
    assert_eq!(report.events, 4);
    assert_equal(&ours, &theirs).await;
    for space in [&ours, &theirs] {
        assert_eq!(forks(space).await, [(forker(), 11)]);
        assert_eq!(seq_of(space, forker()).await, 10);
        assert_eq!(seq_of(space, author(3).id()).await, 14);
    }
    assert_eq!(told(&mut here).await, (forker(), 11));
    assert_eq!(told(&mut there).await, (forker(), 11));
    // There is nothing left to do.
    let report = sync(&ours, &right).await;
    assert!(report.first_digest_equal);
    assert_eq!(report.outcome, SyncOutcome::Complete);
    left.shutdown().await;
    right.shutdown().await;
}

#[tokio::test]
async fn a_longer_branch_at_the_requester_is_found_by_whoever_asks_back() {
    let (left, right) = (Node::build(open()).await, Node::build(open()).await);
    let ours = crate::nodes::filled(&left.headwater, 3, 10).await;
    let theirs = right.space(ours.id());
    sync(&theirs, &left).await;
    branch(&ours, &theirs, 3, 5).await;

    sync(&theirs, &left).await;

    assert_equal(&ours, &theirs).await;
    assert_eq!(forks(&ours).await, [(forker(), 11)]);
    left.shutdown().await;
    right.shutdown().await;
}

#[tokio::test]
async fn a_third_that_holds_nothing_or_a_branch_gets_the_cut_and_the_proof_from_either() {
    let (left, right, ours, theirs) = pair(10).await;
    branch(&ours, &theirs, 5, 3).await;
    let with_a_branch = quiet().await;
    let branched = with_a_branch.space(ours.id());
    sync(&branched, &right).await;
    sync(&theirs, &left).await;

    for provider in [&left, &right] {
        let fresh = quiet().await;
        let copy = fresh.space(ours.id());
        let report = sync(&copy, provider).await;
        assert_repaired(&report, 11);
        assert_equal(&ours, &copy).await;
        assert_eq!(forks(&copy).await, [(forker(), 11)]);
        fresh.shutdown().await;
    }
    let report = sync(&branched, &left).await;
    assert_repaired(&report, 11);
    assert_equal(&ours, &branched).await;
    for node in [left, right, with_a_branch] {
        node.shutdown().await;
    }
}

#[tokio::test]
async fn forks_ten_thousand_events_deep_are_found_in_few_round_trips() {
    for shared in [1, 4_000] {
        let (left, right, ours, theirs) = pair(shared).await;
        branch(&ours, &theirs, 10_000, 9_000).await;

        let report = sync(&theirs, &left).await;

        assert_repaired(&report, shared as u64 + 1);
        assert!((1..=4).contains(&report.forks[0].rounds), "{report:?}");
        assert_equal(&ours, &theirs).await;
        left.shutdown().await;
        right.shutdown().await;
    }
}

#[tokio::test]
async fn a_log_that_forks_at_its_first_event_shows_nothing_anywhere() {
    let (left, right, ours, theirs) = pair(3).await;
    write(&ours, 9, "here", 4).await;
    write(&theirs, 9, "there", 2).await;
    let nobody = author(9).id();

    sync(&theirs, &left).await;

    assert_equal(&ours, &theirs).await;
    assert_eq!(forks(&ours).await, [(nobody, 1)]);
    assert_eq!(seq_of(&ours, nobody).await, 0);
    let fresh = quiet().await;
    let copy = fresh.space(ours.id());
    assert_eq!(sync(&copy, &right).await.outcome, SyncOutcome::Complete);
    assert_equal(&ours, &copy).await;
    assert_eq!(forks(&copy).await, [(nobody, 1)]);
    for node in [left, right, fresh] {
        node.shutdown().await;
    }
}

#[tokio::test]
async fn an_owner_who_forks_is_cut_and_the_space_goes_on() {
    let (left, right, ours, theirs) = pair(3).await;
    write(&ours, 0, "here", 4).await;
    write(&theirs, 0, "there", 2).await;
    write(&ours, 1, "goes on", 2).await;
    let owner = author(0).id();

    sync(&theirs, &left).await;

    assert_equal(&ours, &theirs).await;
    assert_eq!(forks(&theirs).await, [(owner, 2)]);
    let fresh = quiet().await;
    let copy = fresh.space(ours.id());
    assert_eq!(sync(&copy, &right).await.outcome, SyncOutcome::Complete);
    assert_equal(&ours, &copy).await;
    assert_eq!(forks(&copy).await, [(owner, 2)]);
    for node in [left, right, fresh] {
        node.shutdown().await;
    }
}

#[tokio::test]
async fn a_lower_fork_found_later_cuts_lower_everywhere_and_is_told_once_more() {
    let (left, right, ours, theirs) = pair(4).await;
    let early = quiet().await;
    let earlier = early.space(ours.id());
    sync(&earlier, &left).await;
    write(&earlier, FORKER, "early", 9).await;
    write(&ours, FORKER, "shared", 4).await;
    sync(&theirs, &left).await;
    branch(&ours, &theirs, 4, 3).await;
    let mut here = follow(&ours);
    assert_repaired(&sync(&theirs, &left).await, 9);
    assert_eq!(told(&mut here).await, (forker(), 9));

    assert_repaired(&sync(&earlier, &left).await, 5);

    assert_eq!(told(&mut here).await, (forker(), 5));
    assert_equal(&ours, &earlier).await;
    assert_repaired(&sync(&theirs, &left).await, 5);
    assert_equal(&ours, &theirs).await;
    assert_eq!(seq_of(&theirs, forker()).await, 4);
    for node in [left, right, early] {
        node.shutdown().await;
    }
}

#[tokio::test]
async fn nothing_more_is_written_to_a_log_that_forks() {
    let (left, right, ours, theirs) = pair(10).await;
    branch(&ours, &theirs, 5, 3).await;
    sync(&theirs, &left).await;
    let before = theirs.summary().await.expect("readable");

    let refused = theirs.append_batch(&author(FORKER), more("later")).await;
    assert!(
        matches!(refused, Err(WriteError::Forked { author, seq: 11 }) if author == forker()),
        "{refused:?}"
    );
    let batches = vec![(author(1), more("beside")), (author(FORKER), more("later"))];
    let refused = theirs.import(batches).await;
    assert!(matches!(refused, Err(WriteError::Forked { seq: 11, .. })));
    assert_eq!(theirs.summary().await.expect("readable"), before);
    left.shutdown().await;
    right.shutdown().await;
}

#[tokio::test]
async fn more_forks_than_one_sync_puts_right_are_put_right_by_the_next() {
    const AUTHORS: u32 = 70;
    let (left, right) = (quiet().await, quiet().await);
    let ours = crate::nodes::filled(&left.headwater, AUTHORS, 1).await;
    let theirs = right.space(ours.id());
    sync(&theirs, &left).await;
    for (space, tag) in [(&ours, "here"), (&theirs, "there")] {
        let batches = (1..=AUTHORS).map(|number| (author(number), more(tag)));
        space.import(batches.collect()).await.expect("imported");
    }

    let first = sync(&theirs, &left).await;
    let left_over = Truncation::Forked { authors: 6 };
    assert_eq!(first.outcome, SyncOutcome::Truncated(left_over));
    assert_eq!(first.forks.len(), 64);
    assert!(first.forks.iter().all(|fork| fork.repaired));
    let second = sync(&theirs, &left).await;
    assert_eq!(second.outcome, SyncOutcome::Complete);
    assert_eq!(second.forks.len(), 6);

    assert_equal(&ours, &theirs).await;
    let metrics = right.headwater.metrics();
    assert_eq!(metrics.forks_found.get(), u64::from(AUTHORS));
    assert_eq!(metrics.forks_repaired.get(), u64::from(AUTHORS));
    left.shutdown().await;
    right.shutdown().await;
}
