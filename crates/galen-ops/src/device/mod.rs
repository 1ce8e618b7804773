//! The operations as launches of the CUDA kernels: shapes checked, descriptors made, buffers handed on. Generic over the
//! place, so that the same code runs on a card (`crate::cuda`) and, in tests, in the kernels' runtime on the CPU.
//!
//! Activations are bf16, the residual stream, trainables and gradients of trainables f32; the kernels' headers in `kernels/`
//! say more. Nothing here waits for the device but [`Backend::download`].

mod accelerator;
mod attention;
mod cache;
pub mod choice;
mod dropout;
mod elementwise;
mod embedding_noise;
mod gemm;
mod group;
mod head;
mod magnitude;
mod optimiser;
mod pages;
mod product;
mod projection;
mod rows;
mod tensor;
mod weight;

pub use accelerator::{Accelerator, Memory};
pub use attention::{
    AttentionGradients, AttentionOperands, AttentionPlan, Descriptors, HEAD_SIZES, attention_backward,
    attention_forward,
};
pub use cache::{KvPlace, KvSequences, KvShape, PAGE_TOKENS, decode_attention, kv_copy, kv_gather, kv_write};
pub use choice::{Path, pays};
pub use dropout::{DeviceDropout, dropout};
pub use elementwise::{
    gated_backward, gated_forward, head_norm_backward, head_norm_forward, rms_norm_backward,
    rms_norm_forward, rope, sum, to_bf16,
};
pub use embedding_noise::embedding_noise;
pub use gemm::{Gemm, Library, Lying, SCRATCH_BYTES, Scratch, Way};
pub use group::{AllReduce, Group};
pub use head::{HeadState, Scores, log_prob_backward, log_prob_forward, logits};
pub use magnitude::{MagnitudeOperands, adapted_norms, magnitude_backward, magnitude_forward, row_squares};
pub use optimiser::{adamw, square_sum};
pub use pages::{KvExtension, KvPool, KvSequence};
pub use projection::{DeviceBranch, projection_backward, projection_forward};
pub use rows::{gather_rows, scatter_rows};
pub use tensor::{DeviceTensor, Value};
pub use weight::{DeviceWeight, embed};

use crate::error::{Error, Result, shape_error};
use std::sync::Arc;

/// An argument of a kernel.
pub enum Argument<'a, B> {
    /// What is read, from some byte on.
    Read(&'a B, usize),
    /// What is written, and maybe read, from some byte on.
    Write(&'a B, usize),
    /// No buffer.
    Null,
    /// `int`.
    Int(usize),
    /// `float`.
    Float(f32),
    /// `int64_t`.
    Long(u64),
}

/// A place with memory and the kernels.
pub trait Backend {
    /// Memory there. Launches write to it through shared references, as a card does.
    type Buffer;

    /// Memory whose contents are whatever was there.
    fn alloc(&self, bytes: usize) -> Result<Self::Buffer>;

    /// A copy of `bytes`.
    fn upload(&self, bytes: &[u8]) -> Result<Self::Buffer>;

    /// Puts `bytes` at the beginning of a buffer, after what was launched before. Errors: more than it holds.
    fn write(&self, buffer: &Self::Buffer, bytes: &[u8]) -> Result<()>;

    /// A copy of what a buffer holds once everything launched before has run.
    fn download(&self, buffer: &Self::Buffer) -> Result<Vec<u8>>;

    /// Zeros.
    fn zeros(&self, bytes: usize) -> Result<Self::Buffer> {
        self.upload(&vec![0; bytes])
    }

    /// Bytes that can be allocated still, where the place knows.
    fn free_bytes(&self) -> Option<u64> {
        None
    }

    /// Puts a kernel on the queue. `args` are its parameters in order, buffers as large as its header says.
    fn launch(&self, kernel: &str, grid: [usize; 3], args: &[Argument<Self::Buffer>]) -> Result<()>;

    /// The library behind [`Self::gemm`], where there is one.
    fn library(&self) -> Option<Library> {
        None
    }

    /// Puts a product of plain matrices on the queue, after what was launched before.
    fn gemm(&self, _: &Gemm<Self::Buffer>) -> Result<()> {
        Err(Error::Device("this device has no library of products\nhint: unset GALEN_CUDA_PRODUCTS".into()))
    }

    /// `work` over scratch memory of at least `bytes` bytes, at most [`SCRATCH_BYTES`]: what it puts on the queue has the memory for
    /// itself, and leaves nothing there.
    fn with_scratch(
        &self,
        bytes: usize,
        work: &mut dyn FnMut(&Arc<Self::Buffer>) -> Result<()>,
    ) -> Result<()> {
        work(&Arc::new(self.alloc(bytes)?))
    }
}

/// What the numbers of a matrix are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Number {
    /// Two bytes.
    Bf16,
    /// Four bytes.
    F32,
}

