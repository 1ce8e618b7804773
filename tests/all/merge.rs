//! Merged adapters against PEFT's `add_weighted_adapter`.

use crate::goldens::{Golden, path};
use crate::support::lora;
use galen_adapter::{Adapter, ModuleShape};
use galen_export::merge::{METHODS, MajoritySign, MergeOptions, find};
use galen_export::module_shapes;
use galen_model::Weights;

const MODULES: [&str; 3] = ["self_attn.q_proj", "self_attn.v_proj", "mlp.down_proj"];
const TOLERANCE: f32 = 1e-5;

/// Name, r, scale.
const ADAPTERS: [(&str, usize, f32); 3] = [("one", 4, 2.0), ("two", 4, 1.5), ("three", 2, 1.0)];

fn combine(
    adapters: &[(&Adapter, f64)],
    modules: &[ModuleShape],
    options: &MergeOptions,
) -> Result<Adapter, galen_export::Error> {
    galen_export::merge::combine(adapters, modules, options, &|| {})
}

fn shapes() -> Vec<ModuleShape> {
    let weights = Weights::open(&path("tiny/llama_tied")).expect("a tiny model");
    module_shapes(weights.config())
}

fn adapters(golden: &Golden) -> Vec<Adapter> {
    let covered: Vec<ModuleShape> = shapes().into_iter().filter(|s| MODULES.contains(&s.module)).collect();
    let adapter = |(name, r, scale): (&str, usize, f32)| {
        let chosen = covered.iter().map(|s| (s.clone(), r, scale)).collect();
        let mut adapter = Adapter::zeros(lora(r, 1.0), chosen).expect("the adapter fits");
        for s in &covered {
            for part in ["A", "B"] {
                let values = golden.f32s(&format!("{name}.{}.{}.{part}", s.layer, s.module));
                let key =
                    format!("base_model.model.model.layers.{}.{}.lora_{part}.weight", s.layer, s.module);
                assert!(adapter.set(&key, &values), "{key}");
            }
        }
        adapter
    };
    ADAPTERS.map(adapter).into()
}

fn close(name: &str, got: &[f32], want: &[f32]) {
    assert_eq!(got.len(), want.len(), "{name}");
    for (i, (g, w)) in got.iter().zip(want).enumerate() {
        assert!((g - w).abs() <= TOLERANCE, "{name}[{i}]: {g} instead of {w}");
    }
}

fn options(name: &str, density: Option<f64>) -> MergeOptions {
    let method = find(name).expect("a method");
    MergeOptions { method, density, majority_sign: MajoritySign::Total, svd_rank: None, t: None, seed: 1 }
}

#[test]
fn every_method_gives_pefts_result() {
    let golden = Golden::open("peft_merge.safetensors");
    let all = adapters(&golden);
    let weights = [0.7, -0.4, 1.5];
    let frequency = |o: MergeOptions| MergeOptions { majority_sign: MajoritySign::Frequency, ..o };
    let cases = [
        ("linear", 2, options("linear", None)),
        ("cat", 2, options("cat", None)),
        ("cat_three", 3, options("cat", None)),
        ("svd", 2, options("svd", None)),
        ("svd_rank3", 3, MergeOptions { svd_rank: Some(3), ..options("svd", None) }),
        ("ties", 2, options("ties", Some(0.5))),
        ("ties_frequency", 2, frequency(options("ties", Some(0.8)))),
        ("ties_svd", 3, options("ties_svd", Some(0.4))),
        ("dare_linear", 2, options("dare_linear", Some(1.0))),
        ("dare_ties", 2, options("dare_ties", Some(1.0))),
        ("dare_linear_svd", 2, options("dare_linear_svd", Some(1.0))),
        ("dare_ties_svd", 2, options("dare_ties_svd", Some(1.0))),
        ("magnitude_prune", 2, options("magnitude_prune", Some(0.3))),
        ("magnitude_prune_svd", 2, options("magnitude_prune_svd", Some(0.3))),
    ];
    for (name, n, options) in cases {
        let chosen: Vec<(&Adapter, f64)> = all.iter().zip(weights).take(n).collect();
        let merged = combine(&chosen, &shapes(), &options).unwrap_or_else(|e| panic!("{name}: {e}"));
        for (layer, module) in [0, 1].into_iter().flat_map(|l| MODULES.map(|m| (l, m))) {
            let branch = merged.low_rank(layer, module).expect("a branch");
            assert_eq!(branch.scale, 1.0);
            let key = format!("{name}.{layer}.{module}");
            if !options.method.name.ends_with("svd") {
                close(&key, branch.a, &golden.f32s(&format!("{key}.A")));
                close(&key, branch.b, &golden.f32s(&format!("{key}.B")));
            } else if layer == 0 && module != "mlp.down_proj" {
                let want = golden.f32s(&format!("{key}.BA"));
                let mut got = vec![0f32; want.len()];
                merged.merge_into(layer, module, &mut got);
                close(&key, &got, &want);
            }
        }
    }
}

