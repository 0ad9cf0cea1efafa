//! Tickets: a space, and where one peer that serves it can be reached.
//!
//! ```text
//! "headwater" ‖ base32(postcard(version, space, endpoint id, addresses))
//! ```
//!
//! A ticket names no author, holds no secret but the space id itself, and grants nothing: the
//! peer it names decides who may read.

use std::{collections::BTreeSet, fmt, str::FromStr};

use headwater::SpaceId;
use iroh::{EndpointAddr, EndpointId, TransportAddr};
use iroh_tickets::{ParseError, Ticket};
use serde::{Deserialize, Serialize};

/// The most addresses a ticket may name.
const MAX_ADDRESSES: usize = 64;

/// A space and a peer that serves it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SpaceTicket {
    pub(crate) space: SpaceId,
    pub(crate) peer: EndpointAddr,
}

/// The bytes of a ticket. Variants are only ever added at the end: postcard writes their index.
#[derive(Serialize, Deserialize)]
enum TicketWireFormat {
    Variant1(Variant1SpaceTicket),
}

#[derive(Serialize, Deserialize)]
struct Variant1SpaceTicket {
    space: [u8; 32],
    endpoint_id: EndpointId,
    addresses: BTreeSet<TransportAddr>,
}

impl Ticket for SpaceTicket {
    const KIND: &'static str = "headwater";

    fn encode_bytes(&self) -> Vec<u8> {
        let ticket = TicketWireFormat::Variant1(Variant1SpaceTicket {
            space: *self.space.as_bytes(),
            endpoint_id: self.peer.id,
            addresses: self.peer.addrs.clone(),
        });
        postcard::to_allocvec(&ticket).expect("a ticket in memory can always be written")
    }

    fn decode_bytes(bytes: &[u8]) -> Result<Self, ParseError> {
        let (ticket, rest) = postcard::take_from_bytes::<TicketWireFormat>(bytes)?;
        let TicketWireFormat::Variant1(ticket) = ticket;
        if !rest.is_empty() {
            return Err(ParseError::verification_failed("bytes after the end"));
        }
        if ticket.addresses.len() > MAX_ADDRESSES {
            return Err(ParseError::verification_failed("too many addresses"));
        }
        Ok(Self {
            space: SpaceId::from_bytes(ticket.space),
            peer: EndpointAddr::from_parts(ticket.endpoint_id, ticket.addresses),
        })
    }
}

impl fmt::Display for SpaceTicket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.encode_string())
    }
}

impl FromStr for SpaceTicket {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::decode_string(text.trim())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ticket() -> SpaceTicket {
        let id = iroh::SecretKey::from_bytes(&[7; 32]).public();
        let address = TransportAddr::Ip("127.0.0.1:4433".parse().unwrap());
        SpaceTicket {
            space: SpaceId::from_bytes([9; 32]),
            peer: EndpointAddr::from_parts(id, [address]),
        }
    }

    #[test]
    fn a_ticket_survives_its_text() {
        let text = ticket().to_string();
        assert!(text.starts_with("headwater"));
        assert_eq!(
            format!(" {text}\n").parse::<SpaceTicket>().unwrap(),
            ticket()
        );
    }

    #[test]
    fn the_bytes_of_version_one_do_not_change() {
        let bytes = ticket().encode_bytes();
        assert_eq!(bytes[0], 0, "version");
        assert_eq!(&bytes[1..33], &[9; 32], "space");
        assert_eq!(&bytes[33..65], ticket().peer.id.as_bytes(), "endpoint");
        assert_eq!(
            &bytes[65..],
            &[1, 1, 0, 127, 0, 0, 1, 0xd1, 0x22],
            "one IPv4 address, port 4433"
        );
    }

    #[test]
    fn refuses_trailing_bytes_unknown_versions_and_other_kinds() {
        let mut bytes = ticket().encode_bytes();
        bytes.push(0);
        assert!(SpaceTicket::decode_bytes(&bytes).is_err());
        bytes[0] = 9;
        assert!(SpaceTicket::decode_bytes(&bytes).is_err());
        assert!(SpaceTicket::from_str("endpointaaaa").is_err());
        assert!(SpaceTicket::decode_bytes(&[]).is_err());
    }
}
