//! Histories that are not what was promised: longer, shorter, endless, or somebody else's.

use std::time::Duration;

use headwater::{
    AuthorSecret, CloseCode, HeadsDigest, LiveEnding, Receipt, ReceiptFacts, SessionError,
    SyncOptions, SyncOutcome,
    wire::{
        Budget, Clock, LiveBatch, Message, RequestHash, Run, Segment, Signature, SyncRequestV2,
        VerifiedRun, sign_runs,
    },
};

use super::{
    raw::{Ending, batch, complete, frames, heads_wanted, plan, raw_batch, request},
    stage::{EVENTS, Pulled, Stage},
};
use crate::nodes::{author, drafts};

const VIOLATION: Ending = Ending::Closed(CloseCode::ProtocolViolation);
const EXCEEDED: Ending = Ending::Closed(CloseCode::PlanExceeded);

/// The victim is promised so many events of one author, and gets these runs.
async fn promises(stage: &Stage, events: u64, more: bool, runs: &[&Run]) -> Pulled<Ending> {
    stage
        .pulls_more(async |peer, id| {
            let plan = plan(id, Segment::Last, 1, events);
            peer.tell([plan, batch(id, more, runs)]).await;
            peer.ending().await
        })
        .await
}

pub(super) async fn more_events_than_planned_are_refused() {
    let stage = Stage::new().await;
    let run = stage.next_run(1, 4).await;
    let pulled = promises(&stage, 3, false, &[run.run()]).await;
    assert_eq!(pulled.told, EXCEEDED);
    let expected = SessionError::PlanExceeded {
        unit: "events",
        planned: 3,
        received: 4,
    };
    assert_eq!(*pulled.fault(), expected);
    stage.ends_unharmed(1).await;
}

pub(super) async fn batches_that_go_on_past_the_plan_for_ever_end_with_the_first_too_many() {
    let stage = Stage::new().await;
    let mut base = stage.next_run(1, 1).await;
    let mut runs = vec![base.clone()];
    for at in 0..50 {
        let next = sign_runs(
            &stage.space.id(),
            &author(1),
            Some(base.head()),
            drafts(&format!("more {at}"), 1),
        );
        base = next.expect("signed").remove(0);
        runs.push(base.clone());
    }
    let pulled = stage.pulls_more(async |peer, id| {
        peer.tell([plan(id, Segment::Last, 1, 10)]).await;
        for run in &runs {
            peer.tell([batch(id, true, &[run.run()])]).await;
        }
        peer.ending().await
    });
    let pulled = pulled.await;
    assert_eq!(pulled.told, EXCEEDED);
    let expected = SessionError::PlanExceeded {
        unit: "events",
        planned: 10,
        received: 11,
    };
    assert_eq!(*pulled.fault(), expected);
    // What was promised was sound, and may have been stored by then.
    let head = stage.space.head(author(1).id()).await.expect("readable");
    let stored = head.expect("held").entry.head.seq - EVENTS as u64;
    assert!(stored <= 10, "{stored}");
    stage.ends_with(stored, 1).await;
}

pub(super) async fn more_payload_than_planned_is_refused() {
    let stage = Stage::new().await;
    let head = stage.space.head(author(1).id()).await.expect("readable");
    let base = head.map(|record| record.entry.head);
    let large = (0..3).map(|at| headwater::EventDraft::new(16, at, vec![1; 500_000]));
    let runs = sign_runs(&stage.space.id(), &author(1), base, large).expect("signed");
    let runs: Vec<&Run> = runs.iter().map(VerifiedRun::run).collect();
    let pulled = stage.pulls_more(async |peer, id| {
        peer.tell([plan(id, Segment::Last, 1, 3)]).await;
        for run in runs {
            peer.tell([batch(id, true, &[run])]).await;
        }
        peer.ending().await
    });
    let pulled = pulled.await;
    assert_eq!(pulled.told, EXCEEDED);
    assert!(matches!(
        pulled.fault(),
        SessionError::PlanExceeded {
            unit: "payload bytes",
            ..
        }
    ));
    let head = stage.space.head(author(1).id()).await.expect("readable");
    let stored = head.expect("held").entry.head.seq - EVENTS as u64;
    stage.ends_with(stored, 1).await;
}

