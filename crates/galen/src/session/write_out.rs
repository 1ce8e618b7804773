//! Writing a merged model: rounding by the inputs of its projections, and how far it is from the model unmerged.

use super::opened::Opened;
use super::samples::{Samples, samples};
use crate::error::UsageError;
use crate::progress::{counted, say};
use clap::builder::PossibleValuesParser;
use galen_adapter::Adapter;
use galen_export::{
    Calibration, Error, Format, Options, QUANTIZATIONS, Quantization, Source, Written, export, export_checked,
};
use galen_model::{Divergence, LoadOptions, Model, Weights};
use galen_ops::hook::ProjectionHook;
use galen_ops::quant::WeightDtype;
use std::path::{Path, PathBuf};

/// Predictions compared at the end of each sample.
const POSITIONS: usize = 24;
/// Bits a weight from which rounding each by itself loses nothing that feeding errors back would keep.
const WELL_ROUNDED: f64 = 8.0;

/// How merged weights become blocks again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Requantize {
    /// Errors are fed back into later columns, by the inputs that sample texts give (GPTQ).
    Feedback,
    /// Each block by itself.
    Plain,
}

/// Flags of commands that write a model.
#[derive(Debug, Clone, clap::Args)]
pub struct WriteArgs {
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
    /// How merged weights become quantised blocks again; default: feedback below eight bits a weight, else plain
    #[arg(long, value_name = "HOW")]
    pub requantize: Option<Requantize>,
    /// Write nothing where the merged model is further than this from the model unmerged: KL, nats a token
    #[arg(long, alias = "max_kl", value_name = "X", value_parser = nats)]
    pub max_kl: Option<f64>,
    /// Texts to merge by and to measure on, a line each; default: those of the run, else some of galen's own
    #[arg(long, value_name = "FILE")]
    pub samples: Option<PathBuf>,
}

fn nats(text: &str) -> Result<f64, String> {
    let x = text.parse::<f64>().map_err(|e| e.to_string())?;
    if x.is_finite() && x >= 0.0 { Ok(x) } else { Err("not a number from 0 on".into()) }
}

impl WriteArgs {
    /// The types asked for, where any are.
    pub fn quantization(&self) -> Option<Quantization> {
        self.quantize.as_deref().and_then(Quantization::find)
    }
}

/// Whether a path is that of a GGUF file: all commands go by the ending.
pub fn names_gguf(path: &Path) -> bool {
    path.extension().is_some_and(|e| e.eq_ignore_ascii_case("gguf"))
}

/// Writes a format, its merged weights rounded and measured as the flags say.
pub fn write_out(
    opened: &Opened,
    format: &dyn Format,
    args: &WriteArgs,
    offline: bool,
) -> anyhow::Result<Written> {
    let out = &args.out;
    if format.name().starts_with("gguf") && !names_gguf(out) {
        let what = format!("{}: a GGUF file's name ends in `.gguf`", out.display());
        return Err(UsageError::new(what, format!("`--out {}.gguf`", out.display())).into());
    }
    if let Some(samples) = args.samples.as_deref().filter(|path| !path.is_file()) {
        let what = format!("{}: there is no such file", samples.display());
        return Err(UsageError::new(what, "`--samples` takes a file of texts, a line each").into());
    }
    let options = &Options {
        quantize: args.quantization(),
        max_shard_bytes: args.max_shard_size.max(1),
        ..Options::default()
    };
    opened.check_out(out)?;
    galen_export::may_write(format, out)?;
    crate::signals::exit_after(|| (galen_export::abandon(), super::no_replace()))?;
    let source = opened.source();
    let merged = source.adapter.filter(|_| !format.adapter_alone());
    let bits = if format.writes_blocks() { fewest_bits(&source, options) } else { None };
    if merged.is_none() && (args.max_kl.is_some() || args.samples.is_some()) {
        let what = "`--max-kl` and `--samples` without an adapter that is merged";
        return Err(
            UsageError::new(what, "leave them out, or name an adapter and a format that merges it").into()
        );
    }
    let Some(adapter) = merged.filter(|_| bits.is_some() || args.max_kl.is_some()) else {
        return Ok(export(format, &source, options, out)?);
    };
    format.check(&source)?;
    let load = LoadOptions { precision: opened.precision, ..LoadOptions::default() };
    let model = opened.base.model(load)?;
    let texts = samples(opened, &model, adapter, args.samples.as_deref(), offline)?;
    let requantize = args.requantize.unwrap_or(match bits {
        Some(bits) if bits < WELL_ROUNDED => Requantize::Feedback,
        _ => Requantize::Plain,
    });
    let calibration = if bits.is_some() && requantize == Requantize::Feedback {
        let tokens: usize = texts.calibration.iter().map(Vec::len).sum();
        say(&format!("inputs of the projections on {} of {}", counted(tokens as u64, "token"), texts.origin));
        Some(Calibration::run(&model, adapter, &texts.calibration)?)
    } else {
        None
    };
    let options = Options { calibration: calibration.as_ref(), ..*options };
    let mut found = Divergence::default();
    let check = |path: &Path| {
        found = measure(&model, adapter, &format.model(path), &texts)?;
        match args.max_kl {
            Some(_) if found.positions == 0 => Err(Error::Cannot {
                what: "no position was measured, and `--max-kl` bounds what is".into(),
                hint: "give longer texts by `--samples`".into(),
            }),
            Some(most) if found.mean_kl.is_nan() || found.mean_kl > most => Err(Error::Cannot {
                what: format!("the merged model is {:.2e} nats a token from the model unmerged, more than `{most}`", found.mean_kl),
                hint: "keep the adapter apart (`--format gguf-lora`), take more bits (`--quantize q8_0`), or allow more (`--max-kl`)".into(),
            }),
            _ => Ok(()),
        }
    };
    let mut written = export_checked(format, &source, &options, out, check)?;
    let Divergence { positions, mean_kl, max_kl, same_top } = found;
    written.notes.push(format!(
        "KL of the merged model from the model unmerged {mean_kl:.2e} nats a token (at most {max_kl:.1e}), the same \
         likeliest token at {same_top} of {positions} positions of {}",
        texts.origin
    ));
    written.divergence = Some((mean_kl, same_top, positions));
    Ok(written)
}

/// Bits a weight of the coarsest blocks of integer codes that what the adapter changes ends in; None where it ends in none.
fn fewest_bits(source: &Source, options: &Options) -> Option<f64> {
    let changed = |name: &&String| source.changes(name);
    let target = |name: &String| match options.quantize {
        Some(q) => Some(q.dtype),
        None => source.stored_dtype(name).ok(),
    };
    let names = source.weights.names();
    let codes = names.iter().filter(changed).filter_map(target).filter(|d| d.has_integer_codes());
    codes.map(WeightDtype::bits).min_by(f64::total_cmp)
}

fn measure(
    model: &Model,
    adapter: &Adapter,
    merged: &Path,
    texts: &Samples,
) -> galen_export::Result<Divergence> {
    let weights = Weights::open(merged)?;
    let merged = Model::load(&weights, LoadOptions::default())?;
    let unmerged = (model, Some(adapter as &dyn ProjectionHook));
    let mut all = Divergence::default();
    for ids in &texts.held_out {
        all = all.and(Divergence::between(unmerged, (&merged, None), ids, POSITIONS)?);
    }
    Ok(all)
}
