//! An asker against an answerer that breaks the rules: each break has an error of its own.

use bytes::Bytes;
use headwater_proto::{SessionError, SessionLimits};
use headwater_wire::{
    Blame, Busy, CloseCode, ForkAnswer, ForkBranch, ForkProofError, ForkWant, Message, Run,
    RunError, SyncBatchV2, VerifiedForkProof, VerifiedRun,
};

use super::{
    branch, branches, forker, holding,
    sides::{Asking, ID},
};
use crate::{
    logs::{Logs, author},
    rng::Rng,
};

const FORK: u64 = 7;

/// A space, two branches of 20 events that part at [`FORK`], and an asker that holds the first.
struct Scene {
    space: Logs,
    logs: Vec<Vec<VerifiedRun>>,
    held: Logs,
    asking: Asking,
}

impl Scene {
    fn new() -> Self {
        let mut rng = Rng::new(4);
        let space = Logs::create(1);
        let logs = branches(&space, &[FORK], &[20, 20], &mut rng);
        let held = holding(&space, &logs[0]);
        Self::of(space, logs, held)
    }

    /// The asker holds both branches, and with them a proof; of the log it has what lies below.
    fn who_knows() -> Self {
        let mut scene = Self::new();
        for run in &scene.logs[1] {
            drop(scene.held.append(run.clone()));
        }
        let Self {
            space, logs, held, ..
        } = scene;
        Self::of(space, logs, held)
    }

    /// The asker holds nothing of the log.
    fn who_lacks() -> Self {
        let Self { space, logs, .. } = Self::new();
        let held = space.clone();
        Self::of(space, logs, held)
    }

    fn of(space: Logs, logs: Vec<Vec<VerifiedRun>>, mut held: Logs) -> Self {
        let asking = Asking::new(&mut held, forker().id(), SessionLimits::default());
        Self {
            space,
            logs,
            held,
            asking,
        }
    }

    fn hear(&mut self, message: impl Into<Message>) -> Result<(), SessionError> {
        self.asking.hear(&mut self.held, message.into())
    }

    /// Answers locators as the second branch would.
    fn parted(mut self) -> Self {
        while let Some(Message::ForkLocator(locator)) = self.asking.sent.last() {
            let seqs = locator.entries.iter().map(|entry| entry.seq);
            let same = seqs.clone().filter(|seq| *seq < FORK).max();
            let differs = seqs.clone().find(|seq| *seq >= FORK);
            self.hear(answer(same.unwrap_or(0), differs)).expect("true");
        }
        assert!(matches!(
            self.asking.sent.last(),
            Some(Message::ForkBranch(_))
        ));
        self
    }

    fn proof(&self) -> VerifiedForkProof {
        let pairs = self.logs[0].iter();
        let pairs = pairs.flat_map(|one| self.logs[1].iter().map(move |other| (one, other)));
        let proofs = pairs.filter_map(|(one, other)| VerifiedForkProof::of(one, other));
        proofs
            .min_by_key(VerifiedForkProof::seq)
            .expect("they part")
    }

    /// Up to the point where what is wanted is awaited.
    fn wanting() -> Self {
        let mut scene = Self::who_lacks();
        let proof = scene.proof();
        assert_eq!(proof.seq(), FORK);
        scene.hear(answer(0, None)).expect("nothing differs");
        let (first, second) = proof.into_proof().into_runs();
        scene.hear(half(&first)).expect("a half");
        scene.hear(half(&second)).expect("a half");
        scene.hear(no_more()).expect("a proof");
        let want = ForkWant {
            request_id: ID,
            above: 0,
            through: FORK - 1,
        };
        assert_eq!(scene.asking.sent.last(), Some(&want.into()));
        scene
    }
}

fn answer(same: u64, differs: Option<u64>) -> ForkAnswer {
    ForkAnswer {
        request_id: ID,
        forked: false,
        same,
        differs,
    }
}

fn half(run: &Run) -> ForkBranch {
    ForkBranch {
        request_id: ID,
        run: Some(run.as_bytes().clone()),
    }
}

fn no_more() -> ForkBranch {
    ForkBranch {
        request_id: ID,
        run: None,
    }
}

fn batch(runs: &[VerifiedRun], more: bool) -> SyncBatchV2 {
    SyncBatchV2 {
        request_id: ID,
        more,
        runs: runs
            .iter()
            .map(|run| run.run().as_bytes().clone())
            .collect(),
    }
}

/// The peer is at fault, and loses its connection.
fn blamed(error: &SessionError, code: CloseCode) {
    assert_eq!(error.blame(), Blame::Peer, "{error}");
    assert_eq!(error.close_code(), code, "{error}");
    assert!(code.is_connection_wide());
}

