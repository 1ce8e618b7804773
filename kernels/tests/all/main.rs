//! Every kernel against the CPU's operations and references in f64.

mod attention;
mod compile;
mod elementwise;
mod faults;
mod qmatmul;
mod sanitizers;
mod support;
mod training;
