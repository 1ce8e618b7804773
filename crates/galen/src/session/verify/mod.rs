//! Whether what is served is what was trained: an artifact's way to tokens, its predictions, its weights and the end of its
//! answers, against those of the run.

mod artifact;
mod chats;
mod limits;
mod record;
mod report;
mod samples;
mod texts;

pub use limits::{LimitArgs, Limits};
pub use record::{Record, unverified, write_beside};
pub use report::{ModelReport, StopReport, Verdict, WeightsReport};

use super::prepare::Preparer;
use super::rows::Rows;
use super::run_dir::date_of;
use super::{Opened, sha256_file};
use crate::progress::{counted, say};
use artifact::Artifact;
use chats::{read_rows, render_options, supervised};
use galen_adapter::Adapter;
use galen_data::template::{ChatTemplate, RenderOptions};
use galen_export::{TensorError, adapter_errors, modelfile, tensor_errors};
use galen_model::tokenizer::Tokenizer;
use galen_model::{Divergence, LoadOptions, Model, Predictions};
use galen_ops::hook::ProjectionHook;
use limits::{MAX_ADAPTER_ERROR, coarsest, max_weight_error, rounded_to};
use samples::Sample;
use serde_json::json;
use std::path::{Path, PathBuf};
use texts::{Served, Trained, end_of_turn};

/// Samples measured, unless the command line says otherwise.
pub const SAMPLES: usize = 64;
/// Tokens of all samples together.
const TOKENS: usize = 16_384;

/// A run, ready for artifacts to be held against it.
pub struct Verifier<'a> {
    run: &'a Opened,
    dir: PathBuf,
    model: Model,
    adapter: &'a Adapter,
    adapter_sha256: String,
    trained: Trained,
    render: RenderOptions,
    samples: Vec<Sample>,
    origin: String,
    /// Training rows with the stop token under the loss, and all.
    supervised: Option<(usize, usize)>,
    template: Option<ChatTemplate>,
}

/// The format of what lies at a path, where it is one that can be verified.
pub fn format_of(path: &Path) -> Option<&'static str> {
    artifact::kind_of(path)
}

/// SHA-256 of a run's adapter.
pub fn adapter_sha256(run: &Path) -> anyhow::Result<String> {
    sha256_file(&run.join("adapter_model.safetensors"))
}

impl<'a> Verifier<'a> {
    /// Reads the run's rows and model. `limit`: samples measured. Errors: no run, or its model cannot be read.
    pub fn open(run: &'a Opened, limit: usize, offline: bool) -> anyhow::Result<Self> {
        let (adapter, dir) = match run.adapters.first() {
            Some((adapter, Some(dir))) if dir.join("run.json").is_file() => (adapter, dir.clone()),
            _ => anyhow::bail!("it is no run directory\nhint: name the `output_dir` of a training run"),
        };
        anyhow::ensure!(
            adapter.score_head().is_none(),
            "{}: a reward model answers nothing, so there is nothing to verify",
            dir.display()
        );
        let load = LoadOptions { precision: run.precision, ..LoadOptions::default() };
        let model = run.base.model(load)?;
        let (config, _) = crate::config::check(&dir.join("config.yaml"), &[]);
        let preparer = Preparer { base: &run.base, config: &config, offline, date: date_of(&dir) };
        let rows = read_rows(&preparer);
        if let Err(e) = &rows {
            say(&format!(
                "note: the run's rows cannot be read, so galen's own prompts take their place: {e:#}"
            ));
        }
        let (rows, chats) = rows.map_or((None, Vec::new()), |(rows, chats)| (Some(rows), chats));
        // Rows of text alone were trained without the template, which the base may have all the same.
        let template = if rows.is_some() && chats.is_empty() { None } else { preparer.template()? };
        let render = render_options(&preparer);
        let tokenizer = &run.base.tokenizer;
        let trained = Trained::new(tokenizer, template.as_ref(), &render, chats);
        let supervised = rows.as_ref().and_then(|rows| supervised(rows, trained.stop?));
        let mut verifier = Self {
            adapter_sha256: adapter_sha256(&dir)?,
            samples: rows.as_ref().map(|r| samples::of_rows(r, limit)).unwrap_or_default(),
            origin: "rows of the run".into(),
            run,
            dir,
            model,
            adapter,
            trained,
            render,
            supervised,
            template,
        };
        if verifier.samples.is_empty() {
            verifier.answer(rows.as_ref(), limit)?;
        }
        let mut tokens = 0;
        verifier.samples.retain(|s| {
            tokens += s.ids.len();
            tokens <= TOKENS.max(s.ids.len())
        });
        anyhow::ensure!(
            !verifier.samples.is_empty(),
            "no prompt was answered, so there is nothing to measure"
        );
        Ok(verifier)
    }

