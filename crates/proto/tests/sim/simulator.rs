//! Runs a requester against a responder: lossless queues of real frames, and every choice of who
//! moves next drawn from the seed.

use core::time::Duration;
use std::collections::{BTreeMap, VecDeque};

use headwater_proto::{
    AppliedRun, Requester, RequesterConfig, RequesterOutput, Responder, ResponderOutput, ServeEnd,
    SessionError, SessionLimits, SyncEnd, SyncProgress, TailWant,
};
use headwater_wire::{
    AuthorId, AuthorSecret, Budget, FrameDecoder, MemberKey, Message, Receipt, Run,
};

use crate::{logs::Logs, rng::Rng, tampering::tamper};

/// Something that happens outside the sync while it runs.
#[derive(Clone)]
pub(crate) enum Happening {
    /// The responder's store gains events of this author.
    Written(AuthorSecret, u64),
    /// The responder's store merges the author's runs.
    Merged(AuthorId),
}

/// Which side failed, and why.
#[derive(Debug, PartialEq)]
pub(crate) enum Failure {
    Requester(SessionError),
    Responder(SessionError),
}

pub(crate) struct Options {
    pub(crate) budget: Budget,
    pub(crate) live: bool,
    pub(crate) limits: SessionLimits,
    /// Whether the responder's driver reads ahead although the session does not ask for it.
    pub(crate) reads_ahead: bool,
    /// What happens at which step. What is left when both sides wait happens then.
    pub(crate) happenings: VecDeque<(u64, Happening)>,
    /// Cut the streams at this step.
    pub(crate) cut_at: Option<u64>,
    /// Change one in so many messages on their way.
    pub(crate) tampers_one_in: Option<u64>,
    /// Whether the responder signs what it answers.
    pub(crate) signs: bool,
    /// What becomes of a hostile side's messages before they are sent.
    pub(crate) lies: Lies,
}

/// Turns a message into others.
pub(crate) type Lie = Box<dyn FnMut(Message) -> Vec<Message>>;

/// The lies of either side, if it lies.
#[derive(Default)]
pub(crate) struct Lies {
    pub(crate) requester: Option<Lie>,
    pub(crate) responder: Option<Lie>,
}

/// What is sent in place of a message.
pub(crate) fn told(lie: &mut Option<Lie>, message: Message) -> Vec<Message> {
    match lie {
        Some(lie) => lie(message),
        None => vec![message],
    }
}

/// The responder's node key.
pub(crate) fn node() -> AuthorSecret {
    AuthorSecret::from_bytes([200; 32])
}

impl Options {
    /// Small pages and batches, so that few authors make many segments.
    pub(crate) fn drawn(rng: &mut Rng) -> Self {
        Self {
            budget: Budget::default(),
            live: false,
            limits: SessionLimits {
                page_heads: rng.between(2, 9) as usize,
                batch_bytes: rng.between(1, 4_000) as usize,
                max_unapplied_bytes: rng.between(1, 8_000) as usize,
                ..SessionLimits::default()
            },
            reads_ahead: rng.one_in(3),
            happenings: VecDeque::new(),
            cut_at: None,
            tampers_one_in: None,
            signs: true,
            lies: Lies::default(),
        }
    }
}

/// What came of a sync.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) end: SyncEnd,
    pub(crate) served: ServeEnd,
    pub(crate) request_bytes: usize,
    pub(crate) answer_bytes: usize,
    pub(crate) chunks: u64,
    pub(crate) segments: u64,
    pub(crate) steps: u64,
}

/// How a simulated sync ended.
pub(crate) enum Ending {
    Done(Box<Report>),
    Failed(Failure),
    Cut,
    /// Both sides waited until their time ran out.
    TimedOut,
}

/// Pulls from `theirs` into `ours` and expects both sides to finish.
pub(crate) fn pull(ours: &mut Logs, theirs: &mut Logs, rng: &mut Rng, options: Options) -> Report {
    match Simulator::new(ours, theirs, options).run(rng) {
        Ending::Done(report) => *report,
        Ending::Failed(failure) => panic!("sync failed: {failure:?}"),
        Ending::Cut | Ending::TimedOut => panic!("sync did not end"),
    }
}

