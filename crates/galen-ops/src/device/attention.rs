//! Attention over segments: descriptors, and its launches.

use super::{Argument, Backend, DeviceMatrix, Number, int_bytes, ints};
use crate::error::{Result, shape_error};
use crate::ops::AttentionShape;
use galen_types::Segment;

/// Most queries of a tile of forward, by head size; of backward; most keys of backward.
fn forward_queries(head_dim: usize) -> u32 {
    if head_dim == 256 { 64 } else { 128 }
}
const BACKWARD_TILE: u32 = 64;
/// Head sizes there are kernels for.
pub const HEAD_SIZES: [usize; 4] = [64, 96, 128, 256];

/// What the kernels know of a batch's segments (`kernels/include/attention.cuh`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Descriptors {
    /// A block's tokens: {first, tokens, position of the first, segment}.
    pub tiles: Vec<[i32; 4]>,
    /// Of each segment into `ranges`, and one more.
    pub offsets: Vec<i32>,
    /// {first token, tokens, position of the first, 0}.
    pub ranges: Vec<[i32; 4]>,
}

impl Descriptors {
    /// Queries in tiles of at most `size`, each segment with the keys it may see: its ancestors' and its own.
    pub fn queries(segments: &[Segment], size: u32) -> Self {
        let keys = |[_, count, position, _]: [i32; 4], [_, len, at, _]: [i32; 4]| {
            (position + count - at).clamp(0, len)
        };
        Self::new(segments, size, |i| ancestors(segments, i), keys)
    }

    /// Keys in tiles of at most `size`, each segment with the queries that may see it: its own and its descendants'.
    pub fn keys(segments: &[Segment], size: u32) -> Self {
        let mut below: Vec<Vec<usize>> = vec![vec![]; segments.len()];
        for i in 0..segments.len() {
            for j in ancestors(segments, i) {
                below[j].push(i);
            }
        }
        let queries =
            |[_, _, position, _]: [i32; 4], [_, len, at, _]: [i32; 4]| (at + len - position).clamp(0, len);
        Self::new(segments, size, |i| std::mem::take(&mut below[i]), queries)
    }

    /// `of`: the segments that one is formed with; `meet`: how many of a range's tokens a tile's last or first one does.
    fn new(
        segments: &[Segment],
        size: u32,
        mut of: impl FnMut(usize) -> Vec<usize>,
        meet: impl Fn([i32; 4], [i32; 4]) -> i32,
    ) -> Self {
        let (mut tiles, mut offsets, mut ranges) = (vec![], vec![0], vec![]);
        for (i, s) in segments.iter().enumerate() {
            for first in (0..s.len).step_by(size as usize) {
                let count = (s.len - first).min(size);
                tiles.push([(s.start + first) as i32, count as i32, (s.position + first) as i32, i as i32]);
            }
            let seen = of(i).into_iter().map(|j| segments[j]);
            ranges.extend(seen.map(|s| [s.start as i32, s.len as i32, s.position as i32, 0]));
            offsets.push(ranges.len() as i32);
        }
        // Those with the most to do first, so that the last blocks are short.
        let work = |tile: &[i32; 4]| -> i64 {
            let of = tile[3] as usize;
            let met = &ranges[offsets[of] as usize..offsets[of + 1] as usize];
            met.iter().map(|range| i64::from(meet(*tile, *range))).sum()
        };
        tiles.sort_by_cached_key(|tile| std::cmp::Reverse(work(tile)));
        Self { tiles, offsets, ranges }
    }
}

/// A segment's ancestors from the root, then itself.
fn ancestors(segments: &[Segment], i: usize) -> Vec<usize> {
    let mut line = vec![i];
    let mut at = i;
    while let Some(parent) = segments[at].parent {
        at = parent as usize;
        line.push(at);
    }
    line.reverse();
    line
}

/// Uploaded descriptors.
struct Uploaded<B> {
    tiles_n: usize,
    parts: [B; 3],
}

impl<B> Uploaded<B> {
    fn new(on: &impl Backend<Buffer = B>, d: &Descriptors) -> Result<Self> {
        let parts = [
            on.upload(&int_bytes(d.tiles.as_flattened()))?,
            on.upload(&int_bytes(&d.offsets))?,
            on.upload(&int_bytes(d.ranges.as_flattened()))?,
        ];
        Ok(Self { tiles_n: d.tiles.len(), parts })
    }
}

