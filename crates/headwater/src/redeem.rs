//! Invites: asking for what one says, and granting it.
//!
//! ```text
//! Redeem ──▶ whose space, signatures, time, unused ──▶ grants in the owner's log ──▶ Redeemed
//!                          └─▶ no: the same reset as for a space that is not held
//! ```

use std::{
    collections::{BTreeSet, HashMap},
    fmt,
    sync::{Arc, LazyLock, Mutex, PoisonError},
    time::Duration,
};

use headwater_proto::SessionError;
use headwater_wire::{
    AuthorId, AuthorSecret, Blame, CloseCode, EventDraft, Grant, Invitation, MemberKey, Message,
    Redeem, Redeemed, Roles, RosterState,
};
use iroh::{
    EndpointAddr, EndpointId,
    endpoint::{ReadError, WriteError},
};
use n0_future::time::timeout;
use tracing::{debug, warn};

use crate::{
    conduct,
    frames::{Filled, FrameReader, FrameWriter},
    node::{Headwater, Inner, now_ms},
    policy::node_key,
    space::Space,
    sync::SyncError,
};

/// In whose name a node takes invites.
#[derive(Default)]
pub(crate) struct Owners {
    secrets: Mutex<HashMap<AuthorId, AuthorSecret>>,
    /// One invite at a time is looked up and used up, so that none is used twice.
    redeeming: tokio::sync::Mutex<()>,
}

impl Owners {
    fn add(&self, secret: &AuthorSecret) {
        let secrets = self.secrets.lock();
        let mut secrets = secrets.unwrap_or_else(PoisonError::into_inner);
        secrets.insert(secret.id(), secret.clone());
    }

    fn get(&self, owner: AuthorId) -> Option<AuthorSecret> {
        let secrets = self.secrets.lock();
        let secrets = secrets.unwrap_or_else(PoisonError::into_inner);
        secrets.get(&owner).cloned()
    }
}

impl fmt::Debug for Owners {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Owners")
    }
}

/// An invite was not taken.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum RedeemError {
    /// The invite lets an author write: say which one.
    #[error("the invite is for a writer, and no author was named")]
    AuthorNeeded,
    /// The peer does not take it: the invite is used or too old, the peer does not act for the
    /// owner, or does not hold the space. It does not say which.
    #[error("the invite was refused")]
    Refused,
    /// The peer could not be asked, did not answer, or is busy. The invite may be used up: ask again
    /// with the same node and author, which is answered as before.
    #[error(transparent)]
    Peer(#[from] SyncError),
}

impl RedeemError {
    /// Whose fault it was.
    #[must_use]
    pub fn blame(&self) -> Blame {
        match self {
            Self::AuthorNeeded => Blame::Local,
            Self::Refused => Blame::Peer,
            Self::Peer(error) => error.blame(),
        }
    }
}

impl Headwater {
    /// Makes this node act for an owner until it is shut down: it turns the [invites](Space::invite)
    /// of that owner's spaces into grants. The key is kept in memory alone.
    pub fn act_for(&self, owner: &AuthorSecret) {
        self.inner().owners.add(owner);
    }

    /// Asks a node that [acts for the owner](Self::act_for) for what an invite says: reading and
    /// providing for this node, writing for `author`, whose key proves that it is its holder who
    /// asks. Once it returns, sync the space.
    ///
    /// An invite serves once. Asking again for the same node and author, after the answer was lost,
    /// is answered alike.
    ///
    /// # Errors
    ///
    /// See [`RedeemError`].
    pub async fn redeem(
        &self,
        peer: impl Into<EndpointAddr>,
        invitation: &Invitation,
        author: Option<&AuthorSecret>,
    ) -> Result<(), RedeemError> {
        let inner = self.inner();
        let invite = invitation.invite();
        let writes = invite.roles.contains(Roles::WRITE);
        if writes && author.is_none() {
            return Err(RedeemError::AuthorNeeded);
        }
        let node = node_key(self.endpoint().ok_or(SyncError::Offline)?.id());
        let author = author.filter(|_| writes);
        let author = author.map(|author| invite.prove_author(author, &node));
        let named = author.as_ref().map(|proof| &proof.author);
        let request = Redeem {
            request_id: inner.next_request_id(),
            invite: *invite,
            author,
            proof: invitation.prove(&node, named),
        };
        let after = inner.limits.session.stall;
        let asked = tokio::select! {
            asked = timeout(after, ask(inner, peer.into(), request)) => asked,
            () = inner.closing() => return Err(SyncError::ShuttingDown.into()),
        };
        // A peer that does not answer in time is as good as one that cannot be dialled.
        asked.unwrap_or(Err(SyncError::DialTimeout { after }.into()))
    }
}

