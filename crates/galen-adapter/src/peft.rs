//! PEFT's two files, read and written.

use crate::adapter::Adapter;
use crate::config::{AdapterConfig, Init, scale};
use crate::error::{Error, Result, file_error};
use crate::score;
use crate::targets::{ModuleShape, Targets};
use regex::{Regex, RegexBuilder};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, HashMap};
use std::path::Path;

/// Settings of PEFT's that change what an adapter computes, and are not built.
const UNSUPPORTED: [&str; 12] = [
    "lora_bias",
    "fan_in_fan_out",
    "layer_replication",
    "trainable_token_indices",
    "target_parameters",
    "alora_invocation_tokens",
    "use_qalora",
    "use_bdlora",
    "velora_config",
    "monteclora_config",
    "arrow_config",
    "kasa_config",
];
/// Starts of PEFT's `init_lora_weights` that take their matrices out of the base.
const CHANGES_BASE: [&str; 5] = ["pissa", "olora", "corda", "loftq", "lora_ga"];
/// Largest `adapter_config.json` read.
const MAX_CONFIG_BYTES: u64 = 1 << 20;

/// The base model an adapter names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BaseRecord {
    /// `base_model_name_or_path`.
    pub name: Option<String>,
    /// `revision`.
    pub revision: Option<String>,
}

/// Writes `adapter_model.safetensors` and `adapter_config.json` into an existing directory, each under a
/// temporary name, synced and renamed.
pub fn save_peft(adapter: &Adapter, base: &BaseRecord, dir: &Path) -> Result<()> {
    let tensors: Vec<(String, Vec<usize>, Vec<u8>)> = adapter
        .tensors()
        .map(|(key, dims, values)| (key, dims, values.iter().flat_map(|v| v.to_le_bytes()).collect()))
        .collect();
    let mut views = BTreeMap::new();
    for (key, dims, bytes) in &tensors {
        let view = TensorView::new(Dtype::F32, dims.clone(), bytes);
        views.insert(key.clone(), view.map_err(|e| Error::Config(format!("{key}: {e}")))?);
    }
    let metadata = HashMap::from([("format".to_string(), "pt".to_string())]);
    let bytes = safetensors::serialize(views, Some(metadata))
        .map_err(|e| Error::Config(format!("adapter_model.safetensors: {e}")))?;
    replace(&dir.join("adapter_model.safetensors"), &bytes)?;
    let mut text = serde_json::to_string_pretty(&config_json(adapter, base))
        .map_err(|e| Error::Config(format!("adapter_config.json: {e}")))?;
    text.push('\n');
    replace(&dir.join("adapter_config.json"), text.as_bytes())
}

fn replace(path: &Path, bytes: &[u8]) -> Result<()> {
    galen_files::replace(path, bytes).or_else(|e| file_error(path.display(), e.to_string()))
}

