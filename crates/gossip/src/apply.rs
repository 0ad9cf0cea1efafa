//! From messages that passed the gate to what the announcer is told of them.
//!
//! ```text
//! heads above ours ─▶ signatures ─┐
//! runs ─▶ Space::apply ───────────┴─▶ claims (author, seq said, seq held) ─▶ announcer
//! ```
//!
//! Several messages are taken at once, so that their runs share a commit.

use std::{fmt::Display, sync::Arc};

use headwater::{Acceptance, ApplyRunsError, Space, proto::Appended, wire::AppendError};
use headwater_proto::announcer::{Claim, ForkClaim};
use headwater_wire::{AuthorId, ClockEntry, HeadsDigest, Run, SignedHead};
use iroh::EndpointId;
use n0_future::join_all;
use tracing::{debug, warn};

use crate::{
    gate::{Ignored, Passage, Proven, UnprovenRuns},
    metrics::BridgeMetrics,
};

/// What passed the gate.
#[derive(Debug)]
pub(crate) enum Passed {
    Announcement(Proven),
    Runs(UnprovenRuns),
}

/// A message with what became of it.
#[derive(Debug)]
pub(crate) enum Heard {
    Announcement(HeardHeads),
    Runs(HeardRuns),
}

/// An announcement with what became of it.
#[derive(Debug)]
pub(crate) struct HeardHeads {
    pub(crate) sender: EndpointId,
    pub(crate) neighbor: EndpointId,
    pub(crate) digest: HeadsDigest,
    /// Whether it had nothing to say but its digest.
    pub(crate) periodic: bool,
    pub(crate) claims: Vec<Claim>,
    /// Logs it says fork, of those whose proof would be kept here.
    pub(crate) forks: Vec<ForkClaim>,
    /// Whether something of it contradicts a log held here, or goes on where a log is cut. A claim
    /// says nothing of that: a pull from the sender brings both branches together.
    pub(crate) contradicts: bool,
}

/// Runs that proved themselves, with what became of them.
#[derive(Debug)]
pub(crate) struct HeardRuns {
    pub(crate) passage: Passage,
    pub(crate) claims: Vec<Claim>,
    /// Authors who may write here, and of whom they brought something that is not held.
    pub(crate) news: Vec<AuthorId>,
    /// As of an announcement. Whoever delivered them may hold neither branch, and nobody else is known to.
    pub(crate) contradicts: bool,
}

/// What one head or run comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Said {
    Claims(Claim),
    /// It forks from what is held.
    Contradicts,
}

/// What became of a run that was given to the space; `None` if the store failed.
type Outcome = Option<Result<Appended, AppendError>>;

/// Checks the heads of announcements, and applies runs. Those that one neighbour delivered are applied
/// in their order; neighbours do not wait for each other. Returns what was not ignored, in the order of
/// the call.
pub(crate) async fn apply(
    space: Space,
    passed: Vec<Passed>,
    metrics: Arc<BridgeMetrics>,
) -> Vec<Heard> {
    let mut announcements = Vec::new();
    let mut of_neighbors: Vec<(EndpointId, Vec<(usize, UnprovenRuns)>)> = Vec::new();
    for (at, passed) in passed.into_iter().enumerate() {
        match passed {
            Passed::Announcement(proven) => announcements.push((at, proven)),
            Passed::Runs(runs) => {
                let neighbor = runs.passage.neighbor;
                match of_neighbors.iter_mut().find(|(it, _)| *it == neighbor) {
                    Some((_, of_neighbor)) => of_neighbor.push((at, runs)),
                    None => of_neighbors.push((neighbor, vec![(at, runs)])),
                }
            }
        }
    }
    // Before the heads, which may be theirs.
    let applying = of_neighbors
        .into_iter()
        .map(|(neighbor, messages)| apply_messages(&space, neighbor, messages, &metrics));
    let mut heard: Vec<(usize, Heard)> = Vec::new();
    for (at, applied) in join_all(applying).await.into_iter().flatten() {
        match applied {
            Ok(runs) => heard.push((at, Heard::Runs(runs))),
            Err((ignored, neighbor)) => ignore(&ignored, neighbor, &metrics),
        }
    }
    let checking = announcements.into_iter().map(async |(at, proven)| {
        let sender = proven.announcement.sender;
        (at, sender, heads_of(&space, proven).await)
    });
    for (at, sender, checked) in join_all(checking).await {
        match checked {
            Ok(heads) => {
                metrics.announcements_accepted.inc();
                heard.push((at, Heard::Announcement(heads)));
            }
            Err(ignored) => ignore(&ignored, sender, &metrics),
        }
    }
    heard.sort_by_key(|(at, _)| *at);
    heard.into_iter().map(|(_, heard)| heard).collect()
}

