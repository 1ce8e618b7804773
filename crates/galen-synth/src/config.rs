//! A configuration understood: every key checked against its declaration, every step built, before anything is asked.

use crate::engines::{EngineKind, EngineSpec};
use crate::entries::Around;
use crate::error::SynthError;
use crate::outputs::Output;
use crate::registry::{Step, StepEntry, Used};
use crate::seeds::SeedSpec;
use crate::taxonomy::Taxonomy;
use galen_data::template::prompt::Prompts;
use galen_reward::{ConfigError, Kind, Network, Options, Param, shown};
use serde_json::{Map, Value};
use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The keys of a configuration.
pub const TOP_KEYS: &[Param] = &[
    Param::required("seeds", Kind::Value("a path, or a list of entries"), "the rows it begins with"),
    Param::required("steps", Kind::Value("a list of steps"), "what is done with them, in order"),
    Param::required("output_dir", Kind::Text, "where the journal, the report and the outputs lie"),
    Param::optional(
        "outputs",
        Kind::Value("a list of outputs"),
        "files of rows that training reads; default: `rows.jsonl` with all fields",
    ),
    Param::optional("engines", Kind::Value("a map of engines"), "the models that steps ask, by name"),
    Param::optional(
        "prompts_dir",
        Kind::Text,
        "a folder of templates (`NAME.jinja`), which come before galen's own",
    ),
    Param::optional(
        "taxonomy",
        Kind::Value("a map: path, id, parent"),
        "a hierarchy for `siblings(id)` and the like, and for `distractors`",
    ),
    Param::with(
        "seed",
        Kind::Count,
        "1",
        "decides every draw: the same seed, the same rows from local engines",
    ),
    Param::optional(
        "coverage",
        Kind::Text,
        "a field of the seeds: the report counts kept rows by its values",
    ),
    Param::with(
        "diversity",
        Kind::Text,
        "\"text\"",
        "the field of final rows whose distinct words the report counts",
    ),
    Param::with("report_samples", Kind::Count, "6", "rows that the report shows"),
    Param::with(
        "max_engine_failures",
        Kind::Count,
        "20",
        "rows without an answer, one after the other, that end the run",
    ),
];

const TAXONOMY: &[Param] = &[
    Param::required("path", Kind::Text, "its rows: a file, or a folder of files"),
    Param::with("id", Kind::Text, "\"id\"", "the field that names a row"),
    Param::with("parent", Kind::Text, "\"parent\"", "the field that names the row above it"),
];

/// The key that an entry has its kind under.
const TYPE: &str = "type";

/// The parameters that every step may have.
pub(crate) const COMMON: &[Param] = &[
    Param::optional("label", Kind::Text, "what the journal and the report call it instead of its kind"),
    Param::optional("when", Kind::Text, "an expression: rows of which it does not hold pass by unchanged"),
];

/// A step with what it was built from.
pub(crate) struct Planned {
    pub label: String,
    pub entry: &'static StepEntry,
    pub when: Option<String>,
    pub given: Map<String, Value>,
    pub used: Used,
    pub step: Box<dyn Step>,
}

/// A pipeline, ready to run.
pub struct Pipeline {
    /// Where everything lies.
    pub output_dir: PathBuf,
    /// The engines that its steps use.
    pub engines: Vec<EngineSpec>,
    /// Decides every draw.
    pub seed: u64,
    pub(crate) seeds: Vec<SeedSpec>,
    pub(crate) steps: Vec<Planned>,
    pub(crate) outputs: Vec<Output>,
    pub(crate) prompts: Prompts,
    pub(crate) coverage: Option<String>,
    pub(crate) diversity: String,
    pub(crate) report_samples: usize,
    pub(crate) max_engine_failures: usize,
}

