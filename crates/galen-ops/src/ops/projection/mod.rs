//! Projections through frozen weights in their own format, with optional low-rank branches.

mod exact;
mod few;
mod rounded;

use super::{Compute, Frozen};
use crate::error::{Result, shape_error};
use crate::tape::{Op, Saved};
use crate::tensor::{dims2, f32_tensor, f32_view};
use candle_core::Tensor;
use std::sync::Arc;

/// A frozen projection `y = x W^T + b`: x `[T, in]`, W `[out, in]` in any format, b `[out]`.
#[derive(Clone)]
pub struct Projection {
    weight: Frozen,
    bias: Option<Arc<[f32]>>,
    decoding: bool,
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
            _ => Ok(Self { weight, bias, decoding: false }),
        }
    }

    /// Whether it serves generation: then few rows are multiplied straight with the stored blocks, their sums in
    /// another order than in training.
    #[must_use]
    pub fn decoding(self, decoding: bool) -> Self {
        Self { decoding, ..self }
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
}

/// The low-rank branch of an adapted projection, `s (x' A^T) B^T` (LoRA, Hu et al. 2021, equation 3).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Branch {
    /// `s`: alpha / r, or alpha / sqrt(r) for rsLoRA.
    pub scale: f32,
    /// Whether x' is x after a dropout of this branch's own, an input beside A and B.
    pub dropped: bool,
}

/// Projections that read one x, each `y = x W^T + b + s (x' A^T) B^T` with or without its branch. Inputs: x `[T, in]`,
/// then for each member with a branch A `[R, in]`, B `[out, R]`, and x' `[T, in]` where it has one; outputs: each
/// member's `[T, out]`.
///
/// Together they read x once and form its gradient in one product.
pub struct Projections {
    /// What reads x.
    pub members: Vec<(Projection, Option<Branch>)>,
}

impl Projections {
    /// One projection alone, without a branch.
    pub fn frozen(base: Projection) -> Self {
        Self { members: vec![(base, None)] }
    }

    /// One projection alone with a branch over x itself.
    pub fn low_rank(base: Projection, scale: f32) -> Self {
        Self { members: vec![(base, Some(Branch { scale, dropped: false }))] }
    }

    /// A member's inputs among all.
    fn inputs<'a>(&self, all: &[&'a Tensor]) -> Result<(&'a Tensor, Vec<Option<Factors<'a>>>)> {
        let fail =
            || shape_error("projections", format!("{} inputs do not fit {}", all.len(), self.signature()));
        let Some((x, mut rest)) = all.split_first() else { return fail() };
        let (_, width) = dims2("projections", x)?;
        let mut factors = Vec::new();
        for (base, branch) in &self.members {
            let (n, k) = (base.out_features(), base.in_features());
            if width != k {
                return shape_error(
                    "projections",
                    format!("input `{:?}` for a weight of `[{n}, {k}]`", x.dims()),
                );
            }
            let Some(branch) = branch else {
                factors.push(None);
                continue;
            };
            let Some((own, later)) = rest.split_at_checked(if branch.dropped { 3 } else { 2 }) else {
                return fail();
            };
            let ((r, ak), (bn, br)) = (dims2("lora", own[0])?, dims2("lora", own[1])?);
            let dropped = own.get(2).copied();
            if r != br || r == 0 || ak != k || bn != n || dropped.is_some_and(|d| d.dims() != x.dims()) {
                let what =
                    format!("A `{:?}`, B `{:?}` for a weight of `[{n}, {k}]`", own[0].dims(), own[1].dims());
                return shape_error("lora", what);
            }
            factors.push(Some(Factors { a: own[0], b: own[1], dropped, scale: branch.scale, rank: r }));
            rest = later;
        }
        if rest.is_empty() { Ok((x, factors)) } else { fail() }
    }

    fn signature(&self) -> String {
        let one = |(base, branch): &(Projection, Option<Branch>)| {
            format!(
                "[{}, {}]{}",
                base.out_features(),
                base.in_features(),
                if branch.is_some() { " + A B" } else { "" }
            )
        };
        self.members.iter().map(one).collect::<Vec<_>>().join(", ")
    }

    fn compute(&self) -> Compute {
        self.members.first().map_or(Compute::F32, |(base, _)| base.weight.compute())
    }
}

