//! What an owner who forks has revoked above the cut.

use headwater_wire::{
    AuthorHead, EventDraft, EventId, Grant, MemberKey, Revocation, Revoked, RevokedDigest, Roles,
    Run, Subject, VerifiedRun,
};

use super::world::{Log, World, accepted};
use crate::{Commit, LogStore};

/// A reader, a writer and a provider, by name.
fn key(number: u8) -> MemberKey {
    MemberKey::from_bytes([number; 32])
}

fn grant(number: u8, roles: Roles) -> EventDraft {
    EventDraft::grant(Grant::new(key(number), roles), 0)
}

/// A last event that counts, of a writer.
fn at(seq: impl Into<Option<u64>>) -> Option<AuthorHead> {
    seq.into().map(|seq| {
        let id = EventId::from_bytes([seq as u8; 32]);
        AuthorHead { seq, id }
    })
}

fn revocation(number: u8, roles: Roles, last: Option<AuthorHead>) -> Revocation {
    Revocation {
        subject: Subject::Key(key(number)),
        roles,
        last,
    }
}

fn revoke(number: u8, roles: Roles, last: Option<AuthorHead>) -> EventDraft {
    EventDraft::revoke(revocation(number, roles, last), 0)
}

const RW: Roles = Roles::ALL.without(Roles::PROVIDE);

/// A space whose owner granted something to 1, 2 and 3 before the log forks at 5. The store holds
/// the branch of `above`, signed as one run.
fn forked(store: &dyn LogStore, above: Vec<EventDraft>) -> (World, VerifiedRun) {
    let mut world = World::new(1);
    world.found(store);
    let drafts = vec![grant(1, Roles::READ), grant(2, RW), grant(3, Roles::ALL)];
    let granted = world.owner.signed(world.owner.head(), drafts);
    world.owner.runs.push(granted.clone());
    let branch = world.owner.signed(world.owner.head(), above);
    accepted(&store.append(&[granted, branch.clone()]).unwrap());
    (world, branch)
}

fn cut(store: &dyn LogStore, world: &World) -> Commit {
    let base = world.owner.head();
    assert_eq!(base.map(|base| base.seq), Some(4));
    store.cut(&world.owner.proof(base)).unwrap()
}

/// Checks what is revoked, and that the entry tells of it.
#[track_caller]
fn assert_revoked(store: &dyn LogStore, world: &World, expected: &[Revocation]) {
    let (space, owner) = (world.space(), world.owner.author());
    let revoked = store.revoked(&space).unwrap();
    assert_eq!(revoked.entries().collect::<Vec<_>>(), expected);
    let entry = store.head(&space, &owner).unwrap().unwrap().entry;
    assert_eq!(entry.revoked, revoked.digest());
    assert_eq!(entry.revoked == RevokedDigest::NONE, expected.is_empty());
    // What is kept convinces somebody who has nothing.
    let subjects: Vec<_> = expected.iter().map(|revoked| revoked.subject).collect();
    let shown: Vec<Run> = store.evidence(&space, &subjects).unwrap();
    let mut told = Revoked::new();
    for run in shown {
        assert!(run.is_evidence());
        let run = run.verify(&space).unwrap();
        assert_eq!(run.author(), owner);
        for (_, revocation) in run.run().revocations() {
            told.insert(&revocation);
        }
    }
    for entry in expected {
        assert!(!told.lacks(entry), "{entry:?} of {told:?}");
    }
    world.assert_sound(store);
}

fn absorb(store: &dyn LogStore, run: &VerifiedRun) -> Commit {
    store.absorb(std::slice::from_ref(run)).unwrap()
}

/// The grants there do not hold, which is for whoever folds what shows to see; the revocations do.
pub fn a_revocation_above_the_cut_of_the_owners_log_holds(store: &dyn LogStore) {
    let above = vec![
        revoke(1, Roles::READ, None),
        grant(1, Roles::READ),
        grant(9, Roles::ALL),
        revoke(2, RW, at(7)),
    ];
    let (world, _) = forked(store, above);
    assert_revoked(store, &world, &[]);
    let commit = cut(store, &world);
    assert_eq!(commit.rosters, [world.space()]);
    let expected = [revocation(1, Roles::READ, None), revocation(2, RW, at(7))];
    assert_revoked(store, &world, &expected);
}

