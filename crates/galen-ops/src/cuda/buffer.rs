//! Memory of a card, in the order of its queue: allocating, copying and freeing wait for nothing but what is read back.

use super::error::CudaError;
use cudarc::driver::{CudaStream, result, sys};
use std::sync::Arc;

/// Bytes on a card, aligned to 256. Freed when dropped, once what was launched before has run.
pub struct DeviceBuffer {
    stream: Arc<CudaStream>,
    pointer: sys::CUdeviceptr,
    bytes: usize,
}

impl DeviceBuffer {
    /// Errors: no memory, with what there is.
    pub(super) fn new(stream: &Arc<CudaStream>, bytes: usize) -> Result<Self, CudaError> {
        let context = stream.context();
        bind(stream)?;
        let found = match bytes {
            0 => Ok(0),
            // SAFETY: the context is current and the allocation not empty.
            _ if context.has_async_alloc() => unsafe { result::malloc_async(stream.cu_stream(), bytes) },
            // SAFETY: as above.
            _ => unsafe { result::malloc_sync(bytes) },
        };
        match found {
            Ok(pointer) => Ok(Self { stream: Arc::clone(stream), pointer, bytes }),
            Err(e) if e.0 == sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY => {
                let (free, total) = context.mem_get_info().map_err(|e| CudaError::of("cuMemGetInfo", e))?;
                Err(CudaError::OutOfMemory { bytes, free, total })
            }
            Err(e) => Err(CudaError::of("cuMemAllocAsync", e)),
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

    /// Copies from the host, in the queue's order. Errors: another number of bytes than the buffer's.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), CudaError> {
        self.same(bytes.len())?;
        if self.is_empty() {
            return Ok(());
        }
        bind(&self.stream)?;
        // SAFETY: as many bytes as there are on either side. From memory that is not page-locked, the call returns when
        // the host's bytes are no longer needed.
        unsafe { result::memcpy_htod_async(self.pointer, bytes, self.stream.cu_stream()) }
            .map_err(|e| CudaError::of("cuMemcpyHtoDAsync", e))
    }

    /// Zeros, in the queue's order.
    pub fn clear(&mut self) -> Result<(), CudaError> {
        if self.is_empty() {
            return Ok(());
        }
        bind(&self.stream)?;
        // SAFETY: as many bytes as were allocated.
        unsafe { result::memset_d8_async(self.pointer, 0, self.bytes, self.stream.cu_stream()) }
            .map_err(|e| CudaError::of("cuMemsetD8Async", e))
    }

    /// Copies to the host once all work before has run. Errors: another number of bytes than the buffer's.
    pub fn read(&self, bytes: &mut [u8]) -> Result<(), CudaError> {
        self.same(bytes.len())?;
        if self.is_empty() {
            return Ok(());
        }
        bind(&self.stream)?;
        // SAFETY: as many bytes as there are on either side; they stay borrowed until the queue is empty.
        unsafe { result::memcpy_dtoh_async(bytes, self.pointer, self.stream.cu_stream()) }
            .map_err(|e| CudaError::of("cuMemcpyDtoHAsync", e))?;
        self.stream.synchronize().map_err(|e| CudaError::of("cuStreamSynchronize", e))
    }

    fn same(&self, bytes: usize) -> Result<(), CudaError> {
        if bytes == self.bytes {
            return Ok(());
        }
        let what = format!("{bytes} bytes for a buffer of {}", self.bytes);
        Err(CudaError::Launch { kernel: "copy".into(), what })
    }
}

/// Makes the stream's card this thread's.
pub(super) fn bind(stream: &CudaStream) -> Result<(), CudaError> {
    stream.context().bind_to_thread().map_err(|e| CudaError::of("cuCtxSetCurrent", e))
}

impl Drop for DeviceBuffer {
    fn drop(&mut self) {
        if self.bytes == 0 || bind(&self.stream).is_err() {
            return;
        }
        // An error here is one of earlier work; it comes up again at the next call, which reports it.
        let _ = if self.stream.context().has_async_alloc() {
            // SAFETY: allocated on this stream and not freed before.
            unsafe { result::free_async(self.pointer, self.stream.cu_stream()) }
        } else {
            // SAFETY: as above, without the stream.
            unsafe { result::free_sync(self.pointer) }
        };
    }
}
