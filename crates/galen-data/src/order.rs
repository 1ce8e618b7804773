//! The order of rows: random numbers by counter, so that any epoch's order can be had without the ones before.

/// SplitMix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, 2014): a Weyl sequence and a
/// finaliser. Good enough to shuffle with, and four lines.
#[derive(Debug, Clone)]
pub struct SplitMix64 {
    state: u64,
}

impl SplitMix64 {
    /// A generator for one purpose: each key is mixed in turn, so (1, 2) and (2, 1) differ.
    pub fn keyed(keys: &[u64]) -> Self {
        let state = keys.iter().fold(0, |state, key| mix(state ^ mix(key.wrapping_add(GAMMA))));
        Self { state }
    }

    /// The next 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        self.state = self.state.wrapping_add(GAMMA);
        mix(self.state)
    }

    /// A number below `n` (0 where `n` is 0), without bias (Lemire: Fast Random Integer Generation, 2019).
    pub fn below(&mut self, n: u64) -> u64 {
        loop {
            let product = u128::from(self.next_u64()) * u128::from(n);
            let low = product as u64;
            if low >= n || low >= n.wrapping_neg() % n.max(1) {
                return (product >> 64) as u64;
            }
        }
    }

    /// Fisher-Yates.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            items.swap(i, self.below(i as u64 + 1) as usize);
        }
    }
}

const GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;

fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// The order in which epoch `epoch` visits `n` rows: row numbers, each once. The same on every machine.
pub fn epoch_order(n: usize, seed: u64, epoch: u64) -> Vec<usize> {
    let mut order: Vec<usize> = (0..n).collect();
    SplitMix64::keyed(&[seed, epoch]).shuffle(&mut order);
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generator_gives_the_published_numbers() {
        // Reference: the output of Vigna's splitmix64.c for x = 1234567.
        let mut g = SplitMix64 { state: 1_234_567 };
        let expect = [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423];
        assert_eq!([g.next_u64(), g.next_u64(), g.next_u64()], expect);
    }

    #[test]
    fn orders_are_permutations_that_differ_by_seed_and_epoch() {
        let order = epoch_order(1000, 42, 0);
        let mut sorted = order.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, (0..1000).collect::<Vec<_>>());
        assert_eq!(order, epoch_order(1000, 42, 0));
        assert_ne!(order, epoch_order(1000, 42, 1));
        assert_ne!(order, epoch_order(1000, 43, 0));
        assert_ne!(epoch_order(1000, 1, 2), epoch_order(1000, 2, 1));
        assert!(epoch_order(0, 1, 1).is_empty());
    }

    #[test]
    fn numbers_below_a_bound_are_even() {
        let mut g = SplitMix64::keyed(&[7]);
        let mut counts = [0_u32; 6];
        for _ in 0..60_000 {
            counts[g.below(6) as usize] += 1;
        }
        assert!(counts.iter().all(|c| c.abs_diff(10_000) < 500), "{counts:?}");
    }
}
