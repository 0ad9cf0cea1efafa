//! A small seeded generator (splitmix64), so that a seed means the same run everywhere.

/// Draws numbers from a seed.
#[derive(Clone)]
pub(crate) struct Rng(u64);

impl Rng {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ 0x5851_F42D_4C95_7F2D)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number below `bound`.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }

    /// A number from `from` to `to`, both included.
    pub(crate) fn between(&mut self, from: u64, to: u64) -> u64 {
        from + self.below(to - from + 1)
    }

    /// True once in `n` times.
    pub(crate) fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    pub(crate) fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len() as u64) as usize]
    }
}

/// Runs `test` for each of `count` seeds (`HEADWATER_SEED_FACTOR=<n>`: n times as many), or for
/// `HEADWATER_SEED` alone, and says how to run a seed again that fails.
pub(crate) fn for_seeds(count: u64, test: impl Fn(u64)) {
    let asked = |name| {
        let text = std::env::var(name).ok()?;
        Some(text.parse::<u64>().expect("seeds are numbers"))
    };
    let seeds = match asked("HEADWATER_SEED") {
        Some(seed) => seed..=seed,
        None => 1..=count * asked("HEADWATER_SEED_FACTOR").unwrap_or(1),
    };
    for seed in seeds {
        let run = std::panic::AssertUnwindSafe(|| test(seed));
        if let Err(panic) = std::panic::catch_unwind(run) {
            // A test runs on a thread of its name.
            let thread = std::thread::current();
            let name = thread.name().filter(|name| *name != "main");
            let only = name.map_or(String::new(), |name| format!(" -- --exact {name}"));
            eprintln!(
                "seed {seed} fails; replay it with\n  HEADWATER_SEED={seed} cargo test -p {} --test {}{only}",
                env!("CARGO_PKG_NAME"),
                env!("CARGO_CRATE_NAME"),
            );
            std::panic::resume_unwind(panic);
        }
    }
}
