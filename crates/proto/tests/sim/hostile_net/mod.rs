//! Twenty nodes that sync in pairs drawn at random, four of them hostile: whatever those say, every
//! honest node ends with every honest author's log, whole and as it was written, and with the same
//! cut for everybody who forked.

mod liars;

use headwater_proto::SessionLimits;
use headwater_wire::{AuthorId, AuthorSecret, Blame, VerifiedRun};

use crate::{
    forks::{branch, sides::repair_with},
    logs::{Logs, author},
    rng::{Rng, for_seeds},
    simulator::{Ending, Failure, Lies, Options, Simulator},
};
use liars::Liar;

const HONEST: usize = 16;
const NODES: usize = HONEST + Liar::ALL.len();
/// Pairs drawn before it has to be over: about thirty times as many as it takes.
const MOST_PAIRS: usize = 20_000;

/// An author who signs several branches of one log.
struct Forker {
    id: AuthorId,
    branches: Vec<Vec<VerifiedRun>>,
    /// The lowest seq at which two of the branches differ.
    lowest: u64,
}

impl Forker {
    fn drawn(space: &Logs, secret: &AuthorSecret, rng: &mut Rng) -> Self {
        let len = rng.between(1, 14);
        let mut branches = vec![branch(&space.space, secret, &[], 0, len, rng)];
        let mut lowest = u64::MAX;
        for _ in 0..rng.between(1, 3) {
            let from = rng.pick(&branches).clone();
            let len = from.last().expect("not empty").last_seq();
            let fork = rng.between(1, len);
            lowest = lowest.min(fork);
            let len = rng.between(fork, fork + 8);
            branches.push(branch(&space.space, secret, &from, fork - 1, len, rng));
        }
        Self {
            id: secret.id(),
            branches,
            lowest,
        }
    }
}

struct Net {
    honest: Vec<Logs>,
    /// What all hostile nodes know together of the honest authors.
    known: Logs,
    /// What the honest authors wrote, each at its own node.
    authors: Vec<AuthorId>,
    forkers: Vec<Forker>,
    pairs: usize,
}

impl Net {
    fn drawn(rng: &mut Rng) -> Self {
        let space = Logs::create(0);
        let mut honest = vec![space.clone(); HONEST];
        for (n, node) in honest.iter_mut().enumerate() {
            node.write(&author(n as u64), rng.between(1, 6), rng);
        }
        let forkers = [100, 101].map(|n| Forker::drawn(&space, &author(n), rng));
        Self {
            honest,
            known: space,
            authors: (0..HONEST as u64).map(|n| author(n).id()).collect(),
            forkers: forkers.into(),
            pairs: 0,
        }
    }

    /// What a hostile node shows to this one.
    fn face(&self, liar: Liar, to: usize, rng: &mut Rng) -> Logs {
        let mut face = self.known.clone();
        for forker in &self.forkers {
            // The forker gives each of its branches to others; the rest of them have one.
            let at = match liar {
                Liar::Forker => to % forker.branches.len(),
                _ => 0,
            };
            for run in &forker.branches[at] {
                drop(face.append(run.clone()));
            }
        }
        if liar == Liar::Withholder {
            for author in &self.authors {
                if *author != self.known.owner && rng.one_in(2) {
                    face = face.without(author);
                }
            }
        }
        face
    }

    /// Draws a pair and lets it sync.
    fn meet(&mut self, rng: &mut Rng) {
        self.pairs += 1;
        assert!(self.pairs < MOST_PAIRS, "it does not come to an end");
        let ours = rng.below(NODES as u64) as usize;
        let theirs = rng.below(NODES as u64) as usize;
        if ours == theirs {
            return;
        }
        match (ours < HONEST, theirs < HONEST) {
            (true, true) => self.meet_honest(ours, theirs, rng),
            (true, false) => self.meet_hostile(ours, Liar::ALL[theirs - HONEST], true, rng),
            (false, true) => self.meet_hostile(theirs, Liar::ALL[ours - HONEST], false, rng),
            (false, false) => {}
        }
    }

    fn meet_honest(&mut self, asks: usize, answers: usize, rng: &mut Rng) {
        let mut ours = self.honest[asks].clone();
        let mut theirs = self.honest[answers].clone();
        let asked_back = sync(&mut ours, &mut theirs, None, None, rng);
        if asked_back {
            sync(&mut theirs, &mut ours, None, None, rng);
        }
        self.honest[asks] = ours;
        self.honest[answers] = theirs;
    }

