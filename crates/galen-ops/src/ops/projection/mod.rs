//! Projections through frozen weights in their own format, with optional low-rank branches.

mod exact;
mod few;
mod prologue;
mod rounded;

pub use prologue::{DroppedPart, Prologue};

use super::{Compute, Dropout, Frozen, on_device};
use crate::device::{Accelerator, DeviceTensor};
use crate::error::{Result, shape_error};
use crate::tape::{Launched, Op, Saved};
use crate::tensor::{dims2, f32_tensor, f32_view, kept};
use candle_core::Tensor;
use std::sync::Arc;

/// A frozen projection `y = x W^T + b`: x `[T, in]`, W `[out, in]` in any format, b `[out]`.
#[derive(Clone)]
pub struct Projection {
    weight: Frozen,
    bias: Option<Arc<[f32]>>,
    decoding: bool,
    stepping: bool,
    product: Option<Tensor>,
}

impl Projection {
    /// Errors: a bias that is not `[out]`.
    pub fn new(weight: impl Into<Frozen>, bias: Option<Arc<[f32]>>) -> Result<Self> {
        let weight = weight.into();
        match &bias {
            Some(b) if b.len() != weight.matrix().rows() => {
                let rows = weight.matrix().rows();
                shape_error("projection", format!("bias of {} for {rows} outputs", b.len()))
            }
            _ => Ok(Self { weight, bias, decoding: false, stepping: false, product: None }),
        }
    }

    /// Whether it serves generation: then few rows are multiplied straight with the stored blocks, their sums in
    /// another order than in training.
    #[must_use]
    pub fn decoding(self, decoding: bool) -> Self {
        Self { decoding, ..self }
    }

    /// Whether each row of x is a sequence's next token: then, where it serves generation, any number of rows is
    /// multiplied straight with the stored blocks.
    #[must_use]
    pub fn stepping(self, stepping: bool) -> Self {
        Self { stepping, ..self }
    }

    /// As [`Self::stepping`] has it.
    pub(super) fn is_stepping(&self) -> bool {
        self.stepping
    }

    /// Whether [`Self::with_product`] gave it one.
    pub(super) fn is_known(&self) -> bool {
        self.product.is_some()
    }

    /// Its `x W^T + b` `[T, out]`, where that is known already: it is taken instead of multiplying, and branches are added
    /// as in a step of generation. So adapters of different rows share one reading of the weight. Without gradients.
    #[must_use]
    pub fn with_product(self, product: Tensor) -> Self {
        Self { product: Some(product), ..self }
    }

    /// Input features.
    pub fn in_features(&self) -> usize {
        self.weight.matrix().cols()
    }

    /// Output features.
    pub fn out_features(&self) -> usize {
        self.weight.matrix().rows()
    }

    /// The frozen weight.
    pub fn weight(&self) -> &Frozen {
        &self.weight
    }

    /// b.
    pub fn bias(&self) -> Option<&Arc<[f32]>> {
        self.bias.as_ref()
    }

    /// The same without b. Not for one whose product is known, which has it in it.
    #[must_use]
    pub fn without_bias(self) -> Self {
        Self { bias: None, ..self }
    }
}

/// The low-rank branch of an adapted projection, `s (x' A^T) B^T` (LoRA, Hu et al. 2021, equation 3), x' being x after
/// dropout. Masks are functions of their keys, so backward forms them again.
#[derive(Debug, Clone)]
pub struct Branch {
    /// `s`: alpha / r, or alpha / sqrt(r) for rsLoRA.
    pub scale: f32,
    /// None where nothing is dropped.
    pub dropout: Option<Dropout>,
    /// Whether an accelerator leaves the projection's result in f32, for a [`Magnitude`](super::Magnitude) to round: values that are
    /// rounded already come out of a product with a gain as near to 1 as a training's as they went in.
    pub unrounded: bool,
}

/// Projections that read one x, each `y = x W^T + b + s (x' A^T) B^T` with or without its branch. Inputs: those of the
/// prologue, then for each member with a branch A `[R, in]` and B `[out, R]`; outputs: each member's `[T, out]`.
///
/// Together they read x once and form its gradient in one product.
pub struct Projections {
    /// How x comes from the inputs.
    pub prologue: Prologue,
    /// What reads x.
    pub members: Vec<(Projection, Option<Branch>)>,
}

impl Projections {
    /// One projection alone, without a branch.
    pub fn frozen(base: Projection) -> Self {
        Self { prologue: Prologue::Plain, members: vec![(base, None)] }
    }

