//! How a base is held in memory.

use crate::weights::Weights;
use galen_ops::quant::{NF4_BLOCK, NF4_SUPER, QuantError, QuantMatrix, WeightDtype, quantize};

/// How a base is held in memory. What a file has quantised already stays in its own blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Precision {
    /// As its file has it.
    #[default]
    Stored,
    /// Projections in `Q8_0`: 32 signed bytes under one half-precision scale.
    Q8,
    /// Projections in NF4 with double quantisation (Dettmers et al. 2023).
    Nf4,
}

/// Every way, with the name that records give it.
const NAMES: [(Precision, &str); 3] =
    [(Precision::Stored, "stored"), (Precision::Q8, "q8_0"), (Precision::Nf4, "nf4")];

impl Precision {
    /// Its name in a run's record.
    pub fn name(self) -> &'static str {
        NAMES.into_iter().find(|(p, _)| *p == self).map_or("stored", |(_, name)| name)
    }

    /// The one of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        NAMES.into_iter().find(|(_, n)| *n == name).map(|(p, _)| p)
    }

    /// What a projection's matrix is quantised to when it is loaded; nothing where it stays as it is stored.
    pub fn quantises(self, stored: WeightDtype, cols: usize) -> Option<WeightDtype> {
        let to = match self {
            Self::Stored => return None,
            Self::Q8 => WeightDtype::Q8_0,
            Self::Nf4 => WeightDtype::Nf4,
        };
        let plain = stored.block_size() == 1;
        // Blocks of NF4 go on from row to row.
        (plain && (self == Self::Nf4 || cols.is_multiple_of(to.block_size()))).then_some(to)
    }

    /// As which of them a model is held in truth: what its files have quantised stays as it is.
    #[must_use]
    pub fn over(self, weights: &Weights) -> Self {
        let stored = weights.dtype("model.layers.0.mlp.down_proj.weight");
        let quantised = stored.is_ok_and(|d| self.quantises(d, weights.config().intermediate_size).is_some());
        if quantised { self } else { Self::Stored }
    }

    /// Bytes of a matrix once it is loaded, and whether they are the file's.
    pub(crate) fn held(
        self,
        stored: WeightDtype,
        [rows, cols]: [usize; 2],
        stored_bytes: u64,
    ) -> (u64, bool) {
        let weights = rows as f64 * cols as f64;
        let bits = match self.quantises(stored, cols) {
            None => return (stored_bytes, true),
            // 4, a scale of 8 bits each 64, and one of 32 for 256 of those.
            Some(WeightDtype::Nf4) => 4.0 + 8.0 / NF4_BLOCK as f64 + 32.0 / (NF4_BLOCK * NF4_SUPER) as f64,
            Some(to) => to.bits(),
        };
        ((weights * bits / 8.0) as u64, false)
    }

    /// The matrix as it is held.
    pub(crate) fn hold(self, stored: QuantMatrix) -> Result<QuantMatrix, QuantError> {
        let (rows, cols) = (stored.rows(), stored.cols());
        let Some(to) = self.quantises(stored.dtype(), cols) else { return Ok(stored) };
        let values = stored.to_f32();
        stored.data().release();
        match to {
            WeightDtype::Nf4 => QuantMatrix::quantize_nf4(rows, cols, &values),
            to => QuantMatrix::new(to, rows, cols, quantize(to, cols, &values)?.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(dtype: WeightDtype, rows: usize, cols: usize) -> QuantMatrix {
        let values: Vec<f32> = (0..rows * cols).map(|i| (i as f32 * 0.37).sin() * 0.1).collect();
        QuantMatrix::new(dtype, rows, cols, quantize(dtype, cols, &values).unwrap().into()).unwrap()
    }

    #[test]
    fn plain_matrices_are_quantised_and_blocks_are_kept() {
        use WeightDtype::{BF16, F16, F32, Nf4, Q4_1, Q8_0};
        for (precision, from, cols, to) in [
            (Precision::Stored, BF16, 64, BF16),
            (Precision::Q8, BF16, 64, Q8_0),
            (Precision::Q8, F16, 96, Q8_0),
            (Precision::Q8, F32, 33, F32),
            (Precision::Q8, Q4_1, 64, Q4_1),
            (Precision::Nf4, F32, 64, Nf4),
            (Precision::Nf4, Q8_0, 64, Q8_0),
        ] {
            let stored = stored(from, 256, cols);
            let (estimate, _) = precision.held(from, [256, cols], stored.nbytes() as u64);
            let held = precision.hold(stored.clone()).unwrap();
            assert_eq!(held.dtype(), to, "{precision:?} {from} {cols}");
            assert!(held.nbytes().abs_diff(estimate as usize) <= 8, "{to}: {} {estimate}", held.nbytes());
            // A value's error is at most half a step: of 254 over a block's range, or NF4's widest gap.
            let most = if to == Nf4 { 0.16 } else { 0.51 / 127.0 } * 0.1;
            for (a, b) in stored.to_f32().iter().zip(held.to_f32()) {
                assert!((a - b).abs() <= most, "{precision:?} {from}: {a} {b}");
            }
        }
    }

    #[test]
    fn names_lead_back() {
        for (precision, name) in NAMES {
            assert_eq!((Precision::from_name(precision.name()), precision.name()), (Some(precision), name));
        }
        assert_eq!(Precision::from_name("int3"), None);
    }

    #[test]
    fn what_cannot_be_stored_is_an_error() {
        let matrix = QuantMatrix::from_f32(1, 32, &[f32::NAN; 32]).unwrap();
        assert!(Precision::Q8.hold(matrix).unwrap_err().to_string().contains("NaN"));
    }
}
