//! Choosing the next token from logits.

use galen_ops::ops::softmax_weights;

/// How tokens are drawn. The default is greedy.
#[derive(Debug, Clone, PartialEq)]
pub struct Sampling {
    /// Divides the logits; 0, or less than a millionth, takes the most likely token.
    pub temperature: f32,
    /// Keep the k most likely; 0 keeps all.
    pub top_k: usize,
    /// Keep the most likely tokens until their probabilities reach p (Holtzman et al. 2020); 1 keeps all.
    pub top_p: f32,
    /// Keep tokens at least this share of the most likely one's probability; 0 keeps all.
    pub min_p: f32,
    /// Divides positive and multiplies negative logits of tokens already in the text (Keskar et al. 2019).
    pub repeat_penalty: f32,
    /// Seed; the draw of token n depends on (seed, n) alone.
    pub seed: u64,
}

impl Default for Sampling {
    fn default() -> Self {
        Self { temperature: 0.0, top_k: 0, top_p: 1.0, min_p: 0.0, repeat_penalty: 1.0, seed: 0 }
    }
}

impl Sampling {
    /// The next token. `seen`: ids already in the text; `n`: how many tokens were drawn before. Ties go to the
    /// smaller id.
    pub fn next(&self, logits: &[f32], seen: &[u32], n: u64) -> u32 {
        let penalised;
        let logits = if self.repeat_penalty == 1.0 {
            logits
        } else {
            penalised = self.penalise(logits, seen);
            &penalised
        };
        if self.temperature < COLDEST {
            return argmax(logits);
        }
        let mut weights = Vec::new();
        let sum = softmax_weights(logits, 1.0 / self.temperature, &mut weights).sum;
        let draw = uniform(self.seed, n);
        if self.keeps_all(logits.len()) {
            return pick(0..logits.len() as u32, &weights, draw * sum);
        }
        let (order, mass) = self.likeliest(&weights, sum);
        pick(order.into_iter(), &weights, draw * mass)
    }

    fn penalise(&self, logits: &[f32], seen: &[u32]) -> Vec<f32> {
        let mut logits = logits.to_vec();
        let mut seen = seen.to_vec();
        seen.sort_unstable();
        seen.dedup();
        for id in seen {
            if let Some(l) = logits.get_mut(id as usize) {
                *l = if *l > 0.0 { *l / self.repeat_penalty } else { *l * self.repeat_penalty };
            }
        }
        logits
    }

    fn keeps_all(&self, vocabulary: usize) -> bool {
        (self.top_k == 0 || self.top_k >= vocabulary) && self.top_p >= 1.0 && self.min_p <= 0.0
    }

    /// The tokens that the filters keep, the likeliest first, and the sum of their weights.
    fn likeliest(&self, weights: &[f32], sum: f64) -> (Vec<u32>, f64) {
        let weight = |id: u32| weights[id as usize];
        let before = |a: &u32, b: &u32| weight(*b).total_cmp(&weight(*a)).then(a.cmp(b));
        let mut order: Vec<u32> = (0..weights.len() as u32).collect();
        let k = if self.top_k == 0 { order.len() } else { self.top_k.min(order.len()) };
        let (mut sorted, mut kept, mut mass, mut total) = (0, 0, 0.0, sum);
        // Sorting begins with as many as are likely to be kept, and goes on only if they are.
        let mut next = if self.top_k == 0 { FIRST_SORTED } else { k };
        'kept: while sorted < k {
            let end = k.min(sorted + next);
            let rest = &mut order[sorted..];
            if end - sorted < rest.len() {
                rest.select_nth_unstable_by(end - sorted, before);
            }
            rest[..end - sorted].sort_unstable_by(before);
            sorted = end;
            next *= 4;
            if self.top_k > 0 {
                total = order[..k].iter().map(|id| f64::from(weight(*id))).sum();
            }
            while kept < sorted {
                let w = weight(order[kept]);
                if kept > 0 && (mass >= f64::from(self.top_p) * total || w < self.min_p) {
                    break 'kept;
                }
                mass += f64::from(w);
                kept += 1;
            }
        }
        order.truncate(kept);
        (order, mass)
    }
}

/// Below it the most likely token is taken: a division by less would overflow.
const COLDEST: f32 = 1e-6;

/// Tokens sorted at first where a filter goes by probability.
const FIRST_SORTED: usize = 256;

/// The token at which the weights summed so far pass `draw`.
fn pick(order: impl Iterator<Item = u32>, weights: &[f32], mut draw: f64) -> u32 {
    let mut last = 0;
    for id in order {
        let weight = f64::from(weights[id as usize]);
        draw -= weight;
        if draw < 0.0 {
            return id;
        }
        // Rounding may leave a rest behind the last token that can be drawn.
        if weight > 0.0 {
            last = id;
        }
    }
    last
}

/// `ln p` of a token under the softmax of the logits: temperature 1, nothing left out.
pub fn log_prob(logits: &[f32], id: u32) -> f32 {
    let norm = softmax_weights(logits, 1.0, &mut Vec::new());
    logits.get(id as usize).map_or(f32::NEG_INFINITY, |l| norm.log_prob(*l))
}

/// The most likely token; ties go to the smaller id.
pub fn argmax(logits: &[f32]) -> u32 {
    let mut best = 0;
    for (i, l) in logits.iter().enumerate() {
        if *l > logits[best] {
            best = i;
        }
    }
    best as u32
}

/// splitmix64 of (seed, n), in [0, 1).
fn uniform(seed: u64, n: u64) -> f64 {
    let mut z = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(n).wrapping_add(0x9e37_79b9_7f4a_7c15);
    for _ in 0..2 {
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
    }
    (z >> 11) as f64 / (1u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOGITS: [f32; 4] = [1.0, 3.0, 2.0, -1.0];

    fn counts(sampling: &Sampling) -> [usize; 4] {
        let mut counts = [0; 4];
        (0..4000).for_each(|n| counts[sampling.next(&LOGITS, &[], n) as usize] += 1);
        counts
    }

    #[test]
    fn greedy_takes_the_top_and_the_penalty_moves_it() {
        assert_eq!(Sampling::default().next(&LOGITS, &[], 0), 1);
        let penalised = Sampling { repeat_penalty: 2.0, ..Sampling::default() };
        assert_eq!(penalised.next(&LOGITS, &[1], 0), 2);
        // A temperature whose inverse is no number.
        for temperature in [1e-40, 1e-30, 1e-7] {
            assert_eq!(Sampling { temperature, ..Sampling::default() }.next(&LOGITS, &[], 0), 1);
        }
    }

    #[test]
    fn draws_follow_the_softmax() {
        let c = counts(&Sampling { temperature: 1.0, ..Sampling::default() });
        let total: f64 = LOGITS.iter().map(|l| f64::from(*l).exp()).sum();
        for (c, l) in c.iter().zip(LOGITS) {
            let expected = 4000.0 * f64::from(l).exp() / total;
            assert!((*c as f64 - expected).abs() <= 4.0 * expected.sqrt() + 5.0, "{c} for {expected}");
        }
    }

    #[test]
    fn filters_leave_out_the_tail() {
        let base = Sampling { temperature: 1.0, ..Sampling::default() };
        let only_two = [Sampling { top_k: 2, ..base.clone() }, Sampling { top_p: 0.8, ..base.clone() }];
        for s in only_two.iter().chain(&[Sampling { min_p: 0.2, ..base }]) {
            let c = counts(s);
            assert!(c[0] == 0 && c[3] == 0 && c[1] > 0 && c[2] > 0, "{s:?}: {c:?}");
        }
    }
}
