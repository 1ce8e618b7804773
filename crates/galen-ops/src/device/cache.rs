//! Keys and values of generation in pages (PagedAttention, Kwon et al. 2023), and the attention that reads them.

use super::{
    Accelerator, Argument, AttentionOperands, AttentionPlan, Backend, DeviceMatrix, HEAD_SIZES, Memory,
    Number, attention_forward, bytes, ints,
};
use crate::error::{Result, shape_error};
use crate::ops::AttentionShape;

/// Tokens of a page.
pub const PAGE_TOKENS: usize = 64;
/// Positions of a part of a row's attention (`kernels/decode_attention.cu`): a constant, so that bits depend on nothing else.
const SPLIT: usize = 256;
/// Heads of a block there.
const HEADS: usize = 16;

/// What lies in a page: of every block keys and values `[64, G D]` in bf16.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KvShape {
    /// Blocks of the model.
    pub layers: usize,
    /// G.
    pub kv_heads: usize,
    /// D.
    pub head_dim: usize,
}

impl KvShape {
    /// Errors: a head size without kernels, a page that no index holds.
    pub fn check(self) -> Result<Self> {
        if !HEAD_SIZES.contains(&self.head_dim) {
            let what =
                format!("no kernel for heads of {} ({HEAD_SIZES:?})\nhint: `--device cpu`", self.head_dim);
            return shape_error("kv_cache", what);
        }
        ints("kv_cache", &[bytes("kv_cache", &[self.layers, self.width(), 2, PAGE_TOKENS])?])?;
        Ok(self)
    }

    /// Values of a token's keys in one block.
    pub fn width(self) -> usize {
        self.kv_heads * self.head_dim
    }

    /// Bytes of a page.
    pub fn page_bytes(self) -> usize {
        self.layers * 2 * PAGE_TOKENS * self.width() * Number::Bf16.bytes()
    }
}

/// A pool's memory, and the block of the model that is meant.
pub struct KvPlace<'a, B> {
    /// `[pages, layers, 2, 64, G D]`.
    pub pool: &'a B,
    /// What lies there.
    pub shape: KvShape,
    /// The block.
    pub layer: usize,
}

impl<'a, B> KvPlace<'a, B> {
    fn block(&self) -> [Argument<'a, B>; 3] {
        [Argument::Int(self.shape.width()), Argument::Int(self.layer), Argument::Int(self.shape.layers)]
    }
}

/// Pieces of 8 of that many tokens' keys, in blocks of threads.
fn pieces(tokens: usize, shape: KvShape) -> [usize; 3] {
    [(tokens * shape.width() / 8).div_ceil(256), 1, 1]
}

/// Puts k and v `[T, G D]` bf16 where `slots` say: i32, a page's number times 64 and a place in it.
pub fn kv_write<B>(
    on: &impl Backend<Buffer = B>,
    at: &KvPlace<B>,
    (k, v): (&DeviceMatrix<B>, &DeviceMatrix<B>),
    slots: &B,
) -> Result<()> {
    let tokens = k.rows;
    for x in [k, v] {
        x.expect("kv_cache", tokens, at.shape.width(), Number::Bf16)?;
    }
    ints("kv_cache", &[tokens, k.stride])?;
    if tokens == 0 {
        return Ok(());
    }
    let mut args = vec![k.read(), v.read(), Argument::Int(k.stride), Argument::Read(slots, 0)];
    args.push(Argument::Int(tokens));
    args.extend(at.block());
    args.push(Argument::Write(at.pool, 0));
    on.launch("kv_write", pieces(tokens, at.shape), &args)
}

/// The first `tokens` keys and values of a sequence whose pages are `table`'s.
pub fn kv_gather<B>(
    on: &impl Backend<Buffer = B>,
    at: &KvPlace<B>,
    table: &B,
    tokens: usize,
) -> Result<(DeviceMatrix<B>, DeviceMatrix<B>)> {
    let new = || DeviceMatrix::new(on, tokens, at.shape.width(), Number::Bf16);
    let (k, v) = (new()?, new()?);
    ints("kv_cache", &[tokens])?;
    if tokens > 0 {
        let mut args = vec![Argument::Read(at.pool, 0), Argument::Read(table, 0), Argument::Int(tokens)];
        args.extend(at.block());
        args.extend([k.write(), v.write()]);
        on.launch("kv_gather", pieces(tokens, at.shape), &args)?;
    }
    Ok((k, v))
}

