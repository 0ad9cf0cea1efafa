//! How a run is cut into rows, so that its pages are full.
//!
//! ```text
//! a run of 80 KiB ──▶ a row that fills 16 pages · one that fills 4 · one of the 128 bytes left
//! ```
//!
//! A value that does not fit a page gets pages of its own, and redb rounds their number up to a
//! power of two: a run of 80 KiB kept as one row takes 128. So a run becomes a row for each power
//! of two in its length, until what would be wasted is an eighth of it at most. The rest is a small
//! row, and shares its page with those of other runs.
//!
//! How a run is cut follows from its length alone, and no two of its rows are of one size: a row's
//! key is the size and the run. Rows of a size stand together, so that a small run never has a
//! large one as its neighbour, whose pages would be read to put it there.
//!
//! Invariant: this belongs to [`FORMAT`](super::file::FORMAT). Whoever changes it raises it.

use std::ops::Range;

/// redb's pages.
const PAGE_BYTES: usize = 4096;

/// Of a row's pages, what its key and the page's own fields may take.
const SPARE_BYTES: usize = 64;

/// The largest size: 512 pages, more than the largest run takes.
const LARGEST: u8 = 9;

/// The share of a run's length that may be wasted.
const WASTE: usize = 8;

/// How large a row is: the largest sort first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Size(u8);

impl Size {
    /// Less than a page; the page is shared.
    const REST: Size = Size(u8::MAX);

    /// This power of two of pages.
    fn pages(power: u8) -> Size {
        Size(LARGEST - power)
    }

    pub(super) fn to_byte(self) -> u8 {
        self.0
    }
}

/// What fits in a row of this power of two of pages.
fn capacity(power: u8) -> usize {
    (PAGE_BYTES << power) - SPARE_BYTES
}

/// The rows of a run of this length, in the order of its bytes.
pub(super) fn pieces(len: usize) -> impl Iterator<Item = (Size, Range<usize>)> {
    let mut at = 0;
    let mut next = Some(LARGEST);
    std::iter::from_fn(move || {
        while let Some(power) = next {
            let (left, room) = (len - at, capacity(power));
            if left <= capacity(0) {
                break;
            }
            next = power.checked_sub(1);
            let wasted = room.saturating_sub(left);
            if left >= room || wasted <= len / WASTE {
                let from = at;
                at += left.min(room);
                return Some((Size::pages(power), from..at));
            }
        }
        next = None;
        let from = at;
        at = len;
        (from < len).then_some((Size::REST, from..len))
    })
}

#[cfg(test)]
mod tests {
    use headwater_wire::limits::{MAX_RUN_BYTES, TARGET_RUN_BYTES};
    use proptest::prelude::*;

    use super::*;

    fn pages(size: Size) -> usize {
        1 << (LARGEST - size.0)
    }

    proptest! {
        #[test]
        fn every_run_is_cut_into_a_few_rows_that_waste_little(len in 1..=MAX_RUN_BYTES) {
            let mut at = 0;
            let mut last = None;
            let mut taken = 0;
            let mut rows = 0;
            for (size, range) in pieces(len) {
                prop_assert_eq!(range.start, at);
                prop_assert!(last < Some(size), "two rows of one size");
                if size == Size::REST {
                    prop_assert!(range.len() <= capacity(0));
                    taken += range.len();
                } else {
                    prop_assert!(range.len() <= pages(size) * PAGE_BYTES - SPARE_BYTES);
                    taken += pages(size) * PAGE_BYTES;
                }
                at = range.end;
                last = Some(size);
                rows += 1;
            }
            prop_assert_eq!(at, len);
            prop_assert!(rows <= 5, "{rows} rows");
            prop_assert!(taken - len <= len / WASTE + rows * SPARE_BYTES, "{taken} for {len}");
        }
    }

    #[test]
    fn a_run_as_a_signer_cuts_it_is_one_row() {
        assert_eq!(pieces(TARGET_RUN_BYTES).count(), 1);
        assert_eq!(pieces(TARGET_RUN_BYTES - 200).count(), 1);
        assert_eq!(pieces(300).count(), 1);
        assert_eq!(pieces(0).count(), 0);
    }
}
