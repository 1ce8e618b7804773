//! The place on the CPU: the linked kernels, or copies compiled apart (tests of the tests).

use crate::device::{Device, POISON, Place, Stats};
use crate::launch::Arg;
use crate::manifest::LaunchLine;
use galen_ops::device::Gemm;
use std::alloc::{Layout, alloc, dealloc};
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::path::Path;
use std::ptr::{null_mut, with_exposed_provenance_mut};

type LaunchFn = unsafe extern "C" fn(
    *const c_char,
    *const u32,
    *const u32,
    usize,
    u64,
    *const *mut c_void,
    usize,
    *mut c_char,
    usize,
) -> c_int;
type StatsFn = unsafe extern "C" fn(*mut u64);
type NameFn = unsafe extern "C" fn(usize) -> *const c_char;

unsafe extern "C" {
    fn galen_units();
    fn galen_host_launch(
        name: *const c_char,
        grid: *const u32,
        threads: *const u32,
        shared: usize,
        seed: u64,
        args: *const *mut c_void,
        n_args: usize,
        error: *mut c_char,
        error_bytes: usize,
    ) -> c_int;
    fn galen_host_stats(out: *mut u64);
    fn galen_host_kernel(i: usize) -> *const c_char;
    fn dlopen(path: *const c_char, flags: c_int) -> *mut c_void;
    fn dlsym(library: *mut c_void, name: *const c_char) -> *mut c_void;
    fn dlerror() -> *const c_char;
}

/// The runtime of one library.
struct Host {
    launch: LaunchFn,
    stats: StatsFn,
    name: NameFn,
    /// Kernels of an opened library; others come from the linked ones.
    own: Vec<String>,
}

impl Device {
    /// The kernels of this folder. Every launch runs under two orders of threads and blocks, whose results must be equal
    /// to the bit.
    pub fn new() -> Result<Self, String> {
        // SAFETY: does nothing but be linked.
        unsafe { galen_units() };
        let (launch, stats, name) =
            (galen_host_launch as LaunchFn, galen_host_stats as StatsFn, galen_host_kernel as NameFn);
        Self::on(Box::new(Host { launch, stats, name, own: vec![] }))
    }

    /// Kernels of a shared library of the same runtime; those it lacks are the linked ones.
    pub fn open(library: &Path) -> Result<Self, String> {
        const NOW_AND_LOCAL: c_int = 2;
        let path = CString::new(library.as_os_str().as_encoded_bytes()).map_err(|e| e.to_string())?;
        // SAFETY: the library is one this crate's tests have just compiled; it stays open.
        let handle = unsafe { dlopen(path.as_ptr(), NOW_AND_LOCAL) };
        if handle.is_null() {
            // SAFETY: dlopen failed, so there is a message.
            return Err(unsafe { CStr::from_ptr(dlerror()) }.to_string_lossy().into_owned());
        }
        let find = |name: &CStr| {
            // SAFETY: an open library and a name.
            let found = unsafe { dlsym(handle, name.as_ptr()) };
            if found.is_null() { Err(format!("{}: no {name:?}", library.display())) } else { Ok(found) }
        };
        let (launch, stats, name) =
            (find(c"galen_host_launch")?, find(c"galen_host_stats")?, find(c"galen_host_kernel")?);
        // SAFETY: the runtime's functions, by the signatures of runtime.cpp.
        let (launch, stats, name) = unsafe {
            (
                std::mem::transmute::<*mut c_void, LaunchFn>(launch),
                std::mem::transmute::<*mut c_void, StatsFn>(stats),
                std::mem::transmute::<*mut c_void, NameFn>(name),
            )
        };
        let mut host = Host { launch, stats, name, own: vec![] };
        host.own = host.kernels();
        // SAFETY: does nothing but be linked.
        unsafe { galen_units() };
        Self::on(Box::new(host))
    }
}

