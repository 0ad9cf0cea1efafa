//! What a message has to pass before it costs anything, cheapest check first.
//!
//! ```text
//! size ─▶ tag ─▶ decode ─▶ space ─▶ sender's share, counter ─▶ neighbour's share    read
//!      ─▶ (policy, asked by the caller)
//!      ─▶ signature ─▶ noted in the sender table                                    prove
//!
//! size ─▶ tag ─▶ decode ─▶ space ─▶ author's share ─▶ neighbour's share              read, run by run
//!      ─▶ (signature, checked by the space that stores the run)
//!      ─▶ noted in the author table                                                proven_run
//! ```
//!
//! Shares are of two sides, because both can flood. What a sender *signed* counts against the
//! sender, whoever relays it; so does an author's run that is news. Before that is
//! known the neighbour that delivered a message answers for it, for each run of it, out of one of four
//! shares ([`Share`]), each as large as [`BridgeLimits::neighbor`]:
//!
//! - what it claims to say itself, given back once the signature holds: an announcement in its name, a
//!   run of a known author that no other node passed on before,
//! - what it relays of known senders and authors, given back likewise,
//! - what is of senders and authors not heard of before,
//! - the older exchange, and what cannot be meant for us (undecodable, replayed, foreign).
//!
//! A run that is held, and goes no further than one heard before, is not given back: whoever likes can send
//! it again.
//!
//! iroh-gossip relays before anybody judges, so honest neighbours deliver junk too. Junk uses up
//! the last share and new names the one before it; known ones are heard all the same. Messages that
//! *forge* a known sender or author, and runs that were sent before, use up what may be forged in that
//! one name by way of that neighbour ([`BridgeLimits::forged`]): the name is still heard by way of every
//! other one, and other names by way of this one, until so many names are forged that the neighbour's
//! share for known ones is used up. What a neighbour says itself comes out of its own share.
//!
//! Keys cost nothing, and each brings a share along: all that a neighbour relays of known senders and
//! authors together is bounded by [`BridgeLimits::relayed`]. Above that honest ones behind this
//! neighbour lose messages too. What is dropped unread for want of any share is
//! [`Ignored::NeighborTooOften`], which the caller treats as a loss and heals.

use std::time::Duration;

use bytes::Bytes;
use headwater_wire::{AuthorId, Run, RunError, SpaceId, legacy::LegacyMessage};
use iroh::EndpointId;

use crate::{
    announcement::{
        AnnouncementCounter, AnnouncementDecodeError, HeadAnnouncement, SignedAnnouncement, tag,
    },
    authors::{AuthorStanding, AuthorTable, Fate},
    bucket::Buckets,
    limits::BridgeLimits,
    runs::RunsMessage,
    senders::{SenderTable, Standing},
};

/// Why a message had no effect.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Ignored {
    #[error("{len} bytes, {max} allowed")]
    Oversized { len: usize, max: usize },
    #[error("of a kind unknown here")]
    Unknown,
    #[error("cannot be decoded")]
    Malformed,
    #[error("speaks of space {}", found.fmt_short())]
    ForeignSpace { found: SpaceId },
    #[error("asks for another topic")]
    ForeignTopic,
    #[error("sent by this node itself")]
    Own,
    #[error("the sender announces too often")]
    SenderTooOften,
    #[error("author {} writes too often", author.fmt_short())]
    AuthorTooOften { author: AuthorId },
    #[error("the neighbour passes on too much that is bad or of unknown senders")]
    NeighborTooOften,
    #[error("the policy does not let the sender read")]
    Refused,
    #[error("the policy did not say whether the sender may read")]
    Unanswered,
    #[error("counter {}.{} was seen or went back", counter.boot, counter.n)]
    Replayed { counter: AnnouncementCounter },
    #[error("the sender did not sign it")]
    Forged,
    #[error("head of {} is not signed by its author", author.fmt_short())]
    ForgedHead { author: AuthorId },
    #[error("a run does not verify: {0}")]
    InvalidRun(RunError),
}

/// A message read, nothing of it proven.
#[derive(Debug)]
pub(crate) enum Read {
    Announcement(Unproven),
    Runs(UnprovenRuns),
    Legacy(LegacyMessage),
}

/// An announcement whose sender is a claim.
#[derive(Debug)]
pub(crate) struct Unproven {
    signed: Box<SignedAnnouncement>,
    neighbor: EndpointId,
    /// Out of which share it was taken.
    share: Share,
}