    fn meet_hostile(&mut self, honest: usize, liar: Liar, honest_asks: bool, rng: &mut Rng) {
        let mut face = self.face(liar, honest, rng);
        let node = &mut self.honest[honest];
        let asked_back = !honest_asks && sync(&mut face, node, Some(liar), None, rng);
        if honest_asks || asked_back {
            sync(node, &mut face, None, Some(liar), rng);
        }
        // They learn what there is to learn.
        for author in &self.authors {
            for run in node.runs(author) {
                drop(self.known.append(run.clone()));
            }
        }
        self.check(honest);
    }

    /// Nothing false is held, and nobody honest is cut.
    fn check(&self, node: usize) {
        for (at, author) in self.authors.iter().enumerate() {
            assert_eq!(self.honest[node].fork_at(author), None);
            let (held, written) = (&self.honest[node], &self.honest[at]);
            if let Some(end) = held.end(author) {
                assert_eq!(written.chain(author, &[end.seq]), [Some(end)]);
            }
        }
    }

    fn is_settled(&self) -> bool {
        let first = &self.honest[0];
        let cut = |forker: &Forker| first.fork_at(&forker.id) == Some(forker.lowest);
        let entries = first.entries();
        let whole = self.authors.iter().zip(&self.honest);
        let mut whole = whole.map(|(author, written)| written.head(author) == first.head(author));
        whole.all(|whole| whole)
            && self.forkers.iter().all(cut)
            && self.honest.iter().all(|node| node.entries() == entries)
    }
}

/// Pulls, and puts right what was noticed. Returns whether the answering side should ask back.
/// Honest sides never fail for their own fault, nor among themselves.
fn sync(
    ours: &mut Logs,
    theirs: &mut Logs,
    we_lie: Option<Liar>,
    they_lie: Option<Liar>,
    rng: &mut Rng,
) -> bool {
    let lies = |rng: &mut Rng| {
        let notes = liars::Notes::default();
        Lies {
            requester: match we_lie {
                Some(liar) => liar.asks(rng),
                None => they_lie.map(|_| liars::overhear(&notes)),
            },
            responder: they_lie.and_then(|liar| liar.answers(&notes, rng)),
        }
    };
    let judge = |failure: Failure| match failure {
        Failure::Requester(error) if we_lie.is_none() => {
            assert!(they_lie.is_some(), "{error}");
            assert_ne!(error.blame(), Blame::Local, "{error}");
        }
        Failure::Responder(error) if they_lie.is_none() => {
            assert!(we_lie.is_some(), "{error}");
            assert_ne!(error.blame(), Blame::Local, "{error}");
        }
        Failure::Requester(_) | Failure::Responder(_) => {}
    };
    let mut options = Options::drawn(rng);
    options.lies = lies(rng);
    let report = match Simulator::new(ours, theirs, options).run(rng) {
        Ending::Done(report) => report,
        Ending::Failed(failure) => {
            judge(failure);
            return false;
        }
        Ending::TimedOut | Ending::Cut => {
            assert!(we_lie.or(they_lie).is_some());
            return false;
        }
    };
    for fork in report.end.forks.iter().filter(|fork| fork.is_noticed()) {
        let limits = SessionLimits::default();
        let lies = lies(rng);
        if let Err(failure) = repair_with(ours, theirs, fork.author, &limits, lies) {
            judge(failure);
        }
    }
    report.served.requester_ahead
}

#[test]
fn hostile_nodes_keep_no_honest_node_from_any_honest_log_or_from_the_common_cut() {
    for_seeds(5, |seed| {
        let mut rng = Rng::new(seed);
        let mut net = Net::drawn(&mut rng);
        let mut writes = 40;
        while writes > 0 || !net.is_settled() {
            for _ in 0..10 {
                net.meet(&mut rng);
                if writes > 0 && rng.one_in(2) {
                    writes -= 1;
                    let at = rng.below(HONEST as u64);
                    let events = rng.between(1, 3);
                    net.honest[at as usize].write(&author(at), events, &mut rng);
                }
            }
        }
        // And it stays so, whatever they go on telling.
        let settled = net.honest[0].entries();
        for _ in 0..100 {
            net.meet(&mut rng);
        }
        for node in 0..HONEST {
            net.check(node);
            assert_eq!(net.honest[node].entries(), settled);
        }
    });
}
