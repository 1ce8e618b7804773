//! The run directory: what may be written where, what is recorded of a run, what a resumed one must share.

use super::base::Base;
use super::prepare::Prepared;
use super::record::{sha256_file, sha256_text};
use super::train::Start;
use crate::config::Config;
use crate::error::UsageError;
use anyhow::Context as _;
use galen_data::template::ChatTemplate;
use galen_ops::ops::Compute;
use galen_train::checkpoint;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Keys that say where and how often to write, not what is learned: a resumed run may change them.
const FREE_KEYS: &[&str] = &[
    "output_dir",
    "logging_steps",
    "save_steps",
    "saves_per_epoch",
    "save_strategy",
    "save_total_limit",
    "resume_from_checkpoint",
    "auto_resume_from_checkpoints",
    "report_samples",
    "max_memory",
    "weight_cache",
    // Whether it is a card is part of the kernel path.
    "device",
];

/// Whether a run may begin there. Nothing is touched yet.
pub(super) fn check_dir(dir: &Path, config: &Config, start: &Start) -> anyhow::Result<()> {
    if dir.exists() && !dir.is_dir() {
        let message = format!("`output_dir` {} is a file", dir.display());
        return Err(UsageError::new(message, "name a folder; it is made where it does not exist").into());
    }
    if let Start::From(path) = start
        && !path.join("trainer_state.json").is_file()
    {
        let beside = path.parent().map(checkpoint::list).unwrap_or_default();
        let beside: Vec<String> = beside.iter().map(|(_, p)| format!("`{}`", p.display())).collect();
        let hint = match (&beside[..], path.to_str()) {
            ([], Some("true")) => {
                "it takes a folder; `auto_resume_from_checkpoints: true` takes the newest".into()
            }
            ([], _) => "name the folder of a checkpoint, or `--resume` for the newest".into(),
            (found, _) => format!("there is {}", found.join(", ")),
        };
        return Err(UsageError::new(format!("{}: there is no such checkpoint", path.display()), hint).into());
    }
    let occupied = std::fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_some());
    let elsewhere = |path: &Path| {
        let here = dir.join(path.file_name().unwrap_or_default());
        path.canonicalize().ok() != here.canonicalize().ok()
    };
    let anew = match start {
        Start::New => true,
        // The checkpoint of another folder, whose run is not the one that is here.
        Start::From(path) => elsewhere(path),
        Start::Resume | Start::Overwrite => false,
    };
    if occupied && anew {
        let message = format!("`output_dir` {} is not empty", dir.display());
        let hint = "`--resume` goes on with the run in it, `--overwrite` deletes it first";
        return Err(UsageError::new(message, hint).into());
    }
    if occupied && *start == Start::Overwrite {
        // Only what a run writes: a mistyped `output_dir` must not cost anybody their files.
        anyhow::ensure!(
            holds_a_run(dir),
            "{} holds no run: not deleting it\nhint: choose another `output_dir`, or empty it yourself",
            dir.display()
        );
        let own = dir.canonicalize().with_context(|| dir.display().to_string())?;
        for (key, input) in inputs(config) {
            if Path::new(&input).canonicalize().is_ok_and(|path| path.starts_with(&own)) {
                let message = format!("`{key}`: {input} lies in `output_dir`, which `--overwrite` deletes");
                return Err(UsageError::new(message, "choose another `output_dir`, or move it out").into());
            }
        }
    }
    Ok(())
}

/// What a run reads, by key: paths, or names that are none.
fn inputs(config: &Config) -> impl Iterator<Item = (&'static str, String)> {
    let one = [
        ("base_model", Some(config.base_model.clone())),
        ("lora_model_dir", config.lora_model_dir.clone()),
        ("resume_from_checkpoint", config.resume_from_checkpoint.clone()),
    ];
    let data = [("datasets", &config.datasets), ("test_datasets", &config.test_datasets)];
    let data = data.map(|(key, list)| list.0.iter().map(|e| (key, e.path.clone())).collect::<Vec<_>>());
    one.into_iter().filter_map(|(key, path)| Some((key, path?))).chain(data.into_iter().flatten())
}

/// Makes the folder, after [`check_dir`]; `--overwrite` deletes the run that was there.
pub(super) fn begin_dir(dir: &Path, start: &Start) -> anyhow::Result<()> {
    if *start == Start::Overwrite && dir.exists() {
        std::fs::remove_dir_all(dir).with_context(|| dir.display().to_string())?;
    }
    std::fs::create_dir_all(dir).with_context(|| dir.display().to_string())
}

