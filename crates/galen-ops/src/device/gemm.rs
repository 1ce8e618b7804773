//! Products of plain matrices by a library, and the scratch memory that a decoded weight lies in for one.

use super::{Number, Path};
use crate::error::Result;
use std::sync::{Arc, Mutex, PoisonError};

/// The direction of a product with a weight W `[N, K]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// x W^T.
    Forward,
    /// x W.
    Backward,
}

/// A matrix: its buffer, its first byte there, elements from a row to the next.
pub type Lying<'a, B> = (&'a B, usize, usize);

/// `y = x W^T` or `x W`, row-major, bf16 with f32 sums: x `[m, inner]`; W `[out, inner]`, or `[inner, out]` backward; y `[m, out]`.
pub struct Gemm<'a, B> {
    /// The direction.
    pub way: Way,
    /// Rows of x and y.
    pub m: usize,
    /// Columns of y.
    pub out: usize,
    /// What is summed over.
    pub inner: usize,
    /// x.
    pub x: Lying<'a, B>,
    /// W.
    pub w: Lying<'a, B>,
    /// y.
    pub y: Lying<'a, B>,
    /// What y's numbers are.
    pub number: Number,
    /// Adds to what y holds, before the one rounding.
    pub accumulate: bool,
}

/// A place's library of products.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Library {
    /// Compute capability of the card it works on.
    pub capability: (i32, i32),
    /// The path that all products take, whatever [`super::choice`] says.
    pub forced: Option<Path>,
}

/// Most bytes of scratch: the largest projection of a model of 8B takes 117 MB, of 70B 470 MB. Weights beyond go through the
/// kernels, which need none.
pub const SCRATCH_BYTES: usize = 512 << 20;

/// One buffer, as large as the largest use so far, for one use at a time.
pub struct Scratch<B>(Mutex<Option<(usize, Arc<B>)>>);

impl<B> Default for Scratch<B> {
    fn default() -> Self {
        Self(Mutex::new(None))
    }
}

impl<B> Scratch<B> {
    /// `work` over at least `bytes` bytes, whatever they hold. `alloc` is asked when there are not enough; those before are given
    /// back first.
    pub fn with(
        &self,
        bytes: usize,
        alloc: impl FnOnce(usize) -> Result<B>,
        work: &mut dyn FnMut(&Arc<B>) -> Result<()>,
    ) -> Result<()> {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if held.as_ref().is_none_or(|(have, _)| *have < bytes) {
            *held = None;
            *held = Some((bytes, Arc::new(alloc(bytes)?)));
        }
        held.as_ref().map_or(Ok(()), |(_, buffer)| work(buffer))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;

    #[test]
    fn scratch_grows_and_is_used_again() {
        let scratch = Scratch::default();
        let mut asked = Vec::new();
        for bytes in [10, 7, 30, 30, 1] {
            let alloc = |n| {
                asked.push(n);
                Ok(vec![0u8; n])
            };
            scratch
                .with(bytes, alloc, &mut |b| {
                    assert!(b.len() >= bytes);
                    Ok(())
                })
                .unwrap();
        }
        assert_eq!(asked, [10, 30]);
        let none = scratch.with(31, |_| Err(Error::Device("full".into())), &mut |_| Ok(()));
        assert!(none.is_err());
        scratch
            .with(2, |n| Ok(vec![0; n]), &mut |b| {
                assert_eq!(b.len(), 2);
                Ok(())
            })
            .unwrap();
    }
}
