use super::*;
use crate::{
    event::ChannelId,
    ids::EventId,
    key::AuthorSecret,
    run::{DraftError, VerifiedRun, sign_genesis, sign_runs},
};
use proptest::prelude::*;

fn secret(seed: u8) -> AuthorSecret {
    AuthorSecret::from_bytes([seed; 32])
}

fn genesis() -> VerifiedRun {
    sign_genesis(&secret(1), [0; 16], 0)
}

fn key(seed: u8) -> MemberKey {
    secret(seed).id().into()
}

fn last(seq: u64) -> AuthorHead {
    AuthorHead {
        seq,
        id: EventId::from_bytes([9; 32]),
    }
}

fn revoked(subject: impl Into<Subject>, roles: Roles, last: Option<AuthorHead>) -> EventDraft {
    let subject = subject.into();
    EventDraft::revoke(
        Revocation {
            subject,
            roles,
            last,
        },
        0,
    )
}

fn granted(subject: impl Into<Subject>, roles: Roles) -> EventDraft {
    EventDraft::grant(Grant::new(subject, roles), 0)
}

/// What the owner's log adds up to after these events.
fn state_of(drafts: Vec<EventDraft>) -> RosterState {
    let genesis = genesis();
    let runs = sign_runs(&genesis.space(), &secret(1), Some(genesis.head()), drafts).unwrap();
    let mut state = RosterState::new(secret(1).id());
    for run in std::iter::once(&genesis).chain(&runs) {
        for event in run.events() {
            state.fold(&event);
        }
    }
    state
}

#[test]
fn the_owner_may_do_everything_and_others_nothing_until_they_are_named() {
    let state = state_of(vec![granted(key(2), Roles::READ)]);
    assert_eq!(state.roles(&key(1)), Roles::ALL);
    assert_eq!(state.acceptance(&secret(1).id()), Acceptance::All);
    assert_eq!(state.roles(&key(2)), Roles::READ);
    assert_eq!(state.acceptance(&secret(2).id()), Acceptance::Nothing);
    assert_eq!(state.roles(&key(3)), Roles::NONE);
    assert_eq!(state.head().map(|head| head.seq), Some(2));
}

#[test]
fn a_revoked_writer_counts_up_to_the_last_event_named_and_a_new_grant_lifts_that() {
    let (writer, roles) = (secret(2).id(), Roles::READ | Roles::WRITE);
    let mut drafts = vec![
        granted(writer, roles),
        revoked(writer, Roles::WRITE, Some(last(7))),
    ];
    let state = state_of(drafts.clone());
    assert_eq!(state.acceptance(&writer), Acceptance::Through(last(7)));
    assert_eq!(state.roles(&writer.into()), Roles::READ);

    drafts.push(revoked(writer, Roles::WRITE, None));
    assert_eq!(
        state_of(drafts.clone()).acceptance(&writer),
        Acceptance::Nothing
    );
    drafts.push(granted(writer, Roles::WRITE));
    assert_eq!(state_of(drafts).acceptance(&writer), Acceptance::All);
}

#[test]
fn who_was_revoked_by_name_has_no_part_in_what_anyone_may_do() {
    let state = state_of(vec![
        revoked(key(2), Roles::READ, None),
        granted(Subject::Anyone, Roles::READ | Roles::WRITE),
    ]);
    assert_eq!(state.roles(&key(3)), Roles::READ | Roles::WRITE);
    assert_eq!(state.roles(&key(2)), Roles::WRITE);
    let state = state_of(vec![
        granted(Subject::Anyone, Roles::ALL),
        granted(key(2), Roles::READ),
        revoked(Subject::Anyone, Roles::ALL, None),
    ]);
    assert_eq!(state.roles(&key(2)), Roles::READ);
    assert_eq!(state.roles(&key(3)), Roles::NONE);
}

#[test]
fn nobody_but_the_owner_grants_anything_and_no_event_counts_twice() {
    let space = genesis().space();
    let drafts = [granted(key(2), Roles::ALL)];
    let run = sign_runs(&space, &secret(2), None, drafts.clone()).unwrap();
    let mut state = RosterState::new(secret(1).id());
    let event = run[0].events().next().unwrap();
    assert_eq!(state.fold(&event), None);
    assert_eq!(state, RosterState::new(secret(1).id()));

    let base = Some(genesis().head());
    let run = sign_runs(&space, &secret(1), base, drafts).unwrap();
    let event = run[0].events().next().unwrap();
    assert_eq!(state.fold(&event), Some(Subject::Key(key(2))));
    assert_eq!(state.fold(&event), None);
}

#[test]
fn an_invites_key_is_used_up_by_the_grants_that_name_it() {
    let grant = |subject, roles| {
        let grant = Grant {
            invite: Some(key(9)),
            ..Grant::new(subject, roles)
        };
        EventDraft::grant(grant, 0)
    };
    let state = state_of(vec![
        grant(key(2), Roles::READ),
        grant(key(3), Roles::WRITE),
    ]);
    let both = BTreeSet::from([key(2), key(3)]);
    assert_eq!(state.redeemed(&key(9)), Some(&both));
    assert_eq!(state.redeemed(&key(8)), None);
}

#[test]
fn grants_and_revocations_of_another_form_are_no_control_events() {
    let named = Grant {
        invite: Some(key(9)),
        ..Grant::new(Subject::Anyone, Roles::READ)
    };
    let in_channel = granted(key(2), Roles::READ).in_channel(ChannelId::new("open").unwrap());
    let mut longer = granted(key(2), Roles::READ);
    longer.payload = [&longer.payload[..], &[0]].concat().into();
    let refused = [
        EventDraft::grant(named, 0),
        granted(key(2), Roles::NONE),
        granted(key(2), Roles(8)),
        in_channel,
        longer,
        revoked(key(2), Roles::READ, Some(last(1))),
        revoked(Subject::Anyone, Roles::WRITE, Some(last(1))),
        revoked(key(2), Roles::WRITE, Some(last(0))),
    ];
    for draft in refused {
        let found = draft.kind;
        assert_eq!(
            sign_runs(&genesis().space(), &secret(1), None, [draft.clone()]),
            Err(DraftError::ReservedKind { index: 0, found }),
            "{draft:?}"
        );
    }
}

#[test]
fn roles_read_back_from_their_names() {
    for bits in 1..8 {
        let roles = Roles::from_bits(bits).unwrap();
        assert_eq!(roles.to_string().parse(), Ok(roles));
    }
    assert_eq!(Roles::from_bits(8), None);
    for text in ["", "nothing", "read,write", "read+", "Read"] {
        assert!(text.parse::<Roles>().is_err(), "{text}");
    }
}

proptest! {
    #[test]
    fn what_decodes_encodes_to_the_same_bytes(
        mut bytes in prop::collection::vec(0u8..3, 0..76),
        tail in prop::collection::vec(any::<u8>(), 0..3),
    ) {
        bytes.extend(tail);
        let bytes = Bytes::from(bytes);
        if let Ok(grant) = Grant::decode(bytes.clone()) {
            prop_assert_eq!(&grant.to_payload()[..], &bytes[..]);
        }
        if let Ok(revocation) = Revocation::decode(bytes.clone()) {
            prop_assert_eq!(&revocation.to_payload()[..], &bytes[..]);
        }
    }
}
