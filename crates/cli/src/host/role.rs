//! What a data folder is opened for, and the network that takes.

use std::{net::SocketAddr, time::Duration};

use headwater::SpaceId;
use serde::{Deserialize, Serialize};

use super::Served;

/// Where and how to be reached, and to reach others.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct NetOptions {
    /// Direct addresses only.
    pub(crate) no_relay: bool,
    /// The address to listen on; any if `None`.
    pub(crate) bind: Option<SocketAddr>,
    /// How long a dial may take; the node's own limit if `None`.
    pub(crate) dial_timeout: Option<Duration>,
}

/// What a folder is opened for.
#[derive(Debug, Clone)]
pub(crate) enum Role {
    /// The store alone.
    Offline,
    /// To dial for one space, and to answer for that space alone on the connections it dialled: a
    /// peer that lacks something of it may ask back.
    Dial { net: NetOptions, space: SpaceId },
    /// To stay, and to be dialled.
    Serve {
        net: NetOptions,
        served: Served,
        /// Whether spaces are to be live.
        gossip: bool,
    },
}

/// An option of a command that belongs to the start of a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum NetOption {
    NoRelay,
    NoGossip,
    Bind,
    DialTimeout,
}

impl NetOption {
    /// As it is typed.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::NoRelay => "--no-relay",
            Self::NoGossip => "--no-gossip",
            Self::Bind => "--bind",
            Self::DialTimeout => "--dial-timeout",
        }
    }
}

impl Role {
    /// Whether other commands on the folder are carried out here meanwhile: by whoever may have it
    /// open for long.
    pub(crate) fn is_shared(&self) -> bool {
        !matches!(self, Self::Offline)
    }

    /// Whether it stays until it is told to stop.
    pub(crate) fn stays(&self) -> bool {
        matches!(self, Self::Serve { .. })
    }

    /// The options given that belong to the start of a network.
    pub(crate) fn net_options(&self) -> Vec<NetOption> {
        let (net, gossip) = match self {
            Self::Offline => return Vec::new(),
            Self::Dial { net, .. } => (net, true),
            Self::Serve { net, gossip, .. } => (net, *gossip),
        };
        let given = [
            (NetOption::NoRelay, net.no_relay),
            (NetOption::NoGossip, !gossip),
            (NetOption::Bind, net.bind.is_some()),
            (NetOption::DialTimeout, net.dial_timeout.is_some()),
        ];
        let given = given.into_iter();
        given
            .filter_map(|(option, given)| given.then_some(option))
            .collect()
    }
}
