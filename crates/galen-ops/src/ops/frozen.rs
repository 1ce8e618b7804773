//! A frozen weight and how products with it are computed.

use crate::kernels::bf16::PackedWeight;
use crate::quant::QuantMatrix;
use std::sync::Arc;

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
}

impl Frozen {
    /// Decoded as products need it.
    pub fn new(matrix: Arc<QuantMatrix>, compute: Compute) -> Self {
        Self { matrix, packed: None, compute }
    }

    /// Rounded to bfloat16 and packed once: faster, for two bytes an element. The same bits as without.
    pub fn packed(matrix: Arc<QuantMatrix>) -> Self {
        let packed = Some(Arc::new(PackedWeight::new(&matrix)));
        matrix.data().release();
        Self { matrix, packed, compute: Compute::Bf16 }
    }

    /// The weight as stored.
    pub fn matrix(&self) -> &Arc<QuantMatrix> {
        &self.matrix
    }

    /// The packed copy, where there is one.
    pub(crate) fn packed_copy(&self) -> Option<&PackedWeight> {
        self.packed.as_deref()
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
