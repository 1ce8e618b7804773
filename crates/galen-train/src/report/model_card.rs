//! `README.md` of an adapter: a Hugging Face model card.

use super::{Fact, ReportError, RunSummary, format};
use minijinja::{AutoEscape, Environment, context};

/// What a card says beyond the run's numbers.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ModelCard<'a> {
    /// Hugging Face id of the base, for `base_model:` and the commands; the user's own name where there is none.
    pub base_model: &'a str,
    /// The base's licence as Hugging Face names it (`apache-2.0`, `gemma`), where known: an adapter is bound by it.
    pub license: Option<&'a str>,
    /// Further tags.
    pub tags: &'a [&'a str],
    /// Languages as ISO 639-1 codes, where known.
    pub languages: &'a [&'a str],
    /// The system prompt or instruction the adapter was trained with, where there is one.
    pub chat: bool,
    /// Whether the adapter is a reward model's.
    pub scores: bool,
}

/// The card. Rows of the user's data stand in it only when `run.samples` is there.
pub fn model_card(card: &ModelCard<'_>, run: &RunSummary) -> Result<String, ReportError> {
    let mut env = Environment::new();
    // The front matter's texts go through `tojson`, which YAML reads; the rest is Markdown.
    env.set_auto_escape_callback(|_| AutoEscape::None);
    env.set_trim_blocks(true);
    env.set_lstrip_blocks(true);
    env.add_filter("cell", |text: String| text.replace('|', "\\|").replace(['\n', '\r'], " "));
    env.add_filter("yaml", |text: String| quoted(&text));
    let evaluation: Vec<_> = run
        .evaluation
        .iter()
        .map(|row| {
            let runs: Vec<_> = row
                .runs
                .iter()
                .map(|r| {
                    let [lo, hi] = r.ci95.map(format::percent);
                    context! { run => r.run, value => format::percent(r.value), lo, hi, raw => r.value }
                })
                .collect();
            context! {
                task => row.task, metric => row.metric, n => format::count(row.n), runs,
                chance => row.chance.map(format::percent),
                difference => row.difference.map(|(d, [lo, hi])| [d, lo, hi].map(format::points)),
                p => row.p_mcnemar.map(format::p_value),
            }
        })
        .collect();
    let last = run.steps.last();
    let training: Vec<Fact> = [
        last.map(|s| Fact::new("steps", format::count(s.step))),
        last.map(|s| Fact::new("tokens", format::count(s.num_tokens))),
        last.map(|s| Fact::new("final training loss", format::short(s.loss))),
        run.best_eval_loss().map(|(step, loss)| {
            Fact::new(
                "best validation loss",
                format!("{} (step {})", format::short(loss), format::count(step)),
            )
        }),
        last.map(|_| Fact::new("time in steps", format::seconds(run.seconds()))),
    ]
    .into_iter()
    .flatten()
    .collect();
    let text = env.render_named_str(
        "README.md",
        include_str!("model_card.md.j2"),
        context! {
            title => run.title,
            base => card.base_model,
            license => card.license,
            tags => card.tags,
            languages => card.languages,
            chat => card.chat,
            scores => card.scores,
            method => run.method,
            low_rank => run.low_rank,
            evaluation, training,
            settings => run.settings,
            data => run.data,
            hashes => run.hashes,
            versions => run.versions,
            samples => run.samples,
        },
    )?;
    Ok(text)
}

/// A YAML double-quoted scalar: JSON's escapes are YAML's.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::super::summary::tests::sample_run;
    use super::*;

    fn card() -> ModelCard<'static> {
        ModelCard {
            base_model: "HuggingFaceTB/SmolLM2-135M-Instruct",
            license: Some("apache-2.0"),
            tags: &["icd-10"],
            languages: &["en"],
            chat: true,
            scores: false,
        }
    }

    #[test]
    fn front_matter_and_figures() {
        let text = model_card(&card(), &sample_run()).unwrap();
        let front = text.strip_prefix("---\n").and_then(|t| t.split_once("\n---\n")).unwrap().0;
        for line in [
            "base_model: \"HuggingFaceTB/SmolLM2-135M-Instruct\"",
            "library_name: peft",
            "pipeline_tag: text-generation",
            "license: \"apache-2.0\"",
            "- \"icd-10\"",
        ] {
            assert!(front.lines().any(|l| l.trim() == line), "{line}\n{front}");
        }
        for part in [
            "| icd10_letter | acc | 360 | adapter | **70.0** | 65.3 – 74.7 |",
            "PeftModel",
            "vllm serve",
            "llama-cli",
            "3f5a",
        ] {
            assert!(text.contains(part), "{part}\n{text}");
        }
        assert!(!text.contains("Examples"));
    }

    #[test]
    fn a_reward_model_is_shown_as_one() {
        let text = model_card(&ModelCard { scores: true, ..card() }, &sample_run()).unwrap();
        for part in
            ["pipeline_tag: text-classification", "AutoModelForSequenceClassification", "reward_model"]
        {
            assert!(text.contains(part), "{part}\n{text}");
        }
        assert!(!text.contains("vllm serve") && !text.contains("galen generate"), "{text}");
    }

    #[test]
    fn what_other_servers_do_not_load_is_merged_for_them() {
        let run = RunSummary { method: "DoRA".into(), low_rank: false, ..sample_run() };
        let text = model_card(&card(), &run).unwrap();
        for part in ["\n- dora\n", "A DoRA adapter for", "galen merge --adapter", "llama-cli -m merged.gguf"]
        {
            assert!(text.contains(part), "{part}\n{text}");
        }
        assert!(!text.contains("--enable-lora") && !text.contains("convert_lora_to_gguf"), "{text}");
    }

    #[test]
    fn hostile_names_stay_in_their_place() {
        let mut run = sample_run();
        run.title = "x\n---\nlicense: mit".into();
        run.data[0].name = "a|b".into();
        let card = ModelCard { base_model: "a\": b\n---\n", ..card() };
        let text = model_card(&card, &run).unwrap();
        let front = text.strip_prefix("---\n").and_then(|t| t.split_once("\n---\n")).unwrap().0;
        assert!(front.contains("base_model: \"a\\\": b\\n---\\n\""), "{front}");
        assert!(!front.contains("license: mit"), "{front}");
        assert!(text.contains("a\\|b"));
    }
}
