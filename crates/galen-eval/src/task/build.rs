//! From the entries of a file to a checked [`Task`].

use super::find::Source;
use super::keys::{FEWSHOT_KEYS, GENERATION_KEYS, KEYS, KeyState};
use super::read::Fields;
use super::yaml::{self, Entry};
use super::{Dataset, DocTo, Fewshot, Generation, OutputType, Sampler, Task};
use crate::error::{EvalError, nearest};
use crate::filters::{self, Pipeline};
use crate::metrics::{self, MetricSpec};
use crate::template::Templates;
use serde_json::Value;
use std::path::PathBuf;

/// lm-evaluation-harness's default.
const MAX_GEN_TOKS: usize = 256;

pub(super) fn task(source: &Source) -> Result<Task, EvalError> {
    match source {
        Source::File(path) => {
            let folder = path.parent().map_or_else(|| PathBuf::from("."), PathBuf::from);
            from_entries(yaml::read(path)?, &path.display().to_string(), folder)
        }
        Source::BuiltIn { name, text } => {
            let origin = format!("built-in task {name}");
            from_entries(yaml::parse(text, &origin)?, &origin, PathBuf::from("."))
        }
    }
}

pub(super) fn from_entries(entries: Vec<Entry>, origin: &str, folder: PathBuf) -> Result<Task, EvalError> {
    let fields = Fields::new(entries, origin);
    let notes = check_keys(&fields)?;
    let name = fields.string("task")?.ok_or_else(|| {
        EvalError::task(
            origin,
            "`task` (the task's name) is missing\nhint: a group of tasks is not a task: name its tasks",
        )
    })?;
    let output_type = match fields.string("output_type")?.as_deref() {
        None | Some("generate_until") => OutputType::GenerateUntil,
        Some("multiple_choice") => OutputType::MultipleChoice,
        Some(_) => return Err(fields.wrong("output_type", "`multiple_choice` or `generate_until`")),
    };
    let required =
        |key: &str| fields.doc_to(key)?.ok_or_else(|| EvalError::task(origin, format!("`{key}` is missing")));
    let doc_to_choice = fields.doc_to("doc_to_choice")?;
    if output_type == OutputType::MultipleChoice && doc_to_choice.is_none() {
        return Err(EvalError::task(origin, "`output_type: multiple_choice` needs `doc_to_choice`"));
    }
    let fewshot_delimiter = fields.string("fewshot_delimiter")?.unwrap_or_else(|| "\n\n".into());
    let metadata = fields.map("metadata").unwrap_or_default();

    let mut task = Task {
        alias: fields.string("task_alias")?,
        version: metadata.get("version").map(|v| v.as_str().map_or_else(|| v.to_string(), str::to_owned)),
        output_type,
        dataset: Dataset::read(&fields, folder)?,
        doc_to_text: required("doc_to_text")?,
        doc_to_target: required("doc_to_target")?,
        description: fields.string("description")?.unwrap_or_default(),
        target_delimiter: fields.string("target_delimiter")?.unwrap_or_else(|| " ".into()),
        gen_prefix: fields.string("gen_prefix")?,
        num_fewshot: fields.count("num_fewshot")?,
        generation: generation(&fields, &fewshot_delimiter)?,
        metrics: metric_list(&fields, output_type)?,
        filters: filter_list(&fields, output_type)?,
        repeats: fields.count("repeats")?.unwrap_or(1),
        fewshot: fewshot(
            &fields,
            fewshot_delimiter,
            doc_to_choice.as_ref(),
            required("doc_to_text")?,
            required("doc_to_target")?,
        )?,
        doc_to_choice,
        origin: origin.to_owned(),
        name,
        notes,
    };
    if task.repeats == 0 || task.repeats > 1024 {
        return Err(fields.wrong("repeats", "1 to 1024"));
    }
    if task.output_type == OutputType::MultipleChoice && task.repeats > 1 {
        task.repeats = 1;
        task.notes.push("`repeats`: scores of choices do not vary".into());
    }
    check_templates(&task)?;
    Ok(task)
}

/// Unknown keys are errors, refused ones too unless null or false; returns a note for each key without effect.
fn check_keys(fields: &Fields) -> Result<Vec<String>, EvalError> {
    let mut notes = Vec::new();
    for entry in fields.entries() {
        let key = entry.key.as_str();
        match KEYS.iter().find(|(name, _)| *name == key).map(|(_, state)| *state) {
            Some(KeyState::Honoured) => {}
            Some(KeyState::NoEffect(why)) => notes.push(format!("`{key}`: {why}")),
            Some(KeyState::Refused(_)) if matches!(entry.value, Value::Null | Value::Bool(false)) => {}
            Some(KeyState::Refused(hint)) => {
                return Err(EvalError::task(
                    &entry.origin,
                    format!("`{key}` is not supported\nhint: {hint}"),
                ));
            }
            None => {
                let hint = nearest(key, KEYS.iter().map(|(name, _)| *name))
                    .map_or_else(String::new, |near| format!("\nhint: did you mean `{near}`?"));
                return Err(EvalError::task(&entry.origin, format!("unknown key `{key}`{hint}")));
            }
        }
    }
    Ok(notes)
}

