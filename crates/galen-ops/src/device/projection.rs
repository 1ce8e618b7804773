//! Projections with a low-rank branch: `y = x W^T + b + s (x A^T) B^T`.

use super::elementwise::add_to;
use super::product::{Product, Right};
use super::{
    Argument, Backend, DeviceDropout, DeviceMatrix, DeviceWeight, Number, Way, bytes, dropout, ints,
};
use crate::error::{Result, shape_error};

/// Tokens of a part of a branch's gradient: a constant, so that sums do not depend on the device.
const TOKENS: usize = 1024;

/// A branch on a device: A `[R, in]` and B `[out, R]`, rounded to bf16.
pub struct DeviceBranch<'a, B> {
    /// A.
    pub a: &'a DeviceMatrix<B>,
    /// B.
    pub b: &'a DeviceMatrix<B>,
    /// `s`.
    pub scale: f32,
    /// Of the branch's own x, where there is any.
    pub dropout: Option<&'a DeviceDropout<B>>,
}

/// `out` columns of `x W^T` for rows of W from `first` on, into `y`: what the head does chunk by chunk.
pub(super) fn rows_forward<B>(
    on: &impl Backend<Buffer = B>,
    x: &DeviceMatrix<B>,
    (weight, first, out): (&DeviceWeight<B>, usize, usize),
    y: &DeviceMatrix<B>,
) -> Result<()> {
    rows_of(on, x, (weight, first, out), y, false)
}

/// The same where each row of x is a sequence's next token.
pub(super) fn step_rows_forward<B>(
    on: &impl Backend<Buffer = B>,
    x: &DeviceMatrix<B>,
    weight: &DeviceWeight<B>,
    y: &DeviceMatrix<B>,
) -> Result<()> {
    rows_of(on, x, (weight, 0, weight.rows()), y, true)
}

fn rows_of<B>(
    on: &impl Backend<Buffer = B>,
    x: &DeviceMatrix<B>,
    (weight, first, out): (&DeviceWeight<B>, usize, usize),
    y: &DeviceMatrix<B>,
    steps: bool,
) -> Result<()> {
    let (right, way) = (Right::Weight(weight, first), Way::Forward);
    Product { way, x, right, out, branch: None, bias: None, y, accumulate: false, steps }.launch(on)
}

/// `y += x W` for rows of W from `first` on, as many as x has columns.
pub(super) fn rows_backward<B>(
    on: &impl Backend<Buffer = B>,
    x: &DeviceMatrix<B>,
    (weight, first): (&DeviceWeight<B>, usize),
    y: &DeviceMatrix<B>,
) -> Result<()> {
    let (right, out) = (Right::Weight(weight, first), weight.cols());
    let (way, branch, bias) = (Way::Backward, None, None);
    Product { way, x, right, out, branch, bias, y, accumulate: true, steps: false }.launch(on)
}

impl<B> DeviceBranch<'_, B> {
    /// What the branch makes of a matrix that it reads or whose gradient it is: dropped, or as it is.
    fn dropped(&self, on: &impl Backend<Buffer = B>, x: &DeviceMatrix<B>) -> Result<Option<DeviceMatrix<B>>> {
        self.dropout.map(|mask| dropout(on, x, mask)).transpose()
    }

    fn check(&self, weight: &DeviceWeight<B>) -> Result<usize> {
        let rank = self.a.rows;
        self.a.expect("branch: A", rank, weight.cols(), Number::Bf16)?;
        self.b.expect("branch: B", weight.rows(), rank, Number::Bf16)?;
        if rank == 0 { shape_error("branch", "of rank 0") } else { Ok(rank) }
    }
}

/// Outputs of a block of the kernels into a branch, of which one is for ranks of 16 at most.
const SMALL_RANK: usize = 16;
const BRANCH_OUTPUTS: usize = 32;
/// Rows of such a block.
const BRANCH_ROWS: usize = 16;

/// `s x A^T` or `s dy B` `[T, R]`, rounded once behind s, as on the CPU. A row's bits do not depend on those beside it.
fn reduced<B>(
    on: &impl Backend<Buffer = B>,
    x: &DeviceMatrix<B>,
    w: &DeviceMatrix<B>,
    (way, rank, scale): (Way, usize, f32),
) -> Result<DeviceMatrix<B>> {
    let (m, inner) = (x.rows, x.cols);
    ints("branch", &[m, inner, x.stride, w.stride])?;
    let y = DeviceMatrix::new(on, m, rank, Number::Bf16)?;
    if m == 0 {
        return Ok(y);
    }
    let outputs = if rank <= SMALL_RANK { SMALL_RANK } else { BRANCH_OUTPUTS };
    let direction = if way == Way::Forward { "forward" } else { "backward" };
    let args = [
        x.read(),
        Argument::Int(x.stride),
        w.read(),
        Argument::Int(w.stride),
        Argument::Int(rank),
        Argument::Int(inner),
        Argument::Float(scale),
        y.write(),
        Argument::Int(y.stride),
        Argument::Int(m),
    ];
    let grid = [m.div_ceil(BRANCH_ROWS), rank.div_ceil(outputs), 1];
    on.launch(&format!("low_rank_{direction}_{outputs}"), grid, &args)?;
    Ok(y)
}

