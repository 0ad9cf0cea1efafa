//! An answerer against an asker that breaks the rules.

use headwater_proto::{SessionError, SessionLimits, fork::MAX_FORK_ROUNDS};
use headwater_wire::{
    AuthorHead, Blame, CloseCode, ForkBranch, ForkLocator, ForkProofError, ForkWant, Message, Run,
    VerifiedRun,
};

use super::{
    branch, branches, forker, holding,
    sides::{Answering, ID},
};
use crate::{
    logs::{Logs, author},
    rng::Rng,
};

const FORK: u64 = 300;

/// An answerer that holds the first of two branches of 400 events.
struct Scene {
    logs: Vec<Vec<VerifiedRun>>,
    held: Logs,
    answering: Answering,
}

impl Scene {
    fn new() -> Self {
        let space = Logs::create(1);
        let logs = branches(&space, &[FORK], &[400, 400], &mut Rng::new(4));
        Self {
            held: holding(&space, &logs[0]),
            logs,
            answering: Answering::new(SessionLimits::default()),
        }
    }

    fn hear(&mut self, message: impl Into<Message>) -> Result<(), SessionError> {
        self.answering.hear(&mut self.held, message.into())
    }

    fn locator(&self, entries: &[AuthorHead]) -> ForkLocator {
        ForkLocator {
            request_id: ID,
            space: self.held.space,
            author: forker().id(),
            forked: false,
            entries: entries.to_vec(),
        }
    }

    /// Entries of the other branch.
    fn theirs(&self, seqs: &[u64]) -> Vec<AuthorHead> {
        let at = |seq: &u64| {
            let id = self.logs[1].iter().find_map(|run| run.id_at(*seq));
            AuthorHead {
                seq: *seq,
                id: id.expect("held"),
            }
        };
        seqs.iter().map(at).collect()
    }

    /// Up to the point where a branch is awaited.
    fn parted() -> Self {
        let mut scene = Self::new();
        let locator = scene.locator(&scene.theirs(&[FORK - 1, FORK]));
        scene.hear(locator).expect("a locator");
        scene
    }

    fn branch(&self) -> Run {
        let run = self.logs[1].iter().find_map(|run| {
            let run = run.above(FORK - 1)?;
            (run.first_seq() == FORK).then_some(run)
        });
        run.expect("it goes on").into_run()
    }

    /// Up to the point where a want is awaited.
    fn told() -> Self {
        let mut scene = Self::parted();
        let branch = scene.branch();
        scene.hear(half(Some(&branch))).expect("a branch");
        scene.hear(half(None)).expect("no proof");
        assert_eq!(scene.held.fork_at(&forker().id()), Some(FORK));
        scene
    }
}

fn half(run: Option<&Run>) -> ForkBranch {
    ForkBranch {
        request_id: ID,
        run: run.map(|run| run.as_bytes().clone()),
    }
}

fn blamed(error: &SessionError, code: CloseCode) {
    assert_eq!(error.blame(), Blame::Peer, "{error}");
    assert_eq!(error.close_code(), code, "{error}");
}

#[test]
fn a_space_it_may_not_read_and_one_nobody_holds_are_refused_alike() {
    let mut scene = Scene::new();
    scene.answering.opens = false;
    let refused = scene
        .hear(scene.locator(&[]))
        .expect_err("not for this peer");
    let mut scene = Scene::new();
    let mut locator = scene.locator(&[]);
    locator.space = Logs::create(9).space;
    assert_eq!(scene.hear(locator), Err(refused.clone()));
    assert_eq!(refused.close_code(), CloseCode::Refused);
    assert_ne!(refused.blame(), Blame::Peer);
}

#[test]
fn refuses_a_wrong_first_message_and_whatever_is_out_of_phase() {
    let want = ForkWant {
        request_id: ID,
        above: 0,
        through: 9,
    };
    let wrong: [Message; 3] = [
        half(None).into(),
        want.clone().into(),
        headwater_wire::HeadsWanted { request_id: ID }.into(),
    ];
    for message in wrong {
        let error = Scene::new().hear(message).expect_err("no locator");
        assert!(matches!(error, SessionError::OutOfPhase { .. }));
        blamed(&error, CloseCode::ProtocolViolation);
    }
    let mut scene = Scene::parted();
    let again = scene.locator(&scene.theirs(&[5]));
    let error = scene.hear(again).expect_err("it is settled");
    assert!(matches!(error, SessionError::OutOfPhase { .. }));
    let mut scene = Scene::told();
    assert!(scene.hear(half(None)).is_err());
    let mut scene = Scene::parted();
    let mut other = half(None);
    other.request_id += 1;
    let error = scene.hear(other).expect_err("another request");
    assert!(matches!(error, SessionError::WrongRequest { .. }));
}

