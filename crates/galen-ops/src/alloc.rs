//! The allocator's habits, where it is mimalloc.

use libmimalloc_sys::{mi_option_set, mi_option_t};

/// `mi_option_purge_delay` in the C headers of versions 2 and 3: milliseconds until freed memory goes back.
const PURGE_DELAY: mi_option_t = 15;

/// Keeps freed memory for the next step. By default it goes back to the system within a hundredth of a second, and a
/// training step gets it anew, page by page, zeroed: a tenth of a step's time. What a run holds at most stays the same.
pub fn keep_freed_pages() {
    // SAFETY: sets a number that the allocator reads; -1 is documented as never.
    unsafe { mi_option_set(PURGE_DELAY, -1) }
}
