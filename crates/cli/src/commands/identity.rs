//! `init` and `id`: who this node is.

use serde_json::json;

use super::Context;
use crate::{args::DEFAULT_AUTHOR, error::CliError, folder::DataFolder};

/// Makes a data folder. What is there already is kept, so calling it twice is harmless.
pub(super) fn init(context: &Context) -> Result<(), CliError> {
    let path = DataFolder::locate(context.global.data.clone())?;
    let (folder, created) = DataFolder::init(path)?;
    let endpoint_id = folder.node_key()?.public();
    let author_was_there = folder
        .authors()?
        .ids()
        .any(|(label, _)| label == DEFAULT_AUTHOR);
    let author = folder.author_key(DEFAULT_AUTHOR)?.id();
    let closed = folder.make_files_private()?;
    if folder.is_open_to_others()? {
        context.output.warn(&format!(
            "others can look into {0}; the files in it are yours alone, `chmod 700 {0}` hides \
             their names, too",
            folder.path().display()
        ));
    }
    let answer = json!({
        "data": folder.path(),
        "created": created,
        "endpoint_id": endpoint_id.to_string(),
        "author": author,
        "author_created": !author_was_there,
        "made_private": closed,
    });
    context.output.answer(&answer, || {
        let path = folder.path().display();
        if created {
            format!(
                "made {path}\nendpoint {endpoint_id}\nauthor   {author} ({DEFAULT_AUTHOR})\n\n\
                 next: {}\nor:   {}",
                context.hint("space create NAME"),
                context.hint("space join TICKET"),
            )
        } else {
            let mut changes = Vec::new();
            if !author_was_there {
                changes.push(format!(
                    "made the key of author {author} ({DEFAULT_AUTHOR})"
                ));
            }
            if !closed.is_empty() {
                changes.push(format!("made {} readable by you alone", closed.join(", ")));
            }
            if changes.is_empty() {
                changes.push("nothing was changed".into());
            }
            let changes = changes.join("; ");
            format!("{path} was there already; {changes}\nendpoint {endpoint_id}")
        }
    })
}

/// Prints the keys' public halves.
pub(super) fn show(context: &Context) -> Result<(), CliError> {
    let folder = context.folder()?;
    let endpoint_id = folder.node_key()?.public();
    let keys = folder.authors()?;
    let authors: serde_json::Map<_, _> = keys
        .ids()
        .map(|(label, id)| (label.to_owned(), json!(id)))
        .collect();
    let answer = json!({ "endpoint_id": endpoint_id.to_string(), "authors": authors });
    context.output.answer(&answer, || {
        let mut text = format!("endpoint {endpoint_id}");
        for (label, id) in keys.ids() {
            text += &format!("\nauthor   {id} ({})", label.escape_debug());
        }
        text
    })
}
