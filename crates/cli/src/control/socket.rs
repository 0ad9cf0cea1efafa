//! The control socket: `DIR/control.sock`, bound by the process that has the store open.

use std::{
    fs::{self, File, Permissions},
    io,
    os::{
        fd::AsRawFd,
        unix::fs::{MetadataExt, PermissionsExt},
    },
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use n0_future::task::{AbortOnDropHandle, JoinSet};
use remoc::{Cfg, Connect, rch::base};
use tokio::{
    net::{UnixListener, UnixStream},
    sync::Semaphore,
};

use super::{Call, carry_out};
use crate::{error::CliError, host::Host, output::Output};

/// The socket's name in a data folder.
const FILE: &str = "control.sock";

/// The longest path a socket's address holds, on every system.
const LONGEST_PATH: usize = 100;
/// Calls carried out at the same time; more wait. They are all the user's own.
const CALLS: usize = 64;
/// How long to wait when the system has no file descriptors left.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);
/// How long the two sides may take to greet each other.
const GREETING: Duration = Duration::from_secs(5);

/// A bound socket. Dropping it lets go of it and ends the calls.
#[derive(Debug)]
pub(crate) struct Listening {
    path: PathBuf,
    _accepting: AbortOnDropHandle<()>,
}

impl Drop for Listening {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.path) {
            tracing::debug!(%error, "the control socket was gone already");
        }
    }
}

/// Binds the socket of the host's folder and carries out what comes. What lay in its place was left
/// by a process that was killed, as the host alone has the store open; it is replaced. A folder
/// that cannot hold a socket is used without one, with a warning.
pub(crate) fn listen(host: &Host, output: Output) -> Option<Listening> {
    let folder = host.folder().path();
    let path = folder.join(FILE);
    match bind(folder) {
        Ok((listener, owner)) => {
            let accepting = accept(host.clone(), listener, owner);
            Some(Listening {
                path,
                _accepting: AbortOnDropHandle::new(n0_future::task::spawn(accepting)),
            })
        }
        Err(error) => {
            output.warn(&format!(
                "other commands cannot use this folder for now: {}: {error}",
                path.display()
            ));
            None
        }
    }
}

/// Binds in a folder nobody else can enter, and moves the socket to its place when its mode is set.
/// Answers also whose it is.
fn bind(folder: &Path) -> io::Result<(UnixListener, u32)> {
    let aside = tempfile::Builder::new()
        .prefix(".new-")
        .permissions(Permissions::from_mode(0o700))
        .tempdir_in(folder)?;
    let socket = aside.path().join("s");
    let (_open, address) = address(aside.path(), "s")?;
    let listener = UnixListener::bind(address)?;
    fs::set_permissions(&socket, Permissions::from_mode(0o600))?;
    let owner = fs::metadata(&socket)?.uid();
    fs::rename(&socket, folder.join(FILE))?;
    Ok((listener, owner))
}

/// A path of a file in a folder that is short enough for a socket's address, and what must stay
/// open while it is used.
fn address(folder: &Path, name: &str) -> io::Result<(Option<File>, PathBuf)> {
    let path = folder.join(name);
    if path.as_os_str().len() <= LONGEST_PATH {
        return Ok((None, path));
    }
    let open = File::open(folder)?;
    let path = format!("/proc/self/fd/{}/{name}", open.as_raw_fd());
    Ok((Some(open), path.into()))
}

async fn accept(host: Host, listener: UnixListener, owner: u32) {
    let room = Arc::new(Semaphore::new(CALLS));
    let mut calls = JoinSet::new();
    loop {
        let Ok(place) = Arc::clone(&room).acquire_owned().await else {
            return;
        };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "the control socket cannot accept");
                tokio::time::sleep(ACCEPT_AGAIN).await;
                continue;
            }
        };
        let host = host.clone();
        calls.spawn(async move {
            if let Err(error) = answer(&host, stream, owner).await {
                tracing::warn!(%error, "a call on the control socket failed");
            }
            drop(place);
        });
        while calls.try_join_next().is_some() {}
    }
}

/// Takes one call and carries it out.
async fn answer(host: &Host, stream: UnixStream, owner: u32) -> io::Result<()> {
    let caller = stream.peer_cred()?.uid();
    if caller != owner && caller != 0 {
        tracing::warn!(caller, "another user came to the control socket");
        return Ok(());
    }
    let (read, write) = stream.into_split();
    let greeting =
        Connect::io::<_, _, (), Call, remoc::codec::Default>(Cfg::default(), read, write);
    let (connection, _, mut calls) = tokio::time::timeout(GREETING, greeting)
        .await?
        .map_err(io::Error::other)?;
    let connection = AbortOnDropHandle::new(n0_future::task::spawn(connection));
    if let Some(call) = calls.recv().await.map_err(io::Error::other)? {
        carry_out(host, call).await;
    }
    drop(calls);
    // Until the caller has read everything and hangs up, by whatever way.
    match connection.await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "a caller hung up"),
        Err(error) => tracing::warn!(%error, "a connection on the control socket failed"),
    }
    Ok(())
}

/// A way to a running node.
pub(super) struct Connection {
    calls: base::Sender<Call>,
    _answers: base::Receiver<()>,
    _connection: AbortOnDropHandle<()>,
}

impl Connection {
    /// Hands a call over. What comes of it comes through the call's own channel, as long as the
    /// connection is kept.
    ///
    /// # Errors
    ///
    /// [`CliError::NodeStopped`].
    pub(super) async fn call(mut self, call: Call) -> Result<Self, CliError> {
        match self.calls.send(call).await {
            Ok(()) => Ok(self),
            Err(error) => {
                tracing::debug!(error = %error.kind, "the call was not taken");
                Err(CliError::NodeStopped)
            }
        }
    }
}

/// Reaches the node that is running on a folder; `None` if nothing listens.
///
/// # Errors
///
/// The socket is not ours to use.
pub(super) async fn connect(folder: &Path) -> Result<Option<Connection>, CliError> {
    let path = folder.join(FILE);
    let (_open, address) = address(folder, FILE).map_err(at(&path))?;
    let stream = match UnixStream::connect(address).await {
        Ok(stream) => stream,
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
            ) =>
        {
            return Ok(None);
        }
        Err(error) => return Err(at(&path)(error)),
    };
    let (read, write) = stream.into_split();
    let greeting =
        Connect::io::<_, _, Call, (), remoc::codec::Default>(Cfg::default(), read, write);
    let Ok(Ok((connection, calls, answers))) = tokio::time::timeout(GREETING, greeting).await
    else {
        // It ended in that moment.
        return Ok(None);
    };
    let connection = async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "the connection to the running node ended");
        }
    };
    Ok(Some(Connection {
        calls,
        _answers: answers,
        _connection: AbortOnDropHandle::new(n0_future::task::spawn(connection)),
    }))
}

fn at(path: &Path) -> impl Fn(io::Error) -> CliError {
    let path = path.to_owned();
    move |source| CliError::File {
        path: path.clone(),
        source,
    }
}
