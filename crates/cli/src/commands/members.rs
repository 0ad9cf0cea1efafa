//! `space members`, `grant`, `revoke`, `invite` and `rotate-secret`: who may do what in a space.

use std::time::Duration;

use headwater::{
    AuthorSecret, Invitation, MemberKey, RedeemError, Roles, RosterState, Space, SpaceId, Subject,
    now_ms,
};
use iroh::EndpointAddr;
use serde_json::json;

use super::{
    Context,
    busy::{self, Patience},
    go_live, name_of,
    space::ticket,
    wanted_space,
};
use crate::{
    args::DEFAULT_AUTHOR,
    control::{Access, Request, Teller},
    error::{CliError, chain},
    folder::{DataFolder, KnownSpace, random_bytes},
    host::Host,
    ticket::SpaceTicket,
};

/// Asks for something about the members of a space.
pub(super) async fn run(context: &Context, space: &str, access: Access) -> Result<(), CliError> {
    let folder = context.folder()?;
    let space = wanted_space(&folder, space)?.id;
    context
        .ask(&folder, Request::Access { space, access })
        .await
}

/// Whom a KEY argument means: `anyone`, or 64 hex digits.
pub(super) fn subject_of(text: &str) -> Result<Option<[u8; 32]>, CliError> {
    if text == "anyone" {
        return Ok(None);
    }
    let key: MemberKey = text.parse().map_err(|_| CliError::BadKey(text.into()))?;
    Ok(Some(*key.as_bytes()))
}

/// Does it.
pub(super) async fn carry_out(
    host: &Host,
    space: SpaceId,
    access: Access,
    teller: &Teller,
) -> Result<(), CliError> {
    let name = name_of(host.folder(), space).await?;
    let handle = host.node().space(space);
    let members = handle.members().await?.ok_or(CliError::NotHeld(space))?;
    if matches!(access, Access::Members) {
        return tell(&name, space, &members, teller).await;
    }
    let owner = owner_key(host, &name, &members).await?;
    let (key, roles, done) = match access {
        Access::Members => return Ok(()),
        Access::Grant { key, roles } => (key, roles, "granted"),
        Access::Revoke { key, roles } => (key, roles, "revoked"),
        Access::Invite { roles, valid_secs } => {
            let valid_for = Duration::from_secs(valid_secs);
            return invite(host, &handle, &owner, roles_of(roles), valid_for, teller).await;
        }
        Access::RotateSecret => return rotate_secret(host, &handle, &owner, teller).await,
    };
    let subject = key.map_or(Subject::Anyone, |key| {
        Subject::Key(MemberKey::from_bytes(key))
    });
    let roles = roles_of(roles);
    let event = if done == "granted" {
        handle.grant(&owner, subject, roles).await?
    } else {
        handle.revoke(&owner, subject, roles).await?
    };
    let whom = whom(subject);
    let answer = json!({
        "space": space, "name": name, "key": whom, "roles": roles, "done": done, "seq": event.seq,
    });
    teller
        .answer(&answer, || format!("{name}: {done} {roles}: {whom}"))
        .await
}

fn roles_of(bits: u8) -> Roles {
    // What does not fit came from a caller of another version.
    Roles::from_bits(bits).unwrap_or(Roles::NONE)
}

fn whom(subject: Subject) -> String {
    match subject {
        Subject::Anyone => "anyone".into(),
        Subject::Key(key) => key.to_string(),
    }
}

async fn owner_key(
    host: &Host,
    name: &str,
    members: &RosterState,
) -> Result<AuthorSecret, CliError> {
    let owner = members.owner();
    let authors = host.folder().blocking(DataFolder::authors).await?;
    let found = authors.secrets().find(|secret| secret.id() == owner);
    found.cloned().ok_or_else(|| CliError::NotOwner {
        name: name.to_owned(),
        owner,
    })
}

async fn tell(
    name: &str,
    space: SpaceId,
    members: &RosterState,
    teller: &Teller,
) -> Result<(), CliError> {
    let anyone = members.anyone();
    let list: Vec<_> = members
        .members()
        .map(|(key, member)| {
            json!({
                "key": key, "roles": members.roles(key), "revoked": member.revoked,
                "last_accepted": member.last.map(|last| last.seq),
            })
        })
        .collect();
    let answer = json!({
        "space": space, "name": name, "owner": members.owner(), "anyone": anyone, "members": list,
    });
    teller
        .answer(&answer, || {
            let mut lines = vec![
                format!("{}  owner", members.owner()),
                format!("{:64}  {anyone}", "anyone"),
            ];
            for (key, member) in members.members() {
                let mut line = format!("{key}  {}", members.roles(key));
                if !member.revoked.is_empty() {
                    line.push_str(&format!(", no longer {}", member.revoked));
                }
                if let Some(last) = member.last {
                    line.push_str(&format!(", accepted up to event {}", last.seq));
                }
                lines.push(line);
            }
            lines.join("\n")
        })
        .await
}

async fn invite(
    host: &Host,
    space: &Space,
    owner: &AuthorSecret,
    roles: Roles,
    valid_for: Duration,
    teller: &Teller,
) -> Result<(), CliError> {
    let name = name_of(host.folder(), space.id()).await?;
    let peer = host.addr().await;
    let peer = peer.filter(|_| host.is_serving() && host.served().contains(space.id()));
    let peer = peer.ok_or_else(|| CliError::NotServed(name.clone()))?;
    let invitation = space.invite(owner, roles, valid_for).await?;
    let expires_ms = invitation.invite().expires_ms;
    let ticket = SpaceTicket {
        invitation: Some(invitation.to_bytes()),
        ..ticket(host, space.id(), &peer).await?
    };
    let ticket = ticket.to_string();
    let key = invitation.invite().key;
    let answer = json!({
        "space": space.id(), "name": name, "roles": roles, "expires_ms": expires_ms,
        "ticket": ticket, "key": key,
    });
    teller.answer(&answer, || ticket.clone()).await?;
    // Not on standard output, where the ticket stands alone for scripts.
    teller
        .aside(format!(
            "lets in whoever uses it first; its key is {key}: \
             `space revoke {name} {key} {roles}` cancels it while it is unused"
        ))
        .await
}

