//! A copy of a matrix whose blocks of R rows lie together, lane by lane, for products of few rows with registers of R
//! 32-bit lanes (8 or 16): the scales of R rows are decoded at once, and one activation serves R rows.
//!
//! Rows `R g .. R g + R` are group g (rows that are not there are zeros), block b of a group holds block b of each:
//! the R scales (half precision), the R minima (Q4_1), then registers of R 32-bit lanes, lane r being row r. Of a format of nibbles, byte j of register t holds element `8 t + j` low and `8 t + 4 + j` high (4 registers);
//! of Q8_0, element `4 t + j` (8 registers). No bit of a code or scale changes.

use super::{QuantMatrix, WeightDtype};

/// Most rows of a group; every group has this many or half.
pub(crate) const GROUP_ROWS: usize = 16;
/// Elements of a row's block, in every format that can be interleaved.
pub(crate) const GROUP_BLOCK: usize = 32;
/// Bytes of a cache line.
const LINE: usize = 64;

#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([u8; LINE]);

/// The copy.
pub(crate) struct Interleaved {
    lines: Vec<Line>,
    grouping: Grouping,
    rows: usize,
    block_bytes: usize,
    blocks: usize,
}

impl std::fmt::Debug for Interleaved {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        write!(f, "Interleaved({} bytes)", self.lines.len() * LINE)
    }
}

/// The formats that can be interleaved; the kernels match all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Grouping {
    Q4_0,
    Q4_1,
    Q8_0,
}

impl Grouping {
    fn of(dtype: WeightDtype) -> Option<Self> {
        match dtype {
            WeightDtype::Q4_0 => Some(Self::Q4_0),
            WeightDtype::Q4_1 => Some(Self::Q4_1),
            WeightDtype::Q8_0 => Some(Self::Q8_0),
            _ => None,
        }
    }

    /// Bytes of scales and minima in front of a row's block.
    fn head_bytes(self) -> usize {
        match self {
            Self::Q4_0 | Self::Q8_0 => 2,
            Self::Q4_1 => 4,
        }
    }

    /// Whether two codes share a byte.
    pub fn is_nibbles(self) -> bool {
        self != Self::Q8_0
    }
}

impl Interleaved {
    /// Of a matrix in a format that can be, `lanes` rows side by side; none for others.
    pub fn new(matrix: &QuantMatrix, lanes: usize) -> Option<Self> {
        let (dtype, rows) = (matrix.dtype(), matrix.rows());
        let grouping = Grouping::of(dtype)?;
        let (head, width) = (grouping.head_bytes(), dtype.block_bytes());
        let blocks = matrix.cols() / GROUP_BLOCK;
        let block_bytes = lanes * width;
        let group_bytes = blocks * block_bytes;
        let total = rows.div_ceil(lanes) * group_bytes;
        let mut made = Self {
            grouping,
            lines: vec![Line([0; LINE]); total.div_ceil(LINE)],
            rows: lanes,
            block_bytes,
            blocks,
        };
        let out = made.bytes_mut();
        for row in 0..rows {
            let (group, lane) = (row / lanes, row % lanes);
            for (b, block) in matrix.row_bytes(row).chunks_exact(width).enumerate() {
                let first = group * group_bytes + b * block_bytes;
                let out = &mut out[first..first + block_bytes];
                let (scales, codes) = out.split_at_mut(lanes * head);
                for (i, half) in block[..head].chunks_exact(2).enumerate() {
                    scales[2 * (i * lanes + lane)..][..2].copy_from_slice(half);
                }
                let from = &block[head..];
                for (t, register) in codes.chunks_exact_mut(4 * lanes).enumerate() {
                    for (j, out) in register[4 * lane..4 * lane + 4].iter_mut().enumerate() {
                        *out = if grouping.is_nibbles() {
                            nibble(from, 8 * t + j) | nibble(from, 8 * t + 4 + j) << 4
                        } else {
                            from[4 * t + j]
                        };
                    }
                }
            }
        }
        Some(made)
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: lines are bytes end to end, borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.lines.as_mut_ptr().cast(), self.lines.len() * LINE) }
    }

    /// The format.
    pub fn grouping(&self) -> Grouping {
        self.grouping
    }

    /// Rows of a group.
    pub fn group_rows(&self) -> usize {
        self.rows
    }

    /// Blocks of a row.
    pub fn blocks(&self) -> usize {
        self.blocks
    }

    /// The blocks of group `g`.
    ///
    /// # Panics
    /// Where there is no such group.
    pub fn group(&self, g: usize) -> &[u8] {
        let len = self.blocks * self.block_bytes;
        // SAFETY: lines are bytes end to end.
        let all =
            unsafe { std::slice::from_raw_parts(self.lines.as_ptr().cast::<u8>(), self.lines.len() * LINE) };
        &all[g * len..(g + 1) * len]
    }
}

/// Element `i` of a block of nibbles, the first half low.
fn nibble(bytes: &[u8], i: usize) -> u8 {
    let half = GROUP_BLOCK / 2;
    if i < half { bytes[i] & 15 } else { bytes[i - half] >> 4 }
}
