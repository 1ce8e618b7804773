//! Weight formats: ggml's block formats, plain floats and NF4, decoded exactly as their authors decode them.
//!
//! One file for each family of formats; [`FORMATS`] is the one list of them. Decoding comes in two forms: for this
//! machine's instruction set (`dequantize`), and for inlining into a kernel (`*_inline`).
#![expect(
    clippy::inline_always,
    reason = "decoders must take on the instruction set of the kernel they are used in"
)]

mod block;
mod encode;
mod float;
mod interleaved;
mod iq4;
mod k;
mod legacy;
mod matrix;
mod nf4;
mod planes;

#[cfg(test)]
mod tests;

use std::fmt;

pub use block::{BlockFormat, dequantize_blocks};
pub use encode::{BlockGrid, quantize, set_codes};
pub(crate) use interleaved::{GROUP_BLOCK, GROUP_ROWS, Grouping, Interleaved};
pub use matrix::{Dots, QuantMatrix};
pub use nf4::{NF4_BLOCK, NF4_SUPER, Nf4Scales, quantize_nf4};
pub use planes::DevicePlanes;

/// A weight format or a matrix in it is not what it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QuantError {
    /// A ggml type this crate does not decode.
    #[error(
        "tensor type `{name}` (ggml type {id}) is not supported\nhint: convert the model to one of {}",
        supported()
    )]
    Unsupported {
        /// The number in the file.
        id: u32,
        /// Its name in ggml, or `unknown`.
        name: &'static str,
    },
    /// A row that is not whole blocks.
    #[error("{cols} columns are not whole blocks of `{dtype}` ({} elements)", .dtype.block_size())]
    Columns {
        /// The format.
        dtype: WeightDtype,
        /// Elements in a row.
        cols: usize,
    },
    /// Sizes whose product does not fit.
    #[error("a matrix of {rows} x {cols} is too large")]
    TooLarge {
        /// Rows.
        rows: usize,
        /// Columns.
        cols: usize,
    },
    /// A wrong number of bytes.
    #[error("`{dtype}` [{rows}, {cols}] takes {want} bytes, not {got}")]
    Length {
        /// The format.
        dtype: WeightDtype,
        /// Rows.
        rows: usize,
        /// Columns.
        cols: usize,
        /// Bytes it takes.
        want: usize,
        /// Bytes given.
        got: usize,
    },
    /// A range outside the row or matrix.
    #[error("elements {first}..+{len} of {total}")]
    Range {
        /// First element.
        first: usize,
        /// Number of elements.
        len: usize,
        /// Elements there are.
        total: usize,
    },
    /// A format that can be read but not written.
    #[error("tensors of type `{dtype}` are read but not written\nhint: choose another type")]
    NotWritten {
        /// The format.
        dtype: WeightDtype,
    },
    /// A format the CUDA kernels do not read.
    #[error("no kernels read `{dtype}`\nhint: on a GPU keep the weights as one of {}", with_kernels())]
    NoKernels {
        /// The format.
        dtype: WeightDtype,
    },
    /// A value that a format cannot hold.
    #[error("the value `{value}` cannot be stored as `{dtype}`")]
    Value {
        /// The format.
        dtype: WeightDtype,
        /// The value.
        value: String,
    },
    /// NF4 codes without (matching) magnitudes, or an operation NF4's tensor-wide blocks do not allow.
    #[error("NF4 needs magnitudes for each block and is not stored by rows")]
    MissingScales,
}

/// How a weight is stored. Names are ggml's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[expect(non_camel_case_types, reason = "the names of the formats")]
#[allow(missing_docs, reason = "described where they are decoded")]
pub enum WeightDtype {
    F32,
    F16,
    BF16,
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q8_0,
    Q2_K,
    Q3_K,
    Q4_K,
    Q5_K,
    Q6_K,
    Q8_K,
    Iq4Nl,
    Iq4Xs,
    Nf4,
}

