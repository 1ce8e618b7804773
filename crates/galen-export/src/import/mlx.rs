//! mlx-lm's folders: `adapters.safetensors` and an `adapter_config.json` of its own.
//!
//! Matrices lie transposed to PEFT's: `NAME.lora_a` `[in, r]`, `NAME.lora_b` `[r, out]`; DoRA's `NAME.m` `[out]`. `scale` of
//! `lora_parameters` multiplies the branch as it is, whatever the rank. The tensors' names say which blocks are adapted, so that
//! `num_layers` (the last blocks) and `keys` need not be read.

use super::{AdapterFiles, Branch, Over, adapter_of};
use crate::error::{Error, Result, at, cannot};
use galen_adapter::{Adapter, BaseRecord, floats};
use galen_ops::mmap::Bytes;
use safetensors::SafeTensors;
use serde_json::Value;
use std::collections::HashSet;
use std::path::{Path, PathBuf};

const WEIGHTS: &str = "adapters.safetensors";
const CONFIG: &str = "adapter_config.json";
/// Largest configuration read.
const MAX_CONFIG_BYTES: u64 = 1 << 20;

pub(super) struct Mlx;

fn config(path: &Path) -> Result<Value> {
    let file = path.join(CONFIG);
    let size = std::fs::metadata(&file).map_err(at(&file))?.len();
    if size > MAX_CONFIG_BYTES {
        return cannot(
            format!("{}: {size} bytes are no configuration", file.display()),
            "the file is damaged",
        );
    }
    let text = std::fs::read_to_string(&file).map_err(at(&file))?;
    serde_json::from_str(&text).or_else(|e| cannot(format!("{}: {e}", file.display()), "the file is damaged"))
}

/// The branch's factor and its dropout. Errors: full fine-tuning, no scale, or the older form whose factor is ambiguous.
fn parameters(config: &Value, file: &Path) -> Result<(f32, f32)> {
    let fail = |what: String, hint: &str| cannot(format!("{}: {what}", file.display()), hint);
    match config["fine_tune_type"].as_str() {
        None | Some("lora" | "dora") => {}
        Some(other) => {
            let hint = "only adapters are read; convert a fully trained model with `mlx_lm.fuse`";
            return fail(format!("`fine_tune_type` is `{other}`"), hint);
        }
    }
    let lora = &config["lora_parameters"];
    if !lora["alpha"].is_null() {
        let what = format!(
            "`lora_parameters` has `alpha: {}`, which older versions of mlx-lm multiply by (`scale * alpha / rank`) and newer \
             ones ignore",
            lora["alpha"]
        );
        return fail(what, "set `scale` to the factor that was trained with and take `alpha` out");
    }
    let scale = lora["scale"].as_f64().map(|s| s as f32).filter(|s| s.is_finite());
    let Some(scale) = scale else {
        return fail(
            format!("`lora_parameters` has `scale: {}`", lora["scale"]),
            "it is the branch's factor",
        );
    };
    Ok((scale, lora["dropout"].as_f64().unwrap_or(0.0) as f32))
}

impl AdapterFiles for Mlx {
    fn name(&self) -> &'static str {
        "mlx"
    }

    fn about(&self) -> &'static str {
        "mlx-lm's folders (`adapter_config.json`, `adapters.safetensors`)"
    }

    fn holds(&self, path: &Path) -> bool {
        path.join(WEIGHTS).is_file() && path.join(CONFIG).is_file()
    }

    fn weights(&self, path: &Path) -> PathBuf {
        path.join(WEIGHTS)
    }

    fn base(&self, path: &Path) -> Result<BaseRecord> {
        let name = config(path)?["model"].as_str().map(str::to_owned);
        Ok(BaseRecord { name, revision: None })
    }

    fn load(&self, path: &Path, over: Over, seed: u64) -> Result<(Adapter, BaseRecord)> {
        let (scale, dropout) = parameters(&config(path)?, &path.join(CONFIG))?;
        let file = self.weights(path);
        let name = file.display();
        let bytes = Bytes::open(&file).map_err(|e| Error::Cannot {
            what: format!("{name}: {e}"),
            hint: "the file is damaged".into(),
        })?;
        let damaged = "the file is damaged, or an adapter of another base";
        let tensors = SafeTensors::deserialize(bytes.as_slice());
        let tensors = tensors.or_else(|e| cannot(format!("{name}: {e}"), damaged))?;
        let read = |key: &str, dims: &[usize]| {
            let tensor = match tensors.tensor(key) {
                Ok(tensor) if tensor.shape() == dims => tensor,
                Ok(other) => {
                    return cannot(
                        format!("{name}: `{key}` is `{:?}` instead of `{dims:?}`", other.shape()),
                        damaged,
                    );
                }
                Err(_) => return cannot(format!("{name}: tensor `{key}` is missing"), damaged),
            };
            match floats(tensor.dtype(), tensor.data()) {
                Some(values) => Ok(values),
                None => cannot(format!("{name}: `{key}` has the dtype `{:?}`", tensor.dtype()), damaged),
            }
        };
        let (mut known, mut branches) = (HashSet::new(), Vec::new());
        for shape in over.modules {
            let key = |part: &str| format!("model.layers.{}.{}.{part}", shape.layer, shape.module);
            let Ok(a) = tensors.tensor(&key("lora_a")) else { continue };
            // The rank: the file's own, once the matrix is seen to have that many columns.
            let r = a.shape().last().copied().unwrap_or(0);
            let a = transposed(&read(&key("lora_a"), &[shape.inputs, r])?, r);
            let b = transposed(&read(&key("lora_b"), &[r, shape.outputs])?, shape.outputs);
            let magnitude = match tensors.tensor(&key("m")) {
                Ok(_) => Some(read(&key("m"), &[shape.outputs])?),
                Err(_) => None,
            };
            known.extend([key("lora_a"), key("lora_b"), key("m")]);
            branches.push(Branch { shape: shape.clone(), a, b, magnitude, r, scale });
        }
        if let Some(stray) = tensors.names().into_iter().find(|n| !known.contains(*n)) {
            let what = format!("{name}: tensor `{stray}` belongs to no projection of the base");
            return cannot(what, "adapters of embeddings, heads and experts are not supported");
        }
        Ok((adapter_of(path, branches, dropout, seed)?, self.base(path)?))
    }
}

