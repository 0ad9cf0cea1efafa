//! From proven announcements to what the announcer is told of them.
//!
//! ```text
//! heads above ours ─▶ signatures ─┐
//! inline runs ─▶ Space::apply ────┴─▶ claims (author, seq said, seq held) ─▶ announcer
//! ```
//!
//! Several announcements are taken at once, so that their runs share a commit.

use std::{fmt::Display, sync::Arc};

use headwater::{ApplyRunsError, Space, wire::AppendError};
use headwater_proto::announcer::Claim;
use headwater_wire::{AuthorHead, AuthorId, HeadsDigest, Run, SignedHead};
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
}

/// What became of the inline runs of one announcement.
type RunClaims = Result<Vec<Claim>, Ignored>;

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
        match claims_of_heads(space, &proven.announcement.changed).await {
            Ok(claims) => passed.push((at, proven, claims)),
            Err(ignored) => ignore(&ignored, sender, metrics),
        }
    }
    let mut runs: Vec<Vec<Run>> = Vec::with_capacity(passed.len());
    for (_, proven, _) in &mut passed {
        runs.push(std::mem::take(&mut proven.runs));
    }
    let of_runs = apply_runs(space, sender, runs, metrics).await;
    let mut heard = Vec::with_capacity(passed.len());
    for ((at, mut proven, mut claims), of_runs) in passed.into_iter().zip(of_runs) {
        match of_runs {
            Ok(of_runs) => claims.extend(of_runs),
            Err(ignored) => {
                ignore(&ignored, sender, metrics);
                continue;
            }
        }
        claims.append(&mut proven.claims);
        metrics.announcements_accepted.inc();
        let said = &proven.announcement;
        heard.push((
            at,
            Heard {
                sender,
                neighbor: proven.neighbor,
                digest: said.digest,
                periodic: said.changed.is_empty() && said.inline.is_empty(),
                claims,
            },
        ));
    }
    heard
}

fn ignore(ignored: &Ignored, sender: EndpointId, metrics: &BridgeMetrics) {
    metrics.count(ignored);
    debug!(sender = %sender.fmt_short(), %ignored, "ignored an announcement");
}

/// What announced heads claim, as far as it is proven: heads above ours by the author's signature,
/// ours by being the same. Heads below ours say nothing new and are left out unchecked.
async fn claims_of_heads(space: &Space, heads: &[SignedHead]) -> Result<Vec<Claim>, Ignored> {
    let held = join_all(heads.iter().map(|head| held(space, head.author))).await;
    let mut claims = Vec::with_capacity(heads.len());
    for (head, held) in heads.iter().zip(held) {
        let (author, seq) = (head.author, head.head.seq);
        let held_seq = held.map_or(0, |held| held.seq);
        if seq < held_seq || held == Some(head.head) {
            if seq == held_seq {
                claims.push(Claim {
                    author,
                    seq,
                    held: held_seq,
                });
            }
            continue;
        }
        if head.verify() != Ok(true) {
            return Err(Ignored::ForgedHead { author });
        }
        // At the same place and signed, but another: a fork, which no pull mends.
        if seq > held_seq {
            claims.push(Claim {
                author,
                seq,
                held: held_seq,
            });
        }
    }
    Ok(claims)
}

async fn held(space: &Space, author: AuthorId) -> Option<AuthorHead> {
    match space.head(author).await {
        Ok(record) => record.map(|record| record.entry.head),
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
) -> Vec<RunClaims> {
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

/// Applies runs in one call; one claim for each, if it claims anything.
async fn apply_at_once(
    space: &Space,
    sender: EndpointId,
    runs: Vec<Run>,
    metrics: &BridgeMetrics,
) -> Result<Vec<Option<Claim>>, Ignored> {
    if runs.is_empty() {
        return Ok(Vec::new());
    }
    let said: Vec<_> = runs
        .iter()
        .map(|run| (run.author(), run.last_seq()))
        .collect();
    let outcomes = match space.apply(runs, sender).await {
        Ok(outcomes) => outcomes.into_iter().map(Some).collect(),
        Err(ApplyRunsError::Invalid(_)) => return Err(Ignored::InvalidRun),
        Err(error) => {
            warn!(%error, "cannot store what was announced");
            vec![None; said.len()]
        }
    };
    let mut claims = Vec::with_capacity(said.len());
    for ((author, seq), outcome) in said.into_iter().zip(outcomes) {
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
            Some(Err(AppendError::Forked { .. })) => {
                // A pull would not help: the logs contradict each other.
                metrics.runs_forked.inc();
                told(&"contradicts the log held");
                claims.push(None);
                continue;
            }
            Some(Err(error)) => {
                metrics.runs_with_gap.inc();
                told(&error);
                0
            }
            None => held(space, author).await.map_or(0, |held| held.seq),
        };
        claims.push(Some(Claim { author, seq, held }));
    }
    Ok(claims)
}

#[cfg(test)]
mod tests {
    use headwater::{EventDraft, Headwater, generate_author};
    use headwater_wire::EventId;

    use super::*;

    #[tokio::test]
    async fn heads_claim_only_what_is_proven() {
        let author = generate_author();
        let space = Headwater::builder()
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
        let claims = async |head| {
            let claims = claims_of_heads(&space, &[head]).await?;
            Ok::<_, Ignored>(
                claims
                    .iter()
                    .map(|it| (it.seq, it.held))
                    .collect::<Vec<_>>(),
            )
        };
        let forged = Err(Ignored::ForgedHead {
            author: author.id(),
        });
        assert_eq!(claims(ours).await, Ok(vec![(2, 2)]));
        assert_eq!(claims(unsigned(2)).await, forged);
        assert_eq!(claims(unsigned(3)).await, forged);
        assert_eq!(claims(unsigned(1)).await, Ok(vec![]));
        assert_eq!(claims(signed(2, 1)).await, Ok(vec![]));
        assert_eq!(claims(signed(9, 1)).await, Ok(vec![(9, 2)]));
    }
}
