//! A responder that hears whatever a script says, from a requester that keeps no rule, over a store
//! that answers when the script says so.

use std::{collections::VecDeque, time::Duration};

use bytes::Bytes;
use headwater_proto::{Responder, ResponderOutput, SessionError, SessionLimits, TailWant};
use headwater_store::{LogStore, MemoryStore};
use headwater_wire::{
    Budget, Clock, Cursor, HeadsChunk, Message, Run, SpaceId, SyncFilter, SyncRequestV2,
};

use crate::{Script, world};

const REQUEST: u64 = 5;

/// Most outputs that one input may cause.
const MOST_OUTPUTS: usize = 256;

struct Driver {
    session: Responder,
    store: MemoryStore,
    questions: VecDeque<ResponderOutput>,
    now: Duration,
    /// Runs of the world that are stored.
    stored: usize,
    awaits_live: bool,
    over: bool,
}

pub fn run(data: &[u8]) {
    let mut script = Script(data);
    let world = world();
    let stored = 1 + usize::from(script.byte()) % (world.runs.len() - 2);
    let limits = SessionLimits {
        batch_bytes: 1 + usize::from(script.byte()) * 16,
        page_heads: usize::from(script.byte()),
        max_authors: 1 + u64::from(script.byte()),
        ..SessionLimits::default()
    };
    let mut driver = Driver {
        session: Responder::new(limits, Duration::ZERO),
        store: world.store(stored),
        questions: VecDeque::new(),
        now: Duration::ZERO,
        stored,
        awaits_live: false,
        over: false,
    };
    while !script.is_over() && !driver.over {
        if driver.step(&mut script).is_err() {
            assert!(
                driver.session.poll_output().is_none(),
                "an output after an error"
            );
            assert!(!driver.session.wants_message());
            assert_eq!(driver.session.next_timeout(), None);
            return;
        }
        driver.drain();
    }
}

impl Driver {
    fn drain(&mut self) {
        for count in 0.. {
            assert!(count < MOST_OUTPUTS, "outputs without end");
            let Some(output) = self.session.poll_output() else {
                return;
            };
            assert!(!self.over, "an output after the end");
            match output {
                ResponderOutput::Send(message) => {
                    if let Message::SyncBatchV2(batch) = &message {
                        for run in &batch.runs {
                            Run::decode(run.clone()).expect("what is served is a run");
                        }
                    }
                    message.encode_frame().expect("what is sent fits a frame");
                }
                ResponderOutput::Finished(_) => self.over = true,
                ResponderOutput::Pinned(_) => {}
                ResponderOutput::AwaitLive => self.awaits_live = true,
                question => self.questions.push_back(question),
            }
        }
    }

    fn step(&mut self, script: &mut Script<'_>) -> Result<(), SessionError> {
        let message = match script.byte() % 12 {
            0 => match Message::decode_body(Bytes::copy_from_slice(script.bytes())) {
                Ok(Some(message)) => message,
                Ok(None) => return Ok(()),
                Err(error) => {
                    self.over = true;
                    let _ = SessionError::from(error).close_code();
                    return Ok(());
                }
            },
            1 => self.request(script).into(),
            2 | 3 => {
                let count = usize::from(script.byte() % 8);
                let mut heads: Vec<_> = (0..count).map(|_| script.entry()).collect();
                if script.flag() {
                    let owner = world().authors[0];
                    heads.sort_by_key(|entry| (entry.author != owner, entry.author));
                    heads.dedup_by_key(|entry| entry.author);
                }
                HeadsChunk {
                    request_id: REQUEST,
                    heads,
                    last: script.flag(),
                }
                .into()
            }
            4 => return self.session.handle_stream_end(),
            5 => {
                self.now += Duration::from_millis(script.number().min(60_000));
                return self.session.handle_timeout(self.now);
            }
            6 => {
                self.session.handle_transfer(self.now);
                return Ok(());
            }
            7 => return Err(self.session.handle_reset(script.number())),
            8 => return self.grow(),
            9 => return self.report_live(script.number()),
            _ => return self.answer(),
        };
        while !self.session.wants_message() {
            if self.questions.is_empty() {
                return Ok(());
            }
            self.answer()?;
            self.drain();
        }
        if self.over {
            return Ok(());
        }
        self.session.handle_message(message, self.now)
    }

    fn request(&mut self, script: &mut Script<'_>) -> SyncRequestV2 {
        let clock = match script.byte() % 3 {
            0 => Clock::Heads,
            1 => Clock::Digest(script.digest(&self.store)),
            _ => Clock::Cursor {
                cursor: Cursor {
                    store: [script.byte(); 16],
                    generation: script.number(),
                    digest: script.digest(&self.store),
                },
                changed: vec![script.entry()],
            },
        };
        let space = match script.byte() {
            0..240 => world().space,
            other => SpaceId::from_bytes([other; 32]),
        };
        let mut filter = SyncFilter::default();
        if script.byte() > 240 {
            filter.since_ms = Some(script.number());
        }
        SyncRequestV2 {
            request_id: REQUEST,
            space,
            clock,
            filter,
            budget: Budget {
                events: (script.byte() > 200).then(|| script.number()),
                payload_bytes: (script.byte() > 200).then(|| script.number()),
            },
            live: script.flag(),
        }
    }

    /// The store gains a run meanwhile.
    fn grow(&mut self) -> Result<(), SessionError> {
        if self.stored + 2 < world().runs.len() {
            let run = &world().runs[self.stored];
            let outcome = self.store.append(std::slice::from_ref(run));
            assert!(outcome.expect("in memory").outcomes[0].is_ok());
            self.stored += 1;
        }
        Ok(())
    }

    /// What changed, as a driver reports it: the last run stored.
    fn report_live(&mut self, missed: u64) -> Result<(), SessionError> {
        if !std::mem::take(&mut self.awaits_live) {
            return Ok(());
        }
        if missed > 200 {
            return self.session.handle_live(Vec::new(), missed, self.now);
        }
        let last = &world().runs[self.stored - 1];
        let want = TailWant {
            author: last.author(),
            above: last.first_seq() - 1,
            through: last.last_seq(),
        };
        self.session.handle_live(vec![want], 0, self.now)
    }

    fn answer(&mut self) -> Result<(), SessionError> {
        let space = &world().space;
        let now = self.now;
        let kept = "in memory";
        match self.questions.pop_front() {
            Some(ResponderOutput::Open { space, .. }) => {
                let summary = self.store.summary(&space).expect(kept);
                self.session.handle_opened(summary, now)
            }
            Some(ResponderOutput::ReadHead(author)) => {
                let head = self.store.head(space, &author).expect(kept);
                self.session.handle_owner_head(head, now)
            }
            Some(ResponderOutput::ReadHeads { after, limit }) => {
                let page = self.store.heads(space, after, limit).expect(kept);
                self.session.handle_heads(page, now)
            }
            Some(ResponderOutput::CheckTails(stated)) => {
                let checks = self.store.check_tails(space, &stated).expect(kept);
                self.session.handle_tails(checks, now)
            }
            Some(ResponderOutput::ReadRuns { wants, max_bytes }) => {
                let runs = self.store.read_runs(space, &wants, max_bytes).expect(kept);
                self.session.handle_runs(runs, now)
            }
            _ => Ok(()),
        }
    }
}
