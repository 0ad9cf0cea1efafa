//! The owner's own log forks: what any branch revokes is held by all, whatever the order.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
};

use headwater_proto::{
    SessionError, SessionLimits,
    fork::{ForkAskerConfig, Unstored},
};
use headwater_wire::{
    AuthorHead, AuthorSecret, Blame, EventDraft, EventId, ForkRevoked, Grant, MemberKey, Message,
    Revocation, Revoked, Roles, RosterState, Subject, SyncBatchV2, VerifiedRun,
    limits::MAX_EVIDENCE_RUNS, sign_runs,
};

use super::{
    converging::sync_and_repair,
    holding,
    sides::{Asking, ID, carry, repair, repair_with},
};
use crate::{
    logs::{Logs, author},
    rng::{Rng, for_seeds},
    simulator::{Failure, Lie, Lies},
};

fn owner() -> AuthorSecret {
    author(1)
}

/// Few, so that branches speak of the same ones.
fn subject(rng: &mut Rng) -> Subject {
    match rng.below(6) {
        0 => Subject::Anyone,
        number => Subject::Key(MemberKey::from_bytes([number as u8; 32])),
    }
}

fn roles(rng: &mut Rng) -> Roles {
    Roles::from_bits(rng.between(1, 7) as u8).expect("three bits")
}

fn draft(rng: &mut Rng) -> EventDraft {
    let (subject, roles) = (subject(rng), roles(rng));
    let may_end = subject != Subject::Anyone && roles.contains(Roles::WRITE);
    let seq = rng.between(1, 9);
    let last = (may_end && rng.one_in(2)).then(|| AuthorHead {
        seq,
        id: EventId::from_bytes([seq as u8; 32]),
    });
    let revocation = Revocation {
        subject,
        roles,
        last,
    };
    match rng.below(5) {
        0 | 1 => EventDraft::grant(Grant::new(subject, roles), 0),
        2 | 3 => EventDraft::revoke(revocation, 0),
        _ => EventDraft::new(16, 0, rng.next().to_be_bytes().to_vec()),
    }
}

/// Signs `len - shared` events behind the first `shared` of a log, in runs of any length.
fn branch(
    space: &Logs,
    log: &[VerifiedRun],
    shared: u64,
    len: u64,
    rng: &mut Rng,
) -> Vec<VerifiedRun> {
    let secret = owner();
    let mut runs: Vec<VerifiedRun> = Vec::new();
    for run in log {
        if run.last_seq() <= shared {
            runs.push(run.clone());
        }
    }
    let end = runs.last().map_or(0, VerifiedRun::last_seq);
    let again = log.iter().flat_map(VerifiedRun::events);
    let again = again.filter(|event| event.header.seq > end && event.header.seq <= shared);
    let again: Vec<_> = again
        .map(|event| EventDraft {
            kind: event.header.kind,
            channel: event.header.channel,
            deps: event.header.deps,
            timestamp_ms: event.header.timestamp_ms,
            payload: event.payload.expect("no stubs here"),
        })
        .collect();
    let mut sign = |drafts: Vec<EventDraft>| {
        let base = runs.last().map(VerifiedRun::head);
        runs.extend(sign_runs(&space.space, &secret, base, drafts).expect("good drafts"));
        runs.last().expect("one").last_seq()
    };
    let mut at = shared.max(end);
    if !again.is_empty() {
        at = sign(again);
    }
    while at < len {
        let count = rng.between(1, (len - at).min(5));
        at = sign((0..count).map(|_| draft(rng)).collect());
    }
    runs
}

/// What the lowest branch shows, and all revocations that any of these signs above it.
fn expected(space: &Logs, logs: &[Vec<VerifiedRun>], fork: u64) -> (RosterState, Revoked) {
    let mut state = RosterState::new(space.owner);
    let shown = logs[0].iter().flat_map(VerifiedRun::events);
    for event in shown.filter(|event| event.header.seq < fork) {
        state.fold(&event);
    }
    let mut revoked = Revoked::new();
    for run in logs.iter().flatten() {
        for (seq, revocation) in run.run().revocations() {
            if seq >= fork {
                revoked.hold(&state, &revocation);
            }
        }
    }
    state.hold(&revoked);
    (state, revoked)
}

