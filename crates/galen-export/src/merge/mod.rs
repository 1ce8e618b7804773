//! Several adapters made one, by PEFT's names and with the results of its `add_weighted_adapter`.
//!
//! A method is a row of [`METHODS`]: what it works on, what it leaves out of each adapter first, and whether signs are
//! elected. What it works on: the factors (A with A, B with B; each weighed by the root of its weight and scale), their
//! concatenation, or the changes `scale B A` themselves, which are factored again. The merged adapter has scale 1.
//! `slerp` is mergekit's.

mod slerp;
mod svd;
mod tensors;

use crate::error::{Result, cannot};
use galen_adapter::{Adapter, AdapterConfig, Init, LowRank, ModuleShape, Targets};
use rayon::prelude::*;
use tensors::{Task, merged};

/// What the entries of several tensors are made one of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum On {
    /// A with A and B with B: all of one rank.
    Factors,
    /// A below A and B beside B: exact, the rank is the sum.
    Concatenated,
    /// `scale B A`, then the best approximation of a rank (Eckart and Young 1936).
    Changes,
    /// The same of two adapters, one turned towards the other (Shoemake 1985).
    Arc,
}

/// What is left out of each tensor before they are added.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sparsify {
    /// Nothing.
    Nothing,
    /// All but the largest magnitudes (Yadav et al. 2023).
    Magnitude,
    /// A random choice; what stays is divided by its share (DARE, Yu et al. 2024).
    Random,
}

/// A way to merge adapters.
#[derive(Debug, Clone, Copy)]
pub struct Method {
    /// PEFT's name.
    pub name: &'static str,
    /// What it works on.
    pub on: On,
    /// What it leaves out.
    pub sparsify: Sparsify,
    /// Whether entries against the majority's sign are left out of a mean (TIES, Yadav et al. 2023) instead of all added.
    pub elect: bool,
}

const fn method(name: &'static str, on: On, sparsify: Sparsify, elect: bool) -> Method {
    Method { name, on, sparsify, elect }
}

/// Every method. `task_arithmetic` and `slerp` are mergekit's: sums of the changes, factored at full rank unless one is given.
pub static METHODS: &[Method] = &[
    method("linear", On::Factors, Sparsify::Nothing, false),
    method("cat", On::Concatenated, Sparsify::Nothing, false),
    method("svd", On::Changes, Sparsify::Nothing, false),
    method("ties", On::Factors, Sparsify::Magnitude, true),
    method("ties_svd", On::Changes, Sparsify::Magnitude, true),
    method("dare_linear", On::Factors, Sparsify::Random, false),
    method("dare_linear_svd", On::Changes, Sparsify::Random, false),
    method("dare_ties", On::Factors, Sparsify::Random, true),
    method("dare_ties_svd", On::Changes, Sparsify::Random, true),
    method("magnitude_prune", On::Factors, Sparsify::Magnitude, false),
    method("magnitude_prune_svd", On::Changes, Sparsify::Magnitude, false),
    method("task_arithmetic", On::Changes, Sparsify::Nothing, false),
    method("slerp", On::Arc, Sparsify::Nothing, false),
];

/// The method of that name.
pub fn find(name: &str) -> Option<Method> {
    METHODS.iter().copied().find(|m| m.name == name)
}

/// How the sign of the majority is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MajoritySign {
    /// The sign of the sum.
    #[default]
    Total,
    /// The sign that more tensors have.
    Frequency,
}

/// How to merge.
#[derive(Debug, Clone, Copy)]
pub struct MergeOptions {
    /// The method.
    pub method: Method,
    /// Share of the entries that stay, where the method leaves some out; 0 to 1.
    pub density: Option<f64>,
    /// Whose sign wins.
    pub majority_sign: MajoritySign,
    /// Rank of what is factored again; default: the largest of the adapters' (task arithmetic, slerp: their sum).
    pub svd_rank: Option<usize>,
    /// Where on the arc from the first adapter (0) to the second (1), for slerp; default: half way.
    pub t: Option<f64>,
    /// Of random choices.
    pub seed: u64,
}

