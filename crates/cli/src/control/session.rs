//! The caller's end of a call: who carries it out, and what is printed.

use std::{
    io::{self, Write},
    time::{Duration, Instant},
};

use remoc::rch::mpsc;

use super::{
    Call, Failure, Request, Said, carry_out, listen,
    socket::{Connection, connect},
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
    let call = Call { request, said };
    let printed = print(context.output, replies);
    let ended = |done| match done {
        Some(done) => done,
        None if interrupted == 0 => Ok(()),
        None => Err(CliError::Interrupted),
    };
    match reach(folder, &role).await? {
        Reached::Running(connection) => {
            if let Some(option) = role.dial_option() {
                context.output.warn(&format!(
                    "the running node carries this out with its own network; {option} is left out"
                ));
            }
            let _connection = connection.call(call).await?;
            let done = tokio::select! {
                done = printed => Some(done),
                () = stop::requested(interrupted) => None,
            };
            ended(done)
        }
        Reached::Here(host) => {
            // Whoever stays until Ctrl-C carries out others' calls, too.
            let listening = host.is_serving().then(|| listen(&host, context.output));
            let done = tokio::select! {
                (done, ()) = async { tokio::join!(printed, carry_out(&host, call)) } => Some(done),
                () = stop::requested(interrupted) => None,
            };
            drop(listening);
            host.stop().await;
            ended(done)
        }
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
    let _connection = connection.call(Call { request, said }).await?;
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
/// given some time: it will end, or begin to listen.
async fn reach(folder: &DataFolder, role: &Role) -> Result<Reached, CliError> {
    let asked = Instant::now();
    loop {
        if let Some(connection) = connect(folder.path()).await? {
            return Ok(Reached::Running(Box::new(connection)));
        }
        match Host::open(folder, role).await {
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