/// An announcement its sender did sign. Its heads still have to prove themselves.
#[derive(Debug)]
pub(crate) struct Proven {
    pub(crate) announcement: HeadAnnouncement,
    /// Who delivered it.
    pub(crate) neighbor: EndpointId,
    /// Whether no later announcement of the sender was heard: an older digest says little.
    pub(crate) newest: bool,
}

/// Runs whose authors are claims.
#[derive(Debug)]
pub(crate) struct UnprovenRuns {
    /// Who delivered them.
    pub(crate) neighbor: EndpointId,
    /// At least one, by strictly ascending author.
    pub(crate) runs: Vec<Run>,
    /// Out of which share each was taken.
    pub(crate) shares: Vec<Share>,
    /// Whose runs were left out, as they come too often.
    pub(crate) left_out: Vec<AuthorId>,
}

/// Who a message says it is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Name {
    Sender(EndpointId),
    Author(AuthorId),
}

/// What a neighbour answers for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Share {
    /// What it says is its own.
    Own,
    /// Messages in the name of senders or authors that proved themselves before.
    Known,
    /// Messages in the name of others.
    New,
    /// The older exchange, and what is known to be bad without a signature check.
    Junk,
}

/// How many shares a neighbour has.
const SHARES: usize = 4;

/// The checks of one topic.
#[derive(Debug)]
pub(crate) struct Gate {
    space: SpaceId,
    me: EndpointId,
    max_bytes: usize,
    senders: SenderTable,
    authors: AuthorTable,
    neighbors: Buckets<(EndpointId, Share)>,
    /// By neighbour and known name: given back once the signature holds.
    forged: Buckets<(EndpointId, Name)>,
    /// What neighbours relay of known senders and authors.
    relayed: Buckets<EndpointId>,
}

impl Unproven {
    pub(crate) fn sender(&self) -> EndpointId {
        self.signed.sender()
    }

    pub(crate) fn neighbor(&self) -> EndpointId {
        self.neighbor
    }
}

impl Gate {
    pub(crate) fn new(
        space: SpaceId,
        me: EndpointId,
        max_bytes: usize,
        limits: &BridgeLimits,
    ) -> Self {
        Self {
            space,
            me,
            max_bytes,
            senders: SenderTable::new(limits.sender, limits.senders),
            authors: AuthorTable::new(limits.author, limits.senders),
            neighbors: Buckets::new(limits.neighbor, limits.neighbors.saturating_mul(SHARES)),
            forged: Buckets::new(limits.forged, limits.senders.saturating_mul(4)),
            relayed: Buckets::new(limits.relayed, limits.neighbors),
        }
    }

    /// Reads what `neighbor` delivered, as its own (`direct`) or passed on. The second part of an error is
    /// the claimed sender.
    pub(crate) fn read(
        &mut self,
        content: Bytes,
        neighbor: EndpointId,
        direct: bool,
        now: Duration,
    ) -> Result<Read, (Ignored, Option<EndpointId>)> {
        if content.len() > self.max_bytes {
            let ignored = Ignored::Oversized {
                len: content.len(),
                max: self.max_bytes,
            };
            let (ignored, _) = self.charged(ignored, neighbor, now);
            return Err((ignored, SignedAnnouncement::claimed_sender(&content)));
        }
        match content.first() {
            Some(&tag::HEAD_ANNOUNCEMENT) => self.read_announcement(&content, neighbor, now),
            Some(&tag::RUNS) => self
                .read_runs(&content, neighbor, direct, now)
                .map_err(|ignored| (ignored, None)),
            Some(&code) if code < tag::FIRST => self.read_legacy(content, neighbor, now),
            Some(_) => Err(self.charged(Ignored::Unknown, neighbor, now)),
            None => Err(self.charged(Ignored::Malformed, neighbor, now)),
        }
    }

    fn read_announcement(
        &mut self,
        content: &Bytes,
        neighbor: EndpointId,
        now: Duration,
    ) -> Result<Read, (Ignored, Option<EndpointId>)> {
        let signed = match SignedAnnouncement::decode(content, self.max_bytes) {
            Ok(Some(signed)) => signed,
            Ok(None) => return Err(self.charged(Ignored::Unknown, neighbor, now)),
            Err(AnnouncementDecodeError::TooLarge { len, max }) => {
                return Err(self.charged(Ignored::Oversized { len, max }, neighbor, now));
            }
            Err(_) => {
                let (ignored, _) = self.charged(Ignored::Malformed, neighbor, now);
                return Err((ignored, SignedAnnouncement::claimed_sender(content)));
            }
        };
        let sender = signed.sender();
        self.admit(&signed, neighbor, now)
            .map(|share| {
                Read::Announcement(Unproven {
                    signed: Box::new(signed),
                    neighbor,
                    share,
                })
            })
            .map_err(|ignored| (ignored, Some(sender)))
    }

