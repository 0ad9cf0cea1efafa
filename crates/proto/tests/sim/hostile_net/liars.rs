//! Four ways to be hostile, as what becomes of an honest session's messages before they are sent.

use std::{cell::RefCell, collections::BTreeMap, rc::Rc};

use headwater_wire::{
    AuthorHead, AuthorId, Clock, ClockEntry, EventId, ForkNotice, HeadsDigest, HistorySyncComplete,
    Message, Segment, SyncBatchV2, SyncOutcome, Truncation,
};

use crate::{rng::Rng, simulator::Lie, tampering::change};

/// What a hostile node is after.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Liar {
    /// Signs several branches of a log, and gives each peer another. Its sessions are honest.
    Forker,
    /// Serves less than it holds, and says that the clocks are equal.
    Withholder,
    /// States heads that do not exist, wrong totals, wrong digests, and forks of honest authors.
    Fabricator,
    /// Sends more than was asked for, without end if one lets it.
    Flooder,
}

/// What a hostile node overhears in one session.
pub(super) type Notes = Rc<RefCell<Overheard>>;

#[derive(Default)]
pub(super) struct Overheard {
    digest: Option<HeadsDigest>,
    owner: Option<AuthorId>,
    stated: BTreeMap<AuthorId, ClockEntry>,
    /// The last author planned for.
    lower: Option<AuthorId>,
    slandered: u64,
}

impl Liar {
    pub(super) const ALL: [Self; 4] = [
        Self::Forker,
        Self::Withholder,
        Self::Fabricator,
        Self::Flooder,
    ];

    /// What it does to its own messages when it asks.
    pub(super) fn asks(self, rng: &mut Rng) -> Option<Lie> {
        let mut rng = Rng::new(rng.next());
        match self {
            Self::Forker | Self::Withholder => None,
            Self::Fabricator => Some(Box::new(move |message| vec![lie(message, &mut rng)])),
            Self::Flooder => Some(Box::new(move |message| flood(message, &mut rng))),
        }
    }

    /// What it does to its own messages when it answers.
    pub(super) fn answers(self, notes: &Notes, rng: &mut Rng) -> Option<Lie> {
        let mut rng = Rng::new(rng.next());
        let notes = notes.clone();
        match self {
            Self::Forker => None,
            Self::Withholder if rng.one_in(2) => None,
            Self::Withholder => Some(Box::new(move |message| say_equal(message, &notes))),
            Self::Fabricator if rng.one_in(2) => {
                Some(Box::new(move |message| slander(message, &notes, &mut rng)))
            }
            Self::Fabricator => Some(Box::new(move |message| vec![lie(message, &mut rng)])),
            Self::Flooder => Some(Box::new(move |message| flood(message, &mut rng))),
        }
    }
}

/// Takes notes of what an honest requester says, and changes nothing.
pub(super) fn overhear(notes: &Notes) -> Lie {
    let notes = notes.clone();
    Box::new(move |message| {
        let mut notes = notes.borrow_mut();
        match &message {
            Message::SyncRequestV2(request) => {
                if let Clock::Digest(digest) = request.clock {
                    notes.digest = Some(digest);
                }
            }
            Message::HeadsChunk(chunk) => {
                let owner = chunk.heads.first().map(|entry| entry.author);
                notes.owner = notes.owner.or(owner);
                let stated = chunk.heads.iter().map(|entry| (entry.author, *entry));
                notes.stated.extend(stated);
            }
            _ => {}
        }
        vec![message]
    })
}

/// "You hold all I hold", whatever was stated.
fn say_equal(message: Message, notes: &Notes) -> Vec<Message> {
    let Message::HeadsWanted(wanted) = message else {
        return vec![message];
    };
    let request_id = wanted.request_id;
    let nothing = SyncBatchV2 {
        request_id,
        more: false,
        runs: Vec::new(),
    };
    let complete = HistorySyncComplete {
        request_id,
        outcome: SyncOutcome::Complete,
        last_event: None,
        events: 0,
        stubs: 0,
        joined_digest: notes.borrow().digest.unwrap_or(HeadsDigest::EMPTY),
        stream_generation: 1,
        cursor: None,
        receipt: None,
    };
    vec![nothing.into(), complete.into()]
}

