//! What is asked of the process that has a data folder open, and what it says.
//!
//! ```text
//!          ◀── Hello ────────────────────────
//!  command ─── Call { request, options, said } ──▶ host: the process that has the store open
//!          ◀── Said … Said, End ─────────────
//! ```
//!
//! One process at a time has the store open: the *host*. It is this process if nobody else has the
//! folder, and then a call is a channel in memory. If a node is running on the folder (`serve`,
//! `tail`, and `sync` while it lasts), a call goes through the Unix socket `DIR/control.sock`, one
//! call a connection, and the node carries it out. Either way the request is the same, and so is the
//! code behind it: a command does not know which of the two happened. Only options that belong to
//! the start of a node cannot be followed by one that runs; the caller is told so.
//!
//! A `sync` that is done takes no more calls, and ends when those it has are done, too. Commands that
//! stay (`serve`, `tail`) are not for it: they wait for its end, and open the folder themselves.
//!
//! ```text
//!  Request   Append { space, draft }                  Create { name, author }
//!            Import { space, events, drafts: ▶ … }    Joined { space }
//!            Export { space }                         Status
//!            Sync   { space, peers }                  Verify { space? }
//!            Tail   { space, from_start, peers }      Ticket { space }
//!            Access { space, access }
//!
//!  Said      Answer { json, text }   a line of the answer, in both forms
//!            Note(text)              a line for people
//!            Aside(text)             the same, beside the answer: on standard error
//!            Lines(bytes)            whole lines of an export, to be printed as they are
//!            Progress(…)             how far it is
//!            Warning(text)           what did not end the call
//!            End(Ok | Failure)       always the last
//! ```
//!
//! The bytes on the socket are [`remoc`]'s: channels over a stream, with flow control both ways, so
//! that a slow terminal slows an export down instead of filling memory. A caller that goes away ends
//! its call; a host that goes away ends it without an [`Said::End`], which the caller tells from a
//! call that was carried out.
//!
//! A host carries out so many calls at a time, and tells the next one at once that it is busy.
//!
//! Invariant: a host binds the socket only while it has the store open, and lets go of the socket
//! first. Whatever lies in its place otherwise is left over from a process that was killed.
//!
//! Invariant: the socket is its owner's alone (mode 0600, from its first moment on), and a host
//! hangs up on any other user.

mod draft;
mod session;
#[cfg(unix)]
mod socket;
#[cfg(not(unix))]
#[path = "no_socket.rs"]
mod socket;
mod teller;

use bytes::Bytes;
use headwater::SpaceId;
use iroh::EndpointAddr;
use remoc::rch::mpsc;
use serde::{Deserialize, Serialize};

pub(crate) use self::{
    draft::{Draft, batches},
    session::{ask, ask_if_running, become_host},
    socket::listen,
    teller::Teller,
};
use crate::{
    commands,
    error::CliError,
    host::{Host, NetOption},
};

/// What is to be done on an open folder.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Request {
    /// Sign and store one event.
    Append { space: SpaceId, draft: Draft },
    /// Sign and store many events in one transaction.
    Import {
        space: SpaceId,
        /// How many there are; fewer than that are refused, as the caller died.
        events: u64,
        drafts: mpsc::Receiver<Vec<Draft>>,
    },
    /// Print every event.
    Export { space: SpaceId },
    /// Create a space.
    Create {
        name: String,
        author: String,
        closed: bool,
    },
    /// The folder's list of spaces has this one newly, or knows another peer of it.
    Joined { space: SpaceId },
    /// Say how others find a space at this node.
    Ticket { space: SpaceId },
    /// Say, or change, who may do what in a space.
    Access { space: SpaceId, access: Access },
    /// Say what is held and what is going on.
    Status,
    /// Check what is stored.
    Verify {
        /// All spaces if `None`.
        space: Option<SpaceId>,
    },
    /// Pull once.
    Sync {
        space: SpaceId,
        /// In the order to try them.
        peers: Vec<EndpointAddr>,
    },
    /// Keep pulling, and print what is new.
    Tail {
        space: SpaceId,
        from_start: bool,
        peers: Vec<EndpointAddr>,
    },
}

/// What is asked about who may do what in a space.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Access {
    /// Say who may.
    Members,
    /// Let a key, or anyone, do more: the roles' bits.
    Grant { key: Option<[u8; 32]>, roles: u8 },
    /// Let a key, or anyone, do less.
    Revoke { key: Option<[u8; 32]>, roles: u8 },
    /// Make a ticket with an invitation.
    Invite { roles: u8, valid_secs: u64 },
    /// Move the space's gossip to a new topic.
    RotateSecret,
}

/// What a host says first to whoever comes.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) enum Hello {
    /// It takes a call.
    Ready {
        /// Whether it stays until it is told to stop.
        stays: bool,
    },
    /// It carries out as many calls as it can.
    Busy,
}

/// A request, and where to say what comes of it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Call {
    pub(crate) request: Request,
    /// Those given for a network that the host may have started otherwise.
    pub(crate) options: Vec<NetOption>,
    pub(crate) said: mpsc::Sender<Said>,
}

/// A part of what comes of a call.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Said {
    Answer { json: String, text: String },
    Note(String),
    Aside(String),
    Lines(Bytes),
    Progress(Progress),
    Warning(String),
    End(Result<(), Failure>),
}

/// How far a call is.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Progress {
    /// The command's word.
    pub(crate) what: String,
    pub(crate) events: u64,
    pub(crate) total_events: u64,
    pub(crate) payload_bytes: u64,
    /// The same for scripts, if they are to be told.
    pub(crate) json: Option<String>,
}

/// Why a call was not carried out: what the user is told, and the exit code.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Failure {
    pub(crate) text: String,
    pub(crate) exit_code: u8,
}

impl From<CliError> for Failure {
    fn from(error: CliError) -> Self {
        match error {
            CliError::Failed(failure) => failure,
            error => Self {
                text: crate::error::chain(&error),
                exit_code: error.exit_code(),
            },
        }
    }
}

/// Carries a call out on an open folder. Ends early when the caller has gone.
pub(crate) async fn carry_out(host: &Host, call: Call) {
    let teller = Teller::new(call.said);
    let doing = async {
        if let Some(text) = host.without_effect(&call.options) {
            teller.warn(text).await?;
        }
        commands::carry_out(host, call.request, &teller).await
    };
    let done = tokio::select! {
        done = doing => done,
        () = teller.gone() => return,
    };
    teller.end(done.map_err(Failure::from)).await;
}