    /// Whether an announcement is worth a signature check; then, out of which share.
    fn admit(
        &mut self,
        signed: &SignedAnnouncement,
        neighbor: EndpointId,
        now: Duration,
    ) -> Result<Share, Ignored> {
        let charge = |gate: &mut Self, ignored| gate.charged(ignored, neighbor, now).0;
        if signed.space() != self.space {
            let found = signed.space();
            return Err(charge(self, Ignored::ForeignSpace { found }));
        }
        if signed.sender() == self.me {
            return Err(charge(self, Ignored::Own));
        }
        let counter = signed.counter();
        let share = match self.senders.look_up(&signed.sender(), counter, now) {
            Standing::Known | Standing::New if signed.sender() == neighbor => Share::Own,
            Standing::Known => Share::Known,
            Standing::New => Share::New,
            Standing::Replayed => return Err(charge(self, Ignored::Replayed { counter })),
            // Looked up and dropped: too cheap to count against whoever relays it.
            Standing::TooOften => return Err(Ignored::SenderTooOften),
        };
        self.take_share(neighbor, share, Name::Sender(signed.sender()), now)?;
        Ok(share)
    }

    fn read_runs(
        &mut self,
        content: &Bytes,
        neighbor: EndpointId,
        direct: bool,
        now: Duration,
    ) -> Result<Read, Ignored> {
        let Ok(Some(said)) = RunsMessage::decode(content) else {
            return Err(self.charged(Ignored::Malformed, neighbor, now).0);
        };
        if said.space != self.space {
            let found = said.space;
            return Err(self
                .charged(Ignored::ForeignSpace { found }, neighbor, now)
                .0);
        }
        let mut passed = UnprovenRuns {
            neighbor,
            runs: Vec::with_capacity(said.runs.len()),
            shares: Vec::with_capacity(said.runs.len()),
            left_out: Vec::new(),
        };
        for run in said.runs {
            let author = run.author();
            let share = match self.authors.look_up(&author, now) {
                AuthorStanding::Known if direct => Share::Own,
                AuthorStanding::Known => Share::Known,
                AuthorStanding::New => Share::New,
                AuthorStanding::TooOften => {
                    passed.left_out.push(author);
                    continue;
                }
            };
            if let Err(ignored) = self.take_share(neighbor, share, Name::Author(author), now) {
                // All of it, or nothing: what is dropped unread is healed as a whole.
                for (run, share) in passed.runs.iter().zip(&passed.shares) {
                    self.untake_share(neighbor, *share, Name::Author(run.author()));
                }
                return Err(ignored);
            }
            passed.runs.push(run);
            passed.shares.push(share);
        }
        match passed.left_out.first() {
            // Looked up and dropped, as above.
            Some(&author) if passed.runs.is_empty() => Err(Ignored::AuthorTooOften { author }),
            _ => Ok(Read::Runs(passed)),
        }
    }

    /// What a neighbour answers for until a message is proven.
    fn take_share(
        &mut self,
        neighbor: EndpointId,
        share: Share,
        name: Name,
        now: Duration,
    ) -> Result<(), Ignored> {
        // In this order: what one name may cost is used up before what all of them may.
        if forges(share) && !self.forged.try_take((neighbor, name), now) {
            return Err(Ignored::NeighborTooOften);
        }
        let has_share = self.neighbors.try_take((neighbor, share), now);
        if has_share && (!counts(share, name) || self.relayed.try_take(neighbor, now)) {
            return Ok(());
        }
        if has_share {
            self.neighbors.give_back(&(neighbor, share));
        }
        if forges(share) {
            self.forged.give_back(&(neighbor, name));
        }
        Err(Ignored::NeighborTooOften)
    }

    /// As if it had not been taken.
    fn untake_share(&mut self, neighbor: EndpointId, share: Share, name: Name) {
        self.neighbors.give_back(&(neighbor, share));
        if forges(share) {
            self.forged.give_back(&(neighbor, name));
        }
        if counts(share, name) {
            self.relayed.give_back(&neighbor);
        }
    }

