//! `galen init`.

use crate::cli::Globals;
use crate::config::alignment::Rl;
use crate::config::datasets::DATASET_HONOURED;
use crate::config::{docs, emit, tables, yaml};
use crate::error::UsageError;
use crate::{progress, stdout};
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};

/// Flags of `galen init`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The model to adapt: a folder, a `.gguf`, `ORG/REPO[@REV]`, a catalogue name
    #[arg(long, short = 'm', value_name = "M")]
    pub model: String,
    /// Your data: a file or folder, or a hub data set
    #[arg(long, short = 'd', value_name = "FILE")]
    pub data: String,
    /// What its rows are, by name or as a map in YAML; default: detected
    #[arg(long = "type", value_name = "TYPE")]
    pub kind: Option<String>,
    /// Learn from preferences by this family (`dpo`, `kto`, `grpo` ...); default: by the rows, where they are preference data
    #[arg(long, value_name = "FAMILY")]
    pub rl: Option<String>,
    /// Where to write; default: stdout
    #[arg(long, short, value_name = "FILE.yaml")]
    pub out: Option<PathBuf>,
}

/// Writes a commented configuration.
pub fn run(args: Args, _globals: &Globals) -> anyhow::Result<()> {
    let given = args.kind.as_deref().map(type_value).transpose()?;
    let rows = match given {
        Some(kind) => Detected { kind: Some(kind), rl: args.rl, ..Detected::default() },
        None => detect(&args.data, args.rl)?,
    };
    if let Some(rl) = &rows.rl {
        Rl::named(rl).map_err(|e| {
            let text = e.to_string();
            let (what, hint) =
                text.split_once("\nhint: ").unwrap_or((&text, "`docs/align.md` lists families"));
            UsageError::new(format!("--rl: {what}"), hint.to_owned())
        })?;
    }
    let text = render(&args.model, &args.data, &rows);
    let Some(out) = args.out else { return stdout::print(&text) };
    // create_new: an existing file is never touched, also when it appears meanwhile.
    let mut file = match std::fs::OpenOptions::new().write(true).create_new(true).open(&out) {
        Ok(file) => file,
        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {
            let hint = "name another file, or delete this one first";
            return Err(UsageError::new(format!("{}: exists already", out.display()), hint).into());
        }
        Err(e) => anyhow::bail!("{}: cannot be written: {e}", out.display()),
    };
    file.write_all(text.as_bytes())?;
    let file = out.display();
    let command = if rows.rl.is_some() { "align" } else { "train" };
    progress::say(&format!("{file} written; next: `galen plan {file}`, then `galen {command} {file}`"));
    Ok(())
}

/// What is known of the rows.
#[derive(Debug, Default)]
pub struct Detected {
    /// Their type; nothing where training detects it.
    kind: Option<Value>,
    /// The family of objectives for preference data.
    rl: Option<String>,
    /// A field beside the prompt, which a reward can compare answers with.
    beside: Option<String>,
}

/// The family that rows of a preference type are for.
fn family_of(kind: &str) -> &'static str {
    match kind {
        "prompt" => "grpo",
        "unpaired" => "kto",
        _ => "dpo",
    }
}

/// The type of a local file's rows by its first rows. A hub data set is left for `galen train` to detect.
fn detect(data: &str, rl: Option<String>) -> anyhow::Result<Detected> {
    if !Path::new(data).exists() {
        let looks_local = data.starts_with(['.', '/', '~']) || Path::new(data).extension().is_some();
        if looks_local {
            let hint =
                "`--data` is a file or folder (.jsonl .json .csv .parquet), or a hub data set `ORG/NAME`";
            return Err(UsageError::new(format!("{data}: there is no such file"), hint).into());
        }
        return Ok(Detected { rl, ..Detected::default() });
    }
    let spec = galen_data::DatasetSpec { path: data.to_owned(), ..galen_data::DatasetSpec::default() };
    let resolve = |spec: &galen_data::DatasetSpec| Ok(PathBuf::from(&spec.path));
    let rows = galen_data::dataset::open_raw(&spec, &resolve, galen_data::reader::Limits::default())?;
    let sample: Vec<_> = rows.take(8).collect::<Result<_, _>>()?;
    let fields: Vec<_> = sample.iter().map(|row| &row.fields).collect();
    let supervised = galen_data::format::detect(&fields).filter(|_| rl.is_none());
    // Two answers, or one with a label, mean preferences whatever else a row has; a prompt alone may be a whole chat.
    let preference = galen_data::format::preference::detect(&fields);
    match (preference, supervised) {
        (Some(found), supervised) if found.name != "prompt" || supervised.is_none() => {
            let other = |name: &&String| !["prompt", "messages"].contains(&name.as_str());
            return Ok(Detected {
                kind: Some(found.name.into()),
                rl: rl.or(Some(family_of(found.name).into())),
                beside: fields.first().and_then(|f| f.keys().find(other).cloned()),
            });
        }
        (_, Some(found)) => return Ok(Detected { kind: Some(found.name.into()), ..Detected::default() }),
        _ => {}
    }
    if rl.is_none()
        && let Some((question, answer)) = galen_data::format::detect_pair(&fields)
    {
        progress::say(&format!(
            "{data}: `{question}` is asked, `{answer}` is learned, without a chat template: `no_input_format` is what \
             stands before the answer"
        ));
        let kind = json!({
            "field_instruction": question,
            "field_output": answer,
            "no_input_format": "{instruction}\n",
        });
        return Ok(Detected { kind: Some(kind), ..Detected::default() });
    }
    let names: Vec<_> = fields.first().map(|f| f.keys().cloned().collect()).unwrap_or_default();
    anyhow::bail!(
        "{data}: cannot tell what a row is from its fields `{}`\nhint: say it with `--type`: a name, or \
         `{{field_instruction: ..., field_output: ..., no_input_format: \"{{instruction}}\\n\"}}`",
        names.join("`, `")
    )
}

