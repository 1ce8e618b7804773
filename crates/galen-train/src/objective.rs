//! What a run learns from: the part of the loop that differs between supervised and preference training.

use crate::error::Result;
use crate::on_device::Replica;
use crate::settings::TrainSettings;
use galen_adapter::Adapter;
use galen_loss::Metrics;
use galen_model::{Model, Pass, Sink};
use galen_ops::profile::span;
use galen_ops::tensor::f32_view;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::time::Duration;

/// Between two looks at whether other devices' threads have ended.
const WAIT: Duration = Duration::from_micros(50);

/// Rows and what is learned from them. The loop asks for a step's gradient and for a validation; everything else (order of
/// rows, optimiser, checkpoints, log) is its own.
pub trait Objective {
    /// Tokens of each training row: by them steps are planned.
    fn lengths(&self) -> Vec<usize>;

    /// Where training row `row` stands, for messages.
    fn origin(&self, row: usize) -> String;

    /// The gradient of one optimiser step over these micro-batches of training rows.
    fn step(&mut self, at: &Place, micro_batches: &[Vec<usize>]) -> Result<StepGradient>;

    /// The loss of the validation rows, without dropout. Nothing where there are none.
    fn validate(&mut self, at: &Place) -> Result<Option<Validation>>;

    /// Looks at the figures of the step that was just made.
    fn remark(&mut self, _step: u64, _metrics: &Metrics) -> Remark {
        Remark::Nothing
    }

    /// What a checkpoint must keep for [`Objective::restore`].
    fn state(&self) -> Value {
        Value::Null
    }

    /// Takes up the state of a checkpoint.
    fn restore(&mut self, _state: &Value) -> Result<()> {
        Ok(())
    }
}

/// What an objective has to say of a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Remark {
    /// All is well.
    Nothing,
    /// A warning for the user.
    Warn(String),
    /// The reason to end the run here, with a checkpoint.
    Stop(String),
}

/// The model and the moment that a step or a validation is computed at.
#[derive(Clone, Copy)]
pub struct Place<'a> {
    /// Frozen base.
    pub model: &'a Model,
    /// The adapter as it is.
    pub adapter: &'a Adapter,
    /// Further devices that share a step's micro-batches.
    pub others: &'a [Replica<'a>],
    /// How the run trains.
    pub settings: &'a TrainSettings,
    /// Steps done before.
    pub step: u64,
    /// Pass over the data, from 0.
    pub epoch: u64,
}

impl<'a> Place<'a> {
    /// Before the first step, on one device.
    pub fn new(model: &'a Model, adapter: &'a Adapter, settings: &'a TrainSettings) -> Self {
        Self { model, adapter, others: &[], settings, step: 0, epoch: 0 }
    }

    /// How many devices share the work.
    pub fn devices(&self) -> usize {
        1 + self.others.len()
    }