    /// The message was proven: what its neighbour answered for is given back, unless it told of a name
    /// not heard of before.
    fn give_share_back(&mut self, neighbor: EndpointId, share: Share, name: Name) {
        if matches!(share, Share::Own | Share::Known) {
            self.neighbors.give_back(&(neighbor, share));
        }
        if forges(share) {
            self.forged.give_back(&(neighbor, name));
        }
    }

    fn read_legacy(
        &mut self,
        content: Bytes,
        neighbor: EndpointId,
        now: Duration,
    ) -> Result<Read, (Ignored, Option<EndpointId>)> {
        if !self.neighbors.try_take((neighbor, Share::Junk), now) {
            return Err((Ignored::NeighborTooOften, None));
        }
        match LegacyMessage::decode(content) {
            Ok(Some(message)) => Ok(Read::Legacy(message)),
            Ok(None) => Err((Ignored::Unknown, None)),
            Err(_) => Err((Ignored::Malformed, None)),
        }
    }

    /// Counts a bad message against the neighbour that delivered it, as far as it has a share
    /// left: it is told apart already, so nothing is lost by it.
    fn charged(
        &mut self,
        ignored: Ignored,
        neighbor: EndpointId,
        now: Duration,
    ) -> (Ignored, Option<EndpointId>) {
        self.neighbors.try_take((neighbor, Share::Junk), now);
        (ignored, None)
    }

    /// The policy no longer lets a sender read: what it says counts as that of an unknown one, and
    /// so not against the known ones.
    pub(crate) fn forget(&mut self, sender: &EndpointId) {
        self.senders.forget(sender);
    }

    /// Checks the signature, and decodes what came along. To be called only for senders the
    /// policy admits: it gives them a place in the table.
    pub(crate) fn prove(&mut self, unproven: Unproven, now: Duration) -> Result<Proven, Ignored> {
        let Unproven {
            signed,
            neighbor,
            share,
        } = unproven;
        // Others of the sender may have been proven meanwhile.
        let counter = signed.counter();
        match self.senders.look_up(&signed.sender(), counter, now) {
            Standing::Known | Standing::New => {}
            Standing::Replayed => return Err(Ignored::Replayed { counter }),
            Standing::TooOften => return Err(Ignored::SenderTooOften),
        }
        let announcement = signed.verify().map_err(|_| Ignored::Forged)?;
        let (sender, counter) = (announcement.sender, announcement.counter);
        self.give_share_back(neighbor, share, Name::Sender(sender));
        let newest = self.senders.note(sender, counter, now);
        Ok(Proven {
            announcement,
            neighbor,
            newest,
        })
    }

    /// A run through `seq` proved itself, of an author who may write here.
    pub(crate) fn proven_run(
        &mut self,
        neighbor: EndpointId,
        share: Share,
        (author, seq, fate): (AuthorId, u64, Fate),
        now: Duration,
    ) {
        if self.authors.note(author, seq, fate, now) {
            self.give_share_back(neighbor, share, Name::Author(author));
        }
    }
}

/// Whether it may be forged in somebody else's name.
fn forges(share: Share) -> bool {
    share == Share::Known
}

/// Whether it counts among all that a neighbour relays. Of announcements in its own name a neighbour has a
/// sender's share; authors it can have any number of.
fn counts(share: Share, name: Name) -> bool {
    forges(share) || (share == Share::Own && matches!(name, Name::Author(_)))
}

#[cfg(test)]
mod tests {
    use headwater_wire::{AuthorSecret, EventDraft, HeadsDigest, sign_runs};
    use iroh::SecretKey;

    use super::*;
    use crate::{Scope, limits::Rate};

    const MAX: usize = 4000;
    const NOW: Duration = Duration::from_secs(100);

    fn key(number: u8) -> SecretKey {
        SecretKey::from_bytes(&[number; 32])
    }

    fn id(number: u8) -> EndpointId {
        key(number).public()
    }

    fn space() -> SpaceId {
        SpaceId::from_bytes([1; 32])
    }

    fn gate() -> Gate {
        let limits = BridgeLimits {
            sender: Rate {
                per_second: 1,
                burst: 3,
            },
            neighbor: Rate {
                per_second: 1,
                burst: 5,
            },
            ..BridgeLimits::default()
        };
        Gate::new(space(), id(99), MAX, &limits)
    }

    fn said(sender: u8, n: u64) -> HeadAnnouncement {
        HeadAnnouncement {
            space: space(),
            sender: id(sender),
            counter: AnnouncementCounter { boot: 1, n },
            scope: Scope::Everything,
            digest: HeadsDigest::from_bytes([4; 32]),
            changed: vec![],
            forked: vec![],
        }
    }

