//! Runs, batches and fork notices.

use headwater_proto::{AppliedRun, SessionError};
use headwater_wire::{
    AppendError, AuthorHead, Blame, ClockEntry, CloseCode, ForkNotice, HeadsWanted, Message,
    OverQuota, PlanTotals, Segment, SyncBatchV2, SyncOutcome, Truncation,
};

use super::{
    ID, NOW, Puppet, asked_for_heads, empty, news, nothing_of, notice, others, plan, space, totals,
};
use crate::{
    logs::{Logs, author},
    rng::Rng,
};

#[test]
fn refuses_runs_of_authors_that_do_not_belong_to_the_segment() {
    let logs = space();
    let authors = others(&logs);
    let number = |at: usize| (2..=5).find(|n| author(*n).id() == authors[at]).unwrap();
    let owner = || nothing_of(Segment::Owner);
    let wide = totals(4, 40);
    let cases: Vec<(Vec<Message>, Message)> = vec![
        // Not the owner, in the owner's segment.
        (vec![plan(Segment::Owner, totals(1, 9))], news(&logs, 2, 3)),
        // The owner, in another segment.
        (vec![owner(), plan(Segment::Last, wide)], news(&logs, 1, 3)),
        // Above the segment, and below it.
        (
            vec![owner(), plan(Segment::Through(authors[1]), wide)],
            news(&logs, number(2), 3),
        ),
        (
            vec![
                owner(),
                nothing_of(Segment::Through(authors[1])),
                plan(Segment::Last, wide),
            ],
            news(&logs, number(1), 3),
        ),
        // After a higher author.
        (
            vec![
                owner(),
                plan(Segment::Last, wide),
                news(&logs, number(2), 3),
            ],
            news(&logs, number(1), 3),
        ),
    ];
    for (before, batch) in cases {
        let mut puppet = asked_for_heads().after(before);
        let held = puppet.logs.events();
        let error = puppet.hear(batch).expect_err("does not belong");
        assert!(
            matches!(error, SessionError::RunOutsideSegment { .. }),
            "{error}"
        );
        assert_eq!(error.close_code(), CloseCode::InvalidRun);
        assert_eq!(puppet.logs.events(), held);
    }
}

#[test]
fn refuses_a_gap_and_an_overlap() {
    let logs = space();
    let author = author(2).id();
    let begin = || {
        asked_for_heads().after([
            nothing_of(Segment::Owner),
            plan(Segment::Last, totals(1, 20)),
        ])
    };
    let refused = |batch: Message, found| {
        let expected = 11;
        let error = SessionError::NotContiguous {
            author,
            expected,
            found,
        };
        assert_eq!(begin().hear(batch), Err(error));
    };
    let mut longer = logs.clone();
    longer.write(&crate::logs::author(2), 4, &mut Rng::new(1));
    refused(news(&longer, 2, 3), 15);
    refused(news(&Logs::create(1), 2, 3), 1);
}

#[test]
fn refuses_more_than_was_planned() {
    let logs = space();
    let exceeded = |totals, batch| {
        let mut puppet =
            asked_for_heads().after([nothing_of(Segment::Owner), plan(Segment::Last, totals)]);
        match puppet.hear(batch) {
            Err(error @ SessionError::PlanExceeded { unit, .. }) => {
                assert_eq!(error.close_code(), CloseCode::PlanExceeded);
                unit
            }
            other => panic!("{other:?}"),
        }
    };
    let many = PlanTotals {
        authors: 0,
        events: 50,
        payload_bytes: 5_000,
    };
    assert_eq!(exceeded(many, news(&logs, 2, 3)), "authors");
    assert_eq!(exceeded(totals(1, 2), news(&logs, 2, 3)), "events");
    let light = PlanTotals {
        authors: 1,
        events: 50,
        payload_bytes: 2,
    };
    assert_eq!(exceeded(light, news(&logs, 2, 30)), "payload bytes");
}