pub(super) async fn fewer_events_than_planned_are_an_error() {
    let stage = Stage::new().await;
    let run = stage.next_run(1, 4).await;
    let pulled = promises(&stage, 9, false, &[run.run()]).await;
    assert_eq!(pulled.told, VIOLATION);
    let expected = SessionError::PlanNotMet {
        planned: 9,
        received: 4,
    };
    assert_eq!(*pulled.fault(), expected);
    stage.ends_unharmed(1).await;
}

pub(super) async fn an_empty_batch_that_promises_more_is_refused() {
    let stage = Stage::new().await;
    let pulled = promises(&stage, 3, true, &[]).await;
    assert_eq!(pulled.told, VIOLATION);
    assert_eq!(*pulled.fault(), SessionError::EmptyBatch);
    stage.ends_unharmed(1).await;
}

pub(super) async fn empty_batches_without_end_stop_at_the_first() {
    let stage = Stage::new().await;
    let pulled = stage.pulls_more(async |peer, id| {
        peer.tell([plan(id, Segment::Last, 1, 3)]).await;
        let empty = frames((0..100).map(|_| raw_batch(id, true, Vec::new())));
        while peer.send.write_all(&empty).await.is_ok() {}
        peer.ending().await
    });
    let pulled = pulled.await;
    assert_eq!(pulled.told, VIOLATION);
    assert_eq!(*pulled.fault(), SessionError::EmptyBatch);
    stage.ends_unharmed(1).await;
}

pub(super) async fn runs_beyond_the_requested_budget_are_refused() {
    let stage = Stage::new().await;
    let (one, other) = (stage.next_run(1, 2).await, stage.next_run(2, 2).await);
    let mut runs = [one.run(), other.run()];
    runs.sort_by_key(|run| run.author());
    let budget = Budget {
        events: Some(1),
        ..Budget::default()
    };
    let options = SyncOptions::default().with_budget(budget);
    let pulled = stage.pulls_with(&stage.space, options, async |peer, id| {
        peer.tell([heads_wanted(id)]).await;
        peer.hear().await;
        peer.tell([
            plan(id, Segment::Owner, 0, 0),
            plan(id, Segment::Last, 2, 4),
            batch(id, false, &runs),
        ])
        .await;
        peer.ending().await
    });
    let pulled = pulled.await;
    assert_eq!(pulled.told, EXCEEDED);
    assert_eq!(*pulled.fault(), SessionError::BudgetExceeded);
    stage.ends_unharmed(1).await;
}

pub(super) async fn a_history_cut_short_is_seen_by_its_digest() {
    let stage = Stage::new().await;
    let run = stage.next_run(1, 3).await;
    // Everything else is as an honest responder says it that holds a log more.
    let pulled = stage.is_sent_whole(&run, HeadsDigest::EMPTY, &[]).await;
    assert_eq!(pulled.told, Ending::Reset(CloseCode::DigestMismatch));
    let expected = SessionError::DigestMismatch {
        stated: HeadsDigest::EMPTY,
        computed: stage.digest_with(&run).await,
    };
    assert_eq!(*pulled.fault(), expected);
    // What came was signed by its author, and stays.
    stage.ends_with(3, 1).await;
}

pub(super) async fn an_account_of_other_figures_is_an_error() {
    let stage = Stage::new().await;
    let run = stage.next_run(1, 3).await;
    let digest = stage.digest_with(&run).await;
    let pulled = stage.pulls_more(async |peer, id| {
        let mut account = complete(id, digest, Some(&run));
        if let Message::HistorySyncComplete(account) = &mut account {
            account.events = 4;
        }
        let batch = batch(id, false, &[run.run()]);
        peer.tell([plan(id, Segment::Last, 1, 3), batch, account])
            .await;
        peer.ending().await
    });
    let pulled = pulled.await;
    assert_eq!(pulled.told, VIOLATION);
    let expected = SessionError::CompletionMismatch {
        unit: "events",
        stated: 4,
        received: 3,
    };
    assert_eq!(*pulled.fault(), expected);
    stage.ends_with(3, 1).await;
}

