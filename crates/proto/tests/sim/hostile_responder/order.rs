//! Phases, requests and plans.

use headwater_proto::SessionError;
use headwater_wire::{AuthorId, Blame, CloseCode, HeadsWanted, Message, Segment};

use super::{
    ID, Puppet, asked_for_heads, completion, empty, every_message, news, nothing_of, others, plan,
    space, totals,
};
use crate::{
    logs::{Logs, author},
    rng::Rng,
};

#[test]
fn refuses_every_message_that_is_out_of_phase() {
    let digest = space().summary().expect("held").digest;
    type Phase = (&'static [&'static str], fn() -> Puppet);
    let phases: [Phase; 4] = [
        (&["HeadsWanted", "Busy", "SyncBatchV2"], || {
            Puppet::new(&space(), |_| {})
        }),
        (&["SyncPlan", "Busy"], asked_for_heads),
        (&["SyncPlan", "SyncBatchV2", "ForkNotice"], || {
            asked_for_heads().after([nothing_of(Segment::Owner)])
        }),
        (&["HistorySyncComplete"], || {
            Puppet::new(&space(), |_| {}).after([empty(false)])
        }),
    ];
    let over = || Puppet::new(&space(), |_| {}).after([empty(false), completion(digest).into()]);
    for message in every_message() {
        for (allowed, puppet) in &phases {
            if allowed.contains(&message.name()) {
                continue;
            }
            check_out_of_phase(puppet(), &message);
        }
        // A second answer to one request, too.
        check_out_of_phase(over(), &message);
    }
    // A batch with runs is no answer to a digest.
    check_out_of_phase(Puppet::new(&space(), |_| {}), &news(&space(), 2, 3));
}

fn check_out_of_phase(mut puppet: Puppet, message: &Message) {
    let error = puppet.hear(message.clone()).expect_err("out of phase");
    assert!(
        matches!(error, SessionError::OutOfPhase { .. }),
        "{}: {error}",
        message.name()
    );
    assert_eq!(error.blame(), Blame::Peer);
    assert_eq!(error.close_code(), CloseCode::ProtocolViolation);
}

#[test]
fn refuses_every_message_for_another_request() {
    for message in every_message() {
        let mut puppet = Puppet::new(&space(), |config| config.request_id = 6);
        assert_eq!(
            puppet.hear(message),
            Err(SessionError::WrongRequest {
                expected: 6,
                found: ID
            })
        );
    }
}

#[test]
fn refuses_plans_out_of_order() {
    let authors = others(&space());
    let through = |at: usize| nothing_of(Segment::Through(authors[at]));
    let cases: Vec<Vec<Message>> = vec![
        vec![nothing_of(Segment::Last)],
        vec![through(0)],
        vec![nothing_of(Segment::Owner), through(2), through(1)],
        vec![
            nothing_of(Segment::Owner),
            nothing_of(Segment::Last),
            through(1),
        ],
        vec![
            nothing_of(Segment::Owner),
            through(1),
            nothing_of(Segment::Owner),
        ],
    ];
    for mut messages in cases {
        let last = messages.pop().expect("there is one");
        let mut puppet = asked_for_heads().after(messages);
        let error = puppet.hear(last).expect_err("out of order");
        assert!(
            matches!(error, SessionError::PlanOutOfOrder { .. }),
            "{error}"
        );
        assert_eq!(error.close_code(), CloseCode::ProtocolViolation);
    }
}

#[test]
fn refuses_a_plan_ahead_of_the_stated_heads() {
    let mut logs = Logs::create(1);
    for n in 2..=30 {
        logs.write(&author(n), 1, &mut Rng::new(1));
    }
    // One head a chunk: the window closes after 16 of 29 heads.
    let begin = || {
        Puppet::new(&logs, |config| config.limits.page_heads = 2).after([
            HeadsWanted { request_id: ID }.into(),
            nothing_of(Segment::Owner),
        ])
    };
    let authors = others(&logs);
    let stated: Vec<_> = begin().sent.into_iter().filter(is_chunk).collect();
    assert_eq!(stated.len(), 16);
    for segment in [Segment::Last, Segment::Through(authors[28])] {
        assert_eq!(
            begin().hear(nothing_of(segment)),
            Err(SessionError::PlanAheadOfHeads { found: segment })
        );
    }
    assert_eq!(
        begin().hear(nothing_of(Segment::Through(authors[3]))),
        Ok(())
    );
}

