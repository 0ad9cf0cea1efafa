//! Numbers drawn from a seed that the driver took from its own randomness (splitmix64). They
//! spread things in time; nothing here has to be hard to guess.

use core::time::Duration;

#[derive(Debug, Clone)]
pub(super) struct Draws(u64);

impl Draws {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A time from `from` to below `to`; `from` itself if there is nothing between.
    pub(super) fn between(&mut self, from: Duration, to: Duration) -> Duration {
        let span = u64::try_from(to.saturating_sub(from).as_nanos()).unwrap_or(u64::MAX);
        match span {
            0 => from,
            _ => from.saturating_add(Duration::from_nanos(self.next() % span)),
        }
    }

    /// A time below `bound`.
    pub(super) fn up_to(&mut self, bound: Duration) -> Duration {
        self.between(Duration::ZERO, bound)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_stay_in_their_range_and_repeat_with_their_seed() {
        let (from, to) = (Duration::from_secs(2), Duration::from_secs(4));
        let draw = |seed| {
            let mut draws = Draws::new(seed);
            (0..1_000)
                .map(|_| draws.between(from, to))
                .collect::<Vec<_>>()
        };
        let drawn = draw(7);
        assert!(drawn.iter().all(|time| (from..to).contains(time)));
        for (low, high) in [(2_000, 2_200), (3_800, 4_000)] {
            let tenth = Duration::from_millis(low)..Duration::from_millis(high);
            assert!(drawn.iter().any(|time| tenth.contains(time)));
        }
        assert_eq!(drawn, draw(7));
        assert_ne!(drawn, draw(8));
        assert_eq!(Draws::new(1).between(to, from), to);
    }
}