/// y `[T, out]` of `number`, and `s u`, which backward wants. `steps`: each row is a sequence's next token, and its bits do not depend on
/// those beside it.
pub fn projection_forward<B>(
    on: &impl Backend<Buffer = B>,
    x: &DeviceMatrix<B>,
    (weight, bias): (&DeviceWeight<B>, Option<&B>),
    branch: Option<&DeviceBranch<B>>,
    (number, steps): (Number, bool),
) -> Result<(DeviceMatrix<B>, Option<DeviceMatrix<B>>)> {
    x.expect("projection", x.rows, weight.cols(), Number::Bf16)?;
    let y = DeviceMatrix::new(on, x.rows, weight.rows(), number)?;
    let u = match branch {
        None => None,
        Some(branch) => {
            let rank = branch.check(weight)?;
            let own = branch.dropped(on, x)?;
            let own = own.as_ref().unwrap_or(x);
            Some(reduced(on, own, branch.a, (Way::Forward, rank, branch.scale))?)
        }
    };
    let pair = u.as_ref().zip(branch).map(|(u, branch)| (u, branch.b));
    let (way, right, out) = (Way::Forward, Right::Weight(weight, 0), weight.rows());
    Product { way, x, right, out, branch: pair, bias, y: &y, accumulate: false, steps }.launch(on)?;
    Ok((y, u))
}

/// Adds `dy W + du A` to `dx` or writes it (under dropout f32 alone), where it is wanted, and adds the branch's gradients, of A
/// `[R, in]` and B `[out, R]` f32 without gaps, to `da` and `db`. `u` is what forward gave.
pub fn projection_backward<B>(
    on: &impl Backend<Buffer = B>,
    dy: &DeviceMatrix<B>,
    weight: &DeviceWeight<B>,
    branch: Option<(&DeviceBranch<B>, &DeviceMatrix<B>, &DeviceMatrix<B>)>,
    dx: Option<(&DeviceMatrix<B>, bool)>,
    gradients: Option<(&B, &B)>,
) -> Result<()> {
    dy.expect("projection", dy.rows, weight.rows(), Number::Bf16)?;
    if let Some((dx, _)) = dx {
        dx.expect("projection", dy.rows, weight.cols(), dx.number)?;
    }
    let mut du = None;
    if let Some((branch, u, x)) = branch {
        let rank = branch.check(weight)?;
        x.expect("projection: x", dy.rows, weight.cols(), Number::Bf16)?;
        u.expect("projection: u", dy.rows, rank, Number::Bf16)?;
        let found = reduced(on, dy, branch.b, (Way::Backward, rank, branch.scale))?;
        if let Some((da, db)) = gradients {
            // s is in du and in u already.
            let own = branch.dropped(on, x)?;
            gradient(on, &found, own.as_ref().unwrap_or(x), da, false)?;
            gradient(on, u, dy, db, true)?;
        }
        du = Some(found);
    }
    let Some((dx, accumulate)) = dx else { return Ok(()) };
    let pair = du.as_ref().zip(branch).map(|(du, (branch, _, _))| (du, branch));
    let (right, out) = (Right::Weight(weight, 0), weight.cols());
    // Under dropout the branch's part goes through the mask, apart from the rest.
    let together = pair.filter(|(_, branch)| branch.dropout.is_none()).map(|(du, branch)| (du, branch.a));
    let (way, steps) = (Way::Backward, false);
    Product { way, x: dy, right, out, branch: together, bias: None, y: dx, accumulate, steps }.launch(on)?;
    if let Some((du, branch)) = pair.filter(|(_, branch)| branch.dropout.is_some()) {
        let own = DeviceMatrix::new(on, dy.rows, out, Number::Bf16)?;
        let (right, branch_of_it, bias) = (Right::Plain(branch.a), None, None);
        Product { way, x: du, right, out, branch: branch_of_it, bias, y: &own, accumulate: false, steps }
            .launch(on)?;
        let dropped = branch.dropped(on, &own)?;
        add_to(on, dx, dropped.as_ref().unwrap_or(&own))?;
    }
    Ok(())
}

/// `to += u^T x`, or its transpose.
fn gradient<B>(
    on: &impl Backend<Buffer = B>,
    u: &DeviceMatrix<B>,
    x: &DeviceMatrix<B>,
    to: &B,
    transposed: bool,
) -> Result<()> {
    let (tokens, rank, n) = (u.rows, u.cols, x.cols);
    ints("branch", &[tokens, rank, n, u.stride, x.stride])?;
    if tokens == 0 {
        return Ok(());
    }
    let parts_n = tokens.div_ceil(TOKENS);
    let parts = on.alloc(bytes("branch", &[parts_n, rank, n, 4])?)?;
    let args = [
        u.read(),
        Argument::Int(u.stride),
        x.read(),
        Argument::Int(x.stride),
        Argument::Int(tokens),
        Argument::Int(rank),
        Argument::Int(n),
        Argument::Int(TOKENS),
        Argument::Write(&parts, 0),
    ];
    on.launch("lora_gradient", [n.div_ceil(128), rank.div_ceil(64), parts_n], &args)?;
    let args = [
        Argument::Read(&parts, 0),
        Argument::Int(parts_n),
        Argument::Int(rank),
        Argument::Int(n),
        Argument::Float(1.0),
        Argument::Int(usize::from(transposed)),
        Argument::Write(to, 0),
    ];
    on.launch("lora_gradient_sum", [(rank * n).div_ceil(256), 1, 1], &args)
}
