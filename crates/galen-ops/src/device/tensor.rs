//! Matrices of the host and of a device on their way through a tape.

use super::{Accelerator, DeviceMatrix, Memory, Number};
use crate::error::{Error, Result, shape_error};
use candle_core::Tensor;

/// A matrix on an accelerator. Clones share it; nothing writes to it once it is made.
#[derive(Clone)]
pub struct DeviceTensor {
    pub(crate) on: Accelerator,
    pub(crate) matrix: DeviceMatrix<Memory>,
    /// Of a trainable leaf: where gradients are added, f32 in the shape of the matrix, without gaps.
    pub(crate) gradient: Option<Memory>,
}

impl DeviceTensor {
    /// A matrix.
    pub fn new(on: &Accelerator, matrix: DeviceMatrix<Memory>) -> Self {
        Self { on: on.clone(), matrix, gradient: None }
    }

    /// An adapter's leaf: bf16 `[rows, cols]` without gaps, `cols` a multiple of 8, and where its gradient is added, if it is trained. So
    /// leaves of one buffer have their gradients in one buffer, which a tape never holds.
    pub fn leaf(
        on: &Accelerator,
        (rows, cols): (usize, usize),
        values: Memory,
        gradient: Option<Memory>,
    ) -> Self {
        let matrix = DeviceMatrix { buffer: values, rows, cols, stride: cols, number: Number::Bf16 };
        Self { on: on.clone(), matrix, gradient }
    }

    /// `rows` of its rows from `first` on: the same memory. Errors: rows beyond the last.
    pub fn rows(&self, first: usize, rows: usize) -> Result<Self> {
        let all = &self.matrix;
        if first.checked_add(rows).is_none_or(|end| end > all.rows) {
            return shape_error("rows", format!("{rows} rows from {first} on, of {}", all.rows));
        }
        let buffer = all.buffer.part(first * all.stride * all.number.bytes());
        Ok(Self::new(&self.on, DeviceMatrix { buffer, rows, ..all.clone() }))
    }

    /// As [`Self::leaf`], one row of f32 values. Both have room for whole pieces of 8.
    pub fn vector_leaf(on: &Accelerator, cols: usize, values: Memory, gradient: Option<Memory>) -> Self {
        let stride = cols.next_multiple_of(8);
        let matrix = DeviceMatrix { buffer: values, rows: 1, cols, stride, number: Number::F32 };
        Self { on: on.clone(), matrix, gradient }
    }

    /// Where it lies.
    pub fn on(&self) -> &Accelerator {
        &self.on
    }

    /// Its values, row-major, once everything launched before has run.
    pub fn download(&self) -> Result<Vec<f32>> {
        self.matrix.download(&self.on)
    }
}

/// A value of the host's or of a device.
#[derive(Clone)]
pub enum Value {
    /// f32 on the CPU.
    Host(Tensor),
    /// On an accelerator.
    Device(DeviceTensor),
}

impl From<Tensor> for Value {
    fn from(tensor: Tensor) -> Self {
        Self::Host(tensor)
    }
}

impl From<DeviceTensor> for Value {
    fn from(tensor: DeviceTensor) -> Self {
        Self::Device(tensor)
    }
}

impl Value {
    /// The tensor, if it is the host's.
    pub fn host(&self) -> Result<&Tensor> {
        match self {
            Self::Host(tensor) => Ok(tensor),
            Self::Device(tensor) => Err(misplaced(tensor)),
        }
    }

    /// The tensor, if it lies on an accelerator.
    pub fn device(&self) -> Result<&DeviceTensor> {
        match self {
            Self::Device(tensor) => Ok(tensor),
            Self::Host(_) => {
                Err(Error::Device("a value of the CPU's where one of an accelerator belongs\nhint: `--device cpu`; please report this".into()))
            }
        }
    }

    /// As [`Self::host`].
    pub fn into_host(self) -> Result<Tensor> {
        match self {
            Self::Host(tensor) => Ok(tensor),
            Self::Device(tensor) => Err(misplaced(&tensor)),
        }
    }
}

fn misplaced(tensor: &DeviceTensor) -> Error {
    Error::Device(format!(
        "a value on `{}` where one of the CPU's belongs\nhint: `--device cpu`",
        tensor.on.name()
    ))
}
