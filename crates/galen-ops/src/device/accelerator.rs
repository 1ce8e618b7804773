//! A device behind one type, so that nothing above this crate is generic over it, and what lies on it of the host's.

use super::{Argument, Backend, DeviceWeight, Gemm, Library, Lying, Path};
use crate::error::{Error, Result};
use crate::quant::QuantMatrix;
use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

/// Anything that can go from thread to thread.
type Shared = Arc<dyn Any + Send + Sync>;

/// Memory of an [`Accelerator`] from some byte on. Clones share it.
#[derive(Clone)]
pub struct Memory {
    buffer: Shared,
    from: usize,
}

impl Memory {
    /// What lies from byte `at` on.
    #[must_use]
    pub fn part(&self, at: usize) -> Self {
        Self { buffer: Arc::clone(&self.buffer), from: self.from + at }
    }

    /// The device's own buffer, and the byte from which it is meant. Errors: another device's.
    #[cfg(feature = "cuda")]
    pub(crate) fn own<B: 'static>(&self) -> Result<(&B, usize)> {
        Ok((of(&self.buffer)?, self.from))
    }
}

/// A [`Backend`] without its type of memory.
trait AnyBackend: Send + Sync {
    fn alloc_any(&self, bytes: usize) -> Result<Shared>;
    fn upload_any(&self, bytes: &[u8]) -> Result<Shared>;
    fn zeros_any(&self, bytes: usize) -> Result<Shared>;
    fn write_any(&self, buffer: &Memory, bytes: &[u8]) -> Result<()>;
    fn download_any(&self, buffer: &Shared) -> Result<Vec<u8>>;
    fn launch_any(&self, kernel: &str, grid: [usize; 3], args: &[Argument<Memory>]) -> Result<()>;
    fn free_any(&self) -> Option<u64>;
    fn library_any(&self) -> Option<Library>;
    fn gemm_any(&self, product: &Gemm<Memory>) -> Result<()>;
    fn with_scratch_any(&self, bytes: usize, work: &mut dyn FnMut(&Shared) -> Result<()>) -> Result<()>;
}

fn of<B: 'static>(buffer: &Shared) -> Result<&B> {
    buffer.downcast_ref().ok_or_else(|| Error::Device("memory of another device".into()))
}

