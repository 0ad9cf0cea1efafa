//! The Trickle algorithm of RFC 6206: when to say what everybody may know already.
//!
//! ```text
//! interval I:  |────── listen ──────|─── t somewhere here ───|   then I doubles, up to Imax
//!              0                   I/2                       I   a difference resets it to Imin
//! ```
//!
//! Section 4.2 numbers the rules; the code names them.

use core::time::Duration;

use super::{config::TrickleConfig, rng::Draws};

#[derive(Debug)]
pub(super) struct Trickle {
    config: TrickleConfig,
    /// `None` while there is nobody to speak to.
    interval: Option<Interval>,
}

#[derive(Debug)]
struct Interval {
    /// *I*.
    length: Duration,
    ends: Duration,
    /// *t*, until it has passed.
    speaks: Option<Duration>,
    /// *c*.
    consistent: u32,
}

/// What became of *t*.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    Speak,
    Suppressed,
}

impl Trickle {
    pub(super) fn new(config: TrickleConfig) -> Self {
        Self {
            config,
            interval: None,
        }
    }

    /// Rule 1: begins an interval of the least length.
    pub(super) fn start(&mut self, now: Duration, draws: &mut Draws) {
        self.begin(self.config.least(), now, draws);
    }

    pub(super) fn stop(&mut self) {
        self.interval = None;
    }

    /// *I*.
    pub(super) fn length(&self) -> Option<Duration> {
        self.interval.as_ref().map(|interval| interval.length)
    }

    /// Rule 3: somebody said what we would say.
    pub(super) fn consistent(&mut self) {
        if let Some(interval) = &mut self.interval {
            interval.consistent = interval.consistent.saturating_add(1);
        }
    }

    /// Rule 6: somebody said something else. An interval that is already the least goes on.
    pub(super) fn inconsistent(&mut self, now: Duration, draws: &mut Draws) {
        if self
            .length()
            .is_some_and(|length| length > self.config.least())
        {
            self.start(now, draws);
        }
    }

    /// Rules 4 and 5. To be called at [`Trickle::next_timeout`], and harmless before.
    pub(super) fn poll(&mut self, now: Duration, draws: &mut Draws) -> Option<Turn> {
        let k = self.config.k;
        let interval = self.interval.as_mut()?;
        let turn = interval.speaks.take_if(|t| *t <= now).map(|_| {
            if k > 0 && interval.consistent >= k {
                Turn::Suppressed
            } else {
                Turn::Speak
            }
        });
        if interval.ends <= now {
            let length = interval.length.saturating_mul(2).min(self.config.most());
            self.begin(length, now, draws);
        }
        turn
    }

    pub(super) fn next_timeout(&self) -> Option<Duration> {
        let interval = self.interval.as_ref()?;
        Some(interval.speaks.unwrap_or(interval.ends))
    }

    /// Rule 2: *c* is 0 and *t* is drawn from [I/2, I).
    fn begin(&mut self, length: Duration, now: Duration, draws: &mut Draws) {
        self.interval = Some(Interval {
            length,
            ends: now.saturating_add(length),
            speaks: Some(now.saturating_add(draws.between(length / 2, length))),
            consistent: 0,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn started(seed: u64) -> (Trickle, Draws) {
        let config = TrickleConfig {
            i_min: 4 * SECOND,
            i_max_doublings: 3,
            k: 2,
        };
        let mut trickle = Trickle::new(config);
        let mut draws = Draws::new(seed);
        trickle.start(Duration::ZERO, &mut draws);
        (trickle, draws)
    }

    /// The next turn, and when it came.
    fn next_turn(trickle: &mut Trickle, draws: &mut Draws) -> (Duration, Turn) {
        loop {
            let now = trickle.next_timeout().unwrap();
            if let Some(turn) = trickle.poll(now, draws) {
                return (now, turn);
            }
        }
    }

    #[test]
    fn an_interval_doubles_until_imax_and_t_lies_in_its_second_half() {
        for seed in 0..50 {
            let (mut trickle, mut draws) = started(seed);
            let mut begins = Duration::ZERO;
            for length in [4, 8, 16, 32, 32, 32].map(|seconds| seconds * SECOND) {
                assert_eq!(trickle.length(), Some(length));
                let (t, turn) = next_turn(&mut trickle, &mut draws);
                assert!((begins + length / 2..begins + length).contains(&t));
                assert_eq!(turn, Turn::Speak);
                begins += length;
                assert_eq!(trickle.next_timeout(), Some(begins));
                assert_eq!(trickle.poll(begins, &mut draws), None);
            }
        }
    }

    #[test]
    fn k_consistent_announcements_suppress_ours_in_that_interval_only() {
        let (mut trickle, mut draws) = started(1);
        trickle.consistent();
        assert_eq!(next_turn(&mut trickle, &mut draws).1, Turn::Speak);
        trickle.poll(4 * SECOND, &mut draws);
        trickle.consistent();
        trickle.consistent();
        assert_eq!(next_turn(&mut trickle, &mut draws).1, Turn::Suppressed);
        assert_eq!(next_turn(&mut trickle, &mut draws).1, Turn::Speak);
    }

    #[test]
    fn an_inconsistency_resets_to_imin_and_leaves_an_interval_of_imin_alone() {
        let (mut trickle, mut draws) = started(2);
        let t = trickle.next_timeout();
        trickle.inconsistent(SECOND, &mut draws);
        assert_eq!(trickle.next_timeout(), t, "rule 6");

        next_turn(&mut trickle, &mut draws);
        trickle.poll(4 * SECOND, &mut draws);
        assert_eq!(trickle.length(), Some(8 * SECOND));
        trickle.inconsistent(5 * SECOND, &mut draws);
        assert_eq!(trickle.length(), Some(4 * SECOND));
        let t = trickle.next_timeout().unwrap();
        assert!((7 * SECOND..9 * SECOND).contains(&t));
    }

    #[test]
    fn k_of_zero_never_suppresses() {
        let mut trickle = Trickle::new(TrickleConfig {
            k: 0,
            ..TrickleConfig::default()
        });
        let mut draws = Draws::new(3);
        trickle.start(Duration::ZERO, &mut draws);
        (0..9).for_each(|_| trickle.consistent());
        assert_eq!(next_turn(&mut trickle, &mut draws).1, Turn::Speak);
    }

    #[test]
    fn a_driver_that_slept_goes_on_with_one_turn_and_not_with_all_it_missed() {
        let (mut trickle, mut draws) = started(4);
        assert_eq!(trickle.poll(500 * SECOND, &mut draws), Some(Turn::Speak));
        assert_eq!(trickle.poll(500 * SECOND, &mut draws), None);
        assert!(trickle.next_timeout().unwrap() > 500 * SECOND);
    }

    #[test]
    fn intervals_of_no_length_or_of_any_length_do_no_harm() {
        for i_min in [Duration::ZERO, Duration::MAX] {
            let mut trickle = Trickle::new(TrickleConfig {
                i_min,
                i_max_doublings: u32::MAX,
                k: 1,
            });
            let mut draws = Draws::new(5);
            trickle.start(SECOND, &mut draws);
            assert!(trickle.next_timeout().unwrap() > SECOND);
            trickle.poll(2 * SECOND, &mut draws);
        }
    }
}
