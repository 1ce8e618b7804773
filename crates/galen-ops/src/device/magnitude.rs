//! Weight-decomposed adaptation (DoRA, Liu et al. 2024): norms of an adapted weight's rows, and the magnitude that stands in their
//! place.

use super::product::{Product, Right};
use super::{Argument, Backend, DeviceMatrix, DeviceWeight, Number, Way, bytes, ints};
use crate::error::{Result, shape_error};

/// Tokens of a part of a magnitude's gradient: a constant, so that sums do not depend on the device.
const TOKENS: usize = 64;

/// `|W_j|^2` of each row, f64.
pub fn row_squares<B>(on: &impl Backend<Buffer = B>, weight: &DeviceWeight<B>) -> Result<B> {
    let (rows, cols) = groups(weight)?;
    let squares = on.alloc(bytes("row_squares", &[rows, 8])?)?;
    if rows > 0 {
        let mut args = weight.arguments(0);
        args.extend([Argument::Int(cols), Argument::Write(&squares, 0)]);
        on.launch(&weight.kernel("row_squares"), [rows, 1, 1], &args)?;
    }
    Ok(squares)
}

/// Errors: rows that kernels do not read.
fn groups<B>(weight: &DeviceWeight<B>) -> Result<(usize, usize)> {
    let (rows, cols) = (weight.rows(), weight.cols());
    ints("dora", &[rows, cols])?;
    if cols.is_multiple_of(32) {
        return Ok((rows, cols));
    }
    shape_error("dora", format!("{cols} columns are not whole groups of 32"))
}

/// `|W + s B A|` of each row `[1, out]` f32, for A `[R, in]` and B `[out, R]` bf16: W is read once, by the product W A^T. `squares` are
/// [`row_squares`]'s.
pub fn adapted_norms<B>(
    on: &impl Backend<Buffer = B>,
    (weight, squares): (&DeviceWeight<B>, &B),
    (a, b): (&DeviceMatrix<B>, &DeviceMatrix<B>),
    scale: f32,
) -> Result<DeviceMatrix<B>> {
    let (rows, cols) = groups(weight)?;
    let rank = a.rows;
    a.expect("dora: A", rank, cols, Number::Bf16)?;
    b.expect("dora: B", rows, rank, Number::Bf16)?;
    let product = |right, out: usize| -> Result<DeviceMatrix<B>> {
        let y = DeviceMatrix::new(on, rank, out, Number::F32)?;
        let (way, branch, bias) = (Way::Forward, None, None);
        Product { way, x: a, right, out, branch, bias, y: &y, accumulate: false, steps: false }.launch(on)?;
        Ok(y)
    };
    let crossed = product(Right::Weight(weight, 0), rows)?;
    let gram = product(Right::Plain(a), rank)?;
    let norms = DeviceMatrix::new(on, 1, rows, Number::F32)?;
    if rows == 0 {
        return Ok(norms);
    }
    let mut args = weight.arguments(0);
    args.extend([Argument::Int(cols), Argument::Read(squares, 0)]);
    for x in [a, b, &crossed, &gram] {
        args.extend([x.read(), Argument::Int(x.stride)]);
    }
    args.extend([Argument::Int(rank), Argument::Float(scale), norms.write()]);
    on.launch(&weight.kernel("dora_norms"), [rows, 1, 1], &args)?;
    Ok(norms)
}

/// What a magnitude scales with: m and the norms `[1, out]` f32, and b f32, which it leaves as it is.
pub struct MagnitudeOperands<'a, B> {
    /// b.
    pub bias: Option<&'a B>,
    /// m.
    pub m: &'a DeviceMatrix<B>,
    /// The norms.
    pub norms: &'a DeviceMatrix<B>,
}

impl<B> MagnitudeOperands<'_, B> {
    /// Errors: another shape or number than h's or dy's own `[T, out]`, or rows with gaps.
    fn check(&self, x: &DeviceMatrix<B>, number: Number) -> Result<(usize, usize)> {
        let (tokens, n) = (x.rows, x.cols);
        x.expect("magnitude", tokens, n, number)?;
        self.m.expect("magnitude: m", 1, n, Number::F32)?;
        self.norms.expect("magnitude: norms", 1, n, Number::F32)?;
        ints("magnitude", &[tokens, n])?;
        if x.stride != n {
            return shape_error("magnitude", format!("{n} columns are not whole pieces of 8"));
        }
        Ok((tokens, n))
    }

    fn arguments<'a>(&'a self, h: &'a DeviceMatrix<B>) -> [Argument<'a, B>; 4] {
        let bias = self.bias.map_or(Argument::Null, |b| Argument::Read(b, 0));
        [h.read(), bias, self.m.read(), self.norms.read()]
    }
}

/// `g (h - b) + b` bf16, `g = m / norms`, of h `[T, out]` f32 with b in it; a norm of 0 gives b. And h in bf16, for the way back.
///
/// h comes unrounded: a training moves g by a few thousandths, less than half a step between two bf16, and such a g leaves any value that
/// is rounded already as it was.
pub fn magnitude_forward<B>(
    on: &impl Backend<Buffer = B>,
    x: &MagnitudeOperands<B>,
    h: &DeviceMatrix<B>,
) -> Result<(DeviceMatrix<B>, DeviceMatrix<B>)> {
    let (tokens, n) = x.check(h, Number::F32)?;
    let y = DeviceMatrix::new(on, tokens, n, Number::Bf16)?;
    let kept = DeviceMatrix::new(on, tokens, n, Number::Bf16)?;
    let size = bytes("magnitude", &[tokens, n])?;
    if size > 0 {
        let mut args = Vec::from(x.arguments(h));
        args.extend([Argument::Int(tokens), Argument::Int(n), y.write(), kept.write()]);
        on.launch("magnitude_forward", [size.div_ceil(8 * 256), 1, 1], &args)?;
    }
    Ok((y, kept))
}

/// dh bf16, of dy and the h that forward kept, and adds m's gradient to `dm` `[out]` f32.
pub fn magnitude_backward<B>(
    on: &impl Backend<Buffer = B>,
    x: &MagnitudeOperands<B>,
    (h, dy): (&DeviceMatrix<B>, &DeviceMatrix<B>),
    dm: Option<&B>,
) -> Result<DeviceMatrix<B>> {
    let (tokens, n) = x.check(h, Number::Bf16)?;
    dy.expect("magnitude: dy", tokens, n, Number::Bf16)?;
    let dh = DeviceMatrix::new(on, tokens, n, Number::Bf16)?;
    if tokens == 0 || n == 0 {
        return Ok(dh);
    }
    let parts_n = tokens.div_ceil(TOKENS);
    let parts = on.alloc(bytes("magnitude", &[parts_n, n, 4])?)?;
    let mut args = vec![dy.read()];
    args.extend(x.arguments(h));
    args.extend([Argument::Int(tokens), Argument::Int(n), Argument::Int(TOKENS)]);
    args.extend([dh.write(), Argument::Write(&parts, 0)]);
    on.launch("magnitude_backward", [n.div_ceil(512), parts_n, 1], &args)?;
    if let Some(dm) = dm {
        let args = [
            Argument::Read(&parts, 0),
            Argument::Int(parts_n),
            x.norms.read(),
            Argument::Int(n),
            Argument::Write(dm, 0),
        ];
        on.launch("magnitude_gradient", [n.div_ceil(256), 1, 1], &args)?;
    }
    Ok(dh)
}
