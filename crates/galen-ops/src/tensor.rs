//! Reading and making f32 tensors without copies.

use crate::error::{Result, shape_error};
use candle_core::{CpuStorage, Device, Shape, Storage, Tensor};
use std::ops::{Deref, Range};
use std::sync::RwLockReadGuard;

/// A contiguous f32 CPU tensor seen as a slice. Holds the storage's read lock.
pub struct F32View<'a> {
    storage: RwLockReadGuard<'a, Storage>,
    range: Range<usize>,
}

impl Deref for F32View<'_> {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        match &*self.storage {
            Storage::Cpu(CpuStorage::F32(values)) => &values[self.range.clone()],
            // `f32_view` let nothing else in, and a locked storage does not change its kind.
            _ => &[],
        }
    }
}

/// The values of a contiguous f32 CPU tensor. Errors: another dtype, device or a strided layout.
pub fn f32_view(tensor: &Tensor) -> Result<F32View<'_>> {
    let (storage, layout) = tensor.storage_and_layout();
    let Some((start, end)) = layout.contiguous_offsets() else {
        return shape_error("f32_view", format!("layout `{layout:?}` is not contiguous"));
    };
    if !matches!(&*storage, Storage::Cpu(CpuStorage::F32(_))) {
        let what = format!("`{:?}` on `{:?}` is not f32 on the CPU", tensor.dtype(), tensor.device());
        return shape_error("f32_view", what);
    }
    Ok(F32View { storage, range: start..end })
}

/// A CPU tensor that takes over `values`.
pub fn f32_tensor(values: Vec<f32>, shape: impl Into<Shape>) -> Result<Tensor> {
    Ok(Tensor::from_vec(values, shape.into(), &Device::Cpu)?)
}

/// The two sizes of a matrix.
pub fn dims2(op: &'static str, tensor: &Tensor) -> Result<(usize, usize)> {
    match tensor.dims() {
        [rows, cols] => Ok((*rows, *cols)),
        dims => shape_error(op, format!("`{dims:?}` is not a matrix")),
    }
}
