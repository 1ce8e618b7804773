//! Learning-rate schedules, by the trainers' names and formulas.

use serde::{Deserialize, Serialize};

/// The shape after warm-up. `x` runs from 0 at its end to 1 at the last step.
pub struct ScheduleKind {
    /// Name in the configuration.
    pub name: &'static str,
    /// Factor of the peak learning rate at `x`.
    pub factor: fn(f64) -> f64,
}

/// Every schedule.
pub static SCHEDULES: &[ScheduleKind] = &[
    ScheduleKind { name: "linear", factor: |x| 1.0 - x },
    ScheduleKind { name: "cosine", factor: |x| 0.5 * (1.0 + (std::f64::consts::PI * x).cos()) },
    ScheduleKind { name: "constant", factor: |_| 1.0 },
    ScheduleKind { name: "constant_with_warmup", factor: |_| 1.0 },
    // Stable for nine tenths, then linear to zero (Hu et al. 2024, MiniCPM).
    ScheduleKind { name: "warmup_stable_decay", factor: |x| ((1.0 - x) / 0.1).min(1.0) },
];

/// A schedule over a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Schedule {
    /// Name in [`SCHEDULES`].
    pub name: String,
    /// Learning rate at the end of warm-up.
    pub peak: f64,
    /// Steps of linear warm-up from zero.
    pub warmup_steps: u64,
    /// Steps of the run.
    pub total_steps: u64,
}

impl Schedule {
    /// Learning rate of step `step`, counted from 0.
    pub fn at(&self, step: u64) -> f64 {
        if step < self.warmup_steps {
            return self.peak * step as f64 / self.warmup_steps as f64;
        }
        let span = self.total_steps.saturating_sub(self.warmup_steps).max(1) as f64;
        let x = ((step - self.warmup_steps) as f64 / span).min(1.0);
        SCHEDULES.iter().find(|k| k.name == self.name).map_or(self.peak, |k| self.peak * (k.factor)(x))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_the_trainers() {
        let at = |name: &str, step| {
            Schedule { name: name.into(), peak: 2.0, warmup_steps: 10, total_steps: 110 }.at(step)
        };
        for (name, step, expected) in [
            ("linear", 0, 0.0),
            ("linear", 5, 1.0),
            ("linear", 10, 2.0),
            ("linear", 60, 1.0),
            ("linear", 110, 0.0),
            ("cosine", 60, 1.0),
            ("cosine", 35, 1.0 + std::f64::consts::FRAC_1_SQRT_2),
            ("constant", 109, 2.0),
            ("warmup_stable_decay", 99, 2.0),
            ("warmup_stable_decay", 105, 1.0),
        ] {
            assert!((at(name, step) - expected).abs() < 1e-9, "{name} at {step}: {}", at(name, step));
        }
    }
}