pub(crate) struct Simulator<'a> {
    ours: &'a mut Logs,
    theirs: &'a mut Logs,
    requester: Requester,
    responder: Responder,
    options: Options,
    to_responder: VecDeque<Message>,
    to_requester: VecDeque<Message>,
    our_questions: VecDeque<RequesterOutput>,
    their_questions: VecDeque<ResponderOutput>,
    to_apply: VecDeque<Vec<Run>>,
    /// What the hub of a live responder collects: author, from, to.
    pending: Option<BTreeMap<AuthorId, (u64, u64)>>,
    awaits_live: bool,
    end: Option<SyncEnd>,
    served: Option<ServeEnd>,
    progress: SyncProgress,
    now: Duration,
    request_bytes: usize,
    answer_bytes: usize,
    chunks: u64,
    segments: u64,
}

#[derive(Clone, Copy)]
enum Move {
    HearRequest,
    HearAnswer,
    AnswerUs,
    AnswerThem,
    Apply,
    ReportLive,
}

impl<'a> Simulator<'a> {
    pub(crate) fn new(ours: &'a mut Logs, theirs: &'a mut Logs, options: Options) -> Self {
        let now = Duration::from_secs(3);
        let config = RequesterConfig {
            request_id: 77,
            space: theirs.space,
            budget: options.budget,
            except: Vec::new(),
            live: options.live,
            limits: options.limits.clone(),
        };
        let mut requester = Requester::new(config, ours.clock(), now);
        let mut responder = Responder::new(options.limits.clone(), now);
        if options.signs {
            requester = requester.with_provider(MemberKey::from_bytes(*node().id().as_bytes()));
            responder = responder.signing();
        }
        Self {
            requester,
            responder,
            ours,
            theirs,
            options,
            to_responder: VecDeque::new(),
            to_requester: VecDeque::new(),
            our_questions: VecDeque::new(),
            their_questions: VecDeque::new(),
            to_apply: VecDeque::new(),
            pending: None,
            awaits_live: false,
            end: None,
            served: None,
            progress: SyncProgress::default(),
            now,
            request_bytes: 0,
            answer_bytes: 0,
            chunks: 0,
            segments: 0,
        }
    }

    pub(crate) fn run(mut self, rng: &mut Rng) -> Ending {
        for step in 0.. {
            assert!(step < 2_000_000, "the sync does not come to an end");
            self.now += Duration::from_millis(1);
            self.drain();
            if self.options.cut_at == Some(step) {
                return self.cut(rng);
            }
            let due = |(at, _): &mut (u64, Happening)| *at <= step;
            while let Some((_, happening)) = self.options.happenings.pop_front_if(due) {
                self.happen(happening, rng);
            }
            let moves = self.moves();
            let result = match moves.is_empty() {
                false => self.make(*rng.pick(&moves), rng),
                true => match self.options.happenings.pop_front() {
                    Some((_, happening)) => {
                        self.happen(happening, rng);
                        Ok(())
                    }
                    None if self.end.is_some() && self.served.is_some() => {
                        return Ending::Done(Box::new(self.report(step)));
                    }
                    None if self.may_lose() => return self.wait_out(),
                    None => self.hang_up(),
                },
            };
            if let Err(failure) = result {
                return Ending::Failed(failure);
            }
        }
        unreachable!()
    }

    /// Whether messages may be lost.
    fn may_lose(&self) -> bool {
        let lies = &self.options.lies;
        let lied = lies.requester.is_some() || lies.responder.is_some();
        lied || self.options.tampers_one_in.is_some()
    }

    /// Nobody has anything to do: the responder of a live session ends it.
    fn hang_up(&mut self) -> Result<(), Failure> {
        assert!(self.awaits_live, "both sides wait for ever");
        self.awaits_live = false;
        self.requester
            .handle_stream_end()
            .map_err(Failure::Requester)?;
        self.responder
            .handle_stream_end()
            .map_err(Failure::Responder)
    }

    /// Nobody has anything to do because a message was lost: time ends what is not over.
    fn wait_out(mut self) -> Ending {
        let late = self.now + Duration::from_hours(1);
        if self.end.is_none() {
            let error = self.requester.handle_timeout(late);
            assert!(matches!(error, Err(SessionError::TimedOut { .. })));
        }
        if self.served.is_none() {
            let error = self.responder.handle_timeout(late);
            assert!(matches!(error, Err(SessionError::TimedOut { .. })));
        }
        Ending::TimedOut
    }

    fn report(self, steps: u64) -> Report {
        Report {
            end: self.end.expect("finished"),
            served: self.served.expect("finished"),
            request_bytes: self.request_bytes,
            answer_bytes: self.answer_bytes,
            chunks: self.chunks,
            segments: self.segments,
            steps,
        }
    }

