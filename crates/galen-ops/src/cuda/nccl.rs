//! NCCL: sums over the cards of this machine. Loaded at run time; where it is not installed, sums go by way of the host.
//!
//! Declared here, as few functions are wanted and cudarc looks for the library by other names than NVIDIA's packages give it.

use super::buffer::{DeviceBuffer, bind, wait};
use super::error::CudaError;
use super::gpu::Gpu;
use crate::device::{AllReduce, Memory};
use crate::error::{Error, Result};
use cudarc::driver::CudaStream;
use libloading::Library;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::mem::ManuallyDrop;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// As its packages name it; the second comes with the headers.
const NAMES: [&str; 2] = ["libnccl.so.2", "libnccl.so"];

// Of nccl.h, the same since version 2.0.
const SUCCESS: c_int = 0;
const FLOAT32: c_int = 7;
const SUM: c_int = 0;

#[derive(Clone, Copy)]
struct Communicator(*mut c_void);

// SAFETY: communicators may be used from any thread, by one at a time (NCCL, "Thread safety").
unsafe impl Send for Communicator {}

type AllReduceCall =
    unsafe extern "C" fn(*const c_void, *mut c_void, usize, c_int, c_int, *mut c_void, *mut c_void) -> c_int;

/// The library's functions.
struct Functions {
    init_all: unsafe extern "C" fn(*mut *mut c_void, c_int, *const c_int) -> c_int,
    destroy: unsafe extern "C" fn(*mut c_void) -> c_int,
    all_reduce: AllReduceCall,
    group_start: unsafe extern "C" fn() -> c_int,
    group_end: unsafe extern "C" fn() -> c_int,
    error_string: unsafe extern "C" fn(c_int) -> *const c_char,
    version: unsafe extern "C" fn(*mut c_int) -> c_int,
}

impl Functions {
    /// None where the library, or a function of it, is not there. Once loaded it stays: it has threads of its own.
    fn loaded() -> Option<&'static Self> {
        static FUNCTIONS: OnceLock<Option<Functions>> = OnceLock::new();
        FUNCTIONS.get_or_init(Self::load).as_ref()
    }

    fn load() -> Option<Self> {
        // SAFETY: loads a library, whose initialisation is its authors' to answer for.
        let library = NAMES.iter().find_map(|name| unsafe { Library::new(*name) }.ok())?;
        let library = ManuallyDrop::new(library);
        // SAFETY: of the types that nccl.h gives them, in a library that stays loaded.
        unsafe {
            Some(Self {
                init_all: *library.get(b"ncclCommInitAll\0").ok()?,
                destroy: *library.get(b"ncclCommDestroy\0").ok()?,
                all_reduce: *library.get(b"ncclAllReduce\0").ok()?,
                group_start: *library.get(b"ncclGroupStart\0").ok()?,
                group_end: *library.get(b"ncclGroupEnd\0").ok()?,
                error_string: *library.get(b"ncclGetErrorString\0").ok()?,
                version: *library.get(b"ncclGetVersion\0").ok()?,
            })
        }
    }

    fn check(&self, call: &'static str, status: c_int) -> std::result::Result<(), CudaError> {
        if status == SUCCESS {
            return Ok(());
        }
        // SAFETY: gives a text that ends in zero and stays, or nothing.
        let text = unsafe { (self.error_string)(status) };
        let code = if text.is_null() {
            status.to_string()
        } else {
            // SAFETY: as above.
            unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
        };
        Err(CudaError::Nccl { call, code })
    }
}

/// The version of the NCCL of this machine; none where it cannot be loaded.
pub fn nccl_version() -> Option<String> {
    let functions = Functions::loaded()?;
    let mut number = 0;
    // SAFETY: writes one number.
    let asked = unsafe { (functions.version)(&raw mut number) };
    functions.check("ncclGetVersion", asked).ok()?;
    // Since 2.9: 10000 major + 100 minor + patch.
    Some(format!("{}.{}.{}", number / 10_000, number / 100 % 100, number % 100))
}

/// What sums over these cards: NCCL where it is installed and works, as `GALEN_CUDA_SUMS` says; none: the host, with why where it is
/// not what one would expect. Errors: `GALEN_CUDA_SUMS` names what is not there.
pub fn sums(gpus: &[Gpu]) -> std::result::Result<(Option<Nccl>, Option<String>), CudaError> {
    let wanted = std::env::var("GALEN_CUDA_SUMS").unwrap_or_default();
    let wrong = |what: String| Err(CudaError::Sums { what });
    match wanted.as_str() {
        "host" => Ok((None, None)),
        // Where cards cannot reach each other and a container's shared memory is small, say.
        "" | "auto" => Ok(match Nccl::open(gpus) {
            Ok(opened) => (opened, None),
            Err(e) => (None, Some(format!("gradients are added up by way of the host: {e}"))),
        }),
        "nccl" => match Nccl::open(gpus)? {
            Some(nccl) => Ok((Some(nccl), None)),
            None => wrong("`nccl`, and libnccl.so.2 cannot be loaded".into()),
        },
        other => wrong(format!("`{other}` is neither")),
    }
}

/// Cards that form sums together.
pub struct Nccl {
    functions: &'static Functions,
    /// A card each.
    communicators: Mutex<Vec<Communicator>>,
    streams: Vec<Arc<CudaStream>>,
    /// What is summed is copied here first, a buffer each: NCCL reaches from card to card, and memory of a card's pool is that
    /// card's alone.
    staging: Mutex<Vec<DeviceBuffer>>,
}