    /// The trained model's answers to the run's prompts, else to galen's own.
    fn answer(&mut self, rows: Option<&Rows>, limit: usize) -> anyhow::Result<()> {
        let tokenizer = &self.run.base.tokenizer;
        let mut prompts = rows.map(|r| samples::prompts_of(r, limit)).unwrap_or_default();
        self.origin = "the run's prompts with the model's answers".into();
        if prompts.is_empty() {
            let render = |text: &str| {
                let message = json!({"role": "user", "content": text});
                self.template.as_ref()?.render_prompt(&[message], None, true, &self.render).ok()
            };
            prompts = samples::own_prompts(tokenizer, render, limit);
            self.origin = "galen's own prompts with the model's answers".into();
        }
        say(&format!("answering {}", counted(prompts.len() as u64, "prompt")));
        self.samples = samples::answered((&self.model, self.adapter), tokenizer, prompts, self.trained.stop)?;
        Ok(())
    }

    /// The run's directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// SHA-256 of the run's adapter.
    pub fn adapter_sha256(&self) -> &str {
        &self.adapter_sha256
    }

    /// Holds an artifact against the run. What cannot be opened has failed, with the reason.
    pub fn verify(&self, path: &Path, args: &LimitArgs) -> Verdict {
        let canonical = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        let name = canonical.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let mut verdict = Verdict {
            path: record::absolute(path),
            name,
            adapter_sha256: self.adapter_sha256.clone(),
            verified: chrono::Utc::now().format("%Y-%m-%d %H:%M UTC").to_string(),
            galen: env!("CARGO_PKG_VERSION"),
            format: format_of(path).unwrap_or("unknown").into(),
            ..Verdict::default()
        };
        let sound = Artifact::open(path, self.run).and_then(|artifact| {
            verdict.sha256 = Some(sha256_file(path)?);
            self.examine(&artifact, args, &mut verdict)
        });
        if let Err(e) = sound {
            let text = crate::error::render(&e);
            verdict.failures.push(text.trim_start_matches("error: ").replace("\nhint: ", "; "));
        }
        verdict.passed = verdict.failures.is_empty();
        verdict
    }

    fn examine(&self, artifact: &Artifact, args: &LimitArgs, verdict: &mut Verdict) -> anyhow::Result<()> {
        verdict.format = artifact.kind.into();
        let rounded = rounded_to(&self.run.base.weights, self.run.precision);
        let dtype = artifact.weights.as_ref().and_then(coarsest);
        let limits = Limits::of(dtype, rounded, args);
        verdict.limits = Some(limits);
        let text = self.text(artifact);
        verdict.failures.extend(text.difference.iter().map(|d| format!("text: {d}")));
        verdict.text = Some(text);
        verdict.failures.extend(self.modelfile_difference(artifact));
        let weights = self.weights(artifact)?;
        verdict.failures.extend(weights.difference.iter().map(|d| format!("weights: {d}")));
        verdict.weights = Some(weights);
        let mut stop = self.stop(artifact, verdict);
        let model = self.model(artifact, &mut stop)?;
        let answers = &model.answers;
        if answers.top1() < limits.min_top1 {
            let (n, of, least) = (answers.same_top1, answers.positions, limits.min_top1);
            verdict
                .failures
                .push(format!("top-1: {n} of {of} likeliest tokens of answers are alike, less than {least}"));
        }
        if answers.mean_kl.is_nan() || answers.mean_kl > limits.max_kl {
            let (kl, most) = (answers.mean_kl, limits.max_kl);
            verdict.failures.push(format!("KL: {kl:.2e} nats a token of answers, more than {most:.0e}"));
        }
        if stop.ends > 0 && (stop.first as f64) < limits.min_stop * stop.ends as f64 {
            let (n, of, trained) = (stop.first, stop.ends, stop.first_as_trained);
            let what =
                format!("stop: the likeliest token at {n} of {of} ends of answers ({trained} as trained)");
            verdict.failures.push(format!("{what}, less than {}", limits.min_stop));
        }
        (verdict.model, verdict.stop) = (Some(model), Some(stop));
        Ok(())
    }

    /// The tokenizer that serves an artifact, and its template.
    fn served<'b>(&'b self, artifact: &'b Artifact) -> Served<'b> {
        let tokenizer: &Tokenizer = artifact.tokenizer.as_ref().unwrap_or(&self.run.base.tokenizer);
        Served { tokenizer, template: tokenizer.chat_template() }
    }

    fn text(&self, artifact: &Artifact) -> texts::TextReport {
        let mut report = self.trained.compare(&self.run.base.tokenizer, &self.served(artifact), &self.render);
        if artifact.tokenizer.is_none() {
            // It holds no way to tokens: what its base has is no fault of the file.
            report.template = "of the base";
            report.note = report.difference.take().map(|d| {
                format!("with the base's own template: {d}; serve it with the run's `chat_template.jinja`")
            });
        }
        report
    }

