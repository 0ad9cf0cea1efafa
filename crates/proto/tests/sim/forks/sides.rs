//! Both sides with a store behind each: questions are answered at once, messages are collected.

use core::time::Duration;
use std::collections::VecDeque;

use headwater_proto::fork::{ForkAnswerer, ForkAsker, ForkAskerConfig, ForkEnd, ForkOutput};
use headwater_proto::{AppliedRun, SessionError, SessionLimits};
use headwater_wire::{AuthorId, Message};

use crate::{
    logs::Logs,
    simulator::{Failure, Lies, through_the_wire, told},
};

pub(crate) const ID: u64 = 5;
pub(crate) const NOW: Duration = Duration::from_secs(9);

/// An asker and what it sent.
pub(crate) struct Asking {
    pub(crate) machine: ForkAsker,
    pub(crate) sent: Vec<Message>,
    pub(crate) end: Option<ForkEnd>,
}

/// An answerer and what it sent.
pub(crate) struct Answering {
    pub(crate) machine: ForkAnswerer,
    pub(crate) sent: Vec<Message>,
    pub(crate) end: Option<ForkEnd>,
    /// What it opens the space as.
    pub(crate) opens: bool,
}

impl Asking {
    pub(crate) fn new(logs: &mut Logs, author: AuthorId, limits: SessionLimits) -> Self {
        Self::with(
            logs,
            ForkAskerConfig {
                request_id: ID,
                space: logs.space,
                author,
                unwanted: None,
                limits,
            },
        )
    }

    pub(crate) fn with(logs: &mut Logs, config: ForkAskerConfig) -> Self {
        let mut asking = Self {
            machine: ForkAsker::new(config, NOW),
            sent: Vec::new(),
            end: None,
        };
        asking.drain(logs).expect("the store answers well");
        asking
    }

    pub(crate) fn hear(&mut self, logs: &mut Logs, message: Message) -> Result<(), SessionError> {
        self.machine.handle_message(message, NOW)?;
        self.drain(logs)
    }

    fn drain(&mut self, logs: &mut Logs) -> Result<(), SessionError> {
        while let Some(output) = self.machine.poll_output() {
            assert!(self.end.is_none(), "{output:?} after the end");
            let machine = &mut self.machine;
            match output {
                ForkOutput::Send(message) => self.sent.push(through_the_wire(&message).0),
                ForkOutput::ReadLog(author) => machine.handle_log(logs.fork_log(&author))?,
                ForkOutput::ReadChain { author, seqs } => {
                    machine.handle_chain(&logs.chain(&author, &seqs))?;
                }
                ForkOutput::ReadBranch { author, seq } => {
                    machine.handle_branch(logs.branch(&author, seq))?;
                }
                ForkOutput::Verify(proof) => {
                    machine.handle_verified(proof.verify(&logs.space), NOW)?;
                }
                ForkOutput::Cut(proof) => {
                    let author = proof.author();
                    logs.cut(proof);
                    machine.handle_cut(logs.fork_log(&author), NOW)?;
                }
                ForkOutput::Apply(runs) => {
                    let mut applied = Vec::new();
                    for run in runs {
                        match run.verify(&logs.space) {
                            Ok(run) => {
                                applied.push(AppliedRun::new(&run, logs.append(run.clone())));
                            }
                            Err(error) => return Err(machine.handle_invalid_run(error)),
                        }
                    }
                    machine.handle_applied(&applied, NOW)?;
                }
                ForkOutput::ReadEvidence(subjects) => {
                    machine.handle_evidence(logs.evidence(&subjects), NOW)?;
                }
                ForkOutput::Absorb(runs) => {
                    for run in runs {
                        match run.verify(&logs.space) {
                            Ok(run) => logs.absorb(&run),
                            Err(error) => return Err(machine.handle_invalid_run(error)),
                        }
                    }
                    machine.handle_absorbed(NOW)?;
                }
                ForkOutput::Finished(end) => self.end = Some(end),
                other => panic!("{other:?} is not an asker's"),
            }
        }
        Ok(())
    }
}

impl Answering {
    pub(crate) fn new(limits: SessionLimits) -> Self {
        Self {
            machine: ForkAnswerer::new(limits, NOW),
            sent: Vec::new(),
            end: None,
            opens: true,
        }
    }

