//! What a bridge counts, over all its spaces.

use iroh_metrics::{Counter, MetricsGroup};

use crate::gate::Ignored;

/// Counters of one bridge. They only grow, and start at zero with the process.
///
/// `ignored_*` are messages that had no effect; everything else received either had one or was no
/// news.
#[derive(Debug, Default, MetricsGroup)]
#[metrics(name = "headwater_gossip")]
#[non_exhaustive]
pub struct BridgeMetrics {
    /// Announcements broadcast, periodic ones included.
    pub announcements_sent: Counter,
    /// Announcements among them that carry the digest alone.
    pub announcements_periodic_sent: Counter,
    /// Bytes of announcements broadcast, before iroh-gossip copies them to neighbours.
    pub announcement_bytes_sent: Counter,
    /// Messages of runs broadcast.
    pub run_messages_sent: Counter,
    /// Bytes of them, before iroh-gossip copies them to neighbours.
    pub run_bytes_sent: Counter,
    /// Runs broadcast in them.
    pub runs_sent: Counter,
    /// Logs announced as forked.
    pub forks_announced: Counter,
    /// Announcements and messages of runs not made because no neighbour was there to hear them.
    pub announcements_unheard: Counter,
    /// Announcements that would not have fitted the topic and were sent as a digest alone, and messages of
    /// runs that were announced by their heads. The sizes are planned to fit, so this stays at zero.
    pub announcements_cut: Counter,
    /// Broadcasts iroh-gossip did not take.
    pub broadcasts_failed: Counter,
    /// Messages received on topics, of every kind.
    pub messages_received: Counter,
    /// Bytes of those messages.
    pub message_bytes_received: Counter,
    /// Announcements that passed every check.
    pub announcements_accepted: Counter,
    /// Messages larger than an announcement may be.
    pub ignored_oversized: Counter,
    /// Messages of a kind unknown here.
    pub ignored_unknown: Counter,
    /// Messages that cannot be decoded.
    pub ignored_malformed: Counter,
    /// Announcements and runs of another space than the topic's, and old requests for another topic.
    pub ignored_foreign_space: Counter,
    /// This node's own announcements, sent back by somebody.
    pub ignored_own: Counter,
    /// Announcements of a sender that had used up its share.
    pub ignored_sender_too_often: Counter,
    /// Messages with runs of an author who had used up its share.
    pub ignored_author_too_often: Counter,
    /// Messages passed on by a neighbour that had used up its share of bad and unknown ones.
    pub ignored_neighbor_too_often: Counter,
    /// Announcements of senders the policy does not let read the space.
    pub ignored_refused: Counter,
    /// Messages dropped because the policy did not answer in time, or too much waited for it.
    pub ignored_unanswered: Counter,
    /// Announcements whose counter was seen already, or went back.
    pub ignored_replayed: Counter,
    /// Announcements the named sender did not sign.
    pub ignored_forged: Counter,
    /// Announcements with a head its author did not sign.
    pub ignored_forged_head: Counter,
    /// Messages of runs of which one does not verify.
    pub ignored_invalid_run: Counter,
    /// Runs received that brought events.
    pub runs_stored: Counter,
    /// Events they brought.
    pub events_stored: Counter,
    /// Runs received held already.
    pub runs_held: Counter,
    /// Runs received that begin above what is held: the events between are pulled.
    pub runs_with_gap: Counter,
    /// Runs received of authors whose events this node does not accept.
    pub runs_not_accepted: Counter,
    /// Runs received that contradict the log held.
    pub runs_forked: Counter,
    /// Pulls started because of what was announced, or who came.
    pub pulls_started: Counter,
    /// Pulls that ended complete.
    pub pulls_completed: Counter,
    /// Pulls that brought events, complete or truncated.
    pub pulls_with_events: Counter,
    /// Pulls that ended truncated.
    pub pulls_truncated: Counter,
    /// Pulls that failed.
    pub pulls_failed: Counter,
    /// Events those pulls brought.
    pub events_pulled: Counter,
    /// Pulls given up because others needed their place.
    pub pulls_given_up: Counter,
    /// Pulls that ended complete without something their peer had announced.
    pub promises_broken: Counter,
    /// What another peer brought after it was announced and kept back.
    pub withheld: Counter,
    /// Peers whose receipts contradict each other.
    pub providers_caught: Counter,
    /// Pulls not begun because the policy does not let the peer read, or did not say so in time.
    pub pulls_refused: Counter,
    /// Questions the policy did not answer in time.
    pub policy_unanswered: Counter,
    /// Times a neighbour was left aside because the policy does not let it read.
    pub neighbors_refused: Counter,
    /// Neighbours that came, of those the policy lets read.
    pub neighbors_up: Counter,
    /// Neighbours that went.
    pub neighbors_down: Counter,
    /// Times iroh-gossip dropped messages because this node read too slowly.
    pub lagged: Counter,
    /// Times a topic was joined anew because iroh-gossip had ended it.
    pub rejoined: Counter,
    /// Times a space moved to the topic of a new secret.
    pub topic_moves: Counter,
    /// Times the bootstrap peers were asked again because there was no neighbour.
    pub bootstrap_retried: Counter,
    /// Requests of the older exchange received.
    pub legacy_requests_received: Counter,
    /// Requests of the older exchange answered.
    pub legacy_requests_answered: Counter,
    /// Requests made in the words of the older exchange.
    pub legacy_requests_sent: Counter,
    /// Dumps of the older exchange received.
    pub legacy_batches_received: Counter,
    /// Dumps of the older exchange sent, each as many messages as it needed.
    pub legacy_batches_sent: Counter,
    /// Runs that were too large for a message of the older exchange.
    pub legacy_runs_too_large: Counter,
    /// Runs of the older exchange that brought events.
    pub legacy_runs_stored: Counter,
    /// Runs of the older exchange that are no runs, or do not verify.
    pub legacy_runs_invalid: Counter,
    /// Runs of the older exchange the store did not take: held already, with a gap, or forked.
    pub legacy_runs_refused: Counter,
}

impl BridgeMetrics {
    pub(crate) fn count(&self, ignored: &Ignored) {
        let counter = match ignored {
            Ignored::Oversized { .. } => &self.ignored_oversized,
            Ignored::Unknown => &self.ignored_unknown,
            Ignored::Malformed => &self.ignored_malformed,
            Ignored::ForeignSpace { .. } | Ignored::ForeignTopic => &self.ignored_foreign_space,
            Ignored::Own => &self.ignored_own,
            Ignored::SenderTooOften => &self.ignored_sender_too_often,
            Ignored::AuthorTooOften { .. } => &self.ignored_author_too_often,
            Ignored::NeighborTooOften => &self.ignored_neighbor_too_often,
            Ignored::Refused => &self.ignored_refused,
            Ignored::Unanswered => &self.ignored_unanswered,
            Ignored::Replayed { .. } => &self.ignored_replayed,
            Ignored::Forged => &self.ignored_forged,
            Ignored::ForgedHead { .. } => &self.ignored_forged_head,
            Ignored::InvalidRun(_) => &self.ignored_invalid_run,
        };
        counter.inc();
    }
}