async fn heads_of(space: &Space, proven: Proven) -> Result<HeardHeads, Ignored> {
    let said = proven.announcement;
    let of_all = said_by_heads(space, &said.changed).await?;
    let (forks, cut_otherwise) = said_of_forks(space, &said.forked).await;
    Ok(HeardHeads {
        sender: said.sender,
        neighbor: proven.neighbor,
        digest: said.digest,
        periodic: said.is_periodic(),
        contradicts: cut_otherwise || of_all.contains(&Said::Contradicts),
        claims: of_all.into_iter().filter_map(Said::claim).collect(),
        forks,
    })
}

impl Said {
    fn claim(self) -> Option<Claim> {
        match self {
            Self::Claims(claim) => Some(claim),
            Self::Contradicts => None,
        }
    }
}

/// `sender`: who signed it, or else delivered it.
fn ignore(ignored: &Ignored, sender: EndpointId, metrics: &BridgeMetrics) {
    metrics.count(ignored);
    debug!(sender = %sender.fmt_short(), %ignored, "ignored a message");
}

/// What announced heads say, as far as it is proven: heads that are not in our log by the author's
/// signature, ours by being the same. Heads below ours that are in our log say nothing new.
async fn said_by_heads(space: &Space, heads: &[SignedHead]) -> Result<Vec<Said>, Ignored> {
    let held = join_all(heads.iter().map(|head| held(space, head.author))).await;
    let over_quota = space.over_quota();
    let mut said = Vec::with_capacity(heads.len());
    for (head, held) in heads.iter().zip(held) {
        let (author, seq) = (head.author, head.head.seq);
        let forked = held.is_some_and(|entry| entry.forked);
        let held = held.map(|entry| entry.head);
        let held_seq = held.map_or(0, |held| held.seq);
        let claim = Claim {
            author,
            seq,
            held: held_seq,
        };
        if held == Some(head.head) {
            said.push(Said::Claims(claim));
            continue;
        }
        if seq < held_seq && is_ours(space, head).await {
            continue;
        }
        if head.verify() != Ok(true) {
            return Err(Ignored::ForgedHead { author });
        }
        if !is_accepted(space, author, seq.min(held_seq + 1)).await {
            continue;
        }
        if seq > held_seq && over_quota.binary_search(&author).is_ok() {
            // No pull asks for it.
            continue;
        }
        said.push(match seq > held_seq && !forked {
            true => Said::Claims(claim),
            false => Said::Contradicts,
        });
    }
    Ok(said)
}

/// What announced forks say, and whether one of them is cut here as well, and shows something else.
///
/// It is the sender's word alone, so nothing follows from it but a pull: what is not proven here is
/// asked for. Of an author of whom nothing is held and nothing accepted no proof is kept.
async fn said_of_forks(space: &Space, forked: &[ClockEntry]) -> (Vec<ForkClaim>, bool) {
    let (mut forks, mut cut_otherwise) = (Vec::with_capacity(forked.len()), false);
    let over_quota = space.over_quota();
    for theirs in forked {
        let author = theirs.author;
        let ours = held(space, author).await;
        if ours.is_none() && !is_accepted(space, author, 1).await {
            continue;
        }
        let known = ours.is_some_and(|ours| ours.forked);
        if !known && over_quota.binary_search(&author).is_ok() {
            continue;
        }
        cut_otherwise |= known && ours != Some(*theirs);
        forks.push(ForkClaim { author, known });
    }
    (forks, cut_otherwise)
}

/// Whether a head below ours is one of our log. So is one that cannot be told.
async fn is_ours(space: &Space, head: &SignedHead) -> bool {
    match space.event(head.author, head.head.seq).await {
        Ok(event) => event.is_none_or(|event| event.id == head.head.id),
        Err(error) => {
            warn!(%error, "cannot read an event");
            true
        }
    }
}