impl Number {
    /// Bytes of one.
    pub fn bytes(self) -> usize {
        match self {
            Self::Bf16 => 2,
            Self::F32 => 4,
        }
    }
}

/// A matrix on a device, rows at a stride.
#[derive(Clone)]
pub struct DeviceMatrix<B> {
    /// Where.
    pub buffer: B,
    /// Rows.
    pub rows: usize,
    /// Columns.
    pub cols: usize,
    /// Elements from a row to the next: a multiple of 8.
    pub stride: usize,
    /// Of what.
    pub number: Number,
}

impl<B> DeviceMatrix<B> {
    /// A matrix whose contents are whatever was there.
    pub fn new(on: &impl Backend<Buffer = B>, rows: usize, cols: usize, number: Number) -> Result<Self> {
        let stride = cols.next_multiple_of(8);
        let buffer = on.alloc(bytes("matrix", &[rows, stride, number.bytes()])?)?;
        Ok(Self { buffer, rows, cols, stride, number })
    }

    /// A matrix of `values`, row-major, rounded to bf16 where that is asked for.
    pub fn upload(
        on: &impl Backend<Buffer = B>,
        values: &[f32],
        cols: usize,
        number: Number,
    ) -> Result<Self> {
        if cols == 0 || !values.len().is_multiple_of(cols) {
            return shape_error("upload", format!("{} values in rows of {cols}", values.len()));
        }
        let (rows, stride) = (values.len() / cols, cols.next_multiple_of(8));
        let mut all = Vec::with_capacity(bytes("matrix", &[rows, stride, number.bytes()])?);
        for row in values.chunks_exact(cols) {
            let begin = all.len();
            match number {
                Number::Bf16 => {
                    row.iter().for_each(|v| all.extend(half::bf16::from_f32(*v).to_bits().to_le_bytes()));
                }
                Number::F32 => row.iter().for_each(|v| all.extend(v.to_le_bytes())),
            }
            all.resize(begin + stride * number.bytes(), 0);
        }
        Ok(Self { buffer: on.upload(&all)?, rows, cols, stride, number })
    }

    /// Its values, row-major.
    pub fn download(&self, on: &impl Backend<Buffer = B>) -> Result<Vec<f32>> {
        let all = on.download(&self.buffer)?;
        let row = |row: &[u8]| -> Vec<f32> {
            match self.number {
                Number::Bf16 => {
                    let halves = row.as_chunks::<2>().0.iter();
                    halves.map(|b| half::bf16::from_bits(u16::from_le_bytes(*b)).to_f32()).collect()
                }
                Number::F32 => row.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect(),
            }
        };
        let size = self.number.bytes();
        let rows = all.chunks_exact((self.stride * size).max(1)).take(self.rows);
        Ok(rows.flat_map(|r| row(&r[..self.cols * size])).collect())
    }

    fn read(&self) -> Argument<'_, B> {
        Argument::Read(&self.buffer, 0)
    }

    fn write(&self) -> Argument<'_, B> {
        Argument::Write(&self.buffer, 0)
    }

    /// Errors: another shape or number than an operation wants.
    fn expect(&self, op: &'static str, rows: usize, cols: usize, number: Number) -> Result<()> {
        if (self.rows, self.cols, self.number) == (rows, cols, number) {
            return Ok(());
        }
        let got = (self.rows, self.cols, self.number);
        shape_error(op, format!("`{got:?}` where `{:?}` belongs", (rows, cols, number)))
    }
}

/// The product of sizes. Errors: one that a kernel's index or an allocation cannot hold.
fn bytes(op: &'static str, sizes: &[usize]) -> Result<usize> {
    let product =
        sizes.iter().try_fold(1usize, |p, s| p.checked_mul(*s)).filter(|p| isize::try_from(*p).is_ok());
    product.map_or_else(|| shape_error(op, format!("`{sizes:?}` is too large")), Ok)
}

/// Errors: a size that an `int` of a kernel does not hold.
fn ints(op: &'static str, sizes: &[usize]) -> Result<()> {
    if sizes.iter().all(|s| i32::try_from(*s).is_ok()) {
        return Ok(());
    }
    shape_error(op, format!("`{sizes:?}` are more than a kernel counts"))
}

fn int_bytes(values: &[i32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}