#[test]
fn refuses_answers_that_no_log_gives() {
    for (same, differs) in [(3, Some(4)), (99, None), (20, Some(21)), (0, Some(16))] {
        let mut scene = Scene::new();
        let error = scene.hear(answer(same, differs)).expect_err("a lie");
        assert_eq!(error, SessionError::UnfoundedForkAnswer { same, differs });
        blamed(&error, CloseCode::ProtocolViolation);
        assert_eq!(scene.asking.machine.next_timeout(), None);
    }
    // First it holds another event at 12, then its log ends below.
    let mut scene = Scene::new();
    scene.hear(answer(4, Some(12))).expect("possible");
    let error = scene.hear(answer(5, None)).expect_err("a contradiction");
    blamed(&error, CloseCode::ProtocolViolation);
}

#[test]
fn an_answerer_that_says_no_to_everything_gains_no_round() {
    let mut rng = Rng::new(1);
    let space = Logs::create(1);
    let log = branch(&space.space, &forker(), &[], 0, 3_000, &mut rng);
    let held = holding(&space, &log);
    for says_same in [false, true] {
        let mut scene = Scene::of(space.clone(), Vec::new(), held.clone());
        let mut rounds = 0;
        while let Some(Message::ForkLocator(locator)) = scene.asking.sent.last() {
            rounds += 1;
            let seqs: Vec<u64> = locator.entries.iter().map(|entry| entry.seq).collect();
            let answer = match (says_same, &seqs[..]) {
                (false, seqs) => answer(0, Some(seqs[0])),
                (true, [.., same, differs]) => answer(*same, (rounds == 1).then_some(*differs)),
                (true, _) => break,
            };
            drop(scene.hear(answer));
        }
        assert!(rounds <= 4, "{rounds}");
    }
}

#[test]
fn refuses_messages_out_of_phase_and_of_other_requests() {
    let mut other = answer(0, None);
    other.request_id = ID + 1;
    let wrong = SessionError::WrongRequest {
        expected: ID,
        found: ID + 1,
    };
    assert_eq!(Scene::new().hear(other), Err(wrong));
    let early: [Message; 4] = [
        no_more().into(),
        batch(&[], false).into(),
        ForkWant {
            request_id: ID,
            above: 0,
            through: 1,
        }
        .into(),
        headwater_wire::HeadsWanted { request_id: ID }.into(),
    ];
    for message in early {
        let error = Scene::new().hear(message.clone()).expect_err("too early");
        let expected = SessionError::OutOfPhase {
            message: message.name(),
            phase: "awaiting the answer to a locator",
        };
        assert_eq!(error, expected);
        blamed(&error, CloseCode::ProtocolViolation);
    }
    let mut parted = Scene::new().parted();
    assert!(matches!(
        parted.hear(answer(0, None)),
        Err(SessionError::OutOfPhase {
            phase: "awaiting a branch",
            ..
        })
    ));
    let mut wanting = Scene::wanting();
    assert!(matches!(
        wanting.hear(no_more()),
        Err(SessionError::OutOfPhase { .. })
    ));
    let busy = Busy {
        request_id: ID,
        retry_after_ms: 70,
    };
    assert!(matches!(
        Scene::new().hear(busy),
        Err(SessionError::Busy { .. })
    ));
    let mut scene = Scene::new();
    let ended = scene.asking.machine.handle_stream_end();
    assert!(matches!(ended, Err(SessionError::StreamEnded { .. })));
}

#[test]
fn refuses_branches_of_another_author_space_or_start() {
    let mut rng = Rng::new(8);
    let scene = Scene::new();
    let stranger = branch(&scene.space.space, &author(3), &[], 0, 9, &mut rng);
    let error = Scene::new().parted().hear(half(stranger[0].run()));
    let error = error.expect_err("another author's");
    assert_eq!(
        error,
        SessionError::ForeignBranch {
            expected: forker().id(),
            found: author(3).id()
        }
    );
    blamed(&error, CloseCode::InvalidRun);

    let whole = scene.logs[1].iter().find(|run| run.last_seq() > FORK);
    let whole = whole.expect("long enough");
    let late = whole
        .above(FORK.max(whole.first_seq()))
        .expect("long enough");
    let error = Scene::new().parted().hear(half(late.run()));
    let error = error.expect_err("too late a start");
    assert_eq!(
        error,
        SessionError::BranchStart {
            author: forker().id(),
            expected: FORK,
            found: late.first_seq()
        }
    );
    blamed(&error, CloseCode::InvalidRun);

    let elsewhere = Logs::create(2);
    let other = branches(&elsewhere, &[FORK], &[20, 20], &mut Rng::new(4));
    let run = other[1].iter().find_map(|run| {
        let run = run.above(FORK - 1)?;
        (run.first_seq() == FORK).then_some(run)
    });
    let error = Scene::new().parted().hear(half(run.expect("one").run()));
    let error = error.expect_err("another space's");
    assert!(matches!(
        error,
        SessionError::InvalidForkProof(ForkProofError::Run(RunError::WrongSignature { .. }))
    ));
    blamed(&error, CloseCode::InvalidRun);

    let nonsense = ForkBranch {
        request_id: ID,
        run: Some(Bytes::from_static(b"no run")),
    };
    let error = Scene::new().parted().hear(nonsense).expect_err("nonsense");
    blamed(&error, CloseCode::Malformed);
    let error = Scene::new().parted().hear(no_more()).expect_err("nothing");
    assert!(matches!(error, SessionError::ForkProofMissing { .. }));
}