    /// One projection alone with a branch.
    pub fn low_rank(base: Projection, branch: Branch) -> Self {
        Self { prologue: Prologue::Plain, members: vec![(base, Some(branch))] }
    }

    /// Each member's matrices among the inputs behind the prologue's.
    fn factors<'a>(&'a self, matrices: &[&'a Tensor]) -> Result<Vec<Option<Factors<'a>>>> {
        let mut rest = matrices;
        let mut factors = Vec::new();
        for (base, branch) in &self.members {
            let (n, k) = (base.out_features(), base.in_features());
            if k != self.in_features() {
                return shape_error(
                    "projections",
                    format!("weights of {k} and {} inputs", self.in_features()),
                );
            }
            let Some(branch) = branch else {
                factors.push(None);
                continue;
            };
            let [a, b, later @ ..] = rest else {
                return shape_error("projections", format!("{} matrices for the branches", matrices.len()));
            };
            let ((r, ak), (bn, br)) = (dims2("lora", a)?, dims2("lora", b)?);
            if r != br || r == 0 || ak != k || bn != n {
                let what = format!("A `{:?}` and B `{:?}` for a weight of `[{n}, {k}]`", a.dims(), b.dims());
                return shape_error("lora", what);
            }
            factors.push(Some(Factors { a, b, branch, rank: r }));
            rest = later;
        }
        if rest.is_empty() {
            Ok(factors)
        } else {
            shape_error("projections", format!("{} matrices are left over", rest.len()))
        }
    }

    fn in_features(&self) -> usize {
        self.members.first().map_or(0, |(base, _)| base.in_features())
    }

    /// Whether this is a step of generation.
    fn is_step(&self, tokens: usize) -> bool {
        let plain = |branch: &Option<Branch>| branch.as_ref().is_none_or(|b| b.dropout.is_none());
        self.members
            .iter()
            .all(|(base, b)| base.decoding && (base.stepping || tokens <= few::FEW_ROWS) && plain(b))
    }

    /// Whether only the branches are left to compute.
    fn is_known(&self) -> bool {
        let plain = |branch: &Option<Branch>| branch.as_ref().is_none_or(|b| b.dropout.is_none());
        self.members.iter().all(|(base, b)| base.product.is_some() && plain(b))
    }

    /// Whether this is a prompt whose products are formed in integers, as a step's are.
    fn in_integers(&self) -> bool {
        let plain = |branch: &Option<Branch>| branch.as_ref().is_none_or(|b| b.dropout.is_none());
        self.members
            .iter()
            .all(|(b, branch)| b.decoding && b.weight.matrix().integer_prompts() && plain(branch))
    }

    /// Each member's y, and `u = x A^T` of all branches `[T, ranks]`.
    fn outputs(&self, inputs: &[&Tensor]) -> Result<(Vec<Tensor>, Tensor)> {
        let Some((own, matrices)) = inputs.split_at_checked(self.prologue.inputs()) else {
            return shape_error("projections", format!("{} inputs", inputs.len()));
        };
        let factors = self.factors(matrices)?;
        let (tokens, width) = dims2("projections", own[0])?;
        if width != self.in_features() {
            let what = format!("input `{:?}` for weights of {}", own[0].dims(), self.in_features());
            return shape_error("projections", what);
        }
        let (ys, u) = {
            let x = self.prologue.forward(own)?;
            match self.compute() {
                _ if self.is_known() || self.is_step(tokens) => few::forward(self, &x, tokens, &factors)?,
                _ if self.in_integers() => exact::forward(self, &x, tokens, &factors)?,
                Compute::F32 => exact::forward(self, &x, tokens, &factors)?,
                Compute::Bf16 => rounded::forward(self, &x, tokens, &factors)?,
            }
        };
        let shaped =
            |(y, (base, _)): (Vec<f32>, &(Projection, _))| f32_tensor(y, (tokens, base.out_features()));
        let ys = ys.into_iter().zip(&self.members).map(shaped).collect::<Result<_>>()?;
        let ranks: usize = factors.iter().flatten().map(|f| f.rank).sum();
        Ok((ys, f32_tensor(u, (tokens, ranks))?))
    }

    fn compute(&self) -> Compute {
        self.members.first().map_or(Compute::F32, |(base, _)| base.weight.compute())
    }
}

/// A branch and its matrices.
#[derive(Clone, Copy)]
struct Factors<'a> {
    a: &'a Tensor,
    b: &'a Tensor,
    branch: &'a Branch,
    rank: usize,
}

