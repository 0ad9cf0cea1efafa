//! Tickets: a space, how to find its gossip topic, and where peers that serve it can be reached.
//!
//! ```text
//! version 1   "headwater" ‖ base32(postcard(0, space, endpoint id, addresses))
//! version 2   "headwater" ‖ base32(postcard(1, space, topic secret?, peers: (endpoint id, addresses)…))
//! version 3   "headwater" ‖ base32(postcard(2, version 2's fields, invitation))
//! ```
//!
//! Version 2 is written, and version 3 with an invitation; version 1, which names one peer and no
//! topic, is still read.
//!
//! A ticket without an invitation grants nothing: the owner of the space, and the peers it names,
//! decide who may read. It is a secret all the same: whoever has it knows the space's id and can
//! listen on its topic. One with an invitation lets in whoever uses it first.

use std::{collections::BTreeSet, fmt, str::FromStr};

use headwater::{Invitation, SpaceId};
use headwater_gossip::TopicSecret;
use iroh::{EndpointAddr, EndpointId, TransportAddr};
use iroh_tickets::{ParseError, Ticket};
use serde::{Deserialize, Serialize};

/// The most peers a ticket may name, and the most addresses of each.
const MAX_PEERS: usize = 16;
const MAX_ADDRESSES: usize = 64;

/// A space and peers that serve it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SpaceTicket {
    pub(crate) space: SpaceId,
    /// `None` if the owner has set none, or the ticket is of version 1.
    pub(crate) topic_secret: Option<TopicSecret>,
    /// At least one.
    pub(crate) peers: Vec<EndpointAddr>,
    /// An invitation to this space, as [`Invitation::to_bytes`] writes it.
    pub(crate) invitation: Option<Vec<u8>>,
}

/// The bytes of a ticket. Variants are only ever added at the end: postcard writes their index.
#[derive(Serialize, Deserialize)]
enum TicketWireFormat {
    Variant1(Variant1SpaceTicket),
    Variant2(Variant2SpaceTicket),
    Variant3(Variant3SpaceTicket),
}

#[derive(Serialize, Deserialize)]
struct Variant3SpaceTicket {
    ticket: Variant2SpaceTicket,
    invitation: Vec<u8>,
}

#[derive(Serialize, Deserialize)]
struct Variant1SpaceTicket {
    space: [u8; 32],
    peer: TicketPeer,
}

#[derive(Serialize, Deserialize)]
struct Variant2SpaceTicket {
    space: [u8; 32],
    topic_secret: Option<[u8; 32]>,
    peers: Vec<TicketPeer>,
}

#[derive(Serialize, Deserialize)]
struct TicketPeer {
    endpoint_id: EndpointId,
    addresses: BTreeSet<TransportAddr>,
}

impl From<&EndpointAddr> for TicketPeer {
    fn from(peer: &EndpointAddr) -> Self {
        Self {
            endpoint_id: peer.id,
            addresses: peer.addrs.clone(),
        }
    }
}

impl TryFrom<TicketPeer> for EndpointAddr {
    type Error = ParseError;

    fn try_from(peer: TicketPeer) -> Result<Self, ParseError> {
        if peer.addresses.len() > MAX_ADDRESSES {
            return Err(ParseError::verification_failed("too many addresses"));
        }
        Ok(Self::from_parts(peer.endpoint_id, peer.addresses))
    }
}

impl Ticket for SpaceTicket {
    const KIND: &'static str = "headwater";

    fn encode_bytes(&self) -> Vec<u8> {
        let ticket = Variant2SpaceTicket {
            space: *self.space.as_bytes(),
            topic_secret: self.topic_secret.as_ref().map(TopicSecret::to_bytes),
            peers: self.peers.iter().map(TicketPeer::from).collect(),
        };
        let ticket = match self.invitation.clone() {
            None => TicketWireFormat::Variant2(ticket),
            Some(invitation) => {
                TicketWireFormat::Variant3(Variant3SpaceTicket { ticket, invitation })
            }
        };
        postcard::to_allocvec(&ticket).expect("a ticket in memory can always be written")
    }

