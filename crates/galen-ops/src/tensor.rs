//! Reading and making f32 tensors without copies.

use crate::error::{Result, shape_error};
use crate::kernels::bf16::round;
use crate::kernels::isa::multiversion;
use crate::ops::{Compute, by_rows};
use candle_core::{CpuStorage, DType, Device, Shape, Storage, Tensor};
use half::bf16;
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

/// Values read from a tensor of either width.
pub(crate) enum Values<'a> {
    /// As they lie.
    View(F32View<'a>),
    /// Another's.
    Slice(&'a [f32]),
    /// Computed or widened.
    Own(Vec<f32>),
}

impl Deref for Values<'_> {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        match self {
            Self::View(view) => view,
            Self::Slice(values) => values,
            Self::Own(values) => values,
        }
    }
}

/// What backward keeps of an activation: in bf16 arithmetic two bytes a value.
pub(crate) fn keep(tensor: &Tensor, compute: Compute) -> Result<Tensor> {
    if compute == Compute::F32 {
        return Ok(tensor.clone());
    }
    let values = f32_view(tensor)?;
    let values = &*values;
    let kept = by_rows(values.len(), 1, |start, kept: &mut [bf16]| {
        narrow(&values[start..start + kept.len()], kept);
    });
    Ok(Tensor::from_vec(kept, tensor.shape().clone(), &Device::Cpu)?)
}

/// The values of what [`keep`] kept.
pub(crate) fn kept(tensor: &Tensor) -> Result<Values<'_>> {
    if tensor.dtype() != DType::BF16 {
        return f32_view(tensor).map(Values::View);
    }
    let (storage, layout) = tensor.storage_and_layout();
    let (Storage::Cpu(CpuStorage::BF16(values)), Some((start, end))) =
        (&*storage, layout.contiguous_offsets())
    else {
        return shape_error("kept", format!("`{layout:?}` is not contiguous on the CPU"));
    };
    let values = &values[start..end];
    Ok(Values::Own(by_rows(values.len(), 1, |start, wide: &mut [f32]| {
        widen(&values[start..start + wide.len()], wide);
    })))
}

multiversion! {
    fn narrow(values: &[f32], kept: &mut [bf16]) {
        for (kept, x) in kept.iter_mut().zip(values) {
            *kept = bf16::from_bits(round(*x));
        }
        let _ = F::fma;
    }
}

multiversion! {
    fn widen(kept: &[bf16], wide: &mut [f32]) {
        for (x, kept) in wide.iter_mut().zip(kept) {
            *x = f32::from_bits(u32::from(kept.to_bits()) << 16);
        }
        let _ = F::fma;
    }
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
