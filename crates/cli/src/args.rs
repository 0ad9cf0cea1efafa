//! What can be typed: every command, option and example of `--help`.

use std::{net::SocketAddr, path::PathBuf};

use clap::{Args, Parser, Subcommand};
use headwater::Roles;

/// The label of the author used when none is named.
pub(crate) const DEFAULT_AUTHOR: &str = "me";

const ABOUT: &str = "Signed, append-only logs, kept in sync between peers";

const LONG_ABOUT: &str = "\
Headwater keeps signed, append-only, per-author event logs in sync between peers over QUIC.

A SPACE is a set of logs, one per author. Whoever holds a space can serve it; whoever its owner lets
read it, by default all who know its id, can pull it. A pull transfers what is missing and nothing else, checks every
event, and goes on where it stopped if it was interrupted.";

const AFTER_HELP: &str = "\
First steps, in two terminals on one machine:

  1$ headwater --data a init
  1$ headwater --data a space create notes
  1$ headwater --data a append notes 'hello'
  1$ headwater --data a --no-relay serve          # prints a ticket

  2$ headwater --data b init
  2$ headwater --data b space join TICKET --name notes
  2$ headwater --data b --no-relay sync notes
  2$ headwater --data b export notes

Without a second terminal: `headwater demo`.

While a node runs on a data folder (`serve` or `tail`), it carries out what other commands ask of
the folder: append, export, sync, status and the rest work as if it were not there. Its network stays
as it was started: --no-relay, --no-gossip, --bind and --dial-timeout of a `sync` or `tail` are
reported as without effect where they ask for something else.

Wherever SPACE is asked for, its local name, its id in hex or a ticket will do.

Exit codes:
  0  done (also: the reader of our output went away; `serve` or `tail` was stopped by Ctrl-C)
  1  a local failure: disk, damaged or foreign file, network that cannot be bound, or the running
     node stopped before it was done
  2  the command line was wrong, or it names something this data folder does not have
  3  the input was refused; nothing was stored
  4  the data folder is in use by a headwater process that does not carry this out: a long `append`
     carries nothing out for others, a long `sync` no `serve` or `tail`; or a node runs on it and
     `serve` would be a second one, or it is busy with too many commands
  5  no peer could be reached, or the sync failed; what was stored before stays stored
  6  the sync ended, but truncated: a fork, for example
  7  `verify` found damage
130  interrupted by Ctrl-C";

/// The whole command line.
#[derive(Debug, Parser)]
#[command(name = "headwater", version, about = ABOUT, long_about = LONG_ABOUT, after_help = AFTER_HELP)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: GlobalArgs,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Options every command takes, before or after its name.
#[derive(Debug, Clone, Args)]
pub(crate) struct GlobalArgs {
    /// Data folder: keys, names and the store [default: ~/.local/share/headwater]
    #[arg(long, global = true, value_name = "DIR", env = "HEADWATER_DATA")]
    pub(crate) data: Option<PathBuf>,
    /// Print one JSON object a line on standard output, and nothing else there
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// No relay and no address lookup: direct addresses only, for one machine or a LAN
    #[arg(long, global = true)]
    pub(crate) no_relay: bool,
    /// Log more to standard error (-v: info, -vv: debug); `RUST_LOG` is heeded too
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
}

/// One job each.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make a data folder: a node key, an author key, an empty store
    #[command(after_help = INIT_HELP)]
    Init,
    /// Print this node's endpoint id and its author keys
    Id,
    /// Create, join and list spaces, and say who may do what in them
    #[command(subcommand)]
    Space(SpaceCommand),
    /// Append one event, or many from JSON lines
    #[command(after_help = APPEND_HELP)]
    Append(AppendArgs),
    /// Print a space's events as JSON lines, in an order that is the same on every node
    #[command(after_help = EXPORT_HELP)]
    Export {
        /// Name, id or ticket
        space: String,
    },
    /// Serve spaces to those whom their owners let in, until Ctrl-C
    #[command(after_help = SERVE_HELP)]
    Serve(ServeArgs),
    /// Pull what is missing from a peer
    #[command(after_help = SYNC_HELP)]
    Sync(SyncArgs),
    /// Pull, then print events as they arrive, until Ctrl-C
    #[command(after_help = TAIL_HELP)]
    Tail(TailArgs),
    /// Say what this data folder holds
    Status,
    /// Re-check every stored run, signature, link and hash
    Verify {
        /// Name, id or ticket; all spaces if left out
        space: Option<String>,
    },
    /// Show the whole thing: two nodes, real QUIC, real history
    #[command(after_help = DEMO_HELP)]
    Demo(DemoArgs),
}

