//! The end of a pull: what the responder says of it against what came, and what is reported.

use headwater_wire::{
    EventRef, HeadsDigest, HistorySyncComplete, Receipt, ReceiptFacts, SyncOutcome, Truncation,
};

use super::{HistoryEnd, LiveEnd, LocalClock, Phase, Requester, RequesterOutput, SyncEnd, Tally};
use crate::SessionError;

impl Requester {
    pub(super) fn take_completion(
        &mut self,
        end: HistoryEnd,
        complete: HistorySyncComplete,
    ) -> Result<(), SessionError> {
        let fits = match &complete.outcome {
            SyncOutcome::Complete => {
                end != HistoryEnd::Budget && self.ledger.stubs == 0 && self.notices == 0
            }
            SyncOutcome::Truncated(Truncation::Budget) => end == HistoryEnd::Budget,
            SyncOutcome::Truncated(Truncation::Forked { authors }) => {
                end == HistoryEnd::Whole && self.notices > 0 && *authors == self.notices
            }
            SyncOutcome::Truncated(Truncation::Stubbed) => {
                end == HistoryEnd::Whole && self.ledger.stubs > 0 && self.notices == 0
            }
            // What this side stores is not the responder's to say.
            SyncOutcome::Truncated(
                Truncation::NotAccepted { .. } | Truncation::OverQuota { .. },
            ) => false,
        };
        if !fits {
            return Err(SessionError::OutcomeContradicted {
                outcome: complete.outcome,
            });
        }
        let figures = [
            ("events", complete.events, self.ledger.received.events),
            ("stubs", complete.stubs, self.ledger.stubs),
        ];
        for (unit, stated, received) in figures {
            if stated != received {
                return Err(SessionError::CompletionMismatch {
                    unit,
                    stated,
                    received,
                });
            }
        }
        self.phase = Phase::Draining {
            equal: end == HistoryEnd::Equal,
            complete: Box::new(complete),
            live_end: None,
        };
        self.finish_drained()
    }

    /// Moves on if the store has caught up with what the phase waits for.
    pub(super) fn finish_drained(&mut self) -> Result<(), SessionError> {
        match core::mem::replace(&mut self.phase, Phase::Ended) {
            Phase::Draining {
                equal,
                complete,
                live_end,
            } if self.ledger.history_applied() => {
                let end = Box::new(self.check_completion(equal, &complete)?);
                // A history cut short by the budget has no end that live events could follow.
                let stays = self.config.live
                    && complete.outcome != SyncOutcome::Truncated(Truncation::Budget);
                if !stays {
                    self.outputs.push_back(RequesterOutput::Finished(*end));
                    return Ok(());
                }
                self.outputs
                    .push_back(RequesterOutput::HistoryComplete((*end).clone()));
                match live_end {
                    None => self.phase = Phase::Live(end),
                    Some(live_end) => self.close(end, live_end),
                }
            }
            Phase::Cut if self.ledger.all_applied() => {
                let end = self.cut_end();
                let end = self.updated(end);
                self.outputs.push_back(RequesterOutput::Finished(end));
            }
            Phase::Closing(end) if self.all_stored() => {
                let end = self.updated(*end);
                self.outputs.push_back(RequesterOutput::Finished(end));
            }
            phase => self.phase = phase,
        }
        Ok(())
    }

    /// Whether the store has answered about everything that was received.
    fn all_stored(&self) -> bool {
        self.backlog.is_none() && self.ledger.all_applied()
    }

    /// Ends the history before its end, if too much of it is not stored. What came is still applied.
    pub(super) fn check_refused(&mut self) {
        let is_history = matches!(self.phase, Phase::Segment(_));
        if is_history && self.ledger.refused_bytes > self.config.limits.max_refused_bytes {
            self.backlog = None;
            self.heads.stop();
            self.phase = Phase::Cut;
        }
    }

    /// Whether this side ended the history before its end: the peer is still at it, and has to be
    /// told.
    #[must_use]
    pub fn is_cut(&self) -> bool {
        self.was_cut
    }

    /// The end of a history that was cut. Nothing was compared with the responder.
    fn cut_end(&mut self) -> SyncEnd {
        self.was_cut = true;
        let authors = self.ledger.unaccepted.count();
        let truncation = match self.ledger.over_quota.is_empty() {
            true => Truncation::NotAccepted { authors },
            false => Truncation::OverQuota {
                authors: self.ledger.over_quota.count(),
            },
        };
        self.end_so_far(
            SyncOutcome::Truncated(truncation),
            false,
            HeadsDigest::EMPTY,
            0,
            None,
        )
    }

