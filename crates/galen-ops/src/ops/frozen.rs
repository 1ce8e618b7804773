//! A frozen weight and how products with it are computed.

use crate::kernels::bf16::PackedWeight;
use crate::quant::QuantMatrix;
use rayon::prelude::*;
use std::sync::{Arc, OnceLock};

/// The arithmetic of matrix products. Sums are f32 in both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Compute {
    /// Operands as they are.
    #[default]
    F32,
    /// Operands rounded to bfloat16.
    Bf16,
}

/// A weight `[out, in]` that is never trained. Clones share it.
#[derive(Clone)]
pub struct Frozen {
    matrix: Arc<QuantMatrix>,
    packed: Option<Arc<PackedWeight>>,
    compute: Compute,
    /// Of [`Frozen::row_squares`], once somebody has asked.
    squares: Arc<OnceLock<Vec<f64>>>,
}

impl Frozen {
    /// Decoded as products need it.
    pub fn new(matrix: Arc<QuantMatrix>, compute: Compute) -> Self {
        Self { matrix, packed: None, compute, squares: Arc::default() }
    }

    /// Rounded to bfloat16 and packed once: faster, for two bytes an element. The same bits as without.
    pub fn packed(matrix: Arc<QuantMatrix>) -> Self {
        let packed = Some(Arc::new(PackedWeight::new(&matrix)));
        matrix.data().release();
        Self { matrix, packed, compute: Compute::Bf16, squares: Arc::default() }
    }

    /// The weight as stored.
    pub fn matrix(&self) -> &Arc<QuantMatrix> {
        &self.matrix
    }

    /// The packed copy, where there is one.
    pub(crate) fn packed_copy(&self) -> Option<&PackedWeight> {
        self.packed.as_deref()
    }

    /// `|W_j|^2` of each row, from the weight as stored. Formed once for all clones.
    pub(crate) fn row_squares(&self) -> &[f64] {
        self.squares.get_or_init(|| {
            let matrix = &self.matrix;
            let square = |row: &mut Vec<f32>, j: usize| {
                matrix.dequantize_block(j, 0, row);
                row.iter().map(|w| f64::from(*w) * f64::from(*w)).sum()
            };
            let row = || vec![0f32; matrix.cols()];
            let squares = (0..matrix.rows()).into_par_iter().map_init(row, square).collect();
            if self.packed.is_some() {
                matrix.data().release();
            }
            squares
        })
    }

    /// How products are computed.
    pub fn compute(&self) -> Compute {
        self.compute
    }

    /// Bytes that [`Self::packed`] takes beside the stored weight.
    pub fn packed_bytes(rows: usize, cols: usize) -> usize {
        PackedWeight::bytes_for(rows, cols)
    }
}

impl From<Arc<QuantMatrix>> for Frozen {
    fn from(matrix: Arc<QuantMatrix>) -> Self {
        Self::new(matrix, Compute::F32)
    }
}
