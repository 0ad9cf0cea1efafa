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
use remoc::{Cfg, Connect, chmux::ChMuxError, rch::base};
use tokio::{
    net::{UnixListener, UnixStream},
    sync::{OwnedSemaphorePermit, Semaphore, oneshot},
};

use super::{Call, Hello, carry_out};
use crate::{error::CliError, folder::ASIDE, host::Host, output::Output};

/// The socket's name in a data folder.
const FILE: &str = "control.sock";

/// The longest path that a socket's address holds on every system.
const LONGEST_PATH: usize = 100;
/// Calls carried out at the same time. They are all the user's own.
const CALLS: usize = 64;
/// Callers told at the same time that it is busy; more wait.
const REFUSALS: usize = 64;
/// How long to wait when the system has no file descriptors left.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);
/// How long the two sides may take to greet each other.
const GREETING: Duration = Duration::from_secs(5);

/// A bound socket. Dropping it lets go of it and ends the calls.
#[derive(Debug)]
pub(crate) struct Listening {
    // First: nobody comes any more when the calls end.
    bound: Bound,
    accepting: AbortOnDropHandle<()>,
    closing: oneshot::Sender<()>,
}

impl Listening {
    /// Lets go of the socket, and waits for the calls that are under way.
    pub(super) async fn end(self) {
        drop(self.bound);
        // It has ended already if it does not listen.
        self.closing.send(()).ok();
        if let Err(error) = self.accepting.await {
            tracing::warn!(%error, "the control socket failed");
        }
    }
}

/// A socket's name in the folder.
#[derive(Debug)]
struct Bound {
    path: PathBuf,
}

impl Drop for Bound {
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
            let (closing, closed) = oneshot::channel();
            let accepting = accept(host.clone(), listener, owner, closed);
            Some(Listening {
                bound: Bound { path },
                accepting: AbortOnDropHandle::new(n0_future::task::spawn(accepting)),
                closing,
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
        .prefix(ASIDE)
        .permissions(Permissions::from_mode(0o700))
        .tempdir_in(folder)?;
    let socket = aside.path().join("s");
    let (_open, address) = address(aside.path(), "s")?.ok_or_else(too_long)?;
    let listener = UnixListener::bind(address)?;
    fs::set_permissions(&socket, Permissions::from_mode(0o600))?;
    let owner = fs::metadata(&socket)?.uid();
    fs::rename(&socket, folder.join(FILE))?;
    Ok((listener, owner))
}

/// A path of a file in a folder that is short enough for a socket's address, and what must stay
/// open while it is used. `None` if there is none: only Linux has a short way to any folder.
fn address(folder: &Path, name: &str) -> io::Result<Option<(Option<File>, PathBuf)>> {
    let path = folder.join(name);
    if path.as_os_str().len() <= LONGEST_PATH {
        return Ok(Some((None, path)));
    }
    if !cfg!(any(target_os = "linux", target_os = "android")) {
        return Ok(None);
    }
    let open = File::open(folder)?;
    let path = format!("/proc/self/fd/{}/{name}", open.as_raw_fd());
    Ok(Some((Some(open), path.into())))
}

fn too_long() -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidInput,
        format!("on this system the path must have at most {LONGEST_PATH} bytes"),
    )
}

/// Carries out what comes until it is to end, then waits for what is under way.
async fn accept(host: Host, listener: UnixListener, owner: u32, mut closed: oneshot::Receiver<()>) {
    let calls = Arc::new(Semaphore::new(CALLS));
    let refusals = Arc::new(Semaphore::new(REFUSALS));
    let mut answers = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = accept_one(&listener, &calls, &refusals) => accepted,
            _ = &mut closed => break,
        };
        let (stream, turn, place) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "the control socket cannot accept");
                tokio::time::sleep(ACCEPT_AGAIN).await;
                continue;
            }
        };
        let host = host.clone();
        answers.spawn(async move {
            let answered = match turn {
                Turn::Answered => answer(&host, stream, owner).await,
                Turn::Refused => refuse(stream).await,
            };
            if let Err(error) = answered {
                tracing::warn!(%error, "a call on the control socket failed");
            }
            drop(place);
        });
        while answers.try_join_next().is_some() {}
    }
    drop(listener);
    while answers.join_next().await.is_some() {}
}