#[test]
fn refuses_a_branch_that_is_our_own_and_stays_as_it_was() {
    let mut scene = Scene::new().parted();
    let own = scene.held.branch(&forker().id(), FORK).expect("held");
    let before = scene.held.entries();
    let error = scene.hear(half(&own)).expect_err("no contradiction");
    assert_eq!(
        error,
        SessionError::InvalidForkProof(ForkProofError::NoContradiction {
            author: forker().id(),
            first: FORK,
            second: FORK
        })
    );
    blamed(&error, CloseCode::InvalidRun);
    assert_eq!(scene.held.entries(), before);
}

#[test]
fn refuses_claims_of_a_proof_without_one_halves_and_thirds() {
    let claim = ForkAnswer {
        forked: true,
        ..answer(20, None)
    };
    let told = || {
        let mut scene = Scene::new();
        scene.hear(claim.clone()).expect("a claim");
        scene
    };
    let missing = Err(SessionError::ForkProofMissing {
        author: forker().id(),
    });
    assert_eq!(told().hear(no_more()), missing);
    let (first, second) = told().proof().into_proof().into_runs();
    let mut scene = told();
    scene.hear(half(&first)).expect("a half");
    assert_eq!(scene.hear(no_more()), missing);
    let mut scene = told();
    scene.hear(half(&first)).expect("a half");
    scene.hear(half(&second)).expect("a half");
    let third = scene.hear(half(&second)).expect_err("a third");
    assert!(matches!(third, SessionError::OutOfPhase { .. }));

    let mut scene = told();
    scene.hear(half(&first)).expect("a half");
    scene.hear(half(&first)).expect("a half");
    let error = scene.hear(no_more()).expect_err("they agree");
    assert!(matches!(error, SessionError::InvalidForkProof(_)));
    blamed(&error, CloseCode::InvalidRun);
    assert_eq!(scene.held.fork_at(&forker().id()), None);
    // Without a claim it is no more than a race.
    let mut scene = Scene::new();
    scene.hear(answer(20, None)).expect("the same");
    scene.hear(no_more()).expect("nobody knows of a fork");
    let end = scene.asking.end.expect("over");
    assert_eq!((end.fork, end.parted_at), (None, None));
}

#[test]
fn a_proof_that_is_no_lower_than_ours_is_not_even_verified() {
    let mut scene = Scene::who_knows();
    scene.hear(answer(20, None)).expect("the same log");
    let (first, _) = scene.proof().into_proof().into_runs();
    scene.hear(half(&first)).expect("a half");
    scene.hear(half(&first)).expect("a half");
    scene.hear(no_more()).expect("no news");
    let end = scene.asking.end.expect("over");
    assert_eq!((end.fork, end.is_lower), (Some(FORK), false));
}

#[test]
fn refuses_runs_that_are_not_wanted() {
    let scene = Scene::wanting();
    let log = &scene.logs[0];
    let wanted = log.iter().filter(|run| run.first_seq() < FORK).count();
    let mut good = Scene::wanting();
    good.hear(batch(&log[..wanted], true)).expect("wanted");
    good.hear(batch(&[], false)).expect("the end");
    let end = good.asking.end.expect("over");
    assert!(end.events + 1 >= FORK && end.fork == Some(FORK));

    let mut more = Scene::wanting();
    let error = more.hear(batch(&log[..=wanted], false)).expect_err("more");
    assert!(matches!(error, SessionError::RunBeyondWant { .. }));
    blamed(&error, CloseCode::PlanExceeded);
    let gap = Scene::wanting().hear(batch(&log[1..], true));
    let error = gap.expect_err("a gap");
    assert!(matches!(error, SessionError::NotContiguous { .. }));
    blamed(&error, CloseCode::InvalidRun);
    let empty = Scene::wanting().hear(batch(&[], true));
    assert_eq!(empty, Err(SessionError::EmptyBatch));
    let stranger = scene.space.runs(&scene.space.owner).to_vec();
    let error = Scene::wanting().hear(batch(&stranger, true));
    assert!(matches!(error, Err(SessionError::RunOutsideSegment { .. })));
    let mut forged = log[0].run().as_bytes().to_vec();
    *forged.last_mut().expect("bytes") ^= 1;
    let mut lie = batch(&log[..1], true);
    lie.runs[0] = forged.into();
    let error = Scene::wanting().hear(lie).expect_err("forged");
    blamed(&error, CloseCode::InvalidRun);
    // Less than wanted is no lie: it may hold no more.
    let mut less = Scene::wanting();
    less.hear(batch(&[], false)).expect("nothing");
    assert_eq!(less.asking.end.expect("over").events, 0);
}