async fn ask(inner: &Arc<Inner>, peer: EndpointAddr, request: Redeem) -> Result<(), RedeemError> {
    // Anew: one that stands may be gone, and an invite is not asked for twice on a guess.
    let (in_use, _reused) = inner.connect(peer, false).await?;
    let opened = in_use.link.connection.open_bi().await;
    let (send, recv) = opened.map_err(SyncError::from)?;
    let mut writer = FrameWriter::new(send, Arc::clone(&inner.metrics), &inner.limits);
    let mut reader = FrameReader::new(recv, Arc::clone(&inner.metrics));
    let request_id = request.request_id;
    writer
        .push(&request.into())
        .map_err(|error| RedeemError::Peer(error.into()))?;
    while writer.queued() > 0 {
        match writer.send_some().await {
            Ok(()) => {}
            Err(WriteError::ConnectionLost(lost)) => return Err(SyncError::from(lost).into()),
            // The reset of the other direction says why.
            Err(_stopped) => break,
        }
    }
    writer.finish();
    loop {
        // What answers nothing is passed over: `redeem` waits only so long.
        while let Some(message) = reader.next_message().map_err(failed)? {
            match message {
                Message::Redeemed(redeemed) if redeemed.request_id == request_id => return Ok(()),
                Message::Busy(busy) if busy.request_id == request_id => {
                    let retry_after = Duration::from_millis(busy.retry_after_ms);
                    return Err(failed(SessionError::Busy { retry_after }));
                }
                _ => {}
            }
        }
        match reader.fill().await {
            Ok(Filled::Bytes) => {}
            Err(ReadError::Reset(code)) => {
                let code = code.into_inner();
                return Err(match CloseCode::from_code(code) {
                    Some(CloseCode::Refused) => RedeemError::Refused,
                    Some(code) => failed(SessionError::Reset(code)),
                    None => failed(SessionError::ResetUnknown { code }),
                });
            }
            Err(ReadError::ConnectionLost(lost)) => return Err(SyncError::from(lost).into()),
            Ok(Filled::End | Filled::Cut) | Err(_) => {
                let phase = "awaiting an invite's answer";
                return Err(failed(SessionError::StreamEnded { phase }));
            }
        }
    }
}

fn failed(error: impl Into<SessionError>) -> RedeemError {
    SyncError::from(error.into()).into()
}

/// A key of nobody's, that the signatures of an unknown space's invites are checked against: as good
/// a key as an owner's, so that it takes as long.
static NOBODY: LazyLock<AuthorId> =
    LazyLock::new(|| AuthorSecret::from_bytes(*b"nobody signs an invite with this").id());

/// Grants what an invite says, if it is what it claims to be. A refusal costs the peer as much as
/// that of a space.
pub(crate) async fn answer(
    inner: &Arc<Inner>,
    peer: EndpointId,
    asked: &Redeem,
) -> Option<Redeemed> {
    let redeemed = decide(inner, peer, asked).await;
    if redeemed.is_none() {
        inner.metrics.serves_refused.inc();
        inner.conduct.charge(peer, conduct::REFUSAL.into());
    }
    redeemed
}

