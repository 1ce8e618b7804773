//! Projections through frozen weights in their own format, with an optional low-rank branch.

use crate::error::{Result, shape_error};
use crate::kernels::gemm::{Lhs, gemm};
use crate::kernels::panels::{Rows, Transposed, Weight, WeightTransposed};
use crate::ops::decode::{self, FEW_ROWS, FewRows, LowRank};
use crate::quant::QuantMatrix;
use crate::tape::{Op, Saved};
use crate::tensor::{dims2, f32_tensor, f32_view};
use candle_core::Tensor;
use std::sync::Arc;

/// `y = x W^T + b`: x `[T, in]`, W `[out, in]` frozen in any format, b `[out]` frozen.
#[derive(Clone)]
pub struct Projection {
    weight: Arc<QuantMatrix>,
    bias: Option<Arc<[f32]>>,
    decoding: bool,
}

impl Projection {
    /// Errors: a bias that is not `[out]`.
    pub fn new(weight: Arc<QuantMatrix>, bias: Option<Arc<[f32]>>) -> Result<Self> {
        match &bias {
            Some(b) if b.len() != weight.rows() => {
                shape_error("projection", format!("bias of {} for {} outputs", b.len(), weight.rows()))
            }
            _ => Ok(Self { weight, bias, decoding: false }),
        }
    }

    /// The same projection for generation: few rows are multiplied with the stored blocks as they are, their sums in
    /// another order than in training.
    #[must_use]
    pub fn for_decoding(&self) -> Self {
        Self { decoding: true, ..self.clone() }
    }

    fn few_rows<'a>(&'a self, branch: Option<LowRank<'a>>) -> FewRows<'a> {
        FewRows { weight: &self.weight, bias: self.bias.as_deref(), branch }
    }

    /// Input features.
    pub fn in_features(&self) -> usize {
        self.weight.cols()
    }

    /// Output features.
    pub fn out_features(&self) -> usize {
        self.weight.rows()
    }

    /// The frozen weight.
    pub fn weight(&self) -> &Arc<QuantMatrix> {
        &self.weight
    }

    fn product(&self, x: &Tensor) -> Result<(Vec<f32>, usize)> {
        let (tokens, width) = dims2("projection", x)?;
        let (n, k) = (self.out_features(), self.in_features());
        if width != k {
            return shape_error("projection", format!("input `{:?}` for a weight of `[{n}, {k}]`", x.dims()));
        }
        if self.decoding && tokens <= FEW_ROWS {
            let y = decode::project(tokens, &f32_view(x)?, &[self.few_rows(None)]).pop();
            return Ok((y.map(|(y, _)| y).unwrap_or_default(), tokens));
        }
        let mut y = vec![0f32; tokens * n];
        if let Some(bias) = &self.bias {
            y.chunks_exact_mut(n).for_each(|y| y.copy_from_slice(bias));
        }
        let values = f32_view(x)?;
        let panels = WeightTransposed { weight: &self.weight, first: 0 };
        gemm(tokens, n, k, Lhs::rows(&values, k), &panels, &mut y, self.bias.is_some());
        Ok((y, tokens))
    }

    /// `dx = dy W`.
    fn input_gradient(&self, dy: &[f32], tokens: usize) -> Vec<f32> {
        let (n, k) = (self.out_features(), self.in_features());
        let mut dx = vec![0f32; tokens * k];
        gemm(tokens, k, n, Lhs::rows(dy, n), &Weight { weight: &self.weight, first: 0 }, &mut dx, false);
        dx
    }
}

impl Op for Projection {
    fn name(&self) -> &'static str {
        "projection"
    }

    fn forward(&self, inputs: &[&Tensor]) -> Result<(Vec<Tensor>, Saved)> {
        let [x] = inputs else { return shape_error("projection", "takes one input") };
        let (y, tokens) = self.product(x)?;
        Ok((vec![f32_tensor(y, (tokens, self.out_features()))?], vec![]))
    }

    fn backward(&self, _: &Saved, grads: Vec<Option<Tensor>>, _: &[bool]) -> Result<Vec<Option<Tensor>>> {
        let [Some(dy)] = &grads[..] else { return Ok(vec![None]) };
        let (tokens, _) = dims2("projection", dy)?;
        let dx = self.input_gradient(&f32_view(dy)?, tokens);
        Ok(vec![Some(f32_tensor(dx, (tokens, self.in_features()))?)])
    }
}

/// `y = x W^T + b + s (x' A^T) B^T` (LoRA, Hu et al. 2021, equation 3): inputs x `[T, in]`, A `[R, in]`,
/// B `[out, R]`, and x' `[T, in]` where dropout made it differ from x.
pub struct LoraProjection {
    /// The frozen part.
    pub base: Projection,
    /// `s`: alpha / r, or alpha / sqrt(r) for rsLoRA.
    pub scale: f32,
}

