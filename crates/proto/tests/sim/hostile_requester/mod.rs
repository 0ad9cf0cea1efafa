//! A responder against requesters that break the rules, and against a store that does.

mod heads;
mod requests;
mod store;

use core::time::Duration;

use headwater_proto::{Responder, ResponderOutput, ServeEnd, SessionError, SessionLimits};
use headwater_wire::{
    AuthorHead, AuthorId, Budget, Clock, ClockEntry, EventId, HeadsChunk, HeadsWanted, LiveLagged,
    Message, PlanTotals, Segment, SyncFilter, SyncPlan, SyncRequestV2,
};

use crate::{
    logs::{Logs, author},
    rng::Rng,
};

pub(super) const ID: u64 = 5;
pub(super) const NOW: Duration = Duration::from_secs(100);

/// A responder whose store answers at once, and whose requester the test plays.
pub(super) struct Puppet {
    pub(super) responder: Responder,
    pub(super) logs: Logs,
    pub(super) sent: Vec<Message>,
    pub(super) end: Option<ServeEnd>,
    pub(super) awaits_live: bool,
}

impl Puppet {
    pub(super) fn new(limits: SessionLimits) -> Self {
        Self {
            responder: Responder::new(limits, NOW),
            logs: space(),
            sent: Vec::new(),
            end: None,
            awaits_live: false,
        }
    }

    /// A responder that awaits heads.
    pub(super) fn asking() -> Self {
        let mut puppet = Self::new(SessionLimits::default());
        puppet.hear(request(Clock::Heads)).expect("a request");
        puppet
    }

    pub(super) fn hear(&mut self, message: impl Into<Message>) -> Result<(), SessionError> {
        self.responder.handle_message(message.into(), NOW)?;
        self.drain()
    }

    pub(super) fn drain(&mut self) -> Result<(), SessionError> {
        while let Some(output) = self.responder.poll_output() {
            let responder = &mut self.responder;
            match output {
                ResponderOutput::Send(message) => self.sent.push(message),
                ResponderOutput::Open { space, .. } => {
                    let summary = self.logs.summary().filter(|held| held.space == space);
                    responder.handle_opened(summary, NOW)?;
                }
                ResponderOutput::ReadHead(author) => {
                    responder.handle_owner_head(self.logs.head(&author), NOW)?;
                }
                ResponderOutput::ReadHeads { after, limit } => {
                    responder.handle_heads(self.logs.heads(after, limit), NOW)?;
                }
                ResponderOutput::CheckTails(stated) => {
                    responder.handle_tails(self.logs.check_tails(&stated), NOW)?;
                }
                ResponderOutput::ReadRuns { wants, max_bytes } => {
                    responder.handle_runs(self.logs.read_runs(&wants, max_bytes), NOW)?;
                }
                ResponderOutput::AwaitLive => self.awaits_live = true,
                ResponderOutput::Finished(end) => self.end = Some(end),
                _ => {}
            }
        }
        Ok(())
    }
}

pub(super) fn space() -> Logs {
    let mut rng = Rng::new(3);
    let mut logs = Logs::create(1);
    for n in 2..=5 {
        logs.write(&author(n), 10, &mut rng);
    }
    logs
}

pub(super) fn request(clock: Clock) -> SyncRequestV2 {
    SyncRequestV2 {
        request_id: ID,
        space: space().space,
        clock,
        filter: SyncFilter::default(),
        budget: Budget::default(),
        live: false,
    }
}

pub(super) fn entry(author: AuthorId, seq: u64) -> ClockEntry {
    ClockEntry {
        author,
        head: AuthorHead {
            seq,
            id: EventId::from_bytes([4; 32]),
        },
        forked: false,
        revoked: headwater_wire::RevokedDigest::NONE,
    }
}

pub(super) fn named(byte: u8) -> AuthorId {
    AuthorId::from_bytes([byte; 32])
}

pub(super) fn chunk(heads: Vec<ClockEntry>, last: bool) -> HeadsChunk {
    HeadsChunk {
        request_id: ID,
        heads,
        last,
    }
}

/// Every message that only a responder sends.
pub(super) fn answers() -> Vec<Message> {
    vec![
        HeadsWanted { request_id: ID }.into(),
        SyncPlan {
            request_id: ID,
            segment: Segment::Owner,
            totals: PlanTotals::default(),
            rest: PlanTotals::default(),
        }
        .into(),
        LiveLagged {
            request_id: ID,
            missed: 1,
        }
        .into(),
    ]
}
