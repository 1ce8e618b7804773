//! Llama 2 and 3, SmolLM2, TinyLlama, Mistral (Touvron et al. 2023): pre-norm, rotary attention, SwiGLU.

use super::Architecture;
use crate::block::{BlockRun, Module};
use galen_ops::{Result, Traced};

pub(super) struct Llama;

impl Architecture for Llama {
    fn name(&self) -> &'static str {
        "llama"
    }

    fn norms(&self) -> &'static [&'static str] {
        &["input_layernorm", "post_attention_layernorm"]
    }

    fn block(&self, run: &mut BlockRun, x: &Traced) -> Result<Traced> {
        pre_norm_block(run, x, |_, _, head| Ok(head))
    }
}

/// The block that Llama, Qwen 2 and Qwen 3 share; `head` acts on q and k before they are rotated.
pub(super) fn pre_norm_block(
    run: &mut BlockRun,
    x: &Traced,
    head: impl Fn(&mut BlockRun, Module, Traced) -> Result<Traced>,
) -> Result<Traced> {
    let x = {
        // What attention leaves ends here, before the wider half of the block.
        let [q, k, v] = run.normed("input_layernorm", [Module::Q, Module::K, Module::V], x)?;
        let (q, k) = (head(run, Module::Q, q)?, head(run, Module::K, k)?);
        let (q, k) = (run.rope(&q)?, run.rope(&k)?);
        let a = run.attention(&q, &k, &v)?;
        let a = run.linear(Module::O, &a)?;
        run.add(x, &a)?
    };
    let m = run.feed_forward("post_attention_layernorm", &x)?;
    run.add(&x, &m)
}
