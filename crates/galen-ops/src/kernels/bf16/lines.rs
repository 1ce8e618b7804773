//! A buffer of packed pairs that begins on a cache line, so that no vector or tile row lies across two.

use std::ops::{Deref, DerefMut};

/// Pairs of a cache line.
const WIDTH: usize = 16;

#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([u32; WIDTH]);

/// A `[u32]` aligned to 64 bytes.
#[derive(Default)]
pub(crate) struct Lines {
    lines: Vec<Line>,
    len: usize,
}

impl Lines {
    /// `len` values that hold anything.
    ///
    /// # Safety
    /// Each is written before it is read.
    pub unsafe fn unwritten(len: usize) -> Self {
        #[expect(clippy::uninit_vec, reason = "the caller's promise")]
        let lines = {
            let mut lines = Vec::with_capacity(len.div_ceil(WIDTH));
            // SAFETY: there is room for as many; a line has no invalid pattern, and the caller writes before reading.
            unsafe { lines.set_len(len.div_ceil(WIDTH)) };
            lines
        };
        Self { lines, len }
    }

    /// Makes it that long; what was there once stays, the rest is zero.
    pub fn resize(&mut self, len: usize) {
        let lines = len.div_ceil(WIDTH);
        if self.lines.len() < lines {
            self.lines.resize(lines, Line([0; WIDTH]));
        }
        self.len = len;
    }
}

impl Deref for Lines {
    type Target = [u32];

    fn deref(&self) -> &[u32] {
        // SAFETY: lines lie end to end and hold at least `len` values, as `resize` made it so.
        unsafe { std::slice::from_raw_parts(self.lines.as_ptr().cast(), self.len) }
    }
}

impl DerefMut for Lines {
    fn deref_mut(&mut self) -> &mut [u32] {
        // SAFETY: as above, and borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.lines.as_mut_ptr().cast(), self.len) }
    }
}
