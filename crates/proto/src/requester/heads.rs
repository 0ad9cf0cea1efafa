//! States our heads: page by page from the store, chunk by chunk to the responder, never more
//! than a window ahead of its plans.
//!
//! ```text
//! store ──page──▶ chunk ──▶ responder
//!                   └────▶ window ──plan passes it──▶ ledger
//! ```
//!
//! Invariant: `window` holds exactly the heads stated and not yet passed by a segment, ascending,
//! without the owner.

use std::collections::VecDeque;

use headwater_wire::{AuthorId, ClockEntry, HeadsChunk, Message, Segment};

use super::RequesterOutput;
use crate::{HEADS_WINDOW_CHUNKS, HeadRecord, HeadsPage, SessionError};

/// A head we stated.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stated {
    pub(super) entry: ClockEntry,
    /// Whether the responder reported it as forked.
    pub(super) refused: bool,
}

#[derive(Debug, PartialEq, Eq)]
enum Sending {
    /// The digest may be enough.
    NotAsked,
    ReadingOwner,
    ReadingPage,
    /// The window is full.
    Blocked,
    /// The last chunk is out.
    Done,
    /// The history ended before all heads were out: nobody wants the rest.
    Stopped,
}

#[derive(Debug)]
pub(super) struct StatedHeads {
    request_id: u64,
    page: usize,
    owner: Option<AuthorId>,
    stated_owner: Option<Stated>,
    sending: Sending,
    window: VecDeque<Stated>,
    /// The last author of each chunk not yet passed by a plan; `None` if the owner is all it has.
    chunk_ends: VecDeque<Option<AuthorId>>,
    after: Option<AuthorId>,
    chunks: u32,
    /// Authors stated, and authors new to us.
    authors: u64,
}

impl StatedHeads {
    pub(super) fn new(request_id: u64, page: usize, owner: Option<AuthorId>) -> Self {
        Self {
            request_id,
            page,
            owner,
            stated_owner: None,
            sending: Sending::NotAsked,
            window: VecDeque::new(),
            chunk_ends: VecDeque::new(),
            after: None,
            chunks: 0,
            authors: 0,
        }
    }

    /// Says that we hold nothing.
    pub(super) fn state_nothing(&mut self, outputs: &mut VecDeque<RequesterOutput>) {
        self.send(Vec::new(), true, outputs);
    }

    /// Begins, the owner's head first.
    pub(super) fn begin(&mut self, owner: AuthorId, outputs: &mut VecDeque<RequesterOutput>) {
        self.sending = Sending::ReadingOwner;
        outputs.push_back(RequesterOutput::ReadHead(owner));
    }

    pub(super) fn owner_read(
        &mut self,
        record: Option<HeadRecord>,
        outputs: &mut VecDeque<RequesterOutput>,
    ) -> Result<(), SessionError> {
        if self.sending == Sending::Stopped {
            return Ok(());
        }
        let fits = record.is_none_or(|record| Some(record.entry.author) == self.owner);
        if self.sending != Sending::ReadingOwner || !fits {
            return Err(SessionError::StoreAnswer {
                question: "ReadHead",
            });
        }
        self.stated_owner = record.map(|record| Stated {
            entry: record.entry,
            refused: false,
        });
        self.read_page(outputs);
        Ok(())
    }

    pub(super) fn page_read(
        &mut self,
        page: &HeadsPage,
        outputs: &mut VecDeque<RequesterOutput>,
    ) -> Result<(), SessionError> {
        if self.sending == Sending::Stopped {
            return Ok(());
        }
        let unfit = SessionError::StoreAnswer {
            question: "ReadHeads",
        };
        if self.sending != Sending::ReadingPage
            || page.heads.len() > self.page
            || (page.heads.is_empty() && !page.last)
        {
            return Err(unfit);
        }
        let mut heads = Vec::with_capacity(page.heads.len() + 1);
        if self.chunks == 0 {
            heads.extend(self.stated_owner.map(|stated| stated.entry));
        }
        for record in &page.heads {
            let entry = record.entry;
            if self.after.is_some_and(|after| entry.author <= after) {
                return Err(unfit);
            }
            self.after = Some(entry.author);
            if Some(entry.author) != self.owner {
                heads.push(entry);
                self.window.push_back(Stated {
                    entry,
                    refused: false,
                });
            }
        }
        if heads.is_empty() && !page.last {
            self.read_page(outputs);
        } else {
            self.send(heads, page.last, outputs);
        }
        Ok(())
    }

