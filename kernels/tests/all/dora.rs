//! Weight-decomposed adapters on a device: steps and runs.

use crate::tiny::{hugging_face, llama};
use crate::training::{adapter, bits, device, furthest, lora, of_runs, run, whole_step};
use galen_adapter::{Adapter, AdapterConfig, load_peft};
use galen_model::{Model, Precision};
use galen_ops::ops::Compute;
use galen_ops::quant::WeightDtype;
use galen_train::{Sft, TrainSettings, module_shapes};
use safetensors::SafeTensors;
use std::path::Path;

fn dora(r: usize) -> AdapterConfig {
    AdapterConfig { method: "dora".into(), ..lora(r) }
}

fn dropped(r: usize) -> AdapterConfig {
    AdapterConfig { dropout: 0.25, ..dora(r) }
}

/// Norms of the adapted rows are formed there; the base reads what dropout took, the adapted weight what it kept; biases stay as they
/// are.
#[test]
fn a_step_of_weight_decomposed_adapters() {
    whole_step("dora", &|compute| llama(WeightDtype::Q8_0, Precision::Stored, compute), dora(5));
    whole_step("dora, dropout", &|compute| llama(WeightDtype::BF16, Precision::Stored, compute), dropped(8));
    whole_step("dora, biases", &|compute| hugging_face("qwen2", compute), dora(8));
}

/// Each tensor of a checkpoint's files: name, type, shape.
pub fn layout(checkpoint: &Path) -> Vec<String> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(checkpoint).unwrap() {
        let path = entry.unwrap().path();
        let file = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.extension().is_some_and(|e| e == "safetensors") {
            let bytes = std::fs::read(&path).unwrap();
            for (name, view) in SafeTensors::deserialize(&bytes).unwrap().tensors() {
                all.push(format!("{file} {name} {:?} {:?}", view.dtype(), view.shape()));
            }
        }
        all.push(file);
    }
    all.sort_unstable();
    all
}

/// Puts a checkpoint where another run finds it.
pub fn copy_checkpoint(from: &Path, to: &Path) {
    let to = to.join(from.file_name().unwrap());
    std::fs::create_dir(&to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
    }
}

/// Stopped and gone on with, there and on the processor from the device's own checkpoint.
#[test]
fn a_run_that_was_stopped_goes_on_to_the_same_bits() {
    let model = |compute| llama(WeightDtype::Q8_0, Precision::Stored, compute);
    let (cpu, placed) = (model(Compute::Bf16), model(Compute::Bf16).onto(&device()).unwrap());
    let (rows, settings) = of_runs();
    let start = adapter(&cpu, dropped(5));
    let go = |model: &Model, start: &Adapter, dir: &Path, settings: &TrainSettings, stop| {
        let mut objective = Sft { train: &rows, validation: &rows[..2] };
        run((model, start.clone()), &mut objective, dir, settings.clone(), stop)
    };
    let [whole, parts, here, there] = [(); 4].map(|()| tempfile::tempdir().unwrap());
    let want = go(&placed, &start, whole.path(), &settings, None);
    let stopped = go(&placed, &start, parts.path(), &settings, Some(1));
    assert!(stopped.interrupted && bits(&stopped) != bits(&want));
    let first = parts.path().join("checkpoint-1");
    copy_checkpoint(&first, there.path());
    assert!(
        bits(&go(&placed, &start, parts.path(), &settings, None)) == bits(&want),
        "resuming gives other bits"
    );
    // The processor writes the same tensors, and reads the device's.
    go(&cpu, &start, here.path(), &settings, Some(1));
    assert_eq!(layout(&first), layout(&here.path().join("checkpoint-1")));
    let on_cpu = go(&cpu, &start, there.path(), &settings, None);
    let values = |o: &galen_train::Outcome| o.adapter.buffers().flatten().copied().collect::<Vec<f32>>();
    let far = furthest(&values(&on_cpu), &values(&want));
    assert!(far <= 3e-2, "the processor goes on to values {far:.1e} from the device's");

    // A new run would begin with the trained magnitudes.
    let (trained, _) = load_peft(&whole.path().join("checkpoint-3"), &module_shapes(&placed), 7).unwrap();
    let same = trained.tensors().zip(want.adapter.tensors()).all(|(a, b)| a == b);
    assert!(same && trained.method().name() == "dora", "the files hold another adapter");
    assert!(furthest(&values(&want), &start.buffers().flatten().copied().collect::<Vec<f32>>()) > 1e-3);
}