/// Says of an author or two that they have forked, and otherwise speaks the truth.
fn slander(message: Message, notes: &Notes, rng: &mut Rng) -> Vec<Message> {
    let mut notes = notes.borrow_mut();
    match message {
        Message::SyncPlan(plan) if plan.segment == Segment::Last && plan.totals.events == 0 => {
            let request_id = plan.request_id;
            let mut told = vec![plan.into()];
            let (owner, lower) = (notes.owner, notes.lower);
            let in_reach =
                |author| Some(author) != owner && lower.is_none_or(|lower| lower < author);
            let stated = notes.stated.values();
            let victims = stated.filter(|stated| !stated.forked && in_reach(stated.author));
            let victims: Vec<_> = victims.filter(|_| rng.one_in(3)).collect();
            for stated in &victims {
                let held = ClockEntry {
                    forked: rng.one_in(2),
                    head: AuthorHead {
                        seq: stated.head.seq,
                        id: EventId::from_bytes([rng.next() as u8; 32]),
                    },
                    ..**stated
                };
                told.push(
                    ForkNotice {
                        request_id,
                        author: stated.author,
                        stated: Some(**stated),
                        held,
                    }
                    .into(),
                );
            }
            notes.slandered = told.len() as u64 - 1;
            told
        }
        Message::SyncPlan(plan) => {
            if let Segment::Through(author) = plan.segment {
                notes.lower = Some(author);
            }
            vec![plan.into()]
        }
        Message::HistorySyncComplete(mut complete) if notes.slandered > 0 => {
            let before = match complete.outcome {
                SyncOutcome::Truncated(Truncation::Forked { authors }) => authors,
                _ => 0,
            };
            let authors = before + notes.slandered;
            complete.outcome = SyncOutcome::Truncated(Truncation::Forked { authors });
            complete.receipt = None;
            vec![complete.into()]
        }
        Message::ForkAnswer(mut answer) => {
            answer.forked = true;
            vec![answer.into()]
        }
        message => vec![message],
    }
}

/// Every second message is another one than an honest side would send.
fn lie(mut message: Message, rng: &mut Rng) -> Message {
    if rng.one_in(2) {
        return message;
    }
    match &mut message {
        Message::HeadsChunk(chunk) if rng.one_in(2) => {
            for entry in &mut chunk.heads {
                entry.head.seq += rng.below(9);
            }
            let made_up = ClockEntry {
                author: AuthorId::from_bytes([0xFF; 32]),
                head: AuthorHead {
                    seq: 1 + rng.below(1 << 40),
                    id: EventId::from_bytes([3; 32]),
                },
                forked: rng.one_in(2),
                revoked: headwater_wire::RevokedDigest::NONE,
            };
            chunk.heads.push(made_up);
        }
        Message::ForkLocator(locator) => {
            locator.forked = true;
            for entry in &mut locator.entries {
                if rng.one_in(3) {
                    entry.id = EventId::from_bytes([rng.next() as u8; 32]);
                }
            }
        }
        Message::ForkAnswer(answer) => match rng.below(3) {
            0 => answer.forked = true,
            1 => (answer.same, answer.differs) = (0, Some(1)),
            _ => (answer.same, answer.differs) = (answer.same, None),
        },
        Message::ForkBranch(branch) => match &branch.run {
            Some(run) if rng.one_in(2) => {
                let mut bytes = run.to_vec();
                let at = rng.below(bytes.len() as u64) as usize;
                bytes[at] ^= 1 << rng.below(8);
                branch.run = Some(bytes.into());
            }
            _ => branch.run = None,
        },
        Message::ForkWant(want) => want.through += rng.below(1 << 20),
        other => change(other, rng),
    }
    message
}

/// More than was asked for.
fn flood(message: Message, rng: &mut Rng) -> Vec<Message> {
    let request_id = message.request_id();
    let often = 1 + rng.below(40) as usize;
    match &message {
        Message::SyncBatchV2(_) if rng.one_in(2) => {
            let empty = SyncBatchV2 {
                request_id,
                more: true,
                runs: Vec::new(),
            };
            vec![empty.into(); often]
        }
        Message::ForkBranch(branch) if branch.run.is_none() => Vec::new(),
        Message::SyncRequestV2(_) => vec![message],
        _ if rng.one_in(3) => vec![message],
        _ => vec![message; often],
    }
}