/// Whether it goes on from anything that is held does not matter.
pub fn a_revocation_in_another_branch_is_taken_in_and_told_of(store: &dyn LogStore) {
    let (world, _) = forked(store, vec![revoke(1, Roles::READ, None)]);
    let _ = cut(store, &world);
    let digest = || store.summary(&world.space()).unwrap().unwrap().digest;
    let before = digest();
    let lost = world.owner.branch(world.owner.head(), "abc");
    let far = world
        .owner
        .signed(Some(lost.head()), vec![revoke(3, Roles::PROVIDE, None)]);
    let commit = absorb(store, &far);
    assert_eq!(commit.rosters, [world.space()]);
    assert_eq!(commit.generations.len(), 1);
    assert_ne!(digest(), before);
    let both = [
        revocation(1, Roles::READ, None),
        revocation(3, Roles::PROVIDE, None),
    ];
    assert_revoked(store, &world, &both);
    // Once is enough, in whatever shape it comes.
    let after = digest();
    for again in [far.clone(), far.evidence_from(far.first_seq()).unwrap()] {
        assert_eq!(absorb(store, &again), Commit::default());
    }
    assert_eq!(digest(), after);
    assert_revoked(store, &world, &both);
}

/// A run that proves the fork brings what it revokes, though nothing of it is shown, and so do those
/// that come later.
pub fn a_branch_that_is_refused_leaves_what_it_revokes(store: &dyn LogStore) {
    let (world, _) = forked(store, vec![grant(9, Roles::READ)]);
    let other = vec![grant(8, Roles::READ), revoke(2, Roles::WRITE, at(3))];
    let other = world.owner.signed(world.owner.head(), other);
    let commit = store.append(std::slice::from_ref(&other)).unwrap();
    assert_eq!(commit.forks.len(), 1);
    assert_eq!(commit.rosters, [world.space()]);
    assert_revoked(store, &world, &[revocation(2, Roles::WRITE, at(3))]);
    let later = vec![revoke(1, Roles::READ, None)];
    let later = world.owner.signed(Some(other.head()), later);
    let commit = store.append(std::slice::from_ref(&later)).unwrap();
    assert!(commit.outcomes[0].is_err());
    assert_eq!(commit.rosters, [world.space()]);
    let both = [
        revocation(1, Roles::READ, None),
        revocation(2, Roles::WRITE, at(3)),
    ];
    assert_revoked(store, &world, &both);
    // Once is enough.
    let commit = store.append(std::slice::from_ref(&later)).unwrap();
    assert!(commit.outcomes[0].is_err());
    assert_eq!((commit.rosters, commit.generations), (vec![], vec![]));
    let commit = absorb(store, &later);
    assert_eq!(commit, Commit::default());
    assert_revoked(store, &world, &both);
}

/// The run that proves the fork and the one that revokes come at once, or the one that revokes comes
/// when the log does not reach the fork yet.
pub fn a_run_refused_above_a_known_cut_leaves_what_it_revokes(store: &dyn LogStore) {
    let (world, _) = forked(store, vec![grant(9, Roles::READ)]);
    let proves = world.owner.signed(world.owner.head(), vec![grant(8, RW)]);
    let revokes = vec![revoke(2, RW, at(3))];
    let revokes = world.owner.signed(Some(proves.head()), revokes);
    let commit = store.append(&[proves.clone(), revokes]).unwrap();
    assert!(commit.outcomes.iter().all(Result::is_err));
    assert_eq!(commit.rosters, [world.space()]);
    assert_revoked(store, &world, &[revocation(2, RW, at(3))]);
    let far = world.owner.branch(Some(proves.head()), "abc");
    let far = world
        .owner
        .signed(Some(far.head()), vec![revoke(3, Roles::READ, None)]);
    // A gap, as only the genesis is held here.
    let young = crate::MemoryStore::new();
    accepted(&young.append(&world.owner.runs[..1]).unwrap());
    let _ = cut(&young, &world);
    let commit = young.append(&[far]).unwrap();
    assert!(commit.outcomes[0].is_err());
    // Nothing that shows yet grants what it takes.
    assert_eq!(commit.rosters, []);
}

/// Whoever wrote on in one branch, and was cut in another, is cut in all.
pub fn the_lowest_last_event_of_a_writer_counts(store: &dyn LogStore) {
    let (world, _) = forked(store, vec![revoke(2, Roles::WRITE, at(7))]);
    let _ = cut(store, &world);
    let base = world.owner.head();
    for (last, counts) in [(at(9), at(7)), (at(4), at(4)), (at(5), at(4)), (None, None)] {
        let branch = world.owner.signed(base, vec![revoke(2, RW, last)]);
        let _ = absorb(store, &branch);
        assert_revoked(store, &world, &[revocation(2, RW, counts)]);
    }
}

