//! Runs sent to everybody: what is small and new, as its author signed it.
//!
//! ```text
//! tag ‖ space salt ‖ runs                    nobody's signature but that of each run
//!       └ postcard, shortest forms only ┘
//! ```
//!
//! A run proves itself, whoever brings it. So the message around it is not signed, names no sender, and
//! asks to be believed nothing: a live event costs one signature to make and one to check.
//!
//! Invariant: what decodes, encodes to the very bytes it came from.

use bytes::Bytes;
use headwater_wire::{Run, SpaceId};

use crate::{
    announcement::tag,
    fields::{Malformed, first_not_rising, put, take},
};

/// Runs of one space, small enough to go to everybody.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunsMessage {
    /// The space they are of.
    pub space: SpaceId,
    /// Random bytes. iroh-gossip drops what it has seen in the last 90 s and takes the link it came by
    /// out of its tree, so two nodes that send the same run must not send the same bytes.
    pub salt: [u8; 8],
    /// As they travel in a batch: at least one, by strictly ascending author. Decoded, not verified.
    pub runs: Vec<Run>,
}

/// Bytes are not a message of runs.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RunsDecodeError {
    /// The bytes end inside a field, or a field holds what it cannot.
    #[error("not a value of field {field}")]
    Malformed {
        /// The field being read.
        field: &'static str,
    },
    /// There is no run in it.
    #[error("no run")]
    Empty,
    /// A run cannot be decoded.
    #[error("run {index} is none")]
    NoRun {
        /// Which one.
        index: usize,
    },
    /// The runs are not in strictly ascending order of their authors.
    #[error("run {index} does not ascend")]
    NotAscending {
        /// The first one out of order.
        index: usize,
    },
    /// The fields have a shorter encoding, or bytes follow them.
    #[error("not the canonical encoding")]
    NotCanonical,
}

impl From<Malformed> for RunsDecodeError {
    fn from(Malformed { field }: Malformed) -> Self {
        Self::Malformed { field }
    }
}

impl RunsMessage {
    /// Ready to be broadcast. Whether the topic carries so many bytes is the caller's to check, against
    /// [`max_announcement_bytes`](crate::max_announcement_bytes).
    pub fn encode(&self) -> Bytes {
        let mut bytes = vec![tag::RUNS];
        let runs: Vec<&[u8]> = self
            .runs
            .iter()
            .map(|run| run.as_bytes().as_ref())
            .collect();
        put(&mut bytes, &(self.space, self.salt));
        put(&mut bytes, &runs);
        bytes.into()
    }

    /// Reads a message of a topic. `None` if it is of another kind.
    ///
    /// # Errors
    ///
    /// The bytes are no such message: see [`RunsDecodeError`].
    pub fn decode(message: &Bytes) -> Result<Option<Self>, RunsDecodeError> {
        let Some(mut rest) = message.strip_prefix(&[tag::RUNS]) else {
            return Ok(None);
        };
        let (space, salt) = take(&mut rest, "fixed fields")?;
        // A count is a claim: the list grows as entries are read, and ends with the bytes.
        let mut runs = Vec::new();
        for _ in 0..take::<u64>(&mut rest, "runs")? {
            let run: &[u8] = take(&mut rest, "runs")?;
            let no_run = |_| RunsDecodeError::NoRun { index: runs.len() };
            runs.push(Run::decode(message.slice_ref(run)).map_err(no_run)?);
        }
        if runs.is_empty() {
            return Err(RunsDecodeError::Empty);
        }
        if let Some(index) = first_not_rising(runs.iter().map(Run::author)) {
            return Err(RunsDecodeError::NotAscending { index });
        }
        let said = Self { space, salt, runs };
        if said.encode() != message {
            return Err(RunsDecodeError::NotCanonical);
        }
        Ok(Some(said))
    }
}

#[cfg(test)]
mod tests {
    use data_encoding::HEXLOWER;
    use headwater_wire::{AuthorSecret, EventDraft, sign_runs};
    use proptest::prelude::*;

    use super::*;

    fn run(space: SpaceId, author_seed: u8, events: usize) -> Run {
        let author = AuthorSecret::from_bytes([author_seed; 32]);
        let drafts = (0..events).map(|n| EventDraft::new(16, n as u64, vec![5; 3]));
        let mut runs = sign_runs(&space, &author, None, drafts).unwrap();
        runs.remove(0).into_run()
    }

