//! From values to blocks: the other direction of the formats that exports write.
//!
//! A block's scale (and minimum) is searched for the least squared error: rounding with some candidate scales, each
//! improved by the least-squares fit of the values to the codes it gives ([`fit`]). Where a format quantises the scales
//! themselves, their integers are chosen by the error they leave, not by rounding alone. `Q8_0` is by definition the
//! largest magnitude over 127. Encoding does not depend on the number of threads.

mod fit;
mod grid;
mod k;
mod legacy;

pub use grid::{BlockGrid, set_codes};

use super::{QuantError, WeightDtype};
use rayon::prelude::*;

/// Elements a thread takes at a time, in whole rows.
const GRAIN: usize = 1 << 15;

/// How a format's blocks are written: values of one block to its bytes.
type Encoder = fn(&[f32], &mut [u8]);

/// Every format that can be written.
static ENCODERS: &[(WeightDtype, Encoder)] = &[
    (WeightDtype::F32, |x, out| out.copy_from_slice(&x[0].to_le_bytes())),
    (WeightDtype::F16, |x, out| out.copy_from_slice(&half::f16::from_f32(x[0]).to_le_bytes())),
    (WeightDtype::BF16, |x, out| out.copy_from_slice(&half::bf16::from_f32(x[0]).to_le_bytes())),
    (WeightDtype::Q4_0, |x, out| dispatched(x, out, legacy::q4_0)),
    (WeightDtype::Q4_1, |x, out| dispatched(x, out, legacy::q4_1)),
    (WeightDtype::Q5_0, |x, out| dispatched(x, out, legacy::q5_0)),
    (WeightDtype::Q5_1, |x, out| dispatched(x, out, legacy::q5_1)),
    (WeightDtype::Q8_0, |x, out| dispatched(x, out, legacy::q8_0)),
    (WeightDtype::Q4_K, |x, out| dispatched(x, out, k::q4_k)),
    (WeightDtype::Q5_K, |x, out| dispatched(x, out, k::q5_k)),
    (WeightDtype::Q6_K, |x, out| dispatched(x, out, k::q6_k)),
];

/// The block in arrays of the format's size, the bytes too.
fn dispatched<const E: usize, const B: usize>(x: &[f32], out: &mut [u8], encode: fn(&[f32; E]) -> [u8; B]) {
    if let Some(x) = x.first_chunk::<E>() {
        out.copy_from_slice(&encode(x));
    }
}

impl WeightDtype {
    /// Whether [`quantize`] writes it.
    pub fn can_encode(self) -> bool {
        ENCODERS.iter().any(|(d, _)| *d == self)
    }
}

/// Encodes `values`, rows of `cols` elements end to end.
///
/// Errors: a format that is not written, rows that are not whole blocks, a value that is not finite or beyond what the
/// format's half-precision scales hold.
pub fn quantize(dtype: WeightDtype, cols: usize, values: &[f32]) -> Result<Vec<u8>, QuantError> {
    let Some((_, encode)) = ENCODERS.iter().find(|(d, _)| *d == dtype) else {
        return Err(QuantError::NotWritten { dtype });
    };
    dtype.row_bytes(cols)?;
    let total = dtype.row_bytes(values.len())?;
    let most = if matches!(dtype, WeightDtype::F32 | WeightDtype::BF16) { f32::MAX } else { 65504.0 };
    if let Some(value) = values.par_iter().find_first(|v| v.is_nan() || v.abs() > most) {
        return Err(QuantError::Value { dtype, value: value.to_string() });
    }
    let (size, width) = (dtype.block_size(), dtype.block_bytes());
    let blocks = (GRAIN / size).max(1);
    let mut out = vec![0u8; total];
    out.par_chunks_mut(blocks * width).zip(values.par_chunks(blocks * size)).for_each(|(out, values)| {
        for (out, x) in out.chunks_exact_mut(width).zip(values.chunks_exact(size)) {
            encode(x, out);
        }
    });
    Ok(out)
}