    fn signed(sender: u8, n: u64) -> Bytes {
        said(sender, n).sign(&key(sender), MAX).unwrap()
    }

    /// With a signature over other bytes.
    fn forged(sender: u8, n: u64) -> Bytes {
        let (one, other) = (signed(sender, n), signed(sender, n + 1));
        let at = one.len() - 64;
        [&one[..at], &other[at..]].concat().into()
    }

    fn pass(gate: &mut Gate, content: Bytes, neighbor: u8) -> Result<Proven, Ignored> {
        match gate.read(content, id(neighbor), false, NOW) {
            Ok(Read::Announcement(unproven)) => gate.prove(unproven, NOW),
            Ok(read) => panic!("{read:?}"),
            Err((ignored, _)) => Err(ignored),
        }
    }

    /// A message of a run each of these authors.
    fn runs(space: SpaceId, authors: &[u8]) -> Bytes {
        let run = |author: &u8| {
            let author = AuthorSecret::from_bytes([*author; 32]);
            let mut runs =
                sign_runs(&space, &author, None, [EventDraft::new(16, 0, "new")]).unwrap();
            runs.remove(0).into_run()
        };
        let said = RunsMessage {
            space,
            salt: [0; 8],
            runs: {
                let mut runs: Vec<_> = authors.iter().map(run).collect();
                runs.sort_by_key(Run::author);
                runs
            },
        };
        said.encode()
    }

    /// Reads a message of runs, which then prove themselves to go that far.
    fn pass_runs(gate: &mut Gate, authors: &[u8], neighbor: u8, seq: u64) -> Result<(), Ignored> {
        take_runs(gate, authors, (neighbor, false), Some(seq))
    }

    /// `None`: they do not prove themselves, or their authors may not write.
    fn take_runs(
        gate: &mut Gate,
        authors: &[u8],
        (neighbor, direct): (u8, bool),
        proven: Option<u64>,
    ) -> Result<(), Ignored> {
        match gate.read(runs(space(), authors), id(neighbor), direct, NOW) {
            Ok(Read::Runs(message)) => {
                for (run, share) in message.runs.iter().zip(message.shares) {
                    if let Some(seq) = proven {
                        let said = (run.author(), seq, Fate::NotStored);
                        gate.proven_run(message.neighbor, share, said, NOW);
                    }
                }
                Ok(())
            }
            Ok(read) => panic!("{read:?}"),
            Err((ignored, _)) => Err(ignored),
        }
    }

    #[test]
    fn an_announcement_passes_once() {
        let mut gate = gate();
        let proven = pass(&mut gate, signed(1, 1), 7).unwrap();
        assert_eq!(proven.announcement, said(1, 1));
        assert!(proven.newest);
        let again = pass(&mut gate, signed(1, 1), 7);
        assert!(matches!(again, Err(Ignored::Replayed { .. })), "{again:?}");
    }

    #[test]
    fn a_forged_announcement_does_not_move_the_counter_of_the_sender_it_names() {
        let mut gate = gate();
        pass(&mut gate, signed(1, 1), 7).unwrap();
        let far = forged(1, u64::MAX - 1);
        assert_eq!(pass(&mut gate, far, 8).unwrap_err(), Ignored::Forged);
        pass(&mut gate, signed(1, 2), 7).unwrap();
    }

    #[test]
    fn bad_messages_are_told_apart() {
        let mut gate = gate();
        let mut elsewhere = said(1, 1);
        elsewhere.space = SpaceId::from_bytes([2; 32]);
        let elsewhere = elsewhere.sign(&key(1), MAX).unwrap();
        for (content, expected) in [
            (
                Bytes::from(vec![tag::HEAD_ANNOUNCEMENT; MAX + 1]),
                Ignored::Oversized {
                    len: MAX + 1,
                    max: MAX,
                },
            ),
            (Bytes::from_static(&[77, 1]), Ignored::Unknown),
            (Bytes::new(), Ignored::Malformed),
            (Bytes::from_static(&[16, 1]), Ignored::Malformed),
            (Bytes::from_static(&[17, 1]), Ignored::Malformed),
            (
                runs(SpaceId::from_bytes([2; 32]), &[1]),
                Ignored::ForeignSpace {
                    found: SpaceId::from_bytes([2; 32]),
                },
            ),
            (
                elsewhere,
                Ignored::ForeignSpace {
                    found: SpaceId::from_bytes([2; 32]),
                },
            ),
        ] {
            assert_eq!(pass(&mut gate, content, 7).unwrap_err(), expected);
        }
    }

