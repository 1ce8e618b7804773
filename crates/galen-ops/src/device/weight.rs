//! A frozen weight on a device, and the kernels' parameters for it.

use super::{Argument, Backend};
use crate::error::{Error, Result};
use crate::quant::{NF4_BLOCK, NF4_SUPER, QuantMatrix, WeightDtype};

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
        let dtype = matrix.dtype();
        let wrong = |e: crate::quant::QuantError| Error::Shape { op: "device_weight", what: e.to_string() };
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

    /// `name` of this format.
    pub(super) fn kernel(&self, name: &str) -> String {
        format!("{name}_{}", self.suffix)
    }

    /// Rows that parts of a matrix must begin at, so that each plane can be entered there.
    pub(super) fn row_step(&self) -> usize {
        match self.dtype {
            // Magnitudes of 256 blocks share a scale: a part begins with a new one.
            WeightDtype::Nf4 => (NF4_BLOCK * NF4_SUPER).div_ceil(self.cols.max(1)).next_power_of_two(),
            _ => 1,
        }
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
