//! Exported files read again: the same model, the same tokens, or nothing at all.

use crate::goldens::path;
use crate::support::{TINY, lora};
use galen_adapter::{Adapter, BaseRecord, METHODS, load_peft, save_peft};
use galen_export::{
    Options, Over, QUANTIZATIONS, Quantization, Source, export, find, module_shapes, open_adapter,
};
use galen_model::tokenizer::Tokenizer;
use galen_model::weights::Gguf;
use galen_model::{LoadOptions, Model, Session, Weights};
use galen_ops::hook::ProjectionHook;
use galen_testkit::tiny_gguf::tiny_gguf;
use galen_types::TextEncoder as _;
use serde_json::{Map, json};
use std::path::{Path, PathBuf};

/// A base on the disk with an adapter over it.
struct Case {
    weights: Weights,
    tokenizer: Tokenizer,
    adapter: Adapter,
}

impl Case {
    fn new(base: &Path) -> Self {
        let weights = Weights::open(base).unwrap_or_else(|e| panic!("{}: {e}", base.display()));
        let adapter = Adapter::new(lora(3, 5.0), &module_shapes(weights.config())).expect("the adapter fits");
        Self { tokenizer: Tokenizer::open(base).expect("a tokenizer"), weights, adapter }
    }

    /// The same with an adapter of any method, moved away from its start.
    fn of(method: &str, base: &Path) -> Self {
        let case = Self::new(base);
        let model = Model::load(&case.weights, LoadOptions::default()).expect("a model");
        let config = galen_adapter::AdapterConfig { method: method.into(), ..lora(3, 5.0) };
        let mut adapter = crate::support::adapter(&model, config);
        for buffer in adapter.buffers_mut() {
            for (i, value) in buffer.iter_mut().enumerate() {
                *value += ((i * 37 % 101) as f32 - 50.0) / 400.0;
            }
        }
        Self { adapter, ..case }
    }

    fn source(&self) -> Source<'_> {
        Source {
            weights: &self.weights,
            tokenizer: &self.tokenizer,
            adapter: Some(&self.adapter),
            adapter_dir: None,
            base: BaseRecord { name: Some("org/base".into()), revision: None },
            chat_template: None,
            render: None,
        }
    }

    fn write(&self, format: &str, quantize: Option<&str>, out: &Path) -> galen_export::Result<()> {
        let quantize = quantize.map(|q| Quantization::find(q).expect("a quantisation"));
        let options = Options { quantize, ..Options::default() };
        export(find(format).expect("a format"), &self.source(), &options, out).map(|_| ())
    }
}

fn logits(base: &Path, adapter: Option<&Adapter>) -> Vec<f32> {
    let weights = Weights::open(base).unwrap_or_else(|e| panic!("{}: {e}", base.display()));
    let model = Model::load(&weights, LoadOptions::default()).expect("a model");
    let hook = adapter.map(|a| a as &dyn ProjectionHook);
    let ids: Vec<u32> = (0..40).map(|i| (i * 37 + 5) % 199).collect();
    Session::new(&model, hook).feed(&ids).expect("logits")
}

fn close(what: &str, got: &[f32], want: &[f32], tolerance: f32) {
    let largest = want.iter().fold(0f32, |a, b| a.max(b.abs()));
    for (g, w) in got.iter().zip(want) {
        assert!((g - w).abs() <= tolerance * largest, "{what}: {g} instead of {w}");
    }
}

fn gguf_base(dir: &Path) -> PathBuf {
    let base = dir.join("base.gguf");
    std::fs::write(&base, tiny_gguf(3)).expect("a file");
    base
}

/// One of the tiny models with a byte-level tokenizer of as many tokens as it has.
fn hf_base(name: &str, dir: &Path) -> PathBuf {
    let base = dir.join(name);
    std::fs::create_dir(&base).expect("a folder");
    for file in ["config.json", "model.safetensors"] {
        std::fs::copy(path(&format!("tiny/{name}/{file}")), base.join(file)).expect("a copy");
    }
    let vocab: Map<_, _> = (0x21..0x7f_u8)
        .map(|b| (char::from(b).to_string(), json!(b - 0x21)))
        .chain([("ab".to_owned(), json!(94)), ("abc".to_owned(), json!(95))])
        .collect();
    let tokenizer = json!({
        "version": "1.0", "truncation": null, "padding": null,
        "added_tokens": [{"id": 96, "content": "<end>", "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": true}],
        "normalizer": null,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
        "post_processor": null,
        "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
        "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
            "vocab": vocab, "merges": [["a", "b"], ["ab", "c"]]},
    });
    std::fs::write(base.join("tokenizer.json"), tokenizer.to_string()).expect("a file");
    let config = json!({"eos_token": "<end>", "tokenizer_class": "PreTrainedTokenizerFast"});
    std::fs::write(base.join("tokenizer_config.json"), config.to_string()).expect("a file");
    base
}

