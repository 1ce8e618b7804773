//! Whether the kernels of a card read a model.

use super::Weights;
use galen_ops::device::HEAD_SIZES;

/// Elements that kernels decode at a time.
const GROUP: usize = 32;

impl Weights {
    /// What of the model has no kernels, in words; none where a card can take it.
    pub fn without_kernels(&self) -> Option<String> {
        let config = &self.config;
        if !HEAD_SIZES.contains(&config.head_dim) {
            return Some(format!(
                "a head size of {} (there are kernels for {HEAD_SIZES:?})",
                config.head_dim
            ));
        }
        // Plain numbers are rounded to bf16.
        let known =
            |dtype: galen_ops::quant::WeightDtype| dtype.kernel_suffix().is_some() || dtype.block_size() == 1;
        if let Some((dtype, _)) = self.formats().into_iter().find(|(dtype, _)| !known(*dtype)) {
            return Some(format!("a base in `{dtype}`"));
        }
        let names = self.names().into_iter().filter(|n| n.ends_with(".weight"));
        let widths = names.filter_map(|n| match self.shape(&n) {
            Ok([_, cols]) => Some(*cols),
            _ => None,
        });
        widths
            .filter(|cols| cols % GROUP != 0)
            .max()
            .map(|cols| format!("a weight of {cols} columns (kernels take 32 at a time)"))
    }
}
