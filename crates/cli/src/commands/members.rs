//! `space members`, `grant`, `revoke`, `invite` and `rotate-secret`: who may do what in a space.

use std::time::Duration;

use headwater::{
    AuthorSecret, Invitation, MemberKey, RedeemError, Roles, RosterState, Space, SpaceId, Subject,
    now_ms,
};
use iroh::EndpointAddr;
use serde_json::json;

use super::{Context, go_live, name_of, space::ticket, wanted_space};
use crate::{
    args::DEFAULT_AUTHOR,
    control::{Access, Request, Teller},
    error::CliError,
    folder::{DataFolder, random_bytes},
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

/// Has an invite that came in a ticket turned into a grant, by the first of the peers that does.
/// Answers what is to be told if one of them refused it and nothing of the space is here. Where
/// there is none, or none of the peers can be asked, what comes next shows whether it is needed.
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
    let invitation = match Invitation::from_bytes(bytes.into()) {
        Ok(invitation) => invitation,
        Err(error) => {
            tracing::warn!(%error, "an invitation cannot be read");
            return Ok(None);
        }
    };
    let key_of_author = folder.blocking(|folder| folder.author_key(DEFAULT_AUTHOR));
    let author = key_of_author.await?;
    let mut refused = false;
    for peer in peers {
        let asked = host.node().redeem(peer.clone(), &invitation, Some(&author));
        match asked.await {
            Ok(()) => {
                tracing::info!(peer = %peer.id.fmt_short(), "invited");
                let forgetting = folder.blocking(move |folder| {
                    folder.change_spaces(|spaces| {
                        spaces.used_invitation(space);
                        Ok(())
                    })
                });
                return forgetting.await.map(|()| None);
            }
            Err(RedeemError::Refused) => refused = true,
            Err(error) => tracing::info!(%error, "trying the next peer, if there is one"),
        }
    }
    // Whoever holds the space was let in another way.
    if !refused || host.node().space(space).summary().await?.is_some() {
        return Ok(None);
    }
    let why = if now_ms() > invitation.invite().expires_ms {
        "it has expired"
    } else {
        "it was used or cancelled, the owner revoked this node or author by name, or the node that \
         was asked does not hold the owner's key"
    };
    Ok(Some(format!(
        "the invite to {} was refused: {why}; ask the owner for a new one",
        known.name
    )))
}
