//! Which path a product with a weight takes: galen's kernels, which decode the weight as they go and add the branch in their
//! epilogue, or the library's (cuBLAS), in front of which a weight in blocks is decoded to bf16 and the branch is a launch of its own.
//!
//! Derived, not measured: no card has been at hand. With a weight `[n, k]` in 4 bits and m rows, a card of P FLOP/s and B bytes/s,
//!
//!   kernels   2 m n k / (P s)                      s: the shares that kernels/qmatmul.cu expects, 80 and 78 % on sm_80, 55 and 52 % on sm_90
//!   library   2 m n k / (P c)                      c: 85 % on sm_80, 70 % on sm_90, assumed of cuBLAS
//!             + 2.56 n k / (0.85 B)                decoding, where W is not bf16 already
//!             + 4 m n / (0.8 B)                    the branch: y is written and read once more
//!
//! at n = k = 4096. On an A100 decoding and the branch take more than c gains at any m that fits; on an H100 the tables below. The
//! timings `both paths` of `galen-gpu-check` are what these numbers are to be replaced by (`benches/GPU.md`).

use super::{Library, Way};

/// Who forms a product.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Path {
    /// Galen's kernels.
    Kernels,
    /// The library.
    Library,
}

/// What a product is, as far as the choice depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kind {
    /// The direction.
    pub way: Way,
    /// The weight is stored in blocks, and is decoded first.
    pub blocks: bool,
    /// A low-rank branch or a bias is added.
    pub branch: bool,
}

/// Rows from which the library is taken, on cards of a span of compute capabilities.
struct Row {
    from: (i32, i32),
    before: (i32, i32),
    way: Way,
    blocks: bool,
    alone: usize,
    with_branch: usize,
}

impl Row {
    fn covers(&self, capability: (i32, i32)) -> bool {
        self.from <= capability && capability < self.before
    }
}

const fn hopper(way: Way, blocks: bool, alone: usize, with_branch: usize) -> Row {
    Row { from: (9, 0), before: (12, 0), way, blocks, alone, with_branch }
}

/// Cards that no row names (Ampere, Ada, Blackwell's for desks) take the kernels for every product. Blackwell's for data centres (10.x)
/// are taken for Hopper's: there too `mma.sync` does not reach the tensor cores' rate.
const TABLE: [Row; 4] = [
    // Fewer rows leave multiprocessors without a tile either way.
    hopper(Way::Forward, false, 256, 256),
    hopper(Way::Backward, false, 256, 256),
    hopper(Way::Forward, true, 1152, 2176),
    hopper(Way::Backward, true, 1024, 1536),
];

/// Whether the library is taken for any product on cards of this compute capability.
pub fn pays(capability: (i32, i32)) -> bool {
    TABLE.iter().any(|r| r.covers(capability))
}

/// The path of a product of `m` rows.
pub fn choose(library: Option<Library>, kind: Kind, m: usize) -> Path {
    let Some(Library { capability, forced }) = library else { return Path::Kernels };
    if let Some(path) = forced {
        return path;
    }
    let fits = |r: &&Row| r.covers(capability) && r.way == kind.way && r.blocks == kind.blocks;
    let from = TABLE.iter().find(fits).map(|r| if kind.branch { r.with_branch } else { r.alone });
    if from.is_some_and(|from| m >= from) { Path::Library } else { Path::Kernels }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The rows at which the equation's sides meet, of an H100: the table's numbers, to whole tiles.
    #[test]
    fn the_table_is_what_its_equation_says() {
        let (p, b, k) = (989e12, 3.35e12, 4096.0);
        for (row, share) in TABLE.iter().filter(|r| r.blocks).zip([0.55, 0.52]) {
            let gain = 2.0 * k / p * (1.0 / share - 1.0 / 0.70);
            let decoding = 2.56 * k / (0.85 * b);
            let branch = 4.0 / (0.8 * b);
            for (rows, found) in [(row.alone, decoding / gain), (row.with_branch, decoding / (gain - branch))]
            {
                assert!((rows as f64 - found).abs() <= 128.0, "{rows} for {found}");
            }
        }
    }

    #[test]
    fn a_path_can_be_forced_and_needs_a_library() {
        let kind = Kind { way: Way::Forward, blocks: true, branch: true };
        let on = |capability, forced| Some(Library { capability, forced });
        assert_eq!(choose(None, kind, 1 << 20), Path::Kernels);
        assert_eq!(choose(on((8, 0), None), kind, 1 << 20), Path::Kernels);
        assert_eq!(choose(on((8, 0), Some(Path::Library)), kind, 1), Path::Library);
        assert_eq!(choose(on((9, 0), None), kind, 2048), Path::Kernels);
        assert_eq!(choose(on((9, 0), None), kind, 4096), Path::Library);
        assert_eq!(choose(on((10, 0), None), Kind { blocks: false, ..kind }, 256), Path::Library);
        assert_eq!(choose(on((9, 0), Some(Path::Kernels)), kind, 4096), Path::Kernels);
        assert_eq!(choose(on((12, 0), None), kind, 4096), Path::Kernels);
        assert!(pays((9, 0)) && pays((10, 0)) && !pays((8, 0)) && !pays((12, 0)));
    }
}
