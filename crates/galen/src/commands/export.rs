//! `galen export`.

use super::verify::AfterExport;
use crate::cli::Globals;
use crate::error::UsageError;
use crate::progress::say;
use crate::session::{Opened, Verdict, WriteArgs, write_out};
use crate::stdout;
use clap::builder::PossibleValuesParser;
use galen_export::{FORMATS, Format, Written};
use serde_json::json;

/// Flags of `galen export`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The model: a folder, a `.gguf`, `ORG/REPO[@REV]`, a catalogue name, a run directory for base and adapter;
    /// default: the adapter's recorded base
    #[arg(long, short = 'm', value_name = "M", required_unless_present = "adapter")]
    pub model: Option<String>,
    /// An adapter: a folder of PEFT's or mlx-lm's, a GGUF adapter, a run directory; of several, all changes are added
    #[arg(long, alias = "lora", value_name = "A")]
    pub adapter: Vec<String>,
    /// The format
    #[arg(long, short, value_name = "F", value_parser = PossibleValuesParser::new(FORMATS.iter().map(|f| f.name())))]
    pub format: String,
    /// What is written
    #[command(flatten)]
    pub writing: WriteArgs,
    /// Do not hold what was written of a run against the run (`galen verify`)
    #[arg(long, alias = "no_verify")]
    pub no_verify: bool,
}

/// Writes the model.
pub fn run(args: Args, globals: &Globals) -> anyhow::Result<()> {
    let Some(format) = galen_export::find(&args.format) else {
        return Err(UsageError::new(format!("format `{}`", args.format), "see `galen export --help`").into());
    };
    let opened = Opened::new(args.model, args.adapter, globals.offline)?.as_one()?;
    let out = &args.writing.out;
    let started = std::time::Instant::now();
    let written = write_out(&opened, format, &args.writing, globals.offline)?;
    let seconds = started.elapsed().as_secs_f64();
    let after = AfterExport::new(&opened, out, format.name(), !args.no_verify, globals)?;
    let verdict = after.as_ref().and_then(|a| a.verdict.as_ref());
    tell(format, out, &written, seconds, verdict, globals)?;
    after.map_or(Ok(()), AfterExport::result)
}

/// Says what was written and how to serve it.
pub(super) fn tell(
    format: &dyn Format,
    out: &std::path::Path,
    written: &Written,
    seconds: f64,
    verdict: Option<&Verdict>,
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
            "kl": written.divergence.map(|(kl, _, _)| kl), "verify": verdict,
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
