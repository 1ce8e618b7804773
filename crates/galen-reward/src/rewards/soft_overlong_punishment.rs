//! DAPO's length penalty (Yu et al. 2025, "DAPO: An Open-Source LLM Reinforcement Learning System at Scale",
//! arXiv:2503.14476, equation 13).

use crate::options::{Kind, Param};
use crate::{Completion, ConfigError, Options, Reward, RewardEntry, RewardError};

pub(crate) const ENTRY: RewardEntry = RewardEntry {
    name: "soft_overlong_punishment",
    about: "0 up to a length, falling to -1 at the longest allowed (DAPO, equation 13)",
    doc: "With y tokens, L `max_completion_len` and C `soft_punish_cache`: 0 for y <= L - C, (L - C - y) / C up to \
          L, -1 beyond (Yu et al. 2025, arXiv:2503.14476).",
    params: &[PARAMS],
    build,
};

const PARAMS: &[Param] = &[
    Param::required("max_completion_len", Kind::Count, "tokens from which the reward is -1"),
    Param::required("soft_punish_cache", Kind::Count, "tokens before that over which it falls; 0: at once"),
];

fn build(options: &Options<'_>) -> Result<Box<dyn Reward>, ConfigError> {
    let max = options.positive("max_completion_len")?;
    let cache = options.count("soft_punish_cache")?;
    if cache > max {
        return Err(
            options.wrong("soft_punish_cache", format!("is `{cache}`, above `max_completion_len`, `{max}`"))
        );
    }
    Ok(Box::new(SoftOverlong { max, cache }))
}

struct SoftOverlong {
    max: usize,
    cache: usize,
}

impl Reward for SoftOverlong {
    fn reads_tokens(&self) -> bool {
        true
    }

    fn score(&self, completions: &[Completion<'_>]) -> Result<Vec<Option<f64>>, RewardError> {
        let free = self.max - self.cache;
        let one = |c: &Completion<'_>| match c.token_ids.len() {
            y if y <= free => 0.0,
            y if y <= self.max => (free as f64 - y as f64) / self.cache as f64,
            _ => -1.0,
        };
        Ok(completions.iter().map(|c| Some(one(c))).collect())
    }
}
