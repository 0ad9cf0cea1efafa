//! One event as one JSON object: what `export` and `tail` print.
//!
//! Invariant: a record holds what the author signed and the payload, nothing local, so that two
//! nodes print the same bytes for the same event.

use data_encoding::HEXLOWER;
use headwater::{AuthorId, Event, EventId, EventRef, Subject, kind, wire::PayloadHash};
use serde::Serialize;

/// An event, field by field in the order it is printed.
#[derive(Debug, Serialize)]
pub(crate) struct Record<'a> {
    author: AuthorId,
    seq: u64,
    id: EventId,
    prev: Option<EventId>,
    deps: &'a [EventRef],
    timestamp_ms: u64,
    kind: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    channel: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    channel_hex: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload_hex: Option<String>,
    #[serde(flatten)]
    stub: Option<Stub>,
    /// What a control event says, in words.
    #[serde(skip)]
    control: Option<String>,
}

/// What is left of a payload that is not here.
#[derive(Debug, Serialize)]
struct Stub {
    stub: bool,
    payload_len: u32,
    payload_hash: PayloadHash,
}

impl<'a> Record<'a> {
    /// The record of an event.
    pub(crate) fn new(event: &'a Event) -> Self {
        let header = &event.header;
        let (channel, channel_hex) = match &header.channel {
            Some(channel) => text_or_hex(channel.as_bytes()),
            None => (None, None),
        };
        let (payload, payload_hex) = match &event.payload {
            Some(payload) => text_or_hex(payload),
            None => (None, None),
        };
        let stub = event.payload.is_none().then_some(Stub {
            stub: true,
            payload_len: header.payload_len,
            payload_hash: header.payload_hash,
        });
        Self {
            author: header.author,
            seq: header.seq,
            id: event.id,
            prev: header.prev,
            deps: &header.deps,
            timestamp_ms: header.timestamp_ms,
            kind: header.kind,
            channel,
            channel_hex,
            payload,
            payload_hex,
            stub,
            control: control(event),
        }
    }

    /// The record as a line for people.
    pub(crate) fn sentence(&self) -> String {
        let author = self.author.fmt_short();
        let channel = match (self.channel, &self.channel_hex) {
            (Some(channel), _) => format!(" [{channel}]"),
            (None, Some(hex)) => format!(" [0x{hex}]"),
            (None, None) => String::new(),
        };
        let payload = match (&self.control, self.payload, &self.payload_hex) {
            (Some(control), _, _) => format!("({control})"),
            (None, Some(text), _) => text.escape_debug().to_string(),
            (None, None, Some(hex)) => format!("0x{hex}"),
            (None, None, None) => "(payload not here)".into(),
        };
        format!("{author} {:>6}{channel} {payload}", self.seq)
    }
}

fn control(event: &Event) -> Option<String> {
    let whom = |subject| match subject {
        Subject::Anyone => "anyone".into(),
        Subject::Key(key) => key.fmt_short(),
    };
    match event.header.kind {
        kind::GENESIS => Some("created the space".into()),
        kind::TOPIC_SECRET => Some("set the secret of the gossip topic".into()),
        _ => {
            let granted = event
                .grant()
                .map(|grant| format!("granted {} to {}", grant.roles, whom(grant.subject)));
            granted.or_else(|| {
                let revoked = event.revocation()?;
                Some(format!(
                    "revoked {} from {}",
                    revoked.roles,
                    whom(revoked.subject)
                ))
            })
        }
    }
}

fn text_or_hex(bytes: &[u8]) -> (Option<&str>, Option<String>) {
    match std::str::from_utf8(bytes) {
        Ok(text) => (Some(text), None),
        Err(_) => (None, Some(HEXLOWER.encode(bytes))),
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use headwater::{AuthorSecret, ChannelId, EventDraft, wire};

    use super::*;

    fn event(channel: Option<&[u8]>, payload: &'static [u8]) -> Event {
        let secret = AuthorSecret::from_bytes([1; 32]);
        let space = headwater::SpaceId::from_bytes([2; 32]);
        let mut draft = EventDraft::new(16, 5, Bytes::from_static(payload));
        draft.channel = channel.map(|name| ChannelId::new(name).unwrap());
        let runs = wire::sign_runs(&space, &secret, None, [draft]).unwrap();
        runs[0].events().next().unwrap()
    }

    fn json(event: &Event) -> serde_json::Value {
        serde_json::to_value(Record::new(event)).unwrap()
    }

    #[test]
    fn text_is_text_and_other_bytes_are_hex() {
        let value = json(&event(Some(b"c"), b"\"hi\"\n"));
        assert_eq!(value["payload"], "\"hi\"\n");
        assert_eq!(value["channel"], "c");
        assert_eq!(value["seq"], 1);
        assert_eq!(value["prev"], serde_json::Value::Null);
        assert!(value.get("stub").is_none() && value.get("payload_hex").is_none());
        let value = json(&event(Some(&[0xff]), &[0, 0xfe]));
        assert_eq!(value["payload_hex"], "00fe");
        assert_eq!(value["channel_hex"], "ff");
        assert!(value.get("payload").is_none() && value.get("channel").is_none());
    }

    #[test]
    fn control_events_are_said_in_words() {
        use headwater::{Roles, wire::Grant};

        let secret = AuthorSecret::from_bytes([1; 32]);
        let space = headwater::SpaceId::from_bytes([2; 32]);
        let grant = Grant::new(Subject::Anyone, Roles::READ | Roles::WRITE);
        let runs = wire::sign_runs(&space, &secret, None, [EventDraft::grant(grant, 5)]).unwrap();
        let event = runs[0].events().next().unwrap();
        let said = Record::new(&event).sentence();
        assert!(said.ends_with("(granted read+write to anyone)"), "{said}");
    }

    #[test]
    fn a_stub_is_marked_and_keeps_its_hash() {
        let mut stub = event(None, b"gone");
        stub.payload = None;
        let value = json(&stub);
        assert_eq!(value["stub"], true);
        assert_eq!(value["payload_len"], 4);
        assert_eq!(value["payload_hash"].as_str().unwrap().len(), 64);
        assert!(value.get("payload").is_none());
    }
}
