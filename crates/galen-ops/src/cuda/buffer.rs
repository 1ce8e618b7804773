//! Memory of a card.

use super::error::CudaError;
use cudarc::driver::{CudaContext, result, sys};
use std::sync::Arc;

/// Bytes on a card, aligned to 256. Freed when dropped.
pub struct DeviceBuffer {
    context: Arc<CudaContext>,
    pointer: sys::CUdeviceptr,
    bytes: usize,
}

impl DeviceBuffer {
    /// Errors: no memory, with what there is.
    pub(super) fn new(context: &Arc<CudaContext>, bytes: usize) -> Result<Self, CudaError> {
        context.bind_to_thread().map_err(|e| CudaError::of("cuCtxSetCurrent", e))?;
        // SAFETY: the context is current; an allocation of no bytes is none.
        let found = if bytes == 0 { Ok(0) } else { unsafe { result::malloc_sync(bytes) } };
        match found {
            Ok(pointer) => Ok(Self { context: Arc::clone(context), pointer, bytes }),
            Err(e) if e.0 == sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY => {
                let (free, total) = context.mem_get_info().map_err(|e| CudaError::of("cuMemGetInfo", e))?;
                Err(CudaError::OutOfMemory { bytes, free, total })
            }
            Err(e) => Err(CudaError::of("cuMemAlloc", e)),
        }
    }

    /// Bytes.
    pub fn len(&self) -> usize {
        self.bytes
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// Where it begins, for the card.
    pub(super) fn pointer(&self) -> sys::CUdeviceptr {
        self.pointer
    }

    /// Copies from the host, which waits. Errors: another number of bytes than the buffer's.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), CudaError> {
        self.same(bytes.len())?;
        if self.is_empty() {
            return Ok(());
        }
        self.context.bind_to_thread().map_err(|e| CudaError::of("cuCtxSetCurrent", e))?;
        // SAFETY: as many bytes as there are on either side.
        unsafe { result::memcpy_htod_sync(self.pointer, bytes) }.map_err(|e| CudaError::of("cuMemcpyHtoD", e))
    }

    /// Copies to the host, which waits for all work before. Errors: another number of bytes than the buffer's.
    pub fn read(&self, bytes: &mut [u8]) -> Result<(), CudaError> {
        self.same(bytes.len())?;
        if self.is_empty() {
            return Ok(());
        }
        self.context.bind_to_thread().map_err(|e| CudaError::of("cuCtxSetCurrent", e))?;
        self.context.synchronize().map_err(|e| CudaError::of("cuCtxSynchronize", e))?;
        // SAFETY: as many bytes as there are on either side.
        unsafe { result::memcpy_dtoh_sync(bytes, self.pointer) }.map_err(|e| CudaError::of("cuMemcpyDtoH", e))
    }

    fn same(&self, bytes: usize) -> Result<(), CudaError> {
        if bytes == self.bytes {
            return Ok(());
        }
        let what = format!("{bytes} bytes for a buffer of {}", self.bytes);
        Err(CudaError::Launch { kernel: "copy".into(), what })
    }
}

impl Drop for DeviceBuffer {
    fn drop(&mut self) {
        if self.bytes > 0 && self.context.bind_to_thread().is_ok() {
            // SAFETY: allocated with cuMemAlloc and not freed before. An error of earlier work comes up again at the
            // next call, which does report it.
            let _ = unsafe { result::free_sync(self.pointer) };
        }
    }
}
