//! The integration tests of galen, one binary. Goldens lie beside the scripts that made them in `goldens/`.

mod arch_gradients;
mod exactness;
mod goldens;
mod ops_gradients;
mod parity;
mod peft_steps;
mod random;
mod resume;
mod support;
