//! Forks on a gossip topic: what contradicts a log comes by an announcement, and everybody ends
//! with the same.

use headwater::{Roles, wire::MemberKey};
use headwater_gossip::{BridgeEvent, LiveSpace};
use iroh::address_lookup::MemoryLookup;
use n0_future::{join_all, time::timeout};

use super::*;
use crate::{
    gossip::members::{Crowd, LIMIT, summary, until_told},
    nodes::assert_equal,
};

/// Waits until an application of every member was told of the fork, and all hold the same.
async fn until_cut(crowd: &Crowd, subscriptions: &mut [Subscription], seq: u64) {
    let waiting =
        subscriptions.iter_mut().map(
            async |subscription| {
                while told(subscription).await != (forker(), seq) {}
            },
        );
    assert!(timeout(LIMIT, join_all(waiting)).await.is_ok(), "not told");
    let equal = async {
        loop {
            let first = summary(crowd.live[0].space()).await;
            let mut equal = true;
            for live in &crowd.live {
                equal &= summary(live.space()).await.map(|it| it.digest)
                    == first.as_ref().map(|it| it.digest);
            }
            if equal {
                return;
            }
            n0_future::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    assert!(timeout(LIMIT, equal).await.is_ok(), "not equal");
}

#[tokio::test(flavor = "multi_thread")]
async fn everybody_on_a_topic_cuts_a_log_that_two_of_them_extend() {
    let lookup = MemoryLookup::new();
    let crowd = Crowd::gather(&lookup, 4).await;
    write(crowd.live[0].space(), FORKER, "shared", 5).await;
    crowd.until_equal(6).await;
    let mut subscriptions: Vec<_> = crowd.live.iter().map(|live| follow(live.space())).collect();

    tokio::join!(
        write(crowd.live[1].space(), FORKER, "here", 1),
        write(crowd.live[2].space(), FORKER, "there", 1),
    );

    until_cut(&crowd, &mut subscriptions, 6).await;
    for live in &crowd.live {
        assert_eq!(forks(live.space()).await, [(forker(), 6)]);
        assert_equal(crowd.live[0].space(), live.space()).await;
    }
    // Others go on.
    write(crowd.live[3].space(), 3, "others", 2).await;
    crowd.until_equal(8).await;
    crowd.until_settled().await;
    crowd.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_comes_back_with_a_branch_is_cut_like_the_others() {
    let lookup = MemoryLookup::new();
    let crowd = Crowd::gather(&lookup, 3).await;
    write(crowd.live[0].space(), FORKER, "shared", 5).await;
    crowd.until_equal(6).await;
    let (away, here) = (
        crowd.members[2].headwater.space(crowd.space),
        crowd.live[0].space(),
    );
    crowd.live[2].leave().await;
    let subscribed = [here, crowd.live[1].space(), &away];
    let mut subscriptions = subscribed.map(follow);
    // At once: a pull begun before the member left may still bring one branch to the other node.
    tokio::join!(
        write(here, FORKER, "here", 3),
        write(&away, FORKER, "away", 4),
    );

    let back = crowd.members[2]
        .join(crowd.space, crowd.ids()[..2].to_vec())
        .await;
    let mut events = back.events();

    until_told(&mut events, &BridgeEvent::HistoryComplete).await;
    until_cut(&crowd, &mut subscriptions, 6).await;
    assert_equal(here, &away).await;
    crowd.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn everybody_on_a_topic_learns_what_either_branch_of_the_owners_revokes() {
    let lookup = MemoryLookup::new();
    let crowd = Crowd::gather(&lookup, 4).await;
    let owner = author(0);
    let keys = [6, 7].map(|number| MemberKey::from_bytes([number; 32]));
    for key in keys {
        let space = crowd.live[0].space();
        space
            .grant(&owner, key, Roles::READ)
            .await
            .expect("granted");
    }
    crowd.until_equal(3).await;

    tokio::join!(
        async {
            let space = crowd.live[1].space();
            let revoked = space.revoke(&owner, keys[0], Roles::READ).await;
            revoked.expect("one branch");
        },
        async {
            let space = crowd.live[2].space();
            let revoked = space.revoke(&owner, keys[1], Roles::READ).await;
            revoked.expect("the other");
        },
    );

    let out = async |live: &LiveSpace| loop {
        let members = live.space().members().await.expect("readable");
        let members = members.expect("held");
        let is_forked = !forks(live.space()).await.is_empty();
        if is_forked && keys.iter().all(|key| members.roles(key).is_empty()) {
            return;
        }
        n0_future::time::sleep(std::time::Duration::from_millis(5)).await;
    };
    let all_out = join_all(crowd.live.iter().map(out));
    assert!(timeout(LIMIT, all_out).await.is_ok(), "not learnt");
    for live in &crowd.live {
        assert_equal(crowd.live[0].space(), live.space()).await;
    }
    crowd.until_settled().await;
    crowd.shutdown().await;
}