    pub(crate) fn hear(&mut self, logs: &mut Logs, message: Message) -> Result<(), SessionError> {
        self.machine.handle_message(message, NOW)?;
        self.drain(logs)
    }

    pub(crate) fn hang_up(&mut self, logs: &mut Logs) -> Result<(), SessionError> {
        self.machine.handle_stream_end()?;
        self.drain(logs)
    }

    fn drain(&mut self, logs: &mut Logs) -> Result<(), SessionError> {
        while let Some(output) = self.machine.poll_output() {
            assert!(self.end.is_none(), "{output:?} after the end");
            let machine = &mut self.machine;
            match output {
                ForkOutput::Send(message) => self.sent.push(through_the_wire(&message).0),
                ForkOutput::Open(space) => {
                    let summary = logs.summary();
                    let summary = summary.filter(|held| self.opens && held.space == space);
                    machine.handle_opened(summary, NOW)?;
                }
                ForkOutput::ReadLog(author) => machine.handle_log(logs.fork_log(&author), NOW)?,
                ForkOutput::ReadChain { author, seqs } => {
                    machine.handle_chain(&logs.chain(&author, &seqs), NOW)?;
                }
                ForkOutput::ReadBranch { author, seq } => {
                    machine.handle_branch(logs.branch(&author, seq), NOW)?;
                }
                ForkOutput::Verify(proof) => {
                    machine.handle_verified(proof.verify(&logs.space), NOW)?;
                }
                ForkOutput::Cut(proof) => {
                    let author = proof.author();
                    logs.cut(proof);
                    machine.handle_cut(logs.fork_log(&author), NOW)?;
                }
                ForkOutput::ReadRuns { wants, max_bytes } => {
                    machine.handle_runs(logs.read_runs(&wants, max_bytes), NOW)?;
                }
                ForkOutput::ReadEvidence(subjects) => {
                    machine.handle_evidence(logs.evidence(&subjects), NOW)?;
                }
                ForkOutput::Absorb(runs) => {
                    for run in runs {
                        match run.verify(&logs.space) {
                            Ok(run) => logs.absorb(&run),
                            Err(error) => return Err(machine.handle_invalid_run(error)),
                        }
                    }
                    machine.handle_absorbed(NOW)?;
                }
                ForkOutput::Finished(end) => self.end = Some(end),
                other => panic!("{other:?} is not an answerer's"),
            }
        }
        Ok(())
    }
}

/// One author, put right between two honest nodes.
pub(crate) fn repair(
    ours: &mut Logs,
    theirs: &mut Logs,
    author: AuthorId,
    limits: &SessionLimits,
) -> Result<(ForkEnd, ForkEnd), Failure> {
    let ends = repair_with(ours, theirs, author, limits, Lies::default());
    Ok(ends?.expect("neither waits for ever"))
}

/// The same, with lies. `None`: both waited until their time ran out.
pub(crate) fn repair_with(
    ours: &mut Logs,
    theirs: &mut Logs,
    author: AuthorId,
    limits: &SessionLimits,
    lies: Lies,
) -> Result<Option<(ForkEnd, ForkEnd)>, Failure> {
    let asking = Asking::new(ours, author, limits.clone());
    carry(asking, ours, theirs, limits, lies)
}

/// Carries what an asker began to its end.
pub(crate) fn carry(
    mut asking: Asking,
    ours: &mut Logs,
    theirs: &mut Logs,
    limits: &SessionLimits,
    mut lies: Lies,
) -> Result<Option<(ForkEnd, ForkEnd)>, Failure> {
    let mut answering = Answering::new(limits.clone());
    let (mut up, mut down) = (VecDeque::new(), VecDeque::new());
    loop {
        for message in asking.sent.drain(..) {
            up.extend(told(&mut lies.requester, message));
        }
        for message in answering.sent.drain(..) {
            down.extend(told(&mut lies.responder, message));
        }
        if answering.machine.wants_message()
            && let Some(message) = up.pop_front()
        {
            let result = answering.hear(theirs, message);
            result.map_err(Failure::Responder)?;
        } else if asking.machine.wants_message()
            && let Some(message) = down.pop_front()
        {
            asking.hear(ours, message).map_err(Failure::Requester)?;
        } else if let Some(end) = asking.end {
            if answering.end.is_none() {
                answering.hang_up(theirs).map_err(Failure::Responder)?;
            }
            return Ok(answering.end.map(|served| (end, served)));
        } else {
            return Ok(None);
        }
    }
}