/// Whether everything in a directory is what a run writes first or `run.json` says that a run was there. A run killed
/// in its first second leaves only its configuration or temporary files.
pub(super) fn holds_a_run(dir: &Path) -> bool {
    if dir.join("run.json").exists() {
        return true;
    }
    let early =
        |name: &str| ["config.yaml", "log.jsonl"].contains(&name) || name.starts_with(galen_files::PREFIX);
    let mut entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    entries.all(|e| e.file_name().to_str().is_some_and(early))
}

/// SHA-256 of configuration, data, model and template.
pub(super) fn hashes(
    config: &Config,
    base: &Base,
    template: Option<&ChatTemplate>,
    prepared: &Prepared,
    offline: bool,
) -> anyhow::Result<BTreeMap<String, String>> {
    let model = match &base.resolved.sha256 {
        Some(known) => known.clone(),
        None => sha256_file(&base.resolved.path)?,
    };
    let mut hashes = BTreeMap::from([
        ("config".to_owned(), sha256_text(&config.to_yaml())),
        ("data".to_owned(), prepared.sha256.clone()),
        ("model".to_owned(), model),
    ]);
    if let Some(name) = &config.lora_model_dir {
        let path = super::adapters::find_adapter(name, offline)?;
        let weights = galen_export::expect_adapter_files(&path)?.weights(&path);
        hashes.insert("adapter".into(), sha256_file(&weights)?);
    }
    if let Some(template) = template {
        hashes.insert("template".into(), sha256_text(template.source()));
    }
    Ok(hashes)
}

/// What computes, and in which arithmetic.
#[derive(Debug, Clone, Copy)]
pub(super) struct Arithmetic<'a> {
    /// The processor's kernel path, or the cards' ([`galen_ops::device::Group::arithmetic`]).
    pub path: &'a str,
    /// Of matrix products.
    pub compute: Compute,
}

pub(super) fn fingerprint(
    config: &Config,
    hashes: &BTreeMap<String, String>,
    arithmetic: Arithmetic,
) -> BTreeMap<String, String> {
    // One card is what there was before the key.
    let free = |key: &str| FREE_KEYS.contains(&key) || (key == "gpus" && config.gpus == 1);
    let mut map: BTreeMap<String, String> = config
        .values()
        .filter(|(k, _)| !free(k.name))
        .map(|(k, v)| (k.name.to_owned(), v.to_string()))
        .collect();
    for (name, hash) in hashes.iter().filter(|(name, _)| *name != "config") {
        map.insert(format!("sha256 of the {name}"), hash.clone());
    }
    map.insert("kernel path".into(), arithmetic.path.into());
    map.insert("arithmetic".into(), format!("{:?}", arithmetic.compute));
    map
}

pub(super) fn checkpoint_of(dir: &Path, start: &Start) -> Option<PathBuf> {
    match start {
        Start::From(path) => Some(path.clone()),
        Start::Resume => checkpoint::list(dir).pop().map(|(_, path)| path),
        Start::New | Start::Overwrite => None,
    }
}

/// The date of a run that begins: today, or that of the run it goes on with.
pub(super) fn date_of_start(dir: &Path, start: &Start) -> chrono::NaiveDate {
    if *start == Start::Overwrite { chrono::Utc::now().date_naive() } else { date_of(dir) }
}

/// The date the run's templates write: that of its first session.
pub(super) fn date_of(dir: &Path) -> chrono::NaiveDate {
    let text = std::fs::read_to_string(dir.join("run.json")).unwrap_or_default();
    let record: Value = serde_json::from_str(&text).unwrap_or(Value::Null);
    let known = record["template_date"].as_str().and_then(|d| d.parse().ok());
    known.unwrap_or_else(|| chrono::Utc::now().date_naive())
}

