//! galen's own engine as a teacher.

use super::{Opener, PRICES, Running, local};
use crate::session::{EngineName, Serving, ServingOptions, serving_kernels};
use galen_reward::{ConfigError, Kind, Options, Param};
use galen_synth::{EngineKind, EngineSpec};

pub(super) const OPENER: Opener = Opener {
    kind: EngineKind {
        name: "native",
        about: "galen's own engine, on this machine",
        doc: "Many rows in one batch, prompts computed between its steps, an adapter over the base where one is named. Answers satisfy a \
              `schema` by construction. The same seed gives the same answers on one machine.",
        params: &[PARAMS, PRICES],
        logprobs: true,
    },
    open,
};

const PARAMS: &[Param] = &[
    Param::required("model", Kind::Text, "a folder, a `.gguf`, `ORG/REPO[@REV]`, a catalogue name, a run"),
    Param::optional("adapter", Kind::Text, "an adapter over it: a folder or a run"),
    Param::optional(
        "chat_template",
        Kind::Text,
        "a template by name or file; default: the adapter's, else the model's own",
    ),
    Param::with("device", Kind::Text, "\"auto\"", "where: `auto`, `cpu` or `cuda:N`"),
    Param::with("max_batch", Kind::Count, "16", "rows computed together"),
    Param::optional(
        "kernels",
        Kind::OneOf(&["blocks", "passes"]),
        "what steps go through, as `galen serve --kernels`",
    ),
    Param::optional(
        "max_model_len",
        Kind::Count,
        "most tokens of a prompt and its answer; default: the model's own limit",
    ),
    Param::optional(
        "cache_mib",
        Kind::Count,
        "memory for keys and values, MiB; default: half of what is free",
    ),
];

/// Requests that may wait beside those in the batch.
const WAITING: usize = 4096;

fn open(spec: &EngineSpec, options: &Options<'_>, offline: bool) -> anyhow::Result<Running> {
    let max_batch = options.positive("max_batch")?;
    let given = |name: &str| -> Result<Option<usize>, ConfigError> { options.maybe_count(name) };
    let model = options.filled("model")?;
    let adapter = options.maybe_text("adapter")?;
    let serving = Serving::open(
        ServingOptions {
            device: options.text("device")?.parse().map_err(|e: String| options.wrong("device", e))?,
            model: Some(model.clone()),
            adapter: adapter.iter().map(|a| format!("{}={a}", spec.name)).collect(),
            served_model_name: Some(format!("{model}{}", if adapter.is_some() { " (base)" } else { "" })),
            chat_template: options.maybe_text("chat_template")?,
            max_num_seqs: max_batch,
            kernels: options.maybe_text("kernels")?.as_deref().and_then(serving_kernels),
            max_model_len: given("max_model_len")?,
            cache_mib: given("cache_mib")?,
            engine: EngineName::Native,
            isq: None,
        },
        WAITING,
        offline,
    )?;
    let name = match adapter {
        Some(_) => spec.name.clone(),
        // A run directory as the model stands for both: its adapter is the last name.
        None => serving.names().pop().unwrap_or_default(),
    };
    // As many again wait, so that a place in the batch is never empty.
    local("native", name, serving, 2 * max_batch, options)
}