/// A `--type`: a name, or a map as YAML.
pub fn type_value(text: &str) -> anyhow::Result<Value> {
    if !text.trim_start().starts_with('{') {
        return Ok(text.into());
    }
    let map = yaml::parse(text).map_err(|e| {
        UsageError::new(
            format!("--type: {}", e.message),
            "write `{field_instruction: NAME, field_output: NAME}`",
        )
    })?;
    Ok(map.to_json())
}

/// The settings a new configuration shows, in its order. Those that differ from the defaults are usual choices for
/// adapters on a few thousand rows.
fn settings(model: &str, data: &str, rows: &Detected) -> Vec<(&'static str, Value)> {
    let mut entry = json!({"path": data});
    if let Some(kind) = &rows.kind {
        entry["type"] = kind.clone();
    }
    let name = Path::new(data).file_name().map_or("run".into(), |s| s.to_string_lossy().into_owned());
    let stem = name.split_once('.').map_or(name.as_str(), |(stem, _)| stem);
    let stem = if stem.is_empty() { "run" } else { stem };
    let mut settings = vec![
        ("base_model", model.into()),
        ("adapter", if is_quantised(model) { "qlora" } else { "lora" }.into()),
        ("lora_r", 16.into()),
        ("lora_alpha", 32.into()),
        ("lora_dropout", 0.0.into()),
        ("lora_target_linear", true.into()),
        ("datasets", json!([entry])),
        ("val_set_size", 0.05.into()),
        ("sequence_len", 2048.into()),
        ("excess_length_strategy", "drop".into()),
        ("train_on_inputs", false.into()),
        ("sample_packing", false.into()),
        ("micro_batch_size", 4.into()),
        ("gradient_accumulation_steps", 4.into()),
        ("num_epochs", 3.into()),
        ("learning_rate", json!(2e-4)),
        ("lr_scheduler", "cosine".into()),
        ("warmup_ratio", 0.05.into()),
        ("weight_decay", 0.0.into()),
        ("gradient_checkpointing", "auto".into()),
        ("seed", 42.into()),
        ("evals_per_epoch", 2.into()),
        ("load_best_model_at_end", true.into()),
        ("saves_per_epoch", 2.into()),
        ("output_dir", format!("runs/{stem}").into()),
    ];
    if let Some(rl) = &rows.rl {
        align(&mut settings, rl, rows.beside.as_deref());
    }
    settings
}