/// Copies pages from one pool to another, or within one: `pairs` of numbers, `[n, 2]` i32, none of which is both read and written.
pub fn kv_copy<B>(
    on: &impl Backend<Buffer = B>,
    shape: KvShape,
    (from, to): (&B, &B),
    (pairs, n): (&B, usize),
) -> Result<()> {
    let vectors = shape.page_bytes() / 16;
    ints("kv_cache", &[vectors])?;
    if n == 0 {
        return Ok(());
    }
    let args =
        [Argument::Read(from, 0), Argument::Read(pairs, 0), Argument::Int(vectors), Argument::Write(to, 0)];
    on.launch("kv_copy", [n, vectors.div_ceil(256), 1], &args)
}

/// The sequences of a step: where each one's pages are listed, and how many tokens it has, the new one among them.
pub struct KvSequences<'a, B> {
    /// `[M, stride]` i32.
    pub tables: &'a B,
    /// Pages a row of it has room for.
    pub stride: usize,
    /// `[M]` i32.
    pub lengths: &'a B,
    /// Tokens of the longest.
    pub longest: usize,
}

/// o `[M, H D]` bf16 of q `[M, H D]`: one new token of each sequence over its own cache. `soft_cap` 0: none.
///
/// Errors: groups that do not divide the heads, a head size that is not the cache's.
pub fn decode_attention<B>(
    on: &impl Backend<Buffer = B>,
    shape: AttentionShape,
    soft_cap: f32,
    q: &DeviceMatrix<B>,
    at: &KvPlace<B>,
    of: &KvSequences<B>,
) -> Result<DeviceMatrix<B>> {
    let AttentionShape { n_heads: h, n_kv_heads: g, head_dim: d, scale, window } = shape;
    at.shape.check()?;
    if g == 0 || !h.is_multiple_of(g) || (g, d) != (at.shape.kv_heads, at.shape.head_dim) {
        return shape_error("attention", format!("{shape:?} over a cache of {:?}", at.shape));
    }
    let m = q.rows;
    q.expect("attention: q", m, h * d, Number::Bf16)?;
    let o = DeviceMatrix::new(on, m, h * d, Number::Bf16)?;
    let (splits, group) = (of.longest.div_ceil(SPLIT), h / g);
    ints("attention", &[of.longest, of.stride, q.stride, bytes("attention", &[m, splits.max(1), h])?])?;
    if m == 0 || splits == 0 {
        return Ok(o);
    }
    let window = window.unwrap_or(usize::MAX).min(i32::MAX as usize);
    let parts =
        if splits > 1 { Some(on.alloc(bytes("attention", &[m, h, splits, d + 2, 4])?)?) } else { None };
    let mut args = vec![q.read(), Argument::Int(q.stride), Argument::Read(at.pool, 0)];
    args.extend(at.block());
    args.extend([Argument::Read(of.tables, 0), Argument::Int(of.stride), Argument::Read(of.lengths, 0)]);
    args.extend([
        Argument::Int(group),
        Argument::Int(splits),
        Argument::Float(scale),
        Argument::Float(soft_cap),
    ]);
    args.extend([Argument::Int(window), o.write(), Argument::Int(o.stride)]);
    args.push(parts.as_ref().map_or(Argument::Null, |p| Argument::Write(p, 0)));
    on.launch(&format!("decode_attention_{d}"), [m * splits, g, group.div_ceil(HEADS)], &args)?;
    if let Some(parts) = &parts {
        let args = [
            Argument::Read(parts, 0),
            Argument::Read(of.lengths, 0),
            Argument::Int(h),
            Argument::Int(d),
            Argument::Int(splits),
            Argument::Int(window),
            o.write(),
            Argument::Int(o.stride),
        ];
        on.launch("decode_attention_join", [m * h, 1, 1], &args)?;
    }
    Ok(o)
}

/// o `[T, H D]` of the last `T` tokens of one sequence, whose `past` tokens before them are cached: `table` lists its pages, in which
/// the new ones are too.
pub(super) fn prompt_attention(
    on: &Accelerator,
    plan: &AttentionPlan<Memory>,
    x: &AttentionOperands<Memory>,
    at: &KvPlace<Memory>,
    (table, past): (&Memory, usize),
) -> Result<DeviceMatrix<Memory>> {
    if past == 0 {
        return Ok(attention_forward(on, plan, x)?.0);
    }
    let (k, v) = kv_gather(on, at, table, past + x.q.rows)?;
    Ok(attention_forward(on, plan, &AttentionOperands { q: x.q, k: &k, v: &v })?.0)
}
