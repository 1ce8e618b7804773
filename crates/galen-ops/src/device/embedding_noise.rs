//! Noise on token embeddings: the CPU's to the bit.

use super::{Argument, Backend, DeviceMatrix, Number, ints};
use crate::error::{Result, shape_error};

/// Adds the noise of `ops::EmbeddingNoise` to x `[T, C]` f32; of each token its data-set row (`uint64_t`), its position there
/// (`uint32_t`) and its factor (f32). `base`: hash of seed, epoch and module.
pub fn embedding_noise<B>(
    on: &impl Backend<Buffer = B>,
    x: &DeviceMatrix<B>,
    [rows, positions, factors]: [&B; 3],
    base: u64,
) -> Result<()> {
    x.expect("embedding_noise", x.rows, x.cols, Number::F32)?;
    if x.stride != x.cols || !x.cols.is_multiple_of(8) {
        return shape_error("embedding_noise", format!("{} columns are not whole pieces of 8", x.cols));
    }
    ints("embedding_noise", &[x.rows, x.cols])?;
    let n = x.rows * x.cols;
    if n == 0 {
        return Ok(());
    }
    let mut args = vec![x.write()];
    args.extend([rows, positions, factors].map(|b| Argument::Read(b, 0)));
    args.extend([Argument::Long(base), Argument::Int(x.rows), Argument::Int(x.cols)]);
    on.launch("embedding_noise", [n.div_ceil(8 * 256), 1, 1], &args)
}
