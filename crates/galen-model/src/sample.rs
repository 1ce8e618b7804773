//! Choosing the next token from logits.

/// How tokens are drawn. The default is greedy.
#[derive(Debug, Clone, PartialEq)]
pub struct Sampling {
    /// Divides the logits; 0 takes the most likely token.
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
        let mut logits = logits.to_vec();
        if self.repeat_penalty != 1.0 {
            let mut seen = seen.to_vec();
            seen.sort_unstable();
            seen.dedup();
            for id in seen {
                if let Some(l) = logits.get_mut(id as usize) {
                    *l = if *l > 0.0 { *l / self.repeat_penalty } else { *l * self.repeat_penalty };
                }
            }
        }
        if self.temperature <= 0.0 {
            return argmax(&logits);
        }
        let mut order: Vec<u32> = (0..logits.len() as u32).collect();
        let by_logit = |a: &u32, b: &u32| logits[*b as usize].total_cmp(&logits[*a as usize]).then(a.cmp(b));
        if self.top_k > 0 && self.top_k < order.len() {
            order.select_nth_unstable_by(self.top_k - 1, by_logit);
            order.truncate(self.top_k);
        }
        order.sort_unstable_by(by_logit);
        let top = order.first().map_or(0.0, |i| logits[*i as usize]);
        let scaled = |i: &u32| (f64::from(logits[*i as usize] - top) / f64::from(self.temperature)).exp();
        let weights: Vec<f64> = order.iter().map(scaled).collect();
        let total: f64 = weights.iter().sum();
        let mut kept = 0;
        let mut mass = 0.0;
        for w in &weights {
            if kept > 0 && (mass >= f64::from(self.top_p) * total || *w < f64::from(self.min_p)) {
                break;
            }
            mass += w;
            kept += 1;
        }
        let mut draw = uniform(self.seed, n) * mass;
        for (id, w) in order.iter().zip(&weights).take(kept) {
            draw -= w;
            if draw < 0.0 {
                return *id;
            }
        }
        order.get(kept.saturating_sub(1)).copied().unwrap_or(0)
    }
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