/// Values of the sum that sets the connections up.
const FIRST: usize = 1024;

impl Nccl {
    /// Over these cards; none where the library is not installed.
    fn open(gpus: &[Gpu]) -> std::result::Result<Option<Self>, CudaError> {
        let Some(functions) = Functions::loaded() else { return Ok(None) };
        let numbers: Vec<c_int> = gpus.iter().map(|g| g.card().ordinal as c_int).collect();
        let mut made = vec![std::ptr::null_mut(); gpus.len()];
        // SAFETY: as many communicators as numbers.
        let status =
            unsafe { (functions.init_all)(made.as_mut_ptr(), numbers.len() as c_int, numbers.as_ptr()) };
        functions.check("ncclCommInitAll", status)?;
        let communicators = Mutex::new(made.into_iter().map(Communicator).collect());
        let streams: Vec<_> = gpus.iter().map(|g| Arc::clone(g.stream())).collect();
        let opened = Self { functions, communicators, streams, staging: Mutex::default() };
        // Connections are made at the first sum: now, while the cards are empty and what is wrong can still be told.
        opened.with_staging(FIRST, |staging| {
            staging.iter_mut().try_for_each(DeviceBuffer::clear)?;
            opened.all_reduce(staging, FIRST)
        })?;
        opened.wait()?;
        Ok(Some(opened))
    }

    /// Waits for all cards.
    fn wait(&self) -> std::result::Result<(), CudaError> {
        self.streams.iter().try_for_each(|stream| {
            bind(stream)?;
            wait(stream)
        })
    }

    /// `work` over a buffer of at least `n` values on each card.
    fn with_staging<E: From<CudaError>>(
        &self,
        n: usize,
        work: impl FnOnce(&mut Vec<DeviceBuffer>) -> std::result::Result<(), E>,
    ) -> std::result::Result<(), E> {
        let mut staging = self.staging.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes = n.checked_mul(4).ok_or_else(|| {
            E::from(CudaError::Launch { kernel: "ncclAllReduce".into(), what: format!("{n} values") })
        })?;
        if staging.first().is_none_or(|b| b.len() < bytes) {
            staging.clear();
            // All or none: with fewer than cards, those that have one would wait for the others.
            let made = self.streams.iter().map(|stream| DeviceBuffer::apart(stream, bytes));
            *staging = made.collect::<std::result::Result<_, _>>()?;
        }
        work(&mut staging)
    }

    /// Sums the first `n` values of a buffer on each card, in place, on the cards' queues.
    fn all_reduce(&self, buffers: &[DeviceBuffer], n: usize) -> std::result::Result<(), CudaError> {
        let communicators = self.communicators.lock().unwrap_or_else(PoisonError::into_inner);
        let f = self.functions;
        // One thread for several cards: the calls of a group start together, or each would wait for the others.
        // SAFETY: nothing to promise.
        f.check("ncclGroupStart", unsafe { (f.group_start)() })?;
        let mut failed = Ok(());
        for ((communicator, stream), buffer) in communicators.iter().zip(&self.streams).zip(buffers) {
            let (queue, place) = (stream.cu_stream().cast(), buffer.pointer() as *mut c_void);
            // SAFETY: `n` values lie there, on the communicator's card; summing in place is allowed.
            let status =
                unsafe { (f.all_reduce)(place.cast_const(), place, n, FLOAT32, SUM, communicator.0, queue) };
            failed = failed.and_then(|()| f.check("ncclAllReduce", status));
        }
        // SAFETY: as above. A group that was begun is ended whatever went wrong in it.
        let ended = f.check("ncclGroupEnd", unsafe { (f.group_end)() });
        failed.and(ended)
    }
}

impl AllReduce for Nccl {
    fn name(&self) -> &'static str {
        "NCCL"
    }

    fn sum(&self, buffers: &[&Memory], n: usize) -> Result<()> {
        if buffers.len() != self.streams.len() {
            return Err(Error::Device(format!("{} buffers for {} cards", buffers.len(), self.streams.len())));
        }
        let own = buffers.iter().map(|m| m.own::<DeviceBuffer>()).collect::<Result<Vec<_>>>()?;
        // What went wrong on a card comes up here: its part of the sum would never begin, and the others wait for it.
        self.wait()?;
        self.with_staging(n, |staging| {
            let pairs = || staging.iter().zip(&own);
            // SAFETY: a group's buffers are its cards', in their order.
            pairs().try_for_each(|(staged, own)| unsafe { staged.exchange(*own, 4 * n, false) })?;
            self.all_reduce(staging, n)?;
            // SAFETY: as above.
            pairs().try_for_each(|(staged, own)| unsafe { staged.exchange(*own, 4 * n, true) })?;
            Ok(())
        })
    }
}

impl Drop for Nccl {
    fn drop(&mut self) {
        let communicators = self.communicators.get_mut().unwrap_or_else(PoisonError::into_inner);
        for (communicator, stream) in communicators.iter().zip(&self.streams) {
            if bind(stream).is_ok() && stream.synchronize().is_ok() {
                // SAFETY: made by `open`, not destroyed before, and idle. At the end there is nobody to tell of an error.
                let _ = unsafe { (self.functions.destroy)(communicator.0) };
            }
        }
    }
}
