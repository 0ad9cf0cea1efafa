use proptest::prelude::*;

use super::*;
use crate::{
    ids::{AuthorId, EventId, MemberKey},
    roster::{Acceptance, Grant, RosterChange},
};

fn owner() -> AuthorId {
    AuthorId::from_bytes([1; 32])
}

fn key(number: u16) -> MemberKey {
    let mut bytes = [7; 32];
    bytes[..2].copy_from_slice(&number.to_be_bytes());
    MemberKey::from_bytes(bytes)
}

fn head(seq: u64, id: u8) -> AuthorHead {
    let id = EventId::from_bytes([id; 32]);
    AuthorHead { seq, id }
}

fn granting(grants: &[(Subject, Roles)]) -> RosterState {
    let mut state = RosterState::new(owner());
    for (subject, roles) in grants {
        state.change(&RosterChange::Grant(Grant::new(*subject, *roles)));
    }
    state
}

fn revocation(number: u16, roles: Roles, last: Option<AuthorHead>) -> Revocation {
    Revocation {
        subject: key(number).into(),
        roles,
        last,
    }
}

fn subject() -> impl Strategy<Value = Subject> {
    prop_oneof![
        Just(Subject::Anyone),
        (0u16..5).prop_map(|number| key(number).into()),
        Just(Subject::from(owner())),
    ]
}

fn roles() -> impl Strategy<Value = Roles> {
    (1u8..8).prop_map(|bits| Roles::from_bits(bits).unwrap())
}

fn shown() -> impl Strategy<Value = RosterState> {
    prop::collection::vec((subject(), roles()), 0..6).prop_map(|grants| granting(&grants))
}

fn revocations() -> impl Strategy<Value = Vec<Revocation>> {
    let last = prop::option::of((1u64..4, 0u8..3).prop_map(|(seq, id)| head(seq, id)));
    let one = (subject(), roles(), last).prop_map(|(subject, roles, last)| {
        let may_end = subject != Subject::Anyone && roles.contains(Roles::WRITE);
        Revocation {
            subject,
            roles,
            last: last.filter(|_| may_end),
        }
    });
    prop::collection::vec(one, 0..8)
}

fn held(shown: &RosterState, revocations: &[Revocation]) -> Revoked {
    let mut revoked = Revoked::new();
    for revocation in revocations {
        revoked.hold(shown, revocation);
    }
    revoked
}

fn joined(one: &Revoked, other: &Revoked) -> Revoked {
    let mut both = one.clone();
    both.join(other);
    both
}

proptest! {
    #[test]
    fn what_is_held_is_the_same_in_every_order_and_however_often(
        shown in shown(),
        mut list in revocations(),
        again in any::<prop::sample::Index>(),
        turn in any::<prop::sample::Index>(),
    ) {
        let expected = held(&shown, &list);
        if !list.is_empty() {
            list.push(list[again.index(list.len())]);
            let turn = turn.index(list.len());
            list.rotate_left(turn);
            list.reverse();
        }
        let found = held(&shown, &list);
        prop_assert_eq!(found.digest(), expected.digest());
        prop_assert_eq!(&found, &expected);
        // Nothing of it is new once more.
        let mut again = found;
        for revocation in &list {
            prop_assert!(!again.hold(&shown, revocation));
        }
        prop_assert_eq!(again, expected);
    }

    #[test]
    fn joining_is_commutative_associative_and_idempotent(
        shown in shown(), a in revocations(), b in revocations(), c in revocations(),
    ) {
        let [a, b, c] = [a, b, c].map(|list| held(&shown, &list));
        prop_assert_eq!(joined(&a, &a), a.clone());
        prop_assert_eq!(joined(&a, &b), joined(&b, &a));
        prop_assert_eq!(joined(&joined(&a, &b), &c), joined(&a, &joined(&b, &c)));
        prop_assert_eq!(a == b, a.digest() == b.digest());
        let told: Revoked = joined(&a, &b).entries().collect();
        prop_assert_eq!(told, joined(&a, &b));
        for entry in a.entries() {
            prop_assert!(!joined(&b, &a).lacks(&entry));
        }
    }

    #[test]
    fn nobody_may_more_than_before_and_only_the_owner_keeps_all(
        shown in shown(), list in revocations(),
    ) {
        let mut state = shown.clone();
        state.hold(&held(&shown, &list));
        for number in 0..6 {
            let key = key(number);
            let (before, now) = (shown.roles(&key), state.roles(&key));
            prop_assert!(before.contains(now));
            for revocation in &list {
                if revocation.subject == Subject::Key(key) {
                    prop_assert!(now.and(revocation.roles).is_empty());
                }
            }
        }
        for revocation in &list {
            if revocation.subject == Subject::Anyone {
                prop_assert!(state.anyone().and(revocation.roles).is_empty());
            }
        }
        prop_assert_eq!(state.roles(&owner().into()), Roles::ALL);
    }
}