#[test]
fn what_any_branch_of_the_owners_revokes_is_held_by_all_whatever_the_order() {
    let taken = Cell::new(0);
    for_seeds(200, |seed| {
        let mut rng = Rng::new(seed);
        let space = Logs::create(1);
        let genesis = space.runs(&space.owner).to_vec();
        let first = branch(&space, &genesis, 1, rng.between(6, 20), &mut rng);
        let mut logs = vec![first];
        let mut lowest = u64::MAX;
        for _ in 0..2 {
            let shared = rng.between(2, 5);
            let len = rng.between(shared + 1, 20);
            logs.push(branch(&space, &logs[0], shared, len, &mut rng));
            lowest = lowest.min(shared + 1);
        }
        let mut nodes: Vec<Logs> = logs.iter().map(|log| holding(&space, &log[1..])).collect();
        // One that holds no branch.
        nodes.push(space.clone());
        for step in 0.. {
            let digest = |logs: &Logs| logs.summary().expect("held").digest;
            if nodes.iter().all(|node| digest(node) == digest(&nodes[0])) {
                break;
            }
            assert!(step < 300, "no end");
            let asks = rng.below(4) as usize;
            let mut asker = nodes.remove(asks);
            let answers = rng.below(3) as usize;
            sync_and_repair(&mut asker, &mut nodes[answers], &mut rng);
            nodes.insert(asks, asker);
        }
        let lowest = nodes[0].fork_at(&space.owner);
        let lowest = lowest.expect("two branches differ");
        let (state, revoked) = expected(&space, &logs, lowest);
        taken.set(taken.get() + u32::from(!revoked.is_empty()));
        for node in &nodes {
            assert_eq!(node.fork_at(&space.owner), Some(lowest));
            assert_eq!(node.entries(), nodes[0].entries());
            assert_eq!(node.revoked(), revoked);
            let mut effective = node.roster();
            effective.hold(&node.revoked());
            assert_eq!(
                effective.members().collect::<Vec<_>>(),
                state.members().collect::<Vec<_>>()
            );
            assert_eq!(effective.anyone(), state.anyone());
        }
    });
    let is_replay = std::env::var("HEADWATER_SEED").is_ok();
    assert!(is_replay || taken.get() > 50, "{taken:?} took something");
}

/// Two nodes that know of the fork, of which the second knows of a revocation in another branch.
fn two(revoked: u64) -> (Logs, Logs) {
    let mut space = Logs::create(1);
    let (id, secret) = (space.space, owner());
    let sign = |base: Option<AuthorHead>, drafts: Vec<EventDraft>| {
        sign_runs(&id, &secret, base, drafts)
            .expect("good drafts")
            .remove(0)
    };
    let key = |number: u64| {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&number.to_be_bytes());
        Subject::Key(MemberKey::from_bytes(bytes))
    };
    let grants =
        (0..1_000).map(|number| EventDraft::grant(Grant::new(key(number), Roles::READ), 0));
    let granted = sign(space.end(&secret.id()), grants.collect());
    let base = Some(granted.head());
    space.append(granted).expect("it goes on");
    let (mut one, mut other) = (space.clone(), space);
    let plain = |text: &'static str| vec![EventDraft::new(16, 0, text)];
    one.append(sign(base, plain("one"))).expect("a branch");
    let branch = sign(base, plain("other"));
    let mut at = Some(branch.head());
    other.append(branch).expect("a branch");
    for number in 0..revoked {
        let revocation = Revocation {
            subject: key(number),
            roles: Roles::READ,
            last: None,
        };
        let run = sign(at, vec![EventDraft::revoke(revocation, 0)]);
        at = Some(run.head());
        other.append(run).expect("a branch");
    }
    (one, other)
}

