//! Log-probabilities of targets, the vocabulary in chunks, the gradient in the same pass.

use super::projection::{rows_backward, rows_forward};
use super::{Argument, Backend, DeviceMatrix, DeviceWeight, Number, int_bytes, ints};
use crate::error::{Result, shape_error};
use galen_types::Target;

/// Vocabulary entries whose logits exist at once: whole scales of scales of any NF4 matrix.
const CHUNK: usize = 4096;

/// What forward gives.
pub struct HeadState<B> {
    /// `[N]` f32, in the order of the targets.
    pub logps: B,
    /// `[N]` int: whether no other token is more likely.
    pub correct: B,
    /// What backward wants: sums of weights times rows of the head, sums of weights.
    kept: Option<(DeviceMatrix<B>, B)>,
    plan: Plan<B>,
}

/// Where targets read and write.
struct Plan<B> {
    rows: Vec<i32>,
    index: B,
    offsets: B,
    /// In the order of `order`.
    pairs: B,
    /// Target at each place.
    order: Vec<usize>,
}

impl<B> Plan<B> {
    fn new(on: &impl Backend<Buffer = B>, targets: &[Target]) -> Result<Self> {
        let mut rows: Vec<i32> = targets.iter().map(|t| t.index as i32).collect();
        rows.sort_unstable();
        rows.dedup();
        let mut order: Vec<usize> = (0..targets.len()).collect();
        order.sort_by_key(|i| targets[*i].index);
        let row_of = |i: &usize| rows.partition_point(|r| *r < targets[*i].index as i32) as i32;
        let pairs: Vec<i32> = order.iter().flat_map(|i| [row_of(i), targets[*i].token as i32]).collect();
        let mut offsets = vec![0i32; rows.len() + 1];
        for pair in pairs.as_chunks::<2>().0 {
            offsets[pair[0] as usize + 1] += 1;
        }
        for i in 1..offsets.len() {
            offsets[i] += offsets[i - 1];
        }
        Ok(Self {
            index: on.upload(&int_bytes(&rows))?,
            offsets: on.upload(&int_bytes(&offsets))?,
            pairs: on.upload(&int_bytes(&pairs))?,
            rows,
            order,
        })
    }
}

impl<B> HeadState<B> {
    /// Log-probabilities in the targets' order, and whether each is the most likely token. Waits.
    pub fn download(&self, on: &impl Backend<Buffer = B>) -> Result<(Vec<f32>, Vec<bool>)> {
        let (logps, correct) = (on.download(&self.logps)?, on.download(&self.correct)?);
        let mut out = (vec![0f32; self.plan.order.len()], vec![false; self.plan.order.len()]);
        let both = logps.as_chunks::<4>().0.iter().zip(correct.as_chunks::<4>().0);
        for (i, (l, c)) in self.plan.order.iter().zip(both) {
            out.0[*i] = f32::from_le_bytes(*l);
            out.1[*i] = i32::from_le_bytes(*c) != 0;
        }
        Ok(out)
    }
}

