//! JSON lines in: one event a line, read as a stream, refused by line number.
//!
//! ```text
//! {"author":"label","channel":"text","kind":16,"timestamp_ms":0,"payload":"text"}
//! ```
//!
//! It knows neither keys nor stores: an author is still a label here.

use std::io::{self, BufRead, Read};

use bytes::Bytes;
use data_encoding::HEXLOWER_PERMISSIVE;
use headwater::{
    ChannelId, EventDraft,
    wire::{ChannelIdError, limits::MAX_PAYLOAD_BYTES},
};
use serde::Deserialize;

/// The first kind that applications may use.
pub(crate) const FIRST_KIND: u16 = headwater::kind::FIRST_APPLICATION;

/// The longest line: a largest payload with every character escaped, and the other fields.
const MAX_LINE_BYTES: usize = 6 * MAX_PAYLOAD_BYTES + 64 * 1024;

/// The longest label of an author.
pub(crate) const MAX_LABEL_BYTES: usize = 1024;

/// What a line may leave out.
#[derive(Debug, Clone)]
pub(crate) struct LineDefaults {
    pub(crate) author: String,
    pub(crate) timestamp_ms: u64,
}

/// One line, read and checked.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct InputEvent {
    pub(crate) author: String,
    pub(crate) draft: EventDraft,
}

/// Why reading stopped. Nothing has been stored: this module stores nothing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InputError {
    /// The line with this number, counted from 1, is not an event.
    #[error("line {line}: {problem}")]
    Line { line: u64, problem: LineError },
    /// The input could not be read on.
    #[error("line {line}: the input cannot be read: {source}")]
    Read { line: u64, source: io::Error },
}

