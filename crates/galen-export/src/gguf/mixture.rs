//! Which tensor gets which type: llama.cpp's mixtures (`llama-quantize`), so that a file is as large and as good as one of
//! the same name made there.

use galen_model::ModelConfig;
use galen_ops::quant::WeightDtype;

/// A named choice of types.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quantization {
    /// llama.cpp's name for it, in lower case.
    pub name: &'static str,
    /// The type of most matrices.
    pub dtype: WeightDtype,
    /// `general.file_type`.
    pub file_type: u32,
    /// Whether some matrices get more bits (`_M`).
    mixed: bool,
}

const fn plain(name: &'static str, dtype: WeightDtype, file_type: u32) -> Quantization {
    Quantization { name, dtype, file_type, mixed: false }
}

/// Every choice.
pub static QUANTIZATIONS: &[Quantization] = &[
    plain("f32", WeightDtype::F32, 0),
    plain("f16", WeightDtype::F16, 1),
    plain("bf16", WeightDtype::BF16, 32),
    plain("q8_0", WeightDtype::Q8_0, 7),
    plain("q6_k", WeightDtype::Q6_K, 18),
    Quantization { name: "q5_k_m", dtype: WeightDtype::Q5_K, file_type: 17, mixed: true },
    Quantization { name: "q4_k_m", dtype: WeightDtype::Q4_K, file_type: 15, mixed: true },
    plain("q4_0", WeightDtype::Q4_0, 2),
];

impl Quantization {
    /// The one of that name, whatever its case.
    pub fn find(name: &str) -> Option<Self> {
        QUANTIZATIONS.iter().copied().find(|q| q.name.eq_ignore_ascii_case(name))
    }

    /// The one that makes every matrix of one type.
    pub fn of_dtype(dtype: WeightDtype) -> Option<Self> {
        QUANTIZATIONS.iter().copied().find(|q| q.dtype == dtype && !q.mixed)
    }

    /// The type of a tensor by its GGUF name, with rows of `cols` elements.
    pub fn tensor_dtype(self, config: &ModelConfig, name: &str, n_dims: usize, cols: usize) -> WeightDtype {
        if n_dims < 2 || !name.ends_with("weight") || name.ends_with("_norm.weight") {
            return WeightDtype::F32;
        }
        if self.dtype.block_size() == 1 {
            return self.dtype;
        }
        let tied = config.tie_word_embeddings && name == "token_embd.weight";
        let wanted = if name == "output.weight" || tied {
            if self.dtype == WeightDtype::Q8_0 { WeightDtype::Q8_0 } else { WeightDtype::Q6_K }
        } else {
            self.of_block(config, name)
        };
        fitting(wanted, cols)
    }

    fn of_block(self, config: &ModelConfig, name: &str) -> WeightDtype {
        if !self.mixed {
            return self.dtype;
        }
        let part = name.strip_prefix("blk.").and_then(|rest| rest.split_once('.'));
        let Some((layer, part)) = part.and_then(|(l, part)| Some((l.parse::<usize>().ok()?, part))) else {
            return self.dtype;
        };
        let sensitive = matches!(part, "attn_v.weight" | "ffn_down.weight");
        if sensitive && more_bits(layer, config.n_layers) {
            return WeightDtype::Q6_K;
        }
        // Llama 2 70B and its like: eight heads share a v.
        let grouped = config.n_layers == 80 && config.n_heads != config.n_kv_heads;
        if part == "attn_v.weight" && grouped && self.dtype == WeightDtype::Q4_K {
            return WeightDtype::Q5_K;
        }
        self.dtype
    }
}

/// The first and last eighth of the layers, and every third between.
fn more_bits(layer: usize, layers: usize) -> bool {
    let eighth = layers / 8;
    layer < eighth || layer >= 7 * layers / 8 || (layer - eighth) % 3 == 2
}

/// The nearest type whose blocks fill the row.
fn fitting(dtype: WeightDtype, cols: usize) -> WeightDtype {
    if cols.is_multiple_of(dtype.block_size()) {
        return dtype;
    }
    let smaller = match dtype {
        WeightDtype::Q4_K => WeightDtype::Q5_0,
        WeightDtype::Q5_K => WeightDtype::Q5_1,
        WeightDtype::Q6_K => WeightDtype::Q8_0,
        other => other,
    };
    if cols.is_multiple_of(smaller.block_size()) { smaller } else { WeightDtype::F16 }
}
