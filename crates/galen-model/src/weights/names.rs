//! Hugging Face tensor names and their GGUF counterparts.

/// (Hugging Face, GGUF) names within a block that all families share.
const BLOCK: &[(&str, &str)] = &[
    ("input_layernorm.weight", "attn_norm.weight"),
    ("self_attn.q_proj.weight", "attn_q.weight"),
    ("self_attn.k_proj.weight", "attn_k.weight"),
    ("self_attn.v_proj.weight", "attn_v.weight"),
    ("self_attn.o_proj.weight", "attn_output.weight"),
    ("self_attn.q_proj.bias", "attn_q.bias"),
    ("self_attn.k_proj.bias", "attn_k.bias"),
    ("self_attn.v_proj.bias", "attn_v.bias"),
    ("self_attn.o_proj.bias", "attn_output.bias"),
    ("self_attn.q_norm.weight", "attn_q_norm.weight"),
    ("self_attn.k_norm.weight", "attn_k_norm.weight"),
    ("mlp.gate_proj.weight", "ffn_gate.weight"),
    ("mlp.up_proj.weight", "ffn_up.weight"),
    ("mlp.down_proj.weight", "ffn_down.weight"),
];

/// The norm before the feed-forward layer, in families with two norms a block.
const PRE_NORM: &[(&str, &str)] = &[("post_attention_layernorm.weight", "ffn_norm.weight")];

/// The norms around both sublayers, in families with four.
const SANDWICH: &[(&str, &str)] = &[
    ("post_attention_layernorm.weight", "post_attention_norm.weight"),
    ("pre_feedforward_layernorm.weight", "ffn_norm.weight"),
    ("post_feedforward_layernorm.weight", "post_ffw_norm.weight"),
];

/// Names outside the blocks.
const OUTER: &[(&str, &str)] = &[
    ("model.embed_tokens.weight", "token_embd.weight"),
    ("model.norm.weight", "output_norm.weight"),
    ("lm_head.weight", "output.weight"),
];

/// What a Hugging Face checkpoint may put where we write `model.`: plain causal models, the language model of older
/// and newer image-text checkpoints, and bare backbones.
pub const HF_PREFIXES: &[&str] = &["model.", "language_model.model.", "model.language_model.", ""];

fn block_names(sandwich: bool) -> impl Iterator<Item = &'static (&'static str, &'static str)> {
    BLOCK.iter().chain(if sandwich { SANDWICH } else { PRE_NORM })
}

/// `model.layers.3.mlp.up_proj.weight` to `blk.3.ffn_up.weight`.
pub fn to_gguf(name: &str, sandwich: bool) -> Option<String> {
    if let Some((_, gguf)) = OUTER.iter().find(|(hf, _)| *hf == name) {
        return Some((*gguf).to_owned());
    }
    let (layer, rest) = name.strip_prefix("model.layers.")?.split_once('.')?;
    let (_, gguf) = block_names(sandwich).find(|(hf, _)| *hf == rest)?;
    Some(format!("blk.{layer}.{gguf}"))
}

/// `blk.3.ffn_up.weight` to `model.layers.3.mlp.up_proj.weight`.
pub fn from_gguf(name: &str, sandwich: bool) -> Option<String> {
    if let Some((hf, _)) = OUTER.iter().find(|(_, gguf)| *gguf == name) {
        return Some((*hf).to_owned());
    }
    let (layer, rest) = name.strip_prefix("blk.")?.split_once('.')?;
    let (hf, _) = block_names(sandwich).find(|(_, gguf)| *gguf == rest)?;
    Some(format!("model.layers.{layer}.{hf}"))
}

/// Whether the tensor is an RMS norm's weight.
pub fn is_norm(name: &str) -> bool {
    name.ends_with("norm.weight")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_map_both_ways() {
        for sandwich in [false, true] {
            for (hf, gguf) in block_names(sandwich) {
                let (hf, gguf) = (format!("model.layers.12.{hf}"), format!("blk.12.{gguf}"));
                assert_eq!(to_gguf(&hf, sandwich).as_deref(), Some(&gguf[..]));
                assert_eq!(from_gguf(&gguf, sandwich).as_deref(), Some(&hf[..]));
            }
        }
        assert_eq!(to_gguf("lm_head.weight", false).as_deref(), Some("output.weight"));
        assert_eq!(from_gguf("rope_freqs.weight", false), None);
    }
}
