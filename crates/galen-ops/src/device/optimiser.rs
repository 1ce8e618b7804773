//! AdamW over all trainables in one launch, and the norm that clipping wants.

use super::{Argument, Backend};
use crate::error::{Result, shape_error};
use galen_types::AdamWStep;

/// Values of a part of the sum of squares (`kernels/square_sum.cu`): a constant, so that sums do not depend on the device.
const PART: usize = 1 << 14;

/// The sum of squares of `n` f32 values. Waits.
pub fn square_sum<B>(on: &impl Backend<Buffer = B>, n: usize, values: &B) -> Result<f64> {
    let parts = n.div_ceil(PART);
    if n == 0 {
        return Ok(0.0);
    }
    let sums = on.alloc(8 * parts)?;
    let args = [Argument::Read(values, 0), Argument::Long(n as u64), Argument::Write(&sums, 0)];
    on.launch("square_sum", [parts, 1, 1], &args)?;
    Ok(on.download(&sums)?.as_chunks::<8>().0.iter().map(|b| f64::from_le_bytes(*b)).sum())
}

/// One step over `n` values (a multiple of 4): x, gradient (zeroed), m, v f32, the bf16 copy that products read, and a byte each
/// for those that learn faster.
pub fn adamw<B>(
    on: &impl Backend<Buffer = B>,
    n: usize,
    buffers: [&B; 4],
    copy: Option<&B>,
    faster: Option<&B>,
    step: AdamWStep,
) -> Result<()> {
    if !n.is_multiple_of(4) {
        return shape_error("adamw", format!("{n} values are not whole pieces of 4"));
    }
    if n == 0 {
        return Ok(());
    }
    let mut args: Vec<_> = buffers.into_iter().map(|b| Argument::Write(b, 0)).collect();
    args.push(copy.map_or(Argument::Null, |b| Argument::Write(b, 0)));
    args.push(Argument::Long(n as u64));
    let AdamWStep { factor, beta1: (b1, c1), beta2: (b2, c2), step_size, root, eps, decay, faster: own } =
        step;
    args.extend([factor, b1, c1, b2, c2, step_size, root, eps, decay].map(Argument::Float));
    args.push(faster.map_or(Argument::Null, |b| Argument::Read(b, 0)));
    args.extend([own.0, own.1].map(Argument::Float));
    on.launch("adamw", [n.div_ceil(4 * 256), 1, 1], &args)
}
