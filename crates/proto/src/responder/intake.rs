//! The two ascending streams of heads a responder joins: the requester's chunks and its own
//! store's pages.
//!
//! Invariant: each holds at most what one chunk or one page brought (a requester that runs ahead:
//! at most a window of chunks), in ascending order, without the owner.

use std::collections::VecDeque;

use headwater_wire::{
    AuthorHead, AuthorId, ClockEntry, HeadsChunk, Segment,
    limits::{MAX_CHUNK_HEADS, MAX_SEQ},
};

use super::ResponderOutput;
use crate::{HEADS_WINDOW_CHUNKS, HeadRecord, HeadsPage, SessionError};

/// What stands at the front of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Front {
    /// This author.
    Author(AuthorId),
    /// Nobody yet: more has to come first.
    Unknown,
    /// Nobody any more.
    End,
}

#[derive(Debug, PartialEq, Eq)]
enum Chunks {
    AwaitFirst,
    Open,
    Done,
}

/// Heads the requester states.
#[derive(Debug)]
pub(super) struct StatedHeads {
    owner: AuthorId,
    max_authors: u64,
    chunks: Chunks,
    stated_owner: Option<ClockEntry>,
    queue: VecDeque<ClockEntry>,
    last: Option<AuthorId>,
    /// The last author of each chunk not yet passed by a plan; `None` if the owner is all it has.
    chunk_ends: VecDeque<Option<AuthorId>>,
    authors: u64,
}

impl StatedHeads {
    pub(super) fn new(owner: AuthorId, max_authors: u64) -> Self {
        Self {
            owner,
            max_authors,
            chunks: Chunks::AwaitFirst,
            stated_owner: None,
            queue: VecDeque::new(),
            last: None,
            chunk_ends: VecDeque::new(),
            authors: 0,
        }
    }

    /// Takes the next chunk.
    pub(super) fn accept(&mut self, chunk: HeadsChunk) -> Result<(), SessionError> {
        let found = chunk.heads.len();
        if found > MAX_CHUNK_HEADS || (found == 0 && !chunk.last) {
            return Err(SessionError::HeadsChunkSize {
                found,
                max: MAX_CHUNK_HEADS,
            });
        }
        if self.chunk_ends.len() >= HEADS_WINDOW_CHUNKS {
            return Err(SessionError::HeadsWindowExceeded {
                window: HEADS_WINDOW_CHUNKS,
            });
        }
        self.authors = self.authors.saturating_add(found as u64);
        if self.authors > self.max_authors {
            return Err(SessionError::TooManyAuthors {
                limit: self.max_authors,
            });
        }
        let mut owner_may_come = self.chunks == Chunks::AwaitFirst;
        for entry in chunk.heads {
            let (author, seq) = (entry.author, entry.head.seq);
            let shows_nothing = entry.forked && entry.head == AuthorHead::NONE;
            if !(1..=MAX_SEQ).contains(&seq) && !shows_nothing {
                return Err(SessionError::HeadSeqOutOfRange { author, seq });
            }
            let is_first = core::mem::take(&mut owner_may_come);
            if author == self.owner && is_first {
                self.stated_owner = Some(entry);
                continue;
            }
            if author == self.owner || self.last.is_some_and(|last| author <= last) {
                return Err(SessionError::UnsortedHeads {
                    previous: self.last.unwrap_or(self.owner),
                    found: author,
                });
            }
            self.last = Some(author);
            self.queue.push_back(entry);
        }
        self.chunk_ends
            .push_back(self.queue.back().map(|entry| entry.author));
        self.chunks = if chunk.last {
            Chunks::Done
        } else {
            Chunks::Open
        };
        Ok(())
    }

    /// Whether the first chunk, and with it the owner's head, is known.
    pub(super) fn has_begun(&self) -> bool {
        self.chunks != Chunks::AwaitFirst
    }

    /// Whether the last chunk has come.
    pub(super) fn is_done(&self) -> bool {
        self.chunks == Chunks::Done
    }

    pub(super) fn take_owner(&mut self) -> Option<ClockEntry> {
        self.stated_owner.take()
    }

    pub(super) fn front(&self) -> Front {
        match self.queue.front() {
            Some(entry) => Front::Author(entry.author),
            None if self.is_done() => Front::End,
            None => Front::Unknown,
        }
    }

    /// Takes the front if it is this author's.
    pub(super) fn take(&mut self, author: AuthorId) -> Option<ClockEntry> {
        self.queue.pop_front_if(|entry| entry.author == author)
    }

    /// A plan goes out: the chunks it passes leave the window.
    pub(super) fn planned(&mut self, segment: Segment) {
        let passed = |end: &Option<AuthorId>| match segment {
            Segment::Owner => end.is_none(),
            Segment::Through(author) => end.is_none_or(|end| end <= author),
            Segment::Last => true,
        };
        while self.chunk_ends.pop_front_if(|end| passed(end)).is_some() {}
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Pages {
    Idle,
    Reading,
    Done,
}

/// Heads our store holds.
#[derive(Debug)]
pub(super) struct HeldHeads {
    owner: AuthorId,
    page: usize,
    pages: Pages,
    queue: VecDeque<HeadRecord>,
    after: Option<AuthorId>,
}

impl HeldHeads {
    pub(super) fn new(owner: AuthorId, page: usize) -> Self {
        Self {
            owner,
            page,
            pages: Pages::Idle,
            queue: VecDeque::new(),
            after: None,
        }
    }

    /// Asks for the next page, unless one is being read.
    pub(super) fn read(&mut self, outputs: &mut VecDeque<ResponderOutput>) {
        if self.pages == Pages::Idle {
            self.pages = Pages::Reading;
            outputs.push_back(ResponderOutput::ReadHeads {
                after: self.after,
                limit: self.page,
            });
        }
    }

    pub(super) fn accept(&mut self, page: HeadsPage) -> Result<(), SessionError> {
        let unfit = SessionError::StoreAnswer {
            question: "ReadHeads",
        };
        let short = page.heads.is_empty() && !page.last;
        if self.pages != Pages::Reading || page.heads.len() > self.page || short {
            return Err(unfit);
        }
        for record in page.heads {
            let author = record.entry.author;
            if self.after.is_some_and(|after| author <= after) {
                return Err(unfit);
            }
            self.after = Some(author);
            if author != self.owner {
                self.queue.push_back(record);
            }
        }
        self.pages = if page.last { Pages::Done } else { Pages::Idle };
        Ok(())
    }

    pub(super) fn front(&self) -> Front {
        match self.queue.front() {
            Some(record) => Front::Author(record.entry.author),
            None if self.pages == Pages::Done => Front::End,
            None => Front::Unknown,
        }
    }

    /// Takes the front if it is this author's.
    pub(super) fn take(&mut self, author: AuthorId) -> Option<HeadRecord> {
        self.queue
            .pop_front_if(|record| record.entry.author == author)
    }
}
