//! Causal attention over segments and their parents (FlashAttention-2, Dao 2023: scores recomputed in backward).

use crate::device::{Accelerator, DeviceTensor};
use crate::error::{Result, shape_error};
use crate::kernels::attention::{Context, Norm, Queries, backward, forward};
use crate::kernels::bf16::attention as rounded;
use crate::ops::{Compute, by_rows, on_device};
use crate::profile::span;
use crate::tape::{Launched, Op, Saved};
use crate::tensor::{dims2, f32_tensor, f32_view, keep, kept};
use candle_core::Tensor;
use galen_types::Segment;
use rayon::prelude::*;
use std::cell::RefCell;
use std::sync::Arc;

/// Heads and scores of an attention layer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AttentionShape {
    /// H, a multiple of G.
    pub n_heads: usize,
    /// G; head h reads key-value head `h / (H / G)`.
    pub n_kv_heads: usize,
    /// D.
    pub head_dim: usize,
    /// Factor of the scores, usually `1 / sqrt(D)`.
    pub scale: f32,
    /// A query at position p sees keys at positions in `(p - window, p]`.
    pub window: Option<usize>,
}

/// Inputs q `[T, H D]`, k and v `[T, G D]`, positions already rotated in; output `[T, H D]`.
pub struct Attention {
    /// Heads and scores.
    pub shape: AttentionShape,
    /// The batch's segments.
    pub segments: Arc<[Segment]>,
    /// Arithmetic of its products, and the width of what it keeps.
    pub compute: Compute,
}

thread_local! {
    static WORK: RefCell<rounded::Work> = RefCell::default();
}

/// A segment within its tree: whose keys it sees.
struct Member {
    segment: Segment,
    /// (first token, tokens) of every ancestor, then of the segment itself, by position.
    context: Vec<(usize, usize)>,
    /// Offset of the segment's rows in the tree's buffers.
    local: usize,
}

/// Segments grouped by root; trees share nothing and run in parallel.
fn trees(segments: &[Segment]) -> Vec<Vec<Member>> {
    let mut trees: Vec<Vec<Member>> = Vec::new();
    let mut place: Vec<(usize, usize)> = Vec::new(); // segment -> (tree, member)
    for s in segments {
        let own = (s.start as usize, s.len as usize);
        let (tree, mut context) = match s.parent {
            None => {
                trees.push(Vec::new());
                (trees.len() - 1, Vec::new())
            }
            Some(parent) => {
                let (tree, member) = place[parent as usize];
                (tree, trees[tree][member].context.clone())
            }
        };
        context.push(own);
        let local = trees[tree].last().map_or(0, |m| m.local + m.segment.len as usize);
        place.push((tree, trees[tree].len()));
        trees[tree].push(Member { segment: *s, context, local });
    }
    trees
}

/// Rows `[n, d]` of one head, by position.
fn gather(
    values: &[f32],
    context: &[(usize, usize)],
    stride: usize,
    offset: usize,
    d: usize,
    out: &mut Vec<f32>,
) {
    out.clear();
    for (start, len) in context {
        for t in *start..start + len {
            out.extend_from_slice(&values[t * stride + offset..t * stride + offset + d]);
        }
    }
}

