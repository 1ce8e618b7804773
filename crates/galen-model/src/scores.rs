//! A pass's log-probabilities, where they were formed.

use galen_ops::Result;
use galen_ops::device::{self, DeviceTensor, Memory, Value};
use galen_ops::tensor::{f32_tensor, f32_view};
use galen_types::TokenLogProbs;
use std::sync::{Arc, Mutex, OnceLock};

/// Log-probability of each of a batch's targets, and whether it is the most likely token.
pub struct Scores {
    logps: Value,
    correct: Arc<Mutex<Vec<bool>>>,
    placed: Arc<OnceLock<device::Scores<Memory>>>,
}

impl Scores {
    pub(crate) fn new(
        logps: Value,
        correct: Arc<Mutex<Vec<bool>>>,
        placed: Arc<OnceLock<device::Scores<Memory>>>,
    ) -> Self {
        Self { logps, correct, placed }
    }

    fn on_device(&self) -> Option<(&DeviceTensor, &device::Scores<Memory>)> {
        match (&self.logps, self.placed.get()) {
            (Value::Device(tensor), Some(placed)) => Some((tensor, placed)),
            _ => None,
        }
    }

    /// Both. Waits for an accelerator.
    pub fn read(&self) -> Result<(TokenLogProbs, Vec<bool>)> {
        if let Some((tensor, placed)) = self.on_device() {
            let (logps, correct) = placed.download(tensor.on())?;
            return Ok((TokenLogProbs(logps), correct));
        }
        let correct = self.correct.lock().map(|c| c.clone()).unwrap_or_default();
        Ok((TokenLogProbs(f32_view(self.logps.host()?)?.to_vec()), correct))
    }

    /// The gradient of each log-probability where backward wants it.
    pub(crate) fn gradient(&self, gradient: Vec<f32>) -> Result<Value> {
        if let Some((tensor, placed)) = self.on_device() {
            let on = tensor.on();
            return Ok(DeviceTensor::new(on, placed.gradient(on, &gradient)?).into());
        }
        let n = gradient.len();
        Ok(f32_tensor(gradient, n)?.into())
    }
}
