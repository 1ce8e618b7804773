//! Weight files, sound and hostile. A binary of its own because its allocator refuses large allocations: a parser that
//! sizes a buffer by an unchecked number aborts it.
#![expect(clippy::unwrap_used, reason = "a test")]

mod fixture;
mod fuzz;
mod hostile;
mod sound;

use cap::Cap;
use std::alloc::System;

/// Bytes the whole binary may hold. Every fixture is below 100 kB; the goldens below 2 MB.
const LIMIT_BYTES: usize = 128 << 20;

#[global_allocator]
static ALLOCATOR: Cap<System> = Cap::new(System, LIMIT_BYTES);
