//! CPU kernels. Every result element is one fixed chain of operations, whatever the number of rows beside it,
//! the tiling or the number of threads: so packed, shared and one-by-one runs agree to the bit. Generation has a chain of
//! its own ([`gemv`]).

pub(crate) mod attention;
pub(crate) mod bf16;
pub(crate) mod decode_attention;
pub(crate) mod gemm;
pub(crate) mod gemv;
pub(crate) mod isa;
pub(crate) mod lanes;
pub(crate) mod math;
pub(crate) mod micro;
pub(crate) mod panels;
