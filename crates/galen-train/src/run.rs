//! The training loop, whatever is learned.

use crate::checkpoint::{self, RunState};
use crate::error::{Error, Result, run_error};
use crate::log::Log;
use crate::memory::peak_rss_bytes;
use crate::objective::{HeldOut, Objective, Place, Remark, StepGradient, Validation};
use crate::on_device::OnDevice;
use crate::plan::StepPlan;
use crate::settings::TrainSettings;
use galen_adapter::{Adapter, BaseRecord, ModuleShape, load_peft};
use galen_model::{Model, ModuleSize};
use galen_ops::device::{Accelerator, Group};
use galen_ops::profile::span;
use galen_optim::{AdamW, Faster, Schedule, clip_factor, global_norm};
use galen_types::StepReport;
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// Everything a run works on.
pub struct Run<'a> {
    /// Frozen base.
    pub model: &'a Model,
    /// The same on further devices, among which a step's micro-batches are dealt too.
    pub others: &'a [Model],
    /// All devices in order, where there are several.
    pub group: Option<&'a Group>,
    /// What is trained.
    pub adapter: Adapter,
    /// What the adapter's files name as their base.
    pub base: BaseRecord,
    /// What is learned.
    pub objective: &'a mut dyn Objective,
    /// What else is measured at every validation.
    pub held_out: Option<&'a dyn HeldOut>,
    /// How to train.
    pub settings: TrainSettings,
    /// `output_dir`.
    pub dir: PathBuf,
    /// Settings and hashes by name that a resumed run must share.
    pub fingerprint: BTreeMap<String, String>,
    /// Set from outside to stop after the current step, with a checkpoint.
    pub stop: &'a AtomicBool,
}

/// Told of progress as it happens.
pub trait Observer {
    /// After every step.
    fn step(&mut self, report: &StepReport, total_steps: u64);
    /// After every validation.
    fn validation(&mut self, step: u64, validation: &Validation);
    /// A remark worth a line.
    fn note(&mut self, text: &str);
}

/// How a run ended.
pub struct Outcome {
    /// The adapter: the best one's where asked, else the last.
    pub adapter: Adapter,
    /// State after the last step.
    pub state: RunState,
    /// Steps planned.
    pub total_steps: u64,
    /// Stopped from outside before the end.
    pub interrupted: bool,
    /// Every step's report of this process.
    pub reports: Vec<StepReport>,
}

#[derive(Serialize)]
struct ValidationRow<'a> {
    step: u64,
    epoch: f64,
    #[serde(flatten)]
    validation: &'a Validation,
}

