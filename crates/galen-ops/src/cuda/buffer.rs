//! Memory of a card, in the order of its queue: allocating, copying and freeing wait for nothing but what is read back.

use super::error::CudaError;
use cudarc::driver::{CudaContext, CudaStream, DriverError, result, sys};
use std::sync::Arc;

/// Bytes on a card, aligned to 256. Freed when dropped, once what was launched before has run.
pub struct DeviceBuffer {
    stream: Arc<CudaStream>,
    pointer: sys::CUdeviceptr,
    bytes: usize,
    /// Of the card's pool: allocated and freed in the queue's order.
    pooled: bool,
}

impl DeviceBuffer {
    /// Errors: no memory, with what there is.
    pub(super) fn new(stream: &Arc<CudaStream>, bytes: usize) -> Result<Self, CudaError> {
        Self::of(stream, bytes, stream.context().has_async_alloc())
    }

    /// The same of no pool, so that other cards may reach it. Waits.
    pub(super) fn apart(stream: &Arc<CudaStream>, bytes: usize) -> Result<Self, CudaError> {
        Self::of(stream, bytes, false)
    }

    fn of(stream: &Arc<CudaStream>, bytes: usize, pooled: bool) -> Result<Self, CudaError> {
        let context = stream.context();
        bind(stream)?;
        let allocate = || match bytes {
            0 => Ok(0),
            // SAFETY: the context is current and the allocation not empty.
            _ if pooled => unsafe { result::malloc_async(stream.cu_stream(), bytes) },
            // SAFETY: as above.
            _ => unsafe { result::malloc_sync(bytes) },
        };
        let full = |e: &DriverError| e.0 == sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY;
        // What the pool keeps of what was freed may lie in pieces too small, or be wanted outside it.
        let found =
            allocate().or_else(|e| if full(&e) && give_back(stream).is_ok() { allocate() } else { Err(e) });
        match found {
            Ok(pointer) => Ok(Self { stream: Arc::clone(stream), pointer, bytes, pooled }),
            Err(e) if full(&e) => {
                let (free, total) = context.mem_get_info().map_err(|e| CudaError::of("cuMemGetInfo", e))?;
                Err(CudaError::OutOfMemory { bytes, free, total })
            }
            Err(e) => Err(CudaError::of(if pooled { "cuMemAllocAsync" } else { "cuMemAlloc" }, e)),
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

    /// Copies from the host to the buffer's beginning, in the queue's order. Errors: more than the buffer holds.
    pub fn write(&self, bytes: &[u8]) -> Result<(), CudaError> {
        if bytes.len() > self.bytes {
            self.same(bytes.len())?;
        }
        if bytes.is_empty() {
            return Ok(());
        }
        bind(&self.stream)?;
        // SAFETY: no more bytes than there are on either side, and they stay borrowed until they are no longer needed: from memory
        // that is not page-locked the call returns then, but where a card reads the host's pages itself, which is waited for.
        unsafe { result::memcpy_htod_async(self.pointer, bytes, self.stream.cu_stream()) }
            .map_err(|e| CudaError::of("cuMemcpyHtoDAsync", e))?;
        if self.reads_host_pages()? { wait(&self.stream) } else { Ok(()) }
    }

    /// Copies `bytes` bytes from byte `at` on of a buffer of the same card to this one's beginning, or back from there where
    /// `back`; in the queue's order.
    ///
    /// # Safety
    /// Both lie on one card.
    pub(super) unsafe fn exchange(
        &self,
        (other, at): (&Self, usize),
        bytes: usize,
        back: bool,
    ) -> Result<(), CudaError> {
        if bytes > self.bytes || at.checked_add(bytes).is_none_or(|end| end > other.bytes) {
            let what = format!("{bytes} bytes between {} and {} from {at} on", self.bytes, other.bytes);
            return Err(CudaError::Launch { kernel: "copy".into(), what });
        }
        if bytes == 0 {
            return Ok(());
        }
        bind(&self.stream)?;
        let there = other.pointer + at as u64;
        let (to, from) = if back { (there, self.pointer) } else { (self.pointer, there) };
        // SAFETY: both ranges lie in their buffers, which are the caller's to keep on one card.
        unsafe { result::memcpy_dtod_async(to, from, bytes, self.stream.cu_stream()) }
            .map_err(|e| CudaError::of("cuMemcpyDtoDAsync", e))
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
        wait(&self.stream)
    }

    /// Whether the card goes by the host's page tables (GH200): it may read the host's bytes after the call.
    fn reads_host_pages(&self) -> Result<bool, CudaError> {
        use sys::CUdevice_attribute_enum as A;
        let attribute = A::CU_DEVICE_ATTRIBUTE_PAGEABLE_MEMORY_ACCESS_USES_HOST_PAGE_TABLES;
        let answer = self.stream.context().attribute(attribute);
        Ok(answer.map_err(|e| CudaError::of("cuDeviceGetAttribute", e))? != 0)
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

/// Waits for the stream.
pub(super) fn wait(stream: &CudaStream) -> Result<(), CudaError> {
    stream.synchronize().map_err(|e| CudaError::of("cuStreamSynchronize", e))
}

/// The pool of a card that is open.
pub(super) fn pool(context: &CudaContext) -> Result<sys::CUmemoryPool, CudaError> {
    // SAFETY: as its comment says.
    unsafe { result::device::get_default_mem_pool(context.cu_device()) }
        .map_err(|e| CudaError::of("cuDeviceGetDefaultMemPool", e))
}

/// Gives the driver what its pool keeps and nobody holds. Waits.
pub(super) fn give_back(stream: &CudaStream) -> Result<(), CudaError> {
    wait(stream)?;
    if !stream.context().has_async_alloc() {
        return Ok(());
    }
    // SAFETY: the pool of an open device.
    unsafe { sys::cuMemPoolTrimTo(pool(stream.context())?, 0) }
        .result()
        .map_err(|e| CudaError::of("cuMemPoolTrimTo", e))
}

impl Drop for DeviceBuffer {
    fn drop(&mut self) {
        if self.bytes == 0 || bind(&self.stream).is_err() {
            return;
        }
        // An error here is one of earlier work; it comes up again at the next call, which reports it.
        let _ = if self.pooled {
            // SAFETY: allocated on this stream and not freed before.
            unsafe { result::free_async(self.pointer, self.stream.cu_stream()) }
        } else {
            let _ = self.stream.synchronize();
            // SAFETY: as above, and nothing uses it any more.
            unsafe { result::free_sync(self.pointer) }
        };
    }
}
