//! A weight as the CUDA kernels read it: its blocks taken apart into planes whose parts are aligned to what one load
//! fetches. The layout is described in `kernels/include/formats.cuh`; this is its one writer. Nothing is rounded: the
//! kernels decode the same values as the CPU.

use super::nf4::{NF4_SUPER, dynamic_levels, levels};
use super::{QuantError, QuantMatrix, WeightDtype};
use rayon::prelude::*;

/// Elements of a group.
const GROUP: usize = 32;

/// The planes of one matrix. Those a format has no use for are empty.
#[derive(Debug, Clone, PartialEq)]
pub struct DevicePlanes {
    /// Codes, or for bf16 the elements: by groups of 32 elements of a row.
    pub codes: Vec<u8>,
    /// Bits of the codes above the fourth.
    pub high: Vec<u8>,
    /// Scales of groups or blocks.
    pub scales: Vec<u8>,
    /// Scales of scales.
    pub supers: Vec<u8>,
    /// NF4: the 16 levels of a code, then the 256 of a magnitude.
    pub levels: Vec<f32>,
    /// NF4: added to magnitudes.
    pub offset: f32,
}

/// Where a group's bytes go: its block (codes alone for NF4), which 32 of it, and the four bits, bits above and scale.
type Writer = fn(&[u8], usize, &mut [u8], &mut [u8], &mut [u8]);

/// A format's planes: bytes a group of codes, of upper bits and of scales, and how they are filled.
struct Shape {
    dtype: WeightDtype,
    /// As the kernels' names end.
    name: &'static str,
    codes: usize,
    high: usize,
    scales: usize,
    write: Writer,
}

static SHAPES: &[Shape] = &[
    Shape {
        dtype: WeightDtype::BF16,
        name: "bf16",
        codes: 64,
        high: 0,
        scales: 0,
        write: |_, _, _, _, _| {},
    },
    Shape { dtype: WeightDtype::Nf4, name: "nf4", codes: 16, high: 0, scales: 0, write: nf4 },
    Shape {
        dtype: WeightDtype::Q4_0,
        name: "q4_0",
        codes: 16,
        high: 0,
        scales: 2,
        write: legacy::<2, false>,
    },
    Shape {
        dtype: WeightDtype::Q4_1,
        name: "q4_1",
        codes: 16,
        high: 0,
        scales: 4,
        write: legacy::<4, false>,
    },
    Shape { dtype: WeightDtype::Q5_0, name: "q5_0", codes: 16, high: 4, scales: 2, write: legacy::<2, true> },
    Shape { dtype: WeightDtype::Q5_1, name: "q5_1", codes: 16, high: 4, scales: 4, write: legacy::<4, true> },
    Shape { dtype: WeightDtype::Q8_0, name: "q8_0", codes: 32, high: 0, scales: 2, write: q8_0 },
    Shape { dtype: WeightDtype::Q4_K, name: "q4_k", codes: 16, high: 0, scales: 2, write: k45::<false> },
    Shape { dtype: WeightDtype::Q5_K, name: "q5_k", codes: 16, high: 4, scales: 2, write: k45::<true> },
    Shape { dtype: WeightDtype::Q6_K, name: "q6_k", codes: 16, high: 8, scales: 2, write: q6_k },
];

impl WeightDtype {
    /// The ending of the names of the kernels that read this format; none where there are none.
    pub fn kernel_suffix(self) -> Option<&'static str> {
        SHAPES.iter().find(|s| s.dtype == self).map(|s| s.name)
    }

    /// Bytes that `groups` groups of 32 elements take in each plane: codes, high, scales, supers. None without kernels.
    pub fn plane_bytes(self, groups: usize) -> Option<[usize; 4]> {
        let shape = SHAPES.iter().find(|s| s.dtype == self)?;
        let (scales, supers) = match self {
            Self::Nf4 => (groups.div_ceil(2), groups.div_ceil(2).div_ceil(NF4_SUPER) * 4),
            Self::Q6_K => (shape.scales * groups, groups.div_ceil(8) * 2),
            _ => (shape.scales * groups, 0),
        };
        Some([shape.codes * groups, shape.high * groups, scales, supers])
    }

    /// Formats that kernels read.
    pub fn with_kernels() -> impl Iterator<Item = Self> {
        SHAPES.iter().map(|s| s.dtype)
    }
}

