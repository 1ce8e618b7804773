//! Counts and times, as Prometheus reads them.

use crate::engine::Stats;
use crate::openai::Kind;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Upper ends of the buckets of times, in seconds.
const BUCKETS: [f64; 12] = [0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 120.0];

#[derive(Default)]
struct Histogram {
    /// As [`BUCKETS`], each with those below it.
    counts: [u64; BUCKETS.len()],
    sum: f64,
    all: u64,
}

impl Histogram {
    fn add(&mut self, time: Duration) {
        let seconds = time.as_secs_f64();
        self.counts.iter_mut().zip(BUCKETS).filter(|(_, end)| seconds <= *end).for_each(|(n, _)| *n += 1);
        self.sum += seconds;
        self.all += 1;
    }

    fn write(&self, out: &mut String, name: &str, help: &str) {
        let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} histogram");
        for (n, end) in self.counts.iter().zip(BUCKETS) {
            let _ = writeln!(out, "{name}_bucket{{le=\"{end}\"}} {n}");
        }
        let (all, sum) = (self.all, self.sum);
        let _ = writeln!(out, "{name}_bucket{{le=\"+Inf\"}} {all}\n{name}_sum {sum}\n{name}_count {all}");
    }
}

#[derive(Default)]
struct Counted {
    answered: BTreeMap<(&'static str, u16), u64>,
    /// Finished requests and tokens drawn, by model.
    finished: BTreeMap<String, (u64, u64)>,
    first_token: Histogram,
    responses: Histogram,
}

/// Of the server since it started.
#[derive(Default)]
pub(super) struct Metrics(Mutex<Counted>);

impl Metrics {
    fn counted(&self) -> MutexGuard<'_, Counted> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A request got its status, a stream its beginning.
    pub fn answered(&self, path: &'static str, status: u16, time: Duration) {
        let mut counted = self.counted();
        *counted.answered.entry((path, status)).or_default() += 1;
        if path.ends_with("/completions") {
            counted.responses.add(time);
        }
    }

    /// A stream's first event came.
    pub fn first_token(&self, time: Duration) {
        self.counted().first_token.add(time);
    }

    /// A request was answered to its end.
    pub fn finished(&self, model: &str, tokens: usize) {
        let mut counted = self.counted();
        let (requests, all) = counted.finished.entry(model.to_owned()).or_default();
        *requests += 1;
        *all += tokens as u64;
    }

    /// Everything.
    pub fn text(&self, stats: &Stats) -> String {
        let mut out = String::new();
        let mut one = |name: &str, kind: &str, help: &str, value: u64| {
            let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}");
        };
        let Stats { running, waiting, reserved_tokens, most_reserved_tokens, .. } = *stats;
        one("galen_sequences_running", "gauge", "Sequences in the batch.", running);
        one("galen_requests_waiting", "gauge", "Prompts in the queue.", waiting);
        one(
            "galen_cache_tokens_reserved",
            "gauge",
            "Tokens running requests may come to hold.",
            reserved_tokens,
        );
        one("galen_cache_tokens", "gauge", "Tokens the cache has room for.", most_reserved_tokens);
        one("galen_prompt_tokens_total", "counter", "Prompt tokens computed.", stats.prompt_tokens);
        one("galen_generated_tokens_total", "counter", "Tokens drawn.", stats.generated_tokens);
        one("galen_steps_total", "counter", "Steps of the batch.", stats.steps);
        one("galen_requests_cancelled_total", "counter", "Requests whose client went away.", stats.cancelled);
        let counted = self.counted();
        let _ = writeln!(out, "# HELP galen_http_responses_total Responses by path and status.");
        let _ = writeln!(out, "# TYPE galen_http_responses_total counter");
        for ((path, status), n) in &counted.answered {
            let _ = writeln!(out, "galen_http_responses_total{{path=\"{path}\",status=\"{status}\"}} {n}");
        }
        for (name, help, second) in [
            ("galen_requests_finished_total", "Requests answered to their end, by model.", false),
            ("galen_finished_tokens_total", "Tokens of those, by model.", true),
        ] {
            let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} counter");
            for (model, (requests, tokens)) in &counted.finished {
                let n = if second { tokens } else { requests };
                let _ = writeln!(out, "{name}{{model=\"{}\"}} {n}", escape(model));
            }
        }
        let help = "Seconds to the first event of a stream.";
        counted.first_token.write(&mut out, "galen_time_to_first_token_seconds", help);
        let help = "Seconds to an answer, or to the beginning of a stream.";
        counted.responses.write(&mut out, "galen_response_seconds", help);
        out
    }
}

/// A path by which requests are counted: a client cannot make up names.
pub(super) fn known_path(path: &str) -> &'static str {
    let known = [
        Kind::Chat.path(),
        Kind::Text.path(),
        "/v1/load_lora_adapter",
        "/v1/unload_lora_adapter",
        "/v1/models",
        "/health",
        "/metrics",
        "/",
    ];
    match known.iter().find(|k| **k == path) {
        Some(known) => known,
        None if path.starts_with("/v1/models/") => "/v1/models",
        None => "other",
    }
}

/// A label's value.
fn escape(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}
