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
    authors::Fate,
    gate::{Ignored, Proven, Share, UnprovenRuns},
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

/// The runs of one message, all of which proved themselves.
#[derive(Debug)]
pub(crate) struct HeardRuns {
    /// Who delivered them.
    pub(crate) neighbor: EndpointId,
    pub(crate) runs: Vec<HeardRun>,
}

/// A run with what became of it.
#[derive(Debug)]
pub(crate) struct HeardRun {
    pub(crate) author: AuthorId,
    /// Its last event.
    pub(crate) seq: u64,
    /// Out of which share of the neighbour's it was taken.
    pub(crate) share: Share,
    /// What became of it; `None` if its author may not write here.
    pub(crate) fate: Option<Fate>,
    pub(crate) claim: Option<Claim>,
}

/// What one head comes to.
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
                let neighbor = runs.neighbor;
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

/// Applies what one neighbour delivered, in its order; one answer for each message.
async fn apply_messages(
    space: &Space,
    neighbor: EndpointId,
    messages: Vec<(usize, UnprovenRuns)>,
    metrics: &BridgeMetrics,
) -> Vec<(usize, Result<HeardRuns, (Ignored, EndpointId)>)> {
    let mut heard = Vec::with_capacity(messages.len());
    // The first part last.
    let mut parts = vec![messages];
    while let Some(mut part) = parts.pop() {
        let runs = part.iter().flat_map(|(_, it)| it.runs.clone());
        match (apply_at_once(space, neighbor, runs.collect()).await, &*part) {
            (Ok(outcomes), _) => {
                let mut outcomes = outcomes.into_iter();
                for (at, message) in part {
                    let of_message = outcomes.by_ref().take(message.runs.len()).collect();
                    let said = runs_said(space, &message, of_message, metrics).await;
                    heard.push((at, Ok(said)));
                }
            }
            (Err(ignored), [(at, _)]) => heard.push((*at, Err((ignored, neighbor)))),
            // One bad run refuses all of the call: halve until it is found, so that a few of them do not
            // make a commit of every message.
            (Err(_), _) => {
                let later = part.split_off(part.len() / 2);
                parts.extend([later, part]);
            }
        }
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

/// Applies a message of a single run here and now: `None` if it is of several, or that would wait for
/// something, and then nothing was done.
pub(crate) async fn apply_one_at_once(
    space: &Space,
    message: &UnprovenRuns,
    metrics: &BridgeMetrics,
) -> Option<Result<HeardRuns, Ignored>> {
    let [run] = message.runs.as_slice() else {
        return None;
    };
    let outcome = match space.apply_at_once(run, message.neighbor)? {
        Ok(outcome) => Some(outcome),
        Err(error) => match not_stored(error) {
            Ok(outcome) => outcome,
            Err(ignored) => return Some(Err(ignored)),
        },
    };
    Some(Ok(runs_said(space, message, vec![outcome], metrics).await))
}

/// What the runs of one message say, all of which proved themselves.
async fn runs_said(
    space: &Space,
    message: &UnprovenRuns,
    outcomes: Vec<Outcome>,
    metrics: &BridgeMetrics,
) -> HeardRuns {
    let over_quota = space.over_quota();
    let mut runs = Vec::with_capacity(message.runs.len());
    for ((run, share), outcome) in message.runs.iter().zip(&message.shares).zip(outcomes) {
        let (author, seq) = (run.author(), run.last_seq());
        let fate = match &outcome {
            Some(Ok(_)) => Some(Fate::Stored),
            Some(Err(AppendError::Stale { .. })) => Some(Fate::Held),
            Some(Err(AppendError::NotAccepted { .. })) => None,
            Some(Err(_)) | None => Some(Fate::NotStored),
        };
        let held = held_after(space, message.neighbor, run, outcome, metrics).await;
        let is_left_out = |held| seq > held && over_quota.binary_search(&author).is_ok();
        let claim = held.filter(|held| !is_left_out(*held));
        runs.push(HeardRun {
            author,
            seq,
            share: *share,
            fate,
            claim: claim.map(|held| Claim { author, seq, held }),
        });
    }
    HeardRuns {
        neighbor: message.neighbor,
        runs,
    }
}

/// The last event of a run's author that is held now; `None` where no pull could bring more.
async fn held_after(
    space: &Space,
    neighbor: EndpointId,
    run: &Run,
    outcome: Outcome,
    metrics: &BridgeMetrics,
) -> Option<u64> {
    let (author, seq) = (run.author(), run.last_seq());
    let told = |why: &dyn Display| {
        let (sender, author) = (neighbor.fmt_short(), author.fmt_short());
        debug!(%sender, %author, seq, %why, "a run was not stored");
    };
    match outcome {
        Some(Ok(appended)) => {
            metrics.runs_stored.inc();
            metrics.events_stored.inc_by(appended.events);
            Some(appended.head.seq)
        }
        Some(Err(AppendError::Stale { head, .. })) => {
            metrics.runs_held.inc();
            Some(head)
        }
        Some(Err(AppendError::Gap { expected, .. })) => {
            metrics.runs_with_gap.inc();
            told(&"begins above what is held");
            Some(expected.saturating_sub(1))
        }
        Some(Err(AppendError::NotAccepted { .. } | AppendError::OverQuota { .. })) => {
            // Nor here: a pull would bring what is not stored either.
            metrics.runs_not_accepted.inc();
            None
        }
        Some(Err(AppendError::Forked { .. })) => {
            // The proof is kept, and the log cut, by now. Who has not heard is found by digest.
            metrics.runs_forked.inc();
            told(&"contradicts the log held");
            None
        }
        // There is time for a pull, and it brings more at once.
        Some(Err(AppendError::OverRate { .. })) => {
            metrics.runs_with_gap.inc();
            told(&"comes faster than its author's rate");
            Some(held(space, author).await.map_or(0, |held| held.head.seq))
        }
        Some(Err(error)) => {
            metrics.runs_with_gap.inc();
            told(&error);
            Some(0)
        }
        None => Some(held(space, author).await.map_or(0, |held| held.head.seq)),
    }
}

#[cfg(test)]
mod tests {
    use headwater::{EventDraft, Headwater, Open, generate_author};
    use headwater_wire::{AuthorHead, AuthorSecret, EventId, SpaceId, sign_runs};

    use super::*;

    #[tokio::test]
    async fn one_bad_run_refuses_its_message_alone_and_the_others_are_applied_in_their_order() {
        let owner = generate_author();
        let node = Headwater::builder().policy(Open).open();
        let space = node.create_space(&owner).await.unwrap();
        let neighbor = iroh::SecretKey::from_bytes(&[1; 32]).public();
        let elsewhere = SpaceId::from_bytes([9; 32]);
        let authors: Vec<_> = (1..=3).map(|n| AuthorSecret::from_bytes([n; 32])).collect();
        let mut bases = vec![None; authors.len()];
        let mut messages = Vec::new();
        // Each author goes on in every message; the third and the last but one hold a bad run.
        for at in 0..9 {
            let is_bad = at == 3 || at == 7;
            let mut runs = Vec::new();
            for (author, base) in authors.iter().zip(&mut bases) {
                let place = if is_bad { elsewhere } else { space.id() };
                let draft = EventDraft::new(16, 0, vec![5; 10]);
                let run = sign_runs(&place, author, *base, [draft]).unwrap().remove(0);
                if !is_bad {
                    *base = Some(run.head());
                }
                runs.push(run.into_run());
            }
            let shares = vec![Share::New; runs.len()];
            let left_out = Vec::new();
            let message = UnprovenRuns {
                neighbor,
                runs,
                shares,
                left_out,
            };
            messages.push((at, message));
        }
        let metrics = BridgeMetrics::default();
        let heard = apply_messages(&space, neighbor, messages, &metrics).await;
        let places: Vec<_> = heard.iter().map(|(at, _)| *at).collect();
        assert_eq!(places, (0..9).collect::<Vec<_>>());
        let mut seq = 0;
        for (at, applied) in heard {
            let Ok(applied) = applied else {
                assert!(at == 3 || at == 7, "{at}");
                continue;
            };
            seq += 1;
            let said: Vec<_> = applied
                .runs
                .iter()
                .map(|run| (run.author, run.seq))
                .collect();
            let expected: Vec<_> = authors.iter().map(|author| (author.id(), seq)).collect();
            assert_eq!(said, expected);
            assert!(
                applied
                    .runs
                    .iter()
                    .all(|run| run.fate == Some(Fate::Stored))
            );
        }
        assert_eq!(seq, 7);
    }

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