/// A format: its name, its number in GGUF, the shape of a block, and how a run of whole blocks is decoded.
pub struct Format {
    /// Which one.
    pub dtype: WeightDtype,
    /// ggml's name.
    pub name: &'static str,
    /// Number in GGUF; none for NF4.
    pub ggml_id: Option<u32>,
    /// Elements in a block.
    pub block_size: usize,
    /// Bytes in a block (NF4: without its magnitude).
    pub block_bytes: usize,
    /// Decodes whole blocks with the widest instructions of this machine. NF4: without magnitudes.
    pub dequantize: fn(&[u8], &mut [f32]),
}

/// Writes the list of formats once, for the registry and for the inlinable decoder.
macro_rules! formats {
    ($($dtype:ident $name:literal $id:expr, $size:literal in $bytes:literal, $decoder:path;)*) => {
        /// Every format, in the order of [`WeightDtype`].
        pub static FORMATS: &[Format] = &[$(Format {
            dtype: WeightDtype::$dtype,
            name: $name,
            ggml_id: $id,
            block_size: $size,
            block_bytes: $bytes,
            dequantize: block::dequantize_dispatched::<$decoder, $bytes, $size>,
        }),*];

        impl WeightDtype {
            /// Elements in a block; rows are whole blocks.
            #[inline(always)]
            pub const fn block_size(self) -> usize {
                match self { $(Self::$dtype => $size),* }
            }

            /// Bytes in a block (NF4: without its magnitude).
            #[inline(always)]
            pub const fn block_bytes(self) -> usize {
                match self { $(Self::$dtype => $bytes),* }
            }
        }

        /// Elements `32 part .. 32 part + 32` of a block of more than 32, compiled for the instruction set of the
        /// function it is inlined into. NF4: without its magnitude.
        #[inline(always)]
        pub fn dequantize_part_inline(dtype: WeightDtype, block: &[u8], part: usize, out: &mut [f32; 32]) {
            match dtype {
                $(WeightDtype::$dtype => {
                    if let Some(block) = block.first_chunk::<$bytes>() {
                        <$decoder as BlockFormat<$bytes, $size>>::dequantize_part(block, part, out);
                    }
                }),*
            }
        }

        /// Decodes as many whole blocks as both slices hold, compiled for the instruction set of the function it is
        /// inlined into. NF4: without magnitudes.
        #[inline(always)]
        pub fn dequantize_inline(dtype: WeightDtype, bytes: &[u8], out: &mut [f32]) {
            match dtype {
                $(WeightDtype::$dtype => dequantize_blocks::<$decoder, $bytes, $size>(bytes, out)),*
            }
        }
    };
}

formats! {
    F32   "F32"    Some(0),   1 in 4,     float::F32;
    F16   "F16"    Some(1),   1 in 2,     float::F16;
    BF16  "BF16"   Some(30),  1 in 2,     float::BF16;
    Q4_0  "Q4_0"   Some(2),   32 in 18,   legacy::Q4_0;
    Q4_1  "Q4_1"   Some(3),   32 in 20,   legacy::Q4_1;
    Q5_0  "Q5_0"   Some(6),   32 in 22,   legacy::Q5_0;
    Q5_1  "Q5_1"   Some(7),   32 in 24,   legacy::Q5_1;
    Q8_0  "Q8_0"   Some(8),   32 in 34,   legacy::Q8_0;
    Q2_K  "Q2_K"   Some(10),  256 in 84,  k::Q2K;
    Q3_K  "Q3_K"   Some(11),  256 in 110, k::Q3K;
    Q4_K  "Q4_K"   Some(12),  256 in 144, k::Q4K;
    Q5_K  "Q5_K"   Some(13),  256 in 176, k::Q5K;
    Q6_K  "Q6_K"   Some(14),  256 in 210, k::Q6K;
    Q8_K  "Q8_K"   Some(15),  256 in 292, k::Q8K;
    Iq4Nl "IQ4_NL" Some(20),  32 in 18,   iq4::Iq4Nl;
    Iq4Xs "IQ4_XS" Some(23),  256 in 136, iq4::Iq4Xs;
    Nf4   "NF4"    None,      64 in 32,   nf4::Nf4;
}

