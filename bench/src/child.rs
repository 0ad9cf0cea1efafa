//! Other processes of this program, spoken to in lines of JSON.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use serde::{Serialize, de::DeserializeOwned};

use crate::Error;

/// A process that was started here. It is killed if it is dropped before its end.
#[derive(Debug)]
pub struct Process {
    child: Child,
    to: Option<ChildStdin>,
    from: BufReader<ChildStdout>,
}

/// Starts this program with other arguments.
///
/// # Errors
///
/// If it cannot be started.
pub fn child(args: &[String]) -> Result<Process, Error> {
    started(Command::new(std::env::current_exe()?).args(args))
}

/// Starts this program with other arguments, on one core.
///
/// # Errors
///
/// If it cannot be started, as `taskset` is missing.
pub fn child_on(core: usize, args: &[String]) -> Result<Process, Error> {
    let mut command = Command::new("taskset");
    command.arg("-c").arg(core.to_string());
    started(command.arg(std::env::current_exe()?).args(args))
}

/// Keeps this process, and what it starts from now on, to one core.
///
/// # Errors
///
/// If `taskset` is missing or fails.
pub fn stay_on(core: usize) -> Result<(), Error> {
    let mut command = Command::new("taskset");
    command.args(["-a", "-p", "-c", &core.to_string()]);
    command.arg(std::process::id().to_string());
    let done = command.stdout(Stdio::null()).status()?;
    if done.success() {
        Ok(())
    } else {
        Err(format!("taskset: {done}").into())
    }
}

fn started(command: &mut Command) -> Result<Process, Error> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let from = BufReader::new(child.stdout.take().ok_or("no output")?);
    let to = child.stdin.take();
    Ok(Process { child, to, from })
}

impl Process {
    /// The next thing it says.
    ///
    /// # Errors
    ///
    /// If it ended or said something else.
    pub fn line<T: DeserializeOwned>(&mut self) -> Result<T, Error> {
        let mut line = String::new();
        self.from.read_line(&mut line)?;
        serde_json::from_str(&line).map_err(|error| format!("{line:?}: {error}").into())
    }

    /// Tells it something and waits for what it says.
    ///
    /// # Errors
    ///
    /// If it ended or said something else.
    pub fn ask<T: DeserializeOwned>(&mut self, what: &impl Serialize) -> Result<T, Error> {
        let mut line = serde_json::to_vec(what)?;
        line.push(b'\n');
        self.to.as_mut().ok_or("no input")?.write_all(&line)?;
        self.line()
    }

    /// Ends its input and waits until it has ended.
    ///
    /// # Errors
    ///
    /// If it failed.
    pub fn end(mut self) -> Result<(), Error> {
        self.to = None;
        let status = self.child.wait()?;
        if !status.success() {
            return Err(format!("a process ended with {status}").into());
        }
        Ok(())
    }

    /// Stops it where it stands, or lets it go on: `STOP` and `CONT`.
    ///
    /// # Errors
    ///
    /// If it cannot be told.
    pub fn signal(&self, signal: &str) -> Result<(), Error> {
        let pid = self.child.id().to_string();
        let done = Command::new("kill").args(["-s", signal, &pid]).status()?;
        if done.success() {
            Ok(())
        } else {
            Err(format!("kill: {done}").into())
        }
    }

    /// Kills it where it stands, with SIGKILL.
    ///
    /// # Errors
    ///
    /// If it cannot be waited for.
    pub fn kill(mut self) -> Result<(), Error> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already; and there is nobody to tell.
        if self.child.kill().is_ok() {
            let _ = self.child.wait();
        }
    }
}

/// Says one thing to whoever started this process.
///
/// # Errors
///
/// If nobody listens.
pub fn say(what: &impl Serialize) -> Result<(), Error> {
    let mut line = serde_json::to_vec(what)?;
    line.push(b'\n');
    let mut out = std::io::stdout().lock();
    out.write_all(&line)?;
    Ok(out.flush()?)
}

/// The next thing that is said to this process; `None` at the end of its input.
///
/// # Errors
///
/// If it is something else.
pub fn hear<T: DeserializeOwned>() -> Result<Option<T>, Error> {
    let mut line = String::new();
    if std::io::stdin().read_line(&mut line)? == 0 {
        return Ok(None);
    }
    Ok(Some(serde_json::from_str(&line)?))
}
