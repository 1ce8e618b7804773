//! Gemma 3 text (Gemma team 2025): norms before and after each sublayer, QK norm, GeGLU, five windowed layers to
//! one global layer with rotary bases of their own.

use super::Architecture;
use crate::block::{BlockRun, Module};
use galen_ops::{Result, Traced};

pub(super) struct Gemma3;

impl Architecture for Gemma3 {
    fn name(&self) -> &'static str {
        "gemma3"
    }

    fn norms(&self) -> &'static [&'static str] {
        &[
            "input_layernorm",
            "post_attention_layernorm",
            "pre_feedforward_layernorm",
            "post_feedforward_layernorm",
            "self_attn.q_norm",
            "self_attn.k_norm",
        ]
    }

    fn block(&self, run: &mut BlockRun, x: &Traced) -> Result<Traced> {
        let x = {
            // What attention leaves ends here, before the wider half of the block.
            let [q, k, v] = run.normed("input_layernorm", [Module::Q, Module::K, Module::V], x)?;
            let (q, k) = (run.norm("self_attn.q_norm", &q)?, run.norm("self_attn.k_norm", &k)?);
            let (q, k) = (run.rope(&q)?, run.rope(&k)?);
            let a = run.attention(&q, &k, &v)?;
            let a = run.linear(Module::O, &a)?;
            let a = run.norm("post_attention_layernorm", &a)?;
            run.add(x, &a)?
        };
        let m = run.feed_forward("pre_feedforward_layernorm", &x)?;
        let m = run.norm("post_feedforward_layernorm", &m)?;
        run.add(&x, &m)
    }
}