    #[test]
    fn our_own_words_are_no_news() {
        let mut gate = gate();
        let own = signed(99, 1);
        assert_eq!(pass(&mut gate, own, 7).unwrap_err(), Ignored::Own);
    }

    #[test]
    fn a_sender_that_says_too_much_leaves_others_heard_through_the_same_neighbor() {
        let mut gate = gate();
        let passed = (1..=1000).filter(|n| pass(&mut gate, signed(1, *n), 7).is_ok());
        assert_eq!(passed.count(), 3);
        pass(&mut gate, signed(2, 1), 7).unwrap();
    }

    #[test]
    fn forged_floods_use_up_the_share_of_who_delivers_them_and_nobody_elses() {
        let mut gate = gate();
        pass(&mut gate, signed(1, 1), 7).unwrap();
        let forged: Vec<_> = (1..=20)
            .map(|n| pass(&mut gate, forged(1, 100 + n), 8).unwrap_err())
            .collect();
        assert_eq!(forged[..5], vec![Ignored::Forged; 5]);
        assert_eq!(forged[5..], vec![Ignored::NeighborTooOften; 15]);
        pass(&mut gate, signed(1, 2), 7).unwrap();
    }

    #[test]
    fn senders_that_are_all_new_use_up_the_share_of_who_delivers_them() {
        let mut gate = gate();
        let passed = (10..60).filter(|sender| pass(&mut gate, signed(*sender, 1), 8).is_ok());
        assert_eq!(passed.count(), 5);
        pass(&mut gate, signed(60, 1), 7).unwrap();
    }

    #[test]
    fn junk_that_a_neighbor_relays_leaves_known_and_new_senders_heard_through_it() {
        let mut gate = gate();
        pass(&mut gate, signed(1, 1), 8).unwrap();
        let mut elsewhere = said(2, 1);
        elsewhere.space = SpaceId::from_bytes([2; 32]);
        let request = LegacyMessage::SyncRequest {
            state_hash: [1; 32],
            topic: [2; 32],
        };
        let junk = [
            Bytes::from_static(&[77, 1]),
            Bytes::from_static(&[16, 1]),
            vec![16; MAX + 1].into(),
            signed(1, 1),
            elsewhere.sign(&key(2), MAX).unwrap(),
            request.encode().into(),
        ];
        for _ in 0..100 {
            for junk in &junk {
                gate.read(junk.clone(), id(8), false, NOW).ok();
            }
        }
        pass(&mut gate, signed(1, 2), 8).unwrap();
        pass(&mut gate, signed(3, 1), 8).unwrap();
        for number in 10..60 {
            pass(&mut gate, signed(number, 1), 8).ok();
        }
        pass(&mut gate, signed(1, 3), 8).unwrap();
    }

    /// A gate with wide shares, but these.
    fn gate_of(forged: u32, relayed: u32) -> Gate {
        let rate = |burst| Rate {
            per_second: 1,
            burst,
        };
        let limits = BridgeLimits {
            neighbor: rate(100),
            forged: rate(forged),
            relayed: rate(relayed),
            ..BridgeLimits::default()
        };
        Gate::new(space(), id(99), MAX, &limits)
    }

    #[test]
    fn forging_one_known_sender_leaves_it_heard_through_others_and_others_through_that_neighbor() {
        let mut gate = gate_of(3, 1000);
        for sender in 1..=3 {
            pass(&mut gate, signed(sender, 1), 8).unwrap();
        }
        let refused: Vec<_> = (1..=20)
            .map(|n| pass(&mut gate, forged(1, 100 + n), 8).unwrap_err())
            .collect();
        assert_eq!(refused[..3], vec![Ignored::Forged; 3]);
        assert_eq!(refused[3..], vec![Ignored::NeighborTooOften; 17]);
        // Silenced by way of that neighbour, and no other way.
        let silenced = pass(&mut gate, signed(1, 2), 8).unwrap_err();
        assert_eq!(silenced, Ignored::NeighborTooOften);
        pass(&mut gate, signed(1, 3), 7).unwrap();
        for n in 2..50 {
            pass(&mut gate, signed(2, n), 8).unwrap();
            pass(&mut gate, signed(3, n), 8).unwrap();
        }
        let later = NOW + Duration::from_secs(1);
        let Ok(Read::Announcement(unproven)) = gate.read(signed(1, 4), id(8), false, later) else {
            panic!("heard again");
        };
        gate.prove(unproven, later).unwrap();
    }

