//! Random numbers: splitmix64, the same on every machine for the same seed.

/// A stream of numbers.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// The stream of a seed.
    pub fn new(seed: u64) -> Random {
        Random(seed)
    }

    /// The stream of one block of executions of a target.
    pub fn of_block(seed: u64, target: &str, block: u64) -> Random {
        let name = xxhash_rust::xxh3::xxh3_64(target.as_bytes());
        let mut mixed = Random(seed ^ name);
        Random(mixed.next() ^ block.wrapping_mul(0xd6e8_feb8_6659_fd93))
    }

    /// The next number.
    #[expect(clippy::should_implement_trait, reason = "a stream without end needs no Option")]
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`; 0 if that is 0.
    pub fn below(&mut self, end: usize) -> usize {
        ((u128::from(self.next()) * end as u128) >> 64) as usize
    }

    /// True once in `n` times.
    pub fn once_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }
}