    /// The streams break: what is in flight is lost, what was handed to the store may still be
    /// applied.
    fn cut(mut self, rng: &mut Rng) -> Ending {
        for runs in std::mem::take(&mut self.to_apply) {
            if rng.one_in(3) {
                break;
            }
            self.apply(runs).expect("honest runs");
        }
        let early = self.end.is_none();
        let result = self.requester.handle_stream_end();
        if early && let Err(error) = result {
            assert!(matches!(error, SessionError::StreamEnded { .. }));
        }
        Ending::Cut
    }

    fn happen(&mut self, happening: Happening, rng: &mut Rng) {
        match happening {
            Happening::Merged(author) => self.theirs.merge(&author),
            Happening::Written(secret, events) => {
                let author = secret.id();
                let seq = |logs: &Logs| logs.head(&author).map_or(0, |head| head.entry.head.seq);
                let before = seq(self.theirs);
                self.theirs.write(&secret, events, rng);
                let after = seq(self.theirs);
                if let Some(pending) = &mut self.pending {
                    pending.entry(author).or_insert((before, after)).1 = after;
                }
            }
        }
    }

    fn moves(&self) -> Vec<Move> {
        let mut moves = Vec::new();
        let hears = self.responder.wants_message()
            || (self.options.reads_ahead
                && self.served.is_none()
                && self.their_questions.len() < 2);
        let is_open = !matches!(
            self.their_questions.front(),
            Some(ResponderOutput::Open { .. })
        );
        if !self.to_responder.is_empty() && hears && is_open {
            moves.push(Move::HearRequest);
        }
        if !self.to_requester.is_empty() && self.requester.wants_message() {
            moves.push(Move::HearAnswer);
        }
        if !self.our_questions.is_empty() {
            moves.push(Move::AnswerUs);
        }
        if !self.their_questions.is_empty() {
            moves.push(Move::AnswerThem);
        }
        if !self.to_apply.is_empty() {
            moves.push(Move::Apply);
        }
        if self.awaits_live && self.pending.as_ref().is_some_and(|map| !map.is_empty()) {
            moves.push(Move::ReportLive);
        }
        moves
    }

    fn make(&mut self, next: Move, rng: &mut Rng) -> Result<(), Failure> {
        let now = self.now;
        match next {
            Move::HearRequest => {
                let Some(message) = take(&mut self.to_responder, &self.options, rng) else {
                    return Ok(());
                };
                let result = self.responder.handle_message(message, now);
                result.map_err(Failure::Responder)
            }
            Move::HearAnswer => {
                let Some(message) = take(&mut self.to_requester, &self.options, rng) else {
                    return Ok(());
                };
                let result = self.requester.handle_message(message, now);
                result.map_err(Failure::Requester)
            }
            Move::AnswerUs => {
                let result = match self.our_questions.pop_front() {
                    Some(RequesterOutput::ReadHead(author)) => {
                        self.requester.handle_owner_head(self.ours.head(&author))
                    }
                    Some(RequesterOutput::ReadHeads { after, limit }) => {
                        self.requester.handle_heads(self.ours.heads(after, limit))
                    }
                    other => panic!("no question: {other:?}"),
                };
                result.map_err(Failure::Requester)
            }
            Move::AnswerThem => self.answer_them().map_err(Failure::Responder),
            Move::Apply => {
                let runs = self.to_apply.pop_front().expect("there is one");
                let applied = self.apply(runs)?;
                let result = self.requester.handle_applied(applied, now);
                result.map_err(Failure::Requester)
            }
            Move::ReportLive => {
                let changed = std::mem::take(self.pending.as_mut().expect("live"));
                let mut wants = Vec::new();
                for (author, (above, through)) in changed {
                    wants.push(TailWant {
                        author,
                        above,
                        through,
                    });
                }
                if rng.one_in(2) {
                    wants.reverse();
                }
                self.awaits_live = false;
                let result = self.responder.handle_live(wants, 0, now);
                result.map_err(Failure::Responder)
            }
        }
    }