fn config_json(adapter: &Adapter, base: &BaseRecord) -> Value {
    let c = &adapter.config;
    let mut names: Vec<&str> = adapter
        .layers()
        .iter()
        .flat_map(|l| &l.entries)
        .map(|e| e.shape.module.rsplit('.').next().unwrap_or(e.shape.module))
        .collect();
    names.sort_unstable();
    names.dedup();
    let init = match c.init {
        Init::Kaiming => json!(true),
        Init::Gaussian => json!("gaussian"),
        Init::Random => json!(false),
    };
    // Modules that an imported adapter gave a rank or scale of their own keep it.
    let (mut ranks, mut alphas) = (Map::new(), Map::new());
    for e in adapter.layers().iter().flat_map(|l| &l.entries) {
        let name = format!("model.layers.{}.{}", e.shape.layer, e.shape.module);
        if e.r != c.r {
            ranks.insert(name.clone(), json!(e.r));
        }
        let root = if c.rslora { (e.r as f64).sqrt() } else { e.r as f64 };
        let alpha = f64::from(e.scale) * root;
        if (alpha - c.alpha).abs() > 1e-4 * c.alpha.abs() {
            alphas.insert(name, number(alpha));
        }
    }
    json!({
        "alpha_pattern": alphas,
        "auto_mapping": null,
        "base_model_name_or_path": base.name,
        "bias": "none",
        "fan_in_fan_out": false,
        "inference_mode": true,
        "init_lora_weights": init,
        "layer_replication": null,
        "layers_pattern": null,
        "layers_to_transform": c.layers,
        "lora_alpha": number(c.alpha),
        "lora_bias": false,
        "lora_dropout": f64::from(c.dropout.to_string().parse::<f32>().unwrap_or(c.dropout)),
        "megatron_config": null,
        "megatron_core": "megatron.core",
        "modules_to_save": adapter.score_head().map(|_| score::MODULES),
        "peft_type": "LORA",
        "r": c.r,
        "rank_pattern": ranks,
        "revision": base.revision,
        "target_modules": names,
        "task_type": if adapter.score_head().is_some() { "SEQ_CLS" } else { "CAUSAL_LM" },
        "use_dora": c.method == "dora",
        "use_rslora": c.rslora,
    })
}

/// Whole numbers without a decimal point, as PEFT writes them.
fn number(x: f64) -> Value {
    if x.fract() == 0.0 && x.abs() < 1e15 { json!(x as i64) } else { json!(x) }
}

/// `adapter_config.json` of a folder, and where it lies.
fn read_config(dir: &Path) -> Result<(Value, String)> {
    let config_path = dir.join("adapter_config.json");
    let origin = config_path.display().to_string();
    let size = std::fs::metadata(&config_path).or_else(|e| file_error(&origin, e.to_string()))?.len();
    if size > MAX_CONFIG_BYTES {
        return file_error(&origin, format!("{size} bytes is too large for a configuration"));
    }
    let text = std::fs::read_to_string(&config_path).or_else(|e| file_error(&origin, e.to_string()))?;
    let value = serde_json::from_str(&text).or_else(|e| file_error(&origin, e.to_string()))?;
    Ok((value, origin))
}

fn record(value: &Value) -> BaseRecord {
    let text_of = |key: &str| value[key].as_str().map(String::from);
    BaseRecord { name: text_of("base_model_name_or_path"), revision: text_of("revision") }
}

/// The base that an adapter's configuration names.
pub fn peft_base(dir: &Path) -> Result<BaseRecord> {
    Ok(record(&read_config(dir)?.0))
}