/// One projection of the merged adapter.
struct Piece {
    shape: ModuleShape,
    r: usize,
    a: Vec<f32>,
    b: Vec<f32>,
}

/// Merges adapters over the projections `modules` of one base, each with its weight. One adapter alone is merged linearly,
/// as PEFT does it. `done` is called for each projection that is finished, from several threads.
///
/// Errors: ranks that the method cannot bring together, a density it needs, methods that are no pair of matrices.
pub fn combine(
    adapters: &[(&Adapter, f64)],
    modules: &[ModuleShape],
    options: &MergeOptions,
    done: &(dyn Fn() + Sync),
) -> Result<Adapter> {
    let [(first, _), ..] = adapters else {
        return cannot("there is no adapter to merge", "name some with `--adapter`");
    };
    let method = if adapters.len() == 1 { METHODS[0] } else { options.method };
    let options = MergeOptions { method, ..*options };
    if let Some((a, _)) = adapters.iter().find(|(a, _)| a.score_head().is_some()) {
        let what =
            format!("an adapter ({}) is a reward model's, whose head is not merged", a.method().name());
        return cannot(what, "merge adapters that write");
    }
    match options.density {
        None if method.sparsify != Sparsify::Nothing => {
            let what = format!("`{}` leaves entries out, and nothing says how many stay", method.name);
            return cannot(what, "add `--density 0.5`, say");
        }
        Some(_) if method.sparsify == Sparsify::Nothing => {
            let what = format!("`--density`, and `{}` leaves nothing out", method.name);
            return cannot(what, "leave it out, or `--method ties`, `dare_linear` or `magnitude_prune`");
        }
        Some(d) if !(0.0..=1.0).contains(&d) => {
            return cannot(format!("density `{d}`"), "it is the share of entries that stay: 0 to 1");
        }
        _ => {}
    }
    slerp::check(adapters, &options)?;
    if options.svd_rank.is_some() && !matches!(method.on, On::Changes | On::Arc) {
        let what = format!("`--svd-rank`, and `{}` factors nothing", method.name);
        return cannot(what, "leave it out, or `--method svd`");
    }
    let ranks: Vec<usize> = adapters.iter().map(|(a, _)| largest_rank(a)).collect();
    let greatest = ranks.iter().copied().max().unwrap_or(1);
    let r = match method.on {
        On::Factors => greatest,
        On::Concatenated => ranks.iter().sum(),
        On::Arc => options.svd_rank.unwrap_or(ranks.iter().sum()),
        On::Changes if method.name == "task_arithmetic" => options.svd_rank.unwrap_or(ranks.iter().sum()),
        On::Changes => options.svd_rank.unwrap_or(greatest),
    };
    if method.on == On::Factors && ranks.iter().any(|other| *other != greatest) {
        let list: Vec<String> = ranks.iter().map(ToString::to_string).collect();
        let what =
            format!("`{}` adds matrices of one rank, and the adapters have {}", method.name, list.join(", "));
        return cannot(what, other_ranks(options.method));
    }
    let piece = |shape: &ModuleShape| {
        let piece = one(adapters, shape, r, &options).transpose();
        done();
        piece
    };
    let pieces: Vec<Piece> = modules.par_iter().filter_map(piece).collect::<Result<_>>()?;
    if pieces.is_empty() {
        return cannot(
            "the adapters change no projection of the base",
            "name the base they were trained over",
        );
    }
    let config = AdapterConfig {
        method: "lora".into(),
        r,
        alpha: r as f64,
        rslora: false,
        targets: Targets::All,
        layers: None,
        init: Init::Kaiming,
        ..first.config.clone()
    };
    let mut adapter = Adapter::zeros(config, pieces.iter().map(|p| (p.shape.clone(), p.r, 1.0)).collect())?;
    for p in &pieces {
        let prefix = format!("base_model.model.model.layers.{}.{}", p.shape.layer, p.shape.module);
        adapter.set(&format!("{prefix}.lora_A.weight"), &p.a);
        adapter.set(&format!("{prefix}.lora_B.weight"), &p.b);
    }
    Ok(adapter)
}

