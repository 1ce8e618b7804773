//! One product with a weight, by the path that [`super::choice`] takes.

use super::choice::{Kind, choose};
use super::{
    Argument, Backend, DeviceMatrix, DeviceWeight, Gemm, Lying, Number, Path, SCRATCH_BYTES, Way, bytes, ints,
};
use crate::error::{Result, shape_error};

/// Rows up to which a product goes through the kernel for few rows, and that it takes at a time.
const FEW_ROWS: usize = 16;
/// Outputs of a block of that kernel, and of the other.
const FEW_OUTPUTS: usize = 32;
const TILE: usize = 128;

/// Flags of the products.
const F32_OUTPUT: usize = 1;
const ACCUMULATE: usize = 2;

/// The right operand of a product's main part.
pub(super) enum Right<'a, B> {
    /// Rows of a weight from some row on.
    Weight(&'a DeviceWeight<B>, usize),
    /// A matrix of the branch, which the kernels multiply with.
    Plain(&'a DeviceMatrix<B>),
}

/// `y = x W^T + u v^T + bias`, or `x W + u v`.
pub(super) struct Product<'a, B> {
    pub way: Way,
    pub x: &'a DeviceMatrix<B>,
    pub right: Right<'a, B>,
    pub out: usize,
    /// u and what it multiplies.
    pub branch: Option<(&'a DeviceMatrix<B>, &'a DeviceMatrix<B>)>,
    pub bias: Option<&'a B>,
    pub y: &'a DeviceMatrix<B>,
    pub accumulate: bool,
    /// Each row is a sequence's next token: whatever the number of rows, the kernel for few, so that a row's bits do not depend on
    /// those beside it.
    pub steps: bool,
}

impl<B> Product<'_, B> {
    /// Puts it on the queue.
    pub(super) fn launch(&self, on: &impl Backend<Buffer = B>) -> Result<()> {
        let (m, inner, out) = (self.x.rows, self.x.cols, self.out);
        ints("projection", &[m, inner, out, self.x.stride, self.y.stride])?;
        if m == 0 || out == 0 {
            return Ok(());
        }
        let Right::Weight(weight, first) = &self.right else { return self.by_kernels(on) };
        let blocks = weight.plain().is_none();
        let before = self.branch.is_some() || self.bias.is_some();
        let kind = Kind { way: self.way, blocks, branch: before };
        let rows = if self.way == Way::Forward { out } else { inner };
        let scratch = if blocks { bytes("projection", &[rows, weight.cols(), 2])? } else { 0 };
        if self.few() || scratch > SCRATCH_BYTES || choose(on.library(), kind, m) == Path::Kernels {
            return self.by_kernels(on);
        }
        // What is added comes first: so it is rounded at its own size, not at the product's.
        if before {
            self.branch_alone(on)?;
        }
        let add = self.accumulate || before;
        if let Some(codes) = weight.plain() {
            return self.main(on, (codes, 2 * first * weight.cols(), weight.cols()), add);
        }
        on.with_scratch(scratch, &mut |decoded| {
            weight.dequantize(on, (*first, rows), decoded)?;
            self.main(on, (&**decoded, 0, weight.cols()), add)
        })
    }

    /// The main part by the library.
    fn main(&self, on: &impl Backend<Buffer = B>, w: Lying<'_, B>, accumulate: bool) -> Result<()> {
        let &Self { way, x, out, y, .. } = self;
        let (m, inner, number) = (x.rows, x.cols, y.number);
        let (x, y) = ((&x.buffer, 0, x.stride), (&y.buffer, 0, y.stride));
        on.gemm(&Gemm { way, m, out, inner, x, w, y, number, accumulate })
    }

    fn by_kernels(&self, on: &impl Backend<Buffer = B>) -> Result<()> {
        let (m, inner, out) = (self.x.rows, self.x.cols, self.out);
        let few = self.few() || (self.way == Way::Forward && m <= FEW_ROWS && inner.is_multiple_of(32));
        let name = match (self.way, few) {
            (Way::Backward, _) => "qmatmul_backward",
            (Way::Forward, false) => "qmatmul_forward",
            (Way::Forward, true) if m <= 8 => "qmatvec_8",
            (Way::Forward, true) => "qmatvec_16",
        };
        let mut args = vec![self.x.read(), Argument::Int(self.x.stride)];
        let kernel = match &self.right {
            Right::Weight(w, first) => {
                args.extend(w.arguments(*first));
                w.kernel(name)
            }
            // The kernel takes a row's stride for its columns; those beyond are zeros.
            Right::Plain(w) if w.stride == (if self.way == Way::Forward { inner } else { out }) => {
                args.push(w.read());
                args.extend(no_planes());
                format!("{name}_bf16")
            }
            Right::Plain(w) => {
                return shape_error("projection", format!("{} columns are not whole pieces of 8", w.cols));
            }
        };
        args.extend([Argument::Int(out), Argument::Int(inner)]);
        let grid = if few {
            [out.div_ceil(FEW_OUTPUTS), m.div_ceil(FEW_ROWS), 1]
        } else {
            [m.div_ceil(TILE) * out.div_ceil(TILE), 1, 1]
        };
        self.finish(on, (&kernel, grid), args)
    }

    /// The kernel for few rows, whatever their number.
    fn few(&self) -> bool {
        self.steps && self.way == Way::Forward && self.x.cols.is_multiple_of(32)
    }

    /// Branch and bias without the main part: its inner dimension is of no columns.
    fn branch_alone(&self, on: &impl Backend<Buffer = B>) -> Result<()> {
        let (m, out) = (self.x.rows, self.out);
        let name = if self.way == Way::Forward { "qmatmul_forward_bf16" } else { "qmatmul_backward_bf16" };
        let mut args = vec![self.x.read(), Argument::Int(self.x.stride), Argument::Null];
        args.extend(no_planes());
        args.extend([Argument::Int(out), Argument::Int(0)]);
        self.finish(on, (name, [m.div_ceil(TILE) * out.div_ceil(TILE), 1, 1]), args)
    }

    /// The parameters that all product kernels end with.
    fn finish<'a>(
        &'a self,
        on: &impl Backend<Buffer = B>,
        (kernel, grid): (&str, [usize; 3]),
        mut args: Vec<Argument<'a, B>>,
    ) -> Result<()> {
        if let Some((u, v)) = self.branch {
            args.extend([u.read(), Argument::Int(u.stride), v.read(), Argument::Int(v.stride)]);
            args.push(Argument::Int(u.cols));
        } else {
            args.extend([Argument::Null, Argument::Int(0), Argument::Null, Argument::Int(0)]);
            args.push(Argument::Int(0));
        }
        args.push(self.bias.map_or(Argument::Null, |b| Argument::Read(b, 0)));
        let flags = if self.y.number == Number::F32 { F32_OUTPUT } else { 0 };
        let flags = flags + if self.accumulate { ACCUMULATE } else { 0 };
        let m = Argument::Int(self.x.rows);
        args.extend([self.y.write(), Argument::Int(self.y.stride), m, Argument::Int(flags)]);
        on.launch(kernel, grid, &args)
    }
}

/// A plain matrix has codes alone.
fn no_planes<'a, B>() -> [Argument<'a, B>; 5] {
    [Argument::Null, Argument::Null, Argument::Null, Argument::Null, Argument::Float(0.0)]
}
