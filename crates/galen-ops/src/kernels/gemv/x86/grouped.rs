//! The formats of interleaved rows, and what the products over them share.

use super::wide::Wide;
use crate::kernels::gemv::Out;
use crate::quant::GROUP_ROWS;
use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
use std::marker::PhantomData;

/// A format of interleaved blocks, a row to a lane of `W`.
///
/// # Safety
/// Of every function: a readable block, and a processor with the features of `W`.
pub(super) trait Grouped {
    type W: Wide;
    /// Bytes of scales in front of a group's block.
    const HEAD: usize;
    /// Registers of codes.
    const REGISTERS: usize;
    /// Bytes of a group's block.
    const BYTES: usize = Self::HEAD + Self::REGISTERS * 4 * Self::W::ROWS;
    /// What [`Self::codes`] are too large by.
    const OFFSET: i32;
    /// The scale of a block, and its minimum.
    unsafe fn scales(block: *const u8) -> (Self::W, Option<Self::W>);
    /// Unsigned codes, elements `4 t .. 4 t + 4` of each lane in register t.
    unsafe fn codes(block: *const u8) -> [<Self::W as Wide>::Codes; 8];
}

pub(super) struct Q4_0<W>(PhantomData<W>);
pub(super) struct Q4_1<W>(PhantomData<W>);
pub(super) struct Q8_0<W>(PhantomData<W>);

/// A plain loop: through `map`, the codes would live in memory.
#[inline(always)]
unsafe fn nibbles<W: Wide>(from: *const u8) -> [W::Codes; 8] {
    // SAFETY: the caller's promise.
    unsafe {
        let mut codes = [W::codes(from); 8];
        for t in 0..4 {
            let [low, high] = W::split(W::codes(from.add(t * 4 * W::ROWS)));
            codes[2 * t] = low;
            codes[2 * t + 1] = high;
        }
        codes
    }
}

// SAFETY, of every block below: the trait's.
impl<W: Wide> Grouped for Q4_0<W> {
    type W = W;
    const HEAD: usize = 2 * W::ROWS;
    const REGISTERS: usize = 4;
    const OFFSET: i32 = 8;
    #[inline(always)]
    unsafe fn scales(block: *const u8) -> (W, Option<W>) {
        unsafe { (W::halves(block), None) }
    }
    #[inline(always)]
    unsafe fn codes(block: *const u8) -> [W::Codes; 8] {
        unsafe { nibbles::<W>(block.add(Self::HEAD)) }
    }
}

impl<W: Wide> Grouped for Q4_1<W> {
    type W = W;
    const HEAD: usize = 4 * W::ROWS;
    const REGISTERS: usize = 4;
    const OFFSET: i32 = 0;
    #[inline(always)]
    unsafe fn scales(block: *const u8) -> (W, Option<W>) {
        unsafe { (W::halves(block), Some(W::halves(block.add(2 * W::ROWS)))) }
    }
    #[inline(always)]
    unsafe fn codes(block: *const u8) -> [W::Codes; 8] {
        unsafe { nibbles::<W>(block.add(Self::HEAD)) }
    }
}

impl<W: Wide> Grouped for Q8_0<W> {
    type W = W;
    const HEAD: usize = 2 * W::ROWS;
    const REGISTERS: usize = 8;
    const OFFSET: i32 = 128;
    #[inline(always)]
    unsafe fn scales(block: *const u8) -> (W, Option<W>) {
        unsafe { (W::halves(block), None) }
    }
    #[inline(always)]
    unsafe fn codes(block: *const u8) -> [W::Codes; 8] {
        unsafe {
            let mut codes = [W::codes(block.add(Self::HEAD)); 8];
            for (t, codes) in codes.iter_mut().enumerate() {
                *codes = W::lift(W::codes(block.add(Self::HEAD + t * 4 * W::ROWS)));
            }
            codes
        }
    }
}

/// Begins to read the block that comes `blocks` later: the processor itself does not look beyond a page.
#[inline(always)]
pub(super) fn ahead<F: Grouped>(block: *const u8, blocks: usize) {
    for line in (0..F::BYTES).step_by(64) {
        // SAFETY: a prefetch may go anywhere.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(block.wrapping_add(blocks * F::BYTES + line).cast()) };
    }
}

/// Writes what is there of a register's columns from `j`.
///
/// # Safety
/// As [`Out::put`], for columns below `end` of row i.
#[inline(always)]
pub(super) unsafe fn put<W: Wide>(out: Out, i: usize, j: usize, end: usize, y: W) {
    let mut lanes = [0f32; GROUP_ROWS];
    // SAFETY: the caller's promise; no register has more lanes.
    unsafe {
        y.store(lanes.as_mut_ptr());
        for (lane, y) in lanes[..W::ROWS].iter().enumerate().take(end - j) {
            out.put(i, j + lane, *y);
        }
    }
}
