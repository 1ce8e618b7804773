//! A frozen weight matrix in its own format.

use super::nf4::{NF4_BLOCK, Nf4Scales, quantize_nf4};
use super::{Interleaved, QuantError, WeightDtype};
use crate::kernels::gemv;
use crate::kernels::isa::{Isa, isa};
use crate::mmap::Bytes;
use std::sync::Arc;

/// Largest block of any format, elements.
const MAX_BLOCK: usize = 256;

/// A weight `[rows, cols]` = [out features, in features], row-major, rows of whole blocks (NF4: blocks of the
/// flattened tensor). Clones share the bytes.
#[derive(Debug, Clone)]
pub struct QuantMatrix {
    dtype: WeightDtype,
    rows: usize,
    cols: usize,
    data: Bytes,
    nf4: Option<Nf4Scales>,
    dots: Dots,
    interleaved: Option<Arc<Interleaved>>,
}

/// How products of a few rows with a matrix's blocks are formed: a step of generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Dots {
    /// Activations as they are.
    #[default]
    Float,
    /// Activations rounded to signed bytes, 32 of them sharing a scale. Formats without integer codes: as `Float`.
    Integer,
}

impl QuantMatrix {
    /// Takes `rows * row_bytes(cols)` bytes. Errors: another number of bytes, or `cols` not whole blocks. NF4 has
    /// magnitudes beside its codes: see [`Self::new_nf4`].
    pub fn new(dtype: WeightDtype, rows: usize, cols: usize, data: Bytes) -> Result<Self, QuantError> {
        if dtype == WeightDtype::Nf4 {
            return Err(QuantError::MissingScales);
        }
        let want = dtype.row_bytes(cols)?.checked_mul(rows).ok_or(QuantError::TooLarge { rows, cols })?;
        rows.checked_mul(cols).ok_or(QuantError::TooLarge { rows, cols })?;
        if data.len() != want {
            return Err(QuantError::Length { dtype, rows, cols, want, got: data.len() });
        }
        Ok(Self { dtype, rows, cols, data, nf4: None, dots: Dots::default(), interleaved: None })
    }

    /// An NF4 matrix from packed codes (the earlier element in the high nibble) and magnitudes.
    pub fn new_nf4(rows: usize, cols: usize, codes: Bytes, scales: Nf4Scales) -> Result<Self, QuantError> {
        let dtype = WeightDtype::Nf4;
        let elements = rows.checked_mul(cols).ok_or(QuantError::TooLarge { rows, cols })?;
        let want = elements.div_ceil(2);
        if codes.len() != want {
            return Err(QuantError::Length { dtype, rows, cols, want, got: codes.len() });
        }
        if !scales.covers(elements) {
            return Err(QuantError::MissingScales);
        }
        Ok(Self {
            dtype,
            rows,
            cols,
            data: codes,
            nf4: Some(scales),
            dots: Dots::default(),
            interleaved: None,
        })
    }

    /// Keeps `values` (row-major) in single precision.
    pub fn from_f32(rows: usize, cols: usize, values: &[f32]) -> Result<Self, QuantError> {
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        Self::new(WeightDtype::F32, rows, cols, bytes.into())
    }

    /// Quantises `values` (row-major) to NF4 with double quantisation.
    pub fn quantize_nf4(rows: usize, cols: usize, values: &[f32]) -> Result<Self, QuantError> {
        let (codes, scales) = quantize_nf4(values);
        Self::new_nf4(rows, cols, codes.into(), scales)
    }

    /// The same matrix, its products of few rows formed so.
    #[must_use]
    pub fn with_dots(self, dots: Dots) -> Self {
        Self { dots, ..self }
    }

    /// The same matrix with a copy of its blocks, interleaved for products of few rows: faster steps of generation, for
    /// as many bytes again. Without one where no kernel of this processor reads it (the portable path) or the
    /// format is another than Q4_0, Q4_1 and Q8_0. Sums are in another order than without.
    #[must_use]
    pub fn with_interleaved(self) -> Self {
        let interleaved = gemv::group_rows().and_then(|rows| Interleaved::new(&self, rows)).map(Arc::new);
        if interleaved.is_some() {
            self.data.release();
        }
        Self { interleaved, ..self }
    }