/// Whether this node would take the author's event at `seq`: what it would not, no pull brings.
async fn is_accepted(space: &Space, author: AuthorId, seq: u64) -> bool {
    match space.accepts(author).await {
        Ok(None | Some(Acceptance::All)) => true,
        Ok(Some(Acceptance::Through(last))) => seq <= last.seq,
        Ok(Some(Acceptance::Nothing)) => false,
        Err(error) => {
            warn!(%error, "cannot read whose space it is");
            true
        }
    }
}

async fn held(space: &Space, author: AuthorId) -> Option<ClockEntry> {
    match space.head(author).await {
        Ok(record) => record.map(|record| record.entry),
        Err(error) => {
            warn!(%error, "cannot read a head");
            None
        }
    }
}

/// Applies what one neighbour delivered; one answer for each message.
async fn apply_messages(
    space: &Space,
    neighbor: EndpointId,
    messages: Vec<(usize, UnprovenRuns)>,
    metrics: &BridgeMetrics,
) -> Vec<(usize, Result<HeardRuns, (Ignored, EndpointId)>)> {
    let together = messages.iter().flat_map(|(_, it)| it.runs.clone());
    let mut outcomes = match apply_at_once(space, neighbor, together.collect()).await {
        Ok(outcomes) => Some(outcomes.into_iter()),
        // One bad run refuses all of the call: find out whose it was.
        Err(_) => None,
    };
    let mut heard = Vec::with_capacity(messages.len());
    for (at, UnprovenRuns { runs, passage }) in messages {
        let named: Vec<_> = runs.iter().map(Named::of).collect();
        let of_message = match &mut outcomes {
            Some(outcomes) => Ok(outcomes.by_ref().take(named.len()).collect()),
            None => apply_at_once(space, neighbor, runs).await,
        };
        let applied = match of_message {
            Ok(outcomes) => Ok(runs_said(space, passage, named, outcomes, metrics).await),
            Err(ignored) => Err((ignored, neighbor)),
        };
        heard.push((at, applied));
    }
    heard
}

/// Gives runs to the space in one call; one answer for each.
async fn apply_at_once(
    space: &Space,
    neighbor: EndpointId,
    runs: Vec<Run>,
) -> Result<Vec<Outcome>, Ignored> {
    let count = runs.len();
    match space.apply(runs, neighbor).await {
        Ok(outcomes) => Ok(outcomes.into_iter().map(Some).collect()),
        Err(error) => not_stored(error).map(|outcome| vec![outcome; count]),
    }
}

/// The space took no run of a call: because one does not verify, or the store failed.
fn not_stored(error: ApplyRunsError) -> Result<Outcome, Ignored> {
    match error {
        ApplyRunsError::Invalid(invalid) => Err(Ignored::InvalidRun(invalid)),
        error => {
            warn!(%error, "cannot store what was sent");
            Ok(None)
        }
    }
}

/// Applies a single run here and now: `None` if that would wait for something, and then nothing was
/// done.
pub(crate) async fn apply_one_at_once(
    space: &Space,
    run: &Run,
    passage: Passage,
    metrics: &BridgeMetrics,
) -> Option<Result<HeardRuns, Ignored>> {
    let outcome = match space.apply_at_once(run, passage.neighbor)? {
        Ok(outcome) => Some(outcome),
        Err(error) => match not_stored(error) {
            Ok(outcome) => outcome,
            Err(ignored) => return Some(Err(ignored)),
        },
    };
    let (named, outcomes) = (vec![Named::of(run)], vec![outcome]);
    Some(Ok(runs_said(space, passage, named, outcomes, metrics).await))
}

/// The end of a run.
#[derive(Debug, Clone, Copy)]
struct Named {
    author: AuthorId,
    seq: u64,
}

impl Named {
    fn of(run: &Run) -> Self {
        Self {
            author: run.author(),
            seq: run.last_seq(),
        }
    }
}

