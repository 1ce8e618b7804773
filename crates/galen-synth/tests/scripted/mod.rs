//! Pipelines run with an engine whose answers a test writes.

use galen_engine::{Answer, Engine, EngineError, Event, Finish, Input, ModelCard, Piece, Request, Stats};
use galen_reward::Network;
use galen_synth::{EngineKind, Figures, Pipeline, Run, Show, SynthError, Teacher};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

type Reply = dyn Fn(&str, usize) -> String + Send + Sync;

/// Answers with what a function of the prompt and the completion's number says.
struct Scripted(Box<Reply>);

impl Engine for Scripted {
    fn models(&self) -> Vec<ModelCard> {
        Vec::new()
    }
    fn generate(&self, request: Request) -> Result<Answer, EngineError> {
        let prompt = match &request.inputs[0] {
            Input::Chat(messages) => {
                messages.last().expect("it is there")["content"].as_str().expect("it is there").to_owned()
            }
            Input::Text(text) => text.clone(),
            Input::Tokens(_) => String::new(),
        };
        let (events, answer) = Answer::new(7, request.options.n);
        for choice in 0..request.options.n {
            let text = (self.0)(&prompt, choice);
            let finish = if text.ends_with("...") { Finish::Length } else { Finish::Stop };
            let piece = Piece { text, tokens: Vec::new() };
            events.send(Event::Piece { choice, piece }).expect("it is there");
            events.send(Event::End { choice, finish, tokens: 3 }).expect("it is there");
        }
        Ok(answer)
    }
    fn load_adapter(&self, _: &str, _: &str) -> Result<(), EngineError> {
        Err(EngineError::Stopping)
    }
    fn unload_adapter(&self, _: &str) -> Result<(), EngineError> {
        Err(EngineError::Stopping)
    }
    fn stop(&self) {}
    fn abort(&self) {}
    fn stats(&self) -> Stats {
        Stats::default()
    }
}

pub static KIND: EngineKind =
    EngineKind { name: "scripted", about: "", doc: "", params: &[], logprobs: true };

struct Quiet;
impl Show for Quiet {
    fn begin(&self, _: &str, _: usize, _: usize) {}
    fn row(&self, _: bool, _: [u64; 2]) {}
    fn end(&self, _: [usize; 3]) {}
}

pub struct Outcome {
    pub rows: Vec<Value>,
    pub figures: Figures,
}

impl Outcome {
    pub fn texts(&self, field: &str) -> Vec<String> {
        self.rows.iter().map(|r| r[field].as_str().unwrap_or("-").to_owned()).collect()
    }

    /// `filtered:reason` or `failed:reason` with counts, of the step at a place.
    pub fn ends(&self, step: usize) -> BTreeMap<String, usize> {
        let s = &self.figures.steps[step];
        let named = |word: &'static str, map: &BTreeMap<String, galen_synth::Reason>| {
            map.iter().map(|(reason, r)| (format!("{word}: {reason}"), r.rows)).collect::<Vec<_>>()
        };
        [named("filtered", &s.filtered), named("failed", &s.failed)].concat().into_iter().collect()
    }

    pub fn mean(&self, step: usize, name: &str) -> f64 {
        self.figures.steps[step].figures[name].mean
    }
}

pub fn run(
    seeds: Value,
    steps: Value,
    reply: impl Fn(&str, usize) -> String + Send + Sync + 'static,
) -> Outcome {
    run_with(seeds, steps, json!({}), reply)
}

pub fn run_with(
    seeds: Value,
    steps: Value,
    more: Value,
    reply: impl Fn(&str, usize) -> String + Send + Sync + 'static,
) -> Outcome {
    let dir = tempfile::tempdir().expect("it is there");
    run_in(dir.path(), seeds, steps, more, false, &AtomicBool::new(false), reply)
        .unwrap_or_else(|e| panic!("{e}"))
}

pub fn run_in(
    dir: &Path,
    seeds: Value,
    steps: Value,
    more: Value,
    retry_failed: bool,
    stop: &AtomicBool,
    reply: impl Fn(&str, usize) -> String + Send + Sync + 'static,
) -> Result<Outcome, SynthError> {
    let at = |name: &str| dir.join(name).display().to_string();
    let lines: String = seeds.as_array().expect("it is there").iter().map(|r| format!("{r}\n")).collect();
    std::fs::write(at("seeds.jsonl"), lines).expect("it is there");
    let steps: Value = serde_json::from_str(&steps.to_string().replace("DIR", &dir.display().to_string()))
        .expect("it is there");
    let mut config = json!({
        "seeds": at("seeds.jsonl"), "output_dir": at("out"), "steps": steps,
        "engines": {"t": {"type": "scripted"}}, "report_samples": 2,
    });
    for (key, value) in more.as_object().expect("it is there") {
        let value = value.to_string().replace("DIR", &dir.display().to_string());
        config[key] = serde_json::from_str(&value).expect("it is there");
    }
    if let Some(files) = config.as_object_mut().expect("it is there").remove("files") {
        for (name, text) in files.as_object().expect("it is there") {
            let path = dir.join(name);
            std::fs::create_dir_all(path.parent().expect("it is there")).expect("it is there");
            std::fs::write(path, text.as_str().expect("it is there")).expect("it is there");
        }
    }
    let pipeline =
        Pipeline::parse(&config, &[&KIND], Network::Offline).unwrap_or_else(|e| panic!("{}", e[0]));
    let teacher = Teacher {
        engine: Arc::new(Scripted(Box::new(reply))),
        kind: "scripted",
        model: "m".into(),
        identity: "i".into(),
        concurrency: 3,
        constrains: false,
        repeats: false,
        prices: [1.0, 2.0],
    };
    let teachers = BTreeMap::from([("t".to_owned(), teacher)]);
    let figures = Run { pipeline: &pipeline, teachers: &teachers, show: &Quiet, stop, retry_failed }.run()?;
    assert_eq!(figures.seeds, figures.seeds_kept + figures.seeds_filtered + figures.seeds_failed);
    let text = std::fs::read_to_string(dir.join("out/rows.jsonl")).expect("it is there");
    let rows = text.lines().map(|l| serde_json::from_str(l).expect("it is there")).collect();
    let page = std::fs::read_to_string(dir.join("out/synth_report.html")).expect("it is there");
    assert!(page.contains("</html>"));
    Ok(Outcome { rows, figures })
}

pub fn none(_: &str, _: usize) -> String {
    panic!("no model is asked")
}
