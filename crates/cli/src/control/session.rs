//! The caller's end of a call: who carries it out, and what is printed.

use std::{
    io::{self, Write},
    time::{Duration, Instant},
};

use remoc::rch::mpsc;

use super::{
    Call, Failure, Request, Said, carry_out, listen,
    socket::{Connection, Listening, connect},
};
use crate::{
    commands::Context,
    error::CliError,
    folder::DataFolder,
    host::{Host, Role},
    output::Output,
    progress::Bar,
    stop,
};

/// How long to wait for a command that has the folder open and does not listen: those are brief.
const FOLDER_WAIT: Duration = Duration::from_secs(10);
const FOLDER_LOOK: Duration = Duration::from_millis(20);

/// How long a command that is done waits for those of others before it says so.
const OTHERS_WAIT: Duration = Duration::from_secs(1);

/// Who carries a call out.
enum Reached {
    /// The node that is running on the folder.
    Running(Box<Connection>),
    /// This process: it has opened the folder.
    Here(Host),
}

/// Has a request carried out, by the running node or, if there is none, by this process in this
/// role, and prints what comes of it. `interrupted` is the exit code after Ctrl-C.
///
/// # Errors
///
/// What the host failed with, or the folder cannot be used.
pub(crate) async fn ask(
    context: &Context,
    folder: &DataFolder,
    request: Request,
    role: Role,
    interrupted: u8,
) -> Result<(), CliError> {
    let (said, replies) = mpsc::channel();
    let printed = print(context.output, replies);
    let ended = |done| match done {
        Some(done) => done,
        None if interrupted == 0 => Ok(()),
        None => Err(CliError::Interrupted),
    };
    match reach(folder, &role).await? {
        Reached::Running(connection) => {
            let options = role.net_options();
            let call = Call {
                request,
                options,
                said,
            };
            let _connection = connection.call(call).await?;
            let done = tokio::select! {
                done = printed => Some(done),
                () = stop::requested(interrupted) => None,
            };
            ended(done)
        }
        Reached::Here(host) => {
            let listening = role
                .is_shared()
                .then(|| listen(&host, context.output))
                .flatten();
            // Its own start has followed every option.
            let options = Vec::new();
            let call = Call {
                request,
                options,
                said,
            };
            let done = tokio::select! {
                (done, ()) = async { tokio::join!(printed, carry_out(&host, call)) } => Some(done),
                () = stop::requested(interrupted) => None,
            };
            match listening {
                Some(listening) if done.is_some() && !role.stays() => tokio::select! {
                    () = finish_others(listening, context.output) => {}
                    () = stop::requested(interrupted) => {}
                },
                listening => drop(listening),
            }
            host.stop().await;
            ended(done)
        }
    }
}

/// Takes no more calls of others, and waits for those that are under way.
async fn finish_others(listening: Listening, output: Output) {
    let mut ending = std::pin::pin!(listening.end());
    if tokio::time::timeout(OTHERS_WAIT, &mut ending)
        .await
        .is_err()
    {
        output.warn(
            "done; it ends with the last of the other commands that it carries out on this folder \
             (Ctrl-C ends them, too)",
        );
        ending.await;
    }
}

/// Has a request carried out by the node that is running on the folder, if one is.
///
/// # Errors
///
/// As [`ask`].
pub(crate) async fn ask_if_running(
    output: Output,
    folder: &DataFolder,
    request: Request,
) -> Result<(), CliError> {
    let Some(connection) = connect(folder.path()).await? else {
        return Ok(());
    };
    let (said, replies) = mpsc::channel();
    let options = Vec::new();
    let call = Call {
        request,
        options,
        said,
    };
    let _connection = connection.call(call).await?;
    print(output, replies).await
}

/// Opens the folder in this process, to stay.
///
/// # Errors
///
/// [`CliError::InUse`] if a node is running on it, or it cannot be opened.
pub(crate) async fn become_host(folder: &DataFolder, role: &Role) -> Result<Host, CliError> {
    match reach(folder, role).await? {
        Reached::Running(_) => Err(CliError::InUse(folder.path().to_owned())),
        Reached::Here(host) => Ok(host),
    }
}

/// Finds the running node, or opens the folder. A process that has it open and does not listen is
/// given some time: it will end, or begin to listen. So is one that ends before a command that stays
/// would.
async fn reach(folder: &DataFolder, role: &Role) -> Result<Reached, CliError> {
    let asked = Instant::now();
    loop {
        let opened = match connect(folder.path()).await? {
            Some(connection) if connection.stays() || !role.stays() => {
                return Ok(Reached::Running(Box::new(connection)));
            }
            Some(_brief) => Err(CliError::InUse(folder.path().to_owned())),
            None => Host::open(folder, role).await,
        };
        match opened {
            Ok(host) => return Ok(Reached::Here(host)),
            Err(CliError::InUse(_)) if asked.elapsed() < FOLDER_WAIT => {
                tokio::time::sleep(FOLDER_LOOK).await;
            }
            Err(error) => return Err(error),
        }
    }
}

/// Prints what is said until the end.
async fn print(output: Output, mut replies: mpsc::Receiver<Said>) -> Result<(), CliError> {
    let mut bar = None::<Bar>;
    let mut lines = io::BufWriter::new(io::stdout());
    loop {
        match replies.recv().await {
            Ok(Some(Said::Answer { json, text })) => {
                hide(&mut bar);
                output.raw(if output.is_json() { &json } else { &text })?;
            }
            Ok(Some(Said::Note(text))) => output.line(&text)?,
            Ok(Some(Said::Aside(text))) => output.aside(&text),
            Ok(Some(Said::Lines(bytes))) => lines.write_all(&bytes).map_err(CliError::Output)?,
            Ok(Some(Said::Progress(progress))) => {
                if output.is_json() {
                    if let Some(json) = progress.json {
                        output.raw(&json)?;
                    }
                } else {
                    bar.get_or_insert_with(|| Bar::new(output, progress.what.clone()))
                        .set_progress(&progress);
                }
            }
            Ok(Some(Said::Warning(text))) => output.warn(&text),
            Ok(Some(Said::End(end))) => {
                hide(&mut bar);
                lines.flush().map_err(CliError::Output)?;
                return end.map_err(|failure: Failure| CliError::Failed(failure));
            }
            Ok(None) | Err(_) => {
                hide(&mut bar);
                return Err(CliError::NodeStopped);
            }
        }
    }
}

fn hide(bar: &mut Option<Bar>) {
    if let Some(bar) = bar.take() {
        bar.finish();
    }
}
