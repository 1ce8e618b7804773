//! What can stop a run.

/// Errors of this crate.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The loss or a gradient is not a number.
    #[error(
        "step {step}: the {what} is `{value}` on rows {rows}; the adapter was not changed by this step\nhint: last good checkpoint: {checkpoint}; lower the learning rate or look at these rows with `galen data inspect`"
    )]
    NotFinite {
        /// Optimiser step.
        step: u64,
        /// `loss` or `gradient norm`.
        what: &'static str,
        /// Its value.
        value: f64,
        /// The step's rows, `file:line` each.
        rows: String,
        /// The newest checkpoint, or `none yet`.
        checkpoint: String,
    },
    /// The loss stayed above the watchdog's limit.
    #[error(
        "step {step}: the loss has been above `loss_watchdog_threshold: {threshold}` for {patience} steps\nhint: lower the learning rate, or raise the threshold"
    )]
    Watchdog {
        /// Optimiser step.
        step: u64,
        /// The limit.
        threshold: f64,
        /// Steps above it.
        patience: u64,
    },
    /// Sampled answers could not be judged.
    #[error(
        "step {step}: {what}\nhint: what was trained before is kept, and so are the answers that wait for their rewards: mend the reward, then `--resume`"
    )]
    Judge {
        /// Optimiser step.
        step: u64,
        /// What the reward could not do.
        what: String,
    },
    /// A run directory or checkpoint cannot be used.
    #[error("{origin}: {what}")]
    Run {
        /// The file or directory.
        origin: String,
        /// What is wrong.
        what: String,
    },
    /// A door type refused its data.
    #[error(transparent)]
    Data(#[from] galen_types::InvariantError),
    /// The objective refused.
    #[error(transparent)]
    Loss(#[from] galen_loss::LossError),
    /// The adapter refused.
    #[error(transparent)]
    Adapter(#[from] galen_adapter::Error),
    /// An operation refused.
    #[error(transparent)]
    Ops(#[from] galen_ops::Error),
}

/// Result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

pub(crate) fn run_error<T>(origin: impl ToString, what: impl Into<String>) -> Result<T> {
    Err(Error::Run { origin: origin.to_string(), what: what.into() })
}