    #[test]
    fn forging_many_known_senders_costs_no_more_than_the_neighbors_share() {
        let mut gate = gate_of(20, 1000);
        for sender in 10..60 {
            pass(&mut gate, signed(sender, 1), 8).unwrap();
        }
        let checked = (10..60)
            .flat_map(|sender| (100..120).map(move |n| (sender, n)))
            .map(|(sender, n)| pass(&mut gate, forged(sender, n), 8).unwrap_err())
            .filter(|ignored| *ignored == Ignored::Forged);
        assert_eq!(checked.count(), 100);
        pass(&mut gate, signed(10, 2), 7).unwrap();
    }

    #[test]
    fn any_number_of_keys_behind_one_neighbor_get_no_more_than_it_may_relay() {
        let mut gate = gate_of(20, 60);
        // Each proves itself once, as a new one.
        for sender in 10..50 {
            pass(&mut gate, signed(sender, 1), 8).unwrap();
        }
        let passed = (10..50)
            .flat_map(|sender| (2..12).map(move |n| (sender, n)))
            .filter(|(sender, n)| pass(&mut gate, signed(*sender, *n), 8).is_ok());
        assert_eq!(passed.count(), 60);
        pass(&mut gate, signed(1, 1), 7).unwrap();
        pass(&mut gate, signed(8, 1), 8).unwrap();
    }

    #[test]
    fn what_a_sender_says_that_was_shut_out_does_not_count_against_the_known_ones() {
        let mut gate = gate_of(20, 1000);
        pass(&mut gate, signed(1, 1), 8).unwrap();
        pass(&mut gate, signed(2, 1), 8).unwrap();
        gate.forget(&id(1));
        // Read, refused by the policy, and never proven.
        let read = (2..500).filter(|n| gate.read(signed(1, *n), id(8), false, NOW).is_ok());
        assert!(read.count() <= 100);
        pass(&mut gate, signed(2, 2), 8).unwrap();
    }

    #[test]
    fn a_neighbor_that_relays_forged_announcements_is_heard_itself() {
        let mut gate = gate();
        pass(&mut gate, signed(1, 1), 7).unwrap();
        for n in 1..=20 {
            pass(&mut gate, forged(1, 100 + n), 8).unwrap_err();
        }
        pass(&mut gate, signed(8, 1), 8).unwrap();
        pass(&mut gate, signed(8, 2), 8).unwrap();
    }

    #[test]
    fn what_a_neighbor_forges_in_its_own_name_is_bounded_too() {
        let mut gate = gate();
        let checked =
            (1..=20).filter(|n| pass(&mut gate, forged(8, *n), 8).unwrap_err() == Ignored::Forged);
        assert_eq!(checked.count(), 5);
    }

    #[test]
    fn an_author_that_writes_too_often_leaves_others_heard_even_in_the_same_message() {
        let limits = BridgeLimits {
            author: Rate {
                per_second: 1,
                burst: 3,
            },
            ..BridgeLimits::default()
        };
        let mut gate = Gate::new(space(), id(99), MAX, &limits);
        let passed = (1..1000).filter(|seq| pass_runs(&mut gate, &[1], 7, *seq).is_ok());
        assert_eq!(passed.count(), 3);
        let author = AuthorSecret::from_bytes([1; 32]).id();
        let refused = Ignored::AuthorTooOften { author };
        assert_eq!(pass_runs(&mut gate, &[1], 7, 2000), Err(refused));
        let Ok(Read::Runs(message)) = gate.read(runs(space(), &[1, 2]), id(7), false, NOW) else {
            panic!("the other one is heard");
        };
        assert_eq!(message.left_out, [author]);
        assert_eq!((message.runs.len(), message.shares.len()), (1, 1));
        pass(&mut gate, signed(1, 1), 7).unwrap();
    }

