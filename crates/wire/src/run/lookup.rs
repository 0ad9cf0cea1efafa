//! Looking into a stored run with the help of an id that was kept beside it.
//!
//! ```text
//! known id ──▶ hash on ──▶ the event asked for, or the cut above it
//! ```
//!
//! A run's ids are not in its bytes. Hashing them from the start of the run is always right; a
//! store that keeps an id now and then hashes from the nearest instead. Nothing here checks a
//! signature: this is for runs that were verified before they were stored.

use super::Run;
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
}
