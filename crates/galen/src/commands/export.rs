//! `galen export`.

use crate::cli::Globals;
use crate::error::UsageError;
use crate::progress::say;
use crate::session::{Base, is_adapter, open_adapter_over, resolve_run, saved_template};
use crate::stdout;
use clap::builder::PossibleValuesParser;
use galen_adapter::{Adapter, BaseRecord};
use galen_export::{FORMATS, Format, Options, QUANTIZATIONS, Quantization, Source, Written};
use serde_json::json;
use std::path::PathBuf;

/// Flags of `galen export`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The model: a folder, a `.gguf`, `ORG/REPO[@REV]`, a catalogue name, a run directory for base and adapter;
    /// default: the adapter's recorded base
    #[arg(long, short = 'm', value_name = "M", required_unless_present = "adapter")]
    pub model: Option<String>,
    /// An adapter: a PEFT folder or a run directory
    #[arg(long, alias = "lora", value_name = "A")]
    pub adapter: Option<String>,
    /// The format
    #[arg(long, short, value_name = "F", value_parser = PossibleValuesParser::new(FORMATS.iter().map(|f| f.name())))]
    pub format: String,
    /// Types of the tensors; default: as the base has them
    #[arg(
        long,
        alias = "outtype",
        value_name = "Q",
        ignore_case = true,
        value_parser = PossibleValuesParser::new(QUANTIZATIONS.iter().map(|q| q.name))
    )]
    pub quantize: Option<String>,
    /// Largest safetensors file, bytes
    #[arg(long, alias = "max_shard_size", value_name = "BYTES", default_value_t = 5_000_000_000)]
    pub max_shard_size: u64,
    /// The file or folder to write; one that an export wrote is replaced once the new one is whole
    #[arg(long, short, value_name = "PATH")]
    pub out: PathBuf,
}

/// A base and an adapter, opened.
pub struct Opened {
    base: Base,
    adapter: Option<(Adapter, PathBuf)>,
    record: BaseRecord,
    template: Option<String>,
}

impl Opened {
    /// Opens a model and an adapter as the flags of every command name them.
    pub fn new(
        mut model: Option<String>,
        mut adapter: Option<String>,
        offline: bool,
    ) -> anyhow::Result<Self> {
        if adapter.is_none() && model.as_deref().is_some_and(is_adapter) {
            adapter = model.take();
        }
        let name = match (&model, &adapter) {
            (Some(model), _) => model.clone(),
            (None, Some(adapter)) => resolve_run(adapter, offline)?.0,
            (None, None) => return Err(UsageError::new("no model", "`--model M`").into()),
        };
        let base = Base::open(&name, offline)?;
        let mut record = BaseRecord { name: base.resolved.hf_id.clone(), revision: None };
        let mut opened = None;
        let mut template = None;
        if let Some(adapter) = &adapter {
            let shapes = galen_export::module_shapes(base.weights.config());
            let (over, path, its_base) = open_adapter_over(adapter, &shapes, offline)?;
            if its_base.name.is_some() {
                record = its_base;
            }
            template = saved_template(adapter, offline)?;
            opened = Some((over, path));
        }
        Ok(Self { base, adapter: opened, record, template })
    }

    /// As exports take it.
    pub fn source(&self) -> Source<'_> {
        Source {
            weights: &self.base.weights,
            tokenizer: &self.base.tokenizer,
            adapter: self.adapter.as_ref().map(|(a, _)| a),
            adapter_dir: self.adapter.as_ref().map(|(_, dir)| dir.as_path()),
            base: self.record.clone(),
            chat_template: self.template.as_deref(),
        }
    }
}

/// Writes the model.
pub fn run(args: Args, globals: &Globals) -> anyhow::Result<()> {
    let Some(format) = galen_export::find(&args.format) else {
        return Err(UsageError::new(format!("format `{}`", args.format), "see `galen export --help`").into());
    };
    let options = Options {
        quantize: args.quantize.as_deref().and_then(Quantization::find),
        max_shard_bytes: args.max_shard_size.max(1),
    };
    let opened = Opened::new(args.model, args.adapter, globals.offline)?;
    let started = std::time::Instant::now();
    let written = galen_export::export(format, &opened.source(), &options, &args.out)?;
    tell(format, &args.out, &written, started.elapsed().as_secs_f64(), globals)
}

/// Says what was written and how to serve it.
fn tell(
    format: &dyn Format,
    out: &std::path::Path,
    written: &Written,
    seconds: f64,
    globals: &Globals,
) -> anyhow::Result<()> {
    let path = out.display().to_string();
    let launch: Vec<String> = written.launch.iter().map(|line| line.replace("{}", &path)).collect();
    for note in &written.notes {
        say(&format!("note: {note}"));
    }
    say(&format!("{path}: {} MB as {} in {seconds:.1} s", written.bytes.div_ceil(1_000_000), format.name()));
    if globals.json {
        return stdout::print_json(&json!({
            "path": path, "format": format.name(), "bytes": written.bytes, "launch": launch, "notes": written.notes,
        }));
    }
    if !launch.is_empty() {
        say("to serve it:");
    }
    for line in launch {
        stdout::print(&format!("    {line}\n"))?;
    }
    Ok(())
}
