//! The register tile in eight tile registers: `C[32, 32] = sum over segments of A[32, k] B[k, 32]`, four products of
//! sixteen rows, sixteen columns and thirty-two elements of k an instruction each.
//!
//! The compiler's own intrinsics are not stable, so the instructions are written out. Within one instruction even and
//! odd elements are two chains whose ends are added to C (Intel, Architecture Instruction Set Extensions, TDPBF16PS):
//! each element of C is one fixed series of operations, whatever the tile's valid rows and columns.

use super::tile::{NR, Segment, Target};
use std::mem::MaybeUninit;

/// Rows of the tile.
pub(super) const ROWS: usize = 32;
/// Pairs of k that one instruction takes: operands end on a multiple, padded with zeros.
pub(super) const PAIRS: usize = 16;

/// Whether processor and operating system have the instructions; asks the latter to let this process use them.
#[cfg(target_os = "linux")]
pub(crate) fn usable() -> bool {
    use std::arch::asm;
    use std::arch::x86_64::__cpuid_count;
    const AMX_BF16: u32 = 1 << 22;
    const AMX_TILE: u32 = 1 << 24;
    const ARCH_PRCTL: usize = 158;
    const REQUEST_PERMISSION: usize = 0x1023;
    const TILE_DATA: usize = 18;
    if __cpuid_count(0, 0).eax < 7 {
        return false;
    }
    let features = __cpuid_count(7, 0).edx;
    if features & AMX_BF16 == 0 || features & AMX_TILE == 0 {
        return false;
    }
    let mut result = ARCH_PRCTL;
    // SAFETY: arch_prctl(ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) reads and writes no memory of ours; the kernel
    // answers 0 only where it keeps the tiles of every thread.
    unsafe {
        asm!(
            "syscall",
            inout("rax") result,
            in("rdi") REQUEST_PERMISSION,
            in("rsi") TILE_DATA,
            out("rcx") _,
            out("r11") _,
            options(nostack),
        );
    }
    result == 0
}

/// Elsewhere nobody asks.
#[cfg(not(target_os = "linux"))]
pub(crate) fn usable() -> bool {
    false
}

/// The tiles' shapes, as LDTILECFG reads them: eight of sixteen rows of 64 bytes.
#[repr(C, align(64))]
struct Shapes {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    bytes: [u16; 16],
    rows: [u8; 16],
}

static SHAPES: Shapes = {
    let (mut bytes, mut rows) = ([0; 16], [0; 16]);
    let mut i = 0;
    while i < 8 {
        (bytes[i], rows[i]) = (64, 16);
        i += 1;
    }
    Shapes { palette: 1, start_row: 0, reserved: [0; 14], bytes, rows }
};

/// The tile registers, shaped, for as long as it lives: a thread that leaves them in use is switched more slowly.
pub(super) struct Tiles(());

impl Tiles {
    /// # Safety
    /// [`usable`] said yes.
    pub unsafe fn take() -> Self {
        // SAFETY: reads the 64 bytes of SHAPES; no compiled code uses the tile registers.
        unsafe { std::arch::asm!("ldtilecfg [{}]", in(reg) &raw const SHAPES, options(nostack, readonly)) };
        Self(())
    }
}

impl Drop for Tiles {
    fn drop(&mut self) {
        // SAFETY: the tiles are this thread's.
        unsafe { std::arch::asm!("tilerelease", options(nostack, nomem)) };
    }
}

/// A tile of C where it cannot be read or written in place.
#[repr(C, align(64))]
struct Corner(MaybeUninit<[f32; ROWS * NR]>);

/// One tile.
///
/// # Safety
/// As [`super::tile::tile`], with operands padded to [`PAIRS`]; [`Tiles`] are taken on this thread.
pub(super) unsafe fn tile(_tiles: &Tiles, segments: &[Segment], target: Target) {
    // SAFETY: the caller's promise.
    unsafe {
        if target.rows == ROWS && target.cols == NR {
            return products::<true>(segments, target.c, target.stride * 4, target.add);
        }
        let mut corner = Corner(MaybeUninit::uninit());
        let c = corner.0.as_mut_ptr().cast::<f32>();
        if target.add {
            c.write_bytes(0, ROWS * NR);
            for i in 0..target.rows {
                target.c.add(i * target.stride).copy_to_nonoverlapping(c.add(i * NR), target.cols);
            }
        }
        if target.rows > ROWS / 2 {
            products::<true>(segments, c, NR * 4, target.add);
        } else {
            products::<false>(segments, c, NR * 4, target.add);
        }
        for i in 0..target.rows {
            c.add(i * NR).copy_to_nonoverlapping(target.c.add(i * target.stride), target.cols);
        }
    }
}

