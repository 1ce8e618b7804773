//! `--log_samples`: one JSON object a line for every item of every run.

use super::write_file;
use crate::EvalError;
use crate::run::TaskResult;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

/// Bytes of one line at most.
const MAX_LINE: u64 = 64 << 20;

/// One item: what was asked, what came back, what is right. Field names are the file contract.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// The task.
    pub task: String,
    /// The run: `base`, `adapter` ...
    #[serde(default)]
    pub run: String,
    /// 0-based place in the evaluated split.
    pub doc_id: usize,
    /// `file:line` of the row.
    #[serde(default)]
    pub origin: String,
    /// SHA-256 of the row as lm-evaluation-harness computes it (indented JSON).
    pub doc_hash: String,
    /// The row.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub doc: Option<Map<String, Value>>,
    /// The prompt's text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompt: Option<String>,
    /// SHA-256 of the prompt's text.
    #[serde(default)]
    pub prompt_hash: String,
    /// Token ids of the prompt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ids: Option<Vec<u32>>,
    /// The choices' texts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub choices: Option<Vec<String>>,
    /// Token ids of each choice, following `ids`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub choices_ids: Option<Vec<Vec<u32>>>,
    /// Log-probability of each choice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub logprobs: Option<Vec<f64>>,
    /// Tokens of each choice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub n_tokens: Option<Vec<usize>>,
    /// Whether each choice is what greedy decoding would write.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub is_greedy: Option<Vec<bool>>,
    /// Generated texts, one a repeat, before filters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answers: Option<Vec<String>>,
    /// Index of the likeliest choice, or the first pipeline's filtered answer.
    pub pred: Value,
    /// Index of the right choice or the right text; a list where there are several.
    pub target: Value,
    /// Whether the task's first metric counts the item as right.
    pub correct: bool,
    /// Score by metric.
    #[serde(default)]
    pub metrics: Map<String, Value>,
}

/// What is logged of the rows themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Docs {
    /// Rows, prompts and answers.
    Full,
    /// Hashes, token-free scores and labels only: for data that must not leave its place.
    Hashed,
}

/// Where the samples of a report lie: `eval.json` -> `eval.samples.jsonl`.
pub fn samples_path(report: &Path) -> PathBuf {
    report.with_extension("samples.jsonl")
}

/// Writes the samples of every run, one a line.
pub fn write_samples<'a>(
    path: &Path,
    runs: impl IntoIterator<Item = (&'a str, &'a [TaskResult])>,
    docs: Docs,
) -> Result<(), EvalError> {
    write_file(path, |out| {
        for (run, results) in runs {
            for sample in results.iter().flat_map(|r| &r.samples) {
                let mut sample = Sample { run: run.to_owned(), ..sample.clone() };
                if docs == Docs::Hashed {
                    let text = sample.pred.is_string();
                    (sample.doc, sample.prompt, sample.ids, sample.answers) = (None, None, None, None);
                    (sample.choices, sample.choices_ids) = (None, None);
                    if text {
                        (sample.pred, sample.target) = (Value::Null, Value::Null);
                    }
                }
                serde_json::to_writer(&mut *out, &sample)?;
                out.write_all(b"\n")?;
            }
        }
        Ok(())
    })
}

/// Reads what [`write_samples`] wrote.
pub fn read_samples(path: &Path) -> Result<Vec<Sample>, EvalError> {
    let io = |e| EvalError::io(path, e);
    let mut reader = BufReader::new(std::fs::File::open(path).map_err(io)?);
    let mut samples = Vec::new();
    let mut line = String::new();
    for number in 1u64.. {
        line.clear();
        let n = reader.by_ref().take(MAX_LINE).read_line(&mut line).map_err(io)?;
        if n == 0 {
            break;
        }
        if line.trim().is_empty() {
            continue;
        }
        let sample = serde_json::from_str(&line).map_err(|e| EvalError::Report {
            origin: format!("{}:{number}", path.display()),
            what: format!("not a line of `galen eval --log_samples`: {e}"),
        })?;
        samples.push(sample);
    }
    Ok(samples)
}

/// The harness's `doc_hash`: SHA-256 of the row as JSON indented by two.
pub(crate) fn doc_hash(row: &Map<String, Value>) -> String {
    text_hash(&serde_json::to_string_pretty(row).unwrap_or_default())
}

/// SHA-256 of a text, in hexadecimal.
pub(crate) fn text_hash(text: &str) -> String {
    use std::fmt::Write as _;
    Sha256::digest(text.as_bytes()).iter().fold(String::with_capacity(64), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Python: `hashlib.sha256(json.dumps(doc, indent=2, ensure_ascii=False).encode()).hexdigest()`.
    #[test]
    fn the_harness_hash() {
        let doc = serde_json::json!({"q": "é \"x\"\n", "n": [1, 2.5], "e": {}, "l": []});
        let hash = doc_hash(doc.as_object().unwrap());
        assert_eq!(hash, "1c7380c20fd4c49311598a9f61b5972397c26b3d4c1bfbf67a8e6c18d7f8d9de");
    }
    #[test]
    fn fuzz() {
        let folder = galen_testkit::fuzz::folder();
        let path = folder.path().join("a.samples.jsonl");
        let mut sound = 0;
        let inputs = galen_testkit::fuzz::run("samples", &galen_testkit::fuzz::corpus("samples"), |bytes| {
            std::fs::write(&path, bytes).unwrap();
            let Ok(samples) = read_samples(&path) else { return };
            sound += u64::from(!samples.is_empty());
            let some = &samples[..samples.len().min(1)];
            for (a, b) in [(&samples[..], &samples[..]), (&samples, some), (some, &samples)] {
                for subgroup in [None, Some("letter")] {
                    for task in super::super::compare(a, b, subgroup).into_iter().flatten() {
                        assert!(task.unmatched <= a.len() + b.len(), "{task:?}");
                        assert!(task.n + task.unmatched >= a.len().min(b.len()).min(1), "{task:?}");
                    }
                }
            }
        });
        println!("samples: {inputs} inputs, {sound} of them still samples");
        assert!(sound > 0);
    }
}
