//! The second half of `galen plan`: memory and time.

use crate::cli::Globals;
use crate::config::Config;
use crate::plan::Estimate;
use crate::progress::{bytes, duration};
use std::fmt::Write as _;
use std::time::Duration;

/// Estimates memory and time of a sound configuration.
pub fn run(_config: &Config, _globals: &Globals) -> anyhow::Result<()> {
    anyhow::bail!("the estimate of `galen plan` is not built yet\nhint: `galen plan --check-config` checks the keys")
}

/// The estimate as a small table.
pub fn text(e: &Estimate) -> String {
    let mut out = String::new();
    for (name, n) in [
        ("weights", e.weights_bytes),
        ("adapter, gradient, moments", e.adapter_bytes),
        ("activations", e.activations_bytes),
        ("work space", e.workspace_bytes),
        ("together", e.total_bytes),
    ] {
        let _ = writeln!(out, "{name:<28}{:>10}", bytes(n));
    }
    let seconds = |s: f64| {
        if s.is_finite() { duration(Duration::from_secs_f64(s.clamp(0.0, 1e9))) } else { "unknown".into() }
    };
    let _ = writeln!(out, "{:<28}{:>10}", "a step", seconds(e.step_seconds));
    let _ = writeln!(out, "{:<28}{:>10}", "all steps", seconds(e.total_seconds));
    out
}