impl QuantMatrix {
    /// The matrix as the CUDA kernels read it. Errors: a format without kernels; NF4 whose rows are not whole groups of
    /// 32 elements.
    pub fn device_planes(&self) -> Result<DevicePlanes, QuantError> {
        let (dtype, rows, cols) = (self.dtype(), self.rows(), self.cols());
        let Some(shape) = SHAPES.iter().find(|s| s.dtype == dtype) else {
            return Err(QuantError::NoKernels { dtype });
        };
        let mut planes = DevicePlanes {
            codes: vec![],
            high: vec![],
            scales: vec![],
            supers: vec![],
            levels: vec![],
            offset: 0.0,
        };
        if dtype == WeightDtype::BF16 {
            planes.codes = self.data().as_slice().to_vec();
            return Ok(planes);
        }
        if !cols.is_multiple_of(GROUP) {
            return Err(QuantError::Columns { dtype, cols });
        }
        let groups = rows * cols / GROUP;
        planes.codes = vec![0; groups * shape.codes];
        planes.high = vec![0; groups * shape.high];
        planes.scales = vec![0; groups * shape.scales];
        let (bytes, size, width) = (self.data().as_slice(), dtype.block_size(), dtype.block_bytes());
        // NF4 is in half blocks, whose codes lie end to end.
        let (parts, width) = if dtype == WeightDtype::Nf4 { (1, width / 2) } else { (size / GROUP, width) };
        let codes = planes.codes.par_chunks_exact_mut(parts * shape.codes);
        let high = chunks(&mut planes.high, parts * shape.high, groups / parts);
        let scales = chunks(&mut planes.scales, parts * shape.scales, groups / parts);
        let blocks = bytes.par_chunks_exact(width);
        blocks.zip(codes).zip(high).zip(scales).for_each(|(((block, codes), high), scales)| {
            for part in 0..parts {
                let codes = &mut codes[part * shape.codes..][..shape.codes];
                let high = &mut high[part * shape.high..][..shape.high];
                let scales = &mut scales[part * shape.scales..][..shape.scales];
                (shape.write)(block, part, codes, high, scales);
            }
        });
        if dtype == WeightDtype::Q6_K {
            planes.supers = bytes.chunks_exact(width).flat_map(|b| [b[208], b[209]]).collect();
        }
        if let Some(scales) = self.nf4_scales() {
            planes.scales = scales.absmax.to_vec();
            planes.supers = scales.scale.iter().flat_map(|s| s.to_le_bytes()).collect();
            planes.levels = levels().iter().chain(dynamic_levels()).copied().collect();
            planes.offset = scales.offset;
        }
        Ok(planes)
    }
}

/// `n` chunks of `width` bytes, empty ones for a plane that is empty.
fn chunks(plane: &mut [u8], width: usize, n: usize) -> impl IndexedParallelIterator<Item = &mut [u8]> {
    let mut parts: Vec<&mut [u8]> = Vec::with_capacity(n);
    if width == 0 {
        parts.resize_with(n, || &mut []);
    } else {
        parts.extend(plane.chunks_exact_mut(width));
    }
    parts.into_par_iter()
}

/// Four bits of each code: element 8w + 2p + h of word w at bits 4p + 16h.
fn put_nibbles(codes: &[u8; GROUP], out: &mut [u8]) {
    for (word, codes) in out.chunks_exact_mut(4).zip(codes.chunks_exact(8)) {
        let packed = (0..8).fold(0u32, |w, i| w | u32::from(codes[i] & 15) << (4 * (i / 2) + 16 * (i % 2)));
        word.copy_from_slice(&packed.to_le_bytes());
    }
}

/// The fifth bits: element 2p + h at bit p + 16h.
fn put_fifths(codes: &[u8; GROUP], out: &mut [u8]) {
    let packed = (0..GROUP).fold(0u32, |w, i| w | u32::from(codes[i] >> 4 & 1) << (i / 2 + 16 * (i % 2)));
    out.copy_from_slice(&packed.to_le_bytes());
}

fn legacy<const HEAD: usize, const FIFTH: bool>(
    block: &[u8],
    _: usize,
    codes: &mut [u8],
    high: &mut [u8],
    scales: &mut [u8],
) {
    scales.copy_from_slice(&block[..HEAD]);
    let qs = &block[if FIFTH { HEAD + 4 } else { HEAD }..];
    let mut all: [u8; GROUP] = std::array::from_fn(|i| qs[i % 16] >> (4 * (i / 16)) & 15);
    if FIFTH {
        for (i, code) in all.iter_mut().enumerate() {
            *code |= (block[HEAD + i / 8] >> (i % 8) & 1) << 4;
        }
        put_fifths(&all, high);
    }
    put_nibbles(&all, codes);
}

