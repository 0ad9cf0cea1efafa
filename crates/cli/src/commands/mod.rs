//! The commands, one module a job.
//!
//! ```text
//!   run(context, args)  ──▶  Request  ──▶  carry_out(host, …, teller)
//!   what was typed           control       what is done, wherever the folder is open
//! ```

pub(crate) mod append;
mod busy;
pub(crate) mod export;
mod identity;
mod members;
mod serve;
mod space;
mod status;
pub(crate) mod sync;
mod tail;
mod verify;

pub(crate) use space::open_to_all;

use std::time::Duration;

use headwater::SpaceId;

use crate::{
    args::{Cli, Command, DialArgs, GlobalArgs},
    control::{self, Request, Teller},
    demo,
    error::{CliError, INTERRUPTED},
    folder::{DataFolder, Wanted},
    host::{Host, NetOptions, Role},
    output::Output,
    stop,
};

/// Does what was asked for.
///
/// # Errors
///
/// Each command says what it leaves behind.
pub(crate) async fn run(cli: Cli) -> Result<(), CliError> {
    let context = Context::new(cli.global);
    match cli.command {
        Command::Init => identity::init(&context),
        Command::Id => identity::show(&context),
        Command::Space(command) => space::run(&context, command).await,
        Command::Append(args) => append::run(&context, args).await,
        Command::Export { space } => export::run(&context, &space).await,
        Command::Serve(args) => serve::run(&context, args).await,
        Command::Sync(args) => sync::run(&context, args).await,
        Command::Tail(args) => tail::run(&context, args).await,
        Command::Status => status::run(&context).await,
        Command::Verify { space } => verify::run(&context, space.as_deref()).await,
        Command::Demo(args) => tokio::select! {
            shown = demo::run(&context, args) => shown,
            // Its temporary folder goes with it.
            () = stop::requested(INTERRUPTED) => Err(CliError::Interrupted),
        },
    }
}

/// Does on an open folder what a request says.
///
/// # Errors
///
/// Each command says what it leaves behind.
pub(crate) async fn carry_out(
    host: &Host,
    request: Request,
    teller: &Teller,
) -> Result<(), CliError> {
    match request {
        Request::Append { space, draft } => append::carry_out(host, space, draft, teller).await,
        Request::Import {
            space,
            events,
            drafts,
        } => append::carry_out_import(host, space, events, drafts, teller).await,
        Request::Export { space } => export::carry_out(host, space, teller).await,
        Request::Create {
            name,
            author,
            closed,
        } => space::carry_out(host, &name, &author, closed, teller).await,
        Request::Joined { space } => space::carry_out_joined(host, space, teller).await,
        Request::Ticket { space } => space::carry_out_ticket(host, space, teller).await,
        Request::Access { space, access } => members::carry_out(host, space, access, teller).await,
        Request::Status => status::carry_out(host, teller).await,
        Request::Verify { space } => verify::carry_out(host, space, teller).await,
        Request::Sync { space, peers } => sync::carry_out(host, space, &peers, teller).await,
        Request::Tail {
            space,
            from_start,
            peers,
        } => tail::carry_out(host, space, from_start, &peers, teller).await,
    }
}

/// What every command needs to know.
#[derive(Debug)]
pub(crate) struct Context {
    global: GlobalArgs,
    pub(crate) output: Output,
}

impl Context {
    fn new(global: GlobalArgs) -> Self {
        let output = Output::new(global.json);
        Self { global, output }
    }

    /// The data folder, which must exist.
    ///
    /// # Errors
    ///
    /// There is none, or nothing says where.
    pub(crate) fn folder(&self) -> Result<DataFolder, CliError> {
        DataFolder::open(DataFolder::locate(self.global.data.clone())?)
    }

    /// A command to try next, with the options that matter for it.
    fn hint(&self, words: &str) -> String {
        let data = match &self.global.data {
            Some(path) => format!(" --data {}", path.display()),
            None => String::new(),
        };
        let relay = if self.global.no_relay {
            " --no-relay"
        } else {
            ""
        };
        format!("headwater{data}{relay} {words}")
    }

    /// Has a request carried out that needs the store alone.
    async fn ask(&self, folder: &DataFolder, request: Request) -> Result<(), CliError> {
        control::ask(self, folder, request, Role::Offline, INTERRUPTED).await
    }

    fn net(&self, bind: Option<std::net::SocketAddr>) -> NetOptions {
        NetOptions {
            no_relay: self.global.no_relay,
            bind,
            dial_timeout: None,
        }
    }

    fn dial(&self, args: &DialArgs) -> NetOptions {
        NetOptions {
            dial_timeout: args.dial_timeout.map(Duration::from_secs),
            ..self.net(args.bind)
        }
    }
}

/// The space an argument means; a ticket is remembered on the way.
fn wanted_space(folder: &DataFolder, text: &str) -> Result<Wanted, CliError> {
    let wanted = folder.spaces()?.resolve(text)?;
    if let Some(ticket) = &wanted.ticket {
        folder.change_spaces(|spaces| spaces.join(ticket, None).map(|_| ()))?;
    }
    Ok(wanted)
}

/// The name of a space here, or the first digits of its id.
async fn name_of(folder: &DataFolder, space: SpaceId) -> Result<String, CliError> {
    let spaces = folder.blocking(DataFolder::spaces).await?;
    Ok(spaces
        .get(space)
        .map_or_else(|| space.fmt_short(), |known| known.name.clone()))
}

/// Makes a space live, as [`Host::go_live`]. What the call was about is done by then: a failure is
/// told, and no more than that.
async fn go_live(host: &Host, space: SpaceId, teller: &Teller) -> Result<bool, CliError> {
    match host.go_live(space).await {
        Ok(is_live) => Ok(is_live),
        Err(error) => {
            let name = name_of(host.folder(), space).await;
            let name = name.unwrap_or_else(|_unreadable| space.fmt_short());
            let error = crate::error::chain(&error);
            let text = format!("{name} takes no part in gossip for now: {error}");
            teller.warn(text).await?;
            Ok(false)
        }
    }
}
