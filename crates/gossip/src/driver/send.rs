//! What goes out over the topic.

use headwater_wire::{AuthorId, ClockEntry, SignedHead};
use tracing::{debug, error, warn};

use super::Driver;
use crate::announcement::{AnnouncementSignError, HeadAnnouncement, Scope};

impl Driver {
    /// Makes one announcement and broadcasts it.
    pub(super) async fn announce(
        &mut self,
        changed: Vec<AuthorId>,
        inline: Vec<AuthorId>,
        mut periodic: bool,
    ) {
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
        let mut runs = Vec::with_capacity(inline.len());
        let mut forked: Vec<ClockEntry> = Vec::new();
        for author in changed {
            match self.signed_head(author).await {
                Some(head) => heads.push(head),
                None => forked.extend(self.cut_of(author).await),
            }
        }
        for author in inline {
            match self.fresh.take(&author) {
                Some(log) => match log.run {
                    Some(run) => runs.push(run.as_bytes().clone()),
                    None => heads.push(log.head),
                },
                None => heads.extend(self.signed_head(author).await),
            }
        }
        if !forked.is_empty() {
            // Whoever is cut because of it finds this digest.
            self.read_digest().await;
        }
        if !periodic && heads.is_empty() && runs.is_empty() && forked.is_empty() {
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
            inline: runs,
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
            announcement.inline.clear();
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
            runs = announcement.inline.len(),
            bytes = len,
            "announced"
        );
        self.metrics.announcements_sent.inc();
        self.metrics.announcement_bytes_sent.inc_by(len as u64);
        self.metrics
            .forks_announced
            .inc_by(announcement.forked.len() as u64);
        self.metrics
            .runs_sent_inline
            .inc_by(announcement.inline.len() as u64);
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
