//! Qwen 2 and 2.5 (Yang et al. 2024): Llama's block with biases on q, k and v.

use super::Architecture;
use super::llama::pre_norm_block;
use crate::block::BlockRun;
use galen_ops::{Result, Traced};

pub(super) struct Qwen2;

impl Architecture for Qwen2 {
    fn name(&self) -> &'static str {
        "qwen2"
    }

    fn norms(&self) -> &'static [&'static str] {
        &["input_layernorm", "post_attention_layernorm"]
    }

    fn qkv_bias(&self) -> bool {
        true
    }

    fn block(&self, run: &mut BlockRun, x: &Traced) -> Result<Traced> {
        pre_norm_block(run, x, |_, _, head| Ok(head))
    }
}