/// Reads an adapter made by PEFT or by us. `modules` are the base model's projections.
pub fn load_peft(dir: &Path, modules: &[ModuleShape], seed: u64) -> Result<(Adapter, BaseRecord)> {
    let (value, origin) = read_config(dir)?;
    let fail = |what: String| file_error(&origin, what);
    if value["peft_type"].as_str() != Some("LORA") {
        return fail(format!("`peft_type` is `{}`, only `LORA` is supported", value["peft_type"]));
    }
    for key in UNSUPPORTED {
        let plain = match &value[key] {
            Value::Null | Value::Bool(false) => true,
            Value::Array(list) => list.is_empty(),
            Value::Object(map) => map.is_empty(),
            _ => false,
        };
        if !plain {
            return fail(format!("`{key}: {}` is not supported", value[key]));
        }
    }
    // These split the base's own weights: the adapter means something over what is left of them alone.
    if let Some(init) = value["init_lora_weights"].as_str()
        && let Some(which) = CHANGES_BASE.iter().find(|name| init.starts_with(*name))
    {
        return fail(format!(
            "`init_lora_weights: {init}`: {which} changes the base's weights, so the adapter is not one over the base\nhint: \
             save it in PEFT with `save_pretrained(..., path_initial_model_for_weight_conversion=...)`"
        ));
    }
    let whole = value["modules_to_save"].as_array().map_or(&[][..], Vec::as_slice);
    if let Some(other) = whole.iter().find(|m| !m.as_str().is_some_and(|m| score::MODULES.contains(&m))) {
        return fail(format!(
            "`modules_to_save` names `{other}`, only a reward model's `score` is supported"
        ));
    }
    if !matches!(value["bias"].as_str(), None | Some("none")) {
        return fail(format!("`bias: {}` is not supported", value["bias"]));
    }
    let Some(r) = value["r"].as_u64().map(|r| r as usize).filter(|r| (1..=65_536).contains(r)) else {
        return fail(format!("`r` is `{}`", value["r"]));
    };
    let Some(alpha) = value["lora_alpha"].as_f64() else {
        return fail(format!("`lora_alpha` is `{}`", value["lora_alpha"]));
    };
    let rslora = value["use_rslora"].as_bool().unwrap_or(false);
    let dora = value["use_dora"].as_bool().unwrap_or(false);
    let alphas = Patterns::read(&value["alpha_pattern"]).or_else(|e| file_error(&origin, e))?;
    let weights_path = dir.join("adapter_model.safetensors");
    let weights_origin = weights_path.display().to_string();
    let bytes = galen_ops::mmap::Bytes::open(&weights_path)
        .or_else(|e| file_error(&weights_origin, e.to_string()))?;
    let tensors =
        SafeTensors::deserialize(bytes.as_slice()).or_else(|e| file_error(&weights_origin, e.to_string()))?;
    let layers = value["layers_to_transform"]
        .as_array()
        .map(|l| l.iter().filter_map(Value::as_u64).map(|l| l as usize).collect::<Vec<_>>());
    let targets = match &value["target_modules"] {
        Value::String(s) if s == "all-linear" => Targets::All,
        Value::String(s) => Targets::Pattern(s.clone()),
        Value::Array(names) => {
            Targets::Names(names.iter().filter_map(Value::as_str).map(String::from).collect())
        }
        other => return fail(format!("`target_modules` is `{other}`")),
    };
    let config = AdapterConfig {
        method: if dora { "dora" } else { "lora" }.into(),
        r,
        alpha,
        dropout: value["lora_dropout"].as_f64().unwrap_or(0.0) as f32,
        rslora,
        targets,
        layers,
        init: Init::Kaiming,
        seed,
    };
    // The weights decide which projections are adapted; a rank comes from the shape of A.
    let mut chosen = Vec::new();
    let mut known = std::collections::HashSet::new();
    for m in modules {
        let prefix = format!("base_model.model.model.layers.{}.{}.", m.layer, m.module);
        let Ok(a) = tensors.tensor(&format!("{prefix}lora_A.weight")) else { continue };
        let rank = a.shape().first().copied().unwrap_or(0);
        // Before anything is sized by the rank: a matrix without columns could state any, and hold no byte.
        if a.shape() != [rank, m.inputs] {
            let key = format!("{prefix}lora_A.weight");
            let what = format!(
                "`{key}` is `{:?}` for a projection of `{}` inputs\nhint: the adapter was trained over another base; \
                 `adapter_config.json` names it",
                a.shape(),
                m.inputs
            );
            return file_error(&weights_origin, what);
        }
        let name = format!("model.layers.{}.{}", m.layer, m.module);
        let alpha = alphas.find(&name).unwrap_or(alpha);
        chosen.push((m.clone(), rank, scale(alpha, rank.max(1), rslora) as f32));
        known.insert(format!("{prefix}lora_A.weight"));
        known.insert(format!("{prefix}lora_B.weight"));
        if dora {
            known.insert(format!("{prefix}lora_magnitude_vector"));
        }
    }
    let head = match tensors.tensor(score::KEY) {
        Err(_) => None,
        Ok(t) if matches!(t.shape(), [1, _]) => Some(t.shape()[1]),
        Ok(t) => {
            let what = format!(
                "`{}` is `{:?}`: only a head of one value, a reward, is supported",
                score::KEY,
                t.shape()
            );
            return file_error(&weights_origin, what);
        }
    };
    if head.is_none() && whole.iter().any(|m| m.as_str() == Some("score")) {
        return file_error(&weights_origin, format!("tensor `{}` is missing", score::KEY));
    }
    known.insert(score::KEY.to_owned());
    if let Some(stray) = tensors.names().into_iter().find(|n| !known.contains(*n)) {
        return file_error(
            &weights_origin,
            format!("tensor `{stray}` belongs to no projection of the base model"),
        );
    }
    if chosen.is_empty() {
        return file_error(&weights_origin, "it holds no LoRA matrices");
    }
    let mut adapter = Adapter::zeros(config, chosen)?;
    adapter.score_head = head.map(|width| vec![0.0; width]);
    let wanted: Vec<(String, Vec<usize>)> = adapter.tensors().map(|(k, d, _)| (k, d)).collect();
    for (key, dims) in wanted {
        let Ok(t) = tensors.tensor(&key) else {
            return file_error(&weights_origin, format!("tensor `{key}` is missing"));
        };
        if t.shape() != dims {
            return file_error(
                &weights_origin,
                format!("`{key}` is `{:?}` instead of `{dims:?}`", t.shape()),
            );
        }
        let Some(values) = floats(t.dtype(), t.data()) else {
            return file_error(&weights_origin, format!("`{key}` has the dtype `{:?}`", t.dtype()));
        };
        if let Some(at) = values.iter().position(|v| !v.is_finite()) {
            return file_error(
                &weights_origin,
                format!(
                    "`{key}` holds `{}` (value {at})\nhint: training diverged or the file is damaged; take an earlier checkpoint",
                    values[at]
                ),
            );
        }
        adapter.set(&key, &values);
    }
    Ok((adapter, record(&value)))
}

