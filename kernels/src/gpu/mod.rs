//! The place on a card, through galen-ops' launches.

pub mod answers;
pub mod bench;
pub mod group;
mod paths;
mod shape;
pub mod step;

use crate::device::{POISON, Place, Stats};
use crate::launch::Arg;
use crate::manifest::LaunchLine;
use galen_ops::cuda::{DeviceBuffer, Gpu, KernelArg};
use galen_ops::device::{Backend, Gemm, Lying};
use std::sync::Arc;

/// Bytes beside every buffer that must stay.
const GUARD: usize = 4096;

/// A card as a place for checks.
pub struct OnCard(pub Arc<Gpu>);

/// A buffer with guards, aligned as an allocation is.
struct Guarded {
    buffer: DeviceBuffer,
    len: usize,
}

impl Guarded {
    fn new(gpu: &Gpu, bytes: &[u8]) -> Result<Self, String> {
        let mut all = vec![POISON; bytes.len() + 2 * GUARD];
        all[GUARD..GUARD + bytes.len()].copy_from_slice(bytes);
        Ok(Self { buffer: gpu.upload(&all).map_err(|e| e.to_string())?, len: bytes.len() })
    }

    /// A matrix in it that lies so in the bytes.
    fn lying(&self, (_, first, stride): Lying<Vec<u8>>) -> Lying<'_, DeviceBuffer> {
        (&self.buffer, GUARD + first, stride)
    }

    /// The bytes, if the guards stand.
    fn read(&self) -> Result<Option<Vec<u8>>, String> {
        let mut all = vec![0; self.buffer.len()];
        self.buffer.read(&mut all).map_err(|e| e.to_string())?;
        let (before, rest) = all.split_at(GUARD);
        let (bytes, after) = rest.split_at(self.len);
        Ok(before.iter().chain(after).all(|b| *b == POISON).then(|| bytes.to_vec()))
    }
}

impl Place for OnCard {
    fn launch(
        &self,
        kernel: &str,
        grid: [u32; 3],
        _: &LaunchLine,
        args: &[Arg],
        before: &[Option<Vec<u8>>],
        _: u64,
    ) -> Result<Vec<Option<Vec<u8>>>, String> {
        let mut buffers = Vec::with_capacity(args.len());
        for (arg, before) in args.iter().zip(before) {
            buffers.push(match (arg, before) {
                (Arg::In(bytes), _) => Some(Guarded::new(&self.0, bytes)?),
                (_, Some(before)) => Some(Guarded::new(&self.0, before)?),
                _ => None,
            });
        }
        let mut values = Vec::with_capacity(args.len());
        for (arg, buffer) in args.iter().zip(&buffers) {
            values.push(match (arg, buffer) {
                (_, Some(g)) => KernelArg::Buffer(&g.buffer, GUARD),
                (Arg::Value(bytes), _) => {
                    let mut eight = [0; 8];
                    eight[..bytes.len()].copy_from_slice(bytes);
                    KernelArg::Long(u64::from_le_bytes(eight))
                }
                _ => KernelArg::Null,
            });
        }
        // SAFETY: the checks' arguments, with buffers of the sizes the headers ask for.
        let launched = unsafe { self.0.launch(kernel, grid, &values) };
        launched.and_then(|()| self.0.wait()).map_err(|e| format!("{kernel}: {e}"))?;
        let mut results = Vec::with_capacity(args.len());
        for (i, (arg, buffer)) in args.iter().zip(&buffers).enumerate() {
            let Some(buffer) = buffer else {
                results.push(None);
                continue;
            };
            let Some(bytes) = buffer.read()? else {
                return Err(format!("{kernel}: wrote beside argument {i}"));
            };
            match arg {
                Arg::In(given) if bytes != *given => {
                    return Err(format!("{kernel}: wrote to argument {i}, which it should read"));
                }
                Arg::In(_) => results.push(None),
                _ => results.push(Some(bytes)),
            }
        }
        Ok(results)
    }

    fn gemm(&self, product: &Gemm<Vec<u8>>) -> Result<Vec<u8>, String> {
        let Gemm { way, m, out, inner, x, w, y, number, accumulate } = *product;
        let held = |(bytes, _, _): Lying<Vec<u8>>| Guarded::new(&self.0, bytes);
        let (held_x, held_w, held_y) = (held(x)?, held(w)?, held(y)?);
        let (x, w, y) = (held_x.lying(x), held_w.lying(w), held_y.lying(y));
        let launched = Backend::gemm(&*self.0, &Gemm { way, m, out, inner, x, w, y, number, accumulate });
        launched.map_err(|e| e.to_string())?;
        self.0.wait().map_err(|e| format!("a product by cuBLAS: {e}"))?;
        held_y.read()?.ok_or_else(|| "a product by cuBLAS wrote beside y".to_owned())
    }

    fn has_library(&self) -> bool {
        self.0.library().is_some()
    }

    fn stats(&self) -> Option<Stats> {
        None
    }

    fn kernels(&self) -> Vec<String> {
        vec![]
    }
}