/// As in `goldens/mergekit_merge.py`: what mergekit makes of the changes themselves.
#[test]
fn methods_that_mergekit_has_give_its_result() {
    let golden = Golden::open("mergekit_merge.safetensors");
    let all = adapters(&Golden::open("peft_merge.safetensors"));
    let arc = |t: f64| MergeOptions { t: Some(t), ..options("slerp", None) };
    // 1.01 times the first plus 0.001 times the second: nearly the same direction.
    let near = combine(
        &[(&all[0], 1.01), (&all[1], 0.001)],
        &shapes(),
        &MergeOptions { svd_rank: Some(8), ..options("task_arithmetic", None) },
    )
    .expect("a sum");
    let full = |o: MergeOptions| MergeOptions { svd_rank: Some(64), ..o };
    let (one, two, three) = (&all[0], &all[1], &all[2]);
    type Weighed<'a> = Vec<(&'a Adapter, f64)>;
    let cases: [(&str, Weighed, MergeOptions); 8] = [
        ("slerp_03", vec![(one, 1.0), (two, 1.0)], arc(0.3)),
        ("slerp_1", vec![(one, 1.0), (two, 1.0)], arc(1.0)),
        ("slerp_near", vec![(one, 1.0), (&near, 1.0)], arc(0.6)),
        ("linear", vec![(one, 0.7), (two, -0.4)], options("cat", None)),
        ("task_arithmetic", vec![(one, 0.7), (two, -0.4), (three, 1.5)], options("task_arithmetic", None)),
        ("ties", vec![(one, 1.0), (two, 1.0), (three, 1.0)], full(options("ties_svd", Some(0.4)))),
        ("dare_linear", vec![(one, 0.7), (two, -0.4)], full(options("dare_linear_svd", Some(1.0)))),
        ("dare_ties", vec![(one, 1.0), (two, 1.0)], full(options("dare_ties_svd", Some(1.0)))),
    ];
    for (name, chosen, options) in cases {
        let merged = combine(&chosen, &shapes(), &options).unwrap_or_else(|e| panic!("{name}: {e}"));
        for module in &MODULES[..2] {
            let key = format!("{name}.0.{module}");
            let want = golden.f32s(&key);
            let mut got = vec![0f32; want.len()];
            merged.merge_into(0, module, &mut got);
            close(&key, &got, &want);
        }
    }
}

#[test]
fn slerp_says_what_it_needs() {
    let all = adapters(&Golden::open("peft_merge.safetensors"));
    let error = |chosen: &[(&Adapter, f64)], options: &MergeOptions| {
        combine(chosen, &shapes(), options).err().expect("refused").to_string()
    };
    let slerp = options("slerp", None);
    let three: Vec<(&Adapter, f64)> = all.iter().map(|a| (a, 1.0)).collect();
    assert!(error(&three, &slerp).contains("between two adapters, not 3"));
    assert!(error(&[(&all[0], 0.5), (&all[1], 1.0)], &slerp).contains("takes no weights"));
    let beyond = MergeOptions { t: Some(1.5), ..slerp };
    assert!(error(&[(&all[0], 1.0), (&all[1], 1.0)], &beyond).contains("--t 1.5"));
    let stray = MergeOptions { t: Some(0.5), ..options("cat", None) };
    assert!(error(&[(&all[0], 1.0), (&all[1], 1.0)], &stray).contains("knows no arc"));
}

#[test]
fn every_method_merges_one_adapter_to_itself_and_says_what_it_needs() {
    let golden = Golden::open("peft_merge.safetensors");
    let all = adapters(&golden);
    let delta = |a: &Adapter| {
        let mut values = vec![0f32; 64 * 64];
        a.merge_into(1, "self_attn.q_proj", &mut values);
        values
    };
    for method in METHODS {
        let merged = combine(&[(&all[1], 1.0)], &shapes(), &options(method.name, None)).expect("one adapter");
        close(method.name, &delta(&merged), &delta(&all[1]));
    }
    let two = [(&all[0], 1.0), (&all[1], 1.0)];
    let error = combine(&two, &shapes(), &options("ties", None)).err().expect("no density").to_string();
    assert!(error.contains("--density"), "{error}");
    assert!(combine(&two, &shapes(), &options("ties", Some(1.5))).is_err());
    let ranks = [(&all[0], 1.0), (&all[2], 1.0)];
    let error = combine(&ranks, &shapes(), &options("linear", None)).err().expect("two ranks").to_string();
    assert!(error.contains("--method cat"), "{error}");
    // The same method over the changes takes any ranks.
    let error = combine(&ranks, &shapes(), &options("ties", Some(0.5))).err().expect("two ranks").to_string();
    assert!(error.contains("--method ties_svd"), "{error}");
    assert!(combine(&[], &shapes(), &options("cat", None)).is_err());
}

#[test]
fn sums_of_changes_are_exact_without_a_rank() {
    let golden = Golden::open("peft_merge.safetensors");
    let all = adapters(&golden);
    let chosen: Vec<(&Adapter, f64)> = all.iter().zip([1.0, 0.5, -2.0]).collect();
    let of = |name: &str| combine(&chosen, &shapes(), &options(name, None)).expect("they merge");
    let (cat, sum) = (of("cat"), of("task_arithmetic"));
    for module in MODULES {
        let size =
            shapes().iter().find(|s| s.module == module).map(|s| s.inputs * s.outputs).expect("a size");
        let (mut a, mut b) = (vec![0f32; size], vec![0f32; size]);
        cat.merge_into(0, module, &mut a);
        sum.merge_into(0, module, &mut b);
        close(module, &b, &a);
    }
}