/// What becomes of a caller.
#[derive(Debug, Clone, Copy)]
enum Turn {
    Answered,
    Refused,
}

async fn accept_one(
    listener: &UnixListener,
    calls: &Arc<Semaphore>,
    refusals: &Arc<Semaphore>,
) -> io::Result<(UnixStream, Turn, OwnedSemaphorePermit)> {
    // Before one is taken that nobody could answer.
    let refusal = Arc::clone(refusals).acquire_owned().await;
    let refusal = refusal.map_err(io::Error::other)?;
    let (stream, _) = listener.accept().await?;
    Ok(match Arc::clone(calls).try_acquire_owned() {
        Ok(call) => (stream, Turn::Answered, call),
        Err(_full) => (stream, Turn::Refused, refusal),
    })
}

/// Takes one call and carries it out.
async fn answer(host: &Host, stream: UnixStream, owner: u32) -> io::Result<()> {
    let caller = stream.peer_cred()?.uid();
    if caller != owner && caller != 0 {
        tracing::warn!(caller, "another user came to the control socket");
        return Ok(());
    }
    let stays = host.is_serving();
    let (connection, _hello, mut calls) = greet(stream, Hello::Ready { stays }).await?;
    match calls.recv().await {
        Ok(Some(call)) => carry_out(host, call).await,
        Ok(None) => {}
        // It only looked whether somebody is here.
        Err(base::RecvError::Receive(error)) => {
            tracing::debug!(%error, "a caller left without a call");
        }
        Err(error) => return Err(io::Error::other(error)),
    }
    drop(calls);
    // Until the caller has read everything and hangs up, by whatever way.
    hung_up(connection).await;
    Ok(())
}

/// Tells a caller that it is busy.
async fn refuse(stream: UnixStream) -> io::Result<()> {
    let (connection, _hello, _calls) = greet(stream, Hello::Busy).await?;
    tokio::time::timeout(GREETING, hung_up(connection)).await?;
    Ok(())
}

type Running = AbortOnDropHandle<Result<(), ChMuxError<io::Error, io::Error>>>;

async fn greet(
    stream: UnixStream,
    hello: Hello,
) -> io::Result<(Running, base::Sender<Hello>, base::Receiver<Call>)> {
    let (read, write) = stream.into_split();
    let greeting = async {
        let (connection, mut sender, calls) =
            Connect::io::<_, _, Hello, Call, remoc::codec::Default>(Cfg::default(), read, write)
                .await
                .map_err(io::Error::other)?;
        let connection = AbortOnDropHandle::new(n0_future::task::spawn(connection));
        let said = sender.send(hello).await;
        said.map_err(|error| io::Error::other(error.kind.to_string()))?;
        Ok((connection, sender, calls))
    };
    tokio::time::timeout(GREETING, greeting).await?
}

async fn hung_up(connection: Running) {
    match connection.await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "a caller hung up"),
        Err(error) => tracing::warn!(%error, "a connection on the control socket failed"),
    }
}

/// A way to a running node.
pub(super) struct Connection {
    stays: bool,
    calls: base::Sender<Call>,
    _hellos: base::Receiver<Hello>,
    _connection: AbortOnDropHandle<()>,
}

