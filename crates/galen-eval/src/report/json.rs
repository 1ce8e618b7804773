//! The JSON of `galen eval --out`.

use super::write_file;
use crate::run::TaskResult;
use crate::{EvalError, stats};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::path::Path;

/// Keys the intervals of differences; fixed, so that a report can be made again from its samples.
const SEED: u64 = 0;

/// Which model, under which name, gave a set of results.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunMeta {
    /// `base`, `adapter`, or the adapter's own name where there are several.
    pub name: String,
    /// The adapter; `None` for the base model alone.
    pub adapter: Option<String>,
}

/// A metric's value with its interval.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct MetricValue {
    /// Mean over the items.
    pub value: f64,
    /// Bootstrap 95 % percentile interval.
    pub ci95: [f64; 2],
}

/// One task of one run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TaskReport {
    /// Items.
    pub n: usize,
    /// Accuracy of guessing; null where answers are free text.
    pub chance: Option<f64>,
    /// By `acc`, or with a named filter pipeline `exact_match,strict-match`; the first decides what is correct.
    pub metrics: Map<String, Value>,
}

impl TaskReport {
    /// A metric's value.
    pub fn metric(&self, key: &str) -> Option<MetricValue> {
        serde_json::from_value(self.metrics.get(key)?.clone()).ok()
    }
}

/// One run: a model with or without an adapter, over all tasks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunReport {
    /// `base`, `adapter` ...
    pub name: String,
    /// The adapter, or null.
    pub adapter: Option<String>,
    /// By task name, in the order asked for.
    pub tasks: Map<String, Value>,
    /// lm-evaluation-harness's shape: `{"NAME": {"acc,none": ..., "acc_stderr,none": ...}}`.
    pub results: Map<String, Value>,
}

/// One metric of one task between two runs over the same items.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// The task.
    pub task: String,
    /// The metric's key.
    pub metric: String,
    /// The run compared with.
    pub a: String,
    /// The run compared.
    pub b: String,
    /// Items.
    pub n: usize,
    /// Value of `b` less that of `a`.
    pub delta: f64,
    /// Paired bootstrap 95 % interval of `delta`.
    pub ci95: [f64; 2],
    /// McNemar's exact two-sided p.
    pub p_mcnemar: f64,
    /// The mid-p variant.
    pub p_mcnemar_mid: f64,
    /// Items only `a` has right.
    pub only_a: u64,
    /// Items only `b` has right.
    pub only_b: u64,
}

/// The whole file. `adapter`, `tasks` and `results` are those of the first run with an adapter, else of the base.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EvalReport {
    /// The model as the user named it.
    pub model: String,
    /// The adapter, or null.
    pub adapter: Option<String>,
    /// By task name.
    pub tasks: Map<String, Value>,
    /// lm-evaluation-harness's shape.
    pub results: Map<String, Value>,
    /// Every run against the first.
    pub comparisons: Vec<Comparison>,
    /// Every run, the base first.
    pub runs: Vec<RunReport>,
    /// Examples before each question, by task.
    #[serde(rename = "n-shot", default)]
    pub n_shot: Map<String, Value>,
    /// `metadata.version` by task.
    #[serde(default)]
    pub versions: Map<String, Value>,
    /// What else the caller recorded (options, hashes, versions).
    #[serde(default)]
    pub config: Map<String, Value>,
}

