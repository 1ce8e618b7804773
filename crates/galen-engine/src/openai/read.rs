//! Request bodies: what a field asks for is done, or the request is refused.

use super::{ApiError, Fields, Kind};
use crate::request::{Input, Options, Request};
use galen_model::Sampling;
use serde_json::{Value, json};

/// Most prompts of a request.
pub const MAX_PROMPTS: usize = 128;
/// Likeliest tokens whose log-probabilities can be asked for, as OpenAI has it.
const MAX_TOP: u64 = 20;
/// Texts that can end an answer; OpenAI takes four.
const MAX_STOPS: usize = 16;

/// A request, read.
#[derive(Debug, Clone, PartialEq)]
pub struct Call {
    /// What kind.
    pub kind: Kind,
    /// For the engine.
    pub request: Request,
    /// Whether the request itself names a seed; else [`Call::seed`] is for the caller to choose.
    pub seeded: bool,
    /// Whether the answer comes in chunks.
    pub stream: bool,
    /// Whether a last chunk counts tokens.
    pub include_usage: bool,
}

impl Call {
    /// The seed for a request that names none.
    pub fn seed(&mut self, seed: u64) {
        if !self.seeded {
            self.request.options.sampling.seed = seed;
        }
    }
}

/// Reads a body.
pub fn read(kind: Kind, body: Value) -> Result<Call, ApiError> {
    let mut all = Fields::new(body)?;
    let fields = &mut all;
    let Some(model) = fields.text("model")? else {
        return Err(ApiError::field("model", "missing_parameter", "`model` is missing"));
    };
    let inputs = match kind {
        Kind::Chat => vec![messages(fields)?],
        Kind::Text => prompts(fields)?,
    };
    let (sampling, seeded) = sampling(fields)?;
    let options = Options {
        sampling,
        frequency_penalty: fields.number("frequency_penalty", -2.0..=2.0)?.unwrap_or(0.0),
        presence_penalty: fields.number("presence_penalty", -2.0..=2.0)?.unwrap_or(0.0),
        logit_bias: logit_bias(fields)?,
        max_tokens: max_tokens(kind, fields)?,
        stop: stop(fields)?,
        logprobs: logprobs(kind, fields)?,
        n: fields.count("n", 1..=128)?.unwrap_or(1) as usize,
        schema: if kind == Kind::Chat { schema(fields)? } else { None },
        ignore_eos: fields.flag("ignore_eos")?.unwrap_or(false),
    };
    let stream = fields.flag("stream")?.unwrap_or(false);
    let include_usage = stream_options(fields, stream)?;
    unsupported(kind, fields, options.n)?;
    all.done()?;
    Ok(Call { kind, request: Request { model, inputs, options }, seeded, stream, include_usage })
}

fn sampling(fields: &mut Fields) -> Result<(Sampling, bool), ApiError> {
    let seed = match fields.take("seed") {
        None => None,
        // OpenAI's seeds are signed.
        Some(v) => match v.as_u64().or_else(|| v.as_i64().map(i64::cast_unsigned)) {
            Some(seed) => Some(seed),
            None => return Err(ApiError::value("seed", "`seed` is not a whole number of 64 bits")),
        },
    };
    let sampling = Sampling {
        temperature: fields.number("temperature", 0.0..=2.0)?.unwrap_or(1.0),
        top_p: fields.number("top_p", 0.0..=1.0)?.unwrap_or(1.0),
        top_k: top_k(fields)?,
        min_p: fields.number("min_p", 0.0..=1.0)?.unwrap_or(0.0),
        repeat_penalty: fields.number("repetition_penalty", 0.01..=10.0)?.unwrap_or(1.0),
        seed: seed.unwrap_or(0),
    };
    Ok((sampling, seed.is_some()))
}

/// vLLM's: 0 and -1 keep all.
fn top_k(fields: &mut Fields) -> Result<usize, ApiError> {
    match fields.take("top_k") {
        None => Ok(0),
        Some(v) if v == json!(-1) => Ok(0),
        Some(v) => match v.as_u64().and_then(|n| usize::try_from(n).ok()) {
            Some(n) => Ok(n),
            None => Err(ApiError::value("top_k", "`top_k` is neither -1 nor a whole number")),
        },
    }
}