fn ids(tokenizer: &Tokenizer) -> Vec<u32> {
    let encoded = tokenizer.encode("abcab<end>x a1b2", true).expect("tokens");
    encoded.into_iter().map(|(id, _)| id).collect()
}

#[test]
fn merged_models_compute_what_the_adapter_over_the_base_does() {
    for name in TINY {
        let dir = tempfile::tempdir().expect("a folder");
        let base = hf_base(name, dir.path());
        for (method, format, out) in METHODS.iter().flat_map(|m| {
            [("hf", format!("hf-{}", m.name())), ("gguf", format!("{}.gguf", m.name()))]
                .map(|(format, out)| (m.name(), format, out))
        }) {
            let case = Case::of(method, &base);
            let want = logits(&base, Some(&case.adapter));
            let out = dir.path().join(out);
            match case.write(format, Some("f32"), &out) {
                Err(e) if name == "gemma3" && format == "gguf" => {
                    assert!(e.to_string().contains("windowed"), "two layers are no pattern of six: {e}");
                    continue;
                }
                result => result.unwrap_or_else(|e| panic!("{name} {format}: {e}")),
            }
            close(&format!("{name} {format} {method}"), &logits(&out, None), &want, 3e-6);
            assert_eq!(
                ids(&Tokenizer::open(&out).expect("a tokenizer")),
                ids(&case.tokenizer),
                "{name} {format}"
            );
        }
    }
}

#[test]
fn a_gguf_base_goes_to_hugging_face_and_back() {
    let dir = tempfile::tempdir().expect("a folder");
    let base = gguf_base(dir.path());
    let case = Case::new(&base);
    let want = logits(&base, Some(&case.adapter));
    let (hf, gguf) = (dir.path().join("hf"), dir.path().join("m.gguf"));
    case.write("hf", Some("f32"), &hf).expect("written");
    case.write("gguf", Some("f32"), &gguf).expect("written");
    close("hf", &logits(&hf, None), &want, 2e-6);
    close("gguf", &logits(&gguf, None), &want, 2e-6);
    let back = Case { adapter: case.adapter.clone(), ..Case::new(&hf) };
    let plain = Source { adapter: None, ..back.source() };
    let again = dir.path().join("again.gguf");
    export(find("gguf").expect("a format"), &plain, &Options::default(), &again).expect("written");
    close("again", &logits(&again, None), &want, 2e-6);
    for model in [&hf, &gguf, &again] {
        let tokenizer = Tokenizer::open(model).expect("a tokenizer");
        assert_eq!(ids(&tokenizer), ids(&case.tokenizer));
        assert_eq!(tokenizer.chat_template(), case.tokenizer.chat_template());
        assert_eq!(tokenizer.eos_ids(), case.tokenizer.eos_ids());
    }
}

#[test]
fn untouched_tensors_and_metadata_are_the_bases() {
    let dir = tempfile::tempdir().expect("a folder");
    let base = gguf_base(dir.path());
    let case = Case::new(&base);
    let plain = Source { adapter: None, ..case.source() };
    let out = dir.path().join("copy.gguf");
    export(find("gguf").expect("a format"), &plain, &Options::default(), &out).expect("written");
    let (a, b) = (Gguf::open(&base).expect("a file"), Gguf::open(&out).expect("a file"));
    for name in a.tensor_names() {
        let (x, y) = (a.tensor(name).expect("there"), b.tensor(name).expect("carried over"));
        assert!(
            x.dtype == y.dtype && x.shape == y.shape && x.bytes.as_slice() == y.bytes.as_slice(),
            "{name}"
        );
    }
    for pair in a.pairs() {
        let carried = b.pairs().iter().find(|p| p.key == pair.key).expect("carried over");
        assert_eq!(carried.bytes.as_slice(), pair.bytes.as_slice(), "{}", pair.key);
    }
}

#[test]
fn every_quantisation_is_read_again_and_smaller_ones_are_further_off() {
    let dir = tempfile::tempdir().expect("a folder");
    let base = gguf_base(dir.path());
    let case = Case::new(&base);
    let want = logits(&base, Some(&case.adapter));
    for q in QUANTIZATIONS {
        let out = dir.path().join(format!("{}.gguf", q.name));
        case.write("gguf", Some(q.name), &out).unwrap_or_else(|e| panic!("{}: {e}", q.name));
        let tolerance = match q.name {
            "f32" => 2e-6,
            "f16" => 2e-3,
            "bf16" | "q8_0" | "q6_k" => 2e-2,
            _ => 0.3,
        };
        close(q.name, &logits(&out, None), &want, tolerance);
        assert_eq!(Gguf::open(&out).expect("a file").u64("general.file_type"), Some(q.file_type.into()));
    }
}