fn limits() -> SessionLimits {
    SessionLimits::default()
}

#[test]
fn evidence_goes_both_ways_in_batches_and_then_there_is_none_left_to_send() {
    for swapped in [false, true] {
        let (mut one, mut other) = two(700);
        if swapped {
            core::mem::swap(&mut one, &mut other);
        }
        let owner = one.owner;
        repair(&mut one, &mut other, owner, &limits()).expect("honest");
        assert_eq!(one.revoked().len(), 700);
        assert_eq!(one.entries(), other.entries());
        let batches = Rc::new(RefCell::new(Vec::new()));
        let counts = || {
            let batches = Rc::clone(&batches);
            let count: Lie = Box::new(move |message| {
                if let Message::SyncBatchV2(batch) = &message {
                    batches.borrow_mut().push(batch.runs.len());
                }
                vec![message]
            });
            Some(count)
        };
        let lies = Lies {
            requester: counts(),
            responder: counts(),
        };
        let ends = repair_with(&mut one, &mut other, owner, &limits(), lies);
        assert!(ends.expect("honest").is_some());
        assert_eq!(*batches.borrow(), [0, 0]);
    }
}

#[test]
fn whoever_is_behind_the_cut_learns_at_once_what_is_revoked_above_it() {
    let (mut one, mut other) = two(7);
    let owner = one.owner;
    repair(&mut one, &mut other, owner, &limits()).expect("honest");
    let mut behind = Logs::create(1);
    let (end, served) = repair(&mut behind, &mut other, owner, &limits()).expect("honest");
    assert_eq!((end.events, served.events), (1_000, 1_000));
    assert_eq!(behind.revoked().len(), 7);
    assert_eq!(behind.entries(), other.entries());
}

#[test]
fn whoever_is_asked_while_behind_the_cut_learns_it_when_it_asks() {
    let (mut one, mut other) = two(7);
    let owner = one.owner;
    repair(&mut one, &mut other, owner, &limits()).expect("honest");
    let mut behind = Logs::create(1);
    repair(&mut other, &mut behind, owner, &limits()).expect("honest");
    assert!(behind.revoked().is_empty());
    assert!(behind.fork_at(&owner).is_some());
    repair(&mut behind, &mut other, owner, &limits()).expect("honest");
    assert_eq!(behind.entries(), other.entries());
}

#[test]
fn a_list_is_shown_when_what_lies_below_the_cut_is_not_wanted() {
    let (mut one, mut other) = two(7);
    let owner = one.owner;
    repair(&mut one, &mut other, owner, &limits()).expect("honest");
    let mut behind = Logs::create(1);
    let config = ForkAskerConfig {
        request_id: ID,
        space: behind.space,
        author: owner,
        unwanted: Some(Unstored::OverQuota),
        limits: limits(),
    };
    let asking = Asking::with(&mut behind, config);
    let ends = carry(asking, &mut behind, &mut other, &limits(), Lies::default());
    let (end, served) = ends.expect("honest").expect("neither waits for ever");
    assert_eq!((end.events, served.events), (0, 0));
    assert_eq!(end.unstored, Some(Unstored::OverQuota));
    assert_eq!(end.fork, other.fork_at(&owner));
}

/// What the asker makes of an answerer that sends these runs as evidence.
fn told(runs: impl Fn(&Logs) -> Vec<VerifiedRun>) -> (Result<(), SessionError>, Logs) {
    let (mut one, mut other) = two(2);
    let owner = one.owner;
    let junk: Vec<_> = runs(&other);
    let junk: Vec<_> = junk
        .iter()
        .map(|run| run.run().as_bytes().clone())
        .collect();
    let lies = Lies {
        responder: Some(Box::new(move |message| match message {
            Message::SyncBatchV2(batch) if !batch.runs.is_empty() => {
                vec![Message::from(SyncBatchV2 {
                    runs: junk.clone(),
                    ..batch
                })]
            }
            other => vec![other],
        })),
        ..Lies::default()
    };
    let told = match repair_with(&mut one, &mut other, owner, &limits(), lies) {
        Ok(_) => Ok(()),
        Err(Failure::Requester(error)) => Err(error),
        Err(failure) => panic!("{failure:?}"),
    };
    (told, one)
}

