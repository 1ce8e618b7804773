//! How far an artifact may be from the model as it was trained, by how its weights are held.

use galen_model::{Precision, Weights};
use galen_ops::quant::WeightDtype;

/// Thresholds; over the answers of the samples.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct Limits {
    /// Smallest share of predictions with the same likeliest token.
    pub min_top1: f64,
    /// Largest mean KL from the model as trained, nats a token.
    pub max_kl: f64,
    /// Smallest share of answers behind which the stop token is the likeliest.
    pub min_stop: f64,
    /// What training rounded the base to, where its files have more bits.
    pub trained_over: Option<&'static str>,
}

/// A row of the table: bits a weight from which it holds, the first two thresholds, the largest relative error of a tensor.
const BY_BITS: [(f64, f64, f64, f64); 6] = [
    (16.0, 0.99, 1e-3, 5e-3),
    (8.0, 0.98, 2e-2, 2e-2),
    (6.0, 0.96, 5e-2, 5e-2),
    (5.25, 0.94, 0.1, 0.1),
    (4.0, 0.9, 0.3, 0.25),
    (0.0, 0.75, 1.0, 0.6),
];

/// Of the default thresholds.
const MIN_STOP: f64 = 0.5;

/// What the command line says of thresholds, over the table's.
#[derive(Debug, Clone, Copy, clap::Args)]
pub struct LimitArgs {
    /// Smallest share of an answer's tokens that must be predicted alike; default: by the artifact's quantisation, 0.99
    /// for 16 bits to 0.9 for 4
    #[arg(long, alias = "min_top1", value_name = "X", value_parser = share)]
    pub min_top1: Option<f64>,
    /// Largest mean KL from the model as trained, nats a token of the answers; default: by the artifact's
    /// quantisation, 0.001 for 16 bits to 0.3 for 4
    #[arg(long, alias = "max_kl", value_name = "X", value_parser = positive)]
    pub max_kl: Option<f64>,
    /// Smallest share of answers behind which the stop token must be the likeliest
    #[arg(long, alias = "min_stop", value_name = "X", value_parser = share, default_value_t = MIN_STOP)]
    pub min_stop: f64,
}

impl Default for LimitArgs {
    fn default() -> Self {
        Self { min_top1: None, max_kl: None, min_stop: MIN_STOP }
    }
}

fn share(text: &str) -> Result<f64, String> {
    text.parse().ok().filter(|x| (0.0..=1.0).contains(x)).ok_or_else(|| "takes a share from 0 to 1".into())
}

fn positive(text: &str) -> Result<f64, String> {
    text.parse().ok().filter(|x: &f64| *x >= 0.0).ok_or_else(|| "takes a number of 0 or more".into())
}

/// The coarsest type among a model's matrices.
pub(super) fn coarsest(weights: &Weights) -> Option<WeightDtype> {
    let matrices = weights.names().into_iter().filter(|n| weights.shape(n).is_ok_and(|s| s.len() == 2));
    let types = matrices.filter_map(|n| weights.dtype(&n).ok());
    types.min_by(|a, b| a.bits().total_cmp(&b.bits()))
}

/// What training rounded the weights to, where the base's files have them otherwise: what is exported then differs from
/// what was trained by that rounding, whatever its own type.
pub(super) fn rounded_to(base: &Weights, precision: Precision) -> Option<WeightDtype> {
    let stored = base.dtype("model.layers.0.mlp.down_proj.weight").ok()?;
    precision.quantises(stored, base.config().intermediate_size)
}

/// The row of so many bits.
fn row(bits: f64) -> (f64, f64, f64, f64) {
    BY_BITS.into_iter().find(|(from, ..)| bits >= *from).unwrap_or(BY_BITS[BY_BITS.len() - 1])
}

/// Largest relative error of a tensor of that type.
pub(super) fn max_weight_error(dtype: WeightDtype) -> f64 {
    match dtype {
        WeightDtype::F32 => 1e-4,
        WeightDtype::F16 => 1e-3,
        other => row(other.bits()).3,
    }
}

/// Largest relative error of an adapter's matrix, whose small values half precision holds less well.
pub(super) const MAX_ADAPTER_ERROR: f64 = 5e-3;

impl Limits {
    /// Those of a type, or what the command line says.
    pub(super) fn of(
        dtype: Option<WeightDtype>,
        trained_over: Option<WeightDtype>,
        args: &LimitArgs,
    ) -> Self {
        let bits = |dtype: Option<WeightDtype>| dtype.map_or(32.0, WeightDtype::bits);
        let (_, min_top1, max_kl, _) = row(bits(dtype).min(bits(trained_over)));
        Self {
            min_top1: args.min_top1.unwrap_or(min_top1),
            max_kl: args.max_kl.unwrap_or(max_kl),
            min_stop: args.min_stop,
            trained_over: trained_over.map(|d| d.format().name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fewer_bits_allow_more() {
        let args = LimitArgs::default();
        let mut last = Limits::of(None, None, &args);
        assert_eq!((last.min_top1, last.max_kl, last.min_stop), (0.99, 1e-3, 0.5));
        for dtype in [
            WeightDtype::F16,
            WeightDtype::Q8_0,
            WeightDtype::Q6_K,
            WeightDtype::Q5_K,
            WeightDtype::Q4_K,
            WeightDtype::Q2_K,
        ] {
            let now = Limits::of(Some(dtype), None, &args);
            assert!(now.min_top1 <= last.min_top1 && now.max_kl >= last.max_kl, "{dtype}");
            last = now;
        }
        assert_eq!(
            [WeightDtype::Nf4, WeightDtype::Q8_0].map(|d| Limits::of(None, Some(d), &args).max_kl),
            [0.3, 0.02]
        );
        assert_eq!(
            [WeightDtype::F16, WeightDtype::BF16, WeightDtype::Q4_1].map(max_weight_error),
            [1e-3, 5e-3, 0.25]
        );
        assert_eq!(Limits::of(None, None, &LimitArgs { max_kl: Some(7.0), ..args }).max_kl, 7.0);
    }
}