#[test]
fn a_gguf_adapter_holds_the_same_change() {
    let dir = tempfile::tempdir().expect("a folder");
    let base = gguf_base(dir.path());
    let mut case = Case::new(&base);
    // rsLoRA: the scale is not alpha / rank.
    case.adapter = Adapter::new(
        galen_adapter::AdapterConfig { rslora: true, ..lora(3, 5.0) },
        &module_shapes(case.weights.config()),
    )
    .expect("the adapter fits");
    let out = dir.path().join("a.gguf");
    case.write("gguf-lora", None, &out).expect("written");
    let file = Gguf::open(&out).expect("a file");
    assert_eq!(file.str("general.type"), Some("adapter"));
    assert_eq!(file.str("general.architecture"), Some("llama"));
    assert_eq!(file.str("adapter.type"), Some("lora"));
    let alpha = file.f64("adapter.lora.alpha").expect("alpha") as f32;
    // As llama.cpp has it: W + alpha / rank * B A in the file's order of rows, which is how the merged file lies.
    let merged = dir.path().join("m.gguf");
    case.write("gguf", Some("f32"), &merged).expect("written");
    let (merged, plain) = (Gguf::open(&merged).expect("a file"), dir.path().join("p.gguf"));
    let source = Source { adapter: None, ..case.source() };
    let options = Options { quantize: Quantization::find("f32"), ..Options::default() };
    export(find("gguf").expect("a format"), &source, &options, &plain).expect("written");
    let plain = Gguf::open(&plain).expect("a file");
    let floats = |f: &Gguf, name: &str| -> Vec<f32> {
        let bytes = &f.tensor(name).unwrap_or_else(|| panic!("{name}")).bytes;
        bytes.as_slice().as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
    };
    let mut pairs = 0;
    for name in file.tensor_names().filter_map(|n| n.strip_suffix(".lora_a")) {
        let (a, b) = (floats(&file, &format!("{name}.lora_a")), floats(&file, &format!("{name}.lora_b")));
        let (want, base) = (floats(&merged, name), floats(&plain, name));
        let [r, m] = file.tensor(&format!("{name}.lora_a")).expect("there").shape[..] else {
            panic!("{name}")
        };
        for (i, (want, base)) in want.iter().zip(&base).enumerate() {
            let change: f32 = (0..r).map(|k| b[i / m * r + k] * a[k * m + i % m]).sum();
            let got = base + alpha / r as f32 * change;
            assert!((got - want).abs() <= 1e-5, "{name}[{i}]: {got} instead of {want}");
        }
        pairs += 1;
    }
    assert_eq!(pairs, 14);
}

#[test]
fn a_dora_adapter_is_no_gguf_adapter_and_goes_out_and_in_as_pefts() {
    let dir = tempfile::tempdir().expect("a folder");
    let base = gguf_base(dir.path());
    let case = Case::of("dora", &base);
    let error = case.write("gguf-lora", None, &dir.path().join("a.gguf")).expect_err("refused").to_string();
    assert!(error.contains("`dora`") && error.contains("hint: merge it: `--format gguf`"), "{error}");
    let out = dir.path().join("peft");
    case.write("peft", None, &out).expect("written");
    let (back, _) = load_peft(&out, &module_shapes(case.weights.config()), 7).expect("an adapter");
    assert_eq!((back.method().name(), back.layers()), ("dora", case.adapter.layers()));
    // Rounded by its inputs too, as each other adapter.
    let model = Model::load(&case.weights, LoadOptions::default()).expect("a model");
    let ids: Vec<u32> = (0..40).map(|i| (i * 37 + 5) % 60).collect();
    let calibration = galen_export::Calibration::run(&model, &case.adapter, &[ids]).expect("inputs");
    let options = Options {
        quantize: Quantization::find("q8_0"),
        calibration: Some(&calibration),
        ..Options::default()
    };
    let merged = dir.path().join("m.gguf");
    export(find("gguf").expect("a format"), &case.source(), &options, &merged).expect("written");
    close("rounded", &logits(&merged, None), &logits(&base, Some(&case.adapter)), 0.05);
}