    /// `work` on every device, a thread for each further one; what it gave, in their order.
    fn on_all<T: Send>(&self, work: impl Fn(&Place<'a>, usize) -> Result<T> + Sync) -> Result<Vec<T>> {
        let of_device = |i: usize| {
            let replica = i.checked_sub(1).and_then(|i| self.others.get(i));
            work(&replica.map_or(*self, |r| Place { model: r.model, adapter: &r.adapter, ..*self }), i)
        };
        if self.others.is_empty() {
            return Ok(vec![of_device(0)?]);
        }
        std::thread::scope(|scope| {
            let of_device = &of_device;
            let threads: Vec<_> = (1..self.devices()).map(|i| scope.spawn(move || of_device(i))).collect();
            // This thread has the first device, so that what is timed of a step is seen here.
            let first = of_device(0);
            // This thread may be the pool's only one, and the others want its work.
            while threads.iter().any(|t| !t.is_finished()) {
                match rayon::yield_now() {
                    Some(rayon::Yield::Executed) => {}
                    Some(rayon::Yield::Idle) => std::thread::sleep(WAIT),
                    None => break,
                }
            }
            let joined = threads.into_iter().map(|t| {
                t.join().unwrap_or_else(|_| {
                    Err(galen_ops::Error::Device("a device's thread ended before its work".into()).into())
                })
            });
            std::iter::once(first).chain(joined).collect()
        })
    }

    /// `work` for each part, dealt over the devices in turn; what it gave, in the order of the parts.
    pub fn deal<B: Sync, T: Send>(
        &self,
        parts: &[B],
        work: impl Fn(&Place<'a>, &B) -> Result<T> + Sync,
    ) -> Result<Vec<T>> {
        let devices = self.devices();
        let given =
            self.on_all(|at, i| parts.iter().skip(i).step_by(devices).map(|part| work(at, part)).collect())?;
        Ok(in_turn(given, parts.len()))
    }

    /// [`Self::deal`] for micro-batches that are learned from. Gives the sum of what `work` added, and what it gave.
    pub fn each<B: Sync, T: Send>(
        &self,
        micro_batches: &[B],
        work: impl Fn(&Place<'a>, &B, &mut StepGradient) -> Result<T> + Sync,
    ) -> Result<(StepGradient, Vec<T>)> {
        let devices = self.devices();
        let all = self.on_all(|at, i| {
            let mut out = StepGradient::zero(at.adapter);
            let own = micro_batches.iter().skip(i).step_by(devices);
            let given = own.map(|batch| work(at, batch, &mut out)).collect::<Result<Vec<T>>>()?;
            Ok((out, given))
        })?;
        let (mut sums, mut given) = (Vec::with_capacity(devices), Vec::with_capacity(devices));
        for (gradient, values) in all {
            sums.push(gradient);
            given.push(values);
        }
        let mut sums = sums.into_iter();
        let mut sum = sums.next().unwrap_or_else(|| StepGradient::zero(self.adapter));
        sums.for_each(|other| sum.merge(other));
        Ok((sum, in_turn(given, micro_batches.len())))
    }
}

/// What was dealt in turn, in its order again.
fn in_turn<T>(given: Vec<Vec<T>>, n: usize) -> Vec<T> {
    let devices = given.len().max(1);
    let mut given: Vec<_> = given.into_iter().map(Vec::into_iter).collect();
    (0..n).filter_map(|i| given.get_mut(i % devices)?.next()).collect()
}

/// A step's loss and gradients.
pub struct StepGradient {
    /// The step's loss; of supervised training the mean negative log-probability of the supervised tokens.
    pub loss: f64,
    /// In the layout of the adapter's buffers. Of an adapter that lies on an accelerator, which has the others, a score head's alone.
    pub gradients: Vec<Vec<f32>>,
    /// Tokens of the rows.
    pub tokens: u64,
    /// Of which supervised.
    pub supervised_tokens: u64,
    /// Tokens that accuracy runs over: the supervised ones, of pairs those of the chosen answers (as in TRL); 0 where no token is
    /// predicted.
    pub judged_tokens: u64,
    /// Of which the most likely prediction is right.
    pub correct: u64,
    /// What else the objective measured.
    pub metrics: Metrics,
}

impl StepGradient {
    /// Nothing yet, for an adapter's buffers.
    pub fn zero(adapter: &Adapter) -> Self {
        Self {
            loss: 0.0,
            gradients: match adapter.placed() {
                None => adapter.buffers().map(|b| vec![0.0; b.len()]).collect(),
                Some(_) => adapter.score_head().map(|head| vec![0.0; head.len()]).into_iter().collect(),
            },
            tokens: 0,
            supervised_tokens: 0,
            judged_tokens: 0,
            correct: 0,
            metrics: Metrics::default(),
        }
    }

    /// Adds the figures of another device, and what gradients the host has of it.
    fn merge(&mut self, other: Self) {
        for (sum, part) in self.gradients.iter_mut().zip(other.gradients) {
            sum.iter_mut().zip(part).for_each(|(s, p)| *s += p);
        }
        self.loss += other.loss;
        self.tokens += other.tokens;
        self.supervised_tokens += other.supervised_tokens;
        self.judged_tokens += other.judged_tokens;
        self.correct += other.correct;
        self.metrics.merge(&other.metrics);
    }

    /// Walks a pass back from the gradient of each of its targets' log-probabilities and adds what arrives at the adapter.
    pub fn add_backward(&mut self, adapter: &Adapter, pass: Pass, gradient: Vec<f32>) -> Result<()> {
        self.add_leaves(adapter, |sink| pass.backward(gradient, sink))
    }

    /// Adds what any pass's `backward` gives to its sink.
    pub fn add_leaves<T>(
        &mut self,
        adapter: &Adapter,
        backward: impl FnOnce(&mut Sink) -> galen_ops::Result<T>,
    ) -> Result<T> {
        let gradients = &mut self.gradients;
        let given = backward(&mut |layer, leaves| {
            let _span = span("gradient sums");
            let Some(buffer) = gradients.get_mut(layer) else { return Ok(()) };
            let ranges = adapter.layers()[layer].entries.iter().flat_map(|e| &e.ranges);
            for (range, leaf) in ranges.zip(leaves) {
                if let Some(leaf) = leaf {
                    let leaf = f32_view(&leaf)?;
                    buffer[range.clone()].iter_mut().zip(leaf.iter()).for_each(|(g, l)| *g += l);
                }
            }
            Ok(())
        })?;
        Ok(given)
    }
}

/// Figures of the validation rows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Validation {
    /// The objective's loss; of supervised training the mean negative log-probability in nats.
    pub eval_loss: f64,
    /// Share of supervised tokens whose most likely prediction is right, where tokens are predicted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eval_mean_token_accuracy: Option<f64>,
    /// What else the objective measured, each name beginning with `eval_`.
    #[serde(flatten)]
    pub metrics: BTreeMap<String, f64>,
}

impl Validation {
    /// The figure of this name.
    pub fn get(&self, name: &str) -> Option<f64> {
        match name {
            "eval_loss" => Some(self.eval_loss),
            "eval_mean_token_accuracy" => self.eval_mean_token_accuracy,
            other => self.metrics.get(other).copied(),
        }
    }

    /// The names of all figures.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let accuracy = self.eval_mean_token_accuracy.map(|_| "eval_mean_token_accuracy");
        ["eval_loss"].into_iter().chain(accuracy).chain(self.metrics.keys().map(String::as_str))
    }
}

/// Measures something beside the objective at every validation: accuracy on questions that are held out.
pub trait HeldOut {
    /// Figures by name; they join those of the validation, each with `eval_` before it.
    fn measure(&self, at: &Place) -> Result<BTreeMap<String, f64>>;
}
