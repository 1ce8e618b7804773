//! A card that is open: its kernels, and launching them.

use super::blas::Blas;
use super::buffer::{DeviceBuffer, bind, give_back, pool, wait};
use super::error::CudaError;
use super::{LaunchLine, compiled};
use crate::device::{Path, Scratch, pays};
use cudarc::driver::{CudaContext, CudaEvent, CudaStream, result, sys};
use std::collections::HashMap;
use std::ffi::{CString, c_void};
use std::fmt;
use std::sync::{Arc, Mutex};

/// A card, as the driver describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Card {
    /// Its number.
    pub ordinal: usize,
    /// Its name.
    pub name: String,
    /// Compute capability.
    pub capability: (i32, i32),
    /// Bytes of memory.
    pub memory_bytes: usize,
    /// Multiprocessors.
    pub multiprocessors: i32,
}

impl Card {
    /// Whether the kernels run on it.
    pub fn has_kernels(&self) -> bool {
        self.capability >= OLDEST
    }
}

impl fmt::Display for Card {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { ordinal, name, capability: (major, minor), memory_bytes, multiprocessors } = self;
        let gib = *memory_bytes as f64 / f64::from(1 << 30);
        write!(
            f,
            "{ordinal}: {name}, {gib:.0} GiB, {multiprocessors} multiprocessors, capability {major}.{minor}"
        )
    }
}

/// The oldest compute capability the kernels run on: mma.m16n8k16 in bf16, and cp.async.
const OLDEST: (i32, i32) = (8, 0);
/// CUDA 13.0, as the driver says its version.
const VERSION: i32 = 13_000;

/// Looks for a driver that fits. Errors: none, or an old one.
fn driver() -> Result<(), CudaError> {
    // SAFETY: loads a library, whose initialisation is its authors' to answer for.
    if !unsafe { sys::is_culib_present() } {
        return Err(CudaError::NoDriver);
    }
    result::init().map_err(|e| CudaError::of("cuInit", e))?;
    let mut version = 0;
    // SAFETY: writes one number.
    let asked = unsafe { sys::cuDriverGetVersion(&raw mut version) }.result();
    asked.map_err(|e| CudaError::of("cuDriverGetVersion", e))?;
    if version < VERSION { Err(CudaError::OldDriver { version }) } else { Ok(()) }
}

/// The cards of this machine. Errors: no driver, or one too old.
pub fn cards() -> Result<Vec<Card>, CudaError> {
    driver()?;
    let count = result::device::get_count().map_err(|e| CudaError::of("cuDeviceGetCount", e))?;
    (0..count as usize).map(card).collect()
}

