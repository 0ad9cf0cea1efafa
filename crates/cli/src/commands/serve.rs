//! `serve`: answer pulls until told to stop.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use headwater::{AuthorSecret, EventDraft, Headwater, SpaceId, now_ms};
use serde_json::json;
use tokio::{
    runtime::Handle,
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
};

use super::{Context, members::use_invitation, name_of, space::ticket, wanted_space};
use crate::{
    args::ServeArgs,
    control,
    error::{CliError, chain},
    folder::{DataFolder, KnownSpace},
    host::{self, Held, Host, Role, Served},
    input::{self, FIRST_KIND, InputError},
    output::{Output, count},
    stop,
};

/// Lines, and bytes of them, waiting to be appended; a faster writer of standard input waits.
const WAITING_LINES: usize = 1024;
const WAITING_BYTES: usize = 8 * 1024 * 1024;

pub(super) async fn run(context: &Context, args: ServeArgs) -> Result<(), CliError> {
    let folder = context.folder()?;
    let chosen = args
        .spaces
        .iter()
        .map(|text| wanted_space(&folder, text).map(|wanted| wanted.id))
        .collect::<Result<BTreeSet<_>, _>>()?;
    let feed = args
        .append_lines
        .as_deref()
        .map(|text| wanted_space(&folder, text).map(|wanted| wanted.id))
        .transpose()?;
    let net = context.net(args.bind);
    let served = if chosen.is_empty() {
        Served::all()
    } else {
        Served::only(chosen)
    };
    let role = Role::Serve {
        net,
        served,
        gossip: !args.no_gossip,
    };
    let host = control::become_host(&folder, &role).await?;
    let listening = control::listen(&host, context.output);
    let serving = async {
        announce(context, &host).await?;
        go_live(context, &host).await?;
        if let Some(space) = feed {
            let finding = folder.blocking(move |folder| folder.author_key(&args.author));
            let author = finding.await?;
            append_lines(context, host.node(), space, &author).await?;
            tracing::info!("standard input has ended; serving goes on");
        }
        std::future::pending().await
    };
    let ended = tokio::select! {
        ended = serving => ended,
        () = stop::requested(0) => Ok(()),
    };
    drop(listening);
    host.stop().await;
    ended
}

/// Prints the endpoint and a ticket for each space; always as JSON, for scripts rely on it.
/// A damaged space cannot be served: it is named, and does not keep the others from being served.
async fn announce(context: &Context, host: &Host) -> Result<(), CliError> {
    let Some(peer) = host.addr().await else {
        return Ok(());
    };
    let known = host.folder().blocking(DataFolder::spaces).await?;
    let mut tickets = BTreeMap::new();
    let mut names = Vec::new();
    let mut damaged = BTreeMap::new();
    for Held { id: space, summary } in host::held_spaces(host.node()).await? {
        if !host.served().contains(space) {
            continue;
        }
        let name = known
            .get(space)
            .map_or_else(|| space.fmt_short(), |known| known.name.clone());
        if let Err(damage) = summary {
            context.output.warn(&format!(
                "{name} is damaged and cannot be served: {damage}; see `headwater verify`"
            ));
            damaged.insert(space, damage.to_string());
            continue;
        }
        let ticket = ticket(host, space, &peer).await?;
        tickets.insert(space, ticket.to_string());
        names.push(name);
    }
    let addresses: Vec<_> = peer.addrs.iter().map(ToString::to_string).collect();
    let mut first = json!({
        "endpoint_id": peer.id.to_string(),
        "tickets": tickets,
        "addresses": addresses,
    });
    if !damaged.is_empty() {
        first["damaged"] = json!(damaged);
    }
    context.output.json_line(&first)?;
    if !context.output.is_json() {
        if names.is_empty() {
            eprintln!("nothing is here to be served yet; Ctrl-C ends");
        } else {
            let spaces = count(names.len() as u64, "space");
            eprintln!(
                "serving {spaces} ({}) to those whom their owners let in; Ctrl-C ends",
                names.join(", ")
            );
        }
        let is_joined = |space: &&KnownSpace| {
            let here = tickets.contains_key(&space.id) || damaged.contains_key(&space.id);
            !here && host.served().contains(space.id)
        };
        let joined: Vec<_> = known.iter().filter(is_joined).collect();
        if host.has_gossip() && !joined.is_empty() {
            let names: Vec<_> = joined.iter().map(|space| space.name.as_str()).collect();
            eprintln!("joined, to be fetched: {}", names.join(", "));
        }
    }
    Ok(())
}