fn max_tokens(kind: Kind, fields: &mut Fields) -> Result<Option<usize>, ApiError> {
    let old = fields.count("max_tokens", 1..=u64::from(u32::MAX))?;
    let new = match kind {
        Kind::Chat => fields.count("max_completion_tokens", 1..=u64::from(u32::MAX))?,
        Kind::Text => None,
    };
    match (old, new) {
        (Some(old), Some(new)) if old != new => {
            let what = "`max_tokens` and `max_completion_tokens` contradict one another";
            Err(ApiError::value("max_completion_tokens", what))
        }
        // OpenAI's default for plain texts.
        (None, None) if kind == Kind::Text => Ok(Some(16)),
        (old, new) => Ok(new.or(old).map(|n| n as usize)),
    }
}

fn stop(fields: &mut Fields) -> Result<Vec<String>, ApiError> {
    let stop = fields.texts("stop")?;
    if stop.len() > MAX_STOPS {
        return Err(ApiError::value("stop", format!("`stop` holds more than {MAX_STOPS} texts")));
    }
    if stop.iter().any(String::is_empty) {
        return Err(ApiError::value("stop", "`stop` holds an empty text"));
    }
    Ok(stop)
}

/// `response_format`: the schema of the answer, where it is to have one.
fn schema(fields: &mut Fields) -> Result<Option<Value>, ApiError> {
    let wrong = |what: &str| ApiError::value("response_format", format!("`response_format`: {what}"));
    let Some(format) = fields.take("response_format") else { return Ok(None) };
    match format["type"].as_str() {
        Some("text") => Ok(None),
        Some("json_object") => Ok(Some(json!({"type": "object"}))),
        Some("json_schema") => match &format["json_schema"]["schema"] {
            schema @ Value::Object(_) => Ok(Some(schema.clone())),
            _ => Err(wrong("`json_schema.schema` is not an object")),
        },
        _ => Err(wrong("its type is none of `text`, `json_object`, `json_schema`")),
    }
}

fn logit_bias(fields: &mut Fields) -> Result<Vec<(u32, f32)>, ApiError> {
    let wrong =
        || ApiError::value("logit_bias", "`logit_bias` is not an object of token ids to -100 ... 100");
    let Some(value) = fields.take("logit_bias") else { return Ok(Vec::new()) };
    let Value::Object(map) = value else { return Err(wrong()) };
    let entry = |(id, bias): (String, Value)| {
        let bias = bias.as_f64().filter(|b| (-100.0..=100.0).contains(b)).ok_or_else(wrong)?;
        Ok((id.parse().map_err(|_| wrong())?, bias as f32))
    };
    map.into_iter().map(entry).collect()
}

fn logprobs(kind: Kind, fields: &mut Fields) -> Result<Option<usize>, ApiError> {
    if kind == Kind::Text {
        return Ok(fields.count("logprobs", 0..=MAX_TOP)?.map(|n| n as usize));
    }
    let wanted = fields.flag("logprobs")?.unwrap_or(false);
    match fields.count("top_logprobs", 0..=MAX_TOP)? {
        Some(_) if !wanted => {
            Err(ApiError::value("top_logprobs", "`top_logprobs` is there and `logprobs` is not true"))
        }
        top => Ok(wanted.then_some(top.unwrap_or(0) as usize)),
    }
}

fn stream_options(fields: &mut Fields, stream: bool) -> Result<bool, ApiError> {
    let Some(options) = fields.take("stream_options") else { return Ok(false) };
    if !stream {
        return Err(ApiError::value("stream_options", "`stream_options` is there and `stream` is not true"));
    }
    let wrong =
        |_| ApiError::value("stream_options", "`stream_options` is not an object with `include_usage`");
    let mut options = Fields::new(options).map_err(wrong)?;
    let include = options.flag("include_usage").map_err(wrong)?.unwrap_or(false);
    // Padding against observers of lengths: none is added, and the text is the same.
    options.skip(&["include_obfuscation"]);
    options.done().map_err(wrong)?;
    Ok(include)
}

/// What this server does not do, refused where it is asked for; what changes no answer, passed over.
fn unsupported(kind: Kind, fields: &mut Fields, n: usize) -> Result<(), ApiError> {
    fields.skip(&["user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key"]);
    let off = |v: &Value| *v == json!(false);
    match kind {
        Kind::Chat => {
            let empty = |v: &Value| v.as_array().is_some_and(Vec::is_empty);
            fields.only("tools", empty, "this server calls no tools")?;
            fields.only("functions", empty, "this server calls no functions")?;
            fields.only(
                "tool_choice",
                |v| matches!(v.as_str(), Some("none" | "auto")),
                "this server calls no tools",
            )?;
            fields.skip(&["parallel_tool_calls"]);
            fields.only("modalities", |v| *v == json!(["text"]), "this server answers in text alone")?;
        }
        Kind::Text => {
            fields.only("echo", off, "this server does not repeat the prompt")?;
            fields.only(
                "best_of",
                |v| *v == json!(n),
                "this server makes no more completions than it returns",
            )?;
            fields.only("suffix", |v| *v == json!(""), "this server does not fill in the middle")?;
        }
    }
    Ok(())
}

