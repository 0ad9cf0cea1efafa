//! What goes out over the topic.

use headwater_wire::{AuthorId, ClockEntry, SignedHead};
use tracing::{debug, error, warn};

use super::Driver;
use crate::{
    announcement::{AnnouncementSignError, HeadAnnouncement, Scope},
    random,
    runs::RunsMessage,
};

impl Driver {
    /// Broadcasts what is new of these logs, in one message. Of what is not at hand any more, and if it all
    /// does not fit, the heads are announced.
    pub(super) async fn send_runs(&mut self, authors: Vec<AuthorId>) {
        if self.shared.is_alone() {
            // Whoever comes is compared with by digest.
            self.metrics.announcements_unheard.inc();
            return;
        }
        let (mut runs, mut sent, mut others) = (Vec::new(), Vec::new(), Vec::new());
        for author in authors {
            match self.fresh.take_run(&author) {
                Some(run) => {
                    runs.push(run);
                    sent.push(author);
                }
                None => others.push(author),
            }
        }
        if !runs.is_empty() {
            let count = runs.len();
            let message = RunsMessage {
                space: self.space.id(),
                salt: random(),
                runs,
            };
            let bytes = message.encode();
            let (len, max) = (bytes.len(), self.max_bytes);
            if len > max {
                warn!(len, max, "runs do not fit: their heads have to do");
                self.metrics.announcements_cut.inc();
                others.append(&mut sent);
            } else if self.link.broadcast(bytes).await.is_err() {
                self.metrics.broadcasts_failed.inc();
            } else {
                debug!(runs = count, bytes = len, "sent");
                self.metrics.run_messages_sent.inc();
                self.metrics.run_bytes_sent.inc_by(len as u64);
                self.metrics.runs_sent.inc_by(count as u64);
            }
        }
        if !others.is_empty() {
            self.announce(others, false).await;
        }
    }

    /// Makes one announcement and broadcasts it.
    pub(super) async fn announce(&mut self, changed: Vec<AuthorId>, mut periodic: bool) {
        if self.shared.is_alone() {
            // Whoever comes is compared with by digest.
            self.metrics.announcements_unheard.inc();
            return;
        }
        if periodic {
            // It has nothing else to say.
            self.read_digest().await;
        }
        let mut heads: Vec<SignedHead> = Vec::with_capacity(changed.len());
        let mut forked: Vec<ClockEntry> = Vec::new();
        for author in changed {
            match self.signed_head(author).await {
                Some(head) => heads.push(head),
                None => forked.extend(self.cut_of(author).await),
            }
        }
        if !forked.is_empty() {
            // Whoever is cut because of it finds this digest.
            self.read_digest().await;
        }
        if !periodic && heads.is_empty() && forked.is_empty() {
            // All of it went meanwhile: whoever hears of it compares digests.
            periodic = true;
            self.read_digest().await;
        }
        heads.sort_by_key(|head| head.author);
        heads.dedup_by_key(|head| head.author);
        forked.sort_by_key(|log| log.author);
        forked.dedup_by_key(|log| log.author);
        let mut announcement = HeadAnnouncement {
            space: self.space.id(),
            sender: self.key.public(),
            counter: self.next_counter(),
            scope: Scope::Everything,
            digest: self.digest,
            changed: heads,
            forked,
        };
        let mut signed = announcement.sign(&self.key, self.max_bytes);
        if let Err(AnnouncementSignError::TooLarge { len, max }) = &signed {
            warn!(
                len,
                max, "an announcement does not fit: the digest has to do"
            );
            self.metrics.announcements_cut.inc();
            periodic = true;
            announcement.digest = self.read_digest().await;
            announcement.changed.clear();
            announcement.forked.clear();
            signed = announcement.sign(&self.key, self.max_bytes);
        }
        let bytes = match signed {
            Ok(bytes) => bytes,
            Err(error) => {
                error!(%error, "cannot announce");
                return;
            }
        };
        let len = bytes.len();
        if self.link.broadcast(bytes).await.is_err() {
            self.metrics.broadcasts_failed.inc();
            return;
        }
        debug!(
            heads = announcement.changed.len(),
            forks = announcement.forked.len(),
            bytes = len,
            "announced"
        );
        self.metrics.announcements_sent.inc();
        self.metrics.announcement_bytes_sent.inc_by(len as u64);
        self.metrics
            .forks_announced
            .inc_by(announcement.forked.len() as u64);
        if periodic {
            self.metrics.announcements_periodic_sent.inc();
        }
    }

    /// What shows of a log, if it is cut.
    async fn cut_of(&mut self, author: AuthorId) -> Option<ClockEntry> {
        match self.space.head(author).await {
            Ok(record) => record.map(|record| record.entry).filter(|it| it.forked),
            Err(error) => {
                warn!(%error, author = %author.fmt_short(), "cannot announce a fork");
                None
            }
        }
    }

    /// The head of a log: as it was seen to grow, or else from the store.
    pub(super) async fn signed_head(&mut self, author: AuthorId) -> Option<SignedHead> {
        if let Some(log) = self.fresh.take(&author) {
            return Some(log.head);
        }
        match self.space.signed_head(author).await {
            Ok(head) => head,
            Err(error) => {
                warn!(%error, author = %author.fmt_short(), "cannot announce a head");
                None
            }
        }
    }
}
