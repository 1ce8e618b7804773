//! `galen merge`.

use super::export::tell;
use crate::cli::Globals;
use crate::error::UsageError;
use crate::progress::{Progress, Unit};
use crate::session::{Opened, WriteArgs, names_gguf, write_out};
use anyhow::Context as _;
use clap::builder::PossibleValuesParser;
use galen_adapter::Adapter;
use galen_export::merge::{METHODS, MajoritySign, MergeOptions, combine, find};
use std::path::Path;

/// Flags of `galen merge`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The base: a folder, a `.gguf`, `ORG/REPO[@REV]`, a catalogue name; default: the first adapter's recorded base
    #[arg(long, short = 'm', value_name = "M")]
    pub model: Option<String>,
    /// An adapter (a folder of PEFT's or mlx-lm's, a GGUF adapter, a run directory), and its weight (default 1); may be repeated
    #[arg(long, alias = "lora", value_name = "A[:WEIGHT]", required = true)]
    pub adapter: Vec<String>,
    /// What the result is: an adapter, or the base with it (GGUF where `--out` ends in `.gguf`, else a Hugging Face folder); default:
    /// the base for one adapter, an adapter for several
    #[arg(long, value_name = "WHAT")]
    pub into: Option<Into>,
    /// How several adapters become one, by PEFT's and mergekit's names; default: cat, which adds their changes exactly
    #[arg(long, alias = "combination_type", value_name = "METHOD", value_parser = PossibleValuesParser::new(METHODS.iter().map(|m| m.name)))]
    pub method: Option<String>,
    /// Share of the entries that stay (ties, dare, magnitude_prune)
    #[arg(long, value_name = "X")]
    pub density: Option<f64>,
    /// How the elected sign is found: by the sum, or by the number of adapters
    #[arg(long, alias = "majority_sign_method", value_name = "HOW", default_value = "total")]
    pub majority_sign_method: Sign,
    /// Rank of an adapter that is factored again; default: the largest of the adapters'
    #[arg(long, alias = "svd_rank", value_name = "R", value_parser = clap::value_parser!(u32).range(1..=65_536))]
    pub svd_rank: Option<u32>,
    /// Where between two adapters slerp ends: 0 is the first, 1 the second; default: 0.5
    #[arg(long, value_name = "X")]
    pub t: Option<f64>,
    /// Seed of what dare leaves out
    #[arg(long, short, value_name = "N", default_value_t = 42)]
    pub seed: u64,
    /// What is written; `--out NAME.gguf` for a base as a GGUF file, else a folder
    #[command(flatten)]
    pub writing: WriteArgs,
}

/// What comes out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Into {
    /// One adapter.
    Adapter,
    /// The base, changed.
    Base,
}

/// Whose sign wins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Sign {
    /// The sign of the sum.
    Total,
    /// The sign that more adapters have.
    Frequency,
}

/// `A:0.5` to (`A`, 0.5). A name may hold colons, so only a number behind the last is a weight.
fn weighed(text: &str) -> (String, f64) {
    let cut = text.rsplit_once(':').and_then(|(name, w)| Some((name, w.parse::<f64>().ok()?)));
    cut.filter(|(_, w)| w.is_finite()).map_or((text.to_owned(), 1.0), |(name, w)| (name.to_owned(), w))
}

/// Merges.
pub fn run(args: Args, globals: &Globals) -> anyhow::Result<()> {
    for named in &args.adapter {
        let (path, weight) = named.rsplit_once(':').unwrap_or((named, ""));
        if Path::new(path).exists() && !Path::new(named).exists() && !weight.parse().is_ok_and(f64::is_finite)
        {
            let message = format!("{named}: the weight `{weight}` is not a number");
            return Err(UsageError::new(message, "`ADAPTER:0.5`").into());
        }
    }
    let (names, weights): (Vec<String>, Vec<f64>) = args.adapter.iter().map(|a| weighed(a)).unzip();
    let several = names.len() > 1;
    let into = args.into.unwrap_or(if several { Into::Adapter } else { Into::Base });
    if let Some(name) = args.method.as_deref().filter(|m| !several && *m != "linear" && *m != "cat") {
        return Err(UsageError::new(
            format!("`--method {name}` merges several adapters, and one is named"),
            "name another with `--adapter`",
        )
        .into());
    }
    if !several && (args.density.is_some() || args.svd_rank.is_some() || args.t.is_some()) {
        let what = "`--density`, `--svd-rank` and `--t` are for several adapters, and one is named";
        return Err(UsageError::new(what, "leave them out, or name another with `--adapter`").into());
    }
    if args.writing.quantize.is_some() && into == Into::Adapter {
        return Err(UsageError::new("`--quantize` is for a merged base", "add `--into base`").into());
    }
    if into == Into::Adapter && names_gguf(&args.writing.out) {
        let what = format!("{}: an adapter is written as a folder", args.writing.out.display());
        let hint =
            "`--into base` writes the base with it as GGUF; `galen export --format gguf-lora` an adapter";
        return Err(UsageError::new(what, hint).into());
    }
    let opened = Opened::new(args.model, names, globals.offline)?;
    // One adapter of weight 1 stays as it is.
    let opened = if several || weights[0] != 1.0 {
        let method = args.method.as_deref().unwrap_or(if several { "cat" } else { "linear" });
        let options = MergeOptions {
            method: find(method).with_context(|| format!("method `{method}`"))?,
            density: args.density,
            majority_sign: match args.majority_sign_method {
                Sign::Total => MajoritySign::Total,
                Sign::Frequency => MajoritySign::Frequency,
            },
            svd_rank: args.svd_rank.map(|r| r as usize),
            t: args.t,
            seed: args.seed,
        };
        let adapters: Vec<(&Adapter, f64)> =
            opened.adapters.iter().map(|(a, _)| a).zip(weights.iter().copied()).collect();
        let shapes = opened.shapes();
        // Whole matrices of a large model take minutes each.
        let progress = Progress::new(method, shapes.len() as u64, Unit::Items);
        let one = combine(&adapters, &shapes, &options, &|| progress.inc(1))?;
        drop(progress);
        opened.with_adapter(one)
    } else {
        opened
    };
    let out = &args.writing.out;
    let format = match into {
        Into::Adapter => "peft",
        Into::Base if names_gguf(out) => "gguf",
        Into::Base => "hf",
    };
    let format = galen_export::find(format).with_context(|| format!("format `{format}`"))?;
    let started = std::time::Instant::now();
    let written = write_out(&opened, format, &args.writing, globals.offline)?;
    tell(format, out, &written, started.elapsed().as_secs_f64(), None, globals)
}

#[cfg(test)]
mod tests {
    use super::weighed;

    #[test]
    fn a_number_behind_the_last_colon_is_a_weight() {
        for (text, name, weight) in [
            ("a", "a", 1.0),
            ("a:0.5", "a", 0.5),
            ("a:-1", "a", -1.0),
            ("org/a@main", "org/a@main", 1.0),
            ("C:\\runs\\a:2", "C:\\runs\\a", 2.0),
            ("C:\\runs\\a", "C:\\runs\\a", 1.0),
            ("a:nan", "a:nan", 1.0),
        ] {
            assert_eq!(weighed(text), (name.to_owned(), weight), "{text}");
        }
    }
}
