//! Every kernel against the CPU's operations and references in f64.

mod attention;
mod elementwise;
mod qmatmul;
mod support;
mod training;
