//! The endpoint of a host, and where it is reached.

use std::net::SocketAddr;

use iroh::{Endpoint, SecretKey, address_lookup::MemoryLookup, endpoint::presets};

use super::NetOptions;
use crate::error::CliError;

/// A socket bound to every address is also reached on this machine, network or not.
pub(super) fn loopback_sockets(sockets: &[SocketAddr]) -> impl Iterator<Item = SocketAddr> {
    use std::net::{Ipv4Addr, Ipv6Addr};
    sockets
        .iter()
        .filter(|socket| socket.ip().is_unspecified())
        .map(|socket| match socket {
            SocketAddr::V4(socket) => (Ipv4Addr::LOCALHOST, socket.port()).into(),
            SocketAddr::V6(socket) => (Ipv6Addr::LOCALHOST, socket.port()).into(),
        })
}

/// Binds an endpoint.
///
/// # Errors
///
/// The address cannot be used, or there is no network.
pub(super) async fn bind(
    key: SecretKey,
    net: NetOptions,
    addresses: MemoryLookup,
) -> Result<Endpoint, CliError> {
    let refused = |error: &dyn std::error::Error| CliError::Network(crate::error::chain(error));
    let mut builder = if net.no_relay {
        Endpoint::builder(presets::Minimal)
    } else {
        Endpoint::builder(presets::N0)
    };
    builder = builder
        .secret_key(key)
        .address_lookup(addresses)
        .transport_config(headwater::transport_config());
    if let Some(address) = net.bind {
        builder = builder
            .clear_ip_transports()
            .bind_addr(address)
            .map_err(|error| refused(&error))?;
    }
    let endpoint = builder.bind().await.map_err(|error| refused(&error))?;
    if net.no_relay {
        // Those who hear of us by gossip may be on this machine, and it may have no network.
        for socket in loopback_sockets(&endpoint.bound_sockets()) {
            endpoint.add_external_addr(socket).await;
        }
    }
    Ok(endpoint)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_on_every_address_is_reached_on_loopback_too() {
        let sockets = ["0.0.0.0:5", "192.0.2.1:6", "[::]:7"].map(|text| text.parse().unwrap());
        let found: Vec<_> = loopback_sockets(&sockets).collect();
        let expected = ["127.0.0.1:5", "[::1]:7"].map(|text| text.parse::<SocketAddr>().unwrap());
        assert_eq!(found, expected);
    }
}
