//! `space create`, `join` and `list`.

use serde_json::json;

use super::Context;
use crate::{args::SpaceCommand, error::CliError, node, ticket::SpaceTicket};

pub(super) async fn run(context: &Context, command: SpaceCommand) -> Result<(), CliError> {
    match command {
        SpaceCommand::Create { name, author } => create(context, &name, &author).await,
        SpaceCommand::Join { ticket, name } => join(context, &ticket, name.as_deref()),
        SpaceCommand::List => list(context),
    }
}

async fn create(context: &Context, name: &str, author: &str) -> Result<(), CliError> {
    let folder = context.folder()?;
    folder.spaces()?.check_name(name)?;
    // The store is opened first: it keeps a second process from doing the same.
    let node = node::open_offline(&folder)?;
    let owner = folder.author_key(author)?;
    let created = node.create_space(&owner).await;
    node.shutdown().await;
    let id = created?.id();
    folder.change_spaces(|spaces| spaces.add(id, name).map(|_| ()))?;
    let answer = json!({ "space": id, "name": name, "owner": owner.id() });
    context.output.answer(&answer, || {
        let (append, serve) = (
            context.hint(&format!("append {name} hello")),
            context.hint("serve"),
        );
        format!("created {name}: {id}\n\nnext: {append}\nthen: {serve}")
    })
}

fn join(context: &Context, ticket: &str, name: Option<&str>) -> Result<(), CliError> {
    let folder = context.folder()?;
    let ticket: SpaceTicket = ticket.parse().map_err(CliError::BadTicket)?;
    let name = folder
        .change_spaces(|spaces| spaces.join(&ticket, name).map(|space| space.name.clone()))?;
    let peer = ticket.peer.id.to_string();
    let answer = json!({ "space": ticket.space, "name": name, "peer": peer });
    context.output.answer(&answer, || {
        let sync = context.hint(&format!("sync {name}"));
        format!("joined {name}: {}\n\nnext: {sync}", ticket.space)
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
