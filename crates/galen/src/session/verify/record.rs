//! Where results are kept: `verify.json` beside what was verified, and the model card of the run.

use super::super::run_dir::replace;
use super::report::Verdict;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// The record of a run, and of a folder.
const FILE: &str = "verify.json";
/// Around the section of the card.
const BEGIN: &str = "<!-- galen verify -->";
const END: &str = "<!-- /galen verify -->";
/// Larger records and cards are not read.
const MAX_BYTES: u64 = 16 << 20;

/// What a run knows of its artifacts.
#[derive(Debug, Default)]
pub struct Record {
    artifacts: Vec<Value>,
}

impl Record {
    /// The record of a run; an empty one where there is none. Results for another adapter than that of `adapter_sha256`
    /// stay as paths alone: the run was trained on since.
    pub fn open(run: &Path, adapter_sha256: &str) -> Self {
        let text = read(&run.join(FILE)).unwrap_or_default();
        let value: Value = serde_json::from_str(&text).unwrap_or(Value::Null);
        let known = value["artifacts"].as_array().cloned().unwrap_or_default();
        let artifacts = known.into_iter().filter(|a| a["path"].is_string()).map(|a| {
            let stale = a["adapter_sha256"].as_str() != Some(adapter_sha256);
            if stale { json!({"path": a["path"], "adapter_sha256": adapter_sha256}) } else { a }
        });
        Self { artifacts: artifacts.collect() }
    }

    /// Paths of artifacts that still exist.
    pub fn paths(&self) -> Vec<PathBuf> {
        let paths = self.artifacts.iter().filter_map(|a| a["path"].as_str()).map(PathBuf::from);
        paths.filter(|p| p.exists()).collect()
    }

    /// Whether an artifact of that path was noted.
    pub fn knows(&self, path: &Path) -> bool {
        let path = absolute(path);
        self.artifacts.iter().any(|a| a["path"] == path.as_str())
    }

    /// Takes an artifact in the place of an earlier one of its path.
    pub fn put(&mut self, artifact: Value) {
        self.artifacts.retain(|a| a["path"] != artifact["path"]);
        self.artifacts.push(artifact);
    }

    /// Writes the record and the card's section of it.
    pub fn save(&self, run: &Path) -> anyhow::Result<()> {
        let record = json!({ "galen": env!("CARGO_PKG_VERSION"), "artifacts": self.artifacts });
        replace(&run.join(FILE), (serde_json::to_string_pretty(&record)? + "\n").as_bytes())?;
        write_section(&run.join("README.md"), &self.artifacts)
    }
}

/// An artifact that was exported and not verified.
pub fn unverified(path: &Path, format: &str, adapter_sha256: &str) -> Value {
    json!({"path": absolute(path), "format": format, "adapter_sha256": adapter_sha256})
}

/// Writes a result beside what it is of: into a folder, beside a file as `NAME.verify.json`.
pub fn write_beside(artifact: &Path, verdict: &Verdict) -> anyhow::Result<()> {
    let text = serde_json::to_string_pretty(verdict)? + "\n";
    if !artifact.is_dir() {
        let mut name = artifact.file_name().unwrap_or_default().to_owned();
        name.push(format!(".{FILE}"));
        return replace(&artifact.with_file_name(name), text.as_bytes());
    }
    replace(&artifact.join(FILE), text.as_bytes())?;
    write_section(&artifact.join("README.md"), &[serde_json::to_value(verdict)?])
}

/// A path as it is found again from any working directory.
pub(super) fn absolute(path: &Path) -> String {
    path.canonicalize().unwrap_or_else(|_| path.to_owned()).display().to_string()
}

fn read(path: &Path) -> Option<String> {
    let size = std::fs::metadata(path).ok()?.len();
    if size > MAX_BYTES { None } else { std::fs::read_to_string(path).ok() }
}

