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

use super::{Context, wanted_space};
use crate::{
    args::ServeArgs,
    error::CliError,
    folder::DataFolder,
    input::{self, FIRST_KIND, InputError},
    node::{self, Held, Only, Server},
    output::{Output, count},
    stop,
    ticket::SpaceTicket,
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
    let server = if chosen.is_empty() {
        Server::start_open(&folder, net).await?
    } else {
        Server::start(&folder, net, Only(chosen.clone())).await?
    };
    let served = async {
        announce(context, &folder, &server, &chosen).await?;
        if let Some(space) = feed {
            let author = folder.author_key(&args.author)?;
            append_lines(context, &server.node, space, &author).await?;
            tracing::info!("standard input has ended; serving goes on");
        }
        std::future::pending().await
    };
    let ended = tokio::select! {
        ended = served => ended,
        () = stop::requested(0) => Ok(()),
    };
    server.stop().await;
    ended
}

/// Prints the endpoint and a ticket for each space; always as JSON, for scripts rely on it.
/// A damaged space cannot be served: it is named, and does not keep the others from being served.
async fn announce(
    context: &Context,
    folder: &DataFolder,
    server: &Server,
    chosen: &BTreeSet<SpaceId>,
) -> Result<(), CliError> {
    let peer = server.addr().await;
    let known = folder.spaces()?;
    let mut tickets = BTreeMap::new();
    let mut names = Vec::new();
    let mut damaged = BTreeMap::new();
    for Held { id: space, summary } in node::held_spaces(&server.node).await? {
        if !chosen.is_empty() && !chosen.contains(&space) {
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
        let peer = peer.clone();
        tickets.insert(space, SpaceTicket { space, peer }.to_string());
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
        let spaces = count(names.len() as u64, "space");
        eprintln!(
            "serving {spaces} ({}) to whoever knows a space's id; Ctrl-C ends",
            names.join(", ")
        );
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
