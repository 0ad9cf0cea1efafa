//! Clocks that cannot be: too long, out of order, about events no log can have.

use headwater::{AuthorId, CloseCode, wire::ClockEntry};

use super::{
    raw::{Ending, entry, frames, heads, request},
    stage::Stage,
};
use crate::nodes::author;

const VIOLATION: Ending = Ending::Closed(CloseCode::ProtocolViolation);

/// Asks with this clock, in one chunk.
async fn states(stage: &Stage, clock: Vec<ClockEntry>) -> Ending {
    let bytes = frames([request(stage.space.id()).into(), heads(clock, true)]);
    let suffered = stage.suffers(async |peer| {
        peer.say(&bytes).await;
        peer.finish();
        peer.ending().await
    });
    suffered.await
}

/// The owner, then three others, ascending.
fn authors() -> [AuthorId; 4] {
    let mut others = [1, 2, 3].map(|number| author(number).id());
    others.sort();
    let [low, middle, high] = others;
    [author(0).id(), low, middle, high]
}

pub(super) async fn a_clock_of_a_million_authors_is_refused_at_the_limit() {
    let stage = Stage::new().await;
    let ending = stage.suffers(async |peer| {
        peer.tell([request(stage.space.id()).into()]).await;
        for at in 0..977_u32 {
            let first = at * 1024;
            let chunk = (first..first + 1024).map(|number| {
                let mut key = [0; 32];
                key[..4].copy_from_slice(&number.to_be_bytes());
                entry(AuthorId::from_bytes(key), 1)
            });
            let chunk = frames([heads(chunk.collect(), at == 976)]);
            if peer.send.write_all(&chunk).await.is_err() {
                break;
            }
        }
        peer.ending().await
    });
    assert_eq!(ending.await, Ending::Reset(CloseCode::TooManyAuthors));
    stage.ends_unharmed(0).await;
}

pub(super) async fn one_author_above_the_configured_limit_is_too_many() {
    let stage = Stage::with(|limits| limits.session.max_authors = 10).await;
    let clock = |count: u8| {
        let keys = (1..=count).map(|number| AuthorId::from_bytes([number; 32]));
        keys.map(|author| entry(author, 1)).collect::<Vec<_>>()
    };
    let ending = states(&stage, clock(11)).await;
    assert_eq!(ending, Ending::Reset(CloseCode::TooManyAuthors));
    stage.ends_unharmed(0).await;
}

pub(super) async fn an_author_stated_twice_closes_the_connection() {
    let stage = Stage::new().await;
    let [owner, low, middle, _] = authors();
    let clock = [owner, low, middle, middle].map(|author| entry(author, 1));
    assert_eq!(states(&stage, clock.to_vec()).await, VIOLATION);
    stage.ends_unharmed(1).await;
}

pub(super) async fn an_author_stated_twice_across_two_chunks_closes_the_connection() {
    let stage = Stage::new().await;
    let [_, low, _, _] = authors();
    let ending = stage.suffers(async |peer| {
        peer.tell([
            request(stage.space.id()).into(),
            heads(vec![entry(low, 1)], false),
            heads(vec![entry(low, 1)], true),
        ])
        .await;
        peer.ending().await
    });
    assert_eq!(ending.await, VIOLATION);
    stage.ends_unharmed(1).await;
}

pub(super) async fn authors_out_of_order_close_the_connection() {
    let stage = Stage::new().await;
    let [owner, low, _, high] = authors();
    let clock = [owner, high, low].map(|author| entry(author, 1));
    assert_eq!(states(&stage, clock.to_vec()).await, VIOLATION);
    stage.ends_unharmed(1).await;
}

pub(super) async fn an_empty_chunk_that_promises_another_closes_the_connection() {
    let stage = Stage::new().await;
    let ending = stage.suffers(async |peer| {
        let nothing = heads(Vec::new(), false);
        peer.tell([request(stage.space.id()).into(), nothing]).await;
        peer.ending().await
    });
    assert_eq!(ending.await, VIOLATION);
    stage.ends_unharmed(1).await;
}

pub(super) async fn a_head_at_seq_0_closes_the_connection() {
    let stage = Stage::new().await;
    let [owner, ..] = authors();
    let ending = states(&stage, vec![entry(owner, 0)]).await;
    assert_eq!(ending, Ending::Closed(CloseCode::Malformed));
    stage.ends_unharmed(1).await;
}

pub(super) async fn a_head_at_the_highest_number_there_is_closes_the_connection() {
    let stage = Stage::new().await;
    let [owner, ..] = authors();
    for seq in [u64::MAX, (1 << 53) + 1] {
        let ending = states(&stage, vec![entry(owner, seq)]).await;
        assert_eq!(ending, Ending::Closed(CloseCode::Malformed));
    }
    stage.ends_unharmed(2).await;
}

pub(super) async fn a_head_beyond_ours_is_no_error_and_asks_for_nothing() {
    let stage = Stage::new().await;
    let mut clock = authors().map(|author| entry(author, 1 << 53));
    clock[1..].sort_by_key(|entry| entry.author);
    assert_eq!(states(&stage, clock.to_vec()).await, Ending::Finished);
    let served = stage.victim.headwater.metrics().serves_completed.get();
    assert!(served >= 2, "{served}");
    stage.ends_unharmed(0).await;
}