impl Pipeline {
    /// Checks and builds all of it. Reads templates, the taxonomy and the evaluation sets that steps name; asks no engine.
    /// Errors: everything that is wrong, with the key where it stands.
    pub fn parse(
        config: &Value,
        kinds: &[&'static EngineKind],
        network: Network,
    ) -> Result<Self, Vec<ConfigError>> {
        let Value::Object(map) = config else {
            return Err(vec![ConfigError::new(
                "",
                format!("a configuration is a map of keys, not {}", shown(config)),
            )]);
        };
        let top = Top { map, network };
        let mut errors = Vec::new();
        let mut keep = |e: ConfigError| errors.push(e);
        let Some(options) = top.options().map_err(&mut keep).ok() else { return Err(errors) };
        let engines = engines(&options, kinds, network, &mut keep);
        // One that cannot be read is there all the same: steps that need one have no fault.
        let taxonomy =
            taxonomy(&options, network).map_err(&mut keep).unwrap_or_else(|()| Some(Arc::default()));
        let prompts = prompts(&options, taxonomy.as_ref()).map_err(&mut keep).ok();
        let Some(prompts) = prompts else { return Err(errors) };
        let prompts = RefCell::new(prompts);
        let around = Around { prompts: &prompts, engines: &engines, taxonomy: taxonomy.as_ref(), network };
        let steps = around.steps(&options, &mut keep);
        let seeds = around.seeds(&options, &mut keep);
        let outputs = around.outputs(&options, &mut keep);
        let built = (|| {
            let engines_used: Vec<&String> = steps.iter().flat_map(|s| &s.used.engines).collect();
            Ok((
                PathBuf::from(options.filled("output_dir")?),
                options.count("seed")? as u64,
                options.maybe_text("coverage")?,
                options.text("diversity")?,
                options.count("report_samples")?,
                options.positive("max_engine_failures")?,
                engines.iter().filter(|e| engines_used.contains(&&e.name)).cloned().collect::<Vec<_>>(),
            ))
        })();
        match built {
            Ok((output_dir, seed, coverage, diversity, report_samples, max_engine_failures, engines))
                if errors.is_empty() =>
            {
                let prompts = prompts.into_inner();
                Ok(Self {
                    output_dir,
                    engines,
                    seed,
                    seeds,
                    steps,
                    outputs,
                    prompts,
                    coverage,
                    diversity,
                    report_samples,
                    max_engine_failures,
                })
            }
            Ok(_) => Err(errors),
            Err(e) => {
                errors.push(e);
                Err(errors)
            }
        }
    }

    /// Reads all seeds. `folder`: for a file that is needed meanwhile.
    pub fn check_seeds(&self, folder: &Path) -> Result<(), SynthError> {
        let path = folder.join("seeds.jsonl");
        crate::seeds::write(&self.seeds, &self.prompts, &path, usize::MAX).map(|_| ())
    }

    /// Names of the outputs' files.
    pub fn output_files(&self) -> impl Iterator<Item = &str> {
        self.outputs.iter().map(|o| o.path.as_str())
    }

    /// Labels of the steps, in order.
    pub fn labels(&self) -> impl Iterator<Item = &str> {
        self.steps.iter().map(|s| s.label.as_str())
    }
}

struct Top<'a> {
    map: &'a Map<String, Value>,
    network: Network,
}

