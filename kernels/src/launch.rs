//! A launch: a kernel, its grid and its arguments.

/// Plain numbers that kernels read and write.
///
/// # Safety
/// Implementors have no padding, and every pattern of bits is a value.
pub unsafe trait Plain: Copy {}

// SAFETY: plain numbers.
unsafe impl Plain for u8 {}
// SAFETY: as above.
unsafe impl Plain for u16 {}
// SAFETY: as above.
unsafe impl Plain for u32 {}
// SAFETY: as above.
unsafe impl Plain for i32 {}
// SAFETY: as above.
unsafe impl Plain for u64 {}
// SAFETY: as above.
unsafe impl Plain for f32 {}
// SAFETY: as above.
unsafe impl Plain for f64 {}
// SAFETY: as above.
unsafe impl Plain for [i32; 4] {}
// SAFETY: as above.
unsafe impl Plain for [f32; 2] {}

fn bytes<T: Plain>(values: &[T]) -> &[u8] {
    // SAFETY: plain numbers are bytes.
    unsafe { std::slice::from_raw_parts(values.as_ptr().cast(), size_of_val(values)) }
}

fn bytes_mut<T: Plain>(values: &mut [T]) -> &mut [u8] {
    // SAFETY: plain numbers are bytes, of every pattern.
    unsafe { std::slice::from_raw_parts_mut(values.as_mut_ptr().cast(), size_of_val(values)) }
}

/// An argument of a kernel.
pub enum Arg<'a> {
    /// A pointer to what is only read.
    In(&'a [u8]),
    /// A pointer to what is written whole: poison before.
    Out(&'a mut [u8]),
    /// A pointer to what is read and written.
    InOut(&'a mut [u8]),
    /// A null pointer.
    Null,
    /// A number of four or eight bytes.
    Value(Vec<u8>),
}

/// A kernel and its arguments, in order.
pub struct Launch<'a> {
    pub(crate) kernel: String,
    pub(crate) grid: [u32; 3],
    pub(crate) args: Vec<Arg<'a>>,
}

impl<'a> Launch<'a> {
    /// Threads and shared memory are what the kernel's header says.
    pub fn new(kernel: impl Into<String>, grid: [usize; 3]) -> Self {
        Self { kernel: kernel.into(), grid: grid.map(|g| g as u32), args: vec![] }
    }

    fn with(mut self, arg: Arg<'a>) -> Self {
        self.args.push(arg);
        self
    }

    /// A buffer that is read. An empty one is a null pointer.
    #[must_use]
    pub fn input<T: Plain>(self, values: &'a [T]) -> Self {
        self.with(if values.is_empty() { Arg::Null } else { Arg::In(bytes(values)) })
    }

    /// A buffer that is written; what the kernel leaves out of it stays poison.
    #[must_use]
    pub fn output<T: Plain>(self, values: &'a mut [T]) -> Self {
        self.with(if values.is_empty() { Arg::Null } else { Arg::Out(bytes_mut(values)) })
    }

    /// A buffer that is read and written.
    #[must_use]
    pub fn inout<T: Plain>(self, values: &'a mut [T]) -> Self {
        self.with(if values.is_empty() { Arg::Null } else { Arg::InOut(bytes_mut(values)) })
    }

    /// An `int`.
    #[must_use]
    pub fn int(self, value: usize) -> Self {
        self.with(Arg::Value((value as i32).to_ne_bytes().to_vec()))
    }

    /// A `float`.
    #[must_use]
    pub fn float(self, value: f32) -> Self {
        self.with(Arg::Value(value.to_ne_bytes().to_vec()))
    }

    /// A `uint64_t`.
    #[must_use]
    pub fn long(self, value: u64) -> Self {
        self.with(Arg::Value(value.to_ne_bytes().to_vec()))
    }
}
