//! A whole model in one small file, of a shape that the CUDA kernels know: `tiny_model OUT.gguf`. For rehearsals of the program.

use galen_ops::quant::WeightDtype;
use galen_testkit::big_gguf::{LlamaShape, write_llama};
use std::path::Path;

fn main() -> std::io::Result<()> {
    let out = std::env::args().nth(1).unwrap_or_else(|| "tiny.gguf".into());
    let shape = LlamaShape {
        layers: 2,
        hidden: 128,
        ffn: 192,
        heads: 2,
        kv_heads: 1,
        vocab: 300,
        dtype: WeightDtype::Q8_0,
    };
    write_llama(Path::new(&out), shape, 3).map(drop)
}
