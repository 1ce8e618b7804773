//! The lists of a configuration: steps, seeds, outputs.

use crate::config::{COMMON, Planned, kind_of};
use crate::engines::EngineSpec;
use crate::outputs::{self, Output};
use crate::registry::{STEPS, Setup, Used};
use crate::seeds::{self, SeedSpec};
use crate::taxonomy::Taxonomy;
use galen_data::reader::format_by_name;
use galen_data::template::prompt::Prompts;
use galen_reward::{ConfigError, Network, Options, Param, nearest, shown};
use serde_json::{Map, Value};
use std::cell::RefCell;
use std::path::PathBuf;
use std::sync::Arc;

/// What steps, seeds and outputs are built among.
pub(crate) struct Around<'a> {
    pub prompts: &'a RefCell<Prompts>,
    pub engines: &'a [EngineSpec],
    pub taxonomy: Option<&'a Arc<Taxonomy>>,
    pub network: Network,
}

impl Around<'_> {
    pub fn steps(&self, options: &Options<'_>, keep: &mut impl FnMut(ConfigError)) -> Vec<Planned> {
        let list = match options.value("steps") {
            Ok(Some(Value::Array(list))) if !list.is_empty() => list,
            Ok(other) => {
                let what = format!("takes a list of steps, not {}", shown(&other.unwrap_or_default()));
                keep(options.wrong("steps", what).hint("`steps: [{generate: {template: T, to: text}}]`"));
                return Vec::new();
            }
            Err(e) => {
                keep(e);
                return Vec::new();
            }
        };
        let mut out: Vec<Planned> = Vec::new();
        for (i, entry) in list.iter().enumerate() {
            match self.step(entry, &format!("steps[{i}]"), &out) {
                Ok(step) => out.push(step),
                Err(e) => keep(e),
            }
        }
        out
    }

    fn step(&self, entry: &Value, place: &str, before: &[Planned]) -> Result<Planned, ConfigError> {
        let (kind, mut given) = kind_of(entry, place)?;
        let Some(entry) = STEPS.iter().find(|e| e.name == kind) else {
            let hint = match nearest(&kind, STEPS.iter().map(|e| e.name)) {
                Some(near) => format!("did you mean `{near}`?"),
                None => {
                    format!("there are `{}`", STEPS.iter().map(|e| e.name).collect::<Vec<_>>().join("`, `"))
                }
            };
            return Err(ConfigError::new(place, format!("there is no step `{kind}`")).hint(hint));
        };
        let taken = |p: &Param| Some((p.name.to_owned(), given.shift_remove(p.name)?));
        let common: Map<String, Value> = COMMON.iter().filter_map(taken).collect();
        let shared = Options::new("", self.network, place, &common, &[COMMON])?;
        let label = match shared.maybe_text("label")? {
            Some(label) if before.iter().any(|s| s.label == label) => {
                return Err(shared.wrong("label", format!("a step before it is called `{label}` too")));
            }
            Some(label)
                if label.is_empty()
                    || label.len() > 64
                    || label.contains(['/', '\\', '.', '<', '\n', '\0']) =>
            {
                let what = format!("`{label}` cannot be part of a file's name");
                return Err(shared.wrong("label", what).hint("letters, digits, `_` and `-`"));
            }
            Some(label) => label,
            None => {
                let mut names = std::iter::once(kind.clone()).chain((2..).map(|n| format!("{kind}-{n}")));
                names.find(|n| before.iter().all(|s| s.label != *n)).unwrap_or_default()
            }
        };
        let options = Options::new(&label, self.network, place, &given, entry.params)?;
        let used = RefCell::new(Used::default());
        let setup = Setup {
            options: &options,
            label: &label,
            prompts: self.prompts,
            engines: self.engines,
            taxonomy: self.taxonomy,
            used: &used,
        };
        let step = (entry.build)(&setup)?;
        let when = shared.maybe_text("when")?;
        if let Some(when) = &when {
            let check = self.prompts.borrow().check_expression(when);
            check.map_err(|e| shared.wrong("when", format!("`{when}`: {e}")))?;
        }
        let idle = given.keys().find(|key| !options.read.borrow().contains(&key.as_str()));
        if let Some(key) = idle {
            return Err(options.wrong(key, "has no effect beside the other parameters").hint("take it out"));
        }
        drop(options);
        Ok(Planned { label, entry, when, given, used: used.into_inner(), step })
    }

    pub fn seeds(&self, options: &Options<'_>, keep: &mut impl FnMut(ConfigError)) -> Vec<SeedSpec> {
        let list = match options.value("seeds") {
            Ok(Some(Value::Array(list))) => list,
            Ok(Some(one @ (Value::Object(_) | Value::String(_)))) => vec![one],
            Ok(other) => {
                let what =
                    format!("takes a path or a list of entries, not {}", shown(&other.unwrap_or_default()));
                keep(options.wrong("seeds", what).hint("`seeds: [{path: facts.jsonl}]`"));
                return Vec::new();
            }
            Err(e) => {
                keep(e);
                return Vec::new();
            }
        };
        if list.is_empty() {
            keep(options.wrong("seeds", "names no file"));
        }
        let mut out = Vec::new();
        for (i, entry) in list.into_iter().enumerate() {
            let given = match entry {
                Value::Object(map) => map,
                Value::String(path) => Map::from_iter([("path".to_owned(), Value::from(path))]),
                other => {
                    keep(ConfigError::new(
                        format!("seeds[{i}]"),
                        format!("takes a path or a map, not {}", shown(&other)),
                    ));
                    continue;
                }
            };
            match self.seed(&given, &format!("seeds[{i}]")) {
                Ok(spec) => out.push(spec),
                Err(e) => keep(e),
            }
        }
        out
    }

    fn seed(&self, given: &Map<String, Value>, place: &str) -> Result<SeedSpec, ConfigError> {
        let o = Options::new("seeds", self.network, place, given, &[seeds::PARAMS])?;
        let filter = o.maybe_text("where")?;
        if let Some(filter) = &filter {
            let check = self.prompts.borrow().check_expression(filter);
            check.map_err(|e| o.wrong("where", format!("`{filter}`: {e}")))?;
        }
        let ds_type = o.maybe_text("ds_type")?;
        if let Some(name) = ds_type.as_deref().filter(|n| format_by_name(n).is_none()) {
            let names: Vec<&str> = galen_data::reader::FORMATS.iter().map(|f| f.name).collect();
            let hint = galen_reward::suggestion(name, &names);
            return Err(o.wrong("ds_type", format!("there is no file format `{name}`")).hint(hint));
        }
        Ok(SeedSpec {
            path: PathBuf::from(o.filled("path")?),
            documents: o.flag("documents")?,
            ds_type,
            split: o.maybe_text("split")?,
            id: o.maybe_text("id")?,
            filter,
            limit: o.maybe_count("limit")?,
        })
    }

    pub fn outputs(&self, options: &Options<'_>, keep: &mut impl FnMut(ConfigError)) -> Vec<Output> {
        let list = match options.value("outputs") {
            Ok(None) => vec![serde_json::json!({"type": "row", "path": "rows.jsonl"})],
            Ok(Some(Value::Array(list))) => list,
            Ok(Some(other)) => {
                let hint =
                    "`outputs: [{type: chat_template, path: sft.jsonl, user: question, assistant: answer}]`";
                keep(
                    options
                        .wrong("outputs", format!("takes a list of outputs, not {}", shown(&other)))
                        .hint(hint),
                );
                return Vec::new();
            }
            Err(e) => {
                keep(e);
                return Vec::new();
            }
        };
        let mut out: Vec<Output> = Vec::new();
        for (i, entry) in list.iter().enumerate() {
            let place = format!("outputs[{i}]");
            match kind_of(entry, &place)
                .and_then(|(kind, given)| outputs::build(&kind, &given, &place, self.network, self.prompts))
            {
                Ok(output) if out.iter().any(|o| o.path == output.path) => {
                    keep(ConfigError::new(
                        format!("{place}.path"),
                        format!("`{}` is written by another output", output.path),
                    ));
                }
                Ok(output) => out.push(output),
                Err(e) => keep(e),
            }
        }
        out
    }
}
