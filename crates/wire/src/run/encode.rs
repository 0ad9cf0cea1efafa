//! Builds a run's one encoding, row by row.

use std::collections::HashMap;

use bytes::Bytes;

use super::{
    Facts, Run,
    decode::{MAX_FIXED_BYTES, MAX_STAMP_BYTES, longest_body},
};
use crate::{
    codec::{Put, zigzag},
    event::{ChannelId, EventRef, Kind},
    heads::AuthorHead,
    ids::{AuthorId, PayloadHash, Signature},
};

/// What a run says of one event.
#[derive(Debug)]
pub(super) struct Row<'a> {
    pub(super) deps: &'a [EventRef],
    pub(super) timestamp_ms: u64,
    pub(super) kind: Kind,
    pub(super) channel: Option<&'a ChannelId>,
    pub(super) body: Body<'a>,
}

#[derive(Debug)]
pub(super) enum Body<'a> {
    Held(&'a [u8]),
    Stub { len: u32, hash: PayloadHash },
}

/// A run being written. Callers keep to the limits of a run; [`Encoder::size`] tells.
#[derive(Debug)]
pub(super) struct Encoder {
    author: AuthorId,
    base: Option<AuthorHead>,
    channels: Vec<ChannelId>,
    channel_index: HashMap<ChannelId, u16>,
    channel_bytes: usize,
    deps: Vec<EventRef>,
    facts: Vec<Facts>,
    rows: Vec<u8>,
    bodies: Vec<u8>,
    payload_bytes: u64,
    stubs: usize,
    /// Of rows and bodies; see [`Run`].
    full_len: usize,
}

/// A state to go back to.
#[derive(Debug)]
pub(super) struct Mark {
    channels: usize,
    channel_bytes: usize,
    deps: usize,
    facts: usize,
    rows: usize,
    bodies: usize,
    payload_bytes: u64,
    stubs: usize,
    /// Of rows and bodies; see [`Run`].
    full_len: usize,
}

impl Encoder {
    pub(super) fn new(author: AuthorId) -> Self {
        Self {
            author,
            base: None,
            channels: Vec::new(),
            channel_index: HashMap::new(),
            channel_bytes: 0,
            deps: Vec::new(),
            facts: Vec::new(),
            rows: Vec::new(),
            bodies: Vec::new(),
            payload_bytes: 0,
            stubs: 0,
            full_len: 0,
        }
    }

    /// Makes the run go on from `base`.
    #[must_use]
    pub(super) fn based_on(mut self, base: Option<AuthorHead>) -> Self {
        self.base = base;
        self
    }

    pub(super) fn event_count(&self) -> usize {
        self.facts.len()
    }

    /// Length of the finished run, in bytes; at most 16 more than it will be.
    pub(super) fn size(&self) -> usize {
        MAX_FIXED_BYTES + self.channel_bytes + self.rows.len() + self.bodies.len()
    }

    pub(super) fn push(&mut self, row: &Row<'_>) {
        let stamp = match self.facts.last() {
            None => row.timestamp_ms,
            Some(last) => zigzag(
                row.timestamp_ms
                    .wrapping_sub(last.timestamp_ms)
                    .cast_signed(),
            ),
        };
        let channel = row.channel.map_or(0, |channel| self.intern(channel));
        self.rows.put_varint(stamp);
        let before_row = self.rows.len();
        self.rows.put_varint(row.kind.into());
        self.rows.put_varint(channel.into());
        self.rows.put_list(row.deps);
        let body = self.bodies.len() as u32;
        let (payload_len, stub) = match &row.body {
            Body::Held(payload) => {
                self.bodies.put(payload);
                self.payload_bytes += payload.len() as u64;
                (payload.len() as u32, false)
            }
            Body::Stub { len, hash } => {
                self.bodies.put(hash.as_bytes());
                self.stubs += 1;
                (*len, true)
            }
        };
        self.rows
            .put_varint(u64::from(payload_len) << 1 | u64::from(stub));
        self.full_len += MAX_STAMP_BYTES + self.rows.len() - before_row;
        self.full_len += longest_body(payload_len);
        self.facts.push(Facts {
            timestamp_ms: row.timestamp_ms,
            payload_len,
            body,
            first_dep: self.deps.len() as u32,
            deps: row.deps.len() as u8,
            stub,
            kind: row.kind,
            channel,
        });
        self.deps.extend_from_slice(row.deps);
    }

    fn intern(&mut self, channel: &ChannelId) -> u16 {
        if let Some(index) = self.channel_index.get(channel) {
            return *index;
        }
        self.channels.push(channel.clone());
        self.channel_bytes += 1 + channel.as_bytes().len();
        let index = self.channels.len() as u16;
        self.channel_index.insert(channel.clone(), index);
        index
    }

    pub(super) fn mark(&self) -> Mark {
        Mark {
            channels: self.channels.len(),
            channel_bytes: self.channel_bytes,
            deps: self.deps.len(),
            facts: self.facts.len(),
            rows: self.rows.len(),
            bodies: self.bodies.len(),
            payload_bytes: self.payload_bytes,
            stubs: self.stubs,
            full_len: self.full_len,
        }
    }

    /// Takes back what was pushed since the mark.
    pub(super) fn rewind(&mut self, mark: &Mark) {
        for channel in self.channels.drain(mark.channels..) {
            self.channel_index.remove(&channel);
        }
        self.channel_bytes = mark.channel_bytes;
        self.deps.truncate(mark.deps);
        self.facts.truncate(mark.facts);
        self.rows.truncate(mark.rows);
        self.bodies.truncate(mark.bodies);
        self.payload_bytes = mark.payload_bytes;
        self.stubs = mark.stubs;
        self.full_len = mark.full_len;
    }

    pub(super) fn finish(mut self, signature: Signature) -> Run {
        let mut out = Vec::with_capacity(self.size());
        let first_seq = self.base.map_or(1, |base| base.seq + 1);
        let first_prev = self.base.map(|base| base.id);
        out.put(self.author.as_bytes());
        out.put_varint(first_seq);
        if let Some(prev) = &first_prev {
            out.put(prev.as_bytes());
        }
        out.put_varint(self.facts.len() as u64);
        let before_channels = out.len();
        out.put_list(&self.channels);
        let full_len = MAX_FIXED_BYTES + out.len() - before_channels + self.full_len;
        out.put(&self.rows);
        let bodies = out.len() as u32;
        for facts in &mut self.facts {
            facts.body += bodies;
        }
        out.put(&self.bodies);
        out.put(signature.as_bytes());
        Run {
            bytes: Bytes::from(out),
            author: self.author,
            first_seq,
            first_prev,
            channels: self.channels,
            deps: self.deps,
            facts: self.facts,
            signature,
            payload_bytes: self.payload_bytes,
            stubs: self.stubs,
            full_len,
        }
    }
}
