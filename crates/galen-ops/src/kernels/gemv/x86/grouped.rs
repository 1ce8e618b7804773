//! The formats of interleaved rows, and what the exact and the integer products over them share.

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
    /// The factor of a block's sums with codes, and that of its sum of x.
    unsafe fn scales(block: *const u8) -> (Self::W, Option<Self::W>);
    /// Code p of each lane of a register, times a power of two that x or the factor makes up for.
    unsafe fn code<const P: usize>(register: <Self::W as Wide>::Codes) -> Self::W;
}

pub(super) struct Q4_0<W>(PhantomData<W>);
pub(super) struct Q4_1<W>(PhantomData<W>);
pub(super) struct Q8_0<W>(PhantomData<W>);

// SAFETY, of every block below: the trait's.
impl<W: Wide> Grouped for Q4_0<W> {
    type W = W;
    const HEAD: usize = 2 * W::ROWS;
    const REGISTERS: usize = 4;
    #[inline(always)]
    unsafe fn scales(block: *const u8) -> (W, Option<W>) {
        unsafe {
            let d = W::halves(block);
            (d, Some(W::mul(d, W::splat(-8.0))))
        }
    }
    #[inline(always)]
    unsafe fn code<const P: usize>(register: W::Codes) -> W {
        unsafe { W::nibble::<P>(register) }
    }
}

impl<W: Wide> Grouped for Q4_1<W> {
    type W = W;
    const HEAD: usize = 4 * W::ROWS;
    const REGISTERS: usize = 4;
    #[inline(always)]
    unsafe fn scales(block: *const u8) -> (W, Option<W>) {
        unsafe { (W::halves(block), Some(W::halves(block.add(2 * W::ROWS)))) }
    }
    #[inline(always)]
    unsafe fn code<const P: usize>(register: W::Codes) -> W {
        unsafe { W::nibble::<P>(register) }
    }
}

impl<W: Wide> Grouped for Q8_0<W> {
    type W = W;
    const HEAD: usize = 2 * W::ROWS;
    const REGISTERS: usize = 8;
    /// Codes lie in the top byte of their lane: 2^24 times their value, and exact.
    #[inline(always)]
    unsafe fn scales(block: *const u8) -> (W, Option<W>) {
        unsafe { (W::mul(W::halves(block), W::splat(1.0 / 16_777_216.0)), None) }
    }
    #[inline(always)]
    unsafe fn code<const P: usize>(register: W::Codes) -> W {
        unsafe { W::byte::<P>(register) }
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
