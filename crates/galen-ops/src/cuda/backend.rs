//! A card as a place for the operations of [`crate::device`].

use super::{CudaError, DeviceBuffer, Gpu, KernelArg};
use crate::device::{Argument, Backend, Gemm, Library};
use crate::error::{Error, Result};
use std::sync::Arc;

impl From<CudaError> for Error {
    fn from(e: CudaError) -> Self {
        Self::Device(e.to_string())
    }
}

impl Backend for Gpu {
    type Buffer = DeviceBuffer;

    fn alloc(&self, bytes: usize) -> Result<DeviceBuffer> {
        Ok(Self::alloc(self, bytes)?)
    }

    fn upload(&self, bytes: &[u8]) -> Result<DeviceBuffer> {
        Ok(Self::upload(self, bytes)?)
    }

    fn write(&self, buffer: &DeviceBuffer, bytes: &[u8]) -> Result<()> {
        Ok(buffer.write(bytes)?)
    }

    fn download(&self, buffer: &DeviceBuffer) -> Result<Vec<u8>> {
        let mut bytes = vec![0; buffer.len()];
        buffer.read(&mut bytes)?;
        Ok(bytes)
    }

    fn zeros(&self, bytes: usize) -> Result<DeviceBuffer> {
        let mut buffer = Self::alloc(self, bytes)?;
        buffer.clear()?;
        Ok(buffer)
    }

    fn free_bytes(&self) -> Option<u64> {
        self.memory().ok().map(|(free, _)| free as u64)
    }

    fn launch(&self, kernel: &str, grid: [usize; 3], args: &[Argument<DeviceBuffer>]) -> Result<()> {
        let mut launched = Vec::with_capacity(args.len());
        for arg in args {
            launched.push(match arg {
                // A buffer of no bytes has no address.
                Argument::Read(b, _) | Argument::Write(b, _) if b.is_empty() => KernelArg::Null,
                Argument::Read(b, at) | Argument::Write(b, at) => KernelArg::Buffer(b, *at),
                Argument::Null => KernelArg::Null,
                Argument::Int(v) => {
                    let v =
                        i32::try_from(*v).map_err(|_| Error::Device(format!("{kernel}: {v} is no int")))?;
                    KernelArg::Int(v)
                }
                Argument::Float(v) => KernelArg::Float(*v),
                Argument::Long(v) => KernelArg::Long(*v),
            });
        }
        let blocks = grid.map(|g| u32::try_from(g).unwrap_or(0));
        // SAFETY: the operations of `crate::device` hand on what the kernels' headers ask for.
        unsafe { Self::launch(self, kernel, blocks, &launched) }?;
        Ok(())
    }

    fn library(&self) -> Option<Library> {
        let capability = self.card().capability;
        self.blas.as_ref().map(|_| Library { capability, forced: self.forced })
    }

    fn gemm(&self, product: &Gemm<DeviceBuffer>) -> Result<()> {
        let Some(blas) = &self.blas else {
            let what = "a product by cuBLAS, which is not open".to_owned();
            return Err(CudaError::Products { what }.into());
        };
        // SAFETY: the operations of `crate::device` check their matrices.
        Ok(unsafe { blas.gemm(product) }?)
    }

    fn with_scratch(
        &self,
        bytes: usize,
        work: &mut dyn FnMut(&Arc<DeviceBuffer>) -> Result<()>,
    ) -> Result<()> {
        self.scratch.with(bytes, |bytes| Ok(Self::alloc(self, bytes)?), work)
    }
}