#[test]
fn refuses_less_than_was_planned() {
    let begin =
        || asked_for_heads().after([plan(Segment::Owner, totals(1, 9)), news(&space(), 1, 3)]);
    let short = SessionError::PlanNotMet {
        planned: 9,
        received: 3,
    };
    assert_eq!(begin().hear(nothing_of(Segment::Last)), Err(short.clone()));
    assert_eq!(begin().hear(empty(false)), Err(short));
    // The history may not end before its last segment either.
    let mut early = asked_for_heads().after([nothing_of(Segment::Owner)]);
    assert!(early.hear(empty(false)).is_err());
}

#[test]
fn refuses_empty_batches_and_bytes_that_are_no_run() {
    let begin = || asked_for_heads().after([plan(Segment::Owner, totals(1, 9))]);
    assert_eq!(begin().hear(empty(true)), Err(SessionError::EmptyBatch));
    let garbage = SyncBatchV2 {
        request_id: ID,
        runs: vec![vec![1; 200].into()],
        more: true,
    };
    let error = begin().hear(garbage).expect_err("no run");
    assert!(matches!(error, SessionError::RunDecode(_)), "{error}");
    assert_eq!(error.close_code(), CloseCode::Malformed);
}

#[test]
fn a_run_with_a_wrong_signature_ends_the_sync_and_is_not_stored() {
    let Message::SyncBatchV2(mut batch) = news(&space(), 1, 1) else {
        unreachable!()
    };
    let mut bytes = batch.runs[0].to_vec();
    *bytes.last_mut().expect("a signature") ^= 1;
    batch.runs[0] = bytes.into();
    let mut puppet = asked_for_heads().after([plan(Segment::Owner, totals(1, 1))]);
    let held = puppet.logs.events();
    let error = puppet.hear(batch).expect_err("wrong signature");
    assert!(matches!(error, SessionError::InvalidRun(_)), "{error}");
    assert_eq!(error.blame(), Blame::Peer);
    assert_eq!(puppet.logs.events(), held);
    assert!(!puppet.requester.wants_message());
}

#[test]
fn refuses_fork_notices_about_nothing_we_stated() {
    let logs = space();
    let authors = others(&logs);
    let good = |at: usize| notice(&logs, authors[at]);
    let begin = || {
        asked_for_heads().after([
            nothing_of(Segment::Owner),
            plan(Segment::Through(authors[2]), totals(4, 40)),
        ])
    };
    assert_eq!(begin().hear(good(0)), Ok(()));
    let held = good(0).held;
    let unknown = author(77).id();
    let unknown = ForkNotice {
        author: unknown,
        stated: None,
        held: ClockEntry {
            author: unknown,
            ..held
        },
        ..good(0)
    };
    let other_head = ForkNotice {
        stated: Some(held),
        held: logs.head(&authors[0]).expect("held").entry,
        ..good(0)
    };
    let not_stated = ForkNotice {
        stated: None,
        held: ClockEntry {
            forked: true,
            ..held
        },
        ..good(0)
    };
    let no_fork = ForkNotice {
        held: logs.head(&authors[0]).expect("held").entry,
        ..good(0)
    };
    let mut behind = good(0);
    behind.held.head.seq -= 1;
    for lie in [
        unknown,
        other_head,
        not_stated,
        no_fork,
        behind,
        good(3),
        notice(&logs, logs.owner),
    ] {
        let author = lie.author;
        let expected = Err(SessionError::UnfoundedForkNotice { author });
        assert_eq!(begin().hear(lie), expected);
    }
    let mut twice = begin().after([good(1).into()]);
    assert!(twice.hear(good(1)).is_err());
    let mut late = asked_for_heads().after([
        nothing_of(Segment::Owner),
        plan(Segment::Last, totals(4, 40)),
        news(
            &logs,
            (2..=5).find(|n| author(*n).id() == authors[0]).unwrap(),
            1,
        ),
    ]);
    assert!(late.hear(good(1)).is_err());
    let mut descending = begin().after([good(1).into()]);
    assert!(descending.hear(good(0)).is_err());
}

