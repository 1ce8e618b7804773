//! What a template may cost: instructions, bytes built, stack, output.
//!
//! Templates come with models, so they are untrusted. minijinja bounds instructions and recursion; it does not bound
//! memory, so every operation that builds text or lists charges a per-render budget kept in this module. A render
//! runs on a thread of its own, whose stack is deep enough for the deepest value the fuel allows to be nested.

use minijinja::value::ValueKind;
use minijinja::{Error, ErrorKind, Value};
use std::cell::Cell;

/// Largest template accepted, bytes.
pub(super) const MAX_SOURCE_BYTES: usize = 1 << 20;
/// Largest rendered text, bytes.
pub(super) const MAX_OUTPUT_BYTES: usize = 32 << 20;
/// Nested calls of macros, includes and loops.
pub(super) const MAX_RECURSION: usize = 100;
/// Nesting of values that are printed or serialised.
pub(super) const MAX_DEPTH: usize = 128;
/// Largest factor, width or count a template may ask for.
pub(super) const MAX_COUNT: usize = 4096;
/// Stack of the rendering thread: reserved, not touched unless a template nests values deeply.
const STACK_BYTES: usize = 512 << 20;
/// Bytes a render may build beside what its input holds.
const BUDGET_BYTES: usize = 256 << 20;
/// Instructions of a render; a conversation of hundreds of turns takes some ten thousand.
const FUEL: u64 = 2_000_000;

/// Instructions allowed for a template whose longest literal is `longest_literal` bytes.
pub(super) fn fuel(longest_literal: usize) -> u64 {
    // Plain text is emitted without passing any hook of ours: bound instructions x literal instead.
    let most = (1u64 << 30) / (longest_literal.max(256) as u64);
    FUEL.min(most.max(20_000))
}

thread_local! {
    static LEFT: Cell<usize> = const { Cell::new(0) };
}

/// Starts the budget of a render whose messages, tools and variables hold `input_bytes`.
pub(super) fn start(input_bytes: usize) {
    LEFT.set(BUDGET_BYTES.saturating_add(input_bytes.saturating_mul(64)));
}

/// Takes `bytes` from the budget.
pub(super) fn charge(bytes: usize) -> Result<(), Error> {
    let left = LEFT.get();
    if bytes > left {
        return Err(refused("the template builds more text than is allowed"));
    }
    LEFT.set(left - bytes);
    Ok(())
}

/// Takes what `value` holds itself (text, or the slots of a list) from the budget.
pub(super) fn charge_value(value: &Value) -> Result<(), Error> {
    match value.kind() {
        ValueKind::String => charge(value.as_str().map_or(0, str::len)),
        ValueKind::Seq | ValueKind::Map => charge(value.len().unwrap_or(0).saturating_mul(32)),
        // A lazy list may be held by another one, a sum of two lists is filled: charge the link and the slots.
        ValueKind::Iterable => charge(value.len().unwrap_or(0).saturating_mul(16).saturating_add(64)),
        _ => Ok(()),
    }
}

/// An error of this sandbox.
pub(super) fn refused(what: &'static str) -> Error {
    Error::new(ErrorKind::InvalidOperation, what)
}

/// `count` if a template may ask for that many.
pub(super) fn count(count: usize) -> Result<usize, Error> {
    if count > MAX_COUNT { Err(refused("a count or width is larger than 4096")) } else { Ok(count) }
}

/// Runs `work` on a thread with a deep stack. `None`: the thread could not be started, or died.
pub(super) fn on_deep_stack<T: Send>(work: impl FnOnce() -> T + Send) -> Option<T> {
    std::thread::scope(|scope| {
        let builder = std::thread::Builder::new().stack_size(STACK_BYTES).name("galen-template".into());
        builder.spawn_scoped(scope, work).ok()?.join().ok()
    })
}

/// Collects output up to [`MAX_OUTPUT_BYTES`].
#[derive(Default)]
pub(super) struct BoundedOutput(pub Vec<u8>);

impl std::io::Write for BoundedOutput {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if self.0.len() + bytes.len() > MAX_OUTPUT_BYTES {
            let what = format!("the rendered text is longer than {MAX_OUTPUT_BYTES} bytes");
            return Err(std::io::Error::other(what));
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
