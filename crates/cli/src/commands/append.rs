//! `append`: one event, or a whole file of them in one transaction.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, BufReader},
    path::Path,
};

use headwater::{EventDraft, Headwater, now_ms};
use serde_json::json;

use super::{Context, wanted_space};
use crate::{
    args::AppendArgs,
    error::CliError,
    folder::DataFolder,
    input::{self, LineDefaults},
    node,
    output::count,
};

pub(super) async fn run(context: &Context, args: AppendArgs) -> Result<(), CliError> {
    let folder = context.folder()?;
    let space = wanted_space(&folder, &args.space)?.id;
    match (&args.json_lines, args.text) {
        (Some(path), _) => {
            // Read to the end before the store is opened: a slow pipe locks nobody out.
            let drafts = read_all(path, &args.author)?;
            let node = node::open_offline(&folder)?;
            let stored = import(&folder, &node, space, drafts).await;
            node.shutdown().await;
            let stored = stored?;
            let answer =
                json!({ "space": space, "events": stored.events, "authors": stored.authors });
            context.output.answer(&answer, || {
                format!(
                    "stored {} by {}",
                    count(stored.events, "event"),
                    count(stored.authors, "author")
                )
            })
        }
        (None, text) => {
            let channel = args.channel.map(String::into_bytes);
            let payload = text.unwrap_or_default().into_bytes();
            let draft = input::draft(payload, channel, args.kind, now_ms())?;
            let node = node::open_offline(&folder)?;
            let appended = append_one(&folder, &node, space, &args.author, draft).await;
            node.shutdown().await;
            let event = appended?;
            let answer = json!({
                "space": space, "author": event.author, "seq": event.seq, "id": event.id,
            });
            context.output.answer(&answer, || {
                format!("event {} of {}: {}", event.seq, args.author, event.id)
            })
        }
    }
}

async fn append_one(
    folder: &DataFolder,
    node: &Headwater,
    space: headwater::SpaceId,
    label: &str,
    draft: EventDraft,
) -> Result<headwater::EventRef, CliError> {
    require_held(node, space).await?;
    let secret = folder.author_key(label)?;
    Ok(node.space(space).append(&secret, draft).await?)
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
    space: headwater::SpaceId,
    drafts: Drafts,
) -> Result<Imported, CliError> {
    require_held(node, space).await?;
    let secrets = folder.author_keys(drafts.keys().map(String::as_str))?;
    let imported = Imported {
        events: drafts.values().map(|log| log.len() as u64).sum(),
        authors: drafts.len() as u64,
    };
    let logs = secrets.into_iter().zip(drafts.into_values()).collect();
    node.space(space).import(logs).await?;
    Ok(imported)
}

async fn require_held(node: &Headwater, space: headwater::SpaceId) -> Result<(), CliError> {
    match node.space(space).summary().await? {
        Some(_) => Ok(()),
        None => Err(CliError::NotHeld(space)),
    }
}
