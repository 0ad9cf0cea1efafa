//! From proven announcements to what the announcer is told of them.
//!
//! ```text
//! heads above ours ─▶ signatures ─┐
//! inline runs ─▶ Space::apply ────┴─▶ claims (author, seq said, seq held) ─▶ announcer
//! ```
//!
//! Several announcements are taken at once, so that their runs share a commit.

use std::{fmt::Display, sync::Arc};

use headwater::{Acceptance, ApplyRunsError, Space, wire::AppendError};
use headwater_proto::announcer::{Claim, ForkClaim};
use headwater_wire::{AuthorId, ClockEntry, HeadsDigest, Run, SignedHead};
use iroh::EndpointId;
use n0_future::join_all;
use tracing::{debug, warn};

use crate::{
    gate::{Ignored, Proven},
    metrics::BridgeMetrics,
};

/// An announcement with what became of it.
#[derive(Debug)]
pub(crate) struct Heard {
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

/// What one head or run comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Said {
    Claims(Claim),
    /// It forks from what is held.
    Contradicts,
}

/// What became of the inline runs of one announcement.
type RunsSaid = Result<Vec<Said>, Ignored>;

/// Checks the heads of announcements, and applies their runs. Those of one sender are applied in
/// their order; senders do not wait for each other. Returns what was not ignored, in the order of
/// the call.
pub(crate) async fn apply(
    space: Space,
    proven: Vec<Proven>,
    metrics: Arc<BridgeMetrics>,
) -> Vec<Heard> {
    let mut of_senders: Vec<(EndpointId, Vec<(usize, Proven)>)> = Vec::new();
    for (at, proven) in proven.into_iter().enumerate() {
        let sender = proven.announcement.sender;
        match of_senders.iter_mut().find(|(known, _)| *known == sender) {
            Some((_, of_sender)) => of_sender.push((at, proven)),
            None => of_senders.push((sender, vec![(at, proven)])),
        }
    }
    let applying = of_senders
        .into_iter()
        .map(|(sender, of_sender)| apply_of_sender(&space, sender, of_sender, &metrics));
    let mut heard: Vec<(usize, Heard)> = join_all(applying).await.into_iter().flatten().collect();
    heard.sort_by_key(|(at, _)| *at);
    heard.into_iter().map(|(_, heard)| heard).collect()
}

async fn apply_of_sender(
    space: &Space,
    sender: EndpointId,
    of_sender: Vec<(usize, Proven)>,
    metrics: &BridgeMetrics,
) -> Vec<(usize, Heard)> {
    let mut passed = Vec::with_capacity(of_sender.len());
    for (at, proven) in of_sender {
        match said_by_heads(space, &proven.announcement.changed).await {
            Ok(said) => passed.push((at, proven, said)),
            Err(ignored) => ignore(&ignored, sender, metrics),
        }
    }
    let mut runs: Vec<Vec<Run>> = Vec::with_capacity(passed.len());
    for (_, proven, _) in &mut passed {
        runs.push(std::mem::take(&mut proven.runs));
    }
    let of_runs = apply_runs(space, sender, runs, metrics).await;
    let mut heard = Vec::with_capacity(passed.len());
    for ((at, mut proven, mut of_all), of_runs) in passed.into_iter().zip(of_runs) {
        match of_runs {
            Ok(of_runs) => of_all.extend(of_runs),
            Err(ignored) => {
                ignore(&ignored, sender, metrics);
                continue;
            }
        }
        let (forks, cut_otherwise) = said_of_forks(space, &proven.announcement.forked).await;
        let contradicts = cut_otherwise || of_all.contains(&Said::Contradicts);
        let mut claims: Vec<Claim> = of_all.into_iter().filter_map(Said::claim).collect();
        claims.append(&mut proven.claims);
        metrics.announcements_accepted.inc();
        let said = &proven.announcement;
        heard.push((
            at,
            Heard {
                sender,
                neighbor: proven.neighbor,
                digest: said.digest,
                periodic: said.is_periodic(),
                claims,
                forks,
                contradicts,
            },
        ));
    }
    heard
}

impl Said {
    fn claim(self) -> Option<Claim> {
        match self {
            Self::Claims(claim) => Some(claim),
            Self::Contradicts => None,
        }
    }
}

fn ignore(ignored: &Ignored, sender: EndpointId, metrics: &BridgeMetrics) {
    metrics.count(ignored);
    debug!(sender = %sender.fmt_short(), %ignored, "ignored an announcement");
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

/// Applies the runs of several announcements of one sender; one answer for each announcement.
async fn apply_runs(
    space: &Space,
    sender: EndpointId,
    of_announcements: Vec<Vec<Run>>,
    metrics: &BridgeMetrics,
) -> Vec<RunsSaid> {
    let together: Vec<Run> = of_announcements.iter().flatten().cloned().collect();
    if together.is_empty() {
        return of_announcements.iter().map(|_| Ok(Vec::new())).collect();
    }
    match apply_at_once(space, sender, together, metrics).await {
        Ok(mut claims) => of_announcements
            .iter()
            .map(|runs| {
                let later = claims.split_off(runs.len().min(claims.len()));
                Ok(std::mem::replace(&mut claims, later)
                    .into_iter()
                    .flatten()
                    .collect())
            })
            .collect(),
        // One bad run refuses all of the call: find out whose it was.
        Err(_) if of_announcements.len() > 1 => {
            let mut answers = Vec::with_capacity(of_announcements.len());
            for runs in of_announcements {
                let answer = apply_at_once(space, sender, runs, metrics).await;
                answers.push(answer.map(|claims| claims.into_iter().flatten().collect()));
            }
            answers
        }
        Err(ignored) => vec![Err(ignored)],
    }
}

/// Applies runs in one call; one answer for each, if it says anything.
async fn apply_at_once(
    space: &Space,
    sender: EndpointId,
    runs: Vec<Run>,
    metrics: &BridgeMetrics,
) -> Result<Vec<Option<Said>>, Ignored> {
    if runs.is_empty() {
        return Ok(Vec::new());
    }
    let named: Vec<_> = runs
        .iter()
        .map(|run| (run.author(), run.last_seq()))
        .collect();
    let outcomes = match space.apply(runs, sender).await {
        Ok(outcomes) => outcomes.into_iter().map(Some).collect(),
        Err(ApplyRunsError::Invalid(_)) => return Err(Ignored::InvalidRun),
        Err(error) => {
            warn!(%error, "cannot store what was announced");
            vec![None; named.len()]
        }
    };
    let over_quota = space.over_quota();
    let mut answers = Vec::with_capacity(named.len());
    for ((author, seq), outcome) in named.into_iter().zip(outcomes) {
        let told = |why: &dyn Display| {
            let (sender, author) = (sender.fmt_short(), author.fmt_short());
            debug!(%sender, %author, seq, %why, "an inline run was not stored");
        };
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
            Some(Err(AppendError::NotAccepted { .. } | AppendError::OverQuota { .. })) => {
                // Nor here: a pull would bring what is not stored either.
                metrics.runs_not_accepted.inc();
                answers.push(None);
                continue;
            }
            Some(Err(AppendError::Forked { .. })) => {
                // Whether the log is cut already or a branch is still missing: a pull brings what
                // each side lacks.
                metrics.runs_forked.inc();
                told(&"contradicts the log held");
                answers.push(Some(Said::Contradicts));
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
        let is_left_out = seq > held && over_quota.binary_search(&author).is_ok();
        answers.push((!is_left_out).then_some(Said::Claims(Claim { author, seq, held })));
    }
    Ok(answers)
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