impl Connection {
    /// Whether the node stays until it is told to stop.
    pub(super) fn stays(&self) -> bool {
        self.stays
    }

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
/// The socket is not ours to use, or [`CliError::Busy`].
pub(super) async fn connect(folder: &Path) -> Result<Option<Connection>, CliError> {
    let path = folder.join(FILE);
    let Some((_open, address)) = address(folder, FILE).map_err(at(&path))? else {
        return Ok(None);
    };
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
    let greeting = tokio::time::timeout(GREETING, be_greeted(stream));
    match greeting.await.ok().flatten() {
        // It ended in that moment.
        None => Ok(None),
        Some((Hello::Busy, _)) => Err(CliError::Busy(folder.to_owned())),
        Some((Hello::Ready { .. }, connection)) => Ok(Some(connection)),
    }
}

async fn be_greeted(stream: UnixStream) -> Option<(Hello, Connection)> {
    let (read, write) = stream.into_split();
    let greeting =
        Connect::io::<_, _, Call, Hello, remoc::codec::Default>(Cfg::default(), read, write);
    let (connection, calls, mut hellos) = greeting.await.ok()?;
    let connection = n0_future::task::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "the connection to the running node ended");
        }
    });
    let connection = AbortOnDropHandle::new(connection);
    let hello = hellos.recv().await.ok()??;
    let connection = Connection {
        stays: matches!(hello, Hello::Ready { stays: true }),
        calls,
        _hellos: hellos,
        _connection: connection,
    };
    Some((hello, connection))
}

fn at(path: &Path) -> impl Fn(io::Error) -> CliError {
    let path = path.to_owned();
    move |source| CliError::File {
        path: path.clone(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use remoc::rch::mpsc;

    use super::*;
    use crate::{
        control::{Request, Said},
        folder::DataFolder,
        host::Role,
    };

    async fn listening() -> (tempfile::TempDir, Host, Listening) {
        let dir = tempfile::tempdir().unwrap();
        let (folder, _) = DataFolder::init(dir.path().to_owned()).unwrap();
        let host = Host::open(&folder, &Role::Offline).await.unwrap();
        let listening = listen(&host, Output::new(true)).unwrap();
        (dir, host, listening)
    }

    fn status() -> (Call, mpsc::Receiver<Said>) {
        let (said, replies) = mpsc::channel();
        let call = Call {
            request: Request::Status,
            options: Vec::new(),
            said,
        };
        (call, replies)
    }

    async fn is_answered(mut replies: mpsc::Receiver<Said>) -> bool {
        while let Ok(Some(said)) = replies.recv().await {
            if let Said::End(end) = said {
                return end.is_ok();
            }
        }
        false
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn one_call_too_many_is_told_so_at_once_and_taken_when_another_has_ended() {
        let (dir, _host, _listening) = listening().await;
        let mut connections = Vec::new();
        for _ in 0..CALLS {
            connections.push(connect(dir.path()).await.unwrap().unwrap());
        }
        for _ in 0..2 * REFUSALS {
            let refused = connect(dir.path()).await.map(|_connection| ());
            assert!(matches!(refused, Err(CliError::Busy(_))), "{refused:?}");
        }
        connections.pop();
        let connection = loop {
            match connect(dir.path()).await {
                Ok(connection) => break connection.unwrap(),
                Err(CliError::Busy(_)) => tokio::task::yield_now().await,
                Err(error) => panic!("{error}"),
            }
        };
        let (call, replies) = status();
        let _connection = connection.call(call).await.unwrap();
        assert!(is_answered(replies).await);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn whoever_has_come_before_the_end_is_still_answered_and_nobody_after() {
        let (dir, _host, listening) = listening().await;
        let connection = connect(dir.path()).await.unwrap().unwrap();
        assert!(!connection.stays());
        let ending = tokio::spawn(listening.end());
        while dir.path().join(FILE).exists() {
            tokio::task::yield_now().await;
        }
        assert!(connect(dir.path()).await.unwrap().is_none());
        assert!(!ending.is_finished());
        let (call, replies) = status();
        let connection = connection.call(call).await.unwrap();
        assert!(is_answered(replies).await);
        drop(connection);
        ending.await.unwrap();
    }

    #[test]
    fn a_long_path_has_a_short_way_on_linux_and_none_elsewhere() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("deep/".repeat(40));
        fs::create_dir_all(&deep).unwrap();
        let found = address(&deep, FILE).unwrap();
        assert_eq!(
            found.is_some(),
            cfg!(any(target_os = "linux", target_os = "android"))
        );
        assert!(found.is_none_or(|(_open, path)| path.as_os_str().len() <= LONGEST_PATH));
    }
}