impl Run<'_> {
    /// Trains from the beginning, or from a checkpoint directory.
    pub fn run(mut self, resume: Option<&Path>, observer: &mut dyn Observer) -> Result<Outcome> {
        let lengths = self.objective.lengths();
        if lengths.is_empty() {
            return run_error(self.dir.display(), "no training row has a supervised token");
        }
        let TrainSettings { micro_batch_size, gradient_accumulation_steps, packing, seed, .. } =
            self.settings;
        let plan = StepPlan::new(lengths, micro_batch_size, gradient_accumulation_steps, packing, seed)
            .repeated(self.settings.num_iterations);
        let total_steps = self.settings.total_steps;
        let schedule = self.settings.schedule();
        let lengths: Vec<usize> = self.adapter.buffers().map(<[f32]>::len).collect();
        let mut optimizer = AdamW::new(self.settings.adamw, lengths);
        optimizer.faster =
            self.settings.loraplus_lr_ratio.map(|ratio| Faster { ratio, ranges: self.adapter.faster() });
        let mut state = RunState { fingerprint: self.fingerprint.clone(), ..RunState::default() };
        if let Some(path) = resume {
            state = self.restore(path, &mut optimizer)?;
            self.objective.restore(&state.objective)?;
            self.bring_best(path, &state)?;
            observer.note(&format!("resuming after step {} from {}", state.step, path.display()));
        }
        if let Some(on) = self.model.device() {
            self.adapter.place(on)?;
        }
        let mut device = match self.adapter.placed() {
            None => None,
            Some(_) => Some(OnDevice::over(&self.adapter, &optimizer, self.others, self.group)?),
        };
        checkpoint::remove_leftovers(&self.dir)?;
        let mut log = Log::open(&self.dir.join("log.jsonl"), state.step)?;
        let mut reports = Vec::new();
        let mut interrupted = false;
        let mut steps: (u64, Vec<Vec<Vec<usize>>>) = (u64::MAX, Vec::new());
        // Killed between the checkpoint that ended it early and its end, a run must not train on.
        let ended = self.settings.early_stopping_patience.is_some_and(|p| state.stale_validations >= p);
        while !ended && state.step < total_steps {
            let epoch = state.step / plan.steps_per_epoch();
            if steps.0 != epoch {
                steps = (epoch, plan.epoch(epoch));
            }
            let batches = &steps.1[(state.step % plan.steps_per_epoch()) as usize];
            let (report, remark) = {
                let _span = span("step");
                let made =
                    self.step(batches, epoch, &plan, &schedule, &mut optimizer, device.as_mut(), &mut state);
                // Such a step did nothing yet: what came before it must not be lost to somebody else's program.
                let judge = matches!(made, Err(Error::Judge { .. }));
                if judge && state.step > 0 {
                    self.fetch(device.as_ref(), &mut optimizer)?;
                    checkpoint::save(&self.dir, &self.adapter, &self.base, &optimizer, &state)?;
                }
                made?
            };
            {
                let _span = span("log");
                log.write(&report)?;
                observer.step(&report, total_steps);
            }
            let last = state.step == total_steps;
            let per_epoch = plan.steps_per_epoch();
            let mut stop_early = false;
            if let Remark::Warn(text) | Remark::Stop(text) = &remark {
                observer.note(&format!("step {}: {text}", state.step));
            }
            if last || self.settings.eval.due(state.step, per_epoch, false) {
                self.fetch(device.as_ref(), &mut optimizer)?;
                match self.validation(&mut state, report.epoch, &mut log, observer) {
                    Ok(stop) => stop_early = stop,
                    Err(e) => {
                        // The steps up to here are sound whatever stopped their validation.
                        checkpoint::save(&self.dir, &self.adapter, &self.base, &optimizer, &state)?;
                        return Err(e);
                    }
                }
            }
            stop_early |= matches!(remark, Remark::Stop(_));
            if let Err(e) = self.watch(report.loss, &mut state) {
                self.fetch(device.as_ref(), &mut optimizer)?;
                checkpoint::save(&self.dir, &self.adapter, &self.base, &optimizer, &state)?;
                return Err(e);
            }
            reports.push(report);
            interrupted = self.stop.load(Ordering::Relaxed) && !last;
            let best = state.best.as_ref().map(|(s, _)| *s);
            let is_best = best == Some(state.step);
            let keep_best = is_best && self.settings.load_best_model_at_end;
            let save = self.settings.save.due(state.step, per_epoch, is_best);
            if last || interrupted || stop_early || keep_best || save {
                let _span = span("save");
                self.fetch(device.as_ref(), &mut optimizer)?;
                checkpoint::save(&self.dir, &self.adapter, &self.base, &optimizer, &state)?;
                let best = best.filter(|_| self.settings.load_best_model_at_end);
                checkpoint::prune(&self.dir, self.settings.save_total_limit, best)?;
            }
            if interrupted || stop_early {
                break;
            }
        }
        // From here on the adapter is the host's.
        self.adapter.leave()?;
        self.choose(&state, interrupted, observer)?;
        Ok(Outcome { adapter: self.adapter, state, total_steps, interrupted, reports })
    }

    /// Brings to the host what an accelerator has trained.
    fn fetch(&mut self, device: Option<&OnDevice>, optimizer: &mut AdamW) -> Result<()> {
        device.map_or(Ok(()), |device| device.fetch(&mut self.adapter, optimizer))
    }

    /// Validates, and tells of it; true when patience has run out.
    fn validation(
        &mut self,
        state: &mut RunState,
        epoch: f64,
        log: &mut Log,
        observer: &mut dyn Observer,
    ) -> Result<bool> {
        let Some(v) = self.validate(state)? else { return Ok(false) };
        log.write(&ValidationRow { step: state.step, epoch, validation: &v })?;
        observer.validation(state.step, &v);
        if let Some(warning) = state.hacking.validation(&v) {
            observer.note(&format!("step {}: {warning}", state.step));
        }
        let stop = self.judge(v, state)?;
        if stop {
            let patience = self.settings.early_stopping_patience.unwrap_or(0);
            observer
                .note(&format!("step {}: no better validation in {patience}, stopping early", state.step));
        }
        Ok(stop)
    }

    fn validate(&mut self, state: &RunState) -> Result<Option<Validation>> {
        let _span = span("validate");
        let Self { model, adapter, settings, objective, held_out, .. } = self;
        let at = Place { model, adapter, others: &[], settings, step: state.step, epoch: 0 };
        let mut validation = objective.validate(&at)?;
        if let (Some(v), Some(held_out)) = (&mut validation, held_out) {
            v.metrics.extend(held_out.measure(&at)?.into_iter().map(|(name, x)| (format!("eval_{name}"), x)));
        }
        Ok(validation)
    }

    fn step(
        &mut self,
        batches: &[Vec<usize>],
        epoch: u64,
        plan: &StepPlan,
        schedule: &Schedule,
        optimizer: &mut AdamW,
        device: Option<&mut OnDevice>,
        state: &mut RunState,
    ) -> Result<(StepReport, Remark)> {
        let start = Instant::now();
        let step = state.step + 1;
        let at = Place {
            model: self.model,
            adapter: &self.adapter,
            others: device.as_deref().map_or(&[], OnDevice::others),
            settings: &self.settings,
            step: state.step,
            epoch,
        };
        let StepGradient { loss, gradients, tokens, supervised_tokens, judged_tokens, correct, metrics } =
            self.objective.step(&at, batches)?;
        let norm = {
            let _span = span("gradient norm");
            match &device {
                None => global_norm(&gradients),
                Some(device) => device.norm(&self.adapter)?.hypot(global_norm(&gradients)),
            }
        };
        for (what, value) in [("loss", loss), ("gradient norm", norm)] {
            if !value.is_finite() {
                let origins: Vec<String> =
                    batches.iter().flatten().take(8).map(|row| self.objective.origin(*row)).collect();
                let newest = checkpoint::list(&self.dir).pop();
                let checkpoint = newest.map_or("none yet".into(), |(_, p)| p.display().to_string());
                return Err(Error::NotFinite { step, what, value, rows: origins.join(", "), checkpoint });
            }
        }
        let learning_rate = schedule.at(state.step);
        let factor = clip_factor(norm, self.settings.max_grad_norm);
        {
            let _span = span("optimizer");
            match device {
                None => optimizer.step(self.adapter.buffers_mut(), &gradients, learning_rate, factor),
                Some(device) => {
                    let made = device.step(&self.adapter, optimizer, learning_rate, factor)?;
                    if let Some(gradient) = gradients.last() {
                        device.step_head(&mut self.adapter, optimizer, gradient, made);
                    }
                }
            }
        }
        state.step = step;
        state.num_tokens += tokens;
        state.hacking.step(&metrics);
        let remark = self.objective.remark(step, &metrics);
        state.objective = self.objective.state();
        let seconds = start.elapsed().as_secs_f64();
        let report = StepReport {
            step,
            epoch: step as f64 / plan.steps_per_epoch() as f64,
            loss,
            learning_rate,
            grad_norm: norm,
            num_tokens: state.num_tokens,
            supervised_tokens,
            tokens_per_second: tokens as f64 / seconds.max(1e-9),
            mean_token_accuracy: (judged_tokens > 0).then(|| correct as f64 / judged_tokens as f64),
            step_seconds: seconds,
            peak_rss_bytes: peak_rss_bytes(),
            device: match self.group {
                Some(group) => group.name(),
                None => self.model.device().map_or("cpu", Accelerator::name).into(),
            },
            metrics: metrics.iter().map(|(name, value)| (name.to_owned(), value)).collect(),
        };
        Ok((report, remark))
    }

    fn watch(&self, loss: f64, state: &mut RunState) -> Result<()> {
        let Some(threshold) = self.settings.loss_watchdog_threshold else { return Ok(()) };
        state.watchdog_steps = if loss > threshold { state.watchdog_steps + 1 } else { 0 };
        let patience = self.settings.loss_watchdog_patience.max(1);
        if state.watchdog_steps >= patience {
            return Err(Error::Watchdog { step: state.step, threshold, patience });
        }
        Ok(())
    }

    /// Takes note of a validation; true when patience has run out.
    fn judge(&self, v: Validation, state: &mut RunState) -> Result<bool> {
        state.last = Some(v.clone());
        let metric = &self.settings.metric_for_best_model;
        let Some(value) = v.get(&metric.name) else {
            let known = v.names().collect::<Vec<_>>().join("`, `");
            let what =
                format!("`metric_for_best_model: {}` is not measured\nhint: there is `{known}`", metric.name);
            return run_error(self.dir.display(), what);
        };
        let better = state
            .best
            .as_ref()
            .and_then(|(_, best)| best.get(&metric.name))
            .is_none_or(|best| if metric.greater_is_better { value > best } else { value < best });
        if better {
            state.best = Some((state.step, v));
            state.stale_validations = 0;
        } else {
            state.stale_validations += 1;
        }
        Ok(self.settings.early_stopping_patience.is_some_and(|p| state.stale_validations >= p))
    }

    /// Puts the best checkpoint's values in place of the last where asked.
    fn choose(&mut self, state: &RunState, interrupted: bool, observer: &mut dyn Observer) -> Result<()> {
        let wanted = self.settings.load_best_model_at_end && !interrupted;
        let Some(best) = state.best.as_ref().map(|(step, _)| *step).filter(|_| wanted) else { return Ok(()) };
        if best != state.step {
            self.read_adapter(&self.dir.join(format!("checkpoint-{best}")))?;
            observer.note(&format!("the best validation followed step {best}: its adapter is the result"));
        }
        Ok(())
    }

    /// Takes the best checkpoint along where a run goes on in another folder: its values may be the result.
    fn bring_best(&self, resumed: &Path, state: &RunState) -> Result<()> {
        let wanted = self.settings.load_best_model_at_end;
        let Some(best) = state.best.as_ref().map(|(step, _)| *step).filter(|_| wanted) else { return Ok(()) };
        let name = format!("checkpoint-{best}");
        let to = self.dir.join(&name);
        if best == state.step || to.is_dir() {
            return Ok(());
        }
        let from = resumed.parent().unwrap_or(Path::new(".")).join(name);
        let fail = |e: std::io::Error| {
            let hint = "bring it beside the checkpoint, or set `load_best_model_at_end: false`";
            run_error(from.display(), format!("the best checkpoint so far: {e}\nhint: {hint}"))
        };
        checkpoint::copy(&from, &to).or_else(fail)
    }

    fn read_adapter(&mut self, checkpoint: &Path) -> Result<()> {
        let modules = module_shapes(self.model);
        let (loaded, _) = load_peft(checkpoint, &modules, self.adapter.config.seed)?;
        let tensors: Vec<(String, Vec<f32>)> = loaded.tensors().map(|(k, _, v)| (k, v.to_vec())).collect();
        if tensors.len() != self.adapter.tensors().count() {
            return run_error(checkpoint.display(), "it adapts other projections than this run");
        }
        for (key, values) in tensors {
            if !self.adapter.set(&key, &values) {
                return run_error(checkpoint.display(), format!("`{key}` does not fit this run"));
            }
        }
        Ok(())
    }

    fn restore(&mut self, path: &Path, optimizer: &mut AdamW) -> Result<RunState> {
        checkpoint::load_state_of(path, &self.fingerprint)?;
        self.read_adapter(path)?;
        checkpoint::load(path, optimizer)
    }
}

/// The model's projections as an adapter sees them.
pub fn module_shapes(model: &Model) -> Vec<ModuleShape> {
    let shape = |p: ModuleSize| ModuleShape {
        layer: p.layer,
        module: p.module,
        inputs: p.inputs,
        outputs: p.outputs,
    };
    model.projections().into_iter().map(shape).collect()
}