/// `[rows, width]` to `[width, rows]`.
fn transposed(values: &[f32], width: usize) -> Vec<f32> {
    let rows = values.len() / width.max(1);
    let mut out = Vec::with_capacity(values.len());
    for column in 0..width {
        out.extend((0..rows).map(|row| values[row * width + column]));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_factor_is_the_scale_alone() {
        let file = Path::new("adapter_config.json");
        let read = |config: Value| parameters(&config, file);
        let sound =
            json!({"fine_tune_type": "lora", "lora_parameters": {"rank": 8, "scale": 20.0, "dropout": 0.1}});
        assert_eq!(read(sound).ok(), Some((20.0, 0.1)));
        for (bad, says) in [
            (json!({"fine_tune_type": "full", "lora_parameters": {"scale": 1.0}}), "fine_tune_type"),
            (json!({"lora_parameters": {"rank": 8, "alpha": 16, "scale": 10.0}}), "alpha: 16"),
            (json!({"lora_parameters": {"rank": 8}}), "scale: null"),
            (json!({"lora_parameters": {"scale": 1e300}}), "scale"),
            (json!([]), "scale"),
        ] {
            let e = read(bad).err().map(|e| e.to_string()).unwrap_or_default();
            assert!(e.starts_with("adapter_config.json: ") && e.contains(says), "{e}");
        }
    }

    /// Either file mutated beside the other as it is: refused, or an adapter; never a panic.
    #[test]
    fn mutated_folders_do_not_panic() {
        let folder = galen_testkit::fuzz::folder();
        let base = folder.path().join("m.gguf");
        std::fs::write(&base, galen_testkit::tiny_gguf::tiny_gguf(3)).unwrap();
        let weights = galen_model::Weights::open(&base).unwrap();
        let modules = crate::module_shapes(weights.config());
        let shape = &modules[0];
        let numbers = |n: usize| (0..n).flat_map(|i| (i as f32 / 7.0).to_le_bytes()).collect::<Vec<u8>>();
        let key = |part: &str| format!("model.layers.{}.{}.{part}", shape.layer, shape.module);
        let tensors = [
            (key("lora_a"), vec![shape.inputs, 2], numbers(2 * shape.inputs)),
            (key("lora_b"), vec![2, shape.outputs], numbers(2 * shape.outputs)),
            (key("m"), vec![shape.outputs], numbers(shape.outputs)),
        ];
        let views = tensors.iter().map(|(key, dims, bytes)| {
            let view = safetensors::tensor::TensorView::new(safetensors::Dtype::F32, dims.clone(), bytes);
            (key.clone(), view.unwrap())
        });
        let weights_bytes = safetensors::serialize(views, None).unwrap();
        let config_bytes =
            json!({"fine_tune_type": "dora", "lora_parameters": {"rank": 2, "scale": 2.0, "dropout": 0.0}})
                .to_string()
                .into_bytes();
        let over = Over { config: weights.config(), modules: &modules };
        for (name, sound) in [(WEIGHTS, &weights_bytes), (CONFIG, &config_bytes)] {
            std::fs::write(folder.path().join(WEIGHTS), &weights_bytes).unwrap();
            std::fs::write(folder.path().join(CONFIG), &config_bytes).unwrap();
            let mut adapters = 0;
            galen_testkit::fuzz::run(name, std::slice::from_ref(sound), |bytes| {
                std::fs::write(folder.path().join(name), bytes).unwrap();
                adapters += u32::from(Mlx.load(folder.path(), over, 0).is_ok());
            });
            assert!(adapters > 0, "the sound one is read");
        }
    }

    #[test]
    fn matrices_are_turned() {
        assert_eq!(transposed(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], 3), [1.0, 4.0, 2.0, 5.0, 3.0, 6.0]);
        assert!(transposed(&[], 0).is_empty());
    }
}