/// What is wrong with a line.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LineError {
    #[error("longer than {MAX_LINE_BYTES} bytes")]
    TooLong,
    #[error("not an event: {0}")]
    Json(serde_json::Error),
    #[error("\"payload\" or \"payload_hex\" is missing")]
    NoPayload,
    #[error("\"{0}\" and \"{0}_hex\" are both given")]
    Twice(&'static str),
    #[error("\"{field}\" is not hex: {source}")]
    Hex {
        field: &'static str,
        source: data_encoding::DecodeError,
    },
    #[error("the payload has {found} bytes; at most {MAX_PAYLOAD_BYTES} are allowed")]
    PayloadTooLarge { found: usize },
    #[error("longer than the {MAX_PAYLOAD_BYTES} bytes a payload may have")]
    NoPayloadSoLong,
    #[error("the channel is refused: {0}")]
    Channel(#[from] ChannelIdError),
    #[error("kind {found} is refused: kinds below {FIRST_KIND} belong to Headwater itself")]
    ReservedKind { found: u16 },
    #[error("the author's label is empty")]
    NoAuthor,
    #[error("the author's label is longer than {MAX_LABEL_BYTES} bytes")]
    LabelTooLong,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    author: Option<String>,
    channel: Option<String>,
    channel_hex: Option<String>,
    kind: Option<u16>,
    timestamp_ms: Option<u64>,
    payload: Option<String>,
    payload_hex: Option<String>,
}

/// Reads every line and hands its event on; empty lines are skipped.
///
/// # Errors
///
/// The first bad line ends the reading; the events before it were handed on already.
pub(crate) fn read_lines(
    mut input: impl BufRead,
    defaults: &LineDefaults,
    mut each: impl FnMut(InputEvent),
) -> Result<u64, InputError> {
    let mut text = Vec::new();
    let mut line = 0;
    let mut events = 0;
    loop {
        line += 1;
        text.clear();
        let read = input
            .by_ref()
            .take(MAX_LINE_BYTES as u64 + 1)
            .read_until(b'\n', &mut text)
            .map_err(|source| InputError::Read { line, source })?;
        if read == 0 {
            return Ok(events);
        }
        if read > MAX_LINE_BYTES {
            return Err(InputError::Line {
                line,
                problem: LineError::TooLong,
            });
        }
        let text = text.trim_ascii();
        if text.is_empty() {
            continue;
        }
        let event = parse(text, defaults).map_err(|problem| InputError::Line { line, problem })?;
        each(event);
        events += 1;
    }
}

/// Reads one line as the payload of an event: its bytes as they are, without the line feed (or
/// carriage return and line feed) that ends it. `None` at the end of the input.
///
/// A line too long for a payload is skipped to its end, without being held in memory, and the
/// next call reads the line after it.
///
/// # Errors
///
/// The input's own.
pub(crate) fn next_raw_line(
    input: &mut impl BufRead,
) -> io::Result<Option<Result<Vec<u8>, LineError>>> {
    const LONGEST: usize = MAX_PAYLOAD_BYTES + b"\r\n".len();
    let mut line = Vec::new();
    let read = input
        .by_ref()
        .take(LONGEST as u64)
        .read_until(b'\n', &mut line)?;
    if read == 0 {
        return Ok(None);
    }
    if line.pop_if(|last| *last == b'\n').is_some() {
        line.pop_if(|last| *last == b'\r');
    } else if read == LONGEST {
        input.skip_until(b'\n')?;
    }
    if line.len() > MAX_PAYLOAD_BYTES {
        return Ok(Some(Err(LineError::NoPayloadSoLong)));
    }
    Ok(Some(Ok(line)))
}

fn parse(text: &[u8], defaults: &LineDefaults) -> Result<InputEvent, LineError> {
    let line: Line = serde_json::from_slice(text).map_err(LineError::Json)?;
    let author = line.author.unwrap_or_else(|| defaults.author.clone());
    check_label(&author)?;
    let payload = field("payload", line.payload, line.payload_hex)?.ok_or(LineError::NoPayload)?;
    let channel = field("channel", line.channel, line.channel_hex)?;
    let draft = draft(
        payload,
        channel,
        line.kind,
        line.timestamp_ms.unwrap_or(defaults.timestamp_ms),
    )?;
    Ok(InputEvent { author, draft })
}

/// Checks the facts of one event, however they were given.
///
/// # Errors
///
/// A reserved kind, a payload above the limit, or an impossible channel.
pub(crate) fn draft(
    payload: impl Into<Bytes>,
    channel: Option<impl AsRef<[u8]>>,
    kind: Option<u16>,
    timestamp_ms: u64,
) -> Result<EventDraft, LineError> {
    let payload = payload.into();
    let kind = kind.unwrap_or(FIRST_KIND);
    if kind < FIRST_KIND {
        return Err(LineError::ReservedKind { found: kind });
    }
    if payload.len() > MAX_PAYLOAD_BYTES {
        return Err(LineError::PayloadTooLarge {
            found: payload.len(),
        });
    }
    let mut draft = EventDraft::new(kind, timestamp_ms, payload);
    draft.channel = channel.map(ChannelId::new).transpose()?;
    Ok(draft)
}

/// Checks an author's label.
///
/// # Errors
///
/// An empty label, or one above [`MAX_LABEL_BYTES`].
pub(crate) fn check_label(label: &str) -> Result<(), LineError> {
    if label.is_empty() {
        return Err(LineError::NoAuthor);
    }
    if label.len() > MAX_LABEL_BYTES {
        return Err(LineError::LabelTooLong);
    }
    Ok(())
}

fn field(
    name: &'static str,
    text: Option<String>,
    hex: Option<String>,
) -> Result<Option<Vec<u8>>, LineError> {
    match (text, hex) {
        (Some(_), Some(_)) => Err(LineError::Twice(name)),
        (Some(text), None) => Ok(Some(text.into_bytes())),
        (None, None) => Ok(None),
        (None, Some(hex)) => HEXLOWER_PERMISSIVE
            .decode(hex.as_bytes())
            .map(Some)
            .map_err(|source| LineError::Hex {
                field: if name == "payload" {
                    "payload_hex"
                } else {
                    "channel_hex"
                },
                source,
            }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &[u8]) -> Result<Vec<InputEvent>, InputError> {
        let defaults = LineDefaults {
            author: "me".into(),
            timestamp_ms: 77,
        };
        let mut events = Vec::new();
        read_lines(text, &defaults, |event| events.push(event))?;
        Ok(events)
    }

    fn problem(text: &str) -> String {
        read(text.as_bytes()).unwrap_err().to_string()
    }

    #[test]
    fn raw_lines_keep_their_bytes_and_a_too_long_one_costs_only_itself() {
        let longest = vec![b'm'; MAX_PAYLOAD_BYTES];
        let mut text = b"a\r\n\xff\x00\r\r\n\n".to_vec();
        for end in [&b"\n"[..], b"\r\n"] {
            text.extend_from_slice(&longest);
            text.extend_from_slice(end);
        }
        for more in [1, 2, 3, 9_000_000] {
            text.extend_from_slice(&longest);
            text.extend(vec![b'n'; more]);
            text.extend_from_slice(b"\n");
        }
        text.extend_from_slice(b"end\r");
        let mut input = io::BufReader::with_capacity(1000, &text[..]);
        let mut next = || next_raw_line(&mut input).unwrap();
        let mut line = || next().unwrap().unwrap();
        assert_eq!(line(), b"a");
        assert_eq!(line(), b"\xff\x00\r");
        assert_eq!(line(), b"");
        assert_eq!(line(), longest);
        assert_eq!(line(), longest);
        for _ in 0..4 {
            assert!(matches!(next(), Some(Err(LineError::NoPayloadSoLong))));
        }
        assert_eq!(next().unwrap().unwrap(), b"end\r");
        assert!(next().is_none());
    }

    #[test]
    fn reads_every_field_and_fills_in_the_rest() {
        let events = read(
            b"{\"author\":\"a\",\"channel\":\"c\",\"kind\":20,\"timestamp_ms\":5,\"payload\":\"p\"}\r\n\n{\"payload_hex\":\"00FF\",\"channel_hex\":\"fe\"}",
        )
        .unwrap();
        assert_eq!(events.len(), 2);
        assert_eq!(events[0].author, "a");
        assert_eq!(events[0].draft.kind, 20);
        assert_eq!(events[0].draft.timestamp_ms, 5);
        assert_eq!(events[0].draft.payload.as_ref(), b"p");
        assert_eq!(events[0].draft.channel, Some(ChannelId::new("c").unwrap()));
        assert_eq!(events[1].author, "me");
        assert_eq!(events[1].draft.kind, FIRST_KIND);
        assert_eq!(events[1].draft.timestamp_ms, 77);
        assert_eq!(events[1].draft.payload.as_ref(), [0, 0xff]);
        assert_eq!(
            events[1].draft.channel,
            Some(ChannelId::new([0xfe]).unwrap())
        );
    }

    #[test]
    fn names_the_number_of_a_bad_line_and_counts_empty_ones() {
        let text = "{\"payload\":\"x\"}\n\n{\"payload\":7}\n";
        assert!(problem(text).starts_with("line 3: not an event"));
    }

    #[test]
    fn refuses_control_kinds_unknown_fields_and_fields_given_twice() {
        assert!(problem("{\"payload\":\"\",\"kind\":15}").contains("kind 15 is refused"));
        assert!(problem("{\"payload\":\"\",\"kind\":65536}").contains("not an event"));
        assert!(problem("{\"payload\":\"\",\"chanel\":\"c\"}").contains("chanel"));
        assert!(problem("{\"payload\":\"\",\"payload_hex\":\"\"}").contains("both given"));
        assert!(problem("{\"payload\":\"\",\"payload\":\"\"}").contains("duplicate"));
        assert!(problem("{\"payload_hex\":\"0\"}").contains("payload_hex"));
        assert!(problem("{\"author\":\"a\"}").contains("missing"));
        assert!(problem("{\"author\":\"\",\"payload\":\"\"}").contains("label is empty"));
        assert!(problem("{\"channel\":\"\",\"payload\":\"\"}").contains("channel is refused"));
    }

    #[test]
    fn refuses_a_line_without_end_before_it_fills_the_memory() {
        let endless = io::repeat(b' ').take(u64::MAX);
        let defaults = LineDefaults {
            author: "me".into(),
            timestamp_ms: 0,
        };
        let error = read_lines(io::BufReader::new(endless), &defaults, |_| {}).unwrap_err();
        assert!(matches!(
            error,
            InputError::Line {
                line: 1,
                problem: LineError::TooLong
            }
        ));
    }

    #[test]
    fn refuses_a_payload_one_byte_above_the_limit() {
        let line = |length: usize| format!("{{\"payload\":\"{}\"}}", "x".repeat(length));
        assert!(read(line(MAX_PAYLOAD_BYTES).as_bytes()).is_ok());
        assert!(problem(&line(MAX_PAYLOAD_BYTES + 1)).contains("at most"));
    }
}