#[test]
fn the_lowest_last_event_of_a_writer_counts_and_none_is_lower_than_any() {
    let shown = granting(&[(key(1).into(), Roles::WRITE)]);
    let writes = |last| revocation(1, Roles::WRITE, last);
    let lowest = |list: &[Revocation]| {
        let mut state = shown.clone();
        state.hold(&held(&shown, list));
        state.acceptance(&AuthorId::from_bytes(*key(1).as_bytes()))
    };
    let (low, high) = (writes(Some(head(3, 9))), writes(Some(head(4, 1))));
    let same_seq = writes(Some(head(3, 2)));
    assert_eq!(lowest(&[]), Acceptance::All);
    assert_eq!(lowest(&[high, low]), Acceptance::Through(head(3, 9)));
    assert_eq!(
        lowest(&[low, same_seq, high]),
        Acceptance::Through(head(3, 2))
    );
    assert_eq!(lowest(&[low, writes(None)]), Acceptance::Nothing);
    // What takes reading alone says nothing of where the log ends.
    let reads = revocation(1, Roles::READ, None);
    assert_eq!(lowest(&[reads]), Acceptance::All);
    assert_eq!(lowest(&[reads, low]), Acceptance::Through(head(3, 9)));
}

#[test]
fn what_was_not_granted_below_the_cut_is_not_held() {
    let shown = granting(&[(key(1).into(), Roles::READ)]);
    let mut revoked = Revoked::new();
    assert!(!revoked.hold(&shown, &revocation(2, Roles::ALL, None)));
    assert!(!revoked.hold(&shown, &revocation(1, Roles::WRITE, None)));
    assert_eq!(revoked.digest(), RevokedDigest::NONE);
    assert!(revoked.hold(&shown, &revocation(1, Roles::ALL, Some(head(1, 1)))));
    let entries: Vec<_> = revoked.entries().collect();
    assert_eq!(entries, [revocation(1, Roles::READ, None)]);
}

#[test]
fn too_many_to_be_told_apart_are_everybody() {
    let most = MAX_REVOKED_SUBJECTS as u16;
    let all: Vec<u16> = (0..most + 10).collect();
    let grants: Vec<_> = all.iter().map(|n| (key(*n).into(), Roles::ALL)).collect();
    let mut shown = granting(&grants);
    shown.change(&RosterChange::Grant(Grant::new(
        Subject::Anyone,
        Roles::READ,
    )));
    let of = |numbers: &mut dyn Iterator<Item = u16>| {
        let list: Vec<_> = numbers.map(|n| revocation(n, Roles::READ, None)).collect();
        held(&shown, &list)
    };
    let as_many = of(&mut (0..most));
    assert!(!as_many.is_everybody());
    let [one, other] = [of(&mut (0..=most)), of(&mut (5..most + 10))];
    for everybody in [
        &one,
        &other,
        &joined(&as_many, &other),
        &joined(&other, &as_many),
    ] {
        assert!(everybody.is_everybody());
        assert_eq!(everybody, &one);
        assert_eq!(everybody.digest(), one.digest());
        assert!(everybody.len() <= MAX_REVOKED_SUBJECTS + 1);
        assert!(!everybody.lacks(&revocation(2, Roles::ALL, None)));
        let mut state = shown.clone();
        state.hold(everybody);
        assert_eq!(state.anyone(), Roles::NONE);
        assert!(all.iter().all(|n| state.roles(&key(*n)).is_empty()));
        assert_eq!(state.roles(&owner().into()), Roles::ALL);
    }
    assert_ne!(as_many.digest(), one.digest());
}
