//! Qwen 3 (Yang et al. 2025): Llama's block with a norm over each head of q and k.

use super::Architecture;
use super::llama::pre_norm_block;
use crate::block::{BlockRun, Module};
use galen_ops::{Result, Traced};

pub(super) struct Qwen3;

impl Architecture for Qwen3 {
    fn name(&self) -> &'static str {
        "qwen3"
    }

    fn norms(&self) -> &'static [&'static str] {
        &["input_layernorm", "post_attention_layernorm", "self_attn.q_norm", "self_attn.k_norm"]
    }

    fn block(&self, run: &mut BlockRun, x: &Traced) -> Result<Traced> {
        pre_norm_block(run, x, |run, module, head| {
            run.norm(if module == Module::Q { "self_attn.q_norm" } else { "self_attn.k_norm" }, &head)
        })
    }
}