/// A batch's segments on a device, for every layer of one shape.
pub struct AttentionPlan<B> {
    shape: AttentionShape,
    soft_cap: f32,
    /// Rows of q.
    tokens: usize,
    /// Rows of k and v.
    keys: usize,
    forward: Uploaded<B>,
    /// By queries, by keys: of a batch that is learned from.
    backward: Option<[Uploaded<B>; 2]>,
}

impl<B> AttentionPlan<B> {
    /// Errors: a head size without kernels, groups that do not divide the heads. `soft_cap` 0: none.
    pub fn new(
        on: &impl Backend<Buffer = B>,
        shape: AttentionShape,
        soft_cap: f32,
        segments: &[Segment],
    ) -> Result<Self> {
        let tokens = segments.iter().map(|s| s.len as usize).sum();
        let queries = Descriptors::queries(segments, forward_queries(shape.head_dim));
        let mut plan = Self::forward_only(on, shape, soft_cap, (tokens, tokens), &queries)?;
        plan.backward = Some([
            Uploaded::new(on, &Descriptors::queries(segments, BACKWARD_TILE))?,
            Uploaded::new(on, &Descriptors::keys(segments, BACKWARD_TILE))?,
        ]);
        Ok(plan)
    }

    /// `new` queries of one sequence over `past + new` keys: forward alone. Errors: as [`Self::new`].
    pub fn behind(
        on: &impl Backend<Buffer = B>,
        shape: AttentionShape,
        soft_cap: f32,
        (past, new): (usize, usize),
    ) -> Result<Self> {
        ints("attention", &[past + new])?;
        let own = Segment { start: 0, len: new as u32, parent: None, position: past as u32 };
        let mut queries = Descriptors::queries(&[own], forward_queries(shape.head_dim));
        queries.ranges = vec![[0, (past + new) as i32, 0, 0]];
        Self::forward_only(on, shape, soft_cap, (new, past + new), &queries)
    }

    fn forward_only(
        on: &impl Backend<Buffer = B>,
        shape: AttentionShape,
        soft_cap: f32,
        (tokens, keys): (usize, usize),
        queries: &Descriptors,
    ) -> Result<Self> {
        let (h, g, d) = (shape.n_heads, shape.n_kv_heads, shape.head_dim);
        if !HEAD_SIZES.contains(&d) || g == 0 || !h.is_multiple_of(g) {
            let what = format!("no kernel for {shape:?} (head sizes {HEAD_SIZES:?})\nhint: `--device cpu`");
            return shape_error("attention", what);
        }
        ints("attention", &[tokens, keys, h * d])?;
        let forward = Uploaded::new(on, queries)?;
        Ok(Self { shape, soft_cap, tokens, keys, forward, backward: None })
    }

    fn check(&self, x: &AttentionOperands<B>) -> Result<()> {
        let AttentionShape { n_heads: h, n_kv_heads: g, head_dim: d, .. } = self.shape;
        x.q.expect("attention: q", self.tokens, h * d, Number::Bf16)?;
        x.k.expect("attention: k", self.keys, g * d, Number::Bf16)?;
        x.v.expect("attention: v", self.keys, g * d, Number::Bf16)
    }

    fn arguments<'a>(&'a self, x: &AttentionOperands<'a, B>, part: &'a Uploaded<B>) -> Vec<Argument<'a, B>> {
        let mut args =
            vec![x.q.read(), x.k.read(), x.v.read(), Argument::Int(x.q.stride), Argument::Int(x.k.stride)];
        args.extend(part.parts.iter().map(|p| Argument::Read(p, 0)));
        let group = self.shape.n_heads / self.shape.n_kv_heads;
        let window = self.shape.window.unwrap_or(usize::MAX).min(i32::MAX as usize);
        args.extend([Argument::Int(self.tokens), Argument::Int(group), Argument::Float(self.shape.scale)]);
        args.extend([Argument::Float(self.soft_cap), Argument::Int(window)]);
        args
    }

    fn kernel(&self, name: &str) -> String {
        format!("attention_{name}_{}", self.shape.head_dim)
    }
}