/// Bytes beside every buffer that must stay.
const GUARD: usize = 1 << 14;
impl Place for Host {
    fn launch(
        &self,
        kernel: &str,
        grid: [u32; 3],
        line: &LaunchLine,
        args: &[Arg],
        before: &[Option<Vec<u8>>],
        seed: u64,
    ) -> Result<Vec<Option<Vec<u8>>>, String> {
        let buffers: Vec<Option<Guarded>> = args
            .iter()
            .zip(before)
            .map(|(arg, before)| match (arg, before) {
                (Arg::In(bytes), _) => Some(Guarded::new(bytes)),
                (_, Some(before)) => Some(Guarded::new(before)),
                _ => None,
            })
            .collect();
        let mut values: Vec<*mut c_void> =
            buffers.iter().map(|b| b.as_ref().map_or(null_mut(), |b| b.at().cast())).collect();
        let pointers: Vec<*mut c_void> = args
            .iter()
            .zip(&mut values)
            .map(|(arg, value)| match arg {
                Arg::Value(bytes) => bytes.as_ptr().cast_mut().cast(),
                _ => std::ptr::from_mut(value).cast(),
            })
            .collect();
        let name = CString::new(kernel).map_err(|e| e.to_string())?;
        let mut error = [0u8; 1024];
        let linked = !self.own.is_empty() && !self.own.iter().any(|k| k == kernel);
        let launch = if linked { galen_host_launch } else { self.launch };
        // SAFETY: one pointer for each argument, to a pointer or a number; the buffers live until after the call.
        let code = unsafe {
            launch(
                name.as_ptr(),
                grid.as_ptr(),
                [line.threads, 1, 1].as_ptr(),
                line.shared,
                seed,
                pointers.as_ptr(),
                pointers.len(),
                error.as_mut_ptr().cast(),
                error.len(),
            )
        };
        if code != 0 {
            let end = error.iter().position(|b| *b == 0).unwrap_or(error.len());
            return Err(String::from_utf8_lossy(&error[..end]).into_owned());
        }
        let mut results = Vec::with_capacity(args.len());
        for (i, (arg, buffer)) in args.iter().zip(&buffers).enumerate() {
            let Some(buffer) = buffer else {
                results.push(None);
                continue;
            };
            if !buffer.guards_stand() {
                return Err(format!("{kernel}: wrote beside argument {i}"));
            }
            match arg {
                Arg::In(bytes) if buffer.bytes() != *bytes => {
                    return Err(format!("{kernel}: wrote to argument {i}, which it should read"));
                }
                Arg::In(_) => results.push(None),
                _ => results.push(Some(buffer.bytes().to_vec())),
            }
        }
        Ok(results)
    }

    fn gemm(&self, product: &Gemm<Vec<u8>>) -> Result<Vec<u8>, String> {
        crate::products::plain(product)
    }

    fn has_library(&self) -> bool {
        true
    }

    fn stats(&self) -> Option<Stats> {
        let mut counted = [0u64; 5];
        // SAFETY: writes five numbers.
        unsafe { (self.stats)(counted.as_mut_ptr()) };
        let [collectives, barriers, copies, bank_conflicts, mmas] = counted;
        Some(Stats { collectives, barriers, copies, bank_conflicts, mmas })
    }

    fn kernels(&self) -> Vec<String> {
        let mut names = Vec::new();
        loop {
            // SAFETY: a null pointer ends the list; names are literals of the library.
            let name = unsafe { (self.name)(names.len()) };
            if name.is_null() {
                return names;
            }
            // SAFETY: as above.
            names.push(unsafe { CStr::from_ptr(name) }.to_string_lossy().into_owned());
        }
    }
}

/// A buffer aligned as device memory is, with guards on either side.
struct Guarded {
    base: *mut u8,
    len: usize,
}

impl Guarded {
    const BEFORE: usize = GUARD;

    fn layout(len: usize) -> Layout {
        Layout::from_size_align(Self::BEFORE + len + GUARD, 256).expect("a buffer of a test")
    }

    fn new(bytes: &[u8]) -> Self {
        // SAFETY: the layout is not empty; all of it is written before it is read.
        let base = unsafe {
            let base = alloc(Self::layout(bytes.len()));
            assert!(!base.is_null(), "no memory for a buffer of a test");
            base.write_bytes(POISON, Self::BEFORE + bytes.len() + GUARD);
            base.add(Self::BEFORE).copy_from_nonoverlapping(bytes.as_ptr(), bytes.len());
            base
        };
        Self { base, len: bytes.len() }
    }

    /// Where the bytes begin; the kernel writes through it.
    fn at(&self) -> *mut u8 {
        // SAFETY: within the allocation.
        let at = unsafe { self.base.add(Self::BEFORE) };
        with_exposed_provenance_mut(at.expose_provenance())
    }

    fn all(&self) -> &[u8] {
        // SAFETY: all of it is initialised; no kernel runs while this is borrowed.
        unsafe { std::slice::from_raw_parts(self.base, Self::BEFORE + self.len + GUARD) }
    }

    fn bytes(&self) -> &[u8] {
        &self.all()[Self::BEFORE..Self::BEFORE + self.len]
    }

    fn guards_stand(&self) -> bool {
        let all = self.all();
        all[..Self::BEFORE].iter().chain(&all[Self::BEFORE + self.len..]).all(|b| *b == POISON)
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout.
        unsafe { dealloc(self.base, Self::layout(self.len)) };
    }
}