    fn modelfile_difference(&self, artifact: &Artifact) -> Option<String> {
        let its = artifact.modelfile.as_deref()?;
        let ours = match modelfile(&self.run.source()) {
            Ok(text) => text,
            Err(e) => return Some(format!("Modelfile: {e}")),
        };
        let mut pairs = ours.lines().zip(its.lines().chain(std::iter::repeat("(nothing)")));
        let (ours, its) = pairs.find(|(ours, its)| ours != its)?;
        Some(format!("Modelfile: it says `{its}` instead of `{ours}`"))
    }

    fn weights(&self, artifact: &Artifact) -> anyhow::Result<WeightsReport> {
        let source = self.run.source();
        let errors = match (&artifact.weights, &artifact.adapter) {
            (Some(weights), _) => tensor_errors(&source, weights)?,
            (None, Some(adapter)) => adapter_errors(self.adapter, adapter),
            (None, None) => Vec::new(),
        };
        let most = |e: &TensorError| match artifact.weights {
            Some(_) => max_weight_error(e.dtype),
            None => MAX_ADAPTER_ERROR,
        };
        let beyond = errors.iter().find(|e| e.relative > most(e)).map(|e| {
            let (name, dtype, relative) = (&e.name, e.dtype, e.relative);
            format!("`{name}` ({dtype}) has a relative error of {relative:.1e}, more than {:.0e}", most(e))
        });
        let furthest = errors.iter().max_by(|a, b| a.relative.total_cmp(&b.relative));
        Ok(WeightsReport {
            dtype: artifact.weights.as_ref().and_then(coarsest).map(|d| d.to_string()),
            furthest: furthest.map(|e| e.name.clone()),
            relative_error: furthest.map_or(0.0, |e| e.relative),
            difference: beyond,
        })
    }

    /// What is known of the stop token without running the model; failures go to the verdict.
    fn stop(&self, artifact: &Artifact, verdict: &mut Verdict) -> StopReport {
        let Some(id) = self.trained.stop else {
            verdict.failures.push("stop: the template writes no control token behind an answer".into());
            return StopReport::default();
        };
        let base = &self.run.base.tokenizer;
        let served = self.served(artifact);
        let token = base.token(id);
        let text = token.clone().unwrap_or_default();
        let mut eos = served.tokenizer.eos_ids().to_vec();
        if artifact.weights.is_none() {
            // Over a base, a server goes by the base's files too.
            eos.extend(base.eos_ids());
        }
        let in_template = served.template.filter(|_| self.template.is_some()).map(|source| {
            let template = super::base::compile_template(served.tokenizer, source, &[]).ok();
            template.and_then(|t| end_of_turn(served.tokenizer, &t, &self.render)) == Some(id)
        });
        if in_template == Some(false) {
            verdict.failures.push(format!("stop: its template does not write `{text}` behind an answer"));
        }
        if !eos.contains(&id) {
            let has: Vec<String> = eos.iter().filter_map(|id| served.tokenizer.token(*id)).collect();
            verdict
                .failures
                .push(format!("stop: `{text}` ends no answer of it, only `{}`", has.join("`, `")));
        }
        if let Some((0, of)) = self.supervised {
            let what = format!("stop: `{text}` was under the loss in none of {of} training rows");
            verdict.failures.push(format!("{what}: answers do not end by what was learned (`train_on_eos`)"));
        }
        StopReport {
            id: Some(id),
            token,
            in_template,
            ends_generation: eos.contains(&id),
            supervised_rows: self.supervised.map(|(n, _)| n),
            rows: self.supervised.map(|(_, of)| of),
            ..StopReport::default()
        }
    }

    /// The predictions behind every token of the samples.
    fn model(&self, artifact: &Artifact, stop: &mut StopReport) -> anyhow::Result<ModelReport> {
        let loaded = match &artifact.weights {
            Some(weights) => Some(Model::load(weights, LoadOptions::default())?),
            None if self.run.precision == LoadOptions::default().precision => None,
            None => Some(self.run.base.model(LoadOptions::default())?),
        };
        let other = loaded.as_ref().unwrap_or(&self.model);
        let hook = artifact.adapter.as_ref().map(|a| a as &dyn ProjectionHook);
        let (mut answers, mut prompts) = (Divergence::default(), Divergence::default());
        for sample in &self.samples {
            let places: Vec<u32> = (0..sample.ids.len() as u32 - 1).collect();
            let ours = (&self.model, Some(self.adapter as &dyn ProjectionHook));
            let found = Predictions::of(ours, (other, hook), &sample.ids, &places)?;
            for (i, one) in found.divergence.iter().enumerate() {
                let next = i + 1;
                let of = if sample.answer[next] { &mut answers } else { &mut prompts };
                *of = of.and(*one);
                if sample.answer[next] && Some(sample.ids[next]) == stop.id {
                    stop.ends += 1;
                    stop.first += usize::from(Some(found.second[i]) == stop.id);
                    stop.first_as_trained += usize::from(Some(found.first[i]) == stop.id);
                }
            }
        }
        Ok(ModelReport {
            samples: self.samples.len(),
            origin: self.origin.clone(),
            answers: answers.into(),
            prompts: prompts.into(),
        })
    }
}