#[test]
fn adapters_of_other_programs_go_out_as_pefts() {
    let dir = tempfile::tempdir().expect("a folder");
    let base = gguf_base(dir.path());
    let case = Case::new(&base);
    let gguf = dir.path().join("a.gguf");
    case.write("gguf-lora", None, &gguf).expect("written");
    let modules = module_shapes(case.weights.config());
    let over = Over { config: case.weights.config(), modules: &modules };
    let (read, record) = open_adapter(&gguf, over, 0).expect("an adapter");
    assert_eq!(record.name.as_deref(), Some("org/base"));
    let out = dir.path().join("peft");
    let source = Source { adapter: Some(&read), adapter_dir: Some(&gguf), ..case.source() };
    export(find("peft").expect("a format"), &source, &Options::default(), &out).expect("written");
    let (back, _) = load_peft(&out, &modules, 0).expect("an adapter");
    close("gguf to peft", &logits(&base, Some(&back)), &logits(&base, Some(&case.adapter)), 1e-6);
    let error = open_adapter(&base, over, 0).err().expect("a model is no adapter").to_string();
    assert!(error.contains("`general.type` is "), "{error}");
    let error = open_adapter(dir.path(), over, 0).err().expect("nothing is there").to_string();
    assert!(error.contains("it is no adapter\nhint: galen reads mlx-lm's folders"), "{error}");
}

#[test]
fn an_adapter_folder_goes_out_byte_for_byte() {
    let dir = tempfile::tempdir().expect("a folder");
    let base = gguf_base(dir.path());
    let case = Case::new(&base);
    let (from, out) = (dir.path().join("from"), dir.path().join("out"));
    std::fs::create_dir(&from).expect("a folder");
    save_peft(&case.adapter, &case.source().base, &from).expect("saved");
    let source = Source { adapter_dir: Some(&from), ..case.source() };
    let peft = find("peft").expect("a format");
    // Twice: the second replaces the first.
    for _ in 0..2 {
        export(peft, &source, &Options::default(), &out).expect("written");
    }
    for name in ["adapter_config.json", "adapter_model.safetensors"] {
        let read = |dir: &Path| std::fs::read(dir.join(name)).expect("a file");
        assert!(read(&from) == read(&out), "{name}");
    }
    assert!(load_peft(&out, &module_shapes(case.weights.config()), 0).is_ok());
    std::fs::write(out.join("thesis.txt"), "mine").expect("a file");
    let error = export(peft, &source, &Options::default(), &out).expect_err("a foreign file").to_string();
    assert!(error.contains("thesis.txt") && out.join("thesis.txt").exists(), "{error}");
    // An adapter of somebody else's has the very names.
    let error = export(peft, &source, &Options::default(), &from).expect_err("another's adapter").to_string();
    assert!(
        error.contains("that no export wrote") && from.join("adapter_model.safetensors").exists(),
        "{error}"
    );
}

#[test]
fn a_failed_export_leaves_the_old_file_whole() {
    let dir = tempfile::tempdir().expect("a folder");
    let base = gguf_base(dir.path());
    let mut case = Case::new(&base);
    let (file, folder) = (dir.path().join("m.gguf"), dir.path().join("hf"));
    case.write("gguf", None, &file).expect("written");
    case.write("hf", Some("f16"), &folder).expect("written");
    let before = (
        std::fs::read(&file).expect("a file"),
        std::fs::read(folder.join("model.safetensors")).expect("a file"),
    );
    case.adapter.buffers_mut().for_each(|b| b.fill(f32::NAN));
    assert!(case.write("gguf", None, &file).is_err(), "not a number");
    assert!(case.write("hf", Some("f16"), &folder).is_err(), "not a number");
    let after = (
        std::fs::read(&file).expect("a file"),
        std::fs::read(folder.join("model.safetensors")).expect("a file"),
    );
    assert!(before == after);
    let left: Vec<_> =
        std::fs::read_dir(dir.path()).expect("a folder").flatten().map(|e| e.file_name()).collect();
    assert_eq!(left.len(), 3, "{left:?}");
}

#[test]
fn large_models_are_cut_into_shards() {
    let dir = tempfile::tempdir().expect("a folder");
    let base = gguf_base(dir.path());
    let case = Case::new(&base);
    let out = dir.path().join("hf");
    let options =
        Options { quantize: Quantization::find("f32"), max_shard_bytes: 20_000, ..Options::default() };
    export(find("hf").expect("a format"), &case.source(), &options, &out).expect("written");
    assert!(out.join("model.safetensors.index.json").exists() && !out.join("model.safetensors").exists());
    close("shards", &logits(&out, None), &logits(&base, Some(&case.adapter)), 2e-6);
}