    /// The interleaved copy, where there is one.
    pub(crate) fn interleaved(&self) -> Option<&Interleaved> {
        self.interleaved.as_deref()
    }

    /// Whether products of few rows are formed in integers from the copy: nibbles.
    pub(crate) fn integer_copy(&self) -> bool {
        self.dots == Dots::Integer
            && self.interleaved.as_ref().is_some_and(|copy| copy.grouping().is_nibbles())
    }

    /// Whether a whole prompt's products are too. Tile registers are faster than that.
    pub(crate) fn integer_prompts(&self) -> bool {
        self.integer_copy() && isa() != Isa::Amx
    }

    /// How products of few rows are formed.
    pub fn dots(&self) -> Dots {
        self.dots
    }

    /// Storage format.
    pub fn dtype(&self) -> WeightDtype {
        self.dtype
    }

    /// Out features.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// In features.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// The blocks as stored.
    pub fn data(&self) -> &Bytes {
        &self.data
    }

    /// NF4 magnitudes, for an NF4 matrix.
    pub fn nf4_scales(&self) -> Option<&Nf4Scales> {
        self.nf4.as_ref()
    }

    /// Bytes of storage, magnitudes included.
    pub fn nbytes(&self) -> usize {
        self.data.len() + self.nf4.as_ref().map_or(0, Nf4Scales::nbytes)
    }

    /// The stored bytes of one row. NF4 blocks do not keep to rows: for it, empty.
    #[inline]
    pub fn row_bytes(&self, row: usize) -> &[u8] {
        let n = self.data.len() / self.rows.max(1);
        if self.nf4.is_some() { &[] } else { &self.data.as_slice()[row * n..(row + 1) * n] }
    }

    /// A matrix of the given rows of this one, in that order, stored anew. Exact, as blocks keep to rows.
    /// Errors: a row that is not there; NF4.
    pub fn select_rows(&self, order: impl IntoIterator<Item = usize>) -> Result<Self, QuantError> {
        if self.nf4.is_some() {
            return Err(QuantError::MissingScales);
        }
        let mut bytes = Vec::with_capacity(self.data.len());
        let mut rows = 0;
        for row in order {
            if row >= self.rows {
                return Err(QuantError::Range { first: row, len: 1, total: self.rows });
            }
            bytes.extend_from_slice(self.row_bytes(row));
            rows += 1;
        }
        Self::new(self.dtype, rows, self.cols, bytes.into())
    }

    /// Decodes elements `col0 .. col0 + out.len()` of `row`. Fastest where both ends lie on block boundaries;
    /// right everywhere. Uses the widest instructions of this machine.
    ///
    /// # Panics
    /// When the elements are not all in the matrix.
    pub fn dequantize_block(&self, row: usize, col0: usize, out: &mut [f32]) {
        self.decode::<Dispatched>(row, col0, out);
    }

    /// [`Self::dequantize_block`] compiled for the instruction set of the function it is inlined into.
    ///
    /// # Panics
    /// When the elements are not all in the matrix.
    #[inline(always)]
    pub fn dequantize_block_inline(&self, row: usize, col0: usize, out: &mut [f32]) {
        self.decode::<Inlined>(row, col0, out);
    }

    /// Elements `col0 .. col0 + 32` of `row`, `col0` a multiple of 32, of a format whose blocks are larger than that and
    /// keep to rows; false, and nothing done, for others. Decodes no more than these where the format allows.
    #[inline(always)]
    pub fn dequantize_part_inline(&self, row: usize, col0: usize, out: &mut [f32; 32]) -> bool {
        let (size, width) = (self.dtype.block_size(), self.dtype.block_bytes());
        if self.nf4.is_some() || size <= 32 || !col0.is_multiple_of(32) || col0 + 32 > self.cols {
            return false;
        }
        let block = &self.row_bytes(row)[col0 / size * width..];
        super::dequantize_part_inline(self.dtype, block, col0 % size / 32, out);
        true
    }

