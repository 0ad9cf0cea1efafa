//! The command, run as people and scripts run it.

mod access;
mod command_line;
mod harness;
mod live;
#[cfg(unix)]
mod running_node;
