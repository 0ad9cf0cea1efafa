//! `append`: one event, or a whole file of them in one transaction.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, BufReader},
    path::Path,
};

use headwater::{EventDraft, Headwater, SpaceId, now_ms};
use remoc::rch::mpsc;
use serde_json::json;

use super::{Context, wanted_space};
use crate::{
    args::AppendArgs,
    control::{Draft, Request, Teller, batches},
    error::CliError,
    folder::DataFolder,
    host::Host,
    input::{self, LineDefaults},
    output::count,
};

pub(super) async fn run(context: &Context, args: AppendArgs) -> Result<(), CliError> {
    let folder = context.folder()?;
    let space = wanted_space(&folder, &args.space)?.id;
    let request = if let Some(path) = &args.json_lines {
        // Read to the end before the folder is opened: a slow pipe locks nobody out.
        let drafts = read_all(path, &args.author)?;
        Request::Import {
            space,
            events: drafts.values().map(|log| log.len() as u64).sum(),
            drafts: feed(drafts),
        }
    } else {
        let channel = args.channel.map(String::into_bytes);
        let payload = args.text.unwrap_or_default().into_bytes();
        let draft = input::draft(payload, channel, args.kind, now_ms())?;
        Request::Append {
            space,
            draft: Draft::new(&args.author, draft),
        }
    };
    context.ask(&folder, request).await
}

/// Hands drafts over as fast as they are taken.
fn feed(drafts: Drafts) -> mpsc::Receiver<Vec<Draft>> {
    let (sender, receiver) = mpsc::channel();
    n0_future::task::spawn(async move {
        let drafts = drafts
            .into_iter()
            .flat_map(|(author, log)| log.into_iter().map(move |draft| Draft::new(&author, draft)));
        for batch in batches(drafts) {
            if sender.send(batch).await.is_err() {
                // The host has gone, and the answer will say so.
                return;
            }
        }
    });
    receiver
}

/// Stores one event.
pub(super) async fn carry_out(
    host: &Host,
    space: SpaceId,
    draft: Draft,
    teller: &Teller,
) -> Result<(), CliError> {
    require_held(host.node(), space).await?;
    let (label, draft) = draft.check()?;
    let author = label.clone();
    let finding = host
        .folder()
        .blocking(move |folder| folder.author_key(&author));
    let secret = finding.await?;
    let event = host.node().space(space).append(&secret, draft).await?;
    let answer = json!({
        "space": space, "author": event.author, "seq": event.seq, "id": event.id,
    });
    let text = || format!("event {} of {label}: {}", event.seq, event.id);
    teller.answer(&answer, text).await
}

/// Stores everything that is fed, in one transaction.
pub(super) async fn carry_out_import(
    host: &Host,
    space: SpaceId,
    events: u64,
    mut fed: mpsc::Receiver<Vec<Draft>>,
    teller: &Teller,
) -> Result<(), CliError> {
    require_held(host.node(), space).await?;
    let mut drafts = Drafts::new();
    while let Ok(Some(batch)) = fed.recv().await {
        for draft in batch {
            let (label, draft) = draft.check()?;
            drafts.entry(label).or_default().push(draft);
        }
    }
    if drafts.values().map(|log| log.len() as u64).sum::<u64>() != events {
        return Err(CliError::CallerGone);
    }
    let stored = import(host.folder(), host.node(), space, drafts).await?;
    let answer = json!({ "space": space, "events": stored.events, "authors": stored.authors });
    let text = || {
        format!(
            "stored {} by {}",
            count(stored.events, "event"),
            count(stored.authors, "author")
        )
    };
    teller.answer(&answer, text).await
}

/// Events by the label of their author, each author's in the order of the input.
pub(crate) type Drafts = BTreeMap<String, Vec<EventDraft>>;

/// What an import stored.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Imported {
    pub(crate) events: u64,
    pub(crate) authors: u64,
}

/// Reads JSON lines to their end.
///
/// # Errors
///
/// The file cannot be read, or a line is refused.
pub(crate) fn read_all(path: &Path, author: &str) -> Result<Drafts, CliError> {
    let defaults = LineDefaults {
        author: author.to_owned(),
        timestamp_ms: now_ms(),
    };
    let mut drafts = Drafts::new();
    let each = |event: input::InputEvent| match drafts.get_mut(&event.author) {
        Some(log) => log.push(event.draft),
        None => {
            drafts.insert(event.author, vec![event.draft]);
        }
    };
    if path == Path::new("-") {
        input::read_lines(io::stdin().lock(), &defaults, each)?;
    } else {
        let file = File::open(path).map_err(|source| CliError::File {
            path: path.to_owned(),
            source,
        })?;
        input::read_lines(BufReader::with_capacity(1 << 18, file), &defaults, each)?;
    }
    Ok(drafts)
}

/// Stores all drafts in one transaction, each author's signed by the key of its label.
///
/// # Errors
///
/// No event was stored. Keys made for new labels stay.
pub(crate) async fn import(
    folder: &DataFolder,
    node: &Headwater,
    space: SpaceId,
    drafts: Drafts,
) -> Result<Imported, CliError> {
    require_held(node, space).await?;
    let labels: Vec<_> = drafts.keys().cloned().collect();
    let finding =
        folder.blocking(move |folder| folder.author_keys(labels.iter().map(String::as_str)));
    let secrets = finding.await?;
    let imported = Imported {
        events: drafts.values().map(|log| log.len() as u64).sum(),
        authors: drafts.len() as u64,
    };
    let logs = secrets.into_iter().zip(drafts.into_values()).collect();
    node.space(space).import(logs).await?;
    Ok(imported)
}

async fn require_held(node: &Headwater, space: SpaceId) -> Result<(), CliError> {
    match node.space(space).summary().await? {
        Some(_) => Ok(()),
        None => Err(CliError::NotHeld(space)),
    }
}