/// Joins the topics of all spaces that are served: those held, and those only joined, which come
/// here that way.
async fn go_live(context: &Context, host: &Host) -> Result<(), CliError> {
    let mut spaces: BTreeSet<_> = host::space_ids(host.node())?.into_iter().collect();
    let known = host.folder().blocking(DataFolder::spaces).await?;
    spaces.extend(known.iter().map(|space| space.id));
    for space in spaces {
        let known = known.get(space).filter(|_| host.served().contains(space));
        let Some(invited) = known.filter(|known| known.invitation().is_some()) else {
            join_topic(context.output, host, space).await?;
            continue;
        };
        // Nobody waits for the peers that are to take the invite.
        let (output, host, peers) = (context.output, host.clone(), invited.peers.clone());
        n0_future::task::spawn(async move {
            let joining = async {
                match use_invitation(&host, space, &peers).await {
                    Ok(None) => {}
                    Ok(Some(warning)) => output.warn(&warning),
                    Err(error) => output.warn(&chain(&error)),
                }
                join_topic(output, &host, space).await
            };
            if let Err(error) = joining.await {
                output.warn(&chain(&error));
            }
        });
    }
    Ok(())
}

async fn join_topic(output: Output, host: &Host, space: SpaceId) -> Result<(), CliError> {
    if let Err(error) = host.go_live(space).await {
        output.warn(&format!(
            "{} is served without gossip: {error}",
            name_of(host.folder(), space).await?
        ));
    }
    Ok(())
}

/// Appends each line of standard input as it comes; lines that wait share a signature.
async fn append_lines(
    context: &Context,
    node: &Headwater,
    space: SpaceId,
    author: &AuthorSecret,
) -> Result<(), CliError> {
    if node.space(space).summary().await?.is_none() {
        return Err(CliError::NotHeld(space));
    }
    let (sender, mut lines) = mpsc::channel(WAITING_LINES);
    let (output, runtime) = (context.output, Handle::current());
    std::thread::spawn(move || read_lines(output, &runtime, &sender));
    let mut waiting = Vec::new();
    while lines.recv_many(&mut waiting, WAITING_LINES).await > 0 {
        let (texts, room): (Vec<_>, Vec<_>) = waiting.drain(..).unzip();
        let draft = |text| EventDraft::new(FIRST_KIND, now_ms(), text);
        let drafts = texts.into_iter().map(draft).collect();
        node.space(space).append_batch(author, drafts).await?;
        drop(room);
    }
    Ok(())
}

/// Hands on the lines of standard input. One that cannot be an event is named by its number and
/// left out.
fn read_lines(
    output: Output,
    runtime: &Handle,
    sender: &mpsc::Sender<(Vec<u8>, OwnedSemaphorePermit)>,
) {
    let room = Arc::new(Semaphore::new(WAITING_BYTES));
    let mut input = std::io::stdin().lock();
    for line in 1.. {
        let text = match input::next_raw_line(&mut input) {
            Ok(None) => return,
            Ok(Some(Ok(text))) => text,
            Ok(Some(Err(problem))) => {
                let refused = InputError::Line { line, problem };
                output.warn(&format!("{refused}; it was left out"));
                continue;
            }
            Err(source) => {
                let ended = InputError::Read { line, source };
                output.warn(&format!(
                    "{ended}; nothing more is appended, serving goes on"
                ));
                return;
            }
        };
        // A line is far shorter than all that may wait.
        let bytes = u32::try_from(text.len()).unwrap_or(u32::MAX);
        let taken = Arc::clone(&room).acquire_many_owned(bytes);
        let Ok(taken) = runtime.block_on(taken) else {
            return;
        };
        if sender.blocking_send((text, taken)).is_err() {
            return;
        }
    }
}