    /// Ends the live part, as soon as the store is done.
    pub(super) fn close(&mut self, mut end: Box<SyncEnd>, live_end: LiveEnd) {
        end.live = Some(live_end);
        if self.all_stored() {
            let end = self.updated(*end);
            self.outputs.push_back(RequesterOutput::Finished(end));
        } else {
            self.phase = Phase::Closing(end);
        }
    }

    fn check_completion(
        &mut self,
        equal: bool,
        complete: &HistorySyncComplete,
    ) -> Result<SyncEnd, SessionError> {
        let last = self.ledger.last_event.map(|(author, head)| EventRef {
            author,
            seq: head.seq,
            id: head.id,
        });
        if complete.last_event != last {
            return Err(SessionError::LastEventMismatch);
        }
        let computed = match self.clock {
            LocalClock::Held { digest, .. } if equal => digest,
            _ => self.ledger.joined_digest()?,
        };
        if complete.joined_digest != computed {
            return Err(SessionError::DigestMismatch {
                stated: complete.joined_digest,
                computed,
            });
        }
        let receipt = self.check_receipt(complete)?;
        let end = self.end_so_far(
            complete.outcome,
            equal,
            computed,
            complete.stream_generation,
            receipt,
        );
        Ok(self.updated(end))
    }

    /// An end without the figures of what was stored.
    fn end_so_far(
        &self,
        outcome: SyncOutcome,
        first_digest_equal: bool,
        joined_digest: HeadsDigest,
        stream_generation: u64,
        receipt: Option<Receipt>,
    ) -> SyncEnd {
        let mut round_trips = 1 + self.heads.further_windows();
        round_trips += u32::from(self.asked_for_heads);
        SyncEnd {
            outcome,
            events: 0,
            payload_bytes: 0,
            received: Tally::default(),
            stubs: self.ledger.stubs,
            forks: Vec::new(),
            forked_authors: 0,
            unaccepted_authors: 0,
            over_quota: Vec::new(),
            over_quota_authors: 0,
            refused_bytes: 0,
            round_trips,
            first_digest_equal,
            joined_digest,
            stream_generation,
            receipt,
            live: None,
        }
    }

    /// The receipt, if there is one and it is known whose it has to be.
    fn check_receipt(
        &self,
        complete: &HistorySyncComplete,
    ) -> Result<Option<Receipt>, SessionError> {
        let (Some(signature), Some(provider)) = (complete.receipt, self.provider) else {
            return Ok(None);
        };
        let stated = match self.clock {
            LocalClock::Held { digest, .. } => digest,
            LocalClock::Empty => HeadsDigest::EMPTY,
        };
        let receipt = Receipt {
            provider,
            facts: ReceiptFacts::of(self.request, stated, complete),
            signature,
        };
        match receipt.verify() {
            Ok(true) => Ok(Some(receipt)),
            Ok(false) | Err(_) => Err(SessionError::WrongReceipt),
        }
    }

    /// The end with the figures as they are now. A fork only our store knows of counts too.
    fn updated(&self, mut end: SyncEnd) -> SyncEnd {
        end.events = self.ledger.applied.events;
        end.payload_bytes = self.ledger.applied.payload_bytes;
        end.received = self.progress.received;
        end.forks.clone_from(&self.ledger.forks);
        end.forked_authors = self.ledger.forked_authors;
        end.unaccepted_authors = self.ledger.unaccepted.count();
        end.over_quota = self.ledger.over_quota.list();
        end.over_quota_authors = self.ledger.over_quota.count();
        end.refused_bytes = self.ledger.refused_bytes;
        let named = match end.outcome {
            SyncOutcome::Complete => 0,
            SyncOutcome::Truncated(Truncation::Forked { authors }) => authors,
            SyncOutcome::Truncated(_) => return end,
        };
        if end.forked_authors > named {
            end.outcome = SyncOutcome::Truncated(Truncation::Forked {
                authors: end.forked_authors,
            });
        }
        if end.outcome == SyncOutcome::Complete && end.over_quota_authors > 0 {
            end.outcome = SyncOutcome::Truncated(Truncation::OverQuota {
                authors: end.over_quota_authors,
            });
        }
        end
    }
}