/// `C (+)= sum of A B` with rows of C `stride` bytes apart: all of its rows, or the upper half.
///
/// # Safety
/// As [`tile`]; C holds 32 (or 16) rows of 32.
unsafe fn products<const WHOLE: bool>(segments: &[Segment], c: *mut f32, stride: usize, add: bool) {
    use std::arch::asm;
    let lower = c.wrapping_byte_add(stride * 16);
    // SAFETY: the caller's promise on the extents of operands and C; the tile registers are used nowhere else between.
    unsafe {
        if add {
            asm!("tileloadd tmm0, [{c} + {s}]", "tileloadd tmm1, [{c} + {s} + 64]",
                c = in(reg) c, s = in(reg) stride, options(nostack, readonly));
            if WHOLE {
                asm!("tileloadd tmm2, [{c} + {s}]", "tileloadd tmm3, [{c} + {s} + 64]",
                    c = in(reg) lower, s = in(reg) stride, options(nostack, readonly));
            }
        } else {
            asm!("tilezero tmm0", "tilezero tmm1", options(nostack, nomem));
            if WHOLE {
                asm!("tilezero tmm2", "tilezero tmm3", options(nostack, nomem));
            }
        }
        for s in segments {
            let steps = s.pairs.div_ceil(PAIRS);
            if steps == 0 {
                continue;
            }
            // A: rows of 64 bytes, the upper sixteen, then the lower; B: rows of 128 bytes.
            if WHOLE {
                asm!(
                    "2:",
                    "tileloadd tmm6, [{b} + {two}]",
                    "tileloadd tmm4, [{a} + {one}]",
                    "tileloadd tmm7, [{b} + {two} + 64]",
                    "tdpbf16ps tmm0, tmm4, tmm6",
                    "tileloadd tmm5, [{a} + {one} + 1024]",
                    "tdpbf16ps tmm1, tmm4, tmm7",
                    "tdpbf16ps tmm2, tmm5, tmm6",
                    "tdpbf16ps tmm3, tmm5, tmm7",
                    "add {a}, 2048",
                    "add {b}, 2048",
                    "dec {n}",
                    "jnz 2b",
                    a = inout(reg) s.a => _, b = inout(reg) s.b => _, n = inout(reg) steps => _,
                    one = in(reg) 64usize, two = in(reg) 128usize,
                    options(nostack, readonly)
                );
            } else {
                asm!(
                    "2:",
                    "tileloadd tmm6, [{b} + {two}]",
                    "tileloadd tmm4, [{a} + {one}]",
                    "tileloadd tmm7, [{b} + {two} + 64]",
                    "tdpbf16ps tmm0, tmm4, tmm6",
                    "tdpbf16ps tmm1, tmm4, tmm7",
                    "add {a}, 2048",
                    "add {b}, 2048",
                    "dec {n}",
                    "jnz 2b",
                    a = inout(reg) s.a => _, b = inout(reg) s.b => _, n = inout(reg) steps => _,
                    one = in(reg) 64usize, two = in(reg) 128usize,
                    options(nostack, readonly)
                );
            }
        }
        asm!("tilestored [{c} + {s}], tmm0", "tilestored [{c} + {s} + 64], tmm1",
            c = in(reg) c, s = in(reg) stride, options(nostack));
        if WHOLE {
            asm!("tilestored [{c} + {s}], tmm2", "tilestored [{c} + {s} + 64], tmm3",
                c = in(reg) lower, s = in(reg) stride, options(nostack));
        }
    }
}

/// `rounds` of four products on registers alone: what one core can do at most.
pub(crate) fn ceiling(rounds: u64) -> u64 {
    // SAFETY: listed only where the path is available; the tiles hold zeros.
    unsafe {
        let _tiles = Tiles::take();
        std::arch::asm!(
            "2:",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tdpbf16ps tmm3, tmm5, tmm7",
            "dec {n}",
            "jnz 2b",
            n = inout(reg) rounds.max(1) => _,
            options(nostack, nomem)
        );
    }
    rounds * 4 * 2 * 16 * 16 * 32
}