fn card(ordinal: usize) -> Result<Card, CudaError> {
    let device = result::device::get(ordinal as i32).map_err(|e| CudaError::of("cuDeviceGet", e))?;
    let attribute = |which| {
        // SAFETY: a device that was just given.
        unsafe { result::device::get_attribute(device, which) }
            .map_err(|e| CudaError::of("cuDeviceGetAttribute", e))
    };
    use sys::CUdevice_attribute_enum as A;
    let capability = (
        attribute(A::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?,
        attribute(A::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
    );
    let multiprocessors = attribute(A::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?;
    // SAFETY: as above.
    let memory_bytes =
        unsafe { result::device::total_mem(device) }.map_err(|e| CudaError::of("cuDeviceTotalMem", e))?;
    let name = result::device::get_name(device).map_err(|e| CudaError::of("cuDeviceGetName", e))?;
    Ok(Card { ordinal, name, capability, memory_bytes, multiprocessors })
}

/// Memory freed in the queue's order stays in the driver's pool for what is allocated next: by default it goes back at every
/// wait, and each step would fetch all of it again.
fn keep_freed(context: &CudaContext) -> Result<(), CudaError> {
    if !context.has_async_alloc() {
        return Ok(());
    }
    let pool = pool(context)?;
    let mut bytes = u64::MAX;
    let attribute = sys::CUmemPool_attribute_enum::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD;
    // SAFETY: the attribute is a `cuuint64_t`.
    unsafe { sys::cuMemPoolSetAttribute(pool, attribute, (&raw mut bytes).cast()) }
        .result()
        .map_err(|e| CudaError::of("cuMemPoolSetAttribute", e))
}

/// The path that `GALEN_CUDA_PRODUCTS` names.
fn forced(value: Option<&str>) -> Result<Option<Path>, CudaError> {
    match value.unwrap_or_default() {
        "" | "auto" => Ok(None),
        "kernels" => Ok(Some(Path::Kernels)),
        "library" => Ok(Some(Path::Library)),
        other => Err(CudaError::Products { what: format!("`{other}` is no path") }),
    }
}

/// An argument of a kernel.
#[derive(Clone, Copy)]
pub enum KernelArg<'a> {
    /// A buffer, from some byte on.
    Buffer(&'a DeviceBuffer, usize),
    /// No buffer.
    Null,
    /// `int`.
    Int(i32),
    /// `float`.
    Float(f32),
    /// `int64_t` or `uint64_t`.
    Long(u64),
}

#[derive(Clone, Copy)]
struct Function {
    handle: sys::CUfunction,
    line: &'static LaunchLine,
}

// SAFETY: handles may be used from any thread (CUDA driver API, "Context management").
unsafe impl Send for Function {}

/// An open card with the kernels loaded.
pub struct Gpu {
    card: Card,
    context: Arc<CudaContext>,
    stream: Arc<CudaStream>,
    modules: Vec<sys::CUmodule>,
    functions: Mutex<HashMap<String, Function>>,
    pub(super) scratch: Scratch<DeviceBuffer>,
    pub(super) blas: Option<Blas>,
    /// What `GALEN_CUDA_PRODUCTS` says.
    pub(super) forced: Option<Path>,
    note: Option<String>,
}

// SAFETY: as above.
unsafe impl Send for Gpu {}
// SAFETY: as above; the table of functions is behind a lock.
unsafe impl Sync for Gpu {}

impl Gpu {
    /// Opens a card and loads every kernel; cuBLAS where it is faster there. Errors: no driver, no such card, an old one, code that
    /// does not fit it.
    pub fn open(ordinal: usize) -> Result<Self, CudaError> {
        Self::opened(ordinal, false)
    }

    /// The same with cuBLAS wherever it can be had, to time both.
    pub fn with_library(ordinal: usize) -> Result<Self, CudaError> {
        Self::opened(ordinal, true)
    }

    fn opened(ordinal: usize, library: bool) -> Result<Self, CudaError> {
        let cards = cards()?;
        let Some(card) = cards.get(ordinal).cloned() else {
            return Err(CudaError::NoCard { ordinal, count: cards.len() });
        };
        if !card.has_kernels() {
            let (name, (major, minor)) = (card.name, card.capability);
            return Err(CudaError::OldCard { name, major, minor });
        }
        let context = CudaContext::new(ordinal).map_err(|e| CudaError::of("cuDevicePrimaryCtxRetain", e))?;
        keep_freed(&context)?;
        let stream = context.new_stream().map_err(|e| CudaError::of("cuStreamCreate", e))?;
        let forced = forced(std::env::var("GALEN_CUDA_PRODUCTS").ok().as_deref())?;
        let mut note = None;
        let blas = match forced {
            Some(Path::Kernels) => None,
            Some(Path::Library) => {
                let what = "`library`, and libcublas cannot be loaded".to_owned();
                Some(Blas::open(&stream)?.ok_or(CudaError::Products { what })?)
            }
            None if !library && !pays(card.capability) => None,
            // galen's kernels do without it.
            None => Blas::open(&stream).unwrap_or_else(|e| {
                note = Some(format!("galen's kernels form every product: {e}"));
                None
            }),
        };
        let mut gpu = Self {
            card,
            context,
            stream,
            modules: vec![],
            functions: Mutex::default(),
            scratch: Scratch::default(),
            blas,
            forced,
            note,
        };
        for image in compiled::FATBINS {
            // SAFETY: a whole fat binary of nvcc's.
            let module = unsafe { result::module::load_data(image.as_ptr().cast()) };
            gpu.modules.push(module.map_err(|e| CudaError::of("cuModuleLoadData", e))?);
        }
        Ok(gpu)
    }

    /// What it is.
    pub fn card(&self) -> &Card {
        &self.card
    }

    /// What is otherwise than one would expect, in words.
    pub fn note(&self) -> Option<&str> {
        self.note.as_deref()
    }

    /// Its queue.
    pub(super) fn stream(&self) -> &Arc<CudaStream> {
        &self.stream
    }

    /// Bytes free, and in all.
    pub fn memory(&self) -> Result<(usize, usize), CudaError> {
        self.context.mem_get_info().map_err(|e| CudaError::of("cuMemGetInfo", e))
    }

    /// Gives the driver's pool back what nobody holds, so that [`Self::memory`] tells of others alone. Waits.
    pub fn trim(&self) -> Result<(), CudaError> {
        give_back(&self.stream)
    }

    /// Memory whose contents are whatever was there.
    pub fn alloc(&self, bytes: usize) -> Result<DeviceBuffer, CudaError> {
        DeviceBuffer::new(&self.stream, bytes)
    }

    /// A copy of `bytes` on the card.
    pub fn upload(&self, bytes: &[u8]) -> Result<DeviceBuffer, CudaError> {
        let buffer = self.alloc(bytes.len())?;
        buffer.write(bytes)?;
        Ok(buffer)
    }

    fn function(&self, kernel: &str) -> Result<Function, CudaError> {
        let mut functions = self.functions.lock().map_err(|_| CudaError::NoKernel(kernel.to_owned()))?;
        if let Some(function) = functions.get(kernel) {
            return Ok(*function);
        }
        let line = LaunchLine::of(kernel).ok_or_else(|| CudaError::NoKernel(kernel.to_owned()))?;
        let name = CString::new(kernel).map_err(|_| CudaError::NoKernel(kernel.to_owned()))?;
        for module in &self.modules {
            // SAFETY: modules stay loaded as long as `self`.
            match unsafe { result::module::get_function(*module, name.clone()) } {
                Ok(handle) => {
                    let attribute =
                        sys::CUfunction_attribute_enum::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
                    // SAFETY: a function that was just given.
                    unsafe {
                        result::function::set_function_attribute(handle, attribute, line.shared as i32)
                    }
                    .map_err(|e| CudaError::of("cuFuncSetAttribute", e))?;
                    let function = Function { handle, line };
                    functions.insert(kernel.to_owned(), function);
                    return Ok(function);
                }
                Err(e) if e.0 == sys::CUresult::CUDA_ERROR_NOT_FOUND => {}
                Err(e) => return Err(CudaError::of("cuModuleGetFunction", e)),
            }
        }
        Err(CudaError::NoKernel(kernel.to_owned()))
    }

    /// Puts a kernel on the card's queue: `grid` blocks of as many threads as its header says. Returns before it has run;
    /// what goes wrong while it runs comes up at [`Self::wait`] or at a later call.
    ///
    /// # Safety
    /// The arguments are those of the kernel, in order, and its buffers are as large as its header says.
    pub unsafe fn launch(&self, kernel: &str, grid: [u32; 3], args: &[KernelArg]) -> Result<(), CudaError> {
        // Before anything is looked up: another card may have been this thread's last.
        bind(&self.stream)?;
        let Function { handle, line } = self.function(kernel)?;
        if grid.contains(&0) || grid[1] > 65_535 || grid[2] > 65_535 {
            return Err(CudaError::Launch {
                kernel: kernel.to_owned(),
                what: format!("a grid of {grid:?} blocks"),
            });
        }
        // Each value in eight bytes of its own; the driver reads as many as the kernel's parameter has.
        let mut values: Vec<u64> = Vec::with_capacity(args.len());
        for arg in args {
            values.push(match *arg {
                KernelArg::Buffer(buffer, from) if from <= buffer.len() => buffer.pointer() + from as u64,
                KernelArg::Buffer(buffer, from) => {
                    let what = format!("byte {from} of a buffer of {}", buffer.len());
                    return Err(CudaError::Launch { kernel: kernel.to_owned(), what });
                }
                KernelArg::Null => 0,
                KernelArg::Int(v) => u64::from(v.cast_unsigned()),
                KernelArg::Float(v) => u64::from(v.to_bits()),
                KernelArg::Long(v) => v,
            });
        }
        let mut pointers: Vec<*mut c_void> =
            values.iter_mut().map(|v| std::ptr::from_mut(v).cast()).collect();
        let (threads, stream) = ((line.threads, 1, 1), self.stream.cu_stream());
        // SAFETY: the caller's promise; values live until the call has read them.
        unsafe { result::launch_kernel(handle, grid.into(), threads, line.shared, stream, &mut pointers) }
            .map_err(|e| CudaError::of("cuLaunchKernel", e))
    }

    /// Waits for everything launched. Errors: what went wrong in it.
    pub fn wait(&self) -> Result<(), CudaError> {
        wait(&self.stream)
    }

    /// Begins to time what is launched from here on.
    pub fn time(&self) -> Result<Timer<'_>, CudaError> {
        Ok(Timer { gpu: self, start: self.mark()? })
    }

    fn mark(&self) -> Result<CudaEvent, CudaError> {
        let flags = Some(sys::CUevent_flags::CU_EVENT_DEFAULT);
        self.stream.record_event(flags).map_err(|e| CudaError::of("cuEventRecord", e))
    }
}

impl Drop for Gpu {
    fn drop(&mut self) {
        if bind(&self.stream).is_ok() && self.wait().is_ok() {
            for module in &self.modules {
                // SAFETY: loaded by `open`, and nothing runs any more. At the end there is nobody to tell of an error.
                let _ = unsafe { result::module::unload(*module) };
            }
        }
    }
}

/// Time on the card.
pub struct Timer<'a> {
    gpu: &'a Gpu,
    start: CudaEvent,
}

impl Timer<'_> {
    /// Milliseconds that what was launched since took; waits for it.
    pub fn stop(self) -> Result<f32, CudaError> {
        let end = self.gpu.mark()?;
        self.start.elapsed_ms(&end).map_err(|e| CudaError::of("cuEventElapsedTime", e))
    }
}
