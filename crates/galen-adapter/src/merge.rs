//! An adapter's change of a weight, for what leaves the adapter behind: merged weights, files of other programs.

use crate::adapter::{Adapter, Entry};

/// The two matrices of a low-rank branch: the change of the weight is `scale * B A`.
#[derive(Debug, Clone, Copy)]
pub struct LowRank<'a> {
    /// A `[r, inputs]`, row-major.
    pub a: &'a [f32],
    /// B `[outputs, r]`, row-major.
    pub b: &'a [f32],
    /// Rank.
    pub r: usize,
    /// Factor.
    pub scale: f32,
}

impl Adapter {
    fn entry(&self, layer: usize, module: &str) -> Option<(&Entry, Vec<&[f32]>)> {
        let layer = self.layers().get(layer)?;
        let entry = layer.entries.iter().find(|e| e.shape.module == module)?;
        Some((entry, entry.ranges.iter().map(|r| &layer.values[r.clone()]).collect()))
    }

    /// Makes the adapter's change to a projection's weight `[outputs, inputs]`, row-major, in f32. Whether it changes that
    /// projection.
    pub fn merge_into(&self, layer: usize, module: &str, weight: &mut [f32]) -> bool {
        let Some((e, values)) = self.entry(layer, module) else { return false };
        self.method().merge(&values, e.extent(), weight);
        true
    }

    /// Whether all its changes are low-rank branches, pairs of matrices.
    pub fn is_low_rank(&self) -> bool {
        self.layers().iter().flat_map(|l| &l.entries).all(|e| e.ranges.len() == 2)
    }

    /// The projection's change as two matrices; none where the adapter does not change it, or by more than two matrices.
    pub fn low_rank(&self, layer: usize, module: &str) -> Option<LowRank<'_>> {
        let (e, values) = self.entry(layer, module)?;
        let [a, b] = values[..] else { return None };
        Some(LowRank { a, b, r: e.r, scale: e.scale })
    }
}