fn check_templates(task: &Task) -> Result<(), EvalError> {
    let templates = Templates::new();
    let doc = |doc: &DocTo| if let DocTo::Text(text) = doc { Some(text.clone()) } else { None };
    let sources = [
        ("doc_to_text", doc(&task.doc_to_text)),
        ("doc_to_target", doc(&task.doc_to_target)),
        ("doc_to_choice", task.doc_to_choice.as_ref().and_then(doc)),
        ("description", Some(task.description.clone())),
        ("gen_prefix", task.gen_prefix.clone()),
        ("fewshot_config.doc_to_text", doc(&task.fewshot.doc_to_text)),
        ("fewshot_config.doc_to_target", doc(&task.fewshot.doc_to_target)),
        ("fewshot_config.doc_to_choice", task.fewshot.doc_to_choice.as_ref().and_then(doc)),
        ("fewshot_config.gen_prefix", task.fewshot.gen_prefix.clone()),
    ];
    for (key, source) in sources {
        if let Some(source) = source {
            templates.check(&source).map_err(|e| EvalError::task(&task.origin, format!("`{key}`: {e}")))?;
        }
    }
    Ok(())
}

fn generation(fields: &Fields, fewshot_delimiter: &str) -> Result<Generation, EvalError> {
    let origin = fields.get("generation_kwargs").map_or(&fields.origin, |e| &e.origin).clone();
    let kwargs =
        Fields::nested(fields.map("generation_kwargs")?, "generation_kwargs", &origin, GENERATION_KEYS)?;
    let temperature = kwargs.number("temperature")?;
    let temperature = match kwargs.boolean("do_sample")? {
        Some(false) => 0.0,
        Some(true) => temperature.unwrap_or(1.0),
        None => temperature.unwrap_or(0.0),
    };
    let max_gen_toks =
        kwargs.count("max_gen_toks")?.or(kwargs.count("max_new_tokens")?).unwrap_or(MAX_GEN_TOKS);
    Ok(Generation {
        until: kwargs.strings("until")?.unwrap_or_else(|| vec![fewshot_delimiter.to_owned()]),
        max_gen_toks,
        temperature,
        top_k: kwargs.count("top_k")?.unwrap_or(0),
        top_p: kwargs.number("top_p")?.unwrap_or(1.0),
    })
}

fn fewshot(
    fields: &Fields,
    fewshot_delimiter: String,
    doc_to_choice: Option<&DocTo>,
    doc_to_text: DocTo,
    doc_to_target: DocTo,
) -> Result<Fewshot, EvalError> {
    let origin = fields.get("fewshot_config").map_or(&fields.origin, |e| &e.origin).clone();
    let own = Fields::nested(fields.map("fewshot_config")?, "fewshot_config", &origin, FEWSHOT_KEYS)?;
    let sampler = match own.string("sampler")?.as_deref() {
        None | Some("default") => Sampler::Random,
        Some("first_n") => Sampler::FirstN,
        Some(_) => return Err(own.wrong("sampler", "`default` or `first_n`")),
    };
    let mut samples = Vec::new();
    for sample in own.list("samples")?.unwrap_or_default() {
        let Value::Object(row) = sample else { return Err(own.wrong("samples", "a list of mappings")) };
        samples.push(row.clone());
    }
    let indices = match own.list("fewshot_indices")? {
        None => None,
        Some(list) => Some(
            list.iter()
                .map(|i| i.as_u64().map(|i| i as usize))
                .collect::<Option<Vec<_>>>()
                .ok_or_else(|| own.wrong("fewshot_indices", "row numbers from 0"))?,
        ),
    };
    let split = match own.string("split")? {
        Some(split) => Some(split),
        None => fields.string("fewshot_split")?,
    };
    let gen_prefix = match own.string("gen_prefix")? {
        Some(prefix) => Some(prefix),
        None => fields.string("gen_prefix")?,
    };
    Ok(Fewshot {
        sampler,
        split,
        samples,
        indices,
        doc_to_text: own.doc_to("doc_to_text")?.unwrap_or(doc_to_text),
        doc_to_choice: own.doc_to("doc_to_choice")?.or_else(|| doc_to_choice.cloned()),
        doc_to_target: own.doc_to("doc_to_target")?.unwrap_or(doc_to_target),
        gen_prefix,
        target_delimiter: match own.string("target_delimiter")? {
            Some(text) => text,
            None => fields.string("target_delimiter")?.unwrap_or_else(|| " ".into()),
        },
        delimiter: own.string("fewshot_delimiter")?.unwrap_or(fewshot_delimiter),
    })
}

fn metric_list(fields: &Fields, output_type: OutputType) -> Result<Vec<MetricSpec>, EvalError> {
    let Some(list) = fields.list("metric_list")? else {
        return Ok(metrics::defaults(output_type));
    };
    let origin = fields.get("metric_list").map_or(&fields.origin, |e| &e.origin);
    let specs = list
        .iter()
        .map(|item| {
            metrics::build(item, output_type)
                .map_err(|what| EvalError::task(origin, format!("`metric_list`: {what}")))
        })
        .collect::<Result<Vec<_>, _>>()?;
    if specs.is_empty() { Err(fields.wrong("metric_list", "at least one metric")) } else { Ok(specs) }
}

fn filter_list(fields: &Fields, output_type: OutputType) -> Result<Vec<Pipeline>, EvalError> {
    let Some(list) = fields.list("filter_list")? else {
        return Ok(vec![Pipeline::none()]);
    };
    let origin = fields.get("filter_list").map_or(&fields.origin, |e| &e.origin);
    let pipelines = list
        .iter()
        .map(|item| {
            filters::pipeline(item, output_type)
                .map_err(|what| EvalError::task(origin, format!("`filter_list`: {what}")))
        })
        .collect::<Result<Vec<_>, _>>()?;
    if pipelines.is_empty() { Ok(vec![Pipeline::none()]) } else { Ok(pipelines) }
}
