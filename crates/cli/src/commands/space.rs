//! `space create`, `join`, `ticket` and `list`; who may do what is next door, in `members`.

use headwater::{EventDraft, Roles, SpaceId, Subject, node_key, now_ms, wire::Grant};
use iroh::EndpointAddr;
use serde_json::json;

use super::{
    Context, go_live, members,
    members::{run as ask, subject_of},
    name_of, wanted_space,
};
use crate::{
    args::SpaceCommand,
    control::{self, Access, Request, Teller},
    error::CliError,
    folder::{DataFolder, random_bytes},
    host::Host,
    ticket::SpaceTicket,
};

pub(super) async fn run(context: &Context, command: SpaceCommand) -> Result<(), CliError> {
    match command {
        SpaceCommand::Create {
            name,
            author,
            closed,
        } => create(context, name, author, closed).await,
        SpaceCommand::Join { ticket, name } => join(context, &ticket, name.as_deref()).await,
        SpaceCommand::Ticket { space } => {
            let folder = context.folder()?;
            let space = wanted_space(&folder, &space)?.id;
            context.ask(&folder, Request::Ticket { space }).await
        }
        SpaceCommand::List => list(context),
        SpaceCommand::Members { space } => ask(context, &space, Access::Members).await,
        SpaceCommand::Grant { space, key, roles } => {
            let (key, roles) = (subject_of(&key)?, roles.bits());
            ask(context, &space, Access::Grant { key, roles }).await
        }
        SpaceCommand::Revoke { space, key, roles } => {
            let (key, roles) = (subject_of(&key)?, roles.bits());
            ask(context, &space, Access::Revoke { key, roles }).await
        }
        SpaceCommand::Invite {
            space,
            roles,
            hours,
        } => {
            let access = Access::Invite {
                roles: roles.bits(),
                valid_secs: hours.saturating_mul(3600),
            };
            ask(context, &space, access).await
        }
        SpaceCommand::RotateSecret { space } => ask(context, &space, Access::RotateSecret).await,
    }
}

async fn create(
    context: &Context,
    name: String,
    author: String,
    closed: bool,
) -> Result<(), CliError> {
    let folder = context.folder()?;
    let (append, serve) = (
        context.hint(&format!("append {name} hello")),
        context.hint("serve"),
    );
    context
        .ask(
            &folder,
            Request::Create {
                name,
                author,
                closed,
            },
        )
        .await?;
    context
        .output
        .line(&format!("\nnext: {append}\nthen: {serve}"))
}

/// Whoever knows a space's id reads and writes it.
pub(crate) fn open_to_all() -> Grant {
    Grant::new(Subject::Anyone, Roles::READ | Roles::WRITE)
}

/// Creates a space.
pub(super) async fn carry_out(
    host: &Host,
    name: &str,
    author: &str,
    closed: bool,
    teller: &Teller,
) -> Result<(), CliError> {
    let folder = host.folder();
    let (owned_name, author) = (name.to_owned(), author.to_owned());
    let making = folder.blocking(move |folder| {
        folder.spaces()?.check_name(&owned_name)?;
        let node = folder.node_key()?.public();
        Ok((folder.author_key(&author)?, random_bytes()?, node))
    });
    let (owner, secret, node) = making.await?;
    let space = host.node().create_space(&owner).await?;
    // The gossip topic follows from it, so that the space can be live.
    let grant = if closed {
        // The others' nodes serve this one, and believe it.
        Grant::new(node_key(node), Roles::READ | Roles::PROVIDE)
    } else {
        open_to_all()
    };
    let drafts = vec![
        EventDraft::topic_secret(secret, now_ms()),
        EventDraft::grant(grant, now_ms()),
    ];
    space.append_batch(&owner, drafts).await?;
    let id = space.id();
    let owned_name = name.to_owned();
    let naming = folder.blocking(move |folder| {
        folder.change_spaces(|spaces| spaces.add(id, &owned_name).map(|_| ()))
    });
    naming.await?;
    let answer = json!({ "space": id, "name": name, "owner": owner.id() });
    let text = || format!("created {name}: {id}");
    teller.answer(&answer, text).await?;
    go_live(host, id, teller).await.map(|_is_live| ())
}

async fn join(context: &Context, ticket: &str, name: Option<&str>) -> Result<(), CliError> {
    let folder = context.folder()?;
    let ticket: SpaceTicket = ticket.parse().map_err(CliError::BadTicket)?;
    let name = folder
        .change_spaces(|spaces| spaces.join(&ticket, name).map(|space| space.name.clone()))?;
    let peers: Vec<_> = ticket
        .peers
        .iter()
        .map(|peer| peer.id.to_string())
        .collect();
    let answer = json!({ "space": ticket.space, "name": name, "peers": peers });
    context.output.answer(&answer, || {
        let sync = context.hint(&format!("sync {name}"));
        format!("joined {name}: {}\n\nnext: {sync}", ticket.space)
    })?;
    let space = ticket.space;
    let told = control::ask_if_running(context.output, &folder, Request::Joined { space }).await;
    if let Err(error) = told {
        context.output.warn(&format!(
            "the running node does not take it up before its next start: {}",
            crate::error::chain(&error)
        ));
    }
    Ok(())
}

/// Takes up a space that was joined.
pub(super) async fn carry_out_joined(
    host: &Host,
    space: SpaceId,
    teller: &Teller,
) -> Result<(), CliError> {
    let known = host.folder().blocking(DataFolder::spaces).await?;
    let peers = known.get(space).map(|known| known.peers.clone());
    let peers = peers.unwrap_or_default();
    if let Some(warning) = members::use_invitation(host, space, &peers).await? {
        teller.warn(warning).await?;
    }
    go_live(host, space, teller).await.map(|_is_live| ())
}

/// Tells a ticket for one space.
pub(super) async fn carry_out_ticket(
    host: &Host,
    space: SpaceId,
    teller: &Teller,
) -> Result<(), CliError> {
    let name = name_of(host.folder(), space).await?;
    let peer = host.addr().await;
    let peer = peer.filter(|_| host.is_serving() && host.served().contains(space));
    let Some(peer) = peer else {
        return Err(CliError::NotServed(name));
    };
    let ticket = ticket(host, space, &peer).await?.to_string();
    let answer = json!({ "space": space, "name": name, "ticket": ticket });
    teller.answer(&answer, || ticket.clone()).await
}

/// A ticket for one space at this address.
pub(super) async fn ticket(
    host: &Host,
    space: SpaceId,
    peer: &EndpointAddr,
) -> Result<SpaceTicket, CliError> {
    Ok(SpaceTicket {
        space,
        topic_secret: host.topic_secret(space).await?,
        peers: vec![peer.clone()],
        invitation: None,
    })
}

fn list(context: &Context) -> Result<(), CliError> {
    let spaces = context.folder()?.spaces()?;
    for space in spaces.iter() {
        let peers: Vec<_> = space.peers.iter().map(|peer| peer.id.to_string()).collect();
        let answer = json!({ "space": space.id, "name": space.name, "peers": peers });
        context
            .output
            .answer(&answer, || format!("{}  {}", space.id, space.name))?;
    }
    if spaces.iter().next().is_none() {
        context
            .output
            .line("no spaces yet: headwater space create NAME, or headwater space join TICKET")?;
    }
    Ok(())
}
