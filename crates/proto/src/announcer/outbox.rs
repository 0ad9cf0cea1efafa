//! What grew here and others have to hear of, cut into announcements that fit the topic.
//!
//! Invariant: an author stands in one announcement of a change at most, and every announcement
//! fits. More heads than the announcements of one change hold are replaced by the digest.

use core::time::Duration;
use std::collections::{BTreeMap, VecDeque};

use headwater_wire::AuthorId;

use super::{
    AnnouncerConfig, AnnouncerOutput,
    config::{HEAD_BYTES, RUN_PREFIX_BYTES},
};

/// What stands for a cut where a head has its seq: above all of them.
const CUT: u64 = u64::MAX;

#[derive(Debug, Default)]
pub(super) struct Outbox {
    pending: BTreeMap<AuthorId, Pending>,
    /// Came by a sync, so others may have it too: waits to see whether they do.
    held: BTreeMap<AuthorId, u64>,
    held_too_much: bool,
    held_until: Option<Duration>,
    /// Too much to be named.
    digest_only: bool,
    due: Option<Duration>,
    last: Option<Duration>,
    heard: HeardHeads,
    /// Logs others said fork. Apart from the heads: nobody proved it, and a log that does not is
    /// announced as before.
    cuts_heard: HeardHeads,
    /// How often a head was not announced because others were known to have heard of it.
    pub(super) not_repeated: u64,
}

#[derive(Debug, Clone, Copy)]
struct Pending {
    seq: u64,
    size: Option<usize>,
}

impl Outbox {
    /// A log grew, and it is news.
    pub(super) fn add(
        &mut self,
        author: AuthorId,
        seq: u64,
        size: Option<usize>,
        now: Duration,
        config: &AnnouncerConfig,
    ) {
        if self.heard.covers(author, seq) {
            self.not_repeated += 1;
            return;
        }
        self.held.remove(&author);
        self.put(author, Pending { seq, size }, config);
        self.schedule(now, config);
    }

    fn put(&mut self, author: AuthorId, pending: Pending, config: &AnnouncerConfig) {
        if self.digest_only {
            return;
        }
        // A run above what its author wrote before, and of which only the head is to be told, would leave a
        // gap.
        let head_alone = self
            .pending
            .get(&author)
            .is_some_and(|it| it.size.is_none());
        let size = pending.size.filter(|_| !head_alone);
        self.pending.insert(author, Pending { size, ..pending });
        if self.pending.len() > config.max_changed() {
            self.pending.clear();
            self.digest_only = true;
        }
    }

    /// A log grew by a sync. It is announced after `until`, unless others turn out to have it.
    pub(super) fn hold(
        &mut self,
        author: AuthorId,
        seq: u64,
        until: Duration,
        now: Duration,
        config: &AnnouncerConfig,
    ) {
        if self.pending.contains_key(&author) {
            self.add(author, seq, None, now, config);
        } else if self.heard.covers(author, seq) {
            self.not_repeated += 1;
        } else {
            self.held_until.get_or_insert(until);
            self.held.insert(author, seq);
            if self.held.len() > config.max_changed() {
                self.held.clear();
                self.held_too_much = true;
            }
        }
    }

    /// The digest is news, and no head says it. It is announced after `until`, unless somebody else
    /// does before.
    pub(super) fn hold_digest(&mut self, until: Duration) {
        self.held_too_much = true;
        self.held_until = Some(self.held_until.map_or(until, |held| held.min(until)));
    }

    /// A log is cut. That is announced after `until`, unless somebody else says it before. False if
    /// somebody did already.
    pub(super) fn hold_cut(
        &mut self,
        author: AuthorId,
        until: Duration,
        config: &AnnouncerConfig,
    ) -> bool {
        if self.cuts_heard.covers(author, CUT) {
            self.not_repeated += 1;
            return false;
        }
        self.held_until = Some(self.held_until.map_or(until, |held| held.min(until)));
        self.held.insert(author, CUT);
        if self.held.len() > config.max_changed() {
            self.held.clear();
            self.held_too_much = true;
        }
        true
    }

    /// Somebody told everybody that this log forks.
    pub(super) fn heard_cut(&mut self, author: AuthorId, max_heard: usize) {
        let pending = self.pending.get(&author).is_some_and(|own| own.seq == CUT);
        if pending || self.held.get(&author) == Some(&CUT) {
            self.forget(&author);
            self.not_repeated += 1;
        } else {
            self.cuts_heard.insert(author, CUT, max_heard);
        }
    }

    /// Nothing of this log is to be announced.
    pub(super) fn forget(&mut self, author: &AuthorId) {
        self.pending.remove(author);
        self.held.remove(author);
        self.settle_due();
    }

    /// Somebody else has just what we have: what is held is no news. False if nothing is.
    pub(super) fn drop_held(&mut self) -> bool {
        self.not_repeated += self.held.len() as u64;
        self.held.clear();
        self.held_too_much = false;
        self.held_until.take().is_some()
    }

    /// Somebody announced this head to everybody.
    pub(super) fn heard(&mut self, author: AuthorId, seq: u64, max_heard: usize) {
        let pending = self.pending.get(&author).map(|pending| pending.seq);
        let own = pending.or_else(|| self.held.get(&author).copied());
        if own.is_some_and(|own| own <= seq) {
            self.pending.remove(&author);
            self.held.remove(&author);
            self.not_repeated += 1;
        }
        if own.is_none_or(|own| own < seq) {
            self.heard.insert(author, seq, max_heard);
        }
        self.settle_due();
    }

