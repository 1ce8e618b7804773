//! mistralrs-core as a teacher.

use super::{Opener, PRICES, Running, local};
use crate::config::Device;
use crate::session::{EngineName, Serving, ServingOptions};
use galen_reward::{Kind, Options, Param};
use galen_synth::{EngineKind, EngineSpec};

pub(super) const OPENER: Opener = Opener {
    kind: EngineKind {
        name: "mistralrs",
        about: "mistralrs-core, on this machine (cargo feature `mistralrs`)",
        doc: "Architectures that galen does not know, and weights quantised when they are read. One row at a time; an adapter over a \
              folder of safetensors. Answers satisfy a `schema` by construction. The same seed gives the same answers on one machine.",
        params: &[PARAMS, PRICES],
        logprobs: true,
    },
    open,
};

const PARAMS: &[Param] = &[
    Param::required("model", Kind::Text, "a folder, a `.gguf`, `ORG/REPO[@REV]`, a catalogue name"),
    Param::optional("adapter", Kind::Text, "a folder of PEFT's over a folder of safetensors"),
    Param::optional(
        "chat_template",
        Kind::Text,
        "a template by name or file; default: the adapter's, else the model's own",
    ),
    Param::optional("isq", Kind::Text, "quantise a folder's weights when they are read: `Q8_0`, `Q4K` ..."),
    Param::optional(
        "max_model_len",
        Kind::Count,
        "most tokens of a prompt and its answer; default: the model's own limit",
    ),
];

/// Completions that a request may have, and requests under way.
const AT_ONCE: usize = 16;
/// Requests that may wait beside them.
const WAITING: usize = 4096;

fn open(spec: &EngineSpec, options: &Options<'_>, offline: bool) -> anyhow::Result<Running> {
    let model = options.filled("model")?;
    let adapter = options.maybe_text("adapter")?;
    let serving = Serving::open(
        ServingOptions {
            device: Device::default(),
            model: Some(model.clone()),
            adapter: adapter.iter().map(|a| format!("{}={a}", spec.name)).collect(),
            served_model_name: Some(model),
            chat_template: options.maybe_text("chat_template")?,
            max_num_seqs: AT_ONCE,
            kernels: None,
            max_model_len: options.maybe_count("max_model_len")?,
            cache_mib: None,
            engine: EngineName::Mistralrs,
            isq: options.maybe_text("isq")?,
        },
        WAITING,
        offline,
    )?;
    let name = serving.names().pop().unwrap_or_default();
    local("mistralrs", name, serving, AT_ONCE, options)
}
