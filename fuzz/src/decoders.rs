//! Bytes into values: whatever decodes must encode to the very bytes it came from.

use bytes::Bytes;
use headwater_wire::{
    EventDraft, FrameDecoder, Grant, Invitation, Message, Revocation, Run, legacy::LegacyMessage,
};

use crate::world;

/// A stream, cut into pieces by its own first byte.
pub fn frames(data: &[u8]) {
    let Some((&size, stream)) = data.split_first() else {
        return;
    };
    let mut decoder = FrameDecoder::new();
    let mut rebuilt = Vec::new();
    for mut piece in stream.chunks(usize::from(size) + 1) {
        loop {
            match decoder.read(&mut piece) {
                Ok(Some(frame)) => {
                    assert!(!frame.is_empty());
                    rebuilt.extend(u32::try_from(frame.len()).expect("bounded").to_be_bytes());
                    rebuilt.extend_from_slice(&frame);
                    // A frame's message is the next one's business.
                    Message::decode_body(frame).ok();
                }
                Ok(None) => break,
                Err(_) => return,
            }
        }
        assert!(piece.is_empty());
    }
    assert!(stream.starts_with(&rebuilt));
    assert_eq!(decoder.is_at_boundary(), rebuilt.len() == stream.len());
}

/// The body of a frame.
pub fn message(data: &[u8]) {
    let Ok(Some(message)) = Message::decode_body(Bytes::copy_from_slice(data)) else {
        return;
    };
    assert_eq!(data.first(), Some(&message.tag()));
    let frame = message.encode_frame().expect("it came in a frame").concat();
    assert_eq!(&frame[4..], data);
}

/// A run: decode, verify, cut, turn to stubs, and decode what came of it.
pub fn run(data: &[u8]) {
    let Ok(run) = Run::decode(Bytes::copy_from_slice(data)) else {
        return;
    };
    assert_eq!(run.as_bytes(), data);
    assert_eq!(
        run.last_seq(),
        run.first_seq() + run.event_count() as u64 - 1
    );
    let space = world().space;
    let middle = run.first_seq() + run.event_count() as u64 / 2;
    if let Some(rest) = run.above(&space, middle) {
        assert_eq!(rest.first_seq(), middle.max(run.first_seq() - 1) + 1);
        Run::decode(rest.as_bytes().clone()).expect("what is left of a run is a run");
    }
    let stubs = run.with_stubs(|at| at % 2 == 0);
    Run::decode(stubs.as_bytes().clone()).expect("a run of stubs is a run");
    let ids = run.event_ids(&space);
    assert_eq!(ids, stubs.event_ids(&space), "stubs keep their ids");
    if let Ok(verified) = run.verify(&space) {
        assert_eq!(verified.ids(), ids);
        assert_eq!(verified.events().count(), ids.len());
    }
}

/// What an owner says in its log, and what stands in tickets: grants, revocations, invites.
pub fn roster(data: &[u8]) {
    let bytes = Bytes::copy_from_slice(data);
    if let Ok(grant) = Grant::decode(bytes.clone()) {
        assert_eq!(EventDraft::grant(grant, 0).payload, data);
    }
    if let Ok(revocation) = Revocation::decode(bytes.clone()) {
        assert_eq!(EventDraft::revoke(revocation, 0).payload, data);
    }
    if let Ok(invitation) = Invitation::from_bytes(bytes) {
        assert_eq!(invitation.to_bytes(), data);
    }
}

/// A message of the old gossip exchange.
pub fn legacy(data: &[u8]) {
    if let Ok(Some(message)) = LegacyMessage::decode(Bytes::copy_from_slice(data)) {
        assert_eq!(message.encode(), data);
    }
}

/// A message of a gossip topic.
#[cfg(feature = "gossip")]
pub fn announcement(data: &[u8]) {
    use headwater_gossip::{RunsMessage, SignedAnnouncement};

    let message = Bytes::copy_from_slice(data);
    // Decoding compares with what it would have written, so a value has one encoding.
    if let Ok(Some(signed)) = SignedAnnouncement::decode(&message, 4096) {
        signed.verify().ok();
    }
    if let Ok(Some(said)) = RunsMessage::decode(&message) {
        for run in said.runs {
            run.verify(&said.space).ok();
        }
    }
}

/// A ticket of these bytes as people pass it on.
#[cfg(feature = "gossip")]
pub fn ticket_text(data: &[u8]) -> Option<String> {
    let ticket = <crate::ticket::SpaceTicket as iroh_tickets::Ticket>::decode_bytes(data);
    Some(ticket.ok()?.to_string())
}

/// A ticket of the command line, as bytes and as text.
#[cfg(feature = "gossip")]
pub fn ticket(data: &[u8]) {
    use iroh_tickets::Ticket;

    use crate::ticket::SpaceTicket;

    let read = SpaceTicket::decode_bytes(data).ok();
    let typed = std::str::from_utf8(data).ok();
    let typed = typed.and_then(|text| text.parse::<SpaceTicket>().ok());
    for ticket in read.into_iter().chain(typed) {
        assert_eq!(
            SpaceTicket::decode_bytes(&ticket.encode_bytes())
                .ok()
                .as_ref(),
            Some(&ticket)
        );
        assert_eq!(ticket.to_string().parse().ok(), Some(ticket.clone()));
        if let Some(invitation) = ticket.invitation {
            let invitation = Invitation::from_bytes(invitation.into()).expect("it was read");
            assert_eq!(invitation.invite().space, ticket.space);
        }
    }
}