impl Attention {
    /// The output `[T, H D]`, and what normalised each row of each head `[T, 2 H]`.
    fn output(&self, inputs: &[&Tensor]) -> Result<(Tensor, Tensor)> {
        let [q, k, v] = inputs else { return shape_error("attention", "takes three inputs") };
        let tokens = self.check(q, k, v)?;
        let AttentionShape { n_heads, n_kv_heads, head_dim: d, .. } = self.shape;
        let (qv, kv, vv) = (f32_view(q)?, f32_view(k)?, f32_view(v)?);
        let (qv, kv, vv) = (&*qv, &*kv, &*vv);
        let (q_stride, kv_stride) = (n_heads * d, n_kv_heads * d);
        let trees = trees(&self.segments);
        let tasks = self.tasks(&trees);
        let results: Vec<(Vec<f32>, Vec<f32>)> = tasks
            .par_iter()
            .map(|(tree, h)| {
                let n = tree_tokens(tree);
                let (mut o, mut norms) = (vec![0f32; n * d], vec![Norm::default(); n]);
                let (mut keys, mut values) = (Vec::new(), Vec::new());
                let offset = h / (n_heads / n_kv_heads) * d;
                for m in *tree {
                    gather(kv, &m.context, kv_stride, offset, d, &mut keys);
                    gather(vv, &m.context, kv_stride, offset, d, &mut values);
                    let (start, len) = (m.segment.start as usize, m.segment.len as usize);
                    let queries = Queries {
                        values: &qv[start * q_stride + h * d..],
                        stride: q_stride,
                        len,
                        position: m.segment.position as usize,
                    };
                    let rows = m.local..m.local + len;
                    let out = &mut o[rows.start * d..rows.end * d];
                    let context = self.context(&keys, &values);
                    match self.compute {
                        Compute::F32 => forward(queries, context, out, &mut norms[rows]),
                        Compute::Bf16 => WORK.with_borrow_mut(|work| {
                            work.pack(context);
                            rounded::forward(work, queries, context, out, d, &mut norms[rows]);
                        }),
                    }
                }
                (o, norms.iter().flat_map(|n| [n.max, n.inverse]).collect())
            })
            .collect();
        let places = places(&trees, tokens);
        let o = side_by_side(&places, (n_heads, 1, d), |task| &results[task].0);
        let norms = side_by_side(&places, (n_heads, 1, 2), |task| &results[task].1);
        let o = f32_tensor(o, (tokens, q_stride))?;
        let norms = f32_tensor(norms, (tokens, n_heads * 2))?;
        Ok((o, norms))
    }

    fn check(&self, q: &Tensor, k: &Tensor, v: &Tensor) -> Result<usize> {
        let s = &self.shape;
        let ((t, qw), (tk, kw)) = (dims2("attention", q)?, dims2("attention", k)?);
        let tokens: usize = self.segments.iter().map(|s| s.len as usize).sum();
        let sound = t == tk
            && t == tokens
            && qw == s.n_heads * s.head_dim
            && kw == s.n_kv_heads * s.head_dim
            && k.dims() == v.dims()
            && s.n_kv_heads > 0
            && s.n_heads.is_multiple_of(s.n_kv_heads);
        if sound {
            Ok(t)
        } else {
            let what = format!(
                "q `{:?}`, k `{:?}`, v `{:?}` for {s:?}, {tokens} tokens",
                q.dims(),
                k.dims(),
                v.dims()
            );
            shape_error("attention", what)
        }
    }

    fn tasks<'a>(&self, trees: &'a [Vec<Member>]) -> Vec<(&'a [Member], usize)> {
        trees.iter().flat_map(|tree| (0..self.shape.n_heads).map(move |h| (&tree[..], h))).collect()
    }

    fn context<'a>(&self, keys: &'a [f32], values: &'a [f32]) -> Context<'a> {
        let AttentionShape { head_dim: d, scale, window, .. } = self.shape;
        Context { keys, values, d, scale, window }
    }
}

fn tree_tokens(tree: &[Member]) -> usize {
    tree.iter().map(|m| m.segment.len as usize).sum()
}

/// Where each token's rows lie in the tasks' results: (tree, row of the tree's buffers).
fn places(trees: &[Vec<Member>], tokens: usize) -> Vec<(usize, usize)> {
    let mut places = vec![(0, 0); tokens];
    for (i, tree) in trees.iter().enumerate() {
        for m in tree {
            let start = m.segment.start as usize;
            for (j, place) in places[start..start + m.segment.len as usize].iter_mut().enumerate() {
                *place = (i, m.local + j);
            }
        }
    }
    places
}

/// The tasks' rows of `d` values, one task a tree and head, laid side by side as `[T, heads / group * d]`: the rows of
/// `group` neighbouring heads are added, in their order.
fn side_by_side<'a>(
    places: &[(usize, usize)],
    (heads, group, d): (usize, usize, usize),
    part: impl Fn(usize) -> &'a [f32] + Sync,
) -> Vec<f32> {
    let width = heads / group * d;
    by_rows(places.len() * width, width, |first, out: &mut [f32]| {
        for (out, (tree, row)) in out.chunks_exact_mut(width).zip(&places[first..]) {
            for (g, out) in out.chunks_exact_mut(d).enumerate() {
                for h in g * group..(g + 1) * group {
                    let part = &part(tree * heads + h)[row * d..(row + 1) * d];
                    out.iter_mut().zip(part).for_each(|(o, p)| *o += p);
                }
            }
        }
    })
}

