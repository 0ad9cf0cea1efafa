//! Everything that ends a command early, and the exit code it earns.

use std::{io, path::PathBuf, process::ExitCode};

use headwater::{
    AppendError, AuthorId, CloseCode, Damage, SessionError, StoreError, SyncError, WriteError,
};
use iroh::EndpointAddr;

use crate::{
    control::Failure,
    input::{InputError, LineError},
};

/// Exit code of an interrupted command, as shells count it.
pub(crate) const INTERRUPTED: u8 = 130;

/// Why a command did not do its job.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CliError {
    #[error("there is no data folder at {path}; make one with `headwater --data {path} init`", path = .0.display())]
    NoFolder(PathBuf),
    #[error("neither --data, HEADWATER_DATA nor HOME says where the data folder is")]
    NoHome,
    #[error("{}: {source}", path.display())]
    File { path: PathBuf, source: io::Error },
    #[error("{} is damaged, it was left as it is: {reason}", path.display())]
    Damaged { path: PathBuf, reason: String },
    #[error("{} has format {found}, this program knows {supported}: use the newer headwater that \
             wrote it", path.display())]
    NewerFile {
        path: PathBuf,
        found: u32,
        supported: u32,
    },
    #[error("no space here is called {0:?}; `headwater space list` shows those there are")]
    UnknownSpace(String),
    #[error("several spaces here begin with {0}; give more digits")]
    AmbiguousSpace(String),
    #[error("a space named {0:?} exists already")]
    NameTaken(String),
    #[error(
        "{0:?} cannot name a space: use 1 to 128 characters without control characters, \
             that are neither an id nor a ticket"
    )]
    BadName(String),
    #[error("{0:?} is no key: give 64 hex digits as `headwater id` prints them, or `anyone`")]
    BadKey(String),
    #[error(
        "this is not a ticket for a space ({0}); paste all of it, as `serve`, `space ticket` or \
             `space invite` printed it"
    )]
    BadTicket(iroh_tickets::ParseError),
    #[error("nothing of space {0} is here yet; pull it with `headwater sync`")]
    NotHeld(headwater::SpaceId),
    #[error(
        "no peer is known for space {0}; give a ticket, as `headwater space ticket` prints it \
             where the space is served"
    )]
    NoPeer(headwater::SpaceId),
    #[error("no node serves {0:?} on this data folder; start one with `headwater serve`")]
    NotServed(String),
    #[error("{0}; nothing was stored")]
    Input(#[from] InputError),
    #[error("{0}; nothing was stored")]
    Event(#[from] LineError),
    #[error("{}: nothing to show: {reason}", .path.display())]
    DemoInput { path: PathBuf, reason: String },
    #[error("standard output: {0}")]
    Output(io::Error),
    #[error("the network cannot be used: {0}")]
    Network(String),
    #[error("the system has no random numbers: {0}")]
    Random(getrandom::Error),
    #[error("{} is in use by another headwater process; `headwater status` says whether a node is \
             running on it", .0.display())]
    InUse(PathBuf),
    #[error("the node that is running on {} carries out as many commands as it can at a time; try \
             again when one of them has ended", .0.display())]
    Busy(PathBuf),
    #[error("{} is gone; restore it, or begin anew in another folder: with an empty store the keys \
             here would sign their logs a second time from the start", .0.display())]
    StoreGone(PathBuf),
    #[error("{source}{hint}")]
    Store {
        source: StoreError,
        hint: &'static str,
    },
    #[error("{source}{hint}")]
    Write {
        source: WriteError,
        hint: &'static str,
    },
    #[error("only the owner of {name} can do this, and no key here is that of {owner}")]
    NotOwner { name: String, owner: AuthorId },
    #[error("sync with {peer} failed: {source}{hint}")]
    Sync {
        peer: String,
        source: Box<SyncError>,
        hint: &'static str,
    },
    #[error("the sync ended without everything: {0}")]
    Truncated(String),
    #[error("verify found damage in {0} of the spaces")]
    VerifyFailed(u64),
    #[error("what spaces there are cannot be read: damaged: {0}")]
    SpacesDamaged(Damage),
    #[error("the two exports differ")]
    ExportsDiffer,
    #[error("interrupted")]
    Interrupted,
    /// Said by the process that carried it out.
    #[error("{}", .0.text)]
    Failed(Failure),
    #[error("the node that was carrying this out has stopped, or is another version of headwater")]
    NodeStopped,
    #[error("nobody waits for the answer any more")]
    CallerGone,
}

impl CliError {
    /// A failed sync, and what a user may make of it.
    pub(crate) fn sync(peer: &EndpointAddr, source: SyncError) -> Self {
        let hint = match &source {
            SyncError::Session(SessionError::Reset(CloseCode::Refused)) => {
                " (it does not hold this space, or does not serve it to this node: ask the space's \
                 owner for an invite, or to grant read to the endpoint that `headwater id` prints)"
            }
            SyncError::DialTimeout { .. } | SyncError::Dial(_) => {
                " (is its `headwater serve` running, and is this its newest ticket?)"
            }
            _ => "",
        };
        Self::Sync {
            peer: peer.id.fmt_short().to_string(),
            source: Box::new(source),
            hint,
        }
    }

    /// The exit code, as `headwater --help` documents it.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::NoFolder(_)
            | Self::NoHome
            | Self::UnknownSpace(_)
            | Self::AmbiguousSpace(_)
            | Self::NameTaken(_)
            | Self::BadName(_)
            | Self::BadKey(_)
            | Self::BadTicket(_)
            | Self::NotOwner { .. }
            | Self::NotHeld(_)
            | Self::NotServed(_)
            | Self::NoPeer(_) => 2,
            Self::Input(InputError::Line { .. }) | Self::Event(_) | Self::DemoInput { .. } => 3,
            Self::InUse(_) | Self::Busy(_) => 4,
            Self::Sync { source, .. } if !matches!(**source, SyncError::Store(_)) => 5,
            Self::Truncated(_) => 6,
            Self::VerifyFailed(_) | Self::SpacesDamaged(_) | Self::ExportsDiffer => 7,
            Self::Interrupted => INTERRUPTED,
            Self::Failed(failure) => failure.exit_code,
            Self::Input(InputError::Read { .. })
            | Self::File { .. }
            | Self::Damaged { .. }
            | Self::NewerFile { .. }
            | Self::Output(_)
            | Self::Network(_)
            | Self::Random(_)
            | Self::StoreGone(_)
            | Self::Store { .. }
            | Self::NodeStopped
            | Self::CallerGone
            | Self::Sync { .. }
            | Self::Write { .. } => 1,
        }
    }

    /// Whether the reader of our output has gone: the usual end of `export | head`.
    pub(crate) fn is_broken_pipe(&self) -> bool {
        matches!(self, Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }

    /// Says it on standard error: as a sentence, or as one JSON object.
    pub(crate) fn report(&self, json: bool) -> ExitCode {
        if self.is_broken_pipe() {
            return ExitCode::SUCCESS;
        }
        let code = self.exit_code();
        let text = chain(self);
        if json {
            eprintln!(
                "{}",
                serde_json::json!({ "error": text, "exit_code": code })
            );
        } else {
            eprintln!("headwater: {text}");
        }
        ExitCode::from(code)
    }
}

impl From<StoreError> for CliError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::AlreadyOpen { path } => Self::InUse(path),
            StoreError::NotFound { path } => Self::StoreGone(path),
            source => {
                let hint = match &source {
                    StoreError::NewerFormat { .. } => {
                        "; use the newer headwater that wrote it, it was left as it is"
                    }
                    StoreError::ForeignFile { .. } => "; it was left as it is",
                    _ => "",
                };
                Self::Store { source, hint }
            }
        }
    }
}

impl From<WriteError> for CliError {
    fn from(source: WriteError) -> Self {
        let hint = match &source {
            WriteError::Append(AppendError::NotAccepted { .. }) => {
                "; the owner of the space says who may write, with `headwater space grant`"
            }
            WriteError::Forked { .. } => {
                "; go on as another author, with `--author LABEL`: each label has a key of its own"
            }
            _ => "",
        };
        Self::Write { source, hint }
    }
}

/// An error and its causes in one line; a cause that is quoted already is not said twice.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let said = error.to_string();
        if !text.contains(&said) {
            text = format!("{text}: {said}");
        }
        cause = error.source();
    }
    text
}
