//! A device that runs launches, wherever its kernels are.

use crate::launch::{Arg, Launch};
use crate::manifest::{LaunchLine, Manifest};
use crate::record::Recorder;
use galen_ops::device::Gemm;
use std::cell::RefCell;
use std::rc::Rc;

/// What a launch did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Collectives of warps.
    pub collectives: u64,
    /// Barriers of blocks.
    pub barriers: u64,
    /// Asynchronous copies.
    pub copies: u64,
    /// Rows of `ldmatrix` that waited for another's bank.
    pub bank_conflicts: u64,
    /// Multiplications of the tensor cores.
    pub mmas: u64,
}

/// Not a number as bf16, half and single precision; large as an integer.
pub const POISON: u8 = 0xff;

/// Where kernels run.
pub trait Place {
    /// Runs a launch over buffers that begin as `before` says (what is only read: as in `args`), in an order drawn from
    /// `seed`. Gives what written arguments hold afterwards. Errors: what the kernel did wrong, writing beside or to what
    /// it should read included.
    fn launch(
        &self,
        kernel: &str,
        grid: [u32; 3],
        line: &LaunchLine,
        args: &[Arg],
        before: &[Option<Vec<u8>>],
        seed: u64,
    ) -> Result<Vec<Option<Vec<u8>>>, String>;

    /// What y's buffer holds after a product by this place's library. Errors: there is none, or it went wrong.
    fn gemm(&self, product: &Gemm<Vec<u8>>) -> Result<Vec<u8>, String>;

    /// Whether there is such a library.
    fn has_library(&self) -> bool;

    /// Counts since the last call, where the place counts.
    fn stats(&self) -> Option<Stats>;

    /// Every kernel's name, where the place knows.
    fn kernels(&self) -> Vec<String>;
}

/// A place kernels run, and how often each launch runs there.
pub struct Device {
    place: Box<dyn Place>,
    manifest: Manifest,
    seeds: Vec<u64>,
    recorder: Option<Rc<RefCell<Recorder>>>,
}

impl Device {
    /// A device at some place; each launch runs twice.
    pub fn on(place: Box<dyn Place>) -> Result<Self, String> {
        let mut manifest = Manifest::default();
        let lines = include_str!(concat!(env!("OUT_DIR"), "/headers.txt"));
        manifest.add(lines).map_err(|(line, why)| format!("line {line} of the headers: {why}"))?;
        Ok(Self { place, manifest, seeds: vec![1, 2], recorder: None })
    }

    /// The same device, its launches also written down.
    #[must_use]
    pub fn recording(self, recorder: Rc<RefCell<Recorder>>) -> Self {
        Self { recorder: Some(recorder), ..self }
    }

    /// The same device, launching once under each of these orders.
    #[must_use]
    pub fn with_seeds(self, seeds: impl IntoIterator<Item = u64>) -> Self {
        Self { seeds: seeds.into_iter().collect(), ..self }
    }

    /// A product by the place's library: what y's buffer holds afterwards.
    pub fn gemm(&self, product: &Gemm<Vec<u8>>) -> Result<Vec<u8>, String> {
        self.place.gemm(product)
    }

    /// Whether there is such a library: a card may be without cuBLAS.
    pub fn has_library(&self) -> bool {
        self.place.has_library()
    }

    /// Every kernel's name, where the place knows.
    pub fn kernels(&self) -> Vec<String> {
        self.place.kernels()
    }

    /// How a kernel is launched, by its header.
    pub fn line(&self, kernel: &str) -> Result<&LaunchLine, String> {
        self.manifest
            .launch(kernel)
            .ok_or_else(|| format!("{kernel}: its header has no `launch:` line for it"))
    }

    /// Runs a launch under every seed. Errors: what the kernel did wrong, or results that depend on the order.
    pub fn run(&self, launch: Launch) -> Result<Option<Stats>, String> {
        let line = self.line(&launch.kernel)?.clone();
        let Launch { kernel, grid, mut args } = launch;
        // As a card refuses it, wherever this runs.
        if grid.contains(&0) || grid[0] > i32::MAX as u32 || grid[1] > 65_535 || grid[2] > 65_535 {
            return Err(format!("{kernel}: a grid of {grid:?} blocks"));
        }
        let before: Vec<Option<Vec<u8>>> = args
            .iter()
            .map(|a| match a {
                Arg::InOut(bytes) => Some(bytes.to_vec()),
                Arg::Out(bytes) => Some(vec![POISON; bytes.len()]),
                _ => None,
            })
            .collect();
        let mut stats = None;
        for (turn, seed) in self.seeds.iter().enumerate() {
            let results = self.place.launch(&kernel, grid, &line, &args, &before, *seed)?;
            stats = self.place.stats();
            for (i, (arg, result)) in args.iter_mut().zip(results).enumerate() {
                if let (Arg::Out(bytes) | Arg::InOut(bytes), Some(result)) = (arg, result) {
                    if turn > 0 && **bytes != result[..] {
                        return Err(format!("{kernel}: argument {i} depends on the order of threads"));
                    }
                    bytes.copy_from_slice(&result);
                }
            }
        }
        if let Some(recorder) = &self.recorder {
            recorder.borrow_mut().add(&kernel, grid, &line, &args, &before);
        }
        Ok(stats)
    }
}