fn prompts(fields: &mut Fields) -> Result<Vec<Input>, ApiError> {
    let wrong =
        || ApiError::value("prompt", "`prompt` is neither a text, nor token ids, nor a list of either");
    let Some(prompt) = fields.take("prompt") else {
        return Err(ApiError::field("prompt", "missing_parameter", "`prompt` is missing"));
    };
    let ids = |list: &[Value]| -> Option<Vec<u32>> {
        list.iter().map(|v| v.as_u64().and_then(|id| u32::try_from(id).ok())).collect()
    };
    let one = |value: &Value| match value {
        Value::String(text) => Some(Input::Text(text.clone())),
        Value::Array(list) => ids(list).map(Input::Tokens),
        _ => None,
    };
    let inputs: Vec<Input> = match &prompt {
        Value::Array(list) if list.is_empty() => Err(wrong()),
        Value::Array(list) if !list[0].is_number() => list.iter().map(|v| one(v).ok_or_else(wrong)).collect(),
        other => Ok(vec![one(other).ok_or_else(wrong)?]),
    }?;
    if inputs.len() > MAX_PROMPTS {
        return Err(ApiError::value("prompt", format!("`prompt` holds more than {MAX_PROMPTS} prompts")));
    }
    Ok(inputs)
}

fn messages(fields: &mut Fields) -> Result<Input, ApiError> {
    let list = match fields.take("messages") {
        Some(Value::Array(list)) if !list.is_empty() => list,
        Some(_) => return Err(ApiError::value("messages", "`messages` is not a list of messages")),
        None => return Err(ApiError::field("messages", "missing_parameter", "`messages` is missing")),
    };
    let messages = list.into_iter().enumerate().map(|(i, m)| message(i, m)).collect::<Result<_, _>>()?;
    Ok(Input::Chat(messages))
}

/// A message as the chat template takes it: its parts of text joined.
fn message(i: usize, value: Value) -> Result<Value, ApiError> {
    let at = |field: &str| format!("messages[{i}]{field}");
    let fail = |field: &str, what: &str| ApiError::value(&at(field), format!("`{}` {what}", at(field)));
    let mut fields = Fields::new(value).map_err(|_| fail("", "is not an object"))?;
    let Ok(Some(role)) = fields.text("role") else {
        return Err(fail(".role", "is not a string"));
    };
    // OpenAI's newer word, which templates do not know.
    let role = if role == "developer" { "system".to_owned() } else { role };
    if !["system", "user", "assistant"].contains(&role.as_str()) {
        return Err(fail(".role", "is none of `system`, `developer`, `user`, `assistant`"));
    }
    let content = match fields.take("content") {
        Some(Value::String(text)) => text,
        Some(Value::Array(parts)) => {
            let text = |part: &Value| match (part["type"].as_str(), part["text"].as_str()) {
                (Some("text"), Some(text)) => Ok(text.to_owned()),
                _ => Err(fail(".content", "holds a part that is not text")),
            };
            parts.iter().map(text).collect::<Result<String, _>>()?
        }
        _ => return Err(fail(".content", "is neither a string nor a list of parts")),
    };
    let mut message = json!({"role": role, "content": content});
    if let Some(name) = fields.text("name").map_err(|_| fail(".name", "is not a string"))? {
        message["name"] = name.into();
    }
    let empty = |v: &Value| v.as_array().is_some_and(Vec::is_empty);
    fields
        .only("tool_calls", empty, "this server calls no tools")
        .and_then(|()| fields.only("refusal", |v| *v == json!(""), "a template does not show it"))
        .and_then(|()| fields.only("annotations", empty, "a template does not show it"))
        .and_then(|()| fields.done())
        .map_err(|e| {
            let field = e.param.as_deref().unwrap_or_default();
            ApiError { param: Some(at(&format!(".{field}"))), ..e }
        })?;
    Ok(message)
}
