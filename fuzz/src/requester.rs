//! A requester that hears whatever a script says, from a responder that keeps no rule.

use std::{collections::VecDeque, time::Duration};

use bytes::Bytes;
use headwater_proto::{
    AppliedRun, LocalClock, Requester, RequesterConfig, RequesterOutput, SessionError,
    SessionLimits,
};
use headwater_store::{LogStore, MemoryStore};
use headwater_wire::{
    Budget, Busy, EventRef, HeadsWanted, HistorySyncComplete, LiveBatch, LiveLagged, Message,
    PlanTotals, Run, Segment, SyncBatchV2, SyncOutcome, SyncPlan, Truncation,
};

use crate::{Script, lot, world};

const REQUEST: u64 = 5;

/// Most outputs that one input may cause: a window of chunks, their questions, and an end.
const MOST_OUTPUTS: usize = 256;

struct Driver {
    session: Requester,
    store: MemoryStore,
    questions: VecDeque<RequesterOutput>,
    now: Duration,
    over: bool,
}

pub fn run(data: &[u8]) {
    let mut script = Script(data);
    let world = world();
    let held = usize::from(script.byte());
    let store = match held {
        0..40 => MemoryStore::new(),
        runs => world.store(runs % world.runs.len()),
    };
    let clock = match store.summary(&world.space).expect("in memory") {
        None => LocalClock::Empty,
        Some(held) => LocalClock::Held {
            owner: held.owner,
            digest: held.digest,
            authors: held.authors,
        },
    };
    let budget = match script.byte() {
        0..200 => Budget::default(),
        events => Budget {
            events: Some(u64::from(events) - 200),
            payload_bytes: None,
        },
    };
    let config = RequesterConfig {
        request_id: REQUEST,
        space: world.space,
        budget,
        except: Vec::new(),
        live: script.flag(),
        limits: SessionLimits {
            max_unapplied_bytes: 1 + usize::from(script.byte()) * 64,
            page_heads: usize::from(script.byte()),
            max_authors: 1 + u64::from(script.byte()),
            ..SessionLimits::default()
        },
    };
    let mut driver = Driver {
        session: Requester::new(config, clock, Duration::ZERO),
        store,
        questions: VecDeque::new(),
        now: Duration::ZERO,
        over: false,
    };
    driver.drain();
    while !script.is_over() && !driver.over {
        if driver.step(&mut script).is_err() {
            driver.over = true;
            assert!(
                driver.session.poll_output().is_none(),
                "an output after an error"
            );
            assert!(!driver.session.wants_message());
            assert_eq!(driver.session.next_timeout(), None);
            break;
        }
        driver.drain();
    }
    world.check(&driver.store);
    if lot(data).is_multiple_of(64) {
        let report = driver.store.verify(&world.space, &mut |_| ());
        assert!(report.expect("in memory").is_sound());
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
                RequesterOutput::Send(message) => {
                    message.encode_frame().expect("what is sent fits a frame");
                }
                RequesterOutput::Finished(_) => self.over = true,
                RequesterOutput::Progress(_) | RequesterOutput::HistoryComplete(_) => {}
                question => self.questions.push_back(question),
            }
        }
    }

    fn step(&mut self, script: &mut Script<'_>) -> Result<(), SessionError> {
        let message = match script.byte() % 16 {
            0 => match Message::decode_body(Bytes::copy_from_slice(script.bytes())) {
                Ok(Some(message)) => message,
                Ok(None) => return Ok(()),
                Err(error) => {
                    // The stream ends here; the session is dropped.
                    self.over = true;
                    let _ = SessionError::from(error).close_code();
                    return Ok(());
                }
            },
            1 => HeadsWanted {
                request_id: REQUEST,
            }
            .into(),
            2 | 3 => plan(script).into(),
            4 | 5 => SyncBatchV2 {
                request_id: REQUEST,
                more: script.flag(),
                runs: script.runs(),
            }
            .into(),
            6 => self.complete(script).into(),
            7 => LiveBatch {
                request_id: REQUEST,
                runs: script.runs(),
            }
            .into(),
            8 => LiveLagged {
                request_id: script.number(),
                missed: script.number(),
            }
            .into(),
            9 => Busy {
                request_id: REQUEST,
                retry_after_ms: script.number(),
            }
            .into(),
            10 => return self.session.handle_stream_end(),
            11 => {
                self.now += Duration::from_millis(script.number().min(60_000));
                return self.session.handle_timeout(self.now);
            }
            12 => {
                self.session.handle_transfer(self.now);
                return Ok(());
            }
            13 => return Err(self.session.handle_reset(script.number())),
            _ => return self.answer(),
        };
        // A driver that keeps its contract.
        while !self.session.wants_message() {
            if self.questions.is_empty() {
                return Ok(());
            }
            self.answer()?;
            self.drain();
        }
        self.session.handle_message(message, self.now)
    }

    fn complete(&mut self, script: &mut Script<'_>) -> HistorySyncComplete {
        let outcome = match script.byte() % 4 {
            0 => SyncOutcome::Complete,
            1 => SyncOutcome::Truncated(Truncation::Budget),
            2 => SyncOutcome::Truncated(Truncation::Stubbed),
            _ => SyncOutcome::Truncated(Truncation::Forked {
                authors: script.number(),
            }),
        };
        HistorySyncComplete {
            request_id: REQUEST,
            outcome,
            last_event: script.flag().then(|| {
                let head = script.head();
                EventRef {
                    author: script.author(),
                    seq: head.seq,
                    id: head.id,
                }
            }),
            events: script.number(),
            stubs: script.number(),
            joined_digest: script.digest(&self.store),
            stream_generation: script.number(),
            cursor: None,
            receipt: None,
        }
    }

    /// Answers the oldest question.
    fn answer(&mut self) -> Result<(), SessionError> {
        let space = &world().space;
        match self.questions.pop_front() {
            Some(RequesterOutput::ReadHead(author)) => {
                let head = self.store.head(space, &author).expect("in memory");
                self.session.handle_owner_head(head)
            }
            Some(RequesterOutput::ReadHeads { after, limit }) => {
                let page = self.store.heads(space, after, limit);
                self.session.handle_heads(page.expect("in memory"))
            }
            Some(RequesterOutput::Apply(runs)) => self.apply(runs),
            _ => Ok(()),
        }
    }

    fn apply(&mut self, runs: Vec<Run>) -> Result<(), SessionError> {
        let mut verified = Vec::with_capacity(runs.len());
        for run in runs {
            match world().verify(run) {
                Ok(run) => verified.push(run),
                Err(error) => return Err(self.session.handle_invalid_run(error)),
            }
        }
        let commit = self.store.append(&verified).expect("in memory");
        let answers = verified.iter().zip(commit.outcomes);
        let answers = answers.map(|(run, outcome)| AppliedRun::new(run, outcome));
        self.session.handle_applied(answers.collect(), self.now)
    }
}

fn plan(script: &mut Script<'_>) -> SyncPlan {
    let segment = match script.byte() % 3 {
        0 => Segment::Owner,
        1 => Segment::Through(script.author()),
        _ => Segment::Last,
    };
    let totals = PlanTotals {
        authors: script.number(),
        events: script.number(),
        payload_bytes: script.number(),
    };
    SyncPlan {
        request_id: REQUEST,
        segment,
        totals,
        rest: PlanTotals::default(),
    }
}
