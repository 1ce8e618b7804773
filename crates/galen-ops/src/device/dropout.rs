//! Dropout, whose mask is a function of its keys: the CPU's mask to the bit, formed again wherever it is wanted.

use super::{Argument, Backend, DeviceMatrix, Number, ints};
use crate::error::{Result, shape_error};
use std::sync::Arc;

/// A mask's keys on a device.
pub struct DeviceDropout<B> {
    /// Data-set row of each token, `uint64_t`.
    pub rows: Arc<B>,
    /// Position of each token in its row, `uint32_t`.
    pub positions: Arc<B>,
    /// Tokens.
    pub tokens: usize,
    /// Hash of seed, epoch and module.
    pub base: u64,
    /// Below it a feature's hash makes it zero.
    pub threshold: u64,
    /// Factor of what is kept.
    pub keep: f32,
    /// Factor of what is dropped: 0, but for [`Self::taken`].
    pub drop: f32,
}

impl<B> DeviceDropout<B> {
    /// The mask that gives what this one takes away.
    #[must_use]
    pub fn taken(&self) -> Self {
        let (rows, positions) = (Arc::clone(&self.rows), Arc::clone(&self.positions));
        Self { rows, positions, keep: 1.0 - self.keep, drop: 1.0 - self.drop, ..*self }
    }
}

/// x `[T, C]` bf16, or a gradient, under the mask.
pub fn dropout<B>(
    on: &impl Backend<Buffer = B>,
    x: &DeviceMatrix<B>,
    mask: &DeviceDropout<B>,
) -> Result<DeviceMatrix<B>> {
    x.expect("dropout", mask.tokens, x.cols, Number::Bf16)?;
    if x.stride != x.cols {
        return shape_error("dropout", format!("{} columns are not whole pieces of 8", x.cols));
    }
    ints("dropout", &[x.rows, x.cols])?;
    let y = DeviceMatrix::new(on, x.rows, x.cols, Number::Bf16)?;
    let n = x.rows * x.cols;
    if n > 0 {
        let args = [
            x.read(),
            Argument::Read(&*mask.rows, 0),
            Argument::Read(&*mask.positions, 0),
            Argument::Long(mask.base),
            Argument::Long(mask.threshold),
            Argument::Float(mask.keep),
            Argument::Float(mask.drop),
            Argument::Int(x.rows),
            Argument::Int(x.cols),
            y.write(),
        ];
        on.launch("dropout", [n.div_ceil(8 * 256), 1, 1], &args)?;
    }
    Ok(y)
}