    fn settle_due(&mut self) {
        if self.pending.is_empty() && !self.digest_only {
            self.due = None;
        }
        if self.held.is_empty() && !self.held_too_much {
            self.held_until = None;
        }
    }

    fn schedule(&mut self, now: Duration, config: &AnnouncerConfig) {
        let earliest = self.last.map_or(now, |last| {
            now.max(last.saturating_add(config.announce_interval))
        });
        self.due = Some(self.due.map_or(earliest, |due| due.min(earliest)));
    }

    pub(super) fn next_timeout(&self) -> Option<Duration> {
        [self.due, self.held_until].into_iter().flatten().min()
    }

    /// How many heads wait to be named.
    pub(super) fn len(&self) -> usize {
        self.pending.len() + self.held.len()
    }

    #[cfg(test)]
    pub(super) fn heard_len(&self) -> usize {
        self.heard.seqs.len().max(self.heard.order.len() / 2)
    }

    /// The announcements that are due.
    pub(super) fn take(&mut self, now: Duration, config: &AnnouncerConfig) -> Vec<AnnouncerOutput> {
        if self.held_until.take_if(|until| *until <= now).is_some() {
            for (author, seq) in core::mem::take(&mut self.held) {
                if seq == CUT {
                    // Heads heard say nothing of it.
                    self.put(author, Pending { seq, size: None }, config);
                    self.schedule(now, config);
                } else {
                    self.add(author, seq, None, now, config);
                }
            }
            if core::mem::take(&mut self.held_too_much) {
                self.digest_only = true;
                self.schedule(now, config);
            }
        }
        if self.due.take_if(|due| *due <= now).is_none() {
            return Vec::new();
        }
        self.last = Some(now);
        let pending = core::mem::take(&mut self.pending);
        let digest_only = core::mem::take(&mut self.digest_only);
        let parts =
            pack(&pending, config, config.max_run_bytes).or_else(|| pack(&pending, config, 0));
        let unnamed = digest_only || parts.is_none();
        let mut announcements = parts.unwrap_or_default();
        if unnamed {
            announcements.push(AnnouncerOutput::Announce {
                changed: Vec::new(),
                periodic: true,
            });
        }
        announcements
    }
}

/// Fills messages of runs, and then announcements, each in the order of the authors. `None` if there
/// would be too many.
fn pack(
    pending: &BTreeMap<AuthorId, Pending>,
    config: &AnnouncerConfig,
    max_run: usize,
) -> Option<Vec<AnnouncerOutput>> {
    let mut runs = Parts::of(config.room_for_runs());
    let mut heads = Parts::of(config.room_for_heads());
    for (author, head) in pending {
        let run = head
            .size
            .filter(|size| *size > 0 && *size <= max_run)
            .map(|size| size.saturating_add(RUN_PREFIX_BYTES))
            .filter(|bytes| *bytes <= config.room_for_runs());
        match run {
            Some(bytes) => runs.add(*author, bytes)?,
            None => heads.add(*author, HEAD_BYTES)?,
        }
        if runs.parts.len() + heads.parts.len() > config.max_split {
            return None;
        }
    }
    let send = |authors| AnnouncerOutput::SendRuns { authors };
    let announce = |changed| AnnouncerOutput::Announce {
        changed,
        periodic: false,
    };
    let runs = runs.parts.into_iter().map(send);
    Some(runs.chain(heads.parts.into_iter().map(announce)).collect())
}

/// Authors, by the messages that they fill.
#[derive(Debug)]
struct Parts {
    parts: Vec<Vec<AuthorId>>,
    room: usize,
    left: usize,
}

impl Parts {
    fn of(room: usize) -> Self {
        Self {
            parts: Vec::new(),
            room,
            left: 0,
        }
    }

    /// `None` if no message has room for so many bytes.
    fn add(&mut self, author: AuthorId, bytes: usize) -> Option<()> {
        if bytes > self.room {
            return None;
        }
        if bytes > self.left {
            self.parts.push(Vec::new());
            self.left = self.room;
        }
        self.left -= bytes;
        self.parts.last_mut()?.push(author);
        Some(())
    }
}

/// Heads heard on the topic that have not been reported as grown here. The oldest make place.
#[derive(Debug, Default)]
struct HeardHeads {
    seqs: BTreeMap<AuthorId, (u64, u64)>,
    /// By age; an author heard again leaves its older entry behind, which no longer counts.
    order: VecDeque<(AuthorId, u64)>,
    stamp: u64,
}

impl HeardHeads {
    fn insert(&mut self, author: AuthorId, seq: u64, max: usize) {
        if self
            .seqs
            .get(&author)
            .is_some_and(|(heard, _)| *heard >= seq)
        {
            return;
        }
        self.stamp += 1;
        self.seqs.insert(author, (seq, self.stamp));
        self.order.push_back((author, self.stamp));
        while self.seqs.len() > max || self.order.len() > max.saturating_mul(2) {
            let Some((oldest, stamp)) = self.order.pop_front() else {
                return;
            };
            if self.seqs.get(&oldest).is_some_and(|(_, at)| *at == stamp) {
                self.seqs.remove(&oldest);
            }
        }
    }

    /// Whether the head was heard. One that is now reached is forgotten: it did its service.
    fn covers(&mut self, author: AuthorId, seq: u64) -> bool {
        let Some((heard, _)) = self.seqs.get(&author).copied() else {
            return false;
        };
        if heard <= seq {
            self.seqs.remove(&author);
        }
        heard >= seq
    }
}