/// The victim pulls what it holds already, and the account of it has this under it.
async fn is_signed(
    stage: &Stage,
    sign: impl Fn(&AuthorSecret, ReceiptFacts) -> Signature,
) -> Pulled<Ending> {
    let summary = stage.space.summary().await.expect("readable");
    let digest = summary.expect("held").digest;
    stage
        .pulls(&stage.space, async |peer, id| {
            let asked = SyncRequestV2 {
                request_id: id,
                clock: Clock::Digest(digest),
                ..request(stage.space.id())
            };
            let mut account = complete(id, digest, None);
            if let Message::HistorySyncComplete(account) = &mut account {
                let facts = ReceiptFacts::of(RequestHash::of(&asked), digest, account);
                account.receipt = Some(sign(&peer.key(), facts));
            }
            peer.tell([raw_batch(id, false, Vec::new()), account]).await;
            peer.finish();
            peer.ending().await
        })
        .await
}

pub(super) async fn a_receipt_that_is_not_the_peers_or_for_another_answer_is_refused() {
    let stage = Stage::new().await;
    let forged = is_signed(&stage, |_, facts| {
        Receipt::sign(&author(77), facts).signature
    });
    let other = is_signed(&stage, |key, mut facts| {
        facts.joined_digest = HeadsDigest::EMPTY;
        Receipt::sign(key, facts).signature
    });
    for pulled in [forged.await, other.await] {
        assert_eq!(pulled.told, VIOLATION);
        assert_eq!(*pulled.fault(), SessionError::WrongReceipt);
    }
    let right = is_signed(&stage, |key, facts| Receipt::sign(key, facts).signature);
    let report = right.await.result.expect("in order");
    assert_eq!(
        report.receipt.map(|receipt| receipt.verify()),
        Some(Ok(true))
    );
    stage.ends_unharmed(2).await;
}

pub(super) async fn bytes_after_the_end_of_a_history_are_not_read() {
    let stage = Stage::with(|limits| limits.ask_back_wait = Duration::from_hours(1)).await;
    let run = stage.next_run(1, 3).await;
    let digest = stage.digest_with(&run).await;
    // One byte of another frame, and never an end.
    let pulled = stage.is_sent_whole(&run, digest, &[0]).await;
    assert_eq!(pulled.told, Ending::Finished);
    let report = pulled.result.expect("the history was whole");
    assert_eq!(report.outcome, SyncOutcome::Complete);
    stage.ends_with(3, 0).await;
}

pub(super) async fn the_same_run_again_on_a_live_stream_changes_nothing() {
    let stage = Stage::new().await;
    let held = sign_runs(
        &stage.space.id(),
        &author(1),
        None,
        drafts("author 1", EVENTS),
    );
    let held = held.expect("signed").remove(0);
    let summary = stage.space.summary().await.expect("readable");
    let digest = summary.expect("held").digest;
    let pulled = stage.pulls_with(&stage.space, SyncOptions::live(), async |peer, id| {
        peer.tell([raw_batch(id, false, Vec::new()), complete(id, digest, None)])
            .await;
        for _ in 0..100 {
            let runs = vec![held.run().as_bytes().clone()];
            let again = LiveBatch {
                request_id: id,
                runs,
            };
            peer.tell([again.into()]).await;
        }
        peer.finish();
        peer.ending().await
    });
    let pulled = pulled.await;
    assert_eq!(pulled.told, Ending::Finished);
    let report = pulled.result.expect("in order");
    assert_eq!(report.events, 0);
    assert_eq!(report.live_end, Some(LiveEnding::Closed));
    stage.ends_unharmed(0).await;
}
