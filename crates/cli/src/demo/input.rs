//! What the demo syncs: a git history, a file, or generated events; always said which.

use std::{io, path::PathBuf, process::Command};

use headwater::now_ms;

use crate::{
    args::DemoArgs,
    commands::append::{Drafts, read_all},
    error::CliError,
    input,
    output::count,
};

/// The most commits read: a minute is the demo's limit.
const MAX_COMMITS: &str = "200000";
/// Generated events if there is nothing else to show.
const FALLBACK_EVENTS: u64 = 20_000;
const GENERATED_AUTHORS: u64 = 100;
const GENERATED_PAYLOAD_BYTES: usize = 200;

/// Events to sync, and what to say about them.
#[derive(Debug)]
pub(super) struct DemoInput {
    pub(super) drafts: Drafts,
    pub(super) told: Vec<String>,
}

/// Collects what the arguments ask for.
///
/// # Errors
///
/// The input file cannot be read, or a line of it is refused. A missing git history is no error.
pub(super) fn gather(args: &DemoArgs) -> Result<DemoInput, CliError> {
    let mut generated = args.events;
    let mut told = Vec::new();
    let mut drafts = match &args.input {
        Some(path) => {
            let drafts = read_all(path, "author")?;
            told.push(format!(
                "{}: {}",
                path.display(),
                sizes(&drafts, "event", "author")
            ));
            if drafts.is_empty() && generated == 0 {
                return Err(CliError::DemoInput {
                    path: path.clone(),
                    reason: "no line holds an event".into(),
                });
            }
            drafts
        }
        None => match git_history() {
            Ok((place, drafts)) => {
                let sizes = sizes(&drafts, "commit", "committer");
                told.push(format!("the git history of {}: {sizes}", place.display()));
                told.push(
                    "a commit is an event; each committer is an author with a key made here".into(),
                );
                drafts
            }
            Err(reason) => {
                if generated == 0 {
                    generated = FALLBACK_EVENTS;
                }
                told.push(format!("no git history here ({reason})"));
                Drafts::new()
            }
        },
    };
    if generated > 0 {
        let authors = generated.min(GENERATED_AUTHORS);
        told.push(format!(
            "{} of {GENERATED_PAYLOAD_BYTES} bytes by {}, generated",
            count(generated, "event"),
            count(authors, "author")
        ));
        generate(generated, &mut drafts)?;
    }
    Ok(DemoInput { drafts, told })
}

fn sizes(drafts: &Drafts, event: &str, author: &str) -> String {
    let events = drafts.values().map(|log| log.len() as u64).sum();
    format!(
        "{} by {}",
        count(events, event),
        count(drafts.len() as u64, author)
    )
}

/// Why there is no history: one line for people.
fn git(arguments: &[&str]) -> Result<Vec<u8>, String> {
    let output = Command::new("git")
        .args(arguments)
        .output()
        .map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => "git is not installed".to_owned(),
            _ => format!("git: {error}"),
        })?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let line = said.lines().next().unwrap_or("git failed").to_owned();
    Err(line.trim_start_matches("fatal: ").to_owned())
}

/// The commits of the repository we stand in, oldest first, by committer.
fn git_history() -> Result<(PathBuf, Drafts), String> {
    // Works in a bare repository, too, which has no top level.
    let folder = git(&["rev-parse", "--absolute-git-dir"])?;
    let folder = String::from_utf8_lossy(&folder);
    let folder = folder.trim_end();
    let place = PathBuf::from(folder.strip_suffix("/.git").unwrap_or(folder));
    let format = "--format=%ce%x1f%ct%x1f%H %s";
    let log = git(&["log", "-z", "--reverse", "--max-count", MAX_COMMITS, format])?;
    let drafts = parse_log(&log)?;
    if drafts.is_empty() {
        return Err("the repository has no commits".into());
    }
    Ok((place, drafts))
}

fn parse_log(log: &[u8]) -> Result<Drafts, String> {
    let mut drafts = Drafts::new();
    for commit in log
        .split(|byte| *byte == 0)
        .filter(|commit| !commit.is_empty())
    {
        let mut fields = commit.splitn(3, |byte| *byte == 0x1f);
        let mut next = || fields.next().ok_or("git log answered in another form");
        let (committer, seconds, text) = (next()?, next()?, next()?);
        let committer = match String::from_utf8_lossy(committer).into_owned() {
            empty if empty.is_empty() => "unknown".to_owned(),
            named => named.chars().take(200).collect(),
        };
        // A commit may state a time before 1970, or none that makes sense.
        let seconds: u64 = std::str::from_utf8(seconds)
            .ok()
            .and_then(|text| text.parse().ok())
            .unwrap_or(0);
        let draft = input::draft(
            text.to_vec(),
            None::<&[u8]>,
            None,
            seconds.saturating_mul(1000),
        )
        .map_err(|error| error.to_string())?;
        drafts.entry(committer).or_default().push(draft);
    }
    Ok(drafts)
}

fn generate(events: u64, drafts: &mut Drafts) -> Result<(), CliError> {
    let start = now_ms();
    for number in 0..events {
        let mut payload = format!("generated event {number} ").into_bytes();
        let mut state = number;
        while payload.len() < GENERATED_PAYLOAD_BYTES {
            // splitmix64: payloads that no shortcut could compress.
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut word = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            payload.extend(format!("{:016x}", word ^ (word >> 31)).bytes());
        }
        payload.truncate(GENERATED_PAYLOAD_BYTES);
        let draft = input::draft(payload, None::<&[u8]>, None, start.saturating_add(number))?;
        let author = format!("generated-{:02}", number % GENERATED_AUTHORS);
        drafts.entry(author).or_default().push(draft);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_git_log_becomes_one_event_a_commit_by_its_committer() {
        let log = b"a@x\x1f100\x1fh1 first\0b@x\x1f-5\x1fh2 \x1f odd\0a@x\x1f200\x1fh3 \xff\0";
        let drafts = parse_log(log).unwrap();
        assert_eq!(drafts.len(), 2);
        let a = &drafts["a@x"];
        assert_eq!(a[0].payload.as_ref(), b"h1 first");
        assert_eq!((a[0].timestamp_ms, a[1].timestamp_ms), (100_000, 200_000));
        assert_eq!(a[1].payload.as_ref(), b"h3 \xff");
        assert_eq!(drafts["b@x"][0].payload.as_ref(), b"h2 \x1f odd");
        assert_eq!(drafts["b@x"][0].timestamp_ms, 0);
        assert!(parse_log(b"what").is_err());
    }

    #[test]
    fn generated_events_have_the_size_they_say() {
        let mut drafts = Drafts::new();
        generate(250, &mut drafts).unwrap();
        assert_eq!(drafts.len(), 100);
        assert!(
            drafts
                .values()
                .flatten()
                .all(|draft| draft.payload.len() == 200)
        );
    }
}
