//! Receipts: both sides mean the same facts, and a wrong signature ends the sync.

use core::time::Duration;

use headwater_proto::{
    Requester, RequesterConfig, RequesterOutput, Responder, ResponderOutput, SessionError,
    SessionLimits,
};
use headwater_wire::{
    Blame, Budget, Clock, CloseCode, Contradiction, HeadsChunk, HeadsDigest, HistorySyncComplete,
    MemberKey, Message, Receipt, ReceiptFacts, RequestHash, Signature, SyncBatchV2, SyncFilter,
    SyncOutcome, SyncRequestV2, Truncation,
};

use crate::{
    logs::{Logs, author},
    rng::{Rng, for_seeds},
    simulator::{Options, node, pull},
};

#[test]
fn every_sync_that_asks_for_a_receipt_gets_one_for_what_it_was() {
    for_seeds(100, |seed| {
        let mut rng = Rng::new(seed);
        let mut theirs = Logs::create(1);
        let mut ours = match rng.one_in(2) {
            true => theirs.clone(),
            false => theirs.nothing_of(),
        };
        for n in 1..=rng.between(1, 12) {
            theirs.write(&author(n), rng.between(1, 6), &mut rng);
            if rng.one_in(3) && !ours.authors().is_empty() {
                for run in theirs.runs(&author(n).id()) {
                    drop(ours.append(run.clone()));
                }
            }
        }
        let stated = ours
            .summary()
            .map_or(HeadsDigest::EMPTY, |held| held.digest);
        let mut options = Options::drawn(&mut rng);
        options.signs = true;
        if rng.one_in(4) {
            options.budget.events = Some(rng.below(9));
        }
        let report = pull(&mut ours, &mut theirs, &mut rng, options);
        let cut_short = report.end.outcome == SyncOutcome::Truncated(Truncation::Budget);
        if cut_short && stated != HeadsDigest::EMPTY && report.end.receipt.is_none() {
            // Not all of the clock was looked at.
            return;
        }
        let receipt = report.end.receipt.expect("the store did not change");
        assert_eq!(receipt.verify(), Ok(true));
        assert_eq!(
            receipt.provider,
            MemberKey::from_bytes(*node().id().as_bytes())
        );
        assert_eq!(receipt.facts.stated, stated);
        assert_eq!(receipt.facts.outcome, report.end.outcome);
        assert_eq!(receipt.facts.events, report.end.received.events);
        assert_eq!(receipt.facts.joined_digest, report.end.joined_digest);
    });
}

#[test]
fn nobody_signs_what_nobody_asked_for() {
    let mut theirs = Logs::create(1);
    let mut ours = theirs.nothing_of();
    let mut rng = Rng::new(1);
    let mut options = Options::drawn(&mut rng);
    options.signs = false;
    let report = pull(&mut ours, &mut theirs, &mut rng, options);
    assert_eq!(report.end.receipt, None);
}

#[test]
fn a_provider_that_keeps_an_author_back_is_shown_by_its_own_receipts() {
    let mut rng = Rng::new(3);
    let mut whole = Logs::create(1);
    whole.write(&author(2), 5, &mut rng);
    let mut served = |logs: &mut Logs| {
        let mut options = Options::drawn(&mut rng);
        options.signs = true;
        let report = pull(&mut whole.nothing_of(), logs, &mut rng, options);
        assert_eq!(report.end.outcome, SyncOutcome::Complete);
        report.end.receipt.expect("signed")
    };
    let all = served(&mut whole.clone());
    // The same state of its store, to somebody it does not like.
    let mut short = whole.without(&author(2).id());
    let kept_back = served(&mut short);
    assert_eq!(
        all.contradicts(&kept_back),
        Some(Contradiction::OneProvider)
    );
    assert_eq!(all.contradicts(&served(&mut whole.clone())), None);
}

