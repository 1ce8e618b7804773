//! galen-testkit
pub mod fuzz;
pub mod gguf_writer;
