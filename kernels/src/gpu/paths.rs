//! Times of both paths of the products with a weight, over rows: what the table of `galen_ops::device::choice` is to be filled with.

use super::bench::{Sizes, Timing, filled, median};
use crate::checks::support::values;
use galen_ops::Result;
use galen_ops::cuda::{CudaError, DeviceBuffer, Gpu};
use galen_ops::device::{
    Argument, Backend, DeviceBranch, DeviceMatrix, DeviceWeight, Gemm, Library, Number, Path,
    projection_backward, projection_forward,
};
use galen_ops::quant::{QuantMatrix, WeightDtype, quantize};
use std::sync::Arc;

const RANK: usize = 16;

/// A card whose products with weights take one path.
struct Forced<'a>(&'a Gpu, Path);

impl Backend for Forced<'_> {
    type Buffer = DeviceBuffer;

    fn alloc(&self, bytes: usize) -> Result<DeviceBuffer> {
        Backend::alloc(self.0, bytes)
    }

    fn upload(&self, bytes: &[u8]) -> Result<DeviceBuffer> {
        Backend::upload(self.0, bytes)
    }

    fn write(&self, buffer: &DeviceBuffer, bytes: &[u8]) -> Result<()> {
        Backend::write(self.0, buffer, bytes)
    }

    fn download(&self, buffer: &DeviceBuffer) -> Result<Vec<u8>> {
        self.0.download(buffer)
    }

    fn launch(&self, kernel: &str, grid: [usize; 3], args: &[Argument<DeviceBuffer>]) -> Result<()> {
        Backend::launch(self.0, kernel, grid, args)
    }

    fn library(&self) -> Option<Library> {
        self.0.library().map(|l| Library { forced: Some(self.1), ..l })
    }

    fn gemm(&self, product: &Gemm<DeviceBuffer>) -> Result<()> {
        Backend::gemm(self.0, product)
    }

    fn with_scratch(
        &self,
        bytes: usize,
        work: &mut dyn FnMut(&Arc<DeviceBuffer>) -> Result<()>,
    ) -> Result<()> {
        self.0.with_scratch(bytes, work)
    }
}

fn failed(e: galen_ops::Error) -> CudaError {
    CudaError::Launch { kernel: "both paths".into(), what: e.to_string() }
}

/// A weight whose rows are all alike: encoding one is enough.
fn weight(dtype: WeightDtype, n: usize, k: usize) -> Option<QuantMatrix> {
    if dtype == WeightDtype::Nf4 {
        return QuantMatrix::quantize_nf4(n, k, &values(1, n * k)).ok();
    }
    let row = quantize(dtype, k, &values(1, k)).ok()?;
    QuantMatrix::new(dtype, n, k, row.repeat(n).into()).ok()
}

/// Every kind by every path, with and without a branch, over `sizes`' rows and their halves. Nothing where there is no cuBLAS.
pub fn all(gpu: &Gpu, sizes: Sizes) -> Vec<(String, std::result::Result<Timing, CudaError>)> {
    let mut found = Vec::new();
    if gpu.library().is_none() {
        return found;
    }
    for dtype in [WeightDtype::BF16, WeightDtype::Nf4, WeightDtype::Q4_K] {
        let uploaded = weight(dtype, sizes.width, sizes.width)
            .ok_or_else(|| CudaError::NoKernel(dtype.to_string()))
            .and_then(|w| DeviceWeight::upload(gpu, &w).map_err(failed));
        let weight = match uploaded {
            Ok(weight) => weight,
            Err(e) => {
                found.push((format!("both paths {dtype}"), Err(e)));
                continue;
            }
        };
        for m in [16, 8, 4, 2, 1].map(|part| sizes.rows / part) {
            for (way, branch) in
                [("forward", false), ("forward", true), ("backward", false), ("backward", true)]
            {
                for path in [Path::Kernels, Path::Library] {
                    let what = format!("both paths {dtype} {way} {m} {path:?}");
                    let timed = time(gpu, sizes, (dtype, &weight), m, (way, branch, path));
                    found.push((what, timed.map_err(failed)));
                }
            }
        }
    }
    found
}

fn time(
    gpu: &Gpu,
    sizes: Sizes,
    (dtype, weight): (WeightDtype, &DeviceWeight<DeviceBuffer>),
    m: usize,
    (way, branch, path): (&str, bool, Path),
) -> Result<Timing> {
    let on = Forced(gpu, path);
    let (n, k) = (weight.rows(), weight.cols());
    let new = |rows: usize, cols: usize| -> Result<DeviceMatrix<DeviceBuffer>> {
        let buffer = filled(gpu, 2 * rows * cols)?;
        Ok(DeviceMatrix { buffer, rows, cols, stride: cols, number: Number::Bf16 })
    };
    let (x, dy, a, b, u) = (new(m, k)?, new(m, n)?, new(RANK, k)?, new(n, RANK)?, new(m, RANK)?);
    let dx = DeviceMatrix::new(&on, m, k, Number::Bf16)?;
    let pair = DeviceBranch { a: &a, b: &b, scale: 0.5, dropout: None };
    let run = || match (way, branch) {
        ("forward", _) => {
            projection_forward(&on, &x, (weight, None), branch.then_some(&pair), (Number::Bf16, false))
                .map(drop)
        }
        (_, true) => projection_backward(&on, &dy, weight, Some((&pair, &u, &x)), Some((&dx, false)), None),
        (_, false) => projection_backward(&on, &dy, weight, None, Some((&dx, false)), None),
    };
    let ms = median(gpu, sizes.runs(), || run().map_err(failed))?;
    let rank = if branch { RANK } else { 0 };
    let flops = 2.0 * m as f64 * n as f64 * (k + rank) as f64;
    let bytes = 2.0 * (m * (n + k) + n * k) as f64;
    let name = if path == Path::Library { "cuBLAS" } else { "kernels" };
    let work = format!("{way}, {dtype}, m {m}, n {n}, k {k}, rank {rank}");
    Ok(Timing { kernel: format!("both paths: {name}"), work, ms, flops, bytes })
}
