//! The integration tests of galen, one binary. Goldens lie beside the scripts that made them in `goldens/`.

mod goldens;
mod ops_gradients;
mod parity;
mod random;
mod support;