    fn send(
        &mut self,
        heads: Vec<ClockEntry>,
        last: bool,
        outputs: &mut VecDeque<RequesterOutput>,
    ) {
        let end = heads.last().map(|entry| entry.author);
        self.chunk_ends
            .push_back(end.filter(|author| Some(*author) != self.owner));
        self.chunks = self.chunks.saturating_add(1);
        self.authors = self.authors.saturating_add(heads.len() as u64);
        outputs.push_back(RequesterOutput::Send(Message::HeadsChunk(HeadsChunk {
            request_id: self.request_id,
            heads,
            last,
        })));
        if last {
            self.sending = Sending::Done;
        } else {
            self.read_page(outputs);
        }
    }

    fn read_page(&mut self, outputs: &mut VecDeque<RequesterOutput>) {
        if self.chunk_ends.len() >= HEADS_WINDOW_CHUNKS {
            self.sending = Sending::Blocked;
            return;
        }
        self.sending = Sending::ReadingPage;
        outputs.push_back(RequesterOutput::ReadHeads {
            after: self.after,
            limit: self.page,
        });
    }

    /// States no more. An answer of the store that is still on its way is ignored.
    pub(super) fn stop(&mut self) {
        self.sending = Sending::Stopped;
    }

    /// Whether a plan may speak of this segment: we have stated every head it covers.
    pub(super) fn covers(&self, segment: &Segment) -> bool {
        match segment {
            Segment::Owner => self.chunks > 0,
            Segment::Through(author) => {
                let stated = self.window.back().map(|stated| stated.entry.author);
                self.sending == Sending::Done || stated.is_some_and(|stated| *author <= stated)
            }
            Segment::Last => self.sending == Sending::Done,
        }
    }

    /// Takes note of a plan: the chunks it passes make room for further ones.
    pub(super) fn planned(&mut self, segment: &Segment, outputs: &mut VecDeque<RequesterOutput>) {
        let passed = |end: &Option<AuthorId>| match segment {
            Segment::Owner => end.is_none(),
            Segment::Through(author) => end.is_none_or(|end| end <= *author),
            Segment::Last => true,
        };
        while self.chunk_ends.pop_front_if(|end| passed(end)).is_some() {}
        if self.sending == Sending::Blocked {
            self.read_page(outputs);
        }
    }

    /// The owner, once known.
    pub(super) fn owner(&self) -> Option<AuthorId> {
        self.owner
    }

    /// Learns who the owner is, from the first run of a space we held nothing of.
    pub(super) fn set_owner(&mut self, owner: AuthorId) {
        self.owner = Some(owner);
    }

    /// Takes the owner's stated head out.
    pub(super) fn take_owner(&mut self) -> Option<Stated> {
        self.stated_owner.take()
    }

    /// Takes the lowest head out if its author is at most `bound` (`None`: any).
    pub(super) fn take_through(&mut self, bound: Option<AuthorId>) -> Option<Stated> {
        self.window
            .pop_front_if(|stated| bound.is_none_or(|bound| stated.entry.author <= bound))
    }

    /// A stated head that is not passed yet.
    pub(super) fn find(&mut self, author: &AuthorId) -> Option<&mut Stated> {
        if Some(*author) == self.owner {
            return self.stated_owner.as_mut();
        }
        let at = self
            .window
            .binary_search_by_key(author, |stated| stated.entry.author)
            .ok()?;
        self.window.get_mut(at)
    }

    /// Counts an author we did not state, and returns how many there are with those we did.
    pub(super) fn count_new_author(&mut self) -> u64 {
        self.authors = self.authors.saturating_add(1);
        self.authors
    }

    /// Authors stated, and those new to us.
    pub(super) fn authors(&self) -> u64 {
        self.authors
    }

    /// Full windows of chunks beyond the first: each took a round trip.
    pub(super) fn further_windows(&self) -> u32 {
        self.chunks.saturating_sub(1) / HEADS_WINDOW_CHUNKS as u32
    }
}