/// What a provider is to sign for a request and heads that are said to be those of its clock.
fn signed_for(
    request: &SyncRequestV2,
    theirs: &Logs,
    heads: &Logs,
    leaves: bool,
) -> Option<ReceiptFacts> {
    let now = Duration::ZERO;
    let mut responder = Responder::new(SessionLimits::default(), now).signing();
    responder.handle_message(request.clone().into(), now).ok()?;
    loop {
        match responder.poll_output().expect("it goes on to the end") {
            ResponderOutput::Open { .. } => responder.handle_opened(theirs.summary(), now),
            ResponderOutput::Send(Message::HeadsWanted(_)) => {
                let mut entries = heads.entries();
                entries.sort_by_key(|entry| (entry.author != heads.owner, entry.author));
                let chunk = HeadsChunk {
                    request_id: request.request_id,
                    heads: entries,
                    last: true,
                };
                let taken = responder.handle_message(chunk.into(), now);
                if leaves {
                    responder.handle_stream_end().expect("it may");
                }
                taken
            }
            ResponderOutput::ReadHead(author) => {
                responder.handle_owner_head(theirs.head(&author), now)
            }
            ResponderOutput::ReadHeads { after, limit } => {
                responder.handle_heads(theirs.heads(after, limit), now)
            }
            ResponderOutput::CheckTails(stated) => {
                responder.handle_tails(theirs.check_tails(&stated), now)
            }
            ResponderOutput::ReadRuns { wants, max_bytes } => {
                responder.handle_runs(theirs.read_runs(&wants, max_bytes), now)
            }
            ResponderOutput::Sign(facts) => return Some(facts),
            ResponderOutput::AwaitLive | ResponderOutput::Finished(_) => return None,
            _ => Ok(()),
        }
        .expect("served");
    }
}

#[test]
fn nothing_is_signed_for_a_requester_whose_heads_are_not_those_of_its_digest() {
    let mut rng = Rng::new(4);
    let mut theirs = Logs::create(1);
    let little = theirs.clone();
    theirs.write(&author(2), 5, &mut rng);
    let ours = theirs.clone();
    theirs.write(&author(3), 5, &mut rng);
    let request = SyncRequestV2 {
        request_id: 5,
        space: theirs.space,
        clock: Clock::Digest(ours.summary().expect("held").digest),
        filter: SyncFilter::default(),
        budget: Budget::default(),
        live: true,
    };
    let facts = signed_for(&request, &theirs, &ours, false).expect("in order");
    // Two signatures for one request would show an honest provider as a liar.
    assert_eq!(signed_for(&request, &theirs, &little, false), None);
    // Who does not stay for the live part asked for it all the same.
    assert_eq!(facts.request, RequestHash::of(&request));
    assert_eq!(signed_for(&request, &theirs, &ours, true), Some(facts));
}

/// A sync of equal clocks whose completion carries what `sign` makes of the right facts.
fn completed(sign: impl FnOnce(ReceiptFacts) -> Signature) -> Result<(), SessionError> {
    let now = Duration::ZERO;
    let logs = Logs::create(1);
    let config = RequesterConfig {
        request_id: 5,
        space: logs.space,
        budget: Budget::default(),
        except: Vec::new(),
        live: false,
        limits: SessionLimits::default(),
    };
    let key = MemberKey::from_bytes(*node().id().as_bytes());
    let mut requester = Requester::new(config, logs.clock(), now).with_provider(key);
    let Some(RequesterOutput::Send(Message::SyncRequestV2(request))) = requester.poll_output()
    else {
        panic!("the request comes first");
    };
    let digest = logs.summary().expect("held").digest;
    let mut complete = HistorySyncComplete {
        request_id: 5,
        outcome: SyncOutcome::Complete,
        last_event: None,
        events: 0,
        stubs: 0,
        joined_digest: digest,
        stream_generation: 9,
        cursor: None,
        receipt: None,
    };
    let facts = ReceiptFacts::of(RequestHash::of(&request), digest, &complete);
    complete.receipt = Some(sign(facts));
    let nothing = SyncBatchV2 {
        request_id: 5,
        more: false,
        runs: Vec::new(),
    };
    requester.handle_message(nothing.into(), now)?;
    requester.handle_message(complete.into(), now)
}

#[test]
fn a_receipt_by_another_key_or_for_other_facts_is_the_peers_fault() {
    assert_eq!(
        completed(|facts| Receipt::sign(&node(), facts).signature),
        Ok(())
    );
    let lies: [fn(ReceiptFacts) -> Signature; 2] = [
        |facts| Receipt::sign(&author(3), facts).signature,
        |mut facts| {
            facts.generation += 1;
            Receipt::sign(&node(), facts).signature
        },
    ];
    for lie in lies {
        let error = completed(lie).expect_err("a lie");
        assert_eq!(error, SessionError::WrongReceipt);
        assert_eq!(error.blame(), Blame::Peer);
        assert_eq!(error.close_code(), CloseCode::ProtocolViolation);
    }
}