fn q8_0(block: &[u8], _: usize, codes: &mut [u8], _: &mut [u8], scales: &mut [u8]) {
    scales.copy_from_slice(&block[..2]);
    for (code, q) in codes.iter_mut().zip(&block[2..]) {
        *code = q ^ 0x80;
    }
}

fn k45<const FIFTH: bool>(block: &[u8], part: usize, codes: &mut [u8], high: &mut [u8], scales: &mut [u8]) {
    // The first sixteen bytes as they are, two with each group.
    scales.copy_from_slice(&block[2 * part..2 * part + 2]);
    let qs = &block[if FIFTH { 48 } else { 16 } + 32 * (part / 2)..];
    let mut all: [u8; GROUP] = std::array::from_fn(|i| qs[i] >> (4 * (part % 2)) & 15);
    if FIFTH {
        for (i, code) in all.iter_mut().enumerate() {
            *code |= (block[16 + i] >> part & 1) << 4;
        }
        put_fifths(&all, high);
    }
    put_nibbles(&all, codes);
}

fn q6_k(block: &[u8], part: usize, codes: &mut [u8], high: &mut [u8], scales: &mut [u8]) {
    scales.copy_from_slice(&block[192 + 2 * part..192 + 2 * part + 2]);
    let (low, shift) = (&block[32 * (2 * (part / 4) + part % 2)..], 4 * (part / 2 % 2));
    put_nibbles(&std::array::from_fn(|i| low[i] >> shift & 15), codes);
    let upper = &block[128 + 32 * (part / 4)..];
    // Word v: bits of element 16v + 2p + h at 2p + 16h.
    for (v, word) in high.chunks_exact_mut(4).enumerate() {
        let packed = (0..16).fold(0u32, |w, i| {
            w | u32::from(upper[16 * v + i] >> (2 * (part % 4)) & 3) << (2 * (i / 2) + 16 * (i % 2))
        });
        word.copy_from_slice(&packed.to_le_bytes());
    }
}

/// The earlier element is in the high nibble.
fn nf4(block: &[u8], _: usize, codes: &mut [u8], _: &mut [u8], _: &mut [u8]) {
    put_nibbles(&std::array::from_fn(|i| block[i / 2] >> (4 * (1 - i % 2)) & 15), codes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nibbles_lie_as_the_kernels_take_them() {
        let codes: [u8; GROUP] = std::array::from_fn(|i| (i * 7 % 32) as u8);
        let (mut low, mut high) = ([0u8; 16], [0u8; 4]);
        put_nibbles(&codes, &mut low);
        put_fifths(&codes, &mut high);
        let high = u32::from_le_bytes(high);
        for pair in 0..16 {
            let word = u32::from_le_bytes(*low[pair / 4 * 4..].first_chunk().unwrap());
            let two = word >> (4 * (pair % 4)) & 0x000f_000f | (high >> pair & 0x0001_0001) << 4;
            assert_eq!((two & 0xffff, two >> 16), (codes[2 * pair].into(), codes[2 * pair + 1].into()));
        }
    }

    #[test]
    fn planes_take_no_more_bytes_than_blocks() {
        for dtype in WeightDtype::with_kernels() {
            let bytes = vec![1u8; dtype.row_bytes(512).unwrap() * 3];
            let matrix = match dtype {
                WeightDtype::Nf4 => QuantMatrix::quantize_nf4(3, 512, &[0.5; 1536]),
                _ => QuantMatrix::new(dtype, 3, 512, bytes.into()),
            };
            let matrix = matrix.unwrap();
            let planes = matrix.device_planes().unwrap();
            let bytes = [&planes.codes, &planes.high, &planes.scales, &planes.supers].map(Vec::len);
            assert_eq!(Some(bytes), dtype.plane_bytes(3 * 512 / GROUP), "{dtype}");
            let total: usize = bytes.iter().sum();
            let offset = usize::from(dtype == WeightDtype::Nf4) * 4;
            assert_eq!(total + offset, matrix.nbytes(), "{dtype}");
        }
        let odd = QuantMatrix::from_f32(1, 32, &[0.0; 32]).unwrap();
        assert!(odd.device_planes().unwrap_err().to_string().contains("F32"));
    }
}