    fn answer_them(&mut self) -> Result<(), SessionError> {
        let now = self.now;
        match self.their_questions.pop_front() {
            Some(ResponderOutput::Open { space, live }) => {
                assert_eq!(space, self.theirs.space);
                self.pending = live.then(BTreeMap::new);
                self.responder.handle_opened(self.theirs.summary(), now)
            }
            Some(ResponderOutput::ReadHead(author)) => self
                .responder
                .handle_owner_head(self.theirs.head(&author), now),
            Some(ResponderOutput::ReadHeads { after, limit }) => self
                .responder
                .handle_heads(self.theirs.heads(after, limit), now),
            Some(ResponderOutput::CheckTails(stated)) => self
                .responder
                .handle_tails(self.theirs.check_tails(&stated), now),
            Some(ResponderOutput::ReadRuns { wants, max_bytes }) => self
                .responder
                .handle_runs(self.theirs.read_runs(&wants, max_bytes), now),
            Some(ResponderOutput::Sign(facts)) => {
                let now_at = self.theirs.summary().map(|summary| summary.generation);
                let signature = Receipt::sign(&node(), facts).signature;
                let unchanged = now_at == Some(facts.generation);
                self.responder
                    .handle_signed(unchanged.then_some(signature), now)
            }
            other => panic!("no question: {other:?}"),
        }
    }

    fn apply(&mut self, runs: Vec<Run>) -> Result<Vec<AppliedRun>, Failure> {
        let mut applied = Vec::new();
        for run in runs {
            match run.verify(&self.theirs.space) {
                Ok(run) => applied.push(AppliedRun::new(&run, self.ours.append(run.clone()))),
                Err(error) => {
                    let error = self.requester.handle_invalid_run(error);
                    return Err(Failure::Requester(error));
                }
            }
        }
        Ok(applied)
    }

    /// Does what both sessions ask for.
    fn drain(&mut self) {
        while let Some(output) = self.requester.poll_output() {
            assert!(self.end.is_none(), "{output:?} after the end");
            match output {
                RequesterOutput::Send(message) => {
                    self.chunks += u64::from(matches!(message, Message::HeadsChunk(_)));
                    let (message, bytes) = through_the_wire(&message);
                    self.request_bytes += bytes;
                    let told = told(&mut self.options.lies.requester, message);
                    self.to_responder.extend(told);
                }
                RequesterOutput::Apply(runs) => self.to_apply.push_back(runs),
                RequesterOutput::Progress(progress) => {
                    assert!(progress.received.events >= self.progress.received.events);
                    assert!(progress.applied.events <= progress.received.events);
                    self.progress = progress;
                }
                RequesterOutput::HistoryComplete(_) => assert!(self.options.live),
                RequesterOutput::Finished(end) => self.end = Some(end),
                question => self.our_questions.push_back(question),
            }
        }
        while let Some(output) = self.responder.poll_output() {
            assert!(self.served.is_none(), "{output:?} after the end");
            match output {
                ResponderOutput::Send(message) => {
                    self.segments += u64::from(matches!(message, Message::SyncPlan(_)));
                    let (message, bytes) = through_the_wire(&message);
                    self.answer_bytes += bytes;
                    let told = told(&mut self.options.lies.responder, message);
                    self.to_requester.extend(told);
                }
                ResponderOutput::Pinned(heads) => {
                    let Some(pending) = &mut self.pending else {
                        panic!("pinned without live")
                    };
                    for (author, seq) in heads {
                        if let Some((from, to)) = pending.get_mut(&author) {
                            *from = seq.max(*from);
                            if *to <= seq {
                                pending.remove(&author);
                            }
                        }
                    }
                }
                ResponderOutput::AwaitLive => self.awaits_live = true,
                ResponderOutput::Finished(end) => self.served = Some(end),
                question => self.their_questions.push_back(question),
            }
        }
    }
}

/// The next message, or what becomes of it on the way.
fn take(queue: &mut VecDeque<Message>, options: &Options, rng: &mut Rng) -> Option<Message> {
    if options.tampers_one_in.is_some_and(|n| rng.one_in(n)) {
        tamper(queue, rng);
    }
    queue.pop_front()
}

/// Encodes and decodes a message as a stream would, and counts its bytes.
pub(crate) fn through_the_wire(message: &Message) -> (Message, usize) {
    let mut frames = FrameDecoder::new();
    let (mut bytes, mut frame) = (0, None);
    for mut chunk in message.encode_frame().expect("it fits a frame") {
        bytes += chunk.len();
        frame = frames.read(&mut chunk).expect("a frame");
    }
    let frame = frame.expect("a whole one");
    let read = Message::decode_body(frame).expect("it decodes");
    let read = read.expect("it is known");
    assert_eq!(read, *message);
    (read, bytes)
}