/// Gradients of a branch's matrices.
struct FactorGradients {
    a: Vec<f32>,
    b: Vec<f32>,
}

impl Op for Projections {
    fn name(&self) -> &'static str {
        "projections"
    }

    fn forward(&self, inputs: &[&Tensor]) -> Result<(Vec<Tensor>, Saved)> {
        let (ys, u) = self.outputs(inputs)?;
        let (own, matrices) = inputs.split_at(self.prologue.inputs());
        let ranks = dims2("projections", &u)?.1;
        let mut saved = vec![u];
        saved.extend(matrices.iter().map(|m| (*m).clone()));
        saved.extend(self.prologue.keep(own, self.compute(), ranks > 0)?);
        Ok((ys, saved))
    }

    fn infer(&self, inputs: &[&Tensor]) -> Result<Vec<Tensor>> {
        Ok(self.outputs(inputs)?.0)
    }

    fn backward(
        &self,
        saved: &Saved,
        grads: Vec<Option<Tensor>>,
        needs: &[bool],
    ) -> Result<Vec<Option<Tensor>>> {
        let matrices = needs.len().saturating_sub(self.prologue.inputs());
        let Some((u, rest)) = saved.split_first().filter(|(_, rest)| rest.len() >= matrices) else {
            return shape_error("projections", "saved tensors are missing");
        };
        let (matrices, own) = rest.split_at(matrices);
        let (tokens, ranks) = dims2("projections", u)?;
        let factors = self.factors(&matrices.iter().collect::<Vec<_>>())?;
        let views = grads.iter().map(|g| g.as_ref().map(f32_view).transpose()).collect::<Result<Vec<_>>>()?;
        let dys: Vec<Option<&[f32]>> = views.iter().map(|v| v.as_deref()).collect();
        let own = own.iter().map(kept).collect::<Result<Vec<_>>>()?;
        let x = (ranks > 0).then(|| self.prologue.values(&own)).transpose()?;
        let u = f32_view(u)?;
        let wants_x = needs.iter().take(self.prologue.inputs()).any(|n| *n);
        let work = Backward { tokens, x: x.as_deref(), u: &u, factors: &factors, dys: &dys, wants_x };
        let (dx, found) = match self.compute() {
            Compute::F32 => exact::backward(self, &work)?,
            Compute::Bf16 => rounded::backward(self, &work)?,
        };
        drop(x);
        let k = self.in_features();
        let mut out = Vec::with_capacity(needs.len());
        match dx {
            Some(dx) => {
                for d in self.prologue.backward(&own, dx)? {
                    out.push(Some(f32_tensor(d, (tokens, k))?));
                }
            }
            None => out.resize_with(self.prologue.inputs(), || None),
        }
        for ((f, found), (base, _)) in factors.iter().zip(found).zip(&self.members) {
            let Some(f) = f else { continue };
            let (a, b) = found.map(|f| (f.a, f.b)).unzip();
            out.push(a.map(|a| f32_tensor(a, (f.rank, k))).transpose()?);
            out.push(b.map(|b| f32_tensor(b, (base.out_features(), f.rank))).transpose()?);
        }
        // A branch's gradients are formed together; they are rarely wanted apart.
        Ok(out.into_iter().zip(needs).map(|(d, needed)| d.filter(|_| *needed)).collect())
    }

    fn on_device(&self, on: &Accelerator, inputs: &[&DeviceTensor]) -> Launched {
        on_device::projections(self, on, inputs)
    }
}

/// What a backward pass works on: `u` `[T, sum of R]` is x' A^T of every branch, side by side; x is there where a
/// branch is.
struct Backward<'a> {
    tokens: usize,
    x: Option<&'a [f32]>,
    u: &'a [f32],
    factors: &'a [Option<Factors<'a>>],
    dys: &'a [Option<&'a [f32]>],
    wants_x: bool,
}

/// Outputs and u.
type Forward = (Vec<Vec<f32>>, Vec<f32>);
/// dx, and each member's.
type Found = (Option<Vec<f32>>, Vec<Option<FactorGradients>>);

/// Columns `[first, first + n)` of `[T, width]`.
fn columns(values: &[f32], width: usize, first: usize, n: usize, factor: f32) -> Vec<f32> {
    values
        .chunks_exact(width.max(1))
        .flat_map(|row| row[first..first + n].iter().map(move |v| v * factor))
        .collect()
}

/// `sum += part`, elementwise.
fn add(sum: &mut [f32], part: &[f32]) {
    sum.iter_mut().zip(part).for_each(|(s, p)| *s += p);
}
