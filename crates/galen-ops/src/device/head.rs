//! Log-probabilities of targets, the vocabulary in chunks, the gradient in the same pass.

use super::projection::{rows_backward, rows_forward, step_rows_forward};
use super::{Argument, Backend, DeviceMatrix, DeviceWeight, Number, int_bytes, ints};
use crate::error::{Result, shape_error};
use galen_types::Target;
use std::sync::Arc;

/// Vocabulary entries whose logits exist at once: whole scales of scales of any NF4 matrix.
const CHUNK: usize = 4096;

/// Logits `[M, V]` f32 of normalised hidden states `[M, C]` bf16, each a sequence's last.
pub fn logits<B>(
    on: &impl Backend<Buffer = B>,
    hidden: &DeviceMatrix<B>,
    weight: &DeviceWeight<B>,
) -> Result<DeviceMatrix<B>> {
    hidden.expect("logits", hidden.rows, weight.cols(), Number::Bf16)?;
    let y = DeviceMatrix::new(on, hidden.rows, weight.rows(), Number::F32)?;
    step_rows_forward(on, hidden, weight, &y)?;
    Ok(y)
}

/// What forward gives: log-probabilities f32, and whether no other token is more likely, in an order of their own.
pub struct Scores<B> {
    logps: B,
    correct: B,
    plan: Arc<Plan<B>>,
}

/// What backward wants.
pub struct HeadState<B> {
    /// Sums of weights times rows of the head, sums of weights; none where there is no target.
    kept: Option<(DeviceMatrix<B>, B)>,
    plan: Arc<Plan<B>>,
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

impl<B> Scores<B> {
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

    /// Gradients of the log-probabilities, given in the targets' order, laid out as [`log_prob_backward`] reads them.
    pub fn gradient(&self, on: &impl Backend<Buffer = B>, gradients: &[f32]) -> Result<DeviceMatrix<B>> {
        let n = self.plan.order.len();
        if gradients.len() != n {
            return shape_error("log_prob_head", format!("{} gradients for {n} targets", gradients.len()));
        }
        let sorted: Vec<f32> = self.plan.order.iter().map(|i| gradients[*i]).collect();
        DeviceMatrix::upload(on, &sorted, 1.max(n), Number::F32)
    }

    /// The log-probabilities as a matrix of one row.
    pub fn logps(&self) -> DeviceMatrix<B>
    where
        B: Clone,
    {
        let n = self.plan.order.len();
        let stride = n.next_multiple_of(8);
        DeviceMatrix { buffer: self.logps.clone(), rows: 1, cols: n, stride, number: Number::F32 }
    }
}

/// `log softmax(W h / temperature)[token]` of each target; hidden `[T, C]` of either number.
pub fn log_prob_forward<B>(
    on: &impl Backend<Buffer = B>,
    hidden: &DeviceMatrix<B>,
    weight: &DeviceWeight<B>,
    targets: &[Target],
    temperature: f32,
    with_gradient: bool,
) -> Result<(Scores<B>, HeadState<B>)> {
    let (tokens, c, v) = (hidden.rows, weight.cols(), weight.rows());
    hidden.expect("log_prob_head", tokens, c, hidden.number)?;
    ints("log_prob_head", &[tokens, c, v, targets.len()])?;
    let outside = targets.iter().find(|t| t.index as usize >= tokens || t.token as usize >= v);
    if let Some(t) = outside {
        return shape_error("log_prob_head", format!("target {t:?} in {tokens} tokens, {v} ids"));
    }
    if hidden.stride != c {
        return shape_error("log_prob_head", format!("rows of {c} values are not whole pieces of 8"));
    }
    // The gradient's threads take whole groups.
    if with_gradient && !c.is_multiple_of(32) {
        return shape_error("log_prob_head", format!("rows of {c} values are not whole groups of 32"));
    }
    if !CHUNK.is_multiple_of(weight.row_step()) {
        let what = format!("scales of NF4 that span {} rows of {c}", weight.row_step());
        return shape_error("log_prob_head", what);
    }
    if temperature.is_nan() || temperature <= 0.0 {
        return shape_error("log_prob_head", format!("a temperature of {temperature}"));
    }
    let plan = Arc::new(Plan::new(on, targets)?);
    let (n, n_targets) = (plan.rows.len(), targets.len());
    // Whole pieces of 8, so that they are a matrix of one row.
    let room = 4 * n_targets.next_multiple_of(8);
    let scores = Scores { logps: on.alloc(room)?, correct: on.alloc(room)?, plan: Arc::clone(&plan) };
    if n == 0 {
        return Ok((scores, HeadState { kept: None, plan }));
    }
    let h = DeviceMatrix::new(on, n, c, Number::Bf16)?;
    let args = [hidden.read(), Argument::Read(&plan.index, 0), Argument::Int(c), h.write()];
    let select = if hidden.number == Number::F32 { "select_rows" } else { "select_rows_bf16" };
    on.launch(select, [n, 1, 1], &args)?;
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
            on.launch("log_prob_rescale", [n, c.div_ceil(1024), 1], &args)?;
            rows_backward(on, &weights, (weight, first), &expectation)?;
        }
    }
    let args = [
        Argument::Read(&target_logits, 0),
        Argument::Read(&plan.pairs, 0),
        Argument::Int(n_targets),
        Argument::Read(&max, 0),
        Argument::Read(&sum, 0),
        Argument::Write(&scores.logps, 0),
        Argument::Write(&scores.correct, 0),
    ];
    on.launch("log_prob_finish", [n_targets.div_ceil(256), 1, 1], &args)?;
    Ok((scores, HeadState { kept: with_gradient.then_some((expectation, sum)), plan }))
}

/// dh `[T, C]` bf16 of what [`Scores::gradient`] laid out; zero in rows that predict nothing.
pub fn log_prob_backward<B>(
    on: &impl Backend<Buffer = B>,
    state: &HeadState<B>,
    weight: &DeviceWeight<B>,
    gradients: &DeviceMatrix<B>,
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
    if n == 0 {
        return Ok(dh);
    }
    let Some((expectation, sum)) = &state.kept else {
        return shape_error("log_prob_head", "forward ran without its gradient");
    };
    gradients.expect("log_prob_head", 1, state.plan.order.len(), Number::F32)?;
    let mut args = weight.arguments(0);
    args.extend([Argument::Int(c), expectation.read(), Argument::Read(sum, 0), gradients.read()]);
    args.extend([&state.plan.pairs, &state.plan.offsets, &state.plan.index].map(|b| Argument::Read(b, 0)));
    args.extend([Argument::Float(1.0 / temperature), dh.write()]);
    on.launch(&weight.kernel("log_prob_gradient"), [n, 1, 1], &args)?;
    Ok(dh)
}