impl<'a> Top<'a> {
    fn options(&'a self) -> Result<Options<'a>, ConfigError> {
        Options::new("", self.network, "", self.map, &[TOP_KEYS])
    }
}

fn engines(
    options: &Options<'_>,
    kinds: &[&'static EngineKind],
    network: Network,
    keep: &mut impl FnMut(ConfigError),
) -> Vec<EngineSpec> {
    let map = match options.value("engines") {
        Ok(None) => return Vec::new(),
        Ok(Some(Value::Object(map))) => map,
        Ok(Some(other)) => {
            let hint = "`engines: {teacher: {type: native, model: M}}`";
            keep(
                options.wrong("engines", format!("takes a map of engines, not {}", shown(&other))).hint(hint),
            );
            return Vec::new();
        }
        Err(e) => {
            keep(e);
            return Vec::new();
        }
    };
    let mut out = Vec::new();
    for (name, entry) in map {
        let place = format!("engines.{name}");
        match engine(&name, &place, entry, kinds, network) {
            Ok(spec) => out.push(spec),
            Err(e) => {
                keep(e);
                // It is named all the same: steps that ask it have no fault.
                out.push(EngineSpec { name, kind: "", logprobs: true, given: Map::new() });
            }
        }
    }
    out
}

fn engine(
    name: &str,
    place: &str,
    entry: Value,
    kinds: &[&'static EngineKind],
    network: Network,
) -> Result<EngineSpec, ConfigError> {
    let Value::Object(mut given) = entry else {
        return Err(ConfigError::new(place, format!("takes a map with `type`, not {}", shown(&entry))));
    };
    let names: Vec<&str> = kinds.iter().map(|k| k.name).collect();
    let Some(Value::String(kind)) = given.shift_remove(TYPE) else {
        let hint = format!("one of `{}`", names.join("`, `"));
        return Err(ConfigError::new(format!("{place}.{TYPE}"), "is required").hint(hint));
    };
    let Some(kind) = kinds.iter().find(|k| k.name == kind) else {
        let hint = galen_reward::suggestion(&kind, &names);
        return Err(
            ConfigError::new(format!("{place}.{TYPE}"), format!("there is no engine `{kind}`")).hint(hint)
        );
    };
    Options::new(name, network, place, &given, kind.params)?;
    Ok(EngineSpec { name: name.to_owned(), kind: kind.name, logprobs: kind.logprobs, given })
}

fn taxonomy(options: &Options<'_>, network: Network) -> Result<Option<Arc<Taxonomy>>, ConfigError> {
    let Some(value) = options.value("taxonomy")? else { return Ok(None) };
    let Value::Object(given) = value else {
        return Err(options.wrong("taxonomy", format!("takes a map with `path`, not {}", shown(&value))));
    };
    let o = Options::new("taxonomy", network, "taxonomy", &given, &[TAXONOMY])?;
    let path = PathBuf::from(o.filled("path")?);
    let read = Taxonomy::read(&path, &o.filled("id")?, &o.filled("parent")?);
    read.map(|t| Some(Arc::new(t))).map_err(|e| o.wrong("path", e.to_string()))
}

/// galen's own templates, and above them the user's.
fn prompts(options: &Options<'_>, taxonomy: Option<&Arc<Taxonomy>>) -> Result<Prompts, ConfigError> {
    let seed = options.count("seed")? as u64;
    let mut prompts = Prompts::new(|env| {
        if let Some(taxonomy) = taxonomy {
            taxonomy.register(env);
        }
        // A, B, C ... for choices.
        // One of a list, by the seed and a key such as the row's id.
        env.add_filter(
            "pick",
            move |list: Vec<minijinja::Value>, key: String| -> Result<minijinja::Value, minijinja::Error> {
                let draw = crate::row::seed_of(seed, "pick", &key) as usize;
                let nothing =
                    || minijinja::Error::new(minijinja::ErrorKind::InvalidOperation, "nothing to pick from");
                list.get(draw % list.len().max(1)).cloned().ok_or_else(nothing)
            },
        );
        env.add_function("letter", |i: u32| char::from_u32(u32::from('A') + i.min(25)).map(String::from));
    });
    for (name, source) in crate::PROMPTS {
        prompts.add(name, source);
    }
    if let Some(folder) = options.maybe_text("prompts_dir")? {
        prompts.add_folder(folder.as_ref()).map_err(|e| options.wrong("prompts_dir", e.to_string()))?;
    }
    Ok(prompts)
}

/// An entry's kind and its other keys: `dedup`, `{dedup: {field: text}}` or `{type: dedup, field: text}`.
pub(crate) fn kind_of(entry: &Value, place: &str) -> Result<(String, Map<String, Value>), ConfigError> {
    let wrong = |what: String| {
        ConfigError::new(place, what)
            .hint("write `- dedup`, `- dedup: {field: text}`, or `- {type: dedup, field: text}`")
    };
    let map = match entry {
        Value::String(name) => return Ok((name.clone(), Map::new())),
        Value::Object(map) => map,
        other => return Err(wrong(format!("takes a kind or a map, not {}", shown(other)))),
    };
    match (map.get(TYPE), map.iter().next()) {
        (Some(Value::String(kind)), _) => {
            let mut given = map.clone();
            given.shift_remove(TYPE);
            Ok((kind.clone(), given))
        }
        (None, Some((kind, Value::Object(given)))) if map.len() == 1 => Ok((kind.clone(), given.clone())),
        (None, Some((kind, Value::Null))) if map.len() == 1 => Ok((kind.clone(), Map::new())),
        _ => Err(wrong("has no `type`".into())),
    }
}
