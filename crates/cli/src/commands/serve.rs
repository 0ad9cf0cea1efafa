//! `serve`: answer pulls until told to stop.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::BufRead,
};

use headwater::{AccessPolicy, AuthorSecret, EventDraft, Headwater, SpaceId, now_ms};
use iroh::EndpointId;
use n0_future::boxed::BoxFuture;
use serde_json::json;
use tokio::sync::mpsc;

use super::{Context, wanted_space};
use crate::{
    args::ServeArgs, error::CliError, folder::DataFolder, input, node::Server, output::count, stop,
    ticket::SpaceTicket,
};

/// Lines waiting to be appended; a faster writer of standard input waits.
const WAITING_LINES: usize = 1024;

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
            append_lines(&server.node, space, &author).await?;
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
    for summary in server.node.spaces().await? {
        let space = summary.space;
        if !chosen.is_empty() && !chosen.contains(&space) {
            continue;
        }
        let peer = peer.clone();
        tickets.insert(space, SpaceTicket { space, peer }.to_string());
        names.push(
            known
                .get(space)
                .map_or_else(|| space.fmt_short(), |known| known.name.clone()),
        );
    }
    let addresses: Vec<_> = peer.addrs.iter().map(ToString::to_string).collect();
    context.output.json_line(&json!({
        "endpoint_id": peer.id.to_string(),
        "tickets": tickets,
        "addresses": addresses,
    }))?;
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
    node: &Headwater,
    space: SpaceId,
    author: &AuthorSecret,
) -> Result<(), CliError> {
    if node.space(space).summary().await?.is_none() {
        return Err(CliError::NotHeld(space));
    }
    let (sender, mut lines) = mpsc::channel(WAITING_LINES);
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            if sender.blocking_send(line).is_err() {
                return;
            }
        }
    });
    let mut waiting = Vec::new();
    while lines.recv_many(&mut waiting, WAITING_LINES).await > 0 {
        let drafts = waiting
            .drain(..)
            .map(|line| input::draft(line.into_bytes(), None, None, now_ms()))
            .collect::<Result<Vec<EventDraft>, _>>()?;
        node.space(space).append_batch(author, drafts).await?;
    }
    Ok(())
}

/// Serves the chosen spaces alone.
#[derive(Debug)]
struct Only(BTreeSet<SpaceId>);

impl AccessPolicy for Only {
    fn may_read(&self, _remote: EndpointId, space: SpaceId) -> BoxFuture<bool> {
        Box::pin(std::future::ready(self.0.contains(&space)))
    }
}