/// Gives the gossip topic a new secret. Nodes that read the owner's log move to the new topic.
async fn rotate_secret(
    host: &Host,
    space: &Space,
    owner: &AuthorSecret,
    teller: &Teller,
) -> Result<(), CliError> {
    let name = name_of(host.folder(), space.id()).await?;
    let event = space.set_topic_secret(owner, random_bytes()?).await?;
    let answer = json!({ "space": space.id(), "name": name, "seq": event.seq });
    let text = || {
        format!(
            "{name}: the gossip topic has a new secret; members move to it once they have synced, \
             and tickets from before lead to the old one"
        )
    };
    teller.answer(&answer, text).await?;
    go_live(host, space.id(), teller).await.map(|_is_live| ())
}

/// What came of asking for what an invite says.
enum Answer {
    Granted,
    /// By a node that gave the invite, which knows best, or by others.
    Refused {
        by_inviter: bool,
    },
    Busy {
        retry_after: Duration,
        error: CliError,
    },
    /// No peer could be asked.
    Unanswered,
}

/// Has an invite that came in a ticket turned into a grant, by the first of the peers that does.
/// Answers what is to be told if there was none; an invite that none will grant any more is
/// forgotten. Where no peer can be asked, what comes next shows whether it is needed.
///
/// # Errors
///
/// The folder cannot be read or written, or the peers are too busy and nothing of the space is here.
/// The invite is kept.
pub(super) async fn use_invitation(
    host: &Host,
    space: SpaceId,
    peers: &[EndpointAddr],
) -> Result<Option<String>, CliError> {
    let folder = host.folder();
    let spaces = folder.blocking(DataFolder::spaces).await?;
    let known = spaces.get(space);
    let Some((known, bytes)) = known.and_then(|known| Some((known, known.invitation()?))) else {
        return Ok(None);
    };
    let invitation = match Invitation::from_bytes(bytes.clone().into()) {
        Ok(invitation) => invitation,
        Err(error) => {
            tracing::warn!(%error, "an invitation cannot be read");
            return Ok(None);
        }
    };
    let mut patience = Patience::new();
    let answer = loop {
        let answer = ask_each(host, known, peers, &invitation).await?;
        match &answer {
            Answer::Busy { retry_after, .. } if patience.wait(*retry_after).await => {}
            _ => break answer,
        }
    };
    let invite = invitation.invite();
    let what = format!("the invite to {} ({})", known.name, invite.roles);
    let warning = match answer {
        Answer::Granted => None,
        Answer::Refused { by_inviter: true } => Some(format!(
            "{what} was refused and is forgotten: it was used or cancelled, it has expired, or the \
             owner revoked this node or author by name; ask the owner for a new one"
        )),
        // Asked for all the same: the clock here may be wrong.
        _ if now_ms() > invite.expires_ms => Some(format!(
            "{what} has expired and is forgotten; ask the owner for a new one"
        )),
        Answer::Refused { by_inviter: false } => {
            return Ok(Some(format!(
                "{what} was refused by a node that need not act for the owner; it is kept: try again \
                 while the node that gave it is running"
            )));
        }
        Answer::Busy { error, .. } => {
            if host.node().space(space).summary().await?.is_none() {
                return Err(error);
            }
            return Ok(Some(format!(
                "{what} is not granted yet, and is kept: {}",
                chain(&error)
            )));
        }
        Answer::Unanswered => return Ok(None),
    };
    let forgetting = folder.blocking(move |folder| {
        folder.change_spaces(|spaces| {
            spaces.forget_invitation(space, &bytes);
            Ok(())
        })
    });
    forgetting.await.map(|()| warning)
}

/// Asks one peer after the other, each once.
async fn ask_each(
    host: &Host,
    known: &KnownSpace,
    peers: &[EndpointAddr],
    invitation: &Invitation,
) -> Result<Answer, CliError> {
    let folder = host.folder();
    let key_of_author = folder.blocking(|folder| folder.author_key(DEFAULT_AUTHOR));
    let author = key_of_author.await?;
    let (mut refused, mut by_inviter) = (false, false);
    let mut busy = None::<(Duration, CliError)>;
    for peer in peers {
        let asked = host.node().redeem(peer.clone(), invitation, Some(&author));
        match asked.await {
            Ok(()) => {
                tracing::info!(peer = %peer.id.fmt_short(), "invited");
                return Ok(Answer::Granted);
            }
            Err(RedeemError::Refused) => {
                refused = true;
                by_inviter |= known.invited_by.contains(&peer.id);
            }
            Err(error) => {
                tracing::info!(%error, "trying the next peer, if there is one");
                if let RedeemError::Peer(source) = error
                    && let Some(after) = busy::retry_after(&source)
                    && busy.as_ref().is_none_or(|(soonest, _)| after < *soonest)
                {
                    busy = Some((after, CliError::sync(peer, source)));
                }
            }
        }
    }
    Ok(match busy {
        _ if by_inviter => Answer::Refused { by_inviter },
        Some((retry_after, error)) => Answer::Busy { retry_after, error },
        None if refused => Answer::Refused { by_inviter },
        None => Answer::Unanswered,
    })
}
