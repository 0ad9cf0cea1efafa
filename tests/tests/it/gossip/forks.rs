//! A log that forks, on a topic where what is written is too large to be sent to everybody: an announcement
//! tells that it does, and a pull brings the proof.

use headwater::{EventDraft, Space, proto::SpaceSummary};
use iroh::address_lookup::MemoryLookup;
use n0_future::{join_all, time::timeout};

use super::members::{Crowd, LIMIT, summary, until};
use crate::nodes::{assert_equal, author, seq_of, write};

const FORKER: u32 = 1;

async fn write_large(space: &Space, number: u32, byte: u8) {
    let draft = EventDraft::new(16, 0, vec![byte; 20_000]);
    let appended = space.append(&author(number), draft).await;
    appended.expect("appended");
}

/// Waits until a node cut the forker's log there, and holds that digest.
async fn until_cut_like(space: &Space, seq: u64, digest: impl Fn(&SpaceSummary) -> bool) {
    let cut = async {
        loop {
            let fork = space.fork_of(author(FORKER).id()).await.expect("readable");
            let held = summary(space).await.expect("held");
            if fork.is_some_and(|fork| fork.seq == seq) && digest(&held) {
                return;
            }
            n0_future::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    assert!(timeout(LIMIT, cut).await.is_ok(), "not cut");
}

#[tokio::test(flavor = "multi_thread")]
async fn branches_that_only_their_heads_tell_of_end_in_the_same_cut_everywhere() {
    let lookup = MemoryLookup::new();
    let crowd = Crowd::gather(&lookup, 3).await;
    write(crowd.live[0].space(), FORKER, "shared", 3).await;
    crowd.until_equal(4).await;

    // The author's key is at two nodes: one of them is a backup.
    tokio::join!(
        write_large(crowd.live[1].space(), FORKER, 1),
        write_large(crowd.live[2].space(), FORKER, 2),
    );
    let spaces: Vec<_> = crowd
        .live
        .iter()
        .map(headwater_gossip::LiveSpace::space)
        .collect();
    join_all(
        spaces
            .iter()
            .map(|space| until_cut_like(space, 4, |_| true)),
    )
    .await;
    let digest = summary(spaces[0]).await.expect("held").digest;
    let same = |held: &SpaceSummary| held.digest == digest;
    join_all(spaces.iter().map(|space| until_cut_like(space, 4, same))).await;
    for space in &spaces {
        assert_equal(spaces[0], space).await;
    }

    until("the fork is announced", || {
        crowd.count(|it| it.forks_announced.get()) > 0
    })
    .await;

    // Others go on, by runs and by pulls, and nobody waits for what is cut.
    write(spaces[0], 2, "others", 2).await;
    write_large(spaces[1], 3, 3).await;
    for space in &spaces {
        let held = async {
            while seq_of(space, author(2).id()).await < 2 || seq_of(space, author(3).id()).await < 1
            {
                n0_future::time::sleep(std::time::Duration::from_millis(5)).await;
            }
        };
        assert!(timeout(LIMIT, held).await.is_ok(), "others do not go on");
    }
    crowd.until_settled().await;
    crowd.shutdown().await;
}