/// `log softmax(W h / temperature)[token]` of each target; hidden `[T, C]` f32.
pub fn log_prob_forward<B>(
    on: &impl Backend<Buffer = B>,
    hidden: &DeviceMatrix<B>,
    weight: &DeviceWeight<B>,
    targets: &[Target],
    temperature: f32,
    with_gradient: bool,
) -> Result<HeadState<B>> {
    let (tokens, c, v) = (hidden.rows, weight.cols(), weight.rows());
    hidden.expect("log_prob_head", tokens, c, Number::F32)?;
    ints("log_prob_head", &[tokens, c, v, targets.len()])?;
    let outside = targets.iter().find(|t| t.index as usize >= tokens || t.token as usize >= v);
    if let Some(t) = outside {
        return shape_error("log_prob_head", format!("target {t:?} in {tokens} tokens, {v} ids"));
    }
    if !CHUNK.is_multiple_of(weight.row_step()) || hidden.stride != c || temperature <= 0.0 {
        return shape_error("log_prob_head", format!("rows of {c}, temperature {temperature}"));
    }
    let plan = Plan::new(on, targets)?;
    let (n, n_targets) = (plan.rows.len(), targets.len());
    let (logps, correct) = (on.alloc(4 * n_targets)?, on.alloc(4 * n_targets)?);
    if n == 0 {
        return Ok(HeadState { logps, correct, kept: None, plan });
    }
    let h = DeviceMatrix::new(on, n, c, Number::Bf16)?;
    let args = [hidden.read(), Argument::Read(&plan.index, 0), Argument::Int(c), h.write()];
    on.launch("select_rows", [n, 1, 1], &args)?;
    let floats = |value: f32, n: usize| {
        on.upload(&vec![value; n].iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<_>>())
    };
    let (max, sum, factors) = (floats(f32::NEG_INFINITY, n)?, floats(0.0, n)?, on.alloc(4 * n)?);
    let target_logits = on.alloc(4 * n_targets)?;
    let expectation = DeviceMatrix {
        buffer: on.zeros(if with_gradient { 4 * n * c } else { 4 })?,
        rows: n,
        cols: c,
        stride: c,
        number: Number::F32,
    };
    let inverse = 1.0 / temperature;
    for first in (0..v).step_by(CHUNK) {
        let chunk = (v - first).min(CHUNK);
        let logits = DeviceMatrix::new(on, n, chunk, Number::F32)?;
        let weights = DeviceMatrix::new(on, n, chunk, Number::Bf16)?;
        rows_forward(on, &h, (weight, first, chunk), &logits)?;
        let args = [
            logits.read(),
            Argument::Int(logits.stride),
            Argument::Int(first),
            Argument::Int(chunk),
            Argument::Read(&plan.pairs, 0),
            Argument::Int(n_targets),
            Argument::Float(inverse),
            Argument::Write(&target_logits, 0),
        ];
        on.launch("log_prob_targets", [n_targets.div_ceil(256), 1, 1], &args)?;
        let args = [
            logits.read(),
            Argument::Int(logits.stride),
            Argument::Int(chunk),
            Argument::Float(inverse),
            Argument::Write(&max, 0),
            Argument::Write(&sum, 0),
            Argument::Write(&factors, 0),
            if with_gradient { weights.write() } else { Argument::Null },
            Argument::Int(weights.stride),
        ];
        on.launch("log_prob_online", [n, 1, 1], &args)?;
        if with_gradient {
            let args = [expectation.write(), Argument::Int(c), Argument::Read(&factors, 0)];
            on.launch("log_prob_rescale", [c.div_ceil(1024), n, 1], &args)?;
            rows_backward(on, &weights, (weight, first), &expectation)?;
        }
    }
    let args = [
        Argument::Read(&target_logits, 0),
        Argument::Read(&plan.pairs, 0),
        Argument::Int(n_targets),
        Argument::Read(&max, 0),
        Argument::Read(&sum, 0),
        Argument::Write(&logps, 0),
        Argument::Write(&correct, 0),
    ];
    on.launch("log_prob_finish", [n_targets.div_ceil(256), 1, 1], &args)?;
    Ok(HeadState { logps, correct, kept: with_gradient.then_some((expectation, sum)), plan })
}

/// dh `[T, C]` bf16 of gradients of the log-probabilities, in the targets' order; zero in rows that predict nothing.
pub fn log_prob_backward<B>(
    on: &impl Backend<Buffer = B>,
    state: &HeadState<B>,
    weight: &DeviceWeight<B>,
    gradients: &[f32],
    (tokens, temperature): (usize, f32),
) -> Result<DeviceMatrix<B>> {
    let c = weight.cols();
    let dh = DeviceMatrix {
        buffer: on.zeros(2 * tokens * c)?,
        rows: tokens,
        cols: c,
        stride: c,
        number: Number::Bf16,
    };
    let n = state.plan.rows.len();
    if gradients.len() != state.plan.order.len() {
        let what = format!("{} gradients for {} targets", gradients.len(), state.plan.order.len());
        return shape_error("log_prob_head", what);
    }
    if n == 0 {
        return Ok(dh);
    }
    let Some((expectation, sum)) = &state.kept else {
        return shape_error("log_prob_head", "forward ran without its gradient");
    };
    let sorted: Vec<u8> = state.plan.order.iter().flat_map(|i| gradients[*i].to_le_bytes()).collect();
    let sorted = on.upload(&sorted)?;
    let mut args = weight.arguments(0);
    args.extend([Argument::Int(c), expectation.read(), Argument::Read(sum, 0), Argument::Read(&sorted, 0)]);
    args.extend([&state.plan.pairs, &state.plan.offsets, &state.plan.index].map(|b| Argument::Read(b, 0)));
    args.extend([Argument::Float(1.0 / temperature), dh.write()]);
    on.launch(&weight.kernel("log_prob_gradient"), [n, 1, 1], &args)?;
    Ok(dh)
}
