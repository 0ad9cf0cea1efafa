//! Forks: what two nodes find out about an author between them, and peers that lie about it.

mod converging;
mod hostile_answerer;
mod hostile_asker;
mod owners;
mod pairs;
pub(crate) mod sides;

use headwater_wire::{AuthorSecret, SpaceId, VerifiedRun, sign_runs};

use crate::{
    logs::{Logs, author},
    rng::Rng,
    simulator::{Options, Report, pull},
};

/// The author who forks. The space's owner is another one.
pub(crate) fn forker() -> AuthorSecret {
    author(66)
}

/// One log of `len` events, cut into runs at random, that leaves `shared` at `from + 1`.
pub(crate) fn branch(
    space: &SpaceId,
    secret: &AuthorSecret,
    shared: &[VerifiedRun],
    from: u64,
    len: u64,
    rng: &mut Rng,
) -> Vec<VerifiedRun> {
    let mut runs: Vec<VerifiedRun> = Vec::new();
    for run in shared.iter().filter(|run| run.first_seq() <= from) {
        match run.last_seq() <= from {
            true => runs.push(run.clone()),
            // The run goes on beyond: the author signs its beginning once more.
            false => runs.extend(resigned(space, secret, run, from)),
        }
    }
    let mut at = from;
    while at < len {
        let count = rng.between(1, (len - at).min(9));
        let base = runs.last().map(VerifiedRun::head);
        let drafts = (0..count).map(|_| {
            let payload = rng.next().to_be_bytes().to_vec();
            headwater_wire::EventDraft::new(16, rng.below(1 << 40), payload)
        });
        let drafts: Vec<_> = drafts.collect();
        runs.extend(sign_runs(space, secret, base, drafts).expect("good drafts"));
        at += count;
    }
    runs
}

/// The events of `run` up to `last`, under a signature of their own.
fn resigned(
    space: &SpaceId,
    secret: &AuthorSecret,
    run: &VerifiedRun,
    last: u64,
) -> Vec<VerifiedRun> {
    let drafts = run
        .events()
        .filter(|event| event.header.seq <= last)
        .map(|event| headwater_wire::EventDraft {
            kind: event.header.kind,
            channel: event.header.channel,
            deps: event.header.deps,
            timestamp_ms: event.header.timestamp_ms,
            payload: event.payload.expect("no stubs here"),
        });
    let drafts: Vec<_> = drafts.collect();
    sign_runs(space, secret, run.base(), drafts).expect("good drafts")
}

/// A space with two or more branches of the forker's log. Branch n + 1 leaves branch n.
pub(crate) fn branches(
    space: &Logs,
    forks: &[u64],
    lens: &[u64],
    rng: &mut Rng,
) -> Vec<Vec<VerifiedRun>> {
    let secret = forker();
    let mut all = vec![branch(&space.space, &secret, &[], 0, lens[0], rng)];
    for (fork, len) in forks.iter().zip(&lens[1..]) {
        let shared = all.last().expect("one").clone();
        all.push(branch(&space.space, &secret, &shared, fork - 1, *len, rng));
    }
    all
}

pub(crate) fn holding(space: &Logs, runs: &[VerifiedRun]) -> Logs {
    let mut logs = space.clone();
    for run in runs {
        logs.append(run.clone()).expect("one branch");
    }
    logs
}

/// A sync under drawn limits.
pub(crate) fn pulled(ours: &mut Logs, theirs: &mut Logs, rng: &mut Rng) -> Report {
    let options = Options::drawn(rng);
    pull(ours, theirs, rng, options)
}