/// What can be done with spaces.
#[derive(Debug, Subcommand)]
pub(crate) enum SpaceCommand {
    /// Create a space; prints its id
    #[command(
        after_help = "Example:\n  headwater space create notes --json    # {\"space\":\"<hex>\",…}"
    )]
    Create {
        /// A local name; it is not told to anybody
        name: String,
        /// Label of the author that will own the space
        #[arg(long, default_value = DEFAULT_AUTHOR, value_name = "LABEL")]
        author: String,
        /// Let nobody read or write it but whom you grant it or invite; without this, whoever knows
        /// its id does both
        #[arg(long)]
        closed: bool,
    },
    /// Remember a space and the peer that serves it; nothing is pulled yet
    #[command(
        after_help = "Example:\n  headwater space join headwaterabc… --name notes && headwater sync notes"
    )]
    Join {
        /// The ticket that `serve` printed
        ticket: String,
        /// A local name [default: the first digits of the id]
        #[arg(long)]
        name: Option<String>,
    },
    /// Print a ticket for a space that the running node serves
    #[command(after_help = "Example:\n  headwater serve &\n  headwater space ticket notes")]
    Ticket {
        /// Name or id
        space: String,
    },
    /// List the spaces this data folder knows
    List,
    /// Say who may do what in a space
    Members {
        /// Name or id
        space: String,
    },
    /// Let somebody do more in a space you own
    #[command(after_help = GRANT_HELP)]
    Grant {
        /// Name or id
        space: String,
        /// Whom: 64 hex digits as their `headwater id` prints them, or `anyone`
        key: String,
        /// read, write, provide, or several of them joined by a plus
        roles: Roles,
    },
    /// Let somebody do less in a space you own, or cancel an unused invite
    #[command(after_help = REVOKE_HELP)]
    Revoke {
        /// Name or id
        space: String,
        /// Whom: 64 hex digits, or `anyone`; or the key of an invite
        key: String,
        /// read, write, provide, or several of them joined by a plus
        roles: Roles,
    },
    /// Print a ticket that lets in whoever uses it first, for a space the running node serves
    #[command(after_help = INVITE_HELP)]
    Invite {
        /// Name or id
        space: String,
        /// read, write, provide, or several of them joined by a plus
        #[arg(long, default_value = "read+write")]
        roles: Roles,
        /// Hours until it can be used no more
        #[arg(long, default_value_t = 24, value_parser = clap::value_parser!(u64).range(1..))]
        hours: u64,
    },
    /// Move the gossip of a space you own to a new topic, which old tickets do not lead to
    #[command(after_help = ROTATE_HELP)]
    RotateSecret {
        /// Name or id
        space: String,
    },
}

const GRANT_HELP: &str = "\
read and provide are for a node: its endpoint_id. write is for an author: their author key.
A revoked writer's log ends, everywhere, with the last event held here when it was revoked.
What anyone may do is for whoever is not named.

Examples:
  headwater space grant notes 3fa9… read
  headwater space revoke notes anyone write";

const REVOKE_HELP: &str = "\
read and provide are taken from a node: its endpoint_id. write is taken from an author: their author
key; that log ends, everywhere, with the last event held here now. `space members` lists the keys.
Where a reader is revoked, the gossip topic gets a new secret as well.

An invite that nobody has used is cancelled by its own key, which `space invite` printed (\"key\" with
--json). Once it was used, `space members` shows whom it let in: revoke those.

Examples:
  headwater space revoke notes 3fa9… read
  headwater space revoke notes anyone write
  headwater space revoke notes KEY-OF-AN-INVITE read+write";

const INVITE_HELP: &str = "\
The ticket is on standard output; the invite's key, which `space revoke` cancels it by, on standard
error (with --json both are in one object). The invite is used up by the first who joins with it; the
node that serves here, and holds the owner's key, must be running then.

