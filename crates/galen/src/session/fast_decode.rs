//! `--fast-decode`: integer dot products in generation, and how far they are from exact ones.

use crate::config::Device;
use crate::error::UsageError;
use crate::progress::say as tell;
use galen_model::{Divergence, LoadOptions, Model};
use galen_ops::hook::ProjectionHook;
use galen_ops::quant::Dots;

/// Predictions compared at the end of each prompt.
const POSITIONS: usize = 32;

/// How the model that decodes fast is loaded.
pub fn options(exact: LoadOptions) -> LoadOptions {
    LoadOptions { dots: Dots::Integer, interleave: true, ..exact }
}

/// Where a command computes that decodes fast if `fast`: integers are the processor's. Errors: a card is named.
pub fn device(fast: bool, asked: Option<Device>) -> anyhow::Result<Option<Device>> {
    match asked.and_then(Device::card) {
        Some(n) if fast => {
            let message = format!("`--fast-decode` with `--device cuda:{n}`: a card decodes exactly");
            Err(UsageError::new(message, "keep one of them").into())
        }
        _ if fast => Ok(Some(Device::Cpu)),
        _ => Ok(asked),
    }
}

/// Compares predictions at the end of these prompts.
pub fn measure(
    exact: &Model,
    fast: &Model,
    hook: Option<&dyn ProjectionHook>,
    prompts: &[&[u32]],
) -> anyhow::Result<Divergence> {
    let mut all = Divergence::default();
    for ids in prompts {
        all = all.and(Divergence::measure(exact, fast, hook, ids, POSITIONS)?);
    }
    Ok(all)
}

/// Says what was measured.
pub fn say(found: Divergence) {
    tell(&text(found));
}

fn text(found: Divergence) -> String {
    let Divergence { positions, mean_kl, max_kl, same_top } = found;
    if positions == 0 {
        return "fast decoding: the prompt is too short to tell how far it is from exact decoding".into();
    }
    format!(
        "fast decoding: KL from exact decoding {mean_kl:.2e} nats a token (at most {max_kl:.1e}), the same likeliest \
         token at {same_top} of {positions} positions of the prompt"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_measured_is_said() {
        let found = Divergence { positions: 32, mean_kl: 0.001_234, max_kl: 0.01, same_top: 31 };
        let said = text(found);
        assert!(said.contains("1.23e-3 nats") && said.contains("31 of 32"), "{said}");
        assert!(text(Divergence::default()).contains("too short"));
    }
}
