//! A whole model in one small file: two llama blocks of random weights, a byte-level tokenizer, a chat template. Enough
//! for every command to run without a download.

use crate::fuzz::Random;
use crate::gguf_writer::{GgufWriter, Meta};

const HIDDEN: u64 = 32;
const FFN: u64 = 64;
const HEADS: u64 = 4;
const KV_HEADS: u64 = 2;
const LAYERS: u64 = 2;

/// Control tokens behind the 256 byte tokens: end of text, begin of turn, end of turn.
const CONTROL: [&str; 3] = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"];

const TEMPLATE: &str = "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + \
                        '<|im_end|>' + '\\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}\
                        {% endif %}";

/// How GPT-2 writes bytes as characters, in the order of the bytes: printable ones as they are, others from U+0100 on.
fn byte_tokens() -> Vec<String> {
    let printable = |b: u32| matches!(b, 0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff);
    let mut shifted = 0x100..;
    let character = |b: u32| if printable(b) { Some(b) } else { shifted.next() };
    (0..256).filter_map(character).filter_map(char::from_u32).map(String::from).collect()
}

/// Adds a byte-level tokenizer of `vocab` tokens, at least 259, and a chat template: one token a byte, three control
/// tokens, the rest unused.
pub(crate) fn tokenizer(out: GgufWriter, vocab: usize) -> GgufWriter {
    let mut tokens = byte_tokens();
    let first_control = tokens.len() as u32;
    tokens.extend(CONTROL.map(String::from));
    let used = tokens.len();
    tokens.extend((used..vocab).map(|i| format!("<unused{i}>")));
    // GGUF's token types: 1 normal, 3 control, 5 unused.
    let kind = |i: usize| match i {
        i if i < first_control as usize => 1,
        i if i < used => 3,
        _ => 5,
    };
    let types = (0..tokens.len()).map(kind).collect();
    out.with("tokenizer.ggml.model", "gpt2")
        .with("tokenizer.ggml.pre", "gpt-2")
        .with("tokenizer.ggml.tokens", Meta::Strs(tokens))
        .with("tokenizer.ggml.token_type", Meta::I32s(types))
        .with("tokenizer.ggml.merges", Meta::Strs(Vec::new()))
        .with("tokenizer.ggml.bos_token_id", first_control)
        .with("tokenizer.ggml.eos_token_id", first_control + 2)
        .with("tokenizer.ggml.add_bos_token", Meta::Bool(false))
        .with("tokenizer.chat_template", TEMPLATE)
}

/// The file's bytes; the same seed gives the same model. 259 tokens: one a byte, and three control tokens.
pub fn tiny_gguf(seed: u64) -> Vec<u8> {
    let vocab = 256 + CONTROL.len() as u64;
    let out = GgufWriter::default()
        .with("general.architecture", "llama")
        .with("general.name", "tiny")
        .with("llama.context_length", 512_u32)
        .with("llama.embedding_length", HIDDEN as u32)
        .with("llama.block_count", LAYERS as u32)
        .with("llama.feed_forward_length", FFN as u32)
        .with("llama.attention.head_count", HEADS as u32)
        .with("llama.attention.head_count_kv", KV_HEADS as u32)
        .with("llama.attention.layer_norm_rms_epsilon", 1e-5_f32)
        .with("llama.rope.freq_base", 10_000.0_f32)
        .with("llama.vocab_size", vocab as u32);
    let mut out = tokenizer(out, vocab as usize);
    let random = &mut Random::new(seed);
    let mut matrix = |out: &mut GgufWriter, name: &str, rows: u64, columns: u64, scale: f32| {
        let values: Vec<f32> = (0..rows * columns).map(|_| scale * uniform(random)).collect();
        out.tensor_f32(name, &[rows, columns], &values);
    };
    let ones = vec![1.0; HIDDEN as usize];
    let kv = HIDDEN / HEADS * KV_HEADS;
    matrix(&mut out, "token_embd.weight", vocab, HIDDEN, 1.0);
    for layer in 0..LAYERS {
        for norm in ["attn_norm", "ffn_norm"] {
            out.tensor_f32(&format!("blk.{layer}.{norm}.weight"), &[HIDDEN], &ones);
        }
        for (name, rows, columns) in [
            ("attn_q", HIDDEN, HIDDEN),
            ("attn_k", kv, HIDDEN),
            ("attn_v", kv, HIDDEN),
            ("attn_output", HIDDEN, HIDDEN),
            ("ffn_gate", FFN, HIDDEN),
            ("ffn_up", FFN, HIDDEN),
            ("ffn_down", HIDDEN, FFN),
        ] {
            let scale = (3.0 / columns as f32).sqrt();
            matrix(&mut out, &format!("blk.{layer}.{name}.weight"), rows, columns, scale);
        }
    }
    out.tensor_f32("output_norm.weight", &[HIDDEN], &ones);
    matrix(&mut out, "output.weight", vocab, HIDDEN, (3.0 / HIDDEN as f32).sqrt());
    out.bytes()
}

/// Uniform in [-1, 1), on a grid that f32 holds exactly.
fn uniform(random: &mut Random) -> f32 {
    (random.bits() >> 40) as f32 / (1 << 23) as f32 - 1.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_has_a_token_of_its_own() {
        let tokens = byte_tokens();
        let distinct: std::collections::BTreeSet<_> = tokens.iter().collect();
        assert_eq!((tokens.len(), distinct.len()), (256, 256));
        assert_eq!((tokens[0x20].as_str(), tokens[0x41].as_str()), ("\u{120}", "A"));
    }

    #[test]
    fn the_same_seed_gives_the_same_file() {
        assert!(tiny_gguf(1) == tiny_gguf(1) && tiny_gguf(1) != tiny_gguf(2));
    }
}