#[test]
fn notices_of_authors_not_stated_are_bounded_and_their_runs_refused() {
    let logs = space();
    let notice_of = |secret: u64| ForkNotice {
        request_id: ID,
        author: author(secret).id(),
        stated: None,
        held: ClockEntry {
            author: author(secret).id(),
            head: AuthorHead::NONE,
            forked: true,
            revoked: headwater_wire::RevokedDigest::NONE,
        },
    };
    let begin = || {
        asked_for_heads().after([
            nothing_of(Segment::Owner),
            plan(Segment::Last, totals(4, 40)),
        ])
    };
    let mut strangers: Vec<u64> = (1_000..2_200).collect();
    strangers.sort_by_key(|n| author(*n).id());
    let mut puppet = begin();
    let mut hear = |n: &u64| puppet.hear(notice_of(*n));
    let (last, first) = strangers.split_last().expect("many");
    let (max, found) = (1_024, 1_025);
    assert!(first[..1_024].iter().all(|n| hear(n).is_ok()));
    assert_eq!(hear(last), Err(SessionError::PlanTooWide { found, max }));

    let mut puppet = begin().after([notice_of(1_000).into()]);
    assert_eq!(
        puppet.hear(news(&logs, 1_000, 2)),
        Err(SessionError::RunOfForkedAuthor {
            author: author(1_000).id()
        })
    );
}

#[test]
fn refuses_runs_of_an_author_reported_as_forked() {
    let logs = space();
    let forked = author(2).id();
    let mut puppet = asked_for_heads().after([
        nothing_of(Segment::Owner),
        plan(Segment::Last, totals(4, 40)),
        notice(&logs, forked).into(),
    ]);
    assert_eq!(
        puppet.hear(news(&logs, 2, 3)),
        Err(SessionError::RunOfForkedAuthor { author: forked })
    );
}

#[test]
fn refuses_runs_of_an_author_whom_the_request_leaves_out() {
    let logs = space();
    let unwanted = author(3).id();
    let puppet = Puppet::new(&logs, |config| config.except = vec![unwanted]);
    let Some(Message::SyncRequestV2(request)) = puppet.sent.first() else {
        panic!("it asks first");
    };
    assert_eq!(request.filter.excepted(), Some(&[unwanted][..]));
    let mut puppet = puppet.after([
        HeadsWanted { request_id: ID }.into(),
        nothing_of(Segment::Owner),
        plan(Segment::Last, totals(1, 3)),
    ]);
    let error = puppet.hear(news(&logs, 3, 3)).expect_err("left out");
    let SessionError::RunOfExceptedAuthor { author } = error else {
        panic!("{error}");
    };
    assert_eq!(author, unwanted);
    assert_eq!(error.blame(), Blame::Peer);
    assert_eq!(puppet.logs.events(), logs.events());
}

/// Nobody is to blame for what this side does not store.
#[test]
fn ends_a_history_of_which_too_much_is_not_stored_as_truncated() {
    let logs = space();
    for over_quota in [false, true] {
        let mut puppet = Puppet::new(&logs, |config| config.limits.max_refused_bytes = 100);
        puppet.applies_at_once = false;
        let mut puppet = puppet.after([
            HeadsWanted { request_id: ID }.into(),
            nothing_of(Segment::Owner),
            plan(Segment::Last, totals(2, 40)),
            news(&logs, 3, 9),
        ]);
        let author = author(3).id();
        for applied in std::mem::take(&mut puppet.unapplied) {
            let refused = |applied: AppliedRun| AppliedRun {
                outcome: Err(match over_quota {
                    false => AppendError::NotAccepted {
                        author,
                        through: None,
                    },
                    true => AppendError::OverQuota {
                        author,
                        quota: OverQuota::AuthorBytes,
                        limit: 1,
                    },
                }),
                ..applied
            };
            let applied = applied.into_iter().map(refused).collect();
            puppet.requester.handle_applied(applied, NOW).expect("fits");
        }
        puppet.drain().expect("no error");
        assert!(puppet.requester.is_cut() && !puppet.requester.wants_message());
        let end = puppet.end.expect("over");
        let reason = match over_quota {
            false => Truncation::NotAccepted { authors: 1 },
            true => Truncation::OverQuota { authors: 1 },
        };
        assert_eq!(end.outcome, SyncOutcome::Truncated(reason));
        assert!(end.refused_bytes > 100);
    }
}