    #[test]
    fn runs_that_are_no_news_use_up_the_share_of_who_delivers_them_and_nothing_of_their_author() {
        let mut gate = gate_of(3, 10_000);
        for author in 1..=3 {
            pass_runs(&mut gate, &[author], 7, 9).unwrap();
        }
        // Sent again, forged, or both beside a run that is news: each pays for itself.
        for authors in [&[1][..], &[1, 3]] {
            for n in 0..1000 {
                let seq = 10 + n;
                let run_of_three = authors.contains(&3);
                let Ok(Read::Runs(message)) = gate.read(runs(space(), authors), id(8), false, NOW)
                else {
                    break;
                };
                for (run, share) in message.runs.iter().zip(message.shares) {
                    let is_three = run.author() == AuthorSecret::from_bytes([3; 32]).id();
                    let seq = if is_three && run_of_three { seq } else { 9 };
                    let said = (run.author(), seq, Fate::NotStored);
                    gate.proven_run(message.neighbor, share, said, NOW);
                }
            }
        }
        let silenced = pass_runs(&mut gate, &[1], 8, 10_000);
        assert_eq!(silenced, Err(Ignored::NeighborTooOften));
        for seq in 10..110 {
            pass_runs(&mut gate, &[2], 8, seq).unwrap();
            pass_runs(&mut gate, &[1], 7, seq).unwrap();
        }
    }

    #[test]
    fn what_a_message_takes_is_given_back_if_all_of_it_is_dropped() {
        let mut gate = gate_of(3, 60);
        for author in 1..=2 {
            pass_runs(&mut gate, &[author], 7, 1).unwrap();
        }
        while take_runs(&mut gate, &[2], (8, false), None).is_ok() {}
        for _ in 0..1000 {
            // In the order of the keys, one of them first.
            for authors in [&[1, 2][..], &[3, 1, 2]] {
                let dropped = take_runs(&mut gate, authors, (8, false), None);
                assert_eq!(dropped, Err(Ignored::NeighborTooOften));
            }
        }
        pass_runs(&mut gate, &[3], 8, 1).unwrap();
        let passed = (0..100).filter(|_| take_runs(&mut gate, &[1], (8, false), None).is_ok());
        assert_eq!(passed.count(), 3);
    }

    #[test]
    fn authors_that_are_all_new_use_up_the_share_of_who_delivers_them() {
        let mut gate = gate();
        pass_runs(&mut gate, &[1], 8, 1).unwrap();
        // One of them known, or all of them new; none of the new ones may write.
        let passed = (10..60).filter(|new| {
            let known_too = take_runs(&mut gate, &[1, *new], (8, false), None);
            let direct = take_runs(&mut gate, &[*new], (8, true), None);
            known_too.is_ok() || direct.is_ok()
        });
        assert_eq!(passed.count(), 2);
        pass_runs(&mut gate, &[1], 8, 2).unwrap();
        pass_runs(&mut gate, &[60], 7, 1).unwrap();
    }

    #[test]
    fn a_neighbor_that_relays_forged_runs_is_heard_itself() {
        let mut gate = gate_of(3, 10_000);
        pass_runs(&mut gate, &[1], 7, 1).unwrap();
        while take_runs(&mut gate, &[1], (8, false), None).is_ok() {}
        for seq in 2..100 {
            take_runs(&mut gate, &[1], (8, true), Some(seq)).unwrap();
        }
        // And what it forges itself is bounded.
        let forged = (0..1000).filter(|_| take_runs(&mut gate, &[1], (8, true), None).is_ok());
        assert_eq!(forged.count(), 100);
    }

    #[test]
    fn any_number_of_authors_behind_one_neighbor_get_no_more_than_it_may_relay() {
        let mut gate = gate_of(20, 60);
        for author in 10..50 {
            pass_runs(&mut gate, &[author], 8, 1).unwrap();
        }
        let passed = (10..50)
            .flat_map(|author| (2..12).map(move |seq| (author, seq)))
            .filter(|(author, seq)| {
                let direct = seq % 2 == 0;
                take_runs(&mut gate, &[*author], (8, direct), Some(*seq)).is_ok()
            });
        assert_eq!(passed.count(), 60);
        pass_runs(&mut gate, &[10], 7, 100).unwrap();
    }

    #[test]
    fn the_older_messages_are_read_and_counted_against_the_neighbor() {
        let mut gate = gate();
        let request = LegacyMessage::SyncRequest {
            state_hash: [1; 32],
            topic: [2; 32],
        };
        let content = Bytes::from(request.encode());
        for _ in 0..5 {
            let read = gate.read(content.clone(), id(7), false, NOW).unwrap();
            assert!(matches!(read, Read::Legacy(read) if read == request));
        }
        let (ignored, _) = gate.read(content, id(7), false, NOW).unwrap_err();
        assert_eq!(ignored, Ignored::NeighborTooOften);
    }
}