/// A branch's matrices.
#[derive(Clone, Copy)]
struct Factors<'a> {
    a: &'a Tensor,
    b: &'a Tensor,
    dropped: Option<&'a Tensor>,
    scale: f32,
    rank: usize,
}

/// Gradients of a branch's inputs.
struct FactorGradients {
    a: Vec<f32>,
    b: Vec<f32>,
    dropped: Option<Vec<f32>>,
}

impl Op for Projections {
    fn name(&self) -> &'static str {
        "projections"
    }

    fn forward(&self, inputs: &[&Tensor]) -> Result<(Vec<Tensor>, Saved)> {
        let (x, factors) = self.inputs(inputs)?;
        let (tokens, _) = dims2("projections", x)?;
        let decoding = self.members.iter().all(|(base, _)| base.decoding);
        let (ys, u) = match self.compute() {
            _ if decoding && tokens <= few::FEW_ROWS => few::forward(self, x, tokens, &factors)?,
            Compute::F32 => exact::forward(self, x, tokens, &factors)?,
            Compute::Bf16 => rounded::forward(self, x, tokens, &factors)?,
        };
        let shaped =
            |(y, (base, _)): (Vec<f32>, &(Projection, _))| f32_tensor(y, (tokens, base.out_features()));
        let ys = ys.into_iter().zip(&self.members).map(shaped).collect::<Result<_>>()?;
        let ranks: usize = factors.iter().flatten().map(|f| f.rank).sum();
        let mut saved = vec![f32_tensor(u, (tokens, ranks))?];
        if ranks > 0 {
            saved.extend(inputs.iter().map(|i| (*i).clone()));
        }
        Ok((ys, saved))
    }

    fn backward(
        &self,
        saved: &Saved,
        grads: Vec<Option<Tensor>>,
        needs: &[bool],
    ) -> Result<Vec<Option<Tensor>>> {
        let Some((u, inputs)) = saved.split_first() else {
            return shape_error("projections", "nothing was saved");
        };
        let (tokens, _) = dims2("projections", u)?;
        // Without branches nothing but the gradients is needed.
        let (x, factors) = if inputs.is_empty() {
            (None, vec![None; self.members.len()])
        } else {
            let (x, factors) = self.inputs(&inputs.iter().collect::<Vec<_>>())?;
            (Some(x), factors)
        };
        let views = grads.iter().map(|g| g.as_ref().map(f32_view).transpose()).collect::<Result<Vec<_>>>()?;
        let dys: Vec<Option<&[f32]>> = views.iter().map(|v| v.as_deref()).collect();
        let u = f32_view(u)?;
        let wants_x = needs.first() == Some(&true);
        let wants_dropped = wants_x || needs.get(3).copied().unwrap_or(false);
        let work = Backward { tokens, x, u: &u, factors: &factors, dys: &dys, wants_x, wants_dropped };
        let (dx, found) = match self.compute() {
            Compute::F32 => exact::backward(self, &work)?,
            Compute::Bf16 => rounded::backward(self, &work)?,
        };
        let k = self.members.first().map_or(0, |(base, _)| base.in_features());
        let mut out = vec![dx.map(|d| f32_tensor(d, (tokens, k))).transpose()?];
        for ((f, found), (base, _)) in factors.iter().zip(found).zip(&self.members) {
            let Some(f) = f else { continue };
            let (n, absent) = (base.out_features(), FactorGradients { a: vec![], b: vec![], dropped: None });
            let (present, found) = (found.is_some(), found.unwrap_or(absent));
            out.push(present.then(|| f32_tensor(found.a, (f.rank, k))).transpose()?);
            out.push(present.then(|| f32_tensor(found.b, (n, f.rank))).transpose()?);
            if f.dropped.is_some() {
                out.push(found.dropped.map(|d| f32_tensor(d, (tokens, k))).transpose()?);
            }
        }
        // A branch's gradients are formed together; they are rarely wanted apart.
        Ok(out.into_iter().zip(needs).map(|(d, needed)| d.filter(|_| *needed)).collect())
    }
}

/// What a backward pass works on. `u` `[T, sum of R]` is x' A^T of every branch, side by side.
struct Backward<'a> {
    tokens: usize,
    x: Option<&'a Tensor>,
    u: &'a [f32],
    factors: &'a [Option<Factors<'a>>],
    dys: &'a [Option<&'a [f32]>],
    wants_x: bool,
    /// Whether an x' of a branch's own leads to anything.
    wants_dropped: bool,
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
