//! Looking into a stored run with the help of an id that was kept beside it.
//!
//! ```text
//! known id ──▶ hash on ──▶ the event asked for, or the cut above it
//! ```
//!
//! A run's ids are not in its bytes. Hashing them from the start of the run is always right; a
//! store that keeps an id now and then hashes from the nearest instead. Nothing here checks a
//! signature: this is for runs that were verified before they were stored.

use super::{Facts, Run};
use crate::{
    event::Event,
    heads::AuthorHead,
    ids::{EventId, SpaceId},
};

impl Run {
    /// The event at `seq`, hashing on from `known`, an event of the run below `seq`; from the
    /// start of the run if there is none. `None` if `seq` is outside the run.
    pub fn event_at(&self, space: &SpaceId, seq: u64, known: Option<AuthorHead>) -> Option<Event> {
        let index = self.index_of(seq)?;
        let (prev, id) = self.link_at(space, index, known)?;
        self.event(space, index, prev, id)
    }

    /// The same run without the events up to and including `seq`, like [`Run::above`], hashing
    /// on from `known`, an event of the run at or below `seq`.
    pub fn above_known(
        &self,
        space: &SpaceId,
        seq: u64,
        known: Option<AuthorHead>,
    ) -> Option<Self> {
        if seq >= self.last_seq() {
            return None;
        }
        let Some(index) = self.index_of(seq) else {
            return Some(self.clone());
        };
        let id = match known {
            Some(known) if known.seq == seq => known.id,
            _ => self.link_at(space, index, known)?.1,
        };
        Some(self.recut(index + 1, Some(id), |_| true))
    }

    /// Bytes of payload held in the events up to and including `seq`.
    pub fn payload_bytes_through(&self, seq: u64) -> u64 {
        let held = self.facts_through(seq).filter(|facts| !facts.stub);
        held.map(|facts| u64::from(facts.payload_len)).sum()
    }

    /// How many of the events up to and including `seq` are stubs.
    pub fn stub_count_through(&self, seq: u64) -> usize {
        self.facts_through(seq).filter(|facts| facts.stub).count()
    }

    /// Seq of its first stub; `None` if it has every payload.
    pub fn first_stub(&self) -> Option<u64> {
        let at = self.facts.iter().position(|facts| facts.stub)?;
        Some(self.first_seq.saturating_add(at as u64))
    }

    fn facts_through(&self, seq: u64) -> impl Iterator<Item = &Facts> {
        let count = seq.saturating_add(1).saturating_sub(self.first_seq);
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        self.facts.iter().take(count)
    }

    /// The ids before and of the event at `index`.
    fn link_at(
        &self,
        space: &SpaceId,
        index: usize,
        known: Option<AuthorHead>,
    ) -> Option<(Option<EventId>, EventId)> {
        let from = known
            .and_then(|known| Some((self.index_of(known.seq)? + 1, Some(known.id))))
            .filter(|(from, _)| *from <= index);
        let (from, prev) = from.unwrap_or((0, self.first_prev));
        let ids = self.ids_between(space, from, prev, index + 1);
        match ids.as_slice() {
            [.., before, id] => Some((Some(*before), *id)),
            [id] => Some((prev, *id)),
            [] => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::{AuthorHead, AuthorSecret, EventDraft, sign_genesis, sign_runs};

    #[test]
    fn a_look_up_from_any_known_id_finds_what_hashing_from_the_start_finds() {
        let space = sign_genesis(&AuthorSecret::from_bytes([1; 32]), [0; 16], 0).space();
        let secret = AuthorSecret::from_bytes([2; 32]);
        let drafts = |texts: &[&'static str]| {
            let drafts = texts.iter().map(|text| EventDraft::new(16, 0, *text));
            drafts.collect::<Vec<_>>()
        };
        let before = sign_runs(&space, &secret, None, drafts(&["x", "y"])).unwrap();
        let base = Some(before[0].head());
        let runs = sign_runs(&space, &secret, base, drafts(&["a", "b", "c", "d"])).unwrap();
        let (verified, run) = (&runs[0], runs[0].run());
        let events: Vec<_> = verified.events().collect();
        for seq in 0..=8u64 {
            for known_seq in 2..seq {
                let known = verified
                    .id_at(known_seq)
                    .map(|id| AuthorHead { seq: known_seq, id });
                let event = events.iter().find(|event| event.header.seq == seq);
                assert_eq!(run.event_at(&space, seq, known).as_ref(), event);
                assert_eq!(
                    run.above_known(&space, seq, known),
                    run.above(&space, seq),
                    "above {seq}, known {known_seq}"
                );
            }
            let at = verified.id_at(seq).map(|id| AuthorHead { seq, id });
            assert_eq!(run.above_known(&space, seq, at), run.above(&space, seq));
        }
    }

    #[test]
    fn what_is_held_up_to_an_event_is_counted_without_what_follows() {
        let space = sign_genesis(&AuthorSecret::from_bytes([1; 32]), [0; 16], 0).space();
        let secret = AuthorSecret::from_bytes([2; 32]);
        let drafts = ["a", "bb", "cccc", "dddddddd"].map(|text| EventDraft::new(16, 0, text));
        let run = sign_runs(&space, &secret, None, drafts).unwrap().remove(0);
        let run = run.above(1).unwrap().run().with_stubs(|index| index != 1);
        let counts = |seq| (run.payload_bytes_through(seq), run.stub_count_through(seq));
        assert_eq!(
            [0, 1, 2, 3, 4, u64::MAX].map(counts),
            [(0, 0), (0, 0), (2, 0), (2, 1), (10, 1), (10, 1)]
        );
        assert_eq!(counts(4), (run.payload_bytes(), run.stub_count()));
    }
}