impl Op for Attention {
    fn name(&self) -> &'static str {
        "attention"
    }

    fn forward(&self, inputs: &[&Tensor]) -> Result<(Vec<Tensor>, Saved)> {
        let (o, norms) = self.output(inputs)?;
        let mut saved = inputs.iter().map(|t| keep(t, self.compute)).collect::<Result<Vec<_>>>()?;
        saved.push(norms);
        Ok((vec![o], saved))
    }

    fn infer(&self, inputs: &[&Tensor]) -> Result<Vec<Tensor>> {
        Ok(vec![self.output(inputs)?.0])
    }

    fn backward(
        &self,
        saved: &Saved,
        grads: Vec<Option<Tensor>>,
        needs: &[bool],
    ) -> Result<Vec<Option<Tensor>>> {
        let [Some(d_o)] = &grads[..] else { return Ok(vec![None; 3]) };
        let [q, k, v, norms] = &saved[..] else {
            return shape_error("attention", "saved tensors are missing");
        };
        let tokens = self.check(q, k, v)?;
        let AttentionShape { n_heads, n_kv_heads, head_dim: d, .. } = self.shape;
        let (qv, kv, vv) = (kept(q)?, kept(k)?, kept(v)?);
        let (nv, gv) = (f32_view(norms)?, f32_view(d_o)?);
        let (qv, kv, vv, nv, gv) = (&*qv, &*kv, &*vv, &*nv, &*gv);
        let (q_stride, kv_stride) = (n_heads * d, n_kv_heads * d);
        let trees = trees(&self.segments);
        let tasks = self.tasks(&trees);
        let results: Vec<[Vec<f32>; 3]> = tasks
            .par_iter()
            .map(|(tree, h)| {
                let n = tree_tokens(tree);
                let [mut dq, mut dk, mut dv] = [vec![0f32; n * d], vec![0f32; n * d], vec![0f32; n * d]];
                let (mut keys, mut values) = (Vec::new(), Vec::new());
                let (mut dkc, mut dvc) = (Vec::new(), Vec::new());
                let offset = h / (n_heads / n_kv_heads) * d;
                for m in *tree {
                    gather(kv, &m.context, kv_stride, offset, d, &mut keys);
                    gather(vv, &m.context, kv_stride, offset, d, &mut values);
                    let (start, len) = (m.segment.start as usize, m.segment.len as usize);
                    let norm = |t: usize| {
                        let at = (t * n_heads + h) * 2;
                        Norm { max: nv[at], inverse: nv[at + 1] }
                    };
                    let norms: Vec<Norm> = (start..start + len).map(norm).collect();
                    let position = m.segment.position as usize;
                    let rows_of = |values| Queries { values, stride: q_stride, len, position };
                    let (queries, grad) =
                        (rows_of(&qv[start * q_stride + h * d..]), rows_of(&gv[start * q_stride + h * d..]));
                    dkc.clear();
                    dkc.resize(keys.len(), 0.0);
                    dvc.clear();
                    dvc.resize(keys.len(), 0.0);
                    let context = self.context(&keys, &values);
                    let dq = &mut dq[m.local * d..(m.local + len) * d];
                    match self.compute {
                        Compute::F32 => backward(queries, context, &norms, grad, dq, &mut dkc, &mut dvc),
                        Compute::Bf16 => WORK.with_borrow_mut(|work| {
                            let (dk, dv) = (&mut dkc[..], &mut dvc[..]);
                            rounded::backward(work, queries, context, &norms, grad, dq, d, dk, dv);
                        }),
                    }
                    // Children add to their ancestors in the order of the segments.
                    let mut from = 0;
                    for (start, len) in &m.context {
                        let owner = tree.iter().find(|o| o.segment.start as usize == *start);
                        let to = owner.map_or(0, |o| o.local) * d;
                        for i in 0..len * d {
                            dk[to + i] += dkc[from + i];
                            dv[to + i] += dvc[from + i];
                        }
                        from += len * d;
                    }
                }
                [dq, dk, dv]
            })
            .collect();
        let (places, group) = (places(&trees, tokens), n_heads / n_kv_heads);
        let dq = side_by_side(&places, (n_heads, 1, d), |task| &results[task][0]);
        let [dk, dv] = [1, 2].map(|i| side_by_side(&places, (n_heads, group, d), |task| &results[task][i]));
        // One pass forms all three; only the lowest trained block could do without some.
        let all = [(dq, q_stride), (dk, kv_stride), (dv, kv_stride)];
        let wanted = |((d, width), n): ((Vec<f32>, usize), &bool)| {
            n.then(|| f32_tensor(d, (tokens, width))).transpose()
        };
        all.into_iter().zip(needs).map(wanted).collect()
    }

    fn on_device(&self, on: &Accelerator, inputs: &[&DeviceTensor]) -> Launched {
        on_device::attention(self, on, inputs)
    }
}