impl EvalReport {
    /// From the results of every run, the one to compare with first.
    pub fn new(model: &str, runs: &[(RunMeta, Vec<TaskResult>)]) -> Self {
        let reports: Vec<RunReport> = runs.iter().map(|(meta, results)| run_report(meta, results)).collect();
        let subject = reports.iter().find(|r| r.adapter.is_some()).or(reports.first()).cloned();
        let (adapter, tasks, results) = subject
            .map_or_else(Default::default, |subject| (subject.adapter, subject.tasks, subject.results));
        let mut comparisons = Vec::new();
        if let Some(((base, base_results), others)) = runs.split_first() {
            for (other, results) in others {
                for result in results {
                    if let Some(base_result) = base_results.iter().find(|r| r.task == result.task) {
                        comparisons.extend(compare_task(&base.name, base_result, &other.name, result));
                    }
                }
            }
        }
        let first = runs.first().map_or(&[][..], |(_, results)| results);
        let by_task = |value: &dyn Fn(&TaskResult) -> Value| -> Map<String, Value> {
            first.iter().map(|r| (r.task.clone(), value(r))).filter(|(_, v)| !v.is_null()).collect()
        };
        Self {
            model: model.to_owned(),
            adapter,
            tasks,
            results,
            comparisons,
            runs: reports,
            n_shot: by_task(&|r| Value::from(r.num_fewshot)),
            versions: by_task(&|r| r.version.clone().map_or(Value::Null, Value::from)),
            config: Map::new(),
        }
    }

    /// Pretty JSON, ending in a line break.
    pub fn write(&self, path: &Path) -> Result<(), EvalError> {
        write_file(path, |out| {
            serde_json::to_writer_pretty(&mut *out, self)?;
            out.write_all(b"\n")
        })
    }

    /// Reads what [`EvalReport::write`] wrote.
    pub fn read(path: &Path) -> Result<Self, EvalError> {
        let text = std::fs::read_to_string(path).map_err(|e| EvalError::io(path, e))?;
        serde_json::from_str(&text).map_err(|e| EvalError::Report {
            origin: path.display().to_string(),
            what: format!("not a report of `galen eval --out`: {e}"),
        })
    }
}

fn run_report(meta: &RunMeta, results: &[TaskResult]) -> RunReport {
    let mut tasks = Map::new();
    let mut harness = Map::new();
    for result in results {
        let mut metrics = Map::new();
        let mut flat = Map::new();
        if let Some(alias) = &result.alias {
            flat.insert("alias".into(), Value::from(alias.clone()));
        }
        for metric in &result.metrics {
            let [lo, hi] = metric.ci95;
            metrics.insert(metric.key(), serde_json::json!({"value": metric.value, "ci95": [lo, hi]}));
            let (name, filter) = (&metric.metric, &metric.filter);
            flat.insert(format!("{name},{filter}"), Value::from(metric.value));
            // The harness writes "N/A" where a single item has no standard error.
            flat.insert(
                format!("{name}_stderr,{filter}"),
                metric.stderr.map_or(Value::from("N/A"), Value::from),
            );
        }
        let chance = result.chance.map_or(Value::Null, Value::from);
        let task = serde_json::json!({"n": result.n(), "chance": chance, "metrics": metrics});
        tasks.insert(result.task.clone(), task);
        harness.insert(result.task.clone(), Value::Object(flat));
    }
    RunReport { name: meta.name.clone(), adapter: meta.adapter.clone(), tasks, results: harness }
}

fn compare_task(a: &str, a_result: &TaskResult, b: &str, b_result: &TaskResult) -> Vec<Comparison> {
    let same_items = a_result.n() == b_result.n()
        && a_result.samples.iter().zip(&b_result.samples).all(|(x, y)| x.doc_hash == y.doc_hash);
    if !same_items {
        return Vec::new();
    }
    a_result
        .metrics
        .iter()
        .filter_map(|x| {
            let y = b_result.metrics.iter().find(|y| y.key() == x.key())?;
            let test = stats::mcnemar(&x.scores, &y.scores);
            Some(Comparison {
                task: a_result.task.clone(),
                metric: x.key(),
                a: a.to_owned(),
                b: b.to_owned(),
                n: a_result.n(),
                delta: y.value - x.value,
                ci95: stats::bootstrap_paired_difference(&x.scores, &y.scores, SEED)?,
                p_mcnemar: test.p,
                p_mcnemar_mid: test.mid_p,
                only_a: test.only_a,
                only_b: test.only_b,
            })
        })
        .collect()
}
