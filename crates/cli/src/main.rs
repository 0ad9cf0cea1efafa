//! `headwater`, the command.
//!
//! ```text
//! args ──▶ commands ──▶ control ──▶ host ──▶ headwater (node, spaces, store)
//!              │           └─ the process that has the folder open: this one, or a running node
//!              ├─ folder   keys, names, peers on disk
//!              ├─ input    JSON lines in            record ─ JSON lines out
//!              └─ ticket   space, secret, peers     output ─ answers, in words or JSON
//! ```
//!
//! It knows no rule of the protocol: it reads what people type and calls the public API.

mod args;
mod commands;
mod control;
mod demo;
mod error;
mod folder;
mod host;
mod input;
mod output;
mod progress;
mod record;
mod stop;
mod ticket;

use std::{io::IsTerminal, process::ExitCode};

use clap::Parser;
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    let cli = args::Cli::parse();
    log_to_stderr(cli.global.verbose);
    let json = cli.global.json;
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("headwater: no runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    let ended = runtime.block_on(commands::run(cli));
    // A thread may still wait for a line of standard input that never comes.
    runtime.shutdown_background();
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => error.report(json),
    }
}

fn log_to_stderr(verbose: u8) {
    let default = match verbose {
        0 => "off,headwater=warn",
        1 => "warn,headwater=info",
        _ => "info,headwater=debug",
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
}
