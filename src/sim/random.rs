//! Streams of random numbers, one for each concern of a world.
//!
//! Invariants: a stream depends on its seed and name alone, so that a further draw in one shifts no
//! other; only integers are used, so that every platform draws the same.

/// One in this many: the unit of [`Random::chance`].
pub const MILLION: u32 = 1_000_000;

/// A stream (xoshiro256**).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Random {
    state: [u64; 4],
}

impl Random {
    /// The stream of a seed.
    pub fn new(seed: u64) -> Random {
        let mut seed = seed;
        Random { state: core::array::from_fn(|_| splitmix(&mut seed)) }
    }

    /// The stream of a seed for one concern, named in the code.
    pub fn stream(seed: u64, name: &str) -> Random {
        // FNV-1a: names are short and few, they only have to differ.
        let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
        let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325, step);
        Random::new(seed ^ hash.rotate_left(17))
    }

    /// A stream of its own for the `number`-th of several; this one is not moved.
    pub fn split(&self, number: u64) -> Random {
        let mut mixed = number;
        Random::new(self.state[0] ^ self.state[2].rotate_left(32) ^ splitmix(&mut mixed))
    }

    /// The next 64 bits.
    pub fn bits(&mut self) -> u64 {
        let [a, b, c, d] = &mut self.state;
        let result = b.wrapping_mul(5).rotate_left(7).wrapping_mul(9);
        let shifted = *b << 17;
        *c ^= *a;
        *d ^= *b;
        *b ^= *c;
        *a ^= *d;
        *c ^= shifted;
        *d = d.rotate_left(45);
        result
    }

    /// A number below `end`.
    ///
    /// # Panics
    /// If `end` is 0.
    pub fn below(&mut self, end: u64) -> u64 {
        assert!(end > 0, "nothing is below 0");
        // The high half of a product: uniform to within 2^-64 times `end`.
        ((u128::from(self.bits()) * u128::from(end)) >> 64) as u64
    }

    /// A number of `from..to`.
    ///
    /// # Panics
    /// If the range is empty.
    pub fn range(&mut self, range: core::ops::Range<u64>) -> u64 {
        assert!(range.start < range.end, "an empty range");
        range.start + self.below(range.end - range.start)
    }

    /// True so many times in a million. 0 draws nothing.
    pub fn chance(&mut self, per_million: u32) -> bool {
        per_million > 0 && self.below(u64::from(MILLION)) < u64::from(per_million)
    }

    /// True half of the time.
    pub fn coin(&mut self) -> bool {
        self.bits() >> 63 == 1
    }

    /// One of a list.
    ///
    /// # Panics
    /// If the list is empty.
    pub fn pick<'a, T>(&mut self, list: &'a [T]) -> &'a T {
        &list[self.below(list.len() as u64) as usize]
    }

    /// An index, each as often as its weight says.
    ///
    /// # Panics
    /// If the weights are all 0.
    pub fn weighted(&mut self, weights: &[u32]) -> usize {
        let sum = weights.iter().map(|weight| u64::from(*weight)).sum();
        let mut drawn = self.below(sum);
        for (index, weight) in weights.iter().enumerate() {
            match drawn.checked_sub(u64::from(*weight)) {
                Some(rest) => drawn = rest,
                None => return index,
            }
        }
        unreachable!("a number below the sum lies in one of its parts")
    }

    /// A waiting time with about this mean, as of something that happens at any moment alike.
    pub fn exponential(&mut self, mean: u64) -> u64 {
        // -ln(u) by the binary logarithm, its fraction taken as linear: an exact logarithm would
        // need floating point, and that differs between platforms.
        let drawn = self.bits() | 1;
        let zeros = u128::from(drawn.leading_zeros());
        // The 32 bits behind the first one.
        let fraction = u128::from(((drawn << zeros) << 1) >> 32);
        let log2 = ((zeros + 1) << 32) - fraction;
        // ln 2 in 32 bits behind the point; the mean of log2 is 1.5 here, of the true one 1.4427.
        const LN2: u128 = 2_863_311_531;
        ((u128::from(mean) * log2 * LN2) >> 64) as u64
    }

    /// Fills `out`.
    pub fn fill(&mut self, out: &mut [u8]) {
        for chunk in out.chunks_mut(8) {
            let bytes = self.bits().to_le_bytes();
            chunk.copy_from_slice(&bytes[..chunk.len()]);
        }
    }

    /// Brings a list into any order.
    pub fn shuffle<T>(&mut self, list: &mut [T]) {
        for index in (1..list.len()).rev() {
            list.swap(index, self.below(index as u64 + 1) as usize);
        }
    }
}

fn splitmix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A seed of last year has to draw the same next year: these numbers never change.
    #[test]
    fn streams_are_fixed() {
        let mut random = Random::new(0);
        let first = [
            11_091_344_671_253_066_420,
            13_793_997_310_169_335_082,
            1_900_383_378_846_508_768,
            7_684_712_102_626_143_532,
        ];
        assert_eq!([(); 4].map(|()| random.bits()), first);
        let draws = |mut random: Random| [random.bits(), random.bits()];
        assert_eq!(draws(Random::stream(7, "disk")), draws(Random::stream(7, "disk")));
        assert_ne!(draws(Random::stream(7, "disk")), draws(Random::stream(7, "net")));
        assert_ne!(draws(Random::stream(7, "disk")), draws(Random::stream(8, "disk")));
        let parent = Random::new(1);
        assert_ne!(draws(parent.split(0)), draws(parent.split(1)));
        assert_eq!(parent, Random::new(1));
    }

    #[test]
    fn draws_are_spread() {
        let mut random = Random::new(3);
        let mut seen = [0u32; 6];
        (0..6000).for_each(|_| seen[random.below(6) as usize] += 1);
        assert!(seen.iter().all(|count| (800..1200).contains(count)), "{seen:?}");
        let hits = (0..100_000).filter(|_| random.chance(MILLION / 4)).count();
        assert!((24_000..26_000).contains(&hits), "{hits}");
        assert!(!(0..1000).any(|_| random.chance(0)) && (0..1000).all(|_| random.chance(MILLION)));
        let mut parts = [0u32; 3];
        (0..10_000).for_each(|_| parts[random.weighted(&[1, 0, 3])] += 1);
        assert!(parts[1] == 0 && (7000..8000).contains(&parts[2]), "{parts:?}");
        let waits: Vec<u64> = (0..100_000).map(|_| random.exponential(1000)).collect();
        let mean = waits.iter().sum::<u64>() / waits.len() as u64;
        assert!((980..1020).contains(&mean), "{mean}");
        let long = waits.iter().filter(|wait| **wait > 3000).count();
        assert!((4000..6500).contains(&long), "{long}");
    }
}
