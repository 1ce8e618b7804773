//! cuBLAS: products in bf16 with f32 sums on a card's queue. Loaded at run time; where it is not installed, galen's kernels form
//! every product.

use super::buffer::{DeviceBuffer, bind};
use super::error::CudaError;
use crate::device::{Gemm, Number, Way};
use cudarc::cublas::sys as blas;
use cudarc::driver::CudaStream;
use std::ffi::c_int;
use std::sync::{Arc, Mutex, PoisonError};

/// cuBLAS' own working memory, handed to it so that it never allocates: what NVIDIA recommends on Hopper, enough elsewhere.
const WORKSPACE_BYTES: usize = 32 << 20;

/// A handle, its queue and its memory.
pub(super) struct Blas {
    /// One call at a time.
    handle: Mutex<Handle>,
    stream: Arc<CudaStream>,
    /// Held for the handle.
    workspace: DeviceBuffer,
}

struct Handle(blas::cublasHandle_t);

// SAFETY: a handle may be used from any thread, by one at a time (cuBLAS, "Thread Safety").
unsafe impl Send for Handle {}

fn check(call: &'static str, status: blas::cublasStatus_t) -> Result<(), CudaError> {
    match status {
        blas::cublasStatus_t::CUBLAS_STATUS_SUCCESS => Ok(()),
        blas::cublasStatus_t::CUBLAS_STATUS_ALLOC_FAILED => Err(CudaError::NoMemory { call }),
        other => Err(CudaError::Blas { call, code: format!("{other:?}") }),
    }
}

/// The version of the cuBLAS of this machine; none where it cannot be loaded.
pub fn blas_version() -> Option<String> {
    // SAFETY: loads a library, whose initialisation is its authors' to answer for.
    if !unsafe { blas::is_culib_present() } {
        return None;
    }
    use blas::libraryPropertyType_t as P;
    let mut numbers = [0 as c_int; 3];
    for (number, which) in numbers.iter_mut().zip([P::MAJOR_VERSION, P::MINOR_VERSION, P::PATCH_LEVEL]) {
        // SAFETY: writes one number.
        let asked = unsafe { blas::cublasGetProperty(which, std::ptr::from_mut(number)) };
        check("cublasGetProperty", asked).ok()?;
    }
    let [major, minor, patch] = numbers;
    Some(format!("{major}.{minor}.{patch}"))
}

impl Blas {
    /// On a card's queue; none where the library is not installed. Nothing it is asked for later waits.
    pub(super) fn open(stream: &Arc<CudaStream>) -> Result<Option<Self>, CudaError> {
        // SAFETY: as above.
        if !unsafe { blas::is_culib_present() } {
            return Ok(None);
        }
        let workspace = DeviceBuffer::new(stream, WORKSPACE_BYTES)?;
        let mut handle: blas::cublasHandle_t = std::ptr::null_mut();
        bind(stream)?;
        // SAFETY: writes the handle.
        check("cublasCreate", unsafe { blas::cublasCreate_v2(&raw mut handle) })?;
        // From here on dropped with the value.
        let made = Self { handle: Mutex::new(Handle(handle)), stream: Arc::clone(stream), workspace };
        // SAFETY: a live handle and stream. The stream comes first: it resets the workspace.
        check("cublasSetStream", unsafe { blas::cublasSetStream_v2(handle, stream.cu_stream().cast()) })?;
        let place = made.workspace.pointer() as *mut std::ffi::c_void;
        // SAFETY: the memory lives as long as the handle.
        check("cublasSetWorkspace", unsafe { blas::cublasSetWorkspace_v2(handle, place, WORKSPACE_BYTES) })?;
        // Sums stay f32 where the inner dimension is divided.
        let math = blas::cublasMath_t::CUBLAS_MATH_DISALLOW_REDUCED_PRECISION_REDUCTION;
        // SAFETY: a live handle.
        check("cublasSetMathMode", unsafe { blas::cublasSetMathMode(handle, math) })?;
        Ok(Some(made))
    }

    /// Puts a product on the queue. Row-major matrices are cuBLAS' transposed: `y^T = W x^T`, or `W^T x^T`.
    ///
    /// # Safety
    /// The buffers are on this handle's card, and the matrices lie in them.
    pub(super) unsafe fn gemm(&self, product: &Gemm<DeviceBuffer>) -> Result<(), CudaError> {
        let Gemm { way, m, out, inner, x, w, y, number, accumulate } = *product;
        let int = |v: usize| {
            let what = || format!("{v} is more than cuBLAS counts");
            c_int::try_from(v).map_err(|_| CudaError::Launch { kernel: "cublasGemmEx".into(), what: what() })
        };
        let at =
            |(buffer, first, _): (&DeviceBuffer, usize, usize)| (buffer.pointer() + first as u64) as *mut _;
        use blas::cublasOperation_t::{CUBLAS_OP_N, CUBLAS_OP_T};
        let of_w = if way == Way::Forward { CUBLAS_OP_T } else { CUBLAS_OP_N };
        let bf16 = blas::cudaDataType_t::CUDA_R_16BF;
        let of_y = if number == Number::F32 { blas::cudaDataType_t::CUDA_R_32F } else { bf16 };
        let (one, beta) = (1f32, if accumulate { 1f32 } else { 0.0 });
        let (m, out, inner) = (int(m)?, int(out)?, int(inner)?);
        let (ldx, ldw, ldy) = (int(x.2)?, int(w.2)?, int(y.2)?);
        bind(&self.stream)?;
        let handle = self.handle.lock().unwrap_or_else(PoisonError::into_inner);
        // SAFETY: the caller's promise; the factors are read before the call returns.
        let status = unsafe {
            blas::cublasGemmEx(
                handle.0,
                of_w,
                CUBLAS_OP_N,
                out,
                m,
                inner,
                (&raw const one).cast(),
                at(w),
                bf16,
                ldw,
                at(x),
                bf16,
                ldx,
                (&raw const beta).cast(),
                at(y),
                of_y,
                ldy,
                blas::cublasComputeType_t::CUBLAS_COMPUTE_32F,
                blas::cublasGemmAlgo_t::CUBLAS_GEMM_DFALT,
            )
        };
        check("cublasGemmEx", status)
    }
}

impl Drop for Blas {
    fn drop(&mut self) {
        let handle = self.handle.get_mut().unwrap_or_else(PoisonError::into_inner);
        if bind(&self.stream).is_err() {
            return;
        }
        // SAFETY: made by `open`, not destroyed before. At the end there is nobody to tell of an error.
        let _ = unsafe { blas::cublasDestroy_v2(handle.0) };
    }
}