fn is_chunk(message: &Message) -> bool {
    matches!(message, Message::HeadsChunk(_))
}

#[test]
fn refuses_a_plan_for_more_authors_than_a_segment_holds() {
    let owner = plan(Segment::Owner, totals(2, 3));
    let error = asked_for_heads().hear(owner).expect_err("too wide");
    assert_eq!(error, SessionError::PlanTooWide { found: 2, max: 1 });
    let last = plan(Segment::Last, totals(1_025, 1_025));
    let error = asked_for_heads()
        .after([nothing_of(Segment::Owner)])
        .hear(last);
    let expected = SessionError::PlanTooWide {
        found: 1_025,
        max: 1_024,
    };
    assert_eq!(error, Err(expected));
}

#[test]
fn accepts_a_revised_plan_only_while_it_promises_more_and_once_an_author() {
    let begin = || {
        asked_for_heads().after([
            nothing_of(Segment::Owner),
            plan(Segment::Last, totals(1, 5)),
        ])
    };
    let revised = |puppet: &mut Puppet, totals| puppet.hear(plan(Segment::Last, totals));
    for smaller in [totals(1, 5), totals(1, 4), totals(2, 6)] {
        let error = revised(&mut begin(), smaller).expect_err("no more than before");
        assert!(
            matches!(error, SessionError::PlanRevision { .. }),
            "{error}"
        );
    }
    let mut puppet = begin();
    assert_eq!(revised(&mut puppet, totals(1, 6)), Ok(()));
    assert!(revised(&mut puppet, totals(1, 7)).is_err());
    // What was promised has come: nothing is left to be merged.
    let mut puppet = begin().after([news(&space(), 2, 5)]);
    assert!(revised(&mut puppet, totals(1, 6)).is_err());
}

#[test]
fn each_revision_of_a_plan_has_a_run_of_an_author_of_its_own() {
    let logs = space();
    let authors = others(&logs);
    let number = |at: usize| (2..=5).find(|n| author(*n).id() == authors[at]).unwrap();
    let revised = |events| plan(Segment::Last, totals(4, events));
    let begin = || {
        asked_for_heads().after([
            nothing_of(Segment::Owner),
            plan(Segment::Last, totals(4, 50)),
            revised(51),
        ])
    };
    // Two in a row speak of one run.
    let error = begin().hear(revised(52)).expect_err("no run between");
    assert!(matches!(error, SessionError::PlanRevision { .. }));
    let mut puppet = begin().after([news(&logs, number(0), 3), revised(52)]);
    // Nor is a further run of the same author enough.
    let more = news(&puppet.logs, number(0), 3);
    puppet.hear(more).expect("planned");
    assert!(puppet.hear(revised(53)).is_err());
    begin().after([
        news(&logs, number(0), 3),
        revised(52),
        news(&logs, number(1), 3),
        revised(53),
    ]);
}

#[test]
fn a_revised_plan_does_not_stretch_the_budget() {
    let logs = space();
    let mut puppet = Puppet::new(&logs, |config| config.budget.events = Some(2)).after([
        HeadsWanted { request_id: ID }.into(),
        plan(Segment::Owner, totals(1, 50)),
        plan(Segment::Owner, totals(1, 5_000)),
    ]);
    let held = puppet.logs.events().len();
    let error = (0..3).find_map(|_| {
        let batch = news(&puppet.logs, 1, 1);
        puppet.hear(batch).err()
    });
    assert_eq!(error, Some(SessionError::BudgetExceeded));
    assert_eq!(puppet.logs.events().len(), held + 2);
}

#[test]
fn refuses_plans_without_end() {
    let mut puppet = Puppet::new(&space(), |config| config.limits.max_authors = 6).after([
        HeadsWanted { request_id: ID }.into(),
        nothing_of(Segment::Owner),
    ]);
    let error = (0..100).find_map(|n| {
        let segment = Segment::Through(AuthorId::from_bytes([n; 32]));
        puppet.hear(nothing_of(segment)).err()
    });
    assert_eq!(error, Some(SessionError::TooManyAuthors { limit: 6 }));
}