/// Puts the section into a card that exists, in the place of an earlier one.
fn write_section(card: &Path, artifacts: &[Value]) -> anyhow::Result<()> {
    let Some(text) = read(card) else { return Ok(()) };
    let section = section(artifacts);
    let new = match (text.find(BEGIN), text.find(END)) {
        (Some(begin), Some(end)) if begin < end => {
            format!("{}{section}{}", &text[..begin], &text[end + END.len()..])
        }
        _ => format!("{}\n\n{section}\n", text.trim_end()),
    };
    if new == text { Ok(()) } else { replace(card, new.as_bytes()) }
}

fn section(artifacts: &[Value]) -> String {
    let mut rows = String::new();
    for a in artifacts.iter().filter(|a| a["passed"].is_boolean()) {
        let answers = &a["model"]["answers"];
        let tokens = match &a["text"]["difference"] {
            Value::Null if a["text"].is_object() => "same",
            Value::Null => "–",
            _ => "other",
        };
        let count = |n: &Value, of: &Value| match (n.as_u64(), of.as_u64()) {
            (Some(n), Some(of)) if of > 0 => format!("{n} of {of}"),
            _ => "–".into(),
        };
        let kl = answers["mean_kl"].as_f64().map_or("–".into(), |kl| format!("{kl:.1e}"));
        let dtype = a["weights"]["dtype"].as_str().unwrap_or("–");
        let result = if a["passed"] == true { "passed" } else { "**failed**" };
        let name = cell(a["name"].as_str().unwrap_or("?"));
        rows.push_str(&format!(
            "| {name} | {} | {dtype} | {tokens} | {} | {kl} | {} | {result} |\n",
            a["format"].as_str().unwrap_or("–"),
            count(&answers["same_top1"], &answers["positions"]),
            count(&a["stop"]["first"], &a["stop"]["ends"]),
        ));
    }
    format!(
        "{BEGIN}\n## Served as trained\n\nWhat `galen verify` found against the model as it was trained, on rows of the run: \
         whether chats become the same tokens, at how many places of answers the likeliest token is the same, the mean KL \
         there in nats, and behind how many answers the stop token is the likeliest.\n\n\
         | Artifact | Format | Weights | Tokens | Likeliest alike | KL | Stop first | Result |\n\
         |---|---|---|---|---|---|---|---|\n{rows}\n{END}"
    )
}

/// Text of a table's cell.
fn cell(text: &str) -> String {
    text.chars().map(|c| if "|\n\r<>`".contains(c) { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_section_is_replaced_and_the_rest_of_a_card_stays() {
        let dir = tempfile::tempdir().unwrap();
        let card = dir.path().join("README.md");
        std::fs::write(&card, "# r\n\ntext\n").unwrap();
        let one = |passed: bool| json!({"path": "/x/a.gguf", "name": "a|b.gguf", "format": "gguf", "passed": passed});
        let mut record = Record::default();
        record.put(one(false));
        record.put(json!({"path": "/x/b.gguf"}));
        record.save(dir.path()).unwrap();
        let text = std::fs::read_to_string(&card).unwrap();
        assert!(text.starts_with("# r\n\ntext\n\n<!--") && text.contains("| a b.gguf | gguf |"), "{text}");
        assert!(text.contains("**failed**") && text.matches("| gguf |").count() == 1, "{text}");
        std::fs::write(&card, text + "behind\n").unwrap();
        record.put(one(true));
        record.save(dir.path()).unwrap();
        let text = std::fs::read_to_string(&card).unwrap();
        assert!(!text.contains("failed") && text.matches("a b.gguf").count() == 1, "{text}");
        assert!(text.starts_with("# r\n\ntext\n") && text.ends_with("behind\n"), "{text}");
        let again = Record::open(dir.path(), "of another adapter");
        assert_eq!(again.artifacts.len(), 2);
        assert!(again.artifacts.iter().all(|a| a.get("passed").is_none()));
    }
}