/// What to do about adapters of several ranks.
fn other_ranks(method: Method) -> String {
    match find(&format!("{}_svd", method.name)) {
        Some(same) => format!("use `--method {}`, which works on the changes themselves", same.name),
        None => "use `--method cat` or `--method svd`".into(),
    }
}

fn largest_rank(adapter: &Adapter) -> usize {
    adapter.layers().iter().flat_map(|l| &l.entries).map(|e| e.r).max().unwrap_or(0)
}

/// The merged branch of one projection; none where no adapter has one.
fn one(
    adapters: &[(&Adapter, f64)],
    shape: &ModuleShape,
    r: usize,
    options: &MergeOptions,
) -> Result<Option<Piece>> {
    let mut branches: Vec<(LowRank, f64)> = Vec::new();
    for (adapter, weight) in adapters {
        let covers = |e: &galen_adapter::Entry| e.shape.module == shape.module;
        let changed = adapter.layers().get(shape.layer).is_some_and(|l| l.entries.iter().any(covers));
        match adapter.low_rank(shape.layer, shape.module) {
            Some(branch) => branches.push((branch, *weight)),
            None if changed => {
                let what =
                    format!("an adapter of method `{}` is no pair of matrices", adapter.method().name());
                return cannot(what, "merge it into the base: `galen merge --into base`");
            }
            None => {}
        }
    }
    if branches.is_empty() {
        return Ok(None);
    }
    let (n, m) = (shape.outputs, shape.inputs);
    let key =
        |i: usize, part: u64| [options.seed, shape.layer as u64, name_key(shape.module), i as u64, part];
    let (r, a, b) = match options.method.on {
        On::Factors => {
            let r = branches[0].0.r;
            if branches.iter().any(|(l, _)| l.r != r) {
                let what = format!("the adapters' ranks differ at `layers.{}.{}`", shape.layer, shape.module);
                return cannot(what, other_ranks(options.method));
            }
            // The sign goes to one side, or two of them would cancel.
            let weighed = |part: u64, side: fn(f64) -> f64| {
                let task = |(i, (l, w)): (usize, &(LowRank, f64))| Task {
                    values: if part == 0 { l.a.to_vec() } else { l.b.to_vec() },
                    weight: side(w * f64::from(l.scale)) as f32,
                    key: key(i, part),
                };
                merged(branches.iter().enumerate().map(task).collect(), options)
            };
            (r, weighed(0, |w| w.abs().sqrt().copysign(w)), weighed(1, |w| w.abs().sqrt()))
        }
        On::Concatenated => {
            let mut a = Vec::with_capacity(r * m);
            let mut b = vec![0f32; n * r];
            let mut at = 0;
            for (l, w) in &branches {
                // In two steps, as PEFT multiplies.
                a.extend(l.a.iter().map(|x| x * *w as f32 * l.scale));
                for (row, from) in b.chunks_exact_mut(r).zip(l.b.chunks_exact(l.r)) {
                    row[at..at + l.r].copy_from_slice(from);
                }
                at += l.r;
            }
            a.resize(r * m, 0.0);
            (r, a, b)
        }
        On::Arc => {
            // One that lacks the projection changes it by nothing: the other's place on the arc is kept.
            let weighed = slerp::weighed(adapters, shape, options.t.unwrap_or(slerp::HALF_WAY));
            let (a, b) = svd::of_branches(&weighed, n, m, r);
            (r, a, b)
        }
        On::Changes if options.method.sparsify == Sparsify::Nothing && !options.method.elect => {
            let (a, b) = svd::of_branches(&branches, n, m, r);
            (r, a, b)
        }
        On::Changes => {
            let task = |(i, (l, w)): (usize, &(LowRank, f64))| Task {
                values: svd::product(l, n, m),
                weight: *w as f32,
                key: key(i, 2),
            };
            let change = merged(branches.iter().enumerate().map(task).collect(), options);
            let (a, b) = svd::of_matrix(&change, n, m, r);
            (r, a, b)
        }
    };
    Ok(Some(Piece { shape: shape.clone(), r, a, b }))
}

/// A stable number for a module's name, to key random numbers.
fn name_key(name: &str) -> u64 {
    name.bytes().fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3))
}