fn own<T: Backend>((memory, first, stride): Lying<'_, Memory>) -> Result<Lying<'_, T::Buffer>>
where
    T::Buffer: 'static,
{
    Ok((of(&memory.buffer)?, memory.from + first, stride))
}

impl<T> AnyBackend for T
where
    T: Backend + Send + Sync,
    T::Buffer: Send + Sync + 'static,
{
    fn alloc_any(&self, bytes: usize) -> Result<Shared> {
        Ok(Arc::new(self.alloc(bytes)?))
    }

    fn upload_any(&self, bytes: &[u8]) -> Result<Shared> {
        Ok(Arc::new(self.upload(bytes)?))
    }

    fn zeros_any(&self, bytes: usize) -> Result<Shared> {
        Ok(Arc::new(self.zeros(bytes)?))
    }

    fn write_any(&self, memory: &Memory, bytes: &[u8]) -> Result<()> {
        if memory.from > 0 {
            return Err(Error::Device("a part of a buffer to write to".into()));
        }
        self.write(of(&memory.buffer)?, bytes)
    }

    fn download_any(&self, buffer: &Shared) -> Result<Vec<u8>> {
        self.download(of(buffer)?)
    }

    fn launch_any(&self, kernel: &str, grid: [usize; 3], args: &[Argument<Memory>]) -> Result<()> {
        let mut own = Vec::with_capacity(args.len());
        for arg in args {
            own.push(match arg {
                Argument::Read(m, at) => Argument::Read(of::<T::Buffer>(&m.buffer)?, m.from + at),
                Argument::Write(m, at) => Argument::Write(of::<T::Buffer>(&m.buffer)?, m.from + at),
                Argument::Null => Argument::Null,
                Argument::Int(v) => Argument::Int(*v),
                Argument::Float(v) => Argument::Float(*v),
                Argument::Long(v) => Argument::Long(*v),
            });
        }
        self.launch(kernel, grid, &own)
    }

    fn free_any(&self) -> Option<u64> {
        self.free_bytes()
    }

    fn library_any(&self) -> Option<Library> {
        self.library()
    }

    fn gemm_any(&self, product: &Gemm<Memory>) -> Result<()> {
        let Gemm { way, m, out, inner, x, w, y, number, accumulate } = *product;
        let (x, w, y) = (own::<T>(x)?, own::<T>(w)?, own::<T>(y)?);
        self.gemm(&Gemm { way, m, out, inner, x, w, y, number, accumulate })
    }

    fn with_scratch_any(&self, bytes: usize, work: &mut dyn FnMut(&Shared) -> Result<()>) -> Result<()> {
        self.with_scratch(bytes, &mut |buffer| {
            let shared: Shared = Arc::<T::Buffer>::clone(buffer);
            work(&shared)
        })
    }
}

/// What was made of something of the host's, for as long as that is there.
struct Resident {
    is_wanted: Box<dyn Fn() -> bool + Send + Sync>,
    value: Shared,
}

/// A device to compute on. Clones are the same device.
#[derive(Clone)]
pub struct Accelerator {
    name: Arc<str>,
    backend: Arc<dyn AnyBackend>,
    /// By the address of what it was made of, and its own type.
    residents: Arc<Mutex<HashMap<(usize, TypeId), Resident>>>,
}

impl fmt::Debug for Accelerator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl Accelerator {
    /// A device by its name: `cuda:0`.
    pub fn new<T>(name: &str, backend: T) -> Self
    where
        T: Backend + Send + Sync + 'static,
        T::Buffer: Send + Sync + 'static,
    {
        Self { name: name.into(), backend: Arc::new(backend), residents: Arc::default() }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What its bits depend on besides the card: whether a library forms products too.
    pub fn arithmetic(&self) -> &'static str {
        match self.library().map(|l| l.forced) {
            None | Some(Some(Path::Kernels)) => "cuda",
            Some(None) => "cuda, cuBLAS",
            Some(Some(Path::Library)) => "cuda, cuBLAS alone",
        }
    }

    /// What `make` makes of `source`: at the first call, and kept until the last clone of `source` goes.
    pub(crate) fn resident<S, V>(&self, source: &Arc<S>, make: impl FnOnce() -> Result<V>) -> Result<Arc<V>>
    where
        S: ?Sized + Send + Sync + 'static,
        V: Send + Sync + 'static,
    {
        let key = (Arc::as_ptr(source).cast::<u8>().addr(), TypeId::of::<V>());
        let mut residents = self.residents.lock().unwrap_or_else(PoisonError::into_inner);
        // The weak reference below keeps the address from being given to another.
        let found = residents.get(&key).filter(|r| (r.is_wanted)());
        if let Some(Ok(value)) = found.map(|r| Arc::clone(&r.value).downcast::<V>()) {
            return Ok(value);
        }
        residents.retain(|_, r| (r.is_wanted)());
        let value = Arc::new(make()?);
        let weak = Arc::downgrade(source);
        let is_wanted = Box::new(move || weak.strong_count() > 0);
        residents.insert(key, Resident { is_wanted, value: Arc::<V>::clone(&value) });
        Ok(value)
    }

    /// A frozen weight in planes.
    pub fn weight(&self, matrix: &Arc<QuantMatrix>) -> Result<Arc<DeviceWeight<Memory>>> {
        self.resident(matrix, || DeviceWeight::upload(self, matrix))
    }

    /// Frozen f32 values.
    pub(crate) fn vector(&self, values: &Arc<[f32]>) -> Result<Arc<Memory>> {
        self.resident(values, || self.upload_floats(values))
    }

    /// A copy of f32 values.
    pub fn upload_floats(&self, values: &[f32]) -> Result<Memory> {
        self.upload(&values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<_>>())
    }

    /// f32 values once everything launched before has run.
    pub fn download_floats(&self, memory: &Memory) -> Result<Vec<f32>> {
        Ok(self.download(memory)?.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect())
    }

    /// Two handles of one device.
    pub fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.backend, &other.backend)
    }
}

impl Backend for Accelerator {
    type Buffer = Memory;

    fn alloc(&self, bytes: usize) -> Result<Memory> {
        Ok(Memory { buffer: self.backend.alloc_any(bytes)?, from: 0 })
    }

    fn upload(&self, bytes: &[u8]) -> Result<Memory> {
        Ok(Memory { buffer: self.backend.upload_any(bytes)?, from: 0 })
    }

    fn zeros(&self, bytes: usize) -> Result<Memory> {
        Ok(Memory { buffer: self.backend.zeros_any(bytes)?, from: 0 })
    }

    fn write(&self, memory: &Memory, bytes: &[u8]) -> Result<()> {
        self.backend.write_any(memory, bytes)
    }

    fn download(&self, memory: &Memory) -> Result<Vec<u8>> {
        let mut bytes = self.backend.download_any(&memory.buffer)?;
        bytes.drain(..memory.from.min(bytes.len()));
        Ok(bytes)
    }

    fn launch(&self, kernel: &str, grid: [usize; 3], args: &[Argument<Memory>]) -> Result<()> {
        self.backend.launch_any(kernel, grid, args)
    }

    fn free_bytes(&self) -> Option<u64> {
        self.backend.free_any()
    }

    fn library(&self) -> Option<Library> {
        self.backend.library_any()
    }

    fn gemm(&self, product: &Gemm<Memory>) -> Result<()> {
        self.backend.gemm_any(product)
    }

    fn with_scratch(&self, bytes: usize, work: &mut dyn FnMut(&Arc<Memory>) -> Result<()>) -> Result<()> {
        self.backend.with_scratch_any(bytes, &mut |buffer| {
            work(&Arc::new(Memory { buffer: Arc::clone(buffer), from: 0 }))
        })
    }
}
