//! Every kernel against the CPU's operations and references in f64.

mod qmatmul;
mod support;