fn revokes(logs: &Logs, secret: &AuthorSecret) -> VerifiedRun {
    let revocation = Revocation {
        subject: Subject::Anyone,
        roles: Roles::READ,
        last: None,
    };
    let draft = EventDraft::revoke(revocation, 0);
    sign_runs(&logs.space, secret, None, [draft])
        .expect("good")
        .remove(0)
}

#[test]
fn junk_sent_as_evidence_is_the_peers_fault_and_revokes_nothing() {
    let stranger = author(77);
    let (result, logs) = told(|logs| vec![revokes(logs, &stranger)]);
    assert!(
        matches!(result, Err(SessionError::ForeignBranch { .. })),
        "{result:?}"
    );
    assert_eq!(logs.revoked(), Revoked::new());
    // One that begins with something else.
    let (result, logs) = told(|logs| logs.runs(&logs.owner)[..1].to_vec());
    let error = result.expect_err("a genesis revokes nothing");
    assert!(
        matches!(error, SessionError::StrayEvidence { first: 1, .. }),
        "{error:?}"
    );
    assert_eq!(error.blame(), Blame::Peer);
    assert_eq!(logs.revoked(), Revoked::new());
    // Without the payload nothing is shown.
    let stub = |logs: &Logs| {
        let last = logs.runs(&logs.owner).last().expect("one").clone();
        vec![last.as_stubs()]
    };
    let (result, _) = told(stub);
    assert!(
        matches!(result, Err(SessionError::StrayEvidence { .. })),
        "{result:?}"
    );
    let (result, _) = told(|logs| {
        let last = logs.runs(&logs.owner).last().expect("one");
        vec![last.clone(); MAX_EVIDENCE_RUNS + 1]
    });
    assert!(
        matches!(result, Err(SessionError::TooMuchEvidence { .. })),
        "{result:?}"
    );
}

#[test]
fn evidence_of_what_takes_nothing_changes_nothing() {
    let owner = owner();
    let (result, logs) = told(|logs| vec![revokes(logs, &owner)]);
    assert_eq!(result, Ok(()));
    assert_eq!(logs.revoked(), Revoked::new());
}

#[test]
fn a_forged_signature_under_evidence_is_the_peers_fault() {
    let (mut one, mut other) = two(2);
    let owner = one.owner;
    let lies = Lies {
        responder: Some(Box::new(|message| match message {
            Message::SyncBatchV2(mut batch) if !batch.runs.is_empty() => {
                let mut bytes = batch.runs[0].to_vec();
                *bytes.last_mut().expect("a signature") ^= 1;
                batch.runs[0] = bytes.into();
                vec![batch.into()]
            }
            other => vec![other],
        })),
        ..Lies::default()
    };
    match repair_with(&mut one, &mut other, owner, &limits(), lies) {
        Err(Failure::Requester(error @ SessionError::InvalidRun(_))) => {
            assert_eq!(error.blame(), Blame::Peer);
        }
        _ => panic!("the asker sees it"),
    }
    assert_eq!(one.revoked(), Revoked::new());
}

#[test]
fn a_list_out_of_turn_is_the_peers_fault() {
    let (mut one, mut other) = two(2);
    let owner = one.owner;
    let lies = Lies {
        requester: Some(Box::new(|message| match message {
            Message::ForkLocator(_) => vec![
                ForkRevoked {
                    request_id: ID,
                    held: Vec::new(),
                }
                .into(),
            ],
            other => vec![other],
        })),
        ..Lies::default()
    };
    match repair_with(&mut one, &mut other, owner, &limits(), lies) {
        Err(Failure::Responder(error)) => assert_eq!(error.blame(), Blame::Peer),
        _ => panic!("the answerer sees it"),
    }
}