/// What the runs of one message say, all of which proved themselves.
async fn runs_said(
    space: &Space,
    passage: Passage,
    named: Vec<Named>,
    outcomes: Vec<Outcome>,
    metrics: &BridgeMetrics,
) -> HeardRuns {
    let mut heard = HeardRuns {
        passage,
        claims: Vec::with_capacity(named.len()),
        news: Vec::new(),
        contradicts: false,
    };
    let over_quota = space.over_quota();
    for (Named { author, seq }, outcome) in named.into_iter().zip(outcomes) {
        let told = |why: &dyn Display| {
            let sender = passage.neighbor.fmt_short();
            let author = author.fmt_short();
            debug!(%sender, %author, seq, %why, "a run was not stored");
        };
        let is_held = matches!(outcome, Some(Err(AppendError::Stale { .. })));
        let held = match outcome {
            Some(Ok(appended)) => {
                metrics.runs_stored.inc();
                metrics.events_stored.inc_by(appended.events);
                appended.head.seq
            }
            Some(Err(AppendError::Stale { head, .. })) => {
                metrics.runs_held.inc();
                head
            }
            Some(Err(AppendError::Gap { expected, .. })) => {
                metrics.runs_with_gap.inc();
                told(&"begins above what is held");
                expected.saturating_sub(1)
            }
            Some(Err(AppendError::NotAccepted { .. })) => {
                // Nor here: a pull would bring what is not stored either.
                metrics.runs_not_accepted.inc();
                continue;
            }
            Some(Err(AppendError::OverQuota { .. })) => {
                metrics.runs_not_accepted.inc();
                heard.news.push(author);
                continue;
            }
            Some(Err(AppendError::Forked { .. })) => {
                // Whether the log is cut already or a branch is still missing: a pull brings what
                // each side lacks.
                metrics.runs_forked.inc();
                told(&"contradicts the log held");
                heard.news.push(author);
                heard.contradicts = true;
                continue;
            }
            // There is time for a pull, and it brings more at once.
            Some(Err(AppendError::OverRate { .. })) => {
                metrics.runs_with_gap.inc();
                told(&"comes faster than its author's rate");
                held(space, author).await.map_or(0, |held| held.head.seq)
            }
            Some(Err(error)) => {
                metrics.runs_with_gap.inc();
                told(&error);
                0
            }
            None => held(space, author).await.map_or(0, |held| held.head.seq),
        };
        if !is_held {
            heard.news.push(author);
        }
        let is_left_out = seq > held && over_quota.binary_search(&author).is_ok();
        if !is_left_out {
            heard.claims.push(Claim { author, seq, held });
        }
    }
    heard
}

#[cfg(test)]
mod tests {
    use headwater::{EventDraft, Headwater, Open, generate_author};
    use headwater_wire::{AuthorHead, EventId};

    use super::*;

    #[tokio::test]
    async fn heads_claim_only_what_is_proven_and_contradict_only_what_is_held() {
        let author = generate_author();
        let space = Headwater::builder()
            .policy(Open)
            .open()
            .create_space(&author)
            .await
            .unwrap();
        let draft = EventDraft::new(16, 0, vec![5; 100]);
        space.append(&author, draft).await.unwrap();
        let ours = space.signed_head(author.id()).await.unwrap().unwrap();
        let signed = |seq, byte| {
            let id = EventId::from_bytes([byte; 32]);
            SignedHead::sign(&author, space.id(), AuthorHead { seq, id })
        };
        let unsigned = |seq| {
            let mut head = signed(seq, 1);
            head.signature = ours.signature;
            head
        };
        let said = async |head| {
            let said = said_by_heads(&space, &[head]).await?;
            let claimed = said.iter().map(|it| it.claim().map(|it| (it.seq, it.held)));
            Ok::<_, Ignored>(claimed.collect::<Vec<_>>())
        };
        let forged = Err(Ignored::ForgedHead {
            author: author.id(),
        });
        let before = space.event(author.id(), 1).await.unwrap().unwrap();
        let below = AuthorHead {
            seq: 1,
            id: before.id,
        };
        assert_eq!(said(ours).await, Ok(vec![Some((2, 2))]));
        assert_eq!(said(unsigned(2)).await, forged);
        assert_eq!(said(unsigned(3)).await, forged);
        assert_eq!(said(unsigned(1)).await, forged);
        assert_eq!(
            said(SignedHead::sign(&author, space.id(), below)).await,
            Ok(vec![])
        );
        assert_eq!(said(signed(1, 1)).await, Ok(vec![None]));
        assert_eq!(said(signed(2, 1)).await, Ok(vec![None]));
        assert_eq!(said(signed(9, 1)).await, Ok(vec![Some((9, 2))]));
    }
}