/// `config.yaml` and `run.json`; each session of a run names the hash of the record before it.
pub(super) fn write_record(
    dir: &Path,
    config: &Config,
    base: &Base,
    hashes: &BTreeMap<String, String>,
    date: chrono::NaiveDate,
    resume: Option<&Path>,
    arithmetic: Arithmetic,
) -> anyhow::Result<()> {
    replace(&dir.join("config.yaml"), config.to_yaml().as_bytes())?;
    let path = dir.join("run.json");
    let before = std::fs::read_to_string(&path).ok();
    let old: Value = before.as_deref().and_then(|t| serde_json::from_str(t).ok()).unwrap_or(Value::Null);
    let mut sessions = old["sessions"].as_array().cloned().unwrap_or_default();
    sessions.push(json!({
        "started": chrono::Utc::now().to_rfc3339(),
        "resumed_from": resume.map(|p| p.display().to_string()),
        "previous_record_sha256": before.as_deref().map(sha256_text),
        "threads": rayon::current_num_threads(),
        "host": std::fs::read_to_string("/proc/sys/kernel/hostname").map(|h| h.trim().to_owned()).ok(),
    }));
    let record = json!({
        "galen": env!("CARGO_PKG_VERSION"),
        "kernel_path": arithmetic.path,
        "os": std::env::consts::OS,
        "arch": std::env::consts::ARCH,
        "base_model": recorded_name(base),
        "compute": if arithmetic.compute == Compute::F32 { "f32" } else { "bf16" },
        "base_precision": config.base_precision().over(&base.weights).name(),
        "base_model_name_or_path": published_name(config, base),
        "base_source": base.resolved.source,
        "template_date": date.to_string(),
        "sha256": hashes,
        "sessions": sessions,
    });
    let mut text = serde_json::to_string_pretty(&record)?;
    text.push('\n');
    replace(&path, text.as_bytes())
}

/// The base's name on the hub: as the configuration says, else as it was found.
pub(super) fn published_name(config: &Config, base: &Base) -> Option<String> {
    config.base_model_name_or_path.clone().or_else(|| base.resolved.hf_id.clone())
}

/// The base as it can be found again from any working directory.
fn recorded_name(base: &Base) -> String {
    let local = (base.resolved.source == "local").then(|| base.resolved.path.canonicalize().ok()).flatten();
    local.map_or_else(|| base.name.clone(), |path| path.display().to_string())
}

/// Held while [`replace`] works.
static REPLACING: Mutex<()> = Mutex::new(());

/// While this is held no [`replace`] is under way.
pub(crate) fn no_replace() -> MutexGuard<'static, ()> {
    REPLACING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Writes under a temporary name, syncs, renames.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let _under_way = no_replace();
    galen_files::replace(path, bytes).with_context(|| path.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use galen_testkit::fuzz;

    #[test]
    fn a_directory_is_a_runs_when_a_run_wrote_all_of_it() {
        for (files, expect) in [
            (&[][..], true),
            (&["config.yaml"], true),
            (&["config.yaml", ".tmp-run.json"], true),
            (&["config.yaml", "run.json", "thesis.txt"], true),
            (&["log.jsonl"], true),
            (&["log.jsonl", "thesis.txt"], false),
            (&["config.yaml", "thesis.txt"], false),
            (&["adapter_model.safetensors"], false),
        ] {
            let dir = tempfile::tempdir().unwrap();
            for file in files {
                std::fs::write(dir.path().join(file), "x").unwrap();
            }
            assert_eq!(holds_a_run(dir.path()), expect, "{files:?}");
            let config = Config::default();
            let allowed = check_dir(dir.path(), &config, &Start::Overwrite).is_ok();
            assert_eq!(allowed, expect, "{files:?}");
            let left = || std::fs::read_dir(dir.path()).unwrap().count();
            assert_eq!(left(), files.len(), "{files:?}: nothing is touched before all is read");
            begin_dir(dir.path(), &Start::Resume).unwrap();
            assert_eq!(left(), files.len(), "{files:?}");
            begin_dir(dir.path(), &Start::Overwrite).unwrap();
            assert_eq!(left(), 0, "{files:?}");
        }
    }

    #[test]
    fn fuzz_of_run_json() {
        let dir = fuzz::folder();
        std::fs::write(dir.path().join("adapter_config.json"), "{}").unwrap();
        std::fs::write(dir.path().join("adapter_model.safetensors"), "").unwrap();
        let path = dir.path().join("run.json");
        let name = dir.path().display().to_string();
        let (mut dated, mut sound) = (0, 0);
        let today = chrono::Utc::now().date_naive();
        let inputs = fuzz::run("run_record", &fuzz::corpus("run_record"), |bytes| {
            std::fs::write(&path, bytes).unwrap();
            dated += u64::from(date_of(dir.path()) < today);
            sound += u64::from(super::super::adapters::resolve_run(&name, true).is_ok());
        });
        println!("run_record: {inputs} inputs, {dated} with a date, {sound} that name a base");
        assert!(dated > 0 && sound > 0);
    }
}