/// ggml types this crate does not decode, by number, so that an error can name them.
static UNSUPPORTED: &[(u32, &str)] = &[
    (4, "Q4_2"),
    (5, "Q4_3"),
    (9, "Q8_1"),
    (16, "IQ2_XXS"),
    (17, "IQ2_XS"),
    (18, "IQ3_XXS"),
    (19, "IQ1_S"),
    (21, "IQ3_S"),
    (22, "IQ2_S"),
    (24, "I8"),
    (25, "I16"),
    (26, "I32"),
    (27, "I64"),
    (28, "F64"),
    (29, "IQ1_M"),
    (31, "Q4_0_4_4"),
    (32, "Q4_0_4_8"),
    (33, "Q4_0_8_8"),
    (34, "TQ1_0"),
    (35, "TQ2_0"),
    (36, "IQ4_NL_4_4"),
    (37, "IQ4_NL_4_8"),
    (38, "IQ4_NL_8_8"),
    (39, "MXFP4"),
    (40, "NVFP4"),
    (41, "Q1_0"),
];

fn supported() -> String {
    let names: Vec<_> = FORMATS.iter().filter(|f| f.ggml_id.is_some()).map(|f| f.name).collect();
    names.join(", ")
}

fn with_kernels() -> String {
    WeightDtype::with_kernels().map(|d| d.to_string()).collect::<Vec<_>>().join(", ")
}

impl WeightDtype {
    /// The format of a ggml type number. Errors name the type.
    pub fn from_ggml(id: u32) -> Result<Self, QuantError> {
        if let Some(format) = FORMATS.iter().find(|f| f.ggml_id == Some(id)) {
            return Ok(format.dtype);
        }
        let name = UNSUPPORTED.iter().find(|(other, _)| *other == id).map_or("unknown", |(_, name)| name);
        Err(QuantError::Unsupported { id, name })
    }

    /// Its entry in [`FORMATS`].
    pub fn format(self) -> &'static Format {
        &FORMATS[self as usize]
    }

    /// Whether its blocks hold integers with factors and offsets, in whole groups of 32.
    pub fn has_integer_codes(self) -> bool {
        self.block_size().is_multiple_of(32) && self != Self::Nf4
    }

    /// Bits a weight takes, its block's scales with it.
    pub fn bits(self) -> f64 {
        8.0 * self.block_bytes() as f64 / self.block_size().max(1) as f64
    }

    /// Bytes of a row of `cols` elements. Errors: `cols` not whole blocks. NF4: of a tensor of `cols` elements.
    pub fn row_bytes(self, cols: usize) -> Result<usize, QuantError> {
        if !cols.is_multiple_of(self.block_size()) {
            return Err(QuantError::Columns { dtype: self, cols });
        }
        let blocks = cols / self.block_size();
        blocks.checked_mul(self.block_bytes()).ok_or(QuantError::TooLarge { rows: 1, cols })
    }
}

impl fmt::Display for WeightDtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.format().name)
    }
}

/// Decodes `out.len()` elements from exactly their bytes. Errors: not whole blocks, or another number of bytes.
pub fn dequantize(dtype: WeightDtype, bytes: &[u8], out: &mut [f32]) -> Result<(), QuantError> {
    let want = dtype.row_bytes(out.len())?;
    if bytes.len() != want {
        return Err(QuantError::Length { dtype, rows: 1, cols: out.len(), want, got: bytes.len() });
    }
    dequantize_unchecked(dtype, bytes, out);
    Ok(())
}

/// Decodes elements `first .. first + out.len()` of a row stored as `row`. Errors: elements the row lacks.
pub fn dequantize_range(
    dtype: WeightDtype,
    row: &[u8],
    first: usize,
    out: &mut [f32],
) -> Result<(), QuantError> {
    let total = row.len() / dtype.block_bytes() * dtype.block_size();
    if first > total || out.len() > total - first {
        return Err(QuantError::Range { first, len: out.len(), total });
    }
    matrix::decode_range::<matrix::Dispatched>(dtype, row, first, out);
    Ok(())
}

/// Decodes as many whole blocks as both slices hold, with the widest instructions of this machine.
fn dequantize_unchecked(dtype: WeightDtype, bytes: &[u8], out: &mut [f32]) {
    (dtype.format().dequantize)(bytes, out);
}