/// It would be kept for ever, and there is no end of keys.
pub fn what_takes_nothing_that_shows_is_not_kept(store: &dyn LogStore) {
    let (world, branch) = forked(store, vec![revoke(1, Roles::READ, None)]);
    let base = world.owner.head();
    let strangers = (10..200).map(|number| revoke(number, Roles::ALL, None));
    let strangers = world.owner.signed(base, strangers.collect());
    // The log does not fork yet.
    assert_eq!(absorb(store, &strangers), Commit::default());
    let _ = cut(store, &world);
    let others = [
        strangers,
        world
            .owner
            .signed(base, vec![revoke(1, Roles::WRITE, None)]),
        // The owner cannot be shut out.
        world.owner.signed(
            base,
            vec![EventDraft::revoke(
                Revocation {
                    subject: world.owner.author().into(),
                    roles: Roles::ALL,
                    last: None,
                },
                0,
            )],
        ),
        // Nothing is read of a payload that is not there.
        branch.as_stubs(),
        // Below the cut all that counts shows.
        world.owner.runs[1].clone(),
        world.author(1).run(3),
    ];
    for run in &others {
        assert_eq!(absorb(store, run), Commit::default());
    }
    assert_revoked(store, &world, &[revocation(1, Roles::READ, None)]);
}

/// What was said between the two places is still held, as far as it takes something.
pub fn a_lower_cut_holds_what_was_revoked_above_it(store: &dyn LogStore) {
    let above = vec![
        revoke(1, Roles::READ, None),
        grant(1, Roles::READ),
        revoke(3, Roles::READ, None),
    ];
    let (world, _) = forked(store, above);
    let end = store.stored_end(&world.space(), &world.owner.author());
    let end = end.unwrap();
    let _ = store.cut(&world.owner.proof(end)).unwrap();
    assert_revoked(store, &world, &[]);
    let commit = cut(store, &world);
    assert_eq!(commit.rosters, [world.space()]);
    let expected = [
        revocation(1, Roles::READ, None),
        revocation(3, Roles::READ, None),
    ];
    assert_revoked(store, &world, &expected);
    // Lower still, 3 was granted nothing yet.
    let base = world.owner.head_at(3);
    let _ = store.cut(&world.owner.proof(base)).unwrap();
    assert_revoked(store, &world, &expected[..1]);
}

/// Roles that anyone has are taken of those the branches name, and of anyone.
pub fn what_anyone_may_do_is_taken_like_what_was_granted_by_name(store: &dyn LogStore) {
    let mut world = World::new(1);
    world.found(store);
    let open = EventDraft::grant(
        Grant {
            subject: Subject::Anyone,
            roles: RW,
            invite: None,
        },
        0,
    );
    let granted = world.owner.signed(world.owner.head(), vec![open]);
    world.owner.runs.push(granted.clone());
    accepted(&store.append(&[granted]).unwrap());
    let base = world.owner.head();
    let _ = store.cut(&world.owner.proof(base)).unwrap();
    let one = world.owner.signed(base, vec![revoke(5, Roles::ALL, at(2))]);
    let _ = absorb(store, &one);
    assert_revoked(store, &world, &[revocation(5, RW, at(2))]);
    let anyone = Revocation {
        subject: Subject::Anyone,
        roles: Roles::READ,
        last: None,
    };
    let all = world
        .owner
        .signed(base, vec![EventDraft::revoke(anyone, 0)]);
    let _ = absorb(store, &all);
    assert_revoked(store, &world, &[anyone, revocation(5, RW, at(2))]);
}

/// Whatever the order, and however often.
pub fn branches_add_up_to_the_same_in_every_order(store: &dyn LogStore) {
    let branches = |log: &Log| {
        let base = log.head();
        [
            log.signed(base, vec![revoke(1, Roles::READ, None)]),
            log.signed(
                base,
                vec![revoke(2, Roles::WRITE, at(8)), revoke(3, RW, at(2))],
            ),
            log.signed(
                base,
                vec![revoke(3, Roles::ALL, at(6)), revoke(2, RW, at(9))],
            ),
            log.signed(base, vec![revoke(2, Roles::WRITE, at(8))]),
        ]
    };
    let (world, _) = forked(store, vec![grant(9, Roles::ALL)]);
    let _ = cut(store, &world);
    let branches = branches(&world.owner);
    let mut expected = None;
    for turn in 0..branches.len() {
        let fresh = crate::MemoryStore::new();
        let (other, _) = forked(&fresh, vec![grant(9, Roles::ALL)]);
        assert_eq!(other.space(), world.space());
        // The proof may come in between.
        for (number, at) in (0..=branches.len()).enumerate() {
            if number == turn {
                let _ = cut(&fresh, &other);
            }
            let at = (at + turn) % branches.len();
            let _ = absorb(&fresh, &branches[at]);
        }
        for branch in &branches {
            let _ = absorb(&fresh, branch);
        }
        let digest = fresh.summary(&world.space()).unwrap().unwrap().digest;
        assert_eq!(*expected.get_or_insert(digest), digest);
    }
    for branch in branches.iter().rev() {
        let _ = absorb(store, branch);
    }
    let digest = store.summary(&world.space()).unwrap().unwrap().digest;
    assert_eq!(expected, Some(digest));
    let all = [
        revocation(1, Roles::READ, None),
        revocation(2, RW, at(8)),
        revocation(3, Roles::ALL, at(2)),
    ];
    assert_revoked(store, &world, &all);
}
