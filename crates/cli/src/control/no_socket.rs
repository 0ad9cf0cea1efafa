//! No control socket: this system has no Unix sockets. One process at a time uses a folder.

use std::path::Path;

use super::Call;
use crate::{error::CliError, host::Host, output::Output};

/// Nothing.
#[derive(Debug)]
pub(crate) struct Listening;

/// Nothing listens.
pub(crate) fn listen(_host: &Host, _output: Output) -> Option<Listening> {
    None
}

impl Listening {
    /// Nothing is to be waited for.
    pub(super) async fn end(self) {}
}

/// A connection that cannot be.
#[derive(Debug)]
pub(super) enum Connection {}

impl Connection {
    pub(super) fn stays(&self) -> bool {
        match *self {}
    }

    pub(super) async fn call(self, _call: Call) -> Result<Self, CliError> {
        match self {}
    }
}

/// No node is ever found.
pub(super) async fn connect(_folder: &Path) -> Result<Option<Connection>, CliError> {
    Ok(None)
}
