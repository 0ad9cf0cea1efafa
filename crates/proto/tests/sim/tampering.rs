//! Messages changed on their way: a sync may fail then, in one of the named ways, but it never
//! ends complete with anything missing, never hangs, and nothing false is stored.

use std::collections::VecDeque;

use headwater_wire::{AuthorId, HeadsDigest, Message, Segment, SyncOutcome, Truncation};

use crate::{
    logs::{Logs, author},
    rng::{Rng, for_seeds},
    simulator::{Ending, Options, Simulator},
};

/// Changes, loses, repeats or reorders what comes next.
pub(crate) fn tamper(queue: &mut VecDeque<Message>, rng: &mut Rng) {
    match rng.below(6) {
        0 => drop(queue.pop_front()),
        1 => {
            let again = queue.front().expect("there is one").clone();
            queue.push_front(again);
        }
        2 if queue.len() > 1 => queue.swap(0, 1),
        _ => change(queue.front_mut().expect("there is one"), rng),
    }
}

pub(crate) fn change(message: &mut Message, rng: &mut Rng) {
    let off_by_one = |value: &mut u64, rng: &mut Rng| {
        *value = match rng.one_in(2) {
            true => value.saturating_add(1),
            false => value.saturating_sub(1),
        };
    };
    match message {
        Message::SyncPlan(plan) => match rng.below(5) {
            0 => off_by_one(&mut plan.totals.authors, rng),
            1 => off_by_one(&mut plan.totals.events, rng),
            2 => plan.totals.payload_bytes /= 2,
            3 => plan.segment = Segment::Last,
            _ => {
                let key = [rng.next() as u8; 32];
                plan.segment = Segment::Through(AuthorId::from_bytes(key));
            }
        },
        Message::SyncBatchV2(batch) => match rng.below(4) {
            0 => batch.more = !batch.more,
            1 => drop(batch.runs.pop()),
            2 => batch.runs.reverse(),
            _ => {
                if let Some(run) = batch.runs.first_mut() {
                    let mut bytes = run.to_vec();
                    let at = rng.below(bytes.len() as u64) as usize;
                    bytes[at] ^= 1 << rng.below(8);
                    *run = bytes.into();
                }
            }
        },
        Message::HeadsChunk(chunk) => match rng.below(4) {
            0 => drop(chunk.heads.pop()),
            1 => chunk.last = !chunk.last,
            2 => chunk.heads.reverse(),
            _ => {
                if let Some(entry) = chunk.heads.first_mut() {
                    off_by_one(&mut entry.head.seq, rng);
                }
            }
        },
        Message::HistorySyncComplete(complete) => match rng.below(5) {
            0 => off_by_one(&mut complete.events, rng),
            1 => complete.joined_digest = HeadsDigest::EMPTY,
            2 => complete.outcome = SyncOutcome::Truncated(Truncation::Budget),
            3 => complete.outcome = SyncOutcome::Complete,
            _ => complete.last_event = None,
        },
        Message::ForkNotice(notice) => notice.stated = Some(notice.held),
        Message::HeadsWanted(wanted) => wanted.request_id += 1,
        Message::SyncRequestV2(request) => request.request_id += 1,
        _ => {}
    }
}

#[test]
fn tampering_fails_a_sync_or_does_nothing_but_never_makes_it_silently_short() {
    for_seeds(300, |seed| {
        let mut rng = Rng::new(seed);
        let mut theirs = Logs::create(2);
        let mut ours = theirs.clone();
        for n in 1..=rng.between(1, 10) {
            let (shared, events) = (rng.below(6), rng.between(1, 12));
            theirs.write(&author(n), shared, &mut rng);
            for run in theirs.runs(&author(n).id()).to_vec() {
                drop(ours.append(run));
            }
            if rng.one_in(6) {
                ours.write(&author(n), 1, &mut rng);
            }
            theirs.write(&author(n), events, &mut rng);
        }
        let before = ours.events();
        let mut options = Options::drawn(&mut rng);
        options.tampers_one_in = Some(rng.between(1, 12));
        let ending = Simulator::new(&mut ours, &mut theirs, options).run(&mut rng);
        let (held, there) = (ours.events(), theirs.events());
        for event in &before {
            assert!(held.contains(event), "lost");
        }
        for event in &held {
            assert!(before.contains(event) || there.contains(event), "false");
        }
        if let Ending::Done(report) = ending
            && report.end.outcome == SyncOutcome::Complete
        {
            for event in &there {
                assert!(held.contains(event), "silently short");
            }
        }
    });
}