    /// All values, row-major: for tests and small tensors.
    pub fn to_f32(&self) -> Vec<f32> {
        let mut out = vec![0.0; self.rows * self.cols];
        for (row, out) in out.chunks_mut(self.cols.max(1)).enumerate() {
            self.dequantize_block(row, 0, out);
        }
        out
    }

    #[inline(always)]
    fn decode<W: Whole>(&self, row: usize, col0: usize, out: &mut [f32]) {
        assert!(
            row < self.rows && col0 <= self.cols && out.len() <= self.cols - col0,
            "elements {col0}.. of row {row} are not in [{}, {}]",
            self.rows,
            self.cols
        );
        match &self.nf4 {
            None => decode_range::<W>(self.dtype, self.row_bytes(row), col0, out),
            Some(scales) => {
                let first = row * self.cols + col0;
                decode_range::<W>(self.dtype, self.data.as_slice(), first, out);
                let mut block = first / NF4_BLOCK;
                let head = (NF4_BLOCK - first % NF4_BLOCK).min(out.len());
                let (head, rest) = out.split_at_mut(head);
                scale(head, scales.absmax(block));
                for part in rest.chunks_mut(NF4_BLOCK) {
                    block += 1;
                    scale(part, scales.absmax(block));
                }
            }
        }
    }
}

/// Decodes whole blocks. A trait, since a function passed by name is compiled without its caller's instruction set.
pub(super) trait Whole {
    fn whole(dtype: WeightDtype, bytes: &[u8], out: &mut [f32]);
}

/// With the widest instructions of this machine.
pub(super) struct Dispatched;

/// With those of the function it is inlined into.
struct Inlined;

impl Whole for Dispatched {
    #[inline(always)]
    fn whole(dtype: WeightDtype, bytes: &[u8], out: &mut [f32]) {
        super::dequantize_unchecked(dtype, bytes, out);
    }
}

impl Whole for Inlined {
    #[inline(always)]
    fn whole(dtype: WeightDtype, bytes: &[u8], out: &mut [f32]) {
        super::dequantize_inline(dtype, bytes, out);
    }
}

#[inline(always)]
fn scale(values: &mut [f32], by: f32) {
    for value in values {
        *value *= by;
    }
}

/// Decodes elements `first..` of `bytes`, which hold them all: whole blocks in place, cut ones through a buffer.
#[inline(always)]
pub(super) fn decode_range<W: Whole>(dtype: WeightDtype, bytes: &[u8], first: usize, out: &mut [f32]) {
    let (size, width) = (dtype.block_size(), dtype.block_bytes());
    let bytes = &bytes[first / size * width..];
    let skip = first % size;
    if skip == 0 && out.len().is_multiple_of(size) {
        return W::whole(dtype, &bytes[..out.len() / size * width], out);
    }
    decode_unaligned::<W>(dtype, bytes, skip, out);
}

/// `skip` elements into the first block of `bytes`.
#[inline(never)]
fn decode_unaligned<W: Whole>(dtype: WeightDtype, bytes: &[u8], mut skip: usize, mut out: &mut [f32]) {
    let (size, width) = (dtype.block_size(), dtype.block_bytes());
    let mut buffer = [0f32; MAX_BLOCK];
    let mut padded = [0u8; 2 * MAX_BLOCK];
    for block in bytes.chunks(width) {
        if out.is_empty() {
            break;
        }
        // The last NF4 block of a tensor may be short.
        padded[..block.len()].copy_from_slice(block);
        W::whole(dtype, &padded[..width], &mut buffer[..size]);
        let n = (size - skip).min(out.len());
        let (now, later) = out.split_at_mut(n);
        now.copy_from_slice(&buffer[skip..skip + n]);
        (out, skip) = (later, 0);
    }
}
