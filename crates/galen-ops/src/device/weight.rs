//! A frozen weight on a device, and the kernels' parameters for it.

use super::{Argument, Backend, DeviceMatrix, Number, bytes, int_bytes, ints};
use crate::error::{Error, Result, shape_error};
use crate::quant::{NF4_BLOCK, NF4_SUPER, QuantMatrix, WeightDtype};
use half::bf16;
use std::borrow::Cow;

/// The matrix, its plain numbers in bf16: products round them to that anyway, as on the CPU.
fn rounded(matrix: &QuantMatrix) -> Result<Cow<'_, QuantMatrix>> {
    if matrix.dtype().kernel_suffix().is_some() || matrix.dtype().block_size() != 1 {
        return Ok(Cow::Borrowed(matrix));
    }
    let (rows, cols) = (matrix.rows(), matrix.cols());
    let mut bytes = Vec::with_capacity(2 * rows * cols);
    let mut row = vec![0f32; cols];
    for i in 0..rows {
        matrix.dequantize_block(i, 0, &mut row);
        bytes.extend(row.iter().flat_map(|v| bf16::from_f32(*v).to_le_bytes()));
    }
    QuantMatrix::new(WeightDtype::BF16, rows, cols, bytes.into()).map(Cow::Owned).map_err(wrong)
}

fn wrong(e: crate::quant::QuantError) -> Error {
    Error::Shape { op: "device_weight", what: e.to_string() }
}

/// A weight `[rows, cols]` in planes (`kernels/include/formats.cuh`).
pub struct DeviceWeight<B> {
    dtype: WeightDtype,
    suffix: &'static str,
    rows: usize,
    cols: usize,
    /// Codes, upper bits, scales, scales of scales, levels.
    planes: [Option<B>; 5],
    offset: f32,
}

impl<B> DeviceWeight<B> {
    /// Takes a matrix apart and uploads it. Errors: a format without kernels, rows the kernels do not read.
    pub fn upload(on: &impl Backend<Buffer = B>, matrix: &QuantMatrix) -> Result<Self> {
        let matrix = &*rounded(matrix)?;
        let dtype = matrix.dtype();
        let planes = matrix.device_planes().map_err(wrong)?;
        let suffix =
            dtype.kernel_suffix().ok_or_else(|| wrong(crate::quant::QuantError::NoKernels { dtype }))?;
        let levels: Vec<u8> = planes.levels.iter().flat_map(|v| v.to_le_bytes()).collect();
        let upload = |bytes: &[u8]| (!bytes.is_empty()).then(|| on.upload(bytes)).transpose();
        Ok(Self {
            dtype,
            suffix,
            rows: matrix.rows(),
            cols: matrix.cols(),
            planes: [
                upload(&planes.codes)?,
                upload(&planes.high)?,
                upload(&planes.scales)?,
                upload(&planes.supers)?,
                upload(&levels)?,
            ],
            offset: planes.offset,
        })
    }

    /// Out features.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// In features.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// The codes, where they are bf16 row by row.
    pub(super) fn plain(&self) -> Option<&B> {
        self.planes[0].as_ref().filter(|_| self.dtype == WeightDtype::BF16)
    }

    /// Rows from `first` on, a multiple of [`Self::row_step`], as bf16 row by row.
    pub(super) fn dequantize(
        &self,
        on: &impl Backend<Buffer = B>,
        (first, rows): (usize, usize),
        to: &B,
    ) -> Result<()> {
        ints("dequantize", &[rows, self.cols])?;
        let blocks = bytes("dequantize", &[rows, self.cols])?.div_ceil(32 * 256);
        let mut args = self.arguments(first);
        args.extend([Argument::Int(rows), Argument::Int(self.cols), Argument::Write(to, 0)]);
        on.launch(&self.kernel("dequantize"), [blocks, 1, 1], &args)
    }

    /// `name` of this format.
    pub(super) fn kernel(&self, name: &str) -> String {
        format!("{name}_{}", self.suffix)
    }

    /// Rows that parts of a matrix must begin at, so that each plane can be entered there.
    pub(super) fn row_step(&self) -> usize {
        row_step(self.dtype, self.cols)
    }

    /// The six parameters, for rows from `first` on: a multiple of [`Self::row_step`].
    pub(super) fn arguments(&self, first: usize) -> Vec<Argument<'_, B>> {
        // Whole groups, but for plain numbers, whose rows may be any length.
        let places = match self.dtype {
            WeightDtype::BF16 => [2 * first * self.cols, 0, 0, 0],
            _ => self.dtype.plane_bytes(first * self.cols / 32).unwrap_or_default(),
        };
        let mut arguments: Vec<_> = self
            .planes
            .iter()
            .zip(places.into_iter().chain([0]))
            .map(|(plane, at)| plane.as_ref().map_or(Argument::Null, |p| Argument::Read(p, at)))
            .collect();
        arguments.push(Argument::Float(self.offset));
        arguments
    }
}

fn row_step(dtype: WeightDtype, cols: usize) -> usize {
    match dtype {
        // Magnitudes of 256 blocks share a scale: a part begins with a new one.
        WeightDtype::Nf4 => {
            let span = NF4_BLOCK * NF4_SUPER;
            span / gcd(span, cols)
        }
        _ => 1,
    }
}

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// Rows `ids` of the table `[V, C]`, times `scale`: `[T, C]` f32.
pub fn embed<B>(
    on: &impl Backend<Buffer = B>,
    table: &DeviceWeight<B>,
    ids: &[u32],
    scale: f32,
) -> Result<DeviceMatrix<B>> {
    let (v, c) = (table.rows(), table.cols());
    ints("embedding", &[v, c, ids.len()])?;
    if let Some(id) = ids.iter().find(|id| **id as usize >= v) {
        return shape_error("embedding", format!("token id `{id}` of a vocabulary of {v}"));
    }
    if !c.is_multiple_of(32) {
        return shape_error("embedding", format!("{c} columns are not whole groups of 32"));
    }
    let y = DeviceMatrix::new(on, ids.len(), c, Number::F32)?;
    if !ids.is_empty() {
        let ids = on.upload(&int_bytes(&ids.iter().map(|id| *id as i32).collect::<Vec<_>>()))?;
        let mut args = table.arguments(0);
        args.extend([Argument::Int(c), Argument::Read(&ids, 0), Argument::Float(scale), y.write()]);
        on.launch(&table.kernel("embed"), [y.rows, 1, 1], &args)?;
    }
    Ok(y)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_nf4_begin_with_a_scale_of_scales() {
        let span = NF4_BLOCK * NF4_SUPER;
        for cols in [32, 64, 96, 576, 960, 1536, 4096, 5760, 16_384, 49_152] {
            let step = row_step(WeightDtype::Nf4, cols);
            assert!((step * cols).is_multiple_of(span), "{cols}");
            assert!((1..step).all(|s| !(s * cols).is_multiple_of(span)), "{cols}: fewer rows would do");
        }
        assert_eq!(row_step(WeightDtype::Q4_K, 576), 1);
    }
}
