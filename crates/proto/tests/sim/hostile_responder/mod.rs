//! A requester against responders that break the rules: each break has its own error, the peer
//! is blamed for it, and nothing but verified runs ever reaches the store.

mod endings;
mod order;
mod runs;

use core::time::Duration;

use headwater_proto::{
    AppliedRun, Requester, RequesterConfig, RequesterOutput, SessionError, SessionLimits, SyncEnd,
};
use headwater_wire::{
    AuthorId, Budget, Busy, EventId, ForkNotice, HeadsChunk, HeadsDigest, HeadsWanted,
    HistorySyncComplete, LiveBatch, LiveLagged, Message, PlanTotals, Segment, SyncBatchV2,
    SyncOutcome, SyncPlan, SyncRequestV2,
};

use crate::{
    logs::{Logs, author},
    rng::Rng,
};

pub(super) const ID: u64 = 5;
pub(super) const NOW: Duration = Duration::from_secs(100);
pub(super) const OTHER: EventId = EventId::from_bytes([0xEE; 32]);

/// A requester whose store answers at once, and whose responder the test plays.
pub(super) struct Puppet {
    pub(super) requester: Requester,
    pub(super) logs: Logs,
    pub(super) end: Option<SyncEnd>,
    pub(super) sent: Vec<Message>,
    pub(super) unapplied: Vec<Vec<AppliedRun>>,
    pub(super) applies_at_once: bool,
}

impl Puppet {
    pub(super) fn new(logs: &Logs, change: impl FnOnce(&mut RequesterConfig)) -> Self {
        let mut config = RequesterConfig {
            request_id: ID,
            space: logs.space,
            budget: Budget::default(),
            except: Vec::new(),
            live: false,
            limits: SessionLimits::default(),
        };
        change(&mut config);
        let mut puppet = Self {
            requester: Requester::new(config, logs.clock(), NOW),
            logs: logs.clone(),
            end: None,
            sent: Vec::new(),
            unapplied: Vec::new(),
            applies_at_once: true,
        };
        puppet.drain().expect("it begins");
        puppet
    }

    pub(super) fn hear(&mut self, message: impl Into<Message>) -> Result<(), SessionError> {
        self.requester.handle_message(message.into(), NOW)?;
        self.drain()
    }

    /// Hears messages that break no rule.
    pub(super) fn after(mut self, messages: impl IntoIterator<Item = Message>) -> Self {
        for message in messages {
            let name = message.name();
            if let Err(error) = self.hear(message) {
                panic!("{name}: {error}");
            }
        }
        self
    }

    /// Lets the store answer what it has not answered yet.
    pub(super) fn apply_all(&mut self) -> Result<(), SessionError> {
        for applied in std::mem::take(&mut self.unapplied) {
            self.requester.handle_applied(applied, NOW)?;
        }
        self.drain()
    }

    pub(super) fn drain(&mut self) -> Result<(), SessionError> {
        while let Some(output) = self.requester.poll_output() {
            match output {
                RequesterOutput::Send(message) => self.sent.push(message),
                RequesterOutput::ReadHead(author) => {
                    self.requester.handle_owner_head(self.logs.head(&author))?;
                }
                RequesterOutput::ReadHeads { after, limit } => {
                    self.requester.handle_heads(self.logs.heads(after, limit))?;
                }
                RequesterOutput::Apply(runs) => {
                    let mut applied = Vec::new();
                    for run in runs {
                        match run.verify(&self.logs.space) {
                            Ok(run) => {
                                let outcome = self.logs.append(run.clone());
                                applied.push(AppliedRun::new(&run, outcome));
                            }
                            Err(error) => return Err(self.requester.handle_invalid_run(error)),
                        }
                    }
                    if self.applies_at_once {
                        self.requester.handle_applied(applied, NOW)?;
                    } else {
                        self.unapplied.push(applied);
                    }
                }
                RequesterOutput::Finished(end) => self.end = Some(end),
                _ => {}
            }
        }
        Ok(())
    }
}

/// What both sides hold in most tests: the owner and authors 2 to 5, ten events each.
pub(super) fn space() -> Logs {
    let mut rng = Rng::new(3);
    let mut logs = Logs::create(1);
    for n in 2..=5 {
        logs.write(&author(n), 10, &mut rng);
    }
    logs
}

/// Authors other than the owner, ascending.
pub(super) fn others(logs: &Logs) -> Vec<AuthorId> {
    let mut others = logs.authors();
    others.retain(|author| *author != logs.owner);
    others
}

/// A requester that holds `space()` and was told that the digests differ.
pub(super) fn asked_for_heads() -> Puppet {
    Puppet::new(&space(), |_| {}).after([HeadsWanted { request_id: ID }.into()])
}

pub(super) fn totals(authors: u64, events: u64) -> PlanTotals {
    PlanTotals {
        authors,
        events,
        payload_bytes: events * 100,
    }
}

pub(super) fn plan(segment: Segment, totals: PlanTotals) -> Message {
    let rest = PlanTotals::default();
    let request_id = ID;
    SyncPlan {
        request_id,
        segment,
        totals,
        rest,
    }
    .into()
}

pub(super) fn nothing_of(segment: Segment) -> Message {
    plan(segment, PlanTotals::default())
}

/// `count` new events by an author, above what `logs` holds of it, in one batch.
pub(super) fn news(logs: &Logs, n: u64, count: u64) -> Message {
    let mut longer = logs.clone();
    let held = longer.runs(&author(n).id()).len();
    longer.write(&author(n), count, &mut Rng::new(8));
    let runs = longer.runs(&author(n).id())[held..].iter();
    SyncBatchV2 {
        request_id: ID,
        runs: runs.map(|run| run.run().as_bytes().clone()).collect(),
        more: true,
    }
    .into()
}

pub(super) fn empty(more: bool) -> Message {
    SyncBatchV2 {
        request_id: ID,
        runs: Vec::new(),
        more,
    }
    .into()
}

pub(super) fn completion(digest: HeadsDigest) -> HistorySyncComplete {
    HistorySyncComplete {
        request_id: ID,
        outcome: SyncOutcome::Complete,
        last_event: None,
        events: 0,
        stubs: 0,
        joined_digest: digest,
        stream_generation: 9,
        cursor: None,
        receipt: None,
    }
}

pub(super) fn notice(logs: &Logs, author: AuthorId) -> ForkNotice {
    let stated = logs.head(&author).expect("held").entry;
    let mut held = stated;
    held.head.id = OTHER;
    ForkNotice {
        request_id: ID,
        author,
        stated: Some(stated),
        held,
    }
}

/// One of every message a peer may send in some phase, in either role.
pub(super) fn every_message() -> Vec<Message> {
    let logs = space();
    vec![
        SyncRequestV2 {
            request_id: ID,
            space: logs.space,
            clock: headwater_wire::Clock::Heads,
            filter: headwater_wire::SyncFilter::default(),
            budget: Budget::default(),
            live: false,
        }
        .into(),
        HeadsChunk {
            request_id: ID,
            heads: Vec::new(),
            last: true,
        }
        .into(),
        HeadsWanted { request_id: ID }.into(),
        nothing_of(Segment::Owner),
        news(&logs, 2, 3),
        empty(false),
        notice(&logs, others(&logs)[0]).into(),
        completion(HeadsDigest::EMPTY).into(),
        LiveBatch {
            request_id: ID,
            runs: Vec::new(),
        }
        .into(),
        LiveLagged {
            request_id: ID,
            missed: 3,
        }
        .into(),
        Busy {
            request_id: ID,
            retry_after_ms: 250,
        }
        .into(),
    ]
}