    fn decode_bytes(bytes: &[u8]) -> Result<Self, ParseError> {
        let (ticket, rest) = postcard::take_from_bytes::<TicketWireFormat>(bytes)?;
        if !rest.is_empty() {
            return Err(ParseError::verification_failed("bytes after the end"));
        }
        let mut invitation = None;
        let ticket = match ticket {
            TicketWireFormat::Variant3(ticket) => {
                let read = Invitation::from_bytes(ticket.invitation.clone().into());
                if read.is_ok_and(|read| read.invite().space.as_bytes() == &ticket.ticket.space) {
                    invitation = Some(ticket.invitation);
                } else {
                    return Err(ParseError::verification_failed("another's invitation"));
                }
                ticket.ticket
            }
            TicketWireFormat::Variant1(ticket) => Variant2SpaceTicket {
                space: ticket.space,
                topic_secret: None,
                peers: vec![ticket.peer],
            },
            TicketWireFormat::Variant2(ticket) => ticket,
        };
        if ticket.peers.is_empty() {
            return Err(ParseError::verification_failed("no peer"));
        }
        if ticket.peers.len() > MAX_PEERS {
            return Err(ParseError::verification_failed("too many peers"));
        }
        let peers = ticket.peers.into_iter().map(EndpointAddr::try_from);
        Ok(Self {
            space: SpaceId::from_bytes(ticket.space),
            topic_secret: ticket.topic_secret.map(TopicSecret::from_bytes),
            peers: peers.collect::<Result<_, _>>()?,
            invitation,
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
            topic_secret: Some(TopicSecret::from_bytes([5; 32])),
            peers: vec![
                EndpointAddr::from_parts(id, [address]),
                EndpointAddr::new(iroh::SecretKey::from_bytes(&[8; 32]).public()),
            ],
            invitation: None,
        }
    }

    /// One IPv4 address, port 4433.
    const ADDRESS: [u8; 9] = [1, 1, 0, 127, 0, 0, 1, 0xd1, 0x22];

    #[test]
    fn a_ticket_survives_its_text() {
        for topic_secret in [None, ticket().topic_secret] {
            let ticket = SpaceTicket {
                topic_secret,
                ..ticket()
            };
            let text = ticket.to_string();
            assert!(text.starts_with("headwater"));
            assert_eq!(format!(" {text}\n").parse::<SpaceTicket>().unwrap(), ticket);
        }
    }

    #[test]
    fn the_bytes_of_version_two_do_not_change() {
        let peers = ticket().peers;
        let expected = [
            &[1][..],
            &[9; 32],
            &[1],
            &[5; 32],
            &[2],
            peers[0].id.as_bytes(),
            &ADDRESS,
            peers[1].id.as_bytes(),
            &[0],
        ]
        .concat();
        assert_eq!(ticket().encode_bytes(), expected);
        assert_eq!(SpaceTicket::decode_bytes(&expected).unwrap(), ticket());
    }

    fn invitation(space: u8) -> Vec<u8> {
        use headwater::{AuthorSecret, Roles};
        let [owner, one_use] = [[1; 32], [2; 32]].map(AuthorSecret::from_bytes);
        let space = SpaceId::from_bytes([space; 32]);
        Invitation::sign(&owner, space, Roles::READ, 7, one_use).to_bytes()
    }

    #[test]
    fn a_ticket_carries_an_invitation_to_its_own_space_alone() {
        let with = |space| SpaceTicket {
            invitation: Some(invitation(space)),
            ..ticket()
        };
        let text = with(9).to_string();
        assert_eq!(text.parse::<SpaceTicket>().unwrap(), with(9));
        assert!(with(8).to_string().parse::<SpaceTicket>().is_err());
    }

    #[test]
    fn a_ticket_with_a_bit_flipped_or_cut_short_is_refused_or_a_whole_one() {
        let of_three = SpaceTicket {
            invitation: Some(invitation(9)),
            ..ticket()
        };
        for ticket in [ticket(), of_three] {
            let bytes = ticket.encode_bytes();
            for bit in 0..bytes.len() * 8 {
                let mut flipped = bytes.clone();
                flipped[bit / 8] ^= 1 << (bit % 8);
                if let Ok(read) = SpaceTicket::decode_bytes(&flipped) {
                    let again = SpaceTicket::decode_bytes(&read.encode_bytes());
                    assert_eq!(again.unwrap(), read);
                    assert_ne!(read, ticket, "bit {bit} means nothing");
                }
            }
            for at in 0..bytes.len() {
                assert!(SpaceTicket::decode_bytes(&bytes[..at]).is_err(), "{at}");
            }
        }
    }

    #[test]
    fn a_ticket_of_version_one_is_still_read() {
        let peer = ticket().peers.remove(0);
        let bytes = [&[0][..], &[9; 32], peer.id.as_bytes(), &ADDRESS].concat();
        let expected = SpaceTicket {
            topic_secret: None,
            peers: vec![peer],
            ..ticket()
        };
        assert_eq!(SpaceTicket::decode_bytes(&bytes).unwrap(), expected);
    }

    #[test]
    fn refuses_a_ticket_without_peers_or_with_too_many() {
        for count in [0, MAX_PEERS + 1] {
            let peers = vec![ticket().peers.remove(0); count];
            let bytes = SpaceTicket { peers, ..ticket() }.encode_bytes();
            assert!(SpaceTicket::decode_bytes(&bytes).is_err(), "{count}");
        }
    }

    #[test]
    fn a_printed_ticket_shows_no_secret() {
        assert!(!format!("{:?}", ticket().topic_secret).contains('5'));
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