/// q `[T, H D]`, k and v `[T, G D]`, bf16, positions rotated in.
pub struct AttentionOperands<'a, B> {
    /// q.
    pub q: &'a DeviceMatrix<B>,
    /// k.
    pub k: &'a DeviceMatrix<B>,
    /// v.
    pub v: &'a DeviceMatrix<B>,
}

/// dq, dk, dv.
pub struct AttentionGradients<B> {
    /// dq.
    pub q: DeviceMatrix<B>,
    /// dk.
    pub k: DeviceMatrix<B>,
    /// dv.
    pub v: DeviceMatrix<B>,
}

/// o `[T, H D]`, and each row's log-sum-exp, which backward wants.
pub fn attention_forward<B>(
    on: &impl Backend<Buffer = B>,
    plan: &AttentionPlan<B>,
    x: &AttentionOperands<B>,
) -> Result<(DeviceMatrix<B>, B)> {
    plan.check(x)?;
    let h = plan.shape.n_heads;
    let o = DeviceMatrix::new(on, plan.tokens, h * plan.shape.head_dim, Number::Bf16)?;
    let lse = on.alloc(4 * h * plan.tokens)?;
    if plan.tokens > 0 {
        let mut args = plan.arguments(x, &plan.forward);
        args.extend([o.write(), Argument::Write(&lse, 0)]);
        on.launch(&plan.kernel("forward"), [plan.forward.tiles_n, h, 1], &args)?;
    }
    Ok((o, lse))
}

/// Gradients of q, k and v.
pub fn attention_backward<B>(
    on: &impl Backend<Buffer = B>,
    plan: &AttentionPlan<B>,
    x: &AttentionOperands<B>,
    (o, lse): (&DeviceMatrix<B>, &B),
    d_o: &DeviceMatrix<B>,
) -> Result<AttentionGradients<B>> {
    plan.check(x)?;
    let AttentionShape { n_heads: h, n_kv_heads: g, head_dim: d, .. } = plan.shape;
    o.expect("attention: o", plan.tokens, h * d, Number::Bf16)?;
    d_o.expect("attention: do", plan.tokens, h * d, Number::Bf16)?;
    let Some([backward_q, backward_kv]) = &plan.backward else {
        return shape_error("attention", "a plan without the way back");
    };
    let delta = on.alloc(4 * h * plan.tokens)?;
    let new = |heads| DeviceMatrix::new(on, plan.tokens, heads * d, Number::Bf16);
    let found = AttentionGradients { q: new(h)?, k: new(g)?, v: new(g)? };
    if plan.tokens == 0 {
        return Ok(found);
    }
    let args = [
        o.read(),
        d_o.read(),
        Argument::Int(o.stride),
        Argument::Int(plan.tokens),
        Argument::Int(h),
        Argument::Int(d),
        Argument::Write(&delta, 0),
    ];
    on.launch("attention_delta", [(plan.tokens * h).div_ceil(8), 1, 1], &args)?;
    let gradient = || [Argument::Read(lse, 0), Argument::Read(&delta, 0), d_o.read()];
    let mut args = plan.arguments(x, backward_q);
    args.extend(gradient());
    args.push(found.q.write());
    on.launch(&plan.kernel("backward_q"), [backward_q.tiles_n, h, 1], &args)?;
    let mut args = plan.arguments(x, backward_kv);
    args.extend(gradient());
    args.extend([found.k.write(), found.v.write()]);
    on.launch(&plan.kernel("backward_kv"), [backward_kv.tiles_n, g, d.div_ceil(128)], &args)?;
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A prompt of two tiles and two answers of one each.
    #[test]
    fn tiles_with_the_most_to_do_come_first() {
        let segment = |start, len, parent, position| Segment { start, len, parent, position };
        let of = [segment(0, 128, None, 0), segment(128, 64, Some(0), 128), segment(192, 64, Some(0), 128)];
        let firsts = |d: Descriptors| d.tiles.iter().map(|t| t[0]).collect::<Vec<_>>();
        // All that comes behind a key sees it; a query sees all that came before.
        assert_eq!(firsts(Descriptors::keys(&of, 64)), [0, 64, 128, 192]);
        assert_eq!(firsts(Descriptors::queries(&of, 64)), [128, 192, 64, 0]);
    }
}