/// PEFT's patterns: a key is a regular expression that matches a module's name or its end after a dot; the first that
/// does counts.
struct Patterns(Vec<(Regex, f64)>);

impl Patterns {
    fn read(patterns: &Value) -> std::result::Result<Self, String> {
        let read = |(key, value): (&String, &Value)| {
            // A pattern may state repetitions that fill the memory.
            let regex = RegexBuilder::new(&format!("^(?:.*\\.)?(?:{key})$")).size_limit(1 << 20).build();
            let regex = regex.map_err(|e| format!("`alpha_pattern` has the key `{key}`: {e}"))?;
            let number = value.as_f64().ok_or_else(|| format!("`alpha_pattern` of `{key}` is `{value}`"))?;
            Ok((regex, number))
        };
        patterns.as_object().into_iter().flatten().map(read).collect::<std::result::Result<_, _>>().map(Self)
    }

    fn find(&self, name: &str) -> Option<f64> {
        self.0.iter().find(|(regex, _)| regex.is_match(name)).map(|(_, number)| *number)
    }
}

/// A tensor's values, where its type is one of the usual floats.
pub fn floats(dtype: Dtype, data: &[u8]) -> Option<Vec<f32>> {
    Some(match dtype {
        Dtype::F32 => data.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect(),
        Dtype::BF16 => data
            .as_chunks()
            .0
            .iter()
            .map(|b| f32::from_bits(u32::from(u16::from_le_bytes(*b)) << 16))
            .collect(),
        Dtype::F16 => data.as_chunks().0.iter().map(|b| half::f16::from_le_bytes(*b).to_f32()).collect(),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn modules() -> Vec<ModuleShape> {
        (0..2)
            .flat_map(|layer| {
                ["self_attn.q_proj", "mlp.down_proj"].map(|module| ModuleShape {
                    layer,
                    module,
                    inputs: 6,
                    outputs: 4,
                })
            })
            .collect()
    }

    fn adapter() -> Adapter {
        let config = AdapterConfig {
            method: "lora".into(),
            r: 2,
            alpha: 8.0,
            dropout: 0.05,
            rslora: true,
            targets: Targets::All,
            layers: None,
            init: Init::Random,
            seed: 3,
        };
        Adapter::new(config, &modules()).unwrap()
    }

    #[test]
    fn what_is_written_is_read_back_to_the_bit_and_the_bytes_repeat() {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let base = BaseRecord { name: Some("org/base".into()), revision: None };
        save_peft(&adapter(), &base, one.path()).unwrap();
        let (back, record) = load_peft(one.path(), &modules(), 3).unwrap();
        assert_eq!(record, base);
        assert_eq!(back.layers(), adapter().layers());
        save_peft(&back, &base, two.path()).unwrap();
        for file in ["adapter_model.safetensors", "adapter_config.json"] {
            let read = |d: &tempfile::TempDir| std::fs::read(d.path().join(file)).unwrap();
            let (a, b) = (read(&one), read(&two));
            assert!(a == b || file.ends_with("json"), "{file}");
        }
    }

    #[test]
    fn damaged_adapters_are_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        save_peft(&adapter(), &BaseRecord::default(), dir.path()).unwrap();
        let config = std::fs::read_to_string(dir.path().join("adapter_config.json")).unwrap();
        for (from, to) in [
            ("\"LORA\"", "\"IA3\""),
            ("\"alpha_pattern\": {}", "\"alpha_pattern\": {\"(\": 1}"),
            ("\"init_lora_weights\": false", "\"init_lora_weights\": \"pissa_niter_4\""),
            ("\"layer_replication\": null", "\"layer_replication\": [[0, 1]]"),
            ("\"r\": 2", "\"r\": 0"),
            ("\"bias\": \"none\"", "\"bias\": \"all\""),
            ("{", "["),
        ] {
            std::fs::write(dir.path().join("adapter_config.json"), config.replacen(from, to, 1)).unwrap();
            let Err(e) = load_peft(dir.path(), &modules(), 0) else { panic!("{to} was accepted") };
            assert!(e.to_string().contains("adapter_config.json"), "{e}");
        }
        let dora = config.replacen("\"use_dora\": false", "\"use_dora\": true", 1);
        std::fs::write(dir.path().join("adapter_config.json"), dora).unwrap();
        let Err(e) = load_peft(dir.path(), &modules(), 0) else { panic!("DoRA without magnitudes") };
        assert!(e.to_string().contains("lora_magnitude_vector` is missing"), "{e}");
        std::fs::write(dir.path().join("adapter_config.json"), &config).unwrap();
        assert!(load_peft(dir.path(), &modules()[..2], 0).is_err(), "stray tensors");
        std::fs::write(dir.path().join("adapter_model.safetensors"), [255u8; 64]).unwrap();
        assert!(load_peft(dir.path(), &modules(), 0).is_err());
    }
    #[test]
    fn a_rank_without_bytes_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        save_peft(&adapter(), &BaseRecord::default(), dir.path()).unwrap();
        let key =
            |which: &str| format!("base_model.model.model.layers.0.self_attn.q_proj.lora_{which}.weight");
        let (rows, columns) = (200, 0);
        let a = TensorView::new(Dtype::F32, vec![rows, columns], &[]).unwrap();
        let b = TensorView::new(Dtype::F32, vec![columns, rows], &[]).unwrap();
        let bytes = safetensors::serialize(BTreeMap::from([(key("A"), a), (key("B"), b)]), None).unwrap();
        std::fs::write(dir.path().join("adapter_model.safetensors"), bytes).unwrap();
        let Err(e) = load_peft(dir.path(), &modules(), 0) else { panic!("accepted") };
        assert!(e.to_string().contains("is `[200, 0]` for a projection of `6` inputs"), "{e}");
    }
}