/// Puts the settings of alignment in the place of those that supervised training alone has.
fn align(settings: &mut Vec<(&'static str, Value)>, rl: &str, beside: Option<&str>) {
    settings.retain(|(name, _)| !["train_on_inputs", "sample_packing"].contains(name));
    for (name, value) in settings.iter_mut() {
        match *name {
            "num_epochs" => *value = 1.into(),
            // Alignment moves a model that answers already: a fraction of the rate that taught it.
            "learning_rate" => *value = json!(5e-5),
            "micro_batch_size" if samples(rl) => *value = 8.into(),
            _ => {}
        }
    }
    let at = settings.iter().position(|(name, _)| *name == "evals_per_epoch").unwrap_or(settings.len());
    settings.insert(at, ("rl", rl.into()));
    if samples(rl) {
        let reward = match beside {
            Some(field) => json!({"exact_match": {"field": field}}),
            None => json!({"length": {"target": 100}}),
        };
        let trl = json!({"num_generations": 8, "max_completion_length": 256, "reward_funcs": [reward], "log_completions": true});
        settings.insert(at + 1, ("trl", trl));
    }
}

/// Whether a family samples answers.
fn samples(rl: &str) -> bool {
    ["grpo", "rloo"].contains(&rl)
}

fn is_quantised(model: &str) -> bool {
    let name = model.to_ascii_lowercase();
    Path::new(&name).extension().is_some_and(|e| e == "gguf") || name.contains(":q")
}

/// The file: each setting under its documentation, from the key table.
pub fn render(model: &str, data: &str, rows: &Detected) -> String {
    let command = if rows.rl.is_some() { "align" } else { "train" };
    let mut out = format!(
        "# A galen configuration. Keys, meanings and defaults are Axolotl's; `galen plan --list-keys` lists all.\n\
         # galen plan THIS.yaml    memory and time before anything is loaded\n\
         # galen {command} THIS.yaml   train; `--resume` goes on after an interruption\n",
    );
    let mut group = "";
    for (name, value) in settings(model, data, rows) {
        let Some(key) = tables().find(|k| k.name == name) else { continue };
        if key.group != group {
            group = key.group;
            let _ = writeln!(out, "\n### {group}");
        }
        comment(&mut out, &docs::text(key));
        emit::entry(&mut out, name, &value);
        if name == "datasets" && rows.rl.is_none() {
            for (inner, example) in
                [("roles_to_train", "[assistant]"), ("train_on_eos", "turn"), ("split", "train")]
            {
                if let Some(key) = DATASET_HONOURED.iter().find(|k| k.name == inner) {
                    let _ = writeln!(out, "    # {inner}: {example}   # {}", docs::text(key));
                }
            }
        }
    }
    out
}

fn comment(out: &mut String, text: &str) {
    let mut line = String::from("#");
    for word in text.split_whitespace() {
        if line.len() + word.len() > 108 {
            out.push_str(&line);
            out.push('\n');
            line = String::from("#");
        }
        line.push(' ');
        line.push_str(word);
    }
    out.push_str(&line);
    out.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::check_text;
    use crate::config::types::AdapterKind;

    fn rows(kind: &str, rl: Option<&str>) -> Detected {
        Detected { kind: Some(kind.into()), rl: rl.map(Into::into), beside: Some("answer".into()) }
    }

    #[test]
    fn what_it_writes_for_preferences_is_sound() {
        for (line, rl, kind) in [
            ("{\"prompt\": \"a\", \"chosen\": \"b\", \"rejected\": \"c\"}", "dpo", "preference"),
            ("{\"prompt\": \"a\", \"completion\": \"b\", \"label\": true}", "kto", "unpaired"),
            ("{\"prompt\": [{\"role\": \"user\", \"content\": \"a\"}], \"code\": \"b\"}", "grpo", "prompt"),
        ] {
            let dir = tempfile::tempdir().unwrap();
            let data = dir.path().join("d.jsonl");
            std::fs::write(&data, format!("{line}\n")).unwrap();
            let found = detect(&data.display().to_string(), None).unwrap();
            assert_eq!((found.rl.as_deref(), found.kind.as_ref()), (Some(rl), Some(&kind.into())), "{line}");
            let text = render("m.gguf", "d.jsonl", &found);
            let (config, report) = check_text("c.yaml", &text, &[]);
            assert_eq!(report.errors, [], "{text}");
            assert_eq!(report.notes, [], "{text}");
            assert_eq!(config.rl(), Some(rl));
            assert_eq!(text.contains("field: code"), rl == "grpo", "{text}");
        }
        // Chats can be asked for by name.
        let text = render("m.gguf", "d.jsonl", &rows("prompt", Some("rloo")));
        assert_eq!(check_text("c.yaml", &text, &[]).1.errors, [], "{text}");
    }

    #[test]
    fn what_it_writes_is_sound_and_every_setting_a_key() {
        for (model, adapter) in [
            ("m/x.Q4_1.gguf", "qlora"),
            ("org/repo:Q4_K_M", "qlora"),
            ("org/repo", "lora"),
            ("a: b #c", "lora"),
        ] {
            let text = render(model, "my data/train: 1.jsonl", &rows("alpaca", None));
            let (config, report) = check_text("c.yaml", &text, &[]);
            assert_eq!(report.errors, [], "{text}");
            assert_eq!(report.notes, []);
            assert_eq!(config.base_model, model);
            assert_eq!(config.datasets.0[0].path, "my data/train: 1.jsonl");
            assert_eq!(config.adapter.map(AdapterKind::name), Some(adapter));
            for (name, _) in settings(model, "d", &Detected::default()) {
                assert!(tables().any(|k| k.name == name && k.state_name() == "honoured"), "{name}");
            }
        }
    }

    #[test]
    fn the_type_is_detected_and_nothing_is_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("d.jsonl");
        std::fs::write(&data, "{\"instruction\": \"a\", \"input\": \"\", \"output\": \"b\"}\n").unwrap();
        let args = || Args {
            model: "m.gguf".into(),
            data: data.display().to_string(),
            kind: None,
            rl: None,
            out: Some(dir.path().join("c.yaml")),
        };
        run(args(), &Globals::default()).unwrap();
        let text = std::fs::read_to_string(dir.path().join("c.yaml")).unwrap();
        assert!(text.contains("type: alpaca"), "{text}");
        let error = run(args(), &Globals::default()).unwrap_err();
        assert_eq!(crate::error::exit_code(&error), 2);
        assert_eq!(std::fs::read_to_string(dir.path().join("c.yaml")).unwrap(), text);
    }

    #[test]
    fn a_missing_file_is_said() {
        let error = detect("./nowhere.jsonl", None).unwrap_err();
        assert_eq!(error.to_string().lines().next(), Some("./nowhere.jsonl: there is no such file"));
        assert_eq!(detect("org/data", None).unwrap().kind, None);
    }
}
