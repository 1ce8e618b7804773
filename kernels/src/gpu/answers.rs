//! Steps of generation of an 8B shape, by the code that answers: tokens a second, and the share of memory's bandwidth that reading
//! the weights takes.

use super::bench::{self, Timing};
use super::shape::{Case, Loaded, Shape, over_blocks, report};
use galen_model::{Precision, Session};
use galen_ops::cuda::{CudaError, Gpu};
use galen_ops::device::{DeviceMatrix, KvPlace, KvSequences, KvShape, Number, PAGE_TOKENS, decode_attention};
use galen_ops::ops::AttentionShape;
use galen_ops::quant::WeightDtype;
use serde_json::{Value, json};
use std::error::Error;
use std::time::Instant;

const CASES: [Case; 2] = [
    Case { what: "bf16", stored: WeightDtype::BF16, precision: Precision::Stored, blocks: &[4, 8] },
    Case { what: "Q4_K", stored: WeightDtype::Q4_K, precision: Precision::Stored, blocks: &[32] },
];

/// How large, and how often.
#[derive(Debug, Clone, Copy)]
pub struct Sizes {
    shape: Shape,
    /// Sequences at a time.
    together: &'static [usize],
    prompt: usize,
    steps: usize,
}

impl Sizes {
    /// Behind prompts of 512 tokens.
    pub const FULL: Self = Self { shape: Shape::FULL, together: &[1, 16, 64], prompt: 512, steps: 32 };
    /// For a rehearsal on the CPU.
    pub const TINY: Self = Self { shape: Shape::TINY, together: &[2], prompt: 5, steps: 2 };
}

/// Attention of a step: as many sequences of as many tokens as `sizes` says, keys and values for a quarter of the heads.
pub fn decode(gpu: &Gpu, sizes: bench::Sizes, d: usize) -> Result<Timing, CudaError> {
    let failed =
        |e: galen_ops::Error| CudaError::Launch { kernel: "decode_attention".into(), what: e.to_string() };
    let (m, length, heads) = sizes.decoding(d);
    let kv_heads = (heads / 4).max(1);
    let shape = KvShape { layers: 1, kv_heads, head_dim: d };
    let stride = length.div_ceil(PAGE_TOKENS);
    let (q, pool) =
        (bench::filled(gpu, 2 * m * heads * d)?, bench::filled(gpu, m * stride * shape.page_bytes())?);
    let ints = |n: usize, of: &dyn Fn(usize) -> usize| {
        gpu.upload(&(0..n).flat_map(|i| (of(i) as i32).to_le_bytes()).collect::<Vec<_>>())
    };
    let (tables, lengths) = (ints(m * stride, &|i| i)?, ints(m, &|_| length)?);
    let q = DeviceMatrix { buffer: q, rows: m, cols: heads * d, stride: heads * d, number: Number::Bf16 };
    let attention =
        AttentionShape { n_heads: heads, n_kv_heads: kv_heads, head_dim: d, scale: 0.088, window: None };
    let ms = bench::median(gpu, sizes.runs(), || {
        let at = KvPlace { pool: &pool, shape, layer: 0 };
        let of = KvSequences { tables: &tables, stride, lengths: &lengths, longest: length };
        decode_attention(gpu, attention, 0.0, &q, &at, &of).map(drop).map_err(failed)
    })?;
    let flops = 4.0 * (m * length * heads * d) as f64;
    let bytes = 4.0 * (m * length * kv_heads * d) as f64;
    let work = format!("{m} sequences of {length}, {heads} heads, {kv_heads} of keys");
    Ok(Timing { kernel: format!("decode_attention_{d}"), work, ms, flops, bytes })
}

/// A row of the report for each, and what went wrong.
pub fn all(ordinal: usize, sizes: Sizes) -> (Vec<Value>, Vec<String>) {
    report(CASES.into_iter().flat_map(|case| {
        sizes.together.iter().map(move |together| {
            let what = format!("answers of an 8B shape, {}, {together} at a time", case.what);
            (what, of_case(ordinal, sizes, case, *together))
        })
    }))
}

fn of_case(ordinal: usize, sizes: Sizes, case: Case, together: usize) -> Result<Value, Box<dyn Error>> {
    let (measured, seconds) =
        over_blocks(sizes.shape, case, |blocks| time(ordinal, sizes, case, (blocks, together)))?;
    Ok(json!({
        "what": case.what, "together": together, "prompt": sizes.prompt, "measured": measured,
        "step_ms_of_32_blocks": seconds * 1e3, "tokens_per_second_of_32_blocks": together as f64 / seconds,
    }))
}

/// Seconds of a step, and bytes of the weights that it reads.
fn time(
    ordinal: usize,
    sizes: Sizes,
    case: Case,
    (blocks, together): (u64, usize),
) -> Result<(f64, u64), Box<dyn Error>> {
    let Loaded { model, .. } = Loaded::new(ordinal, sizes.shape, case, blocks)?;
    let ids = |i: usize| -> Vec<u32> {
        (0..sizes.prompt).map(|t| ((i * 7919 + t * 104_729) % sizes.shape.vocab as usize) as u32).collect()
    };
    let family = Session::new(&model, None);
    let mut sessions = Vec::new();
    for i in 0..together {
        let mut session = family.sibling();
        session.feed(&ids(i))?;
        sessions.push(session);
    }
    let mut begin = Instant::now();
    for step in 0..sizes.steps + 2 {
        // Two that warm up.
        if step == 2 {
            begin = Instant::now();
        }
        let mut live: Vec<&mut Session> = sessions.iter_mut().collect();
        let logits = Session::step(&mut live, &vec![step as u32; together])?;
        if !logits.iter().all(|l| l.is_finite()) {
            return Err("a logit that is no number".into());
        }
    }
    Ok((begin.elapsed().as_secs_f64() / sizes.steps as f64, model.nbytes() as u64))
}
