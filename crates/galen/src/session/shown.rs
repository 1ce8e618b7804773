//! A run's progress on the terminal and in TensorBoard's file.

use crate::progress::{Progress, Unit, bytes, counted};
use crate::signals::Stop;
use galen_train::report::EventWriter;
use galen_train::{Observer, Outcome, Validation, checkpoint, peak_rss_bytes};
use galen_types::StepReport;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Progress on the terminal and in TensorBoard's file.
pub(super) struct Shown<'a> {
    bar: Progress,
    events: EventWriter,
    flag: &'a AtomicBool,
    stop: &'a Stop,
    validations: Vec<(u64, f64)>,
    /// Steps between lines that stay on the terminal.
    pub(super) line_every: Option<u64>,
}

impl<'a> Shown<'a> {
    pub(super) fn new(
        command: &str,
        dir: &Path,
        total: u64,
        resume: Option<&Path>,
        flag: &'a AtomicBool,
        stop: &'a Stop,
    ) -> anyhow::Result<Self> {
        let done = resume.map(checkpoint::load_state).transpose()?.map_or(0, |s| s.step);
        let events = EventWriter::create(dir, now().as_secs(), done + 1)?;
        let bar = Progress::new(command, total, Unit::Items);
        bar.set(done);
        Ok(Self { bar, events, flag, stop, validations: Vec::new(), line_every: None })
    }

    pub(super) fn finish(self, outcome: &Outcome) -> Vec<(u64, f64)> {
        let step = outcome.state.step;
        match outcome.reports.last() {
            Some(last) => {
                let peak = bytes(peak_rss_bytes());
                self.bar.finish(&format!(
                    "{}, loss {:.4}, peak memory {peak}",
                    counted(step, "step"),
                    last.loss
                ));
            }
            None => self.bar.finish(&format!("all {step} steps were done before; the run is taken as it is")),
        }
        self.validations
    }

    fn log(&mut self, step: u64, fixed: &[(&str, f64)], metrics: impl Iterator<Item = (String, f64)>) {
        let metrics: Vec<(String, f64)> = metrics.collect();
        let named = metrics.iter().map(|(name, value)| (name.as_str(), *value));
        let values: Vec<(&str, f64)> = fixed.iter().copied().chain(named).collect();
        if let Err(e) =
            self.events.scalars(step, now().as_secs_f64(), &values).and_then(|()| self.events.flush())
        {
            self.bar.line(&format!("note: TensorBoard's file: {e}"));
        }
    }
}

/// What alignment adds to a line: `, rewards/accuracies 0.75, rewards/margins 0.12`; of a reward model TRL has no `rewards/`.
fn rewards(metrics: &BTreeMap<String, f64>, prefix: &str) -> String {
    let mut out = String::new();
    for name in ["reward", "rewards/accuracies", "rewards/margins", "accuracy", "margin"] {
        if let Some(value) = metrics.get(&format!("{prefix}{name}")) {
            let _ = write!(out, ", {name} {value:.3}");
        }
    }
    out
}

fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

impl Observer for Shown<'_> {
    fn step(&mut self, r: &StepReport, _total_steps: u64) {
        let rewards = rewards(&r.metrics, "");
        self.bar.message(format!("loss {:.4}{rewards}, {:.0} tokens/s", r.loss, r.tokens_per_second));
        self.bar.set(r.step);
        if self.line_every.is_some_and(|n| r.step.is_multiple_of(n.max(1))) {
            let (loss, rate, norm) = (r.loss, r.learning_rate, r.grad_norm);
            self.bar.line(&format!(
                "step {}: loss {loss:.4}{rewards}, learning rate {rate:.2e}, gradient norm {norm:.3}",
                r.step
            ));
        }
        let mut fixed = vec![
            ("train/loss", r.loss),
            ("train/learning_rate", r.learning_rate),
            ("train/grad_norm", r.grad_norm),
            ("train/tokens_per_second", r.tokens_per_second),
        ];
        fixed.extend(r.mean_token_accuracy.map(|share| ("train/mean_token_accuracy", share)));
        self.log(r.step, &fixed, r.metrics.iter().map(|(name, value)| (format!("train/{name}"), *value)));
        if self.stop.asked().is_some() {
            self.flag.store(true, Ordering::Relaxed);
        }
    }

    fn validation(&mut self, step: u64, v: &Validation) {
        self.validations.push((step, v.eval_loss));
        let mut line = format!("step {step}: eval_loss {:.4}{}", v.eval_loss, rewards(&v.metrics, "eval_"));
        let mut fixed = vec![("eval/loss", v.eval_loss)];
        if let Some(share) = v.eval_mean_token_accuracy {
            let _ = write!(line, ", {:.1} % of supervised tokens right", share * 100.0);
            fixed.push(("eval/mean_token_accuracy", share));
        }
        if let Some(acc) = v.get("eval_acc") {
            let _ = write!(line, ", task {:.1} %", acc * 100.0);
        }
        self.bar.line(&line);
        let named = |name: &String| format!("eval/{}", name.strip_prefix("eval_").unwrap_or(name));
        self.log(step, &fixed, v.metrics.iter().map(|(name, value)| (named(name), *value)));
    }

    fn note(&mut self, text: &str) {
        self.bar.line(text);
    }
}
