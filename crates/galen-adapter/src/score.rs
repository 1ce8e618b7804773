//! A reward model's head: one row `[1, C]` over hidden states, trained whole beside the low-rank matrices.
//!
//! transformers calls the layer `score`; PEFT saves it whole, as a module of `modules_to_save` of task type `SEQ_CLS`.

use crate::adapter::{Adapter, name_key};
use crate::random::normal;

/// PEFT's key of the head.
pub(crate) const KEY: &str = "base_model.model.score.weight";
/// The modules PEFT saves whole for sequence classification: whichever of them a model has.
pub(crate) const MODULES: [&str; 2] = ["classifier", "score"];

impl Adapter {
    /// This adapter with a head over hidden states of `width` values. A head that is there stays; a new one is normal with
    /// standard deviation `std` (transformers: the model's `initializer_range`), by the adapter's seed.
    #[must_use]
    pub fn with_score_head(mut self, width: usize, std: f64) -> Self {
        let key = [self.config.seed, u64::MAX, name_key("score")];
        let fresh = || (0..width as u64).map(|i| (normal(&key, i) * std) as f32).collect();
        self.score_head.get_or_insert_with(fresh);
        self
    }

    /// The head `[C]` of a reward model's adapter. Such an adapter scores answers; it writes none.
    pub fn score_head(&self) -> Option<&[f32]> {
        self.score_head.as_deref()
    }
}