    fn message(authors: u8) -> RunsMessage {
        let space = SpaceId::from_bytes([1; 32]);
        let mut runs: Vec<_> = (1..=authors).map(|seed| run(space, seed, 2)).collect();
        runs.sort_by_key(Run::author);
        RunsMessage {
            space,
            salt: [0x5a; 8],
            runs,
        }
    }

    /// Tag; space; salt; one run, and its length before it.
    #[test]
    fn a_message_of_runs_has_the_bytes_written_down() {
        let said = message(1);
        let run = said.runs[0].as_bytes();
        let fields = [
            "11",
            &"01".repeat(32),
            &"5a".repeat(8),
            "01",
            "73",
            &HEXLOWER.encode(run),
        ];
        let bytes = said.encode();
        assert_eq!(run.len(), 0x73);
        assert_eq!(HEXLOWER.encode(&bytes), fields.concat());
        assert_eq!(RunsMessage::decode(&bytes), Ok(Some(said)));
    }

    #[test]
    fn runs_come_back_as_they_were_sent_and_prove_themselves() {
        let said = message(3);
        let heard = RunsMessage::decode(&said.encode()).unwrap().unwrap();
        assert_eq!(heard, said);
        for run in heard.runs {
            assert!(run.verify(&said.space).is_ok());
        }
    }

    #[test]
    fn a_message_of_another_kind_is_skipped_and_one_without_a_run_refused() {
        let other = Bytes::from_static(&[tag::HEAD_ANNOUNCEMENT, 1, 2]);
        assert_eq!(RunsMessage::decode(&other), Ok(None));
        assert_eq!(RunsMessage::decode(&Bytes::new()), Ok(None));
        assert_eq!(
            RunsMessage::decode(&message(0).encode()),
            Err(RunsDecodeError::Empty)
        );
    }

    #[test]
    fn a_claimed_count_reserves_nothing_and_a_run_that_is_none_is_named() {
        let mut bytes = message(0).encode().to_vec();
        bytes.pop();
        put(&mut bytes, &u64::MAX);
        let malformed = Err(RunsDecodeError::Malformed { field: "runs" });
        assert_eq!(RunsMessage::decode(&bytes.clone().into()), malformed);
        put(&mut bytes, &message(1).runs[0].as_bytes().as_ref());
        put(&mut bytes, &b"none".as_slice());
        assert_eq!(
            RunsMessage::decode(&bytes.into()),
            Err(RunsDecodeError::NoRun { index: 1 })
        );
    }

    #[test]
    fn two_runs_of_an_author_and_authors_out_of_order_are_refused() {
        let mut said = message(2);
        said.runs.reverse();
        let refused = Err(RunsDecodeError::NotAscending { index: 1 });
        assert_eq!(RunsMessage::decode(&said.encode()), refused);
        said.runs[1] = said.runs[0].clone();
        assert_eq!(RunsMessage::decode(&said.encode()), refused);
    }

    #[test]
    fn bytes_that_follow_and_longer_spellings_are_refused() {
        let bytes = message(1).encode();
        let longer = [&bytes[..], &[0]].concat();
        assert_eq!(
            RunsMessage::decode(&longer.into()),
            Err(RunsDecodeError::NotCanonical)
        );
        // The count of one in two bytes.
        let overlong = [&bytes[..41], &[0x81, 0x00], &bytes[42..]].concat();
        assert_eq!(
            RunsMessage::decode(&overlong.into()),
            Err(RunsDecodeError::NotCanonical)
        );
    }

    proptest! {
        #[test]
        fn what_decodes_encodes_to_the_same_bytes(flips in prop::collection::vec((any::<usize>(), any::<u8>()), 0..3), cut in any::<usize>()) {
            let mut bytes = message(2).encode().to_vec();
            let len = bytes.len();
            for (at, with) in flips {
                bytes[at % len] ^= with;
            }
            bytes.truncate(len - cut % 4);
            let bytes = Bytes::from(bytes);
            if let Ok(Some(said)) = RunsMessage::decode(&bytes) {
                prop_assert_eq!(said.encode(), bytes);
            }
        }
    }
}
