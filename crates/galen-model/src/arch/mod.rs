//! One file a model family: which norms and biases a block has, and the order of its operations.

mod gemma3;
mod llama;
mod qwen2;
mod qwen3;

use crate::block::BlockRun;
use galen_ops::{Result, Traced};

/// A model family.
pub trait Architecture: Sync + Send {
    /// Name in our configuration.
    fn name(&self) -> &'static str;

    /// Hugging Face names of the block's RMS norms (`input_layernorm`, `self_attn.q_norm` ...).
    fn norms(&self) -> &'static [&'static str];

    /// Whether q, k and v have biases.
    fn qkv_bias(&self) -> bool {
        false
    }

    /// One block: hidden states `[T, C]` in and out.
    fn block(&self, run: &mut BlockRun, x: &Traced) -> Result<Traced>;
}

/// Every family. Adding one is its file and its line here.
pub static ARCHITECTURES: &[&dyn Architecture] =
    &[&llama::Llama, &qwen2::Qwen2, &qwen3::Qwen3, &gemma3::Gemma3];

/// The family of that name.
pub fn find(name: &str) -> Option<&'static dyn Architecture> {
    ARCHITECTURES.iter().copied().find(|a| a.name() == name)
}