/// All refusals before an invite is known for one of the owner's take the same: a look-up and two
/// signatures, and a third one where an author is named.
async fn decide(inner: &Arc<Inner>, peer: EndpointId, asked: &Redeem) -> Option<Redeemed> {
    let invite = &asked.invite;
    let node = Headwater::from_inner(inner);
    let space = node.space(invite.space);
    let held = space.summary().await.ok().flatten();
    let owner = held.as_ref().map_or(*NOBODY, |held| held.owner);
    let is_signed = invite.is_signed_by(&owner);
    let peer_key = node_key(peer);
    let is_proof = invite.is_proof(&asked.proof, &peer_key, asked.author());
    let by_author = asked.author.as_ref();
    let is_author = by_author.is_none_or(|proof| invite.is_author_proof(proof, &peer_key));
    let secret = inner.owners.get(owner);
    if held.is_none() || !is_signed || !is_proof || !is_author {
        debug!("an invite that proves nothing");
        return None;
    }
    if let Some(secret) = secret {
        redeem(&space, &secret, peer, asked).await
    } else {
        debug!("an invite of an owner this node does not act for");
        None
    }
}

async fn redeem(
    space: &Space,
    owner: &AuthorSecret,
    peer: EndpointId,
    asked: &Redeem,
) -> Option<Redeemed> {
    let grants = grants_of(asked, peer)?;
    let redeemed = Redeemed {
        request_id: asked.request_id,
    };
    let owners = &space.node().inner().owners;
    let _one_at_a_time = owners.redeeming.lock().await;
    let state = match space.members().await {
        Ok(state) => state?,
        Err(store_error) => {
            warn!(error = %store_error, "cannot read who has access");
            return None;
        }
    };
    // Nobody undoes with an invite what the owner did by name; an unused one goes the same way.
    let mut named = grants.iter().filter_map(Grant::key);
    if state.is_revoked(&asked.invite.key) || named.any(|key| state.is_revoked(&key)) {
        debug!("an invite that was revoked, or for somebody who was");
        return None;
    }
    if let Some(used_by) = state.redeemed(&asked.invite.key) {
        let again = is_granted(&state, used_by, &grants);
        debug!(again, "an invite that is used up");
        return again.then_some(redeemed);
    }
    if now_ms() > asked.invite.expires_ms {
        debug!("an invite that is too old");
        return None;
    }
    let drafts = grants.into_iter();
    let drafts = drafts.map(|grant| EventDraft::grant(grant, now_ms()));
    match space.append_batch(owner, drafts.collect()).await {
        Ok(_head) => Some(redeemed),
        Err(error) => {
            warn!(%error, "an invite cannot be granted");
            None
        }
    }
}

/// What an invite asks to be granted; `None` if it names no writer and lets one write, or names one
/// for nothing.
fn grants_of(asked: &Redeem, peer: EndpointId) -> Option<Vec<Grant>> {
    let roles = asked.invite.roles;
    let invite = Some(asked.invite.key);
    let of_node = roles.without(Roles::WRITE);
    let of_author = roles.and(Roles::WRITE);
    if asked.author.is_some() == of_author.is_empty() {
        return None;
    }
    let node = Some(node_key(peer)).filter(|_| !of_node.is_empty());
    let grant = |key: MemberKey, roles| Grant {
        subject: key.into(),
        roles,
        invite,
    };
    Some(match (node, asked.author().copied().map(MemberKey::from)) {
        (Some(node), Some(author)) if node == author => vec![grant(node, roles)],
        (node, author) => {
            let node = node.map(|node| grant(node, of_node));
            let author = author.map(|author| grant(author, of_author));
            node.into_iter().chain(author).collect()
        }
    })
}

/// Whether an invite was used up for these very grants, and they still hold.
fn is_granted(state: &RosterState, used_by: &BTreeSet<MemberKey>, grants: &[Grant]) -> bool {
    let named: BTreeSet<MemberKey> = grants.iter().filter_map(Grant::key).collect();
    let holds = |grant: &Grant| {
        let key = grant.key();
        key.is_some_and(|key| state.roles(&key).contains(grant.roles))
    };
    named == *used_by && grants.iter().all(holds)
}