impl LoraProjection {
    fn rank(&self, a: &Tensor, b: &Tensor) -> Result<usize> {
        let ((r, k), (n, r2)) = (dims2("lora", a)?, dims2("lora", b)?);
        if r != r2 || r == 0 || k != self.base.in_features() || n != self.base.out_features() {
            let (n, k) = (self.base.out_features(), self.base.in_features());
            let what = format!("A `{:?}` and B `{:?}` for a weight of `[{n}, {k}]`", a.dims(), b.dims());
            return shape_error("lora", what);
        }
        Ok(r)
    }
}

impl Op for LoraProjection {
    fn name(&self) -> &'static str {
        "lora_projection"
    }

    fn forward(&self, inputs: &[&Tensor]) -> Result<(Vec<Tensor>, Saved)> {
        let (x, a, b, dropped) = match inputs {
            [x, a, b] => (x, a, b, x),
            [x, a, b, dropped] => (x, a, b, dropped),
            _ => return shape_error("lora", "takes three or four inputs"),
        };
        let r = self.rank(a, b)?;
        let (tokens, width) = dims2("lora", x)?;
        if self.base.decoding && inputs.len() == 3 && tokens <= FEW_ROWS && width == self.base.in_features() {
            let (av, bv) = (f32_view(a)?, f32_view(b)?);
            let branch = LowRank { a: &av, b: &bv, rank: r, scale: self.scale };
            let y = decode::project(tokens, &f32_view(x)?, &[self.base.few_rows(Some(branch))]).pop();
            let y = y.map(|(y, _)| y).unwrap_or_default();
            return Ok((vec![f32_tensor(y, (tokens, self.base.out_features()))?], vec![]));
        }
        let (mut y, tokens) = self.base.product(x)?;
        let (n, k) = (self.base.out_features(), self.base.in_features());
        if dropped.dims() != x.dims() {
            return shape_error(
                "lora",
                format!("branch input `{:?}` beside `{:?}`", dropped.dims(), x.dims()),
            );
        }
        let (av, bv, xv) = (f32_view(a)?, f32_view(b)?, f32_view(dropped)?);
        let mut u = vec![0f32; tokens * r]; // s x' A^T
        gemm(tokens, r, k, Lhs::rows(&xv, k), &Transposed { values: &av, stride: k }, &mut u, false);
        u.iter_mut().for_each(|u| *u *= self.scale);
        gemm(tokens, n, r, Lhs::rows(&u, r), &Transposed { values: &bv, stride: r }, &mut y, true);
        let saved = vec![(*dropped).clone(), f32_tensor(u, (tokens, r))?, (*a).clone(), (*b).clone()];
        Ok((vec![f32_tensor(y, (tokens, n))?], saved))
    }

    fn backward(
        &self,
        saved: &Saved,
        grads: Vec<Option<Tensor>>,
        needs: &[bool],
    ) -> Result<Vec<Option<Tensor>>> {
        let [Some(dy)] = &grads[..] else { return Ok(vec![None; needs.len()]) };
        let ([x, u, a, b], 3..=4) = (&saved[..], needs.len()) else {
            return shape_error("lora", "saved tensors are missing");
        };
        let (tokens, r) = dims2("lora", u)?;
        let (n, k) = (self.base.out_features(), self.base.in_features());
        let separate = needs.len() == 4;
        let (dy, x, u, av, bv) = (f32_view(dy)?, f32_view(x)?, f32_view(u)?, f32_view(a)?, f32_view(b)?);
        // u already holds the scale, and du carries it for A and x.
        let db = needs[2].then(|| {
            let mut db = vec![0f32; n * r];
            gemm(n, r, tokens, Lhs::transposed(&dy, n), &Rows { values: &u, stride: r }, &mut db, false);
            db
        });
        let mut du = vec![0f32; tokens * r];
        gemm(tokens, r, n, Lhs::rows(&dy, n), &Rows { values: &bv, stride: r }, &mut du, false);
        du.iter_mut().for_each(|d| *d *= self.scale);
        let da = needs[1].then(|| {
            let mut da = vec![0f32; r * k];
            gemm(r, k, tokens, Lhs::transposed(&du, r), &Rows { values: &x, stride: k }, &mut da, false);
            da
        });
        let mut dx = needs[0].then(|| self.base.input_gradient(&dy, tokens));
        let mut branch = None;
        if separate && needs[3] {
            let mut d = vec![0f32; tokens * k];
            gemm(tokens, k, r, Lhs::rows(&du, r), &Rows { values: &av, stride: k }, &mut d, false);
            branch = Some(f32_tensor(d, (tokens, k))?);
        } else if !separate && let Some(dx) = &mut dx {
            gemm(tokens, k, r, Lhs::rows(&du, r), &Rows { values: &av, stride: k }, dx, true);
        }
        let tensor = |d: Option<Vec<f32>>, rows, cols| d.map(|d| f32_tensor(d, (rows, cols))).transpose();
        let mut out = vec![tensor(dx, tokens, k)?, tensor(da, r, k)?, tensor(db, n, r)?];
        if separate {
            out.push(branch);
        }
        Ok(out)
    }
}