#[test]
fn refuses_rounds_without_end() {
    let mut scene = Scene::new();
    let ends = scene.locator(&scene.theirs(&[1, 400]));
    scene.hear(ends).expect("the first");
    // One step at a time, each inside the open range.
    for round in 2..=MAX_FORK_ROUNDS {
        let step = scene.locator(&scene.theirs(&[u64::from(round)]));
        scene.hear(step).expect("allowed");
    }
    let error = scene.hear(scene.locator(&scene.theirs(&[200])));
    let error = error.expect_err("too many");
    let max = MAX_FORK_ROUNDS;
    assert_eq!(error, SessionError::TooManyForkRounds { max });
    blamed(&error, CloseCode::ProtocolViolation);
}

#[test]
fn refuses_ids_that_jump_about_and_logs_that_change() {
    for seqs in [&[5, 399][..], &[1], &[300, 400], &[]] {
        let mut scene = Scene::new();
        let first = scene.locator(&scene.theirs(&[10, 390]));
        scene.hear(first).expect("the first");
        let jump = scene.locator(&scene.theirs(seqs));
        let error = scene.hear(jump).expect_err("outside the range");
        assert!(matches!(
            error,
            SessionError::LocatorOutOfRange {
                low: 10,
                high: 390,
                ..
            }
        ));
        blamed(&error, CloseCode::ProtocolViolation);
    }
    let mut scene = Scene::new();
    let first = scene.locator(&scene.theirs(&[10, 390]));
    scene.hear(first).expect("the first");
    let mut other = scene.locator(&scene.theirs(&[20]));
    other.author = author(3).id();
    let error = scene.hear(other).expect_err("another log");
    assert!(matches!(error, SessionError::LocatorOfAnotherLog { .. }));
    blamed(&error, CloseCode::ProtocolViolation);
}

#[test]
fn refuses_branches_that_prove_nothing_and_keeps_its_log() {
    let stranger = {
        let space = Logs::create(1);
        branch(&space.space, &author(3), &[], 0, 5, &mut Rng::new(2)).remove(0)
    };
    let late = Scene::new().branch().above(&Logs::create(1).space, FORK);
    let own = Scene::new().held.branch(&forker().id(), FORK);
    let cases = [
        (Some(stranger.run().clone()), "another author's"),
        (late, "begins too late"),
        (own, "our own"),
        (None, "nothing at all"),
    ];
    for (run, what) in cases {
        let mut scene = Scene::parted();
        let before = scene.held.entries();
        let error = scene.hear(half(run.as_ref())).expect_err(what);
        match what {
            "another author's" => assert!(matches!(error, SessionError::ForeignBranch { .. })),
            "begins too late" => assert!(matches!(error, SessionError::BranchStart { .. })),
            "our own" => assert!(matches!(
                error,
                SessionError::InvalidForkProof(ForkProofError::NoContradiction { .. })
            )),
            _ => assert!(matches!(error, SessionError::ForkProofMissing { .. })),
        }
        assert_eq!(error.blame(), Blame::Peer);
        assert_eq!(scene.held.entries(), before);
    }
}

#[test]
fn an_end_of_the_stream_is_normal_once_proofs_are_exchanged_and_not_before() {
    for early in [Scene::new(), Scene::parted()] {
        let mut early = early;
        let ended = early.answering.hang_up(&mut early.held);
        let error = ended.expect_err("too early");
        assert!(matches!(error, SessionError::StreamEnded { .. }));
        assert_ne!(error.blame(), Blame::Peer);
    }
    let mut scene = Scene::told();
    scene.answering.hang_up(&mut scene.held).expect("normal");
    let end = scene.answering.end.expect("over");
    assert_eq!((end.fork, end.is_lower, end.events), (Some(FORK), true, 0));
}

#[test]
fn serves_what_is_shown_and_no_run_from_above() {
    for (above, through) in [(0, 5), (0, 1_000), (FORK - 2, FORK + 50), (FORK, FORK + 9)] {
        let mut scene = Scene::told();
        let want = ForkWant {
            request_id: ID,
            above,
            through,
        };
        scene.hear(want).expect("a want");
        let end = scene.answering.end.expect("over");
        let mut last = above;
        for message in &scene.answering.sent {
            let Message::SyncBatchV2(batch) = message else {
                continue;
            };
            for bytes in &batch.runs {
                let run = Run::decode(bytes.clone()).expect("a run");
                assert!(run.first_seq() > above && run.first_seq() < FORK);
                let run = run.verify(&scene.held.space).expect("valid");
                last = run.last_seq();
            }
        }
        // Of a run that spans the cut the signature needs all.
        let spans = scene.logs[0]
            .iter()
            .find(|run| run.id_at(FORK - 1).is_some());
        assert!(last <= spans.expect("held").last_seq().max(above));
        assert!(end.events >= through.min(FORK - 1).saturating_sub(above));
    }
}
