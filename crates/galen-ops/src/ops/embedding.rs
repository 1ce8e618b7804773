//! Token embedding, frozen.

use crate::error::{Result, shape_error};
use crate::quant::QuantMatrix;
use crate::tensor::f32_tensor;
use candle_core::Tensor;

/// Rows `ids` of the table `[V, C]`, times `scale`: `[T, C]` in f32.
pub fn embed(table: &QuantMatrix, ids: &[u32], scale: f32) -> Result<Tensor> {
    let width = table.cols();
    let mut out = vec![0f32; ids.len() * width];
    for (id, out) in ids.iter().zip(out.chunks_exact_mut(width)) {
        if *id as usize >= table.rows() {
            return shape_error("embedding", format!("token id `{id}` of a vocabulary of {}", table.rows()));
        }
        table.dequantize_block(*id as usize, 0, out);
        if scale != 1.0 {
            out.iter_mut().for_each(|x| *x *= scale);
        }
    }
    f32_tensor(out, (ids.len(), width))
}