/// Queries of a task of [`CachedAttention`]: whole tiles of every path.
const PART: usize = 192;

/// Attention of new tokens over a cache that already holds their keys and values: no gradient. The bits of
/// [`Attention`] over the same keys.
pub struct CachedAttention {
    /// Heads and scores.
    pub shape: AttentionShape,
    /// Arithmetic of its products.
    pub compute: Compute,
}

impl CachedAttention {
    /// q `[T, H D]` of the last T of `keys.len() / (G D)` positions; keys and values `[n, G D]` from position 0.
    pub fn run(&self, q: &Tensor, keys: &[f32], values: &[f32]) -> Result<Tensor> {
        let AttentionShape { n_heads, n_kv_heads, head_dim: d, scale, window } = self.shape;
        let (len, width) = dims2("cached_attention", q)?;
        let kv_stride = n_kv_heads * d;
        let n = keys.len().checked_div(kv_stride).unwrap_or(0);
        if width != n_heads * d || values.len() != keys.len() || n < len {
            let what = format!("q `{:?}` over {n} cached positions for {:?}", q.dims(), self.shape);
            return shape_error("cached_attention", what);
        }
        let _span = span("attention");
        let qv = f32_view(q)?;
        let qv = &*qv;
        // A task: the heads that share keys and values (one by one where that gives too few), and some of the queries;
        // the last, which see most, first.
        let group = n_heads / n_kv_heads;
        let part = if len < 2 * PART { len.max(1) } else { PART };
        let parts = len.div_ceil(part);
        let together = if n_kv_heads * parts < 3 * rayon::current_num_threads() { 1 } else { group };
        let sets = n_heads / together;
        let results: Vec<Vec<f32>> = (0..sets * parts)
            .into_par_iter()
            .with_max_len(1)
            .map(|task| {
                let (set, first) = (task % sets, (parts - 1 - task / sets) * part);
                let offset = set * together / group * d;
                let len_of_part = part.min(len - first);
                let (position, seen) = (n - len + first, n - len + first + len_of_part);
                let (mut k, mut v) = (Vec::new(), Vec::new());
                gather(keys, &[(0, seen)], kv_stride, offset, d, &mut k);
                gather(values, &[(0, seen)], kv_stride, offset, d, &mut v);
                let context = Context { keys: &k, values: &v, d, scale, window };
                let mut norms = vec![Norm::default(); len_of_part];
                let mut o = vec![0f32; together * len_of_part * d];
                WORK.with_borrow_mut(|work| {
                    if self.compute == Compute::Bf16 {
                        work.pack(context);
                    }
                    for (h, o) in (set * together..).zip(o.chunks_exact_mut((len_of_part * d).max(1))) {
                        let values = &qv[first * width + h * d..];
                        let queries = Queries { values, stride: width, len: len_of_part, position };
                        match self.compute {
                            Compute::F32 => forward(queries, context, o, &mut norms),
                            Compute::Bf16 => rounded::forward(work, queries, context, o, d, &mut norms),
                        }
                    }
                });
                o
            })
            .collect();
        let out = by_rows(len * width, width, |first, rows| {
            for (t, row) in (first..).zip(rows.chunks_exact_mut(width)) {
                let len_of_part = part.min(len - t / part * part);
                for (h, out) in row.chunks_exact_mut(d).enumerate() {
                    let task = (parts - 1 - t / part) * sets + h / together;
                    out.copy_from_slice(&results[task][(h % together * len_of_part + t % part) * d..][..d]);
                }
            }
        });
        f32_tensor(out, (len, width))
    }
}