Examples:
  headwater serve &
  headwater space invite notes
  headwater space invite notes --roles read --hours 1";

const ROTATE_HELP: &str = "\
Who knows a topic's secret hears what is announced there, without being asked who they are. The secret
stands in tickets and in the owner's log. A new one is an event in that log: members read it when they
sync, and move; tickets made before lead to the old topic, but still to the peers they name. Revoking a
reader does this by itself.

Example:
  headwater space rotate-secret notes";

const INIT_HELP: &str = "\
The folder holds node.key (the endpoint's secret), authors.json (labels and their secret keys),
spaces.json (names, and the peers and topics tickets told us of) and store.redb (the logs); while a
node runs, control.sock leads other commands to it. The files are readable
by you alone. Do not copy the folder and go on writing in both: two nodes with one author key fork that
author's log. Calling init again keeps what is there, adds what is missing and says what it changed.

Example:
  headwater --data ~/notes init";

const APPEND_HELP: &str = "\
One JSON object a line:
  {\"author\":\"sensor-7\",\"channel\":\"t\",\"kind\":16,\"timestamp_ms\":1700000000000,\"payload\":\"21.5\"}

  author        a label; each label gets a key of its own in this data folder, made on first use
                [default: --author]
  channel       text, or channel_hex; an event without a channel is structural
  kind          16 to 65535 [default: 16]; 0 to 15 belong to Headwater itself
  timestamp_ms  milliseconds since 1970 [default: now]; a display hint, it orders nothing
  payload       text, or payload_hex for other bytes; up to 1 MiB

All lines of a call are stored, or none: a bad line is named by its number. One signature
closes up to 1,024 events of an author.

Examples:
  headwater append notes 'hello'
  headwater append notes --json-lines events.jsonl
  journalctl -o json | jq -c '{author:._HOSTNAME, payload:.MESSAGE}' | headwater append logs --json-lines -";

const EXPORT_HELP: &str = "\
The owner's log comes first, then the others by author key; each log by seq. Two nodes that
hold the same events print the same bytes. Bytes that are not UTF-8 appear as payload_hex and
channel_hex; an event without its payload says \"stub\": true.

Example:
  headwater export notes | jq -r .payload";

const SERVE_HELP: &str = "\
The first line of standard output is always JSON: {\"endpoint_id\":…, \"tickets\":{space: ticket}}.

It joins the gossip of each space it serves: what is appended here is announced at once, what others
announce is stored here, and spaces that were only joined are fetched. Nodes find each other, so
knowing one is enough. --no-gossip leaves that out.

Who may read a space and write into it is for its owner to say, see `headwater space members`: of a
space that was not made with --closed, whoever knows its id. A ticket is a key, share it like one. A damaged space is named (\"damaged\") and not served.

With --append-lines a line is up to 1 MiB of any bytes; the line's end is not part of it. A longer line
is named by its number on standard error and left out.

Examples:
  headwater serve
  headwater --no-relay serve --bind 127.0.0.1:4433     # this machine alone, tickets stay valid
  tail -f app.log | headwater serve --append-lines logs";

const SYNC_HELP: &str = "\
With a ticket the space need not be joined before. A node that runs on the data folder dials with
its own network; --bind and --dial-timeout have no effect then. With --json, progress comes as lines with
\"progress\"; the last line is the report.

Examples:
  headwater sync notes
  headwater sync TICKET --json | tail -n 1 | jq .round_trips";

const TAIL_HELP: &str = "\
Prints every event that is new in this data folder, unless --from-start asks for the others,
too. It joins the space's gossip, serves the space to others while it runs, and follows the known
peers for as long as nobody answers there; a peer that goes away is dialled again.

Example:
  headwater tail notes --from-start";

const DEMO_HELP: &str = "\
Makes two nodes with durable stores in a temporary folder, connects them over QUIC on the
loopback address and pulls a history from one to the other. The history is the git log of the
repository you are in: a commit is an event, a committer an author.

Examples:
  headwater demo
  headwater demo --events 200000          # generated events on top, to show the speed
  headwater demo --input events.jsonl     # the format of `headwater append --json-lines`";

/// Options of `append`.
#[derive(Debug, Args)]
pub(crate) struct AppendArgs {
    /// Name, id or ticket
    pub(crate) space: String,
    /// The payload of one event
    #[arg(required_unless_present = "json_lines", conflicts_with = "json_lines")]
    pub(crate) text: Option<String>,
    /// Read events from a file, or from standard input for `-`
    #[arg(long, value_name = "FILE|-")]
    pub(crate) json_lines: Option<PathBuf>,
    /// Label of the author that signs (for lines: where a line names none)
    #[arg(long, default_value = DEFAULT_AUTHOR, value_name = "LABEL")]
    pub(crate) author: String,
    /// Channel of the event
    #[arg(long, conflicts_with = "json_lines")]
    pub(crate) channel: Option<String>,
    /// Kind of the event, 16 to 65535
    #[arg(long, conflicts_with = "json_lines")]
    pub(crate) kind: Option<u16>,
}

/// Options of `serve`.
#[derive(Debug, Args)]
pub(crate) struct ServeArgs {
    /// Spaces to serve, by name, id or ticket; all that this folder holds if left out
    pub(crate) spaces: Vec<String>,
    /// Address and port to listen on; a fixed port keeps tickets without relay valid
    #[arg(long, value_name = "ADDR:PORT")]
    pub(crate) bind: Option<SocketAddr>,
    /// Do not join the gossip of the spaces: serve those who come, and announce nothing
    #[arg(long)]
    pub(crate) no_gossip: bool,
    /// Append each line of standard input to this space, as it comes
    #[arg(long, value_name = "SPACE")]
    pub(crate) append_lines: Option<String>,
    /// Label of the author of those lines
    #[arg(long, default_value = DEFAULT_AUTHOR, value_name = "LABEL", requires = "append_lines")]
    pub(crate) author: String,
}

/// How to dial.
#[derive(Debug, Args)]
pub(crate) struct DialArgs {
    /// Address and port to dial from
    #[arg(long, value_name = "ADDR:PORT")]
    pub(crate) bind: Option<SocketAddr>,
    /// How long to wait for a peer's answer [default: 10]
    #[arg(long, value_name = "SECONDS")]
    pub(crate) dial_timeout: Option<u64>,
}

/// Options of `sync`.
#[derive(Debug, Args)]
pub(crate) struct SyncArgs {
    /// Name, id or ticket
    pub(crate) space: String,
    #[command(flatten)]
    pub(crate) dial: DialArgs,
}

/// Options of `tail`.
#[derive(Debug, Args)]
pub(crate) struct TailArgs {
    /// Name, id or ticket
    pub(crate) space: String,
    /// Print what is already there, too
    #[arg(long)]
    pub(crate) from_start: bool,
    /// Do not join the space's gossip: follow the peers that are known, and no others
    #[arg(long)]
    pub(crate) no_gossip: bool,
    #[command(flatten)]
    pub(crate) dial: DialArgs,
}

/// Options of `demo`.
#[derive(Debug, Args)]
pub(crate) struct DemoArgs {
    /// JSON lines instead of the git history
    #[arg(long, value_name = "FILE.jsonl")]
    pub(crate) input: Option<PathBuf>,
    /// Add this many generated events of 200 bytes by 100 authors
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) events: u64,
    /// Keep the temporary folder and say where it is
    #[arg(long)]
    pub(crate) keep: bool,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn global_options_stand_before_or_after_the_command() {
        for words in [
            [
                "headwater",
                "--data",
                "d",
                "--json",
                "--no-relay",
                "sync",
                "s",
            ],
            [
                "headwater",
                "sync",
                "s",
                "--no-relay",
                "--json",
                "--data",
                "d",
            ],
        ] {
            let cli = Cli::try_parse_from(words).unwrap();
            assert_eq!(cli.global.data, Some(PathBuf::from("d")));
            assert!(cli.global.json && cli.global.no_relay);
        }
    }

    #[test]
    fn append_takes_a_text_or_lines_but_not_both() {
        assert!(Cli::try_parse_from(["headwater", "append", "s"]).is_err());
        assert!(
            Cli::try_parse_from(["headwater", "append", "s", "t", "--json-lines", "-"]).is_err()
        );
        assert!(Cli::try_parse_from(["headwater", "append", "s", "--json-lines", "-"]).is_ok());
    }
}
