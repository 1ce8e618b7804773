//! `galen models ls | fetch | prune`.

use crate::cli::Globals;
use crate::error::UsageError;
use crate::progress::{bytes, counted, say};
use crate::session::hub_bars;
use crate::stdout;
use galen_hub::{DatasetQuery, Held, HubError, Kind, Options, Resolved, What, catalogue, inventory};
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::time::Duration;

/// A download that was not written to for so long was cut.
const IDLE: Duration = Duration::from_mins(10);

/// Flags of `galen models`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// What to do
    #[command(subcommand)]
    pub action: Action,
}

/// What to do with the caches.
#[derive(Debug, clap::Subcommand)]
pub enum Action {
    /// List the catalogue and what lies in galen's cache and the hub's
    Ls,
    /// Fetch models, adapters and data sets before they are needed, and print where they lie
    Fetch(Fetch),
    /// Delete stale files of galen's cache and cut downloads; or what is named
    Prune(Prune),
}

/// Flags of `galen models fetch`.
#[derive(Debug, clap::Args)]
pub struct Fetch {
    /// A catalogue name, `ORG/REPO[@REV]`, `ORG/REPO:QUANT`
    #[arg(required = true, value_name = "NAME")]
    pub names: Vec<String>,
    /// What hub names mean
    #[arg(long, value_enum, default_value_t = Means::Model)]
    pub kind: Means,
}

/// What a hub name means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Means {
    /// A model.
    Model,
    /// An adapter.
    Adapter,
    /// A data set.
    Dataset,
}

/// Flags of `galen models prune`.
#[derive(Debug, clap::Args)]
pub struct Prune {
    /// Names as `galen models ls` lists them
    #[arg(value_name = "NAME")]
    pub names: Vec<String>,
    /// Delete nothing, say what would be
    #[arg(long, alias = "dry_run")]
    pub dry_run: bool,
}

/// Looks into the caches, fills or empties them.
pub fn run(args: &Args, globals: &Globals) -> anyhow::Result<()> {
    let options = Options::from_env(globals.offline, hub_bars());
    match &args.action {
        Action::Ls => ls(&options, globals),
        Action::Fetch(args) => fetch(args, &options, globals),
        Action::Prune(args) => prune(args, &options, globals),
    }
}

fn ls(options: &Options<'_>, globals: &Globals) -> anyhow::Result<()> {
    let held = inventory(options)?;
    let entries = catalogue()?;
    if globals.json {
        let entries = entries.iter().map(|e| {
            let kind = if e.kind == Kind::Model { "model" } else { "data" };
            let path = galen_hub::cached(&e.name).map(|r| r.path);
            json!({"name": e.name, "kind": kind, "bytes": e.size, "licence": e.licence, "hf_id": e.hf_id,
                   "sha256": e.sha256, "path": path})
        });
        let (entries, held): (Vec<Value>, Vec<Value>) = (entries.collect(), held.iter().map(shown).collect());
        return stdout::print_json(&json!({"catalogue": entries, "held": held}));
    }
    let mut out = format!("{:<44}{:>10}  {:<14}{}\n", "catalogue", "size", "licence", "here");
    for e in entries {
        let here = if galen_hub::cached(&e.name).is_some() { "yes" } else { "no" };
        let _ = writeln!(out, "{:<44}{:>10}  {:<14}{here}", e.name, bytes(e.size), e.licence);
    }
    let _ = writeln!(out, "\n{:<44}{:>10}  what", "in the caches", "size");
    for h in &held {
        let _ = writeln!(out, "{:<44}{:>10}  {}", h.name, bytes(h.bytes), h.what.as_str());
    }
    // A repository's unfinished files are counted with it.
    let whole = held.iter().filter(|h| h.what != What::Unfinished || !h.path.starts_with(&options.hub_cache));
    let _ = writeln!(out, "{:<44}{:>10}", "all", bytes(whole.map(|h| h.bytes).sum()));
    stdout::print(&out)
}

fn shown(held: &Held) -> Value {
    json!({"name": held.name, "what": held.what.as_str(), "bytes": held.bytes, "path": held.path})
}

fn fetch(args: &Fetch, options: &Options<'_>, globals: &Globals) -> anyhow::Result<()> {
    let mut fetched = Vec::new();
    for name in &args.names {
        let found = resolve(name, args.kind, options)?;
        if !globals.json {
            stdout::print(&format!("{}\n", found.path.display()))?;
        }
        fetched.push(
            json!({"name": name, "path": found.path, "source": found.source, "revision": found.revision,
                            "sha256": found.sha256}),
        );
    }
    if globals.json { stdout::print_json(&fetched) } else { Ok(()) }
}

fn resolve(name: &str, kind: Means, options: &Options<'_>) -> Result<Resolved, HubError> {
    if let Some(entry) = catalogue()?.iter().find(|e| e.name == name) {
        return match entry.kind {
            Kind::Model => galen_hub::resolve_model(name, options),
            Kind::Data => galen_hub::resolve_data(name, options),
        };
    }
    match kind {
        Means::Model => galen_hub::resolve_model(name, options),
        Means::Adapter => galen_hub::resolve_adapter(name, options),
        Means::Dataset => galen_hub::resolve_dataset(name, &DatasetQuery::default(), options),
    }
}

fn prune(args: &Prune, options: &Options<'_>, globals: &Globals) -> anyhow::Result<()> {
    let held = inventory(options)?;
    if let Some(unknown) = args.names.iter().find(|name| held.iter().all(|h| h.name != **name)) {
        let hint = "`galen models ls` lists what is there";
        return Err(UsageError::new(format!("`{unknown}` is in no cache"), hint).into());
    }
    // Another process may be fetching just now.
    let idle = |h: &Held| h.written.elapsed().is_ok_and(|age| age >= IDLE);
    let left_over = |h: &Held| matches!(h.what, What::Stale | What::Unfinished) && idle(h);
    let chosen = |h: &&Held| if args.names.is_empty() { left_over(h) } else { args.names.contains(&h.name) };
    let chosen: Vec<&Held> = held.iter().filter(chosen).collect();
    for h in &chosen {
        if !args.dry_run {
            galen_hub::remove(h, options)?;
        }
        say(&format!(
            "{} {} ({})",
            if args.dry_run { "would delete" } else { "deleted" },
            h.name,
            bytes(h.bytes)
        ));
    }
    let freed: u64 = chosen.iter().map(|h| h.bytes).sum();
    if globals.json {
        let removed: Vec<Value> = chosen.iter().map(|h| shown(h)).collect();
        return stdout::print_json(&json!({"dry_run": args.dry_run, "bytes": freed, "removed": removed}));
    }
    say(&format!("{}, {}", counted(chosen.len() as u64, "thing"), bytes(freed)));
    Ok(())
}
